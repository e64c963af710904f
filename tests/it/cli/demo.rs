//! `diffy demo`.

use serde_json::Value;

use crate::env::TestEnv;

/// A demo that does not depend on the machine.
fn bundled(env: &TestEnv, seed: &str) -> Value {
    env.json(&[
        "demo",
        "--bundled",
        "--hosts",
        "40",
        "--compromised",
        "2",
        "--seed",
        seed,
        "--format",
        "json",
    ])
}

#[test]
fn planted_hosts_rank_first_and_what_was_planted_is_found() {
    let env = TestEnv::new();
    for seed in ["1", "2"] {
        let demo = bundled(&env, seed);
        assert_eq!(demo["simulated"], true);
        let planted = demo["planted"].as_array().unwrap();
        let mut ranks: Vec<_> = planted.iter().map(|host| host["rank"].as_u64().unwrap()).collect();
        ranks.sort_unstable();
        assert_eq!(ranks, [1, 2], "seed {seed}");
        let scenarios: Vec<&Value> =
            planted.iter().flat_map(|host| host["planted"].as_array().unwrap()).collect();
        let found = scenarios.iter().filter(|scenario| scenario["found"] == true).count();
        assert!(found * 10 >= scenarios.len() * 8, "seed {seed}: found {found} of {}", scenarios.len());
        assert_eq!(demo["analysis"]["hosts"].as_array().unwrap().len(), 40, "every host is listed");
    }
}

/// The planted scenarios by host of a demo of 40 hosts with these flags.
fn planted(env: &TestEnv, flags: &[&str]) -> Vec<Vec<String>> {
    let demo = ["demo", "--bundled", "--hosts", "40", "--format", "json"];
    let demo = env.json(&[&demo, flags].concat());
    let scenarios = |host: &Value| -> Vec<String> {
        let planted = host["planted"].as_array().unwrap().iter();
        planted.map(|scenario| scenario["scenario"].as_str().unwrap().to_owned()).collect()
    };
    demo["planted"].as_array().unwrap().iter().map(scenarios).collect()
}

#[test]
fn a_mixed_fleet_can_have_one_scenario_a_host_or_a_campaign() {
    let env = TestEnv::new();
    let one = planted(&env, &["--profile", "nine-roles", "--attacks", "one", "--compromised", "4"]);
    assert_eq!(one.len(), 4);
    assert!(one.iter().all(|scenarios| scenarios.len() == 1), "{one:?}");
    let many = planted(&env, &["--profile", "nine-roles", "--attacks", "campaign"]);
    assert!(many.len() >= 12 && many.iter().all(|scenarios| scenarios == &["campaign"]), "{many:?}");
    let stderr = env.fails(&["demo", "--profile", "ten-roles"], 2);
    assert!(stderr.contains("no such profile: `ten-roles`"), "{stderr}");
}

#[test]
fn the_same_seed_makes_the_same_answer() {
    let env = TestEnv::new();
    let ranking = |demo: &Value| -> Vec<(Value, Value)> {
        let hosts = demo["analysis"]["hosts"].as_array().unwrap();
        hosts.iter().map(|host| (host["host"].clone(), host["score"].clone())).collect()
    };
    let (one, two) = (bundled(&env, "3"), bundled(&env, "3"));
    assert_eq!(one["planted"], two["planted"]);
    assert_eq!(ranking(&one), ranking(&two));
}

#[test]
fn the_table_says_that_it_is_simulated_and_what_to_try_next() {
    let env = TestEnv::new();
    let output = env.run(&["demo", "--bundled", "--hosts", "20", "--compromised", "1", "--store", "kept"]);
    assert_eq!(output.status, 0, "{}", output.stderr);
    assert!(output.stdout.starts_with("This fleet is SIMULATED"), "{}", output.stdout);
    assert!(output.stderr.contains("the hosts are simulated"), "{}", output.stderr);
    for expected in ["What was planted", "rank 1", "Try next:"] {
        assert!(output.stdout.contains(expected), "{expected}: {}", output.stdout);
    }
    // The commands that it proposes work as they stand.
    let proposed = output.stdout.lines().filter_map(|line| line.strip_prefix("  diffy "));
    let proposed: Vec<&str> = proposed.collect();
    assert!(proposed.len() >= 4, "{proposed:?}");
    for line in proposed {
        let run = env.sh(&format!("$DIFFY {line}"));
        assert_eq!(run.status, 0, "{line}: {}", run.stderr);
        assert!(!run.stdout.is_empty(), "{line}");
    }
}

#[test]
fn without_a_store_and_a_report_nothing_is_left_behind() {
    let env = TestEnv::new();
    env.ok(&["demo", "--bundled", "--hosts", "5", "--compromised", "1", "--report", "none"]);
    assert!(!env.store().exists());
    let left: Vec<_> = std::fs::read_dir(env.path("")).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "only the home: {left:?}");
    env.ok(&["demo", "--bundled", "--hosts", "5", "--compromised", "1", "--keep"]);
    assert!(env.store().join("diffy-store.json").exists());
}

#[test]
fn more_hosts_than_it_can_simulate_are_refused() {
    let env = TestEnv::new();
    let stderr = env.fails(&["demo", "--bundled", "--hosts", "50001"], 2);
    assert!(stderr.contains("cannot simulate `50001` hosts") && stderr.contains("1 to 50000"), "{stderr}");
    let stderr = env.fails(&["demo", "--bundled", "--hosts", "3", "--compromised", "9"], 2);
    assert!(stderr.contains("cannot compromise `9` hosts"), "{stderr}");
    let stderr = env.fails(&["demo", "--format", "csv"], 2);
    assert!(stderr.contains("--format json"), "{stderr}");
}

/// Words of this machine that must not enter the store of a demo: its name, the names of its people, values of its
/// environment. Words that every Linux machine has say nothing of this one.
fn own_words() -> Vec<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut words = vec![read("/proc/sys/kernel/hostname").trim().to_owned(), SECRET.to_owned()];
    words.push(read("/etc/machine-id").trim().to_owned());
    words.push(read("/proc/sys/kernel/random/boot_id").trim().to_owned());
    let people = read("/etc/passwd");
    let is_person = |line: &&str| {
        let uid = line.split(':').nth(2).and_then(|uid| uid.parse::<u32>().ok());
        uid.is_some_and(|uid| (1000..60_000).contains(&uid))
    };
    words.extend(
        people.lines().filter(is_person).filter_map(|line| line.split(':').next()).map(str::to_owned),
    );
    // Names such as `vm` and `admin` are in the bundled sample, or inside of other words, by chance.
    words.retain(|word| word.len() >= 6);
    words
}

/// In the environment of the demo, and of a process that runs beside it.
const SECRET: &str = "hunter2-zq81-secret";

#[test]
#[cfg(target_os = "linux")]
fn nothing_of_this_machine_enters_the_store() {
    let env = TestEnv::new();
    env.write("home/.bash_history", format!("curl -H {SECRET} x\n"));
    let mut neighbour = env.program("sleep").arg("600").env("TOKEN", SECRET).spawn().unwrap();
    let output = env.run_with(
        &["demo", "--hosts", "3", "--compromised", "1", "--store", "kept"],
        &[("AWS_SECRET_ACCESS_KEY", SECRET)],
    );
    neighbour.kill().unwrap();
    neighbour.wait().unwrap();
    assert_eq!(output.status, 0, "{}", output.stderr);
    let words = own_words();
    let tables = env.json(&[
        "query",
        "--store",
        "kept",
        "--format",
        "json",
        "SELECT DISTINCT table_name FROM coverage WHERE status = 'ok' ORDER BY table_name",
    ]);
    let tables: Vec<&str> =
        tables.as_array().unwrap().iter().map(|row| row["table_name"].as_str().unwrap()).collect();
    assert!(tables.len() > 20, "{tables:?}");
    for table in tables.into_iter().chain(["hosts", "coverage", "prevalence"]) {
        let rows =
            env.ok(&["query", "--store", "kept", "--format", "ndjson", &format!("SELECT * FROM {table}")]);
        assert!(!rows.is_empty(), "{table}");
        for word in &words {
            // Not the word: a failure must not print what must not be printed.
            let line = rows.lines().position(|line| line.contains(word.as_str()));
            assert!(line.is_none(), "{table}, line {line:?}, has a word of this machine");
        }
    }
}
