//! Hiding and diverting: deleted programs, borrowed names, silenced watchers, other names for addresses.

use rand::Rng;

use super::super::plan::{Plan, Program};
use super::super::row::cells;
use super::super::seed::{self, pick, public_address};
use super::super::shape::File;
use super::{PROCESS, Scenario, daemon_name, hiding_place};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        id: "deleted-program",
        title: "A process runs from a file that was deleted.",
        attack: "T1070.004",
        subtle: false,
        plant: deleted_program,
    },
    Scenario {
        id: "borrowed-name",
        title: "A process calls itself like a part of the system and runs from elsewhere.",
        attack: "T1036.005",
        subtle: true,
        plant: borrowed_name,
    },
    Scenario {
        id: "audit-stopped",
        title: "The audit daemon does not run.",
        attack: "T1685",
        subtle: true,
        plant: audit_stopped,
    },
    Scenario {
        id: "changed-sshd",
        title: "The SSH server's program has other content than on the other hosts.",
        attack: "T1554",
        subtle: true,
        plant: changed_sshd,
    },
    Scenario {
        id: "hosts-entry",
        title: "A name is diverted to another address in the hosts file.",
        attack: "T1565.001",
        subtle: false,
        plant: hosts_entry,
    },
    Scenario {
        id: "dns-resolver",
        title: "Names are resolved by a server that no other host asks.",
        attack: "T1557",
        subtle: true,
        plant: dns_resolver,
    },
];

fn deleted_program(plan: &mut Plan<'_>) {
    let name = daemon_name(&mut plan.rng);
    let path = format!("{}/{name}", hiding_place(&mut plan.rng));
    let option = seed::letters(&mut plan.rng, 1);
    let cmdline = if plan.rng.random_bool(0.5) { path.clone() } else { format!("{path} -{option}") };
    let short: String = name.chars().take(15).collect();
    let program = Program { on_disk: false, ..Program::new(&short, &path, &cmdline) };
    let row = plan.process(&program);
    plan.plant("processes", row, &["name", "path", "cmdline", "on_disk"]);
}

fn borrowed_name(plan: &mut Plan<'_>) {
    let number = plan.rng.random_range(0..4);
    let worker = format!("kworker/{number}:{}", plan.rng.random_range(0..3));
    let names =
        [worker.as_str(), "sshd", "cron", "systemd-logind", "rsyslogd", "kauditd", "agetty", "chronyd"];
    let name = pick(&mut plan.rng, &names);
    let place = hiding_place(&mut plan.rng);
    let file = name.split('/').next().unwrap_or(name);
    let path = format!("{place}/{file}");
    let cmdline = match name {
        "sshd" => "sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups".to_owned(),
        "cron" => "/usr/sbin/cron -f".to_owned(),
        kernel if kernel.starts_with('k') => format!("[{kernel}]"),
        other => format!("/usr/sbin/{other}"),
    };
    let row = plan.process(&Program::new(name, &path, &cmdline));
    plan.plant("processes", row, PROCESS);
    let content = format!("{path} {number}");
    plan.plant_file(&File::new(&path, "0755", &content));
}

fn audit_stopped(plan: &mut Plan<'_>) {
    plan.plant_missing("processes", [("path", "/usr/sbin/auditd")]);
    let (active, sub) = [("inactive", "dead"), ("failed", "failed")][plan.rng.random_range(0..2)];
    plan.plant_change(
        "systemd_units",
        [("id", "auditd.service")],
        [("active_state", active), ("sub_state", sub)],
    );
    plan.plant_change("startup_items", [("name", "auditd.service")], [("status", active)]);
    plan.withdraw_envs_of("auditd");
}

fn changed_sshd(plan: &mut Plan<'_>) {
    let salt = seed::hex(&mut plan.rng, 8);
    plan.plant_content("/usr/sbin/sshd", &format!("sshd {salt}"));
}

fn hosts_entry(plan: &mut Plan<'_>) {
    let names = [
        "deb.debian.org",
        "security.debian.org",
        "db.internal.example",
        "logs.internal.example",
        "ssm.eu-west-1.amazonaws.com",
        "pypi.org",
        "payments.example",
    ];
    let name = pick(&mut plan.rng, &names);
    let address =
        if plan.rng.random_bool(0.3) { "127.0.0.1".to_owned() } else { public_address(&mut plan.rng) };
    plan.plant("etc_hosts", cells([("address", &address), ("hostnames", name)]), &["address", "hostnames"]);
}

fn dns_resolver(plan: &mut Plan<'_>) {
    let address = public_address(&mut plan.rng);
    let row = cells([
        ("id", "1"),
        ("type", "nameserver"),
        ("address", &address),
        ("netmask", ""),
        ("options", "705"),
    ]);
    plan.plant("dns_resolvers", row, &["type", "address"]);
    plan.plant_content("/etc/resolv.conf", &format!("nameserver {address}"));
}
