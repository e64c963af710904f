//! One stored table: exactly the files that committed manifests name, pruned by fleet, day and snapshot before the
//! manifests are read.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::TableParquetOptions;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, ScalarValue, Statistics, exec_err};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::listing::helpers::expr_applicable_for_cols;
use datafusion::datasource::physical_plan::{
    FileGroup, FileScanConfig, FileScanConfigBuilder, ParquetSource,
};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::{ExecutionPlan, Partitioning};

use super::archive::{Archive, partition_values};
use crate::store::{Commit, FileKind};

/// Columns whose values come from the manifest and not from the files.
pub(super) const PARTITIONS: [&str; 3] = ["fleet", "dt", "snapshot"];
/// How many hosts answered for the table in the snapshot; from the manifest, too.
pub(super) const ANSWERED: &str = "hosts_answered";

/// A file and what its manifest says of it.
#[derive(Debug, Clone)]
pub(super) struct StoredFile {
    /// Where it is; carries the values of [`PARTITIONS`].
    pub(super) file: PartitionedFile,
    /// Rows in it.
    pub(super) rows: u64,
    /// Hosts that answered for its table.
    pub(super) answered: u64,
}

/// A table over the stored files of snapshots.
#[derive(Debug)]
pub(super) struct SnapshotTable {
    store: ObjectStoreUrl,
    schema: TableSchema,
    archive: Arc<Archive>,
    /// Which files of a snapshot.
    key: (FileKind, String),
    /// Newest first.
    commits: Vec<Commit>,
}

impl SnapshotTable {
    /// A table of the files of that kind in these snapshots, whose own columns are `columns`; what a file lacks of
    /// them is null.
    pub(super) fn new(
        store: ObjectStoreUrl,
        columns: SchemaRef,
        (archive, key, commits): (&Arc<Archive>, (FileKind, String), Vec<Commit>),
    ) -> Self {
        let schema = TableSchema::builder(columns).with_table_partition_cols(partition_fields()).build();
        Self { store, schema, archive: Arc::clone(archive), key, commits }
    }

    /// The same with a last column [`ANSWERED`], for [`Self::sorted`].
    pub(super) fn with_answered(mut self) -> Self {
        let mut constants = partition_fields();
        constants.push(Arc::new(Field::new(ANSWERED, DataType::UInt64, false)));
        let columns = Arc::clone(self.schema.file_schema());
        self.schema = TableSchema::builder(columns).with_table_partition_cols(constants).build();
        self
    }

    /// The files of snapshots whose partition values satisfy the `filters` on them; no other manifest is read.
    async fn kept(&self, state: &dyn Session, filters: &[Expr]) -> Result<Vec<StoredFile>> {
        let filters: Vec<&Expr> = filters.iter().filter(|filter| is_partition_filter(filter)).collect();
        let mut commits = self.commits.clone();
        if !filters.is_empty() && !commits.is_empty() {
            let values: Vec<Vec<ScalarValue>> = commits.iter().map(partition_values).collect();
            let mut kept = satisfying(state, &values, &filters)?.into_iter();
            commits.retain(|_| kept.next().unwrap_or_default());
        }
        let filed = self.archive.filed(&commits).await?;
        Ok(filed.iter().filter_map(|filed| filed.files.get(&self.key)).flatten().cloned().collect())
    }

    /// Reads some columns with the files of a snapshot one after the other, as the manifest has them: sorted files
    /// stay sorted within each snapshot. Of a table [`Self::with_answered`].
    pub(super) async fn sorted(
        &self,
        state: &dyn Session,
        columns: Vec<usize>,
        filters: &[Expr],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let kept = self.kept(state, filters).await?;
        let statistics = self.statistics_of(&kept);
        let groups = whole_snapshots(kept, state.config().target_partitions());
        self.undisturbed(state, (groups, statistics), columns).await
    }

    /// As [`Self::sorted`] in one partition, the newest snapshot first; and the fleet and snapshot of each.
    pub(super) async fn by_snapshot(
        &self,
        state: &dyn Session,
        columns: Vec<usize>,
        filters: &[Expr],
    ) -> Result<(Arc<dyn ExecutionPlan>, Vec<(String, String)>)> {
        let kept = self.kept(state, filters).await?;
        let statistics = self.statistics_of(&kept);
        let groups = whole_snapshots(kept, 1);
        let mut named: Vec<(String, String)> =
            groups.iter().flat_map(FileGroup::iter).map(fleet_and_snapshot).collect();
        named.dedup();
        Ok((self.undisturbed(state, (groups, statistics), columns).await?, named))
    }

    /// Reads each group as it is.
    async fn undisturbed(
        &self,
        state: &dyn Session,
        (groups, statistics): (Vec<FileGroup>, Statistics),
        columns: Vec<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let partitions = Partitioning::UnknownPartitioning(groups.len());
        // Without both the engine cuts files into ranges, and lets idle partitions take files of others.
        let config = self.scan_of(groups, statistics).with_output_partitioning(Some(partitions));
        let config = config.with_preserve_order(true).with_projection_indices(Some(columns))?;
        self.read(state, config.build()).await
    }

    fn scan_of(&self, groups: Vec<FileGroup>, statistics: Statistics) -> FileScanConfigBuilder {
        let source = Arc::new(ParquetSource::new(self.schema.clone()));
        FileScanConfigBuilder::new(self.store.clone(), source)
            .with_file_groups(groups)
            .with_statistics(statistics)
    }

    async fn read(&self, state: &dyn Session, config: FileScanConfig) -> Result<Arc<dyn ExecutionPlan>> {
        if config.file_groups.is_empty() {
            return Ok(Arc::new(EmptyExec::new(config.projected_schema()?)));
        }
        let options = TableParquetOptions {
            global: state.config_options().execution.parquet.clone(),
            ..TableParquetOptions::default()
        };
        ParquetFormat::new().with_options(options).create_physical_plan(state, config).await
    }

    /// Row counts are known from the manifests, so counting all rows reads no file.
    fn statistics_of(&self, files: &[StoredFile]) -> Statistics {
        let rows: u64 = files.iter().map(|stored| stored.rows).sum();
        let mut statistics = Statistics::new_unknown(&self.schema());
        statistics.num_rows = usize::try_from(rows).map_or(Precision::Absent, Precision::Exact);
        statistics
    }
}

#[async_trait]
impl TableProvider for SnapshotTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.schema.table_schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(pushdown(filters, is_partition_filter, TableProviderFilterPushDown::Inexact))
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let kept = self.kept(state, filters).await?;
        let statistics = self.statistics_of(&kept);
        let files = kept.into_iter().map(|stored| stored.file).collect();
        let groups = FileGroup::new(files).split_files(state.config().target_partitions());
        let config = self.scan_of(groups, statistics).with_projection_indices(projection.cloned())?;
        self.read(state, config.with_limit(limit).build()).await
    }
}

fn partition_fields() -> Vec<FieldRef> {
    PARTITIONS.iter().map(|name| Arc::new(Field::new(*name, DataType::Utf8, false))).collect()
}

/// Fleet and snapshot of a file.
fn fleet_and_snapshot(file: &PartitionedFile) -> (String, String) {
    let text = |place: usize| file.partition_values.get(place).and_then(|value| value.try_as_str().flatten());
    (text(0).unwrap_or_default().to_owned(), text(2).unwrap_or_default().to_owned())
}

/// At most `most` groups of about as many snapshots, each with all of its files in their order.
fn whole_snapshots(files: Vec<StoredFile>, most: usize) -> Vec<FileGroup> {
    let mut snapshots: Vec<Vec<PartitionedFile>> = Vec::new();
    for StoredFile { mut file, answered, .. } in files {
        file.partition_values.push(ScalarValue::UInt64(Some(answered)));
        match snapshots.last_mut() {
            Some(last) if last[0].partition_values == file.partition_values => last.push(file),
            _ => snapshots.push(vec![file]),
        }
    }
    let each = snapshots.len().div_ceil(most.max(1)).max(1);
    snapshots.chunks(each).map(|chunk| FileGroup::new(chunk.concat())).collect()
}

/// What becomes of filters: those that `decides` are applied by the scan, the others are what `otherwise` says.
pub(super) fn pushdown(
    filters: &[&Expr],
    decides: impl Fn(&Expr) -> bool,
    otherwise: TableProviderFilterPushDown,
) -> Vec<TableProviderFilterPushDown> {
    let support = |filter: &&Expr| match decides(filter) {
        true => TableProviderFilterPushDown::Exact,
        false => otherwise.clone(),
    };
    filters.iter().map(support).collect()
}

/// Whether the manifests alone can decide this filter.
pub(super) fn is_partition_filter(filter: &Expr) -> bool {
    let asks_further = filter.exists(|part| {
        Ok(matches!(
            part,
            Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::ScalarSubquery(_)
                | Expr::SetComparison(_)
                | Expr::OuterReferenceColumn(..)
        ))
    });
    expr_applicable_for_cols(&PARTITIONS, filter) && !asks_further.unwrap_or(true)
}

/// For each set of partition values, whether it satisfies all filters.
fn satisfying(state: &dyn Session, values: &[Vec<ScalarValue>], filters: &[&Expr]) -> Result<Vec<bool>> {
    let schema = Arc::new(Schema::new(partition_fields()));
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(PARTITIONS.len());
    for partition in 0..PARTITIONS.len() {
        let texts =
            values.iter().map(|values| values.get(partition).and_then(|value| value.try_as_str().flatten()));
        columns.push(Arc::new(texts.collect::<StringArray>()));
    }
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
    let schema = DFSchema::try_from(schema)?;
    let mut kept = vec![true; values.len()];
    for filter in filters {
        let truth = state.create_physical_expr((*filter).clone(), &schema)?.evaluate(&batch)?;
        let truth = truth.into_array(values.len())?;
        let Some(truth) = truth.as_any().downcast_ref::<BooleanArray>() else {
            return exec_err!("`{filter}` is neither true nor false");
        };
        kept.iter_mut()
            .enumerate()
            .for_each(|(index, kept)| *kept &= truth.is_valid(index) && truth.value(index));
    }
    Ok(kept)
}
