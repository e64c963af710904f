//! The command line: one file per command, the doc comments are the help. Data goes to stdout, all else to stderr.

mod analyze;
mod answer;
mod baseline;
mod cluster;
mod collect;
mod demo;
mod import;
mod man;
mod output;
mod plugins;
pub mod progress;
pub mod prompt;
mod query;
mod report;
mod snapshot;
mod sql;
mod store;
mod suppress;
mod tables;

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

use self::output::Output;
use self::progress::ProgressMode;
use crate::aws::AwsSettings;
use crate::catalog::{Catalog, Queries};
use crate::config::{Flags, Settings, no_color};
use crate::error::{Error, ErrorKind, Result};
use crate::report::is_broken_pipe;
use crate::store::{RequestCounts, Requests, S3Settings, Store, StoreConfig};

/// Which of these near-identical hosts need a look, and because of which rows.
///
/// Collects osquery tables from every host of a fleet into Parquet, and compares the hosts with each other and with
/// a baseline. Exit status: 0 done; 1 failed; 2 bad usage or configuration; 3 done and at least one host is an outlier
/// (analyze --exit-code); 4 a collection reached fewer hosts than --min-success.
#[derive(Debug, Parser)]
#[command(name = "diffy", version, disable_help_subcommand = true, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
struct Global {
    /// The store: a directory, file:// URL or s3://BUCKET/PREFIX [default: ./diffy-store] [env: DIFFY_STORE]
    #[arg(long, global = true, help_heading = "Global options", value_name = "URL")]
    store: Option<String>,
    /// The configuration file [default: diffy.toml, if there is one] [env: DIFFY_CONFIG]
    #[arg(long, global = true, help_heading = "Global options", value_name = "FILE")]
    config: Option<PathBuf>,
    /// A directory of table schemas (*.toml) that add to the built-in ones or replace them [env: DIFFY_SCHEMAS]
    #[arg(long, global = true, help_heading = "Global options", value_name = "DIR")]
    schemas: Option<PathBuf>,
    /// Memory that sorts and queries may hold, in MiB, at least 32; more is spilled to disk [default: 384] [env:
    /// DIFFY_MEMORY_LIMIT]
    #[arg(long, global = true, help_heading = "Global options", value_name = "MIB")]
    memory_limit: Option<u64>,
    /// When to use colour
    #[arg(long, global = true, help_heading = "Global options", value_enum, default_value_t = When::Auto)]
    color: When,
    /// When to show progress on stderr
    #[arg(long, global = true, help_heading = "Global options", value_enum, default_value_t = ProgressMode::Auto)]
    progress: ProgressMode,
    /// Say more on stderr; twice for even more
    #[arg(short, long, global = true, help_heading = "Global options", action = clap::ArgAction::Count)]
    verbose: u8,
    /// Say nothing on stderr but errors
    #[arg(short, long, global = true, help_heading = "Global options", conflicts_with = "verbose")]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum When {
    /// When stdout is a terminal and NO_COLOR is not set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Collect(collect::Args),
    Import(import::Args),
    Analyze(analyze::Args),
    Baseline(baseline::Args),
    Snapshot(snapshot::Args),
    Query(query::Args),
    Store(store::Args),
    Cluster(cluster::Args),
    Tables(tables::Args),
    Plugins(plugins::Args),
    #[command(hide = true)]
    Answer(answer::Args),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    Man(man::Args),
}

/// How a command that did its work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done.
    Done,
    /// Done, and at least one host is an outlier.
    Outliers,
    /// A collection reached fewer hosts than it had to.
    TooFewHosts,
    /// One table was asked for, and this machine does not have it.
    NotSupported,
    /// One table was asked for, and not all of it could be read.
    Incomplete,
}

/// What every command has at hand.
#[derive(Debug)]
struct App {
    settings: Settings,
    catalog: Catalog,
    output: Output,
    progress: ProgressMode,
    memory_limit_bytes: usize,
    threads: usize,
    /// What was asked of stores.
    requests: Requests,
}

impl App {
    fn new(global: Global) -> Result<Self> {
        let settings = Settings::load(Flags {
            store: global.store,
            config: global.config,
            schemas: global.schemas,
            sql: None,
            memory_limit_mib: global.memory_limit,
        })?;
        let mut catalog = Catalog::builtin()?;
        if let Some(dir) = &settings.schemas {
            catalog.add_dir(dir)?;
        }
        let output = Output::new(&settings, global.color, global.quiet);
        let progress = if global.quiet { ProgressMode::Never } else { global.progress };
        let memory_limit_bytes = settings.memory_limit_bytes;
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let requests = Requests::default();
        Ok(Self { settings, catalog, output, progress, memory_limit_bytes, threads, requests })
    }

    /// The store that is named, which must be there.
    async fn open_store(&self) -> Result<Store> {
        Box::pin(Store::open(&self.settings.store, &self.store_config())).await
    }

    /// The store that is named, made where there is nothing yet.
    async fn open_or_create_store(&self) -> Result<Store> {
        Box::pin(Store::open_or_create(&self.settings.store, &self.store_config())).await
    }

    fn store_config(&self) -> StoreConfig {
        let (aws, s3) = (&self.settings.aws, self.settings.s3.clone());
        StoreConfig {
            aws: AwsSettings { profile: aws.profile.clone(), region: aws.region.clone(), assume_role: None },
            way: None,
            s3: S3Settings {
                endpoint: s3.endpoint,
                region: s3.region,
                path_style: s3.path_style,
                kms_key_id: s3.kms_key_id,
                bucket_key: s3.bucket_key,
                checksum: s3.checksum,
                request_payer: s3.request_payer,
            },
            spool_dir: self.settings.spool.clone(),
            requests: self.requests.clone(),
        }
    }

    fn queries(&self, dir: Option<&PathBuf>) -> Result<Queries> {
        let mut queries = Queries::builtin()?;
        if let Some(dir) = dir.or(self.settings.sql.as_ref()) {
            queries.add_dir(dir)?;
        }
        Ok(queries)
    }
}

/// Runs the command line; errors are printed.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed stdout is no error of ours.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    start_log(&cli.global);
    match execute(cli) {
        Ok(outcome) => exit_code(outcome),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::print_error(&error);
            let is_usage = matches!(error.kind(), ErrorKind::Usage | ErrorKind::Config);
            ExitCode::from(if is_usage { 2 } else { 1 })
        }
    }
}

fn exit_code(outcome: Outcome) -> ExitCode {
    ExitCode::from(match outcome {
        Outcome::Done => 0,
        Outcome::Incomplete => 1,
        Outcome::Outliers | Outcome::NotSupported => 3,
        Outcome::TooFewHosts => 4,
    })
}

fn execute(cli: Cli) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::internal("cannot start the runtime").source(source))?;
    if let Command::Completions { shell } = cli.command {
        clap_complete::generate(shell, &mut Cli::command(), "diffy", &mut io::stdout());
        return Ok(Outcome::Done);
    }
    let app = App::new(cli.global)?;
    let done = runtime.block_on(Box::pin(dispatch(&app, cli.command)));
    tell_requests(app.requests.counts());
    // A collector's blocking read must not keep a finished command alive.
    runtime.shutdown_background();
    done
}

/// What a store on S3 would bill; the same counts for a directory.
fn tell_requests(counts: RequestCounts) {
    let bytes = |bytes| match bytes {
        0 => String::new(),
        bytes => format!(" ({})", indicatif::HumanBytes(bytes)),
    };
    let kinds = [
        (counts.get, "GET", bytes(counts.bytes_read)),
        (counts.head, "HEAD", String::new()),
        (counts.list, "LIST", String::new()),
        (counts.put, "PUT", bytes(counts.bytes_written)),
        (counts.delete, "DELETE", String::new()),
    ];
    let told = kinds.iter().filter(|(count, ..)| *count > 0);
    let told: Vec<String> = told.map(|(count, kind, bytes)| format!("{count} {kind}{bytes}")).collect();
    if !told.is_empty() {
        tracing::info!("requests: {}", told.join(", "));
    }
}

async fn dispatch(app: &App, command: Command) -> Result<Outcome> {
    match command {
        Command::Demo(args) => demo::run(app, args).await,
        Command::Collect(args) => collect::run(app, args).await,
        Command::Import(args) => import::run(app, args).await,
        Command::Analyze(args) => analyze::run(app, args).await,
        Command::Baseline(args) => baseline::run(app, args).await,
        Command::Snapshot(args) => snapshot::run(app, args).await,
        Command::Query(args) => query::run(app, args).await,
        Command::Store(args) => store::run(app, args).await,
        Command::Cluster(args) => cluster::run(app, args).await,
        Command::Tables(args) => tables::run(app, args),
        Command::Plugins(args) => plugins::run(app, args).await,
        Command::Answer(args) => answer::run(args).await,
        Command::Completions { .. } => Ok(Outcome::Done),
        Command::Man(args) => man::run(&app.output, args),
    }
}

fn start_log(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => tracing::Level::ERROR,
        (_, 0) => tracing::Level::WARN,
        (_, 1) => tracing::Level::INFO,
        _ => tracing::Level::DEBUG,
    };
    let filter = tracing_subscriber::filter::Targets::new()
        .with_default(tracing::Level::WARN)
        // What it would say is in our own errors, and it knows the operator's credentials.
        .with_target("aws_", tracing_subscriber::filter::LevelFilter::OFF)
        .with_target("diffy", level);
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;
    let color = match global.color {
        When::Always => true,
        When::Never => false,
        When::Auto => io::stderr().is_terminal() && !no_color(),
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_target(false).without_time();
    let layer = layer.with_ansi(color);
    // A second start within one process (tests) keeps the first.
    let _ = tracing_subscriber::registry().with(filter).with(layer).try_init();
}
