//! What every collector needs that starts a program: its process group, and the end of its error output.

use tokio::io::{AsyncRead, AsyncReadExt};

/// The process group of a child, killed when this is dropped.
#[derive(Debug)]
pub(super) struct Group(Option<u32>);

impl Group {
    /// The group that the child with this number leads.
    pub(super) fn new(leader: Option<u32>) -> Self {
        Self(leader)
    }

    /// Nothing is killed any more: the leader has been waited for, and its number may be another's by now.
    pub(super) fn is_over(&mut self) {
        self.0 = None;
    }
}

#[cfg(unix)]
impl Drop for Group {
    fn drop(&mut self) {
        let leader = self.0.and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
        if let Some(leader) = leader {
            // It is gone already in the normal case, and nothing more can be done in the other.
            let _gone = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
        }
    }
}

/// Reads everything, and hands what is read to `keep`.
pub(super) async fn read_all(mut from: impl AsyncRead + Unpin, mut keep: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 8 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        keep(&buffer[..read]);
    }
}

/// Appends, and keeps at least the last `most` bytes and at most twice as many.
pub(super) fn keep_end(kept: &mut Vec<u8>, bytes: &[u8], most: usize) {
    kept.extend_from_slice(bytes);
    if kept.len() > 2 * most {
        kept.drain(..kept.len() - most);
    }
}
