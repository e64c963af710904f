//! An analysis as one HTML file: nothing is fetched, nothing that a host says is markup, and a policy forbids all but
//! our own script and style by their digests.
//!
//! Twice the same: a document that is readable without a script (head, ranking, the findings of hosts that need a
//! look; what is printed, too), and data for a script that shows every host.

mod data;
mod filters;
mod heat;
mod map;
mod supplement;
mod view;

use std::collections::HashMap;
use std::io::Write;

use askama::Template;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use self::data::{Budget, blocks, cut_bytes, embedded, index};
use self::heat::Heat;
use self::map::PeerMap;
pub use self::supplement::{Help, Supplement};
use self::view::{HostView, Viewer};
use super::escape::escape;
use super::write_failed;
use crate::error::{Error, Result};
use crate::model::{Analysis, Campaign, Verdict, count, digits};

const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

/// Findings and hosts of the part that needs no script; what is beyond is counted.
const FULL_FINDINGS: usize = 400;
const FINDINGS_OF_HOST: usize = 25;
const LINES: usize = 2_000;
const NAMES: usize = 1_000;
/// Longest value there, in bytes.
const LONGEST_VALUE: usize = 2_000;
/// Hosts that the head names.
const LOOK_FIRST: usize = 5;
/// Hosts, rows and causes that are named of each campaign.
const CAMPAIGN_HOSTS: usize = 12;
const CAMPAIGN_ROWS: usize = 8;

/// Writes the report. Bytes of the same analysis and supplement are the same.
///
/// # Errors
/// The writer failed.
pub fn render(analysis: &Analysis, supplement: &Supplement<'_>, out: &mut dyn Write) -> Result<()> {
    let report = Report::new(analysis, supplement)?;
    let text = report
        .render()
        .map_err(|source| Error::internal("the template of the report failed").source(source))?;
    out.write_all(text.as_bytes()).map_err(write_failed)
}

/// What the template is filled with.
#[derive(Template)]
#[template(path = "report.html")]
struct Report<'a> {
    analysis: &'a Analysis,
    policy: String,
    style: &'static str,
    script: &'static str,
    head: Head,
    notes: Vec<String>,
    warnings: Vec<String>,
    heat: Heat,
    squares: Vec<heat::Square>,
    map: PeerMap,
    campaigns: Vec<CampaignView>,
    explained: Vec<CampaignView>,
    /// Hosts with findings, hosts with a line, and how many there are beyond.
    full: Vec<HostView>,
    lines: Vec<HostView>,
    beyond: usize,
    quiet: Names,
    alone: Names,
    index: String,
    blocks: Vec<String>,
}

impl<'a> Report<'a> {
    fn new(analysis: &'a Analysis, supplement: &'a Supplement<'a>) -> Result<Self> {
        let viewer = Viewer::new(analysis, supplement);
        let mut hosts: Vec<HostView> = analysis.hosts.iter().map(|host| viewer.host(host)).collect();
        let names: Vec<String> = hosts.iter().map(|host| host.name.clone()).collect();
        let heat = Heat::new(analysis, &viewer, &supplement.tables);
        let map = PeerMap::new(analysis);
        let ranks: HashMap<&str, u64> =
            analysis.hosts.iter().map(|host| (host.host.as_str(), host.rank)).collect();
        let campaigns: Vec<CampaignView> =
            analysis.campaigns.iter().zip(0..).map(|(one, at)| CampaignView::new(one, at, &ranks)).collect();
        let members: Vec<Vec<u64>> = campaigns.iter().map(|one| one.ranks.clone()).collect();
        let embedded_blocks = blocks(&hosts, &heat, &mut Budget::default());
        let index = embedded(&index(&hosts, &heat, &map, &members))?;
        let blocks = embedded_blocks.iter().map(embedded).collect::<Result<_>>()?;
        let head = Head::new(analysis, supplement, &hosts);
        let (quiet, alone) = (Names::of(&hosts, Verdict::Normal), Names::of(&hosts, Verdict::NoPeers));
        hosts.retain(|host| host.verdict.needs_look());
        let (full, lines, beyond) = parted(hosts);
        let (explained, campaigns) = campaigns.into_iter().partition(|one| one.explained_by.is_some());
        Ok(Self {
            analysis,
            policy: policy(),
            style: STYLE,
            script: SCRIPT,
            head,
            notes: supplement.notes.iter().map(|note| escape(note).into_owned()).collect(),
            warnings: analysis.warnings.iter().map(|text| escape(text).into_owned()).collect(),
            squares: heat.squares(&names),
            heat,
            map,
            campaigns,
            explained,
            full,
            lines,
            beyond,
            quiet,
            alone,
            index,
            blocks,
        })
    }
}

/// Nothing but this style and this script, from nowhere else.
fn policy() -> String {
    let digest = |text: &str| STANDARD.encode(Sha256::digest(text.as_bytes()));
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
        digest(SCRIPT),
        digest(STYLE)
    )
}

/// Hosts that are shown with findings, hosts with a line each, and how many are only counted.
fn parted(hosts: Vec<HostView>) -> (Vec<HostView>, Vec<HostView>, usize) {
    let mut findings = 0;
    let (mut full, mut lines) = (Vec::new(), Vec::new());
    let total = hosts.len();
    for mut host in hosts {
        if findings < FULL_FINDINGS {
            shorten(&mut host);
            findings += host.findings.len().clamp(1, FINDINGS_OF_HOST);
            full.push(host);
        } else if lines.len() < LINES {
            host.findings.truncate(1);
            shorten(&mut host);
            lines.push(host);
        } else {
            break;
        }
    }
    let beyond = total - full.len() - lines.len();
    (full, lines, beyond)
}

/// Bounds what stands in the document; the data has more.
fn shorten(host: &mut HostView) {
    let cut = |text: &mut String| *text = cut_bytes(text, LONGEST_VALUE).into_owned();
    for finding in &mut host.findings {
        cut(&mut finding.reason);
        finding.given.iter_mut().for_each(cut);
        let values = finding.cells.iter_mut().flat_map(|cell| cell.here.iter_mut().chain(&mut cell.there));
        values.for_each(cut);
    }
}

impl HostView {
    fn shown_findings(&self) -> &[view::FindingView] {
        &self.findings[..self.findings.len().min(FINDINGS_OF_HOST)]
    }

    fn more_findings(&self) -> usize {
        self.findings.len().saturating_sub(FINDINGS_OF_HOST)
    }
}

/// Names of hosts, as many as a page bears.
#[derive(Debug, Default)]
struct Names {
    count: usize,
    names: Vec<(u64, String)>,
}

impl Names {
    fn of(hosts: &[HostView], verdict: Verdict) -> Self {
        let of: Vec<&HostView> = hosts.iter().filter(|host| host.verdict == verdict).collect();
        let names = of.iter().take(NAMES).map(|host| (host.rank, host.name.clone())).collect();
        Self { count: of.len(), names }
    }

    fn beyond(&self) -> usize {
        self.count - self.names.len()
    }
}

/// The answer in numbers.
#[derive(Debug)]
struct Head {
    total: u64,
    look: u64,
    /// Outliers, to review, quiet, not judged.
    tiles: Vec<Tile>,
    /// Hosts that answered nothing at all.
    silent: u64,
    answered: u64,
    /// Tables answered in full, of those asked for.
    complete: (u64, u64),
    /// `12 timeout, 3 denied`.
    incomplete: Vec<String>,
    compared: Vec<String>,
    first: Vec<Look>,
    suppressed: Vec<String>,
    collected: String,
}

/// A host that the head names.
#[derive(Debug)]
struct Look {
    rank: u64,
    verdict: Verdict,
    sign: &'static str,
    name: String,
    table: String,
    /// What the content says by itself.
    says: String,
    reason: String,
}

/// Hosts of one verdict.
#[derive(Debug)]
struct Tile {
    verdict: Verdict,
    name: &'static str,
    hosts: u64,
    /// Where its part of the bar begins and how long it is, of 1,000.
    bar: (u64, u64),
}

impl Tile {
    fn sign(&self) -> &'static str {
        view::verdict_sign(self.verdict)
    }
}

impl Head {
    fn new(analysis: &Analysis, supplement: &Supplement<'_>, hosts: &[HostView]) -> Self {
        let look = hosts.iter().filter(|host| host.verdict.needs_look());
        let first = look.clone().take(LOOK_FIRST).map(|host| {
            let (table, says, reason) = host.loudest().map(loud).unwrap_or_default();
            Look {
                rank: host.rank,
                verdict: host.verdict,
                sign: host.sign(),
                name: host.name.clone(),
                table,
                says,
                reason,
            }
        });
        let coverage = analysis.hosts.iter().map(|host| host.coverage);
        let (ok, failed) =
            coverage.clone().fold((0, 0), |(ok, failed), one| (ok + one.ok, failed + one.failed));
        let incomplete =
            supplement.answers.iter().filter(|(status, number)| !status.answered() && *number > 0);
        Self {
            total: analysis.hosts.len() as u64,
            look: look.clone().count() as u64,
            tiles: tiles(analysis),
            silent: coverage.filter(|one| one.is_silent()).count() as u64,
            answered: analysis.hosts_answered,
            complete: (ok, ok + failed),
            incomplete: incomplete.map(|(status, number)| format!("{} {status}", digits(*number))).collect(),
            compared: compared(analysis),
            first: first.collect(),
            suppressed: suppressed(analysis),
            collected: analysis.collected_at.format("%Y-%m-%d %H:%M UTC").to_string(),
        }
    }

    /// `3 of 60 hosts need a look`.
    fn sentence(&self) -> String {
        let judged: u64 =
            self.tiles.iter().filter(|tile| tile.verdict != Verdict::NoPeers).map(|tile| tile.hosts).sum();
        let verb = if self.look == 1 { "needs" } else { "need" };
        match self.look {
            0 if judged == 0 => "No host could be judged".to_owned(),
            0 => format!("None of {} stands out", count(self.total, "host")),
            look => format!("{} of {} {verb} a look", digits(look), count(self.total, "host")),
        }
    }

    /// Per cent of the answers that came in full, never rounded up to 100.
    fn percent(&self) -> String {
        let (ok, all) = self.complete;
        format!("{:.1}", (ok as f64 * 1_000.0 / all.max(1) as f64).floor() / 10.0)
    }

    /// The same of 1,000, for a bar.
    fn permille(&self) -> u64 {
        self.complete.0 * 1_000 / self.complete.1.max(1)
    }
}

/// Table, what the content says, and why, as short as the head needs them.
fn loud(finding: &view::FindingView) -> (String, String, String) {
    (finding.table.clone(), finding.priors.join(", and "), cut_bytes(&finding.reason, 400).into_owned())
}

fn tiles(analysis: &Analysis) -> Vec<Tile> {
    let total = analysis.hosts.len().max(1) as u64;
    let mut left = 0;
    let tile = |verdict: Verdict| {
        let hosts = analysis.hosts.iter().filter(|host| host.verdict == verdict).count() as u64;
        // What is there must be seen.
        let width = if hosts == 0 { 0 } else { (hosts * 1_000 / total).max(4) };
        left += width;
        Tile { verdict, name: tile_name(verdict), hosts, bar: (left - width, width) }
    };
    Verdict::ALL.into_iter().map(tile).collect()
}

fn tile_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Outlier => "stand out",
        Verdict::Review => "to review",
        Verdict::Normal => "need no look",
        Verdict::NoPeers => "not judged",
    }
}

/// What the snapshot was held against.
fn compared(analysis: &Analysis) -> Vec<String> {
    let methods = escape(&analysis.methods.join(", ")).into_owned();
    let mut lines = vec![format!("Compared in {}, by {methods}", count(analysis.tables_compared, "table"))];
    if let Some(baseline) = &analysis.baseline {
        lines.push(format!(
            "baseline {} of {}",
            escape(&baseline.name),
            baseline.created_at.format("%Y-%m-%d")
        ));
    }
    if let Some(history) = &analysis.history {
        let since = history.since.format("%Y-%m-%d");
        lines.push(format!("{} since {since}", count(history.snapshots, "earlier snapshot")));
    }
    lines
}

/// What somebody vouches for, a line each.
fn suppressed(analysis: &Analysis) -> Vec<String> {
    let by = analysis.suppressed.by.iter().map(|by| {
        let until = by.until.map(|day| format!(", until {day}")).unwrap_or_default();
        format!("{} × {} ({}{until})", by.count, escape(&by.reason), escape(&by.who))
    });
    by.collect()
}

/// A campaign.
#[derive(Debug)]
struct CampaignView {
    /// Its place among all, from 0.
    at: usize,
    reason: String,
    score: f64,
    tables: Vec<String>,
    hosts: Vec<(u64, String)>,
    more_hosts: usize,
    rows: Vec<(String, u64, String)>,
    more_rows: usize,
    explained_by: Option<String>,
    ranks: Vec<u64>,
}

impl CampaignView {
    fn new(campaign: &Campaign, at: usize, ranks: &HashMap<&str, u64>) -> Self {
        let mut hosts: Vec<(u64, &str)> = campaign
            .hosts
            .iter()
            .filter_map(|host| Some((*ranks.get(host.as_str())?, host.as_str())))
            .collect();
        hosts.sort_unstable();
        let rows = campaign
            .rows
            .iter()
            .take(CAMPAIGN_ROWS)
            .map(|row| (escape(&row.table).into_owned(), row.hosts_with_row, row_text(&row.row)));
        Self {
            at,
            reason: escape(&campaign.reason).into_owned(),
            score: campaign.score,
            tables: campaign.tables.iter().map(|table| escape(table).into_owned()).collect(),
            rows: rows.collect(),
            more_rows: campaign.rows.len().saturating_sub(CAMPAIGN_ROWS),
            explained_by: campaign.explained_by.as_deref().map(|cause| escape(cause).into_owned()),
            ranks: hosts.iter().map(|(rank, _)| *rank).collect(),
            more_hosts: hosts.len().saturating_sub(CAMPAIGN_HOSTS),
            hosts: hosts
                .iter()
                .take(CAMPAIGN_HOSTS)
                .map(|(rank, host)| (*rank, escape(host).into_owned()))
                .collect(),
        }
    }
}

/// `name=curl  path=/usr/bin/curl`, without empty values.
fn row_text(row: &crate::model::Row) -> String {
    let pairs = row.iter().filter_map(|(name, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        (!value.is_null() && !text.is_empty())
            .then(|| format!("{}={}", escape(name), cut_bytes(&escape(&text), 300)))
    });
    pairs.take(6).collect::<Vec<_>>().join("  ")
}
