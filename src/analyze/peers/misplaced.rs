//! A host that says it is of one kind and has the rows of another.

use serde_json::json;

use super::super::Scored;
use super::super::candidate::{Method, digest};
use super::super::explain::quoted;
use super::super::fleet::FleetState;
use super::super::lines::Loaded;
use super::facts::Fact;
use super::{FEWEST_PEERS, PeerGroups};
use crate::model::{Finding, FindingKind, Row};

/// Share of the hosts with a value that must be in one group for the value to mean that group.
const MEANS: f64 = 0.9;
/// Score of such a host.
const MISPLACED_SCORE: f64 = 60.0;

/// Hosts whose image, role or name says another group than their rows.
pub(in super::super) fn misplaced(
    groups: &PeerGroups,
    tables: &[Loaded<'_>],
    state: &FleetState,
) -> Vec<Scored> {
    let mut found: Vec<Scored> = Vec::new();
    for fact in Fact::all(tables, state).iter().filter(|fact| fact.says_role) {
        for scored in of_fact(groups, fact, state) {
            if found.iter().all(|other| other.host != scored.host) {
                found.push(scored);
            }
        }
    }
    found
}

fn of_fact(groups: &PeerGroups, fact: &Fact, state: &FleetState) -> Vec<Scored> {
    let meant: Vec<(&String, usize, u64, u64)> = fact
        .values
        .keys()
        .filter_map(|value| Some((value, means(groups, fact, value)?)))
        .map(|(value, (group, there, of))| (value, group, there, of))
        .collect();
    // One value for all kinds, or one kind for all values, says nothing about kinds.
    if meant.iter().all(|(_, group, ..)| *group == meant[0].1) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (value, meant, there, of) in meant {
        for host in fact.values.get(value).into_iter().flatten() {
            let Some(is_in) = groups.of[host as usize].filter(|group| *group != meant) else { continue };
            let finding = Misplaced { fact, value, meant, is_in, counts: (there, of) };
            let finding = finding.finding(groups, &state.hosts[host as usize]);
            found.push(Scored { host, finding, telling: Vec::new() });
        }
    }
    found
}

/// The group that a value means, how many of the hosts with it are there, and how many have it.
fn means(groups: &PeerGroups, fact: &Fact, value: &str) -> Option<(usize, u64, u64)> {
    let hosts = fact.values.get(value)?;
    let counts = groups.groups.iter().map(|group| group.hosts.intersection_len(hosts));
    let (group, there) =
        counts.enumerate().max_by_key(|(number, count)| (*count, std::cmp::Reverse(*number)))?;
    let of = hosts.len();
    (there >= FEWEST_PEERS && there as f64 >= of as f64 * MEANS).then_some((group, there, of))
}

/// One host in the wrong group.
struct Misplaced<'a> {
    fact: &'a Fact,
    value: &'a str,
    meant: usize,
    is_in: usize,
    /// Hosts with the value in the group that it means, and all hosts with it.
    counts: (u64, u64),
}

impl Misplaced<'_> {
    fn finding(&self, groups: &PeerGroups, host: &str) -> Finding {
        let Fact { word, table, column, .. } = self.fact;
        let (there, of) = self.counts;
        let row: Row = [(column.clone(), json!(self.value))].into_iter().collect();
        let theirs = &groups.groups[self.is_in];
        let rows_of = match theirs.hosts.len() {
            1 => "of no other host".to_owned(),
            _ => format!("of group {} ({})", self.is_in, theirs.described_by),
        };
        let parts = [table.as_bytes(), b"cluster", self.value.as_bytes(), host.as_bytes()];
        Finding {
            id: digest(&parts).to_hex()[..16].to_owned(),
            table: table.clone(),
            kind: FindingKind::Variant,
            score: MISPLACED_SCORE,
            row,
            hosts_with_row: of,
            hosts_answered: groups.groups.iter().map(|group| group.hosts.len()).sum(),
            first_seen: None,
            nearest: None,
            given: None,
            attack: Vec::new(),
            reason: format!(
                "{word} {} is that of peer group {} on {there} of {of} hosts, but the rows of this host are those {rows_of}",
                quoted(self.value),
                self.meant
            ),
            priors: Vec::new(),
            strict_id: None,
            method: Method::Cluster.as_str().to_owned(),
        }
    }
}
