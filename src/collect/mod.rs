//! Collectors: ask one host for tables and hand over what it says, as it says it.

mod child;
mod judge;
pub mod native;
pub mod osquery;
pub mod remote;
pub mod ssh;
pub mod ssm;

use std::fmt;

use chrono::{DateTime, Utc};
use futures::FutureExt;
use futures::future::BoxFuture;
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
pub trait Collector: Send + Sync + fmt::Debug {
    /// The name on the command line and in the manifest.
    fn name(&self) -> &'static str;

    /// How many hosts to ask at once when the user does not say; at least 1.
    fn concurrency(&self) -> usize;

    /// Asks `host` for `tables`. Stops early, without an error, when `answers` is closed.
    fn collect<'a>(
        &'a self,
        host: &'a str,
        tables: &'a [TableSpec],
        answers: Sender<Answer>,
    ) -> BoxFuture<'a, ()>;

    /// What a reader of the snapshot should know beyond single answers, in sentences; asked for once, at the end.
    fn remarks(&self) -> BoxFuture<'_, Vec<String>> {
        std::future::ready(Vec::new()).boxed()
    }

    /// Ends what is under way on hosts, as far as it can be ended; called when the collection is interrupted.
    fn stop(&self) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }
}
