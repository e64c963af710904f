//! Roles: what the hosts of a fleet are for.

use super::base::Base;
use super::config::Profile;

/// A role.
#[derive(Debug)]
pub(super) struct Role {
    /// `web`.
    pub(super) name: &'static str,
    /// Whether only one or two hosts have it.
    pub(super) own_kind: bool,
}

static WEB: [Role; 1] = [Role { name: "web", own_kind: false }];

/// The roles of a profile.
pub(super) fn of(_profile: Profile) -> impl Iterator<Item = &'static Role> {
    WEB.iter()
}

/// The position in [`of`] of the role of the host of that number.
pub(super) fn index(_profile: Profile, _number: usize) -> usize {
    0
}

/// The role of the host of that number.
pub(super) fn at(profile: Profile, number: usize) -> &'static Role {
    of(profile).nth(index(profile, number)).unwrap_or(&WEB[0])
}

impl Role {
    /// The state of hosts of this role, from that of a web server.
    pub(super) fn base(&self, base: &Base) -> Base {
        base.remade(|tables| tables)
    }
}
