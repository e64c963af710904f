//! The past of one table: what the method `history` finds in it, and what the past says of what others find.

use std::collections::{BTreeSet, HashMap, HashSet};

use roaring::RoaringBitmap;

use super::candidate::{Candidate, Method, Subject};
use super::lines::{Id, Lines, Loaded};
use super::newcomers::{Arrival, MANY, Newcomers, Spread, arrivals, could, day};
use super::novelty::{Novelty, adjust, lost_strength, own_strength, quiet, quiet_among, shared_strength};
use super::past::{PastTable, Seen, Yardstick};
use crate::catalog::Strength;
use crate::model::{Finding, FindingKind};

/// When more than this share of those that always had a row lost it at once, it was removed on purpose.
const REMOVED: f64 = 0.5;

/// What an absence says in comparison with a presence.
const MISSING_FACTOR: f64 = 0.95;

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

impl<'a> TableHistory<'a> {
    pub(super) fn new(newcomers: &'a Newcomers<'a>, past: &'a PastTable, table: &'a Loaded<'a>) -> Self {
        Self { newcomers, past, table, strengths: HashMap::new() }
    }

    /// What the method itself finds.
    pub(super) fn candidates(&mut self) -> Vec<Candidate> {
        let could = could(self.table, self.past);
        let unexplained = |arrival: &Arrival| self.newcomers.explanation(arrival).is_none();
        let some = arrivals(self.table, self.past).filter(|arrival| arrival.spread(could) == Spread::Some);
        let sets: BTreeSet<Vec<u32>> =
            some.filter(unexplained).map(|arrival| arrival.have.iter().collect()).collect();
        let mut found = Vec::new();
        for arrival in arrivals(self.table, self.past) {
            match arrival.spread(could) {
                Spread::Few => self.own(&arrival, could, &mut found),
                Spread::Some => self.shared(&arrival, (could, sets.len()), &mut found),
                Spread::All => {}
            }
        }
        self.lost(&mut found);
        found
    }

    fn own(&mut self, arrival: &Arrival, could: u64, found: &mut Vec<Candidate>) {
        for host in arrival.with_past.iter() {
            let quiet = self.quiet(arrival.kind, host) / restless(arrival.contents);
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
        for host in arrival.have.iter() {
            self.push(arrival, (host, could), strength, found);
        }
    }

    fn push(
        &mut self,
        arrival: &Arrival,
        (host, could): (u32, u64),
        strength: f64,
        found: &mut Vec<Candidate>,
    ) {
        let lines = &self.table.lines;
        let Some(line) = lines.line_of(&arrival.group.lines, host) else { return };
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
            let replaced = self.newcomers.is_replaced(&missing);
            let is_removed = always.len() >= MANY && missing.len() as f64 > always.len() as f64 * REMOVED;
            if !missing.is_empty() && !is_removed && !replaced {
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

    /// How unusual it is that a host of this kind shows anything new, 0 to 1.
    fn quiet(&self, kind: FindingKind, host: u32) -> f64 {
        let usual = self.usual(kind);
        let group = self.newcomers.peers.iter().find(|group| group.contains(host));
        let among =
            group.map(|group| group & &self.past.heard).map_or(1.0, |group| quiet_among(usual, &group));
        quiet(usual).min(among)
    }

    /// Scores of candidates of all methods in the light of the past; `scores` are theirs without it, 0 to 100 times the
    /// weight of the table. Against a baseline somebody said what is normal, and the past does not change that.
    pub(super) fn adjust(&self, candidates: &[Candidate], scores: &mut [f64]) {
        let most = 100.0 * self.table.lines.spec.weight;
        let by_fleet =
            |candidate: &&Candidate| !matches!(candidate.method, Method::History | Method::Baseline);
        let told: HashSet<Place> = candidates.iter().filter(by_fleet).map(place_of).collect();
        for (candidate, score) in candidates.iter().zip(scores) {
            let place = place_of(candidate);
            let own = self.strengths.get(&place).copied().unwrap_or_default() * most / 100.0;
            match candidate.method {
                // The comparison with the fleet has the better words for what both find.
                Method::History => *score = if told.contains(&place) { 0.0 } else { own },
                Method::Baseline => {}
                _ => *score = adjust(*score, most, &self.novelty(candidate)).max(own),
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
            settled: since
                .map_or(0.0, |since| f64::from(self.past.heard_since(host, since)) / f64::from(heard)),
            hours: lasted.map_or(0.0, |lasted| lasted.num_minutes() as f64 / 60.0),
            quiet: self.quiet(candidate.kind, host),
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
            let snapshots = if heard == 1 {
                "the earlier snapshot".to_owned()
            } else {
                format!("all {heard} earlier snapshots")
            };
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
    columns.filter(|name| lines.text(line, name) != lines.text(instead, name)).collect()
}

fn candidate((host, kind): (u32, FindingKind), id: Id, line: usize) -> Candidate {
    Candidate { id, ..Candidate::new(Method::History, kind, host, Subject::Line(line)) }
}
