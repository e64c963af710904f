//! Runs a program of this machine, bounded in time and in bytes, and ends what it started.
//!
//! A program runs in a process group of its own. The group is killed when time or room is over, when whoever waits for
//! it is dropped, and when its [`Leash`] is pulled; what left the group by itself is out of reach.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{self, Instant};

use super::child::{Group, keep_end, read_all};

/// Most that is kept of the error output, in bytes; the end of it.
const MAX_STDERR: usize = 64 << 10;
/// How long the error output is still read after the program ended: what it left behind may hold it open.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What to run, without a shell.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program; a bare name is looked for on `PATH`.
    pub path: PathBuf,
    /// What follows its name.
    pub args: Vec<OsString>,
    /// What it finds in its environment.
    pub environment: Environment,
    /// Where it runs.
    pub directory: Directory,
}

/// The environment of a program.
#[derive(Debug, Clone)]
pub enum Environment {
    /// That of the user who started Diffy, and these.
    Inherited(Vec<(String, OsString)>),
    /// These and nothing else.
    Only(Vec<(String, OsString)>),
}

/// The directory that a program runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Directory {
    /// The one that Diffy runs in.
    Same,
    /// `/`.
    Root,
}

/// What a program may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Most time, from its start to its end.
    pub timeout: Duration,
    /// Most bytes that it may print.
    pub bytes: usize,
    /// Most bytes of one line.
    pub line_bytes: usize,
}

/// How a program ended.
#[derive(Debug)]
pub enum Ended {
    /// By itself.
    Exit(ExitStatus),
    /// Killed after [`Bounds::timeout`].
    Timeout,
    /// Killed after [`Bounds::bytes`] or [`Bounds::line_bytes`], whichever it was: so many bytes.
    TooLong(usize),
    /// Killed because somebody pulled the [`Leash`].
    Stopped,
    /// It could not be watched: why.
    Failed(String),
}

/// Ends all programs that were started with it.
#[derive(Debug)]
pub struct Leash(watch::Sender<bool>);

impl Default for Leash {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Leash {
    /// Kills what runs, keeps the rest from starting, and returns when nothing runs any more.
    pub async fn pull(&self) {
        self.0.send_replace(true);
        self.0.closed().await;
    }

    /// Whether it was pulled.
    pub fn is_pulled(&self) -> bool {
        *self.0.borrow()
    }
}

/// A program that runs. Dropping it kills its group.
#[derive(Debug)]
pub struct Running {
    // Fields are dropped in this order: the group before its leader is reaped, the leash last.
    group: Group,
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: Arc<Mutex<Vec<u8>>>,
    /// Feeds its input and reads its errors.
    helpers: JoinSet<()>,
    deadline: Instant,
    bounds: Bounds,
    read: usize,
    over: Option<Ended>,
    leash: watch::Receiver<bool>,
}

impl Running {
    /// Starts a program, with `stdin` as its input.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(program: &Program, stdin: Vec<u8>, bounds: Bounds, leash: &Leash) -> io::Result<Self> {
        // Before the start, so that whoever pulls waits for it.
        let leash = leash.0.subscribe();
        if *leash.borrow() {
            return Err(io::Error::other("the collection was stopped"));
        }
        let mut child = spawn(program)?;
        let group = Group::new(child.id());
        let no_pipe = || io::Error::other("no pipe");
        let (input, output) = (child.stdin.take(), child.stdout.take().ok_or_else(no_pipe)?);
        let errors = child.stderr.take().ok_or_else(no_pipe)?;
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let mut helpers = JoinSet::new();
        let kept = Arc::clone(&stderr);
        helpers.spawn(read_all(errors, move |bytes| {
            keep_end(&mut kept.lock().unwrap_or_else(PoisonError::into_inner), bytes, MAX_STDERR);
        }));
        helpers.spawn(async move {
            if let Some(mut input) = input {
                // Who does not read what it is told may still answer.
                let _ = input.write_all(&stdin).await;
            }
        });
        Ok(Self {
            group,
            child,
            stdout: BufReader::new(output),
            stderr,
            helpers,
            deadline: Instant::now() + bounds.timeout,
            bounds,
            read: 0,
            over: None,
            leash,
        })
    }

    /// The next line of its output, without the line feed; `None` after the last, or when it was killed.
    pub async fn line(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        let limit = self.bounds.line_bytes.min(self.bounds.bytes.saturating_sub(self.read));
        let mut output = (&mut self.stdout).take(limit as u64 + 1);
        let reading = time::timeout_at(self.deadline, output.read_until(b'\n', &mut line));
        let read = until_pulled(&mut self.leash, reading).await;
        self.note(read, line.len(), limit)?;
        self.read += line.len();
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.is_empty() {
            return None;
        }
        Some(line)
    }

    /// All that is left of its output, up to what it may print.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let limit = self.bounds.bytes.saturating_sub(self.read);
        let mut output = (&mut self.stdout).take(limit as u64 + 1);
        let reading = time::timeout_at(self.deadline, output.read_to_end(&mut rest));
        let read = until_pulled(&mut self.leash, reading).await;
        self.note(read, rest.len(), limit);
        rest.truncate(limit);
        self.read += rest.len();
        rest
    }

    /// Notes why there is no more; `None` when there is not.
    fn note(
        &mut self,
        read: Option<Result<io::Result<usize>, time::error::Elapsed>>,
        length: usize,
        limit: usize,
    ) -> Option<()> {
        let ended = match read {
            _ if self.over.is_some() => return None,
            None => Ended::Stopped,
            Some(Err(_)) => Ended::Timeout,
            Some(Ok(Err(error))) => Ended::Failed(format!("cannot read what it says: {error}")),
            Some(Ok(Ok(_))) if length > limit => {
                let is_line = limit == self.bounds.line_bytes;
                Ended::TooLong(if is_line { limit } else { self.bounds.bytes })
            }
            Some(Ok(Ok(_))) => return Some(()),
        };
        self.over = Some(ended);
        self.kill();
        None
    }

    /// Waits for the end: how it ended, and the end of what it said on stderr.
    pub async fn end(mut self) -> (Ended, Vec<u8>) {
        let ended = match self.over.take() {
            Some(ended) => ended,
            None => self.exit().await,
        };
        match ended {
            // Its number may be another's by now.
            Ended::Exit(_) => self.group.is_over(),
            _ => self.kill(),
        }
        let _ = time::timeout(LAST_WORDS, async { while self.helpers.join_next().await.is_some() {} }).await;
        let said = self.stderr.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (ended, said)
    }

    fn kill(&mut self) {
        self.group = Group::new(None);
    }

    async fn exit(&mut self) -> Ended {
        let waiting = time::timeout_at(self.deadline, self.child.wait());
        match until_pulled(&mut self.leash, waiting).await {
            None => Ended::Stopped,
            Some(Err(_)) => Ended::Timeout,
            Some(Ok(Ok(status))) => Ended::Exit(status),
            Some(Ok(Err(error))) => Ended::Failed(format!("cannot wait for it: {error}")),
        }
    }
}

/// `None` when the leash is pulled first.
async fn until_pulled<T>(leash: &mut watch::Receiver<bool>, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        _ = leash.wait_for(|pulled| *pulled) => None,
        done = work => Some(done),
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that starts programs of this machine")]
fn spawn(program: &Program) -> io::Result<Child> {
    let mut command = Command::new(&program.path);
    command.args(&program.args);
    match &program.environment {
        Environment::Inherited(more) => command.envs(more.iter().map(|(name, value)| (name, value))),
        Environment::Only(all) => command.env_clear().envs(all.iter().map(|(name, value)| (name, value))),
    };
    if program.directory == Directory::Root {
        command.current_dir("/");
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    #[cfg(unix)]
    command.process_group(0);
    command.spawn()
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    const PLENTY: Bounds = Bounds { timeout: Duration::from_secs(60), bytes: 1 << 20, line_bytes: 100 };

    fn sh(script: &str) -> Program {
        Program {
            path: PathBuf::from("/bin/sh"),
            args: ["-c", script].map(OsString::from).into(),
            environment: Environment::Only(vec![("PATH".to_owned(), "/usr/bin:/bin".into())]),
            directory: Directory::Root,
        }
    }

    async fn run(script: &str, stdin: &[u8], bounds: Bounds) -> (Vec<String>, Ended, String) {
        let leash = Leash::default();
        let mut running = Running::start(&sh(script), stdin.to_vec(), bounds, &leash).unwrap();
        let mut lines = Vec::new();
        while let Some(line) = running.line().await {
            lines.push(String::from_utf8(line).unwrap());
        }
        let (ended, stderr) = running.end().await;
        (lines, ended, String::from_utf8_lossy(&stderr).into_owned())
    }

    fn is_alive(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z") && !stat.contains(") X")
    }

    /// The signal is sent, but the kernel may take a moment to act on it.
    #[track_caller]
    fn ends(pid: &str) {
        let patience = std::time::Instant::now() + Duration::from_secs(20);
        while is_alive(pid) {
            assert!(std::time::Instant::now() < patience, "{pid} is still there");
            std::thread::yield_now();
        }
    }

    #[tokio::test]
    async fn lines_come_one_by_one_with_the_last_that_is_not_ended() {
        let (lines, ended, stderr) =
            run("cat; pwd; echo x >&2; printf end; exit 3", b"a\n\nb\n", PLENTY).await;
        assert_eq!(lines, ["a", "", "b", "/", "end"]);
        assert!(matches!(ended, Ended::Exit(status) if status.code() == Some(3)), "{ended:?}");
        assert_eq!(stderr, "x\n");
    }

    #[tokio::test]
    async fn who_does_not_read_its_input_is_no_failure() {
        let (lines, ended, _) = run("exec <&-; echo done", &[b'x'; 1 << 20], PLENTY).await;
        assert_eq!(lines, ["done"]);
        assert!(matches!(ended, Ended::Exit(status) if status.success()), "{ended:?}");
    }

    #[tokio::test]
    async fn a_long_line_and_many_bytes_are_the_end() {
        let (lines, ended, _) = run("echo ok; yes | tr -d '\\n'", b"", PLENTY).await;
        assert_eq!(lines, ["ok"]);
        assert!(matches!(ended, Ended::TooLong(100)), "{ended:?}");
        let (lines, ended, _) = run("yes", b"", PLENTY).await;
        assert_eq!(lines.len(), (1 << 20) / 2);
        assert!(matches!(ended, Ended::TooLong(bytes) if bytes == 1 << 20), "{ended:?}");
        // Exactly as much as it may.
        let (lines, ended, _) = run("printf %0100d 7; echo; printf %0100d 7", b"", PLENTY).await;
        assert!(lines.is_empty() && matches!(ended, Ended::TooLong(100)), "{lines:?} {ended:?}");
        let (lines, ended, _) = run("printf %099d 7; echo; printf %0100d 7", b"", PLENTY).await;
        assert!(lines.len() == 2 && matches!(ended, Ended::Exit(_)), "{lines:?} {ended:?}");
    }

    #[tokio::test]
    async fn time_ends_with_all_that_was_started() {
        let bounds = Bounds { timeout: Duration::from_millis(1500), ..PLENTY };
        let (lines, ended, stderr) = run("sleep 600 & echo $!; echo busy >&2; wait", b"", bounds).await;
        assert!(matches!(ended, Ended::Timeout), "{ended:?}");
        assert_eq!(stderr, "busy\n");
        ends(&lines[0]);
        // One that says that it is done, and is not.
        let (lines, ended, _) = run("echo $$; exec >&-; sleep 600", b"", bounds).await;
        assert!(matches!(ended, Ended::Timeout), "{ended:?}");
        ends(&lines[0]);
    }

    #[tokio::test]
    async fn what_is_left_behind_is_not_waited_for() {
        let (lines, ended, _) = run("sleep 600 >&- & echo $!; exit 0", b"", PLENTY).await;
        assert!(matches!(ended, Ended::Exit(status) if status.success()), "{ended:?}");
        let pid = rustix::process::Pid::from_raw(lines[0].parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn a_pulled_leash_ends_what_runs_and_keeps_the_rest_from_starting() {
        let leash = Leash::default();
        let mut running =
            Running::start(&sh("sleep 600 & echo $!; wait"), Vec::new(), PLENTY, &leash).unwrap();
        let child = String::from_utf8(running.line().await.unwrap()).unwrap();
        let waiting = tokio::spawn(async move {
            assert!(running.line().await.is_none());
            running.end().await.0
        });
        leash.pull().await;
        assert!(matches!(waiting.await.unwrap(), Ended::Stopped));
        ends(&child);
        assert!(leash.is_pulled());
        assert!(Running::start(&sh("true"), Vec::new(), PLENTY, &leash).is_err());
        leash.pull().await;
    }

    #[tokio::test]
    async fn dropping_ends_it() {
        let mut running =
            Running::start(&sh("sleep 600 & echo $!; wait"), Vec::new(), PLENTY, &Leash::default()).unwrap();
        // A leash that is gone is one that was pulled.
        assert!(running.line().await.is_none());
        let leash = Leash::default();
        let mut running =
            Running::start(&sh("sleep 600 & echo $!; wait"), Vec::new(), PLENTY, &leash).unwrap();
        let child = String::from_utf8(running.line().await.unwrap()).unwrap();
        drop(running);
        ends(&child);
    }
}
