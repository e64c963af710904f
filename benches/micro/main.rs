//! Micro-benchmarks: `cargo bench --bench micro [FILTER]`. What each step of ingest and analysis does in a second, on
//! simulated hosts whose seed never changes. `docs/micro.md` says how to read it.
//!
//! Only what the library offers to everybody is called, so what is measured is what a user of it gets.
#![expect(clippy::unwrap_used, reason = "a panic is how a bench fails")]

mod fleet;

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use datafusion::arrow::array::RecordBatch;
use diffy::analyze::{AnalyzeRequest, analyze};
use diffy::catalog::TableSpec;
use diffy::decode::{Decoded, Limits, LogBody, LogLine, Origin, decode, parse_line};
use diffy::engine::{Engine, EngineConfig, Snapshots};
use diffy::identity::{Identifier, OwnNames};
use diffy::ingest::{IngestConfig, finish, prepare};
use diffy::model::SnapshotId;
use diffy::store::{FileKind, Manifest, SpoolReader, Store, StoreConfig};
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use tempfile::TempDir;

use self::fleet::{CATALOG, MEDIUM, SMALL, Said, Spooled};

/// As in the program: its allocator is part of what is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Tables that differ in width and in how many rows are the same everywhere; with `all`, every table.
const TABLES: [&str; 5] = ["processes", "deb_packages", "file", "process_envs", "all"];
/// Memory of sorts and queries, in bytes: the program's own default.
const MEMORY: usize = 384 << 20;
/// Tasks at once, whatever the machine has.
const THREADS: usize = 2;

/// Where stores lie while it runs.
static PLACE: OnceLock<PathBuf> = OnceLock::new();

fn main() {
    // Here and not in the static, which is never dropped.
    let dir = TempDir::with_prefix("diffy-micro-").unwrap();
    PLACE.set(dir.path().to_owned()).unwrap();
    divan::main();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build().unwrap()
}

fn new_dir() -> TempDir {
    TempDir::new_in(PLACE.get().unwrap()).unwrap()
}

fn decoded(said: &Said) -> Decoded {
    let json = std::str::from_utf8(&said.json).unwrap();
    decode(json, &Origin::default(), spec(&said.table), &Limits::default())
}

fn spec(table: &str) -> &'static TableSpec {
    CATALOG.table(table).unwrap()
}

/// Bytes of osquery's JSON.
mod bytes {
    use super::*;

    /// An answer as it is received: cut into chunks of rows, and packed for the spool.
    #[divan::bench(args = TABLES)]
    fn receive(bencher: Bencher<'_, '_>, table: &str) {
        let said = SMALL.said(table);
        let bytes: usize = said.iter().map(|said| said.json.len()).sum();
        let answers = || said.iter().map(|said| (said.host.clone(), said.answer())).collect::<Vec<_>>();
        bencher.counter(BytesCount::new(bytes)).with_inputs(answers).bench_values(|answers| {
            for (host, answer) in answers {
                black_box(prepare(&CATALOG, &Limits::default(), &host, answer).unwrap());
            }
        });
    }

    /// Rows of osqueryi to typed batches.
    #[divan::bench(args = TABLES)]
    fn decode_osqueryi(bencher: Bencher<'_, '_>, table: &str) {
        let said = SMALL.said(table);
        let bytes: usize = said.iter().map(|said| said.json.len()).sum();
        bencher.counter(BytesCount::new(bytes)).bench(|| {
            for said in &said {
                black_box(decoded(said));
            }
        });
    }

    /// Lines of a snapshot log of osqueryd to typed batches.
    #[divan::bench(args = TABLES)]
    fn decode_osqueryd(bencher: Bencher<'_, '_>, table: &str) {
        let said = SMALL.said(table);
        let lines: Vec<(&str, String)> =
            said.iter().map(|said| (said.table.as_str(), said.log_line())).collect();
        let bytes: usize = lines.iter().map(|(_, line)| line.len()).sum();
        bencher.counter(BytesCount::new(bytes)).bench(|| {
            for (table, line) in &lines {
                let LogLine::Entry(entry) = parse_line(line).unwrap() else { panic!("no entry") };
                let LogBody::Snapshot(rows) = entry.body else { panic!("no snapshot") };
                black_box(decode(rows.get(), &Origin::default(), spec(table), &Limits::default()));
            }
        });
    }
}

/// Rows of hosts.
mod rows {
    use super::*;

    /// The three ids of each row.
    #[divan::bench(args = TABLES)]
    fn identify(bencher: Bencher<'_, '_>, table: &str) {
        let own = SMALL.own_names();
        let batches: Vec<(Identifier, RecordBatch, &OwnNames)> = SMALL
            .said(table)
            .into_iter()
            .map(|said| (Identifier::new(spec(&said.table), &[], &[]), decoded(said).batch, &own[&said.host]))
            .collect();
        let rows: usize = batches.iter().map(|(_, batch, _)| batch.num_rows()).sum();
        bencher.counter(ItemsCount::new(rows)).bench(|| {
            for (identifier, batch, own) in &batches {
                black_box(identifier.identify(batch, &[(0..batch.num_rows(), *own)]));
            }
        });
    }

    /// A spool to a committed snapshot: decode, identify, sort, write rows and prevalence.
    #[divan::bench(args = TABLES, sample_count = 10, sample_size = 1)]
    fn write(bencher: Bencher<'_, '_>, table: &str) {
        let runtime = runtime();
        let spooled = SMALL.spooled(table);
        bencher
            .counter(ItemsCount::new(spooled.rows))
            .with_inputs(|| opened(&runtime, &spooled))
            .bench_values(|(dir, store, spool)| {
                let manifest = runtime.block_on(finished(&store, spool));
                assert_eq!(manifest.rows, spooled.rows);
                dir
            });
    }

    /// Rows that are sorted and have their ids to one file.
    #[divan::bench(args = TABLES[..4].iter().copied(), sample_count = 20, sample_size = 1)]
    fn write_parquet(bencher: Bencher<'_, '_>, table: &str) {
        let runtime = runtime();
        let (dir, store, manifests) = stored(&runtime, &[SMALL.spooled(table)]);
        let manifest = &manifests[0];
        let file = manifest.files.iter().find(|file| file.kind == FileKind::Rows).unwrap();
        let batches = runtime.block_on(store.read_file(file)).unwrap();
        bencher.counter(ItemsCount::new(file.rows)).bench(|| {
            runtime.block_on(async {
                let of = (&manifest.fleet, manifest.snapshot);
                let mut part = store.rows_part("rewritten", of, 0, &batches[0].schema()).unwrap();
                for batch in &batches {
                    part.write(batch).await.unwrap();
                }
                part.close().await.unwrap()
            })
        });
        drop(dir);
    }
}

/// Lines of prevalence: distinct rows with the hosts that have them.
mod lines {
    use super::*;

    /// Lines of five snapshots of one fleet grouped by strict id, their sets of hosts joined.
    #[divan::bench(args = TABLES[..4].iter().copied(), sample_count = 20, sample_size = 1)]
    fn merge(bencher: Bencher<'_, '_>, table: &str) {
        let runtime = runtime();
        let (dir, store, manifests) = stored(&runtime, &vec![MEDIUM.spooled(table); 5]);
        let sql = format!(
            "SELECT max(hosts) FROM (SELECT bitmap_count(bitmap_or(members)) AS hosts FROM prev.{table} \
             GROUP BY strict_id)"
        );
        bencher
            .counter(ItemsCount::new(lines(&manifests)))
            .with_inputs(|| engine(&store, &manifests))
            .bench_values(|engine| runtime.block_on(engine.collect(&sql, Vec::new())).unwrap());
        drop(dir);
    }

    /// A whole analysis of a snapshot: peer groups, candidates, scores, causes, ranks, and the raw rows of findings.
    #[divan::bench(args = [20, 100], sample_count = 10, sample_size = 1)]
    fn analyse(bencher: Bencher<'_, '_>, hosts: usize) {
        let runtime = runtime();
        let (dir, store, manifests) = stored(&runtime, &[fleet::Fleet::new(hosts).spooled("all")]);
        bencher
            .counter(ItemsCount::new(lines(&manifests)))
            .with_inputs(|| engine(&store, &manifests))
            .bench_values(|engine| {
                let of = (&store, &engine, &*CATALOG);
                let analysis = runtime.block_on(analyze(
                    of,
                    &manifests[0],
                    &AnalyzeRequest { methods: fleet::methods(), ..AnalyzeRequest::default() },
                ));
                // A few are down.
                assert!(analysis.unwrap().hosts.len() > hosts / 2);
            });
        drop(dir);
    }
}

fn lines(manifests: &[Manifest]) -> u64 {
    let files = manifests.iter().flat_map(|manifest| &manifest.files);
    files.filter(|file| file.kind == FileKind::Prevalence).map(|file| file.rows).sum()
}

fn engine(store: &Store, manifests: &[Manifest]) -> Engine {
    let config = EngineConfig { memory_limit_bytes: MEMORY, threads: THREADS, spill_dir: None };
    Engine::of_store(store, Snapshots::Read(manifests.to_vec()), &CATALOG, &config).unwrap()
}

/// A store of its own with the spool of a collection in it.
fn opened(runtime: &tokio::runtime::Runtime, spooled: &Spooled) -> (TempDir, Store, SpoolReader) {
    let dir = new_dir();
    let url = dir.path().join("store");
    let config = StoreConfig::default();
    let store = runtime.block_on(Store::open_or_create(url.to_str().unwrap(), &config)).unwrap();
    let spool = spooled.spool(&store, SnapshotId::new(diffy::model::now()));
    (dir, store, spool)
}

async fn finished(store: &Store, spool: SpoolReader) -> Manifest {
    let config = IngestConfig { limits: Limits::default(), threads: THREADS, memory_limit_bytes: MEMORY };
    Box::pin(finish(store, spool, &CATALOG, (&config, &|_, _| {}))).await.unwrap().manifest
}

/// A store with a snapshot of each.
fn stored(runtime: &tokio::runtime::Runtime, spooled: &[Arc<Spooled>]) -> (TempDir, Store, Vec<Manifest>) {
    let dir = new_dir();
    let url = dir.path().join("store");
    let store =
        runtime.block_on(Store::open_or_create(url.to_str().unwrap(), &StoreConfig::default())).unwrap();
    let manifests = spooled.iter().map(|spooled| {
        let spool = spooled.spool(&store, SnapshotId::new(diffy::model::now()));
        runtime.block_on(finished(&store, spool))
    });
    let manifests = manifests.collect();
    (dir, store, manifests)
}
