//! What is known of the hosts of a snapshot before any row is looked at: who they are and what they answered.

use std::collections::{BTreeMap, HashMap};

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Int64Type, UInt32Type};
use datafusion::scalar::ScalarValue;
use roaring::RoaringBitmap;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::model::{SnapshotId, Status};

/// A host that failed a table, and how.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) table: String,
    pub(super) status: Status,
    pub(super) error: String,
}

/// How the hosts of a snapshot answered for one table.
#[derive(Debug, Clone, Default)]
pub(super) struct TableAnswers {
    /// Hosts that answered in full: the denominator, and the only ones of which a row can be missing.
    pub(super) answered: RoaringBitmap,
    /// Hosts that answered at least in part: their rows are compared too.
    pub(super) heard: RoaringBitmap,
    /// Hosts by the columns that their agent does not have: a row can only be compared among those that could have it.
    pub(super) by_columns: BTreeMap<String, RoaringBitmap>,
}

/// The hosts of one snapshot.
#[derive(Debug, Default)]
pub(super) struct FleetState {
    /// By ordinal.
    pub(super) hosts: Vec<String>,
    pub(super) tables: BTreeMap<String, TableAnswers>,
    /// By ordinal: tables answered in full.
    pub(super) ok: Vec<u64>,
    /// By ordinal: tables asked for and not answered in full.
    pub(super) failures: Vec<Vec<Failure>>,
}

const HOSTS: &str = include_str!("../../sql/steps/hosts.sql");
const COVERAGE: &str = include_str!("../../sql/steps/coverage.sql");

/// `$snapshot` for the steps in `sql/steps/`.
pub(super) fn of_snapshot(snapshot: SnapshotId) -> Vec<(String, ScalarValue)> {
    vec![("snapshot".to_owned(), ScalarValue::Utf8(Some(snapshot.to_string())))]
}

impl FleetState {
    pub(super) async fn load(engine: &Engine, snapshot: SnapshotId) -> Result<Self> {
        let mut state = Self::default();
        for batch in engine.collect(HOSTS, of_snapshot(snapshot)).await? {
            let ordinals = column(&batch, "ordinal")?.as_primitive::<UInt32Type>();
            let hosts = column(&batch, "host")?.as_string::<i32>();
            for row in 0..batch.num_rows() {
                if ordinals.value(row) as usize != state.hosts.len() {
                    return Err(Error::data("the hosts table of this snapshot has gaps"));
                }
                state.hosts.push(hosts.value(row).to_owned());
            }
        }
        state.ok = vec![0; state.hosts.len()];
        state.failures = vec![Vec::new(); state.hosts.len()];
        let ordinals: HashMap<String, u32> = state.hosts.iter().cloned().zip(0..).collect();
        for batch in engine.collect(COVERAGE, of_snapshot(snapshot)).await? {
            state.note(&batch, &ordinals)?;
        }
        state.forget_unsupported();
        Ok(state)
    }

    /// A table that no host can answer is no failure of any of them.
    fn forget_unsupported(&mut self) {
        let unsupported = |failure: &Failure| {
            failure.status == Status::NotSupported
                && self.tables.get(&failure.table).is_none_or(|table| table.heard.is_empty())
        };
        for failures in &mut self.failures {
            failures.retain(|failure| !unsupported(failure));
        }
    }

    fn note(&mut self, batch: &RecordBatch, ordinals: &HashMap<String, u32>) -> Result<()> {
        let text = |name| column(batch, name).map(|array| array.as_string::<i32>().clone());
        let (hosts, tables, statuses) = (text("host")?, text("table_name")?, text("status")?);
        let (errors, missing) = (text("error")?, text("columns_missing")?);
        let rows = column(batch, "rows")?.as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let Some(&ordinal) = ordinals.get(hosts.value(row)) else { continue };
            let status: Status = statuses.value(row).parse()?;
            let answers = self.tables.entry(tables.value(row).to_owned()).or_default();
            if status.answered() {
                answers.answered.insert(ordinal);
                self.ok[ordinal as usize] += 1;
            } else if status != Status::NotAsked {
                self.failures[ordinal as usize].push(Failure {
                    table: tables.value(row).to_owned(),
                    status,
                    error: errors.value(row).to_owned(),
                });
            }
            if status.answered() || rows.value(row) > 0 {
                answers.heard.insert(ordinal);
                // A host without rows shows no columns; it can be compared with everybody.
                let lacks = if rows.value(row) > 0 { missing.value(row) } else { "" };
                answers.by_columns.entry(lacks.to_owned()).or_default().insert(ordinal);
            }
        }
        Ok(())
    }

    pub(super) fn total(&self) -> u64 {
        self.hosts.len() as u64
    }

    /// Hosts that were heard for at least one table.
    pub(super) fn heard(&self) -> RoaringBitmap {
        self.tables.values().fold(RoaringBitmap::new(), |all, table| all | &table.heard)
    }
}

/// A column that a step of ours must have.
pub(super) fn column<'a>(
    batch: &'a RecordBatch,
    name: &str,
) -> Result<&'a datafusion::arrow::array::ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| Error::internal(format!("step has no column `{name}`")))
}

/// The cell as text; `None` when it is null.
pub(super) fn cell(batch: &RecordBatch, name: &str, row: usize) -> Option<String> {
    let array = batch.column_by_name(name).filter(|array| array.is_valid(row))?;
    let one =
        datafusion::arrow::compute::cast(&array.slice(row, 1), &datafusion::arrow::datatypes::DataType::Utf8);
    one.ok()?.as_string_opt::<i32>().map(|text| text.value(0).to_owned())
}
