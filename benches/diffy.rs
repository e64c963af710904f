//! What every collected byte goes through, alone: `cargo bench`.
//!
//! The input is the `file` answer of simulated hosts, the widest of the large tables.

use std::sync::Arc;

use diffy::catalog::{Catalog, TableSpec};
use diffy::collect::Collector;
use diffy::decode::{Chunk, Limits, decode, split_rows};
use diffy::identity::{Identifier, OwnNames};
use diffy::simulate::{Base, Simulation, SimulationConfig};
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};

/// Hosts whose answers are put one after another.
const HOSTS: usize = 20;
const TABLE: &str = "file";

fn main() {
    divan::main();
}

fn spec() -> TableSpec {
    Catalog::builtin().expect("built-in schemas").table(TABLE).expect("a built-in table").clone()
}

/// What the hosts answer, as osqueryi prints it.
fn answers() -> Vec<u8> {
    let config = SimulationConfig { hosts: HOSTS, compromised: 0, seed: 1 };
    let simulation = Arc::new(Simulation::new(config, Base::bundled()).expect("a simulation"));
    let (hosts, tables) = (simulation.hosts(), [spec()]);
    let collector = simulation.collector();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let mut all = Vec::new();
        for host in &hosts {
            let (send, mut receive) = tokio::sync::mpsc::channel(1);
            let (answer, ()) = tokio::join!(receive.recv(), collector.collect(host, &tables, send));
            all.extend(answer.expect("one answer").json);
        }
        all
    })
}

fn chunks(bytes: &[u8]) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut reader = bytes;
    let take = &mut |chunk| {
        chunks.push(chunk);
        Ok(())
    };
    split_rows(&mut reader, "bench", &Limits::default(), take).expect("rows");
    chunks
}

#[divan::bench]
fn split(bencher: Bencher<'_, '_>) {
    let bytes = answers();
    bencher.counter(BytesCount::new(bytes.len())).bench_local(|| chunks(&bytes));
}

#[divan::bench]
fn build_batches(bencher: Bencher<'_, '_>) {
    let (bytes, spec, limits) = (answers(), spec(), Limits::default());
    let chunks = chunks(&bytes);
    bencher.counter(BytesCount::new(bytes.len())).bench_local(|| {
        chunks
            .iter()
            .map(|chunk| decode(&chunk.json, &chunk.origin, &spec, &limits).batch.num_rows())
            .sum::<usize>()
    });
}

#[divan::bench]
fn identify(bencher: Bencher<'_, '_>) {
    let (spec, limits) = (spec(), Limits::default());
    let chunks = chunks(&answers());
    let batches: Vec<_> =
        chunks.iter().map(|chunk| decode(&chunk.json, &chunk.origin, &spec, &limits).batch).collect();
    let own = OwnNames::new(["ip-10-0-0-17.eu-west-1.compute.internal", "10.0.0.17", "i-0123456789abcdef0"]);
    let identifier = Identifier::new(&spec, &[], &[]);
    let rows = batches.iter().map(|batch| batch.num_rows()).sum::<usize>();
    bencher.counter(ItemsCount::new(rows)).bench_local(|| {
        batches.iter().map(|batch| identifier.identify(batch, &own).expect("ids")).collect::<Vec<_>>()
    });
}
