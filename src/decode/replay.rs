//! The state at the end of osqueryd logs: two passes over the files, so that memory follows the rows that changed (16
//! bytes each), not the size of the logs.
//!
//! Pass one finds for each host and query the newest snapshot, or the last full initial result and what was added and
//! removed since, as a multiset of row digests. Pass two hands on the rows that are in the state.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use memchr::{memchr, memmem};
use serde_json::value::RawValue;

use super::chunk::Chunker;
use super::import::{ImportAnswer, ImportOptions, ImportReport, ImportSink};
use super::names::mapped_table;
use super::osqueryd::{LogBody, LogEntry, LogLine, parse_line};
use super::row::{Pairs, text_of};
use super::source::{Place, Source};
use super::split::reason;
use super::utf8::{has_transport, json_text, unescape_differential};
use super::walk::HostFiles;
use super::{Problem, Problems, excerpt, input};
use crate::catalog::Catalog;
use crate::error::Result;
use crate::model::Status;

/// Bytes of chunks under way, over all hosts, before all of them are handed on.
const UNDER_WAY: usize = 32 << 20;

type Time = Option<DateTime<Utc>>;
type Digest = [u8; 16];

/// File and line; files are in the order of their first entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    file: usize,
    line: u64,
}

struct Snapshot {
    time: Time,
    at: Position,
    by_row: bool,
    version: Option<String>,
}

/// A full initial result and what changed since.
struct Generation {
    epoch: i64,
    /// When it began; entries of the initial result share it.
    start: Time,
    from: Position,
    /// Whether the initial result is in the logs.
    is_based: bool,
    last: Time,
    net: HashMap<Digest, i64>,
    version: Option<String>,
}

impl Generation {
    fn new(at: Position, entry: &LogEntry<'_>) -> Self {
        Self {
            epoch: entry.epoch,
            start: entry.time,
            from: at,
            is_based: entry.counter == Some(0),
            last: entry.time,
            net: HashMap::new(),
            version: None,
        }
    }

    fn count(&mut self, digest: Digest, is_new: bool) {
        let count = self.net.entry(digest).or_default();
        *count += if is_new { 1 } else { -1 };
        if *count == 0 {
            self.net.remove(&digest);
        }
    }

    fn holds(&self, at: Position, entry: &LogEntry<'_>) -> bool {
        let is_initial = entry.counter == Some(0);
        at >= self.from && entry.epoch == self.epoch && (!is_initial || entry.time == self.start)
    }

    /// Whether the entry starts another generation; an initial result that is older than what is known does not.
    fn is_over(&self, entry: &LogEntry<'_>) -> bool {
        let is_initial = entry.counter == Some(0);
        let is_other =
            entry.epoch != self.epoch || (is_initial && !(self.is_based && entry.time == self.start));
        is_other && entry.time >= self.last
    }
}

/// What is known of one query on one host.
#[derive(Default)]
struct State {
    snapshot: Option<Snapshot>,
    changes: Option<Generation>,
    rows: u64,
    bytes: u64,
    error: String,
}

impl State {
    fn is_snapshot(&self) -> bool {
        let changed = self.changes.as_ref().map(|changes| changes.last);
        self.snapshot.as_ref().is_some_and(|snapshot| changed.is_none_or(|changed| snapshot.time >= changed))
    }

    /// Whether the rows of the entry take part in the state.
    fn uses(&self, at: Position, entry: &LogEntry<'_>) -> bool {
        let snapshot = self.snapshot.as_ref().filter(|_| self.is_snapshot());
        match (entry.body, snapshot) {
            (LogBody::Snapshot(_), Some(snapshot)) => snapshot.at == at,
            (LogBody::SnapshotRow(_), Some(snapshot)) => snapshot.by_row && snapshot.time == entry.time,
            (LogBody::Snapshot(_) | LogBody::SnapshotRow(_), None) => false,
            (_, Some(_)) => false,
            (_, None) => self.changes.as_ref().is_some_and(|changes| changes.holds(at, entry)),
        }
    }

    fn learn_snapshot(&mut self, at: Position, entry: &LogEntry<'_>, by_row: bool) {
        let newest = self.snapshot.as_ref();
        let is_known = newest.is_some_and(|known| by_row && known.by_row && known.time == entry.time);
        if !is_known && newest.is_none_or(|known| entry.time >= known.time) {
            let version = entry.osquery_version.clone();
            self.snapshot = Some(Snapshot { time: entry.time, at, by_row, version });
        }
    }

    fn learn_changes(&mut self, at: Position, entry: &LogEntry<'_>) -> Result<(), String> {
        if self.changes.as_ref().is_none_or(|changes| changes.is_over(entry)) {
            self.changes = Some(Generation::new(at, entry));
            self.error.clear();
        }
        let Some(changes) = self.changes.as_mut().filter(|changes| changes.holds(at, entry)) else {
            return Ok(());
        };
        changes.last = changes.last.max(entry.time);
        changes.version = entry.osquery_version.clone().or(changes.version.take());
        let mut first_defect = Ok(());
        entry.body.each_row(&mut |is_new, row| match digest_of(row) {
            Ok(digest) => changes.count(digest, is_new),
            Err(message) => first_defect = std::mem::replace(&mut first_defect, Ok(())).and(Err(message)),
        })?;
        first_defect
    }
}

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
    let files = in_order(files)?;
    let mut replay = Replay { files, options, catalog, states: BTreeMap::new(), entries: 0, used: 0 };
    replay.learn(report)?;
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
    entries: u64,
    used: u64,
}

impl Replay<'_> {
    /// Pass one.
    fn learn(&mut self, report: &mut ImportReport) -> Result<()> {
        let at = self.options.at;
        for (file, path) in self.files.clone().iter().enumerate() {
            let mut lines = Lines::new(path.display().to_string(), self.options.limits.row_bytes);
            lines.each(&mut *input::open(path)?, &mut |line, source| {
                let entry = match line.read() {
                    Ok(LogLine::Entry(entry)) => entry,
                    Ok(LogLine::Status) => {
                        report.status_lines += 1;
                        return Ok(());
                    }
                    Err((column, message)) => {
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
                let position = Position { file, line: line.number };
                if let Err(message) = self.state(&entry).learn_entry(position, &entry) {
                    source.problem(Place { line: line.number, column: 0 }, || message);
                }
                Ok(())
            })?;
            report.files += 1;
            report.bytes += lines.bytes;
            report.absorb(lines.problems.kept, lines.problems.total);
        }
        Ok(())
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
            let mut lines = Lines::new(path.display().to_string(), self.options.limits.row_bytes);
            let mut outbox = Outbox::new(lines.name.clone(), self.options.limits.chunk_bytes);
            let mut found = Problems::default();
            // What cannot be read was reported by the first pass.
            lines.each(&mut *input::open(path)?, &mut |line, source| {
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

impl State {
    fn learn_entry(&mut self, at: Position, entry: &LogEntry<'_>) -> Result<(), String> {
        match entry.body {
            LogBody::Snapshot(_) => self.learn_snapshot(at, entry, false),
            LogBody::SnapshotRow(_) => self.learn_snapshot(at, entry, true),
            _ => {
                let learnt = self.learn_changes(at, entry);
                return learnt.inspect_err(|message| self.error.clone_from(message));
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

impl State {
    /// Takes one of the rows that are in the state, if one like this is left.
    fn takes(&mut self, row: &RawValue) -> bool {
        let Some(changes) = self.changes.as_mut() else { return false };
        let Some(count) = digest_of(row).ok().and_then(|digest| changes.net.get_mut(&digest)) else {
            return false;
        };
        let is_left = *count > 0;
        *count -= i64::from(is_left);
        is_left
    }
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

/// What is not known of a state that was built from changes.
fn gap_of(changes: &Generation) -> String {
    let removed: i64 = changes.net.values().filter(|count| **count < 0).map(|count| -count).sum();
    if !changes.is_based {
        "the logs hold changes but not the initial result (counter 0) before them".to_owned()
    } else if removed > 0 {
        format!("{removed} rows were removed that the logs never added")
    } else {
        String::new()
    }
}

/// The first 128 bits of BLAKE3 over the row's pairs, by key, each length-prefixed; values in their plain spelling.
///
/// Cryptographic because the host is hostile: no row may pass for another.
fn digest_of(row: &RawValue) -> Result<Digest, String> {
    let Pairs(mut pairs) = serde_json::from_str(row.get())
        .map_err(|error| format!("expected a row, found `{}`: {}", excerpt(row.get()), reason(&error)))?;
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    let mut hasher = blake3::Hasher::new();
    let mut part = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    for (key, value) in &pairs {
        part(key);
        part(&text_of(value).map_or(Cow::Borrowed(""), plain_text));
    }
    let mut digest = Digest::default();
    hasher.finalize_xof().fill(&mut digest);
    Ok(digest)
}

/// The text without osquery's byte spelling, unless that would give a character of the transport encoding.
fn plain_text(text: Cow<'_, str>) -> Cow<'_, str> {
    let plain = unescape_differential(&text);
    if matches!(plain, Cow::Borrowed(_)) || has_transport(&plain) {
        text
    } else {
        Cow::Owned(plain.into_owned())
    }
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

/// Chunks under way, by host and table, of one file.
struct Outbox {
    source: String,
    chunk_bytes: usize,
    chunkers: BTreeMap<(String, String), Chunker>,
    bytes: usize,
}

impl Outbox {
    fn new(source: String, chunk_bytes: usize) -> Self {
        Self { source, chunk_bytes, chunkers: BTreeMap::new(), bytes: 0 }
    }

    fn push(&mut self, to: (&str, &str), row: &str, place: Place, sink: &mut dyn ImportSink) -> Result<()> {
        let chunker = self.chunkers.entry((to.0.to_owned(), to.1.to_owned())).or_default();
        if chunker.is_full(self.chunk_bytes) || !chunker.reaches(place) {
            self.bytes -= chunker.len();
            if let Some(chunk) = chunker.take(&self.source, 0) {
                sink.rows(to.0, to.1, chunk)?;
            }
        }
        let before = chunker.len();
        chunker.push(row, place);
        self.bytes += chunker.len() - before;
        if self.bytes >= UNDER_WAY { self.flush(sink) } else { Ok(()) }
    }

    fn flush(&mut self, sink: &mut dyn ImportSink) -> Result<()> {
        self.bytes = 0;
        for ((host, table), mut chunker) in std::mem::take(&mut self.chunkers) {
            if let Some(chunk) = chunker.take(&self.source, 0) {
                sink.rows(&host, &table, chunk)?;
            }
        }
        Ok(())
    }
}

/// A line of a log.
struct Line<'a> {
    number: u64,
    text: Cow<'a, str>,
    error: Option<serde_json::Error>,
    ended: bool,
}

impl Line<'_> {
    /// Parses it; the error is a column and what is wrong there.
    fn read(&self) -> Result<LogLine<'_>, (u64, String)> {
        match &self.error {
            None => parse_line(&self.text).map_err(|message| (0, message)),
            Some(error) if !self.ended && error.is_eof() => {
                Err((0, "the file ends inside this line".to_owned()))
            }
            Some(error) => Err((
                error.column() as u64,
                format!("expected a log entry, found `{}`: {}", excerpt(&self.text), reason(error)),
            )),
        }
    }
}

/// The lines of one file, with what was wrong with them.
struct Lines {
    name: String,
    limit: usize,
    bytes: u64,
    problems: Problems,
}

impl Lines {
    fn new(name: String, limit: usize) -> Self {
        Self { name, limit, bytes: 0, problems: Problems::default() }
    }

    fn each(
        &mut self,
        reader: &mut dyn std::io::BufRead,
        see: &mut dyn FnMut(&Line<'_>, &mut Source<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut source = Source::new(reader, &self.name);
        let mut buffer = Vec::new();
        loop {
            source.skip_space();
            let place = source.place();
            buffer.clear();
            buffer.shrink_to(1 << 20);
            let taken = source.take(Some((&mut buffer, self.limit)), |piece| match memchr(b'\n', piece) {
                Some(end) => (end, true),
                None => (piece.len(), false),
            });
            if taken.bytes == 0 {
                break;
            }
            if taken.bytes > self.limit {
                let (bytes, limit) = (taken.bytes, self.limit);
                source.problem(place, || {
                    format!("this line of {bytes} bytes is over the limit of {limit} and is skipped")
                });
                continue;
            }
            see(&line_of(place.line, &buffer, taken.ended), &mut source)?;
        }
        self.bytes = source.at;
        self.problems = source.problems;
        Ok(())
    }
}

fn line_of(number: u64, bytes: &[u8], ended: bool) -> Line<'_> {
    match json_text(bytes) {
        Ok(text) => Line { number, text, error: None, ended },
        Err(error) => Line { number, text: String::from_utf8_lossy(bytes), error: Some(error), ended },
    }
}

/// The files by the time of their first entry, so that rotated logs come before the current one.
fn in_order(files: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut dated = Vec::with_capacity(files.len());
    for path in files {
        dated.push((first_time(&input::head(path, 4 << 20)?), path.clone()));
    }
    dated.sort_by_key(|(time, _)| *time);
    Ok(dated.into_iter().map(|(_, path)| path).collect())
}

fn first_time(head: &[u8]) -> Option<u64> {
    const KEY: &[u8] = b"\"unixTime\":";
    let after = &head[memmem::find(head, KEY)? + KEY.len()..];
    let digits = after.iter().skip_while(|byte| matches!(byte, b' ' | b'"'));
    let digits: String =
        digits.take_while(|byte| byte.is_ascii_digit()).take(19).map(|byte| char::from(*byte)).collect();
    digits.parse().ok()
}

impl ImportReport {
    pub(super) fn problem(&mut self, source: &str, message: impl FnOnce() -> String) {
        let problem = Problem { source: source.to_owned(), line: 0, column: 0, message: message() };
        self.absorb(vec![problem], 1);
    }
}
