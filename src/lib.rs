//! Diffy: fleet triage for incident responders.

pub mod analyze;
pub mod catalog;
pub mod cli;
pub mod collect;
pub mod config;
pub mod decode;
pub mod engine;
pub mod error;
pub mod identity;
pub mod ingest;
pub mod model;
pub mod report;
pub mod simulate;
pub mod store;
