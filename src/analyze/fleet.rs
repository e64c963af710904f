//! What is known of the hosts of a snapshot before any row is looked at: who they are and what they answered.

use std::collections::{BTreeMap, HashMap};

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Int64Type, UInt32Type};
use datafusion::scalar::ScalarValue;
use roaring::RoaringBitmap;

use crate::catalog::Catalog;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::model::{SnapshotId, Status};

/// Of a table that this share of the hosts answered, a failure stands out.
pub(super) const TABLE_WORKS: f64 = 0.8;
/// A column that at most this share of the hosts leaves out was left out for a reason.
const WITHHELD: f64 = 0.05;

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
    /// Hosts with rows by the columns that these do not have, separated by commas.
    pub(super) by_columns: BTreeMap<String, RoaringBitmap>,
    /// Hosts that answered in full and have no rows.
    pub(super) without_rows: RoaringBitmap,
}

/// The hosts of one snapshot.
#[derive(Debug, Default)]
pub(super) struct FleetState {
    /// By ordinal.
    pub(super) hosts: Vec<String>,
    pub(super) tables: BTreeMap<String, TableAnswers>,
    /// By ordinal: tables answered in full.
    pub(super) ok: Vec<u64>,
    /// By ordinal: what was not answered in full.
    pub(super) failures: Vec<Vec<Failure>>,
    /// By ordinal: tables of which only a part came.
    pub(super) partial: Vec<u64>,
}

const HOSTS: &str = include_str!("../../sql/steps/hosts.sql");
const COVERAGE: &str = include_str!("../../sql/steps/coverage.sql");

/// `$snapshot` for the steps in `sql/steps/`.
pub(super) fn of_snapshot(snapshot: SnapshotId) -> Vec<(String, ScalarValue)> {
    vec![("snapshot".to_owned(), ScalarValue::Utf8(Some(snapshot.to_string())))]
}

/// `$snapshot` and `$host`.
pub(super) fn of_host(snapshot: SnapshotId, host: &str) -> Vec<(String, ScalarValue)> {
    let host = ("host".to_owned(), ScalarValue::Utf8(Some(host.to_owned())));
    of_snapshot(snapshot).into_iter().chain([host]).collect()
}

impl FleetState {
    pub(super) async fn load(engine: &Engine, catalog: &Catalog, snapshot: SnapshotId) -> Result<Self> {
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
        state.partial = vec![0; state.hosts.len()];
        let ordinals: HashMap<String, u32> = state.hosts.iter().cloned().zip(0..).collect();
        for batch in engine.collect(COVERAGE, of_snapshot(snapshot)).await? {
            state.note(&batch, &ordinals)?;
        }
        state.forget_the_usual();
        state.note_withheld_columns(catalog);
        Ok(state)
    }

    /// What says nothing against a host: a table that no host can answer, or that most were not asked for.
    fn forget_the_usual(&mut self) {
        let Self { tables, failures, hosts, .. } = self;
        let heard = |table: &str| tables.get(table).map_or(0, |answers| answers.heard.len());
        let is_usual = |failure: &Failure| match failure.status {
            Status::NotSupported => heard(&failure.table) == 0,
            Status::NotAsked => (heard(&failure.table) as f64) < hosts.len() as f64 * TABLE_WORKS,
            _ => false,
        };
        failures.iter_mut().for_each(|failures| failures.retain(|failure| !is_usual(failure)));
    }

    /// A column that every agent has and nearly every host returns was left out for a reason: without it rows cannot
    /// be compared. Columns that came with a later agent (`since`) are no such thing.
    fn note_withheld_columns(&mut self, catalog: &Catalog) {
        for (table, answers) in &self.tables {
            let Some(spec) = catalog.table(table) else { continue };
            let with_rows: u64 = answers.by_columns.values().map(RoaringBitmap::len).sum();
            let mut lacking: BTreeMap<&str, RoaringBitmap> = BTreeMap::new();
            for (columns, hosts) in &answers.by_columns {
                for column in columns.split(',').filter(|column| !column.is_empty()) {
                    *lacking.entry(column).or_default() |= hosts;
                }
            }
            for (column, hosts) in lacking {
                let is_late = spec.column(column).is_none_or(|column| column.since.is_some());
                let others = with_rows - hosts.len();
                if is_late || (hosts.len() as f64) > (with_rows as f64 * WITHHELD).max(1.0) || others < 2 {
                    continue;
                }
                for host in &hosts {
                    self.failures[host as usize].push(Failure {
                        table: table.clone(),
                        status: Status::Truncated,
                        error: format!(
                            "its rows come without the column {column}, which {others} other hosts return"
                        ),
                    });
                }
            }
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
            } else {
                self.failures[ordinal as usize].push(Failure {
                    table: tables.value(row).to_owned(),
                    status,
                    error: errors.value(row).to_owned(),
                });
            }
            if !status.answered() && rows.value(row) > 0 {
                self.partial[ordinal as usize] += 1;
            }
            if status.answered() || rows.value(row) > 0 {
                answers.heard.insert(ordinal);
                if rows.value(row) > 0 {
                    answers.by_columns.entry(missing.value(row).to_owned()).or_default().insert(ordinal);
                } else {
                    answers.without_rows.insert(ordinal);
                }
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
