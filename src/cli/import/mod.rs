//! `diffy import`.

mod inputs;
mod once;
mod time;

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::ValueEnum;

use self::inputs::{Inputs, Source, sources};
use self::once::{News, Once};
use self::time::time;
use super::collect::{fleet, make_snapshot, somebody_answered, summary, tell_problems, warn_of_future};
use super::output::print;
use super::progress::Progress;
use super::{App, Outcome};
use crate::decode::{
    self, Chunk, ImportAnswer, ImportFormat, ImportOptions, ImportReport, ImportSink, Limits,
};
use crate::error::{Error, Result};
use crate::ingest::Receiver;
use crate::model::{Fleet, SnapshotId, now};
use crate::store::{IMPORT, RemoteFile, SpoolBegin, SpoolReader, SpoolWriter, Store};

/// Most files and problems that are told one by one.
const MOST_TOLD: usize = 20;
/// Objects that are fetched when nobody says, in GiB.
const DOWNLOAD_GIB: u64 = 20;

/// Make a snapshot of what others have collected already
///
/// Reads output of `osqueryi --json`, logs of osqueryd, what Fleet exports (fleetctl, REST, CSV) and artifacts of
/// Velociraptor, plain, .gz or .zst, and tells them apart by their content. What cannot be read is told by file and line
/// and counted in the coverage of its host; the rest is imported. See docs/imports.md.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Files, directories, s3://BUCKET/KEY-OR-PREFIX, or - for standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The set of hosts that should be alike [env: DIFFY_FLEET]
    #[arg(long)]
    fleet: Option<Fleet>,
    /// What the files are, when their content does not tell
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// The table that a query, report, artifact or file of that name stands for; may be repeated
    #[arg(long, value_name = "QUERY=TABLE", value_parser = mapping)]
    map: Vec<(String, String)>,
    /// The table of files whose rows are of one table
    #[arg(long, value_name = "TABLE", value_parser = table)]
    table: Option<String>,
    /// The host of files that do not name one
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// The incident this is imported for; recorded in the snapshot
    #[arg(long, value_name = "ID")]
    incident: Option<String>,
    /// The state at that time: 2026-01-31, 2026-01-31T08:00:00Z, seconds since 1970, or 2h (ago). Later entries of logs
    /// do not count, and the snapshot is of that time [default: now]
    #[arg(long, value_name = "TIME", value_parser = time, visible_alias = "collected-at")]
    at: Option<DateTime<Utc>>,
    /// Import only what is new or has changed since the last `--once` of this fleet; the store remembers, the directory
    /// is left as it is
    #[arg(long, conflicts_with = "at")]
    once: bool,
    /// Most that a packed file may become, in MiB [default: 1024, or a hundred times its size]
    #[arg(long, value_name = "MIB")]
    unpacked_limit: Option<u64>,
    /// Most that is fetched from S3, in GiB
    #[arg(long, value_name = "GIB", default_value_t = DOWNLOAD_GIB)]
    download_limit: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Output of `osqueryi --json`.
    Osqueryi,
    /// Logs of osqueryd.
    Osqueryd,
    /// Results of fleetctl, reports of Fleet's REST API, CSV of Fleet's UI.
    Fleet,
    /// Rows of artifacts of Velociraptor (JSONL).
    Velociraptor,
}

impl From<Format> for ImportFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Osqueryi => Self::Osqueryi,
            Format::Osqueryd => Self::Osqueryd,
            Format::Fleet => Self::Fleet,
            Format::Velociraptor => Self::Velociraptor,
        }
    }
}

fn mapping(text: &str) -> Result<(String, String), String> {
    let (query, name) = text.rsplit_once('=').ok_or("expected QUERY=TABLE")?;
    Ok((query.to_owned(), table(name)?))
}

fn table(name: &str) -> Result<String, String> {
    match crate::catalog::is_table_name(name) {
        true => Ok(name.to_owned()),
        false => Err(format!("`{name}` is no table name")),
    }
}

pub(super) async fn run(app: &App, args: Args) -> Result<Outcome> {
    let fleet = fleet(app, args.fleet.clone())?;
    if args.once && args.paths.iter().any(|path| path.as_os_str() == "-") {
        return Err(Error::usage("`--once` cannot remember standard input")
            .hint("write it to a file, or leave `--once` out"));
    }
    let sources = sources(app, &args.paths).await?;
    let store = app.open_or_create_store().await?;
    warn_of_future(app, &store, &fleet).await?;
    if !args.once {
        return Box::pin(import(app, (&store, fleet), (&args, sources), None)).await;
    }
    let Some(once) = Box::pin(Once::begin(app, &store, &fleet, way(&args))).await? else {
        app.output.say("another `diffy import --once` into this store is at work; nothing is done here");
        return Ok(Outcome::Done);
    };
    Box::pin(import(app, (&store, fleet), (&args, sources), Some(&once))).await
}

/// Imports all of it, or what is new.
async fn import(
    app: &App,
    (store, fleet): (&Store, Fleet),
    (args, sources): (&Args, Vec<Source>),
    once: Option<&Once>,
) -> Result<Outcome> {
    let started = args.at.unwrap_or_else(now);
    let snapshot = SnapshotId::new(started);
    let most = args.download_limit.saturating_mul(1 << 30);
    let is_wanted = once.map(|once| once.wants(&sources));
    let is_wanted = |file: &RemoteFile| is_wanted.as_ref().is_none_or(|is_wanted| is_wanted(file));
    let inputs = Inputs::copy(app, (store, snapshot), (sources, most), &is_wanted).await?;
    let mut options = options(args, &inputs);
    let mut news = None;
    if let Some(once) = once {
        let found = once.news((&inputs, snapshot), (&options, &app.catalog))?;
        found.told.iter().for_each(|told| app.output.say(told));
        once.clean(app, store, &found)?;
        if found.fresh() == 0 {
            app.output.say(&format!("nothing new: {} files are in snapshots already", found.remembered()));
            return Ok(Outcome::Done);
        }
        options.chosen = Some(found.chosen.clone());
        options.files.lengths = found.lengths.clone();
        news = Some(found);
    }
    let begin = SpoolBegin {
        snapshot,
        fleet,
        incident: args.incident.clone(),
        started,
        collected_by: app.settings.who.clone(),
        collector: IMPORT.to_owned(),
        targets: Vec::new(),
        queries: BTreeMap::new(),
    };
    let Some(reader) = read_files(app, (store, &begin), (&inputs, &options), news.as_ref())? else {
        app.output
            .say("nothing new is of a host: no snapshot is made, and the next `--once` looks at it again");
        return Ok(Outcome::Done);
    };
    let finished = make_snapshot(app, store, reader).await?;
    print(&summary(&finished))?;
    tell_problems(app, &finished);
    if let Some(news) = news {
        app.output.say(&format!("{} of {} files were new", news.fresh(), news.chosen.len()));
    }
    somebody_answered(&finished)?;
    Ok(Outcome::Done)
}

/// What, beside its content, decides whether a file is read; a newer Diffy may read more.
fn way(args: &Args) -> String {
    let way = format!("{} {:?} {:?}", env!("CARGO_PKG_VERSION"), args.format, args.host);
    blake3::hash(way.as_bytes()).to_hex().to_string()
}

fn options(args: &Args, inputs: &Inputs) -> ImportOptions {
    ImportOptions {
        format: args.format.map(ImportFormat::from),
        map: args.map.iter().cloned().collect(),
        host: args.host.clone(),
        table: args.table.clone(),
        nameless: inputs.stdin.clone(),
        files: inputs.files(args.unpacked_limit.map(|mib| mib.saturating_mul(1 << 20))),
        chosen: None,
        stand_ins: inputs.stand_ins.clone(),
        limits: Limits::default(),
        at: args.at,
    }
}

/// Receives everything into a spool, which is removed again when that fails: the files are still there, and half an
/// import is worth nothing. None when what is new since the last import names no host.
fn read_files(
    app: &App,
    (store, begin): (&Store, &SpoolBegin),
    (inputs, options): (&Inputs, &ImportOptions),
    news: Option<&News>,
) -> Result<Option<SpoolReader>> {
    let path = store.spool_path(begin.snapshot);
    let files = news.map(News::listed).unwrap_or_default();
    let receiver = Receiver::new(&app.catalog, SpoolWriter::create_with(path.clone(), begin, &files)?);
    let received = receive(app, receiver, (inputs, options), news);
    if !matches!(received, Ok(Some(_))) {
        let _ = std::fs::remove_file(&path);
    }
    received
}

fn receive(
    app: &App,
    mut receiver: Receiver<'_>,
    (inputs, options): (&Inputs, &ImportOptions),
    news: Option<&News>,
) -> Result<Option<SpoolReader>> {
    let progress = Progress::new(app.progress, "reading rows", None);
    let mut sink = Sink { receiver: &mut receiver, progress: &progress };
    let mut report = decode::import(&inputs.paths, options, &app.catalog, &mut sink)?;
    drop(progress);
    report.skipped.splice(0..0, inputs.skipped.iter().cloned());
    tell(app, &report);
    if report.hosts == 0 && news.is_some() {
        return Ok(None);
    }
    if report.hosts == 0 {
        return Err(Error::data("found no host in these files").hint(
            "expected HOST/TABLE.json of `osqueryi --json`, logs of osqueryd, exports of Fleet, or artifacts of Velociraptor; `--format` forces one",
        ));
    }
    for note in &report.notes {
        receiver.warning(note.clone())?;
    }
    if report.problems_total > 0 {
        receiver.warning(format!(
            "problems in the imported files: {}; the first: {}",
            report.problems_total,
            report.problems.first().map(ToString::to_string).unwrap_or_default()
        ))?;
    }
    if let Some(news) = news {
        let changed = news.changed(inputs, options);
        for (shown, _) in &changed {
            app.output.say(&format!(
                "{shown} became another file while it was read, and is looked at again by the next import"
            ));
        }
        receiver.imported(changed.into_iter().map(|(_, name)| name).collect())?;
    } else {
        receiver.imported(Vec::new())?;
    }
    receiver.into_reader().map(Some)
}

/// Hands what an import finds to the spool.
struct Sink<'a, 'b> {
    receiver: &'a mut Receiver<'b>,
    progress: &'a Progress,
}

impl ImportSink for Sink<'_, '_> {
    fn host(&mut self, host: &str) -> Result<()> {
        self.receiver.host(host)
    }

    fn rows(&mut self, host: &str, table: &str, chunk: Chunk) -> Result<()> {
        self.progress.inc(chunk.rows);
        self.receiver.rows(host, table, chunk)
    }

    fn answered(&mut self, answer: ImportAnswer) -> Result<()> {
        self.receiver.answered(answer.coverage())
    }
}

fn tell(app: &App, report: &ImportReport) {
    let counts = [
        (report.superseded, "log entries are replaced by newer ones of the same host and query"),
        (report.later, "log entries are later than the time asked for"),
        (report.status_lines, "lines are the agent speaking about itself"),
    ];
    for (count, what) in counts.iter().filter(|(count, _)| *count > 0) {
        app.output.say(&format!("{count} {what}"));
    }
    list(app, "skipped", &report.skipped, report.skipped.len() as u64);
    let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    list(app, "problem", &problems, report.problems_total);
}

fn list(app: &App, label: &str, items: &[String], total: u64) {
    for item in items.iter().take(MOST_TOLD) {
        app.output.say(&format!("{label}: {item}"));
    }
    let untold = total.saturating_sub(items.len().min(MOST_TOLD) as u64);
    if untold > 0 {
        app.output.say(&format!("{label}: … and {untold} more"));
    }
}
