//! Reads single small Parquet files of the store; questions over rows and prevalence go through the engine.

use datafusion::arrow::array::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::Store;
use super::manifest::FileEntry;
use crate::error::{Error, Result};

impl Store {
    /// All batches of one file, after its digest was checked.
    ///
    /// # Errors
    /// The file cannot be read, or is not the one that was written; it is named.
    pub async fn read_file(&self, file: &FileEntry) -> Result<Vec<RecordBatch>> {
        let path = &file.path;
        let damaged = || Error::data(format!("cannot read `{path}` of store `{}`", self.name()));
        let bytes = self.get(path).await?.ok_or_else(|| damaged().hint("the file is gone"))?;
        if blake3::hash(&bytes).to_hex().as_str() != file.blake3 {
            return Err(damaged().hint("its bytes are not those that were written"));
        }
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|builder| builder.build());
        let batches = reader.map_err(|source| damaged().source(source))?;
        batches.map(|batch| batch.map_err(|source| damaged().source(source))).collect()
    }
}
