//! Parquet files: how they are written, counted and digested in one pass.

use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, WriteMultipart};
use parquet::arrow::AsyncArrowWriter;
use parquet::arrow::async_writer::AsyncFileWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::manifest::{FileEntry, FileKind};
use super::told;
use crate::error::{Error, Result};

/// A part is closed when it has about so many bytes …
const PART_BYTES: u64 = 128 * 1024 * 1024;
/// … or so many rows.
pub(super) const PART_ROWS: u64 = 1_000_000;
/// Rows of a row group: small enough that a writer's memory stays in the tens of megabytes.
const ROW_GROUP_ROWS: usize = 131_072;
/// Bytes of a row group, for tables with huge cells.
const ROW_GROUP_BYTES: usize = 32 * 1024 * 1024;
/// Bytes of a value that go into statistics: a hostile value must not blow up the footer.
const STATISTICS_BYTES: usize = 64;

/// A file of up to so many bytes is one request, which writes it where nothing is yet; a larger one goes in parts of this
/// size. S3 takes no smaller ones than 5 MiB.
const CHUNK_BYTES: usize = 8 * 1024 * 1024;
/// Parts on their way at once.
const CHUNKS_IN_FLIGHT: usize = 2;

/// Writes one Parquet file and tells, at the end, what the manifest says of it.
pub struct PartWriter {
    writer: AsyncArrowWriter<DigestingWriter>,
    digest: Arc<std::sync::Mutex<Digest>>,
    entry: FileEntry,
    most_rows: u64,
}

impl std::fmt::Debug for PartWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartWriter").field("entry", &self.entry).finish_non_exhaustive()
    }
}

impl PartWriter {
    pub(super) fn new(
        object_store: Arc<dyn ObjectStore>,
        kind: FileKind,
        table: Option<&str>,
        place: (&str, &SchemaRef),
    ) -> Result<Self> {
        let (path, schema) = place;
        let location = Path::parse(path)
            .map_err(|source| Error::internal(format!("`{path}` is no path")).source(source))?;
        let digest = Arc::new(std::sync::Mutex::new(Digest::default()));
        let sink = DigestingWriter {
            object_store,
            location,
            below: Below::Small(Vec::new()),
            digest: Arc::clone(&digest),
        };
        let writer = AsyncArrowWriter::try_new(sink, Arc::clone(schema), Some(properties(schema)))
            .map_err(|source| cannot_write(path, source))?;
        let entry = FileEntry {
            kind,
            table: table.map(ToOwned::to_owned),
            path: path.to_owned(),
            rows: 0,
            bytes: 0,
            blake3: String::new(),
        };
        Ok(Self { writer, digest, entry, most_rows: PART_ROWS })
    }

    /// Full from so many rows on.
    pub(super) fn with_most_rows(self, most_rows: u64) -> Self {
        Self { most_rows, ..self }
    }

    /// Appends rows.
    ///
    /// # Errors
    /// The store does not take the bytes; the file is named.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.entry.rows += batch.num_rows() as u64;
        self.writer.write(batch).await.map_err(|source| cannot_write(&self.entry.path, source))
    }

    /// Whether the part is large enough to be closed.
    pub fn is_full(&self) -> bool {
        let bytes = self.writer.bytes_written() + self.writer.in_progress_size();
        self.entry.rows >= self.most_rows || bytes as u64 >= PART_BYTES
    }

    /// Writes the footer.
    ///
    /// # Errors
    /// The store does not take the bytes; the file is named.
    pub async fn close(self) -> Result<FileEntry> {
        let Self { writer, digest, mut entry, .. } = self;
        writer.close().await.map_err(|source| cannot_write(&entry.path, source))?;
        let digest = digest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        entry.bytes = digest.bytes;
        entry.blake3 = digest.hasher.finalize().to_hex().to_string();
        Ok(entry)
    }
}

fn cannot_write(path: &str, source: ParquetError) -> Error {
    let hint = "check the space and the permissions of the store; a collection can be finished with `diffy snapshot recover`";
    told::failed(format!("cannot write `{path}`"), Some(hint), source)
}

fn properties(schema: &SchemaRef) -> WriterProperties {
    // Equal strict ids stand by the line of prevalence that they belong to and then by host, so `host` is not said.
    let sorted_by: Vec<SortingColumn> = ["loose_id", "strict_id"]
        .iter()
        .map_while(|name| schema.index_of(name).ok())
        .map(|index| SortingColumn {
            column_idx: i32::try_from(index).unwrap_or(i32::MAX),
            descending: false,
            nulls_first: true,
        })
        .collect();
    let builder = WriterProperties::builder()
        .set_created_by(format!("diffy {}", env!("CARGO_PKG_VERSION")))
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_statistics_truncate_length(Some(STATISTICS_BYTES))
        .set_column_index_truncate_length(Some(STATISTICS_BYTES));
    let has_ids = schema.index_of("strict_id").is_ok();
    builder
        .set_sorting_columns((!sorted_by.is_empty() && has_ids).then_some(sorted_by))
        .set_column_bloom_filter_enabled(ColumnPath::from("strict_id"), has_ids)
        .build()
}

#[derive(Default)]
struct Digest {
    hasher: blake3::Hasher,
    bytes: u64,
}

/// Counts and digests what it passes on.
struct DigestingWriter {
    object_store: Arc<dyn ObjectStore>,
    location: Path,
    below: Below,
    digest: Arc<std::sync::Mutex<Digest>>,
}

/// Where the bytes are.
enum Below {
    /// Here.
    Small(Vec<Bytes>),
    /// On their way, in parts.
    Large(Box<WriteMultipart>),
    /// There.
    Done,
}

impl DigestingWriter {
    fn length(&self) -> u64 {
        self.digest.lock().unwrap_or_else(std::sync::PoisonError::into_inner).bytes
    }

    /// Bytes so far, these included.
    fn count(&self, bytes: &Bytes) -> u64 {
        let mut digest = self.digest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        digest.hasher.update(bytes);
        digest.bytes += bytes.len() as u64;
        digest.bytes
    }

    async fn put(&mut self, bytes: Bytes) -> object_store::Result<()> {
        let is_large = self.count(&bytes) > CHUNK_BYTES as u64;
        if let (Below::Small(chunks), true) = (&mut self.below, is_large) {
            let chunks = std::mem::take(chunks);
            let upload = self.object_store.put_multipart(&self.location).await?;
            let mut upload = WriteMultipart::new_with_chunk_size(upload, CHUNK_BYTES);
            chunks.into_iter().for_each(|chunk| upload.put(chunk));
            self.below = Below::Large(Box::new(upload));
        }
        match &mut self.below {
            Below::Small(chunks) => chunks.push(bytes),
            Below::Large(upload) => {
                upload.wait_for_capacity(CHUNKS_IN_FLIGHT).await?;
                upload.put(bytes);
            }
            Below::Done => {}
        }
        Ok(())
    }

    async fn finish(&mut self) -> object_store::Result<()> {
        match std::mem::replace(&mut self.below, Below::Done) {
            Below::Done => Ok(()),
            Below::Small(chunks) => {
                let bytes: PutPayload = chunks.into_iter().collect();
                if told::put_new(&self.object_store, &self.location, bytes).await? {
                    return Ok(());
                }
                let path = self.location.to_string();
                Err(object_store::Error::AlreadyExists {
                    path,
                    source: "it is not what was to be written".into(),
                })
            }
            Below::Large(upload) => match upload.finish().await {
                Ok(_) => Ok(()),
                // The answer to the last request may have been lost. Nobody else writes files of this name.
                Err(error) => {
                    let there = self.object_store.head(&self.location).await;
                    there.is_ok_and(|meta| meta.size == self.length()).then_some(()).ok_or(error)
                }
            },
        }
    }
}

impl AsyncFileWriter for DigestingWriter {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, ParquetResult<()>> {
        Box::pin(async move { self.put(bytes).await.map_err(external) })
    }

    fn complete(&mut self) -> BoxFuture<'_, ParquetResult<()>> {
        Box::pin(async move { self.finish().await.map_err(external) })
    }
}

fn external(error: impl std::error::Error + Send + Sync + 'static) -> ParquetError {
    ParquetError::External(Box::new(error))
}
