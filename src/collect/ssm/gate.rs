//! Whether anything is still sent, and why not.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::sync::Mutex;

use super::Refusal;
use crate::aws;
use crate::model::Status;

/// So many hosts in a row for which commands are denied, and all are taken to be.
const DENIED: u32 = 5;

/// What the tasks of a collection share: once it is shut, hosts that wait are refused with its reason.
#[derive(Debug, Default)]
pub(super) struct Gate {
    reason: Mutex<Option<Refusal>>,
    is_stopped: AtomicBool,
    denied: AtomicU32,
}

impl Gate {
    /// Why nothing is sent any more.
    pub(super) async fn reason(&self) -> Option<Refusal> {
        self.reason.lock().await.clone()
    }

    /// Shuts it; the first reason stays.
    pub(super) async fn shut(&self, reason: Refusal) {
        self.reason.lock().await.get_or_insert(reason);
    }

    /// Shuts it because the user said so.
    pub(super) async fn stop(&self) {
        self.is_stopped.store(true, Ordering::SeqCst);
        let why = "the collection was stopped before this host was asked";
        self.shut((Status::NotAsked, why.to_owned())).await;
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::SeqCst)
    }

    /// A command was taken: denials are of single hosts.
    pub(super) fn passed(&self) {
        self.denied.store(0, Ordering::SeqCst);
    }

    /// A command for one host was denied; shuts when that was so for many in a row.
    pub(super) async fn denied(&self, reason: &Refusal) {
        if self.denied.fetch_add(1, Ordering::SeqCst) + 1 >= DENIED {
            self.shut(reason.clone()).await;
        }
    }
}

/// Whether a refusal of one call is one of all: what was asked for, or who asks, will not do.
pub(super) fn is_for_all(code: &str) -> bool {
    use aws::Refusal::{Expired, Unknown};
    matches!(aws::Refusal::of_code(code), Some(Expired | Unknown))
        || code.starts_with("InvalidDocument")
        || code == "InvalidParameters"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn single_denials_do_not_shut_it_and_many_in_a_row_do() {
        let gate = Gate::default();
        let reason = (Status::Undeliverable, "denied".to_owned());
        for _ in 0..DENIED - 1 {
            gate.denied(&reason).await;
        }
        gate.passed();
        gate.denied(&reason).await;
        assert_eq!(gate.reason().await, None);
        for _ in 1..DENIED {
            gate.denied(&reason).await;
        }
        assert_eq!(gate.reason().await, Some(reason.clone()));
        gate.stop().await;
        assert_eq!(gate.reason().await, Some(reason), "the first reason stays");
        assert!(gate.is_stopped());
    }
}
