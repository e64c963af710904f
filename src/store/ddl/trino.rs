//! Tables of Trino's Hive connector.

use super::super::tables::{PARTITIONS, StoredTable, TableFile};
use super::{Scribe, partitions};
use crate::error::Result;

pub(super) const HEAD: &str = "\
Trino, Hive connector: each table has a partition for each committed snapshot and no others. A snapshot has its
directory for itself, so that is as exact as a list of files. It needs hive.allow-register-partition-procedure=true
and hive.non-managed-table-creates-enabled, which is the default. system.sync_partition_metadata is not used: it would
also find what is not committed. Print this again after a collection or a deletion: tables are dropped and made anew,
which touches no file. Until then, a snapshot that was deleted fails queries, unless hive.ignore-absent-partitions=true.
Without a catalog in --database, the session's counts. Ids are varbinary: lower(to_hex(strict_id)). Times are UTC.
";

/// A table and its partitions.
pub(super) fn table(scribe: &Scribe, table: &StoredTable) -> Result<String> {
    let name = scribe.name_of(table.kind, &table.name);
    let columns = scribe.typed_columns(table, true)?.join(",\n");
    let keys = PARTITIONS.map(|name| scribe.text(name)).join(", ");
    let place = scribe.place(&format!("{}/", table.folder()));
    let mut text = format!(
        "\n{}DROP TABLE IF EXISTS {name};\nCREATE TABLE {name} (\n{columns}\n) WITH (\n  format = 'PARQUET',\n  \
         external_location = {place},\n  partitioned_by = ARRAY[{keys}]\n);\n",
        scribe.remark(table)
    );
    for (file, folder) in partitions(table) {
        text.push_str(&register(scribe, table, (file, folder)));
    }
    Ok(text)
}

fn register(scribe: &Scribe, table: &StoredTable, (file, folder): (&TableFile, &str)) -> String {
    let catalog =
        scribe.database.catalog.as_ref().map_or_else(String::new, |catalog| scribe.quoted(catalog) + ".");
    let schema = scribe.database_of(table.kind);
    let keys = PARTITIONS.map(|name| scribe.text(name)).join(", ");
    let values = [file.fleet.to_string(), file.snapshot.dt(), file.snapshot.to_string()];
    let values = values.map(|value| scribe.text(&value)).join(", ");
    format!(
        "CALL {catalog}system.register_partition(schema_name => {}, table_name => {}, \
         partition_columns => ARRAY[{keys}], partition_values => ARRAY[{values}], location => {});\n",
        scribe.text(&schema),
        scribe.text(&table.name),
        scribe.place(&format!("{folder}/")),
    )
}
