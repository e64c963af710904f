//! Collecting hosts that files or programs of the user list, over SSH or through such programs.

use std::sync::Arc;
use std::time::Duration;

use super::super::{App, plugins};
use super::gather::collect;
use super::interrupt::unless_interrupted;
use super::named::CollectorSpec;
use super::plan::Plan;
use super::{Args, Collection, CollectorName, collection, ssh};
use crate::collect::Collector;
use crate::collect::plugin::{HostFacts, Plugin, PluginCollector, PluginConfig, list};
use crate::collect::ssh::SshConfig;
use crate::error::{Error, Result};
use crate::ingest::Finished;
use crate::model::{count, digits};
use crate::target::{HostList, Listing, TargetHost, TargetSpec, hosts_of_files};

/// Most bytes that a collector may print for one host, and for one table of it.
const HOST_BYTES: usize = 256 << 20;
const TABLE_BYTES: usize = 64 << 20;

/// How hosts of a list are asked.
enum Way {
    Ssh(SshConfig),
    Program(Plugin),
}

/// Collects one fleet whose hosts files or programs list.
pub(super) async fn collect_listed(app: &App, args: &Args, plan: Plan) -> Result<Finished> {
    // Before anybody is asked anything.
    let way = way(app, args, &plan)?;
    let (hosts, warnings) = unless_interrupted(inventory(app, args, &plan.targets)).await?;
    if hosts.is_empty() {
        return Err(nobody(&plan.targets, &warnings));
    }
    let unreachable = hosts.iter().filter(|host| host.unreachable.is_some()).count();
    app.output.say(&format!(
        "fleet {}: {}, {} of them cannot be asked",
        plan.fleet,
        count(hosts.len() as u64, "host"),
        digits(unreachable as u64)
    ));
    let collector = match way {
        Way::Ssh(config) => ssh::collector(app, &plan, config, &hosts),
        Way::Program(plugin) => through(plugin, args, &hosts),
    };
    let store = Box::pin(unless_interrupted(app.open_or_create_store())).await?;
    let collection = Collection { warnings, ..collection(app, args, plan, (collector, hosts)) };
    collect(app, &store, collection).await
}

fn nobody(targets: &[TargetSpec], warnings: &[String]) -> Error {
    let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
    let why =
        warnings.first().map_or("it printed nothing; docs/plugins.md says what it should", String::as_str);
    Error::usage(format!("`{}` has no host to ask", targets.join("`, `").escape_debug())).hint(why)
}

fn way(app: &App, args: &Args, plan: &Plan) -> Result<Way> {
    match &plan.collector {
        None | Some(CollectorSpec::BuiltIn(CollectorName::Ssh)) => ssh::config(app, args, plan).map(Way::Ssh),
        Some(CollectorSpec::Exec(command)) => plugins::command(app, command).map(Way::Program),
        Some(CollectorSpec::Plugin(name)) => {
            plugins::plugin(app, plugins::Kind::Collector, name).map(Way::Program)
        }
        Some(built_in) => Err(Error::usage(format!(
            "`--collector {built_in}` cannot ask hosts that a file or a program lists"
        ))
        .hint("`--collector ssh` can, or `exec:COMMAND`, or the NAME of a plugin")),
    }
}

/// The collector that asks this machine or others through a program.
pub(super) fn through(plugin: Plugin, args: &Args, hosts: &[TargetHost]) -> Arc<dyn Collector> {
    let facts = |host: &TargetHost| HostFacts {
        address: host.address.as_ref().map(ToString::to_string),
        labels: host.known.facts.clone(),
    };
    Arc::new(PluginCollector::new(PluginConfig {
        plugin,
        timeout: Duration::from_secs(args.host_timeout.max(1)),
        max_bytes: HOST_BYTES,
        line_bytes: TABLE_BYTES,
        hosts: hosts.iter().map(|host| (host.known.name.clone(), facts(host))).collect(),
    }))
}

/// The hosts that files and programs list, and what a reader of the snapshot should know.
async fn inventory(app: &App, args: &Args, targets: &[TargetSpec]) -> Result<(Vec<TargetHost>, Vec<String>)> {
    let files: Vec<&str> = targets.iter().filter_map(file).collect();
    let of_files = if files.is_empty() { HostList::default() } else { read(&files).await? };
    of_files.warnings.iter().for_each(|warning| app.output.warn(warning));
    let mut listing = Listing::default();
    for host in of_files.hosts {
        listing.add(TargetHost::at(&host.name, host.destination));
    }
    let timeout = Duration::from_secs(args.target_timeout.max(1));
    for target in targets {
        let (plugin, argument) = match target {
            TargetSpec::Exec(command) => (plugins::command(app, command)?, None),
            TargetSpec::Plugin(name, argument) => {
                (plugins::plugin(app, plugins::Kind::Target, name)?, Some(argument.as_str()))
            }
            _ => continue,
        };
        let from = target.to_string();
        let mut take = |number, line: &[u8]| listing.line(&from, number, line);
        let said = list(&plugin, argument, timeout, &mut take).await?;
        if !said.is_empty() {
            app.output.say(&format!("{from} says: {said}"));
        }
    }
    Ok(listing.into_hosts())
}

/// Standard input or a pipe may stay silent for ever, and whoever waits must be able to end it: so a thread reads that
/// nobody waits for at the end.
async fn read(files: &[&str]) -> Result<HostList> {
    let files: Vec<String> = files.iter().map(ToString::to_string).collect();
    let (send, receive) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        // Nobody listens any more when the collection was interrupted.
        let _ = send.send(hosts_of_files(&files));
    });
    receive.await.map_err(|source| Error::internal("reading the hosts died").source(source))?
}

fn file(target: &TargetSpec) -> Option<&str> {
    match target {
        TargetSpec::Hosts(file) => Some(file),
        _ => None,
    }
}
