//! What logs say of one query on one host, learnt entry by entry.

use std::borrow::Cow;
use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

use super::excerpt;
use super::osqueryd::{LogBody, LogEntry};
use super::row::{Pairs, text_of};
use super::split::reason;
use super::utf8::{has_transport, unescape_differential};

pub(super) type Time = Option<DateTime<Utc>>;
type Digest = [u8; 16];

/// File and line; files are in the order of their first entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) file: usize,
    pub(super) line: u64,
}

pub(super) struct Snapshot {
    pub(super) time: Time,
    at: Position,
    by_row: bool,
    pub(super) version: Option<String>,
}

/// A full initial result and what changed since.
pub(super) struct Generation {
    epoch: i64,
    /// When it began; entries of the initial result share it.
    start: Time,
    from: Position,
    /// Whether the initial result is in the logs.
    is_based: bool,
    pub(super) last: Time,
    net: HashMap<Digest, i64>,
    pub(super) version: Option<String>,
}

impl Generation {
    fn new(at: Position, entry: &LogEntry<'_>) -> Self {
        Self {
            epoch: entry.epoch,
            start: entry.time,
            from: at,
            is_based: entry.counter == Some(0),
            last: entry.time,
            net: HashMap::new(),
            version: None,
        }
    }

    fn count(&mut self, digest: Digest, is_new: bool) {
        let count = self.net.entry(digest).or_default();
        *count += if is_new { 1 } else { -1 };
        if *count == 0 {
            self.net.remove(&digest);
        }
    }

    fn holds(&self, at: Position, entry: &LogEntry<'_>) -> bool {
        let is_initial = entry.counter == Some(0);
        at >= self.from && entry.epoch == self.epoch && (!is_initial || entry.time == self.start)
    }

    /// Whether the entry starts another generation; an initial result that is older than what is known does not.
    fn is_over(&self, entry: &LogEntry<'_>) -> bool {
        let is_initial = entry.counter == Some(0);
        let is_other =
            entry.epoch != self.epoch || (is_initial && !(self.is_based && entry.time == self.start));
        is_other && entry.time >= self.last
    }
}

/// What is known of one query on one host.
#[derive(Default)]
pub(super) struct State {
    pub(super) snapshot: Option<Snapshot>,
    pub(super) changes: Option<Generation>,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) error: String,
}

impl State {
    pub(super) fn is_snapshot(&self) -> bool {
        let changed = self.changes.as_ref().map(|changes| changes.last);
        self.snapshot.as_ref().is_some_and(|snapshot| changed.is_none_or(|changed| snapshot.time >= changed))
    }

    /// Whether the rows of the entry take part in the state.
    pub(super) fn uses(&self, at: Position, entry: &LogEntry<'_>) -> bool {
        let snapshot = self.snapshot.as_ref().filter(|_| self.is_snapshot());
        match (entry.body, snapshot) {
            (LogBody::Snapshot(_), Some(snapshot)) => snapshot.at == at,
            (LogBody::SnapshotRow(_), Some(snapshot)) => snapshot.by_row && snapshot.time == entry.time,
            (LogBody::Snapshot(_) | LogBody::SnapshotRow(_), None) => false,
            (_, Some(_)) => false,
            (_, None) => self.changes.as_ref().is_some_and(|changes| changes.holds(at, entry)),
        }
    }

    fn learn_snapshot(&mut self, at: Position, entry: &LogEntry<'_>, by_row: bool) {
        let newest = self.snapshot.as_ref();
        let is_known = newest.is_some_and(|known| by_row && known.by_row && known.time == entry.time);
        if !is_known && newest.is_none_or(|known| entry.time >= known.time) {
            let version = entry.osquery_version.clone();
            // What could not be read before is replaced by this.
            self.error.clear();
            self.snapshot = Some(Snapshot { time: entry.time, at, by_row, version });
        }
    }

    fn learn_changes(&mut self, at: Position, entry: &LogEntry<'_>) -> Result<(), String> {
        if self.changes.as_ref().is_none_or(|changes| changes.is_over(entry)) {
            self.changes = Some(Generation::new(at, entry));
            self.error.clear();
        }
        let Some(changes) = self.changes.as_mut().filter(|changes| changes.holds(at, entry)) else {
            return Ok(());
        };
        changes.last = changes.last.max(entry.time);
        changes.version = entry.osquery_version.clone().or(changes.version.take());
        let mut first_defect = Ok(());
        entry.body.each_row(&mut |is_new, row| match digest_of(row) {
            Ok(digest) => changes.count(digest, is_new),
            Err(message) => first_defect = std::mem::replace(&mut first_defect, Ok(())).and(Err(message)),
        })?;
        first_defect
    }
}

impl State {
    pub(super) fn learn_entry(&mut self, at: Position, entry: &LogEntry<'_>) -> Result<(), String> {
        match entry.body {
            LogBody::Snapshot(_) => self.learn_snapshot(at, entry, false),
            LogBody::SnapshotRow(_) => self.learn_snapshot(at, entry, true),
            _ => {
                let learnt = self.learn_changes(at, entry);
                return learnt.inspect_err(|message| self.error.clone_from(message));
            }
        }
        Ok(())
    }
}

impl State {
    /// Takes one of the rows that are in the state, if one like this is left.
    pub(super) fn takes(&mut self, row: &RawValue) -> bool {
        let Some(changes) = self.changes.as_mut() else { return false };
        let Some(count) = digest_of(row).ok().and_then(|digest| changes.net.get_mut(&digest)) else {
            return false;
        };
        let is_left = *count > 0;
        *count -= i64::from(is_left);
        is_left
    }
}

/// What is not known of a state that was built from changes.
pub(super) fn gap_of(changes: &Generation) -> String {
    let removed: i64 = changes.net.values().filter(|count| **count < 0).map(|count| -count).sum();
    if !changes.is_based {
        "the logs hold changes but not the initial result (counter 0) before them".to_owned()
    } else if removed > 0 {
        format!("{removed} rows were removed that the logs never added")
    } else {
        String::new()
    }
}

/// The first 128 bits of BLAKE3 over the row's pairs, by key, each length-prefixed; values in their plain spelling.
///
/// Cryptographic because the host is hostile: no row may pass for another.
fn digest_of(row: &RawValue) -> Result<Digest, String> {
    let Pairs(mut pairs) = serde_json::from_str(row.get())
        .map_err(|error| format!("expected a row, found `{}`: {}", excerpt(row.get()), reason(&error)))?;
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    let mut hasher = blake3::Hasher::new();
    let mut part = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    for (key, value) in &pairs {
        part(key);
        part(&text_of(value).map_or(Cow::Borrowed(""), plain_text));
    }
    let mut digest = Digest::default();
    hasher.finalize_xof().fill(&mut digest);
    Ok(digest)
}

/// The text without osquery's byte spelling, unless that would give a character of the transport encoding.
pub(super) fn plain_text(text: Cow<'_, str>) -> Cow<'_, str> {
    let plain = unescape_differential(&text);
    if matches!(plain, Cow::Borrowed(_)) || has_transport(&plain) {
        text
    } else {
        Cow::Owned(plain.into_owned())
    }
}
