//! What holds for the fleets of an evaluation: every profile, every kind of noise, every way to attack, every day.

use std::collections::{BTreeMap, BTreeSet};

use super::tests::{answers, bytes, check_truth, has_row};
use super::*;

fn evaluation(hosts: usize, compromised: usize, seed: u64) -> SimulationConfig {
    SimulationConfig {
        profile: Profile::NineRoles,
        noise: Noise::ALL,
        attacks: Attacks::One,
        ..SimulationConfig::new(hosts, compromised, seed)
    }
}

fn made(config: SimulationConfig) -> Simulation {
    Simulation::new(config, Base::bundled()).unwrap()
}

#[test]
fn what_is_planted_in_a_mixed_fleet_is_there_and_nowhere_else() {
    let all = made(evaluation(60, 40, 3));
    check_truth(&all);
    let one_role = SimulationConfig { profile: Profile::OneRole, ..evaluation(45, 30, 4) };
    check_truth(&made(one_role));
    assert_eq!(all.truth().hosts.len(), 60);
}

#[test]
fn every_scenario_leaves_rows_in_the_fleet_of_an_evaluation() {
    for scenario in scenarios() {
        let attacks = Attacks::Only(scenario.id);
        let simulation = made(SimulationConfig { attacks, ..evaluation(40, 2, 5) });
        let truth = simulation.truth();
        assert_eq!(truth.planted.len(), 2, "{}", scenario.id);
        for planted in &truth.planted {
            assert!((1..=8).contains(&planted.traces.len()), "{planted:?}");
            let answers = answers(&simulation, &planted.host);
            for trace in &planted.traces {
                let there = has_row(trace, &answers[trace.table]);
                assert_eq!(there, trace.kind == TraceKind::Present, "{planted:?} {trace:?}");
            }
        }
    }
    let unknown = SimulationConfig { attacks: Attacks::Only("nothing"), ..evaluation(40, 1, 5) };
    assert!(Simulation::new(unknown, Base::bundled()).is_err());
}

#[test]
fn one_scenario_a_host_deals_different_ones_in_turn() {
    let simulation = made(evaluation(300, 18, 11));
    let truth = simulation.truth();
    assert_eq!(truth.planted.len(), 18);
    let different: BTreeSet<&str> = truth.planted.iter().map(|planted| planted.scenario).collect();
    assert!(different.len() >= 17, "{different:?}");
    let own_kind = |host: &HostFacts| host.own_kind && truth.is_compromised(&host.host);
    assert!(!truth.hosts.iter().any(own_kind));
}

#[test]
fn a_campaign_is_the_same_rows_across_roles() {
    let attacks = Attacks::Campaign { share_percent: 40 };
    let simulation = made(SimulationConfig { attacks, ..evaluation(60, 0, 2) });
    let truth = simulation.truth();
    assert!((20..=24).contains(&truth.planted.len()), "{}", truth.planted.len());
    let roles = truth.hosts.iter().filter(|host| truth.is_compromised(&host.host)).map(|host| host.role);
    assert!(roles.collect::<BTreeSet<_>>().len() >= 4);
    let first = &truth.planted[0].traces;
    assert!(first.len() >= 3);
    assert!(first.iter().map(|trace| trace.table).collect::<BTreeSet<_>>().len() >= 2);
    for planted in &truth.planted {
        let same = planted.traces.iter().zip(first).all(|(one, other)| one.values == other.values);
        assert!(same, "{planted:?}");
    }
}

#[test]
fn the_day_before_is_clean_and_mostly_the_same() {
    let today = made(SimulationConfig { compromised: 0, ..evaluation(80, 0, 7) });
    let before = made(SimulationConfig { day: 1, ..evaluation(80, 5, 7) });
    assert!(before.truth().planted.is_empty());
    let (names, earlier): (BTreeSet<_>, BTreeSet<_>) =
        (today.hosts().into_iter().collect(), before.hosts().into_iter().collect());
    assert!(names.intersection(&earlier).count() >= 68);
    assert!(names.difference(&earlier).count() >= 1, "some were started since");
    for fact in today.truth().hosts.iter().filter(|fact| fact.fresh) {
        assert!(!earlier.contains(&fact.host));
    }
    let host = names.intersection(&earlier).next().unwrap();
    let (now, then) = (answers(&today, host), answers(&before, host));
    for table in ["users", "authorized_keys", "crontab", "kernel_modules", "suid_bin", "sudoers", "etc_hosts"]
    {
        assert_eq!(now.get(table), then.get(table), "{table}");
    }
    assert_ne!(now["process_open_sockets"], then["process_open_sockets"]);
    assert_ne!(now["deb_packages"], then["deb_packages"], "something was deployed");
}

#[test]
fn oddities_stay_and_are_on_their_hosts() {
    let (today, before) =
        (made(evaluation(150, 0, 9)), made(SimulationConfig { day: 1, ..evaluation(150, 0, 9) }));
    let hosts: BTreeSet<&str> = today.truth().oddities.iter().map(|oddity| oddity.host.as_str()).collect();
    assert!((10..=35).contains(&hosts.len()), "{}", hosts.len());
    for oddity in &today.truth().oddities {
        if let Some(rows) = answers(&today, &oddity.host).get(oddity.trace.table) {
            assert!(has_row(&oddity.trace, rows), "{oddity:?}");
        }
    }
    let kinds = |simulation: &Simulation, host: &str| -> Vec<&'static str> {
        simulation.truth().oddities_on(host).map(|oddity| oddity.kind).collect()
    };
    let earlier: BTreeSet<String> = before.hosts().into_iter().collect();
    for host in hosts.into_iter().filter(|host| earlier.contains(*host)) {
        assert_eq!(kinds(&today, host), kinds(&before, host));
    }
}

#[test]
fn without_noise_hosts_of_a_role_are_alike() {
    let config = SimulationConfig { noise: Noise::NONE, ..evaluation(60, 0, 1) };
    let simulation = made(config);
    let mut first: BTreeMap<&str, (&str, BTreeMap<_, _>)> = BTreeMap::new();
    for host in &simulation.truth().hosts {
        let answers = answers(&simulation, &host.host);
        match first.get(host.role) {
            None => drop(first.insert(host.role, (&host.host, answers))),
            Some((other, expected)) => {
                for (table, rows) in &answers {
                    // The zone follows the place in the fleet.
                    if table != "ec2_instance_metadata" {
                        assert_eq!(rows, &expected[table], "{table}: {} and {other}", host.host);
                    }
                }
            }
        }
    }
}

#[test]
fn each_kind_of_noise_shows() {
    let quiet = SimulationConfig { noise: Noise::NONE, ..evaluation(40, 0, 6) };
    let still = bytes(&made(quiet));
    for name in Noise::names() {
        // Lookalikes are a part of the oddities.
        let name = if name == "lookalikes" { "oddities,lookalikes" } else { name };
        let config = SimulationConfig { noise: name.parse().unwrap(), ..quiet };
        assert_ne!(bytes(&made(config)), still, "{name}");
    }
}

#[test]
fn honest_hosts_have_rows_of_their_own() {
    let simulation = made(evaluation(40, 0, 8));
    let mut hosts_with: BTreeMap<String, usize> = BTreeMap::new();
    let mut own: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for host in simulation.hosts() {
        for (table, column) in [
            ("hash", "sha256"),
            ("crontab", "command"),
            ("authorized_keys", "key"),
            ("etc_hosts", "hostnames"),
        ] {
            for row in answers(&simulation, &host).get(table).into_iter().flatten() {
                *hosts_with.entry(row[column].clone()).or_default() += 1;
                own.entry(host.clone()).or_default().push(row[column].clone());
            }
        }
    }
    let alone = |values: &Vec<String>| values.iter().filter(|value| hosts_with[*value] == 1).count();
    let mut counts: Vec<usize> = own.values().map(alone).collect();
    counts.sort_unstable();
    // One or two hosts do not answer for every table.
    let (few, many) = (counts[2], counts[counts.len() - 1]);
    assert!(few >= 8 && many <= 60 && many >= few + 6, "{counts:?}");
}
