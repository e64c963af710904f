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
    /// How surprising it is in its place and channel, in bits.
    pub(super) bits: f64,
    /// Where a row of the method `frequency` stands out.
    pub(super) place: Option<Place>,
    /// The peer group that it was compared within; none for the fleet.
    pub(super) group: Option<usize>,
    /// Hosts, of those that can be compared, that have the row.
    pub(super) hosts_with_row: u64,
    /// Hosts that can be compared.
    pub(super) hosts_answered: u64,
    /// Hosts, of those that can be compared, that have the thing with whatever content.
    pub(super) hosts_with_thing: u64,
    /// Columns that make the row stand out; empty when it is their combination.
    pub(super) rare_columns: Vec<String>,
    pub(super) method: Method,
    /// What its content says by itself.
    pub(super) says: Vec<String>,
    /// Loose id, or strict id where the content is what stands out.
    pub(super) id: Id,
    /// What rows of one host have in common that differ by counting alone: one of them is shown.
    pub(super) alike: Option<u64>,
    /// Strict id of the host's own row; none for an absence.
    pub(super) strict: Option<Id>,
}

/// Where a row stands out: views of its table by index, and how many hosts show the value there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) target: usize,
    pub(super) context: Option<usize>,
    pub(super) hosts: u64,
    pub(super) of: u64,
}

impl Candidate {
    /// A candidate of which nothing more is known yet.
    pub(super) fn new(method: Method, kind: FindingKind, host: u32, subject: Subject) -> Self {
        Self {
            host,
            kind,
            subject,
            nearest: None,
            bits: 0.0,
            place: None,
            group: None,
            hosts_with_row: 0,
            hosts_answered: 0,
            hosts_with_thing: 0,
            rare_columns: Vec::new(),
            method,
            says: Vec::new(),
            id: Id::default(),
            alike: None,
            strict: None,
        }
    }
}

/// The views that can be asked for alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// What a host shows that hardly any other host shows.
    Frequency,
    /// What hardly any other host lacks.
    Missing,
    /// Against a named baseline.
    Baseline,
    /// Peer groups: which hosts are of one kind.
    Cluster,
    /// Rows of several tables that stand on the same hosts.
    Campaigns,
    /// Against earlier snapshots of the fleet.
    History,
}

impl Method {
    /// All methods.
    pub const ALL: [Self; 6] =
        [Self::Baseline, Self::History, Self::Frequency, Self::Missing, Self::Campaigns, Self::Cluster];

    /// Whether hosts of the snapshot are compared with each other.
    pub(super) fn compares_hosts(self) -> bool {
        !matches!(self, Self::Baseline | Self::History)
    }

    /// The name on the command line and in outputs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Frequency => "frequency",
            Self::Missing => "missing",
            Self::Baseline => "baseline",
            Self::Cluster => "cluster",
            Self::Campaigns => "campaigns",
            Self::History => "history",
        }
    }
}

/// A digest that no other list of parts has.
pub(super) fn digest(parts: &[&[u8]]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    hasher.finalize()
}
