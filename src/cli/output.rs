//! Where text goes: data to stdout or a file, talk to stderr.

use std::fs::{self, File, Permissions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempPath;

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
    /// The file, if it is one, that must be kept once all is written.
    pub(super) file: Option<NewFile>,
}

/// A file that takes its name, and the place of an older one, when it is complete: what fails half way leaves the older
/// one as it was.
pub(super) struct NewFile {
    path: PathBuf,
    /// None where the name is that of a device or a pipe, which is written as it is.
    unfinished: Option<TempPath>,
}

impl NewFile {
    fn create(path: &Path) -> io::Result<(File, Self)> {
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if fs::metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
            return Ok((File::create(&path)?, Self { path, unfinished: None }));
        }
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let made = tempfile::Builder::new()
            .prefix(".diffy-unfinished-")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(dir)?;
        let (file, unfinished) = made.into_parts();
        Ok((file, Self { path, unfinished: Some(unfinished) }))
    }

    /// Gives a file that is complete its name.
    ///
    /// # Errors
    /// It cannot have it.
    pub(super) fn keep(self) -> Result<()> {
        let Some(unfinished) = self.unfinished else { return Ok(()) };
        unfinished.persist(&self.path).map_err(|error| cannot_write(&self.path, error.error))
    }
}

fn cannot_write(path: &Path, source: io::Error) -> Error {
    Error::remote(format!("cannot write `{}`", path.display())).source(source).hint("`-o` names the file")
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
            return Ok(Destination { writer: Box::new(io::stdout()), color: self.color, file: None });
        };
        let (out, file) = NewFile::create(path).map_err(|source| cannot_write(path, source))?;
        Ok(Destination { writer: Box::new(io::BufWriter::new(out)), color: false, file: Some(file) })
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
