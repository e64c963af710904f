//! Channels: a value is judged in its place, which is a column over the fleet, within a peer group, or beside the value of
//! another column.
//!
//! *In the place* (docs/detection.md): of `n` hosts that show something there, `e` others show a value at least as rare,
//! so that `(e + 1) / (n + 1)` is how odd one more such host is. *In the channel*: the share of hosts that show something
//! as odd in any of its places; `-log2` of it are the bits. A place where everybody has a value of its own gives none, and
//! neither does a channel in which every host has one such place. Source of the idea: PeerPressure (OSDI 2004) and
//! conformal p-values (Bates et al. 2023).

use std::collections::{HashMap, HashSet};

use super::contexts::contexts;
use super::lines::Loaded;
use super::peers::PeerGroups;
use super::places::{OddHere, Places, Scope, is_rare};
use super::views::{Shows, View};
use crate::catalog::Role;

/// Fewer hosts in a place say nothing about what is rare there; of a smaller fleet, fewer than all of it.
const FEWEST_IN_PLACE: u64 = 8;
/// In the smallest fleet that is compared.
const FEWEST: u64 = 3;
/// What a context column says, against one that makes the row what it is.
const CONTEXT_WORTH: f64 = 0.75;
/// Less surprise is what every fleet has.
pub(super) const LEAST_BITS: f64 = 0.4;

/// Where a row is judged, and how odd it is there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Odd {
    /// What is odd, in its place.
    pub(super) here: OddHere,
    /// Index of the view that is odd.
    pub(super) target: usize,
    /// Index of the view beside which it is.
    pub(super) context: Option<usize>,
    /// `-log2` of the share of hosts as odd in the channel.
    pub(super) bits: f64,
}

/// The oddest place of each row on each host.
pub(super) fn odd_rows(table: &Loaded<'_>, views: &[View], groups: &PeerGroups) -> Vec<Odd> {
    let heard = &table.answers.heard;
    let fewest = heard.len().clamp(FEWEST, FEWEST_IN_PLACE);
    let fleet = [Scope::fleet(heard, groups, fewest)];
    let in_groups = scopes(groups, table);
    let mut best: HashMap<(usize, u32), Odd> = HashMap::new();
    for context in every_context(table, views) {
        let places = Places::new(&table.lines, context.map(|at| &views[at]), fewest);
        let all_scopes = [&fleet[..], &in_groups[..]].map(|scopes| (scopes, places.sizes(scopes)));
        for (target, view) in views.iter().enumerate().filter(|(_, view)| belong(view, context, views)) {
            let worth = worth(table, view);
            let shown = places.shown(view);
            for (scopes, sizes) in &all_scopes {
                let hosts = scopes.iter().map(|scope| scope.hosts.len()).sum();
                let found = places.odd_in((view, &shown), (scopes, sizes));
                let bits = bits(&found, hosts);
                let odd = |(here, bits)| Odd { here, target, context, bits: worth * bits };
                let odd = found.into_iter().zip(bits).map(odd);
                keep_best(&mut best, odd.filter(|odd| odd.bits >= LEAST_BITS));
            }
        }
    }
    let mut odd: Vec<Odd> = best.into_values().collect();
    odd.sort_by_key(|odd| (odd.here.line, odd.here.host));
    odd
}

/// Lines on few hosts that are odd nowhere and whose content speaks: they have no bits of their own.
pub(super) fn speaking(
    table: &Loaded<'_>,
    views: &[View],
    odd: &[Odd],
    speaks: impl Fn(usize) -> bool,
) -> Vec<Odd> {
    let known: HashSet<(usize, u32)> = odd.iter().map(|odd| (odd.here.line, odd.here.host)).collect();
    let Some(target) = views.iter().position(|view| view.shows == Shows::Loose) else { return Vec::new() };
    let of = table.answers.heard.len();
    let mut found = Vec::new();
    for (line, prevalent) in table.lines.lines.iter().enumerate() {
        let hosts = prevalent.members.len();
        if !is_rare(hosts, of) || !speaks(line) {
            continue;
        }
        let silent = prevalent.members.iter().filter(|host| !known.contains(&(line, *host)));
        let here = |host| OddHere { line, host, group: None, hosts, of, share: 1.0 };
        found.extend(silent.map(|host| Odd { here: here(host), target, context: None, bits: 0.0 }));
    }
    found
}

/// What a column says about a row is worth less than what makes it the row.
fn worth(table: &Loaded<'_>, target: &View) -> f64 {
    match target.spec(&table.lines).map(|column| column.role) {
        Some(Role::Context) => CONTEXT_WORTH,
        _ => 1.0,
    }
}

fn scopes(groups: &PeerGroups, table: &Loaded<'_>) -> Vec<Scope<'static>> {
    let heard = &table.answers.heard;
    let hosts = groups.groups.iter().map(|group| &group.hosts & heard).enumerate();
    // One group of all hosts is the fleet again.
    let some = hosts.filter(|(_, hosts)| hosts.len() >= FEWEST_IN_PLACE && hosts != heard);
    some.map(|(number, hosts)| Scope::group(number, hosts, FEWEST_IN_PLACE)).collect()
}

/// Over all rows, beside each view that names rows, and beside the loose id.
fn every_context(table: &Loaded<'_>, views: &[View]) -> Vec<Option<usize>> {
    let loose = views.iter().position(|view| view.shows == Shows::Loose);
    let named = contexts(table, views).into_iter().chain(loose).map(Some);
    std::iter::once(None).chain(named).collect()
}

/// A content is judged beside its thing, a thing over the fleet, and a column beside others.
fn belong(target: &View, context: Option<usize>, views: &[View]) -> bool {
    let context = context.map(|at| &views[at]);
    match target.shows {
        Shows::Loose => context.is_none(),
        Shows::Strict => context.is_some_and(|context| context.shows == Shows::Loose),
        _ => context.is_none_or(|context| context.column.is_some() && context.column != target.column),
    }
}

/// What the channel says, and never more than the place itself can say.
fn bits(channel: &[OddHere], hosts: u64) -> Vec<f64> {
    let mut oddest: HashMap<u32, f64> = HashMap::new();
    for odd in channel {
        let oddest = oddest.entry(odd.host).or_insert(f64::INFINITY);
        *oddest = oddest.min(odd.share);
    }
    let mut oddest: Vec<f64> = oddest.into_values().collect();
    oddest.sort_by(f64::total_cmp);
    let of = |odd: &OddHere| {
        let as_odd = oddest.partition_point(|share| *share <= odd.share) as f64;
        (hosts as f64 / as_odd).log2().min(-odd.share.log2()).max(0.0)
    };
    channel.iter().map(of).collect()
}

fn keep_best(best: &mut HashMap<(usize, u32), Odd>, channel: impl Iterator<Item = Odd>) {
    for odd in channel {
        let kept = best.entry((odd.here.line, odd.here.host)).or_insert(odd);
        if is_odder(&odd, kept) {
            *kept = odd;
        }
    }
}

/// More bits; with as many, the larger place, which is the stronger sentence.
fn is_odder(odd: &Odd, than: &Odd) -> bool {
    odd.bits.total_cmp(&than.bits).then(odd.here.of.cmp(&than.here.of)).is_gt()
}

#[cfg(test)]
mod tests {
    use super::super::testing::Fleet;
    use super::super::views::views;
    use super::*;

    /// Rows of a table that are odd, as text of one column, with the bits of each host.
    fn odd(fleet: &Fleet, groups: &PeerGroups, column: &str) -> Vec<(String, u32, f64)> {
        let loaded = fleet.loaded();
        let views = views(&loaded[0]);
        let value = |line| loaded[0].lines.value(line, column).unwrap_or_default();
        let odd = odd_rows(&loaded[0], &views, groups);
        odd.into_iter().map(|odd| (value(odd.here.line), odd.here.host, odd.bits)).collect()
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
        assert_eq!(odd, []);
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
        let views = views(&loaded[0]);
        let odd = odd_rows(&loaded[0], &views, &PeerGroups::default());
        assert_eq!(odd.iter().map(|odd| odd.here.host).collect::<Vec<_>>(), [7]);
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
        assert_eq!(everybody, []);
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
            let views = views(&loaded[number]);
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
