//! Stores on S3: one contract over a directory, memory, SeaweedFS and moto, and the program against SeaweedFS.

mod bad;
mod contract;
mod forgetful;
mod imports;
mod program;
pub(crate) mod weed;
