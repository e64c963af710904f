//! Rows as `osqueryi --json` prints them: an array of flat objects whose values are all strings.
//!
//! Written by hand, and only here, because values are bytes: a file name or a command line that is no UTF-8 goes out
//! raw, as osquery does, so that the decoder can keep it without loss. A JSON library would refuse or replace it.

use std::fmt;

/// Longest value that is written, in bytes; the rest is cut off.
const MAX_VALUE: usize = 2 << 20;

/// Rows so far, as JSON text.
pub(super) struct Rows {
    json: Vec<u8>,
    count: usize,
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").field("count", &self.count).field("bytes", &self.json.len()).finish()
    }
}

impl Rows {
    /// No rows yet.
    pub(super) fn new() -> Self {
        Self { json: vec![b'['], count: 0 }
    }

    /// Adds one row, which `fill` writes column by column.
    pub(super) fn push(&mut self, fill: impl FnOnce(&mut Row<'_>)) {
        self.json.extend_from_slice(if self.count == 0 { b"\n{" } else { b",\n{" });
        fill(&mut Row { json: &mut self.json, first: true });
        self.json.push(b'}');
        self.count += 1;
    }

    /// Bytes written so far.
    pub(super) fn bytes(&self) -> usize {
        self.json.len()
    }

    /// The whole array.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.json.extend_from_slice(b"\n]\n");
        self.json
    }
}

/// One row that is being written; a column must be written at most once.
pub(super) struct Row<'a> {
    json: &'a mut Vec<u8>,
    first: bool,
}

impl Row<'_> {
    /// Writes bytes as they are, cut to 2 MiB.
    pub(super) fn text(&mut self, column: &str, value: impl AsRef<[u8]>) -> &mut Self {
        if !self.first {
            self.json.push(b',');
        }
        self.first = false;
        write_string(self.json, column.as_bytes());
        self.json.push(b':');
        write_string(self.json, cut(value.as_ref()));
        self
    }

    /// Writes a number or anything else that prints itself.
    pub(super) fn show(&mut self, column: &str, value: impl fmt::Display) -> &mut Self {
        self.text(column, value.to_string())
    }

    /// Writes a boolean as 0 or 1.
    pub(super) fn flag(&mut self, column: &str, value: bool) -> &mut Self {
        self.text(column, if value { "1" } else { "0" })
    }

    /// Writes what is known; a column that is left out is read as unknown.
    pub(super) fn known(&mut self, column: &str, value: Option<impl AsRef<[u8]>>) -> &mut Self {
        match value {
            Some(value) => self.text(column, value),
            None => self,
        }
    }
}

/// At most [`MAX_VALUE`] bytes of it, not cut within a UTF-8 character.
fn cut(value: &[u8]) -> &[u8] {
    if value.len() <= MAX_VALUE {
        return value;
    }
    let continues = |at: usize| value[at] & 0xC0 == 0x80;
    let end = (MAX_VALUE - 3..=MAX_VALUE).rev().find(|at| !continues(*at)).unwrap_or(MAX_VALUE);
    &value[..end]
}

fn write_string(json: &mut Vec<u8>, value: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    json.push(b'"');
    for &byte in value {
        match byte {
            b'"' => json.extend_from_slice(b"\\\""),
            b'\\' => json.extend_from_slice(b"\\\\"),
            b'\n' => json.extend_from_slice(b"\\n"),
            b'\t' => json.extend_from_slice(b"\\t"),
            0..0x20 => {
                json.extend_from_slice(b"\\u00");
                json.push(HEX[usize::from(byte >> 4)]);
                json.push(HEX[usize::from(byte & 15)]);
            }
            _ => json.push(byte),
        }
    }
    json.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(value: &[u8]) -> Vec<u8> {
        let mut rows = Rows::new();
        rows.push(|row| {
            row.text("a", value).flag("b", true).known("c", None::<&str>).show("d", -1);
        });
        rows.finish()
    }

    #[test]
    fn no_rows_are_an_empty_array() {
        let parsed: Vec<serde_json::Value> = serde_json::from_slice(&Rows::new().finish()).unwrap();
        assert!(parsed.is_empty());
    }

    #[test]
    fn bytes_that_are_no_utf8_go_out_raw() {
        let json = one(b"a\xff\xc3(\"");
        assert!(memchr::memmem::find(&json, b"\"a\xff\xc3(\\\"\"").is_some(), "{json:?}");
        assert!(serde_json::from_slice::<serde_json::Value>(&json).is_err());
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let long = "é".repeat(MAX_VALUE);
        let parsed: serde_json::Value = serde_json::from_slice(&one(long.as_bytes())).unwrap();
        assert_eq!(parsed[0]["a"].as_str().unwrap().len(), MAX_VALUE);
        assert!(cut(&vec![0x80; MAX_VALUE + 9]).len() <= MAX_VALUE);
    }

    proptest! {
        #[test]
        fn utf8_comes_back_as_it_was(value in any::<String>(), control in "[\\x00-\\x1f\\\\\"\\x7f]{0,20}") {
            let value = value + &control;
            let parsed: serde_json::Value = serde_json::from_slice(&one(value.as_bytes())).unwrap();
            prop_assert_eq!(parsed[0]["a"].as_str().unwrap(), value.as_str());
            prop_assert_eq!(parsed[0]["b"].as_str().unwrap(), "1");
            prop_assert_eq!(parsed[0]["d"].as_str().unwrap(), "-1");
            prop_assert!(parsed[0].get("c").is_none());
        }
    }
}
