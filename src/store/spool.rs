//! The spool: an append-only file that holds what hosts said, byte for byte, until the snapshot is committed. A killed
//! collection is finished from it.
//!
//! A frame is `header length (u32) · payload length (u64) · BLAKE3 of both (16 bytes) · header (JSON) · payload
//! (zstd)`. A frame that is not whole ends the file: it was being written when the collection died.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::{Coverage, Fleet, KnownHost, SnapshotId};

/// First bytes of a spool file.
const MAGIC: &[u8; 8] = b"DIFFYSP1";
/// Bytes before a frame's header.
const PREFIX_BYTES: usize = 4 + 8 + 16;
/// A header larger than this is no header.
const LARGEST_HEADER: u32 = 16 * 1024 * 1024;
/// A payload that unpacks to more than this is no payload; the decoder's chunks are a megabyte or one large row.
const LARGEST_PAYLOAD: u64 = 1024 * 1024 * 1024;
/// Extension of a spool that has no first frame yet.
pub(super) const NEW: &str = "new";
/// Fastest level: the spool lives for minutes.
const ZSTD_LEVEL: i32 = 1;
/// After so many bytes the file is synced, so that a power failure loses little.
const SYNC_EVERY_BYTES: u64 = 64 * 1024 * 1024;

/// What a collection is, written first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolBegin {
    /// The snapshot to be.
    pub snapshot: SnapshotId,
    /// Its fleet.
    pub fleet: Fleet,
    /// The incident it is collected for.
    pub incident: Option<String>,
    /// When the collection started.
    pub started: DateTime<Utc>,
    /// User and machine.
    pub collected_by: String,
    /// Name of the collector, or `import`.
    pub collector: String,
    /// Whom it was to ask, as the user named them.
    #[serde(default)]
    pub targets: Vec<String>,
    /// The query text of each table.
    pub queries: BTreeMap<String, String>,
}

/// Where rows came from, for messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowsHeader {
    /// The host.
    pub host: String,
    /// The table.
    pub table: String,
    /// Rows in the payload, a JSON array of flat objects.
    pub rows: u64,
    /// File or host that is named in messages.
    pub source: String,
    /// 1-based line at which the payload starts there.
    pub line: u64,
    /// 1-based byte of that line, 0 for its start.
    #[serde(default)]
    pub column: u64,
    /// Columns of the payload's first row that the table's schema does not have; at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown_columns: Vec<String>,
}

/// One entry of the spool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "frame", rename_all = "snake_case")]
pub enum Frame {
    /// The first frame.
    Begin(SpoolBegin),
    /// A host that is asked, or that is in an import.
    Host(KnownHost),
    /// Rows of one host for one table; the payload holds them.
    Rows(RowsHeader),
    /// The end of one host's answer for one table.
    Answer(Coverage),
    /// Something a reader of the snapshot should know.
    Warning {
        /// One sentence.
        text: String,
    },
}

/// A payload's place in the file.
#[derive(Debug, Clone, Copy)]
struct Place {
    offset: u64,
    header: u32,
    payload: u64,
}

/// What is in a spool, but for the payloads.
#[derive(Debug)]
pub struct SpoolIndex {
    /// The first frame.
    pub begin: SpoolBegin,
    /// Hosts in the order of their first mention.
    pub hosts: Vec<KnownHost>,
    /// Answers, in order.
    pub answers: Vec<Coverage>,
    /// Warnings, in order.
    pub warnings: Vec<String>,
    /// Bytes at the end that are no whole frame.
    pub torn_bytes: u64,
    rows: BTreeMap<String, Vec<Place>>,
    unknown_columns: BTreeMap<String, BTreeMap<String, u64>>,
}

impl SpoolIndex {
    /// Columns of a table that its schema does not have, with how many payloads mention each.
    pub fn unknown_columns(&self, table: &str) -> impl Iterator<Item = (&str, u64)> {
        let columns = self.unknown_columns.get(table).into_iter().flatten();
        columns.map(|(name, payloads)| (name.as_str(), *payloads))
    }

    /// Tables that have rows.
    pub fn tables(&self) -> impl Iterator<Item = &str> {
        self.rows.keys().map(String::as_str)
    }

    /// How many payloads a table has.
    pub fn payloads(&self, table: &str) -> usize {
        self.rows.get(table).map_or(0, Vec::len)
    }
}

/// Packs a payload; done by the tasks that receive answers, so that the one writer only writes.
///
/// # Errors
/// `Internal` when zstd fails.
pub fn pack(json: &str) -> Result<Vec<u8>> {
    zstd::bulk::compress(json.as_bytes(), ZSTD_LEVEL)
        .map_err(|source| Error::internal("cannot compress rows").source(source))
}

/// Appends to a spool file, which it holds locked.
#[derive(Debug)]
pub struct SpoolWriter {
    file: File,
    path: PathBuf,
    unsynced: u64,
}

impl SpoolWriter {
    /// A new spool for a collection; it has its name only when it is locked and has its first frame, so that nobody
    /// takes it for one that nothing was received in.
    ///
    /// # Errors
    /// The file cannot be made; it is named.
    pub fn create(path: PathBuf, begin: &SpoolBegin) -> Result<Self> {
        let cannot = |source| {
            Error::remote(format!("cannot create `{}`", path.display()))
                .source(source)
                .hint("the store must be writable and have space")
        };
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(cannot)?;
        }
        let new = path.with_extension(NEW);
        let mut file =
            OpenOptions::new().read(true).write(true).create_new(true).open(&new).map_err(cannot)?;
        file.try_lock().map_err(|source| cannot(lock_error(source)))?;
        file.write_all(MAGIC).map_err(cannot)?;
        let mut writer = Self { file, path: path.clone(), unsynced: 0 };
        writer.append(&Frame::Begin(begin.clone()), &[])?;
        std::fs::rename(&new, &path).map_err(cannot)?;
        Ok(writer)
    }

    /// Appends a frame with its packed payload; when it returns, a killed process does not lose it.
    ///
    /// # Errors
    /// The file does not take the bytes (disk full); it is named.
    pub fn append(&mut self, frame: &Frame, payload: &[u8]) -> Result<()> {
        let header = serde_json::to_vec(frame)
            .map_err(|source| Error::internal("cannot encode a spool frame").source(source))?;
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + header.len() + payload.len());
        bytes.extend_from_slice(&(header.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&digest(&header, payload));
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(payload);
        self.write(&bytes).map_err(|source| {
            Error::remote(format!("cannot write `{}`", self.path.display()))
                .source(source)
                .hint("free some space, then finish the collection with `diffy snapshot recover`")
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_EVERY_BYTES {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(())
    }

    /// Ends writing and reads back what is there.
    ///
    /// # Errors
    /// The file cannot be synced or read; it is named.
    pub fn into_reader(self) -> Result<SpoolReader> {
        let synced = self.file.sync_data();
        synced.map_err(|source| {
            Error::remote(format!("cannot write `{}`", self.path.display())).source(source)
        })?;
        SpoolReader::read(self.file, self.path)
    }
}

/// Reads a spool file, which it holds locked.
#[derive(Debug)]
pub struct SpoolReader {
    file: File,
    path: PathBuf,
    index: SpoolIndex,
}

impl SpoolReader {
    /// Opens the spool of a collection that is not running; `None` when it is, or when it is complete by now.
    ///
    /// # Errors
    /// The file cannot be read or is no spool; it is named.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        match Held::new(path)? {
            Held::Ours(file) => Self::read(file, path.to_owned()).map(Some),
            Held::Running | Held::Gone => Ok(None),
        }
    }

    fn read(file: File, path: PathBuf) -> Result<Self> {
        let index = scan(&file).map_err(|error| error.with("spool", path.display()))?;
        Ok(Self { file, path, index })
    }

    /// What is in it.
    pub fn index(&self) -> &SpoolIndex {
        &self.index
    }

    /// One payload of a table, `number` counting from 0.
    ///
    /// # Errors
    /// The file cannot be read, or is not what it was when it was scanned.
    pub fn rows(&self, table: &str, number: usize) -> Result<(RowsHeader, String)> {
        let place = self
            .index
            .rows
            .get(table)
            .and_then(|places| places.get(number))
            .ok_or_else(|| Error::internal(format!("table `{table}` has no payload {number}")))?;
        let changed = || Error::data(format!("spool `{}` changed while it was read", self.path.display()));
        let bytes = self.read_at(place).map_err(|source| changed().source(source))?;
        let (header, payload) = bytes.split_at(place.header as usize);
        let Ok(Frame::Rows(header)) = serde_json::from_slice(header) else { return Err(changed()) };
        let json = unpack(payload).map_err(|source| changed().source(source))?;
        Ok((header, json))
    }

    fn read_at(&self, place: &Place) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; place.header as usize + place.payload as usize];
        std::os::unix::fs::FileExt::read_exact_at(&self.file, &mut bytes, place.offset)?;
        Ok(bytes)
    }

    /// Removes the file: the snapshot is committed.
    ///
    /// # Errors
    /// The file cannot be removed; it is named.
    pub fn remove(&self) -> Result<()> {
        remove(&self.path)
    }
}

/// Removes a spool; one that is gone is fine.
pub(super) fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::remote(format!("cannot remove `{}`", path.display())).source(source))
        }
        _ => Ok(()),
    }
}

/// What became of a spool that a listing found.
#[derive(Debug)]
pub enum Held {
    /// Its collection is running.
    Running,
    /// Its collection is complete by now.
    Gone,
    /// Nobody uses it, and nobody will for as long as this value lives.
    Ours(File),
}

impl Held {
    /// Holds a spool, readable or not.
    ///
    /// # Errors
    /// The file cannot be opened or locked; it is named.
    pub fn new(path: &Path) -> Result<Self> {
        let cannot = |source| Error::remote(format!("cannot open spool `{}`", path.display())).source(source);
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::Gone),
            Err(error) => return Err(cannot(error)),
        };
        match file.try_lock() {
            // Its collection ended between opening and locking.
            Ok(()) if !path.exists() => Ok(Self::Gone),
            Ok(()) => Ok(Self::Ours(file)),
            Err(TryLockError::WouldBlock) => Ok(Self::Running),
            Err(TryLockError::Error(source)) => Err(cannot(source)),
        }
    }
}

fn lock_error(error: TryLockError) -> io::Error {
    match error {
        TryLockError::Error(source) => source,
        TryLockError::WouldBlock => io::Error::other("another process holds it"),
    }
}

fn digest(header: &[u8], payload: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(header.len() as u64).to_le_bytes()).update(header).update(payload);
    let mut short = [0; 16];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    short
}

fn unpack(payload: &[u8]) -> io::Result<String> {
    let mut json = String::new();
    zstd::Decoder::new(payload)?.take(LARGEST_PAYLOAD).read_to_string(&mut json)?;
    Ok(json)
}

/// Reads all frames up to the first that is not whole.
fn scan(file: &File) -> Result<SpoolIndex> {
    let unreadable = |source: io::Error| Error::remote("cannot read spool").source(source);
    let length = file.metadata().map_err(unreadable)?.len();
    let mut reader = BufReader::with_capacity(1 << 20, file);
    reader.seek(SeekFrom::Start(0)).map_err(unreadable)?;
    let mut magic = [0; 8];
    let is_spool = reader.read_exact(&mut magic).is_ok() && &magic == MAGIC;
    let mut offset = MAGIC.len() as u64;
    let mut index: Option<SpoolIndex> = None;
    while is_spool && let Some((frame, place)) = next_frame(&mut reader, offset, length) {
        offset = place.offset + u64::from(place.header) + place.payload;
        note(&mut index, frame, place);
    }
    let mut index = index.ok_or_else(|| {
        Error::data("this is no spool, or its collection died before anything was received")
            .hint("`diffy snapshot prune --orphans` removes it")
    })?;
    index.torn_bytes = length.saturating_sub(offset);
    Ok(index)
}

/// `None` at the end, and at a frame that is not whole.
fn next_frame(reader: &mut impl Read, offset: u64, length: u64) -> Option<(Frame, Place)> {
    let mut prefix = [0; PREFIX_BYTES];
    reader.read_exact(&mut prefix).ok()?;
    let header_length = u32::from_le_bytes(prefix[..4].try_into().ok()?);
    let payload_length = u64::from_le_bytes(prefix[4..12].try_into().ok()?);
    let start = offset + PREFIX_BYTES as u64;
    let is_whole = start.checked_add(u64::from(header_length))?.checked_add(payload_length)? <= length;
    if header_length > LARGEST_HEADER || !is_whole {
        return None;
    }
    let mut header = vec![0; header_length as usize];
    reader.read_exact(&mut header).ok()?;
    let mut payload = vec![0; usize::try_from(payload_length).ok()?];
    reader.read_exact(&mut payload).ok()?;
    if digest(&header, &payload) != prefix[12..] {
        return None;
    }
    let frame = serde_json::from_slice(&header).ok()?;
    Some((frame, Place { offset: start, header: header_length, payload: payload_length }))
}

fn note(index: &mut Option<SpoolIndex>, frame: Frame, place: Place) {
    if let Frame::Begin(begin) = frame {
        index.get_or_insert_with(|| SpoolIndex {
            begin,
            hosts: Vec::new(),
            answers: Vec::new(),
            warnings: Vec::new(),
            torn_bytes: 0,
            rows: BTreeMap::new(),
            unknown_columns: BTreeMap::new(),
        });
        return;
    }
    let Some(index) = index else { return };
    match frame {
        Frame::Begin(_) => {}
        Frame::Host(host) => index.hosts.push(host),
        Frame::Rows(header) => {
            let unknown = index.unknown_columns.entry(header.table.clone()).or_default();
            for column in header.unknown_columns {
                *unknown.entry(column).or_default() += 1;
            }
            index.rows.entry(header.table).or_default().push(place);
        }
        Frame::Answer(coverage) => index.answers.push(coverage),
        Frame::Warning { text } => index.warnings.push(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin() -> SpoolBegin {
        SpoolBegin {
            snapshot: "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap(),
            fleet: "web".parse().unwrap(),
            incident: None,
            started: "2026-01-02T03:04:05Z".parse().unwrap(),
            collected_by: "test".to_owned(),
            collector: "test".to_owned(),
            targets: Vec::new(),
            queries: BTreeMap::new(),
        }
    }

    fn rows(host: &str) -> Frame {
        Frame::Rows(RowsHeader {
            host: host.to_owned(),
            table: "crontab".to_owned(),
            rows: 1,
            source: "f".to_owned(),
            line: 1,
            column: 0,
            unknown_columns: Vec::new(),
        })
    }

    /// Ten hosts with a payload each.
    fn write(path: &Path) {
        let mut writer = SpoolWriter::create(path.to_owned(), &begin()).unwrap();
        for host in 0..10 {
            let host = format!("host-{host}");
            writer.append(&Frame::Host(KnownHost::new(&host)), &[]).unwrap();
            writer.append(&rows(&host), &pack(&format!(r#"[{{"command":"{host}"}}]"#)).unwrap()).unwrap();
        }
    }

    #[test]
    fn what_was_appended_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.spool");
        write(&path);
        let reader = SpoolReader::open(&path).unwrap().unwrap();
        assert_eq!(reader.index().hosts.len(), 10);
        assert_eq!(reader.index().payloads("crontab"), 10);
        let (header, json) = reader.rows("crontab", 7).unwrap();
        assert_eq!((header.host.as_str(), json.as_str()), ("host-7", r#"[{"command":"host-7"}]"#));
    }

    #[test]
    fn a_spool_cut_anywhere_keeps_every_whole_frame() {
        let dir = tempfile::tempdir().unwrap();
        let whole = dir.path().join("whole.spool");
        write(&whole);
        let bytes = std::fs::read(&whole).unwrap();
        let cut = dir.path().join("cut.spool");
        let mut most = 0;
        for length in 0..bytes.len() {
            std::fs::write(&cut, &bytes[..length]).unwrap();
            let Ok(reader) = SpoolReader::open(&cut) else { continue };
            let reader = reader.unwrap();
            let payloads = reader.index().payloads("crontab");
            assert!(payloads >= most, "a longer file cannot hold less");
            most = payloads;
            for number in 0..payloads {
                reader.rows("crontab", number).unwrap();
            }
        }
        assert_eq!(most, 9, "only the last frame was cut");
    }

    #[test]
    fn a_running_collection_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.spool");
        let writer = SpoolWriter::create(path.clone(), &begin()).unwrap();
        assert!(SpoolReader::open(&path).unwrap().is_none());
        drop(writer);
        assert!(SpoolReader::open(&path).unwrap().is_some());
    }
}
