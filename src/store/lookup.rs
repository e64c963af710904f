//! Some rows of a part: of the row groups and pages only those are read that can hold them.
//!
//! Rows are sorted by `loose_id`, so its page index says where each one is, and a bloom filter could say no more.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::ops::{AddAssign, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{
    ArrowPredicateFn, ArrowReaderMetadata, ArrowReaderOptions, RowFilter, RowSelection, RowSelector,
};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};

use super::Store;
use super::manifest::FileEntry;
use crate::error::{Error, Result};

/// Files of up to so many bytes are read whole, with one request.
const SMALL: u64 = 1 << 20;
/// Bytes at the end of a larger file that are read first: footer and page index are there.
const END_BYTES: u64 = 256 << 10;
/// Rows of a batch.
const BATCH_ROWS: usize = 1024;

/// Rows that are looked for, by host and strict id.
#[derive(Debug, Default, Clone)]
pub struct WantedRows {
    loose: BTreeSet<[u8; 16]>,
    by_host: HashMap<String, HashSet<[u8; 16]>>,
}

impl WantedRows {
    /// Adds a row.
    pub fn add(&mut self, host: &str, loose: [u8; 16], strict: [u8; 16]) {
        self.loose.insert(loose);
        if !self.by_host.contains_key(host) {
            self.by_host.insert(host.to_owned(), HashSet::new());
        }
        if let Some(ids) = self.by_host.get_mut(host) {
            ids.insert(strict);
        }
    }

    /// Whether nothing is looked for.
    pub fn is_empty(&self) -> bool {
        self.loose.is_empty()
    }

    fn is_wanted(&self, host: &str, strict: &[u8]) -> bool {
        self.by_host.get(host).is_some_and(|ids| ids.contains(strict))
    }

    /// Whether an id within these bounds is looked for; what is not known may be anything.
    fn is_any_within(&self, bounds: (Option<&[u8]>, Option<&[u8]>)) -> bool {
        let bound = |bytes: Option<&[u8]>| bytes.and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
        match (bound(bounds.0), bound(bounds.1)) {
            (Some(least), Some(most)) if least <= most => self.loose.range(least..=most).next().is_some(),
            _ => true,
        }
    }
}

/// What was read of the files that rows were looked for in.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct RowsRead {
    /// Row groups, and all that there are.
    pub row_groups: (u64, u64),
    /// Pages of a column, and all that there are.
    pub pages: (u64, u64),
    /// Rows on these pages, and all that there are.
    pub rows: (u64, u64),
    /// Bytes, and all that there are.
    pub bytes: (u64, u64),
    /// Rows that were found.
    pub found: u64,
}

impl AddAssign for RowsRead {
    fn add_assign(&mut self, other: Self) {
        let add = |to: &mut (u64, u64), more: (u64, u64)| *to = (to.0 + more.0, to.1 + more.1);
        add(&mut self.row_groups, other.row_groups);
        add(&mut self.pages, other.pages);
        add(&mut self.rows, other.rows);
        add(&mut self.bytes, other.bytes);
        self.found += other.found;
    }
}

impl fmt::Display for RowsRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { row_groups, pages, rows, bytes, found } = self;
        write!(
            f,
            "{found} rows from {} of {} row groups, {} of {} pages, {} of {} rows, {} of {} bytes",
            row_groups.0, row_groups.1, pages.0, pages.1, rows.0, rows.1, bytes.0, bytes.1
        )
    }
}

impl Store {
    /// Hands the wanted rows of one file, with all columns, to `take`.
    ///
    /// # Errors
    /// The file cannot be read; it is named. Whatever `take` returns.
    pub async fn rows_of(
        &self,
        file: &FileEntry,
        wanted: &Arc<WantedRows>,
        mut take: impl FnMut(&RecordBatch) -> Result<()>,
    ) -> Result<RowsRead> {
        let cannot = |source: ParquetError| {
            Error::data(format!("cannot read `{}` of store `{}`", file.path, self.name())).source(source)
        };
        let mut reader = Reader::open(self.object_store(), file).await.map_err(cannot)?;
        let bytes = Arc::clone(&reader.bytes);
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
        let metadata = ArrowReaderMetadata::load_async(&mut reader, options).await.map_err(cannot)?;
        let pages = Pages::of(&metadata).map_err(cannot)?;
        let (selection, mut read) = pages.select(wanted);
        if read.rows.0 > 0 {
            let builder = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata);
            let mask = ProjectionMask::columns(builder.parquet_schema(), ["strict_id", "host"]);
            let wanted = Arc::clone(wanted);
            let predicate = ArrowPredicateFn::new(mask, move |batch| Ok(matches(&batch, &wanted)));
            let builder = builder.with_row_selection(selection).with_batch_size(BATCH_ROWS);
            let builder = builder.with_row_filter(RowFilter::new(vec![Box::new(predicate)]));
            let mut batches = builder.build().map_err(cannot)?;
            while let Some(batch) = batches.try_next().await.map_err(cannot)? {
                read.found += batch.num_rows() as u64;
                take(&batch)?;
            }
        }
        read.bytes = (bytes.load(Ordering::Relaxed), file.bytes);
        Ok(read)
    }
}

fn matches(batch: &RecordBatch, wanted: &WantedRows) -> BooleanArray {
    let column = |name| batch.column_by_name(name);
    let ids = column("strict_id").and_then(|array| array.as_fixed_size_binary_opt());
    let hosts = column("host").and_then(|array| array.as_string_opt::<i32>());
    let (Some(ids), Some(hosts)) = (ids, hosts) else {
        return BooleanArray::from(vec![false; batch.num_rows()]);
    };
    (0..batch.num_rows()).map(|row| Some(wanted.is_wanted(hosts.value(row), ids.value(row)))).collect()
}

/// What the pages of `loose_id` can hold.
struct Pages {
    /// By page: the row group, how many rows it has, the least id and the largest.
    pages: Vec<(usize, u64)>,
    least: ArrayRef,
    most: ArrayRef,
}

impl Pages {
    /// Those of the page index; of a file without one, the row groups.
    fn of(file: &ArrowReaderMetadata) -> ParquetResult<Self> {
        let metadata = file.metadata();
        let groups = metadata.row_groups();
        let ids = StatisticsConverter::try_new("loose_id", file.schema(), file.parquet_schema())?;
        let Some((column_index, offset_index)) = metadata.column_index().zip(metadata.offset_index()) else {
            let rows = |group: &parquet::file::metadata::RowGroupMetaData| group.num_rows() as u64;
            return Ok(Self {
                pages: groups.iter().map(rows).enumerate().collect(),
                least: ids.row_group_mins(groups)?,
                most: ids.row_group_maxes(groups)?,
            });
        };
        let numbers: Vec<usize> = (0..groups.len()).collect();
        let mut pages = Vec::new();
        for number in &numbers {
            let rows = ids.data_page_row_counts(offset_index, groups, [number])?;
            let rows = rows.as_ref().map(|rows| rows.values().to_vec()).unwrap_or_default();
            pages.extend(rows.into_iter().map(|rows| (*number, rows)));
        }
        Ok(Self {
            pages,
            least: ids.data_page_mins(column_index, offset_index, &numbers)?,
            most: ids.data_page_maxes(column_index, offset_index, &numbers)?,
        })
    }

    /// The rows of the pages that can hold what is wanted.
    fn select(&self, wanted: &WantedRows) -> (RowSelection, RowsRead) {
        let mut read = RowsRead::default();
        let mut groups: [BTreeSet<usize>; 2] = Default::default();
        let mut selectors = Vec::with_capacity(self.pages.len());
        for (page, (group, rows)) in self.pages.iter().enumerate() {
            let is_wanted = wanted.is_any_within((cell(&self.least, page), cell(&self.most, page)));
            let count = usize::try_from(*rows).unwrap_or(usize::MAX);
            selectors.push(if is_wanted { RowSelector::select(count) } else { RowSelector::skip(count) });
            groups[1].insert(*group);
            read.pages.1 += 1;
            read.rows.1 += rows;
            if is_wanted {
                groups[0].insert(*group);
                read.pages.0 += 1;
                read.rows.0 += rows;
            }
        }
        read.row_groups = (groups[0].len() as u64, groups[1].len() as u64);
        (RowSelection::from(selectors), read)
    }
}

fn cell(ids: &ArrayRef, page: usize) -> Option<&[u8]> {
    let ids = ids.as_fixed_size_binary_opt().filter(|ids| page < ids.len() && ids.is_valid(page))?;
    Some(ids.value(page))
}

/// Reads ranges of a file, and counts their bytes.
struct Reader {
    object_store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
    /// All of it, when it is small.
    whole: Option<Bytes>,
    bytes: Arc<AtomicU64>,
}

impl Reader {
    async fn open(object_store: Arc<dyn ObjectStore>, file: &FileEntry) -> ParquetResult<Self> {
        let path = Path::parse(&file.path).map_err(external)?;
        let bytes = Arc::new(AtomicU64::new(0));
        let mut whole = None;
        if file.bytes <= SMALL {
            let read = object_store.get(&path).await.map_err(external)?.bytes().await.map_err(external)?;
            bytes.store(read.len() as u64, Ordering::Relaxed);
            whole = Some(read);
        }
        Ok(Self { object_store, path, size: file.bytes, whole, bytes })
    }

    fn part(whole: &Bytes, range: &Range<u64>) -> ParquetResult<Bytes> {
        let outside = || ParquetError::EOF(format!("there is no range {range:?}"));
        let within = range.start <= range.end && range.end <= whole.len() as u64;
        within.then(|| whole.slice(range.start as usize..range.end as usize)).ok_or_else(outside)
    }

    async fn ranges(&self, ranges: Vec<Range<u64>>) -> ParquetResult<Vec<Bytes>> {
        if let Some(whole) = &self.whole {
            return ranges.iter().map(|range| Self::part(whole, range)).collect();
        }
        let read = self.object_store.get_ranges(&self.path, &ranges).await.map_err(external)?;
        self.bytes.fetch_add(read.iter().map(|bytes| bytes.len() as u64).sum(), Ordering::Relaxed);
        Ok(read)
    }
}

fn external(error: impl std::error::Error + Send + Sync + 'static) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        async move { Ok(self.ranges(vec![range]).await?.pop().unwrap_or_default()) }.boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        self.ranges(ranges).boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        async move {
            let index = options.map_or(PageIndexPolicy::Skip, ArrowReaderOptions::column_index_policy);
            let end = usize::try_from(END_BYTES.min(self.size)).ok();
            let reader = ParquetMetaDataReader::new().with_page_index_policy(index).with_prefetch_hint(end);
            let size = self.size;
            Ok(Arc::new(reader.load_and_finish(self, size).await?))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{FixedSizeBinaryArray, StringArray};
    use datafusion::arrow::datatypes::{DataType, Field, Schema};

    use super::super::manifest::FileKind;
    use super::super::parts::PartWriter;
    use super::super::place::StoreConfig;
    use super::*;

    /// A file of rows of one host, sorted by id, too large to be read whole.
    async fn rows_of_ids(store: &Store, ids: &[[u8; 16]]) -> FileEntry {
        let column = || -> ArrayRef { Arc::new(FixedSizeBinaryArray::try_from_iter(ids.iter()).unwrap()) };
        let host = StringArray::from_iter_values(ids.iter().map(|_| "web-1"));
        let schema = Arc::new(Schema::new(vec![
            Field::new("host", DataType::Utf8, false),
            Field::new("loose_id", DataType::FixedSizeBinary(16), false),
            Field::new("strict_id", DataType::FixedSizeBinary(16), false),
        ]));
        let columns: Vec<ArrayRef> = vec![Arc::new(host), column(), column()];
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        let path = "rows/t/part-0.parquet";
        let writer = PartWriter::new(store.object_store(), FileKind::Rows, Some("t"), (path, &schema));
        let mut writer = writer.unwrap();
        writer.write(&batch).await.unwrap();
        writer.close().await.unwrap()
    }

    #[tokio::test]
    async fn of_a_large_file_only_the_pages_that_can_hold_a_row_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let store =
            Store::open_or_create(dir.path().to_str().unwrap(), &StoreConfig::default()).await.unwrap();
        let id = |number: u32| -> [u8; 16] {
            blake3::hash(&number.to_be_bytes()).as_bytes()[..16].try_into().unwrap()
        };
        let mut ids: Vec<[u8; 16]> = (0..200_000).map(id).collect();
        ids.sort_unstable();
        let file = rows_of_ids(&store, &ids).await;
        assert!(file.bytes > SMALL, "{} bytes", file.bytes);

        let mut wanted = WantedRows::default();
        wanted.add("web-1", ids[70_000], ids[70_000]);
        wanted.add("web-2", ids[70_000], ids[70_000]);
        wanted.add("web-1", id(200_000), id(200_000));
        let mut found = Vec::new();
        let take = |batch: &RecordBatch| {
            found.push(batch.clone());
            Ok(())
        };
        let read = store.rows_of(&file, &Arc::new(wanted), take).await.unwrap();
        assert_eq!((read.found, found.iter().map(RecordBatch::num_rows).sum::<usize>()), (1, 1));
        assert_eq!(found[0]["strict_id"].as_fixed_size_binary().value(0), ids[70_000]);
        assert!((1..=2).contains(&read.pages.0) && read.pages.1 >= 8, "{read}");
        assert!(read.rows.0 * 4 < read.rows.1 && read.rows.1 == 200_000, "{read}");
        assert!(read.bytes.0 < read.bytes.1, "{read}");
    }
}
