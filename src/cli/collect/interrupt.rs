//! The end that somebody wants before the end: Ctrl-C, and what service managers send.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Error, ErrorKind, Result};

/// Resolves when a signal asks this program to end (SIGINT, SIGTERM). From the first poll on, these do not kill it.
pub(super) async fn interrupted() {
    let Ok(mut term) = signal(SignalKind::terminate()) else {
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
    }
}

/// Work that leaves nothing behind when it is dropped.
pub(in crate::cli) async fn unless_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        biased;
        () = interrupted() => Err(Error::new(ErrorKind::Interrupted, "interrupted; no host was asked")),
        done = work => done,
    }
}
