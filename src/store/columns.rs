//! Parquet files read one column at a time: what is held decoded is one column, not the file.

use bytes::Bytes;
use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::SchemaRef;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use parquet::errors::ParquetError;

use super::Store;
use super::manifest::FileEntry;
use crate::error::{Error, Result};

/// Rows of an array.
const BATCH_ROWS: usize = 8192;

/// A Parquet file as it is stored, held in memory, of which columns can be decoded.
#[derive(Debug, Clone)]
pub struct ColumnFile {
    path: String,
    bytes: Bytes,
    metadata: ArrowReaderMetadata,
}

impl Store {
    /// A file, after its digest was checked.
    ///
    /// # Errors
    /// The file cannot be read, or is not the one that was written; it is named.
    pub async fn column_file(&self, file: &FileEntry) -> Result<ColumnFile> {
        let path = &file.path;
        let damaged = || Error::data(format!("cannot read `{path}` of store `{}`", self.name()));
        let bytes = self.get(path).await?.ok_or_else(|| damaged().hint("the file is gone"))?;
        if blake3::hash(&bytes).to_hex().as_str() != file.blake3 {
            return Err(damaged().hint("its bytes are not those that were written"));
        }
        let metadata = ArrowReaderMetadata::load(&bytes, ArrowReaderOptions::new())
            .map_err(|source| damaged().source(source))?;
        Ok(ColumnFile { path: path.clone(), bytes, metadata })
    }
}

impl ColumnFile {
    /// The columns of the file.
    pub fn schema(&self) -> &SchemaRef {
        self.metadata.schema()
    }

    /// Rows of the file.
    pub fn rows(&self) -> usize {
        self.metadata.metadata().file_metadata().num_rows().try_into().unwrap_or(0)
    }

    /// One column, in pieces, in the order of the file; none when there is no such column.
    ///
    /// # Errors
    /// The column cannot be decoded; the file is named.
    pub fn column(&self, name: &str) -> Result<Vec<ArrayRef>> {
        let mut arrays = Vec::new();
        self.each_of_column(name, 0..self.rows(), |array| {
            arrays.push(array);
            Ok(())
        })?;
        Ok(arrays)
    }

    /// As [`Self::column`], of some of the rows; each piece goes to `take` and is not kept.
    ///
    /// # Errors
    /// As [`Self::column`], and whatever `take` returns.
    pub fn each_of_column(
        &self,
        name: &str,
        rows: std::ops::Range<usize>,
        mut take: impl FnMut(ArrayRef) -> Result<()>,
    ) -> Result<()> {
        let cannot = |source| Error::data(format!("cannot read `{}`", self.path)).source(source);
        if self.schema().index_of(name).is_err() {
            return Ok(());
        }
        let selected = RowSelection::from(vec![
            RowSelector::skip(rows.start),
            RowSelector::select(rows.len()),
            RowSelector::skip(self.rows().saturating_sub(rows.end)),
        ]);
        let builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(self.bytes.clone(), self.metadata.clone());
        let mask = ProjectionMask::columns(builder.parquet_schema(), [name]);
        let builder = builder.with_projection(mask).with_batch_size(BATCH_ROWS);
        let reader = builder.with_row_selection(selected).build().map_err(cannot)?;
        for batch in reader {
            let batch = batch.map_err(|source| cannot(ParquetError::from(source)))?;
            take(batch.column(0).clone())?;
        }
        Ok(())
    }
}
