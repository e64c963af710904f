//! As much of SQL as a prompt needs while a statement is being typed: where it ends and what could come next. Whether
//! it is right is for the engine to say.

use super::prompt::Names;

/// Keywords offered; the functions that answer a responder's questions too.
const KEYWORDS: [&str; 61] = [
    "ALL",
    "AND",
    "AS",
    "ASC",
    "AVG",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "COALESCE",
    "COUNT",
    "CROSS JOIN",
    "DATE_TRUNC",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "FALSE",
    "FROM",
    "FULL JOIN",
    "GROUP BY",
    "HAVING",
    "ILIKE",
    "IN",
    "INNER JOIN",
    "INTERSECT",
    "INTERVAL",
    "IS",
    "JOIN",
    "LEFT JOIN",
    "LIKE",
    "LIMIT",
    "LOWER",
    "MAX",
    "MIN",
    "NOT",
    "NOW",
    "NULL",
    "NULLS LAST",
    "OFFSET",
    "ON",
    "OR",
    "ORDER BY",
    "OVER",
    "PARTITION BY",
    "REGEXP_LIKE",
    "RIGHT JOIN",
    "SELECT",
    "SPLIT_PART",
    "SUM",
    "THEN",
    "TRUE",
    "UNION ALL",
    "USING",
    "WHEN",
    "WHERE",
    "WITH",
];

/// The statements of an input.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Statements<'a> {
    /// Those that a `;` ends, without it.
    ended: Vec<&'a str>,
    /// What follows the last `;`.
    rest: &'a str,
    /// What the input ends inside of.
    state: State,
}

impl<'a> Statements<'a> {
    /// Whether the input ends with a `;` or with comments after one.
    pub(super) fn is_whole(&self) -> bool {
        self.rest.is_empty() && self.state != State::Block
    }

    /// All that say something, the last one even without its `;`.
    pub(super) fn all(&self) -> impl Iterator<Item = &'a str> {
        self.ended.iter().copied().chain([self.rest]).filter(|text| !text.is_empty())
    }
}

/// What a character stands inside of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Code,
    /// Until the same quote; a doubled one closes and opens again, which comes to the same.
    Quoted(u8),
    /// Until the end of the line.
    Line,
    /// Until `*/`.
    Block,
}

/// Cuts `input` at each `;` that stands in no string, name or comment.
pub(super) fn statements(input: &str) -> Statements<'_> {
    let mut ended = Vec::new();
    let mut start = 0;
    let mut says = false;
    let mut push = |from: usize, to: usize, says: bool| {
        if says {
            ended.push(input[from..to].trim());
        }
    };
    let state = scan(input, |at, byte, state| match (state, byte) {
        (State::Code, b';') => {
            push(start, at, says);
            (start, says) = (at + 1, false);
        }
        (State::Code | State::Quoted(_), byte) => says |= !byte.is_ascii_whitespace(),
        _ => {}
    });
    let rest = if says { input[start..].trim() } else { "" };
    Statements { ended, rest, state }
}

/// Calls `see` for each byte of `input` that belongs to no comment mark, with what it stands inside of, and returns
/// what the input ends inside of. Only ASCII bytes matter, and in UTF-8 no other character contains one.
fn scan(input: &str, mut see: impl FnMut(usize, u8, State)) -> State {
    let bytes = input.as_bytes();
    let mut state = State::Code;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let two = (byte, bytes.get(at + 1).copied());
        let (next, length) = match (state, two) {
            (State::Code, (b'-', Some(b'-'))) => (State::Line, 2),
            (State::Code, (b'/', Some(b'*'))) => (State::Block, 2),
            (State::Block, (b'*', Some(b'/'))) => (State::Code, 2),
            (State::Line, (b'\n', _)) => (State::Code, 1),
            (State::Code, (b'\'' | b'"', _)) => (State::Quoted(byte), 1),
            (State::Quoted(quote), _) if quote == byte => (State::Code, 1),
            _ => (state, 1),
        };
        if length == 1 {
            see(at, byte, if next == State::Code { state } else { next });
        }
        state = next;
        at += length;
    }
    state
}

/// What could stand at `pos` of `line`: where the word to replace begins, and the candidates for it.
///
/// After `FROM` and `JOIN` tables, after `table.` and `alias.` its columns, else columns of the tables that the
/// statement names (of all tables while it names none), keywords and tables. Keywords are spelled in the case that was begun. Nothing inside of strings
/// and comments.
pub(super) fn complete(line: &str, pos: usize, names: &dyn Names) -> (usize, Vec<String>) {
    let before = line.get(..pos).unwrap_or(line);
    if scan(before, |_, _, _| {}) != State::Code {
        return (pos, Vec::new());
    }
    let start = before.rfind(|c: char| !is_word(c)).map_or(0, |at| at + char_len(before, at));
    let word = &before[start..];
    let tables = names.tables();
    let mut found: Vec<String> = tables.iter().filter(|table| begins(table, word)).cloned().collect();
    if expects_table(&before[..start]) {
        return (start, found);
    }
    if let Some((owner, prefix)) = word.rsplit_once('.') {
        let table = meaning(line, owner, &tables);
        found.extend(columns(names, &table, prefix).map(|column| format!("{owner}.{column}")));
        return (start, found);
    }
    (start, columns_and_keywords(line, word, names, &tables).chain(found).collect())
}

fn columns_and_keywords<'a>(
    line: &'a str,
    word: &'a str,
    names: &'a dyn Names,
    tables: &'a [String],
) -> impl Iterator<Item = String> + 'a {
    let is_table = |word: &&str| tables.iter().any(|table| table.eq_ignore_ascii_case(word));
    let mut from: Vec<&str> = words(line).filter(is_table).collect();
    if from.is_empty() && !word.is_empty() {
        // SELECT comes before FROM: any table may follow.
        from.extend(tables.iter().map(String::as_str));
    }
    let mut named: Vec<String> =
        from.into_iter().flat_map(|table| columns(names, table, word).collect::<Vec<_>>()).collect();
    named.sort_unstable();
    named.dedup();
    let lower = word.starts_with(|c: char| c.is_ascii_lowercase());
    let keywords = KEYWORDS.into_iter().filter(move |keyword| begins(keyword, word));
    named.into_iter().chain(
        keywords.map(move |keyword| if lower { keyword.to_ascii_lowercase() } else { keyword.to_owned() }),
    )
}

fn columns(names: &dyn Names, table: &str, prefix: &str) -> impl Iterator<Item = String> {
    let columns = names.columns(table);
    let prefix = prefix.to_owned();
    columns.into_iter().map(|column| column.name).filter(move |name| begins(name, &prefix))
}

/// The table that `owner` stands for: itself, or what `FROM table owner` or `table AS owner` says.
fn meaning(line: &str, owner: &str, tables: &[String]) -> String {
    let is_table = |word: &str| tables.iter().any(|table| table.eq_ignore_ascii_case(word));
    if is_table(owner) {
        return owner.to_owned();
    }
    let words: Vec<&str> = words(line).collect();
    for (at, word) in words.iter().enumerate() {
        let after: Vec<&&str> =
            words[at + 1..].iter().filter(|word| !word.eq_ignore_ascii_case("as")).take(1).collect();
        if is_table(word) && after.iter().any(|alias| alias.eq_ignore_ascii_case(owner)) {
            return (*word).to_owned();
        }
    }
    owner.to_owned()
}

/// Whether a table must follow: after `FROM`, `JOIN`, `DESCRIBE` and `\d`.
fn expects_table(before: &str) -> bool {
    let last = before.trim_end().rsplit(|c: char| c.is_whitespace() || c == '(').next().unwrap_or_default();
    before.ends_with(char::is_whitespace)
        && ["from", "join", "describe", "\\d"].iter().any(|word| last.eq_ignore_ascii_case(word))
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !is_word(c)).filter(|word| !word.is_empty())
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '.'
}

fn begins(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn char_len(text: &str, at: usize) -> usize {
    text[at..].chars().next().map_or(0, char::len_utf8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::prompt::tests::Fixed;
    use super::*;

    /// Completes at the `|` of `line`.
    fn candidates(line: &str) -> Vec<String> {
        let pos = line.find('|').unwrap();
        complete(&line.replace('|', ""), pos, &Fixed).1
    }

    #[test]
    fn tables_follow_from_and_join() {
        assert_eq!(candidates("SELECT * FROM |"), Fixed.tables());
        assert_eq!(candidates("select * from cr|"), ["crontab"]);
        assert_eq!(candidates("SELECT * FROM crontab JOIN PROC|"), ["processes", "process_open_sockets"]);
        assert_eq!(candidates("SELECT * FROM current.c|"), ["current.crontab"]);
        assert_eq!(candidates("\\d pr|"), ["processes", "process_open_sockets"]);
    }

    #[test]
    fn columns_are_those_of_the_tables_named() {
        assert_eq!(candidates("SELECT pa| FROM processes"), ["path", "partition by"]);
        assert_eq!(
            candidates("SELECT crontab.| FROM crontab"),
            ["crontab.command", "crontab.path", "crontab.host"]
        );
        assert_eq!(candidates("SELECT p.c| FROM processes p"), ["p.cmdline"]);
        assert_eq!(candidates("SELECT P.c| FROM processes AS p"), ["P.cmdline"]);
        assert_eq!(candidates("SELECT c.co| FROM current.crontab c"), ["c.command"]);
    }

    #[test]
    fn keywords_keep_the_case_that_was_begun() {
        assert_eq!(candidates("SEL|"), ["SELECT"]);
        assert_eq!(candidates("sel|"), ["select"]);
        assert_eq!(candidates("SELECT * FROM crontab wh|"), ["when", "where"]);
    }

    #[test]
    fn strings_and_comments_complete_to_nothing() {
        for line in ["SELECT 'sel|", "-- sel|", "/* sel|", "SELECT \"sel|"] {
            assert!(candidates(line).is_empty(), "{line}");
        }
        assert_eq!(candidates("SELECT 'it''s' -- x\n sel|"), ["select"]);
    }

    #[test]
    fn statements_end_at_semicolons_outside_of_strings_and_comments() {
        for (input, all, is_whole) in [
            ("SELECT 1;", vec!["SELECT 1"], true),
            ("SELECT 1; -- done", vec!["SELECT 1"], true),
            ("SELECT ';' ; SELECT \";\";", vec!["SELECT ';'", "SELECT \";\""], true),
            ("SELECT 1 -- ;", vec!["SELECT 1 -- ;"], false),
            ("SELECT 1 /* ; */", vec!["SELECT 1 /* ; */"], false),
            ("SELECT 'a", vec!["SELECT 'a"], false),
            ("SELECT 1; /* open", vec!["SELECT 1"], false),
            (";;", vec![], true),
            ("SELECT 'it''s';", vec!["SELECT 'it''s'"], true),
        ] {
            let found = statements(input);
            assert_eq!(found.all().collect::<Vec<_>>(), all, "{input}");
            assert_eq!(found.is_whole(), is_whole, "{input}");
        }
    }

    proptest! {
        #[test]
        fn any_input_is_taken(input in "[a-z;'\"/*\\-\n. ü日]*", pos in 0usize..60) {
            let found = statements(&input);
            prop_assert!(found.all().all(|statement| input.contains(statement)));
            let (start, _) = complete(&input, pos, &Fixed);
            prop_assert!(start <= pos.max(input.len()));
        }
    }
}
