//! The method `history`: rows that no earlier snapshot of the fleet has, and rows that a host always had and has no
//! more; and the past of what other methods found.
//!
//! What arrives on many hosts at once is one change. Where a package or a kernel came to the same hosts, or all hosts
//! have it, the change is a deploy, told once and found nowhere; what is left of it no frequency can see.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use roaring::RoaringBitmap;

use super::candidate::Method;
use super::explain::name_row;
use super::fleet::FleetState;
use super::history::History;
use super::lines::{Group, Loaded};
use super::members::Members;
use super::past::PastTable;
use super::sets::similar;
use super::table_history::TableHistory;
use crate::catalog::Strength;
use crate::model::{Campaign, Finding, FindingKind};

/// Share of the hosts up to which a new row is a host's own; with more, frequency does not see it.
const FEW: f64 = 0.05;
/// From this share of the hosts on a new row is on all of them, but for stragglers.
const NEARLY_ALL: f64 = 0.9;
/// Sets of hosts that are alike to this degree (Jaccard) are the same: races in collecting blur them.
const SAME_HOSTS: f64 = 0.8;
/// Fewer hosts than this are not many.
pub(super) const MANY: u64 = 3;
/// Tables whose rows tell of deploys; of the packages among them a name that the fleet never had is itself worth a look.
const PACKAGES: [&str; 3] = ["deb_packages", "python_packages", "rpm_packages"];
const SYSTEMS: [&str; 2] = ["kernel_info", "os_version"];
/// From this score on, new rows that many hosts share are worth a warning.
const WORTH_WARNING: f64 = 30.0;
/// Most deployed things that a sentence names.
const NAMED: usize = 3;

/// A row, or a content of a row, that no earlier snapshot has.
pub(super) struct Arrival {
    pub(super) kind: FindingKind,
    pub(super) group: Group,
    /// What most hosts have instead, and on how many.
    pub(super) instead: Option<(usize, u64)>,
    /// Of a content: how many the thing had before.
    pub(super) contents: u32,
    pub(super) have: Members,
    /// Of those, hosts with a past.
    pub(super) with_past: Members,
}

/// Everything that arrived in one table.
pub(super) fn arrivals<'a>(table: &'a Loaded<'_>, past: &'a PastTable) -> impl Iterator<Item = Arrival> {
    let lines = &table.lines;
    let arrived = |kind, group: Group, instead, contents| {
        let have = &group.members & &table.answers.heard;
        let with_past = &have & &past.heard;
        (!with_past.is_empty()).then_some(Arrival { kind, group, instead, contents, have, with_past })
    };
    let of_group = move |group: Group| -> Vec<Arrival> {
        let thing = past.loose.get(&group.id).filter(|seen| seen.snapshots > 0);
        let Some(thing) = thing else {
            return arrived(FindingKind::New, group, None, 1).into_iter().collect();
        };
        let is_known = |content: &Group| past.strict.get(&content.id).is_some_and(|seen| seen.snapshots > 0);
        let (known, new): (Vec<Group>, Vec<Group>) = lines.strict(&group).partition(is_known);
        let common = known.iter().max_by_key(|content| content.members.len());
        let instead = common.map(|common| (lines.most_common(common), common.members.len()));
        let new = new.into_iter();
        new.filter_map(|content| arrived(FindingKind::Changed, content, instead, thing.contents)).collect()
    };
    lines.loose().flat_map(of_group)
}

/// How many hosts have something that arrived.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Spread {
    /// Few: their own.
    Few,
    /// Many, but not all.
    Some,
    /// Nearly all.
    All,
}

impl Arrival {
    pub(super) fn spread(&self, could: u64) -> Spread {
        let (have, could) = (self.with_past.len(), could as f64);
        match have {
            have if have <= ((could * FEW) as u64).max(1) => Spread::Few,
            have if have >= MANY && have as f64 >= could * NEARLY_ALL => Spread::All,
            _ => Spread::Some,
        }
    }

    pub(super) fn tells_of_a_deploy(&self, table: &str) -> bool {
        PACKAGES.contains(&table) || SYSTEMS.contains(&table)
    }

    /// A package that the fleet never had explains what came with it, and is itself worth a look.
    pub(super) fn is_explained_by_itself(&self, table: &str) -> bool {
        SYSTEMS.contains(&table) || (PACKAGES.contains(&table) && self.kind == FindingKind::Changed)
    }
}

/// A change that explains what came with it.
#[derive(Debug, Default)]
struct Deploy {
    hosts: RoaringBitmap,
    /// Packages and kernels that came; empty when it is told by nothing but that all hosts have it.
    what: Vec<String>,
    rows: u64,
    tables: BTreeSet<String>,
}

/// What arrived since the past, over all tables.
pub(super) struct Newcomers<'a> {
    pub(super) history: &'a History,
    deploys: Vec<Deploy>,
    everywhere: Deploy,
    /// Tables in which something arrived on exactly these hosts.
    pub(super) tables_of: HashMap<Vec<u32>, BTreeSet<String>>,
    /// Groups of hosts that are alike; none where nobody looked for them.
    pub(super) peers: Vec<RoaringBitmap>,
}

impl<'a> Newcomers<'a> {
    pub(super) fn new(history: &'a History, tables: &[Loaded<'_>]) -> Self {
        let mut new = Self {
            history,
            deploys: Vec::new(),
            everywhere: Deploy::default(),
            tables_of: HashMap::new(),
            peers: Vec::new(),
        };
        let arrived: Vec<(&Loaded<'_>, u64, Vec<Arrival>)> = tables
            .iter()
            .filter_map(|table| {
                let past = history.tables.get(table.name())?;
                let could = could(table, past);
                // What is a few hosts' own is no deploy.
                let of_many = |arrival: &Arrival| arrival.spread(could) != Spread::Few;
                Some((table, could, arrivals(table, past).filter(of_many).collect()))
            })
            .collect();
        for (table, _, arrivals) in &arrived {
            let telling = arrivals.iter().filter(|arrival| arrival.tells_of_a_deploy(table.name()));
            telling.for_each(|arrival| new.deployed(table, arrival));
        }
        for (table, could, arrivals) in &arrived {
            arrivals.iter().for_each(|arrival| new.count(table.name(), arrival, *could));
        }
        new
    }

    /// What a host shows that is new is compared with its own kind too: where all of one role open new ports each day,
    /// one more says nothing.
    pub(super) fn with_peers(self, groups: Vec<RoaringBitmap>) -> Self {
        Self { peers: groups, ..self }
    }

    fn deployed(&mut self, table: &Loaded<'_>, arrival: &Arrival) {
        let lines = &table.lines;
        let mut named: Vec<String> =
            arrival.kind.eq(&FindingKind::Changed).then(|| "name".to_owned()).into_iter().collect();
        named.extend(lines.spec.identity(Strength::Strict).map(|column| column.name.clone()));
        named.dedup();
        let row = lines.row(lines.most_common(&arrival.group));
        let what = format!("{}: {}", table.name(), name_row(&lines.spec, &row, &named));
        let have = arrival.have.to_bitmap();
        match self.deploys.iter_mut().find(|deploy| same_hosts(&deploy.hosts, &have)) {
            Some(deploy) => deploy.what.push(what),
            None => {
                self.deploys.push(Deploy { hosts: have, what: vec![what], ..Deploy::default() });
            }
        }
    }

    pub(super) fn explanation(&self, arrival: &Arrival) -> Option<usize> {
        if self.deploys.is_empty() {
            return None;
        }
        let have = arrival.have.to_bitmap();
        self.deploys.iter().position(|deploy| same_hosts(&deploy.hosts, &have))
    }

    /// Whether these hosts lost something because a deploy replaced it.
    pub(super) fn is_replaced(&self, lost_by: &RoaringBitmap) -> bool {
        self.deploys.iter().any(|deploy| same_hosts(&deploy.hosts, lost_by))
    }

    fn count(&mut self, table: &str, arrival: &Arrival, could: u64) {
        let deploy = match (arrival.spread(could), self.explanation(arrival)) {
            (Spread::Few, _) => return,
            (_, Some(deploy)) => &mut self.deploys[deploy],
            (Spread::All, None) => {
                self.everywhere.hosts |= &arrival.have;
                &mut self.everywhere
            }
            (Spread::Some, None) => {
                self.tables_of.entry(arrival.have.iter().collect()).or_default().insert(table.to_owned());
                return;
            }
        };
        deploy.rows += 1;
        deploy.tables.insert(table.to_owned());
    }

    /// Deploys, each told once.
    pub(super) fn deploys(&self, state: &FleetState) -> Vec<Campaign> {
        let told = |deploy: &Deploy| Campaign {
            hosts: deploy.hosts.iter().filter_map(|host| state.hosts.get(host as usize).cloned()).collect(),
            findings: Vec::new(),
            reason: self.deploy_reason(deploy),
            score: 0.0,
            tables: deploy.tables.iter().cloned().collect(),
            rows: Vec::new(),
            explained_by: Some(if deploy.what.is_empty() {
                "a deploy".to_owned()
            } else {
                deploy.what.join(", ")
            }),
        };
        self.deploys.iter().chain((self.everywhere.rows > 0).then_some(&self.everywhere)).map(told).collect()
    }

    fn deploy_reason(&self, deploy: &Deploy) -> String {
        let rows = if deploy.rows == 1 { "1 row".to_owned() } else { format!("{} rows", deploy.rows) };
        let tables = deploy.tables.iter().cloned().collect::<Vec<_>>().join(", ");
        let since = day(self.history.times.last().copied().unwrap_or(self.history.now));
        let hosts = deploy.hosts.len();
        if deploy.what.is_empty() {
            return format!(
                "{rows} of {tables} came to (nearly) all hosts since {since}: a deploy, unless all were broken into at once"
            );
        }
        let more = deploy.what.len().saturating_sub(NAMED);
        let what = deploy.what.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        format!("a deploy on {hosts} hosts since {since}: {rows} of {tables} came with {what}{more}")
    }

    /// What the past says of a table; `None` when no earlier snapshot has it.
    pub(super) fn table<'b>(&'b self, table: &'b Loaded<'b>) -> Option<TableHistory<'b>> {
        let past = self.history.tables.get(table.name()).filter(|past| past.snapshots() > 0)?;
        Some(TableHistory::new(self, past, table))
    }
}

pub(super) fn could(table: &Loaded<'_>, past: &PastTable) -> u64 {
    table.answers.heard.intersection_len(&past.heard)
}

pub(super) fn same_hosts(a: &RoaringBitmap, b: &RoaringBitmap) -> bool {
    similar(a, b, SAME_HOSTS)
}

pub(super) fn day(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d").to_string()
}

/// What the findings say about a method that could not have found them.
pub(super) fn warnings<'f>(findings: impl Iterator<Item = &'f Finding>) -> Option<String> {
    let is_shared = |finding: &&Finding| {
        finding.method == Method::History.as_str()
            && finding.score >= WORTH_WARNING
            && finding.kind != FindingKind::Missing
            && finding.hosts_with_row as f64 > (finding.hosts_answered as f64 * FEW).max(1.0)
    };
    let mut most: BTreeMap<u64, u64> = BTreeMap::new();
    findings.filter(is_shared).for_each(|finding| {
        most.insert(finding.hosts_with_row, finding.hosts_answered);
    });
    let (have, of) = most.pop_last()?;
    Some(format!(
        "rows first seen in this snapshot are on up to {have} of {of} hosts, and no package or kernel came with them: the method frequency cannot see what so many share, history can"
    ))
}
