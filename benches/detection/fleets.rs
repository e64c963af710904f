//! Fleets in stores, made by the way that real ones take: collected or imported, spooled, ingested, committed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use diffy::catalog::Catalog;
use diffy::decode::{self, Chunk, ImportAnswer, ImportOptions, ImportSink, Limits};
use diffy::error::{Error, Result};
use diffy::ingest::{Asked, IngestConfig, Receiver, ask_hosts, finish};
use diffy::model::{SnapshotId, now};
use diffy::simulate::Simulation;
use diffy::store::{Manifest, SpoolBegin, SpoolWriter, Store, StoreConfig};

use crate::cell::Cell;
use crate::simulated;
use crate::truth::Truth;
use crate::write_json;

/// The fleet's name in its store.
const FLEET: &str = "bench";
/// The file beside the store that has the truth.
const TRUTH: &str = "truth.json";
/// Hosts asked at once.
const ASKED_AT_ONCE: usize = 8;

/// Where a fleet comes from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// The simulator.
    Simulated(Cell, u64),
    /// `HOST/TABLE.json` and `truth.json`, and perhaps the day before below `_history`.
    Directory(PathBuf),
}

/// What ingesting needs.
#[derive(Debug, Clone)]
pub(crate) struct Plant {
    /// The tables.
    pub(crate) catalog: Arc<Catalog>,
    /// Threads and memory of one fleet.
    pub(crate) config: IngestConfig,
    /// Whether anybody wants the day before.
    pub(crate) wants_past: bool,
}

/// A fleet in a store of its own.
#[derive(Debug)]
pub(crate) struct Fleet {
    /// Its store.
    pub(crate) store: Store,
    /// The snapshot to judge.
    pub(crate) today: Manifest,
    /// The clean snapshot of the day before.
    pub(crate) before: Option<Manifest>,
    /// What was planted.
    pub(crate) truth: Truth,
}

impl Source {
    /// The line of the table that it belongs to.
    pub(crate) fn cell(&self) -> String {
        match self {
            Self::Simulated(cell, _) => cell.to_string(),
            Self::Directory(path) => {
                path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
            }
        }
    }

    /// A name for its directory.
    pub(crate) fn slug(&self) -> String {
        let name = match self {
            Self::Simulated(cell, seed) => format!("{cell} {seed}"),
            Self::Directory(path) => path.display().to_string(),
        };
        let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
        name.chars().map(plain).collect()
    }

    /// Its seed; a directory has none.
    pub(crate) fn seed(&self) -> Option<u64> {
        match self {
            Self::Simulated(_, seed) => Some(*seed),
            Self::Directory(_) => None,
        }
    }
}

impl Plant {
    /// Makes a fleet, its store below `dir`.
    ///
    /// # Errors
    /// The simulator, the files or the store fail.
    pub(crate) async fn fleet(&self, source: &Source, dir: &Path) -> Result<Fleet> {
        let (place, file) = (dir.join("store"), dir.join(TRUTH));
        if let Some(kept) = self.kept(&place, &file).await? {
            return Ok(kept);
        }
        // What is there is unfinished, or lacks the day before.
        let _ = std::fs::remove_dir_all(&place);
        let store = Store::open_or_create(&place.display().to_string(), &StoreConfig::default()).await?;
        let fleet = self.make(source, store).await?;
        // Last: a fleet without it is unfinished.
        write_json(&file, &fleet.truth)?;
        Ok(fleet)
    }

    /// What an earlier run made here.
    async fn kept(&self, place: &Path, truth: &Path) -> Result<Option<Fleet>> {
        let Ok(text) = std::fs::read(truth) else { return Ok(None) };
        let Ok(truth) = serde_json::from_slice(&text) else { return Ok(None) };
        let store = Store::open(&place.display().to_string(), &StoreConfig::default()).await?;
        let mut manifests = store.snapshots(None).await?.manifests;
        manifests.sort_by_key(|manifest| manifest.started);
        let Some(today) = manifests.pop() else { return Ok(None) };
        let before = manifests.pop();
        let has_all = before.is_some() || !self.wants_past;
        Ok(has_all.then(|| Fleet { store, today, before, truth }))
    }

    async fn make(&self, source: &Source, store: Store) -> Result<Fleet> {
        match source {
            Source::Simulated(cell, seed) => self.simulated(store, cell, *seed).await,
            Source::Directory(path) => self.imported(store, path).await,
        }
    }

    async fn simulated(&self, store: Store, cell: &Cell, seed: u64) -> Result<Fleet> {
        let before = match self.wants_past {
            true => Some(self.collect(&store, simulated::simulate(cell, seed, 1)?, yesterday()).await?),
            false => None,
        };
        let simulation = simulated::simulate(cell, seed, 0)?;
        let truth = simulated::truth(&simulation);
        let today = self.collect(&store, simulation, now()).await?;
        Ok(Fleet { store, today, before, truth })
    }

    async fn collect(&self, store: &Store, fleet: Simulation, at: DateTime<Utc>) -> Result<Manifest> {
        let mut receiver = self.receiver(store, "simulated", at)?;
        let hosts = fleet.hosts();
        hosts.iter().try_for_each(|host| receiver.host(host))?;
        let tables = self.catalog.tables().filter(|table| table.default).cloned().collect();
        let how = (Arc::clone(&self.catalog), Limits::default(), ASKED_AT_ONCE);
        let mut answers = ask_hosts(Arc::new(Arc::new(fleet).collector()), hosts, tables, how);
        while let Some(asked) = answers.recv().await {
            match asked {
                Asked::Answer(prepared) => receiver.answer(&prepared)?,
                Asked::HostDone => {}
                Asked::Failed(error) => return Err(error),
            }
        }
        self.finish(store, receiver).await
    }

    async fn imported(&self, store: Store, dir: &Path) -> Result<Fleet> {
        let truth = Truth::read(&dir.join("truth.json"), &self.catalog)?;
        let history = dir.join("_history");
        let before = match self.wants_past && history.is_dir() {
            true => Some(self.import(&store, &history, yesterday()).await?),
            false => None,
        };
        let today = self.import(&store, dir, now()).await?;
        Ok(Fleet { store, today, before, truth })
    }

    async fn import(&self, store: &Store, dir: &Path, at: DateTime<Utc>) -> Result<Manifest> {
        let mut receiver = self.receiver(store, "import", at)?;
        let paths = host_directories(dir)?;
        decode::import(&paths, &ImportOptions::default(), &self.catalog, &mut Sink(&mut receiver))?;
        self.finish(store, receiver).await
    }

    fn receiver(&self, store: &Store, collector: &str, started: DateTime<Utc>) -> Result<Receiver<'_>> {
        let begin = SpoolBegin {
            snapshot: SnapshotId::new(started),
            fleet: FLEET.parse()?,
            incident: None,
            started,
            collected_by: FLEET.to_owned(),
            collector: collector.to_owned(),
            targets: Vec::new(),
            queries: BTreeMap::new(),
        };
        Ok(Receiver::new(&self.catalog, SpoolWriter::create(store.spool_path(begin.snapshot), &begin)?))
    }

    async fn finish(&self, store: &Store, receiver: Receiver<'_>) -> Result<Manifest> {
        let spool = receiver.into_reader()?;
        Ok(finish(store, spool, &self.catalog, (&self.config, &|_, _| {})).await?.manifest)
    }
}

fn yesterday() -> DateTime<Utc> {
    now() - TimeDelta::days(1)
}

/// The directories of hosts: `truth.json` beside them is no host.
fn host_directories(dir: &Path) -> Result<Vec<PathBuf>> {
    let cannot = |source| Error::usage(format!("cannot read `{}`", dir.display())).source(source);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        let is_host = !entry.file_name().to_string_lossy().starts_with('_');
        if is_host && entry.path().is_dir() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Hands what an import finds to the spool.
struct Sink<'a, 'b>(&'a mut Receiver<'b>);

impl ImportSink for Sink<'_, '_> {
    fn host(&mut self, host: &str) -> Result<()> {
        self.0.host(host)
    }

    fn rows(&mut self, host: &str, table: &str, chunk: Chunk) -> Result<()> {
        self.0.rows(host, table, chunk)
    }

    fn answered(&mut self, answer: ImportAnswer) -> Result<()> {
        self.0.answered(answer.coverage())
    }
}
