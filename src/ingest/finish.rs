//! Makes a snapshot of a spool.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::task::JoinSet;

use super::coverage;
use super::hosts::Fleet;
use super::table::{Job, TableDone, write_table};
use crate::catalog::Catalog;
use crate::decode::{Limits, Problem};
use crate::error::{Error, Result};
use crate::identity::ENCODING_VERSION;
use crate::model::{Coverage, Status, now, rfc3339};
use crate::store::{FORMAT, FileEntry, FileKind, IMPORT, Manifest, SpoolReader, Store};

/// Answers that are farther from the start of the collection are told of.
const OLD: chrono::TimeDelta = chrono::TimeDelta::days(1);

/// What making a snapshot may use.
#[derive(Debug, Clone)]
pub struct IngestConfig {
    /// Bounds of what a host may say.
    pub limits: Limits,
    /// Tables that are worked on at once, and decoding tasks of each.
    pub threads: usize,
    /// Memory of all sorts together, in bytes.
    pub memory_limit_bytes: usize,
}

/// Told how far the work is: payloads done, of how many.
pub type Watch<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

/// Lines of coverage that are held at once.
const COVERAGE_AT_ONCE: usize = 1 << 15;

/// A snapshot that was just committed.
#[derive(Debug)]
pub struct Finished {
    /// Its manifest.
    pub manifest: Manifest,
    /// What of its coverage a person should be told of, sorted by host and table.
    pub failures: Vec<Coverage>,
    /// What was wrong with rows; at most 50 of each table.
    pub problems: Vec<Problem>,
    /// How many rows or cells had something wrong.
    pub problems_total: u64,
}

/// Writes and commits the snapshot of a spool, then removes the spool.
///
/// # Errors
/// The store cannot be written: the spool stays, and a later call starts anew from it.
pub async fn finish(
    store: &Store,
    spool: SpoolReader,
    catalog: &Catalog,
    (config, watch): (&IngestConfig, Watch<'_>),
) -> Result<Finished> {
    let begin = spool.index().begin.clone();
    let spill = store.sort_dir(begin.snapshot)?;
    let fleet = Fleet::read(&spool, catalog, &config.limits)?;
    tracing::info!(hosts = fleet.names().len(), "read who the hosts are");
    let (progress, reports) = tokio::sync::mpsc::unbounded_channel();
    let tables_at_once = config.threads.clamp(1, 4);
    let job = Arc::new(Job {
        store: store.clone(),
        fleet,
        limits: config.limits.clone(),
        snapshot: begin.snapshot,
        of: begin.fleet,
        started: begin.started,
        threads: config.threads,
        memory_limit_bytes: config.memory_limit_bytes / tables_at_once,
        spill_dir: spill.path().to_owned(),
        progress,
        spool,
    });
    let done = tokio::select! {
        done = write_tables(&job, catalog, tables_at_once) => done?,
        () = report(&job, reports, watch) => return Err(Error::internal("progress ended early")),
    };
    tracing::info!("wrote all tables");
    let finished = commit(&job, catalog, done).await?;
    tracing::info!(snapshot = %finished.manifest.snapshot, "committed");
    drop(spill);
    job.spool.remove()?;
    Ok(finished)
}

/// Passes progress on for as long as there is work.
async fn report(job: &Job, mut reports: tokio::sync::mpsc::UnboundedReceiver<u64>, watch: Watch<'_>) {
    let index = job.spool.index();
    let total = index.tables().map(|table| index.payloads(table) as u64).sum();
    let mut sum = 0;
    while let Some(payloads) = reports.recv().await {
        sum += payloads;
        watch(sum.min(total), total);
    }
    std::future::pending::<()>().await;
}

async fn write_tables(
    job: &Arc<Job>,
    catalog: &Catalog,
    at_once: usize,
) -> Result<BTreeMap<String, TableDone>> {
    // The largest first, so that the last one is short.
    let index = job.spool.index();
    let mut tables: Vec<&str> = index.tables().collect();
    tables.sort_by_key(|table| std::cmp::Reverse(index.payloads(table)));
    let mut tables = tables.into_iter().map(|table| catalog.table_or_undeclared(table).into_owned());
    let mut done = BTreeMap::new();
    // Tasks of their own, so that tables are encoded on all cores; they end when this set does.
    let mut under_way = JoinSet::new();
    for spec in tables.by_ref().take(at_once) {
        under_way.spawn(write_table(Arc::clone(job), spec));
    }
    while let Some(joined) = under_way.join_next().await {
        let joined = joined.map_err(|source| Error::internal("a writing task died").source(source));
        match joined.flatten() {
            Ok(table) => done.insert(table.table.clone(), table),
            Err(error) => {
                // Nothing writes any more when the caller hears of it.
                under_way.shutdown().await;
                return Err(error);
            }
        };
        if let Some(spec) = tables.next() {
            under_way.spawn(write_table(Arc::clone(job), spec));
        }
    }
    Ok(done)
}

async fn commit(job: &Job, catalog: &Catalog, mut done: BTreeMap<String, TableDone>) -> Result<Finished> {
    let index = job.spool.index();
    let answered = index.answers.iter().map(|answer| answer.table().to_owned());
    let tables: BTreeSet<String> =
        index.begin.queries.keys().cloned().chain(answered).chain(done.keys().cloned()).collect();
    let mut lines = coverage::lines(index, (&job.fleet, &tables, &done));
    let (coverage, told) = write_coverage(job, &mut lines).await?;
    drop(lines);
    let mut files: Vec<FileEntry> =
        done.values_mut().flat_map(|table| std::mem::take(&mut table.files)).collect();
    files.push(coverage);
    files.push(write_hosts(job).await?);
    if index.import_ended && !index.imported.is_empty() {
        files.push(job.store.write_imported((&job.of, job.snapshot), &index.imported).await?);
    }
    files.sort_by(|a, b| (a.kind, &a.table, &a.path).cmp(&(b.kind, &b.table, &b.path)));
    let manifest = manifest(job, catalog, (&told, &done), files);
    job.store.commit(&manifest).await?;
    Ok(Finished {
        manifest,
        failures: told.failures,
        problems_total: done.values().map(|table| table.problems_total).sum(),
        problems: done.into_values().flat_map(|table| table.problems).collect(),
    })
}

async fn write_hosts(job: &Job) -> Result<FileEntry> {
    let hosts = job.fleet.table()?;
    let mut part = job.store.meta_part(FileKind::Hosts, (&job.of, job.snapshot), hosts.schema_ref())?;
    part.write(&hosts).await?;
    part.close().await
}

/// Writes the coverage some lines at a time: there is one for each host and table, a million of 20,000 hosts.
async fn write_coverage(
    job: &Job,
    lines: &mut (impl Iterator<Item = Coverage> + Send),
) -> Result<(FileEntry, Told)> {
    let mut told = Told::default();
    let none = coverage::table(&[])?;
    let mut part = job.store.meta_part(FileKind::Coverage, (&job.of, job.snapshot), none.schema_ref())?;
    loop {
        let some: Vec<Coverage> = lines.by_ref().take(COVERAGE_AT_ONCE).collect();
        part.write(&coverage::table(&some)?).await?;
        if some.is_empty() {
            return Ok((part.close().await?, told));
        }
        some.into_iter().for_each(|line| told.add(line));
    }
}

/// What is kept of the coverage when it is written.
#[derive(Debug, Default)]
struct Told {
    /// Hosts that said something; lines come host by host.
    heard: u64,
    last_heard: Option<String>,
    /// How many hosts answered for each table.
    answered: BTreeMap<String, u64>,
    failures: Vec<Coverage>,
}

impl Told {
    fn add(&mut self, line: Coverage) {
        // A table that nobody answered in full is named too: 0 is another thing than not said.
        *self.answered.entry(line.table.clone()).or_default() += u64::from(line.status.answered());
        if was_heard(&line) && self.last_heard.as_ref() != Some(&line.host) {
            self.heard += 1;
            self.last_heard = Some(line.host.clone());
        }
        if line.is_failure() {
            self.failures.push(line);
        }
    }
}

fn manifest(
    job: &Job,
    catalog: &Catalog,
    (told, done): (&Told, &BTreeMap<String, TableDone>),
    files: Vec<FileEntry>,
) -> Manifest {
    let index = job.spool.index();
    let hosts_asked = job.fleet.names().len() as u64;
    let without = |(table, done): (&String, &TableDone)| {
        (!done.without.is_empty()).then(|| (table.clone(), done.without.clone()))
    };
    Manifest {
        format: FORMAT,
        snapshot: job.snapshot,
        fleet: job.of.clone(),
        incident: index.begin.incident.clone(),
        started: index.begin.started,
        ended: now(),
        collected_by: index.begin.collected_by.clone(),
        collector: index.begin.collector.clone(),
        targets: index.begin.targets.clone(),
        diffy_version: env!("CARGO_PKG_VERSION").to_owned(),
        identity_version: ENCODING_VERSION,
        schemas_blake3: catalog.digest(),
        queries: index.begin.queries.clone(),
        hosts_asked,
        hosts_answered: told.heard,
        hosts_failed: hosts_asked - told.heard,
        answered: told.answered.clone(),
        rows: done.values().map(|table| table.rows).sum(),
        prevalence_without: done.iter().filter_map(without).collect(),
        warnings: warnings(job, catalog, done),
        files,
    }
}

/// The host said something for the table, if only in part.
fn was_heard(line: &Coverage) -> bool {
    line.status.answered() || line.rows > 0 || line.status == Status::Denied
}

fn warnings(job: &Job, catalog: &Catalog, done: &BTreeMap<String, TableDone>) -> Vec<String> {
    let index = job.spool.index();
    let mut warnings = index.warnings.clone();
    if index.begin.collector == IMPORT && !index.import_ended {
        warnings.push(
            "the import broke off: hosts and tables that it had not come to are missing here, and nothing tells which"
                .to_owned(),
        );
    }
    if index.torn_bytes > 0 {
        warnings.push(format!(
            "the collection was interrupted; its last {} bytes were no whole answer and are not here",
            index.torn_bytes
        ));
    }
    warnings.extend(ages(job));
    let undeclared: Vec<&str> =
        done.keys().map(String::as_str).filter(|table| catalog.table(table).is_none()).collect();
    if !undeclared.is_empty() {
        warnings.push(format!(
            "no schema declares {}: all columns are text and all of them are identity; `--schemas DIR` adds one",
            undeclared.iter().map(|table| format!("`{table}`")).collect::<Vec<_>>().join(", ")
        ));
    }
    for (table, done) in done.iter().filter(|(_, done)| done.problems_total > 0) {
        warnings.push(format!(
            "table `{table}`: {} cells or rows are not what the schema says; they are kept under `extra`",
            done.problems_total
        ));
    }
    warnings
}

/// Files that were imported may be old, or of different days: then hosts differ by their age.
fn ages(job: &Job) -> Option<String> {
    let index = job.spool.index();
    let times = || index.answers.iter().filter_map(|answer| answer.ended());
    let (oldest, newest) = (times().min()?, times().max()?);
    let started = index.begin.started;
    if started - oldest < OLD && newest - started < OLD {
        return None;
    }
    Some(format!("the rows were collected between {} and {}", rfc3339(oldest), rfc3339(newest)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::testing::{self, Answered};
    use super::*;
    use crate::store::StoreConfig;

    async fn finished(dir: &Path, answers: &[Answered]) -> (Store, Finished) {
        let store = Store::open_or_create(dir.to_str().unwrap(), &StoreConfig::default())
            .await
            .unwrap()
            .with_part_rows(5_000);
        let spool = testing::spool(&dir.join("spool"), answers);
        let config = IngestConfig { limits: Limits::default(), threads: 2, memory_limit_bytes: 64 << 20 };
        let finished = finish(&store, spool, testing::catalog(), (&config, &|_, _| {})).await.unwrap();
        (store, finished)
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_large_table_has_several_parts_in_one_order() {
        let answers: Vec<Answered> = (0..4)
            .map(|host| {
                let rows: Vec<String> = (0..5_000).map(|row| format!(r#"{{"command":"{row}"}}"#)).collect();
                Answered::new(&format!("h{host}"), &format!("[{}]", rows.join(",")))
            })
            .collect();
        let dir = tempfile::tempdir().unwrap();
        runtime().block_on(async {
            let (store, finished) = finished(dir.path(), &answers).await;
            let parts: Vec<&FileEntry> =
                finished.manifest.files.iter().filter(|file| file.kind == FileKind::Rows).collect();
            assert_eq!(parts.iter().map(|part| part.rows).sum::<u64>(), 20_000);
            assert!(parts.len() >= 2 && parts.iter().all(|part| part.rows < 10_000), "{parts:?}");
            let mut last: Vec<u8> = Vec::new();
            for part in parts {
                for batch in store.read_file(part).await.unwrap() {
                    let [loose, strict] = ["loose_id", "strict_id"].map(|name| {
                        datafusion::arrow::array::AsArray::as_fixed_size_binary(
                            batch.column_by_name(name).unwrap(),
                        )
                        .clone()
                    });
                    for row in 0..batch.num_rows() {
                        let key = [loose.value(row), strict.value(row)].concat();
                        assert!(key >= last, "{}", part.path);
                        last = key;
                    }
                }
            }
            assert!(
                store.verify(&finished.manifest).await.unwrap().iter().all(|check| check.problem.is_none())
            );
        });
    }

    #[test]
    fn nothing_but_the_snapshot_is_left() {
        let dir = tempfile::tempdir().unwrap();
        runtime().block_on(async {
            let (store, finished) =
                finished(dir.path(), &[Answered::new("a", "[]"), Answered::new("", "[{}]")]).await;
            assert_eq!((finished.manifest.hosts_asked, finished.manifest.rows), (2, 1));
            assert_eq!(std::fs::read_dir(dir.path().join("spool")).unwrap().count(), 0);
            assert!(store.orphans().await.unwrap().is_empty());
        });
    }
}
