//! The report for a browser, in a browser: Chromium, driven by `tests/report/drive.py`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::LazyLock;

use diffy::model::{Analysis, Coverage, Finding, FindingKind, HostResult, Status, Verdict};
use diffy::report::html::{Help, Supplement, render};
use serde_json::{Map, Value, json};

use crate::env::{TestEnv, finish, python, root};

/// Chromium is a program of Debian.
#[expect(clippy::disallowed_methods, reason = "tests start programs")]
fn chromium() {
    static THERE: LazyLock<()> = LazyLock::new(|| {
        let setup = std::process::Command::new(root().join("tests/setup-debian"))
            .arg("chromium")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(setup.status.success(), "{}", String::from_utf8_lossy(&setup.stderr));
    });
    *THERE
}

/// Runs the driver, which must find nothing wrong, and returns what it says.
#[track_caller]
fn drive(env: &TestEnv, what: &str, file: &Path) -> Value {
    chromium();
    let mut command = env.program(python());
    command.arg(root().join("tests/report/drive.py")).args([what, file.to_str().unwrap()]);
    let output = finish(command);
    assert_eq!(output.status, 0, "{what}:\n{}\n{}", output.stdout, output.stderr);
    serde_json::from_str(&output.stdout).unwrap()
}

/// What tries to become more than text; `owned` is what would be set.
const BREAKOUTS: [&str; 12] = [
    "</script><img src=x onerror=window.owned=1>",
    "\"><svg onload=window.owned=1>",
    "'><iframe srcdoc='<script>parent.owned=1</script>'>",
    "javascript:window.owned=1",
    "{{ 7*7 }}{% include 'x' %}${owned=1}#{owned}",
    "--><script>window.owned=1</script><!--",
    "]]><script>window.owned=1</script>",
    "</style></title></textarea><script src=//192.0.2.1/x.js></script>",
    "<base href=//192.0.2.1/><link rel=stylesheet href=//192.0.2.1/x.css>",
    "exe\u{202e}gpj.sh\u{200b}\u{2066}\u{feff}",
    "a\0b\u{1b}[2J\u{7}\r\n\tc\u{9b}31m",
    "&lt;img src=x&gt;&#x3c;script&#x3e;window.owned=1",
];

fn breakout(at: usize) -> &'static str {
    BREAKOUTS[at % BREAKOUTS.len()]
}

/// An analysis in which every text is hostile, those too that no host can choose.
fn hostile_analysis() -> Analysis {
    let long = format!("{}{}", "A".repeat(3_000), BREAKOUTS.concat());
    let row = |at: usize| -> Map<String, Value> {
        let odd = BREAKOUTS
            .iter()
            .enumerate()
            .map(|(number, text)| (format!("{text} {number}"), json!(breakout(at + number))));
        odd.chain([("long".to_owned(), json!(long)), ("number".to_owned(), json!(at))]).collect()
    };
    let finding = |at: usize| {
        let text = breakout(at);
        json!({"id": text, "table": text, "kind": (FindingKind::ALL[at % 5]),
            "score": 10.0 * (at % 11) as f64, "row": row(at), "hosts_with_row": 1, "hosts_answered": 12,
            "first_seen": null, "nearest": {"row": row(at + 1), "differs": [format!("{} 0", BREAKOUTS[0])], "hosts_with_row": 9},
            "given": {"column": text, "value": text, "context": {text: text}}, "attack": [text, "T1053.003", "T1/../../x"],
            "reason": format!("`{text}` {long}"), "method": text, "priors": [text], "strict_id": text})
    };
    let host = |at: usize| {
        json!({"host": format!("{} {at}", breakout(at)), "rank": at + 1, "score": 99.0 - at as f64,
            "verdict": (Verdict::ALL[at % 4]), "peer_group": at % 3,
            "coverage": {"ok": 3, "failed": 1}, "findings": (0..12).map(|number| finding(at + number)).collect::<Vec<_>>()})
    };
    let hosts: Vec<Value> = (0..12).map(host).collect();
    let names: Vec<&Value> = hosts.iter().map(|host| &host["host"]).collect();
    let campaign = |cause: Value| {
        json!({"hosts": names, "findings": [], "reason": BREAKOUTS.concat(), "score": 50.0, "tables": BREAKOUTS,
            "rows": [{"table": breakout(0), "kind": "new", "row": row(0), "hosts_with_row": 2, "explained_by": null}],
            "explained_by": cause})
    };
    let analysis = json!({"schema_version": 1, "diffy_version": breakout(0), "fleet": "</title><img src=x onerror=window.owned=1>",
        "snapshot": "01KBRZ8T600000000000000000", "collected_at": "2025-12-06T08:00:00Z", "methods": BREAKOUTS,
        "baseline": {"name": breakout(1), "created_at": "2025-11-01T00:00:00Z", "snapshots": []}, "history": null,
        "hosts_total": 12, "hosts_answered": 11, "warnings": BREAKOUTS, "hosts": hosts,
        "peer_groups": (0..3).map(|id| json!({"id": id, "hosts": 4, "described_by": breakout(id)})).collect::<Vec<_>>(),
        "campaigns": [campaign(Value::Null), campaign(json!(breakout(2)))],
        "suppressed": {"findings": 1, "hosts": 1, "by": [{"reason": breakout(0), "who": breakout(1), "until": null, "count": 1}]}});
    serde_json::from_value(analysis).unwrap()
}

#[test]
fn nothing_that_a_text_says_is_run() {
    let env = TestEnv::new();
    let analysis = hostile_analysis();
    let help = |_: &_, _: &_| Help {
        queries: vec![(
            "a query",
            "diffy query \"SELECT '<img src=x onerror=window.owned=1>' AND 1\"".to_owned(),
        )],
        suppression: "</script><script>window.owned=1</script>\n\"x\" = 1\n".to_owned(),
    };
    let failures = analysis.hosts.iter().zip(BREAKOUTS).map(|(host, text)| Coverage {
        host: host.host.clone(),
        table: text.to_owned(),
        status: Status::Error,
        rows: 0,
        bytes: 0,
        error: format!("{text}{}", "B".repeat(600)),
        columns_missing: Vec::new(),
        started: None,
        ended: None,
        osquery_version: None,
        uid: None,
    });
    let supplement = Supplement {
        notes: BREAKOUTS.map(str::to_owned).into(),
        tables: BREAKOUTS.map(str::to_owned).into(),
        answers: vec![(Status::Error, 12)],
        failures: failures.collect(),
        help: &help,
    };
    let mut bytes = Vec::new();
    render(&analysis, &supplement, &mut bytes).unwrap();
    let file = env.write("hostile.html", &bytes);
    let seen = drive(&env, "hostile", &file);
    let texts = seen["texts"].as_str().unwrap();
    for text in [
        "</script><img src=x onerror=window.owned=1>",
        "exe\\u{202e}gpj.sh",
        "a\\u{0}b",
        "{{ 7*7 }}",
        "]]><script>",
    ] {
        assert!(texts.contains(text), "{text} is not shown");
    }
}

/// Hosts that are alike but for what they were told to say; with their names.
fn hostile_fleet(env: &TestEnv) {
    let dir = env.path("fleet");
    for at in 0..24 {
        let name = match at {
            3 => "\"><svg onload=window.owned=1>".to_owned(),
            4 => "o'host $(touch owned) `touch owned`".to_owned(),
            5 => "host\u{202e}gpj".to_owned(),
            at => format!("host-{at}"),
        };
        let mut rows =
            vec![json!({"name": "sshd", "path": "/usr/sbin/sshd", "cmdline": "sshd", "pid": 100 + at})];
        if (3..6).contains(&at) {
            // Not the same on two hosts: what many have is no finding.
            rows.extend(BREAKOUTS.iter().map(|text| {
                json!({"name": text, "path": format!("/tmp/{at}/{text}"), "cmdline": text.repeat(40), "pid": 4_000 + at, (*text): text})
            }));
        }
        let line = json!([{"command": "run-parts /etc/cron.hourly", "path": "/etc/crontab", "minute": "17", "hour": "*"}]);
        fs::create_dir_all(dir.join(&name)).unwrap();
        fs::write(dir.join(&name).join("processes.json"), Value::from(rows).to_string()).unwrap();
        let cron =
            if at == 9 { "[{\"<img src=x onerror=window.owned=1>".to_owned() } else { line.to_string() };
        fs::write(dir.join(&name).join("crontab.json"), cron).unwrap();
    }
    env.import(&dir, &["--fleet", "web"]);
}

#[test]
fn a_hostile_fleet_is_shown_as_text_and_its_rows_can_be_asked_for() {
    let env = TestEnv::new();
    hostile_fleet(&env);
    env.ok(&["analyze", "--format", "html", "-o", "hostile.html"]);
    let seen = drive(&env, "hostile", &env.path("hostile.html"));
    let texts = seen["texts"].as_str().unwrap();
    for text in
        ["\"><svg onload=window.owned=1>", "</script><img src=x onerror=window.owned=1>", "host\\u{202e}gpj"]
    {
        assert!(texts.contains(text), "{text} is not shown");
    }
    let found = drive(&env, "findings", &env.path("hostile.html"));
    let findings = found["findings"].as_array().unwrap();
    let odd = |finding: &&&Value| {
        ["\"><svg", "o'host", "host\\u"]
            .iter()
            .any(|start| finding["host"].as_str().unwrap().starts_with(start))
    };
    let odd: Vec<&Value> = findings.iter().filter(|finding| odd(&finding)).collect();
    assert!(odd.len() >= 6, "{} findings on odd hosts", odd.len());
    for finding in odd.iter().step_by(odd.len() / 6) {
        shows_its_row(&env, finding);
    }
    assert!(!env.path("owned").exists());
}

/// The rows that a line of the report answers with.
#[track_caller]
fn asked(env: &TestEnv, line: &str) -> Vec<Map<String, Value>> {
    let line = line.strip_prefix("diffy ").unwrap_or_else(|| panic!("no line of diffy: {line}"));
    let output = env.sh(&format!("\"$DIFFY\" {line} --format json"));
    assert_eq!(output.status, 0, "{line}\n{}", output.stderr);
    serde_json::from_str(&output.stdout).unwrap()
}

/// Runs the lines of a finding as they stand in the report: they must show the row that it shows, or its absence.
#[track_caller]
fn shows_its_row(env: &TestEnv, finding: &Value) {
    let lines: Vec<&str> =
        finding["queries"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    assert!(!lines.is_empty(), "{finding}");
    let rows = asked(env, lines[0]);
    let host = finding["host"].as_str().unwrap();
    match finding["kind"].as_str().unwrap() {
        "missing" => {
            assert!(
                rows.iter().any(|row| row["host"] == host),
                "{host} is not among those without it: {rows:?}"
            );
            let others = asked(env, lines[1]);
            assert!(!others.is_empty() && others.iter().all(|row| row["host"] != host), "{finding}");
        }
        "coverage" => assert!(
            rows.iter().all(|row| !["ok", "empty"].contains(&row["status"].as_str().unwrap()))
                && !rows.is_empty()
        ),
        _ => {
            let row = rows.first().unwrap_or_else(|| panic!("no row: {finding}"));
            let cells = finding["cells"]
                .as_object()
                .unwrap()
                .iter()
                .filter(|(name, value)| *name != "extra" && !value.is_null());
            let mut compared = 0;
            for (name, shown) in cells.filter(|(name, _)| row.contains_key(*name)) {
                let stored = row[name].as_str().map_or_else(|| row[name].to_string(), ToOwned::to_owned);
                // What is escaped on the page is not in the store.
                if stored.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'\\') {
                    assert_eq!(shown.as_str().unwrap(), stored, "{name}: {finding}");
                    compared += 1;
                }
            }
            assert!(compared > 0 || rows.len() == 1, "{finding}");
            if let Some(line) = lines.get(1) {
                assert!(!asked(env, line).is_empty(), "{line}");
            }
        }
    }
}

#[test]
fn a_responder_finds_their_way() {
    let env = TestEnv::new();
    env.import_fleet(40, 3, 1);
    let stderr = env.run(&["analyze", "--format", "html", "-o", "report.html"]).stderr;
    assert!(stderr.contains("wrote report.html"), "{stderr}");
    let found = drive(&env, "use", &env.path("report.html"));
    let findings = found["findings"].as_array().unwrap();
    let analysis = env.json(&["analyze", "--format", "json"]);
    let all =
        analysis["hosts"].as_array().unwrap().iter().map(|host| host["findings"].as_array().unwrap().len());
    assert_eq!(findings.len(), all.sum::<usize>(), "every finding is in the report");

    // Two of each kind and table: their SQL runs, and what is to be pasted takes the finding away.
    let mut chosen: BTreeMap<(&str, &str), &Value> = BTreeMap::new();
    for finding in findings {
        let text = |name: &str| finding[name].as_str().unwrap();
        chosen.entry((text("kind"), text("table"))).or_insert(finding);
    }
    assert!(chosen.len() >= 6, "{chosen:?}");
    let mut suppressions = String::new();
    for finding in chosen.values() {
        shows_its_row(&env, finding);
        suppressions += finding["suppression"].as_str().unwrap();
        suppressions += "\n\n";
    }
    env.write("known.toml", suppressions);
    let left = env.json(&["analyze", "--suppress", "known.toml", "--show-suppressed", "--format", "json"]);
    let gone: Vec<&str> = left["suppressed"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["finding"]["id"].as_str().unwrap())
        .collect();
    for finding in chosen.values() {
        assert!(gone.contains(&finding["id"].as_str().unwrap()), "not suppressed: {finding}");
    }
}

/// So many hosts, each with two findings, one of them with a word of its own.
fn large_analysis(hosts: usize) -> Analysis {
    let finding = |host: usize, number: usize| {
        let command = if host == hosts - 7 {
            "needle".to_owned()
        } else {
            format!("/usr/bin/job --host {host} {number}")
        };
        let common = json!({"command": "run-parts", "path": "/etc/crontab", "minute": "17"});
        json!({"id": format!("{host:012x}{number:04x}"), "table": (if number == 0 { "crontab" } else { "processes" }), "kind": "new",
            "score": 20.0 + (host % 60) as f64, "row": {"command": command, "path": "/etc/cron.d/job", "minute": "5"},
            "hosts_with_row": 1, "hosts_answered": hosts, "first_seen": null,
            "nearest": {"row": common, "differs": ["command", "path"], "hosts_with_row": hosts - 1}, "given": null,
            "attack": ["T1053.003"], "reason": format!("command `/usr/bin/job --host {host}` is only on 1 of {hosts} hosts"),
            "method": "frequency"})
    };
    let host = |at: usize| {
        let verdict = if at < 40 {
            "outlier"
        } else if at < 300 {
            "review"
        } else {
            "normal"
        };
        json!({"host": format!("i-{at:017x}"), "rank": at + 1, "score": 99.0 * (1.0 - at as f64 / hosts as f64), "verdict": verdict,
            "peer_group": at % 4, "coverage": {"ok": 30, "failed": 0}, "findings": [finding(at, 0), finding(at, 1)]})
    };
    let analysis = json!({"schema_version": 1, "diffy_version": "0", "fleet": "large", "snapshot": "01KBRZ8T600000000000000000",
        "collected_at": "2025-12-06T08:00:00Z", "methods": ["frequency"], "baseline": null, "history": null,
        "hosts_total": hosts, "hosts_answered": hosts, "warnings": [], "hosts": (0..hosts).map(host).collect::<Vec<_>>(),
        "peer_groups": (0..4).map(|id| json!({"id": id, "hosts": hosts / 4, "described_by": format!("image {id}")})).collect::<Vec<_>>(),
        "campaigns": []});
    serde_json::from_value(analysis).unwrap()
}

#[test]
#[expect(clippy::print_stdout, reason = "times depend on the machine: they are told, not judged")]
fn ten_thousand_hosts_do_not_freeze_a_browser() {
    let env = TestEnv::new();
    let help = |host: &HostResult, finding: &Finding| Help {
        queries: vec![(
            "The row",
            format!(
                "diffy query \"SELECT * FROM t WHERE host = '{}' AND strict_id = id('{}')\"",
                host.host, finding.id
            ),
        )],
        suppression: format!("[[suppress]]\ntable = \"{}\"\nid = \"{}\"\n", finding.table, finding.id),
    };
    let supplement = Supplement { help: &help, ..Supplement::default() };
    let mut bytes = Vec::new();
    render(&large_analysis(10_000), &supplement, &mut bytes).unwrap();
    let file = env.write("large.html", &bytes);
    println!("10,000 hosts, {} bytes: {}", bytes.len(), drive(&env, "large", &file));
}

#[test]
fn the_demo_writes_a_report_and_says_where() {
    let env = TestEnv::new();
    let demo = ["demo", "--bundled", "--hosts", "12", "--compromised", "1"];
    let said = env.run(&demo);
    assert_eq!(said.status, 0, "{}", said.stderr);
    assert!(said.stderr.contains("the report is in diffy-demo.html"), "{}", said.stderr);
    assert!(fs::read_to_string(env.path("diffy-demo.html")).unwrap().contains("this fleet is simulated"));
    env.ok(&[&demo[..], &["--report", "other.html"]].concat());
    assert!(env.path("other.html").exists());
    fs::remove_file(env.path("diffy-demo.html")).unwrap();
    env.ok(&[&demo[..], &["--report", "none"]].concat());
    assert!(!env.path("diffy-demo.html").exists());
    let nowhere = [&demo[..], &["--report", "no/such/folder.html"]].concat();
    assert!(env.fails(&nowhere, 1).contains("no/such/folder.html"));
}

#[test]
fn rows_are_no_report() {
    let env = TestEnv::new();
    assert!(env.fails(&["query", "--format", "html", "SELECT 1"], 2).contains("a format of analyses"));
}
