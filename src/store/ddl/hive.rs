//! External tables with partitions, as Athena and Spark have them of Hive.

use super::super::tables::{PARTITIONS, StoredTable, TableFile};
use super::{Dialect, Scribe, partitions};
use crate::error::Result;

/// Partitions that one statement adds: Athena takes 256 KiB of text.
const PARTITIONS_AT_ONCE: usize = 100;

pub(super) const ATHENA_HEAD: &str = "\
Athena: each table has a partition for each committed snapshot and no others. A snapshot has its directory for itself,
so that is as exact as a list of files. Neither MSCK REPAIR TABLE nor partition projection is used: both would also
find what is not committed. Print this again after a collection or a deletion: tables are dropped and made anew, which
touches no file on S3.
Athena takes one statement at a time; each ends with a semicolon at the end of a line.
Ids are binary: lower(to_hex(strict_id)). Times are UTC. `members` is opaque here.
";

pub(super) const SPARK_HEAD: &str = "\
Spark: each table has a partition for each committed snapshot and no others. A snapshot has its directory for itself,
so that is as exact as a list of files. MSCK REPAIR TABLE is not used: it would also find what is not committed.
Print this again after a collection or a deletion: tables are dropped and made anew, which touches no file.
Give Spark read access only; nothing else keeps an INSERT away from the store.
Run it with: spark-sql -f FILE. Ids are binary: lower(hex(strict_id)). `members` is opaque here.
";

/// A table and its partitions.
pub(super) fn table(scribe: &Scribe, table: &StoredTable) -> Result<String> {
    let name = scribe.name_of(table.kind, &table.name);
    let place = scribe.place(&format!("{}/", table.folder()));
    let mut text = format!("\n{}DROP TABLE IF EXISTS {name};\n", scribe.remark(table));
    if scribe.dialect == Dialect::Spark {
        let columns = scribe.typed_columns(table, true)?.join(",\n");
        let partitions = PARTITIONS.map(|name| scribe.quoted(name)).join(", ");
        text.push_str(&format!(
            "CREATE TABLE {name} (\n{columns}\n) USING parquet\nPARTITIONED BY ({partitions})\nLOCATION {place};\n"
        ));
    } else {
        let columns = scribe.typed_columns(table, false)?.join(",\n");
        let partitions = PARTITIONS.map(|name| format!("{} string", scribe.quoted(name))).join(", ");
        text.push_str(&format!(
            "CREATE EXTERNAL TABLE {name} (\n{columns}\n)\nPARTITIONED BY ({partitions})\nSTORED AS PARQUET\nLOCATION {place};\n"
        ));
    }
    let added: Vec<String> =
        partitions(table).map(|(file, folder)| partition(scribe, file, folder)).collect();
    for some in added.chunks(PARTITIONS_AT_ONCE) {
        text.push_str(&format!("ALTER TABLE {name} ADD IF NOT EXISTS\n{};\n", some.join("\n")));
    }
    Ok(text)
}

fn partition(scribe: &Scribe, file: &TableFile, folder: &str) -> String {
    let values = [file.fleet.to_string(), file.snapshot.dt(), file.snapshot.to_string()];
    let values: Vec<String> = PARTITIONS
        .iter()
        .zip(values)
        .map(|(name, value)| format!("{} = {}", scribe.quoted(name), scribe.text(&value)))
        .collect();
    format!("  PARTITION ({}) LOCATION {}", values.join(", "), scribe.place(&format!("{folder}/")))
}
