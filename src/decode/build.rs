//! One chunk of rows to one typed batch.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, Float64Builder, Int64Builder, RecordBatch, StringBuilder};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::cell::{Cell, Number, double, integer};
use super::row::{Pairs, text_of};
use super::split::reason;
use super::utf8::{shown, source_len};
use super::{Limits, Origin, Problem, Problems, excerpt};
use crate::catalog::{ColumnType, OWN_COLUMNS, TableSpec, is_column_name};

/// The column for what does not fit elsewhere.
const EXTRA: &str = "extra";

/// More text than this cannot stand in one column of a batch with 32-bit offsets.
const MOST_BYTES: usize = 1 << 30;

/// One chunk as a batch.
#[derive(Debug)]
pub struct Decoded {
    /// The declared columns in their order, then unknown ones by name as text, then `extra`: null, or a JSON object of
    /// what did not fit the columns of that row. All columns are nullable; absent keys are null.
    pub batch: RecordBatch,
    /// The first 100 problems.
    pub problems: Vec<Problem>,
    /// All problems.
    pub problems_total: u64,
    /// Declared columns that no row of this chunk had, sorted; empty when there were no rows to have them.
    pub missing: Vec<String>,
    /// Cells that were cut to the limit.
    pub oversized_cells: u64,
}

/// Builds a batch from the text of a [`super::Chunk`].
///
/// `extra` holds by name: values that are not of their column's type, columns that are none by name or are too many,
/// values that a duplicate key overwrote (`name#duplicate`), the bytes of cells that were no UTF-8 (`name#hex`), and
/// full length and digest of cells that were cut (`name#bytes`, `name#blake3`). A `#` of the host's own is doubled.
pub fn decode(json: &str, origin: &Origin, spec: &TableSpec, limits: &Limits) -> Decoded {
    let mut builder = BatchBuilder::new(json, origin, spec, limits);
    if json.len() > MOST_BYTES {
        builder.problem(0, || format!("{} bytes of rows in one chunk are too many", json.len()));
        return builder.finish();
    }
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let read = Rows(&mut builder).deserialize(&mut deserializer).and_then(|()| deserializer.end());
    if let Err(error) = read {
        let message = format!("these rows are no JSON array: {}", reason(&error));
        let line = origin.line + error.line().saturating_sub(1) as u64;
        builder.problems.add(|| Problem { source: origin.source.clone(), line, column: 0, message });
    }
    builder.finish()
}

/// Feeds the elements of an array to the builder, one by one.
struct Rows<'b, 'a>(&'b mut BatchBuilder<'a>);

impl<'a> DeserializeSeed<'a> for Rows<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'a> Visitor<'a> for Rows<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of rows")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut rows: A) -> Result<(), A::Error> {
        while let Some(row) = rows.next_element::<&'a RawValue>()? {
            self.0.row(row);
        }
        Ok(())
    }
}

enum Values {
    Text(StringBuilder),
    Integer(Int64Builder),
    Double(Float64Builder),
}

impl Values {
    fn new(kind: ColumnType) -> Self {
        match kind {
            ColumnType::Text => Self::Text(StringBuilder::new()),
            ColumnType::Integer => Self::Integer(Int64Builder::new()),
            ColumnType::Double => Self::Double(Float64Builder::new()),
        }
    }

    fn append_null(&mut self) {
        match self {
            Self::Text(values) => values.append_null(),
            Self::Integer(values) => values.append_null(),
            Self::Double(values) => values.append_null(),
        }
    }

    fn finish(self) -> ArrayRef {
        let mut array: ArrayRef = match self {
            Self::Text(mut values) => Arc::new(values.finish()),
            Self::Integer(mut values) => Arc::new(values.finish()),
            Self::Double(mut values) => Arc::new(values.finish()),
        };
        // Builders begin with room for a thousand values, and most answers that come here have few rows.
        array.shrink_to_fit();
        array
    }
}

struct Column {
    name: String,
    kind: ColumnType,
    values: Values,
    seen: bool,
}

/// What one row says beside its columns; made when there is something to say.
type Extra = Map<String, Value>;

/// Bytes of all cells of a row together; cells beyond are cut to [`SMALLEST_CUT`].
pub(super) const ROW_ROOM: usize = 4 << 20;
/// Bytes that are kept of a cell in any case.
const SMALLEST_CUT: usize = 64;

struct BatchBuilder<'a> {
    json: &'a str,
    origin: &'a Origin,
    limits: &'a Limits,
    declared: usize,
    columns: Vec<Column>,
    /// Where a column stands.
    index: HashMap<String, usize>,
    /// Names in lower case: two columns that differ only in case cannot both be columns for SQL.
    folded: HashSet<String>,
    /// Of each column, its value in the row at hand.
    slots: Vec<Option<&'a RawValue>>,
    /// Of each key of the last row, its column: osquery prints rows of a table with the same keys in the same order.
    order: Vec<usize>,
    extra: StringBuilder,
    rows: usize,
    problems: Problems,
    oversized: u64,
    too_many: bool,
    /// Bytes that the row at hand may still take.
    room: usize,
}

impl<'a> BatchBuilder<'a> {
    fn new(json: &'a str, origin: &'a Origin, spec: &TableSpec, limits: &'a Limits) -> Self {
        let mut builder = Self {
            json,
            origin,
            limits,
            declared: spec.columns.len(),
            columns: Vec::new(),
            index: HashMap::new(),
            folded: HashSet::new(),
            slots: Vec::new(),
            order: Vec::new(),
            extra: StringBuilder::new(),
            rows: 0,
            problems: Problems::default(),
            oversized: 0,
            too_many: false,
            room: ROW_ROOM,
        };
        for column in &spec.columns {
            let at = builder.add_column(&column.name, column.kind);
            // What osquery calls it, where that is not our name for it.
            if let Some(key) = &column.osquery_name {
                builder.index.insert(key.clone(), at);
            }
        }
        builder
    }

    fn add_column(&mut self, name: &str, kind: ColumnType) -> usize {
        let mut values = Values::new(kind);
        for _ in 0..self.rows {
            values.append_null();
        }
        self.columns.push(Column { name: name.to_owned(), kind, values, seen: false });
        self.slots.push(None);
        self.index.insert(name.to_owned(), self.columns.len() - 1);
        self.folded.insert(name.to_ascii_lowercase());
        self.columns.len() - 1
    }

    /// Counts a problem at a byte of the chunk.
    fn problem(&mut self, offset: usize, message: impl FnOnce() -> String) {
        let (json, origin) = (self.json, self.origin);
        self.problems.add(|| {
            let before = json.get(..offset).unwrap_or_default();
            let (lines, last) = before.rsplit_once('\n').map_or((None, before), |(a, b)| (Some(a), b));
            let newlines =
                lines.map_or(0, |lines| 1 + memchr::memchr_iter(b'\n', lines.as_bytes()).count() as u64);
            let first = if newlines == 0 { origin.column } else { 1 };
            Problem {
                source: origin.source.clone(),
                line: origin.line + newlines,
                column: (first + source_len(last)).max(1),
                message: message(),
            }
        });
    }

    /// Where in the chunk a value stands.
    fn offset(&self, value: &RawValue) -> usize {
        (value.get().as_ptr() as usize).saturating_sub(self.json.as_ptr() as usize)
    }

    fn row(&mut self, row: &'a RawValue) {
        let pairs = match serde_json::from_str::<Pairs<'a>>(row.get()) {
            Ok(Pairs(pairs)) => pairs,
            Err(error) => {
                let offset = self.offset(row);
                return self.problem(offset, || {
                    format!("expected a row, found `{}`: {}", excerpt(row.get()), reason(&error))
                });
            }
        };
        let mut extra = None;
        self.room = ROW_ROOM;
        for (at, (key, value)) in pairs.into_iter().enumerate() {
            self.place(at, key, value, &mut extra);
        }
        for at in 0..self.columns.len() {
            self.fill(at, &mut extra);
        }
        match extra {
            None => self.extra.append_null(),
            Some(extra) => self.extra.append_value(Value::Object(extra).to_string()),
        }
        self.rows += 1;
    }

    /// Puts a value into its column's slot, or under `extra` when it has no column.
    fn place(&mut self, at: usize, key: Cow<'a, str>, value: &'a RawValue, extra: &mut Option<Extra>) {
        let Some(column) = self.column_of(at, &key, value) else {
            let name = shown(key).replace('#', "##");
            return self.keep(extra, &name, value);
        };
        let Some(before) = self.slots[column].replace(value) else { return };
        let offset = self.offset(value);
        self.problem(offset, || format!("column `{key}` stands twice in this row; the last value counts"));
        self.keep(extra, &format!("{key}#duplicate"), before);
    }

    fn column_of(&mut self, at: usize, key: &str, value: &RawValue) -> Option<usize> {
        if let Some(column) = self.order.get(at)
            && self.columns[*column].name == key
        {
            return Some(*column);
        }
        let column = match self.index.get(key) {
            Some(column) => *column,
            None => self.new_column(key, value)?,
        };
        if at == self.order.len() {
            self.order.push(column);
        } else if let Some(remembered) = self.order.get_mut(at) {
            *remembered = column;
        }
        Some(column)
    }

    /// A column for a name that the schema does not know, if it can be one.
    fn new_column(&mut self, key: &str, value: &RawValue) -> Option<usize> {
        let folded = key.to_ascii_lowercase();
        let is_own = OWN_COLUMNS.contains(&folded.as_str());
        if !is_column_name(key) || is_own || self.folded.contains(&folded) {
            return None;
        }
        if self.columns.len() < self.limits.columns {
            return Some(self.add_column(key, ColumnType::Text));
        }
        if !std::mem::replace(&mut self.too_many, true) {
            let (offset, limit) = (self.offset(value), self.limits.columns);
            self.problem(offset, || format!("over {limit} columns; `{key}` and others stand under `extra`"));
        }
        None
    }

    /// Appends the slot of a column.
    fn fill(&mut self, at: usize, extra: &mut Option<Extra>) {
        let Some(value) = self.slots[at].take() else { return self.columns[at].values.append_null() };
        self.columns[at].seen = true;
        let Some(text) = text_of(value) else { return self.columns[at].values.append_null() };
        let fits = match &mut self.columns[at].values {
            Values::Text(_) => None,
            Values::Integer(values) => Some(append(integer(&text), |number| values.append_option(number))),
            Values::Double(values) => Some(append(double(&text), |number| values.append_option(number))),
        };
        match fits {
            None => self.fill_text(at, text, extra),
            Some(true) => {}
            Some(false) => self.misfit(at, value, extra),
        }
    }

    fn fill_text(&mut self, at: usize, text: Cow<'a, str>, extra: &mut Option<Extra>) {
        let cell = self.cell(text);
        if cell.hex.is_some() || cell.cut.is_some() {
            let name = self.columns[at].name.clone();
            self.annotate(extra, &name, &cell);
        }
        if let Values::Text(values) = &mut self.columns[at].values {
            values.append_value(&cell.text);
        }
    }

    /// A value that is not of its column's type.
    fn misfit(&mut self, at: usize, value: &'a RawValue, extra: &mut Option<Extra>) {
        let offset = self.offset(value);
        let (name, kind) = (self.columns[at].name.clone(), self.columns[at].kind);
        self.problem(offset, || {
            let kind = if kind == ColumnType::Integer { "64-bit integer" } else { "number" };
            format!("column `{name}` is no {kind}: `{}`", excerpt(value.get()))
        });
        self.keep(extra, &name, value);
    }

    /// Puts a value under `extra`.
    fn keep(&mut self, extra: &mut Option<Extra>, name: &str, value: &'a RawValue) {
        let kept = match text_of(value) {
            None => Value::Null,
            Some(text) => {
                let cell = self.cell(text);
                self.annotate(extra, name, &cell);
                Value::String(cell.text.into_owned())
            }
        };
        if extra.get_or_insert_default().insert(name.to_owned(), kept).is_some() {
            let offset = self.offset(value);
            self.problem(offset, || format!("two values of this row have the name `{}`", excerpt(name)));
        }
    }

    /// A cell within its own bound and what is left for its row: a row of a hundred huge cells must not be more than
    /// a sort can hold.
    fn cell(&mut self, text: Cow<'a, str>) -> Cell<'a> {
        let cell = Cell::new(text, self.limits.cell_bytes.min(self.room.max(SMALLEST_CUT)));
        let taken = cell.text.len() + cell.hex.as_ref().map_or(0, String::len);
        self.room = self.room.saturating_sub(taken);
        cell
    }

    /// Says under `extra` what a cell's text cannot say.
    fn annotate(&mut self, extra: &mut Option<Extra>, name: &str, cell: &Cell<'_>) {
        if let Some(hex) = &cell.hex {
            extra.get_or_insert_default().insert(format!("{name}#hex"), hex.as_str().into());
        }
        if let Some((bytes, digest)) = &cell.cut {
            self.oversized += 1;
            let extra = extra.get_or_insert_default();
            extra.insert(format!("{name}#bytes"), (*bytes).into());
            extra.insert(format!("{name}#blake3"), digest.as_str().into());
        }
    }

    fn finish(mut self) -> Decoded {
        let mut missing: Vec<String> = Vec::new();
        if self.rows > 0 {
            let absent = self.columns[..self.declared].iter().filter(|column| !column.seen);
            missing.extend(absent.map(|column| column.name.clone()));
            missing.sort_unstable();
        }
        self.columns[self.declared..].sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let mut fields = Vec::with_capacity(self.columns.len() + 1);
        let mut arrays = Vec::with_capacity(self.columns.len() + 1);
        for column in self.columns {
            fields.push(Field::new(column.name, column.kind.data_type(), true));
            arrays.push(column.values.finish());
        }
        fields.push(Field::new(EXTRA, DataType::Utf8, true));
        arrays.push(Values::Text(self.extra).finish());
        let schema = Arc::new(Schema::new(fields));
        let batch = RecordBatch::try_new(Arc::clone(&schema), arrays).unwrap_or_else(|error| {
            self.problems.add(|| Problem {
                source: self.origin.source.clone(),
                line: self.origin.line,
                column: 0,
                message: format!("these rows make no batch: {error}"),
            });
            RecordBatch::new_empty(schema)
        });
        Decoded {
            batch,
            problems: self.problems.kept,
            problems_total: self.problems.total,
            missing,
            oversized_cells: self.oversized,
        }
    }
}

/// Appends a number or null; says whether the cell was either.
fn append<T>(number: Number<T>, mut values: impl FnMut(Option<T>)) -> bool {
    let (fits, value) = match number {
        Number::Null => (true, None),
        Number::Is(value) => (true, Some(value)),
        Number::Not => (false, None),
    };
    values(value);
    fits
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use datafusion::arrow::array::AsArray;
    use datafusion::arrow::util::display::array_value_to_string;
    use proptest::prelude::*;

    use super::*;
    use crate::decode::split_rows;

    fn spec() -> TableSpec {
        let column = |name: &str, kind: &str| {
            format!(
                "[[column]]\nname = \"{name}\"\ntype = \"{kind}\"\nrole = \"context\"\ndescription = \"x\"\n"
            )
        };
        let columns = [column("path", "text"), column("pid", "integer"), column("load", "double")].concat();
        let head = "name = \"t\"\ndescription = \"x\"\nplatforms = []\nweight = 0.5\nquery = \"x\"\n";
        TableSpec::parse(&format!("{head}{columns}"), "t.toml").unwrap()
    }

    fn origin() -> Origin {
        Origin { source: "s".to_owned(), line: 1, column: 1 }
    }

    fn text(decoded: &Decoded) -> String {
        let batch = &decoded.batch;
        let names: Vec<_> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
        let mut out = names.join("|");
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().map(|column| {
                if column.is_null(row) { "~".to_owned() } else { array_value_to_string(column, row).unwrap() }
            });
            write!(out, "\n{}", cells.collect::<Vec<_>>().join("|")).unwrap();
        }
        for problem in &decoded.problems {
            write!(out, "\n{problem}").unwrap();
        }
        out
    }

    /// Rows go through both steps; null is `~`.
    fn check_bytes(input: &[u8], expect: &str) {
        let mut seen = Vec::new();
        split_rows(&mut &input[..], "s", &Limits::default(), &mut |chunk| {
            seen.push(text(&decode(&chunk.json, &chunk.origin, &spec(), &Limits::default())));
            Ok(())
        })
        .unwrap();
        assert_eq!(seen.join("\n"), expect, "{}", input.escape_ascii());
    }

    fn check(input: &str, expect: &str) {
        check_bytes(input.as_bytes(), expect);
    }

    #[test]
    fn cells_take_their_columns_types() {
        check(
            r#"[{"path":"/a","pid":"12","load":"0.5"},{"pid":7,"path":"","load":null},{}]"#,
            "path|pid|load|extra\n/a|12|0.5|~\n|7|~|~\n~|~|~|~",
        );
        check(
            r#"[{"path":1.50,"pid":""},{"path":{"a":[1]},"pid":true}]"#,
            concat!("path|pid|load|extra\n", "1.50|~|~|~\n", r#"{"a":[1]}|1|~|~"#,),
        );
        check(r#"[{"path":"a\u00e9\n\"","pid":" +3 "}]"#, "path|pid|load|extra\naé\n\"|3|~|~");
    }

    #[test]
    fn what_is_not_of_its_type_is_kept_and_reported() {
        check(
            "[\n  {\"pid\":\"abc\",\"load\":\"x\"},\n  {\"pid\":\"18446744073709551615\"}]",
            concat!(
                "path|pid|load|extra\n",
                "~|~|~|{\"pid\":\"abc\",\"load\":\"x\"}\n",
                "~|~|~|{\"pid\":\"18446744073709551615\"}\n",
                "s:2:10: column `pid` is no 64-bit integer: `\"abc\"`\n",
                "s:2:23: column `load` is no number: `\"x\"`\n",
                "s:3:10: column `pid` is no 64-bit integer: `\"18446744073709551615\"`",
            ),
        );
    }

    #[test]
    fn unknown_columns_are_text_by_name() {
        check(
            r#"[{"path":"/","zeta":"1"},{"alpha":2,"host":"h","Path":"x","a b":"y","a#hex":null}]"#,
            concat!(
                "path|pid|load|alpha|zeta|extra\n",
                "/|~|~|~|1|~\n",
                r#"~|~|~|2|~|{"host":"h","Path":"x","a b":"y","a##hex":null}"#,
            ),
        );
    }

    #[test]
    fn duplicate_keys_are_reported_and_kept() {
        check(
            r#"[{"path":"/a","path":"/b"}]"#,
            concat!(
                "path|pid|load|extra\n",
                "/b|~|~|{\"path#duplicate\":\"/a\"}\n",
                "s:1:22: column `path` stands twice in this row; the last value counts",
            ),
        );
    }

    #[test]
    fn bytes_that_are_no_utf8_are_shown_and_kept() {
        check_bytes(
            b"[{\"path\":\"a\xFFb\",\"pid\":\"\xC3\"}]",
            concat!(
                "path|pid|load|extra\n",
                "a\\xFFb|~|~|{\"path#hex\":\"61ff62\",\"pid#hex\":\"c3\",\"pid\":\"\\\\xC3\"}\n",
                "s:1:22: column `pid` is no 64-bit integer: `\"\\xC3\"`",
            ),
        );
        check("[{\"path\":\"\u{10FF41}\"}]", "path|pid|load|extra\n\u{10FF41}|~|~|~");
    }

    #[test]
    fn missing_columns_are_named_when_there_are_rows() {
        let missing = |json: &str| decode(json, &origin(), &spec(), &Limits::default()).missing;
        assert_eq!(missing(r#"[{"path":""}]"#), ["load", "pid"]);
        assert_eq!(missing("[]"), [""; 0]);
    }

    #[test]
    fn an_undeclared_table_is_all_text() {
        let spec = TableSpec::undeclared("t");
        let decoded = decode(r#"[{"b":"1","a":2}]"#, &origin(), &spec, &Limits::default());
        assert_eq!(text(&decoded), "a|b|extra\n2|1|~");
    }

    #[test]
    fn long_cells_are_cut_with_length_and_digest() {
        let limits = Limits { cell_bytes: 4, ..Limits::default() };
        let decoded = decode(r#"[{"path":"abcdefgh"}]"#, &origin(), &spec(), &limits);
        let digest = blake3::hash(b"abcdefgh").to_hex();
        let extra = format!(r#"{{"path#bytes":8,"path#blake3":"{digest}"}}"#);
        assert_eq!(text(&decoded), format!("path|pid|load|extra\nabcd|~|~|{extra}"));
        assert_eq!(decoded.oversized_cells, 1);
    }

    #[test]
    fn a_cell_of_100_megabytes_is_cut() {
        let json = format!(r#"[{{"path":"{}"}}]"#, "x".repeat(100 << 20));
        let decoded = decode(&json, &origin(), &spec(), &Limits::default());
        assert_eq!(decoded.batch.column(0).as_string::<i32>().value(0).len(), 1 << 20);
        assert_eq!(decoded.oversized_cells, 1);
    }

    #[test]
    fn ten_thousand_columns_stay_bounded() {
        let pairs: Vec<String> = (0..10_000).map(|n| format!(r#""c{n}":"{n}""#)).collect();
        let json = format!("[{{{}}}]", pairs.join(","));
        let decoded = decode(&json, &origin(), &spec(), &Limits::default());
        assert_eq!(decoded.batch.num_columns(), 513);
        let extra: Extra =
            serde_json::from_str(decoded.batch.column(512).as_string::<i32>().value(0)).unwrap();
        assert_eq!(extra.len(), 10_000 - 509);
        assert_eq!(decoded.problems_total, 1);
    }

    #[test]
    fn a_row_of_many_huge_cells_stays_within_a_sort() {
        let cells: Vec<String> =
            (0..100).map(|at| format!("\"c{at:03}\":\"{}\"", "x".repeat(1 << 20))).collect();
        let json = format!("[{{{}}}]", cells.join(","));
        let decoded = decode(&json, &origin(), &spec(), &Limits::default());
        let kept: usize = decoded.batch.columns().iter().map(|column| column.get_array_memory_size()).sum();
        assert!(kept < 16 << 20, "{kept}");
        assert_eq!((decoded.batch.num_rows(), decoded.oversized_cells), (1, 96));
    }

    #[test]
    fn a_row_of_too_many_columns_is_reported() {
        let pairs: Vec<String> = (0..70_000).map(|n| format!(r#""c{n}":1"#)).collect();
        let json = format!("[{{{}}},{{}}]", pairs.join(","));
        let decoded = decode(&json, &origin(), &spec(), &Limits::default());
        assert_eq!((decoded.batch.num_rows(), decoded.problems_total), (1, 1));
    }

    #[test]
    fn rows_before_broken_json_are_kept() {
        let decoded = decode(r#"[{"pid":"1"},5,{"#, &origin(), &spec(), &Limits::default());
        assert_eq!((decoded.batch.num_rows(), decoded.problems_total), (1, 2));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(json in r#"([\[\]{},:"\\x1é\n\x{10FFFF}]|"path":|\{"pid":"b"\},){0,60}"#) {
            decode(&json, &origin(), &spec(), &Limits { cell_bytes: 3, columns: 4, ..Limits::default() });
        }

        #[test]
        fn rows_of_serde_json_come_back(rows in prop::collection::vec(("\\PC{0,20}", any::<i64>()), 1..8)) {
            let values: Vec<Value> = rows
                .iter()
                .map(|(path, pid)| serde_json::json!({"path": path, "pid": pid.to_string()}))
                .collect();
            let json = Value::Array(values).to_string();
            split_rows(&mut json.as_bytes(), "s", &Limits::default(), &mut |chunk| {
                let decoded = decode(&chunk.json, &chunk.origin, &spec(), &Limits::default());
                assert_eq!(decoded.problems, []);
                for (row, (path, pid)) in rows.iter().enumerate() {
                    assert_eq!(decoded.batch.column(0).as_string::<i32>().value(row), path);
                    let pids = decoded.batch.column(1).as_primitive::<datafusion::arrow::datatypes::Int64Type>();
                    assert_eq!(pids.value(row), *pid);
                }
                Ok(())
            })
            .unwrap();
        }

        #[test]
        fn any_bytes_come_back_from_cell_and_hex(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut json = br#"[{"path":""#.to_vec();
            for byte in &bytes {
                if matches!(byte, b'"' | b'\\') {
                    json.push(b'\\');
                }
                json.push(*byte);
            }
            json.extend_from_slice(br#""}]"#);
            let mut back = Vec::new();
            split_rows(&mut &json[..], "s", &Limits::default(), &mut |chunk| {
                let batch = decode(&chunk.json, &chunk.origin, &spec(), &Limits::default()).batch;
                let extra = batch.column(3).as_string::<i32>();
                back = if extra.is_null(0) {
                    batch.column(0).as_string::<i32>().value(0).as_bytes().to_vec()
                } else {
                    let extra: Value = serde_json::from_str(extra.value(0)).unwrap();
                    let hex = extra["path#hex"].as_str().unwrap();
                    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
                    (0..hex.len()).step_by(2).map(byte).collect()
                };
                Ok(())
            })
            .unwrap();
            prop_assert_eq!(back, bytes);
        }
    }
}
