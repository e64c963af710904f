//! Why a host gave no answer, in words: what `ssh` and the host's shell say, and what to do about it.

use super::Refusal;
use super::session::{End, Heard};
use crate::collect::remote::{Agent, Manifest, Via, said};
use crate::model::Status;

/// The status with which `ssh` says that the failure is its own.
const SSH_FAILED: i32 = 255;

/// What `ssh` says when it could not connect or log in, and what that means. The first that is found counts; none of
/// them advises to believe a key that nobody has checked.
const SSH_SAYS: [(&[&str], &str); 16] = [
    (&[" closed by remote host."], "the connection broke right after the login"),
    (
        &["has changed and you have requested strict checking", "REMOTE HOST IDENTIFICATION HAS CHANGED"],
        "its host key is another one than known_hosts has: a new installation, or somebody in between; nothing was sent; compare the fingerprint with the console's or the image's before that line is replaced",
    ),
    (
        &["host key is known for"],
        "known_hosts has no key for it, and nothing was sent; `ssh-keyscan HOST | ssh-keygen -lf -` shows what it offers: compare that with its console or your inventory, then add it to known_hosts",
    ),
    (
        &["Host key verification failed", "key is revoked"],
        "its host key, or that of a jump host, is not trusted; `ssh HOST true` says which, nothing was sent",
    ),
    (
        &["Too many authentication failures"],
        "login refused: the agent offers too many keys; name the one with `IdentityFile` and `IdentitiesOnly yes` in the SSH configuration",
    ),
    (
        &["Permission denied"],
        "login refused: is the user right (`user@host`), and is the key in the agent (`ssh-add -l`)?",
    ),
    (&["Connection refused"], "connection refused: no SSH server listens there, or a firewall says no"),
    (
        &["timed out"],
        "no connection in time: the host is down, a firewall drops packets, or what listens there does not speak SSH",
    ),
    (&["Could not resolve hostname", "Name or service not known"], "its name does not resolve"),
    (&["No route to host", "Network is unreachable"], "there is no way to it from here"),
    (
        &["no matching host key type", "no matching key exchange", "no matching cipher", "no matching MAC"],
        "it offers only algorithms that this ssh does not use any more; the SSH configuration can allow them for this host",
    ),
    (
        &["Connection closed by UNKNOWN", "stdio forwarding failed", "administratively prohibited"],
        "the jump host did not let the connection through, or turned it away among many (its `MaxStartups`, see `--concurrency`)",
    ),
    (
        &["kex_exchange_identification", "Connection reset", "Connection closed by"],
        "the host ended the connection before the login: it turns away callers, is overloaded (`MaxStartups`), or is no SSH server",
    ),
    (&["not responding"], "the host fell silent before the login"),
    (
        &["Bad configuration option", "Bad owner or permissions", "terminating,"],
        "ssh cannot work with its configuration on this machine",
    ),
    (
        &["unknown option", "Can't open user config file"],
        "ssh on this machine does not take what it is given",
    ),
];

/// What passes when it is tried again: many callers at once are turned away by design. And what never does, although a
/// jump host that fails sounds like that, too.
const TURNED_AWAY: [&str; 3] =
    ["kex_exchange_identification", "Connection closed by UNKNOWN", "Connection reset by"];
const REFUSED: [&str; 4] = ["timed out", "Host key verification failed", "Permission denied", "refused"];

/// What a host's shell and sudo say when the script does not come to run, and what that means.
const SHELL_SAYS: [(&str, &str); 7] = [
    (
        "a password is required",
        "sudo wants a password there; a rule with NOPASSWD for `/bin/sh -s` lets it run",
    ),
    ("must have a tty", "sudo wants a terminal there (`requiretty`)"),
    ("not in the sudoers", "the user may not use sudo there"),
    ("not allowed to", "the user may not run `/bin/sh -s` with sudo there"),
    ("may not run sudo", "the user may not use sudo there"),
    (
        "sudo",
        "there is no sudo on the host, or it does not work; without `--sudo` the user's own view is collected",
    ),
    ("not currently available", "the user has no shell there"),
];

/// Whether another try may have more luck: the host, or a jump host, had too many callers.
pub(super) fn is_turned_away(heard: &Heard) -> bool {
    let stderr = String::from_utf8_lossy(&heard.stderr);
    heard.end == End::Exit(Some(SSH_FAILED))
        && !heard.is_there
        && TURNED_AWAY.iter().any(|said| stderr.contains(said))
        && !REFUSED.iter().any(|said| stderr.contains(said))
}

/// Why there is no answer in what was heard; `problem` is what its reading said.
pub(super) fn explain(heard: &Heard, problem: &str, (login, work): (u64, u64)) -> Refusal {
    let stderr = String::from_utf8_lossy(&heard.stderr);
    let ending =
        if stderr.trim().is_empty() { String::new() } else { format!("; it says: {}", said(&stderr)) };
    match (&heard.end, heard.is_there) {
        (End::NotStarted(why), _) => (Status::Error, why.clone()),
        (End::Stopped, _) => (Status::NotAsked, "the collection was ended".to_owned()),
        (End::TooLarge(bytes), _) => (
            Status::Truncated,
            format!("the host announces {bytes} bytes, more than `--largest-answer` allows"),
        ),
        (End::Flood, true) => {
            (Status::Error, format!("the host sends more than it announced, and was cut off: {problem}"))
        }
        (End::Flood, false) => {
            (Status::Error, "the host floods the connection before the script runs".to_owned())
        }
        (End::Stalled, _) => (
            Status::Timeout,
            format!(
                "the host announced a large answer and sends it too slowly: others wait for its room{ending}"
            ),
        ),
        (End::Late, true) => (Status::Timeout, format!("the script did not end within {work} s{ending}")),
        (End::Late, false) => (
            Status::Timeout,
            format!("no login within {login} s: the connection, the login or the user's shell hangs{ending}"),
        ),
        (End::Exit(Some(SSH_FAILED)), false) => ssh_failed(&stderr),
        (End::Exit(Some(SSH_FAILED)), true) if stderr.contains("not responding") => {
            (Status::Timeout, "the host fell silent while it answered".to_owned())
        }
        (End::Exit(Some(SSH_FAILED)), true) => {
            (Status::Undeliverable, format!("the connection broke while the host answered{ending}"))
        }
        (End::Exit(code), false) => shell_failed(*code, &stderr),
        (End::Exit(code), true) => {
            let code = match code {
                Some(0) => String::new(),
                Some(code) => format!(" (exit status {code})"),
                None => " (ssh did not end by itself)".to_owned(),
            };
            (Status::Error, format!("{problem}{code}{ending}"))
        }
    }
}

fn ssh_failed(stderr: &str) -> Refusal {
    let known = SSH_SAYS.iter().find(|(signs, _)| signs.iter().any(|sign| stderr.contains(sign)));
    let Some((_, meaning)) = known else {
        let said = if stderr.trim().is_empty() { "nothing".to_owned() } else { said(stderr) };
        return (Status::Undeliverable, format!("ssh could not log in, and says: {said}"));
    };
    (Status::Undeliverable, format!("{meaning}{}", details(stderr)))
}

/// What of ssh's words tells one host from another.
fn details(stderr: &str) -> String {
    let after = |sign: &str| {
        let line = stderr.lines().find_map(|line| line.split_once(sign).map(|(_, rest)| rest))?;
        Some(said(line.trim().trim_end_matches('.')))
    };
    let mut found = Vec::new();
    if stderr.contains("IDENTIFICATION HAS CHANGED") {
        found.extend(
            stderr
                .lines()
                .map(str::trim)
                .find(|line| line.starts_with("SHA256:"))
                .map(|line| format!("it sent {}", said(line.trim_end_matches('.')))),
        );
        let offending =
            stderr.lines().find_map(|line| line.strip_prefix("Offending ")?.split_once(" key in "));
        found.extend(offending.map(|(_, place)| format!("known: {}", said(place))));
    }
    found.extend(
        after("Permission denied ").map(|methods| format!("tried {}", methods.trim_matches(['(', ')']))),
    );
    found.extend(after("Bad configuration option: "));
    if found.is_empty() { String::new() } else { format!(" ({})", found.join("; ")) }
}

fn shell_failed(code: Option<i32>, stderr: &str) -> Refusal {
    let code = code.map_or_else(|| "no exit status".to_owned(), |code| format!("exit status {code}"));
    let words = if stderr.trim().is_empty() { String::new() } else { format!(": {}", said(stderr)) };
    let meaning = SHELL_SAYS.iter().find(|(sign, _)| stderr.contains(sign)).map(|(_, meaning)| *meaning);
    let meaning = meaning.unwrap_or("the login works, but no script runs there");
    (Status::Error, format!("{meaning} ({code}{words})"))
}

/// Why a whole reply has no answers in it; `is_pushed` says whether a program was there for hosts without osquery.
pub(super) fn no_data(manifest: &Manifest, is_pushed: bool) -> Refusal {
    let note =
        |is_it: &dyn Fn(&str) -> bool| manifest.notes.iter().find(|note| is_it(note)).map(|note| said(note));
    if manifest.agent != Agent::None || manifest.via != Via::None {
        return (Status::Error, "the host has an answer and does not give it".to_owned());
    }
    if let Some(why) = note(&|note| note.starts_with("bootstrap: ")) {
        let why = why.trim_start_matches("bootstrap: ");
        return (
            Status::NotSupported,
            format!(
                "the host has no osquery, and the program that was brought does not run: {why}{}",
                linkage(why)
            ),
        );
    }
    match note(&|note| note.contains("osquery")) {
        Some(_) if !is_pushed => (
            Status::NotSupported,
            "the host has no osquery; `--push-binary` brings this diffy, whose native collector answers"
                .to_owned(),
        ),
        Some(why) => (Status::NotSupported, why),
        None => {
            let last = manifest.notes.last().map(|note| format!(" ({})", said(note))).unwrap_or_default();
            (Status::Error, format!("the script cannot work on this host{last}"))
        }
    }
}

/// What it means when a program does not start.
fn linkage(why: &str) -> &'static str {
    let is_linkage = ["GLIBC", "libc.so", "No such file", "not found", "error while loading"];
    if !why.starts_with("no diffy: ") || !is_linkage.iter().any(|sign| why.contains(sign)) {
        return "";
    }
    "; it needs the C library that it was built with: a build for musl (`--push-binary FILE`) runs on any Linux"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(end: End, is_there: bool, stderr: &str) -> Heard {
        Heard { stdout: Vec::new(), stderr: stderr.into(), is_there, end, room: None }
    }

    const CHANGED: &str = "@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@@\n\
        The fingerprint for the ED25519 key sent by the remote host is\nSHA256:Xyz+0/abc.\n\
        Offending ED25519 key in /home/a/.ssh/known_hosts:3\n\
        Host key for web has changed and you have requested strict checking.\nHost key verification failed.\n";

    #[test]
    fn what_ssh_says_has_a_meaning() {
        for (stderr, status, expected) in [
            (CHANGED, Status::Undeliverable, "it sent SHA256:Xyz+0/abc; known: /home/a/.ssh/known_hosts:3"),
            (
                "No ED25519 host key is known for [127.0.0.1]:2222 and you have requested strict checking.\nHost key verification failed.\n",
                Status::Undeliverable,
                "known_hosts has no key for it",
            ),
            ("Host key verification failed.\n", Status::Undeliverable, "is not trusted"),
            (
                "Welcome\nroot@web: Permission denied (publickey,password).\n",
                Status::Undeliverable,
                "`ssh-add -l`)? (tried publickey,password)",
            ),
            ("ssh: connect to host web port 22: Connection refused\n", Status::Undeliverable, "refused"),
            (
                "ssh: connect to host web port 22: Connection timed out\n",
                Status::Undeliverable,
                "no connection in time",
            ),
            ("Connection timed out during banner exchange\n", Status::Undeliverable, "does not speak SSH"),
            (
                "ssh: Could not resolve hostname x: Name or service not known\n",
                Status::Undeliverable,
                "does not resolve",
            ),
            ("something new\u{1b}[2J\n", Status::Undeliverable, "says: something new\\u{1b}[2J"),
            (
                "Connection to web closed by remote host.\n",
                Status::Undeliverable,
                "broke right after the login",
            ),
            ("", Status::Undeliverable, "says: nothing"),
        ] {
            let (found, why) = explain(&heard(End::Exit(Some(255)), false, stderr), "", (30, 60));
            assert!(found == status && why.contains(expected), "{why} is not `{expected}`");
            let advice = why.to_lowercase();
            for bad in ["stricthostkeychecking", "accept-new", "ssh-keygen -r", "/dev/null"] {
                assert!(!advice.contains(bad), "{why}");
            }
        }
    }

    #[test]
    fn what_happens_later_has_another_meaning() {
        let exit = |code| End::Exit(Some(code));
        for (end, is_there, stderr, status, expected) in [
            (End::Late, false, "", Status::Timeout, "no login within 30 s"),
            (End::Late, true, "", Status::Timeout, "did not end within 60 s"),
            (End::TooLarge(9), true, "", Status::Truncated, "announces 9 bytes"),
            (End::Flood, true, "", Status::Error, "cut off: no head"),
            (exit(255), true, "Connection closed", Status::Undeliverable, "broke while the host answered"),
            (exit(255), true, "Timeout, server web not responding.", Status::Timeout, "fell silent"),
            (exit(1), false, "sudo: a password is required\n", Status::Error, "NOPASSWD"),
            (exit(127), false, "sh: 1: exec: sudo: not found\n", Status::Error, "there is no sudo"),
            (exit(1), false, "This account is currently not available.\n", Status::Error, "no script runs"),
            (exit(3), true, "oh", Status::Error, "no head (exit status 3); it says: oh"),
        ] {
            let (found, why) = explain(&heard(end, is_there, stderr), "no head", (30, 60));
            assert!(found == status && why.contains(expected), "{found} {why} is not `{expected}`");
        }
    }

    #[test]
    fn only_who_was_turned_away_is_tried_again() {
        let closed = "kex_exchange_identification: Connection closed by remote host\n";
        assert!(is_turned_away(&heard(End::Exit(Some(255)), false, closed)));
        assert!(!is_turned_away(&heard(End::Exit(Some(255)), true, closed)));
        let jump =
            format!("Host key verification failed.\n{closed}Connection closed by UNKNOWN port 65535\n");
        assert!(!is_turned_away(&heard(End::Exit(Some(255)), false, &jump)));
        assert!(!is_turned_away(&heard(End::Exit(Some(255)), false, CHANGED)));
        assert!(!is_turned_away(&heard(End::Exit(Some(255)), false, "Permission denied (publickey).")));
    }
}
