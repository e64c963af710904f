//! Pages that are made from the source: `UPDATE=1 cargo test --test it docs` rewrites them.

// Elsewhere the native collector has no tables.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use diffy::catalog::{Catalog, PriorSpec, Queries, QuerySpec, Strength, TableSpec};
use diffy::collect::native::NativeCollector;
use diffy::model::Analysis;
use diffy::report::analysis::Flat;
use diffy::report::schemas::schema_of;
use diffy::store::Manifest;
use regex::Regex;
use serde_json::Value;

use crate::env::root;
use crate::tidy::files;

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

const HUNTS: &str = "\
# Saved queries

Made from `sql/analyze/*.sql`; `UPDATE=1 cargo test --test it docs` rewrites it.
`diffy query --name NAME` asks one of the newest snapshots; `--param max_hosts=5` sets what the last column names, and \
`diffy query --list` prints all of them.
What each says of a harmless fleet is part of the answer: read *false positives* before you wake anybody.

| Query | Question | ATT&CK | False positives | Parameters |
| --- | --- | --- | --- | --- |
";

#[test]
fn the_page_of_saved_queries_is_what_the_files_say() {
    let queries = Queries::builtin().unwrap();
    check("docs/hunts.md", &(HUNTS.to_owned() + &queries.iter().map(hunt).collect::<String>()));
}

fn hunt(query: &QuerySpec) -> String {
    let cell = |text: &str| text.replace('|', "\\|");
    let is_technique = |text: &&String| text.starts_with('T') && text[1..2].parse::<u8>().is_ok();
    let techniques: Vec<&str> = query.references.iter().filter(is_technique).map(String::as_str).collect();
    let params: Vec<String> = query.params.iter().map(|param| format!("`{}`", param.name)).collect();
    format!(
        "| [{name}](../sql/analyze/{name}.sql) | {} | {} | {} | {} |\n",
        cell(&query.sentence),
        techniques.join(" "),
        cell(&query.false_positives),
        params.join(" "),
        name = query.name,
    )
}

#[test]
fn the_document_for_ssm_runs_the_script() {
    check("docs/aws/diffy-collect.json", &diffy::collect::remote::document());
}

#[test]
fn the_schemas_are_those_of_the_types() {
    for (file, schema) in [
        ("analysis.json", schema_of::<Analysis>("What `diffy analyze --format json` prints")),
        ("finding.json", schema_of::<Flat<'_>>("A line of `diffy analyze --format ndjson`")),
        ("manifest.json", schema_of::<Manifest>("The manifest of a snapshot in a store")),
    ] {
        check(&format!("docs/schemas/{file}"), &schema);
    }
}

/// Requests that are named in logs, and go by the permission for another one.
const COVERED: [(&str, &str); 3] = [
    ("s3:CreateMultipartUpload", "s3:PutObject"),
    ("s3:UploadPart", "s3:PutObject"),
    ("s3:CompleteMultipartUpload", "s3:PutObject"),
];

#[test]
fn each_file_for_aws_is_json_and_explained() {
    let page = fs::read_to_string(root().join("docs/aws.md")).unwrap();
    for path in files(&root().join("docs/aws")) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(page.contains(&format!("](aws/{name})")), "docs/aws.md does not link {name}");
        for statement in json["Statement"].as_array().into_iter().flatten() {
            let sid = statement["Sid"].as_str().unwrap();
            assert!(page.contains(&format!("| `{sid}`")), "docs/aws.md does not explain `{sid}` of {name}");
        }
    }
}

#[test]
fn who_collects_may_do_what_the_source_does_and_no_more() {
    let action = Regex::new(r#""((?:autoscaling|s3|ssm|sts):[A-Z][A-Za-z0-9]+)""#).unwrap();
    let mut done = BTreeSet::new();
    for path in files(&root().join("src")) {
        let text = fs::read_to_string(&path).unwrap_or_default();
        done.extend(action.captures_iter(&text).map(|found| found[1].to_owned()));
    }
    for (request, permission) in COVERED {
        assert!(done.remove(request) && done.contains(permission), "{request}");
    }
    let policy = fs::read_to_string(root().join("docs/aws/controller-policy.json")).unwrap();
    let allowed: BTreeSet<String> = action.captures_iter(&policy).map(|found| found[1].to_owned()).collect();
    assert_eq!(done, allowed);
}

#[track_caller]
#[expect(
    clippy::disallowed_methods,
    reason = "tests are told by the environment to rewrite what they compare with"
)]
fn check(file: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
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
