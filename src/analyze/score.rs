//! From candidates to scores: how odd it is, in its place and in its table, that a host shows something so rare.
//!
//! The channels gave each candidate its bits. The table is calibrated once more: where every host has something as odd, one
//! more is worth less. A host is its best cause, lightly helped by its next few: never the sum of its noise.

use std::collections::{HashMap, HashSet};

use polars::prelude::*;

use super::candidate::Candidate;
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

/// The score of each candidate of one table that was found by comparing hosts, 0 to 100; `weight` is what the table's
/// rows are worth, 0 to 1.
pub(super) fn scores(candidates: &[Candidate], weight: f64) -> Result<Vec<f64>> {
    let as_odd = hosts_as_odd(candidates)?;
    let score = |(candidate, as_odd): (&Candidate, u32)| {
        let factor = if candidate.kind == FindingKind::Missing { MISSING_FACTOR } else { 1.0 };
        weight * factor * fleet_strength(candidate, as_odd)
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

/// In what the hosts of one table differ from a baseline, and what one difference is worth.
#[derive(Debug)]
pub(super) struct Differences {
    hosts_answered: u64,
    weight: f64,
    /// How many rows of the table differ, per host and kind.
    crowds: HashMap<(u32, FindingKind), u32>,
    /// By kind: hosts that differ in a way of their own.
    unsettled: HashMap<FindingKind, HashSet<u32>>,
}

impl Differences {
    pub(super) fn new(hosts_answered: u64, weight: f64) -> Self {
        Self { hosts_answered, weight, crowds: HashMap::new(), unsettled: HashMap::new() }
    }

    /// A difference of some hosts; that many have the row.
    pub(super) fn note(&mut self, kind: FindingKind, hosts_with_row: u64, hosts: impl Iterator<Item = u32>) {
        let is_own = self.is_own(kind, hosts_with_row);
        for host in hosts {
            *self.crowds.entry((host, kind)).or_default() += 1;
            if is_own {
                self.unsettled.entry(kind).or_default().insert(host);
            }
        }
    }

    /// The score of a difference of one host, 0 to 100 times the weight of the table; that many hosts have the row, and
    /// that many contents of the thing are normal.
    pub(super) fn score(&self, (kind, host): (FindingKind, u32), hosts_with_row: u64, contents: u64) -> f64 {
        let missing = if kind == FindingKind::Missing { MISSING_FACTOR } else { 1.0 };
        let crowd = self.crowds.get(&(host, kind)).copied().unwrap_or(1);
        let contents = if kind == FindingKind::Missing { 1 } else { contents };
        let strength = self.strength((kind, hosts_with_row), (contents, crowd));
        self.weight * missing * (strength * self.quiet(kind, hosts_with_row))
    }

    /// A row that half of the fleet has too is a deploy; one among a hundred new rows of its table says little, and so
    /// does one more content of a thing that had many.
    fn strength(&self, (kind, hosts_with_row): (FindingKind, u64), (contents, crowd): (u64, u32)) -> f64 {
        let others = hosts_with_row.saturating_sub(1) as f64;
        let peers = self.hosts_answered.saturating_sub(1).max(1) as f64;
        let shared = match kind {
            FindingKind::Missing => 1.0,
            _ => 1.0 - 0.6 * (others / peers).min(1.0),
        };
        let restless = 1.0 + (contents.max(1) as f64).log2();
        BASELINE_SCORE * shared / restless / (1.0 + (1.0 + f64::from(crowd.saturating_sub(1)) / 4.0).log2())
    }

    /// A row that few hosts have; of a small fleet, one.
    fn is_own(&self, kind: FindingKind, hosts_with_row: u64) -> bool {
        let alike = match kind {
            FindingKind::Missing => self.hosts_answered.saturating_sub(hosts_with_row),
            _ => hosts_with_row,
        };
        alike as f64 <= (self.hosts_answered as f64 * OWN).max(1.0)
    }

    /// Where every host differs from the baseline in a way of its own, one more difference of that kind is no news.
    fn quiet(&self, kind: FindingKind, hosts_with_row: u64) -> f64 {
        if self.hosts_answered < FEWEST_TO_COMPARE || !self.is_own(kind, hosts_with_row) {
            return 1.0;
        }
        let hosts = self.hosts_answered as f64;
        let differ = self.unsettled.get(&kind).map_or(1, HashSet::len) as f64;
        surprise(differ, hosts) / hosts.log2()
    }
}

/// For each candidate: how many hosts have one of the same method with at least as many bits in this table.
fn hosts_as_odd(candidates: &[Candidate]) -> Result<Vec<u32>> {
    let cannot = |source: PolarsError| Error::internal("cannot score candidates").source(source);
    let counted = oddest_of_hosts(frame(candidates).map_err(cannot)?).collect().map_err(cannot)?;
    let methods = counted.column("method").and_then(|column| column.u32()).map_err(cannot)?;
    let oddest = counted.column("oddest").and_then(|column| column.u32()).map_err(cannot)?;
    let mut by_method: HashMap<u32, Vec<u32>> = HashMap::new();
    for (method, oddest) in methods.into_no_null_iter().zip(oddest.into_no_null_iter()) {
        by_method.entry(method).or_default().push(oddest);
    }
    by_method.values_mut().for_each(|oddest| oddest.sort_unstable());
    let as_odd = |candidate: &Candidate| {
        let oddest = by_method.get(&(candidate.method as u32)).map_or(&[][..], Vec::as_slice);
        (oddest.len() - oddest.partition_point(|other| *other < oddness(candidate))) as u32
    };
    Ok(candidates.iter().map(as_odd).collect())
}

/// Bits in thousandths, so that equal ones are equal.
fn oddness(candidate: &Candidate) -> u32 {
    (candidate.bits * 1000.0) as u32
}

fn frame(candidates: &[Candidate]) -> PolarsResult<DataFrame> {
    let column = |name: &str, of: &dyn Fn(&Candidate) -> u32| {
        Column::new(name.into(), candidates.iter().map(of).collect::<Vec<u32>>())
    };
    DataFrame::new_infer_height(vec![
        column("method", &|candidate| candidate.method as u32),
        column("host", &|candidate| candidate.host),
        column("oddness", &oddness),
    ])
}

/// For each method and host how odd its oddest candidate is.
fn oddest_of_hosts(candidates: DataFrame) -> LazyFrame {
    candidates.lazy().group_by([col("method"), col("host")]).agg([col("oddness").max().alias("oddest")])
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
    use super::super::candidate::{Method, Subject};
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
