//! Progress on stderr for work that takes a second or more; silent where stderr is no terminal.

use std::fmt;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// Work shorter than this shows nothing: a flashing bar says less than the result.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the bar is redrawn, so that a stalled host is seen to stall.
const TICK: Duration = Duration::from_millis(200);

/// When to show progress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ProgressMode {
    /// When stderr is a terminal.
    #[default]
    Auto,
    /// Never.
    Never,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things: hosts, files, rows.
    Count,
    /// Bytes, shown as KiB, MiB and so on.
    Bytes,
}

/// A bar with a count, a rate and the time left; gone without a trace when finished or dropped.
pub struct Progress {
    bar: ProgressBar,
    /// Dropped to tell the thread that waits out [`PATIENCE`] that the work is over.
    _waiting: Option<Sender<()>>,
}

impl Progress {
    /// Progress of things; `total` is how many there are, where that is known.
    pub fn new(mode: ProgressMode, label: &str, total: Option<u64>) -> Self {
        Self::with_unit(mode, label, total, Unit::Count)
    }

    /// Progress of any unit.
    pub fn with_unit(mode: ProgressMode, label: &str, total: Option<u64>, unit: Unit) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        bar.set_style(style(total.is_some(), unit));
        bar.set_prefix(label.to_owned());
        let waiting = (mode == ProgressMode::Auto).then(|| show_later(&bar));
        Self { bar, _waiting: waiting }
    }

    /// Counts `n` more as done.
    pub fn inc(&self, n: u64) {
        self.bar.inc(n);
    }

    /// Corrects how many there are.
    pub fn set_total(&self, total: u64) {
        self.bar.set_length(total);
    }

    /// What is being done now, beside the bar; not for text from hosts unless escaped.
    pub fn note(&self, text: impl Into<String>) {
        self.bar.set_message(text.into());
    }

    /// How many are done.
    pub fn done(&self) -> u64 {
        self.bar.position()
    }

    /// Runs `print`, which writes to the terminal, with the bar out of its way.
    pub fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }

    /// Removes the bar.
    pub fn finish(self) {
        drop(self);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("done", &self.bar.position()).finish_non_exhaustive()
    }
}

/// Draws `bar` from [`PATIENCE`] on, unless the returned sender was dropped by then.
///
/// A thread, because the first thing may take longer than that to be counted.
fn show_later(bar: &ProgressBar) -> Sender<()> {
    let (over, is_over) = mpsc::channel();
    let bar = bar.clone();
    thread::spawn(move || {
        if is_over.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) && !bar.is_finished() {
            // Draws nothing where stderr is no terminal.
            bar.set_draw_target(ProgressDrawTarget::stderr());
            bar.enable_steady_tick(TICK);
        }
    });
    over
}

fn style(has_total: bool, unit: Unit) -> ProgressStyle {
    ProgressStyle::with_template(template(has_total, unit))
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("rate", |state: &ProgressState, out: &mut dyn fmt::Write| {
            // A rate that cannot be written is one that is not shown.
            write!(out, "{:.1}/s", state.per_sec()).ok();
        })
}

fn template(has_total: bool, unit: Unit) -> &'static str {
    match (has_total, unit) {
        (true, Unit::Count) => "{prefix} {wide_bar} {human_pos}/{human_len}  {rate}  {eta} left  {msg}",
        (true, Unit::Bytes) => {
            "{prefix} {wide_bar} {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  {eta} left  {msg}"
        }
        (false, Unit::Count) => "{prefix} {spinner} {human_pos}  {rate}  {elapsed}  {msg}",
        (false, Unit::Bytes) => "{prefix} {spinner} {binary_bytes}  {binary_bytes_per_sec}  {elapsed}  {msg}",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_valid() {
        for unit in [Unit::Count, Unit::Bytes] {
            for has_total in [false, true] {
                assert!(ProgressStyle::with_template(template(has_total, unit)).is_ok());
            }
        }
    }

    #[test]
    fn counts_without_being_drawn() {
        let progress = Progress::new(ProgressMode::Never, "collect", Some(3));
        progress.inc(2);
        assert_eq!(progress.done(), 2);
        assert!(progress.bar.is_hidden());
        let bar = progress.bar.clone();
        progress.finish();
        assert!(bar.is_finished());
    }
}
