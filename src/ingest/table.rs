//! One table of a snapshot: decode, identify, sort, write parts and prevalence.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{Stream, StreamExt, stream};

use super::batches::SORTED_BY;
use super::hosts::Fleet;
use super::prevalence::PrevalenceBuilder;
use super::reading::{Decoded, Group, PAYLOADS_PER_TASK, TableReader};
use super::sorted::Sorted;
use crate::catalog::TableSpec;
use crate::decode::{Limits, Problem};
use crate::engine::{SortConfig, sort_stream};
use crate::error::{Error, Result};
use crate::model::{self, SnapshotId};
use crate::store::{FileEntry, PartWriter, SpoolReader, Store};

/// Problems that are kept word by word, per table.
const MOST_PROBLEMS: usize = 50;

/// What all tables of a snapshot share.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) store: Store,
    pub(super) spool: SpoolReader,
    pub(super) fleet: Fleet,
    pub(super) limits: Limits,
    pub(super) snapshot: SnapshotId,
    pub(super) of: model::Fleet,
    pub(super) started: DateTime<Utc>,
    pub(super) threads: usize,
    pub(super) memory_limit_bytes: usize,
    pub(super) spill_dir: PathBuf,
    pub(super) progress: tokio::sync::mpsc::UnboundedSender<u64>,
}

/// What decoding found out about one host's answer.
#[derive(Debug, Default, Clone)]
pub(super) struct HostDecoded {
    pub(super) rows: u64,
    /// Schema columns that no payload had.
    pub(super) missing: Option<Arc<[String]>>,
    pub(super) problems: u64,
    pub(super) first_problem: Option<String>,
    pub(super) oversized_cells: u64,
}

/// What came of one table.
#[derive(Debug, Default)]
pub(super) struct TableDone {
    pub(super) table: String,
    pub(super) files: Vec<FileEntry>,
    pub(super) rows: u64,
    pub(super) without: Vec<String>,
    /// By their place in the fleet.
    pub(super) hosts: HashMap<u32, HostDecoded>,
    pub(super) problems: Vec<Problem>,
    pub(super) problems_total: u64,
    /// Lists of missing columns: most hosts of a fleet have the same.
    lists: HashSet<Arc<[String]>>,
}

/// Writes the rows and the prevalence of one table.
pub(super) async fn write_table(job: Arc<Job>, spec: TableSpec) -> Result<TableDone> {
    let started = std::time::Instant::now();
    let done = match write_in_memory(TableReader::new(Arc::clone(&job), spec.clone())).await? {
        Some(done) => done,
        None => write_spilling(TableReader::new(job, spec)).await?,
    };
    tracing::info!(
        table = done.table,
        rows = done.rows,
        seconds = started.elapsed().as_secs_f64(),
        "wrote table"
    );
    Ok(done)
}

/// A table that fits into the memory: decoded whole, then put in order. None, with nothing written, for one that turns
/// out not to.
async fn write_in_memory(reader: TableReader) -> Result<Option<TableDone>> {
    let memory = reader.job.memory_limit_bytes;
    if !reader.fits(memory) {
        return Ok(None);
    }
    let mut reader = Arc::new(reader);
    let mut done = TableDone { table: reader.spec.name.clone(), ..TableDone::default() };
    let Some(mut groups) = decode_within(&reader, memory, &mut done).await? else {
        tracing::info!(table = done.table, "the table is larger than it looked; it is sorted on disk");
        return Ok(None);
    };
    done.without = reader.exploding_in(&groups);
    if !done.without.is_empty() {
        let mut again = TableReader::new(Arc::clone(&reader.job), reader.spec.clone());
        again.leave_out(&done.without);
        reader = Arc::new(again);
        for group in &mut groups {
            group.ids = reader.identify(&group.rows, &group.payloads);
        }
    }
    let sorted = Sorted::new(groups);
    let mut writer = TableWriter::new(&reader, &mut done)?;
    for batch in sorted.batches(&reader) {
        writer.write(&batch?).await?;
        tokio::task::yield_now().await;
    }
    writer.close().await?;
    Ok(Some(done))
}

/// All rows of a table, if they can be held in so many bytes.
async fn decode_within(
    reader: &Arc<TableReader>,
    memory: usize,
    done: &mut TableDone,
) -> Result<Option<Vec<Group>>> {
    let (mut groups, mut held) = (Vec::new(), 0_usize);
    let mut decoding = std::pin::pin!(decoding(reader));
    while let Some(decoded) = decoding.next().await {
        let decoded = decoded?;
        held += decoded.groups.iter().map(Group::held_bytes).sum::<usize>();
        if held > memory {
            return Ok(None);
        }
        done.note(decoded.hosts, decoded.problems);
        groups.extend(decoded.groups);
    }
    Ok(Some(groups))
}

/// A table that does not: sorted with what does not fit on disk.
async fn write_spilling(mut reader: TableReader) -> Result<TableDone> {
    let without = reader.exploding()?;
    reader.leave_out(&without);
    let reader = Arc::new(reader);
    let (notes, mut noted) = tokio::sync::mpsc::unbounded_channel();
    let config = SortConfig {
        memory_limit_bytes: reader.job.memory_limit_bytes,
        spill_dir: Some(reader.job.spill_dir.clone()),
        batch_rows: 4096,
    };
    let mut sorted = sort_stream(rows_stream(&reader, notes), &SORTED_BY, &config)?;
    let mut done = TableDone { table: reader.spec.name.clone(), without, ..TableDone::default() };
    let mut writer = TableWriter::new(&reader, &mut done)?;
    while let Some(batch) = sorted.next().await {
        let batch = batch.map_err(|source| cannot_sort(&reader.spec.name, source))?;
        writer.write(&batch).await?;
    }
    writer.close().await?;
    while let Some((hosts, problems)) = noted.recv().await {
        done.note(hosts, problems);
    }
    Ok(done)
}

impl TableDone {
    fn note(&mut self, hosts: Vec<(u32, HostDecoded)>, problems: Vec<Problem>) {
        for (host, mut decoded) in hosts {
            decoded.missing = decoded.missing.map(|list| self.shared(list));
            self.problems_total += decoded.problems;
            self.hosts.entry(host).or_default().add(decoded);
        }
        let room = MOST_PROBLEMS.saturating_sub(self.problems.len());
        self.problems.extend(problems.into_iter().take(room));
    }

    fn shared(&mut self, list: Arc<[String]>) -> Arc<[String]> {
        match self.lists.get(&list) {
            Some(known) => Arc::clone(known),
            None => {
                self.lists.insert(Arc::clone(&list));
                list
            }
        }
    }
}

impl HostDecoded {
    fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.problems += other.problems;
        self.oversized_cells += other.oversized_cells;
        self.first_problem = self.first_problem.take().or(other.first_problem);
        self.missing = match (self.missing.take(), other.missing) {
            (Some(mine), Some(theirs)) if mine != theirs => {
                Some(mine.iter().filter(|name| theirs.contains(name)).cloned().collect())
            }
            (mine, theirs) => mine.or(theirs),
        };
    }
}

type Notes = tokio::sync::mpsc::UnboundedSender<(Vec<(u32, HostDecoded)>, Vec<Problem>)>;

/// All payloads of the table, decoded by as many threads as the machine has, in the order of the spool.
fn decoding(reader: &Arc<TableReader>) -> impl Stream<Item = Result<Decoded>> + Send + 'static {
    let payloads = reader.payloads();
    let threads = reader.job.threads.max(1);
    let of_stream = Arc::clone(reader);
    let tasks = (0..payloads).step_by(PAYLOADS_PER_TASK).map(move |first| {
        let reader = Arc::clone(&of_stream);
        let range = first..(first + PAYLOADS_PER_TASK).min(payloads);
        // On the runtime's own threads, a few milliseconds at a time: what a thread that comes and goes has allocated
        // stays with it.
        async move { tokio::spawn(async move { reader.decode(range) }).await }
    });
    stream::iter(tasks).buffered(threads).map(|joined| {
        joined
            .map_err(|source| Error::internal("a decoding task died").source(source))
            .and_then(|decoded| decoded)
    })
}

/// All rows of the table, with hosts, times and ids.
fn rows_stream(reader: &Arc<TableReader>, notes: Notes) -> SendableRecordBatchStream {
    let schema = Arc::clone(&reader.layout.schema);
    let of_stream = Arc::clone(reader);
    let batches = decoding(reader).map(move |decoded| {
        let decoded = decoded.map_err(|error| DataFusionError::External(Box::new(error)))?;
        // Nobody listens any more when writing failed; the stream is dropped next.
        let _ = notes.send((decoded.hosts, decoded.problems));
        let reader = Arc::clone(&of_stream);
        let stamped = decoded.groups.into_iter().map(move |group| {
            reader.stamped(&group).map_err(|error| DataFusionError::External(Box::new(error)))
        });
        Ok::<_, DataFusionError>(stream::iter(stamped))
    });
    let flat = futures::TryStreamExt::try_flatten(batches);
    Box::pin(RecordBatchStreamAdapter::new(schema, flat))
}

/// Writes parts and prevalence while the sorted rows stream past.
struct TableWriter<'a> {
    reader: &'a TableReader,
    done: &'a mut TableDone,
    part_schema: SchemaRef,
    part: Option<PartWriter>,
    prevalence: PrevalenceBuilder<'a>,
    lines: PartWriter,
}

impl<'a> TableWriter<'a> {
    fn new(reader: &'a TableReader, done: &'a mut TableDone) -> Result<Self> {
        let job = &reader.job;
        let prevalence = PrevalenceBuilder::new(&reader.layout, &reader.identifier, &job.fleet);
        let lines =
            job.store.prevalence_part(&reader.spec.name, (&job.of, job.snapshot), prevalence.schema())?;
        Ok(Self { reader, done, part_schema: reader.layout.part_schema(), part: None, prevalence, lines })
    }

    async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.done.rows += batch.num_rows() as u64;
        self.lines.write(&self.prevalence.push(batch)?).await?;
        let columns: Vec<usize> = (0..self.part_schema.fields().len()).collect();
        let rows = batch
            .project(&columns)
            .map_err(|source| Error::internal("cannot project sorted rows").source(source))?;
        let mut writer = match self.part.take() {
            Some(writer) => writer,
            None => {
                let job = &self.reader.job;
                let of = (&job.of, job.snapshot);
                job.store.rows_part(&self.reader.spec.name, of, self.done.files.len(), &self.part_schema)?
            }
        };
        writer.write(&rows).await?;
        if writer.is_full() {
            self.done.files.push(writer.close().await?);
        } else {
            self.part = Some(writer);
        }
        Ok(())
    }

    async fn close(mut self) -> Result<()> {
        if let Some(writer) = self.part {
            self.done.files.push(writer.close().await?);
        }
        self.lines.write(&self.prevalence.finish()?).await?;
        self.done.files.push(self.lines.close().await?);
        Ok(())
    }
}

/// Our own errors travel through DataFusion's stream and come out as themselves.
fn cannot_sort(table: &str, source: DataFusionError) -> Error {
    match source {
        DataFusionError::External(source) => match source.downcast::<Error>() {
            Ok(error) => *error,
            Err(source) => Error::remote("cannot sort rows").source(source).with("table", table),
        },
        source => Error::remote("cannot sort rows").source(source).with("table", table),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::testing::{self, Answered};
    use super::*;
    use crate::store::StoreConfig;

    async fn reader(dir: &Path, answers: &[Answered], memory_limit_bytes: usize) -> TableReader {
        let store = Store::open_or_create(dir.to_str().unwrap(), &StoreConfig::default()).await.unwrap();
        let spool = testing::spool(&dir.join("spool"), answers);
        let limits = Limits::default();
        let begin = testing::begin();
        let job = Job {
            store,
            fleet: Fleet::read(&spool, testing::catalog(), &limits).unwrap(),
            limits,
            snapshot: begin.snapshot,
            of: begin.fleet,
            started: begin.started,
            threads: 2,
            memory_limit_bytes,
            spill_dir: dir.to_owned(),
            progress: tokio::sync::mpsc::unbounded_channel().0,
            spool,
        };
        TableReader::new(Arc::new(job), testing::spec())
    }

    #[test]
    fn a_table_that_is_larger_than_it_looks_is_not_held() {
        const MEMORY: usize = 4 << 20;
        let rows: Vec<String> = (0..20_000).map(|row| format!(r#"{{"command":"{row}"}}"#)).collect();
        let answers = [Answered::new("a", &format!("[{}]", rows.join(","))), Answered::new("b", "[{}]")];
        let dir = tempfile::tempdir().unwrap();
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let reader = reader(dir.path(), &answers, MEMORY).await;
            assert!(reader.fits(MEMORY), "by its looks");
            let (job, spec) = (Arc::clone(&reader.job), reader.spec.clone());
            assert!(write_in_memory(reader).await.unwrap().is_none());
            let done = write_table(job, spec).await.unwrap();
            assert_eq!((done.rows, done.hosts.len()), (20_001, 2));
        });
    }
}
