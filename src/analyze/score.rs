//! From candidates to scores: how odd it is, in its place, that a host shows something so rare.
//!
//! A candidate is calibrated by what the other hosts do in the same place: if every host shows one row of its own
//! there, a row of its own is worth nothing; where nobody else does, it is worth log2 of the number of hosts. A host
//! is its best cause, lightly helped by its next few: never the sum of its noise.

use std::collections::HashMap;

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

/// The score of each candidate of one table, 0 to 100; `weight` is what the table's rows are worth, 0 to 1.
pub(super) fn scores(candidates: &[Candidate], weight: f64) -> Result<Vec<f64>> {
    let exceedances = exceedances(candidates)?;
    let crowds = crowds(candidates);
    let score = |(candidate, as_odd): (&Candidate, [u32; 2])| {
        let strength = match candidate.method {
            Method::Frequency => frequency_strength(candidate, as_odd),
            Method::Baseline => baseline_strength(candidate, crowds[&crowd(candidate)]),
        };
        let factor = if candidate.kind == FindingKind::Missing { MISSING_FACTOR } else { 1.0 };
        weight * factor * strength
    };
    Ok(candidates.iter().zip(exceedances).map(score).collect())
}

/// Bits of surprise, the mean of the two places, as a share of the most that a fleet can give.
fn frequency_strength(candidate: &Candidate, as_odd: [u32; 2]) -> f64 {
    let hosts = candidate.hosts_answered as f64;
    let bits = |as_odd: u32| surprise(f64::from(as_odd), hosts);
    let most = hosts.max(FULL_SCORE_HOSTS).log2();
    100.0 * (bits(as_odd[0]) + bits(as_odd[1])) / 2.0 / most
}

/// What one more bit of surprise is worth in a table of that weight: the unit of [`scores`].
pub(super) fn of_bits(weight: f64, hosts_answered: u64) -> f64 {
    weight * 100.0 / (hosts_answered as f64).max(FULL_SCORE_HOSTS).log2()
}

/// `-log2` of the share of hosts that are at least as odd in a place; the host itself is one of them.
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

/// For each candidate and each of its two places: how many hosts show something at least as rare there.
fn exceedances(candidates: &[Candidate]) -> Result<Vec<[u32; 2]>> {
    let first = exceedance(candidates, 0)?;
    let second = exceedance(candidates, 1)?;
    Ok(first.into_iter().zip(second).map(|(first, second)| [first, second]).collect())
}

fn exceedance(candidates: &[Candidate], place: usize) -> Result<Vec<u32>> {
    let cannot = |source: PolarsError| Error::internal("cannot score candidates").source(source);
    let frame = frame(candidates, place).map_err(cannot)?;
    let counted = count_as_odd(frame.lazy()).collect().map_err(cannot)?;
    let numbers = counted.column("number").and_then(|column| column.u32()).map_err(cannot)?;
    let as_odd = counted.column("as_odd").and_then(|column| column.u32()).map_err(cannot)?;
    let mut result = vec![1; candidates.len()];
    for (number, as_odd) in numbers.into_no_null_iter().zip(as_odd.into_no_null_iter()) {
        result[number as usize] = as_odd;
    }
    Ok(result)
}

/// Commonness of a row, or of its absence: how many hosts are like this one.
fn hosts_alike(candidate: &Candidate) -> u32 {
    let alike = match candidate.kind {
        FindingKind::Missing => candidate.hosts_answered.saturating_sub(candidate.hosts_with_row),
        _ => candidate.hosts_with_row,
    };
    u32::try_from(alike).unwrap_or(u32::MAX)
}

fn frame(candidates: &[Candidate], place: usize) -> PolarsResult<DataFrame> {
    let column = |name: &str, of: &dyn Fn(&Candidate) -> u32| {
        Column::new(name.into(), candidates.iter().map(of).collect::<Vec<u32>>())
    };
    let places: Vec<u64> = candidates.iter().map(|candidate| candidate.places[place]).collect();
    let numbers: Vec<u32> = (0..candidates.len() as u32).collect();
    DataFrame::new_infer_height(vec![
        Column::new("number".into(), numbers),
        Column::new("place".into(), places),
        column("host", &|candidate| candidate.host),
        column("alike", &hosts_alike),
    ])
}

/// Adds `as_odd`: hosts whose rarest candidate of the place is at least as rare as this one.
fn count_as_odd(candidates: LazyFrame) -> LazyFrame {
    let place = [col("place")];
    let level = [col("place"), col("alike")];
    let rarest_of_host =
        candidates.clone().group_by([col("place"), col("host")]).agg([col("alike").min().alias("rarest")]);
    let levels = candidates.clone().select(level.clone()).unique(None, UniqueKeepStrategy::Any);
    let counts = levels
        .join(rarest_of_host, place.clone(), place, JoinArgs::new(JoinType::Inner))
        .filter(col("rarest").lt_eq(col("alike")))
        .group_by(level.clone())
        .agg([len().cast(DataType::UInt32).alias("as_odd")]);
    candidates.join(counts, level.clone(), level, JoinArgs::new(JoinType::Left))
}

/// A host's score from the best score of each of its causes, 0 to 100.
pub(super) fn host_score(mut best_of_causes: Vec<f64>) -> f64 {
    best_of_causes.sort_by(|a, b| b.total_cmp(a));
    let weighted: f64 = best_of_causes.iter().zip(CAUSE_WEIGHTS).map(|(score, weight)| score * weight).sum();
    // An empty sum is -0.0.
    weighted.max(0.0) / CAUSE_WEIGHTS.iter().sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::super::candidate::Subject;
    use super::*;

    fn candidate(host: u32, place: u64, hosts_with_row: u64) -> Candidate {
        Candidate {
            host,
            kind: FindingKind::New,
            subject: Subject::Line(0),
            nearest: None,
            places: [place, place],
            hosts_with_row,
            hosts_answered: 64,
            known_contents: 1,
            hosts_with_thing: 1,
            rare_columns: Vec::new(),
            method: Method::Frequency,
            id: [0; 16],
            strict: None,
        }
    }

    #[test]
    fn where_every_host_has_a_row_of_its_own_one_is_worth_nothing() {
        let everybody: Vec<Candidate> = (0..64).map(|host| candidate(host, 1, 1)).collect();
        let found = scores(&everybody, 1.0).unwrap();
        assert!(found.iter().all(|score| *score == 0.0), "{found:?}");
    }

    #[test]
    fn where_nobody_else_has_one_it_is_worth_the_most() {
        let mut candidates: Vec<Candidate> = (0..64).map(|host| candidate(host, 1, 1)).collect();
        candidates.push(candidate(7, 2, 1));
        assert_eq!(scores(&candidates, 1.0).unwrap()[64], 100.0);
        assert_eq!(scores(&candidates, 0.5).unwrap()[64], 50.0);
    }

    #[test]
    fn rarer_rows_of_others_count_and_more_common_ones_do_not() {
        let candidates = [candidate(0, 1, 1), candidate(1, 1, 2), candidate(2, 1, 2), candidate(2, 1, 1)];
        let as_odd: Vec<u32> = exceedance(&candidates, 0).unwrap();
        assert_eq!(as_odd, [2, 3, 3, 2]);
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
