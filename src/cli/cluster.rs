//! `diffy cluster`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Subcommand;

use super::{App, Outcome};
use crate::engine::cluster::{ExecutorConfig, Scheduler, run_executor};
use crate::error::Result;

/// Run queries on several machines: a scheduler, and executors that work for it
///
/// For a program that is built with the feature `ballista`. The nodes are started with the same store, and asked with
/// `diffy query --engine ballista://HOST:PORT`. They know no passwords: keep them in a network of their own.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Cut queries into tasks and hand them to executors
    Scheduler {
        /// Where to listen for executors and questions
        #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:50050")]
        bind: SocketAddr,
    },
    /// Work on tasks of a scheduler
    Executor(ExecutorArgs),
}

#[derive(Debug, clap::Args)]
struct ExecutorArgs {
    /// The scheduler
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:50050")]
    scheduler: String,
    /// Where to hand out what was made
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:50051")]
    bind: SocketAddr,
    /// The name or address that the others reach it by [default: where the scheduler sees it come from]
    #[arg(long, value_name = "HOST")]
    advertise: Option<String>,
    /// Below which what was made lies until it was fetched [default: that of temporary files]
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,
    /// Tasks that are worked on at once [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    cores: Option<u16>,
}

pub(super) async fn run(app: &App, args: Args) -> Result<Outcome> {
    match args.command {
        Command::Scheduler { bind } => schedule(app, bind).await,
        Command::Executor(args) => execute(app, args).await,
    }?;
    Ok(Outcome::Done)
}

async fn schedule(app: &App, bind: SocketAddr) -> Result<()> {
    let store = app.open_store().await?;
    let scheduler = Scheduler::bind(&store, bind).await?;
    warn_of_strangers(app, scheduler.address());
    app.output.say(&format!("scheduler at {}", scheduler.address()));
    tokio::select! {
        ended = scheduler.run() => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn execute(app: &App, args: ExecutorArgs) -> Result<()> {
    let store = app.open_store().await?;
    let config = ExecutorConfig {
        scheduler: args.scheduler,
        bind: args.bind,
        advertise: args.advertise,
        work_dir: args.work_dir.unwrap_or_else(std::env::temp_dir),
        memory_limit_bytes: app.memory_limit_bytes,
        threads: args.cores.map_or(app.threads, usize::from),
    };
    let started = |address: SocketAddr| {
        warn_of_strangers(app, address);
        app.output.say(&format!("executor at {address}, for {}", config.scheduler));
    };
    run_executor(&store, config.clone(), started).await
}

/// Ballista asks nobody who they are.
fn warn_of_strangers(app: &App, address: SocketAddr) {
    if !address.ip().is_loopback() {
        app.output.warn(&format!("whoever reaches {address} can read the store: no password is asked"));
    }
}
