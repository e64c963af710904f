//! Tables about scheduled commands.

use std::os::unix::fs::MetadataExt;

use super::context::{Context, Gathered, lines, words};
use super::files;
use super::rows::Row;

/// Directories of crontabs, in osquery's order.
const TABS: [&str; 3] = ["/etc/cron.d", "/var/spool/cron", "/var/spool/cron/crontabs"];

/// Directories of scripts, which osquery's `crontab` does not read.
const SCRIPTS: [&str; 4] = ["hourly", "daily", "weekly", "monthly"];

/// Table `crontab`; as in osquery the user of a system crontab is the first word of `command`.
pub(super) fn crontab(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("files");
    let mut tabs = vec![context.path("/etc/crontab")];
    for dir in TABS {
        let listed = gathered.list(context, &context.path(dir));
        tabs.extend(listed.into_iter().filter(|(_, metadata)| !metadata.is_dir()).map(|(path, _)| path));
    }
    for tab in tabs {
        if !gathered.goes_on(context) {
            break;
        }
        let text = gathered.read(context, &tab).unwrap_or_default();
        for line in lines(&text).filter(|line| !line.starts_with(b"#")) {
            let Some((when, command)) = schedule(line) else { continue };
            gathered.rows.push(|row| {
                schedule_columns(row, &when);
                row.text("command", command).text("path", context.shown(&tab));
            });
        }
    }
    gathered
}

/// The one or five words that say when, and the command with single blanks; `None` for a line without a command.
fn schedule(line: &[u8]) -> Option<(Vec<&[u8]>, Vec<u8>)> {
    let mut words: Vec<&[u8]> = words(line).collect();
    let when = if line.starts_with(b"@") { 1 } else { 5 };
    if words.len() <= when {
        return None;
    }
    let command = words.split_off(when).join(&b' ');
    Some((words, command))
}

fn schedule_columns(row: &mut Row<'_>, when: &[&[u8]]) {
    let event = if let [event] = when { event } else { &b""[..] };
    row.text("event", event);
    let columns = ["minute", "hour", "day_of_month", "month", "day_of_week"];
    for (at, column) in columns.into_iter().enumerate() {
        let part = if event.is_empty() { when.get(at) } else { None };
        row.text(column, part.copied().unwrap_or_default());
    }
}

/// Table `cron_scripts`, our own: the scripts that run hourly, daily, weekly and monthly.
pub(super) fn cron_scripts(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("files");
    for schedule in SCRIPTS {
        let dir = context.path(format!("/etc/cron.{schedule}"));
        for (path, link) in gathered.list(context, &dir) {
            let metadata = std::fs::metadata(&path).unwrap_or(link);
            if !metadata.is_file() || !gathered.goes_on(context) {
                continue;
            }
            let digests = gathered.attempt(context, &path, files::digests(context, &path));
            gathered.rows.push(|row| {
                row.text("path", context.shown(&path)).text("schedule", schedule);
                row.text("mode", files::mode(&metadata)).show("uid", metadata.uid());
                row.show("gid", metadata.gid()).show("size", metadata.size()).show("mtime", metadata.mtime());
                row.known("sha256", digests.flatten().map(|digests| digests.sha256));
            });
        }
    }
    gathered
}

#[cfg(test)]
mod tests {
    use super::super::context::tests::{context, host, rows};
    use super::*;

    #[test]
    fn crontabs_are_read_as_osquery_does() {
        let dir = host(&[
            ("etc/crontab", b"SHELL=/bin/sh\n# no\n17 *\t* * *  root  cd / &&  run\n"),
            ("etc/cron.d/a", b"  @reboot root /x\n@daily\n1 2 3 4 5\n"),
            ("var/spool/cron/crontabs/bob", b"* * * * * \xff\n"),
        ]);
        let (_, json, _) = crontab(&context(dir.path())).finish();
        let text = String::from_utf8_lossy(&json).replace('\u{fffd}', "?");
        let rows: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        let got: Vec<(&str, &str, &str)> = rows
            .iter()
            .map(|row| {
                (
                    row["event"].as_str().unwrap(),
                    row["minute"].as_str().unwrap(),
                    row["command"].as_str().unwrap(),
                )
            })
            .collect();
        assert_eq!(got, [("", "17", "root cd / && run"), ("@reboot", "", "root /x"), ("", "*", "?")]);
        assert_eq!(rows[2]["path"], "/var/spool/cron/crontabs/bob");
    }

    #[test]
    fn cron_scripts_come_with_their_content() {
        let dir = host(&[("etc/cron.daily/x", b"#!/bin/sh\n"), ("etc/cron.daily/.placeholder", b"")]);
        let found = rows(cron_scripts(&context(dir.path())));
        assert_eq!(found.len(), 2);
        assert_eq!((&found[1]["schedule"], &found[1]["size"]), (&"daily".into(), &"10".into()));
        assert_eq!(found[0]["sha256"], "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
