//! The store: immutable snapshots as Hive-partitioned Parquet over an object store. The only room that spells a path
//! or a Parquet option.

mod manifest;

pub use self::manifest::{FileEntry, FileKind, Manifest};
