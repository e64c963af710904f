//! Channels: a value is judged in its place, which is a column over the fleet, within a peer group, or beside the value of
//! another column.
//!
//! *In the place* (docs/detection.md): of `n` hosts that show something there, `e` others show a value at least as rare,
//! so that `(e + 1) / (n + 1)` is how odd one more such host is. *In the channel*: the share of hosts that show something
//! as odd in any of its places; `-log2` of it are the bits. A place where everybody has a value of its own gives none, and
//! neither does a channel in which every host has one such place. Source of the idea: PeerPressure (OSDI 2004) and
//! conformal p-values (Bates et al. 2023).

use std::collections::HashMap;

use super::contexts::contexts;
use super::lines::Loaded;
use super::peers::PeerGroups;
use super::places::{OddHere, Places, Scope};
use super::views::{Shows, View};
use crate::catalog::Role;

/// Fewer hosts in a place say nothing about what is rare there; of a smaller fleet, fewer than all of it.
const FEWEST_IN_PLACE: u64 = 8;
/// In the smallest fleet that is compared.
const FEWEST: u64 = 3;
/// What a context column says, against one that makes the row what it is.
const CONTEXT_WORTH: f64 = 0.75;
/// Less surprise is what every fleet has.
pub(super) const LEAST_BITS: f64 = 0.4;

/// Where a row is judged, and how odd it is there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Odd {
    /// What is odd, in its place.
    pub(super) here: OddHere,
    /// Index of the view that is odd.
    pub(super) target: usize,
    /// Index of the view beside which it is.
    pub(super) context: Option<usize>,
    /// `-log2` of the share of hosts as odd in the channel.
    pub(super) bits: f64,
}

/// The oddest place of each row on each host.
pub(super) fn odd_rows(table: &Loaded<'_>, views: &[View], groups: &PeerGroups) -> Vec<Odd> {
    let heard = &table.answers.heard;
    let fewest = heard.len().clamp(FEWEST, FEWEST_IN_PLACE);
    let fleet = [Scope { group: None, hosts: heard.clone(), kinds: Some(groups), fewest }];
    let in_groups = scopes(groups, table);
    let mut best: HashMap<(usize, u32), Odd> = HashMap::new();
    for context in every_context(table, views) {
        let places = Places::new(&table.lines, context.map(|at| &views[at]), fewest);
        for (target, view) in views.iter().enumerate().filter(|(_, view)| belong(view, context, views)) {
            let worth = worth(table, view);
            for scopes in [&fleet[..], &in_groups[..]] {
                let hosts = scopes.iter().map(|scope| scope.hosts.len()).sum();
                let found = places.odd_in(view, scopes);
                let bits = bits(&found, hosts);
                let odd = |(here, bits)| Odd { here, target, context, bits: worth * bits };
                keep_best(&mut best, found.into_iter().zip(bits).map(odd));
            }
        }
    }
    let mut odd: Vec<Odd> = best.into_values().filter(|odd| odd.bits >= LEAST_BITS).collect();
    odd.sort_by_key(|odd| (odd.here.line, odd.here.host));
    odd
}

/// What a column says about a row is worth less than what makes it the row.
fn worth(table: &Loaded<'_>, target: &View) -> f64 {
    let column = target.column.as_deref().and_then(|name| table.lines.spec.column(name));
    match column.map(|column| column.role) {
        Some(Role::Context) => CONTEXT_WORTH,
        _ => 1.0,
    }
}

fn scopes(groups: &PeerGroups, table: &Loaded<'_>) -> Vec<Scope<'static>> {
    let heard = &table.answers.heard;
    let numbered = groups.groups.iter().enumerate();
    let scopes = numbered.map(|(number, group)| Scope {
        group: Some(number),
        hosts: &group.hosts & heard,
        kinds: None,
        fewest: FEWEST_IN_PLACE,
    });
    // One group of all hosts is the fleet again.
    scopes.filter(|scope| scope.hosts.len() >= FEWEST_IN_PLACE && scope.hosts != *heard).collect()
}

/// Over all rows, beside each view that names rows, and beside the loose id.
fn every_context(table: &Loaded<'_>, views: &[View]) -> Vec<Option<usize>> {
    let loose = views.iter().position(|view| view.shows == Shows::Loose);
    let named = contexts(table, views).into_iter().chain(loose).map(Some);
    std::iter::once(None).chain(named).collect()
}

/// A content is judged beside its thing, a thing over the fleet, and a column beside others.
fn belong(target: &View, context: Option<usize>, views: &[View]) -> bool {
    let context = context.map(|at| &views[at]);
    match target.shows {
        Shows::Loose => context.is_none(),
        Shows::Strict => context.is_some_and(|context| context.shows == Shows::Loose),
        _ => context.is_none_or(|context| context.column.is_some() && context.column != target.column),
    }
}

/// What the channel says, and never more than the place itself can say.
fn bits(channel: &[OddHere], hosts: u64) -> Vec<f64> {
    let mut oddest: HashMap<u32, f64> = HashMap::new();
    for odd in channel {
        let oddest = oddest.entry(odd.host).or_insert(f64::INFINITY);
        *oddest = oddest.min(odd.share);
    }
    let mut oddest: Vec<f64> = oddest.into_values().collect();
    oddest.sort_by(f64::total_cmp);
    let of = |odd: &OddHere| {
        let as_odd = oddest.partition_point(|share| *share <= odd.share) as f64;
        (hosts as f64 / as_odd).log2().min(-odd.share.log2()).max(0.0)
    };
    channel.iter().map(of).collect()
}

fn keep_best(best: &mut HashMap<(usize, u32), Odd>, channel: impl Iterator<Item = Odd>) {
    for odd in channel {
        let kept = best.entry((odd.here.line, odd.here.host)).or_insert(odd);
        if is_odder(&odd, kept) {
            *kept = odd;
        }
    }
}

/// More bits; with as many, the larger place, which is the stronger sentence.
fn is_odder(odd: &Odd, than: &Odd) -> bool {
    odd.bits.total_cmp(&than.bits).then(odd.here.of.cmp(&than.here.of)).is_gt()
}
