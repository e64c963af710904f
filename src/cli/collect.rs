//! `diffy collect`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;

use super::output::print;
use super::progress::Progress;
use super::{App, Outcome};
use crate::catalog::TableSpec;
use crate::collect::Collector;
use crate::collect::native::{NativeCollector, NativeConfig};
use crate::collect::osquery::{OsqueryCollector, OsqueryConfig};
use crate::decode::Limits;
use crate::error::{Error, Result};
use crate::ingest::{Asked, Finished, IngestConfig, Receiver, ask_hosts, finish};
use crate::model::{Coverage, Fleet, SnapshotId, now};
use crate::report::escape::{escape, shown};
use crate::store::{SpoolBegin, SpoolReader, SpoolWriter, Store};

/// Most failures that are told one by one.
const MOST_TOLD: usize = 20;

/// Ask hosts for tables and keep the answers as one snapshot
///
/// Nothing received is lost: after an interruption, `diffy snapshot recover` makes a snapshot of what came.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The set of hosts that should be alike [env: DIFFY_FLEET]
    #[arg(long)]
    fleet: Option<Fleet>,
    /// Whom to ask: `local` is this machine
    #[arg(long, value_name = "SPEC", default_values_t = [Target::Local], value_enum)]
    targets: Vec<Target>,
    /// How to ask [default: osquery if osqueryi is on PATH, else native]
    #[arg(long, value_enum)]
    collector: Option<CollectorName>,
    /// The osqueryi program [default: the one on PATH]
    #[arg(long, value_name = "FILE")]
    osqueryi: Option<PathBuf>,
    /// Tables to ask for, separated by commas [default: all that are collected by default]
    #[arg(long, value_delimiter = ',', value_name = "T,...")]
    tables: Vec<String>,
    /// The name of the host, for collections of this machine [default: its host name]
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// The incident this is collected for; recorded in the snapshot
    #[arg(long, value_name = "ID")]
    incident: Option<String>,
    /// Hosts to ask at once [default: what suits the collector]
    #[arg(long, value_name = "N")]
    concurrency: Option<usize>,
    /// Time limit of one query on one host, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
    /// Exit with status 4 when fewer hosts than this answered, in percent of those asked
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    min_success: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    /// This machine.
    Local,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("local")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CollectorName {
    /// osqueryi on this machine, one query at a time.
    Osquery,
    /// No osquery needed: /proc and files of this Linux machine.
    Native,
}

/// One collection.
pub(super) struct Collection {
    pub(super) fleet: Fleet,
    pub(super) incident: Option<String>,
    pub(super) collector: Arc<dyn Collector>,
    pub(super) hosts: Vec<String>,
    pub(super) tables: Vec<TableSpec>,
    pub(super) concurrency: Option<usize>,
    /// User and machine, for the manifest.
    pub(super) collected_by: String,
    /// Whether the store goes away when the collection is interrupted.
    pub(super) is_temporary: bool,
}

pub(super) async fn run(app: &App, args: Args) -> Result<Outcome> {
    if args.concurrency == Some(0) {
        return Err(Error::usage("`--concurrency 0` would ask nobody").hint("use 1 or more"));
    }
    if !(0.0..=100.0).contains(&args.min_success) {
        return Err(Error::usage(format!("`--min-success {}` is no percentage", args.min_success)));
    }
    let fleet = fleet(app, args.fleet.clone())?;
    let tables = tables(app, &args.tables)?;
    let store = Store::open_or_create(&app.settings.store).await?;
    let host = args.host.clone().unwrap_or_else(host_name);
    let collection = Collection {
        fleet,
        incident: args.incident.clone(),
        collector: collector(app, &args)?,
        hosts: vec![host],
        tables,
        concurrency: args.concurrency,
        collected_by: app.settings.who.clone(),
        is_temporary: false,
    };
    let finished = collect(app, &store, collection).await?;
    print(&summary(&finished))?;
    tell_problems(app, &finished);
    // Whoever set a limit knows this status.
    if args.min_success <= 0.0 {
        somebody_answered(&finished)?;
    }
    let reached = finished.manifest.hosts_answered as f64 / finished.manifest.hosts_asked.max(1) as f64;
    Ok(if reached * 100.0 < args.min_success { Outcome::TooFewHosts } else { Outcome::Done })
}

/// The fleet of flag, environment or file.
pub(super) fn fleet(app: &App, flag: Option<Fleet>) -> Result<Fleet> {
    match (flag, &app.settings.fleet) {
        (Some(fleet), _) => Ok(fleet),
        (None, Some(name)) => name.parse(),
        (None, None) => {
            Err(Error::usage("which fleet?")
                .hint("`--fleet NAME` names the set of hosts that should be alike"))
        }
    }
}

fn tables(app: &App, names: &[String]) -> Result<Vec<TableSpec>> {
    if names.is_empty() {
        return Ok(app.catalog.tables().filter(|table| table.default).cloned().collect());
    }
    names.iter().map(|name| super::tables::find(app, name).cloned()).collect()
}

fn collector(app: &App, args: &Args) -> Result<Arc<dyn Collector>> {
    let timeout = Duration::from_secs(args.timeout.max(1));
    let found = args.osqueryi.clone().or_else(|| on_path(app, "osqueryi"));
    let name = args.collector.unwrap_or(if found.is_some() {
        CollectorName::Osquery
    } else {
        CollectorName::Native
    });
    match (name, found) {
        (CollectorName::Native, _) => {
            Ok(Arc::new(NativeCollector::new(NativeConfig { timeout, ..NativeConfig::default() })))
        }
        (CollectorName::Osquery, Some(program)) => Ok(Arc::new(OsqueryCollector::new(OsqueryConfig {
            program,
            timeout,
            ..OsqueryConfig::default()
        }))),
        (CollectorName::Osquery, None) => Err(Error::usage("osqueryi is not on PATH")
            .hint("`--osqueryi FILE` names it; `--collector native` needs no osquery")),
    }
}

fn on_path(app: &App, program: &str) -> Option<PathBuf> {
    app.settings.path.iter().map(|dir| dir.join(program)).find(|path| path.is_file())
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Collects into a spool and makes the snapshot.
pub(super) async fn collect(app: &App, store: &Store, collection: Collection) -> Result<Finished> {
    let started = now();
    warn_of_future(app, store, &collection.fleet).await?;
    let begin = SpoolBegin {
        snapshot: SnapshotId::new(started),
        fleet: collection.fleet.clone(),
        incident: collection.incident.clone(),
        started,
        collected_by: collection.collected_by.clone(),
        collector: collection.collector.name().to_owned(),
        queries: queries(&collection.tables),
    };
    let is_temporary = collection.is_temporary;
    let spool = SpoolWriter::create(store.spool_path(begin.snapshot), &begin)?;
    let mut receiver = Receiver::new(&app.catalog, spool);
    for host in &collection.hosts {
        receiver.host(host)?;
    }
    let work = async {
        receive(app, &mut receiver, collection).await?;
        make_snapshot(app, store, receiver.into_reader()?).await
    };
    tokio::select! {
        // The signal first: from the first answer on it must not kill.
        biased;
        _ = tokio::signal::ctrl_c() => {
            Err(if is_temporary { interrupted_in_temporary() } else { interrupted(store, begin.snapshot) })
        }
        finished = work => finished,
    }
}

fn interrupted(store: &Store, snapshot: SnapshotId) -> Error {
    let place = shell_words::quote(store.name());
    Error::remote("interrupted; what was received is kept")
        .hint(format!("`diffy snapshot recover --store {place} {snapshot}` makes a snapshot of it"))
}

fn interrupted_in_temporary() -> Error {
    Error::remote("interrupted; the store was temporary, nothing is kept")
        .hint("`--store` names one that stays")
}

/// A wrong clock would make an old snapshot the newest for ever.
pub(super) async fn warn_of_future(app: &App, store: &Store, fleet: &Fleet) -> Result<()> {
    let listing = store.snapshots(Some(fleet)).await?;
    for manifest in listing.manifests.iter().filter(|manifest| manifest.snapshot.time() > now()) {
        app.output.warn(&format!(
            "snapshot {} of this fleet is from the future ({}): a clock is wrong, and it will count as the newest",
            manifest.snapshot,
            crate::model::rfc3339(manifest.snapshot.time()),
        ));
    }
    Ok(())
}

fn queries(tables: &[TableSpec]) -> BTreeMap<String, String> {
    tables.iter().map(|table| (table.name.clone(), table.query.clone())).collect()
}

async fn receive(app: &App, receiver: &mut Receiver<'_>, collection: Collection) -> Result<()> {
    let concurrency = collection.concurrency.unwrap_or_else(|| collection.collector.concurrency());
    let (label, total) = match collection.hosts.len() {
        1 => ("collecting tables", collection.tables.len()),
        hosts => ("collecting hosts", hosts),
    };
    let by_host = collection.hosts.len() > 1;
    let progress = Progress::new(app.progress, label, Some(total as u64));
    let catalog = Arc::new(app.catalog.clone());
    let asking = (catalog, Limits::default(), concurrency);
    let mut answers = ask_hosts(collection.collector, collection.hosts, collection.tables, asking);
    while let Some(asked) = answers.recv().await {
        match asked {
            Asked::Answer(prepared) => {
                receiver.answer(&prepared)?;
                progress.inc(u64::from(!by_host));
            }
            Asked::HostDone => progress.inc(u64::from(by_host)),
            Asked::Failed(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes the snapshot of a spool, with progress.
pub(super) async fn make_snapshot(app: &App, store: &Store, spool: SpoolReader) -> Result<Finished> {
    let progress = Progress::new(app.progress, "writing the snapshot", Some(1));
    let config = IngestConfig {
        limits: Limits::default(),
        threads: app.threads,
        memory_limit_bytes: app.memory_limit_bytes,
    };
    let watch = |done: u64, total: u64| {
        progress.set_total(total);
        progress.inc(done.saturating_sub(progress.done()));
    };
    finish(store, spool, &app.catalog, (&config, &watch)).await
}

/// A snapshot without any answer is kept for its reasons, and is no success.
pub(super) fn somebody_answered(finished: &Finished) -> Result<()> {
    if finished.manifest.hosts_answered > 0 {
        return Ok(());
    }
    let snapshot = finished.manifest.snapshot;
    Err(Error::data(format!("no host answered; snapshot {snapshot} keeps the reasons"))
        .hint("`diffy query --name coverage_problems` lists them"))
}

/// What a person wants to know of a new snapshot.
pub(super) fn summary(finished: &Finished) -> String {
    let manifest = &finished.manifest;
    let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    let tables = manifest.files.iter().filter_map(|file| file.table.as_deref());
    let tables: std::collections::BTreeSet<&str> = tables.collect();
    format!(
        "snapshot  {}\nfleet     {}\nhosts     {} asked, {} answered, {} failed\nrows      {} in {} tables\nbytes     {}\n",
        manifest.snapshot,
        escape(manifest.fleet.as_str()),
        manifest.hosts_asked,
        manifest.hosts_answered,
        manifest.hosts_failed,
        indicatif::HumanCount(manifest.rows),
        tables.len(),
        indicatif::HumanBytes(bytes),
    )
}

/// Says on stderr what did not come, and what was wrong with what came.
pub(super) fn tell_problems(app: &App, finished: &Finished) {
    for warning in &finished.manifest.warnings {
        app.output.warn(warning);
    }
    let mut failures: BTreeMap<(String, String), Vec<&Coverage>> = BTreeMap::new();
    for line in finished.coverage.iter().filter(|line| is_failure(line)) {
        failures.entry((line.status.to_string(), line.error.clone())).or_default().push(line);
    }
    let told = failures.iter().take(MOST_TOLD);
    for ((status, error), lines) in told {
        app.output.say(&format!(
            "{status}: {}{}",
            whom(lines),
            if error.is_empty() { String::new() } else { format!(": {error}") }
        ));
    }
    if failures.len() > MOST_TOLD {
        app.output.say(&format!(
            "… and {} more kinds of failure; `diffy query --name coverage_problems` lists all",
            failures.len() - MOST_TOLD
        ));
    }
    let problems = finished.problems.iter().take(MOST_TOLD);
    problems.for_each(|problem| app.output.say(&format!("problem: {problem}")));
}

fn is_failure(line: &Coverage) -> bool {
    use crate::model::Status::{Empty, NotAsked, NotSupported, Ok};
    match line.status {
        Ok | Empty | NotSupported => false,
        NotAsked => !line.error.is_empty(),
        _ => true,
    }
}

fn whom(lines: &[&Coverage]) -> String {
    let first =
        lines.first().map(|line| format!("{} on {}", line.table, shown(&line.host, 60))).unwrap_or_default();
    match lines.len() {
        1 => first,
        count => format!("{first} and {} more", count - 1),
    }
}

/// This machine's rows, as text, from the native collector; tables that it cannot answer are not there.
pub(super) async fn local_rows(tables: Vec<TableSpec>) -> BTreeMap<String, Vec<BTreeMap<String, String>>> {
    let collector = NativeCollector::new(NativeConfig::default());
    let (send, mut answers) = tokio::sync::mpsc::channel(4);
    let mut found = BTreeMap::new();
    let collecting = collector.collect("localhost", &tables, send);
    let noting = async {
        while let Some(answer) = answers.recv().await {
            let rows = crate::decode::text_rows(&answer.json);
            if !rows.is_empty() {
                found.insert(answer.table, rows);
            }
        }
    };
    tokio::join!(collecting, noting);
    found
}
