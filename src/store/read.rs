//! Small Parquet files, read whole: baselines, and results of analyses that were kept. Questions over rows and
//! prevalence go through the engine.

use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use futures::{StreamExt, stream};
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;

use super::commits::CONCURRENT_READS;
use super::manifest::{FileEntry, FileKind};
use super::{PartWriter, Store, paths};
use crate::error::{Error, Result};
use crate::model::{Fleet, SnapshotId, now};

impl Store {
    /// All batches of one file, after its digest was checked.
    ///
    /// # Errors
    /// The file cannot be read, or is not the one that was written; it is named.
    pub async fn read_file(&self, file: &FileEntry) -> Result<Vec<RecordBatch>> {
        self.read_columns(file, &[]).await
    }

    /// As [`Self::read_file`], of these columns only; all of them when empty. The whole file is checked.
    ///
    /// # Errors
    /// As [`Self::read_file`]. A column that is not there is not in the batches.
    pub async fn read_columns(&self, file: &FileEntry, columns: &[&str]) -> Result<Vec<RecordBatch>> {
        let path = &file.path;
        let damaged = || Error::data(format!("cannot read `{path}` of store `{}`", self.name()));
        let bytes = self.get(path).await?.ok_or_else(|| damaged().hint("the file is gone"))?;
        if blake3::hash(&bytes).to_hex().as_str() != file.blake3 {
            return Err(damaged().hint("its bytes are not those that were written"));
        }
        batches(bytes, columns).map_err(|source| damaged().source(source))
    }

    /// Keeps the result of an analysis of a snapshot.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn keep_findings(&self, of: (&Fleet, SnapshotId), findings: &RecordBatch) -> Result<FileEntry> {
        let path = paths::analysis(of.0, of.1, SnapshotId::new(now()));
        let schema = findings.schema();
        let mut part = PartWriter::new(self.object_store(), FileKind::Findings, None, (&path, &schema))?;
        part.write(findings).await?;
        part.close().await
    }

    /// All results of analyses that were kept, and the files among them that cannot be read; each is named.
    ///
    /// # Errors
    /// The store cannot be listed.
    pub async fn kept_findings(&self) -> Result<(Vec<RecordBatch>, Vec<Error>)> {
        let mut all = Vec::new();
        let mut unreadable = Vec::new();
        let paths = self.list(&paths::findings()).await?;
        let reads = paths.iter().map(|path| self.read_findings(path));
        let mut reads = stream::iter(reads).buffered(CONCURRENT_READS);
        while let Some(read) = reads.next().await {
            match read {
                Ok(batches) => all.extend(batches),
                Err(error) => unreadable.push(error),
            }
        }
        Ok((all, unreadable))
    }

    /// Nothing when they were deleted meanwhile.
    async fn read_findings(&self, path: &Path) -> Result<Vec<RecordBatch>> {
        let damaged = || Error::data(format!("cannot read `{path}` of store `{}`", self.name()));
        let Some(bytes) = self.get(path.as_ref()).await? else { return Ok(Vec::new()) };
        batches(bytes, &[]).map_err(|source| damaged().source(source))
    }
}

fn batches(bytes: Bytes, columns: &[&str]) -> Result<Vec<RecordBatch>, ParquetError> {
    let mut builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
    if !columns.is_empty() {
        let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
        builder = builder.with_projection(mask);
    }
    let reader = builder.build()?;
    reader.map(|batch| batch.map_err(ParquetError::from)).collect()
}
