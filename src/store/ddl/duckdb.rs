//! Views of DuckDB over lists of files.

use super::super::tables::{PARTITIONS, StoredTable};
use super::Scribe;
use crate::error::Result;

pub(super) const HEAD: &str = "\
DuckDB: each view lists the files that count. Print this again after a collection or a deletion.
`diffy` has rows, coverage, hosts, snapshots and kept findings; `diffy_prev` has the prevalence of each table.
Of a store on S3: INSTALL httpfs; LOAD httpfs; CREATE SECRET (TYPE s3, PROVIDER credential_chain);
Run it with: duckdb -init FILE, or duckdb.execute(open(FILE).read()) in Python.
";

/// A view over the files that count.
pub(super) fn view(scribe: &Scribe, table: &StoredTable) -> Result<String> {
    let types = scribe.typed_columns(table, false)?;
    let mut columns: Vec<String> = types
        .iter()
        .zip(&table.columns)
        .map(|(typed, column)| {
            let kind = typed.rsplit(' ').next().unwrap_or_default();
            let name = scribe.quoted(&column.name);
            // What differs is read as the widest type.
            let kind = if column.differs { "of several types" } else { kind };
            format!("  {name}, -- {kind}")
        })
        .collect();
    columns.push(format!("  {}", PARTITIONS.map(|name| scribe.quoted(name)).join(", ")));
    let files: Vec<String> =
        table.files.iter().map(|file| format!("  {}", file_text(scribe, &file.path))).collect();
    // Opens every file before a query begins, so only where it must.
    let by_name = if table.is_even { "" } else { ", union_by_name = true" };
    Ok(format!(
        "\n{}CREATE OR REPLACE VIEW {} AS SELECT\n{}\nFROM read_parquet([\n{}\n], hive_partitioning = true, hive_types_autocast = false{by_name});\n",
        scribe.remark(table),
        scribe.name_of(table.kind, &table.name),
        columns.join("\n"),
        files.join(",\n"),
    ))
}

/// A file by its name, which is no pattern.
fn file_text(scribe: &Scribe, path: &str) -> String {
    let mut name = String::new();
    for character in format!("{}/{path}", scribe.url).chars() {
        match character {
            '[' | '*' | '?' => name.extend(['[', character, ']']),
            _ => name.push(character),
        }
    }
    scribe.text(&name)
}
