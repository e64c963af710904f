//! Everything that is declared in files: table schemas (`schemas/*.toml`) and saved queries (`sql/`). Pure.

mod builtin;
mod builtin_queries;
mod priors;
mod queries;
mod table;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

pub use self::priors::{PATTERN_BYTES, PRIOR_BITS, Pattern, PriorSpec};
pub use self::queries::{BoundQuery, ParamSpec, ParamType, ParamValue, Queries, QuerySpec};
pub use self::table::{
    ColumnSpec, ColumnType, Normaliser, OWN_COLUMNS, OWN_TABLES, Role, Strength, TableSpec, is_column_name,
    is_table_name,
};
use crate::error::{Error, Result};

/// The declared tables, by name.
#[derive(Debug, Clone)]
pub struct Catalog {
    tables: BTreeMap<String, TableSpec>,
}

impl Catalog {
    /// The tables that are built in.
    ///
    /// # Errors
    /// A built-in schema does not parse: a defect, kept from happening by a test.
    pub fn builtin() -> Result<Self> {
        let mut tables = BTreeMap::new();
        for (file, text) in builtin::SCHEMAS {
            let spec = TableSpec::parse_builtin(text, file)?;
            tables.insert(spec.name.clone(), spec);
        }
        Ok(Self { tables })
    }

    /// Adds the `*.toml` files of a directory; a table that is there already is replaced.
    ///
    /// # Errors
    /// The directory or a file cannot be read, or a file is no schema; the file is named.
    pub fn add_dir(&mut self, dir: &Path) -> Result<()> {
        let unreadable = |source, path: &Path| {
            Error::config(format!("cannot read `{}`", path.display()))
                .source(source)
                .hint("--schemas takes a directory of *.toml files")
        };
        let entries = fs::read_dir(dir).map_err(|source| unreadable(source, dir))?;
        for entry in entries {
            let path = entry.map_err(|source| unreadable(source, dir))?.path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                let text = fs::read_to_string(&path).map_err(|source| unreadable(source, &path))?;
                let spec = TableSpec::parse(&text, &path.display().to_string())?;
                self.tables.insert(spec.name.clone(), spec);
            }
        }
        Ok(())
    }

    /// The declared table of that name.
    pub fn table(&self, name: &str) -> Option<&TableSpec> {
        self.tables.get(name)
    }

    /// The declared table of that name, or one that takes whatever comes.
    pub fn table_or_undeclared(&self, name: &str) -> Cow<'_, TableSpec> {
        self.table(name).map_or_else(|| Cow::Owned(TableSpec::undeclared(name)), Cow::Borrowed)
    }

    /// All declared tables, by name.
    pub fn tables(&self) -> impl Iterator<Item = &TableSpec> {
        self.tables.values()
    }

    /// BLAKE3 digest, in hex, of all declared tables: says which schemas a snapshot was made with.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for spec in self.tables.values() {
            hasher.update(toml::to_string(spec).unwrap_or_default().as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    /// The declared name that looks most like `name`, when one looks alike at all.
    pub fn nearest(&self, name: &str) -> Option<&str> {
        nearest(name, self.tables.keys().map(String::as_str))
    }
}

/// The candidate that looks most like `name`, when one looks alike at all: for "did you mean".
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_builtin_schema_parses_and_is_named_like_its_file() {
        let catalog = Catalog::builtin().unwrap();
        assert_eq!(catalog.tables().count(), builtin::SCHEMAS.len());
        for (file, text) in builtin::SCHEMAS {
            let spec = TableSpec::parse(text, file).unwrap();
            assert_eq!(format!("{}.toml", spec.name), *file);
        }
    }

    #[test]
    fn the_list_of_builtin_schemas_forgets_no_file() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
        let mut files: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|file| file.ends_with(".toml"))
            .collect();
        files.sort();
        let listed: Vec<&str> = builtin::SCHEMAS.iter().map(|(file, _)| *file).collect();
        assert_eq!(listed, files);
    }

    #[test]
    fn every_builtin_schema_says_what_makes_two_rows_the_same() {
        for spec in Catalog::builtin().unwrap().tables() {
            let only_measures = spec.columns.iter().all(|column| column.role == Role::Measure);
            let identified = spec.identity(Strength::Loose).next().is_some();
            assert!(identified || only_measures, "{} has no loose identity", spec.name);
        }
    }

    #[test]
    fn every_builtin_schema_asks_for_its_table() {
        // Tables of our own that are put together from tables of osquery's.
        const OWN: [&str; 1] = ["cron_scripts"];
        for spec in Catalog::builtin().unwrap().tables() {
            assert!(!spec.query.trim().is_empty(), "{} has no query", spec.name);
            let mut words = spec.query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let mentioned = words.any(|word| word == spec.name);
            assert!(mentioned || OWN.contains(&spec.name.as_str()), "{} is not asked for", spec.name);
        }
    }

    #[test]
    fn every_builtin_schema_is_described_in_sentences() {
        for spec in Catalog::builtin().unwrap().tables() {
            let columns = spec.columns.iter().map(|column| (column.name.as_str(), &column.description));
            for (name, text) in columns.chain([("the table", &spec.description)]) {
                let sentence = text.ends_with('.') && text.starts_with(|c: char| c.is_ascii_uppercase());
                assert!(sentence && text.len() > 8, "{}: {name} is described as `{text}`", spec.name);
            }
        }
    }
}
