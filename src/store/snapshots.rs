//! Snapshots as a whole: commit, verify, delete, and what unfinished ones leave behind.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path as FilePath, PathBuf};

use chrono::TimeDelta;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::manifest::{FileEntry, Manifest};
use super::spool::{self, Held};
use super::{Store, parse, paths, told};
use crate::error::{Error, Result};
use crate::model::{SnapshotId, now};

/// Files verified at once: on a disk, and over a network.
const VERIFIED: (usize, usize) = (2, 8);
/// So long after its start a collection may be running on another machine.
const LONGEST: TimeDelta = TimeDelta::hours(24);

/// What an unfinished collection left behind.
#[derive(Debug)]
pub struct Orphan {
    /// The snapshot that it would have been.
    pub snapshot: SnapshotId,
    /// What was received, when the spool is there.
    pub spool: Option<PathBuf>,
    /// Data files without a manifest.
    pub files: Vec<Path>,
    /// Whether it may be running on another machine: the store is shared, the spool is not here, and it is less than a
    /// day old.
    pub may_be_elsewhere: bool,
}

/// What [`Store::verify`] found out about one file.
#[derive(Debug)]
pub struct Verification {
    /// The file as the manifest has it.
    pub file: FileEntry,
    /// What is wrong with it; `None` when every byte is as it was written.
    pub problem: Option<String>,
}

impl Store {
    /// Commits a snapshot: from now on it exists.
    ///
    /// # Errors
    /// The manifest cannot be written, or there is one with this id.
    pub async fn commit(&self, manifest: &Manifest) -> Result<()> {
        self.sync(manifest.files.iter().map(|file| file.path.as_str()))?;
        let path = paths::manifest(&manifest.fleet, manifest.snapshot);
        if self.create(&path, manifest).await? {
            // The spool is removed next.
            return self.sync(std::iter::once(path.as_str()));
        }
        Err(Error::data(format!("snapshot `{}` is committed already", manifest.snapshot)))
    }

    /// Reads every byte of a snapshot again and compares sizes and digests with its manifest.
    ///
    /// # Errors
    /// Never for a damaged file: that is in the result.
    pub async fn verify(&self, manifest: &Manifest) -> Result<Vec<Verification>> {
        let checks = manifest.files.iter().map(|file| async move {
            let problem = self.check_file(file).await.err().map(|error| error.to_string());
            Ok(Verification { file: file.clone(), problem })
        });
        let at_once = if self.dir.is_some() { VERIFIED.0 } else { VERIFIED.1 };
        stream::iter(checks).buffered(at_once).try_collect().await
    }

    async fn check_file(&self, file: &FileEntry) -> Result<()> {
        let missing = |source| told::failed("cannot be read".to_owned(), None, source);
        let found = self.object_store().get(&parse(&file.path)?).await.map_err(missing)?;
        let mut bytes = found.into_stream();
        let mut hasher = blake3::Hasher::new();
        let mut length = 0;
        while let Some(chunk) = bytes.try_next().await.map_err(missing)? {
            hasher.update(&chunk);
            length += chunk.len() as u64;
        }
        if length != file.bytes {
            return Err(Error::data(format!("has {length} bytes, the manifest says {}", file.bytes)));
        }
        if hasher.finalize().to_hex().as_str() != file.blake3 {
            return Err(Error::data("has another BLAKE3 digest than the manifest says"));
        }
        Ok(())
    }

    /// Deletes a snapshot: first the manifest, so that it is gone at once, then its files.
    ///
    /// # Errors
    /// Something cannot be deleted; what is left is an orphan.
    pub async fn delete_snapshot(&self, manifest: &Manifest) -> Result<()> {
        self.delete(&parse(&paths::manifest(&manifest.fleet, manifest.snapshot))?).await?;
        let files: Result<Vec<Path>> = manifest.files.iter().map(|file| parse(&file.path)).collect();
        let mut files = files?;
        files.extend(self.list(&parse(&paths::findings_of(&manifest.fleet, manifest.snapshot))?).await?);
        self.delete_all(files).await
    }

    /// Unfinished collections: spools and data files without a manifest.
    ///
    /// # Errors
    /// The store cannot be listed.
    pub async fn orphans(&self) -> Result<Vec<Orphan>> {
        let mut found: BTreeMap<SnapshotId, Orphan> = BTreeMap::new();
        let empty = |snapshot| Orphan { snapshot, spool: None, files: Vec::new(), may_be_elsewhere: false };
        for folder in paths::SNAPSHOT_FOLDERS {
            for path in self.list(&Path::from(folder)).await? {
                let Some(snapshot) = paths::snapshot_of(&path) else { continue };
                found.entry(snapshot).or_insert_with(|| empty(snapshot)).files.push(path);
            }
        }
        // In this order: files whose collection is running have a spool, or by now a manifest.
        let spools = self.spools();
        let committed = self.committed().await?;
        found.retain(|snapshot, _| !committed.contains(snapshot));
        for (snapshot, path) in spools {
            found.entry(snapshot).or_insert_with(|| empty(snapshot)).spool = Some(path);
        }
        let youngest = now() - LONGEST;
        for orphan in found.values_mut() {
            let is_young = orphan.snapshot.time() > youngest;
            orphan.may_be_elsewhere = self.dir.is_none() && orphan.spool.is_none() && is_young;
        }
        Ok(found.into_values().collect())
    }

    /// Ids of manifests, readable or not: what an unreadable manifest names must not be taken for an orphan.
    async fn committed(&self) -> Result<BTreeSet<SnapshotId>> {
        let paths = self.list(&paths::manifests()).await?;
        Ok(paths.iter().filter_map(|path| path.filename()?.strip_suffix(".json")?.parse().ok()).collect())
    }

    /// Whether the snapshot has a manifest.
    ///
    /// # Errors
    /// The store cannot be listed, or the manifest cannot be read: it is named.
    pub async fn is_committed(&self, snapshot: SnapshotId) -> Result<bool> {
        let found = self.commits(None).await?;
        let Some(commit) = found.commits.iter().find(|commit| commit.snapshot == snapshot) else {
            return Ok(false);
        };
        let path = paths::manifest(&commit.fleet, snapshot);
        self.manifest(commit).await.map(|_| true).map_err(|source| {
            Error::data(format!("snapshot `{snapshot}` has a manifest that cannot be read"))
                .source(source)
                .hint(format!(
                    "what was received is still there: remove `{path}`, then `diffy snapshot recover`"
                ))
        })
    }

    pub(super) fn spools(&self) -> Vec<(SnapshotId, PathBuf)> {
        let spool = |entry: Scratch| entry.is_spool().then_some((entry.snapshot, entry.path));
        self.scratch().into_iter().filter_map(spool).collect()
    }

    fn scratch(&self) -> Vec<Scratch> {
        let Ok(entries) = std::fs::read_dir(self.scratch_dir()) else { return Vec::new() };
        entries.flatten().filter_map(|entry| Scratch::of(entry.path())).collect()
    }

    /// Deletes what an unfinished collection left behind, files that were being written included; of one that is
    /// committed, only what is no part of the snapshot. The caller holds its spool, where there is one.
    ///
    /// # Errors
    /// Something cannot be deleted, or it may be running on another machine.
    pub async fn delete_orphan(&self, orphan: &Orphan) -> Result<()> {
        if orphan.may_be_elsewhere {
            return Err(Error::usage(format!("`{}` may be running on another machine", orphan.snapshot)));
        }
        if self.is_committed(orphan.snapshot).await? {
            self.delete_staged_manifest(orphan.snapshot)?;
        } else {
            self.delete_staged(orphan).await?;
        }
        self.delete_scratch(orphan.snapshot)?;
        orphan.spool.as_deref().map_or(Ok(()), spool::remove)
    }

    /// Deletes the files of a snapshot that is not committed. In a directory these are whole folders: the object store
    /// hides files that it was writing (`NAME#1`), and a killed collection leaves them behind.
    ///
    /// # Errors
    /// Something cannot be deleted.
    pub async fn delete_staged(&self, orphan: &Orphan) -> Result<()> {
        let Some(root) = &self.dir else { return self.delete_all(orphan.files.clone()).await };
        let wanted = format!("snapshot={}", orphan.snapshot);
        for folder in paths::SNAPSHOT_FOLDERS {
            for dir in dirs_named(&root.join(folder), &wanted, 5) {
                remove_all(&dir)?;
                remove_empty_parents(&dir, root);
            }
        }
        self.delete_staged_manifest(orphan.snapshot)
    }

    /// Deletes a manifest that was being written.
    fn delete_staged_manifest(&self, snapshot: SnapshotId) -> Result<()> {
        let Some(root) = &self.dir else { return Ok(()) };
        let Ok(fleets) = std::fs::read_dir(root.join(paths::manifests().as_ref())) else { return Ok(()) };
        let wanted = format!("{snapshot}.json#");
        let of_fleet = fleets.flatten().filter_map(|fleet| std::fs::read_dir(fleet.path()).ok());
        for entry in of_fleet.flat_map(Iterator::flatten) {
            if entry.file_name().to_string_lossy().starts_with(&wanted) {
                remove_all(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Deletes the sort runs of a collection, whose spool the caller holds.
    pub(super) fn delete_scratch(&self, snapshot: SnapshotId) -> Result<()> {
        let of_it = self.scratch().into_iter().filter(|entry| entry.snapshot == snapshot);
        of_it.filter(|entry| !entry.is_spool()).try_for_each(|entry| remove_all(&entry.path))
    }

    /// What is in the scratch directory for collections that have no spool: they ended, or never began.
    fn stale_scratch(&self) -> Vec<Scratch> {
        // In this order: sort runs whose collection is running have a spool.
        let all = self.scratch();
        let spools: BTreeSet<SnapshotId> = self.spools().into_iter().map(|(snapshot, _)| snapshot).collect();
        let is_stale =
            |entry: &Scratch| !entry.is_spool() && !spools.contains(&entry.snapshot) && entry.is_free();
        all.into_iter().filter(is_stale).collect()
    }

    /// Deletes sort runs that no collection needs; how many, or how many there would be for `dry_run`.
    ///
    /// # Errors
    /// Something cannot be deleted.
    pub fn delete_stale_scratch(&self, dry_run: bool) -> Result<usize> {
        let stale = self.stale_scratch();
        if !dry_run {
            stale.iter().try_for_each(|entry| remove_all(&entry.path))?;
        }
        Ok(stale.len())
    }
}

/// An entry of the scratch directory.
struct Scratch {
    snapshot: SnapshotId,
    path: PathBuf,
}

impl Scratch {
    fn of(path: PathBuf) -> Option<Self> {
        let snapshot = path.file_name()?.to_str()?.split_once('.')?.0.parse().ok()?;
        Some(Self { snapshot, path })
    }

    fn is_spool(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "spool")
    }

    /// Not a spool that is about to get its name: such a one is locked.
    fn is_free(&self) -> bool {
        let is_new = self.path.extension().is_some_and(|extension| extension == spool::NEW);
        !is_new || matches!(Held::new(&self.path), Ok(Held::Ours(_)))
    }
}

/// Removes a file, or a directory with all that is in it; what is gone is fine.
fn remove_all(path: &FilePath) -> Result<()> {
    let is_dir = path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
    let removed = if is_dir { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::remote(format!("cannot remove `{}`", path.display())).source(source))
        }
        _ => Ok(()),
    }
}

/// Removes the directories above `path` that are empty now, up to `root`; another collection may be using them, and
/// then they stay.
fn remove_empty_parents(path: &FilePath, root: &FilePath) {
    for parent in path.ancestors().skip(1).take_while(|parent| *parent != root) {
        if std::fs::remove_dir(parent).is_err() {
            return;
        }
    }
}

/// Directories of that name below `dir`, at most `depth` levels down; links are not followed.
fn dirs_named(dir: &FilePath, name: &str, depth: usize) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy() == name {
            found.push(entry.path());
        } else if depth > 1 {
            found.extend(dirs_named(&entry.path(), name, depth - 1));
        }
    }
    found
}
