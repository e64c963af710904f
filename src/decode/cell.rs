//! One cell: text made fit to show and to store, numbers in the spellings that osquery prints.

use std::borrow::Cow;

use super::utf8::{has_transport, original_bytes, show};
use crate::model::hex;

/// A cell's text, and what has to be said about it beside.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cell<'a> {
    /// Valid UTF-8 of at most the limit's source bytes; bytes that were no UTF-8 are spelt `\xHH`.
    pub(super) text: Cow<'a, str>,
    /// The source bytes of `text` in hex, when `text` is not the same bytes.
    pub(super) hex: Option<String>,
    /// Length and BLAKE3 digest of all source bytes, when `text` holds only the first of them.
    pub(super) cut: Option<(u64, String)>,
}

impl<'a> Cell<'a> {
    /// Takes text in transport encoding; `limit` is in source bytes.
    pub(super) fn new(text: Cow<'a, str>, limit: usize) -> Self {
        if !has_transport(&text) && text.len() <= limit {
            return Self { text, hex: None, cut: None };
        }
        let bytes = original_bytes(&text);
        let kept = &bytes[..end_of(&bytes, limit)];
        let (shown, invalid) = show(kept);
        let cut = (kept.len() < bytes.len())
            .then(|| (bytes.len() as u64, blake3::hash(&bytes).to_hex().to_string()));
        Self { text: Cow::Owned(shown), hex: invalid.then(|| hex(kept)), cut }
    }
}

/// The longest prefix of at most `limit` bytes that does not end inside of a character.
fn end_of(bytes: &[u8], limit: usize) -> usize {
    if bytes.len() <= limit {
        return bytes.len();
    }
    // A character that reaches over the limit starts at most three bytes before it.
    let spans = |start: &usize| {
        let window = &bytes[*start..bytes.len().min(start + 4)];
        let first = window.utf8_chunks().next().and_then(|chunk| chunk.valid().chars().next());
        first.is_some_and(|character| start + character.len_utf8() > limit)
    };
    (limit.saturating_sub(3)..limit).find(spans).unwrap_or(limit)
}

/// What a cell of a number column says.
#[derive(Debug, PartialEq)]
pub(super) enum Number<T> {
    /// Nothing: osquery prints NULL as the empty string.
    Null,
    /// A number.
    Is(T),
    /// Something else.
    Not,
}

/// Reads a signed 64-bit integer; booleans count as 0 and 1.
pub(super) fn integer(text: &str) -> Number<i64> {
    match text.trim() {
        "" => Number::Null,
        "true" => Number::Is(1),
        "false" => Number::Is(0),
        digits => digits.parse().map_or(Number::Not, Number::Is),
    }
}

/// Reads a finite floating point number; booleans count as 0 and 1.
pub(super) fn double(text: &str) -> Number<f64> {
    match text.trim() {
        "" => Number::Null,
        "true" => Number::Is(1.0),
        "false" => Number::Is(0.0),
        digits => match digits.parse::<f64>() {
            Ok(number) if number.is_finite() => Number::Is(number),
            _ => Number::Not,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers() {
        let check = |text: &str, expect: Number<i64>| assert_eq!(integer(text), expect, "{text:?}");
        check("", Number::Null);
        check(" 12\n", Number::Is(12));
        check("+7", Number::Is(7));
        check("-9223372036854775808", Number::Is(i64::MIN));
        check("18446744073709551615", Number::Not);
        check("0x10", Number::Not);
        check("1.0", Number::Not);
        check("abc", Number::Not);
        check("{}", Number::Not);
        check("true", Number::Is(1));
    }

    #[test]
    fn doubles() {
        let check = |text: &str, expect: Number<f64>| assert_eq!(double(text), expect, "{text:?}");
        check("", Number::Null);
        check("1.5e3", Number::Is(1500.0));
        check("nan", Number::Not);
        check("inf", Number::Not);
        check("1e999", Number::Not);
    }

    #[test]
    fn cells_are_cut_between_characters() {
        let check = |text: &str, limit: usize, expect: &str, hex: Option<&str>| {
            let cell = Cell::new(Cow::Borrowed(text), limit);
            assert_eq!((cell.text.as_ref(), cell.hex.as_deref()), (expect, hex), "{text:?} at {limit}");
            let bytes = original_bytes(text);
            assert_eq!(
                cell.cut.as_ref().map(|cut| cut.0),
                (bytes.len() > limit).then_some(bytes.len() as u64)
            );
        };
        check("abc", 3, "abc", None);
        check("abcd", 3, "abc", None);
        check("aéé", 4, "aé", None);
        check("aé", 2, "a", None);
        check("a\u{10FFFF}b", 9, "a\\xFFb", Some("61ff62"));
        check("a\u{10FFFF}b", 2, "a\\xFF", Some("61ff"));
        check("a\u{10FFFF}bé", 4, "a\\xFFb", Some("61ff62"));
        check("\u{10FFE2}\u{10FF82}x", 1, "\\xE2", Some("e2"));
        check("\u{10FFE2}\u{10FF82}\u{10FFAC}x", 2, "", None);
        check("abc", 0, "", None);
    }
}
