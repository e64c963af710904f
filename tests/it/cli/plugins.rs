//! Plugins from outside: who is asked, how they are asked, and what those get that misbehave.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::env::{Output, TestEnv, finish, root, set_up_debian};

/// Says `{"host":…}` for each word.
pub(super) const LIST: &str =
    r#"for host; do echo "{\"host\":\"$host\",\"labels\":{\"zone\":\"z-$host\"}}"; done"#;

/// Answers for each table that is asked for, with the host in its row.
const ANSWER: &str = r#"
import json, sys
request = json.load(sys.stdin)
for table in request["tables"]:
    rows = [{"username": "u", "uid": "1", "description": request["host"], "shell": json.dumps(request["labels"])}]
    print(json.dumps({"table": table["name"], "rows": rows, "uid": 7}))
"#;

/// Does to each host what its name says.
const MISBEHAVE: &str = r#"
import json, os, sys, time, subprocess
request = json.load(sys.stdin)
host = request["host"]
def say(**line):
    print(json.dumps(line), flush=True)
def raw(line):
    sys.stdout.buffer.write(line)
    sys.stdout.flush()
rows = [{"username": host}]
if host == "good":
    say(table="users", rows=rows)
    say(table="mounts", rows=[])
elif host == "crash":
    say(table="users", rows=rows)
    sys.stderr.write("first\n\x1b[31mgave up\n")
    sys.exit(3)
elif host == "killed":
    os.kill(os.getpid(), 9)
elif host == "hang":
    say(table="users", rows=rows)
    child = subprocess.Popen(["sleep", "600"])
    open("child", "w").write(str(child.pid))
    time.sleep(600)
elif host == "long":
    say(table="users", rows=rows)
    while True:
        raw(b" " * 1048576)
elif host == "many":
    say(table="users", rows=rows)
    raw(b"{}\n" * 100000)
elif host == "loud":
    sys.stderr.write("x" * 5000000 + "\nnoise\n")
    say(table="users", rows=rows)
    say(status="denied", error="no rights")
elif host == "silent":
    pass
elif host == "deaf":
    sys.stdin.close()
    say(table="users", rows=rows)
    say(table="mounts", status="not_supported", error="no mounts here")
elif host == "liar":
    say(table="users", rows=rows, host="good")
    say(table="shadow", rows=[{"x": "1"}])
    say(table="users", rows=[{"username": "first"}])
    say(table="users", rows=[{"username": "second"}])
    say(table="mounts", rows={"a": 1})
    raw(b'{"table":"mounts","rows":[{"path":"\xff"}]}\n')
    raw(b"hello\n")
elif host == "types":
    say(table="users", rows=[1, "x", {"username": "u", "nested": {"a": [1]}}])
    say(table="mounts", rows=[[{"path": "/"}]])
"#;

pub(super) fn sh(env: &TestEnv, name: &str, text: &str) -> String {
    env.write(name, text);
    format!("exec:sh {name}")
}

fn python(env: &TestEnv, name: &str, text: &str) -> String {
    env.write(name, text);
    format!("exec:python3 {name}")
}

/// A program on a `PATH` of its own. Written by another process: one of ours could be forked meanwhile, and a file that
/// somebody has open for writing cannot be run.
pub(super) fn plugin(env: &TestEnv, dir: &str, name: &str, text: &str) -> PathBuf {
    let draft = env.write("draft", text);
    fs::create_dir_all(env.path(dir)).unwrap();
    let path = env.path(dir).join(name);
    let done = env.program("install").args(["-m", "755"]).args([&draft, &path]).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    path
}

pub(super) fn run_on_path(env: &TestEnv, path: &str, args: &[&str]) -> Output {
    let mut command = env.diffy(args);
    command.env("PATH", format!("{path}:/usr/local/bin:/usr/bin:/bin"));
    finish(command)
}

/// Collects `users` and `mounts` of these hosts.
fn collect(env: &TestEnv, hosts: &str, collector: &str, more: &[&str]) -> Output {
    let list = format!("{} {hosts}", sh(env, "list.sh", LIST));
    let args = [
        "collect",
        "--fleet",
        "web",
        "--tables",
        "users,mounts",
        "--targets",
        &list,
        "--collector",
        collector,
    ];
    env.run(&[&args, more].concat())
}

fn coverage(env: &TestEnv, host: &str, table: &str) -> (String, String) {
    let rows = env.query(&format!(
        "SELECT status, error FROM coverage WHERE host = '{host}' AND table_name = '{table}'"
    ));
    let [row] = rows.as_slice() else { panic!("{host} {table}: {rows:?}") };
    (row["status"].as_str().unwrap().to_owned(), row["error"].as_str().unwrap().to_owned())
}

#[test]
fn hosts_that_a_command_lists_are_asked_by_a_command() {
    let env = TestEnv::new();
    let answer = python(&env, "answer.py", ANSWER);
    let done = collect(&env, "a b c", &answer, &[]);
    assert_eq!(done.status, 0, "{}", done.stderr);
    assert!(done.stdout.contains("hosts     3 asked, 3 answered, 0 failed"), "{}", done.stdout);
    assert!(done.stderr.contains("fleet web: 3 hosts, 0 of them cannot be asked"), "{}", done.stderr);
    let rows = env.query("SELECT host, description, shell FROM current.users ORDER BY host");
    let expected = |host: &str| json!({"host": host, "description": host, "shell": format!("{{\"zone\": \"z-{host}\"}}")});
    assert_eq!(rows, ["a", "b", "c"].map(expected));
    // What the inventory knows is in the table of hosts.
    let hosts = env.query("SELECT host, zone FROM current.hosts ORDER BY host");
    assert_eq!(hosts[1], json!({"host": "b", "zone": "z-b"}));
    let manifest = env.json(&["snapshot", "show", "--json"]);
    assert_eq!(manifest["collector"], answer.as_str());
    assert_eq!(manifest["targets"], json!(["exec:sh list.sh a b c"]));
}

#[test]
fn a_command_is_run_without_a_shell_and_with_the_users_environment() {
    let env = TestEnv::new();
    let list = sh(
        &env,
        "list.sh",
        r#"cat > request; printf '%s\n' "$@" > arguments; echo "$CLOUD $DIFFY_PLUGIN" > environment
           echo '{"host":"a","address":"10.0.0.9","unreachable":"powered off"}'"#,
    );
    let list = format!("{list} 'a  b' '$HOME;`id`'");
    let ask = python(&env, "ask.py", "import sys; open('asked', 'w').write(sys.stdin.read())");
    let args = ["collect", "--fleet", "web", "--tables", "users", "--targets", &list, "--collector", &ask];
    let done = env.run_with(&args, &[("CLOUD", "key")]);
    // Nobody answered: that is said.
    assert_eq!(done.status, 1, "{}", done.stderr);
    assert_eq!(fs::read_to_string(env.path("arguments")).unwrap(), "a  b\n$HOME;`id`\n");
    assert_eq!(fs::read_to_string(env.path("environment")).unwrap(), "key 1\n");
    let request: Value = serde_json::from_str(&fs::read_to_string(env.path("request")).unwrap()).unwrap();
    let expected = json!({"diffy_plugin": 1, "kind": "targets", "argument": null, "timeout_seconds": 120.0});
    assert_eq!(request, expected);
    // Who cannot be asked is in the snapshot with the reason, and is not asked.
    assert_eq!(coverage(&env, "a", "users"), ("undeliverable".to_owned(), "powered off".to_owned()));
    assert!(!env.path("asked").exists());
}

#[test]
fn a_collector_is_told_what_to_ask() {
    let env = TestEnv::new();
    let list = sh(&env, "list.sh", r#"echo '{"host":"a","address":"10.0.0.9","labels":{"team":"x"}}'"#);
    let ask = sh(&env, "ask.sh", "cat > asked; echo '{\"table\":\"users\",\"rows\":[]}'");
    let args = ["--targets", &list, "--collector", &ask, "--host-timeout", "60"];
    env.ok(&[&["collect", "--fleet", "web", "--tables", "users"][..], &args].concat());
    let asked: Value = serde_json::from_str(&fs::read_to_string(env.path("asked")).unwrap()).unwrap();
    let query = asked["tables"][0]["query"].as_str().unwrap();
    assert!(query.contains("FROM users"), "{query}");
    let expected = json!({
        "diffy_plugin": 1, "kind": "collect", "host": "a", "address": "10.0.0.9", "labels": {"team": "x"},
        "timeout_seconds": 60.0, "tables": [{"name": "users", "query": query}],
    });
    assert_eq!(asked, expected);
    // This machine may be asked so, too.
    env.ok(&["collect", "--fleet", "me", "--host", "here", "--tables", "users", "--collector", &ask]);
    assert_eq!(coverage(&env, "here", "users").0, "empty");
    // And so may the hosts of a file.
    env.write("hosts.txt", "db=root@10.0.0.2:2222\n");
    let args = ["--tables", "users", "--targets", "hosts:hosts.txt", "--collector", &ask];
    env.ok(&[&["collect", "--fleet", "db"][..], &args].concat());
    let asked: Value = serde_json::from_str(&fs::read_to_string(env.path("asked")).unwrap()).unwrap();
    assert_eq!((&asked["host"], &asked["address"]), (&json!("db"), &json!("root@10.0.0.2:2222")));
}

#[test]
fn what_misbehaves_on_one_host_is_contained_and_named() {
    let env = TestEnv::new();
    let collector = python(&env, "ask.py", MISBEHAVE);
    let hosts = "good crash killed hang long many loud silent deaf liar types";
    let done = collect(&env, hosts, &collector, &["--host-timeout", "20", "--concurrency", "11"]);
    assert_eq!(done.status, 0, "{}", done.stderr);
    assert!(done.stdout.contains("hosts     11 asked, 9 answered, 2 failed"), "{}", done.stdout);
    // What came before the trouble is kept.
    for host in ["good", "crash", "hang", "long", "many", "loud", "deaf", "liar"] {
        assert_eq!(coverage(&env, host, "users").0, "ok", "{host}");
    }
    assert_eq!(coverage(&env, "good", "mounts").0, "empty");
    for (host, status, why) in [
        ("crash", "error", "ended with exit status: 3: \u{1b}[31mgave up"),
        ("killed", "error", "ended with signal: 9"),
        ("hang", "timeout", "did not end in time and was killed"),
        ("long", "error", "printed more than 67108864 bytes and was killed"),
        ("many", "error", "it printed more than 1002 lines"),
        ("loud", "denied", "no rights"),
        ("silent", "error", "ask.py did not answer for it"),
        ("deaf", "not_supported", "no mounts here"),
        ("liar", "error", "did not answer for it; line 1: it speaks of host `good`, which was not asked for"),
        ("types", "error", ""),
    ] {
        let (found, error) = coverage(&env, host, "mounts");
        assert!(found == status && error.contains(why), "{host}: {found} {error}");
    }
    assert_eq!(coverage(&env, "types", "users").0, "truncated");
    let rows =
        env.query("SELECT host, username FROM current.users WHERE host IN ('good', 'liar') ORDER BY host");
    assert_eq!(
        rows,
        [json!({"host": "good", "username": "good"}), json!({"host": "liar", "username": "first"})]
    );
    let warnings = env.json(&["snapshot", "show", "--json"])["warnings"].to_string();
    assert_eq!(warnings.matches("on host many").count(), 1, "{warnings}");
    for warning in [
        "on host liar: line 1: it speaks of host `good`, which was not asked for; line 2: table `shadow` was not asked",
        "line 4: table `users` was not asked for",
        "line 5: `rows` is no array",
        "line 6: no UTF-8 after byte 35",
        "and 1 more",
        "on host many: line 2: there are neither rows nor a status nor an error; line 3: ",
    ] {
        assert!(warnings.contains(warning), "{warning}: {warnings}");
    }
    assert!(!done.stderr.contains('\u{1b}') && done.stderr.contains(r"\u{1b}[31mgave up"), "{}", done.stderr);
    assert!(is_gone(&fs::read_to_string(env.path("child")).unwrap()));
}

/// Whether a process ends soon: it was killed, but the kernel may take a moment.
pub(super) fn is_gone(pid: &str) -> bool {
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while std::time::Instant::now() < patience {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        if stat.is_empty() || stat.contains(") Z") || stat.contains(") X") {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

#[test]
fn an_inventory_that_is_not_whole_is_none() {
    let env = TestEnv::new();
    for (text, status, why) in [
        (
            "echo '{\"host\":\"a\"}'; echo one >&2; printf '\\033[2Jtwo\\n' >&2; exit 7",
            1,
            "ended with exit status: 7: \\u{1b}[2Jtwo",
        ),
        ("echo '{\"host\":\"a\"}'; kill -9 $$", 1, "ended with signal: 9"),
        ("echo '{\"host\":\"a\"}'; sleep 600", 1, "did not end in time and was killed"),
        ("echo '{\"host\":\"a\"}'; yes | tr -d '\\n'", 1, "printed more than 65536 bytes and was killed"),
        ("exit 0", 2, "has no host to ask"),
        ("echo hello", 2, "line 1: it is no JSON object"),
    ] {
        let list = sh(&env, "list.sh", text);
        let args = ["collect", "--fleet", "web", "--targets", &list, "--collector", "exec:true"];
        let stderr = env.fails(&[&args[..], &["--target-timeout", "3"]].concat(), status);
        assert!(stderr.contains(why) && stderr.contains("exec:sh list.sh"), "{text}: {stderr}");
        assert!(!stderr.contains('\u{1b}'), "{stderr}");
    }
    assert!(!env.store().exists());
}

#[test]
fn lines_that_name_no_host_are_warned_of() {
    let env = TestEnv::new();
    let list = sh(
        &env,
        "list.sh",
        r#"echo '{"host":"a"}'; echo '{"host":"a"}'; echo '{"host":"-oProxyCommand=x"}'; echo '{"host":7}'
           printf '{"host":"\377"}\n'; echo >&2 'two projects were left out'"#,
    );
    let answer = python(&env, "answer.py", ANSWER);
    let args = ["collect", "--fleet", "web", "--tables", "users", "--targets", &list, "--collector", &answer];
    let done = env.run(&args);
    assert_eq!(done.status, 0, "{}", done.stderr);
    assert!(done.stdout.contains("1 asked, 1 answered"), "{}", done.stdout);
    assert!(done.stderr.contains("exec:sh list.sh says: two projects were left out"), "{}", done.stderr);
    let warnings = env.json(&["snapshot", "show", "--json"])["warnings"].to_string();
    for why in [
        "line 2: host `a` is listed twice",
        "line 3: `host` begins with a dash",
        "line 4: invalid type",
        "line 5: no UTF-8",
    ] {
        assert!(warnings.contains(why) && done.stderr.contains(why), "{why}: {warnings}");
    }
}

#[test]
fn plugins_on_path_have_names() {
    let env = TestEnv::new();
    let describe = r#"case $1 in describe) echo '{"diffy_plugin":1,"version":"2.1","description":"hosts of a file"}'; exit;; esac"#;
    plugin(
        &env,
        "bin",
        "diffy-target-file",
        &format!("#!/bin/sh\n{describe}\n[ \"$1\" = targets ] && cat \"$2\"\n"),
    );
    plugin(
        &env,
        "bin",
        "diffy-collector-copy",
        "#!/bin/sh\n[ \"$1\" = collect ] || exit 1\necho '{\"status\":\"empty\",\"table\":\"users\",\"rows\":[]}'\n",
    );
    env.write("hosts.jsonl", "{\"host\":\"a\"}\n{\"host\":\"b\"}\n");
    let path = env.path("bin").display().to_string();
    let args = [
        "collect",
        "--fleet",
        "web",
        "--tables",
        "users",
        "--targets",
        "file:hosts.jsonl",
        "--collector",
        "copy",
    ];
    let done = run_on_path(&env, &path, &args);
    assert_eq!(done.status, 0, "{}", done.stderr);
    assert!(done.stdout.contains("2 asked, 2 answered"), "{}", done.stdout);
    // The configuration may say so too.
    env.write("diffy.toml", "[[fleets]]\nname = \"web\"\ntargets = [\"file:hosts.jsonl\"]\ncollector = \"copy\"\ntables = [\"users\"]\n");
    let done = run_on_path(&env, &path, &["collect", "--all"]);
    assert_eq!(done.status, 0, "{}", done.stderr);
    let listed = run_on_path(&env, &path, &["plugins", "list", "--format", "json"]);
    assert_eq!(listed.status, 0, "{}", listed.stderr);
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    let line = |name: &str| {
        let found = listed.as_array().unwrap().iter().find(|line| line["name"] == name);
        found.unwrap_or_else(|| panic!("{name}: {listed}")).clone()
    };
    let file = line("file");
    assert_eq!(
        (&file["kind"], &file["version"], &file["description"]),
        (&json!("target"), &json!("2.1"), &json!("hosts of a file"))
    );
    assert_eq!(file["path"], format!("{path}/diffy-target-file"));
    assert!(line("copy")["problem"].as_str().unwrap().contains("ended with exit status: 1"), "{listed}");
    for (name, kind) in [
        ("asg:NAME", "target"),
        ("native", "collector"),
        ("osqueryd", "import format"),
        ("csv", "output format"),
        ("history", "method"),
    ] {
        assert_eq!(line(name)["kind"], kind);
    }
    let table = run_on_path(&env, &path, &["plugins", "list"]).stdout;
    assert!(table.contains("/bin/diffy-target-file\n") && table.contains("output format  csv"), "{table}");
}

/// The script of `docs/plugins.md` whose second line names it.
fn documented(name: &str) -> String {
    let page = fs::read_to_string(root().join("docs/plugins.md")).unwrap();
    let mut blocks = page.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    let block = blocks
        .find(|block| block.lines().nth(1).is_some_and(|line| line.starts_with(&format!("# {name}: "))));
    block.unwrap_or_else(|| panic!("no {name}")).to_owned()
}

#[test]
fn the_examples_of_the_page_run_as_they_stand() {
    set_up_debian(&["jq"]);
    let env = TestEnv::new();
    for name in ["diffy-target-gcp", "diffy-collector-kubectl"] {
        plugin(&env, "bin", name, &documented(name));
    }
    // As gcloud prints them, but for what nobody reads.
    let instance = |name: &str, status: &str, ip: Value| {
        json!({
            "id": format!("42{name}"), "name": name, "status": status, "networkInterfaces": [{"networkIP": ip}],
            "zone": "https://www.googleapis.com/compute/v1/projects/p1/zones/europe-west1-b",
            "machineType": "https://www.googleapis.com/compute/v1/projects/p1/zones/europe-west1-b/machineTypes/e2-small",
        })
    };
    let instances = json!([
        instance("web-1", "RUNNING", json!("10.0.0.2")),
        instance("web-2", "TERMINATED", json!(null))
    ]);
    env.write("instances.json", instances.to_string());
    let gcloud = "#!/bin/sh\necho \"$*\" > called\n[ ! -e denied ] || { echo 'ERROR: no permission' >&2; exit 1; }\ncat instances.json\n";
    plugin(&env, "bin", "gcloud", gcloud);
    let kubectl = r#"#!/bin/sh
[ "$1 $2 $3 $4 $5" = "exec web-1 -- osqueryi --json" ] || exit 9
case $6 in *"FROM users"*) printf '[\n  {"username":"a\\\\b"}\n]\n' ;; *) echo no such table >&2; exit 1 ;; esac
"#;
    plugin(&env, "bin", "kubectl", kubectl);
    let path = env.path("bin").display().to_string();
    let args = [
        "collect",
        "--fleet",
        "web",
        "--tables",
        "users,mounts",
        "--targets",
        "gcp:p1",
        "--collector",
        "kubectl",
    ];
    let done = run_on_path(&env, &path, &args);
    assert_eq!(done.status, 0, "{}", done.stderr);
    assert!(done.stderr.contains("fleet web: 2 hosts, 1 of them cannot be asked"), "{}", done.stderr);
    assert_eq!(
        fs::read_to_string(env.path("called")).unwrap(),
        "compute instances list --project p1 --format json --quiet\n"
    );
    assert_eq!(coverage(&env, "web-2", "users"), ("undeliverable".to_owned(), "TERMINATED".to_owned()));
    assert_eq!(
        coverage(&env, "web-1", "mounts"),
        ("error".to_owned(), "osqueryi failed in the pod".to_owned())
    );
    assert_eq!(env.query("SELECT username FROM current.users"), [json!({"username": "a\\b"})]);
    let facts = env.query("SELECT instance_id, zone, instance_type FROM current.hosts WHERE host = 'web-1'");
    assert_eq!(
        facts,
        [json!({"instance_id": "42web-1", "zone": "europe-west1-b", "instance_type": "e2-small"})]
    );
    // A failure of gcloud is one of the collection.
    env.write("denied", "");
    let done = run_on_path(&env, &path, &args);
    assert_eq!(done.status, 1);
    assert!(
        done.stderr.contains("the target plugin `gcp` ended with exit status: 1: ERROR: no permission"),
        "{}",
        done.stderr
    );
    let listed = run_on_path(&env, &path, &["plugins", "list"]).stdout;
    let page = fs::read_to_string(root().join("docs/plugins.md")).unwrap();
    for line in [
        "target         gcp              instances of a Google Cloud project (1.0)\n",
        "target         local            this machine\n",
    ] {
        assert!(listed.contains(line) && page.contains(line), "{listed}");
    }
}

#[test]
fn programs_that_are_no_plugins_are_not_run() {
    let env = TestEnv::new();
    let mark = format!("#!/bin/sh\ntouch {}\n", env.path("was-run").display());
    plugin(&env, "here", "diffy-target-near", &mark);
    plugin(&env, "bin", "diffy-target-local", &mark);
    plugin(&env, "bin", "diffy-target-Odd_Name", &mark);
    plugin(&env, "bin", "diffy-target-\u{202e}x", &mark);
    plugin(&env, "open", "diffy-target-open", &mark);
    plugin(&env, "open", "diffy-target-local", &mark);
    env.write("bin/diffy-target-plain", &mark);
    fs::create_dir(env.path("bin/diffy-collector-dir")).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(env.path("open"), fs::Permissions::from_mode(0o777)).unwrap();
    }
    let (bin, open) = (env.path("bin").display().to_string(), env.path("open").display().to_string());
    let path = format!(":here:.:{bin}:{bin}:{open}");
    let listed = run_on_path(&env, &path, &["plugins", "list", "--format", "ndjson"]);
    assert_eq!(listed.status, 0, "{}", listed.stderr);
    let plugins: Vec<Value> = listed
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["path"].is_string())
        .collect();
    let problem = |name: &str| -> Vec<&str> {
        plugins
            .iter()
            .filter(|line| line["name"] == name)
            .map(|line| line["problem"].as_str().unwrap())
            .collect()
    };
    assert_eq!(problem("local"), ["not used: the name is built in"; 2]);
    assert_eq!(problem("Odd_Name"), ["not used: a name has a-z, 0-9 and - only"]);
    assert!(problem("open")[0].contains("everybody may put programs into"), "{plugins:?}");
    for name in ["near", "plain", "dir"] {
        assert!(problem(name).is_empty(), "{name}: {plugins:?}");
    }
    assert!(!listed.stdout.contains('\u{202e}') || !env.path("was-run").exists());
    assert!(!env.path("was-run").exists(), "listing runs nothing that others can change");
    let args =
        |target: &'static str| ["collect", "--fleet", "web", "--collector", "exec:true", "--targets", target];
    let done = run_on_path(&env, &path, &args("near:x"));
    assert_eq!(done.status, 2);
    assert!(
        done.stderr.contains("there is no target `near`")
            && done.stderr.contains("`diffy-target-near` on PATH"),
        "{}",
        done.stderr
    );
    let done = run_on_path(
        &env,
        "here",
        &["collect", "--fleet", "web", "--collector", "exec:true", "--targets", "exec:diffy-target-near"],
    );
    assert!(done.status == 2 && done.stderr.contains("is not on PATH"), "{}", done.stderr);
    // Who asks for it by name gets it, with a warning.
    let done = run_on_path(&env, &path, &args("open:x"));
    assert!(done.stderr.contains("warning: everybody may put programs into"), "{}", done.stderr);
    assert!(env.path("was-run").exists());
}

#[test]
fn a_plugin_that_does_not_know_the_question_is_not_waited_for() {
    let env = TestEnv::new();
    plugin(&env, "bin", "diffy-target-slow", "#!/bin/sh\necho $$ > pid\nsleep 600\n");
    plugin(&env, "bin", "diffy-target-loud", "#!/bin/sh\nyes\n");
    plugin(&env, "bin", "diffy-target-new", "#!/bin/sh\necho '{\"diffy_plugin\":9}'\n");
    let path = env.path("bin").display().to_string();
    let listed = run_on_path(&env, &path, &["plugins", "list", "--format", "csv"]).stdout;
    for why in [
        "did not end in time and was killed",
        "printed more than 16384 bytes",
        "speaks version 9 of the protocol",
    ] {
        assert!(listed.contains(why), "{why}: {listed}");
    }
    assert!(is_gone(&fs::read_to_string(env.path("pid")).unwrap()));
    fs::remove_file(env.path("pid")).unwrap();
    run_on_path(&env, &path, &["plugins", "list", "--no-describe"]);
    assert!(!env.path("pid").exists());
}

#[test]
fn what_cannot_be_asked_so_is_said_before_anybody_is() {
    let env = TestEnv::new();
    let list = sh(&env, "list.sh", "touch was-run; echo '{\"host\":\"a\"}'");
    for (args, why) in [
        (
            &["--targets", &list, "--collector", "native"][..],
            "`--collector native` cannot ask hosts that a file or a program lists",
        ),
        (&["--targets", &list, "--collector", "nobody"], "there is no collector `nobody`"),
        (&["--targets", &list, "--collector", "Nobody"], "`Nobody` is no collector"),
        (&["--targets", &list, "--collector", "exec:"], "`exec:` needs a command"),
        (&["--targets", &list, "--collector", "exec:'x"], "a quote is open"),
        (&["--targets", &list, "--collector", "exec:/no/such/program"], "is no program that can be run"),
        (&["--targets", &list, "--targets", "local"], "do not go into one collection"),
        (&["--targets", "asg:x", "--collector", "exec:true"], "through `--collector ssm`"),
        (
            &["--targets", "exec:no-such-program", "--collector", "exec:true"],
            "`no-such-program` is not on PATH",
        ),
    ] {
        let output = env.run(&[&["collect", "--fleet", "web"], args].concat());
        assert_eq!(output.status, 2, "{args:?}: {}", output.stderr);
        assert!(output.stderr.contains(why), "{args:?}: {}", output.stderr);
    }
    assert!(!env.store().exists() && !env.path("was-run").exists());
}
