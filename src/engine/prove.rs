//! Prevalence made again from the rows, and compared with what is kept.

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::common::ScalarValue;

use super::Engine;
use crate::catalog::is_table_name;
use crate::error::{Error, Result};
use crate::store::{FileKind, Manifest};

const AGAIN: &str = include_str!("../../sql/steps/prevalence_again.sql");

/// What prevalence is, beside the rows that it was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// Distinct pairs of loose and strict id, in either.
    pub identities: u64,
    /// Those whose hosts differ.
    pub wrong: u64,
}

impl Engine {
    /// Reads all rows of a table of a snapshot, and compares the hosts of each identity with those that prevalence has.
    ///
    /// # Errors
    /// As [`Self::collect`].
    pub async fn prove_prevalence(&self, manifest: &Manifest, table: &str) -> Result<Proof> {
        if let Some(proof) = without_rows(manifest, table) {
            return Ok(proof);
        }
        if !is_table_name(table) {
            return Err(Error::data(format!("`{}` is no table name", table.escape_debug())));
        }
        // An identifier cannot be a parameter; it was checked above.
        let sql = AGAIN.replace("table_name", table);
        let params = vec![("snapshot".to_owned(), ScalarValue::from(manifest.snapshot.to_string()))];
        let batches = self.collect(&sql, params).await?;
        let proof = batches.iter().find_map(counts);
        proof.ok_or_else(|| Error::internal("a count has no row").with("table", table))
    }
}

/// The proof for a table of which no host had a row: SQL may not know such a table, and prevalence must be empty.
fn without_rows(manifest: &Manifest, table: &str) -> Option<Proof> {
    let files = || manifest.files.iter().filter(|file| file.table.as_deref() == Some(table));
    if files().any(|file| file.kind == FileKind::Rows) {
        return None;
    }
    let lines = files().filter(|file| file.kind == FileKind::Prevalence).map(|file| file.rows).sum();
    Some(Proof { identities: lines, wrong: lines })
}

fn counts(batch: &RecordBatch) -> Option<Proof> {
    let count = |column: usize| {
        let counts = batch.column(column).as_primitive_opt::<Int64Type>()?;
        (batch.num_rows() == 1).then(|| counts.value(0).unsigned_abs())
    };
    Some(Proof { identities: count(0)?, wrong: count(1)? })
}
