//! Runs a target plugin: who the hosts are, line by line. What a line means is for `target` to say.

use std::time::Duration;

use serde::Serialize;

use super::super::judge::last_line;
use super::super::program::{Bounds, Leash, Running};
use super::{PROTOCOL, Plugin, trouble};
use crate::error::{Error, Result};

/// Most bytes that an inventory may have, in all and in a line.
const MOST_BYTES: usize = 64 << 20;
const LINE_BYTES: usize = 64 << 10;

#[derive(Serialize)]
struct Request<'a> {
    diffy_plugin: u64,
    kind: &'static str,
    argument: Option<&'a str>,
    timeout_seconds: f64,
}

/// What takes the lines: number from 1, and bytes.
pub type Lines<'a> = &'a mut (dyn FnMut(usize, &[u8]) + Send);

/// Runs a target plugin with its argument, and hands on what it prints; the last line of its stderr comes back, if it
/// ended well.
///
/// # Errors
/// It could not be run, did not end well, or printed too much: then it must not be taken for a whole inventory.
pub async fn list(
    plugin: &Plugin,
    argument: Option<&str>,
    timeout: Duration,
    lines: Lines<'_>,
) -> Result<String> {
    let timeout_seconds = timeout.as_secs_f64();
    let request = Request { diffy_plugin: PROTOCOL, kind: "targets", argument, timeout_seconds };
    let request = serde_json::to_vec(&request)
        .map_err(|source| Error::internal("cannot spell a request").source(source))?;
    let bounds = Bounds { timeout, bytes: MOST_BYTES, line_bytes: LINE_BYTES };
    let leash = Leash::default();
    let failed = |why: String| {
        Error::remote(format!("the target plugin `{plugin}` {why}"))
            .hint("nobody was asked: a part of an inventory would look like a whole one")
    };
    let purpose: Vec<&str> = ["targets"].into_iter().chain(argument).collect();
    let mut running = Running::start(&plugin.program(&purpose), request, bounds, &leash)
        .map_err(|error| failed(format!("cannot be started: {error}")))?;
    let mut number = 0;
    while let Some(line) = running.line().await {
        number += 1;
        lines(number, &line);
    }
    let (ended, stderr) = running.end().await;
    match trouble(&ended, &stderr) {
        Some(why) => Err(failed(why)),
        None => Ok(last_line(&stderr)),
    }
}
