//! Ways back in: keys, accounts, rights.

use rand::Rng;

use super::super::plan::Plan;
use super::super::row::cells;
use super::super::seed::{self, pick};
use super::super::shape::{self, File};
use super::Scenario;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        id: "authorized-key",
        title: "An SSH key that is on no other host may log in.",
        attack: "T1098.004",
        subtle: false,
        plant: authorized_key,
    },
    Scenario {
        id: "second-root",
        title: "A second account has user id 0.",
        attack: "T1136.001",
        subtle: false,
        plant: second_root,
    },
    Scenario {
        id: "sudoers-rule",
        title: "A rule lets an account become root without a password.",
        attack: "T1548.003",
        subtle: false,
        plant: sudoers_rule,
    },
    Scenario {
        id: "suid-shell",
        title: "A copy of a shell runs as root for everybody.",
        attack: "T1548.001",
        subtle: false,
        plant: suid_shell,
    },
    Scenario {
        id: "pam-module",
        title: "A PAM module has other content than on the other hosts.",
        attack: "T1556.003",
        subtle: true,
        plant: pam_module,
    },
];

fn authorized_key(plan: &mut Plan<'_>) {
    let (uid, username, home) =
        [("0", "root", "/root"), ("1000", "admin", "/home/admin"), ("1002", "deploy", "/home/deploy")]
            [plan.rng.random_range(0..3)];
    let key = seed::ssh_key(&mut plan.rng);
    let machine = seed::letters(&mut plan.rng, 6);
    let comment = match plan.rng.random_range(0..4) {
        0 => String::new(),
        1 => format!("root@{machine}"),
        2 => "deploy@ci".to_owned(),
        _ => format!("{machine}@localhost"),
    };
    let row = cells([
        ("uid", uid),
        ("username", username),
        ("algorithm", "ssh-ed25519"),
        ("key", &key),
        ("options", ""),
        ("comment", &comment),
        ("key_file", &format!("{home}/.ssh/authorized_keys")),
    ]);
    plan.plant("authorized_keys", row, &["username", "key"]);
}

fn second_root(plan: &mut Plan<'_>) {
    let suffix = seed::letters(&mut plan.rng, 3);
    let stem = pick(&mut plan.rng, &["sys", "svc", "ops", "mon", "bak", "ftp", "toor", "node"]);
    let name = format!("{stem}{suffix}");
    let home = pick(&mut plan.rng, &["/root", "/tmp", "/var/tmp", "/home/admin"]);
    plan.plant("users", shape::user("0", &name, home, "/bin/bash"), &["uid", "username"]);
    plan.plant_content("/etc/passwd", &format!("passwd with {name}"));
}

fn sudoers_rule(plan: &mut Plan<'_>) {
    let who = pick(&mut plan.rng, &["www-data", "shop", "redis", "prometheus", "nobody", "%users", "ALL"]);
    let suffix = seed::letters(&mut plan.rng, 4);
    let source = match plan.rng.random_range(0..3) {
        0 => "/etc/sudoers".to_owned(),
        1 => format!("/etc/sudoers.d/10-{suffix}"),
        _ => format!("/etc/sudoers.d/{suffix}"),
    };
    let rule = pick(
        &mut plan.rng,
        &["ALL=(ALL) NOPASSWD: ALL", "ALL=(ALL:ALL) NOPASSWD:ALL", "ALL=(root) NOPASSWD: /bin/sh"],
    );
    let row = cells([("source", &source), ("header", who), ("rule_details", rule)]);
    plan.plant("sudoers", row, &["source", "header", "rule_details"]);
    if source == "/etc/sudoers" {
        plan.plant_content(&source, &format!("sudoers with {who} {suffix}"));
    } else {
        plan.plant_file(&File::new(&source, "0440", &format!("{source} {who}")));
    }
}

fn suid_shell(plan: &mut Plan<'_>) {
    let name = seed::letters(&mut plan.rng, 5);
    // Where the table looks.
    let directory =
        pick(&mut plan.rng, &["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/tmp"]);
    let path = format!("{directory}/{}{name}", if directory == "/tmp" { "." } else { "" });
    let row = cells([("path", &path), ("username", "root"), ("groupname", "root"), ("permissions", "S")]);
    plan.plant("suid_bin", row, &["path", "permissions"]);
    // A copy: the content is that of the shell itself.
    let shell = pick(&mut plan.rng, &["/usr/bin/bash", "/usr/bin/dash"]);
    let copy = File::new(&path, "4755", shell);
    plan.plant("file", shape::file(&copy), &["path", "mode"]);
    plan.plant("hash", shape::hash(&copy), &["path", "sha256"]);
}

fn pam_module(plan: &mut Plan<'_>) {
    let name = pick(&mut plan.rng, &["pam_unix.so", "pam_permit.so", "pam_deny.so", "pam_env.so"]);
    let path = format!("/usr/lib/x86_64-linux-gnu/security/{name}");
    let salt = seed::hex(&mut plan.rng, 8);
    plan.plant_content(&path, &format!("{path} {salt}"));
}
