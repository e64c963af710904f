//! What a report shows beside the analysis: how to look at a row, how to vouch for it, what was not answered.

use std::fmt;

use crate::model::{Coverage, Finding, HostResult, Status};

/// What whoever asks for a report knows beside the analysis.
pub struct Supplement<'a> {
    /// What a reader must know of this report as a whole, one sentence each.
    pub notes: Vec<String>,
    /// Every table that hosts were asked for.
    pub tables: Vec<String>,
    /// How many answers of hosts for tables there are of each status.
    pub answers: Vec<(Status, u64)>,
    /// What was not answered in full although others answered it.
    pub failures: Vec<Coverage>,
    /// What a reader can do about a finding.
    pub help: &'a dyn Fn(&HostResult, &Finding) -> Help,
}

impl fmt::Debug for Supplement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supplement").field("notes", &self.notes).finish_non_exhaustive()
    }
}

impl Default for Supplement<'_> {
    /// Nothing beside the analysis.
    fn default() -> Self {
        Self {
            notes: Vec::new(),
            tables: Vec::new(),
            answers: Vec::new(),
            failures: Vec::new(),
            help: &|_, _| Help::default(),
        }
    }
}

/// What a reader can do about a finding. Shown as it is: whoever makes it escapes what deceives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Help {
    /// Command lines that show the row or its absence, each with what it shows.
    pub queries: Vec<(&'static str, String)>,
    /// What to paste into a file of suppressions; may have several lines.
    pub suppression: String,
}
