//! The script that asks osquery on a host that is reached over SSM or SSH, and the reading of what it prints.
//!
//! The same body runs as a plain script and as the SSM document `Diffy-Collect`. It answers with a *head* (who, what,
//! sizes, digest) and the *payload*: the answers of all tables, packed with gzip, inline or uploaded. What comes back is
//! hostile: every size is bounded, nothing becomes a path or a command, and nothing counts before its digest is right.

mod answers;
mod judge;
mod manifest;
mod payload;
mod remarks;
mod script;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;

pub(super) use self::answers::{
    Packed, Window, hand_over, nonce, odd_clock, oddities, refuse, said, shown_name,
};
pub use self::judge::judge;
pub use self::manifest::{Agent, Manifest, Reply, Via, check, parse_head, parse_reply};
pub use self::payload::{RemoteAnswer, UnpackLimits, unpack};
pub(super) use self::remarks::Remarks;
pub use self::script::{
    Bootstrap, BootstrapKind, DOCUMENT_STEP, HostLimits, Job, OutputMode, document, parameters, script,
    ssh_script,
};
