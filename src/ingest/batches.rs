//! Rows of one table on their way into a part: one schema for the whole fleet, stamped with host and ids.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, RecordBatch, StringArray, StringBuilder,
    TimestampMillisecondArray, new_null_array,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::catalog::{OWN_COLUMNS, TableSpec, is_column_name};
use crate::error::{Error, Result};
use crate::identity::{ID_BYTES, RowId};
use crate::store::SpoolIndex;

/// Most columns of a table that its schema does not have; further ones are kept under `extra`.
const MOST_UNKNOWN_DECLARED: usize = 64;
/// The same for a table without a schema.
const MOST_UNKNOWN_UNDECLARED: usize = 256;
/// Name of the column that only the sort sees.
pub(super) const GRAIN_ID: &str = "grain_id";
/// What parts are sorted by; hosts last, so that equal rows stand together.
pub(super) const SORTED_BY: [&str; 4] = ["loose_id", "strict_id", GRAIN_ID, "host"];

/// The schema that all batches of a table are brought to.
#[derive(Debug)]
pub(super) struct Layout {
    /// With `grain_id` as the last column.
    pub(super) schema: SchemaRef,
    /// Columns of the table itself, unknown ones included.
    pub(super) table_columns: Vec<String>,
}

impl Layout {
    pub(super) fn new(spec: &TableSpec, index: &SpoolIndex) -> Self {
        let mut fields: Vec<Field> =
            spec.arrow_schema().fields().iter().map(|field| field.as_ref().clone()).collect();
        for name in known_unknowns(spec, index) {
            fields.push(Field::new(name, DataType::Utf8, true));
        }
        let table_columns = fields.iter().map(|field| field.name().clone()).collect();
        let id = || DataType::FixedSizeBinary(ID_BYTES);
        fields.push(Field::new("extra", DataType::Utf8, true));
        fields.push(Field::new("host", DataType::Utf8, false));
        fields.push(Field::new("collected_at", timestamp(), false));
        fields.push(Field::new("loose_id", id(), false));
        fields.push(Field::new("strict_id", id(), false));
        fields.push(Field::new(GRAIN_ID, id(), false));
        Self { schema: Arc::new(Schema::new(fields)), table_columns }
    }

    /// The schema of a part: without the grain.
    pub(super) fn part_schema(&self) -> SchemaRef {
        let fields: Vec<Field> = self.schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        let kept = fields.len() - 1;
        Arc::new(Schema::new(fields.into_iter().take(kept).collect::<Vec<_>>()))
    }

    /// The schema of rows that nobody has put a host to: the table's own columns and `extra`.
    fn bare_schema(&self) -> SchemaRef {
        let bare = self.schema.fields().iter().take(self.table_columns.len() + 1).cloned();
        Arc::new(Schema::new(bare.collect::<Vec<_>>()))
    }

    /// Rows of the table's own columns, in which nothing is `extra`.
    pub(super) fn bare(&self, mut columns: Vec<ArrayRef>) -> Result<RecordBatch> {
        let rows = columns.first().map_or(0, |column| column.len());
        columns.push(new_null_array(&DataType::Utf8, rows));
        RecordBatch::try_new(self.bare_schema(), columns).map_err(no_fit)
    }

    /// Brings a decoded batch to this schema; nothing is dropped: a column without a place goes to `extra`.
    pub(super) fn fit(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let homeless: Vec<(&str, &StringArray)> = batch
            .schema_ref()
            .fields()
            .iter()
            .zip(batch.columns())
            .filter(|(field, _)| field.name() != "extra" && !self.table_columns.contains(field.name()))
            .filter_map(|(field, array)| Some((field.name().as_str(), array.as_string_opt::<i32>()?)))
            .collect();
        let schema = self.bare_schema();
        let column = |field: &Arc<Field>| match field.name().as_str() {
            "extra" => extra(batch, &homeless),
            name => {
                batch.column_by_name(name).cloned().unwrap_or_else(|| new_null_array(field.data_type(), rows))
            }
        };
        let columns = schema.fields().iter().map(column).collect();
        RecordBatch::try_new(schema, columns).map_err(no_fit)
    }

    /// Puts hosts, times and ids to rows.
    pub(super) fn stamp(&self, rows: &RecordBatch, stamps: Stamps) -> Result<RecordBatch> {
        let Stamps { hosts, millis, loose, strict, grain } = stamps;
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(hosts));
        columns.push(Arc::new(TimestampMillisecondArray::from(millis).with_timezone("UTC")));
        for ids in [loose, strict, grain] {
            columns
                .push(Arc::new(FixedSizeBinaryArray::try_new(ID_BYTES, ids.into(), None).map_err(no_fit)?));
        }
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(no_fit)
    }
}

/// What is said of each row beside its own columns.
#[derive(Debug)]
pub(super) struct Stamps {
    hosts: StringArray,
    millis: Vec<i64>,
    loose: Vec<u8>,
    strict: Vec<u8>,
    grain: Vec<u8>,
}

impl Stamps {
    /// Of rows one after another: host, milliseconds since 1970, ids.
    pub(super) fn of<'a>(rows: impl ExactSizeIterator<Item = (&'a str, i64, &'a RowId)>) -> Self {
        let count = rows.len();
        let mut hosts = StringBuilder::with_capacity(count, count * 20);
        let ids = || Vec::with_capacity(count * ID_BYTES as usize);
        let (mut millis, mut loose, mut strict, mut grain) = (Vec::with_capacity(count), ids(), ids(), ids());
        for (host, at, id) in rows {
            hosts.append_value(host);
            millis.push(at);
            loose.extend_from_slice(&id.loose);
            strict.extend_from_slice(&id.strict);
            grain.extend_from_slice(&id.grain);
        }
        Self { hosts: hosts.finish(), millis, loose, strict, grain }
    }
}

fn no_fit(source: datafusion::arrow::error::ArrowError) -> Error {
    Error::internal("rows do not fit their table").source(source)
}

/// Milliseconds since 1970, UTC.
pub(super) fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

/// Unknown columns that get a place of their own: those that most payloads have, within a bound that keeps a hostile
/// host from making a table of a million columns.
fn known_unknowns(spec: &TableSpec, index: &SpoolIndex) -> Vec<String> {
    let most = if spec.declared { MOST_UNKNOWN_DECLARED } else { MOST_UNKNOWN_UNDECLARED };
    let mut taken: BTreeSet<String> =
        spec.columns.iter().map(|column| column.name.to_ascii_lowercase()).collect();
    taken.extend(OWN_COLUMNS.iter().map(|name| (*name).to_owned()));
    taken.insert(GRAIN_ID.to_owned());
    let mut found: Vec<(&str, u64)> =
        index.unknown_columns(&spec.name).filter(|(name, _)| is_column_name(name)).collect();
    found.sort_by(|a, b| (b.1, a.0).cmp(&(a.1, b.0)));
    // SQL does not tell `Pid` from `pid`.
    found.retain(|(name, _)| taken.insert(name.to_ascii_lowercase()));
    let mut names: Vec<String> = found.into_iter().take(most).map(|(name, _)| name.to_owned()).collect();
    names.sort();
    names
}

/// The decoder's `extra`, with the cells of columns that have no place added.
fn extra(batch: &RecordBatch, homeless: &[(&str, &StringArray)]) -> ArrayRef {
    let rows = batch.num_rows();
    let decoded = batch.column_by_name("extra").and_then(|array| array.as_string_opt::<i32>());
    if homeless.is_empty() {
        return decoded
            .map_or_else(|| new_null_array(&DataType::Utf8, rows), |array| Arc::new(array.clone()));
    }
    let mut builder = StringBuilder::new();
    for row in 0..rows {
        let before = decoded.filter(|array| array.is_valid(row)).map(|array| array.value(row));
        let mut object: serde_json::Map<String, serde_json::Value> =
            before.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        for (name, array) in homeless.iter().filter(|(_, array)| array.is_valid(row)) {
            object.entry((*name).to_owned()).or_insert_with(|| array.value(row).into());
        }
        let is_empty = object.is_empty();
        builder.append_option((!is_empty).then(|| serde_json::Value::Object(object).to_string()));
    }
    Arc::new(builder.finish())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Answered};
    use super::*;
    use crate::identity::{Identifier, OwnNames};

    /// Each host's answer, stamped.
    fn stamped(answers: &[&str]) -> (Layout, Vec<RecordBatch>) {
        let answers: Vec<Answered> =
            answers.iter().enumerate().map(|(host, json)| Answered::new(&format!("h{host}"), json)).collect();
        let dir = tempfile::tempdir().unwrap();
        let spool = testing::spool(dir.path(), &answers);
        let spec = testing::spec();
        let layout = Layout::new(&spec, spool.index());
        let identifier = Identifier::new(&spec, &layout.table_columns, &[]);
        let own = OwnNames::default();
        let stamp = |answer: &Answered| testing::stamped(&spec, &layout, (&identifier, &own), answer);
        let batches = answers.iter().map(stamp).collect();
        (layout, batches)
    }

    fn cell<'a>(batch: &'a RecordBatch, column: &str) -> Option<&'a str> {
        let texts = batch.column_by_name(column)?.as_string::<i32>();
        texts.is_valid(0).then(|| texts.value(0))
    }

    fn unknown_columns(layout: &Layout) -> Vec<&str> {
        let known = ["command", "size", "pid"];
        layout.table_columns.iter().map(String::as_str).filter(|name| !known.contains(name)).collect()
    }

    #[test]
    fn unknown_columns_get_a_place_and_are_null_where_a_host_has_none() {
        let (layout, batches) = stamped(&[r#"[{"command":"a","newer":"1"}]"#, r#"[{"command":"b"}]"#]);
        assert_eq!(unknown_columns(&layout), ["newer"]);
        assert_eq!((cell(&batches[0], "newer"), cell(&batches[1], "newer")), (Some("1"), None));
        assert_eq!((cell(&batches[0], "extra"), cell(&batches[0], "host")), (None, Some("h0")));
    }

    #[test]
    fn columns_that_differ_in_case_share_one_place_and_nothing_is_lost() {
        let (layout, batches) =
            stamped(&[r#"[{"command":"a","New":"1"}]"#, r#"[{"command":"b","new":"2"}]"#]);
        assert_eq!(unknown_columns(&layout).len(), 1);
        let kept: Vec<String> = batches
            .iter()
            .map(|batch| {
                let [upper, lower, extra] =
                    ["New", "new", "extra"].map(|name| cell(batch, name).unwrap_or(""));
                format!("{upper}{lower}{extra}")
            })
            .collect();
        assert!(kept[0].contains('1') && kept[1].contains('2'), "{kept:?}");
    }

    #[test]
    fn a_column_that_is_called_like_one_of_ours_goes_to_extra() {
        let hostile = r#"[{"command":"a","host":"other","strict_id":"ff","grain_id":"x","COMMAND":"b"}]"#;
        let (layout, batches) = stamped(&[hostile]);
        assert_eq!(unknown_columns(&layout), [""; 0]);
        assert_eq!(cell(&batches[0], "host"), Some("h0"));
        let extra: serde_json::Value = serde_json::from_str(cell(&batches[0], "extra").unwrap()).unwrap();
        let said =
            ["host", "strict_id", "grain_id", "COMMAND"].map(|name| extra[name].as_str().unwrap_or(""));
        assert_eq!(said, ["other", "ff", "x", "b"]);
    }

    #[test]
    fn columns_beyond_the_bound_and_odd_names_go_to_extra() {
        let mut cells: Vec<String> = (0..200).map(|number| format!(r#""c{number}":"{number}""#)).collect();
        cells.push(r#""a b":"odd""#.to_owned());
        let (layout, batches) = stamped(&[&format!(r#"[{{"command":"a",{}}}]"#, cells.join(","))]);
        assert_eq!(unknown_columns(&layout).len(), MOST_UNKNOWN_DECLARED);
        let extra: serde_json::Value = serde_json::from_str(cell(&batches[0], "extra").unwrap()).unwrap();
        assert_eq!(extra["a b"], "odd");
        assert_eq!(extra.as_object().unwrap().len(), 201 - MOST_UNKNOWN_DECLARED);
    }

    #[test]
    fn a_part_has_all_columns_but_the_grain() {
        let (layout, _) = stamped(&[r#"[{"command":"a"}]"#]);
        let part = layout.part_schema();
        assert_eq!(part.fields().len() + 1, layout.schema.fields().len());
        assert!(part.index_of(GRAIN_ID).is_err());
    }
}
