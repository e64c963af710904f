//! Reads files before they are needed, so that a slow disk has many to fetch at once.
//!
//! An import reads one file after the other. From a cold disk or a file server each small one costs a wait, and hundreds
//! of thousands cost an hour, while the same disk fetches dozens at once in the time of one. So threads go ahead of the
//! reader and read what it will come to; the system keeps that in memory. They start when most files made the reader
//! wait: what is in memory already needs no help. Nothing depends on them, and what they cannot read is told when it is
//! read in earnest.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

/// How many files are waited for at once.
const THREADS: usize = 16;
/// Places that threads are ahead of the reader.
const LEAD: usize = 128;
/// Files of one place; more are read in vain if the reader is elsewhere.
const FILES_OF_A_PLACE: usize = 1_024;
/// Bytes of a file that who tells its kind may need: all of most files.
pub(super) const START: u64 = 64 << 10;
/// Bytes of a file that is to be read; what follows the system reads ahead by itself.
pub(super) const MOST: u64 = 1 << 20;
/// Bytes that are read at once.
const BUFFER: usize = 64 << 10;
/// Files that the reader opens before they are judged.
const OPENED: u32 = 64;
/// A few times what opening one takes where it is in memory. The reader's turn may pass to others meanwhile, but not at
/// every second file.
const QUICK: Duration = Duration::from_micros(50);

/// What a reader will come to, in its order: files, and directories of files.
#[derive(Debug)]
pub(super) struct Prefetch {
    shared: Arc<Shared>,
    pace: Cell<Pace>,
}

/// How the reader gets on.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    opened: u32,
    slow: u32,
    is_helped: bool,
}

#[derive(Debug)]
struct Shared {
    places: Vec<PathBuf>,
    /// Bytes that are read of each file.
    most: u64,
    at: Mutex<At>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct At {
    reader: usize,
    next: usize,
    has_ended: bool,
}

impl Prefetch {
    /// Of each file no more than the first `most` bytes are read.
    pub(super) fn new(places: Vec<PathBuf>, most: u64) -> Self {
        let shared = Shared { places, most, at: Mutex::default(), moved: Condvar::new() };
        Self { shared: Arc::new(shared), pace: Cell::default() }
    }

    /// The reader has come to this place, counted from 0.
    pub(super) fn reach(&self, place: usize) {
        self.shared.at().reader = place;
        if self.pace.get().is_helped {
            self.shared.moved.notify_all();
        }
    }

    /// Opens a file for the reader and reads its first bytes; where this has made the reader wait, threads go ahead.
    pub(super) fn open<T>(&self, open: impl FnOnce() -> T) -> T {
        if self.pace.get().is_helped {
            return open();
        }
        let start = Instant::now();
        let opened = open();
        self.count(start.elapsed());
        opened
    }

    fn count(&self, took: Duration) {
        let Pace { opened, slow, .. } = self.pace.get();
        let (opened, slow) = (opened + 1, slow + u32::from(took > QUICK));
        if opened < OPENED {
            return self.pace.set(Pace { opened, slow, is_helped: false });
        }
        let is_helped = slow * 2 > OPENED;
        self.pace.set(Pace { is_helped, ..Pace::default() });
        if is_helped {
            self.help();
        }
    }

    fn help(&self) {
        tracing::debug!(places = self.shared.places.len(), "files are slow to open: reading ahead");
        for _ in 0..THREADS {
            let shared = Arc::clone(&self.shared);
            // One less is only slower. Nobody waits for them: one may hang in a read that the reader never comes to.
            let _ = thread::Builder::new().name("prefetch".to_owned()).spawn(move || shared.run());
        }
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        self.shared.at().has_ended = true;
        self.shared.moved.notify_all();
    }
}

impl Shared {
    fn at(&self) -> MutexGuard<'_, At> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut buffer = vec![0; BUFFER];
        while let Some(place) = self.next() {
            self.place(place, &mut buffer);
        }
    }

    /// The next place, as soon as the reader is near enough.
    fn next(&self) -> Option<&Path> {
        let mut at = self.at();
        loop {
            // The reader reads what it is at by itself.
            at.next = at.next.max(at.reader + 1);
            let place = self.places.get(at.next).filter(|_| !at.has_ended)?;
            if at.next <= at.reader + LEAD {
                at.next += 1;
                return Some(place);
            }
            at = self.moved.wait(at).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn place(&self, place: &Path, buffer: &mut [u8]) {
        let Ok(files) = fs::read_dir(place) else { return self.file(place, buffer) };
        let mut files: Vec<PathBuf> =
            files.take(FILES_OF_A_PLACE).filter_map(|file| Some(file.ok()?.path())).collect();
        // As the reader does.
        files.sort();
        files.iter().take_while(|_| !self.at().has_ended).for_each(|file| self.file(file, buffer));
    }

    fn file(&self, path: &Path, buffer: &mut [u8]) {
        let Some(mut file) = regular(path) else { return };
        let mut left = self.most;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            match file.read(&mut buffer[..most]) {
                Ok(length) if length > 0 => left -= length as u64,
                _ => return,
            }
        }
    }
}

/// A file of that very place: a link leads to what nobody named, a pipe never ends, a device may do anything.
fn regular(path: &Path) -> Option<File> {
    fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)?;
    // It may have become another since.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).ok()?;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    file.metadata().ok()?.is_file().then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the reader is helped after openings of which so many were slow, in a window as long as needed.
    fn is_helped(slow: u32, quick: u32) -> bool {
        let prefetch = Prefetch::new(Vec::new(), 1);
        (0..slow).for_each(|_| prefetch.count(QUICK * 1_000));
        (0..quick).for_each(|_| prefetch.count(QUICK));
        prefetch.pace.get().is_helped
    }

    #[test]
    fn who_waits_at_most_files_is_helped() {
        assert!(!is_helped(0, 100 * OPENED));
        assert!(!is_helped(OPENED - 1, 0), "it is too early to tell");
        assert!(is_helped(OPENED, 0));
        assert!(is_helped(OPENED / 2 + 1, OPENED / 2 - 1));
        assert!(!is_helped(OPENED / 2, OPENED / 2), "half of them may have lost their turn");
    }

    #[test]
    fn places_come_in_order_as_far_as_the_reader_is_near() {
        let places: Vec<PathBuf> = (0..2 * LEAD).map(|place| place.to_string().into()).collect();
        let prefetch = Prefetch::new(places.clone(), 1);
        prefetch.reach(5);
        for place in &places[6..=5 + LEAD] {
            assert_eq!(prefetch.shared.next(), Some(place.as_path()));
        }
        thread::scope(|scope| {
            let shared = &prefetch.shared;
            let next = scope.spawn(|| shared.next().map(Path::to_owned));
            prefetch.pace.set(Pace { is_helped: true, ..Pace::default() });
            prefetch.reach(6);
            assert_eq!(next.join().unwrap().as_ref(), Some(&places[6 + LEAD]));
        });
        // Who was overtaken does not read what lies behind.
        prefetch.reach(2 * LEAD - 2);
        assert_eq!(prefetch.shared.next(), Some(places[2 * LEAD - 1].as_path()));
        assert_eq!(prefetch.shared.next(), None);
    }

    #[test]
    fn an_end_is_the_end() {
        let prefetch = Prefetch::new(vec!["a".into(), "b".into()], 1);
        let shared = Arc::clone(&prefetch.shared);
        drop(prefetch);
        assert_eq!(shared.next(), None);
    }

    #[test]
    fn only_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("file"), "text").unwrap();
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, path("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .unwrap();
        let opened = ["file", "link", "pipe", "", "gone"].map(|name| regular(&path(name)).is_some());
        assert_eq!(opened, [true, false, false, false, false]);
        let shared = &Prefetch::new(Vec::new(), u64::MAX).shared;
        let mut buffer = [0; 3];
        shared.place(dir.path(), &mut buffer);
        assert_eq!(&buffer, b"tex".as_slice());
    }
}
