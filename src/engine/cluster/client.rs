//! The side that asks: plans a query here, ships the plan to a scheduler, and fetches what executors made of it.

use std::collections::VecDeque;
use std::sync::Arc;

use ballista_core::execution_plans::execute_physical_plan;
use ballista_core::extension::{SessionConfigExt, SessionConfigHelperExt};
use ballista_core::optimizer::with_ballista_optimizer_rules;
use datafusion::arrow::array::RecordBatch;
use datafusion::common::not_impl_err;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::{SendableRecordBatchStream, SessionState};
use datafusion::physical_plan::analyze::AnalyzeExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use datafusion_proto::protobuf::PhysicalPlanNode;
use futures::{StreamExt, stream};

use super::codec::Codec;
use super::nodes::MOST_MESSAGE;
use super::{Place, sole};
use crate::error::{self, Error};
use crate::store::Store;

/// Results of up to so many bytes are held back until all of them are here: an executor that dies before can be made
/// good for by asking again.
const HELD_BACK: usize = 64 << 20;
/// Characters of somebody else's error that are told.
const MOST_TOLD: usize = 400;
/// How often a query is asked, all in all.
const ATTEMPTS: usize = 3;

/// A cluster that queries over one store are sent to.
#[derive(Debug, Clone)]
pub(in crate::engine) struct Cluster {
    /// `HOST:PORT`.
    scheduler: String,
    /// What stands for the store in plans.
    store: ObjectStoreUrl,
}

impl Cluster {
    /// The cluster at `place`, with `context` set up so that its plans can be shipped; none for queries that run here.
    ///
    /// # Errors
    /// The store has no address.
    pub(in crate::engine) fn at(
        place: &Place,
        store: &Store,
        context: &SessionContext,
    ) -> error::Result<Option<Self>> {
        let Place::Cluster { scheduler, partitions } = place else { return Ok(None) };
        let state = context.state_ref();
        let mut state = state.write();
        let config = state.config().clone().with_target_partitions(*partitions);
        *state.config_mut() = restricted(config);
        let rules = with_ballista_optimizer_rules(state.optimizers());
        *state = datafusion::execution::SessionStateBuilder::new_from_existing(state.clone())
            .with_optimizer_rules(rules)
            .build();
        Ok(Some(Self { scheduler: scheduler.clone(), store: sole::address_of(store)? }))
    }

    /// Runs a query on the cluster; what reads no stored file (`EXPLAIN`, `SHOW TABLES`, …) runs here.
    pub(in crate::engine) async fn stream(&self, frame: DataFrame) -> Result<SendableRecordBatchStream> {
        let (state, plan) = frame.into_parts();
        let plan = state.create_physical_plan(&plan).await?;
        if plan.downcast_ref::<AnalyzeExec>().is_some() {
            return not_impl_err!(
                "EXPLAIN ANALYZE measures queries that run here; ask without a cluster, or for EXPLAIN alone"
            );
        }
        let shipped = self.addressed(Arc::clone(&plan))?;
        if Arc::ptr_eq(&shipped, &plan) {
            return execute_stream(plan, state.task_ctx());
        }
        self.answers(shipped, &state).await
    }

    /// The plan with the store's own address; the same plan where it reads no file of the store.
    fn addressed(&self, plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        let addressed = |node: Arc<dyn ExecutionPlan>| {
            let scan = node.downcast_ref::<DataSourceExec>();
            let Some(files) = scan.and_then(|scan| scan.data_source().downcast_ref::<FileScanConfig>())
            else {
                return Ok(Transformed::no(node));
            };
            let mut files = files.clone();
            files.object_store_url = self.store.clone();
            let node: Arc<dyn ExecutionPlan> = DataSourceExec::from_data_source(files);
            Ok(Transformed::new(node, true, TreeNodeRecursion::Jump))
        };
        Ok(plan.transform_down(addressed)?.data)
    }

    /// Asks until an answer begins.
    async fn answers(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        state: &SessionState,
    ) -> Result<SendableRecordBatchStream> {
        let mut attempt = 1;
        loop {
            match self.ask(Arc::clone(&plan), state).await {
                Ok(rows) => return Ok(rows),
                Err(error) if attempt == ATTEMPTS || !was_lost(&error) => return Err(self.told(&error)),
                Err(error) => tracing::warn!("asking the cluster again: {}", plain(&error)),
            }
            attempt += 1;
        }
    }

    /// The rows, once all of them are here or there are many.
    async fn ask(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        state: &SessionState,
    ) -> Result<SendableRecordBatchStream> {
        let schema = plan.schema();
        let config = state.config().clone();
        let mut rows = execute_physical_plan::<PhysicalPlanNode>(
            format!("http://{}", self.scheduler),
            &config.ballista_config(),
            plan,
            &Codec::default(),
            state.session_id().to_owned(),
            config,
        )
        .await?;
        let mut held: VecDeque<RecordBatch> = VecDeque::new();
        let mut bytes = 0;
        while bytes < HELD_BACK
            && let Some(batch) = rows.next().await
        {
            let batch = batch?;
            bytes += batch.get_array_memory_size();
            held.push_back(batch);
        }
        let cluster = self.clone();
        let rest = rows.map(move |batch| batch.map_err(|error| cluster.told(&error)));
        let all = stream::iter(held.into_iter().map(Ok)).chain(rest);
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, all)))
    }

    /// What went wrong, in our words; what is wrong with the question itself is told as it is told here.
    fn told(&self, error: &DataFusionError) -> DataFusionError {
        let text = error.to_string();
        if let Some((_, said)) = text.rsplit_once("Execution(\"") {
            return DataFusionError::Execution(said.split("\")").next().unwrap_or_default().to_owned());
        }
        let told = Error::remote(format!("the cluster at `{}`: {}", self.scheduler, plain(error)))
            .hint("`--engine local` asks on this machine; docs/cluster.md says what a cluster needs");
        DataFusionError::External(Box::new(told))
    }
}

/// Settings with which plans can be cut into stages and shipped.
fn restricted(config: SessionConfig) -> SessionConfig {
    config
        .with_ballista_grpc_client_max_message_size(MOST_MESSAGE as usize)
        .ballista_restricted_configuration()
}

/// Whether asking again may help: an executor went away with what it had made.
fn was_lost(error: &DataFusionError) -> bool {
    let text = error.to_string();
    [
        "FetchFailed",
        "ExecutorLost",
        "transport error",
        "Connection refused",
        "connection closed",
        "GrpcConnectionError",
    ]
    .iter()
    .any(|sign| text.contains(sign))
}

/// The part of an error that a person can read: Ballista's carry headers, names of its types, and whole plans.
fn plain(error: &DataFusionError) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    let line = line.split_once("message: \"").map_or(line, |(_, message)| message);
    let line = line.split("\", metadata: ").next().unwrap_or_default();
    let last = line.rsplit("Execution error: ").next().unwrap_or_default();
    last.chars().take(MOST_TOLD).collect()
}
