//! The method `cluster`: peer groups, found from the rows that some hosts share and others lack.
//!
//! Groups give the context in which other methods judge; nothing depends on their being there.

mod describe;
mod facts;
mod kinds;
mod misplaced;
mod names;

use std::collections::HashMap;

use roaring::RoaringBitmap;

pub(super) use self::describe::row_name;
use self::facts::Fact;
pub(super) use self::kinds::is_software;
pub(super) use self::misplaced::misplaced;
use self::names::Names;
pub(super) use self::names::masked;
use super::fleet::FleetState;
use super::lines::Loaded;
use crate::model;

/// Smaller groups say little about what is usual in them.
pub(super) const FEWEST_PEERS: u64 = 8;
/// With fewer hosts there are no kinds to be told apart.
const FEWEST_HOSTS: u64 = 3;
/// From this share of the hosts in groups of their own size on, the fleet is none: its hosts are not alike.
const SPLIT: f64 = 0.5;

/// Hosts that are alike.
#[derive(Debug, Clone)]
pub(super) struct PeerGroup {
    pub(super) hosts: RoaringBitmap,
    /// What its hosts have in common, in words.
    pub(super) described_by: String,
}

/// The peer groups of a fleet, the largest first.
#[derive(Debug, Clone, Default)]
pub(super) struct PeerGroups {
    pub(super) groups: Vec<PeerGroup>,
    /// The group of each host, by its ordinal; none where too little is known of it.
    pub(super) of: Vec<Option<usize>>,
}

impl PeerGroups {
    fn new(groups: Vec<RoaringBitmap>, hosts: usize) -> Self {
        let mut of = vec![None; hosts];
        for (number, group) in groups.iter().enumerate() {
            group.iter().for_each(|host| of[host as usize] = Some(number));
        }
        let described = |hosts| PeerGroup { hosts, described_by: String::new() };
        Self { groups: groups.into_iter().map(described).collect(), of }
    }

    /// The hosts that this one can be compared with; none when there are too few of its kind.
    #[cfg_attr(not(test), expect(dead_code, reason = "the methods that judge within groups come next"))]
    pub(super) fn peers(&self, host: u32) -> Option<&RoaringBitmap> {
        let group = self.of.get(host as usize).copied().flatten()?;
        Some(&self.groups[group].hosts).filter(|hosts| hosts.len() >= FEWEST_PEERS)
    }

    /// Whether it is the only host of its kind, while others have peers.
    pub(super) fn is_alone(&self, host: usize) -> bool {
        let size = |group: usize| self.groups[group].hosts.len();
        let has_one = self.of.get(host).copied().flatten().is_some_and(|group| size(group) == 1);
        has_one && self.groups.first().is_some_and(|largest| largest.hosts.len() >= FEWEST_PEERS)
    }

    /// Notes in each result the group of its host.
    pub(super) fn note_in(&self, hosts: &mut [model::HostResult], state: &FleetState) {
        let of =
            |(host, group): (&String, &Option<usize>)| Some((host.clone(), u32::try_from((*group)?).ok()?));
        let by_name: HashMap<String, u32> = state.hosts.iter().zip(&self.of).filter_map(of).collect();
        hosts.iter_mut().for_each(|host| host.peer_group = by_name.get(&host.host).copied());
    }

    /// As outputs show them.
    pub(super) fn shown(&self) -> Vec<model::PeerGroup> {
        let shown = |(id, group): (u32, &PeerGroup)| model::PeerGroup {
            id,
            hosts: group.hosts.len(),
            described_by: group.described_by.clone(),
        };
        (0..).zip(&self.groups).map(shown).collect()
    }

    /// What a reader must know before trusting the groups.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let grouped: u64 = self.groups.iter().map(|group| group.hosts.len()).sum();
        let Some(largest) = self.groups.first().filter(|_| self.groups.len() > 1) else { return warnings };
        if (largest.hosts.len() as f64) < grouped as f64 * SPLIT {
            warnings.push(format!(
                "the hosts are of {} kinds and the largest has {} of {grouped}: this fleet is several",
                self.groups.len(),
                largest.hosts.len()
            ));
        }
        let small: Vec<&PeerGroup> =
            self.groups.iter().filter(|group| group.hosts.len() < FEWEST_PEERS).collect();
        let hosts: u64 = small.iter().map(|group| group.hosts.len()).sum();
        if hosts > 0 {
            let (hosts, are) =
                if hosts == 1 { ("1 host".to_owned(), "is") } else { (format!("{hosts} hosts"), "are") };
            warnings.push(format!(
                "{hosts} {are} in peer groups of fewer than {FEWEST_PEERS}: what is usual for their kind is not known"
            ));
        }
        warnings
    }
}

/// Finds and describes the peer groups.
pub(super) fn peer_groups(tables: &[Loaded<'_>], state: &FleetState) -> PeerGroups {
    let started = std::time::Instant::now();
    if state.heard().len() < FEWEST_HOSTS {
        return PeerGroups { groups: Vec::new(), of: vec![None; state.hosts.len()] };
    }
    let hosts = state.hosts.len();
    let mut groups = PeerGroups::new(kinds::groups(tables, &Names::new(tables), hosts), hosts);
    if groups.groups.is_empty() {
        // No table tells any two hosts apart.
        groups = PeerGroups::new(vec![state.heard()], hosts);
    }
    describe::describe(&mut groups, tables, &Fact::all(tables, state));
    let (groups_found, seconds) = (groups.groups.len(), started.elapsed().as_secs_f64());
    tracing::info!(groups = groups_found, seconds, "found peer groups");
    groups
}

#[cfg(test)]
mod tests {
    use super::super::testing::Fleet;
    use super::*;

    /// What every host has, and what each of three roles has: `kind` of a host says which.
    fn fleet(hosts: u32, name: impl Fn(u32) -> String, kind: impl Fn(u32) -> usize) -> Fleet {
        let mut fleet = Fleet::new(hosts, name);
        for number in 0..40 {
            let everybody = || 0..hosts;
            fleet.row("processes", &format!("name=kthread{number}|euid=0"), everybody());
            fleet.row("deb_packages", &format!("name=base{number}|arch=amd64|version=1"), everybody());
            fleet.row("systemd_units", &format!("id=base{number}.service"), everybody());
        }
        for (number, role) in ["web", "db", "cache"].into_iter().enumerate() {
            let members = || (0..hosts).filter(|host| kind(*host) == number).collect::<Vec<u32>>();
            if members().is_empty() {
                continue;
            }
            for part in ["d", "-worker", "-log"] {
                fleet.row(
                    "processes",
                    &format!("name={role}{part}|path=/usr/sbin/{role}{part}|euid=33"),
                    members(),
                );
                fleet.row("systemd_units", &format!("id={role}{part}.service"), members());
            }
            for number in 0..12 {
                fleet.row(
                    "deb_packages",
                    &format!("name={role}-lib{number}|arch=amd64|version=1"),
                    members(),
                );
            }
            fleet.row("users", &format!("username={role}|uid=33|directory=/var/{role}"), members());
        }
        // One of its own on each host, and an administrator on some.
        for host in 0..hosts {
            fleet.row("processes", &format!("name=session-{host}|path=/usr/bin/sh|euid={host}"), [host]);
        }
        fleet.row(
            "processes",
            "name=bash|path=/usr/bin/bash|euid=1000",
            (0..hosts).filter(|host| host % 7 == 0),
        );
        fleet.row("kernel_modules", "name=nvme|size=1", (0..hosts).filter(|host| host % 3 > 0));
        fleet.row("kernel_modules", "name=xen_blkfront|size=1", (0..hosts).filter(|host| host % 3 == 0));
        fleet
    }

    fn found(fleet: &Fleet) -> PeerGroups {
        peer_groups(&fleet.loaded(), &fleet.state)
    }

    fn sizes(groups: &PeerGroups) -> Vec<u64> {
        groups.groups.iter().map(|group| group.hosts.len()).collect()
    }

    #[test]
    fn roles_are_groups_and_hardware_is_none() {
        let fleet = fleet(60, |host| format!("host-{host}"), |host| [0, 0, 0, 1, 1, 2][host as usize % 6]);
        let groups = found(&fleet);
        assert_eq!(sizes(&groups), [30, 20, 10]);
        assert!(groups.groups[0].described_by.contains("processes web"), "{:?}", groups.groups[0]);
        assert!(groups.groups[0].described_by.ends_with("no other host has them"), "{:?}", groups.groups[0]);
        assert_eq!(groups.warnings().len(), 0);
        assert_eq!(groups.peers(0).map(RoaringBitmap::len), Some(30));
    }

    #[test]
    fn hosts_of_one_role_are_one_group() {
        let groups = found(&fleet(60, |host| format!("web-{host}"), |_| 0));
        assert_eq!(sizes(&groups), [60]);
        assert_eq!(groups.groups[0].described_by, "all hosts that can be compared");
    }

    #[test]
    fn a_canary_raises_nobody() {
        let mut fleet = fleet(60, |host| format!("web-{host}"), |_| 0);
        for (table, row) in [
            ("deb_packages", "name=app|arch=amd64|version=2"),
            ("processes", "name=app-metrics|path=/opt/app/metrics|euid=33"),
            ("systemd_units", "id=app-metrics.service"),
        ] {
            fleet.row(table, row, [3, 14, 27]);
        }
        assert_eq!(sizes(&found(&fleet)), [60]);
    }

    #[test]
    fn a_host_of_its_own_kind_has_no_peers() {
        let fleet = fleet(40, |host| format!("host-{host}"), |host| usize::from(host == 7));
        let groups = found(&fleet);
        assert_eq!(sizes(&groups), [39, 1]);
        assert_eq!(groups.peers(7), None);
        assert_eq!(groups.warnings().len(), 1);
    }

    #[test]
    fn more_hosts_than_a_sample_holds_are_assigned() {
        let fleet =
            fleet(2_000, |host| format!("host-{host}"), |host| if host < 3 { 2 } else { host as usize % 2 });
        assert_eq!(sizes(&found(&fleet)), [999, 998, 3]);
    }

    #[test]
    fn a_host_with_the_rows_of_another_role_is_found() {
        let name = |host| if host < 15 { format!("web-{host}") } else { format!("db-{host}") };
        let fleet = fleet(30, name, |host| usize::from(host >= 15 || host == 4));
        let groups = found(&fleet);
        let found = misplaced(&groups, &fleet.loaded(), &fleet.state);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].host, 4);
        let reason = &found[0].finding.reason;
        assert!(
            reason.starts_with("name `web-*` is that of peer group 1 on 14 of 15 hosts, but"),
            "{reason}"
        );
    }

    #[test]
    fn a_host_that_answered_little_is_in_no_group() {
        let mut fleet = fleet(30, |host| format!("host-{host}"), |host| host as usize % 2);
        for table in ["processes", "deb_packages", "users"] {
            fleet.silence(table, 9);
        }
        let groups = found(&fleet);
        assert_eq!(groups.of[9], None);
        assert_eq!(sizes(&groups), [15, 14]);
    }
}
