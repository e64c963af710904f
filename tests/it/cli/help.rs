//! The help texts are the reference: a change of one shows in a diff. Completions.

use crate::env::TestEnv;

/// Every command, and every subcommand that has flags of its own.
const COMMANDS: [&str; 25] = [
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
    "completions",
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
