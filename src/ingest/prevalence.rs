//! Prevalence: one line per distinct row of a table, with the hosts that have it, made while sorted rows stream past.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, RecordBatch, StringArray, StringBuilder, UInt32Array,
};
use datafusion::arrow::compute::{concat_batches, take_record_batch};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use roaring::RoaringBitmap;

use super::batches::{GRAIN_ID, Layout};
use super::hosts::Fleet;
use crate::catalog::ColumnSpec;
use crate::error::{Error, Result};
use crate::identity::{Identifier, without_own_names};

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
        let grains = batch
            .column_by_name(GRAIN_ID)
            .and_then(|array| array.as_fixed_size_binary_opt())
            .ok_or_else(|| internal("grain"))?;
        let hosts = batch
            .column_by_name("host")
            .and_then(|array| array.as_string_opt::<i32>())
            .ok_or_else(|| internal("host"))?;
        let mut starts: Vec<u32> = Vec::new();
        let mut members: Vec<RoaringBitmap> = Vec::new();
        let mut last: Vec<u8> = self.pending.as_ref().map(|(row, _)| grain_of(row)).unwrap_or_default();
        for row in 0..batch.num_rows() {
            let ordinal = self.fleet.ordinal(hosts.value(row)).ok_or_else(|| internal("known host"))?;
            if grains.value(row) != last {
                last = grains.value(row).to_vec();
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

fn grain_of(row: &RecordBatch) -> Vec<u8> {
    let grain = row.column_by_name(GRAIN_ID).and_then(|array| array.as_fixed_size_binary_opt());
    grain.map(|array| array.value(0).to_vec()).unwrap_or_default()
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
pub(super) fn exploding_columns(sample: &[RecordBatch], columns: &[ColumnSpec]) -> Vec<String> {
    let rows: usize = sample.iter().map(RecordBatch::num_rows).sum();
    if rows < FEWEST_ROWS {
        return Vec::new();
    }
    let base = distinct(sample, None) as f64;
    let explodes = |column: &&ColumnSpec| {
        let with = distinct(sample, Some(&column.name)) as f64;
        with / rows as f64 >= EXPLODES_FROM && base / rows as f64 <= EXPLODES_FROM / 2.0
    };
    columns.iter().filter(explodes).map(|column| column.name.clone()).collect()
}

/// Distinct strict ids of a sample, or distinct pairs of strict id and the value of a column.
fn distinct(sample: &[RecordBatch], column: Option<&str>) -> usize {
    let mut seen: HashSet<(Vec<u8>, Option<String>)> = HashSet::new();
    for batch in sample {
        let Some(ids) = batch.column_by_name("strict_id").and_then(|array| array.as_fixed_size_binary_opt())
        else {
            continue;
        };
        let texts = column.and_then(|name| batch.column_by_name(name)).and_then(as_text);
        for row in 0..batch.num_rows() {
            let text =
                texts.as_ref().filter(|texts| texts.is_valid(row)).map(|texts| texts.value(row).to_owned());
            seen.insert((ids.value(row).to_vec(), text));
        }
    }
    seen.len()
}

fn as_text(array: &ArrayRef) -> Option<StringArray> {
    let text = datafusion::arrow::compute::cast(array, &DataType::Utf8).ok()?;
    text.as_string_opt::<i32>().cloned()
}
