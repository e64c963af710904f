//! What SQL finds by name: the tables of committed snapshots in four schemas, read from the manifests.
//!
//! A table's columns are the catalog's, then those that the newest files have beside them. Reading every footer would
//! cost a request per file of the store, so only the [`FOOTERS`] newest files of a table are read, when a query first
//! names it, and only of snapshots whose manifests were read by then: the archive's sample at least. A column that
//! only older files have is not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::datasource::{MemTable, ViewTable, provider_as_source};
use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, col, lit};
use futures::{StreamExt, stream};
use object_store::{ObjectMeta, ObjectStore};

use super::archive::Archive;
use super::identities::IdentityTable;
use super::sightings::SightingTable;
use super::table::{ANSWERED, PARTITIONS, SnapshotTable, StoredFile};
use super::{functions, shapes};
use crate::catalog::{Catalog, OWN_COLUMNS};
use crate::error::Error;
use crate::store::{Commit, FileKind, Manifest};

/// So many bytes at a file's end are read at once: of most files, all that says what is in it. Over a network each
/// request costs more than these bytes.
const FOOTER_BYTES: usize = 64 << 10;

/// Files of a table whose footers are read for columns that the catalog does not know.
const FOOTERS: usize = 20;
/// Footers that are read at once.
const FOOTERS_AT_ONCE: usize = 16;
/// Stands where no table has prevalence.
const NO_TABLE: &str = "none";
/// Names that are never tables of osquery here.
const META: [&str; 8] =
    ["prevalence", "identities", "sightings", "coverage", "hosts", "snapshots", "baselines", "findings"];

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

    fn is_current(self) -> bool {
        matches!(self, Self::Current | Self::CurrentPrevalence)
    }
}

/// The tables of an archive, and what others registered.
#[derive(Debug)]
pub(super) struct Library {
    url: ObjectStoreUrl,
    store: Arc<dyn ObjectStore>,
    runtime: Arc<RuntimeEnv>,
    archive: Arc<Archive>,
    /// Columns that the catalog declares, by table.
    declared: BTreeMap<String, Vec<(Field, bool)>>,
    /// Columns that were found out from footers before.
    found: Mutex<BTreeMap<Key, SchemaRef>>,
    registered: RwLock<BTreeMap<String, Arc<MemTable>>>,
}

/// A kind of files, and their table; none for coverage and hosts.
type Key = (FileKind, String);

impl Library {
    /// The tables of `archive`, whose files are in `store`.
    pub(super) fn new(
        store: (ObjectStoreUrl, Arc<dyn ObjectStore>),
        runtime: Arc<RuntimeEnv>,
        archive: Archive,
        catalog: &Catalog,
    ) -> Self {
        let declared = catalog.tables().map(|spec| {
            let column = |column: &crate::catalog::ColumnSpec| {
                (Field::new(&column.name, column.kind.data_type(), true), column.is_comparable())
            };
            (spec.name.clone(), spec.columns.iter().map(column).collect())
        });
        Self {
            url: store.0,
            store: store.1,
            runtime,
            archive: Arc::new(archive),
            declared: declared.collect(),
            found: Mutex::default(),
            registered: RwLock::default(),
        }
    }

    /// The snapshots.
    pub(super) fn archive(&self) -> &Archive {
        &self.archive
    }

    /// Reads all manifests, so that [`Self::names`] knows every table.
    pub(super) async fn read_all(&self) -> Result<()> {
        self.archive.filed(self.archive.commits()).await.map(|_| ())
    }

    /// The snapshots that a schema shows, newest first.
    async fn commits(&self, scope: Scope) -> Result<Vec<Commit>> {
        if scope.is_current() {
            return self.archive.newest().await;
        }
        Ok(self.archive.commits().to_vec())
    }

    /// Files of the snapshots that were read, newest first.
    fn known(&self, key: &Key) -> Vec<StoredFile> {
        let known = self.archive.known();
        known.iter().filter_map(|filed| filed.files.get(key)).flatten().cloned().collect()
    }

    fn is_known(&self, key: &Key) -> bool {
        self.archive.known().iter().any(|filed| filed.files.contains_key(key))
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

    /// Names of the tables of a schema, sorted: those of the catalog, and those of snapshots that were read.
    pub(super) fn names(&self, scope: Scope) -> Vec<String> {
        let kind = if scope.is_prevalence() { FileKind::Prevalence } else { FileKind::Rows };
        let mut names: BTreeSet<String> = self.declared.keys().cloned().collect();
        for filed in self.archive.known() {
            names.extend(filed.files.keys().filter(|(of, _)| *of == kind).map(|(_, table)| table.clone()));
        }
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
            "identities" => self.identities(scope).await.map(Some),
            "sightings" => self.sightings().await.map(Some),
            "snapshots" => self.snapshots(scope).await.map(Some),
            _ => match default_shape(name) {
                Some(schema) => Ok(Some(Arc::new(MemTable::try_new(schema, vec![Vec::new()])?))),
                None => self.stored(scope, FileKind::Rows, name).await,
            },
        }
    }

    async fn snapshots(&self, scope: Scope) -> Result<Arc<dyn TableProvider>> {
        let filed = self.archive.filed(&self.commits(scope).await?).await?;
        let manifests: Vec<&Manifest> = filed.iter().rev().map(|filed| &filed.manifest).collect();
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
        if matches!(kind, FileKind::Rows | FileKind::Prevalence) {
            self.archive.sample().await?;
            if !self.declared.contains_key(name) && !self.is_known(&key) {
                self.read_all().await?;
                if !self.is_known(&key) {
                    return Ok(None);
                }
            }
        }
        let columns = self.columns(&key).await?;
        let commits = self.commits(scope).await?;
        Ok(Some(Arc::new(SnapshotTable::new(self.url.clone(), columns, (&self.archive, key, commits)))))
    }

    /// The columns of a table's files.
    async fn columns(&self, key: &Key) -> Result<SchemaRef> {
        match key.0 {
            FileKind::Coverage => return Ok(shapes::coverage()),
            FileKind::Hosts => return Ok(shapes::hosts()),
            FileKind::Findings => return Ok(shapes::findings()),
            FileKind::Rows | FileKind::Prevalence | FileKind::Imported => {}
        }
        if let Some(schema) = self.found.lock().unwrap_or_else(PoisonError::into_inner).get(key) {
            return Ok(Arc::clone(schema));
        }
        let schema = self.merged(key).await?;
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(found.entry(key.clone()).or_insert(schema)))
    }

    async fn merged(&self, key: &Key) -> Result<SchemaRef> {
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
    async fn footers(&self, key: &Key) -> Vec<Schema> {
        let files = self.known(key).into_iter().take(FOOTERS);
        let metas: Vec<ObjectMeta> = files.map(|stored| stored.file.object_meta).collect();
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
        let commits = self.commits(scope).await?;
        let mut plans = Vec::new();
        for name in self.with_prevalence(&commits).await? {
            plans.push(self.prevalence_of(&commits, &name).await?);
        }
        if plans.is_empty() {
            plans.push(self.prevalence_over(NO_TABLE, self.lines_of(NO_TABLE, &[]))?);
        }
        all_of(plans)
    }

    /// Identities of all tables as one.
    async fn identities(&self, scope: Scope) -> Result<Arc<dyn TableProvider>> {
        let commits = self.commits(scope).await?;
        let mut plans = Vec::new();
        for name in self.with_prevalence(&commits).await? {
            plans.push(identities_over(&name, self.lines_of(&name, &commits))?);
        }
        if plans.is_empty() {
            plans.push(identities_over(NO_TABLE, self.lines_of(NO_TABLE, &[]))?);
        }
        all_of(plans)
    }

    /// Sightings of all tables of all fleets as one: of the newest snapshots in any schema, and by all.
    async fn sightings(&self) -> Result<Arc<dyn TableProvider>> {
        let mut plans = Vec::new();
        for newest in self.archive.newest().await? {
            let of_fleet = self.archive.commits().iter().filter(|commit| commit.fleet == newest.fleet);
            // Damaged ones that are newer were passed over, and have nothing to be compared with.
            let of_fleet = of_fleet.filter(|commit| commit.snapshot <= newest.snapshot);
            let commits: Vec<Commit> = of_fleet.cloned().collect();
            for name in self.with_prevalence(std::slice::from_ref(&newest)).await? {
                plans.push(sightings_over(&name, self.lines_of(&name, &commits))?);
            }
        }
        if plans.is_empty() {
            plans.push(sightings_over(NO_TABLE, self.lines_of(NO_TABLE, &[]))?);
        }
        all_of(plans)
    }

    /// The tables that these snapshots have prevalence of.
    async fn with_prevalence(&self, commits: &[Commit]) -> Result<BTreeSet<String>> {
        let filed = self.archive.filed(commits).await?;
        let tables = filed.iter().flat_map(|filed| filed.files.keys());
        Ok(tables.filter(|(kind, _)| *kind == FileKind::Prevalence).map(|(_, table)| table.clone()).collect())
    }

    async fn prevalence_of(&self, commits: &[Commit], name: &str) -> Result<LogicalPlan> {
        let key = (FileKind::Prevalence, name.to_owned());
        let columns = self.columns(&key).await?;
        let of = (&self.archive, key, commits.to_vec());
        self.prevalence_over(name, SnapshotTable::new(self.url.clone(), columns, of))
    }

    /// Prevalence of a table without the columns of the table itself. Without snapshots it has columns and no lines.
    fn lines_of(&self, name: &str, commits: &[Commit]) -> SnapshotTable {
        let columns = Arc::new(Schema::new(shapes::prevalence_columns()));
        let key = (FileKind::Prevalence, name.to_owned());
        SnapshotTable::new(self.url.clone(), columns, (&self.archive, key, commits.to_vec()))
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

fn identities_over(name: &str, lines: SnapshotTable) -> Result<LogicalPlan> {
    let table = IdentityTable::new(lines.with_answered());
    let mut columns = vec![lit(name).alias("table_name")];
    columns.extend(PARTITIONS.iter().map(|column| quoted(column)));
    columns.extend(shapes::prevalence_columns().iter().map(|field| quoted(field.name())));
    columns.push(quoted(ANSWERED));
    LogicalPlanBuilder::scan(name, provider_as_source(Arc::new(table)), None)?.project(columns)?.build()
}

fn sightings_over(name: &str, lines: SnapshotTable) -> Result<LogicalPlan> {
    let table = SightingTable::new(lines.with_answered());
    let mut columns = vec![lit(name).alias("table_name")];
    columns.extend(table.schema().fields().iter().map(|field| quoted(field.name())));
    LogicalPlanBuilder::scan(name, provider_as_source(Arc::new(table)), None)?.project(columns)?.build()
}

/// The rows of all plans, of which there is one at least.
fn all_of(plans: Vec<LogicalPlan>) -> Result<Arc<dyn TableProvider>> {
    let mut plans = plans.into_iter();
    let mut all = LogicalPlanBuilder::from(plans.next().unwrap_or_default());
    for plan in plans {
        all = all.union(plan)?;
    }
    Ok(Arc::new(ViewTable::new(all.build()?, None)))
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

#[async_trait]
impl SchemaProvider for Shelf {
    fn table_names(&self) -> Vec<String> {
        self.library.names(self.scope)
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        self.library.table(self.scope, name).await
    }

    fn table_exist(&self, name: &str) -> bool {
        self.library.names(self.scope).iter().any(|known| known == name)
    }
}
