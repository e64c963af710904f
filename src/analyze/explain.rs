//! Says why: the row as collected, what is normal instead, and one sentence that a person can read.

use std::collections::HashMap;

use serde_json::Value;

use super::candidate::{Candidate, Method, Subject, digest};
use super::lines::{Id, Lines, Loaded};
use super::spot::Spot;
use crate::catalog::{Role, Strength, TableSpec};
use crate::model::{Finding, FindingKind, Given, Nearest, Row, hex, part};

/// Longest value that a sentence quotes, in characters.
const LONGEST_QUOTE: usize = 100;
/// Most columns that a sentence names a row by.
const NAMED_BY: usize = 3;
/// Most rows that are looked at for the most alike one.
const MOST_COMPARED: usize = 5_000;
/// Most rows whose spelling is compared.
const MOST_SPELT: usize = 40;

/// What the sentences of one table draw on.
pub(super) struct Explainer<'a> {
    pub(super) lines: &'a Lines,
    /// For the most alike one.
    pub(super) common: &'a CommonLines,
}

/// The lines that more than half of the hosts have, with the values that they are compared by.
#[derive(Debug)]
pub(super) struct CommonLines {
    columns: Vec<String>,
    lines: Vec<(usize, Vec<Option<String>>)>,
    /// By column and value: which of the lines have it.
    with: Vec<HashMap<String, Vec<usize>>>,
}

impl CommonLines {
    pub(super) fn new(table: &Loaded<'_>) -> Self {
        let lines = &table.lines;
        let columns: Vec<String> =
            lines.spec.identity(Strength::Strict).map(|column| column.name.clone()).collect();
        let half = (table.answers.heard.len() / 2).max(1);
        let common = (0..lines.lines.len()).filter(|line| lines.lines[*line].members.len() > half);
        let values = |line: usize| columns.iter().map(|column| lines.value(line, column)).collect();
        let lines: Vec<(usize, Vec<Option<String>>)> =
            common.take(MOST_COMPARED).map(|line| (line, values(line))).collect();
        let mut with: Vec<HashMap<String, Vec<usize>>> = vec![HashMap::new(); columns.len()];
        for (number, (_, values)) in lines.iter().enumerate() {
            for (with, value) in with.iter_mut().zip(values) {
                value.iter().for_each(|value| with.entry(value.clone()).or_default().push(number));
            }
        }
        Self { columns, lines, with }
    }

    /// The line with the most equal values, and of those the one whose other values are spelt most alike; none when
    /// nothing at all is equal.
    fn most_alike(&self, row: &Row) -> Option<usize> {
        let mine: Vec<Option<String>> = self.columns.iter().map(|name| row.get(name).map(text)).collect();
        let mut equal = vec![0; self.lines.len()];
        for (with, value) in self.with.iter().zip(&mine) {
            let lines = value.as_ref().and_then(|value| with.get(value));
            lines.into_iter().flatten().for_each(|line| equal[*line] += 1);
        }
        let most = equal.iter().copied().max().filter(|most| *most > 0)?;
        let best = self.lines.iter().zip(&equal).filter(|(_, equal)| **equal == most).take(MOST_SPELT);
        let spelling = |values: &[Option<String>]| {
            values.iter().zip(&mine).map(|(theirs, mine)| likeness(mine, theirs)).sum::<f64>()
        };
        let rated = best.map(|((line, values), _)| (spelling(values), *line));
        rated.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1))).map(|(_, line)| line)
    }
}

impl Explainer<'_> {
    /// The finding that a candidate becomes.
    pub(super) fn finding(
        &self,
        (candidate, spot): (&Candidate, Option<&Spot>),
        (host, raw): (&str, Option<Row>),
        score: f64,
    ) -> Finding {
        let row = raw.unwrap_or_else(|| self.subject(&candidate.subject));
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
            reason: self.reason((candidate, spot), &row, nearest.as_ref()),
            nearest,
            given,
            row,
            method: candidate.method.as_str().to_owned(),
            priors: candidate.says.clone(),
            strict_id: self.strict_id(candidate).map(|id| hex(&id)),
        }
    }

    /// The host's own row, or for an absence that of its peers.
    fn strict_id(&self, candidate: &Candidate) -> Option<Id> {
        candidate.strict.or(match candidate.subject {
            Subject::Line(line) => Some(self.lines.lines[line].strict),
            Subject::Known(_) => None,
        })
    }

    fn subject(&self, subject: &Subject) -> Row {
        match subject {
            Subject::Line(line) => self.lines.row(*line),
            Subject::Known(row) => row.as_ref().clone(),
        }
    }

    fn nearest(&self, candidate: &Candidate, row: &Row) -> Option<Nearest> {
        let (nearest, hosts_with_row) = match &candidate.nearest {
            Some((subject, hosts)) => (self.subject(subject), *hosts),
            None if candidate.kind == FindingKind::Missing => return None,
            None => {
                let line = self.common.most_alike(row)?;
                (self.lines.row(line), self.lines.lines[line].members.len())
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

    fn reason(
        &self,
        (candidate, spot): (&Candidate, Option<&Spot>),
        row: &Row,
        nearest: Option<&Nearest>,
    ) -> String {
        let beside = spot.and_then(|spot| {
            Self::beside(spot, candidate, row).or_else(|| self.anywhere(spot, candidate, row))
        });
        let reason = beside.unwrap_or_else(|| reason(&self.lines.spec, candidate, row, nearest));
        if candidate.says.is_empty() {
            reason
        } else {
            format!("{reason}; it {}", candidate.says.join(", and "))
        }
    }

    /// `name sshd has path /tmp/sshd on 1 of 60 hosts; 59 others have /usr/sbin/sshd`.
    fn beside(spot: &Spot, candidate: &Candidate, row: &Row) -> Option<String> {
        let column = spot.column.as_deref()?;
        let (context, is_masked) = spot.context.as_ref()?;
        let like = |is_masked: bool| if is_masked { "like " } else { "" };
        Some(format!(
            "{context} {}{} has {column} {}{} on {}{}",
            like(*is_masked),
            quote(row.get(context)?),
            like(spot.is_masked),
            quote(row.get(column)?),
            on_hosts(spot, candidate),
            usual(spot),
        ))
    }

    /// `path /tmp/sshd, name sshd is only on 1 of 60 hosts: no other host has this path`.
    fn anywhere(&self, spot: &Spot, candidate: &Candidate, row: &Row) -> Option<String> {
        let column = spot.column.clone()?;
        let named = name_row(&self.lines.spec, row, std::slice::from_ref(&column));
        let on = on_hosts(spot, candidate);
        let who = if spot.hosts == 1 { "no other host has" } else { "hardly any other host has" };
        let what =
            if spot.is_masked { format!("anything like this {column}") } else { format!("this {column}") };
        Some(format!("{named} is only on {on}: {who} {what}"))
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

fn on_hosts(spot: &Spot, candidate: &Candidate) -> String {
    match candidate.group {
        Some(_) => format!("{} of the {} hosts of its peer group", spot.hosts, spot.of),
        None => of_hosts(spot.hosts, spot.of),
    }
}

/// What the others show in the same place, when most of them show the same.
fn usual(spot: &Spot) -> String {
    let Some(usual) = &spot.usual else { return String::new() };
    let others = spot.of.saturating_sub(spot.hosts);
    if usual.hosts * 2 < others {
        return format!("; the {others} others have other values");
    }
    format!("; {} others have {}", usual.hosts.min(others), quote(&usual.value.as_str().into()))
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
    quoted(&text(value))
}

/// A value in a sentence, cut in the middle; it must not end its quote and go on in our voice.
pub(super) fn quoted(value: &str) -> String {
    let text = value.replace('`', "\\u{60}");
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
    part(hosts, of, "host")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stays_in_its_quote() {
        assert_eq!(quoted("/bin/x`: on all hosts `"), r"`/bin/x\u{60}: on all hosts \u{60}`");
        assert_eq!(quoted(&"`".repeat(5_000)).matches('`').count(), 2);
    }
}
