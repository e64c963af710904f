//! From a web server to a host of another role.

use std::collections::BTreeSet;

use super::super::bundled;
use super::super::row::{Cells, Tables, cells};
use super::super::shape::{self, File, Process, Unit};
use super::{Role, Service};

/// Units of the web server.
const UNITS: [&str; 8] = [
    "nginx.service",
    "php8.2-fpm.service",
    "redis-server.service",
    "shop-api.service",
    "phpsessionclean.service",
    "phpsessionclean.timer",
    "certbot.service",
    "certbot.timer",
];

/// What the names of packages, files and jobs of the web server begin with or hold.
const WORDS: [&str; 12] = [
    "nginx",
    "php",
    "redis",
    "certbot",
    "gunicorn",
    "django",
    "psycopg2",
    "libonig",
    "libjemalloc",
    "liblzf",
    "/srv/shop",
    "shop",
];

/// First process id of a role's own services.
const FIRST_PID: usize = 800;

/// The rows of a role's hosts, from those of the web server.
pub(super) fn tables(role: &Role, mut tables: Tables, mixed: bool) -> Tables {
    if !role.services.is_empty() {
        strip(&mut tables);
    }
    if mixed {
        // An agent that can ask for containers answers with none where no engine runs.
        tables.insert(
            "docker_containers".to_owned(),
            role.containers.iter().enumerate().map(container).collect(),
        );
    }
    for (position, service) in role.services.iter().enumerate() {
        add(&mut tables, service, FIRST_PID + position * 20);
    }
    let mut extend = |table: &str, rows: Vec<Cells>| tables.entry(table.to_owned()).or_default().extend(rows);
    extend(
        "crontab",
        role.crons
            .iter()
            .map(|(minute, hour, command, path)| shape::cron([minute, hour, "*", "*", "*"], command, path))
            .collect(),
    );
    extend(
        "mounts",
        role.mounts.iter().map(|(device, path, kind)| bundled::mounted(device, path, kind)).collect(),
    );
    extend(
        "kernel_modules",
        role.modules.iter().map(|(name, size)| bundled::kernel_module(name, size)).collect(),
    );
    for row in tables.values_mut().flatten().flat_map(Cells::values_mut) {
        if row.contains("web-frontend") {
            *row = row.replace("web-frontend", role.name);
        }
    }
    tables
}

fn is_web(value: &str) -> bool {
    WORDS.iter().any(|word| value.contains(word))
}

/// Takes the web server's own services away, with all that belongs to them.
fn strip(tables: &mut Tables) {
    let of_web = |row: &Cells| UNITS.iter().any(|unit| row["cgroup_path"].ends_with(unit));
    let processes = tables.get("processes").map(Vec::as_slice).unwrap_or_default();
    let pids: BTreeSet<String> =
        processes.iter().filter(|row| of_web(row)).map(|row| row["pid"].clone()).collect();
    for table in ["processes", "listening_ports", "process_open_sockets", "process_envs"] {
        retain(tables, table, |row| !pids.contains(&row["pid"]));
    }
    retain(tables, "systemd_units", |row| !UNITS.contains(&row["id"].as_str()));
    retain(tables, "startup_items", |row| !UNITS.contains(&row["name"].as_str()));
    for (table, column) in [
        ("deb_packages", "name"),
        ("users", "username"),
        ("user_groups", "username"),
        ("groups", "groupname"),
        ("crontab", "command"),
        ("file", "path"),
        ("hash", "path"),
        ("python_packages", "name"),
    ] {
        retain(tables, table, |row| !is_web(&row[column]) && !row[column].starts_with("/var/www"));
    }
    retain(tables, "sudoers", |row| !is_web(&row["rule_details"]));
}

fn retain(tables: &mut Tables, table: &str, keep: impl Fn(&Cells) -> bool) {
    if let Some(rows) = tables.get_mut(table) {
        rows.retain(|row| keep(row));
    }
}

fn add(tables: &mut Tables, service: &'static Service, pid: usize) {
    let main = process(tables, service, (pid, None), service.cmdline);
    for (position, cmdline) in service.workers.iter().enumerate() {
        process(tables, service, (pid + 1 + position, Some(&main)), cmdline);
    }
    let mut push = |table: &str, row: Cells| tables.entry(table.to_owned()).or_default().push(row);
    let own = |row: Cells| shape::with_owner_and_cmdline(row, Some(&main));
    for (address, port) in service.listens {
        push("listening_ports", own(shape::listener(&main["pid"], address, port, "6")));
    }
    for (port, remote) in service.clients {
        let socket = shape::socket(&main["pid"], ("{ip}", port), (remote, "{eport}"));
        push("process_open_sockets", own(socket));
    }
    for (remote, port) in service.peers {
        let socket = shape::socket(&main["pid"], ("{ip}", "{eport}"), (remote, port));
        push("process_open_sockets", own(socket));
    }
    for (key, value) in [("LANG", "C.UTF-8"), ("INVOCATION_ID", "{hex:32}"), ("RELEASE", "{release}")] {
        let row = cells([("pid", main["pid"].as_str()), ("key", key), ("value", value)]);
        push("process_envs", shape::with_owner(row, Some(&main)));
    }
    for (name, version) in service.packages {
        push("deb_packages", shape::package(name, version, "misc", "amd64"));
    }
    let fragment = format!("/lib/systemd/system/{}", service.unit);
    let unit = unit(service, &fragment);
    push("systemd_units", shape::unit(&unit));
    push("startup_items", shape::startup(&unit));
    add_user(tables, service.user);
    for path in [service.path, service.config] {
        add_file(tables, path);
    }
}

fn process(
    tables: &mut Tables,
    service: &Service,
    (pid, parent): (usize, Option<&Cells>),
    cmdline: &str,
) -> Cells {
    let pid = pid.to_string();
    let path = if cmdline.starts_with("/usr/bin/containerd-shim") {
        "/usr/bin/containerd-shim-runc-v2"
    } else {
        service.path
    };
    let name = if path == service.path { service.name } else { "containerd-shim" };
    let (_, uid) = service.user;
    // Masters of web servers stay root.
    let uid = if parent.is_none() && service.name == "nginx" { "0" } else { uid };
    let row = shape::process(&Process {
        pid: &pid,
        parent: parent.map_or("1", |row| &row["pid"]),
        uid,
        gid: uid,
        name,
        path,
        cmdline,
        unit: service.unit,
        on_disk: true,
    });
    let rows = tables.entry("processes".to_owned()).or_default();
    let parent = parent.cloned().or_else(|| rows.iter().find(|row| row["pid"] == "1").cloned());
    let row = shape::with_parent(row, parent.as_ref());
    rows.push(row.clone());
    row
}

fn unit<'a>(service: &'static Service, packaged: &'a str) -> Unit<'a> {
    Unit {
        id: service.unit,
        description: service.description,
        active_state: "active",
        sub_state: "running",
        unit_file_state: "enabled",
        fragment_path: if service.config.starts_with("/etc/systemd") { service.config } else { packaged },
        user: service.user.0,
    }
}

fn add_user(tables: &mut Tables, (name, uid): (&str, &str)) {
    let users = tables.entry("users".to_owned()).or_default();
    if users.iter().any(|row| row["username"] == name) {
        return;
    }
    let home = format!("/var/lib/{name}");
    users.push(shape::user(uid, name, &home, "/usr/sbin/nologin"));
    let group = cells([("gid", uid), ("gid_signed", uid), ("groupname", name)]);
    tables.entry("groups".to_owned()).or_default().push(group);
    tables.entry("user_groups".to_owned()).or_default().push(shape::member(uid, name, uid, name));
}

fn add_file(tables: &mut Tables, path: &str) {
    let file = File::new(path, if path.starts_with("/etc/") { "0644" } else { "0755" }, path);
    for (table, listed, row) in [
        ("file", shape::is_listed(path), shape::file(&file)),
        ("hash", shape::is_hashed(path), shape::hash(&file)),
    ] {
        let rows = tables.entry(table.to_owned()).or_default();
        if listed && !rows.iter().any(|row| row["path"] == path) {
            rows.push(row);
        }
    }
}

fn container((position, image): (usize, &&str)) -> Cells {
    let name = image.rsplit('/').next().unwrap_or(image);
    let id = format!("{{own:64:box{position}}}");
    let tagged = if name == *image { format!("{image}:7") } else { format!("{image}:{{release}}") };
    shape::container(&id, (&tagged, name), "0")
}
