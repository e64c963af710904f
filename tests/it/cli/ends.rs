//! Ctrl-C while somebody else is waited for: programs of the user, or who writes the list of hosts.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use super::plugins::{LIST, is_gone, plugin, run_on_path, sh};
use crate::env::{TestEnv, interrupt, snapshot_id};

/// Waits for what a child does that goes on.
fn wait_for(child: &mut Child, mut is_so: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        assert!(Instant::now() < patience, "it does not come so far");
        std::thread::yield_now();
    }
}

#[test]
fn an_interrupted_collection_leaves_no_plugin_behind() {
    let env = TestEnv::new();
    let list = format!("{} a b", sh(&env, "list.sh", LIST));
    let ask = sh(
        &env,
        "ask.sh",
        r#"read -r request; case $request in *'"host":"a"'*) echo '{"table":"users","rows":[{"username":"u"}]}'; exit;; esac
           trap '' INT TERM; sleep 600 & echo $! > child; echo $$ > leader.new; mv leader.new leader; wait"#,
    );
    let args = ["collect", "--fleet", "web", "--tables", "users", "--targets", &list, "--collector", &ask];
    let mut child = env.diffy(&args).spawn().unwrap();
    wait_for(&mut child, || env.path("leader").exists());
    let ended = interrupt(child);
    assert_eq!(ended.status, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("interrupted; what was received is kept"), "{}", ended.stderr);
    for name in ["leader", "child"] {
        assert!(is_gone(&fs::read_to_string(env.path(name)).unwrap()), "{name}");
    }
    snapshot_id(&env.ok(&["snapshot", "recover"]));
}

#[test]
fn a_list_of_hosts_that_does_not_end_is_waited_for_no_longer() {
    let env = TestEnv::new();
    let done = env.program("mkfifo").arg(env.path("hosts")).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let ask = sh(&env, "ask.sh", "exit 1");
    let args = ["collect", "--fleet", "web", "--targets", "hosts:hosts", "--collector", &ask];
    let mut child = env.diffy(&args).spawn().unwrap();
    // There is no opening a pipe for writing, without waiting, before somebody reads it.
    let mut writer = None;
    wait_for(&mut child, || {
        writer = OpenOptions::new()
            .write(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(env.path("hosts"))
            .ok();
        writer.is_some()
    });
    let ended = interrupt(child);
    assert_eq!(ended.status, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("interrupted; no host was asked"), "{}", ended.stderr);
    assert!(!env.store().exists());
}

#[test]
fn plugins_that_do_not_say_what_they_are_are_ended_with_the_list() {
    let env = TestEnv::new();
    let slow = "#!/bin/sh\ntrap '' INT TERM\necho $$ >leader.new; mv leader.new leader; sleep 600\n";
    plugin(&env, "bin", "diffy-target-slow", slow);
    let mut command = env.diffy(&["plugins", "list"]);
    command.env("PATH", format!("{}:/usr/bin:/bin", env.path("bin").display()));
    let mut child = command.spawn().unwrap();
    wait_for(&mut child, || env.path("leader").exists());
    let ended = interrupt(child);
    assert_eq!(ended.status, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("interrupted"), "{}", ended.stderr);
    assert!(is_gone(&fs::read_to_string(env.path("leader")).unwrap()));
}

#[test]
fn programs_below_a_relative_path_are_not_found() {
    let env = TestEnv::new();
    for dir in ["bin", "."] {
        plugin(&env, dir, "diffy-target-file", "#!/bin/sh\ntouch was-run\n");
    }
    // An empty entry is the directory where one stands.
    for path in ["bin", "./bin", "", "."] {
        let listed = run_on_path(&env, path, &["plugins", "list"]);
        assert!(!listed.stdout.contains("diffy-target-file"), "{path}: {}", listed.stdout);
        let refused = run_on_path(&env, path, &["collect", "--fleet", "web", "--targets", "file:x"]);
        assert_eq!(refused.status, 2, "{path}");
        assert!(refused.stderr.contains("there is no target `file`"), "{path}: {}", refused.stderr);
    }
    assert!(!env.path("was-run").exists());
}
