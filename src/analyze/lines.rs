//! The prevalence of one table: its distinct rows, grouped by loose and strict id, with the hosts that have them.

use std::collections::HashMap;

use datafusion::arrow::array::{AsArray, RecordBatch};
use roaring::RoaringBitmap;

use super::fleet::{TableAnswers, column, of_snapshot};
use super::of_rows;
use crate::catalog::{ColumnSpec, Strength, TableSpec, is_table_name};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::identity::{ID_BYTES, evened_out};
use crate::store::{FileEntry, FileKind, Manifest};

/// A 128-bit id.
pub(super) type Id = [u8; ID_BYTES as usize];

/// One distinct row.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// Where its values are: which batch, which row of it.
    pub(super) at: (usize, usize),
    pub(super) loose: Id,
    pub(super) strict: Id,
    pub(super) members: RoaringBitmap,
}

/// Lines that share an id.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) id: Id,
    pub(super) lines: Vec<usize>,
    pub(super) members: RoaringBitmap,
}

impl Group {
    fn of(id: Id, number: usize, line: &Line) -> Self {
        Self { id, lines: vec![number], members: line.members.clone() }
    }

    fn add(&mut self, number: usize, line: &Line) {
        self.lines.push(number);
        self.members |= &line.members;
    }
}

/// The distinct rows of one table, sorted by loose and strict id.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) spec: TableSpec,
    pub(super) batches: Vec<RecordBatch>,
    pub(super) lines: Vec<Line>,
}

/// One table of the snapshot: what its hosts have, and who answered.
#[derive(Debug)]
pub(super) struct Loaded<'a> {
    pub(super) lines: Lines,
    pub(super) answers: &'a TableAnswers,
}

impl Loaded<'_> {
    pub(super) fn name(&self) -> &str {
        &self.lines.spec.name
    }
}

const PREVALENCE: &str = include_str!("../../sql/steps/prevalence.sql");

impl Lines {
    /// The lines of a table; none for a table of which no host had a row.
    pub(super) async fn load(engine: &Engine, manifest: &Manifest, spec: TableSpec) -> Result<Self> {
        let is_of_table =
            |file: &FileEntry| file.kind == FileKind::Prevalence && file.table.as_ref() == Some(&spec.name);
        if !manifest.files.iter().any(is_of_table) {
            return Ok(Self { spec, batches: Vec::new(), lines: Vec::new() });
        }
        if !is_table_name(&spec.name) {
            return Err(Error::internal(format!("`{}` is no table name", spec.name)));
        }
        // An identifier cannot be a parameter; it was checked above.
        let sql = PREVALENCE.replace("prev.table_name", &format!("prev.{}", spec.name));
        let batches = engine.collect(&sql, of_snapshot(manifest.snapshot)).await?;
        Self::of_batches(spec, batches)
    }

    /// The same, made again of the rows of the table: with the same ids and hosts. Where a host's own name stands in a
    /// value, prevalence has a placeholder; here the value is that of one of the hosts.
    pub(super) async fn load_of_rows(engine: &Engine, manifest: &Manifest, spec: TableSpec) -> Result<Self> {
        let is_of_table =
            |file: &FileEntry| file.kind == FileKind::Prevalence && file.table.as_ref() == Some(&spec.name);
        if !manifest.files.iter().any(is_of_table) {
            return Ok(Self { spec, batches: Vec::new(), lines: Vec::new() });
        }
        let sql = of_rows::question(engine, manifest, &spec).await?;
        let batches = engine.collect(&sql, of_snapshot(manifest.snapshot)).await?;
        Self::of_batches(spec, batches)
    }

    fn of_batches(spec: TableSpec, batches: Vec<RecordBatch>) -> Result<Self> {
        let mut lines = Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
        for (number, batch) in batches.iter().enumerate() {
            let loose = column(batch, "loose_id")?.as_fixed_size_binary();
            let strict = column(batch, "strict_id")?.as_fixed_size_binary();
            let members = column(batch, "members")?.as_binary::<i32>();
            for row in 0..batch.num_rows() {
                lines.push(Line {
                    at: (number, row),
                    loose: id(loose.value(row))?,
                    strict: id(strict.value(row))?,
                    members: bitmap(members.value(row))?,
                });
            }
        }
        Ok(Self { spec, batches, lines })
    }

    /// Groups by loose id.
    pub(super) fn loose(&self) -> Vec<Group> {
        self.runs(0..self.lines.len(), |line| line.loose)
    }

    /// Groups by strict id within a group.
    pub(super) fn strict(&self, within: &Group) -> Vec<Group> {
        self.runs(within.lines.iter().copied(), |line| line.strict)
    }

    /// Lines come sorted by their ids, so that equal ones stand together.
    fn runs(&self, numbers: impl Iterator<Item = usize>, key: fn(&Line) -> Id) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for number in numbers {
            let line = &self.lines[number];
            match groups.last_mut().filter(|group| group.id == key(line)) {
                Some(group) => group.add(number, line),
                None => groups.push(Group::of(key(line), number, line)),
            }
        }
        groups
    }

    /// Groups by the identity columns of that strength but for `without`: how a host whose agent lacks columns is
    /// compared with those that have them.
    pub(super) fn grouped_without(
        &self,
        numbers: &[usize],
        strength: Strength,
        without: &[&str],
    ) -> Vec<Group> {
        let columns: Vec<&ColumnSpec> =
            self.spec.identity(strength).filter(|column| !without.contains(&column.name.as_str())).collect();
        let mut groups: HashMap<Id, Group> = HashMap::new();
        for &number in numbers {
            let id = self.projected(number, &columns, strength);
            let line = &self.lines[number];
            match groups.get_mut(&id) {
                Some(group) => group.add(number, line),
                None => {
                    groups.insert(id, Group::of(id, number, line));
                }
            }
        }
        let mut groups: Vec<Group> = groups.into_values().collect();
        groups.sort_by_key(|group| group.id);
        groups
    }

    fn projected(&self, number: usize, columns: &[&ColumnSpec], strength: Strength) -> Id {
        let mut hasher = blake3::Hasher::new();
        for column in columns {
            let value = self.value(number, &column.name);
            let value = value.as_deref().map(|value| evened_out(value, column, strength));
            let value = value.as_deref().unwrap_or("\0unknown");
            hasher.update(&(value.len() as u64).to_le_bytes()).update(value.as_bytes());
        }
        let mut id = Id::default();
        id.copy_from_slice(&hasher.finalize().as_bytes()[..ID_BYTES as usize]);
        id
    }

    /// The line of a group that most hosts have.
    pub(super) fn most_common(&self, group: &Group) -> usize {
        let most = group.lines.iter().copied().max_by_key(|number| self.lines[*number].members.len());
        most.unwrap_or_default()
    }

    /// A line of a group that this host has.
    pub(super) fn line_of(&self, group: &Group, host: u32) -> Option<usize> {
        group.lines.iter().copied().find(|number| self.lines[*number].members.contains(host))
    }

    /// A value of a line; `None` when it is unknown.
    pub(super) fn value(&self, line: usize, column: &str) -> Option<String> {
        let (batch, row) = self.lines[line].at;
        super::fleet::cell(&self.batches[batch], column, row)
    }
}

pub(super) fn id(bytes: &[u8]) -> Result<Id> {
    bytes.try_into().map_err(|source| Error::data("an id has not 16 bytes").source(source))
}

pub(super) fn bitmap(bytes: &[u8]) -> Result<RoaringBitmap> {
    RoaringBitmap::deserialize_from(bytes)
        .map_err(|source| Error::data("prevalence holds a broken bitmap").source(source))
}
