//! What the states of an invocation mean for the coverage.
//!
//! `StatusDetails` is a free string: the documentation prints it with blanks, the wire has none. Blanks and case do not
//! count, and what is not known is never taken for success.

use crate::model::Status;

/// How far an invocation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// It may still end.
    Underway,
    /// The script ran to its end, whatever its exit status; what it printed says the rest.
    Ran,
    /// It ended without an answer that could be whole; what was printed may be a part of one.
    Ended(Status, String),
}

/// The state that `Status` and `StatusDetails` tell of.
pub(super) fn state(status: &str, details: &str) -> State {
    let details = if details.trim().is_empty() { status } else { details };
    let word: String = details.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_lowercase();
    let ended = |status, why: &str| State::Ended(status, why.to_owned());
    match word.as_str() {
        "pending" | "inprogress" | "delayed" | "cancelling" => State::Underway,
        "success" | "failed" => State::Ran,
        "executiontimedout" => ended(Status::Timeout, "the agent ended the script at its time limit"),
        "deliverytimedout" => ended(Status::Undeliverable, "the command was not delivered in time"),
        "undeliverable" => ended(Status::Undeliverable, "the command could not be delivered"),
        "timedout" => ended(Status::Timeout, "the command timed out"),
        "cancelled" => ended(Status::Error, "somebody cancelled the command"),
        "terminated" => ended(Status::Error, "the command was ended because of errors on other hosts"),
        "accessdenied" => ended(Status::Undeliverable, "AWS did not allow the command on this host"),
        "invalidplatform" => ended(Status::NotSupported, "the document does not run on this platform"),
        _ => State::Ended(
            Status::Error,
            format!("the command ended as `{}`, which is not known", details.escape_debug()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(status: &str, details: &str) -> Status {
        match state(status, details) {
            State::Ended(status, why) => {
                assert!(!why.is_empty());
                status
            }
            other => panic!("{status} {details}: {other:?}"),
        }
    }

    #[test]
    fn each_end_has_its_status_in_both_spellings() {
        for (status, details, expected) in [
            ("TimedOut", "ExecutionTimedOut", Status::Timeout),
            ("TimedOut", "Execution Timed Out", Status::Timeout),
            ("TimedOut", "Delivery Timed Out", Status::Undeliverable),
            ("TimedOut", "", Status::Timeout),
            ("Failed", "Undeliverable", Status::Undeliverable),
            ("Cancelled", "Terminated", Status::Error),
            ("Cancelled", "Cancelled", Status::Error),
            ("Failed", "AccessDenied", Status::Undeliverable),
            ("Failed", "Invalid Platform", Status::NotSupported),
        ] {
            assert_eq!(ended(status, details), expected, "{status} {details}");
        }
    }

    #[test]
    fn what_may_still_end_is_waited_for() {
        for status in ["Pending", "InProgress", "In Progress", "Delayed", "Cancelling"] {
            assert_eq!(state(status, status), State::Underway, "{status}");
        }
        assert_eq!(state("Success", "Success"), State::Ran);
        assert_eq!(state("Failed", "Failed"), State::Ran);
    }

    #[test]
    fn an_unknown_word_is_no_success() {
        for details in ["Succeeded", "Done", "RateExceeded", "\u{1b}[31m"] {
            assert_eq!(ended("Success", details), Status::Error, "{details}");
        }
        assert_eq!(ended("", ""), Status::Error);
    }
}
