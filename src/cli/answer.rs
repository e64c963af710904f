//! `diffy answer`, hidden: one table of this machine, for the script that collects where there is no osquery.

use std::io::{self, Write};
use std::time::Duration;

use super::Outcome;
use crate::catalog::TableSpec;
use crate::collect::native::{NativeCollector, NativeConfig};
use crate::collect::{ANSWER_PREFIX, Answer, Collector};
use crate::error::{Error, Result};
use crate::model::Status;

/// Print one table of this machine as osqueryi --json would, from the native collector
///
/// Exit status: 0 all rows are here; 1 not all, stderr says why; 3 this machine does not have the table.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The table
    table: String,
    /// Time limit, in seconds; what was read until then is printed
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
}

pub(super) async fn run(args: Args) -> Result<Outcome> {
    let timeout = Duration::from_secs(args.timeout.max(1));
    let collector = NativeCollector::new(NativeConfig { timeout, ..NativeConfig::default() });
    let answer = ask(&collector, &args.table).await?;
    let mut out = io::stdout().lock();
    out.write_all(&answer.json)
        .and_then(|()| out.flush())
        .map_err(|source| Error::remote("cannot write to stdout").source(source))?;
    drop(out);
    if matches!(answer.status, Status::Ok | Status::Empty) {
        return Ok(Outcome::Done);
    }
    // The caller reads the last line.
    let _ = writeln!(io::stderr(), "{ANSWER_PREFIX}{}: {}", answer.status, answer.error.replace('\n', " "));
    Ok(if answer.status == Status::NotSupported { Outcome::NotSupported } else { Outcome::Incomplete })
}

async fn ask(collector: &NativeCollector, table: &str) -> Result<Answer> {
    let tables = [TableSpec::undeclared(table)];
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let collecting = collector.collect("localhost", &tables, sender);
    let (answer, ()) = tokio::join!(receiver.recv(), collecting);
    answer.ok_or_else(|| Error::internal("the native collector did not answer"))
}
