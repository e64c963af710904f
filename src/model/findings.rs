//! What an analysis says: hosts in order of suspicion, and the findings behind that order. Plain data.
//!
//! The serialised form is a contract with other programs: field names, their order and [`SCHEMA_VERSION`] change
//! together. Lists are sorted best first by whoever makes them.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use super::{Fleet, SnapshotId, Suppressed, rfc3339};

/// Version of the serialised form of [`Analysis`].
pub const SCHEMA_VERSION: u32 = 1;

/// One row of a table as collected, in the order in which its columns are shown.
pub type Row = Map<String, Value>;

/// The result of analysing one snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    /// [`SCHEMA_VERSION`] of the program that wrote it.
    pub schema_version: u32,
    /// Version of the program that wrote it.
    pub diffy_version: String,
    /// The fleet.
    pub fleet: Fleet,
    /// The snapshot that was analysed.
    pub snapshot: SnapshotId,
    /// When the snapshot was collected.
    #[serde(serialize_with = "time")]
    pub collected_at: DateTime<Utc>,
    /// The methods that ran, by name.
    pub methods: Vec<String>,
    /// The baseline compared against.
    pub baseline: Option<BaselineRef>,
    /// The past of the fleet compared against.
    pub history: Option<HistoryRef>,
    /// Hosts of the snapshot, answering or not.
    pub hosts_total: u64,
    /// Hosts that answered for at least one table.
    pub hosts_answered: u64,
    /// Tables in which hosts were compared.
    #[serde(default)]
    pub tables_compared: u64,
    /// What a reader should know before trusting the rest, one sentence each.
    pub warnings: Vec<String>,
    /// Every host of the snapshot, the most suspicious first; quiet ones have no findings.
    pub hosts: Vec<HostResult>,
    /// Hosts that are alike, the largest group first.
    pub peer_groups: Vec<PeerGroup>,
    /// Rows of several tables that stand on the same few hosts.
    pub campaigns: Vec<Campaign>,
    /// What is left out because somebody vouches for it.
    #[serde(default)]
    pub suppressed: Suppressed,
}

/// Which baseline was compared against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaselineRef {
    /// Its name.
    pub name: String,
    /// When it was made.
    #[serde(serialize_with = "time")]
    pub created_at: DateTime<Utc>,
    /// The snapshots it was made from.
    pub snapshots: Vec<SnapshotId>,
}

/// Which past was compared against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRef {
    /// When the oldest snapshot of it was collected.
    #[serde(serialize_with = "time")]
    pub since: DateTime<Utc>,
    /// How many snapshots it has.
    pub snapshots: u64,
}

/// What the analysis says about one host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostResult {
    /// The host.
    pub host: String,
    /// Its place in the order of suspicion, from 1.
    pub rank: u64,
    /// How suspicious it is, 0 to 100.
    pub score: f64,
    /// What to do about it.
    pub verdict: Verdict,
    /// The [`PeerGroup`] it was compared within.
    pub peer_group: Option<u32>,
    /// How much of it is known.
    pub coverage: HostCoverage,
    /// Why, the strongest first.
    pub findings: Vec<Finding>,
    /// How many findings are left out because somebody vouches for them.
    #[serde(default)]
    pub suppressed: u64,
}

/// What to do about a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Stands out: look at it first.
    Outlier,
    /// Has something that a person should read.
    Review,
    /// Needs no look.
    Normal,
    /// Nothing to compare it with: neither suspicious nor cleared.
    NoPeers,
}

impl Verdict {
    /// All verdicts, for lists and tests.
    pub const ALL: [Self; 4] = [Self::Outlier, Self::Review, Self::Normal, Self::NoPeers];

    /// The spelling in files and outputs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outlier => "outlier",
            Self::Review => "review",
            Self::Normal => "normal",
            Self::NoPeers => "no_peers",
        }
    }

    /// Whether a person should look at the host.
    pub fn needs_look(self) -> bool {
        matches!(self, Self::Outlier | Self::Review)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How many tables a host answered for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCoverage {
    /// Tables answered in full, with rows or without.
    pub ok: u64,
    /// Tables asked for and not answered in full.
    pub failed: u64,
    /// Of the failed ones, those of which a part came.
    #[serde(default)]
    pub partial: u64,
}

impl HostCoverage {
    /// Whether nothing at all is known of the host.
    pub fn is_silent(self) -> bool {
        self.ok == 0 && self.partial == 0
    }
}

/// One row, or its absence, that is worth a look on one host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Names the finding in campaigns and suppressions; the same row has the same id in the next analysis.
    pub id: String,
    /// The table.
    pub table: String,
    /// In which way it stands out.
    pub kind: FindingKind,
    /// What it adds to the suspicion of the host.
    pub score: f64,
    /// The raw values as collected, never the normalised ones; of a peer for [`FindingKind::Missing`].
    pub row: Row,
    /// Hosts that have the row.
    pub hosts_with_row: u64,
    /// Hosts that answered for the table: the denominator.
    pub hosts_answered: u64,
    /// When the row was first seen in the fleet, where history is known.
    #[serde(serialize_with = "maybe_time")]
    pub first_seen: Option<DateTime<Utc>>,
    /// The most alike row that is common.
    pub nearest: Option<Nearest>,
    /// The value that is unusual only given others.
    pub given: Option<Given>,
    /// ATT&CK technique ids.
    pub attack: Vec<String>,
    /// One sentence that a person can read.
    pub reason: String,
    /// The method that found it.
    pub method: String,
    /// What its content says by itself, the weightiest first, to be read after `it`.
    #[serde(default)]
    pub priors: Vec<String>,
    /// Strict id of the row in hex, by which SQL finds it (`id('…')`); of the peers' row for an absence. None where no
    /// stored row is meant.
    #[serde(default)]
    pub strict_id: Option<String>,
}

/// In which way a row stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Hardly any other host has this thing.
    New,
    /// Others have the thing, but not with this content.
    Variant,
    /// Nearly all others have this thing, this host has not.
    Missing,
    /// Not what the baseline or the host's past says.
    Changed,
    /// The host did not answer what its peers answer.
    Coverage,
}

impl FindingKind {
    /// All kinds, for lists and tests.
    pub const ALL: [Self; 5] = [Self::New, Self::Variant, Self::Missing, Self::Changed, Self::Coverage];

    /// The spelling in files and outputs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Variant => "variant",
            Self::Missing => "missing",
            Self::Changed => "changed",
            Self::Coverage => "coverage",
        }
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The most alike row that is common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Nearest {
    /// Its values.
    pub row: Row,
    /// The columns in which the two rows differ.
    pub differs: Vec<String>,
    /// Hosts that have it.
    pub hosts_with_row: u64,
}

/// A value that is common in the fleet, but not beside these others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Given {
    /// The column of the unusual value.
    pub column: String,
    /// The unusual value.
    pub value: Value,
    /// The values beside which it is unusual.
    pub context: Row,
}

/// Hosts of a fleet that are alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerGroup {
    /// What [`HostResult::peer_group`] refers to.
    pub id: u32,
    /// How many hosts it has.
    pub hosts: u64,
    /// What its hosts have in common, in words.
    pub described_by: String,
}

/// Rows in several tables that stand on the same few hosts, across peer groups.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Campaign {
    /// The hosts.
    pub hosts: Vec<String>,
    /// [`Finding::id`] of the rows that are findings of these hosts; none for what is explained and common.
    pub findings: Vec<String>,
    /// One sentence that a person can read.
    pub reason: String,
    /// How much it speaks for a campaign, 0 to 100.
    #[serde(default)]
    pub score: f64,
    /// The tables of its rows: of those that nothing explains, where there are any.
    #[serde(default)]
    pub tables: Vec<String>,
    /// Some of its rows, the most telling first.
    #[serde(default)]
    pub rows: Vec<CampaignRow>,
    /// What explains it, where something benign does: a package, a kernel, an image, hardware, a login.
    #[serde(default)]
    pub explained_by: Option<String>,
}

/// A row that stands on the hosts of a campaign.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CampaignRow {
    /// The table.
    pub table: String,
    /// A thing that others have not, or another content of one that they have.
    pub kind: FindingKind,
    /// Its values on one of the hosts; the host's own names are placeholders.
    pub row: Row,
    /// Hosts that have it.
    pub hosts_with_row: u64,
    /// What explains this row.
    pub explained_by: Option<String>,
}

fn time<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*time))
}

fn maybe_time<S: Serializer>(time: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(rfc3339).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_are_those_of_serde() {
        for verdict in Verdict::ALL {
            assert_eq!(serde_json::to_value(verdict).unwrap(), verdict.as_str());
        }
        for kind in FindingKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }

    #[test]
    fn json_has_the_fields_of_the_contract_in_their_order() {
        let text = concat!(
            r#"{"schema_version":1,"diffy_version":"0.1.0","fleet":"web","snapshot":"01KBRZ8T600000000000000000","#,
            r#""collected_at":"2025-12-06T08:00:00.000Z","methods":["frequency"],"baseline":null,"#,
            r#""history":{"since":"2025-11-06T08:00:00.000Z","snapshots":12},"#,
            r#""hosts_total":60,"hosts_answered":58,"tables_compared":30,"warnings":[],"#,
            r#""hosts":[{"host":"i-1","rank":1,"score":93.1,"verdict":"no_peers","peer_group":0,"#,
            r#""coverage":{"ok":28,"failed":1,"partial":0},"findings":[{"id":"a","table":"crontab","kind":"new","#,
            r#""score":31.0,"row":{"path":"/x","command":"y"},"hosts_with_row":1,"hosts_answered":58,"#,
            r#""first_seen":null,"nearest":{"row":{"path":"/y"},"differs":["path"],"hosts_with_row":57},"#,
            r#""given":{"column":"path","value":"/x","context":{"name":"sshd"}},"#,
            r#""attack":["T1053.003"],"reason":"r","method":"frequency","priors":["p"],"strict_id":"0a"}],"suppressed":2}],"#,
            r#""peer_groups":[{"id":0,"hosts":41,"described_by":"d"}],"#,
            r#""campaigns":[{"hosts":["i-1"],"findings":["a"],"reason":"r","score":80.0,"#,
            r#""tables":["crontab","users"],"rows":[{"table":"crontab","kind":"new","row":{"path":"/x"},"#,
            r#""hosts_with_row":2,"explained_by":null}],"explained_by":null}],"#,
            r#""suppressed":{"findings":2,"hosts":1,"by":[{"reason":"r","who":"w","until":null,"count":2}]}}"#,
        );
        let analysis: Analysis = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&analysis).unwrap(), text);
    }
}
