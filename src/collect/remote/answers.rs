//! From what a host sent to one answer for each table.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::mpsc::Sender;

use super::{Agent, Manifest, RemoteAnswer, UnpackLimits, judge, unpack};
use crate::catalog::TableSpec;
use crate::collect::Answer;
use crate::model::{Status, hex, now};

/// How far a host's clock may be off before it is told of.
const SKEW: TimeDelta = TimeDelta::minutes(5);
/// Most bytes of one table's rows; a script that is not tampered with cuts there, too.
const LARGEST_FRAME: u64 = 128 << 20;
/// Longest name of a host in a sentence, and longest text of one.
const LONGEST_NAME: usize = 80;
const LONGEST_SAID: usize = 300;

/// 32 lowercase hex digits that name one run of the script.
pub(in crate::collect) fn nonce() -> String {
    hex(&rand::random::<[u8; 16]>())
}

/// The end of what a host said, on one line.
pub(in crate::collect) fn said(text: &str) -> String {
    let start = text.len().saturating_sub(LONGEST_SAID);
    let end = &text[text.ceil_char_boundary(start)..];
    end.split_whitespace().collect::<Vec<_>>().join(" ").escape_debug().to_string()
}

/// Unpacks a packed answer of the announced size and digest, and sends an answer for each of `tables`; those that it
/// does not have get `but`, where there is one.
pub(in crate::collect) async fn hand_over(
    host: &str,
    tables: &[TableSpec],
    out: &Sender<Answer>,
    Packed { manifest, gz, window, but }: Packed,
) {
    let limits = UnpackLimits { frame_bytes: LARGEST_FRAME, ..UnpackLimits::default() };
    let (name, asked, answers_to) = (host.to_owned(), tables.to_vec(), out.clone());
    // Unpacking is work, and a closed channel is waited for.
    let unpacking = tokio::task::spawn_blocking(move || {
        let mut answers = Answers::new(&name, &asked, answers_to, window);
        let problem = answers.unpack(&manifest, &gz, &limits).err();
        let (status, why) = match (problem, but) {
            (Some(problem), _) => (Status::Error, problem),
            (None, Some(but)) => but,
            (None, None) => (Status::Error, "the host's answer does not have this table".to_owned()),
        };
        tokio::runtime::Handle::current().block_on(answers.close(status, &why));
    });
    if let Err(error) = unpacking.await {
        // Tables that had their answer get a second one, which says so, too.
        let why = format!("a defect of Diffy: the answer could not be unpacked: {error}");
        refuse(tables, out, (Status::Error, &why)).await;
    }
}

/// A packed answer that is what the host announced.
#[derive(Debug)]
pub(in crate::collect) struct Packed {
    pub(in crate::collect) manifest: Manifest,
    pub(in crate::collect) gz: Vec<u8>,
    pub(in crate::collect) window: Window,
    /// What else is to be said, although the answer is there.
    pub(in crate::collect) but: Option<(Status, String)>,
}

/// When an order went out, and when its answer was here: the clock that counts.
#[derive(Debug, Clone, Copy)]
pub(in crate::collect) struct Window {
    pub(in crate::collect) sent: DateTime<Utc>,
    pub(in crate::collect) received: DateTime<Utc>,
}

/// Hands over one answer for each of `tables`.
#[derive(Debug)]
struct Answers<'a> {
    host: &'a str,
    /// Tables without an answer yet.
    open: BTreeMap<&'a str, ()>,
    out: Sender<Answer>,
    window: Window,
}

impl<'a> Answers<'a> {
    fn new(host: &'a str, tables: &'a [TableSpec], out: Sender<Answer>, window: Window) -> Self {
        let open = tables.iter().map(|table| (table.name.as_str(), ())).collect();
        Self { host, open, out, window }
    }

    /// Unpacks a payload into answers; `Err` says what was wrong with it.
    fn unpack(&mut self, manifest: &Manifest, gz: &[u8], limits: &UnpackLimits) -> Result<(), String> {
        let mut strangers = 0_u64;
        let unpacked = unpack(gz, limits, &mut |answer| {
            if self.open.remove(answer.table.as_str()).is_none() {
                strangers += 1;
                return true;
            }
            let answer = self.answer(manifest, answer);
            self.out.blocking_send(answer).is_ok()
        });
        if strangers > 0 {
            tracing::warn!(
                host = self.host,
                strangers,
                "a host answered what it was not asked, or twice; left out"
            );
        }
        unpacked.map_err(|error| error.to_string())
    }

    fn answer(&self, manifest: &Manifest, answer: RemoteAnswer) -> Answer {
        let (status, error) = judge(&answer);
        Answer {
            status,
            error,
            started: self.time(manifest, answer.started),
            ended: self.time(manifest, answer.ended),
            osquery_version: version(manifest),
            uid: manifest.uid,
            table: answer.table,
            json: answer.stdout,
        }
    }

    /// A time of the host's clock on ours: only its distance to the end of the script counts, and it cannot lie outside
    /// of the time between sending and receiving.
    fn time(&self, manifest: &Manifest, epoch: i64) -> DateTime<Utc> {
        let ago = manifest.clock.and_then(|end| TimeDelta::try_seconds(end.checked_sub(epoch)?));
        let time = ago.and_then(|ago| self.window.received.checked_sub_signed(ago));
        time.unwrap_or(self.window.received).clamp(self.window.sent, self.window.received)
    }

    /// The tables that have no answer get this one.
    async fn close(self, status: Status, error: &str) {
        for table in self.open.into_keys() {
            let answer = no_answer(table, (status, error), self.window);
            if self.out.send(answer).await.is_err() {
                return;
            }
        }
    }
}

/// Answers of a host that gave none.
pub(in crate::collect) async fn refuse(tables: &[TableSpec], out: &Sender<Answer>, why: (Status, &str)) {
    let window = Window { sent: now(), received: now() };
    for table in tables {
        if out.send(no_answer(&table.name, why, window)).await.is_err() {
            return;
        }
    }
}

fn no_answer(table: &str, (status, error): (Status, &str), window: Window) -> Answer {
    Answer {
        table: table.to_owned(),
        status,
        json: Vec::new(),
        error: error.to_owned(),
        started: window.sent,
        ended: window.received,
        osquery_version: None,
        uid: None,
    }
}

fn version(manifest: &Manifest) -> Option<String> {
    match &manifest.agent {
        Agent::Osquery(version) => Some(version.clone()),
        Agent::Native(_) | Agent::None => None,
    }
}

/// What is odd about how a host presents itself.
pub(in crate::collect) fn oddities(host: &str, manifest: &Manifest, window: Window) -> Vec<String> {
    let mut odd = Vec::new();
    if manifest.host != host {
        odd.push(format!("host {host} answers under the name `{}`", shown_name(&manifest.host)));
    }
    odd.extend(odd_clock(host, manifest, window));
    odd
}

/// A name that a host gives itself, short enough for a sentence.
pub(in crate::collect) fn shown_name(name: &str) -> String {
    name.chars().take(LONGEST_NAME).collect::<String>().escape_debug().to_string()
}

/// What is odd about the clock of a host.
pub(in crate::collect) fn odd_clock(host: &str, manifest: &Manifest, window: Window) -> Option<String> {
    let clock = manifest.clock.and_then(|clock| DateTime::from_timestamp(clock, 0));
    match clock {
        Some(clock) if clock < window.sent - SKEW || clock > window.received + SKEW => {
            let off = (clock - window.received).num_minutes().unsigned_abs();
            Some(format!("the clock of host {host} is {} off; its times are not used", span(off)))
        }
        Some(_) => None,
        None => Some(format!("host {host} does not say what time it has")),
    }
}

fn span(minutes: u64) -> String {
    match minutes {
        0..120 => format!("{minutes} minutes"),
        120..2_880 => format!("{} hours", minutes / 60),
        _ => format!("{} days", minutes / 1_440),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Via;
    use super::*;

    fn manifest(host: &str, clock: Option<i64>) -> Manifest {
        Manifest {
            host: host.to_owned(),
            uid: Some(0),
            clock,
            agent: Agent::Osquery("5.10.2".to_owned()),
            answers: 1,
            raw: 0,
            gz: 0,
            sha256: [0; 32],
            via: Via::Inline,
            upload: None,
            notes: Vec::new(),
        }
    }

    fn window() -> Window {
        Window {
            sent: "2026-01-02T03:04:05Z".parse().unwrap(),
            received: "2026-01-02T03:05:05Z".parse().unwrap(),
        }
    }

    fn at(clock: Option<i64>, epoch: i64) -> DateTime<Utc> {
        let (out, _in) = tokio::sync::mpsc::channel(1);
        Answers::new("i-1", &[], out, window()).time(&manifest("i-1", clock), epoch)
    }

    #[test]
    fn only_distances_of_a_hosts_clock_count() {
        let window = window();
        let right = window.received.timestamp();
        assert_eq!(at(Some(right), right - 10), window.received - TimeDelta::seconds(10));
        assert_eq!(
            at(Some(1_000), 990),
            window.received - TimeDelta::seconds(10),
            "a clock that is years off"
        );
        assert_eq!(at(Some(1_000), 2_000), window.received, "after the end");
        assert_eq!(at(Some(i64::MAX), i64::MIN), window.received);
        assert_eq!(at(Some(100_000), 0), window.sent, "before the order");
        assert_eq!(at(None, 5), window.received);
    }

    #[test]
    fn a_wrong_name_and_a_wrong_clock_are_told() {
        let window = window();
        assert!(oddities("i-1", &manifest("i-1", Some(window.received.timestamp())), window).is_empty());
        let odd = oddities("i-1", &manifest("i-2", Some(0)), window);
        assert_eq!(odd.len(), 2);
        assert!(odd[0].contains("`i-2`") && odd[1].contains("days off"), "{odd:?}");
        assert_eq!(oddities("i-1", &manifest("i-1", Some(i64::MAX)), window).len(), 1);
    }
}
