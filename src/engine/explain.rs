//! DataFusion's errors in our words: what is not there, what looks like it, and whose fault it is.

use datafusion::common::{Column, SchemaError};
use datafusion::error::DataFusionError;

use super::Engine;
use super::library::Scope;
use crate::catalog::nearest;
use crate::error::{Error, ErrorKind};

/// Columns that a hint lists at most.
const LISTED: usize = 40;

/// What went wrong with a query, with a way out where there is one.
///
/// Names that are not there and texts that are no query are of kind `Usage`; what could not be read is `Data` or
/// `Remote`; a query that needs more memory than it may have is `Config`.
pub fn explain_error(error: DataFusionError, engine: &Engine) -> Error {
    match error.find_root() {
        DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => no_column(field, valid_fields),
            other => Error::usage(other.to_string()),
        },
        DataFusionError::Plan(text) => match missing_table(text) {
            Some(name) => no_table(&name, engine),
            None => Error::usage(uncapitalised(text)),
        },
        DataFusionError::SQL(parser, _) => Error::usage(uncapitalised(&parser.to_string()))
            .hint("queries are SQL as DataFusion and PostgreSQL spell it"),
        DataFusionError::ResourcesExhausted(_) => {
            Error::config("the query needs more memory than it may have")
                .source(error)
                .hint("raise the memory limit, or ask for fewer rows, columns or snapshots")
        }
        _ => match Error::below(&error) {
            Some(told) => {
                let error = Error::new(told.kind(), format!("the query failed: {told}"));
                told.hint_text().into_iter().fold(error, Error::hint)
            }
            None => Error::new(kind_of(&error), "the query failed").source(error),
        },
    }
}

fn kind_of(error: &DataFusionError) -> ErrorKind {
    match error.find_root() {
        DataFusionError::NotImplemented(_) | DataFusionError::Execution(_) => ErrorKind::Usage,
        DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) => ErrorKind::Remote,
        DataFusionError::Internal(_) => ErrorKind::Internal,
        _ => ErrorKind::Data,
    }
}

/// The name in DataFusion's `table 'diffy.public.proceses' not found`.
fn missing_table(text: &str) -> Option<String> {
    let name = text.strip_prefix("table '")?.split_once("' not found")?.0;
    Some(name.strip_prefix("diffy.").unwrap_or(name).to_owned())
}

fn no_table(name: &str, engine: &Engine) -> Error {
    let (schema, table) = name.rsplit_once('.').unwrap_or((Scope::All.name(), name));
    let Some(scope) = Scope::LIST.into_iter().find(|scope| scope.name() == schema) else {
        return Error::usage(format!("no table `{name}`"))
            .hint("tables are in the schemas `public` (the default), `current`, `prev` and `current_prev`");
    };
    let shown = if scope == Scope::All { table.to_owned() } else { format!("{schema}.{table}") };
    let names = engine.library.names(scope);
    let hint = "`diffy tables list` and `SHOW TABLES` list the tables";
    match nearest(table, names.iter().map(String::as_str)) {
        Some(near) if scope == Scope::All => did_you_mean("table", &shown, near).hint(hint),
        Some(near) => did_you_mean("table", &shown, &format!("{schema}.{near}")).hint(hint),
        None => Error::usage(format!("no table `{shown}`")).hint(hint),
    }
}

fn no_column(column: &Column, valid: &[Column]) -> Error {
    let names: Vec<&str> = valid.iter().map(Column::name).collect();
    let error = match nearest(column.name(), names.iter().copied()) {
        Some(near) => did_you_mean("column", &column.to_string(), near),
        None => Error::usage(format!("no column `{column}`")),
    };
    let mut listed = names.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
    if names.len() > LISTED {
        listed.push_str(", …");
    }
    if listed.is_empty() { error } else { error.hint(format!("there are: {listed}")) }
}

fn did_you_mean(what: &str, name: &str, near: &str) -> Error {
    Error::usage(format!("no {what} `{name}`; did you mean `{near}`?"))
}

fn uncapitalised(text: &str) -> String {
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().chain(std::iter::once(second)).chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}
