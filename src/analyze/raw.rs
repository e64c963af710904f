//! Rows as collected: of the stored rows only those are read that findings show.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type};
use serde_json::Value;

use super::fleet::column;
use super::lines::Id;
use crate::catalog::{ColumnSpec, OWN_COLUMNS, Role, TableSpec};
use crate::error::Result;
use crate::model::Row;
use crate::store::{FileKind, Manifest, RowsRead, Store, WantedRows};

/// Raw rows by host and strict id.
pub(super) type RawRows = HashMap<(String, Id), Row>;

/// The wanted rows of a table, the first of those that are alike, and what was read for them.
pub(super) async fn raw_rows(
    (store, manifest): (&Store, &Manifest),
    spec: &TableSpec,
    wanted: WantedRows,
) -> Result<(RawRows, RowsRead)> {
    let (mut found, mut read) = (RawRows::new(), RowsRead::default());
    if wanted.is_empty() {
        return Ok((found, read));
    }
    let wanted = Arc::new(wanted);
    let is_of_table =
        |kind: FileKind, table: Option<&String>| kind == FileKind::Rows && table == Some(&spec.name);
    for file in manifest.files.iter().filter(|file| is_of_table(file.kind, file.table.as_ref())) {
        read += store.rows_of(file, &wanted, |batch| note(batch, spec, &mut found)).await?;
    }
    Ok((found, read))
}

fn note(batch: &RecordBatch, spec: &TableSpec, found: &mut RawRows) -> Result<()> {
    let hosts = column(batch, "host")?.as_string::<i32>();
    let strict = column(batch, "strict_id")?.as_fixed_size_binary();
    for row in 0..batch.num_rows() {
        let Ok(id) = Id::try_from(strict.value(row)) else { continue };
        let key = (hosts.value(row).to_owned(), id);
        found.entry(key).or_insert_with(|| raw_row(batch, row, spec));
    }
    Ok(())
}

/// A row in the order in which it is shown: identity first, then what is comparable, then the rest; unknown values
/// are left out.
fn raw_row(batch: &RecordBatch, row: usize, spec: &TableSpec) -> Row {
    let rank = |column: &&ColumnSpec| match column.role {
        Role::Identity => 0,
        Role::Context => 1,
        Role::Measure | Role::Volatile => 2,
    };
    let mut columns: Vec<&ColumnSpec> = spec.columns.iter().collect();
    columns.sort_by_key(rank);
    let declared = columns.iter().map(|column| column.name.as_str());
    let schema = batch.schema();
    let unknown = schema.fields().iter().map(|field| field.name().as_str()).filter(|name| {
        *name == "extra" || (spec.column(name).is_none() && !OWN_COLUMNS.contains(name) && *name != "hosts")
    });
    declared
        .chain(unknown)
        .filter_map(|name| {
            Some((name.to_owned(), cell(batch.column_by_name(name)?, row, spec.column(name))?))
        })
        .collect()
}

/// What the schema declares as another type than the file has is text.
fn cell(array: &ArrayRef, row: usize, declared: Option<&ColumnSpec>) -> Option<Value> {
    if declared.is_some_and(|column| column.kind.data_type() != *array.data_type()) {
        return value(&cast(&array.slice(row, 1), &DataType::Utf8).ok()?, 0);
    }
    value(array, row)
}

fn value(array: &dyn Array, row: usize) -> Option<Value> {
    if array.is_null(row) {
        return None;
    }
    match array.data_type() {
        DataType::Utf8 => Some(array.as_string::<i32>().value(row).into()),
        DataType::Int64 => Some(array.as_primitive::<Int64Type>().value(row).into()),
        DataType::Float64 => Some(array.as_primitive::<Float64Type>().value(row).into()),
        _ => None,
    }
}
