//! Collectors: ask one host for tables and hand over what it says, as it says it.

mod child;
mod judge;
pub mod native;
pub mod osquery;
pub mod plugin;
pub mod program;
pub mod remote;
pub mod ssh;
pub mod ssm;

use std::fmt;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::sync::mpsc::Sender;

pub use self::judge::ANSWER_PREFIX;
use crate::catalog::TableSpec;
use crate::model::Status;

/// What one host said for one table: unparsed, untrusted.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The table asked for.
    pub table: String,
    /// How the collector saw it end; decoding may lower `Ok` to `Truncated` or `Error`, and settles `Ok` or `Empty`.
    pub status: Status,
    /// Rows as `osqueryi --json` prints them: an array of flat objects. Empty when there is no answer.
    pub json: Vec<u8>,
    /// What went wrong, in one line; empty when nothing did.
    pub error: String,
    /// When the query started.
    pub started: DateTime<Utc>,
    /// When the query ended.
    pub ended: DateTime<Utc>,
    /// The agent's version, where it says it.
    pub osquery_version: Option<String>,
    /// The user id that the query ran as.
    pub uid: Option<u32>,
}

/// Asks hosts for tables.
///
/// A collector sends exactly one [`Answer`] for each table it was asked for, in any order, as soon as it has it, and
/// never fails as a whole: what could not be had is an answer with a status that says so.
#[async_trait]
pub trait Collector: Send + Sync + fmt::Debug {
    /// The name on the command line and in the manifest.
    fn name(&self) -> &str;

    /// How many hosts to ask at once when the user does not say; at least 1.
    fn concurrency(&self) -> usize;

    /// Asks `host` for `tables`. Stops early, without an error, when `answers` is closed.
    async fn collect(&self, host: &str, tables: &[TableSpec], answers: Sender<Answer>);

    /// What a reader of the snapshot should know beyond single answers, in sentences; asked for once, at the end.
    async fn remarks(&self) -> Vec<String> {
        Vec::new()
    }

    /// Ends what is under way on hosts, as far as it can be ended; called when the collection is interrupted.
    async fn stop(&self) {}
}

/// Asks for as long as somebody waits for the answers: when the channel is closed, the work is dropped where it is.
async fn until_closed(answers: &Sender<Answer>, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        () = answers.closed() => {}
    }
}
