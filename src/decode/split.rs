//! Cuts a stream of JSON arrays into chunks of rows, with memory bounded by the largest row.
//!
//! The scanner is our own because no JSON crate takes what osqueryi really prints: several documents one after another,
//! warnings between them, bytes that are no UTF-8, a tail that is cut off. It only tracks strings, escapes and depth to
//! find where a row ends; what is inside a row is for `serde_json` to say.

use std::io::BufRead;

use memchr::{memchr, memchr2};

use super::chunk::Chunker;
use super::source::{Place, Source};
use super::utf8::{json_text, show};
use super::{Chunk, Limits, Problem, excerpt, flat};
use crate::error::Result;

/// What a stream held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Split {
    /// Rows handed on.
    pub rows: u64,
    /// Objects and other elements of arrays that were reported and skipped; stray text is not among them.
    pub skipped: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Arrays begun, empty ones too.
    pub arrays: u64,
    /// The first 100 problems.
    pub problems: Vec<Problem>,
    /// All problems.
    pub problems_total: u64,
    /// False when the stream ended inside an array or object, or could not be read to its end.
    pub complete: bool,
}

/// What an object of tables held for one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSplit {
    /// The key, as it stands in the object.
    pub table: String,
    /// Rows handed on.
    pub rows: u64,
    /// Elements that were reported and skipped.
    pub skipped: u64,
    /// Bytes of its array.
    pub bytes: u64,
    /// False when the stream ended inside it.
    pub complete: bool,
    /// What stood there when it was no array; empty otherwise.
    pub error: String,
}

/// Reads the output of `osqueryi --json`: arrays one after another, or bare objects one after another (JSON lines).
///
/// Text between arrays, elements that are no objects and rows over the limit are reported and skipped. A single bare
/// object is reported too: it is more likely an error message or a configuration than a row.
///
/// # Errors
/// Those of `sink` only; a failing reader is a problem and makes the split incomplete.
pub fn split_rows(
    reader: &mut dyn BufRead,
    source: &str,
    limits: &Limits,
    sink: &mut dyn FnMut(Chunk) -> Result<()>,
) -> Result<Split> {
    let mut chunks = |_: &str, chunk: Chunk| sink(chunk);
    let mut splitter = Splitter::new(Source::new(reader, source), limits, &mut chunks);
    splitter.skip_byte_order_mark();
    splitter.stream()?;
    Ok(splitter.finish())
}

/// Reads one object whose keys are tables and whose values are arrays of rows; `sink` is told the key.
///
/// # Errors
/// Those of `sink` only.
pub fn split_host(
    reader: &mut dyn BufRead,
    source: &str,
    limits: &Limits,
    sink: &mut dyn FnMut(&str, Chunk) -> Result<()>,
) -> Result<(Split, Vec<TableSplit>)> {
    let mut splitter = Splitter::new(Source::new(reader, source), limits, sink);
    splitter.skip_byte_order_mark();
    let tables = splitter.tables()?;
    Ok((splitter.finish(), tables))
}

/// Finds the end of a value that starts with a bracket, brace or quote.
#[derive(Default)]
pub(super) struct Balance {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Balance {
    /// How many bytes belong to the value, and whether it ends there.
    pub(super) fn scan(&mut self, buffer: &[u8]) -> (usize, bool) {
        let mut at = 0;
        while at < buffer.len() {
            if self.in_string {
                at += self.scan_string(&buffer[at..]);
                if !self.in_string && self.depth == 0 {
                    return (at, true);
                }
                continue;
            }
            match buffer[at] {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
            at += 1;
            if self.depth == 0 && !self.in_string {
                return (at, true);
            }
        }
        (at, false)
    }

    fn scan_string(&mut self, buffer: &[u8]) -> usize {
        if std::mem::take(&mut self.escaped) {
            return 1;
        }
        let Some(at) = memchr2(b'"', b'\\', buffer) else { return buffer.len() };
        if buffer[at] == b'"' {
            self.in_string = false;
        } else {
            self.escaped = true;
        }
        at + 1
    }
}

/// Where a top-level object stands that may turn out to be the first of many.
struct Held {
    row: String,
    place: Place,
}

struct Splitter<'a, 'r> {
    source: Source<'r>,
    limits: &'a Limits,
    sink: &'a mut dyn FnMut(&str, Chunk) -> Result<()>,
    table: String,
    chunker: Chunker,
    buffer: Vec<u8>,
    held: Option<Held>,
    json_lines: bool,
    split: Split,
}

impl<'a, 'r> Splitter<'a, 'r> {
    fn new(
        source: Source<'r>,
        limits: &'a Limits,
        sink: &'a mut dyn FnMut(&str, Chunk) -> Result<()>,
    ) -> Self {
        Self {
            source,
            limits,
            sink,
            table: String::new(),
            chunker: Chunker::default(),
            buffer: Vec::new(),
            held: None,
            json_lines: false,
            split: Split { complete: true, ..Split::default() },
        }
    }

    fn finish(self) -> Split {
        Split {
            bytes: self.source.at,
            complete: self.split.complete && !self.source.failed,
            problems: self.source.problems.kept,
            problems_total: self.source.problems.total,
            ..self.split
        }
    }

    fn skip_byte_order_mark(&mut self) {
        const MARK: &[u8] = "\u{FEFF}".as_bytes();
        let mut left = MARK;
        while let (Some(next), Some((first, rest))) = (self.source.peek(), left.split_first())
            && next == *first
        {
            self.source.skip();
            left = rest;
        }
    }

    fn stream(&mut self) -> Result<()> {
        loop {
            self.source.skip_space();
            match self.source.peek() {
                None => break,
                Some(b'[') => {
                    self.drop_held();
                    self.array()?;
                }
                Some(b'{') => self.bare_object()?,
                Some(_) => self.stray_line("expected an array of rows"),
            }
        }
        self.drop_held();
        self.flush()
    }

    /// One array, from its bracket to the other.
    fn array(&mut self) -> Result<()> {
        self.flush()?;
        let start = self.source.place();
        self.source.skip();
        let mut begun = false;
        loop {
            self.source.skip_space();
            let first = !std::mem::replace(&mut begun, true);
            match self.source.peek() {
                None => {
                    self.cut_off(start, "array");
                    break;
                }
                Some(b']') => {
                    self.source.skip();
                    break;
                }
                Some(b',') => self.source.skip(),
                Some(b'{') => self.row()?,
                Some(b'[' | b'"') => self.other_value(),
                // Log lines begin with a bracket too: `[WARN] …`, `[2026-01-05] …`.
                Some(byte) if !self.scalar(byte) && first => {
                    self.source.take(None, to_line_end);
                    return Ok(());
                }
                Some(_) => {}
            }
        }
        self.flush()?;
        self.split.arrays += 1;
        Ok(())
    }

    /// Skips a number or word inside of an array; false when it is none that JSON knows.
    fn scalar(&mut self, first: u8) -> bool {
        if !matches!(first, b'-' | b'0'..=b'9' | b't' | b'f' | b'n') {
            self.stray_line("expected a row");
            return false;
        }
        let place = self.source.place();
        self.buffer.clear();
        self.source.take(Some((&mut self.buffer, 256)), |buffer| {
            let end = buffer.iter().position(|byte| matches!(byte, b',' | b']' | b'\n' | b'}'));
            (end.unwrap_or(buffer.len()), end.is_some())
        });
        let (text, _) = show(&self.buffer);
        let known = json_text(self.buffer.trim_ascii()).is_ok();
        self.split.skipped += u64::from(known);
        self.source.problem(place, || format!("expected a row, found `{}`", excerpt(text.trim())));
        known
    }

    /// Skips an array or string where a row should be.
    fn other_value(&mut self) {
        let Some((place, ended)) = self.value() else { return };
        let (text, _) = show(&self.buffer[..self.buffer.len().min(256)]);
        self.split.skipped += 1;
        self.source.problem(place, || format!("expected a row, found `{}`", excerpt(&text)));
        if !ended {
            self.cut_off(place, "value");
        }
    }

    fn row(&mut self) -> Result<()> {
        if self.plain_row()? {
            return Ok(());
        }
        let Some((place, row)) = self.object() else { return Ok(()) };
        self.push(&row, place)
    }

    /// Takes a row that lies in the reader's buffer whole and needs no repair, as nearly all do, without a copy of its
    /// own and in one pass. False when it is none.
    fn plain_row(&mut self) -> Result<bool> {
        let Some(length) =
            flat::valid_row(self.source.buffer()).filter(|length| *length <= self.limits.row_bytes)
        else {
            return Ok(false);
        };
        let place = self.source.place();
        if !self.chunker.reaches(place) {
            self.flush()?;
        }
        let Some(Ok(row)) = self.source.buffer().get(..length).map(std::str::from_utf8) else {
            return Ok(false);
        };
        self.chunker.push(row, place);
        self.source.take(None, |_| (length, true));
        self.pushed()?;
        Ok(true)
    }

    /// Reads an object and checks that it is JSON.
    fn object(&mut self) -> Option<(Place, String)> {
        let (place, ended) = self.value()?;
        if !ended {
            self.cut_off(place, "row");
            return None;
        }
        match json_text(&self.buffer) {
            Ok(row) => Some((place, row.into_owned())),
            Err(error) => {
                self.split.skipped += 1;
                let at = within(place, error.line(), error.column());
                self.source.problem(at, || format!("this row is no JSON and is skipped: {}", reason(&error)));
                None
            }
        }
    }

    /// Reads a bracketed value or string into the buffer; none when it was over the limit and skipped.
    fn value(&mut self) -> Option<(Place, bool)> {
        let place = self.source.place();
        let limit = self.limits.row_bytes;
        self.buffer.clear();
        self.buffer.shrink_to(1 << 20);
        let mut balance = Balance::default();
        let taken = self.source.take(Some((&mut self.buffer, limit)), |buffer| balance.scan(buffer));
        if taken.bytes > limit {
            self.split.skipped += 1;
            self.source.problem(place, || {
                format!("this row of {} bytes is over the limit of {limit} and is skipped", taken.bytes)
            });
            if !taken.ended {
                self.cut_off(place, "row");
            }
            return None;
        }
        Some((place, taken.ended))
    }

    fn push(&mut self, row: &str, place: Place) -> Result<()> {
        if !self.chunker.reaches(place) {
            self.flush()?;
        }
        self.chunker.push(row, place);
        self.pushed()
    }

    fn pushed(&mut self) -> Result<()> {
        self.split.rows += 1;
        if self.chunker.is_full(self.limits.chunk_bytes) {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        match self.chunker.take(self.source.name(), self.split.arrays) {
            Some(chunk) => (self.sink)(&self.table, chunk),
            None => Ok(()),
        }
    }

    fn bare_object(&mut self) -> Result<()> {
        let Some((place, row)) = self.object() else { return Ok(()) };
        if self.json_lines {
            return self.push(&row, place);
        }
        let Some(held) = self.held.take() else {
            self.held = Some(Held { row, place });
            return Ok(());
        };
        self.json_lines = true;
        self.push(&held.row, held.place)?;
        self.push(&row, place)
    }

    /// Reports the one top-level object that no other followed.
    fn drop_held(&mut self) {
        if let Some(held) = self.held.take() {
            self.split.skipped += 1;
            self.source.problem(held.place, || {
                format!("expected an array of rows, found a single object `{}`", excerpt(&held.row))
            });
        }
        self.json_lines = false;
    }

    fn stray_line(&mut self, expected: &str) {
        let place = self.source.place();
        self.buffer.clear();
        self.source.take(Some((&mut self.buffer, 256)), to_line_end);
        let (text, _) = show(&self.buffer);
        self.source.problem(place, || format!("{expected}, found `{}`", excerpt(text.trim_end())));
    }

    fn cut_off(&mut self, start: Place, what: &str) {
        self.split.complete = false;
        self.source.problem(start, || format!("the input ends inside the {what} that starts here"));
    }

    /// `{"table": [rows], …}`.
    fn tables(&mut self) -> Result<Vec<TableSplit>> {
        let mut tables = Vec::new();
        let start = self.source.place();
        self.source.skip_space();
        if self.source.peek() != Some(b'{') {
            self.stray_line("expected an object of tables");
            return Ok(tables);
        }
        self.source.skip();
        loop {
            self.source.skip_space();
            match self.source.peek() {
                None => {
                    self.cut_off(start, "object");
                    break;
                }
                Some(b'}') => {
                    self.source.skip();
                    break;
                }
                Some(b',') => self.source.skip(),
                Some(b'"') => tables.extend(self.table()?),
                Some(_) => self.stray_line("expected the name of a table"),
            }
        }
        self.source.skip_space();
        while self.source.peek().is_some() {
            self.stray_line("expected nothing after the object of tables");
            self.source.skip_space();
        }
        Ok(tables)
    }

    fn table(&mut self) -> Result<Option<TableSplit>> {
        let Some((place, name)) = self.table_name() else { return Ok(None) };
        self.source.skip_space();
        if self.source.peek() == Some(b':') {
            self.source.skip();
        }
        self.source.skip_space();
        self.table = name;
        let (rows, skipped, from) = (self.split.rows, self.split.skipped, self.source.at);
        let error = match self.source.peek() {
            Some(b'[') => {
                self.array()?;
                String::new()
            }
            Some(byte) => self.no_array(byte),
            None => {
                self.cut_off(place, "table");
                String::new()
            }
        };
        Ok(Some(TableSplit {
            table: std::mem::take(&mut self.table),
            rows: self.split.rows - rows,
            skipped: self.split.skipped - skipped,
            bytes: self.source.at - from,
            complete: self.split.complete && !self.source.failed,
            error,
        }))
    }

    fn table_name(&mut self) -> Option<(Place, String)> {
        let (place, ended) = self.value()?;
        if !ended {
            self.cut_off(place, "name");
            return None;
        }
        let name = json_text(&self.buffer).and_then(|text| serde_json::from_str(&text));
        if name.is_err() {
            self.source.problem(place, || "this name of a table is no JSON string".to_owned());
        }
        Some((place, name.ok()?))
    }

    fn no_array(&mut self, first: u8) -> String {
        match first {
            b'{' | b'"' => self.other_value(),
            _ => {
                self.scalar(first);
            }
        }
        "expected an array of rows".to_owned()
    }
}

fn to_line_end(buffer: &[u8]) -> (usize, bool) {
    match memchr(b'\n', buffer) {
        Some(end) => (end, true),
        None => (buffer.len(), false),
    }
}

/// The place of a line and column (from 1) of text that starts at `start`.
fn within(start: Place, line: usize, column: usize) -> Place {
    let column = column.max(1) as u64;
    match line {
        0 | 1 => Place { line: start.line, column: start.column + column - 1 },
        _ => Place { line: start.line + line as u64 - 1, column },
    }
}

/// The error without its own line and column, which are not those of the source.
pub(super) fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read};

    use proptest::prelude::*;

    use super::*;
    use crate::decode::Origin;

    fn split_with(input: &[u8], limits: &Limits, buffer: usize) -> (Vec<Chunk>, Split) {
        let mut chunks = Vec::new();
        let mut reader = BufReader::with_capacity(buffer, input);
        let split = split_rows(&mut reader, "s", limits, &mut |chunk| {
            chunks.push(chunk);
            Ok(())
        });
        (chunks, split.unwrap())
    }

    /// Chunks as `array@line:column text`, then problems, then `cut off`.
    fn check(input: &str, expect: &[&str]) {
        for buffer in [1, 3, 8192] {
            let (chunks, split) = split_with(input.as_bytes(), &Limits::default(), buffer);
            let mut seen: Vec<String> = chunks
                .iter()
                .map(|chunk| {
                    let Origin { line, column, .. } = &chunk.origin;
                    format!("{}@{line}:{column} {}", chunk.array, chunk.json)
                })
                .collect();
            seen.extend(split.problems.iter().map(ToString::to_string));
            seen.extend((!split.complete).then(|| "cut off".to_owned()));
            assert_eq!(seen, expect, "{input}");
            assert_eq!(split.rows, chunks.iter().map(|chunk| chunk.rows).sum::<u64>());
            assert_eq!(split.bytes, input.len() as u64);
        }
    }

    #[test]
    fn arrays_of_osqueryi() {
        check("[\n\n]\n", &[]);
        check("", &[]);
        check("[\n  {\"a\":\"1\"},\n  {\"a\":\"2\"}\n]\n", &["0@2:2 [{\"a\":\"1\"},\n  {\"a\":\"2\"}]"]);
        check("[{\"a\":1}]\n\n[{\"b\":2}][]", &["0@1:1 [{\"a\":1}]", "1@3:1 [{\"b\":2}]"]);
        check("[{\"a\":\"]}\\\"{[\"},]", &["0@1:1 [{\"a\":\"]}\\\"{[\"}]"]);
        check("\u{FEFF}[{}]", &["0@1:4 [{}]"]);
        check("[{} {}, , {}]", &["0@1:1 [{},{},   {}]"]);
    }

    #[test]
    fn stray_text_is_reported_and_skipped() {
        check(
            "W0105 10:00:00 1 x.cpp:9] no [table]\n[{}]\n[WARN] hm\n[2026-01-05 10:00] hm\n[{}]",
            &[
                "0@2:1 [{}]",
                "1@5:1 [{}]",
                "s:1:1: expected an array of rows, found `W0105 10:00:00 1 x.cpp:9] no [table]`",
                "s:3:2: expected a row, found `WARN] hm`",
                "s:4:2: expected a row, found `2026-01-05 10:00`",
            ],
        );
        check(
            "[\n{\"a\":1},\nW0105 x.cpp:9] hm\n{\"a\":2}\n]",
            &["0@2:0 [{\"a\":1},\n\n{\"a\":2}]", "s:3:1: expected a row, found `W0105 x.cpp:9] hm`"],
        );
        check(
            "[1, {\"a\":1}, \"x\", [2], null]",
            &[
                "0@1:4 [{\"a\":1}]",
                "s:1:2: expected a row, found `1`",
                "s:1:14: expected a row, found `\"x\"`",
                "s:1:19: expected a row, found `[2]`",
                "s:1:24: expected a row, found `null`",
            ],
        );
    }

    #[test]
    fn objects_at_the_top() {
        check("{\"a\":1}\n{\"a\":2}\n{\"a\":3}", &["0@1:0 [{\"a\":1},\n{\"a\":2},\n{\"a\":3}]"]);
        check(
            "{\"error\":\"no\"}",
            &["s:1:1: expected an array of rows, found a single object `{\"error\":\"no\"}`"],
        );
    }

    #[test]
    fn a_cut_tail_keeps_the_rows_before_it() {
        let ends =
            |what: &str, at: &str| format!("s:{at}: the input ends inside the {what} that starts here");
        check("[\n", &[&ends("array", "1:1"), "cut off"]);
        check("[{\"a\":1},\n", &["0@1:1 [{\"a\":1}]", &ends("array", "1:1"), "cut off"]);
        check(
            "[{\"a\":1},\n{\"a\":\"x",
            &["0@1:1 [{\"a\":1}]", &ends("row", "2:1"), &ends("array", "1:1"), "cut off"],
        );
    }

    #[test]
    fn broken_rows_are_named_and_skipped() {
        check(
            "[{\"a\" 1},\n {\"a\":1}, {]",
            &[
                "0@2:1 [{\"a\":1}]",
                "s:1:7: this row is no JSON and is skipped: expected `:`",
                "s:2:12: this row is no JSON and is skipped: key must be a string",
                "s:1:1: the input ends inside the array that starts here",
                "cut off",
            ],
        );
        check("[{\"a\":\"b\n\u{1}c\"},\n{}]", &["0@1:1 [{\"a\":\"b\\u000a\\u0001c\"},\n\n{}]"]);
    }

    #[test]
    fn rows_over_the_limit_are_skipped() {
        let limits = Limits { row_bytes: 20, chunk_bytes: 15, ..Limits::default() };
        let input = br#"[{"a":"12345678901234567890"},{"a":"1"},{"a":"2"},{"a":"3"}]"#;
        let (chunks, split) = split_with(input, &limits, 7);
        assert_eq!((split.rows, split.problems_total, split.complete), (3, 1, true));
        assert_eq!(chunks.len(), 2, "{chunks:?}");
        assert!(split.problems[0].message.contains("28 bytes"), "{:?}", split.problems);
    }

    #[test]
    fn a_cell_of_100_megabytes_streams() {
        let cell = std::io::repeat(b'x').take(100 << 20);
        let mut reader = BufReader::new(br#"[{"a":""#.chain(cell).chain(&br#""},{"a":"b"}]"#[..]));
        let mut sizes = Vec::new();
        let split = split_rows(&mut reader, "s", &Limits::default(), &mut |chunk| {
            sizes.push((chunk.rows, chunk.json.len()));
            Ok(())
        });
        assert_eq!(split.unwrap().problems, []);
        assert_eq!(sizes, [(1, (100 << 20) + 10), (1, 11)]);
    }

    #[test]
    fn a_row_over_the_limit_is_not_kept_in_memory() {
        let cell = std::io::repeat(b'x').take(300 << 20);
        let mut reader = BufReader::new(br#"[{"a":""#.chain(cell).chain(&br#""},{"a":"b"}]"#[..]));
        let mut rows = 0;
        let split = split_rows(&mut reader, "s", &Limits::default(), &mut |chunk| {
            rows += chunk.rows;
            Ok(())
        });
        assert_eq!((rows, split.unwrap().problems_total), (1, 1));
    }

    #[test]
    fn a_reader_that_fails_ends_the_stream() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::Error::other("disk on fire"))
            }
        }
        let mut reader = BufReader::new(b"[{\"a\":1},".chain(Failing));
        let split = split_rows(&mut reader, "s", &Limits::default(), &mut |_| Ok(())).unwrap();
        assert_eq!((split.rows, split.complete), (1, false));
        assert!(split.problems[0].message.contains("disk on fire"));
    }

    #[test]
    fn an_object_of_tables() {
        let input = br#"{"a": [{"x":"1"}], "b": [], "c": null, "d": {"error":1}, "e": [{"x":"#;
        let mut seen = Vec::new();
        let (split, tables) = split_host(&mut &input[..], "s", &Limits::default(), &mut |table, chunk| {
            seen.push(format!("{table} {}", chunk.json));
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [r#"a [{"x":"1"}]"#]);
        let tables: Vec<_> =
            tables.iter().map(|t| (t.table.as_str(), t.rows, t.complete, t.error.is_empty())).collect();
        let expect =
            [("a", 1, true, true), ("b", 0, true, true), ("c", 0, true, false), ("d", 0, true, false)];
        assert_eq!(tables[..4], expect);
        assert_eq!(tables[4], ("e", 0, false, true));
        assert!(!split.complete);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(input in prop::collection::vec(any::<u8>(), 0..200)) {
            split_with(&input, &Limits::default(), 5);
            split_host(&mut &input[..], "s", &Limits::default(), &mut |_, _| Ok(())).unwrap();
        }

        #[test]
        fn chunks_are_json_arrays_of_their_rows(input in r#"([\[\]{},:"\\x1 \n]|"a":|\{"a":"b"\},){0,60}"#) {
            let (chunks, _) = split_with(input.as_bytes(), &Limits::default(), 5);
            for chunk in chunks {
                let rows: Vec<serde_json::Map<String, serde_json::Value>> =
                    serde_json::from_str(&chunk.json).unwrap();
                prop_assert_eq!(rows.len() as u64, chunk.rows);
            }
        }
    }
}
