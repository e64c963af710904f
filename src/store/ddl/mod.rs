//! The statements that make a store's tables known to somebody else's engine.
//!
//! A snapshot exists when its manifest exists, and no engine knows manifests. So the text names what counts: files for
//! DuckDB, a partition for each snapshot for the others. It is true of the moment it was printed.

mod duckdb;
mod hive;
mod trino;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use datafusion::arrow::datatypes::DataType;

use super::manifest::{FileKind, Manifest};
use super::tables::{PARTITIONS, StoredColumn, StoredTable, TableFile};
use crate::error::{Error, Result};
use crate::model::{now, rfc3339};

/// Whose SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Amazon Athena, engine version 3.
    Athena,
    /// Trino with its Hive connector.
    Trino,
    /// Spark SQL.
    Spark,
    /// DuckDB.
    DuckDb,
}

impl Dialect {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Athena, Self::Trino, Self::Spark, Self::DuckDb];

    /// The spelling on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Athena => "athena",
            Self::Trino => "trino",
            Self::Spark => "spark",
            Self::DuckDb => "duckdb",
        }
    }

    /// The store's place as this engine names it.
    fn url(self, location: &str) -> Result<String> {
        let location = location.trim_end_matches('/');
        let rest = location.strip_prefix("s3://").or_else(|| location.strip_prefix("s3a://"));
        match (self, rest) {
            (Self::Spark, Some(rest)) => Ok(format!("s3a://{rest}")),
            (_, Some(rest)) => Ok(format!("s3://{rest}")),
            (Self::Spark, None) if location.starts_with('/') => Ok(format!("file:{location}")),
            (Self::Trino, None) if location.contains("://") => Ok(location.to_owned()),
            (Self::Spark | Self::DuckDb, None) => Ok(location.to_owned()),
            (Self::Athena | Self::Trino, None) => {
                Err(Error::usage(format!("{self} does not read the directory `{location}`"))
                    .hint("`--location s3://BUCKET/PREFIX` says where a copy of the store is"))
            }
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Dialect {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|dialect| dialect.as_str() == text).ok_or_else(|| {
            Error::usage(format!("`{}` is no dialect", text.escape_debug()))
                .hint("dialects are athena, trino, spark and duckdb")
        })
    }
}

/// The database that tables are made in; prevalence goes to one of the same name with `_prev` behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// The catalog, where one is named.
    catalog: Option<String>,
    name: String,
}

impl FromStr for Database {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (catalog, name) = match text.split_once('.') {
            Some((catalog, name)) => (Some(catalog.to_owned()), name.to_owned()),
            None => (None, text.to_owned()),
        };
        let all = catalog.iter().chain([&name]);
        if let Some(wrong) = all.into_iter().find(|name| !is_plain(name)) {
            return Err(Error::usage(format!("`{}` is no name of a database", wrong.escape_debug())).hint(
                "a name has up to 64 letters, digits and underscores; CATALOG.NAME names a catalog too",
            ));
        }
        Ok(Self { catalog, name })
    }
}

fn is_plain(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with(|first: char| first.is_ascii_digit())
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct DdlRequest {
    /// Whose SQL.
    pub dialect: Dialect,
    /// Where tables are made.
    pub database: Database,
    /// Where the store is: `s3://BUCKET/PREFIX`, or a directory.
    pub location: String,
    /// Whether `snapshots` is one of the tables.
    pub with_snapshots: bool,
}

/// What the dialects write with.
struct Scribe {
    dialect: Dialect,
    database: Database,
    /// The place of the store, without a slash at the end.
    url: String,
}

/// The statements for these tables, with what to know about them at the head.
///
/// # Errors
/// The engine cannot read at that place, or has no such catalogs, or a column has a type that none of ours has.
pub fn ddl(tables: &[StoredTable], manifests: &[Manifest], request: &DdlRequest) -> Result<String> {
    let (dialect, database) = (request.dialect, request.database.clone());
    if let (Dialect::Athena, Some(catalog)) = (dialect, &database.catalog) {
        return Err(Error::usage(format!("Athena makes no database in a named catalog: `{catalog}`"))
            .hint("leave the catalog out, and choose it in Athena"));
    }
    let scribe = Scribe { dialect, database, url: dialect.url(&request.location)? };
    let mut text = scribe.head(manifests);
    let has_prevalence = tables.iter().any(|table| table.kind == FileKind::Prevalence);
    text.push_str(&scribe.make_database(FileKind::Rows));
    if has_prevalence {
        text.push_str(&scribe.make_database(FileKind::Prevalence));
    }
    if request.with_snapshots {
        text.push_str(&scribe.snapshots(manifests));
    }
    for table in tables {
        text.push_str(&scribe.table(table)?);
    }
    Ok(text)
}

impl Scribe {
    fn head(&self, manifests: &[Manifest]) -> String {
        let newest =
            manifests.last().map_or_else(String::new, |newest| format!(", newest {}", newest.snapshot));
        let mut lines = vec![
            format!("Diffy store `{}` for {}", self.url.escape_debug(), self.dialect),
            format!("as of {}: {} snapshots{newest}", rfc3339(now()), manifests.len()),
            String::new(),
            "Only files that the manifest of a committed snapshot names count. Directories of tables may hold".into(),
            "others: of collections that run or were interrupted, and of snapshots that are being deleted.".into(),
        ];
        let own = match self.dialect {
            Dialect::DuckDb => duckdb::HEAD,
            Dialect::Trino => trino::HEAD,
            Dialect::Athena => hive::ATHENA_HEAD,
            Dialect::Spark => hive::SPARK_HEAD,
        };
        lines.extend(own.lines().map(str::to_owned));
        lines.iter().map(|line| format!("-- {line}").trim_end().to_owned() + "\n").collect()
    }

    fn make_database(&self, kind: FileKind) -> String {
        let what = match self.dialect {
            Dialect::Athena | Dialect::Spark => "DATABASE",
            Dialect::Trino | Dialect::DuckDb => "SCHEMA",
        };
        format!("\nCREATE {what} IF NOT EXISTS {};\n", self.database_name(kind))
    }

    fn table(&self, table: &StoredTable) -> Result<String> {
        match self.dialect {
            Dialect::DuckDb => duckdb::view(self, table),
            Dialect::Trino => trino::table(self, table),
            Dialect::Athena | Dialect::Spark => hive::table(self, table),
        }
    }

    /// What manifests say, as a view over values.
    fn snapshots(&self, manifests: &[Manifest]) -> String {
        let names = ["snapshot", "fleet", "dt", "started", "ended", "collector"];
        let counts = ["hosts_asked", "hosts_answered", "hosts_failed", "rows"];
        let view = |name: &str| match self.dialect {
            // Views of Athena are made by the engine of its queries, which spells as Trino does.
            Dialect::Athena => format!("\"{name}\""),
            _ => self.quoted(name),
        };
        let columns: Vec<String> = names.iter().chain(&counts).map(|name| view(name)).collect();
        let line = |manifest: &Manifest| {
            let texts = [manifest.snapshot.to_string(), manifest.fleet.to_string(), manifest.snapshot.dt()];
            let mut cells: Vec<String> = texts.iter().map(|text| self.view_text(text)).collect();
            cells.extend([manifest.started, manifest.ended].map(|time| self.moment(&rfc3339(time))));
            cells.push(self.view_text(&manifest.collector));
            let counts =
                [manifest.hosts_asked, manifest.hosts_answered, manifest.hosts_failed, manifest.rows];
            // Every engine takes the smallest type that a number fits into, unless told.
            cells.extend(counts.map(|count| format!("CAST({count} AS BIGINT)")));
            format!("  ({})", cells.join(", "))
        };
        let lines: Vec<String> = manifests.iter().rev().map(line).collect();
        let name = match self.dialect {
            Dialect::Athena => format!("\"{}\".\"snapshots\"", self.database.name),
            _ => self.name_of(FileKind::Hosts, "snapshots"),
        };
        format!(
            "\nCREATE OR REPLACE VIEW {name} AS SELECT * FROM (VALUES\n{}\n) AS manifests ({});\n",
            lines.join(",\n"),
            columns.join(", ")
        )
    }

    /// A text in a view.
    fn view_text(&self, text: &str) -> String {
        if self.dialect == Dialect::Spark { self.text(text) } else { standard_text(text) }
    }

    /// A moment in a view, given as `2026-01-02T03:04:05.678Z`.
    fn moment(&self, rfc3339: &str) -> String {
        match self.dialect {
            Dialect::DuckDb => format!("TIMESTAMPTZ '{rfc3339}'"),
            Dialect::Spark => format!("TIMESTAMP '{rfc3339}'"),
            // Without a zone, as they read the files: it is UTC.
            Dialect::Athena | Dialect::Trino => {
                format!("TIMESTAMP '{}'", rfc3339.replace('T', " ").trim_end_matches('Z'))
            }
        }
    }

    /// The database that files of that kind are a table of, without its catalog.
    fn database_of(&self, kind: FileKind) -> String {
        let suffix = if kind == FileKind::Prevalence { "_prev" } else { "" };
        format!("{}{suffix}", self.database.name)
    }

    fn database_name(&self, kind: FileKind) -> String {
        let name = self.quoted(&self.database_of(kind));
        match &self.database.catalog {
            Some(catalog) => format!("{}.{name}", self.quoted(catalog)),
            None => name,
        }
    }

    fn name_of(&self, kind: FileKind, table: &str) -> String {
        format!("{}.{}", self.database_name(kind), self.quoted(table))
    }

    /// A name. None of ours has a quote in it, but whoever writes to the store names columns.
    fn quoted(&self, name: &str) -> String {
        match self.dialect {
            Dialect::Athena | Dialect::Spark => format!("`{}`", name.replace('`', "``")),
            Dialect::Trino | Dialect::DuckDb => format!("\"{}\"", name.replace('"', "\"\"")),
        }
    }

    /// A text in a statement that makes a table.
    fn text(&self, text: &str) -> String {
        match self.dialect {
            Dialect::Trino | Dialect::DuckDb => standard_text(text),
            Dialect::Athena => hive_text(text),
            // Its shell puts variables in wherever `${` stands, also into texts.
            Dialect::Spark => hive_text(text).replace('$', "\\u0024"),
        }
    }

    /// A text for a place below the store's root.
    fn place(&self, path: &str) -> String {
        self.text(&format!("{}/{path}", self.url))
    }

    /// Lines of columns with their types, the partitions last.
    fn typed_columns(&self, table: &StoredTable, partitions: bool) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for column in &table.columns {
            let kind = self.type_of(column).map_err(|error| error.with("table", &table.name))?;
            lines.push(format!("  {} {kind}", self.quoted(&column.name)));
        }
        if partitions {
            let kind = if self.dialect == Dialect::Trino { "varchar" } else { "string" };
            lines.extend(PARTITIONS.map(|name| format!("  {} {kind}", self.quoted(name))));
        }
        Ok(lines)
    }

    fn type_of(&self, column: &StoredColumn) -> Result<&'static str> {
        // DuckDB, Trino, and what Athena and Spark have of Hive. All but DuckDB lack unsigned numbers.
        let [duckdb, trino, hive] = match &column.data_type {
            DataType::Utf8 => ["VARCHAR", "varchar", "string"],
            DataType::Int64 => ["BIGINT", "bigint", "bigint"],
            DataType::UInt32 => ["UINTEGER", "bigint", "bigint"],
            // Spark reads the files so, and as nothing else.
            DataType::UInt64 if self.dialect == Dialect::Spark => return Ok("decimal(20,0)"),
            DataType::UInt64 => ["UBIGINT", "bigint", "bigint"],
            DataType::Float64 => ["DOUBLE", "double", "double"],
            DataType::Boolean => ["BOOLEAN", "boolean", "boolean"],
            DataType::FixedSizeBinary(_) | DataType::Binary => ["BLOB", "varbinary", "binary"],
            DataType::Timestamp(..) => ["TIMESTAMPTZ", "timestamp(3)", "timestamp"],
            other => {
                return Err(Error::data(format!("column `{}` has type {other}", column.name))
                    .hint("a newer Diffy may have written it; use that one"));
            }
        };
        Ok(match self.dialect {
            Dialect::DuckDb => duckdb,
            Dialect::Trino => trino,
            Dialect::Athena | Dialect::Spark => hive,
        })
    }

    /// What to know of columns that changed their type, as a comment; empty where none did.
    fn remark(&self, table: &StoredTable) -> String {
        let differing = table.columns.iter().filter(|column| column.differs);
        let changed: Vec<String> = differing.map(|column| column.name.escape_debug().to_string()).collect();
        match (changed.is_empty(), self.dialect) {
            (true, _) => String::new(),
            (false, Dialect::DuckDb) => {
                format!("-- Of several types over time, and read as the widest: {}\n", changed.join(", "))
            }
            (false, _) => format!(
                "-- Of another type in older snapshots, where reading them fails or gives nothing: {}\n",
                changed.join(", ")
            ),
        }
    }
}

/// The folders of a table's snapshots, newest first, each with one of its files.
fn partitions(table: &StoredTable) -> impl Iterator<Item = (&TableFile, &str)> {
    let mut seen = BTreeSet::new();
    table.files.iter().filter_map(move |file| {
        let folder = file.path.rsplit_once('/')?.0;
        seen.insert(folder).then_some((file, folder))
    })
}

fn standard_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn hive_text(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scribe(dialect: Dialect) -> Scribe {
        Scribe { dialect, database: "diffy".parse().unwrap(), url: "s3://b".to_owned() }
    }

    /// A table whose only column has a name that somebody chose with care.
    fn printed(dialect: Dialect, column: &str) -> String {
        let column = StoredColumn { name: column.to_owned(), data_type: DataType::Utf8, differs: true };
        let file = TableFile {
            fleet: "f".parse().unwrap(),
            snapshot: "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap(),
            path: "rows/t/fleet=f/x.parquet".to_owned(),
        };
        let (kind, name) = (FileKind::Rows, "t".to_owned());
        let table = StoredTable { kind, name, columns: vec![column], files: vec![file], is_even: true };
        scribe(dialect).table(&table).unwrap()
    }

    #[test]
    fn a_name_does_not_end_before_its_end() {
        for dialect in Dialect::ALL {
            let quote = if matches!(dialect, Dialect::Athena | Dialect::Spark) { '`' } else { '"' };
            let text = printed(dialect, &format!("x{quote} FROM y; DROP TABLE z; --"));
            assert!(
                text.contains(&format!("{quote}x{quote}{quote} FROM y; DROP TABLE z; --{quote}")),
                "{text}"
            );
        }
    }

    #[test]
    fn a_name_does_not_end_a_comment() {
        for dialect in Dialect::ALL {
            let text = printed(dialect, "x\nDROP TABLE z;");
            let remark = text.lines().find(|line| line.starts_with("-- ")).unwrap();
            assert!(remark.ends_with(r"x\nDROP TABLE z;"), "{text}");
        }
    }

    #[test]
    fn spark_finds_no_variable_in_a_text() {
        assert_eq!(scribe(Dialect::Spark).text(r"${env:HOME}'\"), r"'\u0024{env:HOME}\'\\'");
        assert_eq!(scribe(Dialect::Athena).text("${x}"), "'${x}'");
    }
}
