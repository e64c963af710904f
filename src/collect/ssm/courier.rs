//! Carries orders to hosts through Run Command, and says when each has ended.
//!
//! Orders wait in a queue. Those that are the same for several hosts go out as one command, 50 hosts at most. One task
//! watches all commands that are under way by listing their invocations, 50 a page, so that waiting costs the same for
//! one host and for fifty. What a host printed is fetched once, when its invocation has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_ssm::Client;
use aws_sdk_ssm::error::SdkError;
use aws_sdk_ssm::operation::get_command_invocation::{GetCommandInvocationError, GetCommandInvocationOutput};
use aws_sdk_ssm::operation::send_command::SendCommandError;
use chrono::{DateTime, Utc};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Mutex, Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::pace::Pace;
use super::status::{State, state};
use super::watch::{Watch, Watched};
use crate::aws::{Aws, Refusal as RefusalKind, error_code, explain};
use crate::model::{Status, now};

/// Hosts in one command; 50 is the most that AWS takes.
const HOSTS_PER_COMMAND: usize = 50;
/// Commands that are being sent at once.
const SENDING: usize = 4;
/// How long the queue is given to fill before the first command goes.
const GATHER: Duration = Duration::from_millis(50);
/// How long an invocation that was listed may be unknown to the call that fetches its output.
const UNKNOWN: Duration = Duration::from_secs(30);
const UNKNOWN_PAUSE: Duration = Duration::from_secs(1);
/// The longest comment that AWS takes.
const LONGEST_COMMENT: usize = 100;

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

/// Why a host has no answer.
pub(super) type Refusal = (Status, String);

/// Tells a host's task how its order went.
#[derive(Debug)]
pub(super) enum Event {
    /// It was not sent.
    Refused(Refusal),
    /// It ended, or was given up for this reason: its output is there now or never.
    Look { command: String, sent: DateTime<Utc>, given_up: Option<Refusal> },
}

#[derive(Debug)]
struct Letter {
    host: String,
    order: Arc<Order>,
    reply: oneshot::Sender<Event>,
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
    sends: Pace,
    gets: Pace,
    sending: Arc<Semaphore>,
    watch: Watch,
    /// Why nothing can be sent any more.
    closed: Mutex<Option<Refusal>>,
    is_stopped: AtomicBool,
}

impl Courier {
    /// Starts the tasks that send and watch; they end with this value.
    pub(super) fn new(aws: &Aws, terms: Terms) -> Self {
        let client = Client::new(aws.sdk());
        let (queue, letters) = unbounded_channel();
        let post = Arc::new(Post {
            sends: Pace::new(terms.commands_per_second),
            // Fetching is allowed more often than sending, by experience; no number is published.
            gets: Pace::new(terms.commands_per_second * 2.0),
            sending: Arc::new(Semaphore::new(SENDING)),
            watch: Watch::new(client.clone(), &terms),
            closed: Mutex::new(None),
            is_stopped: AtomicBool::new(false),
            client,
            terms,
        });
        let sending = tokio::spawn(Arc::clone(&post).deliver(letters));
        let watching = tokio::spawn(post.watch.clone().run());
        Self { post, queue, tasks: [sending, watching] }
    }

    /// Has an order carried out on a host, and waits for what it printed.
    pub(super) async fn ask(&self, host: &str, order: Arc<Order>) -> Result<Invocation, Refusal> {
        let stopped = || (Status::NotAsked, "the collection was stopped".to_owned());
        let (reply, event) = oneshot::channel();
        self.queue.send(Letter { host: host.to_owned(), order, reply }).map_err(|_| stopped())?;
        match event.await.map_err(|_| stopped())? {
            Event::Refused(refusal) => Err(refusal),
            Event::Look { command, sent, given_up } => self.post.look(host, (command, sent), given_up).await,
        }
    }

    /// Cancels whatever is under way.
    pub(super) async fn stop(&self) {
        let refusal = (Status::NotAsked, "the collection was stopped".to_owned());
        *self.post.closed.lock().await = Some(refusal);
        self.post.is_stopped.store(true, Ordering::SeqCst);
        for command in self.post.watch.clear().await {
            self.post.cancel(&command, None).await;
        }
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
            // Before the turn: what comes while this waits can go with it.
            let Ok(slot) = Arc::clone(&self.sending).acquire_owned().await else { return };
            self.sends.turn().await;
            let mut batch = vec![first];
            while batch.len() < HOSTS_PER_COMMAND && next.is_none() {
                let Ok(letter) = letters.try_recv() else { break };
                if letter.order == batch[0].order { batch.push(letter) } else { next = Some(letter) }
            }
            let post = Arc::clone(&self);
            tokio::spawn(async move {
                post.send(batch).await;
                drop(slot);
            });
        }
    }

    /// Sends one order to its hosts; a host that AWS does not take is left out and the others are sent to again.
    async fn send(&self, batch: Vec<Letter>) {
        let mut batches = vec![batch];
        let mut is_first = true;
        while let Some(batch) = batches.pop() {
            if let Some(refusal) = self.closed.lock().await.clone() {
                refuse(batch, &refusal);
                continue;
            }
            if !std::mem::take(&mut is_first) {
                self.sends.turn().await;
            }
            let sent = now();
            match self.call(&batch).await {
                Ok(command) => {
                    self.register(batch, &command, sent).await;
                    // Somebody stopped everything while it was on its way.
                    if self.is_stopped.load(Ordering::SeqCst) {
                        self.cancel(&command, None).await;
                    }
                }
                Err(error) => batches.extend(self.sort_out(batch, error).await),
            }
        }
    }

    async fn call(&self, batch: &[Letter]) -> Result<String, SdkError<SendCommandError>> {
        let ids: Vec<String> = batch.iter().map(|letter| letter.host.clone()).collect();
        let order = &batch[0].order;
        let comment: String = self.terms.comment.chars().take(LONGEST_COMMENT).collect();
        let request = self
            .client
            .send_command()
            .max_concurrency(ids.len().to_string())
            // The default is 0: the first host that fails would end the command on all others.
            .max_errors("100%")
            .set_instance_ids(Some(ids))
            .document_name(&self.terms.document)
            .timeout_seconds(i32::try_from(self.terms.delivery.as_secs()).unwrap_or(i32::MAX))
            .comment(comment)
            .set_output_s3_bucket_name(order.output_s3.as_ref().map(|(bucket, _)| bucket.clone()))
            .set_output_s3_key_prefix(order.output_s3.as_ref().map(|(_, prefix)| prefix.clone()));
        let with =
            |request: aws_sdk_ssm::operation::send_command::builders::SendCommandFluentBuilder,
             (name, value): &(String, String)| request.parameters(name, vec![value.clone()]);
        let sent = order.parameters.iter().fold(request, with).send().await?;
        Ok(sent.command.and_then(|command| command.command_id).unwrap_or_default())
    }

    async fn register(&self, batch: Vec<Letter>, command: &str, sent: DateTime<Utc>) {
        let deadline = Instant::now() + self.terms.delivery + self.terms.execution;
        for letter in batch {
            let watched = Watched { reply: letter.reply, sent, deadline, last: String::new(), missed: 0 };
            self.watch.add((command.to_owned(), letter.host), watched).await;
        }
    }

    /// What can be sent again after an error; the rest is refused.
    async fn sort_out(&self, batch: Vec<Letter>, error: SdkError<SendCommandError>) -> Vec<Vec<Letter>> {
        let service = error.as_service_error();
        if service.is_some_and(SendCommandError::is_invalid_instance_id) {
            let message = service.and_then(|error| error.meta().message()).unwrap_or_default().to_owned();
            return without_invalid(batch, &message);
        }
        let code = error_code(&error).unwrap_or_default().to_owned();
        let refusal = refusal("ssm:SendCommand", error);
        if is_for_all(&code) {
            *self.closed.lock().await = Some(refusal.clone());
        }
        refuse(batch, &refusal);
        Vec::new()
    }

    /// Fetches what a host printed.
    async fn look(
        &self,
        host: &str,
        (command, sent): (String, DateTime<Utc>),
        given_up: Option<Refusal>,
    ) -> Result<Invocation, Refusal> {
        let found = self.get(&command, host).await;
        if let Some(refusal) = given_up {
            let is_underway = found.as_ref().map_or(true, |found| ending(found) == State::Underway);
            if is_underway {
                self.cancel(&command, Some(host)).await;
                return Err(refusal);
            }
        }
        let found = found.map_err(|error| refusal("ssm:GetCommandInvocation", error))?;
        Ok(Invocation {
            state: ending(&found),
            code: found.response_code,
            stdout: found.standard_output_content.unwrap_or_default(),
            stderr: found.standard_error_content.unwrap_or_default(),
            command,
            sent,
        })
    }

    async fn get(
        &self,
        command: &str,
        host: &str,
    ) -> Result<GetCommandInvocationOutput, SdkError<GetCommandInvocationError>> {
        let patience = Instant::now() + UNKNOWN;
        loop {
            self.gets.turn().await;
            let call = self.client.get_command_invocation().command_id(command).instance_id(host);
            let found = call.send().await;
            let is_unknown = found.as_ref().is_err_and(|error| {
                error.as_service_error().is_some_and(GetCommandInvocationError::is_invocation_does_not_exist)
            });
            if !is_unknown || Instant::now() > patience {
                return found;
            }
            sleep(UNKNOWN_PAUSE).await;
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

/// Whether a refusal of one command is one of all.
pub(super) fn is_for_all(code: &str) -> bool {
    use RefusalKind::{Denied, Expired, Unknown};
    matches!(RefusalKind::of_code(code), Some(Denied | Expired | Unknown))
        || code.starts_with("InvalidDocument")
        || code == "InvalidParameters"
}

/// Whatever AWS refuses: nothing of the host was heard.
fn refusal<E>(action: &str, error: SdkError<E>) -> Refusal
where
    E: std::error::Error + aws_sdk_ssm::error::ProvideErrorMetadata + Send + Sync + 'static,
{
    (Status::Undeliverable, explain(action, error).to_string())
}

fn refuse(batch: Vec<Letter>, refusal: &Refusal) {
    for letter in batch {
        // Nobody waits when the collection was stopped.
        let _ = letter.reply.send(Event::Refused(refusal.clone()));
    }
}

/// One id that AWS does not take fails the whole call. Its message names them, or nobody: then the batch is halved.
fn without_invalid(mut batch: Vec<Letter>, message: &str) -> Vec<Vec<Letter>> {
    let refusal = (
        Status::Undeliverable,
        "Systems Manager does not take commands for this host: it is gone, has no agent, or is not in reach of these credentials".to_owned(),
    );
    if batch.len() == 1 {
        refuse(batch, &refusal);
        return Vec::new();
    }
    let (invalid, valid): (Vec<Letter>, Vec<Letter>) =
        batch.drain(..).partition(|letter| message.contains(&letter.host));
    if invalid.is_empty() {
        let mut first = valid;
        let second = first.split_off(first.len() / 2);
        return vec![first, second];
    }
    refuse(invalid, &refusal);
    if valid.is_empty() { Vec::new() } else { vec![valid] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letters(hosts: &[&str]) -> (Vec<Letter>, Vec<oneshot::Receiver<Event>>) {
        let order = Arc::new(Order { parameters: Vec::new(), output_s3: None });
        let letter = |host: &&str| {
            let (reply, event) = oneshot::channel();
            (Letter { host: (*host).to_owned(), order: Arc::clone(&order), reply }, event)
        };
        hosts.iter().map(letter).unzip()
    }

    fn names(batches: &[Vec<Letter>]) -> Vec<Vec<&str>> {
        batches.iter().map(|batch| batch.iter().map(|letter| letter.host.as_str()).collect()).collect()
    }

    #[test]
    fn hosts_that_the_message_names_are_left_out() {
        let (batch, mut events) = letters(&["i-a", "i-b", "i-c"]);
        let rest = without_invalid(batch, "Instances [[i-b]] not in a valid state for account 1");
        assert_eq!(names(&rest), [["i-a", "i-c"]]);
        assert!(matches!(events[1].try_recv(), Ok(Event::Refused((Status::Undeliverable, _)))));
        assert!(events[0].try_recv().is_err());
    }

    #[test]
    fn a_message_without_names_halves_the_batch_until_one_is_left() {
        let (batch, mut events) = letters(&["i-a", "i-b", "i-c"]);
        let rest = without_invalid(batch, "");
        assert_eq!(names(&rest), [vec!["i-a"], vec!["i-b", "i-c"]]);
        let first = rest.into_iter().next().unwrap();
        assert!(without_invalid(first, "").is_empty());
        assert!(matches!(events[0].try_recv(), Ok(Event::Refused(_))));
    }
}
