//! A whole table in memory, put in order: the distinct rows are sorted, and every row goes to the place of its line.

use std::collections::HashMap;
use std::ops::Range;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::compute::interleave;

use super::batches::Stamps;
use super::reading::{Group, TableReader};
use crate::error::{Error, Result};
use crate::identity::RowId;

/// Most rows of a batch that comes out …
const BATCH_ROWS: usize = 8192;
/// … and bytes of text, but for the last row's: a column of more than 2 GiB is none.
const BATCH_BYTES: usize = 32 << 20;
/// Rows of which a batch may be full whatever they say.
const NARROW: usize = BATCH_BYTES / BATCH_ROWS;

/// A row's place.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    host: u32,
    group: u32,
    row: u32,
}

/// The rows of a table in the order of a part.
#[derive(Debug)]
pub(super) struct Sorted {
    groups: Vec<Group>,
    /// Distinct ids in order, with the end of their rows.
    lines: Vec<(RowId, usize)>,
    order: Vec<Place>,
    /// Of each group, the bytes of text of its rows; none where each row is narrow.
    widths: Vec<Option<Vec<u32>>>,
}

impl Sorted {
    /// Sorts by ids, then host; rows of a host that are equal so stay as they came.
    pub(super) fn new(groups: Vec<Group>) -> Self {
        let (codes, ids) = number(&groups);
        let mut ranked: Vec<u32> = (0..ids.len() as u32).collect();
        ranked.sort_unstable_by_key(|code| &ids[*code as usize]);
        let mut ends = vec![0_usize; ids.len()];
        for (group, codes) in groups.iter().zip(&codes) {
            group.ids.of_row.iter().for_each(|row| ends[codes[*row as usize] as usize] += 1);
        }
        let mut end = 0;
        let mut next = vec![0_usize; ids.len()];
        let mut lines = Vec::with_capacity(ids.len());
        for code in ranked.into_iter().map(|code| code as usize) {
            next[code] = end;
            end += ends[code];
            lines.push((ids[code], end));
        }
        let mut order = vec![Place::default(); end];
        for (number, (group, codes)) in groups.iter().zip(&codes).enumerate() {
            for payload in &group.payloads {
                for row in payload.rows.clone() {
                    let place = &mut next[codes[group.ids.of_row[row] as usize] as usize];
                    order[*place] = Place { host: payload.host, group: number as u32, row: row as u32 };
                    *place += 1;
                }
            }
        }
        let mut start = 0;
        for (_, end) in &lines {
            let line = &mut order[start..*end];
            if !line.is_sorted_by_key(|place| place.host) {
                line.sort_by_key(|place| place.host);
            }
            start = *end;
        }
        let widths = groups.iter().map(|group| widths(&group.rows)).collect();
        Self { groups, lines, order, widths }
    }

    /// The rows with hosts, times and ids, batch by batch.
    pub(super) fn batches<'a>(
        &'a self,
        reader: &'a TableReader,
    ) -> impl Iterator<Item = Result<RecordBatch>> + 'a {
        let mut line = 0;
        self.cuts().map(move |rows| self.batch(reader, (rows.start, &self.order[rows]), &mut line))
    }

    /// The rows of each batch.
    fn cuts(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let mut start = 0;
        std::iter::from_fn(move || {
            let end = self.end_of(start);
            let rows = start..end;
            start = end;
            (!rows.is_empty()).then_some(rows)
        })
    }

    /// Where the batch ends that starts with that row.
    fn end_of(&self, start: usize) -> usize {
        let most = (start + BATCH_ROWS).min(self.order.len());
        if self.widths.iter().all(Option::is_none) {
            return most;
        }
        let mut bytes = 0;
        let full = self.order[start..most].iter().position(|place| {
            let of_group = self.widths[place.group as usize].as_ref();
            bytes += of_group.map_or(NARROW, |widths| widths[place.row as usize] as usize);
            bytes > BATCH_BYTES
        });
        full.map_or(most, |last| start + last + 1)
    }

    fn batch(
        &self,
        reader: &TableReader,
        (start, places): (usize, &[Place]),
        line: &mut usize,
    ) -> Result<RecordBatch> {
        let indices: Vec<(usize, usize)> =
            places.iter().map(|place| (place.group as usize, place.row as usize)).collect();
        let mut columns: Vec<ArrayRef> = Vec::new();
        let width = self.groups.first().map_or(0, |group| group.rows.num_columns());
        for at in 0..width {
            let of_groups: Vec<&dyn Array> =
                self.groups.iter().map(|group| group.rows.column(at).as_ref()).collect();
            columns.push(gather(&of_groups, &indices)?);
        }
        let schema = self.groups.first().map(|group| group.rows.schema());
        let schema = schema.ok_or_else(|| Error::internal("sorted rows of no table"))?;
        let rows = RecordBatch::try_new(schema, columns).map_err(cannot)?;
        let stamp = |(at, place): (usize, &Place)| {
            while self.lines[*line].1 <= start + at {
                *line += 1;
            }
            (reader.job.fleet.name(place.host), reader.answered_at(place.host), &self.lines[*line].0)
        };
        reader.layout.stamp(&rows, Stamps::of(places.iter().enumerate().map(stamp)))
    }
}

/// The bytes of text of each row, if any has many.
fn widths(rows: &RecordBatch) -> Option<Vec<u32>> {
    let texts = || rows.columns().iter().filter_map(|column| column.as_string_opt::<i32>());
    if texts().map(|column| column.value_data().len()).sum::<usize>() <= NARROW {
        return None;
    }
    let mut widths = vec![0_u32; rows.num_rows()];
    for column in texts() {
        for (width, ends) in widths.iter_mut().zip(column.value_offsets().windows(2)) {
            *width = width.saturating_add(ends[1].abs_diff(ends[0]));
        }
    }
    widths.iter().any(|width| *width as usize > NARROW).then_some(widths)
}

fn gather(arrays: &[&dyn Array], indices: &[(usize, usize)]) -> Result<ArrayRef> {
    let all_null = arrays.first().filter(|_| arrays.iter().all(|array| array.null_count() == array.len()));
    if let Some(first) = all_null {
        return Ok(datafusion::arrow::array::new_null_array(first.data_type(), indices.len()));
    }
    interleave(arrays, indices).map_err(cannot)
}

/// Numbers the distinct ids of all groups; gives for each group the number of each of its ids.
fn number(groups: &[Group]) -> (Vec<Vec<u32>>, Vec<RowId>) {
    let mut numbers: HashMap<RowId, u32> = HashMap::new();
    let mut ids = Vec::new();
    let mut codes = Vec::with_capacity(groups.len());
    for group in groups {
        let number = |id: &RowId| {
            *numbers.entry(*id).or_insert_with(|| {
                ids.push(*id);
                ids.len() as u32 - 1
            })
        };
        codes.push(group.ids.distinct.iter().map(number).collect());
    }
    (codes, ids)
}

fn cannot(source: datafusion::arrow::error::ArrowError) -> Error {
    Error::internal("cannot put rows in order").source(source)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::StringArray;

    use super::super::reading::Payload;
    use super::*;
    use crate::identity::RowIds;

    fn group(texts: Vec<String>, first: u8) -> Group {
        let id = |row: usize| RowId { loose: [first; 16], strict: [row as u8; 16], grain: [0; 16] };
        let ids = RowIds {
            distinct: (0..texts.len()).map(id).collect(),
            of_row: (0..texts.len() as u32).collect(),
        };
        let payloads = vec![Payload { host: 0, rows: 0..texts.len() }];
        let column: ArrayRef = Arc::new(StringArray::from(texts));
        Group { rows: RecordBatch::try_from_iter([("a", column)]).unwrap(), payloads, ids }
    }

    #[test]
    fn wide_rows_come_in_small_batches() {
        let narrow = || vec!["x".to_owned(); 200];
        let wide = || vec!["x".repeat(1 << 20); 70];
        let rows = |groups: Vec<Group>| Sorted::new(groups).cuts().map(|cut| cut.len()).collect::<Vec<_>>();
        assert_eq!(rows(vec![group(narrow(), 0), group(narrow(), 1)]), [400]);
        assert_eq!(rows(vec![group(wide(), 0)]), [33, 33, 4]);
        assert_eq!(rows(vec![group(narrow(), 0), group(wide(), 1)]).len(), 3);
        assert_eq!(rows(Vec::new()), [0; 0]);
    }
}
