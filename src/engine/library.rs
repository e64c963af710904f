//! What SQL finds by name: the tables of committed snapshots in four schemas, read from the manifests.
//!
//! A table's columns are the catalog's, then those that the newest files have beside them. Reading every footer would
//! cost a request per file of the store, so only the [`FOOTERS`] newest files of a table are read, when a query first
//! names it; a column that only older files have is not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::datasource::{MemTable, ViewTable, provider_as_source};
use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, col, lit};
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};

use super::table::{PARTITIONS, SnapshotTable, StoredFile};
use super::{functions, shapes};
use crate::catalog::{Catalog, OWN_COLUMNS};
use crate::error::Error;
use crate::model::SnapshotId;
use crate::store::{FileEntry, FileKind, Manifest};

/// So many bytes at a file's end are read at once: of most files, all that says what is in it. Over a network each
/// request costs more than these bytes.
const FOOTER_BYTES: usize = 64 << 10;

/// Files of a table whose footers are read for columns that the catalog does not know.
const FOOTERS: usize = 20;
/// Footers that are read at once.
const FOOTERS_AT_ONCE: usize = 16;
/// Names that are never tables of osquery here.
const META: [&str; 6] = ["prevalence", "coverage", "hosts", "snapshots", "baselines", "findings"];

/// Which part of the store a schema shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Every snapshot.
    All,
    /// The newest snapshot of each fleet.
    Current,
    /// Prevalence of every snapshot, a table each.
    Prevalence,
    /// Prevalence of the newest snapshot of each fleet, a table each.
    CurrentPrevalence,
}

impl Scope {
    pub(super) const LIST: [Self; 4] = [Self::All, Self::Current, Self::Prevalence, Self::CurrentPrevalence];

    /// The name of the schema in SQL.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::All => "public",
            Self::Current => "current",
            Self::Prevalence => "prev",
            Self::CurrentPrevalence => "current_prev",
        }
    }

    fn is_prevalence(self) -> bool {
        matches!(self, Self::Prevalence | Self::CurrentPrevalence)
    }

    fn shows(self, current: bool) -> bool {
        current || matches!(self, Self::All | Self::Prevalence)
    }
}

/// The files of committed snapshots, by kind and table, newest first, and what others registered.
#[derive(Debug)]
pub(super) struct Library {
    url: ObjectStoreUrl,
    store: Arc<dyn ObjectStore>,
    runtime: Arc<RuntimeEnv>,
    manifests: Arc<Vec<Manifest>>,
    current: BTreeSet<SnapshotId>,
    files: BTreeMap<(FileKind, String), Vec<StoredFile>>,
    /// Columns that the catalog declares, by table.
    declared: BTreeMap<String, Vec<(Field, bool)>>,
    /// Columns that were found out from footers before.
    found: Mutex<BTreeMap<(FileKind, String), SchemaRef>>,
    registered: RwLock<BTreeMap<String, Arc<MemTable>>>,
}

impl Library {
    /// Files every file of `manifests` under its table.
    ///
    /// # Errors
    /// A manifest names a path that cannot be in a store.
    pub(super) fn new(
        store: (ObjectStoreUrl, Arc<dyn ObjectStore>),
        runtime: Arc<RuntimeEnv>,
        manifests: Arc<Vec<Manifest>>,
        catalog: &Catalog,
    ) -> std::result::Result<Self, Error> {
        let current = newest(&manifests);
        let mut files: BTreeMap<_, Vec<StoredFile>> = BTreeMap::new();
        let mut sorted: Vec<&Manifest> = manifests.iter().collect();
        sorted.sort_by_key(|manifest| std::cmp::Reverse(manifest.snapshot));
        for manifest in sorted {
            for entry in &manifest.files {
                let key = (entry.kind, entry.table.clone().unwrap_or_default());
                let stored = stored_file(manifest, entry, current.contains(&manifest.snapshot))?;
                files.entry(key).or_default().push(stored);
            }
        }
        let declared = catalog.tables().map(|spec| {
            let column = |column: &crate::catalog::ColumnSpec| {
                (Field::new(&column.name, column.kind.data_type(), true), column.is_comparable())
            };
            (spec.name.clone(), spec.columns.iter().map(column).collect())
        });
        Ok(Self {
            url: store.0,
            store: store.1,
            runtime,
            current,
            files,
            declared: declared.collect(),
            manifests,
            found: Mutex::default(),
            registered: RwLock::default(),
        })
    }

    /// Puts `batches` up as a table, in place of what had that name.
    pub(super) fn register(&self, name: &str, batches: Vec<RecordBatch>) -> Result<(), Error> {
        let schema = match (batches.first(), default_shape(name)) {
            (Some(batch), _) => batch.schema(),
            (None, Some(schema)) => schema,
            (None, None) => {
                return Err(Error::internal(format!("table `{name}` has no batch to tell its columns")));
            }
        };
        let table = MemTable::try_new(schema, vec![batches]).map_err(|source| {
            Error::internal(format!("the batches of table `{name}` differ in their columns")).source(source)
        })?;
        let mut registered = self.registered.write().unwrap_or_else(PoisonError::into_inner);
        registered.insert(name.to_owned(), Arc::new(table));
        Ok(())
    }

    /// Names of the tables of a schema, sorted.
    pub(super) fn names(&self, scope: Scope) -> Vec<String> {
        let kind = if scope.is_prevalence() { FileKind::Prevalence } else { FileKind::Rows };
        let mut names: BTreeSet<String> = self.declared.keys().cloned().collect();
        names.extend(self.files.keys().filter(|(of, _)| *of == kind).map(|(_, table)| table.clone()));
        if !scope.is_prevalence() {
            names.extend(META.map(str::to_owned));
            names.extend(self.registered.read().unwrap_or_else(PoisonError::into_inner).keys().cloned());
        }
        names.into_iter().collect()
    }

    /// The table of that name.
    pub(super) async fn table(&self, scope: Scope, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if scope.is_prevalence() {
            return self.stored(scope, FileKind::Prevalence, name).await;
        }
        if let Some(table) = self.registered.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Ok(Some(Arc::clone(table) as _));
        }
        match name {
            "coverage" => self.stored(scope, FileKind::Coverage, "").await,
            "hosts" => self.stored(scope, FileKind::Hosts, "").await,
            "prevalence" => self.prevalence(scope).await.map(Some),
            "snapshots" => self.snapshots(scope).map(Some),
            _ => match default_shape(name) {
                Some(schema) => Ok(Some(Arc::new(MemTable::try_new(schema, vec![Vec::new()])?))),
                None => self.stored(scope, FileKind::Rows, name).await,
            },
        }
    }

    fn snapshots(&self, scope: Scope) -> Result<Arc<dyn TableProvider>> {
        let wanted = |manifest: &&Manifest| scope.shows(self.current.contains(&manifest.snapshot));
        let manifests: Vec<&Manifest> = self.manifests.iter().filter(wanted).collect();
        let batch = shapes::snapshots(&manifests)?;
        Ok(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?))
    }

    async fn stored(
        &self,
        scope: Scope,
        kind: FileKind,
        name: &str,
    ) -> Result<Option<Arc<dyn TableProvider>>> {
        let key = (kind, name.to_owned());
        if !name.is_empty() && !self.declared.contains_key(name) && !self.files.contains_key(&key) {
            return Ok(None);
        }
        let columns = self.columns(&key).await?;
        let files = self.files.get(&key).map(Vec::as_slice).unwrap_or_default();
        let files = files.iter().filter(|file| scope.shows(file.current)).cloned().collect();
        Ok(Some(Arc::new(SnapshotTable::new(self.url.clone(), columns, files))))
    }

    /// The columns of a table's files.
    async fn columns(&self, key: &(FileKind, String)) -> Result<SchemaRef> {
        match key.0 {
            FileKind::Coverage => return Ok(shapes::coverage()),
            FileKind::Hosts => return Ok(shapes::hosts()),
            FileKind::Findings => return Ok(shapes::findings()),
            FileKind::Rows | FileKind::Prevalence => {}
        }
        if let Some(schema) = self.found.lock().unwrap_or_else(PoisonError::into_inner).get(key) {
            return Ok(Arc::clone(schema));
        }
        let schema = self.merged(key).await?;
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(found.entry(key.clone()).or_insert(schema)))
    }

    async fn merged(&self, key: &(FileKind, String)) -> Result<SchemaRef> {
        let rows = key.0 == FileKind::Rows;
        let own = if rows { shapes::row_columns() } else { shapes::prevalence_columns() };
        let declared = self.declared.get(&key.1).map(Vec::as_slice).unwrap_or_default();
        let declared = declared.iter().filter(|(field, comparable)| {
            (rows || *comparable) && !OWN_COLUMNS.contains(&field.name().as_str())
        });
        let mut columns: Vec<Field> = declared.map(|(field, _)| field.clone()).collect();
        let ours = |name: &str| PARTITIONS.contains(&name) || own.iter().any(|column| column.name() == name);
        for schema in self.footers(key).await {
            for field in schema.fields().iter().filter(|field| !ours(field.name())) {
                widen(&mut columns, field);
            }
        }
        columns.extend(own);
        Ok(Arc::new(Schema::new(columns)))
    }

    /// Schemas of the newest files of a table. A file that cannot be read fails the queries that need its rows, and no
    /// others.
    async fn footers(&self, key: &(FileKind, String)) -> Vec<Schema> {
        let files = self.files.get(key).map(Vec::as_slice).unwrap_or_default();
        let metas: Vec<ObjectMeta> =
            files.iter().take(FOOTERS).map(|stored| stored.file.object_meta.clone()).collect();
        let footers: Vec<Result<Schema>> =
            stream::iter(metas).map(|meta| self.footer(meta)).buffered(FOOTERS_AT_ONCE).collect().await;
        footers.into_iter().flatten().collect()
    }

    async fn footer(&self, meta: ObjectMeta) -> Result<Schema> {
        let cache = self.runtime.cache_manager.get_file_metadata_cache();
        DFParquetMetadata::new(self.store.as_ref(), &meta)
            .with_metadata_size_hint(Some(FOOTER_BYTES))
            .with_file_metadata_cache(Some(cache))
            .fetch_schema()
            .await
    }

    /// Prevalence of all tables as one: each line's own columns become JSON text.
    async fn prevalence(&self, scope: Scope) -> Result<Arc<dyn TableProvider>> {
        let mut names = self.names(Scope::Prevalence);
        // One table without files, so that there are columns even where nothing is stored.
        names.retain(|name| self.files.contains_key(&(FileKind::Prevalence, name.clone())));
        let mut union: Option<LogicalPlanBuilder> = None;
        for name in &names {
            let plan = self.prevalence_of(scope, name).await?;
            union = Some(match union {
                Some(union) => union.union(plan)?,
                None => LogicalPlanBuilder::from(plan),
            });
        }
        let plan = match union {
            Some(union) => union.build()?,
            None => self.prevalence_over(name_of_none(), self.empty_prevalence())?,
        };
        Ok(Arc::new(ViewTable::new(plan, None)))
    }

    async fn prevalence_of(&self, scope: Scope, name: &str) -> Result<LogicalPlan> {
        let columns = self.columns(&(FileKind::Prevalence, name.to_owned())).await?;
        let files =
            self.files.get(&(FileKind::Prevalence, name.to_owned())).map(Vec::as_slice).unwrap_or_default();
        let files = files.iter().filter(|file| scope.shows(file.current)).cloned().collect();
        self.prevalence_over(name, SnapshotTable::new(self.url.clone(), columns, files))
    }

    fn empty_prevalence(&self) -> SnapshotTable {
        let columns = Arc::new(Schema::new(shapes::prevalence_columns()));
        SnapshotTable::new(self.url.clone(), columns, Vec::new())
    }

    fn prevalence_over(&self, name: &str, table: SnapshotTable) -> Result<LogicalPlan> {
        let own: Vec<String> =
            shapes::prevalence_columns().iter().map(|field| field.name().clone()).collect();
        let schema = table.schema();
        let compared = schema.fields().iter().map(|field| field.name());
        let compared: Vec<String> = compared
            .filter(|column| !own.contains(column) && !PARTITIONS.contains(&column.as_str()))
            .cloned()
            .collect();
        let mut columns = vec![lit(name).alias("table_name")];
        columns.extend(PARTITIONS.iter().map(|column| quoted(column)));
        columns.extend(own.iter().map(|column| quoted(column)));
        let row = if compared.is_empty() {
            lit("{}")
        } else {
            functions::row_json(compared.clone()).call(compared.iter().map(|column| quoted(column)).collect())
        };
        columns.push(row.alias("row"));
        LogicalPlanBuilder::scan(name, provider_as_source(Arc::new(table)), None)?.project(columns)?.build()
    }
}

/// Stands where no table has prevalence.
fn name_of_none() -> &'static str {
    "none"
}

fn quoted(column: &str) -> Expr {
    col(datafusion::common::Column::from_name(column))
}

fn default_shape(name: &str) -> Option<SchemaRef> {
    match name {
        "findings" => Some(shapes::findings()),
        "baselines" => Some(shapes::baselines()),
        _ => None,
    }
}

/// Adds a column of a file. Where files and catalog differ in its type it becomes text, which every value can be.
fn widen(columns: &mut Vec<Field>, found: &Field) {
    match columns.iter_mut().find(|column| column.name() == found.name()) {
        Some(known) if known.data_type() != found.data_type() => known.set_data_type(DataType::Utf8),
        Some(_) => {}
        None => columns.push(found.clone().with_nullable(true)),
    }
}

/// The newest snapshot of each fleet.
fn newest(manifests: &[Manifest]) -> BTreeSet<SnapshotId> {
    let mut newest = BTreeMap::new();
    for manifest in manifests {
        let of_fleet = newest.entry(manifest.fleet.as_str()).or_insert(manifest.snapshot);
        *of_fleet = manifest.snapshot.max(*of_fleet);
    }
    newest.into_values().collect()
}

fn stored_file(manifest: &Manifest, entry: &FileEntry, current: bool) -> Result<StoredFile, Error> {
    let location = Path::parse(&entry.path).map_err(|source| {
        Error::data(format!("`{}` is no path in a store", entry.path.escape_debug()))
            .source(source)
            .with("snapshot", manifest.snapshot)
            .hint("`diffy snapshot verify` checks a snapshot against its manifest")
    })?;
    let values = [manifest.fleet.to_string(), manifest.snapshot.dt(), manifest.snapshot.to_string()];
    let file = PartitionedFile::new_from_meta(ObjectMeta {
        location,
        // Files are written once, so size and path say all that a cache has to know.
        last_modified: chrono::DateTime::UNIX_EPOCH,
        size: entry.bytes,
        e_tag: None,
        version: None,
    })
    .with_partition_values(values.map(ScalarValue::from).to_vec());
    debug_assert_eq!(file.partition_values.first().map(ScalarValue::data_type), Some(DataType::Utf8));
    Ok(StoredFile { file, rows: entry.rows, current })
}

/// The library as SQL addresses it: `diffy.SCHEMA.TABLE`.
#[derive(Debug)]
pub(super) struct Shelves(pub(super) Arc<Library>);

impl CatalogProvider for Shelves {
    fn schema_names(&self) -> Vec<String> {
        Scope::LIST.map(|scope| scope.name().to_owned()).to_vec()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let scope = Scope::LIST.into_iter().find(|scope| scope.name() == name)?;
        Some(Arc::new(Shelf { library: Arc::clone(&self.0), scope }))
    }
}

#[derive(Debug)]
struct Shelf {
    library: Arc<Library>,
    scope: Scope,
}

// Spelled out as `async_trait` expands it.
impl SchemaProvider for Shelf {
    fn table_names(&self) -> Vec<String> {
        self.library.names(self.scope)
    }

    fn table<'a, 'b, 'f>(&'a self, name: &'b str) -> BoxFuture<'f, Result<Option<Arc<dyn TableProvider>>>>
    where
        'a: 'f,
        'b: 'f,
        Self: 'f,
    {
        Box::pin(self.library.table(self.scope, name))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.library.names(self.scope).iter().any(|known| known == name)
    }
}
