//! Which columns say what a row is about, learned from the table: only beside these is another column judged. Numbers
//! never do: small ones meet by chance, and large ones are sizes and times.

use super::lines::Loaded;
use super::members::Members;
use super::views::View;
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
    let lines = &table.lines.lines;
    let recurs = (table.answers.heard.len() as f64 * RECURS).max(2.0);
    let mut seen = Seen::default();
    let (mut rows, mut recurring, mut pairs) = (0, 0, 0);
    for code in 0..view.distinct {
        let of_code = || view.by_code.of(code).iter().map(|line| &lines[*line as usize].members);
        let of_rows: u64 = of_code().map(Members::len).sum();
        let hosts = seen.count(of_code());
        rows += of_rows;
        pairs += hosts;
        recurring += if hosts as f64 >= recurs { of_rows } else { 0 };
    }
    if rows == 0 { 0.0 } else { recurring as f64 * pairs as f64 / (rows as f64 * rows as f64) }
}

/// Counts hosts that several lines have, without a set for each count.
#[derive(Default)]
struct Seen {
    /// By host: the last count that it was in.
    last: Vec<u32>,
    counts: u32,
}

impl Seen {
    fn count<'a>(&mut self, mut members: impl Iterator<Item = &'a Members> + Clone) -> u64 {
        if let (Some(only), None) = (members.clone().next(), members.clone().nth(1)) {
            return only.len();
        }
        self.counts += 1;
        let mut hosts = 0;
        for host in members.by_ref().flat_map(Members::iter) {
            let host = host as usize;
            if host >= self.last.len() {
                self.last.resize(host + 1, 0);
            }
            hosts += u64::from(std::mem::replace(&mut self.last[host], self.counts) != self.counts);
        }
        hosts
    }
}
