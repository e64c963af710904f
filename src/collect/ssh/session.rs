//! One run of `ssh`: the script goes in, the answer comes out, and nothing takes longer or more than it may.

use std::io;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{self, Instant};

use super::command::Client;
use super::push::Program;
use crate::collect::child::{Group, keep_end, read_all};
use crate::collect::remote::{Manifest, parse_head};
use crate::model::Destination;

/// Most bytes before the answers: greetings, the head.
const MOST_BEFORE: usize = 192 << 10;
/// What every host may send without waiting for room.
const FREE: usize = 1 << 20;
/// Most that is kept of the error output, in bytes; the end of it.
const MAX_STDERR: usize = 16 << 10;
/// Who holds room for a large answer must send so many bytes in each such window.
const WINDOW: Duration = Duration::from_secs(30);
const LEAST_IN_WINDOW: usize = 128 << 10;
/// How often what looks like the end of a head is tried to be read: a login may print such a line, too.
const HEAD_TRIES: u32 = 16;
/// How long `ssh` may take to end once all is said, and a host that is told to stop.
const ENDING: Duration = Duration::from_secs(5);
/// How long the last words of `ssh` are waited for: a connection that stays behind for jumps may hold the pipe.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What a run is to do, and within which bounds.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) client: &'a Client,
    pub(super) to: &'a Destination,
    pub(super) nonce: &'a str,
    pub(super) script: String,
    pub(super) program: Option<&'a Program>,
    /// Until the script says that it is there, and from then on.
    pub(super) login: Duration,
    pub(super) work: Duration,
    /// Largest packed answer, in bytes.
    pub(super) largest: u64,
    /// Kilobytes that all large answers may take together until they are handed on.
    pub(super) room: &'a Arc<Semaphore>,
    /// Becomes true when nobody waits any more.
    pub(super) stop: watch::Receiver<bool>,
}

/// What came of a run.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) stdout: Vec<u8>,
    /// The end of it.
    pub(super) stderr: Vec<u8>,
    /// Whether the script said that it is there.
    pub(super) is_there: bool,
    pub(super) end: End,
    /// Room for the answer; given back when this is dropped.
    pub(super) room: Option<OwnedSemaphorePermit>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// `ssh` ended with this status; none when a signal ended it, or when it did not end although all was said.
    Exit(Option<i32>),
    /// `ssh` did not start.
    NotStarted(String),
    /// The time was used up.
    Late,
    /// The host announced a large answer, and sends it too slowly while others wait for its room.
    Stalled,
    /// The host announces so many bytes, more than it may send.
    TooLarge(u64),
    /// The host sends what it did not announce.
    Flood,
    /// Nobody waits any more.
    Stopped,
}

/// What is said to the script after it was sent.
enum Order {
    Send(std::path::PathBuf),
    Refuse(String),
}

impl Run<'_> {
    /// Runs `ssh` once. When this is dropped, `ssh` and what it started are killed.
    pub(super) async fn start(self) -> Heard {
        let mut heard =
            Heard { stdout: Vec::new(), stderr: Vec::new(), is_there: false, end: End::Late, room: None };
        let mut child = match self.spawn() {
            Ok(child) => child,
            Err(error) => {
                let program = self.client.program.display();
                heard.end = End::NotStarted(format!("cannot start `{program}`: {error}"));
                return heard;
            }
        };
        let mut group = Group::new(child.id());
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            heard.end = End::NotStarted("ssh has no input or output".to_owned());
            return heard;
        };
        let words = Words::default();
        let (orders, taken) = mpsc::channel(1);
        // Ended when this function is.
        let mut helpers = JoinSet::new();
        helpers.spawn(feed(stdin, self.script.clone(), taken));
        helpers.spawn(words.clone().listen(stderr));
        let mut listener = Listener::new(self, heard, orders);
        let early = listener.listen(stdout).await;
        let Listener { mut heard, orders, .. } = listener;
        // Closing stdin tells the script to end, if it has not.
        drop(orders);
        if early == Some(End::Stopped) {
            helpers.abort_all();
        }
        heard.end = end(&mut child, &mut group, early).await;
        let _ = time::timeout(LAST_WORDS, async { while helpers.join_next().await.is_some() {} }).await;
        heard.stderr = words.take();
        heard
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that starts ssh")]
    fn spawn(&self) -> io::Result<Child> {
        let mut command = Command::new(&self.client.program);
        command.args(self.client.arguments(self.to));
        // A jump host is reached by another ssh, which does not know that nobody is there to answer its questions.
        command.env("SSH_ASKPASS", "false").env("SSH_ASKPASS_REQUIRE", "force");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        #[cfg(unix)]
        command.process_group(0);
        command.spawn()
    }
}

/// Waits for the end of `ssh`; kills it where that takes long.
async fn end(child: &mut Child, group: &mut Group, early: Option<End>) -> End {
    let must_end = matches!(early, None | Some(End::Stopped));
    let waited = if must_end { time::timeout(ENDING, child.wait()).await.ok() } else { None };
    match (early, waited) {
        (early, Some(Ok(status))) => {
            group.is_over();
            early.unwrap_or(End::Exit(status.code()))
        }
        (early, _) => {
            let _ = child.start_kill();
            early.unwrap_or(End::Exit(None))
        }
    }
}

/// Sends the script, and what it asks for; holds stdin open until there is nobody to give orders.
async fn feed(mut stdin: ChildStdin, script: String, mut orders: mpsc::Receiver<Order>) {
    // Who does not take it has ended, which is seen elsewhere.
    let mut sent = stdin.write_all(script.as_bytes()).await;
    while let Some(order) = orders.recv().await {
        if sent.is_err() {
            return;
        }
        sent = match order {
            Order::Send(path) => send(&mut stdin, &path).await,
            Order::Refuse(why) => stdin.write_all(format!("{why}\n").as_bytes()).await,
        };
    }
}

async fn send(stdin: &mut ChildStdin, path: &std::path::Path) -> io::Result<()> {
    let mut file = tokio::fs::File::open(path).await?;
    stdin.write_all(b"send\n").await?;
    tokio::io::copy(&mut file, stdin).await?;
    stdin.flush().await
}

/// The end of the error output, also while somebody still holds it open.
#[derive(Debug, Clone, Default)]
struct Words(Arc<Mutex<Vec<u8>>>);

impl Words {
    async fn listen(self, stderr: ChildStderr) {
        read_all(stderr, |bytes| {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            keep_end(&mut kept, bytes, MAX_STDERR);
        })
        .await;
    }

    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reads what the script says.
struct Listener<'a> {
    run: Run<'a>,
    heard: Heard,
    /// What the head says, and how long all may be.
    head: Option<(Manifest, usize)>,
    /// Dropped to close stdin.
    orders: Option<mpsc::Sender<Order>>,
    /// Whether the script has asked for the program.
    has_asked: bool,
    /// Where the line that is not whole yet begins, and how far its end has been looked for: no byte is read twice,
    /// however small the pieces are that a host sends.
    line: usize,
    looked: usize,
    /// How often the head may still be tried.
    tries: u32,
}

impl<'a> Listener<'a> {
    fn new(run: Run<'a>, heard: Heard, orders: mpsc::Sender<Order>) -> Self {
        Self {
            run,
            heard,
            head: None,
            orders: Some(orders),
            has_asked: false,
            line: 0,
            looked: 0,
            tries: HEAD_TRIES,
        }
    }

    /// Reads until the end of the answer or of the output; else says why no further.
    async fn listen(&mut self, mut stdout: ChildStdout) -> Option<End> {
        let mut deadline = Instant::now() + self.run.login;
        // The end of a window, and what was there at its beginning.
        let mut pace: Option<(Instant, usize)> = None;
        let mut stop = self.run.stop.clone();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let was_there = self.heard.is_there;
            let step = async {
                let read = stdout.read(&mut buffer).await.unwrap_or(0);
                self.take(&buffer[..read]).await
            };
            let until = pace.map_or(deadline, |(until, _)| deadline.min(until));
            let ended = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => Some(Some(End::Stopped)),
                ended = step => ended,
                () = time::sleep_until(until) => match pace {
                    _ if Instant::now() >= deadline => Some(Some(End::Late)),
                    Some((_, before)) if self.heard.stdout.len() < before + LEAST_IN_WINDOW => {
                        Some(Some(End::Stalled))
                    }
                    _ => {
                        pace = None;
                        None
                    }
                },
            };
            if let Some(how) = ended {
                return how;
            }
            // Who holds room that others wait for must use it.
            if self.heard.room.is_some() && pace.is_none() {
                pace = Some((Instant::now() + WINDOW, self.heard.stdout.len()));
            }
            if !was_there && self.heard.is_there {
                deadline = Instant::now() + self.run.work;
            }
        }
    }

    /// Takes what was read; `Some` when nothing more is to be read, with the reason where it is not the end.
    async fn take(&mut self, bytes: &[u8]) -> Option<Option<End>> {
        if bytes.is_empty() {
            return Some(None);
        }
        self.heard.stdout.extend_from_slice(bytes);
        if self.head.is_none() {
            let may_have_head = self.look_for_signs();
            if may_have_head && let Some(end) = self.look_for_head().await {
                return Some(Some(end));
            }
        }
        let said = &self.heard.stdout;
        let most = self.head.as_ref().map_or(MOST_BEFORE, |(_, most)| *most);
        if said.len() > most {
            return Some(Some(End::Flood));
        }
        let is_whole = self.head.is_some() && ends_with_mark(said, self.run.nonce);
        is_whole.then_some(None)
    }

    /// Reads the new lines; whether one of them may end the head.
    fn look_for_signs(&mut self) -> bool {
        let (here, push) =
            (format!("DIFFY1-HERE {}", self.run.nonce), format!("DIFFY1-PUSH {} ", self.run.nonce));
        let end = format!("DIFFY1-END {}", self.run.nonce);
        let said = &self.heard.stdout;
        let (mut ends_head, mut asked) = (false, None);
        while let Some(length) = said[self.looked..].iter().position(|byte| *byte == b'\n') {
            let line = &said[self.line..self.looked + length];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            self.heard.is_there |= line == here.as_bytes();
            ends_head |= line == b"data" || line == end.as_bytes();
            asked = asked.or(line.strip_prefix(push.as_bytes()));
            self.looked += length + 1;
            self.line = self.looked;
        }
        self.looked = said.len();
        if let (Some(asked), false) = (asked, self.has_asked) {
            self.has_asked = true;
            let order = order(self.run.program, asked);
            // There is room: it is the first and the only one.
            let _ = self.orders.as_ref().map(|orders| orders.try_send(order));
        }
        let may_try = ends_head && self.tries > 0;
        self.tries -= u32::from(may_try);
        may_try
    }

    /// Reads the head as soon as it is there, and waits for room for what it announces.
    async fn look_for_head(&mut self) -> Option<End> {
        let head = parse_head(&self.heard.stdout, self.run.nonce).ok()?;
        if head.gz > self.run.largest {
            return Some(End::TooLarge(head.gz));
        }
        // Base64 with line ends.
        let most = MOST_BEFORE + usize::try_from(head.gz).unwrap_or(usize::MAX / 4) / 2 * 3;
        if most > FREE {
            let wanted = u32::try_from(most >> 10).unwrap_or(u32::MAX).min(super::ROOM_KIB);
            self.heard.room = Arc::clone(self.run.room).acquire_many_owned(wanted).await.ok();
        }
        self.head = Some((head, most));
        None
    }
}

/// What a host that asks for the program gets: `Linux x86_64` is what it says of itself.
fn order(program: Option<&Program>, asked: &[u8]) -> Order {
    let asked = String::from_utf8_lossy(&asked[..asked.len().min(80)]);
    let plain =
        |text: &str| text.chars().filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c)).collect();
    let (system, machine): (String, String) = asked
        .split_once(' ')
        .map_or_else(Default::default, |(system, machine)| (plain(system), plain(machine)));
    match program {
        None => Order::Refuse("there is no program".to_owned()),
        Some(program) => match program.misfit(&system, &machine) {
            Some(why) => Order::Refuse(why),
            None => Order::Send(program.path.clone()),
        },
    }
}

fn ends_with_mark(said: &[u8], nonce: &str) -> bool {
    let end = format!("DIFFY1-END {nonce}");
    let said = said.strip_suffix(b"\n").unwrap_or_default();
    said.strip_suffix(b"\r").unwrap_or(said).ends_with(end.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "0123456789abcdef0123456789abcdef";

    /// Feeds what a host says, so many bytes at a time.
    async fn hear(said: &[u8], piece: usize) -> (Heard, Option<Option<End>>, Option<Order>) {
        let client = Client {
            program: "ssh".into(),
            config: None,
            host_keys: crate::collect::ssh::HostKeys::Known,
            connect: Duration::from_secs(1),
            sudo: false,
        };
        let (to, room) = ("web".parse().unwrap(), Arc::new(Semaphore::new(1 << 20)));
        let run = Run {
            client: &client,
            to: &to,
            nonce: NONCE,
            script: String::new(),
            program: None,
            login: Duration::from_secs(1),
            work: Duration::from_secs(1),
            largest: 1_000,
            room: &room,
            stop: watch::channel(false).1,
        };
        let heard =
            Heard { stdout: Vec::new(), stderr: Vec::new(), is_there: false, end: End::Late, room: None };
        let (orders, mut taken) = mpsc::channel(1);
        let mut listener = Listener::new(run, heard, orders);
        let mut ended = None;
        for piece in said.chunks(piece) {
            ended = listener.take(piece).await;
            if ended.is_some() {
                break;
            }
        }
        (listener.heard, ended, taken.try_recv().ok())
    }

    fn reply(gz: u64) -> String {
        format!(
            "Welcome\ndata\nDIFFY1-HERE {NONCE}\nDIFFY1 {NONCE}\nhost web\nuid 0\nclock 1\nagent osquery 5\n\
             answers 0\nraw 0\ngz {gz}\nsha256 {}\nvia stdout\ndata\nAAAA\nDIFFY1-END {NONCE}\n",
            "0".repeat(64)
        )
    }

    #[tokio::test]
    async fn an_answer_ends_with_its_mark_however_it_is_cut() {
        for piece in [1, 7, 100_000] {
            let said = reply(3);
            let (heard, ended, _) = hear(said.as_bytes(), piece).await;
            assert_eq!((ended, heard.is_there, heard.stdout.len()), (Some(None), true, said.len()));
            let (_, ended, _) = hear(&said.as_bytes()[..said.len() - 1], piece).await;
            assert_eq!(ended, None);
            let (_, ended, _) = hear(reply(1_001).as_bytes(), piece).await;
            assert_eq!(ended, Some(Some(End::TooLarge(1_001))));
        }
    }

    #[tokio::test]
    async fn what_was_not_announced_is_a_flood() {
        let noise = vec![b'x'; MOST_BEFORE + 1];
        let (heard, ended, _) = hear(&noise, 5_000).await;
        assert_eq!((ended, heard.is_there), (Some(Some(End::Flood)), false));
        let long = reply(3).replace("AAAA\n", &"AAAA\n".repeat(100_000));
        let (heard, ended, _) = hear(long.as_bytes(), 5_000).await;
        assert_eq!((ended, heard.is_there), (Some(Some(End::Flood)), true));
        assert!(heard.stdout.len() < MOST_BEFORE + 10_000);
    }

    #[tokio::test]
    async fn a_program_is_asked_for_once_and_under_our_number() {
        let said = format!("DIFFY1-PUSH {} Linux x86_64\n", NONCE.replace('0', "1"));
        assert!(hear(said.as_bytes(), 5).await.2.is_none());
        let said = format!("DIFFY1-PUSH {NONCE} Linux x86_64\r\n").repeat(2);
        let Some(Order::Refuse(why)) = hear(said.as_bytes(), 5).await.2 else { panic!("no order") };
        assert_eq!(why, "there is no program");
    }
}
