//! The bundled sample: a Debian-like web server, written by hand; hashes, sizes and times are made from names.

use super::row::{Cells, Tables, cells};
use super::seed;
use super::shape::{self, File, Process, Unit};

/// The older kernel build of the bundled fleet.
pub(super) const KERNEL: &str = "6.1.0-25-cloud-amd64";

/// Tables that lie in files with all of their columns.
const WHOLE: &[(&str, &str)] = &[
    ("authorized_keys", include_str!("bundled/authorized_keys.tsv")),
    ("crontab", include_str!("bundled/crontab.tsv")),
    ("dns_resolvers", include_str!("bundled/dns_resolvers.tsv")),
    ("ec2_instance_metadata", include_str!("bundled/ec2_instance_metadata.tsv")),
    ("etc_hosts", include_str!("bundled/etc_hosts.tsv")),
    ("interface_addresses", include_str!("bundled/interface_addresses.tsv")),
    ("kernel_info", include_str!("bundled/kernel_info.tsv")),
    ("os_version", include_str!("bundled/os_version.tsv")),
    ("osquery_info", include_str!("bundled/osquery_info.tsv")),
    ("sudoers", include_str!("bundled/sudoers.tsv")),
    ("suid_bin", include_str!("bundled/suid_bin.tsv")),
    ("system_info", include_str!("bundled/system_info.tsv")),
    ("uptime", include_str!("bundled/uptime.tsv")),
];

/// All tables of the sample.
pub(super) fn tables() -> Tables {
    let mut tables: Tables = WHOLE.iter().map(|(table, text)| ((*table).to_owned(), parse(text))).collect();
    let processes = processes();
    let mut put = |table: &str, rows: Vec<Cells>| tables.insert(table.to_owned(), rows);
    put("listening_ports", listening_ports(&processes));
    put("process_open_sockets", process_open_sockets(&processes));
    put("process_envs", process_envs(&processes));
    put("processes", processes);
    put("cron_scripts", each("cron_scripts", |row| shape::cron_script(&packaged(&row["path"], "0755"))));
    put("kernel_modules", each("kernel_modules", |row| kernel_module(&row["name"], &row["size"])));
    put("mounts", each("mounts", mount));
    put("users", each("users", user));
    put("groups", each("groups", group));
    put("user_groups", user_groups());
    put("shell_history", each("shell_history", |row| command(&row)));
    put("deb_packages", each("deb_packages", deb_package));
    put("python_packages", each("python_packages", |row| python_package(&row["name"], &row["version"])));
    put("hash", each("files", |row| shape::hash(&packaged(&row["path"], &row["mode"]))));
    put("file", files());
    put("systemd_units", each("systemd_units", |row| shape::unit(&unit(&row))));
    let services = parse(text_of("systemd_units")).into_iter();
    let services = services.filter(|row| row["id"].ends_with(".service"));
    put("startup_items", services.map(|row| shape::startup(&unit(&row))).collect());
    for key in tables.get_mut("authorized_keys").into_iter().flatten().filter_map(|row| row.get_mut("key")) {
        *key = fixed_key(key);
    }
    tables
}

fn text_of(name: &str) -> &'static str {
    match name {
        "cron_scripts" => include_str!("bundled/cron_scripts.tsv"),
        "deb_packages" => include_str!("bundled/deb_packages.tsv"),
        "files" => include_str!("bundled/files.tsv"),
        "groups" => include_str!("bundled/groups.tsv"),
        "kernel_modules" => include_str!("bundled/kernel_modules.tsv"),
        "listed_files" => include_str!("bundled/listed_files.tsv"),
        "listening_ports" => include_str!("bundled/listening_ports.tsv"),
        "mounts" => include_str!("bundled/mounts.tsv"),
        "process_envs" => include_str!("bundled/process_envs.tsv"),
        "process_open_sockets" => include_str!("bundled/process_open_sockets.tsv"),
        "processes" => include_str!("bundled/processes.tsv"),
        "python_packages" => include_str!("bundled/python_packages.tsv"),
        "shell_history" => include_str!("bundled/shell_history.tsv"),
        "systemd_units" => include_str!("bundled/systemd_units.tsv"),
        "user_groups" => include_str!("bundled/user_groups.tsv"),
        "users" => include_str!("bundled/users.tsv"),
        _ => "",
    }
}

/// Rows of tab-separated text with a header line. The texts are our own: a test reads all of them.
fn parse(text: &str) -> Vec<Cells> {
    let mut reader = csv::ReaderBuilder::new().delimiter(b'\t').quoting(false).from_reader(text.as_bytes());
    reader.deserialize().filter_map(Result::ok).collect()
}

fn each(name: &str, make: impl Fn(Cells) -> Cells) -> Vec<Cells> {
    parse(text_of(name)).into_iter().map(make).collect()
}

fn packaged<'a>(path: &'a str, mode: &'a str) -> File<'a> {
    File::new(path, mode, path)
}

fn processes() -> Vec<Cells> {
    let rows = each("processes", |row| {
        shape::process(&Process {
            pid: &row["pid"],
            parent: &row["parent"],
            uid: &row["uid"],
            gid: &row["gid"],
            name: &row["name"],
            path: &row["path"],
            cmdline: &row["cmdline"],
            unit: &row["unit"],
            on_disk: true,
        })
    });
    rows.iter().map(|row| shape::with_parent(row.clone(), owner(&rows, &row["parent"]))).collect()
}

fn owner<'a>(processes: &'a [Cells], pid: &str) -> Option<&'a Cells> {
    processes.iter().find(|row| row["pid"] == pid)
}

fn listening_ports(processes: &[Cells]) -> Vec<Cells> {
    each("listening_ports", |row| {
        let mut cells = shape::listener(&row["pid"], &row["address"], &row["port"], &row["protocol"]);
        cells.extend(row);
        let owner = owner(processes, &cells["pid"]);
        shape::with_owner_and_cmdline(cells, owner)
    })
}

fn process_open_sockets(processes: &[Cells]) -> Vec<Cells> {
    each("process_open_sockets", |row| {
        let mut cells = shape::socket(&row["pid"], ("", ""), ("", ""));
        cells.extend(row);
        let owner = owner(processes, &cells["pid"]);
        shape::with_owner_and_cmdline(cells, owner)
    })
}

fn process_envs(processes: &[Cells]) -> Vec<Cells> {
    each("process_envs", |row| {
        let owner = owner(processes, &row["pid"]);
        shape::with_owner(row, owner)
    })
}

/// A `kernel_modules` row; the address differs by host.
pub(super) fn kernel_module(name: &str, size: &str) -> Cells {
    cells([("name", name), ("size", size), ("used_by", "-"), ("status", "Live"), ("address", "0")])
}

/// A `mounts` row.
pub(super) fn mounted(device: &str, path: &str, kind: &str) -> Cells {
    let blocks = if device.starts_with("/dev/") { "26214400" } else { "5026304" };
    mount(cells([
        ("device", device),
        ("path", path),
        ("type", kind),
        ("flags", "rw,relatime"),
        ("blocks_size", "4096"),
        ("blocks", blocks),
    ]))
}

fn mount(mut row: Cells) -> Cells {
    let blocks: u64 = row["blocks"].parse().unwrap_or_default();
    let inodes = blocks / 4;
    row.insert("device_alias".to_owned(), row["device"].clone());
    for (column, value) in
        [("blocks_free", blocks), ("blocks_available", blocks), ("inodes", inodes), ("inodes_free", inodes)]
    {
        row.insert(column.to_owned(), value.to_string());
    }
    row
}

fn user(row: Cells) -> Cells {
    let mut cells = shape::user(&row["uid"], &row["username"], &row["directory"], &row["shell"]);
    cells.insert("gid".to_owned(), row["gid"].clone());
    cells.insert("gid_signed".to_owned(), row["gid"].clone());
    cells.insert("description".to_owned(), row["description"].clone());
    cells
}

fn group(row: Cells) -> Cells {
    cells([("gid", &row["gid"]), ("gid_signed", &row["gid"]), ("groupname", &row["groupname"])])
}

fn user_groups() -> Vec<Cells> {
    let (users, groups) = (parse(text_of("users")), parse(text_of("groups")));
    let name = |rows: &[Cells], id: &str, column: &str, value: &str| {
        rows.iter().find(|row| row[id] == value).map(|row| row[column].clone()).unwrap_or_default()
    };
    each("user_groups", |row| {
        let username = name(&users, "uid", "username", &row["uid"]);
        let groupname = name(&groups, "gid", "groupname", &row["gid"]);
        shape::member(&row["uid"], &username, &row["gid"], &groupname)
    })
}

fn command(row: &Cells) -> Cells {
    history(&row["uid"], &row["username"], &row["command"])
}

/// A `shell_history` row; the time differs by host.
pub(super) fn history(uid: &str, username: &str, command: &str) -> Cells {
    let home = if username == "root" { "/root".to_owned() } else { format!("/home/{username}") };
    cells([
        ("uid", uid),
        ("username", username),
        ("time", "1"),
        ("command", command),
        ("history_file", &format!("{home}/.bash_history")),
    ])
}

/// A `python_packages` row of all users.
pub(super) fn python_package(name: &str, version: &str) -> Cells {
    let directory = "/usr/lib/python3/dist-packages";
    cells([
        ("uid", "0"),
        ("username", "root"),
        ("name", name),
        ("version", version),
        ("summary", ""),
        ("author", ""),
        ("license", ""),
        ("directory", directory),
        ("path", &format!("{directory}/{name}-{version}.egg-info")),
    ])
}

fn deb_package(row: Cells) -> Cells {
    shape::package(&row["name"], &row["version"], &row["section"], &row["arch"])
}

fn unit(row: &Cells) -> Unit<'_> {
    Unit {
        id: &row["id"],
        description: &row["description"],
        active_state: &row["active_state"],
        sub_state: &row["sub_state"],
        unit_file_state: &row["unit_file_state"],
        fragment_path: &row["fragment_path"],
        user: &row["user"],
    }
}

fn files() -> Vec<Cells> {
    let packaged = each("files", |row| shape::file(&packaged(&row["path"], &row["mode"])));
    let listed = each("listed_files", |row| {
        let mut cells = shape::file(&packaged_as(&row));
        cells.insert("type".to_owned(), row["type"].clone());
        cells.insert("size".to_owned(), row["size"].clone());
        cells
    });
    packaged.into_iter().chain(listed).collect()
}

fn packaged_as(row: &Cells) -> File<'_> {
    File { path: &row["path"], mode: &row["mode"], uid: &row["uid"], gid: &row["gid"], content: &row["path"] }
}

/// `{fixed:NAME}` stands for a key that all hosts of all fleets have.
fn fixed_key(key: &str) -> String {
    match key.strip_prefix("{fixed:").and_then(|rest| rest.strip_suffix('}')) {
        Some(name) => seed::ssh_key(&mut seed::stream(0, &["key", name])),
        None => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_sample_is_a_row() {
        let names = ["cron_scripts", "deb_packages", "files", "groups", "kernel_modules", "listed_files"];
        let more = ["listening_ports", "mounts", "process_envs", "process_open_sockets", "processes"];
        let last = ["python_packages", "shell_history", "systemd_units", "user_groups", "users"];
        let parts = names.iter().chain(&more).chain(&last).map(|name| (*name, text_of(name)));
        for (name, text) in parts.chain(WHOLE.iter().copied()) {
            assert!(text.lines().count() > 1, "{name}");
            assert_eq!(parse(text).len(), text.lines().count() - 1, "{name}");
        }
    }

    #[test]
    fn every_process_named_by_the_sample_is_there() {
        let tables = tables();
        for table in ["listening_ports", "process_open_sockets", "process_envs"] {
            for row in &tables[table] {
                assert!(owner(&tables["processes"], &row["pid"]).is_some(), "{table}: {row:?}");
            }
        }
    }
}
