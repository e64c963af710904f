//! Gathers rows into chunks whose line breaks are those of the source, so that later problems can name a place.

use super::source::Place;
use super::utf8::source_len;
use super::{Chunk, Origin};

/// Most line breaks put between two rows to keep the place; a wider gap starts a new chunk. Logs of many hosts in one
/// file have wide gaps, and a chunk for each row would cost more than white space does.
const LINES: u64 = 1024;

/// Most blanks put before a row to keep the place.
const BLANKS: u64 = 64;

/// Most rows of a chunk: a batch costs rows times columns, however little text a hostile host spends on a row.
const ROWS: u64 = 16_384;

/// Rows on their way into a chunk.
#[derive(Debug, Clone)]
pub(super) struct Chunker {
    json: String,
    rows: u64,
    first: Place,
    next: Place,
}

impl Default for Chunker {
    fn default() -> Self {
        let start = Place { line: 1, column: 1 };
        Self { json: String::new(), rows: 0, first: start, next: start }
    }
}

impl Chunker {
    /// Bytes gathered.
    pub(super) fn len(&self) -> usize {
        self.json.len()
    }

    /// Whether it is time to hand the chunk on.
    pub(super) fn is_full(&self, bytes: usize) -> bool {
        self.json.len() >= bytes || self.rows >= ROWS
    }

    /// Whether a row at that place can stand in the same chunk.
    pub(super) fn reaches(&self, place: Place) -> bool {
        let column = if place.line == self.next.line { self.next.column } else { 1 };
        self.rows == 0
            || (place.line.checked_sub(self.next.line).is_some_and(|gap| gap <= LINES)
                && place.column.saturating_sub(column) <= BLANKS)
    }

    /// Adds a row: the text of a JSON object that stands at `place` of the source.
    pub(super) fn push(&mut self, row: &str, place: Place) {
        if self.rows == 0 {
            self.json.push('[');
            self.first = place;
            self.next = place;
        } else {
            self.json.push(',');
            self.next.column += 1;
            self.pad(place);
        }
        self.json.push_str(row);
        self.rows += 1;
        self.advance(row);
    }

    /// Hands out what was gathered, if anything.
    pub(super) fn take(&mut self, source: &str, array: u64) -> Option<Chunk> {
        if self.rows == 0 {
            return None;
        }
        let mut json = std::mem::take(&mut self.json);
        json.push(']');
        let origin =
            Origin { source: source.to_owned(), line: self.first.line, column: self.first.column - 1 };
        let rows = std::mem::take(&mut self.rows);
        Some(Chunk { json, rows, array, origin })
    }

    fn pad(&mut self, place: Place) {
        while self.next.line < place.line {
            self.json.push('\n');
            self.next = Place { line: self.next.line + 1, column: 1 };
        }
        while self.next.column < place.column {
            self.json.push(' ');
            self.next.column += 1;
        }
    }

    fn advance(&mut self, row: &str) {
        match row.rsplit_once('\n') {
            None => self.next.column += source_len(row),
            Some((lines, last)) => {
                self.next.line += 1 + memchr::memchr_iter(b'\n', lines.as_bytes()).count() as u64;
                self.next.column = source_len(last) + 1;
            }
        }
    }
}
