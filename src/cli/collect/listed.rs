//! Collecting hosts that programs of the user list, and asking hosts through such programs.

use std::sync::Arc;
use std::time::Duration;

use super::super::{App, plugins};
use super::gather::collect;
use super::interrupt::unless_interrupted;
use super::named::CollectorSpec;
use super::plan::Plan;
use super::{Args, Collection, collection};
use crate::collect::Collector;
use crate::collect::plugin::{HostFacts, Plugin, PluginCollector, PluginConfig, list};
use crate::error::{Error, Result};
use crate::ingest::Finished;
use crate::target::{Listing, TargetHost, TargetSpec};

/// Most bytes that a collector may print for one host, and for one table of it.
const HOST_BYTES: usize = 256 << 20;
const TABLE_BYTES: usize = 64 << 20;

/// Collects one fleet whose hosts programs list.
pub(super) async fn collect_listed(app: &App, args: &Args, plan: Plan) -> Result<Finished> {
    // Before anybody is asked anything.
    let way = way(app, plan.collector.as_ref())?;
    let (hosts, warnings) = unless_interrupted(inventory(app, args, &plan.targets)).await?;
    if hosts.is_empty() {
        let targets: Vec<String> = plan.targets.iter().map(ToString::to_string).collect();
        return Err(Error::usage(format!("`{}` has no host to ask", targets.join("`, `").escape_debug()))
            .hint(
                warnings
                    .first()
                    .cloned()
                    .unwrap_or_else(|| "it printed nothing; docs/plugins.md says what it should".to_owned()),
            ));
    }
    let unreachable = hosts.iter().filter(|host| host.unreachable.is_some()).count();
    app.output.say(&format!(
        "fleet {}: {} hosts, {unreachable} of them cannot be asked",
        plan.fleet,
        hosts.len()
    ));
    let collector = through(way, args, &hosts);
    let store = Box::pin(unless_interrupted(app.open_or_create_store())).await?;
    let collection = Collection { warnings, ..collection(app, args, plan, (collector, hosts)) };
    collect(app, &store, collection).await
}

/// The program that asks hosts which programs list.
fn way(app: &App, collector: Option<&CollectorSpec>) -> Result<Plugin> {
    let hint = "`--collector exec:COMMAND` or `--collector NAME` names a program that asks them";
    match collector {
        Some(CollectorSpec::Exec(command)) => plugins::command(app, command),
        Some(CollectorSpec::Plugin(name)) => plugins::plugin(app, plugins::Kind::Collector, name),
        Some(built_in) => {
            Err(Error::usage(format!("`--collector {built_in}` cannot ask hosts that a program lists"))
                .hint(hint))
        }
        None => Err(Error::usage("how are the hosts to be asked?").hint(hint)),
    }
}

/// The collector that asks this machine or others through a program.
pub(super) fn through(plugin: Plugin, args: &Args, hosts: &[TargetHost]) -> Arc<dyn Collector> {
    let facts =
        |host: &TargetHost| HostFacts { address: host.address.clone(), labels: host.known.facts.clone() };
    Arc::new(PluginCollector::new(PluginConfig {
        plugin,
        timeout: Duration::from_secs(args.remote.host_timeout.max(1)),
        max_bytes: HOST_BYTES,
        line_bytes: TABLE_BYTES,
        hosts: hosts.iter().map(|host| (host.known.name.clone(), facts(host))).collect(),
    }))
}

/// The hosts that programs list, and what a reader of the snapshot should know.
async fn inventory(app: &App, args: &Args, targets: &[TargetSpec]) -> Result<(Vec<TargetHost>, Vec<String>)> {
    let mut listing = Listing::default();
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
