//! `diffy import` of what Fleet and Velociraptor export, of standard input, and of states at a time.

use serde_json::{Value, json};

use crate::env::{Output, TestEnv};

/// The value of a text or number, without quotes.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// `host/username` of each user, in the newest snapshot.
fn users(env: &TestEnv) -> Vec<String> {
    let rows = env.query("SELECT host, username FROM current.users ORDER BY host, username");
    rows.iter().map(|row| format!("{}/{}", text(&row["host"]), text(&row["username"]))).collect()
}

/// `host/table status rows error`, in the newest snapshot.
fn coverage(env: &TestEnv) -> Vec<String> {
    let sql = "SELECT host, table_name, status, rows, error FROM current.coverage ORDER BY host, table_name";
    let line = |row: &Value| {
        let [host, table, status, rows, error] =
            ["host", "table_name", "status", "rows", "error"].map(|name| text(&row[name]));
        format!("{host}/{table} {status} {rows} {error}").trim_end().to_owned()
    };
    env.query(sql).iter().map(line).collect()
}

/// Imports, which must succeed.
#[track_caller]
fn import(env: &TestEnv, args: &[&str]) -> Output {
    let output = env.run(&[&["import", "--fleet", "web"], args].concat());
    assert_eq!(output.status, 0, "{}\n{}", output.stdout, output.stderr);
    output
}

fn lines(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn fleetctl() -> String {
    lines(&[
        json!({"host": "web-1", "rows": [{"username": "root", "uid": "0", "host_hostname": "web-1"}, {"username": "bob", "uid": "1"}]}),
        json!({"host": "web-2", "rows": []}),
        json!({"host": "web-3", "rows": null, "error": "no such table: users"}),
    ])
}

#[test]
fn lines_of_fleetctl_are_hosts() {
    let env = TestEnv::new();
    env.write("users.json", fleetctl());
    import(&env, &["users.json"]);
    assert_eq!(users(&env), ["web-1/bob", "web-1/root"]);
    assert_eq!(
        coverage(&env),
        ["web-1/users ok 2", "web-2/users empty 0", "web-3/users error 0 no such table: users"]
    );
    let row = &env.query("SELECT * FROM users WHERE username = 'root'")[0];
    assert!(!row.to_string().contains("host_hostname"), "what Fleet puts in is no column: {row}");
}

#[test]
fn a_broken_line_costs_nothing_but_itself() {
    let env = TestEnv::new();
    let broken = format!("{}Error talking to server: EOF\n{{\"host\":\"web-4\",\"rows\":[{{\n", fleetctl());
    env.write("users.json", broken + &fleetctl().replace("web-", "db-"));
    let output = import(&env, &["users.json"]);
    let found = coverage(&env);
    assert_eq!(found.len(), 7, "{}", output.stderr);
    assert!(
        found[5].starts_with("web-3/users error") && found[6].starts_with("web-4/users error 0"),
        "{found:?}"
    );
    for line in ["users.json:4", "users.json:5"] {
        assert!(output.stderr.contains(line), "{}", output.stderr);
    }
    // Rows that are none make their host's answer not whole.
    let env = TestEnv::new();
    env.write("users.json", lines(&[json!({"host": "a", "rows": [{"username": "x"}, 5, "y"]})]));
    import(&env, &["users.json"]);
    let coverage = coverage(&env);
    assert!(coverage[0].starts_with("a/users truncated 1 2 rows could not be read"), "{coverage:?}");
}

#[test]
fn what_no_place_names_is_told_with_flags() {
    let env = TestEnv::new();
    let args = ["import", "--fleet", "web", "-"];
    let output = env.run_with_stdin(&args, fleetctl().as_bytes());
    assert!(output.status == 2 && output.stderr.contains("--table NAME"), "{}", output.stderr);
    let rows = br#"[{"username": "eve", "uid": "7"}]"#;
    let output = env.run_with_stdin(&args, rows);
    assert!(output.status == 2 && output.stderr.contains("--host NAME"), "{}", output.stderr);
    let output = env.run_with_stdin(&[&args[..], &["--host", "h"]].concat(), rows);
    assert!(output.status == 2 && output.stderr.contains("--table NAME"), "{}", output.stderr);
    let output = env.run_with_stdin(&[&args[..], &["--host", "h", "--table", "users"]].concat(), rows);
    assert_eq!(output.status, 0, "{}", output.stderr);
    assert_eq!(users(&env), ["h/eve"]);
    let row = br#"{"Pid": 1, "ClientId": "C.1", "Fqdn": "web-9"}"#;
    let output = env.run_with_stdin(&args, row);
    assert!(output.status == 2 && output.stderr.contains("--table NAME"), "{}", output.stderr);
    let packed = zstd::encode_all(fleetctl().as_bytes(), 1).unwrap();
    let output = env.run_with_stdin(&[&args[..], &["--table", "users"]].concat(), &packed);
    assert_eq!(output.status, 0, "{}", output.stderr);
    assert_eq!(users(&env).len(), 2);
    let broken = env
        .run_with_stdin(&[&args[..], &["--table", "users"]].concat(), b"{\"host\":\"a\",\"rows\":[]}\n{x\n");
    assert!(broken.stderr.contains("standard input:2"), "{}", broken.stderr);
    assert!(env.fails(&["import", "--fleet", "web", "-", "-"], 2).contains("only once"));
    assert!(env.fails(&["import", "--fleet", "web", "--once", "-"], 2).contains("--once"));
    let left: Vec<_> = std::fs::read_dir(env.store().join("spool")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

fn report(clipped: bool) -> Value {
    let result = |id: u64, host: &str, columns: Value| json!({"host_id": id, "host_name": host, "last_fetched": "2026-01-05T10:00:00Z", "columns": columns});
    json!({"query_id": 31, "report_clipped": clipped, "results": [
        result(1, "web-1", json!({"username": "root", "uid": "0"})),
        result(1, "web-1", json!({"username": "bob", "uid": "1"})),
        result(2, "web-2", json!({"username": "root", "uid": "0"})),
        result(3, "web-1", json!({"username": "other", "uid": "5"})),
        result(4, "web-4", json!({})),
    ]})
}

#[test]
fn reports_of_the_rest_api_are_hosts() {
    for text in [report(false).to_string(), serde_json::to_string_pretty(&report(false)).unwrap()] {
        let env = TestEnv::new();
        env.write("users.json", text);
        let output = import(&env, &["users.json"]);
        assert_eq!(users(&env), ["web-1/bob", "web-1/root", "web-1-3/other", "web-2/root"]);
        let coverage = coverage(&env);
        assert_eq!(coverage[0], "web-1/users ok 2", "{}", output.stderr);
        assert!(coverage[3].starts_with("web-4/users truncated 0 the report shows no data"), "{coverage:?}");
        assert!(coverage[3].contains("512 KB"), "{coverage:?}");
        assert!(output.stderr.contains("two hosts call themselves `web-1`"), "{}", output.stderr);
        let collected = env.query_one("SELECT min(collected_at) AS t FROM users");
        assert!(text_of(&collected).starts_with("2026-01-05T10:00"), "{collected}");
    }
}

fn text_of(value: &Value) -> String {
    text(value).replace(' ', "T")
}

#[test]
fn a_clipped_report_is_not_whole() {
    let env = TestEnv::new();
    env.write("users.json", report(true).to_string());
    let output = import(&env, &["users.json"]);
    let statuses = env.query("SELECT DISTINCT status FROM coverage");
    assert_eq!(statuses, [json!({"status": "truncated"})]);
    assert!(output.stderr.contains("report_clipped"), "{}", output.stderr);
    let manifest = env.json(&["snapshot", "show", "--json"]);
    assert!(manifest["warnings"].to_string().contains("clipped"), "{}", manifest["warnings"]);
}

#[test]
fn every_answer_of_the_rest_api_is_known() {
    let of_host = json!({"report_id": 3, "host_id": 1, "host_name": "web-1", "report_clipped": false,
        "last_fetched": "2026-01-05T10:00:00Z", "results": [{"columns": {"username": "a"}}]});
    let no_data = json!({"query_id": 3, "host_id": 2, "host_name": "web-2", "report_clipped": false,
        "last_fetched": "2026-01-05T10:00:00Z", "results": []});
    let live = json!({"query_id": 3, "targeted_host_count": 2, "responded_host_count": 2, "results": [
        {"host_id": 7, "rows": [{"username": "b"}], "error": null},
        {"host_id": 8, "rows": null, "error": "no such table"}]});
    let several = json!({"summary": {"targeted_host_count": 1}, "live_query_results": [
        {"query_id": 3, "error": null, "results": [{"host_id": 9, "rows": [{"username": "c"}]}]}]});
    let one_host = json!({"host_id": 31, "query": "SELECT 1", "status": "online", "error": null,
        "rows": [{"username": "d"}]});
    for (text, expect) in [
        (of_host, "web-1/users ok 1"),
        (no_data, "web-2/users truncated 0 the report shows no data"),
        (live, "host-7/users ok 1"),
        (several, "host-9/users ok 1"),
        (one_host, "host-31/users ok 1"),
    ] {
        let env = TestEnv::new();
        env.write("users.json", text.to_string());
        let _ = env.run(&["import", "--fleet", "web", "users.json"]);
        assert!(coverage(&env)[0].starts_with(expect), "{text}\n{:?}", coverage(&env));
    }
}

#[test]
fn tables_of_the_ui_are_read_as_they_are_quoted() {
    let json = "\u{FEFF}\"host_display_name\",\"last_fetched\",\"username\",\"description\"\n\
        \"web-1\",\"2026-01-05T10:00:00Z\",\"root\",\"a \\\"quoted\\\", word\\nand a line\"\n\
        \"web-2\",\"2026-01-05T10:00:00Z\",\"bob\",\n";
    let rfc4180 = "host_display_name,last_fetched,username,description\r\n\
        web-1,2026-01-05T10:00:00Z,root,\"a \"\"quoted\"\", word\nand a line\"\r\n\
        web-2,2026-01-05T10:00:00Z,bob,\r\n";
    for text in [json, rfc4180] {
        let env = TestEnv::new();
        env.write("users (01-05-26 10-00-00).csv", text);
        let output = import(&env, &["users (01-05-26 10-00-00).csv"]);
        let rows = env.query("SELECT host, username, description FROM users ORDER BY host");
        assert_eq!(
            rows,
            [
                json!({"host": "web-1", "username": "root", "description": "a \"quoted\", word\nand a line"}),
                json!({"host": "web-2", "username": "bob", "description": ""}),
            ]
        );
        assert!(output.stderr.contains("on screen"), "{}", output.stderr);
    }
    let env = TestEnv::new();
    env.write("users.csv", "host_display_name,username\nweb-1,root\nweb-1,a,b\nweb-2,\"open\n");
    let output = import(&env, &["users.csv"]);
    let coverage = coverage(&env);
    assert!(coverage[0].starts_with("web-1/users truncated 1 1 rows could not be read"), "{coverage:?}");
    for place in ["users.csv:3", "users.csv:4"] {
        assert!(output.stderr.contains(place), "{}", output.stderr);
    }
}

/// A hunt's combined results.
fn hunt() -> String {
    let row = |client: &str, fqdn: &str, pid: u64| {
        json!({"Pid": pid, "CommandLine": "/sbin/init", "OSPath": "/sbin/init", "Hash": {"SHA256": "ab"},
               "Options": ["x", "y"], "FlowId": "F.1", "ClientId": client, "Fqdn": fqdn})
    };
    lines(&[
        row("C.1111", "web-1", 1),
        row("C.2222", "web-2", 1),
        row("C.3333", "web-1", 9),
        row("C.4444", "", 1),
    ])
}

#[test]
fn rows_of_velociraptor_have_tables_of_their_own() {
    let env = TestEnv::new();
    env.write("All Linux.Sys.Pslist.json", hunt());
    let output = import(&env, &["All Linux.Sys.Pslist.json"]);
    let rows = env.query(
        "SELECT host, pid, command_line, os_path, hash_sha256, options FROM linux_sys_pslist ORDER BY host",
    );
    let hosts: Vec<String> = rows.iter().map(|row| text(&row["host"])).collect();
    assert_eq!(hosts, ["C.4444", "web-1", "web-1-C.3333", "web-2"]);
    assert_eq!(
        rows[1],
        json!({"host": "web-1", "pid": "1", "command_line": "/sbin/init", "os_path": "/sbin/init",
               "hash_sha256": "ab", "options": "[\"x\",\"y\"]"})
    );
    assert!(output.stderr.contains("two hosts call themselves `web-1`"), "{}", output.stderr);
}

#[test]
fn a_client_cannot_pass_for_another() {
    let env = TestEnv::new();
    // What the client says first, the server says behind.
    let row = r#"{"User":"eve","ClientId":"C.9","Fqdn":"victim","_Source":"X.OSQuery.users","FlowId":"F.1","ClientId":"C.1","Fqdn":"web-1"}"#;
    env.write("All Linux.Sys.Users.json", row);
    import(&env, &["All Linux.Sys.Users.json"]);
    assert_eq!(coverage(&env), ["web-1/linux_sys_users ok 1"]);
}

#[test]
fn collections_of_velociraptor_are_read_as_they_lie_there() {
    let env = TestEnv::new();
    let row = |user: &str| json!({"User": user, "Uid": 0}).to_string();
    env.write("web/client_info.json", "{\n \"Hostname\": \"web-9\",\n \"Fqdn\": \"web-9.example.com\"\n}");
    env.write("web/collection_context.json", "{\"state\": 3, \"status\": \"Row limit exceeded\"}");
    env.write("web/results/Linux.Sys.Users.json", row("root"));
    env.write("web/results/Linux.Sys.Crontab%2FCronTabs.json", "");
    env.write("web/uploads/auto/etc/passwd", "root:x:0:0");
    let output = import(&env, &["web"]);
    let cut = "Velociraptor says that this collection failed: Row limit exceeded";
    assert_eq!(
        coverage(&env),
        [
            format!("web-9.example.com/linux_sys_crontab_crontabs truncated 0 {cut}"),
            format!("web-9.example.com/linux_sys_users truncated 1 {cut}"),
        ],
        "{}",
        output.stderr
    );
    // A hunt, once with and once without what is combined.
    let env = TestEnv::new();
    env.write("hunt/hunt_info.json", "{}");
    env.write("hunt/web-1-C.1111/client_info.json", "{\"client_id\":\"C.1111\",\"fqdn\":\"web-1\"}");
    env.write("hunt/web-1-C.1111/results/Linux.Sys.Users.json", row("root"));
    std::fs::create_dir_all(env.path("hunt/results")).unwrap();
    import(&env, &["hunt"]);
    assert_eq!(coverage(&env), ["web-1/linux_sys_users ok 1"]);
    let combined = json!({"User": "root", "Uid": 0, "FlowId": "F.1", "ClientId": "C.1111", "Fqdn": "web-1"});
    env.write("hunt/results/All Linux.Sys.Users.json", combined.to_string());
    let output = import(&env, &["hunt"]);
    assert_eq!(coverage(&env), ["web-1/linux_sys_users ok 1"], "not twice");
    assert!(output.stderr.contains("the same rows"), "{}", output.stderr);
}

/// Processes of 30 hosts, one of which runs something from a place that anybody may write to.
fn processes() -> String {
    let row = |host: u64, name: &str, exe: &str, pid: u64| {
        json!({"Pid": pid, "Ppid": 1, "Name": name, "CommandLine": exe, "Exe": exe, "Hash": {"SHA256": exe.len().to_string()},
               "Username": "root", "CreateTime": format!("2026-01-05T10:00:{:02}Z", pid % 60), "RSS": pid * 7,
               "Deleted": false, "FlowId": "F.1", "ClientId": format!("C.{host}"), "Fqdn": format!("web-{host:02}")})
    };
    let mut rows = Vec::new();
    for host in 0..30 {
        rows.push(row(host, "systemd", "/usr/lib/systemd/systemd", 1));
        rows.push(row(host, "sshd", "/usr/sbin/sshd", 300 + host * 13));
    }
    rows.push(row(17, "kworker", "/dev/shm/.x/kworker", 4_711));
    lines(&rows)
}

#[test]
fn schemas_for_velociraptor_tell_what_stands_out() {
    let env = TestEnv::new();
    let schemas = crate::env::root().join("docs/velociraptor");
    let schemas = schemas.to_str().unwrap();
    env.write("All Linux.Sys.Pslist.json", processes());
    let output = import(&env, &["--schemas", schemas, "All Linux.Sys.Pslist.json"]);
    assert!(!output.stderr.contains("no schema declares"), "{}", output.stderr);
    let missing = env.query("SELECT DISTINCT columns_missing FROM coverage");
    assert_eq!(missing, [json!({"columns_missing": "hash_md5,hash_sha1"})]);
    let args = ["--schemas", schemas, "analyze", "--fleet", "web", "--format", "json"];
    let analysis = env.json(&args);
    assert_eq!(analysis["hosts"][0]["host"], "web-17", "{}", analysis["hosts"][0]);
    assert_ne!(analysis["hosts"][0]["verdict"], "normal");
    assert_eq!(analysis["hosts"][1]["verdict"], "normal");
    // Each is a table that an artifact becomes, and none is asked of osquery.
    for file in std::fs::read_dir(schemas).unwrap().flatten() {
        let name = file.path().file_stem().unwrap().to_str().unwrap().to_owned();
        let shown = env.ok(&["--schemas", schemas, "tables", "show", &name]);
        assert!(name.starts_with("linux_") && shown.contains("Velociraptor"), "{shown}");
    }
}

#[test]
fn osquery_by_velociraptor_is_osquery() {
    let env = TestEnv::new();
    let row = json!({"uid": "0", "gid": "0", "uid_signed": "0", "gid_signed": "0", "username": "root",
        "description": "", "directory": "/root", "shell": "/bin/bash", "FlowId": "F.1", "ClientId": "C.1", "Fqdn": "a"});
    env.write("All Linux.OSQuery.Generic.json", row.to_string());
    import(&env, &["All Linux.OSQuery.Generic.json"]);
    assert_eq!(users(&env), ["a/root"]);
    env.write("rows.json", json!({"uid": "7", "username": "x"}).to_string());
    import(&env, &["rows.json", "--format", "velociraptor", "--host", "b", "--table", "users"]);
    assert_eq!(users(&env), ["b/x"]);
    import(&env, &["All Linux.OSQuery.Generic.json", "--map", "Linux.OSQuery.Generic=my_table"]);
    assert_eq!(env.query_one("SELECT username FROM my_table"), "root");
}

#[test]
fn directories_may_hold_everything_at_once() {
    let env = TestEnv::new();
    env.write("dump/users.json", fleetctl());
    env.write("dump/All Linux.Sys.Pslist.json", hunt());
    env.write("dump/db-1/users.json", r#"[{"username": "dba"}]"#);
    env.write(
        "dump/osqueryd.results.log",
        lines(&[json!({"name": "users", "hostIdentifier": "log-1", "unixTime": 1_767_607_200, "counter": 0, "epoch": 0,
            "action": "snapshot", "snapshot": [{"username": "l"}]})]),
    );
    import(&env, &["dump"]);
    assert_eq!(users(&env), ["db-1/dba", "log-1/l", "web-1/bob", "web-1/root"]);
    assert_eq!(env.query_one("SELECT count(*) AS n FROM linux_sys_pslist"), 4);
    // A host that has a table from elsewhere only was not asked for the others.
    let status = "SELECT status FROM coverage WHERE host = 'db-1' AND table_name = 'linux_sys_pslist'";
    assert_eq!(env.query_one(status), "not_asked");
}

#[test]
fn what_hosts_are_called_names_no_path() {
    let env = TestEnv::new();
    let name = "../../etc/passwd";
    env.write("users.json", lines(&[json!({"host": name, "rows": [{"username": "a"}]})]));
    env.write(
        "All Linux.Sys.Users.json",
        json!({"User": "x", "Fqdn": name, "ClientId": "C.1", "_Source": "../../x"}).to_string(),
    );
    import(&env, &["users.json", "All Linux.Sys.Users.json"]);
    assert_eq!(users(&env), [format!("{name}/a")]);
    assert!(env.ok(&["snapshot", "verify"]).contains("ok"));
    let folders = std::fs::read_dir(env.store().join("rows")).unwrap().flatten();
    let folders: Vec<String> =
        folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert!(folders.iter().all(|name| !name.contains('.') && !name.contains('/')), "{folders:?}");
}

#[test]
fn utf16_of_powershell_is_read() {
    let env = TestEnv::new();
    let marked = format!("\u{FEFF}{}", fleetctl().replace("bob", "größe"));
    let bytes: Vec<u8> = marked.encode_utf16().flat_map(u16::to_le_bytes).collect();
    env.write("users.json", bytes);
    import(&env, &["users.json"]);
    assert_eq!(users(&env), ["web-1/größe", "web-1/root"]);
}

#[test]
fn a_packed_bomb_ends_where_it_is_allowed_to() {
    use std::io::Write;
    let env = TestEnv::new();
    let row = br#"{"username":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},"#;
    let mut text = b"[".to_vec();
    text.extend(row.iter().cycle().take(row.len() * 40_000));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&text).unwrap();
    for (name, packed) in [
        ("users.json.gz", gzip.finish().unwrap()),
        ("users.json.zst", zstd::encode_all(text.as_slice(), 19).unwrap()),
    ] {
        assert!(text.len() > 100 * packed.len(), "{} becomes {}", packed.len(), text.len());
        let dir = TestEnv::new();
        dir.write(&format!("web-1/{name}"), packed);
        let output = import(&dir, &["web-1", "--unpacked-limit", "1"]);
        assert!(output.stderr.contains("--unpacked-limit"), "{}", output.stderr);
        let row = &dir.query("SELECT status, bytes, rows FROM coverage")[0];
        assert_eq!(row["status"], "truncated");
        assert!(row["rows"].as_u64().unwrap() < 30_000, "{row}");
    }
    drop(env);
}

fn event(time: u64, counter: u64, action: &str, name: &str) -> Value {
    json!({"name": "users", "hostIdentifier": "h", "unixTime": time, "epoch": 0, "counter": counter,
           "columns": {"username": name}, "action": action})
}

#[test]
fn logs_are_replayed_to_a_time() {
    let start = 1_767_607_200;
    let log = lines(&[
        event(start, 0, "added", "root"),
        event(start + 3_600, 1, "added", "eve"),
        event(start + 7_200, 2, "removed", "eve"),
    ]);
    for (at, expect) in [
        ("2026-01-05T10:30:00Z", &["h/root"][..]),
        ("1767610800", &["h/eve", "h/root"]),
        ("2026-01-05T13:30:00+01:00", &["h/root"]),
        ("2026-01-06", &["h/root"]),
    ] {
        let env = TestEnv::new();
        env.write("osqueryd.results.log", &log);
        import(&env, &["osqueryd.results.log", "--at", at]);
        assert_eq!(users(&env), expect, "{at}");
        let started = text(&env.json(&["snapshot", "show", "--json"])["started"]);
        assert!(started.starts_with("2026-01-0"), "{started}");
    }
    // Relative to now, so with a log of now.
    let now = u64::try_from(diffy::model::now().timestamp()).unwrap();
    let log = lines(&[event(now - 10_000, 0, "added", "root"), event(now - 60, 1, "added", "eve")]);
    let env = TestEnv::new();
    env.write("osqueryd.results.log", log);
    import(&env, &["osqueryd.results.log", "--at", "2h"]);
    assert_eq!(users(&env), ["h/root"]);
    let stderr = env.fails(&["import", "osqueryd.results.log", "--fleet", "web", "--at", "soon"], 2);
    assert!(stderr.contains("2h (ago)"), "{stderr}");
}

#[test]
fn a_broken_line_of_a_log_is_counted_for_its_host() {
    let env = TestEnv::new();
    let whole = event(1_767_607_200, 0, "added", "root").to_string();
    let broken = event(1_767_607_300, 1, "added", "eve").to_string();
    let other = whole.replace("\"h\"", "\"other\"");
    env.write("osqueryd.results.log", format!("{whole}\n{other}\n{}\n", &broken[..broken.len() - 9]));
    import(&env, &["osqueryd.results.log"]);
    let coverage = coverage(&env);
    assert!(coverage[0].starts_with("h/users truncated 1 expected a log entry"), "{coverage:?}");
    assert_eq!(coverage[1], "other/users ok 1");
}

#[test]
fn a_log_that_breaks_off_makes_its_hosts_not_whole() {
    let env = TestEnv::new();
    let log: Vec<Value> =
        (0..2_000).map(|row| event(1_767_607_200, 0, "added", &format!("user-{row}"))).collect();
    let mut packed = zstd::encode_all(lines(&log).as_bytes(), 1).unwrap();
    packed.truncate(packed.len() / 2);
    env.write("osqueryd.results.log.1.zst", packed);
    let output = import(&env, &["osqueryd.results.log.1.zst"]);
    assert_eq!(env.query_one("SELECT status FROM coverage"), "truncated");
    assert!(output.stderr.contains("reading stops here"), "{}", output.stderr);
}
