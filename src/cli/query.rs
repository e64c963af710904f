//! `diffy query`.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use futures::StreamExt;
use std::sync::Arc;

use super::analyze::engine_config;
use super::output::{NewFile, print, print_error};
use super::prompt::{self, Column, Names, Saved};
use super::{App, Outcome};
use crate::catalog::{BoundQuery, ParamValue, Queries};
use crate::engine::cluster::Place;
use crate::engine::{Engine, Snapshots, explain_error};
use crate::error::{Error, Result};
use crate::report::analysis::findings_schema;
use crate::report::escape::escape;
use crate::report::{Format, writer};
use crate::store::{Baseline, Commit, Store};

/// Largest file of SQL, in bytes.
const MOST_SQL: u64 = 1 << 20;

/// Ask SQL questions over everything stored; without SQL, on a terminal, a prompt opens
///
/// Every osquery table is there by its name, with host, fleet, dt, snapshot and collected_at; `current.T` is the newest
/// snapshot of each fleet. Beside them: prevalence, identities, sightings, coverage, hosts, snapshots, baselines; `prev.T`
/// is the prevalence of one table with its own columns.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The question; `-` reads it from stdin
    sql: Option<String>,
    /// Read the question from a file
    #[arg(short, long, value_name = "FILE", conflicts_with = "sql")]
    file: Option<PathBuf>,
    /// Ask a saved query
    #[arg(long, value_name = "NAME", conflicts_with_all = ["sql", "file"])]
    name: Option<String>,
    /// A parameter of the saved query
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair, requires = "name")]
    param: Vec<(String, String)>,
    /// List the saved queries
    #[arg(long, conflicts_with_all = ["sql", "file", "name"])]
    list: bool,
    /// A directory of saved queries (*.sql) that add to the built-in ones [env: DIFFY_SQL]
    #[arg(long, value_name = "DIR")]
    sql_dir: Option<PathBuf>,
    /// Where it runs: local, or ballista://HOST:PORT for the executors of a cluster
    #[arg(long, value_name = "ENGINE", default_value = "local")]
    engine: Place,
    /// How the result is spelled: table, json, ndjson, csv or parquet
    #[arg(long, default_value = "table", value_parser = Format::of_rows)]
    format: Format,
    /// Write to a file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) async fn run(app: &App, args: Args) -> Result<Outcome> {
    let queries = app.queries(args.sql_dir.as_ref())?;
    if args.list {
        print(
            &queries
                .iter()
                .map(|query| format!("{:<32} {}\n", query.name, escape(&query.sentence)))
                .collect::<String>(),
        )?;
        return Ok(Outcome::Done);
    }
    let question = question(&args, &queries)?;
    let store = app.open_store().await?;
    let found = store.commits(None).await?;
    found.strange.iter().for_each(|error| app.output.warn(&error.to_string()));
    question.iter().try_for_each(|question| has_snapshots(question, &found.commits))?;
    let engine =
        Engine::of_store(&store, Snapshots::Named(found.commits), &app.catalog, &engine_config(app))?
            .running_at(&args.engine, &store)?;
    engine.register_batches("findings", vec![RecordBatch::new_empty(findings_schema())])?;
    match question {
        Some(question) => ask(app, (&store, &engine), question, &args).await?,
        None => open_prompt(app, (&store, &engine), &queries, &args).await?,
    }
    Ok(Outcome::Done)
}

/// A snapshot that is compared with must be there: with none, every row is new.
fn has_snapshots(question: &BoundQuery, commits: &[Commit]) -> Result<()> {
    for (name, value) in &question.params {
        let ParamValue::Snapshot(snapshot) = value else { continue };
        if !commits.iter().any(|commit| commit.snapshot == *snapshot) {
            return Err(Error::usage(format!("`{name}`: there is no snapshot `{snapshot}`"))
                .hint("`diffy snapshot list` lists them"));
        }
    }
    Ok(())
}

/// Reads what a question names and the engine does not read by itself.
async fn register(app: &App, (store, engine): (&Store, &Engine), sql: &str) -> Result<()> {
    if engine.names(sql, "baselines") {
        engine.register_batches("baselines", vec![baselines_table(&store.baselines(None).await?)?])?;
    }
    if engine.names(sql, "findings") {
        engine.register_batches("findings", kept_findings(app, store).await?)?;
    }
    Ok(())
}

/// What flags ask; `None` opens the prompt.
fn question(args: &Args, queries: &Queries) -> Result<Option<BoundQuery>> {
    if let Some(name) = &args.name {
        let params: BTreeMap<String, String> = args.param.iter().cloned().collect();
        return queries.get(name)?.bind(&params).map(Some);
    }
    let plain = |sql| Ok(Some(BoundQuery { sql, params: Vec::new() }));
    if let Some(file) = &args.file {
        let text = std::fs::File::open(file).and_then(read_sql);
        return plain(
            text.map_err(|source| Error::usage(format!("cannot read `{}`", file.display())).source(source))?,
        );
    }
    let from_stdin = || {
        read_sql(std::io::stdin()).map_err(|source| Error::usage("cannot read SQL from stdin").source(source))
    };
    match args.sql.as_deref() {
        Some("-") => plain(from_stdin()?),
        Some(sql) => plain(sql.to_owned()),
        None if std::io::stdin().is_terminal() => Ok(None),
        None => plain(from_stdin()?),
    }
}

fn read_sql(from: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    from.take(MOST_SQL).read_to_string(&mut text)?;
    Ok(text)
}

async fn ask(app: &App, (store, engine): (&Store, &Engine), question: BoundQuery, args: &Args) -> Result<()> {
    if question.sql.trim().is_empty() {
        return Err(Error::usage("there is no question")
            .hint("give SQL, `--name QUERY` or `-f FILE`; `--list` lists saved queries"));
    }
    register(app, (store, engine), &question.sql).await?;
    let rows = engine.ask(&question).await;
    engine.damaged().iter().for_each(|error| app.output.warn(&error.to_string()));
    let mut rows = rows?;
    let destination = app.output.open(args.output.as_deref(), args.format)?;
    let mut writer = writer(args.format, destination.writer, app.output.width, destination.color)?;
    writer.schema(&rows.schema())?;
    while let Some(batch) = rows.next().await {
        writer.write(&batch.map_err(|error| explain_error(error, engine))?)?;
    }
    let written = writer.finish()?;
    destination.file.map_or(Ok(()), NewFile::keep)?;
    if args.format == Format::Table {
        let cut = match written.cut_values {
            0 => String::new(),
            cut => format!("; {cut} values are cut to the width, `--format json` shows them whole"),
        };
        app.output.say(&format!("{} rows{cut}", written.rows));
    }
    Ok(())
}

/// The `findings` table: what `analyze --keep` kept.
async fn kept_findings(app: &App, store: &Store) -> Result<Vec<RecordBatch>> {
    let (mut batches, unreadable) = store.kept_findings().await?;
    unreadable.iter().for_each(|error| app.output.warn(&error.to_string()));
    batches.push(RecordBatch::new_empty(findings_schema()));
    Ok(batches)
}

/// What the prompt completes, read once.
struct KnownNames {
    columns: BTreeMap<String, Vec<Column>>,
    saved: Vec<Saved>,
}

impl Names for KnownNames {
    fn tables(&self) -> Vec<String> {
        self.columns.keys().cloned().collect()
    }

    fn columns(&self, table: &str) -> Vec<Column> {
        self.columns.get(table).cloned().unwrap_or_default()
    }

    fn saved(&self) -> Vec<Saved> {
        self.saved.clone()
    }
}

async fn known_names(engine: &Engine, queries: &Queries) -> Result<KnownNames> {
    let mut columns = BTreeMap::new();
    for table in engine.table_names().await? {
        let Ok(schema) = engine.columns_of(&table).await else { continue };
        let of_table = schema
            .fields()
            .iter()
            .map(|field| Column { name: field.name().clone(), kind: field.data_type().to_string() });
        let of_table: Vec<Column> = of_table.collect();
        columns.insert(format!("current.{table}"), of_table.clone());
        columns.insert(table, of_table);
    }
    let saved =
        queries.iter().map(|query| Saved { name: query.name.clone(), question: query.sentence.clone() });
    Ok(KnownNames { columns, saved: saved.collect() })
}

async fn open_prompt(
    app: &App,
    (store, engine): (&Store, &Engine),
    queries: &Queries,
    args: &Args,
) -> Result<()> {
    let names = known_names(engine, queries).await?;
    app.output.say("\\? for help, \\d for the tables, Ctrl-D to quit");
    let runtime = tokio::runtime::Handle::current();
    let mut execute = |sql: &str| {
        let question = BoundQuery { sql: sql.to_owned(), params: Vec::new() };
        runtime.block_on(async {
            tokio::select! {
                // The query, not the prompt.
                biased;
                _ = tokio::signal::ctrl_c() => Err(Error::usage("interrupted")),
                asked = ask(app, (store, engine), question, args) => asked,
            }
        })
    };
    // The prompt blocks this thread; the queries run on the others.
    tokio::task::block_in_place(|| {
        prompt::run(&names, app.settings.history.as_deref(), &mut execute, &mut |error| print_error(error))
    })
}

/// The `baselines` table.
fn baselines_table(baselines: &[Baseline]) -> Result<RecordBatch> {
    let text = |of: fn(&Baseline) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(baselines.iter().map(of)))
    };
    let moment = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    let created = baselines.iter().map(|baseline| Some(baseline.created.timestamp_millis()));
    let rows =
        baselines.iter().map(|baseline| baseline.tables.values().map(|table| table.rows as i64).sum::<i64>());
    let schema = Schema::new(vec![
        Field::new("fleet", DataType::Utf8, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("created", moment, true),
        Field::new("created_by", DataType::Utf8, true),
        Field::new("snapshots", DataType::Utf8, true),
        Field::new("rows", DataType::Int64, true),
    ]);
    let columns: Vec<ArrayRef> = vec![
        text(|baseline| baseline.fleet.to_string()),
        text(|baseline| baseline.name.clone()),
        Arc::new(created.collect::<TimestampMillisecondArray>().with_timezone("UTC")),
        text(|baseline| baseline.created_by.clone()),
        text(|baseline| {
            baseline.origin.snapshots().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        }),
        Arc::new(Int64Array::from_iter_values(rows)),
    ];
    RecordBatch::try_new(Arc::new(schema), columns)
        .map_err(|source| Error::internal("cannot build the baselines table").source(source))
}
