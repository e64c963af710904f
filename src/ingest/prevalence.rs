//! Prevalence: one line per distinct row of a table, with the hosts that have it, made while sorted rows stream past.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, FixedSizeBinaryArray, RecordBatch, StringBuilder, UInt32Array,
};
use datafusion::arrow::compute::{concat_batches, take_record_batch};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use roaring::RoaringBitmap;

use super::batches::{GRAIN_ID, Layout};
use super::hosts::Fleet;
use crate::catalog::ColumnSpec;
use crate::error::{Error, Result};
use crate::identity::{Cells, Id, Identifier, RowIds, without_own_names};

/// Share of the rows that have a value of their own in a column, from which on the column is left out.
const EXPLODES_FROM: f64 = 0.7;
/// With fewer rows nothing is left out: the file is small anyway.
const FEWEST_ROWS: usize = 400;

/// Makes the lines of one table. Feed it batches sorted by loose id, strict id, grain and host.
#[derive(Debug)]
pub(super) struct PrevalenceBuilder<'a> {
    schema: SchemaRef,
    columns: Vec<ColumnSpec>,
    fleet: &'a Fleet,
    /// The line that the next batch may go on with: its first row, and its hosts so far.
    pending: Option<(RecordBatch, RoaringBitmap)>,
}

impl<'a> PrevalenceBuilder<'a> {
    pub(super) fn new(layout: &Layout, identifier: &Identifier, fleet: &'a Fleet) -> Self {
        let columns: Vec<ColumnSpec> = identifier
            .grain_columns()
            .filter(|column| layout.schema.index_of(&column.name).is_ok())
            .cloned()
            .collect();
        let mut fields: Vec<Field> = columns
            .iter()
            .filter_map(|column| layout.schema.field_with_name(&column.name).ok().cloned())
            .collect();
        for id in ["loose_id", "strict_id"] {
            fields.extend(layout.schema.field_with_name(id).ok().cloned());
        }
        fields.push(Field::new("hosts", DataType::UInt32, false));
        fields.push(Field::new("members", DataType::Binary, false));
        Self { schema: Arc::new(Schema::new(fields)), columns, fleet, pending: None }
    }

    /// The schema of the file.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Takes sorted rows; gives the lines that are complete.
    pub(super) fn push(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let internal = |what: &str| Error::internal(format!("sorted rows have no {what}"));
        let keys = Keys::of(batch).ok_or_else(|| internal("ids"))?;
        let hosts = batch
            .column_by_name("host")
            .and_then(|array| array.as_string_opt::<i32>())
            .ok_or_else(|| internal("host"))?;
        let mut starts: Vec<u32> = Vec::new();
        let mut members: Vec<RoaringBitmap> = Vec::new();
        let mut last = self.pending.as_ref().and_then(|(row, _)| Keys::of(row)).map(|keys| keys.owned(0));
        for row in 0..batch.num_rows() {
            let ordinal = self.fleet.ordinal(hosts.value(row)).ok_or_else(|| internal("known host"))?;
            if !last.as_ref().is_some_and(|last| keys.is(row, last)) {
                last = Some(keys.owned(row));
                starts.push(row as u32);
                members.push(RoaringBitmap::new());
            }
            match (members.last_mut(), &mut self.pending) {
                (Some(bitmap), _) | (None, Some((_, bitmap))) => bitmap.insert(ordinal),
                (None, None) => return Err(internal("first line")),
            };
        }
        self.advance(batch, starts, members)
    }

    /// The last line.
    pub(super) fn finish(mut self) -> Result<RecordBatch> {
        match self.pending.take() {
            Some((row, bitmap)) => self.lines(&row, &[bitmap]),
            None => Ok(RecordBatch::new_empty(Arc::clone(&self.schema))),
        }
    }

    /// All lines but the last are complete; the last waits.
    fn advance(
        &mut self,
        batch: &RecordBatch,
        starts: Vec<u32>,
        mut members: Vec<RoaringBitmap>,
    ) -> Result<RecordBatch> {
        let Some(last_members) = members.pop() else {
            return Ok(RecordBatch::new_empty(Arc::clone(&self.schema)));
        };
        let firsts = take_record_batch(batch, &UInt32Array::from(starts)).map_err(cannot)?;
        let complete = firsts.slice(0, members.len());
        // Taken on its own, so that a waiting line does not keep its whole batch.
        let waiting =
            take_record_batch(&firsts, &UInt32Array::from(vec![members.len() as u32])).map_err(cannot)?;
        let before = self.pending.replace((waiting, last_members));
        let Some((row, bitmap)) = before else { return self.lines(&complete, &members) };
        members.insert(0, bitmap);
        let rows = concat_batches(batch.schema_ref(), [&row, &complete]).map_err(cannot)?;
        self.lines(&rows, &members)
    }

    fn lines(&self, firsts: &RecordBatch, members: &[RoaringBitmap]) -> Result<RecordBatch> {
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        for column in &self.columns {
            arrays.push(self.without_own_names(firsts, column));
        }
        for id in ["loose_id", "strict_id"] {
            arrays.extend(firsts.column_by_name(id).cloned());
        }
        let counts = members.iter().map(|bitmap| bitmap.len() as u32);
        arrays.push(Arc::new(UInt32Array::from_iter_values(counts)));
        arrays.push(Arc::new(serialised(members)?));
        RecordBatch::try_new(Arc::clone(&self.schema), arrays).map_err(cannot)
    }

    fn without_own_names(&self, firsts: &RecordBatch, column: &ColumnSpec) -> ArrayRef {
        let Some(array) = firsts.column_by_name(&column.name) else {
            return datafusion::arrow::array::new_null_array(&column.kind.data_type(), firsts.num_rows());
        };
        let (Some(texts), Some(hosts)) = (
            array.as_string_opt::<i32>(),
            firsts.column_by_name("host").and_then(|hosts| hosts.as_string_opt::<i32>()),
        ) else {
            return Arc::clone(array);
        };
        let mut builder = StringBuilder::new();
        for row in 0..texts.len() {
            let own = self.fleet.own_names(hosts.value(row));
            let text = texts.is_valid(row).then(|| without_own_names(texts.value(row), column, own));
            builder.append_option(text);
        }
        Arc::new(builder.finish())
    }
}

fn cannot(source: datafusion::arrow::error::ArrowError) -> Error {
    Error::internal("cannot build prevalence").source(source)
}

/// What tells lines apart. Not the grain alone: where a column of the identity is left out of it, rows of one grain may
/// have several ids.
struct Keys<'a>([&'a FixedSizeBinaryArray; 3]);

impl<'a> Keys<'a> {
    fn of(batch: &'a RecordBatch) -> Option<Self> {
        let ids = |name| batch.column_by_name(name)?.as_fixed_size_binary_opt();
        Some(Self([ids(GRAIN_ID)?, ids("strict_id")?, ids("loose_id")?]))
    }

    fn owned(&self, row: usize) -> [Vec<u8>; 3] {
        self.0.map(|ids| ids.value(row).to_vec())
    }

    fn is(&self, row: usize, key: &[Vec<u8>; 3]) -> bool {
        self.0.iter().zip(key).all(|(ids, key)| ids.value(row) == key)
    }
}

fn serialised(members: &[RoaringBitmap]) -> Result<datafusion::arrow::array::BinaryArray> {
    let mut builder = BinaryBuilder::new();
    let mut bytes = Vec::new();
    for bitmap in members {
        bytes.clear();
        bitmap
            .serialize_into(&mut bytes)
            .map_err(|source| Error::internal("cannot serialise a bitmap").source(source))?;
        builder.append_value(&bytes);
    }
    Ok(builder.finish())
}

/// Columns in which nearly every row has a value of its own, found on a sample of the fleet: they would make a line
/// of nearly every row. The ids keep them; the lines do without.
pub(super) fn exploding_columns(sample: &[Sampled<'_>], columns: &[ColumnSpec]) -> Vec<String> {
    let total: usize = sample.iter().map(|sampled| sampled.rows.len()).sum();
    if total < FEWEST_ROWS {
        return Vec::new();
    }
    let ids: Vec<u32> = strict_ids(sample);
    let base = ids.iter().max().map_or(0, |most| *most as usize + 1);
    if base as f64 / total as f64 > EXPLODES_FROM / 2.0 {
        return Vec::new();
    }
    let explodes = |column: &&ColumnSpec| {
        distinct_pairs(sample, &ids, &column.name)
            .is_some_and(|pairs| pairs as f64 / total as f64 >= EXPLODES_FROM)
    };
    columns.iter().filter(explodes).map(|column| column.name.clone()).collect()
}

/// Rows that the grain of prevalence is settled on.
#[derive(Debug)]
pub(super) struct Sampled<'a> {
    /// The batch that they are in.
    pub(super) batch: &'a RecordBatch,
    /// Its ids.
    pub(super) ids: &'a RowIds,
    /// Which rows.
    pub(super) rows: Range<usize>,
}

/// Of each row of a sample, the number of its strict id.
fn strict_ids(sample: &[Sampled<'_>]) -> Vec<u32> {
    let mut numbers: HashMap<Id, u32> = HashMap::new();
    let rows = sample.iter().flat_map(|sampled| sampled.rows.clone().map(|row| sampled.ids.of(row).strict));
    rows.map(|id| {
        let next = numbers.len() as u32;
        *numbers.entry(id).or_insert(next)
    })
    .collect()
}

/// Distinct pairs of strict id and value of a column; `None` as soon as there cannot be enough of them.
fn distinct_pairs(sample: &[Sampled<'_>], ids: &[u32], column: &str) -> Option<usize> {
    let most_equal = ids.len() - (ids.len() as f64 * EXPLODES_FROM).ceil() as usize;
    let (mut seen, mut number, mut text) = (HashSet::new(), 0, Vec::new());
    for sampled in sample {
        let cells = sampled.batch.column_by_name(column).map(Cells::of);
        for row in sampled.rows.clone() {
            text.clear();
            text.extend_from_slice(&ids[number].to_le_bytes());
            cells.iter().for_each(|cells| cells.append_to(row, &mut text));
            if !seen.contains(text.as_slice()) {
                seen.insert(text.clone());
            }
            number += 1;
            if number - seen.len() > most_equal {
                return None;
            }
        }
    }
    Some(seen.len())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use datafusion::arrow::array::StringArray;
    use datafusion::arrow::compute::{SortColumn, lexsort_to_indices};
    use proptest::prelude::*;

    use super::super::batches::SORTED_BY;
    use super::super::testing::{self, Answered};
    use super::*;
    use crate::decode::Limits;

    /// A row of a host: what it says in `command`, and whether it says its own name in it.
    type Said = (usize, u8, bool);

    /// A fleet and its rows, sorted as parts are.
    struct Sorted {
        fleet: Fleet,
        layout: Layout,
        identifier: Identifier,
        rows: RecordBatch,
    }

    fn host(number: usize) -> String {
        format!("web-{number:04}")
    }

    fn sorted(said: &[Said], without: &[&str]) -> Sorted {
        let spec = testing::spec();
        let mut answers: BTreeMap<String, String> = BTreeMap::new();
        for (number, command, own) in said {
            let host = host(*number);
            let tail = if *own { host.as_str() } else { "x" };
            let row = format!(r#"{{"command":"c{command} {tail}","pid":"{}"}},"#, answers.len());
            answers.entry(host).or_default().push_str(&row);
        }
        let answers: Vec<Answered> = answers
            .into_iter()
            .map(|(host, rows)| Answered::new(&host, &format!("[{}]", rows.trim_end_matches(','))))
            .collect();
        let dir = tempfile::tempdir().unwrap();
        let spool = testing::spool(dir.path(), &answers);
        let fleet = Fleet::read(&spool, testing::catalog(), &Limits::default()).unwrap();
        let layout = Layout::new(&spec, spool.index());
        let without: Vec<String> = without.iter().map(ToString::to_string).collect();
        let identifier = Identifier::new(&spec, &layout.table_columns, &without);
        let batches: Vec<RecordBatch> = answers
            .iter()
            .map(|answer| {
                testing::stamped(&spec, &layout, (&identifier, fleet.own_names(&answer.host)), answer)
            })
            .collect();
        let rows = concat_batches(&layout.schema, &batches).unwrap();
        let by: Vec<SortColumn> = SORTED_BY
            .iter()
            .map(|name| SortColumn { values: Arc::clone(rows.column_by_name(name).unwrap()), options: None })
            .collect();
        let order = lexsort_to_indices(&by, None).unwrap();
        Sorted { rows: take_record_batch(&rows, &order).unwrap(), fleet, layout, identifier }
    }

    impl Sorted {
        /// Command, ids and hosts of each line, from batches that end after each of `ends`.
        fn lines(&self, ends: &[usize]) -> Vec<(String, Vec<u8>, BTreeSet<u32>)> {
            let mut builder = PrevalenceBuilder::new(&self.layout, &self.identifier, &self.fleet);
            let mut batches = Vec::new();
            let mut start = 0;
            for end in ends.iter().chain([&self.rows.num_rows()]) {
                let end = (*end).clamp(start, self.rows.num_rows());
                batches.push(builder.push(&self.rows.slice(start, end - start)).unwrap());
                start = end;
            }
            batches.push(builder.finish().unwrap());
            batches.iter().flat_map(lines_of).collect()
        }

        /// The same without any cleverness.
        fn naive(&self) -> BTreeMap<(String, Vec<u8>), BTreeSet<u32>> {
            let (commands, hosts) = (text(&self.rows, "command"), text(&self.rows, "host"));
            let ids = self.rows.column_by_name("strict_id").unwrap().as_fixed_size_binary();
            let mut lines: BTreeMap<(String, Vec<u8>), BTreeSet<u32>> = BTreeMap::new();
            for row in 0..self.rows.num_rows() {
                let command = commands.value(row).replace(hosts.value(row), "<self>");
                let ordinal = self.fleet.ordinal(hosts.value(row)).unwrap();
                lines.entry((command, ids.value(row).to_vec())).or_default().insert(ordinal);
            }
            lines
        }
    }

    fn text<'a>(batch: &'a RecordBatch, column: &str) -> &'a StringArray {
        batch.column_by_name(column).unwrap().as_string()
    }

    fn lines_of(batch: &RecordBatch) -> Vec<(String, Vec<u8>, BTreeSet<u32>)> {
        let ids = batch.column_by_name("strict_id").unwrap().as_fixed_size_binary();
        let members = batch.column_by_name("members").unwrap().as_binary::<i32>();
        let hosts = batch.column_by_name("hosts").unwrap();
        let hosts = hosts.as_primitive::<datafusion::arrow::datatypes::UInt32Type>();
        let commands = batch.column_by_name("command").map(|array| array.as_string::<i32>());
        let line = |row| {
            let bitmap = RoaringBitmap::deserialize_from(members.value(row)).unwrap();
            assert_eq!(bitmap.len(), u64::from(hosts.value(row)));
            let command = commands.map_or("", |commands| commands.value(row)).to_owned();
            (command, ids.value(row).to_vec(), bitmap.iter().collect())
        };
        (0..batch.num_rows()).map(line).collect()
    }

    #[test]
    fn a_line_goes_on_across_batches() {
        let sorted = sorted(&[(0, 1, false), (1, 1, false), (2, 1, false)], &[]);
        for ends in [vec![], vec![1], vec![1, 2], vec![0, 1, 1, 3]] {
            let lines = sorted.lines(&ends);
            assert_eq!(lines.len(), 1, "{ends:?}");
            assert_eq!(lines[0].2, BTreeSet::from([0, 1, 2]), "{ends:?}");
        }
    }

    #[test]
    fn a_row_that_a_host_says_twice_counts_once() {
        let lines = sorted(&[(0, 1, false), (0, 1, false), (1, 2, false)], &[]).lines(&[1]);
        let hosts: Vec<usize> = lines.iter().map(|line| line.2.len()).collect();
        assert_eq!(hosts, [1, 1]);
    }

    #[test]
    fn rows_that_differ_by_own_names_are_one_line() {
        let lines = sorted(&[(0, 1, true), (1, 1, true), (2, 1, true)], &[]).lines(&[]);
        assert_eq!(lines.len(), 1);
        assert_eq!((lines[0].0.as_str(), lines[0].2.len()), ("c1 <self>", 3));
    }

    #[test]
    fn no_rows_are_no_lines() {
        assert!(sorted(&[(0, 1, false)], &[]).lines(&[0, 0])[1..].is_empty());
        let sorted = sorted(&[(0, 1, false)], &[]);
        let builder = PrevalenceBuilder::new(&sorted.layout, &sorted.identifier, &sorted.fleet);
        assert_eq!(builder.finish().unwrap().num_rows(), 0);
    }

    #[test]
    fn different_ids_are_different_lines_even_where_the_grain_lacks_a_column() {
        let lines = sorted(&[(0, 1, false), (1, 2, false), (2, 3, false)], &["command"]).lines(&[]);
        assert_eq!(lines.len(), 3);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_split_gives_what_counting_gives(
            said in prop::collection::vec((0..6_usize, 0..5_u8, any::<bool>()), 1..60),
            mut ends in prop::collection::vec(0..60_usize, 0..12),
        ) {
            ends.sort_unstable();
            let sorted = sorted(&said, &[]);
            let lines = sorted.lines(&ends);
            let found: BTreeMap<_, _> =
                lines.iter().map(|(command, id, hosts)| ((command.clone(), id.clone()), hosts.clone())).collect();
            prop_assert_eq!(found.len(), lines.len(), "a line is there twice");
            prop_assert_eq!(found, sorted.naive());
        }
    }
}
