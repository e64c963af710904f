//! The past of one table: what earlier snapshots say of its ids, merged one snapshot at a time, oldest first.
//!
//! Hosts are numbered for the whole history: first the hosts of the analysed snapshot by their ordinals, then those that
//! only earlier snapshots have. In full only what the analysed snapshot has is remembered; of other ids that they were
//! there (16 bytes), and on which hosts they always were.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use roaring::RoaringBitmap;

use super::lines::{Id, Line, Lines};
use super::members::Members;

/// Share of the hosts up to which a new id is a host's own; ids on more hosts came as one change.
const OWN: f64 = 0.05;

/// One table of one snapshot, hosts numbered for the whole history.
#[derive(Debug, Default)]
pub(super) struct Slice {
    /// Sorted by loose and strict id, one for each.
    contents: Vec<Line>,
    /// Hosts that answered at least in part.
    pub(super) heard: RoaringBitmap,
    /// Hosts that answered in full.
    pub(super) answered: RoaringBitmap,
}

impl Slice {
    /// A slice of lines, in which an id may be several times.
    pub(super) fn new(mut lines: Vec<Line>, (heard, answered): (&RoaringBitmap, &RoaringBitmap)) -> Self {
        if !lines.is_sorted_by_key(ids) {
            lines.sort_by_key(ids);
        }
        lines.dedup_by(|line, before| {
            let is_same = ids(line) == ids(before);
            if is_same {
                before.members.add(&line.members);
            }
            is_same
        });
        Self { contents: lines, heard: heard.clone(), answered: answered.clone() }
    }

    /// Loose ids with the hosts that have them.
    fn things(&self) -> impl Iterator<Item = (Id, Members)> {
        let of_thing = |lines: &[Line]| {
            let mut members = lines[0].members.clone();
            lines[1..].iter().for_each(|line| members.add(&line.members));
            (lines[0].loose, members)
        };
        self.contents.chunk_by(|a, b| a.loose == b.loose).map(of_thing)
    }

    /// The hosts that have a loose id.
    fn thing(&self, id: Id) -> Members {
        let start = self.contents.partition_point(|line| line.loose < id);
        let mut members = Members::default();
        let lines = self.contents[start..].iter().take_while(|line| line.loose == id);
        lines.for_each(|line| members.add(&line.members));
        members
    }

    fn strict(&self) -> impl Iterator<Item = (Id, Cow<'_, Members>)> {
        self.contents.iter().map(|line| (line.strict, Cow::Borrowed(&line.members)))
    }

    fn loose(&self) -> impl Iterator<Item = (Id, Cow<'_, Members>)> {
        self.things().map(|(id, members)| (id, Cow::Owned(members)))
    }
}

fn ids(line: &Line) -> (Id, Id) {
    (line.loose, line.strict)
}

/// What earlier snapshots say of one id.
#[derive(Debug, Default, Clone)]
pub(super) struct Seen {
    /// Index of the first and the last snapshot that has it; meaningless when `snapshots` is 0.
    pub(super) first: u32,
    pub(super) last: u32,
    /// How many snapshots have it.
    pub(super) snapshots: u32,
    /// The highest prevalence: on how many hosts …
    pub(super) most: u64,
    /// … of how many that were heard.
    pub(super) most_of: u64,
    /// Of a loose id: how many contents it had.
    pub(super) contents: u32,
    /// Hosts of the analysed snapshot by the snapshot that first has it there.
    joined: Vec<(u32, Members)>,
}

impl Seen {
    /// The first snapshot that has it on this host.
    pub(super) fn first_on(&self, host: u32) -> Option<u32> {
        self.joined.iter().find(|(_, hosts)| hosts.contains(host)).map(|(index, _)| *index)
    }

    fn note(&mut self, index: u32, members: &Members, (heard, hosts): (u64, u32)) {
        if self.snapshots == 0 {
            self.first = index;
        }
        self.last = index;
        self.snapshots += 1;
        // Shares, without dividing.
        if members.len() * self.most_of.max(1) > self.most * heard.max(1) {
            (self.most, self.most_of) = (members.len(), heard);
        }
        let is_new = |host: &u32| *host < hosts && !self.joined.iter().any(|(_, had)| had.contains(*host));
        let new: Members = match members {
            Members::One(host) => Some(*host).into_iter().filter(is_new).collect(),
            Members::Some(all) => {
                let mut new = all.as_ref().clone();
                new.remove_range(hosts..);
                self.joined.iter().for_each(|(_, had)| new = &new - had);
                new.into()
            }
        };
        if !new.is_empty() {
            self.joined.push((index, new));
        }
    }
}

/// How many identities a snapshot had that none before had.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(super) struct Fresh {
    /// New ids.
    pub(super) ids: u64,
    /// Hosts with at least one that few hosts share: what is new on many at once is one change and no habit.
    pub(super) hosts: u64,
    /// Pairs of such an id and a host.
    pub(super) own: u64,
    /// Hosts that could show one: heard in this snapshot and in one before.
    pub(super) of: u64,
    /// Different sets of more hosts, but not of all, that share something new.
    pub(super) sets: u64,
}

impl Fresh {
    /// Share of the hosts with something new of their own.
    pub(super) fn share(self) -> f64 {
        self.hosts as f64 / self.of.max(1) as f64
    }

    /// New ids of its own that such a host has, on average.
    pub(super) fn per_host(self) -> f64 {
        self.own as f64 / self.hosts.max(1) as f64
    }
}

/// The ids of one strength.
#[derive(Debug, Default)]
struct Ids {
    /// Ids of the analysed snapshot that were seen.
    known: HashMap<Id, Seen>,
    /// All ids of the snapshots merged so far.
    seen: HashSet<Id>,
    /// For each snapshot after the first that the table has.
    fresh: Vec<Fresh>,
}

impl Ids {
    /// What of this is new, by host.
    fn fresh<'a>(
        &self,
        ids: impl Iterator<Item = (Id, Cow<'a, Members>)>,
        could: &RoaringBitmap,
    ) -> (Fresh, HashMap<u32, u32>) {
        let few = ((could.len() as f64 * OWN) as u64).max(1);
        let mut fresh = Fresh { of: could.len(), ..Fresh::default() };
        let mut own: HashMap<u32, u32> = HashMap::new();
        let mut sets: HashSet<Vec<u32>> = HashSet::new();
        for (_, members) in ids.filter(|(id, _)| !self.seen.contains(id)) {
            let have = members.as_ref() & could;
            fresh.ids += u64::from(!have.is_empty());
            if have.len() <= few {
                have.iter().for_each(|host| *own.entry(host).or_default() += 1);
            } else if have.len() < could.len() {
                sets.insert(have.iter().collect());
            }
        }
        fresh.sets = sets.len() as u64;
        fresh.hosts = own.len() as u64;
        fresh.own = own.values().map(|count| u64::from(*count)).sum();
        (fresh, own)
    }
}

/// What is usually new in a table, and what is today.
#[derive(Debug, Default)]
pub(super) struct Yardstick {
    /// Share of the hosts that show something new of their own in a snapshot.
    pub(super) share: f64,
    /// How many new things such a host shows.
    pub(super) per_host: f64,
    /// New ids of the fleet in a snapshot.
    pub(super) per_snapshot: f64,
    /// Different sets of many hosts that share something new in a snapshot.
    pub(super) sets: f64,
    /// Hosts that could show something new today.
    pub(super) hosts: u64,
    /// By host: new ids of its own in the analysed snapshot.
    pub(super) today: HashMap<u32, u32>,
}

impl Yardstick {
    /// The median of the snapshots. With fewer than two that have one before them, the snapshot itself is the best
    /// guess of what is usual: the larger of the two is taken.
    fn new(past: &[Fresh], today: Fresh, by_host: HashMap<u32, u32>) -> Self {
        let usual = |of: fn(Fresh) -> f64| match past {
            [] => of(today),
            [one] => of(*one).max(of(today)),
            all => median(all.iter().map(|fresh| of(*fresh)).collect()),
        };
        Self {
            share: usual(Fresh::share),
            per_host: usual(Fresh::per_host).max(1.0),
            per_snapshot: usual(|fresh| fresh.ids as f64),
            sets: usual(|fresh| fresh.sets as f64),
            hosts: today.of,
            today: by_host,
        }
    }
}

pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

/// Merges the snapshots of one table.
#[derive(Debug)]
pub(super) struct Merge<'a> {
    /// Of the analysed snapshot.
    lines: &'a Lines,
    loose: Ids,
    strict: Ids,
    /// Loose ids by the hosts that had them whenever they answered.
    always: HashMap<Id, Members>,
    heard: RoaringBitmap,
    /// By snapshot that has the table: its index, and who was heard.
    snapshots: Vec<(u32, RoaringBitmap)>,
    /// Hosts of the analysed snapshot.
    hosts: u32,
}

impl<'a> Merge<'a> {
    /// For a table of an analysed snapshot with that many hosts.
    pub(super) fn new(lines: &'a Lines, hosts: u32) -> Self {
        Self {
            lines,
            loose: Ids::default(),
            strict: Ids::default(),
            always: HashMap::new(),
            heard: RoaringBitmap::new(),
            snapshots: Vec::new(),
            hosts,
        }
    }

    /// Takes the next snapshot.
    pub(super) fn add(&mut self, index: u32, slice: &Slice) {
        let could = &slice.heard & &self.heard;
        let heard = (slice.heard.len(), self.hosts);
        if !self.snapshots.is_empty() {
            let (fresh, _) = self.loose.fresh(slice.loose(), &could);
            self.loose.fresh.push(fresh);
            let (fresh, _) = self.strict.fresh(slice.strict(), &could);
            self.strict.fresh.push(fresh);
        }
        self.keep_always(slice);
        for (id, hosts) in slice.things() {
            if self.lines.has_loose(id) {
                self.loose.known.entry(id).or_default().note(index, &hosts, heard);
            }
            self.loose.seen.insert(id);
        }
        for line in &slice.contents {
            if self.lines.has_strict(ids(line)) {
                self.strict.known.entry(line.strict).or_default().note(index, &line.members, heard);
            }
            let is_new = self.strict.seen.insert(line.strict);
            if let Some(seen) = self.loose.known.get_mut(&line.loose).filter(|_| is_new) {
                seen.contents += 1;
            }
        }
        self.heard |= &slice.heard;
        self.snapshots.push((index, slice.heard.clone()));
    }

    /// A host always had an id when it had it in the first snapshot that heard it, and no later answer lacks it.
    fn keep_always(&mut self, slice: &Slice) {
        self.always.retain(|id, always| {
            let thing = slice.thing(*id);
            always.retain(|host| !slice.answered.contains(host) || thing.contains(host));
            !always.is_empty()
        });
        let (heard, known) = (&self.heard, self.hosts);
        for (id, mut hosts) in slice.things() {
            hosts.retain(|host| host < known && !heard.contains(host));
            if !hosts.is_empty() {
                self.always.entry(id).or_default().add(&hosts);
            }
        }
    }

    /// Compares the analysed snapshot.
    pub(super) fn finish(mut self, today: &Slice) -> PastTable {
        self.heard.remove_range(self.hosts..);
        let could = &today.heard & &self.heard;
        let (fresh, by_host) = self.loose.fresh(today.loose(), &could);
        let loose_usual = Yardstick::new(&self.loose.fresh, fresh, by_host);
        let (fresh, by_host) = self.strict.fresh(today.strict(), &could);
        let strict_usual = Yardstick::new(&self.strict.fresh, fresh, by_host);
        self.always.retain(|id, always| {
            always.retain(|host| today.answered.contains(host));
            let thing = today.thing(*id);
            always.iter().any(|host| !thing.contains(host))
        });
        PastTable {
            loose: self.loose.known,
            strict: self.strict.known,
            loose_usual,
            strict_usual,
            always: self.always.into_iter().map(|(id, always)| (id, always.to_bitmap())).collect(),
            heard: self.heard,
            snapshots: self.snapshots,
        }
    }
}

/// What is known of the past of one table.
#[derive(Debug, Default)]
pub(super) struct PastTable {
    /// The ids of the analysed snapshot that were seen.
    pub(super) loose: HashMap<Id, Seen>,
    pub(super) strict: HashMap<Id, Seen>,
    pub(super) loose_usual: Yardstick,
    pub(super) strict_usual: Yardstick,
    /// Loose ids that a host lacks now and always had, with all hosts that always had them and answered now.
    pub(super) always: HashMap<Id, RoaringBitmap>,
    /// Hosts of the analysed snapshot that an earlier one heard for this table.
    pub(super) heard: RoaringBitmap,
    /// By snapshot that has the table: its index, and who was heard.
    snapshots: Vec<(u32, RoaringBitmap)>,
}

impl PastTable {
    /// Snapshots that heard the host for this table, from number `since` on.
    pub(super) fn heard_since(&self, host: u32, since: u32) -> u32 {
        let heard = |(index, hosts): &&(u32, RoaringBitmap)| *index >= since && hosts.contains(host);
        self.snapshots.iter().filter(heard).count() as u32
    }

    /// The first snapshot that heard the host for this table.
    pub(super) fn first_heard(&self, host: u32) -> Option<u32> {
        self.snapshots.iter().find(|(_, hosts)| hosts.contains(host)).map(|(index, _)| *index)
    }

    /// How many snapshots have the table.
    pub(super) fn snapshots(&self) -> usize {
        self.snapshots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    const HOSTS: u32 = 40;

    fn id(number: u8) -> Id {
        [number; 16]
    }

    fn hosts(hosts: impl IntoIterator<Item = u32>) -> RoaringBitmap {
        hosts.into_iter().collect()
    }

    /// All hosts answer; each row is its own loose and strict id.
    fn slice(rows: &[(u8, RoaringBitmap)]) -> Slice {
        let all = hosts(0..HOSTS);
        let line = |(number, hosts): &(u8, RoaringBitmap)| Line {
            loose: id(*number),
            strict: id(*number),
            members: hosts.clone().into(),
        };
        Slice::new(rows.iter().map(line).collect(), (&all, &all))
    }

    fn merged(earlier: &[Slice], today: &Slice) -> PastTable {
        let spec = Catalog::builtin().unwrap().table("users").unwrap().clone();
        let lines = Lines { spec, lines: today.contents.clone(), columns: Vec::new() };
        let mut merge = Merge::new(&lines, HOSTS);
        (0..).zip(earlier).for_each(|(index, slice)| merge.add(index, slice));
        merge.finish(today)
    }

    #[test]
    fn first_last_and_highest_prevalence_are_those_of_all_snapshots() {
        let earlier = [
            slice(&[]),
            slice(&[(1, hosts([3]))]),
            slice(&[(1, hosts(0..9))]),
            slice(&[(1, hosts([4]))]),
            slice(&[]),
        ];
        let past = merged(&earlier, &slice(&[(1, hosts([3, 11])), (2, hosts([0]))]));
        let seen = &past.loose[&id(1)];
        assert_eq!((seen.first, seen.last, seen.snapshots), (1, 3, 3));
        assert_eq!((seen.most, seen.most_of), (9, 40));
        assert_eq!([3, 4, 11].map(|host| seen.first_on(host)), [Some(1), Some(2), None]);
        assert!(!past.loose.contains_key(&id(2)), "no earlier snapshot has it");
        assert_eq!((past.heard_since(3, 1), past.first_heard(3)), (4, Some(0)));
    }

    #[test]
    fn hosts_that_are_gone_leave_no_trace_in_host_sets() {
        let mut earlier = slice(&[(1, hosts([2, 77]))]);
        earlier.heard.insert(77);
        let past = merged(&[earlier], &slice(&[(1, hosts([2]))]));
        assert_eq!(past.loose[&id(1)].first_on(77), None);
        assert_eq!(past.loose[&id(1)].most, 2);
        assert!(!past.heard.contains(77));
    }

    #[test]
    fn what_a_host_always_had_and_has_no_more_is_known() {
        let mut silent = slice(&[(1, hosts((0..HOSTS).filter(|host| *host != 5)))]);
        silent.heard.remove(5);
        silent.answered.remove(5);
        let earlier = [
            slice(&[(1, hosts(0..HOSTS)), (2, hosts(0..HOSTS))]),
            silent,
            slice(&[(1, hosts(0..HOSTS)), (2, hosts(1..HOSTS)), (3, hosts(0..HOSTS))]),
        ];
        let past = merged(&earlier, &slice(&[(1, hosts((0..HOSTS).filter(|host| *host != 5)))]));
        assert_eq!(past.always[&id(1)], hosts(0..HOSTS), "a host that did not answer lacked nothing");
        assert_eq!(past.always[&id(2)], hosts([5]), "all others lacked it on the second day");
        assert!(!past.always.contains_key(&id(3)), "what came later was not always there");
    }

    #[test]
    fn the_yardstick_is_the_median_of_the_snapshots() {
        let noise = |number: u8, of: u32| slice(&[(number, hosts([of])), (number + 1, hosts([of + 1]))]);
        let earlier = [noise(10, 0), noise(20, 3), noise(30, 7), slice(&[(9, hosts(0..HOSTS))])];
        let past = merged(&earlier, &slice(&[(50, hosts([1])), (51, hosts([1])), (52, hosts(0..16))]));
        let usual = &past.loose_usual;
        assert_eq!((usual.share, usual.per_host), (2.0 / 40.0, 1.0), "a deploy on all hosts is no habit");
        assert_eq!(usual.per_snapshot, 2.0);
        assert_eq!(usual.today, HashMap::from([(1, 2)]), "what sixteen hosts share is nobody's own");
    }

    #[test]
    fn with_one_earlier_snapshot_the_snapshot_itself_is_the_guess() {
        let today = slice(&[(1, hosts([1])), (2, hosts([2])), (3, hosts([2])), (4, hosts([3]))]);
        let usual = merged(&[slice(&[(1, hosts([1]))])], &today).loose_usual;
        assert_eq!((usual.share, usual.per_host, usual.per_snapshot), (2.0 / 40.0, 1.5, 3.0));
    }
}
