//! One host or one finding of an analysis: the same analysis, and less of it shown.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::model::{Analysis, Finding, HostResult, Suppressed, SuppressedBy};

/// Fewest characters of the beginning of an id that stand for the whole.
const SHORTEST_ID: usize = 4;
/// How much a name must look like another one to be meant by it (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.75;
/// Names that are suggested.
const SUGGESTED: usize = 3;

/// What somebody wants to see all of.
#[derive(Debug, Clone, Copy)]
pub enum Picked<'a> {
    /// One host.
    Host(&'a HostResult),
    /// One finding, and its host.
    Finding(&'a HostResult, &'a Finding, Option<&'a SuppressedBy>),
}

/// The host of this name.
///
/// # Errors
/// There is none; names that look alike are named.
pub fn pick_host<'a>(analysis: &'a Analysis, name: &str) -> Result<Picked<'a>> {
    if let Some(host) = analysis.hosts.iter().find(|host| host.host == name) {
        return Ok(Picked::Host(host));
    }
    let error = Error::usage(format!("there is no host `{}` in the snapshot", name.escape_debug()));
    let names = analysis.hosts.iter().map(|host| host.host.as_str());
    Err(match alike(name, names) {
        Some(alike) => error.hint(format!("did you mean {alike}?")),
        None => error
            .hint("`diffy query \"SELECT host FROM current.hosts\"` lists the hosts of the newest snapshots"),
    })
}

/// The finding of this id, or the only one whose id begins so; a suppressed one too, where its list is not trimmed.
///
/// # Errors
/// There is none, or more than one; ids that look alike are named.
pub fn pick_finding<'a>(analysis: &'a Analysis, id: &str) -> Result<Picked<'a>> {
    let all: Vec<Picked<'a>> = all_findings(analysis).collect();
    let exact = all.iter().find(|picked| picked.id() == id).copied();
    let begins = |picked: &&Picked<'a>| id.len() >= SHORTEST_ID && picked.id().starts_with(id);
    let begin: Vec<Picked<'a>> = all.iter().filter(begins).copied().collect();
    match (exact, begin.as_slice()) {
        (Some(picked), _) => Ok(picked),
        (None, [picked]) => Ok(*picked),
        _ => Err(no_finding(id, &all, begin.len())),
    }
}

fn no_finding(id: &str, all: &[Picked<'_>], begin: usize) -> Error {
    let shown = id.escape_debug();
    if begin > 1 {
        return Error::usage(format!("{begin} findings have an id that begins with `{shown}`"))
            .hint("give more of it");
    }
    let error = Error::usage(format!("there is no finding `{shown}`"));
    match alike(id, all.iter().map(|picked| picked.id())) {
        Some(alike) => error.hint(format!("did you mean {alike}?")),
        None => error.hint("`diffy analyze` shows the id of each finding; with other flags others are found"),
    }
}

/// All findings, those that are left out last.
fn all_findings(analysis: &Analysis) -> impl Iterator<Item = Picked<'_>> {
    let shown = analysis
        .hosts
        .iter()
        .flat_map(|host| host.findings.iter().map(move |finding| Picked::Finding(host, finding, None)));
    shown.chain(
        left_out(analysis)
            .map(|(host, finding, by)| Picked::Finding(&analysis.hosts[host], finding, Some(by))),
    )
}

/// What is left out, where the analysis lists it: the place of the host among the hosts, the finding, and who vouches.
pub(super) fn left_out(analysis: &Analysis) -> impl Iterator<Item = (usize, &Finding, &SuppressedBy)> {
    let suppressed = &analysis.suppressed;
    let wanted = !suppressed.list.is_empty();
    let hosts = analysis.hosts.iter().enumerate().filter(|_| wanted);
    let hosts: HashMap<&str, usize> = hosts.map(|(index, host)| (host.host.as_str(), index)).collect();
    suppressed.list.iter().filter_map(move |gone| {
        Some((*hosts.get(gone.host.as_str())?, &gone.finding, suppressed.by.get(gone.by)?))
    })
}

/// `` `web-1`, `web-2` ``: the names that look most like this one.
fn alike<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut rated: Vec<(f64, &str)> = names
        .map(|other| (strsim::jaro_winkler(name, other), other))
        .filter(|rated| rated.0 > ALIKE)
        .collect();
    rated.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    let named: Vec<String> =
        rated.iter().take(SUGGESTED).map(|(_, other)| format!("`{}`", other.escape_debug())).collect();
    (!named.is_empty()).then(|| named.join(" or "))
}

impl Picked<'_> {
    /// The id of a finding; empty for a host.
    fn id(&self) -> &str {
        match self {
            Self::Host(_) => "",
            Self::Finding(_, finding, _) => &finding.id,
        }
    }

    /// The analysis with this host alone, or with this host and finding alone: for programs. Counts, warnings and peer
    /// groups are those of all hosts.
    pub fn narrowed(&self, analysis: &Analysis) -> Analysis {
        let host = match self {
            Self::Host(host) => (*host).clone(),
            Self::Finding(host, finding, by) => {
                let findings = if by.is_none() { vec![(*finding).clone()] } else { Vec::new() };
                HostResult { findings, ..(*host).clone() }
            }
        };
        let campaigns = analysis.campaigns.iter().filter(|campaign| campaign.hosts.contains(&host.host));
        let campaigns = campaigns.filter(|campaign| match self {
            Self::Host(_) => true,
            Self::Finding(_, finding, _) => campaign.findings.contains(&finding.id),
        });
        let mut suppressed = Suppressed { list: Vec::new(), ..analysis.suppressed.clone() };
        let gone = analysis.suppressed.list.iter().filter(|gone| gone.host == host.host);
        let gone = gone.filter(|gone| matches!(self, Self::Host(_)) || gone.finding.id == self.id());
        suppressed.list.extend(gone.cloned());
        Analysis {
            campaigns: campaigns.cloned().collect(),
            suppressed,
            hosts: vec![host],
            ..header(analysis)
        }
    }
}

/// All of an analysis but its lists that are long.
pub(super) fn header(analysis: &Analysis) -> Analysis {
    Analysis {
        schema_version: analysis.schema_version,
        diffy_version: analysis.diffy_version.clone(),
        fleet: analysis.fleet.clone(),
        snapshot: analysis.snapshot,
        collected_at: analysis.collected_at,
        methods: analysis.methods.clone(),
        baseline: analysis.baseline.clone(),
        history: analysis.history.clone(),
        hosts_total: analysis.hosts_total,
        hosts_answered: analysis.hosts_answered,
        tables_compared: analysis.tables_compared,
        warnings: analysis.warnings.clone(),
        hosts: Vec::new(),
        peer_groups: analysis.peer_groups.clone(),
        campaigns: Vec::new(),
        suppressed: Suppressed::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::analysis_table::tests::sample;
    use super::*;

    #[test]
    fn hosts_and_findings_are_found_or_named() {
        let analysis = sample();
        assert!(matches!(pick_host(&analysis, "i-bastion"), Ok(Picked::Host(host)) if host.rank == 59));
        let error = pick_host(&analysis, "i-bastoin").unwrap_err();
        assert!(error.hint_text().unwrap().contains("did you mean `i-bastion`"), "{error:?}");
        assert!(pick_host(&analysis, "zzz").unwrap_err().hint_text().unwrap().contains("SELECT host"));
        assert!(
            matches!(pick_finding(&analysis, "f1"), Ok(Picked::Finding(_, finding, None)) if finding.id == "f1")
        );
        let mut analysis = sample();
        analysis.hosts[1].findings[0].id = "0f3c6a1b2d4e5f60".to_owned();
        let error = pick_finding(&analysis, "0f3c6a1b2d4e5f06").unwrap_err();
        assert!(error.to_string().contains("no finding `0f3c6a1b2d4e5f06`"), "{error}");
        assert_eq!(error.hint_text().unwrap(), "did you mean `0f3c6a1b2d4e5f60`?");
    }

    #[test]
    fn the_beginning_of_an_id_is_enough_when_it_is_the_only_one() {
        let mut analysis = sample();
        for (finding, id) in analysis.hosts[0].findings.iter_mut().zip(["abcdef01", "abcd0000", "11110000"]) {
            finding.id = id.to_owned();
        }
        assert!(matches!(pick_finding(&analysis, "1111"), Ok(Picked::Finding(..))));
        assert!(pick_finding(&analysis, "abcd").unwrap_err().to_string().contains("2 findings"));
        assert!(pick_finding(&analysis, "111").is_err());
    }

    #[test]
    fn what_is_narrowed_keeps_the_counts_of_all() {
        let analysis = sample();
        let host = pick_host(&analysis, "i-0b1b2c3d4e5f60719").unwrap().narrowed(&analysis);
        assert_eq!((host.hosts.len(), host.hosts_total, host.campaigns.len()), (1, 60, 1));
        assert_eq!(host.warnings, analysis.warnings);
        let finding = pick_finding(&analysis, "f1").unwrap().narrowed(&analysis);
        assert_eq!(finding.hosts[0].findings.len(), 1);
        let quiet = pick_host(&analysis, "i-bastion").unwrap().narrowed(&analysis);
        assert!(quiet.campaigns.is_empty());
    }
}
