//! Fifty hosts, ten of which misbehave: what is reported, and how long it takes.

use std::fs;
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
    let names = answers(&env);
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
        println!("{}{}", output.stdout, output.stderr);
        println!("took {:.1} s; {}", took.as_secs_f64(), answered_after(&farm));
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

/// When the hosts that answer had done so.
fn answered_after(farm: &Farm) -> String {
    let sql = "SELECT date_part('epoch', max(ended)) - date_part('epoch', min(started)) AS last,
        approx_percentile_cont(date_part('epoch', ended), 0.5) - date_part('epoch', min(started)) AS median
        FROM current.coverage WHERE status = 'ok'";
    let row = &farm.env.query(sql)[0];
    let seconds = |name: &str| row[name].as_f64().unwrap();
    format!(
        "half of the answers were there after {:.1} s, all after {:.1} s",
        seconds("median"),
        seconds("last")
    )
}

/// Writes the answers of a simulated fleet, and names fifty of its hosts that have some.
fn answers(env: &TestEnv) -> Vec<String> {
    let dir = env.path("answers");
    write_simulation(&dir, SimulationConfig::new(HOSTS + 10, 1, 5));
    let names = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| dir.join(name).join("users.json").exists()).collect();
    names.sort();
    names.truncate(HOSTS);
    assert_eq!(names.len(), HOSTS);
    names
}

/// Every row of the hosts that behave is here.
fn whole(farm: &Farm, names: &[String]) {
    for (at, name) in names.iter().enumerate().filter(|(at, _)| at % 5 != 2) {
        let path = farm.env.path(format!("answers/{name}/users.json"));
        let rows: Vec<Value> = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let found = farm.env.query_one(&format!("SELECT count(*) FROM current.users WHERE host = '{name}'"));
        assert_eq!(found, rows.len(), "host {at}");
    }
}
