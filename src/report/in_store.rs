//! The commands that show what a finding is about in the store, and that vouch for it: to be pasted into a shell.
//!
//! A row is found by its strict id. Where what hosts say stands in a command, it is a SQL literal without a character
//! that shows as something else, in a here-document that a shell takes as it is.

use serde_json::Value;

use super::escape::escape;
use crate::model::{Analysis, Finding, FindingKind};

/// Longer values, in characters, are compared by their beginning.
const LONGEST_LITERAL: usize = 200;
/// How much of their beginning.
const BEGINNING: usize = 100;

/// `diffy query` over the row of a finding: on its host; for what is missing, on the hosts that have it.
pub(super) fn query(analysis: &Analysis, (host, finding): (&str, &Finding), store: Option<&str>) -> String {
    let mut conditions = vec![format!("snapshot = '{}'", analysis.snapshot)];
    if finding.kind != FindingKind::Missing {
        conditions.extend(equals("host", host));
    }
    let select = match (finding.kind, &finding.strict_id) {
        (FindingKind::Coverage, _) => {
            conditions.push("status NOT IN ('ok', 'empty')".to_owned());
            "SELECT table_name, status, rows, error FROM coverage".to_owned()
        }
        (_, Some(id)) => {
            conditions.push(format!("strict_id = id({})", literal(id)));
            select_all(finding)
        }
        (_, None) => {
            conditions.extend(finding.row.iter().filter_map(|(name, value)| condition(name, value)));
            select_all(finding)
        }
    };
    let conditions = conditions.join("\n  AND ");
    format!("diffy query{} - <<'SQL'\n{select}\nWHERE {conditions}\nSQL", store_flag(store))
}

fn select_all(finding: &Finding) -> String {
    format!("SELECT * FROM {}", identifier(&finding.table).unwrap_or_default())
}

/// `diffy analyze --suppress-add`, which appends what makes the finding known again to a file of suppressions.
pub(super) fn suppress(analysis: &Analysis, finding: &Finding, store: Option<&str>) -> String {
    let fleet = shell(analysis.fleet.as_str());
    format!(
        "diffy analyze{} --fleet {fleet} --snapshot {} --suppress known.toml --suppress-add {} --reason 'WHY'",
        store_flag(store),
        analysis.snapshot,
        shell(&finding.id),
    )
}

fn store_flag(store: Option<&str>) -> String {
    store.map(|store| format!(" --store {}", shell(store))).unwrap_or_default()
}

/// A word of a command line.
fn shell(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", escape(word).replace('\'', r"'\''"))
}

/// `extra` is what did not fit the columns, and no column of the table; a float may not print as it is stored.
fn condition(name: &str, value: &Value) -> Option<String> {
    match value {
        _ if name == "extra" => None,
        Value::String(text) => equals(name, text),
        Value::Number(number) if number.is_i64() => Some(format!("{} = {number}", identifier(name)?)),
        _ => None,
    }
}

fn equals(name: &str, text: &str) -> Option<String> {
    let name = identifier(name)?;
    // DataFusion has no way to spell it.
    if text.contains('\0') {
        return None;
    }
    if text.chars().count() <= LONGEST_LITERAL {
        return Some(format!("{name} = {}", literal(text)));
    }
    let beginning: String = text.chars().take(BEGINNING).collect();
    Some(format!("starts_with({name}, {})", literal(&beginning)))
}

/// A name, quoted where it may be a keyword; none that shows as something else.
fn identifier(name: &str) -> Option<String> {
    let is_own = ["host", "snapshot"].contains(&name);
    match escape(name) == name {
        true if is_own => Some(name.to_owned()),
        true => Some(format!("\"{}\"", name.replace('"', "\"\""))),
        false => None,
    }
}

/// A text in SQL: `'a' || chr(8238) || 'b'` where it has characters that show as something else.
fn literal(text: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut plain = String::new();
    for c in text.chars() {
        if *escape(c.encode_utf8(&mut [0; 4])) == *c.encode_utf8(&mut [0; 4]) {
            plain.push(c);
            continue;
        }
        if !plain.is_empty() {
            parts.push(quoted(&std::mem::take(&mut plain)));
        }
        parts.push(format!("chr({})", u32::from(c)));
    }
    if !plain.is_empty() || parts.is_empty() {
        parts.push(quoted(&plain));
    }
    parts.join(" || ")
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::escape::deceives;
    use super::*;

    #[test]
    fn literals_say_the_same_without_what_deceives() {
        for (text, expected) in [
            ("", "''"),
            ("/bin/sh", "'/bin/sh'"),
            ("it's", "'it''s'"),
            ("a\u{202e}b", "'a' || chr(8238) || 'b'"),
            ("\n", "chr(10)"),
            ("日本 $HOME `id`", "'日本 $HOME `id`'"),
        ] {
            assert_eq!(literal(text), expected);
        }
        assert_eq!(
            equals("path", &"x".repeat(201)),
            Some(format!("starts_with(\"path\", '{}')", "x".repeat(100)))
        );
        assert_eq!(equals("path", "a\0b"), None);
    }

    #[test]
    fn words_of_a_shell_are_quoted_where_they_must() {
        assert_eq!(shell("./diffy-store"), "./diffy-store");
        assert_eq!(shell("web prod's"), r"'web prod'\''s'");
    }

    proptest! {
        #[test]
        fn a_literal_is_one_line_that_shows_what_it_says(text in any::<String>()) {
            let literal = literal(&text);
            prop_assert!(!literal.chars().any(deceives));
            prop_assert!(literal != "SQL");
        }
    }
}
