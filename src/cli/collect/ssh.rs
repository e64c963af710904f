//! Asking hosts over SSH: the client, and the program for hosts without osquery.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;

use super::super::App;
use super::plan::Plan;
use super::{bounded, on_path};
use crate::catalog::TableSpec;
use crate::collect::Collector;
use crate::collect::remote::HostLimits;
use crate::collect::ssh::{Client, HostKeys, Program, SshCollector, SshConfig};
use crate::error::{Error, Result};
use crate::target::TargetHost;

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

/// The collector of these hosts.
pub(super) fn collector(
    app: &App,
    plan: &Plan,
    config: SshConfig,
    hosts: &[TargetHost],
) -> Arc<dyn Collector> {
    // Who has neither an address nor a name that could be one is told so when it is asked.
    let place = |host: &TargetHost| {
        let place = host.address.clone().or_else(|| host.known.name.parse().ok())?;
        Some((host.known.name.clone(), place))
    };
    let config = SshConfig { hosts: hosts.iter().filter_map(place).collect(), ..config };
    tell(app, plan, (hosts.len(), &config));
    Arc::new(SshCollector::new(config))
}

/// All but the hosts.
pub(super) fn config(app: &App, args: &super::Args, tables: &[TableSpec]) -> Result<SshConfig> {
    let program = on_path(app, "ssh").ok_or_else(|| {
        Error::usage("there is no `ssh` on PATH").hint("Diffy uses your own OpenSSH client; install one")
    })?;
    let ssh = &args.ssh;
    let query_seconds = bounded("--timeout", args.timeout, LONGEST_SECONDS)?;
    let host_seconds = bounded("--host-timeout", args.host_timeout, LONGEST_SECONDS)?;
    let connect = bounded("--connect-timeout", ssh.connect_timeout, LONGEST_CONNECT)?;
    let host_keys = match ssh.host_keys {
        Keys::Known => HostKeys::Known,
        Keys::Config => HostKeys::AsConfigured,
    };
    let pushed = ssh.push_binary.as_deref().map(|path| pushed(app, path)).transpose()?;
    let config = SshConfig {
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
        hosts: HashMap::new(),
    };
    config.check(tables)?;
    Ok(config)
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
