//! Identities: one line per strict id of a table and snapshot, made from prevalence while it is read.
//!
//! A table's prevalence may have several lines of one strict id, for its lines also tell apart what the ids leave out.
//! The files are sorted by id, so these lines stand together: neighbours are united while they stream by, where
//! grouping would hash every line, decode its hosts and encode them again. Nearly all ids have one line, and that is
//! handed on as it is.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, RecordBatch, UInt32Array,
};
use datafusion::arrow::compute::{concat_batches, take_record_batch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{exec_err, internal_err};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::ReplaceChildrenOptions;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{Stream, StreamExt, stream};
use roaring::RoaringBitmap;

use super::functions::{only_host, read_bitmap, write_bitmap};
use super::table::{SnapshotTable, is_partition_filter, pushdown};

/// What tells lines of one id: neighbours that agree in these are one identity.
const KEY: [&str; 2] = ["strict_id", "snapshot"];

/// The identities of one table.
#[derive(Debug)]
pub(super) struct IdentityTable {
    /// Its prevalence, with the number of hosts that answered.
    lines: SnapshotTable,
}

impl IdentityTable {
    pub(super) fn new(lines: SnapshotTable) -> Self {
        Self { lines }
    }
}

#[async_trait]
impl TableProvider for IdentityTable {
    fn schema(&self) -> SchemaRef {
        self.lines.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Only what chooses snapshots goes below: lines of one identity differ in nothing else that is filtered there.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(pushdown(filters, is_partition_filter, TableProviderFilterPushDown::Unsupported))
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = self.schema();
        let all: Vec<usize> = (0..schema.fields().len()).collect();
        let asked = projection.unwrap_or(&all);
        let mut needed = asked.clone();
        for name in KEY.into_iter().chain(["hosts", "members"]) {
            needed.push(schema.index_of(name)?);
        }
        needed.sort_unstable();
        needed.dedup();
        let lines = self.lines.sorted(state, needed.clone(), filters).await?;
        let places = asked.iter().map(|column| needed.binary_search(column));
        let Ok(places) = places.collect::<std::result::Result<Vec<usize>, usize>>() else {
            return internal_err!("a column of identities is not among those that are read");
        };
        Ok(Arc::new(IdentityExec::new(lines, places)?))
    }
}

/// Unites neighbouring lines of one identity, then keeps the columns at `places`.
#[derive(Debug, Clone)]
pub(super) struct IdentityExec {
    lines: Arc<dyn ExecutionPlan>,
    places: Vec<usize>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl IdentityExec {
    pub(super) fn new(lines: Arc<dyn ExecutionPlan>, places: Vec<usize>) -> Result<Self> {
        let schema = Arc::new(lines.schema().project(&places)?);
        let below = lines.properties();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            below.output_partitioning().clone(),
            below.emission_type,
            below.boundedness,
        );
        Ok(Self { lines, places, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() })
    }

    fn over(&self, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(lines) = children.pop() else { return internal_err!("identities are of one plan") };
        Ok(Arc::new(Self::new(lines, self.places.clone())?))
    }

    /// What [`Self::new`] needs beside the lines.
    #[cfg(feature = "ballista")]
    pub(super) fn places(&self) -> &[usize] {
        &self.places
    }
}

impl DisplayAs for IdentityExec {
    fn fmt_as(&self, _kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentityExec: by={}", KEY.join(", "))
    }
}

impl ExecutionPlan for IdentityExec {
    fn name(&self) -> &'static str {
        "IdentityExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.lines]
    }

    /// Parts of one snapshot must be read one after the other: an identity may go on in the next.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.over(children)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.over(children)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let lines = self.lines.execute(partition, context)?;
        let united = united(lines, BaselineMetrics::new(&self.metrics, partition));
        let places = self.places.clone();
        let kept = united.map(move |batch| Ok(batch?.project(&places)?));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), kept)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// The identities of sorted lines. The last one of a batch waits for the next batch, which may go on with it.
fn united(
    lines: SendableRecordBatchStream,
    metrics: BaselineMetrics,
) -> impl Stream<Item = Result<RecordBatch>> + Send {
    let waiting: Option<RecordBatch> = None;
    stream::try_unfold((lines, waiting, metrics), |(mut lines, waiting, metrics)| async move {
        let Some(batch) = lines.next().await.transpose()? else {
            let end = (lines, None, metrics);
            return Ok(waiting.map(|last| (last, end)));
        };
        let timer = metrics.elapsed_compute().timer();
        let joined = match &waiting {
            Some(waiting) => concat_batches(&batch.schema(), [waiting, &batch])?,
            None => batch,
        };
        let (complete, waiting) = all_but_last(&unite(joined)?)?;
        timer.done();
        metrics.record_output(complete.num_rows());
        Ok(Some((complete, (lines, waiting, metrics))))
    })
}

/// Splits off the last line, on its own, so that it does not keep its whole batch.
fn all_but_last(batch: &RecordBatch) -> Result<(RecordBatch, Option<RecordBatch>)> {
    let Some(last) = batch.num_rows().checked_sub(1) else { return Ok((batch.clone(), None)) };
    let waiting = take_record_batch(batch, &UInt32Array::from(vec![last as u32]))?;
    Ok((batch.slice(0, last), Some(waiting)))
}

/// One line for each run of lines of one identity: the first of them, with the hosts of all.
fn unite(batch: RecordBatch) -> Result<RecordBatch> {
    let starts = starts(&batch)?;
    if starts.len() == batch.num_rows() {
        return Ok(batch);
    }
    let (hosts, members) = hosts_of_runs(&batch, &starts)?;
    let firsts = take_record_batch(&batch, &UInt32Array::from(starts))?;
    let schema = firsts.schema();
    let mut columns = firsts.columns().to_vec();
    columns[schema.index_of("hosts")?] = hosts;
    columns[schema.index_of("members")?] = members;
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// Where runs begin.
fn starts(batch: &RecordBatch) -> Result<Vec<u32>> {
    let [id, snapshot] = KEY.map(|name| batch.column_by_name(name));
    let ids = id.and_then(|array| array.as_fixed_size_binary_opt());
    let snapshots = snapshot.and_then(|array| array.as_string_opt::<i32>());
    let (Some(ids), Some(snapshots)) = (ids, snapshots) else {
        return exec_err!("prevalence has no `strict_id` or no `snapshot`");
    };
    let goes_on =
        |row: usize| ids.value(row) == ids.value(row - 1) && snapshots.value(row) == snapshots.value(row - 1);
    Ok((0..batch.num_rows()).filter(|row| *row == 0 || !goes_on(*row)).map(|row| row as u32).collect())
}

/// How many hosts each run has, and which.
fn hosts_of_runs(batch: &RecordBatch, starts: &[u32]) -> Result<(ArrayRef, ArrayRef)> {
    let members = batch.column_by_name("members").and_then(|array| array.as_binary_opt::<i32>());
    let hosts = batch.column_by_name("hosts").and_then(|array| array.as_primitive_opt());
    let (Some(members), Some(hosts)): (_, Option<&UInt32Array>) = (members, hosts) else {
        return exec_err!("prevalence has no `hosts` or no `members`");
    };
    let mut counts = Vec::with_capacity(starts.len());
    let mut sets = BinaryBuilder::with_capacity(starts.len(), members.values().len());
    for (index, start) in starts.iter().enumerate() {
        let start = *start as usize;
        let end = starts.get(index + 1).map_or(batch.num_rows(), |next| *next as usize);
        if end - start == 1 && members.is_valid(start) {
            counts.push(hosts.value(start));
            sets.append_value(members.value(start));
            continue;
        }
        let union = union(members, start..end)?;
        counts.push(u32::try_from(union.len()).unwrap_or(u32::MAX));
        sets.append_value(write_bitmap(&union)?);
    }
    Ok((Arc::new(UInt32Array::from(counts)), Arc::new(sets.finish())))
}

fn union(members: &BinaryArray, rows: std::ops::Range<usize>) -> Result<RoaringBitmap> {
    let mut union = RoaringBitmap::new();
    // Thousands of lines of one host each are not rare; one by one each would move all that follow it.
    let mut singles: Vec<u32> = Vec::new();
    for bytes in rows.filter(|row| members.is_valid(*row)).map(|row| members.value(row)) {
        match only_host(bytes) {
            Some(host) => singles.push(host),
            None => union |= read_bitmap("identities", bytes)?,
        }
    }
    singles.sort_unstable();
    union |= singles.into_iter().collect::<RoaringBitmap>();
    Ok(union)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use datafusion::arrow::array::{FixedSizeBinaryArray, StringArray};
    use datafusion::arrow::datatypes::{DataType, Field, Schema};
    use futures::TryStreamExt;
    use proptest::prelude::*;

    use super::*;

    /// Snapshot, id and hosts of a line.
    type Line = (u8, u8, Vec<u32>);

    fn batch(lines: &[Line]) -> RecordBatch {
        let fields = [
            Field::new("strict_id", DataType::FixedSizeBinary(1), false),
            Field::new("snapshot", DataType::Utf8, false),
            Field::new("hosts", DataType::UInt32, false),
            Field::new("members", DataType::Binary, false),
        ];
        let sets: Vec<RoaringBitmap> = lines.iter().map(|line| line.2.iter().copied().collect()).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(FixedSizeBinaryArray::try_from_iter(lines.iter().map(|line| [line.1])).unwrap()),
            Arc::new(lines.iter().map(|line| Some(line.0.to_string())).collect::<StringArray>()),
            Arc::new(sets.iter().map(|set| set.len() as u32).collect::<UInt32Array>()),
            Arc::new(BinaryArray::from_iter_values(sets.iter().map(|set| write_bitmap(set).unwrap()))),
        ];
        RecordBatch::try_new(Arc::new(Schema::new(fields.to_vec())), columns).unwrap()
    }

    fn identities(lines: &[Line], ends: &[usize]) -> Vec<Line> {
        let mut batches = Vec::new();
        let mut start = 0;
        for end in ends.iter().chain([&lines.len()]) {
            let end = (*end).clamp(start, lines.len());
            if end > start {
                batches.push(Ok(batch(&lines[start..end])));
            }
            start = end;
        }
        let schema = batch(&[(0, 0, vec![0])]).schema();
        let stream = Box::pin(RecordBatchStreamAdapter::new(schema, stream::iter(batches)));
        let metrics = BaselineMetrics::new(&ExecutionPlanMetricsSet::new(), 0);
        let found: Result<Vec<RecordBatch>> =
            futures::executor::block_on(united(stream, metrics).try_collect());
        found.unwrap().iter().flat_map(lines_of).collect()
    }

    fn lines_of(batch: &RecordBatch) -> Vec<Line> {
        let ids = batch.column(0).as_fixed_size_binary();
        let snapshots = batch.column(1).as_string::<i32>();
        let hosts: &UInt32Array = batch.column(2).as_primitive();
        let members = batch.column(3).as_binary::<i32>();
        let line = |row| {
            let set = read_bitmap("test", members.value(row)).unwrap();
            assert_eq!(set.len(), u64::from(hosts.value(row)));
            (snapshots.value(row).parse().unwrap(), ids.value(row)[0], set.iter().collect())
        };
        (0..batch.num_rows()).map(line).collect()
    }

    #[test]
    fn neighbours_of_one_id_are_one_and_snapshots_stay_apart() {
        let lines = [(1, 7, vec![0, 1]), (1, 7, vec![1, 2]), (2, 7, vec![9])];
        for ends in [vec![], vec![1], vec![1, 2], vec![2]] {
            assert_eq!(identities(&lines, &ends), [(1, 7, vec![0, 1, 2]), (2, 7, vec![9])], "{ends:?}");
        }
    }

    #[test]
    fn no_lines_are_no_identities() {
        assert_eq!(identities(&[], &[]), []);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_batches_give_what_grouping_gives(
            mut lines in prop::collection::vec((0..3_u8, 0..6_u8, prop::collection::btree_set(0..200_000_u32, 1..4)), 1..40),
            mut ends in prop::collection::vec(0..40_usize, 0..8),
        ) {
            lines.sort();
            ends.sort_unstable();
            let lines: Vec<Line> = lines.into_iter().map(|(snapshot, id, hosts)| (snapshot, id, hosts.into_iter().collect())).collect();
            let mut grouped: BTreeMap<(u8, u8), std::collections::BTreeSet<u32>> = BTreeMap::new();
            for (snapshot, id, hosts) in &lines {
                grouped.entry((*snapshot, *id)).or_default().extend(hosts);
            }
            let grouped: Vec<Line> =
                grouped.into_iter().map(|((snapshot, id), hosts)| (snapshot, id, hosts.into_iter().collect())).collect();
            prop_assert_eq!(identities(&lines, &ends), grouped);
        }
    }
}
