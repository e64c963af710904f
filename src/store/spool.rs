//! The spool: an append-only file that holds what hosts said, byte for byte, until the snapshot is committed. A killed
//! collection is finished from it.
//!
//! A frame is `header length (u32) · payload length (u64) · BLAKE3 of both (16 bytes) · header (JSON) · payload
//! (zstd)`. A frame that is not whole ends the file: it was being written when the collection died.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use zstd::bulk::{Compressor, Decompressor};

use super::answers::Answers;
use super::imports::ImportedFile;
use crate::error::{Error, Result};
use crate::model::{Coverage, Fleet, KnownHost, SnapshotId};

/// First bytes of a spool file.
const MAGIC: &[u8; 8] = b"DIFFYSP1";
/// Bytes before a frame's header.
const PREFIX_BYTES: usize = 4 + 8 + 16;
/// A header larger than this is no header.
const LARGEST_HEADER: u32 = 16 * 1024 * 1024;
/// Imported files in one header.
const FILES_AT_ONCE: usize = 1_000;
/// A payload that unpacks to more than this is no payload; the decoder's chunks are a megabyte or one large row.
const LARGEST_PAYLOAD: u64 = 1024 * 1024 * 1024;
/// Extension of a spool that has no first frame yet.
pub(super) const NEW: &str = "new";
/// Fastest level: the spool lives for minutes.
const ZSTD_LEVEL: i32 = 1;
/// After so many bytes the file is synced, so that a power failure loses little.
const SYNC_EVERY_BYTES: u64 = 64 * 1024 * 1024;

/// What collects where files are imported.
pub const IMPORT: &str = "import";

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
    /// Name of the collector, or [`IMPORT`].
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
    /// Files that an import will have taken when it ends; they count only when it says so.
    Imported {
        /// Some of them.
        files: Vec<ImportedFile>,
        /// Whether all rows of all of them are here.
        is_end: bool,
        /// Paths of those that became others while they were read: what was read of them is not known.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        changed: Vec<String>,
    },
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

/// The payloads of a table.
#[derive(Debug, Default)]
struct TableRows {
    places: Vec<Place>,
    /// What they unpack to, in bytes.
    bytes: u64,
    /// Rows in them.
    rows: u64,
}

/// What is in a spool, but for the payloads.
#[derive(Debug)]
pub struct SpoolIndex {
    /// The first frame.
    pub begin: SpoolBegin,
    /// Hosts in the order of their first mention.
    pub hosts: Vec<KnownHost>,
    /// Answers, in order.
    pub answers: Answers,
    /// Warnings, in order.
    pub warnings: Vec<String>,
    /// Files that an import takes, when it remembers them.
    pub imported: Vec<ImportedFile>,
    /// Whether it has taken all of them.
    pub import_ended: bool,
    /// Bytes at the end that are no whole frame.
    pub torn_bytes: u64,
    rows: BTreeMap<String, TableRows>,
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
        self.rows.get(table).map_or(0, |rows| rows.places.len())
    }

    /// How many bytes of JSON they hold together.
    pub fn bytes(&self, table: &str) -> u64 {
        self.rows.get(table).map_or(0, |rows| rows.bytes)
    }

    /// How many rows they hold together.
    pub fn row_count(&self, table: &str) -> u64 {
        self.rows.get(table).map_or(0, |rows| rows.rows)
    }

    fn new(begin: SpoolBegin) -> Self {
        Self {
            begin,
            hosts: Vec::new(),
            answers: Answers::default(),
            warnings: Vec::new(),
            imported: Vec::new(),
            import_ended: false,
            torn_bytes: 0,
            rows: BTreeMap::new(),
            unknown_columns: BTreeMap::new(),
        }
    }

    /// Takes up a frame that stands in the file whole.
    fn note(&mut self, frame: Frame, place: Place, payload: &[u8]) {
        match frame {
            Frame::Begin(_) => {}
            Frame::Host(host) => self.hosts.push(host),
            Frame::Rows(header) => {
                if !self.rows.contains_key(&header.table) {
                    self.rows.insert(header.table.clone(), TableRows::default());
                }
                if let Some(rows) = self.rows.get_mut(&header.table) {
                    rows.places.push(place);
                    rows.bytes += unpacked_bytes(payload);
                    rows.rows += header.rows;
                }
                for column in header.unknown_columns {
                    let unknown = self.unknown_columns.entry(header.table.clone()).or_default();
                    *unknown.entry(column).or_default() += 1;
                }
            }
            Frame::Answer(coverage) => self.answers.push(coverage),
            Frame::Imported { mut files, is_end, changed } => {
                self.imported.append(&mut files);
                let snapshot = self.begin.snapshot;
                self.imported.retain(|file| file.snapshot != snapshot || !changed.contains(&file.path));
                self.import_ended |= is_end;
            }
            Frame::Warning { text } => self.warnings.push(text),
        }
    }
}

/// Packs a payload; done by the tasks that receive answers, so that the one writer only writes.
///
/// # Errors
/// `Internal` when zstd fails.
pub fn pack(json: &str) -> Result<Vec<u8>> {
    static IDLE: Idle<Compressor<'static>> = Idle::new();
    IDLE.with(|| Compressor::new(ZSTD_LEVEL), |packer| packer.compress(json.as_bytes()))
        .map_err(|source| Error::internal("cannot compress rows").source(source))
}

fn unpack(payload: &[u8]) -> io::Result<String> {
    static IDLE: Idle<Decompressor<'static>> = Idle::new();
    let bytes = unpacked_bytes(payload);
    let (true, Ok(capacity)) = ((1..=LARGEST_PAYLOAD).contains(&bytes), usize::try_from(bytes)) else {
        let mut json = String::new();
        zstd::Decoder::new(payload)?.take(LARGEST_PAYLOAD).read_to_string(&mut json)?;
        return Ok(json);
    };
    let json = IDLE.with(Decompressor::new, |unpacker| unpacker.decompress(payload, capacity))?;
    String::from_utf8(json).map_err(io::Error::other)
}

/// What a payload says that it unpacks to; 0 when it does not say.
fn unpacked_bytes(payload: &[u8]) -> u64 {
    zstd::zstd_safe::get_frame_content_size(payload).ok().flatten().unwrap_or(0)
}

/// Packers that wait for work: to make one costs more than to pack a payload of a few kilobytes.
struct Idle<T>(Mutex<Vec<T>>);

impl<T> Idle<T> {
    /// More are not kept.
    const MOST: usize = 8;

    const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    fn with<R>(
        &self,
        make: impl FnOnce() -> io::Result<T>,
        work: impl FnOnce(&mut T) -> io::Result<R>,
    ) -> io::Result<R> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut tool = kept.map_or_else(make, Ok)?;
        let done = work(&mut tool)?;
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < Self::MOST {
            idle.push(tool);
        }
        Ok(done)
    }
}

/// Appends to a spool file, which it holds locked.
#[derive(Debug)]
pub struct SpoolWriter {
    file: File,
    path: PathBuf,
    length: u64,
    unsynced: u64,
    /// Of what was appended, so that nothing has to be read back.
    index: SpoolIndex,
    /// Whether the file took every frame whole, so that the index is right.
    whole: bool,
    frame: Vec<u8>,
}

impl SpoolWriter {
    /// A new spool for a collection; it has its name only when it is locked and has its first frame, so that nobody
    /// takes it for one that nothing was received in.
    ///
    /// # Errors
    /// The file cannot be made; it is named.
    pub fn create(path: PathBuf, begin: &SpoolBegin) -> Result<Self> {
        Self::create_with(path, begin, &[])
    }

    /// As [`Self::create`], for an import that remembers the files it takes: it has its name only when they are in it.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn create_with(path: PathBuf, begin: &SpoolBegin, files: &[ImportedFile]) -> Result<Self> {
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
        let mut writer = Self {
            file,
            path: path.clone(),
            length: MAGIC.len() as u64,
            unsynced: 0,
            index: SpoolIndex::new(begin.clone()),
            whole: true,
            frame: Vec::new(),
        };
        writer.append(&Frame::Begin(begin.clone()), &[])?;
        for some in files.chunks(FILES_AT_ONCE) {
            let frame = Frame::Imported { files: some.to_vec(), is_end: false, changed: Vec::new() };
            writer.append(&frame, &[])?;
        }
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
        self.write(&header, payload).map_err(|source| {
            self.whole = false;
            Error::remote(format!("cannot write `{}`", self.path.display()))
                .source(source)
                .hint("free some space, then finish the collection with `diffy snapshot recover`")
        })?;
        let place = Place {
            offset: self.length + PREFIX_BYTES as u64,
            header: header.len() as u32,
            payload: payload.len() as u64,
        };
        self.length = place.offset + header.len() as u64 + place.payload;
        self.index.note(frame.clone(), place, payload);
        Ok(())
    }

    /// Writes a frame with one call, so that nothing of others stands between.
    fn write(&mut self, header: &[u8], payload: &[u8]) -> io::Result<()> {
        self.frame.clear();
        self.frame.shrink_to(1 << 20);
        self.frame.extend_from_slice(&(header.len() as u32).to_le_bytes());
        self.frame.extend_from_slice(&(payload.len() as u64).to_le_bytes());
        self.frame.extend_from_slice(&digest(header, payload));
        self.frame.extend_from_slice(header);
        self.frame.extend_from_slice(payload);
        self.file.write_all(&self.frame)?;
        self.unsynced += self.frame.len() as u64;
        if self.unsynced >= SYNC_EVERY_BYTES {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(())
    }

    /// Ends writing; what is there is safe when this returns, and can be read.
    ///
    /// # Errors
    /// The file cannot be synced; it is named.
    pub fn into_reader(self) -> Result<SpoolReader> {
        let synced = self.file.sync_data();
        synced.map_err(|source| {
            Error::remote(format!("cannot write `{}`", self.path.display())).source(source)
        })?;
        if !self.whole {
            return SpoolReader::read(self.file, self.path);
        }
        Ok(SpoolReader { file: self.file, path: self.path, index: self.index })
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
            .and_then(|rows| rows.places.get(number))
            .ok_or_else(|| Error::internal(format!("table `{table}` has no payload {number}")))?;
        let changed = || Error::data(format!("spool `{}` changed while it was read", self.path.display()));
        let bytes = self.read_at(place).map_err(|source| changed().source(source))?;
        let (header, payload) = bytes.split_at(place.header as usize);
        // The frame has a tag beside the fields of the header.
        let Ok(header) = serde_json::from_slice(header) else { return Err(changed()) };
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
    while is_spool && let Some((frame, place, payload)) = next_frame(&mut reader, offset, length) {
        offset = place.offset + u64::from(place.header) + place.payload;
        match (&mut index, frame) {
            (None, Frame::Begin(begin)) => index = Some(SpoolIndex::new(begin)),
            (None, _) => {}
            (Some(index), frame) => index.note(frame, place, &payload),
        }
    }
    let mut index = index.ok_or_else(|| {
        Error::data("this is no spool, or its collection died before anything was received")
            .hint("`diffy snapshot prune --orphans` removes it")
    })?;
    index.torn_bytes = length.saturating_sub(offset);
    Ok(index)
}

/// `None` at the end, and at a frame that is not whole.
fn next_frame(reader: &mut impl Read, offset: u64, length: u64) -> Option<(Frame, Place, Vec<u8>)> {
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
    Some((frame, Place { offset: start, header: header_length, payload: payload_length }, payload))
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
