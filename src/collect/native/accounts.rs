//! Tables about users: the account files, sudo rules and login records.

use std::path::{Path, PathBuf};

use super::context::{Context, Gathered, file_name, lines, number, split_once};

/// How deep sudoers files may include each other, as sudo itself limits it.
const MAX_NEST: usize = 128;

/// Size of a login record in bytes; unknown where the C library lays it out differently.
const RECORD: Option<usize> = if cfg!(target_arch = "x86_64") { Some(384) } else { None };

/// One line of `/etc/passwd`.
#[derive(Debug, Clone)]
pub(super) struct User {
    /// Login name.
    pub(super) name: Vec<u8>,
    /// User id.
    pub(super) uid: u32,
    gid: u32,
    description: Vec<u8>,
    directory: Vec<u8>,
    shell: Vec<u8>,
}

impl User {
    /// The home directory as a path that can be opened.
    pub(super) fn home(&self, context: &Context) -> PathBuf {
        context.path_of(&self.directory)
    }
}

/// Fields of a line between colons.
fn fields(line: &[u8]) -> Vec<&[u8]> {
    line.split(|byte| *byte == b':').collect()
}

/// The local users in the order of `/etc/passwd`.
pub(super) fn list(context: &Context, gathered: &mut Gathered) -> Vec<User> {
    let text = gathered.read(context, &context.path("/etc/passwd")).unwrap_or_default();
    lines(&text).filter_map(user).collect()
}

fn user(line: &[u8]) -> Option<User> {
    let fields = fields(line);
    let [name, _, uid, gid, description, directory, shell] = fields[..] else { return None };
    Some(User {
        name: name.to_vec(),
        uid: number(uid)?,
        gid: number(gid)?,
        description: description.to_vec(),
        directory: directory.to_vec(),
        shell: shell.to_vec(),
    })
}

/// Group id, name and members of each local group.
pub(super) fn list_groups(context: &Context, gathered: &mut Gathered) -> Vec<(u32, Vec<u8>, Vec<Vec<u8>>)> {
    let text = gathered.read(context, &context.path("/etc/group")).unwrap_or_default();
    let group = |line: &[u8]| {
        let fields = fields(line);
        let [name, _, gid, members] = fields[..] else { return None };
        let members = members.split(|byte| *byte == b',').filter(|name| !name.is_empty());
        Some((number(gid)?, name.to_vec(), members.map(<[u8]>::to_vec).collect()))
    };
    lines(&text).filter_map(group).collect()
}

/// Table `users`.
pub(super) fn users(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("files");
    for user in list(context, &mut gathered) {
        gathered.rows.push(|row| {
            row.show("uid", user.uid).show("gid", user.gid);
            row.show("uid_signed", user.uid.cast_signed()).show("gid_signed", user.gid.cast_signed());
            row.text("username", &user.name).text("description", &user.description);
            row.text("directory", &user.directory).text("shell", &user.shell).text("uuid", "");
        });
    }
    gathered
}

/// Table `groups`.
pub(super) fn groups(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("files");
    for (gid, name, _) in list_groups(context, &mut gathered) {
        gathered.rows.push(|row| {
            row.show("gid", gid).show("gid_signed", gid.cast_signed()).text("groupname", name);
        });
    }
    gathered
}

/// Table `user_groups`: the group of the account and those that list it, each once.
pub(super) fn user_groups(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("files");
    let groups = list_groups(context, &mut gathered);
    for user in list(context, &mut gathered) {
        let listed = groups.iter().filter(|(_, _, members)| members.contains(&user.name));
        let mut gids: Vec<u32> = listed.map(|(gid, _, _)| *gid).chain([user.gid]).collect();
        gids.sort_unstable();
        gids.dedup();
        for gid in gids {
            gathered.rows.push(|row| {
                row.show("uid", user.uid).show("gid", gid);
            });
        }
    }
    gathered
}

/// Table `shadow`; the password hash itself is not kept.
pub(super) fn shadow(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("files");
    let text = gathered.read(context, &context.path("/etc/shadow")).unwrap_or_default();
    for line in lines(&text) {
        let fields = fields(line);
        let [name, password, ref ages @ ..] = fields[..] else { continue };
        gathered.rows.push(|row| {
            row.text("username", name).text("password_status", password_status(password));
            row.text("hash_alg", hash_algorithm(password).unwrap_or_default());
            let columns = ["last_change", "min", "max", "warning", "inactive", "expire", "flag"];
            for (column, age) in columns.into_iter().zip(ages) {
                row.show(column, number::<i64>(age).unwrap_or(-1));
            }
        });
    }
    gathered
}

fn password_status(password: &[u8]) -> &'static str {
    match password {
        b"!!" => "not_set",
        b"" => "empty",
        [b'!' | b'*' | b'x', ..] => "locked",
        _ => "active",
    }
}

/// `6` of `$6$salt$hash`.
fn hash_algorithm(password: &[u8]) -> Option<&[u8]> {
    let (algorithm, _) = split_once(password.strip_prefix(b"$")?, b'$')?;
    algorithm.iter().all(u8::is_ascii_alphanumeric).then_some(algorithm)
}

/// Table `sudoers`, with the files that it includes.
pub(super) fn sudoers(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("files");
    let mut rules = Vec::new();
    let main = context.path("/etc/sudoers");
    read_rules(context, &mut gathered, &mut vec![main], &mut rules);
    for Rule { source, header, details } in rules {
        gathered.rows.push(|row| {
            row.text("source", source).text("header", header).text("rule_details", details);
        });
    }
    gathered
}

/// One line, or several joined by backslashes, of a sudoers file.
struct Rule {
    source: Vec<u8>,
    header: Vec<u8>,
    details: Vec<u8>,
}

/// Reads the last file of `chain`, whose other files are those that include it.
fn read_rules(context: &Context, gathered: &mut Gathered, chain: &mut Vec<PathBuf>, rules: &mut Vec<Rule>) {
    let Some(file) = chain.last().cloned() else { return };
    if chain.len() > MAX_NEST || chain[..chain.len() - 1].contains(&file) || !gathered.goes_on(context) {
        return;
    }
    let text = gathered.read(context, &file).unwrap_or_default();
    let source = context.shown(&file);
    for line in joined_lines(&text) {
        let at = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
        let (header, details) = (line[..at].to_vec(), line[at..].trim_ascii().to_vec());
        let include = matches!(&header[..], b"#include" | b"@include");
        let directory = matches!(&header[..], b"#includedir" | b"@includedir");
        let comment = line.starts_with(b"#") && !include && !directory;
        if comment || ((include || directory) && details.is_empty()) {
            continue;
        }
        let target = target(context, &file, &details);
        rules.push(Rule { source: source.clone(), header, details });
        let paths = match (include, directory) {
            (true, _) => vec![target],
            (false, true) => files_of(context, gathered, &target),
            (false, false) => Vec::new(),
        };
        for path in paths {
            chain.push(path);
            read_rules(context, gathered, chain, rules);
            chain.pop();
        }
    }
}

/// Where an include leads; a relative path starts at the including file.
fn target(context: &Context, file: &Path, details: &[u8]) -> PathBuf {
    let path = details.strip_prefix(b"\"").and_then(|path| path.strip_suffix(b"\"")).unwrap_or(details);
    if path.starts_with(b"/") {
        return context.path_of(path);
    }
    let dir = context.shown(file.parent().unwrap_or(file));
    context.path_of(&[&dir[..], b"/", path].concat())
}

/// Files that an include of a directory reads.
fn files_of(context: &Context, gathered: &mut Gathered, target: &Path) -> Vec<PathBuf> {
    // sudo leaves out names with a dot and those that end with a tilde.
    let is_read = |path: &PathBuf| !file_name(path).contains(&b'.') && !file_name(path).ends_with(b"~");
    gathered.list(context, target).into_iter().map(|(path, _)| path).filter(is_read).collect()
}

/// Lines without surrounding blanks, those that end with a backslash joined with the next.
fn joined_lines(text: &[u8]) -> Vec<Vec<u8>> {
    let mut found: Vec<Vec<u8>> = Vec::new();
    let mut open = false;
    for line in lines(text) {
        let goes_on = line.ends_with(b"\\") && (open || !line.starts_with(b"#"));
        let part = if goes_on { &line[..line.len() - 1] } else { line };
        match found.last_mut().filter(|_| open) {
            Some(last) => last.extend_from_slice(part),
            None => found.push(part.to_vec()),
        }
        open = goes_on;
    }
    found
}

/// Table `logged_in_users`.
pub(super) fn logged_in_users(context: &Context) -> Gathered {
    const TYPES: [&str; 10] = [
        "empty",
        "runlevel",
        "boot_time",
        "new_time",
        "old_time",
        "init",
        "login",
        "user",
        "dead",
        "accounting",
    ];
    logins(context, "/run/utmp", |gathered, login| {
        if login.pid == 1 {
            return;
        }
        let kind = usize::try_from(login.kind).ok().and_then(|kind| TYPES.get(kind));
        gathered.rows.push(|row| {
            row.text("type", kind.unwrap_or(&"unknown")).text("user", login.user).text("tty", login.tty);
            row.text("host", login.host).show("time", login.time).show("pid", login.pid);
        });
    })
}

/// Table `last`: logins and logouts that are still on record.
pub(super) fn last(context: &Context) -> Gathered {
    logins(context, "/var/log/wtmp", |gathered, login| {
        let name = match login.kind {
            7 => "user-process",
            8 => "dead-process",
            _ => return,
        };
        gathered.rows.push(|row| {
            row.text("username", login.user).text("tty", login.tty).show("pid", login.pid);
            row.show("type", login.kind).text("type_name", name).show("time", login.time);
            row.text("host", login.host);
        });
    })
}

/// One record of utmp or wtmp.
struct Login<'a> {
    kind: i16,
    pid: i32,
    tty: &'a [u8],
    user: &'a [u8],
    host: &'a [u8],
    time: i32,
}

fn logins(context: &Context, file: &str, mut each: impl FnMut(&mut Gathered, Login<'_>)) -> Gathered {
    let mut gathered = Gathered::of("files");
    let Some(size) = RECORD else {
        return Gathered::not_supported("login records of this architecture cannot be read");
    };
    let text = gathered.read(context, &context.path(file)).unwrap_or_default();
    for login in text.chunks_exact(size).filter_map(login) {
        if !gathered.goes_on(context) {
            break;
        }
        each(&mut gathered, login);
    }
    gathered
}

/// The layout of glibc's `struct utmp` on x86-64.
fn login(record: &[u8]) -> Option<Login<'_>> {
    let int = |at: usize| Some(i32::from_ne_bytes(record.get(at..at + 4)?.try_into().ok()?));
    let text = |at: usize, len: usize| record.get(at..at + len)?.split(|byte| *byte == 0).next();
    Some(Login {
        kind: i16::from_ne_bytes(record.get(..2)?.try_into().ok()?),
        pid: int(4)?,
        tty: text(8, 32)?,
        user: text(44, 32)?,
        host: text(76, 256)?,
        time: int(340)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::context::tests::{context, host, rows};
    use super::*;

    const PASSWD: &[u8] =
        b"root:x:0:0:root:/root:/bin/bash\nnobody:x:4294967294:65534::/:/bin/false\n+::::::\nodd\n";

    #[test]
    fn accounts_are_read_and_odd_lines_are_left_out() {
        let dir = host(&[("etc/passwd", PASSWD), ("etc/group", b"root:x:0:\nsudo:x:27:root,nobody\n")]);
        let context = context(dir.path());
        let users = rows(users(&context));
        assert_eq!(users.len(), 2);
        assert_eq!(users[1]["uid_signed"], "-2");
        let members: Vec<String> = rows(user_groups(&context)).iter().map(ToString::to_string).collect();
        assert_eq!(members.len(), 4, "{members:?}");
        assert_eq!(rows(groups(&context))[1]["groupname"], "sudo");
    }

    #[test]
    fn shadow_says_how_but_not_what() {
        let text = b"a:$6$salt$hash:19000:0:99999:7:::\nb:!!:::::::\nc::1:0:0:0:::\nd:*:1:0:0:0:::\n";
        let dir = host(&[("etc/shadow", text)]);
        let found = rows(shadow(&context(dir.path())));
        let of =
            |column: &str| -> Vec<&str> { found.iter().map(|row| row[column].as_str().unwrap()).collect() };
        assert_eq!(of("password_status"), ["active", "not_set", "empty", "locked"]);
        assert_eq!(of("hash_alg"), ["6", "", "", ""]);
        assert_eq!(of("inactive"), ["-1"; 4]);
        assert!(!format!("{found:?}").contains("hash\""));
    }

    #[test]
    fn sudo_rules_follow_includes_but_not_in_circles() {
        let dir = host(&[
            (
                "etc/sudoers",
                b"# note\nroot ALL=(ALL) \\\n  ALL\n@includedir /etc/sudoers.d\n#include sudoers\n",
            ),
            ("etc/sudoers.d/web", b"web ALL=NOPASSWD: /bin/sh\n"),
            ("etc/sudoers.d/web.bak", b"no ALL\n"),
        ]);
        let found = rows(sudoers(&context(dir.path())));
        let headers: Vec<&str> = found.iter().map(|row| row["header"].as_str().unwrap()).collect();
        assert_eq!(headers, ["root", "@includedir", "web", "#include"]);
        assert_eq!(found[0]["rule_details"], "ALL=(ALL) ALL");
        assert_eq!(found[2]["source"], "/etc/sudoers.d/web");
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn login_records_are_taken_apart() {
        let mut record = vec![0u8; 384];
        record[0] = 7;
        record[4..8].copy_from_slice(&99i32.to_ne_bytes());
        record[8..13].copy_from_slice(b"pts/1");
        record[44..48].copy_from_slice(b"kuba");
        record[76..83].copy_from_slice(b"10.0.0\xff");
        record[340..344].copy_from_slice(&5i32.to_ne_bytes());
        record.extend_from_slice(b"half a record");
        let dir = host(&[("var/log/wtmp", &record)]);
        let (_, json, _) = last(&context(dir.path())).finish();
        let text = String::from_utf8_lossy(&json);
        assert!(text.contains(
            r#""username":"kuba","tty":"pts/1","pid":"99","type":"7","type_name":"user-process","time":"5""#
        ));
    }
}
