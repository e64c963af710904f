//! DataFusion over a store: sessions that see committed snapshots as tables, and the external sort of the writer.
//!
//! A session sees what the manifests name and nothing else: no directory is listed, so parts of unfinished
//! collections are invisible. Schema `public` (the default) has every osquery table over all snapshots and the tables
//! `prevalence`, `identities`, `sightings`, `coverage`, `hosts`, `snapshots`, `baselines` and `findings`; `current` has
//! the same over the newest snapshot of each fleet. `prev` has the prevalence of each osquery table with the table's own
//! columns, and `current_prev` the same over the newest snapshot of each fleet.

mod archive;
pub mod cluster;
mod explain;
mod functions;
mod identities;
mod library;
mod near;
mod pool;
mod prove;
mod shapes;
mod sightings;
mod sort;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::CatalogProvider;
use datafusion::common::{ParamValues, ScalarValue, TableReference};
use datafusion::error::DataFusionError;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, SessionStateBuilder};
use datafusion::prelude::{DataFrame, SQLOptions, SessionConfig, SessionContext};
use futures::TryStreamExt;
use object_store::ObjectStore;

use self::archive::Archive;
use self::cluster::{Cluster, Place};
pub use self::explain::explain_error;
use self::library::{Library, Scope, Shelves};
use self::near::Near;
use self::pool::QueryPool;
pub use self::prove::Proof;
pub use self::sort::{DEFAULT_BATCH_ROWS, SortConfig, sort_stream};
use crate::catalog::{BoundQuery, Catalog, ParamValue};
use crate::error::{Error, Result};
use crate::store::{Commit, FileEntry, Manifest, Store};

/// Where the store is for DataFusion; nobody outside ever sees it but in `EXPLAIN`.
const STORE_URL: &str = "diffy://store/";
/// The catalog that all schemas are in.
const CATALOG: &str = "diffy";
/// Where SQL finds the names of all tables.
const INFORMATION_SCHEMA: &str = "information_schema";
/// Least memory that queries are given, in bytes.
const MIN_MEMORY: usize = 32 << 20;

/// What queries may use.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Memory that all queries of an engine may hold together, in bytes; at least 32 MiB is taken.
    pub memory_limit_bytes: usize,
    /// How many partitions of a query run at once; at least 1.
    pub threads: usize,
    /// Where sorts and groupings go that do not fit into memory; `None` is the system's temporary directory.
    pub spill_dir: Option<PathBuf>,
}

/// The snapshots that an engine is over.
#[derive(Debug)]
pub enum Snapshots {
    /// These, whose manifests are here.
    Read(Vec<Manifest>),
    /// These; a manifest is read when a query needs it.
    Named(Vec<Commit>),
}

/// SQL over the committed snapshots of one store.
pub struct Engine {
    context: SessionContext,
    library: Arc<Library>,
    /// Where queries run that do not run here.
    cluster: Option<Cluster>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine over the snapshots of `manifests`, whose paths are below the root of `object_store`.
    ///
    /// Nothing is read here: columns are found out when a query first names a table.
    ///
    /// # Errors
    /// A manifest names an impossible path, or the spill directory cannot be made.
    pub fn new(
        object_store: Arc<dyn ObjectStore>,
        manifests: Arc<Vec<Manifest>>,
        catalog: &Catalog,
        config: &EngineConfig,
    ) -> Result<Self> {
        Self::over(object_store, Archive::of_manifests(&manifests, None)?, catalog, config)
    }

    /// An engine over these snapshots of `store`. Of a store that is not local, small files are fetched whole and kept
    /// for a while.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of_store(
        store: &Store,
        snapshots: Snapshots,
        catalog: &Catalog,
        config: &EngineConfig,
    ) -> Result<Self> {
        let near = (!store.is_local()).then(|| Arc::new(Near::new(store.object_store())));
        let object_store = near.clone().map_or_else(|| store.object_store(), |near| near as _);
        let archive = match snapshots {
            Snapshots::Read(manifests) => Archive::of_manifests(&manifests, near)?,
            Snapshots::Named(commits) => Archive::of_commits(Some(store.clone()), commits, near),
        };
        Self::over(object_store, archive, catalog, config)
    }

    fn over(
        object_store: Arc<dyn ObjectStore>,
        archive: Archive,
        catalog: &Catalog,
        config: &EngineConfig,
    ) -> Result<Self> {
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(QueryPool::new(config.memory_limit_bytes.max(MIN_MEMORY))))
            .with_disk_manager_builder(sort::spill_disk(config.spill_dir.clone()))
            .build_arc()
            .map_err(|source| Error::config("cannot set up the query engine").source(source))?;
        let url = ObjectStoreUrl::parse(STORE_URL)
            .map_err(|source| Error::internal("the store has no address").source(source))?;
        runtime.register_object_store(url.as_ref(), Arc::clone(&object_store));
        let library = Library::new((url, object_store), Arc::clone(&runtime), archive, catalog);
        let state = SessionStateBuilder::new()
            .with_config(session_config(config))
            .with_runtime_env(runtime)
            .with_default_features()
            .build();
        let context = SessionContext::new_with_state(state);
        let engine = Self { context, library: Arc::new(library), cluster: None };
        engine.context.register_catalog(CATALOG, engine.catalog());
        functions::scalars().into_iter().for_each(|function| engine.context.register_udf(function));
        engine.context.register_udaf(functions::bitmap_or());
        Ok(engine)
    }

    /// The same engine, whose queries over `store` run at `place`.
    ///
    /// # Errors
    /// This program is built without clusters.
    pub fn running_at(mut self, place: &Place, store: &Store) -> Result<Self> {
        self.cluster = Cluster::at(place, store, &self.context)?;
        Ok(self)
    }

    fn catalog(&self) -> Arc<dyn CatalogProvider> {
        Arc::new(Shelves(Arc::clone(&self.library)))
    }

    /// Runs one query; rows come as they are found.
    ///
    /// # Errors
    /// The text is no query, or one that would change something, or it names what is not there: kind `Usage`. Errors
    /// of the stream go through [`explain_error`] to become ours.
    pub async fn sql(&self, sql: &str) -> Result<SendableRecordBatchStream> {
        self.sql_with_params(sql, Vec::new()).await
    }

    /// As [`Self::sql`], with values for `$name` in the text.
    ///
    /// # Errors
    /// As [`Self::sql`], and when a parameter of the text has no value.
    pub async fn sql_with_params(
        &self,
        sql: &str,
        params: Vec<(String, ScalarValue)>,
    ) -> Result<SendableRecordBatchStream> {
        let frame = self.plan(sql, params).await?;
        let rows = match &self.cluster {
            Some(cluster) => cluster.stream(frame).await,
            None => frame.execute_stream().await,
        };
        rows.map_err(|error| explain_error(error, self))
    }

    /// Runs a saved query.
    ///
    /// # Errors
    /// As [`Self::sql`].
    pub async fn ask(&self, query: &BoundQuery) -> Result<SendableRecordBatchStream> {
        let value = |(name, value): &(String, ParamValue)| (name.clone(), ScalarValue::from(value.clone()));
        self.sql_with_params(&query.sql, query.params.iter().map(value).collect()).await
    }

    /// As [`Self::sql_with_params`], with all rows at once: for results that are known to be small.
    ///
    /// # Errors
    /// As [`Self::sql_with_params`], and whatever goes wrong while it runs.
    pub async fn collect(&self, sql: &str, params: Vec<(String, ScalarValue)>) -> Result<Vec<RecordBatch>> {
        let rows = self.sql_with_params(sql, params).await?;
        rows.try_collect().await.map_err(|error| explain_error(error, self))
    }

    /// Plans one query without running it.
    ///
    /// # Errors
    /// As [`Self::sql_with_params`].
    pub async fn plan(&self, sql: &str, params: Vec<(String, ScalarValue)>) -> Result<DataFrame> {
        let explained = |error: DataFusionError| explain_error(error, self);
        let state = self.context.state();
        let dialect = state.config().options().sql_parser.dialect;
        let statement = state.sql_to_statement(sql, &dialect).map_err(explained)?;
        let named = state.resolve_table_references(&statement).map_err(explained)?;
        if named.iter().any(|table| table.schema() == Some(INFORMATION_SCHEMA)) {
            // It lists every table.
            self.library.read_all().await.map_err(explained)?;
        }
        let plan = state.statement_to_plan(statement).await.map_err(explained)?;
        let read_only =
            SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        read_only.verify_plan(&plan).map_err(|source| {
            Error::usage("a query may only read")
                .source(source)
                .hint("use SELECT, WITH, SHOW, DESCRIBE or EXPLAIN; snapshots are changed by `diffy snapshot` alone")
        })?;
        let plan = if params.is_empty() {
            plan
        } else {
            plan.with_param_values(ParamValues::from(params)).map_err(explained)?
        };
        Ok(DataFrame::new(state, plan))
    }

    /// Whether a question names a table of `public` or `current`; false for what is no question.
    pub fn names(&self, sql: &str, table: &str) -> bool {
        let state = self.context.state();
        let dialect = state.config().options().sql_parser.dialect;
        let statement = state.sql_to_statement(sql, &dialect);
        let named = statement.and_then(|statement| state.resolve_table_references(&statement));
        named.is_ok_and(|named| named.iter().any(|reference| reference.table() == table))
    }

    /// Manifests that queries needed and that are damaged, each named once: their snapshots were left out.
    pub fn damaged(&self) -> Vec<Error> {
        self.library.archive().damaged()
    }

    /// Reads these files ahead, where each would be a request of its own: the small ones, from stores that are not
    /// local, many at once. What cannot be read is told by the query that needs it.
    pub async fn fetch(&self, files: impl Iterator<Item = &FileEntry>) {
        self.library.archive().fetch(files).await;
    }

    /// Puts `batches` up as table `name` (of `public` and `current`) in place of what had that name.
    ///
    /// # Errors
    /// The batches differ in their columns; or there is none, and the table is not one whose columns are known.
    pub fn register_batches(&self, name: &str, batches: Vec<RecordBatch>) -> Result<()> {
        self.library.register(name, batches)
    }

    /// Names of the tables that `public` and `current` have, sorted: those of the catalog, and those that recent
    /// snapshots have beside them.
    ///
    /// # Errors
    /// The store does not give a manifest.
    pub async fn table_names(&self) -> Result<Vec<String>> {
        self.library.archive().sample().await.map_err(|error| explain_error(error, self))?;
        Ok(self.library.names(Scope::All))
    }

    /// Columns of a table: `processes`, `current.processes`, `prev.processes`.
    ///
    /// # Errors
    /// There is no such table, or a file of it cannot be read.
    pub async fn columns_of(&self, table: &str) -> Result<SchemaRef> {
        let reference = TableReference::parse_str(table);
        let provider =
            self.context.table_provider(reference).await.map_err(|error| explain_error(error, self))?;
        Ok(provider.schema())
    }
}

impl From<ParamValue> for ScalarValue {
    fn from(value: ParamValue) -> Self {
        match value {
            ParamValue::Text(text) => Self::from(text),
            ParamValue::Integer(integer) => Self::from(integer),
            ParamValue::Snapshot(snapshot) => Self::from(snapshot.to_string()),
        }
    }
}

fn session_config(config: &EngineConfig) -> SessionConfig {
    let mut session = SessionConfig::new()
        .with_target_partitions(config.threads.max(1))
        .with_default_catalog_and_schema(CATALOG, Scope::All.name())
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true);
    let options = session.options_mut();
    options.sql_parser.map_string_types_to_utf8view = false;
    let parquet = &mut options.execution.parquet;
    parquet.pushdown_filters = true;
    parquet.reorder_filters = true;
    parquet.enable_page_index = true;
    parquet.bloom_filter_on_read = true;
    parquet.schema_force_view_types = false;
    session
}
