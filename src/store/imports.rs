//! Which files `import --once` has taken: a list beside the rows, committed with them by the manifest.
//!
//! Each list has all files that are known of a fleet, not only those of its own snapshot: so the newest one is enough,
//! and deleting older snapshots forgets nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema};
use serde::{Deserialize, Serialize};

use super::commits::Commit;
use super::manifest::{FileEntry, FileKind, Manifest};
use super::parts::PartWriter;
use super::spool::SpoolReader;
use super::{Store, parse, paths};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Fleet, SnapshotId};

/// Path of the entry that names the list from which a list was made; no file has it.
const MADE_FROM: &str = "";
/// Name of the file that a running import holds locked.
const LOCK: &str = "imports.lock";

/// What a file is to an import that comes later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportedKind {
    /// Rows that say whose they are: read once.
    Rows,
    /// One of a host's own files: read again when another of them is new.
    Host,
    /// A log of osqueryd: read again for the past of what is new; known by its content wherever it lies.
    Log,
    /// An object that is not read, as far as is known; it is not fetched again to find that out.
    Skipped,
}

impl ImportedKind {
    fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Host => "host",
            Self::Log => "log",
            Self::Skipped => "skipped",
        }
    }

    fn of(name: &str) -> Self {
        match name {
            "host" => Self::Host,
            "log" => Self::Log,
            "skipped" => Self::Skipped,
            _ => Self::Rows,
        }
    }
}

/// A file that an import took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportedFile {
    /// Where it lay: an absolute path, or the URL of an object.
    pub path: String,
    /// Bytes of it that were read, as they lay there.
    pub bytes: u64,
    /// When it was last written, in milliseconds since 1970.
    pub modified: i64,
    /// What S3 calls the content of an object; none of files, and of objects in lists from before it was kept.
    #[serde(default)]
    pub etag: Option<String>,
    /// BLAKE3 digest of its content after unpacking, in hex; of what is skipped, that of how it was looked at.
    pub blake3: String,
    /// What it is.
    pub kind: ImportedKind,
    /// The snapshot that it went into.
    pub snapshot: SnapshotId,
}

impl ImportedFile {
    /// Whether what lies there is what was imported, as far as can be told without reading it.
    pub fn is_unchanged(&self, bytes: u64, modified: i64, etag: Option<&str>) -> bool {
        let is_other = self.etag.as_deref().zip(etag).is_some_and(|(known, now)| known != now);
        self.bytes == bytes && self.modified == modified && !is_other
    }
}

/// An import that died.
#[derive(Debug)]
pub struct InterruptedImport {
    /// The snapshot that it would have been.
    pub snapshot: SnapshotId,
    /// What was received; nobody else has it.
    pub spool: SpoolReader,
}

/// What imports into a fleet remember.
#[derive(Debug, Default)]
pub struct Imported {
    /// The files, by path.
    pub files: BTreeMap<String, ImportedFile>,
    /// The snapshots whose lists say so; the newest first, nearly always the only one.
    pub snapshots: Vec<SnapshotId>,
}

impl Imported {
    /// Adds what an older list has. The file that was written last was seen last.
    fn take(&mut self, files: BTreeMap<String, ImportedFile>) {
        for (path, file) in files {
            let known = self.files.entry(path).or_insert_with(|| file.clone());
            if known.modified < file.modified {
                *known = file;
            }
        }
    }

    /// What a list that is made from this one says of it.
    pub fn mark(&self) -> Option<ImportedFile> {
        self.snapshots.first().map(|snapshot| ImportedFile {
            path: MADE_FROM.to_owned(),
            bytes: 0,
            modified: 0,
            etag: None,
            blake3: String::new(),
            kind: ImportedKind::Rows,
            snapshot: *snapshot,
        })
    }
}

/// The list of one snapshot.
struct List {
    files: BTreeMap<String, ImportedFile>,
    /// The newest list when it was made.
    made_from: Option<SnapshotId>,
}

impl Store {
    /// The files of a fleet that imports remember: the list of the newest snapshot that has one.
    ///
    /// A clock that was ahead makes a list that stays the newest although others are made after it. Each list says
    /// which one it was made from, so those between the two were made after it, or at the same time on another machine.
    ///
    /// # Errors
    /// The store does not give a manifest or the list.
    pub async fn imported(&self, fleet: &Fleet) -> Result<Imported> {
        let mut found = Imported::default();
        let mut after = None;
        for commit in self.import_commits(fleet).await?.into_iter().rev() {
            if after.is_some_and(|after| commit.snapshot <= after) {
                break;
            }
            let list = match self.manifest(&commit).await {
                Ok(manifest) => self.imported_with(&manifest).await?,
                // Whatever it has imported is imported again.
                Err(error) if error.kind() == ErrorKind::Data => None,
                Err(error) => return Err(error),
            };
            let Some(list) = list else { continue };
            let newest = found.snapshots.first().copied();
            found.snapshots.push(commit.snapshot);
            if newest.is_none() {
                (found.files, after) = (list.files, list.made_from);
            } else if list.made_from == newest {
                // It knows all that is in the other.
                found.files = list.files;
                break;
            } else {
                found.take(list.files);
            }
        }
        Ok(found)
    }

    /// The committed snapshots of a fleet that have a list, oldest first: two listings, and no manifest is read.
    async fn import_commits(&self, fleet: &Fleet) -> Result<Vec<Commit>> {
        let listed = self.list(&parse(&paths::imports_of(fleet))?).await?;
        let with_list: BTreeSet<SnapshotId> = listed.iter().filter_map(paths::snapshot_of).collect();
        if with_list.is_empty() {
            return Ok(Vec::new());
        }
        let mut commits = self.commits(Some(fleet)).await?.commits;
        commits.retain(|commit| with_list.contains(&commit.snapshot));
        Ok(commits)
    }

    /// The list that a manifest names, if it names one.
    async fn imported_with(&self, manifest: &Manifest) -> Result<Option<List>> {
        let Some(file) = manifest.files.iter().find(|file| file.kind == FileKind::Imported) else {
            return Ok(None);
        };
        let mut known = BTreeMap::new();
        for batch in self.read_file(file).await? {
            let files = files_of(&batch).ok_or_else(|| {
                Error::data(format!("`{}` is no list of imported files", file.path))
                    .hint("a newer Diffy may read it")
            })?;
            known.extend(files.into_iter().map(|file| (file.path.clone(), file)));
        }
        let made_from = known.remove(MADE_FROM).map(|from| from.snapshot);
        Ok(Some(List { files: known, made_from }))
    }

    /// Writes the list of a snapshot that is about to be committed.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn write_imported(
        &self,
        of: (&Fleet, SnapshotId),
        files: &[ImportedFile],
    ) -> Result<FileEntry> {
        let batch = batch_of(files)?;
        let path = paths::imported(of.0, of.1);
        let schema = batch.schema();
        let mut part = PartWriter::new(self.object_store(), FileKind::Imported, None, (&path, &schema))?;
        part.write(&batch).await?;
        part.close().await
    }

    /// Holds the right to import what is new into this store from this machine; none when another import has it.
    ///
    /// # Errors
    /// The file that stands for it cannot be made.
    pub fn hold_imports(&self) -> Result<Option<File>> {
        let path = self.scratch_dir().join(LOCK);
        let cannot = |source| Error::remote(format!("cannot lock `{}`", path.display())).source(source);
        std::fs::create_dir_all(self.scratch_dir()).map_err(cannot)?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(cannot)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(cannot(source)),
        }
    }

    /// A local directory of its own for copies of what an import reads; dropping it removes it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn import_dir(&self, snapshot: SnapshotId) -> Result<tempfile::TempDir> {
        let cannot = |source| {
            Error::remote(format!("cannot make a directory in `{}`", self.scratch_dir().display()))
                .source(source)
                .hint("the store must be writable and have space")
        };
        std::fs::create_dir_all(self.scratch_dir()).map_err(cannot)?;
        let made =
            tempfile::Builder::new().prefix(&format!("{snapshot}.import-")).tempdir_in(self.scratch_dir());
        made.map_err(cannot)
    }

    /// Imports into a fleet that died on this machine and remember their files. What is committed is cleaned up.
    ///
    /// # Errors
    /// The store cannot be listed, or what is left of one that is complete cannot be removed.
    pub async fn interrupted_imports(&self, fleet: &Fleet) -> Result<Vec<InterruptedImport>> {
        let is_of_fleet = |path: &PathBuf| {
            // Of one that cannot be read nothing is known.
            let Ok(Some(spool)) = SpoolReader::open(path) else { return None };
            let index = spool.index();
            (!index.imported.is_empty() && index.begin.fleet == *fleet).then_some(spool)
        };
        // Nearly always none: then the store need not be listed.
        if !self.spools().iter().any(|(_, path)| is_of_fleet(path).is_some()) {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for orphan in self.orphans().await? {
            let Some(spool) = orphan.spool.as_ref().and_then(is_of_fleet) else { continue };
            if self.is_committed(orphan.snapshot).await? {
                self.delete_orphan(&orphan).await?;
                continue;
            }
            self.delete_staged(&orphan).await?;
            found.push(InterruptedImport { snapshot: orphan.snapshot, spool });
        }
        Ok(found)
    }

    /// Removes the spool of an import that is made anew from its files.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn forget_import(&self, import: &InterruptedImport) -> Result<()> {
        self.delete_scratch(import.snapshot)?;
        import.spool.remove()
    }
}

fn batch_of(files: &[ImportedFile]) -> Result<RecordBatch> {
    let text = |of: &dyn Fn(&ImportedFile) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(files.iter().map(of)))
    };
    let bytes = files.iter().map(|file| i64::try_from(file.bytes).unwrap_or(i64::MAX));
    let etags: StringArray = files.iter().map(|file| file.etag.as_deref()).collect();
    let columns: [(&str, ArrayRef); 7] = [
        ("path", text(&|file| file.path.clone())),
        ("bytes", Arc::new(Int64Array::from_iter_values(bytes))),
        ("modified", Arc::new(Int64Array::from_iter_values(files.iter().map(|file| file.modified)))),
        ("etag", Arc::new(etags)),
        ("blake3", text(&|file| file.blake3.clone())),
        ("kind", text(&|file| file.kind.name().to_owned())),
        ("imported_into", text(&|file| file.snapshot.to_string())),
    ];
    let field =
        |(name, array): &(&str, ArrayRef)| Field::new(*name, array.data_type().clone(), *name == "etag");
    let fields: Vec<Field> = columns.iter().map(field).collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
        .map_err(|source| Error::internal("cannot build the list of imported files").source(source))
}

/// None when the batch has other columns.
fn files_of(batch: &RecordBatch) -> Option<Vec<ImportedFile>> {
    let column =
        |name: &str, kind: &DataType| batch.column_by_name(name).filter(|column| column.data_type() == kind);
    let text = |name: &str| column(name, &DataType::Utf8).map(|column| column.as_string::<i32>());
    let number = |name: &str| column(name, &DataType::Int64).map(|column| column.as_primitive::<Int64Type>());
    let (path, blake3, kind, into) = (text("path")?, text("blake3")?, text("kind")?, text("imported_into")?);
    let (bytes, modified) = (number("bytes")?, number("modified")?);
    // Older lists have none.
    let etags = text("etag");
    let etag = |row| etags.filter(|etags| etags.is_valid(row)).map(|etags| etags.value(row).to_owned());
    let file = |row| {
        Some(ImportedFile {
            path: path.value(row).to_owned(),
            bytes: u64::try_from(bytes.value(row)).ok()?,
            modified: modified.value(row),
            etag: etag(row),
            blake3: blake3.value(row).to_owned(),
            kind: ImportedKind::of(kind.value(row)),
            snapshot: into.value(row).parse().ok()?,
        })
    };
    (0..batch.num_rows()).map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_as_it_was_written() {
        let file = |path: &str, kind| ImportedFile {
            path: path.to_owned(),
            bytes: 7,
            modified: 1_767_607_200_123,
            etag: path.starts_with("s3:").then(|| "\"0-1\"".to_owned()),
            blake3: "00".repeat(32),
            kind,
            snapshot: "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap(),
        };
        let files = [
            file("/a/größe", ImportedKind::Rows),
            file("s3://b/c", ImportedKind::Host),
            file("x", ImportedKind::Log),
            file("s3://b/README", ImportedKind::Skipped),
        ];
        assert_eq!(files_of(&batch_of(&files).unwrap()).unwrap(), files);
        assert_eq!(files_of(&batch_of(&[]).unwrap()).unwrap(), []);
    }

    #[test]
    fn a_list_from_before_etags_is_read() {
        let file = ImportedFile {
            path: "s3://b/c".to_owned(),
            bytes: 7,
            modified: 5,
            etag: None,
            blake3: String::new(),
            kind: ImportedKind::Rows,
            snapshot: "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap(),
        };
        let mut batch = batch_of(std::slice::from_ref(&file)).unwrap();
        batch.remove_column(batch.schema().index_of("etag").unwrap());
        assert_eq!(files_of(&batch).unwrap(), std::slice::from_ref(&file));
        assert!(file.is_unchanged(7, 5, Some("a")), "nothing is known of what it was called");
        let named = ImportedFile { etag: Some("a".to_owned()), ..file };
        assert!(named.is_unchanged(7, 5, Some("a")) && named.is_unchanged(7, 5, None));
        assert!(!named.is_unchanged(7, 5, Some("b")) && !named.is_unchanged(7, 6, Some("a")));
    }

    #[test]
    fn of_two_lists_the_file_that_was_written_last_counts() {
        let file = |path: &str, modified| ImportedFile {
            path: path.to_owned(),
            bytes: 7,
            modified,
            etag: None,
            blake3: String::new(),
            kind: ImportedKind::Rows,
            snapshot: "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap(),
        };
        let list = |files: &[(&str, i64)]| {
            files.iter().map(|(path, modified)| ((*path).to_owned(), file(path, *modified))).collect()
        };
        let mut known = Imported { files: list(&[("a", 5), ("b", 5)]), snapshots: Vec::new() };
        known.take(list(&[("a", 4), ("b", 6), ("c", 1)]));
        assert_eq!(known.files, list(&[("a", 5), ("b", 6), ("c", 1)]));
        assert_eq!(known.mark(), None);
    }
}
