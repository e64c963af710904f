//! The interactive SQL prompt.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Config, Context, Editor, Helper};

use super::sql::{complete, statements};
use crate::error::{Error, Result};
use crate::report::escape::escape;
use crate::report::is_broken_pipe;

/// What can be named in a query; asked when a key is pressed, so it must answer from memory.
pub trait Names {
    /// Tables and views as they are spelled in SQL: `processes`, `current.processes`.
    fn tables(&self) -> Vec<String>;

    /// Columns of a table, in order; empty for a table that is not there.
    fn columns(&self, table: &str) -> Vec<Column>;

    /// Saved queries.
    fn saved(&self) -> Vec<Saved>;
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, for people.
    pub kind: String,
}

/// A saved query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Its name.
    pub name: String,
    /// The question it answers, one sentence.
    pub question: String,
}

const PROMPT: &str = "diffy> ";

const HELP: &str = "\
A statement ends with `;` and may take several lines. Tab completes, the arrow keys recall.
\\d         tables
\\d TABLE   columns of a table
\\l         saved queries
\\?         this help
\\q         quit, as does Ctrl-D; Ctrl-C clears the statement
";

/// Reads statements until `\q` or the end of input, and hands each to `execute` without its `;`.
///
/// What `execute` refuses goes to `report`, and the prompt goes on; the end of a pipe that `execute` writes to does
/// not. Past input is kept in the file `history`, readable by its owner only; without it, for this session alone.
///
/// # Errors
/// When the terminal cannot be read or written.
pub fn run(
    names: &dyn Names,
    history: Option<&Path>,
    execute: &mut dyn FnMut(&str) -> Result<()>,
    report: &mut dyn FnMut(&Error),
) -> Result<()> {
    let mut editor = editor(names, history)?;
    loop {
        let input = match editor.readline(PROMPT) {
            Ok(input) => input,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(source) => return Err(no_terminal(source)),
        };
        remember(&mut editor, history, &input);
        let input = input.trim();
        if input.starts_with('\\') {
            if obey(input, names)? == Next::Quit {
                return Ok(());
            }
            continue;
        }
        for statement in statements(input).all() {
            match execute(statement) {
                Err(error) if is_broken_pipe(&error) => break,
                Err(error) => {
                    report(&error);
                    break;
                }
                Ok(()) => {}
            }
        }
    }
}

type SqlEditor<'a> = Editor<SqlHelper<'a>, DefaultHistory>;

fn editor<'a>(names: &'a dyn Names, history: Option<&Path>) -> Result<SqlEditor<'a>> {
    let config = Config::builder()
        .completion_type(CompletionType::List)
        .max_history_size(10_000)
        .and_then(|config| config.history_ignore_dups(true))
        .map_err(no_terminal)?
        .history_ignore_space(true)
        .build();
    let mut editor = Editor::with_config(config).map_err(no_terminal)?;
    editor.set_helper(Some(SqlHelper { names }));
    if let Some(path) = history {
        // No history yet, or none that can be read: the prompt works without.
        if let Err(error) = editor.load_history(path) {
            tracing::debug!(%error, path = %path.display(), "no prompt history");
        }
    }
    Ok(editor)
}

fn remember(editor: &mut SqlEditor<'_>, history: Option<&Path>, input: &str) {
    if input.trim().is_empty() {
        return;
    }
    let added = editor.add_history_entry(input);
    let Some(path) = history else { return };
    if let Some(folder) = path.parent() {
        // If this fails, so does what follows, which tells.
        fs::create_dir_all(folder).ok();
    }
    if let Err(error) = added.and_then(|_| editor.append_history(path)) {
        tracing::debug!(%error, path = %path.display(), "cannot keep the prompt history");
    }
}

fn no_terminal(source: ReadlineError) -> Error {
    Error::remote("cannot read from the terminal")
        .source(source)
        .hint("give the statement as an argument: `diffy query 'SELECT …'`")
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    GoOn,
    Quit,
}

/// Carries out a backslash command.
fn obey(command: &str, names: &dyn Names) -> Result<Next> {
    let mut out = io::stdout().lock();
    match answer(command, names) {
        None => return Ok(Next::Quit),
        Some(text) => out.write_all(text.as_bytes()),
    }
    .and_then(|()| out.flush())
    .map_err(|source| Error::remote("cannot write to the terminal").source(source))?;
    Ok(Next::GoOn)
}

/// What a backslash command prints; nothing for the one that quits.
fn answer(command: &str, names: &dyn Names) -> Option<String> {
    let command = command.trim_end_matches([';', ' ']);
    let (verb, argument) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let text = match (verb, argument.trim()) {
        ("\\q", _) => return None,
        ("\\?", _) => HELP.to_owned(),
        ("\\d", "") => lines(names.tables().into_iter().map(|name| (name, String::new()))),
        ("\\d", table) => match names.columns(table) {
            columns if columns.is_empty() => {
                format!("there is no table `{}`; \\d lists them\n", escape(table))
            }
            columns => lines(columns.into_iter().map(|column| (column.name, column.kind))),
        },
        ("\\l", _) => lines(names.saved().into_iter().map(|saved| (saved.name, saved.question))),
        _ => format!("there is no command `{}`; \\? lists them\n", escape(verb)),
    };
    Some(text)
}

/// Two columns of text, the first as wide as its widest line.
fn lines(pairs: impl Iterator<Item = (String, String)>) -> String {
    let pairs: Vec<(String, String)> =
        pairs.map(|(left, right)| (escape(&left).into_owned(), escape(&right).into_owned())).collect();
    let widest = pairs.iter().map(|(left, _)| left.chars().count()).max().unwrap_or_default();
    pairs
        .iter()
        .map(|(left, right)| format!("{}\n", format!("{left:<widest$}  {right}").trim_end()))
        .collect()
}

/// What rustyline asks while a statement is typed.
struct SqlHelper<'a> {
    names: &'a dyn Names,
}

impl Completer for SqlHelper<'_> {
    type Candidate = String;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(complete(line, pos, self.names))
    }
}

impl Validator for SqlHelper<'_> {
    fn validate(&self, input: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let text = input.input().trim();
        if text.is_empty() || text.starts_with('\\') || statements(text).is_whole() {
            return Ok(ValidationResult::Valid(None));
        }
        Ok(ValidationResult::Incomplete)
    }
}

impl Hinter for SqlHelper<'_> {
    type Hint = String;
}

impl Highlighter for SqlHelper<'_> {}

impl Helper for SqlHelper<'_> {}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) struct Fixed;

    impl Names for Fixed {
        fn tables(&self) -> Vec<String> {
            ["processes", "process_open_sockets", "crontab", "current.crontab"].map(str::to_owned).to_vec()
        }

        fn columns(&self, table: &str) -> Vec<Column> {
            let names: &[&str] = match table {
                "processes" => &["pid", "path", "cmdline", "host"],
                "crontab" | "current.crontab" => &["command", "path", "host"],
                "process_open_sockets" => &["pid", "remote_address"],
                _ => &[],
            };
            names.iter().map(|name| Column { name: (*name).to_owned(), kind: "text".to_owned() }).collect()
        }

        fn saved(&self) -> Vec<Saved> {
            vec![Saved { name: "rare_ports".to_owned(), question: "Which ports\u{1b} are rare?".to_owned() }]
        }
    }

    #[test]
    fn backslash_commands_answer() {
        for (command, expected) in [
            ("\\d crontab", "command  text\npath     text\nhost     text\n"),
            ("\\d nothing;", "there is no table `nothing`; \\d lists them\n"),
            ("\\l", "rare_ports  Which ports\\u{1b} are rare?\n"),
            ("\\x", "there is no command `\\x`; \\? lists them\n"),
            ("\\?", HELP),
        ] {
            assert_eq!(answer(command, &Fixed).as_deref(), Some(expected), "{command}");
        }
        assert!(answer("\\d", &Fixed).unwrap().starts_with("processes\n"));
        assert_eq!(answer("\\q", &Fixed), None);
    }
}
