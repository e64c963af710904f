//! Sorts a stream of any length in bounded memory: DataFusion's external merge sort, fed with even portions.

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use datafusion::arrow::array::{Array, RecordBatch, UInt32Array};
use datafusion::arrow::compute::{concat_batches, take_record_batch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::{EmptyRecordBatchStream, RecordBatchStreamAdapter};
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::prelude::SessionConfig;
use futures::{Stream, StreamExt, TryStreamExt, stream};

use crate::error::{Error, Result};

/// Rows of a batch that suit most tables: few enough that a batch of wide rows stays small.
pub const DEFAULT_BATCH_ROWS: usize = 2048;

/// Least memory that a sort is given, in bytes: below it, merging is more work than sorting.
const MIN_MEMORY: usize = 8 << 20;

/// Share of the memory that merging keeps for itself, that a batch should fill at most, and a portion of the input.
const MERGE_SHARE: usize = 4;
const BATCH_SHARE: usize = 32;
const PORTION_SHARE: usize = 64;

/// What a sort may use.
#[derive(Debug, Clone)]
pub struct SortConfig {
    /// Memory that the sort may hold, in bytes; at least 8 MiB is taken. A single row may have an eighth of it, and
    /// one host's answer for a table a quarter, for a hostile host can make all of its rows stand side by side.
    pub memory_limit_bytes: usize,
    /// Where sorted runs go that do not fit into memory; `None` is the system's temporary directory.
    pub spill_dir: Option<PathBuf>,
    /// Most rows of a batch that comes out; wide rows come in smaller batches.
    pub batch_rows: usize,
}

/// Sorts `input` by `columns`, ascending, nulls first; what does not fit into memory is spilled to disk meanwhile.
///
/// Batches may come in any size: small ones are joined and large ones are cut first, so that thousands of answers of
/// a few rows cost as little as one large one.
///
/// # Errors
/// A column is not there, or the spill directory cannot be made. The stream itself fails when `input` does, when the
/// disk is full, or when a single row is larger than an eighth of the memory.
pub fn sort_stream(
    input: SendableRecordBatchStream,
    columns: &[&str],
    config: &SortConfig,
) -> Result<SendableRecordBatchStream> {
    let schema = input.schema();
    let job = Job {
        ordering: ordering(&schema, columns)?,
        memory: config.memory_limit_bytes.max(MIN_MEMORY),
        batch_rows: config.batch_rows.max(1),
        runtime: Arc::new(runtime(config)?),
    };
    let sorted = stream::once(job.run(input)).try_flatten();
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, sorted)))
}

/// One sort that is about to begin.
struct Job {
    ordering: LexOrdering,
    memory: usize,
    batch_rows: usize,
    runtime: Arc<RuntimeEnv>,
}

impl Job {
    /// Looks at the first rows to choose the size of batches, then sorts.
    ///
    /// Merging makes batches of so many rows, however wide they are, and cannot read back one that fills the memory.
    async fn run(self, input: SendableRecordBatchStream) -> DataFusionResult<SendableRecordBatchStream> {
        let schema = input.schema();
        let mut portions = Portions::new(input, self.batch_rows, self.memory / PORTION_SHARE);
        let (mut first, mut rows, mut bytes) = (Vec::new(), 0, 0);
        while bytes < self.memory / MERGE_SHARE {
            let Some(portion) = portions.try_next().await? else { break };
            rows += portion.num_rows();
            bytes += content_bytes(&portion)?;
            first.push(Ok(portion));
        }
        let row_bytes = bytes / rows.max(1) + 1;
        let batch_rows = (self.memory / BATCH_SHARE / row_bytes).clamp(1, self.batch_rows);
        let all = stream::iter(first).chain(portions);
        self.sort(Box::pin(RecordBatchStreamAdapter::new(schema, all)), batch_rows)
    }

    fn sort(
        self,
        input: SendableRecordBatchStream,
        rows: usize,
    ) -> DataFusionResult<SendableRecordBatchStream> {
        let schema = input.schema();
        let source = Once { schema: Arc::clone(&schema), input: Mutex::new(Some(input)) };
        let scan = StreamingTableExec::try_new(schema, vec![Arc::new(source)], None, [], false, None)?;
        let session = SessionConfig::new()
            .with_batch_size(rows)
            .with_sort_spill_reservation_bytes(self.memory / MERGE_SHARE)
            .with_sort_in_place_threshold_bytes((self.memory / 16).min(1 << 20));
        let context = TaskContext::default().with_session_config(session).with_runtime(self.runtime);
        SortExec::new(self.ordering, Arc::new(scan)).execute(0, Arc::new(context))
    }
}

fn ordering(schema: &SchemaRef, columns: &[&str]) -> Result<LexOrdering> {
    let mut keys = Vec::with_capacity(columns.len());
    for name in columns {
        let index = schema
            .index_of(name)
            .map_err(|source| Error::internal(format!("cannot sort by `{name}`")).source(source))?;
        keys.push(PhysicalSortExpr::new_default(Arc::new(Column::new(name, index))));
    }
    LexOrdering::new(keys).ok_or_else(|| Error::internal("cannot sort by no column"))
}

fn runtime(config: &SortConfig) -> Result<RuntimeEnv> {
    RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(config.memory_limit_bytes.max(MIN_MEMORY))))
        .with_disk_manager_builder(spill_disk(config.spill_dir.clone()))
        .build()
        .map_err(|source| {
            Error::config("cannot make a directory to spill to")
                .source(source)
                .hint("give a directory on a disk with room for the uncompressed table")
        })
}

/// Spills to `dir`, or to the system's temporary directory; only the disk limits how much.
pub(super) fn spill_disk(dir: Option<PathBuf>) -> DiskManagerBuilder {
    let mode = dir.map_or(DiskManagerMode::OsTmpDirectory, |dir| DiskManagerMode::Directories(vec![dir]));
    DiskManagerBuilder::default().with_mode(mode).with_max_temp_directory_size(u64::MAX)
}

/// A source that gives its stream away once.
struct Once {
    schema: SchemaRef,
    input: Mutex<Option<SendableRecordBatchStream>>,
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").finish_non_exhaustive()
    }
}

impl PartitionStream for Once {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let taken = self.input.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.unwrap_or_else(|| Box::pin(EmptyRecordBatchStream::new(Arc::clone(&self.schema))))
    }
}

/// Joins and cuts batches to portions of at most `max_rows` rows and about `max_bytes` bytes.
///
/// The sorter accounts for whole buffers and can only spill whole batches, so portions must be small beside the memory
/// and own their buffers.
struct Portions {
    input: SendableRecordBatchStream,
    max_rows: usize,
    max_bytes: usize,
    /// Pieces that fit, oldest last.
    pieces: Vec<RecordBatch>,
    joined: Vec<RecordBatch>,
    joined_rows: usize,
    joined_bytes: usize,
    ended: bool,
}

impl Portions {
    fn new(input: SendableRecordBatchStream, max_rows: usize, max_bytes: usize) -> Self {
        Self {
            input,
            max_rows,
            max_bytes,
            pieces: Vec::new(),
            joined: Vec::new(),
            joined_rows: 0,
            joined_bytes: 0,
            ended: false,
        }
    }

    /// The next portion that can be made of what is here.
    fn next_portion(&mut self) -> DataFusionResult<Option<RecordBatch>> {
        while let Some(piece) = self.pieces.pop() {
            let (rows, bytes) = (piece.num_rows(), content_bytes(&piece)?);
            let fits = rows <= self.max_rows && bytes <= self.max_bytes;
            if !fits && rows > 1 {
                let half = (rows / 2).min(self.max_rows);
                self.pieces.push(piece.slice(half, rows - half));
                self.pieces.push(piece.slice(0, half));
                continue;
            }
            let full = self.joined_rows + rows > self.max_rows || self.joined_bytes + bytes > self.max_bytes;
            if full && self.joined_rows > 0 {
                self.pieces.push(piece);
                return self.join();
            }
            self.joined_rows += rows;
            self.joined_bytes += bytes;
            self.joined.push(piece);
        }
        if self.ended { self.join() } else { Ok(None) }
    }

    fn join(&mut self) -> DataFusionResult<Option<RecordBatch>> {
        let Some(first) = self.joined.first() else { return Ok(None) };
        let portion = if self.joined.len() == 1 {
            own(first, self.joined_bytes)?
        } else {
            concat_batches(&first.schema(), &self.joined)?
        };
        self.joined.clear();
        (self.joined_rows, self.joined_bytes) = (0, 0);
        Ok(Some(portion))
    }
}

impl Stream for Portions {
    type Item = DataFusionResult<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(portion) = self.next_portion().transpose() {
                return Poll::Ready(Some(portion));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            match std::task::ready!(self.input.poll_next_unpin(context)) {
                Some(Ok(batch)) if batch.num_rows() > 0 => self.pieces.push(batch),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.ended = true,
            }
        }
    }
}

impl RecordBatchStream for Portions {
    fn schema(&self) -> SchemaRef {
        self.input.schema()
    }
}

/// Bytes of the rows themselves, whatever buffers they share with others.
fn content_bytes(batch: &RecordBatch) -> DataFusionResult<usize> {
    let sizes = batch.columns().iter().map(|column| column.to_data().get_slice_memory_size());
    sizes.sum::<std::result::Result<usize, _>>().map_err(DataFusionError::from)
}

/// The batch itself, or a copy when it is a small part of the buffers that it holds on to.
fn own(batch: &RecordBatch, bytes: usize) -> DataFusionResult<RecordBatch> {
    if batch.get_array_memory_size() <= bytes.saturating_mul(2) + 4096 {
        return Ok(batch.clone());
    }
    let rows = u32::try_from(batch.num_rows()).map_err(|error| DataFusionError::External(Box::new(error)))?;
    Ok(take_record_batch(batch, &UInt32Array::from_iter_values(0..rows))?)
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{ArrayRef, FixedSizeBinaryArray, Int64Array, StringArray};
    use datafusion::arrow::datatypes::{DataType, Field, Schema};
    use rand::{RngCore, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("id", DataType::FixedSizeBinary(16), false),
            Field::new("host", DataType::Utf8, false),
            Field::new("n", DataType::Int64, false),
            Field::new("text", DataType::Utf8, true),
        ]))
    }

    fn batch(rng: &mut ChaCha8Rng, first: usize, rows: usize, text: impl Fn(usize) -> usize) -> RecordBatch {
        let mut ids = Vec::new();
        for _ in 0..rows {
            let mut id = [0_u8; 16];
            rng.fill_bytes(&mut id);
            id[0] &= 3;
            ids.push(id);
        }
        let numbers = first..first + rows;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(ids.iter().map(Some), 16).unwrap()),
            Arc::new(StringArray::from_iter_values(numbers.clone().map(|n| format!("i-{:017x}", n % 300)))),
            Arc::new(Int64Array::from_iter_values(numbers.clone().map(|n| n as i64))),
            Arc::new(StringArray::from_iter(numbers.map(|n| Some("x".repeat(text(n)))))),
        ];
        RecordBatch::try_new(schema(), columns).unwrap()
    }

    /// Sorts generated rows and says how many came out, after checking that they are whole and in order.
    async fn check(sizes: &[usize], config: &SortConfig, text: fn(usize) -> usize) {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let (sizes, mut first) = (sizes.to_vec(), 0);
        let total: usize = sizes.iter().sum();
        let made = sizes.into_iter().map(move |rows| {
            let made = batch(&mut rng, first, rows, text);
            first += rows;
            Ok(made)
        });
        let input = Box::pin(RecordBatchStreamAdapter::new(schema(), stream::iter(made)));
        let mut sorted = sort_stream(input, &["id", "host"], config).unwrap();
        let mut seen = vec![false; total];
        let mut last: Option<([u8; 16], String)> = None;
        while let Some(batch) = sorted.next().await {
            let batch = batch.unwrap();
            assert!(batch.num_rows() <= config.batch_rows);
            let ids = batch.column(0).as_any().downcast_ref::<FixedSizeBinaryArray>().unwrap();
            let hosts = batch.column(1).as_any().downcast_ref::<StringArray>().unwrap();
            let numbers = batch.column(2).as_any().downcast_ref::<Int64Array>().unwrap();
            let texts = batch.column(3).as_any().downcast_ref::<StringArray>().unwrap();
            for row in 0..batch.num_rows() {
                let key = (ids.value(row).try_into().unwrap(), hosts.value(row).to_owned());
                assert!(last.as_ref().is_none_or(|last| *last <= key));
                last = Some(key);
                let number = numbers.value(row) as usize;
                assert_eq!(texts.value(row).len(), text(number));
                assert!(!std::mem::replace(&mut seen[number], true));
            }
        }
        assert!(seen.into_iter().all(|seen| seen));
    }

    fn small(dir: &tempfile::TempDir) -> SortConfig {
        SortConfig {
            memory_limit_bytes: 16 << 20,
            spill_dir: Some(dir.path().to_owned()),
            batch_rows: DEFAULT_BATCH_ROWS,
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_million_rows_sort_in_sixteen_mebibytes() {
        let dir = tempfile::tempdir().unwrap();
        check(&[10_000; 100], &small(&dir), |n| n % 40).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_small_answers_sort_too() {
        let dir = tempfile::tempdir().unwrap();
        check(&[7; 20_000], &small(&dir), |n| n % 100).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn strings_of_a_mebibyte_sort_among_short_ones() {
        let dir = tempfile::tempdir().unwrap();
        check(&[5_000; 20], &small(&dir), |n| if n % 2_000 == 0 { 1 << 20 } else { n % 50 }).await;
    }

    #[tokio::test]
    async fn a_stream_of_strings_of_a_mebibyte_sorts_on_one_thread() {
        let dir = tempfile::tempdir().unwrap();
        check(&[1; 60], &small(&dir), |_| 1 << 20).await;
    }

    #[tokio::test]
    async fn nothing_sorts_to_nothing() {
        let dir = tempfile::tempdir().unwrap();
        check(&[], &small(&dir), |_| 0).await;
        check(&[0, 0], &small(&dir), |_| 0).await;
    }

    #[test]
    fn a_column_that_is_not_there_is_named() {
        let input = Box::pin(EmptyRecordBatchStream::new(schema()));
        let config = SortConfig { memory_limit_bytes: 0, spill_dir: None, batch_rows: 1 };
        let error = sort_stream(input, &["nope"], &config).err().unwrap();
        assert!(error.to_string().contains("`nope`"), "{error}");
    }
}
