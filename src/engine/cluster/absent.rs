//! What stands in for clusters where the feature `ballista` is off: it says so.

use std::convert::Infallible;
use std::net::SocketAddr;

use datafusion::error::Result as DataFusionResult;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::{DataFrame, SessionContext};

use super::{ExecutorConfig, Place, not_built};
use crate::error::{Error, Result};
use crate::store::Store;

/// There is none.
#[derive(Debug)]
pub(in crate::engine) struct Cluster(Infallible);

impl Cluster {
    /// None for queries that run here.
    ///
    /// # Errors
    /// A cluster is asked for.
    pub(in crate::engine) fn at(place: &Place, _: &Store, _: &SessionContext) -> Result<Option<Self>> {
        match place {
            Place::Local => Ok(None),
            Place::Cluster { .. } => Err(not_built()),
        }
    }

    /// Cannot be called.
    pub(in crate::engine) async fn stream(
        &self,
        _: DataFrame,
    ) -> DataFusionResult<SendableRecordBatchStream> {
        match self.0 {}
    }
}

/// There is none.
#[derive(Debug)]
pub struct Scheduler(Infallible);

impl Scheduler {
    /// Says that there is none.
    ///
    /// # Errors
    /// Always.
    pub async fn bind(_: &Store, _: SocketAddr) -> Result<Self> {
        Err(not_built())
    }

    /// Cannot be called.
    pub fn address(&self) -> SocketAddr {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub async fn run(self) -> Result<()> {
        match self.0 {}
    }
}

/// Says that there are none.
///
/// # Errors
/// Always.
pub async fn run_executor(_: &Store, _: ExecutorConfig, _: impl FnOnce(SocketAddr)) -> Result<(), Error> {
    Err(not_built())
}
