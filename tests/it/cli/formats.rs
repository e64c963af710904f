//! What programs read: each format is held against its schema by a validator of another make.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::hostile;
use crate::env::{TestEnv, python, root, run_python};

/// Releases of OCSF from the one that events name.
const OCSF: [&str; 6] = ["1.3.0", "1.4.0", "1.5.0", "1.6.0", "1.7.0", "1.8.0"];

/// What `tests/formats/validate.py` prints, or `Err` with what is wrong.
fn validate(env: &TestEnv, args: &[&str]) -> Result<String, String> {
    let mut command = env.program(python());
    command.arg(root().join("tests/formats/validate.py")).args(args);
    let output = crate::env::finish(command);
    if output.status == 0 { Ok(output.stdout) } else { Err(output.stderr) }
}

fn schema(name: &str) -> String {
    root().join("docs/schemas").join(name).to_str().unwrap().to_owned()
}

/// The first and the last of them.
const SOME_OCSF: [&str; 2] = [OCSF[0], OCSF[5]];

/// A simulated fleet with everything that an analysis has, a hostile one, one that lacks nearly everything.
fn fleets() -> Vec<(TestEnv, Vec<&'static str>)> {
    let simulated = TestEnv::new();
    simulated.import_fleet(40, 2, 3);
    simulated.ok(&["baseline", "create", "known"]);
    simulated.import_fleet(40, 3, 4);
    let hostile = hostile::fleet();
    let known = "[[suppress]]\ntable = \"users\"\nreason = \"a {test} [x](y)\"\nwho = \"ann\"\nuntil = 2999-12-31\n\
                 [suppress.columns]\nusername = \"long\"\n";
    hostile.write("known.toml", known);
    let quiet = TestEnv::new();
    quiet.import_tables(&[("a", "users", json!([{"username": "root"}]))]);
    vec![
        (simulated, vec![]),
        (hostile, vec!["--suppress", "known.toml", "--show-suppressed"]),
        (quiet, vec![]),
    ]
}

fn written(env: &TestEnv, args: &[&str], format: &str) -> String {
    let file = format!("out.{format}");
    env.ok(&[&["analyze", "--format", format, "-o", &file], args].concat());
    file
}

#[test]
fn every_format_fits_its_schema() {
    for (at, (env, args)) in fleets().into_iter().enumerate() {
        let releases = if at == 0 { &OCSF[..] } else { &SOME_OCSF };
        let (json, lines) = (written(&env, &args, "json"), written(&env, &args, "ndjson"));
        validate(&env, &["json", &schema("analysis.json"), &json]).unwrap();
        validate(&env, &["lines", &schema("finding.json"), &lines]).unwrap();
        validate(&env, &["sarif", &written(&env, &args, "sarif")]).unwrap();
        let events = written(&env, &args, "ocsf");
        validate(&env, &[&["ocsf", events.as_str()], releases].concat()).unwrap();
        for manifest in crate::tidy::files(&env.store().join("snapshots")) {
            validate(&env, &["json", &schema("manifest.json"), manifest.to_str().unwrap()]).unwrap();
        }
    }
}

#[test]
fn one_host_and_one_finding_fit_the_schemas_too() {
    let env = hostile::fleet();
    let id = env.json(&["analyze", "--format", "json"])["hosts"][0]["findings"][0]["id"].clone();
    for args in [["--host", hostile::WIDE], ["--finding", id.as_str().unwrap()]] {
        let json = written(&env, &args, "json");
        validate(&env, &["json", &schema("analysis.json"), &json]).unwrap();
        validate(&env, &["sarif", &written(&env, &args, "sarif")]).unwrap();
        let narrowed: Value = serde_json::from_slice(&std::fs::read(env.path(&json)).unwrap()).unwrap();
        assert_eq!(narrowed["hosts"].as_array().unwrap().len(), 1);
        assert_eq!(narrowed["hosts_total"], 40, "counts are those of the whole fleet");
    }
}

/// A validator that takes everything would prove nothing.
#[test]
fn the_validators_find_what_is_wrong() {
    let env = hostile::fleet();
    let json: Value = env.json(&["analyze", "--format", "json"]);
    let with = |change: &dyn Fn(&mut Value)| {
        let mut broken = json.clone();
        change(&mut broken);
        env.write("broken.json", broken.to_string());
        validate(&env, &["json", &schema("analysis.json"), "broken.json"]).unwrap_err()
    };
    assert!(with(&|json| json["surprise"] = json!(1)).contains("surprise"));
    assert!(with(&|json| json["hosts"][0]["verdict"] = json!("guilty")).contains("guilty"));
    assert!(with(&|json| json["collected_at"] = json!("yesterday")).contains("yesterday"));
    assert!(with(&|json| _ = json.as_object_mut().unwrap().remove("fleet")).contains("fleet"));
    let mut log: Value = env.json(&["analyze", "--format", "sarif"]);
    log["runs"][0]["results"][0]["level"] = json!("fatal");
    env.write("broken.sarif", log.to_string());
    assert!(validate(&env, &["sarif", "broken.sarif"]).unwrap_err().contains("fatal"));
    let events = env.ok(&["analyze", "--format", "ocsf"]);
    let mut event: Value = serde_json::from_str(events.lines().next().unwrap()).unwrap();
    event["severity_id"] = json!(7);
    env.write("broken.ocsf", format!("{event}\n"));
    assert!(validate(&env, &["ocsf", "broken.ocsf", "1.3.0"]).unwrap_err().contains("7 is not one of"));
}

#[test]
fn every_format_has_the_same_findings_and_the_same_values() {
    let env = hostile::fleet();
    let json = env.json(&["analyze", "--format", "json"]);
    let findings =
        json["hosts"].as_array().unwrap().iter().flat_map(|host| host["findings"].as_array().unwrap());
    let findings: Vec<&Value> = findings.collect();
    assert!(findings.len() >= 10, "{} findings", findings.len());
    let log = env.json(&["analyze", "--format", "sarif"]);
    let results = log["runs"][0]["results"].as_array().unwrap();
    let in_log: Vec<&Value> = results.iter().map(|result| &result["properties"]["finding"]).collect();
    assert_eq!(in_log, findings);
    let events = env.ok(&["analyze", "--format", "ocsf"]);
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_events: Vec<(&Value, &Value)> = events
        .iter()
        .map(|event| (&event["finding_info"]["uid"], &event["evidences"][0]["data"]["row"]))
        .collect();
    let expected: Vec<(&Value, &Value)> =
        findings.iter().map(|finding| (&finding["id"], &finding["row"])).collect();
    assert_eq!(of_events, expected);
}

/// No format puts a character on a terminal that shows as something else.
#[test]
fn text_formats_are_safe_to_print() {
    let env = hostile::fleet();
    for format in ["table", "json", "ndjson", "csv", "sarif", "ocsf"] {
        let text = env.ok(&["analyze", "--format", format]);
        let bad = text.chars().find(|c| !['\n', '\t'].contains(c) && diffy::report::escape::deceives(*c));
        assert_eq!(bad, None, "{format}");
    }
}

#[test]
fn no_cell_of_csv_is_a_formula_and_parquet_has_the_values() {
    let env = hostile::fleet();
    let query = "SELECT username, directory FROM users ORDER BY username, directory";
    for (args, file) in [(&["analyze"][..], "a"), (&["query", query], "q")] {
        for format in ["csv", "parquet"] {
            env.ok(&[args, &["--format", format, "-o", &format!("{file}.{format}")]].concat());
        }
    }
    let program = "import csv, sys, duckdb
for name in ['a', 'q']:
    rows = list(csv.reader(open(name + '.csv', encoding='utf-8', newline='')))
    assert len(rows) > 40 and len({len(row) for row in rows}) == 1
    bad = [cell for row in rows for cell in row if cell.strip(' ')[:1] in tuple('=+-@\\t\\r\\n') and cell]
    assert not bad, bad
    stored = duckdb.sql(f\"SELECT count(*) FROM '{name}.parquet'\").fetchone()[0]
    assert stored == len(rows) - 1
names = {row[0] for row in duckdb.sql(\"SELECT username FROM 'q.parquet'\").fetchall()}
assert 'eve\\u202etoor' in names and '=1+1' in names, names
print('ok')";
    assert_eq!(run_python(&env, program, &[]), "ok\n");
}

/// What Unicode says must not be shown as it is, by Python's tables.
#[test]
fn all_that_deceives_is_known() {
    let env = TestEnv::new();
    let program = "import sys, unicodedata
for code in range(0x110000):
    if unicodedata.category(chr(code)) in ('Cc', 'Cf', 'Co', 'Zl', 'Zp'):
        print(code)";
    let listed = run_python(&env, program, &[]);
    let codes: BTreeSet<u32> = listed.lines().map(|line| line.parse().unwrap()).collect();
    assert!(codes.len() > 130_000, "{}", codes.len());
    let missed: Vec<u32> = codes
        .into_iter()
        .filter(|code| char::from_u32(*code).is_some_and(|c| !diffy::report::escape::deceives(c)))
        .collect();
    assert_eq!(missed, Vec::<u32>::new());
}

#[test]
fn formats_of_analyses_are_none_of_rows() {
    let env = hostile::fleet();
    for format in ["sarif", "ocsf"] {
        let stderr = env.fails(&["query", "--format", format, "-o", "out", "SELECT 1"], 2);
        assert!(stderr.contains("is a format of analyses, not of rows"), "{stderr}");
        assert!(!Path::new(&env.path("out")).exists());
    }
}
