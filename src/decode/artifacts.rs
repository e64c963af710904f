//! Collections of Velociraptor as they lie there unpacked: `results/ARTIFACT.json`, with what says whose they are.
//!
//! ```text
//! client_info.json  collection_context.json  results/Linux.Sys.Pslist.json                     of one host
//! hunt_info.json  results/All Linux.Sys.Pslist.json  NAME-C.1234/results/Linux.Sys.Pslist.json  of a hunt
//! ```

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::excerpt;
use super::import::ImportOptions;
use super::kind::{Kind, artifact_of, is_json_name, stem_of};
use super::osqueryd::check_host;
use super::walk::{Client, Entry, Walker};
use crate::error::Result;

/// Files that make a directory with `results` a collection.
const MARKS: [&str; 4] = ["client_info", "collection_context", "hunt_info", "uploads"];
/// Bytes of what says whose a collection is.
const LARGEST_INFO: u64 = 16 << 20;
/// Characters of what Velociraptor says of a collection that failed.
const LONGEST: usize = 300;

/// An unpacked collection.
pub(super) struct Collection {
    path: PathBuf,
    results: PathBuf,
    others: Vec<PathBuf>,
    info: Option<PathBuf>,
    context: Option<PathBuf>,
}

/// Who the host is; offline collectors and servers spell it in their own ways.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ClientInfo {
    #[serde(alias = "Fqdn")]
    fqdn: String,
    #[serde(alias = "Hostname")]
    hostname: String,
    os_info: OsInfo,
    client_id: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OsInfo {
    fqdn: String,
    hostname: String,
}

/// How the collection ended.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Context {
    /// A number, or its name.
    state: serde_json::Value,
    status: String,
    query_stats: Vec<QueryStats>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct QueryStats {
    /// A number, or its name.
    status: serde_json::Value,
    error_message: String,
    #[serde(alias = "Artifact")]
    artifact: String,
    names_with_response: Vec<String>,
}

impl Collection {
    /// The collection that lies in a directory with these entries, if one does.
    pub(super) fn of(path: &Path, entries: &[Entry]) -> Option<Self> {
        let mut found = Self {
            path: path.to_owned(),
            results: PathBuf::new(),
            others: Vec::new(),
            info: None,
            context: None,
        };
        let mut is_marked = false;
        for entry in entries {
            match entry {
                Entry::Directory(path) if path.file_name().is_some_and(|name| name == "results") => {
                    found.results = path.clone();
                }
                Entry::Directory(path) => found.others.push(path.clone()),
                Entry::File(path) if is_json_name(path) => {
                    let stem = stem_of(path);
                    is_marked |= MARKS.contains(&stem.as_str());
                    match stem.as_str() {
                        "client_info" => found.info = Some(path.clone()),
                        "collection_context" => found.context = Some(path.clone()),
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        (is_marked && !found.results.as_os_str().is_empty()).then_some(found)
    }

    /// The host's name, as the collection says it, and what else it says of the client.
    fn host(&self, options: &ImportOptions) -> Option<(String, Client)> {
        let info: ClientInfo = read(self.info.as_deref()?, options)?;
        let id = Some(info.client_id.clone()).filter(|id| !id.is_empty());
        let names = [info.fqdn, info.os_info.fqdn, info.hostname, info.os_info.hostname, info.client_id];
        let names: Vec<String> = names.into_iter().filter(|name| check_host(name).is_ok()).collect();
        Some((names.first()?.clone(), Client { names, id }))
    }

    fn context(&self, options: &ImportOptions) -> Context {
        self.context.as_deref().and_then(|path| read(path, options)).unwrap_or_default()
    }
}

impl Context {
    /// Why the rows of an artifact are not all, if Velociraptor says so.
    fn cut(&self, artifact: &str) -> Option<String> {
        let failed = self.query_stats.iter().find(|stats| {
            let is_of_it =
                stats.artifact == artifact || stats.names_with_response.iter().any(|it| it == artifact);
            is_of_it && (is_error(&stats.status) || !stats.error_message.is_empty())
        });
        let said = match failed {
            Some(stats) => &stats.error_message,
            None if is_failed(&self.state) => &self.status,
            None if is_open(&self.state) => {
                return Some("Velociraptor had not ended this collection when it was exported".to_owned());
            }
            None => return None,
        };
        let said: String = excerpt_of(said);
        Some(match said.is_empty() {
            true => "Velociraptor says that this collection failed".to_owned(),
            false => format!("Velociraptor says that this collection failed: {said}"),
        })
    }
}

/// `ERROR` of a flow.
fn is_failed(state: &serde_json::Value) -> bool {
    state.as_str() == Some("ERROR") || state.as_u64() == Some(3)
}

/// A flow that waits, runs or hangs.
fn is_open(state: &serde_json::Value) -> bool {
    let names = ["RUNNING", "WAITING", "IN_PROGRESS", "UNRESPONSIVE"];
    state.as_str().is_some_and(|name| names.contains(&name)) || matches!(state.as_u64(), Some(1 | 4..=6))
}

/// `GENERIC_ERROR` of a query.
fn is_error(status: &serde_json::Value) -> bool {
    status.as_str() == Some("GENERIC_ERROR") || status.as_u64() == Some(10)
}

fn excerpt_of(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(LONGEST).collect()
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path, options: &ImportOptions) -> Option<T> {
    let mut bytes = Vec::new();
    options.files.open(path).ok()?.take(LARGEST_INFO).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

impl Walker<'_> {
    /// Takes a collection; `host` is whose it is when it does not say so.
    pub(super) fn collection(&mut self, collection: Collection, host: Option<String>) -> Result<()> {
        let (said, mut place) = collection.host(self.options).unzip();
        if let Some(client) = client_of(&collection.path) {
            let place = place.get_or_insert_default();
            place.names.extend(client.names);
            place.id = client.id.or(place.id.take());
        }
        let own = self.options.host.clone().or(said).or(host);
        let context = collection.context(self.options);
        let mut has_all = false;
        for entry in self.entries(&collection.results)? {
            let path = match entry {
                Entry::File(path) if self.options.stand_ins.contains(&path) => {
                    has_all |= is_json_name(&path) && is_of_all(&path);
                    continue;
                }
                Entry::File(path) if is_json_name(&path) => path,
                Entry::File(path) => {
                    self.skip(&path, "of a collection of Velociraptor, only JSON is read");
                    continue;
                }
                Entry::Directory(path) => {
                    self.skip(&path, "a directory inside of the results of Velociraptor");
                    continue;
                }
                Entry::Refused(path, reason) => {
                    self.skip(&path, reason);
                    continue;
                }
            };
            let is_all = is_of_all(&path);
            has_all |= is_all;
            self.record(&path, Kind::Artifact, own.clone().filter(|_| !is_all));
            let artifact = artifact_of(&path).unwrap_or_else(|| stem_of(&path));
            if let Some(record) = self.found.records.last_mut() {
                record.cut = context.cut(&artifact);
                record.place = place.clone().filter(|_| !is_all && own.is_some());
            }
        }
        for path in collection.others {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !is_client_name(&name) {
                self.skip(&path, "of a collection of Velociraptor, only `results` is read");
            } else if has_all {
                self.skip(&path, "the same rows are in `results` of the hunt");
            } else {
                self.host_directory(&path)?;
            }
        }
        tracing::debug!(path = %collection.path.display(), host = own.as_deref().map(excerpt), "a collection");
        Ok(())
    }
}

/// The client that a directory of a hunt is named after.
pub(super) fn client_of(path: &Path) -> Option<Client> {
    let name = path.file_name()?.to_str().filter(|name| is_client_name(name))?;
    let (before, id) = name.rsplit_once("C.")?;
    let names = [before.trim_end_matches('-'), name].map(str::to_owned);
    Some(Client { names: names.into(), id: Some(format!("C.{id}")) })
}

/// `All ARTIFACT.json`: the rows of all clients of a hunt.
fn is_of_all(path: &Path) -> bool {
    stem_of(path).starts_with("All ")
}

/// `NAME-C.1234`: the directory of a client in a hunt.
fn is_client_name(name: &str) -> bool {
    name.rsplit_once("C.").is_some_and(|(before, id)| {
        (before.is_empty() || before.ends_with('-'))
            && !id.is_empty()
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_velociraptor_says_of_a_failure_is_told() {
        let context = |json: &str| serde_json::from_str::<Context>(json).unwrap();
        let failed = context(r#"{"state":3,"status":"Row limit\n exceeded","query_stats":[{}]}"#);
        assert!(failed.cut("Linux.Sys.Pslist").unwrap().ends_with("failed: Row limit exceeded"));
        assert!(context(r#"{"state":"ERROR"}"#).cut("x").unwrap().ends_with("failed"));
        assert!(context(r#"{"state":1}"#).cut("x").unwrap().contains("not ended"));
        assert_eq!(context(r#"{"state":2,"query_stats":[{"result_rows":1}]}"#).cut("x"), None);
        let one = r#"{"state":2,"query_stats":[{"status":10,"error_message":"boom","Artifact":"A.B"}]}"#;
        assert!(context(one).cut("A.B").unwrap().contains("boom"));
        assert_eq!(context(one).cut("A.C"), None);
    }

    #[test]
    fn directories_of_clients_are_known() {
        for (name, expect) in [
            ("web-1-C.0123456789abcdef", true),
            ("C.1235", true),
            ("uploads", false),
            ("AC.12", false),
            ("web-C.", false),
            ("web-C.a/b", false),
        ] {
            assert_eq!(is_client_name(name), expect, "{name}");
        }
    }
}
