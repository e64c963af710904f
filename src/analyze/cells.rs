//! The values of one column of a table's lines: each distinct value once, and for each line which it has.

use std::collections::HashMap;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use serde_json::Value;

use crate::catalog::ColumnType;
use crate::error::{Error, Result};

/// The code of a value that is not known.
pub(super) const UNKNOWN: u32 = u32::MAX;

/// One column; values are text, as osquery printed them.
#[derive(Debug)]
pub(super) struct Cells {
    pub(super) name: String,
    /// What the values are in JSON; nothing when they are not shown.
    kind: Option<ColumnType>,
    /// By line: equal values have equal codes, which count from 0; [`UNKNOWN`] where the host did not say.
    pub(super) codes: Vec<u32>,
    texts: Texts,
}

/// Texts one after the other.
#[derive(Debug, Default)]
struct Texts {
    bytes: String,
    ends: Vec<usize>,
}

impl Texts {
    fn of<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        let mut all = Self::default();
        for text in texts {
            all.bytes.push_str(text);
            all.ends.push(all.bytes.len());
        }
        all.bytes.shrink_to_fit();
        all.ends.shrink_to_fit();
        all
    }

    fn get(&self, number: usize) -> &str {
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[number]]
    }
}

impl Cells {
    /// A column in pieces. What the schema declares as another type than the file has is text.
    pub(super) fn new(name: &str, declared: Option<ColumnType>, arrays: &[ArrayRef]) -> Result<Self> {
        let kind = arrays.first().and_then(|array| kind(declared, array.data_type()));
        let as_text = |array: &ArrayRef| cast(array, &DataType::Utf8);
        let texts: std::result::Result<Vec<ArrayRef>, _> = arrays.iter().map(as_text).collect();
        let texts =
            texts.map_err(|source| Error::internal("cannot read prevalence as text").source(source))?;
        let mut numbers: HashMap<&str, u32> = HashMap::new();
        let mut distinct: Vec<&str> = Vec::new();
        let mut codes = Vec::with_capacity(texts.iter().map(Array::len).sum());
        for array in &texts {
            for text in array.as_string::<i32>() {
                codes.push(text.map_or(UNKNOWN, |text| {
                    *numbers.entry(text).or_insert_with(|| {
                        distinct.push(text);
                        distinct.len() as u32 - 1
                    })
                }));
            }
        }
        drop(numbers);
        let texts = Texts::of(distinct.into_iter());
        Ok(Self { name: name.to_owned(), kind, codes, texts })
    }

    /// Puts the lines into another order.
    pub(super) fn reorder(&mut self, order: &[u32]) {
        self.codes = order.iter().map(|line| self.codes[*line as usize]).collect();
    }

    /// The value of a line; `None` when it is unknown.
    pub(super) fn text(&self, line: usize) -> Option<&str> {
        let code = self.codes[line];
        (code != UNKNOWN).then(|| self.texts.get(code as usize))
    }

    /// All values, by code.
    pub(super) fn distinct(&self) -> impl Iterator<Item = &str> {
        (0..self.texts.ends.len()).map(|number| self.texts.get(number))
    }

    /// The value of a line as outputs show it.
    pub(super) fn json(&self, line: usize) -> Option<Value> {
        let text = self.text(line)?;
        match self.kind? {
            ColumnType::Text => Some(text.into()),
            ColumnType::Integer => text.parse::<i64>().ok().map(Value::from),
            ColumnType::Double => text.parse::<f64>().ok().map(Value::from),
        }
    }
}

fn kind(declared: Option<ColumnType>, found: &DataType) -> Option<ColumnType> {
    match found {
        _ if declared.is_some_and(|declared| declared.data_type() != *found) => Some(ColumnType::Text),
        DataType::Utf8 => Some(ColumnType::Text),
        DataType::Int64 => Some(ColumnType::Integer),
        DataType::Float64 => Some(ColumnType::Double),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{BooleanArray, Float64Array, Int64Array, StringArray};
    use serde_json::json;

    use super::*;

    fn cells(declared: Option<ColumnType>, pieces: Vec<ArrayRef>) -> Cells {
        Cells::new("a", declared, &pieces).unwrap()
    }

    #[test]
    fn equal_values_of_all_pieces_are_kept_once() {
        let text = |texts: &[Option<&str>]| Arc::new(StringArray::from(texts.to_vec())) as ArrayRef;
        let pieces = vec![text(&[Some("b"), None, Some("")]), text(&[Some("a"), Some("b")])];
        let mut found = cells(None, pieces);
        assert_eq!(found.codes, [0, UNKNOWN, 1, 2, 0]);
        assert_eq!(found.distinct().collect::<Vec<_>>(), ["b", "", "a"]);
        found.reorder(&[4, 3, 2, 1, 0]);
        let texts: Vec<_> = (0..5).map(|line| found.text(line)).collect();
        assert_eq!(texts, [Some("b"), Some("a"), Some(""), None, Some("b")]);
    }

    #[test]
    fn numbers_are_numbers_unless_they_were_declared_as_something_else() {
        let numbers = || vec![Arc::new(Int64Array::from(vec![7, -1])) as ArrayRef];
        assert_eq!(cells(None, numbers()).json(1), Some(json!(-1)));
        assert_eq!(cells(Some(ColumnType::Text), numbers()).json(0), Some(json!("7")));
        let reals = vec![Arc::new(Float64Array::from(vec![1.5, f64::NAN])) as ArrayRef];
        let reals = cells(Some(ColumnType::Double), reals);
        assert_eq!((reals.json(0), reals.json(1)), (Some(json!(1.5)), Some(Value::Null)));
        let others = cells(None, vec![Arc::new(BooleanArray::from(vec![true]))]);
        assert_eq!((others.text(0), others.json(0)), (Some("true"), None));
    }
}
