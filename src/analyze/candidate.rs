//! What the methods hand to the scoring: rows of one table, or absences, that stand out on a host.

use std::sync::Arc;

use super::lines::Id;
use crate::model::{FindingKind, Row};

/// A row that a candidate is about or is compared with.
#[derive(Debug, Clone)]
pub(super) enum Subject {
    /// A line of the table's prevalence.
    Line(usize),
    /// A row that a baseline knows.
    Known(Arc<Row>),
}

/// A row or an absence that stands out on one host.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// Ordinal of the host.
    pub(super) host: u32,
    pub(super) kind: FindingKind,
    /// The line it is about: the host's own, or for an absence that of its peers.
    pub(super) subject: Subject,
    /// The most alike row that is normal and how many hosts have it, where the method knows it.
    pub(super) nearest: Option<(Subject, u64)>,
    /// Where else a host could stand out in the same way: candidates of one place are calibrated by each other.
    pub(super) places: [u64; 2],
    /// Hosts, of those that can be compared, that have the row.
    pub(super) hosts_with_row: u64,
    /// Hosts that can be compared.
    pub(super) hosts_answered: u64,
    /// Hosts, of those that can be compared, that have the thing with whatever content.
    pub(super) hosts_with_thing: u64,
    /// How many contents of the same thing are known to be normal; where many are, one more says little.
    pub(super) known_contents: u64,
    /// Columns that make the row stand out; empty when it is their combination.
    pub(super) rare_columns: Vec<String>,
    pub(super) method: Method,
    /// Loose id, or strict id where the content is what stands out.
    pub(super) id: Id,
    /// Strict id of the host's own row; none for an absence.
    pub(super) strict: Option<Id>,
}

/// The views that can be asked for alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Against the other hosts of the snapshot.
    Frequency,
    /// Against a named baseline.
    Baseline,
    /// Against earlier snapshots of the fleet.
    History,
}

impl Method {
    /// All methods.
    pub const ALL: [Self; 3] = [Self::Baseline, Self::Frequency, Self::History];

    /// The name on the command line and in outputs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Frequency => "frequency",
            Self::Baseline => "baseline",
            Self::History => "history",
        }
    }
}

/// Stable numbers for places, from what they are made of.
pub(super) fn place(parts: &[&[u8]]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&digest(parts).as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// A digest that no other list of parts has.
pub(super) fn digest(parts: &[&[u8]]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    hasher.finalize()
}
