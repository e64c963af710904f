//! `diffy collect` from Auto Scaling Groups through Systems Manager into S3, on the bench.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use diffy::catalog::Catalog;
use diffy::simulate::SimulationConfig;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::bench::{Bench, BenchConfig, SECRET_KEY, instance_ids};
use crate::env::{Output, TestEnv, finish, interrupt, root, snapshot_id};
use crate::s3::weed::{WRITER, place, weed};

/// Pauses and rates of a test: the bench answers at once.
const CONFIG: &str = "[aws]\npoll_ms = 200\ncommands_per_second = 100\n";

/// A bench, and a place to run `diffy` in that sees nothing but it.
struct Account {
    env: TestEnv,
    bench: Bench,
}

impl Account {
    fn new(config: BenchConfig) -> Self {
        let env = TestEnv::new();
        env.write("diffy.toml", CONFIG);
        Self { env, bench: Bench::start(config) }
    }

    fn store(&self) -> String {
        format!("s3://{}/triage", self.bench.bucket())
    }

    /// Runs `diffy` on the store in the bench's bucket.
    fn run(&self, args: &[&str]) -> Output {
        let mut command = self.env.diffy(args);
        command.envs(self.bench.env()).env("DIFFY_STORE", self.store());
        finish(command)
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> Output {
        let output = self.run(args);
        assert_eq!(output.status, 0, "diffy {args:?}\n{}\n{}", output.stdout, output.stderr);
        output
    }

    #[track_caller]
    fn fails(&self, args: &[&str], status: i32) -> String {
        let output = self.run(args);
        assert_eq!(output.status, status, "diffy {args:?}\n{}\n{}", output.stdout, output.stderr);
        assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
        output.stderr
    }

    #[track_caller]
    fn query(&self, sql: &str) -> Vec<Value> {
        let output = self.ok(&["query", "--format", "json", sql]);
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", output.stdout))
    }

    /// Statuses and first error of each host that has a table without a full answer.
    fn troubled(&self) -> BTreeMap<String, (String, String)> {
        let rows = self.query(
            "SELECT host, min(status) AS status, min(error) AS error FROM coverage \
             WHERE status NOT IN ('ok', 'empty', 'not_supported') OR error LIKE 'the host has no osquery%' GROUP BY host",
        );
        let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
        rows.iter().map(|row| (text(row, "host"), (text(row, "status"), text(row, "error")))).collect()
    }
}

/// A few hosts that answer two tables.
fn small(hosts: usize) -> (BenchConfig, Vec<String>) {
    let ids = instance_ids(hosts);
    let mut config = BenchConfig::new();
    config.group("web", &ids);
    ids.iter().for_each(|id| answer(&config, id));
    (config, ids)
}

/// Lets a host answer two tables.
fn answer(config: &BenchConfig, id: &str) {
    let dir = config.answers().join(id);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("users.json"), r#"[{"username":"root","uid":"0","shell":"/bin/sh"}]"#).unwrap();
    std::fs::write(dir.join("uptime.json"), r#"[{"days":"1","total_seconds":"86400"}]"#).unwrap();
}

const TABLES: [&str; 2] = ["--tables", "users,uptime"];

/// What becomes of a host with each behaviour: status, and words of the error.
const FATES: [(&str, &str, &str); 18] = [
    ("timed_out", "timeout", "time limit"),
    ("vanish", "undeliverable", "went away"),
    ("no_agent", "undeliverable", "no agent"),
    ("lost", "undeliverable", "not connected"),
    ("no_osquery", "not_supported", "no osquery"),
    ("bad_gzip", "error", "invalid gzip"),
    ("zip_bomb", "error", "is longer than"),
    ("wrong_object", "error", "the host announced"),
    ("wrong_digest", "error", "another sha256"),
    ("no_end", "error", "cut before its end"),
    ("huge_claim", "error", "8589934592 bytes is too large"),
    ("stdout_flood", "error", "no head"),
    ("bad_frames", "error", "begins no answer"),
    ("echo_other", "error", "nonce is not ours"),
    ("undelivered", "undeliverable", "not delivered"),
    // These answer in full, and are told of in the warnings.
    ("other_name", "", "answers under the name"),
    ("bad_id", "", "answers under the name"),
    ("clock", "", "clock of host"),
];

/// Two or three of a hundred of each kind of trouble, and one intruder.
#[test]
#[expect(clippy::print_stdout, reason = "what it took is shown by `cargo test -- --nocapture`")]
fn a_group_of_two_hundred_is_collected_whatever_its_hosts_do() {
    let mut config = BenchConfig::new();
    let truth = config.simulate("web", SimulationConfig::new(200, 1, 4));
    let ids = config.hosts("web");
    let planted = ids.iter().find(|id| truth.is_compromised(id)).unwrap().clone();
    let mut clean = ids.iter().filter(|id| **id != planted);
    let mut kinds: BTreeMap<String, &str> = BTreeMap::new();
    let many = ["timed_out", "vanish", "no_agent", "no_osquery"];
    for (kind, ..) in FATES {
        for _ in 0..if many.contains(&kind) { 5 } else { 1 } {
            kinds.insert(clean.next().unwrap().clone(), kind);
        }
    }
    for kind in ["delayed", "stderr_flood", "scale_in"] {
        for _ in 0..4 {
            kinds.insert(clean.next().unwrap().clone(), kind);
        }
    }
    for (id, kind) in &kinds {
        let behaviour = match *kind {
            "timed_out" => json!({"kind": kind, "after": 2}),
            "delayed" => json!({"kind": kind, "seconds": 3}),
            _ => json!(kind),
        };
        config.behave(id, behaviour);
    }
    config.set("time_scale", json!(0.05)).set("visible_after", json!(0.3));
    let account = Account::new(config);

    let start = Instant::now();
    let output =
        account.ok(&["collect", "--targets", "asg:web", "--incident", "IR-1", "--delivery-timeout", "60"]);
    let took = start.elapsed();
    println!("{}\n{}\ntook {took:.1?}", output.stdout, output.stderr);
    for (action, calls) in account.bench.calls() {
        println!("{action:<36} {:>5} calls, {:.2} a host", calls.calls, calls.calls as f64 / 200.0);
    }
    assert!(output.stdout.contains("hosts     200 asked"), "{}", output.stdout);

    let tables = Catalog::builtin().unwrap().tables().filter(|table| table.default).count();
    let troubled = account.troubled();
    let mut wrong = Vec::new();
    for (id, kind) in &kinds {
        let Some((_, status, words)) = FATES.iter().find(|(name, ..)| name == kind) else {
            wrong.extend(troubled.get(id).map(|fate| format!("{kind}: {fate:?}")));
            continue;
        };
        if status.is_empty() {
            let is_told =
                output.stderr.lines().any(|line| line.contains(words) && line.contains(id.as_str()));
            if !is_told || troubled.contains_key(id) {
                wrong.push(format!("{kind}: told {is_told}, {:?}", troubled.get(id)));
            }
            continue;
        }
        let fate = troubled.get(id).cloned().unwrap_or_default();
        if fate.0 != *status || !fate.1.contains(words) || fate.1.is_empty() {
            wrong.push(format!("{kind}: {fate:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let doubled = account.query(
        "SELECT host, table_name FROM coverage GROUP BY host, table_name HAVING count(*) <> 1 LIMIT 3",
    );
    assert!(doubled.is_empty(), "{doubled:?}");
    let lines = account.query("SELECT count(*) AS n, count(DISTINCT host) AS hosts FROM coverage");
    assert_eq!((&lines[0]["n"], &lines[0]["hosts"]), (&json!(200 * tables), &json!(200)));
    assert!(output.stdout.contains("200 asked, 168 answered, 32 failed"), "{}", output.stdout);
    let strangers: Vec<_> = troubled.iter().filter(|(id, _)| !kinds.contains_key(*id)).collect();
    assert!(strangers.is_empty(), "{strangers:?}");
    assert!(output.stderr.contains("left their group during the collection"), "{}", output.stderr);

    let analysis: Value =
        serde_json::from_str(&account.ok(&["analyze", "--fleet", "web", "--format", "json"]).stdout).unwrap();
    assert_eq!(analysis["hosts_total"], 200);
    assert_eq!(analysis["hosts"][0]["host"], planted.as_str(), "{}", analysis["hosts"][0]);
    let snapshot = snapshot_id(&output.stdout);
    let verified = account.ok(&["snapshot", "verify", &snapshot]);
    assert!(verified.stdout.contains("ok"), "{}", verified.stdout);
    let lifecycle = account.query("SELECT DISTINCT lifecycle FROM hosts");
    assert_eq!(lifecycle[0]["lifecycle"], "InService");
}

/// Rows and coverage of the newest snapshot without what differs between two collections of the same hosts.
fn content(account: &Account) -> (Vec<Value>, Vec<Value>) {
    let rows = account.query(
        "SELECT table_name, hex_id(strict_id) AS id, hosts FROM current.prevalence ORDER BY table_name, id, hosts",
    );
    let coverage = account.query(
        "SELECT host, table_name, status, rows, error FROM current.coverage ORDER BY host, table_name",
    );
    (rows, coverage)
}

#[test]
fn calls_that_fail_make_no_difference() {
    let snapshot = |faults: &[Value]| {
        let mut config = BenchConfig::new();
        config.simulate("web", SimulationConfig::new(40, 1, 4));
        let ids = config.hosts("web");
        config.behave(&ids[7], json!("no_agent")).behave(&ids[8], json!("no_osquery"));
        config.set("visible_after_calls", json!(1));
        faults.iter().for_each(|rule| {
            config.fault(rule.clone());
        });
        let account = Account::new(config);
        account.ok(&["collect", "--targets", "asg:web"]);
        let refused: u64 = account.bench.calls().values().flat_map(|calls| calls.refused.values()).sum();
        let commands = account.bench.sent()["commands"].as_array().unwrap().len();
        (content(&account), refused, commands)
    };
    let (calm, none, _) = snapshot(&[]);
    let faults = [
        json!({"action": "ssm:*", "kind": "throttle", "every": 10}),
        json!({"action": "autoscaling:*", "kind": "throttle", "every": 2}),
        json!({"action": "ssm:*", "kind": "error", "every": 11}),
        // These are carried out, and only their answer is lost.
        json!({"action": "ssm:SendCommand", "kind": "drop", "every": 7, "effect": true}),
        json!({"action": "s3:*", "kind": "error", "every": 10}),
        json!({"action": "s3:*", "kind": "throttle", "every": 13}),
    ];
    let (stormy, refused, commands) = snapshot(&faults);
    assert!(none == 0 && refused > 10, "{none} and {refused}");
    // Five commands were carried out without an answer and not sent twice; a host whose upload met three failures in a
    // row is asked anew.
    assert!((39..=42).contains(&commands), "{commands} commands for 39 hosts");
    let other: Vec<_> = calm.1.iter().zip(&stormy.1).filter(|(calm, stormy)| calm != stormy).collect();
    assert!(other.is_empty(), "{} of {}: {:?}", other.len(), calm.1.len(), other.first());
    assert_eq!(calm.0, stormy.0);
}

#[test]
fn nothing_of_the_operators_secrets_leaves() {
    let (mut config, _) = small(4);
    config.group_of(
        json!({"name": "other", "account": "210987654321", "hosts": [{"id": "i-0aaaaaaaaaaaaaaa1"}]}),
    );
    let account = Account::new(config);
    let roles = format!(
        "{CONFIG}upload_role = \"arn:aws:iam::123456789012:role/upload\"\n[aws.assume_role]\nname = \"diffy\"\nexternal_id = \"ext-4711\"\n"
    );
    account.env.write("diffy.toml", roles);
    let tables = "users,uptime,mounts,groups,crontab";
    let output = account.ok(&[
        "-vv",
        "collect",
        "--targets",
        "asg:web",
        "--tables",
        tables,
        "--account",
        "123456789012",
    ]);
    let sent = account.bench.sent().to_string();
    assert!(sent.contains("X-Amz-Signature"), "the hosts got addresses: {sent}");
    let stored: String = account.query("SELECT * FROM snapshots").iter().map(Value::to_string).collect();
    for (what, text) in
        [("sent", &sent), ("stdout", &output.stdout), ("stderr", &output.stderr), ("stored", &stored)]
    {
        for secret in [SECRET_KEY, super::bench::ACCESS_KEY] {
            assert!(!text.contains(secret), "{what} has {secret}");
        }
    }
    // The token in the addresses is that of a session that can do nothing but write these answers.
    assert!(account.bench.calls().contains_key("sts:AssumeRole"));
    assert!(!output.stderr.contains("X-Amz-Signature"), "{}", output.stderr);
    for object in [&output.stdout, &output.stderr] {
        assert!(!object.contains("X-Amz-Security-Token"), "{object}");
    }
}

#[test]
fn small_questions_go_to_fifty_hosts_with_one_command() {
    let (config, _) = small(60);
    let account = Account::new(config);
    let output = account.ok(&[&["collect", "--targets", "asg:web"], &TABLES[..]].concat());
    assert!(output.stdout.contains("60 asked, 60 answered, 0 failed"), "{}", output.stdout);
    assert_eq!(account.bench.calls_of("ssm:SendCommand").calls, 2);
    assert_eq!(account.bench.calls_of("s3:PresignedPutObject").calls, 0);
    let users = account.query("SELECT count(*) AS n FROM current.users");
    assert_eq!(users[0]["n"], 60);
}

#[test]
fn hosts_that_aws_does_not_take_do_not_stop_the_others() {
    for mode in ["named", "silent"] {
        let (mut config, ids) = small(12);
        config.set("invalid_ids", json!(mode));
        let account = Account::new(config);
        // It is gone between the check of the agents and the command.
        account
            .bench
            .configure(&json!({"faults": [{"action": "ssm:DescribeInstanceInformation", "kind": "denied"}]}));
        account.bench.configure(&json!({"hosts": {&ids[3]: "no_agent", &ids[9]: "no_agent"}}));
        let output = account.ok(&[&["collect", "--targets", "asg:web"], &TABLES[..]].concat());
        assert!(output.stdout.contains("12 asked, 10 answered, 2 failed"), "{mode}: {}", output.stdout);
        assert!(output.stderr.contains("agents could not be checked"), "{mode}: {}", output.stderr);
        let troubled: BTreeSet<String> = account.troubled().into_keys().collect();
        assert_eq!(troubled, BTreeSet::from([ids[3].clone(), ids[9].clone()]), "{mode}");
    }
}

/// IAM judges each instance; one that is not in reach must not cost the others.
#[test]
fn a_host_that_is_denied_does_not_stop_the_others() {
    let (config, ids) = small(12);
    let account = Account::new(config);
    let denied = &ids[5];
    let message = format!(
        "not authorized to perform: ssm:SendCommand on resource: arn:aws:ec2:us-east-1:123456789012:instance/{denied}"
    );
    let rule = json!({"action": "ssm:SendCommand", "kind": "AccessDeniedException", "status": 400, "message": message, "first": 1});
    account.bench.configure(&json!({"faults": [rule]}));
    let output = account.ok(&[&["collect", "--targets", "asg:web"], &TABLES[..]].concat());
    assert!(output.stdout.contains("12 asked, 11 answered, 1 failed"), "{}", output.stdout);
    assert!(account.troubled()[denied].1.contains("denies `ssm:SendCommand`"), "{:?}", account.troubled());
}

#[test]
fn systems_managers_own_output_is_taken_with_its_traps() {
    let mut config = BenchConfig::new();
    config.simulate("web", SimulationConfig::new(6, 0, 4));
    let ids = config.hosts("web");
    config.behave(&ids[2], json!("s3_silent")).behave(&ids[3], json!("wrong_object"));
    let account = Account::new(config);
    let output = account.ok(&["collect", "--targets", "asg:web", "--output", "ssm-s3"]);
    assert!(output.stdout.contains("6 asked, 4 answered, 2 failed"), "{}\n{}", output.stdout, output.stderr);
    let troubled = account.troubled();
    assert!(troubled[&ids[2]].1.contains("wrote no output"), "{troubled:?}");
    assert!(!troubled[&ids[3]].1.is_empty(), "{troubled:?}");
    assert_eq!(account.bench.calls_of("s3:PresignedPutObject").calls, 0);
}

#[test]
fn states_of_members_are_honoured_and_shown() {
    let (mut config, _) = small(2);
    let hosts = json!([
        {"id": "i-0bbbbbbbbbbbbbbb1"},
        {"id": "i-0bbbbbbbbbbbbbbb2", "lifecycle": "Standby"},
        {"id": "i-0bbbbbbbbbbbbbbb3", "lifecycle": "Terminating:Wait"},
        {"id": "i-0bbbbbbbbbbbbbbb4", "lifecycle": "Pending"},
    ]);
    config.group_of(json!({"name": "mixed", "hosts": hosts}));
    answer(&config, "i-0bbbbbbbbbbbbbbb1");
    let account = Account::new(config);
    let asked = |more: &[&str]| {
        let args = [&["collect", "--targets", "asg:mixed", "--min-success", "1"], &TABLES[..], more].concat();
        let output = account.run(&args);
        let line =
            output.stdout.lines().find(|line| line.starts_with("hosts ")).unwrap_or_default().to_owned();
        (line, output.stderr)
    };
    let (line, stderr) = asked(&[]);
    assert!(line.contains("1 asked"), "{line}\n{stderr}");
    assert!(stderr.contains("1 Standby (i-0bbbbbbbbbbbbbbb2)") && stderr.contains("1 Pending"), "{stderr}");
    assert!(asked(&["--include-standby"]).0.contains("2 asked"));
    assert!(asked(&["--include-standby", "--include-terminating"]).0.contains("3 asked"));
    // Both name the same host.
    let both =
        ["collect", "--fleet", "x", "--targets", "asg:mixed", "--targets", "instance:i-0bbbbbbbbbbbbbbb1"];
    let output = account.ok(&[&both, &TABLES[..]].concat());
    assert!(output.stdout.contains("1 asked"), "{}", output.stdout);
}

#[test]
fn hosts_with_a_tag_are_targets() {
    let (mut config, _) = small(1);
    let hosts = json!([
        {"id": "i-0bbbbbbbbbbbbbbb1", "tags": {"Role": "db"}},
        {"id": "i-0bbbbbbbbbbbbbbb2", "tags": {"Role": "db"}},
        {"id": "i-0bbbbbbbbbbbbbbb3", "tags": {"Role": "web"}},
    ]);
    config.group_of(json!({"name": null, "hosts": hosts}));
    ["i-0bbbbbbbbbbbbbbb1", "i-0bbbbbbbbbbbbbbb2"].iter().for_each(|id| answer(&config, id));
    let account = Account::new(config);
    let output =
        account.ok(&[&["collect", "--fleet", "db", "--targets", "tag:Role=db"], &TABLES[..]].concat());
    assert!(output.stdout.contains("2 asked, 2 answered"), "{}\n{}", output.stdout, output.stderr);
    let stderr = account.fails(&["collect", "--fleet", "db", "--targets", "tag:Role=dbx"], 2);
    assert!(stderr.contains("`Role=dbx`"), "{stderr}");
}

#[test]
fn what_aws_refuses_is_said_in_words() {
    let (config, ids) = small(2);
    let slow = json!({"kind": "delayed", "seconds": 2});
    let account = Account::new(config);
    let collect = [&["collect", "--targets", "asg:web"], &TABLES[..]].concat();
    let stderr = account.fails(&["collect", "--targets", "asg:wbe"], 2);
    assert!(
        stderr.contains("no Auto Scaling Group `wbe`") && stderr.contains("did you mean web?"),
        "{stderr}"
    );
    for (action, kind, words) in [
        ("autoscaling:DescribeAutoScalingGroups", "denied", "denies `autoscaling:DescribeAutoScalingGroups`"),
        ("autoscaling:DescribeAutoScalingGroups", "expired", "expired"),
        ("ssm:SendCommand", "denied", "denies `ssm:SendCommand`"),
        ("ssm:ListCommandInvocations", "denied", "denies `ssm:ListCommandInvocations`"),
        ("ssm:GetCommandInvocation", "denied", "denies `ssm:GetCommandInvocation`"),
    ] {
        account.bench.configure(&json!({"faults": [{"action": action, "kind": kind}]}));
        // Else they are done before anybody asks how far they are.
        account.bench.configure(&json!({"hosts": {&ids[0]: slow, &ids[1]: slow}}));
        let stderr = account.fails(&collect, 1);
        assert!(stderr.contains(words), "{action}: {stderr}");
    }
    let mut command = account.env.diffy(&collect);
    command.envs(account.bench.env()).env_remove("AWS_REGION").env("DIFFY_STORE", account.store());
    let output = finish(command);
    assert!(output.status == 2 && output.stderr.contains("region"), "{}", output.stderr);
    let mut command = account.env.diffy(&collect);
    command.envs(account.bench.env()).env_remove("AWS_ACCESS_KEY_ID").env("DIFFY_STORE", account.store());
    let output = finish(command);
    assert!(output.status != 0 && output.stderr.contains("credentials"), "{}", output.stderr);
}

#[test]
fn all_fleets_are_collected_though_one_fails() {
    let (mut config, _) = small(2);
    config.group("db", &["i-0bbbbbbbbbbbbbbb1".to_owned()]);
    answer(&config, "i-0bbbbbbbbbbbbbbb1");
    let account = Account::new(config);
    let fleets = "[[fleets]]\nname = \"web\"\ntargets = [\"asg:web\"]\nschedule = \"hourly\"\n\
         [[fleets]]\nname = \"gone\"\ntargets = [\"asg:gone\"]\n\
         [[fleets]]\nname = \"odd\"\ntargets = [\"moon\"]\n\
         [[fleets]]\nname = \"db\"\ntargets = [\"asg:db\"]\nregion = \"us-east-1\"\ntables = [\"users\"]\n";
    account.env.write("diffy.toml", format!("{CONFIG}{fleets}"));
    let stderr = account.fails(&["collect", "--all", "--tables", "users"], 1);
    assert!(stderr.contains("2 of 4 fleets failed: gone, odd"), "{stderr}");
    assert!(stderr.contains("no Auto Scaling Group `gone`") && stderr.contains("`moon`"), "{stderr}");
    let fleets = account.query("SELECT fleet FROM snapshots ORDER BY fleet");
    let fleets: Vec<_> = fleets.iter().map(|row| row["fleet"].as_str().unwrap()).collect();
    assert_eq!(fleets, ["db", "web"]);
    // A fleet of the file can be collected alone.
    account.ok(&["collect", "--fleet", "web", "--tables", "users"]);
    let stderr = account.fails(&["collect", "--all", "--config", "/dev/null"], 2);
    assert!(stderr.contains("[[fleets]]"), "{stderr}");
}

/// Ends of answers in the spools below a directory; their headers are plain JSON.
fn spooled_answers(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let of_entry = |entry: std::fs::DirEntry| match entry.path() {
        path if path.is_dir() => spooled_answers(&path),
        path => {
            let bytes = std::fs::read(path).unwrap_or_default();
            String::from_utf8_lossy(&bytes).matches(r#""frame":"answer""#).count()
        }
    };
    entries.map(of_entry).sum()
}

/// The host waits; nobody is to wait for it any more.
#[test]
fn an_interrupted_collection_cancels_its_commands_and_keeps_what_came() {
    let (mut config, ids) = small(3);
    config.behave(&ids[2], json!({"kind": "timed_out", "after": 600}));
    let account = Account::new(config);
    let mut command = account.env.diffy(&[&["collect", "--targets", "asg:web"], &TABLES[..]].concat());
    let mut child = command.envs(account.bench.env()).env("DIFFY_STORE", account.store()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    // Two hosts with two tables each.
    while spooled_answers(&account.env.path("home/state/diffy/spool")) < 4 {
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "two hosts answer");
        std::thread::yield_now();
    }
    let output = interrupt(child);
    assert_eq!(output.status, 1, "{}", output.stderr);
    assert!(output.stderr.contains("snapshot recover"), "{}", output.stderr);
    assert!(account.bench.calls_of("ssm:CancelCommand").calls >= 1);
    let recovered = account.ok(&["snapshot", "recover"]);
    assert!(recovered.stdout.contains("3 asked, 2 answered, 1 failed"), "{}", recovered.stdout);
}

#[test]
fn the_document_that_takes_nothing_but_queries_serves_as_well() {
    let (config, _) = small(3);
    let account = Account::new(config);
    let content = std::fs::read_to_string(root().join("docs/aws/diffy-collect.json")).unwrap();
    let document = json!({"Name": "Diffy-Collect", "Content": content, "DocumentType": "Command", "DocumentFormat": "JSON"});
    account.bench.ssm("CreateDocument", &document).unwrap();
    let with = |tables: &str| {
        let args = ["collect", "--targets", "asg:web", "--document", "Diffy-Collect", "--tables", tables];
        account.ok(&args).stdout
    };
    assert!(with("users,uptime").contains("3 asked, 3 answered"), "inline");
    assert!(with("users,uptime,mounts,groups,crontab").contains("3 asked, 3 answered"), "with an address");
    let sent = account.bench.sent()["commands"].to_string();
    assert!(!sent.contains("AWS-RunShellScript"), "{sent}");
}

#[test]
fn hosts_without_osquery_fetch_it_once_it_is_allowed() {
    let (mut config, ids) = small(3);
    config.behave(&ids[1], json!("no_osquery"));
    let account = Account::new(config);
    let program = b"#!/bin/sh\necho '[{\"username\":\"fetched\",\"version\":\"5.10.2\"}]'\n";
    let (status, _) = account.bench.http(
        "PUT",
        &format!("/{}/osqueryi", account.bench.bucket()),
        &[("x-amz-acl", "public-read")],
        program,
    );
    assert_eq!(status, 200);
    let url = format!("{}/{}/osqueryi", account.bench.endpoint(), account.bench.bucket());
    let digest: String = Sha256::digest(program).iter().map(|byte| format!("{byte:02x}")).collect();
    let collect = |digest: &str| {
        let args =
            ["collect", "--targets", "asg:web", "--tables", "users", "--bootstrap", &url, "--sha256", digest];
        account.ok(&args)
    };
    let right = collect(&digest);
    assert!(right.stdout.contains("3 asked, 3 answered"), "{}\n{}", right.stdout, right.stderr);
    let fetched = account.query("SELECT host FROM current.users WHERE username = 'fetched'");
    assert_eq!(fetched.len(), 1, "{fetched:?}");
    assert_eq!(fetched[0]["host"], ids[1].as_str());
    let wrong = collect(&digest.replace(|_: char| true, "0"));
    assert!(wrong.stdout.contains("3 asked, 2 answered, 1 failed"), "{}", wrong.stdout);
    assert!(account.troubled()[&ids[1]].1.contains("sha256"), "{:?}", account.troubled());
}

/// SeaweedFS checks signatures: the addresses are good for what they are meant for, and signed as a whole.
#[test]
fn answers_reach_an_s3_that_checks_signatures() {
    let mut config = BenchConfig::new();
    config.simulate("web", SimulationConfig::new(4, 0, 4));
    let account = Account::new(config);
    let place = place("collected");
    let args =
        ["collect", "--targets", "asg:web", "--tables", "processes,users,mounts,deb_packages,systemd_units"];
    let mut command = account.env.diffy(&args);
    command.envs(account.bench.env()).env("AWS_ENDPOINT_URL_S3", &weed().url).env("DIFFY_STORE", place);
    command.env("AWS_ACCESS_KEY_ID", WRITER.0).env("AWS_SECRET_ACCESS_KEY", WRITER.1);
    let output = finish(command);
    assert!(output.stdout.contains("4 asked, 4 answered, 0 failed"), "{}\n{}", output.stdout, output.stderr);
    assert_eq!(account.bench.calls_of("s3:PresignedPutObject").calls, 0, "not to the bench's S3");
}
