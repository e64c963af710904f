//! Where a bucket is.

use aws_config::retry::RetryConfig;
use aws_config::{Region, SdkConfig};
use aws_sdk_s3::operation::head_bucket::HeadBucketError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;

use super::{Aws, Refusal, explain};
use crate::error::{Error, Result};

/// Attempts to find out; who waits for it is a person.
const ATTEMPTS: u32 = 4;
/// The region whose endpoint knows all buckets of a partition.
const ANY_REGION: &str = "us-east-1";
/// What S3 tells even those that it refuses.
const REGION_HEADER: &str = "x-amz-bucket-region";

/// A bucket, and how it is spoken to.
#[derive(Debug, Clone)]
pub struct BucketAt<'a> {
    /// Its name.
    pub bucket: &'a str,
    /// An endpoint other than AWS's.
    pub endpoint: Option<&'a str>,
    /// Whether the bucket is named in the path and not in the host name.
    pub path_style: bool,
}

impl Aws {
    /// A client for the bucket; the region is that of the settings where there is one.
    pub fn s3(&self, at: &BucketAt<'_>, region: Option<&str>) -> aws_sdk_s3::Client {
        aws_sdk_s3::Client::from_conf(self.s3_config(at, region).build())
    }

    fn s3_config(&self, at: &BucketAt<'_>, region: Option<&str>) -> aws_sdk_s3::config::Builder {
        let sdk: &SdkConfig = self.sdk();
        let region = region.map(|region| Region::new(region.to_owned())).or_else(|| sdk.region().cloned());
        let config = aws_sdk_s3::config::Builder::from(sdk)
            .region(region.unwrap_or_else(|| Region::new(ANY_REGION)))
            .force_path_style(at.path_style);
        match at.endpoint {
            Some(endpoint) => config.endpoint_url(endpoint),
            None => config,
        }
    }

    /// The region of a bucket (`s3:ListBucket`); S3 tells it even to those who may not look into the bucket.
    ///
    /// # Errors
    /// There is no such bucket, there are no credentials, or S3 cannot be reached.
    pub async fn bucket_region(&self, at: &BucketAt<'_>) -> Result<String> {
        // Its errors are better than those of a request that fails for want of credentials.
        self.credentials().await?;
        let retry = RetryConfig::standard().with_max_attempts(ATTEMPTS);
        let config = self.s3_config(at, None).retry_config(retry).build();
        let client = aws_sdk_s3::Client::from_conf(config);
        match Box::pin(client.head_bucket().bucket(at.bucket).send()).await {
            Ok(found) => Ok(found.bucket_region().unwrap_or(ANY_REGION).to_owned()),
            Err(error) => told_region(&error).map_or_else(|| Err(refused(at.bucket, error)), Ok),
        }
    }
}

/// The region that a refusal tells; none where there is no such bucket.
fn told_region(error: &SdkError<HeadBucketError, HttpResponse>) -> Option<String> {
    let response = error.raw_response()?;
    let is_there = response.status().as_u16() != 404;
    response.headers().get(REGION_HEADER).filter(|_| is_there).map(ToOwned::to_owned)
}

fn refused(bucket: &str, error: SdkError<HeadBucketError, HttpResponse>) -> Error {
    let status = error.raw_response().map(|response| response.status().as_u16());
    match status {
        Some(404) => no_bucket(bucket),
        // A HEAD has no body, so no code.
        Some(400) => Refusal::Expired.error("s3:ListBucket", "").with("bucket", bucket),
        _ => explain("s3:ListBucket", error).with("bucket", bucket),
    }
}

/// There is no bucket of that name.
pub fn no_bucket(bucket: &str) -> Error {
    Error::usage(format!("there is no bucket `{bucket}`"))
        .hint("check its name and the account; Diffy makes no buckets, docs/aws.md says how to")
}
