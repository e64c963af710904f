//! The help texts are the reference: a change of one shows in a diff. Completions.

use std::fs;

use regex::Regex;

use crate::env::{TestEnv, finish, set_up_debian};

/// Every command, and every subcommand that has flags of its own.
const COMMANDS: [&str; 28] = [
    "",
    "demo",
    "collect",
    "import",
    "analyze",
    "baseline",
    "baseline create",
    "baseline list",
    "baseline show",
    "baseline delete",
    "snapshot",
    "snapshot list",
    "snapshot show",
    "snapshot verify",
    "snapshot recover",
    "snapshot delete",
    "snapshot prune",
    "query",
    "store",
    "store ddl",
    "cluster",
    "cluster scheduler",
    "cluster executor",
    "tables",
    "plugins",
    "plugins list",
    "completions",
    "man",
];

#[test]
fn the_help_of_every_command() {
    let env = TestEnv::new();
    for command in COMMANDS {
        let mut args: Vec<&str> = command.split_whitespace().collect();
        args.push("--help");
        let name = if command.is_empty() { "diffy".to_owned() } else { command.replace(' ', "-") };
        insta::assert_snapshot!(format!("help-{name}"), env.scrub(&env.ok(&args)));
    }
}

#[test]
fn every_command_is_in_the_list_above() {
    let env = TestEnv::new();
    for command in COMMANDS {
        let mut args: Vec<&str> = command.split_whitespace().collect();
        args.push("-h");
        let help = env.ok(&args);
        let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
        let names = listed.take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("    "));
        for name in names.filter_map(|line| line.split_whitespace().next()) {
            let full = format!("{command} {name}").trim().to_owned();
            let has_own_flags = !["tables list", "tables show"].contains(&full.as_str());
            assert!(COMMANDS.contains(&full.as_str()) || !has_own_flags, "{full}");
        }
    }
}

#[test]
fn usage_errors_end_with_status_2() {
    let env = TestEnv::new();
    for args in [&["nonsense"][..], &["analyze", "--nonsense"], &["completions", "tcsh"], &[]] {
        let stderr = env.fails(args, 2);
        assert!(stderr.contains("Usage") || stderr.contains("--help"), "{args:?}: {stderr}");
    }
    assert_eq!(env.scrub(&env.ok(&["--version"])), "diffy [VERSION]\n");
}

/// What a manual page says, as `man` shows it; nothing of it may be wrong in the eyes of groff.
fn rendered(env: &TestEnv, page: &str) -> String {
    let mut command = env.program("groff");
    command.args(["-man", "-Tutf8", "-ww", "-P-cbou", page]);
    let rendered = finish(command);
    assert_eq!((rendered.status, rendered.stderr.as_str()), (0, ""), "{page}");
    rendered.stdout
}

#[test]
fn manual_pages_are_there_for_every_command_and_complete() {
    set_up_debian(&["groff"]);
    let env = TestEnv::new();
    env.ok(&["man", "pages"]);
    let mut pages: Vec<String> = fs::read_dir(env.path("pages"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    pages.sort();
    let name = |command: &&str| format!("diffy {command}").trim().replace(' ', "-") + ".1";
    let mut expected: Vec<String> = COMMANDS.iter().map(name).collect();
    expected.extend(["diffy-tables-list.1", "diffy-tables-show.1"].map(ToOwned::to_owned));
    expected.sort();
    assert_eq!(pages, expected);
    let flag = Regex::new(r"^ +(?:-\w, )?(--[a-z-]+)").unwrap();
    for command in COMMANDS {
        let page = rendered(&env, env.path("pages").join(name(&command)).to_str().unwrap());
        let args: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let help = env.ok(&args);
        let flags: Vec<String> =
            help.lines().filter_map(|line| Some(flag.captures(line)?[1].to_owned())).collect();
        assert!(flags.len() >= 8, "{command}: {flags:?}");
        for flag in flags {
            assert!(page.contains(&flag), "{command}: the page lacks {flag}\n{page}");
        }
    }
    let printed = env.ok(&["man"]);
    assert_eq!(printed, fs::read_to_string(env.path("pages/diffy.1")).unwrap());
    let page = rendered(&env, env.write("one.1", printed).to_str().unwrap());
    assert!(
        page.split_whitespace().collect::<Vec<_>>().join(" ").contains("Exit status: 0 done; 1 failed"),
        "{page}"
    );
    let stderr = env.fails(&["man", "one.1"], 1);
    assert!(stderr.contains("cannot write manual pages into `one.1`"), "{stderr}");
}

#[test]
fn completions_know_the_commands() {
    let env = TestEnv::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = env.ok(&["completions", shell]);
        for word in ["analyze", "baseline", "exit-code"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let output = env.sh("$DIFFY completions bash > c.bash && bash -n c.bash");
    assert_eq!(output.status, 0, "{}", output.stderr);
}
