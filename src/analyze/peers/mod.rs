//! The method `cluster`: peer groups, found from the rows that some hosts share and others lack.
//!
//! Groups give the context in which other methods judge; nothing depends on their being there.

mod cluster;
mod describe;
mod distance;
mod facts;
mod features;
mod misplaced;

use std::collections::HashMap;

use roaring::RoaringBitmap;

pub(super) use self::describe::row_name;
use self::facts::Fact;
use self::features::TableFeatures;
pub(super) use self::misplaced::misplaced;
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
    pub(super) fn peers(&self, host: u32) -> Option<&RoaringBitmap> {
        let group = self.of.get(host as usize).copied().flatten()?;
        Some(&self.groups[group].hosts).filter(|hosts| hosts.len() >= FEWEST_PEERS)
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
    let features: Vec<TableFeatures> =
        tables.iter().filter_map(|table| TableFeatures::new(table, state.hosts.len())).collect();
    let mut groups = PeerGroups::new(cluster::groups(&features, &state.hosts), state.hosts.len());
    if groups.groups.is_empty() {
        // No table tells any two hosts apart.
        groups = PeerGroups::new(vec![state.heard()], state.hosts.len());
    }
    describe::describe(&mut groups, tables, &Fact::all(tables, state));
    let (groups_found, seconds) = (groups.groups.len(), started.elapsed().as_secs_f64());
    tracing::info!(groups = groups_found, seconds, "found peer groups");
    groups
}
