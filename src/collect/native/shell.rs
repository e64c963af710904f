//! Table `shell_history`: what all local users typed.

use std::path::Path;
use std::sync::LazyLock;

use regex::bytes::Regex;

use super::accounts::{self, User};
use super::context::{Context, Gathered, file_name};

/// Files in a home that shells write their history to, in osquery's order, and root's favourites after them.
const FILES: [&str; 9] = [
    ".bash_history",
    ".zsh_history",
    ".zhistory",
    ".history",
    ".sh_history",
    ".ash_history",
    ".python_history",
    ".mysql_history",
    ".psql_history",
];

static BASH_TIME: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"(?-u)^#([0-9]{1,18})$").ok());
static ZSH_TIME: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?s-u)^: {0,10}([0-9]{1,11}):[0-9]+;(.*)$").ok());

/// Table `shell_history`.
pub(super) fn shell_history(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("files");
    for user in accounts::list(context, &mut gathered) {
        let home = user.home(context);
        for name in FILES {
            read_history(context, &mut gathered, &user, &home.join(name));
        }
        for (path, _) in gathered.list(context, &home.join(".bash_sessions")) {
            if file_name(&path).ends_with(b".history") {
                read_history(context, &mut gathered, &user, &path);
            }
        }
    }
    gathered
}

fn read_history(context: &Context, gathered: &mut Gathered, user: &User, path: &Path) {
    let text = gathered.read_own(context, path).unwrap_or_default();
    let mut time = Vec::new();
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        if !gathered.goes_on(context) {
            return;
        }
        let bash = BASH_TIME.as_ref().and_then(|pattern| pattern.captures(line));
        if let Some(found) = bash.filter(|_| time.is_empty()) {
            time = found[1].to_vec();
            continue;
        }
        let zsh = ZSH_TIME.as_ref().and_then(|pattern| pattern.captures(line)).filter(|_| time.is_empty());
        let (at, command) = match &zsh {
            Some(found) => (found[1].to_vec(), found.get(2).map_or(&b""[..], |part| part.as_bytes())),
            None if time.is_empty() => (b"0".to_vec(), line),
            None => (std::mem::take(&mut time), line),
        };
        gathered.rows.push(|row| {
            row.show("uid", user.uid).text("username", &user.name).text("time", at);
            row.text("command", command).text("history_file", context.shown(path));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::context::tests::{context, host, rows};
    use super::*;

    #[test]
    fn histories_of_bash_and_zsh_keep_their_times() {
        let dir = host(&[
            ("etc/passwd", b"bob:x:1000:1000::/home/bob:/bin/sh\n"),
            ("home/bob/.bash_history", b"ls\n#1700000000\nid; # x\n#5\n#comment\n\nlast"),
            ("home/bob/.zsh_history", b": 1700000001:0;curl x\nplain\n"),
        ]);
        let found = rows(shell_history(&context(dir.path())));
        let got: Vec<(&str, &str)> = found
            .iter()
            .map(|row| (row["time"].as_str().unwrap(), row["command"].as_str().unwrap()))
            .collect();
        assert_eq!(
            got,
            [
                ("0", "ls"),
                ("1700000000", "id; # x"),
                ("5", "#comment"),
                ("0", "last"),
                ("1700000001", "curl x"),
                ("0", "plain")
            ]
        );
    }
}
