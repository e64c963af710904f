//! What is measured, as functions of plain numbers.
//!
//! All methods, Diffy's and others', are measured by these definitions:
//!
//! * **Average precision** over hosts: for each compromised host the share of compromised hosts among those down to
//!   it, averaged. Hosts of equal score stand in random order; the expected value is taken. Chance gives about the
//!   share of compromised hosts.
//! * **Recall at k**: the share of the compromised hosts among the first k, k being their number; expected under ties.
//! * **First row**: the rank of the first planted row in its host's own list, among the rows of victims whose list has
//!   one; and the share of the victims whose first ten have one.
//! * **Rows to read**: all rows of all hosts in one list by score. For each victim the distinct benign rows above its
//!   first planted row are counted (rows of the same masked identity once, equal scores half); then the value that
//!   50 %, 90 % or all of the victims do not exceed. *Never* when fewer have a planted row in the list.
//! * **Read by host**: as a person reads. Hosts from the top, the rows of each from the top, until a planted row shows
//!   or the list ends; benign rows of an identity that was read before count no more.
//!
//! Victims that show nothing but the lack of rows count for hosts, and not for rows.

use std::collections::HashSet;

/// Hosts of equal score.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tie {
    /// How many.
    pub(crate) hosts: usize,
    /// How many of them are compromised.
    pub(crate) victims: usize,
}

/// Groups ranked hosts, each with its score and whether it is compromised; neighbours of equal score are a tie.
pub(crate) fn ties(ranked: &[(f64, bool)]) -> Vec<Tie> {
    let same = |a: &(f64, bool), b: &(f64, bool)| a.0 == b.0;
    let tie = |group: &[(f64, bool)]| Tie {
        hosts: group.len(),
        victims: group.iter().filter(|(_, victim)| *victim).count(),
    };
    ranked.chunk_by(same).map(tie).collect()
}

/// Expected average precision; none without victims.
pub(crate) fn average_precision(ties: &[Tie]) -> Option<f64> {
    let victims: usize = ties.iter().map(|tie| tie.victims).sum();
    let (mut above, mut victims_above, mut sum) = (0.0, 0.0, 0.0);
    for tie in ties {
        let (hosts, inside) = (tie.hosts as f64, tie.victims as f64);
        // What another place of the tie holds, given that this one holds a victim.
        let others = if tie.hosts > 1 { (inside - 1.0) / (hosts - 1.0) } else { 0.0 };
        for place in 0..tie.hosts {
            let place = place as f64;
            sum += inside / hosts * (victims_above + 1.0 + place * others) / (above + place + 1.0);
        }
        above += hosts;
        victims_above += inside;
    }
    (victims > 0).then(|| sum / victims as f64)
}

/// Expected share of the victims among the first `places`; none without victims.
pub(crate) fn recall_at(ties: &[Tie], places: usize) -> Option<f64> {
    let victims: usize = ties.iter().map(|tie| tie.victims).sum();
    let (mut left, mut found) = (places as f64, 0.0);
    for tie in ties {
        let taken = left.min(tie.hosts as f64);
        found += tie.victims as f64 * taken / tie.hosts as f64;
        left -= taken;
    }
    (victims > 0).then(|| found / victims as f64)
}

/// For each victim's best planted row, how many benign rows are above; `benign` has the best score of each identity.
pub(crate) fn rows_above(benign: &[f64], planted: &[Option<f64>]) -> Vec<Option<f64>> {
    let mut benign = benign.to_vec();
    benign.sort_by(|a, b| b.total_cmp(a));
    let above = |score: f64| {
        let higher = benign.partition_point(|other| *other > score);
        let equal = benign[higher..].partition_point(|other| *other == score);
        higher as f64 + equal as f64 / 2.0
    };
    planted.iter().map(|score| score.map(above)).collect()
}

/// One host as a person reads it.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    /// Identities of the benign rows that are read: those above the first planted row, or all.
    pub(crate) benign: Vec<String>,
    /// Whether the host is one of the victims that count for rows.
    pub(crate) victim: bool,
    /// Whether a planted row ends the reading.
    pub(crate) found: bool,
}

/// For each victim, in the order of the pages: how many distinct benign rows were read before its planted row.
pub(crate) fn read_by_host(pages: &[Page]) -> Vec<Option<f64>> {
    let mut read = HashSet::new();
    let mut reached = Vec::new();
    for page in pages {
        read.extend(page.benign.iter().map(String::as_str));
        if page.victim {
            reached.push(page.found.then_some(read.len() as f64));
        }
    }
    reached
}

/// The value that `share` of the victims do not exceed; none when fewer have one.
pub(crate) fn reached_by(values: &[Option<f64>], share: f64) -> Option<f64> {
    let mut known: Vec<f64> = values.iter().copied().flatten().collect();
    known.sort_by(f64::total_cmp);
    // 0.9 of 10 is 9, whatever floating point says.
    let needed = (share * values.len() as f64 - 1e-9).ceil().max(1.0) as usize;
    known.get(needed - 1).copied()
}

/// How alike two sets are: shared members by all members; 1 for two empty sets.
pub(crate) fn jaccard(a: &HashSet<&str>, b: &HashSet<&str>) -> f64 {
    let shared = a.intersection(b).count();
    let all = a.len() + b.len() - shared;
    if all == 0 { 1.0 } else { shared as f64 / all as f64 }
}

/// The mean; none of nothing.
pub(crate) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The middle value, of an even number the lower middle; what never happened is greater than all.
pub(crate) fn median(values: &[Option<f64>]) -> Option<f64> {
    reached_by(values, 0.5)
}
