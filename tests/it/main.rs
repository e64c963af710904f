//! The one integration binary: what Diffy promises, through the built program and over the source tree.
//!
//! A test goes where it can be said shortest: on the command line (`cli/`), about the source tree (`tidy.rs`), else as
//! a unit test beside the code. Everything here runs without a terminal, in any order, as root or not; what needs
//! Python asks [`env::python`], which fails loudly when it cannot have it.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod aws;
mod cli;
#[cfg(feature = "ballista")]
mod cluster;
mod ddl;
mod detection;
mod docs;
mod duckdb;
mod env;
mod finds;
mod hand;
mod kill;
mod many;
mod report;
mod s3;
mod ssh;
mod store;
mod tidy;
