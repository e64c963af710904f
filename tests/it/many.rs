//! Stores with many snapshots: what a command reads does not grow with them, and requests are counted.

use std::fs;
use std::sync::Arc;

use chrono::TimeDelta;
use diffy::catalog::Catalog;
use diffy::engine::{Engine, EngineConfig, Snapshots};
use diffy::model::{Fleet, SnapshotId, now};
use diffy::store::{Manifest, RequestCounts, Store};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::json;

use crate::env::{TestEnv, requests};

const MANY: usize = 1000;

fn fleet(name: &str) -> Fleet {
    name.parse().unwrap()
}

/// A snapshot without files that began so many days ago.
fn manifest(fleet: &str, days: usize) -> Manifest {
    let snapshot = SnapshotId::new(now() - TimeDelta::days(days as i64));
    serde_json::from_value(json!({
        "format": 1, "snapshot": snapshot, "fleet": fleet, "started": snapshot.time(), "ended": snapshot.time(),
        "collected_by": "tester", "collector": "import", "diffy_version": "0", "identity_version": 1,
        "schemas_blake3": "", "queries": {}, "hosts_asked": 1, "hosts_answered": 1, "hosts_failed": 0, "rows": 0,
        "files": [],
    }))
    .unwrap()
}

fn path(manifest: &Manifest) -> String {
    format!("snapshots/fleet={}/{}.json", manifest.fleet, manifest.snapshot)
}

/// A thousand snapshots of fleet `web`, one a day, and one of `db`; oldest first.
async fn many() -> (Arc<InMemory>, Vec<Manifest>) {
    let memory = Arc::new(InMemory::new());
    let days = (1..MANY).rev().map(|days| manifest("web", days));
    let manifests: Vec<Manifest> = std::iter::once(manifest("db", MANY)).chain(days).collect();
    for manifest in &manifests {
        let bytes = serde_json::to_vec(manifest).unwrap();
        memory.put(&Path::parse(path(manifest)).unwrap(), bytes.into()).await.unwrap();
    }
    (memory, manifests)
}

async fn store_over(memory: &Arc<InMemory>) -> (Store, tempfile::TempDir) {
    memory
        .put(
            &Path::from("diffy-store.json"),
            br#"{"format":1,"created":"","diffy_version":""}"#.to_vec().into(),
        )
        .await
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = Store::over(Arc::clone(memory) as Arc<dyn ObjectStore>, dir.path(), "memory").await.unwrap();
    (store, dir)
}

fn since(store: &Store, before: RequestCounts) -> (u64, u64) {
    let counts = store.requests().counts();
    (counts.get - before.get, counts.list - before.list)
}

#[tokio::test]
async fn the_newest_of_a_thousand_costs_one_manifest() {
    let (memory, manifests) = many().await;
    let (store, _dir) = store_over(&memory).await;
    let before = store.requests().counts();
    let found = store.commits(Some(&fleet("web"))).await.unwrap();
    assert_eq!(found.commits.len(), MANY - 1);
    let newest = store.newest(&found.commits).await.unwrap();
    assert_eq!(newest.manifest.as_ref(), manifests.last());
    assert_eq!(since(&store, before), (1, 1));
    // Damaged ones are passed over and named; where nobody answered is passed over too.
    let end = manifests.len();
    for damaged in &manifests[end - 2..] {
        memory.put(&Path::parse(path(damaged)).unwrap(), b"{".to_vec().into()).await.unwrap();
    }
    let silent = Manifest { hosts_answered: 0, ..manifests[end - 3].clone() };
    let bytes = serde_json::to_vec(&silent).unwrap();
    memory.put(&Path::parse(path(&silent)).unwrap(), bytes.into()).await.unwrap();
    let before = store.requests().counts();
    let newest = store.newest(&found.commits).await.unwrap();
    assert_eq!(newest.manifest, Some(manifests[end - 4].clone()));
    assert_eq!(newest.damaged.len(), 2, "{:?}", newest.damaged);
    assert!(since(&store, before).0 <= 7, "{:?}", since(&store, before));
}

#[tokio::test]
async fn a_query_reads_the_manifests_that_its_filters_leave() {
    let (memory, manifests) = many().await;
    let (store, _dir) = store_over(&memory).await;
    let catalog = Catalog::builtin().unwrap();
    let config = EngineConfig { memory_limit_bytes: 64 << 20, threads: 2, spill_dir: None };
    let day = manifests[500].snapshot.dt();
    for (sql, most) in [
        // The sample in which tables and columns are looked for: the newest of each fleet, and twenty.
        ("SELECT host FROM current.users".to_owned(), 22),
        (format!("SELECT host FROM users WHERE fleet = 'web' AND dt = '{day}'"), 24),
        (format!("SELECT host FROM prev.users WHERE snapshot = '{}'", manifests[300].snapshot), 22),
        ("SELECT count(*) FROM current.snapshots".to_owned(), 2),
        ("SELECT 1".to_owned(), 0),
    ] {
        let commits = store.commits(None).await.unwrap().commits;
        let before = store.requests().counts();
        let engine = Engine::of_store(&store, Snapshots::Named(commits), &catalog, &config).unwrap();
        let sql = sql.replace("SELECT host", "SELECT count(*)");
        engine.collect(&sql, Vec::new()).await.unwrap();
        assert!(since(&store, before).0 <= most, "{sql}: {:?}", since(&store, before));
    }
    // Without filters all are read, once.
    let commits = store.commits(None).await.unwrap().commits;
    let engine = Engine::of_store(&store, Snapshots::Named(commits), &catalog, &config).unwrap();
    let before = store.requests().counts();
    for _ in 0..2 {
        engine.collect("SELECT count(*) FROM snapshots", Vec::new()).await.unwrap();
        engine.collect("SELECT count(*) FROM users", Vec::new()).await.unwrap();
    }
    assert_eq!(since(&store, before).0, MANY as u64);
}

/// A store whose newest snapshot is real, and `MANY` before it, one a day.
fn store_with_many() -> (TestEnv, String) {
    let env = TestEnv::new();
    let users = json!([{"username": "root", "uid": "0"}]);
    let id = env.import_tables(&[("a", "users", users.clone()), ("b", "users", users)]);
    for days in 1..=MANY {
        let manifest = manifest("web", days);
        fs::write(env.store().join(path(&manifest)), serde_json::to_vec(&manifest).unwrap()).unwrap();
    }
    (env, id)
}

#[test]
fn commands_on_the_newest_of_a_thousand_read_little() {
    let (env, id) = store_with_many();
    for (args, most) in [
        (&["snapshot", "show"][..], 2),
        (&["snapshot", "list", "--limit", "3"], 4),
        (&["analyze", "--history", "none"], 24),
        // The manifests of thirty days.
        (&["analyze"], 56),
        (&["query", "SELECT username FROM current.users"], 30),
    ] {
        let ended = env.run(&[&["-v"], args].concat());
        assert_eq!(ended.status, 0, "{}", ended.stderr);
        let counts = requests(&ended.stderr);
        assert!(counts["GET"] <= most && counts["LIST"] <= 8, "{args:?}: {}", ended.stderr);
    }
    assert!(env.ok(&["snapshot", "show"]).contains(&id));
    assert_eq!(env.ok(&["snapshot", "list", "--limit", "3"]).lines().count(), 3);
    let quiet = env.run(&["snapshot", "show"]);
    assert_eq!(quiet.stderr, "");
}

#[test]
fn a_thousand_are_pruned_by_count_and_age() {
    let (env, id) = store_with_many();
    let prune = |args: &[&str]| {
        let ended = env.run(&[&["-v", "snapshot", "prune"], args].concat());
        assert_eq!(ended.status, 0, "{}", ended.stderr);
        let left = env.ok(&["snapshot", "list"]);
        assert!(left.contains(&id), "the newest is gone");
        (left.lines().count(), ended.stderr)
    };
    // Ids say how old they are: nothing is read but the marker.
    let (left, told) = prune(&["--older-than", "700", "--dry-run"]);
    assert_eq!((left, told.matches("would delete").count()), (MANY + 1, MANY - 700 + 1), "{told}");
    assert_eq!(requests(&told)["GET"], 1, "{told}");
    let (left, told) = prune(&["--older-than", "700"]);
    assert_eq!((left, told.matches("deleted ").count()), (700, MANY - 700 + 1));
    assert_eq!(requests(&told)["GET"] as usize, 1 + MANY - 700 + 1);
    let (left, _) = prune(&["--keep", "20", "--older-than", "10"]);
    assert_eq!(left, 20, "of both, what keeps more");
    let (left, _) = prune(&["--keep", "5"]);
    assert_eq!(left, 5);
    env.fails(&["snapshot", "prune", "--older-than", "99999999999999"], 2);
}

#[test]
fn a_damaged_snapshot_does_not_count_as_kept() {
    let env = TestEnv::new();
    let users = |name: &str| json!([{"username": name, "uid": "0"}]);
    let [oldest, older, newest] =
        ["x", "y", "z"].map(|name| env.import_tables(&[("a", "users", users(name))]));
    let manifest = env.store().join(format!("snapshots/fleet=web/{newest}.json"));
    fs::write(&manifest, "{").unwrap();
    env.ok(&["snapshot", "prune", "--keep", "1"]);
    let list = env.ok(&["snapshot", "list"]);
    assert!(list.contains(&older) && !list.contains(&oldest) && manifest.exists(), "{list}");
    let pruned = env.run(&["snapshot", "prune", "--keep", "0"]);
    assert!(pruned.stderr.contains("left alone: manifest") && manifest.exists(), "{}", pruned.stderr);
}

#[test]
fn a_manifest_in_a_wrong_place_is_named_and_not_taken() {
    let env = TestEnv::new();
    let id = env.import_tables(&[("a", "users", json!([{"username": "root", "uid": "0"}]))]);
    let folder = env.store().join("snapshots/fleet=web");
    let text = fs::read(folder.join(format!("{id}.json"))).unwrap();
    let other = SnapshotId::new(now());
    for name in [format!("{other}.json"), "copy.json".to_owned()] {
        fs::write(folder.join(&name), &text).unwrap();
        for args in [&["snapshot", "list"][..], &["snapshot", "show"]] {
            let ended = env.run(args);
            assert!(ended.status == 0 && ended.stdout.contains(&id), "{ended:?}");
            assert!(ended.stderr.contains(&name), "{}", ended.stderr);
        }
        fs::remove_file(folder.join(&name)).unwrap();
    }
}
