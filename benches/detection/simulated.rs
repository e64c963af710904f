//! Fleets of the project's simulator, and their truth in the words of this program.

use std::collections::BTreeMap;

use diffy::error::Result;
use diffy::simulate::{self, Base, HostFacts, Simulation, SimulationConfig, TraceKind, scenarios};

use crate::cell::{Attacks, Cell, Profile};
use crate::truth::{Cells, Oddity, Planted, Trace, Truth};

/// The fleet of a cell and a seed, so many days back; only today something was done to it.
///
/// # Errors
/// The simulator cannot make it.
pub(crate) fn simulate(cell: &Cell, seed: u64, day: u32) -> Result<Simulation> {
    let config = SimulationConfig {
        hosts: cell.hosts,
        compromised: 0,
        seed,
        profile: match cell.profile {
            Profile::OneRole => simulate::Profile::OneRole,
            Profile::NineRoles => simulate::Profile::NineRoles,
        },
        noise: cell.noise.parse()?,
        attacks: match cell.attacks {
            Attacks::One | Attacks::None => simulate::Attacks::One,
            Attacks::Several => simulate::Attacks::Several,
            Attacks::Campaign => simulate::Attacks::Campaign { share_percent: 40 },
            Attacks::SmallCampaign => simulate::Attacks::Campaign { share_percent: 5 },
        },
        day,
    };
    let compromised = cell.compromised().min(Simulation::most_compromised(&config));
    Simulation::new(SimulationConfig { compromised, ..config }, Base::bundled())
}

/// What was planted in it, what is honestly odd, and what its hosts are.
pub(crate) fn truth(simulation: &Simulation) -> Truth {
    let found = simulation.truth();
    let mut truth = Truth::default();
    for one in &found.planted {
        truth.compromised.entry(one.host.clone()).or_default().push(planted(one));
    }
    for one in &found.oddities {
        let oddity = Oddity {
            kind: one.kind.to_owned(),
            table: one.trace.table.to_owned(),
            row: one.trace.values.clone(),
        };
        truth.oddities.entry(one.host.clone()).or_default().push(oddity);
    }
    truth.facts = found.hosts.iter().map(|facts| (facts.host.clone(), cells(facts))).collect();
    truth
}

fn planted(planted: &simulate::Planted) -> Planted {
    let traces = planted.traces.iter().map(|trace| Trace {
        table: trace.table.to_owned(),
        missing: trace.kind == TraceKind::Missing,
        row: trace.values.clone(),
    });
    Planted {
        scenario: planted.scenario.to_owned(),
        title: planted.title.to_owned(),
        subtle: scenarios().any(|scenario| scenario.id == planted.scenario && scenario.subtle),
        traces: traces.collect(),
    }
}

fn cells(facts: &HostFacts) -> Cells {
    BTreeMap::from([
        ("role".to_owned(), facts.role.to_owned()),
        ("own_kind".to_owned(), facts.own_kind.to_string()),
        ("canary".to_owned(), facts.canary.to_string()),
        ("color".to_owned(), facts.colour.to_owned()),
        ("kernel".to_owned(), facts.kernel.clone()),
        ("hardware".to_owned(), facts.hardware.to_owned()),
        ("new".to_owned(), facts.fresh.to_string()),
    ])
}
