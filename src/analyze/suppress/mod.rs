//! Suppressions: findings that a person vouches for are left out of the ranking, and counted.
//!
//! What a suppression leaves out is told by count and reason. One that has expired, or that takes findings from more
//! than half of the hosts, does not apply, and a warning says so: in doubt a finding is shown.

mod file;
mod pattern;
mod rule;

use std::collections::{BTreeSet, HashMap};

use chrono::NaiveDate;

pub use self::file::{NewSuppression, parse_date};
use self::rule::{Rule, Tables};
use crate::catalog::{Role, TableSpec};
use crate::error::Result;
use crate::model::{Analysis, Finding, FindingKind, HostResult, Suppressed, SuppressedBy, SuppressedFinding};

/// Hosts that a suppression may take findings from, however small the fleet is.
const FEW_HOSTS: usize = 2;

/// Everything that people vouch for.
#[derive(Debug, Clone, Default)]
pub struct Suppressions {
    rules: Vec<Rule>,
}

impl Suppressions {
    /// Reads a file of suppressions; `name` is what errors and warnings call it.
    ///
    /// # Errors
    /// It is no such file; the line and the key are named.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        Ok(Self { rules: file::parse(text, name)? })
    }

    /// Adds those of another file.
    pub fn extend(&mut self, other: Self) {
        self.rules.extend(other.rules);
    }
}

impl Suppressions {
    /// How many hosts of an analysis these would take findings from, whenever they expire.
    pub fn hosts_taken(&self, analysis: &Analysis) -> usize {
        let takes = |host: &&HostResult| {
            let taken = |finding| self.rules.iter().any(|rule| rule.takes(&host.host, finding));
            host.findings.iter().any(taken)
        };
        analysis.hosts.iter().filter(takes).count()
    }
}

/// Whether a suppression that takes findings from so many of the hosts is refused.
pub fn is_too_wide(on: usize, hosts: usize) -> bool {
    on > FEW_HOSTS && on * 2 > hosts
}

/// Findings without those that somebody vouches for.
#[derive(Debug)]
pub(super) struct Applied<T> {
    /// What is left, in the order in which it came.
    pub(super) kept: Vec<T>,
    /// What is not.
    pub(super) suppressed: Suppressed,
    /// What a reader must know: suppressions that do not apply although they would take findings.
    pub(super) warnings: Vec<String>,
}

impl Suppressions {
    /// Leaves out what somebody vouches for. `of` says the finding of an item and the ordinal of its host in `hosts`,
    /// which are all of the snapshot; suppressions hold up to and on the day of their `until`.
    pub(super) fn apply<T>(
        &self,
        items: Vec<T>,
        of: impl Fn(&T) -> (u32, &Finding),
        (hosts, today): (&[String], NaiveDate),
    ) -> Applied<T> {
        let of_table = by_table(&items, &of);
        let taken: Vec<Vec<usize>> =
            self.rules.iter().map(|rule| takes(rule, (&items, &of_table), (&of, hosts))).collect();
        let mut warnings = Vec::new();
        let mut takers: Vec<Option<usize>> = vec![None; items.len()];
        for (number, (rule, taken)) in self.rules.iter().zip(&taken).enumerate() {
            let on: BTreeSet<u32> = taken.iter().map(|item| of(&items[*item]).0).collect();
            match refusal(rule, taken.len(), (on.len(), hosts.len()), today) {
                Some(warning) => warnings.push(warning),
                None => taken.iter().for_each(|item| {
                    takers[*item].get_or_insert(number);
                }),
            }
        }
        let suppressed = self.count(&items, (&of, hosts), &takers);
        let mut takers = takers.into_iter();
        let kept = items.into_iter().filter(|_| takers.next().flatten().is_none()).collect();
        Applied { kept, suppressed, warnings }
    }

    fn count<T>(
        &self,
        items: &[T],
        (of, hosts): (&impl Fn(&T) -> (u32, &Finding), &[String]),
        takers: &[Option<usize>],
    ) -> Suppressed {
        let mut of_rule: HashMap<usize, u64> = HashMap::new();
        takers.iter().flatten().for_each(|rule| *of_rule.entry(*rule).or_default() += 1);
        let mut counts: Vec<(usize, u64)> = of_rule.into_iter().collect();
        counts.sort_by_key(|(rule, count)| (u64::MAX - count, *rule));
        let gone = || items.iter().zip(takers).filter_map(|(item, taker)| Some((of(item), (*taker)?)));
        let by = |(rule, count): &(usize, u64)| {
            let rule = &self.rules[*rule];
            SuppressedBy {
                reason: rule.reason.clone(),
                who: rule.who.clone(),
                until: rule.until,
                count: *count,
            }
        };
        let list = gone().map(|((host, finding), taker)| SuppressedFinding {
            host: name(hosts, host).to_owned(),
            by: counts.iter().position(|(rule, _)| *rule == taker).unwrap_or_default(),
            finding: finding.clone(),
        });
        Suppressed {
            findings: gone().count() as u64,
            hosts: gone().map(|((host, _), _)| host).collect::<BTreeSet<_>>().len() as u64,
            by: counts.iter().map(by).collect(),
            list: list.collect(),
        }
    }
}

/// Notes on each host how many of its findings are left out.
pub(super) fn count_on_hosts(hosts: &mut [HostResult], suppressed: &Suppressed) {
    let mut counts: HashMap<&str, u64> = HashMap::new();
    suppressed.list.iter().for_each(|gone| *counts.entry(&gone.host).or_default() += 1);
    for host in hosts {
        host.suppressed = counts.get(host.host.as_str()).copied().unwrap_or_default();
    }
}

/// Numbers of the items of each table.
type OfTable = HashMap<String, Vec<usize>>;

fn by_table<T>(items: &[T], of: &impl Fn(&T) -> (u32, &Finding)) -> OfTable {
    let mut of_table = OfTable::new();
    for (number, item) in items.iter().enumerate() {
        of_table.entry(of(item).1.table.clone()).or_default().push(number);
    }
    of_table
}

fn name(hosts: &[String], ordinal: u32) -> &str {
    hosts.get(ordinal as usize).map_or("", String::as_str)
}

/// The items that a suppression takes, by number.
fn takes<T>(
    rule: &Rule,
    (items, of_table): (&[T], &OfTable),
    (of, hosts): (&impl Fn(&T) -> (u32, &Finding), &[String]),
) -> Vec<usize> {
    let fits = |number: &usize| {
        let (host, finding) = of(&items[*number]);
        rule.takes(name(hosts, host), finding)
    };
    match &rule.tables {
        Tables::These(names) => {
            let names: BTreeSet<&String> = names.iter().collect();
            let numbers = names.into_iter().filter_map(|name| of_table.get(name)).flatten();
            numbers.copied().filter(fits).collect()
        }
        Tables::All | Tables::Unsaid => (0..items.len()).filter(fits).collect(),
    }
}

/// Why a suppression does not apply, if it does not although it would take findings.
fn refusal(rule: &Rule, findings: usize, (on, hosts): (usize, usize), today: NaiveDate) -> Option<String> {
    let (place, reason) = (&rule.place, &rule.reason);
    let found = if findings == 1 { "1 finding" } else { &format!("{findings} findings") };
    if findings == 0 {
        tracing::info!(place, reason, "suppression took nothing");
        return None;
    }
    if rule.is_expired(today) {
        let until = rule.until.map(|until| until.to_string()).unwrap_or_default();
        return Some(format!("{place}: suppression expired on {until}, {found} back: {reason}"));
    }
    is_too_wide(on, hosts).then(|| {
        format!(
            "{place}: suppression not applied, it takes {found} from {on} of {hosts} hosts, more than half; say more \
             in `columns`, or make a baseline: {reason}"
        )
    })
}

/// The columns by which a suppression of this finding knows it again, with their values: what makes its row the same
/// thing with the same content, and what was unusual beside that.
pub fn identifying_columns(spec: Option<&TableSpec>, finding: &Finding) -> Vec<(String, String)> {
    if finding.kind == FindingKind::Coverage {
        // Texts of errors change; which tables and how is what somebody vouches for.
        let named =
            ["tables", "status"].map(|name| (name.to_owned(), rule::value(&finding.row, name).into_owned()));
        return named.into();
    }
    let mut names: Vec<String> = match spec {
        Some(spec) => {
            let identity = spec.columns.iter().filter(|column| column.role == Role::Identity);
            identity.map(|column| column.name.clone()).collect()
        }
        None => finding.row.keys().cloned().collect(),
    };
    let unusual = finding.given.iter().flat_map(|given| given.context.keys().chain([&given.column]));
    for name in unusual.filter(|name| finding.row.contains_key(*name)) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    let with_value = |name: String| {
        let value = rule::value(&finding.row, &name).into_owned();
        (name, value)
    };
    names.into_iter().map(with_value).collect()
}

#[cfg(test)]
mod tests;
