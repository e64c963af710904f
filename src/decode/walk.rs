//! Finds the files of an import and tells from their content what they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use memchr::memmem;

use super::import::{ImportFormat, ImportOptions};
use super::input;
use super::names::mapped_table;
use super::osqueryd::check_host;
use super::row::Pairs;
use super::utf8::json_text;
use crate::catalog::Catalog;
use crate::error::{Error, Result};

/// How much of a file is looked at.
const HEAD: u64 = 64 << 10;
/// How much of it is looked at first: an array of rows shows by its first bytes.
const GLANCE: usize = 64;

/// What is to be read.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// By name.
    pub(super) hosts: BTreeMap<String, HostFiles>,
    /// Logs of osqueryd.
    pub(super) logs: Vec<PathBuf>,
    /// What is not read, each with the reason.
    pub(super) skipped: Vec<String>,
}

/// The files of one host.
#[derive(Debug, Default)]
pub(super) struct HostFiles {
    /// Where the host was found.
    pub(super) from: PathBuf,
    /// A file with all of its tables.
    pub(super) object: Option<PathBuf>,
    /// Files by table; several where names differ in case or packing only.
    pub(super) tables: BTreeMap<String, Vec<PathBuf>>,
    /// Tables whose files are not read, each with the reason.
    pub(super) refused: BTreeMap<String, String>,
}

/// What lies in a directory.
enum Entry {
    Directory(PathBuf),
    File(PathBuf),
    /// Nothing that is opened, and why: following a link would read what nobody named, and a pipe never ends.
    Refused(PathBuf, &'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Entries of osqueryd.
    Log,
    /// One object of tables.
    Host,
    /// Rows of one table.
    Table,
    /// Nothing at all.
    Empty,
    /// Something else.
    Other,
}

/// Looks at all paths.
///
/// # Errors
/// A path cannot be read or is nothing known, or two places are the same host.
pub(super) fn walk(paths: &[PathBuf], options: &ImportOptions, catalog: &Catalog) -> Result<Found> {
    let mut walker = Walker { options, catalog, found: Found::default() };
    if let Some(host) = &options.host {
        check_host(host).map_err(Error::usage)?;
    }
    for path in paths {
        let metadata = fs::metadata(path).map_err(|source| input::unreadable(path, source))?;
        if metadata.is_dir() {
            walker.directory(path)?;
        } else if metadata.is_file() {
            walker.file(path)?;
        } else {
            return Err(Error::usage(format!("`{}` is neither a file nor a directory", path.display()))
                .hint("write what it gives to a file, and import that"));
        }
    }
    walker.found.logs.sort();
    // The same log twice would count every change twice.
    let mut seen = BTreeSet::new();
    walker.found.logs.retain(|path| seen.insert(fs::canonicalize(path).unwrap_or_else(|_| path.clone())));
    Ok(walker.found)
}

struct Walker<'a> {
    options: &'a ImportOptions,
    catalog: &'a Catalog,
    found: Found,
}

impl Walker<'_> {
    fn skip(&mut self, path: &Path, reason: &str) {
        self.found.skipped.push(format!("{}: {reason}", path.display()));
    }

    /// A path that the user named.
    fn file(&mut self, path: &Path) -> Result<()> {
        let whole = fs::canonicalize(path).map_err(|source| input::unreadable(path, source))?;
        match self.kind_of(path)? {
            Kind::Log => self.found.logs.push(path.to_owned()),
            Kind::Host => self.object(path)?,
            Kind::Empty if !is_json_name(path) => self.skip(path, "empty file"),
            Kind::Table | Kind::Empty => {
                let parent = whole.parent().unwrap_or(Path::new("/"));
                if let Some(host) = self.named(parent) {
                    self.host(&host, parent)?;
                    self.table(&host, path);
                }
            }
            Kind::Other => {
                return Err(Error::data(format!("`{}` is nothing that can be imported", path.display()))
                    .hint("known are osqueryi JSON and osqueryd logs; --format forces one"));
            }
        }
        Ok(())
    }

    /// A directory that the user named: of hosts, of logs, or of one host's tables.
    fn directory(&mut self, path: &Path) -> Result<()> {
        let whole = fs::canonicalize(path).map_err(|source| input::unreadable(path, source))?;
        let mut empty = Vec::new();
        let mut tables = Vec::new();
        let mut refused = Vec::new();
        let mut has_hosts = false;
        for entry in self.entries(path)? {
            let entry = match entry {
                Entry::File(path) => path,
                Entry::Directory(path) => {
                    has_hosts = true;
                    self.host_directory(&path)?;
                    continue;
                }
                Entry::Refused(path, reason) => {
                    self.skip(&path, reason);
                    refused.push((path, reason));
                    continue;
                }
            };
            match self.quiet_kind_of(&entry) {
                Kind::Log => self.found.logs.push(entry),
                Kind::Host => self.object(&entry)?,
                Kind::Table => tables.push(entry),
                Kind::Empty => empty.push(entry),
                Kind::Other => self.skip(&entry, "nothing that can be imported"),
            }
        }
        if has_hosts {
            // Their directory is that of the hosts, and no host itself.
            for entry in tables.drain(..) {
                self.skip(
                    &entry,
                    "a file beside the directories of hosts; name it to import it as a host's table",
                );
            }
        }
        if tables.is_empty() {
            for entry in empty {
                self.skip(&entry, "empty file");
            }
            return Ok(());
        }
        tables.extend(empty);
        let Some(host) = self.named(&whole) else { return Ok(()) };
        self.host(&host, &whole)?;
        for entry in tables {
            self.table(&host, &entry);
        }
        self.refuse(&host, &refused);
        Ok(())
    }

    /// A directory below the one that the user named.
    fn host_directory(&mut self, path: &Path) -> Result<()> {
        let mut files = Vec::new();
        let mut refused = Vec::new();
        let mut has_logs = false;
        for entry in self.entries(path)? {
            let entry = match entry {
                Entry::File(path) => path,
                Entry::Directory(path) => {
                    self.skip(&path, "a directory inside of a host's");
                    continue;
                }
                Entry::Refused(path, reason) => {
                    self.skip(&path, reason);
                    refused.push((path, reason));
                    continue;
                }
            };
            match self.quiet_kind_of(&entry) {
                Kind::Log => {
                    has_logs = true;
                    self.found.logs.push(entry);
                }
                Kind::Other => self.skip(&entry, "nothing that can be imported"),
                kind => files.push((kind, entry)),
            }
        }
        if has_logs && files.is_empty() {
            return Ok(());
        }
        let Some(host) = self.host_name(path.file_name(), path) else { return Ok(()) };
        self.host(&host, path)?;
        for (kind, entry) in files {
            match self.found.hosts.get_mut(&host) {
                Some(files) if kind == Kind::Host && files.object.is_none() => files.object = Some(entry),
                _ if kind == Kind::Host => self.skip(&entry, "a second object of tables for this host"),
                _ => self.table(&host, &entry),
            }
        }
        self.refuse(&host, &refused);
        Ok(())
    }

    /// Entries by name, without those that nobody means.
    fn entries(&mut self, path: &Path) -> Result<Vec<Entry>> {
        let unreadable = |source| input::unreadable(path, source);
        let mut entries = Vec::new();
        for entry in fs::read_dir(path).map_err(unreadable)? {
            entries.push(entry.map_err(unreadable)?.path());
        }
        entries.sort();
        let mut kept = Vec::with_capacity(entries.len());
        for entry in entries {
            let name = entry.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if name.starts_with(['.', '_']) {
                self.skip(&entry, "hidden, or set aside by its underscore");
                continue;
            }
            let kind = fs::symlink_metadata(&entry).map(|metadata| metadata.file_type());
            kept.push(match kind {
                Ok(kind) if kind.is_dir() => Entry::Directory(entry),
                Ok(kind) if kind.is_file() => Entry::File(entry),
                Ok(kind) if kind.is_symlink() => {
                    Entry::Refused(entry, "a symbolic link; links below a named path are not followed")
                }
                Ok(_) => Entry::Refused(entry, "neither a file nor a directory"),
                Err(_) => Entry::Refused(entry, "cannot be looked at"),
            });
        }
        Ok(kept)
    }

    /// The host of files that name none: as the user said, or as their directory is called.
    fn named(&mut self, directory: &Path) -> Option<String> {
        match &self.options.host {
            Some(host) => Some(host.clone()),
            None => self.host_name(directory.file_name(), directory),
        }
    }

    fn host_name(&mut self, name: Option<&std::ffi::OsStr>, path: &Path) -> Option<String> {
        let checked = match name.unwrap_or_default().to_str() {
            Some(name) => check_host(name).map(|()| name.to_owned()),
            None => Err("the host name is no UTF-8".to_owned()),
        };
        checked.map_err(|reason| self.skip(path, &reason)).ok()
    }

    /// Takes a host; finding it again in the same place is fine.
    fn host(&mut self, host: &str, from: &Path) -> Result<()> {
        let from = &fs::canonicalize(from).map_err(|source| input::unreadable(from, source))?;
        let files = self
            .found
            .hosts
            .entry(host.to_owned())
            .or_insert_with(|| HostFiles { from: from.clone(), ..HostFiles::default() });
        if &files.from == from || self.options.host.is_some() {
            return Ok(());
        }
        let (first, second) = (files.from.display(), from.display());
        Err(Error::usage(format!("`{first}` and `{second}` are the same host `{host}`"))
            .hint("rename one of them, or import one of them only"))
    }

    /// A file with all tables of the host that it is named after.
    fn object(&mut self, path: &Path) -> Result<()> {
        let stem = stem_of(path);
        let host = match &self.options.host {
            Some(host) => Some(host.clone()),
            None => self.host_name(Some(stem.as_ref()), path),
        };
        let Some(host) = host else { return Ok(()) };
        self.host(&host, path)?;
        match self.found.hosts.get_mut(&host) {
            Some(files) if files.object.is_none() => files.object = Some(path.to_owned()),
            _ => self.skip(path, "a second object of tables for this host"),
        }
        Ok(())
    }

    fn table(&mut self, host: &str, path: &Path) {
        let table = mapped_table(&stem_of(path), &self.options.map, self.catalog);
        let Some(files) = self.found.hosts.get_mut(host) else { return };
        let of_table = files.tables.entry(table).or_default();
        if !of_table.iter().any(|known| known == path) {
            of_table.push(path.to_owned());
        }
    }

    /// Notes tables whose files are there and are not read: nothing from there is not the same as no rows.
    fn refuse(&mut self, host: &str, refused: &[(PathBuf, &str)]) {
        let Some(files) = self.found.hosts.get_mut(host) else { return };
        for (path, reason) in refused.iter().filter(|(path, _)| is_json_name(path)) {
            let table = mapped_table(&stem_of(path), &self.options.map, self.catalog);
            files.refused.entry(table).or_insert_with(|| format!("{}: {reason}", path.display()));
        }
    }

    /// As [`Self::kind_of`]; a file that cannot be opened is told by its name, and reported when it is read.
    fn quiet_kind_of(&self, path: &Path) -> Kind {
        let unknown = if is_json_name(path) { Kind::Table } else { Kind::Other };
        match self.kind_of(path).unwrap_or(unknown) {
            Kind::Empty if !is_json_name(path) => Kind::Other,
            kind => kind,
        }
    }

    fn kind_of(&self, path: &Path) -> Result<Kind> {
        let short = input::first_bytes(path, GLANCE)?;
        let head = if is_table_at_a_glance(&short) { short } else { input::head(path, HEAD)? };
        let kind = match (kind_of_text(&head), self.options.format) {
            (Kind::Empty, _) => Kind::Empty,
            (_, Some(ImportFormat::Osqueryd)) => Kind::Log,
            (Kind::Log | Kind::Other, Some(ImportFormat::Osqueryi)) => Kind::Table,
            (Kind::Other, None) if is_json_name(path) => Kind::Table,
            (kind, _) => kind,
        };
        Ok(kind)
    }
}

/// The name without the endings of JSON and of packers.
fn stem_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut stem = name.as_ref();
    for ending in [".gz", ".zst", ".json", ".jsonl", ".ndjson"] {
        stem = stem.strip_suffix(ending).unwrap_or(stem);
    }
    stem.to_owned()
}

fn is_json_name(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.len() > stem_of(path).len() && name.contains(".json") || name.contains(".ndjson")
}

/// Whether a file begins with a row in an array, so that more of it would say the same.
fn is_table_at_a_glance(head: &[u8]) -> bool {
    let array = head.trim_ascii_start().strip_prefix(b"[").map(<[u8]>::trim_ascii_start);
    array.is_some_and(|rows| rows.starts_with(b"{"))
}

fn kind_of_text(head: &[u8]) -> Kind {
    let head = head.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(head).trim_ascii_start();
    if head.is_empty() {
        return Kind::Empty;
    }
    // Warnings may stand before what matters.
    head.split_inclusive(|byte| *byte == b'\n')
        .scan(0, |at, line| {
            let start = *at;
            *at += line.len();
            Some(kind_of_start(&head[start..]))
        })
        .find(|kind| *kind != Kind::Other)
        .unwrap_or(Kind::Other)
}

/// What a text is that starts here.
fn kind_of_start(text: &[u8]) -> Kind {
    match text {
        [b'[', rest @ ..] => match rest.trim_ascii_start() {
            [] | [b'{' | b']', ..] => Kind::Table,
            _ => Kind::Other,
        },
        [b'{', rest @ ..] => kind_of_object(text, rest.trim_ascii_start()),
        _ => Kind::Other,
    }
}

fn kind_of_object(text: &[u8], inside: &[u8]) -> Kind {
    let line = &text[..memchr::memchr(b'\n', text).unwrap_or(text.len())];
    let keys = json_text(line).ok().and_then(|line| {
        let Pairs(pairs) = serde_json::from_str(&line).ok()?;
        Some(pairs.into_iter().map(|(key, value)| (key.into_owned(), value.get().starts_with('['))).collect())
    });
    let keys: Vec<(String, bool)> = keys.unwrap_or_else(|| first_key(inside).into_iter().collect());
    let has = |name: &str| keys.iter().any(|(key, _)| key == name);
    let mentions = |key: &str| memmem::find(line, key.as_bytes()).is_some();
    let names_host = mentions("\"hostIdentifier\"") || mentions("\"hostname\"");
    if has("diffResults") || has("snapshot") || (has("name") && names_host) || has("severity") {
        Kind::Log
    } else if !keys.is_empty() && keys.iter().any(|(_, is_array)| *is_array) {
        Kind::Host
    } else {
        Kind::Table
    }
}

/// The first key of an object that is not whole, and whether its value is an array.
fn first_key(inside: &[u8]) -> Option<(String, bool)> {
    let rest = inside.strip_prefix(b"\"")?;
    let end = memchr::memchr(b'"', rest)?;
    let value = rest[end + 1..].trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    Some((String::from_utf8_lossy(&rest[..end]).into_owned(), value.starts_with(b"[")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_tells_the_kind() {
        let check = |text: &str, expect: Kind| assert_eq!(kind_of_text(text.as_bytes()), expect, "{text}");
        check("", Kind::Empty);
        check(" \n", Kind::Empty);
        check("[\n  {", Kind::Table);
        check("[]", Kind::Table);
        check("[WARN] x\n[{}]", Kind::Table);
        check("W0105 hm\n[\n]", Kind::Table);
        check("{\"a\":1}\n{\"a\":2}", Kind::Table);
        check("{\"processes\": [", Kind::Host);
        check("{\n  \"processes\": [\n", Kind::Host);
        check("{\"os\":[],\"b\":null}", Kind::Host);
        check("{\"snapshot\":[{\"a\":", Kind::Log);
        check("{\"name\":\"q\",\"hostIdentifier\":\"h\",\"columns\":{", Kind::Log);
        check("{\"hostname\":\"h\",\"name\":\"q\",\"columns\":{}}", Kind::Log);
        check("Log file created at: x\n{\"snapshot\":[]}", Kind::Log);
        check("hello", Kind::Other);
    }

    #[test]
    fn stems_lose_their_endings() {
        let check = |name: &str, stem: &str, json: bool| {
            assert_eq!((stem_of(Path::new(name)).as_str(), is_json_name(Path::new(name))), (stem, json));
        };
        check("a/processes.json.gz", "processes", true);
        check("a/processes.jsonl", "processes", true);
        check("web.prod.json", "web.prod", true);
        check("notes.txt", "notes.txt", false);
    }
}
