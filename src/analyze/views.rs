//! How a column is seen: one code per line of prevalence, so that equal values are equal numbers.
//!
//! Each column has up to two views. The *raw* one is evened out as far as both ids are; the *masked* one goes further:
//! numbers, hex digits, addresses and keys become their kind, so that what differs by counting alone is one value. A
//! third kind of view stands for the whole row: its loose id, and its strict id.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use regex::{Captures, Regex};
use roaring::RoaringBitmap;

use super::lines::{Line, Lines, Loaded};
use crate::catalog::{ColumnSpec, ColumnType, Strength};
use crate::error::{Error, Result};
use crate::identity::evened_out;

/// The code of a value that is not known.
pub(super) const UNKNOWN: u32 = u32::MAX;
/// Share of the hosts that an unknown identity column must have before rows without it are compared whole.
const OWN_KIND: f64 = 0.2;

/// What a view shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Shows {
    /// A column, as both ids see it.
    Raw,
    /// A column with its numbers, addresses and keys masked.
    Masked,
    /// The row as its loose id sees it.
    Loose,
    /// The row as its strict id sees it.
    Strict,
}

/// One way of seeing one column, or the whole row.
#[derive(Debug)]
pub(super) struct View {
    /// The column; none for a whole row.
    pub(super) column: Option<String>,
    pub(super) shows: Shows,
    /// Whether the values are numbers.
    pub(super) is_number: bool,
    /// By line: equal values have equal codes; [`UNKNOWN`] where the host did not say.
    pub(super) codes: Vec<u32>,
    /// How many codes there are.
    pub(super) distinct: u32,
    /// Hosts with rows that know nothing of it.
    pub(super) ignorant: RoaringBitmap,
}

/// The views of one table.
pub(super) fn views(table: &Loaded<'_>) -> Result<Vec<View>> {
    let lines = &table.lines;
    let mut views = Vec::new();
    for column in lines.spec.columns.iter().filter(|column| column.is_comparable()) {
        views.extend(of_column(lines, column)?);
    }
    views.extend(of_rows(table, &views));
    Ok(views)
}

/// By line: a number that rows share whose identity columns, masked, are the same.
pub(super) fn masked_rows(table: &Loaded<'_>, views: &[View]) -> Vec<u64> {
    let lines = &table.lines;
    let masked = |column: &ColumnSpec| {
        // The masked view stands after the raw one; a column without one is the same either way.
        views.iter().rfind(|view| view.column.as_deref() == Some(&column.name))
    };
    let columns: Vec<&View> = lines.spec.identity(Strength::Strict).filter_map(masked).collect();
    let of_line = |line: usize| {
        let mut hasher = DefaultHasher::new();
        columns.iter().for_each(|view| view.codes[line].hash(&mut hasher));
        hasher.finish()
    };
    (0..lines.lines.len()).map(of_line).collect()
}

fn of_column(lines: &Lines, column: &ColumnSpec) -> Result<Vec<View>> {
    let Some(values) = values(&lines.batches, &column.name)? else { return Ok(Vec::new()) };
    let mut codes = Codes::default();
    let plain: Vec<u32> = lines.lines.iter().map(|line| codes.of(value_at(&values, line))).collect();
    let raw = codes.recoded(|text| evened_out(text, column, Strength::Strict).into_owned());
    let masked = codes.recoded(|text| mask(&evened_out(text, column, Strength::Loose)).into_owned());
    let view = |shows, recoded: &[u32]| {
        let by_line = plain.iter().map(|code| recoded.get(*code as usize).copied().unwrap_or(UNKNOWN));
        View::new(lines, Some(column), shows, by_line.collect())
    };
    let mut views = vec![view(Shows::Raw, &raw)];
    views[0].is_number |= codes.are_numbers();
    let mut masked_view = view(Shows::Masked, &masked);
    masked_view.is_number = views[0].is_number;
    if masked_view.distinct < views[0].distinct && masked_view.distinct > 1 {
        views.push(masked_view);
    }
    Ok(views)
}

/// Rows as a whole. A row of which a host left identity columns out is no row of its own kind for that.
fn of_rows(table: &Loaded<'_>, columns: &[View]) -> [View; 2] {
    let lines = &table.lines;
    let with_rows: RoaringBitmap =
        lines.lines.iter().fold(RoaringBitmap::new(), |all, line| all | &line.members);
    let is_partial = |view: &&View| {
        let ignorant = view.ignorant.len() as f64;
        view.shows == Shows::Raw
            && !view.ignorant.is_empty()
            && ignorant < with_rows.len() as f64 * OWN_KIND
            && view.spec(lines).is_some_and(|column| column.in_identity(Strength::Strict))
    };
    let partial: Vec<&View> = columns.iter().filter(is_partial).collect();
    let ids = |of: fn(&Line) -> [u8; 16]| {
        let mut codes = Codes::default();
        let number = |(number, line): (usize, &Line)| {
            let is_whole = partial.iter().all(|view| view.codes[number] != UNKNOWN);
            codes.of(is_whole.then(|| of(line)))
        };
        lines.lines.iter().enumerate().map(number).collect::<Vec<u32>>()
    };
    [
        View::new(lines, None, Shows::Loose, ids(|line| line.loose)),
        View::new(lines, None, Shows::Strict, ids(|line| line.strict)),
    ]
}

impl View {
    /// What the schema says of its column; none for a whole row.
    pub(super) fn spec<'a>(&self, lines: &'a Lines) -> Option<&'a ColumnSpec> {
        lines.spec.column(self.column.as_deref()?)
    }

    fn new(lines: &Lines, column: Option<&ColumnSpec>, shows: Shows, codes: Vec<u32>) -> Self {
        let mut knowing = RoaringBitmap::new();
        let mut ignorant = RoaringBitmap::new();
        for (line, code) in lines.lines.iter().zip(&codes) {
            if *code == UNKNOWN { ignorant |= &line.members } else { knowing |= &line.members }
        }
        ignorant -= &knowing;
        let known: HashSet<u32> = codes.iter().copied().filter(|code| *code != UNKNOWN).collect();
        Self {
            column: column.map(|column| column.name.clone()),
            shows,
            is_number: column.is_some_and(|column| column.kind != ColumnType::Text),
            distinct: known.len() as u32,
            codes,
            ignorant,
        }
    }
}

/// A column of all batches as text; none when the table has no such column.
pub(super) fn values(
    batches: &[RecordBatch],
    column: &str,
) -> Result<Option<Vec<datafusion::arrow::array::StringArray>>> {
    let of_batch = |batch: &RecordBatch| {
        let array = batch.column_by_name(column)?;
        Some(cast(array, &DataType::Utf8).map(|array| array.as_string::<i32>().clone()))
    };
    let arrays: Option<Vec<_>> = batches.iter().map(of_batch).collect();
    let Some(arrays) = arrays.filter(|arrays| !arrays.is_empty()) else { return Ok(None) };
    let arrays: std::result::Result<Vec<_>, _> = arrays.into_iter().collect();
    arrays.map(Some).map_err(|source| Error::internal("cannot read prevalence as text").source(source))
}

pub(super) fn value_at<'a>(
    values: &'a [datafusion::arrow::array::StringArray],
    line: &Line,
) -> Option<&'a str> {
    let (batch, row) = line.at;
    values[batch].is_valid(row).then(|| values[batch].value(row))
}

/// Hands out a number for each distinct value.
struct Codes<T> {
    numbers: HashMap<T, u32>,
}

impl<T> Default for Codes<T> {
    fn default() -> Self {
        Self { numbers: HashMap::new() }
    }
}

impl<T: Hash + Eq> Codes<T> {
    fn of(&mut self, value: Option<T>) -> u32 {
        let Some(value) = value else { return UNKNOWN };
        let next = self.numbers.len() as u32;
        *self.numbers.entry(value).or_insert(next)
    }
}

impl Codes<&str> {
    /// Minutes, sizes and ids are numbers, whatever the type of their column.
    fn are_numbers(&self) -> bool {
        let numbers = self.numbers.keys().filter(|text| text.parse::<f64>().is_ok()).count();
        numbers * 2 > self.numbers.len()
    }

    /// By code: the code of what `change` makes of its value.
    fn recoded(&self, change: impl Fn(&str) -> String) -> Vec<u32> {
        let mut changed = Codes::default();
        let mut by_code: Vec<(u32, &&str)> = self.numbers.iter().map(|(text, code)| (*code, text)).collect();
        by_code.sort_unstable();
        by_code.into_iter().map(|(_, text)| changed.of(Some(change(text)))).collect()
    }
}

/// What counts, names or hides by chance becomes its kind: `ip-10-1-2-3` and `sess_4f2a9c` are one value on every host.
pub(super) fn mask(text: &str) -> Cow<'_, str> {
    static KINDS: LazyLock<[(Regex, &str); 5]> = LazyLock::new(|| {
        let kind = |pattern: &str, kind| {
            #[expect(clippy::expect_used, reason = "constant patterns, compiled by the tests")]
            let pattern = Regex::new(pattern).expect("constant pattern");
            (pattern, kind)
        };
        [
            kind(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b", "<U>"),
            kind(r"\b\d{1,3}([.-])\d{1,3}[.-]\d{1,3}[.-]\d{1,3}\b", "<I>"),
            kind(r"[A-Za-z0-9+/]{24,}={0,2}", "<B>"),
            kind(r"[0-9a-fA-F]{6,}", "<H>"),
            kind(r"\d+", "<D>"),
        ]
    });
    let mut text = Cow::Borrowed(text);
    for (number, (pattern, kind)) in KINDS.iter().enumerate() {
        let is_kind = |word: &str| match number {
            // Paths are long words too, and words are made of hex digits: chance shows in digits among letters.
            2 => word.bytes().filter(u8::is_ascii_digit).count() > 3 && word.matches('/').count() < 3,
            3 => word.bytes().any(|byte| byte.is_ascii_digit()),
            _ => true,
        };
        let replaced = pattern.replace_all(&text, |found: &Captures<'_>| {
            if is_kind(&found[0]) { (*kind).to_owned() } else { found[0].to_owned() }
        });
        if let Cow::Owned(replaced) = replaced {
            text = Cow::Owned(replaced);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::testing::Fleet;
    use super::*;

    fn view<'a>(views: &'a [View], column: &str, shows: Shows) -> Option<&'a View> {
        views.iter().find(|view| view.column.as_deref() == Some(column) && view.shows == shows)
    }

    /// The lines of these hosts, in the order of the hosts.
    fn lines(table: &Loaded<'_>, hosts: &[u32]) -> Vec<usize> {
        let line = |host| table.lines.lines.iter().position(|line| line.members.contains(host));
        hosts.iter().map(|host| line(*host).unwrap()).collect()
    }

    #[test]
    fn equal_values_are_equal_codes_and_unknown_ones_are_none() {
        let mut fleet = Fleet::new(4, |host| format!("web-{host}"));
        fleet.row("users", "username=root|uid=0|shell=/bin/sh", 0..2);
        fleet.row("users", "username=toor|uid=0|shell=/bin/bash", [2]);
        fleet.row("users", "username=app|uid=7", [3]);
        let loaded = fleet.loaded();
        let views = views(&loaded[0]).unwrap();
        let at = lines(&loaded[0], &[0, 2, 3]);
        let uid = view(&views, "uid", Shows::Raw).unwrap();
        assert_eq!((uid.codes[at[0]], uid.distinct, uid.is_number), (uid.codes[at[1]], 2, true));
        assert_ne!(uid.codes[at[0]], uid.codes[at[2]]);
        let shell = view(&views, "shell", Shows::Raw).unwrap();
        assert_eq!((shell.codes[at[2]], shell.distinct, shell.is_number), (UNKNOWN, 2, false));
        assert_eq!(shell.ignorant, RoaringBitmap::from_iter([3]));
        assert!(view(&views, "shell", Shows::Masked).is_none(), "nothing to mask: no second view");
    }

    #[test]
    fn a_masked_view_stands_after_the_raw_one_where_it_makes_fewer_values() {
        let mut fleet = Fleet::new(3, |host| format!("web-{host}"));
        for (host, name) in ["ci-1", "ci-22", "eve"].into_iter().enumerate() {
            fleet.row("users", &format!("username={name}|uid=7"), [host as u32]);
        }
        let loaded = fleet.loaded();
        let views = views(&loaded[0]).unwrap();
        let of_name: Vec<(Shows, u32)> = views
            .iter()
            .filter(|view| view.column.as_deref() == Some("username"))
            .map(|view| (view.shows, view.distinct))
            .collect();
        assert_eq!(of_name, [(Shows::Raw, 3), (Shows::Masked, 2)]);
    }

    #[test]
    fn rows_that_differ_by_counting_share_a_masked_number() {
        let mut fleet = Fleet::new(3, |host| format!("web-{host}"));
        fleet.row("users", "username=ci-1|uid=7|directory=/home/ci-1", [0]);
        fleet.row("users", "username=ci-22|uid=7|directory=/home/ci-22", [1]);
        fleet.row("users", "username=eve|uid=7|directory=/home/eve", [2]);
        let loaded = fleet.loaded();
        let views = views(&loaded[0]).unwrap();
        let masked = masked_rows(&loaded[0], &views);
        let at = lines(&loaded[0], &[0, 1, 2]);
        assert_eq!(masked[at[0]], masked[at[1]]);
        assert_ne!(masked[at[0]], masked[at[2]]);
    }

    #[test]
    fn a_row_without_a_column_that_the_others_return_is_no_row_of_its_own_kind() {
        let mut fleet = Fleet::new(20, |host| format!("web-{host}"));
        fleet.row("processes", "name=sshd|path=/usr/sbin/sshd|euid=0|on_disk=1", 0..19);
        fleet.row("processes", "name=sshd|path=/usr/sbin/sshd|euid=0", [19]);
        let loaded = fleet.loaded();
        let views = views(&loaded[0]).unwrap();
        let at = lines(&loaded[0], &[0, 19]);
        for whole in views.iter().filter(|view| view.column.is_none()) {
            assert_ne!(whole.codes[at[0]], UNKNOWN);
            assert_eq!(whole.codes[at[1]], UNKNOWN, "{:?}", whole.shows);
        }
    }

    #[test]
    fn values_that_differ_by_chance_mask_alike() {
        let same = |a: &str, b: &str| assert_eq!(mask(a), mask(b));
        same("sess-1234567", "sess-7654321");
        same("job-a1b2c3d", "job-0f9e8d7");
        same("job-1234567", "job-a1b2c3d");
        same("ip-10-1-2-3.ec2.internal", "ip-10-22-0-103.ec2.internal");
        same("3d813cbb-47fb-32ba-91df-831e1593ac29", "0d813cbb-47fb-32ba-91df-831e1593ac20");
        same("kworker/0:1", "kworker/12:4");
        same("AAAAC3NzaC1lZDI1NTE5AAAAI3a40817823a6b05", "AAAAC3NzaC1lZDI1NTE5AAAAIff40817823a6bff");
    }

    #[test]
    fn words_are_no_keys() {
        assert_eq!(mask("/usr/lib/openssh/sftp/server"), "/usr/lib/openssh/sftp/server");
        assert_eq!(mask("prometheusnodeexporterdaemon"), "prometheusnodeexporterdaemon");
        assert_eq!(mask("deadbeef"), "deadbeef");
    }
}
