//! DataFusion over a store: sessions that see committed snapshots as tables, and the external sort of the writer.

mod functions;
pub mod sort;
