//! Where a store is: what a URL names, and what is needed to get there.

use std::path::PathBuf;

use super::requests::Requests;
use crate::aws::{Aws, AwsSettings, BucketAt};
use crate::error::{Error, Result};

/// Bytes that the prefix of a store may have: keys have at most 1,024, and what is below it takes its part.
const PREFIX_BYTES: usize = 400;

/// What opening a store needs beside its URL; the default is enough for directories.
#[derive(Debug, Clone, Default)]
pub struct StoreConfig {
    /// Whom to be on AWS, and where.
    pub aws: AwsSettings,
    /// A way into AWS that is there already; it takes the place of `aws`.
    pub way: Option<Aws>,
    /// How S3 is spoken to.
    pub s3: S3Settings,
    /// Local directory for spools and sort runs of stores that are not local; each gets a directory of its own in it.
    pub spool_dir: PathBuf,
    /// Counts what is asked of the store.
    pub requests: Requests,
}

/// How S3 is spoken to.
#[derive(Debug, Clone, Default)]
pub struct S3Settings {
    /// An endpoint other than AWS's: `https://HOST:PORT`; `None` leaves it to environment and profile.
    pub endpoint: Option<String>,
    /// The bucket's region; `None`: S3 is asked.
    pub region: Option<String>,
    /// Whether the bucket is named in the path; `None`: where there is an endpoint.
    pub path_style: Option<bool>,
    /// Key that objects are encrypted with (SSE-KMS): id, alias or ARN; `None` leaves it to the bucket.
    pub kms_key_id: Option<String>,
    /// Whether S3 may use a key of the bucket in between, which saves calls of KMS.
    pub bucket_key: bool,
    /// Whether each object is sent with its SHA-256; `None`: where there is no endpoint.
    pub checksum: Option<bool>,
    /// Whether the reader pays for a bucket of somebody else.
    pub request_payer: bool,
}

/// Where a store on S3 is, and how others get there.
#[derive(Debug, Clone)]
pub struct S3Place {
    /// The bucket.
    pub bucket: String,
    /// Keys of the store begin with this and a `/`; empty at the root of the bucket.
    pub prefix: String,
    /// The way into AWS.
    pub aws: Aws,
    /// The bucket's region.
    pub region: String,
    /// An endpoint other than AWS's.
    pub endpoint: Option<String>,
    /// Whether the bucket is named in the path.
    pub path_style: bool,
}

impl S3Place {
    /// The place that an `s3://` URL names, whether there is a store or not.
    ///
    /// # Errors
    /// The URL names no place on S3, or the bucket cannot be found.
    pub async fn find(url: &str, config: &StoreConfig) -> Result<Self> {
        match Named::parse(url)? {
            Named::S3 { bucket, prefix } => super::s3::place(bucket, prefix, config).await,
            Named::Directory(_) => Err(not_s3(url, "it is a directory")),
        }
    }

    /// Sixteen hex digits that stand for it.
    pub(super) fn digest(&self) -> String {
        let whole =
            format!("{} {} {}", self.endpoint.as_deref().unwrap_or_default(), self.bucket, self.prefix);
        blake3::hash(whole.as_bytes()).to_hex()[..16].to_owned()
    }

    /// A client of the SDK for this bucket, for what the store does not do: presigned URLs.
    pub fn client(&self) -> aws_sdk_s3::Client {
        self.client_of(&self.aws)
    }

    /// As [`Self::client`], for somebody else's credentials.
    pub fn client_of(&self, aws: &Aws) -> aws_sdk_s3::Client {
        aws.s3(&self.bucket_at(), Some(&self.region))
    }

    pub(super) fn bucket_at(&self) -> BucketAt<'_> {
        BucketAt { bucket: &self.bucket, endpoint: self.endpoint.as_deref(), path_style: self.path_style }
    }

    /// The key of something below the store's root.
    pub fn key(&self, path: &str) -> String {
        if self.prefix.is_empty() { path.to_owned() } else { format!("{}/{path}", self.prefix) }
    }
}

/// What a store URL names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named {
    Directory(PathBuf),
    S3 { bucket: String, prefix: String },
}

impl Named {
    pub(super) fn parse(url: &str) -> Result<Self> {
        if let Some(rest) = url.strip_prefix("s3://") {
            return s3(url, rest);
        }
        let scheme = url.split_once("://").map(|(scheme, _)| scheme);
        match scheme {
            Some("file") => {
                let path = url::Url::parse(url).ok().and_then(|url| url.to_file_path().ok());
                path.map(Self::Directory).ok_or_else(|| Error::usage(format!("`{url}` is no file URL")))
            }
            Some(scheme) => {
                Err(Error::usage(format!("cannot open store `{url}`: `{scheme}://` is not supported"))
                    .hint("a store is a path, a file:// URL, or s3://BUCKET/PREFIX"))
            }
            // Else a slash that is missing would make a directory.
            None if url.starts_with("s3:") => Err(not_s3(url, "two slashes must follow `s3:`")),
            None => Ok(Self::Directory(PathBuf::from(url))),
        }
    }
}

fn s3(url: &str, rest: &str) -> Result<Named> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if let Some(why) = why_no_bucket(bucket) {
        return Err(not_s3(url, why));
    }
    let prefix = prefix.trim_end_matches('/');
    if let Some(why) = why_no_prefix(prefix) {
        return Err(not_s3(url, why));
    }
    Ok(Named::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
}

fn not_s3(url: &str, why: &str) -> Error {
    Error::usage(format!("`{}` is no place on S3: {why}", url.escape_debug()))
        .hint("it looks like s3://BUCKET/PREFIX, for example s3://example-triage/diffy")
}

/// AWS's rules for names of buckets.
fn why_no_bucket(bucket: &str) -> Option<&'static str> {
    let is_plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    let is_edge =
        |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if bucket.is_empty() {
        return Some("it names no bucket");
    }
    if bucket.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Some("a bucket's name has no capitals");
    }
    if bucket.contains(['@', ':']) {
        return Some("it has no user, port or ARN; endpoints are in the configuration");
    }
    if !bucket.bytes().all(is_plain) || bucket.contains("..") {
        return Some("a bucket's name has lowercase letters, digits, dots and dashes");
    }
    if !(3..=63).contains(&bucket.len()) {
        return Some("a bucket's name has 3 to 63 characters");
    }
    if !is_edge(bucket.bytes().next()) || !is_edge(bucket.bytes().last()) {
        return Some("a bucket's name begins and ends with a letter or digit");
    }
    if bucket.parse::<std::net::Ipv4Addr>().is_ok() {
        return Some("a bucket's name is no address; endpoints are in the configuration");
    }
    bucket.ends_with("--x-s3").then_some("directory buckets are not supported")
}

fn why_no_prefix(prefix: &str) -> Option<&'static str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "!-_.*'()=+@, ".contains(c);
    if prefix.len() > PREFIX_BYTES {
        return Some("the prefix is too long");
    }
    if prefix.is_empty() {
        return None;
    }
    if prefix.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Some("a part of the prefix is empty, `.` or `..`");
    }
    let is_wrong = prefix.split('/').any(|part| !part.chars().all(is_plain));
    is_wrong.then_some("the prefix has a character that keys should not have")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_directories_and_places_on_s3() {
        let directory = |path: &str| Named::Directory(PathBuf::from(path));
        let s3 =
            |bucket: &str, prefix: &str| Named::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() };
        for (url, expected) in [
            ("./store", directory("./store")),
            ("file:///var/diffy", directory("/var/diffy")),
            ("s3://example-triage", s3("example-triage", "")),
            ("s3://example-triage/", s3("example-triage", "")),
            ("s3://example.triage/a/b=c/", s3("example.triage", "a/b=c")),
        ] {
            assert_eq!(Named::parse(url).unwrap(), expected, "{url}");
        }
    }

    #[test]
    fn what_is_no_place_on_s3_is_refused_with_the_reason() {
        for (url, why) in [
            ("s3:///x", "names no bucket"),
            ("s3://", "names no bucket"),
            ("s3:/bucket/x", "two slashes"),
            ("s3://Bucket/x", "capitals"),
            ("s3://192.168.0.1/x", "no address"),
            ("s3://bucket:9000/x", "no user, port"),
            ("s3://arn:aws:s3:::bucket", "no user, port or ARN"),
            ("s3://key:secret@bucket/x", "no user"),
            ("s3://ab", "3 to 63"),
            ("s3://under_score", "lowercase letters"),
            ("s3://-bucket", "begins and ends"),
            ("s3://bucket--x-s3", "directory buckets"),
            ("s3://bucket//x", "empty"),
            ("s3://bucket/../x", "`..`"),
            ("s3://bucket/x?versionId=1", "character"),
            ("s3://bucket/größe", "character"),
            ("S3://bucket", "not supported"),
            ("gs://bucket", "not supported"),
        ] {
            let error = Named::parse(url).unwrap_err();
            assert!(error.to_string().contains(why), "{url}: {error}");
            assert!(error.hint_text().is_some(), "{url}");
        }
    }
}
