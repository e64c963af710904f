//! `diffy import --once`: a scheduled job takes each file once, whatever happens in between.

use std::fs;
use std::time::Duration;

use diffy::model::SnapshotId;
use serde_json::json;

use crate::env::{Output, TestEnv, snapshot_id};
use crate::kill::files;

fn once(env: &TestEnv, args: &[&str]) -> Output {
    let output = env.run(&[&["import", "--once", "--fleet", "web"], args].concat());
    assert_eq!(output.status, 0, "{}\n{}", output.stdout, output.stderr);
    output
}

#[track_caller]
fn nothing_new(env: &TestEnv, dir: &str) {
    let before = env.ok(&["snapshot", "list"]);
    let output = once(env, &[dir]);
    assert!(output.stderr.contains("nothing new"), "{}", output.stderr);
    assert_eq!(output.stdout, "");
    assert_eq!(env.ok(&["snapshot", "list"]), before);
}

/// `host/username`, in the newest snapshot.
fn users(env: &TestEnv) -> Vec<String> {
    let rows = env.query("SELECT host, username FROM current.users ORDER BY host, username");
    rows.iter()
        .map(|row| format!("{}/{}", row["host"].as_str().unwrap(), row["username"].as_str().unwrap()))
        .collect()
}

fn fleetctl(host: &str, user: &str) -> String {
    json!({"host": host, "rows": [{"username": user}]}).to_string() + "\n"
}

fn event(counter: u64, action: &str, host: &str, name: &str) -> String {
    let event = json!({"name": "users", "hostIdentifier": host, "unixTime": 1_767_607_200 + counter, "epoch": 0,
                       "counter": counter, "columns": {"username": name}, "action": action});
    event.to_string() + "\n"
}

fn snapshots(env: &TestEnv) -> usize {
    env.ok(&["snapshot", "list"]).lines().count()
}

/// Makes a file look as if it was written some time before.
fn touch(env: &TestEnv, path: &str, seconds: u64) {
    let file = fs::File::options().append(true).open(env.path(path)).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.set_modified(modified - Duration::from_secs(seconds)).unwrap();
}

#[test]
fn each_file_is_imported_once() {
    let env = TestEnv::new();
    env.write("in/users-2026-01-05.json", fleetctl("a", "x"));
    let first = once(&env, &["in"]);
    assert!(first.stderr.contains("1 of 1 files were new"), "{}", first.stderr);
    assert_eq!(users(&env), ["a/x"]);
    nothing_new(&env, "in");
    // From elsewhere, and by another spelling of the path.
    nothing_new(&env, "./in/../in");
    env.write("in/users-2026-01-06.json", fleetctl("b", "y"));
    once(&env, &["in"]);
    assert_eq!(users(&env), ["b/y"], "what is new, and nothing else");
    touch(&env, "in/users-2026-01-05.json", 100);
    nothing_new(&env, "in");
    let names: Vec<_> =
        fs::read_dir(env.path("in")).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names.len(), 2, "the directory is left as it is");
    // Without --once, all of it is there.
    env.ok(&["import", "--fleet", "web", "in"]);
    assert_eq!(users(&env), ["a/x", "b/y"]);
    nothing_new(&env, "in");
    assert!(env.ok(&["snapshot", "verify"]).lines().all(|line| line.contains("ok")));
}

#[test]
fn a_file_that_changed_is_imported_again() {
    let env = TestEnv::new();
    env.write("in/users.json", fleetctl("a", "x"));
    let first = snapshot_id(&once(&env, &["in"]).stdout);
    env.write("in/users.json", fleetctl("a", "x") + &fleetctl("b", "y"));
    let second = once(&env, &["in"]);
    assert!(second.stderr.contains(&format!("has changed since snapshot {first}")), "{}", second.stderr);
    assert_eq!(users(&env), ["a/x", "b/y"]);
    nothing_new(&env, "in");
}

#[test]
fn old_snapshots_may_go_and_nothing_is_forgotten() {
    let env = TestEnv::new();
    for (number, host) in ["a", "b", "c"].iter().enumerate() {
        env.write(&format!("in/users-2026-01-0{number}.json"), fleetctl(host, "x"));
        once(&env, &["in"]);
    }
    env.ok(&["snapshot", "prune", "--keep", "1"]);
    nothing_new(&env, "in");
    // Collections and other imports in between do not matter.
    env.import_tables(&[("h", "users", json!([{"username": "z"}]))]);
    nothing_new(&env, "in");
    // Deleting the newest brings its files back.
    let listed = env.ok(&["snapshot", "list"]);
    let ids: Vec<&str> = listed.lines().map(|line| line.split(' ').next().unwrap()).collect();
    env.ok(&["snapshot", "delete", ids[0]]);
    once(&env, &["in"]);
    assert_eq!(users(&env), ["a/x", "b/x", "c/x"], "who deletes the list wants to begin anew");
}

#[test]
fn pruning_keeps_the_list_of_what_was_imported() {
    let env = TestEnv::new();
    env.write("in/users.json", fleetctl("a", "x"));
    let list = snapshot_id(&once(&env, &["in"]).stdout);
    for user in ["y", "z"] {
        env.import_tables(&[("h", "users", json!([{"username": user}]))]);
    }
    let said = format!("kept {list} of fleet web: it has the list of the files");
    for args in [&["--keep", "1", "--dry-run"][..], &["--keep", "1"]] {
        let pruned = env.run(&[&["snapshot", "prune"], args].concat());
        assert!(pruned.status == 0 && pruned.stderr.contains(&said), "{}", pruned.stderr);
    }
    assert_eq!(snapshots(&env), 2);
    nothing_new(&env, "in");
    let young = env.run(&["snapshot", "prune", "--older-than", "1"]);
    assert!(!young.stderr.contains("kept"), "it is too young to be deleted: {}", young.stderr);
    env.ok(&["snapshot", "prune", "--keep", "0"]);
    assert_eq!(snapshots(&env), 0);
}

/// Gives a snapshot the id that a machine whose clock is a day ahead would have given it.
fn move_to_tomorrow(env: &TestEnv, id: &str) -> String {
    let tomorrow = SnapshotId::new(diffy::model::now() + chrono::TimeDelta::days(1)).to_string();
    for file in files(&env.store()) {
        let path = file.to_str().unwrap();
        if !path.contains(id) {
            continue;
        }
        let moved = path.replace(id, &tomorrow);
        fs::create_dir_all(std::path::Path::new(&moved).parent().unwrap()).unwrap();
        fs::rename(path, &moved).unwrap();
        if moved.ends_with(".json") {
            let manifest = fs::read_to_string(&moved).unwrap();
            fs::write(&moved, manifest.replace(id, &tomorrow)).unwrap();
        }
    }
    tomorrow
}

#[test]
fn a_snapshot_from_the_future_does_not_hide_later_lists() {
    let env = TestEnv::new();
    env.write("in/users-1.json", fleetctl("a", "x"));
    once(&env, &["in"]);
    env.write("in/users-2.json", fleetctl("b", "x"));
    let second = snapshot_id(&once(&env, &["in"]).stdout);
    let future = move_to_tomorrow(&env, &second);
    nothing_new(&env, "in");
    for name in ["3", "4"] {
        env.write(&format!("in/users-{name}.json"), fleetctl(name, "x"));
        let output = once(&env, &["in"]);
        assert!(output.stderr.contains("1 of "), "{}", output.stderr);
        nothing_new(&env, "in");
    }
    // What is gone is forgotten all the same.
    let bytes = fs::read(env.path("in/users-1.json")).unwrap();
    fs::remove_file(env.path("in/users-1.json")).unwrap();
    env.write("in/users-5.json", fleetctl("5", "x"));
    once(&env, &["in"]);
    env.write("in/users-1.json", bytes);
    assert!(!once(&env, &["in"]).stderr.contains("nothing new"));
    nothing_new(&env, "in");
    env.ok(&["snapshot", "prune", "--keep", "1"]);
    assert_eq!(snapshots(&env), 2, "the one from the future, and the newest that knows all");
    nothing_new(&env, "in");
    env.ok(&["snapshot", "delete", &future]);
    nothing_new(&env, "in");
}

#[test]
fn fleets_and_directories_do_not_meet() {
    let env = TestEnv::new();
    env.write("one/users.json", fleetctl("a", "x"));
    env.write("two/users.json", fleetctl("b", "y"));
    once(&env, &["one"]);
    once(&env, &["two"]);
    nothing_new(&env, "one");
    nothing_new(&env, "two");
    let other = env.run(&["import", "--once", "--fleet", "other", "one"]);
    assert!(other.status == 0 && !other.stderr.contains("nothing new"), "{}", other.stderr);
    // A file that is gone and comes back is new again.
    let bytes = fs::read(env.path("one/users.json")).unwrap();
    fs::remove_file(env.path("one/users.json")).unwrap();
    env.write("one/groups.json", fleetctl("a", "g"));
    once(&env, &["one"]);
    env.write("one/users.json", bytes);
    assert!(!once(&env, &["one"]).stderr.contains("nothing new"));
    nothing_new(&env, "two");
}

#[test]
fn a_host_with_something_new_is_imported_whole() {
    let env = TestEnv::new();
    for host in ["a", "b"] {
        env.write(&format!("in/{host}/users.json"), r#"[{"username":"root"}]"#);
        env.write(&format!("in/{host}/mounts.json"), "[]");
    }
    once(&env, &["in"]);
    env.write("in/b/users.json", r#"[{"username":"root"},{"username":"eve"}]"#);
    once(&env, &["in"]);
    assert_eq!(users(&env), ["b/eve", "b/root"]);
    let tables = env.query("SELECT host, table_name, status FROM current.coverage ORDER BY table_name");
    let expect = [
        json!({"host": "b", "table_name": "mounts", "status": "empty"}),
        json!({"host": "b", "table_name": "users", "status": "ok"}),
    ];
    assert_eq!(tables, expect);
    nothing_new(&env, "in");
}

#[test]
fn logs_that_grow_and_rotate_keep_their_past() {
    let env = TestEnv::new();
    let log = "in/osqueryd.results.log";
    env.write(log, event(0, "added", "a", "root") + &event(0, "added", "b", "root"));
    once(&env, &["in"]);
    assert_eq!(users(&env), ["a/root", "b/root"]);
    // It grows: only the host with something new, in its whole state.
    let grown = fs::read_to_string(env.path(log)).unwrap() + &event(1, "added", "a", "eve");
    env.write(log, &grown);
    once(&env, &["in"]);
    assert_eq!(users(&env), ["a/eve", "a/root", "b/root"], "the file as a whole is what changed");
    nothing_new(&env, "in");
    // It is rotated and packed: the same log under another name is not new.
    env.write("in/osqueryd.results.log.1.zst", zstd::encode_all(grown.as_bytes(), 1).unwrap());
    fs::remove_file(env.path(log)).unwrap();
    nothing_new(&env, "in");
    // What follows needs what was before.
    env.write(log, event(2, "removed", "a", "root"));
    once(&env, &["in"]);
    assert_eq!(users(&env), ["a/eve"]);
    assert_eq!(env.query_one("SELECT DISTINCT status FROM current.coverage"), "ok");
    nothing_new(&env, "in");
}

#[test]
fn a_line_that_is_being_written_comes_with_the_next_import() {
    let env = TestEnv::new();
    let whole = event(0, "added", "a", "root") + &event(1, "added", "a", "eve");
    env.write("in/osqueryd.results.log", &whole[..whole.len() - 20]);
    let output = once(&env, &["in"]);
    assert!(output.stderr.contains("ends inside this line"), "{}", output.stderr);
    assert_eq!(users(&env), ["a/root"]);
    env.write("in/osqueryd.results.log", whole);
    once(&env, &["in"]);
    assert_eq!(users(&env), ["a/eve", "a/root"]);
}

/// Runs the import of many files and kills it as soon as `is_time`; false when it was too late.
fn killed(env: &TestEnv, is_time: impl Fn(&TestEnv) -> bool) -> bool {
    let mut child = env.diffy(&["import", "--once", "--fleet", "web", "in"]).spawn().unwrap();
    loop {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if is_time(env) {
            child.kill().unwrap();
            child.wait().unwrap();
            return true;
        }
    }
}

fn has(env: &TestEnv, folder: &str, ending: &str) -> bool {
    files(&env.store().join(folder)).iter().any(|path| path.to_str().unwrap().ends_with(ending))
}

#[test]
fn an_import_that_dies_is_made_once_all_the_same() {
    // While rows are received, while they are written, and while the list is.
    for (moment, ending) in [("spool", ".spool"), ("rows", ".parquet"), ("imports", ".parquet")] {
        for attempt in 0.. {
            assert!(attempt < 20, "never killed in time while {moment}");
            let env = TestEnv::new();
            crate::env::write_fleet(&env.path("in"), 12, 3);
            if !killed(&env, |env| has(env, moment, ending)) {
                continue;
            }
            let was_committed = snapshots(&env) > 0;
            let output = once(&env, &["in"]);
            assert_eq!(snapshots(&env), 1, "{moment}: {}", output.stderr);
            let rows = env
                .query_one("SELECT count(DISTINCT host) AS n FROM coverage WHERE status IN ('ok', 'empty')");
            assert_eq!(rows, 12, "{moment}: {}", output.stderr);
            nothing_new(&env, "in");
            assert!(env.ok(&["snapshot", "recover"]).is_empty(), "{moment}");
            assert_eq!(snapshots(&env), 1);
            assert!(env.ok(&["snapshot", "verify"]).contains("ok"));
            if !was_committed {
                break;
            }
        }
    }
}

#[test]
fn two_at_once_import_each_file_once() {
    let env = TestEnv::new();
    crate::env::write_fleet(&env.path("in"), 6, 3);
    // The store first, so that both find it.
    env.import_tables(&[("h", "users", json!([{"username": "z"}]))]);
    let start = || env.diffy(&["import", "--once", "--fleet", "web", "in"]).spawn().unwrap();
    let both = [start(), start()].map(|child| child.wait_with_output().unwrap());
    assert!(both.iter().all(|output| output.status.success()), "{both:?}");
    assert_eq!(snapshots(&env), 2);
    nothing_new(&env, "in");
}

#[test]
fn files_that_name_no_host_do_not_fail_the_job() {
    let env = TestEnv::new();
    env.write("in/osqueryd.results.log", event(0, "added", "a", "root"));
    once(&env, &["in"]);
    let status =
        json!({"severity": 0, "filename": "tls.cpp", "line": 1, "message": "m", "version": "5.12.1"});
    for lines in 1..3 {
        env.write("in/osqueryd.status.log", format!("{status}\n").repeat(lines));
        let output = once(&env, &["in"]);
        assert!(output.stderr.contains("nothing new is of a host"), "{}", output.stderr);
        assert_eq!((snapshots(&env), output.stdout.as_str()), (1, ""));
        assert!(env.ok(&["snapshot", "recover"]).is_empty());
    }
    // It comes with what is new of a host.
    env.write("in/osqueryd.results.log", event(0, "added", "a", "root") + &event(1, "added", "a", "eve"));
    once(&env, &["in"]);
    assert_eq!(users(&env), ["a/eve", "a/root"]);
    nothing_new(&env, "in");
}

#[test]
fn what_cannot_be_imported_does_not_stop_what_can() {
    let env = TestEnv::new();
    env.write("in/users.json", fleetctl("a", "x"));
    env.write("in/notes.txt", "hello");
    env.write("in/.half-written.json", "{");
    let output = once(&env, &["in"]);
    assert!(output.stderr.contains("notes.txt: nothing that can be imported"), "{}", output.stderr);
    nothing_new(&env, "in");
    let empty = TestEnv::new();
    fs::create_dir(empty.path("in")).unwrap();
    let output = once(&empty, &["in"]);
    assert!(output.stderr.contains("nothing new: 0 files"), "{}", output.stderr);
    assert_eq!(users(&env), ["a/x"]);
}
