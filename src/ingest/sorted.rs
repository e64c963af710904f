//! A whole table in memory, put in order: the distinct rows are sorted, and every row goes to the place of its line.

use std::collections::HashMap;

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch};
use datafusion::arrow::compute::interleave;

use super::batches::Stamps;
use super::reading::{Group, TableReader};
use crate::error::{Error, Result};
use crate::identity::RowId;

/// Rows of a batch that comes out.
const BATCH_ROWS: usize = 8192;

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
        Self { groups, lines, order }
    }

    /// The rows with hosts, times and ids, batch by batch.
    pub(super) fn batches<'a>(
        &'a self,
        reader: &'a TableReader,
    ) -> impl Iterator<Item = Result<RecordBatch>> + 'a {
        let mut line = 0;
        (0..self.order.len()).step_by(BATCH_ROWS).map(move |start| {
            let places = &self.order[start..(start + BATCH_ROWS).min(self.order.len())];
            self.batch(reader, (start, places), &mut line)
        })
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
