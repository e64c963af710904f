//! The command after `exec:`, taken apart as a shell does; no shell runs it.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A command of the user.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExecCommand {
    /// As it was written.
    text: String,
    /// The first word, which is not empty.
    pub program: String,
    /// The other words.
    pub args: Vec<String>,
}

impl FromStr for ExecCommand {
    type Err = Error;

    /// # Errors
    /// A quote is open, or there is no word.
    fn from_str(text: &str) -> Result<Self> {
        let words = shell_words::split(text)
            .map_err(|_| Error::usage(format!("a quote is open in the command `{}`", text.escape_debug())))?;
        let mut words = words.into_iter();
        let program = words.next().filter(|word| !word.is_empty());
        let program = program.ok_or_else(|| Error::usage("`exec:` needs a command"))?;
        Ok(Self { text: text.to_owned(), program, args: words.collect() })
    }
}

impl fmt::Display for ExecCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exec:{}", self.text)
    }
}
