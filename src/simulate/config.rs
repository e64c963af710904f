//! What to simulate: how many hosts of which roles, with which noise and which attacks, on which day.

use std::str::FromStr;

use crate::error::{Error, Result};

/// What to simulate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SimulationConfig {
    /// Hosts of the fleet on day 0, 1 to 50,000.
    pub hosts: usize,
    /// How many of them are compromised, unless [`Attacks::Campaign`] says it as a share. Hosts that do not answer in
    /// full, and hosts of their own kind (a bastion), are never among them.
    pub compromised: usize,
    /// The same seed makes the same fleet, to the byte.
    pub seed: u64,
    /// Which roles the hosts have.
    pub profile: Profile,
    /// How they honestly differ.
    pub noise: Noise,
    /// What intruders did.
    pub attacks: Attacks,
    /// Days before today, 0 to 365. On an earlier day nobody is compromised yet, and what was started or deployed since
    /// is not there.
    pub day: u32,
}

impl SimulationConfig {
    /// The fleet of the demo: one role, the noise of a fleet that nobody is changing, several scenarios on each
    /// compromised host, today.
    pub fn new(hosts: usize, compromised: usize, seed: u64) -> Self {
        Self {
            hosts,
            compromised,
            seed,
            profile: Profile::OneRole,
            noise: Noise::SETTLED,
            attacks: Attacks::Several,
            day: 0,
        }
    }
}

/// Which roles the hosts of a fleet have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// All are web servers, as in an Auto Scaling group.
    OneRole,
    /// Nine roles of 4 to 28 % of the hosts each, and four hosts of their own kind: a bastion, a monitoring host and two
    /// load balancers.
    NineRoles,
}

impl FromStr for Profile {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "one-role" => Ok(Self::OneRole),
            "nine-roles" => Ok(Self::NineRoles),
            other => {
                Err(Error::usage(format!("no such profile: `{other}`")).hint("`one-role` or `nine-roles`"))
            }
        }
    }
}

/// What intruders did to the compromised hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attacks {
    /// Four to seven scenarios on each host.
    Several,
    /// One scenario on each host, different ones dealt in turn.
    One,
    /// The same rows in two or more tables on this share of the hosts, 1 to 100, whatever their roles.
    Campaign {
        /// Per cent of the hosts that answer in full.
        share_percent: u8,
    },
    /// The scenario of this id on every compromised host.
    Only(&'static str),
}

/// The kinds of honest difference between hosts, each of which can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noise {
    /// Process ids, times, sizes, counters, ephemeral ports, addresses of clients.
    pub volatile: bool,
    /// Names, addresses, keys and files of which every host has its own.
    pub unique: bool,
    /// A twentieth of the hosts gets new packages first.
    pub canary: bool,
    /// Two releases of the application beside each other, on different ports and paths.
    pub blue_green: bool,
    /// Up to three kernel builds, with modules of other sizes.
    pub kernel_mix: bool,
    /// Instance types with other devices, modules and mounts.
    pub hardware_mix: bool,
    /// Packages are updated in waves, with their files.
    pub patch_lag: bool,
    /// Administrators are logged in, and have been.
    pub sessions: bool,
    /// Processes and files that are there for a moment: package updates, scheduled jobs, health checks.
    pub transient: bool,
    /// Instances that were started within the last hours.
    pub fresh: bool,
    /// One-offs on about one host in seven: a debugging package, a contractor's account, a hotfix.
    pub oddities: bool,
    /// With `oddities`, also those that look most like an intruder's: accounts, rights, edited files.
    pub lookalikes: bool,
    /// Packages and releases are deployed between days.
    pub deploy: bool,
    /// Hosts that do not answer, or not in full; only in fleets of 30 or more.
    pub gaps: bool,
}

/// A switch: its name, and where it is.
type Switch = (&'static str, fn(&mut Noise) -> &mut bool);

const SWITCHES: [Switch; 14] = [
    ("volatile", |noise| &mut noise.volatile),
    ("unique", |noise| &mut noise.unique),
    ("canary", |noise| &mut noise.canary),
    ("blue_green", |noise| &mut noise.blue_green),
    ("kernel_mix", |noise| &mut noise.kernel_mix),
    ("hardware_mix", |noise| &mut noise.hardware_mix),
    ("patch_lag", |noise| &mut noise.patch_lag),
    ("sessions", |noise| &mut noise.sessions),
    ("transient", |noise| &mut noise.transient),
    ("fresh", |noise| &mut noise.fresh),
    ("oddities", |noise| &mut noise.oddities),
    ("lookalikes", |noise| &mut noise.lookalikes),
    ("deploy", |noise| &mut noise.deploy),
    ("gaps", |noise| &mut noise.gaps),
];

impl Noise {
    /// Every kind: what an honest evaluation uses.
    pub const ALL: Self = Self {
        volatile: true,
        unique: true,
        canary: true,
        blue_green: true,
        kernel_mix: true,
        hardware_mix: true,
        patch_lag: true,
        sessions: true,
        transient: true,
        fresh: true,
        oddities: true,
        lookalikes: true,
        deploy: true,
        gaps: true,
    };

    /// None: hosts of one role are alike.
    pub const NONE: Self = Self {
        volatile: false,
        unique: false,
        canary: false,
        blue_green: false,
        kernel_mix: false,
        hardware_mix: false,
        patch_lag: false,
        sessions: false,
        transient: false,
        fresh: false,
        oddities: false,
        lookalikes: false,
        deploy: false,
        gaps: false,
    };

    /// A fleet of one release on one kind of hardware, patched at once: the demo's.
    pub const SETTLED: Self = Self {
        blue_green: false,
        hardware_mix: false,
        patch_lag: false,
        lookalikes: false,
        deploy: false,
        ..Self::ALL
    };

    /// The names of the kinds, in the order of the fields.
    pub fn names() -> impl Iterator<Item = &'static str> {
        SWITCHES.iter().map(|(name, _)| *name)
    }

    /// Every kind but the one of that name.
    ///
    /// # Errors
    /// There is no kind of that name.
    pub fn without(mut self, name: &str) -> Result<Self> {
        *self.switch(name)? = false;
        Ok(self)
    }

    fn switch(&mut self, name: &str) -> Result<&mut bool> {
        match SWITCHES.iter().find(|(known, _)| *known == name) {
            Some((_, switch)) => Ok(switch(self)),
            None => Err(Error::usage(format!("no such noise: `{name}`"))
                .hint(format!("`all`, `none`, or of: {}", Self::names().collect::<Vec<_>>().join(", ")))),
        }
    }
}

impl FromStr for Noise {
    type Err = Error;

    /// `all`, `none`, `settled`, or names with commas between them.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "all" => return Ok(Self::ALL),
            "none" => return Ok(Self::NONE),
            "settled" => return Ok(Self::SETTLED),
            _ => {}
        }
        let mut noise = Self::NONE;
        for name in text.split(',').map(str::trim) {
            *noise.switch(name)? = true;
        }
        Ok(noise)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_read_from_names() {
        let every: Vec<&str> = Noise::names().collect();
        assert_eq!(every.join(",").parse::<Noise>().unwrap(), Noise::ALL);
        assert_eq!("none".parse::<Noise>().unwrap(), Noise::NONE);
        let two: Noise = "canary, fresh".parse().unwrap();
        assert_eq!(two, Noise { canary: true, fresh: true, ..Noise::NONE });
        assert_eq!(Noise::ALL.without("gaps").unwrap(), Noise { gaps: false, ..Noise::ALL });
        assert!("loud".parse::<Noise>().unwrap_err().to_string().contains("`loud`"));
    }

    #[test]
    fn profiles_are_read_from_names() {
        assert_eq!("nine-roles".parse::<Profile>().unwrap(), Profile::NineRoles);
        assert!("ten-roles".parse::<Profile>().is_err());
    }
}
