//! `docs/diffy.toml`, its schema and `docs/configuration.md`: complete, and true.

use std::collections::BTreeSet;
use std::fs;

use regex::Regex;
use serde_json::Value;

use crate::env::{TestEnv, root, run_python};

/// Validates TOML files against a JSON schema, and prints what is wrong with each.
const VALIDATE: &str = r#"
import json, sys, tomllib
import jsonschema
schema = json.load(open(sys.argv[1]))
validator = jsonschema.Draft202012Validator(schema)
validator.check_schema(schema)
for path in sys.argv[2:]:
    errors = [error.json_path + " " + error.message for error in validator.iter_errors(tomllib.load(open(path, "rb")))]
    print(path.split("/")[-1], "; ".join(errors) or "fits")
"#;

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// The example with the keys that it leaves out.
fn whole_example() -> String {
    Regex::new(r"(?m)^#([a-z])").unwrap().replace_all(&read("docs/diffy.toml"), "$1").into_owned()
}

fn schema_path() -> String {
    root().join("docs/schemas/diffy.toml.json").display().to_string()
}

#[test]
fn the_example_fits_the_schema_and_is_understood() {
    let env = TestEnv::new();
    env.write("as-it-is.toml", read("docs/diffy.toml"));
    env.write("whole.toml", whole_example());
    env.write("unknown.toml", "stroe = \"x\"\n[s3]\nendpiont = \"y\"\n");
    env.write("wrong.toml", "memory_limit_mib = \"much\"\n[[fleets]]\nname = \"a\"\n");
    let files = ["as-it-is.toml", "whole.toml", "unknown.toml", "wrong.toml"];
    let told = run_python(&env, VALIDATE, &[&[schema_path().as_str()][..], &files].concat());
    let told: Vec<&str> = told.lines().collect();
    assert_eq!(told[..2], ["as-it-is.toml fits", "whole.toml fits"]);
    assert!(
        told[2].contains("'stroe' was unexpected") && told[2].contains("'endpiont' was unexpected"),
        "{told:?}"
    );
    assert!(
        told[3].contains("memory_limit_mib 'much' is not") && told[3].contains("'targets' is a required"),
        "{told:?}"
    );
    // It names one.
    fs::create_dir(env.path("schemas")).unwrap();
    for file in &files[..2] {
        // The store that it names is looked for, so it was read to its end.
        let stderr = env.fails(&["--config", file, "snapshot", "list"], 2);
        assert!(stderr.contains("there is no store at `./diffy-store`"), "{file}: {stderr}");
    }
}

#[test]
fn the_example_has_every_key() {
    let schema: Value = serde_json::from_str(&read("docs/schemas/diffy.toml.json")).unwrap();
    let mut keys = BTreeSet::new();
    keys_of(&schema, "", &mut keys);
    let example: toml::Table = toml::from_str(&whole_example()).unwrap();
    let mut found = BTreeSet::new();
    keys_in(&toml::Value::Table(example), "", &mut found);
    assert_eq!(found, keys);
    let undescribed: Vec<&Value> =
        descriptions(&schema).into_iter().filter(|found| !found.is_string()).collect();
    assert!(undescribed.is_empty(), "{undescribed:?}");
}

/// `a.b` for each key, also of the tables of arrays.
fn keys_of(schema: &Value, prefix: &str, keys: &mut BTreeSet<String>) {
    let below = if schema["items"].is_object() { &schema["items"] } else { schema };
    let below = below["anyOf"]
        .as_array()
        .and_then(|any| any.iter().find(|of| of["properties"].is_object()))
        .unwrap_or(below);
    for (key, value) in below["properties"].as_object().into_iter().flatten() {
        let name = format!("{prefix}{key}");
        keys_of(value, &format!("{name}."), keys);
        keys.insert(name);
    }
}

fn keys_in(value: &toml::Value, prefix: &str, keys: &mut BTreeSet<String>) {
    for table in value.as_array().into_iter().flatten() {
        keys_in(table, prefix, keys);
    }
    for (key, value) in value.as_table().into_iter().flatten() {
        let name = format!("{prefix}{key}");
        keys_in(value, &format!("{name}."), keys);
        keys.insert(name);
    }
}

fn descriptions(schema: &Value) -> Vec<&Value> {
    let properties = schema["properties"].as_object().into_iter().flatten();
    properties.map(|(_, value)| &value["description"]).collect()
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let env = TestEnv::new();
    for (text, line, what) in [
        ("store = \"x\"\n\nstroe = \"y\"\n", 3, "unknown field `stroe`"),
        ("[aws]\nregion = \"x\"\nprofil = \"y\"\n", 3, "unknown field `profil`"),
        (
            "[[fleets]]\nname = \"a\"\ntargets = [\"local\"]\ncolector = \"x\"\n",
            4,
            "unknown field `colector`",
        ),
        ("memory_limit_mib = \"much\"\n", 1, "invalid type"),
        ("store = \"x\"\nstore = \"y\"\n", 2, "duplicate key"),
        ("\n\nstore = \n", 3, "TOML parse error"),
    ] {
        env.write("diffy.toml", text);
        let stderr = env.fails(&["snapshot", "list"], 2);
        assert!(
            stderr.contains(&format!("line {line}, column")) && stderr.contains(what),
            "{text}: {stderr}"
        );
        assert!(stderr.contains("`diffy.toml`"), "{stderr}");
    }
}

/// Variables that the source reads, as far as it reads them itself.
fn variables() -> BTreeSet<String> {
    let source = read("src/config.rs") + &read("src/config/sections.rs");
    // The only reader takes a name, or one of a list of names.
    let read = Regex::new(r#"variable\("([A-Z0-9_]+)"\)|"(AWS_[A-Z0-9_]+)""#).unwrap();
    let names = read.captures_iter(&source).filter_map(|found| found.get(1).or(found.get(2)));
    names.map(|name| name.as_str().to_owned()).collect()
}

#[test]
fn every_environment_variable_is_documented() {
    let page = read("docs/configuration.md");
    let row = Regex::new(r"(?m)^\| `([A-Z0-9_]+)` \|").unwrap();
    let documented: BTreeSet<String> = row.captures_iter(&page).map(|found| found[1].to_owned()).collect();
    let found = variables();
    assert!(found.len() > 15, "{found:?}");
    let missing: Vec<_> = found.difference(&documented).collect();
    assert!(missing.is_empty(), "not in docs/configuration.md: {missing:?}");
    let ours = documented.iter().filter(|name| name.starts_with("DIFFY_") && *name != "DIFFY_PLUGIN");
    let unread: Vec<_> = ours.filter(|name| !found.contains(*name)).collect();
    assert!(unread.is_empty(), "in docs/configuration.md, and nobody reads them: {unread:?}");
    // What help texts promise is there, too.
    let env = TestEnv::new();
    let mut help = String::new();
    for command in ["collect", "import", "analyze", "query"] {
        help += &env.ok(&[command, "--help"]);
    }
    let promised = Regex::new(r"\[env:\s+([A-Z0-9_]+)\]").unwrap();
    for name in promised.captures_iter(&help).map(|found| found[1].to_owned()) {
        assert!(documented.contains(&name), "{name}");
    }
}

#[test]
fn every_exit_status_is_documented() {
    let page = read("docs/configuration.md");
    for status in ["0", "1", "2", "3", "4"] {
        assert!(page.contains(&format!("\n| {status} | ")), "{status}");
    }
}
