//! The definitions by which detection is measured, on cases that can be counted by hand.

#[path = "../../benches/detection/metrics.rs"]
pub(crate) mod metrics;

use std::collections::HashSet;

use self::metrics::{
    Page, average_precision, jaccard, mean, median, reached_by, read_by_host, recall_at, rows_above, ties,
};

fn about(found: Option<f64>, expected: f64) {
    let found = found.unwrap();
    assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
}

fn ap(ranked: &[(f64, bool)]) -> Option<f64> {
    average_precision(&ties(ranked))
}

#[test]
fn average_precision_without_ties() {
    about(ap(&[(3.0, true), (2.0, false), (1.0, true)]), (1.0 + 2.0 / 3.0) / 2.0);
    about(ap(&[(3.0, true), (2.0, true), (1.0, false)]), 1.0);
    assert_eq!(ap(&[(3.0, false)]), None);
}

/// The expected value is the mean over all orders of the tied hosts.
#[test]
fn average_precision_with_ties_is_the_mean_over_all_orders() {
    // One victim among three: precision 1, 1/2 or 1/3.
    about(ap(&[(1.0, true), (1.0, false), (1.0, false)]), (1.0 + 1.0 / 2.0 + 1.0 / 3.0) / 3.0);
    // A clean host, then two victims and a clean host in three orders, then a victim.
    let orders = [[true, true, false], [true, false, true], [false, true, true]];
    let strict = |order: &[bool; 3]| {
        let victims = [false, order[0], order[1], order[2], true];
        let ranked: Vec<(f64, bool)> =
            victims.iter().enumerate().map(|(place, victim)| (-(place as f64), *victim)).collect();
        ap(&ranked).unwrap()
    };
    let expected = orders.iter().map(strict).sum::<f64>() / 3.0;
    about(ap(&[(9.0, false), (5.0, true), (5.0, true), (5.0, false), (1.0, true)]), expected);
}

#[test]
fn recall_counts_a_cut_tie_by_its_share() {
    let groups = ties(&[(2.0, true), (1.0, true), (1.0, false), (0.0, true)]);
    assert_eq!(
        groups.iter().map(|tie| (tie.hosts, tie.victims)).collect::<Vec<_>>(),
        [(1, 1), (2, 1), (1, 1)]
    );
    about(recall_at(&groups, 1), 1.0 / 3.0);
    about(recall_at(&groups, 2), 1.5 / 3.0);
    about(recall_at(&groups, 4), 1.0);
    assert_eq!(recall_at(&ties(&[(1.0, false)]), 1), None);
}

#[test]
fn rows_to_read_are_the_benign_ones_above() {
    let benign = [9.0, 5.0, 5.0, 1.0];
    let above = rows_above(&benign, &[Some(10.0), Some(5.0), Some(0.5), None]);
    assert_eq!(above, [Some(0.0), Some(2.0), Some(4.0), None]);
    assert_eq!(reached_by(&above, 0.5), Some(2.0));
    assert_eq!(reached_by(&above, 0.75), Some(4.0));
    assert_eq!(reached_by(&above, 0.9), None);
    assert_eq!(median(&[Some(3.0), None, Some(1.0)]), Some(3.0));
}

#[test]
fn nine_of_ten_are_nine() {
    let values: Vec<Option<f64>> = (1..=10).map(|value| Some(f64::from(value))).collect();
    assert_eq!(reached_by(&values, 0.9), Some(9.0));
    assert_eq!(reached_by(&values, 1.0), Some(10.0));
    assert_eq!(mean(&[1.0, 2.0]), Some(1.5));
    assert_eq!(mean(&[]), None);
}

#[test]
fn reading_by_host_counts_the_same_row_once() {
    let page = |benign: &[&str], victim, found| Page {
        benign: benign.iter().map(|row| (*row).to_owned()).collect(),
        victim,
        found,
    };
    let pages = [
        page(&["a", "b"], false, false),
        page(&["a", "c"], true, true),
        page(&["d"], true, false),
        page(&["b"], true, true),
    ];
    assert_eq!(read_by_host(&pages), [Some(3.0), None, Some(4.0)]);
}

#[test]
fn sets_are_compared_by_what_they_share() {
    let set = |names: &[&'static str]| names.iter().copied().collect::<HashSet<&str>>();
    about(Some(jaccard(&set(&["a", "b", "c"]), &set(&["b", "c", "d"]))), 0.5);
    about(Some(jaccard(&set(&[]), &set(&[]))), 1.0);
}
