//! Hosts of a file: one a line, or the `Host` lines of an OpenSSH configuration.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};

use crate::error::{Error, Result};
use crate::model::{Destination, few};

/// Most bytes of a file, and of one line.
const LARGEST_FILE: u64 = 16 << 20;
const LONGEST_LINE: usize = 4_096;
/// Most hosts of one collection.
const MOST_HOSTS: usize = 100_000;
/// Longest name that a line gives a host.
const LONGEST_NAME: usize = 255;

/// A host of a file: what it is called in the snapshot, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedHost {
    /// The name of the host in the snapshot.
    pub name: String,
    /// How it is reached.
    pub destination: Destination,
    /// Where it stands: `FILE:LINE`.
    place: String,
}

/// The hosts of files, each once, in the order of the lines.
#[derive(Debug, Clone, Default)]
pub struct HostList {
    /// The hosts.
    pub hosts: Vec<ListedHost>,
    /// What a reader should know of the files: sentences.
    pub warnings: Vec<String>,
}

/// Reads the hosts of files; `-` is standard input.
///
/// # Errors
/// `Usage`, with file and line: a file cannot be read, is too large or has no host; a line is no host; one name stands
/// for two destinations.
pub fn hosts_of_files(files: &[&str]) -> Result<HostList> {
    let mut list = HostList::default();
    let mut by_name = HashMap::new();
    for file in files {
        let text = read(file)?;
        let before = list.hosts.len();
        let twice = add(&mut list, &mut by_name, (file, &text))?;
        if list.hosts.len() == before && twice.is_empty() {
            return Err(Error::usage(format!("`{}` names no host", file.escape_debug())).hint(
                "one host a line: host, user@host, host:port, [IPv6]:port, ssh://user@host:port, NAME=host",
            ));
        }
        list.warnings.extend(sentence(
            "host stands",
            "hosts stand",
            "twice and is asked once",
            (file, &twice),
        ));
    }
    Ok(list)
}

fn read(file: &str) -> Result<String> {
    let cannot =
        |source| Error::usage(format!("cannot read the hosts of `{}`", file.escape_debug())).source(source);
    let from: Box<dyn Read> = match file {
        "-" => Box::new(io::stdin()),
        _ => Box::new(File::open(file).map_err(cannot)?),
    };
    let mut bytes = Vec::new();
    from.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(Error::usage(format!("`{}` has more than {LARGEST_FILE} bytes", file.escape_debug())));
    }
    String::from_utf8(bytes).map_err(|source| cannot(io::Error::new(io::ErrorKind::InvalidData, source)))
}

/// By lowercase name: which host of the list it is.
type ByName = HashMap<String, usize>;

/// Adds the hosts of a file; the lines whose host was there already come back.
fn add(list: &mut HostList, by_name: &mut ByName, (file, text): (&str, &str)) -> Result<Vec<usize>> {
    let is_config = text.lines().any(begins_config);
    let mut unused = Unused::default();
    let mut twice = Vec::new();
    for (at, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let place = || format!("{}:{}", file.escape_debug(), at + 1);
        if line.len() > LONGEST_LINE {
            return Err(Error::usage(format!("{}: the line is longer than {LONGEST_LINE} bytes", place())));
        }
        let hosts = if is_config { of_config(line, at + 1, &mut unused) } else { of_list(line) };
        for (name, destination) in hosts.map_err(|error| at_line(error, &place()))? {
            let host = ListedHost { name, destination, place: place() };
            if !keep(list, by_name, host)? {
                twice.push(at + 1);
            }
        }
    }
    list.warnings.extend(unused.sentences(file));
    Ok(twice)
}

/// Whether it was not there yet.
fn keep(list: &mut HostList, by_name: &mut ByName, host: ListedHost) -> Result<bool> {
    let Some(at) = by_name.get(&host.name.to_lowercase()) else {
        if list.hosts.len() == MOST_HOSTS {
            return Err(Error::usage(format!("{}: more than {MOST_HOSTS} hosts", host.place))
                .hint("collect them in several runs"));
        }
        by_name.insert(host.name.to_lowercase(), list.hosts.len());
        list.hosts.push(host);
        return Ok(true);
    };
    let first = &list.hosts[*at];
    if first.destination.to_string().eq_ignore_ascii_case(&host.destination.to_string()) {
        return Ok(false);
    }
    Err(Error::usage(format!(
        "{}: `{}` is another way to `{}` than `{}` of {}",
        host.place, host.destination, host.name, first.destination, first.place
    ))
    .hint("leave one out, or give it a name of its own: `NAME=host`"))
}

/// The error of a line, in front of it where it stands.
fn at_line(error: Error, place: &str) -> Error {
    let told = Error::usage(format!("{place}: {error}"));
    match error.hint_text() {
        Some(hint) => told.hint(hint),
        None => told,
    }
}

/// Name and destination.
type Entry = (String, Destination);

/// A line of a plain list: at most one host.
fn of_list(line: &str) -> Result<Vec<Entry>> {
    let text = without_comment(line).trim();
    if text.is_empty() {
        return Ok(Vec::new());
    }
    if text.contains(char::is_whitespace) {
        let shown: String = text.chars().take(80).collect();
        return Err(Error::usage(format!("`{}` is more than one word", shown.escape_debug()))
            .hint("one host a line; or, as in an OpenSSH configuration, lines that begin with `Host`"));
    }
    if let Some((alias, place)) = text.split_once('=') {
        return Ok(vec![(checked_name(alias)?.to_owned(), place.parse()?)]);
    }
    let destination: Destination = text.parse()?;
    Ok(vec![(destination.name(), destination)])
}

/// Comments begin a line or follow a blank.
fn without_comment(line: &str) -> &str {
    if line.trim_start().starts_with('#') {
        return "";
    }
    line.find(" #").or_else(|| line.find("\t#")).map_or(line, |at| &line[..at])
}

fn checked_name(name: &str) -> Result<&str> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "._:@-".contains(c);
    if !name.is_empty() && name.len() <= LONGEST_NAME && !name.starts_with('-') && name.chars().all(is_fine) {
        return Ok(name);
    }
    let shown: String = name.chars().take(80).collect();
    Err(Error::usage(format!("`{}` cannot name a host", shown.escape_debug()))
        .hint("a name has 1 to 255 letters, digits, dots, dashes, underscores, colons and at signs"))
}

/// Whether a line makes its file an OpenSSH configuration: `Host` and more. `host=web` is a host with a name.
fn begins_config(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words.next().is_some_and(|word| word.eq_ignore_ascii_case("host")) && words.next().is_some()
}

/// What follows the word `Host` at the beginning of a line of an OpenSSH configuration.
fn host_patterns(line: &str) -> Option<&str> {
    let is_between = |c: char| c.is_whitespace() || c == '=';
    let (word, rest) = line.split_once(is_between)?;
    word.eq_ignore_ascii_case("host").then(|| rest.trim_start_matches(is_between))
}

/// A line of an OpenSSH configuration: the names of a `Host` line.
fn of_config(line: &str, at: usize, unused: &mut Unused) -> Result<Vec<Entry>> {
    let text = without_comment(line).trim();
    let Some(patterns) = host_patterns(text) else {
        unused.note(text, at);
        return Ok(Vec::new());
    };
    let mut entries = Vec::new();
    for pattern in patterns.split_whitespace() {
        let pattern = pattern.trim_matches('"');
        if pattern.contains(['*', '?', '!']) {
            unused.patterns.push(at);
            continue;
        }
        let destination: Destination = pattern.parse()?;
        entries.push((pattern.to_owned(), destination));
    }
    Ok(entries)
}

/// Lines of an OpenSSH configuration that name nobody.
#[derive(Debug, Default)]
struct Unused {
    settings: Vec<usize>,
    includes: Vec<usize>,
    patterns: Vec<usize>,
}

impl Unused {
    fn note(&mut self, text: &str, at: usize) {
        let word = text.split(|c: char| c.is_whitespace() || c == '=').next().unwrap_or_default();
        match word.to_ascii_lowercase().as_str() {
            "" => {}
            "include" => self.includes.push(at),
            _ => self.settings.push(at),
        }
    }

    fn sentences(&self, file: &str) -> Vec<String> {
        let mut said = Vec::new();
        let name = file.escape_debug();
        if let Some(first) = self.settings.first() {
            said.push(format!(
                "the settings in `{name}` (from line {first} on) count only if ssh reads that file, as it does with `--ssh-config`"
            ));
        }
        said.extend(sentence(
            "`Include` names",
            "lines `Include` name",
            "no host here",
            (file, &self.includes),
        ));
        said.extend(sentence("pattern names", "patterns name", "no host", (file, &self.patterns)));
        said
    }
}

/// One sentence about lines of a file; none about none.
fn sentence(one: &str, many: &str, what: &str, (file, lines): (&str, &[usize])) -> Option<String> {
    let (named, name) = (few(lines), file.escape_debug());
    match lines.len() {
        0 => None,
        1 => Some(format!("1 {one} {what} (`{name}`, line {named})")),
        count => Some(format!("{count} {many} {what} (`{name}`, lines {named})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names with their destinations.
    type Pairs = Vec<(String, String)>;

    fn parsed(text: &str) -> Result<(Pairs, Vec<String>)> {
        let mut list = HostList::default();
        let twice = add(&mut list, &mut HashMap::new(), ("f", text))?;
        list.warnings.extend(sentence("host stands", "hosts stand", "twice", ("f", &twice)));
        let hosts = list.hosts.into_iter().map(|host| (host.name, host.destination.to_string())).collect();
        Ok((hosts, list.warnings))
    }

    fn pairs(of: &[(&str, &str)]) -> Pairs {
        of.iter().map(|(name, place)| ((*name).to_owned(), (*place).to_owned())).collect()
    }

    #[test]
    fn one_host_a_line() {
        let text = "\u{feff}# the web fleet\n\nweb-1\r\n  root@web-2:2222  # a comment\ndb=postgres@10.0.0.5\n\
                    ssh://x@[::1]:2022\n2001:db8::7\nWEB-1\nweb-1\n";
        let (hosts, warnings) = parsed(text).unwrap();
        let expected = pairs(&[
            ("web-1", "web-1"),
            ("web-2:2222", "root@web-2:2222"),
            ("db", "postgres@10.0.0.5"),
            ("[::1]:2022", "x@[::1]:2022"),
            ("2001:db8::7", "2001:db8::7"),
        ]);
        assert_eq!(hosts, expected);
        assert_eq!(warnings, ["2 hosts stand twice (`f`, lines 8, 9)"]);
    }

    #[test]
    fn hosts_of_an_openssh_configuration() {
        let text = "Include ~/.ssh/more\nUser root\nHost web-1 web-2 *.example.com !web-9\n  HostName 10.0.0.1\n\
                    host=db\nHOST \"db-2\"\n\nMatch user x\nHost *\n  ForwardAgent no\n";
        let (hosts, warnings) = parsed(text).unwrap();
        assert_eq!(hosts, pairs(&["web-1", "web-2", "db", "db-2"].map(|name| (name, name))));
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        assert!(
            warnings[0].contains("from line 2 on") && warnings[0].contains("--ssh-config"),
            "{warnings:?}"
        );
        assert_eq!(warnings[2], "3 patterns name no host (`f`, lines 3, 3, 9)");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, expected) in [
            ("web-1\n-oProxyCommand=id\n", "f:2: `-oProxyCommand` cannot name a host"),
            ("web-1\n-v\n", "f:2: `-v` is no host: it begins with a dash"),
            ("web-1 ansible_host=10.0.0.1\n", "f:1: `web-1 ansible_host=10.0.0.1` is more than one word"),
            ("a=web-1\n\na=web-2\n", "f:3: `web-2` is another way to `a` than `web-1` of f:1"),
            ("root@web\nweb\n", "f:2: `web` is another way to `web` than `root@web` of f:1"),
            ("=web\n", "f:1: `` cannot name a host"),
            ("a\u{1b}[31m\n", "f:1: `a\\u{1b}[31m` is no host"),
            ("Host web;id\n", "f:1: `web;id` is no host"),
        ] {
            let error = parsed(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error} is not `{expected}`");
        }
        let error = parsed(&format!("web\n{}\n", "x".repeat(5_000))).unwrap_err().to_string();
        assert!(error.contains("f:2: the line is longer than 4096 bytes"), "{error}");
    }

    #[test]
    fn a_file_without_hosts_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        std::fs::write(&path, "# nobody\n").unwrap();
        let name = path.to_str().unwrap();
        assert!(hosts_of_files(&[name]).unwrap_err().to_string().contains("names no host"));
        std::fs::write(&path, "web\n").unwrap();
        let list = hosts_of_files(&[name, name]).unwrap();
        assert_eq!((list.hosts.len(), list.warnings.len()), (1, 1));
        assert!(hosts_of_files(&["/nonexistent/hosts"]).is_err());
    }
}
