//! From what hosts said to a committed snapshot: spool, decode, identity, sort, parts, prevalence, manifest.
//!
//! [`receive`] appends answers to the spool while hosts answer; [`finish`] makes the snapshot of a spool. A collection
//! that was killed is finished later from the same spool by the same function.

mod batches;
mod coverage;
mod finish;
mod hosts;
mod prevalence;
mod receive;
mod table;

pub use self::finish::{Finished, IngestConfig, Watch, finish};
pub use self::receive::Receiver;
