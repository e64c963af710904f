//! Files as byte streams, unpacked when their first bytes say so.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::error::{Error, Result};

const GZIP: [u8; 2] = [0x1F, 0x8B];
const ZSTD: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
const BUFFER: usize = 128 << 10;

/// Opens a plain, gzip or Zstandard file, of one member or many.
///
/// # Errors
/// The file cannot be opened or read; it is named.
pub(super) fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    let unreadable = |source| unreadable(path, source);
    let file = File::open(path).map_err(unreadable)?;
    let mut reader = BufReader::with_capacity(BUFFER, file);
    let head = reader.fill_buf().map_err(unreadable)?;
    if head.starts_with(&GZIP) {
        return Ok(Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(reader))));
    }
    if head.starts_with(&ZSTD) {
        let decoder = zstd::Decoder::with_buffer(reader).map_err(unreadable)?;
        return Ok(Box::new(BufReader::with_capacity(BUFFER, decoder)));
    }
    Ok(Box::new(reader))
}

/// The first bytes of a file after unpacking, at most `limit`; shorter when the file is, or breaks off.
///
/// # Errors
/// The file cannot be opened.
pub(super) fn head(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut head = Vec::new();
    // What breaks off while it is unpacked is found again, and reported with its place, when it is read in earnest.
    let _ = open(path)?.take(limit).read_to_end(&mut head);
    Ok(head)
}

/// The first bytes of a file as they lie there, at most `limit`.
///
/// # Errors
/// The file cannot be opened or read.
pub(super) fn first_bytes(path: &Path, limit: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; limit];
    let unreadable = |source| unreadable(path, source);
    let length = File::open(path).and_then(|mut file| file.read(&mut bytes)).map_err(unreadable)?;
    bytes.truncate(length);
    Ok(bytes)
}

/// The error for a path that cannot be read.
pub(super) fn unreadable(path: &Path, source: std::io::Error) -> Error {
    Error::remote(format!("cannot read `{}`", path.display()))
        .source(source)
        .hint("check that the path exists and that you may read it")
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

    #[test]
    fn packed_files_of_several_members_are_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        let check = |bytes: &[u8], expect: &str| {
            let path = dir.path().join("x");
            fs::write(&path, bytes).unwrap();
            let mut text = String::new();
            open(&path).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, expect);
        };
        check(b"", "");
        check(b"plain", "plain");
        check(&[gzip("one "), gzip("two")].concat(), "one two");
        let zstd = |text: &str| zstd::encode_all(text.as_bytes(), 1).unwrap();
        check(&[zstd("one "), zstd("two")].concat(), "one two");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = open(Path::new("/nonexistent/x")).err().unwrap().to_string();
        assert!(error.starts_with("cannot read `/nonexistent/x`"), "{error}");
    }
}
