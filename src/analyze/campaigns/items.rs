//! The rows that a campaign can be made of: those on some hosts, neither on one nor on most.

use roaring::RoaringBitmap;

use super::super::lines::{Group, Id, Loaded};
use crate::model::FindingKind;

/// Share of the hosts up to which rows can be a campaign: what more hosts have is the fleet.
const MOST: f64 = 0.6;
/// Fewest hosts that can be one.
const FEWEST: u64 = 2;

/// One row, by its loose id or, for one more content of a thing that others have too, by its strict id.
#[derive(Debug, Clone)]
pub(super) struct Item {
    /// Which of the loaded tables.
    pub(super) table: usize,
    pub(super) kind: FindingKind,
    pub(super) id: Id,
    /// The lines of the row.
    pub(super) lines: Vec<usize>,
    pub(super) members: RoaringBitmap,
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
        };
        for thing in table.lines.loose().into_iter().filter(|thing| thing.members.len() >= FEWEST) {
            let members = &thing.members & heard;
            for content in table.lines.strict(&thing) {
                let with_content = &content.members & heard;
                if is_some(with_content.len()) && with_content.len() < members.len() {
                    items.push(item(content, FindingKind::Variant, with_content));
                }
            }
            if is_some(members.len()) {
                items.push(item(thing, FindingKind::New, members));
            }
        }
    }
    items
}
