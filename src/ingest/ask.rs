//! Asks many hosts at once and hands over their answers, ready for the spool, as they come.

use std::sync::Arc;

use futures::{StreamExt, stream};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::receive::{Prepared, prepare};
use crate::catalog::{Catalog, TableSpec};
use crate::collect::{Answer, Collector};
use crate::decode::Limits;
use crate::error::{Error, Result};
use crate::model::{Status, now};

/// Answers that wait for the writer; more, and hosts wait.
const WAITING: usize = 32;

/// Answers of one host that wait to be prepared: some are large.
const ANSWERS: usize = 2;

/// What came of asking.
#[derive(Debug)]
pub enum Asked {
    /// One host's answer for one table.
    Answer(Box<Prepared>),
    /// A host has answered for all tables.
    HostDone,
    /// An answer could not be prepared: a defect.
    Failed(Error),
}

/// Asks `hosts` for `tables`, `concurrency` hosts at a time; the answers come through the channel, which closes at the
/// end. Dropping the channel stops everything.
pub fn ask_hosts(
    collector: Arc<dyn Collector>,
    hosts: Vec<String>,
    tables: Vec<TableSpec>,
    (catalog, limits, concurrency): (Arc<Catalog>, Limits, usize),
) -> Receiver<Asked> {
    let (out, answers) = channel(WAITING);
    let ask = Arc::new(Ask { collector, tables, catalog, limits });
    tokio::spawn(async move {
        let each = stream::iter(hosts).map(|host| {
            let (ask, out) = (Arc::clone(&ask), out.clone());
            // A task of its own, so that preparing the answers of several hosts uses all cores.
            tokio::spawn(async move { ask.host_or_why_not(host, out).await })
        });
        each.buffer_unordered(concurrency.max(1)).take_while(|_| async { !out.is_closed() }).count().await;
    });
    answers
}

#[derive(Debug)]
struct Ask {
    collector: Arc<dyn Collector>,
    tables: Vec<TableSpec>,
    catalog: Arc<Catalog>,
    limits: Limits,
}

impl Ask {
    /// A defect that one host's answer meets is that host's failure and not that of the collection.
    async fn host_or_why_not(self: Arc<Self>, host: String, out: Sender<Asked>) {
        let task = {
            let (ask, host, out) = (Arc::clone(&self), host.clone(), out.clone());
            tokio::spawn(async move { ask.host(&host, &out).await })
        };
        let Err(error) = task.await else { return };
        tracing::error!(host, %error, "asking a host failed");
        for table in &self.tables {
            let answer = Answer {
                table: table.name.clone(),
                status: Status::Error,
                json: Vec::new(),
                error: "a defect of Diffy: the answers of this host could not be taken".to_owned(),
                started: now(),
                ended: now(),
                osquery_version: None,
                uid: None,
            };
            let asked = self
                .prepare(&host, answer)
                .map_or_else(Asked::Failed, |answer| Asked::Answer(Box::new(answer)));
            if out.send(asked).await.is_err() {
                return;
            }
        }
        // Nobody listens when the reader is gone.
        let _ = out.send(Asked::HostDone).await;
    }

    async fn host(&self, host: &str, out: &Sender<Asked>) {
        let (send, mut receive) = channel::<Answer>(ANSWERS);
        let collecting = self.collector.collect(host, &self.tables, send);
        let passing = async {
            while let Some(answer) = receive.recv().await {
                let asked = self
                    .prepare(host, answer)
                    .map_or_else(Asked::Failed, |prepared| Asked::Answer(Box::new(prepared)));
                if out.send(asked).await.is_err() {
                    // The reader is gone; closing the channel tells the collector.
                    receive.close();
                }
            }
        };
        tokio::join!(collecting, passing);
        // Nobody listens when the reader is gone.
        let _ = out.send(Asked::HostDone).await;
    }

    fn prepare(&self, host: &str, answer: Answer) -> Result<Prepared> {
        prepare(&self.catalog, &self.limits, host, answer)
    }
}
