//! `diffy plugins`.

mod found;

use std::path::PathBuf;
use std::sync::Arc;

use clap::{CommandFactory, Subcommand};
use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use futures::{StreamExt, stream};

use self::found::Found;
pub(super) use self::found::{Kind, command, on_path, plugin};
use super::collect::interrupt::unless_interrupted;
use super::output::{NewFile, print};
use super::{App, Cli, Outcome};
use crate::analyze::Method;
use crate::collect::plugin::{Description, Plugin, describe};
use crate::error::{Error, Result};
use crate::report::escape::escape;
use crate::report::{Format, writer};
use crate::target::TargetSpec;

/// Plugins that are asked at once what they are.
const ASKED_AT_ONCE: usize = 8;

/// Show what is built in, and the plugins on PATH
///
/// A plugin is a program called `diffy-target-NAME` or `diffy-collector-NAME`: `--targets NAME:ARGUMENT` and
/// `--collector NAME` run it. docs/plugins.md says what it is told and what it prints.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One line for each target, collector, format and method
    List {
        /// Run no plugin to ask what it is
        #[arg(long)]
        no_describe: bool,
        /// How the result is spelled: table, json, ndjson, csv or parquet
        #[arg(long, default_value = "table", value_parser = Format::of_rows)]
        format: Format,
        /// Write to a file instead of stdout
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// A line of the list.
#[derive(Debug, Default)]
struct Line {
    kind: String,
    name: String,
    path: Option<String>,
    version: Option<String>,
    description: String,
    problem: Option<String>,
}

pub(super) async fn run(app: &App, args: Args) -> Result<Outcome> {
    let Command::List { no_describe, format, output } = args.command;
    let found = found::all(&app.settings.path);
    let asked = stream::iter(found).map(|found| of_plugin(found, !no_describe));
    let mut lines = built_in();
    // Dropped when somebody wants the end, which ends the plugins.
    let described = async { Ok(asked.buffered(ASKED_AT_ONCE).collect::<Vec<Line>>().await) };
    lines.extend(unless_interrupted(described).await?);
    if format == Format::Table && output.is_none() {
        print(&lines.iter().map(text).collect::<String>())?;
        return Ok(Outcome::Done);
    }
    let batch = batch(&lines)?;
    let destination = app.output.open(output.as_deref(), format)?;
    let mut writer = writer(format, destination.writer, app.output.width, destination.color)?;
    writer.schema(&batch.schema())?;
    writer.write(&batch)?;
    writer.finish()?;
    destination.file.map_or(Ok(()), NewFile::keep)?;
    Ok(Outcome::Done)
}

fn built_in() -> Vec<Line> {
    let line = |kind: &str, name: &str, description: String| Line {
        kind: kind.to_owned(),
        name: name.to_owned(),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        description,
        ..Line::default()
    };
    let mut lines: Vec<Line> =
        TargetSpec::FORMS.iter().map(|(form, what)| line("target", form, (*what).to_owned())).collect();
    let of_flags = [("collector", "collect", "collector"), ("import format", "import", "format")];
    for (kind, command, flag) in of_flags {
        lines.extend(values(command, flag).into_iter().map(|(name, what)| line(kind, &name, what)));
    }
    lines.extend(Format::ALL.iter().map(|format| line("output format", format.as_str(), String::new())));
    lines.extend(Method::ALL.iter().map(|method| line("method", method.as_str(), String::new())));
    lines
}

/// The values that a flag of ours may have, with their help: what is built in is said once.
fn values(command: &str, flag: &str) -> Vec<(String, String)> {
    let cli = Cli::command();
    let command = cli.find_subcommand(command);
    let flag = command.and_then(|command| command.get_arguments().find(|argument| argument.get_id() == flag));
    let values = flag.map(clap::Arg::get_possible_values).unwrap_or_default();
    let help = |value: &clap::builder::PossibleValue| value.get_help().map(ToString::to_string);
    values.iter().map(|value| (value.get_name().to_owned(), help(value).unwrap_or_default())).collect()
}

async fn of_plugin(found: Found, may_ask: bool) -> Line {
    let line = Line {
        kind: found.kind.as_str().to_owned(),
        name: found.name.clone(),
        path: Some(found.path.display().to_string()),
        ..Line::default()
    };
    if found.unused.is_some() {
        return Line { problem: found.unused.map(ToOwned::to_owned), ..line };
    }
    // To list what somebody else may have put there is no reason to run it.
    if found.warning.is_some() || !may_ask {
        return Line { problem: found.warning, ..line };
    }
    let plugin = Plugin { name: found.name, path: found.path, args: Vec::new(), is_on_path: true };
    match describe(&plugin).await {
        Ok(Description { version, description }) => Line { version: Some(version), description, ..line },
        Err(problem) => Line { problem: Some(problem), ..line },
    }
}

/// A line for eyes; where a plugin is and what is wrong with it stand below it.
fn text(line: &Line) -> String {
    let version = match (&line.path, &line.version) {
        (Some(_), Some(version)) if !version.is_empty() => format!(" ({version})"),
        _ => String::new(),
    };
    let head = format!("{:<14} {:<16} {}{version}", line.kind, escape(&line.name), escape(&line.description));
    let below = [&line.path, &line.problem].into_iter().flatten();
    let below: String = below.map(|text| format!("{:<31} {}\n", "", escape(text))).collect();
    format!("{}\n{below}", head.trim_end())
}

fn batch(lines: &[Line]) -> Result<RecordBatch> {
    let text = |of: fn(&Line) -> Option<&str>| -> ArrayRef {
        Arc::new(lines.iter().map(of).collect::<StringArray>())
    };
    let columns = [
        ("kind", text(|line| Some(&line.kind))),
        ("name", text(|line| Some(&line.name))),
        ("version", text(|line| line.version.as_deref())),
        ("description", text(|line| Some(&line.description))),
        ("path", text(|line| line.path.as_deref())),
        ("problem", text(|line| line.problem.as_deref())),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(name, _)| Field::new(*name, DataType::Utf8, true)).collect();
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .map_err(|source| Error::internal("cannot build the list of plugins").source(source))
}
