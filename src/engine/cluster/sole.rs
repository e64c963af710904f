//! The only store that a node of a cluster knows: the one it was started with, for reading.
//!
//! Whoever reaches a node can have it run any plan. DataFusion's own registry would let plans name any file of the
//! machine; this one knows a single address, which is made of the place of the store, so that a plan over another store
//! fails instead of reading files of this one.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::common::exec_err;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::object_store::{ObjectStoreRegistry, ObjectStoreUrl};
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use url::Url;

use crate::error;
use crate::store::Store;

/// The address of a store in plans that are shipped.
///
/// # Errors
/// None in practice: the address is made of hex digits.
pub(super) fn address_of(store: &Store) -> error::Result<ObjectStoreUrl> {
    ObjectStoreUrl::parse(format!("diffy://{}/", store.place_digest()))
        .map_err(|source| error::Error::internal("the store has no address").source(source))
}

/// A registry of one store.
#[derive(Debug)]
pub(super) struct Sole {
    address: ObjectStoreUrl,
    name: String,
    store: Arc<dyn ObjectStore>,
}

impl Sole {
    pub(super) fn new(store: &Store) -> error::Result<Self> {
        let below = ReadOnly(store.object_store());
        Ok(Self { address: address_of(store)?, name: store.name().to_owned(), store: Arc::new(below) })
    }
}

impl ObjectStoreRegistry for Sole {
    fn register_store(&self, _: &Url, _: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        None
    }

    fn get_store(&self, url: &Url) -> DataFusionResult<Arc<dyn ObjectStore>> {
        let sole: &Url = self.address.as_ref();
        if (url.scheme(), url.host_str()) == (sole.scheme(), sole.host_str()) {
            return Ok(Arc::clone(&self.store));
        }
        exec_err!(
            "the query is over another store than `{}`, with which this node of the cluster was started",
            self.name
        )
    }
}

/// A store that refuses to be changed.
#[derive(Debug)]
struct ReadOnly(Arc<dyn ObjectStore>);

impl fmt::Display for ReadOnly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn refused<T>() -> Result<T> {
    Err(Error::NotSupported { source: "nodes of a cluster only read the store".into() })
}

#[async_trait]
impl ObjectStore for ReadOnly {
    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        refused()
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        refused()
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.0.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        stream::once(async { refused() }).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        refused()
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;

    async fn sole(dir: &std::path::Path) -> Sole {
        let url = dir.to_str().unwrap();
        let store = Store::open_or_create(url, &crate::store::StoreConfig::default()).await.unwrap();
        Sole::new(&store).unwrap()
    }

    #[tokio::test]
    async fn a_node_knows_its_store_and_no_other_and_no_file() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (here, there) = (sole(one.path()).await, sole(other.path()).await);
        assert!(here.get_store(here.address.as_ref()).is_ok());
        for url in [there.address.as_str(), "file:///etc/passwd", "diffy://store/"] {
            let error = here.get_store(&Url::parse(url).unwrap()).unwrap_err().to_string();
            assert!(error.contains("another store"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_node_cannot_change_its_store() {
        let dir = tempfile::tempdir().unwrap();
        let sole = sole(dir.path()).await;
        let store = sole.get_store(sole.address.as_ref()).unwrap();
        let marker = Path::from("diffy-store.json");
        assert!(store.put(&marker, "x".into()).await.is_err());
        assert!(store.put_multipart(&marker).await.is_err());
        assert!(store.delete(&marker).await.is_err());
        assert!(store.copy(&marker, &Path::from("copy")).await.is_err());
        assert!(!store.get(&marker).await.unwrap().bytes().await.unwrap().is_empty());
    }
}
