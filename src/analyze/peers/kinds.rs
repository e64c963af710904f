//! Kinds of hosts: names that stand on the same hosts in many tables at once, and the hosts that have the same of them.
//!
//! A kernel, a colour, a canary, an instance type differ in few tables. What a host is for shows in all: software, its
//! account and groups, its units, programs, ports, environment and files. A worm leaves rows in several tables too, but
//! it comes on top of what the host is: most hosts that are otherwise alike have it not.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use roaring::RoaringBitmap;

use super::super::lines::Loaded;
use super::super::sets::{Together, together};
use super::FEWEST_PEERS;
use super::names::{Name, Names};

/// A kind shows in one of so many of the tables that say what a host is for.
const ONE_OF_TABLES: usize = 4;
/// And in so many at least.
const FEWEST_TABLES: usize = 3;
/// What comes on top of a kind is a kind of its own when it is this many packages and images: nobody breaks in with those.
const INSTALLED: usize = 5;
/// Tables of what was installed.
const SOFTWARE: [&str; 6] =
    ["deb_packages", "docker_containers", "docker_images", "npm_packages", "python_packages", "rpm_packages"];
/// Most blocks that are told apart, the strongest.
const MOST_BLOCKS: usize = 128;
/// Share of the tables that must be known of a host.
const KNOWN: f64 = 0.5;

/// Whether a table says what was installed.
pub(in super::super) fn is_software(table: &str) -> bool {
    SOFTWARE.contains(&table)
}

/// Names on the same hosts.
#[derive(Debug)]
struct Block {
    tables: usize,
    names: usize,
    installed: usize,
    hosts: u64,
    /// Hosts that have most of it, and those of which too little is known to say.
    has: RoaringBitmap,
    unknown: RoaringBitmap,
}

/// Which hosts are alike; hosts of which too little is known are in no group.
pub(super) fn groups(tables: &[Loaded<'_>], names: &Names, hosts: usize) -> Vec<RoaringBitmap> {
    let mut blocks = blocks(tables, names, hosts);
    let known = known(tables, names, hosts);
    while let Some(number) = added(&blocks, &known) {
        blocks.remove(number);
    }
    tracing::debug!(?blocks, "names by which kinds of hosts differ");
    let mut groups = alike(&blocks, &known);
    groups.sort_by_key(|group| (std::cmp::Reverse(group.len()), group.min()));
    groups
}

/// Hosts that answered for enough of the tables.
fn known(tables: &[Loaded<'_>], names: &Names, hosts: usize) -> RoaringBitmap {
    let mut heard = vec![0usize; hosts];
    for table in &names.tables {
        tables[*table].answers.heard.iter().for_each(|host| heard[host as usize] += 1);
    }
    let enough = (names.tables.len() as f64 * KNOWN).ceil() as usize;
    (0..hosts as u32).filter(|host| heard[*host as usize] >= enough.max(1)).collect()
}

/// The blocks of enough tables, the strongest first.
fn blocks(tables: &[Loaded<'_>], names: &Names, hosts: usize) -> Vec<Block> {
    let fewest = names.tables.len().div_ceil(ONE_OF_TABLES).max(FEWEST_TABLES);
    let heard: Vec<&RoaringBitmap> = tables.iter().map(|table| &table.answers.heard).collect();
    let is_strong = |set: &Together, names: &[Name]| set.tables(names) >= fewest;
    let mut blocks = Vec::new();
    for set in together(&names.shared, &heard, hosts) {
        if is_strong(&set, &names.shared) {
            blocks.push(Block::new(
                tables,
                &set.items.iter().map(|name| &names.shared[*name]).collect::<Vec<_>>(),
            ));
        }
    }
    let mut own: BTreeMap<Option<u32>, Vec<&Name>> = BTreeMap::new();
    names.own.iter().for_each(|name| own.entry(name.members.min()).or_default().push(name));
    let of_tables =
        |names: &Vec<&Name>| names.iter().map(|name| name.table).collect::<BTreeSet<usize>>().len();
    let of_host = own.into_values().filter(|names| of_tables(names) >= fewest);
    blocks.extend(of_host.map(|names| Block::new(tables, &names)));
    blocks
        .sort_by_key(|block| (std::cmp::Reverse((block.tables, block.names, block.hosts)), block.has.min()));
    blocks.truncate(MOST_BLOCKS);
    blocks
}

impl Block {
    fn new(tables: &[Loaded<'_>], names: &[&Name]) -> Self {
        let mut of_table: BTreeMap<usize, usize> = BTreeMap::new();
        let mut has: HashMap<u32, usize> = HashMap::new();
        for name in names {
            *of_table.entry(name.table).or_default() += 1;
            name.members.iter().for_each(|host| *has.entry(host).or_default() += 1);
        }
        let mut asked: HashMap<u32, usize> = HashMap::new();
        let mut all = RoaringBitmap::new();
        for (table, count) in &of_table {
            let heard = &tables[*table].answers.heard;
            all |= heard;
            heard.iter().for_each(|host| *asked.entry(host).or_default() += count);
        }
        let has_most =
            |(host, count): &(&u32, &usize)| asked.get(host).is_some_and(|asked| **count * 2 >= *asked);
        let has: RoaringBitmap = has.iter().filter(has_most).map(|(host, _)| *host).collect();
        let is_unknown = |host: &u32| asked.get(host).copied().unwrap_or_default() * 2 < names.len();
        let of_software = |(table, _): &(&usize, &usize)| is_software(tables[**table].name());
        Self {
            tables: of_table.len(),
            names: names.len(),
            installed: of_table.iter().filter(of_software).map(|(_, count)| count).sum(),
            hosts: has.len(),
            unknown: tables
                .iter()
                .fold(all, |all, table| all | &table.answers.heard)
                .iter()
                .filter(is_unknown)
                .collect(),
            has,
        }
    }

    /// Packages and images on several hosts.
    fn is_installed(&self) -> bool {
        self.installed >= INSTALLED && self.hosts > 1
    }
}

/// For each host the blocks that it has, as bits.
fn signatures(blocks: &[Block], known: &RoaringBitmap) -> BTreeMap<u32, u128> {
    let mut signatures: BTreeMap<u32, u128> = known.iter().map(|host| (host, 0)).collect();
    for (number, block) in blocks.iter().enumerate() {
        for host in &block.has {
            if let Some(signature) = signatures.get_mut(&host) {
                *signature |= 1 << number;
            }
        }
    }
    signatures
}

/// The weakest block that is no kind: hosts that are otherwise alike differ in it, most of them with less, or a few with
/// something gone.
fn added(blocks: &[Block], known: &RoaringBitmap) -> Option<usize> {
    let mut counts: HashMap<u128, u64> = HashMap::new();
    signatures(blocks, known).into_values().for_each(|signature| *counts.entry(signature).or_default() += 1);
    let of = |signature: u128| counts.get(&signature).copied().unwrap_or_default();
    let is_added = |number: &usize| {
        let bit = 1u128 << number;
        // Whether all hosts without it are few that would be like the others with it.
        let mut without = counts.iter().filter(|(signature, _)| *signature & bit == 0);
        let is_only_gone = without.all(|(signature, hosts)| *hosts < of(signature | bit).min(FEWEST_PEERS));
        let (mut alike, mut all) = (0, 0);
        for (signature, with) in counts.iter().filter(|(signature, _)| *signature & bit != 0) {
            let without = of(signature & !bit);
            all += with;
            // Two hosts, each alone, say nothing about which of them is usual.
            let is_on_top = without >= *with && without > 1;
            let is_gone = (1..FEWEST_PEERS.min(*with)).contains(&without) && signature & !bit != 0;
            alike += if is_on_top || is_gone || is_only_gone { *with } else { 0 };
        }
        alike * 2 >= all && !blocks[*number].is_installed()
    };
    (0..blocks.len()).rev().find(is_added)
}

/// Hosts with the same blocks; where some are not known, the largest group that has all that is known.
fn alike(blocks: &[Block], known: &RoaringBitmap) -> Vec<RoaringBitmap> {
    let signatures = signatures(blocks, known);
    let unknown = |host: u32| {
        let bits = blocks.iter().enumerate().filter(|(_, block)| block.unknown.contains(host));
        bits.fold(0u128, |all, (number, _)| all | 1 << number)
    };
    let mut groups: BTreeMap<u128, RoaringBitmap> = BTreeMap::new();
    let mut open: BTreeSet<(u32, u128, u128)> = BTreeSet::new();
    for (host, signature) in signatures {
        match unknown(host) {
            0 => drop(groups.entry(signature).or_default().insert(host)),
            unknown => drop(open.insert((host, signature, unknown))),
        }
    }
    for (host, signature, unknown) in open {
        let fits = |group: &(&u128, &RoaringBitmap)| *group.0 & !unknown == signature & !unknown;
        let largest =
            groups.iter().filter(fits).max_by_key(|(_, group)| group.len()).map(|(signature, _)| *signature);
        groups.entry(largest.unwrap_or(signature)).or_default().insert(host);
    }
    groups.into_values().collect()
}
