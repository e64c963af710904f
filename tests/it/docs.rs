//! Pages that are made from the source: `UPDATE=1 cargo test --test it docs` rewrites them.

// Elsewhere the native collector has no tables.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use diffy::catalog::{Catalog, PriorSpec, Strength, TableSpec};
use diffy::collect::native::NativeCollector;

const TOP: &str = "\
# Tables

Made from `schemas/*.toml`; `UPDATE=1 cargo test --test it docs` rewrites it.
`diffy tables show TABLE` prints all of a table: its query and its columns with their roles.

*Weight* is how much a row that only one host has speaks for a compromise, from 0 to 1.
*Native* tables are answered by the native collector too; all are asked of osquery.
The *loose id* says which columns make the rows of two hosts the same thing; the *strict id* adds the columns that make \
it the same content.

| Table | Weight | Native | ATT&CK | Loose id | Strict id adds | |
| --- | --- | --- | --- | --- | --- | --- |
";

const PRIORS: &str = "
## Priors

What the content of a row says by itself, in bits that are added to its surprise; [analysis.md](analysis.md) says how.
`diffy tables show TABLE` prints the patterns.

| Table | Bits | It … |
| --- | --- | --- |
";

#[test]
fn the_page_of_tables_is_what_the_schemas_say() {
    check("docs/tables.md", &tables());
}

#[track_caller]
#[expect(
    clippy::disallowed_methods,
    reason = "tests are told by the environment to rewrite what they compare with"
)]
fn check(file: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, expected).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{file} is not up to date: `UPDATE=1 cargo test --test it docs` rewrites it");
}

fn tables() -> String {
    let catalog = Catalog::builtin().unwrap();
    let native: BTreeSet<&str> = NativeCollector::tables().into_iter().collect();
    let lines = catalog.tables().map(|table| line(table, native.contains(table.name.as_str())));
    let priors: String = catalog.tables().map(priors).collect();
    TOP.to_owned() + &lines.collect::<String>() + PRIORS + &priors
}

fn line(table: &TableSpec, is_native: bool) -> String {
    let columns = |strength| table.identity(strength).map(|column| column.name.as_str()).collect::<Vec<_>>();
    let loose = columns(Strength::Loose);
    let strict: Vec<&str> =
        columns(Strength::Strict).into_iter().filter(|name| !loose.contains(name)).collect();
    let (name, weight) = (&table.name, table.weight);
    format!(
        "| [{name}](../schemas/{name}.toml) | {weight} | {} | {} | {} | {} | {} |\n",
        if is_native { "yes" } else { "" },
        table.attack.join(" "),
        loose.join(", "),
        strict.join(", "),
        table.description,
    )
}

fn priors(table: &TableSpec) -> String {
    let line = |prior: &PriorSpec| format!("| {} | {} | {} |\n", table.name, prior.bits, prior.says);
    table.priors.iter().map(line).collect()
}
