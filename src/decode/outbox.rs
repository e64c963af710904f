//! Rows of many hosts and tables that come mixed, gathered into chunks.

use std::collections::BTreeMap;

use super::chunk::Chunker;
use super::import::ImportSink;
use super::source::Place;
use crate::error::Result;

/// Bytes of chunks under way, over all hosts, before all of them are handed on.
const UNDER_WAY: usize = 32 << 20;
/// Chunks under way at once: each costs more than the few bytes that a hostile file spends on it.
const MOST_CHUNKS: usize = 1 << 16;

/// Chunks under way, by host and table, of one file.
pub(super) struct Outbox {
    source: String,
    chunk_bytes: usize,
    chunkers: BTreeMap<(String, String), Chunker>,
    bytes: usize,
}

impl Outbox {
    pub(super) fn new(source: String, chunk_bytes: usize) -> Self {
        Self { source, chunk_bytes, chunkers: BTreeMap::new(), bytes: 0 }
    }

    /// The file.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    pub(super) fn push(
        &mut self,
        to: (&str, &str),
        row: &str,
        place: Place,
        sink: &mut dyn ImportSink,
    ) -> Result<()> {
        let chunker = self.chunkers.entry((to.0.to_owned(), to.1.to_owned())).or_default();
        if chunker.is_full(self.chunk_bytes) || !chunker.reaches(place) {
            self.bytes -= chunker.len();
            if let Some(chunk) = chunker.take(&self.source, 0) {
                sink.rows(to.0, to.1, chunk)?;
            }
        }
        let before = chunker.len();
        chunker.push(row, place);
        self.bytes += chunker.len() - before;
        if self.bytes >= UNDER_WAY || self.chunkers.len() >= MOST_CHUNKS { self.flush(sink) } else { Ok(()) }
    }

    pub(super) fn flush(&mut self, sink: &mut dyn ImportSink) -> Result<()> {
        self.bytes = 0;
        for ((host, table), mut chunker) in std::mem::take(&mut self.chunkers) {
            if let Some(chunk) = chunker.take(&self.source, 0) {
                sink.rows(&host, &table, chunk)?;
            }
        }
        Ok(())
    }
}
