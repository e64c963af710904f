//! A role that is taken on with the credentials that were found.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::sts::AssumeRoleProvider;

use crate::error::{Error, Result};

/// Characters of a session's name beside letters and digits.
const SESSION_NAME: &str = "_+=,.@-";
/// Bytes that a session policy may have.
const POLICY_BYTES: usize = 2_048;
/// How long a session may last.
const LENGTHS: std::ops::RangeInclusive<u64> = 900..=43_200;

/// A role to be taken on (`sts:AssumeRole`).
#[derive(Debug, Clone)]
pub struct AssumeRole {
    /// `arn:aws:iam::ACCOUNT:role/NAME`.
    pub arn: String,
    /// What CloudTrail of the role's account shows: 2 to 64 of letters, digits and `_+=,.@-`.
    pub session_name: String,
    /// The id that the role's trust policy asks for: 2 to 1,224 characters.
    pub external_id: Option<String>,
    /// JSON that narrows what the session may do: at most 2,048 characters.
    pub policy: Option<String>,
    /// How long the session lasts until it is renewed: 15 minutes to 12 hours, and at most one hour where a role is
    /// taken on with another role. The default is what AWS gives: one hour.
    pub session_length: Option<Duration>,
}

impl AssumeRole {
    /// Whether AWS could take it at all.
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::config(what).with("role", &self.arn));
        if !is_role(&self.arn) {
            return Err(Error::config(format!("`{}` is no ARN of a role", self.arn.escape_debug()))
                .hint("it looks like arn:aws:iam::123456789012:role/NAME"));
        }
        let is_plain =
            |character: char| character.is_ascii_alphanumeric() || SESSION_NAME.contains(character);
        if !(2..=64).contains(&self.session_name.len()) || !self.session_name.chars().all(is_plain) {
            return wrong(format!(
                "session name `{}` must have 2 to 64 letters, digits or `{SESSION_NAME}`",
                self.session_name.escape_debug()
            ));
        }
        if self.external_id.as_ref().is_some_and(|id| !(2..=1_224).contains(&id.len())) {
            return wrong("the external id must have 2 to 1,224 characters".to_owned());
        }
        if self.policy.as_ref().is_some_and(|policy| policy.len() > POLICY_BYTES) {
            return wrong(format!("the session policy has more than {POLICY_BYTES} characters"));
        }
        if self.session_length.is_some_and(|length| !LENGTHS.contains(&length.as_secs())) {
            return wrong("a session lasts 900 to 43,200 seconds".to_owned());
        }
        Ok(())
    }

    pub(super) async fn provider(&self, base: &SdkConfig) -> AssumeRoleProvider {
        let mut builder =
            AssumeRoleProvider::builder(&self.arn).session_name(&self.session_name).configure(base);
        if let Some(id) = &self.external_id {
            builder = builder.external_id(id);
        }
        if let Some(policy) = &self.policy {
            builder = builder.policy(policy);
        }
        if let Some(length) = self.session_length {
            builder = builder.session_length(length);
        }
        builder.build().await
    }
}

/// `arn:PARTITION:iam::12 DIGITS:role/…`.
fn is_role(arn: &str) -> bool {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", partition, "iam", "", account, name] = parts[..] else { return false };
    let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    let has_name = name.strip_prefix("role/").is_some_and(|name| !name.is_empty());
    partition.starts_with("aws") && is_account && has_name && arn.chars().all(|c| c.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(arn: &str, session_name: &str) -> AssumeRole {
        AssumeRole {
            arn: arn.to_owned(),
            session_name: session_name.to_owned(),
            external_id: None,
            policy: None,
            session_length: None,
        }
    }

    #[test]
    fn only_what_aws_could_take_passes() {
        let arn = "arn:aws:iam::123456789012:role/team/responder";
        assert!(role(arn, "diffy-ana-IR_1").check().is_ok());
        assert!(role("arn:aws-us-gov:iam::123456789012:role/r", "ab").check().is_ok());
        for wrong in ["", "responder", "arn:aws:iam::1234:role/r", "arn:aws:iam::123456789012:user/r"] {
            assert!(role(wrong, "ab").check().is_err(), "{wrong}");
        }
        for wrong in ["", "a", "a b", "größe", &"x".repeat(65)] {
            assert!(role(arn, wrong).check().is_err(), "{wrong}");
        }
        let short = AssumeRole { session_length: Some(Duration::from_secs(60)), ..role(arn, "ab") };
        assert!(short.check().is_err());
    }
}
