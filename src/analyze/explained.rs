//! What explains honest differences: rows that stand on just the hosts of a kernel, an image or a package version came
//! with it.

use std::collections::HashMap;

use roaring::RoaringBitmap;

use super::lines::Loaded;

/// Tables whose rows explain others, and the columns that name and tell them apart.
const EXPLAINING: [(&str, [&str; 2]); 4] = [
    ("kernel_info", ["version", ""]),
    ("os_version", ["name", "version"]),
    ("deb_packages", ["name", "version"]),
    ("rpm_packages", ["name", "version"]),
];
/// How much of both sets of hosts must be the same.
const NEARLY_THE_SAME: f64 = 0.8;

/// Sets of hosts that a kernel, an image or a package version accounts for.
#[derive(Debug, Default)]
pub(super) struct Explanations {
    causes: Vec<Cause>,
}

#[derive(Debug)]
struct Cause {
    table: String,
    hosts: RoaringBitmap,
    name: String,
}

impl Explanations {
    pub(super) fn new(tables: &[Loaded<'_>]) -> Self {
        let mut causes = Vec::new();
        for (name, columns) in EXPLAINING {
            if let Some(table) = tables.iter().find(|table| table.name() == name) {
                causes.extend(of_table(table, columns));
            }
        }
        Self { causes }
    }

    /// What accounts for rows of `table` on these hosts: none for a row on a single host, which anybody can have.
    pub(super) fn of(&self, table: &str, hosts: &RoaringBitmap) -> Option<&str> {
        if hosts.len() < 2 {
            return None;
        }
        let is_cause = |cause: &&Cause| {
            let both = cause.hosts.intersection_len(hosts) as f64;
            let either = (cause.hosts.len() + hosts.len()) as f64 - both;
            cause.table != table && both >= either * NEARLY_THE_SAME
        };
        self.causes.iter().find(is_cause).map(|cause| cause.name.as_str())
    }
}

/// The versions of one table that some hosts have and others have not.
fn of_table(table: &Loaded<'_>, columns: [&str; 2]) -> Vec<Cause> {
    let mut hosts: HashMap<String, RoaringBitmap> = HashMap::new();
    for (number, line) in table.lines.lines.iter().enumerate() {
        let values = columns.iter().filter_map(|column| table.lines.value(number, column));
        let name = values.collect::<Vec<_>>().join(" ");
        *hosts.entry(name).or_default() |= &line.members;
    }
    let all = table.answers.heard.len();
    let mut causes: Vec<Cause> = hosts
        .into_iter()
        .filter(|(_, hosts)| hosts.len() > 1 && hosts.len() < all)
        .map(|(name, hosts)| Cause { table: table.name().to_owned(), hosts, name })
        .collect();
    causes.sort_by(|a, b| a.name.cmp(&b.name));
    causes
}
