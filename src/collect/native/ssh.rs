//! Tables about SSH keys and settings in the homes of all local users.

use super::accounts::{self, User};
use super::context::{Context, Gathered, file_name, lines};
use super::rows::Row;

/// Types of keys by how their names begin; certificates and security keys included.
const KEY_TYPES: [&[u8]; 4] = [b"ssh-", b"ecdsa-", b"sk-ssh-", b"sk-ecdsa-"];

/// How an OpenSSH private key without a passphrase begins, after its header line.
const NO_CIPHER: &[u8] = b"b3BlbnNzaC1rZXktdjEAAAAABG5vbmU";

/// Table `authorized_keys`.
pub(super) fn authorized_keys(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("files");
    for user in accounts::list(context, &mut gathered) {
        for name in ["authorized_keys", "authorized_keys2"] {
            let path = user.home(context).join(".ssh").join(name);
            // Only what looks like a key leaves the file, so that links may lead anywhere, as they may for sshd.
            let text = gathered.read(context, &path).unwrap_or_default();
            for key in lines(&text).filter_map(Key::parse) {
                gathered.rows.push(|row| {
                    user_columns(row, &user);
                    row.text("algorithm", key.algorithm).text("key", key.key);
                    row.text("options", key.options).text("comment", key.comment);
                    row.text("key_file", context.shown(&path));
                });
            }
        }
    }
    gathered
}

fn user_columns(row: &mut Row<'_>, user: &User) {
    row.show("uid", user.uid).text("username", &user.name);
}

/// One line of an authorized_keys file.
#[derive(Debug, PartialEq)]
struct Key<'a> {
    options: &'a [u8],
    algorithm: &'a [u8],
    key: &'a [u8],
    comment: &'a [u8],
}

impl<'a> Key<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        if line.starts_with(b"#") {
            return None;
        }
        let (first, rest) = take_word(line);
        let (options, (algorithm, rest)) =
            if is_key_type(first) { (&b""[..], (first, rest)) } else { (first, take_word(rest)) };
        let (key, comment) = take_word(rest);
        (is_key_type(algorithm) && !key.is_empty()).then_some(Self { options, algorithm, key, comment })
    }
}

fn is_key_type(word: &[u8]) -> bool {
    KEY_TYPES.iter().any(|start| word.starts_with(start))
}

/// The first word, in which quoted blanks do not count, and what follows it.
fn take_word(line: &[u8]) -> (&[u8], &[u8]) {
    let (mut quoted, mut escaped) = (false, false);
    let end = line.iter().position(|byte| {
        let ends = !quoted && byte.is_ascii_whitespace();
        if *byte == b'"' && !escaped {
            quoted = !quoted;
        }
        escaped = *byte == b'\\' && !escaped;
        ends
    });
    let (word, rest) = line.split_at(end.unwrap_or(line.len()));
    (word, rest.trim_ascii_start())
}

/// Table `known_hosts`; `key` is the whole line.
pub(super) fn known_hosts(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("files");
    for user in accounts::list(context, &mut gathered) {
        let path = user.home(context).join(".ssh/known_hosts");
        let text = gathered.read_own(context, &path).unwrap_or_default();
        for line in lines(&text).filter(|line| !line.starts_with(b"#")) {
            gathered.rows.push(|row| {
                user_columns(row, &user);
                row.text("key", line).text("key_file", context.shown(&path));
            });
        }
    }
    gathered
}

/// Table `user_ssh_keys`: private keys and whether a passphrase protects them. The key does not leave the host.
pub(super) fn user_ssh_keys(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("files");
    for user in accounts::list(context, &mut gathered) {
        let dir = user.home(context).join(".ssh");
        for (path, _) in gathered.list(context, &dir) {
            if file_name(&path).ends_with(b".pub") || !gathered.goes_on(context) {
                continue;
            }
            let text = gathered.read_own(context, &path).unwrap_or_default();
            let Some((kind, encrypted)) = private_key(&text) else { continue };
            gathered.rows.push(|row| {
                user_columns(row, &user);
                row.text("path", context.shown(&path)).flag("encrypted", encrypted);
                row.known("key_type", kind);
            });
        }
    }
    gathered
}

/// Type of a private key, `None` where only its content would tell, and whether it is encrypted.
fn private_key(text: &[u8]) -> Option<(Option<&'static str>, bool)> {
    let mut lines = lines(text);
    let header = lines.next()?.strip_prefix(b"-----BEGIN ")?.strip_suffix(b"PRIVATE KEY-----")?;
    let second = lines.next().unwrap_or_default();
    let encrypted = second.starts_with(b"Proc-Type:") && second.ends_with(b"ENCRYPTED");
    // osquery does not tell the type of an OpenSSH or an encrypted key either.
    let plain = |kind| if encrypted { Some("") } else { Some(kind) };
    match header.trim_ascii() {
        b"OPENSSH" => Some((Some(""), !second.starts_with(NO_CIPHER))),
        b"ENCRYPTED" => Some((Some(""), true)),
        b"RSA" => Some((plain("rsa"), encrypted)),
        b"DSA" => Some((plain("dsa"), encrypted)),
        b"EC" => Some((plain("ec"), encrypted)),
        b"" => Some((None, false)),
        _ => None,
    }
}

/// Table `ssh_configs`: the users' client settings and the system's.
pub(super) fn ssh_configs(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("files");
    for user in accounts::list(context, &mut gathered) {
        let path = user.home(context).join(".ssh/config");
        let text = gathered.read_own(context, &path).unwrap_or_default();
        let file = context.shown(&path);
        for_each_option(&text, |block, option| {
            gathered.rows.push(|row| {
                user_columns(row, &user);
                row.text("block", block).text("option", option).text("ssh_config_file", &file);
            });
        });
    }
    let path = context.path("/etc/ssh/ssh_config");
    let text = gathered.read(context, &path).unwrap_or_default();
    for_each_option(&text, |block, option| {
        gathered.rows.push(|row| {
            row.text("uid", "0").text("username", "root").text("block", block).text("option", option);
            row.text("ssh_config_file", context.shown(&path));
        });
    });
    gathered
}

/// Options in lower case, as osquery prints them, with the block that they stand in.
fn for_each_option(text: &[u8], mut each: impl FnMut(&[u8], &[u8])) {
    let mut block = Vec::new();
    for line in lines(text).filter(|line| !line.starts_with(b"#")) {
        let line = line.to_ascii_lowercase();
        if line.starts_with(b"host ") || line.starts_with(b"match ") {
            block = line;
        } else {
            each(&block, &line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::context::tests::{context, host, rows};
    use super::*;

    const PASSWD: &[u8] = b"bob:x:1000:1000::/home/bob:/bin/sh\n";

    #[test]
    fn options_of_keys_may_hold_quoted_blanks_and_key_types() {
        let key =
            Key::parse(br#"command="echo \"ssh-rsa x\"",no-pty  ssh-ed25519 AAAA bob at home"#).unwrap();
        assert_eq!(key.options, br#"command="echo \"ssh-rsa x\"",no-pty"#);
        assert_eq!(
            (key.algorithm, key.key, key.comment),
            (&b"ssh-ed25519"[..], &b"AAAA"[..], &b"bob at home"[..])
        );
        let plain = Key::parse(b"sk-ssh-ed25519@openssh.com\tBBBB").unwrap();
        assert_eq!((plain.options, plain.comment), (&b""[..], &b""[..]));
        for line in [&b"# ssh-rsa A"[..], b"1024 35 123 old", b"ssh-rsa", b"root:$6$x:1"] {
            assert_eq!(Key::parse(line), None);
        }
    }

    #[test]
    fn keys_belong_to_the_user_whose_home_they_are_in() {
        let dir = host(&[("etc/passwd", PASSWD), ("home/bob/.ssh/authorized_keys2", b"ssh-rsa A\n")]);
        let found = rows(authorized_keys(&context(dir.path())));
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0]["username"], &found[0]["uid"]), (&"bob".into(), &"1000".into()));
        assert_eq!(found[0]["key_file"], "/home/bob/.ssh/authorized_keys2");
    }

    #[test]
    fn private_keys_say_whether_they_are_encrypted() {
        let key = |name: &str, second: &str| {
            private_key(format!("-----BEGIN {name}PRIVATE KEY-----\n{second}\nAAAA\n").as_bytes())
        };
        assert_eq!(key("OPENSSH ", "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAA"), Some((Some(""), false)));
        assert_eq!(key("OPENSSH ", "b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1j"), Some((Some(""), true)));
        assert_eq!(key("RSA ", "Proc-Type: 4,ENCRYPTED"), Some((Some(""), true)));
        assert_eq!(key("EC ", "MHc"), Some((Some("ec"), false)));
        assert_eq!(key("", "MII"), Some((None, false)));
        assert_eq!(private_key(b"ssh-rsa AAAA"), None);
    }

    #[test]
    fn client_options_stand_in_their_block() {
        let dir = host(&[
            ("etc/passwd", PASSWD),
            ("home/bob/.ssh/config", b"User x\nHost *.Example\n  ProxyCommand nc\n"),
            ("home/bob/.ssh/known_hosts", b"# c\n|1|a|b ssh-rsa AAAA\n"),
        ]);
        let context = context(dir.path());
        let found = rows(ssh_configs(&context));
        assert_eq!((&found[0]["block"], &found[0]["option"]), (&"".into(), &"user x".into()));
        assert_eq!(
            (&found[1]["block"], &found[1]["option"]),
            (&"host *.example".into(), &"proxycommand nc".into())
        );
        assert_eq!(rows(known_hosts(&context))[0]["key"], "|1|a|b ssh-rsa AAAA");
    }
}
