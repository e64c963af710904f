//! The sides that work: a scheduler, which cuts plans into stages and hands them out, and executors, which run them.
//!
//! Executors ask the scheduler for work, so that it needs no way to them. Those that are lost are noticed by their
//! silence, and what they had made is made again.

use std::net::{SocketAddr, TcpListener};
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
            bind_host: address.ip().to_string(),
            bind_port: address.port(),
            external_host: address.ip().to_string(),
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
    let work_dir = config.work_dir.to_str().map(str::to_owned);
    let work_dir = work_dir.ok_or_else(|| Error::usage("the work directory has a name that is no text"))?;
    let runtime = runtime(store, Some(&work_dir))?;
    let registry = BallistaFunctionRegistry::from(&state(SessionConfig::new(), Arc::clone(&runtime)));
    let process = ExecutorProcessConfig {
        bind_host: bind.ip().to_string(),
        external_host: config.advertise,
        port: bind.port(),
        scheduler_host: host.to_owned(),
        scheduler_port: port,
        scheduler_connect_timeout_seconds: WAIT_SECONDS,
        vcores: config.threads.max(1),
        task_scheduling_policy: TaskSchedulingPolicy::PullStaged,
        work_dir: Some(work_dir),
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

/// The address itself, or with a port that nobody listens on.
fn free(bind: SocketAddr) -> Result<SocketAddr> {
    let cannot = |source| Error::remote(format!("cannot listen on `{bind}`")).source(source);
    // Ballista binds it a moment later, and announces the port before.
    TcpListener::bind(bind).map_err(cannot)?.local_addr().map_err(cannot)
}

/// What all tasks share: the one store, and where to spill to.
fn runtime(store: &Store, spill_dir: Option<&str>) -> Result<Arc<RuntimeEnv>> {
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
