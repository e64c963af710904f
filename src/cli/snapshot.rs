//! `diffy snapshot`.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use clap::Subcommand;
use futures::{StreamExt, stream};

use super::analyze::{engine, find_snapshot};
use super::collect::{make_snapshot, summary, tell_problems};
use super::output::print;
use super::{App, Outcome};
use crate::engine::cluster::Place;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Fleet, SnapshotId, digits, now, rfc3339};
use crate::report::escape::escape;
use crate::store::{Commit, Commits, FileKind, Held, Manifest, Orphan, SpoolReader, Store};

/// Largest age that can be asked for: a hundred years.
const MOST_DAYS: i64 = 36_525;
/// Snapshots that are listed with one write.
const LISTED_AT_ONCE: usize = 64;
/// Snapshots that are deleted at once.
const CONCURRENT_DELETIONS: usize = 8;

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
        /// Only so many of the newest
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
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
        /// Make prevalence again from the rows too, and compare the hosts of each identity
        #[arg(long)]
        prevalence: bool,
        /// Where prevalence is made again: local, or ballista://HOST:PORT for the executors of a cluster
        #[arg(long, value_name = "ENGINE", default_value = "local", requires = "prevalence")]
        engine: Place,
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
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(i64).range(0..=MOST_DAYS))]
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
        Command::List { fleet, limit, json } => list(app, &store, (fleet.as_ref(), limit), json).await,
        Command::Show { snapshot, fleet, json } => {
            let manifest = find_snapshot(app, &store, fleet, &snapshot).await?;
            print(&if json { pretty(&manifest)? } else { show(&manifest) })
        }
        Command::Verify { snapshots, prevalence, engine } => {
            verify(app, &store, &snapshots, prevalence.then_some(&engine)).await
        }
        Command::Recover { snapshots, list } => recover(app, &store, &snapshots, list).await,
        Command::Delete { snapshots } => delete(app, &store, &snapshots).await,
        Command::Prune(args) => prune(app, &store, args).await,
    }?;
    Ok(Outcome::Done)
}

async fn list(
    app: &App,
    store: &Store,
    (fleet, limit): (Option<&Fleet>, Option<usize>),
    json: bool,
) -> Result<()> {
    let found = store.commits(fleet).await?;
    found.strange.iter().for_each(|error| app.output.warn(&error.to_string()));
    let first = limit.map_or(0, |limit| found.commits.len().saturating_sub(limit));
    // Line by line: the first ones are there before the last ones are read.
    for some in found.commits[first..].chunks(LISTED_AT_ONCE) {
        let mut text = String::new();
        for manifest in store.manifests(some).await {
            match manifest {
                Ok(manifest) if json => text.push_str(&json_line(&manifest)?),
                Ok(manifest) => text.push_str(&line(&manifest)),
                Err(error) => app.output.warn(&error.to_string()),
            }
        }
        print(&text)?;
    }
    Ok(())
}

fn json_line(manifest: &Manifest) -> Result<String> {
    let json = serde_json::to_string(manifest);
    json.map(|json| json + "\n").map_err(|source| Error::internal("cannot encode a manifest").source(source))
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
        digits(manifest.rows),
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
        digits(manifest.rows),
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

/// `again` is where prevalence is made again, if it is.
async fn verify(app: &App, store: &Store, snapshots: &[SnapshotId], again: Option<&Place>) -> Result<()> {
    let found = store.commits(None).await?;
    found.strange.iter().for_each(|error| app.output.warn(&error.to_string()));
    let mut unreadable = found.strange.len();
    let mut damaged = 0;
    for manifest in store.manifests(&chosen(found.commits, snapshots)?).await {
        let manifest = match manifest {
            Ok(manifest) => manifest,
            Err(error) => {
                app.output.warn(&error.to_string());
                unreadable += 1;
                continue;
            }
        };
        let checks = store.verify(&manifest).await?;
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
            let size = indicatif::HumanBytes(bytes(&manifest));
            print(&format!("{}  ok       {} files, {size}\n", manifest.snapshot, checks.len()))?;
        }
        if let Some(place) = again.filter(|_| bad.is_empty()) {
            damaged += prove(app, store, &manifest, place).await?;
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

/// Says for how many tables prevalence is not what the rows say.
async fn prove(app: &App, store: &Store, manifest: &Manifest, place: &Place) -> Result<usize> {
    let engine = engine(app, store, vec![manifest.clone()])?.running_at(place, store)?;
    let kept = manifest.files.iter().filter(|file| file.kind == FileKind::Prevalence);
    let tables: BTreeSet<&str> = kept.filter_map(|file| file.table.as_deref()).collect();
    let (mut wrong, mut identities) = (0, 0);
    for table in &tables {
        let proof = engine.prove_prevalence(manifest, table).await?;
        identities += proof.identities;
        if proof.wrong > 0 {
            wrong += 1;
            print(&format!(
                "{}  damaged  prevalence of {}: {} of {} identities have other hosts by the rows\n",
                manifest.snapshot,
                escape(table),
                proof.wrong,
                proof.identities
            ))?;
        }
    }
    if wrong == 0 {
        let counted = digits(identities);
        let tables = tables.len();
        print(&format!(
            "{}  ok       prevalence of {tables} tables, {counted} identities\n",
            manifest.snapshot
        ))?;
    }
    Ok(wrong)
}

/// Those of `snapshots`, or all when there are none.
fn chosen(mut commits: Vec<Commit>, snapshots: &[SnapshotId]) -> Result<Vec<Commit>> {
    let all: BTreeSet<SnapshotId> = commits.iter().map(|commit| commit.snapshot).collect();
    if let Some(absent) = snapshots.iter().find(|id| !all.contains(id)) {
        return Err(
            Error::usage(format!("there is no snapshot `{absent}`")).hint("`diffy snapshot list` shows them")
        );
    }
    commits.retain(|commit| snapshots.is_empty() || snapshots.contains(&commit.snapshot));
    Ok(commits)
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
    for commit in chosen(store.commits(None).await?.commits, snapshots)? {
        store.delete_snapshot(&store.manifest(&commit).await?).await?;
        app.output.say(&format!("deleted {}", commit.snapshot));
    }
    Ok(())
}

async fn prune(app: &App, store: &Store, args: PruneArgs) -> Result<()> {
    if args.keep.is_some() || args.older_than.is_some() {
        prune_old(app, store, &args).await?;
    }
    if args.orphans {
        for orphan in store.orphans().await? {
            prune_orphan(app, store, &orphan, args.dry_run).await?;
        }
        let stale = store.delete_stale_scratch(args.dry_run)?;
        if stale > 0 {
            let verb = if args.dry_run { "would delete" } else { "deleted" };
            app.output.say(&format!("{verb} {stale} sets of sort runs that nobody needs"));
        }
    }
    Ok(())
}

/// Deletes, of each fleet, what is beyond `--keep` and beyond `--older-than`. Ids say how old snapshots are; manifests
/// are read of those that are kept by count and of those that are deleted.
async fn prune_old(app: &App, store: &Store, args: &PruneArgs) -> Result<()> {
    let found = store.commits(args.fleet.as_ref()).await?;
    if let (Some(fleet), true) = (&args.fleet, found.commits.is_empty()) {
        app.output.warn(&format!("there is no snapshot of fleet `{fleet}`"));
    }
    let mut kept = kept(store, &found, args.keep).await?;
    let lists = lists(store, &found, args.keep).await?;
    let before = args.older_than.and_then(|days| now().checked_sub_signed(TimeDelta::days(days)));
    let is_before = |commit: &Commit| before.is_none_or(|before| commit.snapshot.time() < before);
    for commit in found.commits.iter().filter(|commit| lists.contains(&commit.snapshot)) {
        if kept.insert(commit.snapshot) && is_before(commit) {
            app.output.say(&format!(
                "kept {0} of fleet {1}: it has the list of the files that `import --once` knows; `diffy snapshot delete {0}` forgets them",
                commit.snapshot, commit.fleet
            ));
        }
    }
    let is_old = |commit: &&Commit| !kept.contains(&commit.snapshot) && is_before(commit);
    let deletions = found.commits.iter().rev().filter(is_old).map(|commit| async move {
        if args.dry_run {
            return (commit, Ok("would delete"));
        }
        (commit, delete_one(store, commit).await.map(|()| "deleted"))
    });
    let mut deletions = stream::iter(deletions).buffered(CONCURRENT_DELETIONS);
    while let Some((commit, done)) = deletions.next().await {
        match done {
            Ok(verb) => app.output.say(&format!("{verb} {} of fleet {}", commit.snapshot, commit.fleet)),
            // Without its manifest nobody knows what its files are; others go all the same.
            Err(error) if error.kind() == ErrorKind::Data => app.output.warn(&format!("left alone: {error}")),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn delete_one(store: &Store, commit: &Commit) -> Result<()> {
    store.delete_snapshot(&store.manifest(commit).await?).await
}

/// The newest `keep` of each fleet whose manifests can be read: a damaged one must not cost the last that can be used.
async fn kept(store: &Store, found: &Commits, keep: Option<usize>) -> Result<BTreeSet<SnapshotId>> {
    let mut kept = BTreeSet::new();
    for fleet in found.fleets() {
        let mut of_fleet = found.commits.iter().rev().filter(|commit| commit.fleet == *fleet);
        let mut missing = keep.unwrap_or_default();
        while missing > 0 {
            let next: Vec<Commit> = of_fleet.by_ref().take(missing).cloned().collect();
            if next.is_empty() {
                break;
            }
            missing -= store.manifests(&next).await.iter().filter(|read| read.is_ok()).count();
            kept.extend(next.iter().map(|commit| commit.snapshot));
        }
    }
    Ok(kept)
}

/// Snapshots whose lists of imported files are in use: without them all is imported again. `--keep 0` keeps none.
async fn lists(store: &Store, found: &Commits, keep: Option<usize>) -> Result<BTreeSet<SnapshotId>> {
    let mut lists = BTreeSet::new();
    if keep != Some(0) {
        for fleet in found.fleets() {
            lists.extend(store.imported(fleet).await?.snapshots);
        }
    }
    Ok(lists)
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
