//! A diffy that is brought to hosts without osquery.

use std::fs;

use super::farm::{Farm, Manners};
use crate::env::finish;

#[test]
fn this_program_answers_where_there_is_no_osquery_and_goes_away() {
    let farm = Farm::new(&[("bare", Manners::NoOsquery), ("has-one", Manners::Good)]);
    let output = farm.run(&["--tables", "users,mounts", "--push-binary"]);
    assert_eq!(output.status, 0, "{}", output.stderr);
    assert!(output.stderr.contains("hosts without osquery get a diffy"), "{}", output.stderr);
    // This machine's own users, from its files.
    let users = farm.users();
    assert!(users.contains(&("bare".to_owned(), "root".to_owned())), "{users:?}");
    assert!(users.contains(&("has-one".to_owned(), "has-one".to_owned())), "{users:?}");
    assert_eq!(farm.coverage("bare", "mounts").0, "ok");
    let versions =
        farm.env.query("SELECT DISTINCT host, osquery_version FROM current.coverage ORDER BY host");
    assert!(
        versions[0]["osquery_version"].is_null() && versions[1]["osquery_version"] == "5.10.2",
        "{versions:?}"
    );
    farm.wait_until_clean();
}

#[test]
fn a_program_that_cannot_run_there_is_not_brought_or_says_why() {
    let farm = Farm::new(&[("bare", Manners::NoOsquery)]);
    let here = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
    let elsewhere = 62 + 183 - here;
    farm.env.write("foreign", elf(elsewhere));
    farm.env.write("broken", elf(here));
    farm.env.write("script", "#!/bin/sh\n");
    for (program, expected) in [("foreign", "the program is for Linux on"), ("broken", "no diffy: ")] {
        let output = farm.run(&["--tables", "users", "--push-binary", program]);
        assert_eq!(output.status, 1, "{}", output.stderr);
        farm.expect(
            "bare",
            "not_supported",
            "the host has no osquery, and the program that was brought does not run",
        );
        farm.expect("bare", "not_supported", expected);
        fs::remove_dir_all(farm.env.store()).unwrap();
    }
    let output = farm.run(&["--tables", "users", "--push-binary", "script"]);
    assert_eq!(output.status, 2);
    assert!(output.stderr.contains("`script` is no Linux program"), "{}", output.stderr);
    farm.wait_until_clean();
}

#[test]
fn a_fleet_of_the_configuration_says_what_is_brought() {
    let farm = Farm::new(&[("bare", Manners::NoOsquery)]);
    let fleet = |more: &str| {
        farm.env.write(
            "diffy.toml",
            format!(
                "[[fleets]]\nname = \"racks\"\ntargets = [\"hosts:hosts.txt\"]\nssh_config = \"ssh_config\"\n\
                 tables = [\"users\"]\n{more}\n"
            ),
        );
    };
    farm.env.write("script", "#!/bin/sh\n");
    let collect = ["collect", "--fleet", "racks"];
    for (more, why) in [
        ("push_binary = \"script\"", "`script` is no Linux program"),
        ("push_binary = 3", "push_binary is true, false or the path of a program"),
        ("collector = \"exec:true\"", "`--ssh-config` (`ssh_config` in diffy.toml) is for hosts"),
        ("collector = \"exec:true\"\nsudo = true", "`--sudo` (`sudo` in diffy.toml) is for hosts"),
    ] {
        fleet(more);
        let refused = farm.env.fails(&collect, 2);
        assert!(refused.contains(why), "{more}: {refused}");
    }
    fleet("push_binary = false");
    let output = finish(farm.env.diffy(&collect));
    assert_eq!(output.status, 1, "{}", output.stderr);
    farm.expect("bare", "not_supported", "the host has no osquery; `--push-binary` brings this diffy");
    fs::remove_dir_all(farm.env.store()).unwrap();
    fleet("push_binary = true");
    let output = finish(farm.env.diffy(&["collect", "--all"]));
    assert_eq!(output.status, 0, "{}", output.stderr);
    farm.expect("bare", "ok", "");
    farm.wait_until_clean();
}

/// The head of an ELF file for this machine, and nothing that could run.
fn elf(machine: u16) -> Vec<u8> {
    let mut bytes = vec![0_u8; 64];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[18..20].copy_from_slice(&machine.to_le_bytes());
    bytes
}
