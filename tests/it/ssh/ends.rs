//! Ends before the end: whoever goes away, hosts are left as they were, and what came is kept.

use std::fs;
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

use super::farm::{Farm, Manners, wait_until};
use crate::env::{interrupt, output};

/// The session's process is known, so that a test can end it.
const NOTED: &str = r#"echo $PPID >"$HOST_DIR/session"; exec sh -c "$SSH_ORIGINAL_COMMAND""#;

/// Starts a collection of one host that answers and one that hangs in its second table, one after the other, and waits
/// until both did.
fn start() -> (Farm, Child) {
    let farm = Farm::new(&[("quick", Manners::Good), ("hangs", Manners::Forced(NOTED))]);
    fs::write(farm.find("hangs").path("hang.crontab"), "").unwrap();
    let child = farm.collect(&["--tables", "users,crontab", "--concurrency", "1"]).spawn().unwrap();
    wait_until("the query that hangs is not asked", || farm.find("hangs").path("asked").exists());
    (farm, child)
}

#[test]
fn who_is_interrupted_ends_the_work_on_hosts_and_keeps_what_came() {
    let (farm, child) = start();
    let ended = interrupt(child);
    assert_eq!(ended.status, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("what was received is kept"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("could be told to stop"), "{}", ended.stderr);
    farm.wait_until_clean();
    let recover = ended.stderr.split('`').find(|part| part.starts_with("diffy snapshot recover")).unwrap();
    let recovered = farm.env.sh(&recover.replacen("diffy", "$DIFFY", 1));
    assert_eq!(recovered.status, 0, "{}", recovered.stderr);
    farm.expect("quick", "ok", "");
    farm.expect("hangs", "not_asked", "");
}

#[test]
fn who_is_killed_ends_the_work_on_hosts_too() {
    let (farm, mut child) = start();
    child.kill().unwrap();
    child.wait().unwrap();
    farm.wait_until_clean();
}

#[test]
fn a_connection_that_dies_ends_the_work_on_its_host() {
    let (farm, child) = start();
    let session = fs::read_to_string(farm.find("hangs").path("session")).unwrap();
    let session = Pid::from_raw(session.trim().parse().unwrap()).unwrap();
    kill_process(session, Signal::KILL).unwrap();
    let ended = output(child.wait_with_output().unwrap());
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    farm.expect("quick", "ok", "");
    farm.expect("hangs", "undeliverable", "the connection broke while the host answered");
    farm.wait_until_clean();
}
