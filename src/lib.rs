//! Diffy: fleet triage for incident responders.
//!
//! Given osquery tables of many hosts that should be alike, Diffy says which few of them need a look, and because of
//! which rows. `docs/architecture.md` says why things are as they are; this is the map.
//!
//! # Rooms
//!
//! Each module is a room and uses only rooms that stand above it in this list; `tests/it/tidy.rs` is to keep it so.
//!
//! | Room | What is in it | Uses |
//! | --- | --- | --- |
//! | [`error`] | the one error type | |
//! | [`model`] | fleets, hosts, snapshots, coverage, findings; the clock | error |
//! | [`catalog`] | what is declared in files: table schemas, saved queries | error, model |
//! | [`config`] | settings; the only reader of the environment | error |
//! | [`aws`] | credentials, regions, and what refusals of Amazon's services mean | error, model |
//! | [`report`] | results to bytes: tables, JSON, CSV, Parquet, SARIF, OCSF | error, model |
//! | [`identity`] | what makes rows of two hosts the same thing: ids | catalog |
//! | [`decode`] | bytes of hosts to record batches; all input is hostile | catalog, model |
//! | [`store`] | snapshots, baselines and spools, on disk or on S3 | model, aws |
//! | [`target`] | whom to ask: Auto Scaling Groups, tags, files | error, model, aws |
//! | [`engine`] | DataFusion over committed snapshots; sorting with spilling | catalog, model, store |
//! | [`collect`] | asks one host: `osquery`, `native`, `ssm`, `ssh` | catalog, model, aws |
//! | [`ingest`] | from what hosts said to a committed snapshot | all above but config and report |
//! | [`analyze`] | from a snapshot to ranked hosts and findings | catalog, model, identity, store, engine |
//! | [`simulate`] | invented hosts as one more collector | catalog, model, collect |
//! | [`cli`] | one file for each command | all |
//!
//! # Data flow
//!
//! ```text
//! collect::Collector, decode::import
//!   │  answers: JSON as it came
//!   ▼
//! ingest::Receiver ──► spool (store)            appended while hosts answer; survives a kill
//!                        │
//! ingest::finish  ◄──────┘
//!   decode ► identity ► sort ► rows and prevalence ► coverage, hosts ► manifest (the commit)
//!                                │
//! engine  ◄──────────────────────┘              reads what manifests name
//!   ├──► cli query
//!   └──► analyze: prevalence ► candidates ► scores ► causes ► rank ► raw rows of what is shown
//!                                                                  │
//!                                                        report ◄──┘
//! ```
//!
//! # Example
//!
//! ```
//! let fleet: diffy::model::Fleet = "web".parse()?;
//! assert_eq!(fleet.as_str(), "web");
//! # Ok::<(), diffy::error::Error>(())
//! ```

pub mod error;
pub mod model;

pub mod aws;
pub mod catalog;
pub mod config;
pub mod report;

pub mod decode;
pub mod identity;
pub mod store;
pub mod target;

pub mod collect;
pub mod engine;
pub mod ingest;

pub mod analyze;
pub mod simulate;

pub mod cli;
