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
use parquet::errors::{ParquetError, Result as ParquetResult};

use super::encodings::{SAMPLE_ROWS, properties};
use super::manifest::{FileEntry, FileKind};
use super::told;
use crate::error::{Error, Result};

/// A part is closed when it has about so many bytes …
const PART_BYTES: u64 = 128 * 1024 * 1024;
/// … or so many rows.
pub(super) const PART_ROWS: u64 = 1_000_000;
/// Rows of wide cells that wait for the encoding to be settled, in bytes.
const SAMPLE_BYTES: usize = 8 * 1024 * 1024;

/// A file of up to so many bytes is one request, which writes it where nothing is yet; a larger one goes in parts of this
/// size. S3 takes no smaller ones than 5 MiB.
const CHUNK_BYTES: usize = 8 * 1024 * 1024;
/// Parts on their way at once.
const CHUNKS_IN_FLIGHT: usize = 2;

/// Writes one Parquet file and tells, at the end, what the manifest says of it.
pub struct PartWriter {
    writer: Writer,
    schema: SchemaRef,
    digest: Arc<std::sync::Mutex<Digest>>,
    entry: FileEntry,
    most_rows: u64,
}

/// A file before and after its encoding is settled.
enum Writer {
    Waiting(DigestingWriter, Vec<RecordBatch>),
    Writing(Box<AsyncArrowWriter<DigestingWriter>>),
    /// Writing failed.
    Failed,
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
        let writer = Writer::Waiting(sink, Vec::new());
        let entry = FileEntry {
            kind,
            table: table.map(ToOwned::to_owned),
            path: path.to_owned(),
            rows: 0,
            bytes: 0,
            blake3: String::new(),
        };
        Ok(Self { writer, schema: Arc::clone(schema), digest, entry, most_rows: PART_ROWS })
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
        match &mut self.writer {
            Writer::Waiting(_, first) => {
                first.push(batch.clone());
                let bytes: usize = first.iter().map(RecordBatch::get_array_memory_size).sum();
                let is_enough = self.entry.rows >= SAMPLE_ROWS as u64 || bytes >= SAMPLE_BYTES;
                if is_enough { self.start().await } else { Ok(()) }
            }
            Writer::Writing(writer) => {
                writer.write(batch).await.map_err(|source| cannot_write(&self.entry.path, source))
            }
            Writer::Failed => Err(Error::internal(format!("`{}` failed before", self.entry.path))),
        }
    }

    /// Settles the encoding by the first rows, and writes these.
    async fn start(&mut self) -> Result<()> {
        let Writer::Waiting(sink, first) = std::mem::replace(&mut self.writer, Writer::Failed) else {
            return Ok(());
        };
        let cannot = |source| cannot_write(&self.entry.path, source);
        let properties = properties(&self.schema, &first).map_err(cannot)?;
        let mut writer =
            AsyncArrowWriter::try_new(sink, Arc::clone(&self.schema), Some(properties)).map_err(cannot)?;
        for batch in &first {
            writer.write(batch).await.map_err(cannot)?;
        }
        self.writer = Writer::Writing(Box::new(writer));
        Ok(())
    }

    /// Whether the part is large enough to be closed.
    pub fn is_full(&self) -> bool {
        let bytes = match &self.writer {
            Writer::Writing(writer) => writer.bytes_written() + writer.in_progress_size(),
            Writer::Waiting(..) | Writer::Failed => 0,
        };
        self.entry.rows >= self.most_rows || bytes as u64 >= PART_BYTES
    }

    /// Writes the footer.
    ///
    /// # Errors
    /// The store does not take the bytes; the file is named.
    pub async fn close(mut self) -> Result<FileEntry> {
        if matches!(self.writer, Writer::Waiting(..)) {
            self.start().await?;
        }
        let Self { writer, digest, mut entry, .. } = self;
        let Writer::Writing(writer) = writer else {
            return Err(Error::internal(format!("`{}` failed before", entry.path)));
        };
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
