//! One line of an osqueryd log, in every shape that osqueryd has.

use std::borrow::Cow;

use chrono::{DateTime, NaiveDateTime, Utc};
use serde_json::value::RawValue;

use super::excerpt;
use super::row::{Pairs, each_element, text_of};
use super::split::reason;
use super::utf8::shown;

/// What a line of a log is.
#[derive(Debug)]
pub enum LogLine<'a> {
    /// Results of a scheduled query.
    Entry(LogEntry<'a>),
    /// A status line of the agent about itself.
    Status,
}

/// Results of one scheduled query on one host.
#[derive(Debug)]
pub struct LogEntry<'a> {
    /// `hostIdentifier`, or `hostname` where that is all there is.
    pub host: Cow<'a, str>,
    /// Name of the scheduled query.
    pub query: Cow<'a, str>,
    /// `unixTime`, or `calendarTime` where that is all there is.
    pub time: Option<DateTime<Utc>>,
    /// Changes when the schedule starts anew; 0 where nothing is said.
    pub epoch: i64,
    /// 0 for the full initial result, then counting up; none in logs of old agents.
    pub counter: Option<i64>,
    /// The rows.
    pub body: LogBody<'a>,
    /// Decorations, nested or at the top level.
    pub decorations: Vec<(Cow<'a, str>, &'a RawValue)>,
    /// The agent's version, where a decoration says it.
    pub osquery_version: Option<String>,
    /// Reserved keys that stand twice in the line: a decoration may try to pass for another host. The first counts.
    pub collisions: Vec<String>,
}

/// Rows of a log entry, as JSON text.
#[derive(Debug, Clone, Copy)]
pub enum LogBody<'a> {
    /// All rows: an array.
    Snapshot(&'a RawValue),
    /// One row of a snapshot that is logged row by row.
    SnapshotRow(&'a RawValue),
    /// One row that is new.
    Added(&'a RawValue),
    /// One row that is gone.
    Removed(&'a RawValue),
    /// Two arrays: what is new and what is gone.
    Batch {
        /// Array of new rows.
        added: Option<&'a RawValue>,
        /// Array of rows that are gone.
        removed: Option<&'a RawValue>,
    },
}

impl<'a> LogBody<'a> {
    /// Whether it is the shape that has a line for each row.
    pub(super) fn is_one_row(self) -> bool {
        matches!(self, Self::SnapshotRow(_) | Self::Added(_) | Self::Removed(_))
    }

    /// Shows the rows it holds, each with whether it is new (`true`) or gone (`false`).
    ///
    /// # Errors
    /// An array of rows is none.
    pub(super) fn each_row(self, see: &mut dyn FnMut(bool, &'a RawValue)) -> Result<(), String> {
        match self {
            Self::Snapshot(rows) => each_of_array(rows, &mut |row| see(true, row))?,
            Self::SnapshotRow(row) | Self::Added(row) => see(true, row),
            Self::Removed(row) => see(false, row),
            Self::Batch { added, removed } => {
                if let Some(rows) = removed {
                    each_of_array(rows, &mut |row| see(false, row))?;
                }
                if let Some(rows) = added {
                    each_of_array(rows, &mut |row| see(true, row))?;
                }
            }
        }
        Ok(())
    }
}

/// The elements of an array; old agents write an empty one as an empty string.
fn each_of_array<'a>(rows: &'a RawValue, see: &mut dyn FnMut(&'a RawValue)) -> Result<(), String> {
    if matches!(rows.get(), "\"\"" | "null") {
        return Ok(());
    }
    each_element(rows, see).map_err(|_| format!("expected an array of rows, found `{}`", excerpt(rows.get())))
}

/// The reserved keys of a line; everything else at the top level is a decoration.
#[derive(Default)]
struct Fields<'a> {
    name: Option<&'a RawValue>,
    host_identifier: Option<&'a RawValue>,
    hostname: Option<&'a RawValue>,
    unix_time: Option<&'a RawValue>,
    calendar_time: Option<&'a RawValue>,
    epoch: Option<&'a RawValue>,
    counter: Option<&'a RawValue>,
    numerics: Option<&'a RawValue>,
    decorations: Option<&'a RawValue>,
    columns: Option<&'a RawValue>,
    action: Option<&'a RawValue>,
    snapshot: Option<&'a RawValue>,
    diff_results: Option<&'a RawValue>,
}

impl<'a> Fields<'a> {
    fn slot(&mut self, key: &str) -> Option<&mut Option<&'a RawValue>> {
        Some(match key {
            "name" => &mut self.name,
            "hostIdentifier" => &mut self.host_identifier,
            "hostname" => &mut self.hostname,
            "unixTime" => &mut self.unix_time,
            "calendarTime" => &mut self.calendar_time,
            "epoch" => &mut self.epoch,
            "counter" => &mut self.counter,
            "numerics" | "logNumericsAsNumbers" => &mut self.numerics,
            "decorations" => &mut self.decorations,
            "columns" => &mut self.columns,
            "action" => &mut self.action,
            "snapshot" => &mut self.snapshot,
            "diffResults" => &mut self.diff_results,
            _ => return None,
        })
    }
}

/// Reads one line: event, batch, snapshot or snapshot row. The text is that of a valid JSON document in transport
/// encoding.
///
/// # Errors
/// A sentence that says what the line lacks.
pub fn parse_line(text: &str) -> Result<LogLine<'_>, String> {
    let Pairs(pairs) = serde_json::from_str(text)
        .map_err(|error| format!("expected a log entry, found `{}`: {}", excerpt(text), reason(&error)))?;
    let mut fields = Fields::default();
    let mut decorations = Vec::new();
    let mut collisions = Vec::new();
    let mut is_status = false;
    for (key, value) in pairs {
        is_status |= matches!(key.as_ref(), "severity" | "s");
        match fields.slot(&key) {
            Some(slot) if slot.is_none() => *slot = Some(value),
            Some(_) => collisions.push(shown(key).into_owned()),
            None => decorations.push((key, value)),
        }
    }
    if is_status && fields.name.is_none() {
        return Ok(LogLine::Status);
    }
    if let Some(nested) = fields.decorations {
        decorations
            .extend(serde_json::from_str::<Pairs<'_>>(nested.get()).map_or(Vec::new(), |pairs| pairs.0));
    }
    entry(&fields, decorations, collisions).map(LogLine::Entry)
}

fn entry<'a>(
    fields: &Fields<'a>,
    decorations: Vec<(Cow<'a, str>, &'a RawValue)>,
    collisions: Vec<String>,
) -> Result<LogEntry<'a>, String> {
    let host = fields.host_identifier.or(fields.hostname).and_then(text_of);
    let host = shown(host.ok_or("this log entry names no host (`hostIdentifier`)")?);
    check_host(&host)?;
    let query = fields.name.and_then(text_of).ok_or("this log entry names no query (`name`)")?;
    let version = decorations.iter().find(|(key, _)| key == "osquery_version");
    Ok(LogEntry {
        host,
        query: shown(query),
        time: time_of(fields),
        epoch: fields.epoch.and_then(number).unwrap_or(0),
        counter: fields.counter.and_then(number),
        body: body_of(fields)?,
        osquery_version: version.and_then(|(_, value)| text_of(value)).map(|text| excerpt(&text)),
        decorations,
        collisions,
    })
}

/// Says why a name cannot be a host's.
pub(super) fn check_host(name: &str) -> Result<(), String> {
    let wrong = if name.is_empty() {
        "is empty"
    } else if name.len() > 255 {
        "is longer than 255 bytes"
    } else if name.chars().any(char::is_control) {
        "holds control characters"
    } else {
        return Ok(());
    };
    Err(format!("the host name `{}` {wrong}", excerpt(name)))
}

fn number(value: &RawValue) -> Option<i64> {
    text_of(value)?.trim().parse().ok()
}

fn time_of(fields: &Fields<'_>) -> Option<DateTime<Utc>> {
    let unix = fields.unix_time.and_then(number).and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    unix.or_else(|| {
        let text = fields.calendar_time.and_then(text_of)?;
        let time =
            NaiveDateTime::parse_from_str(text.trim_end_matches(" UTC"), "%a %b %e %H:%M:%S %Y").ok()?;
        Some(time.and_utc())
    })
}

fn body_of<'a>(fields: &Fields<'a>) -> Result<LogBody<'a>, String> {
    if let Some(rows) = fields.snapshot {
        return Ok(LogBody::Snapshot(rows));
    }
    if let Some(batch) = fields.diff_results {
        return batch_of(batch);
    }
    let row = fields.columns.ok_or("this log entry has no rows (`columns`, `diffResults` or `snapshot`)")?;
    match fields.action.and_then(text_of).as_deref() {
        Some("added") => Ok(LogBody::Added(row)),
        Some("removed") => Ok(LogBody::Removed(row)),
        Some("snapshot") => Ok(LogBody::SnapshotRow(row)),
        other => Err(format!("`{}` is no action of a log entry", excerpt(other.unwrap_or_default()))),
    }
}

fn batch_of(batch: &RawValue) -> Result<LogBody<'_>, String> {
    let (mut added, mut removed) = (None, None);
    if !matches!(batch.get(), "\"\"" | "null") {
        let Pairs(pairs) = serde_json::from_str(batch.get())
            .map_err(|_| format!("expected `diffResults` of two arrays, found `{}`", excerpt(batch.get())))?;
        for (key, value) in pairs {
            match key.as_ref() {
                "added" => added = Some(value),
                "removed" => removed = Some(value),
                other => return Err(format!("`{}` is no part of `diffResults`", excerpt(other))),
            }
        }
    }
    Ok(LogBody::Batch { added, removed })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(line: &str, expect: &str) {
        let seen = match parse_line(line) {
            Err(message) => message,
            Ok(LogLine::Status) => "status".to_owned(),
            Ok(LogLine::Entry(entry)) => {
                let time = entry.time.map_or(0, |time| time.timestamp());
                let mut rows = String::new();
                let mut see = |is_new, row: &RawValue| {
                    rows.push(if is_new { '+' } else { '-' });
                    rows.push_str(row.get());
                };
                entry.body.each_row(&mut see).unwrap();
                let decorations: Vec<&str> = entry.decorations.iter().map(|(key, _)| key.as_ref()).collect();
                let counter = entry.counter.map_or("~".to_owned(), |counter| counter.to_string());
                format!(
                    "{} {} {time} {}/{counter} {} {decorations:?} {:?}",
                    entry.host, entry.query, entry.epoch, rows, entry.collisions
                )
            }
        };
        assert_eq!(seen, expect, "{line}");
    }

    #[test]
    fn every_shape_is_read() {
        check(
            r#"{"name":"q","hostIdentifier":"h","calendarTime":"x","unixTime":5,"epoch":1,"counter":3,"numerics":false,"decorations":{"d":"1"},"columns":{"a":"1"},"action":"added"}"#,
            r#"h q 5 1/3 +{"a":"1"} ["d"] []"#,
        );
        check(
            r#"{"name":"q","hostname":"h","unixTime":"5","epoch":"1","counter":"0","columns":{"a":1},"action":"removed"}"#,
            r#"h q 5 1/0 -{"a":1} [] []"#,
        );
        check(
            r#"{"diffResults":{"removed":[{"a":"1"}],"added":[{"a":"2"},{"a":"3"}]},"name":"q","hostIdentifier":"h","calendarTime":"Mon Jan  5 10:00:00 2026 UTC"}"#,
            r#"h q 1767607200 0/~ -{"a":"1"}+{"a":"2"}+{"a":"3"} [] []"#,
        );
        check(
            r#"{"snapshot":[{"a":"1"}],"action":"snapshot","name":"q","hostIdentifier":"h","hostname":"g","unixTime":5,"x":{}}"#,
            r#"h q 5 0/~ +{"a":"1"} ["x"] []"#,
        );
        check(r#"{"snapshot":"","name":"q","hostIdentifier":"h"}"#, "h q 0 0/~  [] []");
        check(
            r#"{"columns":{"a":"1"},"action":"snapshot","name":"q","hostIdentifier":"h"}"#,
            r#"h q 0 0/~ +{"a":"1"} [] []"#,
        );
    }

    #[test]
    fn a_second_host_identifier_does_not_count() {
        check(
            r#"{"name":"q","hostIdentifier":"h","hostIdentifier":"victim","snapshot":[]}"#,
            r#"h q 0 0/~  [] ["hostIdentifier"]"#,
        );
    }

    #[test]
    fn lines_that_are_no_entries_are_named() {
        check(r#"{"severity":"1","filename":"x.cpp","message":"m","hostIdentifier":"h"}"#, "status");
        check("[]", "expected a log entry, found `[]`: invalid type: sequence, expected an object");
        check(r#"{"name":"q","snapshot":[]}"#, "this log entry names no host (`hostIdentifier`)");
        check(r#"{"hostname":"h","snapshot":[]}"#, "this log entry names no query (`name`)");
        check(
            r#"{"hostname":"a\u0007","name":"q","snapshot":[]}"#,
            r"the host name `a\u{7}` holds control characters",
        );
        check(
            r#"{"hostname":"h","name":"q"}"#,
            "this log entry has no rows (`columns`, `diffResults` or `snapshot`)",
        );
        check(
            r#"{"hostname":"h","name":"q","columns":{},"action":"exploded"}"#,
            "`exploded` is no action of a log entry",
        );
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(line in r#"\{(("name"|"hostname"|"snapshot"|"epoch"|"é"):("x"|\[\]|\{\}|1|null),?){0,6}\}|\PC{0,40}"#) {
            if let Ok(LogLine::Entry(entry)) = parse_line(&line) {
                let _ = entry.body.each_row(&mut |_, _| {});
            }
        }
    }
}
