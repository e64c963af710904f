//! The prevalence of one table: its distinct rows, grouped by loose and strict id, with the hosts that have them.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use datafusion::arrow::datatypes::{DataType, SchemaRef};

use super::cells::Cells;
use super::fleet::{TableAnswers, of_snapshot};
use super::members::Members;
use super::of_rows;
use crate::catalog::{ColumnSpec, OWN_COLUMNS, Role, Strength, TableSpec};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::identity::{ID_BYTES, evened_out};
use crate::model::Row;
use crate::store::{ColumnFile, FileEntry, FileKind, Manifest, Store};

/// A 128-bit id.
pub(super) type Id = [u8; ID_BYTES as usize];

/// One distinct row.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) loose: Id,
    pub(super) strict: Id,
    pub(super) members: Members,
}

/// Lines that share an id.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) id: Id,
    pub(super) lines: Numbers,
    pub(super) members: Members,
}

/// Numbers of lines: those in a row, then others.
#[derive(Debug, Clone, Default)]
pub(super) struct Numbers {
    run: Range<usize>,
    others: Vec<usize>,
}

impl Numbers {
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        self.run.clone().chain(self.others.iter().copied())
    }

    /// The first line.
    pub(super) fn first(&self) -> Option<usize> {
        self.iter().next()
    }

    /// The last line; 0 where there is none.
    pub(super) fn last(&self) -> usize {
        self.others.last().copied().unwrap_or_else(|| self.run.end.saturating_sub(1))
    }

    fn push(&mut self, number: usize) {
        match self {
            Self { run, others } if others.is_empty() && Range::is_empty(run) => *run = number..number + 1,
            Self { run, others } if others.is_empty() && run.end == number => run.end += 1,
            Self { others, .. } => others.push(number),
        }
    }
}

/// The distinct rows of one table, sorted by loose and strict id, and of one id those first that most hosts have.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) spec: TableSpec,
    pub(super) lines: Vec<Line>,
    /// In the order in which they are shown: identity first, then what else is comparable, then columns that the
    /// schema does not know.
    pub(super) columns: Vec<Cells>,
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

impl Lines {
    /// The lines of a table; none for a table of which no host had a row.
    pub(super) async fn load(store: &Store, manifest: &Manifest, spec: TableSpec) -> Result<Self> {
        let mut files = Vec::new();
        for file in &manifest.files {
            if file.kind == FileKind::Prevalence && file.table.as_ref() == Some(&spec.name) {
                files.push(Source::File(store.column_file(file).await?));
            }
        }
        Self::of_sources(spec, files).await
    }

    /// The same, made again of the rows of the table: with the same ids and hosts. Where a host's own name stands in a
    /// value, prevalence has a placeholder; here the value is that of one of the hosts.
    pub(super) async fn load_of_rows(engine: &Engine, manifest: &Manifest, spec: TableSpec) -> Result<Self> {
        let is_of_table =
            |file: &FileEntry| file.kind == FileKind::Rows && file.table.as_ref() == Some(&spec.name);
        if !manifest.files.iter().any(is_of_table) {
            return Self::of_sources(spec, Vec::new()).await;
        }
        let sql = of_rows::question(engine, manifest, &spec).await?;
        let batches = engine.collect(&sql, of_snapshot(manifest.snapshot)).await?;
        Self::of_sources(spec, batches.into_iter().map(Source::Batch).collect()).await
    }

    /// The lines themselves, when all of their hosts are among the first `hosts`.
    pub(super) fn of_hosts(self, hosts: usize) -> Result<Self> {
        let is_there = |line: &Line| line.members.max().is_none_or(|last| (last as usize) < hosts);
        if self.lines.iter().all(is_there) {
            return Ok(self);
        }
        let table = self.spec.name.escape_debug();
        Err(Error::data(format!("prevalence of `{table}` names hosts that the snapshot does not have")))
    }

    async fn of_sources(spec: TableSpec, sources: Vec<Source>) -> Result<Self> {
        let read = tokio::task::spawn_blocking(move || Self::read(spec, &sources));
        read.await.map_err(|source| Error::internal("reading prevalence died").source(source))?
    }

    /// Reads the files of a table: one, but for hand-made stores.
    fn read(spec: TableSpec, files: &[Source]) -> Result<Self> {
        let mut lines = Vec::with_capacity(files.iter().map(Source::rows).sum());
        for file in files {
            read_lines(file, &mut lines)?;
        }
        let order = sort(&mut lines);
        let mut read = Self { columns: Vec::new(), spec, lines };
        for name in read.shown(files) {
            let mut arrays = Vec::new();
            for file in files {
                let found = file.column(&name)?;
                let nothing = found.is_empty().then(|| new_null_array(&DataType::Utf8, file.rows()));
                arrays.extend(found.into_iter().chain(nothing));
            }
            read.add_column(&name, &arrays, order.as_deref())?;
        }
        Ok(read)
    }

    fn add_column(&mut self, name: &str, arrays: &[ArrayRef], order: Option<&[u32]>) -> Result<()> {
        let mut cells = Cells::new(name, self.spec.column(name).map(|column| column.kind), arrays)?;
        if let Some(order) = order {
            cells.reorder(order);
        }
        self.columns.push(cells);
        Ok(())
    }

    /// Names of the comparable columns that the files have, in the order in which they are shown.
    fn shown(&self, files: &[Source]) -> Vec<String> {
        let is_there = |name: &&str| files.iter().any(|file| file.schema().index_of(name).is_ok());
        let mut names: Vec<&str> = comparable(&self.spec).into_iter().filter(is_there).collect();
        for field in files.iter().flat_map(|file| file.schema().fields()) {
            let name = field.name().as_str();
            let is_ours = name == "hosts" || (OWN_COLUMNS.contains(&name) && name != "extra");
            if !is_ours && self.spec.column(name).is_none() && !names.contains(&name) {
                names.push(name);
            }
        }
        names.into_iter().map(ToOwned::to_owned).collect()
    }

    /// Lines as tests make them; each column is in one piece.
    #[cfg(test)]
    pub(super) fn made_of(
        spec: TableSpec,
        mut lines: Vec<Line>,
        columns: &HashMap<String, ArrayRef>,
    ) -> Self {
        let order = sort(&mut lines);
        let mut made = Self { columns: Vec::new(), spec, lines };
        let names: Vec<String> = comparable(&made.spec).into_iter().map(ToOwned::to_owned).collect();
        for name in names {
            made.add_column(&name, std::slice::from_ref(&columns[&name]), order.as_deref()).unwrap();
        }
        made
    }

    /// Groups by loose id.
    pub(super) fn loose(&self) -> impl Iterator<Item = Group> {
        self.runs(0..self.lines.len(), |line| line.loose)
    }

    /// Groups by strict id within a group.
    pub(super) fn strict(&self, within: &Group) -> impl Iterator<Item = Group> {
        self.runs(within.lines.iter(), |line| line.strict)
    }

    /// Lines are sorted by their ids, so that equal ones stand together.
    fn runs(
        &self,
        numbers: impl Iterator<Item = usize>,
        key: fn(&Line) -> Id,
    ) -> impl Iterator<Item = Group> {
        let mut numbers = numbers.peekable();
        std::iter::from_fn(move || {
            let first = numbers.next()?;
            let mut group = Group::of(key(&self.lines[first]), first, &self.lines[first]);
            while let Some(number) = numbers.next_if(|number| key(&self.lines[*number]) == group.id) {
                group.add(number, &self.lines[number]);
            }
            Some(group)
        })
    }

    /// Whether a line has this loose id.
    pub(super) fn has_loose(&self, id: Id) -> bool {
        self.lines.binary_search_by_key(&id, |line| line.loose).is_ok()
    }

    /// Whether a line has this loose and strict id.
    pub(super) fn has_strict(&self, ids: (Id, Id)) -> bool {
        self.lines.binary_search_by_key(&ids, |line| (line.loose, line.strict)).is_ok()
    }

    /// All lines of this loose id, if there is one.
    pub(super) fn loose_group(&self, id: Id) -> Option<Group> {
        let line = self.lines.partition_point(|line| line.loose < id);
        self.lines.get(line).filter(|line| line.loose == id)?;
        Some(self.thing_of(line))
    }

    /// The thing that a line is of: all lines with its loose id.
    pub(super) fn thing_of(&self, line: usize) -> Group {
        self.around(line, |line| line.loose)
    }

    /// The content that a line is of: all lines with its strict id.
    pub(super) fn content_of(&self, line: usize) -> Group {
        self.around(line, |line| line.strict)
    }

    fn around(&self, line: usize, key: fn(&Line) -> Id) -> Group {
        let id = key(&self.lines[line]);
        let before = self.lines[..line].iter().rev().take_while(|other| key(other) == id).count();
        let first = line - before;
        let mut group = Group::of(id, first, &self.lines[first]);
        let others = self.lines.iter().enumerate().skip(first + 1);
        others.take_while(|(_, other)| key(other) == id).for_each(|(number, other)| group.add(number, other));
        group
    }

    /// Groups by the identity columns of that strength but for `without`: how a host whose agent lacks columns is
    /// compared with those that have them.
    pub(super) fn grouped_without(&self, strength: Strength, without: &[&str]) -> Vec<Group> {
        let columns: Vec<&ColumnSpec> =
            self.spec.identity(strength).filter(|column| !without.contains(&column.name.as_str())).collect();
        let mut groups: HashMap<Id, Group> = HashMap::new();
        for (number, line) in self.lines.iter().enumerate() {
            let id = self.projected(number, &columns, strength);
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
            let value = self.text(number, &column.name);
            let value = value.map(|value| evened_out(value, column, strength));
            let value = value.as_deref().unwrap_or("\0unknown");
            hasher.update(&(value.len() as u64).to_le_bytes()).update(value.as_bytes());
        }
        let mut id = Id::default();
        id.copy_from_slice(&hasher.finalize().as_bytes()[..ID_BYTES as usize]);
        id
    }

    /// The line of a group that most hosts have.
    pub(super) fn most_common(&self, group: &Group) -> usize {
        let most = group.lines.iter().max_by_key(|number| self.lines[*number].members.len());
        most.unwrap_or_default()
    }

    /// A line of a group that this host has.
    pub(super) fn line_of(&self, lines: &Numbers, host: u32) -> Option<usize> {
        lines.iter().find(|number| self.lines[*number].members.contains(host))
    }

    /// A column; none when no line has it.
    pub(super) fn cells(&self, column: &str) -> Option<&Cells> {
        self.columns.iter().find(|cells| cells.name == column)
    }

    /// A value of a line; `None` when it is unknown.
    pub(super) fn text(&self, line: usize, column: &str) -> Option<&str> {
        self.cells(column)?.text(line)
    }

    /// As [`Self::text`], to keep.
    pub(super) fn value(&self, line: usize, column: &str) -> Option<String> {
        self.text(line, column).map(ToOwned::to_owned)
    }

    /// The values of a line: own names are placeholders in it.
    pub(super) fn row(&self, line: usize) -> Row {
        self.columns.iter().filter_map(|cells| Some((cells.name.clone(), cells.json(line)?))).collect()
    }
}

impl Group {
    fn of(id: Id, number: usize, line: &Line) -> Self {
        let lines = Numbers { run: number..number + 1, others: Vec::new() };
        Self { id, lines, members: line.members.clone() }
    }

    fn add(&mut self, number: usize, line: &Line) {
        self.lines.push(number);
        self.members.add(&line.members);
    }
}

/// Comparable columns of the schema, those of the identity first.
fn comparable(spec: &TableSpec) -> Vec<&str> {
    let mut columns: Vec<&ColumnSpec> = spec.columns.iter().filter(|column| column.is_comparable()).collect();
    columns.sort_by_key(|column| column.role != Role::Identity);
    columns.into_iter().map(|column| column.name.as_str()).collect()
}

/// Where lines come from.
pub(super) enum Source {
    /// Stored prevalence.
    File(ColumnFile),
    /// A part of an answer.
    Batch(RecordBatch),
}

impl Source {
    fn schema(&self) -> &SchemaRef {
        match self {
            Self::File(file) => file.schema(),
            Self::Batch(batch) => batch.schema_ref(),
        }
    }

    fn rows(&self) -> usize {
        match self {
            Self::File(file) => file.rows(),
            Self::Batch(batch) => batch.num_rows(),
        }
    }

    /// One column in pieces; none when there is no such column.
    fn column(&self, name: &str) -> Result<Vec<ArrayRef>> {
        match self {
            Self::File(file) => file.column(name),
            Self::Batch(batch) => Ok(batch.column_by_name(name).cloned().into_iter().collect()),
        }
    }

    /// As [`Self::column`], one piece after the other.
    fn each_of_column(&self, name: &str, mut take: impl FnMut(ArrayRef) -> Result<()>) -> Result<()> {
        match self {
            Self::File(file) => file.each_of_column(name, 0..file.rows(), take),
            Self::Batch(batch) => batch.column_by_name(name).cloned().map_or(Ok(()), &mut take),
        }
    }
}

/// Appends the lines of a source.
pub(super) fn read_lines(file: &Source, lines: &mut Vec<Line>) -> Result<()> {
    let empty = Line { loose: Id::default(), strict: Id::default(), members: Members::One(0) };
    let first = lines.len();
    lines.resize(first + file.rows(), empty);
    let lines = &mut lines[first..];
    each(file, "loose_id", lines, |line, ids, row| {
        line.loose = id(ids.as_fixed_size_binary_opt()?.value(row))?;
        Some(())
    })?;
    each(file, "strict_id", lines, |line, ids, row| {
        line.strict = id(ids.as_fixed_size_binary_opt()?.value(row))?;
        Some(())
    })?;
    each(file, "members", lines, |line, members, row| {
        line.members = Members::parse(members.as_binary_opt::<i32>()?.value(row))?;
        Some(())
    })
}

/// Gives each line its cell of a column; a cell is broken where `take` has nothing.
fn each(
    file: &Source,
    column: &str,
    lines: &mut [Line],
    take: impl Fn(&mut Line, &ArrayRef, usize) -> Option<()>,
) -> Result<()> {
    let broken = || Error::data(format!("prevalence has a broken `{column}`"));
    let count = lines.len();
    let mut lines = lines.iter_mut();
    let mut taken = 0;
    file.each_of_column(column, |array| {
        for (row, line) in (0..array.len()).zip(lines.by_ref()) {
            take(line, &array, row).ok_or_else(broken)?;
            taken += 1;
        }
        Ok(())
    })?;
    if taken == count { Ok(()) } else { Err(broken()) }
}

/// Sorts lines, which nearly are; where they were not, from which place each came.
fn sort(lines: &mut Vec<Line>) -> Option<Vec<u32>> {
    let key = |line: &Line| (line.loose, line.strict, Reverse(line.members.len()));
    if lines.is_sorted_by_key(key) {
        return None;
    }
    let mut numbered: Vec<(Line, u32)> = std::mem::take(lines).into_iter().zip(0..).collect();
    numbered.sort_by_key(|(line, _)| key(line));
    let (sorted, order) = numbered.into_iter().unzip();
    *lines = sorted;
    Some(order)
}

pub(super) fn id(bytes: &[u8]) -> Option<Id> {
    bytes.try_into().ok()
}
