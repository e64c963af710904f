//! Lines of osqueryd logs, each of bounded size, and the order of log files.

use std::borrow::Cow;
use std::io::BufRead;
use std::path::PathBuf;

use memchr::{memchr, memmem};

use super::input::Files;
use super::osqueryd::{LogLine, parse_line};
use super::source::Source;
use super::split::reason;
use super::utf8::json_text;
use super::{Problems, excerpt};
use crate::error::Result;

/// A line of a log.
pub(super) struct Line<'a> {
    pub(super) number: u64,
    pub(super) text: Cow<'a, str>,
    error: Option<serde_json::Error>,
    ended: bool,
}

impl Line<'_> {
    /// Parses it; the error is a column and what is wrong there.
    pub(super) fn read(&self) -> Result<LogLine<'_>, (u64, String)> {
        match &self.error {
            None => parse_line(&self.text).map_err(|message| (0, message)),
            Some(error) if !self.ended && error.is_eof() => {
                Err((0, "the file ends inside this line".to_owned()))
            }
            Some(error) => Err((
                error.column() as u64,
                format!("expected a log entry, found `{}`: {}", excerpt(&self.text), reason(error)),
            )),
        }
    }
}

/// The lines of one file, with what was wrong with them.
pub(super) struct Lines {
    pub(super) name: String,
    limit: usize,
    pub(super) bytes: u64,
    pub(super) problems: Problems,
    /// Whether reading failed before the end.
    pub(super) failed: bool,
    /// Lines over the limit.
    pub(super) too_long: u64,
}

impl Lines {
    pub(super) fn new(name: String, limit: usize) -> Self {
        Self { name, limit, bytes: 0, problems: Problems::default(), failed: false, too_long: 0 }
    }

    pub(super) fn each(
        &mut self,
        reader: &mut dyn BufRead,
        see: &mut dyn FnMut(&Line<'_>, &mut Source<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut source = Source::new(reader, &self.name);
        let mut buffer = Vec::new();
        loop {
            source.skip_space();
            let place = source.place();
            buffer.clear();
            buffer.shrink_to(1 << 20);
            let taken = source.take(Some((&mut buffer, self.limit)), |piece| match memchr(b'\n', piece) {
                Some(end) => (end, true),
                None => (piece.len(), false),
            });
            if taken.bytes == 0 {
                break;
            }
            if taken.bytes > self.limit {
                self.too_long += 1;
                let (bytes, limit) = (taken.bytes, self.limit);
                source.problem(place, || {
                    format!("this line of {bytes} bytes is over the limit of {limit} and is skipped")
                });
                continue;
            }
            see(&line_of(place.line, &buffer, taken.ended), &mut source)?;
        }
        self.bytes = source.at;
        self.failed = source.failed;
        self.problems = source.problems;
        Ok(())
    }
}

fn line_of(number: u64, bytes: &[u8], ended: bool) -> Line<'_> {
    match json_text(bytes) {
        Ok(text) => Line { number, text, error: None, ended },
        Err(error) => Line { number, text: String::from_utf8_lossy(bytes), error: Some(error), ended },
    }
}

/// The files by the time of their first entry, so that rotated logs come before the current one.
pub(super) fn in_order(files: &[PathBuf], opened: &Files) -> Result<Vec<PathBuf>> {
    let mut dated = Vec::with_capacity(files.len());
    for path in files {
        dated.push((first_time(&opened.head(path, 4 << 20)?), path.clone()));
    }
    dated.sort_by_key(|(time, _)| *time);
    Ok(dated.into_iter().map(|(_, path)| path).collect())
}

fn first_time(head: &[u8]) -> Option<u64> {
    const KEY: &[u8] = b"\"unixTime\":";
    let after = &head[memmem::find(head, KEY)? + KEY.len()..];
    let digits = after.iter().skip_while(|byte| matches!(byte, b' ' | b'"'));
    let digits: String =
        digits.take_while(|byte| byte.is_ascii_digit()).take(19).map(|byte| char::from(*byte)).collect();
    digits.parse().ok()
}
