//! Reads ahead: files are read and cut on a thread of their own, while the sink does its work on the caller's.

use std::mem;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use super::Chunk;
use super::import::{ImportAnswer, ImportReport, ImportSink};
use crate::error::{Error, Result};

/// Bytes of rows, and things found, that are handed over at once.
const BYTES: usize = 1 << 20;
const THINGS: usize = 64;
/// How often so much waits for the sink at most.
const WAITING: usize = 4;
/// With more bytes of rows at once, nothing more is read before the sink has taken them: a row may be hundreds of
/// megabytes, and one such in memory is enough.
const LARGE: usize = 4 * BYTES;

/// Something that was found.
enum Thing {
    Host(String),
    Rows { host: String, table: String, chunk: Chunk },
    Answered(ImportAnswer),
}

/// What is handed over at once.
struct Found {
    things: Vec<Thing>,
    /// Dropped when all of it was taken.
    _held: Option<SyncSender<()>>,
}

/// Hands on to `sink`, in order, what `read` finds.
///
/// # Errors
/// Those of the sink, after which reading ends, and those of reading.
pub(super) fn ahead(
    sink: &mut dyn ImportSink,
    read: impl FnOnce(&mut dyn ImportSink) -> Result<ImportReport> + Send,
) -> Result<ImportReport> {
    thread::scope(|scope| {
        let (send, found) = sync_channel(WAITING);
        let reading = scope.spawn(move || {
            let mut ahead = Ahead { send, things: Vec::new(), bytes: 0 };
            let report = read(&mut ahead)?;
            ahead.flush()?;
            Ok(report)
        });
        // By value, so that reading ends when the sink fails.
        let taken = found
            .into_iter()
            .try_for_each(|found: Found| found.things.into_iter().try_for_each(|thing| hand_on(thing, sink)));
        let report = reading.join().map_err(|_| Error::internal("the thread that reads files died"));
        taken.and(report).flatten()
    })
}

fn hand_on(thing: Thing, sink: &mut dyn ImportSink) -> Result<()> {
    match thing {
        Thing::Host(host) => sink.host(&host),
        Thing::Rows { host, table, chunk } => sink.rows(&host, &table, chunk),
        Thing::Answered(answer) => sink.answered(answer),
    }
}

/// Gathers what is found and sends it on.
struct Ahead {
    send: SyncSender<Found>,
    things: Vec<Thing>,
    bytes: usize,
}

impl Ahead {
    fn add(&mut self, thing: Thing, bytes: usize) -> Result<()> {
        self.things.push(thing);
        self.bytes += bytes;
        if self.bytes >= BYTES || self.things.len() >= THINGS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let is_large = mem::take(&mut self.bytes) > LARGE;
        let things = mem::take(&mut self.things);
        let (held, taken) = sync_channel(0);
        let found = Found { things, _held: is_large.then_some(held) };
        // The sink's own error is the one that is told.
        self.send.send(found).map_err(|_| Error::internal("nobody takes what is read"))?;
        // Nothing is ever sent: it ends when the other side, or this one, has dropped its end.
        let _ = taken.recv();
        Ok(())
    }
}

impl ImportSink for Ahead {
    fn host(&mut self, host: &str) -> Result<()> {
        self.add(Thing::Host(host.to_owned()), 0)
    }

    fn rows(&mut self, host: &str, table: &str, chunk: Chunk) -> Result<()> {
        let bytes = chunk.json.len();
        self.add(Thing::Rows { host: host.to_owned(), table: table.to_owned(), chunk }, bytes)
    }

    fn answered(&mut self, answer: ImportAnswer) -> Result<()> {
        self.add(Thing::Answered(answer), 0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::model::Status;

    #[derive(Default)]
    struct Counting {
        hosts: usize,
        most: usize,
    }

    impl ImportSink for Counting {
        fn host(&mut self, host: &str) -> Result<()> {
            assert_eq!(host, format!("h{}", self.hosts));
            self.hosts += 1;
            if self.hosts > self.most { Err(Error::remote("disk full")) } else { Ok(()) }
        }

        fn rows(&mut self, _: &str, _: &str, _: Chunk) -> Result<()> {
            Ok(())
        }

        fn answered(&mut self, _: ImportAnswer) -> Result<()> {
            Ok(())
        }
    }

    fn read(count: usize, sink: &mut dyn ImportSink) -> Result<ImportReport> {
        for host in 0..count {
            let host = format!("h{host}");
            sink.host(&host)?;
            let json = "x".repeat(50_000);
            sink.rows(&host, "t", Chunk { json, rows: 1, array: 0, origin: Default::default() })?;
            let answer = ImportAnswer {
                host,
                table: "t".to_owned(),
                status: Status::Ok,
                rows: 1,
                bytes: 2,
                error: String::new(),
                time: None,
                osquery_version: None,
            };
            sink.answered(answer)?;
        }
        Ok(ImportReport { hosts: count as u64, ..ImportReport::default() })
    }

    /// Notes how much was read and not taken.
    struct Slow<'a>(&'a AtomicUsize, usize);

    impl ImportSink for Slow<'_> {
        fn host(&mut self, _: &str) -> Result<()> {
            Ok(())
        }

        fn rows(&mut self, _: &str, _: &str, chunk: Chunk) -> Result<()> {
            // Time for a reader that does not wait; one that does passes however long this takes.
            thread::sleep(Duration::from_millis(20));
            self.1 = self.1.max(self.0.fetch_sub(chunk.json.len(), Ordering::SeqCst));
            Ok(())
        }

        fn answered(&mut self, _: ImportAnswer) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn large_rows_do_not_wait_together() {
        let ahead_by = AtomicUsize::new(0);
        let mut sink = Slow(&ahead_by, 0);
        let read = |sink: &mut dyn ImportSink| {
            for _ in 0..6 {
                let json = "x".repeat(LARGE + 1);
                ahead_by.fetch_add(json.len(), Ordering::SeqCst);
                sink.rows("h", "t", Chunk { json, rows: 1, array: 0, origin: Default::default() })?;
            }
            Ok(ImportReport::default())
        };
        ahead(&mut sink, read).unwrap();
        assert_eq!(sink.1, LARGE + 1);
    }

    #[test]
    fn everything_comes_in_order() {
        let mut sink = Counting { most: 1_000, ..Counting::default() };
        let report = ahead(&mut sink, |sink| read(1_000, sink)).unwrap();
        assert_eq!((report.hosts, sink.hosts), (1_000, 1_000));
    }

    #[test]
    fn a_sink_that_fails_ends_the_reading() {
        let mut sink = Counting { most: 10, ..Counting::default() };
        let error = ahead(&mut sink, |sink| read(usize::MAX, sink)).unwrap_err();
        assert_eq!((error.to_string().as_str(), sink.hosts), ("disk full", 11));
    }

    #[test]
    fn a_reading_that_fails_is_told() {
        let mut sink = Counting { most: 10, ..Counting::default() };
        let error = ahead(&mut sink, |sink| {
            sink.host("h0")?;
            Err(Error::usage("no such file"))
        });
        assert_eq!((error.unwrap_err().to_string().as_str(), sink.hosts), ("no such file", 0));
    }
}
