//! Counts what is asked of an object store: what `-v` shows, and what tests bound.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, OBJECT_STORE_COALESCE_DEFAULT,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result as StoreResult, UploadPart, coalesce_ranges,
};

/// Objects that S3 lists, and deletes, with one request.
const PAGE: u64 = 1000;

/// Counts the requests of one or several stores; clones count together.
#[derive(Debug, Clone, Default)]
pub struct Requests(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    get: AtomicU64,
    head: AtomicU64,
    put: AtomicU64,
    list: AtomicU64,
    delete: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
}

/// Requests so far, as S3 bills them; one that had to be repeated counts once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// Objects or ranges of objects that were read.
    pub get: u64,
    /// Objects that were looked at.
    pub head: u64,
    /// Objects and parts that were written, multipart uploads that were begun and ended.
    pub put: u64,
    /// Pages of up to 1,000 names.
    pub list: u64,
    /// Deletions of up to 1,000 objects each.
    pub delete: u64,
    /// Bytes of what was read.
    pub bytes_read: u64,
    /// Bytes of what was written.
    pub bytes_written: u64,
}

impl Requests {
    /// How many there were.
    pub fn counts(&self) -> RequestCounts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RequestCounts {
            get: of(&self.0.get),
            head: of(&self.0.head),
            put: of(&self.0.put),
            list: of(&self.0.list),
            delete: of(&self.0.delete),
            bytes_read: of(&self.0.bytes_read),
            bytes_written: of(&self.0.bytes_written),
        }
    }

    fn read(&self, bytes: u64) {
        add(&self.0.get, 1);
        add(&self.0.bytes_read, bytes);
    }

    fn written(&self, bytes: u64) {
        add(&self.0.put, 1);
        add(&self.0.bytes_written, bytes);
    }
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// An object store whose requests are counted.
#[derive(Debug)]
pub(super) struct Counted<T> {
    below: T,
    requests: Requests,
    /// Whether many ranges of a file are one request, as on a disk.
    ranges_are_one: bool,
}

impl<T> fmt::Display for Counted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("store")
    }
}

impl<T: ObjectStore> Counted<T> {
    pub(super) fn new(below: T, requests: Requests) -> Self {
        Self { below, requests, ranges_are_one: false }
    }

    pub(super) fn on_disk(below: T, requests: Requests) -> Self {
        Self { below, requests, ranges_are_one: true }
    }
}

/// Counts a page with its first item.
fn paged<'a, T: 'a>(
    items: BoxStream<'a, StoreResult<T>>,
    requests: Requests,
    counter: fn(&Counters) -> &AtomicU64,
) -> BoxStream<'a, StoreResult<T>> {
    let mut seen = 0;
    let count = move |_: &T| {
        seen += 1;
        if seen % PAGE == 1 && seen > 1 {
            add(counter(&requests.0), 1);
        }
    };
    items.inspect_ok(count).boxed()
}

#[async_trait]
impl<T: ObjectStore> ObjectStore for Counted<T> {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        self.requests.written(payload.content_length() as u64);
        self.below.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.requests.written(0);
        let below = self.below.put_multipart_opts(location, options).await?;
        Ok(Box::new(CountedUpload { below, requests: self.requests.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        let is_head = options.head;
        let found = self.below.get_opts(location, options).await;
        match &found {
            _ if is_head => add(&self.requests.0.head, 1),
            Ok(found) => self.requests.read(found.range.end - found.range.start),
            Err(_) => self.requests.read(0),
        }
        found
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> StoreResult<Vec<Bytes>> {
        if !self.ranges_are_one {
            let fetch = |range| self.get_range(location, range);
            return coalesce_ranges(ranges, fetch, OBJECT_STORE_COALESCE_DEFAULT).await;
        }
        self.requests.read(ranges.iter().map(|range| range.end - range.start).sum());
        self.below.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        add(&self.requests.0.delete, 1);
        let deleted = self.below.delete_stream(locations);
        paged(deleted, self.requests.clone(), |counters| &counters.delete)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        add(&self.requests.0.list, 1);
        paged(self.below.list(prefix), self.requests.clone(), |counters| &counters.list)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        add(&self.requests.0.list, 1);
        self.below.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.requests.written(0);
        self.below.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct CountedUpload {
    below: Box<dyn MultipartUpload>,
    requests: Requests,
}

#[async_trait]
impl MultipartUpload for CountedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.requests.written(data.content_length() as u64);
        self.below.put_part(data)
    }

    async fn complete(&mut self) -> StoreResult<PutResult> {
        self.requests.written(0);
        self.below.complete().await
    }

    async fn abort(&mut self) -> StoreResult<()> {
        add(&self.requests.0.delete, 1);
        self.below.abort().await
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn every_kind_is_counted_and_lists_by_pages() {
        let requests = Requests::default();
        let store = Counted::new(InMemory::new(), requests.clone());
        for number in 0..1001 {
            store.put(&Path::from(format!("a/{number}")), PutPayload::from("123456789")).await.unwrap();
        }
        let path = Path::from("a/0");
        let listed: Vec<_> = store.list(None).map_ok(|meta| meta.location).try_collect().await.unwrap();
        store.head(&path).await.unwrap();
        store.get(&path).await.unwrap();
        store.get(&Path::from("none")).await.unwrap_err();
        // Near each other, so one request reads both and what is between.
        store.get_ranges(&path, &[0..2, 5..7]).await.unwrap();
        store.delete(&path).await.unwrap();
        let expected = RequestCounts {
            get: 3,
            head: 1,
            put: 1001,
            list: 2,
            delete: 1,
            bytes_read: 9 + 7,
            bytes_written: 9009,
        };
        assert_eq!((listed.len(), requests.counts()), (1001, expected));
    }
}
