//! What a store promises, whatever it stands on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use chrono::TimeDelta;
use datafusion::arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use diffy::model::{Fleet, SnapshotId, now};
use diffy::store::{
    Baseline, BaselineOrigin, FORMAT, FileEntry, FileKind, Manifest, PartWriter, Store, StoreConfig,
};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

use super::forgetful::Forgetful;
use super::weed::{config, place, weed};

/// Committers at once.
const COMMITTERS: usize = 24;

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let url = dir.path().to_str().unwrap().to_owned();
    let config = StoreConfig::default();
    let stores = opened(8, || Store::open_or_create(&url, &config)).await;
    check_store(&stores).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let stores = opened(8, || Store::over(Arc::clone(&memory), dir.path(), "memory")).await;
    check_store(&stores).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn seaweedfs_keeps_the_contract() {
    on_s3(&weed().url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moto_keeps_the_contract() {
    on_s3(&weed().moto).await;
}

async fn on_s3(server: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (config, url) = (config(server, dir.path()), place("contract"));
    let stores = opened(8, || Store::open_or_create(&url, &config)).await;
    check_store(&stores).await;
    let another = Store::open(&format!("{url}-no"), &config).await.unwrap_err().to_string();
    assert!(another.contains("there is no store"), "{another}");
    // A prefix with other files is no store.
    let root = Store::open_or_create(url.rsplit_once('/').unwrap().0, &config).await;
    assert!(root.unwrap_err().to_string().contains("is not a Diffy store"));
}

/// Opens a store that is not there yet so many times at once: all must get it.
async fn opened<F: Future<Output = diffy::error::Result<Store>>>(
    times: usize,
    open: impl Fn() -> F,
) -> Vec<Store> {
    let all = futures::future::join_all((0..times).map(|_| open())).await;
    all.into_iter().map(Result::unwrap).collect()
}

async fn check_store(stores: &[Store]) {
    let store = &stores[0];
    let fleet: Fleet = "a/b=c d".parse().unwrap();
    commits_are_create_only(stores, &fleet).await;
    damage_is_found(store, &fleet).await;
    large_files_are_whole(store, &fleet).await;
    baselines_have_one_maker(stores, &fleet).await;
    findings_go_with_their_snapshot(store, &fleet).await;
    leftovers_of_others_are_left_alone(store, &fleet).await;
}

fn rows(text: &str) -> RecordBatch {
    let column: ArrayRef = Arc::new(StringArray::from(vec![text]));
    RecordBatch::try_from_iter([("host", column)]).unwrap()
}

async fn written(mut part: PartWriter, batch: &RecordBatch) -> FileEntry {
    part.write(batch).await.unwrap();
    part.close().await.unwrap()
}

/// The hosts of a snapshot that began so long ago.
async fn part(store: &Store, fleet: &Fleet, age: TimeDelta) -> (SnapshotId, FileEntry) {
    let snapshot = SnapshotId::new(now() - age);
    let batch = rows("host-1");
    let part = store.meta_part(FileKind::Hosts, (fleet, snapshot), &batch.schema()).unwrap();
    (snapshot, written(part, &batch).await)
}

fn manifest(fleet: &Fleet, snapshot: SnapshotId, by: &str, files: Vec<FileEntry>) -> Manifest {
    Manifest {
        format: FORMAT,
        snapshot,
        fleet: fleet.clone(),
        incident: None,
        started: snapshot.time(),
        ended: snapshot.time(),
        collected_by: by.to_owned(),
        collector: "import".to_owned(),
        targets: Vec::new(),
        diffy_version: "0".to_owned(),
        identity_version: 1,
        schemas_blake3: String::new(),
        queries: BTreeMap::new(),
        hosts_asked: 1,
        hosts_answered: 1,
        hosts_failed: 0,
        answered: Default::default(),
        rows: 0,
        prevalence_without: BTreeMap::new(),
        warnings: Vec::new(),
        files,
    }
}

async fn committed(store: &Store, fleet: &Fleet) -> Manifest {
    let (snapshot, file) = part(store, fleet, TimeDelta::zero()).await;
    let manifest = manifest(fleet, snapshot, "test", vec![file]);
    store.commit(&manifest).await.unwrap();
    manifest
}

async fn commits_are_create_only(stores: &[Store], fleet: &Fleet) {
    let store = &stores[0];
    let (snapshot, file) = part(store, fleet, TimeDelta::zero()).await;
    assert!(store.snapshots(None).await.unwrap().manifests.is_empty());
    let manifests: Vec<Manifest> = (0..COMMITTERS)
        .map(|n| manifest(fleet, snapshot, &format!("committer {n}"), vec![file.clone()]))
        .collect();
    let commits = manifests.iter().enumerate().map(|(n, manifest)| stores[n % stores.len()].commit(manifest));
    let done = futures::future::join_all(commits).await;
    let won: Vec<usize> = (0..COMMITTERS).filter(|n| done[*n].is_ok()).collect();
    let [winner] = won[..] else { panic!("{} of {COMMITTERS} committed", won.len()) };
    let lost = done.into_iter().find_map(Result::err).unwrap().to_string();
    assert!(lost.contains("is committed already"), "{lost}");
    let listed = store.snapshots(Some(fleet)).await.unwrap();
    assert_eq!(listed.manifests, [manifests[winner].clone()]);
    assert!(listed.unreadable.is_empty() && store.is_committed(snapshot).await.unwrap());
    assert_eq!(store.snapshot(Some(snapshot), None).await.unwrap(), manifests[winner]);
    store.delete_snapshot(&manifests[winner]).await.unwrap();
    assert!(!store.is_committed(snapshot).await.unwrap());
    assert!(store.object_store().head(&Path::parse(&file.path).unwrap()).await.is_err(), "a file was left");
}

async fn damage_is_found(store: &Store, fleet: &Fleet) {
    let manifest = committed(store, fleet).await;
    let sound = store.verify(&manifest).await.unwrap();
    assert!(sound.iter().all(|file| file.problem.is_none()), "{sound:?}");
    assert_eq!(store.read_file(&manifest.files[0]).await.unwrap(), [rows("host-1")]);
    let path = Path::parse(&manifest.files[0].path).unwrap();
    let mut bytes = store.object_store().get(&path).await.unwrap().bytes().await.unwrap().to_vec();
    bytes[7] ^= 1;
    store.object_store().put(&path, PutPayload::from(bytes)).await.unwrap();
    let damaged = store.verify(&manifest).await.unwrap();
    assert!(damaged[0].problem.as_ref().unwrap().contains("BLAKE3"), "{damaged:?}");
    store.object_store().delete(&path).await.unwrap();
    assert!(store.verify(&manifest).await.unwrap()[0].problem.is_some());
    store.delete_snapshot(&manifest).await.unwrap();
}

/// More than one request takes.
async fn large_files_are_whole(store: &Store, fleet: &Fleet) {
    let mut generator = StdRng::seed_from_u64(1);
    let cells: Vec<Vec<u8>> = (0..20)
        .map(|_| {
            let mut cell = vec![0; 1 << 20];
            generator.fill_bytes(&mut cell);
            cell
        })
        .collect();
    let column: ArrayRef = Arc::new(BinaryArray::from_iter_values(&cells));
    let batch = RecordBatch::try_from_iter([("cell", column)]).unwrap();
    let snapshot = SnapshotId::new(now());
    let part = store.meta_part(FileKind::Coverage, (fleet, snapshot), &batch.schema()).unwrap();
    let manifest = manifest(fleet, snapshot, "test", vec![written(part, &batch).await]);
    assert!(manifest.files[0].bytes > 20 << 20);
    store.commit(&manifest).await.unwrap();
    let sound = store.verify(&manifest).await.unwrap();
    assert!(sound[0].problem.is_none(), "{sound:?}");
    store.delete_snapshot(&manifest).await.unwrap();
}

async fn baselines_have_one_maker(stores: &[Store], fleet: &Fleet) {
    let batch = rows("host-1");
    let make = |n: usize| {
        let (store, batch) = (stores[n].clone(), batch.clone());
        async move {
            let part = store.baseline_part(fleet, "gold", &batch.schema()).await?;
            let baseline = Baseline {
                format: FORMAT,
                name: "gold".to_owned(),
                fleet: fleet.clone(),
                created: now(),
                created_by: format!("maker {n}"),
                diffy_version: "0".to_owned(),
                identity_version: 1,
                origin: BaselineOrigin {
                    snapshot: SnapshotId::new(now()),
                    earlier: Vec::new(),
                    hosts: Vec::new(),
                    quorum: 1,
                },
                tables: BTreeMap::new(),
                file: written(part, &batch).await,
            };
            store.commit_baseline(&baseline).await
        }
    };
    let done = futures::future::join_all((0..stores.len()).map(make)).await;
    assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 1, "{done:?}");
    let kept = stores[0].baseline(fleet, "gold").await.unwrap();
    assert_eq!(stores[0].read_file(&kept.file).await.unwrap(), [batch]);
    stores[0].delete_baseline(&kept).await.unwrap();
    assert!(stores[0].baselines(None).await.unwrap().is_empty());
}

async fn findings_go_with_their_snapshot(store: &Store, fleet: &Fleet) {
    let manifest = committed(store, fleet).await;
    for finding in ["one", "two"] {
        store.keep_findings((fleet, manifest.snapshot), &rows(finding)).await.unwrap();
    }
    let (kept, unreadable) = store.kept_findings().await.unwrap();
    assert_eq!((kept.len(), unreadable.len()), (2, 0));
    store.delete_snapshot(&manifest).await.unwrap();
    assert!(store.kept_findings().await.unwrap().0.is_empty());
}

/// On a store that machines share, parts without a spool may be another's that is running.
async fn leftovers_of_others_are_left_alone(store: &Store, fleet: &Fleet) {
    let (young, _) = part(store, fleet, TimeDelta::minutes(1)).await;
    let (old, _) = part(store, fleet, TimeDelta::hours(25)).await;
    let orphans = store.orphans().await.unwrap();
    assert_eq!(orphans.iter().map(|orphan| orphan.snapshot).collect::<Vec<_>>(), [old, young]);
    let is_shared = !std::path::Path::new(store.name()).is_dir();
    assert_eq!(orphans.iter().map(|orphan| orphan.may_be_elsewhere).collect::<Vec<_>>(), [false, is_shared]);
    store.delete_orphan(&orphans[0]).await.unwrap();
    assert_eq!(store.delete_orphan(&orphans[1]).await.is_err(), is_shared);
    assert_eq!(store.orphans().await.unwrap().len(), usize::from(is_shared));
}

#[tokio::test]
async fn a_commit_whose_answer_got_lost_is_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let fleet: Fleet = "web".parse().unwrap();
    for drops in [false, true] {
        let memory = Arc::new(Forgetful::new(Arc::new(InMemory::new()), drops));
        let store = Store::over(Arc::clone(&memory) as _, dir.path(), "memory").await.unwrap();
        let (snapshot, file) = part(&store, &fleet, TimeDelta::zero()).await;
        let ours = manifest(&fleet, snapshot, "us", vec![file.clone()]);
        memory.loses.store(1, Ordering::SeqCst);
        store.commit(&ours).await.unwrap();
        assert_eq!(store.snapshot(Some(snapshot), None).await.unwrap(), ours);
        // Another's is not taken for ours, lost answer or not.
        memory.loses.store(usize::from(!drops), Ordering::SeqCst);
        let theirs = manifest(&fleet, snapshot, "them", vec![file]);
        assert!(store.commit(&theirs).await.is_err());
        // Parts are looked at in the same way.
        memory.loses.store(1, Ordering::SeqCst);
        let (_, file) = part(&store, &fleet, TimeDelta::hours(1)).await;
        assert!(store.read_file(&file).await.is_ok());
    }
}

#[tokio::test]
async fn a_write_that_never_happens_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Arc::new(Forgetful::new(Arc::new(InMemory::new()), true));
    memory.loses.store(usize::MAX, Ordering::SeqCst);
    let error = Store::over(memory, dir.path(), "memory").await.unwrap_err().to_string();
    assert!(error.contains("the answer got lost"), "{error}");
}
