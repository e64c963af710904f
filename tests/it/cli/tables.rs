//! `diffy tables`, and schemas that users bring.

use serde_json::json;

use crate::env::TestEnv;

#[test]
fn every_declared_table_is_listed_and_shown() {
    let env = TestEnv::new();
    let list = env.ok(&["tables", "list"]);
    let names: Vec<&str> = list.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert!(names.len() >= 44, "{} tables", names.len());
    for table in ["processes", "crontab", "cron_scripts", "authorized_keys", "suid_bin"] {
        assert!(names.contains(&table), "{table}");
    }
    for table in names {
        let shown = env.ok(&["tables", "show", table]);
        for expected in ["query ", "loose id ", "strict id ", "ATT&CK "] {
            assert!(shown.contains(expected), "{table}: {shown}");
        }
    }
    let stderr = env.fails(&["tables", "show", "proceses"], 2);
    assert!(stderr.contains("did you mean `processes`?"), "{stderr}");
}

#[test]
fn one_table_in_full() {
    insta::assert_snapshot!(TestEnv::new().ok(&["tables", "show", "users"]));
}

const PETS: &str = r#"
name = "pets"
description = "Pets that live on the host."
platforms = ["linux"]
weight = 0.5
attack = []
query = "SELECT * FROM pets"

[[column]]
name = "name"
type = "text"
role = "identity"
description = "What it is called."

[[column]]
name = "legs"
type = "integer"
role = "context"
description = "How many it stands on."
"#;

#[test]
fn a_directory_of_schemas_adds_tables_and_replaces_them() {
    let env = TestEnv::new();
    env.write("mine/pets.toml", PETS);
    let shown = env.ok(&["--schemas", "mine", "tables", "show", "pets"]);
    assert!(shown.contains("Pets that live on the host."), "{shown}");
    env.write("dump/h/pets.json", json!([{"name": "rex", "legs": "4"}]).to_string());
    let output = env.run(&["--schemas", "mine", "import", "dump", "--fleet", "web"]);
    assert!(!output.stderr.contains("no schema"), "{}", output.stderr);
    let legs =
        env.json(&["--schemas", "mine", "query", "--format", "json", "SELECT legs + 1 AS n FROM pets"]);
    assert_eq!(legs, json!([{"n": 5}]), "a number, because the schema says so");
    env.write("other/users.toml", PETS.replace("\"pets\"", "\"users\""));
    let shown = env.ok(&["tables", "show", "users", "--schemas", "other"]);
    assert!(shown.contains("Pets that live") && !shown.contains("gid"), "{shown}");
}

#[test]
fn a_bad_schema_is_named_with_its_line() {
    let env = TestEnv::new();
    for (toml, expected) in [
        ("name = \"pets\"\n".to_owned(), "missing field"),
        ("bad toml".to_owned(), "line 1"),
        (PETS.replace("\"context\"", "\"decoration\""), "decoration"),
        (PETS.replace("name = \"pets\"", "name = \"../pets\""), "../pets"),
        (PETS.replace("name = \"legs\"", "name = \"name\""), "name"),
        (format!("colour = \"red\"\n{PETS}"), "colour"),
    ] {
        env.write("mine/pets.toml", toml);
        let stderr = env.fails(&["tables", "list", "--schemas", "mine"], 2);
        assert!(stderr.contains(expected) && stderr.contains("pets.toml"), "{expected}: {stderr}");
    }
    let stderr = env.fails(&["tables", "list", "--schemas", "nowhere"], 2);
    assert!(stderr.contains("cannot read `nowhere`"), "{stderr}");
}
