//! How much a set of rows speaks for a campaign.

use roaring::RoaringBitmap;

use super::super::lines::Loaded;
use super::super::peers::{PeerGroups, is_software};
use super::super::sets::Together;
use super::causes::{Part, explained};
use super::items::Item;
use super::settings::Settings;
use super::values::Values;
use crate::model::FindingKind;

/// Worth of a row of known values that only stand together like this.
const COMBINATION: f64 = 0.3;
/// Worth of one more content of a thing that other hosts have with other content.
const CONTENT: f64 = 0.6;
/// What is left of the worth of a setting, that other hosts have with another value.
const SETTING: f64 = 0.25;
/// What is left where rows of two tables only come together: a process has a socket or a file by itself.
const TWO_TABLES: f64 = 0.4;
/// Rows of so many tables, software that was installed among them, make another kind of host.
const KIND_TABLES: usize = 6;
/// What is left of the score then.
const KIND: f64 = 0.4;
/// What is left of the score when everything is explained.
const EXPLAINED: f64 = 0.2;
/// What one and two causes are worth; three and more count in full.
const CAUSES: [f64; 2] = [0.7, 0.9];
/// What is left where a set is within one of several groups: variants of one role are common.
const WITHIN_ONE_GROUP: f64 = 0.7;
/// From this many hosts of their own kind on a set is not what they have in common.
const MANY_KINDS: u64 = 4;
/// Bits above chance from which on a set is no coincidence.
const NO_CHANCE_BITS: f64 = 10.0;
/// Scores approach 100 by this: a sum of worths of 2 is worth 78.
const STEEPNESS: f64 = 0.75;
/// Most rows of a set that are looked at.
const MOST_PARTS: usize = 80;

/// A set of rows with what speaks for it.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) members: RoaringBitmap,
    /// Items, the most telling first.
    pub(super) rows: Vec<JudgedRow>,
    /// 0 to 100.
    pub(super) score: f64,
    /// Tables of the rows that nothing explains, or of all when everything is explained.
    pub(super) tables: Vec<String>,
    /// What explains the rows, where all are explained.
    pub(super) explained_by: Option<String>,
    /// Tables with rows that nothing explains and that are no settings.
    pub(super) added: usize,
    /// Whether the rows are so many and such that the hosts are rather of another kind.
    pub(super) is_kind: bool,
}

/// One row of it.
#[derive(Debug)]
pub(super) struct JudgedRow {
    pub(super) item: usize,
    pub(super) worth: f64,
    pub(super) explained_by: Option<String>,
    /// Columns whose value stands in no row outside of the campaign.
    pub(super) only: Vec<String>,
    /// Whether the hosts without it have another one in its place.
    pub(super) is_setting: bool,
}

/// What is known of the fleet.
pub(super) struct Judge<'a> {
    pub(super) tables: &'a [Loaded<'a>],
    pub(super) items: &'a [Item],
    pub(super) groups: &'a PeerGroups,
    /// Items by the number of hosts that have them.
    pub(super) sizes: &'a [u32],
    pub(super) hosts: u64,
}

impl Judge<'_> {
    /// Before rows are looked at: how many tables, how badly it fits the peer groups, how little it is chance.
    pub(super) fn outline(&self, set: &Together) -> f64 {
        self.misfit(&set.members) * self.beyond_chance(set) * (set.tables(self.items) as f64).min(8.0)
    }

    /// 0 where the set is made of whole peer groups, 1 where it takes the smaller part of each: the sum over the
    /// groups of the smaller of the parts inside and outside, over the size of the set.
    fn misfit(&self, members: &RoaringBitmap) -> f64 {
        let size = members.len();
        if self.groups.groups.is_empty() {
            return size.min(self.hosts - size) as f64 / size as f64;
        }
        let (mut cut, mut whole, mut wholes, mut touched) = (0, 0, 0, 0);
        for group in &self.groups.groups {
            let inside = group.hosts.intersection_len(members);
            touched += usize::from(inside > 0);
            cut += inside.min(group.hosts.len() - inside);
            if inside == 1 && group.hosts.len() == 1 {
                whole += inside;
                wholes += 1;
            }
        }
        // A few hosts of their own kind among others, or many of many kinds, are no group that explains the set.
        let cut = if cut * 2 >= size || wholes >= MANY_KINDS { cut + whole } else { cut };
        let across = if touched == 1 && self.groups.groups.len() > 1 { WITHIN_ONE_GROUP } else { 1.0 };
        across * cut as f64 / size as f64
    }

    /// Many rows on pairs of hosts meet by chance; on 24 of 60 hosts none do.
    fn beyond_chance(&self, set: &Together) -> f64 {
        let size = set.members.len();
        let alike = f64::from(self.sizes.get(size as usize).copied().unwrap_or(1).max(1));
        let bits = log2_choose(self.hosts, size) - alike.log2();
        (bits / NO_CHANCE_BITS).clamp(0.0, 1.0)
    }

    /// Looks at the rows.
    pub(super) fn judge(&self, set: &Together, (values, settings): (&Values, &Settings)) -> Judged {
        let chosen = looked_at(set);
        let part = |item: &usize| Part::new(self.tables, values, (&self.items[*item], &set.members));
        let parts: Vec<Part<'_>> = chosen.iter().map(part).collect();
        let explained = explained(&parts);
        let all: Vec<(&Part<'_>, bool)> =
            parts.iter().zip(chosen.iter().map(|item| settings.has(*item))).collect();
        let is_explained: Vec<bool> = explained.iter().map(Option::is_some).collect();
        let open = all.iter().copied().zip(&is_explained).filter(|(_, explained)| !**explained);
        let open: Vec<(&Part<'_>, bool)> = open.map(|(part, _)| part).collect();
        let added: Vec<(&Part<'_>, bool)> =
            open.iter().copied().filter(|(_, is_setting)| !is_setting).collect();
        let is_kind = chosen.iter().any(|item| self.is_software(*item)) && tables(&all).len() >= KIND_TABLES;
        let is_open = tables(&open).len() > 1;
        let is_unexplained = is_open || !is_explained.contains(&true);
        let factor = match is_unexplained {
            true if is_kind => KIND,
            true => 1.0,
            false => EXPLAINED,
        };
        let counted = if is_open { open } else { all.clone() };
        let evidence = self.misfit(&set.members) * self.beyond_chance(set) * self.evidence(&counted);
        Judged {
            members: set.members.clone(),
            rows: self.rows(&chosen, (&all, &explained)),
            score: (1000.0 * factor * (1.0 - (-STEEPNESS * evidence).exp())).round() / 10.0,
            tables: tables(&counted),
            explained_by: (!is_unexplained).then(|| words(&explained)),
            added: tables(&added).len(),
            is_kind,
        }
    }

    /// The rows, those that speak most for a campaign first.
    fn rows(
        &self,
        chosen: &[usize],
        (parts, explained): (&[(&Part<'_>, bool)], &[Option<String>]),
    ) -> Vec<JudgedRow> {
        let row =
            |((item, (part, is_setting)), explained): ((&usize, &(&Part<'_>, bool)), &Option<String>)| {
                JudgedRow {
                    item: *item,
                    worth: self.worth(part, *is_setting),
                    explained_by: explained.clone(),
                    only: part.only.iter().map(|(column, _)| column.clone()).collect(),
                    is_setting: *is_setting,
                }
            };
        let mut rows: Vec<JudgedRow> = chosen.iter().zip(parts).zip(explained).map(row).collect();
        rows.sort_by(|a, b| {
            let of_note = |row: &JudgedRow| (row.explained_by.is_some(), row.is_setting);
            let order = of_note(a).cmp(&of_note(b));
            order.then_with(|| b.worth.total_cmp(&a.worth)).then_with(|| a.item.cmp(&b.item))
        });
        rows
    }

    /// The best row of each table, by how many causes there are.
    fn evidence(&self, parts: &[(&Part<'_>, bool)]) -> f64 {
        let best = |table: &String| {
            let of_table = parts.iter().filter(|(part, _)| part.table == table);
            of_table.map(|(part, is_setting)| self.worth(part, *is_setting)).fold(0.0, f64::max)
        };
        let tables = tables(parts);
        let few = if tables.len() < 3 { TWO_TABLES } else { 1.0 };
        let sum: f64 = tables.iter().map(best).sum();
        let causes = causes(&parts.iter().map(|(part, _)| *part).collect::<Vec<_>>());
        few * sum * causes.checked_sub(1).and_then(|index| CAUSES.get(index)).unwrap_or(&1.0)
    }

    fn is_software(&self, item: usize) -> bool {
        is_software(self.tables[self.items[item].table].name()) && self.items[item].kind == FindingKind::New
    }

    fn worth(&self, part: &Part<'_>, is_setting: bool) -> f64 {
        let table = &self.tables[part.item.table];
        let is_new = !part.only.is_empty();
        let worth = match part.item.kind {
            FindingKind::Variant if is_new => CONTENT,
            _ if is_new => 1.0,
            _ => COMBINATION,
        } * part.item.departs
            * if is_setting { SETTING } else { 1.0 };
        table.lines.spec.weight * worth
    }
}

/// The rows of a set that are looked at.
pub(super) fn looked_at(set: &Together) -> Vec<usize> {
    set.items.iter().copied().take(MOST_PARTS).collect()
}

fn tables(parts: &[(&Part<'_>, bool)]) -> Vec<String> {
    let mut names: Vec<String> = parts.iter().map(|(part, _)| part.table.to_owned()).collect();
    names.sort();
    names.dedup();
    names
}

/// How many things happened; rows without a value of their own are one thing for each table.
fn causes(parts: &[&Part<'_>]) -> usize {
    let mut cause: Vec<usize> = (0..parts.len()).collect();
    for a in 0..parts.len() {
        for b in 0..a {
            let same_table = parts[a].table == parts[b].table;
            if cause[a] != cause[b] && (same_table || parts[a].has_cause_of(parts[b])) {
                let (from, to) = (cause[a], cause[b]);
                cause.iter_mut().filter(|cause| **cause == from).for_each(|cause| *cause = to);
            }
        }
    }
    cause.sort_unstable();
    cause.dedup();
    cause.len()
}

/// The causes that explain most rows, each once.
fn words(explained: &[Option<String>]) -> String {
    let mut counts: Vec<(&String, usize)> = Vec::new();
    for cause in explained.iter().flatten() {
        match counts.iter_mut().find(|(known, _)| *known == cause) {
            Some((_, count)) => *count += 1,
            None => counts.push((cause, 1)),
        }
    }
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let more = counts.len().saturating_sub(3);
    let mut words: Vec<String> = counts.iter().take(3).map(|(cause, _)| (*cause).clone()).collect();
    if more > 0 {
        words.push(format!("{more} more"));
    }
    words.join(", ")
}

/// Bits of choosing `k` of `n`, by Stirling's series for the factorials.
fn log2_choose(n: u64, k: u64) -> f64 {
    let ln_factorial = |n: u64| match n as f64 {
        n if n < 2.0 => 0.0,
        n => n * n.ln() - n + 0.5 * (std::f64::consts::TAU * n).ln() + 1.0 / (12.0 * n),
    };
    (ln_factorial(n) - ln_factorial(k) - ln_factorial(n.saturating_sub(k))) / std::f64::consts::LN_2
}
