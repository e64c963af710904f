//! What the tests stand on: a place of their own to run `diffy` in, fleets to import, and Python.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock};

use diffy::catalog::Catalog;
use diffy::collect::{Answer, Collector};
use diffy::simulate::{Base, Simulation, SimulationConfig, Truth};
use regex::Regex;
use serde_json::Value;
use tempfile::TempDir;

/// Requests by kind, as `-v` tells them.
#[track_caller]
pub(crate) fn requests(stderr: &str) -> BTreeMap<String, u64> {
    let line = stderr.lines().find_map(|line| Some(line.split_once("requests: ")?.1));
    let line = line.unwrap_or_else(|| panic!("no requests in {stderr}"));
    let mut counts: BTreeMap<String, u64> =
        ["GET", "HEAD", "LIST", "PUT", "DELETE"].map(|kind| (kind.to_owned(), 0)).into();
    for part in line.split(", ") {
        let mut words = part.split(' ');
        let count = words.next().unwrap().parse().unwrap();
        counts.insert(words.next().unwrap().to_owned(), count);
    }
    counts
}

/// How a run of `diffy` ended.
#[derive(Debug)]
pub(crate) struct Output {
    /// The exit status; -1 when a signal ended it.
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A directory of its own, with a home and an otherwise empty environment; gone when dropped.
#[derive(Debug)]
pub(crate) struct TestEnv {
    dir: TempDir,
}

impl TestEnv {
    pub(crate) fn new() -> Self {
        let dir = TempDir::with_prefix("diffy-test-").unwrap();
        fs::create_dir_all(dir.path().join("home")).unwrap();
        Self { dir }
    }

    /// A path below the directory that commands run in.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The store of commands that name none.
    pub(crate) fn store(&self) -> PathBuf {
        self.path("diffy-store")
    }

    /// Writes a file, with its folders.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// `program`, about to run here, without stdin.
    #[expect(clippy::disallowed_methods, reason = "tests start programs")]
    pub(crate) fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", self.path("home"))
            .env("XDG_STATE_HOME", self.path("home/state"))
            .env("XDG_CONFIG_HOME", self.path("home/config"))
            .env("TMPDIR", self.dir.path())
            .env("USER", "tester")
            .env("COLUMNS", "120")
            .env("NO_COLOR", "1")
            .env("TZ", "UTC")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// `diffy` with these arguments, about to run here.
    pub(crate) fn diffy(&self, args: &[&str]) -> Command {
        let mut command = self.program(DIFFY);
        command.args(args);
        command
    }

    /// Runs `diffy`.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        finish(self.diffy(args))
    }

    /// Runs `diffy` with these variables set.
    pub(crate) fn run_with(&self, args: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut command = self.diffy(args);
        command.envs(variables.iter().copied());
        finish(command)
    }

    /// Runs `diffy` with this on stdin.
    pub(crate) fn run_with_stdin(&self, args: &[&str], stdin: &[u8]) -> Output {
        let mut command = self.diffy(args);
        command.stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // What does not read its stdin closes it: no failure here.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        output(child.wait_with_output().unwrap())
    }

    /// Runs a line of `sh`, in which `$DIFFY` is the program.
    pub(crate) fn sh(&self, line: &str) -> Output {
        let mut command = self.program("sh");
        command.args(["-c", line]).env("DIFFY", DIFFY);
        finish(command)
    }

    /// Runs `diffy`, which must succeed, and returns its stdout.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status, 0, "diffy {args:?}\n{}\n{}", output.stdout, output.stderr);
        output.stdout
    }

    /// Runs `diffy`, which must end with `status`, and returns its stderr.
    #[track_caller]
    pub(crate) fn fails(&self, args: &[&str], status: i32) -> String {
        let output = self.run(args);
        assert_eq!(output.status, status, "diffy {args:?}\n{}\n{}", output.stdout, output.stderr);
        assert!(!output.stderr.contains("panicked"), "diffy {args:?}\n{}", output.stderr);
        output.stderr
    }

    /// Runs `diffy`, which must succeed, and parses its stdout as JSON.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let stdout = self.ok(args);
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
    }

    /// The rows that `sql` answers with.
    #[track_caller]
    pub(crate) fn query(&self, sql: &str) -> Vec<Value> {
        let rows = self.json(&["query", "--format", "json", sql]);
        rows.as_array().unwrap_or_else(|| panic!("no array: {rows}")).clone()
    }

    /// The one value that `sql` answers with.
    #[track_caller]
    pub(crate) fn query_one(&self, sql: &str) -> Value {
        let rows = self.query(sql);
        let [Value::Object(row)] = rows.as_slice() else { panic!("{sql}: {rows:?}") };
        row.values().next().unwrap().clone()
    }

    /// Makes a snapshot of simulated hosts as fleet `web`, and returns its id.
    #[track_caller]
    pub(crate) fn import_fleet(&self, hosts: usize, compromised: usize, seed: u64) -> String {
        let dir = self.path(format!("fleet-{hosts}-{compromised}-{seed}"));
        write_simulation(&dir, SimulationConfig::new(hosts, compromised, seed));
        self.import(&dir, &["--fleet", "web"])
    }

    /// Makes a snapshot of hand-written tables as fleet `web`, and returns its id.
    #[track_caller]
    pub(crate) fn import_tables(&self, tables: &[(&str, &str, Value)]) -> String {
        let dir = TempDir::new_in(self.dir.path()).unwrap();
        write_tables(dir.path(), tables);
        self.import(dir.path(), &["--fleet", "web"])
    }

    /// Imports `path`, which must succeed, and returns the id of the snapshot.
    #[track_caller]
    pub(crate) fn import(&self, path: &Path, args: &[&str]) -> String {
        let args = [&["import", path.to_str().unwrap()], args].concat();
        snapshot_id(&self.ok(&args))
    }

    /// `text` without what differs from run to run: this directory, ids, times, sizes, versions.
    pub(crate) fn scrub(&self, text: &str) -> String {
        static FILTERS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
            [
                (r"\b[0-7][0-9A-HJKMNP-TV-Z]{25}\b", "[ID]"),
                (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?", "[TIME]"),
                (r"\b\d{4}-\d\d-\d\d\b", "[DATE]"),
                (r"\b[\d.]+ ([KMG]i)?B\b", "[BYTES]"),
                (r"\b[0-9a-f]{64}\b", "[DIGEST]"),
                (r"tester@\S+", "tester@[MACHINE]"),
                (concat!(r"\b", env!("CARGO_PKG_VERSION"), r"\b"), "[VERSION]"),
            ]
            .map(|(pattern, with)| (Regex::new(pattern).unwrap(), with))
            .into()
        });
        let text = text.replace(self.dir.path().to_str().unwrap(), "[DIR]");
        FILTERS.iter().fold(text, |text, (pattern, with)| pattern.replace_all(&text, *with).into_owned())
    }
}

/// The built program.
pub(crate) const DIFFY: &str = env!("CARGO_BIN_EXE_diffy");

pub(crate) fn finish(mut command: Command) -> Output {
    output(command.output().unwrap())
}

/// What a finished program left, as text.
pub(crate) fn output(output: std::process::Output) -> Output {
    Output {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Sends what Ctrl-C sends, and waits for the end.
pub(crate) fn interrupt(child: std::process::Child) -> Output {
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let reader = std::thread::spawn(|| output(child.wait_with_output().unwrap()));
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while !reader.is_finished() {
        assert!(std::time::Instant::now() < patience, "it does not end");
        std::thread::yield_now();
    }
    reader.join().unwrap()
}

/// The snapshot that `collect` and `import` say they made.
#[track_caller]
pub(crate) fn snapshot_id(stdout: &str) -> String {
    let line = stdout.lines().find_map(|line| line.strip_prefix("snapshot"));
    line.unwrap_or_else(|| panic!("no snapshot in {stdout}")).trim().to_owned()
}

/// Writes a clean simulated fleet as `HOST/TABLE.json`; the same seed makes the same bytes.
pub(crate) fn write_fleet(dir: &Path, hosts: usize, seed: u64) {
    write_simulation(dir, SimulationConfig::new(hosts, 0, seed));
}

/// Writes a simulated fleet as `HOST/TABLE.json`, and returns what was planted. Hosts and tables without an answer
/// have no file.
pub(crate) fn write_simulation(dir: &Path, config: SimulationConfig) -> Truth {
    let simulation = Arc::new(Simulation::new(config, Base::bundled()).unwrap());
    let catalog = Catalog::builtin().unwrap();
    let tables: Vec<_> = catalog.tables().cloned().collect();
    let collector = Arc::clone(&simulation).collector();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for host in simulation.hosts() {
        let (send, receive) = tokio::sync::mpsc::channel(tables.len());
        runtime.block_on(collector.collect(&host, &tables, send));
        write_answers(&dir.join(&host), receive);
    }
    simulation.truth().clone()
}

fn write_answers(dir: &Path, mut answers: tokio::sync::mpsc::Receiver<Answer>) {
    fs::create_dir_all(dir).unwrap();
    while let Ok(answer) = answers.try_recv() {
        if !answer.json.is_empty() {
            fs::write(dir.join(format!("{}.json", answer.table)), &answer.json).unwrap();
        }
    }
}

/// Writes hand-written tables as `HOST/TABLE.json`: host, table, array of rows.
pub(crate) fn write_tables(dir: &Path, tables: &[(&str, &str, Value)]) {
    for (host, table, rows) in tables {
        let dir = dir.join(host);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("{table}.json")), rows.to_string()).unwrap();
    }
}

/// The root of the source tree.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A Python with what `tests/requirements.txt` names; `tests/setup` makes it on first use.
///
/// # Panics
/// It cannot be made: whatever needs it was not tested, which must not look like success.
pub(crate) fn python() -> &'static Path {
    static PYTHON: LazyLock<PathBuf> = LazyLock::new(set_up_python);
    &PYTHON
}

#[expect(clippy::disallowed_methods, reason = "tests start programs")]
fn set_up_python() -> PathBuf {
    // <target>/tmp, made by cargo.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    // Two runs of the tests may share a target directory.
    let lock = fs::File::create(target.join("test-venv.lock")).unwrap();
    lock.lock().unwrap();
    let setup = Command::new(root().join("tests/setup"))
        .env("CARGO_TARGET_DIR", target)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot run tests/setup: {error}"));
    assert!(setup.status.success(), "tests/setup failed:\n{}", String::from_utf8_lossy(&setup.stderr));
    target.join("test-venv/bin/python")
}

/// Has these programs of Debian on `PATH`: `tests/setup-debian` installs what is missing.
///
/// # Panics
/// They cannot be had: whatever needs them was not tested, which must not look like success.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "tests start programs")]
pub(crate) fn set_up_debian(programs: &[&str]) {
    let setup = Command::new(root().join("tests/setup-debian")).args(programs).stdin(Stdio::null()).output();
    let setup = setup.unwrap_or_else(|error| panic!("cannot run tests/setup-debian: {error}"));
    assert!(setup.status.success(), "tests/setup-debian failed:\n{}", String::from_utf8_lossy(&setup.stderr));
}

/// Runs a Python program with these arguments, which must succeed, and returns its stdout.
#[track_caller]
pub(crate) fn run_python(env: &TestEnv, program: &str, args: &[&str]) -> String {
    let mut command = env.program(python());
    command.arg("-c").arg(program).args(args);
    let output = finish(command);
    assert_eq!(output.status, 0, "{}\n{}", output.stdout, output.stderr);
    output.stdout
}

#[test]
fn the_same_seed_writes_the_same_fleet() {
    let env = TestEnv::new();
    write_fleet(&env.path("a"), 2, 1);
    write_fleet(&env.path("b"), 2, 1);
    let diff = env.program("diff").args(["-r", "a", "b"]).output().unwrap();
    assert!(diff.status.success(), "{diff:?}");
    assert!(fs::read_dir(env.path("a")).unwrap().count() == 2);
}

#[test]
fn python_has_duckdb() {
    let env = TestEnv::new();
    assert_eq!(run_python(&env, "import duckdb; print(duckdb.sql('select 6*7').fetchone()[0])", &[]), "42\n");
}
