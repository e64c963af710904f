//! The script, run by every shell that is here, against programs that answer like osqueryi.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;
use crate::catalog::TableSpec;
use crate::model::Status;

/// What the fake osqueryi does depends on the query.
const FAKE: &str = r#"#!/bin/sh
for sql; do :; done
case $sql in
*osquery_info*) printf '[\n  {"version":"5.10.2"}\n]\n'; exit ;;
*fail*) echo warning >&2; echo 'Error: near syntax' >&2; exit 1 ;;
*hang*) : > "$HOME/asked"; sleep 120 & sleep 120 ;;
*flood*) trap '' PIPE; yes 2>/dev/null; sleep 120 ;;
*loud*) head -c 100000 /dev/zero | tr '\0' x >&2; echo >&2; echo 'the end' >&2 ;;
*noise*) head -c 30000 /dev/urandom | base64; exit ;;
*home*) echo "$HOME $QUERIES"; pwd; exit ;;
esac
printf '[\n  {"sql":"%s","path":"\377"}\n]\n' "$sql"
"#;

fn query(table: &str, query: &str) -> TableSpec {
    TableSpec { query: query.to_owned(), ..TableSpec::undeclared(table) }
}

fn limits() -> HostLimits {
    HostLimits { query_seconds: 60, query_bytes: 1 << 20, ..HostLimits::default() }
}

/// One that no other run has.
fn nonce() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{:024x}{:08x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Writes a program without ever holding it open here: a child that another test forks at that moment would keep it
/// busy.
fn write_program(path: &Path, text: &str) {
    let program = path.display();
    let script = format!("cat > {program} && chmod 755 {program}");
    let mut shell = command("/bin/sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap();
    shell.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(shell.wait().unwrap().success());
}

fn fake() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_program(&dir.path().join("osqueryi"), FAKE);
    dir
}

#[expect(clippy::disallowed_methods, reason = "tests start programs")]
fn command(program: &str) -> Command {
    Command::new(program)
}

const SHELLS: [&[&str]; 3] = [&["/bin/sh"], &["/bin/bash", "--posix"], &["/bin/busybox", "sh"]];

fn shells() -> impl Iterator<Item = &'static [&'static str]> {
    SHELLS.into_iter().filter(|shell| Path::new(shell[0]).exists())
}

/// Starts `script` from stdin with `path` in front of the usual one.
fn start(shell: &[&str], script: &str, path: &Path) -> Child {
    let mut command = command(shell[0]);
    command.args(&shell[1..]).arg("-s").env_clear();
    command.env("PATH", format!("{}:/usr/bin:/bin", path.display()));
    command.env("AWS_SSM_INSTANCE_ID", "i-0abc").env("QUERIES", "x:$(id)").env("URL", "http://127.0.0.1:1/");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    child
}

fn run_with(shell: &[&str], script: &str, path: &Path) -> Vec<u8> {
    let output = start(shell, script, path).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{shell:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{shell:?}");
    output.stdout
}

fn job<'a>(nonce: &'a str, tables: &'a [TableSpec], limits: &'a HostLimits) -> Job<'a> {
    Job { nonce, tables, output: OutputMode::Inline, url: None, limits, bootstrap: None }
}

/// Runs a job with /bin/sh and reads what it prints; nothing is left behind.
fn run(job: &Job<'_>, path: &Path) -> Reply {
    let stdout = run_with(SHELLS[0], &script(job).unwrap(), path);
    let reply = parse_reply(&stdout, job.nonce);
    let reply = reply.unwrap_or_else(|error| panic!("{error}:\n{}", String::from_utf8_lossy(&stdout)));
    wait_until("something is left behind", || left_behind(job.nonce).is_empty());
    reply
}

fn answers(gz: &[u8]) -> Vec<RemoteAnswer> {
    let mut answers = Vec::new();
    unpack(gz, &UnpackLimits::default(), &mut |answer| {
        answers.push(answer);
        true
    })
    .unwrap();
    answers
}

fn statuses(answers: &[RemoteAnswer]) -> Vec<Status> {
    answers.iter().map(|answer| judge(answer).0).collect()
}

/// Directories and processes that carry the nonce.
fn left_behind(nonce: &str) -> Vec<String> {
    let mut found = Vec::new();
    for place in ["/var/tmp", "/tmp", "/var/lib", "/sys/fs/cgroup"] {
        let names = fs::read_dir(place).into_iter().flatten().flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        found.extend(names.filter(|name| name.contains(nonce)));
    }
    for process in fs::read_dir("/proc").unwrap().flatten() {
        for file in ["cmdline", "environ"] {
            let bytes = fs::read(process.path().join(file)).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if text.contains(nonce) {
                found.push(text);
            }
        }
    }
    found
}

/// Whether the query that hangs has begun.
fn is_asked(nonce: &str) -> bool {
    let places = fs::read_dir("/var/tmp").unwrap().chain(fs::read_dir("/tmp").unwrap()).flatten();
    let mut ours = places.filter(|entry| entry.file_name().to_string_lossy().contains(nonce));
    ours.any(|entry| entry.path().join("home/asked").exists())
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < patience, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn every_shell_brings_every_kind_of_answer() {
    let fake = fake();
    let tables = [
        query("users", "SELECT 'it''s' -- \"quoted\"\n, 2"),
        query("crontab", "fail"),
        query("mounts", "hang"),
        query("last", "flood"),
        query("shadow", "loud"),
        query("groups", ""),
    ];
    let limits = HostLimits { query_seconds: 2, query_bytes: 1000, ..limits() };
    for shell in shells() {
        let nonce = nonce();
        let stdout = run_with(shell, &script(&job(&nonce, &tables, &limits)).unwrap(), fake.path());
        let Reply { manifest, data } = parse_reply(&stdout, &nonce).unwrap();
        assert_eq!((manifest.host.as_str(), manifest.via), ("i-0abc", Via::Inline));
        assert_eq!(manifest.agent, Agent::Osquery("5.10.2".to_owned()));
        assert!(manifest.uid.is_some() && manifest.clock > Some(1_700_000_000) && manifest.upload.is_none());
        let answers = answers(&data.unwrap());
        use Status::{Error, NotSupported, Ok, Timeout, Truncated};
        assert_eq!(statuses(&answers), [Ok, Error, Timeout, Truncated, Ok, NotSupported], "{shell:?}");
        assert_eq!(manifest.answers, 6);
        let framed: usize = answers.iter().map(|answer| answer.stdout.len() + answer.stderr.len()).sum();
        assert!(manifest.raw > framed as u64 + 6 * 30, "{manifest:?}");
        assert_eq!(
            answers[0].stdout,
            b"[\n  {\"sql\":\" SELECT 'it''s' -- \"quoted\"\n, 2\",\"path\":\"\xff\"}\n]\n"
        );
        assert_eq!((answers[1].exit, judge(&answers[1]).1.as_str()), (1, "Error: near syntax"));
        assert_eq!((answers[3].stdout.len(), answers[4].stderr.len()), (1000, 4096));
        assert_eq!(judge(&answers[4]).1, "the end");
        wait_until("something is left behind", || left_behind(&nonce).is_empty());
    }
}

#[test]
fn the_agent_has_a_home_that_goes_away_and_no_environment_of_ours() {
    let (fake, nonce) = (fake(), nonce());
    let reply = run(&job(&nonce, &[query("users", "home")], &limits()), fake.path());
    let answers = answers(&reply.data.unwrap());
    let said = String::from_utf8_lossy(&answers[0].stdout).into_owned();
    assert!(said.contains(&nonce) && said.contains("/home \n/\n"), "{said}");
}

#[test]
fn no_query_is_started_when_the_time_of_the_host_is_used_up() {
    let (fake, nonce) = (fake(), nonce());
    let tables = [query("users", "hang"), query("groups", "SELECT 1"), query("last", "SELECT 2")];
    let limits = HostLimits { query_seconds: 2, host_seconds: 1, ..limits() };
    let answers = answers(&run(&job(&nonce, &tables, &limits), fake.path()).data.unwrap());
    assert_eq!(answers.len(), 3);
    let (status, reason) = judge(&answers[2]);
    assert_eq!(status, Status::NotAsked);
    assert_eq!(reason, "skipped: the 1 s of this host were used up");
}

#[test]
fn without_osquery_there_is_no_answer_and_a_reason() {
    let (empty, nonce) = (tempfile::tempdir().unwrap(), nonce());
    let reply = run(&job(&nonce, &[query("users", "SELECT 1")], &limits()), empty.path());
    assert_eq!((reply.manifest.agent, reply.manifest.via, reply.data), (Agent::None, Via::None, None));
    assert!(reply.manifest.notes.contains(&"no osquery found".to_owned()), "{:?}", reply.manifest.notes);
}

#[test]
fn what_is_too_big_for_inline_is_not_printed_and_stdout_prints_it() {
    let fake = fake();
    let (tables, limits) = ([query("users", "noise")], limits());
    let nonces = [nonce(), nonce()];
    let reply = run(&job(&nonces[0], &tables, &limits), fake.path());
    assert_eq!((reply.manifest.via, reply.data), (Via::None, None));
    let gz = reply.manifest.gz;
    assert_eq!(reply.manifest.notes.last(), Some(&format!("too big for inline: {gz} bytes")));
    let whole = Job { output: OutputMode::Stdout, ..job(&nonces[1], &tables, &limits) };
    let reply = run(&whole, fake.path());
    assert_eq!(reply.manifest.via, Via::Stdout);
    assert!(answers(&reply.data.unwrap())[0].stdout.len() > 40_000);
}

/// What a client asked: its head, and its body.
type Request = (String, Vec<u8>);

/// A server that answers with one status after the other, and with the last as often as it is asked.
fn serve(statuses: &'static [&'static str], body: Vec<u8>) -> (String, Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/raw/x.gz?X-Amz-Signature=ab%2Fcd&x=1", listener.local_addr().unwrap());
    let (send, requests) = channel();
    std::thread::spawn(move || {
        for (turn, stream) in listener.incoming().flatten().enumerate() {
            let request = answer_request(stream, statuses[turn.min(statuses.len() - 1)], &body);
            if request.is_none_or(|request| send.send(request).is_err()) {
                return;
            }
        }
    });
    (url, requests)
}

fn answer_request(mut stream: TcpStream, status: &str, body: &[u8]) -> Option<Request> {
    let mut from = BufReader::new(stream.try_clone().ok()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if from.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let lower = head.to_lowercase();
    if lower.contains("expect: 100-continue") {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
    }
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut sent = vec![0; length.and_then(|length| length.trim().parse().ok()).unwrap_or(0)];
    from.read_exact(&mut sent).ok()?;
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())
        .ok()?;
    stream.write_all(body).ok()?;
    Some((lower, sent))
}

/// Replaces the system's path of a script by a directory with all programs but some.
fn without(programs: &[&str], script: &str) -> (TempDir, String) {
    let farm = tempfile::tempdir().unwrap();
    for dir in ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"] {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if !programs.iter().any(|program| name.to_string_lossy().starts_with(program)) {
                let _ = symlink(entry.path(), farm.path().join(name));
            }
        }
    }
    let line = script.lines().find(|line| line.starts_with("SYSTEM_PATH=")).unwrap();
    let text = script.replace(line, &format!("SYSTEM_PATH={}; PATH=$FAKE", farm.path().display()));
    (farm, text)
}

/// As [`run`], on a host that lacks some programs.
fn run_without(programs: &[&str], job: &Job<'_>, path: &Path) -> Reply {
    let (_farm, text) = without(programs, &script(job).unwrap());
    let text = format!("FAKE={}\n{text}", path.display());
    parse_reply(&run_with(SHELLS[0], &text, path), job.nonce).unwrap()
}

#[test]
fn what_is_too_big_is_uploaded_once() {
    let (fake, tables, limits) = (fake(), [query("users", "noise")], limits());
    for lacking in [&["nothing"][..], &["curl"]] {
        let (url, requests) = serve(&["200 OK"], Vec::new());
        let nonce = nonce();
        let upload = Job { output: OutputMode::Upload, url: Some(&url), ..job(&nonce, &tables, &limits) };
        let reply = run_without(lacking, &upload, fake.path());
        assert_eq!((reply.manifest.via, reply.manifest.upload.as_deref()), (Via::Upload, Some("200")));
        let (head, body) = requests.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(head.starts_with("put /raw/x.gz?x-amz-signature=ab%2fcd&x=1 http"), "{head}");
        assert!(head.contains("if-none-match: *\r\n"), "{head}");
        check(&reply.manifest, &body).unwrap();
        assert_eq!(statuses(&answers(&body)), [Status::Ok]);
    }
    // What is short needs no upload.
    let nonce = nonce();
    let tables = [query("users", "SELECT 1")];
    let upload =
        Job { output: OutputMode::Upload, url: Some("http://127.0.0.1:1/"), ..job(&nonce, &tables, &limits) };
    assert_eq!(run(&upload, fake.path()).manifest.via, Via::Inline);
}

#[test]
fn an_upload_that_fails_says_why_and_keeps_the_url_to_itself() {
    let (fake, tables, limits) = (fake(), [query("users", "noise")], limits());
    let (refusing, _requests) = serve(&["412 Precondition Failed"], Vec::new());
    let nobody = "http://127.0.0.1:1/raw?X-Amz-Signature=secret".to_owned();
    for (url, lacking, expected) in [
        (&refusing, &["nothing"][..], "412"),
        (&refusing, &["curl"], "412"),
        (&nobody, &["nothing"], "curl: (7)"),
        (&nobody, &["curl"], "refused"),
        (&nobody, &["curl", "python"], "no curl and no python3"),
    ] {
        let nonce = nonce();
        let upload = Job { output: OutputMode::Upload, url: Some(url), ..job(&nonce, &tables, &limits) };
        let reply = run_without(lacking, &upload, fake.path());
        assert_eq!((reply.manifest.via, reply.data.is_none()), (Via::None, true));
        let said = reply.manifest.upload.unwrap();
        assert!(said.contains(expected) && !said.contains("secret"), "{said} is not `{expected}`");
    }
}

#[test]
fn an_upload_is_tried_three_times_where_that_may_help() {
    const BUSY: &str = "503 Slow Down";
    let (fake, tables, limits) = (fake(), [query("users", "noise")], limits());
    for lacking in [&["nothing"][..], &["curl"]] {
        for (statuses, expected, tries) in [
            (&[BUSY, "200 OK"][..], "200", 2),
            (&["500 Internal Server Error", "412 Precondition Failed"], "412", 2),
            (&["429 Too Many Requests", BUSY, BUSY, "200 OK"], "503", 3),
            (&["403 Forbidden", "200 OK"], "403", 1),
        ] {
            let (url, requests) = serve(statuses, Vec::new());
            let nonce = nonce();
            let upload = Job { output: OutputMode::Upload, url: Some(&url), ..job(&nonce, &tables, &limits) };
            let reply = run_without(lacking, &upload, fake.path());
            assert_eq!(reply.manifest.upload.as_deref(), Some(expected), "{lacking:?} {statuses:?}");
            assert_eq!(reply.manifest.via, if expected == "200" { Via::Upload } else { Via::None });
            let bodies: Vec<_> = requests.try_iter().collect();
            assert_eq!(bodies.len(), tries, "{lacking:?} {statuses:?}");
            // Each is whole.
            bodies.iter().for_each(|(_, body)| check(&reply.manifest, body).unwrap());
        }
    }
}

#[test]
fn other_tools_do_as_well_and_what_is_missing_is_said() {
    let (fake, limits) = (fake(), limits());
    let tables = [query("users", "SELECT 1")];
    for lacking in
        [&["base64", "sha256sum"][..], &["base64", "openssl", "gzip", "sha", "shasum"], &["setsid", "renice"]]
    {
        let nonce = nonce();
        let reply = run_without(lacking, &job(&nonce, &tables, &limits), fake.path());
        assert_eq!(statuses(&answers(&reply.data.unwrap())), [Status::Ok], "{lacking:?}");
    }
    for (lacking, expected) in [
        (&["gzip", "python"][..], "no gzip and no python3"),
        (&["base64", "openssl", "python"], "no base64, openssl or python3"),
        (&["mkfifo"], "no mkfifo"),
    ] {
        let nonce = nonce();
        let reply = run_without(lacking, &job(&nonce, &tables, &limits), fake.path());
        assert_eq!((reply.manifest.via, &reply.manifest.notes[..]), (Via::None, &[expected.to_owned()][..]));
    }
}

#[test]
fn a_program_is_brought_only_when_its_digest_is_right() {
    let (empty, limits) = (tempfile::tempdir().unwrap(), limits());
    let tables = [query("users", "SELECT 1"), query("rpm_packages", "SELECT 2")];
    let native = "#!/bin/sh\ncase $1$2 in --version) echo diffy 9.8.7;; answerusers) echo '[]';;\n\
                  *) echo 'diffy answer: not_supported: no rpm' >&2; exit 3;; esac\n";
    let hex = |text: &str| Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let osquery = |agent| (BootstrapKind::Osquery, FAKE, agent);
    for ((kind, program, agent), sha256, lacking, expected) in [
        (osquery(Agent::Osquery("5.10.2".into())), hex(FAKE), "nothing", vec![Status::Ok, Status::Ok]),
        (osquery(Agent::Osquery("5.10.2".into())), hex(FAKE), "curl", vec![Status::Ok, Status::Ok]),
        (osquery(Agent::None), hex("another"), "nothing", vec![]),
        (
            (BootstrapKind::Native, native, Agent::Native("9.8.7".into())),
            hex(native),
            "nothing",
            vec![Status::Ok, Status::NotSupported],
        ),
    ] {
        let (url, _requests) = serve(&["200 OK"], program.into());
        let (nonce, bootstrap) = (nonce(), Bootstrap { url, sha256, kind });
        let job = Job { bootstrap: Some(&bootstrap), ..job(&nonce, &tables, &limits) };
        let reply = run_without(&[lacking], &job, empty.path());
        assert_eq!(reply.manifest.agent, agent, "{:?}", reply.manifest.notes);
        let found = reply.data.map(|data| statuses(&answers(&data))).unwrap_or_default();
        assert_eq!(found, expected);
        let refused = format!("bootstrap: sha256 is {}", hex(FAKE));
        assert_eq!(
            reply.manifest.notes.contains(&refused),
            agent == Agent::None,
            "{:?}",
            reply.manifest.notes
        );
    }
}

#[test]
fn a_program_that_cannot_be_fetched_is_no_agent() {
    let (empty, limits, nonce) = (tempfile::tempdir().unwrap(), limits(), nonce());
    let (url, _requests) = serve(&["403 Forbidden"], b"<Error/>".to_vec());
    let bootstrap = Bootstrap { url, sha256: "0".repeat(64), kind: BootstrapKind::Osquery };
    let reply = run(&Job { bootstrap: Some(&bootstrap), ..job(&nonce, &[], &limits) }, empty.path());
    let notes = reply.manifest.notes.join("\n");
    assert!(notes.contains("cannot fetch") && notes.contains("403"), "{notes}");
    assert!(!notes.contains("Signature"), "{notes}");
}

#[test]
fn whoever_kills_it_leaves_nothing_behind() {
    let (fake, tables, limits) = (fake(), [query("users", "hang")], limits());
    for shell in shells() {
        // SSM ends a script that is cancelled with KILL.
        for (signal, code) in [("TERM", Some(143)), ("HUP", Some(129)), ("KILL", None)] {
            let nonce = nonce();
            let mut child = start(shell, &script(&job(&nonce, &tables, &limits)).unwrap(), fake.path());
            wait_until("the query does not begin", || is_asked(&nonce));
            let kill = command("/bin/kill").args([&format!("-{signal}"), &child.id().to_string()]).status();
            assert!(kill.unwrap().success());
            assert_eq!(child.wait().unwrap().code(), code, "{shell:?} {signal}");
            wait_until("something is left behind", || left_behind(&nonce).is_empty());
        }
    }
}
