//! One analysis against the truth: everything that is measured of one fleet.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use diffy::catalog::{Catalog, Strength};
use diffy::model::{Analysis, Finding, FindingKind, HostResult, Verdict};
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::metrics::{self, Page};
use crate::truth::{Truth, cell};

/// A campaign is found when its hosts are the victims to this degree.
const SAME_HOSTS: f64 = 0.9;

/// What one method did on one fleet. None is what cannot be said: no victims, no verdicts, no list of rows.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Measures {
    /// Average precision over hosts, and what chance would give.
    pub(crate) ap: Option<f64>,
    pub(crate) chance: Option<f64>,
    /// Recall at the number of victims.
    pub(crate) recall: Option<f64>,
    /// Of the hosts that are called outliers, the share that is compromised.
    pub(crate) precision: Option<f64>,
    /// Clean hosts that are called outliers, for a hundred clean hosts.
    pub(crate) false_outliers: Option<f64>,
    /// Share of the canaries that are called outliers.
    pub(crate) canary: Option<f64>,
    /// What is said of rows.
    pub(crate) rows: Option<RowMeasures>,
    /// Rank of the first campaign whose hosts are the victims.
    pub(crate) campaign: Option<Reached>,
    /// Ranks of the hosts on which rows are missing.
    pub(crate) stopped: Vec<f64>,
    /// Seconds of the method alone.
    pub(crate) seconds: f64,
    /// Each scenario on each host.
    pub(crate) scenarios: Vec<ScenarioMeasure>,
    /// What put clean hosts among the first k.
    pub(crate) intruders: Vec<String>,
}

/// A number that may never be reached.
pub(crate) type Reached = Option<f64>;

/// What is measured of rows.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct RowMeasures {
    /// Rank of the first planted row on each victim that lists one.
    pub(crate) first: Vec<f64>,
    /// Share of the victims that list a planted row, and that list one among the first ten.
    pub(crate) listed: f64,
    pub(crate) top_ten: f64,
    /// Rows to read until 50 %, 90 %, all victims have shown one.
    pub(crate) read: [Reached; 3],
    /// The same, reading host by host.
    pub(crate) by_host: Option<[Reached; 3]>,
}

/// One scenario on one host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ScenarioMeasure {
    /// Its id.
    pub(crate) scenario: String,
    /// Whether it hides among what is usual.
    pub(crate) subtle: bool,
    /// Rank of its host, and whether that is among the first k.
    pub(crate) rank: f64,
    pub(crate) in_top: bool,
    /// Rank of its first row on the host.
    pub(crate) row: Reached,
}

/// Measures an analysis.
pub(crate) fn measure(analysis: &Analysis, truth: &Truth, catalog: &Catalog) -> Measures {
    let victims = truth.compromised.len();
    let ranked: Vec<(f64, bool)> =
        analysis.hosts.iter().map(|host| (host.score, truth.is_victim(&host.host))).collect();
    let ties = metrics::ties(&ranked);
    Measures {
        ap: metrics::average_precision(&ties),
        chance: (victims > 0).then(|| victims as f64 / analysis.hosts.len() as f64),
        recall: metrics::recall_at(&ties, victims),
        precision: outlier_precision(analysis, truth),
        false_outliers: Some(false_outliers(analysis, truth)),
        canary: canary(analysis, truth),
        rows: (victims > 0).then(|| row_measures(analysis, truth, catalog)).flatten(),
        campaign: truth.is_campaign().then(|| campaign(analysis, truth)),
        stopped: stopped(analysis, truth),
        seconds: 0.0,
        scenarios: scenarios(analysis, truth, catalog),
        intruders: intruders(analysis, truth, catalog),
    }
}

fn is_outlier(host: &HostResult) -> bool {
    host.verdict == Verdict::Outlier
}

fn outlier_precision(analysis: &Analysis, truth: &Truth) -> Option<f64> {
    let called: Vec<f64> = analysis
        .hosts
        .iter()
        .filter(|host| is_outlier(host))
        .map(|host| f64::from(u8::from(truth.is_victim(&host.host))))
        .collect();
    metrics::mean(&called)
}

fn false_outliers(analysis: &Analysis, truth: &Truth) -> f64 {
    let clean: Vec<&HostResult> = analysis.hosts.iter().filter(|host| !truth.is_victim(&host.host)).collect();
    let wrong = clean.iter().filter(|host| is_outlier(host)).count();
    100.0 * wrong as f64 / clean.len().max(1) as f64
}

fn canary(analysis: &Analysis, truth: &Truth) -> Option<f64> {
    let clean = |host: &&HostResult| truth.is_canary(&host.host) && !truth.is_victim(&host.host);
    let called = analysis.hosts.iter().filter(clean).map(|host| f64::from(u8::from(is_outlier(host))));
    metrics::mean(&called.collect::<Vec<_>>())
}

fn stopped(analysis: &Analysis, truth: &Truth) -> Vec<f64> {
    let hosts = analysis.hosts.iter().filter(|host| truth.lacks_rows(&host.host));
    hosts.map(|host| host.rank as f64).collect()
}

fn campaign(analysis: &Analysis, truth: &Truth) -> Reached {
    let victims: HashSet<&str> = truth.compromised.keys().map(String::as_str).collect();
    let is_theirs = |hosts: &[String]| {
        let hosts = hosts.iter().map(String::as_str).collect();
        metrics::jaccard(&hosts, &victims) >= SAME_HOSTS
    };
    let place = analysis.campaigns.iter().position(|campaign| is_theirs(&campaign.hosts));
    place.map(|place| place as f64 + 1.0)
}

fn row_measures(analysis: &Analysis, truth: &Truth, catalog: &Catalog) -> Option<RowMeasures> {
    let pages: Vec<HostRows> =
        analysis.hosts.iter().map(|host| HostRows::new(host, truth, catalog)).collect();
    let victims: Vec<&HostRows> = pages.iter().filter(|page| page.victim).collect();
    let count = victims.len() as f64;
    let first: Vec<f64> =
        victims.iter().filter_map(|page| page.first).map(|place| place as f64 + 1.0).collect();
    let mut benign: HashMap<&str, f64> = HashMap::new();
    for (identity, score) in pages.iter().flat_map(|page| &page.benign) {
        let best = benign.entry(identity).or_insert(f64::MIN);
        *best = best.max(*score);
    }
    let benign: Vec<f64> = benign.into_values().collect();
    let planted: Vec<Option<f64>> = victims.iter().map(|page| page.best).collect();
    let by_host: Vec<Page> = pages.iter().map(HostRows::page).collect();
    (!victims.is_empty()).then(|| RowMeasures {
        listed: first.len() as f64 / count,
        top_ten: first.iter().filter(|place| **place <= 10.0).count() as f64 / count,
        first,
        read: shares(&metrics::rows_above(&benign, &planted)),
        by_host: Some(shares(&metrics::read_by_host(&by_host))),
    })
}

/// 50 %, 90 % and all of the victims.
fn shares(values: &[Reached]) -> [Reached; 3] {
    [0.5, 0.9, 1.0].map(|share| metrics::reached_by(values, share))
}

/// The rows of one host.
#[derive(Debug)]
struct HostRows {
    /// Whether it shows planted rows.
    victim: bool,
    /// Identity and score of its benign rows, as listed.
    benign: Vec<(String, f64)>,
    /// Place of its first planted row.
    first: Option<usize>,
    /// Best score of a planted row.
    best: Option<f64>,
}

impl HostRows {
    fn new(host: &HostResult, truth: &Truth, catalog: &Catalog) -> Self {
        let mut rows =
            Self { victim: truth.shows_rows(&host.host), benign: Vec::new(), first: None, best: None };
        for (place, finding) in host.findings.iter().enumerate() {
            if truth.is_planted(&host.host, finding, catalog) {
                rows.first.get_or_insert(place);
                rows.best = Some(rows.best.unwrap_or(f64::MIN).max(finding.score));
            } else {
                rows.benign.push((masked_identity(finding, catalog), finding.score));
            }
        }
        rows
    }

    /// Before the first planted row all rows are benign, so its place says how many are read.
    fn page(&self) -> Page {
        let read = self.first.filter(|_| self.victim).unwrap_or(self.benign.len());
        let benign = self.benign[..read].iter().map(|(identity, _)| identity.clone()).collect();
        Page { benign, victim: self.victim, found: self.first.is_some() }
    }
}

/// What makes a benign row one that was read before: the same table, and the same identity but for numbers, hex digits
/// and what is random.
fn masked_identity(finding: &Finding, catalog: &Catalog) -> String {
    static VARYING: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r"[0-9a-fA-F]*[0-9][0-9a-fA-F]{5,}|[0-9a-fA-F]{5,}[0-9][0-9a-fA-F]*|[0-9]+").ok()
    });
    let spec = catalog.table_or_undeclared(&finding.table);
    let known: Vec<&str> = spec.identity(Strength::Strict).map(|column| column.name.as_str()).collect();
    let mut text = format!("{} {}", finding.table, finding.kind == FindingKind::Missing);
    for (name, value) in
        finding.row.iter().filter(|(name, _)| known.is_empty() || known.contains(&name.as_str()))
    {
        text.push_str(&format!("\0{name}={}", cell(Some(value))));
    }
    match VARYING.as_ref() {
        Some(varying) => varying.replace_all(&text, "#").into_owned(),
        None => text,
    }
}

fn scenarios(analysis: &Analysis, truth: &Truth, catalog: &Catalog) -> Vec<ScenarioMeasure> {
    let mut found = Vec::new();
    for host in &analysis.hosts {
        for planted in truth.compromised.get(&host.host).into_iter().flatten() {
            let shows =
                |finding: &Finding| planted.traces.iter().any(|trace| trace.shows_in(finding, catalog));
            found.push(ScenarioMeasure {
                scenario: planted.scenario.clone(),
                subtle: planted.subtle,
                rank: host.rank as f64,
                in_top: host.rank <= truth.compromised.len() as u64,
                row: host.findings.iter().position(shows).map(|place| place as f64 + 1.0),
            });
        }
    }
    found
}

fn intruders(analysis: &Analysis, truth: &Truth, catalog: &Catalog) -> Vec<String> {
    let top = analysis.hosts.iter().take(truth.compromised.len());
    let clean = top.filter(|host| !truth.is_victim(&host.host));
    clean.filter_map(|host| Some(cause(host, host.findings.first()?, truth, catalog))).collect()
}

/// What a finding of a clean host is: table, kind, and the honest oddity whose row it shows, or that the host has beside.
pub(crate) fn cause(host: &HostResult, finding: &Finding, truth: &Truth, catalog: &Catalog) -> String {
    let known = match truth.oddity(&host.host, finding, catalog) {
        Some(kind) => kind.to_owned(),
        None => match truth.oddities.get(&host.host).and_then(|oddities| oddities.first()) {
            Some(oddity) => format!("beside {}", oddity.kind),
            None => "no known oddity".to_owned(),
        },
    };
    format!("{} {} ({known})", finding.table, finding.kind)
}
