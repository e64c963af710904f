//! What holds for whole fleets: determinism, truth, privacy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use tokio::sync::mpsc;

use super::row::{Cells, Tables};
use super::*;
use crate::catalog::TableSpec;
use crate::collect::{Answer, Collector};

fn simulation(hosts: usize, compromised: usize, seed: u64) -> Simulation {
    Simulation::new(SimulationConfig::new(hosts, compromised, seed), Base::bundled()).unwrap()
}

fn tables(simulation: &Simulation) -> Vec<String> {
    simulation.kinds[0].base.sizes().map(|(table, _)| table.to_owned()).collect()
}

fn rows(simulation: &Simulation, host: &str, table: &str) -> Option<Vec<Cells>> {
    let said = simulation.host(host).unwrap().answer(table);
    said.status.answered().then(|| serde_json::from_slice(&said.json).unwrap())
}

pub(super) fn bytes(simulation: &Simulation) -> Vec<u8> {
    let tables = tables(simulation);
    let mut all = Vec::new();
    for host in simulation.hosts() {
        let host = simulation.host(&host).unwrap();
        tables.iter().for_each(|table| all.extend(host.answer(table).json));
    }
    all
}

pub(super) fn has_row(trace: &Trace, rows: &[Cells]) -> bool {
    rows.iter().any(|row| trace.matches(trace.table, |column| row.get(column).map(String::as_str)))
}

#[test]
fn the_same_seed_makes_the_same_bytes_and_another_does_not() {
    assert_eq!(bytes(&simulation(12, 2, 7)), bytes(&simulation(12, 2, 7)));
    assert_ne!(bytes(&simulation(12, 2, 7)), bytes(&simulation(12, 2, 8)));
}

#[test]
fn a_host_is_the_same_whoever_else_is_asked() {
    let (one, two) = (simulation(12, 2, 7), simulation(12, 2, 7));
    let last = one.hosts().pop().unwrap();
    bytes(&one);
    assert_eq!(rows(&one, &last, "processes"), rows(&two, &last, "processes"));
}

/// Rows of a host, by table; only of those tables that it answered.
pub(super) fn answers(simulation: &Simulation, host: &str) -> BTreeMap<String, Vec<Cells>> {
    let tables = tables(simulation);
    tables.into_iter().filter_map(|table| Some((table.clone(), rows(simulation, host, &table)?))).collect()
}

pub(super) fn check_truth(simulation: &Simulation) {
    let truth = simulation.truth();
    for host in simulation.hosts() {
        let answers = answers(simulation, &host);
        for planted in &truth.planted {
            for trace in &planted.traces {
                let Some(rows) = answers.get(trace.table) else {
                    assert_ne!(planted.host, host, "{} does not answer", trace.table);
                    continue;
                };
                let mine = planted.host == host;
                let role =
                    |host: &str| truth.hosts.iter().find(|fact| fact.host == host).map(|fact| fact.role);
                if !mine && (truth.is_compromised(&host) || role(&host) != role(&planted.host)) {
                    continue;
                }
                let expected = mine == (trace.kind == TraceKind::Present);
                assert_eq!(has_row(trace, rows), expected, "{host} {planted:?} {trace:?}");
            }
        }
    }
}

#[test]
fn what_is_planted_is_on_its_host_and_on_no_clean_one() {
    for seed in 0..2 {
        check_truth(&simulation(60, 5, seed));
    }
    check_truth(&simulation(40, 20, 99));
}

#[test]
fn every_compromised_host_answers_in_full_and_has_four_to_seven_scenarios() {
    let simulation = simulation(300, 30, 5);
    let hosts: BTreeSet<&str> =
        simulation.truth().planted.iter().map(|planted| planted.host.as_str()).collect();
    assert_eq!(hosts.len(), 30);
    for host in hosts {
        assert!((4..=7).contains(&simulation.truth().on(host).count()));
        assert_eq!(answers(&simulation, host).len(), tables(&simulation).len());
    }
    assert!(simulation.truth().planted.iter().all(|planted| !planted.traces.is_empty()));
}

#[test]
fn the_audit_daemon_runs_wherever_nobody_stopped_it() {
    let simulation = simulation(80, 0, 3);
    for host in simulation.hosts() {
        if let Some(rows) = rows(&simulation, &host, "processes") {
            assert!(rows.iter().any(|row| row["path"] == "/usr/sbin/auditd"), "{host}");
        }
    }
}

#[test]
fn process_ids_agree_between_tables_and_are_nobody_elses() {
    let simulation = simulation(40, 10, 4);
    for host in simulation.hosts() {
        let answers = answers(&simulation, &host);
        let Some(processes) = answers.get("processes") else { continue };
        let by_pid: BTreeMap<&str, &Cells> = processes.iter().map(|row| (row["pid"].as_str(), row)).collect();
        assert_eq!(by_pid.len(), processes.len(), "{host}: a process id is there twice");
        for table in ["listening_ports", "process_open_sockets", "process_envs"] {
            for row in answers.get(table).into_iter().flatten() {
                assert_eq!(
                    by_pid[row["pid"].as_str()]["path"],
                    row["process_path"],
                    "{host} {table} {row:?}"
                );
            }
        }
        for row in processes {
            let parent = by_pid.get(row["parent"].as_str());
            assert_eq!(parent.map_or("", |parent| parent["name"].as_str()).len(), row["parent_name"].len());
        }
    }
}

#[test]
fn all_rows_of_a_table_have_the_same_columns() {
    let simulation = simulation(60, 8, 11);
    for host in simulation.hosts() {
        for (table, rows) in answers(&simulation, &host) {
            let columns: Vec<Vec<&String>> = rows.iter().map(|row| row.keys().collect()).collect();
            assert!(columns.windows(2).all(|pair| pair[0] == pair[1]), "{host} {table}");
        }
    }
}

#[test]
fn no_place_is_left_unfilled() {
    let text = String::from_utf8(bytes(&simulation(40, 10, 2))).unwrap();
    for name in facts::NAMES.iter().chain(&["n:", "hex:", "key", "fixed", "eport", "client", "db"]) {
        assert!(!text.contains(&format!("{{{name}")), "{name}");
    }
}

#[test]
fn an_old_agent_lacks_the_late_columns() {
    let simulation = simulation(60, 3, 6);
    let (number, _) =
        simulation.exceptions.iter().find(|(_, answering)| **answering == Answering::OldAgent).unwrap();
    let host = &simulation.hosts()[*number];
    for row in rows(&simulation, host, "processes").unwrap() {
        assert!(!row.contains_key("cgroup_path") && row.contains_key("cmdline"));
    }
    assert_eq!(simulation.host(host).unwrap().agent(), Some("5.4.0"));
}

#[test]
fn numbers_out_of_bounds_are_refused() {
    for (hosts, compromised) in [(0, 0), (50_001, 1), (10, 11), (30, 30)] {
        let config = SimulationConfig::new(hosts, compromised, 1);
        assert!(Simulation::new(config, Base::bundled()).is_err(), "{hosts} {compromised}");
    }
}

#[test]
fn hosts_have_names_and_addresses_of_their_own() {
    let simulation = simulation(5_000, 0, 1);
    let addresses: BTreeSet<String> =
        (0..5_000).map(|number| simulation.facts(number).unwrap().named("ip").to_owned()).collect();
    assert_eq!(addresses.len(), 5_000);
    assert_eq!(simulation.hosts().into_iter().collect::<BTreeSet<_>>().len(), 5_000);
}

#[test]
fn a_large_fleet_is_made_on_demand() {
    let simulation = simulation(20_000, 100, 1);
    let last = simulation.hosts().pop().unwrap();
    let answers = answers(&simulation, &last);
    let rows: usize = answers.values().map(Vec::len).sum();
    assert!((1_000..2_000).contains(&rows), "{rows} rows");
}

fn collected(simulation: Simulation, host: &str, names: &[&str]) -> Vec<Answer> {
    let specs: Vec<TableSpec> = names.iter().map(|name| TableSpec::undeclared(name)).collect();
    let collector = Arc::new(simulation).collector();
    let (sender, mut receiver) = mpsc::channel(names.len());
    futures::executor::block_on(collector.collect(host, &specs, sender));
    std::iter::from_fn(|| receiver.try_recv().ok()).collect()
}

#[test]
fn the_collector_answers_every_table_once() {
    let simulation = simulation(5, 0, 1);
    let host = simulation.hosts()[0].clone();
    let answers = collected(simulation, &host, &["processes", "no_such_table"]);
    let said: Vec<_> = answers.iter().map(|answer| (answer.table.as_str(), answer.status)).collect();
    assert_eq!(said, [("processes", Status::Ok), ("no_such_table", Status::NotSupported)]);
}

#[test]
fn a_host_of_another_fleet_is_undeliverable() {
    let answers = collected(simulation(5, 0, 1), "../../etc", &["processes"]);
    assert_eq!(answers[0].status, Status::Undeliverable);
}

/// A machine of which every value in every column is `mark`, but for what a row needs to be taken at all.
fn marked(mark: &str, columns: &[(&str, &str)]) -> Tables {
    let sample = bundled::tables();
    let more = [
        "known_hosts",
        "user_ssh_keys",
        "ssh_configs",
        "shadow",
        "last",
        "logged_in_users",
        "docker_containers",
    ];
    let names = sample.keys().map(String::as_str).chain(more);
    let needed: Cells =
        columns.iter().map(|(column, value)| ((*column).to_owned(), (*value).to_owned())).collect();
    names
        .map(|table| {
            let columns = sample.get(table).and_then(|rows| rows.first());
            let mut row: Cells = columns
                .map(|row| row.keys().map(|column| (column.clone(), mark.to_owned())).collect())
                .unwrap_or_default();
            row.extend(needed.clone());
            row.insert("extra".to_owned(), mark.to_owned());
            let once = ["os_version", "kernel_info"].contains(&table);
            (table.to_owned(), if once { vec![row] } else { vec![row.clone(), row] })
        })
        .collect()
}

fn check_private(mark: &str, own: Tables) {
    let config = SimulationConfig::new(3, 3, 1);
    let simulation = Simulation::new(config, Base::from_tables(own)).unwrap();
    let text = String::from_utf8(bytes(&simulation)).unwrap();
    assert!(!text.contains(mark), "`{mark}` left the machine");
}

/// Columns that let rows of this machine through; all others of these rows hold the mark.
const OPEN: &[(&str, &str)] = &[
    ("path", "/usr/bin/tool"),
    ("pid", "77"),
    ("port", "4000"),
    ("protocol", "6"),
    ("address", "0.0.0.0"),
    ("type", "tmpfs"),
    ("uid", "500"),
    ("gid", "500"),
    ("username", "tooluser"),
    ("groupname", "toolgroup"),
    ("name", "tool"),
    ("version", "1.2-3"),
    ("arch", "amd64"),
    ("size", "4096"),
    ("mode", "0755"),
    ("permissions", "S"),
    ("platform", "debian"),
    ("id", "tool.service"),
    ("fragment_path", "/lib/systemd/system/tool.service"),
    ("active_state", "active"),
    ("status", "active"),
];

#[test]
fn rows_of_this_machine_are_used_without_what_may_be_private() {
    let mut own = marked("zqsecretqz", OPEN);
    for row in own.get_mut("deb_packages").into_iter().flatten() {
        row.insert("maintainer".to_owned(), "zqsecretqz <x@lists.debian.org>".to_owned());
    }
    let base = Base::from_tables(own.clone());
    for (table, column, value) in [
        ("processes", "path", "/usr/bin/tool"),
        ("listening_ports", "port", "4000"),
        ("deb_packages", "name", "tool"),
        ("systemd_units", "id", "tool.service"),
        ("users", "username", "tooluser"),
        ("hash", "path", "/usr/bin/tool"),
    ] {
        assert!(base.find(table, column, value).is_some(), "{table}");
    }
    check_private("zqsecretqz", own);
}

#[test]
fn an_empty_machine_is_the_sample() {
    let sizes = |base: &Base| base.sizes().map(|(table, rows)| (table.to_owned(), rows)).collect::<Vec<_>>();
    assert_eq!(sizes(&Base::from_tables(Tables::new())), sizes(&Base::bundled()));
}

#[test]
fn the_own_state_still_has_what_scenarios_work_on() {
    let many = |prefix: &str, column: &str, more: &[(&str, &str)]| -> Vec<Cells> {
        (0..900)
            .map(|number| {
                let mut row: Cells = more.iter().map(|(c, v)| ((*c).to_owned(), (*v).to_owned())).collect();
                row.insert(column.to_owned(), format!("{prefix}{number}"));
                row
            })
            .collect()
    };
    let maintainer = ("maintainer", "D <d@debian.org>");
    let own = Tables::from([
        ("deb_packages".to_owned(), many("lib", "name", &[("version", "1-1"), ("arch", "all"), maintainer])),
        ("hash".to_owned(), many("/usr/bin/x", "path", &[])),
        ("file".to_owned(), many("/usr/bin/x", "path", &[("mode", "0755")])),
    ]);
    let config = SimulationConfig::new(40, 8, 2);
    let simulation = Simulation::new(config, Base::from_tables(own)).unwrap();
    assert!(simulation.kinds[0].base.sizes().all(|(_, rows)| rows <= 450));
    check_truth(&simulation);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_mark_ever_leaves_the_machine(mark in "[A-Z]{2}[a-zA-Z0-9 /=@:._{}é-]{8,30}[Q-Z]{4}", open in 0..OPEN.len()) {
        // Values of the columns that are taken as they are: names of packages, modules, groups, versions.
        let taken = ["name", "version", "username", "groupname", "size", "id"];
        let columns: Vec<(&str, &str)> = OPEN.iter().enumerate()
            .filter(|(position, (column, _))| taken.contains(column) || *position >= open)
            .map(|(_, pair)| *pair)
            .collect();
        check_private(&mark, marked(&mark, &columns));
    }
}
