//! Places: where values are compared. A place is a column over the fleet or a peer group, or beside one value of another
//! column; what few hosts show in it is odd there, unless many show something of their own.

use std::collections::HashMap;

use roaring::RoaringBitmap;

use super::channels::LEAST_BITS;
use super::lines::{Line, Lines};
use super::peers::PeerGroups;
use super::views::{UNKNOWN, View};

/// Share of the hosts of a place up to which a value is rare.
const RARE: f64 = 0.1;
/// Whatever the size of the fleet, a value of more hosts is no single host's oddity.
const MOST_ALIKE: u64 = 32;

/// How many hosts of a place a rare value may be on.
fn most_alike(of: u64) -> u64 {
    ((of as f64 * RARE) as u64).clamp(2, MOST_ALIKE)
}

/// Few enough hosts of a place for a value to be odd there.
pub(super) fn is_rare(hosts: u64, of: u64) -> bool {
    hosts <= most_alike(of)
}

/// A line that is odd on a host, in the place where it is judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct OddHere {
    pub(super) line: usize,
    pub(super) host: u32,
    /// The peer group; none for the fleet.
    pub(super) group: Option<usize>,
    /// Hosts of the place that show this value.
    pub(super) hosts: u64,
    /// Hosts of the place.
    pub(super) of: u64,
    /// `(others as odd + 1) / (hosts of the place + 1)`: the smaller, the odder.
    pub(super) share: f64,
}

/// Hosts that are compared with each other.
#[derive(Debug)]
pub(super) struct Scope<'a> {
    /// The peer group; none for the fleet.
    pub(super) group: Option<usize>,
    pub(super) hosts: RoaringBitmap,
    /// Of a fleet: what most hosts of a kind show is not odd on one of them.
    pub(super) kinds: Option<&'a PeerGroups>,
    /// Fewer hosts in a place say nothing.
    pub(super) fewest: u64,
}

/// The places of all channels with one context: which lines show what beside each of its values.
pub(super) struct Places<'a> {
    lines: &'a Lines,
    places: Vec<Place>,
}

struct Place {
    lines: Vec<usize>,
    /// Hosts that have one of them.
    hosts: RoaringBitmap,
}

/// A line by what it shows in a channel.
struct Entry {
    target: u32,
    line: usize,
}

impl<'a> Places<'a> {
    /// Beside each value of `context`, or over all lines; places of fewer hosts than `fewest` are none.
    pub(super) fn new(lines: &'a Lines, context: Option<&View>, fewest: u64) -> Self {
        let mut by_value: HashMap<u32, Place> = HashMap::new();
        for (number, line) in lines.lines.iter().enumerate() {
            let value = context.map_or(0, |view| view.codes[number]);
            if value == UNKNOWN {
                continue;
            }
            let empty = || Place { lines: Vec::new(), hosts: RoaringBitmap::new() };
            let place = by_value.entry(value).or_insert_with(empty);
            place.lines.push(number);
            place.hosts |= &line.members;
        }
        let places = by_value.into_values().filter(|place| place.hosts.len() >= fewest).collect();
        Self { lines, places }
    }

    /// What is odd in its place, in any of these scopes.
    pub(super) fn odd_in(&self, target: &View, scopes: &[Scope<'_>]) -> Vec<OddHere> {
        let mut found = Vec::new();
        if scopes.is_empty() {
            return found;
        }
        for place in &self.places {
            let entry = |line: &usize| Entry { target: target.codes[*line], line: *line };
            let known = |entry: &Entry| entry.target != UNKNOWN;
            let mut entries: Vec<Entry> = place.lines.iter().map(entry).filter(known).collect();
            entries.sort_unstable_by_key(|entry| (entry.target, entry.line));
            let all = &place.hosts - &target.ignorant;
            for scope in scopes {
                let of = all.intersection_len(&scope.hosts);
                if of >= scope.fewest {
                    self.odd_in_place(&entries, &Here { scope, all: &all, of }, &mut found);
                }
            }
        }
        found
    }

    fn line(&self, entry: &Entry) -> &'a Line {
        &self.lines.lines[entry.line]
    }

    fn odd_in_place(&self, place: &[Entry], here: &Here<'_>, found: &mut Vec<OddHere>) {
        let values = place.chunk_by(|a, b| a.target == b.target);
        let rare: Vec<(&[Entry], Rare)> =
            values.filter_map(|value| Some((value, self.rare(value, here)?))).collect();
        let as_rare = AsRare::new(rare.iter().map(|(_, rare)| rare));
        for (value, rare) in &rare {
            let share = as_rare.count(rare.hosts) as f64 / (here.of + 1) as f64;
            if -share.log2() < LEAST_BITS {
                continue;
            }
            for host in &rare.odd_on {
                let lines = value.iter().filter(|entry| self.line(entry).members.contains(*host));
                found.extend(lines.map(|entry| OddHere {
                    line: entry.line,
                    host: *host,
                    group: here.scope.group,
                    hosts: rare.hosts,
                    of: here.of,
                    share,
                }));
            }
        }
    }

    /// The hosts of a value, when they are few.
    fn rare(&self, value: &[Entry], here: &Here<'_>) -> Option<Rare> {
        let most = most_alike(here.of) as usize;
        let mut hosts: Vec<u32> = Vec::new();
        for entry in value {
            let members = &self.line(entry).members;
            let count = members.intersection_len(&here.scope.hosts) as usize;
            if count > most {
                return None;
            }
            // Few members, or few of them in this group.
            match count as u64 == members.len() {
                true => hosts.extend(members),
                false => hosts.extend(members & &here.scope.hosts),
            }
            if hosts.len() > most {
                hosts.sort_unstable();
                hosts.dedup();
            }
            if hosts.len() > most {
                return None;
            }
        }
        hosts.sort_unstable();
        hosts.dedup();
        let odd_on: Vec<u32> =
            hosts.iter().copied().filter(|host| !here.is_usual_for(*host, &hosts)).collect();
        (!odd_on.is_empty()).then_some(Rare { hosts: hosts.len() as u64, odd_on })
    }
}

/// A place as a scope sees it.
struct Here<'a> {
    scope: &'a Scope<'a>,
    /// All hosts that show something in the place.
    all: &'a RoaringBitmap,
    /// Those of the scope.
    of: u64,
}

impl Here<'_> {
    /// Whether at least half of the other hosts of its kind, that show anything here, show the same.
    fn is_usual_for(&self, host: u32, showing: &[u32]) -> bool {
        let Some(kinds) = self.scope.kinds.filter(|_| showing.len() > 1) else { return false };
        let Some(kind) = kinds.of.get(host as usize).copied().flatten() else { return false };
        let kind = &kinds.groups[kind].hosts;
        let same = showing.iter().filter(|other| kind.contains(**other)).count() as u64;
        same >= 2 && (same - 1) * 2 >= kind.intersection_len(self.all) - 1
    }
}

/// A value that few hosts show.
struct Rare {
    hosts: u64,
    /// Those on which it is odd.
    odd_on: Vec<u32>,
}

/// How many hosts show, as the rarest of their values in a place, one at least as rare.
struct AsRare {
    /// By host, sorted.
    rarest: Vec<u64>,
}

impl AsRare {
    fn new<'a>(values: impl Iterator<Item = &'a Rare>) -> Self {
        let mut rarest: HashMap<u32, u64> = HashMap::new();
        for value in values {
            for host in &value.odd_on {
                let rarest = rarest.entry(*host).or_insert(u64::MAX);
                *rarest = value.hosts.min(*rarest);
            }
        }
        let mut rarest: Vec<u64> = rarest.into_values().collect();
        rarest.sort_unstable();
        Self { rarest }
    }

    /// The host itself among them.
    fn count(&self, hosts: u64) -> usize {
        self.rarest.partition_point(|rarest| *rarest <= hosts)
    }
}
