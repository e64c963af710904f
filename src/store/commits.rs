//! Which snapshots are committed, and their manifests: names first, contents only of those that are needed.
//!
//! A manifest's path says its fleet and its id, and an id says its time. So a listing answers most questions, and a
//! store of thousands of snapshots costs few reads: for the newest one, usually one.

use std::collections::BTreeMap;

use futures::{FutureExt, StreamExt, stream};
use object_store::path::Path;

use super::manifest::Manifest;
use super::{FORMAT, Store, parse, paths};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Fleet, SnapshotId};

/// Small files read at once.
pub(super) const CONCURRENT_READS: usize = 16;

/// A committed snapshot as the listing names it; nothing of it has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Its fleet.
    pub fleet: Fleet,
}

impl Commit {
    fn path(&self) -> String {
        paths::manifest(&self.fleet, self.snapshot)
    }
}

impl From<&Manifest> for Commit {
    fn from(manifest: &Manifest) -> Self {
        Self { snapshot: manifest.snapshot, fleet: manifest.fleet.clone() }
    }
}

/// What a listing of the manifests says.
#[derive(Debug, Default)]
pub struct Commits {
    /// The committed snapshots, oldest first.
    pub commits: Vec<Commit>,
    /// Files among the manifests whose name is none of a manifest; each is named.
    pub strange: Vec<Error>,
}

impl Commits {
    /// Names of the fleets, sorted.
    pub fn fleets(&self) -> Vec<&Fleet> {
        let fleets: BTreeMap<&str, &Fleet> =
            self.commits.iter().map(|commit| (commit.fleet.as_str(), &commit.fleet)).collect();
        fleets.into_values().collect()
    }
}

/// The committed snapshots of a store, oldest first.
#[derive(Debug, Default)]
pub struct Listing {
    /// Manifests that could be read.
    pub manifests: Vec<Manifest>,
    /// Manifests that could not, and why.
    pub unreadable: Vec<Error>,
}

/// The newest snapshot of several.
#[derive(Debug, Default)]
pub struct Newest {
    /// The newest in which a host answered; where there is none such, the newest.
    pub manifest: Option<Manifest>,
    /// Newer ones whose manifests are damaged; each is named.
    pub damaged: Vec<Error>,
}

impl Store {
    /// What is committed, of one fleet or of all, by names alone: a request for each thousand.
    ///
    /// # Errors
    /// The store cannot be listed.
    pub async fn commits(&self, fleet: Option<&Fleet>) -> Result<Commits> {
        let prefix =
            fleet.map_or_else(|| Ok(paths::manifests()), |fleet| parse(&paths::manifests_of(fleet)))?;
        let mut found = Commits::default();
        for path in self.list(&prefix).await? {
            match paths::commit_of(&path) {
                Some((fleet, snapshot)) => found.commits.push(Commit { snapshot, fleet }),
                None => found.strange.push(no_manifest(&path)),
            }
        }
        found.commits.sort_by_key(|commit| commit.snapshot);
        Ok(found)
    }

    /// All committed snapshots, of one fleet or of all. Reads every manifest: [`Self::commits`] and [`Self::newest`]
    /// cost less.
    ///
    /// # Errors
    /// The store cannot be listed. A manifest that cannot be read is in the listing.
    pub async fn snapshots(&self, fleet: Option<&Fleet>) -> Result<Listing> {
        let found = self.commits(fleet).await?;
        let mut listing = Listing { unreadable: found.strange, ..Listing::default() };
        for manifest in self.manifests(&found.commits).await {
            match manifest {
                Ok(manifest) => listing.manifests.push(manifest),
                Err(error) => listing.unreadable.push(error),
            }
        }
        Ok(listing)
    }

    /// The manifests of these snapshots, in their order, many at once.
    pub async fn manifests(&self, commits: &[Commit]) -> Vec<Result<Manifest>> {
        // Boxed, or the compiler does not see that the futures of callers can be sent.
        let reads: Vec<_> = commits.iter().map(|commit| self.manifest(commit).boxed()).collect();
        stream::iter(reads).buffered(CONCURRENT_READS).collect().await
    }

    /// The manifest of a snapshot.
    ///
    /// # Errors
    /// Kind `Data`: it is damaged, of a newer Diffy, or gone; kind `Remote`: the store does not give it.
    pub async fn manifest(&self, commit: &Commit) -> Result<Manifest> {
        let path = commit.path();
        let bytes = self.get(&path).await?.ok_or_else(|| Error::data(format!("`{path}` vanished")))?;
        let unreadable = |source: serde_json::Error| {
            Error::data(format!("manifest `{path}` cannot be read")).source(source)
        };
        // The format first: a newer manifest may have other fields.
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(unreadable)?;
        let format = value.get("format").and_then(serde_json::Value::as_u64).unwrap_or(0);
        if format > u64::from(FORMAT) {
            return Err(Error::data(format!(
                "manifest `{path}` has format {format}; this Diffy reads {FORMAT}"
            ))
            .hint("use a newer Diffy"));
        }
        let manifest: Manifest = serde_json::from_value(value).map_err(unreadable)?;
        if Commit::from(&manifest) != *commit {
            let (snapshot, fleet) = (manifest.snapshot, manifest.fleet.as_str().escape_debug());
            return Err(Error::data(format!(
                "manifest `{path}` cannot be read: it says that it is snapshot {snapshot} of fleet `{fleet}`"
            )));
        }
        if let Some(table) =
            manifest.files.iter().filter_map(|file| file.table.as_deref()).find(|it| !is_table(it))
        {
            return Err(Error::data(format!(
                "manifest `{path}` cannot be read: `{}` is no table name",
                table.escape_debug()
            )));
        }
        Ok(manifest)
    }

    /// The newest of these snapshots (given oldest first) in which a host answered; where there is none such, the
    /// newest. Reads from the newest backwards, and stops there.
    ///
    /// # Errors
    /// The store does not give a manifest: what is newest is then not known. A damaged one is passed over.
    pub async fn newest(&self, commits: &[Commit]) -> Result<Newest> {
        let mut found = Newest::default();
        let (mut left, mut at_once) = (commits, 1);
        while !left.is_empty() {
            let (older, newer) = left.split_at(left.len().saturating_sub(at_once));
            for manifest in self.manifests(newer).await.into_iter().rev() {
                match manifest {
                    Ok(manifest) if manifest.hosts_answered > 0 => {
                        found.manifest = Some(manifest);
                        return Ok(found);
                    }
                    Ok(silent) => found.manifest = found.manifest.or(Some(silent)),
                    Err(error) if error.kind() == ErrorKind::Data => found.damaged.push(error),
                    Err(error) => return Err(error),
                }
            }
            left = older;
            at_once = (at_once * 2).min(CONCURRENT_READS);
        }
        Ok(found)
    }

    /// The committed snapshot of that id, or for `None` the newest of `fleet`, as [`Self::newest`] has it.
    ///
    /// # Errors
    /// There is none, and the message names what there is; or its manifest cannot be read.
    pub async fn snapshot(&self, id: Option<SnapshotId>, fleet: Option<&Fleet>) -> Result<Manifest> {
        let found = self.commits(fleet).await?;
        let wanted = match id {
            Some(id) => match found.commits.iter().find(|commit| commit.snapshot == id) {
                Some(commit) => return self.manifest(commit).await,
                None => format!("no snapshot `{id}`"),
            },
            None => {
                let newest = self.newest(&found.commits).await?;
                match (newest.manifest, newest.damaged.into_iter().next()) {
                    (Some(manifest), _) => return Ok(manifest),
                    (None, Some(damaged)) => return Err(damaged),
                    (None, None) => "no snapshot".to_owned(),
                }
            }
        };
        Err(self.has_not(&wanted, fleet).await)
    }

    /// The error for what is not in the store, which names what is.
    async fn has_not(&self, wanted: &str, fleet: Option<&Fleet>) -> Error {
        let of_fleet = fleet.map_or_else(String::new, |fleet| format!(" of fleet `{fleet}`"));
        let all = self.commits(None).await.unwrap_or_default();
        let fleets: Vec<&str> = all.fleets().into_iter().map(Fleet::as_str).collect();
        let hint = match fleets.is_empty() {
            true => "the store is empty; `diffy collect` and `diffy import` fill it".to_owned(),
            false => format!("`diffy snapshot list` shows them; fleets here: {}", fleets.join(", ")),
        };
        Error::usage(format!("store `{}` has {wanted}{of_fleet}", self.name())).hint(hint)
    }
}

/// Whether a name is spelled as the tables of a store are.
fn is_table(name: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=64).contains(&name.len())
        && name.bytes().all(word)
        && !name.starts_with(|first: char| first.is_ascii_digit())
}

fn no_manifest(path: &Path) -> Error {
    Error::data(format!("manifest `{path}` cannot be read: its name is not that of a snapshot"))
}
