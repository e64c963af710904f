//! An analysis as a report shows it: every text escaped, every value beside its counterpart.
//!
//! The template and the embedded data are both made from these views, so that they say the same.

use std::collections::HashMap;

use serde_json::Value;

use super::super::escape::escape;
use super::supplement::{Help, Supplement};
use crate::model::{Analysis, Coverage, Finding, FindingKind, HostResult, Row, Verdict, count, part};

/// Cells of a row that are shown before anybody asks for more; marked ones are always shown.
const FIRST_CELLS: usize = 6;

/// How a verdict is called in sentences.
pub(super) fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Outlier => "outlier",
        Verdict::Review => "review",
        Verdict::Normal => "no look needed",
        Verdict::NoPeers => "not judged",
    }
}

/// The sign that stands for a verdict beside its colour.
pub(super) fn verdict_sign(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Outlier => "▲",
        Verdict::Review => "◆",
        Verdict::Normal => "●",
        Verdict::NoPeers => "○",
    }
}

/// A score of 0 to 100 as one of ten steps.
pub(super) fn step(score: f64) -> usize {
    // In range by the clamp.
    (score / 10.0).floor().clamp(0.0, 9.0) as usize
}

/// A sentence in parts, each with whether it is quoted: reasons quote values in backticks, and no value has one in them.
pub(super) fn quotes(sentence: &str) -> Vec<(bool, &str)> {
    let parts = sentence.split('`').enumerate();
    parts.map(|(at, part)| (at % 2 == 1, part)).filter(|(_, part)| !part.is_empty()).collect()
}

/// One host.
#[derive(Debug, Clone)]
pub(super) struct HostView {
    /// Its place, from 1; names its anchors.
    pub(super) rank: u64,
    pub(super) name: String,
    pub(super) verdict: Verdict,
    pub(super) score: f64,
    /// What it was compared with.
    pub(super) group: Option<String>,
    /// `answered 27 of 28 tables`.
    pub(super) coverage: String,
    pub(super) failures: Vec<FailureView>,
    pub(super) findings: Vec<FindingView>,
    pub(super) suppressed: u64,
}

impl HostView {
    pub(super) fn sign(&self) -> &'static str {
        verdict_sign(self.verdict)
    }

    pub(super) fn verdict_name(&self) -> &'static str {
        verdict_name(self.verdict)
    }

    /// What weighs most.
    pub(super) fn loudest(&self) -> Option<&FindingView> {
        self.findings.first()
    }
}

/// A table that was not answered in full.
#[derive(Debug, Clone)]
pub(super) struct FailureView {
    pub(super) table: String,
    pub(super) status: &'static str,
    pub(super) error: String,
}

/// One finding.
#[derive(Debug, Clone)]
pub(super) struct FindingView {
    pub(super) id: String,
    pub(super) table: String,
    pub(super) kind: FindingKind,
    pub(super) score: f64,
    pub(super) reason: String,
    pub(super) method: String,
    pub(super) priors: Vec<String>,
    /// Hosts with the row and hosts that answered; none for what is no row.
    pub(super) prevalence: Option<(u64, u64)>,
    pub(super) first_seen: Option<String>,
    pub(super) attack: Vec<Technique>,
    pub(super) cells: Vec<CellView>,
    /// What the column of the row is called.
    pub(super) here: String,
    /// What the column of the row beside it is called, if there is one.
    pub(super) there: Option<String>,
    /// What is unusual only beside something else.
    pub(super) given: Option<String>,
    pub(super) help: Help,
}

impl FindingView {
    /// `1 of 58 hosts`.
    pub(super) fn prevalence_text(&self) -> String {
        self.prevalence.map(|(with, of)| part(with, of, "host")).unwrap_or_default()
    }

    /// How much of a bar of 100 is filled.
    pub(super) fn share(&self) -> u64 {
        let (with, of) = self.prevalence.unwrap_or_default();
        if with == 0 { 0 } else { (with * 100 / of.max(1)).clamp(2, 100) }
    }

    pub(super) fn first_cells(&self) -> impl Iterator<Item = &CellView> {
        self.cells.iter().filter(|cell| cell.is_first)
    }

    pub(super) fn other_cells(&self) -> Vec<&CellView> {
        self.cells.iter().filter(|cell| !cell.is_first).collect()
    }
}

/// An ATT&CK technique.
#[derive(Debug, Clone)]
pub(super) struct Technique {
    pub(super) id: String,
    /// Where it is described; none for what does not look like a technique.
    pub(super) url: Option<String>,
}

/// A column of a row, and of the row beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CellView {
    pub(super) name: String,
    /// None where the row has no such value.
    pub(super) here: Option<String>,
    pub(super) there: Option<String>,
    pub(super) mark: Mark,
    /// Whether it is shown before anybody asks for more.
    pub(super) is_first: bool,
}

/// Why a cell is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// It is not.
    None,
    /// The row beside it has something else.
    Differs,
    /// The value is unusual beside the others.
    Unusual,
}

impl Mark {
    /// The sign before the name of the column.
    pub(super) fn sign(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Differs => "≠",
            Self::Unusual => "!",
        }
    }

    /// What a screen reader says.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Differs => "differs: ",
            Self::Unusual => "unusual: ",
        }
    }
}

/// Makes views of hosts.
pub(super) struct Viewer<'a> {
    supplement: &'a Supplement<'a>,
    failures: HashMap<&'a str, Vec<&'a Coverage>>,
    groups: HashMap<u32, String>,
}

impl<'a> Viewer<'a> {
    pub(super) fn new(analysis: &'a Analysis, supplement: &'a Supplement<'a>) -> Self {
        let mut failures: HashMap<&str, Vec<&Coverage>> = HashMap::new();
        for failure in &supplement.failures {
            failures.entry(failure.host.as_str()).or_default().push(failure);
        }
        let groups = analysis.peer_groups.iter().map(|group| (group.id, group_name(analysis, group.id)));
        Self { supplement, failures, groups: groups.collect() }
    }

    /// The tables that a host did not answer in full.
    pub(super) fn failures(&self, host: &str) -> &[&'a Coverage] {
        self.failures.get(host).map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn host(&self, host: &HostResult) -> HostView {
        HostView {
            rank: host.rank,
            name: shown(&host.host),
            verdict: host.verdict,
            score: host.score,
            group: host.peer_group.and_then(|id| self.groups.get(&id).cloned()),
            coverage: coverage(host),
            failures: self.failures(&host.host).iter().map(|failure| failure_view(failure)).collect(),
            findings: host.findings.iter().map(|finding| self.finding(host, finding)).collect(),
            suppressed: host.suppressed,
        }
    }

    fn finding(&self, host: &HostResult, finding: &Finding) -> FindingView {
        let (here, there) = headings(finding);
        FindingView {
            id: shown(&finding.id),
            table: shown(&finding.table),
            kind: finding.kind,
            score: finding.score,
            reason: shown(&finding.reason),
            method: shown(&finding.method),
            priors: finding.priors.iter().map(|prior| shown(prior)).collect(),
            prevalence: (finding.kind != FindingKind::Coverage)
                .then_some((finding.hosts_with_row, finding.hosts_answered)),
            first_seen: finding.first_seen.map(|time| time.format("%Y-%m-%d %H:%M UTC").to_string()),
            attack: finding.attack.iter().map(|id| technique(id)).collect(),
            cells: cells(finding),
            here,
            there,
            given: given(finding),
            help: (self.supplement.help)(host, finding),
        }
    }
}

fn shown(text: &str) -> String {
    escape(text).into_owned()
}

/// `group 0: image ami-0123`; the only group needs no number.
pub(super) fn group_name(analysis: &Analysis, id: u32) -> String {
    let found = analysis.peer_groups.iter().find(|group| group.id == id);
    let described = found.map(|group| shown(&group.described_by)).unwrap_or_default();
    if analysis.peer_groups.len() > 1 { format!("group {id}: {described}") } else { described }
}

fn coverage(host: &HostResult) -> String {
    let coverage = host.coverage;
    let asked = coverage.ok + coverage.failed;
    match coverage.failed {
        _ if coverage.is_silent() => "did not answer".to_owned(),
        0 => format!("answered all of {}", count(asked, "table")),
        _ => format!("answered {}", part(coverage.ok, asked, "table")),
    }
}

fn failure_view(failure: &Coverage) -> FailureView {
    FailureView {
        table: shown(&failure.table),
        status: failure.status.as_str(),
        error: shown(&failure.error),
    }
}

/// What stands above the two columns of a row.
fn headings(finding: &Finding) -> (String, Option<String>) {
    let here = match finding.kind {
        FindingKind::Missing => "missing here, others have",
        FindingKind::Coverage => "what it answered",
        _ => "this host",
    };
    let there = finding.nearest.as_ref().map(|nearest| {
        let hosts = count(nearest.hosts_with_row, "host");
        match finding.kind {
            FindingKind::Changed => "the baseline has".to_owned(),
            // The host may well have that one too.
            FindingKind::New => format!("most alike, on {hosts}"),
            _ => format!("{hosts} {}", if nearest.hosts_with_row == 1 { "has" } else { "have" }),
        }
    });
    (here.to_owned(), there)
}

/// `path /tmp/sshd where name is sshd`, where no row beside it says so.
fn given(finding: &Finding) -> Option<String> {
    let given = finding.given.as_ref().filter(|_| finding.nearest.is_none())?;
    let context = given.context.iter().map(|(name, value)| format!("{} = {}", shown(name), text(value)));
    let context: Vec<String> = context.collect();
    let what = format!("unusual: {} = {}", shown(&given.column), text(&given.value));
    Some(if context.is_empty() { what } else { format!("{what} where {}", context.join(", ")) })
}

/// The columns of both rows in the order of the row.
fn cells(finding: &Finding) -> Vec<CellView> {
    let empty = Row::new();
    let beside = finding.nearest.as_ref();
    let theirs = beside.map_or(&empty, |nearest| &nearest.row);
    let only_there = theirs.keys().filter(|name| !finding.row.contains_key(*name));
    let names = finding.row.keys().chain(only_there);
    let mut first = 0;
    let mut cells = Vec::new();
    for name in names {
        let mark = mark(finding, name);
        let (here, there) = (finding.row.get(name).map(text), theirs.get(name).map(text));
        let is_empty = |value: &Option<String>| value.as_deref().unwrap_or_default().is_empty();
        let has_something = !is_empty(&here) || !is_empty(&there);
        let is_first = mark != Mark::None || (has_something && first < FIRST_CELLS);
        first += usize::from(is_first);
        cells.push(CellView { name: shown(name), here, there, mark, is_first });
    }
    cells
}

fn mark(finding: &Finding, name: &str) -> Mark {
    let differs = finding.nearest.iter().flat_map(|nearest| &nearest.differs).any(|column| column == name);
    let is_given = finding.given.as_ref().is_some_and(|given| given.column == name);
    match (differs, is_given) {
        (true, _) => Mark::Differs,
        (_, true) => Mark::Unusual,
        _ => Mark::None,
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => shown(text),
        Value::Null => String::new(),
        other => shown(&other.to_string()),
    }
}

/// Links lead to MITRE and nowhere else.
fn technique(id: &str) -> Technique {
    let digits =
        |text: &str, length: usize| text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_known = id.strip_prefix('T').is_some_and(|rest| match rest.split_once('.') {
        Some((technique, sub)) => digits(technique, 4) && digits(sub, 3),
        None => digits(rest, 4),
    });
    let url = is_known.then(|| format!("https://attack.mitre.org/techniques/{}/", id.replace('.', "/")));
    Technique { id: shown(id), url }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn techniques_link_to_mitre_only() {
        assert_eq!(
            technique("T1053.003").url.as_deref(),
            Some("https://attack.mitre.org/techniques/T1053/003/")
        );
        assert_eq!(technique("T1053").url.as_deref(), Some("https://attack.mitre.org/techniques/T1053/"));
        for odd in ["javascript:alert(1)", "T10", "T1053.3", "T1053.003/../..", "t1053", "T1053.00\u{663}"] {
            assert!(technique(odd).url.is_none(), "{odd}");
        }
    }

    #[test]
    fn scores_have_ten_steps() {
        for (score, expected) in [(-1.0, 0), (0.0, 0), (9.9, 0), (10.0, 1), (99.9, 9), (100.0, 9)] {
            assert_eq!(step(score), expected);
        }
    }
}
