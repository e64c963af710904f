//! What a responder does by hand: note a host's state, let something happen, look again.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::env::{TestEnv, write_fleet};

/// Changes a table of a host that was written for import.
fn change(host: &Path, table: &str, change: impl Fn(&mut Vec<Value>)) {
    let path = host.join(format!("{table}.json"));
    let mut rows: Vec<Value> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut rows);
    fs::write(&path, Value::from(rows).to_string()).unwrap();
}

/// Adds a row like the first one of the table, with these cells.
fn add(host: &Path, table: &str, cells: Value) {
    change(host, table, |rows| {
        let mut row = rows[0].clone();
        row.as_object_mut().unwrap().extend(cells.as_object().unwrap().clone());
        rows.push(row);
    });
}

/// What every reboot changes: process ids and start times.
fn reboot(host: &Path) {
    for table in ["processes", "listening_ports", "process_open_sockets"] {
        change(host, table, |rows| {
            for row in rows {
                let row = row.as_object_mut().unwrap();
                for column in ["pid", "parent", "start_time", "socket", "fd"] {
                    let Some(cell) = row.get_mut(column) else { continue };
                    let Some(number) = cell.as_str().and_then(|text| text.parse::<i64>().ok()) else {
                        continue;
                    };
                    if number > 1 {
                        *cell = (number + 1_000).to_string().into();
                    }
                }
            }
        });
    }
}

#[test]
fn five_changes_by_hand_are_five_findings() {
    let env = TestEnv::new();
    write_fleet(&env.path("fleet"), 1, 5);
    let host = fs::read_dir(env.path("fleet")).unwrap().next().unwrap().unwrap().path();
    env.import(&env.path("fleet"), &["--fleet", "hand"]);
    env.ok(&["baseline", "create"]);

    let unchanged = findings(&env);
    assert_eq!(unchanged.len(), 0, "nothing happened: {unchanged:?}");

    reboot(&host);
    let listener = json!({
        "port": "4444", "protocol": "6", "family": "2", "address": "0.0.0.0", "name": "nc.copy", "path": "",
        "process_path": "/tmp/.x/nc.copy", "cmdline": "/tmp/.x/nc.copy -l 4444", "pid": "31337",
    });
    add(&host, "listening_ports", listener);
    let line =
        json!({"command": "root /tmp/.x/nc.copy -l 4444", "path": "/etc/cron.d/update", "minute": "*/5"});
    add(&host, "crontab", line);
    add(&host, "suid_bin", json!({"path": "/tmp/.x/bash", "username": "root", "permissions": "S"}));
    add(
        &host,
        "users",
        json!({"username": "helper", "uid": "1337", "directory": "/home/helper", "shell": "/bin/bash"}),
    );
    add(
        &host,
        "authorized_keys",
        json!({"key": "AAAAC3NzaC1lZDI1NTE5AAAAIHandmade", "comment": "someone@elsewhere"}),
    );
    env.import(&env.path("fleet"), &["--fleet", "hand"]);

    let found = findings(&env);
    let expected = [
        ("listening_ports", "port", json!(4444)),
        ("crontab", "path", json!("/etc/cron.d/update")),
        ("suid_bin", "path", json!("/tmp/.x/bash")),
        ("users", "username", json!("helper")),
        ("authorized_keys", "key", json!("AAAAC3NzaC1lZDI1NTE5AAAAIHandmade")),
    ];
    let is = |finding: &Value, (table, column, value): &(&str, &str, Value)| {
        finding["table"] == *table && &finding["row"][*column] == value
    };
    for change in &expected {
        assert!(found.iter().any(|finding| is(finding, change)), "{change:?} is no finding: {found:#?}");
    }
    let others: Vec<&Value> =
        found.iter().filter(|finding| !expected.iter().any(|change| is(finding, change))).collect();
    assert_eq!(others.len(), 0, "a reboot is no finding: {others:#?}");
}

/// All findings of the newest snapshot against the baseline.
fn findings(env: &TestEnv) -> Vec<Value> {
    let analysis =
        env.json(&["analyze", "--baseline", "default", "--methods", "baseline", "--format", "json"]);
    let hosts = analysis["hosts"].as_array().unwrap();
    hosts.iter().flat_map(|host| host["findings"].as_array().unwrap().clone()).collect()
}
