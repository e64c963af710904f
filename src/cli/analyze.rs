//! `diffy analyze`.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::report::Report;
use super::{App, Outcome, suppress};
use crate::analyze::{AnalyzeRequest, Method, Span, analyze, answers_of_host};
use crate::engine::cluster::Place;
use crate::engine::{Engine, EngineConfig, Snapshots};
use crate::error::{Error, Result};
use crate::model::{Analysis, Coverage, Fleet, SnapshotId, Verdict};
use crate::report::analysis::findings_batch;
use crate::report::{Beside, Format, Picked, RenderOptions, pick_finding, pick_host, render, render_full};
use crate::store::{Baseline, Commits, Manifest, Store};

/// Rank the hosts of a snapshot: which need a look, and because of which rows
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The fleet [default: the only one in the store] [env: DIFFY_FLEET]
    #[arg(long)]
    fleet: Option<Fleet>,
    /// The snapshot
    #[arg(long, value_name = "ID|latest", default_value = "latest")]
    snapshot: String,
    /// The baseline to compare with; `auto` takes the newest of the fleet, if there is one
    #[arg(long, value_name = "NAME|none|auto", default_value = "auto")]
    baseline: String,
    /// How far back the fleet's own earlier snapshots are compared with: hours, days or weeks
    #[arg(long, value_name = "30d|none", default_value = Span::DEFAULT)]
    history: Span,
    /// The methods: baseline compares with what is known to be normal, history with earlier snapshots, frequency
    /// with the other hosts; missing is what hardly any other host lacks, campaigns are rows of several tables on the
    /// same hosts, cluster finds peer groups
    #[arg(long, value_delimiter = ',', value_name = "M,...", default_values_t = Method::ALL.map(|method| method.as_str().to_owned()))]
    methods: Vec<String>,
    /// Tables to look at, separated by commas [default: all]
    #[arg(long, value_delimiter = ',', value_name = "T,...")]
    tables: Vec<String>,
    /// Whether the content of a row counts beside how rare it is; `diffy tables show` lists what is looked for
    #[arg(long, value_name = "on|off", default_value = "on", value_parser = ["on", "off"])]
    priors: String,
    /// Make prevalence of the snapshot again from its rows, instead of reading it
    #[arg(long)]
    from_rows: bool,
    /// Where queries run: local, or ballista://HOST:PORT for the executors of a cluster; worth it with `--from-rows`
    #[arg(long, value_name = "ENGINE", default_value = "local")]
    engine: Place,
    #[command(flatten)]
    suppress: suppress::SuppressArgs,
    /// Hosts shown in full, and findings of each, in the table format
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    /// Show all of one host, with nothing cut: its findings, and what it did not answer
    #[arg(long, value_name = "HOST", conflicts_with_all = ["finding", "suppress_add"])]
    host: Option<String>,
    /// Show all of one finding, with nothing cut, and the commands that show it in the store; the beginning of an id is
    /// enough
    #[arg(long, value_name = "ID", conflicts_with = "suppress_add")]
    finding: Option<String>,
    /// How the result is spelled: table, json, ndjson, csv, parquet, sarif, ocsf or html, which is a report for a browser
    /// in one file
    #[arg(long, default_value = "table")]
    format: Format,
    /// Write to a file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Keep the findings in the store, for `diffy query`: table `findings`
    #[arg(long)]
    keep: bool,
    /// Exit with status 3 when at least one host is an outlier
    #[arg(long)]
    exit_code: bool,
}

pub(super) async fn run(app: &App, args: Args) -> Result<Outcome> {
    if args.format == Format::Html && (args.host.is_some() || args.finding.is_some()) {
        return Err(Error::usage("the report for a browser is of all hosts")
            .hint("leave out `--host` or `--finding`: its links lead to each host and finding"));
    }
    let methods = methods(&args.methods)?;
    let store = app.open_store().await?;
    let manifest = find_snapshot(app, &store, args.fleet.clone(), &args.snapshot).await?;
    let baseline = find_baseline(&store, &manifest.fleet, &args, &methods).await?;
    let request = AnalyzeRequest {
        methods,
        baseline,
        history: args.history,
        tables: args.tables.clone(),
        priors: args.priors == "on",
        suppress: args.suppress.load(app)?,
        from_rows: args.from_rows,
        memory_limit_bytes: app.memory_limit_bytes,
    };
    let mut analysis = analyze_snapshot(app, (&store, &args.engine), &manifest, &request).await?;
    if args.suppress.add(app, &analysis)? {
        return Ok(Outcome::Done);
    }
    // Kept first: a reader of stdout may go away.
    if args.keep {
        let findings = findings_batch(&analysis)?;
        let kept = store.keep_findings((&manifest.fleet, manifest.snapshot), &findings).await?;
        app.output.say(&format!("kept the findings in {}", kept.path));
    }
    show(app, (&store, &manifest), &mut analysis, &args).await?;
    let outliers = analysis.hosts.iter().any(|host| host.verdict == Verdict::Outlier);
    Ok(if args.exit_code && outliers { Outcome::Outliers } else { Outcome::Done })
}

/// Writes the analysis, or all of the host or the finding that was asked for.
async fn show(
    app: &App,
    (store, manifest): (&Store, &Manifest),
    analysis: &mut Analysis,
    args: &Args,
) -> Result<()> {
    let to = (args.format, args.top, args.output.as_deref());
    // What is suppressed has a name, too.
    if let Some(id) = &args.finding {
        return show_picked(app, (analysis, &pick_finding(analysis, id)?), &[], to);
    }
    args.suppress.trim(analysis);
    let Some(host) = &args.host else {
        return show_all(app, (store, manifest), analysis, args).await;
    };
    let picked = pick_host(analysis, host)?;
    let engine = engine(app, store, vec![manifest.clone()])?;
    let answers = answers_of_host(&engine, manifest.snapshot, host).await?;
    show_picked(app, (analysis, &picked), &answers, to)
}

async fn show_all(
    app: &App,
    (store, manifest): (&Store, &Manifest),
    analysis: &Analysis,
    args: &Args,
) -> Result<()> {
    let file = args.output.as_deref();
    if args.format != Format::Html {
        return write(app, analysis, (args.format, args.top), file);
    }
    Report { store, manifest, url: store_url(app), notes: Vec::new() }.write(app, analysis, file).await
}

/// The store as commands must name it; the default one needs no name.
pub(super) fn store_url(app: &App) -> Option<&str> {
    Some(app.settings.store.as_str()).filter(|_| !app.settings.store_is_default)
}

/// For eyes nothing is cut; programs get the same analysis with less in it.
fn show_picked(
    app: &App,
    (analysis, picked): (&Analysis, &Picked<'_>),
    answers: &[Coverage],
    (format, top, file): (Format, usize, Option<&Path>),
) -> Result<()> {
    if format != Format::Table {
        return write(app, &picked.narrowed(analysis), (format, top), file);
    }
    let beside = Beside { store: store_url(app), answers };
    write_with(app, (format, top), file, &mut |options, out| {
        render_full((analysis, picked), &beside, options, out)
    })
}

fn methods(names: &[String]) -> Result<Vec<Method>> {
    let find = |name: &String| {
        Method::ALL.into_iter().find(|method| method.as_str() == name).ok_or_else(|| {
            let known: Vec<&str> = Method::ALL.iter().map(|method| method.as_str()).collect();
            Error::usage(format!("there is no method `{}`", name.escape_debug()))
                .hint(format!("methods are: {}", known.join(", ")))
        })
    };
    names.iter().map(find).collect()
}

/// The snapshot that flags mean.
pub(super) async fn find_snapshot(
    app: &App,
    store: &Store,
    fleet: Option<Fleet>,
    snapshot: &str,
) -> Result<Manifest> {
    let fleet = match (fleet, &app.settings.fleet) {
        (Some(fleet), _) => Some(fleet),
        (None, Some(name)) => Some(name.parse()?),
        (None, None) => None,
    };
    if snapshot != "latest" {
        return store.snapshot(Some(snapshot.parse::<SnapshotId>()?), fleet.as_ref()).await;
    }
    let found = store.commits(fleet.as_ref()).await?;
    let fleets = found.fleets();
    if fleets.len() > 1 {
        let names: Vec<&str> = fleets.into_iter().map(Fleet::as_str).collect();
        return Err(
            Error::usage("which fleet?").hint(format!("`--fleet` takes one of: {}", names.join(", ")))
        );
    }
    newest(app, store, (&found, fleet.as_ref())).await
}

/// The newest snapshot; of newer ones that are damaged the user is told.
async fn newest(app: &App, store: &Store, (found, fleet): (&Commits, Option<&Fleet>)) -> Result<Manifest> {
    found.strange.iter().for_each(|error| app.output.warn(&error.to_string()));
    let newest = store.newest(&found.commits).await.map_err(|error| {
        let hint = error.hint_text().map(ToOwned::to_owned);
        let error = Error::new(error.kind(), format!("the newest snapshot is not known: {error}"));
        error.hint(hint.unwrap_or_else(|| "`--snapshot ID` takes another one".to_owned()))
    })?;
    newest.damaged.iter().for_each(|error| app.output.warn(&error.to_string()));
    match newest.manifest {
        Some(manifest) => {
            if !newest.damaged.is_empty() {
                app.output.warn(&format!("{} is taken, which is older", manifest.snapshot));
            }
            Ok(manifest)
        }
        // With what the store has instead.
        None => store.snapshot(None, fleet).await,
    }
}

async fn find_baseline(
    store: &Store,
    fleet: &Fleet,
    args: &Args,
    methods: &[Method],
) -> Result<Option<Baseline>> {
    if !methods.contains(&Method::Baseline) {
        if !["none", "auto"].contains(&args.baseline.as_str()) {
            let name = args.baseline.escape_debug();
            return Err(Error::usage(format!("`--baseline {name}` without the method `baseline`"))
                .hint("add `baseline` to `--methods`, or leave `--baseline` away"));
        }
        return Ok(None);
    }
    match args.baseline.as_str() {
        "none" => Ok(None),
        "auto" => Ok(store.baselines(Some(fleet)).await?.pop()),
        name => store.baseline(fleet, name).await.map(Some),
    }
}

/// An engine over these snapshots.
pub(super) fn engine(app: &App, store: &Store, manifests: Vec<Manifest>) -> Result<Engine> {
    Engine::of_store(store, Snapshots::Read(manifests), &app.catalog, &engine_config(app))
}

pub(super) fn engine_config(app: &App) -> EngineConfig {
    EngineConfig { memory_limit_bytes: app.memory_limit_bytes, threads: app.threads, spill_dir: None }
}

/// Runs the analysis.
pub(super) async fn analyze_snapshot(
    app: &App,
    (store, place): (&Store, &Place),
    manifest: &Manifest,
    request: &AnalyzeRequest,
) -> Result<Analysis> {
    let engine = engine(app, store, vec![manifest.clone()])?.running_at(place, store)?;
    let mut request = request.clone();
    // A method without anything to compare with did not run.
    if request.baseline.is_none() {
        request.methods.retain(|method| *method != Method::Baseline);
    }
    if request.methods.is_empty() {
        return Err(Error::usage(format!("fleet `{}` has no baseline to compare with", manifest.fleet))
            .hint("`diffy baseline create` makes one"));
    }
    analyze((store, &engine, &app.catalog), manifest, &request).await
}

/// Writes the result to stdout or a file.
pub(super) fn write(
    app: &App,
    analysis: &Analysis,
    (format, top): (Format, usize),
    file: Option<&Path>,
) -> Result<()> {
    write_with(app, (format, top), file, &mut |options, out| render(analysis, format, options, out))
}

/// Writes what `render` makes to stdout or a file.
pub(super) fn write_with(
    app: &App,
    (format, top): (Format, usize),
    file: Option<&Path>,
    render: &mut dyn FnMut(&RenderOptions, &mut dyn Write) -> Result<()>,
) -> Result<()> {
    let mut destination = app.output.open(file, format)?;
    let options = RenderOptions { width: app.output.width, color: destination.color, top };
    render(&options, &mut destination.writer)?;
    destination.writer.flush().map_err(|source| Error::remote("cannot write the result").source(source))?;
    if let Some(made) = destination.file {
        made.keep()?;
        file.iter().for_each(|path| app.output.say(&format!("wrote {}", path.display())));
    }
    Ok(())
}
