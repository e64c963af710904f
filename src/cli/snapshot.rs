//! `diffy snapshot`.

use std::collections::BTreeMap;

use chrono::Duration;
use clap::Subcommand;

use super::analyze::find_snapshot;
use super::collect::{make_snapshot, summary, tell_problems};
use super::output::print;
use super::{App, Outcome};
use crate::error::{Error, Result};
use crate::model::{Fleet, SnapshotId, now, rfc3339};
use crate::report::escape::escape;
use crate::store::{FileKind, Held, Manifest, Orphan, SpoolReader, Store};

/// List, show, prove, finish and delete snapshots
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One line for each snapshot, oldest first
    List {
        /// Only of this fleet
        #[arg(long)]
        fleet: Option<Fleet>,
        /// Print the manifests as JSON lines
        #[arg(long)]
        json: bool,
    },
    /// All of one snapshot
    Show {
        /// The snapshot
        #[arg(default_value = "latest")]
        snapshot: String,
        /// The fleet [default: the only one in the store]
        #[arg(long)]
        fleet: Option<Fleet>,
        /// Print the manifest as JSON
        #[arg(long)]
        json: bool,
    },
    /// Read every byte again and compare it with the manifest's digests; exit status 1 when one differs
    Verify {
        /// The snapshots [default: all]
        snapshots: Vec<SnapshotId>,
    },
    /// Make snapshots of collections that were interrupted
    Recover {
        /// The snapshots [default: all that were interrupted]
        snapshots: Vec<SnapshotId>,
        /// Only list them
        #[arg(long)]
        list: bool,
    },
    /// Delete snapshots
    Delete {
        /// The snapshots
        #[arg(required = true)]
        snapshots: Vec<SnapshotId>,
    },
    /// Delete what is old, or left over
    Prune(PruneArgs),
}

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true).args(["keep", "older_than", "orphans"])))]
struct PruneArgs {
    /// Keep this many of the newest of each fleet
    #[arg(long, value_name = "N")]
    keep: Option<usize>,
    /// Only those that are older than so many days
    #[arg(long, value_name = "DAYS")]
    older_than: Option<i64>,
    /// What interrupted collections left behind; `snapshot recover` would make snapshots of it
    #[arg(long)]
    orphans: bool,
    /// Only of this fleet
    #[arg(long)]
    fleet: Option<Fleet>,
    /// Only say what would be deleted
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(app: &App, args: Args) -> Result<Outcome> {
    let store = app.open_store().await?;
    match args.command {
        Command::List { fleet, json } => list(app, &store, fleet.as_ref(), json).await,
        Command::Show { snapshot, fleet, json } => {
            let manifest = find_snapshot(app, &store, fleet, &snapshot).await?;
            print(&if json { pretty(&manifest)? } else { show(&manifest) })
        }
        Command::Verify { snapshots } => verify(app, &store, &snapshots).await,
        Command::Recover { snapshots, list } => recover(app, &store, &snapshots, list).await,
        Command::Delete { snapshots } => delete(app, &store, &snapshots).await,
        Command::Prune(args) => prune(app, &store, args).await,
    }?;
    Ok(Outcome::Done)
}

async fn list(app: &App, store: &Store, fleet: Option<&Fleet>, json: bool) -> Result<()> {
    let listing = store.snapshots(fleet).await?;
    for error in &listing.unreadable {
        app.output.warn(&error.to_string());
    }
    let mut text = String::new();
    for manifest in &listing.manifests {
        if json {
            text.push_str(
                &serde_json::to_string(manifest)
                    .map_err(|source| Error::internal("cannot encode").source(source))?,
            );
            text.push('\n');
        } else {
            text.push_str(&line(manifest));
        }
    }
    print(&text)
}

fn bytes(manifest: &Manifest) -> u64 {
    manifest.files.iter().map(|file| file.bytes).sum()
}

fn line(manifest: &Manifest) -> String {
    format!(
        "{}  {}  {:<16} {:>6} of {} hosts  {:>12} rows  {:>10}\n",
        manifest.snapshot,
        rfc3339(manifest.started),
        escape(manifest.fleet.as_str()),
        manifest.hosts_answered,
        manifest.hosts_asked,
        indicatif::HumanCount(manifest.rows),
        indicatif::HumanBytes(bytes(manifest)).to_string(),
    )
}

fn pretty(manifest: &Manifest) -> Result<String> {
    let json = serde_json::to_string_pretty(manifest);
    json.map(|json| json + "\n").map_err(|source| Error::internal("cannot encode a manifest").source(source))
}

fn show(manifest: &Manifest) -> String {
    let mut text = format!(
        "snapshot  {}\nfleet     {}\nstarted   {}\ncommitted {}\nby        {} with {} (Diffy {})\n",
        manifest.snapshot,
        escape(manifest.fleet.as_str()),
        rfc3339(manifest.started),
        rfc3339(manifest.ended),
        escape(&manifest.collected_by),
        escape(&manifest.collector),
        escape(&manifest.diffy_version),
    );
    if let Some(incident) = &manifest.incident {
        text.push_str(&format!("incident  {}\n", escape(incident)));
    }
    text.push_str(&format!(
        "hosts     {} asked, {} answered, {} failed\nrows      {}\nbytes     {}\n",
        manifest.hosts_asked,
        manifest.hosts_answered,
        manifest.hosts_failed,
        indicatif::HumanCount(manifest.rows),
        indicatif::HumanBytes(bytes(manifest)),
    ));
    for warning in &manifest.warnings {
        text.push_str(&format!("warning   {}\n", escape(warning)));
    }
    let mut tables: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for file in &manifest.files {
        let Some(table) = &file.table else { continue };
        let entry = tables.entry(table).or_default();
        match file.kind {
            FileKind::Rows => entry.0 += file.rows,
            _ => entry.1 += file.rows,
        }
    }
    for (table, (rows, distinct)) in tables {
        text.push_str(&format!("  {table:<24} {rows:>10} rows, {distinct} distinct\n"));
    }
    text
}

async fn verify(app: &App, store: &Store, snapshots: &[SnapshotId]) -> Result<()> {
    let listing = store.snapshots(None).await?;
    for error in &listing.unreadable {
        app.output.warn(&error.to_string());
    }
    let unreadable = listing.unreadable.len();
    let mut damaged = 0;
    let wanted = chosen(listing.manifests, snapshots)?;
    for manifest in &wanted {
        let checks = store.verify(manifest).await?;
        let bad: Vec<_> = checks.iter().filter(|check| check.problem.is_some()).collect();
        for check in &bad {
            let problem = check.problem.as_deref().unwrap_or_default();
            print(&format!(
                "{}  damaged  {}: {}\n",
                manifest.snapshot,
                escape(&check.file.path),
                escape(problem)
            ))?;
        }
        damaged += bad.len();
        if bad.is_empty() {
            let size = indicatif::HumanBytes(bytes(manifest));
            print(&format!("{}  ok       {} files, {size}\n", manifest.snapshot, checks.len()))?;
        }
    }
    if damaged > 0 {
        return Err(Error::data(format!("{damaged} files are not what was written"))
            .hint("restore them from a copy of the store"));
    }
    if unreadable > 0 {
        return Err(Error::data(format!(
            "{unreadable} manifests cannot be read; their snapshots are not proven"
        ))
        .hint("a newer Diffy may read them; else restore them from a copy of the store"));
    }
    Ok(())
}

fn chosen(manifests: Vec<Manifest>, snapshots: &[SnapshotId]) -> Result<Vec<Manifest>> {
    let all: Vec<SnapshotId> = manifests.iter().map(|manifest| manifest.snapshot).collect();
    if let Some(absent) = snapshots.iter().find(|id| !all.contains(id)) {
        return Err(
            Error::usage(format!("there is no snapshot `{absent}`")).hint("`diffy snapshot list` shows them")
        );
    }
    let wanted = |manifest: &Manifest| snapshots.is_empty() || snapshots.contains(&manifest.snapshot);
    Ok(manifests.into_iter().filter(wanted).collect())
}

async fn recover(app: &App, store: &Store, snapshots: &[SnapshotId], only_list: bool) -> Result<()> {
    let orphans = store.orphans().await?;
    let known: Vec<SnapshotId> = orphans.iter().map(|orphan| orphan.snapshot).collect();
    if let Some(absent) = snapshots.iter().find(|id| !known.contains(id)) {
        return Err(Error::usage(format!("there is no interrupted collection `{absent}`"))
            .hint("`diffy snapshot recover --list` shows them"));
    }
    let wanted = |orphan: &&Orphan| snapshots.is_empty() || snapshots.contains(&orphan.snapshot);
    let mut failed = 0;
    let mut seen = 0;
    for orphan in orphans.iter().filter(wanted) {
        seen += 1;
        if let Err(error) = recover_one(app, store, orphan, only_list).await {
            super::output::print_error(&error.with("snapshot", orphan.snapshot));
            failed += 1;
        }
    }
    if seen == 0 {
        app.output.say("nothing was interrupted");
    }
    if failed > 0 {
        return Err(Error::data(format!(
            "{failed} of {seen} interrupted collections could not be recovered"
        ))
        .hint("`diffy snapshot prune --orphans` removes what is left of them"));
    }
    Ok(())
}

async fn recover_one(app: &App, store: &Store, orphan: &Orphan, only_list: bool) -> Result<()> {
    let Some(path) = &orphan.spool else {
        if orphan.may_be_elsewhere {
            app.output.say(&elsewhere(orphan));
            return Ok(());
        }
        return Err(Error::data("its spool is gone; only parts that nothing describes are left"));
    };
    let Some(spool) = SpoolReader::open(path)? else {
        app.output.say(&format!("{}  is still being collected", orphan.snapshot));
        return Ok(());
    };
    let (answers, hosts) = (spool.index().answers.len(), spool.index().hosts.len());
    if only_list {
        let fleet = escape(spool.index().begin.fleet.as_str()).into_owned();
        return print(&format!("{}  {fleet}  {hosts} hosts, {answers} answers\n", orphan.snapshot));
    }
    if store.is_committed(orphan.snapshot).await? {
        // Killed between the manifest and the end.
        store.delete_orphan(orphan).await?;
        app.output.say(&format!("{}  was complete already", orphan.snapshot));
        return Ok(());
    }
    store.delete_staged(orphan).await?;
    let finished = make_snapshot(app, store, spool).await?;
    print(&summary(&finished))?;
    tell_problems(app, &finished);
    Ok(())
}

async fn delete(app: &App, store: &Store, snapshots: &[SnapshotId]) -> Result<()> {
    for manifest in chosen(store.snapshots(None).await?.manifests, snapshots)? {
        store.delete_snapshot(&manifest).await?;
        app.output.say(&format!("deleted {}", manifest.snapshot));
    }
    Ok(())
}

async fn prune(app: &App, store: &Store, args: PruneArgs) -> Result<()> {
    let verb = if args.dry_run { "would delete" } else { "deleted" };
    if args.keep.is_some() || args.older_than.is_some() {
        let listing = store.snapshots(args.fleet.as_ref()).await?;
        for manifest in old(listing.manifests, &args) {
            if !args.dry_run {
                store.delete_snapshot(&manifest).await?;
            }
            app.output.say(&format!("{verb} {} of fleet {}", manifest.snapshot, manifest.fleet));
        }
    }
    if args.orphans {
        for orphan in store.orphans().await? {
            prune_orphan(app, store, &orphan, args.dry_run).await?;
        }
        let stale = store.delete_stale_scratch(args.dry_run)?;
        if stale > 0 {
            app.output.say(&format!("{verb} {stale} sets of sort runs that nobody needs"));
        }
    }
    Ok(())
}

/// Of each fleet: what is beyond `--keep` and beyond `--older-than`.
fn old(manifests: Vec<Manifest>, args: &PruneArgs) -> Vec<Manifest> {
    let mut newer: BTreeMap<String, usize> = BTreeMap::new();
    let before = args.older_than.map(|days| now() - Duration::days(days));
    let mut old: Vec<Manifest> = Vec::new();
    for manifest in manifests.into_iter().rev() {
        let newer = newer.entry(manifest.fleet.to_string()).or_default();
        let is_beyond = args.keep.is_none_or(|keep| *newer >= keep);
        let is_older = before.is_none_or(|before| manifest.started < before);
        *newer += 1;
        if is_beyond && is_older {
            old.push(manifest);
        }
    }
    old
}

/// What is said of parts that somebody else may be writing.
fn elsewhere(orphan: &Orphan) -> String {
    format!(
        "{}  is left alone: it began less than a day ago, its spool is not on this machine, and another may be writing it",
        orphan.snapshot
    )
}

async fn prune_orphan(app: &App, store: &Store, orphan: &Orphan, dry_run: bool) -> Result<()> {
    if orphan.may_be_elsewhere {
        app.output.say(&elsewhere(orphan));
        return Ok(());
    }
    // A spool that cannot be read is an orphan too. It stays locked until all is gone.
    let held = orphan.spool.as_deref().map(Held::new).transpose()?;
    match &held {
        Some(Held::Running) => {
            app.output.say(&format!("{} is still being collected", orphan.snapshot));
            return Ok(());
        }
        Some(Held::Gone) => return Ok(()),
        Some(Held::Ours(_)) | None => {}
    }
    if !dry_run {
        store.delete_orphan(orphan).await?;
    }
    let verb = if dry_run { "would delete" } else { "deleted" };
    app.output.say(&format!(
        "{verb} what is left of {}: {} files",
        orphan.snapshot,
        orphan.files.len() + usize::from(orphan.spool.is_some())
    ));
    Ok(())
}
