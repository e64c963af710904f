//! Named baselines: what is known to be normal for a fleet, under the same discipline as snapshots.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::commits::CONCURRENT_READS;
use super::manifest::{FileEntry, FileKind};
use super::parts::PartWriter;
use super::{FORMAT, Store, parse, paths};
use crate::error::{Error, Result};
use crate::model::{Fleet, SnapshotId, now};

/// What a baseline was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaselineOrigin {
    /// The snapshot; of several the newest.
    pub snapshot: SnapshotId,
    /// Further snapshots before it, oldest first, for a baseline of the fleet's past.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<SnapshotId>,
    /// The hosts of it that were taken.
    pub hosts: Vec<String>,
    /// On how many of these hosts a row must be to count as normal.
    pub quorum: u64,
}

impl BaselineOrigin {
    /// All snapshots, oldest first.
    pub fn snapshots(&self) -> Vec<SnapshotId> {
        self.earlier.iter().copied().chain([self.snapshot]).collect()
    }
}

/// One table of a baseline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaselineTable {
    /// Hosts of the baseline that answered for the table, if only in part.
    pub hosts_answered: u64,
    /// Distinct rows kept.
    pub rows: u64,
}

/// A named baseline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// Version of the store's format.
    pub format: u32,
    /// Its name, unique in its fleet.
    pub name: String,
    /// Its fleet.
    pub fleet: Fleet,
    /// When it was made.
    pub created: DateTime<Utc>,
    /// User and machine that made it.
    pub created_by: String,
    /// Diffy's version.
    pub diffy_version: String,
    /// Version of the canonical encoding behind the ids.
    pub identity_version: u32,
    /// What it was made from.
    pub origin: BaselineOrigin,
    /// Its tables; one that is not here cannot be compared.
    pub tables: BTreeMap<String, BaselineTable>,
    /// The file with the rows: table_name, loose_id, strict_id, hosts, row (JSON).
    pub file: FileEntry,
}

impl Store {
    /// Starts the file of a baseline.
    ///
    /// # Errors
    /// The name is taken or unusable.
    pub async fn baseline_part(
        &self,
        fleet: &Fleet,
        name: &str,
        schema: &datafusion::arrow::datatypes::SchemaRef,
    ) -> Result<PartWriter> {
        if name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) {
            return Err(Error::usage(format!("`{}` is no baseline name", name.escape_debug()))
                .hint("a baseline name has 1 to 128 bytes and no control characters"));
        }
        if self.get(&paths::baseline(fleet, name, "json")).await?.is_some() {
            return Err(taken(fleet, name));
        }
        // A file of its own: another may be making a baseline of this name, or was killed while it did.
        let path = paths::baseline(fleet, name, &format!("{}.parquet", SnapshotId::new(now())));
        PartWriter::new(self.object_store(), FileKind::Prevalence, None, (&path, schema))
    }

    /// Commits a baseline.
    ///
    /// # Errors
    /// The name is taken, or the store cannot be written.
    pub async fn commit_baseline(&self, baseline: &Baseline) -> Result<()> {
        self.sync(std::iter::once(baseline.file.path.as_str()))?;
        if self.create(&paths::baseline(&baseline.fleet, &baseline.name, "json"), baseline).await? {
            return Ok(());
        }
        Err(taken(&baseline.fleet, &baseline.name))
    }

    /// All baselines, of one fleet or of all, oldest first.
    ///
    /// # Errors
    /// The store cannot be listed, or a baseline cannot be read; it is named.
    pub async fn baselines(&self, fleet: Option<&Fleet>) -> Result<Vec<Baseline>> {
        let prefix =
            fleet.map_or_else(|| Ok(paths::baselines()), |fleet| parse(&paths::baselines_of(fleet)))?;
        let mut paths = self.list(&prefix).await?;
        paths.retain(|path| path.extension() == Some("json"));
        let reads = paths.iter().map(|path| self.read_baseline(path));
        let found: Vec<Option<Baseline>> =
            stream::iter(reads).buffered(CONCURRENT_READS).try_collect().await?;
        let mut found: Vec<Baseline> = found.into_iter().flatten().collect();
        found.retain(|baseline| fleet.is_none_or(|fleet| fleet == &baseline.fleet));
        found.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
        Ok(found)
    }

    /// `None` when it was deleted meanwhile.
    async fn read_baseline(&self, path: &Path) -> Result<Option<Baseline>> {
        let Some(bytes) = self.get(path.as_ref()).await? else { return Ok(None) };
        let baseline: Baseline = serde_json::from_slice(&bytes)
            .map_err(|source| Error::data(format!("baseline `{path}` cannot be read")).source(source))?;
        if baseline.format > FORMAT {
            return Err(Error::data(format!("baseline `{path}` has format {}", baseline.format))
                .hint("use a newer Diffy"));
        }
        Ok(Some(baseline))
    }

    /// The baseline of that name.
    ///
    /// # Errors
    /// There is none; the message names those that there are.
    pub async fn baseline(&self, fleet: &Fleet, name: &str) -> Result<Baseline> {
        let all = self.baselines(Some(fleet)).await?;
        let names: Vec<String> = all.iter().map(|baseline| baseline.name.clone()).collect();
        all.into_iter().find(|baseline| baseline.name == name).ok_or_else(|| {
            let known = if names.is_empty() {
                "it has none; `diffy baseline create` makes one".to_owned()
            } else {
                format!("it has: {}", names.join(", "))
            };
            Error::usage(format!("fleet `{fleet}` has no baseline `{name}`")).hint(known)
        })
    }

    /// Deletes a baseline, the name first.
    ///
    /// # Errors
    /// Something cannot be deleted.
    pub async fn delete_baseline(&self, baseline: &Baseline) -> Result<()> {
        self.delete(&parse(&paths::baseline(&baseline.fleet, &baseline.name, "json"))?).await?;
        self.delete(&parse(&baseline.file.path)?).await
    }
}

fn taken(fleet: &Fleet, name: &str) -> Error {
    Error::usage(format!("fleet `{fleet}` has a baseline `{name}` already"))
        .hint("choose another name, or `diffy baseline delete` it first")
}
