//! Fleets of the project's simulator, and their truth in the words of this program.

use diffy::error::Result;
use diffy::simulate::{Base, Planted, Simulation, SimulationConfig, TraceKind};

use crate::cell::Cell;
use crate::truth::{self, Trace, Truth};

/// The fleet of a cell and a seed; the same one the day before anything was done to it, when `clean`.
///
/// # Errors
/// The simulator cannot make it.
pub(crate) fn simulate(cell: Cell, seed: u64, clean: bool) -> Result<Simulation> {
    let compromised = if clean { 0 } else { cell.compromised() };
    let compromised = compromised.min(Simulation::most_compromised(cell.hosts, seed));
    Simulation::new(SimulationConfig { hosts: cell.hosts, compromised, seed }, Base::bundled())
}

/// What was planted in it.
pub(crate) fn truth(simulation: &Simulation) -> Truth {
    let mut truth = Truth::default();
    for planted in &simulation.truth().planted {
        truth.compromised.entry(planted.host.clone()).or_default().push(scenario(planted));
    }
    truth
}

fn scenario(planted: &Planted) -> truth::Planted {
    let traces = planted.traces.iter().map(|trace| Trace {
        table: trace.table.to_owned(),
        missing: trace.kind == TraceKind::Missing,
        row: trace.values.clone(),
    });
    truth::Planted {
        scenario: planted.scenario.to_owned(),
        title: planted.title.to_owned(),
        subtle: false,
        traces: traces.collect(),
    }
}
