//! A table as `schemas/*.toml` declares it: what to ask, what comes back, what makes two rows the same thing.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};

use super::priors::PriorSpec;
use crate::error::{Error, Result};

/// Type of a column's values; osquery prints all of them as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// UTF-8 text.
    Text,
    /// Signed 64-bit integer (osquery's INTEGER, BIGINT and UNSIGNED BIGINT).
    Integer,
    /// 64-bit floating point.
    Double,
}

impl ColumnType {
    /// The Arrow type.
    pub fn data_type(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::Integer => DataType::Int64,
            Self::Double => DataType::Float64,
        }
    }
}

/// What a column is to the analysis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Says what the row is.
    Identity,
    /// Says more about it; comparable between hosts.
    Context,
    /// Differs by host or by moment (pids, inodes, start times): never compared.
    Volatile,
    /// A quantity that moves (sizes, counters): never compared for equality.
    Measure,
}

/// Which of the two ids an identity column belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strength {
    /// In both ids: the same thing.
    Loose,
    /// In the strict id only: the same thing with the same content.
    Strict,
}

/// How a value is evened out for the ids; the stored row keeps it as it came.
///
/// Every normaliser is also a hiding place, so the strict id skips `Num`, `Ver`, `Hex` and the address class of `Addr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Normaliser {
    /// The host's own names, addresses and ids become `<self>`.
    #[serde(rename = "self")]
    SelfNames,
    /// Runs of digits become `#` (loose id only).
    Num,
    /// Digits of versions in paths and tags become `#` (loose id only).
    Ver,
    /// UUIDs and runs of eight or more hex digits become `<hex>` (loose id only).
    Hex,
    /// `/root` and `/home/NAME` become `~`.
    Home,
    /// The suffix ` (deleted)` becomes a flag.
    Deleted,
    /// Ports from 32768 up become `ephemeral`.
    Port,
    /// Own address becomes `<self>`; in the loose id other addresses become their class.
    Addr,
    /// Device names and file system UUIDs become `<disk>`.
    Disk,
    /// Runs of white space become one space.
    Ws,
}

/// One column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnSpec {
    /// Name in the store and in SQL: osquery's, but for [`Self::osquery_name`].
    pub name: String,
    /// Name as osquery spells it, where that is a name that Diffy needs for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub osquery_name: Option<String>,
    /// Type of the values.
    #[serde(rename = "type")]
    pub kind: ColumnType,
    /// What it is to the analysis.
    pub role: Role,
    /// For identity columns: which id. Loose where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strength: Option<Strength>,
    /// How the value is evened out for the ids; the order does not matter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub normalise: Vec<Normaliser>,
    /// Unit of a number: `bytes`, `seconds since 1970`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// First osquery version that has the column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Whether values may hold credentials or personal data.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sensitive: bool,
    /// One sentence.
    pub description: String,
}

impl ColumnSpec {
    /// Whether the column is part of the id of that strength.
    pub fn in_identity(&self, strength: Strength) -> bool {
        self.role == Role::Identity
            && (strength == Strength::Strict || self.strength.unwrap_or(Strength::Loose) == Strength::Loose)
    }

    /// Whether the column is part of the grain of prevalence: comparable between hosts.
    pub fn is_comparable(&self) -> bool {
        matches!(self.role, Role::Identity | Role::Context)
    }
}

/// One table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableSpec {
    /// Name as osquery spells it.
    pub name: String,
    /// One sentence.
    pub description: String,
    /// Where osquery has it: `linux`, `darwin`, `windows`.
    pub platforms: Vec<String>,
    /// First osquery version that has the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// How much a row that only one host has speaks for a compromise, 0 to 1.
    pub weight: f64,
    /// ATT&CK technique ids that leave traces here.
    #[serde(default)]
    pub attack: Vec<String>,
    /// The query sent to osquery; empty for a table that only imports and the native collector fill.
    pub query: String,
    /// Whether a default collection asks for it.
    #[serde(default = "yes")]
    pub default: bool,
    /// The columns, in the order in which they are shown.
    #[serde(rename = "column")]
    pub columns: Vec<ColumnSpec>,
    /// Contents that speak for an intruder by themselves.
    #[serde(default, rename = "prior", skip_serializing_if = "Vec::is_empty")]
    pub priors: Vec<PriorSpec>,
    /// False for a table that no schema file declares.
    #[serde(skip, default = "yes")]
    pub declared: bool,
}

fn yes() -> bool {
    true
}

/// Columns that Diffy adds to every row; a host's column of such a name is kept under `extra`.
pub const OWN_COLUMNS: [&str; 9] =
    ["host", "fleet", "dt", "snapshot", "collected_at", "loose_id", "strict_id", "extra", "members"];

/// Tables that Diffy makes itself; a host's table of such a name is imported as `NAME_table`.
pub const OWN_TABLES: [&str; 6] = ["baselines", "coverage", "findings", "hosts", "prevalence", "snapshots"];

impl TableSpec {
    /// Parses one schema file; `file` is named in errors.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        let spec = Self::parse_builtin(text, file)?;
        let checked = spec.priors.iter().try_for_each(|prior| prior.check_patterns(text));
        checked.map_err(|error| error.with("file", file))?;
        Ok(spec)
    }

    /// As [`Self::parse`], for a text whose patterns were compiled by a test.
    pub(super) fn parse_builtin(text: &str, file: &str) -> Result<Self> {
        let spec: Self = toml::from_str(text)
            .map_err(|source| Error::config("this is no table schema").source(source).with("file", file))?;
        spec.check().map_err(|error| error.with("file", file))?;
        Ok(spec)
    }

    /// A table that no schema declares: its columns are found out from the rows, all text, all identity.
    pub fn undeclared(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            description: "No schema declares this table.".to_owned(),
            platforms: Vec::new(),
            since: None,
            weight: 0.3,
            attack: Vec::new(),
            query: String::new(),
            default: false,
            columns: Vec::new(),
            priors: Vec::new(),
            declared: false,
        }
    }

    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&ColumnSpec> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Columns of the id of that strength, in declared order.
    pub fn identity(&self, strength: Strength) -> impl Iterator<Item = &ColumnSpec> {
        self.columns.iter().filter(move |column| column.in_identity(strength))
    }

    /// The declared columns as an Arrow schema, all nullable.
    pub fn arrow_schema(&self) -> SchemaRef {
        let fields: Vec<Field> = self
            .columns
            .iter()
            .map(|column| Field::new(&column.name, column.kind.data_type(), true))
            .collect();
        Arc::new(Schema::new(fields))
    }

    fn check(&self) -> Result<()> {
        if !is_table_name(&self.name) {
            return Err(Error::config(format!("`{}` is no table name", self.name.escape_debug()))
                .hint("a table name is a lowercase SQL identifier of at most 64 bytes"));
        }
        if !(0.0..=1.0).contains(&self.weight) {
            return Err(Error::config(format!("weight {} is not between 0 and 1", self.weight)));
        }
        for (index, column) in self.columns.iter().enumerate() {
            self.check_column(index, column)?;
        }
        if !self.columns.iter().any(|column| column.role != Role::Volatile) {
            return Err(Error::config("no column is comparable between hosts"));
        }
        self.priors.iter().try_for_each(|prior| prior.check(self))
    }

    fn check_column(&self, index: usize, column: &ColumnSpec) -> Result<()> {
        let name = &column.name;
        if OWN_COLUMNS.contains(&name.as_str()) {
            return Err(Error::config(format!("column `{name}` is one that Diffy adds itself"))
                .hint("give it another name, with `osquery_name` for the one it comes with"));
        }
        if !is_column_name(name) {
            return Err(Error::config(format!("`{}` is no column name", name.escape_debug())).hint(
                "a column name has up to 64 letters, digits and underscores; `osquery_name` may be any",
            ));
        }
        let before = &self.columns[..index];
        if before.iter().any(|other| &other.name == name) {
            return Err(Error::config(format!("column `{name}` is declared twice")));
        }
        if let Some(key) = &column.osquery_name {
            let others = self.columns.iter().enumerate().filter(|(at, _)| *at != index);
            let takes = |other: &ColumnSpec| &other.name == key || other.osquery_name.as_ref() == Some(key);
            if others.map(|(_, other)| other).any(takes) {
                return Err(Error::config(format!("two columns come as `{}`", key.escape_debug()))
                    .hint("one of them needs another `osquery_name`"));
            }
        }
        if column.strength.is_some() && column.role != Role::Identity {
            return Err(Error::config(format!("column `{name}` has a strength but is no identity column")));
        }
        Ok(())
    }
}

/// Whether `name` can be a column: an SQL identifier of at most 64 bytes.
pub fn is_column_name(name: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=64).contains(&name.len())
        && name.bytes().all(word)
        && !name.starts_with(|first: char| first.is_ascii_digit())
}

/// Whether `name` can be a table: a lowercase SQL identifier of at most 64 bytes, so that it can be a folder too.
pub fn is_table_name(name: &str) -> bool {
    name.len() <= 64
        && name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'_')
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a schema with these columns is refused for.
    fn refusal(columns: &[(&str, Option<&str>)]) -> Option<String> {
        let column = |(name, came_as): &(&str, Option<&str>)| {
            let came_as = came_as.map_or_else(String::new, |key| format!("osquery_name = {key:?}\n"));
            format!(
                "[[column]]\nname = {name:?}\n{came_as}type = \"text\"\nrole = \"identity\"\ndescription = \"x\"\n"
            )
        };
        let columns: String = columns.iter().map(column).collect();
        let head = "name = \"t\"\ndescription = \"x\"\nplatforms = []\nweight = 0.5\nquery = \"x\"\n";
        TableSpec::parse(&format!("{head}{columns}"), "t.toml").err().map(|error| error.to_string())
    }

    #[test]
    fn a_column_is_spelled_as_sql_can() {
        assert_eq!(refusal(&[("a", None), ("Name_2", Some("odd-name"))]), None);
        for name in ["", "1a", "a b", "x\" FROM y; --", "größe"] {
            assert!(refusal(&[(name, None)]).is_some_and(|why| why.contains("is no column name")), "{name}");
        }
        assert!(refusal(&[(&"x".repeat(65), None)]).is_some());
    }

    #[test]
    fn a_key_belongs_to_one_column() {
        let two = |columns| refusal(columns).is_some_and(|why| why.contains("two columns come as `a`"));
        assert!(two(&[("a", None), ("b", Some("a"))]));
        assert!(two(&[("b", Some("a")), ("a", None)]));
        assert!(two(&[("b", Some("a")), ("c", Some("a"))]));
    }
}
