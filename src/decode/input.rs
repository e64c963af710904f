//! Files as byte streams: unpacked when their first bytes say so, as UTF-8 when they are UTF-16, and never longer than
//! allowed.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Take};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use rustix::fs::OFlags;

use super::prefetch::Prefetch;
use super::utf16::Utf16;
use crate::error::{Error, Result};

const GZIP: [u8; 2] = [0x1F, 0x8B];
const ZSTD: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
const BUFFER: usize = 128 << 10;
/// A packed file may always become so many times larger.
const RATIO: u64 = 100;
/// What a packed file may become when nobody says, in bytes.
pub(super) const UNPACKED_BYTES: u64 = 1 << 30;

/// How files are opened, and what they are called in messages.
#[derive(Debug, Clone)]
pub struct Files {
    /// Bytes that a packed file may become, or a hundred times its size where that is more: a few kilobytes can say
    /// terabytes.
    pub unpacked_bytes: u64,
    /// What stands for the directory or file of a path in messages: copies of objects have names that nobody knows.
    pub names: Vec<(PathBuf, String)>,
    /// Files of which only so many bytes are read: what was there when they were looked at.
    pub lengths: BTreeMap<PathBuf, u64>,
}

impl Default for Files {
    fn default() -> Self {
        Self { unpacked_bytes: UNPACKED_BYTES, names: Vec::new(), lengths: BTreeMap::new() }
    }
}

impl Files {
    /// What the file is called in messages.
    pub fn name(&self, path: &Path) -> String {
        let known = self.names.iter().find_map(|(from, name)| Some((path.strip_prefix(from).ok()?, name)));
        match known {
            Some((rest, name)) if rest.as_os_str().is_empty() => name.clone(),
            Some((rest, name)) => format!("{}/{}", name.trim_end_matches('/'), rest.display()),
            None => path.display().to_string(),
        }
    }

    /// Opens a plain, gzip or Zstandard file, of one member or many.
    ///
    /// # Errors
    /// The file cannot be opened or read; it is named. Reading fails where a packed file becomes too large.
    pub fn open(&self, path: &Path) -> Result<Box<dyn BufRead>> {
        self.unpack(path, self.begin(path))
    }

    /// As [`Self::open`], with help where others were slow.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) fn open_with(&self, prefetch: &Prefetch, path: &Path) -> Result<Box<dyn BufRead>> {
        self.unpack(path, prefetch.open(|| self.begin(path)))
    }

    /// Opens a file and reads its first bytes; what waits for the disk. Its size comes along.
    fn begin(&self, path: &Path) -> io::Result<(u64, BufReader<Take<File>>)> {
        let (file, size) = open_file(path)?;
        let length = self.lengths.get(path).copied().unwrap_or(u64::MAX);
        let mut reader = BufReader::with_capacity(BUFFER, file.take(length));
        reader.fill_buf()?;
        Ok((size, reader))
    }

    fn unpack(
        &self,
        path: &Path,
        begun: io::Result<(u64, BufReader<Take<File>>)>,
    ) -> Result<Box<dyn BufRead>> {
        let unreadable = |source| self.unreadable(path, source);
        let (size, reader) = begun.map_err(unreadable)?;
        let head = reader.buffer();
        let most = self.unpacked_bytes.max(size.saturating_mul(RATIO));
        if head.starts_with(&GZIP) {
            return Ok(as_utf8(Box::new(buffered(Bounded::new(MultiGzDecoder::new(reader), most)))));
        }
        if head.starts_with(&ZSTD) {
            let decoder = zstd::Decoder::with_buffer(reader).map_err(unreadable)?;
            return Ok(as_utf8(Box::new(buffered(Bounded::new(decoder, most)))));
        }
        Ok(as_utf8(Box::new(reader)))
    }

    /// The first bytes of a file after unpacking, at most `limit`; shorter when the file is, or breaks off.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(super) fn head(&self, path: &Path, limit: u64) -> Result<Vec<u8>> {
        let mut head = Vec::new();
        // What breaks off while it is unpacked is found again, and reported with its place, when it is read in earnest.
        let _ = self.open(path)?.take(limit).read_to_end(&mut head);
        Ok(head)
    }

    /// The first bytes of a file as they lie there, at most `limit`.
    ///
    /// # Errors
    /// The file cannot be opened or read.
    pub(super) fn first_bytes(&self, path: &Path, limit: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; limit];
        let unreadable = |source| self.unreadable(path, source);
        let length = open_file(path).and_then(|(mut file, _)| file.read(&mut bytes)).map_err(unreadable)?;
        bytes.truncate(length);
        Ok(bytes)
    }

    /// The error for a path that cannot be read.
    pub(super) fn unreadable(&self, path: &Path, source: io::Error) -> Error {
        Error::remote(format!("cannot read `{}`", self.name(path)))
            .source(source)
            .hint("check that the path exists and that you may read it")
    }
}

/// Opens what has been found to be a file, and tells its size. It may have become another since, say a pipe, which would
/// wait for ever.
fn open_file(path: &Path) -> io::Result<(File, u64)> {
    let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no file any more"));
    }
    Ok((file, metadata.len()))
}

fn buffered<R: Read>(reader: R) -> BufReader<R> {
    BufReader::with_capacity(BUFFER, reader)
}

/// Turns UTF-16, which is what a redirection in PowerShell writes, into UTF-8.
fn as_utf8(mut reader: Box<dyn BufRead>) -> Box<dyn BufRead> {
    let is_big_endian = match reader.fill_buf() {
        Ok([0xFE, 0xFF, ..]) => true,
        Ok([0xFF, 0xFE, ..]) => false,
        Ok(_) => return reader,
        // A decoder may tell only once that its input is none.
        Err(error) => return Box::new(buffered(Broken(error.kind(), error.to_string()))),
    };
    Box::new(buffered(Utf16::new(reader, is_big_endian)))
}

/// A stream that failed at its first byte.
struct Broken(io::ErrorKind, String);

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::new(self.0, self.1.clone()))
    }
}

/// A stream that fails when it is longer than allowed.
struct Bounded<R> {
    inner: R,
    left: u64,
    most: u64,
}

impl<R> Bounded<R> {
    fn new(inner: R, most: u64) -> Self {
        Self { inner, left: most, most }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            // Longer, or just as long as allowed?
            let mut next = [0];
            return match self.inner.read(&mut next)? {
                0 => Ok(0),
                _ => Err(io::Error::other(format!(
                    "this packed file becomes more than {} bytes; `--unpacked-limit` allows more",
                    self.most
                ))),
            };
        }
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.inner.read(&mut buffer[..room])?;
        self.left -= length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(text: &str) -> Vec<u8> {
        zstd::encode_all(text.as_bytes(), 1).unwrap()
    }

    fn read(files: &Files, path: &Path) -> io::Result<String> {
        let mut text = String::new();
        files.open(path).unwrap().read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn packed_files_of_several_members_are_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        let check = |bytes: &[u8], expect: &str| {
            let path = dir.path().join("x");
            fs::write(&path, bytes).unwrap();
            assert_eq!(read(&Files::default(), &path).unwrap(), expect);
        };
        check(b"", "");
        check(b"plain", "plain");
        check(&[gzip("one "), gzip("two")].concat(), "one two");
        check(&[zstd("one "), zstd("two")].concat(), "one two");
        check(b"\xFF\xFEa\0\xE9\0", "a\u{E9}");
        check(&gzip("\u{FEFF}a"), "\u{FEFF}a");
    }

    #[test]
    fn what_unpacks_to_more_than_allowed_ends_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bomb");
        let text = "x".repeat(1 << 20);
        for bytes in [gzip(&text), zstd(&text)] {
            fs::write(&path, &bytes).unwrap();
            let files = Files { unpacked_bytes: 1 << 19, ..Files::default() };
            let most = (1 << 19).max(bytes.len() * 100);
            let mut seen = Vec::new();
            let error = files.open(&path).unwrap().read_to_end(&mut seen);
            match most < text.len() {
                true => assert!(error.unwrap_err().to_string().contains("--unpacked-limit")),
                false => assert_eq!(error.unwrap(), text.len()),
            }
            assert_eq!(seen.len(), most.min(text.len()));
            assert_eq!(read(&Files::default(), &path).unwrap().len(), text.len());
        }
    }

    #[test]
    fn only_what_was_there_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "one\ntwo\n").unwrap();
        let files = Files { lengths: [(path.clone(), 4)].into(), ..Files::default() };
        assert_eq!(read(&files, &path).unwrap(), "one\n");
    }

    #[test]
    fn a_pipe_in_the_place_of_a_file_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.json");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let files = Files::default();
        let opened = [files.open(&path).err(), files.first_bytes(&path, 1).err()];
        for error in opened {
            assert!(error.unwrap().to_string().starts_with("cannot read `"));
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let files =
            Files { names: vec![(PathBuf::from("/nonexistent"), "s3://b/p".to_owned())], ..Files::default() };
        let error = |files: &Files| files.open(Path::new("/nonexistent/x")).err().unwrap().to_string();
        assert!(error(&Files::default()).starts_with("cannot read `/nonexistent/x`"));
        assert!(error(&files).starts_with("cannot read `s3://b/p/x`"));
    }
}
