//! The snapshots that an engine is over: known by their names, read when a query needs them.
//!
//! A listing says fleet, day and id of each snapshot. Which files it has is in its manifest, and that is read when a
//! query wants rows of this snapshot: after its filters on `fleet`, `dt` and `snapshot` were looked at.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use datafusion::common::ScalarValue;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::error::{DataFusionError, Result};
use object_store::ObjectMeta;
use object_store::path::Path;

use super::near::Near;
use super::table::StoredFile;
use crate::error::{Error, ErrorKind};
use crate::model::{Fleet, SnapshotId};
use crate::store::{Commit, FileEntry, FileKind, Manifest, Store};

/// Newest snapshots that are looked at for tables and columns that the catalog does not know.
const SAMPLED: usize = 20;

/// What a snapshot has.
#[derive(Debug)]
pub(super) struct Filed {
    pub(super) manifest: Manifest,
    /// By kind and table.
    pub(super) files: BTreeMap<(FileKind, String), Vec<StoredFile>>,
}

impl Filed {
    fn new(manifest: Manifest) -> Result<Self, Error> {
        let mut files: BTreeMap<_, Vec<StoredFile>> = BTreeMap::new();
        for entry in &manifest.files {
            let key = (entry.kind, entry.table.clone().unwrap_or_default());
            files.entry(key).or_default().push(stored_file(&manifest, entry)?);
        }
        Ok(Self { manifest, files })
    }
}

/// Snapshots by name, and the manifests of those that were read.
#[derive(Debug)]
pub(super) struct Archive {
    /// Who reads manifests; without it all were given.
    store: Option<Store>,
    near: Option<Arc<Near>>,
    /// Newest first.
    commits: Vec<Commit>,
    /// `None` for one that cannot be read.
    read: RwLock<HashMap<SnapshotId, Option<Arc<Filed>>>>,
    /// Held while manifests are read, so that none is read twice.
    reading: tokio::sync::Mutex<()>,
    damaged: Mutex<Vec<Error>>,
}

impl Archive {
    /// Over manifests that were read.
    ///
    /// # Errors
    /// One names a path that cannot be in a store.
    pub(super) fn of_manifests(manifests: &[Manifest], near: Option<Arc<Near>>) -> Result<Self, Error> {
        let archive = Self::of_commits(None, manifests.iter().map(Commit::from).collect(), near);
        for manifest in manifests {
            archive.keep(manifest.snapshot, Some(Filed::new(manifest.clone())?));
        }
        Ok(archive)
    }

    /// Over snapshots whose manifests `store` reads when they are needed.
    pub(super) fn of_commits(
        store: Option<Store>,
        mut commits: Vec<Commit>,
        near: Option<Arc<Near>>,
    ) -> Self {
        commits.sort_by_key(|commit| std::cmp::Reverse(commit.snapshot));
        let (read, reading, damaged) = Default::default();
        Self { store, near, commits, read, reading, damaged }
    }

    fn keep(&self, snapshot: SnapshotId, filed: Option<Filed>) {
        if let (Some(near), Some(filed)) = (&self.near, &filed) {
            let files = filed.files.values().flatten();
            near.know(files.map(|stored| (&stored.file.object_meta.location, stored.file.object_meta.size)));
        }
        let mut read = self.read.write().unwrap_or_else(PoisonError::into_inner);
        read.insert(snapshot, filed.map(Arc::new));
    }

    /// All snapshots, newest first.
    pub(super) fn commits(&self) -> &[Commit] {
        &self.commits
    }

    /// What was read, newest first.
    pub(super) fn known(&self) -> Vec<Arc<Filed>> {
        self.known_of(&self.commits)
    }

    fn known_of(&self, commits: &[Commit]) -> Vec<Arc<Filed>> {
        let read = self.read.read().unwrap_or_else(PoisonError::into_inner);
        commits.iter().filter_map(|commit| read.get(&commit.snapshot)?.clone()).collect()
    }

    /// What these snapshots have, in their order; reads the manifests that were not read yet. A damaged one is left
    /// out, and told by [`Self::damaged`].
    pub(super) async fn filed(&self, wanted: &[Commit]) -> Result<Vec<Arc<Filed>>> {
        let _turn = self.reading.lock().await;
        let missing: Vec<Commit> = {
            let read = self.read.read().unwrap_or_else(PoisonError::into_inner);
            wanted.iter().filter(|commit| !read.contains_key(&commit.snapshot)).cloned().collect()
        };
        if let Some(store) = self.store.as_ref().filter(|_| !missing.is_empty()) {
            let manifests = store.manifests(&missing).await;
            for (commit, manifest) in missing.iter().zip(manifests) {
                match manifest.and_then(Filed::new) {
                    Ok(filed) => self.keep(commit.snapshot, Some(filed)),
                    Err(error) if error.kind() == ErrorKind::Data => {
                        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).push(error);
                        self.keep(commit.snapshot, None);
                    }
                    Err(error) => return Err(DataFusionError::External(Box::new(error))),
                }
            }
        }
        Ok(self.known_of(wanted))
    }

    /// The newest snapshot of each fleet whose manifest can be read, newest first.
    pub(super) async fn newest(&self) -> Result<Vec<Commit>> {
        let mut newest = Vec::new();
        let mut left: BTreeMap<&Fleet, Vec<&Commit>> = BTreeMap::new();
        for commit in self.commits.iter().rev() {
            left.entry(&commit.fleet).or_default().push(commit);
        }
        // All fleets at once, then again those whose newest one is damaged.
        while !left.is_empty() {
            let next: Vec<Commit> = left.values_mut().filter_map(|commits| commits.pop().cloned()).collect();
            let filed = self.filed(&next).await?;
            newest.extend(filed.iter().map(|filed| Commit::from(&filed.manifest)));
            let found: BTreeSet<&Fleet> = filed.iter().map(|filed| &filed.manifest.fleet).collect();
            left.retain(|fleet, older| !found.contains(*fleet) && !older.is_empty());
        }
        newest.sort_by_key(|commit| std::cmp::Reverse(commit.snapshot));
        Ok(newest)
    }

    /// Reads the snapshots in which tables and columns are looked for: the newest of each fleet, and the newest of all.
    pub(super) async fn sample(&self) -> Result<()> {
        self.newest().await?;
        self.filed(&self.commits[..self.commits.len().min(SAMPLED)]).await.map(|_| ())
    }

    /// Manifests that were found to be damaged since the last time.
    pub(super) fn damaged(&self) -> Vec<Error> {
        std::mem::take(&mut *self.damaged.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Fetches small files that are far away, before they are asked for one after another.
    pub(super) async fn fetch(&self, files: impl Iterator<Item = &FileEntry>) {
        let Some(near) = &self.near else { return };
        near.fetch(files.filter_map(|file| Path::parse(&file.path).ok()).collect()).await;
    }
}

fn stored_file(manifest: &Manifest, entry: &FileEntry) -> Result<StoredFile, Error> {
    let location = Path::parse(&entry.path).map_err(|source| {
        Error::data(format!("`{}` is no path in a store", entry.path.escape_debug()))
            .source(source)
            .with("snapshot", manifest.snapshot)
            .hint("`diffy snapshot verify` checks a snapshot against its manifest")
    })?;
    let file = PartitionedFile::new_from_meta(ObjectMeta {
        location,
        // Files are written once, so size and path say all that a cache has to know.
        last_modified: chrono::DateTime::UNIX_EPOCH,
        size: entry.bytes,
        e_tag: None,
        version: None,
    })
    .with_partition_values(partition_values(&Commit::from(manifest)));
    Ok(StoredFile { file, rows: entry.rows, answered: answered(manifest, entry) })
}

/// Hosts that answered for the table of a file. Manifests that do not say it per table say it over all tables.
fn answered(manifest: &Manifest, entry: &FileEntry) -> u64 {
    let of_table = entry.table.as_ref().and_then(|table| manifest.answered.get(table));
    of_table.copied().unwrap_or(manifest.hosts_answered)
}

/// Values of the columns that every stored table has from its files' place.
pub(super) fn partition_values(commit: &Commit) -> Vec<ScalarValue> {
    let values = [commit.fleet.to_string(), commit.snapshot.dt(), commit.snapshot.to_string()];
    values.map(ScalarValue::from).to_vec()
}
