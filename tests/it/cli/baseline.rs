//! `diffy baseline`.

use serde_json::json;

use crate::env::TestEnv;

/// Three hosts: all have `root`, two have `app`, one has `eve`.
fn three_hosts() -> TestEnv {
    let env = TestEnv::new();
    let user = |name: &str| json!({"username": name, "uid": "7"});
    env.import_tables(&[
        ("a", "users", json!([user("root"), user("app"), user("eve")])),
        ("b", "users", json!([user("root"), user("app")])),
        ("c", "users", json!([user("root")])),
    ]);
    env
}

/// The users that a baseline does not know, on any host.
fn unknown_to(env: &TestEnv, baseline: &str) -> Vec<String> {
    let args = ["analyze", "--methods", "baseline", "--baseline", baseline, "--format", "json"];
    let analysis = env.json(&args);
    let hosts = analysis["hosts"].as_array().unwrap();
    let findings = hosts.iter().flat_map(|host| host["findings"].as_array().unwrap());
    let present = findings.filter(|finding| finding["kind"] == "new" || finding["kind"] == "variant");
    let mut names: Vec<String> =
        present.map(|finding| finding["row"]["username"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn baselines_are_made_listed_shown_and_deleted() {
    let env = three_hosts();
    let made = env.ok(&["baseline", "create"]);
    assert!(made.contains("baseline  default") && made.contains("rows      3 in 1 tables"), "{made}");
    env.ok(&["baseline", "create", "second"]);
    let listed = env.ok(&["baseline", "list"]);
    assert_eq!(listed.lines().count(), 2, "{listed}");
    let shown = env.ok(&["baseline", "show", "second"]);
    assert!(shown.contains("a, b, c") && shown.contains("tester@"), "{shown}");
    assert_eq!(env.query("SELECT name FROM baselines").len(), 2);
    env.ok(&["baseline", "delete", "second"]);
    assert_eq!(env.ok(&["baseline", "list"]).lines().count(), 1);
    let stderr = env.fails(&["baseline", "show", "second"], 2);
    assert!(stderr.contains("there is no baseline `second`"), "{stderr}");
}

#[test]
fn a_baseline_of_all_hosts_knows_all() {
    let env = three_hosts();
    env.ok(&["baseline", "create"]);
    assert_eq!(unknown_to(&env, "default"), [""; 0]);
}

#[test]
fn one_host_may_be_the_baseline() {
    let env = three_hosts();
    env.ok(&["baseline", "create", "golden", "--host", "c"]);
    assert_eq!(unknown_to(&env, "golden"), ["app", "eve"]);
}

#[test]
fn a_quorum_leaves_out_what_too_few_hosts_have() {
    let env = three_hosts();
    env.ok(&["baseline", "create", "most", "--quorum", "2"]);
    assert_eq!(unknown_to(&env, "most"), ["eve"]);
    env.ok(&["baseline", "create", "two", "--host", "a", "--host", "b", "--quorum", "2"]);
    assert_eq!(unknown_to(&env, "two"), ["eve"]);
}

#[test]
fn what_is_no_baseline_is_refused() {
    let env = three_hosts();
    env.ok(&["baseline", "create"]);
    for (args, expected) in [
        (&["create"][..], "has a baseline `default` already"),
        (&["create", "x", "--host", "nobody"], "host `nobody` did not answer"),
        (&["create", "x", "--quorum", "4"], "a quorum of 4 of 3 hosts cannot be"),
        (&["create", "x", "--quorum", "0"], "quorum"),
        (&["create", ""], "baseline"),
        (&["create", "none"], "cannot be called `none`"),
        (&["create", "auto"], "cannot be called `auto`"),
        (&["delete"], "<NAME>"),
        (&["delete", "x"], "there is no baseline `x`"),
    ] {
        let stderr = env.fails(&[&["baseline"], args].concat(), 2);
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
    }
}

#[test]
fn a_name_is_no_path() {
    let env = three_hosts();
    env.ok(&["baseline", "create", "../../x=y"]);
    assert!(env.ok(&["baseline", "list"]).contains("../../x=y"));
    assert!(!env.path("x=y.json").exists());
    env.ok(&["baseline", "delete", "../../x=y"]);
    assert_eq!(env.ok(&["baseline", "list"]), "");
}
