//! Text that came from hosts, made safe to show.
//!
//! Whoever owns a host chooses the names of its files and processes. Shown raw, such a name could move the cursor,
//! reorder the line around it, hide a part of itself, or become a formula in a spreadsheet.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

const ELLIPSIS: &str = "…";

/// How many columns of a terminal `text` takes.
pub fn width(text: &str) -> usize {
    UnicodeWidthStr::width(text)
}

/// `text` as a terminal may show it: one line of visible characters in the order in which they stand.
///
/// Line feed, carriage return and tab become `\n`, `\r` and `\t`; every other character that [`deceives`], that has
/// no width of its own (combining marks too: stacked, they bury the lines around them, and skin tones, which some
/// terminals draw beside the hand and some on it) or that is a space but not ` ` becomes `\u{202e}` and the like. A backslash that would read as the start of such an escape is doubled.
pub fn escape(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'\\') {
        return Cow::Borrowed(text);
    }
    escape_where(text, |c| deceives(c) || has_no_place(c))
}

/// Whether a character has no column of its own, the same on every terminal.
fn has_no_place(c: char) -> bool {
    let is_skin_tone = matches!(c, '\u{1f3fb}'..='\u{1f3ff}');
    is_skin_tone || c.width() == Some(0) || (c.is_whitespace() && c != ' ')
}

/// [`escape`], then cut in the middle to at most `limit` columns: `abc…xyz`.
pub fn shown(text: &str, limit: usize) -> String {
    cut(&escape(text), limit).into_owned()
}

/// Cuts `text`, which must be escaped, in the middle to at most `limit` columns.
///
/// Both ends stay because both tell: a path's directory and its file name, a command and its last argument.
pub fn cut(text: &str, limit: usize) -> Cow<'_, str> {
    if width(text) <= limit {
        return Cow::Borrowed(text);
    }
    if limit == 0 {
        return Cow::Borrowed("");
    }
    let room = limit - 1;
    let head = fitting(text.chars(), room - room / 2);
    let tail = fitting(text.chars().rev(), room / 2);
    let mut kept: String = text.chars().take(head).collect();
    kept.push_str(ELLIPSIS);
    kept.extend(text.chars().skip(text.chars().count().saturating_sub(tail)));
    Cow::Owned(kept)
}

/// Cuts `text`, which must be escaped, at its end to at most `limit` columns: for sentences, `abcdef…`.
pub fn cut_end(text: &str, limit: usize) -> Cow<'_, str> {
    if width(text) <= limit {
        return Cow::Borrowed(text);
    }
    let Some(room) = limit.checked_sub(1) else {
        return Cow::Borrowed("");
    };
    let mut kept: String = text.chars().take(fitting(text.chars(), room)).collect();
    kept.truncate(kept.trim_end_matches(' ').len());
    kept.push_str(ELLIPSIS);
    Cow::Owned(kept)
}

/// How many of the first `chars` fit into `room` columns.
fn fitting(chars: impl Iterator<Item = char>, room: usize) -> usize {
    let mut used = 0;
    chars
        .take_while(|c| {
            used += c.width().unwrap_or(1);
            used <= room
        })
        .count()
}

/// A cell for a spreadsheet: text that a spreadsheet would run as a formula gets a leading `'`.
///
/// That is text whose first character, spaces aside, is one of `= + - @`, their full-width forms, tab, carriage
/// return or line feed. Characters that [`deceives`] names are escaped as [`escape`] does, tabs and line feeds stay.
/// So CSV is for eyes and spreadsheets; JSON and Parquet carry the values unchanged. For text only: numbers that are
/// typed as numbers do not come here and keep their minus sign.
pub fn neutralise(text: &str) -> Cow<'_, str> {
    const FORMULA: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];
    let is_formula = text.trim_start_matches(' ').starts_with(FORMULA);
    let clean = if text.chars().any(is_unfit_for_csv) {
        escape_where(text, is_unfit_for_csv)
    } else {
        Cow::Borrowed(text)
    };
    if is_formula { Cow::Owned(format!("'{clean}")) } else { clean }
}

fn is_unfit_for_csv(c: char) -> bool {
    deceives(c) && !matches!(c, '\t' | '\n')
}

/// Whether a character makes text show as something else than what it is: controls (C0, DEL, C1), bidirectional
/// marks, invisible and zero-width characters, variation selectors, tags, line separators, private use, and code
/// points that are no characters. That is all of Unicode's categories Cc, Cf, Co, Zl and Zp, what is to be ignored when
/// it cannot be shown (Default_Ignorable_Code_Point), and a few that are blank.
pub fn deceives(c: char) -> bool {
    c.is_control()
        || u32::from(c) & 0xfffe == 0xfffe
        || matches!(c,
            '\u{ad}' | '\u{34f}'
            | '\u{600}'..='\u{605}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}'
            | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{2800}' | '\u{3164}'
            | '\u{e000}'..='\u{f8ff}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}'
            | '\u{fdd0}'..='\u{fdef}'
            | '\u{fff0}'..='\u{fffc}'
            | '\u{110bd}' | '\u{110cd}'
            | '\u{13430}'..='\u{1345f}'
            | '\u{16fe4}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d159}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{10ffff}')
}

fn escape_where(text: &str, is_unfit: impl Fn(char) -> bool) -> Cow<'_, str> {
    let mut safe = String::with_capacity(text.len() + 8);
    for (at, c) in text.char_indices() {
        match c {
            '\\' if text[at..].starts_with("\\u{") => safe.push_str("\\\\"),
            '\n' if is_unfit(c) => safe.push_str("\\n"),
            '\r' if is_unfit(c) => safe.push_str("\\r"),
            '\t' if is_unfit(c) => safe.push_str("\\t"),
            _ if is_unfit(c) => {
                // Writing to a string cannot fail.
                _ = write!(safe, "{}", c.escape_unicode());
            }
            _ => safe.push(c),
        }
    }
    if safe == text { Cow::Borrowed(text) } else { Cow::Owned(safe) }
}

/// Passes JSON through, with characters that [`deceives`] names spelled `\u202e`: the same document to every JSON
/// parser, and safe to print on a terminal.
///
/// Such characters can stand in strings only, and serialisers escape the ASCII controls themselves.
pub(super) struct JsonGuard<W> {
    out: W,
    /// The start of a character whose other bytes come with the next write.
    carry: Vec<u8>,
}

impl<W: Write> JsonGuard<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, carry: Vec::new() }
    }
}

impl<W: Write> Write for JsonGuard<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.carry.is_empty() && bytes.iter().all(|&byte| byte < 0x7f) {
            self.out.write_all(bytes)?;
            return Ok(bytes.len());
        }
        self.carry.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.carry) {
            Ok(text) => text.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        };
        let rest = self.carry.split_off(whole);
        let text = String::from_utf8_lossy(&self.carry);
        self.out.write_all(escape_json(&text).as_bytes())?;
        self.carry = rest;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn escape_json(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c < '\u{7f}' || !deceives(c) {
            safe.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            _ = write!(safe, "\\u{unit:04x}");
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn deceiving_characters_are_spelled_out() {
        for (raw, safe) in [
            ("/usr/bin/sshd", "/usr/bin/sshd"),
            ("exe\u{202e}gpj.sh", "exe\\u{202e}gpj.sh"),
            ("\u{1b}[2J\r\n\t", "\\u{1b}[2J\\r\\n\\t"),
            ("a\u{9b}31m", "a\\u{9b}31m"),
            ("zero\u{200b}width\u{feff}", "zero\\u{200b}width\\u{feff}"),
            ("soft\u{ad}hyphen", "soft\\u{ad}hyphen"),
            ("tag\u{e0041}", "tag\\u{e0041}"),
            ("\u{2066}isolate\u{2069}", "\\u{2066}isolate\\u{2069}"),
            ("heart\u{2764}\u{fe0f}", "heart\u{2764}\\u{fe0f}"),
            ("selector\u{e0100}", "selector\\u{e0100}"),
            ("👩\u{200d}💻", "👩\\u{200d}💻"),
            ("👍\u{1f3fd}", "👍\\u{1f3fd}"),
            ("\u{1b}]8;;https://evil.example\u{7}", "\\u{1b}]8;;https://evil.example\\u{7}"),
            ("em\u{2003}ideographic\u{3000}", "em\\u{2003}ideographic\\u{3000}"),
            ("nbsp\u{a0}", "nbsp\\u{a0}"),
            ("e\u{301}", "e\\u{301}"),
            ("grün 日本", "grün 日本"),
            ("C:\\new", "C:\\new"),
            ("\\u{202e}", "\\\\u{202e}"),
        ] {
            assert_eq!(escape(raw), safe);
        }
    }

    #[test]
    fn both_ends_of_a_cut_text_stay() {
        for (text, limit, expected) in [
            ("abcdefgh", 8, "abcdefgh"),
            ("abcdefgh", 7, "abc…fgh"),
            ("abcdefgh", 2, "a…"),
            ("abcdefgh", 1, "…"),
            ("abcdefgh", 0, ""),
            ("日本日本", 6, "日…本"),
        ] {
            assert_eq!(cut(text, limit), expected);
        }
    }

    #[test]
    fn formulas_are_neutralised() {
        for (raw, safe) in [
            ("=1+1", "'=1+1"),
            ("  @SUM(A1)", "'  @SUM(A1)"),
            ("-5", "'-5"),
            ("\tx", "'\tx"),
            ("\nx", "'\nx"),
            ("\rx", "'\\rx"),
            ("＝1", "'＝1"),
            ("a=1", "a=1"),
            ("", ""),
            ("a\u{1b}[0m\u{202e}", "a\\u{1b}[0m\\u{202e}"),
        ] {
            assert_eq!(neutralise(raw), safe);
        }
    }

    #[test]
    fn a_character_split_over_two_writes_is_whole_again() {
        let mut guard = JsonGuard::new(Vec::new());
        for byte in "\"ü\u{202e}\u{7f}\u{e0041}日\"".bytes() {
            guard.write_all(&[byte]).unwrap();
        }
        assert_eq!(String::from_utf8(guard.out).unwrap(), "\"ü\\u202e\\u007f\\udb40\\udc41日\"");
    }

    proptest! {
        #[test]
        fn escaped_text_has_nothing_that_deceives(text in "\\PC*|.*|[\\x00-\\x20\u{80}-\u{a0}\u{200b}-\u{206f}\\\\u{}]*") {
            let safe = escape(&text);
            prop_assert!(!safe.chars().any(|c| deceives(c) || c.width() == Some(0)));
            prop_assert_eq!(safe.lines().count().max(1), 1);
        }

        #[test]
        fn cut_text_keeps_its_limit(text in any::<String>(), limit in 0usize..40) {
            for safe in [shown(&text, limit), cut_end(&escape(&text), limit).into_owned()] {
                prop_assert!(width(&safe) <= limit, "{:?} takes {}", safe, width(&safe));
            }
        }

        #[test]
        fn guarded_json_is_the_same_document(text in any::<String>()) {
            let mut guard = JsonGuard::new(Vec::new());
            serde_json::to_writer(&mut guard, &text).unwrap();
            let json = String::from_utf8(guard.out).unwrap();
            prop_assert!(!json.chars().any(deceives));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }

        #[test]
        fn neutralised_text_is_no_formula(text in any::<String>()) {
            let safe = neutralise(&text).into_owned();
            prop_assert!(!safe.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']));
        }
    }
}
