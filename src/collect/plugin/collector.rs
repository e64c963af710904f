//! The collector plugins: one process for each host, one line for each table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use tokio::sync::mpsc::Sender;

use super::super::program::{Bounds, Ended, Leash, Running};
use super::super::{Answer, Collector, until_closed};
use super::answer::{Said, excerpt, read};
use super::{PROTOCOL, Plugin, trouble};
use crate::catalog::TableSpec;
use crate::model::{self, Status, few};

/// Most lines of one host that are looked at, beyond one for each table.
const MORE_LINES: usize = 1_000;
/// Remarks, and problems of one host, that are told.
const REMARKS: usize = 20;
const TOLD: usize = 5;

/// What is run, and what it may take for one host.
#[derive(Debug, Clone)]
pub struct PluginConfig {
    /// The program.
    pub plugin: Plugin,
    /// Most time for one host.
    pub timeout: Duration,
    /// Most bytes that it may print for one host.
    pub max_bytes: usize,
    /// Most bytes of the answer for one table.
    pub line_bytes: usize,
    /// What the inventory knows of hosts, by name; handed on in the request.
    pub hosts: BTreeMap<String, HostFacts>,
}

/// What a request says of a host beside its name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct HostFacts {
    /// Where it is reached, if not by its name.
    pub address: Option<String>,
    /// What the inventory says of it.
    pub labels: BTreeMap<String, String>,
}

/// The collector `exec:COMMAND`, or `diffy-collector-NAME`.
#[derive(Debug)]
pub struct PluginCollector {
    config: PluginConfig,
    leash: Leash,
    /// What was wrong, and with which hosts.
    remarks: Mutex<BTreeMap<String, BTreeSet<String>>>,
}

#[derive(Serialize)]
struct Request<'a> {
    diffy_plugin: u64,
    kind: &'static str,
    host: &'a str,
    #[serde(flatten)]
    facts: &'a HostFacts,
    timeout_seconds: f64,
    tables: Vec<Table<'a>>,
}

#[derive(Serialize)]
struct Table<'a> {
    name: &'a str,
    query: &'a str,
}

/// What one host's process has answered so far.
struct Host<'a> {
    name: &'a str,
    tables: BTreeSet<&'a str>,
    started: chrono::DateTime<chrono::Utc>,
    /// What it said of all tables that it does not answer.
    of_the_rest: Option<Said>,
    /// What was wrong with the first lines that are no answers, and how many those are.
    problems: Vec<String>,
    problems_total: usize,
}

impl PluginCollector {
    /// A collector that asks hosts through a program.
    pub fn new(config: PluginConfig) -> Self {
        Self { config, leash: Leash::default(), remarks: Mutex::default() }
    }

    fn start(&self, host: &str, tables: &[TableSpec]) -> Result<Running, String> {
        let config = &self.config;
        let none = HostFacts::default();
        let request = Request {
            diffy_plugin: PROTOCOL,
            kind: "collect",
            host,
            facts: config.hosts.get(host).unwrap_or(&none),
            timeout_seconds: config.timeout.as_secs_f64(),
            tables: tables.iter().map(|table| Table { name: &table.name, query: &table.query }).collect(),
        };
        let request = serde_json::to_vec(&request).map_err(|error| error.to_string())?;
        let bounds =
            Bounds { timeout: config.timeout, bytes: config.max_bytes, line_bytes: config.line_bytes };
        Running::start(&config.plugin.program(&["collect"]), request, bounds, &self.leash)
            .map_err(|error| format!("cannot start `{}`: {error}", config.plugin.path.display()))
    }

    async fn host(&self, name: &str, tables: &[TableSpec], answers: &Sender<Answer>) {
        let mut host = Host::new(name, tables);
        let (ended, stderr) = match self.start(name, tables) {
            Ok(running) => self.lines(&mut host, running, answers).await,
            Err(why) => (Ended::Failed(why), Vec::new()),
        };
        // What came is kept; that the rest was not asked for is said by whoever stopped it.
        if self.leash.is_pulled() || answers.is_closed() {
            return;
        }
        let trouble = trouble(&ended, &stderr);
        if let Some(trouble) = trouble.as_ref().filter(|_| host.tables.is_empty()) {
            host.problem(format!("it answered for all tables, and {trouble}"));
        }
        self.remark(&host);
        for answer in host.rest(&self.config.plugin, (&ended, trouble)) {
            let _ = answers.send(answer).await;
        }
    }

    /// Takes lines until there are no more.
    async fn lines(
        &self,
        host: &mut Host<'_>,
        mut running: Running,
        answers: &Sender<Answer>,
    ) -> (Ended, Vec<u8>) {
        let most = host.tables.len() + MORE_LINES;
        let mut number = 0;
        while let Some(line) = running.line().await {
            number += 1;
            if number > most {
                return (Ended::Failed(format!("it printed more than {most} lines")), Vec::new());
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            match read(&line, host.name).and_then(|said| host.take(said)) {
                Ok(None) => {}
                Ok(Some(answer)) => {
                    if answers.send(answer).await.is_err() {
                        break;
                    }
                }
                Err(why) => host.problem(format!("line {number}: {why}")),
            }
        }
        running.end().await
    }

    fn remark(&self, host: &Host<'_>) {
        if host.problems.is_empty() {
            return;
        }
        let more = match host.problems_total - host.problems.len() {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        let what = host.problems.join("; ") + &more;
        let mut remarks = self.remarks.lock().unwrap_or_else(PoisonError::into_inner);
        remarks.entry(what).or_default().insert(host.name.to_owned());
    }
}

impl<'a> Host<'a> {
    fn new(name: &'a str, tables: &'a [TableSpec]) -> Self {
        Self {
            name,
            tables: tables.iter().map(|table| table.name.as_str()).collect(),
            started: model::now(),
            of_the_rest: None,
            problems: Vec::new(),
            problems_total: 0,
        }
    }

    fn problem(&mut self, problem: String) {
        self.problems_total += 1;
        if self.problems.len() < TOLD {
            self.problems.push(problem);
        }
    }

    /// The answer that a line is, if it is one for a table that waits for it.
    fn take(&mut self, said: Said) -> Result<Option<Answer>, String> {
        let Some(table) = &said.table else {
            self.of_the_rest = Some(said);
            return Ok(None);
        };
        if !self.tables.remove(table.as_str()) {
            let table = excerpt(table);
            return Err(format!("table `{table}` was not asked for, or is answered already"));
        }
        Ok(Some(self.answer(&said.table.clone().unwrap_or_default(), said)))
    }

    fn answer(&self, table: &str, said: Said) -> Answer {
        Answer {
            table: table.to_owned(),
            status: said.status,
            json: said.json,
            error: said.error,
            started: self.started,
            ended: model::now(),
            osquery_version: said.osquery_version,
            uid: said.uid,
        }
    }

    /// Why each of the remaining tables has no answer.
    fn rest(self, plugin: &Plugin, (ended, trouble): (&Ended, Option<String>)) -> Vec<Answer> {
        let status = if matches!(ended, Ended::Timeout) { Status::Timeout } else { Status::Error };
        let (status, error) = match (&self.of_the_rest, trouble, self.problems.first()) {
            (Some(said), ..) => (said.status, said.error.clone()),
            (None, Some(trouble), _) => (status, format!("{plugin} {trouble}")),
            (None, None, Some(problem)) => (status, format!("{plugin} did not answer for it; {problem}")),
            (None, None, None) => (status, format!("{plugin} did not answer for it")),
        };
        let silent = |table: &&str| {
            let said = Said {
                table: None,
                status,
                json: Vec::new(),
                error: error.clone(),
                osquery_version: self.of_the_rest.as_ref().and_then(|said| said.osquery_version.clone()),
                uid: self.of_the_rest.as_ref().and_then(|said| said.uid),
            };
            self.answer(table, said)
        };
        self.tables.iter().map(silent).collect()
    }
}

#[async_trait]
impl Collector for PluginCollector {
    fn name(&self) -> &str {
        &self.config.plugin.name
    }

    fn concurrency(&self) -> usize {
        8
    }

    async fn collect(&self, host: &str, tables: &[TableSpec], answers: Sender<Answer>) {
        until_closed(&answers, self.host(host, tables, &answers)).await;
    }

    async fn remarks(&self) -> Vec<String> {
        let remarks = self.remarks.lock().unwrap_or_else(PoisonError::into_inner);
        let sentence = |(what, hosts): (&String, &BTreeSet<String>)| {
            let whom = match hosts.len() {
                1 => format!("host {}", few(hosts)),
                count => format!("{count} hosts ({})", few(hosts)),
            };
            format!("{} on {whom}: {what}", self.config.plugin)
        };
        let told = remarks.iter().take(REMARKS).map(sentence);
        let more = remarks.len().saturating_sub(REMARKS);
        let tail =
            (more > 0).then(|| format!("{}: the like on more hosts, in {more} ways", self.config.plugin));
        told.chain(tail).collect()
    }

    async fn stop(&self) {
        self.leash.pull().await;
    }
}
