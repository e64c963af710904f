//! The state that all simulated hosts share before noise: rows by table, parsed once.

use std::collections::BTreeMap;

use super::row::{Cells, Row, Tables};
use super::{bundled, sanitise};

/// The rows that every simulated host starts from.
#[derive(Debug)]
pub struct Base {
    tables: BTreeMap<String, Vec<Row>>,
    kernels: [String; 3],
    pids: Vec<i64>,
}

impl Base {
    /// A sample of a Debian-like web server, written by hand.
    pub fn bundled() -> Self {
        Self::new(bundled::tables(), bundled::KERNEL)
    }

    /// This machine's own state as the native collector reads it: table to rows, column to value.
    ///
    /// Only tables and columns on an allow list are taken, and of those only rows that come with the system. All that
    /// may hold secrets or names (command lines, environments, keys, histories, home directories, addresses) comes from
    /// the bundled sample, as do rows without which a table would be too small to be believed.
    pub fn from_tables(tables: Tables) -> Self {
        let kernel = sanitise::kernel(&tables).unwrap_or(bundled::KERNEL).to_owned();
        Self::new(sanitise::merge(&tables, bundled::tables()), &kernel)
    }

    fn new(tables: Tables, kernel: &str) -> Self {
        let parse = |(table, rows): (String, Vec<Cells>)| {
            let rows = rows.into_iter().map(|cells| Row::new(&table, cells)).collect();
            (table, rows)
        };
        let tables: BTreeMap<String, Vec<Row>> = tables.into_iter().map(parse).collect();
        let processes = tables.get("processes").map(Vec::as_slice).unwrap_or_default();
        let mut pids: Vec<i64> =
            processes.iter().filter_map(|row| row.cells.get("pid")?.parse().ok()).collect();
        pids.sort_unstable();
        pids.dedup();
        Self { tables, kernels: [kernel.to_owned(), newer(kernel), newer(&newer(kernel))], pids }
    }

    /// Whether [`Self::from_tables`] takes anything from a table of that name.
    pub fn takes(table: &str) -> bool {
        sanitise::takes(table)
    }

    /// The tables and how many rows each has, before noise.
    pub fn sizes(&self) -> impl Iterator<Item = (&str, usize)> {
        self.tables.iter().map(|(table, rows)| (table.as_str(), rows.len()))
    }

    /// Another base state, made from the rows of this one.
    pub(super) fn remade(&self, remake: impl Fn(Tables) -> Tables) -> Self {
        let rows = |rows: &Vec<Row>| rows.iter().map(|row| row.cells.clone()).collect();
        let tables = self.tables.iter().map(|(table, found)| (table.clone(), rows(found))).collect();
        Self::new(remake(tables), &self.kernels[0])
    }

    /// The rows of a table, when the base state has that table.
    pub(super) fn rows(&self, table: &str) -> Option<&[Row]> {
        self.tables.get(table).map(Vec::as_slice)
    }

    /// The first row of a table with that value in that column.
    pub(super) fn find(&self, table: &str, column: &str, value: &str) -> Option<&Cells> {
        let rows = self.rows(table)?.iter().map(|row| &row.cells);
        rows.into_iter().find(|cells| cells.get(column).is_some_and(|found| found == value))
    }

    /// The kernel builds of the fleet, the oldest first.
    pub(super) fn kernels(&self) -> &[String; 3] {
        &self.kernels
    }

    /// Process ids, sorted.
    pub(super) fn pids(&self) -> &[i64] {
        &self.pids
    }
}

/// The version with its last number one higher: `6.1.0-25-cloud-amd64` becomes `6.1.0-26-cloud-amd64`.
pub(super) fn newer(version: &str) -> String {
    // The architecture has digits too.
    let (head, arch) =
        version.find("-amd64").or(version.find("-arm64")).map_or((version, ""), |at| version.split_at(at));
    let Some(end) = head.rfind(|c: char| c.is_ascii_digit()) else {
        return format!("{head}.1{arch}");
    };
    let start = head[..end].rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| {
        // The character before the number may be more than one byte long.
        at + head[at..].chars().next().map_or(1, char::len_utf8)
    });
    let number: u64 = head[start..=end].parse().unwrap_or_default();
    format!("{}{}{}{arch}", &head[..start], number.saturating_add(1), &head[end + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_version_is_one_higher_in_its_last_number() {
        let check = |old, new| assert_eq!(newer(old), new);
        check("6.1.0-25-cloud-amd64", "6.1.0-26-cloud-amd64");
        check("1:9.2p1-2+deb12u3", "1:9.2p1-2+deb12u4");
        check("ü9", "ü10");
        check("none", "none.1");
        check("", ".1");
    }

    #[test]
    fn the_bundled_state_has_the_targets_of_the_scenarios() {
        let base = Base::bundled();
        for (table, column, value) in [
            ("processes", "path", "/usr/sbin/sshd"),
            ("processes", "path", "/usr/sbin/cron"),
            ("processes", "path", "/usr/sbin/auditd"),
            ("systemd_units", "id", "ssh.service"),
            ("systemd_units", "id", "cron.service"),
            ("systemd_units", "id", "auditd.service"),
            ("hash", "path", "/usr/sbin/sshd"),
            ("file", "path", "/usr/sbin/auditd"),
        ] {
            assert!(base.find(table, column, value).is_some(), "{table}: {value}");
        }
        let rows: usize = base.sizes().map(|(_, rows)| rows).sum();
        assert!((900..1_600).contains(&rows), "{rows} rows");
    }
}
