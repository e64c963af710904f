//! Amazon Web Services: where the operator's credentials, region and endpoints come from, and what its refusals mean.
//!
//! Credentials are found as the AWS CLI finds them: environment, profile, SSO, web identity, container, instance
//! metadata, `credential_process`. They stay in this process: nothing here prints, logs or sends them.

mod bucket;
mod credentials;
mod explain;
mod nodes;
mod role;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_types::service_config::ServiceConfigKey;

pub use self::bucket::{BucketAt, no_bucket};
pub use self::credentials::Bridge;
use self::credentials::Cache;
pub use self::explain::{Refusal, bounded, causes, error_code, explain, is_throttled, or_absent};
pub use self::nodes::{NODES_PER_CALL, nodes};
pub use self::role::AssumeRole;
use crate::error::{Error, Result};

/// Attempts of a call that was throttled or met a failure of the service: with three, which is the default of the SDK,
/// a third of the calls of a large fleet fail.
const ATTEMPTS: u32 = 10;
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How long one attempt of a call may take until the answer begins.
const ATTEMPT: Duration = Duration::from_secs(60);

/// Whom to be on AWS, and where; `None` leaves it to the environment and the profile.
#[derive(Debug, Clone, Default)]
pub struct AwsSettings {
    /// Profile of `~/.aws/config`; it comes before credentials in the environment, as with the AWS CLI.
    pub profile: Option<String>,
    /// Region.
    pub region: Option<String>,
    /// A role to be taken on with the credentials that were found.
    pub assume_role: Option<AssumeRole>,
}

/// The partition of a region, as ARNs spell it: China and the US government have their own.
pub fn partition(region: &str) -> &'static str {
    match region {
        _ if region.starts_with("cn-") => "aws-cn",
        _ if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

/// A way into AWS: credentials that are refreshed, a region, and how calls are made. Cheap to clone.
#[derive(Clone)]
pub struct Aws {
    sdk: SdkConfig,
    cache: Arc<Cache>,
}

impl fmt::Debug for Aws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aws").field("region", &self.sdk.region()).finish_non_exhaustive()
    }
}

impl Aws {
    /// Settles region, endpoints and where credentials come from; asks for none yet.
    ///
    /// # Errors
    /// A role cannot be as it is written, or there is no region to ask for it in.
    pub async fn load(settings: &AwsSettings) -> Result<Self> {
        // The SDK's futures are large.
        let base = Box::pin(loader(settings).load()).await;
        let sdk = match &settings.assume_role {
            None => base,
            Some(role) => {
                role.check()?;
                base.region().ok_or_else(no_region)?;
                let provider = SharedCredentialsProvider::new(Box::pin(role.provider(&base)).await);
                base.into_builder().credentials_provider(provider).build()
            }
        };
        Ok(Self { sdk, cache: Arc::new(Cache::new(settings)) })
    }

    /// A way with settings of the caller's own, as a program that uses the SDK already has them.
    pub fn with_sdk(sdk: SdkConfig) -> Self {
        Self { sdk, cache: Arc::new(Cache::new(&AwsSettings::default())) }
    }

    /// What clients of the SDK are made from.
    pub fn sdk(&self) -> &SdkConfig {
        &self.sdk
    }

    /// The region.
    ///
    /// # Errors
    /// Nobody names one.
    pub fn region(&self) -> Result<&str> {
        self.sdk.region().map(Region::as_ref).ok_or_else(no_region)
    }

    /// The endpoint that environment or profile name for a service (`S3`, `SSM`): that of the service, else that of all.
    pub fn endpoint(&self, service: &str) -> Option<String> {
        let key = ServiceConfigKey::builder()
            .service_id(service)
            .env("AWS_ENDPOINT_URL")
            .profile("endpoint_url")
            .build()
            .ok()?;
        let own = self.sdk.service_config().and_then(|config| config.load_config(key));
        own.or_else(|| self.sdk.endpoint_url().map(ToOwned::to_owned))
    }
}

fn loader(settings: &AwsSettings) -> ConfigLoader {
    let timeouts =
        TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(ATTEMPT).build();
    let retry = RetryConfig::standard().with_max_attempts(ATTEMPTS);
    let loader = aws_config::defaults(BehaviorVersion::latest()).retry_config(retry).timeout_config(timeouts);
    let loader = match &settings.region {
        Some(region) => loader.region(Region::new(region.clone())),
        None => loader,
    };
    match &settings.profile {
        Some(profile) => loader.profile_name(profile).credentials_provider(of_profile(settings, profile)),
        None => loader,
    }
}

/// Credentials of one profile and of nothing else.
fn of_profile(settings: &AwsSettings, profile: &str) -> ProfileFileCredentialsProvider {
    let region = settings.region.clone().map(Region::new);
    let config = ProviderConfig::without_region().with_region(region);
    ProfileFileCredentialsProvider::builder().configure(&config).profile_name(profile).build()
}

fn no_region() -> Error {
    Error::config("no AWS region is set")
        .hint("name one: AWS_REGION, `region` below `[aws]` in diffy.toml, or `region` of the profile")
}
