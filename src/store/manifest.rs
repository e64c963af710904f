//! The manifest of a snapshot: the commit point and the evidence chain.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{Fleet, SnapshotId, moment};

/// What a file of a snapshot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// Every row of every host for one table.
    Rows,
    /// One line per distinct row of one table, with the hosts that have it.
    Prevalence,
    /// One line per host and table.
    Coverage,
    /// One line per host.
    Hosts,
    /// Results of an analysis; never in a manifest.
    Findings,
    /// One line per file that `import --once` knows: those that are in this snapshot, and those of earlier ones.
    Imported,
}

/// One file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileEntry {
    /// What it holds.
    pub kind: FileKind,
    /// The table, for rows and prevalence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// Path below the store's root, as it stands in the store (percent-encoded partition values).
    pub path: String,
    /// Rows in the file.
    pub rows: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// BLAKE3 digest of the file's bytes, in hex.
    pub blake3: String,
}

/// One committed snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Manifest {
    /// Version of the store's format.
    pub format: u32,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Its fleet.
    pub fleet: Fleet,
    /// The incident it was collected for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<String>,
    /// When the collection started; `collected_at` of analyses.
    #[schemars(schema_with = "moment")]
    pub started: DateTime<Utc>,
    /// When the manifest was written.
    #[schemars(schema_with = "moment")]
    pub ended: DateTime<Utc>,
    /// Who collected: user and machine.
    pub collected_by: String,
    /// How: name of the collector, or `import`.
    pub collector: String,
    /// Whom it was to ask, as the user named them: `asg:web`; empty where nobody named any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    /// Diffy's version.
    pub diffy_version: String,
    /// Version of the canonical encoding behind `loose_id` and `strict_id`.
    pub identity_version: u32,
    /// BLAKE3 digest of the table schemas that were in force, in hex.
    pub schemas_blake3: String,
    /// The query text sent for each table.
    pub queries: BTreeMap<String, String>,
    /// Hosts that were asked.
    pub hosts_asked: u64,
    /// Hosts that answered for at least one table.
    pub hosts_answered: u64,
    /// Hosts that answered for none.
    pub hosts_failed: u64,
    /// Hosts that answered for each table, with rows or with none: coverage `ok` or `empty`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub answered: BTreeMap<String, u64>,
    /// Rows kept, over all tables.
    pub rows: u64,
    /// Columns left out of a table's prevalence because nearly every row has a value of its own there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub prevalence_without: BTreeMap<String, Vec<String>>,
    /// What a reader should know about this collection.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The files.
    pub files: Vec<FileEntry>,
}
