//! Credentials: asked for once, kept until shortly before they end, and handed to the object store.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use chrono::{DateTime, TimeDelta, Utc};
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use tokio::sync::Mutex;

use super::explain::no_credentials;
use super::{Aws, AwsSettings};
use crate::error::{Error, Result};
use crate::model::now;

/// So long before their end credentials are renewed.
const MARGIN: TimeDelta = TimeDelta::minutes(5);

/// The last credentials, and whose they are in words.
pub(super) struct Cache {
    last: Mutex<Option<Credentials>>,
    whose: String,
}

impl Cache {
    pub(super) fn new(settings: &AwsSettings) -> Self {
        let profile = settings.profile.as_ref().map(|profile| format!("profile `{profile}`"));
        let role = settings.assume_role.as_ref().map(|role| format!("role `{}`", role.arn));
        let whose = [profile, role].into_iter().flatten().collect::<Vec<_>>().join(" and ");
        Self { last: Mutex::new(None), whose }
    }
}

impl Aws {
    /// Credentials that hold for a while: those that are there, or new ones shortly before these end.
    ///
    /// # Errors
    /// There are none, they are expired, the profile is unknown, the role is refused; each with what to do.
    pub async fn credentials(&self) -> Result<Credentials> {
        // Held while asking: many requests at once need one answer.
        let mut last = self.cache.last.lock().await;
        if let Some(credentials) = last.as_ref().filter(|credentials| lasts(credentials, MARGIN)) {
            return Ok(credentials.clone());
        }
        let provider = self.sdk().credentials_provider();
        let provider = provider.ok_or_else(|| Error::internal("AWS has no credentials provider"))?;
        match provider.provide_credentials().await {
            Ok(credentials) => Ok(last.insert(credentials).clone()),
            // Old ones that still hold are better than none.
            Err(error) => match last.as_ref().filter(|credentials| lasts(credentials, TimeDelta::zero())) {
                Some(credentials) => Ok(credentials.clone()),
                None => Err(no_credentials(&error, &self.cache.whose)),
            },
        }
    }

    /// The same credentials for the object store.
    pub fn bridge(&self) -> Arc<Bridge> {
        Arc::new(Bridge { aws: self.clone() })
    }
}

fn lasts(credentials: &Credentials, margin: TimeDelta) -> bool {
    credentials.expiry().is_none_or(|expiry| DateTime::<Utc>::from(expiry) > now() + margin)
}

/// Hands the credentials of the SDK's chain to the object store, request by request.
pub struct Bridge {
    aws: Aws,
}

impl fmt::Debug for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridge").finish_non_exhaustive()
    }
}

#[async_trait]
impl CredentialProvider for Bridge {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let found = self.aws.credentials().await;
        let credentials =
            found.map_err(|source| object_store::Error::Generic { store: "S3", source: source.into() })?;
        Ok(Arc::new(AwsCredential {
            key_id: credentials.access_key_id().to_owned(),
            secret_key: credentials.secret_access_key().to_owned(),
            token: credentials.session_token().map(ToOwned::to_owned),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use aws_config::{BehaviorVersion, Region, SdkConfig};
    use aws_credential_types::provider::error::CredentialsError;
    use aws_credential_types::provider::{SharedCredentialsProvider, future};

    use super::*;

    /// Answers with credentials that hold for these minutes, one after another; then refuses.
    #[derive(Debug)]
    struct Counting {
        asked: Arc<AtomicUsize>,
        minutes: Vec<i64>,
    }

    impl ProvideCredentials for Counting {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let asked = self.asked.fetch_add(1, Ordering::SeqCst);
            let credentials = self.minutes.get(asked).map(|minutes| {
                let expiry = (now() + TimeDelta::minutes(*minutes)).into();
                Credentials::new(format!("key-{asked}"), "very-secret", None, Some(expiry), "test")
            });
            future::ProvideCredentials::ready(
                credentials.ok_or_else(|| CredentialsError::provider_error("ExpiredToken")),
            )
        }
    }

    fn aws(minutes: &[i64]) -> (Aws, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let provider = Counting { asked: Arc::clone(&asked), minutes: minutes.to_owned() };
        let sdk = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-west-1"))
            .credentials_provider(SharedCredentialsProvider::new(provider))
            .build();
        (Aws::with_sdk(sdk), asked)
    }

    #[tokio::test]
    async fn credentials_are_asked_for_once_until_shortly_before_their_end() {
        let (aws, asked) = aws(&[60]);
        let bridge = aws.bridge();
        for _ in 0..3 {
            assert_eq!(bridge.get_credential().await.unwrap().key_id, "key-0");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn near_their_end_they_are_renewed_and_kept_where_that_fails() {
        let (renewed, _) = aws(&[2, 60]);
        assert_eq!(renewed.credentials().await.unwrap().access_key_id(), "key-0");
        assert_eq!(renewed.credentials().await.unwrap().access_key_id(), "key-1");
        let (refused, _) = aws(&[2]);
        assert_eq!(refused.credentials().await.unwrap().access_key_id(), "key-0");
        assert_eq!(refused.credentials().await.unwrap().access_key_id(), "key-0");
    }

    #[tokio::test]
    async fn what_ended_is_an_error_and_nothing_prints_a_secret() {
        let (expired, _) = aws(&[-1]);
        let first = expired.credentials().await.unwrap();
        let error = expired.credentials().await.unwrap_err();
        assert!(error.to_string().contains("expired"), "{error}");
        let text = format!("{expired:?} {:?} {first:?} {error:?}", expired.bridge());
        assert!(!text.contains("very-secret"), "{text}");
    }
}
