//! `diffy analyze --suppress`, `--suppress-add` and `--priors`.

use diffy::catalog::Catalog;
use serde_json::{Value, json};

use crate::env::TestEnv;

/// Forty hosts with the same users; two have one more each.
fn fleet() -> TestEnv {
    let env = TestEnv::new();
    let hosts: Vec<String> = (0..40).map(|number| format!("web-{number:02}")).collect();
    let user =
        |name: &str, uid: &str| json!({"username": name, "uid": uid, "gid": uid, "shell": "/bin/bash"});
    let tables: Vec<(&str, &str, Value)> = hosts
        .iter()
        .map(|host| {
            let mut users = vec![user("root", "0")];
            match host.as_str() {
                "web-07" => users.push(user("toor", "0")),
                "web-11" => users.push(user("backup*", "4711")),
                _ => {}
            }
            (host.as_str(), "users", Value::Array(users))
        })
        .collect();
    env.import_tables(&tables);
    env
}

fn id_of(env: &TestEnv, host: &str) -> String {
    let analysis = env.json(&["analyze", "--format", "json"]);
    let hosts = analysis["hosts"].as_array().unwrap();
    let found = hosts.iter().find(|found| found["host"] == host).unwrap();
    found["findings"][0]["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_finding_that_somebody_vouches_for_is_counted_and_not_ranked() {
    let env = fleet();
    env.write("known.toml", "# What we know.\n");
    let id = id_of(&env, "web-11");
    let add = [
        "analyze",
        "--suppress",
        "known.toml",
        "--suppress-add",
        &id,
        "--reason",
        "restores",
        "--until",
        "2999-12-31",
    ];
    let added = env.run(&add);
    assert_eq!((added.status, added.stdout.as_str()), (0, ""), "{}", added.stderr);
    assert!(added.stderr.contains("added to known.toml"), "{}", added.stderr);
    let file = std::fs::read_to_string(env.path("known.toml")).unwrap();
    assert!(
        file.starts_with("# What we know.\n\n[[suppress]]\ntable = \"users\"\nkind = \"new\"\n"),
        "{file}"
    );
    for expected in ["who = \"tester@", "until = 2999-12-31", "\"username\" = \"backup\\\\*\""] {
        assert!(file.contains(expected), "{expected}: {file}");
    }
    let analysis = env.json(&["analyze", "--suppress", "known.toml", "--format", "json"]);
    let suppressed = &analysis["suppressed"];
    assert_eq!((&suppressed["findings"], &suppressed["hosts"]), (&json!(1), &json!(1)));
    assert_eq!(suppressed["by"][0]["reason"], "restores");
    assert!(suppressed.get("list").is_none());
    for host in analysis["hosts"].as_array().unwrap() {
        let is_it = host["host"] == "web-11";
        assert_eq!(host["suppressed"], u64::from(is_it));
        assert!(!is_it || (host["findings"] == json!([]) && host["score"] == 0.0), "{host}");
    }
    assert_eq!(analysis["hosts"][0]["host"], "web-07");
    let table = env.ok(&["analyze", "--suppress", "known.toml"]);
    assert!(table.contains("1 finding on 1 host is suppressed: 1 × restores (tester@"), "{table}");
    assert!(!table.contains("web-11  "), "{table}");
    let table = env.ok(&["analyze", "--suppress", "known.toml", "--show-suppressed"]);
    assert!(table.contains("web-11  ") && table.contains("new users"), "{table}");
    // The same again is no finding any more, and says so.
    let stderr = env.fails(&add, 2);
    assert!(stderr.contains("suppressed already"), "{stderr}");
}

#[test]
fn the_configuration_names_files_too_and_new_ones_are_made() {
    let env = fleet();
    let id = id_of(&env, "web-07");
    env.ok(&["analyze", "--suppress", "new.toml", "--suppress-add", &id, "--reason", "drill", "--this-host"]);
    assert!(std::fs::read_to_string(env.path("new.toml")).unwrap().contains("host = \"web-07\""));
    env.write("diffy.toml", "suppress = [\"new.toml\"]\n");
    assert_eq!(env.json(&["analyze", "--format", "json"])["suppressed"]["findings"], 1);
    let ndjson = env.ok(&["analyze", "--format", "ndjson"]);
    let lines: Vec<Value> = ndjson.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_host = lines.iter().find(|line| line["host"] == "web-07").unwrap();
    assert_eq!((&of_host["host_suppressed"], &of_host["id"]), (&json!(1), &Value::Null));
}

#[test]
fn expired_and_useless_suppressions_are_told() {
    let env = fleet();
    let said = "reason = \"old\"\nwho = \"ann\"\ntable = \"users\"\n";
    let old = format!("[[suppress]]\n{said}columns = {{ username = \"toor\" }}\nuntil = 2020-01-31\n");
    env.write("old.toml", format!("{old}[[suppress]]\n{said}columns = {{ username = \"nobody\" }}\n"));
    let analysis = env.json(&["analyze", "--suppress", "old.toml", "--format", "json"]);
    assert_eq!(analysis["suppressed"]["findings"], 0);
    assert_eq!(analysis["hosts"][0]["host"], "web-07");
    let warnings = analysis["warnings"].to_string();
    assert!(
        warnings.contains("old.toml:1: suppression expired on 2020-01-31, 1 finding back: old"),
        "{warnings}"
    );
    let output = env.run(&["analyze", "-v", "--suppress", "old.toml"]);
    assert!(output.stderr.contains("suppression took nothing"), "{}", output.stderr);
}

#[test]
fn what_cannot_be_suppressed_is_said() {
    let env = fleet();
    let id = id_of(&env, "web-07");
    env.write("bad.toml", "[[suppress]]\ntable = \"users\"\nwho = \"a\"\ncolumns = { username = \"x\" }\n");
    env.write("wide.toml", "[[suppress]]\ntable = \"*\"\nreason = \"r\"\nwho = \"a\"\n");
    env.write("key.toml", "[[suppress]]\ntabel = \"users\"\nreason = \"r\"\nwho = \"a\"\n");
    for (args, expected) in [
        (&["--suppress", "none.toml"][..], "cannot read `none.toml`"),
        (&["--suppress", "bad.toml"], "needs `reason`"),
        (&["--suppress", "bad.toml"], "line: 1"),
        (&["--suppress", "wide.toml"], "takes every finding"),
        (&["--suppress", "key.toml"], "tabel"),
        (&["--suppress-add", &id, "--suppress", "n.toml"], "--reason"),
        (&["--suppress-add", &id, "--suppress", "n.toml", "--reason", " "], "needs a reason"),
        (&["--suppress-add", &id, "--reason", "r"], "which file of suppressions?"),
        (&["--suppress-add", "nope", "--suppress", "n.toml", "--reason", "r"], "there is no finding `nope`"),
        (
            &["--suppress-add", &id, "--suppress", "n.toml", "--reason", "r", "--until", "soon"],
            "`soon` is no date",
        ),
        (
            &["--suppress-add", &id, "--suppress", "n.toml", "--reason", "r", "--until", "2020-01-01"],
            "in the past",
        ),
        (&["--priors", "maybe"], "possible values: on, off"),
    ] {
        let stderr = env.fails(&[&["analyze"], args].concat(), 2);
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
    }
    assert!(!env.path("n.toml").exists());
}

/// What the schemas give for what is said of a finding, in bits.
fn bits(finding: &Value) -> f64 {
    let catalog = Catalog::builtin().unwrap();
    let table = catalog.table(finding["table"].as_str().unwrap()).unwrap();
    let said = finding["priors"].as_array().unwrap();
    table.priors.iter().filter(|prior| said.contains(&json!(prior.says))).map(|prior| prior.bits).sum()
}

#[test]
fn priors_change_the_score_and_can_be_switched_off() {
    let env = TestEnv::new();
    env.import_fleet(40, 3, 1);
    let of = |priors: &str| env.json(&["analyze", "--format", "json", "--priors", priors]);
    let (on, off) = (of("on"), of("off"));
    let findings = |analysis: &Value| -> Vec<Value> {
        let hosts = analysis["hosts"].as_array().unwrap().iter();
        hosts.flat_map(|host| host["findings"].as_array().unwrap().clone()).collect()
    };
    assert!(findings(&off).iter().all(|finding| finding["priors"] == json!([])));
    let (with, without) = (findings(&on), findings(&off));
    let spoken: Vec<&Value> = with.iter().filter(|finding| finding["priors"] != json!([])).collect();
    assert!(!spoken.is_empty());
    for finding in spoken {
        let says = finding["priors"][0].as_str().unwrap();
        assert!(finding["reason"].as_str().unwrap().contains(&format!("; it {says}")), "{finding}");
        // A row whose content alone speaks is a finding by its priors only.
        let Some(same) = without.iter().find(|other| other["id"] == finding["id"]) else {
            assert!(bits(finding) > 0.0, "{finding}");
            continue;
        };
        let (score, before) = (finding["score"].as_f64(), same["score"].as_f64());
        // What speaks for an intruder adds, what is routine takes away.
        assert!(if bits(finding) > 0.0 { score >= before } else { score <= before }, "{finding}");
    }
}
