//! What was planted where, and what honest hosts have of their own, so that a report can say what was found, what was
//! missed and what the false alarms were.

use std::collections::BTreeMap;

/// What is true of a simulated fleet.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    /// Scenarios by host, in the order of [`Simulation::hosts`](super::Simulation::hosts).
    pub planted: Vec<Planted>,
    /// Honest one-offs by host, in the same order.
    pub oddities: Vec<Oddity>,
    /// What each host is, in the same order.
    pub hosts: Vec<HostFacts>,
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

/// Something honest that one host has and hardly another one.
#[derive(Debug, Clone)]
pub struct Oddity {
    /// The host, as the collector names it.
    pub host: String,
    /// What it is: `debug-package`.
    pub kind: &'static str,
    /// One of the rows that it left.
    pub trace: Trace,
}

/// What one host is.
#[derive(Debug, Clone)]
pub struct HostFacts {
    /// The host, as the collector names it.
    pub host: String,
    /// Its role: `web`.
    pub role: &'static str,
    /// Whether only one or two hosts of the fleet have that role.
    pub own_kind: bool,
    /// Whether it gets new packages first.
    pub canary: bool,
    /// The half of the fleet that its release belongs to: `blue` or `green`.
    pub colour: &'static str,
    /// The kernel build that it runs.
    pub kernel: String,
    /// The instance type.
    pub hardware: &'static str,
    /// Whether it was started within the last hours.
    pub fresh: bool,
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
    /// The rows are on this host and on no clean one of its role.
    Present,
    /// The rows are on every clean host of its role that answered and not on this one.
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

    /// The honest one-offs of a host.
    pub fn oddities_on<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a Oddity> {
        self.oddities.iter().filter(move |oddity| oddity.host == host)
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
