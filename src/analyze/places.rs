//! Places: where values are compared. A place is a column over the fleet or a peer group, or beside one value of another
//! column; what few hosts show in it is odd there, unless many show something of their own.

use std::borrow::Cow;
use std::ops::Range;

use roaring::RoaringBitmap;

use super::channels::LEAST_BITS;
use super::lines::Lines;
use super::members::Members;
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
    /// By ordinal: whether it is one of them.
    has: Vec<bool>,
    /// Of a fleet: what most hosts of a kind show is not odd on one of them.
    kinds: Option<&'a PeerGroups>,
    /// Fewer hosts in a place say nothing.
    fewest: u64,
}

impl<'a> Scope<'a> {
    /// All hosts of a fleet.
    pub(super) fn fleet(hosts: &RoaringBitmap, kinds: &'a PeerGroups, fewest: u64) -> Self {
        Self { kinds: Some(kinds), ..Self::new(None, hosts.clone(), fewest) }
    }

    /// The hosts of a peer group.
    pub(super) fn group(number: usize, hosts: RoaringBitmap, fewest: u64) -> Self {
        Self::new(Some(number), hosts, fewest)
    }

    fn new(group: Option<usize>, hosts: RoaringBitmap, fewest: u64) -> Self {
        let mut has = vec![false; hosts.max().map_or(0, |last| last as usize + 1)];
        hosts.iter().for_each(|host| has[host as usize] = true);
        Self { group, hosts, has, kinds: None, fewest }
    }

    fn has(&self, host: u32) -> bool {
        self.has.get(host as usize).copied().unwrap_or_default()
    }
}

/// The places of all channels with one context: which lines show what beside each of its values.
pub(super) struct Places<'a> {
    lines: &'a Lines,
    /// By line: the number of its place, or [`UNKNOWN`]; none where there is one place of all lines.
    place_of: Option<Vec<u32>>,
    /// By place: the hosts that have one of its lines.
    hosts: Vec<RoaringBitmap>,
}

impl<'a> Places<'a> {
    /// Beside each value of `context`, or over all lines; places of fewer hosts than `fewest` are none.
    pub(super) fn new(lines: &'a Lines, context: Option<&View>, fewest: u64) -> Self {
        let Some(view) = context else {
            let hosts = union(lines.lines.iter().map(|line| &line.members));
            let hosts = Some(hosts).filter(|hosts| hosts.len() >= fewest);
            return Self { lines, place_of: None, hosts: hosts.into_iter().collect() };
        };
        let mut place_of = vec![UNKNOWN; lines.lines.len()];
        let mut all = Vec::new();
        for code in 0..view.distinct {
            let of_code = view.by_code.of(code);
            let members = || of_code.iter().map(|line| &lines.lines[*line as usize].members);
            // With what several lines share counted twice.
            if members().map(Members::len).sum::<u64>() < fewest {
                continue;
            }
            let hosts = union(members());
            if hosts.len() >= fewest {
                of_code.iter().for_each(|line| place_of[*line as usize] = all.len() as u32);
                all.push(hosts);
            }
        }
        Self { lines, place_of: Some(place_of), hosts: all }
    }

    /// By place: how many hosts of each of these scopes show something there.
    pub(super) fn sizes(&self, scopes: &[Scope<'_>]) -> Vec<Vec<u64>> {
        let of_place =
            |hosts: &RoaringBitmap| scopes.iter().map(|scope| hosts.intersection_len(&scope.hosts)).collect();
        self.hosts.iter().map(of_place).collect()
    }

    /// What is odd in its place, in any of these scopes, of the given sizes.
    pub(super) fn odd_in(
        &self,
        (target, shown): (&View, &Shown<'_>),
        (scopes, sizes): (&[Scope<'_>], &[Vec<u64>]),
    ) -> Vec<OddHere> {
        let (mut work, mut found) = (Work::default(), Vec::new());
        for (number, (hosts, place)) in self.hosts.iter().zip(&shown.places).enumerate() {
            let all = match target.ignorant.is_empty() {
                true => Cow::Borrowed(hosts),
                false => Cow::Owned(hosts - &target.ignorant),
            };
            let entries = Entries { lines: &shown.lines[place.clone()], codes: &target.codes };
            for (scope, size) in scopes.iter().zip(&sizes[number]) {
                let of = match &all {
                    Cow::Borrowed(_) => *size,
                    Cow::Owned(all) => all.intersection_len(&scope.hosts),
                };
                if of >= scope.fewest {
                    self.odd_in_place(&entries, &Here { scope, all: &all, of }, (&mut work, &mut found));
                }
            }
        }
        found
    }

    /// The lines of each place that show something, those that show the same beside each other; and where those of
    /// each place are.
    pub(super) fn shown<'t>(&self, target: &'t View) -> Shown<'t> {
        let lines = target.by_code.lines();
        let Some(place_of) = &self.place_of else {
            let places = std::iter::repeat_n(0..lines.len(), self.hosts.len()).collect();
            return Shown { lines: Cow::Borrowed(lines), places };
        };
        let place_of = |line: u32| Some(place_of[line as usize]).filter(|place| *place != UNKNOWN);
        let mut counts = vec![0; self.hosts.len()];
        lines.iter().filter_map(|line| place_of(*line)).for_each(|place| counts[place as usize] += 1);
        let mut places: Vec<Range<usize>> = Vec::with_capacity(counts.len());
        let mut end = 0;
        for count in counts {
            places.push(end..end);
            end += count;
        }
        let mut entries = vec![0; end];
        for (line, place) in lines.iter().filter_map(|line| Some((*line, place_of(*line)?))) {
            let place = &mut places[place as usize];
            entries[place.end] = line;
            place.end += 1;
        }
        Shown { lines: Cow::Owned(entries), places }
    }

    fn members(&self, line: u32) -> &'a Members {
        &self.lines.lines[line as usize].members
    }

    fn odd_in_place(
        &self,
        place: &Entries<'_>,
        here: &Here<'_>,
        (work, found): (&mut Work, &mut Vec<OddHere>),
    ) {
        work.clear();
        for value in place.values() {
            self.note_rare(value, here, work);
        }
        let as_rare = work.as_rare();
        for rare in &work.rare {
            let share = as_rare[rare.hosts as usize] as f64 / (here.of + 1) as f64;
            if -share.log2() < LEAST_BITS {
                continue;
            }
            for host in &work.odd_on[rare.odd_on.clone()] {
                let lines = place.lines[rare.lines.clone()].iter();
                found.extend(lines.filter(|line| self.members(**line).contains(*host)).map(|line| OddHere {
                    line: *line as usize,
                    host: *host,
                    group: here.scope.group,
                    hosts: rare.hosts,
                    of: here.of,
                    share,
                }));
            }
        }
    }

    /// Notes a value, when few hosts show it and it is odd on one of them.
    fn note_rare(&self, (lines, range): (&[u32], Range<usize>), here: &Here<'_>, work: &mut Work) {
        if !self.few_hosts(lines, here, &mut work.hosts) {
            return;
        }
        let first = work.odd_on.len();
        let hosts = &work.hosts;
        work.odd_on.extend(hosts.iter().copied().filter(|host| !here.is_usual_for(*host, hosts)));
        if work.odd_on.len() > first {
            let odd_on = first..work.odd_on.len();
            work.rare.push(Rare { lines: range, hosts: work.hosts.len() as u64, odd_on });
        }
    }

    /// The hosts that show a value; false when they are not few.
    fn few_hosts(&self, lines: &[u32], here: &Here<'_>, hosts: &mut Vec<u32>) -> bool {
        let most = most_alike(here.of) as usize;
        hosts.clear();
        for line in lines {
            match self.members(*line) {
                Members::One(host) if !here.scope.has(*host) || hosts.last() == Some(host) => continue,
                Members::One(host) => hosts.push(*host),
                Members::Some(members) => {
                    let count = members.intersection_len(&here.scope.hosts);
                    if count > most as u64 {
                        return false;
                    }
                    // Few members, or few of them in this group.
                    match count == members.len() {
                        true => hosts.extend(members.iter()),
                        false => hosts.extend(members.as_ref() & &here.scope.hosts),
                    }
                }
            }
            if hosts.len() > most {
                hosts.sort_unstable();
                hosts.dedup();
            }
            if hosts.len() > most {
                return false;
            }
        }
        hosts.sort_unstable();
        hosts.dedup();
        true
    }
}

/// The lines that show something in a channel.
pub(super) struct Shown<'a> {
    /// Those of a place beside each other, and of these those that show the same.
    lines: Cow<'a, [u32]>,
    /// By place: where its lines are.
    places: Vec<Range<usize>>,
}

fn union<'a>(all: impl Iterator<Item = &'a Members>) -> RoaringBitmap {
    let mut hosts = RoaringBitmap::new();
    all.for_each(|members| hosts |= members);
    hosts
}

/// The lines of a place, those that show the same beside each other.
struct Entries<'a> {
    lines: &'a [u32],
    /// What each line of the table shows.
    codes: &'a [u32],
}

impl<'a> Entries<'a> {
    /// The lines of each value, and where they stand.
    fn values(&self) -> impl Iterator<Item = (&'a [u32], Range<usize>)> {
        let codes = self.codes;
        let mut start = 0;
        self.lines.chunk_by(move |a, b| codes[*a as usize] == codes[*b as usize]).map(move |lines| {
            let range = start..start + lines.len();
            start = range.end;
            (lines, range)
        })
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
    /// Its lines, as a part of those of the place.
    lines: Range<usize>,
    hosts: u64,
    /// The hosts on which it is odd, as a part of [`Work::odd_on`].
    odd_on: Range<usize>,
}

/// What is known of one place and used again for the next.
#[derive(Default)]
struct Work {
    /// Of the value at hand.
    hosts: Vec<u32>,
    rare: Vec<Rare>,
    odd_on: Vec<u32>,
    /// By host: the fewest hosts that show one of its values; 0 where it has no rare one.
    rarest: Vec<u8>,
}

impl Work {
    fn clear(&mut self) {
        self.rare.clear();
        self.odd_on.clear();
    }

    /// By number of hosts: how many hosts show, as the rarest of their values here, one at least as rare; the host
    /// itself is among them.
    fn as_rare(&mut self) -> [u64; MOST_ALIKE as usize + 1] {
        let mut counts = [0; MOST_ALIKE as usize + 1];
        for rare in &self.rare {
            for host in &self.odd_on[rare.odd_on.clone()] {
                let host = *host as usize;
                if host >= self.rarest.len() {
                    self.rarest.resize(host + 1, 0);
                }
                let known = self.rarest[host];
                if known == 0 || rare.hosts < u64::from(known) {
                    self.rarest[host] = rare.hosts as u8;
                }
            }
        }
        for host in &self.odd_on {
            counts[std::mem::take(&mut self.rarest[*host as usize]) as usize] += 1;
        }
        // Hosts that are counted already.
        counts[0] = 0;
        for hosts in 1..counts.len() {
            counts[hosts] += counts[hosts - 1];
        }
        counts
    }
}
