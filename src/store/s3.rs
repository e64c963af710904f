//! Opens the object store of a bucket.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use super::place::{S3Place, StoreConfig};
use super::requests::Counted;
use super::told::{Told, Whom};
use crate::aws::Aws;
use crate::error::{Error, Result};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a request may take in all: a part of 8 MiB over a slow line.
const REQUEST: Duration = Duration::from_secs(120);
/// So long a request that fails is tried again …
const RETRY: Duration = Duration::from_secs(60);
/// … and at most so often.
const RETRIES: usize = 8;

/// Finds out where the bucket is, and how to get there. Says nothing yet about what is in it.
pub(super) async fn place(bucket: String, prefix: String, config: &StoreConfig) -> Result<S3Place> {
    let aws = match &config.way {
        Some(way) => way.clone(),
        None => Aws::load(&config.aws).await?,
    };
    let endpoint = config.s3.endpoint.clone().or_else(|| aws.endpoint("S3"));
    if let Some(endpoint) = &endpoint {
        check_endpoint(endpoint)?;
    }
    let path_style = config.s3.path_style.unwrap_or(endpoint.is_some());
    let mut place = S3Place { bucket, prefix, aws, region: String::new(), endpoint, path_style };
    place.region = match (&config.s3.region, &place.endpoint) {
        (Some(region), _) => region.clone(),
        (None, Some(_)) => place.aws.region().unwrap_or("us-east-1").to_owned(),
        (None, None) => place.aws.bucket_region(&place.bucket_at()).await?,
    };
    Ok(place)
}

fn check_endpoint(endpoint: &str) -> Result<()> {
    let parsed = url::Url::parse(endpoint).ok();
    let is_http =
        parsed.as_ref().is_some_and(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
    let is_bare = parsed.is_some_and(|url| url.username().is_empty() && url.password().is_none());
    if is_http && is_bare {
        return Ok(());
    }
    Err(Error::config(format!("`{}` is no endpoint of S3", endpoint.escape_debug()))
        .hint("it looks like https://HOST:PORT; AWS_ENDPOINT_URL_S3 and `endpoint` below `[s3]` name one"))
}

/// The object store below the place's prefix.
pub(super) fn open(place: &S3Place, config: &StoreConfig) -> Result<Arc<dyn ObjectStore>> {
    let settings = &config.s3;
    let is_http = place.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&place.bucket)
        .with_region(&place.region)
        .with_credentials(place.aws.bridge())
        .with_virtual_hosted_style_request(!place.path_style)
        .with_client_options(client_options(is_http))
        .with_retry(retry())
        .with_bucket_key(settings.bucket_key)
        .with_request_payer(settings.request_payer);
    if let Some(endpoint) = &place.endpoint {
        builder = builder.with_endpoint(virtual_host(endpoint, place));
    }
    if let Some(key) = &settings.kms_key_id {
        builder = builder.with_sse_kms_encryption(key);
    }
    if settings.checksum.unwrap_or(place.endpoint.is_none()) {
        builder = builder.with_checksum_algorithm(Checksum::SHA256);
    }
    let below = builder.build().map_err(|source| {
        Error::config(format!("cannot speak to bucket `{}`", place.bucket)).source(source)
    })?;
    let at = place.endpoint.clone().unwrap_or_else(|| format!("region {}", place.region));
    let whom = Whom { bucket: place.bucket.clone(), at, has_kms: settings.kms_key_id.is_some() };
    let told = Told::new(Counted::new(below, config.requests.clone()), whom);
    if place.prefix.is_empty() {
        return Ok(Arc::new(told));
    }
    Ok(Arc::new(PrefixStore::new(told, Path::from(place.prefix.as_str()))))
}

fn client_options(is_http: bool) -> ClientOptions {
    ClientOptions::new().with_allow_http(is_http).with_connect_timeout(CONNECT).with_timeout(REQUEST)
}

fn retry() -> RetryConfig {
    RetryConfig { backoff: BackoffConfig::default(), max_retries: RETRIES, retry_timeout: RETRY }
}

/// With the bucket in the host name, the object store wants it in the endpoint.
fn virtual_host(endpoint: &str, place: &S3Place) -> String {
    match endpoint.split_once("://") {
        Some((scheme, rest)) if !place.path_style => format!("{scheme}://{}.{rest}", place.bucket),
        _ => endpoint.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_plain_http_address() {
        for good in ["http://127.0.0.1:8333", "https://s3.example.com"] {
            assert!(check_endpoint(good).is_ok(), "{good}");
        }
        for wrong in ["127.0.0.1:8333", "ftp://x", "https://key:secret@x", "https://", ""] {
            assert!(check_endpoint(wrong).is_err(), "{wrong}");
        }
    }
}
