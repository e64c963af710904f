//! Rows that arrive together are counted once: a new user brings a group, a home, a key; a listener brings a process,
//! a port, a file and its hash. Findings of one host that share a telling value have one cause.

use std::collections::HashMap;

use serde_json::Value;

use super::candidate::Candidate;
use crate::model::{Finding, FindingKind};

/// Shorter values are shared by chance.
const SHORTEST: usize = 4;

/// The values that tell what a finding is about: those that are rare; of a row that is itself known, the path of the
/// thing that changed.
pub(super) fn telling_values(candidate: &Candidate, finding: &Finding) -> Vec<String> {
    let is_known =
        matches!(candidate.kind, FindingKind::Variant | FindingKind::Changed | FindingKind::Missing);
    let tells = |name: &str, value: &str| {
        candidate.rare_columns.iter().any(|column| column == name) || (is_known && value.starts_with('/'))
    };
    let texts = finding.row.iter().filter_map(|(name, value)| Some((name, text(value)?)));
    texts.filter(|(name, value)| tells(name, value)).map(|(_, value)| value.to_owned()).collect()
}

fn text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| text.len() >= SHORTEST)
}

/// The best score of each cause. Findings come with their telling values, the strongest first.
pub(super) fn best_of_causes(findings: &[(Finding, Vec<String>)]) -> Vec<f64> {
    let mut causes = Causes { parents: (0..findings.len()).collect() };
    let mut first_with: HashMap<&str, usize> = HashMap::new();
    for (number, (finding, telling)) in findings.iter().enumerate() {
        // A table's rows of one kind weigh as its best one: a hundred odd files are one odd thing.
        let of_table = (finding.table.as_str(), finding.kind);
        let same_table =
            findings.iter().position(|(other, _)| (other.table.as_str(), other.kind) == of_table);
        causes.join(number, same_table.unwrap_or(number));
        for value in telling {
            let first = *first_with.entry(value).or_insert(number);
            causes.join(number, first);
        }
    }
    let mut best: HashMap<usize, f64> = HashMap::new();
    for (number, (finding, _)) in findings.iter().enumerate() {
        let score = best.entry(causes.root(number)).or_default();
        *score = score.max(finding.score);
    }
    best.into_values().collect()
}

/// Disjoint sets of findings.
struct Causes {
    parents: Vec<usize>,
}

impl Causes {
    fn root(&self, mut of: usize) -> usize {
        while self.parents[of] != of {
            of = self.parents[of];
        }
        of
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.parents[a.max(b)] = a.min(b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(table: &str, score: f64, telling: &[&str]) -> (Finding, Vec<String>) {
        let finding = Finding {
            id: String::new(),
            table: table.to_owned(),
            kind: FindingKind::New,
            score,
            row: crate::model::Row::new(),
            hosts_with_row: 1,
            hosts_answered: 60,
            first_seen: None,
            nearest: None,
            given: None,
            attack: Vec::new(),
            reason: String::new(),
            method: String::new(),
            priors: Vec::new(),
            strict_id: None,
        };
        (finding, telling.iter().map(|value| (*value).to_owned()).collect())
    }

    fn check(findings: &[(Finding, Vec<String>)], mut expect: Vec<f64>) {
        let mut best = best_of_causes(findings);
        best.sort_by(f64::total_cmp);
        expect.sort_by(f64::total_cmp);
        assert_eq!(best, expect);
    }

    #[test]
    fn findings_that_share_a_telling_value_are_one_cause() {
        check(
            &[
                finding("users", 90.0, &["mallory"]),
                finding("groups", 70.0, &["mallory"]),
                finding("crontab", 60.0, &["/x"]),
            ],
            vec![90.0, 60.0],
        );
    }

    #[test]
    fn rows_of_one_table_and_kind_are_one_cause() {
        check(&[finding("file", 50.0, &["/a"]), finding("file", 40.0, &["/b"])], vec![50.0]);
    }

    #[test]
    fn causes_join_across_a_chain() {
        let chain = [
            finding("a", 3.0, &["one1"]),
            finding("b", 2.0, &["two2"]),
            finding("c", 1.0, &["one1", "two2"]),
        ];
        check(&chain, vec![3.0]);
    }
}
