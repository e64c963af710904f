//! Appends to the spool what hosts say, as it comes.

use std::collections::BTreeMap;
use std::io::BufRead;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::catalog::{Catalog, TableSpec};
use crate::collect::Answer;
use crate::decode::{Chunk, Limits, Split, split_rows};
use crate::error::Result;
use crate::model::{Coverage, KnownHost, Status};
use crate::store::{Frame, RowsHeader, SpoolReader, SpoolWriter, pack};

/// Most unknown columns that a payload announces.
const MOST_UNKNOWN: usize = 64;
/// Longest error text of a host that is kept.
const LONGEST_ERROR: usize = 2_000;

/// A collector's answer, split and packed, ready to be appended.
#[derive(Debug)]
pub struct Prepared {
    frames: Vec<(Frame, Vec<u8>)>,
    /// How the answer ended.
    pub coverage: Coverage,
}

/// Splits and packs an answer; done by the tasks that ask hosts, so that the one writer only writes.
///
/// # Errors
/// `Internal` when rows cannot be packed.
pub fn prepare(catalog: &Catalog, limits: &Limits, host: &str, answer: Answer) -> Result<Prepared> {
    let spec = catalog.table_or_undeclared(&answer.table);
    let mut frames = Vec::new();
    let mut reader: &[u8] = &answer.json;
    let reader: &mut dyn BufRead = &mut reader;
    let split = split_rows(reader, host, limits, &mut |chunk| {
        frames.push(rows_frame(host, &spec, chunk)?);
        Ok(())
    })?;
    let coverage = coverage(host, answer, &split);
    frames.push((Frame::Answer(coverage.clone()), Vec::new()));
    Ok(Prepared { frames, coverage })
}

fn rows_frame(host: &str, spec: &TableSpec, chunk: Chunk) -> Result<(Frame, Vec<u8>)> {
    let header = RowsHeader {
        host: host.to_owned(),
        table: spec.name.clone(),
        rows: chunk.rows,
        source: chunk.origin.source,
        line: chunk.origin.line,
        column: chunk.origin.column,
        unknown_columns: unknown_columns(&chunk.json, spec),
    };
    Ok((Frame::Rows(header), pack(&chunk.json)?))
}

/// The writing end of a collection.
#[derive(Debug)]
pub struct Receiver<'a> {
    catalog: &'a Catalog,
    spool: SpoolWriter,
}

impl<'a> Receiver<'a> {
    /// Receives into a new spool.
    pub fn new(catalog: &'a Catalog, spool: SpoolWriter) -> Self {
        Self { catalog, spool }
    }

    /// Says that a host is part of the collection, whether it will answer or not.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn host(&mut self, host: &str) -> Result<()> {
        self.known_host(KnownHost::new(host))
    }

    /// As [`Self::host`], with what an inventory knows of it.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn known_host(&mut self, host: KnownHost) -> Result<()> {
        self.spool.append(&Frame::Host(host), &[])
    }

    /// Says that a host cannot be asked for any of `tables`.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn unreachable(&mut self, host: &str, tables: &[TableSpec], why: (Status, &str)) -> Result<()> {
        tables.iter().try_for_each(|table| self.answered(no_answer(host, &table.name, why.0, why.1)))
    }

    /// Takes rows that were split off already.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn rows(&mut self, host: &str, table: &str, chunk: Chunk) -> Result<()> {
        let (frame, payload) = rows_frame(host, &self.catalog.table_or_undeclared(table), chunk)?;
        self.spool.append(&frame, &payload)
    }

    /// Takes the end of a host's answer for a table.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn answered(&mut self, mut coverage: Coverage) -> Result<()> {
        shorten(&mut coverage.error);
        self.spool.append(&Frame::Answer(coverage), &[])
    }

    /// Takes a collector's answer.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn answer(&mut self, prepared: &Prepared) -> Result<()> {
        prepared.frames.iter().try_for_each(|(frame, payload)| self.spool.append(frame, payload))
    }

    /// Takes something that a reader of the snapshot should know.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn warning(&mut self, text: String) -> Result<()> {
        self.spool.append(&Frame::Warning { text }, &[])
    }

    /// Says that all rows of the files that the spool was made with are received: they are remembered, but for those
    /// that `changed` while they were read.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn imported(&mut self, changed: Vec<String>) -> Result<()> {
        self.spool.append(&Frame::Imported { files: Vec::new(), is_end: true, changed }, &[])
    }

    /// Ends receiving.
    ///
    /// # Errors
    /// The spool cannot be synced or read back.
    pub fn into_reader(self) -> Result<SpoolReader> {
        self.spool.into_reader()
    }
}

/// An answer for a table that was not asked in full, as coverage has it.
fn coverage(host: &str, answer: Answer, split: &Split) -> Coverage {
    let (status, mut error) = settle(answer.status, answer.error, split);
    shorten(&mut error);
    Coverage {
        host: host.to_owned(),
        table: answer.table,
        status,
        rows: split.rows,
        bytes: answer.json.len() as u64,
        error,
        columns_missing: Vec::new(),
        started: Some(answer.started),
        ended: Some(answer.ended),
        osquery_version: answer.osquery_version,
        uid: answer.uid,
    }
}

/// What the collector saw, lowered by what the bytes turned out to be.
fn settle(status: Status, mut error: String, split: &Split) -> (Status, String) {
    if let Some(problem) = split.problems.first() {
        let more = split.problems_total.saturating_sub(1);
        let tail = if more > 0 { format!(" (and {more} more)") } else { String::new() };
        append(
            &mut error,
            &format!("line {}, column {}: {}{tail}", problem.line, problem.column, problem.message),
        );
    }
    if !status.answered() {
        return (status, error);
    }
    if !split.complete {
        append(&mut error, "the answer ends in the middle");
        return (Status::Truncated, error);
    }
    if split.arrays == 0 && split.rows == 0 {
        append(&mut error, "the answer holds no array of rows");
        return (Status::Error, error);
    }
    match (split.skipped > 0, split.rows) {
        (true, 0) => (Status::Error, error),
        (true, _) => (Status::Truncated, error),
        (false, 0) => (Status::Empty, error),
        (false, _) => (Status::Ok, error),
    }
}

/// Adds a sentence to an error text.
pub(super) fn append(error: &mut String, text: &str) {
    if !error.is_empty() {
        error.push_str("; ");
    }
    error.push_str(text);
}

/// Cuts a text that a host chose the length of, and says so.
pub(super) fn shorten(text: &mut String) {
    if text.len() > LONGEST_ERROR {
        let end = text.floor_char_boundary(LONGEST_ERROR);
        let cut = text.len() - end;
        text.truncate(end);
        text.push_str(&format!("… ({cut} bytes more)"));
    }
}

#[derive(Deserialize)]
struct Keys(BTreeMap<String, IgnoredAny>);

/// Columns of the first row that the schema does not have. Rows of one answer have the same columns, so the first is
/// enough to announce them; a column that only a later row has is kept under `extra`.
fn unknown_columns(json: &str, spec: &TableSpec) -> Vec<String> {
    let first = json.trim_start().strip_prefix('[').unwrap_or_default();
    let is_known = |key: &str| {
        spec.columns.iter().any(|column| column.name == key || column.osquery_name.as_deref() == Some(key))
    };
    let Some(Ok(Keys(keys))) = serde_json::Deserializer::from_str(first).into_iter::<Keys>().next() else {
        return Vec::new();
    };
    keys.into_keys().filter(|key| !is_known(key)).take(MOST_UNKNOWN * 4).collect()
}

/// An answer that never came.
pub(super) fn no_answer(host: &str, table: &str, status: Status, error: &str) -> Coverage {
    Coverage {
        host: host.to_owned(),
        table: table.to_owned(),
        status,
        rows: 0,
        bytes: 0,
        error: error.to_owned(),
        columns_missing: Vec::new(),
        started: None,
        ended: None,
        osquery_version: None,
        uid: None,
    }
}
