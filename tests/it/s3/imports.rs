//! Imports of objects on SeaweedFS.

use std::fs;

use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use serde_json::{Value, json};

use super::weed::{BUCKET, OnS3, READER, WRITER, config, place, weed};
use crate::env::{Output, TestEnv, run_python, write_fleet};
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

    /// When an object was written; S3 tells whole seconds.
    fn modified(&self, key: &str) -> i64 {
        let head = self.store.object_store();
        self.runtime.block_on(head.head(&Path::parse(key).unwrap())).unwrap().last_modified.timestamp_millis()
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
    let fetched = |s3: &OnS3| {
        let ended = s3.run(&["-vv", "import", "--fleet", "web", "--once", &url]);
        assert_eq!(ended.status, 0, "{}", ended.stderr);
        (ended.stderr.matches("s3:GetObject").count(), ended.stderr)
    };
    assert_eq!(fetched(&s3).0, 1);
    let (again, told) = fetched(&s3);
    assert!(again == 0 && told.contains("nothing new: 1 files"), "{told}");
    bucket.put("in/users-2026-01-06.json", fleetctl("web-2"));
    assert_eq!(fetched(&s3).0, 1, "what is known is not fetched again");
    let hosts = "SELECT host FROM current.users ORDER BY host";
    assert_eq!(query(&s3, hosts), [json!({"host": "web-2"})]);
    assert!(once(&s3).stderr.contains("nothing new: 2 files"));
    // The same content, written again: looked at, and not imported.
    bucket.put("in/users-2026-01-06.json", fleetctl("web-2"));
    assert!(once(&s3).stderr.contains("nothing new"));
    // Written again within a second, with the same size: its ETag tells.
    let was_within_a_second = (0..50).any(|turn| {
        let (one, other) = (format!("web-{}", 100 + 2 * turn), format!("web-{}", 101 + 2 * turn));
        bucket.put("in/users-2026-01-06.json", fleetctl(&one));
        let before = bucket.modified("in/users-2026-01-06.json");
        once(&s3);
        bucket.put("in/users-2026-01-06.json", fleetctl(&other));
        let is_within = bucket.modified("in/users-2026-01-06.json") == before;
        assert!(once(&s3).stderr.contains("has changed since"));
        assert_eq!(query(&s3, hosts), [json!({"host": other})]);
        is_within
    });
    assert!(was_within_a_second, "no import takes less than a second");
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

/// What the console makes for a folder has a name that ends in a slash, which is lost when it is listed.
#[test]
fn a_folder_of_the_console_stops_nothing() {
    const PROGRAM: &str = "
import boto3, sys
endpoint, key, secret, bucket, *folders = sys.argv[1:]
s3 = boto3.client('s3', endpoint_url=endpoint, aws_access_key_id=key, aws_secret_access_key=secret, region_name='us-east-1')
for folder in folders:
    s3.put_object(Bucket=bucket, Key=folder, Body=b'')
";
    let bucket = Bucket::new("folders");
    bucket.put("in/web-1/users.json", r#"[{"username":"bob"}]"#);
    let prefix = bucket.url.strip_prefix(&format!("s3://{BUCKET}/")).unwrap();
    let folders = ["in/", "in/web-1/", "in/web-2/"].map(|folder| format!("{prefix}/{folder}"));
    let mut args = vec![weed().url.as_str(), WRITER.0, WRITER.1, BUCKET];
    args.extend(folders.iter().map(String::as_str));
    let s3 = reader();
    run_python(&s3.env, PROGRAM, &args);
    let url = format!("{}/in/", bucket.url);
    for turn in ["", "--once"] {
        let flags: Vec<&str> = [turn, &url].into_iter().filter(|flag| !flag.is_empty()).collect();
        let told = import(&s3, &flags).stderr;
        assert!(told.contains("in/web-2: a folder, or gone since it was listed"), "{told}");
        assert_eq!(query(&s3, "SELECT host FROM current.users"), [json!({"host": "web-1"})]);
    }
    assert!(import(&s3, &["--once", &url]).stderr.contains("nothing new: 1 files"));
}
