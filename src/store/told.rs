//! Requests to S3, with what goes wrong told in our words.
//!
//! The object store's own errors have whole answers of S3 in them, and those can have a session token in them: nothing
//! of an answer leaves this file but its code and its message.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
    UploadPart,
};

use crate::aws::{Refusal, bounded, causes, no_bucket};
use crate::error::{Error, ErrorKind};

const GET: &str = "s3:GetObject";
const PUT: &str = "s3:PutObject";
const LIST: &str = "s3:ListBucket";
const DELETE: &str = "s3:DeleteObject";

/// What a message names.
#[derive(Debug)]
pub(super) struct Whom {
    pub(super) bucket: String,
    /// Endpoint or region, for people.
    pub(super) at: String,
    /// Whether objects are to be encrypted with a key of KMS.
    pub(super) has_kms: bool,
}

/// An object store on S3 whose errors say what to do.
#[derive(Debug)]
pub(super) struct Told<T> {
    below: T,
    whom: Arc<Whom>,
}

impl<T> fmt::Display for Told<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.whom.bucket)
    }
}

impl<T: ObjectStore> Told<T> {
    pub(super) fn new(below: T, whom: Whom) -> Self {
        Self { below, whom: Arc::new(whom) }
    }
}

#[async_trait]
impl<T: ObjectStore> ObjectStore for Told<T> {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        tracing::debug!(%location, bytes = payload.content_length(), mode = ?options.mode, "{PUT}");
        let put = self.below.put_opts(location, payload, options);
        put.await.map_err(|error| self.whom.tell(PUT, error))
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        tracing::debug!(%location, "s3:CreateMultipartUpload");
        let below = self.below.put_multipart_opts(location, options).await;
        let below = below.map_err(|error| self.whom.tell(PUT, error))?;
        Ok(Box::new(ToldUpload { below, whom: Arc::clone(&self.whom) }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        tracing::debug!(%location, range = ?options.range, head = options.head, "{GET}");
        let mut found =
            self.below.get_opts(location, options).await.map_err(|error| self.whom.tell(GET, error))?;
        if let GetResultPayload::Stream(bytes) = found.payload {
            let whom = Arc::clone(&self.whom);
            found.payload =
                GetResultPayload::Stream(bytes.map_err(move |error| whom.tell(GET, error)).boxed());
        }
        Ok(found)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        tracing::debug!("{DELETE}");
        let whom = Arc::clone(&self.whom);
        self.below.delete_stream(locations).map_err(move |error| whom.tell(DELETE, error)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        tracing::debug!(prefix = prefix.map(AsRef::<str>::as_ref), "{LIST}");
        let whom = Arc::clone(&self.whom);
        self.below.list(prefix).map_err(move |error| whom.tell(LIST, error)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        tracing::debug!(prefix = prefix.map(AsRef::<str>::as_ref), "{LIST}");
        let listed = self.below.list_with_delimiter(prefix);
        listed.await.map_err(|error| self.whom.tell(LIST, error))
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        let copied = self.below.copy_opts(from, to, options);
        copied.await.map_err(|error| self.whom.tell(PUT, error))
    }
}

#[derive(Debug)]
struct ToldUpload {
    below: Box<dyn MultipartUpload>,
    whom: Arc<Whom>,
}

#[async_trait]
impl MultipartUpload for ToldUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        tracing::debug!(bytes = data.content_length(), "s3:UploadPart");
        let whom = Arc::clone(&self.whom);
        self.below.put_part(data).map(move |done| done.map_err(|error| whom.tell(PUT, error))).boxed()
    }

    async fn complete(&mut self) -> StoreResult<PutResult> {
        tracing::debug!("s3:CompleteMultipartUpload");
        let whom = Arc::clone(&self.whom);
        self.below.complete().map(move |done| done.map_err(|error| whom.tell(PUT, error))).await
    }

    async fn abort(&mut self) -> StoreResult<()> {
        tracing::debug!("s3:AbortMultipartUpload");
        let whom = Arc::clone(&self.whom);
        let action = "s3:AbortMultipartUpload";
        self.below.abort().map(move |done| done.map_err(|error| whom.tell(action, error))).await
    }
}

impl Whom {
    /// The same kind of error without what S3 answered; what the caller cannot go on from becomes one of ours.
    fn tell(&self, action: &str, error: StoreError) -> StoreError {
        match error {
            StoreError::NotFound { path, source } if !causes(source.as_ref()).contains("NoSuchBucket") => {
                StoreError::NotFound { path, source: "there is no such object".into() }
            }
            StoreError::AlreadyExists { path, .. } => {
                StoreError::AlreadyExists { path, source: "there is an object already".into() }
            }
            StoreError::Precondition { path, .. } => {
                StoreError::Precondition { path, source: "the object is another".into() }
            }
            StoreError::NotModified { path, .. } => {
                StoreError::NotModified { path, source: "the object is the same".into() }
            }
            other => {
                let ours = self.refusal(action, other).with("bucket", &self.bucket);
                StoreError::Generic { store: "S3", source: ours.into() }
            }
        }
    }

    fn refusal(&self, action: &str, error: StoreError) -> Error {
        let is_denied = matches!(error, StoreError::PermissionDenied { .. });
        let is_unknown = matches!(error, StoreError::Unauthenticated { .. });
        let error = match error {
            // The credentials' own error.
            StoreError::Generic { source, .. } if source.is::<Error>() => match source.downcast::<Error>() {
                Ok(ours) => return *ours,
                Err(_) => return Error::internal("an error is none"),
            },
            other => other,
        };
        if let Some(broken) = http_error(&error) {
            return self.unreachable(action, broken);
        }
        let text = causes(&error);
        let answer = Answer::read(&text);
        if let Some(known) = self.known(action, &answer, &text) {
            return known;
        }
        match answer.status {
            _ if is_denied => Refusal::Denied.error(action, answer.said),
            _ if is_unknown => Refusal::Unknown.error(action, answer.said),
            Some(500..) => self.failed(action, &answer),
            Some(status) => Error::remote(format!(
                "S3 refuses `{action}`: {} {} (HTTP status {status})",
                bounded(answer.code),
                bounded(answer.said)
            )),
            None if text.contains('<') => {
                Error::remote(format!("S3 gave an answer to `{action}` that is none"))
                    .hint(format!("is there an S3 server at {}?", self.at))
            }
            None => Error::remote(format!("`{action}` failed: {}", bounded(&text))),
        }
    }

    /// What a code says that has a meaning of its own.
    fn known(&self, action: &str, answer: &Answer<'_>, text: &str) -> Option<Error> {
        let (code, said) = (answer.code, answer.said);
        let is_region =
            ["PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"]
                .contains(&code)
                || text.contains("redirect without LOCATION");
        if code == "NoSuchBucket" || text.contains("<Code>NoSuchBucket<") {
            return Some(no_bucket(&self.bucket));
        }
        if is_region {
            let error = format!("bucket `{}` is not at {}: {}", self.bucket, self.at, bounded(said));
            return Some(
                Error::config(error).hint("leave `region` below `[s3]` out, or name the bucket's own"),
            );
        }
        if code.starts_with("KMS") || said.contains("kms:") {
            return Some(
                Error::remote(format!("KMS refuses the key for `{action}`: {} {}", bounded(code), bounded(said)))
                    .hint("it takes kms:GenerateDataKey to write and kms:Decrypt to read, in the role and in the key's policy"),
            );
        }
        Refusal::of_code(code).map(|refusal| refusal.error(action, said))
    }

    fn failed(&self, action: &str, answer: &Answer<'_>) -> Error {
        let (code, said) = (bounded(answer.code), bounded(answer.said));
        let error = Error::remote(format!("S3 failed to do `{action}`: {code} {said}")).retryable();
        if self.has_kms && action == PUT {
            return error.hint(
                "`kms_key_id` is set, and not every S3 server has a KMS; else wait a minute, then once more",
            );
        }
        error.hint("wait a minute, then once more")
    }

    fn unreachable(&self, action: &str, broken: &HttpError) -> Error {
        let text = bounded(&causes(broken));
        let error = match broken.kind() {
            HttpErrorKind::Connect => Error::remote(format!("cannot reach S3 at {}: {text}", self.at)),
            _ => Error::remote(format!("S3 at {} did not answer `{action}` to the end: {text}", self.at)),
        };
        error.hint("check the network, HTTPS_PROXY, and `endpoint` and `region` below `[s3]`").retryable()
    }
}

/// What is told of an answer.
struct Answer<'a> {
    status: Option<u16>,
    code: &'a str,
    said: &'a str,
}

impl<'a> Answer<'a> {
    /// Reads it out of an error's text, where the object store puts the body.
    fn read(text: &'a str) -> Self {
        let between = |before: &str, after: &str| {
            let rest = &text[text.find(before)? + before.len()..];
            Some(&rest[..rest.find(after)?])
        };
        let status = between("status code: ", ":").and_then(|status| status.get(..3)?.parse().ok());
        Self {
            status,
            // The second is how the object store tells of one among many deletions.
            code: between("<Code>", "</Code>").or_else(|| between("(code: ", ")")).unwrap_or_default(),
            said: between("<Message>", "</Message>").unwrap_or_default(),
        }
    }
}

fn http_error(error: &StoreError) -> Option<&HttpError> {
    let mut below: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = below {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        below = error.source();
    }
    None
}

/// The error of a step of ours that failed below: with the kind and the hint of what is told there, else with `hint`.
pub(super) fn failed(
    what: String,
    hint: Option<&str>,
    source: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    if let Some(told) = Error::below(&source) {
        let error = Error::new(told.kind(), format!("{what}: {told}"));
        let error = if told.is_retryable() { error.retryable() } else { error };
        return match told.hint_text().or(hint) {
            Some(hint) => error.hint(hint),
            None => error,
        };
    }
    let error = Error::new(ErrorKind::Remote, what).source(source);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// Whether a failed write may have been done all the same.
pub(super) fn is_ambiguous(error: &StoreError) -> bool {
    match error {
        StoreError::Generic { .. } => Error::below(error).is_none_or(Error::is_retryable),
        other => matches!(other, StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }),
    }
}

/// Writes an object where nothing is yet; false when something else is.
///
/// A write whose answer got lost is looked at: what is there with just these bytes is ours.
pub(super) async fn put_new(store: &dyn ObjectStore, path: &Path, bytes: PutPayload) -> StoreResult<bool> {
    use object_store::{ObjectStoreExt, PutMode};
    const ATTEMPTS: usize = 3;
    let mut attempt = 1;
    loop {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let error = match store.put_opts(path, bytes.clone(), options).await {
            Ok(_) => return Ok(true),
            Err(error) if !is_ambiguous(&error) => return Err(error),
            Err(error) => error,
        };
        let is_last = attempt == ATTEMPTS;
        match store.get(path).await {
            Ok(found) if found.meta.size != bytes.content_length() as u64 => return Ok(false),
            Ok(found) => return Ok(found.bytes().await? == Bytes::from(bytes)),
            // Another's write that failed, or ours that did not begin.
            Err(StoreError::NotFound { .. }) if !is_last => attempt += 1,
            Err(_) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "FwoGZXIvYXdzEBYaD";

    fn whom() -> Whom {
        Whom { bucket: "triage".to_owned(), at: "region eu-west-1".to_owned(), has_kms: true }
    }

    fn told(status: u16, code: &str, said: &str) -> Error {
        let body = format!(
            "Error performing PUT https://s3/x in 1ms - Server returned non-2xx status code: {status} Whatever: \
             <Error><Code>{code}</Code><Message>{said}</Message><Token-0>{TOKEN}</Token-0></Error>"
        );
        let error = whom().tell(PUT, StoreError::Generic { store: "S3", source: body.into() });
        failed("cannot write `x`".to_owned(), Some("nothing"), error)
    }

    #[test]
    fn refusals_say_what_to_do_and_never_repeat_a_body() {
        for (status, code, said, expected) in [
            (404, "NoSuchBucket", "none", "there is no bucket `triage`"),
            (403, "AccessDenied", "no", "AWS denies `s3:PutObject`"),
            (400, "ExpiredToken", "old", "expired"),
            (403, "SignatureDoesNotMatch", "wrong", "does not accept the credentials"),
            (301, "PermanentRedirect", "elsewhere", "is not at region eu-west-1"),
            (400, "KMS.DisabledException", "off", "KMS refuses the key"),
            (403, "AccessDenied", "not authorized to perform: kms:GenerateDataKey", "KMS refuses the key"),
            (500, "InternalError", "x", "S3 failed to do `s3:PutObject`"),
            (400, "MetadataTooLarge", "x", "S3 refuses `s3:PutObject`: MetadataTooLarge"),
        ] {
            let error = told(status, code, said);
            let text = format!("{error} {error:?}");
            assert!(text.contains(expected), "{code}: {text}");
            assert!(text.contains("triage") && !text.contains(TOKEN), "{text}");
        }
        assert!(told(500, "InternalError", "x").hint_text().unwrap().contains("KMS"));
        assert!(!format!("{:?}", told(302, "", "")).contains(TOKEN));
    }

    #[test]
    fn only_what_may_have_been_done_is_looked_at() {
        let error = |status, code: &str| {
            let body = format!("status code: {status} x: <Code>{code}</Code>");
            whom().tell(PUT, StoreError::Generic { store: "S3", source: body.into() })
        };
        assert!(is_ambiguous(&error(503, "SlowDown")));
        assert!(is_ambiguous(&error(500, "InternalError")));
        assert!(!is_ambiguous(&error(403, "AccessDenied")));
    }

    #[test]
    fn one_refused_deletion_among_many_is_a_refusal() {
        let text = "DeleteObjects request failed for key x: Access Denied. (code: AccessDenied)";
        let error = whom().tell(DELETE, StoreError::Generic { store: "S3", source: text.into() });
        assert!(error.to_string().contains("AWS denies `s3:DeleteObject`"), "{error}");
    }
}
