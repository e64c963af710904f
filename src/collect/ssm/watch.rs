//! Watches the commands that are under way.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_ssm::Client;
use aws_sdk_ssm::config::retry::RetryConfig;
use aws_sdk_ssm::config::timeout::TimeoutConfig;
use aws_sdk_ssm::types::{CommandFilter, CommandFilterKey, CommandInvocation, PingStatus};
use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::{Mutex, Notify, oneshot};
use tokio::time::{Instant, sleep};

use super::Refusal;
use super::courier::{Event, Terms};
use super::gate::{Gate, is_for_all};
use super::pace::Pace;
use super::status::{State, state};
use crate::aws::{self, NODES_PER_CALL, error_code, explain, nodes};
use crate::model::{Status, now};

/// Invocations on one page; 50 is the most that AWS gives.
const PER_PAGE: usize = 50;
/// Pages of one look; what is not seen then is seen later, or fetched at its deadline.
const MOST_PAGES: usize = 400;
/// Longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Attempts of one call, and how long they may take together.
const ATTEMPTS: u32 = 3;
const LONGEST_CALL: Duration = Duration::from_secs(30);
/// How much longer each pause is than the one before.
const SLOWER: f64 = 1.3;
/// It is asked whether the agents of hosts that have not answered still live every so many first pauses.
const ROLL_CALL: u32 = 10;
/// An agent that was not there so many times in a row is taken for gone.
const MISSED: u8 = 2;
/// Invocations are listed from so long before the first command on; the clock here may be wrong.
const MARGIN: TimeDelta = TimeDelta::minutes(10);

/// Command and host.
pub(super) type Key = (String, String);

/// An invocation that has not ended.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) reply: oneshot::Sender<Event>,
    pub(super) sent: DateTime<Utc>,
    pub(super) deadline: Instant,
    /// Its last known state; empty while AWS does not show it.
    pub(super) last: String,
    /// How many times in a row its agent was not there.
    pub(super) missed: u8,
}

/// The invocations that have not ended, and the task that asks for them.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    document: String,
    poll: Duration,
    pace: Pace,
    gate: Arc<Gate>,
    since: DateTime<Utc>,
    live: Mutex<HashMap<Key, Watched>>,
    came: Notify,
}

impl Watch {
    pub(super) fn new(client: &Client, terms: &Terms, gate: Arc<Gate>) -> Self {
        // A look that fails is followed by another one; meanwhile deadlines pass.
        let retry = RetryConfig::standard().with_max_attempts(ATTEMPTS);
        let timeout = TimeoutConfig::builder().operation_timeout(LONGEST_CALL).build();
        let config = client.config().to_builder().retry_config(retry).timeout_config(timeout);
        let inner = Inner {
            client: Client::from_conf(config.build()),
            pace: Pace::new(terms.commands_per_second),
            gate,
            document: terms.document.clone(),
            poll: terms.poll,
            since: now() - MARGIN,
            live: Mutex::new(HashMap::new()),
            came: Notify::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    pub(super) async fn add(&self, key: Key, watched: Watched) {
        self.inner.live.lock().await.insert(key, watched);
        self.inner.came.notify_one();
    }

    /// Forgets all invocations; the commands that they were of.
    pub(super) async fn clear(&self) -> BTreeSet<String> {
        self.inner.live.lock().await.drain().map(|((command, _), _)| command).collect()
    }

    /// Looks again and again, for as long as this task lives.
    pub(super) async fn run(self) {
        let inner = self.inner;
        let mut pause = inner.poll;
        let between = inner.poll * ROLL_CALL;
        let mut roll_call = Instant::now() + between;
        loop {
            if inner.live.lock().await.is_empty() {
                inner.came.notified().await;
                pause = inner.poll;
                roll_call = Instant::now() + between;
            }
            sleep(pause.mul_f64(rand::random_range(0.8..1.2))).await;
            let ended = inner.look().await;
            inner.give_up_overdue().await;
            if Instant::now() >= roll_call {
                inner.call_roll().await;
                roll_call = Instant::now() + between;
            }
            pause = if ended > 0 { inner.poll } else { pause.mul_f64(SLOWER).min(LONGEST_PAUSE) };
        }
    }
}

impl Inner {
    /// Lists invocations once; how many have ended.
    async fn look(&self) -> usize {
        let mut ended = 0;
        for command in self.lists().await {
            let mut token = None;
            for _ in 0..MOST_PAGES {
                match self.page(command.as_deref(), token).await {
                    Ok((invocations, next)) => {
                        ended += self.note(&invocations).await;
                        token = next;
                    }
                    Err((refusal, is_for_all)) => {
                        tracing::warn!(error = %refusal.1, "cannot see how far the commands are");
                        if is_for_all {
                            self.gate.shut(refusal.clone()).await;
                            self.give_up(|_, _| Some(refusal.clone())).await;
                        }
                        return ended;
                    }
                }
                if token.is_none() {
                    break;
                }
            }
        }
        ended
    }

    /// The lists that show all that is under way for the fewest pages: those of the commands, or one of all commands
    /// with this document, whoever sent them.
    async fn lists(&self) -> Vec<Option<String>> {
        let live = self.live.lock().await;
        let commands: BTreeSet<&str> = live.keys().map(|(command, _)| command.as_str()).collect();
        if commands.len() <= live.len().div_ceil(PER_PAGE) + 1 {
            return commands.into_iter().map(|command| Some(command.to_owned())).collect();
        }
        vec![None]
    }

    async fn page(
        &self,
        command: Option<&str>,
        token: Option<String>,
    ) -> Result<(Vec<CommandInvocation>, Option<String>), (Refusal, bool)> {
        self.pace.turn().await;
        let request = self.client.list_command_invocations().max_results(PER_PAGE as i32);
        let request = match command {
            Some(command) => request.command_id(command),
            None => request.set_filters(self.filters()),
        };
        match request.set_next_token(token).send().await {
            Ok(page) => Ok((
                page.command_invocations.unwrap_or_default(),
                page.next_token.filter(|token| !token.is_empty()),
            )),
            Err(error) => {
                let code = error_code(&error).unwrap_or_default();
                let is_for_all =
                    is_for_all(code) || aws::Refusal::of_code(code) == Some(aws::Refusal::Denied);
                let text = explain("ssm:ListCommandInvocations", error).to_string();
                Err(((Status::Undeliverable, text), is_for_all))
            }
        }
    }

    fn filters(&self) -> Option<Vec<CommandFilter>> {
        let since = self.since.format("%Y-%m-%dT%H:%M:%SZ").to_string();
        let filter = |key, value: &str| CommandFilter::builder().key(key).value(value).build().ok();
        // A document of another account is named by its ARN, and whether a filter takes that is nowhere said.
        let by_document = (!self.document.starts_with("arn:")).then_some(CommandFilterKey::DocumentName);
        let by_document = by_document.map(|key| filter(key, &self.document));
        [filter(CommandFilterKey::InvokedAfter, &since)].into_iter().chain(by_document).collect()
    }

    async fn note(&self, invocations: &[CommandInvocation]) -> usize {
        let mut live = self.live.lock().await;
        let mut ended = 0;
        for invocation in invocations {
            let (Some(command), Some(host)) = (invocation.command_id(), invocation.instance_id()) else {
                continue;
            };
            let key = (command.to_owned(), host.to_owned());
            let Some(watched) = live.get_mut(&key) else { continue };
            let status = invocation.status().map_or("", |status| status.as_str());
            let details = invocation.status_details().unwrap_or_default();
            if state(status, details) == State::Underway {
                details.clone_into(&mut watched.last);
                continue;
            }
            if let Some(watched) = live.remove(&key) {
                watched.look(key.0, None);
                ended += 1;
            }
        }
        ended
    }

    async fn give_up_overdue(&self) {
        let now = Instant::now();
        self.give_up(|_, watched| (watched.deadline <= now).then(|| watched.overdue())).await;
    }

    async fn give_up(&self, reason: impl Fn(&Key, &Watched) -> Option<Refusal>) {
        let mut live = self.live.lock().await;
        let given_up: Vec<(Key, Refusal)> =
            live.iter().filter_map(|(key, watched)| Some((key.clone(), reason(key, watched)?))).collect();
        for (key, refusal) in given_up {
            if let Some(watched) = live.remove(&key) {
                watched.look(key.0, Some(refusal));
            }
        }
    }

    /// A host that was ended never says so: its invocation stays `InProgress` for hours.
    async fn call_roll(&self) {
        let hosts: Vec<String> = {
            let live = self.live.lock().await;
            live.keys().map(|(_, host)| host.clone()).collect::<BTreeSet<_>>().into_iter().collect()
        };
        let mut present = BTreeSet::new();
        for hosts in hosts.chunks(NODES_PER_CALL) {
            match self.present(hosts).await {
                Some(found) => present.extend(found),
                // Without an answer nobody is missing.
                None => present.extend(hosts.iter().cloned()),
            }
        }
        for ((_, host), watched) in self.live.lock().await.iter_mut() {
            watched.missed = if present.contains(host) || !hosts.contains(host) {
                0
            } else {
                watched.missed.saturating_add(1)
            };
        }
        self.give_up(|_, watched| (watched.missed >= MISSED).then(lost)).await;
    }

    async fn present(&self, hosts: &[String]) -> Option<Vec<String>> {
        let found = nodes(&self.client, "InstanceIds", hosts.to_vec()).await.ok()?;
        let online = found.into_iter().filter(|node| node.ping_status() == Some(&PingStatus::Online));
        Some(online.filter_map(|node| node.instance_id).collect())
    }
}

impl Watched {
    fn look(self, command: String, given_up: Option<Refusal>) {
        // Nobody waits when the collection was stopped.
        let _ = self.reply.send(Event::Look { command, sent: self.sent, given_up });
    }

    fn overdue(&self) -> Refusal {
        if self.last.is_empty() {
            return (Status::Undeliverable, "the command never showed up on the host".to_owned());
        }
        let state = self.last.escape_debug();
        (Status::Timeout, format!("no answer in time; the command was `{state}` to the end"))
    }
}

fn lost() -> Refusal {
    (Status::Undeliverable, "the host's agent went away while the command ran".to_owned())
}
