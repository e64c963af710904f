//! Snapshots as a whole: commit, list, verify, delete, and what unfinished ones leave behind.

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::manifest::{FileEntry, Manifest};
use super::{FORMAT, Store, parse, paths};
use crate::error::{Error, Result};
use crate::model::{Fleet, SnapshotId};

/// Manifests read at once.
const CONCURRENT_READS: usize = 16;

/// The committed snapshots of a store, oldest first.
#[derive(Debug, Default)]
pub struct Listing {
    /// Manifests that could be read.
    pub manifests: Vec<Manifest>,
    /// Manifests that could not, and why.
    pub unreadable: Vec<Error>,
}

/// What an unfinished collection left behind.
#[derive(Debug)]
pub struct Orphan {
    /// The snapshot that it would have been.
    pub snapshot: SnapshotId,
    /// What was received, when the spool is there.
    pub spool: Option<PathBuf>,
    /// Data files without a manifest.
    pub files: Vec<Path>,
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
        self.sync(&manifest.files)?;
        let path = paths::manifest(&manifest.fleet, manifest.snapshot);
        if self.create(&path, manifest).await? {
            return Ok(());
        }
        Err(Error::data(format!("snapshot `{}` is committed already", manifest.snapshot)))
    }

    /// All committed snapshots, of one fleet or of all.
    ///
    /// # Errors
    /// The store cannot be listed. A manifest that cannot be read is in the listing.
    pub async fn snapshots(&self, fleet: Option<&Fleet>) -> Result<Listing> {
        let prefix =
            fleet.map_or_else(|| Ok(paths::manifests()), |fleet| parse(&paths::manifests_of(fleet)))?;
        let found: Vec<Result<Manifest>> = stream::iter(self.list(&prefix).await?)
            .map(|path| async move { self.read_manifest(&path).await })
            .buffer_unordered(CONCURRENT_READS)
            .collect()
            .await;
        let mut listing = Listing::default();
        for manifest in found {
            match manifest {
                Ok(manifest) => listing.manifests.push(manifest),
                Err(error) => listing.unreadable.push(error),
            }
        }
        listing.manifests.sort_by_key(|manifest| manifest.snapshot);
        Ok(listing)
    }

    async fn read_manifest(&self, path: &Path) -> Result<Manifest> {
        let bytes =
            self.get(path.as_ref()).await?.ok_or_else(|| Error::data(format!("`{path}` vanished")))?;
        let unreadable = |source: serde_json::Error| {
            Error::data(format!("manifest `{path}` cannot be read")).source(source)
        };
        // The format first: a newer manifest may have other fields.
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(unreadable)?;
        let format = value.get("format").and_then(serde_json::Value::as_u64).unwrap_or(0);
        if format > u64::from(FORMAT) {
            return Err(Error::data(format!(
                "manifest `{path}` has format {format}; this Diffy reads {FORMAT}"
            ))
            .hint("use a newer Diffy"));
        }
        serde_json::from_value(value).map_err(unreadable)
    }

    /// The committed snapshot of that id, or the newest of `fleet` for `None`.
    ///
    /// # Errors
    /// There is none; the message names what there is.
    pub async fn snapshot(&self, id: Option<SnapshotId>, fleet: Option<&Fleet>) -> Result<Manifest> {
        let listing = self.snapshots(fleet).await?;
        let of_fleet = fleet.map_or_else(String::new, |fleet| format!(" of fleet `{fleet}`"));
        let found = match id {
            Some(id) => listing.manifests.into_iter().find(|manifest| manifest.snapshot == id),
            None => listing.manifests.into_iter().next_back(),
        };
        if let Some(manifest) = found {
            return Ok(manifest);
        }
        let wanted = id.map_or_else(|| "no snapshot".to_owned(), |id| format!("no snapshot `{id}`"));
        let error = Error::usage(format!("store `{}` has {wanted}{of_fleet}", self.name()));
        Err(match listing.unreadable.into_iter().next() {
            Some(unreadable) => error.source(unreadable),
            None => error.hint(self.fleets_hint().await),
        })
    }

    async fn fleets_hint(&self) -> String {
        let listing = self.snapshots(None).await.unwrap_or_default();
        let mut fleets: Vec<&str> =
            listing.manifests.iter().map(|manifest| manifest.fleet.as_str()).collect();
        fleets.sort_unstable();
        fleets.dedup();
        if fleets.is_empty() {
            return "the store is empty; `diffy collect` and `diffy import` fill it".to_owned();
        }
        format!("`diffy snapshot list` shows them; fleets here: {}", fleets.join(", "))
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
        stream::iter(checks).buffered(2).try_collect().await
    }

    async fn check_file(&self, file: &FileEntry) -> Result<()> {
        let missing = |source| Error::data("cannot be read").source(source);
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
        for file in &manifest.files {
            self.delete(&parse(&file.path)?).await?;
        }
        for path in self.list(&paths::findings()).await? {
            if paths::snapshot_of(&path) == Some(manifest.snapshot) {
                self.delete(&path).await?;
            }
        }
        Ok(())
    }

    /// Unfinished collections: spools and data files without a manifest.
    ///
    /// # Errors
    /// The store cannot be listed.
    pub async fn orphans(&self) -> Result<Vec<Orphan>> {
        let committed = self.committed().await?;
        let mut found: BTreeMap<SnapshotId, Orphan> = BTreeMap::new();
        let empty = |snapshot| Orphan { snapshot, spool: None, files: Vec::new() };
        for (snapshot, path) in self.spools() {
            found.entry(snapshot).or_insert_with(|| empty(snapshot)).spool = Some(path);
        }
        for folder in paths::SNAPSHOT_FOLDERS {
            for path in self.list(&Path::from(folder)).await? {
                let Some(snapshot) = paths::snapshot_of(&path) else { continue };
                if !committed.contains(&snapshot) {
                    found.entry(snapshot).or_insert_with(|| empty(snapshot)).files.push(path);
                }
            }
        }
        Ok(found.into_values().collect())
    }

    /// Ids of manifests, readable or not: what an unreadable manifest names must not be taken for an orphan.
    async fn committed(&self) -> Result<std::collections::BTreeSet<SnapshotId>> {
        let paths = self.list(&paths::manifests()).await?;
        Ok(paths.iter().filter_map(|path| path.filename()?.strip_suffix(".json")?.parse().ok()).collect())
    }

    /// Whether the snapshot has a manifest.
    ///
    /// # Errors
    /// The store cannot be listed.
    pub async fn is_committed(&self, snapshot: SnapshotId) -> Result<bool> {
        Ok(self.committed().await?.contains(&snapshot))
    }

    fn spools(&self) -> Vec<(SnapshotId, PathBuf)> {
        let Ok(entries) = std::fs::read_dir(self.scratch_dir()) else { return Vec::new() };
        let snapshot_of = |path: PathBuf| {
            let id = path.file_name()?.to_str()?.strip_suffix(".spool")?.parse().ok()?;
            Some((id, path))
        };
        entries.flatten().filter_map(|entry| snapshot_of(entry.path())).collect()
    }

    /// Deletes what an unfinished collection left behind, files that were being written included.
    ///
    /// # Errors
    /// Something cannot be deleted.
    pub async fn delete_orphan(&self, orphan: &Orphan) -> Result<()> {
        for path in &orphan.files {
            self.delete(path).await?;
        }
        self.delete_staged(orphan.snapshot)?;
        if let Some(spool) = &orphan.spool {
            std::fs::remove_file(spool).map_err(|source| {
                Error::remote(format!("cannot remove `{}`", spool.display())).source(source)
            })?;
        }
        Ok(())
    }

    /// Deletes the folders of a snapshot that is not committed: the object store hides files that it was writing
    /// (`NAME#1`), and a killed collection leaves them behind.
    ///
    /// # Errors
    /// A folder cannot be deleted.
    pub fn delete_staged(&self, snapshot: SnapshotId) -> Result<()> {
        let wanted = format!("snapshot={snapshot}");
        for folder in paths::SNAPSHOT_FOLDERS {
            for dir in dirs_named(&self.dir.join(folder), &wanted, 5) {
                std::fs::remove_dir_all(&dir).map_err(|source| {
                    Error::remote(format!("cannot remove `{}`", dir.display())).source(source)
                })?;
            }
        }
        Ok(())
    }
}

/// Directories of that name below `dir`, at most `depth` levels down; links are not followed.
fn dirs_named(dir: &std::path::Path, name: &str, depth: usize) -> Vec<PathBuf> {
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
