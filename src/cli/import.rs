//! `diffy import`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::{DateTime, NaiveDate, Utc};
use clap::ValueEnum;

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
use crate::store::{SpoolBegin, SpoolReader, SpoolWriter};

/// Most files and problems that are told one by one.
const MOST_TOLD: usize = 20;

/// Make a snapshot of osquery output that exists already
///
/// Reads directories of `HOST/TABLE.json` as `osqueryi --json` prints them, files with one host each, and results and
/// snapshot logs of osqueryd, plain, .gz or .zst. What cannot be read is told by file and line; the rest is imported.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Files and directories
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The set of hosts that should be alike [env: DIFFY_FLEET]
    #[arg(long)]
    fleet: Option<Fleet>,
    /// What the files are, when their content does not tell
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// The table that a scheduled query of osqueryd stands for
    #[arg(long, value_name = "QUERY=TABLE", value_parser = mapping)]
    map: Vec<(String, String)>,
    /// The host of files that do not name one
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// The incident this is imported for; recorded in the snapshot
    #[arg(long, value_name = "ID")]
    incident: Option<String>,
    /// When the files were made, as 2026-01-31 or 2026-01-31T08:00:00Z; later entries of logs do not count [default:
    /// now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    collected_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Output of `osqueryi --json`.
    Osqueryi,
    /// Logs of osqueryd.
    Osqueryd,
}

fn mapping(text: &str) -> Result<(String, String), String> {
    let (query, table) = text.split_once('=').ok_or("expected QUERY=TABLE")?;
    if !crate::catalog::is_table_name(table) {
        return Err(format!("`{table}` is no table name"));
    }
    Ok((query.to_owned(), table.to_owned()))
}

/// A time, or a day, which begins at midnight; all of it UTC.
fn time(text: &str) -> Result<DateTime<Utc>, String> {
    let day =
        || text.parse::<NaiveDate>().ok().and_then(|day| day.and_hms_opt(0, 0, 0)).map(|time| time.and_utc());
    let time = text.parse::<DateTime<Utc>>().ok().or_else(day);
    time.filter(|time| time.timestamp() >= 0)
        .ok_or_else(|| "expected a time since 1970, like 2026-01-31 or 2026-01-31T08:00:00Z".to_owned())
}

pub(super) async fn run(app: &App, args: Args) -> Result<Outcome> {
    let fleet = fleet(app, args.fleet.clone())?;
    for path in &args.paths {
        std::fs::metadata(path).map_err(|source| {
            Error::usage(format!("cannot read `{}`", path.display()))
                .source(source)
                .hint("nothing was imported")
        })?;
    }
    let store = app.open_or_create_store().await?;
    warn_of_future(app, &store, &fleet).await?;
    let started = args.collected_at.unwrap_or_else(now);
    let begin = SpoolBegin {
        snapshot: SnapshotId::new(started),
        fleet,
        incident: args.incident.clone(),
        started,
        collected_by: app.settings.who.clone(),
        collector: "import".to_owned(),
        targets: Vec::new(),
        queries: BTreeMap::new(),
    };
    let path = store.spool_path(begin.snapshot);
    let receiver = Receiver::new(&app.catalog, SpoolWriter::create(path.clone(), &begin)?);
    let reader = match read_files(app, &args, receiver) {
        Ok(read) => read,
        Err(error) => {
            // The files are still there: half an import is worth nothing.
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
    };
    let finished = make_snapshot(app, &store, reader).await?;
    print(&summary(&finished))?;
    tell_problems(app, &finished);
    somebody_answered(&finished)?;
    Ok(Outcome::Done)
}

fn read_files(app: &App, args: &Args, mut receiver: Receiver<'_>) -> Result<SpoolReader> {
    let options = ImportOptions {
        format: args.format.map(|format| match format {
            Format::Osqueryi => ImportFormat::Osqueryi,
            Format::Osqueryd => ImportFormat::Osqueryd,
        }),
        map: args.map.iter().cloned().collect(),
        host: args.host.clone(),
        limits: Limits::default(),
        at: args.collected_at,
    };
    let progress = Progress::new(app.progress, "reading rows", None);
    let mut sink = Sink { receiver: &mut receiver, progress: &progress };
    let report = decode::import(&args.paths, &options, &app.catalog, &mut sink)?;
    drop(progress);
    tell(app, &report);
    if report.hosts == 0 {
        return Err(Error::data("found no host in these files").hint(
            "expected HOST/TABLE.json of `osqueryi --json`, one file per host, or logs of osqueryd; `--format` forces one",
        ));
    }
    if report.problems_total > 0 {
        receiver.warning(format!(
            "problems in the imported files: {}; the first: {}",
            report.problems_total,
            report.problems.first().map(ToString::to_string).unwrap_or_default()
        ))?;
    }
    receiver.into_reader()
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
