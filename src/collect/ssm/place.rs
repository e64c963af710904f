//! The place in S3 where hosts put answers that are too large for Systems Manager.
//!
//! A host gets an address for one key, signed so that it can be written once (`If-None-Match: *` is part of the
//! signature) and for a short time. It cannot read, list or overwrite with it. What it wrote counts only when it has
//! the size and the digest that came through Systems Manager.

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::presigning::PresigningConfig;

use crate::aws::explain;
use crate::error::{Error, Result};
use crate::model::hex;

/// Attempts of a download.
const ATTEMPTS: u32 = 3;
/// Bytes of the random part of a key.
const RANDOM_BYTES: usize = 16;

/// A bucket, a prefix in it, and who writes and reads there.
#[derive(Debug, Clone)]
pub struct Place {
    reader: Client,
    signer: Client,
    bucket: String,
    prefix: String,
}

impl Place {
    /// Keys are below `prefix`; addresses are signed by `signer`, whose rights they carry, and read by `reader`.
    pub fn new(reader: Client, signer: &Client, (bucket, prefix): (&str, &str)) -> Self {
        // A checksum of the (empty) body would be signed, too, and no upload would fit it.
        let config = signer.config().to_builder();
        let config = config.request_checksum_calculation(RequestChecksumCalculation::WhenRequired);
        Self {
            reader,
            signer: Client::from_conf(config.build()),
            bucket: bucket.to_owned(),
            prefix: prefix.trim_matches('/').to_owned(),
        }
    }

    /// Bucket and prefix, for Systems Manager's own output.
    pub(super) fn for_ssm(&self) -> (String, String) {
        (self.bucket.clone(), self.key("ssm-out"))
    }

    fn key(&self, below: &str) -> String {
        if self.prefix.is_empty() { below.to_owned() } else { format!("{}/{below}", self.prefix) }
    }

    /// A key that nobody can guess, and the address under which its object can be created once until `valid` is over.
    pub(super) async fn address(&self, run: &str, host: &str, valid: Duration) -> Result<(String, String)> {
        let random: [u8; RANDOM_BYTES] = rand::random();
        let key = self.key(&format!("raw/{run}/{host}/{}.gz", hex(&random)));
        let config = PresigningConfig::expires_in(valid)
            .map_err(|source| Error::internal("cannot sign an address for so long").source(source))?;
        let request = self.signer.put_object().bucket(&self.bucket).key(&key).if_none_match("*");
        let signed = request.presigned(config).await.map_err(|error| explain("s3:PutObject", error))?;
        Ok((key, signed.uri().to_owned()))
    }

    /// The object of a key, which must have exactly `size` bytes.
    pub(super) async fn fetch(&self, key: &str, size: u64) -> Result<Vec<u8>> {
        let found = self.read(key, |there| match there {
            there if there == size => Ok(()),
            there => Err(Error::data(format!("the object has {there} bytes, the host announced {size}"))),
        });
        found
            .await?
            .ok_or_else(|| Error::data("the host says that it put its answer into S3, but nothing is there"))
    }

    /// What Systems Manager wrote of a host's output (`of` is `COMMAND/HOST`), at most `most` bytes; `None` when it wrote
    /// nothing. The key is spelled out: others may write below the prefix, too.
    pub(super) async fn ssm_output(&self, of: &str, step: &str, most: u64) -> Result<Option<Vec<u8>>> {
        let key = format!("{}/{of}/awsrunShellScript/{step}/stdout", self.for_ssm().1);
        let found = self.read(&key, |there| match there {
            there if there <= most => Ok(()),
            there => {
                Err(Error::data(format!("the output in S3 has {there} bytes, more than the limit of {most}")))
            }
        });
        found.await
    }

    /// Reads an object whose size is right; a download that breaks off is begun anew.
    async fn read(&self, key: &str, is_right: impl Fn(u64) -> Result<()>) -> Result<Option<Vec<u8>>> {
        let mut attempt = 1;
        loop {
            let call = self.reader.get_object().bucket(&self.bucket).key(key);
            let found = match call.send().await {
                Ok(found) => found,
                Err(error) if error.as_service_error().is_some_and(|error| error.is_no_such_key()) => {
                    return Ok(None);
                }
                Err(error) => return Err(explain("s3:GetObject", error)),
            };
            let size =
                found.content_length().and_then(|length| u64::try_from(length).ok()).unwrap_or(u64::MAX);
            is_right(size)?;
            match read(found.body, size).await {
                Err(error) if error.is_retryable() && attempt < ATTEMPTS => attempt += 1,
                read => return read.map(Some),
            }
        }
    }
}

/// Reads to the end, and not beyond `size`: a body does not decide how much memory it takes.
async fn read(mut body: aws_sdk_s3::primitives::ByteStream, size: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await {
        let chunk =
            chunk.map_err(|source| Error::remote("the download broke off").source(source).retryable())?;
        if bytes.len() as u64 + chunk.len() as u64 > size {
            return Err(Error::data(format!("the object has more than the announced {size} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    if bytes.len() as u64 != size {
        let got = bytes.len();
        return Err(Error::remote(format!("the download ended after {got} of {size} bytes")).retryable());
    }
    Ok(bytes)
}
