//! Roles: what the hosts of a fleet are for, and the rows that come with it.

mod list;
mod remake;

use self::list::ROLES;
use super::base::Base;
use super::config::Profile;

/// A role.
#[derive(Debug)]
pub(super) struct Role {
    /// `web`.
    pub(super) name: &'static str,
    /// Whether only one or two hosts have it.
    pub(super) own_kind: bool,
    /// Per cent of the hosts that have it.
    share: usize,
    services: &'static [Service],
    /// Minute, hour, user with command, and file.
    crons: &'static [(&'static str, &'static str, &'static str, &'static str)],
    /// Device, path and type.
    mounts: &'static [(&'static str, &'static str, &'static str)],
    /// Name and size.
    modules: &'static [(&'static str, &'static str)],
    /// Images of the containers that run.
    containers: &'static [&'static str],
}

/// A service: a process with its unit, packages, ports and connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct Service {
    /// The name of the process.
    pub(super) name: &'static str,
    pub(super) path: &'static str,
    pub(super) cmdline: &'static str,
    /// Command lines of its children, which run the same program.
    workers: &'static [&'static str],
    /// Name and id.
    pub(super) user: (&'static str, &'static str),
    pub(super) unit: &'static str,
    pub(super) description: &'static str,
    /// Name and version.
    packages: &'static [(&'static str, &'static str)],
    /// Address and port.
    pub(super) listens: &'static [(&'static str, &'static str)],
    /// Connections that others have to it: its port, and their address.
    clients: &'static [(&'static str, &'static str)],
    /// Connections that it has to others: their address and port.
    peers: &'static [(&'static str, &'static str)],
    /// Its configuration file; empty when it has none of its own.
    config: &'static str,
}

/// What services have unless they say otherwise.
const SERVICE: Service = Service {
    name: "",
    path: "",
    cmdline: "",
    workers: &[],
    user: ("root", "0"),
    unit: "",
    description: "",
    packages: &[],
    listens: &[],
    clients: &[],
    peers: &[],
    config: "",
};

/// Hosts of their own kind come first: the positions of their roles in [`ROLES`].
const OWN_KINDS: [usize; 4] = [9, 10, 11, 11];

/// The roles of a profile.
pub(super) fn of(profile: Profile) -> impl Iterator<Item = &'static Role> {
    ROLES.iter().take(match profile {
        Profile::OneRole => 1,
        Profile::NineRoles => ROLES.len(),
    })
}

/// The position in [`of`] of the role of the host of that number.
pub(super) fn index(profile: Profile, number: usize) -> usize {
    if profile == Profile::OneRole {
        return 0;
    }
    let Some(place) = number.checked_sub(OWN_KINDS.len()) else { return OWN_KINDS[number] };
    // Steps of 61.8 % visit all shares evenly, however many hosts there are.
    let mut rest = place * 618 % 1_000;
    for (position, role) in ROLES.iter().enumerate() {
        match rest.checked_sub(role.share * 10) {
            Some(left) => rest = left,
            None => return position,
        }
    }
    0
}

/// The role of the host of that number.
pub(super) fn at(profile: Profile, number: usize) -> &'static Role {
    &ROLES[index(profile, number)]
}

/// The services that a base state does not have, those of the hosts of their own kind too.
pub(super) fn foreign(base: &Base) -> Vec<&'static Service> {
    let services = ROLES.iter().flat_map(|role| role.services);
    services.filter(|service| base.find("processes", "name", service.name).is_none()).collect()
}

impl Role {
    const fn plain(services: &'static [Service]) -> Self {
        Self {
            name: "",
            own_kind: false,
            share: 0,
            services,
            crons: &[],
            mounts: &[],
            modules: &[],
            containers: &[],
        }
    }

    /// The state of hosts of this role, from that of a web server; `mixed` when the fleet has other roles.
    pub(super) fn base(&self, base: &Base, mixed: bool) -> Base {
        base.remade(|tables| remake::tables(self, tables, mixed))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn shares_add_up_and_every_role_has_its_hosts() {
        assert_eq!(ROLES.iter().map(|role| role.share).sum::<usize>(), 100);
        for hosts in [60, 300, 2_000] {
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            (0..hosts)
                .for_each(|number| *counts.entry(at(Profile::NineRoles, number).name).or_default() += 1);
            for role in &ROLES {
                let expected = (hosts - 4) * role.share / 100;
                let own = OWN_KINDS.iter().filter(|kind| ROLES[**kind].name == role.name).count();
                let count = counts[role.name];
                assert!(count.abs_diff(expected + own) <= 2 + hosts / 100, "{hosts} {} {count}", role.name);
            }
        }
    }

    #[test]
    fn a_role_has_its_own_services_and_not_those_of_the_web() {
        let web = Base::bundled();
        for role in ROLES.iter().skip(1) {
            let base = role.base(&web, true);
            for service in role.services {
                assert!(
                    base.find("processes", "path", service.path).is_some(),
                    "{}: {}",
                    role.name,
                    service.path
                );
                assert!(base.find("systemd_units", "id", service.unit).is_some(), "{}", service.unit);
            }
            assert!(base.find("processes", "name", "php-fpm8.2").is_none());
            assert!(base.find("processes", "path", "/usr/sbin/auditd").is_some());
            let rows: usize = base.sizes().map(|(_, rows)| rows).sum();
            assert!((700..1_600).contains(&rows), "{}: {rows} rows", role.name);
        }
    }
}
