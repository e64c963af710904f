//! `diffy snapshot`.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::env::TestEnv;
use crate::kill::files;

fn users(name: &str) -> Value {
    json!([{"username": name, "uid": "0"}])
}

/// Two snapshots of fleet `web`, and their ids.
fn two_snapshots() -> (TestEnv, String, String) {
    let env = TestEnv::new();
    let first = env.import_tables(&[("a", "users", users("old"))]);
    let second = env.import_tables(&[("a", "users", users("new"))]);
    (env, first, second)
}

/// The file with the rows of a snapshot.
fn part(env: &TestEnv, snapshot: &str) -> PathBuf {
    let manifest = env.json(&["snapshot", "show", snapshot, "--json"]);
    let files = manifest["files"].as_array().unwrap();
    let rows = files.iter().find(|file| file["kind"] == "rows").unwrap();
    env.store().join(rows["path"].as_str().unwrap())
}

#[test]
fn snapshots_are_listed_oldest_first() {
    let (env, first, second) = two_snapshots();
    let list = env.ok(&["snapshot", "list"]);
    let ids: Vec<&str> = list.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(ids, [first.as_str(), &second]);
    assert_eq!(env.ok(&["snapshot", "list", "--json"]).lines().count(), 2);
    assert_eq!(env.ok(&["snapshot", "list", "--fleet", "other"]), "");
}

#[test]
fn the_manifest_holds_the_evidence() {
    let (env, _, second) = two_snapshots();
    let shown = env.ok(&["snapshot", "show"]);
    assert!(shown.contains(&second) && shown.contains("1 asked, 1 answered, 0 failed"), "{shown}");
    let manifest = env.json(&["snapshot", "show", "--json"]);
    let files = manifest["files"].as_array().unwrap();
    assert_eq!(files.len(), 4, "rows, prevalence, coverage, hosts");
    for file in files {
        let bytes = fs::read(env.store().join(file["path"].as_str().unwrap())).unwrap();
        assert_eq!(file["bytes"], bytes.len());
        assert_eq!(file["blake3"], blake3::hash(&bytes).to_hex().as_str());
    }
    for (args, expected) in [
        (&["show", "nonsense"][..], "`nonsense` is no snapshot id"),
        (&["show", "01ARZ3NDEKTSV4RRFFQ69G5FAV"], "no snapshot `01ARZ3NDEKTSV4RRFFQ69G5FAV`"),
        (&["delete", "01ARZ3NDEKTSV4RRFFQ69G5FAV"], "there is no snapshot `01ARZ3NDEKTSV4RRFFQ69G5FAV`"),
        (&["verify", "01ARZ3NDEKTSV4RRFFQ69G5FAV"], "there is no snapshot `01ARZ3NDEKTSV4RRFFQ69G5FAV`"),
        (&["prune"], "--keep"),
    ] {
        let stderr = env.fails(&[&["snapshot"], args].concat(), 2);
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
    }
}

#[test]
fn verify_names_the_byte_that_flipped() {
    let (env, first, second) = two_snapshots();
    let all_is_well = env.ok(&["snapshot", "verify"]);
    assert_eq!(all_is_well.lines().filter(|line| line.contains("  ok ")).count(), 2, "{all_is_well}");
    let path = part(&env, &first);
    let whole = fs::read(&path).unwrap();
    let damaged = |bytes: Option<&[u8]>, expected: &str| {
        match bytes {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let output = env.run(&["snapshot", "verify"]);
        assert_eq!(output.status, 1, "{}", output.stdout);
        let line = output.stdout.lines().find(|line| line.starts_with(&first)).unwrap();
        assert!(
            line.contains("damaged") && line.contains("rows/users/") && line.contains(expected),
            "{line}"
        );
        assert!(output.stdout.contains(&format!("{second}  ok")), "{}", output.stdout);
    };
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    damaged(Some(&flipped), "digest");
    damaged(Some(&whole[..whole.len() - 1]), "bytes");
    damaged(None, "cannot be read");
    fs::write(&path, &whole).unwrap();
    env.ok(&["snapshot", "verify"]);
}

#[test]
fn deleted_is_gone_and_the_others_stay() {
    let (env, first, second) = two_snapshots();
    let path = part(&env, &first);
    env.ok(&["snapshot", "delete", &first]);
    assert!(!path.exists());
    assert!(!env.ok(&["snapshot", "list"]).contains(&first));
    assert_eq!(env.query_one("SELECT username FROM users"), "new");
    assert!(env.ok(&["snapshot", "verify"]).contains(&second));
    assert_eq!(env.ok(&["snapshot", "recover"]), "", "nothing is left to recover");
}

#[test]
fn prune_keeps_the_newest_of_each_fleet() {
    let (env, first, second) = two_snapshots();
    env.write("o/h/users.json", users("x").to_string());
    let other = env.import(&env.path("o"), &["--fleet", "other"]);
    let output = env.run(&["snapshot", "prune", "--keep", "1", "--dry-run"]);
    assert!(output.stderr.contains(&format!("would delete {first}")), "{}", output.stderr);
    assert_eq!(env.ok(&["snapshot", "list"]).lines().count(), 3, "a dry run deletes nothing");
    env.ok(&["snapshot", "prune", "--older-than", "1"]);
    assert_eq!(env.ok(&["snapshot", "list"]).lines().count(), 3, "none is older than a day");
    env.ok(&["snapshot", "prune", "--keep", "1"]);
    let list = env.ok(&["snapshot", "list"]);
    assert!(!list.contains(&first) && list.contains(&second) && list.contains(&other), "{list}");
}

#[test]
fn prevalence_is_proven_from_the_rows() {
    let env = TestEnv::new();
    let users = |on: &str| {
        let user = |name: &str| json!({"username": name, "uid": "0", "shell": "/bin/bash"});
        let of =
            |host: &str| if host == on { json!([user("root"), user("eve")]) } else { json!([user("root")]) };
        let hosts = ["a", "b", "c"];
        env.import_tables(&hosts.map(|host| (host, "users", of(host))))
    };
    let (first, second) = (users("a"), users("b"));
    let proven = env.ok(&["snapshot", "verify", "--prevalence"]);
    assert_eq!(proven.matches("prevalence of 1 tables, 2 identities").count(), 2, "{proven}");
    // What every digest agrees with, and the rows do not.
    let file = |snapshot: &str| {
        let found = files(&env.store().join("prevalence/users"));
        found.into_iter().find(|path| path.to_str().unwrap().contains(snapshot)).unwrap()
    };
    let others = fs::read(file(&first)).unwrap();
    fs::write(file(&second), &others).unwrap();
    let manifest = env.store().join(format!("snapshots/fleet=web/{second}.json"));
    let mut json: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    let entries = json["files"].as_array_mut().unwrap();
    let entry = entries.iter_mut().find(|entry| entry["kind"] == "prevalence").unwrap();
    entry["bytes"] = others.len().into();
    entry["blake3"] = blake3::hash(&others).to_hex().as_str().into();
    fs::write(&manifest, json.to_string()).unwrap();
    let output = env.run(&["snapshot", "verify", "--prevalence"]);
    assert_eq!(output.status, 1, "{}", output.stdout);
    let line = format!("{second}  damaged  prevalence of users: 1 of 2 identities");
    assert!(output.stdout.contains(&line), "{}", output.stdout);
    assert!(output.stdout.contains(&format!("{first}  ok       prevalence")), "{}", output.stdout);
}
