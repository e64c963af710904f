//! `diffy analyze`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::env::TestEnv;

/// Forty hosts with the same users, and one of them with one more of user id 0.
fn fleet_with_a_backdoor() -> TestEnv {
    let env = TestEnv::new();
    let hosts: Vec<String> = (0..40).map(|number| format!("web-{number:02}")).collect();
    let tables: Vec<(&str, &str, Value)> = hosts
        .iter()
        .map(|host| {
            let mut users = vec![json!({"username": "root", "uid": "0", "gid": "0", "shell": "/bin/bash"})];
            if host == "web-07" {
                users.push(json!({"username": "toor", "uid": "0", "gid": "0", "shell": "/bin/bash"}));
            }
            (host.as_str(), "users", Value::Array(users))
        })
        .collect();
    env.import_tables(&tables);
    env
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap_or_else(|| panic!("no object: {value}")).keys().map(String::as_str).collect()
}

#[test]
fn the_host_that_differs_is_first_and_says_why() {
    let env = fleet_with_a_backdoor();
    let analysis = env.json(&["analyze", "--format", "json"]);
    let first = &analysis["hosts"][0];
    assert_eq!((&first["host"], &first["rank"]), (&json!("web-07"), &json!(1)));
    let finding = &first["findings"][0];
    assert_eq!(finding["table"], "users");
    assert_eq!(finding["row"]["username"], "toor");
    assert_eq!((&finding["hosts_with_row"], &finding["hosts_answered"]), (&json!(1), &json!(40)));
    assert!(finding["reason"].as_str().unwrap().contains("toor"), "{finding}");
    assert!(!finding["attack"].as_array().unwrap().is_empty(), "{finding}");
    let quiet = analysis["hosts"].as_array().unwrap().iter().skip(1);
    assert!(quiet.clone().all(|host| host["findings"] == json!([])), "the others are quiet, and listed");
    assert_eq!(quiet.count(), 39);
}

/// A fleet that is only just one: what one host alone has is a finding, and the others have none.
#[test]
fn small_fleets_are_compared_too() {
    for hosts in 3..=8 {
        let env = TestEnv::new();
        let names: Vec<String> = (0..hosts).map(|number| format!("web-{number}")).collect();
        let user = |name: &str| json!({"username": name, "uid": "7", "gid": "7", "shell": "/bin/sh"});
        let users = |host: &str| match host {
            "web-1" => json!([user("app"), user("eve")]),
            _ => json!([user("app")]),
        };
        let tables: Vec<_> = names.iter().map(|host| (host.as_str(), "users", users(host))).collect();
        env.import_tables(&tables);
        let analysis = env.json(&["analyze", "--methods", "frequency", "--format", "json"]);
        let found: Vec<&Value> = analysis["hosts"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|host| host["findings"] != json!([]))
            .collect();
        assert_eq!(found.len(), 1, "{hosts} hosts: {analysis:#}");
        assert_eq!((&found[0]["host"], &found[0]["rank"]), (&json!("web-1"), &json!(1)));
        assert_eq!(found[0]["findings"][0]["row"]["username"], "eve");
        assert!(analysis["warnings"].to_string().contains("fewer than 30"), "{hosts} hosts");
    }
}

/// An old agent is no compromise; one that leaves out what every agent has is told, and hides nothing.
#[test]
fn what_a_host_leaves_out_is_no_hiding_place() {
    let env = TestEnv::new();
    let names: Vec<String> = (0..40).map(|number| format!("web-{number:02}")).collect();
    let process = |name: &str| json!({"name": name, "path": format!("/usr/sbin/{name}"), "euid": "0", "uid": "0", "on_disk": "1"});
    let tables: Vec<_> = names
        .iter()
        .map(|host| {
            let mut rows = vec![process("sshd"), process("cron"), process("auditd")];
            if host == "web-07" {
                // No auditd, one process more, and no column that says where it runs from.
                rows[2] = process("miner");
                rows.iter_mut().for_each(|row| _ = row.as_object_mut().unwrap().remove("path"));
            }
            (host.as_str(), "processes", Value::Array(rows))
        })
        .collect();
    env.import_tables(&tables);
    let analysis = env.json(&["analyze", "--format", "json"]);
    let first = &analysis["hosts"][0];
    assert_eq!(first["host"], "web-07", "{first:#}");
    let findings = first["findings"].as_array().unwrap();
    let has = |kind: &str, text: &str| {
        let mut found = findings.iter().filter(|finding| finding["kind"] == kind);
        found.any(|finding| finding["reason"].as_str().unwrap().contains(text))
    };
    assert!(has("coverage", "without the column path"), "{findings:#?}");
    assert!(has("new", "`miner`"), "{findings:#?}");
    assert!(has("missing", "`auditd`"), "{findings:#?}");
    let known = |finding: &Value| ["sshd", "cron"].iter().any(|name| finding["row"]["name"] == *name);
    assert!(!findings.iter().any(known), "{findings:#?}");
}

/// The fields that other programs rely on.
#[test]
fn the_json_has_the_promised_fields() {
    let env = fleet_with_a_backdoor();
    env.import_fleet(20, 1, 1);
    let analysis = env.json(&["analyze", "--format", "json"]);
    for field in [
        "schema_version",
        "diffy_version",
        "fleet",
        "snapshot",
        "collected_at",
        "methods",
        "baseline",
        "history",
        "hosts_total",
        "hosts_answered",
        "warnings",
        "hosts",
        "peer_groups",
        "campaigns",
        "suppressed",
    ] {
        assert!(keys(&analysis).contains(field), "{field}");
    }
    assert_eq!(analysis["schema_version"], 1);
    let groups = analysis["peer_groups"].as_array().unwrap();
    assert!(!groups.is_empty() && groups.iter().all(|group| group["described_by"].is_string()));
    let fields = ["hosts", "findings", "reason", "score", "tables", "rows", "explained_by"];
    for campaign in analysis["campaigns"].as_array().unwrap() {
        assert_eq!(keys(campaign), BTreeSet::from(fields));
    }
    let hosts = analysis["hosts"].as_array().unwrap();
    assert_eq!(analysis["hosts_total"], hosts.len());
    let mut findings = Vec::new();
    for host in hosts {
        for field in ["host", "rank", "score", "verdict", "peer_group", "coverage", "findings"] {
            assert!(keys(host).contains(field), "{field}: {host}");
        }
        assert!(["outlier", "review", "normal", "no_peers"].contains(&host["verdict"].as_str().unwrap()));
        assert!(host["coverage"]["ok"].is_u64() && host["coverage"]["failed"].is_u64(), "{host}");
        findings.extend(host["findings"].as_array().unwrap());
    }
    assert!(findings.len() > 5, "{} findings", findings.len());
    for finding in &findings {
        for field in [
            "id",
            "table",
            "kind",
            "score",
            "row",
            "hosts_with_row",
            "hosts_answered",
            "first_seen",
            "nearest",
            "given",
            "attack",
            "reason",
            "priors",
        ] {
            assert!(keys(finding).contains(field), "{field}: {finding}");
        }
        let kind = finding["kind"].as_str().unwrap();
        assert!(["new", "variant", "missing", "changed", "coverage"].contains(&kind), "{kind}");
        if finding["nearest"].is_object() {
            assert_eq!(keys(&finding["nearest"]), BTreeSet::from(["row", "differs", "hosts_with_row"]));
        }
    }
    let ids: BTreeSet<_> = findings.iter().map(|finding| finding["id"].as_str().unwrap()).collect();
    assert!(!ids.contains(""), "findings have ids");
}

#[test]
fn hosts_are_sorted_best_first() {
    let env = TestEnv::new();
    env.import_fleet(20, 2, 3);
    let analysis = env.json(&["analyze", "--format", "json"]);
    let hosts = analysis["hosts"].as_array().unwrap();
    let scores: Vec<f64> = hosts.iter().map(|host| host["score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    let ranks: Vec<u64> = hosts.iter().map(|host| host["rank"].as_u64().unwrap()).collect();
    assert_eq!(ranks, (1..=20).collect::<Vec<_>>());
    for host in hosts {
        let findings = host["findings"].as_array().unwrap().iter();
        let scores: Vec<f64> = findings.map(|finding| finding["score"].as_f64().unwrap()).collect();
        assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    }
}

#[test]
fn every_format_tells_the_same_findings() {
    let env = fleet_with_a_backdoor();
    let json = env.json(&["analyze", "--format", "json"]);
    let ids: BTreeSet<String> = json["hosts"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|host| host["findings"].as_array().unwrap())
        .map(|finding| finding["id"].as_str().unwrap().to_owned())
        .collect();
    let ndjson = env.ok(&["analyze", "--format", "ndjson"]);
    let lines: Vec<Value> = ndjson.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |lines: &[Value]| -> BTreeSet<String> {
        lines.iter().filter_map(|line| line["id"].as_str()).map(str::to_owned).collect()
    };
    assert_eq!(of(&lines), ids);
    let csv_text = env.ok(&["analyze", "--format", "csv"]);
    let mut csv = csv::Reader::from_reader(csv_text.as_bytes());
    let column = csv.headers().unwrap().iter().position(|name| name == "id").unwrap();
    let from_csv: BTreeSet<String> = csv.records().map(|record| record.unwrap()[column].to_owned()).collect();
    assert_eq!(from_csv.into_iter().filter(|id| !id.is_empty()).collect::<BTreeSet<_>>(), ids);
    env.ok(&["analyze", "--format", "parquet", "-o", "findings.parquet"]);
    let bytes = std::fs::read(env.path("findings.parquet")).unwrap();
    assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"));
    let table = env.ok(&["analyze"]);
    assert!(table.contains("toor") && table.contains("web-07"), "{table}");
}

#[test]
fn the_exit_status_tells_outliers_only_when_asked() {
    let env = TestEnv::new();
    env.import_fleet(40, 1, 1);
    assert_eq!(env.run(&["analyze"]).status, 0);
    assert_eq!(env.run(&["analyze", "--exit-code"]).status, 3);
    let quiet = TestEnv::new();
    let tables: Vec<_> = ["a", "b", "c"].map(|host| (host, "users", json!([{"username": "root"}]))).into();
    quiet.import_tables(&tables);
    assert_eq!(quiet.run(&["analyze", "--exit-code"]).status, 0);
}

#[test]
fn a_baseline_takes_away_what_is_known() {
    let env = fleet_with_a_backdoor();
    env.ok(&["baseline", "create", "known"]);
    env.import_tables(&[(
        "web-07",
        "users",
        json!([
            {"username": "root", "uid": "0", "gid": "0", "shell": "/bin/bash"},
            {"username": "toor", "uid": "0", "gid": "0", "shell": "/bin/bash"},
            {"username": "eve", "uid": "1001", "gid": "0", "shell": "/bin/sh"},
        ]),
    )]);
    let analysis = env.json(&["analyze", "--baseline", "known", "--methods", "baseline", "--format", "json"]);
    assert_eq!(analysis["methods"], json!(["baseline"]));
    assert_eq!(analysis["baseline"]["name"], "known");
    let findings = analysis["hosts"][0]["findings"].as_array().unwrap();
    let named: Vec<_> = findings.iter().map(|finding| &finding["row"]["username"]).collect();
    assert_eq!(named, ["eve"]);
    // Without being told, the newest baseline of the fleet is taken.
    assert_eq!(env.json(&["analyze", "--format", "json"])["baseline"]["name"], "known");
    assert_eq!(env.json(&["analyze", "--format", "json", "--baseline", "none"])["baseline"], Value::Null);
}

#[test]
fn what_cannot_be_analyzed_is_said() {
    let env = fleet_with_a_backdoor();
    for (args, expected) in [
        (
            &["--methods", "magic"][..],
            "methods are: baseline, history, frequency, missing, campaigns, cluster",
        ),
        (&["--methods", "baseline"], "no baseline to compare with"),
        (&["--baseline", "nope"], "no baseline `nope`"),
        (&["--baseline", "nope", "--methods", "frequency"], "without the method `baseline`"),
        (&["--tables", "usrs"], "did you mean `users`?"),
        (&["--fleet", "wbe"], "fleets here: web"),
        (&["--snapshot", "yesterday"], "`yesterday` is no snapshot id"),
        (&["--snapshot", "01ARZ3NDEKTSV4RRFFQ69G5FAV"], "no snapshot `01ARZ3NDEKTSV4RRFFQ69G5FAV`"),
    ] {
        let stderr = env.fails(&[&["analyze"], args].concat(), 2);
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
    }
    env.write("o/h/users.json", "[]");
    env.import(&env.path("o"), &["--fleet", "other"]);
    let stderr = env.fails(&["analyze"], 2);
    assert!(stderr.contains("which fleet?") && stderr.contains("other, web"), "{stderr}");
}

#[test]
fn prevalence_can_be_made_again_of_the_rows() {
    let env = TestEnv::new();
    env.import_fleet(20, 2, 5);
    let analysis = |args: &[&str]| env.json(&[&["analyze", "--format", "json"], args].concat());
    let judged = |analysis: Value| -> Vec<(Value, Value, Vec<Value>)> {
        let of = |host: &Value| {
            let findings = host["findings"].as_array().unwrap();
            let findings = findings.iter().map(|finding| finding["id"].clone()).collect();
            (host["host"].clone(), host["verdict"].clone(), findings)
        };
        analysis["hosts"].as_array().unwrap().iter().map(of).collect()
    };
    let of_rows = analysis(&["--from-rows"]);
    assert_eq!(judged(of_rows.clone()), judged(analysis(&[])));
    assert_eq!(of_rows, analysis(&["--from-rows"]));
    let warnings = of_rows["warnings"].to_string();
    assert!(warnings.contains("made again of the rows"), "{warnings}");
    // It is for prevalence that is damaged, so nothing of it may be needed.
    std::fs::remove_dir_all(env.store().join("prevalence")).unwrap();
    env.fails(&["analyze", "--format", "json"], 1);
    assert_eq!(of_rows, analysis(&["--from-rows"]));
}
