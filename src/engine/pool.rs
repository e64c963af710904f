//! The memory of queries: whoever comes first gets it, but a quarter is kept for what cannot spill.
//!
//! DataFusion's fair pool gives each consumer that could spill the same share, idle ones included: a question over all
//! tables has dozens of them, and one that needs a third of the limit spills at a thirtieth.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryLimit, MemoryPool, MemoryReservation};

/// One of so many parts is for consumers that cannot spill, say the hash table of a join.
const KEPT: usize = 4;
/// What a consumer that can spill is given also when others have taken all that there is for such: without it a sort
/// that has nothing yet could not begin, and one that has just spilled could not go on.
const FLOOR: usize = 2 << 20;

/// Who exchanges rows between the tasks of a query. It is never refused: in DataFusion 55.2 the tasks may wait for each
/// other for ever when two of them spill at once (apache/datafusion#24883, mended after it). What it holds counts, so
/// others spill in its place; it is a few batches of each task, and more only where one task is far behind the rest.
const EXCHANGE: &str = "RepartitionExec";

/// A bounded pool.
#[derive(Debug)]
pub(super) struct QueryPool {
    all: GreedyMemoryPool,
    /// What consumers that can spill hold together, and may hold at most.
    spillable: AtomicUsize,
    most_spillable: usize,
}

impl QueryPool {
    /// A pool of so many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        let most_spillable = bytes - bytes / KEPT;
        Self { all: GreedyMemoryPool::new(bytes), spillable: AtomicUsize::new(0), most_spillable }
    }

    /// Takes the bytes from the part for those that can spill; a consumer that gets none writes to disk what it holds.
    fn take_spillable(&self, bytes: usize) -> bool {
        let taken = self.spillable.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            held.checked_add(bytes).filter(|held| *held <= self.most_spillable)
        });
        taken.is_ok()
    }

    fn exhausted(&self, reservation: &MemoryReservation, additional: usize) -> DataFusionError {
        let name = reservation.consumer().name();
        let (held, most) = (self.spillable.load(Ordering::Relaxed), self.most_spillable);
        DataFusionError::ResourcesExhausted(format!(
            "{name} cannot have {additional} bytes more: {held} of {most} are taken by what can spill to disk"
        ))
    }
}

impl MemoryPool for QueryPool {
    fn name(&self) -> &'static str {
        "queries"
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        if reservation.consumer().can_spill() {
            self.spillable.fetch_add(additional, Ordering::Relaxed);
        }
        self.all.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        if reservation.consumer().can_spill() {
            self.spillable.fetch_sub(shrink, Ordering::Relaxed);
        }
        self.all.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        if reservation.consumer().name().starts_with(EXCHANGE) {
            self.grow(reservation, additional);
            return Ok(());
        }
        if !reservation.consumer().can_spill() {
            return self.all.try_grow(reservation, additional);
        }
        let is_little = reservation.size().saturating_add(additional) <= FLOOR;
        if is_little {
            self.spillable.fetch_add(additional, Ordering::Relaxed);
        } else if !self.take_spillable(additional) {
            return Err(self.exhausted(reservation, additional));
        }
        self.all.try_grow(reservation, additional).inspect_err(|_| {
            self.spillable.fetch_sub(additional, Ordering::Relaxed);
        })
    }

    fn reserved(&self) -> usize {
        self.all.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.all.memory_limit()
    }
}

impl fmt::Display for QueryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.all.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::execution::memory_pool::MemoryConsumer;

    use super::*;

    #[test]
    fn what_can_spill_leaves_a_quarter_to_what_cannot() {
        const MIB: usize = 1 << 20;
        let pool: Arc<dyn MemoryPool> = Arc::new(QueryPool::new(100 * MIB));
        let spills = MemoryConsumer::new("sort").with_can_spill(true).register(&pool);
        let second = MemoryConsumer::new("another sort").with_can_spill(true).register(&pool);
        let joins = MemoryConsumer::new("join").register(&pool);
        spills.try_grow(75 * MIB).unwrap();
        assert!(spills.try_grow(1).is_err() && second.try_grow(3 * MIB).is_err());
        // Enough to begin with.
        second.try_grow(2 * MIB).unwrap();
        assert!(second.try_grow(1).is_err());
        joins.try_grow(23 * MIB).unwrap();
        assert!(joins.try_grow(1).is_err());
        spills.free();
        second.try_grow(60 * MIB).unwrap();
        assert_eq!(pool.reserved(), 85 * MIB);
        joins.try_grow(15 * MIB).unwrap();
        assert!(second.try_grow(1).is_err(), "the whole is a limit, too");
        drop((joins, second));
        assert_eq!(pool.reserved(), 0);
        spills.try_grow(75 * MIB).unwrap();
    }

    #[test]
    fn an_exchange_never_spills() {
        let pool: Arc<dyn MemoryPool> = Arc::new(QueryPool::new(4 << 20));
        let exchange = MemoryConsumer::new("RepartitionExec[0]").with_can_spill(true).register(&pool);
        let other = MemoryConsumer::new("sort").with_can_spill(true).register(&pool);
        exchange.try_grow(5 << 20).unwrap();
        assert!(other.try_grow(1).is_err(), "what it holds counts");
        exchange.free();
        other.try_grow(1).unwrap();
        drop(other);
        assert_eq!(pool.reserved(), 0);
    }
}
