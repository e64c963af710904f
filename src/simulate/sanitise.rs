//! What may be taken from this machine, and nothing else: an allow list of tables, columns and values.
//!
//! Values that a person could have chosen (command lines, descriptions, home directories, addresses, names of units in
//! `/etc`) are either replaced by the bundled sample's or take their row with them.

use std::collections::{BTreeMap, BTreeSet};

use super::row::{Cells, Tables, cells};
use super::shape::{self, Process, Unit};
use super::{bundled, seed};

/// Most rows that a table takes from this machine.
const MOST_ROWS: usize = 400;

/// Process ids of this machine start here, clear of the sample's.
const FIRST_OWN_PID: usize = 2_000;

/// The sample with what may be taken from this machine.
pub(super) fn merge(own: &Tables, sample: Tables) -> Tables {
    let mut merged = sample;
    add_processes(own, &mut merged);
    for (table, take, key) in TAKEN {
        let rows = own.get(*table).map(Vec::as_slice).unwrap_or_default();
        let taken: Vec<Cells> = rows.iter().filter_map(take).collect();
        let kept = merged.remove(*table).unwrap_or_default();
        merged.insert((*table).to_owned(), union(table, taken, kept, key));
    }
    merged
}

/// The version of this machine's kernel, when it looks like one.
pub(super) fn kernel(own: &Tables) -> Option<&str> {
    let version = own.get("kernel_info")?.first()?.get("version")?;
    // What a distribution calls its builds; the name of who built one's own kernel is no such word.
    const WORDS: [&str; 14] = [
        "amd64", "arm64", "x86", "generic", "cloud", "aws", "azure", "gcp", "kvm", "rt", "lts", "fc", "el",
        "amzn",
    ];
    let mut words = version.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty());
    let looks = version.len() <= 64 && version.starts_with(|c: char| c.is_ascii_digit());
    (looks && words.all(|word| WORDS.contains(&word))).then_some(version)
}

/// Whether anything is taken from a table of that name.
pub(super) fn takes(table: &str) -> bool {
    table == "processes" || table == "kernel_info" || TAKEN.iter().any(|(taken, _, _)| *taken == table)
}

type Take = fn(&Cells) -> Option<Cells>;

/// Tables that take rows from this machine, how, and the column that tells rows apart.
const TAKEN: &[(&str, Take, &str)] = &[
    ("kernel_modules", kernel_module, "name"),
    ("mounts", mount, "path"),
    ("users", user, "username"),
    ("groups", group, "groupname"),
    ("suid_bin", suid, "path"),
    ("systemd_units", unit, "id"),
    ("startup_items", startup, "name"),
    ("deb_packages", package, "name"),
    ("file", file, "path"),
    ("hash", hash, "path"),
    ("os_version", os_version, "platform"),
];

/// Tables of which this machine's row is the better one where both have the same thing.
const OWN_FIRST: [&str; 4] = ["deb_packages", "file", "hash", "kernel_modules"];

/// One table: the sample's rows and this machine's, no thing twice, not too many.
fn union(table: &str, taken: Vec<Cells>, sample: Vec<Cells>, key: &str) -> Vec<Cells> {
    if sample.len() == 1 {
        return if taken.len() == 1 { taken } else { sample };
    }
    let own_first = OWN_FIRST.contains(&table);
    let few = taken.len() < sample.len() / 2;
    let mut own: BTreeMap<String, Cells> =
        taken.into_iter().filter_map(|row| Some((row.get(key)?.clone(), row))).collect();
    let mut rows = Vec::new();
    for row in sample {
        match own.remove(row.get(key).map_or("", String::as_str)) {
            Some(ours) if own_first => rows.push(ours),
            None if own_first && !few && !is_needed(&row, key) => {}
            _ => rows.push(row),
        }
    }
    let mut rest: Vec<(String, Cells)> = own.into_iter().collect();
    // A stable choice from all over the alphabet.
    rest.sort_by_cached_key(|(name, _)| seed::number_of(name, u64::MAX));
    rest.truncate(MOST_ROWS.saturating_sub(rows.len()));
    rows.extend(rest.into_iter().map(|(_, row)| row));
    rows
}

/// Rows of the sample that scenarios work on, and those of places from which nothing is taken.
fn is_needed(row: &Cells, key: &str) -> bool {
    let name = row.get(key).map_or("", String::as_str);
    ["ssh", "cron", "audit", "pam", "/etc/", "/var/", "/tmp/", "/home/", "/root/"]
        .iter()
        .any(|part| name.contains(part))
}

fn add_processes(own: &Tables, merged: &mut Tables) {
    let own_rows = own.get("processes").map(Vec::as_slice).unwrap_or_default();
    let Some(processes) = merged.get_mut("processes") else { return };
    let paths: BTreeMap<&str, &str> = own_rows
        .iter()
        .filter_map(|row| Some((system_path(row, "path")?, system_id(row, "uid").unwrap_or("0"))))
        .collect();
    let known: BTreeSet<String> = processes.iter().map(|row| row["path"].clone()).collect();
    let new = paths.into_iter().filter(|(path, _)| !known.contains(*path)).take(MOST_ROWS / 4);
    let added: Vec<(String, Cells)> = new
        .enumerate()
        .map(|(index, (path, uid))| (path.to_owned(), own_process(path, uid, FIRST_OWN_PID + index)))
        .collect();
    let init = processes.first().cloned();
    for (_, row) in &added {
        processes.push(shape::with_parent(row.clone(), init.as_ref()));
    }
    let Some(ports) = merged.get_mut("listening_ports") else { return };
    let listening = own.get("listening_ports").map(Vec::as_slice).unwrap_or_default();
    for row in listening.iter().take(MOST_ROWS) {
        let owner = owner_path(row, own_rows);
        let owner = added.iter().find(|(path, _)| Some(path.as_str()) == owner);
        if let Some((port, (_, process))) = listener(row, process_id(owner)).zip(owner) {
            ports.push(shape::with_owner_and_cmdline(port, Some(process)));
        }
    }
}

fn process_id(owner: Option<&(String, Cells)>) -> &str {
    owner.and_then(|(_, process)| process.get("pid")).map_or("", String::as_str)
}

/// A process of which only the program is taken: its name and command line are the program's path.
fn own_process(path: &str, uid: &str, pid: usize) -> Cells {
    let name: String = path.rsplit('/').next().unwrap_or_default().chars().take(15).collect();
    shape::process(&Process {
        pid: &pid.to_string(),
        parent: "1",
        uid,
        gid: uid,
        name: &name,
        path,
        cmdline: path,
        unit: &format!("{name}.service"),
        on_disk: true,
    })
}

fn owner_path<'a>(row: &'a Cells, processes: &'a [Cells]) -> Option<&'a str> {
    let pid = row.get("pid")?;
    system_path(processes.iter().find(|process| process.get("pid") == Some(pid))?, "path")
}

fn listener(row: &Cells, pid: &str) -> Option<Cells> {
    let port: u16 = row.get("port")?.parse().ok()?;
    let protocol = row.get("protocol").filter(|protocol| ["6", "17"].contains(&protocol.as_str()))?;
    let everywhere = ["0.0.0.0", "::", "127.0.0.1", "::1"];
    let address = row.get("address").filter(|address| everywhere.contains(&address.as_str()))?;
    // Ports from here on are handed out at random.
    (port > 0 && port < 32_768).then(|| shape::listener(pid, address, &port.to_string(), protocol))
}

/// The value when it is the path of something that came with the system.
fn system_path<'a>(row: &'a Cells, column: &str) -> Option<&'a str> {
    let path = row.get(column)?.as_str();
    let system = ["/usr/bin/", "/usr/sbin/", "/usr/lib/", "/usr/libexec/", "/bin/", "/sbin/"];
    let plain = path.len() <= 160 && !path.contains("..") && path.chars().all(|c| plain(c) || c == '/');
    (plain && system.iter().any(|prefix| path.starts_with(prefix))).then_some(path)
}

fn plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._+-@:~".contains(c)
}

/// The value when it is one plain word.
fn word<'a>(row: &'a Cells, column: &str) -> Option<&'a str> {
    let value = row.get(column)?.as_str();
    (!value.is_empty() && value.len() <= 80 && value.chars().all(plain)).then_some(value)
}

/// The value when it is a number.
fn number<'a>(row: &'a Cells, column: &str) -> Option<&'a str> {
    word(row, column).filter(|value| value.parse::<u64>().is_ok())
}

fn system_id<'a>(row: &'a Cells, column: &str) -> Option<&'a str> {
    number(row, column).filter(|id| id.parse().is_ok_and(|id: u64| id < 1_000))
}

fn kernel_module(row: &Cells) -> Option<Cells> {
    Some(bundled::kernel_module(word(row, "name")?, number(row, "size")?))
}

fn mount(row: &Cells) -> Option<Cells> {
    let kind = word(row, "type")?;
    let known =
        ["proc", "sysfs", "tmpfs", "devpts", "devtmpfs", "cgroup2", "mqueue", "bpf", "debugfs", "tracefs"];
    let path = row.get("path")?.as_str();
    let places = ["/proc", "/sys", "/dev"];
    let plain_path = path.split('/').all(|part| {
        ["", "fs", "kernel", "cgroup", "pts", "shm", "mqueue"].contains(&part)
            || places.contains(&format!("/{part}").as_str())
            || known.contains(&part)
            || ["debug", "tracing", "security", "config", "hugepages", "connections", "fuse", "pstore"]
                .contains(&part)
    });
    let flags = row.get("flags").map_or("", String::as_str).split(',');
    let known_flags = ["rw", "ro", "nosuid", "nodev", "noexec", "relatime", "noatime"];
    let flags: Vec<&str> = flags.filter(|flag| known_flags.contains(flag)).collect();
    let mut taken = cells([("device", kind), ("device_alias", kind), ("path", path), ("type", kind)]);
    taken.extend(cells([("flags", &flags.join(",")), ("blocks_size", "4096"), ("blocks", "0")]));
    taken.extend(cells([
        ("blocks_free", "0"),
        ("blocks_available", "0"),
        ("inodes", "0"),
        ("inodes_free", "0"),
    ]));
    (known.contains(&kind) && plain_path && places.iter().any(|place| path.starts_with(place)))
        .then_some(taken)
}

fn user(row: &Cells) -> Option<Cells> {
    let (uid, username) = (system_id(row, "uid")?, word(row, "username")?);
    Some(shape::user(uid, username, "/nonexistent", "/usr/sbin/nologin"))
}

fn group(row: &Cells) -> Option<Cells> {
    let (gid, name) = (system_id(row, "gid")?, word(row, "groupname")?);
    Some(cells([("gid", gid), ("gid_signed", gid), ("groupname", name)]))
}

fn suid(row: &Cells) -> Option<Cells> {
    let path = system_path(row, "path")?;
    let permissions = word(row, "permissions").filter(|value| ["S", "G", "SG"].contains(value))?;
    Some(cells([("path", path), ("username", "root"), ("groupname", "root"), ("permissions", permissions)]))
}

/// The unit file, when a package brought it.
fn fragment<'a>(row: &'a Cells, column: &str) -> Option<&'a str> {
    let path = row.get(column)?.as_str();
    let (directory, name) = path.rsplit_once('/')?;
    let packaged = ["/lib/systemd/system", "/usr/lib/systemd/system"].contains(&directory);
    (packaged && !name.is_empty() && name.len() <= 80 && name.chars().all(plain)).then_some(path)
}

/// A unit is named like its file; instances (`x@NAME`) and generated units are named by whoever made them.
fn unit_name<'a>(row: &'a Cells, column: &str, path: &str) -> Option<&'a str> {
    let kinds = [".service", ".socket", ".timer", ".target", ".path"];
    let id = word(row, column)?;
    (path.ends_with(&format!("/{id}")) && kinds.iter().any(|kind| id.ends_with(kind))).then_some(id)
}

fn unit(row: &Cells) -> Option<Cells> {
    let path = fragment(row, "fragment_path")?;
    let id = unit_name(row, "id", path)?;
    let one_of = |column: &str, words: &[&'static str]| {
        let value = row.get(column)?;
        words.iter().find(|word| *word == value).copied()
    };
    Some(shape::unit(&Unit {
        id,
        description: id,
        active_state: one_of("active_state", &["active", "inactive", "failed"])?,
        sub_state: one_of("sub_state", &["running", "exited", "dead", "waiting", "listening", "active"])
            .unwrap_or("dead"),
        unit_file_state: one_of("unit_file_state", &["enabled", "disabled", "static", "masked", "alias"])
            .unwrap_or("static"),
        fragment_path: path,
        user: "",
    }))
}

fn startup(row: &Cells) -> Option<Cells> {
    let path = fragment(row, "path")?;
    let status = row.get("status").filter(|status| ["active", "inactive"].contains(&status.as_str()))?;
    Some(shape::startup(&Unit {
        id: unit_name(row, "name", path)?,
        description: "",
        active_state: status,
        sub_state: "",
        unit_file_state: "",
        fragment_path: path,
        user: "",
    }))
}

fn package(row: &Cells) -> Option<Cells> {
    // Packages of one's own say who made them, and their names may say for whom.
    let maintainer = row.get("maintainer").map_or("", String::as_str);
    let public = ["debian.org>", "ubuntu.com>", "canonical.com>", "debian.net>"];
    if !public.iter().any(|domain| maintainer.ends_with(domain)) {
        return None;
    }
    const SECTIONS: [&str; 24] = [
        "admin",
        "database",
        "devel",
        "doc",
        "editors",
        "fonts",
        "httpd",
        "interpreters",
        "kernel",
        "libdevel",
        "libs",
        "localization",
        "mail",
        "misc",
        "net",
        "oldlibs",
        "perl",
        "php",
        "python",
        "shells",
        "text",
        "utils",
        "vcs",
        "web",
    ];
    let section = word(row, "section").filter(|section| SECTIONS.contains(section)).unwrap_or("misc");
    let arch = word(row, "arch").filter(|arch| ["amd64", "arm64", "all"].contains(arch))?;
    Some(shape::package(word(row, "name")?, word(row, "version")?, section, arch))
}

fn file(row: &Cells) -> Option<Cells> {
    let path = system_path(row, "path")?;
    let mode = number(row, "mode").filter(|mode| mode.len() <= 4)?;
    Some(shape::file(&shape::File::new(path, mode, path)))
}

fn hash(row: &Cells) -> Option<Cells> {
    let path = system_path(row, "path")?;
    let digits = |column: &str, length: usize| {
        row.get(column)
            .is_some_and(|hash| hash.len() == length && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    let mut taken = shape::hash(&shape::File::new(path, "0755", path));
    for (column, length) in [("md5", 32), ("sha1", 40), ("sha256", 64)] {
        if digits(column, length) {
            taken.insert(column.to_owned(), row[column].clone());
        }
    }
    Some(taken)
}

fn os_version(row: &Cells) -> Option<Cells> {
    let platform = word(row, "platform")?;
    let names = [
        ("debian", "Debian GNU/Linux"),
        ("ubuntu", "Ubuntu"),
        ("fedora", "Fedora Linux"),
        ("amzn", "Amazon Linux"),
        ("rhel", "Red Hat Enterprise Linux"),
    ];
    let (_, name) = names.iter().find(|(known, _)| *known == platform)?;
    let of = |column: &str| number(row, column).unwrap_or("0");
    const CODENAMES: [&str; 7] = ["bullseye", "bookworm", "trixie", "forky", "focal", "jammy", "noble"];
    let codename = word(row, "codename").filter(|name| CODENAMES.contains(name));
    let arch = word(row, "arch").filter(|arch| ["x86_64", "aarch64"].contains(arch)).unwrap_or("x86_64");
    let mut taken = cells([("name", name), ("platform", platform), ("platform_like", ""), ("build", "")]);
    taken.extend(cells([("major", of("major")), ("minor", of("minor")), ("patch", of("patch"))]));
    taken.extend(cells([("version", of("major")), ("codename", codename.unwrap_or("")), ("arch", arch)]));
    Some(taken)
}
