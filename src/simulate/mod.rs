//! Simulated hosts as one more collector: a fleet with honest noise and planted compromises, made on demand.
//!
//! A host is a function of the seed and its number. Nothing of it is kept: the rows that all hosts share are parsed
//! once, what is a host's own is drawn anew for each answer and written straight to JSON. Nothing here may know how
//! compromised hosts are found, and what finds them may not know this room.

mod attack;
mod base;
mod bundled;
mod collector;
mod coverage;
mod facts;
mod honest;
mod plan;
mod row;
mod sanitise;
mod seed;
mod shape;
mod truth;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rand::seq::SliceRandom;

pub use self::base::Base;
pub use self::collector::SimulatedCollector;
use self::coverage::Answering;
use self::facts::{Common, Facts};
use self::plan::{Edit, Plan};
use self::row::Pen;
pub use self::truth::{Planted, Trace, TraceKind, Truth};
use crate::error::{Error, Result};
use crate::model::Status;

/// What to simulate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SimulationConfig {
    /// Hosts of the fleet, 1 to 50,000.
    pub hosts: usize,
    /// How many of them are compromised; hosts that do not answer in full are never among them.
    pub compromised: usize,
    /// The same seed makes the same fleet, to the byte.
    pub seed: u64,
}

/// A simulated fleet.
#[derive(Debug)]
pub struct Simulation {
    config: SimulationConfig,
    base: Base,
    names: Vec<String>,
    numbers: HashMap<String, usize>,
    exceptions: BTreeMap<usize, Answering>,
    /// Positions in the list of scenarios, by number of the compromised host.
    dealt: BTreeMap<usize, Vec<usize>>,
    canary: Vec<Edit>,
    truth: Truth,
}

/// What one host says to one question.
#[derive(Debug)]
struct Said {
    status: Status,
    json: Vec<u8>,
    error: String,
}

/// One host, made for as long as it is asked.
#[derive(Debug)]
struct SimulatedHost<'a> {
    simulation: &'a Simulation,
    name: &'a str,
    answering: Answering,
    facts: Facts,
    edits: Vec<Edit>,
}

/// Most hosts of a fleet: each has a private address of its own.
const MOST_HOSTS: usize = 50_000;

impl Simulation {
    /// Names the hosts, and decides which of them answer and which are compromised in what way.
    ///
    /// # Errors
    /// The number of hosts or of compromised hosts is out of bounds.
    pub fn new(config: SimulationConfig, base: Base) -> Result<Self> {
        if config.hosts == 0 || config.hosts > MOST_HOSTS {
            return Err(Error::usage(format!("cannot simulate `{}` hosts", config.hosts))
                .hint(format!("a simulated fleet has 1 to {MOST_HOSTS} hosts")));
        }
        let exceptions = coverage::exceptions(config.hosts, config.seed);
        let answering = config.hosts - exceptions.len();
        if config.compromised > answering {
            return Err(Error::usage(format!("cannot compromise `{}` hosts", config.compromised))
                .hint(format!("{answering} of the {} hosts answer in full", config.hosts)));
        }
        let names: Vec<String> = (0..config.hosts).map(|number| name(config.seed, number)).collect();
        let numbers = names.iter().enumerate().map(|(number, name)| (name.clone(), number)).collect();
        let canary = honest::canary(&base, config.seed);
        let dealt = deal(config, &exceptions);
        let mut simulation =
            Self { config, base, names, numbers, exceptions, dealt, canary, truth: Truth::default() };
        simulation.truth = Truth { planted: simulation.planted() };
        Ok(simulation)
    }

    /// How many of so many hosts can be compromised: those that answer in full.
    pub fn most_compromised(hosts: usize, seed: u64) -> usize {
        hosts.saturating_sub(coverage::exceptions(hosts.min(MOST_HOSTS), seed).len())
    }

    /// The hosts' names, which look like instance ids.
    pub fn hosts(&self) -> Vec<String> {
        self.names.clone()
    }

    /// What was planted where.
    pub fn truth(&self) -> &Truth {
        &self.truth
    }

    /// The collector that asks these hosts.
    pub fn collector(self: Arc<Self>) -> SimulatedCollector {
        SimulatedCollector::new(self)
    }

    fn facts(&self, number: usize) -> Facts {
        let common = Common { seed: self.config.seed, kernels: self.base.kernels(), pids: self.base.pids() };
        let old_agent = self.answering(number) == Answering::OldAgent;
        Facts::new(&common, number, &self.names[number], old_agent)
    }

    fn answering(&self, number: usize) -> Answering {
        self.exceptions.get(&number).copied().unwrap_or(Answering::Fully)
    }

    /// The host of that name; none when the fleet has no such host.
    fn host<'a>(&'a self, name: &'a str) -> Option<SimulatedHost<'a>> {
        let number = *self.numbers.get(name)?;
        let facts = self.facts(number);
        let mut edits = if facts.canary { self.canary.clone() } else { Vec::new() };
        let mut plan = Plan::new(&self.base, &facts, seed::stream(self.config.seed, &["oddities", name]), 0);
        honest::oddities(&mut plan);
        edits.extend(plan.finish().0);
        for scenario in self.dealt.get(&number).into_iter().flatten() {
            edits.extend(self.plant(name, &facts, *scenario).0);
        }
        Some(SimulatedHost { simulation: self, name, answering: self.answering(number), facts, edits })
    }

    fn plant(&self, name: &str, facts: &Facts, position: usize) -> (Vec<Edit>, Vec<Trace>) {
        let Some(scenario) = attack::all().nth(position) else { return (Vec::new(), Vec::new()) };
        let rng = seed::stream(self.config.seed, &["plant", name, scenario.id]);
        let lane = 1 + i64::try_from(position).unwrap_or_default();
        let mut plan = Plan::new(&self.base, facts, rng, lane);
        (scenario.plant)(&mut plan);
        plan.finish()
    }

    fn planted(&self) -> Vec<Planted> {
        let mut planted = Vec::new();
        for (number, scenarios) in &self.dealt {
            let (host, facts) = (&self.names[*number], self.facts(*number));
            for position in scenarios {
                let Some(scenario) = attack::all().nth(*position) else { continue };
                planted.push(Planted {
                    host: host.clone(),
                    scenario: scenario.id,
                    title: scenario.title,
                    attack: scenario.attack,
                    traces: self.plant(host, &facts, *position).1,
                });
            }
        }
        planted
    }
}

impl SimulatedHost<'_> {
    /// The version of its agent; none when it does not answer at all.
    fn agent(&self) -> Option<&str> {
        (self.answering != Answering::Never).then(|| self.facts.named("agent"))
    }

    /// What it says when asked for a table.
    fn answer(&self, table: &str) -> Said {
        let silent = |status, error: &str| Said { status, json: Vec::new(), error: error.to_owned() };
        let simulation = self.simulation;
        let seed = simulation.config.seed;
        if self.answering == Answering::Never {
            let failure = coverage::failure(self.answering, seed, self.name, table);
            return silent(Status::Undeliverable, failure.map_or("", |(_, error)| error));
        }
        let Some(rows) = simulation.base.rows(table) else {
            return silent(Status::NotSupported, "no such table");
        };
        if let Some((status, error)) = coverage::failure(self.answering, seed, self.name, table) {
            return silent(status, error);
        }
        let mut pen = Pen::new(&self.facts, seed::stream(seed, &["rows", self.name, table]));
        plan::write((table, rows), &self.edits, &mut pen, !self.facts.old_agent);
        let status = if pen.rows() == 0 { Status::Empty } else { Status::Ok };
        Said { status, json: pen.finish(), error: String::new() }
    }
}

/// An instance id.
fn name(seed: u64, number: usize) -> String {
    format!("i-0{}", seed::hex(&mut seed::stream(seed, &["name", &number.to_string()]), 16))
}

fn deal(config: SimulationConfig, exceptions: &BTreeMap<usize, Answering>) -> BTreeMap<usize, Vec<usize>> {
    let mut numbers: Vec<usize> =
        (0..config.hosts).filter(|number| !exceptions.contains_key(number)).collect();
    numbers.shuffle(&mut seed::stream(config.seed, &["compromised"]));
    numbers.into_iter().zip(attack::deal(config.compromised, config.seed)).collect()
}

#[cfg(test)]
mod tests;
