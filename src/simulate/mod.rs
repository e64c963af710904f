//! Simulated hosts as one more collector: a fleet with honest noise and planted compromises, made on demand.
//!
//! A host is a function of the seed, its number and the day. Nothing of it is kept: the rows that all hosts of a role
//! share are parsed once, what is a host's own is drawn anew for each answer and written straight to JSON. Nothing here
//! may know how compromised hosts are found, and what finds them may not know this room.

mod attack;
mod base;
mod bundled;
mod collector;
mod config;
mod coverage;
mod deal;
mod facts;
mod honest;
mod life;
mod patches;
mod plan;
mod role;
mod row;
mod sanitise;
mod seed;
mod shape;
mod truth;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub use self::base::Base;
pub use self::collector::SimulatedCollector;
pub use self::config::{Attacks, Noise, Profile, SimulationConfig};
use self::coverage::Answering;
use self::facts::{Common, Facts, HARDWARE};
use self::life::Life;
use self::patches::Patches;
use self::plan::{Edit, Plan};
use self::role::Role;
use self::row::Pen;
pub use self::truth::{HostFacts, Oddity, Planted, Trace, TraceKind, Truth};
use crate::error::{Error, Result};
use crate::model::Status;

/// One kind of compromise that can be planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScenarioInfo {
    /// Id: `cron-line`.
    pub id: &'static str,
    /// What was done, in one sentence.
    pub title: &'static str,
    /// The ATT&CK technique: `T1053.003`.
    pub attack: &'static str,
    /// Whether it hides among things that every host has: the same path with other content, a common name elsewhere.
    pub subtle: bool,
}

/// Every kind of compromise that [`Attacks::Only`] can name.
pub fn scenarios() -> impl Iterator<Item = ScenarioInfo> {
    attack::all().map(|scenario| ScenarioInfo {
        id: scenario.id,
        title: scenario.title,
        attack: scenario.attack,
        subtle: scenario.subtle,
    })
}

/// A simulated fleet.
#[derive(Debug)]
pub struct Simulation {
    config: SimulationConfig,
    kinds: Vec<Kind>,
    lives: BTreeMap<usize, Life>,
    numbers: HashMap<String, usize>,
    exceptions: BTreeMap<usize, Answering>,
    /// Positions in the list of scenarios, by number of the compromised host.
    dealt: BTreeMap<usize, Vec<usize>>,
    release: u64,
    truth: Truth,
}

/// The hosts of one role.
#[derive(Debug)]
struct Kind {
    role: &'static Role,
    base: Base,
    patches: Patches,
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
    kind: &'a Kind,
    name: &'a str,
    answering: Answering,
    facts: Facts,
    edits: Vec<Edit>,
}

/// Most hosts of a fleet: each has a private address of its own.
const MOST_HOSTS: usize = 50_000;

/// Most days back.
const MOST_DAYS: u32 = 365;

impl Simulation {
    /// Names the hosts, and decides which of them answer and which are compromised in what way.
    ///
    /// # Errors
    /// The number of hosts, of compromised hosts or of days is out of bounds, or there is no such scenario.
    pub fn new(config: SimulationConfig, base: Base) -> Result<Self> {
        check(&config)?;
        let kinds = role::of(config.profile)
            .map(|role| {
                let base = role.base(&base, config.profile != Profile::OneRole);
                let patches = Patches::new(&base, config.seed, config.day);
                Kind { role, base, patches }
            })
            .collect();
        let lives: BTreeMap<usize, Life> = (0..config.hosts)
            .filter_map(|number| Some((number, life::at(config.seed, number, config.day, config.noise)?)))
            .collect();
        let mut simulation = Self {
            config,
            kinds,
            numbers: lives.iter().map(|(number, life)| (life.name.clone(), *number)).collect(),
            lives,
            exceptions: exceptions(&config),
            dealt: BTreeMap::new(),
            release: patches::releases(config.seed, config.day, config.noise),
            truth: Truth::default(),
        };
        if config.day == 0 {
            simulation.dealt = simulation.deal()?;
        }
        simulation.truth = simulation.look();
        Ok(simulation)
    }

    /// How many hosts of such a fleet can be compromised: those that answer in full and are not of their own kind.
    pub fn most_compromised(config: &SimulationConfig) -> usize {
        deal::candidates(config, &exceptions(config)).count()
    }

    /// The hosts' names, which look like instance ids.
    pub fn hosts(&self) -> Vec<String> {
        self.lives.values().map(|life| life.name.clone()).collect()
    }

    /// What was planted where, and what is honestly odd.
    pub fn truth(&self) -> &Truth {
        &self.truth
    }

    /// The collector that asks these hosts.
    pub fn collector(self: Arc<Self>) -> SimulatedCollector {
        SimulatedCollector::new(self)
    }

    fn kind(&self, number: usize) -> &Kind {
        &self.kinds[role::index(self.config.profile, number)]
    }

    fn facts(&self, number: usize) -> Option<Facts> {
        let base = &self.kind(number).base;
        let common = Common {
            seed: self.config.seed,
            day: self.config.day,
            kernels: base.kernels(),
            pids: base.pids(),
            noise: self.config.noise,
            release: self.release,
        };
        let old_agent = self.answering(number) == Answering::OldAgent;
        Some(Facts::new(&common, number, self.lives.get(&number)?, old_agent))
    }

    fn answering(&self, number: usize) -> Answering {
        self.exceptions.get(&number).copied().unwrap_or(Answering::Fully)
    }

    /// The host of that name; none when the fleet has no such host.
    fn host<'a>(&'a self, name: &'a str) -> Option<SimulatedHost<'a>> {
        let number = *self.numbers.get(name)?;
        let (kind, facts) = (self.kind(number), self.facts(number)?);
        let mut edits: Vec<Edit> = kind.patches.of(&facts).cloned().collect();
        edits.extend(honest::edits(&kind.base, &facts, (self.config.seed, self.config.day)));
        for scenario in self.dealt.get(&number).into_iter().flatten() {
            edits.extend(self.plant(&kind.base, &facts, *scenario).0);
        }
        Some(SimulatedHost { simulation: self, kind, name, answering: self.answering(number), facts, edits })
    }

    fn plant(&self, base: &Base, facts: &Facts, position: usize) -> (Vec<Edit>, Vec<Trace>) {
        let Some(scenario) = attack::nth(position) else { return (Vec::new(), Vec::new()) };
        // A campaign leaves the same on every host.
        let whose = if scenario.id == attack::CAMPAIGN.id { "all" } else { facts.name.as_str() };
        let rng = seed::stream(self.config.seed, &["plant", whose, scenario.id]);
        let lane = honest::LANES + i64::try_from(position).unwrap_or_default();
        let mut plan = Plan::new(base, facts, rng, lane);
        (scenario.plant)(&mut plan);
        plan.finish()
    }

    fn look(&self) -> Truth {
        let mut truth = Truth::default();
        for (number, life) in &self.lives {
            let (kind, host) = (self.kind(*number), &life.name);
            let Some(facts) = self.facts(*number) else { continue };
            let traces = honest::oddities(&kind.base, &facts, self.config.seed).2;
            let odd = |(kind, trace)| Oddity { host: host.clone(), kind, trace };
            truth.oddities.extend(traces.into_iter().map(odd));
            for position in self.dealt.get(number).into_iter().flatten() {
                let Some(scenario) = attack::nth(*position) else { continue };
                truth.planted.push(Planted {
                    host: host.clone(),
                    scenario: scenario.id,
                    title: scenario.title,
                    attack: scenario.attack,
                    traces: self.plant(&kind.base, &facts, *position).1,
                });
            }
            truth.hosts.push(host_facts(kind, &facts));
        }
        truth
    }
}

fn host_facts(kind: &Kind, facts: &Facts) -> HostFacts {
    HostFacts {
        host: facts.name.clone(),
        role: kind.role.name,
        own_kind: kind.role.own_kind,
        canary: facts.canary,
        colour: facts.colour(),
        kernel: facts.named("kernel").to_owned(),
        hardware: HARDWARE[facts.hardware],
        fresh: facts.fresh,
    }
}

fn exceptions(config: &SimulationConfig) -> BTreeMap<usize, Answering> {
    if config.noise.gaps {
        coverage::exceptions(config.hosts.min(MOST_HOSTS), config.seed)
    } else {
        BTreeMap::new()
    }
}

fn check(config: &SimulationConfig) -> Result<()> {
    if config.hosts == 0 || config.hosts > MOST_HOSTS {
        return Err(Error::usage(format!("cannot simulate `{}` hosts", config.hosts))
            .hint(format!("a simulated fleet has 1 to {MOST_HOSTS} hosts")));
    }
    if config.day > MOST_DAYS {
        return Err(Error::usage(format!("cannot simulate a fleet of `{}` days ago", config.day))
            .hint(format!("at most {MOST_DAYS} days")));
    }
    let most = Simulation::most_compromised(config);
    if config.compromised > most {
        return Err(Error::usage(format!("cannot compromise `{}` hosts", config.compromised))
            .hint(format!("{most} of the {} hosts answer in full and have peers", config.hosts)));
    }
    Ok(())
}

impl SimulatedHost<'_> {
    /// The version of its agent; none when it does not answer at all.
    fn agent(&self) -> Option<&str> {
        (self.answering != Answering::Never).then(|| self.facts.named("agent"))
    }

    /// What it says when asked for a table.
    fn answer(&self, table: &str) -> Said {
        let silent = |status, error: &str| Said { status, json: Vec::new(), error: error.to_owned() };
        let seed = self.simulation.config.seed;
        if self.answering == Answering::Never {
            let failure = coverage::failure(self.answering, seed, self.name, table);
            return silent(Status::Undeliverable, failure.map_or("", |(_, error)| error));
        }
        let Some(rows) = self.kind.base.rows(table) else {
            return silent(Status::NotSupported, "no such table");
        };
        if let Some((status, error)) = coverage::failure(self.answering, seed, self.name, table) {
            return silent(status, error);
        }
        let mut pen = Pen::new(&self.facts, (seed, self.simulation.config.day), table);
        plan::write((table, rows), &self.edits, &mut pen, !self.facts.old_agent);
        let status = if pen.rows() == 0 { Status::Empty } else { Status::Ok };
        Said { status, json: pen.finish(), error: String::new() }
    }
}

#[cfg(test)]
mod fleets;
#[cfg(test)]
mod tests;
