//! What defines a peer group, in words: first what its hosts say of themselves, then the rows that only they have.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;

use super::super::lines::{Group, Lines, Loaded};
use super::PeerGroups;
use super::facts::Fact;
use crate::catalog::{Role, Strength};

/// Share of a group from which on it has something.
const HAS: f64 = 0.9;
/// Share of all others up to which they have it not.
const HAVE_NOT: f64 = 0.05;
/// Most facts and most rows that are named.
const FACTS: usize = 3;
const ROWS: usize = 3;
/// Longest name of a row, in characters.
const LONGEST: usize = 40;
/// Tables whose rows say best what a host is for.
const TELLING: [&str; 7] = [
    "processes",
    "listening_ports",
    "docker_containers",
    "systemd_units",
    "deb_packages",
    "rpm_packages",
    "users",
];

/// Fills in [`super::PeerGroup::described_by`].
pub(super) fn describe(groups: &mut PeerGroups, tables: &[Loaded<'_>], facts: &[Fact]) {
    let mut typical = typical_rows(groups, tables);
    let all: RoaringBitmap = groups.groups.iter().fold(RoaringBitmap::new(), |all, group| all | &group.hosts);
    for (number, group) in groups.groups.iter_mut().enumerate() {
        let rows = typical.remove(&number).unwrap_or_default();
        let mut parts: Vec<String> =
            facts.iter().filter_map(|fact| of_fact(fact, &group.hosts, &all)).collect();
        parts.truncate(FACTS);
        parts.extend(of_rows(rows));
        group.described_by = match parts.is_empty() {
            true if group.hosts == all => "all hosts that can be compared".to_owned(),
            true => "no rows that only this group has".to_owned(),
            false => parts.join("; "),
        };
    }
}

/// A value that nearly all of the group and hardly any others have.
fn of_fact(fact: &Fact, group: &RoaringBitmap, all: &RoaringBitmap) -> Option<String> {
    let others = all - group;
    let separates = |members: &RoaringBitmap| {
        !others.is_empty()
            && members.intersection_len(group) as f64 >= group.len() as f64 * HAS
            && members.intersection_len(&others) as f64 <= others.len() as f64 * HAVE_NOT
    };
    let (value, _) = fact.values.iter().find(|(_, members)| separates(members))?;
    Some(format!("{} {}", fact.word, shortened(value)))
}

/// A row that sets a group apart.
struct Typical {
    /// How well its table says what a host is for: the lower the better.
    table_rank: usize,
    table: String,
    name: String,
    /// Hosts of other groups that have it.
    others: u64,
    members: u64,
}

/// By number of the group.
fn typical_rows(groups: &PeerGroups, tables: &[Loaded<'_>]) -> BTreeMap<usize, Vec<Typical>> {
    let mut typical: BTreeMap<usize, Vec<Typical>> = BTreeMap::new();
    if groups.groups.len() < 2 {
        return typical;
    }
    for table in tables {
        let table_rank = TELLING.iter().position(|name| *name == table.name()).unwrap_or(TELLING.len());
        for row in table.lines.loose() {
            let Some((number, others)) = typical_of(groups, table, &row) else { continue };
            let Some(name) = row_name(&table.lines, table.lines.most_common(&row)) else { continue };
            let table = table.name().to_owned();
            let members = row.members.len();
            typical.entry(number).or_default().push(Typical { table_rank, table, name, others, members });
        }
    }
    typical
}

/// The group that has the row while others have it not, and how many others do.
fn typical_of(groups: &PeerGroups, table: &Loaded<'_>, row: &Group) -> Option<(usize, u64)> {
    let heard = &table.answers.heard;
    for host in [row.members.min(), row.members.middle()].into_iter().flatten() {
        let Some(number) = groups.of[host as usize] else { continue };
        let group = &groups.groups[number].hosts;
        let (of, have) = (group.intersection_len(heard), row.members.intersection_len(group));
        let others = row.members.len() - have;
        let outside = heard.len().saturating_sub(of);
        if have as f64 >= of as f64 * HAS && others as f64 <= outside as f64 * HAVE_NOT {
            return Some((number, others));
        }
    }
    None
}

/// `processes nginx, listening_ports port 80; no other host has them`.
fn of_rows(mut rows: Vec<Typical>) -> Option<String> {
    let order = |row: &Typical| (row.others, row.table_rank, std::cmp::Reverse(row.members));
    rows.sort_by(|a, b| order(a).cmp(&order(b)).then_with(|| (&a.table, &a.name).cmp(&(&b.table, &b.name))));
    let mut chosen: Vec<&Typical> = Vec::new();
    // First what is not said yet, of different tables.
    for row in &rows {
        let is_said =
            chosen.iter().any(|other| other.table == row.table || row.name.contains(other.name.as_str()));
        if chosen.len() < ROWS && !is_said {
            chosen.push(row);
        }
    }
    let names: Vec<String> = chosen.iter().map(|row| format!("{} {}", row.table, row.name)).collect();
    let others: u64 = chosen.iter().map(|row| row.others).max()?;
    let have = if others == 0 { "no other host has" } else { "hardly any other host has" };
    let them = if chosen.len() == 1 { "it" } else { "them" };
    Some(format!("{}; {have} {them}", names.join(", ")))
}

/// The first telling value of a row: texts as they are, numbers with the name of their column.
pub(in super::super) fn row_name(lines: &Lines, line: usize) -> Option<String> {
    let named = ["name", "id", "username", "path", "command"];
    let rank = |name: &str| named.iter().position(|known| *known == name).unwrap_or(named.len());
    let mut columns: Vec<&str> =
        lines.spec.identity(Strength::Loose).map(|column| column.name.as_str()).collect();
    if columns.is_empty() {
        columns.extend(
            lines.spec.columns.iter().filter(|column| column.role == Role::Identity).map(|c| c.name.as_str()),
        );
    }
    columns.sort_by_key(|name| rank(name));
    let value = |name: &&str| lines.value(line, name).filter(|value| !value.is_empty());
    let port =
        columns.contains(&"port").then(|| value(&"port")).flatten().map(|port| format!(" on port {port}"));
    columns.iter().find_map(|name| value(name).map(|value| (*name, value))).map(|(name, value)| {
        let value = shortened(&value);
        match value.parse::<f64>() {
            Ok(_) => format!("{name} {value}"),
            Err(_) => format!("{value}{}", port.unwrap_or_default()),
        }
    })
}

fn shortened(value: &str) -> String {
    match value.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}
