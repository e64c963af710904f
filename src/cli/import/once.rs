//! What is new since the last import: files are imported once, and the store remembers which.
//!
//! A file counts as imported when the manifest of its snapshot is written, not before: an import that dies has imported
//! nothing, or is finished by the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::super::App;
use super::super::collect::{make_snapshot, summary, tell_problems};
use super::super::output::print;
use super::inputs::{Inputs, Source};
use crate::catalog::Catalog;
use crate::decode::{FileRole, ImportOptions, survey};
use crate::error::{Error, Result};
use crate::model::{Fleet, SnapshotId};
use crate::store::{ImportedFile, ImportedKind, InterruptedImport, RemoteFile, Store};

/// Held while files are looked at and taken, so that two jobs do not take the same ones.
pub(super) struct Once {
    known: BTreeMap<String, ImportedFile>,
    /// Says in the next list from which one it was made.
    mark: Option<ImportedFile>,
    /// How files are looked at: what was skipped another way is looked at again.
    way: String,
    interrupted: Vec<InterruptedImport>,
    _held: File,
}

/// What is there of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    bytes: u64,
    modified: i64,
    /// Of an object.
    etag: Option<String>,
    /// Device and inode: a log that is rotated leaves its name to another file.
    place: (u64, u64),
}

/// A fresh file as it was looked at.
#[derive(Debug)]
struct Taken {
    seen: Seen,
    name: String,
    blake3: String,
}

/// Which files are taken, and what is remembered of all of them.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Each with whether it is fresh.
    pub(super) chosen: BTreeMap<PathBuf, bool>,
    /// How much of each is read.
    pub(super) lengths: BTreeMap<PathBuf, u64>,
    /// For the list of the snapshot.
    pub(super) files: Vec<ImportedFile>,
    /// Says from which list that of the snapshot is made.
    pub(super) mark: Option<ImportedFile>,
    /// What a person should know.
    pub(super) told: Vec<String>,
    fresh: BTreeMap<PathBuf, Taken>,
}

impl News {
    /// What the list of the snapshot has.
    pub(super) fn listed(&self) -> Vec<ImportedFile> {
        self.files.iter().chain(&self.mark).cloned().collect()
    }

    /// Files that are known to be in snapshots.
    pub(super) fn remembered(&self) -> usize {
        self.files.iter().filter(|file| file.kind != ImportedKind::Skipped).count()
    }

    /// Files that are taken.
    pub(super) fn fresh(&self) -> usize {
        self.fresh.len()
    }

    /// Fresh files that have become others since they were looked at, as a log does that is rotated: which of the two
    /// was read is not known. Each as it is shown and as it is remembered.
    pub(super) fn changed(&self, inputs: &Inputs, options: &ImportOptions) -> Vec<(String, String)> {
        let changed = self.fresh.iter().filter(|(path, taken)| !taken.is_still_there(path, inputs, options));
        changed.map(|(path, taken)| (options.files.name(path), taken.name.clone())).collect()
    }
}

impl Taken {
    /// Whether what was looked at still lies there; more may have been appended.
    fn is_still_there(&self, path: &Path, inputs: &Inputs, options: &ImportOptions) -> bool {
        let Ok(now) = seen(path, inputs) else { return false };
        if now == self.seen {
            return true;
        }
        // The same file with other times: its start tells, and it is only read where something was written.
        let start = || digest_of(path, options, self.seen.bytes).is_ok_and(|digest| digest == self.blake3);
        now.place == self.seen.place && now.bytes >= self.seen.bytes && start()
    }
}

impl Once {
    /// Takes the right to import what is new, and finishes what an import that died has received in full. None when
    /// another import is at work.
    ///
    /// # Errors
    /// The store cannot be read, or a snapshot cannot be finished.
    pub(super) async fn begin(app: &App, store: &Store, fleet: &Fleet, way: String) -> Result<Option<Self>> {
        let Some(held) = store.hold_imports()? else { return Ok(None) };
        let mut interrupted = Vec::new();
        for import in store.interrupted_imports(fleet).await? {
            if !import.spool.index().import_ended {
                interrupted.push(import);
                continue;
            }
            app.output.say(&format!("finishing the import that died as {}", import.snapshot));
            let finished = make_snapshot(app, store, import.spool).await?;
            print(&summary(&finished))?;
            tell_problems(app, &finished);
        }
        let imported = store.imported(fleet).await?;
        let mark = imported.mark();
        Ok(Some(Self { known: imported.files, mark, way, interrupted, _held: held }))
    }

    /// Whether an object is to be fetched: it is new, or what is new may need it.
    pub(super) fn wants(&self, sources: &[Source]) -> impl Fn(&RemoteFile) -> bool + use<> {
        let all: Vec<&RemoteFile> = sources
            .iter()
            .filter_map(|source| match source {
                Source::Remote(remote) => Some(&remote.files),
                _ => None,
            })
            .flatten()
            .collect();
        let is_known = |file: &RemoteFile| {
            self.known
                .get(&file.url)
                .filter(|known| known.is_unchanged(file.bytes, file.modified, file.etag.as_deref()))
                .filter(|known| known.kind != ImportedKind::Skipped || known.blake3 == self.way)
        };
        let folder = |url: &str| url.rsplit_once('/').map(|(folder, _)| folder.to_owned());
        let fresh: BTreeSet<Option<String>> =
            all.iter().filter(|file| is_known(file).is_none()).map(|file| folder(&file.url)).collect();
        let wanted: BTreeSet<String> = all
            .into_iter()
            .filter(|file| match is_known(file).map(|known| known.kind) {
                None => true,
                Some(ImportedKind::Log) => !fresh.is_empty(),
                Some(ImportedKind::Host) => fresh.contains(&folder(&file.url)),
                Some(ImportedKind::Rows) => false,
                Some(ImportedKind::Skipped) => !fresh.is_empty() && says_whose(&file.url),
            })
            .map(|file| file.url.clone())
            .collect();
        move |file| wanted.contains(&file.url)
    }

    /// Tells what is new.
    ///
    /// # Errors
    /// A path cannot be read, or is nothing known.
    pub(super) fn news(
        &self,
        (inputs, snapshot): (&Inputs, SnapshotId),
        (options, catalog): (&ImportOptions, &Catalog),
    ) -> Result<News> {
        let (files, _) = survey(&inputs.paths, options, catalog)?;
        let digests: BTreeMap<&str, &ImportedFile> = self
            .known
            .values()
            .filter(|file| file.kind == ImportedKind::Log)
            .map(|file| (file.blake3.as_str(), file))
            .collect();
        let mut news = News { mark: self.mark.clone(), ..News::default() };
        let mut here = BTreeSet::new();
        for (path, role) in files {
            let name = name_of(inputs, &path)?;
            let known = self.known.get(&name).filter(|known| known.kind != ImportedKind::Skipped);
            let kind = kind_of(role);
            let shown = options.files.name(&path);
            let file = |seen: &Seen, blake3: &str, snapshot| ImportedFile {
                path: name.clone(),
                bytes: seen.bytes,
                modified: seen.modified,
                etag: seen.etag.clone(),
                blake3: blake3.to_owned(),
                kind,
                snapshot,
            };
            let looked = match look(&path, inputs, options, known) {
                Ok(looked) => looked,
                Err(error) => {
                    // Its host's answer says so, if there is anything new of it; and it is looked at again.
                    news.told.push(error.to_string());
                    news.files.extend(known.cloned());
                    news.chosen.insert(path, false);
                    here.insert(name);
                    continue;
                }
            };
            match looked {
                Looked::Same(known, seen) => {
                    news.add(&path, false, file(&seen, &known.blake3, known.snapshot));
                }
                Looked::Growing => {
                    news.told.push(format!("{shown} is being written, and is left for the next import"));
                    news.files.extend(known.cloned());
                }
                Looked::Other(seen, digest) => {
                    // The same log under another name.
                    let moved = digests.get(digest.as_str()).filter(|_| kind == ImportedKind::Log);
                    if let (None, Some(known)) = (moved, known) {
                        news.told.push(format!(
                            "{shown} has changed since snapshot {}, and is imported again",
                            known.snapshot
                        ));
                    }
                    let into = moved.map_or(snapshot, |moved| moved.snapshot);
                    let file = file(&seen, &digest, into);
                    match moved {
                        Some(_) => news.add(&path, false, file),
                        None => news.add_fresh(&path, seen, file),
                    }
                }
            }
            here.insert(name);
        }
        self.remember_skipped((inputs, snapshot), &mut here, &mut news);
        self.carry_on(inputs, &here, &mut news)?;
        Ok(news)
    }

    /// Remembers objects that were fetched and are not read, so that they are not fetched again.
    fn remember_skipped(
        &self,
        (inputs, snapshot): (&Inputs, SnapshotId),
        here: &mut BTreeSet<String>,
        news: &mut News,
    ) {
        for object in inputs.remote.values().chain(&inputs.refused) {
            if here.insert(object.url.clone()) {
                news.files.push(ImportedFile {
                    path: object.url.clone(),
                    bytes: object.bytes,
                    modified: object.modified,
                    etag: object.etag.clone(),
                    blake3: self.way.clone(),
                    kind: ImportedKind::Skipped,
                    snapshot,
                });
            }
        }
    }

    /// Keeps in mind what was not looked at: other directories of the fleet, and objects that were not fetched. What is
    /// gone from where it was looked for is forgotten.
    fn carry_on(&self, inputs: &Inputs, here: &BTreeSet<String>, news: &mut News) -> Result<()> {
        let roots = roots(inputs)?;
        let is_elsewhere = |name: &String| !roots.iter().any(|root| is_below(name, root));
        let others = self
            .known
            .iter()
            .filter(|(name, _)| !here.contains(*name) && (is_elsewhere(name) || inputs.is_listed(name)));
        news.files.extend(others.map(|(_, file)| file.clone()));
        Ok(())
    }

    /// Removes what is left of imports that died before they had received all, when their files are still there.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub(super) fn clean(&self, app: &App, store: &Store, news: &News) -> Result<()> {
        let there: BTreeSet<&str> = news.files.iter().map(|file| file.path.as_str()).collect();
        for import in &self.interrupted {
            let mut taken =
                import.spool.index().imported.iter().filter(|file| file.snapshot == import.snapshot);
            if taken.all(|file| there.contains(file.path.as_str())) {
                app.output.say(&format!(
                    "the import that died as {} is made anew: its files are still here",
                    import.snapshot
                ));
                store.forget_import(import)?;
            } else {
                app.output.warn(&format!(
                    "files of the import that died as {0} are gone; `diffy snapshot recover {0}` makes a snapshot of what it received",
                    import.snapshot
                ));
            }
        }
        Ok(())
    }
}

impl News {
    fn add_fresh(&mut self, path: &Path, seen: Seen, file: ImportedFile) {
        let taken = Taken { seen, name: file.path.clone(), blake3: file.blake3.clone() };
        self.fresh.insert(path.to_owned(), taken);
        self.add(path, true, file);
    }

    fn add(&mut self, path: &Path, is_fresh: bool, file: ImportedFile) {
        self.lengths.insert(path.to_owned(), file.bytes);
        self.chosen.insert(path.to_owned(), is_fresh);
        self.files.push(file);
    }
}

/// Whether an object says whose a collection of Velociraptor is, or how it ended: what is new beside it needs it.
fn says_whose(url: &str) -> bool {
    let name = url.rsplit('/').next().unwrap_or_default();
    name.starts_with("client_info.") || name.starts_with("collection_context.")
}

fn kind_of(role: FileRole) -> ImportedKind {
    match role {
        FileRole::Log => ImportedKind::Log,
        FileRole::OfHost => ImportedKind::Host,
        FileRole::Rows => ImportedKind::Rows,
    }
}

/// What a look at a file found.
enum Looked<'a> {
    /// It is the one that is known.
    Same(&'a ImportedFile, Seen),
    /// It is another, or new; its digest.
    Other(Seen, String),
    /// It changed while it was looked at.
    Growing,
}

/// Compares a file with what is known of it: size and time first, then what is in it.
fn look<'a>(
    path: &Path,
    inputs: &Inputs,
    options: &ImportOptions,
    known: Option<&'a ImportedFile>,
) -> Result<Looked<'a>> {
    let seen = seen(path, inputs)?;
    let is_unchanged =
        |known: &&ImportedFile| known.is_unchanged(seen.bytes, seen.modified, seen.etag.as_deref());
    if let Some(known) = known.filter(is_unchanged) {
        return Ok(Looked::Same(known, seen));
    }
    let digest = digest_of(path, options, seen.bytes)?;
    let later = self::seen(path, inputs)?;
    let is_log_that_grows = later.place == seen.place && later.bytes >= seen.bytes && name_is_log(path);
    if later != seen && !is_log_that_grows {
        return Ok(Looked::Growing);
    }
    Ok(match known.filter(|known| known.blake3 == digest) {
        Some(known) => Looked::Same(known, seen),
        None => Looked::Other(seen, digest),
    })
}

/// What is appended to a log does not change what was there before.
fn name_is_log(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().contains(".log"))
}

fn seen(path: &Path, inputs: &Inputs) -> Result<Seen> {
    if let Some(object) = inputs.remote.get(path) {
        let etag = object.etag.clone();
        return Ok(Seen { bytes: object.bytes, modified: object.modified, etag, place: (0, 0) });
    }
    let unreadable = |source| Error::remote(format!("cannot read `{}`", path.display())).source(source);
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    let modified = metadata.modified().map_err(unreadable)?;
    let since = modified.duration_since(UNIX_EPOCH).map(|since| since.as_millis()).unwrap_or_default();
    let modified = i64::try_from(since).unwrap_or(i64::MAX);
    Ok(Seen { bytes: metadata.len(), modified, etag: None, place: (metadata.dev(), metadata.ino()) })
}

/// The digest of the first `bytes` of a file.
fn digest_of(path: &Path, options: &ImportOptions, bytes: u64) -> Result<String> {
    let mut files = options.files.clone();
    files.lengths.insert(path.to_owned(), bytes);
    Ok(digest(&mut *files.open(path)?))
}

/// Of what is in the file after unpacking, so that a log that was rotated and packed is the same log.
fn digest(reader: &mut dyn BufRead) -> String {
    let mut hasher = blake3::Hasher::new();
    loop {
        let length = match reader.fill_buf() {
            Ok([]) => break,
            Ok(bytes) => {
                hasher.update(bytes);
                bytes.len()
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => 0,
            // Told with its place when it is read in earnest.
            Err(error) => {
                hasher.update(error.to_string().as_bytes());
                break;
            }
        };
        reader.consume(length);
    }
    hasher.finalize().to_hex().to_string()
}

/// What a file is remembered as: the same from wherever the job is started.
fn name_of(inputs: &Inputs, path: &Path) -> Result<String> {
    match inputs.remote.get(path) {
        Some(object) => Ok(object.url.clone()),
        None => absolute(path),
    }
}

fn absolute(path: &Path) -> Result<String> {
    let whole = std::fs::canonicalize(path)
        .map_err(|source| Error::remote(format!("cannot read `{}`", path.display())).source(source))?;
    Ok(whole.to_string_lossy().into_owned())
}

/// What was named, as files are remembered, each with whether it is one object.
fn roots(inputs: &Inputs) -> Result<Vec<(String, bool)>> {
    let mut roots = inputs.named_urls().to_vec();
    for path in inputs.paths.iter().filter(|path| !inputs.is_copy(path)) {
        roots.push((absolute(path)?, false));
    }
    Ok(roots)
}

fn is_below(name: &str, (root, is_one): &(String, bool)) -> bool {
    let is_rest = |rest: &str| rest.is_empty() || rest.starts_with('/') || root.ends_with('/');
    if *is_one { name == root } else { name.strip_prefix(root.as_str()).is_some_and(is_rest) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_one_object_is_only_itself() {
        for (name, root, is_one, expect) in [
            ("s3://b/p/a.json", "s3://b/p/a.json", true, true),
            ("s3://b/p/b.json", "s3://b/p/a.json", true, false),
            ("s3://b/p/a.json/x", "s3://b/p/a.json", true, false),
            ("s3://b/p/a.json", "s3://b/p", false, true),
            ("s3://b/pp/a.json", "s3://b/p", false, false),
            ("s3://b/a", "s3://b/", false, true),
            ("/a/b", "/", false, true),
        ] {
            assert_eq!(is_below(name, &(root.to_owned(), is_one)), expect, "{name} {root}");
        }
    }

    #[test]
    fn a_file_that_became_another_while_it_was_read_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("osqueryd.results.log");
        let rotated = dir.path().join("osqueryd.results.log.1");
        let write = |path: &Path, text: &str| std::fs::write(path, text).unwrap();
        let (inputs, options) = (Inputs::default(), ImportOptions::default());
        let check = |change: &dyn Fn(), expect: bool| {
            let _ = std::fs::remove_file(&rotated);
            write(&path, "one\n");
            let seen = seen(&path, &inputs).unwrap();
            let blake3 = digest_of(&path, &options, seen.bytes).unwrap();
            change();
            let taken = Taken { seen, name: String::new(), blake3 };
            assert_eq!(taken.is_still_there(&path, &inputs, &options), expect);
        };
        let append = || write(&path, "one\ntwo\n");
        let rotate = |text: &str| {
            std::fs::rename(&path, &rotated).unwrap();
            write(&path, text);
        };
        check(&|| {}, true);
        check(&append, true);
        check(&|| write(&path, "two\ntwo\n"), false);
        check(&|| write(&path, ""), false);
        check(&|| rotate("two\ntwo\n"), false);
        check(&|| rotate("one\n"), false);
        check(&|| std::fs::rename(&path, &rotated).unwrap(), false);
    }
}
