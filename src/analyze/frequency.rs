//! The method `frequency`: rows that show something which hardly any other host shows in that place.
//!
//! The channels say how odd each row is and where; the ids name what it is: rare in its loose id is *new*; common in its
//! loose id is a *variant*, by its content or by what it stands beside.

use std::collections::HashMap;

use super::candidate::{Candidate, Method, Place, Subject};
use super::channels::{self, Odd};
use super::explained::Explanations;
use super::lines::{Id, Lines, Loaded};
use super::members::Members;
use super::peers::PeerGroups;
use super::priors::LinePrior;
use super::views::{self, Shows, View};
use crate::catalog::Strength;
use crate::model::FindingKind;

/// Share of the hosts up to which a row is rare.
const RARE: f64 = 0.05;

/// What stands out in one table.
pub(super) fn candidates(
    table: &Loaded<'_>,
    views: &[View],
    (groups, explanations): (&PeerGroups, &Explanations),
    priors: &HashMap<usize, LinePrior>,
) -> Vec<Candidate> {
    let mut odd = channels::odd_rows(table, views, groups);
    odd.extend(channels::speaking(table, views, &odd, |line| {
        priors.get(&line).is_some_and(|prior| prior.bits > 0.0)
    }));
    let things = Things::of(&table.lines, &odd);
    let mut found: Vec<Candidate> = odd.iter().map(|odd| things.candidate(table, views, odd)).collect();
    let alike = views::masked_rows(table, views);
    for (candidate, odd) in found.iter_mut().zip(&odd) {
        candidate.alike = Some(alike(odd.here.line));
        candidate.bits -= SHARED * (candidate.place.map_or(1, |place| place.hosts) as f64).log2();
        let path = table.lines.text(odd.here.line, "path");
        if explanations.of(table.name(), things.hosts(candidate), path).is_some() {
            candidate.bits *= EXPLAINED;
        }
        candidate.bits = candidate.bits.max(0.0);
    }
    found
}

/// What is left of the bits when a kernel, an image or a package version accounts for the row.
const EXPLAINED: f64 = 0.3;
/// What several hosts show alike is rather a fact of theirs than the trace of one compromise; campaigns see it.
const SHARED: f64 = 0.5;

/// Few enough hosts for a row to stand out.
fn is_rare(hosts: u64, of: u64) -> bool {
    hosts <= ((of as f64 * RARE) as u64).max(1)
}

/// The things of a table of which a row is odd.
struct Things<'a> {
    lines: &'a Lines,
    /// By loose id.
    loose: HashMap<Id, Thing>,
    /// By strict id, the hosts that have this content.
    strict: HashMap<Id, Members>,
}

/// The rows of one loose id.
struct Thing {
    members: Members,
    /// The line whose content most hosts have, and how many have it.
    usual: (usize, u64),
}

impl<'a> Things<'a> {
    fn of(lines: &'a Lines, odd: &[Odd]) -> Self {
        let mut things = Self { lines, loose: HashMap::new(), strict: HashMap::new() };
        for odd in odd {
            let line = &lines.lines[odd.here.line];
            things.loose.entry(line.loose).or_insert_with(|| Thing::of(lines, odd.here.line));
            things.strict.entry(line.strict).or_insert_with(|| lines.content_of(odd.here.line).members);
        }
        things
    }

    fn candidate(&self, table: &Loaded<'_>, views: &[View], odd: &Odd) -> Candidate {
        let line = &self.lines.lines[odd.here.line];
        let answered = table.answers.heard.len();
        let thing = &self.loose[&line.loose];
        let with_content = self.strict[&line.strict].len();
        let is_new = is_rare(thing.members.len(), answered);
        let is_other_content = !is_new && is_rare(with_content, thing.members.len());
        let nearest = if is_other_content { self.usual_content(thing, line.strict) } else { None };
        let place =
            Place { target: odd.target, context: odd.context, hosts: odd.here.hosts, of: odd.here.of };
        Candidate {
            rare_columns: self.rare_columns(views, odd, nearest),
            nearest: nearest.map(|(line, hosts)| (Subject::Line(line), hosts)),
            bits: odd.bits,
            group: odd.here.group,
            place: Some(place),
            hosts_with_row: match (is_new, is_other_content) {
                (true, _) => thing.members.len(),
                (_, true) => with_content,
                // Thing and content are common: it is a state of it that is not.
                _ => odd.here.hosts.min(with_content),
            },
            hosts_answered: answered,
            hosts_with_thing: thing.members.len(),
            id: if is_new { line.loose } else { line.strict },
            strict: Some(line.strict),
            ..Candidate::new(
                Method::Frequency,
                if is_new { FindingKind::New } else { FindingKind::Variant },
                odd.here.host,
                Subject::Line(odd.here.line),
            )
        }
    }

    /// The hosts that have what the candidate is about.
    fn hosts(&self, candidate: &Candidate) -> &Members {
        match candidate.kind {
            FindingKind::New => &self.loose[&candidate.id].members,
            _ => &self.strict[&candidate.id],
        }
    }

    /// The most common row of a thing, when its content is another one.
    fn usual_content(&self, thing: &Thing, strict: Id) -> Option<(usize, u64)> {
        Some(thing.usual).filter(|(usual, _)| self.lines.lines[*usual].strict != strict)
    }

    /// The columns that make the row stand out.
    fn rare_columns(&self, views: &[View], odd: &Odd, nearest: Option<(usize, u64)>) -> Vec<String> {
        let view = &views[odd.target];
        match (&view.column, nearest) {
            (Some(column), _) => vec![column.clone()],
            (None, Some((nearest, _))) if view.shows == Shows::Strict => {
                self.differing(odd.here.line, nearest)
            }
            _ => Vec::new(),
        }
    }

    fn differing(&self, line: usize, other: usize) -> Vec<String> {
        let strict = self.lines.spec.identity(Strength::Strict).map(|column| column.name.clone());
        strict.filter(|name| self.lines.text(line, name) != self.lines.text(other, name)).collect()
    }
}

impl Thing {
    /// The thing that a line is of.
    fn of(lines: &Lines, line: usize) -> Self {
        let thing = lines.thing_of(line);
        let contents = lines.strict(&thing).map(|content| (content.lines.last(), content.members.len()));
        let usual = contents.max_by_key(|(_, hosts)| *hosts).unwrap_or((line, 0));
        Self { usual, members: thing.members }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Fleet;
    use super::*;

    fn found(fleet: &Fleet, table: &str) -> Vec<Candidate> {
        let loaded = fleet.loaded();
        let table = loaded.iter().find(|loaded| loaded.name() == table).unwrap();
        let views = views::views(table);
        let mut found =
            candidates(table, &views, (&PeerGroups::default(), &Explanations::new(&loaded)), &HashMap::new());
        found.retain(|candidate| candidate.bits > 0.1);
        found
    }

    #[test]
    fn rare_as_a_thing_is_new_and_common_with_rare_content_a_variant() {
        let mut fleet = Fleet::new(40, |host| format!("web-{host}"));
        for name in ["sshd", "cron", "nginx"] {
            let usual = (0..40).filter(|host| *host != 3 || name != "sshd");
            fleet.row("hash", &format!("path=/usr/sbin/{name}|sha256={}", "ab".repeat(32)), usual);
        }
        fleet.row("hash", &format!("path=/usr/sbin/sshd|sha256={}", "cd".repeat(32)), [3]);
        fleet.row("hash", &format!("path=/usr/sbin/evil|sha256={}", "ab".repeat(32)), [4]);
        let kinds: Vec<_> =
            found(&fleet, "hash").iter().map(|candidate| (candidate.host, candidate.kind)).collect();
        assert_eq!(kinds, [(3, FindingKind::Variant), (4, FindingKind::New)]);
    }

    #[test]
    fn what_came_with_a_kernel_is_worth_less() {
        let bits = |explained: bool| {
            let mut fleet = Fleet::new(40, |host| format!("web-{host}"));
            fleet.row("kernel_modules", "name=ext4|size=100", 2..40);
            fleet.row("kernel_modules", "name=ext4|size=200", 0..2);
            fleet.row("kernel_info", "version=6.1.0-50", 2..40);
            fleet.row("kernel_info", if explained { "version=6.1.0-99" } else { "version=6.1.0-50" }, 0..2);
            found(&fleet, "kernel_modules").iter().map(|candidate| candidate.bits).fold(0.0, f64::max)
        };
        assert!(bits(true) < bits(false) / 2.0, "{} {}", bits(true), bits(false));
        assert!(bits(true) > 0.0);
    }
}
