//! Prevalence of one table made again of its rows, as SQL.

use crate::catalog::{Normaliser, OWN_COLUMNS, TableSpec, is_table_name};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::identity::Identifier;
use crate::store::Manifest;

/// The question whose answer has the lines of a table, as stored prevalence has them.
///
/// Lines are told apart by the ids, and by the values that no host's own name can stand in; of the others one is taken.
/// They come in one order whoever answers, for the first of equals is what a finding shows.
///
/// # Errors
/// The table's columns cannot be read.
pub(super) async fn question(engine: &Engine, manifest: &Manifest, spec: &TableSpec) -> Result<String> {
    // An identifier cannot be a parameter.
    if !is_table_name(&spec.name) {
        return Err(Error::internal(format!("`{}` is no table name", spec.name)));
    }
    let without = manifest.prevalence_without.get(&spec.name).map(Vec::as_slice).unwrap_or_default();
    // Not those of stored prevalence, which may be what is damaged.
    let columns = engine.columns_of(&format!("public.{}", spec.name)).await?;
    let names = columns.fields().iter().map(|field| field.name());
    let of_table: Vec<String> = names.filter(|name| !OWN_COLUMNS.contains(&name.as_str())).cloned().collect();
    let identifier = Identifier::new(spec, &of_table, without);
    let compared = identifier.grain_columns().map(|column| &column.name);
    let (mut shown, mut apart) = (String::new(), String::new());
    for name in compared.filter(|name| of_table.contains(name)) {
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        if may_name_the_host(spec, name) {
            shown.push_str(&format!("min(r.{quoted}) AS {quoted}, "));
        } else {
            shown.push_str(&format!("r.{quoted}, "));
            apart.push_str(&format!(", r.{quoted}"));
        }
    }
    Ok(format!(
        "SELECT {shown}r.loose_id, r.strict_id, bitmap_or(bitmap(h.ordinal)) AS members \
         FROM public.{} AS r INNER JOIN hosts AS h ON h.host = r.host \
         WHERE r.snapshot = $snapshot AND h.snapshot = $snapshot \
         GROUP BY r.loose_id, r.strict_id{apart} \
         ORDER BY r.loose_id, r.strict_id, bitmap_count(bitmap_or(bitmap(h.ordinal))) DESC{apart}",
        spec.name
    ))
}

/// Whether prevalence has a placeholder for own names in this column; undeclared ones are evened out too.
fn may_name_the_host(spec: &TableSpec, name: &str) -> bool {
    let own = [Normaliser::SelfNames, Normaliser::Addr];
    let column = spec.columns.iter().find(|column| column.name == name);
    column.is_none_or(|column| column.normalise.iter().any(|normaliser| own.contains(normaliser)))
}
