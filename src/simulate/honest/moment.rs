//! What is there for a moment: scheduled jobs, health checks, agents at work, leftovers in temporary directories.

use rand::Rng;

use super::super::plan::{Plan, Program};
use super::super::seed::{self, pick};
use super::super::shape::{self, File};

/// Processes and files of this moment.
pub(super) fn rows(plan: &mut Plan<'_>) {
    leftovers(plan);
    for _ in 0..plan.rng.random_range(0..4) {
        job(plan);
    }
    for _ in 0..plan.rng.random_range(0..3) {
        kernel_worker(plan);
    }
    if plan.rng.random_bool(0.03) {
        apt_running(plan);
    }
    if plan.rng.random_bool(0.01) {
        capture_running(plan);
    }
}

fn kernel_worker(plan: &mut Plan<'_>) {
    let what = pick(
        &mut plan.rng,
        &["events", "mm_percpu_wq", "events_unbound", "kblockd", "writeback", "cgroup_destroy", "rcu_gp"],
    );
    let name = format!("kworker/{}:{}-{what}", plan.rng.random_range(0..2), plan.rng.random_range(0..9));
    let row = plan.process(&Program { parent: "2", unit: "/", ..Program::new(&name, "", "") });
    plan.add("processes", row);
}

fn job(plan: &mut Plan<'_>) {
    let (number, hex) = (plan.rng.random_range(1_000..60_000), seed::hex(&mut plan.rng, 8));
    let agent = format!(
        "/usr/bin/ssm-document-worker {}-{}-4{}-b{}-{}{number}",
        hex,
        seed::hex(&mut plan.rng, 4),
        seed::hex(&mut plan.rng, 3),
        seed::hex(&mut plan.rng, 3),
        hex
    );
    let (name, path, cmdline, unit) = match plan.rng.random_range(0..12) {
        0 => ("sleep", "/usr/bin/sleep", format!("sleep {}", number % 300), "cron.service"),
        1 => (
            "sh",
            "/usr/bin/dash",
            "/bin/sh -c test -x /usr/sbin/anacron || run-parts /etc/cron.hourly".to_owned(),
            "cron.service",
        ),
        2 => (
            "run-parts",
            "/usr/bin/run-parts",
            "run-parts --report /etc/cron.hourly".to_owned(),
            "cron.service",
        ),
        3 => ("ssm-document-wo", "/usr/bin/ssm-document-worker", agent, "amazon-ssm-agent.service"),
        4 => (
            "logrotate",
            "/usr/sbin/logrotate",
            "/usr/sbin/logrotate /etc/logrotate.conf".to_owned(),
            "logrotate.service",
        ),
        5 => (
            "sadc",
            "/usr/lib/sysstat/sadc",
            "/usr/lib/sysstat/sadc -F -L -S DISK 1 1 /var/log/sysstat".to_owned(),
            "sysstat-collect.service",
        ),
        6 => (
            "curl",
            "/usr/bin/curl",
            format!("curl -s -m 2 http://169.254.169.254/latest/meta-data/{hex}"),
            "cron.service",
        ),
        7 => (
            "gzip",
            "/usr/bin/gzip",
            format!("/bin/gzip -c /var/log/syslog.{}", number % 9),
            "logrotate.service",
        ),
        8 => ("find", "/usr/bin/find", format!("find /tmp -mmin +{number} -delete"), "cron.service"),
        9 => (
            "python3",
            "/usr/bin/python3.11",
            format!("/usr/bin/python3 /usr/local/bin/report-inventory --run {hex}"),
            "cron.service",
        ),
        10 => (
            "dpkg-query",
            "/usr/bin/dpkg-query",
            "dpkg-query --show --showformat=${Package}".to_owned(),
            "unattended-upgrades.service",
        ),
        _ => (
            "systemd-tmpfile",
            "/usr/bin/systemd-tmpfiles",
            "systemd-tmpfiles --clean".to_owned(),
            "systemd-tmpfiles-clean.service",
        ),
    };
    let row = plan.process(&Program { unit, ..Program::new(name, path, &cmdline) });
    if name == "ssm-document-wo" || name == "curl" {
        let remote = if name == "curl" { ("169.254.169.254", "80") } else { ("{ssm}", "443") };
        let socket = shape::socket(&row["pid"], ("{ip}", "{eport}"), remote);
        plan.add("process_open_sockets", shape::with_owner_and_cmdline(socket, Some(&row)));
    }
    plan.add("processes", row);
}

fn leftovers(plan: &mut Plan<'_>) {
    for _ in 0..plan.rng.random_range(0..12) {
        let word = seed::alnum(&mut plan.rng, 8);
        let path = match plan.rng.random_range(0..5) {
            0 => format!("/tmp/tmp{}", word.to_lowercase()),
            1 => format!("/tmp/php{word}"),
            2 => format!("/tmp/OPS-{}.txt", plan.rng.random_range(1_000..99_999)),
            3 => format!("/tmp/sess_{}", seed::hex(&mut plan.rng, 26)),
            _ => format!("/tmp/pip-{word}"),
        };
        let owner = pick(&mut plan.rng, &["33", "1000", "1001"]);
        let file = File { path: &path, mode: "0600", uid: owner, gid: owner, content: &path };
        plan.add("file", shape::file(&file));
        plan.add("hash", shape::hash(&file));
    }
    // Logs of older hosts were rotated more often.
    for number in 1..=(plan.facts.days / 7).min(4) {
        for log in ["/var/log/syslog", "/var/log/auth.log"] {
            let path = if number == 1 { format!("{log}.1") } else { format!("{log}.{number}.gz") };
            let content = format!("{path}{}", plan.facts.boot);
            plan.add(
                "file",
                shape::file(&File { path: &path, mode: "0640", uid: "0", gid: "4", content: &content }),
            );
        }
    }
}

fn apt_running(plan: &mut Plan<'_>) {
    let unit = "apt-daily.service";
    let apt = Program { unit, ..Program::new("apt-get", "/usr/bin/apt-get", "apt-get -qq -y update") };
    let apt = plan.process(&apt);
    plan.add("processes", apt.clone());
    let method = Program {
        uid: "42",
        parent: &apt["pid"],
        unit,
        ..Program::new("http", "/usr/lib/apt/methods/http", "/usr/lib/apt/methods/http")
    };
    let method = plan.process(&method);
    plan.add("processes", method.clone());
    let connection = shape::socket(&method["pid"], ("{ip}", "{eport}"), ("{mirror}", "80"));
    plan.add("process_open_sockets", shape::with_owner_and_cmdline(connection, Some(&method)));
}

fn capture_running(plan: &mut Plan<'_>) {
    let file = format!("/tmp/OPS-{}.pcap", plan.rng.random_range(1_000..99_999));
    let cmdline = format!("tcpdump -i eth0 -w {file} port 5432");
    let program = Program { uid: "104", ..Program::new("tcpdump", "/usr/bin/tcpdump", &cmdline) };
    let row = plan.process(&program);
    plan.add("processes", row);
    plan.add("file", shape::file(&File::new(&file, "0644", &file)));
}
