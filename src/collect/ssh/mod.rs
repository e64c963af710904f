//! Asks hosts through the user's own OpenSSH client.
//!
//! Each host is one run of `ssh`: the script goes in through stdin, the head and the packed answers come out. The user's
//! configuration, agent and jump hosts work as they do by hand; host keys must be known. A host is who was asked, not
//! who it says it is, and what it sends counts only under the nonce of its own run.

mod command;
mod names;
mod push;
mod refusal;
mod session;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc::Sender;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, watch};

pub use self::command::{Client, HostKeys};
use self::names::Names;
pub use self::push::Program;
use self::refusal::{explain, is_turned_away, no_data};
use self::session::{Heard, Run};
use super::remote::{
    Bootstrap, BootstrapKind, HostLimits, Job, Manifest, OutputMode, Packed, Remarks, Window, hand_over,
    nonce, odd_clock, parse_reply, refuse, ssh_script,
};
use super::{Answer, Collector, until_closed};
use crate::catalog::TableSpec;
use crate::error::{Error, Result};
use crate::model::{Destination, Status, now};

/// Hosts that are asked at once when nobody says.
const CONCURRENCY: usize = 100;
/// Answers that are unpacked and handed on at once: what they unpack to is what takes memory.
const UNPACKING: usize = 3;
/// Kilobytes that large answers may take together while they come in.
const ROOM_KIB: u32 = 256 << 10;
/// How much longer than the connection the login and the first line of the script may take.
const LOGIN: Duration = Duration::from_secs(50);
/// How much longer than its queries a script may take: for looking around, packing and sending.
const MARGIN: Duration = Duration::from_secs(180);
/// How much longer where a program may have to be sent first.
const PUSHING: Duration = Duration::from_secs(900);
/// Pauses before a host that turned us away is called again, with up to as much again by chance.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(6)];
/// More sessions than there can be.
const ALL_SESSIONS: u32 = 1 << 20;

/// How hosts are asked.
#[derive(Debug, Clone)]
pub struct SshConfig {
    /// How `ssh` is called.
    pub client: Client,
    /// What the script may take on a host.
    pub limits: HostLimits,
    /// Largest packed answer of a host, in bytes.
    pub largest: u64,
    /// What is brought to hosts without osquery.
    pub program: Option<Program>,
    /// Where hosts are, by the names that they are asked under; who is not there is reached under its name.
    pub hosts: HashMap<String, Destination>,
}

impl SshConfig {
    /// Whether hosts could be asked for `tables` with these settings at all.
    ///
    /// # Errors
    /// `Usage`: a limit cannot be, or there are too many tables.
    pub fn check(&self, tables: &[TableSpec]) -> Result<()> {
        self.script(&nonce(), tables).map(|_| ())
    }

    fn script(&self, nonce: &str, tables: &[TableSpec]) -> Result<String> {
        let bootstrap = self.program.as_ref().map(|program| Bootstrap {
            url: String::new(),
            sha256: program.sha256.clone(),
            kind: BootstrapKind::Native,
        });
        let job = Job {
            nonce,
            tables,
            output: OutputMode::Stdout,
            url: None,
            limits: &self.limits,
            bootstrap: bootstrap.as_ref(),
        };
        ssh_script(&job, self.program.as_ref().map_or(0, |program| program.bytes))
    }

    /// Until the script says that it is there, and from then until it must have ended.
    fn deadlines(&self) -> (Duration, Duration) {
        let asking = Duration::from_secs(self.limits.host_seconds.saturating_add(self.limits.query_seconds));
        let pushing = if self.program.is_some() { PUSHING } else { Duration::ZERO };
        (self.client.connect + LOGIN, asking + MARGIN + pushing)
    }
}

/// The collector `ssh`.
pub struct SshCollector {
    config: SshConfig,
    unpacking: Semaphore,
    room: Arc<Semaphore>,
    /// One permit for each session.
    sessions: Semaphore,
    stop: watch::Sender<bool>,
    remarks: Mutex<Remarks>,
    names: Mutex<Names>,
}

impl fmt::Debug for SshCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SshCollector").field("client", &self.config.client).finish_non_exhaustive()
    }
}

/// Why there is no packed answer.
type Refusal = (Status, String);

impl SshCollector {
    /// A collector of these hosts.
    pub fn new(config: SshConfig) -> Self {
        Self {
            names: Mutex::new(Names::new(config.hosts.keys())),
            config,
            unpacking: Semaphore::new(UNPACKING),
            room: Arc::new(Semaphore::new(ROOM_KIB as usize)),
            sessions: Semaphore::new(ALL_SESSIONS as usize),
            stop: watch::Sender::new(false),
            remarks: Mutex::new(Remarks::default()),
        }
    }

    async fn host(&self, host: &str, tables: &[TableSpec], out: &Sender<Answer>) {
        match self.answer(host, tables).await {
            Ok((packed, room)) => {
                // Nothing closes this semaphore.
                let _slot = self.unpacking.acquire().await;
                hand_over(host, tables, out, packed).await;
                drop(room);
            }
            // Nobody waits any more; who was not asked is known elsewhere.
            Err(_) if *self.stop.borrow() => {}
            Err((status, why)) => refuse(tables, out, (status, &why)).await,
        }
    }

    /// The packed answer of a host, and the room that it takes.
    async fn answer(
        &self,
        host: &str,
        tables: &[TableSpec],
    ) -> Result<(Packed, Option<OwnedSemaphorePermit>), Refusal> {
        let to = match self.config.hosts.get(host) {
            Some(to) => to.clone(),
            None => host.parse().map_err(|error: Error| (Status::Undeliverable, error.to_string()))?,
        };
        let nonce = nonce();
        let script =
            self.config.script(&nonce, tables).map_err(|error| (Status::Error, error.to_string()))?;
        let sent = now();
        let mut heard = self.hear(&to, (&nonce, &script)).await;
        let room = heard.room.take();
        // A digest of tens of megabytes is work.
        let reply = tokio::task::block_in_place(|| parse_reply(&heard.stdout, &nonce));
        let (login, work) = self.config.deadlines();
        let reply =
            reply.map_err(|error| explain(&heard, &error.to_string(), (login.as_secs(), work.as_secs())))?;
        let window = Window { sent, received: now() };
        let Some(gz) = reply.data else {
            return Err(no_data(&reply.manifest, self.config.program.is_some()));
        };
        self.remark((host, &to), (&reply.manifest, window)).await;
        Ok((Packed { manifest: reply.manifest, gz, window, but: None }, room))
    }

    /// Runs `ssh`, again only where the host, or a jump host, had too many callers to listen.
    async fn hear(&self, to: &Destination, (nonce, script): (&str, &str)) -> Heard {
        for pause in PAUSES {
            let heard = self.session(to, (nonce, script)).await;
            if !is_turned_away(&heard)
                || self.is_stopped_within(pause.mul_f64(rand::random_range(1.0..2.0))).await
            {
                return heard;
            }
        }
        self.session(to, (nonce, script)).await
    }

    async fn is_stopped_within(&self, time: Duration) -> bool {
        let mut stop = self.stop.subscribe();
        tokio::time::timeout(time, stop.wait_for(|stop| *stop)).await.is_ok()
    }

    async fn session(&self, to: &Destination, (nonce, script): (&str, &str)) -> Heard {
        let _counted = self.sessions.acquire().await;
        let (login, work) = self.config.deadlines();
        let run = Run {
            client: &self.config.client,
            to,
            nonce,
            script: script.to_owned(),
            program: self.config.program.as_ref(),
            login,
            work,
            largest: self.config.largest,
            room: &self.room,
            stop: self.stop.subscribe(),
        };
        run.start().await
    }

    async fn remark(&self, (host, to): (&str, &Destination), (manifest, window): (&Manifest, Window)) {
        self.names.lock().await.note(host, to, &manifest.host);
        self.remarks.lock().await.hear(host, odd_clock(host, manifest, window), &manifest.notes);
    }
}

#[async_trait]
impl Collector for SshCollector {
    fn name(&self) -> &'static str {
        "ssh"
    }

    fn concurrency(&self) -> usize {
        CONCURRENCY
    }

    async fn collect(&self, host: &str, tables: &[TableSpec], answers: Sender<Answer>) {
        if !*self.stop.borrow() {
            until_closed(&answers, self.host(host, tables, &answers)).await;
        }
    }

    async fn remarks(&self) -> Vec<String> {
        let nobody = Names::new(std::iter::empty());
        let mut sentences = std::mem::replace(&mut *self.names.lock().await, nobody).into_sentences();
        sentences.extend(std::mem::take(&mut *self.remarks.lock().await).into_sentences());
        sentences
    }

    /// Closes the scripts' stdin, which ends them, and waits until no `ssh` is left.
    async fn stop(&self) {
        self.stop.send_replace(true);
        let _all = self.sessions.acquire_many(ALL_SESSIONS).await;
    }
}
