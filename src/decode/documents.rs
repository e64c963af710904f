//! Files of many hosts as a stream of JSON objects, one in memory at a time.
//!
//! Three forms: objects on lines of their own, of which a broken one costs no more than its line; arrays of objects;
//! and answers of an API, objects that hold what matters in an array.

use memchr::memchr;

use super::source::{Place, Source};
use super::split::{Balance, reason};
use super::utf8::{json_text, show};
use super::{Limits, excerpt};
use crate::error::Result;

/// Bytes of a broken piece that are shown: whose it is stands in front.
const START: usize = 4 << 10;

/// What is found, in order.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    /// An object, as valid JSON, where it starts, and the array of an enclosing object that it stands in, or nothing.
    Object(&'a str, Place, &'static str),
    /// An object, or an element of an array, that cannot be read; reported already. How it starts.
    Broken(&'a [u8]),
    /// A key of an enclosing object and its value, as valid JSON.
    Field(&'a str, &'a str),
    /// The end of an enclosing object; false when the file ends before.
    End(bool),
}

/// Reads a file piece by piece.
pub(super) struct Documents<'a, 'r> {
    pub(super) source: &'a mut Source<'r>,
    limits: &'a Limits,
    /// Keys of enclosing objects whose elements are shown one by one; objects enclose nothing where there are none.
    arrays: &'static [&'static str],
    /// The one at hand.
    inside: &'static str,
    buffer: Vec<u8>,
}

type See<'s> = &'s mut dyn FnMut(Piece<'_>) -> Result<()>;

impl<'a, 'r> Documents<'a, 'r> {
    pub(super) fn new(
        source: &'a mut Source<'r>,
        limits: &'a Limits,
        arrays: &'static [&'static str],
    ) -> Self {
        Self { source, limits, arrays, inside: "", buffer: Vec::new() }
    }

    /// Shows everything there is.
    ///
    /// # Errors
    /// Those of `see`.
    pub(super) fn each(&mut self, see: See<'_>) -> Result<()> {
        self.skip_byte_order_mark();
        loop {
            self.source.skip_space();
            match self.source.peek() {
                None => return Ok(()),
                Some(b'[') => self.array(see)?,
                Some(b'{') if self.arrays.is_empty() => self.line(see)?,
                Some(b'{') => self.enclosing(see)?,
                Some(_) => self.stray_line(),
            }
        }
    }

    fn skip_byte_order_mark(&mut self) {
        for byte in "\u{FEFF}".bytes() {
            if self.source.peek() == Some(byte) {
                self.source.skip();
            }
        }
    }

    /// An object on a line of its own; one whose brace has a line of its own may take many.
    fn line(&mut self, see: See<'_>) -> Result<()> {
        if self.source.buffer().starts_with(b"{\n") || self.source.buffer().starts_with(b"{\r\n") {
            return self.object(see);
        }
        let place = self.source.place();
        let limit = self.limits.row_bytes;
        self.clear();
        let taken = self.source.take(Some((&mut self.buffer, limit)), |piece| match memchr(b'\n', piece) {
            Some(end) => (end, true),
            None => (piece.len(), false),
        });
        if taken.bytes > limit {
            self.too_long(place, taken.bytes);
            return see(Piece::Broken(self.start()));
        }
        self.show(place, taken.ended, see)
    }

    /// An object over any number of lines.
    fn object(&mut self, see: See<'_>) -> Result<()> {
        let place = self.source.place();
        match self.value() {
            None => see(Piece::Broken(self.start())),
            Some(ended) => self.show(place, ended, see),
        }
    }

    fn show(&mut self, place: Place, ended: bool, see: See<'_>) -> Result<()> {
        match json_text(&self.buffer) {
            Ok(text) if text.trim_start().starts_with('{') => see(Piece::Object(&text, place, self.inside)),
            Ok(text) => {
                let message = format!("expected an object, found `{}`", excerpt(&text));
                self.source.problem(place, || message);
                see(Piece::Broken(self.start()))
            }
            Err(error) => {
                let column = if error.line() <= 1 { place.column + error.column() as u64 } else { 1 };
                let at = Place { line: place.line + error.line().saturating_sub(1) as u64, column };
                let message = match !ended && error.is_eof() {
                    true => "the file ends inside this line".to_owned(),
                    false => format!(
                        "expected an object, found `{}`: {}",
                        excerpt(&show(&self.buffer[..self.buffer.len().min(256)]).0),
                        reason(&error)
                    ),
                };
                self.source.problem(at, || message);
                see(Piece::Broken(self.start()))
            }
        }
    }

    /// Reads a value that begins with a bracket, brace or quote; whether it ends. None when it is too long: reported.
    fn value(&mut self) -> Option<bool> {
        let place = self.source.place();
        let limit = self.limits.row_bytes;
        self.clear();
        let mut balance = Balance::default();
        let taken = self.source.take(Some((&mut self.buffer, limit)), |piece| balance.scan(piece));
        if taken.bytes > limit {
            self.too_long(place, taken.bytes);
            return None;
        }
        Some(taken.ended)
    }

    /// How the piece at hand starts.
    fn start(&self) -> &[u8] {
        &self.buffer[..self.buffer.len().min(START)]
    }

    fn clear(&mut self) {
        self.buffer.clear();
        self.buffer.shrink_to(1 << 20);
    }

    fn too_long(&mut self, place: Place, bytes: usize) {
        let limit = self.limits.row_bytes;
        self.source
            .problem(place, || format!("these {bytes} bytes are over the limit of {limit} and are skipped"));
    }

    /// `[{…},{…}]`.
    fn array(&mut self, see: See<'_>) -> Result<()> {
        let start = self.source.place();
        self.source.skip();
        loop {
            self.source.skip_space();
            match self.source.peek() {
                None => {
                    self.source
                        .problem(start, || "the file ends inside the array that starts here".to_owned());
                    return see(Piece::Broken(&[]));
                }
                Some(b']') => {
                    self.source.skip();
                    return Ok(());
                }
                Some(b',') => self.source.skip(),
                Some(b'{') => self.object(see)?,
                Some(byte) => {
                    // Log lines begin with a bracket too.
                    let is_json = matches!(byte, b'"' | b'[' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n');
                    self.other(see)?;
                    if !is_json {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Something where an object should be.
    fn other(&mut self, see: See<'_>) -> Result<()> {
        let place = self.source.place();
        self.scalar_or_value();
        let text = show(&self.buffer[..self.buffer.len().min(256)]).0;
        self.source.problem(place, || format!("expected an object, found `{}`", excerpt(text.trim())));
        see(Piece::Broken(&[]))
    }

    fn scalar_or_value(&mut self) -> bool {
        if matches!(self.source.peek(), Some(b'"' | b'[' | b'{')) {
            return self.value() == Some(true);
        }
        self.clear();
        let taken = self.source.take(Some((&mut self.buffer, 1 << 10)), |piece| {
            let end = piece.iter().position(|byte| matches!(byte, b',' | b']' | b'}' | b'\n'));
            (end.unwrap_or(piece.len()), end.is_some())
        });
        // A brace where nothing stands would be looked at for ever.
        if taken.bytes == 0 {
            self.source.skip();
        }
        taken.ended
    }

    /// `{"key": value, "results": [{…},{…}]}`.
    fn enclosing(&mut self, see: See<'_>) -> Result<()> {
        let start = self.source.place();
        self.source.skip();
        loop {
            self.source.skip_space();
            match self.source.peek() {
                None => {
                    self.source
                        .problem(start, || "the file ends inside the object that starts here".to_owned());
                    return see(Piece::End(false));
                }
                Some(b'}') => {
                    self.source.skip();
                    return see(Piece::End(!self.source.failed));
                }
                Some(b',') => self.source.skip(),
                Some(b'"') => self.member(see)?,
                Some(_) => {
                    self.other(see)?;
                }
            }
        }
    }

    fn member(&mut self, see: See<'_>) -> Result<()> {
        let Some(true) = self.value() else { return see(Piece::Broken(&[])) };
        let name = json_text(&self.buffer).ok().and_then(|text| serde_json::from_str::<String>(&text).ok());
        self.source.skip_space();
        if self.source.peek() == Some(b':') {
            self.source.skip();
        }
        self.source.skip_space();
        let name = name.unwrap_or_default();
        let array = self.arrays.iter().find(|array| **array == name);
        if let Some(array) = array.filter(|_| self.source.peek() == Some(b'[')) {
            self.inside = array;
            self.array(see)?;
            self.inside = "";
            return Ok(());
        }
        let place = self.source.place();
        self.scalar_or_value();
        match json_text(self.buffer.trim_ascii()) {
            Ok(value) => see(Piece::Field(&name, &value)),
            Err(error) => {
                let message = format!("the value of `{}` is no JSON: {}", excerpt(&name), reason(&error));
                self.source.problem(place, || message);
                see(Piece::Broken(&[]))
            }
        }
    }

    fn stray_line(&mut self) {
        let place = self.source.place();
        self.clear();
        self.source.take(Some((&mut self.buffer, 256)), |piece| match memchr(b'\n', piece) {
            Some(end) => (end, true),
            None => (piece.len(), false),
        });
        let text = show(&self.buffer).0;
        self.source.problem(place, || format!("expected an object, found `{}`", excerpt(text.trim_end())));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RESULTS: &[&str] = &["results"];

    fn seen(text: &[u8], arrays: &'static [&'static str]) -> (Vec<String>, Vec<String>) {
        let mut reader = text;
        let mut source = Source::new(&mut reader, "f");
        let limits = Limits { row_bytes: 100, ..Limits::default() };
        let mut seen = Vec::new();
        let mut documents = Documents::new(&mut source, &limits, arrays);
        let read = documents.each(&mut |piece| {
            seen.push(match piece {
                Piece::Object(text, place, _) => format!("{}: {text}", place.line),
                Piece::Broken(_) => "broken".to_owned(),
                Piece::Field(key, value) => format!("{key}={value}"),
                Piece::End(whole) => format!("end {whole}"),
            });
            Ok(())
        });
        read.unwrap();
        (seen, source.problems.kept.iter().map(ToString::to_string).collect())
    }

    fn check(text: &str, arrays: &'static [&'static str], expect: &[&str]) {
        let (seen, problems) = seen(text.as_bytes(), arrays);
        assert_eq!(seen, expect, "{problems:#?}");
    }

    #[test]
    fn every_form_is_read() {
        check("{\"a\":1}\n\n{\"b\":[{}]}", &[], &["1: {\"a\":1}", "3: {\"b\":[{}]}"]);
        check("\u{FEFF}[{\"a\":1},\n{\"b\":2}]", &[], &["1: {\"a\":1}", "2: {\"b\":2}"]);
        check("{\n\"a\":1}\n{\n\"b\":2}", &[], &["1: {\n\"a\":1}", "3: {\n\"b\":2}"]);
        check(
            "{\"id\": 1, \"results\": [{\"a\":1}, {\"b\":2}], \"x\": true}",
            RESULTS,
            &["id=1", "1: {\"a\":1}", "1: {\"b\":2}", "x=true", "end true"],
        );
        check("[{\"results\":[]}]", RESULTS, &["1: {\"results\":[]}"]);
    }

    #[test]
    fn a_broken_line_costs_no_other() {
        check("{\"a\":[{\n{\"b\":2}\nError!\n{\"c\":", &[], &["broken", "2: {\"b\":2}", "broken"]);
        let long = format!("{{\"a\":\"{}\"}}\n{{\"b\":2}}", "x".repeat(200));
        check(&long, &[], &["broken", "2: {\"b\":2}"]);
        check("[1, {\"a\":1}, \"x\", {\"b\"}]", &[], &["broken", "1: {\"a\":1}", "broken", "broken"]);
        check(
            "{\"results\": [{\"a\":1}, {\"b\"",
            RESULTS,
            &["1: {\"a\":1}", "broken", "broken", "end false"],
        );
        check("{\"x\": nope, \"y\": 2}", RESULTS, &["broken", "y=2", "end true"]);
    }

    #[test]
    fn every_broken_piece_has_a_problem() {
        for text in ["{\"a\":[{\nx\n{\"c\":", "[1, {]", "{\"results\":[", "{,,:}", "{\"a\"", "[nope"] {
            for arrays in [&[][..], RESULTS] {
                let (seen, problems) = seen(text.as_bytes(), arrays);
                let broken = seen.iter().filter(|piece| *piece == "broken").count();
                assert!(problems.len() >= broken && !problems.is_empty(), "{text}: {seen:?} {problems:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_their_end(
            bytes in prop::collection::vec(any::<u8>(), 0..100),
            text in r#"([\[\]{},: \n"]|"results":|"a"|1|\{"b":2\}|null){0,30}"#,
        ) {
            for arrays in [&[][..], RESULTS] {
                let _ = seen(&bytes, arrays);
                let _ = seen(text.as_bytes(), arrays);
            }
        }

        #[test]
        fn objects_on_lines_are_all_shown(lines in prop::collection::vec(r#"\{"[a-z]{0,3}":"\PC{0,10}"\}"#, 0..20)) {
            let valid: Vec<&String> =
                lines.iter().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()).collect();
            let (seen, problems) = seen(lines.join("\n").as_bytes(), &[]);
            let objects = seen.iter().filter(|piece| piece.contains(": {")).count();
            prop_assert!(objects >= valid.len());
            prop_assert_eq!(objects + problems.len(), lines.len());
        }
    }
}
