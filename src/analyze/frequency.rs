//! The method `frequency`: rows that hardly any other host has, and rows that hardly any other host lacks.
//!
//! A group of rows that is rare in its loose id is *new*; one that is common in its loose and rare in its strict id is
//! a *variant*; what nearly all comparable hosts have and one has not is *missing* there.

use std::collections::{BTreeMap, HashMap};

use roaring::RoaringBitmap;

use super::candidate::{Candidate, Method, Subject, place};
use super::fleet::TableAnswers;
use super::lines::{Group, Lines};
use crate::catalog::Strength;
use crate::model::FindingKind;

/// Fewer comparable hosts than this say nothing about what is rare.
const FEWEST_PEERS: u64 = 3;
/// Fewer comparable hosts than this say nothing about what is missing.
const FEWEST_PEERS_FOR_MISSING: u64 = 8;
/// Share of the comparable hosts up to which a row is rare.
const RARE: f64 = 0.05;
/// Share of the comparable hosts from which on the lack of a row is.
const EXPECTED: f64 = 0.95;
/// From this share of the hosts on, those that lack the same columns are compared with each other.
const OWN_KIND: f64 = 0.2;

/// Hosts that are judged for one table, and those that they are compared with.
struct Peers<'a> {
    judged: RoaringBitmap,
    /// All hosts that rows are counted on, the judged ones among them.
    compared: RoaringBitmap,
    /// The judged hosts that answered in full: only of them a row can be missing.
    answered: RoaringBitmap,
    count: u64,
    /// Identity columns that the judged hosts do not have.
    without: Vec<&'a str>,
}

/// What stands out in one table.
pub(super) fn candidates(lines: &Lines, answers: &TableAnswers) -> Vec<Candidate> {
    let mut found = Vec::new();
    let values = RareValues::new(lines);
    let all: Vec<usize> = (0..lines.lines.len()).collect();
    for peers in peers(lines, answers) {
        if peers.count < FEWEST_PEERS {
            continue;
        }
        let groups = match peers.without.is_empty() {
            true => lines.loose(),
            false => lines.grouped_without(&all, Strength::Loose, &peers.without),
        };
        let mut of_peers = Finder { lines, peers: &peers, values: &values, found: &mut found };
        groups.iter().for_each(|group| of_peers.group(group));
    }
    found
}

/// Hosts whose agents return the same identity columns are compared with each other. A few that lack some are compared
/// with everybody, by the columns that they have: an old agent is no compromise, and leaving a column out no hiding
/// place. Hosts without rows can lack what the largest group has.
fn peers<'a>(lines: &Lines, answers: &'a TableAnswers) -> Vec<Peers<'a>> {
    let is_identity =
        |name: &&str| lines.spec.column(name).is_some_and(|column| column.in_identity(Strength::Strict));
    let mut by_columns: BTreeMap<Vec<&str>, RoaringBitmap> = BTreeMap::new();
    for (columns, hosts) in &answers.by_columns {
        let without: Vec<&str> = columns.split(',').filter(is_identity).collect();
        *by_columns.entry(without).or_default() |= hosts;
    }
    let heard = answers.heard.len();
    let largest = by_columns.values().map(RoaringBitmap::len).max().unwrap_or_default();
    let mut empty = Some(answers.without_rows.clone());
    let mut all = Vec::new();
    for (without, hosts) in by_columns {
        let is_own_kind = hosts.len() >= FEWEST_PEERS && hosts.len() as f64 >= heard as f64 * OWN_KIND;
        let compared = if is_own_kind { &hosts | &answers.without_rows } else { answers.heard.clone() };
        let mut judged = hosts;
        if judged.len() == largest
            && let Some(empty) = empty.take()
        {
            judged |= empty;
        }
        let without = if is_own_kind { Vec::new() } else { without };
        let answered = &judged & &answers.answered;
        all.push(Peers { judged, answered, count: compared.len(), compared, without });
    }
    all
}

/// Few enough hosts for a row to stand out.
fn is_rare(hosts: u64, of: u64) -> bool {
    hosts <= ((of as f64 * RARE) as u64).max(1)
}

struct Finder<'a> {
    lines: &'a Lines,
    peers: &'a Peers<'a>,
    values: &'a RareValues,
    found: &'a mut Vec<Candidate>,
}

impl Finder<'_> {
    fn group(&mut self, group: &Group) {
        let have = &group.members & &self.peers.compared;
        if have.is_empty() {
            return;
        }
        if is_rare(have.len(), self.peers.count) {
            self.new_rows(group, &have);
            return;
        }
        self.variants(group, &have);
        let expected = self.peers.count >= FEWEST_PEERS_FOR_MISSING
            && have.len() as f64 >= self.peers.count as f64 * EXPECTED;
        if expected {
            self.missing(group, &have);
        }
    }

    fn new_rows(&mut self, group: &Group, have: &RoaringBitmap) {
        for host in &(have & &self.peers.judged) {
            let Some(line) = self.lines.line_of(group, host) else { continue };
            let rare_columns = self.values.rare_columns(self.lines, line, self.peers.count);
            let context = self.context(line, &rare_columns);
            self.found.push(Candidate {
                rare_columns,
                places: [place(&[b"new"]), place(&[b"new", context.as_bytes()])],
                ..self.candidate(host, FindingKind::New, line, have.len())
            });
        }
    }

    fn variants(&mut self, group: &Group, have: &RoaringBitmap) {
        let strict = match self.peers.without.is_empty() {
            true => self.lines.strict(group),
            false => self.lines.grouped_without(&group.lines, Strength::Strict, &self.peers.without),
        };
        let compared = |group: &Group| &group.members & &self.peers.compared;
        let Some(common) = strict.iter().max_by_key(|group| compared(group).len()) else { return };
        let nearest = self.lines.most_common(common);
        let with_nearest = compared(common).len();
        for variant in strict.iter().filter(|variant| variant.id != common.id) {
            let members = compared(variant);
            if !is_rare(members.len(), have.len()) {
                continue;
            }
            for host in &(&members & &self.peers.judged) {
                let Some(line) = self.lines.line_of(variant, host) else { continue };
                let candidate = Candidate {
                    nearest: Some((Subject::Line(nearest), with_nearest)),
                    rare_columns: self.differing(line, nearest),
                    hosts_with_thing: have.len(),
                    places: [place(&[b"variant"]), place(&[b"variant", &group.id])],
                    ..self.candidate(host, FindingKind::Variant, line, members.len())
                };
                self.found.push(candidate);
            }
        }
    }

    fn missing(&mut self, group: &Group, have: &RoaringBitmap) {
        let line = self.lines.most_common(group);
        for host in &(&self.peers.answered - have) {
            self.found.push(Candidate {
                places: [place(&[b"missing"]), place(&[b"missing", &group.id])],
                ..self.candidate(host, FindingKind::Missing, line, have.len())
            });
        }
    }

    fn candidate(&self, host: u32, kind: FindingKind, line: usize, hosts_with_row: u64) -> Candidate {
        let ids = &self.lines.lines[line];
        Candidate {
            host,
            kind,
            subject: Subject::Line(line),
            nearest: None,
            places: [0; 2],
            hosts_with_row,
            hosts_answered: self.peers.count,
            known_contents: 1,
            hosts_with_thing: hosts_with_row,
            rare_columns: Vec::new(),
            method: Method::Frequency,
            id: if kind == FindingKind::Variant { ids.strict } else { ids.loose },
            strict: (kind != FindingKind::Missing).then_some(ids.strict),
        }
    }

    /// What a rare value stands beside: a key of its own says nothing for a user who has one on every host, and much
    /// for one who has the same on all.
    fn context(&self, line: usize, rare_columns: &[String]) -> String {
        let loose = self.lines.spec.identity(Strength::Loose).map(|column| &column.name);
        let cell = |name: &String| match rare_columns.contains(name) {
            true => format!("{name} is rare"),
            false => format!("{name} {:?}", self.lines.value(line, name)),
        };
        loose.map(cell).collect::<Vec<_>>().join("\n")
    }

    fn differing(&self, line: usize, other: usize) -> Vec<String> {
        let strict = self.lines.spec.identity(Strength::Strict).map(|column| column.name.clone());
        let without = &self.peers.without;
        let compared = strict.filter(|name| !without.contains(&name.as_str()));
        compared.filter(|name| self.lines.value(line, name) != self.lines.value(other, name)).collect()
    }
}

/// Which values of identity columns are themselves rare, column by column.
struct RareValues {
    columns: Vec<String>,
    hosts: HashMap<(usize, String), RoaringBitmap>,
}

impl RareValues {
    fn new(lines: &Lines) -> Self {
        let columns: Vec<String> =
            lines.spec.identity(Strength::Loose).map(|column| column.name.clone()).collect();
        let mut hosts: HashMap<(usize, String), RoaringBitmap> = HashMap::new();
        for (number, line) in lines.lines.iter().enumerate() {
            for (index, column) in columns.iter().enumerate() {
                let Some(value) = lines.value(number, column) else { continue };
                *hosts.entry((index, value)).or_default() |= &line.members;
            }
        }
        Self { columns, hosts }
    }

    fn rare_columns(&self, lines: &Lines, line: usize, of: u64) -> Vec<String> {
        let is_rare_here = |index: usize, column: &String| {
            let value = lines.value(line, column)?;
            let hosts = self.hosts.get(&(index, value))?;
            is_rare(hosts.len(), of).then(|| column.clone())
        };
        self.columns.iter().enumerate().filter_map(|(index, column)| is_rare_here(index, column)).collect()
    }
}
