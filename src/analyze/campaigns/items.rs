//! The rows that a campaign can be made of: those on some hosts, neither on one nor on most.

use roaring::RoaringBitmap;

use super::super::lines::{Group, Id, Loaded, Numbers};
use super::super::members::Members;
use super::super::sets::Placed;
use crate::model::FindingKind;

/// Share of the hosts up to which rows can be a campaign: what more hosts have is the fleet.
const MOST: f64 = 0.6;
/// Fewest hosts that can be one.
const FEWEST: u64 = 2;

/// A content that departs less from what is usual is one of several usual ones.
const DEPARTS: f64 = 0.1;

/// One row, by its loose id or, for one more content of a thing that others have too, by its strict id.
#[derive(Debug, Clone)]
pub(super) struct Item {
    /// Which of the loaded tables.
    pub(super) table: usize,
    pub(super) kind: FindingKind,
    pub(super) id: Id,
    /// The lines of the row.
    pub(super) lines: Numbers,
    pub(super) members: RoaringBitmap,
    /// For one more content: how much it departs from what is usual, 0 to 1. A setting that takes one of several
    /// values (a zone, a size) departs from nothing.
    pub(super) departs: f64,
}

impl Placed for Item {
    fn table(&self) -> usize {
        self.table
    }

    fn members(&self) -> &RoaringBitmap {
        &self.members
    }
}

/// All rows on 2 hosts to 60 % of those that were heard.
pub(super) fn items(tables: &[Loaded<'_>]) -> Vec<Item> {
    let mut items = Vec::new();
    for (number, table) in tables.iter().enumerate() {
        let heard = &table.answers.heard;
        let most = (heard.len() as f64 * MOST) as u64;
        let is_some = |hosts: u64| (FEWEST..=most).contains(&hosts);
        let item = |group: Group, kind: FindingKind, members: RoaringBitmap| Item {
            table: number,
            kind,
            id: group.id,
            lines: group.lines,
            members,
            departs: 1.0,
        };
        for thing in table.lines.loose().filter(|thing| thing.members.len() >= FEWEST) {
            let members = (&thing.members & heard).to_bitmap();
            let contents: Vec<Group> = table.lines.strict(&thing).collect();
            let usual = contents.iter().max_by_key(|content| content.members.len()).map(|content| content.id);
            let second = contents.iter().filter(|content| Some(content.id) != usual);
            let second = second.max_by_key(|content| content.members.len()).map(|content| content.id);
            for content in contents.iter().filter(|content| content.members.len() >= FEWEST) {
                let with_content = (&content.members & heard).to_bitmap();
                if is_some(with_content.len()) && with_content.len() < members.len() {
                    let other = if Some(content.id) == usual { second } else { usual };
                    let other = contents.iter().find(|content| Some(content.id) == other);
                    let departs = departs(&members, &with_content, other.map(|other| &other.members));
                    if departs >= DEPARTS {
                        let variant = item(content.clone(), FindingKind::Variant, with_content);
                        items.push(Item { departs, ..variant });
                    }
                }
            }
            if is_some(members.len()) {
                items.push(item(thing, FindingKind::New, members));
            }
        }
    }
    items
}

/// The share of the hosts with the thing that have it otherwise, times how much these agree with each other.
fn departs(all: &RoaringBitmap, content: &RoaringBitmap, other: Option<&Members>) -> f64 {
    let others = all - content;
    let Some(other) = other.filter(|_| !others.is_empty()) else { return 1.0 };
    let agree = other.intersection_len(&others) as f64 / others.len() as f64;
    (2.0 * agree - 1.0).max(0.0) * others.len() as f64 / all.len() as f64
}
