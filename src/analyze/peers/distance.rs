//! How far apart hosts are: for each table the weighted Jaccard distance of their rows, and the mean of the tables.

use roaring::RoaringBitmap;

use super::features::TableFeatures;

/// Added to what two hosts have in a table: a single row that differs is no difference in kind.
const SMOOTH: f64 = 1.0;
/// The distance of hosts that have no table in common.
const UNKNOWN: f32 = 1.0;

/// Distances between `hosts`, in the order of `(0,1), (0,2), … (1,2), …`.
pub(super) fn distances(tables: &[TableFeatures], hosts: &[u32]) -> Vec<f32> {
    let pairs = hosts.len() * hosts.len().saturating_sub(1) / 2;
    let (mut sum, mut trust) = (vec![0.0f32; pairs], vec![0.0f32; pairs]);
    let all: RoaringBitmap = hosts.iter().copied().collect();
    for table in tables {
        let local = Local::new(table, hosts, &all);
        for (at, i) in local.heard.iter().enumerate() {
            for j in &local.heard[at + 1..] {
                let pair = condensed(*i, *j, hosts.len());
                sum[pair] += (table.trust * local.distance(*i, *j)) as f32;
                trust[pair] += table.trust as f32;
            }
        }
    }
    sum.iter().zip(trust).map(|(sum, trust)| if trust > 0.0 { sum / trust } else { UNKNOWN }).collect()
}

/// Where the pair `i < j` of `n` hosts stands.
fn condensed(i: usize, j: usize, n: usize) -> usize {
    i * (2 * n - i - 1) / 2 + j - i - 1
}

/// One table, for the hosts of a sample, by their place in it.
struct Local {
    heard: Vec<usize>,
    hosts: usize,
    /// What the rows of each host weigh, with and without those that only it has.
    weight: Vec<f64>,
    own: Vec<f64>,
    /// What rows weigh that most of the sample has, and how much of it each host lacks.
    common: f64,
    lacks: Vec<f64>,
    /// What two hosts share of the other rows, or lack together of the common ones.
    together: Vec<f32>,
}

impl Local {
    fn new(table: &TableFeatures, hosts: &[u32], all: &RoaringBitmap) -> Self {
        let place = |host: u32| hosts.binary_search(&host).ok();
        let heard_here = &table.heard & all;
        let pairs = hosts.len() * hosts.len().saturating_sub(1) / 2;
        let mut local = Self {
            heard: heard_here.iter().filter_map(place).collect(),
            hosts: hosts.len(),
            weight: vec![0.0; hosts.len()],
            own: hosts.iter().map(|host| table.own[*host as usize]).collect(),
            common: 0.0,
            lacks: vec![0.0; hosts.len()],
            together: vec![0.0; pairs],
        };
        for feature in &table.features {
            let members = &feature.members & &heard_here;
            let is_common = members.len() * 2 > heard_here.len();
            members.iter().filter_map(place).for_each(|host| local.weight[host] += feature.weight);
            // Pairs are counted on the smaller side.
            let side = if is_common { &heard_here - &members } else { members };
            let side: Vec<usize> = side.iter().filter_map(place).collect();
            if is_common {
                local.common += feature.weight;
                side.iter().for_each(|host| local.lacks[*host] += feature.weight);
            }
            local.add_pairs(&side, feature.weight as f32);
        }
        local
    }

    fn add_pairs(&mut self, side: &[usize], weight: f32) {
        for (at, i) in side.iter().enumerate() {
            for j in &side[at + 1..] {
                self.together[condensed(*i, *j, self.hosts)] += weight;
            }
        }
    }

    fn distance(&self, i: usize, j: usize) -> f64 {
        let together = f64::from(self.together[condensed(i, j, self.hosts)]);
        let shared = self.common - self.lacks[i] - self.lacks[j] + together;
        jaccard(self.weight[i] + self.weight[j], shared, self.own[i] + self.own[j])
    }
}

/// From the weights of both sides, of what they share, and of what only they have.
pub(super) fn jaccard(both: f64, shared: f64, own: f64) -> f64 {
    let differs = (both - 2.0 * shared + own).max(0.0);
    differs / (differs + shared + SMOOTH)
}
