//! What a table is gathered with: where to look, until when, and what could not be read.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustix::fs::{Mode, OFlags};

use super::rows::Rows;
use crate::model::Status;

/// Most that is read of one file, in bytes.
pub(super) const MAX_FILE: u64 = 64 << 20;

/// Most that one table may answer, in bytes.
const MAX_ANSWER: usize = 512 << 20;

/// Where a table looks and how long it may take.
#[derive(Debug)]
pub(super) struct Context {
    root: PathBuf,
    deadline: Instant,
    stop: Arc<AtomicBool>,
}

impl Context {
    /// Tables under `root`, until `deadline` or until `stop` is set.
    pub(super) fn new(root: &Path, deadline: Instant, stop: Arc<AtomicBool>) -> Self {
        let root = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
        Self { root, deadline, stop }
    }

    /// Whether this is the running system and not a directory that looks like one.
    pub(super) fn is_live(&self) -> bool {
        self.root == Path::new("/")
    }

    /// An absolute path of the host as a path that can be opened; `..` does not lead out of the root.
    pub(super) fn path(&self, absolute: impl AsRef<OsStr>) -> PathBuf {
        let inside = Path::new(absolute.as_ref()).components();
        let mut path = self.root.clone();
        path.extend(inside.filter(|part| matches!(part, Component::Normal(_))));
        path
    }

    /// [`Self::path`] of bytes that the host gave.
    pub(super) fn path_of(&self, absolute: &[u8]) -> PathBuf {
        self.path(OsStr::from_bytes(absolute))
    }

    /// A path that can be opened as the host knows it.
    pub(super) fn shown(&self, path: &Path) -> Vec<u8> {
        if self.is_live() {
            return path.as_os_str().as_bytes().to_vec();
        }
        let inside = path.strip_prefix(&self.root).unwrap_or(path);
        [b"/", inside.as_os_str().as_bytes()].concat()
    }

    /// The directories that exist, each once under its real path: on merged-usr systems `/bin` is `/usr/bin`.
    pub(super) fn real_dirs(&self, absolute: &[&str]) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = Vec::new();
        for dir in absolute {
            let Ok(real) = fs::canonicalize(self.path(dir)) else { continue };
            if real.starts_with(&self.root) && real.is_dir() && !found.contains(&real) {
                found.push(real);
            }
        }
        found
    }

    /// Whether there is no time left.
    pub(super) fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || Instant::now() >= self.deadline
    }
}

/// What was found for one table, and what was not.
#[derive(Debug)]
pub(super) struct Gathered {
    /// The rows.
    pub(super) rows: Rows,
    noun: &'static str,
    tried: usize,
    refused: usize,
    what: BTreeSet<String>,
    cut: Option<String>,
    unsupported: Option<String>,
}

impl Gathered {
    /// Nothing yet; `noun` names the things that may be refused: `files`, `processes`.
    pub(super) fn of(noun: &'static str) -> Self {
        Self {
            rows: Rows::new(),
            noun,
            tried: 0,
            refused: 0,
            what: BTreeSet::new(),
            cut: None,
            unsupported: None,
        }
    }

    /// This host does not have the table, for the reason given.
    pub(super) fn not_supported(reason: impl Into<String>) -> Self {
        Self { unsupported: Some(reason.into()), ..Self::of("files") }
    }

    /// Counts one thing that was looked at, and the parts of it that the system refused.
    pub(super) fn looked_at(&mut self, refused: &[&str]) {
        self.tried += 1;
        if !refused.is_empty() {
            self.refused += 1;
            // A few examples say enough.
            let room = 8usize.saturating_sub(self.what.len());
            self.what.extend(refused.iter().take(room).map(|part| (*part).to_owned()));
        }
    }

    /// Says that rows are missing at the end.
    pub(super) fn cut_off(&mut self, why: impl Into<String>) {
        self.cut.get_or_insert_with(|| why.into());
    }

    /// Whether to go on; when not, the answer already says why.
    pub(super) fn goes_on(&mut self, context: &Context) -> bool {
        if context.is_over() {
            self.cut_off("stopped at the time limit");
        } else if self.rows.bytes() > MAX_ANSWER {
            self.cut_off(format!("stopped at {} MiB", MAX_ANSWER >> 20));
        }
        self.cut.is_none()
    }

    /// Counts an attempt on `path`, and its failure unless the thing is simply gone.
    pub(super) fn attempt<T>(&mut self, context: &Context, path: &Path, result: io::Result<T>) -> Option<T> {
        match result {
            Ok(value) => {
                self.looked_at(&[]);
                Some(value)
            }
            Err(error) if is_gone(&error) => None,
            Err(_) => {
                self.looked_at(&[&String::from_utf8_lossy(&context.shown(path))]);
                None
            }
        }
    }

    /// The content of a regular file; `None` when it is not there or refused, which is counted.
    pub(super) fn read(&mut self, context: &Context, path: &Path) -> Option<Vec<u8>> {
        self.take(context, path, read_regular(path, MAX_FILE))
    }

    fn take(
        &mut self,
        context: &Context,
        path: &Path,
        result: io::Result<(Vec<u8>, bool)>,
    ) -> Option<Vec<u8>> {
        let (bytes, whole) = self.attempt(context, path, result)?;
        if !whole {
            let shown = context.shown(path);
            self.cut_off(format!("`{}` is longer than {} MiB", shown.escape_ascii(), MAX_FILE >> 20));
        }
        Some(bytes)
    }

    /// [`Self::read`] of a file that its owner may swap for a link: a link is followed only to what the link's owner
    /// owns, so that nobody gets other people's secrets copied into the answer under his own name.
    pub(super) fn read_own(&mut self, context: &Context, path: &Path) -> Option<Vec<u8>> {
        self.take(context, path, read_own(path))
    }

    /// The entries of a directory by name, links not followed; empty when it is not there or refused.
    pub(super) fn list(&mut self, context: &Context, dir: &Path) -> Vec<(PathBuf, fs::Metadata)> {
        let Some(entries) = self.attempt(context, dir, fs::read_dir(dir)) else { return Vec::new() };
        let mut found: Vec<(PathBuf, fs::Metadata)> = entries
            .filter_map(io::Result::ok)
            .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
            .collect();
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        found
    }

    /// [`Self::list`] of the directory and of those below it down to `depth` levels, links not followed.
    pub(super) fn walk(
        &mut self,
        context: &Context,
        dir: &Path,
        depth: usize,
    ) -> Vec<(PathBuf, fs::Metadata)> {
        let mut found = Vec::new();
        let mut open = vec![(dir.to_owned(), depth)];
        while let Some((dir, depth)) = open.pop() {
            if !self.goes_on(context) {
                break;
            }
            for (path, metadata) in self.list(context, &dir) {
                if metadata.is_dir() && depth > 1 {
                    open.push((path.clone(), depth - 1));
                }
                found.push((path, metadata));
            }
        }
        found
    }

    /// How it ended, the rows, and one sentence on what went wrong.
    pub(super) fn finish(self) -> (Status, Vec<u8>, String) {
        if let Some(reason) = self.unsupported {
            return (Status::NotSupported, Vec::new(), reason);
        }
        let denied = (self.refused > 0).then(|| {
            let what: Vec<String> = self.what.into_iter().collect();
            let how = if rustix::process::geteuid().is_root() { "even as root" } else { "without root" };
            let (refused, tried, noun) = (self.refused, self.tried, self.noun);
            format!("{refused} of {tried} {noun} could not be read {how}: {}", what.join(", "))
        });
        let status = match (&self.cut, &denied) {
            (Some(_), _) => Status::Truncated,
            (None, Some(_)) => Status::Denied,
            (None, None) => Status::Ok,
        };
        let error: Vec<String> = self.cut.into_iter().chain(denied).collect();
        (status, self.rows.finish(), error.join("; "))
    }
}

/// Whether a failure only says that the thing is not there (any more), or is nothing that can be read.
pub(super) fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, NotADirectory, NotFound};
    // `/proc` says "no such process" when one ends between two reads.
    let ended = error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error());
    ended || matches!(error.kind(), NotFound | NotADirectory | InvalidInput)
}

/// [`read_regular`] unless it is a link to what somebody else owns.
fn read_own(path: &Path) -> io::Result<(Vec<u8>, bool)> {
    let link = fs::symlink_metadata(path)?;
    let is_foreign = link.is_symlink() && link.uid() != 0 && link.uid() != fs::metadata(path)?.uid();
    if is_foreign {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a link to somebody else's file"));
    }
    read_regular(path, MAX_FILE)
}

/// At most `max` bytes of a regular file, and whether that is all of it.
///
/// Pipes, sockets and devices are refused as invalid input without being opened for reading: a pipe named
/// `.bash_history` must not make us wait.
pub(super) fn read_regular(path: &Path, max: u64) -> io::Result<(Vec<u8>, bool)> {
    let mut file = open_regular(path)?;
    let mut bytes = Vec::new();
    file.by_ref().take(max).read_to_end(&mut bytes)?;
    let whole = (bytes.len() as u64) < max || file.read(&mut [0])? == 0;
    Ok((bytes, whole))
}

/// Opens a regular file for reading, and nothing else.
pub(super) fn open_regular(path: &Path) -> io::Result<File> {
    let no_file = || io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
    if !fs::metadata(path)?.is_file() {
        return Err(no_file());
    }
    // It may have been swapped since, so that the open must not wait either, and what was opened is looked at again.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(no_file()) }
}

/// Lines without surrounding blanks, empty ones left out.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty())
}

/// Words between blanks.
pub(super) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

/// A decimal number in bytes.
pub(super) fn number<T: std::str::FromStr>(bytes: &[u8]) -> Option<T> {
    std::str::from_utf8(bytes.trim_ascii()).ok()?.parse().ok()
}

/// The two sides of the first `separator`.
pub(super) fn split_once(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(separator, bytes)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// The name at the end of a path.
pub(super) fn file_name(path: &Path) -> &[u8] {
    path.file_name().unwrap_or_default().as_bytes()
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use rustix::fs::{CWD, FileType};
    use tempfile::TempDir;

    use super::*;

    /// A context for a prepared directory.
    pub(in super::super) fn context(root: &Path) -> Context {
        Context::new(root, Instant::now() + Duration::from_secs(60), Arc::default())
    }

    /// A prepared directory with these files.
    pub(in super::super) fn host(files: &[(&str, &[u8])]) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        dir
    }

    /// The rows of a table, which must be UTF-8.
    pub(in super::super) fn rows(gathered: Gathered) -> Vec<serde_json::Value> {
        serde_json::from_slice(&gathered.finish().1).unwrap()
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let dir = host(&[]);
        let pipe = dir.path().join(".bash_history");
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert_eq!(open_regular(&pipe).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let mut gathered = Gathered::of("files");
        assert_eq!(gathered.read(&context(dir.path()), &pipe), None);
        assert_eq!(gathered.finish().0, Status::Ok);
    }

    #[test]
    fn reading_stops_at_the_limit() {
        let dir = host(&[("a", b"12345")]);
        let path = dir.path().join("a");
        assert_eq!(read_regular(&path, 5).unwrap(), (b"12345".to_vec(), true));
        assert_eq!(read_regular(&path, 4).unwrap(), (b"1234".to_vec(), false));
    }

    #[test]
    fn links_in_a_loop_and_paths_upwards_stay_inside() {
        let dir = host(&[("a/b", b"")]);
        std::os::unix::fs::symlink("..", dir.path().join("a/up")).unwrap();
        let context = context(dir.path());
        let found = Gathered::of("files").walk(&context, &context.path("/"), 9);
        assert_eq!(found.len(), 3);
        assert_eq!(context.shown(&context.path("/../../a/../b")), b"/a/b");
    }

    #[test]
    fn the_time_limit_leaves_what_was_found() {
        let dir = host(&[("a/b", b"")]);
        let context = Context::new(dir.path(), Instant::now(), Arc::default());
        let mut gathered = Gathered::of("files");
        gathered.rows.push(|row| {
            row.text("path", "x");
        });
        assert!(!gathered.goes_on(&context));
        let (status, json, error) = gathered.finish();
        assert_eq!((status, error.as_str()), (Status::Truncated, "stopped at the time limit"));
        assert!(json.len() > 5);
    }

    #[test]
    fn what_was_refused_is_counted_and_the_rest_is_kept() {
        let mut gathered = Gathered::of("processes");
        gathered.looked_at(&[]);
        gathered.looked_at(&["path", "cwd"]);
        let (status, json, error) = gathered.finish();
        assert_eq!((status, json.as_slice()), (Status::Denied, &b"[\n]\n"[..]));
        assert!(
            error.starts_with("1 of 2 processes could not be read") && error.ends_with(": cwd, path"),
            "{error}"
        );
    }

    #[test]
    fn a_link_to_somebody_elses_file_is_not_followed() {
        let dir = host(&[("secret", b"hash"), ("mine", b"text")]);
        let root = dir.path();
        for (link, target) in [("a", "secret"), ("b", "mine")] {
            std::os::unix::fs::symlink(target, root.join(link)).unwrap();
            // Only root can give files away, so that others cannot test this.
            let _ = std::os::unix::fs::lchown(root.join(link), Some(4242), None);
        }
        if fs::symlink_metadata(root.join("a")).unwrap().uid() == 4242 {
            std::os::unix::fs::chown(root.join("mine"), Some(4242), None).unwrap();
            let mut gathered = Gathered::of("files");
            assert_eq!(gathered.read_own(&context(root), &root.join("a")), None);
            assert_eq!(gathered.read_own(&context(root), &root.join("b")), Some(b"text".to_vec()));
        }
    }
}
