//! What is new in a row: the values that stand in no row outside of the campaign.

use std::collections::{BTreeSet, HashMap};

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use roaring::RoaringBitmap;

use super::super::lines::Loaded;
use super::items::Item;
use crate::catalog::{OWN_COLUMNS, Strength};
use crate::model::FindingKind;

/// A value is of the campaign when this share of the hosts that have it is in it.
const OF_THE_CAMPAIGN: f64 = 0.9;

/// A column of a table and a value in it.
type Place = (usize, String, String);

/// The hosts that have each value.
#[derive(Debug, Default)]
pub(super) struct Values {
    hosts: HashMap<Place, RoaringBitmap>,
}

impl Values {
    /// Looks up the values of these items in all rows of their tables.
    pub(super) fn of<'a>(tables: &[Loaded<'_>], items: impl Iterator<Item = &'a Item>) -> Self {
        let mut wanted: HashMap<(usize, String), HashMap<String, RoaringBitmap>> = HashMap::new();
        for item in items {
            for (column, value) in identity_values(tables, item, strength(item)) {
                wanted.entry((item.table, column)).or_default().entry(value).or_default();
            }
        }
        for ((table, column), values) in &mut wanted {
            let lines = &tables[*table].lines;
            let mut of_batch: HashMap<usize, Vec<(usize, &RoaringBitmap)>> = HashMap::new();
            for line in &lines.lines {
                of_batch.entry(line.at.0).or_default().push((line.at.1, &line.members));
            }
            for (batch, rows) in of_batch {
                note(&lines.batches[batch], column, &rows, values);
            }
        }
        let flat = wanted.into_iter().flat_map(|((table, column), values)| {
            values.into_iter().map(move |(value, hosts)| ((table, column.clone(), value), hosts))
        });
        Self { hosts: flat.collect() }
    }

    /// The columns of an item whose value hardly any host outside of `members` has, with the value.
    pub(super) fn only_of(
        &self,
        tables: &[Loaded<'_>],
        item: &Item,
        members: &RoaringBitmap,
    ) -> Vec<(String, String)> {
        let is_only = |(column, value): &(String, String)| {
            let place = (item.table, column.clone(), value.clone());
            self.hosts.get(&place).is_some_and(|hosts| {
                hosts.intersection_len(members) as f64 >= hosts.len() as f64 * OF_THE_CAMPAIGN
            })
        };
        identity_values(tables, item, strength(item)).into_iter().filter(is_only).collect()
    }
}

/// The id by which an item is what it is.
fn strength(item: &Item) -> Strength {
    match item.kind {
        FindingKind::Variant => Strength::Strict,
        _ => Strength::Loose,
    }
}

/// The values that make a row what it is: of the columns of its id, those that are known and not empty.
pub(super) fn identity_values(
    tables: &[Loaded<'_>],
    item: &Item,
    strength: Strength,
) -> BTreeSet<(String, String)> {
    let lines = &tables[item.table].lines;
    let Some(line) = item.lines.first() else { return BTreeSet::new() };
    let schema = lines.batches[lines.lines[*line].at.0].schema();
    let columns: Vec<&str> = match lines.spec.declared {
        true => lines.spec.identity(strength).map(|column| column.name.as_str()).collect(),
        false => {
            let all = schema.fields().iter().map(|field| field.name().as_str());
            all.filter(|name| *name != "hosts" && !OWN_COLUMNS.contains(name)).collect()
        }
    };
    let value =
        |name: &&str| Some(((*name).to_owned(), lines.value(*line, name).filter(|value| !value.is_empty())?));
    columns.iter().filter_map(value).collect()
}

fn note(
    batch: &RecordBatch,
    column: &str,
    rows: &[(usize, &RoaringBitmap)],
    values: &mut HashMap<String, RoaringBitmap>,
) {
    let Some(array) = batch.column_by_name(column) else { return };
    if let Some(texts) = array.as_string_opt::<i32>() {
        for (row, members) in rows.iter().filter(|(row, _)| texts.is_valid(*row)) {
            if let Some(hosts) = values.get_mut(texts.value(*row)) {
                *hosts |= *members;
            }
        }
    } else if let Some(numbers) = array.as_primitive_opt::<Int64Type>() {
        for (row, members) in rows.iter().filter(|(row, _)| numbers.is_valid(*row)) {
            if let Some(hosts) = values.get_mut(&numbers.value(*row).to_string()) {
                *hosts |= *members;
            }
        }
    }
}
