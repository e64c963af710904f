//! The method `missing`: rows that hardly any other host lacks.
//!
//! A stopped agent leaves no row that could be rare. What nearly all comparable hosts have, or nearly all of a peer group,
//! and one that answered has not, is a candidate; calibrated like any other by how many hosts lack as much.

use std::collections::{BTreeMap, HashMap};

use roaring::RoaringBitmap;

use super::candidate::{Candidate, Method, Subject};
use super::fleet::TableAnswers;
use super::lines::{Group, Id, Lines, Loaded};
use super::peers::PeerGroups;
use crate::catalog::Strength;
use crate::model::FindingKind;

/// Fewer comparable hosts than this are no peers of those that lack columns.
const FEWEST_PEERS: u64 = 3;
/// Fewer comparable hosts than this say nothing about what is missing.
const FEWEST_PEERS_FOR_MISSING: u64 = 8;
/// Share of the comparable hosts of a fleet from which on the lack of a row is remarkable.
const EXPECTED: f64 = 0.95;
/// The same within a peer group, which is smaller and more alike.
const EXPECTED_IN_GROUP: f64 = 0.9;
/// From this share of the hosts on, those that lack the same columns are compared with each other.
const OWN_KIND: f64 = 0.2;

/// Hosts that are judged for one table, and those that they are compared with.
struct Peers<'a> {
    /// All hosts that rows are counted on.
    compared: RoaringBitmap,
    /// Hosts that are judged: those that answered in full, because only of them a row can be missing.
    answered: RoaringBitmap,
    count: u64,
    /// Identity columns that the judged hosts do not have.
    without: Vec<&'a str>,
    /// The peer group; none for the fleet.
    group: Option<usize>,
}

/// What each host lacks in one table.
pub(super) fn candidates(table: &Loaded<'_>, groups: &PeerGroups) -> Vec<Candidate> {
    let lines = &table.lines;
    // What nearly all of the fewest peers that say anything have, several have.
    let is_on_several = |thing: &Group| thing.members.len() > 1;
    let mut best: HashMap<(u32, Id), Candidate> = HashMap::new();
    for peers in peers(lines, table.answers) {
        let things = match peers.without.is_empty() {
            true => lines.loose().filter(is_on_several).collect(),
            false => lines.grouped_without(Strength::Loose, &peers.without),
        };
        keep_best(&mut best, lacks(lines, &things, (&peers, EXPECTED)));
        for of_group in in_groups(&peers, groups) {
            keep_best(&mut best, lacks(lines, &things, (&of_group, EXPECTED_IN_GROUP)));
        }
    }
    let mut found: Vec<Candidate> = best.into_values().collect();
    found.sort_by_key(|candidate| (candidate.host, candidate.id));
    found
}

fn keep_best(best: &mut HashMap<(u32, Id), Candidate>, found: Vec<Candidate>) {
    for candidate in found {
        match best.get_mut(&(candidate.host, candidate.id)) {
            Some(kept) if kept.bits >= candidate.bits => {}
            Some(kept) => *kept = candidate,
            None => {
                best.insert((candidate.host, candidate.id), candidate);
            }
        }
    }
}

fn in_groups<'a>(peers: &Peers<'a>, groups: &PeerGroups) -> Vec<Peers<'a>> {
    let of_group = |(number, group): (usize, &super::peers::PeerGroup)| {
        let compared = &peers.compared & &group.hosts;
        let answered = &peers.answered & &group.hosts;
        let is_all = compared == peers.compared;
        let without = peers.without.clone();
        let group = Some(number);
        (!is_all).then(|| Peers { answered, count: compared.len(), compared, without, group })
    };
    groups.groups.iter().enumerate().filter_map(of_group).collect()
}

fn lacks(lines: &Lines, things: &[Group], (peers, expected): (&Peers<'_>, f64)) -> Vec<Candidate> {
    if peers.count < FEWEST_PEERS_FOR_MISSING {
        return Vec::new();
    }
    let mut found: Vec<Candidate> = Vec::new();
    for thing in things {
        let least = peers.count as f64 * expected;
        // The hosts of most things are too few, whoever is compared.
        if (thing.members.len() as f64) < least {
            continue;
        }
        let have = &thing.members & &peers.compared;
        if (have.len() as f64) < least {
            continue;
        }
        let line = lines.most_common(thing);
        let lacking = &peers.answered - &have;
        let place = lacking.len() as f64 / (peers.count + 1) as f64;
        found.extend(lacking.iter().map(|host| Candidate {
            bits: -place.log2(),
            group: peers.group,
            hosts_with_row: have.len(),
            hosts_answered: peers.count,
            hosts_with_thing: have.len(),
            id: thing.id,
            strict: None,
            ..Candidate::new(Method::Missing, FindingKind::Missing, host, Subject::Line(line))
        }));
    }
    calibrate(&mut found, peers.count);
    found
}

/// No more bits than the share of hosts gives that lack something as common.
fn calibrate(found: &mut [Candidate], hosts: u64) {
    let mut most: HashMap<u32, f64> = HashMap::new();
    for candidate in found.iter() {
        let most = most.entry(candidate.host).or_default();
        *most = most.max(candidate.bits);
    }
    let mut most: Vec<f64> = most.into_values().collect();
    most.sort_by(f64::total_cmp);
    for candidate in found {
        let as_odd = most.len() - most.partition_point(|bits| *bits < candidate.bits);
        candidate.bits = (hosts as f64 / as_odd as f64).log2().clamp(0.0, candidate.bits);
    }
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
        all.push(Peers { answered, count: compared.len(), compared, without, group: None });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::testing::Fleet;
    use super::*;

    /// What hosts lack, by its name: the row's first identity column.
    fn lacking(fleet: &Fleet, groups: &PeerGroups, column: &str) -> Vec<(u32, String, f64)> {
        let loaded = fleet.loaded();
        let found = candidates(&loaded[0], groups);
        let name = |candidate: &Candidate| match candidate.subject {
            Subject::Line(line) => loaded[0].lines.value(line, column).unwrap(),
            Subject::Known(_) => String::new(),
        };
        found.iter().map(|candidate| (candidate.host, name(candidate), candidate.bits)).collect()
    }

    /// Forty hosts with two units, of which these have no `auditd.service`.
    fn fleet(without: &[u32]) -> Fleet {
        let mut fleet = Fleet::new(40, |host| format!("web-{host}"));
        fleet.row("systemd_units", "id=cron.service", 0..40);
        fleet.row("systemd_units", "id=auditd.service", (0..40).filter(|host| !without.contains(host)));
        fleet
    }

    #[test]
    fn an_agent_that_was_stopped_on_one_host_is_missed_there() {
        let found = lacking(&fleet(&[7]), &PeerGroups::default(), "id");
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].0, found[0].1.as_str()), (7, "auditd.service"));
        assert!((found[0].2 - 40_f64.log2()).abs() < 0.05, "{found:?}");
        let two = lacking(&fleet(&[7, 8]), &PeerGroups::default(), "id");
        assert!(two.len() == 2 && two[0].2 < found[0].2, "{two:?}");
    }

    #[test]
    fn what_a_tenth_lacks_is_no_surprise() {
        assert_eq!(lacking(&fleet(&[1, 2, 3, 4]), &PeerGroups::default(), "id"), []);
    }

    #[test]
    fn within_a_peer_group_nine_of_ten_are_enough() {
        let mut fleet = Fleet::new(40, |host| format!("web-{host}"));
        fleet.row("systemd_units", "id=cron.service", 0..40);
        // A unit of the first twenty, which two of them have not.
        fleet.row("systemd_units", "id=nginx.service", 2..20);
        assert_eq!(lacking(&fleet, &PeerGroups::default(), "id"), []);
        let found = lacking(&fleet, &fleet.groups(&[20, 20]), "id");
        assert_eq!(found.iter().map(|(host, ..)| *host).collect::<Vec<_>>(), [0, 1], "{found:?}");
        assert!(found.iter().all(|(_, id, _)| id == "nginx.service"));
    }

    #[test]
    fn a_host_that_did_not_answer_lacks_nothing() {
        let mut fleet = fleet(&[7]);
        fleet.silence("systemd_units", 7);
        assert_eq!(lacking(&fleet, &PeerGroups::default(), "id"), []);
    }

    /// An old agent that does not return a column lacks no row for that, and cannot hide that it lacks one.
    #[test]
    fn an_old_agent_lacks_only_what_it_lacks_by_the_columns_that_it_has() {
        let mut fleet = Fleet::new(40, |host| format!("web-{host}"));
        for name in ["sshd", "cron", "auditd"] {
            let row = format!("name={name}|path=/usr/sbin/{name}|euid=0");
            fleet.row("processes", &format!("{row}|on_disk=1"), 0..39);
            if name != "auditd" {
                fleet.row("processes", &row, [39]);
            }
        }
        fleet.without_columns("processes", "on_disk", 39);
        let found = lacking(&fleet, &PeerGroups::default(), "name");
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].0, found[0].1.as_str()), (39, "auditd"));
    }

    #[test]
    fn seven_hosts_do_not_say_what_is_missing() {
        for (hosts, expected) in [(7, 0), (20, 1)] {
            let mut fleet = Fleet::new(hosts, |host| format!("web-{host}"));
            fleet.row("systemd_units", "id=auditd.service", 1..hosts);
            assert_eq!(lacking(&fleet, &PeerGroups::default(), "id").len(), expected, "{hosts} hosts");
        }
    }
}
