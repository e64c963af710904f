//! From what hosts said to a committed snapshot: spool, decode, identity, sort, parts, prevalence, manifest.
//!
//! [`ask_hosts`] and [`Receiver`] append answers to the spool while hosts answer; [`finish`] makes the snapshot of a spool. A collection
//! that was killed is finished later from the same spool by the same function.

mod ask;
mod batches;
mod coverage;
mod finish;
mod hosts;
mod prevalence;
mod reading;
mod receive;
mod sorted;
mod table;
#[cfg(test)]
mod testing;

pub use self::ask::{Asked, ask_hosts};
pub use self::finish::{Finished, IngestConfig, Watch, finish};
pub use self::receive::{Prepared, Receiver, prepare};
