//! The method `baseline`: rows that a baseline does not have, and rows that all of its hosts have and a host has not.
//!
//! Of a baseline its ids are held; its rows stay packed until a finding shows them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::Int64Type;

use super::candidate::{Candidate, Method, Subject};
use super::lines::{Group, Id, Lines, Loaded, Numbers, id};
use super::members::Members;
use super::score::Differences;
use crate::error::{Error, Result};
use crate::identity::ENCODING_VERSION;
use crate::model::{FindingKind, Row};
use crate::store::{Baseline, ColumnFile, Store};

/// What a baseline knows.
#[derive(Debug, Default)]
pub(super) struct Known {
    file: Option<ColumnFile>,
    tables: BTreeMap<String, KnownTable>,
}

/// What a baseline knows of one table.
#[derive(Debug, Default)]
struct KnownTable {
    hosts_answered: u64,
    /// Sorted by their ids.
    rows: Vec<KnownRow>,
}

/// One strict id.
#[derive(Debug)]
struct KnownRow {
    loose: Id,
    strict: Id,
    hosts: u64,
    /// Its place in the file.
    number: usize,
}

/// One loose id.
#[derive(Debug, Clone, Copy)]
struct KnownThing {
    /// The place of one of its rows.
    number: usize,
    /// The most hosts that have one of its contents.
    hosts: u64,
    /// How many contents it has.
    contents: u64,
}

impl Known {
    /// Reads a baseline.
    pub(super) async fn load(store: &Store, baseline: &Baseline) -> Result<Self> {
        if baseline.identity_version != ENCODING_VERSION {
            return Err(Error::data(format!(
                "baseline `{}` has ids of version {}, this Diffy makes version {ENCODING_VERSION}",
                baseline.name, baseline.identity_version
            ))
            .hint("make the baseline anew from its snapshot"));
        }
        let table = |(name, of): (&String, &crate::store::BaselineTable)| {
            (name.clone(), KnownTable { hosts_answered: of.hosts_answered, rows: Vec::new() })
        };
        let mut known = Self {
            tables: baseline.tables.iter().map(table).collect(),
            file: Some(store.column_file(&baseline.file).await?),
        };
        known.read()?;
        for table in known.tables.values_mut() {
            table.sort();
        }
        Ok(known)
    }

    /// Whether nothing is known of anything.
    pub(super) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    fn read(&mut self) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let columns = ["table_name", "loose_id", "strict_id", "hosts"].map(|name| file.column(name));
        let [names, loose, strict, hosts] = columns;
        let (names, loose, strict, hosts) = (names?, loose?, strict?, hosts?);
        let mut number = 0;
        for (((names, loose), strict), hosts) in names.iter().zip(&loose).zip(&strict).zip(&hosts) {
            for row in 0..names.len() {
                let name = names.as_string_opt::<i32>().ok_or_else(broken)?.value(row);
                let known = known_row((loose, strict, hosts), row, number).ok_or_else(broken)?;
                if !self.tables.contains_key(name) {
                    self.tables.insert(name.to_owned(), KnownTable::default());
                }
                if let Some(table) = self.tables.get_mut(name) {
                    table.rows.push(known);
                }
                number += 1;
            }
        }
        if number == file.rows() { Ok(()) } else { Err(broken()) }
    }

    /// What differs from the baseline in a table, with scores of 0 to 100 times the weight of the table; what cannot
    /// be shown is left out, but for lines that are `wanted`. None for a table that the baseline does not have.
    pub(super) fn candidates(
        &self,
        table: &Loaded<'_>,
        wanted: impl Fn(usize) -> bool,
    ) -> Result<Vec<(Candidate, f64)>> {
        let Some(known) = self.tables.get(table.name()) else { return Ok(Vec::new()) };
        let found = known.different(table);
        let answered = table.answers.heard.len();
        let mut differences = Differences::new(answered, table.lines.spec.weight);
        for one in &found {
            differences.note(one.kind, one.hosts_with_row, one.hosts.iter());
        }
        let mut candidates = Vec::new();
        for one in &found {
            for host in one.hosts.iter() {
                let contents = one.known.map_or(1, |thing| thing.contents);
                let score = differences.score((one.kind, host), one.hosts_with_row, contents);
                candidates.extend(one.candidate(&table.lines, (host, score), (answered, &wanted)));
            }
        }
        self.tell(&mut candidates)?;
        Ok(candidates.into_iter().map(|(candidate, score, _)| (candidate, score)).collect())
    }

    /// Gives the candidates the rows that the baseline has instead.
    fn tell(&self, candidates: &mut [(Candidate, f64, Option<KnownThing>)]) -> Result<()> {
        let numbers: BTreeSet<usize> =
            candidates.iter().filter_map(|(_, _, known)| Some(known.as_ref()?.number)).collect();
        let rows = self.rows(&numbers)?;
        for (candidate, _, known) in candidates {
            let Some(thing) = known else { continue };
            let Some(row) = rows.get(&thing.number).cloned() else { continue };
            match candidate.kind {
                FindingKind::Missing => candidate.subject = Subject::Known(row),
                _ => candidate.nearest = Some((Subject::Known(row), thing.hosts)),
            }
        }
        Ok(())
    }

    /// Rows of the file, by their places.
    fn rows(&self, numbers: &BTreeSet<usize>) -> Result<BTreeMap<usize, Arc<Row>>> {
        let mut rows = BTreeMap::new();
        let (Some(file), Some(first), Some(last)) = (&self.file, numbers.first(), numbers.last()) else {
            return Ok(rows);
        };
        let mut start = *first;
        file.each_of_column("row", Range { start, end: last + 1 }, |texts| {
            let texts = texts.as_string_opt::<i32>().ok_or_else(broken)?;
            for number in numbers.range(start..start + texts.len()) {
                let row: Row = serde_json::from_str(texts.value(number - start))
                    .map_err(|source| Error::data("broken row in a baseline").source(source))?;
                rows.insert(*number, Arc::new(row));
            }
            start += texts.len();
            Ok(())
        })?;
        Ok(rows)
    }
}

fn known_row(
    (loose, strict, hosts): (&ArrayRef, &ArrayRef, &ArrayRef),
    row: usize,
    number: usize,
) -> Option<KnownRow> {
    Some(KnownRow {
        loose: id(loose.as_fixed_size_binary_opt()?.value(row))?,
        strict: id(strict.as_fixed_size_binary_opt()?.value(row))?,
        hosts: u64::try_from(hosts.as_primitive_opt::<Int64Type>()?.value(row)).unwrap_or(0),
        number,
    })
}

/// Whether rows of one loose id, sorted, have this strict id.
fn has_strict(rows: &[KnownRow], id: Id) -> bool {
    rows.binary_search_by_key(&id, |row| row.strict).is_ok()
}

fn broken() -> Error {
    Error::data("a baseline has broken columns")
}

impl KnownTable {
    fn sort(&mut self) {
        self.rows.sort_by_key(|row| (row.loose, row.strict, row.number));
    }

    fn thing(&self, rows: &[KnownRow]) -> Option<KnownThing> {
        let number = rows.iter().map(|row| row.number).min()?;
        let hosts = rows.iter().map(|row| row.hosts).max()?;
        Some(KnownThing { number, hosts, contents: rows.len() as u64 })
    }

    fn of_loose(&self, id: Id) -> &[KnownRow] {
        let start = self.rows.partition_point(|row| row.loose < id);
        let count = self.rows[start..].partition_point(|row| row.loose == id);
        &self.rows[start..start + count]
    }

    /// Everything in which hosts differ from the baseline.
    fn different(&self, table: &Loaded<'_>) -> Vec<Different> {
        let (lines, answers) = (&table.lines, table.answers);
        let mut found = Vec::new();
        let mut differs = |kind, group: Group, known| {
            let hosts = &group.members & &answers.heard;
            let (id, lines, hosts_with_row) = (group.id, group.lines, hosts.len());
            found.push(Different { kind, id, lines, hosts, hosts_with_row, known });
        };
        for group in lines.loose() {
            let rows = self.of_loose(group.id);
            match self.thing(rows) {
                None => differs(FindingKind::New, group, None),
                known => {
                    let is_known = |strict: &Group| has_strict(rows, strict.id);
                    for strict in lines.strict(&group).filter(|strict| !is_known(strict)) {
                        differs(FindingKind::Changed, strict, known);
                    }
                }
            }
        }
        for rows in self.rows.chunk_by(|a, b| a.loose == b.loose) {
            let thing = self.thing(rows).filter(|thing| thing.hosts >= self.hosts_answered);
            found.extend(thing.map(|thing| missing(table, rows[0].loose, thing)));
        }
        found
    }
}

fn missing(table: &Loaded<'_>, id: Id, thing: KnownThing) -> Different {
    let answers = table.answers;
    let present = table.lines.loose_group(id).map(|group| group.members).unwrap_or_default();
    let have = (&present & &answers.heard).to_bitmap();
    Different {
        kind: FindingKind::Missing,
        id,
        lines: Numbers::default(),
        hosts: (&answers.answered - &have).into(),
        hosts_with_row: have.len(),
        known: Some(thing),
    }
}

/// A row that the baseline does not have, or has and hosts have not.
struct Different {
    kind: FindingKind,
    id: Id,
    /// The lines of the row.
    lines: Numbers,
    /// The hosts that differ in it.
    hosts: Members,
    hosts_with_row: u64,
    /// What the baseline knows of the thing.
    known: Option<KnownThing>,
}

impl Different {
    fn candidate(
        &self,
        lines: &Lines,
        (host, score): (u32, f64),
        (answered, wanted): (u64, impl Fn(usize) -> bool),
    ) -> Option<(Candidate, f64, Option<KnownThing>)> {
        let is_missing = self.kind == FindingKind::Missing;
        let line = if is_missing { None } else { Some(lines.line_of(&self.lines, host)?) };
        if score < super::rank::WORTH_SHOWING && !line.is_some_and(wanted) {
            return None;
        }
        let candidate = Candidate {
            hosts_with_row: self.hosts_with_row,
            hosts_answered: answered,
            hosts_with_thing: self.hosts_with_row,
            id: self.id,
            strict: line.map(|line| lines.lines[line].strict),
            ..Candidate::new(Method::Baseline, self.kind, host, Subject::Line(line.unwrap_or_default()))
        };
        Some((candidate, score, self.known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_found_in_whatever_order_a_baseline_has_them() {
        let row = |(number, (loose, strict)): (usize, (u8, u8))| KnownRow {
            loose: [loose; 16],
            strict: [strict; 16],
            hosts: 1,
            number,
        };
        let rows = [(2, 9), (1, 5), (2, 1), (1, 7), (2, 4)].into_iter().enumerate().map(row).collect();
        let mut table = KnownTable { hosts_answered: 1, rows };
        table.sort();
        for strict in 0..=10 {
            let is_known = has_strict(table.of_loose([2; 16]), [strict; 16]);
            assert_eq!(is_known, [1, 4, 9].contains(&strict), "{strict}");
        }
    }
}
