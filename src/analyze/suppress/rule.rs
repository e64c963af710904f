//! One suppression, and which findings it takes.

use std::borrow::Cow;

use chrono::NaiveDate;
use serde_json::Value;

use super::pattern::Pattern;
use crate::error::{Error, Result};
use crate::model::{Finding, FindingKind, Row};

/// Which tables a suppression is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tables {
    /// The one of the finding that it names by id.
    Unsaid,
    /// Whichever have the columns.
    All,
    /// These.
    These(Vec<String>),
}

/// One suppression: a finding that fits all that it says is left out.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    /// File and line.
    pub(super) place: String,
    pub(super) tables: Tables,
    pub(super) columns: Vec<(String, Pattern)>,
    pub(super) host: Option<Pattern>,
    pub(super) kind: Option<FindingKind>,
    pub(super) id: Option<String>,
    pub(super) reason: String,
    pub(super) who: String,
    /// The last day on which it holds.
    pub(super) until: Option<NaiveDate>,
}

impl Rule {
    /// Refuses what would take everything.
    pub(super) fn check(&self) -> Result<()> {
        if self.id.is_some() {
            return Ok(());
        }
        let narrows = |pattern: &Pattern| !pattern.takes_everything();
        let by_columns = self.columns.iter().any(|(_, pattern)| narrows(pattern));
        let by_host = self.host.as_ref().is_some_and(narrows);
        match self.tables {
            Tables::Unsaid => Err(Error::config("a suppression needs `table` or `id`")
                .with("key", "table")
                .hint("write table = \"crontab\", or id = \"…\" with the id of a finding")),
            Tables::All if !by_columns => Err(Error::config("this suppression takes every finding")
                .with("key", "table")
                .hint("name the table, or say in `columns` what the rows look like")),
            Tables::These(_) if !by_columns && !by_host => {
                Err(Error::config("this suppression takes every finding of its table")
                    .with("key", "columns")
                    .hint("say in `columns` what the rows look like, or in `host` where they are"))
            }
            _ => Ok(()),
        }
    }

    /// Whether it no longer holds.
    pub(super) fn is_expired(&self, today: NaiveDate) -> bool {
        self.until.is_some_and(|until| until < today)
    }

    /// Whether it takes this finding of this host, expired or not.
    pub(super) fn takes(&self, host: &str, finding: &Finding) -> bool {
        self.is_about(finding)
            && self.kind.is_none_or(|kind| kind == finding.kind)
            && self.id.as_ref().is_none_or(|id| *id == finding.id)
            && self.host.as_ref().is_none_or(|pattern| pattern.matches(host))
            && self.columns.iter().all(|(column, pattern)| pattern.matches(&value(&finding.row, column)))
    }

    /// That a host would not answer is too much to be left out by the way: only by name.
    fn is_about(&self, finding: &Finding) -> bool {
        match &self.tables {
            Tables::Unsaid => self.id.is_some(),
            Tables::All => finding.kind != FindingKind::Coverage || self.id.is_some(),
            Tables::These(names) => names.contains(&finding.table),
        }
    }
}

/// A value as osquery printed it; an unknown one is like an empty one.
pub(super) fn value<'a>(row: &'a Row, column: &str) -> Cow<'a, str> {
    match row.get(column) {
        None | Some(Value::Null) => Cow::Borrowed(""),
        Some(Value::String(text)) => Cow::Borrowed(text),
        Some(other) => Cow::Owned(other.to_string()),
    }
}
