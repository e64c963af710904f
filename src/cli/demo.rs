//! `diffy demo`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::analyze::{analyze_snapshot, store_url, write};
use super::collect::{Collection, collect};
use super::output::print;
use super::report::Report;
use super::{App, Outcome};
use crate::analyze::{AnalyzeRequest, Span};
use crate::catalog::TableSpec;
use crate::engine::cluster::Place;
use crate::error::{Error, Result};
use crate::model::{Analysis, Finding, FindingKind, HostResult, SnapshotId, now};
use crate::report::Format;
use crate::report::escape::escape;
use crate::simulate::{Attacks, Base, Planted, Profile, Simulation, SimulationConfig, TraceKind};
use crate::store::{Manifest, Store};
use crate::target::TargetHost;

/// The fleet's name in the store.
const FLEET: &str = "demo";

/// The report, when nobody says.
const REPORT: &str = "diffy-demo.html";

/// Compromised hosts, when nobody says.
const MOST_COMPROMISED: usize = 3;

/// Simulate a fleet with planted compromises and find them: collect, store, analyze, report
///
/// The hosts are simulated, all else is real. The base state is this machine's own on Linux, without environment
/// values, shell histories, keys or anything that names it; elsewhere it is a bundled sample. The store is a temporary
/// directory unless --store names one.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Hosts of the simulated fleet
    #[arg(long, value_name = "N", default_value_t = 60)]
    hosts: usize,
    /// How many of them are compromised [default: 3, but at most a tenth of the hosts]
    #[arg(long, value_name = "N")]
    compromised: Option<usize>,
    /// The same seed makes the same fleet
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Which roles the hosts have: one-role or nine-roles
    #[arg(long, value_name = "PROFILE", default_value = "one-role")]
    profile: Profile,
    /// What is planted: several scenarios on each compromised host, one on each, or the same campaign on all of them
    #[arg(long, value_name = "KIND", value_parser = ["several", "one", "campaign"], default_value = "several")]
    attacks: String,
    /// Start from the bundled sample instead of this machine's state
    #[arg(long)]
    bundled: bool,
    /// Keep the store, in ./diffy-store unless `--store` names another place
    #[arg(long)]
    keep: bool,
    /// Hosts shown in full, and findings of each, in the table format
    #[arg(long, value_name = "N", default_value_t = 5)]
    top: usize,
    /// How the result is spelled: table or json
    #[arg(long, default_value = "table")]
    format: Format,
    /// Where the report for a browser goes [default: diffy-demo.html]
    #[arg(long, value_name = "FILE|none")]
    report: Option<PathBuf>,
}

/// What was planted on one host, and whether it was found.
#[derive(Debug, Serialize)]
struct Check {
    host: String,
    rank: u64,
    verdict: &'static str,
    planted: Vec<CheckedPlanted>,
}

#[derive(Debug, Serialize)]
struct CheckedPlanted {
    scenario: &'static str,
    title: &'static str,
    attack: &'static str,
    found: bool,
    finding: Option<String>,
}

/// The JSON of the demo: that of analyze, and what was planted.
#[derive(Debug, Serialize)]
struct DemoJson<'a> {
    simulated: bool,
    seed: u64,
    planted: &'a [Check],
    analysis: &'a Analysis,
}

pub(super) async fn run(app: &App, args: Args) -> Result<Outcome> {
    if !matches!(args.format, Format::Table | Format::Json) {
        return Err(Error::usage(format!("the demo does not speak {}", args.format))
            .hint("`--format table` or `--format json`"));
    }
    let (url, temporary) = place(app, &args)?;
    let config = config(&args);
    let base = if args.bundled { Base::bundled() } else { own_base(app).await };
    let simulation = Arc::new(Simulation::new(config, base)?);
    let truth = simulation.truth();
    let compromised = truth.hosts.iter().filter(|host| truth.is_compromised(&host.host)).count();
    let store = Store::open_or_create(&url, &app.store_config()).await?;
    app.output.say(&format!(
        "simulating {} hosts, {} of them compromised (seed {}); the hosts are simulated, what follows is real",
        args.hosts, compromised, args.seed
    ));
    let collection = Collection {
        fleet: FLEET.parse()?,
        incident: Some("demo".to_owned()),
        collector: Arc::new(Arc::clone(&simulation).collector()),
        snapshot: SnapshotId::new(now()),
        targets: Vec::new(),
        hosts: simulation.hosts().iter().map(|host| TargetHost::new(host)).collect(),
        tables: app.catalog.tables().filter(|table| table.default).cloned().collect(),
        concurrency: None,
        collected_by: FLEET.to_owned(),
        warnings: Vec::new(),
        is_temporary: temporary.is_some(),
        epilogue: None,
    };
    let finished = collect(app, &store, collection).await?;
    let request = AnalyzeRequest { history: Span::NONE, ..AnalyzeRequest::default() };
    let analysis = analyze_snapshot(app, (&store, &Place::Local), &finished.manifest, &request).await?;
    let checks = checks(&simulation, &analysis);
    let said = report(app, (&store, &finished.manifest), (&args, temporary.is_some()), &analysis).await?;
    if args.format == Format::Json {
        print_json(&args, &checks, &analysis)?;
    } else {
        print(&format!(
            "This fleet is SIMULATED: {} hosts, {} of them compromised on purpose.\n\n",
            args.hosts, compromised
        ))?;
        write(app, &analysis, (Format::Table, args.top), None)?;
        print(&planted_text(&checks))?;
        print(&next_steps(&url, &analysis, temporary.is_none() || args.keep))?;
    }
    app.output.say(&said);
    if let Some(dir) = temporary.filter(|_| args.keep) {
        let _kept = dir.keep();
    }
    Ok(Outcome::Done)
}

/// Writes the report, and returns what is to be said of it. Nobody asked for the one that is written by default: that
/// it cannot be written is no failure.
async fn report(
    app: &App,
    (store, manifest): (&Store, &Manifest),
    (args, is_temporary): (&Args, bool),
    analysis: &Analysis,
) -> Result<String> {
    let file = args.report.clone().unwrap_or_else(|| PathBuf::from(REPORT));
    if file.as_os_str() == "none" {
        return Ok(String::new());
    }
    let of = Report { store, manifest, url: store_url(app), notes: notes(args, is_temporary) };
    match of.write(app, analysis, Some(&file)).await {
        Ok(()) => Ok(format!("the report is in {}: open it in a browser", file.display())),
        Err(error) if args.report.is_none() => Ok(format!("warning: there is no report: {error}")),
        Err(error) => Err(error),
    }
}

/// What a reader of the report must know.
fn notes(args: &Args, is_temporary: bool) -> Vec<String> {
    let simulated =
        format!("this fleet is simulated: {} hosts, some of them compromised on purpose", args.hosts);
    let gone = "the store was temporary and is gone: for lines of SQL that can be run, make the report again with \
                `diffy demo --keep`";
    let mut notes = vec![simulated];
    notes.extend((is_temporary && !args.keep).then(|| gone.to_owned()));
    notes
}

/// The fleet that was asked for.
fn config(args: &Args) -> SimulationConfig {
    let config =
        SimulationConfig { profile: args.profile, ..SimulationConfig::new(args.hosts, 0, args.seed) };
    let most = Simulation::most_compromised(&config);
    let compromised =
        args.compromised.unwrap_or_else(|| MOST_COMPROMISED.min(args.hosts.div_ceil(10)).min(most));
    let attacks = match args.attacks.as_str() {
        "one" => Attacks::One,
        "campaign" => Attacks::Campaign { share_percent: share(args.compromised, args.hosts) },
        _ => Attacks::Several,
    };
    SimulationConfig { compromised, attacks, ..config }
}

/// Per cent of the hosts that a campaign is on: the number asked for, or so many that rarity cannot find them.
fn share(compromised: Option<usize>, hosts: usize) -> u8 {
    let asked = compromised.map(|count| (count * 100).div_ceil(hosts.max(1)).min(100));
    asked.and_then(|percent| u8::try_from(percent).ok()).unwrap_or(40)
}

/// The store that is named, or a temporary one.
fn place(app: &App, args: &Args) -> Result<(String, Option<tempfile::TempDir>)> {
    if !app.settings.store_is_default {
        return Ok((app.settings.store.clone(), None));
    }
    if args.keep {
        return Ok((PathBuf::from(crate::config::DEFAULT_STORE).display().to_string(), None));
    }
    let dir = tempfile::Builder::new()
        .prefix("diffy-demo-")
        .tempdir()
        .map_err(|source| Error::remote("cannot make a temporary directory").source(source))?;
    Ok((dir.path().display().to_string(), Some(dir)))
}

/// This machine's own state, through the native collector; the simulator takes only what is harmless.
async fn own_base(app: &App) -> Base {
    let wanted: Vec<TableSpec> =
        app.catalog.tables().filter(|table| Base::takes(&table.name)).cloned().collect();
    let tables = super::collect::local_rows(wanted).await;
    if tables.is_empty() { Base::bundled() } else { Base::from_tables(tables) }
}

fn checks(simulation: &Simulation, analysis: &Analysis) -> Vec<Check> {
    let truth = simulation.truth();
    let compromised = analysis.hosts.iter().filter(|host| truth.is_compromised(&host.host));
    let check = |host: &HostResult| Check {
        host: host.host.clone(),
        rank: host.rank,
        verdict: host.verdict.as_str(),
        planted: truth.on(&host.host).map(|planted| checked(planted, host)).collect(),
    };
    compromised.map(check).collect()
}

fn checked(planted: &Planted, host: &HostResult) -> CheckedPlanted {
    let found = host.findings.iter().find(|finding| is_trace(planted, finding));
    CheckedPlanted {
        scenario: planted.scenario,
        title: planted.title,
        attack: planted.attack,
        found: found.is_some(),
        finding: found.map(|finding| finding.id.clone()),
    }
}

/// Whether a finding shows one of the rows that a scenario planted, or the lack of one.
fn is_trace(planted: &Planted, finding: &Finding) -> bool {
    let cells: BTreeMap<&str, String> =
        finding.row.iter().map(|(name, value)| (name.as_str(), text(value))).collect();
    let is_missing = finding.kind == FindingKind::Missing;
    planted.traces.iter().any(|trace| {
        (trace.kind == TraceKind::Missing) == is_missing
            && trace.matches(&finding.table, |column| cells.get(column).map(String::as_str))
    })
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

fn print_json(args: &Args, checks: &[Check], analysis: &Analysis) -> Result<()> {
    let json = DemoJson { simulated: true, seed: args.seed, planted: checks, analysis };
    let text = serde_json::to_string_pretty(&json)
        .map_err(|source| Error::internal("cannot encode the result").source(source))?;
    print(&(text + "\n"))
}

fn planted_text(checks: &[Check]) -> String {
    let all: Vec<&CheckedPlanted> = checks.iter().flat_map(|check| &check.planted).collect();
    let found = all.iter().filter(|planted| planted.found).count();
    let mut out = format!("\nWhat was planted, and whether a finding shows it: {found} of {}\n", all.len());
    for check in checks {
        out.push_str(&format!("  {}  rank {}, {}\n", escape(&check.host), check.rank, check.verdict));
        for planted in &check.planted {
            let mark = if planted.found { "found " } else { "MISSED" };
            out.push_str(&format!("    {mark}  {:<10} {}\n", planted.attack, planted.title));
        }
    }
    out
}

fn next_steps(url: &str, analysis: &Analysis, kept: bool) -> String {
    if !kept {
        return "\nThe store was temporary. To look around in it, keep one:\n  diffy demo --keep --store ./demo-store\n  \
                diffy query --store ./demo-store --name rare_listening_ports\n"
            .to_owned();
    }
    let host = analysis.hosts.first().map_or("", |host| host.host.as_str());
    format!(
        "\nThe store is {url}. Try next:\n  diffy query --store {url} --list\n  diffy query --store {url} --name \
         rare_listening_ports\n  diffy query --store {url} \"SELECT name, path FROM current.processes WHERE host = '{host}'\"\n  \
         diffy analyze --store {url} --format json\n  diffy snapshot verify --store {url}\n"
    )
}
