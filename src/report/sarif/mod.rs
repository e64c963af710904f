//! An analysis as SARIF 2.1.0: one run, a rule for each table and kind of finding, a result for each finding.
//!
//! Nothing is lost: what SARIF has no word for stands in property bags, spelled as in our own JSON. The artifact of a
//! result is what the host answered for the table, `HOST/TABLE.json`, as `diffy import` reads it.

mod results;
mod rules;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use serde_sarif::sarif::{
    ArtifactLocation, Invocation, Location, LogicalLocation, Message, Notification, PropertyBag,
    ReportingDescriptor, ReportingDescriptorReference, Run, RunAutomationDetails, Sarif, Tool, ToolComponent,
};

use self::rules::Rules;
use super::escape::escape;
use super::pick::header;
use crate::model::{Analysis, HostResult, Suppressed};

/// The schema that we are held against.
const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";
/// What relative locations are relative to: nowhere in particular, a directory of hosts.
const BASE: &str = "FLEET";
/// What a run has to say beside results, and what that means.
const NOTIFICATIONS: [(&str, &str); 4] = [
    ("warning", "What to know before trusting the results."),
    ("host-silent", "A host that did not answer; nothing is known of it."),
    ("host-partial", "A host that did not answer all tables in full."),
    ("suppressed", "Findings that are left out because somebody vouches for them."),
];

/// The log.
pub(super) fn log(analysis: &Analysis) -> Sarif {
    let rules = Rules::of(analysis);
    let driver = ToolComponent::builder()
        .name("diffy")
        .full_name("Diffy, fleet triage for incident responders")
        .version(&analysis.diffy_version)
        .semantic_version(&analysis.diffy_version)
        .supported_taxonomies(rules.supported())
        .rules(rules.descriptors())
        .notifications(NOTIFICATIONS.map(|(id, says)| notice(id, says)).to_vec())
        .build();
    let invocation = Invocation::builder()
        .execution_successful(true)
        .tool_execution_notifications(notifications(analysis))
        .build();
    let base = ArtifactLocation {
        description: Some(text("A directory with HOST/TABLE.json")),
        ..Default::default()
    };
    let run = Run::builder()
        .tool(Tool::builder().driver(driver).build())
        .automation_details(automation(analysis))
        .invocations(vec![invocation])
        .original_uri_base_ids(BTreeMap::from([(BASE.to_owned(), base)]))
        .taxonomies(rules.taxonomies())
        .logical_locations(analysis.hosts.iter().map(host_location).collect::<Vec<_>>())
        .results(results::results(analysis, &rules))
        .properties(bag([("analysis", value(&without_hosts(analysis)))]))
        .build();
    Sarif::builder().schema(SCHEMA).version("2.1.0").runs(vec![run]).build()
}

fn notice(id: &str, says: &str) -> ReportingDescriptor {
    let short = serde_sarif::sarif::MultiformatMessageString::builder().text(says).build();
    ReportingDescriptor::builder().id(id).short_description(short).build()
}

/// `diffy/FLEET/SNAPSHOT`: runs of one fleet are of one category, and each snapshot is its own.
fn automation(analysis: &Analysis) -> RunAutomationDetails {
    let fleet = results::segment(analysis.fleet.as_str());
    RunAutomationDetails::builder().id(format!("diffy/{fleet}/{}", analysis.snapshot)).build()
}

/// The analysis but its hosts, which are logical locations, and what is suppressed, which are results.
fn without_hosts(analysis: &Analysis) -> Analysis {
    let suppressed = Suppressed { list: Vec::new(), ..analysis.suppressed.clone() };
    Analysis { campaigns: analysis.campaigns.clone(), suppressed, ..header(analysis) }
}

fn host_location(host: &HostResult) -> LogicalLocation {
    let mut said = value(&HostResult { findings: Vec::new(), ..host.clone() });
    if let Value::Object(fields) = &mut said {
        fields.retain(|name, _| !["host", "findings"].contains(&name.as_str()));
    }
    LogicalLocation {
        name: Some(host.host.clone()),
        fully_qualified_name: Some(host.host.clone()),
        kind: Some("host".to_owned()),
        properties: Some(bag([("host", said)])),
        ..Default::default()
    }
}

fn notifications(analysis: &Analysis) -> Vec<Notification> {
    let mut all: Vec<Notification> =
        analysis.warnings.iter().map(|warning| notification("warning", "warning", warning)).collect();
    for (index, host) in analysis.hosts.iter().enumerate().filter(|(_, host)| host.coverage.failed > 0) {
        let (ok, failed) = (host.coverage.ok, host.coverage.failed);
        let mut said = match host.coverage.is_silent() {
            true => notification("host-silent", "warning", &format!("{} did not answer", host.host)),
            false => {
                let answered = format!("{} answered {ok} of {} tables in full", host.host, ok + failed);
                notification("host-partial", "note", &answered)
            }
        };
        let location = Location { logical_locations: Some(vec![of_host(index, host)]), ..Default::default() };
        said.locations = Some(vec![location]);
        all.push(said);
    }
    let left_out = analysis.suppressed.findings;
    if left_out > 0 {
        let said = format!("{left_out} findings on {} hosts are suppressed", analysis.suppressed.hosts);
        all.push(notification("suppressed", "note", &said));
    }
    all
}

fn notification(id: &str, level: &str, said: &str) -> Notification {
    let index = NOTIFICATIONS.iter().position(|(known, _)| *known == id).unwrap_or_default();
    let descriptor = ReportingDescriptorReference::builder().id(id).index(index as i64).build();
    Notification::builder().descriptor(descriptor).level(level).message(text(said)).build()
}

/// Refers to the host's entry in the run.
fn of_host(index: usize, host: &HostResult) -> LogicalLocation {
    LogicalLocation {
        index: Some(index as i64),
        fully_qualified_name: Some(host.host.clone()),
        ..Default::default()
    }
}

/// A message without placeholders (braces are doubled, section 3.11.5) and links (3.11.6: a blank stands in them, for a
/// backslash can be taken for one of the value's); what would show as something else is escaped.
fn text(said: &str) -> Message {
    let safe = escape(said).replace('{', "{{").replace('}', "}}").replace("](", "] (");
    Message { text: Some(safe), ..Default::default() }
}

fn bag<const N: usize>(values: [(&str, Value); N]) -> PropertyBag {
    let additional_properties = values.map(|(name, value)| (name.to_owned(), value)).into();
    PropertyBag { additional_properties, ..Default::default() }
}

/// Plain data with text keys always has a JSON value.
fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::analysis_table::tests::sample;
    use super::*;

    /// The analysis that a log is of.
    fn read_back(log: &Value) -> Value {
        let run = &log["runs"][0];
        let mut analysis = run["properties"]["analysis"].clone();
        let mut hosts: Vec<Value> = Vec::new();
        for location in run["logicalLocations"].as_array().unwrap() {
            let mut host = location["properties"]["host"].clone();
            host["host"] = location["name"].clone();
            host["findings"] = json!([]);
            hosts.push(host);
        }
        for result in run["results"].as_array().unwrap() {
            let host = result["locations"][0]["logicalLocations"][0]["index"].as_u64().unwrap() as usize;
            hosts[host]["findings"].as_array_mut().unwrap().push(result["properties"]["finding"].clone());
        }
        analysis["hosts"] = Value::Array(hosts);
        analysis
    }

    #[test]
    fn nothing_is_lost() {
        let log = value(&log(&sample()));
        let back: Analysis = serde_json::from_value(read_back(&log)).unwrap();
        assert_eq!(back, sample());
    }

    #[test]
    fn levels_follow_the_verdict_and_notifications_the_coverage() {
        let log = value(&log(&sample()));
        let run = &log["runs"][0];
        let levels: Vec<&str> = run["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|result| result["level"].as_str().unwrap())
            .collect();
        assert_eq!(levels, ["error", "error", "error", "warning", "warning"]);
        let said: Vec<&str> = run["invocations"][0]["toolExecutionNotifications"]
            .as_array()
            .unwrap()
            .iter()
            .map(|said| said["message"]["text"].as_str().unwrap())
            .collect();
        assert_eq!(
            said,
            [
                "baseline golden has no table kernel_modules",
                "i-0a1b2c3d4e5f60718 answered 27 of 28 tables in full",
                "i-00000000000000008 answered 25 of 28 tables in full",
                "i-silent did not answer"
            ]
        );
    }

    #[test]
    fn messages_have_no_placeholders_and_no_links() {
        assert_eq!(
            text("{0} [click](https://evil.example) \u{202e}").text.unwrap(),
            "{{0}} [click] (https://evil.example) \\u{{202e}}"
        );
        for hostile in [r"[a\](https://evil.example)", r"[a\\](https://evil.example)"] {
            assert!(!text(hostile).text.unwrap().contains("]("), "{hostile}");
        }
    }
}
