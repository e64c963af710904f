//! What simulated hosts say, kept in memory: the input of every bench.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use diffy::analyze::Method;
use diffy::catalog::{Catalog, TableSpec};
use diffy::collect::{Answer, Collector};
use diffy::decode::{Limits, text_rows};
use diffy::identity::OwnNames;
use diffy::ingest::{Receiver, prepare};
use diffy::model::{SnapshotId, Status, now};
use diffy::simulate::{Base, Simulation, SimulationConfig};
use diffy::store::{SpoolBegin, SpoolReader, SpoolWriter, Store};

/// The seed of every fleet here.
const SEED: u64 = 1;

/// The built-in tables.
pub(crate) static CATALOG: LazyLock<Catalog> = LazyLock::new(|| Catalog::builtin().unwrap());

/// Twenty hosts, 29,500 rows and 7.5 MB of JSON: a sample takes milliseconds.
pub(crate) static SMALL: LazyLock<Fleet> = LazyLock::new(|| Fleet::new(20));

/// Two hundred, where planning a query is no longer most of its time.
pub(crate) static MEDIUM: LazyLock<Fleet> = LazyLock::new(|| Fleet::new(200));

/// One host's answer for one table.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) host: String,
    pub(crate) table: String,
    pub(crate) json: Vec<u8>,
}

impl Said {
    /// As a collector hands it on.
    pub(crate) fn answer(&self) -> Answer {
        Answer {
            table: self.table.clone(),
            status: Status::Ok,
            json: self.json.clone(),
            error: String::new(),
            started: now(),
            ended: now(),
            osquery_version: None,
            uid: None,
        }
    }

    /// As osqueryd logs it.
    pub(crate) fn log_line(&self) -> String {
        let (host, table) = (&self.host, &self.table);
        // A log has one line for each result.
        let rows = String::from_utf8(self.json.clone()).unwrap().replace('\n', " ");
        format!(
            r#"{{"snapshot":{rows},"action":"snapshot","name":"pack_triage_{table}","hostIdentifier":"{host}","calendarTime":"Sun Nov 22 00:00:00 2026 UTC","unixTime":1795305600,"epoch":0,"counter":0,"numerics":false}}"#
        )
    }
}

/// The answers of a fleet.
#[derive(Debug)]
pub(crate) struct Fleet {
    said: Vec<Said>,
}

impl Fleet {
    /// So many simulated hosts, one in a hundred of them compromised.
    pub(crate) fn new(hosts: usize) -> Self {
        let config = SimulationConfig::new(hosts, hosts.div_ceil(100), SEED);
        let simulation = Arc::new(Simulation::new(config, Base::bundled()).unwrap());
        let tables: Vec<TableSpec> = CATALOG.tables().cloned().collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let hosts = simulation.hosts();
        let collector = simulation.collector();
        let mut said = Vec::new();
        for host in hosts {
            let (send, mut answers) = tokio::sync::mpsc::channel(tables.len());
            runtime.block_on(collector.collect(&host, &tables, send));
            while let Ok(answer) = answers.try_recv() {
                // A host that is down or denies says nothing.
                if answer.status.answered() && !answer.json.is_empty() {
                    said.push(Said { host: host.clone(), table: answer.table, json: answer.json });
                }
            }
        }
        Self { said }
    }

    /// What was said of a table, or of all of them.
    pub(crate) fn said(&self, table: &str) -> Vec<&Said> {
        self.said.iter().filter(|said| table == "all" || said.table == table).collect()
    }

    /// What each host calls itself.
    pub(crate) fn own_names(&self) -> HashMap<String, OwnNames> {
        let mut claims: HashMap<String, Vec<String>> = HashMap::new();
        for said in &self.said {
            let of_host = claims.entry(said.host.clone()).or_insert_with(|| vec![said.host.clone()]);
            for source in OwnNames::SOURCES.iter().filter(|source| source.table == said.table) {
                for row in text_rows(&said.json) {
                    of_host.extend(source.columns.iter().filter_map(|column| row.get(*column).cloned()));
                }
            }
        }
        let own =
            |(host, claims): (String, Vec<String>)| (host, OwnNames::new(claims.iter().map(String::as_str)));
        claims.into_iter().map(own).collect()
    }

    /// A collection of that table, or of all of them, ready to be made a snapshot.
    pub(crate) fn spooled(&self, table: &str) -> Arc<Spooled> {
        let said: Vec<Said> = self.said(table).into_iter().cloned().collect();
        let rows = said.iter().map(|said| text_rows(&said.json).len() as u64).sum();
        Arc::new(Spooled { said, rows })
    }
}

/// Answers that go to spools.
#[derive(Debug)]
pub(crate) struct Spooled {
    said: Vec<Said>,
    /// Rows in them.
    pub(crate) rows: u64,
}

impl Spooled {
    /// A spool of a store, as a collection leaves it.
    pub(crate) fn spool(&self, store: &Store, snapshot: SnapshotId) -> SpoolReader {
        let begin = SpoolBegin {
            snapshot,
            fleet: "micro".parse().unwrap(),
            incident: None,
            started: now(),
            collected_by: "bench".to_owned(),
            collector: "simulated".to_owned(),
            targets: Vec::new(),
            queries: BTreeMap::new(),
        };
        let path = store.spool_path(snapshot);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut receiver = Receiver::new(&CATALOG, SpoolWriter::create(path, &begin).unwrap());
        for said in &self.said {
            let prepared = prepare(&CATALOG, &Limits::default(), &said.host, said.answer()).unwrap();
            receiver.answer(&prepared).unwrap();
        }
        receiver.into_reader().unwrap()
    }
}

/// The methods of an analysis of one snapshot without a past.
pub(crate) fn methods() -> Vec<Method> {
    Method::ALL.into_iter().filter(|method| *method != Method::History).collect()
}
