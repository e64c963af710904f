//! Diffy: fleet triage for incident responders.

pub mod catalog;
pub mod collect;
pub mod decode;
pub mod engine;
pub mod error;
pub mod model;
pub mod store;
