//! What others see in a store: each stored table with the columns that its files have and the files that count.
//!
//! Names and columns come from manifests and from the footers of files, not from the catalog: somebody else's engine
//! reads what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, SchemaRef};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore};
use parquet::arrow::parquet_to_arrow_schema;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::commits::CONCURRENT_READS;
use super::manifest::{FileKind, Manifest};
use super::{Store, parse, paths};
use crate::error::{Error, Result};
use crate::model::{Fleet, SnapshotId};

/// So many bytes at a file's end are read at once: of most files, all that says what is in it.
const FOOTER_BYTES: u64 = 64 << 10;
/// Columns that stand in the paths of files, whether files have them too or not.
pub(super) const PARTITIONS: [&str; 3] = ["fleet", "dt", "snapshot"];

/// A table as it is stored.
#[derive(Debug, Clone)]
pub struct StoredTable {
    /// What its files hold.
    pub kind: FileKind,
    /// Its name: the table's for rows and prevalence, else `coverage`, `hosts` or `findings`.
    pub name: String,
    /// The columns of all files together: as the newest file has them, then those that only older ones have. Without
    /// `fleet`, `dt` and `snapshot`.
    pub columns: Vec<StoredColumn>,
    /// The files, newest snapshot first.
    pub files: Vec<TableFile>,
    /// Whether all files have the same columns in the same types.
    pub is_even: bool,
}

/// A column of a stored table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredColumn {
    /// The name; no other column of the table differs from it in capitals only.
    pub name: String,
    /// The type in the newest file that has it.
    pub data_type: DataType,
    /// Whether an older file has another type.
    pub differs: bool,
}

/// A file of a stored table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFile {
    /// Its fleet.
    pub fleet: Fleet,
    /// Its snapshot.
    pub snapshot: SnapshotId,
    /// Path below the store's root, as it stands in the store.
    pub path: String,
}

impl StoredTable {
    /// The folder below the store's root that holds all its files.
    pub(super) fn folder(&self) -> String {
        match self.kind {
            FileKind::Rows => format!("rows/{}", self.name),
            FileKind::Prevalence => format!("prevalence/{}", self.name),
            FileKind::Coverage | FileKind::Hosts | FileKind::Findings | FileKind::Imported => {
                self.name.clone()
            }
        }
    }

    /// Files that together have all columns. Parts of one snapshot have one schema, so the first of each does; but
    /// findings are of several analyses, and of several versions of Diffy.
    fn telling_files(&self) -> Vec<TableFile> {
        let mut seen = BTreeSet::new();
        let tells = |file: &&TableFile| self.kind == FileKind::Findings || seen.insert(file.snapshot);
        self.files.iter().filter(tells).cloned().collect()
    }

    /// Adds the columns of an older file.
    fn merge(&mut self, schema: &SchemaRef) {
        let own = |name: &str| !PARTITIONS.contains(&name);
        let found: Vec<_> = schema.fields().iter().filter(|field| own(field.name())).collect();
        let is_first = self.columns.is_empty();
        self.is_even &= is_first || found.len() == self.columns.len();
        for (at, field) in found.into_iter().enumerate() {
            let known = self.columns.iter().position(|column| column.name.eq_ignore_ascii_case(field.name()));
            self.is_even &= is_first || known == Some(at);
            match known.map(|known| &mut self.columns[known]) {
                Some(column) => column.differs |= column.data_type != *field.data_type(),
                None => self.columns.push(StoredColumn {
                    name: field.name().clone(),
                    data_type: field.data_type().clone(),
                    differs: false,
                }),
            }
        }
        self.is_even &= !self.columns.iter().any(|column| column.differs);
    }
}

impl Store {
    /// The tables of these snapshots, by kind and name: those named in `wanted`, or all when it is empty. Reads the end
    /// of one file of each table and snapshot, and of each file of findings.
    ///
    /// # Errors
    /// A file cannot be read; it is named.
    pub async fn tables(&self, manifests: &[Manifest], wanted: &[String]) -> Result<Vec<StoredTable>> {
        let mut tables: BTreeMap<(FileKind, String), StoredTable> = BTreeMap::new();
        let files = manifests.iter().rev().flat_map(files_of).chain(self.findings_of(manifests).await?);
        for (kind, name, file) in files {
            if !wanted.is_empty() && !wanted.contains(&name) {
                continue;
            }
            let empty = || StoredTable {
                kind,
                name: name.clone(),
                columns: Vec::new(),
                files: Vec::new(),
                is_even: true,
            };
            tables.entry((kind, name.clone())).or_insert_with(empty).files.push(file);
        }
        let mut tables: Vec<StoredTable> = tables.into_values().collect();
        for table in &mut tables {
            for schema in self.schemas(table.telling_files()).await? {
                table.merge(&schema);
            }
        }
        Ok(tables)
    }

    /// Kept results of analyses of these snapshots: no manifest names them, and they go with their snapshot.
    async fn findings_of(&self, manifests: &[Manifest]) -> Result<Vec<(FileKind, String, TableFile)>> {
        let committed: BTreeMap<SnapshotId, &Manifest> =
            manifests.iter().map(|manifest| (manifest.snapshot, manifest)).collect();
        let mut found: Vec<Path> = self.list(&paths::findings()).await?;
        found.sort_by(|a, b| b.cmp(a));
        let file = |path: Path| {
            let manifest = committed.get(&paths::snapshot_of(&path)?)?;
            let (fleet, snapshot) = (manifest.fleet.clone(), manifest.snapshot);
            let file = TableFile { fleet, snapshot, path: path.to_string() };
            Some((FileKind::Findings, "findings".to_owned(), file))
        };
        Ok(found.into_iter().filter_map(file).collect())
    }

    async fn schemas(&self, files: Vec<TableFile>) -> Result<Vec<SchemaRef>> {
        // Boxed, or the compiler does not see that the futures of callers can be sent.
        let reads: Vec<_> = files.into_iter().map(|file| self.schema_of(file).boxed()).collect();
        stream::iter(reads).buffered(CONCURRENT_READS).try_collect().await
    }

    async fn schema_of(&self, file: TableFile) -> Result<SchemaRef> {
        let cannot = || {
            Error::data(format!("cannot read `{}` of store `{}`", file.path, self.name()))
                .hint("`diffy snapshot verify` says which snapshots are whole")
        };
        let footer = match self.footer(&file.path, FOOTER_BYTES).await? {
            // It is longer, and says how long.
            Err(ParquetError::NeedMoreData(bytes)) => self.footer(&file.path, bytes as u64).await?,
            footer => footer,
        };
        let footer = footer.map_err(|source| cannot().source(source))?;
        let of_file = footer.file_metadata();
        let schema = parquet_to_arrow_schema(of_file.schema_descr(), of_file.key_value_metadata());
        schema.map(Arc::new).map_err(|source| cannot().source(source))
    }

    /// What the last so many bytes of a file say of it.
    async fn footer(&self, path: &str, bytes: u64) -> Result<Result<ParquetMetaData, ParquetError>> {
        let options = GetOptions { range: Some(GetRange::Suffix(bytes)), ..GetOptions::default() };
        let failed = |source| self.failed(&format!("cannot read `{path}`"), None, source);
        let end = self.object_store.get_opts(&parse(path)?, options).await.map_err(failed)?;
        let size = end.meta.size;
        let end = end.bytes().await.map_err(failed)?;
        let mut reader = ParquetMetaDataReader::new();
        Ok(reader.try_parse_sized(&end, size).and_then(|()| reader.finish()))
    }

    /// Where the store is for other programs: the directory, or `s3://BUCKET/PREFIX`; without a slash at the end.
    ///
    /// # Errors
    /// The directory's name is no UTF-8, or the store has no place that others could go to.
    pub fn location(&self) -> Result<String> {
        if let Some(place) = &self.s3 {
            return Ok(format!("s3://{}/{}", place.bucket, place.prefix).trim_end_matches('/').to_owned());
        }
        let dir = self.dir.as_ref().and_then(|dir| dir.to_str()).ok_or_else(|| {
            Error::usage(format!("the place of store `{}` has no name that SQL can spell", self.name()))
        })?;
        Ok(dir.trim_end_matches('/').to_owned())
    }
}

fn files_of(manifest: &Manifest) -> impl Iterator<Item = (FileKind, String, TableFile)> {
    manifest.files.iter().filter_map(|entry| {
        let name = match entry.kind {
            FileKind::Rows | FileKind::Prevalence => entry.table.clone()?,
            FileKind::Coverage => "coverage".to_owned(),
            FileKind::Hosts => "hosts".to_owned(),
            FileKind::Findings | FileKind::Imported => return None,
        };
        let (fleet, snapshot) = (manifest.fleet.clone(), manifest.snapshot);
        Some((entry.kind, name, TableFile { fleet, snapshot, path: entry.path.clone() }))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::datatypes::{Field, Schema};

    use super::*;

    fn merged(files: &[&[(&str, DataType)]]) -> StoredTable {
        let (name, columns) = ("users".to_owned(), Vec::new());
        let mut table = StoredTable { kind: FileKind::Rows, name, columns, files: Vec::new(), is_even: true };
        for file in files {
            let field = |(name, kind): &(&str, DataType)| Field::new(*name, kind.clone(), true);
            table.merge(&Arc::new(Schema::new(file.iter().map(field).collect::<Vec<_>>())));
        }
        table
    }

    #[test]
    fn each_file_of_findings_tells_its_columns() {
        let file = |path: &str| TableFile {
            fleet: "web".parse().unwrap(),
            snapshot: "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap(),
            path: path.to_owned(),
        };
        let mut table = merged(&[]);
        table.files = vec![file("a"), file("b")];
        assert_eq!(table.telling_files().len(), 1);
        table.kind = FileKind::Findings;
        assert_eq!(table.telling_files().len(), 2);
    }

    #[test]
    fn columns_of_older_files_come_behind() {
        let (text, number) = (|name| (name, DataType::Utf8), |name| (name, DataType::Int64));
        let even = merged(&[&[text("a"), text("fleet"), number("b")], &[text("A"), number("b")]]);
        assert!(even.is_even, "{even:?}");
        let uneven = merged(&[&[text("a"), number("b")], &[text("a"), text("b"), text("c")], &[text("a")]]);
        let columns: Vec<_> =
            uneven.columns.iter().map(|column| (column.name.as_str(), column.differs)).collect();
        assert_eq!(columns, [("a", false), ("b", true), ("c", false)]);
        assert_eq!(uneven.columns[1].data_type, DataType::Int64);
        assert!(!uneven.is_even);
        assert!(!merged(&[&[text("a")], &[text("a"), text("b")]]).is_even);
        assert!(!merged(&[&[text("a"), text("b")], &[text("b"), text("a")]]).is_even, "by position");
    }
}
