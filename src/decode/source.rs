//! A byte stream that knows its line and column, read in pieces with bounded memory.

use std::io::{BufRead, ErrorKind};

use memchr::{memchr_iter, memrchr};

use super::{Problem, Problems};

/// Line and byte within the line, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) column: u64,
}

/// What one read of a piece kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    /// Bytes of the piece, kept or not.
    pub(super) bytes: usize,
    /// Whether the piece ended before the stream did.
    pub(super) ended: bool,
}

/// The stream.
pub(super) struct Source<'r> {
    reader: &'r mut dyn BufRead,
    name: &'r str,
    line: u64,
    line_start: u64,
    /// Bytes read.
    pub(super) at: u64,
    /// Whether reading failed; the stream ends there.
    pub(super) failed: bool,
    /// What was wrong with it so far.
    pub(super) problems: Problems,
}

impl<'r> Source<'r> {
    pub(super) fn new(reader: &'r mut dyn BufRead, name: &'r str) -> Self {
        Self { reader, name, line: 1, line_start: 0, at: 0, failed: false, problems: Problems::default() }
    }

    pub(super) fn name(&self) -> &'r str {
        self.name
    }

    pub(super) fn place(&self) -> Place {
        Place { line: self.line, column: self.at - self.line_start + 1 }
    }

    pub(super) fn problem(&mut self, place: Place, message: impl FnOnce() -> String) {
        self.problems.add(|| Problem {
            source: self.name.to_owned(),
            line: place.line,
            column: place.column,
            message: message(),
        });
    }

    /// The next byte, not consumed.
    pub(super) fn peek(&mut self) -> Option<u8> {
        self.fill();
        // `fill` has just succeeded or `failed` is set, so this reads nothing.
        if self.failed { None } else { self.reader.fill_buf().ok()?.first().copied() }
    }

    /// What is read already and not consumed.
    pub(super) fn buffer(&mut self) -> &[u8] {
        self.fill();
        if self.failed { &[] } else { self.reader.fill_buf().unwrap_or(&[]) }
    }

    /// Consumes one byte.
    pub(super) fn skip(&mut self) {
        self.take(None, |_| (1, true));
    }

    /// Consumes white space.
    pub(super) fn skip_space(&mut self) {
        self.take(None, |buffer| {
            let space = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            (space, space < buffer.len())
        });
    }

    /// Consumes what `scan` says: it is shown pieces and answers how many bytes to consume and whether that is all.
    /// They are appended to `keep` up to its limit.
    pub(super) fn take(
        &mut self,
        mut keep: Option<(&mut Vec<u8>, usize)>,
        mut scan: impl FnMut(&[u8]) -> (usize, bool),
    ) -> Taken {
        let mut bytes = 0;
        loop {
            self.fill();
            let buffer = if self.failed { &[] } else { self.reader.fill_buf().unwrap_or(&[]) };
            if buffer.is_empty() {
                return Taken { bytes, ended: false };
            }
            let (count, done) = scan(buffer);
            let piece = &buffer[..count.min(buffer.len())];
            if let Some((kept, limit)) = keep.as_mut() {
                let room = limit.saturating_sub(kept.len());
                kept.extend_from_slice(&piece[..piece.len().min(room)]);
            }
            if let Some(newline) = memrchr(b'\n', piece) {
                self.line += memchr_iter(b'\n', piece).count() as u64;
                self.line_start = self.at + newline as u64 + 1;
            }
            let consumed = piece.len();
            self.at += consumed as u64;
            bytes += consumed;
            self.reader.consume(consumed);
            if done {
                return Taken { bytes, ended: true };
            }
        }
    }

    /// Fills the reader's buffer; an error is a problem and ends the stream.
    fn fill(&mut self) {
        while !self.failed {
            match self.reader.fill_buf() {
                Ok(_) => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failed = true;
                    let place = self.place();
                    self.problem(place, || format!("reading stops here: {error}"));
                }
            }
        }
    }
}
