//! Fifty hosts, ten of which misbehave: what is reported, and how long it takes.

use std::time::Instant;

use diffy::simulate::SimulationConfig;
use serde_json::Value;

use super::farm::{Farm, Manners};
use crate::env::{TestEnv, write_simulation};

const HOSTS: usize = 50;

/// What ten of them do, and what is said of it: status and a part of the sentence.
const BAD: [(Manners, &str, &str); 10] = [
    (Manners::Refused, "undeliverable", "connection refused"),
    (Manners::OtherKey, "undeliverable", "its host key is another one than known_hosts has"),
    (Manners::UnknownKey, "undeliverable", "known_hosts has no key for it"),
    (Manners::NoLogin, "undeliverable", "login refused"),
    (Manners::Silent, "undeliverable", "no connection in time"),
    // The shell never runs the script; it ends when its connection does.
    (Manners::Forced("exec cat"), "timeout", "no login within 60 s"),
    (
        Manners::Forced(r#"sh -c "$SSH_ORIGINAL_COMMAND" | sed "s/^sha256 .*/sha256 $(printf %064d 0)/""#),
        "error",
        "another sha256 than the host said",
    ),
    (Manners::Forced(r#"sh -c "$SSH_ORIGINAL_COMMAND"; exec yes"#), "ok", ""),
    (
        Manners::Forced(r#"sh -c "$SSH_ORIGINAL_COMMAND" | { head -c 20000; kill -KILL $PPID; }"#),
        "undeliverable",
        "the connection broke while the host answered",
    ),
    (Manners::Forced(r#"AWS_SSM_INSTANCE_ID=another sh -c "$SSH_ORIGINAL_COMMAND""#), "ok", ""),
];

#[test]
fn fifty_hosts_of_which_ten_misbehave() {
    let env = TestEnv::new();
    let truth = write_simulation(&env.path("answers"), SimulationConfig::new(HOSTS, 1, 5));
    drop(truth);
    let mut names: Vec<String> = std::fs::read_dir(env.path("answers"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), HOSTS);
    // Every fifth.
    let manners = |at: usize| if at % 5 == 2 { BAD[at / 5].0 } else { Manners::Good };
    let hosts = names.iter().enumerate().map(|(at, name)| (name.clone(), manners(at))).collect();
    let farm = Farm::start(env, hosts);
    let began = Instant::now();
    let output = farm.run(&[]);
    let took = began.elapsed();
    #[expect(clippy::print_stdout, reason = "shown with --nocapture")]
    {
        println!(
            "$ diffy collect --targets hosts:hosts.txt --collector ssh --fleet web --ssh-config ssh_config"
        );
        println!("{}{}took {:.1} s", output.stdout, output.stderr, took.as_secs_f64());
    }
    assert_eq!(output.status, 0, "{}", output.stderr);
    assert!(output.stdout.contains("hosts     50 asked, 42 answered, 8 failed"), "{}", output.stdout);
    for (at, (_, status, why)) in BAD.iter().enumerate() {
        farm.expect(&names[5 * at + 2], status, why);
    }
    assert!(output.stderr.contains("answers under the name `another`"), "{}", output.stderr);
    whole(&farm, &names);
    farm.wait_until_clean();
}

/// Every row of the hosts that behave is here.
fn whole(farm: &Farm, names: &[String]) {
    for (at, name) in names.iter().enumerate().filter(|(at, _)| at % 5 != 2) {
        let path = farm.env.path(format!("answers/{name}/users.json"));
        let Ok(text) = std::fs::read_to_string(path) else { continue };
        let rows: Vec<Value> = serde_json::from_str(&text).unwrap();
        let found = farm.env.query_one(&format!("SELECT count(*) FROM current.users WHERE host = '{name}'"));
        assert_eq!(found, rows.len(), "host {at}");
    }
}
