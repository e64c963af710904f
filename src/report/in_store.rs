//! The commands that show what a finding is about in the store, and that vouch for it: to be pasted into a shell.
//!
//! A row is found by its strict id. Where what hosts say stands in a command, it is a SQL literal without a character
//! that shows as something else, within one argument of the shell.

use super::escape::{deceives, escape};
use crate::model::{Analysis, Finding, FindingKind, SnapshotId};

/// Command lines that show the row of a finding, or its absence, each with what it shows.
///
/// `store` is the store as commands must name it; none for the default one.
pub fn queries(
    snapshot: SnapshotId,
    (host, finding): (&str, &Finding),
    store: Option<&str>,
) -> Vec<(&'static str, String)> {
    let command = format!("diffy query{}", store_flag(store));
    let table = identifier(&finding.table);
    let query = |sql: String| format!("{command} {}", argument(&sql));
    let rows = format!("SELECT * FROM {table} WHERE snapshot = '{snapshot}'");
    let host = literal(host);
    match (finding.kind, finding.strict_id.as_deref().map(literal)) {
        (FindingKind::Coverage, _) => vec![(
            "What it did not answer",
            query(format!(
                "SELECT table_name, status, rows, error FROM coverage WHERE snapshot = '{snapshot}' AND host = {host} AND status NOT IN ('ok', 'empty')"
            )),
        )],
        (FindingKind::Missing, Some(id)) => vec![
            (
                "Hosts that do not have it",
                query(format!(
                    "SELECT host FROM hosts WHERE snapshot = '{snapshot}' AND host NOT IN (SELECT host FROM {table} WHERE snapshot = '{snapshot}' AND loose_id IN (SELECT loose_id FROM {table} WHERE snapshot = '{snapshot}' AND strict_id = id({id})))"
                )),
            ),
            ("The row on other hosts", query(format!("{rows} AND strict_id = id({id})"))),
        ],
        (_, Some(id)) => vec![
            ("The row of this host", query(format!("{rows} AND host = {host} AND strict_id = id({id})"))),
            (
                "All hosts that have it, in all snapshots",
                format!("{command} --name row_on_hosts --param strict_id={}", id.trim_matches('\'')),
            ),
        ],
        (_, None) => vec![("The table on this host", query(format!("{rows} AND host = {host}")))],
    }
}

/// `diffy analyze --suppress-add`, which appends what makes the finding known again to a file of suppressions.
pub(super) fn suppress(analysis: &Analysis, finding: &Finding, store: Option<&str>) -> String {
    let fleet = word(analysis.fleet.as_str());
    format!(
        "diffy analyze{} --fleet {fleet} --snapshot {} --suppress known.toml --suppress-add {} --reason 'WHY'",
        store_flag(store),
        analysis.snapshot,
        word(&finding.id),
    )
}

fn store_flag(store: Option<&str>) -> String {
    store.map(|store| format!(" --store {}", word(store))).unwrap_or_default()
}

/// A word of a command line.
fn word(text: &str) -> String {
    shell_words::quote(&escape(text)).into_owned()
}

/// SQL as one argument of a shell. It is full of single quotes: double ones are easier to read where nothing in them is
/// special.
fn argument(sql: &str) -> String {
    if sql.contains(['"', '$', '`', '\\', '!', '\n']) {
        return shell_words::quote(sql).into_owned();
    }
    format!("\"{sql}\"")
}

/// The name of a table in SQL.
fn identifier(name: &str) -> String {
    let is_plain =
        name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if is_plain && name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return name.to_owned();
    }
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in SQL: `'a' || chr(8238) || 'b'` where it has characters that deceive.
fn literal(text: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut plain = String::new();
    for c in text.chars() {
        match c {
            '\'' => plain.push_str("''"),
            c if deceives(c) => {
                if !plain.is_empty() {
                    parts.push(format!("'{}'", std::mem::take(&mut plain)));
                }
                parts.push(format!("chr({})", u32::from(c)));
            }
            c => plain.push(c),
        }
    }
    if !plain.is_empty() || parts.is_empty() {
        parts.push(format!("'{plain}'"));
    }
    parts.join(" || ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn literals_say_the_same_without_what_deceives() {
        for (text, expected) in [
            ("", "''"),
            ("/bin/sh", "'/bin/sh'"),
            ("it's", "'it''s'"),
            ("a\u{202e}b", "'a' || chr(8238) || 'b'"),
            ("\u{202e}", "chr(8238)"),
            ("\n", "chr(10)"),
            ("日本 $HOME `id`", "'日本 $HOME `id`'"),
        ] {
            assert_eq!(literal(text), expected);
        }
    }

    #[test]
    fn words_of_a_shell_are_quoted_where_they_must() {
        assert_eq!(word("./diffy-store"), "./diffy-store");
        assert_eq!(shell_words::split(&word("web prod's")).unwrap(), ["web prod's"]);
    }

    proptest! {
        #[test]
        fn a_shell_reads_one_argument_that_shows_what_it_says(text in any::<String>()) {
            let sql = format!("SELECT {}", literal(&text));
            prop_assert!(!sql.chars().any(deceives));
            prop_assert_eq!(shell_words::split(&argument(&sql)).unwrap(), vec![sql]);
        }
    }
}
