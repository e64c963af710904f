//! The stages of the scoring, one after another, on small fleets.

use super::testing::Fleet;
use super::*;
use crate::model::FindingKind;

/// Hosts of the fleet below.
const HOSTS: u32 = 40;
/// The one with a strong finding.
const STRONG: u32 = 39;

/// Half of the hosts have rows of their own in several tables, as many as ten in each; one host has a single row in a
/// table where everybody else is alike.
fn noisy_fleet() -> Fleet {
    let mut fleet = Fleet::new(HOSTS, |host| format!("web-{host}"));
    fleet.row("sudoers", "source=/etc/sudoers|header=root|rule_details=ALL=(ALL) ALL", 0..HOSTS);
    fleet.row("sudoers", "source=/etc/sudoers|header=mallory|rule_details=ALL=(ALL) NOPASSWD: ALL", [STRONG]);
    for (table, column) in [("file", "path"), ("process_envs", "value"), ("shell_history", "command")] {
        fleet.row(table, &format!("{column}=usual"), 0..HOSTS);
        for (host, number) in (0..HOSTS / 2).flat_map(|host| (0..10).map(move |number| (host, number))) {
            let own =
                ["ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine"][number];
            let letter = char::from(b'a' + host as u8);
            fleet.row(table, &format!("{column}={letter}{own}"), [host]);
        }
    }
    fleet
}

/// What each host is found to have: findings, with the values that tell their cause.
fn findings_of(fleet: &Fleet) -> Vec<Vec<(Finding, Vec<String>)>> {
    let loaded = fleet.loaded();
    let explanations = Explanations::new(&loaded);
    let groups = PeerGroups::default();
    let mut found = vec![Vec::new(); HOSTS as usize];
    for table in &loaded {
        let views = views::views(table);
        let candidates = frequency::candidates(table, &views, (&groups, &explanations), &HashMap::new());
        let scores = score::scores(&candidates, table.lines.spec.weight).unwrap();
        let common = CommonLines::new(table);
        let explainer = Explainer { lines: &table.lines, common: &common };
        let mut spots = Spots::new(&table.lines, &views);
        for (candidate, score) in rank::worth_showing(candidates, scores) {
            let spot = spots.of(&candidate);
            let host = &fleet.state.hosts[candidate.host as usize];
            let finding = explainer.finding((&candidate, spot.as_ref()), (host, None), score);
            let telling = cause::telling_values(&candidate, &finding);
            found[candidate.host as usize].push((finding, telling));
        }
    }
    for findings in &mut found {
        findings.sort_by(|(a, _), (b, _)| b.score.total_cmp(&a.score));
    }
    found
}

/// The host that has the most of what `score` gives.
fn first(found: &[Vec<(Finding, Vec<String>)>], score: impl Fn(&[(Finding, Vec<String>)]) -> f64) -> usize {
    let scores: Vec<f64> = found.iter().map(|findings| score(findings)).collect();
    (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap()
}

#[test]
fn one_strong_finding_outranks_many_weak_ones_and_a_sum_would_turn_it_round() {
    let found = findings_of(&noisy_fleet());
    assert_eq!(found[STRONG as usize].len(), 1, "{:#?}", found[STRONG as usize]);
    assert!(found[0].len() >= 10, "the noise is there: {}", found[0].len());
    let best = first(&found, |findings| score::host_score(cause::best_of_causes(findings)));
    assert_eq!(best, STRONG as usize);
    let sum = first(&found, |findings| findings.iter().map(|(finding, _)| finding.score).sum());
    assert_ne!(sum, STRONG as usize, "this fleet tells the two apart");
}

fn candidate(host: u32, row: u8, alike: Option<u64>) -> Candidate {
    Candidate {
        alike,
        strict: Some([row; 16]),
        ..Candidate::new(Method::Frequency, FindingKind::New, host, Subject::Line(0))
    }
}

#[test]
fn rows_of_a_host_that_differ_by_counting_are_shown_once() {
    let candidates = vec![
        candidate(1, 1, Some(7)),
        candidate(1, 2, Some(7)),
        candidate(1, 3, Some(8)),
        candidate(2, 1, Some(7)),
        candidate(2, 2, None),
        candidate(2, 3, None),
    ];
    let kept = rank::worth_showing(candidates, vec![50.0, 60.0, 40.0, 30.0, 20.0, 9.0]);
    let kept: Vec<_> = kept.iter().map(|(candidate, score)| (candidate.host, *score)).collect();
    assert_eq!(kept, [(1, 60.0), (1, 40.0), (2, 30.0), (2, 20.0)], "the strongest of each, and no noise");
}

#[test]
fn a_row_that_two_methods_found_is_shown_once_and_of_a_table_only_so_many() {
    let found = rank::worth_showing(vec![candidate(1, 1, None), candidate(1, 1, None)], vec![50.0, 60.0]);
    assert_eq!(found.iter().map(|(_, score)| *score).collect::<Vec<_>>(), [60.0]);
    let many = (0..200).map(|row| candidate(1, row, None)).collect();
    assert!(rank::worth_showing(many, vec![50.0; 200]).len() < 50);
}
