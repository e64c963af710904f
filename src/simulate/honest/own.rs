//! What every host has one of: host keys, files with its name in them, drop-ins made when it was started.

use rand::Rng;

use super::super::plan::Plan;
use super::super::row::cells;
use super::super::shape::{self, File};

/// Files whose content differs on every host.
const FILES: [&str; 11] = [
    "/etc/ssh/ssh_host_ed25519_key.pub",
    "/etc/ssh/ssh_host_rsa_key.pub",
    "/etc/ssh/ssh_host_ecdsa_key.pub",
    "/etc/sudoers.d/90-cloud-init-users",
    "/etc/ssh/sshd_config.d/50-cloud-init.conf",
    "/etc/systemd/system/osqueryd.service.d/10-identity.conf",
    "/etc/systemd/system/fluent-bit.service.d/10-identity.conf",
    "/etc/update-motd.d/90-instance",
    "/etc/profile.d/instance.sh",
    "/etc/cron.d/stagger",
    "/etc/apt/apt.conf.d/90cloud-init-pipelining",
];

/// Rows that are this host's alone, day after day.
pub(super) fn rows(plan: &mut Plan<'_>) {
    for path in FILES {
        // The host's name stands in the content.
        let content = format!("{path} of {}", plan.facts.name);
        let file = File::new(path, "0644", &content);
        if shape::is_hashed(path) {
            plan.add("hash", shape::hash(&file));
        }
        plan.add("file", shape::file(&file));
    }
    for path in ["/etc/resolv.conf", "/etc/environment"] {
        let content = format!("{path} of {}", plan.facts.name);
        plan.content(path, &content);
    }
    let minute = plan.rng.random_range(0..60).to_string();
    let command =
        format!("root sleep {}; /usr/local/bin/report-inventory {{instance}}", plan.rng.random_range(1..300));
    plan.add("crontab", shape::cron([&minute, "*/6", "*", "*", "*"], &command, "/etc/cron.d/stagger"));
    let row = cells([("address", "{ip}"), ("hostnames", "{instance}.internal.example")]);
    plan.add("etc_hosts", row);
    if plan.rng.random_bool(0.5) {
        // Clients of the last minutes, wherever they sit.
        outbound(plan);
    }
}

/// Connections of services to partners on the internet, honestly.
fn outbound(plan: &mut Plan<'_>) {
    let services = plan.services();
    for _ in 0..plan.rng.random_range(1..4) {
        let place = plan.rng.random_range(0..services.len().max(1));
        let Some(owner) = services.get(place) else { return };
        let port = ["443", "443", "443", "80", "8443"][plan.rng.random_range(0..5)];
        let socket = shape::socket(&owner["pid"], ("{ip}", "{eport}"), ("{client}", port));
        plan.add("process_open_sockets", shape::with_owner_and_cmdline(socket, Some(owner)));
    }
}
