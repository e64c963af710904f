//! Collects from the running Linux system itself, without osquery: `/proc`, `/sys` and files.
//!
//! Rows have osquery's column names and spellings, so that they compare with rows that osqueryd sent. What files cannot
//! tell is left out of the row and is read as unknown. Everything read is hostile: sizes are bounded, links in
//! directories are not followed downwards, pipes and devices are never opened.

#[cfg(target_os = "linux")]
mod accounts;
#[cfg(target_os = "linux")]
mod context;
#[cfg(target_os = "linux")]
mod cron;
#[cfg(target_os = "linux")]
mod files;
#[cfg(target_os = "linux")]
mod kernel;
#[cfg(target_os = "linux")]
mod network;
#[cfg(target_os = "linux")]
mod packages;
#[cfg(target_os = "linux")]
mod processes;
#[cfg(target_os = "linux")]
mod registry;
#[cfg(target_os = "linux")]
mod rows;
#[cfg(target_os = "linux")]
mod shell;
#[cfg(target_os = "linux")]
mod sockets;
#[cfg(target_os = "linux")]
mod ssh;
#[cfg(target_os = "linux")]
mod system;
#[cfg(target_os = "linux")]
mod systemd;
#[cfg(target_os = "linux")]
mod xattr;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc::Sender;
use tokio::time;

use super::{Answer, Collector, until_closed};
use crate::catalog::TableSpec;
use crate::model::{self, Status};

/// How long a table that was told to stop may take to hand over what it has.
const GRACE: Duration = Duration::from_secs(5);

/// Where to collect from and how long it may take.
#[derive(Debug, Clone)]
pub struct NativeConfig {
    /// Most that one table may take.
    pub timeout: Duration,
    /// The directory that is taken for `/`; tests prepare one.
    pub root: PathBuf,
}

impl Default for NativeConfig {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(300), root: PathBuf::from("/") }
    }
}

/// The collector `native`.
#[derive(Debug)]
pub struct NativeCollector {
    config: NativeConfig,
}

impl NativeCollector {
    /// A collector of this machine, or of a directory that looks like one.
    pub fn new(config: NativeConfig) -> Self {
        Self { config }
    }

    /// The tables that this collector knows, sorted; none on other systems than Linux.
    pub fn tables() -> Vec<&'static str> {
        let mut names = registry::names();
        names.sort_unstable();
        names
    }

    /// Gathers one table; `stop` makes it end early.
    ///
    /// The work is blocking and cannot be cancelled from outside: it looks at the clock by itself, and when it hangs in
    /// the kernel (a dead network file system) it is left behind and the answer says `timeout`.
    async fn answer(&self, table: &str, stop: &Arc<AtomicBool>) -> Answer {
        let started = model::now();
        let (status, json, error) = self.gather(table, stop).await;
        Answer {
            table: table.to_owned(),
            status,
            json,
            error,
            started,
            ended: model::now(),
            osquery_version: None,
            uid: caller(),
        }
    }

    async fn gather(&self, table: &str, stop: &Arc<AtomicBool>) -> Outcome {
        let (config, stop, table) = (self.config.clone(), Arc::clone(stop), table.to_owned());
        let work = tokio::task::spawn_blocking(move || registry::gather(&table, &config, stop));
        match time::timeout(self.config.timeout + GRACE, work).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => (Status::Error, Vec::new(), format!("the table's reader failed: {error}")),
            Err(_) => {
                let seconds = self.config.timeout.as_secs();
                (Status::Timeout, Vec::new(), format!("no answer within {seconds} s"))
            }
        }
    }
}

#[async_trait]
impl Collector for NativeCollector {
    fn name(&self) -> &'static str {
        "native"
    }

    fn concurrency(&self) -> usize {
        1
    }

    async fn collect(&self, _host: &str, tables: &[TableSpec], answers: Sender<Answer>) {
        let work = async {
            let stop = StopOnDrop::default();
            for table in tables {
                let answer = self.answer(&table.name, &stop.0).await;
                if answers.send(answer).await.is_err() {
                    return;
                }
            }
        };
        until_closed(&answers, work).await;
    }
}

/// Tells the blocking reader to stop when nobody waits for it any more.
#[derive(Debug, Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How gathering one table ended, its rows as JSON, and what went wrong in one sentence.
type Outcome = (Status, Vec<u8>, String);

#[cfg(unix)]
fn caller() -> Option<u32> {
    Some(rustix::process::geteuid().as_raw())
}

#[cfg(not(unix))]
fn caller() -> Option<u32> {
    None
}

/// Other systems have none of the tables.
#[cfg(not(target_os = "linux"))]
mod registry {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::{NativeConfig, Outcome};
    use crate::model::Status;

    pub(super) fn names() -> Vec<&'static str> {
        Vec::new()
    }

    pub(super) fn gather(_table: &str, _config: &NativeConfig, _stop: Arc<AtomicBool>) -> Outcome {
        (Status::NotSupported, Vec::new(), "the native collector knows Linux only".to_owned())
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    async fn ask(collector: &NativeCollector, tables: &[&str]) -> Vec<Answer> {
        let specs: Vec<TableSpec> = tables.iter().map(|name| TableSpec::undeclared(name)).collect();
        let (sender, mut receiver) = mpsc::channel(64);
        collector.collect("localhost", &specs, sender).await;
        let mut answers = Vec::new();
        while let Some(answer) = receiver.recv().await {
            answers.push(answer);
        }
        answers
    }

    #[tokio::test]
    async fn every_table_is_answered_exactly_once_even_on_an_empty_host() {
        let dir = tempfile::tempdir().unwrap();
        let config = NativeConfig { root: dir.path().to_owned(), ..NativeConfig::default() };
        let mut names = NativeCollector::tables();
        names.push("no_such_table");
        let answers = ask(&NativeCollector::new(config), &names).await;
        let answered: Vec<&str> = answers.iter().map(|answer| answer.table.as_str()).collect();
        assert_eq!(answered, names);
        for answer in &answers {
            match answer.status {
                Status::NotSupported => assert!(!answer.error.is_empty(), "{answer:?}"),
                _ => assert!(
                    serde_json::from_slice::<Vec<serde_json::Value>>(&answer.json).is_ok(),
                    "{answer:?}"
                ),
            }
        }
        assert_eq!(answers[answers.len() - 1].status, Status::NotSupported);
    }

    #[tokio::test]
    async fn a_collection_that_nobody_waits_for_ends() {
        let dir = tempfile::tempdir().unwrap();
        let config = NativeConfig { root: dir.path().to_owned(), ..NativeConfig::default() };
        let (sender, receiver) = mpsc::channel(1);
        drop(receiver);
        NativeCollector::new(config).collect("localhost", &[TableSpec::undeclared("users")], sender).await;
    }
}
