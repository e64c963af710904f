//! Says why: the row as collected, what is normal instead, and one sentence that a person can read.

use std::collections::HashMap;

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type};
use roaring::RoaringBitmap;
use serde_json::Value;

use super::candidate::{Candidate, Method, Place, Subject, digest};
use super::fleet::{column, of_snapshot};
use super::lines::{Id, Lines, Loaded};
use super::views::{Shows, UNKNOWN, View};
use crate::catalog::{ColumnSpec, OWN_COLUMNS, Role, Strength, TableSpec, is_table_name};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::model::{Finding, FindingKind, Given, Nearest, Row, SnapshotId, hex};

/// Longest value that a sentence quotes, in characters.
const LONGEST_QUOTE: usize = 100;
/// Most columns that a sentence names a row by.
const NAMED_BY: usize = 3;
/// Most rows that are looked at for the most alike one.
const MOST_COMPARED: usize = 5_000;
/// Most rows whose spelling is compared.
const MOST_SPELT: usize = 40;
/// Ids that one query asks for.
const IDS_PER_QUERY: usize = 500;

/// Raw rows by host and strict id.
pub(super) type RawRows = HashMap<(String, Id), Row>;

const RAW_ROWS: &str = include_str!("../../sql/steps/raw_rows.sql");

/// The rows, as collected, of these ids.
pub(super) async fn raw_rows(
    engine: &Engine,
    snapshot: SnapshotId,
    spec: &TableSpec,
    ids: &[Id],
) -> Result<RawRows> {
    if !is_table_name(&spec.name) {
        return Err(Error::internal(format!("`{}` is no table name", spec.name)));
    }
    let mut found = RawRows::new();
    for ids in ids.chunks(IDS_PER_QUERY) {
        // Ids are hex digits that we made; the table's name was checked.
        let list: Vec<String> = ids.iter().map(|id| format!("id('{}')", hex(id))).collect();
        let sql = RAW_ROWS
            .replace("public.table_name", &format!("public.{}", spec.name))
            .replace("$ids", &list.join(", "));
        for batch in engine.collect(&sql, of_snapshot(snapshot)).await? {
            let hosts = column(&batch, "host")?.as_string::<i32>();
            let strict = column(&batch, "strict_id")?.as_fixed_size_binary();
            for row in 0..batch.num_rows() {
                let Ok(id) = Id::try_from(strict.value(row)) else { continue };
                found
                    .entry((hosts.value(row).to_owned(), id))
                    .or_insert_with(|| batch_row(&batch, row, spec, |_| true));
            }
        }
    }
    Ok(found)
}

/// The values of a line of prevalence: own names are placeholders in it.
pub(super) fn line_row(lines: &Lines, line: usize) -> Row {
    let (batch, row) = lines.lines[line].at;
    batch_row(&lines.batches[batch], row, &lines.spec, ColumnSpec::is_comparable)
}

/// A row in the order in which it is shown: identity first, then what is comparable, then the rest; unknown values
/// are left out.
fn batch_row(batch: &RecordBatch, row: usize, spec: &TableSpec, wanted: fn(&ColumnSpec) -> bool) -> Row {
    let rank = |column: &&ColumnSpec| match column.role {
        Role::Identity => 0,
        Role::Context => 1,
        Role::Measure | Role::Volatile => 2,
    };
    let mut columns: Vec<&ColumnSpec> = spec.columns.iter().filter(|column| wanted(column)).collect();
    columns.sort_by_key(rank);
    let declared = columns.iter().map(|column| column.name.as_str());
    let schema = batch.schema();
    let unknown = schema.fields().iter().map(|field| field.name().as_str()).filter(|name| {
        *name == "extra" || (spec.column(name).is_none() && !OWN_COLUMNS.contains(name) && *name != "hosts")
    });
    declared
        .chain(unknown)
        .filter_map(|name| Some((name.to_owned(), value(batch.column_by_name(name)?, row)?)))
        .collect()
}

fn value(array: &dyn Array, row: usize) -> Option<Value> {
    if array.is_null(row) {
        return None;
    }
    match array.data_type() {
        DataType::Utf8 => Some(array.as_string::<i32>().value(row).into()),
        DataType::Int64 => Some(array.as_primitive::<Int64Type>().value(row).into()),
        DataType::Float64 => Some(array.as_primitive::<Float64Type>().value(row).into()),
        _ => None,
    }
}

/// What the sentences of one table draw on.
pub(super) struct Explainer<'a> {
    pub(super) lines: &'a Lines,
    pub(super) views: &'a [View],
    pub(super) raw: &'a RawRows,
    /// For the most alike one.
    pub(super) common: &'a CommonLines,
}

/// The lines that more than half of the hosts have, with the values that they are compared by.
#[derive(Debug)]
pub(super) struct CommonLines {
    columns: Vec<String>,
    lines: Vec<(usize, Vec<Option<String>>)>,
}

impl CommonLines {
    pub(super) fn new(table: &Loaded<'_>) -> Self {
        let lines = &table.lines;
        let columns: Vec<String> =
            lines.spec.identity(Strength::Strict).map(|column| column.name.clone()).collect();
        let half = (table.answers.heard.len() / 2).max(1);
        let common = (0..lines.lines.len()).filter(|line| lines.lines[*line].members.len() > half);
        let values = |line: usize| columns.iter().map(|column| lines.value(line, column)).collect();
        let lines = common.take(MOST_COMPARED).map(|line| (line, values(line))).collect();
        Self { columns, lines }
    }

    /// The line with the most equal values, and of those the one whose other values are spelt most alike; none when
    /// nothing at all is equal.
    fn most_alike(&self, row: &Row) -> Option<usize> {
        let mine: Vec<Option<String>> = self.columns.iter().map(|name| row.get(name).map(text)).collect();
        let equal = |values: &[Option<String>]| {
            values.iter().zip(&mine).filter(|(theirs, mine)| theirs == mine && mine.is_some()).count()
        };
        let most = self.lines.iter().map(|(_, values)| equal(values)).max().filter(|most| *most > 0)?;
        let best = self.lines.iter().filter(|(_, values)| equal(values) == most).take(MOST_SPELT);
        let spelling = |values: &[Option<String>]| {
            values.iter().zip(&mine).map(|(theirs, mine)| likeness(mine, theirs)).sum::<f64>()
        };
        let rated = best.map(|(line, values)| (spelling(values), *line));
        rated.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1))).map(|(_, line)| line)
    }
}

impl Explainer<'_> {
    /// The finding that a candidate becomes.
    pub(super) fn finding(&self, candidate: &Candidate, host: &str, score: f64) -> Finding {
        let row = self.row(candidate, host);
        let nearest = self.nearest(candidate, &row);
        let given = self.given(candidate, &row);
        let spec = &self.lines.spec;
        Finding {
            id: finding_id(&spec.name, (candidate.kind, &candidate.id), host),
            table: spec.name.clone(),
            kind: candidate.kind,
            score: (score * 10.0).round() / 10.0,
            hosts_with_row: candidate.hosts_with_row,
            hosts_answered: candidate.hosts_answered,
            first_seen: None,
            attack: spec.attack.clone(),
            reason: self.reason(candidate, &row, nearest.as_ref()),
            nearest,
            given,
            row,
            method: candidate.method.as_str().to_owned(),
            priors: candidate.says.clone(),
        }
    }

    fn row(&self, candidate: &Candidate, host: &str) -> Row {
        let raw = candidate.strict.and_then(|strict| self.raw.get(&(host.to_owned(), strict)));
        raw.cloned().unwrap_or_else(|| self.subject(&candidate.subject))
    }

    fn subject(&self, subject: &Subject) -> Row {
        match subject {
            Subject::Line(line) => line_row(self.lines, *line),
            Subject::Known(row) => row.as_ref().clone(),
        }
    }

    fn nearest(&self, candidate: &Candidate, row: &Row) -> Option<Nearest> {
        let (nearest, hosts_with_row) = match &candidate.nearest {
            Some((subject, hosts)) => (self.subject(subject), *hosts),
            None if candidate.kind == FindingKind::Missing => return None,
            None => {
                let line = self.common.most_alike(row)?;
                (line_row(self.lines, line), self.lines.lines[line].members.len())
            }
        };
        let differs = self.differs(row, &nearest);
        Some(Nearest { row: nearest, differs, hosts_with_row })
    }

    /// The identity columns that differ; only where all of them are equal, what else does.
    fn differs(&self, row: &Row, other: &Row) -> Vec<String> {
        let of_role = |role: Role| -> Vec<String> {
            let columns = self.lines.spec.columns.iter().filter(|column| column.role == role);
            columns
                .map(|column| column.name.clone())
                .filter(|name| other.contains_key(name) && row.get(name) != other.get(name))
                .collect()
        };
        let identity = of_role(Role::Identity);
        if identity.is_empty() { of_role(Role::Context) } else { identity }
    }

    fn reason(&self, candidate: &Candidate, row: &Row, nearest: Option<&Nearest>) -> String {
        let beside = candidate.place.and_then(|place| {
            self.beside(place, candidate, row).or_else(|| self.anywhere(place, candidate, row))
        });
        let reason = beside.unwrap_or_else(|| reason(&self.lines.spec, candidate, row, nearest));
        if candidate.says.is_empty() {
            reason
        } else {
            format!("{reason}; it {}", candidate.says.join(", and "))
        }
    }

    /// `name sshd has path /tmp/sshd on 1 of 60 hosts; 59 others have /usr/sbin/sshd`.
    fn beside(&self, place: Place, candidate: &Candidate, row: &Row) -> Option<String> {
        let column = self.views[place.target].column.as_deref()?;
        let context = self.views[place.context?].column.as_deref()?;
        let masked = |view: usize| if self.views[view].shows == Shows::Masked { "like " } else { "" };
        let hosts = match candidate.group {
            Some(_) => format!("{} of the {} hosts of its peer group", place.hosts, place.of),
            None => of_hosts(place.hosts, place.of),
        };
        Some(format!(
            "{context} {}{} has {column} {}{} on {hosts}{}",
            masked(place.context?),
            quote(row.get(context)?),
            masked(place.target),
            quote(row.get(column)?),
            self.usual(place, candidate).unwrap_or_default(),
        ))
    }

    /// `path /tmp/sshd, name sshd is only on 1 of 60 hosts: no other host has this path`.
    fn anywhere(&self, place: Place, candidate: &Candidate, row: &Row) -> Option<String> {
        let view = &self.views[place.target];
        let column = view.column.clone()?;
        let named = name_row(&self.lines.spec, row, std::slice::from_ref(&column));
        let on = match candidate.group {
            Some(_) => format!("{} of the {} hosts of its peer group", place.hosts, place.of),
            None => of_hosts(place.hosts, place.of),
        };
        let who = if place.hosts == 1 { "no other host has" } else { "hardly any other host has" };
        let what = match view.shows {
            Shows::Masked => format!("anything like this {column}"),
            _ => format!("this {column}"),
        };
        Some(format!("{named} is only on {on}: {who} {what}"))
    }

    /// What the others show in the same place, when most of them show the same.
    fn usual(&self, place: Place, candidate: &Candidate) -> Option<String> {
        let Subject::Line(own) = candidate.subject else { return None };
        let (target, context) = (&self.views[place.target], &self.views[place.context?]);
        let mut hosts: HashMap<u32, (RoaringBitmap, usize)> = HashMap::new();
        for (number, line) in self.lines.lines.iter().enumerate() {
            let is_here = context.codes[number] == context.codes[own];
            if is_here && target.codes[number] != target.codes[own] && target.codes[number] != UNKNOWN {
                hosts.entry(target.codes[number]).or_insert_with(|| (RoaringBitmap::new(), number)).0 |=
                    &line.members;
            }
        }
        let (members, line) =
            hosts.into_values().max_by_key(|(hosts, line)| (hosts.len(), usize::MAX - line))?;
        let value = self.lines.value(line, target.column.as_deref()?)?;
        let others = place.of.saturating_sub(place.hosts);
        if members.len() * 2 < others {
            return Some(format!("; the {others} others have other values"));
        }
        Some(format!("; {} others have {}", members.len().min(others), quote(&value.into())))
    }

    /// For a variant: the value that is unusual beside what the row is otherwise.
    fn given(&self, candidate: &Candidate, row: &Row) -> Option<Given> {
        if !matches!(candidate.kind, FindingKind::Variant | FindingKind::Changed) {
            return None;
        }
        let column = candidate.rare_columns.first()?;
        let loose =
            self.lines.spec.identity(Strength::Loose).filter(|loose| &loose.name != column).take(NAMED_BY);
        let context = loose.filter_map(|column| Some((column.name.clone(), row.get(&column.name)?.clone())));
        Some(Given { column: column.clone(), value: row.get(column)?.clone(), context: context.collect() })
    }
}

/// Equal values are alike; different ones a little, by their spelling.
fn likeness(mine: &Option<String>, theirs: &Option<String>) -> f64 {
    match (mine, theirs) {
        (Some(mine), Some(theirs)) if mine == theirs => 1.0,
        (Some(mine), Some(theirs)) if mine.len() < 200 && theirs.len() < 200 => {
            0.5 * strsim::jaro_winkler(mine, theirs)
        }
        _ => 0.0,
    }
}

/// The same row of the same host has the same id in the next analysis.
pub(super) fn finding_id(table: &str, (kind, id): (FindingKind, &Id), host: &str) -> String {
    let parts = [table.as_bytes(), kind.as_str().as_bytes(), id, host.as_bytes()];
    digest(&parts).to_hex()[..16].to_owned()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

fn quote(value: &Value) -> String {
    let text = text(value);
    if text.chars().count() <= LONGEST_QUOTE {
        return format!("`{text}`");
    }
    let start: String = text.chars().take(LONGEST_QUOTE * 2 / 3).collect();
    let end: String = text.chars().skip(text.chars().count() - LONGEST_QUOTE / 3).collect();
    format!("`{start}…{end}`")
}

/// `path /usr/sbin/sshd, name sshd`: the columns that name a row, rare ones first, empty ones left out.
pub(super) fn name_row(spec: &TableSpec, row: &Row, first: &[String]) -> String {
    let loose = spec.identity(Strength::Loose).map(|column| column.name.clone());
    let mut names: Vec<String> = first.to_vec();
    names.extend(loose.filter(|name| !first.contains(name)));
    if names.is_empty() {
        names.extend(row.keys().cloned());
    }
    let shown = names.iter().filter_map(|name| {
        let value = row.get(name).filter(|value| !text(value).is_empty())?;
        Some(format!("{name} {}", quote(value)))
    });
    let parts: Vec<String> = shown.take(NAMED_BY).collect();
    if parts.is_empty() { "a row".to_owned() } else { parts.join(", ") }
}

fn of_hosts(hosts: u64, of: u64) -> String {
    format!("{hosts} of {of} host{}", if of == 1 { "" } else { "s" })
}

fn reason(spec: &TableSpec, candidate: &Candidate, row: &Row, nearest: Option<&Nearest>) -> String {
    let named = name_row(spec, row, &[]);
    let on = of_hosts(candidate.hosts_with_row, candidate.hosts_answered);
    match (candidate.method, candidate.kind) {
        (Method::Missing, FindingKind::Missing) => {
            format!("{named} is on {on} that answered, and not on this one")
        }
        (Method::History, FindingKind::Missing) => format!(
            "this host had {named} in every earlier snapshot and has it no more; of {} hosts that always had it {} still have it",
            candidate.hosts_answered, candidate.hosts_with_row
        ),
        (Method::History, FindingKind::New) => format!("{named} is first seen in this snapshot; on {on}"),
        (Method::History, _) => {
            format!("{named} has content first seen in this snapshot; on {on}{}", changes(row, nearest))
        }
        (Method::Baseline, FindingKind::Missing) => {
            format!("{named} is on every host of the baseline, and not on this one")
        }
        (Method::Baseline, FindingKind::New) => format!("the baseline does not have {named}; it is on {on}"),
        (Method::Baseline, _) => {
            format!("{named} is in the baseline with other content{}", changes(row, nearest))
        }
        (_, FindingKind::Variant) => {
            let others = candidate.hosts_with_thing.saturating_sub(candidate.hosts_with_row);
            let have = if others == 1 { "1 other host has" } else { &format!("{others} other hosts have") };
            format!("{named} is like this on {on}; {have} it with other content{}", changes(row, nearest))
        }
        _ if candidate.rare_columns.is_empty() => {
            format!("{named}: each value is known, but together they are only on {on}")
        }
        _ => {
            let named = name_row(spec, row, &candidate.rare_columns);
            format!("{named} is only on {on}: {}", nobody_else(candidate))
        }
    }
}

/// `no other host has this path`.
fn nobody_else(candidate: &Candidate) -> String {
    let these: Vec<String> = candidate.rare_columns.iter().map(|column| format!("this {column}")).collect();
    match candidate.hosts_with_row {
        1 => format!("no other host has {}", these.join(" or ")),
        _ => format!("hardly any other host has {}", these.join(" or ")),
    }
}

/// `: sha256 is `a`, not `b``.
fn changes(row: &Row, nearest: Option<&Nearest>) -> String {
    let Some(nearest) = nearest else { return String::new() };
    let change = |name: &String| {
        let (mine, theirs) = (row.get(name)?, nearest.row.get(name)?);
        Some(format!("{name} is {}, not {}", quote(mine), quote(theirs)))
    };
    let parts: Vec<String> = nearest.differs.iter().filter_map(change).take(2).collect();
    if parts.is_empty() { String::new() } else { format!(": {}", parts.join("; ")) }
}
