//! The words of the trade as plain data: fleets, hosts, snapshots, coverage. No I/O.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::error::{Error, Result};

mod destination;
mod findings;
mod sentence;
mod suppressed;

pub use self::destination::Destination;
pub use self::findings::{
    Analysis, BaselineRef, Campaign, CampaignRow, Finding, FindingKind, Given, HistoryRef, HostCoverage,
    HostResult, Nearest, PeerGroup, Row, SCHEMA_VERSION, Verdict,
};
pub(crate) use self::findings::{maybe_moment, moment};
pub use self::sentence::{count, cut, digits, few, part};
pub use self::suppressed::{Suppressed, SuppressedBy, SuppressedFinding};

/// The time now: the only place that reads the clock.
#[expect(clippy::disallowed_methods, reason = "the one place that may read the clock")]
pub fn now() -> DateTime<Utc> {
    Utc::now()
}

/// A time as all of our outputs spell it: RFC 3339, UTC, milliseconds.
pub fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Bytes as lowercase hex digits.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The set of hosts that should be alike, for instance an Auto Scaling Group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("minLength" = 1, "maxLength" = 128))]
pub struct Fleet(String);

impl Fleet {
    /// The name as the user gave it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Fleet {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        if name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) {
            return Err(Error::usage(format!("`{}` is no fleet name", name.escape_debug()))
                .hint("a fleet name has 1 to 128 bytes and no control characters"));
        }
        Ok(Self(name.to_owned()))
    }
}

impl TryFrom<String> for Fleet {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        name.parse()
    }
}

impl From<Fleet> for String {
    fn from(fleet: Fleet) -> Self {
        fleet.0
    }
}

impl fmt::Display for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A host that belongs to a collection, and what an inventory knows of it. Unlike what a host says of itself, an
/// inventory's word is not the host's to choose.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownHost {
    /// The name of the host in the snapshot.
    #[serde(rename = "host")]
    pub name: String,
    /// Facts by column of the `hosts` table: `image`, `zone`, `lifecycle`, …
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
    /// Further names and addresses that are the host's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

impl KnownHost {
    /// A host of which nothing but its name is known.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }
}

/// One committed collection of one fleet: a ULID, so that ids sort by time and need no lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^[0-7][0-9A-HJKMNP-TV-Z]{25}$"))]
pub struct SnapshotId(Ulid);

impl SnapshotId {
    /// A new id for a collection that starts at `time`.
    pub fn new(time: DateTime<Utc>) -> Self {
        Self(Ulid::from_datetime(time.into()))
    }

    /// When the collection started, to the millisecond.
    pub fn time(self) -> DateTime<Utc> {
        self.0.datetime().into()
    }

    /// The day of [`Self::time`] as the `dt` partition spells it.
    pub fn dt(self) -> String {
        self.time().format("%Y-%m-%d").to_string()
    }
}

impl FromStr for SnapshotId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ulid::from_string(text).map(Self).map_err(|source| {
            Error::usage(format!("`{}` is no snapshot id", text.escape_debug()))
                .source(source)
                .hint("`diffy snapshot list` shows the snapshots of the store")
        })
    }
}

impl TryFrom<String> for SnapshotId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<SnapshotId> for String {
    fn from(id: SnapshotId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a host answered for one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// At least one row, all of them here.
    Ok,
    /// The host answered, and there are no rows.
    Empty,
    /// The query failed, or its answer could not be read.
    Error,
    /// No answer within the time limit.
    Timeout,
    /// An answer that is not whole; what came is here.
    Truncated,
    /// The host could not be reached.
    Undeliverable,
    /// The collector may not read this table, or not all of it; what it may read is here.
    Denied,
    /// The host's agent or system does not have this table.
    NotSupported,
    /// Nobody asked this host for this table.
    NotAsked,
}

impl Status {
    /// All statuses, for lists and tests.
    pub const ALL: [Self; 9] = [
        Self::Ok,
        Self::Empty,
        Self::Error,
        Self::Timeout,
        Self::Truncated,
        Self::Undeliverable,
        Self::Denied,
        Self::NotSupported,
        Self::NotAsked,
    ];

    /// The spelling in files and outputs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Empty => "empty",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Truncated => "truncated",
            Self::Undeliverable => "undeliverable",
            Self::Denied => "denied",
            Self::NotSupported => "not_supported",
            Self::NotAsked => "not_asked",
        }
    }

    /// Whether the host answered in full: such hosts are the denominator of prevalence.
    pub fn answered(self) -> bool {
        matches!(self, Self::Ok | Self::Empty)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Status {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| Error::data(format!("`{}` is no coverage status", text.escape_debug())))
    }
}

/// What one host answered for one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// The host.
    pub host: String,
    /// The table.
    pub table: String,
    /// How it answered.
    pub status: Status,
    /// Rows kept.
    pub rows: u64,
    /// Bytes of the answer as received.
    pub bytes: u64,
    /// What went wrong, in the words of the host or of the decoder; empty when nothing did.
    pub error: String,
    /// Schema columns that the agent did not return, sorted; older agents lack some.
    pub columns_missing: Vec<String>,
    /// When the query started.
    pub started: Option<DateTime<Utc>>,
    /// When the query ended.
    pub ended: Option<DateTime<Utc>>,
    /// The agent's version, where it says it.
    pub osquery_version: Option<String>,
    /// The user id that the query ran as.
    pub uid: Option<u32>,
}

impl Coverage {
    /// Whether a person should be told of it. Tables that a system does not have are no failure, but a host that has
    /// none of them is.
    pub fn is_failure(&self) -> bool {
        match self.status {
            Status::Ok | Status::Empty => false,
            Status::NotSupported => self.osquery_version.is_none() && self.uid.is_none(),
            Status::NotAsked => !self.error.is_empty(),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshot_ids_sort_by_time_and_carry_their_day() {
        let early: DateTime<Utc> = "2026-01-02T03:04:05Z".parse().unwrap();
        let late: DateTime<Utc> = "2026-01-02T03:04:06Z".parse().unwrap();
        assert!(SnapshotId::new(early) < SnapshotId::new(late));
        assert_eq!(SnapshotId::new(early).dt(), "2026-01-02");
        let id = SnapshotId::new(early);
        assert_eq!(id.to_string().parse::<SnapshotId>().unwrap(), id);
    }

    #[test]
    fn fleet_names_with_control_characters_are_refused() {
        for name in ["", "a\u{1b}b", &"x".repeat(129)] {
            assert!(name.parse::<Fleet>().is_err(), "{name:?}");
        }
        assert!("web / prod=1".parse::<Fleet>().is_ok());
    }
}
