//! Bytes from hosts to Arrow record batches. Everything here is hostile input: bounded, never panics, nothing dropped
//! in silence.
//!
//! Two steps, used apart: [`split_rows`] cuts a stream into [`Chunk`]s of valid JSON text with bounded memory, and
//! [`decode`] builds a typed batch from one chunk. Between them chunks may lie on disk. [`import`] finds files, tells
//! their formats apart and feeds the first step.

mod ahead;
mod artifacts;
mod build;
mod cell;
mod chunk;
mod documents;
mod flat;
mod fleet;
mod fleet_csv;
mod foreign;
mod import;
mod input;
mod kind;
mod lines;
mod names;
mod osqueryd;
mod outbox;
mod prefetch;
mod records;
mod replay;
mod row;
mod rows;
mod source;
mod split;
mod state;
mod utf16;
mod utf8;
mod velociraptor;
mod walk;

pub use self::build::{Decoded, decode};
pub use self::import::{ImportAnswer, ImportFormat, ImportOptions, ImportReport, ImportSink, import, survey};
pub use self::input::Files;
pub use self::names::table_of_query;
pub use self::osqueryd::{LogBody, LogEntry, LogLine, parse_line};
pub use self::rows::{RowsBuilder, Taken};
pub use self::split::{Split, TableSplit, split_host, split_rows};
pub use self::utf8::unescape_differential;
pub use self::walk::FileRole;

/// How much of what a host says is taken at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one row, or of one line of a log; a longer one is skipped and reported.
    pub row_bytes: usize,
    /// Bytes of one cell; a longer one is cut, with its full length and digest under `extra`.
    pub cell_bytes: usize,
    /// Columns of one batch; declared columns always have a place, others beyond this go under `extra`.
    pub columns: usize,
    /// Bytes after which a chunk is handed on; one row may make a chunk larger.
    pub chunk_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { row_bytes: 256 << 20, cell_bytes: 1 << 20, columns: 512, chunk_bytes: 1 << 20 }
    }
}

/// Where in its source the first byte of a chunk is reckoned to stand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// File or host, for messages.
    pub source: String,
    /// Line, from 1.
    pub line: u64,
    /// Byte within the line, from 1; 0 when the first row starts a line, because the bracket is ours.
    pub column: u64,
}

/// Something that could not be taken as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// File or host.
    pub source: String,
    /// Line, from 1; 0 means the whole source.
    pub line: u64,
    /// Byte within the line, from 1; 0 means the whole line.
    pub column: u64,
    /// What is wrong, lowercase, without a final period.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.source)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if self.column > 0 {
            write!(f, ":{}", self.column)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Some rows of one array, as JSON text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// `[{…},{…}]`: valid JSON, line breaks where the source has them; bytes that were no UTF-8 are in the transport
    /// encoding that only [`decode`] undoes.
    pub json: String,
    /// Number of rows.
    pub rows: u64,
    /// Which array of the stream they come from, from 0.
    pub array: u64,
    /// Where they stand in the source.
    pub origin: Origin,
}

/// Problems kept for showing; the rest is counted.
const PROBLEMS_KEPT: usize = 100;

/// A bounded list of problems.
#[derive(Debug, Clone, Default)]
struct Problems {
    kept: Vec<Problem>,
    total: u64,
}

impl Problems {
    /// Counts a problem; it is only made when there is room to keep it.
    fn add(&mut self, make: impl FnOnce() -> Problem) {
        self.total += 1;
        if self.kept.len() < PROBLEMS_KEPT {
            self.kept.push(make());
        }
    }
}

/// The start of what a host said, fit for a message: one line, no control characters, at most 60 characters.
fn excerpt(text: &str) -> String {
    const CHARS: usize = 60;
    let end = text.char_indices().nth(CHARS).map(|(end, _)| end);
    let start = utf8::shown((&text[..end.unwrap_or(text.len())]).into());
    let mut excerpt = String::new();
    for character in start.chars() {
        if character.is_control() {
            excerpt.extend(character.escape_debug());
        } else {
            excerpt.push(character);
        }
    }
    excerpt.extend(end.map(|_| '…'));
    excerpt
}

/// Rows of one answer as text, for programs that want no batch; what is no flat object is left out.
pub fn text_rows(answer: &[u8]) -> Vec<std::collections::BTreeMap<String, String>> {
    let Ok(json) = utf8::json_text(answer) else { return Vec::new() };
    serde_json::from_str(&json).unwrap_or_default()
}
