//! The store: immutable snapshots as Hive-partitioned Parquet over an object store. The only room that spells a path
//! or a Parquet option.
//!
//! A snapshot exists when its manifest exists. Manifests are written last and create-only; nothing that a manifest
//! names is ever written again.

mod answers;
mod baselines;
mod columns;
mod commits;
mod ddl;
mod encodings;
mod imports;
mod lookup;
mod manifest;
mod objects;
mod parts;
mod paths;
mod place;
mod read;
mod requests;
mod s3;
mod snapshots;
mod spool;
mod tables;
mod told;

use std::collections::BTreeSet;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::datatypes::SchemaRef;
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};

pub use self::answers::{AnswerEnd, Answers};
pub use self::baselines::{Baseline, BaselineOrigin, BaselineTable};
pub use self::columns::ColumnFile;
pub use self::commits::{Commit, Commits, Listing, Newest};
pub use self::ddl::{Database, DdlRequest, Dialect, ddl};
pub use self::imports::{Imported, ImportedFile, ImportedKind, InterruptedImport};
pub use self::lookup::{RowsRead, WantedRows};
pub use self::manifest::{FileEntry, FileKind, Manifest};
pub use self::objects::{Objects, RemoteFile, RemoteFiles};
pub use self::parts::PartWriter;
use self::place::Named;
pub use self::place::{S3Place, S3Settings, StoreConfig};
use self::requests::Counted;
pub use self::requests::{RequestCounts, Requests};
pub use self::snapshots::{Orphan, Verification};
pub use self::spool::{
    Frame, Held, IMPORT, RowsHeader, SpoolBegin, SpoolIndex, SpoolReader, SpoolWriter, pack,
};
pub use self::tables::{StoredColumn, StoredTable, TableFile};
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
    /// The root, where it is a local directory; other stores are shared with other machines.
    dir: Option<PathBuf>,
    /// Local directory of spools and sort runs.
    scratch: PathBuf,
    s3: Option<S3Place>,
    name: String,
    part_rows: u64,
    requests: Requests,
}

impl Store {
    /// Opens a store that exists: a path, a `file://` URL or `s3://BUCKET/PREFIX`.
    ///
    /// # Errors
    /// There is none, it is no store, it cannot be reached, or a newer Diffy made it; the message says which.
    pub async fn open(url: &str, config: &StoreConfig) -> Result<Self> {
        let store = match Named::parse(url)? {
            Named::S3 { bucket, prefix } => Self::on_s3(url, (bucket, prefix), config).await?,
            Named::Directory(dir) if !dir.exists() => return Err(is_not_there(url)),
            Named::Directory(dir) if !dir.is_dir() => return Err(is_no_store(url)),
            Named::Directory(dir) => Self::at(&dir, url, config)?,
        };
        match store.marker().await? {
            Some(marker) => store.check_format(&marker)?,
            None if store.dir.is_none() && store.is_empty().await? => return Err(is_not_there(url)),
            None => return Err(is_no_store(url)),
        }
        Ok(store)
    }

    /// Opens a store, or makes one where there is nothing yet; a bucket is not made.
    ///
    /// # Errors
    /// As [`Self::open`]; also when the place has other files in it, or cannot be written.
    pub async fn open_or_create(url: &str, config: &StoreConfig) -> Result<Self> {
        let store = match Named::parse(url)? {
            Named::S3 { bucket, prefix } => {
                let store = Self::on_s3(url, (bucket, prefix), config).await?;
                store.make_scratch()?;
                store
            }
            Named::Directory(dir) => {
                std::fs::create_dir_all(&dir).map_err(|source| {
                    Error::remote(format!("cannot create store `{url}`"))
                        .source(source)
                        .hint("`--store` names another place")
                })?;
                Self::at(&dir, url, config)?
            }
        };
        store.or_create().await
    }

    /// A store over any object store, made where there is nothing yet; `scratch` is a local directory of its own.
    ///
    /// # Errors
    /// As [`Self::open_or_create`].
    pub async fn over(object_store: Arc<dyn ObjectStore>, scratch: &FilePath, name: &str) -> Result<Self> {
        let requests = Requests::default();
        let store = Self {
            object_store: Arc::new(Counted::new(object_store, requests.clone())),
            dir: None,
            scratch: scratch.to_owned(),
            s3: None,
            name: name.to_owned(),
            part_rows: parts::PART_ROWS,
            requests,
        };
        store.make_scratch()?;
        store.or_create().await
    }

    fn at(dir: &FilePath, url: &str, config: &StoreConfig) -> Result<Self> {
        let cannot = |source: Box<dyn std::error::Error + Send + Sync>| {
            Error::remote(format!("cannot open store `{url}`")).source(source)
        };
        let dir = dir.canonicalize().map_err(|source| cannot(source.into()))?;
        let below = LocalFileSystem::new_with_prefix(&dir).map_err(|source| cannot(source.into()))?;
        let requests = config.requests.clone();
        let object_store = Arc::new(Counted::on_disk(below.with_automatic_cleanup(true), requests.clone()));
        let scratch = dir.join("spool");
        let (name, part_rows) = (url.to_owned(), parts::PART_ROWS);
        Ok(Self { object_store, dir: Some(dir), scratch, s3: None, name, part_rows, requests })
    }

    async fn on_s3(url: &str, (bucket, prefix): (String, String), config: &StoreConfig) -> Result<Self> {
        let place = s3::place(bucket, prefix, config).await?;
        let object_store = s3::open(&place, config)?;
        let scratch = config.spool_dir.join(place.digest());
        let (name, part_rows) = (url.to_owned(), parts::PART_ROWS);
        let requests = config.requests.clone();
        Ok(Self { object_store, dir: None, scratch, s3: Some(place), name, part_rows, requests })
    }

    async fn or_create(self) -> Result<Self> {
        match self.marker().await? {
            Some(marker) => self.check_format(&marker)?,
            None if self.is_empty().await? => self.write_marker().await?,
            // Another collection may have made it meanwhile.
            None => match self.marker().await? {
                Some(marker) => self.check_format(&marker)?,
                None => return Err(is_no_store(&self.name)),
            },
        }
        Ok(self)
    }

    /// Makes the local directory of a store that is elsewhere, for nobody else to read.
    fn make_scratch(&self) -> Result<()> {
        use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
        let cannot = |source| {
            Error::remote(format!("cannot create `{}` for what hosts say", self.scratch.display()))
                .source(source)
                .hint("DIFFY_SPOOL and `spool` in diffy.toml name another directory")
        };
        if self.scratch.is_relative() && self.scratch.components().count() < 2 {
            return Err(Error::config("there is no place for the spool of a store that is not local")
                .hint("set DIFFY_SPOOL, or `spool` in diffy.toml"));
        }
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.scratch).map_err(cannot)?;
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(&self.scratch, private).map_err(cannot)?;
        std::fs::write(self.scratch.join("store"), format!("{}\n", self.name)).map_err(cannot)
    }

    /// Nothing is there but what a store that was being made leaves behind.
    async fn is_empty(&self) -> Result<bool> {
        if let Some(dir) = &self.dir {
            return Ok(is_empty(dir));
        }
        let first = self.object_store.list(None).try_next().await;
        let first = first.map_err(|source| self.failed("cannot list what there is", None, source))?;
        Ok(first.is_none_or(|meta| meta.location.as_ref() == paths::MARKER))
    }

    /// Where the store is on S3, if it is there.
    pub fn s3_place(&self) -> Option<&S3Place> {
        self.s3.as_ref()
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

    /// Hex digits that stand for the place of the store: the same for all who open it at this place.
    pub fn place_digest(&self) -> String {
        match (&self.s3, &self.dir) {
            (Some(place), _) => place.digest(),
            (None, Some(dir)) => blake3::hash(dir.as_os_str().as_encoded_bytes()).to_hex()[..16].to_owned(),
            (None, None) => blake3::hash(self.name.as_bytes()).to_hex()[..16].to_owned(),
        }
    }

    /// The bytes below: for the engine.
    pub fn object_store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.object_store)
    }

    /// Whether the store is a directory here, where a request costs next to nothing.
    pub fn is_local(&self) -> bool {
        self.dir.is_some()
    }

    /// Counts what is asked of the store.
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// The local directory of spools and sort runs; what is for a snapshot has a name that starts with its id.
    fn scratch_dir(&self) -> &FilePath {
        &self.scratch
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
        let cannot = |source| self.failed(&format!("cannot read `{path}`"), None, source);
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
        let created = told::put_new(&self.object_store, &parse(path)?, PutPayload::from(json)).await;
        let hint = Some("check the space and the permissions of the store");
        created.map_err(|source| self.failed(&format!("cannot write `{path}`"), hint, source))
    }

    async fn list(&self, prefix: &Path) -> Result<Vec<Path>> {
        let listed = self.object_store.list(Some(prefix)).map_ok(|meta| meta.location).try_collect().await;
        listed.map_err(|source| self.failed("cannot list what there is", None, source))
    }

    async fn delete(&self, path: &Path) -> Result<()> {
        self.delete_all(vec![path.clone()]).await
    }

    /// Deletes objects, many with one request where the store can; what is gone is fine.
    async fn delete_all(&self, paths: Vec<Path>) -> Result<()> {
        let paths = futures::stream::iter(paths.into_iter().map(Ok)).boxed();
        let mut deleted = self.object_store.delete_stream(paths);
        while let Some(done) = deleted.next().await {
            match done {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(source) => return Err(self.failed("cannot delete a file", None, source)),
            }
        }
        Ok(())
    }

    fn failed(&self, what: &str, hint: Option<&str>, source: object_store::Error) -> Error {
        told::failed(format!("{what} of store `{}`", self.name), hint, source)
    }

    /// Makes files and their names survive a power failure.
    fn sync<'a>(&self, files: impl Iterator<Item = &'a str>) -> Result<()> {
        // Elsewhere, what was written is there to stay.
        let Some(dir) = &self.dir else { return Ok(()) };
        let paths: Vec<PathBuf> = files.map(|path| dir.join(path)).collect();
        let places: BTreeSet<&FilePath> = paths
            .iter()
            .flat_map(|path| path.ancestors().take_while(|place| place.starts_with(dir)))
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

fn is_not_there(url: &str) -> Error {
    Error::usage(format!("there is no store at `{url}`"))
        .hint("`diffy collect` and `diffy import` make one; `--store` names another place")
}

fn is_no_store(url: &str) -> Error {
    Error::usage(format!("`{url}` is not a Diffy store")).hint(format!(
        "it has no {}; name another place with `--store`, or an empty directory or prefix to start one",
        paths::MARKER
    ))
}

/// Nothing is there but what a store that was being made leaves behind.
fn is_empty(dir: &FilePath) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else { return false };
    entries.flatten().all(|entry| entry.file_name().to_string_lossy().starts_with(paths::MARKER))
}
