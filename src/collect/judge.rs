//! How a run of osqueryi is judged, wherever it ran: here, or on a host far away.

use crate::model::Status;

/// What this binary says first on stderr when it answers for a table and not all is well, on a host without osquery:
/// a status and a reason follow.
pub const ANSWER_PREFIX: &str = "diffy answer: ";

/// How a run ended.
#[derive(Debug)]
pub(super) enum End {
    /// By itself: whether with status 0, and in words how.
    Exit { success: bool, how: String },
    /// It was killed after so many seconds.
    Timeout { seconds: f64 },
    /// It was killed after so many bytes.
    TooLong { bytes: u64 },
    /// It did not start, or could not be watched.
    Failed(String),
}

/// The status of an answer, and what went wrong in one line; empty when nothing did.
pub(super) fn judge(end: End, stderr: &[u8]) -> (Status, String) {
    let said = last_line(stderr);
    match end {
        End::Failed(error) => (Status::Error, error),
        End::Timeout { seconds } => (Status::Timeout, format!("no answer within {seconds} s")),
        End::TooLong { bytes } => (Status::Truncated, format!("the answer is longer than {bytes} bytes")),
        End::Exit { .. } if said.contains("no such table: ") => (Status::NotSupported, said),
        End::Exit { success: true, .. } => (Status::Ok, said),
        End::Exit { how, .. } if said.is_empty() => (Status::Error, format!("osqueryi ended with {how}")),
        End::Exit { .. } => native(&said).unwrap_or((Status::Error, said)),
    }
}

/// What the native collector said about its answer.
fn native(said: &str) -> Option<(Status, String)> {
    let (status, reason) = said.strip_prefix(ANSWER_PREFIX)?.split_once(": ")?;
    let status: Status = status.parse().ok()?;
    // The others would be praise, or not its business.
    let is_trouble = !matches!(status, Status::Ok | Status::Empty | Status::NotAsked | Status::Undeliverable);
    is_trouble.then(|| (status, reason.to_owned()))
}

/// The last line that says something; at most a kilobyte of it.
pub(super) fn last_line(stderr: &[u8]) -> String {
    let line = stderr.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).rfind(|line| !line.is_empty());
    let line = line.unwrap_or_default();
    String::from_utf8_lossy(&line[..line.len().min(1024)]).into_owned()
}
