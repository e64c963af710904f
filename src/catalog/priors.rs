//! `[[prior]]` of a schema: contents that speak for an intruder by themselves, however rare or common the row is.

use std::collections::BTreeMap;

use regex::bytes::RegexBuilder;
use serde::{Deserialize, Serialize};

use super::table::TableSpec;
use crate::error::{Error, Result};

/// The least and the most that a prior may add, or, of what routine leaves, take, in bits.
pub const PRIOR_BITS: (f64, f64) = (0.5, 3.0);
/// Bytes that a compiled pattern may take.
pub const PATTERN_BYTES: usize = 1 << 20;

/// A regular expression. It is over bytes, so that `.` is one byte and `\w` is ASCII: what
/// hosts say need not be read as text, and the compiled pattern stays small.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pattern(String);

impl Pattern {
    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Compiles it, to see whether it can be; `file` is the text that it stands in, for the line.
    fn check(&self, file: &str) -> Result<()> {
        let built = RegexBuilder::new(&self.0).unicode(false).size_limit(PATTERN_BYTES).build();
        let Err(cause) = built else { return Ok(()) };
        // The cause spans lines and draws an arrow; its last line says what is wrong.
        let cause = cause.to_string();
        let last = cause.lines().last().unwrap_or_default().trim_start_matches("error: ");
        let error = Error::config(format!("`{}` is no pattern: {last}", self.0.escape_debug()))
            .hint("patterns are regular expressions over bytes; schemas/README.md says more");
        Err(match file.find(&self.0) {
            Some(at) => error.with("line", file[..at].matches('\n').count() + 1),
            None => error,
        })
    }
}

/// One `[[prior]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriorSpec {
    /// What the row does, to be read after `it`: `runs from a directory that anybody may write to`.
    pub says: String,
    /// What it adds to the surprise of a row that stands out, within [`PRIOR_BITS`]; below zero for what routine leaves,
    /// like the units of a login.
    pub bits: f64,
    /// Columns of which at least one must match [`Self::pattern`].
    pub columns: Vec<String>,
    /// What is looked for, anywhere in the value where it is not anchored.
    pub pattern: Pattern,
    /// Columns that must match as well, each its pattern.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub and: BTreeMap<String, Pattern>,
    /// Columns of which none may match its pattern.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unless: BTreeMap<String, Pattern>,
}

impl PriorSpec {
    /// Checks what the syntax does not: columns that are declared, bits within bounds, words.
    pub(super) fn check(&self, table: &TableSpec) -> Result<()> {
        let of = |error: Error| error.with("prior", self.says.escape_debug());
        if self.says.trim().is_empty() || self.says.len() > 100 {
            return Err(of(Error::config("a prior says what it saw in 1 to 100 bytes")));
        }
        if !(PRIOR_BITS.0..=PRIOR_BITS.1).contains(&self.bits.abs()) {
            let (least, most) = PRIOR_BITS;
            return Err(of(Error::config(format!("{} bits are not between {least} and {most}", self.bits))));
        }
        if self.columns.is_empty() {
            return Err(of(Error::config("a prior without `columns` looks at nothing")));
        }
        let unknown = self.every_column().find(|name| table.column(name).is_none());
        unknown.map_or(Ok(()), |name| {
            Err(of(Error::config(format!("the table has no column `{}`", name.escape_debug()))))
        })
    }

    /// Whether its patterns are any; `file` is the text that they stand in. Takes long enough to be spared the schemas
    /// that are built in, which a test checks.
    pub(super) fn check_patterns(&self, file: &str) -> Result<()> {
        let further = self.and.values().chain(self.unless.values());
        std::iter::once(&self.pattern).chain(further).try_for_each(|pattern| pattern.check(file))
    }

    /// All columns that it looks at.
    pub fn every_column(&self) -> impl Iterator<Item = &str> {
        let further = self.and.keys().chain(self.unless.keys());
        self.columns.iter().chain(further).map(String::as_str)
    }

    /// What it asks for, in one line: `path ~ ^/tmp/ and uid ~ ^0$ unless …`.
    pub fn condition(&self) -> String {
        let further = |word: &str, patterns: &BTreeMap<String, Pattern>| -> String {
            patterns
                .iter()
                .map(|(column, pattern)| format!(" {word} {column} ~ {}", pattern.as_str()))
                .collect()
        };
        let columns = self.columns.join(" or ");
        let (and, unless) = (further("and", &self.and), further("unless", &self.unless));
        format!("{columns} ~ {}{and}{unless}", self.pattern.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "name = \"t\"\ndescription = \"T.\"\nplatforms = [\"linux\"]\nweight = 0.5\nquery = \"\"\n\
                         [[column]]\nname = \"path\"\ntype = \"text\"\nrole = \"identity\"\ndescription = \"P.\"\n";

    fn parse(prior: &str) -> Result<TableSpec> {
        TableSpec::parse(&format!("{TABLE}\n[[prior]]\n{prior}"), "dir/t.toml")
    }

    #[test]
    fn a_prior_is_read_and_said() {
        let table = parse(
            "columns = [\"path\"]\npattern = '^/tmp/'\nunless = { path = 'x$' }\nbits = 1\nsays = \"is\"",
        )
        .unwrap();
        assert_eq!(table.priors[0].condition(), "path ~ ^/tmp/ unless path ~ x$");
        assert_eq!(toml::from_str::<TableSpec>(&toml::to_string(&table).unwrap()).unwrap(), table);
    }

    #[test]
    fn bad_priors_are_refused_with_the_file() {
        for (prior, expected) in [
            ("columns = [\"path\"]\npattern = '('\nbits = 1\nsays = \"is\"", "unclosed group"),
            (
                "columns = [\"path\"]\npattern = 'x{2'\nbits = 1\nsays = \"is\"\nunless = { path = '(' }",
                "line: ",
            ),
            ("columns = [\"path\"]\npattern = '(a{1000}){1000}'\nbits = 1\nsays = \"is\"", "size limit"),
            (
                "columns = [\"path\"]\npattern = 'a'\nbits = 4\nsays = \"is\"",
                "4 bits are not between 0.5 and 3",
            ),
            ("columns = [\"pth\"]\npattern = 'a'\nbits = 1\nsays = \"is\"", "no column `pth`"),
            (
                "columns = [\"path\"]\npattern = 'a'\nbits = 1\nsays = \"is\"\nand = { uid = '0' }",
                "no column `uid`",
            ),
            ("columns = []\npattern = 'a'\nbits = 1\nsays = \"is\"", "looks at nothing"),
            ("columns = [\"path\"]\npattern = 'a'\nbits = 1\nsays = \" \"", "says what it saw"),
            ("columns = [\"path\"]\npattern = 'a'\nbits = 1\nsays = \"is\"\nif = 1", "unknown field `if`"),
        ] {
            let error = parse(prior).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("dir/t.toml"), "{expected}: {error}");
        }
    }
}
