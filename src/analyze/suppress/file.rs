//! The file of suppressions: what a person vouches for, why, and until when.

use std::collections::BTreeMap;
use std::fmt::Write;

use chrono::NaiveDate;
use serde::Deserialize;
use toml::{Spanned, Value};

use super::Suppressions;
use super::pattern::Pattern;
use super::rule::{Rule, Tables};
use crate::catalog::nearest;
use crate::error::{Error, Result};
use crate::model::FindingKind;

/// Most bytes of a file.
const MOST_BYTES: usize = 4 << 20;
/// Most suppressions of a file; with more, nobody knows any longer what is left out.
const MOST_RULES: usize = 10_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    suppress: Vec<Spanned<Entry>>,
}

/// `[[suppress]]` as it is written. Values are looked at in [`rule`], which can say what to do about them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    table: Option<Value>,
    #[serde(default)]
    columns: BTreeMap<String, Value>,
    host: Option<String>,
    kind: Option<String>,
    id: Option<String>,
    reason: Option<String>,
    who: Option<String>,
    created: Option<Value>,
    until: Option<Value>,
}

/// Reads the suppressions of a file; `name` is what errors and warnings call it.
pub(super) fn parse(text: &str, name: &str) -> Result<Vec<Rule>> {
    if text.len() > MOST_BYTES {
        return Err(too_large(name, &format!("{MOST_BYTES} bytes")));
    }
    let file: File = toml::from_str(text).map_err(|source| {
        Error::config("this is no file of suppressions")
            .source(source)
            .with("file", name)
            .hint("keys of [[suppress]]: table, columns, host, kind, id, reason, who, created, until")
    })?;
    if file.suppress.len() > MOST_RULES {
        return Err(too_large(name, &format!("{MOST_RULES} suppressions")));
    }
    let read = |entry: Spanned<Entry>| {
        let line = text[..entry.span().start.min(text.len())].matches('\n').count() + 1;
        rule(entry.into_inner(), &format!("{name}:{line}"))
            .map_err(|error| error.with("file", name).with("line", line))
    };
    file.suppress.into_iter().map(read).collect()
}

fn too_large(name: &str, most: &str) -> Error {
    Error::config(format!("a file of suppressions has at most {most}"))
        .with("file", name)
        .hint("a pattern with `*` can stand for many; or make a baseline")
}

fn rule(entry: Entry, place: &str) -> Result<Rule> {
    let needed = |key: &'static str, value: Option<String>| {
        value.filter(|text| !text.trim().is_empty()).ok_or_else(|| {
            Error::config(format!("a suppression needs `{key}`")).hint(format!(
                "say it: {key} = \"…\"; whoever reads the file next year must be able to judge it"
            ))
        })
    };
    let reason = needed("reason", entry.reason)?;
    let who = needed("who", entry.who)?;
    let pattern = |key: &str, value: &Value| {
        Pattern::parse(&plain(key, value)?).map_err(|error| error.with("key", key))
    };
    let columns = entry.columns.iter().map(|(column, value)| Ok((column.clone(), pattern(column, value)?)));
    // It says nothing of the creation but for readers; a date that is none is a mistake all the same.
    entry.created.as_ref().map(|value| date("created", value)).transpose()?;
    let rule = Rule {
        place: place.to_owned(),
        tables: tables(entry.table.as_ref())?,
        columns: columns.collect::<Result<_>>()?,
        host: entry
            .host
            .as_deref()
            .map(|host| Pattern::parse(host).map_err(|error| error.with("key", "host")))
            .transpose()?,
        kind: entry.kind.as_deref().map(kind).transpose()?,
        id: entry.id.filter(|id| !id.is_empty()),
        reason,
        who,
        until: entry.until.as_ref().map(|value| date("until", value)).transpose()?,
    };
    rule.check()?;
    Ok(rule)
}

/// A value as osquery prints it: numbers are text.
fn plain(key: &str, value: &Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        _ => Err(Error::config(format!("`{key}` is neither text nor a whole number"))
            .with("key", key)
            .hint(format!("write {key} = \"…\""))),
    }
}

fn tables(value: Option<&Value>) -> Result<Tables> {
    let wrong = || {
        Error::config("`table` is no table").with("key", "table").hint(
            "write table = \"crontab\", table = [\"crontab\", \"processes\"] or, with `columns`, table = \"*\"",
        )
    };
    let names = match value {
        // A finding's id says its table.
        None => return Ok(Tables::Unsaid),
        Some(Value::String(name)) if name == "*" => return Ok(Tables::All),
        Some(Value::String(name)) => vec![name.clone()],
        Some(Value::Array(names)) => names
            .iter()
            .map(|name| name.as_str().map(str::to_owned).ok_or_else(wrong))
            .collect::<Result<_>>()?,
        Some(_) => return Err(wrong()),
    };
    if names.is_empty() || names.iter().any(|name| name.is_empty() || name.contains('*')) {
        return Err(wrong());
    }
    Ok(Tables::These(names))
}

fn kind(name: &str) -> Result<FindingKind> {
    FindingKind::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or_else(|| {
        let known = FindingKind::ALL.map(FindingKind::as_str);
        let meant = nearest(name, known.into_iter()).map(|near| format!("; did you mean `{near}`?"));
        Error::config(format!("there is no kind `{}`{}", name.escape_debug(), meant.unwrap_or_default()))
            .with("key", "kind")
            .hint(format!("kinds are: {}", known.join(", ")))
    })
}

/// A date of TOML, or the same as text.
fn date(key: &'static str, value: &Value) -> Result<NaiveDate> {
    let text = match value {
        Value::Datetime(date) if date.time.is_none() => date.to_string(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    parse_date(&text).map_err(|error| error.with("key", key))
}

/// A day in the form `2026-12-31`.
///
/// # Errors
/// It is no day of the calendar.
pub fn parse_date(text: &str) -> Result<NaiveDate> {
    NaiveDate::parse_from_str(text, "%Y-%m-%d").map_err(|source| {
        Error::config(format!("`{}` is no date", text.escape_debug()))
            .source(source)
            .hint("a date is written 2026-12-31")
    })
}

/// A new suppression, to be appended to a file.
#[derive(Debug, Clone)]
pub struct NewSuppression {
    /// The table.
    pub table: String,
    /// The kind of finding.
    pub kind: FindingKind,
    /// Columns and their values, exactly; unknown ones empty.
    pub columns: Vec<(String, String)>,
    /// The host, where it holds for this one only.
    pub host: Option<String>,
    /// Why.
    pub reason: String,
    /// Who vouches.
    pub who: String,
    /// Today.
    pub created: NaiveDate,
    /// The last day on which it holds.
    pub until: Option<NaiveDate>,
}

impl NewSuppression {
    /// The file's text with the suppression behind it; what stood there, comments too, stays as it was.
    ///
    /// # Errors
    /// The result is no file of suppressions: the reason is missing, or `suppress` was written as one inline list.
    pub fn append_to(&self, text: &str, name: &str) -> Result<String> {
        let mut appended = text.to_owned();
        if !appended.is_empty() {
            appended.push_str(if appended.ends_with('\n') { "\n" } else { "\n\n" });
        }
        appended.push_str(&self.to_toml());
        Suppressions::parse(&appended, name)?;
        Ok(appended)
    }

    /// The `[[suppress]]` entry.
    pub fn to_toml(&self) -> String {
        let mut entry = String::from("[[suppress]]\n");
        // Writing to a string cannot fail.
        let _ = writeln!(entry, "table = {}", quoted(&self.table));
        let _ = writeln!(entry, "kind = {}", quoted(self.kind.as_str()));
        if let Some(host) = &self.host {
            let _ = writeln!(entry, "host = {}", quoted(&Pattern::exactly(host)));
        }
        let _ = writeln!(entry, "reason = {}", quoted(&self.reason));
        let _ = writeln!(entry, "who = {}", quoted(&self.who));
        let _ = writeln!(entry, "created = {}", self.created);
        if let Some(until) = self.until {
            let _ = writeln!(entry, "until = {until}");
        }
        entry.push_str("\n[suppress.columns]\n");
        for (column, value) in &self.columns {
            let _ = writeln!(entry, "{} = {}", quoted(column), quoted(&Pattern::exactly(value)));
        }
        entry
    }
}

/// A text as a basic string of TOML, on one line. Whatever could deceive a reader of the file is escaped: values come
/// from hosts.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            ' ' => quoted.push(' '),
            plain if plain.is_ascii_graphic() || plain.is_alphanumeric() => quoted.push(plain),
            other => {
                let _ = write!(quoted, "\\U{:08X}", u32::from(other));
            }
        }
    }
    quoted.push('"');
    quoted
}
