//! Which rows are settings: the hosts without such a row have another one in its place.
//!
//! A release in two colours, a canary, a zone: the program listens on another port, the same key has another value. A
//! worm adds rows, and the hosts without them have nothing instead.

use std::collections::{BTreeMap, HashMap, HashSet};

use roaring::RoaringBitmap;

use super::super::lines::Loaded;
use super::super::peers::{PeerGroups, masked};
use super::items::Item;
use crate::model::FindingKind;

/// Share of the hosts without a row that have another one in its place.
const INSTEAD: f64 = 0.9;
/// Share of the hosts with a row, of whichever fewer have, that may have both.
const BOTH: f64 = 0.1;
/// Where more rows stand, the place says nothing about what they are.
const MOST_IN_PLACE: usize = 64;

/// A place of a table: rows whose masked values are equal, but for one column or for none.
type Place = (Option<usize>, Vec<u64>);

/// Which items are settings, by number.
#[derive(Debug, Default)]
pub(super) struct Settings {
    settings: HashSet<usize>,
}

impl Settings {
    /// Looks for what stands in the places of these items.
    pub(super) fn of(
        tables: &[Loaded<'_>],
        groups: &PeerGroups,
        items: &[Item],
        chosen: impl Iterator<Item = usize>,
    ) -> Self {
        let mut of_table: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut settings = HashSet::new();
        for number in chosen.collect::<HashSet<usize>>() {
            match items[number].kind {
                FindingKind::Variant => drop(settings.insert(number)),
                _ => of_table.entry(items[number].table).or_default().push(number),
            }
        }
        for (table, numbers) in of_table {
            let instead = Instead::new(&tables[table], (items, &numbers));
            let is_setting = |number: &usize| instead.is_setting(groups, &items[*number]);
            settings.extend(numbers.into_iter().filter(is_setting));
        }
        Self { settings }
    }

    pub(super) fn has(&self, item: usize) -> bool {
        self.settings.contains(&item)
    }
}

/// The rows of one table that stand in the places of some items.
struct Instead<'a> {
    table: &'a Loaded<'a>,
    places: HashMap<Place, Vec<RoaringBitmap>>,
}

impl<'a> Instead<'a> {
    fn new(table: &'a Loaded<'a>, (items, numbers): (&[Item], &[usize])) -> Self {
        let mut places: HashMap<Place, Vec<RoaringBitmap>> = HashMap::new();
        for line in numbers.iter().filter_map(|number| items[*number].lines.first()) {
            places.extend(places_of(table, line).into_iter().map(|place| (place, Vec::new())));
        }
        // What one host has stands in for nobody.
        for group in table.lines.loose().filter(|group| group.members.len() > 1) {
            for place in places_of(table, group.lines.first().unwrap_or_default()) {
                if let Some(rows) = places.get_mut(&place).filter(|rows| rows.len() <= MOST_IN_PLACE) {
                    rows.push(group.members.to_bitmap());
                }
            }
        }
        Self { table, places }
    }

    fn is_setting(&self, groups: &PeerGroups, item: &Item) -> bool {
        let others = alike(groups, &item.members, &self.table.answers.heard) - &item.members;
        let Some(line) = item.lines.first().filter(|_| !others.is_empty()) else { return false };
        let is_covered = |place: &Place| {
            let Some(rows) = self.places.get(place).filter(|rows| rows.len() <= MOST_IN_PLACE) else {
                return false;
            };
            let instead = rows
                .iter()
                .filter(|row| {
                    let fewer = row.len().min(item.members.len());
                    row.intersection_len(&item.members) as f64 <= fewer as f64 * BOTH
                })
                .fold(RoaringBitmap::new(), |all, row| all | row);
            instead.intersection_len(&others) as f64 >= others.len() as f64 * INSTEAD
        };
        places_of(self.table, line).iter().any(is_covered)
    }
}

/// The hosts of all kinds that the row is on.
fn alike(groups: &PeerGroups, members: &RoaringBitmap, heard: &RoaringBitmap) -> RoaringBitmap {
    if groups.groups.is_empty() {
        return heard.clone();
    }
    let touched = groups.groups.iter().filter(|group| !group.hosts.is_disjoint(members));
    touched.fold(RoaringBitmap::new(), |all, group| all | &group.hosts) & heard
}

/// The place of the whole row, and those in which one column of it may have any value.
fn places_of(table: &Loaded<'_>, line: usize) -> Vec<Place> {
    let values = masked(&table.lines, line);
    let without = |column: usize| {
        let mut others = values.clone();
        others.remove(column);
        (Some(column), others)
    };
    // Nothing is left to say what is meant where there is one column only.
    let columns = if values.len() > 1 { 0..values.len() } else { 0..0 };
    let mut places: Vec<Place> = columns.map(without).collect();
    places.push((None, values));
    places
}
