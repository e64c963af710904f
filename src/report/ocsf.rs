//! Findings as events of the Open Cybersecurity Schema Framework: class Detection Finding (2004).
//!
//! No crate has this class; it is small, and an integration test holds it against the schema of each release from
//! [`VERSION`] on.

use serde::Serialize;
use serde_json::Value;

use super::full::attack_url;
use super::pick::left_out;
use crate::model::{Analysis, Finding, Given, HostResult, Nearest, Row, SuppressedBy, Verdict};

/// The release of the schema. Later ones have all that is used here, with the same meaning.
const VERSION: &str = "1.3.0";

/// One event; `null` is left out, as the schema asks.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Event<'a> {
    activity_id: u32,
    activity_name: &'static str,
    category_uid: u32,
    category_name: &'static str,
    class_uid: u32,
    class_name: &'static str,
    type_uid: u32,
    type_name: &'static str,
    /// When the snapshot was collected, in milliseconds since 1970.
    time: i64,
    severity_id: u32,
    severity: &'static str,
    status_id: u32,
    status: &'static str,
    message: &'a str,
    risk_score: i64,
    metadata: Metadata<'a>,
    finding_info: FindingInfo<'a>,
    device: Device<'a>,
    resources: [Resource<'a>; 1],
    observables: [Observable<'a>; 1],
    evidences: [Evidence<'a>; 1],
    /// What the schema has no word for, by the names of our own JSON.
    unmapped: Unmapped<'a>,
}

#[derive(Debug, Clone, Serialize)]
struct Metadata<'a> {
    version: &'static str,
    profiles: [&'static str; 1],
    product: Product<'a>,
    /// The snapshot: what all events of an analysis share.
    correlation_uid: String,
    /// Table and kind.
    event_code: String,
}

#[derive(Debug, Clone, Serialize)]
struct Product<'a> {
    name: &'static str,
    vendor_name: &'static str,
    version: &'a str,
}

#[derive(Debug, Clone, Serialize)]
struct FindingInfo<'a> {
    uid: &'a str,
    title: String,
    desc: &'a str,
    types: [&'static str; 1],
    data_sources: [&'a str; 1],
    analytic: Analytic<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attacks: Vec<Attack>,
    /// In milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_seen_time: Option<i64>,
}

#[derive(Debug, Clone, Serialize)]
struct Analytic<'a> {
    name: &'a str,
    uid: &'a str,
    type_id: u32,
    r#type: &'static str,
}

#[derive(Debug, Clone, Serialize)]
struct Attack {
    technique: Technique,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub_technique: Option<Technique>,
}

#[derive(Debug, Clone, Serialize)]
struct Technique {
    uid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    src_url: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
struct Device<'a> {
    type_id: u32,
    r#type: &'static str,
    uid: &'a str,
    name: &'a str,
}

#[derive(Debug, Clone, Serialize)]
struct Resource<'a> {
    uid: &'a str,
    name: &'a str,
    r#type: &'static str,
    group: Group<'a>,
}

#[derive(Debug, Clone, Serialize)]
struct Group<'a> {
    name: &'a str,
}

#[derive(Debug, Clone, Serialize)]
struct Observable<'a> {
    name: &'static str,
    type_id: u32,
    r#type: &'static str,
    value: &'a str,
}

#[derive(Debug, Clone, Serialize)]
struct Evidence<'a> {
    data: Data<'a>,
}

#[derive(Debug, Clone, Serialize)]
struct Data<'a> {
    table: &'a str,
    row: &'a Row,
    #[serde(skip_serializing_if = "Option::is_none")]
    nearest: Option<&'a Nearest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    given: Option<&'a Given>,
}

#[derive(Debug, Clone, Serialize)]
struct Unmapped<'a> {
    fleet: &'a str,
    snapshot: String,
    host: &'a str,
    host_rank: u64,
    host_score: f64,
    verdict: &'static str,
    peer_group: Option<u32>,
    table: &'a str,
    kind: &'static str,
    method: &'a str,
    score: f64,
    hosts_with_row: u64,
    hosts_answered: u64,
    priors: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    suppressed: Option<Value>,
}

/// An event for each finding, and for those that are left out, where the analysis lists them.
pub(super) fn events(analysis: &Analysis) -> impl Iterator<Item = Event<'_>> {
    let shown = analysis.hosts.iter().flat_map(move |host| {
        host.findings.iter().map(move |finding| event(analysis, (host, finding), None))
    });
    let gone = left_out(analysis)
        .map(move |(host, finding, by)| event(analysis, (&analysis.hosts[host], finding), Some(by)));
    shown.chain(gone)
}

fn event<'a>(
    analysis: &'a Analysis,
    (host, finding): (&'a HostResult, &'a Finding),
    by: Option<&'a SuppressedBy>,
) -> Event<'a> {
    let (severity_id, severity) = severity(host.verdict);
    let (status_id, status) = if by.is_some() { (3, "Suppressed") } else { (1, "New") };
    Event {
        activity_id: 1,
        activity_name: "Create",
        category_uid: 2,
        category_name: "Findings",
        class_uid: 2004,
        class_name: "Detection Finding",
        type_uid: 200_401,
        type_name: "Detection Finding: Create",
        time: analysis.collected_at.timestamp_millis(),
        severity_id,
        severity,
        status_id,
        status,
        message: &finding.reason,
        risk_score: finding.score.round() as i64,
        metadata: metadata(analysis, finding),
        finding_info: finding_info(finding, host),
        device: Device { type_id: 0, r#type: "Unknown", uid: &host.host, name: &host.host },
        resources: [Resource {
            uid: &host.host,
            name: &host.host,
            r#type: "host",
            group: Group { name: analysis.fleet.as_str() },
        }],
        observables: [Observable {
            name: "device.uid",
            type_id: 10,
            r#type: "Resource UID",
            value: &host.host,
        }],
        evidences: [Evidence {
            data: Data {
                table: &finding.table,
                row: &finding.row,
                nearest: finding.nearest.as_ref(),
                given: finding.given.as_ref(),
            },
        }],
        unmapped: unmapped(analysis, (host, finding), by),
    }
}

fn metadata<'a>(analysis: &'a Analysis, finding: &Finding) -> Metadata<'a> {
    Metadata {
        version: VERSION,
        profiles: ["host"],
        product: Product { name: "Diffy", vendor_name: "Diffy", version: &analysis.diffy_version },
        correlation_uid: analysis.snapshot.to_string(),
        event_code: format!("{}/{}", finding.table, finding.kind),
    }
}

fn finding_info<'a>(finding: &'a Finding, host: &HostResult) -> FindingInfo<'a> {
    FindingInfo {
        uid: &finding.id,
        title: format!("{} in {} on {}", finding.kind, finding.table, host.host),
        desc: &finding.reason,
        types: [finding.kind.as_str()],
        data_sources: [&finding.table],
        analytic: Analytic { name: &finding.method, uid: &finding.method, type_id: 3, r#type: "Statistical" },
        attacks: finding.attack.iter().map(|technique| attack(technique)).collect(),
        first_seen_time: finding.first_seen.map(|time| time.timestamp_millis()),
    }
}

/// `T1053.003` is a technique below `T1053`.
fn attack(technique: &str) -> Attack {
    let of = |uid: &str| Technique { uid: uid.to_owned(), src_url: attack_url(uid) };
    match technique.split_once('.') {
        Some((main, _)) => Attack { technique: of(main), sub_technique: Some(of(technique)) },
        None => Attack { technique: of(technique), sub_technique: None },
    }
}

fn severity(verdict: Verdict) -> (u32, &'static str) {
    match verdict {
        Verdict::Outlier => (4, "High"),
        Verdict::Review => (3, "Medium"),
        Verdict::Normal => (2, "Low"),
        Verdict::NoPeers => (1, "Informational"),
    }
}

fn unmapped<'a>(
    analysis: &'a Analysis,
    (host, finding): (&'a HostResult, &'a Finding),
    by: Option<&'a SuppressedBy>,
) -> Unmapped<'a> {
    Unmapped {
        fleet: analysis.fleet.as_str(),
        snapshot: analysis.snapshot.to_string(),
        host: &host.host,
        host_rank: host.rank,
        host_score: host.score,
        verdict: host.verdict.as_str(),
        peer_group: host.peer_group,
        table: &finding.table,
        kind: finding.kind.as_str(),
        method: &finding.method,
        score: finding.score,
        hosts_with_row: finding.hosts_with_row,
        hosts_answered: finding.hosts_answered,
        priors: &finding.priors,
        suppressed: by.and_then(|by| serde_json::to_value(by).ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::analysis_table::tests::sample;
    use super::*;

    #[test]
    fn each_finding_is_an_event() {
        let analysis = sample();
        let events: Vec<Value> =
            events(&analysis).map(|event| serde_json::to_value(event).unwrap()).collect();
        assert_eq!(events.len(), 5);
        assert_eq!(events[0]["type_uid"], 200_401);
        assert_eq!(events[0]["finding_info"]["attacks"][0]["technique"]["uid"], "T1053");
        assert_eq!(events[0]["finding_info"]["attacks"][0]["sub_technique"]["uid"], "T1053.003");
        assert_eq!(events[0]["evidences"][0]["data"]["row"]["minute"], "*/5");
        let severities: Vec<&Value> = events.iter().map(|event| &event["severity_id"]).collect();
        assert_eq!(severities, [4, 4, 4, 3, 3]);
    }
}
