//! Sends commands: once each, and to those hosts that AWS takes.
//!
//! `SendCommand` is not idempotent: a command that was taken, and whose answer was lost, runs. So only what AWS surely
//! did not take is sent again at once; after anything else the command is looked for by its comment first.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_ssm::Client;
use aws_sdk_ssm::config::retry::RetryConfig;
use aws_sdk_ssm::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ssm::operation::send_command::builders::SendCommandFluentBuilder;
use aws_sdk_ssm::operation::send_command::{SendCommandError, SendCommandOutput};
use aws_sdk_ssm::types::{CommandFilter, CommandFilterKey};
use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::sleep;

use super::Refusal;
use super::courier::{Event, Letter, Terms};
use super::gate::{Gate, is_for_all};
use super::pace::Pace;
use crate::aws::{self, error_code, explain, is_throttled};
use crate::model::{Status, hex, now};

/// Attempts of one command.
const ATTEMPTS: u32 = 10;
/// Pause after the first attempt; each is twice the one before …
const PAUSE: Duration = Duration::from_secs(1);
/// … up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// A command that was just sent is not seen at once: it is looked for so often, with pauses of so long before each.
const LOOKS: usize = 3;
const UNTIL_SEEN: Duration = Duration::from_secs(2);
/// Pages that are looked through for a command.
const PAGES: usize = 20;
/// Commands are looked for from so long before they were sent on; the clock here may be wrong.
const MARGIN: TimeDelta = TimeDelta::minutes(10);
/// The longest comment that AWS takes.
const LONGEST_COMMENT: usize = 100;

type SendError = SdkError<SendCommandError>;

/// A command that was taken.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) command: String,
    pub(super) at: DateTime<Utc>,
    pub(super) letters: Vec<Letter>,
}

/// Sends.
#[derive(Debug)]
pub(super) struct Sends {
    /// Tries nothing again by itself.
    client: Client,
    reader: Client,
    terms: Terms,
    pace: Pace,
    gate: Arc<Gate>,
}

impl Sends {
    pub(super) fn new(client: &Client, terms: &Terms, gate: Arc<Gate>) -> Self {
        let config = client.config().to_builder().retry_config(RetryConfig::disabled());
        Self {
            client: Client::from_conf(config.build()),
            reader: client.clone(),
            terms: terms.clone(),
            pace: Pace::new(terms.commands_per_second),
            gate,
        }
    }

    /// Sends one order to its hosts; a host that AWS does not take is refused and the others are sent to again.
    pub(super) async fn send(&self, batch: Vec<Letter>) -> Vec<Sent> {
        let mut batches = vec![batch];
        let mut sent = Vec::new();
        while let Some(batch) = batches.pop() {
            if let Some(reason) = self.gate.reason().await {
                refuse(batch, &reason);
                continue;
            }
            let at = now();
            match self.call(&batch).await {
                Ok(command) => {
                    self.gate.passed();
                    sent.push(Sent { command, at, letters: batch });
                }
                Err(error) => batches.extend(self.sort_out(batch, error).await),
            }
        }
        sent
    }

    /// Calls until AWS has taken the command or will not; the id of the command.
    async fn call(&self, batch: &[Letter]) -> Result<String, SendError> {
        let mark = self.mark();
        let mut pause = PAUSE;
        let mut attempt = 1;
        loop {
            self.pace.turn().await;
            let since = now();
            let error = match self.call_once(batch, &mark).await {
                Ok(sent) => {
                    return Ok(sent.command.and_then(|command| command.command_id).unwrap_or_default());
                }
                Err(error) => error,
            };
            let again = again(&error);
            if again == Again::No || attempt == ATTEMPTS {
                return Err(error);
            }
            if again == Again::IfNotTaken
                && let Some(command) = self.find(&mark, since).await
            {
                return Ok(command);
            }
            tracing::info!(attempt, error = %explain("ssm:SendCommand", error), "sending again");
            sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            attempt += 1;
        }
    }

    /// A comment that no other command has.
    fn mark(&self) -> String {
        let run: String = self.terms.comment.chars().take(LONGEST_COMMENT - 17).collect();
        format!("{run} {}", hex(&rand::random::<[u8; 8]>()))
    }

    async fn call_once(&self, batch: &[Letter], mark: &str) -> Result<SendCommandOutput, SendError> {
        let ids: Vec<String> = batch.iter().map(|letter| letter.host.clone()).collect();
        let order = &batch[0].order;
        let request = self
            .client
            .send_command()
            .max_concurrency(ids.len().to_string())
            // The default is 0: the first host that fails would end the command on all others.
            .max_errors("100%")
            .set_instance_ids(Some(ids))
            .document_name(&self.terms.document)
            .timeout_seconds(i32::try_from(self.terms.delivery.as_secs()).unwrap_or(i32::MAX))
            .comment(mark)
            .set_output_s3_bucket_name(order.output_s3.as_ref().map(|(bucket, _)| bucket.clone()))
            .set_output_s3_key_prefix(order.output_s3.as_ref().map(|(_, prefix)| prefix.clone()));
        let with = |request: SendCommandFluentBuilder, (name, value): &(String, String)| {
            request.parameters(name, vec![value.clone()])
        };
        order.parameters.iter().fold(request, with).send().await
    }

    /// The command with this comment, if AWS has taken it.
    async fn find(&self, mark: &str, since: DateTime<Utc>) -> Option<String> {
        for _ in 0..LOOKS {
            sleep(UNTIL_SEEN).await;
            if let Some(command) = self.look_for(mark, since).await {
                return Some(command);
            }
        }
        None
    }

    async fn look_for(&self, mark: &str, since: DateTime<Utc>) -> Option<String> {
        let since = (since - MARGIN).format("%Y-%m-%dT%H:%M:%SZ").to_string();
        let filter =
            CommandFilter::builder().key(CommandFilterKey::InvokedAfter).value(since).build().ok()?;
        let mut token = None;
        for _ in 0..PAGES {
            let list = self.reader.list_command_invocations().filters(filter.clone()).max_results(50);
            let page = list.set_next_token(token).send().await.ok()?;
            let ours = page.command_invocations().iter().find(|one| one.comment() == Some(mark));
            if let Some(command) = ours.and_then(|one| one.command_id()) {
                return Some(command.to_owned());
            }
            token = page.next_token.filter(|token| !token.is_empty());
            token.as_ref()?;
        }
        None
    }

    /// What can be sent again after an error; the rest is refused.
    async fn sort_out(&self, batch: Vec<Letter>, error: SendError) -> Vec<Vec<Letter>> {
        let code = error_code(&error).unwrap_or_default().to_owned();
        let message =
            error.as_service_error().and_then(|error| error.message()).unwrap_or_default().to_owned();
        let refusal = (Status::Undeliverable, explain("ssm:SendCommand", error).to_string());
        let is_denied = aws::Refusal::of_code(&code) == Some(aws::Refusal::Denied);
        if is_for_all(&code) || (is_denied && message.contains(":document/")) {
            self.gate.shut(refusal.clone()).await;
        }
        match code.as_str() {
            "InvalidInstanceId" => without(batch, &message, &not_taken()),
            // One host may be enough for any of these.
            _ if is_denied && batch.len() == 1 => {
                self.gate.denied(&refusal).await;
                without(batch, &message, &refusal)
            }
            "UnsupportedPlatformType" | "ValidationException" => without(batch, &message, &refusal),
            _ if is_denied => without(batch, &message, &refusal),
            _ => {
                refuse(batch, &refusal);
                Vec::new()
            }
        }
    }
}

/// Whether a call is made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    No,
    /// AWS did not take it.
    Yes,
    /// AWS may have taken it.
    IfNotTaken,
}

fn again(error: &SendError) -> Again {
    match error {
        _ if is_throttled(error) => Again::Yes,
        SdkError::ServiceError(context) if context.raw().status().as_u16() >= 500 => Again::IfNotTaken,
        SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) | SdkError::ResponseError(_) => {
            Again::IfNotTaken
        }
        _ => Again::No,
    }
}

fn not_taken() -> Refusal {
    let why = "Systems Manager does not take commands for this host: it is gone, has no agent, or is not in reach of these credentials";
    (Status::Undeliverable, why.to_owned())
}

pub(super) fn refuse(batch: Vec<Letter>, refusal: &Refusal) {
    for letter in batch {
        // Nobody waits when the collection was stopped.
        let _ = letter.reply.send(Event::Refused(refusal.clone()));
    }
}

/// One host that AWS does not take fails the whole call. Its message names those, or nobody: then the batch is halved.
fn without(mut batch: Vec<Letter>, message: &str, refusal: &Refusal) -> Vec<Vec<Letter>> {
    if batch.len() == 1 {
        refuse(batch, refusal);
        return Vec::new();
    }
    let (named, mut others): (Vec<Letter>, Vec<Letter>) =
        batch.drain(..).partition(|letter| message.contains(&letter.host));
    if named.is_empty() {
        let second = others.split_off(others.len() / 2);
        return vec![others, second];
    }
    refuse(named, refusal);
    if others.is_empty() { Vec::new() } else { vec![others] }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::super::courier::Order;
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
        let rest = without(batch, "Instances [[i-b]] not in a valid state for account 1", &not_taken());
        assert_eq!(names(&rest), [["i-a", "i-c"]]);
        assert!(matches!(events[1].try_recv(), Ok(Event::Refused((Status::Undeliverable, _)))));
        assert!(events[0].try_recv().is_err());
    }

    #[test]
    fn a_message_without_names_halves_the_batch_until_one_is_left() {
        let (batch, mut events) = letters(&["i-a", "i-b", "i-c"]);
        let rest = without(batch, "", &not_taken());
        assert_eq!(names(&rest), [vec!["i-a"], vec!["i-b", "i-c"]]);
        let first = rest.into_iter().next().unwrap();
        assert!(without(first, "", &not_taken()).is_empty());
        assert!(matches!(events[0].try_recv(), Ok(Event::Refused(_))));
    }
}
