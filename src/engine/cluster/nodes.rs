//! The sides that work: a scheduler, which cuts plans into stages and hands them out, and executors, which run them.
//!
//! Executors ask the scheduler for work, so that it needs no way to them. Those that are lost are noticed by their
//! silence, and what they had made is made again.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ballista_core::ConfigProducer;
use ballista_core::config::TaskSchedulingPolicy;
use ballista_core::error::BallistaError;
use ballista_core::extension::SessionConfigExt;
use ballista_core::optimizer::ballista_default_optimizer_rules;
use ballista_core::registry::BallistaFunctionRegistry;
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::{create_scheduler, start_grpc_service_with_listener};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::prelude::SessionConfig;
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use tempfile::TempDir;

use super::super::functions;
use super::codec::Codec;
use super::sole::Sole;
use super::{ExecutorConfig, host_and_port};
use crate::error::{Error, Result};
use crate::store::Store;

/// Largest message, in bytes: plans name every file of a query.
pub(super) const MOST_MESSAGE: u32 = 256 << 20;
/// An executor that is silent for so many seconds is lost; one that is busy speaks every 5.
const SILENCE_SECONDS: u64 = 15;
/// How often it is looked for silent ones, in seconds.
const LOOK_SECONDS: u64 = 3;
/// How long results stay with executors, in seconds.
const KEPT_SECONDS: u64 = 300;
/// How often a task or a stage may fail; each executor that is lost is one.
const FAILURES: usize = 8;
/// How long an executor waits for its scheduler to be there, in seconds.
const WAIT_SECONDS: u16 = 60;

/// A scheduler that has its port.
pub struct Scheduler {
    listener: tokio::net::TcpListener,
    address: SocketAddr,
    config: SchedulerConfig,
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Scheduler {
    /// A scheduler of queries over `store`, at `bind`; port 0 takes a free one.
    ///
    /// # Errors
    /// The address is not this machine's, or taken.
    pub async fn bind(store: &Store, bind: SocketAddr) -> Result<Self> {
        let cannot = |source| Error::remote(format!("cannot listen on `{bind}`")).source(source);
        let listener = tokio::net::TcpListener::bind(bind).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let runtime = runtime(store, None)?;
        let config = SchedulerConfig {
            bind_host: in_address(address.ip()),
            bind_port: address.port(),
            external_host: in_address(address.ip()),
            scheduling_policy: TaskSchedulingPolicy::PullStaged,
            executor_timeout_seconds: SILENCE_SECONDS,
            expire_dead_executor_interval_seconds: LOOK_SECONDS,
            no_executors_grace_period_seconds: 4 * SILENCE_SECONDS,
            finished_job_data_clean_up_interval_seconds: KEPT_SECONDS,
            finished_job_state_clean_up_interval_seconds: KEPT_SECONDS,
            grpc_server_max_decoding_message_size: MOST_MESSAGE,
            grpc_server_max_encoding_message_size: MOST_MESSAGE,
            grpc_client_max_message_size: MOST_MESSAGE,
            task_max_failures: FAILURES,
            stage_max_failures: FAILURES,
            override_config_producer: Some(config_producer()),
            override_session_builder: Some(Arc::new(move |config| Ok(state(config, Arc::clone(&runtime))))),
            override_physical_codec: Some(Arc::new(Codec::default())),
            ..SchedulerConfig::default()
        };
        Ok(Self { listener, address, config })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Hands out work until it fails.
    ///
    /// # Errors
    /// It cannot be set up, or its port is gone.
    pub async fn run(self) -> Result<()> {
        let failed = |source: BallistaError| Error::remote("the scheduler ended").source(source);
        let cluster = BallistaCluster::new_from_config(&self.config).await.map_err(failed)?;
        let scheduler =
            create_scheduler::<LogicalPlanNode, PhysicalPlanNode>(cluster, Arc::new(self.config)).await;
        start_grpc_service_with_listener(self.listener, scheduler.map_err(failed)?).await.map_err(failed)
    }
}

/// Works for a scheduler until it is interrupted; says where it listens once it is about to.
///
/// # Errors
/// The scheduler is not there, or the address or the work directory cannot be had.
pub async fn run_executor(
    store: &Store,
    config: ExecutorConfig,
    started: impl FnOnce(SocketAddr),
) -> Result<()> {
    let (host, port) = host_and_port(&config.scheduler)?;
    let bind = free(config.bind)?;
    let room = Room::new(&config.work_dir)?;
    let runtime = runtime(store, Some(&room.spilled))?;
    let registry = BallistaFunctionRegistry::from(&state(SessionConfig::new(), Arc::clone(&runtime)));
    let process = ExecutorProcessConfig {
        bind_host: in_address(bind.ip()),
        external_host: external_host(bind, config.advertise),
        port: bind.port(),
        scheduler_host: host.to_owned(),
        scheduler_port: port,
        scheduler_connect_timeout_seconds: WAIT_SECONDS,
        vcores: config.threads.max(1),
        task_scheduling_policy: TaskSchedulingPolicy::PullStaged,
        work_dir: Some(room.made.clone()),
        job_data_ttl_seconds: 12 * KEPT_SECONDS,
        job_data_clean_up_interval_seconds: KEPT_SECONDS,
        grpc_max_decoding_message_size: MOST_MESSAGE,
        grpc_max_encoding_message_size: MOST_MESSAGE,
        memory_pool_size: Some(config.memory_limit_bytes as u64),
        override_function_registry: Some(Arc::new(registry)),
        override_runtime_producer: Some(Arc::new(move |_| Ok(Arc::clone(&runtime)))),
        override_config_producer: Some(config_producer()),
        override_physical_codec: Some(Arc::new(Codec::default())),
        ..ExecutorProcessConfig::default()
    };
    started(bind);
    let ended = start_executor_process(Arc::new(process)).await;
    ended.map_err(|source| {
        Error::remote("the executor ended").source(source).with("scheduler", config.scheduler)
    })
}

/// Where an executor keeps its files, gone when dropped.
///
/// Ballista takes every folder of its work directory for its own: it removes all of them when it stops, and before
/// that those that nobody wrote to for an hour. So it gets a new one, and what is not Ballista's lies beside it.
#[derive(Debug)]
struct Room {
    /// Ballista's work directory.
    made: String,
    /// Where sorts and groupings spill to.
    spilled: PathBuf,
    /// Holds both.
    _private: TempDir,
}

impl Room {
    fn new(work_dir: &Path) -> Result<Self> {
        let cannot = |source| {
            Error::usage(format!("cannot make a directory in `{}`", work_dir.display())).source(source)
        };
        std::fs::create_dir_all(work_dir).map_err(cannot)?;
        let private = TempDir::with_prefix_in("diffy-executor-", work_dir).map_err(cannot)?;
        let [made, spilled] = ["made", "spilled"].map(|name| private.path().join(name));
        std::fs::create_dir(&made).and_then(|()| std::fs::create_dir(&spilled)).map_err(cannot)?;
        let made = made.into_os_string().into_string();
        let made = made.map_err(|_| Error::usage("the work directory has a name that is no text"))?;
        Ok(Self { made, spilled, _private: private })
    }
}

/// An address as it stands before `:PORT`.
fn in_address(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// Where others reach an executor; `None` leaves it to the scheduler, which does not bracket what it sees.
fn external_host(bind: SocketAddr, advertise: Option<String>) -> Option<String> {
    match advertise {
        Some(host) => Some(host.parse().map(in_address).unwrap_or(host)),
        None => Some(bind.ip()).filter(|ip| ip.is_ipv6() && !ip.is_unspecified()).map(in_address),
    }
}

/// The address itself, or with a port that nobody listens on.
fn free(bind: SocketAddr) -> Result<SocketAddr> {
    let cannot = |source| Error::remote(format!("cannot listen on `{bind}`")).source(source);
    // Ballista binds it a moment later, and announces the port before.
    TcpListener::bind(bind).map_err(cannot)?.local_addr().map_err(cannot)
}

/// What all tasks share: the one store, and where to spill to.
fn runtime(store: &Store, spill_dir: Option<&Path>) -> Result<Arc<RuntimeEnv>> {
    let mut builder = RuntimeEnvBuilder::new().with_object_store_registry(Arc::new(Sole::new(store)?));
    if let Some(dir) = spill_dir {
        builder = builder.with_temp_file_path(dir);
    }
    builder.build_arc().map_err(|source| Error::config("cannot set up the node").source(source))
}

fn config_producer() -> ConfigProducer {
    Arc::new(|| {
        SessionConfig::new_with_ballista().with_ballista_grpc_client_max_message_size(MOST_MESSAGE as usize)
    })
}

/// A session with the functions that queries of ours may use.
fn state(config: SessionConfig, runtime: Arc<RuntimeEnv>) -> SessionState {
    let mut builder = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_optimizer_rules(ballista_default_optimizer_rules());
    let scalars = functions::scalars().into_iter().map(Arc::new);
    builder.scalar_functions().get_or_insert_default().extend(scalars);
    builder.aggregate_functions().get_or_insert_default().push(Arc::new(functions::bitmap_or()));
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn spills_outlive_what_ballista_removes() {
        let dir = tempfile::tempdir().unwrap();
        let url = dir.path().join("store").display().to_string();
        let store = Store::open_or_create(&url, &crate::store::StoreConfig::default()).await.unwrap();
        let room = Room::new(&dir.path().join("work")).unwrap();
        let runtime = runtime(&store, Some(&room.spilled)).unwrap();
        drop(runtime.disk_manager.create_tmp_file("the first").unwrap());
        for entry in std::fs::read_dir(&room.made).unwrap() {
            std::fs::remove_dir_all(entry.unwrap().path()).unwrap();
        }
        let file = runtime.disk_manager.create_tmp_file("after an hour").unwrap();
        assert!(file.path().is_some_and(|path| path.starts_with(&room.spilled)), "{:?}", file.path());
        assert!(!room.spilled.starts_with(&room.made));
    }

    #[test]
    fn a_room_is_a_new_folder_and_gone_with_the_executor() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("diffy-store")).unwrap();
        let room = Room::new(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(&room.made).unwrap().count(), 0);
        assert_ne!(Path::new(&room.made).parent(), Some(dir.path()));
        drop(room);
        let left: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|one| one.unwrap().file_name()).collect();
        assert_eq!(left, ["diffy-store"]);
    }

    #[test]
    fn an_address_of_ipv6_stands_in_brackets() {
        let parsed = |host: &str| -> SocketAddr {
            format!("{}:1", in_address(host.parse().unwrap())).parse().unwrap()
        };
        for host in ["127.0.0.1", "::1", "fd00::1"] {
            assert_eq!(parsed(host).ip().to_string(), host);
        }
        let host =
            |bind: &str, told: Option<&str>| external_host(bind.parse().unwrap(), told.map(str::to_owned));
        assert_eq!(host("127.0.0.1:1", None), None);
        assert_eq!(host("[::]:1", None), None);
        assert_eq!(host("[::1]:1", None).as_deref(), Some("[::1]"));
        assert_eq!(host("[::]:1", Some("fd00::1")).as_deref(), Some("[fd00::1]"));
        assert_eq!(host("[::]:1", Some("[fd00::1]")).as_deref(), Some("[fd00::1]"));
        assert_eq!(host("[::]:1", Some("worker1")).as_deref(), Some("worker1"));
    }
}
