//! What kinds of fleets there are: a cell of the table is a kind, and has several seeds.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// From this seed on seeds are for reporting; smaller ones are for choosing parameters.
pub(crate) const FIRST_REPORTING_SEED: u64 = 1_001;

/// What the hosts of a fleet do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Profile {
    /// All the same.
    OneRole,
    /// One of nine things each.
    NineRoles,
}

/// What was done to a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Attacks {
    /// One scenario on each of six hosts of a hundred.
    One,
    /// Several scenarios on each of six hosts of a hundred.
    Several,
    /// The same scenario with the same rows on 40 of a hundred hosts.
    Campaign,
    /// The same on 5 of a hundred.
    SmallCampaign,
    /// Nothing.
    None,
}

/// One kind of fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    /// What its hosts do.
    pub(crate) profile: Profile,
    /// How many there are.
    pub(crate) hosts: usize,
    /// What was done to it.
    pub(crate) attacks: Attacks,
    /// How honest hosts differ, as the simulator spells it: `all`, `none`, or names with commas between them.
    pub(crate) noise: String,
}

impl Cell {
    /// How many hosts are compromised, at least two of those that are attacked one by one.
    pub(crate) fn compromised(&self) -> usize {
        let share = |percent: usize| (self.hosts * percent).div_ceil(100);
        match self.attacks {
            Attacks::None => 0,
            Attacks::One | Attacks::Several => share(6).max(2),
            Attacks::Campaign => share(40),
            Attacks::SmallCampaign => share(5).max(3),
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |value: Option<clap::builder::PossibleValue>| {
            value.map(|value| value.get_name().to_owned()).unwrap_or_default()
        };
        let (profile, attacks) =
            (name(self.profile.to_possible_value()), name(self.attacks.to_possible_value()));
        write!(f, "{profile} {} hosts, attacks {attacks}", self.hosts)?;
        if self.noise == "all" { Ok(()) } else { write!(f, ", noise {}", self.noise) }
    }
}

/// The seeds of a cell when nobody says: six, of large fleets fewer.
pub(crate) fn reporting_seeds(hosts: usize) -> std::ops::Range<u64> {
    let count = match hosts {
        0..=100 => 6,
        101..=999 => 3,
        _ => 1,
    };
    FIRST_REPORTING_SEED..FIRST_REPORTING_SEED + count
}
