//! Channels: a value is judged in its place, which is a column over the fleet, within a peer group, or beside the value of
//! another column.
//!
//! *In the place* (docs/detection.md, step 3): of `n` hosts that show something there, `e` others show a value at least
//! as rare, so that `(e + 1) / (n + 1)` is how odd one more such host is. *In the channel*: the share of hosts that show
//! something as odd in any of its places; `-log2` of it are the bits. A place where everybody has a value of its own gives
//! none, and neither does a channel in which every host has one such place. Source of the idea: PeerPressure (OSDI 2004)
//! and conformal p-values (Bates et al. 2023).

use std::collections::HashMap;

use roaring::RoaringBitmap;

use super::lines::{Line, Lines, Loaded};
use super::peers::PeerGroups;
use super::views::{Shows, UNKNOWN, View};
use crate::catalog::{Role, Strength};

/// Fewer hosts in a place say nothing about what is rare there; of a smaller fleet all, and at least three.
const FEWEST_IN_PLACE: u64 = 8;
/// Two hosts that differ do not say which of them is odd.
const FEWEST_HOSTS: u64 = 3;
/// Share of the hosts of a place up to which a value is rare.
const RARE: f64 = 0.1;
/// Whatever the size of the fleet, a value of more hosts is no single host's oddity.
const MOST_ALIKE: u64 = 32;
/// Columns beside which others are judged.
const MOST_CONTEXTS: usize = 5;
/// What names less well than this, compared with the best column, is no name.
const MUST_REACH: f64 = 0.25;
/// What a context column says, against one that makes the row what it is.
const CONTEXT_WORTH: f64 = 0.75;
/// A number names something only where it does so nearly as well as the best column.
const NUMBER_MUST_REACH: f64 = 0.9;
/// A value on this share of the hosts recurs; a number must on more, because small numbers meet by chance.
const RECURS: (f64, f64) = (0.05, 0.3);

/// Where a row is judged, and how odd it is there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Odd {
    pub(super) line: usize,
    pub(super) host: u32,
    /// Index of the view that is odd.
    pub(super) target: usize,
    /// Index of the view beside which it is.
    pub(super) context: Option<usize>,
    /// The peer group; none for the fleet.
    pub(super) group: Option<usize>,
    /// Hosts of the place that show this value.
    pub(super) hosts: u64,
    /// Hosts of the place.
    pub(super) of: u64,
    /// How odd it is in its place: the smaller, the odder.
    place: f64,
    /// `-log2` of the share of hosts as odd in the channel.
    pub(super) bits: f64,
}

/// The oddest place of each row on each host.
pub(super) fn odd_rows(table: &Loaded<'_>, views: &[View], groups: &PeerGroups) -> Vec<Odd> {
    let fleet = Scope { group: None, hosts: table.answers.heard.clone(), groups: Some(groups) };
    let mut best: HashMap<(usize, u32), Odd> = HashMap::new();
    let keys = contexts(table, views);
    let in_groups = scopes(groups, table);
    for (target, view) in views.iter().enumerate() {
        for context in contexts_of(view, views, &keys) {
            let places = Places::new(&table.lines, (target, view), context.map(|at| (at, &views[at])));
            let mut channel = places.odd_in(&fleet);
            let worth = worth(table, view);
            calibrate(&mut channel, fleet.hosts.len(), worth);
            keep_best(&mut best, channel);
            let mut channel: Vec<Odd> = in_groups.iter().flat_map(|scope| places.odd_in(scope)).collect();
            let grouped = in_groups.iter().map(|scope| scope.hosts.len()).sum();
            calibrate(&mut channel, grouped, worth);
            keep_best(&mut best, channel);
        }
    }
    let mut odd: Vec<Odd> = best.into_values().collect();
    odd.sort_by_key(|odd| (odd.line, odd.host));
    odd
}

/// What a column says about a row is worth less than what makes it the row.
fn worth(table: &Loaded<'_>, target: &View) -> f64 {
    let column = target.column.as_deref().and_then(|name| table.lines.spec.column(name));
    match column.map(|column| column.role) {
        Some(Role::Context) => CONTEXT_WORTH,
        _ => 1.0,
    }
}

/// Hosts that are compared with each other.
struct Scope<'a> {
    group: Option<usize>,
    hosts: RoaringBitmap,
    /// Of a fleet: what most hosts of a kind show is not odd on one of them.
    groups: Option<&'a PeerGroups>,
}

impl Scope<'_> {
    /// Whether at least half of the other hosts of its kind, that show anything there, show the same.
    fn is_usual_for_its_kind(&self, host: u32, (showing, all): (&RoaringBitmap, &RoaringBitmap)) -> bool {
        let Some(groups) = self.groups else { return false };
        let Some(group) = groups.of.get(host as usize).copied().flatten() else { return false };
        let kind = &groups.groups[group].hosts;
        let (same, of) = (kind.intersection_len(showing), kind.intersection_len(all));
        same >= 2 && (same - 1) * 2 >= of - 1
    }
}

fn scopes(groups: &PeerGroups, table: &Loaded<'_>) -> Vec<Scope<'static>> {
    let scope = |(number, group): (usize, &super::peers::PeerGroup)| Scope {
        group: Some(number),
        hosts: &group.hosts & &table.answers.heard,
        groups: None,
    };
    let scopes = groups.groups.iter().enumerate().map(scope);
    // One group of all hosts is the fleet again.
    scopes
        .filter(|scope| scope.hosts.len() >= FEWEST_IN_PLACE && scope.hosts != table.answers.heard)
        .collect()
}

fn contexts_of(target: &View, views: &[View], keys: &[usize]) -> Vec<Option<usize>> {
    match target.shows {
        Shows::Loose => vec![None],
        Shows::Strict => vec![views.iter().position(|view| view.shows == Shows::Loose)],
        _ => {
            let others = keys.iter().filter(|key| views[**key].column != target.column);
            std::iter::once(None).chain(others.map(|key| Some(*key))).collect()
        }
    }
}

/// The views that say what a row is about: their values recur on other hosts and tell the rows of one host apart.
fn contexts(table: &Loaded<'_>, views: &[View]) -> Vec<usize> {
    let mut rated: Vec<(f64, usize)> = views
        .iter()
        .enumerate()
        .filter(|(_, view)| view.distinct > 1 && is_naming(table, view))
        .map(|(number, view)| (tells(table, view), number))
        .collect();
    rated.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let best = rated.first().map_or(0.0, |best| best.0);
    let mut columns = Vec::new();
    let mut chosen = Vec::new();
    for (rate, number) in rated {
        let view = &views[number];
        let is_good = rate > best * MUST_REACH && (!view.is_number || rate >= best * NUMBER_MUST_REACH);
        if is_good && !columns.contains(&&view.column) && chosen.len() < MOST_CONTEXTS {
            columns.push(&view.column);
            chosen.push(number);
        }
    }
    chosen
}

/// A column that only tells contents apart names nothing.
fn is_naming(table: &Loaded<'_>, view: &View) -> bool {
    let column = view.column.as_deref().and_then(|name| table.lines.spec.column(name));
    column.is_some_and(|column| column.strength != Some(Strength::Strict))
}

/// Recurrence times distinctness of a view, 0 to 1.
fn tells(table: &Loaded<'_>, view: &View) -> f64 {
    let hosts = table.answers.heard.len() as f64;
    let recurs = hosts * if view.is_number { RECURS.1 } else { RECURS.0 };
    let values = members_by_code(&table.lines.lines, &view.codes);
    let (mut rows, mut recurring, mut pairs) = (0, 0, 0);
    for (line, code) in table.lines.lines.iter().zip(&view.codes) {
        let Some(members) = values.get(code) else { continue };
        rows += line.members.len();
        if members.len() as f64 >= recurs.max(2.0) {
            recurring += line.members.len();
        }
    }
    for members in values.values() {
        pairs += members.len();
    }
    if rows == 0 { 0.0 } else { recurring as f64 * pairs as f64 / (rows as f64 * rows as f64) }
}

fn members_by_code(lines: &[Line], codes: &[u32]) -> HashMap<u32, RoaringBitmap> {
    let mut members: HashMap<u32, RoaringBitmap> = HashMap::new();
    for (line, code) in lines.iter().zip(codes).filter(|(_, code)| **code != UNKNOWN) {
        *members.entry(*code).or_default() |= &line.members;
    }
    members
}

/// The places of one channel: by value of the context, the values of the target.
struct Places<'a> {
    lines: &'a Lines,
    target: (usize, &'a View),
    context: Option<usize>,
    places: Vec<Place>,
}

struct Place {
    /// Hosts that show something here.
    hosts: RoaringBitmap,
    values: Vec<Value>,
}

struct Value {
    lines: Vec<usize>,
    hosts: RoaringBitmap,
}

impl<'a> Places<'a> {
    fn new(lines: &'a Lines, target: (usize, &'a View), context: Option<(usize, &'a View)>) -> Self {
        let mut by_context: HashMap<u32, HashMap<u32, Value>> = HashMap::new();
        for (number, line) in lines.lines.iter().enumerate() {
            let beside = context.map_or(0, |(_, view)| view.codes[number]);
            let code = target.1.codes[number];
            if beside == UNKNOWN || code == UNKNOWN {
                continue;
            }
            let values = by_context.entry(beside).or_default();
            match values.get_mut(&code) {
                Some(value) => {
                    value.lines.push(number);
                    value.hosts |= &line.members;
                }
                None => {
                    values.insert(code, Value { lines: vec![number], hosts: line.members.clone() });
                }
            }
        }
        let place = |values: HashMap<u32, Value>| {
            let values: Vec<Value> = values.into_values().collect();
            let hosts = values.iter().fold(RoaringBitmap::new(), |all, value| all | &value.hosts);
            Place { hosts, values }
        };
        let places = by_context.into_values().map(place).collect();
        Self { lines, target, context: context.map(|(at, _)| at), places }
    }

    /// What is rare in its place among these hosts.
    fn odd_in(&self, scope: &Scope<'_>) -> Vec<Odd> {
        let mut found = Vec::new();
        let fewest = scope.hosts.len().clamp(FEWEST_HOSTS, FEWEST_IN_PLACE);
        for place in &self.places {
            let of = place.hosts.intersection_len(&scope.hosts);
            if of >= fewest {
                self.odd_in_place(place, (scope, of), &mut found);
            }
        }
        found
    }

    fn odd_in_place(&self, place: &Place, (scope, of): (&Scope<'_>, u64), found: &mut Vec<Odd>) {
        let rare = ((of as f64 * RARE) as u64).clamp(2, MOST_ALIKE);
        let mut rarest: HashMap<u32, u64> = HashMap::new();
        let mut rare_values: Vec<(&Value, RoaringBitmap, u64)> = Vec::new();
        for value in &place.values {
            if value.hosts.intersection_len(&scope.hosts) > rare {
                continue;
            }
            let hosts = &value.hosts & &scope.hosts;
            if hosts.is_empty() {
                continue;
            }
            let odd: RoaringBitmap = hosts
                .iter()
                .filter(|host| !scope.is_usual_for_its_kind(*host, (&hosts, &place.hosts)))
                .collect();
            for host in &odd {
                let rarest = rarest.entry(host).or_insert(u64::MAX);
                *rarest = hosts.len().min(*rarest);
            }
            rare_values.push((value, odd, hosts.len()));
        }
        if rare_values.is_empty() {
            return;
        }
        let mut rarest: Vec<u64> = rarest.into_values().collect();
        rarest.sort_unstable();
        for (value, odd, hosts) in rare_values {
            // Hosts, this one among them, that show something at least as rare here.
            let as_rare = rarest.partition_point(|commonness| *commonness <= hosts);
            let place = as_rare as f64 / (of + 1) as f64;
            for host in &odd {
                for line in value.lines.iter().filter(|line| self.lines.lines[**line].members.contains(host))
                {
                    found.push(Odd {
                        line: *line,
                        host,
                        target: self.target.0,
                        context: self.context,
                        group: scope.group,
                        hosts,
                        of,
                        place,
                        bits: 0.0,
                    });
                }
            }
        }
    }
}

/// Gives the bits: what the channel says, and never more than the place itself can say.
fn calibrate(channel: &mut [Odd], hosts: u64, worth: f64) {
    let mut oddest: HashMap<u32, f64> = HashMap::new();
    for odd in channel.iter() {
        let oddest = oddest.entry(odd.host).or_insert(f64::INFINITY);
        *oddest = oddest.min(odd.place);
    }
    let mut oddest: Vec<f64> = oddest.into_values().collect();
    oddest.sort_by(f64::total_cmp);
    for odd in channel {
        let as_odd = oddest.partition_point(|place| *place <= odd.place) as f64;
        odd.bits = worth * (hosts as f64 / as_odd).log2().min(-odd.place.log2()).max(0.0);
    }
}

fn keep_best(best: &mut HashMap<(usize, u32), Odd>, channel: Vec<Odd>) {
    for odd in channel {
        let kept = best.entry((odd.line, odd.host)).or_insert(odd);
        if is_odder(&odd, kept) {
            *kept = odd;
        }
    }
}

/// More bits; with as many, the larger place, which is the stronger sentence.
fn is_odder(odd: &Odd, than: &Odd) -> bool {
    odd.bits.total_cmp(&than.bits).then(odd.of.cmp(&than.of)).is_gt()
}

#[cfg(test)]
mod tests {
    use super::super::testing::Fleet;
    use super::super::views::views;
    use super::*;

    /// Rows of a table that are odd, as text of one column, with the bits of each host.
    fn odd(fleet: &Fleet, groups: &PeerGroups, column: &str) -> Vec<(String, u32, f64)> {
        let loaded = fleet.loaded();
        let views = views(&loaded[0]).unwrap();
        let value = |line| loaded[0].lines.value(line, column).unwrap_or_default();
        let odd = odd_rows(&loaded[0], &views, groups);
        odd.into_iter().map(|odd| (value(odd.line), odd.host, odd.bits)).collect()
    }

    fn fleet(hosts: u32) -> Fleet {
        Fleet::new(hosts, |host| format!("web-{host}"))
    }

    #[track_caller]
    fn about(found: f64, expected: f64) {
        assert!((found - expected).abs() < 0.05, "{found} bits, not {expected}");
    }

    #[test]
    fn where_every_host_has_one_of_its_own_it_is_worth_nothing() {
        let mut fleet = fleet(40);
        for host in 0..40 {
            fleet.row("authorized_keys", &format!("username=root|key=AAAA{host}Z|algorithm=ssh-rsa"), [host]);
        }
        let odd = odd(&fleet, &PeerGroups::default(), "key");
        assert!(odd.iter().all(|(_, _, bits)| *bits < 0.05), "{odd:?}");
    }

    #[test]
    fn what_nobody_else_shows_is_worth_the_most_and_what_two_show_less() {
        for (hosts, expected) in [(vec![7], 40_f64.log2()), (vec![7, 8], 20_f64.log2())] {
            let mut fleet = fleet(40);
            fleet.row("users", "username=root|uid=0|shell=/bin/bash", 0..40);
            fleet.row("users", "username=www|uid=33|shell=/bin/false", 0..40);
            fleet.row("users", "username=mallory|uid=1001|shell=/bin/sh", hosts.clone());
            let odd = odd(&fleet, &PeerGroups::default(), "username");
            let found: Vec<u32> = odd.iter().map(|(_, host, _)| *host).collect();
            assert_eq!(found, hosts);
            assert!(odd.iter().all(|(name, _, _)| name == "mallory"));
            odd.iter().for_each(|(_, _, bits)| about(*bits, expected));
        }
    }

    #[test]
    fn the_more_hosts_the_more_it_is_worth_and_two_hosts_say_nothing() {
        let mut before = 0.0;
        for hosts in [2, 3, 5, 8, 20, 200] {
            let mut fleet = fleet(hosts);
            fleet.row("users", "username=root|uid=0", 0..hosts);
            fleet.row("users", "username=mallory|uid=0", [1]);
            let odd = odd(&fleet, &PeerGroups::default(), "username");
            if hosts == 2 {
                assert_eq!(odd, []);
                continue;
            }
            assert_eq!(odd.len(), 1, "{hosts} hosts: {odd:?}");
            assert!(odd[0].2 > before, "{hosts} hosts: {odd:?}");
            before = odd[0].2;
        }
    }

    /// The path is common, and so is the name; only together they are odd.
    #[test]
    fn a_value_is_odd_beside_another_one() {
        let mut fleet = fleet(40);
        for name in ["sshd", "cron", "nginx", "rsyslogd"] {
            let row = format!("name={name}|path=/usr/sbin/{name}|euid=0|on_disk=1");
            fleet.row("processes", &row, (0..40).filter(|host| *host != 7 || name != "sshd"));
        }
        fleet.row("processes", "name=sshd|path=/usr/sbin/nginx|euid=0|on_disk=1", [7]);
        let loaded = fleet.loaded();
        let views = views(&loaded[0]).unwrap();
        let odd = odd_rows(&loaded[0], &views, &PeerGroups::default());
        assert_eq!(odd.iter().map(|odd| odd.host).collect::<Vec<_>>(), [7]);
        let column = |view: usize| views[view].column.as_deref();
        let place = (column(odd[0].target), odd[0].context.and_then(column));
        assert!([(Some("path"), Some("name")), (Some("name"), Some("path")), (None, None)].contains(&place));
        about(odd[0].bits, 40_f64.log2());
    }

    /// Each host runs another program from elsewhere: in its own place each is alone, in the channel it is one of forty.
    #[test]
    fn where_every_host_is_odd_in_some_place_being_odd_is_worth_nothing() {
        let mut fleet = fleet(40);
        let word = |number: u32| {
            ["alpha", "beta", "gamma", "delta"][number as usize % 4].repeat(1 + number as usize / 4)
        };
        for number in 0..40 {
            let name = word(number);
            let usual = format!("name={name}|path=/usr/bin/{name}|euid=0");
            fleet.row("processes", &usual, (0..40).filter(|host| *host != number));
            fleet.row("processes", &format!("name={name}|path=/opt/{name}|euid=0"), [number]);
        }
        let everybody = odd(&fleet, &PeerGroups::default(), "path");
        assert_eq!(everybody.len(), 40);
        everybody.iter().for_each(|(_, _, bits)| about(*bits, 0.0));
    }

    #[test]
    fn what_its_kind_usually_shows_is_not_odd_on_a_host() {
        let mut fleet = fleet(60);
        fleet.row("processes", "name=nginx|path=/usr/sbin/nginx|euid=0", 0..60);
        fleet.row("processes", "name=vector|path=/usr/bin/vector|euid=0", (0..1).chain(56..60));
        let alone = odd(&fleet, &PeerGroups::default(), "name");
        assert_eq!(alone.len(), 5, "rare in the fleet");
        let grouped = odd(&fleet, &fleet.groups(&[56, 4]), "name");
        assert_eq!(grouped.iter().map(|(_, host, _)| *host).collect::<Vec<_>>(), [0], "{grouped:?}");
    }

    #[test]
    fn a_host_is_odd_within_its_group_where_the_fleet_hides_it() {
        let mut fleet = fleet(60);
        fleet.row("processes", "name=nginx|path=/usr/sbin/nginx|euid=0", 0..60);
        fleet.row("processes", "name=mysqld|path=/usr/sbin/mysqld|euid=0", (0..1).chain(30..60));
        assert_eq!(odd(&fleet, &PeerGroups::default(), "name"), []);
        let grouped = odd(&fleet, &fleet.groups(&[30, 30]), "name");
        assert_eq!(grouped.iter().map(|(_, host, _)| *host).collect::<Vec<_>>(), [0], "{grouped:?}");
    }

    #[test]
    fn names_and_paths_are_contexts_and_counters_are_not() {
        let mut fleet = fleet(40);
        for (number, name) in ["sshd", "cron", "nginx", "rsyslogd", "agetty"].into_iter().enumerate() {
            for host in 0..40 {
                let (pid, group) = (1000 + host * 17 + number as u32, host % 3);
                let row =
                    format!("name={name}|path=/usr/sbin/{name}|pid={pid}|euid=0|pgroup={pid}|gid={group}");
                fleet.row("processes", &row, [host]);
                let minute = (host * 7 + number as u32) % 60;
                let row = format!("command=run {name}|path=/etc/cron.d/{name}|hour=3|minute={minute}");
                fleet.row("crontab", &row, [host]);
            }
        }
        let loaded = fleet.loaded();
        let contexts = |number: usize| -> Vec<String> {
            let views = views(&loaded[number]).unwrap();
            contexts(&loaded[number], &views)
                .into_iter()
                .filter_map(|view| views[view].column.clone())
                .collect()
        };
        let (crontab, processes) = (contexts(0), contexts(1));
        for (found, expected, never) in [
            (processes, ["name", "path"], ["pid", "pgroup"]),
            (crontab, ["command", "path"], ["minute", "hour"]),
        ] {
            assert!(expected.iter().all(|name| found.iter().any(|found| found == name)), "{found:?}");
            assert!(never.iter().all(|name| !found.iter().any(|found| found == name)), "{found:?}");
        }
    }
}
