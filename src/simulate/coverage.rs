//! Which hosts do not answer, or not as they should.

use std::collections::BTreeMap;

use rand::Rng;
use rand::seq::SliceRandom;

use super::seed;
use crate::model::Status;

/// How a host answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answering {
    /// Every table that it has.
    Fully,
    /// Not every table.
    Partly,
    /// Everything, without the columns that came late.
    OldAgent,
    /// Nothing.
    Never,
}

/// Below this many hosts, all of them answer: nobody wants to look at a fleet of ten of which three are broken.
const FEWEST: usize = 30;

/// The hosts, by number, that do not answer fully.
pub(super) fn exceptions(hosts: usize, seed: u64) -> BTreeMap<usize, Answering> {
    if hosts < FEWEST {
        return BTreeMap::new();
    }
    let mut numbers: Vec<usize> = (0..hosts).collect();
    numbers.shuffle(&mut seed::stream(seed, &["coverage"]));
    let shares = [(Answering::Never, 200), (Answering::OldAgent, 150), (Answering::Partly, 125)];
    let kinds = shares.iter().flat_map(|(kind, share)| std::iter::repeat_n(*kind, (hosts / share).max(1)));
    numbers.into_iter().zip(kinds).collect()
}

/// How the question for one table fails on a host, when it does, and what is said about it.
pub(super) fn failure(
    answering: Answering,
    seed: u64,
    host: &str,
    table: &str,
) -> Option<(Status, &'static str)> {
    match answering {
        Answering::Fully | Answering::OldAgent => None,
        Answering::Never => Some((Status::Undeliverable, "the agent did not pick up the command")),
        Answering::Partly => {
            // The table that takes longest on a slow disk always fails: such a host never answers in full.
            let draw = if table == "file" {
                0
            } else {
                seed::stream(seed, &["failure", host, table]).random_range(0..10)
            };
            match draw {
                0 => Some((Status::Timeout, "no answer within 60 s")),
                1 => Some((Status::Error, "vtable constructor failed")),
                _ => None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_two_percent_fail_and_every_kind_is_there() {
        assert!(exceptions(29, 1).is_empty());
        for (hosts, most) in [(30, 3), (1_000, 25), (5_000, 110)] {
            let found = exceptions(hosts, 1);
            assert!(found.len() <= most, "{hosts}: {}", found.len());
            for kind in [Answering::Never, Answering::OldAgent, Answering::Partly] {
                assert!(found.values().any(|answering| *answering == kind));
            }
        }
    }
}
