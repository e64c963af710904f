//! The method `history`: rows that no earlier snapshot of the fleet has, and rows that a host always had and has no
//! more; and the past of what other methods found.
//!
//! What arrives on many hosts at once is one change. Where a package or a kernel came to the same hosts, or all hosts
//! have it, the change is a deploy, told once and found nowhere; what is left of it no frequency can see.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use chrono::{DateTime, Utc};
use roaring::RoaringBitmap;

use super::candidate::{Candidate, Method, Subject, place};
use super::explain::{line_row, name_row};
use super::fleet::FleetState;
use super::history::History;
use super::lines::{Group, Id, Lines, Loaded};
use super::novelty::{Novelty, adjust, lost_strength, own_strength, quiet, shared_strength};
use super::past::{PastTable, Seen, Yardstick};
use crate::catalog::Strength;
use crate::model::{Campaign, Finding, FindingKind};

/// Share of the hosts up to which a new row is a host's own; with more, frequency does not see it.
const FEW: f64 = 0.05;
/// From this share of the hosts on a new row is on all of them, but for stragglers.
const NEARLY_ALL: f64 = 0.9;
/// Sets of hosts that are alike to this degree (Jaccard) are the same: races in collecting blur them.
const SAME_HOSTS: f64 = 0.8;
/// When more than this share of those that always had a row lost it at once, it was removed on purpose.
const REMOVED: f64 = 0.5;
/// Fewer hosts than this are not many.
const MANY: u64 = 3;
/// What an absence says in comparison with a presence.
const MISSING_FACTOR: f64 = 0.95;
/// Tables whose rows tell of deploys; of the packages among them a name that the fleet never had is itself worth a look.
const PACKAGES: [&str; 3] = ["deb_packages", "python_packages", "rpm_packages"];
const SYSTEMS: [&str; 2] = ["kernel_info", "os_version"];
/// Most deployed things that a sentence names.
const NAMED: usize = 3;

/// A row, or a content of a row, that no earlier snapshot has.
struct Arrival {
    kind: FindingKind,
    group: Group,
    /// What most hosts have instead, and on how many.
    instead: Option<(usize, u64)>,
    /// Of a content: how many the thing had before.
    contents: u32,
    have: RoaringBitmap,
    /// Of those, hosts with a past.
    with_past: RoaringBitmap,
}

/// Everything that arrived in one table.
fn arrivals(table: &Loaded<'_>, past: &PastTable) -> Vec<Arrival> {
    let mut found = Vec::new();
    let lines = &table.lines;
    let mut arrived = |kind, group: &Group, instead, contents| {
        let have = &group.members & &table.answers.heard;
        let with_past = &have & &past.heard;
        if !with_past.is_empty() {
            found.push(Arrival { kind, group: group.clone(), instead, contents, have, with_past });
        }
    };
    for group in lines.loose() {
        let thing = past.loose.get(&group.id).filter(|seen| seen.snapshots > 0);
        let Some(thing) = thing else {
            arrived(FindingKind::New, &group, None, 1);
            continue;
        };
        let contents = lines.strict(&group);
        let is_known = |content: &&Group| past.strict.get(&content.id).is_some_and(|seen| seen.snapshots > 0);
        let common = contents.iter().filter(is_known).max_by_key(|content| content.members.len());
        let instead = common.map(|common| (lines.most_common(common), common.members.len()));
        for content in contents.iter().filter(|content| !is_known(content)) {
            arrived(FindingKind::Changed, content, instead, thing.contents);
        }
    }
    found
}

/// How many hosts have something that arrived.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Spread {
    /// Few: their own.
    Few,
    /// Many, but not all.
    Some,
    /// Nearly all.
    All,
}

impl Arrival {
    fn spread(&self, could: u64) -> Spread {
        let (have, could) = (self.with_past.len(), could as f64);
        match have {
            have if have <= ((could * FEW) as u64).max(1) => Spread::Few,
            have if have >= MANY && have as f64 >= could * NEARLY_ALL => Spread::All,
            _ => Spread::Some,
        }
    }

    fn tells_of_a_deploy(&self, table: &str) -> bool {
        PACKAGES.contains(&table) || SYSTEMS.contains(&table)
    }

    /// A package that the fleet never had explains what came with it, and is itself worth a look.
    fn is_explained_by_itself(&self, table: &str) -> bool {
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
    history: &'a History,
    deploys: Vec<Deploy>,
    everywhere: Deploy,
    /// Tables in which something arrived on exactly these hosts.
    tables_of: HashMap<Vec<u32>, BTreeSet<String>>,
}

impl<'a> Newcomers<'a> {
    pub(super) fn new(history: &'a History, tables: &[Loaded<'_>]) -> Self {
        let mut new =
            Self { history, deploys: Vec::new(), everywhere: Deploy::default(), tables_of: HashMap::new() };
        let arrived: Vec<(&Loaded<'_>, u64, Vec<Arrival>)> = tables
            .iter()
            .filter_map(|table| {
                let past = history.tables.get(table.name())?;
                Some((table, could(table, past), arrivals(table, past)))
            })
            .collect();
        for (table, could, arrivals) in &arrived {
            arrivals.iter().filter(|arrival| arrival.tells_of_a_deploy(table.name())).for_each(|arrival| {
                if arrival.spread(*could) != Spread::Few {
                    new.deployed(table, arrival);
                }
            });
        }
        for (table, could, arrivals) in &arrived {
            arrivals.iter().for_each(|arrival| new.count(table.name(), arrival, *could));
        }
        new
    }

    fn deployed(&mut self, table: &Loaded<'_>, arrival: &Arrival) {
        let lines = &table.lines;
        let mut named: Vec<String> = arrival.kind.eq(&FindingKind::Changed).then(|| "name".to_owned()).into_iter().collect();
        named.extend(lines.spec.identity(Strength::Strict).map(|column| column.name.clone()));
        named.dedup();
        let row = line_row(lines, lines.most_common(&arrival.group));
        let what = format!("{}: {}", table.name(), name_row(&lines.spec, &row, &named));
        match self.deploys.iter_mut().find(|deploy| same_hosts(&deploy.hosts, &arrival.have)) {
            Some(deploy) => deploy.what.push(what),
            None => {
                self.deploys.push(Deploy { hosts: arrival.have.clone(), what: vec![what], ..Deploy::default() });
            }
        }
    }

    fn explanation(&self, arrival: &Arrival) -> Option<usize> {
        self.deploys.iter().position(|deploy| same_hosts(&deploy.hosts, &arrival.have))
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
        Some(TableHistory { newcomers: self, past, table, strengths: HashMap::new() })
    }
}

fn could(table: &Loaded<'_>, past: &PastTable) -> u64 {
    table.answers.heard.intersection_len(&past.heard)
}

fn same_hosts(a: &RoaringBitmap, b: &RoaringBitmap) -> bool {
    let both = a.intersection_len(b) as f64;
    both >= SAME_HOSTS * (a.len() + b.len() - both as u64) as f64
}

fn day(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d").to_string()
}

/// The past of one table, for scoring and for telling.
pub(super) struct TableHistory<'a> {
    newcomers: &'a Newcomers<'a>,
    past: &'a PastTable,
    table: &'a Loaded<'a>,
    /// Of the candidates of the method itself.
    strengths: HashMap<Place, f64>,
}

/// Host, whether it is an absence, and id.
type Place = (u32, bool, Id);

fn place_of(candidate: &Candidate) -> Place {
    (candidate.host, candidate.kind == FindingKind::Missing, candidate.id)
}

impl TableHistory<'_> {
    /// What the method itself finds.
    pub(super) fn candidates(&mut self) -> Vec<Candidate> {
        let could = could(self.table, self.past);
        let arrivals = arrivals(self.table, self.past);
        let unexplained = |arrival: &&Arrival| self.newcomers.explanation(arrival).is_none();
        let some = arrivals.iter().filter(|arrival| arrival.spread(could) == Spread::Some).filter(unexplained);
        let sets: BTreeSet<Vec<u32>> = some.map(|arrival| arrival.have.iter().collect()).collect();
        let mut found = Vec::new();
        for arrival in &arrivals {
            match arrival.spread(could) {
                Spread::Few => self.own(arrival, could, &mut found),
                Spread::Some => self.shared(arrival, (could, sets.len()), &mut found),
                Spread::All => {}
            }
        }
        self.lost(&mut found);
        found
    }

    fn own(&mut self, arrival: &Arrival, could: u64, found: &mut Vec<Candidate>) {
        let usual = self.usual(arrival.kind);
        let quiet = quiet(usual) / restless(arrival.contents);
        for host in &arrival.with_past {
            let strength = own_strength(quiet, crowd(self.usual(arrival.kind), host));
            self.push(arrival, (host, could), strength, found);
        }
    }

    fn shared(&mut self, arrival: &Arrival, (could, sets): (u64, usize), found: &mut Vec<Candidate>) {
        let name = self.table.name();
        let is_deploy = self.newcomers.explanation(arrival).is_some();
        let is_new_package = arrival.tells_of_a_deploy(name) && !arrival.is_explained_by_itself(name);
        if is_deploy && !is_new_package {
            return;
        }
        let hosts: Vec<u32> = arrival.have.iter().collect();
        let tables = self.newcomers.tables_of.get(&hosts).map_or(1, BTreeSet::len);
        let share = arrival.with_past.len() as f64 / could.max(1) as f64;
        let sets = self.usual(arrival.kind).sets.max(sets as f64);
        let strength = shared_strength(share, tables, sets) / restless(arrival.contents);
        for host in &arrival.have {
            self.push(arrival, (host, could), strength, found);
        }
    }

    fn push(&mut self, arrival: &Arrival, (host, could): (u32, u64), strength: f64, found: &mut Vec<Candidate>) {
        let lines = &self.table.lines;
        let Some(line) = lines.line_of(&arrival.group, host) else { return };
        self.strengths.insert((host, false, arrival.group.id), strength);
        found.push(Candidate {
            nearest: arrival.instead.map(|(line, hosts)| (Subject::Line(line), hosts)),
            rare_columns: rare_columns(lines, line, arrival),
            hosts_with_row: arrival.have.len(),
            hosts_answered: self.table.answers.heard.len().max(could),
            strict: Some(lines.lines[line].strict),
            ..candidate((host, arrival.kind), arrival.group.id, line)
        });
    }

    /// What a host always had and has no more, where others still have it.
    fn lost(&mut self, found: &mut Vec<Candidate>) {
        let answers = self.table.answers;
        let hosts = answers.answered.intersection_len(&self.past.heard);
        let mut lost = Vec::new();
        let mut losing = RoaringBitmap::new();
        for group in self.table.lines.loose() {
            let Some(always) = self.past.always.get(&group.id) else { continue };
            let missing = always - &group.members;
            let is_removed = always.len() >= MANY && missing.len() as f64 > always.len() as f64 * REMOVED;
            if !missing.is_empty() && !is_removed {
                losing |= &missing;
                lost.push((group, always.len(), missing));
            }
        }
        for (group, always, missing) in lost {
            let line = self.table.lines.most_common(&group);
            for host in &missing {
                let heard = self.past.heard_since(host, 0);
                let strength = lost_strength(heard, (missing.len(), always), (losing.len(), hosts));
                self.strengths.insert((host, true, group.id), MISSING_FACTOR * strength);
                found.push(Candidate {
                    hosts_with_row: always - missing.len(),
                    hosts_answered: always,
                    ..candidate((host, FindingKind::Missing), group.id, line)
                });
            }
        }
    }

    fn usual(&self, kind: FindingKind) -> &Yardstick {
        if is_of_content(kind) { &self.past.strict_usual } else { &self.past.loose_usual }
    }

    /// Scores of candidates of all methods in the light of the past; `scores` are theirs without it, 0 to 100 times the
    /// weight of the table. Against a baseline somebody said what is normal, and the past does not change that.
    pub(super) fn adjust(&self, candidates: &[Candidate], scores: &mut [f64]) {
        let most = 100.0 * self.table.lines.spec.weight;
        let by_frequency = |candidate: &&Candidate| candidate.method == Method::Frequency;
        let told: HashSet<Place> = candidates.iter().filter(by_frequency).map(place_of).collect();
        for (candidate, score) in candidates.iter().zip(scores) {
            let place = place_of(candidate);
            let own = self.strengths.get(&place).copied().unwrap_or_default() * most / 100.0;
            match candidate.method {
                // Frequency has the better words for what both find.
                Method::History => *score = if told.contains(&place) { 0.0 } else { own },
                Method::Baseline => {}
                Method::Frequency => *score = adjust(*score, most, &self.novelty(candidate)).max(own),
            }
        }
    }

    /// What the past says of a candidate.
    pub(super) fn novelty(&self, candidate: &Candidate) -> Novelty {
        let never = Seen::default();
        let ids = if is_of_content(candidate.kind) { &self.past.strict } else { &self.past.loose };
        let seen = ids.get(&candidate.id).unwrap_or(&never);
        let usual = self.usual(candidate.kind);
        let host = candidate.host;
        let (is_new, since) = match candidate.kind {
            FindingKind::Missing => self.absence(candidate, seen),
            _ => ((seen.snapshots == 0, seen.first_on(host).is_none()), seen.first_on(host)),
        };
        let heard = self.past.heard_since(host, 0).max(1);
        let at = |index: u32| self.newcomers.history.times.get(index as usize).copied();
        let on_host_since = since.and_then(at);
        let lasted = on_host_since.map(|since| self.newcomers.history.now - since);
        Novelty {
            new_to_fleet: is_new.0,
            new_to_host: is_new.1,
            host_has_past: self.past.heard.contains(host),
            first_seen: at(seen.first).filter(|_| seen.snapshots > 0),
            last_seen: at(seen.last).filter(|_| seen.snapshots > 0),
            on_host_since,
            snapshots: seen.snapshots,
            most: (seen.most, seen.most_of),
            settled: since.map_or(0.0, |since| f64::from(self.past.heard_since(host, since)) / f64::from(heard)),
            hours: lasted.map_or(0.0, |lasted| lasted.num_minutes() as f64 / 60.0),
            quiet: quiet(usual),
            crowd: crowd(usual, host),
        }
    }

    /// An absence is new where the row always was, and as old as the past where it never was; a row that comes and
    /// goes tells nothing.
    fn absence(&self, candidate: &Candidate, seen: &Seen) -> ((bool, bool), Option<u32>) {
        let always = self.past.always.get(&candidate.id).is_some_and(|hosts| hosts.contains(candidate.host));
        if always {
            return ((true, true), None);
        }
        match seen.first_on(candidate.host) {
            Some(_) => ((false, true), None),
            None => ((false, false), self.past.first_heard(candidate.host)),
        }
    }

    /// Adds to a finding what the past says: when the row was first seen, and half a sentence.
    pub(super) fn tell(&self, candidate: &Candidate, finding: &mut Finding) {
        let novelty = self.novelty(candidate);
        let now = self.newcomers.history.now;
        if candidate.kind != FindingKind::Missing {
            finding.first_seen = Some(novelty.first_seen.unwrap_or(now));
        } else {
            finding.first_seen = novelty.first_seen;
        }
        let what = match (candidate.method, candidate.kind) {
            (Method::History, FindingKind::Missing) => return,
            (_, FindingKind::Missing) => self.tell_absence(&novelty, candidate),
            (Method::History, _) => Some(format!("; {}", self.nobody_had_it())),
            _ => self.tell_presence(&novelty),
        };
        finding.reason.push_str(&what.unwrap_or_default());
    }

    fn nobody_had_it(&self) -> String {
        let since = day(self.newcomers.history.since());
        match self.past.snapshots() {
            1 => format!("the earlier snapshot of {since} does not have it"),
            count => format!("none of the {count} earlier snapshots since {since} has it"),
        }
    }

    fn tell_presence(&self, novelty: &Novelty) -> Option<String> {
        if novelty.new_to_fleet {
            return Some(format!("; first seen in this snapshot: {}", self.nobody_had_it()));
        }
        if let Some(since) = novelty.on_host_since {
            return Some(format!("; on this host since {} at the latest", day(since)));
        }
        let (most, of) = novelty.most;
        let first = day(novelty.first_seen?);
        Some(format!("; new on this host; others have had it since {first}, at most {most} of {of}"))
    }

    fn tell_absence(&self, novelty: &Novelty, candidate: &Candidate) -> Option<String> {
        if !novelty.host_has_past {
            return None;
        }
        if novelty.new_to_host && novelty.new_to_fleet {
            let heard = self.past.heard_since(candidate.host, 0);
            let snapshots = if heard == 1 { "the earlier snapshot".to_owned() } else { format!("all {heard} earlier snapshots") };
            return Some(format!("; it was here in {snapshots}"));
        }
        (!novelty.new_to_host).then(|| "; it never was since history begins".to_owned())
    }
}

fn is_of_content(kind: FindingKind) -> bool {
    matches!(kind, FindingKind::Variant | FindingKind::Changed)
}

/// A thing that had many contents says little with one more.
fn restless(contents: u32) -> f64 {
    1.0 + f64::from(contents.max(1)).log2()
}

/// New things of this host today, as a multiple of what is usual.
fn crowd(usual: &Yardstick, host: u32) -> f64 {
    f64::from(usual.today.get(&host).copied().unwrap_or_default()) / usual.per_host.max(1.0)
}

/// What differs from the content that is known; for a new thing, what identifies it.
fn rare_columns(lines: &Lines, line: usize, arrival: &Arrival) -> Vec<String> {
    let Some((instead, _)) = arrival.instead else { return Vec::new() };
    let columns = lines.spec.identity(Strength::Strict).map(|column| column.name.clone());
    columns.filter(|name| lines.value(line, name) != lines.value(instead, name)).collect()
}

fn candidate((host, kind): (u32, FindingKind), id: Id, line: usize) -> Candidate {
    Candidate {
        host,
        kind,
        subject: Subject::Line(line),
        nearest: None,
        places: [place(&[b"history", kind.as_str().as_bytes()]); 2],
        hosts_with_row: 0,
        hosts_answered: 0,
        hosts_with_thing: 0,
        known_contents: 1,
        rare_columns: Vec::new(),
        method: Method::History,
        id,
        strict: None,
    }
}

/// What the findings say about a method that could not have found them.
pub(super) fn warnings<'f>(findings: impl Iterator<Item = &'f Finding>) -> Option<String> {
    let is_shared = |finding: &&Finding| {
        finding.method == Method::History.as_str()
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
