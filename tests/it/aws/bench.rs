//! The test bench of AWS: starts `tests/aws/bench.py` with a config, and asks it what happened.
//!
//! ```ignore
//! let mut config = BenchConfig::new();
//! let truth = config.simulate("web", SimulationConfig::new(20, 1, 7));
//! let hosts = config.hosts("web");
//! config.behave(&hosts[3], json!("vanish")).fault(json!({"action": "ssm:*", "kind": "throttle", "every": 10}));
//! let bench = Bench::start(config);
//! env.diffy(&["collect", "asg:web"]).envs(bench.env());
//! ```
//!
//! Behaviours stand in `tests/aws/hosts.py`, faults in `tests/aws/faults.py`, other settings in `tests/aws/bench.py`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use diffy::catalog::Catalog;
use diffy::simulate::{SimulationConfig, Truth};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::env::{python, root, write_simulation};

/// The operator's credentials, made to be found again wherever they do not belong.
pub(crate) const ACCESS_KEY: &str = "AKIABENCHOPERATOR001";
/// See [`ACCESS_KEY`].
pub(crate) const SECRET_KEY: &str = "bench+operator/secret/never+sent+to+hosts";
/// Where everything is that names no region.
pub(crate) const REGION: &str = "us-east-1";

/// Most that the bench may take to start: the machine may be busy.
const START: Duration = Duration::from_secs(300);

/// A bench to be started.
#[derive(Debug)]
pub(crate) struct BenchConfig {
    dir: TempDir,
    settings: Map<String, Value>,
    groups: Vec<Value>,
    behaviours: Map<String, Value>,
    faults: Vec<Value>,
}

impl BenchConfig {
    /// One bucket, no groups, no faults.
    pub(crate) fn new() -> Self {
        let dir = TempDir::with_prefix("diffy-aws-").unwrap();
        fs::create_dir(dir.path().join("answers")).unwrap();
        Self { dir, settings: Map::new(), groups: vec![], behaviours: Map::new(), faults: vec![] }
    }

    /// Where the hosts' answers are: `INSTANCE/TABLE.json`.
    pub(crate) fn answers(&self) -> PathBuf {
        self.dir.path().join("answers")
    }

    /// An Auto Scaling group of these instances, which answer only what is written to [`Self::answers`].
    pub(crate) fn group(&mut self, name: &str, instances: &[String]) -> &mut Self {
        let hosts: Vec<_> = instances.iter().map(|id| json!({"id": id})).collect();
        self.group_of(json!({"name": name, "hosts": hosts}))
    }

    /// An Auto Scaling group with all that `bench.py` takes: region, account, lifecycle states, tags, platforms; with
    /// the name null, instances of no group.
    pub(crate) fn group_of(&mut self, group: Value) -> &mut Self {
        self.groups.push(group);
        self
    }

    /// An Auto Scaling group of simulated hosts, which are the instances; returns what was planted.
    pub(crate) fn simulate(&mut self, name: &str, config: SimulationConfig) -> Truth {
        let dir = self.dir.path().join("simulated");
        let truth = write_simulation(&dir, config);
        let mut instances = vec![];
        for host in fs::read_dir(&dir).unwrap().flatten() {
            fs::rename(host.path(), self.answers().join(host.file_name())).unwrap();
            instances.push(host.file_name().into_string().unwrap());
        }
        instances.sort();
        self.group(name, &instances);
        truth
    }

    /// The instances of a group.
    pub(crate) fn hosts(&self, name: &str) -> Vec<String> {
        let group = self.groups.iter().find(|group| group["name"] == name).unwrap();
        let hosts = group["hosts"].as_array().unwrap();
        hosts.iter().map(|host| host["id"].as_str().unwrap().to_owned()).collect()
    }

    /// A host behaves like this: a kind, an object with a kind and options, or a list of them.
    pub(crate) fn behave(&mut self, instance: &str, behaviour: Value) -> &mut Self {
        self.behaviours.insert(instance.to_owned(), behaviour);
        self
    }

    /// A rule for calls that fail.
    pub(crate) fn fault(&mut self, rule: Value) -> &mut Self {
        self.faults.push(rule);
        self
    }

    /// Any other setting of `bench.py`.
    pub(crate) fn set(&mut self, name: &str, value: Value) -> &mut Self {
        self.settings.insert(name.to_owned(), value);
        self
    }

    /// Writes all that as JSON.
    fn write(&self) -> PathBuf {
        let catalog = Catalog::builtin().unwrap();
        let tables = catalog.tables().filter(|table| !table.query.trim().is_empty());
        let queries: Map<String, Value> =
            tables.map(|table| (table.query.trim().to_owned(), json!(table.name))).collect();
        let mut config = json!({
            "root": self.dir.path().join("aws"),
            "answers": self.answers(),
            "queries": queries,
            "region": REGION,
            "asgs": self.groups,
            "hosts": self.behaviours,
            "faults": self.faults,
        });
        config.as_object_mut().unwrap().extend(self.settings.clone());
        let path = self.dir.path().join("config.json");
        fs::write(&path, config.to_string()).unwrap();
        path
    }
}

/// What the bench says when it is ready.
#[derive(Debug, Deserialize)]
struct Ready {
    endpoint: String,
    bucket: Option<String>,
    asgs: BTreeMap<String, Vec<String>>,
}

/// How often an action was called, and what it was refused with how often; `drop` is a closed connection.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Calls {
    pub(crate) calls: u64,
    pub(crate) refused: BTreeMap<String, u64>,
}

/// A running bench; ends when dropped, and with the test run however that ends.
#[derive(Debug)]
pub(crate) struct Bench {
    child: Child,
    ready: Ready,
    dir: TempDir,
}

impl Bench {
    /// Starts it and waits until everything is there.
    ///
    /// # Panics
    /// It does not start; the message has what it said.
    pub(crate) fn start(config: BenchConfig) -> Self {
        let path = config.write();
        let mut child = spawn(&path);
        let stdout = child.stdout.take().unwrap();
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = BufReader::new(stdout).read_line(&mut line);
            // Nobody listens any more when it took too long.
            let _ = send.send(read.map(|_| line));
        });
        let line = receive.recv_timeout(START).map(Result::unwrap_or_default).unwrap_or_default();
        let ready = serde_json::from_str(&line).unwrap_or_else(|error| {
            let log = fs::read_to_string(config.dir.path().join("log")).unwrap_or_default();
            let _ = child.kill();
            panic!("tests/aws/bench.py did not start: {error}: {line}\n{log}")
        });
        Self { child, ready, dir: config.dir }
    }

    /// `http://127.0.0.1:PORT`, for every service.
    pub(crate) fn endpoint(&self) -> &str {
        &self.ready.endpoint
    }

    /// The bucket that is there.
    pub(crate) fn bucket(&self) -> &str {
        self.ready.bucket.as_deref().unwrap()
    }

    /// The instances of a group, as they were at the start.
    pub(crate) fn hosts(&self, group: &str) -> &[String] {
        &self.ready.asgs[group]
    }

    /// Variables that lead a program here, and to nothing of this machine.
    pub(crate) fn env(&self) -> [(&'static str, &str); 8] {
        [
            ("AWS_ENDPOINT_URL", self.endpoint()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            ("AWS_REGION", REGION),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_CONFIG_FILE", "/dev/null"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
            ("NO_PROXY", "127.0.0.1"),
        ]
    }

    /// Calls by action, such as `ssm:SendCommand`; S3's with a presigned URL are `s3:PresignedPutObject` and so on.
    pub(crate) fn calls(&self) -> BTreeMap<String, Calls> {
        serde_json::from_slice(&self.get("/_agent/calls")).unwrap()
    }

    /// Calls of one action.
    pub(crate) fn calls_of(&self, action: &str) -> Calls {
        self.calls().remove(action).unwrap_or_default()
    }

    /// All that was ever sent to hosts: `commands` with ids, bodies and scripts, and `documents`.
    pub(crate) fn sent(&self) -> Value {
        serde_json::from_slice(&self.get("/_agent/sent")).unwrap()
    }

    /// Changes behaviours (`hosts`), `faults` and other settings of the running bench.
    #[track_caller]
    pub(crate) fn configure(&self, changes: &Value) {
        let (status, body) = self.http("PUT", "/_agent/config", &[], changes.to_string().as_bytes());
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    }

    /// An object of moto's S3, if it is there.
    pub(crate) fn object(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        let headers = [("Authorization", &*authorization("s3"))];
        let (status, body) = self.http("GET", &format!("/{bucket}/{key}"), &headers, b"");
        (status == 200).then_some(body)
    }

    /// Calls Systems Manager; an error is its code.
    pub(crate) fn ssm(&self, action: &str, body: &Value) -> Result<Value, String> {
        let target = format!("AmazonSSM.{action}");
        let headers = [
            ("Authorization", &*authorization("ssm")),
            ("X-Amz-Target", &target),
            ("Content-Type", "application/x-amz-json-1.1"),
        ];
        let (status, answer) = self.http("POST", "/", &headers, body.to_string().as_bytes());
        let answer: Value = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
        if status == 200 {
            Ok(answer)
        } else {
            Err(answer["__type"].to_string().trim_matches('"').to_owned())
        }
    }

    /// Calls an action of Auto Scaling with a query's parameters; the status and the XML.
    pub(crate) fn autoscaling(&self, query: &str) -> (u16, String) {
        let headers = [
            ("Authorization", &*authorization("autoscaling")),
            ("Content-Type", "application/x-www-form-urlencoded"),
        ];
        let body = format!("{query}&Version=2011-01-01");
        let (status, answer) = self.http("POST", "/", &headers, body.as_bytes());
        (status, String::from_utf8(answer).unwrap())
    }

    /// What it said on stderr, for messages of failures.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn get(&self, path: &str) -> Vec<u8> {
        let (status, body) = self.http("GET", path, &[], b"");
        assert_eq!(status, 200, "{path}: {}\n{}", String::from_utf8_lossy(&body), self.log());
        body
    }

    /// Status and body; status 0 when the connection ended without an answer.
    pub(crate) fn http(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> (u16, Vec<u8>) {
        self.exchange(method, path, headers, body).unwrap_or_default()
    }

    fn exchange(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<(u16, Vec<u8>)> {
        let host = self.endpoint().trim_start_matches("http://");
        let mut stream = TcpStream::connect(host)?;
        // 1.0: an answer in one piece, and the connection ends with it.
        let mut head =
            format!("{method} {path} HTTP/1.0\r\nHost: {host}\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all(&[head.as_bytes(), b"\r\n", body].concat())?;
        let mut answer = vec![];
        stream.read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
        let Some(end) = end else { return Ok((0, vec![])) };
        let head = String::from_utf8_lossy(&answer[..end]);
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
        Ok((status, answer[end + 4..].to_vec()))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + Duration::from_secs(10);
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                // It ends at the end of its stdin; if it does not, it must not stay.
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "tests start programs")]
fn spawn(config: &std::path::Path) -> Child {
    let log = fs::File::create(config.with_file_name("log")).unwrap();
    Command::new(python())
        .arg(root().join("tests/aws/bench.py"))
        .arg(config)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        // The source tree stays as it is.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// A header that says who calls which service; the bench checks no signatures.
fn authorization(service: &str) -> String {
    let scope = format!("{ACCESS_KEY}/20260101/{REGION}/{service}/aws4_request");
    format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0")
}

/// Ids of instances of no meaning.
pub(crate) fn instance_ids(count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("i-{number:017x}")).collect()
}
