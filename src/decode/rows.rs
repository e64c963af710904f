//! Payloads of many hosts to one batch, for rows that are as their table expects. A payload with anything else in it
//! is left whole to [`super::decode`], which is slower and knows what to do.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, Float64Builder, Int64Builder, StringBuilder};

use super::Limits;
use super::cell::{Number, double, integer};
use super::flat::{self, Value};
use super::utf8::has_transport;
use crate::catalog::{ColumnType, TableSpec};

/// A payload larger than this is left to [`super::decode`], so that places in it fit 32 bits.
const LARGEST: usize = 64 << 20;
/// Bytes of a text column that room is made for at first, for each row.
const USUAL_TEXT: usize = 24;

/// A cell on its way from text into a column.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Slot {
    /// The row has no such key.
    Absent,
    Null,
    /// In the payload, or behind its end in what was unescaped.
    Text {
        start: u32,
        length: u32,
    },
    Integer(i64),
    Double(f64),
}

#[derive(Debug)]
enum Values {
    Text(StringBuilder),
    Integer(Int64Builder),
    Double(Float64Builder),
}

#[derive(Debug)]
struct Column {
    name: String,
    values: Values,
}

/// What a payload was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// Rows taken.
    pub rows: usize,
    /// Declared columns that no row of the payload had, sorted; empty when there were no rows to have them.
    pub missing: Vec<String>,
}

/// Builds the columns of a table from payloads of many hosts, one after another.
#[derive(Debug)]
pub struct RowsBuilder {
    columns: Vec<Column>,
    declared: usize,
    index: HashMap<String, usize>,
    /// Of each key of the last row, its text and column: osquery prints rows of a table with the same keys in the same
    /// order.
    order: Vec<(Box<[u8]>, usize)>,
    /// Cells of the payload at hand, row by row.
    slots: Vec<Slot>,
    /// Its strings that have escapes, without them.
    unescaped: String,
    largest_row: usize,
    rows: usize,
    bytes: usize,
    usable: bool,
}

impl RowsBuilder {
    /// For the declared columns of a table and those `beside` them, which are text; room is made for some `rows`.
    pub fn new(spec: &TableSpec, beside: &[String], limits: &Limits, rows: usize) -> Self {
        let declared = spec.columns.iter().map(|column| (column.name.clone(), column.kind));
        let beside = beside.iter().map(|name| (name.clone(), ColumnType::Text));
        let columns: Vec<Column> =
            declared.chain(beside).map(|(name, kind)| Column { name, values: values(kind, rows) }).collect();
        let mut index: HashMap<String, usize> =
            columns.iter().enumerate().map(|(at, column)| (column.name.clone(), at)).collect();
        for (at, column) in spec.columns.iter().enumerate() {
            index.extend(column.osquery_name.clone().map(|key| (key, at)));
        }
        Self {
            usable: columns.len() <= limits.columns,
            declared: spec.columns.len(),
            columns,
            index,
            order: Vec::new(),
            slots: Vec::new(),
            unescaped: String::new(),
            largest_row: limits.cell_bytes.min(super::build::ROW_ROOM),
            rows: 0,
            bytes: 0,
        }
    }

    /// Takes the text of a [`super::Chunk`], if all of its rows are flat, have columns of the table only, none twice,
    /// with values of their types, that are text as it should be and no longer than what is kept of a cell. Takes
    /// nothing of it otherwise.
    pub fn push(&mut self, json: &str) -> Option<Taken> {
        self.slots.clear();
        self.unescaped.clear();
        if !self.usable || json.len() > LARGEST || has_transport(json) {
            return None;
        }
        self.read(json)?;
        let width = self.columns.len();
        let rows = self.slots.len().checked_div(width)?;
        let mut missing = Vec::new();
        for at in 0..width {
            let seen = self.append(at, json);
            if !seen && at < self.declared && rows > 0 {
                missing.push(self.columns[at].name.clone());
            }
        }
        missing.sort_unstable();
        self.rows += rows;
        self.bytes += json.len();
        Some(Taken { rows, missing })
    }

    /// Rows taken so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of the payloads that were taken so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The columns, in the order in which they were given.
    pub fn finish(self) -> Vec<ArrayRef> {
        let array = |column: Column| -> ArrayRef {
            let mut array: ArrayRef = match column.values {
                Values::Text(mut values) => Arc::new(values.finish()),
                Values::Integer(mut values) => Arc::new(values.finish()),
                Values::Double(mut values) => Arc::new(values.finish()),
            };
            // Builders double their room; a whole table may be held of these.
            array.shrink_to_fit();
            array
        };
        self.columns.into_iter().map(array).collect()
    }

    /// Fills the slots.
    fn read(&mut self, json: &str) -> Option<()> {
        let bytes = json.as_bytes();
        let mut at = flat::skip_space(bytes, flat::after(bytes, flat::skip_space(bytes, 0), b'[')?);
        if bytes.get(at) != Some(&b']') {
            loop {
                at = flat::skip_space(bytes, self.row(json, at)?);
                match bytes.get(at)? {
                    b',' => at = flat::skip_space(bytes, at + 1),
                    b']' => break,
                    _ => return None,
                }
            }
        }
        (flat::skip_space(bytes, at + 1) == bytes.len()).then_some(())
    }

    /// Fills the slots of the row that starts at `from`, and gives the place behind it.
    fn row(&mut self, json: &str, from: usize) -> Option<usize> {
        let first = self.slots.len();
        self.slots.resize(first + self.columns.len(), Slot::Absent);
        let mut position = 0;
        let mut place = |key: Range<usize>, value: Value| {
            let column = self.column_of(position, json.get(key)?)?;
            position += 1;
            let cell = self.cell(column, json, value)?;
            let slot = self.slots.get_mut(first + column)?;
            (std::mem::replace(slot, cell) == Slot::Absent).then_some(())
        };
        let end = flat::scan(json.as_bytes(), from, &mut place)?;
        (end - from <= self.largest_row).then_some(end)
    }

    fn column_of(&mut self, position: usize, key: &str) -> Option<usize> {
        if let Some((known, column)) = self.order.get(position)
            && **known == *key.as_bytes()
        {
            return Some(*column);
        }
        let column = *self.index.get(key)?;
        let remembered = (key.as_bytes().into(), column);
        match self.order.get_mut(position) {
            Some(other) => *other = remembered,
            None => self.order.push(remembered),
        }
        Some(column)
    }

    fn cell(&mut self, column: usize, json: &str, value: Value) -> Option<Slot> {
        let (mut start, mut text) = (value.text.start, json.get(value.text.clone())?);
        if !value.quoted && text == "null" {
            return Some(Slot::Null);
        }
        if value.escaped {
            let quoted = json.get(value.text.start - 1..value.text.end + 1)?;
            let plain: String = serde_json::from_str(quoted).ok()?;
            if has_transport(&plain) {
                return None;
            }
            start = json.len() + self.unescaped.len();
            self.unescaped.push_str(&plain);
            text = self.unescaped.get(start - json.len()..)?;
        }
        match self.columns.get(column)?.values {
            Values::Text(_) => {
                let length = u32::try_from(text.len()).ok()?;
                Some(Slot::Text { start: u32::try_from(start).ok()?, length })
            }
            Values::Integer(_) => number(integer(text), Slot::Integer),
            Values::Double(_) => number(double(text), Slot::Double),
        }
    }

    /// Appends the slots of a column; says whether any row had it.
    fn append(&mut self, at: usize, json: &str) -> bool {
        let mut seen = false;
        let cells = self.slots.iter().skip(at).step_by(self.columns.len());
        match &mut self.columns[at].values {
            Values::Text(values) => {
                for slot in cells {
                    seen |= *slot != Slot::Absent;
                    values.append_option(text_of(slot, json, &self.unescaped));
                }
            }
            Values::Integer(values) => {
                for slot in cells {
                    seen |= *slot != Slot::Absent;
                    values.append_option(if let Slot::Integer(number) = slot { Some(*number) } else { None });
                }
            }
            Values::Double(values) => {
                for slot in cells {
                    seen |= *slot != Slot::Absent;
                    values.append_option(if let Slot::Double(number) = slot { Some(*number) } else { None });
                }
            }
        }
        seen
    }
}

fn values(kind: ColumnType, rows: usize) -> Values {
    match kind {
        ColumnType::Text => Values::Text(StringBuilder::with_capacity(rows, rows * USUAL_TEXT)),
        ColumnType::Integer => Values::Integer(Int64Builder::with_capacity(rows)),
        ColumnType::Double => Values::Double(Float64Builder::with_capacity(rows)),
    }
}

fn number<T>(number: Number<T>, slot: impl Fn(T) -> Slot) -> Option<Slot> {
    match number {
        Number::Null => Some(Slot::Null),
        Number::Is(value) => Some(slot(value)),
        Number::Not => None,
    }
}

fn text_of<'a>(slot: &Slot, json: &'a str, unescaped: &'a str) -> Option<&'a str> {
    let Slot::Text { start, length } = slot else { return None };
    let (start, length) = (*start as usize, *length as usize);
    match start.checked_sub(json.len()) {
        None => json.get(start..start + length),
        Some(start) => unescaped.get(start..start + length),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::compute::concat;
    use proptest::prelude::*;

    use super::*;
    use crate::decode::{Origin, decode};

    fn spec() -> TableSpec {
        let column = |name: &str, kind: &str, osquery: &str| {
            format!(
                "[[column]]\nname = \"{name}\"\ntype = \"{kind}\"\n{osquery}role = \"context\"\ndescription = \"x\"\n"
            )
        };
        let columns = [
            column("path", "text", ""),
            column("pid", "integer", ""),
            column("load", "double", ""),
            column("the_group", "text", "osquery_name = \"group\"\n"),
        ]
        .concat();
        let head = "name = \"t\"\ndescription = \"x\"\nplatforms = []\nweight = 0.5\nquery = \"x\"\n";
        TableSpec::parse(&format!("{head}{columns}"), "t.toml").unwrap()
    }

    fn builder() -> RowsBuilder {
        RowsBuilder::new(&spec(), &["newer".to_owned()], &Limits::default(), 4)
    }

    /// Whether a payload is taken; then it must be what [`decode`] makes of it.
    fn check(json: &str) -> bool {
        let mut fast = builder();
        let Some(taken) = fast.push(json) else {
            assert!(fast.finish().iter().all(|column| column.is_empty()), "{json}");
            return false;
        };
        let slow = decode(json, &Origin::default(), &spec(), &Limits::default());
        assert_eq!((taken.rows, taken.missing), (slow.batch.num_rows(), slow.missing), "{json}");
        assert_eq!((slow.problems_total, slow.oversized_cells), (0, 0), "{json}");
        for (at, column) in fast.finish().iter().enumerate() {
            let name = ["path", "pid", "load", "the_group", "newer"][at];
            match slow.batch.column_by_name(name) {
                Some(expect) => assert_eq!(column, expect, "{name} of {json}"),
                None => assert_eq!(column.null_count(), column.len(), "{name} of {json}"),
            }
        }
        assert_eq!(slow.batch.column_by_name("extra").unwrap().null_count(), slow.batch.num_rows(), "{json}");
        true
    }

    #[test]
    fn plain_payloads_are_taken() {
        for json in [
            "[]",
            " [ ] ",
            "[{}]",
            r#"[{"path":"/a","pid":"12","load":"0.5","group":"g"},{"pid":7,"path":"","load":null}]"#,
            r#"[{"path":1.50,"pid":"","newer":"x"},{"pid":true}]"#,
            r#"[{"path":"a\u00e9\n\"","pid":" +3 "},{"group":"\\"}]"#,
            "[{\"path\":\"é\"},\n\n {\"path\":\"ü\"}]",
        ] {
            assert!(check(json), "{json}");
        }
    }

    #[test]
    fn other_payloads_are_left_alone() {
        for json in [
            "",
            "[",
            "[{}",
            "[{}}",
            "[{}] x",
            "[1]",
            r#"[{"path":"/a"},{"path":"/a","path":"/b"}]"#,
            r#"[{"path":"/a"},{"group":"/a","the_group":"/b"}]"#,
            r#"[{"path":"/a"},{"pid":"abc"}]"#,
            r#"[{"path":"/a"},{"odd":"abc"}]"#,
            r#"[{"path":{"a":[1]}}]"#,
            r#"[{"Path":"x"}]"#,
            "[{\"path\":\"\u{10FF41}\"}]",
            r#"[{"path":"\q"}]"#,
        ] {
            assert!(!check(json), "{json}");
        }
        assert!(!check(&format!(r#"[{{"path":"{}"}}]"#, "x".repeat(1 << 20))));
    }

    #[test]
    fn payloads_follow_one_another() {
        let mut builder = builder();
        let payloads = [
            r#"[{"path":"a","pid":"1"}]"#,
            r#"[{"path":"b"},{"pid":"no"}]"#,
            r#"[{"pid":"2","path":"c\t"}]"#,
        ];
        let taken: Vec<bool> = payloads.iter().map(|json| builder.push(json).is_some()).collect();
        assert_eq!((taken, builder.rows()), (vec![true, false, true], 2));
        let whole = builder.finish();
        let parts: Vec<ArrayRef> = [payloads[0], payloads[2]]
            .iter()
            .map(|json| {
                Arc::clone(decode(json, &Origin::default(), &spec(), &Limits::default()).batch.column(0))
            })
            .collect();
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        assert_eq!(&whole[0], &concat(&parts).unwrap());
    }

    proptest! {
        #[test]
        fn what_is_taken_is_what_decoding_gives(
            json in r#"\[(\{("path":"(é|\\n|\\u00e9|x|\\\\){0,3}",?|"pid":"?[0-9a]{0,2}"?,?|"load":"1.5",?|"group":null,?){0,3}\},?){0,3}\]"#
        ) {
            if serde_json::from_str::<serde_json::Value>(&json).is_ok() {
                check(&json);
            }
        }
    }
}
