//! Rows of an artifact of Velociraptor: VQL's rows as tables have them.
//!
//! What Velociraptor puts beside the columns of a query (client, flow, organisation) names the host and is no column.
//! Names of columns become those of SQL (`OSPath`: `os_path`), and what stands in an object becomes columns of its own
//! (`Hash.SHA256`: `hash_sha256`), because SQL and identities need values.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::documents::{Documents, Piece};
use super::excerpt;
use super::kind::{artifact_of, stem_of};
use super::names::{mapped_table, plain_table, without_date};
use super::records::Gather;
use super::row::{Pairs, text_of};
use super::source::{Place, Source};
use super::split::reason;
use super::utf8::shown;
use super::walk::RecordFile;
use crate::catalog::Catalog;
use crate::error::Result;

/// Objects within objects that become columns; what lies deeper stays JSON.
const DEPTH: usize = 3;
/// Names of columns that are longer stand under `extra`.
const LONGEST_NAME: usize = 64;
/// Artifacts that rows of one file may name.
const MOST_ARTIFACTS: usize = 256;
/// Columns that are said of a row and are none of the query.
const BESIDE: [&str; 6] = ["ClientId", "Fqdn", "FlowId", "HuntId", "_OrgId", "_Source"];

/// Reads one file.
pub(super) fn read(gather: &mut Gather<'_>, source: &mut Source<'_>, file: &RecordFile) -> Result<()> {
    let named = artifact_of(&file.path);
    let is_named = named.is_some();
    let artifact = named.unwrap_or_else(|| without_date(&stem_of(&file.path)).to_owned());
    let mut reader = Reader { gather, file, artifact, is_named, tables: BTreeMap::new(), rows: 0 };
    let limits = reader.gather.options.limits.clone();
    let mut broken = 0;
    Documents::new(source, &limits, &[]).each(&mut |piece| {
        match piece {
            Piece::Object(text, place, _) => reader.row(text, place)?,
            _ => broken += 1,
        }
        Ok(())
    })?;
    reader.end(broken)
}

struct Reader<'g, 'a> {
    gather: &'g mut Gather<'a>,
    file: &'g RecordFile,
    artifact: String,
    /// Whether the file is named after it; else rows may say what they are of.
    is_named: bool,
    /// Tables of artifacts, once they are known.
    tables: BTreeMap<String, String>,
    rows: u64,
}

impl Reader<'_, '_> {
    fn row(&mut self, text: &str, place: Place) -> Result<()> {
        self.rows += 1;
        let pairs = match serde_json::from_str::<Pairs<'_>>(text) {
            Ok(Pairs(pairs)) => pairs,
            Err(error) => {
                let why = format!("expected a row, found `{}`: {}", excerpt(text), reason(&error));
                self.gather.problem(place, &why);
                return Ok(());
            }
        };
        let beside = |name: &str| {
            // The last counts: a client may put such a column into its rows, and the server adds its own behind.
            let value = pairs.iter().rfind(|(key, _)| key == name)?.1;
            text_of(value).map(|text| shown(text).into_owned()).filter(|text| !text.is_empty())
        };
        let (name, client) = (beside("Fqdn"), beside("ClientId"));
        if let Some(other) = self.other((name.as_deref(), client.as_deref())) {
            let own = self.file.host.as_deref().unwrap_or_default();
            let why =
                format!("says that it is of `{}` where all rows are of `{}`", excerpt(other), excerpt(own));
            self.gather.problem(place, &why);
        }
        let host = match self.host(name, client)? {
            Ok(host) => host,
            Err(why) => {
                self.gather.problem(place, &why);
                return Ok(());
            }
        };
        let named = beside("_Source").filter(|_| !self.is_named);
        let artifact = named.unwrap_or_else(|| self.artifact.clone());
        let own = pairs.iter().filter(|(key, _)| !BESIDE.contains(&key.as_ref()));
        let mut fields = Vec::new();
        let mut names = Vec::new();
        for (key, value) in own {
            flatten((&shown(key.clone()), value), DEPTH, &mut |name, value| {
                fields.push(format!("{}:{value}", serde_json::Value::from(name)));
                names.push(name.to_owned());
            });
        }
        let table = self.table(artifact, &names)?;
        let to = (host.as_str(), table.as_str());
        self.gather.answered(to, None);
        self.gather.row(to, &format!("{{{}}}", fields.join(",")), Place { column: 1, ..place })
    }

    /// Whom a row says it is of, where its place says that it is of another.
    fn other<'n>(&self, (name, id): (Option<&'n str>, Option<&'n str>)) -> Option<&'n str> {
        let place = self.file.place.as_ref()?;
        let is_own =
            |name: &str| self.file.host.as_deref() == Some(name) || place.names.iter().any(|own| own == name);
        let other_id = id.filter(|id| place.id.as_deref().is_some_and(|own| own != *id) && !is_own(id));
        name.filter(|name| !is_own(name)).or(other_id)
    }

    /// The host of a row whose place says whose it is, else by its name, else by its client's id, else by where the file lies.
    fn host(&mut self, name: Option<String>, client: Option<String>) -> Result<Result<String, String>> {
        if let (Some(place), Some(host)) = (&self.file.place, &self.file.host) {
            let host = self.gather.owner(host, place.id.as_deref());
            return self.taken(host);
        }
        let found = match (name, client) {
            (Some(name), client) => self.gather.owner(&name, client.as_deref()),
            (None, Some(client)) => self.gather.owner(&client, Some(&client)),
            (None, None) => match &self.file.host {
                Some(host) => Ok(host.clone()),
                None => Err("this row names neither a client nor a host".to_owned()),
            },
        };
        self.taken(found)
    }

    /// The host, taken up.
    fn taken(&mut self, host: Result<String, String>) -> Result<Result<String, String>> {
        match host {
            Ok(host) => Ok(self.gather.host(&host)?.map(|()| host)),
            Err(why) => Ok(Err(why)),
        }
    }

    fn table(&mut self, artifact: String, columns: &[String]) -> Result<String> {
        if let Some(table) = self.tables.get(&artifact) {
            return Ok(table.clone());
        }
        // A row may say that it is of any artifact: what is too much of that is of the file's.
        if self.tables.len() >= MOST_ARTIFACTS && artifact != self.artifact {
            return self.table(self.artifact.clone(), columns);
        }
        let options = self.gather.options;
        let table = match (&options.table, options.map.contains_key(&artifact)) {
            (None, false) => table_of_artifact(&artifact, columns, self.gather.catalog),
            (Some(_), false) => options.table_of(&artifact, self.gather.catalog),
            (_, true) => mapped_table(&artifact, &options.map, self.gather.catalog),
        };
        self.tables.insert(artifact, table.clone());
        Ok(table)
    }

    /// A file without rows: the artifact was collected, where the host is known.
    fn end(&mut self, broken: u64) -> Result<()> {
        let table = self.table(self.artifact.clone(), &[])?;
        if self.file.host.is_none() || (self.rows > 0 && broken == 0) {
            if broken > 0 {
                self.gather.cut_all("rows of this file could not be read, and nobody knows whose they were");
            }
            return Ok(());
        }
        if let Ok(host) = self.host(None, None)? {
            self.gather.answered((&host, &table), None);
            for _ in 0..broken {
                self.gather.skipped((&host, &table), "no JSON");
            }
        }
        Ok(())
    }
}

/// The table of an artifact: that of osquery where the artifact runs osquery and the name or the columns tell which,
/// else one of its own by a plain name. VQL's own artifacts have other columns than osquery's tables of that name.
fn table_of_artifact(artifact: &str, columns: &[String], catalog: &Catalog) -> String {
    if !artifact.to_ascii_lowercase().contains("osquery") {
        return plain_table(artifact);
    }
    let named = super::names::table_of_query(artifact, catalog);
    if catalog.table(&named).is_some() {
        return named;
    }
    table_of_columns(columns, catalog).unwrap_or_else(|| plain_table(artifact))
}

/// The one declared table that has all of these columns, and not many more.
fn table_of_columns(columns: &[String], catalog: &Catalog) -> Option<String> {
    const FEWEST: usize = 3;
    if columns.len() < FEWEST {
        return None;
    }
    let mut fitting = catalog.tables().filter(|table| {
        let has = |name: &String| {
            table.columns.iter().any(|own| &own.name == name || own.osquery_name.as_ref() == Some(name))
        };
        columns.iter().all(has) && columns.len() * 2 >= table.columns.len()
    });
    let first = fitting.next()?;
    fitting.next().is_none().then(|| first.name.clone())
}

/// Shows a value as columns: an object as one for each of its keys.
fn flatten((name, value): (&str, &RawValue), depth: usize, see: &mut dyn FnMut(&str, &str)) {
    let column = column_of(name);
    let inside = (depth > 0 && value.get().starts_with('{'))
        .then(|| serde_json::from_str::<Pairs<'_>>(value.get()).ok())
        .flatten()
        .filter(|Pairs(pairs)| !pairs.is_empty());
    let Some(Pairs(pairs)) = inside else {
        let text: Cow<'_, str> = match value.get().as_bytes().first() {
            // A list stays JSON, as text.
            Some(b'[' | b'{') => serde_json::Value::from(value.get()).to_string().into(),
            _ => value.get().into(),
        };
        return see(&column, &text);
    };
    for (key, value) in pairs {
        flatten((&format!("{column}_{}", column_of(&shown(key))), value), depth - 1, see);
    }
}

/// A name of VQL as SQL has them: `OSPath` is `os_path`, `Computer Info` is `computer_info`.
fn column_of(name: &str) -> String {
    if name.len() > 4 * LONGEST_NAME {
        return name.to_owned();
    }
    let letters: Vec<char> = name.chars().collect();
    let mut column = String::with_capacity(name.len() + 4);
    for (at, letter) in letters.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| letters.get(at));
        let after = letters.get(at + 1);
        let begins = letter.is_ascii_uppercase()
            && before.is_some_and(|before| {
                before.is_ascii_lowercase()
                    || before.is_ascii_digit() && after.is_some_and(char::is_ascii_lowercase)
                    || before.is_ascii_uppercase() && after.is_some_and(char::is_ascii_lowercase)
            });
        if begins {
            column.push('_');
        }
        column.push(if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '_' });
    }
    if column.starts_with(|first: char| first.is_ascii_digit()) {
        column.insert(0, '_');
    }
    column
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_vql_become_those_of_sql() {
        for (name, expect) in [
            ("Pid", "pid"),
            ("CommandLine", "command_line"),
            ("OSPath", "os_path"),
            ("FSType", "fs_type"),
            ("OwnerID", "owner_id"),
            ("SHA256", "sha256"),
            ("MACAddresses", "mac_addresses"),
            ("Computer Info", "computer_info"),
            ("on_disk", "on_disk"),
            ("_ts", "_ts"),
            ("7zip", "_7zip"),
            ("Größe", "gr__e"),
        ] {
            assert_eq!(column_of(name), expect, "{name}");
        }
    }

    fn flat(json: &str) -> Vec<String> {
        let Pairs(pairs) = serde_json::from_str(json).unwrap();
        let mut seen = Vec::new();
        for (key, value) in &pairs {
            flatten((key, value), DEPTH, &mut |name, value| seen.push(format!("{name}={value}")));
        }
        seen
    }

    #[test]
    fn objects_become_columns_and_lists_stay_json() {
        assert_eq!(
            flat(
                r#"{"Pid":1,"Hash":{"MD5":"a","Deep":{"X":{"Y":{"Z":1}}}},"Opts":["a","b"],"None":{},"N":null}"#
            ),
            [
                "pid=1",
                r#"hash_md5="a""#,
                r#"hash_deep_x_y="{\"Z\":1}""#,
                r#"opts="[\"a\",\"b\"]""#,
                r#"none="{}""#,
                "n=null",
            ]
        );
    }

    #[test]
    fn artifacts_have_tables_of_their_own_unless_they_run_osquery() {
        let catalog = Catalog::builtin().unwrap();
        let check = |artifact: &str, columns: &[&str], expect: &str| {
            let columns: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
            assert_eq!(table_of_artifact(artifact, &columns, &catalog), expect, "{artifact}");
        };
        check("Linux.Sys.Crontab/CronTabs", &["command"], "linux_sys_crontab_crontabs");
        check("Linux.Sys.Users", &["user"], "linux_sys_users");
        check("Custom.Linux.OSQuery.Processes", &[], "processes");
        let users =
            ["uid", "gid", "uid_signed", "gid_signed", "username", "description", "directory", "shell"];
        check("Linux.OSQuery.Generic", &users, "users");
        check("Linux.OSQuery.Generic", &["pid", "x"], "linux_osquery_generic");
        check("Linux.OSQuery.Generic", &["uid"], "linux_osquery_generic");
    }

    proptest! {
        #[test]
        fn every_name_is_a_column_or_kept_aside(name in "\\PC{0,300}") {
            let _ = column_of(&name);
        }

        #[test]
        fn no_value_is_lost(json in r#"\{("[a-w]":("x"|1|\[1,\{\}\]|\{"b":null,"c":\{"d":true\}\}),){0,3}"z":0\}"#) {
            let leaves = json.matches(['x', '1', '0']).count() + json.matches("null").count() + json.matches("true").count();
            let seen = flat(&json);
            prop_assert_eq!(seen.join(" ").matches(['x', '1', '0']).count()
                + seen.join(" ").matches("null").count() + seen.join(" ").matches("true").count(), leaves);
        }
    }
}
