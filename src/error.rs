//! The one error type: what went wrong, where, and what to do about it.

use std::error;
use std::fmt;

/// What kind of thing went wrong; decides the exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The command line is wrong: exit status 2.
    Usage,
    /// The configuration is wrong: exit status 2.
    Config,
    /// A host, a service or the file system did not do what was asked.
    Remote,
    /// Data that was read is not what it should be.
    Data,
    /// The user wanted it to end.
    Interrupted,
    /// A defect of Diffy itself.
    Internal,
}

/// An error that names the offending thing and, where there is one, the way out.
///
/// Printed on one line (`message: source (key: value, …)`), with the hint on a line of its own.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    context: Vec<(&'static str, String)>,
    hint: Option<String>,
    source: Option<Box<dyn error::Error + Send + Sync>>,
    retryable: bool,
}

/// `Result` with Diffy's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind`; `message` is lowercase, without a final period, offending values in backticks.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            context: Vec::new(),
            hint: None,
            source: None,
            retryable: false,
        }
    }

    /// The user asked for something that cannot be.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// The configuration asks for something that cannot be.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    /// Something outside of Diffy failed.
    pub fn remote(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Remote, message)
    }

    /// Data is not what it should be.
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Data, message)
    }

    /// A defect of Diffy.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Adds what it happened to: a host, a table, a path.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.context.push((key, value.to_string()));
        self
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the error below.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says that asking again may help.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// What kind of error it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What the user can do about it.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The first error of ours among an error of somebody else and its causes.
    pub fn below<'a>(error: &'a (dyn error::Error + 'static)) -> Option<&'a Self> {
        std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref())
    }

    /// Whether asking again may help.
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut below: Option<&(dyn error::Error + 'static)> = error::Error::source(self);
        let mut said = String::new();
        while let Some(cause) = below {
            let text = cause.to_string();
            // Many errors print those below them, and then hand them out as well.
            if !said.contains(&text) {
                write!(f, ": {text}")?;
                said.push_str(&text);
            }
            // Our own errors print their causes themselves.
            below = if cause.is::<Self>() { None } else { cause.source() };
        }
        if !self.context.is_empty() {
            let pairs: Vec<String> =
                self.context.iter().map(|(key, value)| format!("{key}: {value}")).collect();
            write!(f, " ({})", pairs.join(", "))?;
        }
        Ok(())
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_prints_its_own_cause_is_printed_once() {
        let inner = Error::data("no space left");
        let middle = Error::data("cannot write part 7").source(inner);
        let outer = Error::remote("cannot commit").source(std::io::Error::other(middle));
        assert_eq!(outer.to_string(), "cannot commit: cannot write part 7: no space left");
    }

    #[test]
    fn prints_message_causes_and_context_on_one_line() {
        let error = Error::data("cannot read `x`")
            .source(std::io::Error::other("no such file"))
            .with("table", "crontab");
        assert_eq!(error.to_string(), "cannot read `x`: no such file (table: crontab)");
        let outer = Error::remote("cannot import").source(error);
        assert_eq!(outer.to_string(), "cannot import: cannot read `x`: no such file (table: crontab)");
    }
}
