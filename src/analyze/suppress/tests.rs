//! What suppressions take, and what is refused.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn day(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

fn finding(table: &str, kind: FindingKind, row: Value) -> Finding {
    let finding = json!({"id": "f1", "table": table, "kind": kind, "score": 50.0, "row": row, "hosts_with_row": 1,
        "hosts_answered": 60, "first_seen": null, "nearest": null, "given": null, "attack": [], "reason": "r",
        "method": "frequency"});
    serde_json::from_value(finding).unwrap()
}

/// `command` on so many hosts, `h0` and so on.
fn found(hosts: usize, command: &str) -> Vec<(u32, Finding)> {
    let row = json!({"command": command, "path": "/etc/crontab", "event": null, "minute": 5});
    (0..hosts).map(|host| (host as u32, finding("crontab", FindingKind::New, row.clone()))).collect()
}

fn parse(text: &str) -> Result<Suppressions> {
    Suppressions::parse(text, "known.toml")
}

fn apply(text: &str, items: Vec<(u32, Finding)>) -> Applied<(u32, Finding)> {
    let hosts: Vec<String> = (0..60).map(|host| format!("h{host}")).collect();
    parse(text).unwrap().apply(items, |(host, finding)| (*host, finding), (&hosts, day("2026-06-15")))
}

const SAID: &str = "reason = \"backup\"\nwho = \"ann\"\n";

#[track_caller]
fn takes(entry: &str, expected: bool) {
    let applied = apply(&format!("[[suppress]]\n{SAID}{entry}"), found(1, "/opt/b.sh -x"));
    assert_eq!(applied.suppressed.findings, u64::from(expected), "{entry}");
    assert_eq!(applied.kept.is_empty(), expected, "{entry}");
}

#[test]
fn a_finding_must_fit_all_that_is_said() {
    takes("table = \"crontab\"\ncolumns = { command = \"/opt/*\" }", true);
    takes("table = [\"users\", \"crontab\"]\ncolumns = { command = \"/opt/*\", minute = 5 }", true);
    takes("table = \"*\"\ncolumns = { command = \"/opt/b.sh -x\" }", true);
    takes("table = \"*\"\ncolumns = { command = \"regex:/opt/[a-c]\\\\.sh.*\" }", true);
    takes(
        "table = \"crontab\"\nhost = \"h*\"\nkind = \"new\"\ncolumns = { command = \"/opt/*\", event = \"\" }",
        true,
    );
    takes("id = \"f1\"", true);
    takes("table = \"users\"\ncolumns = { command = \"/opt/*\" }", false);
    takes("table = \"crontab\"\ncolumns = { command = \"/opt/b.sh\" }", false);
    takes("table = \"crontab\"\ncolumns = { command = \"/opt/*\", minute = 6 }", false);
    takes("table = \"crontab\"\nkind = \"missing\"\ncolumns = { command = \"/opt/*\" }", false);
    takes("table = \"crontab\"\nhost = \"web*\"\ncolumns = { command = \"/opt/*\" }", false);
    takes("table = \"crontab\"\ncolumns = { nothing = \"x*\" }", false);
    takes("id = \"f2\"", false);
}

#[test]
fn it_holds_until_the_end_of_its_day_and_then_says_what_comes_back() {
    let entry =
        format!("\n\n[[suppress]]\n{SAID}table = \"crontab\"\ncolumns = {{ command = \"/opt/*\" }}\n");
    assert_eq!(apply(&format!("{entry}until = 2026-06-15"), found(2, "/opt/a")).suppressed.findings, 2);
    let applied = apply(&format!("{entry}until = 2026-06-14"), found(2, "/opt/a"));
    assert_eq!((applied.kept.len(), applied.suppressed), (2, Suppressed::default()));
    assert_eq!(
        applied.warnings,
        ["known.toml:3: suppression expired on 2026-06-14, 2 findings back: backup"]
    );
    assert!(apply(&format!("{entry}until = 2026-06-14"), found(2, "/srv/a")).warnings.is_empty());
}

#[test]
fn what_stands_on_more_than_half_of_the_hosts_is_shown() {
    let entry = format!("[[suppress]]\n{SAID}table = \"crontab\"\ncolumns = {{ command = \"/opt/*\" }}\n");
    assert_eq!(apply(&entry, found(30, "/opt/a")).suppressed.findings, 30);
    let applied = apply(&entry, found(31, "/opt/a"));
    assert_eq!((applied.kept.len(), applied.suppressed.findings), (31, 0));
    assert!(applied.warnings[0].contains("31 of 60 hosts, more than half"), "{:?}", applied.warnings);
    assert!(!is_too_wide(2, 2) && is_too_wide(3, 3));
}

#[test]
fn what_is_left_out_is_counted_by_the_first_that_takes_it() {
    let two = format!(
        "[[suppress]]\n{SAID}table = \"crontab\"\nhost = \"h0\"\n[[suppress]]\nreason = \"all\"\nwho = \"bob\"\n\
         table = \"crontab\"\ncolumns = {{ command = \"/opt/*\" }}\nuntil = \"2030-01-01\""
    );
    let mut items = found(4, "/opt/a");
    items.push((9, finding("users", FindingKind::New, json!({"username": "x"}))));
    let applied = apply(&two, items);
    assert_eq!(applied.kept.len(), 1);
    let by: Vec<_> = applied.suppressed.by.iter().map(|by| (by.reason.as_str(), by.count)).collect();
    assert_eq!((applied.suppressed.findings, applied.suppressed.hosts), (4, 4));
    assert_eq!(by, [("all", 3), ("backup", 1)]);
    let list: Vec<_> = applied.suppressed.list.iter().map(|gone| (gone.host.as_str(), gone.by)).collect();
    assert_eq!(list, [("h0", 1), ("h1", 0), ("h2", 0), ("h3", 0)]);
}

#[test]
fn a_host_that_does_not_answer_is_left_out_by_name_only() {
    let row = json!({"tables": "users", "status": "failed"});
    let silent = || vec![(0, finding("coverage", FindingKind::Coverage, row.clone()))];
    let rule = |entry: &str| apply(&format!("[[suppress]]\n{SAID}{entry}"), silent()).suppressed.findings;
    assert_eq!(rule("table = \"*\"\ncolumns = { status = \"failed\" }"), 0);
    assert_eq!(rule("table = \"coverage\"\ncolumns = { status = \"failed\" }"), 1);
    assert_eq!(rule("id = \"f1\""), 1);
}

#[test]
fn bad_files_are_refused_with_file_line_and_key() {
    for (entry, expected) in [
        ("who = \"a\"\ntable = \"t\"\ncolumns = { a = \"b\" }", "needs `reason`"),
        ("reason = \" \"\nwho = \"a\"\ntable = \"t\"\ncolumns = { a = \"b\" }", "needs `reason`"),
        ("reason = \"r\"\ntable = \"t\"\ncolumns = { a = \"b\" }", "needs `who`"),
        (&format!("{SAID}columns = {{ a = \"b\" }}"), "needs `table` or `id`"),
        (&format!("{SAID}table = \"*\""), "takes every finding"),
        (&format!("{SAID}table = \"*\"\nhost = \"h0\""), "takes every finding"),
        (&format!("{SAID}table = \"*\"\ncolumns = {{ a = \"*\" }}"), "takes every finding"),
        (&format!("{SAID}table = \"t\""), "takes every finding of its table"),
        (&format!("{SAID}table = \"t\"\nhost = \"*\""), "takes every finding of its table"),
        (
            &format!("{SAID}table = \"t\"\ncolumns = {{ a = \"regex:(?s).*\" }}"),
            "takes every finding of its table",
        ),
        (&format!("{SAID}table = \"cron*\"\nhost = \"a\""), "key: table"),
        (&format!("{SAID}table = 3\nhost = \"a\""), "key: table"),
        (&format!("{SAID}table = \"t\"\ncolumns = {{ a = \"regex:(\" }}"), "key: a"),
        (&format!("{SAID}table = \"t\"\ncolumns = {{ a = true }}"), "key: a"),
        (&format!("{SAID}table = \"t\"\nhost = \"a\"\nkind = \"nwe\""), "there is no kind `nwe`"),
        (&format!("{SAID}table = \"t\"\nhost = \"a\"\nuntil = \"soon\""), "`soon` is no date"),
        (&format!("{SAID}table = \"t\"\nhost = \"a\"\nuntil = 2026-01-01T00:00:00Z"), "is no date"),
        (&format!("{SAID}table = \"t\"\nhost = \"a\"\ncreated = \"2026-02-30\""), "key: created"),
        (&format!("{SAID}table = \"t\"\nhost = \"a\"\nhots = \"b\""), "hots"),
    ] {
        let error = parse(&format!("# known\n\n[[suppress]]\n{entry}\n")).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("known.toml"), "{expected}: {error}");
        assert!(error.contains("line: 3") || error.contains("line "), "{expected}: {error}");
    }
    for text in ["suppres = []", "nonsense", "[[suppress]\n"] {
        assert!(parse(text).unwrap_err().hint_text().is_some_and(|hint| hint.contains("reason")), "{text}");
    }
    assert!(parse("").is_ok());
}

fn new(columns: &[(&str, &str)]) -> NewSuppression {
    NewSuppression {
        table: "crontab".to_owned(),
        kind: FindingKind::New,
        columns: columns.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        host: None,
        reason: "the \"nightly\" backup".to_owned(),
        who: "ann@ops".to_owned(),
        created: day("2026-06-15"),
        until: Some(day("2026-12-31")),
    }
}

#[test]
fn what_is_added_leaves_the_rest_as_it_was() {
    let before = "# ours\n[[suppress]]\nreason = \"r\"  # why\nwho = \"w\"\ntable = \"t\"\nhost = \"h\"";
    let after = new(&[("command", "/opt/*.sh \\ \u{202e}"), ("event", "")]).append_to(before, "f").unwrap();
    assert!(after.starts_with(before) && after.contains("until = 2026-12-31"), "{after}");
    assert!(after.contains(r"/opt/\\*.sh \\\\ \U0000202E"), "{after}");
    let mut items = found(1, "/opt/*.sh \\ \u{202e}");
    items.extend(found(1, "/opt/a.sh \\ \u{202e}"));
    assert_eq!(apply(&after, items).suppressed.findings, 1);
    assert!(new(&[("a", "b")]).append_to("suppress = []", "f").is_err());
    let mut unsaid = new(&[("a", "b")]);
    unsaid.reason = String::new();
    assert!(unsaid.append_to("", "f").is_err());
}

#[test]
fn a_row_is_known_again_by_its_identity() {
    let catalog = crate::catalog::Catalog::builtin().unwrap();
    let mut of = finding("crontab", FindingKind::New, json!({"command": "x", "minute": "5", "more": "y"}));
    let columns = identifying_columns(catalog.table("crontab"), &of);
    assert!(columns.contains(&("command".to_owned(), "x".to_owned())));
    assert!(columns.contains(&("event".to_owned(), String::new())), "unknown stays unknown: {columns:?}");
    assert!(!columns.iter().any(|(name, _)| name == "more"));
    of.given =
        serde_json::from_value(json!({"column": "more", "value": "y", "context": {"command": "x"}})).unwrap();
    let columns = identifying_columns(catalog.table("crontab"), &of);
    assert!(columns.contains(&("more".to_owned(), "y".to_owned())));
    assert_eq!(identifying_columns(None, &of).len(), 3);
    of.kind = FindingKind::Coverage;
    assert_eq!(identifying_columns(None, &of).len(), 2);
}

proptest! {
    #[test]
    fn whatever_a_host_says_can_be_suppressed_and_nothing_else_is(
        value in "(?s).{0,40}",
        other in "(?s).{0,40}",
    ) {
        let text = new(&[("command", &value)]).append_to("", "f").unwrap();
        let suppressed = apply(&text, found(1, &value)).suppressed.findings;
        prop_assert_eq!(suppressed, 1);
        prop_assert_eq!(apply(&text, found(1, &other)).suppressed.findings, u64::from(value == other));
    }

    #[test]
    fn hostile_files_never_panic(text in "(?s).{0,200}", tail in "[a-z=\\[\\]\"'{}\n*\\\\-]{0,80}") {
        let _ = parse(&text);
        let _ = parse(&format!("[[suppress]]\n{SAID}{tail}"));
    }
}
