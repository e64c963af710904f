//! Tables judged on all processors, the largest first, as many at once as memory allows.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::lines::{Lines, Loaded};
use crate::error::{Error, Result};

/// What a line takes while its table is judged, in bytes: for each column two views of two numbers, and what is found.
const PER_LINE: usize = 64;
const PER_CELL: usize = 16;

/// What `judge` makes of each table, by the order of the tables; it is told their numbers.
///
/// # Errors
/// Whatever `judge` returns, of the first table.
pub(super) fn side_by_side<'a, T: Send>(
    (tables, limit_bytes): (&'a [Loaded<'a>], usize),
    judge: impl Fn(usize, &'a Loaded<'a>) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let mut order: Vec<usize> = (0..tables.len()).collect();
    order.sort_by_key(|number| std::cmp::Reverse(tables[*number].lines.lines.len()));
    let next = AtomicUsize::new(0);
    let room = Room { limit_bytes, taken: Mutex::default(), freed: Condvar::new() };
    let work = || {
        let mut done = Vec::new();
        while let Some(number) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            let table = &tables[*number];
            let _place = room.place(needs(&table.lines));
            done.push((*number, judge(*number, table)));
        }
        done
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(tables.len());
    let mut done: Vec<(usize, Result<T>)> = std::thread::scope(|scope| {
        let started: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        started.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    done.sort_by_key(|(number, _)| *number);
    if done.len() != tables.len() {
        return Err(Error::internal("a table could not be judged"));
    }
    done.into_iter().map(|(_, result)| result).collect()
}

/// About what judging takes, in bytes.
fn needs(lines: &Lines) -> usize {
    lines.lines.len() * (PER_LINE + PER_CELL * lines.columns.len())
}

/// Memory that threads share.
struct Room {
    limit_bytes: usize,
    taken: Mutex<usize>,
    freed: Condvar,
}

/// Memory that one of them has, until it is dropped.
struct Place<'a> {
    room: &'a Room,
    bytes: usize,
}

impl Room {
    fn lock(&self) -> MutexGuard<'_, usize> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is room; where nobody has any, there is.
    fn place(&self, bytes: usize) -> Place<'_> {
        let is_full = |taken: &mut usize| *taken > 0 && taken.saturating_add(bytes) > self.limit_bytes;
        let mut taken = self.freed.wait_while(self.lock(), is_full).unwrap_or_else(PoisonError::into_inner);
        *taken += bytes;
        Place { room: self, bytes }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.room.lock() -= self.bytes;
        self.room.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Fleet;
    use super::*;

    #[test]
    fn with_hardly_any_memory_one_table_is_judged_after_the_other() {
        let mut fleet = Fleet::new(3, |host| format!("web-{host}"));
        for table in ["users", "groups", "crontab", "sudoers", "processes"] {
            fleet.row(table, "", 0..3);
        }
        let loaded = fleet.loaded();
        let at_once = AtomicUsize::new(0);
        let judge = |number: usize, table: &Loaded<'_>| {
            assert_eq!(at_once.fetch_add(1, Ordering::SeqCst), 0);
            std::thread::yield_now();
            at_once.fetch_sub(1, Ordering::SeqCst);
            Ok((number, table.name().to_owned()))
        };
        let judged = side_by_side((&loaded, 1), judge).unwrap();
        let names = ["crontab", "groups", "processes", "sudoers", "users"];
        assert_eq!(judged, (0..5).zip(names.map(ToOwned::to_owned)).collect::<Vec<_>>());
    }
}
