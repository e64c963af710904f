//! Diffy: fleet triage for incident responders.

pub mod catalog;
pub mod collect;
pub mod decode;
pub mod error;
pub mod model;
pub mod simulate;
pub mod store;
