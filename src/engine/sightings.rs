//! Sightings: for each identity of a fleet's newest snapshot, in which snapshot it was first, and in how many.
//!
//! As SQL that is a grouping over the identities of all snapshots, which holds every one of them, with the names of
//! snapshots beside it, in hash tables. The files are sorted by id, so the newest snapshot's ids are held as one sorted
//! list, and the others stream past it one after the other: both are walked once, and nothing is hashed.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, RecordBatch, StringArray, UInt32Array,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{exec_err, internal_err};
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::{Stream, StreamExt, TryStreamExt, stream};

use super::table::{SnapshotTable, is_partition_filter, pushdown};

/// The ids, in the order in which they are compared.
const IDS: [&str; 2] = ["loose_id", "strict_id"];
/// Says where one snapshot ends and the next begins.
const SNAPSHOT: &str = "snapshot";
/// Bytes of one.
const ID_BYTES: usize = 16;

/// Both, as numbers that stand in the order of their bytes: two comparisons in place of a call for each of millions.
type Key = [u128; 2];

/// The sightings of one table of one fleet.
#[derive(Debug)]
pub(super) struct SightingTable {
    /// Its prevalence in all snapshots of the fleet.
    lines: SnapshotTable,
    schema: SchemaRef,
}

impl SightingTable {
    /// Of prevalence [`SnapshotTable::with_answered`], of one fleet.
    pub(super) fn new(lines: SnapshotTable) -> Self {
        Self { lines, schema: columns() }
    }
}

fn columns() -> SchemaRef {
    let id = || DataType::FixedSizeBinary(ID_BYTES as i32);
    let fields = vec![
        Field::new("fleet", DataType::Utf8, false),
        Field::new("snapshot", DataType::Utf8, false),
        Field::new("loose_id", id(), false),
        Field::new("strict_id", id(), false),
        Field::new("first_snapshot", DataType::Utf8, false),
        Field::new("snapshots", DataType::UInt32, false),
    ];
    Arc::new(Schema::new(fields))
}

#[async_trait]
impl TableProvider for SightingTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Only the fleet goes below: a snapshot must be compared with those that a filter would leave out.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let of_fleet = |filter: &Expr| {
            is_partition_filter(filter) && filter.column_refs().iter().all(|column| column.name == "fleet")
        };
        Ok(pushdown(filters, of_fleet, TableProviderFilterPushDown::Unsupported))
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = self.lines.schema();
        let columns: std::result::Result<Vec<usize>, _> =
            IDS.iter().chain([&SNAPSHOT]).map(|name| schema.index_of(name)).collect();
        let (lines, named) = self.lines.by_snapshot(state, columns?, filters).await?;
        let all = || (0..self.schema.fields().len()).collect();
        let places = projection.cloned().unwrap_or_else(all);
        Ok(Arc::new(SightingExec::new(lines, named, places)?))
    }
}

/// Walks `lines`, the snapshots one after the other, newest first.
///
/// All stand in one partition: a cluster gives each of its tasks one partition of what is read.
#[derive(Debug, Clone)]
pub(super) struct SightingExec {
    lines: Arc<dyn ExecutionPlan>,
    /// Fleet and snapshot, in the order in which they come; some may have no lines.
    named: Arc<Vec<(String, String)>>,
    /// Which of the columns are kept.
    places: Vec<usize>,
    properties: Arc<PlanProperties>,
}

impl SightingExec {
    pub(super) fn new(
        lines: Arc<dyn ExecutionPlan>,
        named: Vec<(String, String)>,
        places: Vec<usize>,
    ) -> Result<Self> {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::new(columns().project(&places)?)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Ok(Self { lines, named: Arc::new(named), places, properties: Arc::new(properties) })
    }

    /// What [`Self::new`] needs beside the lines: fleet and snapshot of each, and the kept columns.
    #[cfg(feature = "ballista")]
    pub(super) fn parts(&self) -> (&[(String, String)], &[usize]) {
        (&self.named, &self.places)
    }

    fn over(&self, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(lines) = children.into_iter().next() else {
            return internal_err!("sightings are of one plan");
        };
        Ok(Arc::new(Self { lines, ..self.clone() }))
    }
}

impl DisplayAs for SightingExec {
    fn fmt_as(&self, _kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SightingExec: snapshots={}", self.named.len())
    }
}

impl ExecutionPlan for SightingExec {
    fn name(&self) -> &'static str {
        "SightingExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.lines]
    }

    /// Snapshots must come one after the other.
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

    fn execute(&self, _partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let batches = stream::once(batches(self.clone(), context)).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
}

/// Walks all snapshots, then tells.
async fn batches(
    exec: SightingExec,
    context: Arc<TaskContext>,
) -> Result<impl Stream<Item = Result<RecordBatch>>> {
    let most = context.session_config().batch_size();
    let sightings = exec.walk(&context).await?;
    let batches = sightings.keys.len().div_ceil(most);
    Ok(stream::iter(0..batches).map(move |batch| {
        let rows = batch * most..((batch + 1) * most).min(sightings.keys.len());
        Ok(exec.batch(&sightings, rows)?.project(&exec.places)?)
    }))
}

impl SightingExec {
    async fn walk(&self, context: &Arc<TaskContext>) -> Result<Sightings> {
        let mut sightings =
            Sightings::new(MemoryConsumer::new("SightingExec").register(context.memory_pool()));
        let mut lines = self.lines.execute(0, Arc::clone(context))?;
        let mut at = Place::default();
        while let Some(batch) = lines.next().await {
            let batch = batch?;
            for (snapshot, rows) in runs(&batch)? {
                at = self.placed(at, snapshot)?;
                sightings.take(&Ids::of(&batch.slice(rows.start, rows.len()))?, &mut at)?;
            }
        }
        Ok(sightings)
    }

    /// Where the lines of a snapshot go on: at the beginning, where it is another than that of the lines before.
    fn placed(&self, at: Place, snapshot: &str) -> Result<Place> {
        let ahead = self.named[at.snapshot..].iter().position(|(_, name)| name == snapshot);
        match ahead {
            Some(0) => Ok(at),
            Some(ahead) => Ok(Place { snapshot: at.snapshot + ahead, ..Place::default() }),
            None => internal_err!("lines of snapshot `{snapshot}` came where nobody expected them"),
        }
    }

    fn batch(&self, sightings: &Sightings, rows: Range<usize>) -> Result<RecordBatch> {
        let Some((fleet, newest)) = self.named.first() else {
            return internal_err!("there are sightings of no snapshot");
        };
        let keys = &sightings.keys[rows.clone()];
        let ids = |place: usize| keys.iter().map(move |key| key[place].to_be_bytes());
        let first = sightings.first[rows.clone()].iter().map(|index| self.named[*index as usize].1.as_str());
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(keys.iter().map(|_| fleet))),
            Arc::new(StringArray::from_iter_values(keys.iter().map(|_| newest))),
            Arc::new(FixedSizeBinaryArray::try_from_iter(ids(0))?),
            Arc::new(FixedSizeBinaryArray::try_from_iter(ids(1))?),
            Arc::new(StringArray::from_iter_values(first)),
            Arc::new(UInt32Array::from(sightings.snapshots[rows].to_vec())),
        ];
        Ok(RecordBatch::try_new(self::columns(), columns)?)
    }
}

/// Lines of one snapshot each, by its name; a batch seldom has those of two.
fn runs(batch: &RecordBatch) -> Result<Vec<(&str, Range<usize>)>> {
    let Some(names) = batch.column_by_name(SNAPSHOT).and_then(|array| array.as_string_opt::<i32>()) else {
        return exec_err!("prevalence has no `{SNAPSHOT}`");
    };
    let mut runs: Vec<(&str, Range<usize>)> = Vec::new();
    let ends = batch.num_rows().checked_sub(1).map(|last| (names.value(0), names.value(last)));
    // Snapshots come one after the other: none comes twice.
    if let Some((first, last)) = ends
        && first == last
    {
        return Ok(vec![(first, 0..batch.num_rows())]);
    }
    for row in 0..batch.num_rows() {
        match runs.last_mut() {
            Some((name, rows)) if *name == names.value(row) => rows.end = row + 1,
            _ => runs.push((names.value(row), row..row + 1)),
        }
    }
    Ok(runs)
}

/// How far a walk has come.
#[derive(Debug, Default)]
struct Place {
    /// Index of the snapshot; 0 is the newest.
    snapshot: usize,
    /// Of an older one: the first of the newest's ids that is not below its last id.
    next: usize,
    /// Its last id.
    last: Option<Key>,
}

/// The ids of the newest snapshot, ascending, and what the others say of them.
struct Sightings {
    held: MemoryReservation,
    keys: Vec<Key>,
    /// Index of the oldest snapshot that has an id; 0 is the newest.
    first: Vec<u32>,
    /// How many snapshots have it.
    snapshots: Vec<u32>,
}

impl Sightings {
    fn new(held: MemoryReservation) -> Self {
        Self { held, keys: Vec::new(), first: Vec::new(), snapshots: Vec::new() }
    }

    /// Takes the next lines of a snapshot.
    fn take(&mut self, ids: &Ids<'_>, at: &mut Place) -> Result<()> {
        if at.snapshot == 0 {
            self.held.try_grow(ids.len() * (size_of::<Key>() + 2 * size_of::<u32>()))?;
        }
        for key in ids.keys() {
            match at.last {
                // Several lines of one id count once.
                Some(last) if last == key => continue,
                Some(last) if last > key => return not_sorted(),
                _ => at.last = Some(key),
            }
            match u32::try_from(at.snapshot) {
                Ok(0) => self.push(key),
                Ok(snapshot) => self.note(key, snapshot, &mut at.next),
                Err(_) => return internal_err!("there are more snapshots than can be counted"),
            }
        }
        Ok(())
    }

    fn push(&mut self, key: Key) {
        self.keys.push(key);
        self.first.push(0);
        self.snapshots.push(1);
    }

    fn note(&mut self, key: Key, snapshot: u32, next: &mut usize) {
        while self.keys.get(*next).is_some_and(|known| *known < key) {
            *next += 1;
        }
        if self.keys.get(*next) == Some(&key) {
            self.first[*next] = snapshot;
            self.snapshots[*next] += 1;
        }
    }
}

fn not_sorted() -> Result<()> {
    exec_err!("prevalence is not sorted by its ids; `diffy snapshot verify` checks files")
}

/// The ids of a batch.
struct Ids<'a>([&'a FixedSizeBinaryArray; 2]);

impl<'a> Ids<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self> {
        let ids = |name| batch.column_by_name(name).and_then(|array| array.as_fixed_size_binary_opt());
        let is_id = |array: &FixedSizeBinaryArray| array.value_length() as usize == ID_BYTES;
        match IDS.map(ids) {
            [Some(loose), Some(strict)] if is_id(loose) && is_id(strict) => Ok(Self([loose, strict])),
            _ => exec_err!("prevalence has no `loose_id` or no `strict_id`"),
        }
    }

    fn len(&self) -> usize {
        self.0[0].len()
    }

    fn keys(&self) -> impl Iterator<Item = Key> {
        let [loose, strict] = self.0.map(|array| array.value_data().as_chunks::<ID_BYTES>().0);
        loose.iter().zip(strict).map(|(loose, strict)| [*loose, *strict].map(u128::from_be_bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use datafusion::execution::memory_pool::{MemoryPool, UnboundedMemoryPool};
    use proptest::prelude::*;

    use super::*;

    fn batch(ids: &[u8]) -> RecordBatch {
        let array = || -> ArrayRef {
            Arc::new(FixedSizeBinaryArray::try_from_iter(ids.iter().map(|id| [*id; 16])).unwrap())
        };
        RecordBatch::try_from_iter(IDS.map(|name| (name, array()))).unwrap()
    }

    /// Of snapshots, newest first, each in batches that end after each of `ends`.
    fn walked(snapshots: &[Vec<u8>], ends: usize) -> Result<BTreeMap<u8, (u32, u32)>> {
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        let mut sightings = Sightings::new(MemoryConsumer::new("test").register(&pool));
        for (index, snapshot) in snapshots.iter().enumerate() {
            let mut at = Place { snapshot: index, ..Place::default() };
            for ids in snapshot.chunks(ends) {
                sightings.take(&Ids::of(&batch(ids))?, &mut at)?;
            }
        }
        let seen = sightings.first.iter().zip(&sightings.snapshots).map(|(first, count)| (*first, *count));
        Ok(sightings.keys.iter().map(|key| key[0].to_be_bytes()[0]).zip(seen).collect())
    }

    #[test]
    fn lines_of_one_id_count_once_and_what_is_gone_is_not_told() {
        let found = walked(&[vec![2, 2, 5], vec![1, 5], vec![2, 2, 2, 9]], 2).unwrap();
        assert_eq!(found, BTreeMap::from([(2, (2, 2)), (5, (1, 2))]));
    }

    #[test]
    fn a_file_that_is_not_sorted_is_an_error() {
        for snapshots in [[vec![1, 2, 3], vec![3, 1]], [vec![1], vec![5, 1]], [vec![2, 1], vec![]]] {
            assert!(walked(&snapshots, 1).is_err(), "{snapshots:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn walking_gives_what_counting_gives(
            mut snapshots in prop::collection::vec(prop::collection::vec(0..12_u8, 0..20), 1..6),
            ends in 1..7_usize,
        ) {
            snapshots.iter_mut().for_each(|ids| ids.sort_unstable());
            let sets: Vec<BTreeSet<u8>> = snapshots.iter().map(|ids| ids.iter().copied().collect()).collect();
            let counted = sets[0].iter().map(|id| {
                let having: Vec<u32> = (0..sets.len()).filter(|index| sets[*index].contains(id)).map(|index| index as u32).collect();
                (*id, (*having.last().unwrap(), having.len() as u32))
            });
            prop_assert_eq!(walked(&snapshots, ends).unwrap(), counted.collect());
        }
    }
}
