//! `diffy collect`, with the native collector.

use std::collections::BTreeSet;

use crate::env::{TestEnv, snapshot_id};

const NATIVE: [&str; 5] = ["collect", "--collector", "native", "--fleet", "web"];

fn collect(env: &TestEnv, more: &[&str]) -> String {
    env.ok(&[&NATIVE, more].concat())
}

#[test]
#[cfg(target_os = "linux")]
fn this_machine_becomes_one_snapshot() {
    let env = TestEnv::new();
    let stdout = collect(&env, &["--host", "box1", "--incident", "IR-7"]);
    let snapshot = snapshot_id(&stdout);
    assert!(stdout.contains("hosts     1 asked, 1 answered, 0 failed"), "{stdout}");
    let manifest = env.json(&["snapshot", "show", "--json"]);
    assert_eq!(manifest["snapshot"], snapshot.as_str());
    assert_eq!(manifest["incident"], "IR-7");
    assert_eq!(manifest["collector"], "native");
    assert!(manifest["collected_by"].as_str().unwrap().starts_with("tester@"));
    // The processes that collected are among those collected.
    let own = env.query("SELECT host, pid FROM current.processes WHERE path LIKE '%diffy%'");
    assert!(own.iter().any(|row| row["host"] == "box1"), "{own:?}");
    let root = env.query("SELECT username FROM current.users WHERE uid = 0");
    assert!(root.iter().any(|row| row["username"] == "root"), "{root:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn every_table_asked_for_has_its_line_of_coverage() {
    let env = TestEnv::new();
    collect(&env, &[]);
    let declared: BTreeSet<String> = env
        .ok(&["tables", "list"])
        .lines()
        .map(|line| line.split_whitespace().next().unwrap().to_owned())
        .collect();
    let lines = env.query("SELECT table_name, status, error FROM coverage");
    let covered: BTreeSet<String> =
        lines.iter().map(|line| line["table_name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(covered, declared);
    let wrong = lines.iter().filter(|line| line["status"] == "denied" || line["status"] == "error");
    let silent: Vec<_> = wrong.filter(|line| line["error"] == "").collect();
    assert!(silent.is_empty(), "what could not be read says why: {silent:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn tables_narrow_the_collection() {
    let env = TestEnv::new();
    collect(&env, &["--tables", "users,mounts"]);
    let tables = env.query("SELECT DISTINCT table_name FROM coverage WHERE status <> 'not_asked' ORDER BY 1");
    let tables: Vec<_> = tables.iter().map(|row| row["table_name"].as_str().unwrap()).collect();
    assert_eq!(tables, ["mounts", "users"]);
}

#[test]
fn what_cannot_be_asked_is_said_before_anything_is_made() {
    let env = TestEnv::new();
    for (args, expected) in [
        (&["--tables", "usrs"][..], "did you mean `users`?"),
        (&["--concurrency", "0"], "`--concurrency 0` would ask nobody"),
        (&["--min-success", "101"], "`--min-success 101` is no percentage"),
        (&["--targets", "moon"], "local"),
    ] {
        let stderr = env.fails(&[&NATIVE, args].concat(), 2);
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
    }
    let stderr = env.fails(&["collect", "--collector", "native"], 2);
    assert!(stderr.contains("which fleet?") && stderr.contains("--fleet NAME"), "{stderr}");
    assert!(!env.store().exists());
}

#[test]
#[cfg(target_os = "linux")]
fn a_program_that_is_no_osqueryi_reaches_nobody() {
    let env = TestEnv::new();
    let args = [
        "collect",
        "--collector",
        "osquery",
        "--osqueryi",
        "/bin/false",
        "--fleet",
        "web",
        "--tables",
        "users",
        "--min-success",
        "50",
    ];
    let output = env.run(&args);
    assert_eq!(output.status, 4, "{}", output.stderr);
    assert!(output.stdout.contains("1 asked, 0 answered, 1 failed"), "{}", output.stdout);
    let status = env.query_one("SELECT status FROM coverage WHERE table_name = 'users'");
    assert_eq!(status, "error");
}

#[test]
#[cfg(target_os = "linux")]
fn one_table_is_answered_for_the_script_on_hosts_without_osquery() {
    let env = TestEnv::new();
    let rows: serde_json::Value = serde_json::from_str(&env.ok(&["answer", "users"])).unwrap();
    assert!(rows.as_array().unwrap().iter().any(|row| row["username"] == "root"), "{rows}");
    let output = env.run(&["answer", "no_such_table", "--timeout", "5"]);
    assert_eq!((output.status, output.stdout.as_str()), (3, ""));
    assert!(output.stderr.starts_with("diffy answer: not_supported: "), "{}", output.stderr);
}
