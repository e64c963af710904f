//! The sections of `diffy.toml`: AWS, S3, fleets.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::variable;

/// `[aws]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AwsFile {
    /// Profile of `~/.aws/config`.
    pub profile: Option<String>,
    /// Region.
    pub region: Option<String>,
    /// A role to be taken on for everything but the store.
    pub assume_role: Option<AssumeRoleFile>,
    /// The document of Systems Manager that runs on hosts.
    pub document: Option<String>,
    /// Where hosts put large answers when the store is no bucket: `s3://BUCKET/PREFIX`.
    pub upload: Option<String>,
    /// A role that may do nothing but put answers there; the addresses that hosts get are signed by it.
    pub upload_role: Option<String>,
    /// Commands that are sent a second.
    pub commands_per_second: Option<f64>,
    /// First pause between two looks at what is under way, in milliseconds.
    pub poll_ms: Option<u64>,
}

impl AwsFile {
    /// The environment first: its region, and its profile or keys, which only the SDK reads.
    pub(super) fn below_environment(self) -> Self {
        let is_named = ["AWS_PROFILE", "AWS_ACCESS_KEY_ID"].into_iter().any(|name| variable(name).is_some());
        Self {
            profile: self.profile.filter(|_| !is_named),
            region: variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION")).or(self.region),
            ..self
        }
    }
}

/// `[s3]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct S3File {
    /// An endpoint other than AWS's.
    pub endpoint: Option<String>,
    /// The bucket's region.
    pub region: Option<String>,
    /// Whether the bucket is named in the path.
    pub path_style: Option<bool>,
    /// Key that objects are encrypted with (SSE-KMS).
    pub kms_key_id: Option<String>,
    /// Whether S3 may use a key of the bucket in between.
    #[serde(default)]
    pub bucket_key: bool,
    /// Whether each object is sent with its SHA-256.
    pub checksum: Option<bool>,
    /// Whether the reader pays.
    #[serde(default)]
    pub request_payer: bool,
}

/// `[aws.assume_role]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AssumeRoleFile {
    /// The whole ARN of a role.
    pub arn: Option<String>,
    /// The name of a role that each account has; which account is said by `--account` or by the fleet.
    pub name: Option<String>,
    /// What CloudTrail shows.
    pub session_name: Option<String>,
    /// What the trust policy of the role asks for.
    pub external_id: Option<String>,
    /// A file with a session policy (JSON), which narrows what the session may do.
    pub policy_file: Option<PathBuf>,
    /// How long a session lasts until it is renewed, in seconds.
    pub session_seconds: Option<u64>,
}

/// The program that is brought to hosts without osquery.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "push_binary is true, false or the path of a program")]
pub enum PushBinary {
    /// Whether it is the one that runs.
    Own(bool),
    /// A file.
    File(PathBuf),
}

/// `[[fleets]]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FleetFile {
    /// Its name in the store.
    pub name: String,
    /// Whom to ask, as `--targets`.
    pub targets: Vec<String>,
    /// How to ask, as `--collector`.
    pub collector: Option<String>,
    /// Profile of `~/.aws/config`.
    pub profile: Option<String>,
    /// Region of the targets.
    pub region: Option<String>,
    /// Account of the targets; the role's name is that of `[aws.assume_role]`.
    pub account: Option<String>,
    /// The whole ARN of the role for this fleet.
    pub role_arn: Option<String>,
    /// Tables to ask for.
    #[serde(default)]
    pub tables: Vec<String>,
    /// The configuration that ssh reads in place of the user's own, as `--ssh-config`.
    pub ssh_config: Option<PathBuf>,
    /// Whether hosts are asked as root through `sudo -n`, as `--sudo`.
    #[serde(default)]
    pub sudo: bool,
    /// The program for hosts without osquery, as `--push-binary`.
    pub push_binary: Option<PushBinary>,
    /// Whether members on standby are asked.
    #[serde(default)]
    pub include_standby: bool,
    /// Whether members on their way out are asked.
    #[serde(default)]
    pub include_terminating: bool,
    /// Fewer hosts than this, in percent, and the exit status is 4.
    pub min_success: Option<f64>,
    /// When somebody means to collect it; a note for people, Diffy starts nothing by itself.
    pub schedule: Option<String>,
}
