//! The command line.

pub mod progress;
pub mod prompt;
mod sql;
