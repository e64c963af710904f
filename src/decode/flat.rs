//! A row as osquery prints nearly all of them: a flat object of strings. What is any other is left to `serde_json`.

use std::ops::Range;

use memchr::memchr2;

/// A value of a flat row, by its place in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Value {
    /// What stands between the quotes, or the number or word without them.
    pub(super) text: Range<usize>,
    /// Whether it is a string.
    pub(super) quoted: bool,
    /// Whether the string has escapes.
    pub(super) escaped: bool,
}

/// Shows each key (between its quotes) and value of the object that starts at `from`, and gives the place behind it.
///
/// `None` when this is no object, holds another object or an array, has an escape in a key, or is not whole; keys may
/// have been shown before that is found. What is inside of strings is not looked at.
pub(super) fn scan(
    bytes: &[u8],
    from: usize,
    pair: &mut impl FnMut(Range<usize>, Value) -> Option<()>,
) -> Option<usize> {
    let mut at = after(bytes, from, b'{')?;
    at = skip_space(bytes, at);
    if bytes.get(at) == Some(&b'}') {
        return Some(at + 1);
    }
    loop {
        let key = plain_string(bytes, at)?;
        at = skip_space(bytes, key.end + 1);
        at = skip_space(bytes, after(bytes, at, b':')?);
        let value = value(bytes, at)?;
        at = skip_space(bytes, value.text.end + usize::from(value.quoted));
        pair(key, value)?;
        match bytes.get(at)? {
            b',' => at = skip_space(bytes, at + 1),
            b'}' => return Some(at + 1),
            _ => return None,
        }
    }
}

/// Whether a row that [`scan`] went through whole is valid JSON to the last byte and plain ASCII, so that it needs
/// neither repair nor encoding. Rows with escapes, numbers or words are left to a real parser.
pub(super) fn valid_row(bytes: &[u8]) -> Option<usize> {
    let mut control_in_strings = false;
    let mut see = |range: Range<usize>| control_in_strings |= has_control(&bytes[range]);
    let end = scan(bytes, 0, &mut |key, value| {
        see(key);
        let plain = value.quoted && !value.escaped;
        see(value.text);
        plain.then_some(())
    })?;
    (!control_in_strings && bytes[..end].is_ascii()).then_some(end)
}

fn has_control(bytes: &[u8]) -> bool {
    // Without an early end, so that it is done many bytes at a time.
    bytes.iter().fold(false, |found, byte| found | (*byte < 0x20))
}

/// The place of the first byte at or behind `at` that is no JSON white space.
pub(super) fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        at += 1;
    }
    at
}

/// The place behind `byte`, if it stands at `at`.
pub(super) fn after(bytes: &[u8], at: usize, byte: u8) -> Option<usize> {
    (bytes.get(at) == Some(&byte)).then_some(at + 1)
}

/// A string without escapes, between its quotes.
fn plain_string(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let start = after(bytes, at, b'"')?;
    let end = start + memchr2(b'"', b'\\', &bytes[start..])?;
    (bytes[end] == b'"').then_some(start..end)
}

fn value(bytes: &[u8], at: usize) -> Option<Value> {
    match bytes.get(at)? {
        b'"' => string(bytes, at + 1),
        b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => Some(scalar(bytes, at)),
        _ => None,
    }
}

fn string(bytes: &[u8], start: usize) -> Option<Value> {
    let (mut at, mut escaped) = (start, false);
    loop {
        at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(Value { text: start..at, quoted: true, escaped });
        }
        escaped = true;
        at += 2;
    }
}

/// A number or word; whether it is one that JSON knows is not looked at.
fn scalar(bytes: &[u8], start: usize) -> Value {
    let is_over = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t');
    let length = bytes[start..].iter().position(is_over).unwrap_or(bytes.len() - start);
    Value { text: start..start + length, quoted: false, escaped: false }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decode::utf8::json_text;

    fn pairs(text: &str) -> Option<(Vec<(&str, &str)>, usize)> {
        let mut seen = Vec::new();
        let end = scan(text.as_bytes(), 0, &mut |key, value| {
            seen.push((&text[key], &text[value.text]));
            Some(())
        })?;
        Some((seen, end))
    }

    #[test]
    fn pairs_of_flat_rows() {
        let check = |text: &str, expect: &[(&str, &str)], end: usize| {
            assert_eq!(pairs(text), Some((expect.to_vec(), end)), "{text}");
        };
        check("{}", &[], 2);
        check("{ }x", &[], 3);
        check("{\n\"a\": \"b\",\n\"c\" :\"\"\n},", &[("a", "b"), ("c", "")], 21);
        check(r#"{"a":-1.5,"b":null}"#, &[("a", "-1.5"), ("b", "null")], 19);
        check(r#"{"a":"x\"y\\"}"#, &[("a", r#"x\"y\\"#)], 14);
        check("{\"é\":\"ü\"}", &[("é", "ü")], 11);
    }

    #[test]
    fn the_rest_is_left_to_others() {
        for text in
            ["", "[", "{", r#"{"a""#, r#"{"a":"#, r#"{"a":"x"#, r#"{"a":"x\"#, r#"{"a":[1]}"#, r#"{"\n":""}"#]
        {
            assert_eq!(pairs(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn valid_rows_are_valid_json(text in r#"\{("a":"[b\x01\\\n ]{0,2}",?|"c"[: ]"é?",| |\n){0,6}\}?[,x]?"#) {
            if let Some(end) = valid_row(text.as_bytes()) {
                let row = &text.as_bytes()[..end];
                let text = json_text(row).unwrap();
                prop_assert_eq!(text.as_bytes(), row);
            }
        }

        #[test]
        fn pairs_are_those_of_serde_json(rows in prop::collection::vec(("[a-z]{1,3}", "\\PC{0,8}"), 0..6)) {
            let object: serde_json::Map<String, serde_json::Value> =
                rows.into_iter().map(|(key, value)| (key, value.into())).collect();
            let text = serde_json::Value::Object(object.clone()).to_string();
            let (seen, end) = pairs(&text).unwrap();
            prop_assert_eq!(end, text.len());
            for (key, value) in seen {
                let back: String = serde_json::from_str(&format!("\"{value}\"")).unwrap();
                prop_assert_eq!(object[key].as_str(), Some(back.as_str()));
            }
        }
    }
}
