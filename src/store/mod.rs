//! The store: immutable snapshots as Hive-partitioned Parquet over an object store. The only room that spells a path
//! or a Parquet option.
//!
//! A snapshot exists when its manifest exists. Manifests are written last and create-only; nothing that a manifest
//! names is ever written again.

mod baselines;
mod manifest;
mod parts;
mod paths;
mod read;
mod snapshots;
mod spool;

use std::collections::BTreeSet;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::datatypes::SchemaRef;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::{Deserialize, Serialize};

pub use self::baselines::{Baseline, BaselineOrigin, BaselineTable};
pub use self::manifest::{FileEntry, FileKind, Manifest};
pub use self::parts::PartWriter;
pub use self::snapshots::{Listing, Orphan, Verification};
pub use self::spool::{Frame, Held, RowsHeader, SpoolBegin, SpoolIndex, SpoolReader, SpoolWriter, pack};
use crate::error::{Error, Result};
use crate::model::{Fleet, SnapshotId, now, rfc3339};

/// Version of the layout on disk.
pub const FORMAT: u32 = 1;

/// Content of the file that makes a directory a store.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    format: u32,
    created: String,
    diffy_version: String,
}

/// An open store.
#[derive(Debug, Clone)]
pub struct Store {
    object_store: Arc<dyn ObjectStore>,
    dir: PathBuf,
    name: String,
    part_rows: u64,
}

impl Store {
    /// Opens a store that exists.
    ///
    /// # Errors
    /// There is none, it is no store, or a newer Diffy made it; the message says which.
    pub async fn open(url: &str) -> Result<Self> {
        let dir = local_dir(url)?;
        if !dir.exists() {
            return Err(Error::usage(format!("there is no store at `{url}`"))
                .hint("`diffy collect` and `diffy import` make one; `--store` names another place"));
        }
        if !dir.is_dir() {
            return Err(is_no_store(url));
        }
        let store = Self::at(&dir, url)?;
        match store.marker().await? {
            Some(marker) => store.check_format(&marker)?,
            None => return Err(is_no_store(url)),
        }
        Ok(store)
    }

    /// Opens a store, or makes one where there is nothing yet.
    ///
    /// # Errors
    /// As [`Self::open`]; also when the place has other files in it, or cannot be written.
    pub async fn open_or_create(url: &str) -> Result<Self> {
        let dir = local_dir(url)?;
        std::fs::create_dir_all(&dir).map_err(|source| {
            Error::remote(format!("cannot create store `{url}`"))
                .source(source)
                .hint("`--store` names another place")
        })?;
        let store = Self::at(&dir, url)?;
        match store.marker().await? {
            Some(marker) => store.check_format(&marker)?,
            None if is_empty(&dir) => store.write_marker().await?,
            // Another collection may have made it meanwhile.
            None => match store.marker().await? {
                Some(marker) => store.check_format(&marker)?,
                None => return Err(is_no_store(url)),
            },
        }
        Ok(store)
    }

    fn at(dir: &FilePath, url: &str) -> Result<Self> {
        let cannot = |source: Box<dyn std::error::Error + Send + Sync>| {
            Error::remote(format!("cannot open store `{url}`")).source(source)
        };
        let dir = dir.canonicalize().map_err(|source| cannot(source.into()))?;
        let below = LocalFileSystem::new_with_prefix(&dir).map_err(|source| cannot(source.into()))?;
        let object_store = Arc::new(below.with_automatic_cleanup(true));
        Ok(Self { object_store, dir, name: url.to_owned(), part_rows: parts::PART_ROWS })
    }

    /// Starts a new part of a table after so many rows.
    #[cfg(test)]
    pub(crate) fn with_part_rows(self, part_rows: u64) -> Self {
        Self { part_rows, ..self }
    }

    fn check_format(&self, marker: &Marker) -> Result<()> {
        if marker.format > FORMAT {
            return Err(Error::data(format!(
                "store `{}` has format {}, made by Diffy {}; this Diffy {} reads up to format {FORMAT}",
                self.name,
                marker.format,
                marker.diffy_version.escape_debug(),
                env!("CARGO_PKG_VERSION"),
            ))
            .hint("use a newer Diffy"));
        }
        Ok(())
    }

    async fn marker(&self) -> Result<Option<Marker>> {
        let Some(bytes) = self.get(paths::MARKER).await? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|source| {
            Error::data(format!("`{}` of store `{}` cannot be read", paths::MARKER, self.name)).source(source)
        })
    }

    async fn write_marker(&self) -> Result<()> {
        let marker = Marker {
            format: FORMAT,
            created: rfc3339(now()),
            diffy_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        // Another collection may have been faster; its marker serves as well.
        self.create(paths::MARKER, &marker).await.map(|_is_ours| ())
    }

    /// The store as the user named it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bytes below: for the engine.
    pub fn object_store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.object_store)
    }

    /// The local directory of spools and sort runs; every name in it starts with the snapshot that it is for.
    fn scratch_dir(&self) -> PathBuf {
        self.dir.join("spool")
    }

    /// An empty local directory for the sort runs of a collection, whose spool the caller holds; dropping it removes it.
    /// What a killed collection left of its own is removed first.
    ///
    /// # Errors
    /// It cannot be made, or what was left cannot be removed.
    pub fn sort_dir(&self, snapshot: SnapshotId) -> Result<tempfile::TempDir> {
        self.delete_scratch(snapshot)?;
        tempfile::Builder::new()
            .prefix(&format!("{snapshot}.sort-"))
            .tempdir_in(self.scratch_dir())
            .map_err(|source| Error::remote("cannot make a directory for sorting").source(source))
    }

    /// Where the spool of a collection lies.
    pub fn spool_path(&self, snapshot: SnapshotId) -> PathBuf {
        self.scratch_dir().join(format!("{snapshot}.spool"))
    }

    /// Starts part `number` of a table's rows.
    ///
    /// # Errors
    /// The schema cannot be written as Parquet.
    pub fn rows_part(
        &self,
        table: &str,
        of: (&Fleet, SnapshotId),
        number: usize,
        schema: &SchemaRef,
    ) -> Result<PartWriter> {
        let path = paths::rows(table, of.0, of.1, number);
        let writer = PartWriter::new(self.object_store(), FileKind::Rows, Some(table), (&path, schema))?;
        Ok(writer.with_most_rows(self.part_rows))
    }

    /// Starts a table's prevalence.
    ///
    /// # Errors
    /// The schema cannot be written as Parquet.
    pub fn prevalence_part(
        &self,
        table: &str,
        of: (&Fleet, SnapshotId),
        schema: &SchemaRef,
    ) -> Result<PartWriter> {
        let path = paths::prevalence(table, of.0, of.1);
        PartWriter::new(self.object_store(), FileKind::Prevalence, Some(table), (&path, schema))
    }

    /// Starts the coverage or the hosts of a snapshot.
    ///
    /// # Errors
    /// The schema cannot be written as Parquet.
    pub fn meta_part(
        &self,
        kind: FileKind,
        of: (&Fleet, SnapshotId),
        schema: &SchemaRef,
    ) -> Result<PartWriter> {
        let path =
            if kind == FileKind::Hosts { paths::hosts(of.0, of.1) } else { paths::coverage(of.0, of.1) };
        PartWriter::new(self.object_store(), kind, None, (&path, schema))
    }

    /// The bytes of a small object; `None` when it is not there.
    async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        let cannot =
            |source| Error::remote(format!("cannot read `{path}` of store `{}`", self.name)).source(source);
        match self.object_store.get(&parse(path)?).await {
            Ok(found) => found.bytes().await.map(Some).map_err(cannot),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(cannot(source)),
        }
    }

    /// Writes JSON where nothing is yet; false when something is.
    async fn create(&self, path: &str, value: &impl Serialize) -> Result<bool> {
        let json = serde_json::to_vec_pretty(value)
            .map_err(|source| Error::internal(format!("cannot encode `{path}`")).source(source))?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.object_store.put_opts(&parse(path)?, PutPayload::from(json), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(source) => Err(Error::remote(format!("cannot write `{path}` of store `{}`", self.name))
                .source(source)
                .hint("check the space and the permissions of the store")),
        }
    }

    async fn list(&self, prefix: &Path) -> Result<Vec<Path>> {
        let listed = self.object_store.list(Some(prefix)).map_ok(|meta| meta.location).try_collect().await;
        listed.map_err(|source| Error::remote(format!("cannot list store `{}`", self.name)).source(source))
    }

    async fn delete(&self, path: &Path) -> Result<()> {
        match self.object_store.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => {
                Err(Error::remote(format!("cannot delete `{path}` of store `{}`", self.name)).source(source))
            }
        }
    }

    /// Makes files and their names survive a power failure.
    fn sync<'a>(&self, files: impl Iterator<Item = &'a str>) -> Result<()> {
        let paths: Vec<PathBuf> = files.map(|path| self.dir.join(path)).collect();
        let places: BTreeSet<&FilePath> = paths
            .iter()
            .flat_map(|path| path.ancestors().take_while(|place| place.starts_with(&self.dir)))
            .collect();
        for place in places {
            let synced = std::fs::File::open(place).and_then(|file| file.sync_all());
            synced.map_err(|source| {
                Error::remote(format!("cannot sync `{}`", place.display())).source(source)
            })?;
        }
        Ok(())
    }
}

fn parse(path: &str) -> Result<Path> {
    Path::parse(path).map_err(|source| Error::internal(format!("`{path}` is no path")).source(source))
}

fn is_no_store(url: &str) -> Error {
    Error::usage(format!("`{url}` is not a Diffy store")).hint(format!(
        "it has no {}; name another place with `--store`, or an empty directory to start one",
        paths::MARKER
    ))
}

/// The directory that a store URL names.
fn local_dir(url: &str) -> Result<PathBuf> {
    if let Some((scheme, _)) = url.split_once("://") {
        if scheme != "file" {
            return Err(Error::usage(format!("cannot open store `{url}`: `{scheme}://` is not supported"))
                .hint("a store is a path or a file:// URL"));
        }
        let parsed = url::Url::parse(url).ok().and_then(|url| url.to_file_path().ok());
        return parsed.ok_or_else(|| Error::usage(format!("`{url}` is no file URL")));
    }
    Ok(PathBuf::from(url))
}

/// Nothing is there but what a store that was being made leaves behind.
fn is_empty(dir: &FilePath) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else { return false };
    entries.flatten().all(|entry| entry.file_name().to_string_lossy().starts_with(paths::MARKER))
}
