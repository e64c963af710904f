//! How much a row gains by being new and loses by being known: formulas only.

use chrono::{DateTime, Utc};
use roaring::RoaringBitmap;

use super::past::Yardstick;

/// A row that a host had in all of a long past loses this share of its score, and never more: an intruder may be there
/// since before the past begins.
const MOST_LOST: f64 = 0.8;
/// After so many hours being there says half of what it can say.
const HALF_HOURS: f64 = 6.0;
/// A row that is new to host and fleet gains at most this share of what it lacks to the highest score, in proportion to
/// what it has: where the other hosts make a row worth nothing, being new adds nothing.
const MOST_GAINED: f64 = 0.75;
/// So many times more new things than usual halve what one of them says.
const CROWD: f64 = 4.0;
/// In a fleet of fewer hosts even a table where nobody ever shows anything new is not wholly quiet.
const FULL_SCORE_HOSTS: f64 = 30.0;
/// Peers of a host that say something.
const FEWEST_PEERS: u64 = 8;
/// How much less a new row says when everybody has it.
const SHARED: f64 = 0.6;

/// What the past says of one row on one host; for a missing row, of its absence.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Novelty {
    /// No earlier snapshot has it.
    pub(super) new_to_fleet: bool,
    /// No earlier snapshot has it on this host.
    pub(super) new_to_host: bool,
    /// An earlier snapshot heard this host for this table.
    pub(super) host_has_past: bool,
    /// The first and last earlier snapshot that has it.
    pub(super) first_seen: Option<DateTime<Utc>>,
    pub(super) last_seen: Option<DateTime<Utc>>,
    /// When the first snapshot began that has it on this host.
    pub(super) on_host_since: Option<DateTime<Utc>>,
    /// How many earlier snapshots have it.
    pub(super) snapshots: u32,
    /// The highest prevalence: on how many hosts, of how many that were heard.
    pub(super) most: (u64, u64),
    /// Of the earlier snapshots that heard the host, the share since it first had it, 0 to 1.
    pub(super) settled: f64,
    /// Hours since this host first had it.
    pub(super) hours: f64,
    /// How unusual it is for a host to show anything new of its own in this table: [`quiet`].
    pub(super) quiet: f64,
    /// New things that this host shows in this table, as a multiple of what is usual for one that shows any.
    pub(super) crowd: f64,
}

/// A score between 0 and `most`, in the light of the past.
///
/// ```text
/// new to host and fleet   score + (most − score) × (score / most) × 0.75 × quiet / crowded(crowd)
/// known on the host       score × (1 − 0.8 × settled × hours / (hours + 6))
/// new to the host, known to the fleet, or a host without past   score
/// ```
pub(super) fn adjust(score: f64, most: f64, novelty: &Novelty) -> f64 {
    match novelty {
        Novelty { host_has_past: false, .. } => score,
        Novelty { new_to_fleet: true, .. } => {
            let gain = MOST_GAINED * novelty.quiet / crowded(novelty.crowd);
            score + (most - score).max(0.0) * (score / most.max(f64::MIN_POSITIVE)) * gain
        }
        Novelty { new_to_host: true, .. } => score,
        _ => {
            let trusted = novelty.hours / (novelty.hours + HALF_HOURS);
            score * (1.0 - MOST_LOST * novelty.settled * trusted)
        }
    }
}

/// How unusual it is that a host shows anything new of its own in a table, 0 to 1: `-log2` of the usual share of such
/// hosts, as a share of the most that a fleet can give.
pub(super) fn quiet(usual: &Yardstick) -> f64 {
    let hosts = usual.hosts as f64;
    surprise((usual.share * hosts).max(1.0), hosts) / hosts.max(FULL_SCORE_HOSTS).log2()
}

/// The same among the peers of a host, of whom it is one: 1 when no other of them shows anything new today. Groups of
/// fewer than 8 say nothing.
pub(super) fn quiet_among(usual: &Yardstick, peers: &RoaringBitmap) -> f64 {
    if peers.len() < FEWEST_PEERS {
        return 1.0;
    }
    let hosts = peers.len() as f64;
    let showing = peers.iter().filter(|host| usual.today.contains_key(host)).count();
    surprise(showing as f64, hosts) / hosts.log2()
}

/// What one new thing among `crowd` times the usual number is divided by.
pub(super) fn crowded(crowd: f64) -> f64 {
    1.0 + (1.0 + (crowd - 1.0).max(0.0) / CROWD).log2()
}

/// Strength, 0 to 100, of a row that is new to the fleet and few hosts share.
pub(super) fn own_strength(quiet: f64, crowd: f64) -> f64 {
    100.0 * quiet / crowded(crowd)
}

/// Strength, 0 to 100, of a row that is new to the fleet and on this share of the hosts, too many for frequency.
///
/// The more hosts, the more it is like a deploy; less so when new rows of several `tables` stand on the very same
/// hosts. `sets` is how many different sets of hosts share something new in the table, today or usually: where chance
/// puts new rows on some hosts every day, there are many.
pub(super) fn shared_strength(share: f64, tables: usize, sets: f64) -> f64 {
    100.0 * (1.0 - SHARED * share / tables.max(1) as f64) / (1.0 + sets.max(1.0).log2())
}

/// Strength, 0 to 100, of the absence of a row that this host had in each of `snapshots` earlier answers.
///
/// `lost` of the `always` hosts that always had it lack it; `losing` of `hosts` lack anything in the table that they
/// always had. By the rule of succession, a thing that was there k times of k is there next time with (k+1)/(k+2).
pub(super) fn lost_strength(snapshots: u32, (lost, always): (u64, u64), (losing, hosts): (u64, u64)) -> f64 {
    let known = f64::from(snapshots) + 1.0;
    let here = surprise(losing as f64, hosts as f64);
    let of_this = surprise(lost as f64, always as f64 + 1.0);
    100.0 * known / (known + 1.0) * f64::midpoint(here, of_this).min(highest(hosts)) / highest(hosts)
}

fn highest(hosts: u64) -> f64 {
    (hosts as f64).max(FULL_SCORE_HOSTS).log2()
}

fn surprise(few: f64, of: f64) -> f64 {
    (of / few.max(1.0)).log2().max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new() -> Novelty {
        Novelty {
            new_to_fleet: true,
            new_to_host: true,
            host_has_past: true,
            first_seen: None,
            last_seen: None,
            on_host_since: None,
            snapshots: 0,
            most: (0, 0),
            settled: 0.0,
            hours: 0.0,
            quiet: 1.0,
            crowd: 1.0,
        }
    }

    fn known(settled: f64, hours: f64) -> Novelty {
        Novelty { new_to_fleet: false, new_to_host: false, settled, hours, ..new() }
    }

    #[test]
    fn new_rows_gain_and_known_ones_lose_but_never_all() {
        assert_eq!(adjust(40.0, 100.0, &new()), 40.0 + 60.0 * 0.4 * 0.75);
        let long = adjust(40.0, 100.0, &known(1.0, 30.0 * 24.0));
        assert!((8.0..9.0).contains(&long), "{long}");
        assert!(adjust(40.0, 100.0, &known(1.0 / 30.0, 24.0)) > 38.0, "since yesterday is recent");
        assert!(adjust(40.0, 100.0, &known(1.0, 0.1)) > 39.0, "minutes ago is no past");
        assert_eq!(adjust(100.0, 100.0, &new()), 100.0);
        assert_eq!(adjust(0.0, 100.0, &known(1.0, 720.0)), 0.0);
    }

    #[test]
    fn without_a_past_or_with_one_elsewhere_nothing_changes() {
        assert_eq!(adjust(40.0, 100.0, &Novelty { host_has_past: false, ..new() }), 40.0);
        assert_eq!(adjust(40.0, 100.0, &Novelty { new_to_fleet: false, ..new() }), 40.0);
    }

    #[test]
    fn where_every_host_shows_something_new_each_day_new_says_nothing() {
        let usual = |share| Yardstick { share, per_host: 1.0, hosts: 64, ..Yardstick::default() };
        assert_eq!(quiet(&usual(1.0)), 0.0);
        assert_eq!(quiet(&usual(0.0)), 1.0);
        assert_eq!(quiet(&usual(0.125)), 0.5);
        assert_eq!(adjust(40.0, 100.0, &Novelty { quiet: 0.0, ..new() }), 40.0);
        assert_eq!(quiet(&Yardstick::default()), 0.0, "nobody has a past");
        let today = (0..16).map(|host| (host, 1)).collect();
        let containers = Yardstick { today, ..usual(0.25) };
        assert_eq!(quiet_among(&containers, &(0..16).collect()), 0.0, "their kind does it");
        assert_eq!(quiet_among(&containers, &(15..31).collect()), 1.0, "nobody else of its kind does");
        assert_eq!(quiet_among(&containers, &(0..7).collect()), 1.0, "too few");
    }

    #[test]
    fn one_among_many_new_rows_says_little() {
        let crowd = |crowd| adjust(50.0, 100.0, &Novelty { crowd, ..new() }) - 50.0;
        assert!(
            crowd(1.0) > crowd(5.0) && crowd(5.0) > 3.0 * crowd(1000.0),
            "{} {}",
            crowd(5.0),
            crowd(1000.0)
        );
        assert_eq!(crowd(0.2), crowd(1.0));
    }

    #[test]
    fn what_more_hosts_share_is_more_like_a_deploy() {
        assert!(shared_strength(0.4, 1, 1.0) > shared_strength(0.8, 1, 1.0));
        assert!(
            shared_strength(0.4, 3, 1.0) > shared_strength(0.4, 1, 1.0),
            "the same hosts in three tables"
        );
        assert!(shared_strength(0.4, 1, 32.0) < 15.0, "where chance does it every day");
    }

    #[test]
    fn an_absence_says_more_the_longer_it_was_there_and_the_fewer_lose_anything() {
        let lost = |snapshots, losing| lost_strength(snapshots, (1, 60), (losing, 60));
        assert!(lost(12, 1) > 90.0 && lost(1, 1) < 70.0, "{} {}", lost(12, 1), lost(1, 1));
        assert!(lost(12, 30) < 0.65 * lost(12, 1));
        assert!(lost_strength(12, (1, 1), (1, 60)) < lost(12, 1), "nobody else has it: it may come and go");
    }
}
