//! Honest one-offs: statistically the same thing as what an intruder leaves.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::super::bundled;
use super::super::plan::{Plan, Program};
use super::super::row::cells;
use super::super::seed::{self, pick};
use super::super::shape::{self, File, Unit};
use super::Happens;

/// Work in progress: packages, units, jobs, scripts, mounts.
pub(super) const PLAIN: [Happens; 15] = [
    cron_line,
    debug_package,
    failed_unit,
    hotfix_unit,
    hosts_entry,
    cron_script,
    extra_key,
    debug_module,
    network_mount,
    home_script,
    drop_in,
    held_package,
    stopped_unit,
    service_setting,
    rebuilt_tool,
];

/// Accounts, rights, edited files, ways in: what an intruder would want too.
pub(super) const LOOKALIKES: [Happens; 8] = [
    contractor,
    debug_server,
    edited_file,
    sudo_rule,
    group_member,
    service_shell,
    package_suid,
    ssh_forward,
];

const PEOPLE: &[&str] =
    &["kim", "robin", "alex", "sam", "jo", "toni", "chris", "pat", "lee", "max", "noa", "eli"];

fn ticket(plan: &mut Plan<'_>) -> i32 {
    plan.rng.random_range(1_000..99_999)
}

fn cron_line(plan: &mut Plan<'_>) {
    let number = ticket(plan);
    let (minute, hour) = (plan.rng.random_range(0..60).to_string(), plan.rng.random_range(0..24).to_string());
    let person = pick(&mut plan.rng, PEOPLE);
    let command = match plan.rng.random_range(0..5) {
        0 => format!("/home/{person}/check-{number}.sh > /dev/null"),
        1 => format!("df -h / | mail -s OPS-{number} ops@example.org"),
        2 => format!("/usr/bin/find /tmp -name 'OPS-{number}*' -mtime +3 -delete"),
        3 => format!("curl -fsS https://hc-ping.example/{} > /dev/null", seed::hex(&mut plan.rng, 12)),
        _ => format!("/usr/bin/systemctl restart fluent-bit # OPS-{number}"),
    };
    let file = pick(
        &mut plan.rng,
        &["/var/spool/cron/crontabs/admin", "/var/spool/cron/crontabs/root", "/etc/cron.d/ops"],
    );
    let command = if file.starts_with("/etc") { format!("root {command}") } else { command };
    plan.odd(
        "cron-line",
        ("crontab", shape::cron([&minute, &hour, "*", "*", "*"], &command, file)),
        &["command", "path"],
    );
}

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

fn debug_package(plan: &mut Plan<'_>) {
    let Some((name, version, path)) = PACKAGES.choose(&mut plan.rng) else { return };
    let kind = "debug-package";
    plan.odd(kind, ("deb_packages", shape::package(name, version, "utils", "amd64")), &["name", "version"]);
    plan.odd(kind, ("file", shape::file(&File::new(path, "0755", path))), &["path"]);
    plan.odd(kind, ("hash", shape::hash(&File::new(path, "0755", path))), &["path"]);
}

fn failed_unit(plan: &mut Plan<'_>) {
    let units =
        ["apt-daily.service", "fstrim.service", "man-db.service", "logrotate.service", "e2scrub_all.service"];
    let id = pick(&mut plan.rng, &units);
    let set = [("active_state", "failed"), ("sub_state", "failed")];
    plan.odd_change(("failed-unit", "systemd_units"), [("id", id)], set);
    plan.odd_change(("failed-unit", "startup_items"), [("name", id)], [("status", "failed")]);
}

fn stopped_unit(plan: &mut Plan<'_>) {
    let id = pick(
        &mut plan.rng,
        &["unattended-upgrades.service", "sysstat.service", "chrony.service", "cron.service"],
    );
    let set = [("active_state", "inactive"), ("sub_state", "dead")];
    plan.odd_change(("stopped-unit", "systemd_units"), [("id", id)], set);
    plan.odd_change(("stopped-unit", "startup_items"), [("name", id)], [("status", "inactive")]);
}

fn contractor(plan: &mut Plan<'_>) {
    let name = format!("ext-{}", seed::letters(&mut plan.rng, 5));
    let uid = plan.rng.random_range(1_210..1_260).to_string();
    let home = format!("/home/{name}");
    let kind = "contractor";
    plan.odd(kind, ("users", shape::user(&uid, &name, &home, "/bin/bash")), &["uid", "username"]);
    let group = cells([("gid", &uid), ("gid_signed", &uid), ("groupname", &name)]);
    plan.odd(kind, ("groups", group), &["groupname"]);
    plan.odd(kind, ("user_groups", shape::member(&uid, &name, &uid, &name)), &["username", "groupname"]);
    let row = key_of(plan, (&uid, &name), &home);
    plan.odd(kind, ("authorized_keys", row), &["username", "key"]);
}

fn key_of(plan: &mut Plan<'_>, (uid, name): (&str, &str), home: &str) -> super::super::row::Cells {
    let key = seed::ssh_key(&mut plan.rng);
    let comment = format!("{}@laptop", pick(&mut plan.rng, PEOPLE));
    cells([
        ("uid", uid),
        ("username", name),
        ("algorithm", "ssh-ed25519"),
        ("key", &key),
        ("options", ""),
        ("comment", &comment),
        ("key_file", &format!("{home}/.ssh/authorized_keys")),
    ])
}

fn extra_key(plan: &mut Plan<'_>) {
    let (uid, name) = [("1000", "admin"), ("1000", "admin"), ("1002", "deploy")][plan.rng.random_range(0..3)];
    let row = key_of(plan, (uid, name), &format!("/home/{name}"));
    plan.odd("extra-key", ("authorized_keys", row), &["username", "key"]);
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
    plan.odd("hotfix-unit", ("systemd_units", shape::unit(&unit)), &["id"]);
    plan.odd("hotfix-unit", ("startup_items", shape::startup(&unit)), &["name"]);
    odd_file(plan, "hotfix-unit", &path);
}

fn odd_file(plan: &mut Plan<'_>, kind: &'static str, path: &str) {
    let content = format!("{path} {}", plan.facts.name);
    let file = File::new(path, "0644", &content);
    plan.odd(kind, ("file", shape::file(&file)), &["path"]);
    if shape::is_hashed(path) {
        plan.odd(kind, ("hash", shape::hash(&file)), &["path", "sha256"]);
    }
}

fn hosts_entry(plan: &mut Plan<'_>) {
    let names = ["db-replica", "cache-new", "shop-staging", "payments-test", "ldap-old", "minio"];
    let name = pick(&mut plan.rng, &names);
    let address = format!("10.20.248.{}", plan.rng.random_range(30..200));
    let row = cells([("address", &address), ("hostnames", &format!("{name}.internal.example"))]);
    plan.odd("hosts-entry", ("etc_hosts", row), &["address", "hostnames"]);
}

fn cron_script(plan: &mut Plan<'_>) {
    let path = format!("/etc/cron.daily/clean-{}", plan.rng.random_range(100..9_999));
    let row = shape::cron_script(&File::new(&path, "0755", &path));
    plan.odd("cron-script", ("cron_scripts", row), &["path"]);
}

fn debug_module(plan: &mut Plan<'_>) {
    let modules = [
        ("tcp_bbr", "20480"),
        ("ifb", "16384"),
        ("nbd", "61440"),
        ("dummy", "16384"),
        ("netconsole", "24576"),
        ("wireguard", "94208"),
        ("cifs", "1163264"),
    ];
    let (name, size) = modules[plan.rng.random_range(0..modules.len())];
    plan.odd("debug-module", ("kernel_modules", bundled::kernel_module(name, size)), &["name"]);
}

fn network_mount(plan: &mut Plan<'_>) {
    let device = format!(
        "10.20.248.{}:/export/{}",
        plan.rng.random_range(30..60),
        pick(&mut plan.rng, &["dump", "home", "media"])
    );
    let path = pick(&mut plan.rng, &["/mnt", "/mnt/dump", "/srv/import", "/media/restore"]);
    plan.odd("network-mount", ("mounts", bundled::mounted(&device, path, "nfs4")), &["device", "path"]);
    let row = bundled::kernel_module("nfsv4", "1040384");
    plan.odd("network-mount", ("kernel_modules", row), &["name"]);
}

fn home_script(plan: &mut Plan<'_>) {
    let person = pick(&mut plan.rng, PEOPLE);
    let word =
        pick(&mut plan.rng, &["backfill", "reindex", "export", "watch", "repro", "migrate", "tail-errors"]);
    let (name, path, cmdline) = match plan.rng.random_range(0..3) {
        0 => (
            "python3",
            "/usr/bin/python3.11",
            format!("python3 /home/{person}/{word}.py --since {}", ticket(plan)),
        ),
        1 => ("bash", "/usr/bin/bash", format!("bash /home/{person}/bin/{word}.sh")),
        _ => ("watch", "/usr/bin/watch", format!("watch -n 5 {word}")),
    };
    let row = plan.process(&Program { uid: "1000", ..Program::new(name, path, &cmdline) });
    plan.odd("home-script", ("processes", row), &["name", "cmdline"]);
}

fn debug_server(plan: &mut Plan<'_>) {
    let port = pick(&mut plan.rng, &["8888", "8001", "5000", "9999", "3001", "6060"]);
    let (name, path, cmdline) = [
        ("python3", "/usr/bin/python3.11", format!("python3 -m http.server {port}")),
        ("socat", "/usr/bin/socat", format!("socat TCP-LISTEN:{port},fork TCP:10.20.248.21:5432")),
        ("iperf3", "/usr/bin/iperf3", format!("iperf3 -s -p {port}")),
    ][plan.rng.random_range(0..3)]
    .clone();
    let row = plan.process(&Program { uid: "1000", ..Program::new(name, path, &cmdline) });
    let listener = shape::listener(&row["pid"], "0.0.0.0", port, "6");
    let listener = shape::with_owner_and_cmdline(listener, Some(&row));
    plan.odd("debug-server", ("processes", row), &["name", "cmdline"]);
    plan.odd("debug-server", ("listening_ports", listener), &["port", "process_path"]);
}

fn ssh_forward(plan: &mut Plan<'_>) {
    let (local, end) = (plan.rng.random_range(3_000..9_999), plan.rng.random_range(20..60));
    let cmdline = format!("ssh -fN -L {local}:10.20.248.{end}:5432 {}@bastion", pick(&mut plan.rng, PEOPLE));
    let row = plan.process(&Program { uid: "1000", ..Program::new("ssh", "/usr/bin/ssh", &cmdline) });
    let socket = shape::socket(&row["pid"], ("{ip}", "{eport}"), ("{bastion}", "22"));
    let socket = shape::with_owner_and_cmdline(socket, Some(&row));
    plan.odd("ssh-forward", ("processes", row), &["name", "cmdline"]);
    plan.odd("ssh-forward", ("process_open_sockets", socket), &["process_path", "remote_port"]);
}

fn drop_in(plan: &mut Plan<'_>) {
    let unit = pick(&mut plan.rng, &["cron", "ssh", "fluent-bit", "rsyslog", "unattended-upgrades"]);
    let name = pick(&mut plan.rng, &["limits", "memory", "ops", "nice"]);
    odd_file(plan, "drop-in", &format!("/etc/systemd/system/{unit}.service.d/{name}.conf"));
}

fn edited_file(plan: &mut Plan<'_>) {
    let paths = [
        "/etc/profile",
        "/etc/bash.bashrc",
        "/etc/environment",
        "/etc/ssh/sshd_config",
        "/etc/sudoers",
        "/etc/crontab",
    ];
    let path = pick(&mut plan.rng, &paths);
    let content = format!("{path} {}", ticket(plan));
    let hash = shape::hash(&File::new(path, "", &content));
    let set = [("md5", hash["md5"].as_str()), ("sha1", &hash["sha1"]), ("sha256", &hash["sha256"])];
    plan.odd_change(("edited-file", "hash"), [("path", path)], set);
    let ctime = (plan.facts.today - 86_400 * plan.rng.random_range(2..60)).to_string();
    plan.odd_change(("edited-file", "file"), [("path", path)], [("mtime", &ctime), ("ctime", &ctime)]);
}

fn held_package(plan: &mut Plan<'_>) {
    let name = pick(&mut plan.rng, &["curl", "fluent-bit", "chrony", "tzdata", "libc6", "openssl", "vim"]);
    let Some(row) = plan.base.find("deb_packages", "name", name) else { return };
    let version = format!("{}~bpo12+{}", row["version"], plan.rng.random_range(1..4));
    plan.odd_change(("held-package", "deb_packages"), [("name", name)], [("version", &version)]);
}

fn sudo_rule(plan: &mut Plan<'_>) {
    let (person, number) = (pick(&mut plan.rng, PEOPLE), ticket(plan));
    let source = format!("/etc/sudoers.d/ops-{number}");
    let rule = "ALL=(ALL) NOPASSWD: /usr/bin/systemctl, /usr/bin/journalctl";
    let row = cells([("source", source.as_str()), ("header", person), ("rule_details", rule)]);
    plan.odd("sudo-rule", ("sudoers", row), &["source", "header"]);
    odd_file(plan, "sudo-rule", &source);
}

fn group_member(plan: &mut Plan<'_>) {
    let (gid, group) =
        [("4", "adm"), ("999", "systemd-journal"), ("33", "www-data")][plan.rng.random_range(0..3)];
    let (uid, name) =
        [("1002", "deploy"), ("109", "prometheus"), ("110", "redis")][plan.rng.random_range(0..3)];
    plan.odd(
        "group-member",
        ("user_groups", shape::member(uid, name, gid, group)),
        &["username", "groupname"],
    );
}

fn service_shell(plan: &mut Plan<'_>) {
    let name = pick(&mut plan.rng, &["www-data", "backup"]);
    plan.odd_change(("service-shell", "users"), [("username", name)], [("shell", "/bin/sh")]);
}

fn package_suid(plan: &mut Plan<'_>) {
    let path = pick(
        &mut plan.rng,
        &["/usr/bin/at", "/usr/bin/ping", "/usr/bin/mtr-packet", "/usr/bin/ntfs-3g", "/usr/sbin/mount.nfs"],
    );
    let row = cells([("path", path), ("username", "root"), ("groupname", "root"), ("permissions", "S")]);
    plan.odd("package-suid", ("suid_bin", row), &["path"]);
    if plan.base.find("file", "path", path).is_none() {
        plan.odd("package-suid", ("file", shape::file(&File::new(path, "4755", path))), &["path"]);
        plan.odd("package-suid", ("hash", shape::hash(&File::new(path, "4755", path))), &["path"]);
    }
}

fn service_setting(plan: &mut Plan<'_>) {
    let services = plan.services();
    let Some(owner) = services.choose(&mut plan.rng) else { return };
    let (key, value) = [
        ("LOG_LEVEL", "debug"),
        ("PYTHONFAULTHANDLER", "1"),
        ("MALLOC_ARENA_MAX", "2"),
        ("DEBUG", "1"),
        ("NO_PROXY", "10.0.0.0/8"),
    ][plan.rng.random_range(0..5)];
    let row = cells([("pid", owner["pid"].as_str()), ("key", key), ("value", value)]);
    plan.odd("service-setting", ("process_envs", shape::with_owner(row, Some(owner))), &["key", "name"]);
}

fn rebuilt_tool(plan: &mut Plan<'_>) {
    let word =
        pick(&mut plan.rng, &["aws", "kubectl", "terraform", "yq", "node_exporter", "restic", "vector"]);
    odd_file(plan, "rebuilt-tool", &format!("/usr/local/bin/{word}"));
}
