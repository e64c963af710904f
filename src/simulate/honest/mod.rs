//! What honest fleets have: staged packages, administrators at work, one-offs, and histories of different length.

mod machine;
mod moment;
mod oddity;
mod own;

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::base::Base;
use super::bundled;
use super::facts::Facts;
use super::plan::{Edit, Plan, Program};
use super::seed;
use super::shape::{self, Unit};
use super::truth::Trace;

/// Leaves the rows of something honest.
type Happens = fn(&mut Plan<'_>);

/// Lanes of process ids that honest differences use; see [`Plan::new`].
pub(super) const LANES: i64 = 8;

/// The honest differences of one host, beside its packages, in a fleet of that seed so many days ago.
pub(super) fn edits(base: &Base, facts: &Facts, (seed, day): (u64, u32)) -> Vec<Edit> {
    let day = day.to_string();
    let noise = facts.noise;
    let stages: [(bool, &[&str], Happens); 6] = [
        (noise.unique, &["own"], own::rows),
        (noise.hardware_mix, &["hardware"], machine::hardware),
        (noise.fresh, &["fresh", &day], machine::fresh),
        (noise.sessions, &["histories"], histories),
        (noise.sessions, &["sessions", &day], sessions),
        (noise.transient, &["transient", &day], moment::rows),
    ];
    let mut edits = Vec::new();
    for (lane, (_, purpose, happens)) in (1..).zip(stages).filter(|(_, (on, ..))| *on) {
        let parts: Vec<&str> = purpose.iter().copied().chain([facts.name.as_str()]).collect();
        let mut plan = Plan::new(base, facts, seed::stream(seed, &parts), lane);
        happens(&mut plan);
        edits.extend(plan.finish().0);
    }
    edits.extend(oddities(base, facts, seed).0);
    edits
}

/// The one-offs of one host: edits, nothing planted, and what they are.
pub(super) fn oddities(
    base: &Base,
    facts: &Facts,
    seed: u64,
) -> (Vec<Edit>, Vec<Trace>, Vec<(&'static str, Trace)>) {
    let mut plan = Plan::new(base, facts, seed::stream(seed, &["oddities", &facts.name]), 0);
    if facts.noise.oddities && plan.rng.random_bool(0.13) {
        let alike = if facts.noise.lookalikes { oddity::LOOKALIKES.len() } else { 0 };
        for _ in 0..plan.rng.random_range(1..=2) {
            let kind = plan.rng.random_range(0..oddity::PLAIN.len() + alike);
            let plain = oddity::PLAIN.get(kind).copied();
            plain.unwrap_or_else(|| oddity::LOOKALIKES[kind - oddity::PLAIN.len()])(&mut plan);
        }
    }
    plan.finish_odd()
}

fn sessions(plan: &mut Plan<'_>) {
    if plan.rng.random_bool(0.12) {
        admin_session(plan);
    }
}

const COMMANDS: &[&str] = &[
    "sudo systemctl restart php8.2-fpm",
    "sudo systemctl status shop-api",
    "sudo journalctl -u shop-api -n 200",
    "sudo journalctl -u nginx --since today",
    "ls -la /var/log/nginx",
    "htop",
    "free -m",
    "ss -tlnp",
    "cat /etc/os-release",
    "sudo nginx -t",
    "sudo systemctl reload nginx",
    "curl -s http://localhost/health.php",
    "curl -sI https://localhost -k",
    "sudo apt-get update",
    "apt list --upgradable",
    "top",
    "exit",
    "cd /srv/shop",
    "git log --oneline | head",
    "sudo -u shop bin/manage check",
    "redis-cli info memory",
    "sudo du -sh /var/log",
    "sudo ss -tnp state established",
    "who",
    "last | head",
];

fn histories(plan: &mut Plan<'_>) {
    // Older hosts have seen more administrators.
    let most = 4 + usize::try_from(plan.facts.days / 5).unwrap_or_default();
    let count = plan.rng.random_range(0..=most);
    let mut commands = COMMANDS.to_vec();
    commands.shuffle(&mut plan.rng);
    for command in commands.into_iter().take(count) {
        plan.add("shell_history", bundled::history("1000", "admin", command));
    }
    for _ in 0..plan.rng.random_range(0..4) {
        let word = seed::hex(&mut plan.rng, 8);
        let number = plan.rng.random_range(1_000..99_999);
        let command = match plan.rng.random_range(0..4) {
            0 => format!("sudo grep {word} /var/log/nginx/access.log"),
            1 => format!("sudo strace -f -p {number} -o /tmp/OPS-{number}.txt"),
            2 => format!("scp admin@10.20.249.5:OPS-{number}.patch ."),
            _ => format!("sudo kill {number}"),
        };
        plan.add("shell_history", bundled::history("1000", "admin", &command));
    }
}

fn admin_session(plan: &mut Plan<'_>) {
    let number = plan.rng.random_range(3..4_000);
    let scope = format!("/user.slice/user-1000.slice/session-{number}.scope");
    let sshd = plan.pid_of("sshd");
    let program = Program {
        parent: &sshd,
        unit: &scope,
        ..Program::new("sshd", "/usr/sbin/sshd", "sshd: admin [priv]")
    };
    let privileged = plan.process(&program);
    plan.add("processes", privileged.clone());
    let program =
        Program { uid: "1000", parent: &privileged["pid"], cmdline: "sshd: admin@pts/0", ..program };
    let session = plan.process(&program);
    plan.add("processes", session.clone());
    let connection = shape::socket(&privileged["pid"], ("{ip}", "22"), ("{bastion}", "{eport}"));
    plan.add("process_open_sockets", shape::with_owner_and_cmdline(connection, Some(&privileged)));
    let shell = Program {
        uid: "1000",
        parent: &session["pid"],
        unit: &scope,
        ..Program::new("bash", "/usr/bin/bash", "-bash")
    };
    let shell = plan.process(&shell);
    plan.add("processes", shell.clone());
    let tool = [
        ("htop", "/usr/bin/htop"),
        ("vim", "/usr/bin/vim.basic"),
        ("less", "/usr/bin/less"),
        ("tail", "/usr/bin/tail"),
    ];
    if let Some((name, path)) = tool.choose(&mut plan.rng).filter(|_| number % 2 == 0) {
        let tool =
            Program { uid: "1000", parent: &shell["pid"], unit: &scope, ..Program::new(name, path, name) };
        let tool = plan.process(&tool);
        plan.add("processes", tool);
    }
    session_units(plan, number);
}

fn session_units(plan: &mut Plan<'_>, number: i32) {
    let scope = format!("session-{number}.scope");
    let description = format!("Session {number} of User admin");
    let path = format!("/run/systemd/transient/{scope}");
    let unit = |id, description, sub_state, fragment_path| Unit {
        id,
        description,
        active_state: "active",
        sub_state,
        unit_file_state: "transient",
        fragment_path,
        user: "",
    };
    plan.add("systemd_units", shape::unit(&unit(&scope, &description, "running", &path)));
    let manager = unit(
        "user@1000.service",
        "User Manager for UID 1000",
        "running",
        "/lib/systemd/system/user@.service",
    );
    plan.add("systemd_units", shape::unit(&manager));
    plan.add("startup_items", shape::startup(&manager));
    plan.add("systemd_units", shape::unit(&unit("user-1000.slice", "User Slice of UID 1000", "active", "")));
}
