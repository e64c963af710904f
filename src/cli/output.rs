//! Where text goes: data to stdout or a file, talk to stderr.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use super::When;
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::report::Format;
use crate::report::escape::escape;

/// Width of a table when there is no terminal to ask.
const WIDTH_WITHOUT_TERMINAL: usize = 120;

/// How this run prints.
#[derive(Debug, Clone)]
pub(super) struct Output {
    /// Columns of a table.
    pub(super) width: usize,
    /// Whether tables are coloured.
    pub(super) color: bool,
    quiet: bool,
}

/// An open destination of data.
pub(super) struct Destination {
    pub(super) writer: Box<dyn Write + Send>,
    pub(super) color: bool,
    path: Option<PathBuf>,
}

impl Output {
    pub(super) fn new(settings: &Settings, color: When, quiet: bool) -> Self {
        let terminal = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        let terminal = terminal.filter(|_| io::stdout().is_terminal());
        let width = settings.columns.or(terminal).unwrap_or(WIDTH_WITHOUT_TERMINAL);
        let color = match color {
            When::Always => true,
            When::Never => false,
            When::Auto => io::stdout().is_terminal() && !settings.no_color,
        };
        Self { width, color, quiet }
    }

    /// Says something on stderr, unless nobody wants to hear it. Text from hosts is made safe.
    pub(super) fn say(&self, text: &str) {
        if !self.quiet {
            talk(text);
        }
    }

    /// Says something that must not be overlooked.
    pub(super) fn warn(&self, text: &str) {
        self.say(&format!("warning: {text}"));
    }

    /// Opens stdout or `file` for data of this format.
    pub(super) fn open(&self, file: Option<&Path>, format: Format) -> Result<Destination> {
        let Some(path) = file.filter(|path| *path != Path::new("-")) else {
            if format.is_binary() && io::stdout().is_terminal() {
                return Err(
                    Error::usage(format!("{format} is not for a terminal")).hint("write it with `-o FILE`")
                );
            }
            return Ok(Destination { writer: Box::new(io::stdout()), color: self.color, path: None });
        };
        let file = File::create(path).map_err(|source| {
            Error::remote(format!("cannot write `{}`", path.display()))
                .source(source)
                .hint("`-o` names the file")
        })?;
        Ok(Destination {
            writer: Box::new(io::BufWriter::new(file)),
            color: false,
            path: Some(path.to_owned()),
        })
    }
}

impl Destination {
    /// Names the file, if it is one, once it is complete.
    pub(super) fn done(&self, output: &Output) {
        if let Some(path) = &self.path {
            output.say(&format!("wrote {}", path.display()));
        }
    }
}

/// Prints lines of data to stdout. Text from hosts must be escaped by the caller.
pub(super) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|source| Error::remote("cannot write to stdout").source(source))
}

/// Prints an error and its way out.
pub(super) fn print_error(error: &Error) {
    talk(&format!("error: {error}"));
    if let Some(hint) = error.hint_text() {
        talk(&format!("hint: {hint}"));
    }
}

/// One line on stderr; a closed stderr is not worth dying for.
fn talk(text: &str) {
    for line in text.lines() {
        let _ = writeln!(io::stderr(), "{}", escape(line));
    }
}
