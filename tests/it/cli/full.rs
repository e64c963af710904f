//! What people see on a terminal: nothing passes its edge, nothing deceives, and what is cut is one command away.

use diffy::report::escape::{deceives, escape, width};
use regex::Regex;
use serde_json::Value;

use super::hostile::{HOSTILE, WIDE, fleet, squeezed};
use crate::env::TestEnv;

const WIDTHS: [usize; 3] = [80, 120, 200];

/// stdout of `diffy` on a terminal so wide, without colour.
#[track_caller]
fn at(env: &TestEnv, columns: usize, args: &[&str]) -> String {
    let output = env.run_with(args, &[("COLUMNS", &columns.to_string())]);
    assert_eq!(output.status, 0, "diffy {args:?}\n{}\n{}", output.stdout, output.stderr);
    output.stdout
}

/// Without what differs from run to run.
fn scrub(env: &TestEnv, text: &str) -> String {
    Regex::new(r"\d\d:\d\d UTC").unwrap().replace_all(&env.scrub(text), "[TIME]").into_owned()
}

#[track_caller]
fn assert_fits(text: &str, columns: usize) {
    for line in text.lines() {
        assert!(width(line) <= columns, "{columns}: {} {line:?}", width(line));
        assert!(!line.chars().any(deceives), "{line:?}");
    }
}

fn findings(env: &TestEnv, host: &str) -> Vec<Value> {
    let analysis = env.json(&["analyze", "--format", "json"]);
    let hosts = analysis["hosts"].as_array().unwrap();
    hosts.iter().find(|found| found["host"] == host).unwrap()["findings"].as_array().unwrap().clone()
}

#[test]
fn an_analysis_fits_every_terminal() {
    let env = fleet();
    for columns in WIDTHS {
        let text = at(&env, columns, &["analyze"]);
        assert_fits(&text, columns);
        insta::assert_snapshot!(format!("analyze-{columns}"), scrub(&env, &text));
    }
}

#[test]
fn answers_to_queries_fit_every_terminal_and_stay_in_their_columns() {
    let env = fleet();
    let sql = "SELECT host, username, uid, directory, shell FROM users WHERE username NOT IN ('root', 'daemon') \
               ORDER BY host, username";
    for columns in WIDTHS {
        let text = at(&env, columns, &["query", sql]);
        assert_fits(&text, columns);
        let widths: Vec<usize> = text.lines().map(width).collect();
        assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "{columns}: {widths:?}\n{text}");
        insta::assert_snapshot!(format!("query-{columns}"), text);
    }
    // More columns than fit: one value a line.
    let all = at(&env, 80, &["query", "SELECT * FROM users WHERE username = 'long'"]);
    assert_fits(&all, 80);
    assert!(all.starts_with("── row 1"), "{all}");
}

#[test]
fn one_host_is_shown_in_full() {
    let env = fleet();
    for columns in WIDTHS {
        let text = at(&env, columns, &["analyze", "--host", HOSTILE]);
        assert_fits(&text, columns);
        assert!(!text.contains('…'), "nothing is cut: {text}");
        for finding in findings(&env, HOSTILE) {
            assert!(text.contains(finding["id"].as_str().unwrap()));
        }
        insta::assert_snapshot!(format!("host-{columns}"), scrub(&env, &text));
    }
    assert_fits(&at(&env, 80, &["analyze", "--host", WIDE]), 80);
    let quiet = at(&env, 80, &["analyze", "--host", "web-00"]);
    assert!(quiet.contains("No findings."), "{quiet}");
    let partly = at(&env, 80, &["analyze", "--host", "web-11"]);
    assert!(partly.contains("answered       1 of 2 tables") && partly.contains("etc_hosts"), "{partly}");
}

/// Each value of each finding stands in its view, and the commands in it do what they say.
#[test]
fn one_finding_is_shown_in_full_and_its_commands_work() {
    let env = fleet();
    let mut shown = 0;
    for finding in [findings(&env, HOSTILE), findings(&env, WIDE)].concat() {
        let id = finding["id"].as_str().unwrap();
        let text = at(&env, 80, &["analyze", "--finding", id]);
        assert!(!text.chars().any(|c| c != '\n' && deceives(c)), "{text}");
        for value in finding["row"].as_object().unwrap().values().filter_map(Value::as_str) {
            // Quoted where its ends would not be seen; no column beside it here, for users have a common row.
            let is_there = text.lines().any(|line| line.contains(&*escape(value)));
            assert!(is_there || width(&escape(value)) > 20, "{value:?} in {text}");
        }
        let command = text.split_once("diffy query").unwrap().1.lines().next().unwrap();
        let output = env.sh(&format!("$DIFFY query --format json{command}"));
        let rows: Vec<Value> = serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {command}{}", output.stderr));
        assert_eq!(rows.len(), 1, "{command}");
        for (name, value) in finding["row"].as_object().unwrap() {
            assert_eq!(&rows[0][name], value, "{name}");
        }
        let line = text.lines().find(|line| line.starts_with("diffy analyze")).unwrap();
        let output = env.sh(&line.replacen("diffy", "$DIFFY", 1));
        assert_eq!(output.status, 0, "{line}\n{}", output.stderr);
        shown += 1;
    }
    assert!(shown >= 10, "{shown}");
    assert!(!env.path("owned").exists(), "a value ran as a command");
    let suppressed = at(&env, 80, &["analyze", "--suppress", "known.toml"]);
    assert!(suppressed.contains("are suppressed: "), "{suppressed}");
    // What is suppressed can still be looked at.
    let id = findings(&env, WIDE)[0]["id"].as_str().unwrap().to_owned();
    let text = at(&env, 80, &["analyze", "--suppress", "known.toml", "--finding", &id]);
    assert!(text.contains("suppressed     WHY (tester@"), "{text}");
}

#[test]
fn a_finding_beside_the_common_row() {
    let env = fleet();
    let finding = &findings(&env, WIDE)[0];
    for columns in [80, 120] {
        let text = at(&env, columns, &["analyze", "--finding", finding["id"].as_str().unwrap()]);
        insta::assert_snapshot!(format!("finding-{columns}"), scrub(&env, &text));
    }
    let long =
        findings(&env, HOSTILE).into_iter().find(|finding| finding["row"]["username"] == "long").unwrap();
    let text = squeezed(&at(&env, 400, &["analyze", "--finding", long["id"].as_str().unwrap()]));
    assert!(!text.contains('…'), "{text}");
}

#[test]
fn a_pipe_has_no_colour_unless_somebody_wants_it() {
    let env = fleet();
    let id = findings(&env, HOSTILE)[0]["id"].as_str().unwrap().to_owned();
    let colour = Regex::new("\u{1b}\\[[0-9;]*m").unwrap();
    for args in [&["analyze"][..], &["analyze", "--host", HOSTILE], &["analyze", "--finding", &id]] {
        let mut command = env.diffy(args);
        command.env_remove("NO_COLOR");
        assert!(!crate::env::finish(command).stdout.contains('\u{1b}'), "{args:?}");
        let coloured = env.ok(&[&["--color", "always"], args].concat());
        let plain = colour.replace_all(&coloured, "").into_owned();
        assert!(coloured.contains('\u{1b}') && !plain.contains('\u{1b}'), "{args:?}");
        let trimmed: Vec<&str> = plain.lines().map(str::trim_end).collect();
        assert_eq!(trimmed, env.ok(args).lines().collect::<Vec<_>>());
    }
}

#[test]
fn what_is_not_there_is_said_with_what_looks_alike() {
    let env = fleet();
    let id = findings(&env, WIDE)[0]["id"].as_str().unwrap().to_owned();
    let mut typo = id.clone();
    typo.replace_range(14..16, if id.ends_with('0') { "1f" } else { "00" });
    for (args, expected) in [
        (["--host", "web-7"], "did you mean `web-0"),
        (["--host", "nothing like it"], "lists the hosts"),
        (["--finding", &typo], &format!("did you mean `{id}`")),
        (["--finding", "zz\u{1b}"], "there is no finding `zz"),
    ] {
        let stderr = env.fails(&[&["analyze"], &args[..]].concat(), 2);
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
    }
    assert!(at(&env, 80, &["analyze", "--finding", &id[..8]]).contains(&id));
    let stderr = env.fails(&["analyze", "--host", WIDE, "--finding", &id], 2);
    assert!(stderr.contains("cannot be used with"), "{stderr}");
}
