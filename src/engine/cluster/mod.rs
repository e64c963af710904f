//! Queries on more than one machine: Apache DataFusion Ballista, behind the cargo feature `ballista`.
//!
//! The plan is made here, as for a query of one machine: manifests are read, snapshots pruned, files named. What is
//! shipped is the physical plan. Scheduler and executors read no manifest, and of the store only files that plans name.
//! Both are this program, for they need its SQL functions: `client` ships plans, `nodes` runs them, `codec` spells
//! what Ballista cannot, and `sole` holds the one store that a node reads.

#[cfg(not(feature = "ballista"))]
mod absent;
#[cfg(feature = "ballista")]
mod client;
#[cfg(feature = "ballista")]
mod codec;
#[cfg(feature = "ballista")]
mod nodes;
#[cfg(feature = "ballista")]
mod sole;

use std::path::PathBuf;
use std::str::FromStr;

#[cfg(not(feature = "ballista"))]
pub(super) use self::absent::Cluster;
#[cfg(not(feature = "ballista"))]
pub use self::absent::{Scheduler, run_executor};
#[cfg(feature = "ballista")]
pub(super) use self::client::Cluster;
#[cfg(feature = "ballista")]
pub use self::nodes::{Scheduler, run_executor};
use crate::error::{Error, Result};

/// Partitions that a query on a cluster is cut into where nobody says otherwise.
const PARTITIONS: usize = 16;
/// Most partitions that can be asked for.
const MOST_PARTITIONS: usize = 4096;

/// Where queries run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Place {
    /// In this process.
    #[default]
    Local,
    /// On the executors of a scheduler.
    Cluster {
        /// The scheduler, as `HOST:PORT`.
        scheduler: String,
        /// Into how many partitions a query is cut: as many as the executors have cores, or a few times more.
        partitions: usize,
    },
}

impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "local" {
            return Ok(Self::Local);
        }
        let Some(rest) = text.strip_prefix("ballista://") else {
            return Err(Error::usage("expected `local` or `ballista://HOST:PORT`"));
        };
        if cfg!(not(feature = "ballista")) {
            return Err(not_built());
        }
        let (address, partitions) = match rest.split_once("?partitions=") {
            Some((address, partitions)) => (address, partitions.parse().ok()),
            None => (rest, Some(PARTITIONS)),
        };
        let (host, port) = host_and_port(address.trim_end_matches('/'))?;
        match partitions.filter(|partitions| (1..=MOST_PARTITIONS).contains(partitions)) {
            Some(partitions) => Ok(Self::Cluster { scheduler: format!("{host}:{port}"), partitions }),
            None => Err(Error::usage(format!("`?partitions=` takes 1 to {MOST_PARTITIONS}"))),
        }
    }
}

/// `HOST` and `PORT`; an IPv6 address stands in brackets.
fn host_and_port(address: &str) -> Result<(&str, u16)> {
    let wrong = || Error::usage(format!("`{}` is not HOST:PORT", address.escape_debug()));
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let is_name = !host.is_empty() && host.chars().all(plain);
    if !is_name && (bare == host || bare.parse::<std::net::Ipv6Addr>().is_err()) {
        return Err(wrong());
    }
    Ok((host, port.parse().map_err(|_| wrong())?))
}

/// This program cannot do it.
fn not_built() -> Error {
    Error::usage(
        "this diffy is built without clusters; `cargo build --release --features ballista` builds one with",
    )
}

/// What an executor is told.
#[derive(Debug, Clone)]
pub struct ExecutorConfig {
    /// The scheduler, as `HOST:PORT`.
    pub scheduler: String,
    /// Where it gives what it made to other executors and to clients; port 0 takes a free one.
    pub bind: std::net::SocketAddr,
    /// The name or address that others reach it by; `None`: where the scheduler sees it come from.
    pub advertise: Option<String>,
    /// A directory, made where it is not there. What the executor made lies in a new folder of it until it was
    /// fetched; nothing else of it is touched.
    pub work_dir: PathBuf,
    /// Memory of all of its tasks together, in bytes.
    pub memory_limit_bytes: usize,
    /// Partitions that it works on at once; at least 1.
    pub threads: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(text: &str) -> Result<(String, usize)> {
        match text.parse()? {
            Place::Cluster { scheduler, partitions } => Ok((scheduler, partitions)),
            Place::Local => panic!("{text}"),
        }
    }

    #[test]
    fn local_is_the_default_and_others_are_refused() {
        assert_eq!("local".parse::<Place>().unwrap(), Place::default());
        for text in ["", "spark://a:1", "ballista", "http://a:1"] {
            let error = text.parse::<Place>().unwrap_err().to_string();
            assert!(error.contains("ballista://HOST:PORT"), "{error}");
        }
    }

    #[cfg(not(feature = "ballista"))]
    #[test]
    fn without_the_feature_the_way_to_build_it_is_said() {
        let error = cluster("ballista://10.0.0.1:50050").unwrap_err();
        assert!(error.to_string().contains("--features ballista"), "{error}");
    }

    #[cfg(feature = "ballista")]
    #[test]
    fn a_scheduler_is_a_host_a_port_and_perhaps_partitions() {
        let whole = |address: &str, partitions| (address.to_owned(), partitions);
        assert_eq!(cluster("ballista://10.0.0.1:50050").unwrap(), whole("10.0.0.1:50050", 16));
        assert_eq!(cluster("ballista://head.local:1/").unwrap(), whole("head.local:1", 16));
        assert_eq!(cluster("ballista://[::1]:50050?partitions=64").unwrap(), whole("[::1]:50050", 64));
        for text in
            ["", "host", ":1", "a:b", "a:70000", "a/b:1", "u@h:1", "::1:2", "[x]:1", "a:1?partitions=0"]
        {
            assert!(cluster(&format!("ballista://{text}")).is_err(), "{text}");
        }
    }
}
