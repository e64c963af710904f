//! Bad input: each has a clear message, and leaves the store sound.

use std::fs;
use std::io::Write;

use serde_json::{Value, json};

use crate::env::{Output, TestEnv, snapshot_id};

/// A store with one snapshot, whose only user is `before`.
fn store_with_one() -> TestEnv {
    let env = TestEnv::new();
    env.import_tables(&[("h", "users", json!([{"username": "before", "uid": "1"}]))]);
    env
}

/// The store opens, every byte is as it was written, and what was there before can be asked.
#[track_caller]
fn is_sound(env: &TestEnv) {
    env.ok(&["snapshot", "verify"]);
    assert_eq!(env.query_one("SELECT count(*) AS n FROM users WHERE username = 'before'"), 1);
}

/// Imports one file of one host, which makes a snapshot; what was wrong with it is in stderr and in the coverage.
#[track_caller]
fn import_users(env: &TestEnv, bytes: impl AsRef<[u8]>) -> Output {
    env.write("dump/bad/users.json", bytes);
    let output = env.run(&["import", "dump", "--fleet", "web"]);
    let failed = output.stderr.contains("error: no host answered; snapshot");
    assert_eq!(output.status, i32::from(failed), "{}", output.stderr);
    is_sound(env);
    output
}

/// Status and error of host `bad` for `users`, in the newest snapshot.
fn coverage(env: &TestEnv) -> (String, String) {
    let rows =
        env.query("SELECT status, error FROM current.coverage WHERE host = 'bad' AND table_name = 'users'");
    let text = |name: &str| rows[0][name].as_str().unwrap().to_owned();
    (text("status"), text("error"))
}

/// Users of host `bad` in the newest snapshot.
fn names(env: &TestEnv) -> Vec<Value> {
    let rows = env.query("SELECT username FROM current.users WHERE host = 'bad' ORDER BY username");
    rows.into_iter().map(|mut row| row["username"].take()).collect()
}

/// Runs `diffy` so that permissions count, for root too.
fn unprivileged(env: &TestEnv, args: &str) -> Output {
    let drop = "setpriv --bounding-set=-dac_override,-dac_read_search";
    let weak = format!("if {drop} true 2>/dev/null; then set -- {drop}; fi");
    env.sh(&format!("{weak}; exec \"$@\" $DIFFY {args}"))
}

/// Runs `diffy` where no file may grow beyond so many blocks of 512 bytes: what a full disk looks like from inside.
fn with_little_space(env: &TestEnv, blocks: u32, args: &str) -> Output {
    env.sh(&format!("trap '' XFSZ; ulimit -f {blocks}; exec $DIFFY {args}"))
}

#[test]
fn a_missing_file() {
    let env = store_with_one();
    let stderr = env.fails(&["import", "nowhere", "--fleet", "web"], 2);
    assert!(stderr.contains("cannot read `nowhere`") && stderr.contains("nothing was imported"), "{stderr}");
    is_sound(&env);
}

#[test]
fn an_unreadable_file() {
    use std::os::unix::fs::PermissionsExt;
    let env = store_with_one();
    let path = env.write("dump/bad/users.json", "[]");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    let output = unprivileged(&env, "import dump --fleet web");
    assert_eq!(output.status, 1, "{}", output.stderr);
    assert!(output.stderr.contains("no host answered; snapshot"), "{}", output.stderr);
    let expected = "cannot read `dump/bad/users.json`: Permission denied";
    assert!(output.stderr.contains(expected), "{}", output.stderr);
    let (status, error) = coverage(&env);
    assert!(status == "error" && error.contains(expected), "{status}: {error}");
    is_sound(&env);
}

#[test]
fn a_broken_archive() {
    let env = store_with_one();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    encoder.write_all(&vec![b' '; 10_000]).unwrap();
    let packed = encoder.finish().unwrap();
    let path = env.write("log.gz", &packed[..packed.len() / 2]);
    let output = env.run(&["import", path.to_str().unwrap(), "--fleet", "web"]);
    assert_eq!(output.status, 1, "{}", output.stdout);
    assert!(output.stderr.contains("log.gz"), "{}", output.stderr);
    is_sound(&env);
}

#[test]
fn a_directory_without_hosts() {
    let env = store_with_one();
    fs::create_dir(env.path("empty")).unwrap();
    let stderr = env.fails(&["import", "empty", "--fleet", "web"], 1);
    assert!(stderr.contains("found no host") && stderr.contains("HOST/TABLE.json"), "{stderr}");
    is_sound(&env);
}

#[test]
fn what_is_not_a_store() {
    let env = store_with_one();
    env.write("other/readme", "mine");
    env.write("file", "mine");
    env.write("dump/h/users.json", "[]");
    for command in
        [&["snapshot", "list"][..], &["analyze"], &["query", "SELECT 1"], &["import", "dump", "--fleet", "x"]]
    {
        for place in ["other", "file"] {
            let args = [command, &["--store", place]].concat();
            let output = env.run(&args);
            let is_import_to_file = place == "file" && command[0] == "import";
            let expected = match is_import_to_file {
                true => "cannot create store `file`".to_owned(),
                false => format!("`{place}` is not a Diffy store"),
            };
            assert_eq!(output.status, if is_import_to_file { 1 } else { 2 }, "{args:?}: {}", output.stderr);
            assert!(output.stderr.contains(&expected), "{args:?}: {}", output.stderr);
        }
    }
    let left: Vec<_> =
        fs::read_dir(env.path("other")).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["readme"], "nothing was written there");
    let stderr = env.fails(&["analyze", "--store", "nowhere"], 2);
    assert!(stderr.contains("there is no store at `nowhere`"), "{stderr}");
    assert!(!env.path("nowhere").exists());
}

#[test]
fn a_store_of_a_newer_format() {
    let env = store_with_one();
    let marker = env.store().join("diffy-store.json");
    let text = fs::read_to_string(&marker).unwrap();
    fs::write(&marker, text.replace("\"format\": 1", "\"format\": 99")).unwrap();
    env.write("dump/h/users.json", "[]");
    for args in [&["snapshot", "list"][..], &["query", "SELECT 1"], &["import", "dump", "--fleet", "web"]] {
        let stderr = env.fails(args, 1);
        assert!(
            stderr.contains("has format 99") && stderr.contains("use a newer Diffy"),
            "{args:?}: {stderr}"
        );
    }
    fs::write(&marker, text).unwrap();
    is_sound(&env);
}

/// Rewrites the newest manifest.
fn edit_manifest(env: &TestEnv, edit: impl Fn(&str) -> String) {
    let snapshot = env.json(&["snapshot", "show", "--json"])["snapshot"].as_str().unwrap().to_owned();
    let path = env.store().join(format!("snapshots/fleet=web/{snapshot}.json"));
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, edit(&text)).unwrap();
}

#[test]
fn a_manifest_that_cannot_be_read() {
    for (edit, expected) in [
        (
            &(|text: &str| text.replacen("\"format\": 1", "\"format\": 99", 1)) as &dyn Fn(&str) -> String,
            "has format 99",
        ),
        (&|text: &str| text[..text.len() / 2].to_owned(), "cannot be read"),
        (&|_: &str| String::new(), "cannot be read"),
    ] {
        let env = store_with_one();
        let second = env.import_tables(&[("h", "users", json!([{"username": "after", "uid": "1"}]))]);
        edit_manifest(&env, edit);
        // Said, and the others are still there.
        let output = env.run(&["query", "--format", "csv", "SELECT username FROM users"]);
        assert_eq!((output.status, output.stdout.as_str()), (0, "username\nbefore\n"), "{}", output.stderr);
        assert!(output.stderr.contains(expected) && output.stderr.contains(&second), "{}", output.stderr);
        let stderr = env.fails(&["snapshot", "verify"], 1);
        assert!(stderr.contains(expected) && stderr.contains(&second), "{stderr}");
        // Its files are no leftovers.
        env.ok(&["snapshot", "prune", "--orphans"]);
        let stderr = env.fails(&["analyze", "--snapshot", &second], 1);
        assert!(stderr.contains(expected), "{stderr}");
        let rows = env.store().join("rows/users/fleet=web");
        let days = fs::read_dir(rows).unwrap().flatten();
        let snapshots = days.flat_map(|day| fs::read_dir(day.path()).unwrap().flatten());
        assert!(snapshots.into_iter().any(|dir| dir.file_name().to_string_lossy().contains(&second)));
    }
}

#[test]
fn truncated_json() {
    let env = store_with_one();
    let output = import_users(&env, r#"[{"username":"kept"},{"usern"#);
    assert!(output.stderr.contains("dump/bad/users.json:1:22: the input ends inside"), "{}", output.stderr);
    let (status, error) = coverage(&env);
    assert!(status == "truncated" && error.contains("the input ends"), "{status}: {error}");
    assert_eq!(names(&env), ["kept"]);
}

#[test]
fn mixed_json() {
    let env = store_with_one();
    let output = import_users(&env, r#"[[1,2],{"username":"a"},7,null,"x",{"username":{"n":[1]}}]"#);
    assert!(output.stderr.contains("users.json:1:2: expected a row, found `[1,2]`"), "{}", output.stderr);
    assert_eq!(names(&env), ["a", r#"{"n":[1]}"#], "rows are kept, and a nested value as its JSON");
    assert_eq!(coverage(&env).0, "truncated");
    let output = import_users(&env, "Warning: something\n[{\"username\":\"b\"}]");
    assert_eq!(names(&env), ["b"], "{}", output.stderr);
}

#[test]
fn an_object_where_rows_should_be() {
    let env = store_with_one();
    let output = import_users(&env, r#"{"username":"a"}"#);
    assert!(output.stderr.contains("expected an array of rows, found a single object"), "{}", output.stderr);
    assert_eq!(coverage(&env).0, "error");
}

#[test]
fn a_row_of_10_000_columns() {
    let env = store_with_one();
    let mut row = serde_json::Map::from_iter([("username".to_owned(), json!("wide"))]);
    row.extend((0..10_000).map(|number| (format!("c{number}"), json!(number.to_string()))));
    let output = import_users(&env, json!([row]).to_string());
    assert!(output.stderr.contains("over 512 columns"), "{}", output.stderr);
    assert_eq!(names(&env), ["wide"]);
    let extra = env.query_one("SELECT extra FROM current.users WHERE host = 'bad'");
    assert!(extra.to_string().contains("c9999"), "nothing is dropped");
}

#[test]
fn a_cell_of_100_megabytes() {
    let env = store_with_one();
    let mut json = br#"[{"username":"first"},{"username":""#.to_vec();
    json.resize(json.len() + 100_000_000, b'x');
    json.extend_from_slice(br#""},{"username":"last"}]"#);
    let output = import_users(&env, json);
    assert!(output.stderr.contains("1 cells were cut"), "{}", output.stderr);
    let kept =
        env.query("SELECT length(username) AS n, extra FROM current.users WHERE host = 'bad' ORDER BY 1");
    let lengths: Vec<u64> = kept.iter().map(|row| row["n"].as_u64().unwrap()).collect();
    assert_eq!(lengths, [4, 5, 1 << 20], "cut, and the rows around it are whole");
    assert!(kept[2]["extra"].to_string().contains("100000000"), "the full length is known");
    assert_eq!(coverage(&env).0, "truncated");
}

#[test]
fn two_hosts_of_one_name() {
    let env = store_with_one();
    env.write("d1/twin/users.json", r#"[{"username":"a"}]"#);
    env.write("d2/twin/users.json", r#"[{"username":"b"}]"#);
    let stderr = env.fails(&["import", "d1", "d2", "--fleet", "web"], 2);
    assert!(stderr.contains("are the same host `twin`"), "{stderr}");
    assert_eq!(env.ok(&["snapshot", "list"]).lines().count(), 1);
    assert_eq!(env.run(&["snapshot", "recover"]).stderr, "nothing was interrupted\n");
    is_sound(&env);
}

#[test]
fn an_empty_table_an_empty_file_and_an_empty_host() {
    let env = store_with_one();
    import_users(&env, "[]");
    assert_eq!(coverage(&env), ("empty".to_owned(), String::new()));
    import_users(&env, "");
    assert_eq!(coverage(&env), ("error".to_owned(), "empty file".to_owned()));
    fs::remove_file(env.path("dump/bad/users.json")).unwrap();
    env.write("dump/good/users.json", "[]");
    let stdout = env.ok(&["import", "dump", "--fleet", "web"]);
    assert!(stdout.contains("2 asked, 1 answered, 1 failed"), "{stdout}");
    assert_eq!(coverage(&env).0, "not_asked");
    let table = env.ok(&["analyze"]);
    assert!(table.contains("1 host did not answer"), "{table}");
    is_sound(&env);
}

#[test]
fn a_clock_in_the_future() {
    let env = store_with_one();
    // A log from a host whose clock is wrong.
    let line = json!({"name": "users", "hostIdentifier": "bad", "unixTime": 4_102_444_800_u64, "epoch": 0,
                      "counter": 0, "action": "snapshot", "snapshot": [{"username": "late"}]});
    env.write("log", line.to_string());
    env.ok(&["import", "log", "--fleet", "web"]);
    assert_eq!(names(&env), ["late"]);
    // A snapshot that a machine with a wrong clock made: an id of the year 2262.
    let future = "08N0000000TSV4RRFFQ69G5FAV";
    let id = env.json(&["snapshot", "show", "--json"])["snapshot"].as_str().unwrap().to_owned();
    let manifest = env.store().join(format!("snapshots/fleet=web/{id}.json"));
    let moved = manifest.with_file_name(format!("{future}.json"));
    let text = fs::read_to_string(&manifest).unwrap();
    let mut text: Value = serde_json::from_str(&text).unwrap();
    text["snapshot"] = json!(future);
    text["started"] = json!("2262-01-01T00:00:00Z");
    fs::write(&moved, text.to_string()).unwrap();
    fs::remove_file(&manifest).unwrap();
    let analysis = env.json(&["analyze", "--format", "json"]);
    assert_eq!(analysis["snapshot"], future);
    let warnings = analysis["warnings"].to_string();
    assert!(warnings.contains("from the future"), "{warnings}");
    let output = env.run(&["import", "log", "--fleet", "web"]);
    assert_eq!(output.status, 0, "{}", output.stderr);
    assert!(output.stderr.contains("from the future") && output.stderr.contains(future), "{}", output.stderr);
    is_sound(&env);
}

#[test]
fn a_directory_that_may_not_be_written() {
    let env = store_with_one();
    env.write("dump/h/users.json", "[]");
    let locked = env.sh("chmod -R a-w diffy-store");
    assert_eq!(locked.status, 0);
    for args in ["import dump --fleet web", "collect --collector native --tables users --fleet web"] {
        let output = unprivileged(&env, args);
        assert_eq!(output.status, 1, "{args}: {}", output.stderr);
        let is_clear =
            output.stderr.contains("Permission denied") && output.stderr.contains("must be writable");
        assert!(is_clear, "{args}: {}", output.stderr);
    }
    let output = unprivileged(&env, "baseline create");
    assert_eq!(output.status, 1, "{}", output.stderr);
    assert!(output.stderr.contains("permissions"), "{}", output.stderr);
    let output = unprivileged(&env, "query --format csv 'SELECT username FROM users'");
    assert_eq!(output.stdout, "username\nbefore\n", "what may be read can be asked: {}", output.stderr);
    let output = unprivileged(&env, "import dump --fleet web --store diffy-store/new");
    assert_eq!(output.status, 1, "{}", output.stderr);
    assert!(output.stderr.contains("cannot create store `diffy-store/new`"), "{}", output.stderr);
    env.sh("chmod -R u+w diffy-store");
    is_sound(&env);
}

#[test]
fn a_full_disk_while_hosts_answer() {
    let env = store_with_one();
    crate::env::write_fleet(&env.path("fleet"), 4, 1);
    let output = with_little_space(&env, 40, "import fleet --fleet web");
    assert_eq!(output.status, 1, "{}", output.stderr);
    assert!(output.stderr.contains("cannot write") && output.stderr.contains("space"), "{}", output.stderr);
    is_sound(&env);
    assert_eq!(env.ok(&["snapshot", "list"]).lines().count(), 1);
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_while_this_machine_answers() {
    let env = store_with_one();
    let output = with_little_space(&env, 40, "collect --collector native --fleet web");
    assert_eq!(output.status, 1, "{}", output.stderr);
    assert!(output.stderr.contains("diffy snapshot recover"), "{}", output.stderr);
    is_sound(&env);
    // With space again, what had come is there.
    let recovered = snapshot_id(&env.ok(&["snapshot", "recover"]));
    assert!(env.ok(&["snapshot", "list"]).contains(&recovered));
    assert_eq!(env.ok(&["snapshot", "verify"]).lines().filter(|line| line.contains("  ok ")).count(), 2);
    is_sound(&env);
}

#[test]
fn a_full_disk_while_the_snapshot_is_written() {
    let env = store_with_one();
    // Large enough for the spool, which is packed, and too small for the Parquet files of many short rows.
    let rows: Vec<Value> =
        (0..50).map(|n| json!({"username": format!("u{n}"), "uid": n.to_string()})).collect();
    env.write("dump/bad/users.json", Value::Array(rows).to_string());
    let output = with_little_space(&env, 6, "import dump --fleet web");
    assert_eq!(output.status, 1, "{}", output.stderr);
    assert!(output.stderr.contains("cannot write"), "{}", output.stderr);
    assert!(output.stderr.contains("diffy snapshot recover"), "{}", output.stderr);
    is_sound(&env);
    env.ok(&["snapshot", "recover"]);
    assert_eq!(names(&env).len(), 50);
    is_sound(&env);
}

#[test]
fn a_full_disk_under_the_output() {
    let env = store_with_one();
    for format in ["csv", "json", "table"] {
        let args = format!("query --format {format} -o /dev/full 'SELECT * FROM users'");
        let output = env.sh(&format!("$DIFFY {args}"));
        assert_eq!(output.status, 1, "{format}: {}", output.stderr);
        assert!(output.stderr.contains("No space left on device"), "{format}: {}", output.stderr);
    }
}

#[test]
fn two_collections_at_once() {
    let env = store_with_one();
    crate::env::write_fleet(&env.path("fleet"), 5, 1);
    let start = || env.diffy(&["import", "fleet", "--fleet", "web"]).spawn().unwrap();
    let running: Vec<_> = (0..3).map(|_| start()).collect();
    let mut ids: Vec<String> = running
        .into_iter()
        .map(|child| crate::env::output(child.wait_with_output().unwrap()))
        .map(|output| {
            assert_eq!(output.status, 0, "{}", output.stderr);
            snapshot_id(&output.stdout)
        })
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3);
    assert_eq!(env.ok(&["snapshot", "verify"]).lines().filter(|line| line.contains("  ok ")).count(), 4);
    assert_eq!(env.run(&["snapshot", "recover"]).stderr, "nothing was interrupted\n");
    is_sound(&env);
}

#[test]
fn two_first_collections_at_once() {
    let env = TestEnv::new();
    env.write("dump/h/users.json", r#"[{"username":"before"}]"#);
    let start = || env.diffy(&["import", "dump", "--fleet", "web"]).spawn().unwrap();
    let running: Vec<_> = (0..3).map(|_| start()).collect();
    for child in running {
        let output = crate::env::output(child.wait_with_output().unwrap());
        assert_eq!(output.status, 0, "{}", output.stderr);
    }
    assert_eq!(env.query_one("SELECT count(*) AS n FROM users"), 3);
    env.ok(&["snapshot", "verify"]);
}
