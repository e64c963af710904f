//! `diffy query`.

use serde_json::json;

use crate::env::TestEnv;

fn two_hosts() -> TestEnv {
    let env = TestEnv::new();
    env.import_tables(&[
        ("a", "users", json!([{"username": "root", "uid": "0"}, {"username": "eve", "uid": "1001"}])),
        ("b", "users", json!([{"username": "root", "uid": "0"}])),
    ]);
    env
}

const ROOTS: &str = "SELECT host, username FROM users WHERE uid = 0 ORDER BY host";

#[test]
fn sql_is_answered_in_every_format() {
    let env = two_hosts();
    let rows = json!([{"host": "a", "username": "root"}, {"host": "b", "username": "root"}]);
    assert_eq!(env.json(&["query", "--format", "json", ROOTS]), rows);
    assert_eq!(
        env.ok(&["query", "--format", "ndjson", ROOTS]),
        "{\"host\":\"a\",\"username\":\"root\"}\n{\"host\":\"b\",\"username\":\"root\"}\n"
    );
    assert_eq!(env.ok(&["query", "--format", "csv", ROOTS]), "host,username\na,root\nb,root\n");
    let output = env.run(&["query", ROOTS]);
    assert!(output.stdout.contains("│ a    ┆ root     │"), "{}", output.stdout);
    assert_eq!(output.stderr, "2 rows\n");
    env.ok(&["query", "--format", "parquet", "-o", "out.parquet", ROOTS]);
    assert!(std::fs::read(env.path("out.parquet")).unwrap().starts_with(b"PAR1"));
    let stderr = env.fails(&["query", "--format", "xml", ROOTS], 2);
    assert!(stderr.contains("xml"), "{stderr}");
}

#[test]
fn an_empty_answer_has_its_columns() {
    let env = two_hosts();
    let nobody = "SELECT host, username FROM users WHERE username = 'nobody'";
    assert_eq!(env.ok(&["query", "--format", "csv", nobody]), "host,username\n");
    assert_eq!(env.json(&["query", "--format", "json", nobody]), json!([]));
    assert!(env.ok(&["query", nobody]).contains("username"));
}

#[test]
fn questions_come_from_arguments_files_and_stdin() {
    let env = two_hosts();
    let sql = "SELECT 6 * 7 AS answer";
    env.write("q.sql", format!("-- a comment\n{sql}\n"));
    let expected = "answer\n42\n";
    assert_eq!(env.ok(&["query", "--format", "csv", sql]), expected);
    assert_eq!(env.ok(&["query", "--format", "csv", "-f", "q.sql"]), expected);
    for args in [&["query", "--format", "csv"][..], &["query", "--format", "csv", "-"]] {
        let output = env.run_with_stdin(args, sql.as_bytes());
        assert_eq!((output.status, output.stdout.as_str()), (0, expected), "{}", output.stderr);
    }
    let stderr = env.fails(&["query", "-f", "nowhere.sql"], 2);
    assert!(stderr.contains("cannot read `nowhere.sql`"), "{stderr}");
    let stderr = env.fails(&["query"], 2);
    assert!(stderr.contains("there is no question"), "{stderr}");
}

#[test]
fn current_is_the_newest_snapshot_of_each_fleet() {
    let env = two_hosts();
    env.import_tables(&[("a", "users", json!([{"username": "new", "uid": "5"}]))]);
    assert_eq!(env.query_one("SELECT count(*) AS n FROM users"), 4);
    assert_eq!(env.query_one("SELECT username FROM current.users"), "new");
    assert_eq!(env.query_one("SELECT count(*) AS n FROM snapshots"), 2);
    assert_eq!(env.query_one("SELECT count(DISTINCT snapshot) AS n FROM users"), 2);
}

#[test]
fn explain_names_only_the_files_of_the_partition() {
    let env = TestEnv::new();
    env.write("dump/a/users.json", json!([{"username": "root", "uid": "0"}]).to_string());
    for (fleet, day) in [("web", "01"), ("web", "02"), ("web", "03"), ("db", "02")] {
        let at = format!("2026-01-{day}T12:00:00Z");
        env.import(&env.path("dump"), &["--fleet", fleet, "--collected-at", &at]);
    }
    let files = |filter: &str| {
        let sql = format!("EXPLAIN FORMAT INDENT SELECT username FROM users WHERE {filter}");
        let plan = env.ok(&["query", "--format", "json", &sql]);
        let parts = plan.split("rows/users/").skip(1).map(|rest| rest.split("/snapshot=").next().unwrap());
        let mut parts: Vec<String> = parts.map(str::to_owned).collect();
        parts.sort();
        parts
    };
    assert_eq!(files("fleet = 'web' AND dt = '2026-01-02'"), ["fleet=web/dt=2026-01-02"]);
    assert_eq!(files("dt = '2026-01-02'"), ["fleet=db/dt=2026-01-02", "fleet=web/dt=2026-01-02"]);
    let later = ["fleet=web/dt=2026-01-02", "fleet=web/dt=2026-01-03"];
    assert_eq!(files("fleet = 'web' AND dt > '2026-01-01' AND uid = 0"), later);
    assert_eq!(files("fleet = 'none'"), [""; 0]);
    assert_eq!(files("true").len(), 4);
}

#[test]
fn the_meta_tables_are_there() {
    let env = two_hosts();
    for (sql, expected) in [
        ("SELECT count(*) AS n FROM hosts", 2),
        ("SELECT count(*) AS n FROM coverage", 2),
        ("SELECT hosts AS n FROM prev.users WHERE username = 'root'", 2),
        ("SELECT hosts AS n FROM prev.users WHERE username = 'eve'", 1),
        ("SELECT count(*) AS n FROM snapshots WHERE fleet = 'web'", 1),
        ("SELECT count(*) AS n FROM baselines", 0),
        // Declared, and in no snapshot: empty, and no error.
        ("SELECT count(*) AS n FROM kernel_modules", 0),
    ] {
        assert_eq!(env.query_one(sql), expected, "{sql}");
    }
    assert!(env.ok(&["query", "SHOW TABLES"]).contains("users"));
    assert!(env.ok(&["query", "DESCRIBE users"]).contains("username"));
}

#[test]
fn saved_queries_take_parameters() {
    let env = TestEnv::new();
    env.import_fleet(12, 2, 1);
    let list = env.ok(&["query", "--list"]);
    assert!(list.lines().count() >= 20 && list.contains("rare_listening_ports"), "{list}");
    let rare = |most: &str| {
        let param = format!("max_hosts={most}");
        let args = ["query", "--name", "rare_listening_ports", "--param", &param, "--format", "json"];
        env.json(&args).as_array().unwrap().len()
    };
    assert_eq!(rare("0"), 0);
    assert!(rare("1") >= 1);
    for (args, expected) in [
        (&["rare_listening_port"][..], "did you mean `rare_listening_ports`?"),
        (&["rare_listening_ports", "--param", "max_hots=1"], "it has: max_hosts"),
        (&["rare_listening_ports", "--param", "max_hosts=many"], "takes an integer, not `many`"),
        (&["rare_listening_ports", "--param", "max_hosts"], "expected NAME=VALUE"),
    ] {
        let stderr = env.fails(&[&["query", "--name"], args].concat(), 2);
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
    }
}

#[test]
fn every_saved_query_without_required_parameters_runs() {
    let env = TestEnv::new();
    env.import_fleet(4, 1, 1);
    for line in env.ok(&["query", "--list"]).lines() {
        let name = line.split_whitespace().next().unwrap();
        let output = env.run(&["query", "--name", name, "--format", "csv"]);
        let is_fine = output.status == 0
            || (output.status == 2
                && output.stderr.contains("needs a value")
                && output.stderr.contains("--param"));
        assert!(is_fine, "{name}: {}", output.stderr);
    }
}

#[test]
fn a_directory_of_queries_adds_to_the_built_in_ones() {
    let env = two_hosts();
    let sql = std::fs::read_to_string(crate::env::root().join("sql/analyze/uid_zero_users.sql")).unwrap();
    env.write("mine/my_roots.sql", sql);
    let list = env.ok(&["query", "--list", "--sql-dir", "mine"]);
    assert!(list.contains("my_roots") && list.contains("rare_suid"), "{list}");
    env.ok(&["query", "--name", "my_roots", "--sql-dir", "mine"]);
    env.write("bad/oops.sql", "SELECT 1");
    let stderr = env.fails(&["query", "--list", "--sql-dir", "bad"], 2);
    assert!(stderr.contains("oops"), "{stderr}");
}

#[test]
fn names_that_are_nearly_right_are_proposed() {
    let env = two_hosts();
    for (sql, expected) in [
        ("SELECT * FROM usrs", "no table `usrs`; did you mean `users`?"),
        ("SELECT * FROM current.usrs", "did you mean"),
        ("SELECT usrname FROM users", "no column `usrname`; did you mean `username`?"),
        ("SELECT username FROM users WHERE hots = 'a'", "did you mean `host`?"),
        ("SELECT", "sql parser error"),
        ("SELECT nofn(1)", "nofn"),
        ("SELECT 1; SELECT 2", "a single SQL statement"),
        ("SELECT * FROM '/etc/passwd'", "no table `/etc/passwd`"),
    ] {
        let stderr = env.fails(&["query", sql], 2);
        assert!(stderr.contains(expected), "{sql}: {stderr}");
    }
}

#[test]
fn queries_only_read() {
    let env = two_hosts();
    for sql in [
        "DELETE FROM users",
        "INSERT INTO users SELECT * FROM users",
        "CREATE TABLE x (a INT)",
        "DROP TABLE users",
        "COPY users TO 'out.csv'",
        "CREATE EXTERNAL TABLE p (l VARCHAR) STORED AS CSV LOCATION '/etc/passwd'",
        "SET datafusion.execution.batch_size = 1",
    ] {
        let stderr = env.fails(&["query", sql], 2);
        assert!(stderr.contains("a query may only read"), "{sql}: {stderr}");
    }
    assert!(!env.path("out.csv").exists());
    assert_eq!(env.query_one("SELECT count(*) AS n FROM users"), 3);
}

#[test]
fn a_closed_pipe_is_no_error() {
    let env = TestEnv::new();
    env.import_fleet(10, 0, 1);
    for format in ["table", "csv", "json", "ndjson", "parquet"] {
        let line = format!(
            "{{ $DIFFY query --format {format} 'SELECT * FROM processes'; echo status $? >&2; }} | head -c 10 >/dev/null"
        );
        let output = env.sh(&line);
        assert!(output.stderr.ends_with("status 0\n"), "{format}: {}", output.stderr);
        assert!(!output.stderr.contains("error"), "{format}: {}", output.stderr);
    }
    for command in ["analyze", "analyze --format csv", "query --list", "tables list", "tables show processes"]
    {
        let output = env.sh(&format!("{{ $DIFFY {command}; echo status $? >&2; }} | true"));
        assert!(output.stderr.ends_with("status 0\n"), "{command}: {}", output.stderr);
    }
}

#[test]
fn values_of_hosts_cannot_steer_the_terminal() {
    let env = TestEnv::new();
    env.import_tables(&[("a", "users", json!([{"username": "\u{1b}[2Jeve\u{202e}", "uid": "=1+1"}]))]);
    for format in ["table", "csv", "json", "ndjson"] {
        let stdout = env.ok(&["query", "--format", format, "SELECT username FROM users"]);
        assert!(!stdout.contains('\u{1b}') || format == "csv", "{format}: {stdout:?}");
    }
}

#[test]
fn another_engine_is_named_with_its_address_and_says_how_to_get_it() {
    let env = TestEnv::new();
    env.import_fleet(2, 0, 1);
    for command in [&["query", "SELECT 1"][..], &["analyze"], &["snapshot", "verify", "--prevalence"]] {
        let asked = |engine: &str| env.fails(&[command, &["--engine", engine]].concat(), 2);
        let stderr = asked("spark://10.0.0.1:7077");
        assert!(stderr.contains("expected `local` or `ballista://HOST:PORT`"), "{stderr}");
        if cfg!(not(feature = "ballista")) {
            let stderr = asked("ballista://127.0.0.1:50050");
            assert!(stderr.contains("cargo build --release --features ballista"), "{stderr}");
        }
    }
    if cfg!(not(feature = "ballista")) {
        for node in ["scheduler", "executor"] {
            let stderr = env.fails(&["cluster", node], 2);
            assert!(stderr.contains("cargo build --release --features ballista"), "{stderr}");
        }
    }
}

#[test]
fn an_answer_that_fails_leaves_the_file_as_it_was() {
    let env = two_hosts();
    env.write("out.csv", "older\n");
    std::os::unix::fs::symlink("out.csv", env.path("link.csv")).unwrap();
    let read = || std::fs::read_to_string(env.path("out.csv")).unwrap();
    let failed = env.run(&[
        "query",
        "--format",
        "csv",
        "-o",
        "out.csv",
        "SELECT CAST(username AS INT) AS number FROM users",
    ]);
    assert_ne!(failed.status, 0, "{}", failed.stdout);
    assert_eq!(read(), "older\n", "{}", failed.stderr);
    env.ok(&["query", "--format", "csv", "-o", "link.csv", ROOTS]);
    assert_eq!(read(), "host,username\na,root\nb,root\n");
    assert!(env.path("link.csv").symlink_metadata().unwrap().is_symlink());
    let names = std::fs::read_dir(env.path(".")).unwrap().map(|file| file.unwrap().file_name());
    let unfinished: Vec<_> = names.filter(|name| name.to_str().unwrap().contains("unfinished")).collect();
    assert!(unfinished.is_empty(), "{unfinished:?}");
}

#[test]
fn a_snapshot_to_compare_with_must_be_there() {
    let env = two_hosts();
    let not_in = |param: &str| {
        let named = format!("snapshot={param}");
        env.run(&["query", "--format", "json", "--name", "not_in_snapshot", "--param", &named])
    };
    for (param, expected) in [
        ("latest", "takes the id of a snapshot, not `latest`"),
        ("", "takes the id of a snapshot"),
        ("01ARZ3NDEKTSV4RRFFQ69G5FAV", "there is no snapshot `01ARZ3NDEKTSV4RRFFQ69G5FAV`"),
    ] {
        let refused = not_in(param);
        assert!(refused.status == 2 && refused.stderr.contains(expected), "{}", refused.stderr);
    }
    let missing = env.fails(&["query", "--name", "not_in_snapshot"], 2);
    assert!(missing.contains("needs a value for `snapshot`"), "{missing}");
    let only = env.json(&["snapshot", "show", "--json"])["snapshot"].as_str().unwrap().to_owned();
    for id in [only.clone(), only.to_lowercase()] {
        let same = not_in(&id);
        assert_eq!((same.status, same.stdout.trim()), (0, "[\n]"), "{}", same.stderr);
    }
}
