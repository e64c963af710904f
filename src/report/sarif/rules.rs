//! Rules: one for each table and kind of finding that the analysis has, with the ATT&CK techniques that they are about.

use std::collections::{BTreeMap, BTreeSet};

use serde_sarif::sarif::{
    MultiformatMessageString, ReportingDescriptor, ReportingDescriptorReference,
    ReportingDescriptorRelationship, ToolComponent, ToolComponentReference,
};

use super::super::full::attack_url;
use crate::model::{Analysis, Finding, FindingKind};

const TAXONOMY: &str = "MITRE ATT&CK";

/// What the results of a log refer to by index.
pub(super) struct Rules<'a> {
    /// By table and kind: the techniques of their findings.
    rules: BTreeMap<(&'a str, FindingKind), BTreeSet<&'a str>>,
    /// All techniques, sorted.
    techniques: Vec<&'a str>,
}

/// `crontab/new`.
pub(super) fn rule_id(finding: &Finding) -> String {
    format!("{}/{}", finding.table, finding.kind)
}

impl<'a> Rules<'a> {
    pub(super) fn of(analysis: &'a Analysis) -> Self {
        let mut rules: BTreeMap<(&str, FindingKind), BTreeSet<&str>> = BTreeMap::new();
        let gone = analysis.suppressed.list.iter().map(|gone| &gone.finding);
        for finding in analysis.hosts.iter().flat_map(|host| &host.findings).chain(gone) {
            let techniques = rules.entry((&finding.table, finding.kind)).or_default();
            techniques.extend(finding.attack.iter().map(String::as_str));
        }
        let techniques: BTreeSet<&str> = rules.values().flatten().copied().collect();
        Self { rules, techniques: techniques.into_iter().collect() }
    }

    /// The place of the rule of a finding.
    pub(super) fn index_of(&self, finding: &Finding) -> Option<i64> {
        let place = self.rules.keys().position(|key| *key == (finding.table.as_str(), finding.kind));
        place.map(|place| place as i64)
    }

    pub(super) fn descriptors(&self) -> Vec<ReportingDescriptor> {
        self.rules.iter().map(|(rule, techniques)| self.descriptor(*rule, techniques)).collect()
    }

    fn descriptor(
        &self,
        (table, kind): (&str, FindingKind),
        techniques: &BTreeSet<&str>,
    ) -> ReportingDescriptor {
        let relevant = |technique: &&str| {
            ReportingDescriptorRelationship::builder()
                .target(self.taxon(technique))
                .kinds(vec!["relevant".to_owned()])
                .build()
        };
        let mut rule = ReportingDescriptor::builder()
            .id(format!("{table}/{kind}"))
            .name(name(table, kind))
            .short_description(said(&format!("{} ({table})", short(kind))))
            .full_description(said(long(kind)))
            .relationships(techniques.iter().map(relevant).collect::<Vec<_>>())
            .build();
        rule.help_uri = techniques.iter().find_map(|technique| attack_url(technique));
        rule
    }

    /// Which techniques a finding is about.
    pub(super) fn taxa_of(&self, finding: &Finding) -> Vec<ReportingDescriptorReference> {
        finding.attack.iter().map(|technique| self.taxon(technique)).collect()
    }

    fn taxon(&self, technique: &str) -> ReportingDescriptorReference {
        let index = self.techniques.iter().position(|known| *known == technique).unwrap_or_default();
        let component = ToolComponentReference::builder().name(TAXONOMY).index(0).build();
        ReportingDescriptorReference::builder()
            .id(technique)
            .index(index as i64)
            .tool_component(component)
            .build()
    }

    pub(super) fn taxonomies(&self) -> Vec<ToolComponent> {
        let taxon = |technique: &&str| {
            let mut taxon = ReportingDescriptor::builder().id(*technique).build();
            taxon.help_uri = attack_url(technique);
            taxon
        };
        let attack = ToolComponent::builder()
            .name(TAXONOMY)
            .organization("MITRE")
            .information_uri("https://attack.mitre.org/")
            .short_description(said("Techniques of adversaries."))
            .is_comprehensive(false)
            .taxa(self.techniques.iter().map(taxon).collect::<Vec<_>>())
            .build();
        if self.techniques.is_empty() { Vec::new() } else { vec![attack] }
    }

    pub(super) fn supported(&self) -> Vec<ToolComponentReference> {
        let attack = ToolComponentReference::builder().name(TAXONOMY).index(0).build();
        if self.techniques.is_empty() { Vec::new() } else { vec![attack] }
    }
}

fn said(text: &str) -> MultiformatMessageString {
    MultiformatMessageString::builder().text(text).build()
}

/// `KernelModulesNew`: the name of a rule is Pascal case by the specification.
fn name(table: &str, kind: FindingKind) -> String {
    let words = table.split('_').chain([kind.as_str()]);
    let upper = words.filter_map(|word| {
        let first = word.chars().next()?;
        Some(first.to_uppercase().chain(word.chars().skip(1)).collect::<String>())
    });
    upper.collect()
}

fn short(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::New => "A row that hardly any other host has",
        FindingKind::Variant => "A thing with other content than on the other hosts",
        FindingKind::Missing => "A row that nearly all other hosts have and this one has not",
        FindingKind::Changed => "Not what the baseline or the past of the host says",
        FindingKind::Coverage => "A host that did not answer what its peers answer",
    }
}

fn long(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::New => {
            "The host shows something that hardly any other host of the fleet shows in that place."
        }
        FindingKind::Variant => {
            "The other hosts have this thing too, but with other content: the file of a known name at another path or \
             with another digest, for instance."
        }
        FindingKind::Missing => "The host answered in full and lacks what nearly all comparable hosts have.",
        FindingKind::Changed => "The thing is known, and its content is not the one that was known.",
        FindingKind::Coverage => "What a host does not answer cannot be compared; others answered.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_pascal_case() {
        assert_eq!(name("kernel_modules", FindingKind::New), "KernelModulesNew");
    }
}
