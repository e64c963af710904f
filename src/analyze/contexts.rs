//! Which columns say what a row is about, learned from the table: only beside these is another column judged. Numbers
//! never do: small ones meet by chance, and large ones are sizes and times.

use std::collections::HashMap;

use roaring::RoaringBitmap;

use super::lines::{Line, Loaded};
use super::views::{UNKNOWN, View};
use crate::catalog::Strength;

/// Columns beside which others are judged.
const MOST_CONTEXTS: usize = 5;
/// What names less well than this, compared with the best column, is no name.
const MUST_REACH: f64 = 0.25;
/// A value on this share of the hosts recurs.
const RECURS: f64 = 0.05;

/// The views that say what a row is about: their values recur on other hosts and tell the rows of one host apart.
pub(super) fn contexts(table: &Loaded<'_>, views: &[View]) -> Vec<usize> {
    let mut rated: Vec<(f64, usize)> = views
        .iter()
        .enumerate()
        .filter(|(_, view)| view.distinct > 1 && !view.is_number && is_naming(table, view))
        .map(|(number, view)| (tells(table, view), number))
        .collect();
    rated.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let best = rated.first().map_or(0.0, |best| best.0);
    let mut columns = Vec::new();
    let mut chosen = Vec::new();
    for (rate, number) in rated {
        let view = &views[number];
        let is_good = rate > best * MUST_REACH;
        if is_good && !columns.contains(&&view.column) && chosen.len() < MOST_CONTEXTS {
            columns.push(&view.column);
            chosen.push(number);
        }
    }
    chosen
}

/// A column that only tells contents apart names nothing.
fn is_naming(table: &Loaded<'_>, view: &View) -> bool {
    view.spec(&table.lines).is_some_and(|column| column.strength != Some(Strength::Strict))
}

/// Recurrence times distinctness of a view, 0 to 1.
fn tells(table: &Loaded<'_>, view: &View) -> f64 {
    let hosts = table.answers.heard.len() as f64;
    let recurs = hosts * RECURS;
    let values = members_by_code(&table.lines.lines, &view.codes);
    let (mut rows, mut recurring, mut pairs) = (0, 0, 0);
    for (line, code) in table.lines.lines.iter().zip(&view.codes) {
        let Some(members) = values.get(code) else { continue };
        rows += line.members.len();
        if members.len() as f64 >= recurs.max(2.0) {
            recurring += line.members.len();
        }
    }
    for members in values.values() {
        pairs += members.len();
    }
    if rows == 0 { 0.0 } else { recurring as f64 * pairs as f64 / (rows as f64 * rows as f64) }
}

fn members_by_code(lines: &[Line], codes: &[u32]) -> HashMap<u32, RoaringBitmap> {
    let mut members: HashMap<u32, RoaringBitmap> = HashMap::new();
    for (line, code) in lines.iter().zip(codes).filter(|(_, code)| **code != UNKNOWN) {
        *members.entry(*code).or_default() |= &line.members;
    }
    members
}
