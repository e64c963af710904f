//! The prevalence of one table: its distinct rows, grouped by loose and strict id, with the hosts that have them.

use std::ops::Range;

use datafusion::arrow::array::{AsArray, RecordBatch};
use roaring::RoaringBitmap;

use super::fleet::{column, of_snapshot};
use crate::catalog::{TableSpec, is_table_name};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::identity::ID_BYTES;
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
    pub(super) lines: Range<usize>,
    pub(super) members: RoaringBitmap,
}

/// The distinct rows of one table, sorted by loose and strict id.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) spec: TableSpec,
    pub(super) batches: Vec<RecordBatch>,
    pub(super) lines: Vec<Line>,
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
        self.groups(0..self.lines.len(), |line| line.loose)
    }

    /// Groups by strict id within a group.
    pub(super) fn strict(&self, within: &Group) -> Vec<Group> {
        self.groups(within.lines.clone(), |line| line.strict)
    }

    fn groups(&self, within: Range<usize>, key: fn(&Line) -> Id) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for number in within {
            let line = &self.lines[number];
            match groups.last_mut().filter(|group| group.id == key(line)) {
                Some(group) => {
                    group.lines.end = number + 1;
                    group.members |= &line.members;
                }
                None => groups.push(Group {
                    id: key(line),
                    lines: number..number + 1,
                    members: line.members.clone(),
                }),
            }
        }
        groups
    }

    /// The line of a group that most hosts have.
    pub(super) fn most_common(&self, group: &Group) -> usize {
        group
            .lines
            .clone()
            .max_by_key(|number| self.lines[*number].members.len())
            .unwrap_or(group.lines.start)
    }

    /// A line of a group that this host has.
    pub(super) fn line_of(&self, group: &Group, host: u32) -> Option<usize> {
        group.lines.clone().find(|number| self.lines[*number].members.contains(host))
    }

    /// A value of a line; `None` when it is unknown.
    pub(super) fn value(&self, line: usize, column: &str) -> Option<String> {
        let (batch, row) = self.lines[line].at;
        super::fleet::cell(&self.batches[batch], column, row)
    }
}

fn id(bytes: &[u8]) -> Result<Id> {
    bytes.try_into().map_err(|source| Error::data("an id has not 16 bytes").source(source))
}

fn bitmap(bytes: &[u8]) -> Result<RoaringBitmap> {
    RoaringBitmap::deserialize_from(bytes)
        .map_err(|source| Error::data("prevalence holds a broken bitmap").source(source))
}
