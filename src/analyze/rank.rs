//! From findings to hosts: rank, verdict, and what a reader must know before trusting either.

use std::collections::{BTreeSet, HashMap, HashSet};

use roaring::RoaringBitmap;
use serde_json::json;

use super::candidate::{Candidate, Method};
use super::cause;
use super::fleet::{Failure, FleetState, TABLE_WORKS, TableAnswers};
use super::lines::Lines;
use super::peers::PeerGroups;
use super::score::{host_score, surprise};
use super::{AnalyzeRequest, Scored};
use crate::model::{Finding, FindingKind, HostCoverage, HostResult, Row, Verdict, count};
use crate::store::Manifest;

/// From this score on a host is an outlier.
const OUTLIER: f64 = 80.0;
/// From this score on a host should be reviewed.
const REVIEW: f64 = 50.0;
/// A candidate below this score is noise that every fleet has.
pub(super) const WORTH_SHOWING: f64 = 10.0;
/// Most findings of one table on one host: further ones are of the same kind.
const MOST_PER_TABLE: usize = 25;
/// A host that shares less than this of what is common is of its own kind.
const SHARES_TOO_LITTLE: f64 = 0.5;
/// What a host of its own kind shows is new to the others and says little.
const WITHOUT_PEERS: f64 = 0.5;
/// Score of a failure that no other host has.
const COVERAGE_SCORE: f64 = 80.0;
/// Hosts from which on a share of the fleet says something.
const SMALL_FLEET: u64 = 30;

/// The candidates that become findings: the strongest of each row, and of each table and host the first few.
pub(super) fn worth_showing(candidates: Vec<Candidate>, scores: Vec<f64>) -> Vec<(Candidate, f64)> {
    let mut scored: Vec<(Candidate, f64)> =
        candidates.into_iter().zip(scores).filter(|(_, score)| *score >= WORTH_SHOWING).collect();
    scored.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| (a.0.host, a.0.id).cmp(&(b.0.host, b.0.id))));
    let mut per_host: HashMap<u32, usize> = HashMap::new();
    let mut seen = HashSet::new();
    let mut alike_seen = HashSet::new();
    scored.retain(|(candidate, _)| {
        let key = (
            candidate.host,
            candidate.strict.unwrap_or(candidate.id),
            candidate.kind == FindingKind::Missing,
        );
        let is_first = candidate.alike.is_none_or(|alike| alike_seen.insert((candidate.host, alike)));
        if !is_first || !seen.insert(key) {
            return false;
        }
        let count = per_host.entry(candidate.host).or_default();
        *count += 1;
        *count <= MOST_PER_TABLE
    });
    scored
}

/// How much of what is common in the fleet each host has, and how much else.
#[derive(Debug)]
pub(super) struct CommonRows {
    expected: Vec<u64>,
    present: Vec<u64>,
    own: Vec<u64>,
}

impl CommonRows {
    pub(super) fn new(hosts: usize) -> Self {
        Self { expected: vec![0; hosts], present: vec![0; hosts], own: vec![0; hosts] }
    }

    pub(super) fn count(&mut self, lines: &Lines, answers: &TableAnswers) {
        let mut expected = 0;
        for group in lines.loose() {
            let have = &group.members & &answers.answered;
            if have.len() * 2 <= answers.answered.len() {
                have.iter().for_each(|host| self.own[host as usize] += 1);
                continue;
            }
            expected += 1;
            have.iter().for_each(|host| self.present[host as usize] += 1);
        }
        answers.answered.iter().for_each(|host| self.expected[host as usize] += expected);
    }

    /// A host of another kind has little of what is common and much of its own; one that only lacks rows is no other
    /// kind of host, but one that hides them.
    fn has_peers(&self, host: usize) -> bool {
        let little = self.expected[host] as f64 * SHARES_TOO_LITTLE;
        self.present[host] as f64 >= little || (self.own[host] as f64) < little
    }
}

/// What hosts did not answer although others did, a finding for each such host.
pub(super) fn coverage_findings(state: &FleetState) -> Vec<Scored> {
    let coverage = CoverageView::new(state);
    let scored = |host: usize| {
        let finding = coverage.finding(state, host).filter(|finding| finding.score >= WORTH_SHOWING)?;
        Some(Scored { host: host as u32, finding, telling: Vec::new() })
    };
    (0..state.hosts.len()).filter_map(scored).collect()
}

/// All hosts, the most suspicious first.
pub(super) fn rank(
    state: &FleetState,
    scored: Vec<Scored>,
    (common, groups): (&CommonRows, &PeerGroups),
    compared: bool,
) -> Vec<HostResult> {
    let mut findings: Vec<Vec<(Finding, Vec<String>)>> = vec![Vec::new(); state.hosts.len()];
    for Scored { host, finding, telling } in scored {
        findings[host as usize].push((finding, telling));
    }
    let coverage = CoverageView::new(state);
    let mut hosts: Vec<HostResult> = findings
        .into_iter()
        .enumerate()
        .map(|(host, findings)| {
            let judged = compared && common.has_peers(host) && !groups.is_alone(host);
            host_result(state, host, findings, (judged, coverage.is_mostly_unknown(host)))
        })
        .collect();
    hosts.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.host.cmp(&b.host)));
    for (rank, host) in (1..).zip(&mut hosts) {
        host.rank = rank;
    }
    hosts
}

fn host_result(
    state: &FleetState,
    host: usize,
    mut findings: Vec<(Finding, Vec<String>)>,
    (judged, mostly_unknown): (bool, bool),
) -> HostResult {
    findings.sort_by(|(a, _), (b, _)| {
        b.score.total_cmp(&a.score).then_with(|| (&a.table, &a.id).cmp(&(&b.table, &b.id)))
    });
    let without_peers = if judged { 1.0 } else { WITHOUT_PEERS };
    let score = host_score(cause::best_of_causes(&findings)) * without_peers;
    let score = (score * 10.0).round() / 10.0;
    let failed: BTreeSet<&str> = state.failures[host].iter().map(|failure| failure.table.as_str()).collect();
    let coverage =
        HostCoverage { ok: state.ok[host], failed: failed.len() as u64, partial: state.partial[host] };
    let verdict = match verdict(score, judged && !coverage.is_silent()) {
        // Nobody may say of a host that it needs no look when most of it was not seen.
        Verdict::Normal if mostly_unknown => Verdict::Review,
        verdict => verdict,
    };
    HostResult {
        host: state.hosts[host].clone(),
        rank: 0,
        score,
        verdict,
        peer_group: None,
        coverage,
        findings: findings.into_iter().map(|(finding, _)| finding).collect(),
        suppressed: 0,
    }
}

fn verdict(score: f64, has_peers: bool) -> Verdict {
    match score {
        _ if !has_peers => Verdict::NoPeers,
        score if score >= OUTLIER => Verdict::Outlier,
        score if score >= REVIEW => Verdict::Review,
        _ => Verdict::Normal,
    }
}

/// Failures that stand out: of tables that nearly everybody answered.
struct CoverageView {
    /// By ordinal of the host.
    failures: Vec<Vec<Failure>>,
    hosts_failing: u64,
    answered: u64,
    /// Tables that nearly everybody answered.
    tables: usize,
}

impl CoverageView {
    fn new(state: &FleetState) -> Self {
        let works = |table: &TableAnswers| table.heard.len() as f64 >= state.total() as f64 * TABLE_WORKS;
        let stands_out = |failure: &&Failure| state.tables.get(&failure.table).is_some_and(works);
        let failures: Vec<Vec<Failure>> = state
            .failures
            .iter()
            .map(|of_host| of_host.iter().filter(stands_out).cloned().collect())
            .collect();
        let failing: RoaringBitmap =
            (0..).zip(&failures).filter(|(_, failures)| !failures.is_empty()).map(|(host, _)| host).collect();
        let tables = state.tables.values().filter(|table| works(table)).count();
        Self { failures, hosts_failing: failing.len(), answered: state.total() - failing.len(), tables }
    }

    /// At least half of the tables that others answered did not come from this host.
    fn is_mostly_unknown(&self, host: usize) -> bool {
        let failed: BTreeSet<&str> =
            self.failures[host].iter().map(|failure| failure.table.as_str()).collect();
        self.tables > 0 && failed.len() * 2 >= self.tables
    }

    fn finding(&self, state: &FleetState, host: usize) -> Option<Finding> {
        let failures = &self.failures[host];
        let first = failures.first()?;
        let hosts = state.total() as f64;
        let strength = surprise(self.hosts_failing as f64, hosts) / hosts.max(SMALL_FLEET as f64).log2();
        let tables: BTreeSet<&str> = failures.iter().map(|failure| failure.table.as_str()).collect();
        let count = tables.len();
        let tables: Vec<&str> = tables.into_iter().collect();
        let row: Row = [
            ("tables".to_owned(), json!(tables.join(", "))),
            ("status".to_owned(), json!(first.status.as_str())),
            ("error".to_owned(), json!(first.error)),
        ]
        .into_iter()
        .collect();
        let of = if state.ok[host] == 0 { "anything" } else { "everything" };
        let name = &state.hosts[host];
        Some(Finding {
            id: blake3::hash(format!("coverage {name}").as_bytes()).to_hex()[..16].to_owned(),
            table: "coverage".to_owned(),
            kind: FindingKind::Coverage,
            score: (COVERAGE_SCORE * strength * 10.0).round() / 10.0,
            row,
            hosts_with_row: self.hosts_failing,
            hosts_answered: state.total(),
            first_seen: None,
            nearest: None,
            given: None,
            attack: vec!["T1685".to_owned()],
            reason: format!(
                "this host did not answer {of}: {count} of {} tables that {} other hosts answered in full; {}: {}{}",
                self.tables,
                self.answered,
                first.table,
                first.status,
                if first.error.is_empty() { String::new() } else { format!(" ({})", first.error) },
            ),
            method: "coverage".to_owned(),
            priors: Vec::new(),
            strict_id: None,
        })
    }
}

/// What a reader must know before trusting the ranking.
pub(super) fn warnings(
    state: &FleetState,
    manifest: &Manifest,
    request: &AnalyzeRequest,
    hosts: &[HostResult],
) -> Vec<String> {
    let heard = state.heard().len();
    let mut warnings = Vec::new();
    let frequency = request.methods.contains(&Method::Frequency);
    if frequency && heard < 3 && request.baseline.is_none() {
        warnings.push(format!(
            "{} answered: the method frequency has nothing to compare; use a baseline",
            count(heard, "host")
        ));
    } else if frequency && (3..SMALL_FLEET).contains(&heard) {
        warnings.push(format!(
            "only {heard} hosts answered: with fewer than {SMALL_FLEET} an honest oddity looks like a compromise"
        ));
    }
    let poor: Vec<&str> = state
        .tables
        .iter()
        .filter(|(_, table)| !table.heard.is_empty())
        .filter(|(_, table)| (table.answered.len() as f64) < state.total() as f64 * TABLE_WORKS)
        .map(|(name, _)| name.as_str())
        .collect();
    if !poor.is_empty() {
        warnings.push(format!("not answered in full by a fifth of the hosts or more: {}", poor.join(", ")));
    }
    for (table, columns) in &manifest.prevalence_without {
        warnings.push(format!(
            "table `{table}`: nearly every row has a {} of its own; findings do not tell these apart",
            columns.join(" and a ")
        ));
    }
    if let Some(baseline) = &request.baseline {
        let answered = state.tables.iter().filter(|(_, table)| !table.heard.is_empty());
        let absent: Vec<&str> = answered
            .map(|(name, _)| name.as_str())
            .filter(|name| !baseline.tables.contains_key(*name))
            .collect();
        if !absent.is_empty() {
            warnings.push(format!("baseline `{}` says nothing of: {}", baseline.name, absent.join(", ")));
        }
    }
    let is_odd = |host: &&HostResult| host.verdict == Verdict::NoPeers && !host.coverage.is_silent();
    let odd = hosts.iter().filter(is_odd).count();
    if odd > 0 && heard >= 3 {
        let hosts = if odd == 1 { "1 host is" } else { &format!("{odd} hosts are") };
        warnings.push(format!("{hosts} of another kind than the others and cannot be judged by them"));
    }
    if manifest.started > crate::model::now() {
        warnings.push(
            "this snapshot is from the future: a clock is wrong, here or where it was collected".to_owned(),
        );
    }
    warnings
}
