//! Flag, then environment, then file, then default.

use serde_json::json;

use crate::env::TestEnv;

/// The store that a command looks for, when there is none anywhere.
fn store_of(env: &TestEnv, args: &[&str], variables: &[(&str, &str)]) -> String {
    let args = [args, &["snapshot", "list"]].concat();
    let stderr = env.run_with(&args, variables).stderr;
    let named = stderr.split("there is no store at `").nth(1).unwrap_or_else(|| panic!("{stderr}"));
    named.split('`').next().unwrap().to_owned()
}

#[test]
fn flag_over_environment_over_file_over_default() {
    let env = TestEnv::new();
    assert_eq!(store_of(&env, &[], &[]), "./diffy-store");
    env.write("diffy.toml", "store = \"from-file\"\n");
    assert_eq!(store_of(&env, &[], &[]), "from-file");
    let variable = [("DIFFY_STORE", "from-environment")];
    assert_eq!(store_of(&env, &[], &variable), "from-environment");
    assert_eq!(store_of(&env, &["--store", "from-flag"], &variable), "from-flag");
    assert_eq!(store_of(&env, &[], &[("DIFFY_STORE", "")]), "from-file", "an empty variable says nothing");
}

#[test]
fn the_file_may_be_named() {
    let env = TestEnv::new();
    env.write("diffy.toml", "store = \"from-file\"\n");
    env.write("other.toml", "store = \"from-other\"\n");
    env.write("third.toml", "store = \"from-third\"\n");
    let variable = [("DIFFY_CONFIG", "third.toml")];
    assert_eq!(store_of(&env, &[], &variable), "from-third");
    assert_eq!(store_of(&env, &["--config", "other.toml"], &variable), "from-other");
    let stderr = env.fails(&["--config", "nowhere.toml", "snapshot", "list"], 2);
    assert!(stderr.contains("cannot read `nowhere.toml`"), "{stderr}");
}

#[test]
fn the_fleet_has_the_same_precedence() {
    let env = TestEnv::new();
    env.write("dump/h/users.json", json!([{"username": "a"}]).to_string());
    env.write("diffy.toml", "fleet = \"from-file\"\n");
    let fleet_of = |args: &[&str], variables: &[(&str, &str)]| {
        let stdout = env.run_with(&[&["import", "dump"], args].concat(), variables).stdout;
        let line = stdout.lines().find_map(|line| line.strip_prefix("fleet")).unwrap_or_default();
        line.trim().to_owned()
    };
    assert_eq!(fleet_of(&[], &[]), "from-file");
    assert_eq!(fleet_of(&[], &[("DIFFY_FLEET", "from-environment")]), "from-environment");
    assert_eq!(fleet_of(&["--fleet", "from-flag"], &[("DIFFY_FLEET", "from-environment")]), "from-flag");
}

#[test]
fn what_settings_cannot_say_is_refused() {
    let env = TestEnv::new();
    env.write("diffy.toml", "stroe = \"x\"\n");
    let stderr = env.fails(&["snapshot", "list"], 2);
    assert!(stderr.contains("stroe") && stderr.contains("diffy.toml"), "{stderr}");
    env.write("diffy.toml", "memory_limit_mib = \"much\"\n");
    let stderr = env.fails(&["snapshot", "list"], 2);
    assert!(stderr.contains("memory_limit_mib") || stderr.contains("invalid type"), "{stderr}");
    env.write("diffy.toml", "");
    let output = env.run_with(&["snapshot", "list"], &[("DIFFY_MEMORY_LIMIT", "much")]);
    assert_eq!(output.status, 2);
    assert!(output.stderr.contains("DIFFY_MEMORY_LIMIT `much`"), "{}", output.stderr);
}

#[test]
fn a_store_may_be_a_file_url() {
    let env = TestEnv::new();
    env.write("dump/h/users.json", json!([{"username": "a"}]).to_string());
    let url = format!("file://{}", env.path("by-url").display());
    env.ok(&["import", "dump", "--fleet", "web", "--store", &url]);
    assert!(env.path("by-url/diffy-store.json").exists());
    let stderr = env.fails(&["snapshot", "list", "--store", "gopher://x/y"], 2);
    assert!(stderr.contains("`gopher://` is not supported"), "{stderr}");
}
