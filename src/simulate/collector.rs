//! The collector that asks simulated hosts.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc::Sender;

use super::{Said, SimulatedHost, Simulation};
use crate::catalog::TableSpec;
use crate::collect::{Answer, Collector};
use crate::model::{Status, now};

/// Asks the hosts of a [`Simulation`].
#[derive(Debug, Clone)]
pub struct SimulatedCollector {
    simulation: Arc<Simulation>,
}

impl SimulatedCollector {
    pub(super) fn new(simulation: Arc<Simulation>) -> Self {
        Self { simulation }
    }
}

#[async_trait]
impl Collector for SimulatedCollector {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn concurrency(&self) -> usize {
        16
    }

    async fn collect(&self, host: &str, tables: &[TableSpec], answers: Sender<Answer>) {
        let simulated = self.simulation.host(host);
        for table in tables {
            let answer = ask(simulated.as_ref(), &table.name);
            if answers.send(answer).await.is_err() {
                return;
            }
        }
    }
}

fn ask(host: Option<&SimulatedHost<'_>>, table: &str) -> Answer {
    let started = now();
    let said = match host {
        Some(host) => host.answer(table),
        None => Said {
            status: Status::Undeliverable,
            json: Vec::new(),
            error: "the simulated fleet has no such host".to_owned(),
        },
    };
    let agent = host.and_then(SimulatedHost::agent);
    Answer {
        table: table.to_owned(),
        status: said.status,
        json: said.json,
        error: said.error,
        started,
        ended: now(),
        osquery_version: agent.map(str::to_owned),
        uid: agent.map(|_| 0),
    }
}
