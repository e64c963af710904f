//! Rows that say whose they are, one by one, gathered by host and table over all files.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::import::{ImportAnswer, ImportOptions, ImportReport, ImportSink};
use super::kind::Kind;
use super::names::note_of_own_name;
use super::osqueryd::check_host;
use super::outbox::Outbox;
use super::prefetch::{MOST, Prefetch};
use super::source::{Place, Source};
use super::walk::{HostFiles, RecordFile};
use super::{Problem, Problems, excerpt, fleet, velociraptor};
use crate::catalog::Catalog;
use crate::error::Result;
use crate::model::Status;

/// Most hosts of one import: each costs memory until the end.
const MOST_HOSTS: usize = 1 << 20;
/// Names that are tried for a host whose own is taken.
const MOST_MADE: usize = 3;

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
        prefetch: Prefetch::new(files.iter().map(|file| file.path.clone()).collect(), MOST),
        sink,
        report,
        hosts: taken.keys().cloned().collect(),
        owners: BTreeMap::new(),
        made: BTreeSet::new(),
        answers: BTreeMap::new(),
        outbox: Outbox::new(String::new(), options.limits.chunk_bytes),
        file: 0,
        problems: Problems::default(),
        touched: BTreeSet::new(),
    };
    for (number, file) in files.iter().enumerate() {
        gather.file = number;
        gather.prefetch.reach(number);
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
    prefetch: Prefetch,
    sink: &'a mut dyn ImportSink,
    report: &'a mut ImportReport,
    /// Those that the sink knows.
    hosts: BTreeSet<String>,
    /// Who has a name, a given or a made one: the first id that came with it.
    owners: BTreeMap<String, String>,
    /// Made names of which nobody was told yet that they came without an id too.
    made: BTreeSet<String>,
    answers: BTreeMap<(String, String), Gathered>,
    outbox: Outbox,
    file: usize,
    /// What is wrong with what the file at hand says.
    problems: Problems,
    /// Answers that the file at hand told of.
    touched: BTreeSet<(String, String)>,
}

impl Gather<'_> {
    fn read(&mut self, file: &RecordFile) -> Result<()> {
        let name = self.options.files.name(&file.path);
        let mut reader = match self.options.files.open_with(&self.prefetch, &file.path) {
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
        let problems = std::mem::take(&mut self.problems);
        self.report.absorb(problems.kept, problems.total);
        Ok(())
    }

    /// Notes that something in the file at hand is not what it should be.
    pub(super) fn problem(&mut self, place: Place, message: &str) {
        let source = self.outbox.source();
        self.problems.add(|| Problem {
            source: source.to_owned(),
            line: place.line,
            column: place.column,
            message: message.to_owned(),
        });
    }

    /// The host of that name; where another id came with the name before, the name with the id. None, and why, when it
    /// can be none.
    pub(super) fn owner(&mut self, name: &str, id: Option<&str>) -> Result<String, String> {
        check_host(name)?;
        let Some(id) = id else {
            if self.made.remove(name) {
                let why =
                    "made to tell two hosts apart, and also the name of rows without an id: both are here";
                self.report.problem(name, || why.to_owned());
            }
            return Ok(name.to_owned());
        };
        let first = self.owners.entry(name.to_owned()).or_insert_with(|| id.to_owned());
        if first == id {
            return Ok(name.to_owned());
        }
        let first = first.clone();
        self.made_name(name, id, &first)
    }

    /// A name for a host whose own is that of another; somebody may call himself as such a name would be.
    fn made_name(&mut self, name: &str, id: &str, first: &str) -> Result<String, String> {
        let mut other = name.to_owned();
        for _ in 0..MOST_MADE {
            other = format!("{other}-{id}");
            check_host(&other)?;
            match self.owners.get(&other) {
                Some(owner) if owner == id => return Ok(other),
                None if !self.hosts.contains(&other) => {
                    self.owners.insert(other.clone(), id.to_owned());
                    self.made.insert(other.clone());
                    self.report.problem(&other, || {
                        format!(
                            "two hosts call themselves `{}`: {} and this one",
                            excerpt(name),
                            excerpt(first)
                        )
                    });
                    return Ok(other);
                }
                _ => {}
            }
        }
        Err(format!("other hosts have the name `{}` and those made from it", excerpt(name)))
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

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::import::import;
    use super::super::{Chunk, ImportFormat};
    use super::*;

    /// Rows by host and table as they were handed on, and the answers.
    #[derive(Default)]
    struct Seen {
        hosts: BTreeSet<String>,
        rows: Vec<(String, String, Value)>,
        answers: Vec<ImportAnswer>,
    }

    impl ImportSink for Seen {
        fn host(&mut self, host: &str) -> Result<()> {
            assert!(self.hosts.insert(host.to_owned()), "`{host}` twice");
            Ok(())
        }

        fn rows(&mut self, host: &str, table: &str, chunk: Chunk) -> Result<()> {
            assert!(self.hosts.contains(host));
            let Value::Array(rows) = serde_json::from_str(&chunk.json).unwrap() else { panic!("{chunk:?}") };
            assert_eq!(rows.len() as u64, chunk.rows);
            self.rows.extend(rows.into_iter().map(|row| (host.to_owned(), table.to_owned(), row)));
            Ok(())
        }

        fn answered(&mut self, answer: ImportAnswer) -> Result<()> {
            let is_of_it = |row: &&(String, String, Value)| row.0 == answer.host && row.1 == answer.table;
            assert_eq!(self.rows.iter().filter(is_of_it).count() as u64, answer.rows, "{answer:?}");
            self.answers.push(answer);
            Ok(())
        }
    }

    fn run(name: &str, bytes: &[u8], format: Option<ImportFormat>) -> (Seen, ImportReport) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let mut seen = Seen::default();
        let options = ImportOptions { format, host: Some("h".to_owned()), ..ImportOptions::default() };
        let report = import(&[path], &options, &Catalog::builtin().unwrap(), &mut seen).unwrap();
        assert_eq!(seen.rows.len() as u64, report.rows);
        for (host, table, _) in &seen.rows {
            assert!(seen.answers.iter().any(|answer| &answer.host == host && &answer.table == table));
        }
        (seen, report)
    }

    /// One line of fleetctl: its host, how many rows it has, or something that is none.
    fn line() -> impl Strategy<Value = (Option<(String, usize)>, String)> {
        let good = ("[a-c]", 0_usize..4).prop_map(|(host, rows)| {
            let rows_json: Vec<Value> = (0..rows).map(|row| json!({"x": row.to_string()})).collect();
            (Some((host.clone(), rows)), json!({"host": host, "rows": rows_json}).to_string())
        });
        let bad = "[a-z]{1,5}|\\{\"host\":\"[a-c]\",\"rows\":\\[\\{|\\{\\}|[0-9]{1,3}|\\[\\{";
        prop_oneof![good, bad.prop_map(|text| (None, text))]
    }

    /// Hosts with the clients whose rows they have.
    fn hosts_of(seen: &Seen) -> Vec<String> {
        seen.rows
            .iter()
            .map(|(host, _, row)| format!("{host} {}", row["x"].as_str().unwrap_or_default()))
            .collect()
    }

    #[test]
    fn results_within_results_do_not_exhaust_the_stack() {
        for start in [r#"{"query_id":1,"results":["#, r#"{"host":"a","results":["#, "["] {
            let depth = 100_000;
            let text = start.to_owned() + &r#"{"results":["#.repeat(depth) + &"]}".repeat(depth) + "]}";
            let (seen, report) = run("x.json", text.as_bytes(), Some(ImportFormat::Fleet));
            assert!(seen.rows.is_empty() && report.problems_total > 0, "{start}");
        }
    }

    #[test]
    fn a_host_that_a_file_answers_for_twice_is_not_whole() {
        let line = |user: &str| json!({"host": "web-1", "rows": [{"username": user}]}).to_string();
        let text = format!("{}\n{}\n{}", line("a"), json!({"host": "web-2", "rows": []}), line("b"));
        let (seen, report) = run("users.json", text.as_bytes(), None);
        let status: Vec<_> = seen.answers.iter().map(|answer| (answer.status, answer.rows)).collect();
        assert_eq!(status, [(Status::Truncated, 2), (Status::Empty, 0)]);
        assert_eq!((report.problems_total, report.problems[0].line), (1, 3), "{:?}", report.problems);
    }

    #[test]
    fn clients_with_one_name_are_never_one_host() {
        let row = |(name, id): &(&str, &str)| {
            json!({"X": id, "Fqdn": name, "ClientId": id, "FlowId": "F"}).to_string()
        };
        let check = |rows: &[(&str, &str)], expect: &[&str]| {
            let text: Vec<String> = rows.iter().map(row).collect();
            let (seen, report) = run("All Linux.Sys.Users.json", text.join("\n").as_bytes(), None);
            assert_eq!(hosts_of(&seen), expect);
            assert!(report.problems_total > 0);
        };
        // One who calls himself as the name would be that is made for another.
        let made = [("web-1-C.3", "C.2"), ("web-1", "C.1"), ("web-1", "C.3"), ("web-1", "C.3")];
        check(&made, &["web-1 C.1", "web-1-C.3 C.2", "web-1-C.3-C.3 C.3", "web-1-C.3-C.3 C.3"]);
        let later = [("web-1", "C.1"), ("web-1", "C.3"), ("web-1-C.3", "C.2")];
        check(&later, &["web-1 C.1", "web-1-C.3 C.3", "web-1-C.3-C.2 C.2"]);
        // One who calls himself by the id of a client without a name.
        check(&[("C.1", "C.9"), ("", "C.1")], &["C.1 C.9", "C.1-C.1 C.1"]);
        check(&[("C.1", "C.9"), ("C.1", "C.1")], &["C.1 C.9", "C.1-C.1 C.1"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn lines_of_fleetctl_cost_only_themselves(lines in prop::collection::vec(line(), 1..12)) {
            let text: Vec<&str> = lines.iter().map(|(_, text)| text.as_str()).collect();
            // An array is read to its end, wherever that is.
            prop_assume!(!text.iter().any(|line| line.starts_with('[')));
            let (seen, report) = run("users.json", text.join("\n").as_bytes(), Some(ImportFormat::Fleet));
            let good: Vec<&(String, usize)> = lines.iter().filter_map(|(good, _)| good.as_ref()).collect();
            let rows: usize = good.iter().map(|(_, rows)| rows).sum();
            prop_assert_eq!(seen.rows.len(), rows);
            for (host, _) in &good {
                prop_assert!(seen.answers.iter().any(|answer| &answer.host == host));
            }
            let bad = lines.len() - good.len();
            prop_assert!(report.problems_total >= bad as u64, "{:?}", report.problems);
        }

        #[test]
        fn rows_of_velociraptor_are_all_there(
            rows in prop::collection::vec(("[a-c]{0,1}", "\\PC{0,8}", any::<u32>()), 1..20),
        ) {
            let text: Vec<String> = rows
                .iter()
                .map(|(host, text, number)| json!({"Text": text, "Deep": {"N": number}, "Fqdn": host, "ClientId": "C.1", "FlowId": "F"}).to_string())
                .collect();
            let (seen, _) = run("Linux.Sys.Pslist.json", text.join("\n").as_bytes(), None);
            let mut expect: Vec<(String, Value)> = rows
                .iter()
                .map(|(host, text, number)| {
                    let host = if host.is_empty() { "C.1" } else { host };
                    (host.to_owned(), json!({"text": text, "deep_n": number}))
                })
                .collect();
            let mut found: Vec<(String, Value)> =
                seen.rows.into_iter().map(|(host, table, row)| {
                    assert_eq!(table, "linux_sys_pslist");
                    (host, row)
                }).collect();
            let key = |pair: &(String, Value)| format!("{pair:?}");
            expect.sort_by_key(key);
            found.sort_by_key(key);
            prop_assert_eq!(found, expect);
        }

        #[test]
        fn tables_of_the_ui_are_all_there(
            cells in prop::collection::vec(("[a-c]", "\\PC{0,8}|[\",\n\\\\]{1,3}"), 1..20),
            as_json in any::<bool>(),
        ) {
            let cell = |text: &str| match as_json {
                true => json!(text).to_string(),
                false => format!("\"{}\"", text.replace('"', "\"\"")),
            };
            let head = if as_json { "\"host_display_name\",\"x\"" } else { "host_display_name,x" };
            let lines: Vec<String> = cells.iter().map(|(host, x)| format!("{host},{}", cell(x))).collect();
            let text = format!("{head}\n{}\n", lines.join("\n"));
            let (seen, report) = run("users.csv", text.as_bytes(), None);
            let mut found: Vec<(String, String)> =
                seen.rows.into_iter().map(|(host, _, row)| (host, row["x"].as_str().unwrap().to_owned())).collect();
            let mut expect: Vec<(String, String)> = cells.clone();
            found.sort();
            expect.sort();
            prop_assert_eq!(found, expect, "{:?}", report.problems);
        }

        #[test]
        fn any_bytes_are_read_in_every_format(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            text in r#"(\{"(host|ClientId|host_id)":"a","(rows|results|columns)":(\[\{"a":"b"\}\]|\{\}|null|5)\}[\n,]?|host_display_name,x\n|"a",","\n?){0,5}"#,
        ) {
            for format in [ImportFormat::Fleet, ImportFormat::Velociraptor] {
                for bytes in [bytes.as_slice(), text.as_bytes()] {
                    let _ = run("x.json", bytes, Some(format));
                }
            }
        }
    }
}
