//! What hosts are told apart by: the names of what they have, in the tables that say what a host is for.
//!
//! A name is the loose id of a row with its numbers masked: the release that a program belongs to, the port that it
//! listens on and the build of a kernel are settings of a thing, and no other thing.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use roaring::RoaringBitmap;

use super::super::lines::{Lines, Loaded};
use super::super::sets::Placed;
use super::super::views::mask;
use crate::catalog::{ColumnSpec, Strength};

/// Tables that say on what a host runs, or what went on at that moment, and not what it is for.
const SAYS_LITTLE: [&str; 19] = [
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
    "process_events",
    "process_memory_map",
    "process_open_files",
    "process_open_sockets",
    "shell_history",
    "socket_events",
    "system_controls",
    "system_info",
    "uptime",
];
/// Share of the hosts up to which having names of one's own in a table says something.
const OWN_IS_ODD: f64 = 0.2;

/// One name and the hosts that have it.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) table: usize,
    pub(super) members: RoaringBitmap,
}

impl Placed for Name {
    fn table(&self) -> usize {
        self.table
    }

    fn members(&self) -> &RoaringBitmap {
        &self.members
    }
}

/// The names of a fleet.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Which of the loaded tables are looked at.
    pub(super) tables: Vec<usize>,
    /// Names that several hosts have, and not all.
    pub(super) shared: Vec<Name>,
    /// Names that one host has, in tables in which that is odd.
    pub(super) own: Vec<Name>,
}

impl Names {
    pub(super) fn new(tables: &[Loaded<'_>]) -> Self {
        let mut names = Self::default();
        for (number, table) in tables.iter().enumerate() {
            let says_what = !SAYS_LITTLE.contains(&table.name()) && table.lines.spec.declared;
            if says_what && !table.lines.lines.is_empty() {
                names.tables.push(number);
                names.add(number, table);
            }
        }
        names
    }

    fn add(&mut self, number: usize, table: &Loaded<'_>) {
        let heard = &table.answers.heard;
        let (mut merged, mut own): (HashMap<Vec<u64>, RoaringBitmap>, Vec<Name>) = Default::default();
        for group in table.lines.loose() {
            let members = &group.members & heard;
            match members.len() {
                0 => {}
                1 => own.push(Name { table: number, members: members.to_bitmap() }),
                _ => {
                    let line = group.lines.first().unwrap_or_default();
                    *merged.entry(masked(&table.lines, line)).or_default() |= &members;
                }
            }
        }
        let mut shared: Vec<RoaringBitmap> =
            merged.into_values().filter(|members| members.len() < heard.len()).collect();
        shared.sort_by(|a, b| a.iter().cmp(b.iter()));
        self.shared.extend(shared.into_iter().map(|members| Name { table: number, members }));
        let with_own = own.iter().fold(RoaringBitmap::new(), |all, name| all | &name.members);
        if with_own.len() as f64 <= (heard.len() as f64 * OWN_IS_ODD).max(1.0) {
            self.own.extend(own);
        }
    }
}

/// By identity column of the loose id: equal for values that are alike but for numbers.
pub(in super::super) fn masked(lines: &Lines, line: usize) -> Vec<u64> {
    let of_column = |column: &ColumnSpec| {
        let value = lines.text(line, &column.name).unwrap_or_default();
        let mut hasher = DefaultHasher::new();
        // Without a digit there is nothing to mask.
        match value.bytes().any(|byte| byte.is_ascii_digit()) {
            true => mask(value).hash(&mut hasher),
            false => value.hash(&mut hasher),
        }
        hasher.finish()
    };
    lines.spec.identity(Strength::Loose).map(of_column).collect()
}
