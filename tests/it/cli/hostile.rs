//! A written fleet of which one host tries everything with its values, for tests of what is shown.

use serde_json::{Value, json};

use crate::env::TestEnv;

/// The host that differs.
pub(super) const HOSTILE: &str = "web-07";
/// The one whose name is wide.
pub(super) const WIDE: &str = "ウェブ-🦀";

/// Values that would move the cursor, reorder or hide text, end a quotation, or become a formula, a link or a command.
fn values() -> [(&'static str, String); 9] {
    [
        ("eve\u{202e}toor", "/home/\u{1b}[2J\u{1b}]0;owned\u{7}eve".to_owned()),
        ("zero\u{200b}\u{feff}width", "/home/tab\tand\nline".to_owned()),
        ("=HYPERLINK(\"https://evil.example\")", "@SUM(1+1)*cmd|' /C calc'!A0".to_owned()),
        ("'; DROP TABLE users; --", "$(touch owned) `touch owned` \\\" !! SQL".to_owned()),
        ("[click](https://evil.example) {0}", "<script>alert(1)</script>".to_owned()),
        ("日本語のユーザー", "/home/日本語/とても長い道/本当に長い/まだ続く/終わり".to_owned()),
        ("👩\u{200d}💻🇩🇪👍🏽", "/home/👩\u{200d}💻".to_owned()),
        ("tag\u{e0041}\u{fe0f}\u{2066}x\u{2069}", "soft\u{ad}hyphen e\u{301}".to_owned()),
        ("long", format!("/srv/{}/end", "a-rather-long-directory-name/".repeat(12))),
    ]
}

/// Forty hosts with the same users; [`HOSTILE`] has more.
pub(super) fn fleet() -> TestEnv {
    let env = TestEnv::new();
    let user = |name: &str, home: &str| json!({"username": name, "uid": "0", "gid": "0", "directory": home, "shell": "/bin/sh"});
    let names = (0..39).map(|number| format!("web-{number:02}")).chain([WIDE.to_owned()]);
    let names: Vec<String> = names.collect();
    let mut tables: Vec<(&str, &str, Value)> = Vec::new();
    for host in &names {
        let mut users = vec![user("root", "/root"), user("daemon", "/usr/sbin")];
        match host.as_str() {
            HOSTILE => users.extend(values().iter().map(|(name, home)| user(name, home))),
            WIDE => users.push(user("=1+1", "/home/one")),
            _ => {}
        }
        tables.push((host, "users", Value::Array(users)));
        tables.push((host, "etc_hosts", json!([{"address": "127.0.0.1", "hostnames": "localhost"}])));
    }
    // One that answers only in part.
    tables.retain(|(host, table, _)| (*host, *table) != ("web-11", "etc_hosts"));
    env.import_tables(&tables);
    env
}

/// Lines without what follows the width of a terminal.
pub(super) fn squeezed(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}
