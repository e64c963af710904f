//! Small files of a store that is far away: each is fetched whole, with one request, and kept for a while.
//!
//! Over a network a request costs more than a megabyte. Reading a Parquet file takes several: its end, its bloom
//! filters, its columns; and a file is read once for its columns' names and once for its rows. Files are never written
//! again, so what was fetched stays true.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::OnceCell;

/// Files of up to so many bytes are fetched whole.
const SMALL: u64 = 1 << 20;
/// So many bytes are kept.
const KEPT: u64 = 64 << 20;
/// Files that are fetched at once.
const AT_ONCE: usize = 16;

/// An object store in front of one that is far away. It is for reading.
#[derive(Debug)]
pub(super) struct Near {
    below: Arc<dyn ObjectStore>,
    shelf: Mutex<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    /// Small files, and their sizes.
    sizes: HashMap<Path, u64>,
    cells: HashMap<Path, Arc<OnceCell<Bytes>>>,
    /// What has a cell, oldest first.
    order: VecDeque<Path>,
    bytes: u64,
}

impl fmt::Display for Near {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.below.fmt(f)
    }
}

impl Near {
    pub(super) fn new(below: Arc<dyn ObjectStore>) -> Self {
        Self { below, shelf: Mutex::default() }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Files whose size is known.
    pub(super) fn know<'a>(&self, files: impl Iterator<Item = (&'a Path, u64)>) {
        let small = files.filter(|(_, size)| *size <= SMALL).map(|(path, size)| (path.clone(), size));
        self.shelf().sizes.extend(small);
    }

    /// Fetches small ones of these files, as many as are kept. What fails will fail again where it is needed.
    pub(super) async fn fetch(&self, files: Vec<Path>) {
        let mut room = KEPT;
        let mut wanted = Vec::new();
        for path in files {
            let Some(size) = self.shelf().sizes.get(&path).copied() else { continue };
            let Some(left) = room.checked_sub(size) else { break };
            room = left;
            wanted.push(path);
        }
        let fetches = wanted.iter().map(|path| self.whole(path).map(|_fetched| ()));
        stream::iter(fetches).buffer_unordered(AT_ONCE).collect::<()>().await;
    }

    /// All bytes of a small file; `None` for others.
    async fn whole(&self, path: &Path) -> Result<Option<Bytes>> {
        let Some((cell, size)) = self.shelf().cell(path) else { return Ok(None) };
        let fetch = || async {
            let bytes = self.below.get(path).await?.bytes().await?;
            if bytes.len() as u64 == size {
                return Ok(bytes);
            }
            let source = format!("`{path}` has {} bytes, and its manifest says {size}", bytes.len()).into();
            Err(Error::Generic { store: "diffy", source })
        };
        cell.get_or_try_init(fetch).await.cloned().map(Some)
    }
}

fn outside(location: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let text = format!("cannot read `{location}`: {}", source.into());
    Error::Generic { store: "diffy", source: text.into() }
}

impl Shelf {
    /// The place of a small file's bytes, and its size.
    fn cell(&mut self, path: &Path) -> Option<(Arc<OnceCell<Bytes>>, u64)> {
        let size = *self.sizes.get(path)?;
        if let Some(cell) = self.cells.get(path) {
            return Some((Arc::clone(cell), size));
        }
        while self.bytes + size > KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.cells.remove(&oldest);
            self.bytes -= self.sizes.get(&oldest).copied().unwrap_or_default();
        }
        let cell = Arc::<OnceCell<Bytes>>::default();
        self.cells.insert(path.clone(), Arc::clone(&cell));
        self.order.push_back(path.clone());
        self.bytes += size;
        Some((cell, size))
    }
}

#[async_trait]
impl ObjectStore for Near {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.below.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.below.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let is_plain = !options.head
            && options.if_match.is_none()
            && options.if_none_match.is_none()
            && options.version.is_none();
        let whole = if is_plain { self.whole(location).await? } else { None };
        let Some(whole) = whole else { return self.below.get_opts(location, options).await };
        let size = whole.len() as u64;
        let range = match &options.range {
            Some(range) => range.as_range(size).map_err(|source| outside(location, source))?,
            None => 0..size,
        };
        let bytes = whole.slice(range.start as usize..range.end as usize);
        let meta = ObjectMeta {
            location: location.clone(),
            last_modified: chrono::DateTime::UNIX_EPOCH,
            size,
            e_tag: None,
            version: None,
        };
        let payload = GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed());
        Ok(GetResult { payload, meta, range, attributes: Attributes::default() })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let Some(whole) = self.whole(location).await? else {
            return self.below.get_ranges(location, ranges).await;
        };
        let slice = |range: &Range<u64>| {
            let within = range.start <= range.end && range.end <= whole.len() as u64;
            let slice = within.then(|| whole.slice(range.start as usize..range.end as usize));
            slice.ok_or_else(|| outside(location, format!("there is no range {range:?}")))
        };
        ranges.iter().map(slice).collect()
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.below.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.below.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.below.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.below.copy_opts(from, to, options).await
    }
}
