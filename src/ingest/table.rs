//! One table of a snapshot: decode, identify, sort, write parts and prevalence.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use datafusion::arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};

use super::batches::{Layout, SORTED_BY};
use super::hosts::Fleet;
use super::prevalence::{PrevalenceBuilder, exploding_columns};
use crate::catalog::TableSpec;
use crate::decode::{Limits, Origin, Problem, decode};
use crate::engine::{SortConfig, sort_stream};
use crate::error::{Error, Result};
use crate::identity::Identifier;
use crate::model::{self, SnapshotId, now};
use crate::store::{FileEntry, SpoolReader, Store};

/// Payloads that one task decodes: most hold a few dozen rows.
const PAYLOADS_PER_TASK: usize = 32;
/// Payloads of other hosts that are looked at before the grain of prevalence is settled.
const SAMPLED_PAYLOADS: usize = 64;
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
    pub(super) missing: Option<Vec<String>>,
    pub(super) problems: u64,
    pub(super) first_problem: Option<String>,
    pub(super) oversized_cells: u64,
}

/// What came of one table.
#[derive(Debug, Default)]
pub(super) struct TableDone {
    pub(super) files: Vec<FileEntry>,
    pub(super) rows: u64,
    pub(super) without: Vec<String>,
    pub(super) hosts: HashMap<String, HostDecoded>,
    pub(super) problems: Vec<Problem>,
    pub(super) problems_total: u64,
}

/// Payloads decoded together.
struct Decoded {
    batches: Vec<RecordBatch>,
    hosts: Vec<(String, HostDecoded)>,
    problems: Vec<Problem>,
}

/// How rows of one table are read.
#[derive(Debug)]
struct TableReader {
    job: Arc<Job>,
    spec: TableSpec,
    layout: Layout,
    identifier: Identifier,
    /// When each host answered.
    answered_at: HashMap<String, DateTime<Utc>>,
}

/// When the hosts answered for a table, as far as their answers say so and can be believed.
fn answered_at(job: &Job, table: &str) -> HashMap<String, DateTime<Utc>> {
    let latest = now();
    let answers = job.spool.index().answers.iter().filter(|answer| answer.table == table);
    let known = answers.filter_map(|answer| Some((answer.host.clone(), answer.ended?)));
    known.filter(|(_, ended)| *ended <= latest).collect()
}

/// Writes the rows and the prevalence of one table.
pub(super) async fn write_table(job: Arc<Job>, spec: TableSpec) -> Result<TableDone> {
    let layout = Layout::new(&spec, job.spool.index());
    let mut identifier = Identifier::new(&spec, &layout.table_columns, &[]);
    let answered_at = answered_at(&job, &spec.name);
    let mut reader = TableReader { job: Arc::clone(&job), spec, layout, identifier, answered_at };
    let without = reader.exploding()?;
    identifier = Identifier::new(&reader.spec, &reader.layout.table_columns, &without);
    reader.identifier = identifier;
    let reader = Arc::new(reader);

    let (notes, mut noted) = tokio::sync::mpsc::unbounded_channel();
    let config = SortConfig {
        memory_limit_bytes: job.memory_limit_bytes,
        spill_dir: Some(job.spill_dir.clone()),
        batch_rows: 4096,
    };
    let sorted = sort_stream(rows_stream(&reader, notes), &SORTED_BY, &config)?;
    let started = std::time::Instant::now();
    let mut done = write_sorted(&reader, sorted).await?;
    tracing::info!(
        table = reader.spec.name,
        rows = done.rows,
        seconds = started.elapsed().as_secs_f64(),
        "wrote table"
    );
    done.without = without;
    while let Some((hosts, problems)) = noted.recv().await {
        done.note(hosts, problems);
    }
    Ok(done)
}

impl TableDone {
    fn note(&mut self, hosts: Vec<(String, HostDecoded)>, problems: Vec<Problem>) {
        for (host, decoded) in hosts {
            self.problems_total += decoded.problems;
            self.hosts.entry(host).or_default().add(decoded);
        }
        let room = MOST_PROBLEMS.saturating_sub(self.problems.len());
        self.problems.extend(problems.into_iter().take(room));
    }
}

impl HostDecoded {
    fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.problems += other.problems;
        self.oversized_cells += other.oversized_cells;
        self.first_problem = self.first_problem.take().or(other.first_problem);
        self.missing = match (self.missing.take(), other.missing) {
            (Some(mine), Some(theirs)) => {
                Some(mine.into_iter().filter(|name| theirs.contains(name)).collect())
            }
            (mine, theirs) => mine.or(theirs),
        };
    }
}

type Notes = tokio::sync::mpsc::UnboundedSender<(Vec<(String, HostDecoded)>, Vec<Problem>)>;

/// All rows of the table, decoded and stamped by as many threads as the machine has, in the order of the spool.
fn rows_stream(reader: &Arc<TableReader>, notes: Notes) -> SendableRecordBatchStream {
    let payloads = reader.job.spool.index().payloads(&reader.spec.name);
    let schema = Arc::clone(&reader.layout.schema);
    let threads = reader.job.threads.max(1);
    let of_stream = Arc::clone(reader);
    let tasks = (0..payloads).step_by(PAYLOADS_PER_TASK).map(move |first| {
        let reader = Arc::clone(&of_stream);
        let range = first..(first + PAYLOADS_PER_TASK).min(payloads);
        async move { tokio::task::spawn_blocking(move || reader.decode(range)).await }
    });
    let batches = stream::iter(tasks).buffered(threads).map(move |joined| {
        let decoded = joined
            .map_err(|source| Error::internal("a decoding task died").source(source))
            .and_then(|decoded| decoded)
            .map_err(|error| DataFusionError::External(Box::new(error)))?;
        // Nobody listens any more when writing failed; the stream is dropped next.
        let _ = notes.send((decoded.hosts, decoded.problems));
        Ok::<_, DataFusionError>(stream::iter(decoded.batches.into_iter().map(Ok)))
    });
    let flat = futures::TryStreamExt::try_flatten(batches);
    Box::pin(RecordBatchStreamAdapter::new(schema, flat))
}

impl TableReader {
    /// The columns to leave out of the grain, found on payloads spread over the whole spool.
    fn exploding(&self) -> Result<Vec<String>> {
        let payloads = self.job.spool.index().payloads(&self.spec.name);
        if payloads < 8 {
            return Ok(Vec::new());
        }
        let step = payloads.div_ceil(SAMPLED_PAYLOADS);
        let mut sample = Vec::new();
        for number in (0..payloads).step_by(step) {
            sample.extend(self.decode(number..number + 1)?.batches);
        }
        let columns: Vec<_> = self.identifier.grain_columns().cloned().collect();
        Ok(exploding_columns(&sample, &columns))
    }

    fn decode(&self, range: std::ops::Range<usize>) -> Result<Decoded> {
        let mut done = Decoded { batches: Vec::new(), hosts: Vec::new(), problems: Vec::new() };
        let payloads = range.len() as u64;
        for number in range {
            let (header, json) = self.job.spool.rows(&self.spec.name, number)?;
            let origin = Origin { source: header.source, line: header.line, column: header.column };
            let decoded = decode(&json, &origin, &self.spec, &self.job.limits);
            let ids = self.identifier.identify(&decoded.batch, self.job.fleet.own_names(&header.host))?;
            let at = self.answered_at.get(&header.host).copied().unwrap_or(self.job.started);
            done.batches.push(self.layout.stamp(&decoded.batch, &header.host, at, ids)?);
            let note = HostDecoded {
                rows: decoded.batch.num_rows() as u64,
                missing: Some(decoded.missing),
                problems: decoded.problems_total,
                first_problem: decoded.problems.first().map(ToString::to_string),
                oversized_cells: decoded.oversized_cells,
            };
            done.hosts.push((header.host, note));
            done.problems.extend(decoded.problems);
        }
        let _ = self.job.progress.send(payloads);
        Ok(done)
    }
}

/// Writes parts and prevalence while the sorted rows stream past.
async fn write_sorted(reader: &TableReader, mut sorted: SendableRecordBatchStream) -> Result<TableDone> {
    let job = &reader.job;
    let table = reader.spec.name.as_str();
    let of = (&job.of, job.snapshot);
    let part_schema = reader.layout.part_schema();
    let columns: Vec<usize> = (0..part_schema.fields().len()).collect();
    let mut prevalence = PrevalenceBuilder::new(&reader.layout, &reader.identifier, &job.fleet);
    let mut lines = job.store.prevalence_part(table, of, prevalence.schema())?;
    let mut done = TableDone::default();
    let mut part = None;
    while let Some(batch) = sorted.next().await {
        let batch = batch.map_err(|source| cannot_sort(table, source))?;
        done.rows += batch.num_rows() as u64;
        lines.write(&prevalence.push(&batch)?).await?;
        let rows = batch
            .project(&columns)
            .map_err(|source| Error::internal("cannot project sorted rows").source(source))?;
        let mut writer = match part.take() {
            Some(writer) => writer,
            None => job.store.rows_part(table, of, done.files.len(), &part_schema)?,
        };
        writer.write(&rows).await?;
        if writer.is_full() {
            done.files.push(writer.close().await?);
        } else {
            part = Some(writer);
        }
    }
    if let Some(writer) = part {
        done.files.push(writer.close().await?);
    }
    lines.write(&prevalence.finish()?).await?;
    done.files.push(lines.close().await?);
    Ok(done)
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
