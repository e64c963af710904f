//! Collecting the hosts of files over SSH: the list, the client, the program for hosts without osquery.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;

use super::super::App;
use super::gather::collect;
use super::interrupt::unless_interrupted;
use super::plan::Plan;
use super::{Collection, CollectorName, bounded, collection, on_path};
use crate::collect::remote::HostLimits;
use crate::collect::ssh::{Client, HostKeys, Program, SshCollector, SshConfig};
use crate::error::{Error, Result};
use crate::ingest::Finished;
use crate::model::KnownHost;
use crate::target::{ListedHost, TargetHost, TargetSpec, hosts_of_files};

/// The program that runs, wherever it was started from.
const THIS_PROGRAM: &str = "/proc/self/exe";
/// The longest that can be waited for a connection or for queries, in seconds.
const LONGEST_CONNECT: u64 = 600;
const LONGEST_SECONDS: u64 = 160_000;

/// Options of collections over SSH.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "SSH options")]
pub(super) struct SshArgs {
    /// The configuration that ssh reads in place of the user's own
    #[arg(long, value_name = "FILE")]
    ssh_config: Option<PathBuf>,
    /// Which host keys are believed
    #[arg(long, value_enum, default_value_t = Keys::Known)]
    host_keys: Keys,
    /// How long a connection to a host may take, in seconds; the login may take 50 more
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    connect_timeout: u64,
    /// Ask as root through `sudo -n`; without it, hosts show what the login may see
    #[arg(long)]
    sudo: bool,
    /// Bring a diffy for Linux to hosts without osquery, run its native collector and remove it [default FILE: this program]
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = THIS_PROGRAM)]
    push_binary: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Keys {
    /// Those in known_hosts, and no other.
    Known,
    /// Those that the SSH configuration believes (StrictHostKeyChecking); never more.
    Config,
}

/// Collects one fleet over SSH.
pub(super) async fn collect_over_ssh(app: &App, args: &super::Args, plan: Plan) -> Result<Finished> {
    if args.collector.is_some_and(|name| name != CollectorName::Ssh) {
        return Err(Error::usage("hosts of a file are asked through `--collector ssh`")
            .hint("leave `--collector` out"));
    }
    let program = on_path(app, "ssh").ok_or_else(|| {
        Error::usage("there is no `ssh` on PATH").hint("Diffy uses your own OpenSSH client; install one")
    })?;
    let files: Vec<&str> = plan.targets.iter().filter_map(file).collect();
    let list = hosts_of_files(&files)?;
    list.warnings.iter().for_each(|warning| app.output.warn(warning));
    let hosts: Vec<TargetHost> = list.hosts.iter().map(known).collect();
    let places = list.hosts.into_iter().map(|host| (host.name, host.destination)).collect();
    let config = config(app, args, program)?;
    let config = SshConfig { hosts: places, ..config };
    config.check(&plan.tables)?;
    tell(app, &plan, (hosts.len(), &config));
    let store = Box::pin(unless_interrupted(app.open_or_create_store())).await?;
    let collector = Arc::new(SshCollector::new(config));
    let collection: Collection = collection(app, args, plan, (collector, hosts));
    collect(app, &store, collection).await
}

fn file(target: &TargetSpec) -> Option<&str> {
    match target {
        TargetSpec::Hosts(file) => Some(file),
        _ => None,
    }
}

/// What the list knows of a host: its names are its own, so that they do not tell it from the others. The end of a
/// tunnel here is not the host's.
fn known(host: &ListedHost) -> TargetHost {
    let place = &host.destination.host;
    let is_here =
        place == "localhost" || place.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    let names = if is_here { Vec::new() } else { vec![place.clone()] };
    TargetHost { known: KnownHost { names, ..KnownHost::new(&host.name) }, unreachable: None }
}

/// All but the hosts.
fn config(app: &App, args: &super::Args, program: PathBuf) -> Result<SshConfig> {
    let ssh = &args.ssh;
    let query_seconds = bounded("--timeout", args.timeout, LONGEST_SECONDS)?;
    let host_seconds = bounded("--host-timeout", args.host_timeout, LONGEST_SECONDS)?;
    let connect = bounded("--connect-timeout", ssh.connect_timeout, LONGEST_CONNECT)?;
    let host_keys = match ssh.host_keys {
        Keys::Known => HostKeys::Known,
        Keys::Config => HostKeys::AsConfigured,
    };
    let pushed = ssh.push_binary.as_deref().map(|path| pushed(app, path)).transpose()?;
    Ok(SshConfig {
        client: Client {
            program,
            config: ssh.ssh_config.clone(),
            host_keys,
            connect: Duration::from_secs(connect),
            sudo: ssh.sudo,
        },
        limits: HostLimits { query_seconds, host_seconds, ..HostLimits::default() },
        largest: args.largest_answer.saturating_mul(1 << 20),
        program: pushed,
        hosts: std::collections::HashMap::new(),
    })
}

/// Reads the program to be brought, and says what hosts need for it.
fn pushed(app: &App, path: &Path) -> Result<Program> {
    if path == Path::new(THIS_PROGRAM) && !cfg!(target_os = "linux") {
        return Err(Error::usage("this diffy is not for Linux, where the hosts are")
            .hint("`--push-binary FILE` names one that is"));
    }
    let program = Program::read(path)?;
    let needs = match (&program.glibc, program.is_dynamic) {
        (Some(version), _) => format!(", needs glibc {version} or newer on the host"),
        (None, true) => ", needs the host's C library".to_owned(),
        (None, false) => String::new(),
    };
    let size = indicatif::HumanBytes(program.bytes);
    app.output.say(&format!("hosts without osquery get a diffy: {size}{needs}, sha256 {}", program.sha256));
    Ok(program)
}

fn tell(app: &App, plan: &Plan, (hosts, config): (usize, &SshConfig)) {
    let who = if config.client.sudo { "root (sudo)" } else { "the login of each" };
    app.output.say(&format!("fleet {}: {hosts} hosts over SSH, as {who}", plan.fleet));
    if config.client.host_keys == HostKeys::AsConfigured {
        app.output.warn("host keys are checked as far as the SSH configuration wants it: answers may come from elsewhere if it does not");
    }
}
