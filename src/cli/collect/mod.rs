//! `diffy collect`.

mod gather;
pub(super) mod interrupt;
mod listed;
mod named;
mod plan;
mod remote;
mod ssh;
mod tell;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use self::named::{CollectorName, CollectorParser, CollectorSpec};
use self::plan::{Plan, plans};
use super::output::{print, print_error};
use super::{App, Outcome, plugins};
use crate::collect::Collector;
use crate::collect::native::{NativeCollector, NativeConfig};
use crate::collect::osquery::{OsqueryCollector, OsqueryConfig};
use crate::collect::remote::HostLimits;
use crate::error::{Error, ErrorKind, Result};
use crate::ingest::Finished;
use crate::model::{Fleet, SnapshotId, now};
use crate::target::{TargetHost, TargetSpec};

pub(super) use self::gather::{Collection, collect, local_rows, make_snapshot, warn_of_future};
pub(super) use self::tell::{somebody_answered, summary, tell_problems};

/// Largest packed answer of a host, in MiB, when nobody says.
const LARGEST_MIB: u64 = 64;
/// The longest that can be waited for queries, in seconds: what the agent of Systems Manager lets a script run.
const LONGEST_SECONDS: u64 = 160_000;

/// Ask hosts for tables and keep the answers as one snapshot
///
/// Nothing received is lost: after an interruption, `diffy snapshot recover` makes a snapshot of what came.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The set of hosts that should be alike [default: the group, if the target is one] [env: DIFFY_FLEET]
    #[arg(long)]
    fleet: Option<Fleet>,
    /// Whom to ask, may be repeated: local, asg:NAME, tag:KEY=VALUE, instance:ID, hosts:FILE (one a line; - is stdin), exec:COMMAND, or NAME:ARGUMENT for the program diffy-target-NAME [default: those of the fleet in diffy.toml, else local]
    #[arg(long, value_name = "SPEC")]
    targets: Vec<TargetSpec>,
    /// Collect every fleet of diffy.toml, one after the other; one that fails does not stop the others
    #[arg(long, conflicts_with_all = ["fleet", "targets"])]
    all: bool,
    /// How to ask [default: ssm in AWS; ssh for hosts that a file or a program lists; here osquery if osqueryi is on PATH, else native]
    #[arg(long, value_name = "COLLECTOR", value_parser = CollectorParser)]
    collector: Option<CollectorSpec>,
    /// The osqueryi program of this machine [default: the one on PATH]
    #[arg(long, value_name = "FILE")]
    osqueryi: Option<PathBuf>,
    /// Tables to ask for, separated by commas [default: all that are collected by default]
    #[arg(long, value_delimiter = ',', value_name = "T,...")]
    tables: Vec<String>,
    /// The name of the host, for collections of this machine [default: its host name]
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// The incident this is collected for; recorded in the snapshot
    #[arg(long, value_name = "ID")]
    incident: Option<String>,
    /// Hosts to ask at once [default: what suits the collector]
    #[arg(long, value_name = "N")]
    concurrency: Option<usize>,
    /// Time limit of one query on one host, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
    /// Time limit of a program that lists targets, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    target_timeout: u64,
    /// Time limit of all queries together on a host far away, in seconds; what did not start by then is reported
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    host_timeout: u64,
    /// Largest answer of a host far away, packed, in MiB; a larger one is refused and reported
    #[arg(long, value_name = "MIB", default_value_t = LARGEST_MIB)]
    largest_answer: u64,
    /// Exit with status 4 when fewer hosts than this answered, in percent of those asked [default: 0]
    #[arg(long, value_name = "PERCENT")]
    min_success: Option<f64>,
    #[command(flatten)]
    ssh: ssh::SshArgs,
    #[command(flatten)]
    remote: remote::AwsArgs,
    /// Also ask members of a group that are on standby
    #[arg(long, help_heading = "AWS options")]
    include_standby: bool,
    /// Also ask members of a group that are on their way out, held by a hook for instance
    #[arg(long, help_heading = "AWS options")]
    include_terminating: bool,
    /// Region of the targets [default: as for the AWS CLI]
    #[arg(long, help_heading = "AWS options", value_name = "REGION")]
    region: Option<String>,
    /// A role to be taken on where the targets are
    #[arg(long, help_heading = "AWS options", value_name = "ARN")]
    role_arn: Option<String>,
    /// The account of the targets; the role's name stands in diffy.toml
    #[arg(long, help_heading = "AWS options", value_name = "ID", conflicts_with = "role_arn")]
    account: Option<String>,
}

impl Args {
    /// What a host far away may take.
    fn host_limits(&self) -> Result<HostLimits> {
        Ok(HostLimits {
            query_seconds: bounded("--timeout", self.timeout, LONGEST_SECONDS)?,
            host_seconds: bounded("--host-timeout", self.host_timeout, LONGEST_SECONDS)?,
            ..HostLimits::default()
        })
    }

    fn largest_answer_bytes(&self) -> u64 {
        self.largest_answer.saturating_mul(1 << 20)
    }
}

pub(super) async fn run(app: &App, args: Args) -> Result<Outcome> {
    check(&args)?;
    let mut plans = plans(app, &args)?;
    if !args.all
        && let Some(plan) = plans.pop()
    {
        return one(app, &args, plan?).await;
    }
    let mut worst = Outcome::Done;
    let mut failed = Vec::new();
    for (plan, file) in plans.into_iter().zip(&app.settings.fleets) {
        let done = match plan {
            Ok(plan) => one(app, &args, plan).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(Outcome::TooFewHosts) => worst = Outcome::TooFewHosts,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                print_error(&error);
                failed.push(file.name.escape_debug().to_string());
            }
        }
        print("\n")?;
    }
    if failed.is_empty() {
        return Ok(worst);
    }
    Err(Error::remote(format!(
        "{} of {} fleets failed: {}",
        failed.len(),
        app.settings.fleets.len(),
        failed.join(", ")
    ))
    .hint("the others are collected; the errors of these stand above"))
}

fn check(args: &Args) -> Result<()> {
    if args.concurrency == Some(0) {
        return Err(Error::usage("`--concurrency 0` would ask nobody").hint("use 1 or more"));
    }
    Ok(())
}

/// Collects one fleet and tells of it.
async fn one(app: &App, args: &Args, plan: Plan) -> Result<Outcome> {
    let min_success = plan.min_success;
    let fleet = plan.fleet.clone();
    let finished = if plan.is_aws() {
        Box::pin(remote::collect_from_aws(app, args, plan)).await
    } else if plan.is_listed() {
        Box::pin(listed::collect_listed(app, args, plan)).await
    } else {
        collect_here(app, args, plan).await
    };
    let finished = finished.map_err(|error| if args.all { error.with("fleet", &fleet) } else { error })?;
    print(&summary(&finished))?;
    tell_problems(app, &finished);
    // Whoever set a limit knows this status.
    if min_success <= 0.0 {
        somebody_answered(&finished)?;
    }
    let reached = finished.manifest.hosts_answered as f64 / finished.manifest.hosts_asked.max(1) as f64;
    Ok(if reached * 100.0 < min_success { Outcome::TooFewHosts } else { Outcome::Done })
}

async fn collect_here(app: &App, args: &Args, plan: Plan) -> Result<Finished> {
    let hosts = vec![TargetHost::new(&args.host.clone().unwrap_or_else(host_name))];
    let collector = local_collector(app, args, (plan.collector.as_ref(), &hosts))?;
    let store = app.open_or_create_store().await?;
    collect(app, &store, collection(app, args, plan, (collector, hosts))).await
}

fn collection(
    app: &App,
    args: &Args,
    plan: Plan,
    (collector, hosts): (Arc<dyn Collector>, Vec<TargetHost>),
) -> Collection {
    Collection {
        fleet: plan.fleet,
        incident: args.incident.clone(),
        snapshot: SnapshotId::new(now()),
        collector,
        targets: plan.targets.iter().map(ToString::to_string).collect(),
        hosts,
        tables: plan.tables,
        concurrency: args.concurrency,
        warnings: Vec::new(),
        collected_by: app.settings.who.clone(),
        is_temporary: false,
        epilogue: None,
    }
}

/// The fleet of flag, environment or file.
pub(super) fn fleet(app: &App, flag: Option<Fleet>) -> Result<Fleet> {
    match (flag, &app.settings.fleet) {
        (Some(fleet), _) => Ok(fleet),
        (None, Some(name)) => name.parse(),
        (None, None) => {
            Err(Error::usage("which fleet?")
                .hint("`--fleet NAME` names the set of hosts that should be alike"))
        }
    }
}

fn local_collector(
    app: &App,
    args: &Args,
    (collector, hosts): (Option<&CollectorSpec>, &[TargetHost]),
) -> Result<Arc<dyn Collector>> {
    let timeout = Duration::from_secs(args.timeout.max(1));
    let found = args.osqueryi.clone().or_else(|| plugins::on_path(&app.settings.path, "osqueryi"));
    let name = match collector {
        Some(CollectorSpec::BuiltIn(name)) => *name,
        Some(CollectorSpec::Exec(command)) => {
            return Ok(listed::through(plugins::command(app, command)?, args, hosts));
        }
        Some(CollectorSpec::Plugin(name)) => {
            let plugin = plugins::plugin(app, plugins::Kind::Collector, name)?;
            return Ok(listed::through(plugin, args, hosts));
        }
        None if found.is_some() => CollectorName::Osquery,
        None => CollectorName::Native,
    };
    match (name, found) {
        (CollectorName::Native, _) => {
            Ok(Arc::new(NativeCollector::new(NativeConfig { timeout, ..NativeConfig::default() })))
        }
        (CollectorName::Osquery, Some(program)) => Ok(Arc::new(OsqueryCollector::new(OsqueryConfig {
            program,
            timeout,
            ..OsqueryConfig::default()
        }))),
        (CollectorName::Osquery, None) => Err(Error::usage("osqueryi is not on PATH")
            .hint("`--osqueryi FILE` names it; `--collector native` needs no osquery")),
        (CollectorName::Ssm, _) => {
            Err(Error::usage("`--collector ssm` asks instances in AWS, not this machine")
                .hint("`--targets asg:NAME` names some"))
        }
        (CollectorName::Ssh, _) => {
            Err(Error::usage("`--collector ssh` asks hosts of a file, not this machine")
                .hint("`--targets hosts:FILE` names some"))
        }
    }
}

fn bounded(name: &str, value: u64, most: u64) -> Result<u64> {
    if (1..=most).contains(&value) {
        return Ok(value);
    }
    Err(Error::usage(format!("`{name}` cannot be {value}")).hint(format!("use 1 to {most}")))
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
