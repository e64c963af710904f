//! The peer groups as discs of dots, and off their rims the hosts that stand out, the farther the more suspicious.

use std::f64::consts::PI;

use super::super::escape::{cut_end, escape};
use super::view::{group_name, verdict_name, verdict_sign};
use crate::model::{Analysis, HostResult, Verdict, count};

/// Size of the drawing, in its own units.
pub(super) const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 420.0;
/// Groups with a disc of their own; the hosts of others share one.
const MOST_GROUPS: usize = 15;
/// Room around a disc for what stands off it: at score 0 and at score 100, and for the label below it.
const NEAREST: f64 = 12.0;
const FARTHEST: f64 = 58.0;
const LABEL: f64 = 38.0;
/// Dots: largest and smallest distance, and the angle between one and the next that fills a disc evenly.
const WIDEST: f64 = 15.0;
const TIGHTEST: f64 = 0.4;
const GOLDEN_ANGLE: f64 = PI * (3.0 - 2.236_067_977_499_79);
/// Hosts that stand off and are drawn one by one, to be clicked; others are dots.
const MOST_MARKS: usize = 300;
/// Half the room that a group has for its label at least, the width of a letter, and room above all.
const HALF_LABEL: f64 = 62.0;
const LETTER: f64 = 6.6;
const ABOVE: f64 = 12.0;

/// The drawing.
#[derive(Debug, Default)]
pub(super) struct PeerMap {
    pub(super) height: u64,
    pub(super) discs: Vec<Disc>,
    pub(super) marks: Vec<Mark>,
    /// Hosts beyond [`MOST_MARKS`], as points of a path.
    pub(super) further: String,
    /// Where each host is, by rank, in tenths of a unit.
    pub(super) places: Vec<(i64, i64)>,
}

/// A peer group.
#[derive(Debug, Clone)]
pub(super) struct Disc {
    pub(super) id: Option<u32>,
    pub(super) x: String,
    pub(super) y: String,
    pub(super) radius: String,
    /// Where its label stands.
    pub(super) label_y: String,
    pub(super) size: String,
    pub(super) label: String,
    /// All of the label.
    pub(super) title: String,
    /// The quiet hosts, as points of a path.
    pub(super) dots: String,
    /// The hosts that were not judged.
    pub(super) unknown: String,
    /// Width of a dot.
    pub(super) dot: String,
}

/// A host that stands off.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    pub(super) rank: u64,
    pub(super) x: String,
    pub(super) y: String,
    /// Where the line from its group begins.
    pub(super) from: (String, String),
    pub(super) verdict: Verdict,
    pub(super) title: String,
}

impl Mark {
    pub(super) fn sign(&self) -> &'static str {
        verdict_sign(self.verdict)
    }

    pub(super) fn class(&self) -> &'static str {
        self.verdict.as_str()
    }
}

/// The hosts of one disc, by their place in the ranking.
struct Group<'a> {
    id: Option<u32>,
    label: String,
    quiet: Vec<(usize, &'a HostResult)>,
    off: Vec<(usize, &'a HostResult)>,
}

impl PeerMap {
    pub(super) fn new(analysis: &Analysis) -> Self {
        let groups = groups(analysis);
        let spacing = spacing(&groups);
        let (spots, height) = shelves(&groups, spacing);
        let mut map = Self { height: height.ceil() as u64, ..Self::default() };
        map.places = vec![(0, 0); analysis.hosts.len()];
        for (group, spot) in groups.iter().zip(spots) {
            map.draw(group, spot, spacing);
        }
        map.marks.sort_by_key(|mark| mark.rank);
        map
    }

    fn draw(&mut self, group: &Group<'_>, Spot { x, y, half }: Spot, spacing: f64) {
        let radius = radius(group.quiet.len(), spacing);
        let (mut dots, mut unknown) = (String::new(), String::new());
        for (number, (at, host)) in group.quiet.iter().enumerate() {
            let number = number as f64;
            let place = around((x, y), spacing * (number + 0.5).sqrt(), number * GOLDEN_ANGLE);
            self.place(*at, place);
            // Who could not be judged is not cleared.
            let path = if host.verdict == Verdict::NoPeers { &mut unknown } else { &mut dots };
            path.push_str(&point(place));
        }
        let step = 2.0 * PI / group.off.len().max(1) as f64;
        for (number, (at, host)) in group.off.iter().enumerate() {
            // Neighbours in rank stand apart from each other; two rings when it is crowded come by their scores.
            let angle = -PI / 3.0 + number as f64 * if group.off.len() > 12 { GOLDEN_ANGLE } else { step };
            let off = NEAREST + (FARTHEST - NEAREST) * (host.score / 100.0).clamp(0.0, 1.0);
            let place = around((x, y), radius + off, angle);
            self.place(*at, place);
            self.mark(host, (around((x, y), radius + 3.0, angle), place));
        }
        let hosts = group.quiet.len() + group.off.len();
        self.discs.push(Disc {
            id: group.id,
            x: number(x),
            y: number(y),
            radius: number(radius + 3.0),
            label_y: number(y + radius + if group.off.is_empty() { NEAREST } else { FARTHEST } + 16.0),
            size: count(hosts as u64, "host"),
            label: cut_end(&group.label, (2.0 * half / LETTER) as usize).into_owned(),
            title: format!("{}, {}", group.label, count(hosts as u64, "host")),
            dots,
            unknown,
            dot: number((spacing * 0.9).clamp(0.6, 8.0)),
        });
    }

    fn place(&mut self, at: usize, (x, y): (f64, f64)) {
        self.places[at] = ((x * 10.0).round() as i64, (y * 10.0).round() as i64);
    }

    fn mark(&mut self, host: &HostResult, (from, to): ((f64, f64), (f64, f64))) {
        if self.marks.len() >= MOST_MARKS {
            self.further.push_str(&point(to));
            return;
        }
        self.marks.push(Mark {
            rank: host.rank,
            x: number(to.0),
            y: number(to.1),
            from: (number(from.0), number(from.1)),
            verdict: host.verdict,
            title: format!("{}, {} {:.1}", escape(&host.host), verdict_name(host.verdict), host.score),
        });
    }
}

/// The groups of the hosts, the largest first; hosts without one stand apart.
fn groups(analysis: &Analysis) -> Vec<Group<'_>> {
    let own = analysis.peer_groups.iter().take(MOST_GROUPS);
    let mut groups: Vec<Group<'_>> =
        own.map(|group| Group::new(Some(group.id), group_name(analysis, group.id))).collect();
    let mut small = Group::new(None, "smaller groups".to_owned());
    let mut none = Group::new(None, "in no group".to_owned());
    for (at, host) in analysis.hosts.iter().enumerate() {
        let found = groups.iter().position(|group| group.id.is_some() && group.id == host.peer_group);
        let group = match (found, host.peer_group) {
            (Some(found), _) => &mut groups[found],
            (None, Some(_)) => &mut small,
            (None, None) => &mut none,
        };
        let side = if host.verdict.needs_look() { &mut group.off } else { &mut group.quiet };
        side.push((at, host));
    }
    groups.extend([small, none]);
    groups.retain(|group| !group.quiet.is_empty() || !group.off.is_empty());
    groups
}

impl Group<'_> {
    fn new(id: Option<u32>, label: String) -> Self {
        Self { id, label, quiet: Vec::new(), off: Vec::new() }
    }
}

/// Where a group is drawn, and half the width that is its own.
#[derive(Debug, Clone, Copy)]
struct Spot {
    x: f64,
    y: f64,
    half: f64,
}

fn radius(quiet: usize, spacing: f64) -> f64 {
    (spacing * (quiet as f64).sqrt()).max(6.0)
}

/// The widest spacing of dots with which all discs fit.
fn spacing(groups: &[Group<'_>]) -> f64 {
    let mut spacing = WIDEST;
    while spacing > TIGHTEST && !fits(groups, spacing) {
        spacing *= 0.95;
    }
    spacing
}

fn fits(groups: &[Group<'_>], spacing: f64) -> bool {
    let widest = groups.iter().map(|group| radius(group.quiet.len(), spacing)).fold(0.0, f64::max);
    2.0 * (widest + FARTHEST) <= WIDTH && shelves(groups, spacing).1 <= HEIGHT
}

/// Groups in rows: where each is, and the height of all.
fn shelves(groups: &[Group<'_>], spacing: f64) -> (Vec<Spot>, f64) {
    let mut rows: Vec<Vec<(f64, f64)>> = vec![Vec::new()];
    let mut used = 0.0;
    for group in groups {
        let reach =
            radius(group.quiet.len(), spacing) + if group.off.is_empty() { NEAREST } else { FARTHEST };
        let half = reach.max(HALF_LABEL);
        let last = rows.len() - 1;
        if used + 2.0 * half > WIDTH && !rows[last].is_empty() {
            rows.push(vec![(reach, half)]);
            used = 2.0 * half;
        } else {
            rows[last].push((reach, half));
            used += 2.0 * half;
        }
    }
    let (mut spots, mut top) = (Vec::new(), ABOVE);
    for row in rows {
        let gap = (WIDTH - row.iter().map(|(_, half)| 2.0 * half).sum::<f64>()) / row.len() as f64;
        let tallest = row.iter().map(|(reach, _)| *reach).fold(0.0, f64::max);
        let mut left = 0.0;
        for (_, half) in row {
            let half = half + gap / 2.0;
            spots.push(Spot { x: left + half, y: top + tallest, half });
            left += 2.0 * half;
        }
        top += 2.0 * tallest + LABEL;
    }
    (spots, top)
}

fn around((x, y): (f64, f64), distance: f64, angle: f64) -> (f64, f64) {
    (x + distance * angle.cos(), y + distance * angle.sin())
}

/// A line of no length with round ends is a dot.
fn point((x, y): (f64, f64)) -> String {
    format!("M{x:.1} {y:.1}h0")
}

fn number(value: f64) -> String {
    format!("{value:.1}")
}

#[cfg(test)]
mod tests {
    use super::super::super::analysis_table::tests::sample;
    use super::*;

    #[test]
    fn suspicious_hosts_stand_farther_off() {
        let map = PeerMap::new(&sample());
        assert_eq!(map.marks.len(), 3);
        assert_eq!(map.places.len(), 60);
        let disc = &map.discs[0];
        let far = |mark: &Mark| {
            let apart = |a: &str, b: &str| a.parse::<f64>().unwrap() - b.parse::<f64>().unwrap();
            apart(&mark.x, &disc.x).hypot(apart(&mark.y, &disc.y))
        };
        assert!(far(&map.marks[0]) > far(&map.marks[1]) && far(&map.marks[1]) > far(&map.marks[2]));
        assert!(far(&map.marks[2]) > disc.radius.parse::<f64>().unwrap());
    }

    #[test]
    fn many_groups_fit() {
        let mut analysis = sample();
        for (at, host) in analysis.hosts.iter_mut().enumerate() {
            host.peer_group = Some(u32::try_from(at).unwrap());
        }
        analysis.peer_groups = (0..60)
            .map(|id| crate::model::PeerGroup { id, hosts: 1, described_by: format!("image {id}") })
            .collect();
        let map = PeerMap::new(&analysis);
        assert_eq!(map.discs.len(), MOST_GROUPS + 1);
        assert!(map.places.iter().all(|(x, _)| (0..=(WIDTH * 10.0) as i64).contains(x)));
    }
}
