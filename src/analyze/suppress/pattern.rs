//! What a value must look like to be vouched for: a text, a text with `*`, or a regular expression.

use regex::{Regex, RegexBuilder};

use crate::error::{Error, Result};

/// In front of a regular expression.
const REGEX: &str = "regex:";
/// Bytes that a compiled pattern may take; matching is linear in the value.
const PATTERN_BYTES: usize = 1 << 20;
/// Longest pattern, in bytes.
const LONGEST: usize = 16 << 10;
/// A value that nobody vouches for by name; what takes it and the empty one takes everything.
const ANY: &str = "\u{1} anything, 0";

/// A pattern; it is held against the whole value.
#[derive(Debug, Clone)]
pub(super) enum Pattern {
    /// This text and no other.
    Exact(String),
    /// A glob or a regular expression, anchored at both ends. `.` and `*` stop at line breaks, so that a value with a
    /// second line is not vouched for by its first.
    Regex(Regex),
}

impl Pattern {
    /// Reads a pattern: `regex:` and a regular expression, or a text in which `*` stands for any characters of a line
    /// and a backslash takes the meaning from the character behind it.
    pub(super) fn parse(text: &str) -> Result<Self> {
        if text.len() > LONGEST {
            return Err(Error::config(format!("a pattern has at most {LONGEST} bytes")));
        }
        if let Some(regex) = text.strip_prefix(REGEX) {
            return compile(regex, text);
        }
        let (mut exact, mut regex, mut is_glob) = (String::new(), String::new(), false);
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            let plain = match character {
                '*' => {
                    is_glob = true;
                    regex.push_str(".*");
                    continue;
                }
                '\\' => characters.next().ok_or_else(|| {
                    Error::config(format!("`{}` ends in a backslash", text.escape_debug()))
                        .hint("two backslashes stand for one")
                })?,
                plain => plain,
            };
            exact.push(plain);
            regex.push_str(&regex::escape(plain.encode_utf8(&mut [0; 4])));
        }
        if is_glob { compile(&regex, text) } else { Ok(Self::Exact(exact)) }
    }

    /// The text that [`Self::parse`] reads as exactly this value.
    pub(super) fn exactly(value: &str) -> String {
        let escaped = value.replace('\\', r"\\").replace('*', r"\*");
        if escaped.starts_with(REGEX) { format!(r"\{escaped}") } else { escaped }
    }

    /// Whether the whole value looks like this.
    pub(super) fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(text) => text == value,
            Self::Regex(regex) => regex.is_match(value),
        }
    }

    /// Whether every value of one line looks like this.
    pub(super) fn takes_everything(&self) -> bool {
        self.matches("") && self.matches(ANY)
    }
}

fn compile(regex: &str, written: &str) -> Result<Pattern> {
    let whole = format!(r"\A(?:{regex})\z");
    let compiled = RegexBuilder::new(&whole).size_limit(PATTERN_BYTES).build();
    // Alone first: `a)(b` must not become valid by the brackets around it.
    let compiled = RegexBuilder::new(regex).size_limit(PATTERN_BYTES).build().and(compiled);
    compiled.map(Pattern::Regex).map_err(|cause| {
        let cause = cause.to_string();
        let last = cause.lines().last().unwrap_or_default().trim_start_matches("error: ");
        Error::config(format!("`{}` is no pattern: {last}", written.escape_debug())).hint(
            "a text is matched as a whole, `*` stands for anything, `regex:` begins a regular expression",
        )
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(pattern: &str, takes: &[&str], leaves: &[&str]) {
        let pattern = Pattern::parse(pattern).unwrap();
        for value in takes {
            assert!(pattern.matches(value), "{pattern:?} {value:?}");
        }
        for value in leaves {
            assert!(!pattern.matches(value), "{pattern:?} {value:?}");
        }
    }

    #[test]
    fn texts_globs_and_regular_expressions_match_the_whole_value() {
        check("/opt/a.sh", &["/opt/a.sh"], &["/opt/a.sh ", "/opt/aXsh", "x/opt/a.sh", ""]);
        check(
            "/opt/*.sh",
            &["/opt/a.sh", "/opt/.sh", "/opt/b/c.sh"],
            &["/opt/a.sh\nrm", "/opt/a.shx", "/opt/a\n.sh"],
        );
        check("a*b*c", &["abc", "a--b--c", "abbcc"], &["ac", "abcd"]);
        check("[x]+(y)?.*", &["[x]+(y)?.", "[x]+(y)?.z"], &["xxy."]);
        check(r"a\*b\\c", &[r"a*b\c"], &["axb\\c"]);
        check("regex:a|bc", &["a", "bc"], &["ac", "abc", "a\n"]);
        check(r"\regex:a", &["regex:a"], &["a"]);
        check("", &[""], &["a"]);
        check("é*", &["élan"], &["e"]);
    }

    #[test]
    fn what_takes_everything_is_known() {
        for (pattern, everything) in [
            ("*", true),
            ("**", true),
            ("regex:.*", true),
            ("regex:(?s).*|x", true),
            ("a*", false),
            ("", false),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().takes_everything(), everything, "{pattern}");
        }
    }

    #[test]
    fn bad_patterns_are_refused() {
        for pattern in ["regex:(", "regex:a)(b", r"x\", "regex:(a{1000}){1000}", &"x".repeat(LONGEST + 1)] {
            assert!(Pattern::parse(pattern).is_err(), "{}", &pattern[..20.min(pattern.len())]);
        }
    }

    proptest! {
        #[test]
        fn a_value_that_is_written_exactly_is_read_as_itself(value in "(?s).{0,40}", other in "(?s).{0,40}") {
            let pattern = Pattern::parse(&Pattern::exactly(&value)).unwrap();
            prop_assert!(pattern.matches(&value));
            prop_assert_eq!(pattern.matches(&other), other == value);
        }

        #[test]
        fn hostile_patterns_and_values_never_panic(pattern in "(?s)(regex:)?[\\\\*a-z(){}|+?^$.\u{0}-\u{1ff}]{0,30}", value in "(?s).{0,60}") {
            if let Ok(pattern) = Pattern::parse(&pattern) {
                pattern.matches(&value);
                pattern.takes_everything();
            }
        }
    }
}
