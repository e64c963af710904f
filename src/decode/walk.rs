//! Finds the files of an import and tells from their content what they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::artifacts::{Collection, client_of};
use super::fleet_csv::HOST;
use super::import::{ImportFormat, ImportOptions};
use super::kind::{
    GLANCE, HEAD, Kind, Shape, artifact_of, is_all_arrays, is_json_name, is_table_at_a_glance, kind_of_text,
    stem_of,
};
use super::osqueryd::check_host;
use super::prefetch::{Prefetch, START};
use crate::catalog::Catalog;
use crate::error::{Error, Result};

/// What is to be read.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// By name.
    pub(super) hosts: BTreeMap<String, HostFiles>,
    /// Logs of osqueryd.
    pub(super) logs: Vec<PathBuf>,
    /// Files with rows of many hosts, and those of Velociraptor.
    pub(super) records: Vec<RecordFile>,
    /// What is not read, each with the reason.
    pub(super) skipped: Vec<String>,
}

/// What a file is to an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileRole {
    /// One of a host's own files: together they are what the host said.
    OfHost,
    /// Rows that say whose they are.
    Rows,
    /// A log of osqueryd, whose entries say what they are wherever it lies; together logs say what was when.
    Log,
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
    /// Files that hold what a host's own files never do, each with its table.
    pub(super) foreign: BTreeMap<PathBuf, String>,
}

/// A file whose rows say whose they are, or whose place does.
#[derive(Debug)]
pub(super) struct RecordFile {
    pub(super) path: PathBuf,
    /// `Fleet` or `Artifact`.
    pub(super) kind: Kind,
    /// The host of rows that name none.
    pub(super) host: Option<String>,
    /// Whether all rows are of that host, whatever they say, and what else it is called.
    pub(super) place: Option<Client>,
    /// Why what is in it is not all, as far as what lies beside it says.
    pub(super) cut: Option<String>,
}

/// Whose a place is.
#[derive(Debug, Clone, Default)]
pub(super) struct Client {
    /// Names that its rows may give it.
    pub(super) names: Vec<String>,
    /// The client's id, where the place says it.
    pub(super) id: Option<String>,
}

/// What lies in a directory.
pub(super) enum Entry {
    Directory(PathBuf),
    File(PathBuf),
    /// Nothing that is opened, and why: following a link would read what nobody named, and a pipe never ends.
    Refused(PathBuf, &'static str),
}

impl Entry {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Directory(path) | Self::File(path) | Self::Refused(path, _) => path,
        }
    }
}

/// Looks at all paths.
///
/// # Errors
/// A path cannot be read or is nothing known, or two places are the same host.
pub(super) fn walk(paths: &[PathBuf], options: &ImportOptions, catalog: &Catalog) -> Result<Found> {
    let mut walker = Walker {
        options,
        catalog,
        found: Found::default(),
        dumps: BTreeMap::new(),
        prefetch: Prefetch::new(Vec::new(), START),
    };
    if let Some(host) = &options.host {
        check_host(host).map_err(Error::usage)?;
    }
    for path in paths {
        let metadata = fs::metadata(path).map_err(|source| options.files.unreadable(path, source))?;
        if metadata.is_dir() {
            walker.directory(path)?;
        } else if metadata.is_file() {
            walker.file(path)?;
        } else {
            return Err(Error::usage(format!(
                "`{}` is neither a file nor a directory",
                options.files.name(path)
            ))
            .hint("write what it gives to a file, and import that"));
        }
    }
    let mut found = walker.found;
    found.logs.sort();
    // The same log twice would count every change twice.
    let mut seen = BTreeSet::new();
    let mut is_first = |path: &PathBuf| seen.insert(fs::canonicalize(path).unwrap_or_else(|_| path.clone()));
    found.logs.retain(&mut is_first);
    found.records.retain(|file| is_first(&file.path));
    if let Some(chosen) = &options.chosen {
        found.choose(chosen);
    }
    Ok(found)
}

impl Found {
    /// All files that are to be read.
    pub(super) fn files(&self) -> BTreeMap<PathBuf, FileRole> {
        let of_hosts = self.hosts.values().flat_map(HostFiles::files).map(|path| (path, FileRole::OfHost));
        let records = self.records.iter().map(|file| (&file.path, FileRole::Rows));
        let logs = self.logs.iter().map(|path| (path, FileRole::Log));
        of_hosts.chain(records).chain(logs).map(|(path, role)| (path.clone(), role)).collect()
    }

    /// Leaves out what is not among `chosen`; of hosts with files of their own, those without a fresh one.
    fn choose(&mut self, chosen: &BTreeMap<PathBuf, bool>) {
        let is_fresh = |path: &PathBuf| chosen.get(path) == Some(&true);
        for files in self.hosts.values_mut() {
            files.object.take_if(|path| !chosen.contains_key(path));
            files.tables.values_mut().for_each(|paths| paths.retain(|path| chosen.contains_key(path)));
            files.tables.retain(|_, paths| !paths.is_empty());
            files.foreign.retain(|path, _| chosen.contains_key(path));
        }
        self.hosts.retain(|_, files| files.files().any(is_fresh));
        self.records.retain(|file| is_fresh(&file.path));
        self.logs.retain(|path| chosen.contains_key(path));
        if !self.logs.iter().any(is_fresh) {
            self.logs.clear();
        }
    }
}

impl HostFiles {
    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.object.iter().chain(self.tables.values().flatten()).chain(self.foreign.keys())
    }
}

/// Gathers what is found.
pub(super) struct Walker<'a> {
    pub(super) options: &'a ImportOptions,
    pub(super) catalog: &'a Catalog,
    pub(super) found: Found,
    /// Directories and whether hosts' own files lie below them, as far as somebody asked.
    pub(super) dumps: BTreeMap<PathBuf, bool>,
    /// Of the directory that the user named.
    pub(super) prefetch: Prefetch,
}

impl Walker<'_> {
    pub(super) fn skip(&mut self, path: &Path, reason: &str) {
        self.found.skipped.push(format!("{}: {reason}", self.options.files.name(path)));
    }

    pub(super) fn record(&mut self, path: &Path, kind: Kind, host: Option<String>) {
        self.found.records.push(RecordFile { path: path.to_owned(), kind, host, place: None, cut: None });
    }

    /// A path that the user named.
    fn file(&mut self, path: &Path) -> Result<()> {
        let whole = fs::canonicalize(path).map_err(|source| self.options.files.unreadable(path, source))?;
        let kind = self.kind_of(path)?;
        let parent = whole.parent().unwrap_or(Path::new("/"));
        self.needs_names(path, kind)?;
        match kind {
            Kind::Log => self.found.logs.push(path.to_owned()),
            Kind::Fleet(_) => self.record(path, kind, None),
            Kind::Artifact => {
                let is_nameless = self.options.nameless.as_deref() == Some(path);
                let host = if is_nameless { self.options.host.clone() } else { self.named_quietly(parent) };
                self.record(path, kind, host);
            }
            Kind::Host => self.object(path)?,
            Kind::Empty if !is_json_name(path) => self.skip(path, "empty file"),
            Kind::Table | Kind::Empty => {
                if let Some(host) = self.named(parent) {
                    self.host(&host, parent)?;
                    self.table(&host, path);
                }
            }
            Kind::Other => {
                let name = self.options.files.name(path);
                return Err(Error::data(format!("`{name}` is nothing that can be imported")).hint(
                    "known are osqueryi JSON, osqueryd logs, what Fleet exports, and artifacts of Velociraptor; `--format` forces one",
                ));
            }
        }
        Ok(())
    }

    /// What comes from standard input has no place that could name a host or a table.
    fn needs_names(&self, path: &Path, kind: Kind) -> Result<()> {
        if self.options.nameless.as_deref() != Some(path) {
            return Ok(());
        }
        let name = self.options.files.name(path);
        if matches!(kind, Kind::Host | Kind::Table) && self.options.host.is_none() {
            return Err(Error::usage(format!("nothing in {name} names a host"))
                .hint("`--host NAME` says whose rows they are"));
        }
        let is_of_one = matches!(kind, Kind::Table | Kind::Fleet(_) | Kind::Artifact);
        if is_of_one && self.options.table.is_none() {
            return Err(Error::usage(format!("nothing in {name} names a table"))
                .hint("`--table NAME` says which table it is"));
        }
        Ok(())
    }

    /// A directory that the user named: of hosts, of logs, or of one host's tables.
    fn directory(&mut self, path: &Path) -> Result<()> {
        let whole = fs::canonicalize(path).map_err(|source| self.options.files.unreadable(path, source))?;
        let mut empty = Vec::new();
        let mut tables = Vec::new();
        let mut refused = Vec::new();
        let mut has_hosts = false;
        let mut rows = Vec::new();
        let entries = self.entries(path)?;
        if let Some(collection) = Collection::of(path, &entries) {
            return self.collection(collection, None);
        }
        self.prefetch = Prefetch::new(entries.iter().map(|entry| entry.path().to_owned()).collect(), START);
        for (place, entry) in entries.into_iter().enumerate() {
            self.prefetch.reach(place);
            let entry = match entry {
                Entry::File(path) if self.options.stand_ins.contains(&path) => continue,
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
                kind @ (Kind::Fleet(_) | Kind::Artifact) => rows.push((kind, entry)),
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
        // One host's own files: none of them speaks of others.
        let is_own = tables.iter().any(|entry| self.is_of_osqueryi(entry));
        let (foreign, rows): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|(kind, entry)| is_own && self.may_be_foreign(*kind, entry));
        for (kind, entry) in rows {
            let host = self.named_quietly(&whole).filter(|_| kind == Kind::Artifact);
            self.record(&entry, kind, host);
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
        for (_, entry) in foreign {
            self.foreign(&host, entry);
        }
        self.refuse(&host, &refused);
        Ok(())
    }

    /// A directory below the one that the user named.
    pub(super) fn host_directory(&mut self, path: &Path) -> Result<()> {
        let mut files = Vec::new();
        let mut refused = Vec::new();
        let mut foreign = Vec::new();
        let mut has_others = false;
        let entries = match self.entries(path) {
            Ok(entries) => entries,
            Err(error) => {
                self.skip(path, &error.to_string());
                return Ok(());
            }
        };
        if let Some(collection) = Collection::of(path, &entries) {
            let host = self.named_quietly(path);
            return self.collection(collection, host);
        }
        let client = client_of(path);
        let is_of_client = client.is_some() && self.options.format.is_none();
        for entry in entries {
            let entry = match entry {
                Entry::File(path) if self.options.stand_ins.contains(&path) => {
                    has_others = true;
                    continue;
                }
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
            let kind = match self.quiet_kind_of(&entry) {
                // Of a client's rows none is of another, whatever they look like.
                Kind::Fleet(_) | Kind::Log if is_of_client && is_json_name(&entry) => Kind::Artifact,
                kind => kind,
            };
            if client.is_none() && self.is_foreign(kind, &entry) {
                foreign.push(entry);
                continue;
            }
            match kind {
                Kind::Log => {
                    has_others = true;
                    self.found.logs.push(entry);
                }
                kind @ (Kind::Fleet(_) | Kind::Artifact) => {
                    has_others = true;
                    let host = self.named_quietly(path).filter(|_| kind == Kind::Artifact);
                    self.record(&entry, kind, host);
                    if let Some(record) = self.found.records.last_mut() {
                        record.place.clone_from(&client);
                    }
                }
                Kind::Other => self.skip(&entry, "nothing that can be imported"),
                kind => files.push((kind, entry)),
            }
        }
        if has_others && files.is_empty() && foreign.is_empty() {
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
        for entry in foreign {
            self.foreign(&host, entry);
        }
        self.refuse(&host, &refused);
        Ok(())
    }

    /// Entries by name, without those that nobody means.
    pub(super) fn entries(&mut self, path: &Path) -> Result<Vec<Entry>> {
        let options = self.options;
        let unreadable = |source| options.files.unreadable(path, source);
        let mut entries = Vec::new();
        for entry in fs::read_dir(path).map_err(unreadable)? {
            entries.push(entry.map_err(unreadable)?.path());
        }
        entries.sort();
        let mut kept = Vec::with_capacity(entries.len());
        for entry in entries {
            let name = entry.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if name.starts_with(['.', '_']) && !options.stand_ins.contains(&entry) {
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

    /// As [`Self::named`], where rows may well name their hosts themselves.
    pub(super) fn named_quietly(&self, directory: &Path) -> Option<String> {
        let name =
            || directory.file_name()?.to_str().filter(|name| check_host(name).is_ok()).map(str::to_owned);
        self.options.host.clone().or_else(name)
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
        let from = &fs::canonicalize(from).map_err(|source| self.options.files.unreadable(from, source))?;
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
        let table = self.options.table_of(&stem_of(path), self.catalog);
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
            let table = self.options.table_of(&stem_of(path), self.catalog);
            files
                .refused
                .entry(table)
                .or_insert_with(|| format!("{}: {reason}", self.options.files.name(path)));
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
        let files = &self.options.files;
        let short = self.prefetch.open(|| files.first_bytes(path, GLANCE))?;
        let artifact = artifact_of(path).is_some();
        let is_table = is_table_at_a_glance(&short) && !artifact;
        let head = if is_table { short } else { files.head(path, HEAD)? };
        let kind = match kind_of_text(&head) {
            // An artifact without rows is an empty file.
            Kind::Table | Kind::Empty if artifact => Kind::Artifact,
            Kind::Host if artifact && !is_all_arrays(&head) => Kind::Artifact,
            kind => kind,
        };
        Ok(match (kind, self.options.format) {
            (Kind::Empty, _) => Kind::Empty,
            (_, Some(ImportFormat::Osqueryd)) => Kind::Log,
            (Kind::Host, Some(ImportFormat::Osqueryi)) => Kind::Host,
            (_, Some(ImportFormat::Osqueryi)) => Kind::Table,
            (Kind::Fleet(shape), Some(ImportFormat::Fleet)) => Kind::Fleet(shape),
            (_, Some(ImportFormat::Fleet)) => Kind::Fleet(shape_of(&head)),
            (_, Some(ImportFormat::Velociraptor)) => Kind::Artifact,
            (Kind::Other, None) if is_json_name(path) => Kind::Table,
            (kind, None) => kind,
        })
    }
}

/// In which form Fleet says something that does not look like it.
fn shape_of(head: &[u8]) -> Shape {
    let head = head.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(head).trim_ascii_start();
    let line = &head[..memchr::memchr(b'\n', head).unwrap_or(head.len())];
    let mut cells = line.split(|byte| *byte == b',').map(|cell| cell.trim_ascii());
    let names_host = cells.any(|cell| {
        let cell = cell.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(cell);
        HOST.iter().any(|name| cell == name.as_bytes())
    });
    if names_host { Shape::Csv } else { Shape::Lines }
}
