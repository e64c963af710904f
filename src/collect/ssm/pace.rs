//! Turns: how often an action of AWS may be called.
//!
//! AWS publishes no rates for Run Command. A client that stays below them itself is faster than one that runs into the
//! limit and backs off.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// Gives turns at a steady rate.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// So many turns a second; anything that is no positive number means one.
    pub(super) fn new(per_second: f64) -> Self {
        let per_second = if per_second.is_finite() && per_second > 0.0 { per_second } else { 1.0 };
        Self { interval: Duration::from_secs_f64(1.0 / per_second), next: Mutex::new(None) }
    }

    /// Waits for the next turn; turns that nobody took are gone.
    pub(super) async fn turn(&self) {
        let turn = {
            let mut next = self.next.lock().await;
            let turn = earliest(*next, Instant::now());
            *next = Some(turn + self.interval);
            turn
        };
        sleep_until(turn).await;
    }
}

/// Turns of the past are not made up for.
fn earliest(next: Option<Instant>, now: Instant) -> Instant {
    next.map_or(now, |next| next.max(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_burst_after_a_pause() {
        let start = Instant::now();
        let later = start + Duration::from_secs(60);
        assert_eq!(earliest(None, start), start);
        assert_eq!(earliest(Some(later), start), later, "a turn that is taken is waited for");
        assert_eq!(earliest(Some(start), later), later);
    }

    #[tokio::test]
    async fn turns_keep_their_distance() {
        let pace = Pace::new(100.0);
        let start = Instant::now();
        for _ in 0..6 {
            pace.turn().await;
        }
        assert!(start.elapsed() >= Duration::from_millis(50), "{:?}", start.elapsed());
        assert_eq!(Pace::new(f64::NAN).interval, Duration::from_secs(1));
    }
}
