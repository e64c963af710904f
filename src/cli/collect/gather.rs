//! One collection: ask the hosts, receive into the spool, make the snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::App;
use super::super::progress::Progress;
use super::interrupt::interrupted;
use crate::catalog::TableSpec;
use crate::collect::Collector;
use crate::collect::native::{NativeCollector, NativeConfig};
use crate::decode::Limits;
use crate::error::{Error, ErrorKind, Result};
use crate::ingest::{Asked, Finished, IngestConfig, Receiver, ask_hosts, finish};
use crate::model::{Fleet, SnapshotId, now, rfc3339};
use crate::store::{SpoolBegin, SpoolReader, SpoolWriter, Store};
use crate::target::TargetHost;

/// How long hosts are told that nobody waits for them any more.
const STOPPING: Duration = Duration::from_secs(15);
/// How long answers are still taken after that.
const DRAINING: Duration = Duration::from_secs(1);

/// One collection.
pub(in super::super) struct Collection {
    pub(in super::super) fleet: Fleet,
    pub(in super::super) incident: Option<String>,
    pub(in super::super) snapshot: SnapshotId,
    pub(in super::super) collector: Arc<dyn Collector>,
    pub(in super::super) hosts: Vec<TargetHost>,
    /// Whom the user named.
    pub(in super::super) targets: Vec<String>,
    pub(in super::super) tables: Vec<TableSpec>,
    pub(in super::super) concurrency: Option<usize>,
    /// What is known before anybody is asked and belongs into the snapshot.
    pub(in super::super) warnings: Vec<String>,
    /// User and machine, for the manifest.
    pub(in super::super) collected_by: String,
    /// Whether the store goes away when the collection is interrupted.
    pub(in super::super) is_temporary: bool,
    /// Asked for sentences about what changed while hosts were asked.
    pub(in super::super) epilogue: Option<Epilogue>,
}

/// Says, after the last answer, what changed meanwhile.
pub(in super::super) type Epilogue = futures::future::BoxFuture<'static, Vec<String>>;

/// Collects into a spool and makes the snapshot.
pub(in super::super) async fn collect(app: &App, store: &Store, collection: Collection) -> Result<Finished> {
    warn_of_future(app, store, &collection.fleet).await?;
    let begin = SpoolBegin {
        snapshot: collection.snapshot,
        fleet: collection.fleet.clone(),
        incident: collection.incident.clone(),
        started: collection.snapshot.time(),
        collected_by: collection.collected_by.clone(),
        collector: collection.collector.name().to_owned(),
        targets: collection.targets.clone(),
        queries: queries(&collection.tables),
    };
    let is_temporary = collection.is_temporary;
    let collector = Arc::clone(&collection.collector);
    let spool = SpoolWriter::create(store.spool_path(begin.snapshot), &begin)?;
    let mut receiver = Receiver::new(&app.catalog, spool);
    let was_interrupted = receive_until_interrupted(app, &mut receiver, (collector, collection)).await?;
    if !was_interrupted {
        let reader = receiver.into_reader()?;
        tokio::select! {
            biased;
            () = interrupted() => {}
            finished = make_snapshot(app, store, reader) => return finished,
        }
    }
    Err(if is_temporary { ended_in_temporary() } else { ended(store, begin.snapshot) })
}

/// Receives all answers, or those that came until somebody wanted it to end, and whatever comes while hosts are told.
async fn receive_until_interrupted(
    app: &App,
    receiver: &mut Receiver<'_>,
    (collector, collection): (Arc<dyn Collector>, Collection),
) -> Result<bool> {
    let receiving = receive(app, receiver, collection);
    tokio::pin!(receiving);
    tokio::select! {
        // The signal first: from the first answer on it must not kill.
        biased;
        () = interrupted() => {}
        received = &mut receiving => return received.map(|()| false),
    }
    let winding_down = async {
        let stopping = tokio::time::timeout(STOPPING, collector.stop());
        tokio::pin!(stopping);
        let mut is_over = false;
        let told = loop {
            tokio::select! {
                told = &mut stopping => break told.is_ok(),
                _ = &mut receiving, if !is_over => is_over = true,
            }
        };
        if !is_over {
            // What was on its way; whoever is not told by now is not waited for.
            let _ = tokio::time::timeout(DRAINING, &mut receiving).await;
        }
        told
    };
    let told = tokio::select! {
        biased;
        // Once more: at once.
        () = interrupted() => false,
        told = winding_down => told,
    };
    if !told {
        app.output.warn("not all hosts could be told to stop; what runs there ends by its own time limit");
    }
    Ok(true)
}

fn ended(store: &Store, snapshot: SnapshotId) -> Error {
    let place = shell_words::quote(store.name());
    Error::new(ErrorKind::Interrupted, "interrupted; what was received is kept")
        .hint(format!("`diffy snapshot recover --store {place} {snapshot}` makes a snapshot of it"))
}

fn ended_in_temporary() -> Error {
    Error::new(ErrorKind::Interrupted, "interrupted; the store was temporary, nothing is kept")
        .hint("`--store` names one that stays")
}

/// A wrong clock would make an old snapshot the newest for ever.
pub(in super::super) async fn warn_of_future(app: &App, store: &Store, fleet: &Fleet) -> Result<()> {
    let found = store.commits(Some(fleet)).await?;
    for commit in found.commits.iter().filter(|commit| commit.snapshot.time() > now()) {
        app.output.warn(&format!(
            "snapshot {} of this fleet is from the future ({}): a clock is wrong, and it will count as the newest",
            commit.snapshot,
            rfc3339(commit.snapshot.time()),
        ));
    }
    Ok(())
}

fn queries(tables: &[TableSpec]) -> BTreeMap<String, String> {
    tables.iter().map(|table| (table.name.clone(), table.query.clone())).collect()
}

async fn receive(app: &App, receiver: &mut Receiver<'_>, collection: Collection) -> Result<()> {
    let collector = Arc::clone(&collection.collector);
    let epilogue = collection.epilogue;
    for warning in collection.warnings {
        receiver.warning(warning)?;
    }
    let mut reachable = Vec::new();
    for host in collection.hosts {
        let name = host.known.name.clone();
        receiver.known_host(host.known)?;
        match host.unreachable {
            Some((status, why)) => receiver.unreachable(&name, &collection.tables, (status, &why))?,
            None => reachable.push(name),
        }
    }
    let concurrency = collection.concurrency.unwrap_or_else(|| collector.concurrency());
    let (label, total) = match reachable.len() {
        1 => ("collecting tables", collection.tables.len()),
        hosts => ("collecting hosts", hosts),
    };
    let by_host = reachable.len() > 1;
    let progress = Progress::new(app.progress, label, Some(total as u64));
    let catalog = Arc::new(app.catalog.clone());
    let asking = (catalog, Limits::default(), concurrency);
    let mut answers = ask_hosts(Arc::clone(&collector), reachable, collection.tables, asking);
    while let Some(asked) = answers.recv().await {
        match asked {
            Asked::Answer(prepared) => {
                receiver.answer(&prepared)?;
                progress.inc(u64::from(!by_host));
            }
            Asked::HostDone => progress.inc(u64::from(by_host)),
            Asked::Failed(error) => return Err(error),
        }
    }
    let mut remarks = collector.remarks().await;
    if let Some(epilogue) = epilogue {
        remarks.extend(epilogue.await);
    }
    remarks.into_iter().try_for_each(|remark| receiver.warning(remark))
}

/// Makes the snapshot of a spool, with progress.
pub(in super::super) async fn make_snapshot(
    app: &App,
    store: &Store,
    spool: SpoolReader,
) -> Result<Finished> {
    let progress = Progress::new(app.progress, "writing the snapshot", Some(1));
    let config = IngestConfig {
        limits: Limits::default(),
        threads: app.threads,
        memory_limit_bytes: app.memory_limit_bytes,
    };
    let watch = |done: u64, total: u64| {
        progress.set_total(total);
        progress.inc(done.saturating_sub(progress.done()));
    };
    finish(store, spool, &app.catalog, (&config, &watch)).await
}

/// This machine's rows, as text, from the native collector; tables that it cannot answer are not there.
pub(in super::super) async fn local_rows(
    tables: Vec<TableSpec>,
) -> BTreeMap<String, Vec<BTreeMap<String, String>>> {
    let collector = NativeCollector::new(NativeConfig::default());
    let (send, mut answers) = tokio::sync::mpsc::channel(4);
    let mut found = BTreeMap::new();
    let collecting = collector.collect("localhost", &tables, send);
    let noting = async {
        while let Some(answer) = answers.recv().await {
            let rows = crate::decode::text_rows(&answer.json);
            if !rows.is_empty() {
                found.insert(answer.table, rows);
            }
        }
    };
    tokio::join!(collecting, noting);
    found
}
