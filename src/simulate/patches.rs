//! Packages that only some hosts have in their newest version: canaries, waves of updates, deploys between days.

use rand::Rng;
use rand::seq::SliceRandom;

use super::base::{self, Base};
use super::config::Noise;
use super::facts::Facts;
use super::plan::Edit;
use super::row::cells;
use super::seed;
use super::shape::{self, File};

/// Files that come with packages.
const FILES: &[(&str, &[&str])] = &[
    ("bash", &["/usr/bin/bash"]),
    ("chrony", &["/usr/sbin/chronyd"]),
    (
        "coreutils",
        &["/usr/bin/ls", "/usr/bin/cat", "/usr/bin/cp", "/usr/bin/mv", "/usr/bin/rm", "/usr/bin/du"],
    ),
    ("cron", &["/usr/sbin/cron", "/usr/bin/crontab"]),
    ("curl", &["/usr/bin/curl"]),
    ("findutils", &["/usr/bin/find", "/usr/bin/xargs"]),
    ("git", &["/usr/bin/git"]),
    ("gnupg", &["/usr/bin/gpg"]),
    ("iproute2", &["/usr/bin/ip", "/usr/bin/ss"]),
    ("less", &["/usr/bin/less"]),
    ("libcurl4", &["/usr/lib/x86_64-linux-gnu/libcurl.so.4.8.0"]),
    ("libpam-modules", &["/usr/lib/x86_64-linux-gnu/security/pam_unix.so", "/usr/sbin/unix_chkpwd"]),
    ("libssl3", &["/usr/lib/x86_64-linux-gnu/libssl.so.3", "/usr/lib/x86_64-linux-gnu/libcrypto.so.3"]),
    ("logrotate", &["/usr/sbin/logrotate"]),
    ("openssh-client", &["/usr/bin/ssh", "/usr/bin/scp", "/usr/bin/ssh-keygen"]),
    ("openssh-server", &["/usr/sbin/sshd"]),
    ("openssl", &["/usr/bin/openssl"]),
    ("passwd", &["/usr/bin/passwd", "/usr/sbin/useradd", "/usr/sbin/usermod"]),
    ("procps", &["/usr/bin/ps", "/usr/bin/top", "/usr/bin/w"]),
    ("python3.11-minimal", &["/usr/bin/python3.11"]),
    ("rsync", &["/usr/bin/rsync"]),
    ("rsyslog", &["/usr/sbin/rsyslogd"]),
    ("sudo", &["/usr/bin/sudo", "/usr/sbin/visudo"]),
    ("tar", &["/usr/bin/tar"]),
    ("wget", &["/usr/bin/wget"]),
];

/// Newer packages, as edits of a base state.
#[derive(Debug, Default)]
pub(super) struct Patches {
    canary: Vec<Edit>,
    waves: [Vec<Edit>; 2],
    deployed: Vec<Edit>,
}

/// Deploys so far back are told apart; before that, nothing changed.
const MOST_DEPLOYS: u32 = 40;

/// Whether something was deployed between that many days ago and the day after.
fn is_deployed(seed: u64, day: u32) -> bool {
    day == 0 || seed::stream(seed, &["deploy", &day.to_string()]).random_bool(0.3)
}

/// How many releases have been deployed until so many days ago.
pub(super) fn releases(seed: u64, day: u32, noise: Noise) -> u64 {
    if !noise.deploy {
        return 0;
    }
    (day..MOST_DEPLOYS).filter(|before| is_deployed(seed, *before)).map(|_| 1).sum()
}

impl Patches {
    /// What a fleet of that seed has newer than a base state, so many days ago.
    pub(super) fn new(base: &Base, seed: u64, day: u32) -> Self {
        let mut packages = packages(base, seed).into_iter();
        let mut take = |count: usize| -> Vec<Edit> {
            packages.by_ref().take(count).flat_map(|name| newer(base, &name)).collect()
        };
        let (canary, waves) = (take(4), [take(5), take(4)]);
        let sets: Vec<(u32, Vec<Edit>)> = (0..MOST_DEPLOYS)
            .filter(|before| is_deployed(seed, *before))
            .map(|before| (before, take(if before == 0 { 3 } else { 1 })))
            .collect();
        let deployed =
            sets.into_iter().filter(|(before, _)| *before >= day).flat_map(|(_, set)| set).collect();
        Self { canary, waves, deployed }
    }

    /// The edits that concern a host.
    pub(super) fn of<'a>(&'a self, facts: &Facts) -> impl Iterator<Item = &'a Edit> {
        let canary = if facts.canary { self.canary.as_slice() } else { &[] };
        let deployed = if facts.noise.deploy { self.deployed.as_slice() } else { &[] };
        self.waves.iter().take(facts.wave).flatten().chain(canary).chain(deployed)
    }
}

/// The packages of a base state in the order in which this fleet updates them; those with files we know come early.
fn packages(base: &Base, seed: u64) -> Vec<String> {
    let mut rng = seed::stream(seed, &["patches"]);
    let rows = base.rows("deb_packages").unwrap_or_default();
    let names = rows.iter().filter_map(|row| row.cells.get("name").cloned());
    let (mut known, mut other): (Vec<String>, Vec<String>) =
        names.partition(|name| FILES.iter().any(|(known, _)| known == name));
    known.shuffle(&mut rng);
    other.shuffle(&mut rng);
    let mut mixed = Vec::new();
    let mut other = other.into_iter();
    for name in known {
        mixed.push(name);
        mixed.extend(other.by_ref().take(rng.random_range(0..3)));
    }
    mixed.extend(other);
    mixed
}

fn newer(base: &Base, name: &str) -> Vec<Edit> {
    let version = base.find("deb_packages", "name", name).and_then(|row| row.get("version"));
    let version = base::newer(version.map_or("", String::as_str));
    let paths = FILES.iter().find(|(known, _)| *known == name).map_or(&[] as &[&str], |(_, paths)| paths);
    let package = Edit::Change {
        table: "deb_packages",
        matching: cells([("name", name)]),
        set: cells([("version", &version)]),
    };
    let files = paths.iter().flat_map(|path| content(path, &format!("{path} {version}")));
    std::iter::once(package).chain(files).collect()
}

/// Other content in a file of the base state, honestly.
pub(super) fn content(path: &str, content: &str) -> [Edit; 2] {
    let newer = File::new(path, "", content);
    let (mut file, mut hash) = (shape::file(&newer), shape::hash(&newer));
    file.retain(|column, _| ["size", "mtime", "ctime"].contains(&column.as_str()));
    hash.retain(|column, _| ["md5", "sha1", "sha256"].contains(&column.as_str()));
    let matching = cells([("path", path)]);
    [
        Edit::Change { table: "file", matching: matching.clone(), set: file },
        Edit::Change { table: "hash", matching, set: hash },
    ]
}
