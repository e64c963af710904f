//! What one host answered, table by table: for the view of one host.

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;

use super::fleet::{column, of_host};
use crate::engine::Engine;
use crate::error::Result;
use crate::model::{Coverage, SnapshotId};

const ANSWERS: &str = include_str!("../../sql/steps/answers.sql");

/// The coverage of one host in one snapshot, by table; times and agents are left out.
///
/// # Errors
/// The coverage of the snapshot cannot be read.
pub async fn answers(engine: &Engine, snapshot: SnapshotId, host: &str) -> Result<Vec<Coverage>> {
    let mut found = Vec::new();
    for batch in engine.collect(ANSWERS, of_host(snapshot, host)).await? {
        note(&batch, host, &mut found)?;
    }
    Ok(found)
}

fn note(batch: &RecordBatch, host: &str, found: &mut Vec<Coverage>) -> Result<()> {
    let text = |name| column(batch, name).map(|array| array.as_string::<i32>().clone());
    let number = |name| column(batch, name).map(|array| array.as_primitive::<Int64Type>().clone());
    let (tables, statuses) = (text("table_name")?, text("status")?);
    let (errors, missing) = (text("error")?, text("columns_missing")?);
    let (rows, bytes) = (number("rows")?, number("bytes")?);
    for at in 0..batch.num_rows() {
        let columns = missing.value(at).split(',').filter(|name| !name.is_empty());
        found.push(Coverage {
            host: host.to_owned(),
            table: tables.value(at).to_owned(),
            status: statuses.value(at).parse()?,
            rows: rows.value(at).unsigned_abs(),
            bytes: bytes.value(at).unsigned_abs(),
            error: errors.value(at).to_owned(),
            columns_missing: columns.map(ToOwned::to_owned).collect(),
            started: None,
            ended: None,
            osquery_version: None,
            uid: None,
        });
    }
    Ok(())
}
