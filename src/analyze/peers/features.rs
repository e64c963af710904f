//! What hosts are compared by: the rows of each table that more than one host has, and what each row weighs.

use std::collections::HashMap;

use roaring::RoaringBitmap;

use super::super::lines::{Group, Loaded};

/// A row on at least this share of the hosts recurs; a table is trusted by how much of it recurs.
const RECURS: f64 = 0.03;
/// What a row that few hosts have weighs at least: two hosts of their own kind share nothing else.
const RARE_WEIGHT: f64 = 0.15;
/// What a row that all hosts have weighs: much in common makes a small difference smaller.
const UNIVERSAL_WEIGHT: f64 = 0.05;
/// Tables that say on what a host runs, or what went on at that moment, and less what it is for.
const SAYS_LITTLE: [&str; 17] = [
    "ec2_instance_metadata",
    "interface_addresses",
    "kernel_info",
    "kernel_modules",
    "known_hosts",
    "last",
    "logged_in_users",
    "mounts",
    "os_version",
    "osquery_info",
    "process_memory_map",
    "process_open_files",
    "process_open_sockets",
    "shell_history",
    "system_controls",
    "system_info",
    "uptime",
];
/// Factor for these tables.
const LITTLE: f64 = 0.25;

/// Rows of one table that stand on exactly the same hosts.
#[derive(Debug)]
pub(super) struct Feature {
    pub(super) members: RoaringBitmap,
    /// What these rows weigh together.
    pub(super) weight: f64,
}

/// One table as hosts are compared by it.
#[derive(Debug)]
pub(super) struct TableFeatures {
    pub(super) heard: RoaringBitmap,
    pub(super) features: Vec<Feature>,
    /// What the table says about kinds, beside others.
    pub(super) trust: f64,
    /// By ordinal of the host: the weight of rows that only it has, above what is usual in the table.
    pub(super) own: Vec<f64>,
}

impl TableFeatures {
    /// The rows of one table; none when it has none. A table in which all hosts are the same says that they are alike.
    pub(super) fn new(table: &Loaded<'_>, hosts: usize) -> Option<Self> {
        let heard = &table.answers.heard;
        let of = heard.len() as f64;
        let mut merged: HashMap<Vec<u8>, Feature> = HashMap::new();
        let (mut own, mut rows, mut recurring) = (vec![0.0; hosts], 0, 0);
        for Group { members, .. } in table.lines.loose() {
            let members = members & heard;
            rows += members.len();
            let share = members.len() as f64 / of;
            if members.len() < 2 {
                members.iter().for_each(|host| own[host as usize] += RARE_WEIGHT);
                continue;
            }
            recurring += if share >= RECURS { members.len() } else { 0 };
            let feature = merged.entry(key(&members)).or_insert(Feature { members, weight: 0.0 });
            feature.weight += weight(share);
        }
        if rows == 0 {
            return None;
        }
        let mut features: Vec<Feature> = merged.into_values().collect();
        features.sort_by(|a, b| a.members.iter().cmp(b.members.iter()));
        let recurs = recurring as f64 / rows as f64;
        Some(Self {
            trust: trust(table, recurs),
            own: above_usual(own, heard),
            heard: heard.clone(),
            features,
        })
    }
}

/// Equal for equal sets: the ordinals of the members.
fn key(members: &RoaringBitmap) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    members.iter().for_each(|host| {
        hasher.update(&host.to_le_bytes());
    });
    hasher.finalize().as_bytes().to_vec()
}

/// The entropy of having the row: most where half of the hosts have it.
fn weight(share: f64) -> f64 {
    let part = |p: f64| if p <= 0.0 { 0.0 } else { -p * p.log2() };
    let least = if share < 0.5 { RARE_WEIGHT } else { UNIVERSAL_WEIGHT };
    (part(share) + part(1.0 - share)).max(least)
}

fn trust(table: &Loaded<'_>, recurs: f64) -> f64 {
    let about = if SAYS_LITTLE.contains(&table.name()) { LITTLE } else { 1.0 };
    about * recurs * recurs * table.lines.spec.weight.sqrt()
}

/// Where every host has rows of its own (keys, addresses), having them is no difference.
fn above_usual(mut own: Vec<f64>, heard: &RoaringBitmap) -> Vec<f64> {
    let mut sorted: Vec<f64> = heard.iter().map(|host| own[host as usize]).collect();
    sorted.sort_by(f64::total_cmp);
    let usual = sorted.get(sorted.len() * 3 / 4).copied().unwrap_or_default();
    own.iter_mut().for_each(|own| *own = (*own - 2.0 * usual).max(0.0));
    own
}
