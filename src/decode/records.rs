//! Rows that say whose they are, one by one, gathered by host and table over all files.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::import::{ImportAnswer, ImportOptions, ImportReport, ImportSink};
use super::kind::Kind;
use super::names::note_of_own_name;
use super::osqueryd::check_host;
use super::outbox::Outbox;
use super::source::{Place, Source};
use super::walk::{HostFiles, RecordFile};
use super::{excerpt, fleet, velociraptor};
use crate::catalog::Catalog;
use crate::error::Result;
use crate::model::Status;

/// Most hosts of one import: each costs memory until the end.
const MOST_HOSTS: usize = 1 << 20;

/// Reads the files and hands on their rows, then an answer for each host and table.
///
/// # Errors
/// A file cannot be opened, or the sink fails.
pub(super) fn gather(
    files: &[RecordFile],
    (options, catalog): (&ImportOptions, &Catalog),
    taken: &BTreeMap<String, HostFiles>,
    (sink, report): (&mut dyn ImportSink, &mut ImportReport),
) -> Result<()> {
    let mut gather = Gather {
        options,
        catalog,
        sink,
        report,
        hosts: taken.keys().cloned().collect(),
        owners: BTreeMap::new(),
        answers: BTreeMap::new(),
        outbox: Outbox::new(String::new(), options.limits.chunk_bytes),
        file: 0,
        touched: BTreeSet::new(),
    };
    for (number, file) in files.iter().enumerate() {
        gather.file = number;
        gather.read(file)?;
    }
    gather.finish()
}

/// What is known of one host's answer for one table.
#[derive(Debug, Default)]
struct Gathered {
    rows: u64,
    bytes: u64,
    /// Rows that could not be read.
    skipped: u64,
    /// What the host, or whoever asked it, says went wrong.
    error: String,
    /// Why what is here is not all.
    cut: String,
    time: Option<DateTime<Utc>>,
    /// The file that told of it first.
    file: usize,
    is_told: bool,
}

/// Gathers rows of many files.
pub(super) struct Gather<'a> {
    pub(super) options: &'a ImportOptions,
    pub(super) catalog: &'a Catalog,
    sink: &'a mut dyn ImportSink,
    report: &'a mut ImportReport,
    /// Those that the sink knows.
    hosts: BTreeSet<String>,
    /// Who has a name: the first id that came with it.
    owners: BTreeMap<String, String>,
    answers: BTreeMap<(String, String), Gathered>,
    outbox: Outbox,
    file: usize,
    /// Answers that the file at hand told of.
    touched: BTreeSet<(String, String)>,
}

impl Gather<'_> {
    fn read(&mut self, file: &RecordFile) -> Result<()> {
        let name = self.options.files.name(&file.path);
        let mut reader = match self.options.files.open(&file.path) {
            Ok(reader) => reader,
            Err(error) => {
                self.report.problem(&name, || error.to_string());
                return Ok(());
            }
        };
        self.outbox = Outbox::new(name.clone(), self.options.limits.chunk_bytes);
        self.touched.clear();
        let mut source = Source::new(&mut *reader, &name);
        match file.kind {
            Kind::Fleet(shape) => fleet::read(self, &mut source, (file, shape))?,
            _ => velociraptor::read(self, &mut source, file)?,
        }
        self.outbox.flush(self.sink)?;
        let was_cut =
            if source.failed { Some("the file could not be read to its end".to_owned()) } else { None };
        if let Some(why) = was_cut.or_else(|| file.cut.clone()) {
            self.cut_all(&why);
        }
        self.report.files += 1;
        self.report.bytes += source.at;
        self.report.absorb(source.problems.kept, source.problems.total);
        Ok(())
    }

    /// The host of that name; where another id came with the name before, the name with the id. None, and why, when it
    /// can be none.
    pub(super) fn owner(&mut self, name: &str, id: Option<&str>) -> Result<String, String> {
        check_host(name)?;
        let Some(id) = id else { return Ok(name.to_owned()) };
        let owner = self.owners.entry(name.to_owned()).or_insert_with(|| id.to_owned());
        if owner == id || name == id {
            return Ok(name.to_owned());
        }
        let other = format!("{name}-{id}");
        check_host(&other)?;
        if !self.hosts.contains(&other) {
            let first = owner.clone();
            self.report.problem(&other, || {
                format!("two hosts call themselves `{}`: {} and this one", excerpt(name), excerpt(&first))
            });
        }
        Ok(other)
    }

    /// Takes up a host; an error says why not.
    pub(super) fn host(&mut self, host: &str) -> Result<Result<(), String>> {
        if self.hosts.contains(host) {
            return Ok(Ok(()));
        }
        if self.hosts.len() >= MOST_HOSTS {
            return Ok(Err(format!("there are more than {MOST_HOSTS} hosts; this one is not imported")));
        }
        self.hosts.insert(host.to_owned());
        self.report.hosts += 1;
        self.sink.host(host)?;
        Ok(Ok(()))
    }

    fn answer(&mut self, host: &str, table: &str) -> &mut Gathered {
        let key = (host.to_owned(), table.to_owned());
        let file = self.file;
        if !self.touched.contains(&key) {
            self.touched.insert(key.clone());
        }
        let answer = self.answers.entry(key).or_insert_with(|| Gathered { file, ..Gathered::default() });
        if answer.file != file && !answer.is_told {
            answer.is_told = true;
            let table = table.to_owned();
            self.report.problem(host, || {
                format!("`{table}` is in more than one file; the rows of all of them are here")
            });
        }
        answer
    }

    /// Says that a host answered for a table, with rows or without.
    pub(super) fn answered(&mut self, to: (&str, &str), time: Option<DateTime<Utc>>) {
        let answer = self.answer(to.0, to.1);
        answer.time = answer.time.max(time);
    }

    /// Hands on a row of a host that was taken up.
    pub(super) fn row(&mut self, to: (&str, &str), row: &str, place: Place) -> Result<()> {
        let answer = self.answer(to.0, to.1);
        answer.rows += 1;
        answer.bytes += row.len() as u64;
        self.report.rows += 1;
        self.outbox.push(to, row, place, self.sink)
    }

    /// Counts a row of a host that cannot be read, and was reported.
    pub(super) fn skipped(&mut self, to: (&str, &str), why: &str) {
        let answer = self.answer(to.0, to.1);
        answer.skipped += 1;
        if answer.cut.is_empty() {
            answer.cut = why.to_owned();
        }
    }

    /// Notes what a host says went wrong.
    pub(super) fn failed(&mut self, to: (&str, &str), error: &str) {
        let answer = self.answer(to.0, to.1);
        if answer.error.is_empty() {
            answer.error = excerpt_of_error(error);
        }
    }

    /// Notes that what is here of an answer is not all.
    pub(super) fn cut(&mut self, to: (&str, &str), why: &str) {
        let answer = self.answer(to.0, to.1);
        if answer.cut.is_empty() {
            answer.cut = why.to_owned();
        }
    }

    /// As [`Self::cut`], of every answer that the file at hand told of.
    pub(super) fn cut_all(&mut self, why: &str) {
        for key in &self.touched {
            if let Some(answer) = self.answers.get_mut(key).filter(|answer| answer.cut.is_empty()) {
                why.clone_into(&mut answer.cut);
            }
        }
    }

    /// Says something about the file at hand as a whole.
    pub(super) fn note(&mut self, note: String) {
        self.report.notes.push(note);
    }

    fn finish(self) -> Result<()> {
        for ((host, table), gathered) in self.answers {
            if let Some(note) = note_of_own_name(&table) {
                self.report.problem(&host, || note);
            }
            self.sink.answered(settle(host, table, gathered))?;
        }
        Ok(())
    }
}

fn settle(host: String, table: String, gathered: Gathered) -> ImportAnswer {
    let Gathered { rows, bytes, skipped, error, cut, time, .. } = gathered;
    let status = match (rows, error.is_empty(), cut.is_empty()) {
        (0, false, _) => Status::Error,
        (0, true, false) if skipped > 0 => Status::Error,
        (_, true, true) if rows == 0 => Status::Empty,
        (_, true, true) => Status::Ok,
        _ => Status::Truncated,
    };
    let count =
        if skipped > 0 { format!("{skipped} rows could not be read; the first: ") } else { String::new() };
    let error = match (error.is_empty(), cut.is_empty()) {
        (false, _) => error,
        (true, false) => count + &cut,
        (true, true) => String::new(),
    };
    ImportAnswer { host, table, status, rows, bytes, error, time, osquery_version: None }
}

/// An error text of a host in one line, at most 500 characters.
fn excerpt_of_error(text: &str) -> String {
    let line: Cow<'_, str> = text.lines().map(str::trim).collect::<Vec<_>>().join(" ").into();
    line.chars().filter(|character| !character.is_control()).take(500).collect()
}
