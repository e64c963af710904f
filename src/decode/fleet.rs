//! What Fleet says of many hosts: lines of `fleetctl`, answers of its REST API, tables of its UI.

use std::borrow::Cow;
use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use memchr::memmem;
use serde_json::value::RawValue;

use super::documents::{Documents, Piece};
use super::excerpt;
use super::fleet_csv;
use super::kind::{Shape, stem_of, text_of_key};
use super::names::without_date;
use super::records::Gather;
use super::row::{Pairs, each_element, text_of};
use super::source::{Place, Source};
use super::split::reason;
use super::utf8::shown;
use super::walk::RecordFile;
use crate::error::Result;

/// Arrays of the REST API that hold what matters.
const ARRAYS: &[&str] = &["results", "live_query_results", "rows"];
/// Columns that Fleet puts into rows of hosts.
const INJECTED: [&str; 2] = ["host_hostname", "host_display_name"];
/// Said of a host that a report shows without data.
const NO_DATA: &str = "the report shows no data of this host: Fleet keeps nothing of a result over 512 KB, so whether there were no rows is not known";
const TWICE: &str = "this file answers for the host more than once; the rows of all of it are here, and whether it is one host is not known";
/// Results within results that are read: those of one query among several.
const DEEPEST: usize = 1;
const CLIPPED: &str = "Fleet clipped this report (`report_clipped`): rows and whole hosts may be missing";

/// Reads one file.
pub(super) fn read(
    gather: &mut Gather<'_>,
    source: &mut Source<'_>,
    (file, shape): (&RecordFile, Shape),
) -> Result<()> {
    let stem = stem_of(&file.path);
    let undated = without_date(&stem);
    let options = gather.options;
    let name = if options.map.contains_key(&stem) { stem.as_str() } else { undated };
    let table = options.table_of(name, gather.catalog);
    let answered = (shape == Shape::Lines).then(BTreeSet::new);
    let mut reader =
        Reader { gather, table, about: Fields::default(), clipped: false, elements: 0, answered };
    match shape {
        Shape::Csv => fleet_csv::read(reader.gather, source, &reader.table),
        Shape::Lines => {
            let limits = options.limits.clone();
            Documents::new(source, &limits, &[]).each(&mut |piece| match piece {
                Piece::Object(text, place, _) => reader.object(text, place),
                Piece::Broken(start) => reader.broken(start),
                _ => Ok(()),
            })
        }
        Shape::Report => reader.report(source),
    }
}

/// What an object of Fleet says of a host.
#[derive(Debug, Clone, Default)]
struct Fields {
    name: Option<String>,
    id: Option<String>,
    time: Option<DateTime<Utc>>,
    error: Option<String>,
}

impl Fields {
    /// Takes up a field; false when it is none of a host.
    fn take(&mut self, key: &str, value: &RawValue) -> bool {
        let text = || text_of(value).map(|text| shown(text).into_owned()).filter(|text| !text.is_empty());
        match key {
            "host" | "host_name" | "hostname" => self.name = text().or(self.name.take()),
            "host_display_name" | "host_hostname" => self.name = self.name.take().or_else(text),
            "host_id" => self.id = text(),
            "last_fetched" => self.time = text().and_then(|text| text.parse().ok()).or(self.time),
            "error" => self.error = text(),
            _ => return false,
        }
        true
    }
}

struct Reader<'g, 'a> {
    gather: &'g mut Gather<'a>,
    table: String,
    /// What the object around results says.
    about: Fields,
    clipped: bool,
    elements: u64,
    /// Hosts of lines of `fleetctl`, which has one for each; none elsewhere.
    answered: Option<BTreeSet<String>>,
}

impl Reader<'_, '_> {
    /// An answer of the REST API, in which results stand one after another.
    fn report(&mut self, source: &mut Source<'_>) -> Result<()> {
        let limits = self.gather.options.limits.clone();
        Documents::new(source, &limits, ARRAYS).each(&mut |piece| {
            match piece {
                Piece::Object(text, place, array) => {
                    self.elements += 1;
                    match array {
                        "rows" => self.own_row(text, place)?,
                        _ => self.object(text, place)?,
                    }
                }
                Piece::Field("report_clipped", value) => self.clipped = value == "true",
                Piece::Field(key, value) => {
                    if let Ok(value) = serde_json::from_str::<&RawValue>(value) {
                        self.about.take(key, value);
                    }
                }
                Piece::Broken(start) => {
                    self.elements += 1;
                    self.broken(start)?;
                }
                Piece::End(is_whole) => self.end(is_whole)?,
            }
            Ok(())
        })
    }

    /// Something that cannot be read: its host is known when it says so in front.
    fn broken(&mut self, start: &[u8]) -> Result<()> {
        let name = text_of_key(start, &["host", "host_name", "host_display_name"]);
        let fields = Fields { name: name.or_else(|| self.about.name.clone()), ..self.about.clone() };
        if fields.name.is_none() {
            return Ok(());
        }
        if let Ok(host) = self.host(&fields)? {
            self.gather.skipped((&host, &self.table), "what was said of this host is no JSON");
        }
        Ok(())
    }

    /// The end of an answer of the REST API.
    fn end(&mut self, is_whole: bool) -> Result<()> {
        let about = std::mem::take(&mut self.about);
        if self.elements == 0 && (about.name.is_some() || about.id.is_some()) {
            // The report of one host.
            if let Ok(host) = self.host(&about)? {
                let to = (host.as_str(), self.table.as_str());
                self.gather.answered(to, about.time);
                match &about.error {
                    Some(error) => self.gather.failed(to, error),
                    None => self.gather.cut(to, NO_DATA),
                }
            }
        }
        if !is_whole {
            self.gather.cut_all("the file ends inside this report");
        }
        if std::mem::take(&mut self.clipped) {
            self.gather.cut_all(CLIPPED);
            self.gather.note(format!("`{}`: {CLIPPED}", self.table));
        }
        self.elements = 0;
        Ok(())
    }

    /// The host that fields name, taken up; an error says why there is none.
    fn host(&mut self, fields: &Fields) -> Result<Result<String, String>> {
        let name = match (&fields.name, &fields.id) {
            (Some(name), id) => self.gather.owner(name, id.as_deref()),
            (None, Some(id)) => self.gather.owner(&format!("host-{id}"), Some(id)),
            (None, None) => match &self.gather.options.host {
                Some(host) => Ok(host.clone()),
                None => Err("this result names no host".to_owned()),
            },
        };
        match name {
            Ok(name) => Ok(self.gather.host(&name)?.map(|()| name)),
            Err(why) => Ok(Err(why)),
        }
    }

    /// What one object says of one host, or of several.
    fn object(&mut self, text: &str, place: Place) -> Result<()> {
        let outer = self.about.clone();
        self.nested((text, &outer), 0, place)
    }

    /// What an object says that stands in the results of `depth` others.
    fn nested(&mut self, (text, outer): (&str, &Fields), depth: usize, place: Place) -> Result<()> {
        let pairs = match serde_json::from_str::<Pairs<'_>>(text) {
            Ok(Pairs(pairs)) => pairs,
            Err(error) => {
                self.gather.problem(
                    place,
                    &format!("expected a result, found `{}`: {}", excerpt(text), reason(&error)),
                );
                return Ok(());
            }
        };
        let mut fields = Fields { error: None, ..outer.clone() };
        let (mut rows, mut columns, mut results) = (None, None, None);
        for (key, value) in &pairs {
            match key.as_ref() {
                "rows" => rows = Some(*value),
                "columns" => columns = Some(*value),
                "results" => results = Some(*value),
                key => {
                    fields.take(key, value);
                }
            }
        }
        // The results of one query among several.
        if let Some(results) = results.filter(|results| results.get().starts_with('[')) {
            return self.results(results, &fields, depth, place);
        }
        let host = match self.host(&fields)? {
            Ok(host) => host,
            Err(why) => {
                self.gather.problem(place, &format!("{why}: `{}`", excerpt(text)));
                return Ok(());
            }
        };
        self.answer((&host, &fields), (rows, columns), place)
    }

    /// What one object says of one host.
    fn answer(
        &mut self,
        (host, fields): (&str, &Fields),
        (rows, columns): (Option<&RawValue>, Option<&RawValue>),
        place: Place,
    ) -> Result<()> {
        let table = self.table.clone();
        let to = (host, table.as_str());
        self.gather.answered(to, fields.time);
        let is_second = columns.is_none()
            && self.answered.as_mut().is_some_and(|answered| !answered.insert(host.to_owned()));
        if is_second {
            self.gather.problem(place, &format!("`{}`: {TWICE}", excerpt(host)));
            self.gather.cut(to, TWICE);
        }
        if let Some(error) = &fields.error {
            self.gather.failed(to, error);
        }
        match (rows, columns) {
            (Some(rows), _) => self.rows(to, rows, place),
            (None, Some(columns)) if matches!(columns.get(), "{}" | "null") => {
                self.gather.cut(to, NO_DATA);
                Ok(())
            }
            (None, Some(columns)) => self.one(to, columns, place),
            (None, None) => {
                if fields.error.is_none() {
                    let why = "this result has neither rows nor an error";
                    self.gather.problem(place, why);
                    self.gather.skipped(to, why);
                }
                Ok(())
            }
        }
    }

    /// A row as it stands in the answer for one host.
    fn own_row(&mut self, text: &str, place: Place) -> Result<()> {
        let about = self.about.clone();
        match self.host(&about)? {
            Ok(host) => {
                let table = self.table.clone();
                self.gather.answered((&host, &table), about.time);
                self.row((&host, &table), text, place)
            }
            Err(why) => {
                self.gather.problem(place, &why);
                Ok(())
            }
        }
    }

    fn results(&mut self, results: &RawValue, fields: &Fields, depth: usize, place: Place) -> Result<()> {
        // The file says how deep it is: following it would exhaust the stack.
        if depth >= DEEPEST {
            let why = "results within results of results are not read";
            self.gather.problem(place, why);
            if (fields.name.is_some() || fields.id.is_some())
                && let Ok(host) = self.host(fields)?
            {
                self.gather.skipped((&host, &self.table), why);
            }
            return Ok(());
        }
        let mut inside = Vec::new();
        let read = each_element(results, &mut |result| inside.push(result));
        if let Err(error) = read {
            self.gather.problem(place, &format!("these results are no array: {}", reason(&error)));
        }
        inside.into_iter().try_for_each(|result| self.nested((result.get(), fields), depth + 1, place))
    }

    /// `"rows": [{…},{…}]`, or null.
    fn rows(&mut self, to: (&str, &str), rows: &RawValue, place: Place) -> Result<()> {
        if rows.get() == "null" {
            return Ok(());
        }
        let mut pushed = Ok(());
        let start = rows.get().as_ptr() as usize;
        let read = each_element(rows, &mut |row| {
            if pushed.is_ok() {
                let offset = (row.get().as_ptr() as usize).saturating_sub(start) as u64;
                pushed = self.one(to, row, Place { column: place.column + offset, ..place });
            }
        });
        pushed?;
        if let Err(error) = read {
            let why =
                format!("expected an array of rows, found `{}`: {}", excerpt(rows.get()), reason(&error));
            self.gather.skipped(to, &why);
            self.gather.problem(place, &why);
        }
        Ok(())
    }

    /// A value where a row should be.
    fn one(&mut self, to: (&str, &str), row: &RawValue, place: Place) -> Result<()> {
        if row.get().starts_with('{') {
            return self.row(to, row.get(), place);
        }
        let why = format!("expected a row, found `{}`", excerpt(row.get()));
        self.gather.skipped(to, &why);
        self.gather.problem(place, &why);
        Ok(())
    }

    fn row(&mut self, to: (&str, &str), row: &str, place: Place) -> Result<()> {
        self.gather.row(to, &without_injected(row), place)
    }
}

/// The row without the columns that Fleet puts in.
fn without_injected(row: &str) -> Cow<'_, str> {
    if !INJECTED.iter().any(|key| memmem::find(row.as_bytes(), key.as_bytes()).is_some()) {
        return Cow::Borrowed(row);
    }
    let Ok(Pairs(pairs)) = serde_json::from_str::<Pairs<'_>>(row) else { return Cow::Borrowed(row) };
    let kept = pairs.iter().filter(|(key, _)| !INJECTED.contains(&key.as_ref()));
    let fields: Vec<String> = kept
        .map(|(key, value)| format!("{}:{}", serde_json::Value::from(key.as_ref()), value.get()))
        .collect();
    Cow::Owned(format!("{{{}}}", fields.join(",")))
}
