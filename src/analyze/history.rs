//! The fleet's own past: which earlier snapshots count, and what they say of the ids of the analysed one.
//!
//! Only ids, host sets and coverage of earlier snapshots are read, never their rows. What cannot be read is left out
//! with a warning: a damaged snapshot of last week must not keep anybody from looking at today's.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, TimeDelta, Utc};
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Int64Type, UInt32Type};
use futures::{StreamExt, stream};
use roaring::RoaringBitmap;

use super::fleet::{FleetState, column};
use super::lines::{Loaded, Source, read_lines};
use super::members::Members;
use super::past::{Merge, PastTable, Slice};
use super::span::Span;
use crate::error::{Error, Result};
use crate::identity::ENCODING_VERSION;
use crate::model::{HistoryRef, Status};
use crate::store::{FileEntry, FileKind, Manifest, Store};

/// Earlier snapshots of which a file is read at once.
const CONCURRENT_SNAPSHOTS: usize = 8;
/// Lines of them that are held while they are read, of 50 bytes each; those of one snapshot at least.
const LINES_AT_ONCE: u64 = 1 << 20;

/// The snapshots of a span, and what to say of those left out.
#[derive(Debug, Default)]
pub struct Earlier {
    /// Oldest first.
    pub manifests: Vec<Manifest>,
    /// One sentence for each problem.
    pub warnings: Vec<String>,
}

/// The snapshots of the same fleet that began within `span` before this one, and in which a host answered.
///
/// # Errors
/// The store cannot be listed.
pub async fn earlier(store: &Store, manifest: &Manifest, span: Span) -> Result<Earlier> {
    let mut found = Earlier::default();
    let Some(span) = span.duration() else { return Ok(found) };
    let mut commits = store.commits(Some(&manifest.fleet)).await?.commits;
    let since = manifest.started.checked_sub_signed(span).unwrap_or(DateTime::<Utc>::MIN_UTC);
    // An id has its time cut to the millisecond; the manifest says it in full.
    let cut = TimeDelta::milliseconds(1);
    let first = since.checked_sub_signed(cut).unwrap_or(since);
    commits.retain(|other| {
        other.snapshot != manifest.snapshot && (first..=manifest.started).contains(&other.snapshot.time())
    });
    let is_earlier = |other: &Manifest| (since..manifest.started).contains(&other.started);
    for other in store.manifests(&commits).await {
        let other = match other {
            Ok(other) if is_earlier(&other) && other.hosts_answered > 0 => other,
            Ok(_) => continue,
            Err(error) => {
                found.warnings.push(format!("left out of history: {error}"));
                continue;
            }
        };
        if other.identity_version == ENCODING_VERSION {
            found.manifests.push(other);
            continue;
        }
        found.warnings.push(format!(
            "snapshot {} is left out of history: it has ids of version {}, this Diffy makes version {ENCODING_VERSION}",
            other.snapshot, other.identity_version
        ));
    }
    let others =
        found.manifests.iter().filter(|other| other.schemas_blake3 != manifest.schemas_blake3).count();
    if others > 0 {
        found.warnings.push(format!(
            "{others} of {} earlier snapshots were made with other table schemas: where these changed what identifies a row, known rows look new",
            found.manifests.len()
        ));
    }
    found.manifests.sort_by_key(|other| (other.started, other.snapshot));
    Ok(found)
}

/// The past of a fleet, seen from one snapshot.
#[derive(Debug)]
pub(super) struct History {
    /// When each earlier snapshot began, oldest first.
    pub(super) times: Vec<DateTime<Utc>>,
    /// When the analysed snapshot began.
    pub(super) now: DateTime<Utc>,
    /// By table.
    pub(super) tables: BTreeMap<String, PastTable>,
    /// What was left out, and why.
    pub(super) warnings: Vec<String>,
}

impl History {
    /// Merges the past of these tables; `None` when there is no earlier snapshot within the span.
    ///
    /// # Errors
    /// The store cannot be listed. Earlier snapshots that cannot be read are in the warnings.
    pub(super) async fn load(
        store: &Store,
        manifest: &Manifest,
        (state, tables): (&FleetState, &[Loaded<'_>]),
        span: Span,
    ) -> Result<Option<Self>> {
        let Earlier { manifests, mut warnings } = earlier(store, manifest, span).await?;
        let mut hosts = Numbers::new(&state.hosts);
        let mut snapshots = Vec::new();
        let reads = manifests.iter().map(|other| Unnumbered::read(store, other));
        let mut reads = stream::iter(reads).buffered(CONCURRENT_SNAPSHOTS);
        while let Some((manifest, read)) = reads.next().await {
            match read.and_then(|read| read.numbered(&mut hosts)) {
                Ok(snapshot) => snapshots.push(snapshot),
                Err(error) => {
                    warnings.push(format!("snapshot {} is left out of history: {error}", manifest.snapshot));
                }
            }
        }
        if snapshots.is_empty() {
            return Ok(None);
        }
        let mut past = BTreeMap::new();
        for table in tables {
            let merged = merge(store, table, (&snapshots, state.hosts.len() as u32), &mut warnings).await;
            past.insert(table.name().to_owned(), merged);
        }
        let times = snapshots.iter().map(|snapshot| snapshot.manifest.started).collect();
        Ok(Some(Self { times, now: manifest.started, tables: past, warnings }))
    }

    /// When the oldest snapshot of the past began.
    pub(super) fn since(&self) -> DateTime<Utc> {
        self.times.first().copied().unwrap_or(self.now)
    }

    /// For the analysis.
    pub(super) fn reference(&self) -> HistoryRef {
        HistoryRef { since: self.since(), snapshots: self.times.len() as u64 }
    }
}

async fn merge(
    store: &Store,
    table: &Loaded<'_>,
    (snapshots, hosts): (&[Snapshot<'_>], u32),
    warnings: &mut Vec<String>,
) -> PastTable {
    let mut merge = Merge::new(&table.lines, hosts);
    let slices = snapshots.iter().map(|snapshot| snapshot.slice(store, table.name()));
    let mut slices = stream::iter(slices)
        .buffered(at_once(snapshots, table.name()))
        .zip(stream::iter((0..).zip(snapshots)));
    while let Some((slice, (index, snapshot))) = slices.next().await {
        match slice {
            Ok(Some(slice)) => merge.add(index, &slice),
            Ok(None) => {}
            Err(error) => warnings.push(format!(
                "table `{}` of snapshot {} is left out of history: {error}",
                table.name(),
                snapshot.manifest.snapshot
            )),
        }
    }
    let answers = table.answers;
    let today = Slice::new(table.lines.lines.clone(), (&answers.heard, &answers.answered));
    let past = merge.finish(&today);
    let (loose, strict) = (&past.loose_usual, &past.strict_usual);
    tracing::info!(
        table = table.name(),
        snapshots = past.snapshots(),
        usual_share = loose.share,
        usual_new = loose.per_snapshot,
        usual_new_contents = strict.per_snapshot,
        "merged the past"
    );
    past
}

/// From how many snapshots the lines of a table are read at the same time: from many when they are few.
fn at_once(snapshots: &[Snapshot<'_>], table: &str) -> usize {
    let lines =
        |snapshot: &Snapshot<'_>| files_of(snapshot.manifest, table).map(|file| file.rows).sum::<u64>();
    let most = snapshots.iter().map(lines).max().unwrap_or_default().max(1);
    usize::try_from(LINES_AT_ONCE / most).unwrap_or(usize::MAX).clamp(1, CONCURRENT_SNAPSHOTS)
}

/// Numbers for host names: the ordinals of the analysed snapshot, then what else comes along.
pub(super) struct Numbers(HashMap<String, u32>);

impl Numbers {
    pub(super) fn new(hosts: &[String]) -> Self {
        Self(hosts.iter().cloned().zip(0..).collect())
    }

    pub(super) fn of(&mut self, host: &str) -> u32 {
        let next = self.0.len() as u32;
        *self.0.entry(host.to_owned()).or_insert(next)
    }
}

/// An earlier snapshot: who was in it, and what they answered.
struct Snapshot<'a> {
    manifest: &'a Manifest,
    /// Number of a host for the whole history, by its ordinal in this snapshot.
    numbers: Vec<u32>,
    /// Heard and answered, by table.
    answers: HashMap<String, (RoaringBitmap, RoaringBitmap)>,
}

/// An earlier snapshot as it was read, before its hosts have numbers: these depend on what came before.
struct Unnumbered<'a> {
    manifest: &'a Manifest,
    hosts: Vec<RecordBatch>,
    coverage: Vec<RecordBatch>,
}

impl<'a> Unnumbered<'a> {
    async fn read(store: &Store, manifest: &'a Manifest) -> (&'a Manifest, Result<Self>) {
        let coverage = ["host", "table_name", "status", "rows"];
        let both = futures::try_join!(
            read(store, manifest, FileKind::Hosts, &["ordinal", "host"]),
            read(store, manifest, FileKind::Coverage, &coverage),
        );
        (manifest, both.map(|(hosts, coverage)| Self { manifest, hosts, coverage }))
    }

    fn numbered(self, hosts: &mut Numbers) -> Result<Snapshot<'a>> {
        let mut snapshot = Snapshot { manifest: self.manifest, numbers: Vec::new(), answers: HashMap::new() };
        let mut names: Vec<(u32, String)> = Vec::new();
        for batch in &self.hosts {
            let ordinals = column(batch, "ordinal")?.as_primitive::<UInt32Type>();
            let host = column(batch, "host")?.as_string::<i32>();
            names.extend((0..batch.num_rows()).map(|row| (ordinals.value(row), host.value(row).to_owned())));
        }
        names.sort_unstable();
        if (0..).zip(&names).any(|(expected, (ordinal, _))| expected != *ordinal) {
            return Err(Error::data("its hosts table has gaps"));
        }
        snapshot.numbers = names.iter().map(|(_, name)| hosts.of(name)).collect();
        for batch in &self.coverage {
            snapshot.note_answers(batch, hosts)?;
        }
        Ok(snapshot)
    }
}

/// Columns of all files of a kind that are of no table.
async fn read(
    store: &Store,
    manifest: &Manifest,
    kind: FileKind,
    columns: &[&str],
) -> Result<Vec<RecordBatch>> {
    let is_wanted = |file: &&FileEntry| file.kind == kind && file.table.is_none();
    let mut batches = Vec::new();
    for file in manifest.files.iter().filter(is_wanted) {
        batches.extend(store.read_columns(file, columns).await?);
    }
    Ok(batches)
}

impl Snapshot<'_> {
    fn note_answers(&mut self, batch: &RecordBatch, hosts: &mut Numbers) -> Result<()> {
        let text = |name| column(batch, name).map(|array| array.as_string::<i32>().clone());
        let (names, tables, statuses) = (text("host")?, text("table_name")?, text("status")?);
        let rows = column(batch, "rows")?.as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let status: Status = statuses.value(row).parse()?;
            let host = hosts.of(names.value(row));
            if !self.answers.contains_key(tables.value(row)) {
                self.answers.insert(tables.value(row).to_owned(), Default::default());
            }
            let Some((heard, answered)) = self.answers.get_mut(tables.value(row)) else { continue };
            if status.answered() {
                answered.insert(host);
            }
            if status.answered() || rows.value(row) > 0 {
                heard.insert(host);
            }
        }
        Ok(())
    }

    /// What it has of a table; `None` when no host was heard for it.
    async fn slice(&self, store: &Store, table: &str) -> Result<Option<Slice>> {
        let Some((heard, answered)) = self.answers.get(table).filter(|(heard, _)| !heard.is_empty()) else {
            return Ok(None);
        };
        let mut lines = Vec::new();
        for file in files_of(self.manifest, table) {
            read_lines(&Source::File(store.column_file(file).await?), &mut lines)?;
        }
        for line in &mut lines {
            line.members = self.renumbered(&line.members)?;
        }
        Ok(Some(Slice::new(lines, (heard, answered))))
    }

    fn renumbered(&self, ordinals: &Members) -> Result<Members> {
        let number = |ordinal: u32| self.numbers.get(ordinal as usize).copied();
        let found: Option<Members> = match ordinals {
            Members::One(ordinal) => number(*ordinal).map(Members::One),
            Members::Some(ordinals) => ordinals.iter().map(number).collect(),
        };
        found.ok_or_else(|| Error::data("its prevalence names hosts that it does not have"))
    }
}

/// The prevalence of a table.
fn files_of<'a>(manifest: &'a Manifest, table: &str) -> impl Iterator<Item = &'a FileEntry> {
    let is_wanted =
        move |file: &&FileEntry| file.kind == FileKind::Prevalence && file.table.as_deref() == Some(table);
    manifest.files.iter().filter(is_wanted)
}

/// What a reader must know about the past before trusting what it says.
pub(super) fn warnings(history: Option<&History>, span: Span, state: &FleetState) -> Vec<String> {
    let Some(history) = history else {
        let none = format!(
            "no earlier snapshot within {span}: nothing tells an administrator's one-off from an intruder's"
        );
        return if span.is_none() { Vec::new() } else { vec![none] };
    };
    let known: RoaringBitmap =
        history.tables.values().fold(RoaringBitmap::new(), |all, past| all | &past.heard);
    let heard = state.heard();
    let without = (&heard - &known).len();
    let mut warnings: Vec<String> =
        history.warnings.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
    if without * 2 > heard.len() {
        warnings.push(format!(
            "{without} of {} hosts are in no earlier snapshot since {}: history says nothing of them",
            heard.len(),
            history.since().format("%Y-%m-%d")
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_keep_their_ordinals_and_others_follow() {
        let mut numbers = Numbers::new(&["b".to_owned(), "a".to_owned()]);
        assert_eq!(["a", "z", "b", "y", "z"].map(|host| numbers.of(host)), [1, 2, 0, 3, 2]);
    }

    #[test]
    fn members_of_an_earlier_snapshot_are_found_by_name() {
        let manifest: Manifest = serde_json::from_value(serde_json::json!({
            "format": 1, "snapshot": "01KBRZ8T600000000000000000", "fleet": "web", "started": "2026-01-01T00:00:00Z",
            "ended": "2026-01-01T00:00:00Z", "collected_by": "", "collector": "", "diffy_version": "",
            "identity_version": 1, "schemas_blake3": "", "queries": {}, "hosts_asked": 0, "hosts_answered": 0,
            "hosts_failed": 0, "rows": 0, "files": [],
        }))
        .unwrap();
        let snapshot = Snapshot { manifest: &manifest, numbers: vec![2, 0, 7], answers: HashMap::new() };
        let renumbered = snapshot.renumbered(&[0, 2].into_iter().collect()).unwrap();
        assert_eq!(renumbered.iter().collect::<Vec<_>>(), [2, 7]);
        assert!(snapshot.renumbered(&[3].into_iter().collect()).is_err(), "a broken snapshot is no panic");
    }
}
