//! Groups hosts: average link on a sample, cut where merging gets much dearer, all others to the nearest group.

use std::collections::BTreeMap;

use kodama::{Dendrogram, Method, linkage};
use roaring::RoaringBitmap;

use super::distance::{distances, jaccard};
use super::features::TableFeatures;

/// Hosts that are compared with each other pair by pair.
const SAMPLE: usize = 800;
/// Samples that are taken of hosts that fit no group so far, after the first.
const FURTHER_SAMPLES: usize = 4;
/// Groups nearer than this are of one kind, and so are those nearer than this many times the usual merge.
const NEAREST_KINDS: f32 = 0.12;
const TIMES_USUAL: f32 = 2.0;
/// Where kinds begin, merging is at least this many times as dear as the merge before.
const STEP: f32 = 1.35;
/// Groups further apart than this are not of one kind, whatever lies between.
const FURTHEST_OF_A_KIND: f32 = 0.35;
/// Share of what is asked that must be known of a host.
const KNOWN: f64 = 0.5;

/// Which hosts are alike; hosts of which too little is known are in no group.
pub(super) fn groups(tables: &[TableFeatures], names: &[String]) -> Vec<RoaringBitmap> {
    let trust: f64 = tables.iter().map(|table| table.trust).sum();
    let known = |host: &u32| {
        let heard = tables.iter().filter(|table| table.heard.contains(*host));
        trust > 0.0 && heard.map(|table| table.trust).sum::<f64>() >= trust * KNOWN
    };
    let mut rest: Vec<u32> = (0..names.len() as u32).filter(known).collect();
    let mut groups: Vec<RoaringBitmap> = Vec::new();
    let mut cut = None;
    for _ in 0..=FURTHER_SAMPLES {
        if rest.is_empty() {
            break;
        }
        let sample = sample(&rest, names);
        let tree = Tree::new(tables, &sample);
        let cut = *cut.get_or_insert_with(|| tree.cut());
        let first_new = groups.len();
        groups.extend(tree.groups(&sample, cut));
        rest.retain(|host| sample.binary_search(host).is_err());
        rest = join_nearest(tables, (&mut groups, first_new), rest, cut);
    }
    groups.extend(rest.into_iter().map(|host| RoaringBitmap::from_iter([host])));
    groups.sort_by_key(|group| (std::cmp::Reverse(group.len()), group.min()));
    groups
}

/// Hosts by the digest of their name, so that the same fleet gives the same sample; sorted.
fn sample(hosts: &[u32], names: &[String]) -> Vec<u32> {
    let mut hosts = hosts.to_vec();
    if hosts.len() > SAMPLE {
        hosts.sort_by_cached_key(|host| *blake3::hash(names[*host as usize].as_bytes()).as_bytes());
        hosts.truncate(SAMPLE);
        hosts.sort_unstable();
    }
    hosts
}

/// The order in which hosts and groups of them merge, the nearest first.
struct Tree {
    steps: Option<Dendrogram<f32>>,
    hosts: usize,
}

impl Tree {
    fn new(tables: &[TableFeatures], hosts: &[u32]) -> Self {
        let mut distances = distances(tables, hosts);
        let steps = (hosts.len() > 1).then(|| linkage(&mut distances, hosts.len(), Method::Average));
        Self { steps, hosts: hosts.len() }
    }

    /// Below the steepest step between two merges: roles are far apart, variants of a role near each other.
    fn cut(&self) -> f32 {
        let mut heights: Vec<f32> =
            self.steps.iter().flat_map(|tree| tree.steps()).map(|step| step.dissimilarity).collect();
        heights.sort_by(f32::total_cmp);
        tracing::debug!(?heights, "distances at which groups of hosts merge");
        steepest_step(&heights)
    }

    fn groups(&self, hosts: &[u32], cut: f32) -> Vec<RoaringBitmap> {
        // Label of the cluster that each label is part of.
        let mut parents: Vec<usize> = (0..self.hosts * 2).collect();
        for (number, step) in self.steps.iter().flat_map(|tree| tree.steps()).enumerate() {
            if step.dissimilarity <= cut {
                parents[step.cluster1] = self.hosts + number;
                parents[step.cluster2] = self.hosts + number;
            }
        }
        let mut groups: BTreeMap<usize, RoaringBitmap> = BTreeMap::new();
        for (place, host) in hosts.iter().enumerate() {
            let mut root = place;
            while parents[root] != root {
                root = parents[root];
            }
            groups.entry(root).or_default().insert(*host);
        }
        groups.into_values().collect()
    }
}

/// Below the steepest step that may part kinds, or where no step is steep, at the least distance of kinds; `heights`
/// are sorted.
fn steepest_step(heights: &[f32]) -> f32 {
    let usual = heights.get(heights.len() / 2).copied().unwrap_or_default();
    let least = NEAREST_KINDS.max(TIMES_USUAL * usual);
    let floor = NEAREST_KINDS / 2.0;
    let steps = heights.windows(2).map(|pair| (pair[0].max(floor), pair[1]));
    let may_part =
        |(below, above): &(f32, f32)| *above >= least && above / below >= STEP && *below < FURTHEST_OF_A_KIND;
    let steepness = |(below, above): &(f32, f32)| above / below;
    let steepest = steps.filter(may_part).max_by(|a, b| steepness(a).total_cmp(&steepness(b)));
    steepest.map_or(least, |(below, above)| (below * above).sqrt().min(FURTHEST_OF_A_KIND))
}

/// Adds each host to the nearest of the new groups when it is near enough; gives back the others.
fn join_nearest(
    tables: &[TableFeatures],
    (groups, first_new): (&mut [RoaringBitmap], usize),
    hosts: Vec<u32>,
    cut: f32,
) -> Vec<u32> {
    let new = &mut groups[first_new..];
    if hosts.is_empty() {
        return hosts;
    }
    let nearest = Centres { tables, groups: new, hosts: &hosts }.nearest();
    let mut left = Vec::new();
    for (host, (group, distance)) in hosts.into_iter().zip(nearest) {
        if distance <= f64::from(cut) {
            new[group].insert(host);
        } else {
            left.push(host);
        }
    }
    left
}

/// Groups as the shares of their hosts that have each row.
struct Centres<'a> {
    tables: &'a [TableFeatures],
    groups: &'a [RoaringBitmap],
    hosts: &'a [u32],
}

impl Centres<'_> {
    /// For each host the nearest group and how far it is.
    fn nearest(&self) -> Vec<(usize, f64)> {
        let (hosts, groups) = (self.hosts.len(), self.groups.len());
        let (mut sum, mut trust) = (vec![0.0; hosts * groups], vec![0.0; hosts * groups]);
        for table in self.tables {
            self.add(table, &mut sum, &mut trust);
        }
        let of_host = |host: usize| {
            let distance = |group: usize| match trust[host * groups + group] {
                trust if trust > 0.0 => sum[host * groups + group] / trust,
                _ => 1.0,
            };
            let all = (0..groups).map(|group| (group, distance(group)));
            all.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((0, 1.0))
        };
        (0..hosts).map(of_host).collect()
    }

    fn add(&self, table: &TableFeatures, sum: &mut [f64], trust: &mut [f64]) {
        let groups = self.groups.len();
        let heard: Vec<u64> = self.groups.iter().map(|group| group.intersection_len(&table.heard)).collect();
        let wanted: RoaringBitmap = self.hosts.iter().copied().collect();
        let mut shared = vec![0.0; self.hosts.len() * groups];
        let (mut of_host, mut of_group) = (vec![0.0; self.hosts.len()], vec![0.0; groups]);
        for feature in &table.features {
            let share = |group: usize| match heard[group] {
                0 => 0.0,
                heard => {
                    feature.weight * self.groups[group].intersection_len(&feature.members) as f64
                        / heard as f64
                }
            };
            let shares: Vec<(usize, f64)> =
                (0..groups).map(|group| (group, share(group))).filter(|(_, share)| *share > 0.0).collect();
            shares.iter().for_each(|(group, share)| of_group[*group] += share);
            for host in
                (&feature.members & &wanted).iter().filter_map(|host| self.hosts.binary_search(&host).ok())
            {
                of_host[host] += feature.weight;
                shares.iter().for_each(|(group, share)| shared[host * groups + group] += share);
            }
        }
        for (host, ordinal) in self.hosts.iter().enumerate().filter(|(_, host)| table.heard.contains(**host))
        {
            for group in (0..groups).filter(|group| heard[*group] > 0) {
                let at = host * groups + group;
                let both = of_host[host] + of_group[group];
                sum[at] += table.trust * jaccard(both, shared[at], table.own[*ordinal as usize]);
                trust[at] += table.trust;
            }
        }
    }
}
