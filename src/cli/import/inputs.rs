//! What an import reads, as files of this machine: paths, standard input, objects on S3.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use futures::{StreamExt, TryStreamExt, stream};
use tempfile::TempDir;

use super::super::App;
use super::super::progress::Progress;
use crate::decode::Files;
use crate::error::{Error, Result};
use crate::model::SnapshotId;
use crate::store::{Objects, RemoteFile, Store};

/// Objects that are fetched at the same time: small ones take a wait each, large ones share the line.
const FETCHED_AT_ONCE: usize = 32;
/// What standard input is called.
const STANDARD_INPUT: &str = "standard input";

/// A place that was named.
#[derive(Debug)]
pub(super) enum Source {
    /// A file or directory of this machine.
    Local(PathBuf),
    /// Standard input.
    Stdin,
    /// Objects on S3.
    Remote(Remote),
}

/// Says of an object whether it is fetched.
pub(super) type Wanted<'a> = &'a dyn Fn(&RemoteFile) -> bool;

/// Objects on S3.
#[derive(Debug)]
pub(super) struct Remote {
    objects: Objects,
    url: String,
    pub(super) files: Vec<RemoteFile>,
    pub(super) skipped: Vec<String>,
}

/// Files of this machine, copies included.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    /// Named paths, and copies of what was named.
    pub(super) paths: Vec<PathBuf>,
    /// What copies are called.
    pub(super) names: Vec<(PathBuf, String)>,
    /// The copy of standard input.
    pub(super) stdin: Option<PathBuf>,
    /// Objects by their copies.
    pub(super) remote: BTreeMap<PathBuf, RemoteFile>,
    /// Objects that are not fetched because a directory of this machine cannot have them.
    pub(super) refused: Vec<RemoteFile>,
    /// Empty files that stand for objects that were not wanted.
    pub(super) stand_ins: BTreeSet<PathBuf>,
    /// What cannot be read, each with the reason.
    pub(super) skipped: Vec<String>,
    /// URLs of all objects that are there, fetched or not.
    listed: BTreeSet<String>,
    /// URLs that were named, each with whether it is that of one object.
    urls: Vec<(String, bool)>,
    /// Where copies lie, until this is dropped.
    copies: Option<TempDir>,
}

/// Looks at what was named, without reading any of it.
///
/// # Errors
/// A path cannot be looked at, a bucket cannot be listed, or standard input is named twice.
pub(super) async fn sources(app: &App, named: &[PathBuf]) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for path in named {
        let text = path.to_str().unwrap_or_default();
        sources.push(match text {
            "-" => Source::Stdin,
            url if url.starts_with("s3:") => Source::Remote(Box::pin(remote(app, url)).await?),
            _ => local(path)?,
        });
    }
    if sources.iter().filter(|source| matches!(source, Source::Stdin)).count() > 1 {
        return Err(Error::usage("standard input (`-`) is there only once"));
    }
    Ok(sources)
}

fn local(path: &Path) -> Result<Source> {
    std::fs::metadata(path).map_err(|source| {
        Error::usage(format!("cannot read `{}`", path.display())).source(source).hint("nothing was imported")
    })?;
    Ok(Source::Local(path.to_owned()))
}

async fn remote(app: &App, url: &str) -> Result<Remote> {
    let objects = Objects::find(url, &app.store_config()).await?;
    let found = objects.list().await?;
    Ok(Remote { objects, url: url.to_owned(), files: found.files, skipped: found.skipped })
}

impl Inputs {
    /// Copies what is not on this machine to a directory of its own beside the spool; of objects only those that
    /// `wanted` says.
    ///
    /// # Errors
    /// Something cannot be read, the copies have no room, or they are more than `most` bytes.
    pub(super) async fn copy(
        app: &App,
        (store, snapshot): (&Store, SnapshotId),
        (sources, most): (Vec<Source>, u64),
        wanted: Wanted<'_>,
    ) -> Result<Self> {
        let mut inputs = Self::default();
        if sources.iter().any(|source| !matches!(source, Source::Local(_))) {
            inputs.copies = Some(store.import_dir(snapshot)?);
        }
        for (number, source) in sources.into_iter().enumerate() {
            match source {
                Source::Local(path) => inputs.paths.push(path),
                Source::Stdin => inputs.copy_stdin(number)?,
                Source::Remote(remote) => inputs.copy_objects(app, number, (remote, most, wanted)).await?,
            }
        }
        Ok(inputs)
    }

    fn dir(&self, number: usize) -> Result<PathBuf> {
        let copies = self.copies.as_ref().ok_or_else(|| Error::internal("there is no place for copies"))?;
        Ok(copies.path().join(number.to_string()))
    }

    fn copy_stdin(&mut self, number: usize) -> Result<()> {
        let dir = self.dir(number)?;
        let path = dir.join("stdin");
        let cannot = |source| {
            Error::remote("cannot copy standard input")
                .source(source)
                .hint("it is copied beside the spool before it is read; free some space there")
        };
        std::fs::create_dir_all(&dir).map_err(cannot)?;
        let mut file = std::fs::File::create_new(&path).map_err(cannot)?;
        io::copy(&mut io::stdin().lock().by_ref(), &mut file).map_err(cannot)?;
        self.names.push((path.clone(), STANDARD_INPUT.to_owned()));
        self.paths.push(path.clone());
        self.stdin = Some(path);
        Ok(())
    }

    async fn copy_objects(
        &mut self,
        app: &App,
        number: usize,
        (remote, most, wanted): (Remote, u64, Wanted<'_>),
    ) -> Result<()> {
        self.listed.extend(remote.files.iter().map(|file| file.url.clone()));
        // A prefix may have one object too.
        let is_one = matches!(remote.files.as_slice(), [file] if file.url == remote.objects.named());
        self.urls.push((remote.objects.named(), is_one));
        let (folders, remote_files) = without_folders(remote.files);
        for folder in folders {
            self.skipped.push(format!("{}: a folder", folder.url));
            self.refused.push(folder);
        }
        let all: BTreeSet<PathBuf> = remote_files.iter().map(|file| file.below.clone()).collect();
        // A key may be both an object and the start of others; a directory of this machine cannot.
        let is_folder_too =
            |file: &RemoteFile| file.below.ancestors().skip(1).any(|folder| all.contains(folder));
        let (files, others): (Vec<_>, Vec<_>) = remote_files.into_iter().partition(|file| wanted(file));
        let bytes: u64 = files.iter().map(|file| file.bytes).sum();
        if bytes > most {
            return Err(Error::usage(format!("`{}` holds {}", remote.url, indicatif::HumanBytes(bytes)))
                .hint("`--download-limit GIB` allows so much; a longer prefix names less"));
        }
        self.skipped.extend(remote.skipped);
        let root = self.dir(number)?.join(folder(&remote.url, is_one));
        let progress = Progress::new(app.progress, "fetching objects", Some(files.len() as u64));
        let (refused, files): (Vec<_>, Vec<_>) = files.into_iter().partition(is_folder_too);
        for file in refused {
            self.skipped.push(format!("{}: another object has the name of its folder", file.url));
            self.refused.push(file);
        }
        let fetch = async |file: RemoteFile| -> Result<(RemoteFile, Option<RemoteFile>)> {
            let fetched = remote.objects.fetch(&file, &root.join(&file.below)).await?;
            progress.inc(1);
            Ok((file, fetched))
        };
        let fetched: Vec<_> =
            stream::iter(files).map(fetch).buffer_unordered(FETCHED_AT_ONCE).try_collect().await?;
        let mut copies = Vec::new();
        for (listed, fetched) in fetched {
            match fetched {
                Some(file) => copies.push((root.join(&file.below), file)),
                // What the console makes for a folder is listed without the slash that it is called by.
                None if listed.bytes == 0 => {
                    self.skipped.push(format!("{}: a folder, or gone since it was listed", listed.url));
                    self.refused.push(listed);
                }
                None => self.skipped.push(format!(
                    "{}: it went or was written again after it was listed; the next import looks at it",
                    listed.url
                )),
            }
        }
        if !copies.is_empty() {
            let others = others.iter().filter(|file| !is_folder_too(file));
            self.stand_in(others.map(|file| root.join(&file.below)))?;
        }
        let url = remote.url.trim_end_matches('/');
        let above = url.rsplit_once('/').map_or(url, |(above, _)| above);
        self.names.push((root.clone(), if is_one { above } else { url }.to_owned()));
        match copies.first() {
            Some((copy, _)) if is_one => self.paths.push(copy.clone()),
            Some(_) => self.paths.push(root),
            None => {}
        }
        self.remote.extend(copies);
        Ok(())
    }

    /// Makes the tree look as if known objects had been fetched: what a directory is, its names say too.
    fn stand_in(&mut self, paths: impl Iterator<Item = PathBuf>) -> Result<()> {
        for path in paths {
            let cannot = |source| {
                Error::remote(format!("cannot write `{}`", path.display()))
                    .source(source)
                    .hint("free some space")
            };
            if let Some(dir) = path.parent() {
                std::fs::create_dir_all(dir).map_err(cannot)?;
            }
            std::fs::File::create_new(&path).map_err(cannot)?;
            self.stand_ins.insert(path);
        }
        Ok(())
    }

    /// Whether an object of that URL is there.
    pub(super) fn is_listed(&self, url: &str) -> bool {
        self.listed.contains(url)
    }

    /// URLs that were named, each with whether it is that of one object, below which nothing was looked for.
    pub(super) fn named_urls(&self) -> &[(String, bool)] {
        &self.urls
    }

    /// Whether a path is that of copies.
    pub(super) fn is_copy(&self, path: &Path) -> bool {
        self.copies.as_ref().is_some_and(|copies| path.starts_with(copies.path()))
    }

    /// How the files are opened and named.
    pub(super) fn files(&self, unpacked_bytes: Option<u64>) -> Files {
        let mut files = Files { names: self.names.clone(), ..Files::default() };
        if let Some(bytes) = unpacked_bytes {
            files.unpacked_bytes = bytes;
        }
        files
    }
}

/// Tells apart what the console of S3 makes for folders: empty objects, listed without the slash that they are called by.
fn without_folders(files: Vec<RemoteFile>) -> (Vec<RemoteFile>, Vec<RemoteFile>) {
    let above: BTreeSet<PathBuf> =
        files.iter().flat_map(|file| file.below.ancestors().skip(1).map(Path::to_owned)).collect();
    files.into_iter().partition(|file| file.bytes == 0 && above.contains(&file.below))
}

/// What the directory of copies is called: the host, where files of one host lie there.
fn folder(url: &str, is_one: bool) -> &str {
    let mut parts = url.trim_end_matches('/').rsplit('/');
    let name = parts.nth(usize::from(is_one)).unwrap_or_default();
    if name.is_empty() || [".", ".."].contains(&name) || name.contains('\0') { "objects" } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_lie_in_a_folder_of_the_name_that_was_named() {
        assert_eq!(folder("s3://bucket/dumps/web-1/", false), "web-1");
        assert_eq!(folder("s3://bucket/dumps/web-1/users.json", true), "web-1");
        assert_eq!(folder("s3://bucket", false), "bucket");
        assert_eq!(folder("s3://bucket/..", false), "objects");
    }
}
