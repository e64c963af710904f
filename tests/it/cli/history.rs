//! `--history`: what the fleet's own past says of today's rows.

use chrono::{Days, NaiveDate};
use serde_json::{Value, json};

use crate::env::{TestEnv, write_tables};

const HOSTS: u32 = 60;

/// What hosts have, by table; written and imported as one day.
struct Day(Vec<(String, &'static str, Value)>);

fn host(number: u32) -> String {
    format!("web-{number:02}")
}

fn cron(command: &str) -> Value {
    json!({"command": command, "path": "/etc/crontab", "minute": "5", "hour": "*"})
}

fn user(name: &str, uid: u32) -> Value {
    json!({"username": name, "uid": uid.to_string(), "gid": "0", "directory": format!("/home/{name}")})
}

fn package(name: &str, version: &str) -> Value {
    json!({"name": name, "version": version, "arch": "amd64", "revision": "1", "status": "install ok installed"})
}

fn process(name: &str, path: &str) -> Value {
    json!({"name": name, "path": path, "pid": "7", "cmdline": path, "euid": "0", "on_disk": "1"})
}

impl Day {
    /// All hosts are alike; three have an oddity of an administrator's.
    fn plain() -> Self {
        let mut day = Self(Vec::new());
        for number in 0..HOSTS {
            let mut put = |table, rows| day.0.push((host(number), table, rows));
            put("users", json!([user("root", 0), user("app", 1000)]));
            put("crontab", json!([cron("/usr/local/bin/rotate")]));
            put("deb_packages", json!([package("shop", "1.0"), package("openssl", "3.0.1")]));
            put("processes", json!([process("init", "/sbin/init"), process("shop", "/opt/shop/bin/shop")]));
            put("kernel_modules", json!([{"name": "ext4", "size": "1", "status": "Live"}]));
        }
        day.add([11], "users", &user("contractor", 1200));
        day.add([12], "crontab", &cron("/root/fix-the-disk.sh"));
        day.add([13], "kernel_modules", &json!({"name": "usb_probe", "size": "9", "status": "Live"}));
        day
    }

    fn rows(&mut self, number: u32, table: &str) -> &mut Vec<Value> {
        let name = host(number);
        let found = self.0.iter_mut().find(|(host, of, _)| *host == name && *of == table);
        found.unwrap().2.as_array_mut().unwrap()
    }

    fn add(&mut self, hosts: impl IntoIterator<Item = u32>, table: &str, row: &Value) {
        hosts.into_iter().for_each(|host| self.rows(host, table).push(row.clone()));
    }

    fn import(&self, env: &TestEnv, day: u64) -> String {
        let dir = env.path(format!("day-{day}"));
        let tables: Vec<_> =
            self.0.iter().map(|(host, table, rows)| (host.as_str(), *table, rows.clone())).collect();
        write_tables(&dir, &tables);
        env.import(&dir, &["--fleet", "web", "--collected-at", &date(day)])
    }
}

/// Days of the store's own calendar: nothing depends on when the test runs.
fn date(day: u64) -> String {
    NaiveDate::from_ymd_opt(2026, 1, 1).unwrap().checked_add_days(Days::new(day)).unwrap().to_string()
}

/// A store with so many plain days.
fn plain_days(days: u64) -> TestEnv {
    let env = TestEnv::new();
    (0..days).for_each(|day| {
        Day::plain().import(&env, day);
    });
    env
}

fn analyze(env: &TestEnv, args: &[&str]) -> Value {
    env.json(&[&["analyze", "--format", "json"], args].concat())
}

fn named(analysis: &Value, name: &str) -> Value {
    let hosts = analysis["hosts"].as_array().unwrap();
    hosts.iter().find(|host| host["host"] == name).unwrap().clone()
}

fn warnings(analysis: &Value) -> String {
    analysis["warnings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|text| format!("{}\n", text.as_str().unwrap()))
        .collect()
}

#[test]
fn what_is_new_today_comes_before_what_is_odd_since_days() {
    let env = plain_days(4);
    let mut today = Day::plain();
    today.add([7], "users", &user("helper", 1300));
    today.import(&env, 4);
    let analysis = analyze(&env, &[]);
    assert_eq!(analysis["history"], json!({"since": "2026-01-01T00:00:00.000Z", "snapshots": 4}));
    assert_eq!(analysis["hosts"][0]["host"], "web-07", "{:#}", analysis["hosts"][0]);
    let finding = &analysis["hosts"][0]["findings"][0];
    assert_eq!((&finding["row"]["username"], &finding["kind"]), (&json!("helper"), &json!("new")));
    assert_eq!(finding["first_seen"], "2026-01-05T00:00:00.000Z");
    let reason = finding["reason"].as_str().unwrap();
    assert!(reason.contains("none of the 4 earlier snapshots since 2026-01-01 has it"), "{reason}");
    let score = |host: &str| named(&analysis, host)["score"].as_f64().unwrap();
    for known in ["web-11", "web-12", "web-13"] {
        assert!(score(known) < score("web-07") / 2.0, "{known}: {}", score(known));
    }
    let known = &named(&analysis, "web-11")["findings"][0];
    assert_eq!(known["first_seen"], "2026-01-01T00:00:00.000Z");
    assert!(known["reason"].as_str().unwrap().contains("on this host since 2026-01-01"), "{known}");
    let without = analyze(&env, &["--history", "none"]);
    assert_eq!(without["history"], Value::Null);
    assert_eq!(named(&without, "web-07")["findings"][0]["first_seen"], Value::Null);
    assert!(named(&without, "web-11")["score"].as_f64() > Some(score("web-11") * 1.5), "known rows lost");
}

#[test]
fn two_fifths_of_the_fleet_are_found_by_history_and_the_output_says_so() {
    let env = plain_days(3);
    let mut today = Day::plain();
    let victims = 10..34;
    today.add(victims.clone(), "crontab", &cron("/var/tmp/.x/run"));
    today.add(victims.clone(), "processes", &process("kworkerd", "/var/tmp/.x/kworkerd"));
    today.add(victims.clone(), "users", &user("sysd", 0));
    today.import(&env, 3);
    let analysis = analyze(&env, &[]);
    let first: Vec<&str> = analysis["hosts"].as_array().unwrap()[..24]
        .iter()
        .map(|host| host["host"].as_str().unwrap())
        .collect();
    let mut expected: Vec<String> = victims.map(host).collect();
    let mut sorted = first.clone();
    sorted.sort_unstable();
    expected.sort_unstable();
    assert_eq!(sorted, expected);
    let victim = named(&analysis, "web-20");
    assert!(["review", "outlier"].contains(&victim["verdict"].as_str().unwrap()), "{victim}");
    // The same rows are a campaign too; asked alone, history says what it knows.
    let by_history = analyze(&env, &["--methods", "history"]);
    let finding = &named(&by_history, "web-20")["findings"][0];
    assert_eq!((&finding["method"], &finding["kind"]), (&json!("history"), &json!("new")));
    let reason = finding["reason"].as_str().unwrap();
    for expected in [
        "first seen in this snapshot; on 24 of 60 hosts; ",
        "; none of the 3 earlier snapshots since 2026-01-01 has it",
    ] {
        assert!(reason.contains(expected), "{reason}");
    }
    let warned = warnings(&analysis);
    assert!(warned.contains("24 of 60 hosts") && warned.contains("frequency cannot see"), "{warned}");
    assert_eq!(named(&analysis, "web-50")["findings"], json!([]), "the others are quiet");
    let alone = analyze(&env, &["--methods", "frequency"]);
    assert_eq!(named(&alone, "web-20")["score"], 0.0, "frequency is blind here");
}

#[test]
fn a_deploy_raises_nobody_and_is_told_once() {
    let env = plain_days(3);
    let mut today = Day::plain();
    for number in 0..HOSTS {
        // The package on half of the hosts, with what it brings; a rotation of the logs on all.
        if number < 30 {
            today.rows(number, "deb_packages")[0] = package("shop", "1.1");
            today.rows(number, "processes")[1] = process("shop-ng", "/opt/shop/bin/shop-ng");
            today.add([number], "users", &user("shop", 1100));
        }
        today.rows(number, "crontab")[0] = cron("/usr/local/bin/rotate --all");
    }
    today.import(&env, 3);
    let analysis = analyze(&env, &["--methods", "history"]);
    for host in analysis["hosts"].as_array().unwrap() {
        assert_eq!(host["findings"], json!([]), "{host:#}");
    }
    let campaigns = analysis["campaigns"].as_array().unwrap();
    let reasons: Vec<&str> = campaigns.iter().map(|campaign| campaign["reason"].as_str().unwrap()).collect();
    assert_eq!(campaigns.len(), 2, "{reasons:?}");
    assert!(
        reasons[0]
            .starts_with("a deploy on 30 hosts since 2026-01-03: 3 rows of deb_packages, processes, users"),
        "{reasons:?}"
    );
    assert!(reasons[0].contains("`shop`") && reasons[0].contains("`1.1`"), "{reasons:?}");
    assert_eq!(campaigns[0]["hosts"].as_array().unwrap().len(), 30);
    assert!(
        reasons[1].contains("1 row of crontab came to (nearly) all hosts since 2026-01-03"),
        "{reasons:?}"
    );
}

#[test]
fn what_a_host_always_had_and_has_no_more_is_missing() {
    let env = TestEnv::new();
    let with_agent = || {
        let mut day = Day::plain();
        day.add(0..40, "processes", &process("auditd", "/sbin/auditd"));
        day
    };
    (0..5).for_each(|day| {
        with_agent().import(&env, day);
    });
    let mut today = with_agent();
    today.rows(21, "processes").retain(|row| row["name"] != "auditd");
    today.import(&env, 5);
    let analysis = analyze(&env, &[]);
    let found = named(&analysis, "web-21");
    assert_eq!(found["rank"], 1, "{found}");
    let finding = &found["findings"][0];
    assert_eq!(
        (&finding["method"], &finding["kind"]),
        (&json!("history"), &json!("missing")),
        "a third never had it"
    );
    assert!(
        finding["reason"].as_str().unwrap().contains("of 40 hosts that always had it 39 still have it"),
        "{finding}"
    );
    assert_eq!(named(&analysis, "web-45")["findings"], json!([]), "who never had it lacks nothing");
}

#[test]
fn without_a_past_that_is_said() {
    let env = plain_days(1);
    let analysis = analyze(&env, &[]);
    let methods = json!(["frequency", "missing", "campaigns", "cluster"]);
    assert_eq!((&analysis["history"], &analysis["methods"]), (&Value::Null, &methods));
    let nothing =
        "no earlier snapshot within 30d: nothing tells an administrator's one-off from an intruder's";
    assert!(warnings(&analysis).contains(nothing), "{analysis}");
    assert!(env.ok(&["analyze"]).contains("no earlier snapshot within 30d"));
    assert!(!warnings(&analyze(&env, &["--history", "none"])).contains("earlier snapshot"));
    let stderr = env.fails(&["analyze", "--methods", "history"], 2);
    assert!(stderr.contains("no past to compare with"), "{stderr}");
    let stderr = env.fails(&["analyze", "--history", "soon"], 2);
    assert!(stderr.contains("`soon` is no span of time"), "{stderr}");
    // Out of the span, and of another fleet.
    Day::plain().import(&env, 60);
    env.import(&env.path("day-0"), &["--fleet", "other", "--collected-at", &date(59)]);
    assert_eq!(analyze(&env, &["--fleet", "web"])["history"], Value::Null);
    assert_eq!(analyze(&env, &["--fleet", "web", "--history", "9w"])["history"]["snapshots"], 1);
}

#[test]
fn a_damaged_earlier_snapshot_is_a_warning() {
    let env = TestEnv::new();
    let ids: Vec<String> = (0..4).map(|day| Day::plain().import(&env, day)).collect();
    let files = env.sh(&format!(
        "printf x >> \"$(find diffy-store/hosts -path '*{}*' -type f)\"; printf x >> \"$(find diffy-store/prevalence/users -path '*{}*' -type f)\"; printf x >> \"$(find diffy-store/snapshots -name '*{}*')\"",
        ids[0], ids[1], ids[2]
    ));
    assert_eq!(files.status, 0, "{}", files.stderr);
    Day::plain().import(&env, 4);
    let analysis = analyze(&env, &[]);
    assert_eq!(analysis["history"]["snapshots"], 2, "{:#}", analysis["warnings"]);
    let warned = warnings(&analysis);
    assert!(warned.contains(&format!("snapshot {} is left out of history", ids[0])), "{warned}");
    assert!(warned.contains(&format!("table `users` of snapshot {} is left out", ids[1])), "{warned}");
    assert!(warned.contains(&ids[2]), "{warned}");
}

#[test]
fn hosts_come_and_go_without_confusing_the_past() {
    let env = TestEnv::new();
    let mut before = Day::plain();
    // Ordinals shift: hosts that sort first are gone today.
    before.0.retain(|(host, ..)| host != "web-40");
    before.0.extend((0..5).map(|number| (format!("aaa-{number}"), "users", json!([user("root", 0)]))));
    before.add([20], "users", &user("old", 1400));
    (0..3).for_each(|day| {
        before.import(&env, day);
    });
    let mut today = Day::plain();
    today.add([20, 21], "users", &user("old", 1400));
    today.import(&env, 3);
    let analysis = analyze(&env, &[]);
    let reason = |host: &str| named(&analysis, host)["findings"][0]["reason"].as_str().unwrap().to_owned();
    assert!(reason("web-20").contains("on this host since 2026-01-01"), "{}", reason("web-20"));
    assert!(
        reason("web-21").contains("new on this host; others have had it since 2026-01-01"),
        "{}",
        reason("web-21")
    );
    assert_eq!(named(&analysis, "web-40")["findings"], json!([]), "a new host is no finding");
}

#[test]
fn a_baseline_of_the_past_has_what_any_day_had() {
    let env = TestEnv::new();
    let ids: Vec<String> = (0..3)
        .map(|day| {
            let mut rows = Day::plain();
            // Another host each day: three hosts in all have it.
            rows.add([day as u32], "users", &user("oncall", 1500));
            rows.import(&env, day)
        })
        .collect();
    let made = env.ok(&["baseline", "create", "past", "--history", "30d"]);
    assert!(made.contains(&format!("snapshot  3: {}", ids.join(", "))), "{made}");
    assert_eq!(env.ok(&["baseline", "show", "past"]), made);
    env.ok(&["baseline", "create", "strict", "--history", "30d", "--quorum", "4"]);
    env.ok(&["baseline", "create", "today"]);
    let mut today = Day::plain();
    today.add([30], "users", &user("oncall", 1500));
    today.import(&env, 3);
    let unknown = |baseline: &str| {
        let analysis = analyze(&env, &["--methods", "baseline", "--baseline", baseline]);
        let findings = named(&analysis, "web-30")["findings"].as_array().unwrap().len();
        (findings, analysis["baseline"]["snapshots"].as_array().unwrap().len())
    };
    assert_eq!(unknown("past"), (0, 3));
    assert_eq!(unknown("strict"), (1, 3), "three hosts are no quorum of four");
    assert_eq!(unknown("today"), (0, 1), "one host had it that day");
    assert!(
        env.query_one("SELECT snapshots FROM baselines WHERE name = 'past'")
            .as_str()
            .unwrap()
            .contains(&ids[0])
    );
    let stderr = env.fails(&["baseline", "create", "x", "--history", "30d", "--host", "nobody"], 2);
    assert!(stderr.contains("did not answer in any of these snapshots"), "{stderr}");
}

#[test]
fn the_time_of_an_import_can_be_given() {
    let env = TestEnv::new();
    Day::plain().import(&env, 0);
    assert_eq!(env.query_one("SELECT CAST(dt AS VARCHAR) FROM snapshots"), "2026-01-01");
    for time in ["yesterday", "2026-13-01", "1969-12-31", "2026-01-01T08:00:00"] {
        let stderr = env.fails(&["import", "day-0", "--fleet", "web", "--collected-at", time], 2);
        assert!(stderr.contains("expected a time since 1970"), "{stderr}");
    }
}
