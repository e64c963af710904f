//! Small fleets for the tests of this room: tables by their rows and the hosts that have them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, StringArray};
use roaring::RoaringBitmap;

use super::fleet::{FleetState, TableAnswers};
use super::lines::{Line, Lines, Loaded};
use super::peers::{PeerGroup, PeerGroups};
use crate::catalog::{Catalog, ColumnType, Strength, TableSpec};

/// A row: `name=value`, separated by `|`, and its hosts.
pub(super) type Row = (String, Vec<u32>);

/// Hosts, tables and rows of a made-up snapshot.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    pub(super) state: FleetState,
    rows: BTreeMap<String, Vec<Row>>,
}

impl Fleet {
    /// Hosts `web-0`, `web-1` and so on, each name made from its ordinal.
    pub(super) fn new(hosts: u32, name: impl Fn(u32) -> String) -> Self {
        let state = FleetState { hosts: (0..hosts).map(name).collect(), ..FleetState::default() };
        Self { state, rows: BTreeMap::new() }
    }

    /// A row of a table on some hosts.
    pub(super) fn row(&mut self, table: &str, row: &str, hosts: impl IntoIterator<Item = u32>) {
        let rows = self.rows.entry(table.to_owned()).or_default();
        rows.push((row.to_owned(), hosts.into_iter().collect()));
        let all = RoaringBitmap::from_iter(0..self.state.hosts.len() as u32);
        let by_columns = BTreeMap::from([(String::new(), all.clone())]);
        let answers =
            TableAnswers { answered: all.clone(), heard: all, by_columns, ..TableAnswers::default() };
        self.state.tables.entry(table.to_owned()).or_insert(answers);
    }

    /// A host that did not answer for a table: it has no rows of it.
    pub(super) fn silence(&mut self, table: &str, host: u32) {
        for (_, hosts) in self.rows.get_mut(table).into_iter().flatten() {
            hosts.retain(|other| *other != host);
        }
        if let Some(answers) = self.state.tables.get_mut(table) {
            answers.answered.remove(host);
            answers.heard.remove(host);
            answers.by_columns.values_mut().for_each(|hosts| _ = hosts.remove(host));
        }
    }

    /// A host whose rows of a table come without these columns, separated by commas.
    pub(super) fn without_columns(&mut self, table: &str, columns: &str, host: u32) {
        let answers = self.state.tables.get_mut(table).unwrap();
        answers.by_columns.values_mut().for_each(|hosts| _ = hosts.remove(host));
        answers.by_columns.entry(columns.to_owned()).or_default().insert(host);
    }

    /// Peer groups of the first so many hosts, the next so many and so on.
    pub(super) fn groups(&self, sizes: &[u32]) -> PeerGroups {
        let mut groups = PeerGroups::default();
        for (number, size) in sizes.iter().enumerate() {
            let first = groups.of.len() as u32;
            groups.of.resize((first + size) as usize, Some(number));
            let hosts = RoaringBitmap::from_iter(first..first + size);
            groups.groups.push(PeerGroup { hosts, described_by: format!("group {number}") });
        }
        assert_eq!(groups.of.len(), self.state.hosts.len());
        groups
    }

    /// The tables as the analysis loads them.
    pub(super) fn loaded(&self) -> Vec<Loaded<'_>> {
        let catalog = Catalog::builtin().unwrap();
        let load = |(table, rows): (&String, &Vec<Row>)| Loaded {
            lines: lines(catalog.table(table).unwrap().clone(), rows),
            answers: &self.state.tables[table],
        };
        self.rows.iter().map(load).collect()
    }
}

fn lines(spec: TableSpec, rows: &[Row]) -> Lines {
    let parsed: Vec<BTreeMap<&str, &str>> = rows
        .iter()
        .map(|(row, _)| row.split('|').filter_map(|cell| cell.split_once('=')).collect())
        .collect();
    let columns = spec.columns.iter().map(|column| {
        let cells = parsed.iter().map(|row| row.get(column.name.as_str()).copied());
        let array: ArrayRef = match column.kind {
            ColumnType::Integer => {
                Arc::new(cells.map(|cell| cell.and_then(|cell| cell.parse().ok())).collect::<Int64Array>())
            }
            _ => Arc::new(cells.collect::<StringArray>()),
        };
        (column.name.clone(), array)
    });
    let columns: HashMap<String, ArrayRef> = columns.collect();
    let id = |row: usize, strength: Strength| {
        let mut hasher = blake3::Hasher::new();
        for column in spec.identity(strength) {
            let value = parsed[row].get(column.name.as_str()).copied().unwrap_or("\0");
            hasher.update(&(value.len() as u64).to_le_bytes()).update(value.as_bytes());
        }
        hasher.finalize().as_bytes()[..16].try_into().unwrap()
    };
    let line = |row: usize| Line {
        loose: id(row, Strength::Loose),
        strict: id(row, Strength::Strict),
        members: rows[row].1.iter().copied().collect(),
    };
    Lines::made_of(spec.clone(), (0..rows.len()).map(line).collect(), &columns)
}
