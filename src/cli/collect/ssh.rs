//! Asking hosts over SSH: the client, and the program for hosts without osquery.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;

use super::super::App;
use super::super::plugins::on_path;
use super::bounded;
use super::plan::Plan;
use crate::collect::Collector;
use crate::collect::ssh::{Client, HostKeys, Program, SshCollector, SshConfig};
use crate::config::{FleetFile, PushBinary};
use crate::error::{Error, Result};
use crate::model::count;
use crate::target::TargetHost;

/// The program that runs, wherever it was started from.
const THIS_PROGRAM: &str = "/proc/self/exe";
/// The longest that can be waited for a connection, in seconds.
const LONGEST_CONNECT: u64 = 600;

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

/// What a fleet of the configuration may say too: a flag names another file, or adds what the file leaves out.
#[derive(Debug, Clone)]
pub(super) struct SshWay {
    config: Option<PathBuf>,
    sudo: bool,
    push_binary: Option<PathBuf>,
}

impl SshArgs {
    /// These flags, and below them what the fleet says.
    pub(super) fn way(&self, file: &FleetFile) -> SshWay {
        let of_file = SshWay::of(file);
        SshWay {
            config: self.ssh_config.clone().or(of_file.config),
            sudo: self.sudo || of_file.sudo,
            push_binary: self.push_binary.clone().or(of_file.push_binary),
        }
    }
}

impl SshWay {
    pub(super) fn of(file: &FleetFile) -> Self {
        let push_binary = match &file.push_binary {
            Some(PushBinary::File(path)) => Some(path.clone()),
            Some(PushBinary::Own(true)) => Some(PathBuf::from(THIS_PROGRAM)),
            Some(PushBinary::Own(false)) | None => None,
        };
        Self { config: file.ssh_config.clone(), sudo: file.sudo, push_binary }
    }

    /// One of its words that somebody said, as it is said.
    pub(super) fn said(&self) -> Option<&'static str> {
        match self {
            Self { sudo: true, .. } => Some("`--sudo` (`sudo` in diffy.toml)"),
            Self { push_binary: Some(_), .. } => Some("`--push-binary` (`push_binary` in diffy.toml)"),
            Self { config: Some(_), .. } => Some("`--ssh-config` (`ssh_config` in diffy.toml)"),
            _ => None,
        }
    }
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
pub(super) fn config(app: &App, args: &super::Args, plan: &Plan) -> Result<SshConfig> {
    let program = on_path(&app.settings.path, "ssh").ok_or_else(|| {
        Error::usage("there is no `ssh` on PATH").hint("Diffy uses your own OpenSSH client; install one")
    })?;
    let (ssh, way) = (&args.ssh, &plan.ssh);
    let connect = bounded("--connect-timeout", ssh.connect_timeout, LONGEST_CONNECT)?;
    let host_keys = match ssh.host_keys {
        Keys::Known => HostKeys::Known,
        Keys::Config => HostKeys::AsConfigured,
    };
    let pushed = way.push_binary.as_deref().map(|path| pushed(app, path)).transpose()?;
    let config = SshConfig {
        client: Client {
            program,
            config: way.config.clone(),
            host_keys,
            connect: Duration::from_secs(connect),
            sudo: way.sudo,
        },
        limits: args.host_limits()?,
        largest: args.largest_answer_bytes(),
        program: pushed,
        hosts: HashMap::new(),
    };
    config.check(&plan.tables)?;
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
    app.output.say(&format!("fleet {}: {} over SSH, as {who}", plan.fleet, count(hosts as u64, "host")));
    if config.client.host_keys == HostKeys::AsConfigured {
        app.output.warn("host keys are checked as far as the SSH configuration wants it: answers may come from elsewhere if it does not");
    }
}
