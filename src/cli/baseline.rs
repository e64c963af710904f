//! `diffy baseline`.

use clap::Subcommand;

use super::analyze::{engine, find_snapshot};
use super::output::print;
use super::{App, Outcome};
use crate::analyze::{BaselineRequest, Span, create_baseline, earlier};
use crate::error::{Error, Result};
use crate::model::{Fleet, rfc3339};
use crate::report::escape::escape;
use crate::store::{Baseline, Store};

/// Say what is normal for a fleet: make, list, show and delete baselines
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a baseline from a snapshot, from one host of it, from several with a quorum, or from the fleet's past
    Create(CreateArgs),
    /// One line for each baseline
    List {
        /// Only of this fleet
        #[arg(long)]
        fleet: Option<Fleet>,
    },
    /// All of one baseline
    Show(NameArgs),
    /// Delete a baseline
    Delete(DeleteArgs),
}

#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// The name of the baseline
    #[arg(default_value = "default")]
    name: String,
    /// The fleet [default: the only one in the store] [env: DIFFY_FLEET]
    #[arg(long)]
    fleet: Option<Fleet>,
    /// The snapshot
    #[arg(long, value_name = "ID|latest", default_value = "latest")]
    snapshot: String,
    /// Take the earlier snapshots of this span too: hours, days or weeks before the snapshot
    #[arg(long, value_name = "30d|none", default_value = "none")]
    history: Span,
    /// A host to take; repeat for several [default: all that answered]
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// On how many of the hosts a row must be to count as normal; a host that had it in any snapshot counts once
    #[arg(long, value_name = "N", default_value_t = 1)]
    quorum: u64,
}

#[derive(Debug, clap::Args)]
struct NameArgs {
    /// The name of the baseline
    #[arg(default_value = "default")]
    name: String,
    /// The fleet [default: the only one with a baseline of that name]
    #[arg(long)]
    fleet: Option<Fleet>,
}

#[derive(Debug, clap::Args)]
struct DeleteArgs {
    /// The name of the baseline
    name: String,
    /// The fleet [default: the only one with a baseline of that name]
    #[arg(long)]
    fleet: Option<Fleet>,
}

pub(super) async fn run(app: &App, args: Args) -> Result<Outcome> {
    let store = app.open_store().await?;
    match args.command {
        Command::Create(args) => create(app, &store, args).await?,
        Command::List { fleet } => {
            let baselines = store.baselines(fleet.as_ref()).await?;
            print(&baselines.iter().map(line).collect::<String>())?;
        }
        Command::Show(args) => print(&show(&find(&store, &args).await?))?,
        Command::Delete(DeleteArgs { name, fleet }) => {
            let args = NameArgs { name, fleet };
            let baseline = find(&store, &args).await?;
            store.delete_baseline(&baseline).await?;
            app.output.say(&format!("deleted baseline {} of fleet {}", baseline.name, baseline.fleet));
        }
    }
    Ok(Outcome::Done)
}

async fn create(app: &App, store: &Store, args: CreateArgs) -> Result<()> {
    if ["none", "auto"].contains(&args.name.as_str()) {
        return Err(Error::usage(format!("a baseline cannot be called `{}`", args.name))
            .hint("`diffy analyze --baseline` means something else by it; take another name"));
    }
    let manifest = find_snapshot(app, store, args.fleet, &args.snapshot).await?;
    let earlier = earlier(store, &manifest, args.history).await?;
    earlier.warnings.iter().for_each(|warning| app.output.warn(warning));
    let mut manifests = earlier.manifests;
    if manifests.is_empty() && !args.history.is_none() {
        app.output
            .warn(&format!("no earlier snapshot within {}: the baseline is of one snapshot", args.history));
    }
    manifests.push(manifest);
    let engine = engine(app, store, manifests.clone())?;
    let request = BaselineRequest {
        name: args.name,
        hosts: args.host,
        quorum: args.quorum,
        created_by: app.settings.who.clone(),
    };
    let baseline = create_baseline((store, &engine, &app.catalog), &manifests, request).await?;
    print(&show(&baseline))
}

async fn find(store: &Store, args: &NameArgs) -> Result<Baseline> {
    if let Some(fleet) = &args.fleet {
        return store.baseline(fleet, &args.name).await;
    }
    let mut found = store.baselines(None).await?;
    found.retain(|baseline| baseline.name == args.name);
    if found.len() > 1 {
        return Err(Error::usage(format!("several fleets have a baseline `{}`", args.name))
            .hint("`--fleet` says which"));
    }
    found.pop().ok_or_else(|| {
        Error::usage(format!("there is no baseline `{}`", args.name.escape_debug()))
            .hint("`diffy baseline list` shows them")
    })
}

fn rows(baseline: &Baseline) -> u64 {
    baseline.tables.values().map(|table| table.rows).sum()
}

fn line(baseline: &Baseline) -> String {
    format!(
        "{:<16} {:<16} {}  {} hosts, quorum {}, {} rows in {} tables{}\n",
        escape(baseline.fleet.as_str()),
        escape(&baseline.name),
        rfc3339(baseline.created),
        baseline.origin.hosts.len(),
        baseline.origin.quorum,
        rows(baseline),
        baseline.tables.len(),
        match baseline.origin.earlier.len() {
            0 => String::new(),
            earlier => format!(", {} snapshots", earlier + 1),
        },
    )
}

/// The snapshots, oldest first.
fn snapshots(baseline: &Baseline) -> String {
    let all: Vec<String> = baseline.origin.snapshots().iter().map(ToString::to_string).collect();
    if all.len() == 1 { all.concat() } else { format!("{}: {}", all.len(), all.join(", ")) }
}

fn show(baseline: &Baseline) -> String {
    let hosts: Vec<String> = baseline.origin.hosts.iter().map(|host| escape(host).into_owned()).collect();
    let mut text = format!(
        "baseline  {}\nfleet     {}\ncreated   {} by {}\nsnapshot  {}\nhosts     {} (quorum {}): {}\nrows      {} in {} tables\n",
        escape(&baseline.name),
        escape(baseline.fleet.as_str()),
        rfc3339(baseline.created),
        escape(&baseline.created_by),
        snapshots(baseline),
        hosts.len(),
        baseline.origin.quorum,
        hosts.join(", "),
        rows(baseline),
        baseline.tables.len(),
    );
    for (table, file) in &baseline.tables {
        text.push_str(&format!("  {table:<24} {:>8} rows of {} hosts\n", file.rows, file.hosts_answered));
    }
    text
}
