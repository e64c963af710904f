//! The store through the program: memory, deletion, and damage that is named and does not spread.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::env::{TestEnv, output};

/// Two snapshots of fleet `web`, the older first.
fn two_snapshots(env: &TestEnv) -> [String; 2] {
    [1, 2].map(|seed| env.import_fleet(3, 0, seed))
}

fn manifest(env: &TestEnv, id: &str) -> PathBuf {
    env.store().join(format!("snapshots/fleet=web/{id}.json"))
}

/// A Parquet file of a snapshot.
fn part(env: &TestEnv, id: &str, table: &str) -> PathBuf {
    let day = fs::read_dir(env.store().join(format!("rows/{table}/fleet=web"))).unwrap();
    let parts = day.flatten().map(|day| day.path().join(format!("snapshot={id}/part-0.parquet")));
    parts.into_iter().find(|part| part.exists()).unwrap()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let below = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    fs::read_dir(dir).unwrap().flatten().flat_map(|entry| below(entry.path())).collect()
}

#[test]
fn a_table_larger_than_the_memory_is_sorted_on_disk() {
    const ROWS: usize = 300_000;
    let env = TestEnv::new();
    let mut file = fs::File::create(env.write("fleet/a/etc_hosts.json", "")).unwrap();
    let mut text = String::from("[");
    for row in 0..ROWS {
        let comma = if row == 0 { "" } else { "," };
        text.push_str(&format!(
            r#"{comma}{{"address":"10.0.{}.{}","hostnames":"{}.example"}}"#,
            row / 256,
            row % 256,
            blake3::hash(&row.to_le_bytes())
        ));
    }
    file.write_all((text + "]").as_bytes()).unwrap();
    let mut child =
        env.diffy(&["import", "fleet", "--fleet", "web", "--memory-limit", "16"]).spawn().unwrap();
    let mut spilled = 0;
    while child.try_wait().unwrap().is_none() {
        let runs = fs::read_dir(env.store().join("spool")).into_iter().flatten().flatten();
        let runs = runs.filter(|entry| entry.path().is_dir()).flat_map(|dir| runs_below(&dir.path()));
        spilled = spilled.max(runs.sum::<u64>());
        std::thread::yield_now();
    }
    let ended = output(child.wait_with_output().unwrap());
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    assert!(spilled > 0, "everything fitted into memory");
    assert_eq!(env.query_one("SELECT count(*) AS n FROM etc_hosts"), ROWS);
    assert_eq!(env.query_one("SELECT count(DISTINCT strict_id) AS n FROM etc_hosts"), ROWS);
    assert_eq!(env.query_one("SELECT sum(hosts) AS n FROM prev.etc_hosts"), ROWS);
    assert!(fs::read_dir(env.store().join("spool")).unwrap().next().is_none(), "sort runs are gone");
    env.ok(&["snapshot", "verify"]);
}

/// Sizes of files below a directory that may vanish.
fn runs_below(dir: &Path) -> Vec<u64> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let size = |path: PathBuf| match fs::metadata(&path) {
        Ok(meta) if meta.is_dir() => runs_below(&path),
        Ok(meta) => vec![meta.len()],
        Err(_) => Vec::new(),
    };
    entries.flat_map(|entry| size(entry.path())).collect()
}

#[test]
fn deleting_a_snapshot_removes_all_of_it_and_nothing_else() {
    let env = TestEnv::new();
    let before = files_of(&env, "");
    assert!(before.is_empty());
    let [older, newer] = two_snapshots(&env);
    let kept = files_of(&env, &older);
    env.ok(&["snapshot", "delete", &newer]);
    assert_eq!(files_of(&env, &older), kept);
    assert_eq!(files_of(&env, ""), [kept, vec![env.store().join("diffy-store.json")]].concat());
    env.ok(&["snapshot", "verify", &older]);
    let told = env.fails(&["snapshot", "delete", &newer], 2);
    assert!(told.contains(&newer), "{told}");
}

/// Files whose path has `part` in it, sorted.
fn files_of(env: &TestEnv, part: &str) -> Vec<PathBuf> {
    if !env.store().exists() {
        return Vec::new();
    }
    let mut found = files(&env.store());
    found.retain(|path| path.to_str().unwrap().contains(part));
    found.sort_by_key(|path| (path.ends_with("diffy-store.json"), path.clone()));
    found
}

#[test]
fn a_damaged_manifest_is_named_and_costs_one_snapshot() {
    let env = TestEnv::new();
    let [older, newer] = two_snapshots(&env);
    let rows = env.query_one(&format!("SELECT count(*) AS n FROM processes WHERE snapshot = '{older}'"));
    let whole = fs::read(manifest(&env, &newer)).unwrap();
    fs::write(manifest(&env, &newer), &whole[..whole.len() / 2]).unwrap();
    let name = format!("snapshots/fleet=web/{newer}.json");

    let list = env.run(&["snapshot", "list"]);
    assert!(list.status == 0 && list.stdout.contains(&older) && list.stderr.contains(&name), "{list:?}");
    assert_eq!(env.query_one("SELECT count(*) AS n FROM processes"), rows);
    let analysis = env.run(&["analyze", "--format", "json"]);
    assert!(analysis.status == 0 && analysis.stdout.contains(&older), "{analysis:?}");
    assert!(
        analysis.stderr.contains(&name),
        "an older snapshot was analysed without a word: {}",
        analysis.stderr
    );
    assert!(analysis.stderr.contains(&format!("{older} is taken, which is older")), "{}", analysis.stderr);
    assert!(env.fails(&["snapshot", "verify"], 1).contains(&name));
    let pruned = env.run(&["snapshot", "prune", "--orphans"]);
    assert_eq!(pruned.status, 0, "{}", pruned.stderr);

    let other =
        String::from_utf8(whole.clone()).unwrap().replace(r#""table": "processes""#, r#""table": "x; --""#);
    assert_ne!(other.as_bytes(), whole);
    fs::write(manifest(&env, &newer), other).unwrap();
    assert!(env.fails(&["snapshot", "verify"], 1).contains("`x; --` is no table name"));

    fs::write(manifest(&env, &newer), whole).unwrap();
    env.ok(&["snapshot", "verify"]);
}

#[test]
fn every_damage_of_a_part_is_named() {
    let env = TestEnv::new();
    let [older, newer] = two_snapshots(&env);
    let part = part(&env, &newer, "processes");
    let whole = fs::read(&part).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [&whole[..whole.len() - 1], &whole[..10], &[], &flipped] {
        fs::write(&part, damaged).unwrap();
        let verified = env.run(&["snapshot", "verify"]);
        assert_eq!(verified.status, 1, "{verified:?}");
        let line = verified.stdout.lines().find(|line| line.contains("damaged")).unwrap();
        assert!(
            line.contains(&newer) && line.contains("rows/processes/") && line.contains("part-0.parquet"),
            "{line}"
        );
        assert!(verified.stdout.contains(&format!("{older}  ok")), "{}", verified.stdout);
    }
    fs::remove_file(&part).unwrap();
    assert_eq!(env.run(&["snapshot", "verify", &newer]).status, 1);
    env.fails(&["query", "SELECT count(DISTINCT path) FROM processes"], 1);
    env.ok(&["query", &format!("SELECT count(DISTINCT path) FROM processes WHERE snapshot = '{older}'")]);
    fs::write(&part, whole).unwrap();
    env.ok(&["snapshot", "verify"]);
}

#[test]
fn what_is_no_spool_is_named_and_can_be_removed() {
    let env = TestEnv::new();
    env.import_tables(&[("a", "etc_hosts", json!([{"address": "::1"}]))]);
    let id = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    for bytes in [&b""[..], b"DIFFYSP", b"DIFFYSP1", b"PAR1 is something else"] {
        fs::write(env.store().join(format!("spool/{id}.spool")), bytes).unwrap();
        let told = env.fails(&["snapshot", "recover"], 1);
        assert!(told.contains(id) && told.contains("prune --orphans"), "{told}");
        env.ok(&["snapshot", "prune", "--orphans", "--dry-run"]);
        assert_eq!(fs::read_dir(env.store().join("spool")).unwrap().count(), 1);
        env.ok(&["snapshot", "prune", "--orphans"]);
        assert_eq!(fs::read_dir(env.store().join("spool")).unwrap().count(), 0);
    }
    env.ok(&["snapshot", "verify"]);
}

#[test]
fn sort_runs_of_no_collection_are_pruned() {
    let env = TestEnv::new();
    env.import_tables(&[("a", "etc_hosts", json!([{"address": "::1"}]))]);
    env.write("diffy-store/spool/01ARZ3NDEKTSV4RRFFQ69G5FAV.sort-abc/run", "x");
    env.write("diffy-store/spool/01ARZ3NDEKTSV4RRFFQ69G5FAV.new", "x");
    env.write("diffy-store/spool/notes.txt", "not ours");
    env.ok(&["snapshot", "prune", "--orphans"]);
    assert_eq!(files(&env.store().join("spool")), [env.store().join("spool/notes.txt")]);
}
