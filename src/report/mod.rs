//! Renders what it is given: analyses and streams of record batches, as tables for eyes and as data for programs.
//!
//! No I/O but the writer it is handed, no queries, no clock. Values come from hosts and are hostile: [`escape`] is
//! what stands between them and a terminal.

use std::error;
use std::fmt;
use std::io;
use std::str::FromStr;

use crate::error::{Error, Result};

pub mod analysis;
mod analysis_table;
pub mod batches;
pub mod escape;
mod full;
mod grid;
pub mod html;
mod in_store;
mod ocsf;
mod page;
mod pick;
mod sarif;
pub mod schemas;
mod suppressed;

pub use self::analysis::{RenderOptions, render};
pub use self::batches::{BatchWriter, Written, writer};
pub use self::full::{Beside, render_full};
pub use self::in_store::queries;
pub use self::pick::{Picked, pick_finding, pick_host};

/// How output is spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Tables and sentences for a terminal.
    Table,
    /// One JSON document.
    Json,
    /// One JSON object a line.
    Ndjson,
    /// Comma-separated values with a header, for spreadsheets: see [`escape::neutralise`].
    Csv,
    /// Apache Parquet.
    Parquet,
    /// SARIF 2.1.0, for analyses only.
    Sarif,
    /// OCSF Detection Findings, one a line, for analyses only.
    Ocsf,
    /// A report for a browser, of an analysis: see [`html`].
    Html,
}

impl Format {
    /// All formats, for lists and tests.
    pub const ALL: [Self; 8] = [
        Self::Table,
        Self::Json,
        Self::Ndjson,
        Self::Csv,
        Self::Parquet,
        Self::Sarif,
        Self::Ocsf,
        Self::Html,
    ];
    /// Those that rows of any columns can be spelled in.
    pub const OF_ROWS: [Self; 5] = [Self::Table, Self::Json, Self::Ndjson, Self::Csv, Self::Parquet];

    /// The spelling on the command line; but for `table`, the extension of files too.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
            Self::Sarif => "sarif",
            Self::Ocsf => "ocsf",
            Self::Html => "html",
        }
    }

    /// The format of this name, if rows of any columns can be spelled in it.
    ///
    /// # Errors
    /// There is none, or it says more than rows do.
    pub fn of_rows(name: &str) -> Result<Self> {
        let format = name.parse()?;
        if Self::OF_ROWS.contains(&format) {
            return Ok(format);
        }
        Err(Error::usage(format!("`{format}` is a format of analyses, not of rows"))
            .hint("rows go into table, json, ndjson, csv and parquet; `diffy analyze` has the others"))
    }

    /// Whether the bytes are unfit for a terminal.
    pub fn is_binary(self) -> bool {
        matches!(self, Self::Parquet | Self::Html)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == text).ok_or_else(|| {
            Error::usage(format!("`{}` is no output format", text.escape_debug()))
                .hint("formats are table, json, ndjson, csv, parquet, sarif, ocsf and html")
        })
    }
}

/// Whether the reader of our output has gone away, `diffy … | head`: the end of the work, not a failure of it.
pub fn is_broken_pipe(error: &Error) -> bool {
    let mut below: Option<&(dyn error::Error + 'static)> = error::Error::source(error);
    while let Some(cause) = below {
        if cause.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe) {
            return true;
        }
        below = cause.source();
    }
    false
}

/// The writer that was handed in failed; the cause stays below for [`is_broken_pipe`].
fn write_failed(source: impl Into<Box<dyn error::Error + Send + Sync>>) -> Error {
    Error::remote("cannot write the output").source(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_found_by_their_spelling() {
        for format in Format::ALL {
            assert_eq!(format.as_str().parse::<Format>().unwrap(), format);
        }
        assert!("xml".parse::<Format>().is_err());
    }

    #[test]
    fn a_broken_pipe_is_found_below() {
        let pipe = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_broken_pipe(&Error::internal("outer").source(write_failed(pipe))));
        assert!(!is_broken_pipe(&write_failed(io::Error::other("disk full"))));
        assert!(!is_broken_pipe(&Error::internal("alone")));
    }
}
