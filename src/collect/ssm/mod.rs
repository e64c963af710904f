//! Asks instances through Systems Manager Run Command.
//!
//! Each host runs one script that asks its agent for all tables and packs the answers. Small answers come back in the
//! command's output; larger ones are put into S3, by an address that only this host has. Who the host is, and the size
//! and digest of its answer, come through Systems Manager and are not for other hosts to choose.

mod courier;
mod gate;
mod pace;
mod place;
mod sends;
mod status;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc::Sender;
use tokio::sync::{Mutex, OnceCell, OwnedSemaphorePermit, Semaphore};

use self::courier::{Courier, Invocation, Order, Terms};
pub use self::place::Place;
use self::status::State;
use super::remote::{
    Bootstrap, DOCUMENT_STEP, HostLimits, Job, Manifest, OutputMode, Packed, Remarks, Reply, Via, Window,
    check, hand_over, nonce, oddities, parameters, parse_head, parse_reply, refuse, said, script,
};
use super::{Answer, Collector, until_closed};
use crate::aws::Aws;
use crate::catalog::TableSpec;
use crate::error::{Error, Result};
use crate::model::{Status, now};

/// The document that AWS has in every account.
pub const RUN_SHELL_SCRIPT: &str = "AWS-RunShellScript";
/// Asking for so many tables at most is tried without S3 first: then 50 hosts share one command.
const FEW_TABLES: usize = 3;
/// Hosts that are waited for at once.
const CONCURRENCY: usize = 500;
/// Answers that are downloaded, unpacked and handed on at once: what they unpack to is what takes memory.
const UNPACKING: usize = 3;
/// How long an order may wait for its turn, with an address that is signed already.
const QUEUE: Duration = Duration::from_secs(15 * 60);
/// The step of [`RUN_SHELL_SCRIPT`], as it stands in the keys of its output in S3.
const RUN_SHELL_STEP: &str = "0.awsrunShellScript";
/// How much longer than the agent lets the script run its command may take to be over.
const MARGIN: Duration = Duration::from_secs(60);
/// The shortest time limit of a delivery that AWS takes.
const SHORTEST_DELIVERY: Duration = Duration::from_secs(30);

/// How hosts hand over what does not fit into the output of a command.
#[derive(Debug, Clone)]
pub enum Large {
    /// Not at all.
    Nowhere,
    /// By an address of its own for each host.
    Upload(Place),
    /// Systems Manager writes the output into S3, with the rights of the instance.
    SsmS3(Place),
}

/// How Systems Manager is used.
#[derive(Debug, Clone)]
pub struct SsmConfig {
    /// The account and region of the hosts.
    pub aws: Aws,
    /// The document; [`RUN_SHELL_SCRIPT`], or one with the parameters of `docs/aws/diffy-collect.json`.
    pub document: String,
    /// Where large answers go.
    pub large: Large,
    /// What the script may take on a host.
    pub limits: HostLimits,
    /// Largest packed answer of a host, in bytes.
    pub largest: u64,
    /// How long AWS tries to deliver a command; at least 30 s.
    pub delivery: Duration,
    /// Commands that are sent a second.
    pub commands_per_second: f64,
    /// First pause between two looks at what is under way.
    pub poll: Duration,
    /// What hosts without osquery fetch and run.
    pub bootstrap: Option<Bootstrap>,
    /// The collection, for comments and keys: letters, digits, dashes.
    pub run: String,
}

impl SsmConfig {
    /// How long an address in S3 must be good for: from when it is signed to when the last try to use it ends.
    pub fn address_lives(&self) -> Duration {
        self.delivery.max(SHORTEST_DELIVERY) + Duration::from_secs(self.limits.execution_seconds()) + QUEUE
    }

    /// Whether hosts could be asked for `tables` with these settings at all.
    ///
    /// # Errors
    /// `Usage`: a limit, an address or a digest cannot be, or there are too many tables.
    pub fn check(&self, tables: &[TableSpec]) -> Result<()> {
        let job = Job {
            nonce: &nonce(),
            tables,
            output: OutputMode::Inline,
            url: None,
            limits: &self.limits,
            bootstrap: self.bootstrap.as_ref(),
        };
        script(&job).map(|_| ())
    }
}

/// The collector `ssm`.
pub struct SsmCollector {
    config: SsmConfig,
    courier: Courier,
    nonce: String,
    shared: OnceCell<Arc<Order>>,
    unpacking: Arc<Semaphore>,
    remarks: Mutex<Remarks>,
}

impl fmt::Debug for SsmCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SsmCollector").field("document", &self.config.document).finish_non_exhaustive()
    }
}

/// A packed answer that is what the host announced.
struct Received {
    manifest: Manifest,
    gz: Vec<u8>,
    window: Window,
    /// What else is to be said, although the answer is there.
    but: Option<(Status, String)>,
    /// Kept until the answers are handed on.
    slot: Option<OwnedSemaphorePermit>,
}

/// Why there is no packed answer.
type Refusal = (Status, String);

impl SsmCollector {
    /// Starts talking to Systems Manager; to be called within a tokio runtime.
    pub fn new(config: SsmConfig) -> Self {
        let terms = Terms {
            document: config.document.clone(),
            comment: format!("diffy {}", config.run),
            delivery: config.delivery.max(SHORTEST_DELIVERY),
            execution: Duration::from_secs(config.limits.execution_seconds()) + MARGIN,
            commands_per_second: config.commands_per_second,
            poll: config.poll,
        };
        Self {
            courier: Courier::new(&config.aws, terms),
            config,
            nonce: nonce(),
            shared: OnceCell::new(),
            unpacking: Arc::new(Semaphore::new(UNPACKING)),
            remarks: Mutex::new(Remarks::default()),
        }
    }

    async fn host(&self, host: &str, tables: &[TableSpec], out: &Sender<Answer>) {
        match self.receive(host, tables).await {
            Ok(received) => self.hand_over(host, tables, out, received).await,
            Err((status, why)) => refuse(tables, out, (status, &why)).await,
        }
    }

    /// Asks the host, once more where the first way turned out too narrow.
    async fn receive(&self, host: &str, tables: &[TableSpec]) -> Result<Received, Refusal> {
        match &self.config.large {
            Large::Upload(place) if tables.len() <= FEW_TABLES => {
                let (invocation, reply) = self.ask_shared(host, tables).await?;
                if reply.data.is_some() || !is_too_large(&reply.manifest) {
                    return received(invocation, reply);
                }
                self.ask_for_upload(host, tables, place).await
            }
            Large::Upload(place) => self.ask_for_upload(host, tables, place).await,
            Large::SsmS3(place) => self.ask_for_ssm_output(host, tables, place).await,
            Large::Nowhere => {
                let (invocation, reply) = self.ask_shared(host, tables).await?;
                received(invocation, reply)
            }
        }
    }

    async fn ask_shared(&self, host: &str, tables: &[TableSpec]) -> Result<(Invocation, Reply), Refusal> {
        let order = self.shared(tables).await?;
        let invocation = self.courier.ask(host, order).await?;
        let reply = reply_of(&invocation, &self.nonce)?;
        Ok((invocation, reply))
    }

    async fn shared(&self, tables: &[TableSpec]) -> Result<Arc<Order>, Refusal> {
        let order = self.shared.get_or_try_init(|| async {
            let output =
                if let Large::SsmS3(_) = self.config.large { OutputMode::Stdout } else { OutputMode::Inline };
            self.order(tables, (&self.nonce, output), None).map(Arc::new)
        });
        order.await.cloned().map_err(failed)
    }

    fn order(
        &self,
        tables: &[TableSpec],
        (nonce, output): (&str, OutputMode),
        url: Option<&str>,
    ) -> Result<Order> {
        let config = &self.config;
        let bootstrap = config.bootstrap.as_ref();
        let job = Job { nonce, tables, output, url, limits: &config.limits, bootstrap };
        let parameters: Vec<(String, String)> = if config.document == RUN_SHELL_SCRIPT {
            vec![
                ("commands".to_owned(), script(&job)?),
                ("executionTimeout".to_owned(), config.limits.execution_seconds().to_string()),
            ]
        } else {
            parameters(&job)?.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
        };
        let output_s3 = match (&config.large, output) {
            (Large::SsmS3(place), OutputMode::Stdout) => Some(place.for_ssm()),
            _ => None,
        };
        Ok(Order { parameters, output_s3 })
    }

    /// A key is written once. Where somebody else was faster with it (AWS may deliver twice), or S3 was not well, another
    /// one is tried.
    async fn ask_for_upload(
        &self,
        host: &str,
        tables: &[TableSpec],
        place: &Place,
    ) -> Result<Received, Refusal> {
        let mut outcome = self.upload(host, tables, place).await?;
        if outcome.as_ref().is_err_and(|manifest| is_taken(manifest) || is_passing(manifest)) {
            outcome = self.upload(host, tables, place).await?;
        }
        outcome.map_err(|manifest| no_data(&manifest))
    }

    async fn upload(
        &self,
        host: &str,
        tables: &[TableSpec],
        place: &Place,
    ) -> Result<Result<Received, Manifest>, Refusal> {
        let nonce = nonce();
        let (key, url) =
            place.address(&self.config.run, host, self.config.address_lives()).await.map_err(failed)?;
        let order = self.order(tables, (&nonce, OutputMode::Upload), Some(&url)).map_err(failed)?;
        let invocation = self.courier.ask(host, Arc::new(order)).await?;
        let reply = reply_of(&invocation, &nonce)?;
        if reply.data.is_some() {
            return received(invocation, reply).map(Ok);
        }
        if reply.manifest.via != Via::Upload && !is_taken(&reply.manifest) {
            return Ok(Err(reply.manifest));
        }
        match self.fetch(place, &key, &reply.manifest).await {
            Ok((gz, slot)) => {
                let received = received(invocation, Reply { data: Some(gz), ..reply })?;
                Ok(Ok(Received { slot: Some(slot), ..received }))
            }
            // The first of two runs was faster; else the first of two tries of the same upload had come through.
            Err(_) if is_taken(&reply.manifest) => Ok(Err(reply.manifest)),
            Err(refusal) => Err(refusal),
        }
    }

    async fn slot(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.unpacking).acquire_owned().await.map_err(|_| internal("the collector has ended"))
    }

    async fn fetch(
        &self,
        place: &Place,
        key: &str,
        manifest: &Manifest,
    ) -> Result<(Vec<u8>, OwnedSemaphorePermit), Refusal> {
        self.bound(manifest)?;
        let slot = self.slot().await?;
        let gz = place.fetch(key, manifest.gz).await.map_err(failed)?;
        // A digest of tens of megabytes is work.
        tokio::task::block_in_place(|| check(manifest, &gz)).map_err(failed)?;
        Ok((gz, slot))
    }

    async fn ask_for_ssm_output(
        &self,
        host: &str,
        tables: &[TableSpec],
        place: &Place,
    ) -> Result<Received, Refusal> {
        let order = self.shared(tables).await?;
        let invocation = self.courier.ask(host, order).await?;
        if let Ok(reply) = parse_reply(invocation.stdout.as_bytes(), &self.nonce) {
            return received(invocation, reply);
        }
        let head = parse_head(invocation.stdout.as_bytes(), &self.nonce);
        let head = head.map_err(|error| broken(&invocation, &error.to_string()))?;
        self.bound(&head)?;
        let slot = self.slot().await?;
        // Base64 with line ends, and the head.
        let most = head.gz.saturating_mul(3) / 2 + 65_536;
        let step = if self.config.document == RUN_SHELL_SCRIPT { RUN_SHELL_STEP } else { DOCUMENT_STEP };
        let output = place.ssm_output(&format!("{}/{host}", invocation.command), step, most).await;
        let output = output.map_err(failed)?.ok_or_else(|| {
            let why = "Systems Manager wrote no output of this host into S3, and says nothing of it: may its role write there?";
            (Status::Error, why.to_owned())
        })?;
        let reply = tokio::task::block_in_place(|| parse_reply(&output, &self.nonce));
        let reply = reply.map_err(|error| broken(&invocation, &error.to_string()))?;
        // Every instance with this role can write there; what came through Systems Manager is the host's own.
        if reply.manifest.sha256 != head.sha256 {
            return Err((
                Status::Error,
                "the output in S3 is not the one that the host announced".to_owned(),
            ));
        }
        let received = received(invocation, Reply { manifest: head, ..reply })?;
        Ok(Received { slot: Some(slot), ..received })
    }

    fn bound(&self, manifest: &Manifest) -> Result<(), Refusal> {
        if manifest.gz <= self.config.largest {
            return Ok(());
        }
        let why = format!(
            "the host announces {} bytes, more than the limit of {}",
            manifest.gz, self.config.largest
        );
        Err((Status::Truncated, why))
    }

    async fn hand_over(&self, host: &str, tables: &[TableSpec], out: &Sender<Answer>, received: Received) {
        let Received { manifest, gz, window, but, slot } = received;
        self.remark(host, &manifest, window).await;
        // Dropped at the end of this function.
        let _slot = match slot {
            Some(slot) => Ok(slot),
            None => self.slot().await,
        };
        hand_over(host, tables, out, Packed { manifest, gz, window, but }).await;
    }

    async fn remark(&self, host: &str, manifest: &Manifest, window: Window) {
        self.remarks.lock().await.hear(host, oddities(host, manifest, window), &manifest.notes);
    }
}

#[async_trait]
impl Collector for SsmCollector {
    fn name(&self) -> &'static str {
        "ssm"
    }

    fn concurrency(&self) -> usize {
        CONCURRENCY
    }

    async fn collect(&self, host: &str, tables: &[TableSpec], answers: Sender<Answer>) {
        until_closed(&answers, Box::pin(self.host(host, tables, &answers))).await;
    }

    async fn remarks(&self) -> Vec<String> {
        std::mem::take(&mut *self.remarks.lock().await).into_sentences()
    }

    async fn stop(&self) {
        self.courier.stop().await;
    }
}

fn internal(why: &str) -> Refusal {
    (Status::Error, format!("a defect of Diffy: {why}"))
}

fn is_too_large(manifest: &Manifest) -> bool {
    manifest.via == Via::None && manifest.notes.iter().any(|note| note.contains("too big for inline"))
}

fn is_taken(manifest: &Manifest) -> bool {
    manifest.upload.as_deref().is_some_and(|said| said.starts_with("412"))
}

/// S3 failed or was busy for all tries of the script.
fn is_passing(manifest: &Manifest) -> bool {
    manifest.upload.as_deref().is_some_and(|said| said.starts_with('5') || said.starts_with("429"))
}

fn failed(error: Error) -> Refusal {
    (Status::Error, error.to_string())
}

/// What a host printed, taken apart.
fn reply_of(invocation: &Invocation, nonce: &str) -> Result<Reply, Refusal> {
    let reply = parse_reply(invocation.stdout.as_bytes(), nonce);
    reply.map_err(|error| broken(invocation, &error.to_string()))
}

/// The answer of a host whose script ended by itself, and of one that was ended but had printed all.
fn received(invocation: Invocation, reply: Reply) -> Result<Received, Refusal> {
    let window = Window { sent: invocation.sent, received: now() };
    let Some(gz) = reply.data else { return Err(no_data(&reply.manifest)) };
    let but = match invocation.state {
        State::Ended(status, why) => Some((status, why)),
        State::Ran | State::Underway => None,
    };
    Ok(Received { manifest: reply.manifest, gz, window, but, slot: None })
}

/// Why a whole reply has no answers in it.
fn no_data(manifest: &Manifest) -> Refusal {
    if manifest.agent == super::remote::Agent::None {
        let says_so = |note: &&String| note.contains("osquery") || note.starts_with("bootstrap");
        return match manifest.notes.iter().find(says_so) {
            Some(note) => (
                Status::NotSupported,
                format!("the host has no osquery; `--bootstrap` brings one, or a diffy ({})", said(note)),
            ),
            None => (Status::Error, with_notes("the script cannot work on this host", manifest)),
        };
    }
    let why = match &manifest.upload {
        Some(upload) => format!("the host could not put its answer into S3: {}", said(upload)),
        None if is_too_large(manifest) => format!(
            "the answer of {} bytes does not fit into the output of a command; `--upload s3://BUCKET/PREFIX` gives it a place",
            manifest.gz
        ),
        None => "the host has an answer and does not give it".to_owned(),
    };
    (Status::Error, with_notes(&why, manifest))
}

fn with_notes(why: &str, manifest: &Manifest) -> String {
    match manifest.notes.last() {
        Some(note) => format!("{why} ({})", said(note)),
        None => why.to_owned(),
    }
}

/// Why what a host printed is no reply.
fn broken(invocation: &Invocation, problem: &str) -> Refusal {
    let stderr = invocation.stderr.trim();
    let stderr = if stderr.is_empty() { String::new() } else { format!("; it says: {}", said(stderr)) };
    match &invocation.state {
        State::Ended(status, why) => (*status, format!("{why}{stderr}")),
        State::Ran | State::Underway => {
            let code = match invocation.code {
                0 => String::new(),
                code => format!(" (exit status {code})"),
            };
            (Status::Error, format!("{problem}{code}{stderr}"))
        }
    }
}
