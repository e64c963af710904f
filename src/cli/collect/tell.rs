//! What a person is told of a new snapshot.

use std::collections::{BTreeMap, BTreeSet};

use super::super::App;
use crate::error::{Error, Result};
use crate::ingest::Finished;
use crate::model::{Coverage, digits};
use crate::report::escape::{escape, shown};

/// Most failures that are told one by one.
const MOST_TOLD: usize = 20;
/// Columns of a host's name in a sentence.
const NAME_COLUMNS: usize = 60;

/// A snapshot without any answer is kept for its reasons, and is no success.
pub(in super::super) fn somebody_answered(finished: &Finished) -> Result<()> {
    if finished.manifest.hosts_answered > 0 {
        return Ok(());
    }
    let snapshot = finished.manifest.snapshot;
    Err(Error::data(format!("no host answered; snapshot {snapshot} keeps the reasons"))
        .hint("`diffy query --name coverage_problems` lists them"))
}

/// What a person wants to know of a new snapshot.
pub(in super::super) fn summary(finished: &Finished) -> String {
    let manifest = &finished.manifest;
    let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    let tables = manifest.files.iter().filter_map(|file| file.table.as_deref());
    let tables: BTreeSet<&str> = tables.collect();
    format!(
        "snapshot  {}\nfleet     {}\nhosts     {} asked, {} answered, {} failed\nrows      {} in {} tables\nbytes     {}\n",
        manifest.snapshot,
        escape(manifest.fleet.as_str()),
        manifest.hosts_asked,
        manifest.hosts_answered,
        manifest.hosts_failed,
        digits(manifest.rows),
        tables.len(),
        indicatif::HumanBytes(bytes),
    )
}

/// Says on stderr what did not come, and what was wrong with what came.
pub(in super::super) fn tell_problems(app: &App, finished: &Finished) {
    for warning in &finished.manifest.warnings {
        app.output.warn(warning);
    }
    let tables = finished.manifest.answered.len();
    let mut failures: BTreeMap<(String, String), Vec<&Coverage>> = BTreeMap::new();
    for line in &finished.failures {
        failures.entry((line.status.to_string(), line.error.clone())).or_default().push(line);
    }
    for ((status, error), lines) in failures.iter().take(MOST_TOLD) {
        let why = if error.is_empty() { String::new() } else { format!(": {error}") };
        app.output.say(&format!("{status}: {}{why}", whom(lines, tables)));
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

/// Hosts where all of a host failed alike, else tables on hosts.
fn whom(lines: &[&Coverage], tables: usize) -> String {
    let hosts: BTreeSet<&str> = lines.iter().map(|line| line.host.as_str()).collect();
    let Some(first) = lines.first() else { return String::new() };
    let name = shown(&first.host, NAME_COLUMNS);
    if tables > 1 && lines.len() == hosts.len() * tables {
        return match hosts.len() {
            1 => name.to_string(),
            count => format!("{name} and {} more hosts", count - 1),
        };
    }
    match lines.len() {
        1 => format!("{} on {name}", first.table),
        count => format!("{} on {name} and {} more", first.table, count - 1),
    }
}
