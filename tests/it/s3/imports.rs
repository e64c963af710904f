//! Imports of objects on SeaweedFS.

use std::fs;

use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use serde_json::{Value, json};

use super::weed::{OnS3, READER, config, place, weed};
use crate::env::{Output, TestEnv, write_fleet};
use crate::kill::files;

/// Writes and deletes objects below a place of the bucket.
struct Bucket {
    url: String,
    runtime: tokio::runtime::Runtime,
    store: diffy::store::Store,
    _spool: tempfile::TempDir,
}

impl Bucket {
    fn new(name: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let spool = tempfile::tempdir().unwrap();
        let url = place(name);
        let store = runtime
            .block_on(diffy::store::Store::open_or_create(&url, &config(&weed().url, spool.path())))
            .unwrap();
        Self { url, runtime, store, _spool: spool }
    }

    fn put(&self, key: &str, bytes: impl Into<Vec<u8>>) {
        let payload = PutPayload::from(bytes.into());
        let put = self.store.object_store();
        self.runtime.block_on(put.put(&Path::parse(key).unwrap(), payload)).unwrap();
    }
}

/// A place to run `diffy` in whose store is a directory, with keys that may read the bucket.
fn reader() -> OnS3 {
    let env = TestEnv::new();
    let store = env.store().to_str().unwrap().to_owned();
    OnS3::at(env, store, READER)
}

#[track_caller]
fn import(s3: &OnS3, args: &[&str]) -> Output {
    let ended = s3.run(&[&["import", "--fleet", "web"], args].concat());
    assert_eq!(ended.status, 0, "{}\n{}", ended.stdout, ended.stderr);
    ended
}

fn query(s3: &OnS3, sql: &str) -> Vec<Value> {
    serde_json::from_str(&s3.ok(&["query", "--format", "json", sql])).unwrap()
}

fn fleetctl(host: &str) -> String {
    json!({"host": host, "rows": [{"username": "root"}]}).to_string() + "\n"
}

#[test]
fn objects_are_imported_as_files_are() {
    let bucket = Bucket::new("dumps");
    let local = TestEnv::new();
    write_fleet(&local.path("fleet"), 3, 4);
    for file in files(&local.path("fleet")) {
        let below = file.strip_prefix(local.path("fleet")).unwrap().to_str().unwrap().to_owned();
        let bytes = fs::read(&file).unwrap();
        match below.contains("users") {
            true => bucket.put(&format!("dump/{below}.zst"), zstd::encode_all(bytes.as_slice(), 1).unwrap()),
            false => bucket.put(&format!("dump/{below}"), bytes),
        }
    }
    local.ok(&["import", "fleet", "--fleet", "web"]);
    let s3 = reader();
    import(&s3, &[&format!("{}/dump", bucket.url)]);
    let sql = "SELECT host, table_name, status, rows FROM coverage ORDER BY host, table_name";
    assert_eq!(query(&s3, sql), local.query(sql));
    let spool = s3.env.store().join("spool");
    assert_eq!(fs::read_dir(&spool).unwrap().count(), 0, "no copy is left");
}

#[test]
fn one_object_or_a_prefix_can_be_named() {
    let bucket = Bucket::new("named");
    bucket.put("dump/users.json", fleetctl("web-1"));
    bucket.put("dump/users.json.old/x.json", "{");
    bucket.put("dump/web 7/users.json", r#"[{"username":"bob"}]"#);
    let s3 = reader();
    let url = |key: &str| format!("{}/{key}", bucket.url);
    import(&s3, &[&url("dump/users.json")]);
    let hosts = "SELECT host FROM current.users ORDER BY host";
    assert_eq!(query(&s3, hosts), [json!({"host": "web-1"})]);
    import(&s3, &[&url("dump/web 7/")]);
    assert_eq!(query(&s3, hosts), [json!({"host": "web 7"})]);
    import(&s3, &[&url("dump/web 7/users.json")]);
    assert_eq!(query(&s3, hosts), [json!({"host": "web 7"})]);
    let broken = import(&s3, &[&url("dump")]);
    assert!(broken.stderr.contains(&url("dump/users.json.old")), "{}", broken.stderr);
    assert!(!broken.stderr.contains("spool"), "copies have the names of objects: {}", broken.stderr);
    s3.fails(&["import", "--fleet", "web", &url("nothing")], "there is nothing at");
    s3.fails(
        &["import", "--fleet", "web", "s3://diffy-tests-nowhere/x"],
        "cannot list `s3://diffy-tests-nowhere/x`",
    );
    s3.fails(&["import", "--fleet", "web", "s3:/x"], "two slashes");
    s3.fails(&["import", "--fleet", "web", "--download-limit", "0", &url("dump")], "holds");
}

#[test]
fn new_objects_are_imported_once() {
    let bucket = Bucket::new("once");
    let url = format!("{}/in/", bucket.url);
    bucket.put("in/users-2026-01-05.json", fleetctl("web-1"));
    let s3 = reader();
    let once = |s3: &OnS3| import(s3, &["--once", &url]);
    once(&s3);
    let again = once(&s3);
    assert!(again.stderr.contains("nothing new: 1 files"), "{}", again.stderr);
    bucket.put("in/users-2026-01-06.json", fleetctl("web-2"));
    let ended = s3.run(&["-v", "import", "--fleet", "web", "--once", &url]);
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    let hosts = "SELECT host FROM current.users ORDER BY host";
    assert_eq!(query(&s3, hosts), [json!({"host": "web-2"})]);
    assert!(once(&s3).stderr.contains("nothing new: 2 files"));
    // The same content, written again: looked at, and not imported.
    bucket.put("in/users-2026-01-06.json", fleetctl("web-2"));
    assert!(once(&s3).stderr.contains("nothing new"));
    // Times of objects are whole seconds, and this has the same size: its ETag tells.
    for host in ["web-3", "web-4", "web-5"] {
        bucket.put("in/users-2026-01-06.json", fleetctl(host));
        assert!(once(&s3).stderr.contains("has changed since"));
        assert_eq!(query(&s3, hosts), [json!({"host": host})]);
    }
}

#[test]
fn single_objects_do_not_make_their_neighbours_forgotten() {
    let bucket = Bucket::new("neighbours");
    let url = |key: &str| format!("{}/{key}", bucket.url);
    bucket.put("in/a.json", fleetctl("web-1"));
    bucket.put("in/b.json", fleetctl("web-2"));
    let s3 = reader();
    let once = |key: &str| import(&s3, &["--table", "users", "--once", &url(key)]).stderr;
    assert!(!once("in/a.json").contains("nothing new"));
    assert!(!once("in/b.json").contains("nothing new"));
    assert!(once("in/a.json").contains("nothing new"));
    assert!(once("in/b.json").contains("nothing new"));
    assert!(once("in/").contains("nothing new"));
}

/// What is known is not fetched, and still says what lies beside it.
#[test]
fn a_hunt_whose_combined_rows_are_known_stays_one() {
    let bucket = Bucket::new("hunt");
    let url = format!("{}/hunt/", bucket.url);
    let rows = |hosts: &[&str]| -> String {
        hosts.iter().map(|host| json!({"Fqdn": host, "User": "root"}).to_string() + "\n").collect()
    };
    let all = "hunt/results/All Custom.Users.json";
    bucket.put("hunt/hunt_info.json", "{}");
    bucket.put("hunt/README.md", "hello");
    bucket.put(all, rows(&["web-1"]));
    bucket.put("hunt/web-1-C.1/results/Custom.Users.json", rows(&["web-1"]));
    let s3 = reader();
    let once = || import(&s3, &["--once", &url]).stderr;
    assert!(once().contains("1 of 1 files were new"));
    let again = once();
    assert!(again.contains("nothing new: 1 files") && !again.contains("skipped"), "{again}");
    bucket.put("hunt/web-2-C.2/results/Custom.Users.json", rows(&["web-2"]));
    let told = once();
    assert!(told.contains("nothing new"), "the rows of clients are in `results`: {told}");
    bucket.put(all, rows(&["web-1", "web-2"]));
    assert!(once().contains("1 of 1 files were new"));
    let hosts = query(&s3, "SELECT host FROM current.custom_users ORDER BY host");
    assert_eq!(hosts, [json!({"host": "web-1"}), json!({"host": "web-2"})]);
    assert!(once().contains("nothing new"));
}

#[test]
fn stores_on_s3_remember_too() {
    let s3 = OnS3::new("remember");
    s3.env.write("in/users.json", fleetctl("web-1"));
    import(&s3, &["--once", "in"]);
    assert!(import(&s3, &["--once", "in"]).stderr.contains("nothing new"));
    let verified = s3.ok(&["snapshot", "verify"]);
    assert!(verified.contains("ok"), "{verified}");
    s3.ok(&["snapshot", "prune", "--keep", "0"]);
    assert!(!import(&s3, &["--once", "in"]).stderr.contains("nothing new"));
}
