//! One fleet in words: where the victims are, and what stands above them.

use std::collections::HashMap;
use std::fmt::Write;

use diffy::catalog::Catalog;
use diffy::model::{Analysis, Finding, HostResult};

use crate::measure::cause;
use crate::truth::{Trace, Truth, cell};

/// Findings of a clean host that are shown.
const SHOWN: usize = 3;
/// From this score on a host is to be reviewed.
const REVIEW: f64 = 50.0;
/// Clean hosts that are shown.
const MOST_CLEAN: usize = 40;

/// What there is to say about an analysis.
pub(crate) fn explain(title: &str, analysis: &Analysis, (truth, catalog): (&Truth, &Catalog)) -> String {
    let mut out = format!("== {title}\n");
    let victims = analysis.hosts.iter().filter(|host| truth.is_victim(&host.host));
    for host in victims.clone() {
        victim(&mut out, host, (truth, catalog));
    }
    let last = victims.map(|host| host.rank).max().unwrap_or_default();
    let above = |host: &&HostResult| host.rank < last && !truth.is_victim(&host.host);
    let clean: Vec<&HostResult> = analysis.hosts.iter().filter(above).collect();
    let _ = writeln!(out, "-- {} clean hosts above the last victim", clean.len());
    for host in clean.iter().take(MOST_CLEAN) {
        clean_host(&mut out, host, (truth, catalog));
    }
    let _ = writeln!(out, "{}", groups(analysis, truth));
    for (place, campaign) in analysis.campaigns.iter().enumerate().take(SHOWN) {
        let (hosts, score) = (campaign.hosts.len(), campaign.score);
        let victims = campaign.hosts.iter().filter(|host| truth.is_victim(host)).count();
        let _ = writeln!(
            out,
            "-- campaign {} of {score:.0}: {hosts} hosts, {victims} victims: {}",
            place + 1,
            campaign.reason
        );
    }
    out
}

/// How well peer groups are the roles, and the clean hosts that are to be looked at.
fn groups(analysis: &Analysis, truth: &Truth) -> String {
    let role = |host: &str| truth.facts.get(host).and_then(|facts| facts.get("role")).cloned();
    let of = |host: &HostResult| Some((role(&host.host)?, host.peer_group?));
    let pairs: Vec<(String, u32)> = analysis.hosts.iter().filter_map(of).collect();
    let raised = |host: &&HostResult| !truth.is_victim(&host.host) && host.score >= REVIEW;
    let sizes: Vec<u64> = analysis.peer_groups.iter().map(|group| group.hosts).collect();
    format!(
        "-- peer groups {sizes:?}, adjusted Rand index {:.3} of {} hosts; {} clean hosts of {REVIEW} points and more",
        adjusted_rand(&pairs),
        pairs.len(),
        analysis.hosts.iter().filter(raised).count()
    )
}

/// Hubert and Arabie, Journal of Classification 2 (1985): 1 for the same partition, 0 for one by chance.
fn adjusted_rand(pairs: &[(String, u32)]) -> f64 {
    let of_two = |count: usize| (count * count.saturating_sub(1)) as f64 / 2.0;
    let (mut both, mut roles, mut groups) = (HashMap::new(), HashMap::new(), HashMap::new());
    for (role, group) in pairs {
        *both.entry((role, group)).or_insert(0) += 1;
        *roles.entry(role).or_insert(0) += 1;
        *groups.entry(group).or_insert(0) += 1;
    }
    let index: f64 = both.into_values().map(of_two).sum();
    let of_roles: f64 = roles.into_values().map(of_two).sum();
    let of_groups: f64 = groups.into_values().map(of_two).sum();
    let expected = of_roles * of_groups / of_two(pairs.len()).max(1.0);
    let most = (of_roles + of_groups) / 2.0;
    if most == expected { 1.0 } else { (index - expected) / (most - expected) }
}

fn head(host: &HostResult) -> String {
    format!("{:>4}  {:5.1} {:<8} {}", host.rank, host.score, host.verdict, host.host)
}

fn victim(out: &mut String, host: &HostResult, (truth, catalog): (&Truth, &Catalog)) {
    let planted = truth.compromised.get(&host.host).into_iter().flatten();
    let _ = writeln!(out, "{} VICTIM {}", head(host), facts(truth, &host.host));
    if let Some(first) = host.findings.first() {
        let _ = writeln!(out, "        first: {}", sentence(first));
    }
    for planted in planted {
        let subtle = if planted.subtle { ", subtle" } else { "" };
        let shows = |finding: &&Finding| planted.traces.iter().any(|trace| trace.shows_in(finding, catalog));
        let place = host.findings.iter().position(|finding| shows(&finding));
        let said = match place {
            Some(place) => format!("finding {}: {}", place + 1, sentence(&host.findings[place])),
            None => {
                format!("NOT LISTED: {}", planted.traces.iter().map(trace).collect::<Vec<_>>().join(" | "))
            }
        };
        let _ = writeln!(out, "        {}{subtle}: {said}", planted.scenario);
    }
}

fn clean_host(out: &mut String, host: &HostResult, (truth, catalog): (&Truth, &Catalog)) {
    let kinds: Vec<&str> =
        truth.oddities.get(&host.host).into_iter().flatten().map(|oddity| oddity.kind.as_str()).collect();
    let _ = writeln!(out, "{} {} oddities: {}", head(host), facts(truth, &host.host), kinds.join(", "));
    for finding in host.findings.iter().take(SHOWN) {
        let _ = writeln!(out, "        {}: {}", cause(host, finding, truth, catalog), sentence(finding));
    }
}

fn facts(truth: &Truth, host: &str) -> String {
    let facts = truth.facts.get(host).into_iter().flatten();
    let shown = facts.filter(|(name, value)| {
        let known =
            ["role", "own_kind", "canary", "color", "new", "kernel", "hardware"].contains(&name.as_str());
        known && !["", "false", "0"].contains(&value.as_str())
    });
    shown.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

fn sentence(finding: &Finding) -> String {
    let row = finding.row.iter().take(6).map(|(name, value)| format!("{name}={}", cell(Some(value))));
    let row = row.collect::<Vec<_>>().join(" ");
    format!("{:.1} {} {}: {} [{}]", finding.score, finding.table, finding.kind, finding.reason, short(&row))
}

fn trace(trace: &Trace) -> String {
    let row = trace.row.iter().map(|(name, value)| format!("{name}={value}"));
    let missing = if trace.missing { " missing" } else { "" };
    format!("{}{missing} {}", trace.table, short(&row.collect::<Vec<_>>().join(" ")))
}

fn short(text: &str) -> String {
    text.chars().take(160).collect()
}
