//! Findings as results.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_sarif::sarif::{
    ArtifactLocation, Location, LogicalLocation, PhysicalLocation, Region, Result as SarifResult,
    ResultLevel, Suppression,
};

use super::super::pick::left_out;
use super::rules::Rules;
use super::{BASE, bag, of_host, text, value};
use crate::model::{Analysis, Finding, HostResult, SuppressedBy, Verdict};

/// The name of our fingerprint; its version changes when ids of findings do.
const FINGERPRINT: &str = "diffyFindingId/v1";
/// Everything but unreserved characters.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A result for each finding; for those that are left out too, where the analysis lists them.
pub(super) fn results(analysis: &Analysis, rules: &Rules<'_>) -> Vec<SarifResult> {
    let mut results = Vec::new();
    for (index, host) in analysis.hosts.iter().enumerate() {
        results.extend(host.findings.iter().map(|finding| result((index, host), finding, rules)));
    }
    for (index, finding, by) in left_out(analysis) {
        let mut result = result((index, &analysis.hosts[index]), finding, rules);
        result.suppressions = Some(vec![suppression(by)]);
        results.push(result);
    }
    results
}

fn result((index, host): (usize, &HostResult), finding: &Finding, rules: &Rules<'_>) -> SarifResult {
    let mut result = SarifResult::builder()
        .rule_id(super::rules::rule_id(finding))
        .level(level(host.verdict))
        .message(text(&finding.reason))
        .locations(vec![location((index, host), finding)])
        .partial_fingerprints(BTreeMap::from([(FINGERPRINT.to_owned(), finding.id.clone())]))
        .rank(finding.score.clamp(0.0, 100.0))
        .taxa(rules.taxa_of(finding))
        .properties(bag([("finding", value(finding))]))
        .build();
    result.rule_index = rules.index_of(finding);
    result
}

fn level(verdict: Verdict) -> ResultLevel {
    match verdict {
        Verdict::Outlier => ResultLevel::Error,
        Verdict::Review => ResultLevel::Warning,
        Verdict::Normal | Verdict::NoPeers => ResultLevel::Note,
    }
}

/// `HOST/TABLE.json`, and in words the table of the host. Code scanning of GitHub asks for a line: it is the first.
fn location((index, host): (usize, &HostResult), finding: &Finding) -> Location {
    let file = ArtifactLocation {
        uri: Some(format!("{}/{}.json", segment(&host.host), segment(&finding.table))),
        uri_base_id: Some(BASE.to_owned()),
        ..Default::default()
    };
    let physical = PhysicalLocation {
        artifact_location: Some(file),
        region: Some(Region { start_line: Some(1), ..Default::default() }),
        ..Default::default()
    };
    let table = LogicalLocation {
        name: Some(finding.table.clone()),
        fully_qualified_name: Some(format!("{}/{}", host.host, finding.table)),
        kind: Some("table".to_owned()),
        ..Default::default()
    };
    Location {
        physical_location: Some(physical),
        logical_locations: Some(vec![of_host(index, host), table]),
        ..Default::default()
    }
}

/// A name as one segment of a path: it is never empty, and `..` leads nowhere, not even for readers that decode it.
pub(super) fn segment(name: &str) -> String {
    match name {
        "" => "_".to_owned(),
        "." | ".." => name.replace('.', "%252E"),
        _ => utf8_percent_encode(name, ENCODED).to_string(),
    }
}

fn suppression(by: &SuppressedBy) -> Suppression {
    let until = by.until.map(|until| format!(", until {until}")).unwrap_or_default();
    Suppression::builder()
        .kind("external")
        .status("accepted")
        .justification(format!("{} ({}{until})", by.reason, by.who))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_one_segment() {
        for (name, expected) in [
            ("i-0a1b", "i-0a1b"),
            ("..", "%252E%252E"),
            ("../../etc", "..%2F..%2Fetc"),
            ("web 1\n", "web%201%0A"),
            ("javascript:alert(1)", "javascript%3Aalert%281%29"),
            ("", "_"),
        ] {
            assert_eq!(segment(name), expected);
        }
    }
}
