//! Carries orders to hosts through Run Command, and says when each has ended.
//!
//! Orders wait in a queue. Those that are the same for several hosts go out as one command, 50 hosts at most. One task
//! watches all commands that are under way by listing their invocations, 50 a page, so that waiting costs the same for
//! one host and for fifty. What a host printed is fetched once, when its invocation has ended.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_ssm::Client;
use aws_sdk_ssm::error::SdkError;
use aws_sdk_ssm::operation::get_command_invocation::{GetCommandInvocationError, GetCommandInvocationOutput};
use chrono::{DateTime, Utc};
use futures::{StreamExt, stream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::Refusal;
use super::gate::Gate;
use super::pace::Pace;
use super::sends::{Sends, Sent};
use super::status::{State, state};
use super::watch::{Watch, Watched};
use crate::aws::{Aws, explain};
use crate::model::Status;

/// Hosts in one command; 50 is the most that AWS takes.
const HOSTS_PER_COMMAND: usize = 50;
/// Commands that are being sent at once.
const SENDING: u32 = 4;
/// Commands that are being cancelled at once.
const CANCELLING: usize = 16;
/// How long the queue is given to fill before the first command goes.
const GATHER: Duration = Duration::from_millis(50);
/// How long the call that fetches an output may lag behind the list that showed its end.
const LAG: Duration = Duration::from_secs(30);
const LAG_PAUSE: Duration = Duration::from_secs(1);

/// What is sent to hosts; equal orders share a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    /// The parameters of the document.
    pub(super) parameters: Vec<(String, String)>,
    /// Where Systems Manager puts the output: bucket and prefix of keys.
    pub(super) output_s3: Option<(String, String)>,
}

/// How orders are carried.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    /// The document that runs.
    pub(super) document: String,
    /// Shown beside the command in the console.
    pub(super) comment: String,
    /// How long AWS tries to deliver a command.
    pub(super) delivery: Duration,
    /// How long a delivered command may take before it is given up.
    pub(super) execution: Duration,
    /// Commands a second.
    pub(super) commands_per_second: f64,
    /// First pause between two looks at what is under way.
    pub(super) poll: Duration,
}

/// What became of an order on one host.
#[derive(Debug, Clone)]
pub(super) struct Invocation {
    pub(super) command: String,
    /// When the command was sent.
    pub(super) sent: DateTime<Utc>,
    pub(super) state: State,
    pub(super) code: i32,
    /// At most 24,000 bytes; chosen by the host.
    pub(super) stdout: String,
    /// At most 8,000 bytes; chosen by the host.
    pub(super) stderr: String,
}

/// Tells a host's task how its order went.
#[derive(Debug)]
pub(super) enum Event {
    /// It was not sent.
    Refused(Refusal),
    /// It ended, or was given up for this reason: its output is there now or never.
    Look { command: String, sent: DateTime<Utc>, given_up: Option<Refusal> },
}

/// One order for one host.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) host: String,
    pub(super) order: Arc<Order>,
    pub(super) reply: oneshot::Sender<Event>,
}

/// The connection to Systems Manager.
#[derive(Debug)]
pub(super) struct Courier {
    post: Arc<Post>,
    queue: UnboundedSender<Letter>,
    tasks: [JoinHandle<()>; 2],
}

/// What the tasks share.
#[derive(Debug)]
struct Post {
    client: Client,
    terms: Terms,
    sends: Sends,
    gets: Pace,
    sending: Arc<Semaphore>,
    watch: Watch,
    gate: Arc<Gate>,
}

impl Courier {
    /// Starts the tasks that send and watch; they end with this value.
    pub(super) fn new(aws: &Aws, terms: Terms) -> Self {
        let client = Client::new(aws.sdk());
        let gate = Arc::new(Gate::default());
        let (queue, letters) = unbounded_channel();
        let post = Arc::new(Post {
            sends: Sends::new(&client, &terms, Arc::clone(&gate)),
            // Fetching is allowed more often than sending, by experience; no number is published.
            gets: Pace::new(terms.commands_per_second * 2.0),
            sending: Arc::new(Semaphore::new(SENDING as usize)),
            watch: Watch::new(&client, &terms, Arc::clone(&gate)),
            gate,
            client,
            terms,
        });
        let sending = tokio::spawn(Arc::clone(&post).deliver(letters));
        let watching = tokio::spawn(post.watch.clone().run());
        Self { post, queue, tasks: [sending, watching] }
    }

    /// Has an order carried out on a host, and waits for what it printed.
    pub(super) async fn ask(&self, host: &str, order: Arc<Order>) -> Result<Invocation, Refusal> {
        let stopped = || {
            let why = "the collection was stopped before this host had answered";
            (Status::Timeout, why.to_owned())
        };
        let (reply, event) = oneshot::channel();
        self.queue.send(Letter { host: host.to_owned(), order, reply }).map_err(|_| stopped())?;
        match event.await.map_err(|_| stopped())? {
            Event::Refused(refusal) => Err(refusal),
            Event::Look { command, sent, given_up } => self.post.look(host, (command, sent), given_up).await,
        }
    }

    /// Sends nothing any more, and cancels whatever is under way.
    pub(super) async fn stop(&self) {
        self.post.gate.stop().await;
        // What is on its way is cancelled by who sent it, as soon as AWS has named it.
        let _all = self.post.sending.acquire_many(SENDING).await;
        let commands = self.post.watch.clear().await;
        let cancel = |command: String| async move { self.post.cancel(&command, None).await };
        stream::iter(commands).for_each_concurrent(CANCELLING, cancel).await;
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Post {
    async fn deliver(self: Arc<Self>, mut letters: UnboundedReceiver<Letter>) {
        let mut next = None;
        loop {
            let first = match next.take() {
                Some(letter) => letter,
                None => match letters.recv().await {
                    Some(letter) => letter,
                    None => return,
                },
            };
            sleep(GATHER).await;
            // First a slot: what comes while this waits can go with it.
            let Ok(slot) = Arc::clone(&self.sending).acquire_owned().await else { return };
            let mut batch = vec![first];
            while batch.len() < HOSTS_PER_COMMAND && next.is_none() {
                let Ok(letter) = letters.try_recv() else { break };
                if letter.order == batch[0].order { batch.push(letter) } else { next = Some(letter) }
            }
            let post = Arc::clone(&self);
            tokio::spawn(async move {
                for sent in post.sends.send(batch).await {
                    post.register(sent).await;
                }
                drop(slot);
            });
        }
    }

    async fn register(&self, sent: Sent) {
        let deadline = Instant::now() + self.terms.delivery + self.terms.execution;
        // Somebody stopped everything while it was on its way: dropping the letters tells their hosts.
        if self.gate.is_stopped() {
            return self.cancel(&sent.command, None).await;
        }
        for letter in sent.letters {
            let watched =
                Watched { reply: letter.reply, sent: sent.at, deadline, last: String::new(), missed: 0 };
            self.watch.add((sent.command.clone(), letter.host), watched).await;
        }
    }

    /// Fetches what a host printed.
    async fn look(
        &self,
        host: &str,
        (command, sent): (String, DateTime<Utc>),
        given_up: Option<Refusal>,
    ) -> Result<Invocation, Refusal> {
        let found = self.get(&command, host, if given_up.is_some() { Duration::ZERO } else { LAG }).await;
        if let Some(refusal) = given_up
            && found.as_ref().map_or(true, |found| ending(found) == State::Underway)
        {
            self.cancel(&command, Some(host)).await;
            return Err(refusal);
        }
        let found = found.map_err(|error| {
            (Status::Undeliverable, explain("ssm:GetCommandInvocation", error).to_string())
        })?;
        Ok(Invocation {
            state: ending(&found),
            code: found.response_code,
            stdout: found.standard_output_content.unwrap_or_default(),
            stderr: found.standard_error_content.unwrap_or_default(),
            command,
            sent,
        })
    }

    /// Asks until the invocation has ended here, too: this call may lag behind the list.
    async fn get(
        &self,
        command: &str,
        host: &str,
        lag: Duration,
    ) -> Result<GetCommandInvocationOutput, SdkError<GetCommandInvocationError>> {
        let patience = Instant::now() + lag;
        loop {
            self.gets.turn().await;
            let call = self.client.get_command_invocation().command_id(command).instance_id(host);
            let found = call.send().await;
            let is_behind = match &found {
                Ok(found) => ending(found) == State::Underway,
                Err(error) => error
                    .as_service_error()
                    .is_some_and(GetCommandInvocationError::is_invocation_does_not_exist),
            };
            if !is_behind || Instant::now() >= patience {
                return found;
            }
            sleep(LAG_PAUSE).await;
        }
    }

    /// Best effort: AWS does not promise that the process ends.
    async fn cancel(&self, command: &str, host: Option<&str>) {
        let hosts = host.map(|host| vec![host.to_owned()]);
        let call = self.client.cancel_command().command_id(command).set_instance_ids(hosts);
        if let Err(error) = call.send().await {
            tracing::warn!(command, error = %explain("ssm:CancelCommand", error), "cannot cancel");
        }
    }
}

fn ending(found: &GetCommandInvocationOutput) -> State {
    let status = found.status().map_or("", |status| status.as_str());
    state(status, found.status_details().unwrap_or_default())
}
