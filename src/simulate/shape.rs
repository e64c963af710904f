//! Rows with all of their columns from the few that matter, so that the bundled state, honest oddities and planted
//! rows look alike in everything that does not set them apart.

use super::row::{Cells, cells};
use super::seed;

/// A process.
#[derive(Debug, Clone)]
pub(super) struct Process<'a> {
    pub(super) pid: &'a str,
    pub(super) parent: &'a str,
    pub(super) uid: &'a str,
    pub(super) gid: &'a str,
    pub(super) name: &'a str,
    pub(super) path: &'a str,
    pub(super) cmdline: &'a str,
    /// The control group below `/system.slice`, or a whole path when it starts with a slash.
    pub(super) unit: &'a str,
    pub(super) on_disk: bool,
}

/// A `processes` row; the parent's columns come with [`with_parent`].
pub(super) fn process(process: &Process<'_>) -> Cells {
    let kernel = process.path.is_empty() && process.cmdline.is_empty();
    let resident = if kernel { 0 } else { 3_500_000 + seed::number_of(process.name, 60_000_000) };
    let number = |value: u64| if kernel { "0".to_owned() } else { value.to_string() };
    let cgroup = match process.unit {
        "" => "/".to_owned(),
        "init.scope" => "/init.scope".to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        unit => format!("/system.slice/{unit}"),
    };
    let mut row = cells([
        ("pid", process.pid),
        ("parent", process.parent),
        ("pgroup", if kernel { "0" } else { process.pid }),
        ("name", process.name),
        ("path", process.path),
        ("cmdline", process.cmdline),
        ("state", if kernel { "I" } else { "S" }),
        ("cwd", "/"),
        ("root", "/"),
        ("uid", process.uid),
        ("gid", process.gid),
        ("euid", process.uid),
        ("egid", process.gid),
        ("suid", process.uid),
        ("sgid", process.gid),
        ("on_disk", if kernel { "-1" } else { ["0", "1"][usize::from(process.on_disk)] }),
        ("wired_size", "0"),
        ("start_time", process.pid),
        ("threads", "1"),
        ("nice", "0"),
    ]);
    row.insert("resident_size".to_owned(), resident.to_string());
    row.insert("total_size".to_owned(), (resident * 4).to_string());
    row.insert("user_time".to_owned(), seed::number_of(process.cmdline, 9_000).to_string());
    row.insert("system_time".to_owned(), seed::number_of(process.path, 5_000).to_string());
    row.insert("disk_bytes_read".to_owned(), number(seed::number_of(process.path, 40_000_000)));
    row.insert("disk_bytes_written".to_owned(), number(seed::number_of(process.cmdline, 9_000_000)));
    row.insert("cgroup_path".to_owned(), cgroup);
    row
}

/// Adds the columns that the query of `processes` joins from the parent.
pub(super) fn with_parent(mut row: Cells, parent: Option<&Cells>) -> Cells {
    let of = |column: &str| parent.and_then(|parent| parent.get(column)).cloned().unwrap_or_default();
    row.insert("parent_name".to_owned(), of("name"));
    row.insert("parent_path".to_owned(), of("path"));
    row
}

/// Adds the columns that a query joins from the process that owns the row.
pub(super) fn with_owner(mut row: Cells, owner: Option<&Cells>) -> Cells {
    let of = |column: &str| owner.and_then(|owner| owner.get(column)).cloned().unwrap_or_default();
    row.insert("name".to_owned(), of("name"));
    row.insert("process_path".to_owned(), of("path"));
    row.insert("uid".to_owned(), of("uid"));
    row
}

/// Like [`with_owner`], with the command line.
pub(super) fn with_owner_and_cmdline(row: Cells, owner: Option<&Cells>) -> Cells {
    let cmdline = owner.and_then(|owner| owner.get("cmdline")).cloned().unwrap_or_default();
    let mut row = with_owner(row, owner);
    row.insert("cmdline".to_owned(), cmdline);
    row
}

/// A `listening_ports` row without its owner; protocol 6 is TCP, 17 UDP; the family follows the address.
pub(super) fn listener(pid: &str, address: &str, port: &str, protocol: &str) -> Cells {
    let family = if address.contains(':') { "10" } else { "2" };
    cells([
        ("pid", pid),
        ("port", port),
        ("protocol", protocol),
        ("family", family),
        ("address", address),
        ("fd", "3"),
        ("socket", "1"),
        ("path", ""),
        ("net_namespace", "4026531840"),
    ])
}

/// An established TCP connection, without its owner; both ends are `address:port`.
pub(super) fn socket(pid: &str, local: (&str, &str), remote: (&str, &str)) -> Cells {
    cells([
        ("pid", pid),
        ("fd", "4"),
        ("socket", "1"),
        ("family", "2"),
        ("protocol", "6"),
        ("local_address", local.0),
        ("local_port", local.1),
        ("remote_address", remote.0),
        ("remote_port", remote.1),
        ("path", ""),
        ("state", "ESTABLISHED"),
        ("net_namespace", "4026531840"),
    ])
}

/// A file.
#[derive(Debug, Clone, Copy)]
pub(super) struct File<'a> {
    pub(super) path: &'a str,
    pub(super) mode: &'a str,
    pub(super) uid: &'a str,
    pub(super) gid: &'a str,
    /// What the content is made from: another text is another size, time and hash.
    pub(super) content: &'a str,
}

impl<'a> File<'a> {
    /// A file of root.
    pub(super) fn new(path: &'a str, mode: &'a str, content: &'a str) -> Self {
        Self { path, mode, uid: "0", gid: "0", content }
    }

    fn size(&self) -> String {
        let below = if self.path.starts_with("/etc/") { 4_000 } else { 900_000 };
        (120 + seed::number_of(self.content, below)).to_string()
    }

    fn mtime(&self) -> String {
        // Packages of one image are one to two years old.
        (1_690_000_000 + seed::number_of(&format!("mtime:{}", self.content), 30_000_000)).to_string()
    }

    fn sha256(&self) -> String {
        seed::hex_of(&format!("sha256:{}", self.content), 64)
    }
}

/// Directories whose files the query of `file` lists, not those below them.
const LISTED: &[&str] = &[
    "/usr/bin",
    "/usr/sbin",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/usr/lib/x86_64-linux-gnu/security",
    "/usr/lib/systemd/system",
    "/tmp",
    "/var/tmp",
    "/dev/shm",
];

/// Whether a real host would show the path when asked for `file`.
pub(super) fn is_listed(path: &str) -> bool {
    let directory = split(path).0;
    path.starts_with("/etc/") || directory.starts_with("/var/www/html") || LISTED.contains(&directory)
}

/// Whether a real host would show the path when asked for `hash`.
pub(super) fn is_hashed(path: &str) -> bool {
    let etc = [
        "systemd/system/",
        "ld.so.",
        "pam.d/",
        "security/",
        "ssh/sshd_config",
        "sudoers",
        "cron",
        "init.d/",
        "rc.local",
        "profile",
        "bash.bashrc",
        "environment",
        "update-motd.d/",
        "apt/apt.conf.d/",
        "udev/rules.d/",
        "modprobe.d/",
        "modules-load.d/",
    ];
    let in_etc = path.strip_prefix("/etc/").is_some_and(|rest| etc.iter().any(|part| rest.starts_with(part)));
    in_etc || LISTED.contains(&split(path).0)
}

/// A path's directory and file name.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/')
        .map_or(("", path), |(directory, name)| (if directory.is_empty() { "/" } else { directory }, name))
}

/// A `file` row.
pub(super) fn file(file: &File<'_>) -> Cells {
    let (directory, filename) = split(file.path);
    let (size, mtime) = (file.size(), file.mtime());
    cells([
        ("path", file.path),
        ("directory", directory),
        ("filename", filename),
        ("inode", "1"),
        ("uid", file.uid),
        ("gid", file.gid),
        ("mode", file.mode),
        ("device", "0"),
        ("size", &size),
        ("block_size", "4096"),
        ("atime", "1"),
        ("mtime", &mtime),
        ("ctime", &mtime),
        ("btime", &mtime),
        ("hard_links", "1"),
        ("symlink", "0"),
        ("type", "regular"),
        ("symlink_target_path", ""),
    ])
}

/// A `hash` row.
pub(super) fn hash(file: &File<'_>) -> Cells {
    cells([
        ("path", file.path),
        ("directory", split(file.path).0),
        ("md5", &seed::hex_of(&format!("md5:{}", file.content), 32)),
        ("sha1", &seed::hex_of(&format!("sha1:{}", file.content), 40)),
        ("sha256", &file.sha256()),
    ])
}

/// A `cron_scripts` row.
pub(super) fn cron_script(file: &File<'_>) -> Cells {
    let schedule = split(file.path).0.trim_start_matches("/etc/cron.");
    cells([
        ("path", file.path),
        ("schedule", schedule),
        ("uid", file.uid),
        ("gid", file.gid),
        ("mode", file.mode),
        ("size", &file.size()),
        ("mtime", &file.mtime()),
        ("sha256", &file.sha256()),
    ])
}

/// A systemd unit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unit<'a> {
    pub(super) id: &'a str,
    pub(super) description: &'a str,
    pub(super) active_state: &'a str,
    pub(super) sub_state: &'a str,
    pub(super) unit_file_state: &'a str,
    pub(super) fragment_path: &'a str,
    pub(super) user: &'a str,
}

/// A `systemd_units` row.
pub(super) fn unit(unit: &Unit<'_>) -> Cells {
    let object: String = unit
        .id
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ => format!("_{byte:02x}"),
        })
        .collect();
    cells([
        ("id", unit.id),
        ("description", unit.description),
        ("load_state", "loaded"),
        ("active_state", unit.active_state),
        ("sub_state", unit.sub_state),
        ("unit_file_state", unit.unit_file_state),
        ("following", ""),
        ("object_path", &format!("/org/freedesktop/systemd1/unit/{object}")),
        ("job_id", "0"),
        ("job_type", ""),
        ("job_path", "/"),
        ("fragment_path", unit.fragment_path),
        ("user", unit.user),
        ("source_path", ""),
    ])
}

/// The `startup_items` row of a systemd unit.
pub(super) fn startup(unit: &Unit<'_>) -> Cells {
    cells([
        ("name", unit.id),
        ("path", unit.fragment_path),
        ("args", ""),
        ("type", "systemd unit"),
        ("source", split(unit.fragment_path).0),
        ("status", unit.active_state),
        ("username", unit.user),
    ])
}

/// A `deb_packages` row.
pub(super) fn package(name: &str, version: &str, section: &str, arch: &str) -> Cells {
    let (_, revision) = version.rsplit_once('-').unwrap_or(("", ""));
    let size = (40 + seed::number_of(name, 9_000)).to_string();
    cells([
        ("name", name),
        ("version", version),
        ("source", ""),
        ("size", &size),
        ("arch", arch),
        ("revision", revision),
        ("status", "install ok installed"),
        ("maintainer", "Debian Maintainers <debian@example.org>"),
        ("section", section),
        ("priority", "optional"),
        ("admindir", "/var/lib/dpkg"),
    ])
}

/// A `users` row; id and group id are the same.
pub(super) fn user(uid: &str, username: &str, directory: &str, shell: &str) -> Cells {
    cells([
        ("uid", uid),
        ("gid", uid),
        ("uid_signed", uid),
        ("gid_signed", uid),
        ("username", username),
        ("description", ""),
        ("directory", directory),
        ("shell", shell),
        ("uuid", ""),
    ])
}

/// A `crontab` row; `when` is minute, hour, day of month, month and day of week.
pub(super) fn cron(when: [&str; 5], command: &str, path: &str) -> Cells {
    cells([
        ("event", ""),
        ("minute", when[0]),
        ("hour", when[1]),
        ("day_of_month", when[2]),
        ("month", when[3]),
        ("day_of_week", when[4]),
        ("command", command),
        ("path", path),
    ])
}

/// A running container, by id, image and name; `privileged` is `1` when it has all rights over the host.
pub(super) fn container(id: &str, (image, name): (&str, &str), privileged: &str) -> Cells {
    cells([
        ("id", id),
        ("name", &format!("/{name}")),
        ("image", image),
        ("image_id", &format!("sha256:{}", seed::hex_of(image, 64))),
        ("command", "/entrypoint.sh"),
        ("path", "/entrypoint.sh"),
        ("config_entrypoint", "/entrypoint.sh"),
        ("created", "{n:1740000000-1749000000}"),
        ("state", "running"),
        ("status", "Up {n:2-40} days"),
        ("pid", "{n:2000-30000}"),
        ("started_at", "2025-05-{n:10-29}T08:11:09.{n:100000-999999}Z"),
        ("finished_at", "0001-01-01T00:00:00Z"),
        ("privileged", privileged),
        ("readonly_rootfs", "0"),
        ("security_options", ""),
        ("env_variables", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ])
}

/// A `user_groups` row.
pub(super) fn member(uid: &str, username: &str, gid: &str, groupname: &str) -> Cells {
    cells([("uid", uid), ("username", username), ("gid", gid), ("groupname", groupname)])
}
