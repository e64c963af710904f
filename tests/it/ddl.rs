//! `diffy store ddl`: what it prints is run as it is, and answers as Diffy does.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use regex::Regex;
use serde_json::{Value, json};

use crate::env::{Output, TestEnv, finish, run_python, snapshot_id, write_tables};

/// Names that must survive as text in SQL and as a folder.
const FLEETS: [&str; 5] = ["a'b\"c", "größe", "..", r"back\slash; --", "web"];
/// A directory that SQL and patterns have to spell with care.
const STORE: &str = "a store's [1]*";

/// Runs the SQL of the first file, then answers each query of the second: a list of rows for each.
const DUCKDB: &str = "
import duckdb, json, sys
connection = duckdb.connect(sys.argv[3])
connection.execute(open(sys.argv[1]).read())
connection.execute('USE diffy')
for query in json.load(open(sys.argv[2])):
    answer = connection.sql(query)
    names = answer.columns
    print(json.dumps([dict(zip(names, row)) for row in answer.fetchall()]))
";

/// Parses the SQL of a file; says how many statements of each kind there are, and the columns of each table that is made.
const SQLGLOT: &str = "
import json, logging, sqlglot, sys
from sqlglot import expressions
logging.disable(logging.CRITICAL)
kinds, tables = {}, {}
for statement in sqlglot.parse(open(sys.argv[1]).read(), dialect=sys.argv[2]):
    if statement is None:
        continue
    kind = type(statement).__name__
    kinds[kind] = kinds.get(kind, 0) + 1
    if kind == 'Create' and statement.kind == 'TABLE':
        name = statement.find(expressions.Table)
        columns = [column.name for column in statement.find_all(expressions.ColumnDef)]
        tables[name.db + '.' + name.name] = sorted(set(columns))
print(json.dumps([kinds, tables]))
";

/// A store with odd names, snapshots that differ in their columns, kept findings, and parts that do not count.
struct Stored {
    env: TestEnv,
}

impl Stored {
    fn new() -> Self {
        let stored = Self { env: TestEnv::new() };
        let env = &stored.env;
        let user =
            json!([{"username": "größe", "uid": "0", "shell": "/bin/sh"}, {"username": "", "uid": "none"}]);
        write_tables(
            &env.path("one"),
            &[("x", "users", user.clone()), ("x", "t", json!([{"a": "1", "n": "7"}]))],
        );
        let more = json!([{"username": "root", "uid": "0", "shell": "/bin/sh", "added_later": "yes"}]);
        write_tables(
            &env.path("two"),
            &[("x", "users", more), ("y", "t", json!([{"a": "1", "n": "8", "b": "2"}]))],
        );
        for fleet in FLEETS {
            stored.ok(&["import", "one", "--fleet", fleet]);
        }
        env.write("schemas/t.toml", SCHEMA);
        stored.ok(&["import", "two", "--fleet", "web", "--schemas", "schemas"]);
        crate::env::write_fleet(&env.path("fleet"), 6, 3);
        stored.ok(&["import", "fleet", "--fleet", "sim"]);
        stored.ok(&["analyze", "--fleet", "sim", "--keep", "--format", "json"]);
        stored
    }

    fn run(&self, args: &[&str]) -> Output {
        finish(self.env.diffy(&[&["--store", STORE], args].concat()))
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status, 0, "diffy {args:?}\n{}\n{}", output.stdout, output.stderr);
        output.stdout
    }

    fn query(&self, sql: &str) -> Vec<Value> {
        serde_json::from_str(&self.ok(&["query", "--format", "json", sql])).unwrap()
    }

    /// What DuckDB answers, after the SQL in `ddl`.
    fn duckdb(&self, ddl: &Path, queries: &[&str]) -> Vec<Vec<Value>> {
        let file = self.env.write("queries.json", json!(queries).to_string());
        let base = self.env.path("base.duckdb");
        let args = [ddl, &file, &base].map(|path| path.to_str().unwrap());
        let answers = run_python(&self.env, DUCKDB, &args);
        answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Copies the parts of one snapshot as if another collection were writing them.
    fn leave_uncommitted(&self, id: &str) {
        let unfinished = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
        let copied = self.env.sh(&format!(
            "cd \"{STORE}\" && for part in $(find rows prevalence coverage hosts -path '*{id}*' -name '*.parquet'); do \
             to=$(echo $part | sed s/{id}/{unfinished}/); mkdir -p $(dirname $to); cp $part $to; done"
        ));
        assert_eq!(copied.status, 0, "{}", copied.stderr);
    }
}

/// Declares one column of `t` as a number, which was text before.
const SCHEMA: &str = r#"
name = "t"
description = "A table of this test."
platforms = ["linux"]
weight = 0.5
query = "SELECT * FROM t"
[[column]]
name = "a"
type = "text"
role = "identity"
description = "A text."
[[column]]
name = "n"
type = "integer"
role = "context"
description = "A number."
"#;

/// Queries that mean the same to both.
const BOTH: [&str; 6] = [
    "SELECT fleet, dt, snapshot, host, username, uid, shell, extra, added_later FROM users WHERE fleet <> 'sim'",
    "SELECT fleet, snapshot, hosts_asked, hosts_answered, hosts_failed, collector FROM snapshots",
    "SELECT host, table_name, status, fleet, snapshot FROM coverage",
    "SELECT ordinal, host, os_name, physical_memory, fleet FROM hosts",
    "SELECT p.name, count(*) AS n, count(DISTINCT p.host) AS h FROM processes p JOIN hosts o ON o.snapshot = p.snapshot \
     AND o.host = p.host GROUP BY p.name",
    "SELECT host, verdict, fleet, snapshot, id, score FROM findings",
];

/// Rows without their nulls, in an order of their own.
fn sorted(rows: Vec<Value>) -> Vec<String> {
    let canonical = |row: Value| {
        let cells: BTreeMap<String, Value> =
            row.as_object().unwrap().clone().into_iter().filter(|(_, value)| !value.is_null()).collect();
        serde_json::to_string(&cells).unwrap()
    };
    let mut texts: Vec<String> = rows.into_iter().map(canonical).collect();
    texts.sort();
    texts
}

/// One test, for one store.
#[test]
fn duckdb_answers_as_diffy_does() {
    let stored = Stored::new();
    let ddl = stored.env.path("ddl.sql");
    let print = || stored.ok(&["store", "ddl", "--dialect", "duckdb", "-o", ddl.to_str().unwrap()]);
    let id = snapshot_id(&stored.ok(&["import", "one", "--fleet", "web"]));
    stored.leave_uncommitted(&id);
    print();
    for (query, theirs) in BOTH.iter().zip(stored.duckdb(&ddl, &BOTH)) {
        let ours = stored.query(query);
        assert!(!ours.is_empty(), "{query}");
        assert_eq!(sorted(ours), sorted(theirs), "{query}");
    }
    every_table_has_the_same_rows(&stored, &ddl);
    types_are_told(&stored, &ddl);
    // A file on its way out must not be missed: printed again, the text replaces all it made before.
    stored.ok(&["snapshot", "delete", &id]);
    print();
    every_table_has_the_same_rows(&stored, &ddl);
}

fn every_table_has_the_same_rows(stored: &Stored, ddl: &Path) {
    let text = fs::read_to_string(ddl).unwrap();
    let view = Regex::new(r#"VIEW "(\w+)"."(\w+)""#).unwrap();
    let views: Vec<(String, String)> =
        view.captures_iter(&text).map(|found| (found[1].to_owned(), found[2].to_owned())).collect();
    assert!(views.len() > 50, "{views:?}");
    let counts = |diffy: &str, prevalence: &str| {
        let of = |(database, table): &(String, String)| {
            let schema = if database == "diffy" { diffy } else { prevalence };
            format!(
                "SELECT '{database}.{table}' AS t, fleet, snapshot, count(*) AS n FROM {schema}.{table} \
                 GROUP BY fleet, snapshot"
            )
        };
        views.iter().map(of).collect::<Vec<_>>().join(" UNION ALL ")
    };
    let theirs = stored.duckdb(ddl, &[&counts("diffy", "diffy_prev")]).remove(0);
    let ours = stored.query(&counts("public", "prev"));
    assert!(ours.len() > 60, "{ours:?}");
    assert_eq!(sorted(ours), sorted(theirs));
}

fn types_are_told(stored: &Stored, ddl: &Path) {
    let describe = |of: &str| format!("SELECT column_name AS c, column_type AS t FROM (DESCRIBE {of})");
    let [users, lines, t] = ["users", "diffy_prev.users", "t"].map(describe);
    let [users, lines, t] = stored.duckdb(ddl, &[&users, &lines, &t]).try_into().unwrap();
    let types = |rows: Vec<Value>| -> BTreeMap<String, String> {
        rows.iter()
            .map(|row| (row["c"].as_str().unwrap().into(), row["t"].as_str().unwrap().into()))
            .collect()
    };
    let (users, lines, t) = (types(users), types(lines), types(t));
    let of_users = ["uid", "strict_id", "collected_at", "dt", "added_later"].map(|name| users[name].as_str());
    assert_eq!(of_users, ["BIGINT", "BLOB", "TIMESTAMP WITH TIME ZONE", "VARCHAR", "VARCHAR"]);
    assert_eq!((lines["hosts"].as_str(), lines["members"].as_str()), ("UINTEGER", "BLOB"));
    assert_eq!(t["n"], "VARCHAR", "text in one snapshot, a number in the next");
    let text = fs::read_to_string(ddl).unwrap();
    assert!(text.contains("-- Of several types over time, and read as the widest: n\n"), "{text}");
}

#[test]
fn others_can_parse_it() {
    let stored = Stored::new();
    let mut columns = Vec::new();
    for dialect in ["athena", "trino", "spark"] {
        let file = stored.env.path(format!("{dialect}.sql"));
        let file = file.to_str().unwrap();
        let at = "s3://bucket/it's a prefix";
        stored.ok(&["store", "ddl", "--dialect", dialect, "--location", at, "-o", file]);
        let text = fs::read_to_string(file).unwrap();
        let quote = if dialect == "trino" { "''" } else { "\\'" };
        let scheme = if dialect == "spark" { "s3a" } else { "s3" };
        let users = format!(r#"'{scheme}://bucket/it{quote}s a prefix/rows/users/fleet=a%27b%22c/dt="#);
        let fleet = format!(r#"'a{quote}b"c'"#);
        for wanted in [users.as_str(), &fleet, "'größe'", "'..'", "/fleet=%2E./dt="] {
            assert!(text.contains(wanted), "{dialect}: {wanted}\n{text}");
        }
        let backslash = if dialect == "trino" { r"'back\slash; --'" } else { r"'back\\slash; --'" };
        assert!(text.contains(backslash), "{dialect}");
        let parsed: Value =
            serde_json::from_str(&run_python(&stored.env, SQLGLOT, &[file, dialect])).unwrap();
        let tables = parsed[1].as_object().unwrap().clone();
        assert_eq!(parsed[0]["Create"], tables.len() + 3, "two databases and a view: {}", parsed[0]);
        assert_eq!(parsed[0]["Drop"], tables.len(), "{}", parsed[0]);
        columns.push(tables);
    }
    assert!(columns[0].len() > 50 && columns[0].contains_key("diffy_prev.users"));
    assert_eq!(columns[0], columns[1]);
    assert_eq!(columns[0], columns[2]);
}

#[test]
fn what_cannot_be_is_said() {
    let env = TestEnv::new();
    let ddl = |args: &[&str], wanted: &str| {
        let stderr = env.fails(&[&["store", "ddl"], args].concat(), 2);
        assert!(stderr.contains(wanted), "{args:?}: {stderr}");
    };
    ddl(&["--dialect", "duckdb"], "diffy-store");
    env.write("none/x/users.json", "[]");
    let id = env.import(&env.path("none"), &["--fleet", "web"]);
    ddl(&["--dialect", "oracle"], "`oracle` is no dialect");
    ddl(&["--dialect", "athena"], "athena does not read the directory");
    ddl(&["--dialect", "duckdb", "--table", "user"], "has no table `user`");
    ddl(&["--dialect", "duckdb", "--database", "a\"b"], "is no name of a database");
    ddl(&["--dialect", "athena", "--database", "a.b", "--location", "s3://b"], "named catalog");
    let only =
        env.ok(&["store", "ddl", "--dialect", "duckdb", "--table", "hosts,snapshots", "--schema", "x"]);
    assert_eq!(only.matches("CREATE OR REPLACE VIEW \"x\".").count(), 2, "{only}");
    ddl(&["--dialect", "duckdb", "--fleet", "db"], "no snapshot of fleet `db`");
    let second = env.import(&env.path("none"), &["--fleet", "db"]);
    let newest = env.ok(&["store", "ddl", "--dialect", "duckdb", "--limit", "1"]);
    assert!(newest.contains(&second) && !newest.contains(&id), "{newest}");
    let of_fleet = env.ok(&["store", "ddl", "--dialect", "duckdb", "--fleet", "web"]);
    assert!(of_fleet.contains(&id) && !of_fleet.contains(&second), "{of_fleet}");
    env.ok(&["snapshot", "delete", &id, &second]);
    ddl(&["--dialect", "duckdb"], "has no snapshot, so no table");
}
