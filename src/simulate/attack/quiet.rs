//! Things that every host has, changed in place: the same name with another size, path, content, right or version.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::super::bundled;
use super::super::plan::Plan;
use super::super::row::{cells, literal};
use super::super::seed::{self, pick};
use super::super::shape::{self, File};
use super::Scenario;

pub(super) const SCENARIOS: &[Scenario] = &[
    subtle("module-size", "A common kernel module has another size than in its build.", "T1014", module_size),
    subtle(
        "profile-script",
        "A script that every shell reads has other content.",
        "T1546.004",
        profile_script,
    ),
    subtle("shell-changed", "An account of a service may log in.", "T1098", shell_changed),
    subtle(
        "package-version",
        "A package has a version that no other host has.",
        "T1195.002",
        package_version,
    ),
    subtle("unit-override", "A drop-in changes what a service starts.", "T1543.002", unit_override),
    subtle("cron-token", "A line that every crontab has does something more.", "T1053.003", cron_token),
    subtle(
        "rc-local",
        "The script that is run at the end of the boot has other content.",
        "T1037.004",
        rc_local,
    ),
    subtle("pam-config", "The rules for logging in have other content.", "T1556.003", pam_config),
    subtle("sshd-config", "The SSH server's configuration has other content.", "T1556", sshd_config),
    subtle("suid-mode", "An ordinary program runs as root for everybody.", "T1548.001", suid_mode),
    subtle(
        "group-member",
        "An account is a member of a group with the rights of root.",
        "T1098.007",
        group_member,
    ),
    subtle(
        "update-diverted",
        "The line of localhost also names a server of updates.",
        "T1685",
        update_diverted,
    ),
    subtle(
        "python-package",
        "A Python package has a version that no other host has.",
        "T1195.001",
        python_package,
    ),
    subtle("service-as-root", "A service runs as root instead of its own account.", "T1068", service_as_root),
    subtle(
        "service-opened",
        "A service that is local elsewhere listens on all addresses.",
        "T1133",
        service_opened,
    ),
    subtle("history-cleared", "The histories of root's shell are gone.", "T1070.003", history_cleared),
    subtle("agent-stopped", "An agent that should run does not.", "T1685", agent_stopped),
];

const fn subtle(
    id: &'static str,
    title: &'static str,
    attack: &'static str,
    plant: fn(&mut Plan<'_>),
) -> Scenario {
    Scenario { id, title, attack, subtle: true, plant }
}

fn module_size(plan: &mut Plan<'_>) {
    let names = ["x_tables", "nf_conntrack", "ext4", "sunrpc", "tls", "fuse", "overlay", "autofs4", "loop"];
    let name = pick(&mut plan.rng, &names);
    let Some(row) = plan.base.find("kernel_modules", "name", name) else { return };
    let size: i64 = row["size"].parse().unwrap_or_default();
    let size = plan.facts.module_size(size) + 4_096 * plan.rng.random_range(4..9);
    plan.plant_change("kernel_modules", [("name", name)], [("size", &literal(size))]);
}

fn replaced(plan: &mut Plan<'_>, paths: &[&str]) {
    let path = pick(&mut plan.rng, paths);
    let salt = seed::hex(&mut plan.rng, 8);
    plan.plant_hash(path, &format!("{path} {salt}"));
}

fn profile_script(plan: &mut Plan<'_>) {
    replaced(plan, &["/etc/profile", "/etc/bash.bashrc", "/etc/environment"]);
}

fn rc_local(plan: &mut Plan<'_>) {
    replaced(plan, &["/etc/rc.local"]);
}

fn pam_config(plan: &mut Plan<'_>) {
    replaced(plan, &["/etc/pam.d/sshd", "/etc/pam.d/sudo", "/etc/pam.d/common-auth", "/etc/pam.d/su"]);
}

fn sshd_config(plan: &mut Plan<'_>) {
    replaced(plan, &["/etc/ssh/sshd_config"]);
}

fn shell_changed(plan: &mut Plan<'_>) {
    let rows = plan.base.rows("users").unwrap_or_default();
    let locked = |shell: &String| shell.ends_with("nologin") || shell.ends_with("false");
    let services: Vec<String> = rows
        .iter()
        .filter(|row| row.cells.get("shell").is_some_and(locked))
        .map(|row| row.cells["username"].clone())
        .collect();
    let Some(name) = services.choose(&mut plan.rng) else { return };
    let shell = pick(&mut plan.rng, &["/bin/bash", "/bin/bash", "/usr/bin/bash"]);
    plan.plant_change("users", [("username", name)], [("shell", shell)]);
}

fn package_version(plan: &mut Plan<'_>) {
    let names = [
        "openssh-server",
        "sudo",
        "libpam-modules",
        "curl",
        "bash",
        "libssl3",
        "polkitd",
        "rsyslog",
        "libc6",
    ];
    let name = pick(&mut plan.rng, &names);
    let Some(row) = plan.base.find("deb_packages", "name", name) else { return };
    let version = row["version"].clone();
    let odd = match plan.rng.random_range(0..3) {
        0 => format!("{version}+b{}", plan.rng.random_range(3..9)),
        1 => format!("{version}~{}", seed::letters(&mut plan.rng, 3)),
        _ => format!("{}.{}", version, plan.rng.random_range(1..9)),
    };
    plan.plant_change("deb_packages", [("name", name)], [("version", &odd)]);
}

fn unit_override(plan: &mut Plan<'_>) {
    let units = ["cron", "ssh", "chrony", "rsyslog", "fluent-bit", "unattended-upgrades", "dbus"];
    let unit = pick(&mut plan.rng, &units);
    let path = if plan.rng.random_bool(0.5) {
        format!("/etc/systemd/system/{unit}.service.d/override.conf")
    } else {
        // A copy in /etc takes the place of the packaged unit.
        let path = format!("/etc/systemd/system/{unit}.service");
        let id = format!("{unit}.service");
        plan.plant_change("systemd_units", [("id", &id)], [("fragment_path", &path)]);
        path
    };
    let salt = seed::hex(&mut plan.rng, 8);
    plan.plant_file(&File::new(&path, "0644", &format!("{path} {salt}")));
}

fn cron_token(plan: &mut Plan<'_>) {
    let rows = plan.base.rows("crontab").unwrap_or_default();
    let fixed = |row: &&super::super::row::Row| !row.cells["command"].contains('{');
    let commands: Vec<String> = rows.iter().filter(fixed).map(|row| row.cells["command"].clone()).collect();
    let Some(command) = commands.choose(&mut plan.rng) else { return };
    let word = seed::letters(&mut plan.rng, 5);
    let more = match plan.rng.random_range(0..3) {
        0 => format!("{command} && /usr/lib/{word}/{word}"),
        1 => format!("{command} ; . /var/lib/{word}"),
        _ => format!("PATH=/var/lib/{word}:$PATH {command}"),
    };
    plan.plant_change("crontab", [("command", command)], [("command", &more)]);
}

fn suid_mode(plan: &mut Plan<'_>) {
    let name =
        pick(&mut plan.rng, &["find", "vim.basic", "python3.11", "perl", "tar", "less", "nano", "env"]);
    let path = format!("/usr/bin/{name}");
    let row = cells([("path", &path), ("username", "root"), ("groupname", "root"), ("permissions", "S")]);
    plan.plant("suid_bin", row, &["path", "permissions"]);
    if plan.base.find("file", "path", &path).is_some() {
        plan.plant_change("file", [("path", &path)], [("mode", "4755")]);
    }
}

fn group_member(plan: &mut Plan<'_>) {
    let (gid, group) = [("27", "sudo"), ("6", "disk"), ("42", "shadow")][plan.rng.random_range(0..3)];
    let (uid, name) = [("33", "www-data"), ("1002", "deploy"), ("109", "prometheus"), ("104", "tcpdump")]
        [plan.rng.random_range(0..4)];
    plan.plant("user_groups", shape::member(uid, name, gid, group), &["username", "groupname"]);
}

fn update_diverted(plan: &mut Plan<'_>) {
    let names = [
        "security.debian.org",
        "deb.debian.org",
        "api.crowdstrike.com",
        "ssm.eu-west-1.amazonaws.com",
        "updates.osquery.io",
        "packages.fluentbit.io",
    ];
    let name = pick(&mut plan.rng, &names);
    let (address, usual) = [("127.0.0.1", "localhost"), ("::1", "localhost ip6-localhost ip6-loopback")]
        [plan.rng.random_range(0..2)];
    if plan.base.find("etc_hosts", "hostnames", usual).is_none() {
        return;
    }
    let names = format!("{usual} {name}");
    plan.plant_change("etc_hosts", [("address", address), ("hostnames", usual)], [("hostnames", &names)]);
}

fn python_package(plan: &mut Plan<'_>) {
    let name =
        pick(&mut plan.rng, &["requests", "urllib3", "PyYAML", "certifi", "cryptography", "six", "Jinja2"]);
    let Some(row) = plan.base.find("python_packages", "name", name) else { return };
    let version = format!("{}.post{}", row["version"], plan.rng.random_range(1..9));
    let row = bundled::python_package(name, &version);
    plan.plant_change("python_packages", [("name", name)], [("version", &version), ("path", &row["path"])]);
}

fn service_as_root(plan: &mut Plan<'_>) {
    let services = plan.services();
    let of_its_own = services.iter().filter(|row| row["uid"] != "0").collect::<Vec<_>>();
    let Some(row) = of_its_own.choose(&mut plan.rng) else { return };
    let set = [("uid", "0"), ("gid", "0"), ("euid", "0"), ("egid", "0"), ("suid", "0"), ("sgid", "0")];
    plan.plant_change("processes", [("name", &row["name"]), ("cmdline", &row["cmdline"])], set);
}

fn service_opened(plan: &mut Plan<'_>) {
    let rows = plan.base.rows("listening_ports").unwrap_or_default();
    let local: Vec<(String, String)> = rows
        .iter()
        .filter(|row| row.cells["address"] == "127.0.0.1" && row.cells["protocol"] == "6")
        .map(|row| (row.cells["port"].clone(), row.cells["process_path"].clone()))
        .collect();
    let Some((port, path)) = local.choose(&mut plan.rng) else { return };
    let matching = [("address", "127.0.0.1"), ("port", port), ("protocol", "6"), ("process_path", path)];
    let known = [("port", port.as_str()), ("protocol", "6"), ("process_path", path)];
    plan.plant_other("listening_ports", (&matching, &known), &[("address", "0.0.0.0")]);
}

fn history_cleared(plan: &mut Plan<'_>) {
    if plan.base.find("shell_history", "username", "root").is_none() {
        return;
    }
    plan.plant_missing("shell_history", [("username", "root")]);
}

fn agent_stopped(plan: &mut Plan<'_>) {
    let agents = [
        ("/opt/fluent-bit/bin/fluent-bit", "fluent-bit.service", "fluent-bit"),
        ("/usr/sbin/rsyslogd", "rsyslog.service", "rsyslogd"),
        ("/usr/bin/prometheus-node-exporter", "prometheus-node-exporter.service", "prometheus-node"),
    ];
    let (path, unit, name) = agents[plan.rng.random_range(0..3)];
    if plan.base.find("processes", "path", path).is_none() {
        return;
    }
    plan.plant_missing("processes", [("path", path)]);
    let (active, sub) = [("inactive", "dead"), ("failed", "failed")][plan.rng.random_range(0..2)];
    plan.plant_change("systemd_units", [("id", unit)], [("active_state", active), ("sub_state", sub)]);
    plan.plant_change("startup_items", [("name", unit)], [("status", active)]);
    plan.withdraw_all_of(path, name);
}
