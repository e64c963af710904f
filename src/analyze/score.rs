//! From candidates to scores: how odd it is, in its place and in its table, that a host shows something so rare.
//!
//! The channels gave each candidate its bits. The table is calibrated once more: where every host has something as odd, one
//! more is worth less. A host is its best cause, lightly helped by its next few: never the sum of its noise.

use std::collections::{HashMap, HashSet};

use polars::prelude::*;

use super::candidate::{Candidate, Method};
use crate::error::{Error, Result};
use crate::model::FindingKind;

/// A fleet of fewer hosts cannot reach the full score: one host of five with something of its own is expected.
const FULL_SCORE_HOSTS: f64 = 30.0;
/// What a host's strongest causes weigh: the first nearly alone, the next few lightly, the rest not at all.
const CAUSE_WEIGHTS: [f64; 5] = [1.0, 0.2, 0.15, 0.1, 0.05];
/// What is missing says a little less than what is there.
const MISSING_FACTOR: f64 = 0.95;
/// Score of a row that the baseline does not have, when it is the only one of its table.
const BASELINE_SCORE: f64 = 100.0;
/// Share of the hosts up to which a row is a host's own.
const OWN: f64 = 0.05;
/// Fewer hosts say nothing about what is usual beside a baseline.
const FEWEST_TO_COMPARE: u64 = 8;
/// What the channel says against what the table says.
const CHANNEL_SHARE: f64 = 0.6;

/// The score of each candidate of one table, 0 to 100; `weight` is what the table's rows are worth, 0 to 1.
pub(super) fn scores(candidates: &[Candidate], weight: f64) -> Result<Vec<f64>> {
    let as_odd = hosts_as_odd(candidates)?;
    let crowds = crowds(candidates);
    let unsettled = unsettled(candidates);
    let score = |(candidate, as_odd): (&Candidate, u32)| {
        let strength = match candidate.method {
            // What these find gets its score elsewhere.
            Method::Cluster | Method::Campaigns | Method::History => 0.0,
            Method::Frequency | Method::Missing => fleet_strength(candidate, as_odd),
            Method::Baseline => {
                baseline_strength(candidate, crowds[&crowd(candidate)]) * quiet(candidate, &unsettled)
            }
        };
        let factor = if candidate.kind == FindingKind::Missing { MISSING_FACTOR } else { 1.0 };
        weight * factor * strength
    };
    Ok(candidates.iter().zip(as_odd).map(score).collect())
}

/// Bits of surprise, those of the channel and those of the table, as a share of the most that a fleet can give.
fn fleet_strength(candidate: &Candidate, as_odd: u32) -> f64 {
    let hosts = candidate.hosts_answered as f64;
    let most = hosts.max(FULL_SCORE_HOSTS).log2();
    let of_table = surprise(f64::from(as_odd), hosts).min(candidate.bits);
    let bits = CHANNEL_SHARE * candidate.bits + (1.0 - CHANNEL_SHARE) * of_table;
    (100.0 * bits / most).min(100.0)
}

/// What one more bit of surprise is worth in a table of that weight: the unit of [`scores`].
pub(super) fn of_bits(weight: f64, hosts_answered: u64) -> f64 {
    weight * 100.0 / (hosts_answered as f64).max(FULL_SCORE_HOSTS).log2()
}

/// `-log2` of the share of hosts that are at least as odd; the host itself is one of them.
pub(super) fn surprise(as_odd: f64, hosts: f64) -> f64 {
    (hosts / as_odd.max(1.0)).log2().max(0.0)
}

/// A row that half of the fleet has too is a deploy; one among a hundred new rows of its table says little, and so
/// does one more content of a thing that had many.
fn baseline_strength(candidate: &Candidate, crowd: u32) -> f64 {
    let others = candidate.hosts_with_row.saturating_sub(1) as f64;
    let peers = candidate.hosts_answered.saturating_sub(1).max(1) as f64;
    let shared = match candidate.kind {
        FindingKind::Missing => 1.0,
        _ => 1.0 - 0.6 * (others / peers).min(1.0),
    };
    let restless = 1.0 + (candidate.known_contents.max(1) as f64).log2();
    BASELINE_SCORE * shared / restless / (1.0 + (1.0 + f64::from(crowd.saturating_sub(1)) / 4.0).log2())
}

/// A row that few hosts have; of a small fleet, one.
fn is_own(candidate: &Candidate) -> bool {
    let alike = match candidate.kind {
        FindingKind::Missing => candidate.hosts_answered.saturating_sub(candidate.hosts_with_row),
        _ => candidate.hosts_with_row,
    };
    alike as f64 <= (candidate.hosts_answered as f64 * OWN).max(1.0)
}

/// By kind: hosts that differ from the baseline in a way of their own.
fn unsettled(candidates: &[Candidate]) -> HashMap<FindingKind, HashSet<u32>> {
    let mut hosts: HashMap<FindingKind, HashSet<u32>> = HashMap::new();
    for candidate in candidates.iter().filter(|one| one.method == Method::Baseline && is_own(one)) {
        hosts.entry(candidate.kind).or_default().insert(candidate.host);
    }
    hosts
}

/// Where every host differs from the baseline in a way of its own, one more difference of that kind is no news.
fn quiet(candidate: &Candidate, unsettled: &HashMap<FindingKind, HashSet<u32>>) -> f64 {
    if candidate.hosts_answered < FEWEST_TO_COMPARE || !is_own(candidate) {
        return 1.0;
    }
    let hosts = candidate.hosts_answered as f64;
    let differ = unsettled.get(&candidate.kind).map_or(1, HashSet::len) as f64;
    surprise(differ, hosts) / hosts.log2()
}

type Crowd = (u32, FindingKind);

fn crowd(candidate: &Candidate) -> Crowd {
    (candidate.host, candidate.kind)
}

/// How many rows of the table the baseline does not have, per host and kind.
fn crowds(candidates: &[Candidate]) -> HashMap<Crowd, u32> {
    let mut crowds = HashMap::new();
    for candidate in candidates.iter().filter(|candidate| candidate.method == Method::Baseline) {
        *crowds.entry(crowd(candidate)).or_default() += 1;
    }
    crowds
}

/// For each candidate: how many hosts have one of the same method with at least as many bits in this table.
fn hosts_as_odd(candidates: &[Candidate]) -> Result<Vec<u32>> {
    let cannot = |source: PolarsError| Error::internal("cannot score candidates").source(source);
    let frame = frame(candidates).map_err(cannot)?;
    let counted = count_as_odd(frame.lazy()).collect().map_err(cannot)?;
    let numbers = counted.column("number").and_then(|column| column.u32()).map_err(cannot)?;
    let as_odd = counted.column("as_odd").and_then(|column| column.u32()).map_err(cannot)?;
    let mut result = vec![1; candidates.len()];
    for (number, as_odd) in numbers.into_no_null_iter().zip(as_odd.into_no_null_iter()) {
        result[number as usize] = as_odd;
    }
    Ok(result)
}

/// Bits in thousandths, so that equal ones are equal.
fn oddness(candidate: &Candidate) -> u32 {
    (candidate.bits * 1000.0) as u32
}

fn frame(candidates: &[Candidate]) -> PolarsResult<DataFrame> {
    let column = |name: &str, of: &dyn Fn(&Candidate) -> u32| {
        Column::new(name.into(), candidates.iter().map(of).collect::<Vec<u32>>())
    };
    let numbers: Vec<u32> = (0..candidates.len() as u32).collect();
    DataFrame::new_infer_height(vec![
        Column::new("number".into(), numbers),
        column("method", &|candidate| candidate.method as u32),
        column("host", &|candidate| candidate.host),
        column("oddness", &oddness),
    ])
}

/// Adds `as_odd`: hosts whose oddest candidate of the method is at least as odd as this one.
fn count_as_odd(candidates: LazyFrame) -> LazyFrame {
    let method = [col("method")];
    let level = [col("method"), col("oddness")];
    let oddest_of_host =
        candidates.clone().group_by([col("method"), col("host")]).agg([col("oddness").max().alias("oddest")]);
    let levels = candidates.clone().select(level.clone()).unique(None, UniqueKeepStrategy::Any);
    let counts = levels
        .join(oddest_of_host, method.clone(), method, JoinArgs::new(JoinType::Inner))
        .filter(col("oddest").gt_eq(col("oddness")))
        .group_by(level.clone())
        .agg([len().cast(DataType::UInt32).alias("as_odd")]);
    candidates.join(counts, level.clone(), level, JoinArgs::new(JoinType::Left))
}

/// A host's score from the best score of each of its causes, 0 to 100.
pub(super) fn host_score(mut best_of_causes: Vec<f64>) -> f64 {
    best_of_causes.sort_by(|a, b| b.total_cmp(a));
    let weighted: f64 = best_of_causes.iter().zip(CAUSE_WEIGHTS).map(|(score, weight)| score * weight).sum();
    // An empty sum is -0.0, and stays it but for the addition.
    (weighted + 0.0) / CAUSE_WEIGHTS.iter().sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::super::candidate::Subject;
    use super::*;

    fn candidate(host: u32, bits: f64) -> Candidate {
        Candidate {
            bits,
            hosts_answered: 64,
            ..Candidate::new(Method::Frequency, FindingKind::New, host, Subject::Line(0))
        }
    }

    #[test]
    fn where_nobody_else_is_as_odd_it_is_worth_the_most() {
        let candidates = [candidate(7, 6.0), candidate(8, 1.0)];
        assert_eq!(scores(&candidates, 1.0).unwrap()[0], 100.0);
        assert_eq!(scores(&candidates, 0.5).unwrap()[0], 50.0);
    }

    #[test]
    fn of_a_table_in_which_every_host_is_odd_only_the_channel_is_left() {
        let everybody: Vec<Candidate> = (0..64).map(|host| candidate(host, 6.0)).collect();
        let expected = 100.0 * CHANNEL_SHARE;
        assert!(scores(&everybody, 1.0).unwrap().iter().all(|score| (score - expected).abs() < 1e-9));
    }

    #[test]
    fn less_odd_hosts_do_not_count_and_odder_ones_do() {
        let candidates = [candidate(0, 6.0), candidate(1, 4.0), candidate(2, 2.0), candidate(2, 6.0)];
        assert_eq!(hosts_as_odd(&candidates).unwrap(), [2, 3, 3, 2]);
    }

    /// A thousand rows of noise in one table must not outrank one strong row.
    #[test]
    fn a_host_is_its_best_finding_not_the_sum_of_its_noise() {
        let strong = host_score(vec![90.0]);
        let noisy = host_score(vec![30.0; 40]);
        assert!(strong > noisy, "{strong} {noisy}");
        assert_eq!(host_score(vec![100.0; 5]), 100.0);
        assert_eq!(host_score(Vec::new()), 0.0);
    }
}
