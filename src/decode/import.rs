//! Files that exist already, handed on as the rows and answers of hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use super::ahead::ahead;
use super::foreign::FOREIGN;
use super::input::Files;
use super::names::{mapped_table, not_own, note_of_own_name};
use super::prefetch::{MOST, Prefetch};
use super::records::gather;
use super::replay::replay;
use super::split::{Split, TableSplit};
use super::walk::{FileRole, Found, HostFiles, walk};
use super::{Chunk, Limits, PROBLEMS_KEPT, Problem, excerpt, split_host, split_rows};
use crate::catalog::Catalog;
use crate::error::Result;
use crate::model::{Coverage, Status};

/// What files can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportFormat {
    /// `osqueryi --json`: `HOST/TABLE.json`, or one object of tables for each host.
    Osqueryi,
    /// Results and snapshot logs of osqueryd.
    Osqueryd,
    /// What Fleet says of many hosts: lines of `fleetctl`, answers of its REST API, tables of its UI.
    Fleet,
    /// Rows of artifacts of Velociraptor.
    Velociraptor,
}

/// How to import.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// What the files are; told from their content where nothing is said.
    pub format: Option<ImportFormat>,
    /// Tables of query names, before all guessing.
    pub map: BTreeMap<String, String>,
    /// The host of files that name none; else it is the name of their directory.
    pub host: Option<String>,
    /// The table of files of one table; else it is told from their names.
    pub table: Option<String>,
    /// A file whose name and place say nothing, because it has come from standard input.
    pub nameless: Option<PathBuf>,
    /// How files are opened and named.
    pub files: Files,
    /// The only files that are read, each with whether it is fresh; all when none are said. Logs that are not fresh tell
    /// the past of hosts that are in fresh ones; of a host's own files, all are read when one is fresh.
    pub chosen: Option<BTreeMap<PathBuf, bool>>,
    /// Empty files that stand for known ones: they are not read, but say what lies beside the others.
    pub stand_ins: BTreeSet<PathBuf>,
    /// How much is taken at once.
    pub limits: Limits,
    /// Log entries after this time do not count.
    pub at: Option<DateTime<Utc>>,
}

impl ImportOptions {
    /// The table of a file of one table, whose name without endings is `stem`.
    pub(super) fn table_of(&self, stem: &str, catalog: &Catalog) -> String {
        match &self.table {
            Some(table) => not_own(table.clone()),
            None => mapped_table(stem, &self.map, catalog),
        }
    }
}

/// Takes what an import finds: each host first, then its rows, then one answer for each of its tables.
pub trait ImportSink {
    /// A host, also one without any table.
    fn host(&mut self, host: &str) -> Result<()>;

    /// Rows of a table.
    fn rows(&mut self, host: &str, table: &str, chunk: Chunk) -> Result<()>;

    /// The end of a table of a host; all its rows came before.
    fn answered(&mut self, answer: ImportAnswer) -> Result<()>;
}

/// What a host answered for a table, as far as the files say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportAnswer {
    /// The host.
    pub host: String,
    /// The table.
    pub table: String,
    /// How the files say it ended.
    pub status: Status,
    /// Rows handed on.
    pub rows: u64,
    /// Bytes that held them.
    pub bytes: u64,
    /// What went wrong, in one line; empty when nothing did.
    pub error: String,
    /// When the rows were collected, where the files say it.
    pub time: Option<DateTime<Utc>>,
    /// The agent's version, where the files say it.
    pub osquery_version: Option<String>,
}

impl ImportAnswer {
    /// What the coverage of the snapshot says of it; files do not tell more.
    pub fn coverage(self) -> Coverage {
        Coverage {
            host: self.host,
            table: self.table,
            status: self.status,
            rows: self.rows,
            bytes: self.bytes,
            error: self.error,
            columns_missing: Vec::new(),
            started: self.time,
            ended: self.time,
            osquery_version: self.osquery_version,
            uid: None,
        }
    }
}

/// What an import found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportReport {
    /// Hosts, those without any table too.
    pub hosts: u64,
    /// Files read.
    pub files: u64,
    /// Rows handed on.
    pub rows: u64,
    /// Bytes read, after unpacking.
    pub bytes: u64,
    /// The first 100 problems.
    pub problems: Vec<Problem>,
    /// All problems.
    pub problems_total: u64,
    /// Files and directories that were not read, each with the reason.
    pub skipped: Vec<String>,
    /// What a reader of the rows should know of where they come from.
    pub notes: Vec<String>,
    /// Log entries that newer ones replace.
    pub superseded: u64,
    /// Log entries after the time asked for.
    pub later: u64,
    /// Lines of logs in which the agent speaks about itself.
    pub status_lines: u64,
}

impl ImportReport {
    pub(super) fn problem(&mut self, source: &str, message: impl FnOnce() -> String) {
        let problem = Problem { source: source.to_owned(), line: 0, column: 0, message: message() };
        self.absorb(vec![problem], 1);
    }

    pub(super) fn absorb(&mut self, kept: Vec<Problem>, total: u64) {
        self.problems_total += total;
        let room = PROBLEMS_KEPT.saturating_sub(self.problems.len());
        self.problems.extend(kept.into_iter().take(room));
    }
}

/// Imports files and directories.
///
/// # Errors
/// A path cannot be read or is nothing known, two paths are the same host (both named, before anything is handed on),
/// or the sink fails. What is wrong inside of files is in the report and in the answers.
pub fn import(
    paths: &[PathBuf],
    options: &ImportOptions,
    catalog: &Catalog,
    sink: &mut dyn ImportSink,
) -> Result<ImportReport> {
    ahead(sink, |sink| read(paths, options, catalog, sink))
}

/// The files that an import of these paths reads, and what it does not read, each with the reason.
///
/// # Errors
/// As [`import`], but for the sink.
pub fn survey(
    paths: &[PathBuf],
    options: &ImportOptions,
    catalog: &Catalog,
) -> Result<(BTreeMap<PathBuf, FileRole>, Vec<String>)> {
    let found = walk(paths, options, catalog)?;
    Ok((found.files(), found.skipped))
}

fn read(
    paths: &[PathBuf],
    options: &ImportOptions,
    catalog: &Catalog,
    sink: &mut dyn ImportSink,
) -> Result<ImportReport> {
    let Found { hosts, logs, records, skipped } = walk(paths, options, catalog)?;
    let mut report = ImportReport { skipped, ..ImportReport::default() };
    let prefetch = Prefetch::new(hosts.values().map(|files| files.from.clone()).collect(), MOST);
    let mut importer = Importer { options, catalog, prefetch, sink, report: &mut report };
    for (place, (host, files)) in hosts.iter().enumerate() {
        importer.prefetch.reach(place);
        importer.host(host, files)?;
    }
    if !records.is_empty() {
        gather(&records, (options, catalog), &hosts, (sink, &mut report))?;
    }
    if !logs.is_empty() {
        replay(&logs, (options, catalog), &hosts, (sink, &mut report))?;
    }
    Ok(report)
}

struct Importer<'a> {
    options: &'a ImportOptions,
    catalog: &'a Catalog,
    prefetch: Prefetch,
    sink: &'a mut dyn ImportSink,
    report: &'a mut ImportReport,
}

impl Importer<'_> {
    fn host(&mut self, host: &str, files: &HostFiles) -> Result<()> {
        self.report.hosts += 1;
        self.sink.host(host)?;
        let mut answers = match &files.object {
            Some(path) => self.object(host, path)?,
            None => BTreeMap::new(),
        };
        for (table, reason) in &files.refused {
            let split = Split { complete: true, ..Split::default() };
            let refused =
                ImportAnswer { status: Status::Error, error: reason.clone(), ..answer(host, table, &split) };
            self.add(&mut answers, refused, reason);
        }
        for (path, table) in &files.foreign {
            let name = self.options.files.name(path);
            let split = Split { complete: true, ..Split::default() };
            self.report.problem(&name, || FOREIGN.to_owned());
            let error = format!("{name}: {FOREIGN}");
            let refused = ImportAnswer { status: Status::Error, error, ..answer(host, table, &split) };
            self.add(&mut answers, refused, &name);
        }
        for (table, paths) in &files.tables {
            for path in paths {
                let answer = self.table(host, table, path)?;
                self.add(&mut answers, answer, &self.options.files.name(path));
            }
            // At once, so that what is under way stays small.
            answers.remove(table).map_or(Ok(()), |answer| self.sink.answered(answer))?;
        }
        answers.into_values().try_for_each(|answer| self.sink.answered(answer))
    }

    /// Joins an answer with what other files say about the same table.
    fn add(&mut self, answers: &mut BTreeMap<String, ImportAnswer>, answer: ImportAnswer, source: &str) {
        let table = answer.table.clone();
        if let Some(note) = note_of_own_name(&table) {
            self.report.problem(source, || note);
        }
        let Some(first) = answers.get_mut(&table) else {
            answers.insert(table, answer);
            return;
        };
        self.report.problem(source, || {
            format!("`{table}` is there twice for `{}`; the rows of both are here", excerpt(&first.host))
        });
        first.join(answer);
    }

    /// One file of one table.
    fn table(&mut self, host: &str, table: &str, path: &Path) -> Result<ImportAnswer> {
        let name = self.options.files.name(path);
        let mut reader = match self.options.files.open_with(&self.prefetch, path) {
            Ok(reader) => reader,
            Err(error) => {
                let split = Split { complete: true, ..Split::default() };
                let answer = ImportAnswer { error: error.to_string(), ..answer(host, table, &split) };
                self.report.problem(&name, || error.to_string());
                return Ok(ImportAnswer { status: Status::Error, ..answer });
            }
        };
        let sink = &mut *self.sink;
        let split = split_rows(&mut *reader, &name, &self.options.limits, &mut |chunk| {
            sink.rows(host, table, chunk)
        })?;
        let answer = answer(host, table, &split);
        if split.arrays > 1 {
            self.report.problem(&name, || {
                format!("{} arrays in one file; all of them are read as `{table}`", split.arrays)
            });
        }
        self.count(split);
        Ok(answer)
    }

    /// One file with all tables of a host.
    fn object(&mut self, host: &str, path: &Path) -> Result<BTreeMap<String, ImportAnswer>> {
        let name = self.options.files.name(path);
        let mut reader = self.options.files.open_with(&self.prefetch, path)?;
        let (sink, options, catalog) = (&mut *self.sink, self.options, self.catalog);
        let table_of = |key: &str| mapped_table(key, &options.map, catalog);
        let (split, tables) = split_host(&mut *reader, &name, &options.limits, &mut |key, chunk| {
            sink.rows(host, &table_of(key), chunk)
        })?;
        let mut answers: BTreeMap<String, ImportAnswer> = BTreeMap::new();
        for part in tables {
            let table = table_of(&part.table);
            self.add(&mut answers, answer_of_part(host, &table, &part), &name);
        }
        self.count(split);
        Ok(answers)
    }

    fn count(&mut self, split: Split) {
        self.report.files += 1;
        self.report.rows += split.rows;
        self.report.bytes += split.bytes;
        self.report.absorb(split.problems, split.problems_total);
    }
}

impl ImportAnswer {
    /// Adds another answer for the same table; the worse status counts.
    pub(super) fn join(&mut self, other: Self) {
        let rank = |status| match status {
            Status::Empty => 0,
            Status::Ok => 1,
            Status::Truncated => 2,
            _ => 3,
        };
        if rank(other.status) > rank(self.status) {
            self.status = other.status;
        }
        if self.error.is_empty() {
            self.error = other.error;
        }
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.time = self.time.max(other.time);
        self.osquery_version = self.osquery_version.take().or(other.osquery_version);
    }
}

fn answer(host: &str, table: &str, split: &Split) -> ImportAnswer {
    let first = split.problems.first().map(ToString::to_string).unwrap_or_default();
    let nothing = split.rows == 0 && split.arrays == 0;
    let (status, error) = match split {
        Split { complete: false, .. } => (Status::Truncated, first),
        _ if nothing && first.is_empty() => (Status::Error, "empty file".to_owned()),
        _ if nothing || (split.rows == 0 && split.skipped > 0) => (Status::Error, first),
        _ if split.skipped > 0 => {
            (Status::Truncated, format!("{} rows could not be read; the first: {first}", split.skipped))
        }
        Split { rows: 0, .. } => (Status::Empty, first),
        _ => (Status::Ok, first),
    };
    ImportAnswer {
        host: host.to_owned(),
        table: table.to_owned(),
        status,
        rows: split.rows,
        bytes: split.bytes,
        error,
        time: None,
        osquery_version: None,
    }
}

fn answer_of_part(host: &str, table: &str, part: &TableSplit) -> ImportAnswer {
    let split = Split {
        rows: part.rows,
        skipped: part.skipped,
        bytes: part.bytes,
        arrays: u64::from(part.error.is_empty()),
        complete: part.complete,
        ..Split::default()
    };
    let answer = answer(host, table, &split);
    if part.error.is_empty() { answer } else { ImportAnswer { error: part.error.clone(), ..answer } }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Seen(Vec<String>);

    impl ImportSink for Seen {
        fn host(&mut self, host: &str) -> Result<()> {
            self.0.push(host.to_owned());
            Ok(())
        }

        fn rows(&mut self, host: &str, table: &str, chunk: Chunk) -> Result<()> {
            self.0.push(format!("{host}/{table} {}", chunk.json.replace(char::is_whitespace, "")));
            Ok(())
        }

        fn answered(&mut self, answer: ImportAnswer) -> Result<()> {
            let ImportAnswer { host, table, status, rows, error, .. } = answer;
            let error = error.rsplit('/').next().unwrap_or_default();
            self.0.push(format!("{host}/{table} {status} {rows} {error}").trim_end().to_owned());
            Ok(())
        }
    }

    fn run(root: &Path, paths: &[&str], options: &ImportOptions) -> Result<(Vec<String>, ImportReport)> {
        let mut seen = Seen::default();
        let paths: Vec<PathBuf> = paths.iter().map(|path| root.join(path)).collect();
        let report = import(&paths, options, &Catalog::builtin()?, &mut seen)?;
        Ok((seen.0, report))
    }

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn check(files: &[(&str, &str)], paths: &[&str], expect: &[&str]) -> ImportReport {
        let dir = tree(files);
        let (seen, report) = run(dir.path(), paths, &ImportOptions::default()).unwrap();
        assert_eq!(seen, expect, "{report:#?}");
        report
    }

    #[test]
    fn directories_of_hosts() {
        let report = check(
            &[
                ("f/web-1/a.json", r#"[{"x":"1"}]"#),
                ("f/web-1/b.json", "[]"),
                ("f/web-1/c.json", ""),
                ("f/web-1/d.json", r#"[{"x":"1"},{"#),
                ("f/web-1/e.json", "no such table: e"),
                ("f/web-1/g.json", r#"[{"x":"1"},{"y"}]"#),
                ("f/web-1/notes.txt", "hello"),
                ("f/web-1/deep/x.json", "[]"),
                ("f/web-2/.keep", ""),
                ("f/_old/a.json", "[]"),
                ("f/db-1.json", r#"{"a":[{"x":"2"}],"b":null}"#),
            ],
            &["f"],
            &[
                "db-1",
                r#"db-1/a [{"x":"2"}]"#,
                "db-1/a ok 1",
                "db-1/b error 0 expected an array of rows",
                "web-1",
                r#"web-1/a [{"x":"1"}]"#,
                "web-1/a ok 1",
                "web-1/b empty 0",
                "web-1/c error 0 empty file",
                r#"web-1/d [{"x":"1"}]"#,
                "web-1/d truncated 1 d.json:1:12: the input ends inside the row that starts here",
                "web-1/e error 0 e.json:1:1: expected an array of rows, found `no such table: e`",
                r#"web-1/g [{"x":"1"}]"#,
                "web-1/g truncated 1 g.json:1:16: this row is no JSON and is skipped: expected `:`",
                "web-2",
            ],
        );
        let skipped = report.skipped.join("\n");
        for part in ["notes.txt", "deep", ".keep", "_old"] {
            assert!(skipped.contains(part), "{skipped}");
        }
        assert_eq!((report.hosts, report.rows), (3, 4));
    }

    #[test]
    fn files_of_the_same_table_are_all_read() {
        let report = check(
            &[
                ("f/w/Users.json", r#"[{"x":"1"}]"#),
                ("f/w/users.json", r#"[{"x":"2"},{"x":"3"}]"#),
                ("f/w/hosts.json", r#"[{"x":"4"}]"#),
            ],
            &["f"],
            &[
                "w",
                r#"w/hosts_table [{"x":"4"}]"#,
                "w/hosts_table ok 1",
                r#"w/users [{"x":"1"}]"#,
                r#"w/users [{"x":"2"},{"x":"3"}]"#,
                "w/users ok 3",
            ],
        );
        let problems = report.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(problems.contains("`users` is there twice for `w`"), "{problems}");
        assert!(problems.contains("`hosts` is a table of Diffy's own"), "{problems}");
    }

    #[cfg(unix)]
    #[test]
    fn links_and_pipes_are_told_and_not_opened() {
        let dir = tree(&[("f/w/a.json", "[]"), ("secret.json", r#"[{"x":"1"}]"#)]);
        std::os::unix::fs::symlink(dir.path().join("secret.json"), dir.path().join("f/w/b.json")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("f/w"), dir.path().join("f/z")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("f/w/c.json")).unwrap();
        let (seen, report) = run(dir.path(), &["f"], &ImportOptions::default()).unwrap();
        let expect = [
            "w",
            "w/a empty 0",
            "w/b error 0 b.json: a symbolic link; links below a named path are not followed",
            "w/c error 0 c.json: neither a file nor a directory",
        ];
        assert_eq!(seen, expect);
        assert_eq!(report.skipped.len(), 3, "{:?}", report.skipped);
    }

    #[test]
    fn files_given_directly() {
        check(
            &[("web-1/a.json", r#"[{"x":"1"}]"#)],
            &["web-1/a.json"],
            &["web-1", r#"web-1/a [{"x":"1"}]"#, "web-1/a ok 1"],
        );
        check(
            &[("web-1/a.json", r#"[{"x":"1"}]"#)],
            &["web-1"],
            &["web-1", r#"web-1/a [{"x":"1"}]"#, "web-1/a ok 1"],
        );
        let dir = tree(&[("x/a.json", "[]")]);
        let options = ImportOptions { host: Some("db-9".to_owned()), ..ImportOptions::default() };
        assert_eq!(run(dir.path(), &["x/a.json"], &options).unwrap().0, ["db-9", "db-9/a empty 0"]);
    }

    #[test]
    fn what_cannot_be_is_refused_before_anything_is_read() {
        let dir = tree(&[("p/web-1/a.json", "[]"), ("q/web-1/a.json", "[]"), ("x.txt", "hello")]);
        let error =
            |paths: &[&str]| run(dir.path(), paths, &ImportOptions::default()).unwrap_err().to_string();
        let twice = error(&["p", "q"]);
        assert!(twice.contains("p/web-1") && twice.contains("q/web-1"), "{twice}");
        assert!(error(&["nowhere"]).contains("nowhere"));
        assert!(error(&["x.txt"]).contains("x.txt"));
    }

    const HEAD: &str = r#""hostIdentifier":"h","epoch":0"#;

    fn event(counter: u64, action: &str, x: &str) -> String {
        let time = 100 + counter;
        format!(
            r#"{{"name":"q",{HEAD},"unixTime":{time},"counter":{counter},"columns":{{"x":"{x}"}},"action":"{action}"}}"#
        )
    }

    fn check_log(lines: &[String], expect: &[&str]) -> ImportReport {
        check(&[("osqueryd.results.log", &lines.join("\n"))], &["osqueryd.results.log"], expect)
    }

    #[test]
    fn the_state_of_differentials_is_a_multiset() {
        let lines = [
            event(0, "added", "old"),
            event(0, "added", "twice"),
            event(0, "added", "twice"),
            event(1, "removed", "twice"),
            event(1, "removed", "old"),
            event(2, "added", r"caf\\xC3\\xA9"),
        ];
        let report = check_log(&lines, &["h", r#"h/q [{"x":"twice"},{"x":"café"}]"#, "h/q ok 2"]);
        assert_eq!(report.problems, []);
    }

    #[test]
    fn a_new_initial_result_replaces_what_was() {
        let mut second = event(0, "added", "new");
        second = second.replace(r#""unixTime":100"#, r#""unixTime":900"#);
        let lines = [event(0, "added", "old"), event(1, "added", "older"), second];
        let report = check_log(&lines, &["h", r#"h/q [{"x":"new"}]"#, "h/q ok 1"]);
        assert_eq!(report.superseded, 2);
    }

    #[test]
    fn changes_without_their_initial_result_are_not_whole() {
        check_log(
            &[event(4, "added", "a"), event(5, "removed", "b")],
            &[
                "h",
                r#"h/q [{"x":"a"}]"#,
                "h/q truncated 1 the logs hold changes but not the initial result (counter 0) before them",
            ],
        );
    }

    #[test]
    fn the_newest_snapshot_counts_and_bad_lines_are_reported() {
        let snapshot = |time: u64, rows: &str| {
            format!(r#"{{"snapshot":{rows},"action":"snapshot","name":"pack_p_q",{HEAD},"unixTime":{time}}}"#)
        };
        let lines = [
            snapshot(5, r#"[{"x":"1"}]"#),
            "I0105 10:00:00 glog".to_owned(),
            snapshot(9, r#"[{"x":"2"},{"x":"3"}]"#),
            snapshot(7, "[]"),
            r#"{"severity":0,"message":"m"}"#.to_owned(),
            r#"{"snapshot":["#.to_owned(),
        ];
        let lost =
            "h/q truncated 2 osqueryd.results.log` could not be read, and nobody knows whose they were";
        let report = check_log(&lines, &["h", r#"h/q [{"x":"2"},{"x":"3"}]"#, lost]);
        assert_eq!((report.superseded, report.status_lines, report.problems_total), (2, 1, 2));
        let problems: Vec<_> = report.problems.iter().map(|problem| problem.line).collect();
        assert_eq!(problems, [2, 6]);
    }

    #[test]
    fn rotated_logs_come_in_the_order_of_time() {
        let old = [event(0, "added", "a"), event(1, "added", "b")].join("\n");
        let new = [event(2, "removed", "a")].join("\n");
        let dir = tree(&[("log/osqueryd.results.log", &new)]);
        let packed = zstd::encode_all(old.as_bytes(), 1).unwrap();
        fs::write(dir.path().join("log/osqueryd.results.log.2.zst"), packed).unwrap();
        let (seen, _) = run(dir.path(), &["log"], &ImportOptions::default()).unwrap();
        assert_eq!(seen, ["h", r#"h/q [{"x":"b"}]"#, "h/q ok 1"]);
    }

    #[test]
    fn entries_after_the_time_asked_for_do_not_count() {
        let text = [event(0, "added", "a"), event(1, "removed", "a")].join("\n");
        let dir = tree(&[("x.log", &text)]);
        let options = ImportOptions { at: DateTime::from_timestamp(100, 0), ..ImportOptions::default() };
        let (seen, report) = run(dir.path(), &["x.log"], &options).unwrap();
        assert_eq!(seen, ["h", r#"h/q [{"x":"a"}]"#, "h/q ok 1"]);
        assert_eq!(report.later, 1);
    }

    #[test]
    fn rows_of_changes_that_are_none_make_the_answer_not_whole() {
        let broken = event(1, "added", "b").replace(r#"{"x":"b"}"#, "5");
        let report = check_log(
            &[event(0, "added", "a"), broken],
            &[
                "h",
                r#"h/q [{"x":"a"}]"#,
                "h/q truncated 1 expected a row, found `5`: invalid type: integer `5`, expected an object",
            ],
        );
        assert_eq!(report.problems_total, 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn arbitrary_files_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            text in r#"(\{"name":"q","hostname":"h","(snapshot|columns|diffResults)":(\[\{"a":"\\\\xC3"\},?\]|5|\{"added":\[\{\}\]\})(,"action":"(added|removed)")?\}\n?){0,5}"#,
        ) {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("x.json"), &bytes).unwrap();
            fs::write(dir.path().join("y.json"), &text).unwrap();
            for format in [
                None,
                Some(ImportFormat::Osqueryi),
                Some(ImportFormat::Osqueryd),
                Some(ImportFormat::Fleet),
                Some(ImportFormat::Velociraptor),
            ] {
                let options = ImportOptions { format, ..ImportOptions::default() };
                let _ = run(dir.path(), &["."], &options);
            }
        }
    }

    #[test]
    fn a_line_that_is_too_long_makes_the_hosts_of_its_log_not_whole() {
        let dir =
            tree(&[("x.log", &[event(0, "added", "a"), event(1, "added", &"b".repeat(500))].join("\n"))]);
        let limits = Limits { row_bytes: 300, ..Limits::default() };
        let options = ImportOptions { limits, ..ImportOptions::default() };
        let (seen, _) = run(dir.path(), &["x.log"], &options).unwrap();
        assert!(seen[2].starts_with("h/q truncated 1"), "{seen:?}");
    }

    const ROWS: &str = r#"[{"x":"1"}]"#;
    const FLEET: &str = r#"{"host":"web-1","rows":[{"x":"2"}]}"#;
    const CLIENT: &str = r#"{"X":"2","Fqdn":"web-1","ClientId":"C.1","FlowId":"F"}"#;

    fn log() -> String {
        event(0, "added", "2").replace(r#""hostIdentifier":"h""#, r#""hostIdentifier":"web-1""#)
    }

    #[test]
    fn what_a_host_prints_is_its_own() {
        // With others beside it, and alone: then the name of the table tells.
        for others in [&[("dump/web-1/users.json", ROWS)][..], &[]] {
            for text in [FLEET, CLIENT, &log(), "host_display_name,x\nweb-1,2\n"] {
                let files = [&[("dump/evil/users.json", text)][..], others].concat();
                let dir = tree(&files);
                let (seen, report) = run(dir.path(), &["dump"], &ImportOptions::default()).unwrap();
                assert_eq!(seen[0], "evil", "{text}");
                assert!(seen[1].starts_with("evil/users error 0"), "{seen:?}");
                let rest = if others.is_empty() { 0 } else { 3 };
                assert_eq!(seen.len() - 2, rest, "{seen:?}");
                assert!(rest == 0 || seen[4] == "web-1/users ok 1", "{seen:?}");
                assert_eq!(report.problems_total, 1, "{:?}", report.problems);
            }
        }
        // A table that no catalog knows.
        let files = [("d/a/own.json", ROWS), ("d/evil/own.json", FLEET), ("d/evil/users.json", "[]")];
        let report = check(
            &files,
            &["d"],
            &[
                "a",
                r#"a/own [{"x":"1"}]"#,
                "a/own ok 1",
                "evil",
                "evil/users empty 0",
                "evil/own error 0 own.json: in the directory of a host, and looks like what others say of many hosts; `--format`, or naming the file itself, imports it as that",
            ],
        );
        assert_eq!((report.hosts, report.problems_total), (2, 1));
        // The host's directory itself.
        let dir = tree(&files);
        let (seen, _) = run(dir.path(), &["d/evil"], &ImportOptions::default()).unwrap();
        assert_eq!((seen.len(), seen[0].as_str()), (3, "evil"));
    }

    #[test]
    fn directories_of_others_are_theirs() {
        let check = |files: &[(&str, &str)], format: Option<ImportFormat>| {
            let dir = tree(files);
            let options = ImportOptions { format, ..ImportOptions::default() };
            let (seen, report) = run(dir.path(), &["d"], &options).unwrap();
            assert_eq!((seen[0].as_str(), report.hosts, report.problems_total), ("web-1", 1, 0), "{seen:?}");
            assert!(seen[2].ends_with(" ok 1"), "{seen:?}");
        };
        check(&[("d/web-1/osqueryd.results.log", &log())], None);
        check(&[("d/logs/results.json", &log())], None);
        check(&[("d/users.json", FLEET)], None);
        check(&[("d/monday/Who is here.json", FLEET)], None);
        check(&[("d/monday/users.json", FLEET)], Some(ImportFormat::Fleet));
        check(&[("d/hunt/Linux.Sys.Users.json", CLIENT)], None);
        // Logs beside a host's own files, as ever.
        let dir = tree(&[("d/a/users.json", ROWS), ("d/b/osqueryd.results.log", &log())]);
        let (seen, _) = run(dir.path(), &["d"], &ImportOptions::default()).unwrap();
        assert!(seen.contains(&"web-1/q ok 1".to_owned()), "{seen:?}");
    }

    #[test]
    fn rows_of_a_client_are_its_own_whatever_they_say() {
        let info = r#"{"client_id":"C.2","fqdn":"evil"}"#;
        for (files, host) in [
            (&[("d/client_info.json", info), ("d/results/Linux.Sys.Users.json", CLIENT)][..], "evil"),
            (
                &[
                    ("d/hunt_info.json", "{}"),
                    ("d/results/.keep", ""),
                    ("d/evil-C.2/client_info.json", info),
                    ("d/evil-C.2/results/Linux.Sys.Users.json", CLIENT),
                ],
                "evil",
            ),
            (&[("d/evil-C.2/Linux.Sys.Users.json", CLIENT)], "evil-C.2"),
            (
                &[("d/evil-C.2/Linux.Sys.Users.json", r#"{"host":"web-1","error":"x","Fqdn":"web-1"}"#)],
                "evil-C.2",
            ),
        ] {
            let dir = tree(files);
            let (seen, report) = run(dir.path(), &["d"], &ImportOptions::default()).unwrap();
            assert_eq!(
                (seen[0].as_str(), seen.len(), report.problems_total),
                (host, 3, 1),
                "{seen:?} {report:?}"
            );
        }
        let own = CLIENT.replace("web-1", "evil").replace("C.1", "C.2");
        let dir = tree(&[("d/client_info.json", info), ("d/results/Linux.Sys.Users.json", &own)]);
        let (seen, report) = run(dir.path(), &["d"], &ImportOptions::default()).unwrap();
        assert_eq!((seen[0].as_str(), report.problems_total), ("evil", 0), "{report:?}");
    }

    #[test]
    fn an_empty_batch_result_is_an_answer() {
        let lines = [
            format!(
                r#"{{"diffResults":{{"added":[{{"x":"1"}}],"removed":""}},"name":"q",{HEAD},"unixTime":1,"counter":0}}"#
            ),
            format!(
                r#"{{"diffResults":{{"added":[],"removed":[{{"x":"1"}}]}},"name":"q",{HEAD},"unixTime":2,"counter":1}}"#
            ),
        ];
        check_log(&lines, &["h", "h/q empty 0"]);
    }
}
