//! One line of a collector plugin: what it may say, and what of it is believed.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::model::{Status, cut};

/// Longest excerpt of a line or a name in a message, in bytes.
const EXCERPT: usize = 80;
/// Longest error and version that are kept, in bytes: each table without an answer has a copy.
const LONGEST_ERROR: usize = 2_000;
const LONGEST_VERSION: usize = 64;

/// A line as it comes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    /// The host; there may be no other than the one asked for.
    host: Option<String>,
    /// The table; all that have no other answer, where it is left out.
    table: Option<String>,
    status: Option<Status>,
    #[serde(borrow)]
    rows: Option<&'a RawValue>,
    error: Option<String>,
    osquery_version: Option<String>,
    uid: Option<u32>,
}

/// What a line says, as far as it can be believed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// The table; `None` for all that have no other answer.
    pub(super) table: Option<String>,
    pub(super) status: Status,
    /// An array of rows, or nothing.
    pub(super) json: Vec<u8>,
    pub(super) error: String,
    pub(super) osquery_version: Option<String>,
    pub(super) uid: Option<u32>,
}

/// Reads a line of the answer for `host`; what is wrong with it, otherwise.
pub(super) fn read(line: &[u8], host: &str) -> Result<Said, String> {
    let text =
        std::str::from_utf8(line).map_err(|error| format!("no UTF-8 after byte {}", error.valid_up_to()))?;
    if !text.trim_start().starts_with('{') {
        return Err("it is no JSON object".to_owned());
    }
    // Messages of the parser quote what they do not know.
    let line: Line<'_> = serde_json::from_str(text).map_err(|error| cut(&error.to_string(), 4 * EXCERPT))?;
    if let Some(other) = line.host.filter(|named| named != host) {
        return Err(format!("it speaks of host `{}`, which was not asked for", excerpt(&other)));
    }
    let rows = line.rows.map(|rows| rows.get()).filter(|rows| *rows != "null");
    if rows.is_some_and(|rows| !rows.starts_with('[')) {
        return Err("`rows` is no array".to_owned());
    }
    if line.table.is_none() && rows.is_some() {
        return Err("there are rows, and no table".to_owned());
    }
    let error = kept(line.error.unwrap_or_default(), LONGEST_ERROR);
    let status = status(line.status, rows.is_some(), &error)?;
    Ok(Said {
        table: line.table,
        status,
        json: rows.unwrap_or_default().as_bytes().to_vec(),
        error,
        osquery_version: line.osquery_version.map(|version| kept(version, LONGEST_VERSION)),
        uid: line.uid,
    })
}

/// What is cut says so.
fn kept(text: String, most: usize) -> String {
    if text.len() <= most {
        return text;
    }
    let end = text.floor_char_boundary(most);
    format!("{}… ({} bytes in all)", &text[..end], text.len())
}

/// Rows mean `ok` and their absence an error, where nothing is said; both at once must make sense.
fn status(said: Option<Status>, has_rows: bool, error: &str) -> Result<Status, String> {
    match said {
        None if has_rows => Ok(Status::Ok),
        None if error.is_empty() => Err("there are neither rows nor a status nor an error".to_owned()),
        None => Ok(Status::Error),
        Some(Status::NotAsked) => Err("what was asked for cannot be `not_asked`".to_owned()),
        // The number of rows decides between them later.
        Some(Status::Ok | Status::Empty) if has_rows => Ok(Status::Ok),
        Some(Status::Empty) => Err("`empty` needs `rows`: an empty array".to_owned()),
        Some(Status::Ok) => Err("`ok` needs `rows`".to_owned()),
        Some(status) => Ok(status),
    }
}

/// Text that a plugin chose the length of, in a message.
pub(super) fn excerpt(text: &str) -> String {
    cut(&text.escape_debug().to_string(), EXCERPT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn said(line: &str) -> Said {
        read(line.as_bytes(), "a").unwrap()
    }

    #[track_caller]
    fn refused(line: &[u8], why: &str) {
        let error = read(line, "a").unwrap_err();
        assert!(error.contains(why), "{}: {error}", String::from_utf8_lossy(line));
        assert!(error.len() < 500);
    }

    #[test]
    fn rows_are_handed_on_as_they_stand() {
        let found = said(r#"{"table":"users","rows":[ {"uid":"0", "x":1.50}],"uid":0,"host":"a"}"#);
        assert_eq!(found.json, br#"[ {"uid":"0", "x":1.50}]"#);
        assert_eq!((found.table.as_deref(), found.status, found.uid), (Some("users"), Status::Ok, Some(0)));
        let found =
            said(r#"{"table":"users","status":"truncated","rows":[],"error":"half","osquery_version":"5"}"#);
        assert_eq!((found.status, found.error.as_str()), (Status::Truncated, "half"));
    }

    #[test]
    fn what_is_left_out_has_a_meaning() {
        assert_eq!(said(r#"{"table":"t","error":"no"}"#).status, Status::Error);
        assert_eq!(said(r#"{"table":"t","rows":[],"status":"empty"}"#).status, Status::Ok);
        let all = said(r#"{"status":"undeliverable","error":"no route","rows":null}"#);
        assert_eq!((all.table, all.status), (None, Status::Undeliverable));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_reason() {
        refused(b"hello", "no JSON object");
        refused(br#"["a","t","ok",[],"",null,null]"#, "no JSON object");
        refused(b"{\"table\":\"t\",\"rows\":[]", "EOF");
        refused(br#"{"table":"t","rows":[],"rows":[]}"#, "duplicate field `rows`");
        refused(br#"{"table":"t","rows":{}}"#, "`rows` is no array");
        refused(br#"{"table":7,"rows":[]}"#, "expected a string");
        refused(br#"{"table":"t","rows":[],"statsu":"ok"}"#, "unknown field `statsu`");
        refused(br#"{"table":"t","status":"fine"}"#, "unknown variant `fine`");
        refused(br#"{"table":"t","status":"ok"}"#, "`ok` needs `rows`");
        refused(br#"{"table":"t","status":"not_asked"}"#, "cannot be `not_asked`");
        refused(br#"{"table":"t"}"#, "neither rows");
        refused(br#"{"rows":[]}"#, "no table");
        refused(br#"{"host":"b","table":"t","rows":[]}"#, "host `b`, which was not asked for");
        refused(b"{\"table\":\"\xff\",\"rows\":[]}", "no UTF-8 after byte 10");
        refused(format!(r#"{{"{}":1}}"#, "x".repeat(100_000)).as_bytes(), "unknown field");
        refused(format!(r#"{{"host":"{}"}}"#, "\\u202e".repeat(1000)).as_bytes(), "\\u{202e}");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_no_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&line, "a");
        }

        #[test]
        fn whatever_looks_like_json_is_no_panic(
            line in r#"\{("(host|table|rows|status|error|uid)":("a"|\[\]|null|-?[0-9]{1,12}|"ok"|\{\}),?){0,6}\}"#,
        ) {
            if let Ok(said) = read(line.as_bytes(), "a") {
                prop_assert!(said.json.is_empty() || said.json.starts_with(b"["));
                prop_assert!(said.table.is_some() || said.json.is_empty());
            }
        }
    }
}
