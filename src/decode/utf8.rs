//! Text that is not UTF-8, without loss: the transport encoding of [`super::Chunk`], and osquery's `\xHH` spelling.
//!
//! In transport each byte that is no UTF-8 is one character of U+10FF00..=U+10FFFF (private use, assigned to nobody).
//! A host may send such a character itself, raw or as `\u` escapes: then each of its four bytes is encoded too, so the
//! way back is never ambiguous.

use std::borrow::Cow;
use std::fmt::Write;

use memchr::{memchr, memchr_iter, memmem};
use serde::de::IgnoredAny;

const BASE: u32 = 0x0010_FF00;

/// JSON text from bytes that should be JSON: what cannot be JSON inside of strings is encoded or escaped.
///
/// # Errors
/// The bytes are no JSON even so; positions in the error are those of the text.
pub(super) fn json_text(bytes: &[u8]) -> serde_json::Result<Cow<'_, str>> {
    if let Some(text) = clean(bytes)
        && serde_json::from_str::<IgnoredAny>(text).is_ok()
    {
        return Ok(Cow::Borrowed(text));
    }
    let repaired = repair(bytes);
    serde_json::from_str::<IgnoredAny>(&repaired)?;
    Ok(Cow::Owned(repaired))
}

/// The text, when nothing in it can need encoding. Control characters are left to the JSON parser to find.
fn clean(bytes: &[u8]) -> Option<&str> {
    let suspicious = memchr(0xF4, bytes).is_some()
        || memmem::find(bytes, br"\ud").is_some()
        || memmem::find(bytes, br"\uD").is_some();
    if suspicious { None } else { std::str::from_utf8(bytes).ok() }
}

/// Encodes what is no UTF-8; inside of JSON strings also escapes control characters, doubles the backslash of escapes
/// that JSON does not know, and encodes lone surrogates.
fn repair(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 16);
    let mut rest = bytes;
    let mut in_string = false;
    while let Some(at) = next_special(rest, in_string) {
        encode_into(&rest[..at], &mut out);
        rest = &rest[at..];
        let used = if in_string { special_of_string(rest, &mut out) } else { copy(rest, 1, &mut out) };
        if rest[0] == b'"' {
            in_string = !in_string;
        }
        rest = &rest[used..];
    }
    encode_into(rest, &mut out);
    out
}

fn next_special(rest: &[u8], in_string: bool) -> Option<usize> {
    if !in_string {
        return memchr(b'"', rest);
    }
    rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))
}

fn special_of_string(rest: &[u8], out: &mut String) -> usize {
    match rest {
        [b'"', ..] => copy(rest, 1, out),
        [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => copy(rest, 2, out),
        [b'\\', b'u', ..] => unicode_escape(rest, out),
        [b'\\', ..] => double_backslash(out),
        [control, ..] => {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\u{control:04x}");
            1
        }
        [] => 0,
    }
}

/// Copies `count` ASCII bytes.
fn copy(rest: &[u8], count: usize, out: &mut String) -> usize {
    out.extend(rest[..count].iter().map(|byte| char::from(*byte)));
    count
}

fn double_backslash(out: &mut String) -> usize {
    out.push_str(r"\\");
    1
}

fn unicode_escape(rest: &[u8], out: &mut String) -> usize {
    let Some(first) = hex_escape(rest) else { return double_backslash(out) };
    let second = rest.get(6..).and_then(hex_escape);
    match (first, second) {
        (0xD800..=0xDBFF, Some(low @ 0xDC00..=0xDFFF)) => {
            let code = 0x1_0000 + ((first - 0xD800) << 10) + (low - 0xDC00);
            match char::from_u32(code) {
                Some(character) if code >= BASE => {
                    out.extend(character.encode_utf8(&mut [0; 4]).bytes().map(to_transport));
                    12
                }
                _ => copy(rest, 12, out),
            }
        }
        (0xD800..=0xDFFF, _) => {
            // Half of a pair is no character; its bytes are those of generalised UTF-8.
            let bytes = [0xED, 0x80 | (first >> 6 & 0x3F) as u8, 0x80 | (first & 0x3F) as u8];
            out.extend(bytes.map(to_transport));
            6
        }
        _ => copy(rest, 6, out),
    }
}

/// The number of a `\uXXXX` at the start.
fn hex_escape(rest: &[u8]) -> Option<u32> {
    let digits = rest.strip_prefix(br"\u")?.get(..4)?;
    digits.iter().try_fold(0, |number, digit| Some(number << 4 | char::from(*digit).to_digit(16)?))
}

fn to_transport(byte: u8) -> char {
    char::from_u32(BASE + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn from_transport(character: char) -> Option<u8> {
    u32::from(character).checked_sub(BASE).and_then(|byte| u8::try_from(byte).ok())
}

fn encode_into(bytes: &[u8], out: &mut String) {
    for chunk in bytes.utf8_chunks() {
        if has_transport(chunk.valid()) {
            chunk.valid().chars().for_each(|character| encode_char(character, out));
        } else {
            out.push_str(chunk.valid());
        }
        out.extend(chunk.invalid().iter().copied().map(to_transport));
    }
}

fn encode_char(character: char, out: &mut String) {
    if from_transport(character).is_some() {
        out.extend(character.encode_utf8(&mut [0; 4]).bytes().map(to_transport));
    } else {
        out.push(character);
    }
}

/// Whether any character of the text stands for a byte.
pub(super) fn has_transport(text: &str) -> bool {
    let bytes = text.as_bytes();
    memchr_iter(0xF4, bytes).any(|at| matches!(bytes[at..], [_, 0x8F, 0xBC..=0xBF, ..]))
}

/// The bytes that the host sent, from text in transport encoding.
pub(super) fn original_bytes(text: &str) -> Cow<'_, [u8]> {
    if !has_transport(text) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        match from_transport(character) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Cow::Owned(bytes)
}

/// Bytes of the source that the text stands for.
pub(super) fn source_len(text: &str) -> u64 {
    let bytes = text.as_bytes();
    let encoded =
        memchr_iter(0xF4, bytes).filter(|at| matches!(bytes[*at..], [_, 0x8F, 0xBC..=0xBF, ..])).count();
    (bytes.len() - 3 * encoded) as u64
}

/// The bytes as text to show: what is no UTF-8 becomes `\xHH`. The second value says whether there was any.
pub(super) fn show(bytes: &[u8]) -> (String, bool) {
    let mut out = String::with_capacity(bytes.len());
    let mut invalid = false;
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            invalid = true;
            // Writing to a String cannot fail.
            let _ = write!(out, "\\x{byte:02X}");
        }
    }
    (out, invalid)
}

/// Text in transport encoding as text to show.
pub(super) fn shown(text: Cow<'_, str>) -> Cow<'_, str> {
    if has_transport(&text) { Cow::Owned(show(&original_bytes(&text)).0) } else { text }
}

/// Turns osquery's `\xHH` spelling of non-ASCII bytes back into characters, where the bytes form valid UTF-8.
///
/// Before 5.22.0 differential results (and only these) have every non-ASCII byte spelt so; the same cell in a snapshot
/// is plain. Bytes that form no character stay spelt out.
pub fn unescape_differential(text: &str) -> Cow<'_, str> {
    if memmem::find(text.as_bytes(), br"\x").is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(r"\x") {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let bytes: Vec<u8> = escaped_bytes(rest).collect();
        let used = if bytes.is_empty() { 2 } else { 4 * bytes.len() };
        unescape_run(&bytes, &rest[..used], &mut out);
        rest = &rest[used..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The non-ASCII bytes that a text starts with, spelt `\xHH`.
fn escaped_bytes(text: &str) -> impl Iterator<Item = u8> {
    text.as_bytes().chunks_exact(4).map_while(|spelt| match spelt {
        [b'\\', b'x', high, low] => {
            let digit =
                |digit: &u8| char::from(*digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            Some(digit(high)? << 4 | digit(low)?).filter(|byte| *byte >= 0x80)
        }
        _ => None,
    })
}

/// Appends the run with its valid characters decoded and the rest as it was spelt.
fn unescape_run(bytes: &[u8], spelt: &str, out: &mut String) {
    if bytes.is_empty() {
        out.push_str(spelt);
        return;
    }
    let mut at = 0;
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        at += chunk.valid().len();
        let end = at + chunk.invalid().len();
        out.push_str(&spelt[4 * at..4 * end]);
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(input: &[u8], expect: &str) {
        assert_eq!(json_text(input).unwrap(), expect, "{}", input.escape_ascii());
    }

    #[test]
    fn what_cannot_be_json_is_encoded_or_escaped() {
        check(br#"{"a":"b"}"#, r#"{"a":"b"}"#);
        check("\"é🦀\"".as_bytes(), "\"é🦀\"");
        check(b"\"a\xFFb\"", "\"a\u{10FFFF}b\"");
        check(b"\"\xC3\"", "\"\u{10FFC3}\"");
        check("\"\u{10FF41}\"".as_bytes(), "\"\u{10FFF4}\u{10FF8F}\u{10FFBD}\u{10FF81}\"");
        check(br#""\udbff\udf41""#, "\"\u{10FFF4}\u{10FF8F}\u{10FFBD}\u{10FF81}\"");
        check(br#""\\udbff\\udf41""#, r#""\\udbff\\udf41""#);
        check(br#""\ud83e\udd80""#, r#""\ud83e\udd80""#);
        check(br#""\ud800x""#, "\"\u{10FFED}\u{10FFA0}\u{10FF80}x\"");
        check(b"\"a\x01\nb\"", r#""a\u0001\u000ab""#);
        check(br#""\x41\u12""#, r#""\\x41\\u12""#);
        assert!(json_text(b"{\"a\" \"b\"}").is_err());
        assert!(json_text(b"\xFF").is_err());
    }

    #[test]
    fn differential_spelling_becomes_characters() {
        let check = |input: &str, expect: &str| assert_eq!(unescape_differential(input), expect, "{input}");
        check("plain", "plain");
        check(r"caf\xC3\xA9 \xe2\x82\xac", "café €");
        check(r"\xC3\xA9\xFF\xC3\xA9", r"é\xFFé");
        check(r"\xFF \x0A \x4 \xZZ \x", r"\xFF \x0A \x4 \xZZ \x");
        check(r"\\xC3\xA9", r"\é");
        check(r"\xC3é", r"\xC3é");
    }

    proptest! {
        #[test]
        fn any_bytes_in_a_string_come_back(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut json = vec![b'"'];
            for byte in &bytes {
                if matches!(byte, b'"' | b'\\') {
                    json.push(b'\\');
                }
                json.push(*byte);
            }
            json.push(b'"');
            let text = json_text(&json).unwrap();
            let cell: String = serde_json::from_str(&text).unwrap();
            let back = original_bytes(&cell).into_owned();
            prop_assert_eq!(back, bytes);
            if std::str::from_utf8(&json).is_ok() && !has_transport(&text) {
                prop_assert_eq!(source_len(&text), text.len() as u64);
            }
        }

        #[test]
        fn unescaping_never_panics(text in "(\\\\x|[0-9A-Fa-f]|é|.){0,40}") {
            unescape_differential(&text);
        }
    }
}
