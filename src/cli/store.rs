//! `diffy store`.

use std::path::PathBuf;

use clap::Subcommand;

use super::output::print;
use super::{App, Outcome};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Fleet;
use crate::store::{Database, DdlRequest, Dialect, Manifest, Store, StoredTable, ddl};

/// The table made of manifests.
const SNAPSHOTS: &str = "snapshots";

/// Make the store known to other engines
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ddl(DdlArgs),
}

/// Print the SQL with which Athena, Trino, Spark or DuckDB query this store
///
/// Each stored table with the columns that its files have, and beside them coverage, hosts, snapshots and kept findings;
/// a second database, `NAME_prev`, has the prevalence of each table. What counts is what manifests name now, so print it
/// again after a collection or a deletion. Reads the manifests, and the end of one file of each table and snapshot.
#[derive(Debug, clap::Args)]
struct DdlArgs {
    /// Whose SQL: athena, trino, spark or duckdb
    #[arg(long)]
    dialect: Dialect,
    /// Only these tables, with commas between
    #[arg(long, value_name = "TABLE", value_delimiter = ',')]
    table: Vec<String>,
    /// Only snapshots of this fleet
    #[arg(long)]
    fleet: Option<Fleet>,
    /// Only so many of the newest snapshots
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// The database or schema to make tables in; CATALOG.NAME names a catalog too
    #[arg(long, visible_alias = "schema", value_name = "NAME", default_value = "diffy")]
    database: Database,
    /// Where the store is for that engine, if elsewhere: `s3://BUCKET/PREFIX` of a copy, a path of a mount
    #[arg(long, value_name = "URL")]
    location: Option<String>,
    /// Write to a file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) async fn run(app: &App, args: Args) -> Result<Outcome> {
    let Command::Ddl(args) = args.command;
    let store = app.open_store().await?;
    let location = args.location.clone().map_or_else(|| store.location(), Ok)?;
    let manifests = manifests(app, &store, &args).await?;
    let wanted: Vec<String> = args.table.iter().map(|name| name.trim().to_owned()).collect();
    let tables = tables(&store, &manifests, &wanted).await?;
    let with_snapshots = wanted.is_empty() || wanted.iter().any(|name| name == SNAPSHOTS);
    let (dialect, database) = (args.dialect, args.database);
    let request = DdlRequest { dialect, database, location, with_snapshots };
    let text = ddl(&tables, &manifests, &request)?;
    let Some(file) = args.output.filter(|file| file.as_os_str() != "-") else {
        print(&text)?;
        return Ok(Outcome::Done);
    };
    std::fs::write(&file, text).map_err(|source| {
        Error::remote(format!("cannot write `{}`", file.display())).source(source).hint("`-o` names the file")
    })?;
    app.output.say(&format!("wrote {}", file.display()));
    Ok(Outcome::Done)
}

/// Manifests of the snapshots asked for, oldest first.
async fn manifests(app: &App, store: &Store, args: &DdlArgs) -> Result<Vec<Manifest>> {
    let found = store.commits(args.fleet.as_ref()).await?;
    found.strange.iter().for_each(|error| app.output.warn(&error.to_string()));
    let most = args.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let newest = &found.commits[found.commits.len().saturating_sub(most)..];
    let mut manifests = Vec::new();
    for manifest in store.manifests(newest).await {
        match manifest {
            Ok(manifest) => manifests.push(manifest),
            Err(error) if error.kind() == ErrorKind::Data => {
                app.output.warn(&format!("left out: {error}"));
            }
            Err(error) => return Err(error),
        }
    }
    if manifests.is_empty() {
        let of_fleet = args.fleet.as_ref().map_or_else(String::new, |fleet| format!(" of fleet `{fleet}`"));
        return Err(Error::usage(format!("store `{}` has no snapshot{of_fleet}, so no table", store.name()))
            .hint("`diffy snapshot list` shows them; `diffy collect` and `diffy import` make some"));
    }
    Ok(manifests)
}

/// The tables asked for, which must be there.
async fn tables(store: &Store, manifests: &[Manifest], wanted: &[String]) -> Result<Vec<StoredTable>> {
    let tables = store.tables(manifests, wanted).await?;
    let has = |name: &String| name == SNAPSHOTS || tables.iter().any(|table| table.name == *name);
    if let Some(absent) = wanted.iter().find(|name| !has(name)) {
        return Err(Error::usage(format!(
            "store `{}` has no table `{}`",
            store.name(),
            absent.escape_debug()
        ))
        .hint("`diffy store ddl` without `--table` has all of them"));
    }
    Ok(tables)
}
