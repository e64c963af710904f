//! What Diffy says of a store, DuckDB says too: it reads the same files with nothing but their Hive partitions.

use std::collections::BTreeMap;
use std::fs;

use diffy::catalog::{Catalog, ColumnType, Normaliser};
use serde_json::{Value, json};

use crate::env::{TestEnv, run_python};

/// Names that must survive being a partition value.
const ODD_FLEETS: [&str; 6] = ["a/b=c d", "größe", "%41", "..", "+", "a%2Fb"];

/// Columns of a prevalence file beside the grain.
const NOT_GRAIN: [&str; 7] = ["loose_id", "strict_id", "hosts", "members", "fleet", "dt", "snapshot"];

/// A store of all kinds of collections: imported, simulated, of this machine, and with odd names.
fn store() -> TestEnv {
    let env = TestEnv::new();
    env.import_fleet(10, 1, 11);
    env.import_fleet(4, 0, 12);
    let store = env.store();
    env.ok(&["demo", "--bundled", "--hosts", "10", "--compromised", "1", "--store", store.to_str().unwrap()]);
    env.ok(&["collect", "--collector", "native", "--fleet", "native", "--tables", NATIVE]);
    let odd = env.path("odd");
    env.write("odd/x/users.json", ODD_USERS);
    env.write("odd/y/no_such_table.json", r#"[{"a": "1", "b": ""}, {"a": "2"}]"#);
    for fleet in ODD_FLEETS {
        env.import(&odd, &["--fleet", fleet]);
    }
    env
}

/// One test, for one store.
#[test]
fn duckdb_reads_what_diffy_reads() {
    let env = store();
    let tables = tables(&env);
    assert!(tables.len() > 25, "{tables:?}");
    counts_are_the_same_for_every_table(&env, &tables);
    coverage_and_hosts_are_the_same(&env);
    odd_fleet_names_are_the_same(&env);
    cells_are_the_same(&env);
    columns_have_the_types_of_the_schemas(&env, &tables);
    prevalence_counts_each_host_of_each_distinct_row_once(&env, &tables);
    members_are_the_hosts_that_have_the_row(&env, &tables);
    rows_of_a_part_are_sorted(&env, &tables);
}

const NATIVE: &str = "processes,listening_ports,users,groups,mounts,etc_hosts,os_version,system_info,uptime,interface_addresses";

const ODD_USERS: &str = r#"[
    {"username": "root", "uid": "0", "gid": "0", "shell": "/bin/sh", "description": ""},
    {"username": "größe", "uid": "-1", "gid": "9223372036854775807", "shell": ""},
    {"username": "", "uid": "none", "gid": ""},
    {"username": "tab\tnewline\n", "uid": "3", "shell": null}
]"#;

/// Answers of DuckDB: a list of rows for each query, in one process.
fn duckdb(env: &TestEnv, queries: &[String]) -> Vec<Vec<Value>> {
    const PROGRAM: &str = "
import duckdb, json, sys
connection = duckdb.connect()
for query in json.load(open(sys.argv[1])):
    answer = connection.sql(query)
    names = answer.columns
    print(json.dumps([dict(zip(names, row)) for row in answer.fetchall()]))
";
    // Tests share the store.
    let file = tempfile::NamedTempFile::new_in(env.path("home")).unwrap();
    fs::write(&file, json!(queries).to_string()).unwrap();
    let answers = run_python(env, PROGRAM, &[file.path().to_str().unwrap()]);
    let answers: Vec<Vec<Value>> = answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), queries.len());
    answers
}

/// All files of one kind as DuckDB reads them.
fn read(env: &TestEnv, kind: &str) -> String {
    format!(
        "read_parquet('{}/{kind}/**/*.parquet', hive_partitioning = true, hive_types_autocast = false, \
         union_by_name = true)",
        env.store().display()
    )
}

/// Tables that have rows.
fn tables(env: &TestEnv) -> Vec<String> {
    let dirs = fs::read_dir(env.store().join("rows")).unwrap().flatten();
    let mut names: Vec<String> = dirs.map(|dir| dir.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Rows in an order of their own.
fn sorted(mut rows: Vec<Value>) -> Vec<String> {
    let mut texts: Vec<String> = rows.drain(..).map(canonical).collect();
    texts.sort();
    texts
}

fn canonical(row: Value) -> String {
    let cells: BTreeMap<String, Value> = row.as_object().unwrap().clone().into_iter().collect();
    serde_json::to_string(&cells).unwrap()
}

fn union(tables: &[String], query: impl Fn(&str) -> String) -> String {
    tables.iter().map(|table| query(table)).collect::<Vec<_>>().join(" UNION ALL ")
}

fn counts_are_the_same_for_every_table(env: &TestEnv, tables: &[String]) {
    let counts = |table: &str, rows: &str| {
        format!(
            "SELECT '{table}' AS t, fleet, snapshot, count(*) AS n, count(DISTINCT host) AS h, \
             count(DISTINCT loose_id) AS l, count(DISTINCT strict_id) AS s FROM {rows} GROUP BY fleet, snapshot"
        )
    };
    let lines = |table: &str, rows: &str| {
        format!(
            "SELECT '{table}' AS t, fleet, snapshot, count(*) AS n, CAST(sum(hosts) AS BIGINT) AS h, \
             count(DISTINCT loose_id) AS l, count(DISTINCT strict_id) AS s FROM {rows} GROUP BY fleet, snapshot"
        )
    };
    let theirs = duckdb(
        env,
        &[
            union(tables, |table| counts(table, &read(env, &format!("rows/{table}")))),
            union(tables, |table| lines(table, &read(env, &format!("prevalence/{table}")))),
        ],
    );
    let rows = env.query(&union(tables, |table| counts(table, &format!("\"{table}\""))));
    let prevalence = env.query(&union(tables, |table| lines(table, &format!("prev.\"{table}\""))));
    for ours in [&rows, &prevalence] {
        let fleets: std::collections::BTreeSet<&str> =
            ours.iter().map(|row| row["fleet"].as_str().unwrap()).collect();
        assert_eq!(fleets.len(), ODD_FLEETS.len() + 3, "{fleets:?}");
    }
    let [their_rows, their_prevalence] = theirs.try_into().unwrap();
    assert_eq!(sorted(rows), sorted(their_rows));
    assert_eq!(sorted(prevalence), sorted(their_prevalence));
}

fn coverage_and_hosts_are_the_same(env: &TestEnv) {
    let coverage = |from: &str, millis: &str| {
        format!(
            "SELECT fleet, snapshot, dt, host, table_name, status, rows, bytes, error, columns_missing, osquery_version, \
             uid, {millis}(started) AS s, {millis}(ended) AS e FROM {from}"
        )
    };
    let hosts = |from: &str| {
        format!(
            "SELECT fleet, snapshot, ordinal, host, hostname, os_name, os_version, arch, kernel, physical_memory, \
             uptime_seconds FROM {from}"
        )
    };
    let theirs = duckdb(env, &[coverage(&read(env, "coverage"), "epoch_ms"), hosts(&read(env, "hosts"))]);
    let [their_coverage, their_hosts] = theirs.try_into().unwrap();
    let ours = coverage("coverage", "").replace("(started)", "CAST(started AS BIGINT)");
    let ours = env.query(&ours.replace("(ended)", "CAST(ended AS BIGINT)"));
    assert!(ours.len() > 500);
    assert_eq!(with_all(ours, &their_coverage), sorted(their_coverage));
    assert_eq!(with_all(env.query(&hosts("hosts")), &their_hosts), sorted(their_hosts));
}

/// Rows with the columns that are null spelled out, as DuckDB's are.
fn with_all(mut ours: Vec<Value>, theirs: &[Value]) -> Vec<String> {
    let columns: Vec<&String> = theirs[0].as_object().unwrap().keys().collect();
    for row in &mut ours {
        for column in &columns {
            row.as_object_mut().unwrap().entry(column.as_str()).or_insert(Value::Null);
        }
    }
    sorted(ours)
}

fn odd_fleet_names_are_the_same(env: &TestEnv) {
    let query = |from: &str| format!("SELECT DISTINCT fleet FROM {from} ORDER BY fleet");
    let [theirs] = duckdb(env, &[query(&read(env, "rows/users"))]).try_into().unwrap();
    assert_eq!(env.query(&query("users")), theirs);
    for fleet in ODD_FLEETS {
        assert!(theirs.contains(&json!({ "fleet": fleet })), "{fleet}");
        assert_eq!(env.ok(&["snapshot", "list", "--fleet", fleet]).lines().count(), 1);
        let sql = format!("SELECT count(*) AS n FROM users WHERE fleet = '{fleet}'");
        assert_eq!(env.query_one(&sql), 4);
    }
    let below: Vec<_> = fs::read_dir(env.store()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(below.len() <= 7, "a fleet name left its place: {below:?}");
}

fn cells_are_the_same(env: &TestEnv) {
    let query = |from: &str| {
        format!(
            "SELECT username, uid, gid, shell, description, directory, extra FROM {from} WHERE fleet = '..' AND host = 'x'"
        )
    };
    let [theirs] = duckdb(env, &[query(&read(env, "rows/users"))]).try_into().unwrap();
    let nulls = theirs.iter().filter(|row| row["shell"].is_null()).count();
    let empty = theirs.iter().filter(|row| row["shell"] == "").count();
    assert_eq!((theirs.len(), nulls, empty), (4, 2, 1), "unknown is not empty: {theirs:?}");
    let unparsed = theirs.iter().find(|row| row["username"] == "").unwrap();
    assert!(unparsed["uid"].is_null() && unparsed["extra"].as_str().unwrap().contains("none"), "{unparsed}");
    assert_eq!(with_all(env.query(&query("users")), &theirs), sorted(theirs));
}

fn columns_have_the_types_of_the_schemas(env: &TestEnv, tables: &[String]) {
    let catalog = Catalog::builtin().unwrap();
    let queries: Vec<String> = tables
        .iter()
        .map(|table| {
            format!(
                "SELECT column_name AS c, column_type AS t FROM (DESCRIBE FROM {})",
                read(env, &format!("rows/{table}"))
            )
        })
        .collect();
    for (table, described) in tables.iter().zip(duckdb(env, &queries)) {
        let types: BTreeMap<&str, &str> =
            described.iter().map(|row| (row["c"].as_str().unwrap(), row["t"].as_str().unwrap())).collect();
        let own = ["host", "collected_at", "loose_id", "strict_id"].map(|name| types[name]);
        assert_eq!(own, ["VARCHAR", "TIMESTAMP WITH TIME ZONE", "BLOB", "BLOB"], "{table}");
        for column in &catalog.table_or_undeclared(table).columns {
            let expected = match column.kind {
                ColumnType::Text => "VARCHAR",
                ColumnType::Integer => "BIGINT",
                ColumnType::Double => "DOUBLE",
            };
            assert_eq!(types[column.name.as_str()], expected, "{table}.{}", column.name);
        }
    }
}

/// The columns of each table's prevalence lines.
fn grains(env: &TestEnv, tables: &[String]) -> Vec<Vec<String>> {
    let describe = |table: &String| {
        format!("SELECT column_name AS c FROM (DESCRIBE FROM {})", read(env, &format!("prevalence/{table}")))
    };
    let described = duckdb(env, &tables.iter().map(describe).collect::<Vec<_>>());
    let names = |rows: Vec<Value>| {
        let names = rows.iter().map(|row| row["c"].as_str().unwrap().to_owned());
        names.filter(|name| !NOT_GRAIN.contains(&name.as_str())).collect()
    };
    described.into_iter().map(names).collect()
}

/// Whether a table's lines have own names replaced, which DuckDB cannot do.
fn replaces_own_names(catalog: &Catalog, table: &str) -> bool {
    catalog.table(table).is_none_or(|spec| {
        let mut normalisers = spec.columns.iter().flat_map(|column| &column.normalise);
        normalisers.any(|normaliser| matches!(normaliser, Normaliser::SelfNames | Normaliser::Addr))
    })
}

fn quoted(columns: &[String]) -> String {
    columns.iter().map(|name| format!(", \"{name}\"")).collect()
}

fn prevalence_counts_each_host_of_each_distinct_row_once(env: &TestEnv, tables: &[String]) {
    let catalog = Catalog::builtin().unwrap();
    let queries: Vec<String> = tables
        .iter()
        .zip(grains(env, tables))
        .map(|(table, grain)| {
            let (rows, lines) = (read(env, &format!("rows/{table}")), read(env, &format!("prevalence/{table}")));
            format!(
                "SELECT (SELECT count(*) FROM (SELECT DISTINCT fleet, snapshot, host, strict_id{} FROM {rows} \
                 WHERE fleet != 'native')) AS pairs, \
                 (SELECT CAST(sum(hosts) AS BIGINT) FROM {lines} WHERE fleet != 'native') AS hosts",
                quoted(&grain)
            )
        })
        .collect();
    let mut exact = 0;
    for (table, answer) in tables.iter().zip(duckdb(env, &queries)) {
        let [pairs, hosts] = ["pairs", "hosts"].map(|name| answer[0][name].as_u64().unwrap_or_default());
        if replaces_own_names(&catalog, table) {
            assert!(hosts <= pairs, "{table}: {hosts} of {pairs}");
        } else {
            assert_eq!(hosts, pairs, "{table}");
            exact += 1;
        }
    }
    assert!(exact >= 10, "only {exact} tables could be compared");
}

fn members_are_the_hosts_that_have_the_row(env: &TestEnv, tables: &[String]) {
    let ours = env.query(&union(tables, |table| {
        format!(
            "SELECT '{table}' AS t, snapshot, hex_id(strict_id) AS id, bitmap_to_list(bitmap_or(members)) AS hosts \
             FROM prev.\"{table}\" GROUP BY snapshot, strict_id"
        )
    }));
    let theirs = union(tables, |table| {
        format!(
            "SELECT '{table}' AS t, r.snapshot, lower(hex(strict_id)) AS id, list_sort(list(DISTINCT ordinal)) AS hosts \
             FROM {} r JOIN {} h ON r.snapshot = h.snapshot AND r.host = h.host GROUP BY r.snapshot, strict_id",
            read(env, &format!("rows/{table}")),
            read(env, "hosts")
        )
    });
    let [theirs] = duckdb(env, &[theirs]).try_into().unwrap();
    let (ours, theirs) = (sorted(ours), sorted(theirs));
    assert!(ours.len() > 1_000);
    assert_eq!(ours, theirs);
    let mut identities = env.query(
        "SELECT table_name AS t, snapshot, hex_id(strict_id) AS id, bitmap_to_list(members) AS hosts, \
         hosts = bitmap_count(members) AS counted FROM identities",
    );
    for identity in &mut identities {
        assert_eq!(identity.as_object_mut().unwrap().remove("counted"), Some(true.into()));
    }
    assert_eq!(sorted(identities), theirs);
}

fn rows_of_a_part_are_sorted(env: &TestEnv, tables: &[String]) {
    let catalog = Catalog::builtin().unwrap();
    let queries: Vec<String> = tables
        .iter()
        .zip(grains(env, tables))
        .map(|(table, grain)| {
            // Hosts are sorted within a line of prevalence.
            let line = if replaces_own_names(&catalog, table) { String::new() } else { quoted(&grain) };
            let hosts = if line.is_empty() { "false" } else { "line = before.line AND host < before.host" };
            format!(
                "WITH numbered AS (SELECT part, file_row_number AS n, loose_id || strict_id AS ids, host, \
                 row(strict_id{line}) AS line FROM read_parquet('{}/rows/{table}/**/*.parquet', file_row_number = true, \
                 filename = 'part', union_by_name = true)) \
                 SELECT count(*) AS n FROM numbered JOIN (SELECT part, n + 1 AS n, ids, host, line FROM numbered) before \
                 USING (part, n) WHERE numbered.ids < before.ids OR ({})",
                env.store().display(),
                hosts.replace("line =", "numbered.line =").replace("host <", "numbered.host <"),
            )
        })
        .collect();
    for (table, answer) in tables.iter().zip(duckdb(env, &queries)) {
        assert_eq!(answer[0]["n"], 0, "{table}");
    }
}

#[test]
fn an_unfinished_snapshot_is_invisible_to_diffy() {
    let env = TestEnv::new();
    let id = env.import_fleet(2, 0, 1);
    let before = env.query_one("SELECT count(*) AS n FROM processes");
    let unfinished = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    let copy = env.sh(&format!(
        "cd diffy-store && for part in $(find rows prevalence coverage hosts -name '*.parquet'); do \
         to=$(echo $part | sed s/{id}/{unfinished}/); mkdir -p $(dirname $to); cp $part $to; done"
    ));
    assert_eq!(copy.status, 0, "{}", copy.stderr);
    let [theirs] = duckdb(&env, &[format!("SELECT count(*) AS n FROM {}", read(&env, "rows/processes"))])
        .try_into()
        .unwrap();
    assert_eq!(theirs[0]["n"].as_u64(), before.as_u64().map(|rows| rows * 2), "DuckDB sees the files");
    assert_eq!(env.query_one("SELECT count(*) AS n FROM processes"), before);
    for table in ["coverage", "hosts", "prevalence", "snapshots"] {
        let sql = format!("SELECT count(*) AS n FROM {table} WHERE snapshot = '{unfinished}'");
        assert_eq!(env.query_one(&sql), 0, "{table}");
    }
    assert!(env.fails(&["snapshot", "recover"], 1).contains(unfinished));
    env.ok(&["snapshot", "prune", "--orphans"]);
    let [theirs] = duckdb(&env, &[format!("SELECT count(*) AS n FROM {}", read(&env, "rows/processes"))])
        .try_into()
        .unwrap();
    assert_eq!(theirs[0]["n"], before);
    env.ok(&["snapshot", "verify", &id]);
}
