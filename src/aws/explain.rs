//! What AWS's refusals mean, and what to do about each.
//!
//! Of an answer only its code, its message and its request id are told: bodies can have a session token in them.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::no_region;
use crate::error::{Error, Result};

/// Characters of a message of AWS that are told.
const MESSAGE: usize = 400;

/// Why AWS did not do what was asked, as far as its error codes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The credentials were good once.
    Expired,
    /// The credentials are not known, or the signature made with them is wrong.
    Unknown,
    /// The credentials may not do that.
    Denied,
    /// Too many calls.
    Throttled,
    /// The clock of this machine is off.
    Clock,
}

impl Refusal {
    /// What an error code of any service means; `None` for codes that are about what was asked.
    pub fn of_code(code: &str) -> Option<Self> {
        Some(match code {
            "ExpiredToken"
            | "ExpiredTokenException"
            | "RequestExpired"
            | "TokenRefreshRequired"
            | "InvalidGrantException"
            | "InvalidGrant"
            | "UnauthorizedException"
            | "UnauthorizedSSOTokenError" => Self::Expired,
            "InvalidAccessKeyId"
            | "InvalidClientTokenId"
            | "UnrecognizedClientException"
            | "SignatureDoesNotMatch"
            | "InvalidSignatureException"
            | "InvalidToken"
            | "IncompleteSignature"
            | "AuthFailure" => Self::Unknown,
            "AccessDenied"
            | "AccessDeniedException"
            | "UnauthorizedOperation"
            | "Forbidden"
            | "ForbiddenException"
            | "AllAccessDisabled"
            | "NotAuthorized" => Self::Denied,
            "Throttling"
            | "ThrottlingException"
            | "ThrottledException"
            | "RequestThrottled"
            | "RequestThrottledException"
            | "TooManyRequestsException"
            | "RequestLimitExceeded"
            | "LimitExceededException"
            | "PriorRequestNotComplete"
            | "BandwidthLimitExceeded"
            | "ServiceUnavailable"
            | "SlowDown" => Self::Throttled,
            "RequestTimeTooSkewed" => Self::Clock,
            _ => return None,
        })
    }

    /// The error that tells of it; `said` is AWS's own message.
    pub fn error(self, action: &str, said: &str) -> Error {
        let said = bounded(said);
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        match self {
            Self::Expired => Error::remote(format!("the AWS credentials are expired (`{action}`){said}"))
                .hint("log in again, for example with `aws sso login` or what sets AWS_SESSION_TOKEN; then once more"),
            Self::Unknown => Error::remote(format!("AWS does not accept the credentials (`{action}`){said}"))
                .hint("`aws sts get-caller-identity` with the same profile shows whether they are good"),
            Self::Denied => Error::remote(format!("AWS denies `{action}`{said}"))
                .hint(format!("the role or user needs the permission `{action}`; docs/aws.md lists all")),
            Self::Throttled => Error::remote(format!("AWS throttles `{action}`{said}"))
                .hint("many calls are made in this account at the moment; wait a minute, then once more")
                .retryable(),
            Self::Clock => Error::remote(format!("AWS refuses `{action}` because this clock is off{said}"))
                .hint("set the clock of this machine"),
        }
    }
}

/// What went wrong with a call, in one sentence that names the action (`ssm:SendCommand`), and what to do about it.
/// Denied, expired, no credentials, no region, throttled and unreachable are told apart.
pub fn explain<E>(action: &str, error: SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    if let SdkError::ServiceError(context) = &error {
        let refused = context.err();
        return of_service(action, refused.meta(), context.raw().status().as_u16());
    }
    if let Some(cause) = cause::<CredentialsError>(&error) {
        return no_credentials(cause, "").with("action", action);
    }
    let text = causes(&error);
    if text.contains("Missing Region") || text.contains("region must be set") {
        return no_region().with("action", action);
    }
    match &error {
        SdkError::TimeoutError(_) => unreachable(action, "no answer in time"),
        SdkError::DispatchFailure(_) => unreachable(action, &text),
        SdkError::ResponseError(context) => {
            let status = context.raw().status().as_u16();
            Error::remote(format!("`{action}` got an answer that is none of AWS's (HTTP status {status})"))
                .hint("a proxy may be in between; check AWS_ENDPOINT_URL and HTTPS_PROXY")
                .retryable()
        }
        _ => Error::remote(format!("`{action}` could not be asked for: {}", bounded(&text))),
    }
}

fn of_service(action: &str, meta: &aws_smithy_types::error::ErrorMetadata, status: u16) -> Error {
    let (code, said) = (meta.code().unwrap_or_default(), meta.message().unwrap_or_default());
    let error = match Refusal::of_code(code) {
        Some(refusal) => refusal.error(action, said),
        None if status >= 500 => {
            Error::remote(format!("AWS failed to do `{action}`: {} {}", bounded(code), bounded(said)))
                .hint("wait a minute, then once more")
                .retryable()
        }
        None if status == 403 => Refusal::Denied.error(action, said),
        None => Error::remote(format!("AWS refuses `{action}`: {} {}", bounded(code), bounded(said))),
    };
    match meta.extra("aws_request_id") {
        Some(id) => error.with("request", bounded(id)),
        None => error,
    }
}

fn unreachable(action: &str, text: &str) -> Error {
    Error::remote(format!("cannot reach AWS for `{action}`: {}", bounded(text)))
        .hint("check the network, the region, HTTPS_PROXY and AWS_ENDPOINT_URL")
        .retryable()
}

/// Why there are no credentials. `whose` names the profile or role that was asked for; empty for the default chain.
pub(super) fn no_credentials(error: &CredentialsError, whose: &str) -> Error {
    let text = causes(error);
    let of = if whose.is_empty() { String::new() } else { format!(" of {whose}") };
    let code = field(&text, "code: \"").unwrap_or_default();
    let said = field(&text, "message: \"").unwrap_or_default();
    if let Some(refusal) = Refusal::of_code(code) {
        let action =
            if text.contains("AssumeRole") || whose.contains("role") { "sts:AssumeRole" } else { "sign in" };
        return refusal
            .error(action, said)
            .with("credentials", if of.is_empty() { "default" } else { whose });
    }
    // What each of a chain of providers says is in its debug text alone.
    if let Some(profile) = unknown_profile(&format!("{text} {error:?}")) {
        return Error::config(format!("there is no such AWS profile: `{}`", bounded(profile))).hint(
            "`aws configure list-profiles` shows them; AWS_PROFILE and `profile` below `[aws]` name one",
        );
    }
    if ["expired", "Expired", "InvalidGrant", "refresh", "SSO token"].iter().any(|word| text.contains(word)) {
        return Error::remote(format!("the AWS credentials{of} are expired: {}", bounded(&text)))
            .hint("log in again: `aws sso login`, with `--profile NAME` where you use one");
    }
    // A role fails for want of credentials with an error of its own.
    let is_empty = matches!(error, CredentialsError::CredentialsNotLoaded(_));
    if is_empty || text.contains("no credentials found in chain") || text.contains("NoCredentials") {
        return Error::config(format!("no AWS credentials were found{of}")).hint(
            "looked at the environment (AWS_ACCESS_KEY_ID), ~/.aws/config and ~/.aws/credentials, web identity, \
             container and instance metadata; log in as for the AWS CLI, for example `aws sso login`, or set AWS_PROFILE",
        );
    }
    Error::remote(format!("the AWS credentials{of} cannot be had: {}", bounded(&text)))
        .hint("`aws sts get-caller-identity` with the same profile shows whether they are good")
}

/// The name in ``profile `x` was not defined``.
fn unknown_profile(text: &str) -> Option<&str> {
    let name = text[..text.find("` was not defined")?].rsplit('`').next()?;
    Some(name)
}

/// The error code of a service, where it answered at all.
pub fn error_code<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<&str> {
    match error {
        SdkError::ServiceError(context) => context.err().meta().code(),
        _ => None,
    }
}

/// Whether a call was refused because there were too many.
pub fn is_throttled<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    error_code(error).and_then(Refusal::of_code) == Some(Refusal::Throttled)
}

/// `Ok` for what is there, `None` where AWS says that it is not (`code`); anything else explained.
///
/// # Errors
/// As [`explain`] tells it.
pub fn or_absent<T, E>(
    action: &str,
    code: &str,
    found: Result<T, SdkError<E, HttpResponse>>,
) -> Result<Option<T>>
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error_code(&error) == Some(code) => Ok(None),
        Err(error) => Err(explain(action, error)),
    }
}

/// The first error of that type below.
fn cause<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut below = Some(error);
    while let Some(error) = below {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        below = error.source();
    }
    None
}

/// An error and all below, without what is said twice.
pub fn causes(error: &(dyn StdError + 'static)) -> String {
    let mut said = String::new();
    let mut below = Some(error);
    while let Some(error) = below {
        let text = error.to_string();
        if !said.contains(&text) {
            said.push_str(if said.is_empty() { "" } else { ": " });
            said.push_str(&text);
        }
        below = error.source();
    }
    said
}

/// What stands between `before` and the next quote.
fn field<'a>(text: &'a str, before: &str) -> Option<&'a str> {
    let start = text.find(before)? + before.len();
    text[start..].split('"').next()
}

/// AWS's words, or those of who answers in its place: on one line, not without end, and without addresses that open
/// something. Systems Manager repeats parameters that it does not take, and an address with a signature may be one.
pub fn bounded(text: &str) -> String {
    let text = without_queries(text);
    let one_line = text.chars().map(|character| if character.is_control() { ' ' } else { character });
    one_line.take(MESSAGE).collect::<String>().trim().to_owned()
}

/// `https://HOST/PATH?QUERY` becomes `https://HOST/PATH?…`.
fn without_queries(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, address) = rest.split_at(start + 3);
        out.push_str(before);
        let is_end =
            |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>' | ')' | ']' | '}');
        let (address, after) = address.split_at(address.find(is_end).unwrap_or(address.len()));
        let (place, query) = address.split_at(address.find('?').unwrap_or(address.len()));
        out.push_str(place);
        if !query.is_empty() {
            out.push_str("?…");
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use aws_smithy_runtime_api::client::result::ConnectorError;
    use aws_smithy_runtime_api::http::{Response, StatusCode};
    use aws_smithy_types::body::SdkBody;
    use aws_smithy_types::error::ErrorMetadata;

    use super::*;

    fn refused(status: u16, code: &str, said: &str) -> SdkError<ErrorMetadata, HttpResponse> {
        let meta = ErrorMetadata::builder().code(code).message(said).custom("aws_request_id", "r-1").build();
        let response =
            Response::new(StatusCode::try_from(status).unwrap(), SdkBody::from("<Token-0>hush</Token-0>"));
        SdkError::service_error(meta, response)
    }

    fn told(status: u16, code: &str, said: &str) -> (String, String) {
        let error = explain("ssm:SendCommand", refused(status, code, said));
        (error.to_string(), error.hint_text().unwrap_or_default().to_owned())
    }

    #[test]
    fn refusals_are_told_apart() {
        let who = "User: arn:aws:sts::1:assumed-role/r/s is not authorized to perform: ssm:SendCommand";
        let (text, hint) = told(400, "AccessDeniedException", who);
        assert!(text.contains("denies `ssm:SendCommand`") && text.contains("assumed-role/r/s"), "{text}");
        assert!(text.contains("request: r-1") && hint.contains("ssm:SendCommand"), "{text} {hint}");
        assert!(told(400, "ExpiredTokenException", "x").1.contains("aws sso login"));
        assert!(told(403, "InvalidClientTokenId", "x").0.contains("does not accept the credentials"));
        assert!(told(400, "ThrottlingException", "Rate exceeded").0.contains("throttles"));
        assert!(told(400, "InvalidInstanceId", "i-1").0.contains("InvalidInstanceId i-1"));
        assert!(told(500, "InternalServerError", "").0.contains("failed"));
        assert!(is_throttled(&refused(400, "Throttling", "")));
    }

    #[test]
    fn who_cannot_be_reached_is_told() {
        let error = ConnectorError::io(std::io::Error::other("connection refused").into());
        let error: SdkError<ErrorMetadata, HttpResponse> = SdkError::dispatch_failure(error);
        let error = explain("ssm:SendCommand", error);
        assert!(error.to_string().contains("connection refused") && error.is_retryable(), "{error}");
    }

    #[test]
    fn missing_credentials_are_told_from_unknown_profiles_and_refused_roles() {
        let said = "value 'https://b.s3.amazonaws.com/raw/x.gz?X-Amz-Signature=abc&X-Amz-Credential=AKIA' at 'Url' failed: see https://docs.aws";
        assert_eq!(
            bounded(said),
            "value 'https://b.s3.amazonaws.com/raw/x.gz?…' at 'Url' failed: see https://docs.aws"
        );
        let none = no_credentials(&CredentialsError::not_loaded_no_source(), "");
        assert!(none.to_string().contains("no AWS credentials were found"), "{none}");
        assert!(none.hint_text().unwrap().contains("AWS_ACCESS_KEY_ID"));
        let profile = "profile `x` was not defined: could not find it";
        let unknown = no_credentials(&CredentialsError::not_loaded(profile), "profile `x`");
        assert!(unknown.to_string().contains("no such AWS profile"), "{unknown}");
        let refused =
            refused(403, "AccessDenied", "User: arn:u is not authorized to perform: sts:AssumeRole on r");
        let denied = no_credentials(&CredentialsError::provider_error(refused), "role `r`");
        assert!(denied.to_string().contains("denies `sts:AssumeRole`: User: arn:u"), "{denied}");
        let old = no_credentials(&CredentialsError::provider_error("InvalidGrantException"), "profile `x`");
        assert!(old.hint_text().unwrap().contains("aws sso login"), "{old}");
    }

    #[test]
    fn what_aws_says_is_bounded_and_bodies_are_not_told() {
        let (text, _) = told(400, "Weird", &"x\n".repeat(10_000));
        assert!(text.len() < 2 * MESSAGE && !text.contains('\n') && !text.contains("hush"), "{text}");
    }
}
