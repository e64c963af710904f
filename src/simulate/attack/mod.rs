//! What intruders leave behind: scenarios, each with its rows in all the tables that a real one would touch.
//!
//! Names and values are drawn from pools by the seed, so that no planted text is the same everywhere: nothing that looks
//! for compromised hosts may know these files.

mod access;
mod campaign;
mod evasion;
mod execution;
mod footholds;
mod network;
mod persistence;
mod quiet;

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

pub(super) use self::campaign::CAMPAIGN;
use super::plan::{Plan, Program};
use super::seed::{self, pick};
use super::shape;

/// One kind of compromise.
#[derive(Debug)]
pub(super) struct Scenario {
    /// Id: `cron-line`.
    pub(super) id: &'static str,
    /// What was done, in one sentence.
    pub(super) title: &'static str,
    /// The ATT&CK technique.
    pub(super) attack: &'static str,
    /// Whether it hides among things that every host has.
    pub(super) subtle: bool,
    /// Leaves the rows.
    pub(super) plant: fn(&mut Plan<'_>),
}

/// The scenarios of all files.
pub(super) fn all() -> impl Iterator<Item = &'static Scenario> {
    [
        access::SCENARIOS,
        evasion::SCENARIOS,
        execution::SCENARIOS,
        footholds::SCENARIOS,
        network::SCENARIOS,
        persistence::SCENARIOS,
        quiet::SCENARIOS,
    ]
    .into_iter()
    .flatten()
}

/// The scenario of that position; the one after the last is [`CAMPAIGN`].
pub(super) fn nth(position: usize) -> Option<&'static Scenario> {
    if position == CAMPAIGN_POSITION { Some(&CAMPAIGN) } else { all().nth(position) }
}

/// Where [`nth`] finds the campaign.
pub(super) const CAMPAIGN_POSITION: usize = 100;

/// Fewest and most scenarios on one compromised host.
const PER_HOST: std::ops::RangeInclusive<usize> = 4..=7;

/// Which scenarios each of so many compromised hosts gets: positions in [`all`], no two the same on one host.
pub(super) fn deal(hosts: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut rng = seed::stream(seed, &["deal"]);
    let mut counts: Vec<usize> = (0..hosts).map(|_| rng.random_range(PER_HOST)).collect();
    let scenarios = all().count();
    // Few hosts get more each, so that every scenario is somewhere if it can be.
    while counts.iter().sum::<usize>() < scenarios {
        let Some(least) = counts.iter_mut().filter(|count| **count < *PER_HOST.end()).min() else { break };
        *least += 1;
    }
    let mut deck = Vec::new();
    counts.into_iter().map(|count| hand(count, scenarios, &mut deck, &mut rng)).collect()
}

fn hand(count: usize, scenarios: usize, deck: &mut Vec<usize>, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let mut hand = Vec::new();
    while hand.len() < count {
        let next = deck.iter().rposition(|card| !hand.contains(card));
        match next {
            Some(position) => hand.push(deck.remove(position)),
            None => {
                let mut fresh: Vec<usize> = (0..scenarios).collect();
                fresh.shuffle(rng);
                fresh.append(deck);
                *deck = fresh;
            }
        }
    }
    hand.sort_unstable();
    hand
}

/// A name that a daemon could have, and that no package of the base state has.
fn daemon_name(rng: &mut ChaCha8Rng) -> String {
    const FIRST: &[&str] = &[
        "dbus", "net", "udev", "kmod", "snmp", "log", "irq", "gvfs", "acpi", "xfs", "nscd", "rpc", "lvm",
        "smart", "iscsi", "cups", "avahi", "upower", "thermal", "accounts",
    ];
    const LAST: &[&str] =
        &["-helper", "-worker", "-monitor", "ctl", "-agent", "-sync", "-updated", "-cache", "mgrd", "-relay"];
    let middle = if rng.random_bool(0.4) { seed::letters(rng, 2) } else { String::new() };
    format!("{}{middle}{}", pick(rng, FIRST), pick(rng, LAST))
}

/// A directory in which an intruder keeps things: hidden ones that anybody may write to, and ones that look packaged.
fn hiding_place(rng: &mut ChaCha8Rng) -> String {
    let word = seed::letters(rng, 5);
    match rng.random_range(0..9) {
        0 => format!("/dev/shm/.{word}"),
        1 => format!("/var/tmp/.{word}"),
        2 => format!("/tmp/.{word}-unix"),
        3 => format!("/usr/lib/{word}"),
        4 => format!("/opt/{word}/bin"),
        5 => format!("/var/lib/{word}"),
        6 => format!("/usr/local/lib/{word}"),
        7 => format!("/usr/share/{word}"),
        _ => format!("/var/cache/.{word}"),
    }
}

/// A port that nothing on an honest host uses.
fn odd_port(rng: &mut ChaCha8Rng) -> String {
    let taken = [5_355, 6_379, 8_000, 8_080, 9_100, 24_224, 5_432];
    loop {
        let port = rng.random_range(1_025..32_000);
        if !taken.contains(&port) {
            return port.to_string();
        }
    }
}

/// The columns of `processes` that tell a planted one.
const PROCESS: &[&str] = &["name", "path", "cmdline"];

/// Adds a process with a connection to the outside.
fn connected(plan: &mut Plan<'_>, program: &Program<'_>, remote: (&str, &str)) {
    let row = plan.process(program);
    let socket = shape::socket(&row["pid"], ("{ip}", "{eport}"), remote);
    let socket = shape::with_owner_and_cmdline(socket, Some(&row));
    plan.plant("processes", row, PROCESS);
    plan.plant("process_open_sockets", socket, &["process_path", "remote_address", "remote_port"]);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_differ_and_techniques_are_spelt_right() {
        let ids: BTreeSet<&str> = all().map(|scenario| scenario.id).collect();
        assert_eq!(ids.len(), all().count());
        assert!(ids.len() >= 34);
        let subtle = all().filter(|scenario| scenario.subtle).count();
        assert!(subtle * 2 >= ids.len(), "{subtle} of {}", ids.len());
        for scenario in all() {
            let digits = scenario.attack.strip_prefix('T').unwrap();
            assert!(digits.chars().all(|c| c.is_ascii_digit() || c == '.'), "{}", scenario.attack);
            assert!(scenario.title.ends_with('.'), "{}", scenario.title);
        }
    }

    #[test]
    fn every_host_gets_four_to_seven_and_every_scenario_is_dealt() {
        for hosts in [3, 5, 20, 200] {
            for seed in 0..20 {
                let dealt = deal(hosts, seed);
                for hand in &dealt {
                    assert!(PER_HOST.contains(&hand.len()));
                    assert_eq!(hand.iter().collect::<BTreeSet<_>>().len(), hand.len());
                }
                let used: BTreeSet<usize> = dealt.into_iter().flatten().collect();
                let possible = all().count().min(hosts * PER_HOST.end());
                assert_eq!(used.len(), possible, "{hosts} hosts, seed {seed}");
            }
        }
    }
}
