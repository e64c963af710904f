//! The state at the end of osqueryd logs: two passes over the files, so that memory follows the rows that changed (16
//! bytes each), not the size of the logs.
//!
//! Pass one finds for each host and query the newest snapshot, or the last full initial result and what was added and
//! removed since, as a multiset of row digests. Pass two hands on the rows that are in the state.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use memchr::memmem;
use serde_json::value::RawValue;

use super::import::{ImportAnswer, ImportOptions, ImportReport, ImportSink};
use super::kind::text_of_key;
use super::lines::{Lines, in_order};
use super::names::{mapped_table, note_of_own_name};
use super::osqueryd::{LogBody, LogEntry, LogLine, check_host};
use super::outbox::Outbox;
use super::row::{Pairs, text_of};
use super::source::Place;
use super::state::{Position, State, gap_of, plain_text};
use super::walk::HostFiles;
use super::{Problem, Problems, excerpt};
use crate::catalog::Catalog;
use crate::error::Result;
use crate::model::Status;

/// Reads logs and hands on the state at their end, but for hosts that `taken` has already.
///
/// # Errors
/// A file cannot be opened, or the sink fails.
pub(super) fn replay(
    files: &[PathBuf],
    (options, catalog): (&ImportOptions, &Catalog),
    taken: &BTreeMap<String, HostFiles>,
    (sink, report): (&mut dyn ImportSink, &mut ImportReport),
) -> Result<()> {
    let files = in_order(files, &options.files)?;
    let mut replay = Replay {
        files,
        options,
        catalog,
        states: BTreeMap::new(),
        fresh: BTreeSet::new(),
        entries: 0,
        used: 0,
    };
    replay.learn(report)?;
    replay.keep_fresh();
    replay.leave_out(taken, report);
    for host in replay.states.keys() {
        sink.host(host)?;
        report.hosts += 1;
    }
    replay.hand_on(sink, report)?;
    report.superseded += replay.entries.saturating_sub(replay.used);
    replay.answer(sink, report)
}

struct Replay<'a> {
    files: Vec<PathBuf>,
    options: &'a ImportOptions,
    catalog: &'a Catalog,
    /// By host, then by query.
    states: BTreeMap<String, BTreeMap<String, State>>,
    /// Hosts with entries in files that are fresh.
    fresh: BTreeSet<String>,
    entries: u64,
    used: u64,
}

impl Replay<'_> {
    /// Pass one.
    fn learn(&mut self, report: &mut ImportReport) -> Result<()> {
        let at = self.options.at;
        for (file, path) in self.files.clone().iter().enumerate() {
            let mut lines = Lines::new(self.options.files.name(path), self.options.limits.row_bytes);
            let is_fresh = self.options.chosen.as_ref().is_none_or(|chosen| chosen.get(path) == Some(&true));
            let mut hosts = BTreeSet::new();
            let mut is_lost = false;
            lines.each(&mut *self.options.files.open(path)?, &mut |line, source| {
                let entry = match line.read() {
                    Ok(LogLine::Entry(entry)) => entry,
                    Ok(LogLine::Status) => {
                        report.status_lines += 1;
                        return Ok(());
                    }
                    Err((column, message)) => {
                        is_lost |= !self.broken(&line.text, &message);
                        source.problem(Place { line: line.number, column }, || message);
                        return Ok(());
                    }
                };
                for key in &entry.collisions {
                    let place = Place { line: line.number, column: 0 };
                    source.problem(place, || format!("`{}` stands twice; the first counts", excerpt(key)));
                }
                if at.is_some_and(|at| entry.time.is_some_and(|time| time > at)) {
                    report.later += 1;
                    return Ok(());
                }
                self.entries += 1;
                if !hosts.contains(entry.host.as_ref()) {
                    hosts.insert(entry.host.clone().into_owned());
                }
                let position = Position { file, line: line.number };
                if let Err(message) = self.state(&entry).learn_entry(position, &entry) {
                    source.problem(Place { line: line.number, column: 0 }, || message);
                }
                Ok(())
            })?;
            let name = &lines.name;
            if lines.failed {
                self.cut(
                    &hosts,
                    &format!("`{name}` could not be read to its end; what it says later is not here"),
                );
            } else if is_lost || lines.too_long > 0 {
                self.cut(
                    &hosts,
                    &format!("lines of `{name}` could not be read, and nobody knows whose they were"),
                );
            }
            if is_fresh {
                self.fresh.append(&mut hosts);
            }
            report.files += 1;
            report.bytes += lines.bytes;
            report.absorb(lines.problems.kept, lines.problems.total);
        }
        Ok(())
    }

    /// Notes for the host that a line which cannot be read names in front that its state is not whole. False where it is
    /// an entry of nobody knows whom.
    fn broken(&mut self, text: &str, message: &str) -> bool {
        let names = [&["hostIdentifier", "hostname"][..], &["name"]];
        let [Some(host), Some(query)] = names.map(|names| text_of_key(text.as_bytes(), names)) else {
            // Other lines are no entries: warnings, and what wraps around them.
            return !text.trim_start().starts_with('{');
        };
        if check_host(&host).is_err() {
            return false;
        }
        let state = self.states.entry(host).or_default().entry(query).or_default();
        message.clone_into(&mut state.error);
        true
    }

    /// Notes for hosts of a file that not all of it could be read.
    fn cut(&mut self, hosts: &BTreeSet<String>, why: &str) {
        let states = self.states.iter_mut().filter(|(host, _)| hosts.contains(*host));
        for state in
            states.flat_map(|(_, queries)| queries.values_mut()).filter(|state| state.error.is_empty())
        {
            why.clone_into(&mut state.error);
        }
    }

    /// Leaves out hosts of whom nothing is new.
    fn keep_fresh(&mut self) {
        if self.options.chosen.is_some() {
            self.states.retain(|host, _| self.fresh.contains(host));
        }
    }

    fn state(&mut self, entry: &LogEntry<'_>) -> &mut State {
        let queries = self.states.entry(entry.host.clone().into_owned()).or_default();
        queries.entry(entry.query.clone().into_owned()).or_default()
    }

    /// Hosts whose tables were there as files keep those.
    fn leave_out(&mut self, taken: &BTreeMap<String, HostFiles>, report: &mut ImportReport) {
        for host in taken.keys().filter(|host| self.states.contains_key(*host)) {
            report.skipped.push(format!("log entries of `{host}`: its tables are there as files"));
        }
        self.states.retain(|host, _| !taken.contains_key(host));
    }

    /// Pass two.
    fn hand_on(&mut self, sink: &mut dyn ImportSink, report: &mut ImportReport) -> Result<()> {
        for (file, path) in self.files.clone().iter().enumerate() {
            let mut lines = Lines::new(self.options.files.name(path), self.options.limits.row_bytes);
            let mut outbox = Outbox::new(lines.name.clone(), self.options.limits.chunk_bytes);
            let mut found = Problems::default();
            // What cannot be read was reported by the first pass.
            lines.each(&mut *self.options.files.open(path)?, &mut |line, source| {
                let Ok(LogLine::Entry(entry)) = line.read() else { return Ok(()) };
                let is_later = |at: DateTime<Utc>| entry.time.is_some_and(|time| time > at);
                let queries = self.states.get_mut(entry.host.as_ref());
                let state = queries.and_then(|queries| queries.get_mut(entry.query.as_ref()));
                let Some(state) = state.filter(|_| !self.options.at.is_some_and(is_later)) else {
                    return Ok(());
                };
                if !state.uses(Position { file, line: line.number }, &entry) {
                    return Ok(());
                }
                self.used += 1;
                let table = mapped_table(&entry.query, &self.options.map, self.catalog);
                state.bytes += line.text.len() as u64;
                let problem = &mut |message| {
                    let source = source.name().to_owned();
                    found.add(|| Problem { source, line: line.number, column: 0, message });
                };
                emit(&entry, state, problem, &mut |row, start| {
                    // A row of an event has the line to itself; naming its column is not worth the blanks.
                    let offset = (start as usize).saturating_sub(line.text.as_ptr() as usize) as u64;
                    let column = if entry.body.is_one_row() { 1 } else { offset + 1 };
                    report.rows += 1;
                    let place = Place { line: line.number, column };
                    outbox.push((&entry.host, &table), row, place, &mut *sink)
                })
            })?;
            outbox.flush(sink)?;
            report.absorb(found.kept, found.total);
        }
        Ok(())
    }

    fn answer(self, sink: &mut dyn ImportSink, report: &mut ImportReport) -> Result<()> {
        for (host, queries) in self.states {
            let mut answers: BTreeMap<String, (ImportAnswer, String)> = BTreeMap::new();
            for (query, state) in queries {
                let table = mapped_table(&query, &self.options.map, self.catalog);
                let answer = answer_of(&host, &table, state);
                if let Some(note) = note_of_own_name(&table) {
                    report.problem(&host, || note);
                }
                let Some((first, first_query)) = answers.get_mut(&table) else {
                    answers.insert(table, (answer, query));
                    continue;
                };
                report.problem(&host, || {
                    format!(
                        "`{}` and `{}` both answer `{table}`; the rows of both are here",
                        excerpt(first_query),
                        excerpt(&query)
                    )
                });
                first.join(answer);
            }
            for (answer, _) in answers.into_values() {
                sink.answered(answer)?;
            }
        }
        Ok(())
    }
}

/// Hands on the rows of an entry that are in the state, each with its start in memory.
fn emit(
    entry: &LogEntry<'_>,
    state: &mut State,
    problem: &mut dyn FnMut(String),
    push: &mut dyn FnMut(&str, *const u8) -> Result<()>,
) -> Result<()> {
    let is_snapshot = matches!(entry.body, LogBody::Snapshot(_) | LogBody::SnapshotRow(_));
    let mut pushed = Ok(());
    let mut defects = Vec::new();
    let read = entry.body.each_row(&mut |is_new, row| {
        if pushed.is_err() {
            return;
        }
        let start = row.get().as_ptr();
        if !row.get().starts_with('{') {
            // The first says enough of one entry; all of them would be as much as the host likes.
            if defects.is_empty() {
                defects.push(format!("expected a row, found `{}`", excerpt(row.get())));
            }
            return;
        }
        if is_snapshot {
            pushed = push(row.get(), start);
        } else if is_new && state.takes(row) {
            pushed = push(&plain_row(row), start);
        } else {
            return;
        }
        state.rows += 1;
    });
    defects.extend(read.err());
    for message in defects {
        if state.error.is_empty() {
            state.error.clone_from(&message);
        }
        // Those of changes were reported by the first pass.
        if is_snapshot {
            problem(message);
        }
    }
    pushed
}

fn answer_of(host: &str, table: &str, state: State) -> ImportAnswer {
    let is_snapshot = state.is_snapshot();
    let rows = state.rows;
    let (time, osquery_version, gap) = match (state.snapshot, state.changes) {
        (Some(snapshot), _) if is_snapshot => (snapshot.time, snapshot.version, String::new()),
        (_, Some(changes)) => (changes.last, changes.version.clone(), gap_of(&changes)),
        _ => (None, None, String::new()),
    };
    let status = match (rows, state.error.is_empty(), gap.is_empty()) {
        (0, false, _) => Status::Error,
        (_, true, true) if rows == 0 => Status::Empty,
        (_, true, true) => Status::Ok,
        _ => Status::Truncated,
    };
    let error = if state.error.is_empty() { gap } else { state.error };
    let (host, table) = (host.to_owned(), table.to_owned());
    ImportAnswer { host, table, status, rows, bytes: state.bytes, error, time, osquery_version }
}

/// A row of a differential result in the spelling of a snapshot.
fn plain_row(row: &RawValue) -> Cow<'_, str> {
    let is_plain = memmem::find(row.get().as_bytes(), br"\\x").is_none();
    let pairs = if is_plain { None } else { serde_json::from_str::<Pairs<'_>>(row.get()).ok() };
    let Some(Pairs(pairs)) = pairs else { return Cow::Borrowed(row.get()) };
    let fields: Vec<String> = pairs
        .into_iter()
        .map(|(key, value)| {
            let text = text_of(value).filter(|_| value.get().starts_with('"')).map(plain_text);
            let value = text.map_or(value.get().to_owned(), |text| quoted(&text));
            format!("{}:{value}", quoted(&key))
        })
        .collect();
    Cow::Owned(format!("{{{}}}", fields.join(",")))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
