//! `diffy import`: output of osqueryi and logs of osqueryd, in every shape.

use std::io::Write;

use serde_json::{Value, json};

use crate::env::{TestEnv, write_tables};

const USERS: &str = "SELECT host, username, uid FROM users ORDER BY host, username";

/// `host/username/uid` of each row.
fn users(env: &TestEnv) -> Vec<String> {
    let rows = env.query(USERS);
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    rows.iter()
        .map(|row| format!("{}/{}/{}", text(&row["host"]), text(&row["username"]), text(&row["uid"])))
        .collect()
}

/// Imports one log and returns the users in it.
fn users_of_log(lines: &[Value]) -> Vec<String> {
    let env = TestEnv::new();
    let log: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let path = env.write("osqueryd.results.log", log);
    env.import(&path, &["--fleet", "web"]);
    users(&env)
}

#[test]
fn directories_of_osqueryi_output_become_hosts() {
    let env = TestEnv::new();
    write_tables(
        &env.path("dump"),
        &[
            ("web-1", "users", json!([{"username": "root", "uid": "0"}])),
            ("web-1", "mounts", json!([])),
            ("web-2", "users", json!([{"username": "root", "uid": "0"}, {"username": "eve", "uid": "0"}])),
        ],
    );
    let stdout = env.ok(&["import", "dump", "--fleet", "web"]);
    assert!(stdout.contains("2 asked, 2 answered, 0 failed"), "{stdout}");
    assert_eq!(users(&env), ["web-1/root/0", "web-2/eve/0", "web-2/root/0"]);
    let status = env.query_one("SELECT status FROM coverage WHERE host = 'web-1' AND table_name = 'mounts'");
    assert_eq!(status, "empty", "an empty answer is an answer");
    let status = env.query_one("SELECT status FROM coverage WHERE host = 'web-2' AND table_name = 'mounts'");
    assert_eq!(status, "not_asked", "no answer is none");
}

#[test]
fn a_whole_simulated_fleet_comes_in_without_a_problem() {
    let env = TestEnv::new();
    let dir = env.path("fleet");
    crate::env::write_fleet(&dir, 6, 1);
    let output = env.run(&["import", "fleet", "--fleet", "web"]);
    assert_eq!(output.status, 0, "{}", output.stderr);
    assert!(!output.stderr.contains("problem"), "{}", output.stderr);
    let files = std::fs::read_dir(&dir).unwrap().flatten();
    let arrays = files.flat_map(|host| std::fs::read_dir(host.path()).unwrap().flatten());
    let rows: usize = arrays
        .map(|file| serde_json::from_slice::<Vec<Value>>(&std::fs::read(file.path()).unwrap()).unwrap().len())
        .sum();
    let kept = env.query_one("SELECT sum(rows) AS n FROM coverage");
    assert_eq!(kept, rows, "every row of every file");
}

#[test]
fn several_arrays_in_one_file_are_one_table() {
    let env = TestEnv::new();
    env.write(
        "dump/h/users.json",
        "[{\"username\":\"a\",\"uid\":\"1\"}]\n[{\"username\":\"b\",\"uid\":\"2\"}]\n",
    );
    env.import(&env.path("dump"), &["--fleet", "web"]);
    assert_eq!(users(&env), ["h/a/1", "h/b/2"]);
}

#[test]
fn what_a_schema_does_not_know_is_kept_as_text() {
    let env = TestEnv::new();
    write_tables(
        &env.path("dump"),
        &[
            ("h", "my_inventory", json!([{"asset": "7", "owner": "ann"}])),
            ("h", "users", json!([{"username": "a", "uid": "not a number", "shoe_size": "44"}])),
        ],
    );
    let output = env.run(&["import", "dump", "--fleet", "web"]);
    assert_eq!(output.status, 0, "{}", output.stderr);
    assert!(output.stderr.contains("no schema declares `my_inventory`"), "{}", output.stderr);
    assert_eq!(env.query_one("SELECT owner FROM my_inventory"), "ann");
    assert_eq!(env.query_one("SELECT shoe_size FROM users"), "44");
    let extra = env.query_one("SELECT extra FROM users");
    assert!(extra.to_string().contains("not a number"), "{extra}");
}

#[test]
fn bytes_that_are_no_utf8_survive() {
    let env = TestEnv::new();
    env.write("dump/h/users.json", b"[{\"username\":\"caf\xe9\",\"uid\":\"1\"}]");
    env.import(&env.path("dump"), &["--fleet", "web"]);
    let name = env.query_one("SELECT username FROM users");
    assert!(name.as_str().unwrap().contains("xe9") || name.as_str().unwrap().contains("xE9"), "{name}");
}

/// One entry of an event log, as the code of osqueryd writes it.
fn event(action: &str, counter: u64, columns: Value) -> Value {
    json!({
        "name": "pack_ir_users", "hostIdentifier": "h", "calendarTime": "Mon Jan  5 10:00:00 2026 UTC",
        "unixTime": 1_767_607_200 + counter, "epoch": 0, "counter": counter, "numerics": false,
        "decorations": {"host_uuid": "x"}, "columns": columns, "action": action,
    })
}

#[test]
fn event_logs_are_replayed() {
    let found = users_of_log(&[
        event("added", 0, json!({"username": "root", "uid": "0"})),
        event("added", 0, json!({"username": "bob", "uid": "1000"})),
        event("removed", 1, json!({"username": "bob", "uid": "1000"})),
        event("added", 1, json!({"username": "eve", "uid": "1001"})),
    ]);
    assert_eq!(found, ["h/eve/1001", "h/root/0"]);
}

#[test]
fn batches_are_replayed() {
    let batch = |counter: u64, added: Value, removed: Value| {
        json!({
            "name": "users", "hostIdentifier": "h", "unixTime": 1_767_607_200 + counter, "epoch": 0,
            "counter": counter, "diffResults": {"added": added, "removed": removed},
        })
    };
    let found = users_of_log(&[
        batch(0, json!([{"username": "root", "uid": "0"}, {"username": "bob", "uid": "1"}]), json!([])),
        batch(1, json!([{"username": "eve", "uid": "2"}]), json!([{"username": "bob", "uid": "1"}])),
    ]);
    assert_eq!(found, ["h/eve/2", "h/root/0"]);
}

#[test]
fn of_snapshots_the_newest_holds() {
    let snapshot = |time: u64, rows: Value| {
        json!({"name": "users", "hostIdentifier": "h", "unixTime": time, "epoch": 0, "counter": 0,
               "action": "snapshot", "snapshot": rows})
    };
    let found = users_of_log(&[
        snapshot(1_767_607_200, json!([{"username": "old", "uid": "1"}])),
        snapshot(1_767_607_300, json!([{"username": "new", "uid": "2"}, {"username": "newer", "uid": "3"}])),
    ]);
    assert_eq!(found, ["h/new/2", "h/newer/3"]);
}

#[test]
fn a_snapshot_may_be_logged_as_events() {
    let line = |name: &str| {
        json!({"name": "users", "hostIdentifier": "h", "unixTime": 1_767_607_200, "epoch": 0, "counter": 0,
               "action": "snapshot", "columns": {"username": name, "uid": "1"}})
    };
    assert_eq!(users_of_log(&[line("a"), line("b")]), ["h/a/1", "h/b/1"]);
}

#[test]
fn both_spellings_and_numerics_mean_the_same() {
    let code = event("added", 0, json!({"username": "a", "uid": "7"}));
    let docs = json!({
        "name": "users", "hostname": "h", "calendarTime": "Mon Jan  5 10:00:00 2026 UTC",
        "unixTime": "1767607200", "epoch": "0", "counter": "0", "columns": {"username": "a", "uid": "7"},
        "action": "added",
    });
    let numeric = json!({
        "name": "users", "hostIdentifier": "h", "unixTime": 1_767_607_200, "epoch": 0, "counter": 0,
        "numerics": true, "columns": {"username": "a", "uid": 7}, "action": "added",
    });
    for line in [code, docs, numeric] {
        assert_eq!(users_of_log(std::slice::from_ref(&line)), ["h/a/7"], "{line}");
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn packed_logs_are_read_whatever_they_are_called() {
    let log = event("added", 0, json!({"username": "a", "uid": "7"})).to_string();
    for (name, bytes) in [
        ("osqueryd.results.log.gz", gzip(log.as_bytes())),
        ("osqueryd.results.log.zst", zstd::encode_all(log.as_bytes(), 1).unwrap()),
        ("osqueryd.results.log.1", gzip(log.as_bytes())),
    ] {
        let env = TestEnv::new();
        let path = env.write(name, bytes);
        env.import(&path, &["--fleet", "web"]);
        assert_eq!(users(&env), ["h/a/7"], "{name}");
    }
}

#[test]
fn a_query_that_is_not_named_after_its_table_is_mapped() {
    let env = TestEnv::new();
    let line = json!({"name": "who_is_here", "hostIdentifier": "h", "unixTime": 1_767_607_200, "epoch": 0,
                      "counter": 0, "action": "snapshot", "snapshot": [{"username": "a", "uid": "1"}]});
    let path = env.write("log", line.to_string());
    env.import(&path, &["--fleet", "web", "--map", "who_is_here=users"]);
    assert_eq!(users(&env), ["h/a/1"]);
    let stderr = env.fails(&["import", "log", "--fleet", "web", "--map", "who_is_here"], 2);
    assert!(stderr.contains("expected QUERY=TABLE"), "{stderr}");
}

#[test]
fn changes_without_their_beginning_are_told() {
    let env = TestEnv::new();
    let path = env.write("log", event("added", 5, json!({"username": "a", "uid": "1"})).to_string());
    let output = env.run(&["import", path.to_str().unwrap(), "--fleet", "web"]);
    assert_eq!(output.status, 0, "{}", output.stderr);
    assert!(output.stderr.contains("not the initial result"), "{}", output.stderr);
    assert_eq!(env.query_one("SELECT status FROM coverage"), "truncated");
}

#[test]
fn what_hosts_say_names_no_path() {
    let env = TestEnv::new();
    let line = |host: &str| {
        json!({"name": "users", "hostIdentifier": host, "unixTime": 1_767_607_200, "epoch": 0, "counter": 0,
               "action": "snapshot", "snapshot": [{"username": "a", "uid": "1"}]})
    };
    let log = format!("{}\n{}\n", line("../../etc"), line("a/b=c"));
    let path = env.write("log", log);
    env.import(&path, &["--fleet", "../../outside"]);
    assert_eq!(users(&env), ["../../etc/a/1", "a/b=c/a/1"]);
    assert!(env.ok(&["snapshot", "verify"]).contains("ok"));
    let mut left: Vec<_> =
        std::fs::read_dir(env.path("")).unwrap().flatten().map(|e| e.file_name()).collect();
    left.sort();
    assert_eq!(left, ["diffy-store", "home", "log"]);
}
