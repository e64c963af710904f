//! Saved queries: SQL files whose header says what they ask, of which tables, and with which parameters.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::builtin_queries::QUERIES;
use super::{is_table_name, nearest};
use crate::error::{Error, Result};
use crate::model::SnapshotId;

/// Largest file that is read as a saved query, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Type of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamType {
    /// Any text.
    Text,
    /// A signed 64-bit integer.
    Integer,
    /// The id of a snapshot that is in the store.
    Snapshot,
}

impl ParamType {
    const ALL: [Self; 3] = [Self::Text, Self::Integer, Self::Snapshot];

    /// The spelling in headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Snapshot => "snapshot",
        }
    }

    fn parse(self, name: &str, text: &str) -> Result<ParamValue> {
        match self {
            Self::Text => Ok(ParamValue::Text(text.to_owned())),
            Self::Integer => text.parse().map(ParamValue::Integer).map_err(|source| {
                Error::usage(format!("parameter `{name}` takes an integer, not `{}`", text.escape_debug()))
                    .source(source)
            }),
            Self::Snapshot => text.parse().map(ParamValue::Snapshot).map_err(|source| {
                Error::usage(format!(
                    "parameter `{name}` takes the id of a snapshot, not `{}`",
                    text.escape_debug()
                ))
                .source(source)
                .hint("`diffy snapshot list` lists them")
            }),
        }
    }
}

/// Value of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParamValue {
    /// A text.
    Text(String),
    /// An integer.
    Integer(i64),
    /// The id of a snapshot.
    Snapshot(SnapshotId),
}

/// A parameter of a saved query: `$name` in its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamSpec {
    /// The name, without `$`.
    pub name: String,
    /// The type.
    pub kind: ParamType,
    /// The value when the user gives none; without one the user must.
    pub default: Option<String>,
    /// One sentence.
    pub sentence: String,
}

impl ParamSpec {
    /// Parses `name = default (type) sentence`, or `name (type) sentence`.
    fn parse(text: &str) -> Result<Self> {
        let shape = || {
            Error::config(format!("`{text}` describes no parameter"))
                .hint("write `param: NAME = DEFAULT (text|integer|snapshot) SENTENCE`, without `= DEFAULT` for a required one")
        };
        let place = |kind: ParamType| text.find(&format!("({})", kind.as_str())).map(|at| (at, kind));
        let (at, kind) =
            ParamType::ALL.into_iter().filter_map(place).min_by_key(|(at, _)| *at).ok_or_else(shape)?;
        let (before, after) = text.split_at_checked(at).ok_or_else(shape)?;
        let (name, default) = match before.split_once('=') {
            Some((name, default)) => (name.trim(), Some(default.trim().to_owned())),
            None => (before.trim(), None),
        };
        let sentence = after.split_once(')').map_or("", |(_, sentence)| sentence.trim());
        if !is_table_name(name) || sentence.is_empty() {
            return Err(shape());
        }
        if let Some(default) = &default {
            kind.parse(name, default)?;
        }
        Ok(Self { name: name.to_owned(), kind, default, sentence: sentence.to_owned() })
    }
}

/// A saved query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuerySpec {
    /// Name: that of the file.
    pub name: String,
    /// What it asks, in one sentence.
    pub sentence: String,
    /// The tables it reads.
    pub tables: Vec<String>,
    /// Its parameters, in the order of the header.
    pub params: Vec<ParamSpec>,
    /// What harmless things it shows too.
    pub false_positives: String,
    /// ATT&CK techniques and write-ups.
    pub references: Vec<String>,
    /// The whole text.
    pub sql: String,
}

/// A saved query with a value for every parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundQuery {
    /// The text, with `$name` for the parameters.
    pub sql: String,
    /// Name and value of each parameter: to be bound as values, never written into the text.
    pub params: Vec<(String, ParamValue)>,
}

impl QuerySpec {
    /// Parses one file; its name without `.sql` is the name of the query.
    ///
    /// # Errors
    /// The name is none, or the header lacks a key or has one that is not known; the file is named.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        Self::parse_unnamed(text, file).map_err(|error| error.with("file", file))
    }

    fn parse_unnamed(text: &str, file: &str) -> Result<Self> {
        let stem = Path::new(file).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if !is_table_name(stem) {
            return Err(Error::config(format!("`{}` is no name for a saved query", stem.escape_debug()))
                .hint("name the file in lowercase letters, digits and underscores"));
        }
        let mut spec = Self {
            name: stem.to_owned(),
            sentence: String::new(),
            tables: Vec::new(),
            params: Vec::new(),
            false_positives: String::new(),
            references: Vec::new(),
            sql: text.to_owned(),
        };
        let mut lines = header(text).into_iter();
        spec.sentence = lines.next().unwrap_or_default();
        if spec.sentence.is_empty() {
            return Err(Error::config("the query does not say what it asks")
                .hint("begin the file with `-- ` and one sentence"));
        }
        for line in lines {
            spec.take(&line)?;
        }
        spec.check()?;
        Ok(spec)
    }

    /// Takes one `key: value` of the header.
    fn take(&mut self, line: &str) -> Result<()> {
        let known = "known are: tables, param, false positives, references";
        let Some((key, value)) = line.split_once(':') else {
            return Err(Error::config(format!("`{line}` in the header has no key")).hint(known));
        };
        let value = value.trim();
        let list =
            || value.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect();
        match key.trim() {
            "tables" => self.tables = list(),
            "param" => self.params.push(ParamSpec::parse(value)?),
            "false positives" => self.false_positives = value.to_owned(),
            "references" => self.references = list(),
            key => return Err(Error::config(format!("`{key}` is no key of a query's header")).hint(known)),
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        if self.tables.is_empty() {
            return Err(Error::config("the header does not name the tables that the query reads")
                .hint("add `-- tables: NAME, NAME`"));
        }
        for (index, param) in self.params.iter().enumerate() {
            if self.params[..index].iter().any(|other| other.name == param.name) {
                return Err(Error::config(format!("parameter `{}` is declared twice", param.name)));
            }
        }
        Ok(())
    }

    /// Gives every parameter its value: the user's, else the default.
    ///
    /// # Errors
    /// A name is no parameter, a value has the wrong type, or a required parameter has none.
    pub fn bind(&self, params: &BTreeMap<String, String>) -> Result<BoundQuery> {
        let names = || self.params.iter().map(|param| param.name.as_str());
        if let Some(unknown) = params.keys().find(|name| !names().any(|known| known == name.as_str())) {
            let error = Error::usage(format!("query `{}` has no parameter `{unknown}`", self.name));
            let all = names().collect::<Vec<_>>().join(", ");
            return Err(error.hint(if all.is_empty() {
                "it has none".to_owned()
            } else {
                format!("it has: {all}")
            }));
        }
        let mut values = Vec::with_capacity(self.params.len());
        for param in &self.params {
            let Some(text) = params.get(&param.name).or(param.default.as_ref()) else {
                return Err(Error::usage(format!(
                    "query `{}` needs a value for `{}`",
                    self.name, param.name
                ))
                .hint(format!("add `--param {}=…`: {}", param.name, param.sentence)));
            };
            values.push((param.name.clone(), param.kind.parse(&param.name, text)?));
        }
        Ok(BoundQuery { sql: self.sql.clone(), params: values })
    }
}

/// The lines of the first comment block; one that begins with two or more blanks goes on with the one before.
fn header(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines().map_while(|line| line.strip_prefix("--")) {
        match lines.last_mut() {
            Some(last) if line.starts_with("  ") => {
                last.push(' ');
                last.push_str(line.trim());
            }
            _ => lines.push(line.trim().to_owned()),
        }
    }
    lines
}

/// The saved queries, by name.
#[derive(Debug, Clone)]
pub struct Queries {
    queries: BTreeMap<String, QuerySpec>,
}

impl Queries {
    /// The queries that are built in.
    ///
    /// # Errors
    /// A built-in query does not parse: a defect, kept from happening by a test.
    pub fn builtin() -> Result<Self> {
        let mut queries = BTreeMap::new();
        for (file, text) in QUERIES {
            let spec = QuerySpec::parse(text, file)?;
            queries.insert(spec.name.clone(), spec);
        }
        Ok(Self { queries })
    }

    /// Adds the `*.sql` files of a directory; a query that is there already is replaced.
    ///
    /// # Errors
    /// The directory or a file cannot be read, or a file is no saved query; the file is named.
    pub fn add_dir(&mut self, dir: &Path) -> Result<()> {
        let unreadable = |source, path: &Path| {
            Error::config(format!("cannot read `{}`", path.display()))
                .source(source)
                .hint("`--sql-dir` takes a directory of *.sql files")
        };
        for entry in fs::read_dir(dir).map_err(|source| unreadable(source, dir))? {
            let path = entry.map_err(|source| unreadable(source, dir))?.path();
            if path.extension().is_none_or(|extension| extension != "sql") {
                continue;
            }
            let bytes = fs::metadata(&path).map_err(|source| unreadable(source, &path))?.len();
            if bytes > MAX_BYTES {
                return Err(Error::config(format!("`{}` is too large for a saved query", path.display()))
                    .hint("a saved query has at most 1 MiB"));
            }
            let text = fs::read_to_string(&path).map_err(|source| unreadable(source, &path))?;
            let spec = QuerySpec::parse(&text, &path.display().to_string())?;
            self.queries.insert(spec.name.clone(), spec);
        }
        Ok(())
    }

    /// The query of that name.
    ///
    /// # Errors
    /// There is none; the error says which looks like it.
    pub fn get(&self, name: &str) -> Result<&QuerySpec> {
        self.queries.get(name).ok_or_else(|| {
            let near = nearest(name, self.queries.keys().map(String::as_str));
            let meant = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            Error::usage(format!("no saved query `{}`{meant}", name.escape_debug()))
                .hint("`diffy query --list` lists them")
        })
    }

    /// All queries, by name.
    pub fn iter(&self) -> impl Iterator<Item = &QuerySpec> {
        self.queries.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "-- What is it?\n-- tables: a, b\n-- param: most = 3 (integer) Most (of\n--   all) hosts.\n\
                        -- param: who (text) Whom.\n-- references: T1, https://x\n\n-- tables: no header\nSELECT $most, $who\n";

    fn bound(pairs: &[(&str, &str)]) -> Result<BoundQuery> {
        let params = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        QuerySpec::parse(TEXT, "dir/what.sql").unwrap().bind(&params)
    }

    #[test]
    fn a_header_says_what_is_asked_of_which_tables_with_which_parameters() {
        let spec = QuerySpec::parse(TEXT, "dir/what.sql").unwrap();
        assert_eq!((spec.name.as_str(), spec.sentence.as_str()), ("what", "What is it?"));
        assert_eq!(spec.tables, ["a", "b"]);
        assert_eq!(spec.params[0].default.as_deref(), Some("3"));
        assert_eq!(spec.params[0].sentence, "Most (of all) hosts.");
        assert_eq!(spec.params[1].default, None);
        assert_eq!(spec.references, ["T1", "https://x"]);
    }

    #[test]
    fn headers_that_are_wrong_are_refused_with_the_file() {
        for text in [
            "SELECT 1",
            "-- What?\nSELECT 1",
            "-- What?\n-- tables: a\n-- colour: red\nSELECT 1",
            "-- What?\n-- tables: a\n-- nothing\nSELECT 1",
            "-- What?\n-- tables: a\n-- param: x = 1 Sentence.\nSELECT 1",
            "-- What?\n-- tables: a\n-- param: x = y (integer) Sentence.\nSELECT 1",
            "-- What?\n-- tables: a\n-- param: x (text) S.\n-- param: x (text) S.\nSELECT 1",
        ] {
            let error = QuerySpec::parse(text, "what.sql").unwrap_err().to_string();
            assert!(error.contains("what.sql"), "{error}");
        }
        assert!(QuerySpec::parse(TEXT, "What is.sql").is_err());
    }

    #[test]
    fn parameters_are_typed_values() {
        let query = bound(&[("who", "a' or 1=1 --")]).unwrap();
        assert_eq!(query.sql, TEXT);
        let expected = [ParamValue::Integer(3), ParamValue::Text("a' or 1=1 --".to_owned())];
        assert_eq!(query.params.into_iter().map(|(_, value)| value).collect::<Vec<_>>(), expected);
        for wrong in [&[][..], &[("who", ""), ("most", "many")], &[("who", ""), ("whom", "")]] {
            assert!(bound(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_list_of_builtin_queries_is_the_directory() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/analyze");
        let mut files: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        assert_eq!(files, QUERIES.iter().map(|(file, _)| *file).collect::<Vec<_>>());
        for query in Queries::builtin().unwrap().iter() {
            assert!(query.sentence.ends_with('?'), "{}", query.name);
            assert!(!query.false_positives.is_empty() && !query.references.is_empty(), "{}", query.name);
        }
    }

    #[test]
    fn a_directory_of_the_user_adds_and_replaces() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("uid_zero_users.sql"), TEXT).unwrap();
        fs::write(dir.path().join("notes.txt"), "no query").unwrap();
        let mut queries = Queries::builtin().unwrap();
        queries.add_dir(dir.path()).unwrap();
        assert_eq!(queries.get("uid_zero_users").unwrap().sentence, "What is it?");
        let error = queries.get("uid_zero_user").unwrap_err().to_string();
        assert!(error.contains("did you mean `uid_zero_users`?"), "{error}");
        assert!(queries.add_dir(&dir.path().join("nope")).is_err());
    }
}
