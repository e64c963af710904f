//! How well compromised hosts are found: `cargo bench --bench detection`.
//!
//! For each kind of fleet and each of several seeds: simulate, ingest by the real path, analyze, compare with the
//! truth. `metrics` defines what is measured; `variants` lists what runs of Diffy; `peers.py` runs the methods of
//! others on the same stores. `--help` says more.

mod args;
mod cell;
mod explain;
mod fleets;
mod measure;
mod metrics;
mod peers;
mod print;
mod simulated;
mod truth;
mod variants;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use diffy::catalog::Catalog;
use diffy::decode::Limits;
use diffy::error::{Error, Result};
use diffy::ingest::IngestConfig;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use self::args::Args;
use self::fleets::{Fleet, Plant, Source};
use self::measure::Measures;
use self::variants::Variant;

/// Memory of the sorts and queries of one fleet, in bytes.
const MEMORY: usize = 512 << 20;

/// What one method did on one fleet.
#[derive(Debug, Serialize, Deserialize)]
struct Measured {
    /// The kind of fleet.
    cell: String,
    /// The seed; fleets from files have none.
    seed: Option<u64>,
    /// The method.
    method: String,
    /// What was measured.
    measures: Measures,
}

/// A fleet as `fleets.json` has it, for the methods of others.
#[derive(Debug, Serialize)]
struct Kept {
    cell: String,
    seed: Option<u64>,
    dir: PathBuf,
    hosts: u64,
    snapshot: String,
    /// The day before, clean.
    before: Option<String>,
}

/// Everything that a run has at hand.
struct Bench {
    args: Args,
    plant: Plant,
    variants: Vec<&'static Variant>,
    dir: PathBuf,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error:?}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let args = Args::read();
    let temporary = tempfile::tempdir().map_err(failed)?;
    let dir = args.keep.clone().unwrap_or_else(|| temporary.path().to_owned());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let config = IngestConfig { limits: Limits::default(), threads, memory_limit_bytes: MEMORY };
    let variants = variants::named(args.variant.as_deref());
    let wants_past = variants.iter().any(|variant| variant.knows_past);
    let plant = Plant { catalog: Arc::new(Catalog::builtin()?), config, wants_past };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(failed)?;
    let bench = Arc::new(Bench { args, plant, variants, dir });
    runtime.block_on(run_all(bench))
}

fn failed(source: std::io::Error) -> Error {
    Error::internal("the bench cannot work").source(source)
}

/// Measures all fleets, some at once, and prints what came of it.
async fn run_all(bench: Arc<Bench>) -> Result<()> {
    let sources = bench.args.sources();
    let tasks = sources.clone().into_iter().map(|source| {
        let bench = Arc::clone(&bench);
        // A thread of its own: what a fleet needs is mostly computing.
        let work = move || Handle::current().block_on(bench.fleet(&source));
        let task = tokio::task::spawn_blocking(work);
        task.map(|done| done.map_err(|source| Error::internal("a fleet failed").source(source))?)
    });
    let done: Vec<(Kept, Vec<Measured>)> =
        stream::iter(tasks).buffered(bench.args.jobs.max(1)).try_collect().await?;
    let (kept, measured): (Vec<Kept>, Vec<Vec<Measured>>) = done.into_iter().unzip();
    let mut measured: Vec<Measured> = measured.into_iter().flatten().collect();
    write_json(&bench.dir.join("fleets.json"), &kept)?;
    if !bench.args.no_peers {
        measured.extend(peers::run(&bench.dir)?);
    }
    print::tables(&measured, &sources).map_err(failed)?;
    if let Some(main) = bench.variants.first() {
        print::scenarios(&measured, main.name).map_err(failed)?;
    }
    bench.args.json.as_ref().map_or(Ok(()), |file| write_json(file, &measured))
}

impl Bench {
    /// Makes a fleet and runs all variants on it.
    async fn fleet(&self, source: &Source) -> Result<(Kept, Vec<Measured>)> {
        let dir = self.dir.join(source.slug());
        std::fs::create_dir_all(&dir).map_err(failed)?;
        let started = std::time::Instant::now();
        let fleet = self.plant.fleet(source, &dir).await?;
        let made = started.elapsed().as_secs_f64();
        let mut measured = Vec::new();
        for variant in &self.variants {
            measured.extend(self.variant(variant, &fleet, source).await?);
        }
        let whole = started.elapsed().as_secs_f64();
        self.tell(&format!(
            "{} seed {:?}: made in {made:.1} s, {whole:.1} s in all",
            source.cell(),
            source.seed()
        ));
        let kept = Kept {
            cell: source.cell(),
            seed: source.seed(),
            hosts: fleet.today.hosts_asked,
            snapshot: fleet.today.snapshot.to_string(),
            before: fleet.before.as_ref().map(|before| before.snapshot.to_string()),
            dir: dir.clone(),
        };
        if self.args.no_peers && self.args.keep.is_none() {
            std::fs::remove_dir_all(&dir).map_err(failed)?;
        }
        Ok((kept, measured))
    }

    async fn variant(&self, variant: &Variant, fleet: &Fleet, source: &Source) -> Result<Option<Measured>> {
        let Some(run) = variant.run(&self.plant, fleet).await? else { return Ok(None) };
        let (truth, catalog) = (&fleet.truth, &*self.plant.catalog);
        let mut measures = measure::measure(&run.analysis, truth, catalog);
        measures.seconds = run.seconds;
        if self.args.explain {
            let title = format!("{}, seed {:?}: {}", source.cell(), source.seed(), variant.name);
            let text = explain::explain(&title, &run.analysis, (truth, catalog));
            writeln!(std::io::stdout(), "{text}").map_err(failed)?;
        }
        let method = variant.name.to_owned();
        Ok(Some(Measured { cell: source.cell(), seed: source.seed(), method, measures }))
    }

    fn tell(&self, text: &str) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec_pretty(value)
        .map_err(|source| Error::internal("cannot encode the measures").source(source))?;
    std::fs::write(path, text)
        .map_err(|source| Error::usage(format!("cannot write `{}`", path.display())).source(source))
}
