//! What was planted where, so that a report can say what was found and what was missed.

use std::collections::BTreeMap;

/// All that was planted in a simulation.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    /// By host, in the order of [`Simulation::hosts`](super::Simulation::hosts).
    pub planted: Vec<Planted>,
}

/// One scenario on one host.
#[derive(Debug, Clone)]
pub struct Planted {
    /// The host, as the collector names it.
    pub host: String,
    /// The scenario's id: `cron-line`.
    pub scenario: &'static str,
    /// What was done, in one sentence.
    pub title: &'static str,
    /// The ATT&CK technique: `T1053.003`.
    pub attack: &'static str,
    /// Rows that are there or missing because of it; at least one.
    pub traces: Vec<Trace>,
}

/// Rows by which a scenario can be recognised on its host.
#[derive(Debug, Clone)]
pub struct Trace {
    /// The table.
    pub table: &'static str,
    /// Whether the rows are there, or are missing.
    pub kind: TraceKind,
    /// Column to value, as collected; a row with all of them is the one.
    pub values: BTreeMap<String, String>,
}

/// Whether a trace is a row or the lack of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceKind {
    /// The rows are on this host and on no clean one.
    Present,
    /// The rows are on every clean host that answered and not on this one.
    Missing,
}

impl Truth {
    /// What was planted on a host.
    pub fn on<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a Planted> {
        self.planted.iter().filter(move |planted| planted.host == host)
    }

    /// Whether anything was planted on a host.
    pub fn is_compromised(&self, host: &str) -> bool {
        self.on(host).next().is_some()
    }
}

impl Planted {
    /// Whether a row of a table is a trace of this; `value` gives the row's value in a column.
    ///
    /// For a missing row, the row is the one that others have.
    pub fn matches<'a>(&self, table: &str, value: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.traces.iter().any(|trace| trace.matches(table, &value))
    }
}

impl Trace {
    /// Whether a row of a table is the one; `value` gives the row's value in a column.
    pub fn matches<'a>(&self, table: &str, value: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.table == table
            && self.values.iter().all(|(column, expected)| value(column) == Some(expected.as_str()))
    }
}
