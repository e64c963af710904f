//! A scheduler and two executors as processes: the same questions have the same answers as here, also when an executor
//! dies in the middle of one.
//!
//! Nodes listen on free ports of the loopback device, and die with the test however it ends: a shell that waits for
//! its stdin to close kills each.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::env::{DIFFY, Output, TestEnv, output};
use crate::kill::files;
use crate::s3::weed::OnS3;

/// What a test waits for another process at most.
const DEADLINE: Duration = Duration::from_secs(240);

/// A node of a cluster.
struct Node {
    /// The shell that kills the node when its stdin closes.
    shell: Child,
    pid: rustix::process::Pid,
    /// `HOST:PORT`.
    address: String,
    stderr: BufReader<ChildStderr>,
}

impl Node {
    /// Starts `diffy cluster …`, and waits until it listens.
    fn start(env: &TestEnv, args: &[&str], variables: &[(String, String)]) -> Self {
        let mut command = env.program("sh");
        let script =
            r#""$DIFFY" cluster "$@" </dev/null & exec 2>/dev/null; echo $!; cat; kill -KILL $! 2>/dev/null"#;
        command.args(["-c", script, "sh"]).args(args).env("DIFFY", DIFFY).stdin(Stdio::piped());
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        let mut shell = command.spawn().unwrap();
        let mut pid = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut pid).unwrap();
        let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        let mut stderr = BufReader::new(shell.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains(" at ") {
            line.clear();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "{args:?} ended");
        }
        let address = line.split(" at ").nth(1).unwrap().split([',', '\n']).next().unwrap().to_owned();
        Self { shell, pid, address, stderr }
    }

    fn kill(&self) {
        rustix::process::kill_process(self.pid, rustix::process::Signal::KILL).unwrap();
    }

    /// Ends the node as `systemd` does, and waits until it is gone: nobody else holds its stderr.
    fn stop(&mut self) {
        rustix::process::kill_process(self.pid, rustix::process::Signal::TERM).unwrap();
        self.stderr.read_to_string(&mut String::new()).unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// A scheduler and two executors of one core.
struct Cluster {
    _scheduler: Node,
    executors: [Node; 2],
    /// Where the executors keep what they made.
    work: [PathBuf; 2],
    engine: String,
}

impl Cluster {
    fn start(env: &TestEnv, variables: &[(String, String)]) -> Self {
        let scheduler = Node::start(env, &["scheduler", "--bind", "127.0.0.1:0"], variables);
        let work = ["one", "two"].map(|name| env.path(name));
        let executors = work.each_ref().map(|work| {
            let work = work.to_str().unwrap();
            let bind = ["--bind", "127.0.0.1:0", "--cores", "1", "--work-dir", work];
            Node::start(
                env,
                &[&["executor", "--scheduler", &scheduler.address], &bind[..]].concat(),
                variables,
            )
        });
        let engine = format!("ballista://{}?partitions=4", scheduler.address);
        Self { _scheduler: scheduler, executors, work, engine }
    }
}

/// Rows in an order of their own: without ORDER BY there is none.
#[track_caller]
fn sorted(output: &Output) -> Vec<String> {
    assert_eq!(output.status, 0, "{}", output.stderr);
    let rows: Vec<Value> = serde_json::from_str(&output.stdout).unwrap();
    let mut rows: Vec<String> = rows.iter().map(ToString::to_string).collect();
    rows.sort_unstable();
    rows
}

/// A store of 60 simulated hosts, in two snapshots.
fn store() -> TestEnv {
    let env = TestEnv::new();
    for seed in [1, 2] {
        env.import_fleet(60, 3, seed);
    }
    env
}

/// Two tables, a window over them, and all that they have in common.
const JOIN: &str = "SELECT p.host, p.name, l.port, l.address, count(*) OVER (PARTITION BY l.port) AS alike \
    FROM current.listening_ports l JOIN current.processes p ON p.host = l.host AND p.pid = l.pid";

/// So much work that it is under way for seconds.
const LONG: &str = "SELECT a.name, count(*) AS pairs, count(DISTINCT b.host) AS hosts, bitmap_count(bitmap_or(c.members)) \
    FROM processes a JOIN processes b ON a.name = b.name AND a.snapshot = b.snapshot \
    LEFT JOIN prev.processes c ON c.strict_id = a.strict_id AND c.snapshot = a.snapshot \
    GROUP BY a.name";

#[test]
fn the_answers_are_those_of_this_machine() {
    let env = store();
    let cluster = Cluster::start(&env, &[]);
    let questions: [&[&str]; 8] = [
        &["--name", "rows_on_few_hosts", "--param", "max_percent=5"],
        &["--name", "first_seen"],
        &["--name", "rare_rows", "--param", "max_hosts=2"],
        &[
            "SELECT table_name, count(*) AS n, bitmap_count(bitmap_or(members)) AS hosts FROM prevalence GROUP BY table_name",
        ],
        &[JOIN],
        &["SELECT host, count(*) AS n FROM processes GROUP BY host ORDER BY n DESC, host LIMIT 7"],
        &[
            "SELECT count(*) AS n FROM current.hosts WHERE host NOT IN (SELECT host FROM current.listening_ports WHERE port = 22)",
        ],
        &["SELECT (SELECT max(pid) FROM processes) AS pid, count(*) AS n FROM snapshots"],
    ];
    for question in questions {
        let asked =
            |engine: &str| env.run(&[&["query", "--format", "json", "--engine", engine], question].concat());
        let (here, there) = (sorted(&asked("local")), sorted(&asked(&cluster.engine)));
        assert!(!here.is_empty(), "{question:?}");
        assert_eq!(here, there, "{question:?}");
    }
    let made = |work: &PathBuf| files(work).iter().any(|file| file.is_file());
    assert!(cluster.work.iter().any(made), "no executor made anything");
}

#[test]
fn analysis_and_proof_of_prevalence_are_those_of_this_machine() {
    let env = TestEnv::new();
    env.import_fleet(12, 1, 3);
    let cluster = Cluster::start(&env, &[]);
    for command in [
        &["snapshot", "verify", "--prevalence"][..],
        &["analyze", "--format", "json", "--from-rows", "--tables", "processes,crontab,listening_ports"],
    ] {
        let run = |engine: &str| env.ok(&[command, &["--engine", engine]].concat());
        assert_eq!(run("local"), run(&cluster.engine), "{command:?}");
    }
}

#[test]
fn what_reads_no_row_is_answered_here_and_mistakes_are_told() {
    let env = store();
    let cluster = Cluster::start(&env, &[]);
    let ask = |sql: &str| env.run(&["query", "--format", "json", "--engine", &cluster.engine, sql]);
    assert_eq!(ask("SHOW TABLES").status, 0);
    assert!(ask("EXPLAIN SELECT host FROM processes").stdout.contains("DataSourceExec"));
    let told = ask("EXPLAIN ANALYZE SELECT host FROM processes");
    assert!(told.status != 0 && told.stderr.contains("without a cluster"), "{}", told.stderr);
    let told = ask("SELECT host FROM proceses");
    assert!(told.stderr.contains("did you mean `processes`?"), "{}", told.stderr);
    let told = ask("SELECT id(host) FROM processes");
    assert!(told.status != 0 && told.stderr.contains("hex digits"), "{}", told.stderr);
    let other = TestEnv::new();
    other.import_fleet(2, 0, 1);
    let told = other.run(&["query", "--engine", &cluster.engine, "SELECT name FROM processes"]);
    assert!(told.status != 0 && told.stderr.contains("another store"), "{}", told.stderr);
}

#[test]
fn an_executor_that_dies_in_the_middle_does_not_change_the_answer() {
    let env = store();
    let here = sorted(&env.run(&["query", "--format", "json", LONG]));
    let cluster = Cluster::start(&env, &[]);
    let mut question = env.diffy(&["query", "--format", "json", "--engine", &cluster.engine, LONG]);
    let mut question = question.spawn().unwrap();
    let died = Instant::now() + DEADLINE;
    // It has made something that others will want.
    while files(&cluster.work[0]).is_empty() {
        assert!(question.try_wait().unwrap().is_none(), "the query ended before anything was made");
        assert!(Instant::now() < died, "the first executor got no work");
        std::thread::sleep(Duration::from_millis(1));
    }
    cluster.executors[0].kill();
    assert!(question.try_wait().unwrap().is_none(), "the query was over already");
    let there = output(question.wait_with_output().unwrap());
    assert_eq!(here, sorted(&there));
}

#[test]
fn an_executor_that_stops_leaves_what_is_not_its_own() {
    let env = TestEnv::new();
    env.import_fleet(3, 0, 1);
    env.write("one/diffy-store/evidence", "precious");
    let mut cluster = Cluster::start(&env, &[]);
    let ask = |engine: &str| env.run(&["query", "--format", "json", "--engine", engine, JOIN]);
    assert_eq!(sorted(&ask("local")), sorted(&ask(&cluster.engine)));
    cluster.executors.iter_mut().for_each(Node::stop);
    assert_eq!(files(&cluster.work[0]), [env.path("one/diffy-store/evidence")]);
    assert_eq!(std::fs::read_dir(&cluster.work[1]).unwrap().count(), 0, "its own is gone");
}

#[test]
fn nodes_reach_a_store_on_s3_as_everything_else_does() {
    let s3 = OnS3::new("cluster");
    s3.ok(&["demo", "--bundled", "--hosts", "12", "--store", &s3.store]);
    let cluster = Cluster::start(&s3.env, s3.variables());
    let ask = |engine: &str| s3.run(&["query", "--format", "json", "--engine", engine, JOIN]);
    assert_eq!(sorted(&ask("local")), sorted(&ask(&cluster.engine)));
}
