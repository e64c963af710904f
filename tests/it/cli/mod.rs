//! What users see, through the built program: one file per command, and one for bad input.

mod analyze;
mod bad_input;
mod baseline;
mod collect;
mod config;
mod demo;
mod ends;
mod formats;
mod full;
mod help;
mod history;
mod hostile;
mod hunts;
mod import;
mod import_once;
mod import_peers;
mod plugins;
mod prompt;
mod query;
mod snapshot;
mod suppress;
mod tables;
