//! Columns of the tables that are the same in every store.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::error::Result;

use crate::store::{FileEntry, Manifest};

/// A moment, to the millisecond, in UTC.
pub(super) fn moment() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

/// Columns that every row of every host ends with.
pub(super) fn row_columns() -> Vec<Field> {
    let mut columns = never_null(&[
        ("host", DataType::Utf8),
        ("collected_at", moment()),
        ("loose_id", DataType::FixedSizeBinary(16)),
        ("strict_id", DataType::FixedSizeBinary(16)),
    ]);
    columns.push(Field::new("extra", DataType::Utf8, true));
    columns
}

/// Columns that every line of prevalence ends with.
pub(super) fn prevalence_columns() -> Vec<Field> {
    never_null(&[
        ("loose_id", DataType::FixedSizeBinary(16)),
        ("strict_id", DataType::FixedSizeBinary(16)),
        ("hosts", DataType::UInt32),
        ("members", DataType::Binary),
    ])
}

/// One line per host and table.
pub(super) fn coverage() -> SchemaRef {
    schema(&[
        ("host", DataType::Utf8),
        ("table_name", DataType::Utf8),
        ("status", DataType::Utf8),
        ("rows", DataType::Int64),
        ("bytes", DataType::Int64),
        ("error", DataType::Utf8),
        ("columns_missing", DataType::Utf8),
        ("started", moment()),
        ("ended", moment()),
        ("osquery_version", DataType::Utf8),
        ("uid", DataType::Int64),
    ])
}

/// One line per host.
pub(super) fn hosts() -> SchemaRef {
    let texts = [
        "host",
        "hostname",
        "os_name",
        "os_version",
        "platform",
        "arch",
        "kernel",
        "osquery_version",
        "instance_id",
        "instance_type",
        "image",
        "zone",
        "lifecycle",
        "cpu_brand",
        "hardware_model",
        "autoscaling_group",
    ];
    let mut columns = vec![("ordinal", DataType::UInt32)];
    columns.extend(texts.map(|name| (name, DataType::Utf8)));
    columns
        .extend(["logical_cores", "physical_memory", "uptime_seconds"].map(|name| (name, DataType::Int64)));
    schema(&columns)
}

/// Results of analyses, as long as nobody registers any.
pub(super) fn findings() -> SchemaRef {
    schema(&[
        ("fleet", DataType::Utf8),
        ("snapshot", DataType::Utf8),
        ("host", DataType::Utf8),
        ("rank", DataType::Int64),
        ("verdict", DataType::Utf8),
        ("id", DataType::Utf8),
        ("table_name", DataType::Utf8),
        ("kind", DataType::Utf8),
        ("score", DataType::Float64),
        ("row", DataType::Utf8),
        ("hosts_with_row", DataType::Int64),
        ("hosts_answered", DataType::Int64),
        ("first_seen", moment()),
        ("attack", DataType::Utf8),
        ("reason", DataType::Utf8),
        ("priors", DataType::Utf8),
    ])
}

/// Named baselines, as long as nobody registers any.
pub(super) fn baselines() -> SchemaRef {
    schema(&[
        ("fleet", DataType::Utf8),
        ("name", DataType::Utf8),
        ("created", moment()),
        ("created_by", DataType::Utf8),
        ("snapshots", DataType::Utf8),
        ("rows", DataType::Int64),
    ])
}

/// One line per committed snapshot.
pub(super) fn snapshots(manifests: &[&Manifest]) -> Result<RecordBatch> {
    let text = |of: fn(&Manifest) -> Option<String>| -> ArrayRef {
        Arc::new(manifests.iter().map(|manifest| of(manifest)).collect::<StringArray>())
    };
    let number = |of: fn(&Manifest) -> u64| -> ArrayRef {
        let numbers = manifests.iter().map(|manifest| i64::try_from(of(manifest)).ok());
        Arc::new(numbers.collect::<Int64Array>())
    };
    let time = |of: fn(&Manifest) -> i64| -> ArrayRef {
        let times =
            TimestampMillisecondArray::from_iter_values(manifests.iter().map(|manifest| of(manifest)));
        Arc::new(times.with_timezone("UTC"))
    };
    let columns = [
        ("snapshot", text(|manifest| Some(manifest.snapshot.to_string()))),
        ("fleet", text(|manifest| Some(manifest.fleet.to_string()))),
        ("dt", text(|manifest| Some(manifest.snapshot.dt()))),
        ("started", time(|manifest| manifest.started.timestamp_millis())),
        ("ended", time(|manifest| manifest.ended.timestamp_millis())),
        ("collector", text(|manifest| Some(manifest.collector.clone()))),
        ("collected_by", text(|manifest| Some(manifest.collected_by.clone()))),
        ("incident", text(|manifest| manifest.incident.clone())),
        ("hosts_asked", number(|manifest| manifest.hosts_asked)),
        ("hosts_answered", number(|manifest| manifest.hosts_answered)),
        ("hosts_failed", number(|manifest| manifest.hosts_failed)),
        ("rows", number(|manifest| manifest.rows)),
        ("bytes", number(|manifest| manifest.files.iter().map(|file| file.bytes).sum())),
        ("tables", number(tables)),
        ("diffy_version", text(|manifest| Some(manifest.diffy_version.clone()))),
    ];
    let described =
        columns.iter().map(|(name, column)| (*name, column.data_type().clone())).collect::<Vec<_>>();
    let arrays = columns.into_iter().map(|(_, column)| column).collect();
    Ok(RecordBatch::try_new(schema(&described), arrays)?)
}

/// How many tables a snapshot has files of.
fn tables(manifest: &Manifest) -> u64 {
    let mut names: Vec<&str> =
        manifest.files.iter().filter_map(|file: &FileEntry| file.table.as_deref()).collect();
    names.sort_unstable();
    names.dedup();
    names.len() as u64
}

fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
    Arc::new(Schema::new(fields(columns)))
}

/// Columns that are never null, in files neither. Said here too: else the engine puts a cast around each, and does not ask
/// the bloom filter of a column that is cast.
fn never_null(columns: &[(&str, DataType)]) -> Vec<Field> {
    columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), false)).collect()
}

fn fields(columns: &[(&str, DataType)]) -> Vec<Field> {
    columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect()
}
