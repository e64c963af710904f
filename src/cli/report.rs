//! What `diffy analyze --format html` and `diffy demo` put into a report beside the analysis: lines of SQL that show a
//! row, what to paste into a file of suppressions, and what hosts did not answer.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use chrono::NaiveDate;
use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;

use super::App;
use super::analyze::engine;
use crate::analyze::{NewSuppression, identifying_columns};
use crate::catalog::ParamValue;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::model::{Analysis, Finding, FindingKind, HostResult, SnapshotId, Status, now};
use crate::report::escape::deceives;
use crate::report::html::{Failure, Help, Supplement, render};
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
        let answers = Answers::load(app, self.store, self.manifest).await?;
        let aid = Aid::new(app, self.manifest.snapshot, self.url);
        let help = |host: &HostResult, finding: &Finding| aid.help(host, finding);
        let supplement = answers.supplement(&help, self.notes);
        let mut destination = app.output.open(file, Format::Html)?;
        render(analysis, &supplement, &mut destination.writer)?;
        destination
            .writer
            .flush()
            .map_err(|source| Error::remote("cannot write the report").source(source))?;
        destination.done(&app.output);
        Ok(())
    }
}

/// What hosts answered, by table and status.
#[derive(Debug, Default)]
struct Answers {
    tables: BTreeSet<String>,
    by_status: Vec<(Status, u64)>,
    failures: Vec<Failure>,
}

impl Answers {
    /// Reads the coverage of one snapshot.
    async fn load(app: &App, store: &Store, manifest: &Manifest) -> Result<Self> {
        let engine = engine(app, store, vec![manifest.clone()])?;
        let mut answers = Self::default();
        for batch in ask(&engine, manifest.snapshot, COUNTS).await? {
            answers.count(&batch)?;
        }
        for batch in ask(&engine, manifest.snapshot, FAILURES).await? {
            answers.note(&batch)?;
        }
        Ok(answers)
    }

    fn count(&mut self, batch: &RecordBatch) -> Result<()> {
        let (tables, statuses) = (text(batch, "table_name")?, text(batch, "status")?);
        let numbers = column(batch, "answers")?;
        let numbers = numbers.as_primitive_opt::<Int64Type>().ok_or_else(|| odd("answers"))?;
        for row in 0..batch.num_rows() {
            self.tables.insert(tables.value(row).to_owned());
            let status: Status = statuses.value(row).parse()?;
            let number = u64::try_from(numbers.value(row)).unwrap_or_default();
            match self.by_status.iter_mut().find(|(one, _)| *one == status) {
                Some((_, sum)) => *sum += number,
                None => self.by_status.push((status, number)),
            }
        }
        Ok(())
    }

    fn note(&mut self, batch: &RecordBatch) -> Result<()> {
        let (hosts, tables) = (text(batch, "host")?, text(batch, "table_name")?);
        let (statuses, errors) = (text(batch, "status")?, text(batch, "error")?);
        for row in 0..batch.num_rows() {
            self.failures.push(Failure {
                host: hosts.value(row).to_owned(),
                table: tables.value(row).to_owned(),
                status: statuses.value(row).parse()?,
                error: if errors.is_null(row) { String::new() } else { errors.value(row).to_owned() },
            });
        }
        Ok(())
    }

    /// All that goes beside the analysis.
    fn supplement<'a>(
        self,
        help: &'a dyn Fn(&HostResult, &Finding) -> Help,
        notes: Vec<String>,
    ) -> Supplement<'a> {
        Supplement {
            notes,
            tables: self.tables.into_iter().collect(),
            answers: self.by_status,
            failures: self.failures,
            help,
        }
    }
}

const COUNTS: &str = include_str!("../../sql/steps/answers_by_table.sql");
const FAILURES: &str = include_str!("../../sql/steps/not_answered.sql");

async fn ask(engine: &Engine, snapshot: SnapshotId, sql: &str) -> Result<Vec<RecordBatch>> {
    let param = ("snapshot".to_owned(), ParamValue::Text(snapshot.to_string()).into());
    engine.collect(sql, vec![param]).await
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a datafusion::arrow::array::ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| odd(name))
}

fn text<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a datafusion::arrow::array::StringArray> {
    column(batch, name)?.as_string_opt::<i32>().ok_or_else(|| odd(name))
}

fn odd(name: &str) -> Error {
    Error::internal(format!("the coverage has no column `{name}` of the right type"))
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
