//! What an answer from far away is worth.

use super::payload::RemoteAnswer;
use crate::collect::judge::{self, End};
use crate::model::Status;

/// The status of an answer, and what went wrong in one line; judged as an osqueryi of this machine is.
///
/// Rows of an answer that is `Truncated`, `Denied` or `Error` are worth reading; of `Timeout`, `NotSupported` and
/// `NotAsked` (the time, the bytes or the disk of the host were used up) there are none.
pub fn judge(answer: &RemoteAnswer) -> (Status, String) {
    if answer.skipped {
        return (Status::NotAsked, format!("skipped: {}", judge::last_line(&answer.stderr)));
    }
    let end = match answer {
        RemoteAnswer { cut: true, .. } => End::TooLong { bytes: answer.stdout.len() as u64 },
        RemoteAnswer { timeout: true, .. } => {
            End::Timeout { seconds: answer.ended.saturating_sub(answer.started).max(0) as f64 }
        }
        RemoteAnswer { exit, .. } => End::Exit { success: *exit == 0, how: format!("exit status {exit}") },
    };
    judge::judge(end, &answer.stderr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged_by_flags_status_and_last_words() {
        let plain = || RemoteAnswer { table: "users".to_owned(), ..RemoteAnswer::default() };
        let said = |exit, stderr: &str| RemoteAnswer { exit, stderr: stderr.into(), ..plain() };
        for (answer, status, error) in [
            (plain(), Status::Ok, ""),
            (said(0, "a warning\n\n"), Status::Ok, "a warning"),
            (said(1, "warning\nError: no such table: x\n"), Status::NotSupported, "Error: no such table: x"),
            (said(1, "Error: near syntax"), Status::Error, "Error: near syntax"),
            (said(137, ""), Status::Error, "osqueryi ended with exit status 137"),
            (said(3, "diffy answer: not_supported: no dpkg"), Status::NotSupported, "no dpkg"),
            (said(1, "diffy answer: denied: 3 files"), Status::Denied, "3 files"),
            (said(1, "diffy answer: ok: fine"), Status::Error, "diffy answer: ok: fine"),
            (
                RemoteAnswer { timeout: true, started: 10, ended: 13, ..plain() },
                Status::Timeout,
                "no answer within 3 s",
            ),
            (
                RemoteAnswer { timeout: true, started: 10, ended: i64::MIN, ..plain() },
                Status::Timeout,
                "no answer within 0 s",
            ),
            (
                RemoteAnswer { cut: true, timeout: true, stdout: b"[{".to_vec(), ..plain() },
                Status::Truncated,
                "the answer is longer than 2 bytes",
            ),
            (
                RemoteAnswer { skipped: true, stderr: b"used up\n".to_vec(), ..plain() },
                Status::NotAsked,
                "skipped: used up",
            ),
        ] {
            assert_eq!(judge(&answer), (status, error.to_owned()), "{answer:?}");
        }
    }
}
