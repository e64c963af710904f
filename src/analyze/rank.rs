//! From findings to hosts: rank, verdict, and what a reader must know before trusting either.

use std::collections::HashMap;

use roaring::RoaringBitmap;
use serde_json::json;

use super::candidate::{Candidate, Method};
use super::cause;
use super::fleet::{Failure, FleetState, TableAnswers};
use super::lines::Lines;
use super::score::{host_score, surprise};
use super::{AnalyzeRequest, Scored};
use crate::model::{Finding, FindingKind, HostCoverage, HostResult, Row, Verdict};
use crate::store::Manifest;

/// From this score on a host is an outlier.
const OUTLIER: f64 = 75.0;
/// From this score on a host should be reviewed.
const REVIEW: f64 = 55.0;
/// A candidate below this score is noise that every fleet has.
const WORTH_SHOWING: f64 = 10.0;
/// Most findings of one table on one host: further ones are of the same kind.
const MOST_PER_TABLE: usize = 25;
/// A host that shares less than this of what is common is of its own kind.
const SHARES_TOO_LITTLE: f64 = 0.5;
/// Of a table that this share of the hosts answered, a failure stands out.
const TABLE_WORKS: f64 = 0.8;
/// Score of a failure that no other host has.
const COVERAGE_SCORE: f64 = 60.0;
/// Hosts from which on a share of the fleet says something.
const SMALL_FLEET: u64 = 30;

/// The candidates that become findings: the strongest of each row, and of each table and host the first few.
pub(super) fn worth_showing(candidates: Vec<Candidate>, scores: Vec<f64>) -> Vec<(Candidate, f64)> {
    let mut scored: Vec<(Candidate, f64)> =
        candidates.into_iter().zip(scores).filter(|(_, score)| *score >= WORTH_SHOWING).collect();
    scored.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| (a.0.host, a.0.id).cmp(&(b.0.host, b.0.id))));
    let mut per_host: HashMap<u32, usize> = HashMap::new();
    let mut seen = std::collections::HashSet::new();
    scored.retain(|(candidate, _)| {
        let key = (
            candidate.host,
            candidate.strict.unwrap_or(candidate.id),
            candidate.kind == FindingKind::Missing,
        );
        let count = per_host.entry(candidate.host).or_default();
        *count += 1;
        *count <= MOST_PER_TABLE && seen.insert(key)
    });
    scored
}

/// How much of what is common in the fleet each host has.
#[derive(Debug)]
pub(super) struct CommonRows {
    expected: Vec<u64>,
    present: Vec<u64>,
}

impl CommonRows {
    pub(super) fn new(hosts: usize) -> Self {
        Self { expected: vec![0; hosts], present: vec![0; hosts] }
    }

    pub(super) fn count(&mut self, lines: &Lines, answers: &TableAnswers) {
        for group in lines.loose() {
            let have = &group.members & &answers.answered;
            if have.len() * 2 <= answers.answered.len() {
                continue;
            }
            answers.answered.iter().for_each(|host| self.expected[host as usize] += 1);
            have.iter().for_each(|host| self.present[host as usize] += 1);
        }
    }

    fn has_peers(&self, host: usize) -> bool {
        self.expected[host] == 0
            || self.present[host] as f64 >= self.expected[host] as f64 * SHARES_TOO_LITTLE
    }
}

/// All hosts, the most suspicious first.
pub(super) fn rank(state: &FleetState, scored: Vec<Scored>, common: &CommonRows) -> Vec<HostResult> {
    let mut findings: Vec<Vec<(Finding, Vec<String>)>> = vec![Vec::new(); state.hosts.len()];
    for Scored { host, finding, telling } in scored {
        findings[host as usize].push((finding, telling));
    }
    let coverage = CoverageView::new(state);
    let mut hosts: Vec<HostResult> = findings
        .into_iter()
        .enumerate()
        .map(|(host, mut findings)| {
            let failure = coverage.finding(state, host).filter(|finding| finding.score >= WORTH_SHOWING);
            findings.extend(failure.map(|finding| (finding, Vec::new())));
            host_result(state, host, findings, common.has_peers(host))
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
    has_peers: bool,
) -> HostResult {
    findings.sort_by(|(a, _), (b, _)| {
        b.score.total_cmp(&a.score).then_with(|| (&a.table, &a.id).cmp(&(&b.table, &b.id)))
    });
    let score = (host_score(cause::best_of_causes(&findings)) * 10.0).round() / 10.0;
    HostResult {
        host: state.hosts[host].clone(),
        rank: 0,
        score,
        verdict: verdict(score, has_peers),
        peer_group: None,
        coverage: HostCoverage { ok: state.ok[host], failed: state.failures[host].len() as u64 },
        findings: findings.into_iter().map(|(finding, _)| finding).collect(),
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
        Self { failures, hosts_failing: failing.len(), answered: state.total() - failing.len() }
    }

    fn finding(&self, state: &FleetState, host: usize) -> Option<Finding> {
        let failures = &self.failures[host];
        let first = failures.first()?;
        let hosts = state.total() as f64;
        let strength = surprise(self.hosts_failing as f64, hosts) / hosts.max(SMALL_FLEET as f64).log2();
        let tables: Vec<&str> = failures.iter().map(|failure| failure.table.as_str()).collect();
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
                "this host did not answer {of}: {} of {} tables that {} other hosts answered, the first with {}{}",
                failures.len(),
                state.tables.len(),
                self.answered,
                first.status,
                if first.error.is_empty() { String::new() } else { format!(" ({})", first.error) },
            ),
            method: "coverage".to_owned(),
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
    if frequency && heard < 3 {
        warnings.push(format!(
            "{heard} host{} answered: the method frequency has nothing to compare; use a baseline",
            if heard == 1 { "" } else { "s" }
        ));
    } else if frequency && heard < SMALL_FLEET {
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
    let odd = hosts.iter().filter(|host| host.verdict == Verdict::NoPeers).count();
    if odd > 0 {
        warnings.push(format!("{odd} hosts are of a kind of their own and cannot be judged by the others"));
    }
    if manifest.started > crate::model::now() {
        warnings.push(
            "this snapshot is from the future: a clock is wrong, here or where it was collected".to_owned(),
        );
    }
    warnings
}
