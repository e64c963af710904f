//! Where a row stands out, in words: what remains of the views of a table when they are gone.

use std::collections::HashMap;

use super::candidate::{Candidate, Place, Subject};
use super::lines::Lines;
use super::members::Members;
use super::views::{Shows, UNKNOWN, View};

/// Where a row of the method `frequency` stands out.
#[derive(Debug)]
pub(super) struct Spot {
    /// The column that is odd; none for the whole row.
    pub(super) column: Option<String>,
    /// Whether it is odd with its numbers masked.
    pub(super) is_masked: bool,
    /// The column beside which it is odd, and whether that is masked.
    pub(super) context: Option<(String, bool)>,
    /// Hosts that show the value in this place, of so many.
    pub(super) hosts: u64,
    pub(super) of: u64,
    /// What the others show beside the same.
    pub(super) usual: Option<Usual>,
}

/// The value that most others show.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Usual {
    pub(super) value: String,
    pub(super) hosts: u64,
}

/// Finds the spots of the candidates of one table.
pub(super) struct Spots<'a> {
    lines: &'a Lines,
    views: &'a [View],
    /// By target, context and value of the context: the two values that most hosts show, the most first.
    usual: HashMap<(usize, usize, u32), Vec<Common>>,
}

/// A value of a place: its code, its first line, and its hosts.
#[derive(Clone, Copy)]
struct Common {
    code: u32,
    line: usize,
    hosts: u64,
}

impl<'a> Spots<'a> {
    pub(super) fn new(lines: &'a Lines, views: &'a [View]) -> Self {
        Self { lines, views, usual: HashMap::new() }
    }

    /// Where a candidate stands out; none where nothing but its row does.
    pub(super) fn of(&mut self, candidate: &Candidate) -> Option<Spot> {
        let place = candidate.place?;
        let (target, context) =
            (&self.views[place.target], place.context.map(|context| &self.views[context]));
        let is_masked = |view: &View| view.shows == Shows::Masked;
        let named = |view: &View| Some((view.column.clone()?, is_masked(view)));
        Some(Spot {
            column: target.column.clone(),
            is_masked: is_masked(target),
            context: context.and_then(named),
            hosts: place.hosts,
            of: place.of,
            usual: self.usual(place, candidate),
        })
    }

    fn usual(&mut self, place: Place, candidate: &Candidate) -> Option<Usual> {
        let Subject::Line(own) = candidate.subject else { return None };
        let (target, context) = (&self.views[place.target], place.context?);
        let column = target.column.as_deref()?;
        let value = self.views[context].codes[own];
        let key = (place.target, context, value);
        if !self.usual.contains_key(&key) {
            self.usual.insert(key, self.commonest(target, &self.views[context], value));
        }
        let found = self.usual[&key].iter().find(|common| common.code != target.codes[own])?;
        Some(Usual { value: self.lines.value(found.line, column)?, hosts: found.hosts })
    }

    /// The two values that most hosts show beside one of the context.
    fn commonest(&self, target: &View, context: &View, value: u32) -> Vec<Common> {
        if value == UNKNOWN {
            return Vec::new();
        }
        let lines = context.by_code.of(value).iter();
        let mut here: Vec<(u32, u32)> = lines.map(|line| (target.codes[*line as usize], *line)).collect();
        here.retain(|(code, _)| *code != UNKNOWN);
        here.sort_unstable();
        let common = |lines: &[(u32, u32)]| {
            let mut members = Members::default();
            lines.iter().for_each(|(_, line)| members.add(&self.lines.lines[*line as usize].members));
            Common { code: lines[0].0, line: lines[0].1 as usize, hosts: members.len() }
        };
        let mut all: Vec<Common> = here.chunk_by(|a, b| a.0 == b.0).map(common).collect();
        all.sort_by_key(|common| (std::cmp::Reverse(common.hosts), common.line));
        all.truncate(2);
        all
    }
}
