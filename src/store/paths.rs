//! Where things lie below the store's root. Partition values are percent-encoded, so that no name of a fleet, and
//! nothing that a host says, can leave its place.

use object_store::path::Path;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::model::{Fleet, SnapshotId};

/// Everything but unreserved URL characters, as Hive and its readers decode it.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// The file that makes a directory a store.
pub(super) const MARKER: &str = "diffy-store.json";

/// A value as it stands in a `key=value` path segment.
fn encode(value: &str) -> String {
    let encoded = utf8_percent_encode(value, ENCODED).to_string();
    match encoded.strip_prefix('.') {
        Some(rest) => format!("%2E{rest}"),
        None => encoded,
    }
}

/// `fleet=F/dt=D/snapshot=ID`: what follows a table's folder.
fn partition(fleet: &Fleet, snapshot: SnapshotId) -> String {
    format!("fleet={}/dt={}/snapshot={snapshot}", encode(fleet.as_str()), snapshot.dt())
}

/// Where all manifests lie.
pub(super) fn manifests() -> Path {
    Path::from("snapshots")
}

/// Where the manifests of one fleet lie.
pub(super) fn manifests_of(fleet: &Fleet) -> String {
    format!("snapshots/fleet={}", encode(fleet.as_str()))
}

pub(super) fn manifest(fleet: &Fleet, snapshot: SnapshotId) -> String {
    format!("{}/{snapshot}.json", manifests_of(fleet))
}

/// The fleet and the snapshot whose manifest lies there.
pub(super) fn commit_of(path: &Path) -> Option<(Fleet, SnapshotId)> {
    let (folder, name) = path.as_ref().rsplit_once('/')?;
    let fleet = folder.strip_prefix("snapshots/fleet=")?;
    let fleet = percent_decode_str(fleet).decode_utf8().ok()?.parse().ok()?;
    let snapshot = name.strip_suffix(".json")?.parse().ok()?;
    // One spelling each: another one would name the same snapshot twice.
    (manifest(&fleet, snapshot) == path.as_ref()).then_some((fleet, snapshot))
}

pub(super) fn rows(table: &str, fleet: &Fleet, snapshot: SnapshotId, part: usize) -> String {
    format!("rows/{table}/{}/part-{part}.parquet", partition(fleet, snapshot))
}

pub(super) fn prevalence(table: &str, fleet: &Fleet, snapshot: SnapshotId) -> String {
    format!("prevalence/{table}/{}/prevalence.parquet", partition(fleet, snapshot))
}

pub(super) fn coverage(fleet: &Fleet, snapshot: SnapshotId) -> String {
    format!("coverage/{}/coverage.parquet", partition(fleet, snapshot))
}

pub(super) fn hosts(fleet: &Fleet, snapshot: SnapshotId) -> String {
    format!("hosts/{}/hosts.parquet", partition(fleet, snapshot))
}

/// Where the list of imported files of a snapshot lies.
pub(super) fn imported(fleet: &Fleet, snapshot: SnapshotId) -> String {
    format!("imports/{}/imported.parquet", partition(fleet, snapshot))
}

/// Where the lists of imported files of one fleet lie.
pub(super) fn imports_of(fleet: &Fleet) -> String {
    format!("imports/fleet={}", encode(fleet.as_str()))
}

/// Where kept results of analyses lie.
pub(super) fn findings() -> Path {
    Path::from("findings")
}

/// Where kept results of analyses of one snapshot lie.
pub(super) fn findings_of(fleet: &Fleet, snapshot: SnapshotId) -> String {
    format!("findings/{}", partition(fleet, snapshot))
}

pub(super) fn analysis(fleet: &Fleet, snapshot: SnapshotId, analysis: SnapshotId) -> String {
    format!("{}/{analysis}.parquet", findings_of(fleet, snapshot))
}

pub(super) fn baselines() -> Path {
    Path::from("baselines")
}

/// Where the baselines of one fleet lie.
pub(super) fn baselines_of(fleet: &Fleet) -> String {
    format!("baselines/fleet={}", encode(fleet.as_str()))
}

pub(super) fn baseline(fleet: &Fleet, name: &str, extension: &str) -> String {
    format!("{}/{}.{extension}", baselines_of(fleet), encode(name))
}

/// The table folders that hold files of snapshots.
pub(super) const SNAPSHOT_FOLDERS: [&str; 5] = ["rows", "prevalence", "coverage", "hosts", "imports"];

/// The snapshot that a data file belongs to, read from its path.
pub(super) fn snapshot_of(path: &Path) -> Option<SnapshotId> {
    path.parts().find_map(|part| part.as_ref().strip_prefix("snapshot=")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(fleet: &str) -> String {
        manifests_of(&fleet.parse().unwrap())
    }

    #[test]
    fn partition_values_are_percent_encoded() {
        assert_eq!(path("web"), "snapshots/fleet=web");
        assert_eq!(path("a/b=c d"), "snapshots/fleet=a%2Fb%3Dc%20d");
        assert_eq!(path(".."), "snapshots/fleet=%2E.");
        assert_eq!(path("größe"), "snapshots/fleet=gr%C3%B6%C3%9Fe");
    }

    proptest! {
        #[test]
        fn no_fleet_name_leaves_its_place(name in "\\PC{1,30}") {
            if let Ok(fleet) = name.parse::<Fleet>() {
                let snapshot = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
                let commit = commit_of(&Path::parse(manifest(&fleet, snapshot)).unwrap());
                prop_assert_eq!(commit, Some((fleet.clone(), snapshot)));
                let path = Path::parse(manifests_of(&fleet)).unwrap();
                let parts: Vec<_> = path.parts().map(|part| part.as_ref().to_owned()).collect();
                prop_assert_eq!(parts.len(), 2);
                let value = parts[1].strip_prefix("fleet=").unwrap();
                prop_assert_eq!(percent_decode_str(value).decode_utf8().unwrap(), name);
            }
        }
    }
}
