//! `diffy tables`.

use std::fmt::Write;

use clap::Subcommand;

use super::output::print;
use super::{App, Outcome};
use crate::catalog::{ColumnSpec, PriorSpec, Role, Strength, TableSpec};
use crate::error::{Error, Result};
use crate::report::escape::escape;

/// Show the table schemas: query, identity, volatile columns, ATT&CK techniques
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One line for each table
    List,
    /// All of one table
    Show {
        /// The table
        table: String,
    },
}

pub(super) fn run(app: &App, args: Args) -> Result<Outcome> {
    let text = match args.command {
        Command::List => app.catalog.tables().map(line).collect(),
        Command::Show { table } => show(find(app, &table)?),
    };
    print(&text)?;
    Ok(Outcome::Done)
}

/// The declared table of that name, or an error that says which looks like it.
pub(super) fn find<'a>(app: &'a App, name: &str) -> Result<&'a TableSpec> {
    app.catalog.table(name).ok_or_else(|| {
        let error = Error::usage(format!("no schema declares table `{}`", name.escape_debug()));
        match app.catalog.nearest(name) {
            Some(nearest) => error.hint(format!("did you mean `{nearest}`?")),
            None => error.hint("`diffy tables list` shows the tables; `--schemas DIR` adds some"),
        }
    })
}

fn line(spec: &TableSpec) -> String {
    let identity: Vec<&str> = spec.identity(Strength::Loose).map(|column| column.name.as_str()).collect();
    format!(
        "{:<24} {:.2}  {:<11} {}\n",
        spec.name,
        spec.weight,
        spec.attack.first().map_or("", String::as_str),
        escape(&identity.join(", "))
    )
}

fn show(spec: &TableSpec) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{}\n{}\n", spec.name, escape(&spec.description));
    let _ = writeln!(text, "platforms   {}", spec.platforms.join(", "));
    let _ = writeln!(
        text,
        "weight      {:.2}  (how much a row that only one host has speaks for a compromise, 0 to 1)",
        spec.weight
    );
    let _ = writeln!(text, "ATT&CK      {}", spec.attack.join(", "));
    let _ = writeln!(text, "query       {}", escape(&spec.query));
    for (label, strength) in [("loose id", Strength::Loose), ("strict id", Strength::Strict)] {
        let names: Vec<&str> = spec.identity(strength).map(|column| column.name.as_str()).collect();
        let _ = writeln!(text, "{label:<11} {}", names.join(", "));
    }
    text.push('\n');
    spec.columns.iter().for_each(|column| text.push_str(&column_line(column)));
    if !spec.priors.is_empty() {
        text.push_str("\npriors, in bits that are added to the surprise of a row that stands out:\n");
        spec.priors.iter().for_each(|prior| text.push_str(&prior_lines(prior)));
    }
    text
}

fn column_line(column: &ColumnSpec) -> String {
    let role = match (column.role, column.strength) {
        (Role::Identity, Some(Strength::Strict)) => "identity (strict)",
        (Role::Identity, _) => "identity",
        (Role::Context, _) => "context",
        (Role::Volatile, _) => "volatile",
        (Role::Measure, _) => "measure",
    };
    let kind = format!("{:?}", column.kind).to_lowercase();
    format!("{:<20} {kind:<8} {role:<18} {}\n", column.name, escape(&column.description))
}

fn prior_lines(prior: &PriorSpec) -> String {
    format!("{:>4}  {}\n      {}\n", prior.bits, escape(&prior.says), escape(&prior.condition()))
}
