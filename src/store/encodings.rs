//! How the columns of a Parquet file are encoded: chosen by their names and by their first rows.

use std::collections::HashSet;
use std::hash::Hash;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Int64Type, SchemaRef, TimestampMillisecondType};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::Result;
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

/// Rows that are looked at.
pub(super) const SAMPLE_ROWS: usize = 4096;
/// With fewer, every column has a dictionary.
const FEWEST_ROWS: usize = 256;
/// Rows and bytes of a row group: a writer holds one.
const ROW_GROUP: (usize, usize) = (1 << 17, 8 << 20);
/// Those of rows of hosts. Each group has a dictionary of its own, and nothing compresses the names of twenty thousand
/// hosts: it should serve many rows of each.
const ROW_GROUP_OF_HOSTS: (usize, usize) = (1 << 20, 32 << 20);
/// Rows that a page has about: a lookup decodes whole pages.
const PAGE_ROWS: usize = 20_000;
/// Bits of a number in a dictionary that grows.
const MANY_BITS: usize = 11;
/// Least and most bytes of a page.
const PAGE_BYTES: std::ops::RangeInclusive<usize> = 16 * 1024..=1024 * 1024;
/// Bytes of a value that go into statistics: a hostile value must not blow up the footer.
const STATISTICS_BYTES: usize = 64;
/// Bytes of a page of hosts or of times: what repeats itself there is as long as the fleet.
const LONG_PAGE_BYTES: usize = 8 * 1024 * 1024;
/// A level of compression that remembers four megabytes, and not half of one. What is found is skipped over, so that it
/// costs little there.
const LONG_PAGE_LEVEL: i32 = 9;
/// Bytes of a dictionary of hosts: a fleet of a hundred thousand.
const HOSTS_BYTES: usize = 4 * 1024 * 1024;

/// What writing takes, for batches of that schema whose first rows are these.
pub(super) fn properties(schema: &SchemaRef, first: &[RecordBatch]) -> Result<WriterProperties> {
    let has_ids = schema.index_of("strict_id").is_ok();
    let is_of_hosts = has_ids && schema.index_of("host").is_ok();
    let (rows, bytes) = if is_of_hosts { ROW_GROUP_OF_HOSTS } else { ROW_GROUP };
    let mut builder = WriterProperties::builder()
        .set_created_by(format!("diffy {}", env!("CARGO_PKG_VERSION")))
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(rows))
        .set_max_row_group_bytes(Some(bytes))
        .set_data_page_row_count_limit(rows)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_statistics_truncate_length(Some(STATISTICS_BYTES))
        .set_column_index_truncate_length(Some(STATISTICS_BYTES));
    if has_ids {
        let strict = ColumnPath::from("strict_id");
        builder = builder
            .set_sorting_columns(Some(sorted_by(schema)))
            .set_column_bloom_filter_enabled(strict.clone(), true)
            .set_column_bloom_filter_max_ndv(strict, rows as u64);
    }
    for (at, field) in schema.fields().iter().enumerate() {
        let column = ColumnPath::from(field.name().as_str());
        builder = match field.name().as_str() {
            "host" if is_of_hosts => hosts(builder, column)?,
            "collected_at" if is_of_hosts => times(builder, column)?,
            _ => {
                let arrays: Vec<&ArrayRef> = first.iter().map(|batch| batch.column(at)).collect();
                by_content(builder, column, &arrays)
            }
        };
    }
    Ok(builder.build())
}

/// Equal strict ids stand by the line of prevalence that they belong to and then by host, so `host` is not said.
fn sorted_by(schema: &SchemaRef) -> Vec<SortingColumn> {
    let places = ["loose_id", "strict_id"].iter().map_while(|name| schema.index_of(name).ok());
    places
        .map(|index| SortingColumn {
            column_idx: i32::try_from(index).unwrap_or(i32::MAX),
            descending: false,
            nulls_first: true,
        })
        .collect()
}

/// Rows that many hosts have name these hosts in the same order again and again. The numbers of a dictionary seldom
/// fill bytes, so that a repetition shows only where it begins at the same bit: the longer a page, the more often.
fn hosts(builder: WriterPropertiesBuilder, column: ColumnPath) -> Result<WriterPropertiesBuilder> {
    Ok(long_pages(builder, &column)?.set_column_dictionary_page_size_limit(column, HOSTS_BYTES))
}

/// Times follow the hosts. As whole numbers of eight bytes their repetition is plain to see.
fn times(builder: WriterPropertiesBuilder, column: ColumnPath) -> Result<WriterPropertiesBuilder> {
    Ok(long_pages(builder, &column)?
        .set_column_dictionary_enabled(column.clone(), false)
        .set_column_encoding(column, Encoding::PLAIN))
}

fn long_pages(builder: WriterPropertiesBuilder, column: &ColumnPath) -> Result<WriterPropertiesBuilder> {
    let level = Compression::ZSTD(ZstdLevel::try_new(LONG_PAGE_LEVEL)?);
    Ok(builder
        .set_column_compression(column.clone(), level)
        .set_column_data_page_size_limit(column.clone(), LONG_PAGE_BYTES))
}

/// A dictionary for columns that repeat themselves; it would double the others.
fn by_content(
    builder: WriterPropertiesBuilder,
    column: ColumnPath,
    arrays: &[&ArrayRef],
) -> WriterPropertiesBuilder {
    let values = Values::of(arrays);
    // With so many bits a dictionary may become too large, and the same bytes hold far fewer values as they are.
    let least = |bits: usize| if bits < MANY_BITS { *PAGE_BYTES.start() } else { 4 * PAGE_BYTES.start() };
    let page = |bits: usize| (PAGE_ROWS * bits / 8).clamp(least(bits), *PAGE_BYTES.end());
    if values.rows < FEWEST_ROWS || values.distinct * 2 <= values.rows {
        // Later rows make more of them.
        let bits = values.distinct.max(2).ilog2() as usize + 3;
        return builder.set_column_data_page_size_limit(column, page(bits));
    }
    let is_number = arrays
        .first()
        .is_some_and(|array| matches!(array.data_type(), DataType::Int64 | DataType::Timestamp(_, _)));
    let encoding = if is_number { Encoding::DELTA_BINARY_PACKED } else { Encoding::PLAIN };
    builder
        .set_column_dictionary_enabled(column.clone(), false)
        .set_column_encoding(column.clone(), encoding)
        .set_column_data_page_size_limit(column, page(8 * values.bytes / values.rows))
}

/// What a sample of a column holds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Values {
    rows: usize,
    /// Distinct ones, no more than needed to see that most are.
    distinct: usize,
    bytes: usize,
}

impl Values {
    fn of(arrays: &[&ArrayRef]) -> Self {
        let rows =
            arrays.iter().map(|array| array.len() - array.null_count()).sum::<usize>().min(SAMPLE_ROWS);
        let kind = arrays.first().map(|array| array.data_type());
        let all = arrays.iter();
        let (distinct, bytes) = match kind {
            Some(DataType::Utf8) => distinct(
                all.flat_map(|array| array.as_string::<i32>()).flatten().map(|text| (text, text.len() + 4)),
                rows,
            ),
            Some(DataType::FixedSizeBinary(_)) => distinct(
                all.flat_map(|array| array.as_fixed_size_binary()).flatten().map(|id| (id, id.len())),
                rows,
            ),
            Some(DataType::Int64) => distinct(
                all.flat_map(|array| array.as_primitive::<Int64Type>()).flatten().map(|number| (number, 8)),
                rows,
            ),
            Some(DataType::Timestamp(_, _)) => distinct(
                all.filter_map(|array| array.as_primitive_opt::<TimestampMillisecondType>())
                    .flatten()
                    .flatten()
                    .map(|number| (number, 8)),
                rows,
            ),
            // The rest is rare or repeats itself.
            _ => (0, 0),
        };
        Self { rows, distinct, bytes }
    }
}

/// Distinct values of the first `rows`, and the bytes of these; stops where most are distinct, with what all would take.
fn distinct<T: Eq + Hash>(values: impl Iterator<Item = (T, usize)>, rows: usize) -> (usize, usize) {
    let mut seen = HashSet::new();
    let mut total = 0;
    for (number, (value, bytes)) in values.take(rows).enumerate() {
        seen.insert(value);
        total += bytes;
        if seen.len() * 2 > rows {
            return (seen.len(), total * rows / (number + 1));
        }
    }
    (seen.len(), total)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{Int64Array, StringArray};

    use super::*;

    fn batch(rows: i64, repeats: i64) -> RecordBatch {
        let numbers = || 0..rows;
        RecordBatch::try_from_iter([
            ("host", Arc::new(StringArray::from_iter_values(numbers().map(|n| format!("h{n}")))) as ArrayRef),
            ("pid", Arc::new(Int64Array::from_iter_values(numbers().map(|n| n / repeats))) as ArrayRef),
            (
                "path",
                Arc::new(StringArray::from_iter_values(numbers().map(|n| format!("/{}", n / repeats))))
                    as ArrayRef,
            ),
            ("none", Arc::new(StringArray::new_null(rows as usize)) as ArrayRef),
            (
                "strict_id",
                Arc::new(
                    datafusion::arrow::array::FixedSizeBinaryArray::try_from_sparse_iter_with_size(
                        numbers().map(|n| Some(n.to_le_bytes())),
                        8,
                    )
                    .unwrap(),
                ) as ArrayRef,
            ),
        ])
        .unwrap()
    }

    fn check(rows: i64, repeats: i64, dictionaries: &[bool]) {
        let batch = batch(rows, repeats);
        let properties = properties(&batch.schema(), std::slice::from_ref(&batch)).unwrap();
        let seen: Vec<bool> = batch
            .schema()
            .fields()
            .iter()
            .map(|field| properties.dictionary_enabled(&ColumnPath::from(field.name().as_str())))
            .collect();
        assert_eq!(seen, dictionaries, "{rows} {repeats}");
    }

    #[test]
    fn what_repeats_itself_has_a_dictionary() {
        check(5_000, 1, &[true, false, false, true, false]);
        check(5_000, 3, &[true, true, true, true, false]);
        check(20, 1, &[true; 5]);
        check(0, 1, &[true; 5]);
    }

    #[test]
    fn numbers_that_do_not_are_told_by_their_differences() {
        let batch = batch(1_000, 1);
        let properties = properties(&batch.schema(), &[batch]).unwrap();
        let encoding = |name: &str| properties.encoding(&ColumnPath::from(name));
        assert_eq!(encoding("pid"), Some(Encoding::DELTA_BINARY_PACKED));
        assert_eq!(encoding("path"), Some(Encoding::PLAIN));
    }
}
