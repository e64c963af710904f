//! From the name of a scheduled query or a file to the name of a table.

use std::collections::BTreeMap;

use crate::catalog::{Catalog, OWN_TABLES, is_table_name};

/// Longest table name in bytes.
const LONGEST: usize = 64;

/// The table that a query of that name answers.
///
/// An exact table name; else, without the prefix of its pack (`pack_PACK_`, `pack/PACK/`, `pack:PACK:`), the longest
/// declared table name that the query name ends with (`pack_incident-response_listening_ports`); else the query name
/// made into a table name. One of [`OWN_TABLES`] gets `_table` behind it.
pub fn table_of_query(name: &str, catalog: &Catalog) -> String {
    if catalog.table(name).is_some() {
        return name.to_owned();
    }
    let (stem, is_pack) = without_pack(name);
    let slug = slug_of(stem);
    if catalog.table(&slug).is_some() {
        return slug;
    }
    if let Some(table) = declared_suffix(&slug, catalog) {
        return table;
    }
    not_own(match (is_pack, slug.split_once('_')) {
        // `pack_PACK_QUERY`: the name of the pack ends at the first underscore, as far as anyone can tell.
        (true, Some((_, query))) if is_table_name(query) => query.to_owned(),
        _ => slug,
    })
}

/// As [`table_of_query`], after the user's own mapping of query names to tables.
pub(super) fn mapped_table(name: &str, map: &BTreeMap<String, String>, catalog: &Catalog) -> String {
    map.get(name).map_or_else(|| table_of_query(name, catalog), |table| not_own(table.clone()))
}

/// A name made into a table name, without a look at what tables there are.
pub(super) fn plain_table(name: &str) -> String {
    not_own(slug_of(name))
}

/// The name of a file without the date or time behind it: `processes (11-22-26 10-00-00)`, `users-2026-11-22T10`.
pub(super) fn without_date(stem: &str) -> &str {
    let is_of_date = |character: char| character.is_ascii_digit() || "-_.:+ ()TZ".contains(character);
    let name = stem.trim_end_matches(is_of_date);
    let behind = &stem[name.len()..];
    let digits = behind.bytes().filter(u8::is_ascii_digit).count();
    let begins = behind.starts_with(|first: char| !first.is_ascii_alphanumeric());
    // A version or a number alone (`top_10`) is part of the name.
    if name.is_empty() || digits < 6 || !begins { stem } else { name }
}

/// The table under another name, when Diffy has one of that name itself: `hosts_table`.
pub(super) fn not_own(table: String) -> String {
    if OWN_TABLES.contains(&table.as_str()) { table + "_table" } else { table }
}

/// What to say of a table that was renamed, if it was.
pub(super) fn note_of_own_name(table: &str) -> Option<String> {
    let own = table.strip_suffix("_table").filter(|own| OWN_TABLES.contains(own))?;
    Some(format!("`{own}` is a table of Diffy's own; this one is imported as `{table}`"))
}

/// The name without its pack; true when the pack's own name is still in front, because `_` does not tell it apart.
fn without_pack(name: &str) -> (&str, bool) {
    for delimiter in ['/', ':'] {
        let stem = name.strip_prefix("pack").and_then(|rest| rest.strip_prefix(delimiter));
        if let Some(stem) = stem {
            return (stem.split_once(delimiter).map_or(stem, |(_, query)| query), false);
        }
    }
    match name.strip_prefix("pack_") {
        Some(stem) => (stem, true),
        None => (name, false),
    }
}

fn declared_suffix(slug: &str, catalog: &Catalog) -> Option<String> {
    let ends = slug.match_indices('_').map(|(at, _)| &slug[at + 1..]);
    // From the left, so the first is the longest.
    ends.filter(|end| catalog.table(end).is_some()).map(str::to_owned).next()
}

/// The name as a lowercase SQL identifier.
fn slug_of(name: &str) -> String {
    let mut slug = String::with_capacity(name.len().min(LONGEST));
    for character in name.chars().flat_map(char::to_lowercase) {
        if slug.len() == LONGEST {
            break;
        }
        slug.push(if character.is_ascii_alphanumeric() { character } else { '_' });
    }
    if slug.is_empty() {
        return "_".to_owned();
    }
    if slug.starts_with(|first: char| first.is_ascii_digit()) {
        slug.insert(0, '_');
        slug.truncate(LONGEST);
    }
    slug
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn catalog() -> Catalog {
        let dir = tempfile::tempdir().unwrap();
        for name in ["processes", "listening_ports", "ports", "crontab"] {
            let text = format!(
                "name = \"{name}\"\ndescription = \"x\"\nplatforms = []\nweight = 0.5\nquery = \"x\"\n\
                 [[column]]\nname = \"a\"\ntype = \"text\"\nrole = \"identity\"\ndescription = \"x\"\n"
            );
            fs::write(dir.path().join(format!("{name}.toml")), text).unwrap();
        }
        let mut catalog = Catalog::builtin().unwrap();
        catalog.add_dir(dir.path()).unwrap();
        catalog
    }

    #[test]
    fn query_names_find_their_tables() {
        let catalog = catalog();
        let check = |name: &str, expect: &str| assert_eq!(table_of_query(name, &catalog), expect, "{name}");
        check("processes", "processes");
        check("pack_incident-response_listening_ports", "listening_ports");
        check("pack/Global/crontab", "crontab");
        check("pack:ir:crontab", "crontab");
        check("pack_ir_odd query", "odd_query");
        check("pack/Global/Odd Query!", "odd_query_");
        check("all_listening_ports", "listening_ports");
        check("Listening Ports", "listening_ports");
        check("näme", "n_me");
        check("1st", "_1st");
        check("", "_");
        check("pack_", "_");
        check(&"x".repeat(100), &"x".repeat(64));
    }

    #[test]
    fn dates_behind_names_are_left_out() {
        for (stem, expect) in [
            ("processes (11-22-26 10-00-00)", "processes"),
            ("users-2026-11-22T10:00:00Z", "users"),
            ("users_20261122", "users"),
            ("top_10", "top_10"),
            ("sha256", "sha256"),
            ("2026-11-22", "2026-11-22"),
        ] {
            assert_eq!(without_date(stem), expect, "{stem}");
        }
    }

    proptest! {
        #[test]
        fn every_name_gives_a_table_name(name in "\\PC{0,80}|pack[_/:]\\PC{0,20}") {
            let table = table_of_query(&name, &Catalog::builtin().unwrap());
            prop_assert!(is_table_name(&table), "{}", table);
        }
    }
}
