//! What hosts answered: of one host table by table, and of all hosts what a report shows of it.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;

use super::fleet::{column, of_host, of_snapshot};
use crate::engine::Engine;
use crate::error::Result;
use crate::model::{Coverage, SnapshotId, Status};

const OF_HOST: &str = include_str!("../../sql/steps/answers.sql");
const BY_TABLE: &str = include_str!("../../sql/steps/answers_by_table.sql");
const NOT_ANSWERED: &str = include_str!("../../sql/steps/not_answered.sql");

/// What the hosts of a snapshot answered, without tables that no host has.
#[derive(Debug, Default)]
pub struct Answers {
    /// The tables that hosts were asked for.
    pub tables: BTreeSet<String>,
    /// How many answers of a host for a table there are of each status.
    pub by_status: BTreeMap<Status, u64>,
    /// What was not answered in full, by host and table; times and agents are left out.
    pub failures: Vec<Coverage>,
}

/// The coverage of one host in one snapshot, by table; times and agents are left out.
///
/// # Errors
/// The coverage of the snapshot cannot be read.
pub async fn answers_of_host(engine: &Engine, snapshot: SnapshotId, host: &str) -> Result<Vec<Coverage>> {
    let batches = engine.collect(OF_HOST, of_host(snapshot, host)).await?;
    lines(&batches)
}

/// What all hosts of one snapshot answered.
///
/// # Errors
/// The coverage of the snapshot cannot be read.
pub async fn answers(engine: &Engine, snapshot: SnapshotId) -> Result<Answers> {
    let batches = engine.collect(NOT_ANSWERED, of_snapshot(snapshot)).await?;
    let mut answers = Answers { failures: lines(&batches)?, ..Answers::default() };
    for batch in engine.collect(BY_TABLE, of_snapshot(snapshot)).await? {
        let (tables, statuses) = (column(&batch, "table_name")?, column(&batch, "status")?);
        let (tables, statuses) = (tables.as_string::<i32>(), statuses.as_string::<i32>());
        let numbers = column(&batch, "answers")?.as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            answers.tables.insert(tables.value(row).to_owned());
            *answers.by_status.entry(statuses.value(row).parse()?).or_default() +=
                numbers.value(row).unsigned_abs();
        }
    }
    Ok(answers)
}

fn lines(batches: &[RecordBatch]) -> Result<Vec<Coverage>> {
    let mut found = Vec::new();
    for batch in batches {
        note(batch, &mut found)?;
    }
    Ok(found)
}

fn note(batch: &RecordBatch, found: &mut Vec<Coverage>) -> Result<()> {
    let text = |name| column(batch, name).map(|array| array.as_string::<i32>().clone());
    let number = |name| column(batch, name).map(|array| array.as_primitive::<Int64Type>().clone());
    let (hosts, tables, statuses) = (text("host")?, text("table_name")?, text("status")?);
    let (errors, missing) = (text("error")?, text("columns_missing")?);
    let (rows, bytes) = (number("rows")?, number("bytes")?);
    for at in 0..batch.num_rows() {
        let columns = missing.value(at).split(',').filter(|name| !name.is_empty());
        found.push(Coverage {
            host: hosts.value(at).to_owned(),
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
