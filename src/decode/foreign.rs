//! Files in a host's directory that hold rows of others: what a host prints must not pass for what Fleet, Velociraptor
//! or osqueryd say of many.

use std::fs;
use std::path::{Path, PathBuf};

use super::kind::{
    GLANCE, HEAD, Kind, artifact_of, is_json_name, is_table_at_a_glance, kind_of_text, stem_of,
};
use super::walk::Walker;

/// Said of each.
pub(super) const FOREIGN: &str = "in the directory of a host, and looks like what others say of many hosts; `--format`, or naming the file itself, imports it as that";

impl Walker<'_> {
    /// Whether a file is none of a host's own where hosts' own files lie: in a directory below a named one.
    pub(super) fn is_foreign(&mut self, kind: Kind, path: &Path) -> bool {
        self.may_be_foreign(kind, path) && (self.is_named_as_table(path) || self.is_in_dump(path))
    }

    /// Whether a file speaks of others and is named as a host's own may be.
    pub(super) fn may_be_foreign(&self, kind: Kind, path: &Path) -> bool {
        let speaks_of_others = match kind {
            Kind::Fleet(_) => true,
            Kind::Log => is_json_name(path) || self.is_named_as_table(path),
            Kind::Artifact => true,
            _ => false,
        };
        speaks_of_others && self.options.format.is_none()
    }

    /// `users.json`, `users.txt`.
    fn is_named_as_table(&self, path: &Path) -> bool {
        let stem = stem_of(path);
        let name = stem.split('.').next().unwrap_or_default();
        self.catalog.table(&self.options.table_of(name, self.catalog)).is_some()
    }

    /// Whether what lies beside this file, or beside its directory, is of osqueryi: `HOST/TABLE.json`.
    fn is_in_dump(&mut self, path: &Path) -> bool {
        let Some(parent) = path.parent().and_then(Path::parent) else { return false };
        if let Some(known) = self.dumps.get(parent) {
            return *known;
        }
        let is_dump = entries(parent)
            .flat_map(|directory| entries(&directory).collect::<Vec<_>>())
            .any(|entry| self.is_of_osqueryi(&entry));
        self.dumps.insert(parent.to_owned(), is_dump);
        is_dump
    }

    /// Whether the content of a file is an array of rows, or an object of tables.
    pub(super) fn is_of_osqueryi(&self, path: &Path) -> bool {
        let is_file = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file());
        if !is_file || !is_json_name(path) || artifact_of(path).is_some() {
            return false;
        }
        let files = &self.options.files;
        let Ok(short) = files.first_bytes(path, GLANCE) else { return false };
        if is_table_at_a_glance(&short) {
            return true;
        }
        let Ok(head) = files.head(path, HEAD) else { return false };
        match kind_of_text(&head) {
            Kind::Host => true,
            Kind::Table => head.trim_ascii_start().starts_with(b"["),
            _ => false,
        }
    }

    /// Notes a file that is none of the host's own; it is reported, and its table has an error.
    pub(super) fn foreign(&mut self, host: &str, path: PathBuf) {
        let table = self.options.table_of(&stem_of(&path), self.catalog);
        if let Some(files) = self.found.hosts.get_mut(host) {
            files.foreign.insert(path, table);
        }
    }
}

/// What lies in a directory by name, as far as it can be read.
fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let is_plain = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let is_link = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
        !name.starts_with(['.', '_']) && !is_link
    };
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).filter(is_plain)
}
