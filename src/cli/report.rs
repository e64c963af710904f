//! What `diffy analyze --format html` and `diffy demo` put into a report beside the analysis: lines of SQL that show a
//! row, what to paste into a file of suppressions, and what hosts did not answer.

use std::fmt::Write as _;
use std::path::Path;

use chrono::NaiveDate;

use super::App;
use super::analyze::{engine, write_with};
use crate::analyze::{NewSuppression, answers, identifying_columns};
use crate::error::Result;
use crate::model::{Analysis, Finding, FindingKind, HostResult, SnapshotId, now};
use crate::report::escape::deceives;
use crate::report::html::{Help, Supplement, render};
use crate::report::{Format, queries};
use crate::store::{Manifest, Store};

/// Stands in the suppression for what only the reader can say.
const REASON: &str = "say why it is harmless";
/// Bytes of a suppression; longer patterns would be refused, and hosts must not make reports of any size.
const LONGEST_SUPPRESSION: usize = 8 << 10;
/// Stands where one would be longer.
const TOO_LONG: &str = "# A value of this row is too long for a pattern: write one by hand for a part of it.";

/// A report of one snapshot.
pub(super) struct Report<'a> {
    pub(super) store: &'a Store,
    pub(super) manifest: &'a Manifest,
    /// The store as commands must name it; the default one needs no name.
    pub(super) url: Option<&'a str>,
    /// What a reader must know of the report as a whole.
    pub(super) notes: Vec<String>,
}

impl Report<'_> {
    /// Writes the report to stdout or a file.
    pub(super) async fn write(self, app: &App, analysis: &Analysis, file: Option<&Path>) -> Result<()> {
        let engine = engine(app, self.store, vec![self.manifest.clone()])?;
        let answers = answers(&engine, self.manifest.snapshot).await?;
        let aid = Aid::new(app, self.manifest.snapshot, self.url);
        let supplement = Supplement {
            notes: self.notes,
            tables: answers.tables.into_iter().collect(),
            answers: answers.by_status.into_iter().collect(),
            failures: answers.failures,
            help: &|host, finding| aid.help(host, finding),
        };
        write_with(app, (Format::Html, 0), file, &mut |_, out| render(analysis, &supplement, out))
    }
}

/// What a reader can do about the findings of one snapshot.
struct Aid<'a> {
    app: &'a App,
    snapshot: SnapshotId,
    /// The store as commands must name it.
    store: Option<&'a str>,
    today: NaiveDate,
}

impl<'a> Aid<'a> {
    fn new(app: &'a App, snapshot: SnapshotId, store: Option<&'a str>) -> Self {
        Self { app, snapshot, store, today: now().date_naive() }
    }

    fn help(&self, host: &HostResult, finding: &Finding) -> Help {
        Help {
            queries: queries(self.snapshot, (&host.host, finding), self.store),
            suppression: self.suppression(host, finding),
        }
    }

    fn suppression(&self, host: &HostResult, finding: &Finding) -> String {
        let new = NewSuppression {
            table: finding.table.clone(),
            kind: finding.kind,
            columns: identifying_columns(self.app.catalog.table(&finding.table), finding),
            host: (finding.kind == FindingKind::Coverage).then(|| host.host.clone()),
            reason: REASON.to_owned(),
            who: self.app.settings.who.clone(),
            created: self.today,
            until: None,
        };
        let toml = visible(&new.to_toml());
        if toml.len() > LONGEST_SUPPRESSION { TOO_LONG.to_owned() } else { toml }
    }
}

/// TOML without characters that deceive: all of its texts are basic strings, in which they may be spelled like this.
fn visible(toml: &str) -> String {
    let mut out = String::with_capacity(toml.len());
    for c in toml.chars() {
        match c {
            '\n' => out.push(c),
            c if deceives(c) => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\U{:08X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suppressions_show_all_their_characters() {
        assert_eq!(visible("a = \"\u{3164}\"\n"), "a = \"\\U00003164\"\n");
    }
}
