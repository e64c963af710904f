//! What explains honest differences: rows that stand on just the hosts of a kernel, an image or a package version came
//! with it.

use std::collections::{BTreeMap, HashMap};

use super::lines::Loaded;
use super::members::Members;
use super::sets::similar;

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
    /// Causes on several hosts, by how many.
    by_size: BTreeMap<u64, Vec<usize>>,
    /// Causes on a single host, by host.
    by_host: HashMap<u32, Vec<usize>>,
}

#[derive(Debug)]
struct Cause {
    table: String,
    hosts: Members,
    name: String,
}

impl Explanations {
    pub(super) fn new(tables: &[Loaded<'_>]) -> Self {
        let mut all = Self::default();
        for (name, columns) in EXPLAINING {
            if let Some(table) = tables.iter().find(|table| table.name() == name) {
                all.causes.extend(of_table(table, columns));
            }
        }
        for (number, cause) in all.causes.iter().enumerate() {
            match cause.hosts {
                Members::One(host) => all.by_host.entry(host).or_default().push(number),
                Members::Some(_) => all.by_size.entry(cause.hosts.len()).or_default().push(number),
            }
        }
        all
    }

    /// What accounts for rows of `table` on these hosts. For a row on a single host, which anybody can have, only a
    /// package on just that host that bears the name of the row's file.
    pub(super) fn of(&self, table: &str, hosts: &Members, path: Option<&str>) -> Option<&str> {
        let of_others = |number: &usize| self.causes[*number].table != table;
        let first = match hosts {
            Members::One(host) => {
                let file = path.and_then(|path| path.rsplit('/').next()).filter(|file| !file.is_empty())?;
                let is_named = |number: &usize| self.causes[*number].name.split(' ').next() == Some(file);
                let causes = self.by_host.get(host)?.iter().copied();
                causes.filter(of_others).find(is_named)
            }
            Members::Some(hosts) => {
                // Sets that are nearly the same are nearly as large.
                let size = hosts.len() as f64;
                let sizes = (size * NEARLY_THE_SAME) as u64..=(size / NEARLY_THE_SAME) as u64 + 1;
                let is_same = |number: &usize| match &self.causes[*number].hosts {
                    Members::One(_) => false,
                    Members::Some(cause) => similar(cause, hosts, NEARLY_THE_SAME),
                };
                let causes = self.by_size.range(sizes).flat_map(|(_, causes)| causes).copied();
                causes.filter(of_others).filter(is_same).min()
            }
        };
        first.map(|number| self.causes[number].name.as_str())
    }
}

/// The versions of one table that some hosts have and others have not.
fn of_table(table: &Loaded<'_>, columns: [&str; 2]) -> Vec<Cause> {
    let mut hosts: HashMap<String, Members> = HashMap::new();
    for (number, line) in table.lines.lines.iter().enumerate() {
        let values = columns.iter().filter_map(|column| table.lines.text(number, column));
        let name = values.collect::<Vec<_>>().join(" ");
        hosts.entry(name).or_default().add(&line.members);
    }
    let all = table.answers.heard.len();
    let mut causes: Vec<Cause> = hosts
        .into_iter()
        .filter(|(_, hosts)| hosts.len() < all)
        .map(|(name, hosts)| Cause { table: table.name().to_owned(), hosts, name })
        .collect();
    causes.sort_by(|a, b| a.name.cmp(&b.name));
    causes
}

#[cfg(test)]
mod tests {
    use super::super::testing::Fleet;
    use super::*;

    fn check(table: &str, hosts: impl IntoIterator<Item = u32>, expected: Option<&str>) {
        let mut fleet = Fleet::new(40, |host| format!("web-{host}"));
        fleet.row("kernel_info", "version=6.1.0-99-amd64|arguments=a", 0..5);
        fleet.row("kernel_info", "version=6.1.0-99-amd64|arguments=b", 5..10);
        fleet.row("kernel_info", "version=6.1.0-50-amd64|arguments=a", 10..40);
        fleet.row("deb_packages", "name=bash|version=5.2", 0..40);
        fleet.row("deb_packages", "name=strace|version=6.1", [20, 21]);
        let loaded = fleet.loaded();
        let hosts: Members = hosts.into_iter().collect();
        assert_eq!(Explanations::new(&loaded).of(table, &hosts, None), expected, "{table} {hosts:?}");
    }

    #[test]
    fn the_size_of_a_module_came_with_the_kernel() {
        check("kernel_modules", 0..10, Some("6.1.0-99-amd64"));
        check("kernel_modules", 0..9, Some("6.1.0-99-amd64"));
        check("file", [20, 21], Some("strace 6.1"));
    }

    #[test]
    fn half_of_the_hosts_of_a_kernel_or_a_single_host_are_not_explained_by_it() {
        check("kernel_modules", 0..5, None);
        check("kernel_modules", 5..20, None);
        check("kernel_modules", [20], None);
    }

    #[test]
    fn what_all_hosts_have_and_the_table_itself_explain_nothing() {
        check("file", 0..40, None);
        check("deb_packages", [20, 21], None);
    }
}
