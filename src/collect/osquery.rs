//! Runs the `osqueryi` of this machine, one query at a time.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use regex::bytes::Regex;
use tokio::sync::mpsc::Sender;

use super::judge::{End, judge};
use super::program::{Bounds, Directory, Ended, Environment, Leash, Program, Running};
use super::{Answer, Collector, until_closed};
use crate::catalog::TableSpec;
use crate::model::{self, Status};

/// Flags that every osqueryi from 4.0 on knows: JSON, and no log lines among the errors.
const FLAGS: [&str; 5] = [
    "--json",
    "--logger_stderr=false",
    "--logger_min_status=3",
    "--logger_min_stderr=2",
    "--disable_extensions=true",
];

/// The environment of the child beside `HOME`; nothing of ours is handed down.
const ENVIRONMENT: [(&str, &str); 2] =
    [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("LANG", "C.UTF-8")];

static VERSION: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#""version"\s*:\s*"([0-9A-Za-z.+-]{1,40})""#).ok());

/// Where osqueryi is and what it may take.
#[derive(Debug, Clone)]
pub struct OsqueryConfig {
    /// The program; a bare name is looked for on the usual system paths.
    pub program: PathBuf,
    /// Most that one query may take.
    pub timeout: Duration,
    /// Most bytes that one query may answer.
    pub max_bytes: usize,
}

impl Default for OsqueryConfig {
    fn default() -> Self {
        Self { program: PathBuf::from("osqueryi"), timeout: Duration::from_secs(120), max_bytes: 256 << 20 }
    }
}

/// The collector `osquery`.
#[derive(Debug)]
pub struct OsqueryCollector {
    config: OsqueryConfig,
    leash: Leash,
}

impl OsqueryCollector {
    /// A collector of this machine.
    pub fn new(config: OsqueryConfig) -> Self {
        Self { config, leash: Leash::default() }
    }

    async fn version(&self) -> Option<String> {
        let (_, stdout, _) = self.run("SELECT version FROM osquery_info").await;
        let found = VERSION.as_ref()?.captures(&stdout)?;
        Some(String::from_utf8_lossy(&found[1]).into_owned())
    }

    async fn answer(&self, table: &TableSpec, osquery_version: Option<String>) -> Answer {
        let started = model::now();
        let (status, json, error) = if table.query.trim().is_empty() {
            (Status::NotSupported, Vec::new(), "osquery does not have this table".to_owned())
        } else {
            self.judge(self.run(&table.query).await)
        };
        let uid = caller();
        Answer {
            table: table.name.clone(),
            status,
            json,
            error,
            started,
            ended: model::now(),
            osquery_version,
            uid,
        }
    }

    fn judge(&self, (ended, stdout, stderr): (Ended, Vec<u8>, Vec<u8>)) -> (Status, Vec<u8>, String) {
        let end = match ended {
            Ended::Failed(error) => End::Failed(error),
            Ended::Stopped => End::Failed("the collection was stopped".to_owned()),
            Ended::Timeout => End::Timeout { seconds: self.config.timeout.as_secs_f64() },
            Ended::TooLong(_) => End::TooLong { bytes: self.config.max_bytes as u64 },
            Ended::Exit(status) => End::Exit { success: status.success(), how: status.to_string() },
        };
        let (status, error) = judge(end, &stderr);
        let is_no_answer = matches!(status, Status::NotSupported | Status::Timeout);
        (status, if is_no_answer { Vec::new() } else { stdout }, error)
    }

    /// How it ended, what it printed, and what it said on stderr.
    async fn run(&self, sql: &str) -> (Ended, Vec<u8>, Vec<u8>) {
        // osqueryi keeps files in a directory of its home: they go with the query, the host stays as it was.
        let started = tempfile::tempdir().and_then(|home| Ok((self.start(sql, home.path())?, home)));
        let (mut running, _home) = match started {
            Ok(started) => started,
            Err(error) => {
                let program = self.config.program.display();
                let why = Ended::Failed(format!("cannot start `{program}`: {error}"));
                return (why, Vec::new(), Vec::new());
            }
        };
        let stdout = running.rest().await;
        let (ended, stderr) = running.end().await;
        (ended, stdout, stderr)
    }

    fn start(&self, sql: &str, home: &Path) -> io::Result<Running> {
        let flags = FLAGS.iter().map(OsString::from);
        let variables = ENVIRONMENT.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value)));
        let home = ("HOME".to_owned(), home.as_os_str().to_owned());
        let program = Program {
            path: self.config.program.clone(),
            // A query that starts with a comment would be taken for a flag.
            args: flags.chain([format!(" {}", sql.trim()).into()]).collect(),
            environment: Environment::Only(variables.chain([home]).collect()),
            directory: Directory::Root,
        };
        let max = self.config.max_bytes;
        let bounds = Bounds { timeout: self.config.timeout, bytes: max, line_bytes: max };
        Running::start(&program, Vec::new(), bounds, &self.leash)
    }
}

#[async_trait]
impl Collector for OsqueryCollector {
    fn name(&self) -> &'static str {
        "osquery"
    }

    fn concurrency(&self) -> usize {
        1
    }

    async fn collect(&self, _host: &str, tables: &[TableSpec], answers: Sender<Answer>) {
        let work = async {
            let version = self.version().await;
            for table in tables {
                if self.leash.is_pulled() {
                    return;
                }
                let answer = self.answer(table, version.clone()).await;
                if answers.send(answer).await.is_err() {
                    return;
                }
            }
        };
        until_closed(&answers, work).await;
    }

    async fn stop(&self) {
        self.leash.pull().await;
    }
}

#[cfg(unix)]
fn caller() -> Option<u32> {
    Some(rustix::process::geteuid().as_raw())
}

#[cfg(not(unix))]
fn caller() -> Option<u32> {
    None
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;
    use tokio::sync::{Mutex, mpsc};

    use super::*;

    /// One test at a time: a script that another test's fork still has open for writing cannot be run.
    static TURN: Mutex<()> = Mutex::const_new(());

    /// A program that answers like osqueryi: `body` is a shell script that sees the query in `$sql`.
    fn fake(body: &str) -> (TempDir, OsqueryConfig) {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("osqueryi");
        let script = format!(
            "#!/bin/sh\nfor sql; do :; done\ncase $sql in *osquery_info*)\n\
             printf '[\\n  {{\"version\":\"5.10.2\"}}\\n]\\n'; exit;;\nesac\n{body}\n"
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let config = OsqueryConfig { program, timeout: Duration::from_secs(20), max_bytes: 1 << 16 };
        (dir, config)
    }

    async fn ask(config: OsqueryConfig, query: &str) -> Answer {
        let spec = TableSpec { query: query.to_owned(), ..TableSpec::undeclared("crontab") };
        let (sender, mut receiver) = mpsc::channel(4);
        OsqueryCollector::new(config).collect("localhost", &[spec], sender).await;
        let answer = receiver.recv().await.unwrap();
        assert!(receiver.recv().await.is_none());
        answer
    }

    #[tokio::test]
    async fn an_answer_is_handed_over_as_it_is() {
        let _turn = TURN.lock().await;
        let (dir, config) =
            fake(r#"echo $HOME > ${0%/*}/home; printf '[\n  {"sql":"%s","path":"\377"}\n]\n' "$sql""#);
        let answer = ask(config, "SELECT 1").await;
        assert_eq!((answer.status, answer.error.as_str()), (Status::Ok, ""));
        assert_eq!(answer.json, b"[\n  {\"sql\":\" SELECT 1\",\"path\":\"\xff\"}\n]\n");
        let home = fs::read_to_string(dir.path().join("home")).unwrap();
        assert!(home.len() > 2 && !Path::new(home.trim()).exists(), "{home}");
        assert_eq!(answer.osquery_version.as_deref(), Some("5.10.2"));
        assert!(answer.uid.is_some());
    }

    #[tokio::test]
    async fn errors_are_told_apart() {
        let _turn = TURN.lock().await;
        let (_dir, config) =
            fake("echo warning >&2; echo 'Error: no such table: crontab' >&2; echo >&2; exit 1");
        let answer = ask(config, "SELECT 1").await;
        assert_eq!(
            (answer.status, answer.error.as_str()),
            (Status::NotSupported, "Error: no such table: crontab")
        );
        let (_dir, config) = fake("echo 'Error: near syntax' >&2; exit 1");
        assert_eq!(ask(config, "SELECT 1").await.status, Status::Error);
        let (_dir, config) = fake("echo garbage; exit 3");
        let answer = ask(config, "SELECT 1").await;
        assert_eq!((answer.status, answer.error.contains("exit status: 3")), (Status::Error, true));
        let (_dir, config) = fake("exit 0");
        assert_eq!(ask(config, "").await.status, Status::NotSupported);
        let config =
            OsqueryConfig { program: PathBuf::from("/no/such/osqueryi"), ..OsqueryConfig::default() };
        let answer = ask(config, "SELECT 1").await;
        assert_eq!((answer.status, answer.error.starts_with("cannot start")), (Status::Error, true));
    }

    #[tokio::test]
    async fn a_query_that_hangs_is_killed_with_its_children() {
        let _turn = TURN.lock().await;
        let (dir, config) = fake("sleep 600 & echo $! > ${0%/*}/child; wait");
        let config = OsqueryConfig { timeout: Duration::from_millis(1500), ..config };
        let answer = ask(config, "SELECT 1").await;
        assert_eq!(answer.status, Status::Timeout);
        let child = fs::read_to_string(dir.path().join("child")).unwrap();
        let is_alive = || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z") && !stat.contains(") X")
        };
        // The signal is sent, but the kernel may take a moment to act on it.
        let patience = std::time::Instant::now() + Duration::from_secs(20);
        while is_alive() {
            assert!(std::time::Instant::now() < patience, "{child} is still there");
            std::thread::yield_now();
        }
    }

    #[tokio::test]
    async fn a_flood_is_cut_off() {
        let _turn = TURN.lock().await;
        let (_dir, config) = fake("trap '' PIPE; yes 2>/dev/null; sleep 600");
        let answer = ask(config, "SELECT 1").await;
        assert_eq!((answer.status, answer.json.len()), (Status::Truncated, 1 << 16));
        let (_dir, config) =
            fake("head -c 10000000 /dev/zero | tr '\\0' x >&2; echo >&2; echo 'the end' >&2; echo '[]'");
        let answer = ask(config, "SELECT 1").await;
        assert_eq!((answer.status, answer.error.as_str()), (Status::Ok, "the end"));
    }
}
