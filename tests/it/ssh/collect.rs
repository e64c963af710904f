//! What hosts say over SSH, and what becomes of it.

use super::farm::{Farm, Manners};
use crate::env::finish;

#[test]
fn hosts_answer_under_the_names_that_they_are_asked_by() {
    let farm = Farm::new(&[
        ("web-1", Manners::Good),
        // What a login prints before, and who it says it is, changes nothing.
        (
            "web-2",
            Manners::Forced(
                r#"echo Welcome; cat "$HOST_DIR/sshd_config"; exec sh -c "$SSH_ORIGINAL_COMMAND""#,
            ),
        ),
        ("web-3", Manners::Forced(r#"AWS_SSM_INSTANCE_ID=web-1 exec sh -c "$SSH_ORIGINAL_COMMAND""#)),
    ]);
    let output = farm.run(&["--tables", "users,crontab"]);
    assert_eq!(output.status, 0, "{}", output.stderr);
    assert!(output.stdout.contains("hosts     3 asked, 3 answered, 0 failed"), "{}", output.stdout);
    assert!(output.stderr.contains("fleet web: 3 hosts over SSH, as the login of each"), "{}", output.stderr);
    assert!(
        output.stderr.contains("host web-3 answers under the name `web-1`, which is another host"),
        "{}",
        output.stderr
    );
    let users = ["web-1", "web-2", "web-3"].map(|name| (name.to_owned(), name.to_owned()));
    assert_eq!(farm.users(), users);
    assert_eq!(farm.coverage("web-1", "crontab").0, "not_supported");
    let manifest = farm.env.json(&["snapshot", "show", "--json"]);
    assert_eq!(manifest["collector"], "ssh");
    assert_eq!(manifest["targets"][0], "hosts:hosts.txt");
    assert!(!farm.env.path("known_hosts.old").exists());
    farm.wait_until_clean();
}

#[test]
fn what_hosts_do_wrong_is_told_of_each() {
    let cases = [
        ("silent-shell", "exit 0", "error", "the login works, but no script runs there"),
        (
            "no-shell",
            "echo 'This account is currently not available.'; exit 1",
            "error",
            "the login works, but no script",
        ),
        (
            "old-answer",
            r#"sh -c "$SSH_ORIGINAL_COMMAND" | sed 's/^DIFFY1 .*/DIFFY1 00000000000000000000000000000000/'"#,
            "error",
            "its nonce is not ours",
        ),
        ("garbage", "head -c 100000 /dev/urandom; exit 7", "error", "(exit status 7"),
        ("noise", "exec yes", "error", "floods the connection before the script runs"),
        (
            "longer",
            r#"sh -c "$SSH_ORIGINAL_COMMAND" | { while read -r line; do echo "$line"; [ "$line" != data ] || exec yes; done; }"#,
            "error",
            "sends more than it announced",
        ),
        (
            "huge",
            r#"sh -c "$SSH_ORIGINAL_COMMAND" | sed 's/^gz .*/gz 900000000/'"#,
            "truncated",
            "the host announces 900000000 bytes",
        ),
        (
            "spaceless",
            // The file system takes no byte.
            r#"ulimit -f 0; trap '' XFSZ; exec sh -c "$SSH_ORIGINAL_COMMAND""#,
            "error",
            "no temporary directory",
        ),
        ("loud", r#"echo "evil$(printf '\033')[2Jtext" >&2; exit 9"#, "error", "evil\\u{1b}[2Jtext"),
    ];
    let mut hosts = vec![("good", Manners::Good), ("bare", Manners::NoOsquery)];
    hosts.extend(cases.iter().map(|(name, command, ..)| (*name, Manners::Forced(command))));
    let farm = Farm::new(&hosts);
    let output = farm.run(&["--tables", "users"]);
    assert_eq!(output.status, 0, "{}", output.stderr);
    assert!(
        output.stdout.contains(&format!("hosts     {} asked, 1 answered,", hosts.len())),
        "{}",
        output.stdout
    );
    for (name, _, status, why) in cases {
        farm.expect(name, status, why);
    }
    farm.expect("good", "ok", "");
    farm.expect("bare", "not_supported", "the host has no osquery; `--push-binary` brings this diffy");
    assert!(!output.stderr.contains('\u{1b}'), "{}", output.stderr);
    farm.wait_until_clean();
}

#[test]
fn a_host_that_turns_callers_away_is_called_again() {
    let farm = Farm::new(&[("web-1", Manners::Busy(2)), ("web-2", Manners::Busy(1_000))]);
    let output = farm.run(&["--tables", "users"]);
    assert_eq!(output.status, 0, "{}", output.stderr);
    farm.expect("web-1", "ok", "");
    farm.expect("web-2", "undeliverable", "the host ended the connection before the login");
}

#[test]
fn sudo_is_used_on_request_and_by_those_who_are_not_root() {
    // A host where nobody is root, and its sudo.
    let user = r#"export PATH="$HOST_DIR/fake:$PATH"; exec sh -c "$SSH_ORIGINAL_COMMAND""#;
    let farm = Farm::new(&[
        ("works", Manners::Forced(user)),
        ("asks", Manners::Forced(user)),
        ("has-none", Manners::Forced(user)),
    ]);
    for host in &farm.hosts {
        let id =
            "#!/bin/sh\n[ \"$1\" = -u ] && [ -z \"$SUDO_USER\" ] && echo 1000 || exec /usr/bin/id \"$@\"\n";
        program(&host.path("fake/id"), id);
    }
    let sudo = "#!/bin/sh\necho \"$*\" >\"$HOST_DIR/sudo-was\"\nshift 2\nSUDO_USER=x exec \"$@\"\n";
    program(&farm.find("works").path("fake/sudo"), sudo);
    program(
        &farm.find("asks").path("fake/sudo"),
        "#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n",
    );
    let output = farm.run(&["--tables", "users", "--sudo"]);
    assert_eq!(output.status, 0, "{}", output.stderr);
    assert!(output.stderr.contains("3 hosts over SSH, as root (sudo)"), "{}", output.stderr);
    farm.expect("works", "ok", "");
    let was = std::fs::read_to_string(farm.find("works").path("sudo-was")).unwrap();
    assert_eq!(was, "-n -- /bin/sh -s\n");
    farm.expect("asks", "error", "sudo wants a password there");
    // Where sudo is installed, the real one answers, and it knows nobody who needs it here.
    if !std::path::Path::new("/usr/bin/sudo").exists() {
        farm.expect("has-none", "error", "there is no sudo on the host");
    }
    // The configuration may say so too.
    std::fs::remove_file(farm.find("works").path("sudo-was")).unwrap();
    farm.env.write(
        "diffy.toml",
        "[[fleets]]\nname = \"racks\"\ntargets = [\"hosts:hosts.txt\"]\nssh_config = \"ssh_config\"\nsudo = true\n",
    );
    let scheduled = finish(farm.env.diffy(&["collect", "--all", "--tables", "users"]));
    assert!(scheduled.stderr.contains("3 hosts over SSH, as root (sudo)"), "{}", scheduled.stderr);
    assert!(farm.find("works").path("sudo-was").exists());
    farm.wait_until_clean();
}

fn program(path: &std::path::Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_query_that_hangs_costs_its_table_only() {
    let farm = Farm::new(&[("web-1", Manners::Good)]);
    std::fs::write(farm.find("web-1").path("hang.crontab"), "").unwrap();
    let output = farm.run(&["--tables", "users,crontab", "--timeout", "2"]);
    assert_eq!(output.status, 0, "{}", output.stderr);
    farm.expect("web-1", "ok", "");
    assert_eq!(farm.coverage("web-1", "crontab").0, "timeout");
    farm.wait_until_clean();
}

#[test]
fn files_that_are_no_lists_are_refused_with_their_line() {
    let farm = Farm::new(&[]);
    let env = &farm.env;
    let collect = |more: &[&str]| env.fails(&[&["collect", "--fleet", "web"], more].concat(), 2);
    env.write("bad.txt", "web-1\n-oProxyCommand=touch${IFS}pwned\n");
    let said = collect(&["--targets", "hosts:bad.txt"]);
    assert!(said.contains("bad.txt:2: `-oProxyCommand` cannot name a host"), "{said}");
    env.write("option.txt", "-oProxyCommand\n");
    assert!(collect(&["--targets", "hosts:option.txt"]).contains("it begins with a dash"));
    env.write("empty.txt", "# nobody\n");
    assert!(collect(&["--targets", "hosts:empty.txt"]).contains("names no host"));
    assert!(collect(&["--targets", "hosts:none.txt"]).contains("cannot read the hosts of `none.txt`"));
    env.write("good.txt", "web-1\n");
    assert!(
        collect(&["--targets", "hosts:good.txt", "--targets", "local"])
            .contains("do not go into one collection")
    );
    assert!(collect(&["--targets", "hosts:good.txt", "--collector", "native"]).contains("`--collector ssh`"));
    assert!(collect(&["--targets", "local", "--collector", "ssh"]).contains("not this machine"));
    assert!(
        collect(&["--targets", "hosts:good.txt", "--connect-timeout", "0"])
            .contains("`--connect-timeout` cannot be 0")
    );
    assert!(!env.path("pwned").exists() && !env.store().exists());
}

#[test]
fn a_list_comes_through_standard_input_too() {
    let farm = Farm::new(&[("web-1", Manners::Good)]);
    let port = farm.find("web-1").port;
    let args = [
        "collect",
        "--targets",
        "hosts:-",
        "--fleet",
        "web",
        "--tables",
        "users",
        "--ssh-config",
        "ssh_config",
    ];
    let output = farm.env.run_with_stdin(&args, format!("127.0.0.1:{port}\n").as_bytes());
    assert_eq!(output.status, 0, "{}", output.stderr);
    farm.expect(&format!("127.0.0.1:{port}"), "ok", "");
}

#[test]
fn hosts_that_a_program_lists_are_asked_over_ssh() {
    let farm = Farm::new(&[("web-1", Manners::Good)]);
    let port = farm.find("web-1").port;
    let list = format!(
        "echo '{{\"host\":\"app-1\",\"address\":\"127.0.0.1:{port}\",\"labels\":{{\"zone\":\"z1\"}}}}'\n\
         echo '{{\"host\":\"app-2\",\"unreachable\":\"powered off\"}}'\n\
         echo '{{\"host\":\"no\\u00efve\"}}'\n"
    );
    farm.env.write("list.sh", list);
    let args = ["collect", "--targets", "exec:sh list.sh", "--fleet", "web", "--tables", "users"];
    let output = farm.env.run(&[&args[..], &["--ssh-config", "ssh_config"]].concat());
    assert_eq!(output.status, 0, "{}", output.stderr);
    assert!(output.stdout.contains("3 asked, 1 answered"), "{}", output.stdout);
    farm.expect("app-1", "ok", "");
    farm.expect("app-2", "undeliverable", "powered off");
    // A name that ssh could not take, and no address.
    farm.expect("no\u{ef}ve", "undeliverable", "is no host");
    let zone = farm.env.query_one("SELECT zone FROM current.hosts WHERE host = 'app-1'");
    assert_eq!(zone, "z1");
    farm.wait_until_clean();
}
