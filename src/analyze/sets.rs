//! Rows that stand on (nearly) the same hosts: equal sets by their digest, near-equal ones by MinHash.

use std::collections::{BTreeSet, HashMap};

use roaring::RoaringBitmap;

/// Two sets are the same when their Jaccard similarity, over hosts that answered both, is at least this.
const SAME: f64 = 0.9;
/// MinHash: sets meet when all values of one band are equal. At similarity 0.9 they miss each other once in ten
/// thousand times, at 0.5 they meet once in sixteen.
const BANDS: usize = 16;
const ROWS: usize = 8;
/// Hosts of a set that are looked at for it, about.
const MANY: u64 = 500;

/// Something in a table that some hosts have.
pub(super) trait Placed {
    /// Which of the loaded tables.
    fn table(&self) -> usize;
    /// The hosts.
    fn members(&self) -> &RoaringBitmap;
}

/// Items on (nearly) the same hosts.
#[derive(Debug)]
pub(super) struct Together {
    pub(super) members: RoaringBitmap,
    pub(super) items: Vec<usize>,
}

impl Together {
    pub(super) fn tables(&self, items: &[impl Placed]) -> usize {
        self.items.iter().map(|item| items[*item].table()).collect::<BTreeSet<usize>>().len()
    }
}

/// Groups items; only groups of two or more tables. `heard` says who answered, by table.
pub(super) fn together(items: &[impl Placed], heard: &[&RoaringBitmap], hosts: usize) -> Vec<Together> {
    let mut sets = equal(items);
    sets.sort_by_cached_key(|set| {
        let size = (set.tables(items), set.items.len(), set.members.len());
        (std::cmp::Reverse(size), set.members.min(), set.items.first().copied())
    });
    let index = Index::new(&sets, hosts);
    let mut is_taken = vec![false; sets.len()];
    let mut found = Vec::new();
    for leader in 0..sets.len() {
        if std::mem::replace(&mut is_taken[leader], true) {
            continue;
        }
        let mut joined = sets[leader].items.clone();
        for other in index.near(leader) {
            if !is_taken[other] && are_same((&sets[leader], &sets[other]), items, heard) {
                is_taken[other] = true;
                joined.extend(&sets[other].items);
            }
        }
        let set = Together { members: sets[leader].members.clone(), items: joined };
        if set.tables(items) > 1 {
            found.push(set);
        }
    }
    found
}

fn equal(items: &[impl Placed]) -> Vec<Together> {
    let mut sets: HashMap<[u8; 32], Together> = HashMap::new();
    for (number, item) in items.iter().enumerate() {
        let mut hasher = blake3::Hasher::new();
        let ordinals: Vec<u8> = item.members().iter().flat_map(u32::to_le_bytes).collect();
        hasher.update(&ordinals);
        let empty = || Together { members: item.members().clone(), items: Vec::new() };
        sets.entry(*hasher.finalize().as_bytes()).or_insert_with(empty).items.push(number);
    }
    sets.into_values().collect()
}

/// Compares over the hosts that answered the first tables of both.
fn are_same((a, b): (&Together, &Together), items: &[impl Placed], heard: &[&RoaringBitmap]) -> bool {
    let heard_for = |set: &Together| set.items.first().map(|item| heard[items[*item].table()]);
    let (Some(heard_a), Some(heard_b)) = (heard_for(a), heard_for(b)) else { return false };
    let (a, b) = (&a.members & heard_b, &b.members & heard_a);
    !(a.is_empty() && b.is_empty()) && similar(&a, &b, SAME)
}

/// Whether at least this share of the hosts of either are hosts of both: the Jaccard similarity.
pub(super) fn similar(a: &RoaringBitmap, b: &RoaringBitmap, share: f64) -> bool {
    a.intersection_len(b) as f64 >= a.union_len(b) as f64 * share
}

/// Sets by the bands of their MinHash.
struct Index {
    bands: Vec<[u64; BANDS]>,
    sets: HashMap<(usize, u64), Vec<usize>>,
}

impl Index {
    fn new(sets: &[Together], hosts: usize) -> Self {
        let hashes: Vec<[u32; BANDS * ROWS]> = (0..hosts as u64).map(host_hashes).collect();
        let bands: Vec<[u64; BANDS]> = sets.iter().map(|set| bands(&set.members, &hashes)).collect();
        let mut by_band: HashMap<(usize, u64), Vec<usize>> = HashMap::new();
        for (number, bands) in bands.iter().enumerate() {
            for band in bands.iter().copied().enumerate() {
                by_band.entry(band).or_default().push(number);
            }
        }
        by_band.retain(|_, sets| sets.len() > 1);
        Self { bands, sets: by_band }
    }

    fn near(&self, set: usize) -> BTreeSet<usize> {
        let bands = self.bands[set].iter().copied().enumerate();
        bands
            .filter_map(|band| self.sets.get(&band))
            .flatten()
            .copied()
            .filter(|other| *other != set)
            .collect()
    }
}

/// One hash for each permutation; the same in every run.
fn host_hashes(host: u64) -> [u32; BANDS * ROWS] {
    let mut hashes = [0; BANDS * ROWS];
    for (number, hash) in (0u64..).zip(&mut hashes) {
        *hash = (mixed(host << 8 | number) >> 32) as u32;
    }
    hashes
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
fn mixed(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn bands(members: &RoaringBitmap, hashes: &[[u32; BANDS * ROWS]]) -> [u64; BANDS] {
    let mut least = [u32::MAX; BANDS * ROWS];
    // Some of many say as much; `are_same` looks at all.
    let some = if members.len() > MANY { hashes.len() / MANY as usize } else { 1 };
    for host in members.iter().filter(|host| (hashes[*host as usize][0] as usize).is_multiple_of(some)) {
        for (least, hash) in least.iter_mut().zip(&hashes[host as usize]) {
            *least = (*least).min(*hash);
        }
    }
    let mut bands = [0; BANDS];
    for (band, rows) in bands.iter_mut().zip(least.chunks(ROWS)) {
        *band = rows.iter().fold(0, |band, row| mixed(band ^ u64::from(*row)));
    }
    bands
}
