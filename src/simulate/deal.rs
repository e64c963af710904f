//! Which hosts are compromised, and in what way.

use std::collections::BTreeMap;

use rand::seq::SliceRandom;

use super::config::{Attacks, SimulationConfig};
use super::coverage::Answering;
use super::{Simulation, attack, role, seed};
use crate::error::{Error, Result};

/// The hosts that may be compromised, by number: those that answer in full and have peers.
pub(super) fn candidates<'a>(
    config: &SimulationConfig,
    exceptions: &'a BTreeMap<usize, Answering>,
) -> impl Iterator<Item = usize> + use<'a> {
    let (hosts, profile) = (config.hosts, config.profile);
    (0..hosts).filter(move |number| !exceptions.contains_key(number) && !role::at(profile, *number).own_kind)
}

impl Simulation {
    /// Positions in the list of scenarios, by number of the compromised host.
    pub(super) fn deal(&self) -> Result<BTreeMap<usize, Vec<usize>>> {
        let mut numbers: Vec<usize> = candidates(&self.config, &self.exceptions).collect();
        numbers.shuffle(&mut seed::stream(self.config.seed, &["compromised"]));
        let count = self.config.compromised;
        match self.config.attacks {
            Attacks::Several => Ok(self.deal_several(&numbers[..count])),
            Attacks::One => Ok(self.deal_one(&numbers[..count])),
            Attacks::Campaign { share_percent } => {
                let share = usize::from(share_percent.min(100));
                numbers.truncate((numbers.len() * share).div_ceil(100));
                Ok(numbers.into_iter().map(|number| (number, vec![attack::CAMPAIGN_POSITION])).collect())
            }
            Attacks::Only(id) => self.deal_only(id, &numbers),
        }
    }

    fn deal_several(&self, numbers: &[usize]) -> BTreeMap<usize, Vec<usize>> {
        let hands = attack::deal(numbers.len(), self.config.seed).into_iter();
        let fitting = |(number, hand): (&usize, Vec<usize>)| {
            (*number, hand.into_iter().filter(|position| self.fits(*number, *position)).collect())
        };
        numbers.iter().zip(hands).map(fitting).collect()
    }

    /// From a shuffled deck, the first card that leaves anything on the host; a new deck when all have been dealt.
    fn deal_one(&self, numbers: &[usize]) -> BTreeMap<usize, Vec<usize>> {
        let mut rng = seed::stream(self.config.seed, &["deal"]);
        let (mut deck, mut dealt): (Vec<usize>, _) = (Vec::new(), BTreeMap::new());
        for number in numbers {
            if !deck.iter().any(|card| self.fits(*number, *card)) {
                let mut fresh: Vec<usize> = (0..attack::all().count()).collect();
                fresh.shuffle(&mut rng);
                fresh.append(&mut deck);
                deck = fresh;
            }
            if let Some(card) = deck.iter().rposition(|card| self.fits(*number, *card)) {
                dealt.insert(*number, vec![deck.remove(card)]);
            }
        }
        dealt
    }

    fn deal_only(&self, id: &str, numbers: &[usize]) -> Result<BTreeMap<usize, Vec<usize>>> {
        let Some(position) = attack::all().position(|scenario| scenario.id == id) else {
            let known: Vec<&str> = attack::all().map(|scenario| scenario.id).collect();
            return Err(
                Error::usage(format!("no such scenario: `{id}`")).hint(format!("of: {}", known.join(", ")))
            );
        };
        let fitting = numbers.iter().filter(|number| self.fits(**number, position));
        Ok(fitting.take(self.config.compromised).map(|number| (*number, vec![position])).collect())
    }

    /// Whether the scenario leaves anything on the host: not every role has what every scenario works on.
    fn fits(&self, number: usize, position: usize) -> bool {
        let Some(facts) = self.facts(number) else { return false };
        !self.plant(&self.kind(number).base, &facts, position).1.is_empty()
    }
}
