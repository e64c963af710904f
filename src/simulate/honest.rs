//! What honest fleets have: staged packages, administrators at work, one-offs, and histories of different length.

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::base::Base;
use super::bundled;
use super::facts::Facts;
use super::plan::{Edit, Plan, Program};
use super::row::cells;
use super::seed::{self, pick};
use super::shape::{self, File, Unit};
use super::truth::Trace;

/// Leaves the rows of something honest.
type Happens = fn(&mut Plan<'_>);

/// Lanes of process ids that honest differences use; see [`Plan::new`].
pub(super) const LANES: i64 = 8;

/// The honest differences of one host, beside its packages, in a fleet of that seed so many days ago.
pub(super) fn edits(base: &Base, facts: &Facts, (seed, day): (u64, u32)) -> Vec<Edit> {
    let day = day.to_string();
    let noise = facts.noise;
    let stages: [(bool, &[&str], Happens); 3] = [
        (noise.sessions, &["histories"], histories),
        (noise.sessions, &["sessions", &day], sessions),
        (noise.transient, &["transient", &day], transient),
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
    if facts.noise.oddities && plan.rng.random_bool(0.14) {
        let all: [Happens; 9] = [
            admin_cron,
            debug_package,
            failed_unit,
            contractor,
            hotfix_unit,
            hosts_entry,
            admin_script,
            extra_key,
            debug_module,
        ];
        for _ in 0..plan.rng.random_range(1..=2) {
            all[plan.rng.random_range(0..all.len())](&mut plan);
        }
    }
    plan.finish_odd()
}

fn sessions(plan: &mut Plan<'_>) {
    if plan.rng.random_bool(0.12) {
        admin_session(plan);
    }
}

fn transient(plan: &mut Plan<'_>) {
    leftovers(plan);
    if plan.rng.random_bool(0.03) {
        apt_running(plan);
    }
    if plan.rng.random_bool(0.01) {
        capture_running(plan);
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

fn leftovers(plan: &mut Plan<'_>) {
    for _ in 0..plan.rng.random_range(0..4) {
        let word = seed::alnum(&mut plan.rng, 8);
        let path = match plan.rng.random_range(0..5) {
            0 => format!("/tmp/tmp{}", word.to_lowercase()),
            1 => format!("/tmp/php{word}"),
            2 => format!("/tmp/OPS-{}.txt", plan.rng.random_range(1_000..99_999)),
            3 => format!("/tmp/sess_{}", seed::hex(&mut plan.rng, 26)),
            _ => format!("/tmp/pip-{word}"),
        };
        let owner = pick(&mut plan.rng, &["33", "1000", "1001"]);
        plan.add(
            "file",
            shape::file(&File { path: &path, mode: "0600", uid: owner, gid: owner, content: &path }),
        );
    }
    // Logs of older hosts were rotated more often.
    for number in 1..=(plan.facts.days / 7).min(4) {
        for log in ["/var/log/syslog", "/var/log/auth.log"] {
            let path = if number == 1 { format!("{log}.1") } else { format!("{log}.{number}.gz") };
            let content = format!("{path}{}", plan.facts.boot);
            plan.add(
                "file",
                shape::file(&File { path: &path, mode: "0640", uid: "0", gid: "4", content: &content }),
            );
        }
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

fn apt_running(plan: &mut Plan<'_>) {
    let unit = "apt-daily.service";
    let apt = Program { unit, ..Program::new("apt-get", "/usr/bin/apt-get", "apt-get -qq -y update") };
    let apt = plan.process(&apt);
    plan.add("processes", apt.clone());
    let method = Program {
        uid: "42",
        parent: &apt["pid"],
        unit,
        ..Program::new("http", "/usr/lib/apt/methods/http", "/usr/lib/apt/methods/http")
    };
    let method = plan.process(&method);
    plan.add("processes", method.clone());
    let connection = shape::socket(&method["pid"], ("{ip}", "{eport}"), ("{mirror}", "80"));
    plan.add("process_open_sockets", shape::with_owner_and_cmdline(connection, Some(&method)));
}

fn admin_cron(plan: &mut Plan<'_>) {
    let number = plan.rng.random_range(100..9_999);
    let (minute, hour) = (plan.rng.random_range(0..60).to_string(), plan.rng.random_range(0..24).to_string());
    let command = match plan.rng.random_range(0..4) {
        0 => format!("/home/admin/check-{number}.sh > /dev/null"),
        1 => format!("df -h / | mail -s OPS-{number} ops@example.org"),
        2 => format!("/usr/bin/find /tmp -name 'OPS-{number}*' -mtime +3 -delete"),
        _ => format!("sudo systemctl restart shop-api # OPS-{number}"),
    };
    plan.add(
        "crontab",
        shape::cron([&minute, &hour, "*", "*", "*"], &command, "/var/spool/cron/crontabs/admin"),
    );
}

fn debug_package(plan: &mut Plan<'_>) {
    const PACKAGES: &[(&str, &str, &str)] = &[
        ("strace", "6.1-0.1", "/usr/bin/strace"),
        ("tcpdump", "4.99.3-1", "/usr/bin/tcpdump"),
        ("htop", "3.2.2-2", "/usr/bin/htop"),
        ("gdb", "13.1-3", "/usr/bin/gdb"),
        ("ltrace", "0.7.3-6.4", "/usr/bin/ltrace"),
        ("iotop", "0.6-42-ga14256a-0.1+b2", "/usr/sbin/iotop"),
        ("ncdu", "1.18-0.2", "/usr/bin/ncdu"),
        ("jq", "1.6-2.1", "/usr/bin/jq"),
        ("nmap", "7.93+dfsg1-1", "/usr/bin/nmap"),
        ("iperf3", "3.12-1+deb12u1", "/usr/bin/iperf3"),
        ("socat", "1.7.4.4-2", "/usr/bin/socat"),
        ("screen", "4.9.0-4", "/usr/bin/screen"),
    ];
    let Some((name, version, path)) = PACKAGES.choose(&mut plan.rng) else { return };
    plan.add("deb_packages", shape::package(name, version, "utils", "amd64"));
    plan.add("file", shape::file(&File::new(path, "0755", path)));
    plan.add("hash", shape::hash(&File::new(path, "0755", path)));
}

fn failed_unit(plan: &mut Plan<'_>) {
    let id = pick(
        &mut plan.rng,
        &["certbot.service", "apt-daily.service", "fstrim.service", "man-db.service", "logrotate.service"],
    );
    plan.change("systemd_units", [("id", id)], [("active_state", "failed"), ("sub_state", "failed")]);
    plan.change("startup_items", [("name", id)], [("status", "failed")]);
}

fn capture_running(plan: &mut Plan<'_>) {
    let file = format!("/tmp/OPS-{}.pcap", plan.rng.random_range(1_000..99_999));
    let cmdline = format!("tcpdump -i eth0 -w {file} port 5432");
    let program = Program { uid: "104", ..Program::new("tcpdump", "/usr/bin/tcpdump", &cmdline) };
    let row = plan.process(&program);
    plan.add("processes", row);
    plan.add("file", shape::file(&File::new(&file, "0644", &file)));
}

fn contractor(plan: &mut Plan<'_>) {
    let name = format!("ext-{}", seed::letters(&mut plan.rng, 5));
    let uid = plan.rng.random_range(1_010..1_060).to_string();
    let home = format!("/home/{name}");
    plan.add("users", shape::user(&uid, &name, &home, "/bin/bash"));
    plan.add("groups", cells([("gid", &uid), ("gid_signed", &uid), ("groupname", &name)]));
    plan.add("user_groups", shape::member(&uid, &name, &uid, &name));
    let comment = format!("{name}@laptop");
    plan.add(
        "authorized_keys",
        cells([
            ("uid", &uid),
            ("username", &name),
            ("algorithm", "ssh-ed25519"),
            ("key", "{key}"),
            ("options", ""),
            ("comment", &comment),
            ("key_file", &format!("{home}/.ssh/authorized_keys")),
        ]),
    );
}

fn hotfix_unit(plan: &mut Plan<'_>) {
    let id = format!("hotfix-{}.service", plan.rng.random_range(100..9_999));
    let path = format!("/etc/systemd/system/{id}");
    let unit = Unit {
        id: &id,
        description: "Temporary fix, see ticket",
        active_state: "active",
        sub_state: "exited",
        unit_file_state: "enabled",
        fragment_path: &path,
        user: "",
    };
    plan.add("systemd_units", shape::unit(&unit));
    plan.add("startup_items", shape::startup(&unit));
    plan.add("file", shape::file(&File::new(&path, "0644", &id)));
}

fn hosts_entry(plan: &mut Plan<'_>) {
    let name = pick(&mut plan.rng, &["db-replica", "cache-new", "shop-staging", "payments-test"]);
    let address = format!("10.20.248.{}", plan.rng.random_range(30..200));
    plan.add("etc_hosts", cells([("address", &address), ("hostnames", &format!("{name}.internal.example"))]));
}

fn admin_script(plan: &mut Plan<'_>) {
    let path = format!("/etc/cron.daily/clean-{}", plan.rng.random_range(100..9_999));
    plan.add("cron_scripts", shape::cron_script(&File::new(&path, "0755", &path)));
}

fn extra_key(plan: &mut Plan<'_>) {
    let comment = format!("{}@laptop", pick(&mut plan.rng, &["kim", "robin", "alex", "sam", "jo", "toni"]));
    plan.add(
        "authorized_keys",
        cells([
            ("uid", "1000"),
            ("username", "admin"),
            ("algorithm", "ssh-ed25519"),
            ("key", "{key}"),
            ("options", ""),
            ("comment", &comment),
            ("key_file", "/home/admin/.ssh/authorized_keys"),
        ]),
    );
}

fn debug_module(plan: &mut Plan<'_>) {
    let (name, size) = [
        ("tcp_bbr", "20480"),
        ("ifb", "16384"),
        ("nbd", "61440"),
        ("dummy", "16384"),
        ("netconsole", "24576"),
    ][plan.rng.random_range(0..5)];
    plan.add("kernel_modules", bundled::kernel_module(name, size));
}
