//! The program with its store on SeaweedFS.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use diffy::simulate::SimulationConfig;
use futures::TryStreamExt;
use object_store::ObjectStore;
use serde_json::Value;

use super::weed::{BUCKET, OnS3, WRITER, config, weed};
use crate::env::{TestEnv, requests, run_python, snapshot_id, write_fleet, write_simulation};

fn rows(s3: &OnS3, sql: &str) -> Vec<Value> {
    serde_json::from_str(&s3.ok(&["query", "--format", "json", sql])).unwrap()
}

/// Objects of a store, below its root.
fn objects(store: &str) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let all = diffy::store::Store::open(store, &config(&weed().url, dir.path())).await;
        // Not there yet.
        let Ok(all) = all else { return Vec::new() };
        let listed = all.object_store().list(None).map_ok(|meta| meta.location.to_string());
        listed.try_collect().await.unwrap()
    })
}

#[test]
fn a_store_on_s3_does_what_a_directory_does() {
    let s3 = OnS3::new("whole");
    write_simulation(&s3.env.path("fleet"), SimulationConfig::new(12, 1, 5));
    let import = ["import", "fleet", "--fleet", "web"];
    let (id, second) = (snapshot_id(&s3.ok(&import)), snapshot_id(&s3.ok(&import)));
    let local = TestEnv::new();
    write_simulation(&local.path("fleet"), SimulationConfig::new(12, 1, 5));
    local.ok(&import);
    spools_are_private_and_gone(&s3);
    assert_eq!(s3.ok(&["snapshot", "list"]).lines().count(), 2);
    assert!(s3.ok(&["snapshot", "verify"]).lines().all(|line| line.contains("ok")));
    let sql = "SELECT path, count(*) AS n FROM current.processes GROUP BY path ORDER BY path";
    assert_eq!(rows(&s3, sql), local.query(sql));
    let analyze = |text: &str| {
        let analysis: Value = serde_json::from_str(text).unwrap();
        let hosts = analysis["hosts"].as_array().unwrap().iter();
        hosts.map(|host| (host["host"].clone(), host["host_score"].clone())).collect::<Vec<_>>()
    };
    let args = ["analyze", "--format", "json", "--keep", "--history", "none"];
    assert_eq!(analyze(&s3.ok(&args)), analyze(&local.ok(&args)));
    assert!(!rows(&s3, "SELECT * FROM findings").is_empty());
    s3.ok(&["baseline", "create", "gold"]);
    assert!(s3.ok(&["baseline", "list"]).contains("gold"));
    duckdb_reads_it(&s3, &second);
    s3.ok(&["snapshot", "delete", &id]);
    assert!(!objects(&s3.store).iter().any(|path| path.contains(&id)));
    s3.ok(&["snapshot", "prune", "--keep", "0"]);
    assert_eq!(s3.ok(&["snapshot", "list"]), "");
}

fn spools_are_private_and_gone(s3: &OnS3) {
    let spool = s3.env.path("home/state/diffy/spool");
    let [of_store] = fs::read_dir(&spool).unwrap().flatten().collect::<Vec<_>>().try_into().unwrap();
    for dir in [&spool, &of_store.path()] {
        assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700, "{}", dir.display());
    }
    let names: Vec<_> =
        fs::read_dir(of_store.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["store"]);
}

/// Through DuckDB's own reader for S3.
fn duckdb_reads_it(s3: &OnS3, snapshot: &str) {
    const PROGRAM: &str = "
import duckdb, duckdb_extension_httpfs, glob, json, os, sys
endpoint, key, secret, store, snapshot, ddl = sys.argv[1:]
connection = duckdb.connect()
[extension] = glob.glob(os.path.dirname(duckdb_extension_httpfs.__file__) + '/extensions/*/httpfs.duckdb_extension')
connection.sql(f\"LOAD '{extension}'\")
connection.sql(f\"CREATE SECRET (TYPE s3, KEY_ID '{key}', SECRET '{secret}', ENDPOINT '{endpoint}', URL_STYLE 'path', USE_SSL false)\")
for kind in ['rows', 'prevalence']:
    files = f\"read_parquet('{store}/{kind}/users/**/*.parquet', hive_partitioning = true)\"
    print(connection.sql(f\"SELECT count(*) FROM {files} WHERE snapshot = '{snapshot}'\").fetchone()[0])
connection.execute(ddl)
for database in ['diffy', 'diffy_prev']:
    print(connection.sql(f\"SELECT count(*) FROM {database}.users WHERE snapshot = '{snapshot}'\").fetchone()[0])
";
    let endpoint = weed().url.strip_prefix("http://").unwrap();
    let ddl = s3.ok(&["store", "ddl", "--dialect", "duckdb", "--table", "users"]);
    let args = [endpoint, WRITER.0, WRITER.1, &s3.store, snapshot, &ddl];
    let theirs = run_python(&s3.env, PROGRAM, &args);
    let count = |table: &str| {
        let sql = format!("SELECT count(*) AS n FROM {table}.users WHERE snapshot = '{snapshot}'");
        rows(s3, &sql)[0]["n"].to_string()
    };
    assert_eq!(theirs, format!("{}\n{}\n", count("public"), count("prev")).repeat(2));
}

#[test]
fn a_collector_killed_before_its_manifest_is_recovered() {
    let s3 = OnS3::new("killed");
    write_fleet(&s3.env.path("fleet"), 8, 3);
    for attempt in 0.. {
        assert!(attempt < 10, "never killed in time");
        let mut child = s3.command(&["import", "fleet", "--fleet", "web"]).spawn().unwrap();
        while !objects(&s3.store).iter().any(|path| path.starts_with("rows/")) {
            assert!(child.try_wait().unwrap().is_none_or(|ended| ended.success()));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if !objects(&s3.store).iter().any(|path| path.starts_with("snapshots/")) {
            break;
        }
        s3.ok(&["snapshot", "prune", "--keep", "0"]);
    }
    assert_eq!(s3.ok(&["snapshot", "list"]), "");
    // From another machine it may be running.
    let other = OnS3::at(TestEnv::new(), s3.store.clone(), WRITER);
    let before = objects(&s3.store);
    for args in [&["snapshot", "prune", "--orphans"][..], &["snapshot", "recover"]] {
        let ended = other.run(args);
        assert!(ended.status == 0 && ended.stderr.contains("is left alone"), "{}", ended.stderr);
    }
    assert_eq!(objects(&s3.store), before);
    let id = snapshot_id(&s3.ok(&["snapshot", "recover"]));
    assert!(s3.ok(&["snapshot", "verify"]).contains("ok"));
    let local = TestEnv::new();
    write_fleet(&local.path("fleet"), 8, 3);
    local.ok(&["import", "fleet", "--fleet", "web"]);
    let sql = "SELECT table_name, CAST(sum(rows) AS BIGINT) AS n FROM coverage GROUP BY table_name ORDER BY table_name";
    assert_eq!(rows(&s3, sql), local.query(sql));
    assert!(objects(&s3.store).iter().all(|path| path.contains(&id) || path == "diffy-store.json"));
    assert!(s3.ok(&["snapshot", "prune", "--orphans"]).is_empty());
}

#[test]
fn small_files_take_one_request_each() {
    let s3 = OnS3::new("requests");
    write_fleet(&s3.env.path("fleet"), 4, 9);
    let ended = s3.run(&["-vv", "import", "fleet", "--fleet", "web"]);
    let count = |action: &str| ended.stderr.matches(action).count();
    let objects = objects(&s3.store).len();
    assert_eq!(count("s3:PutObject"), objects, "{}", ended.stderr);
    assert_eq!(count("s3:CreateMultipartUpload"), 0);
    assert!(count("s3:ListBucket") <= 8, "{}", ended.stderr);
    assert!(objects > 20, "{objects} objects in {BUCKET}");
}

#[test]
fn an_analysis_takes_about_a_request_for_each_file() {
    let s3 = OnS3::new("analysis");
    write_simulation(&s3.env.path("fleet"), SimulationConfig::new(20, 1, 5));
    s3.ok(&["import", "fleet", "--fleet", "web"]);
    let manifest: Value = serde_json::from_str(&s3.ok(&["snapshot", "show", "--json"])).unwrap();
    let files = manifest["files"].as_array().unwrap().len() as u64;
    let counts = |args: &[&str]| {
        let ended = s3.run(&[&["-v"], args].concat());
        assert_eq!(ended.status, 0, "{}", ended.stderr);
        requests(&ended.stderr)
    };
    let first = counts(&["analyze"]);
    // Marker, manifest, and each file at most once.
    assert!(first["GET"] <= files + 2 && first["LIST"] <= 3, "{files} files, {first:?}");
    assert_eq!((first["PUT"], first["DELETE"]), (0, 0));
    // With a past: its manifest, its prevalence, hosts and coverage.
    s3.ok(&["import", "fleet", "--fleet", "web"]);
    let second = counts(&["analyze"]);
    assert!(
        second["GET"] <= first["GET"] + files / 2 + 3 && second["LIST"] <= 3,
        "{files} files, {second:?}"
    );
    let query = counts(&["query", "SELECT username FROM current.users"]);
    // Marker, two manifests, two files for their columns, one of them for its rows.
    assert!(query["GET"] <= 5 && query["LIST"] <= 1, "{query:?}");
}
