//! What is new in a row: the values that stand in no row outside of the campaign.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use roaring::RoaringBitmap;

use super::super::cells::{Cells, UNKNOWN};
use super::super::lines::{Lines, Loaded};
use super::items::Item;
use crate::catalog::Strength;
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
        let mut wanted: BTreeMap<(usize, String), BTreeSet<String>> = BTreeMap::new();
        for item in items {
            for (column, value) in identity_values(tables, item, strength(item)) {
                wanted.entry((item.table, column)).or_default().insert(value);
            }
        }
        let mut found = Self::default();
        for ((table, column), values) in wanted {
            if let Some(cells) = tables[table].lines.cells(&column) {
                let hosts = hosts(&tables[table].lines, cells, &values);
                let places = values.into_iter().map(|value| (table, column.clone(), value));
                found.hosts.extend(places.zip(hosts));
            }
        }
        found
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
    let columns: Vec<&str> = match lines.spec.declared {
        true => lines.spec.identity(strength).map(|column| column.name.as_str()).collect(),
        false => {
            lines.columns.iter().map(|cells| cells.name.as_str()).filter(|name| *name != "extra").collect()
        }
    };
    let value =
        |name: &&str| Some(((*name).to_owned(), lines.value(line, name).filter(|value| !value.is_empty())?));
    columns.iter().filter_map(value).collect()
}

/// The hosts that have each of these values of a column, in the order of the values.
fn hosts(lines: &Lines, cells: &Cells, values: &BTreeSet<String>) -> Vec<RoaringBitmap> {
    let numbers: HashMap<&str, usize> = values.iter().map(String::as_str).zip(0..).collect();
    let by_code: Vec<Option<usize>> = cells.distinct().map(|text| numbers.get(text).copied()).collect();
    let mut hosts = vec![RoaringBitmap::new(); values.len()];
    for (line, code) in lines.lines.iter().zip(&cells.codes).filter(|(_, code)| **code != UNKNOWN) {
        if let Some(number) = by_code[*code as usize] {
            hosts[number] |= &line.members;
        }
    }
    hosts
}
