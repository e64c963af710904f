//! Diffy: fleet triage for incident responders.

pub mod catalog;
pub mod cli;
pub mod collect;
pub mod decode;
pub mod engine;
pub mod error;
pub mod identity;
pub mod model;
pub mod report;
pub mod store;
