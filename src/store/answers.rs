//! How hosts answered, held small: a fleet of 20,000 hosts has 600,000 answers, and nearly all say the same names.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::model::{Coverage, Status};

/// The ends of answers, in the order in which they came.
#[derive(Debug, Default)]
pub struct Answers {
    names: Names,
    lines: Vec<Line>,
}

/// One of [`Answers`].
#[derive(Debug, Clone, Copy)]
pub struct AnswerEnd<'a> {
    names: &'a Names,
    line: &'a Line,
}

#[derive(Debug)]
struct Line {
    host: u32,
    table: u32,
    osquery_version: Option<u32>,
    uid: Option<u32>,
    status: Status,
    rows: u64,
    bytes: u64,
    started: Option<DateTime<Utc>>,
    ended: Option<DateTime<Utc>>,
    /// Most answers have none.
    words: Option<Box<Words>>,
}

#[derive(Debug)]
struct Words {
    error: String,
    columns_missing: Vec<String>,
}

/// Names by the order of their first mention.
#[derive(Debug, Default)]
struct Names {
    all: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u32>,
}

impl Answers {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = AnswerEnd<'_>> {
        self.lines.iter().map(|line| AnswerEnd { names: &self.names, line })
    }

    /// Takes one more.
    pub(super) fn push(&mut self, coverage: Coverage) {
        let is_plain = coverage.error.is_empty() && coverage.columns_missing.is_empty();
        let line = Line {
            host: self.names.number(&coverage.host),
            table: self.names.number(&coverage.table),
            osquery_version: coverage.osquery_version.map(|version| self.names.number(&version)),
            uid: coverage.uid,
            status: coverage.status,
            rows: coverage.rows,
            bytes: coverage.bytes,
            started: coverage.started,
            ended: coverage.ended,
            words: (!is_plain).then(|| {
                Box::new(Words { error: coverage.error, columns_missing: coverage.columns_missing })
            }),
        };
        self.lines.push(line);
    }
}

impl<'a> AnswerEnd<'a> {
    /// The host.
    pub fn host(&self) -> &'a str {
        self.names.name(self.line.host)
    }

    /// The table.
    pub fn table(&self) -> &'a str {
        self.names.name(self.line.table)
    }

    /// When the query ended, by the host's word.
    pub fn ended(&self) -> Option<DateTime<Utc>> {
        self.line.ended
    }

    /// All of it.
    pub fn coverage(&self) -> Coverage {
        let Line { status, rows, bytes, started, ended, uid, .. } = *self.line;
        let words = self.line.words.as_ref();
        let version = self.line.osquery_version.map(|version| self.names.name(version).to_owned());
        Coverage {
            host: self.host().to_owned(),
            table: self.table().to_owned(),
            status,
            rows,
            bytes,
            error: words.map(|words| words.error.clone()).unwrap_or_default(),
            columns_missing: words.map(|words| words.columns_missing.clone()).unwrap_or_default(),
            started,
            ended,
            osquery_version: version,
            uid,
        }
    }
}

impl Names {
    fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let (name, number) = (Arc::<str>::from(name), self.all.len() as u32);
        self.all.push(Arc::clone(&name));
        self.numbers.insert(name, number);
        number
    }

    fn name(&self, number: u32) -> &str {
        self.all.get(number as usize).map_or("", |name| name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn coverage() -> impl Strategy<Value = Coverage> {
        let names = ("[ab]{0,2}", "[ab]{0,2}", proptest::option::of("[ab]{0,2}"));
        let times = (proptest::option::of(0..9_i64), proptest::option::of(0..9_i64));
        let words = ("[ab]{0,2}", proptest::collection::vec("[ab]{1,2}", 0..3));
        let numbers = (0..9_u64, 0..9_u64, proptest::option::of(0..9_u32), 0..Status::ALL.len());
        let time = |seconds: Option<i64>| seconds.and_then(|seconds| DateTime::from_timestamp(seconds, 1));
        (names, times, words, numbers).prop_map(move |(names, times, words, numbers)| Coverage {
            host: names.0,
            table: names.1,
            osquery_version: names.2,
            started: time(times.0),
            ended: time(times.1),
            error: words.0,
            columns_missing: words.1,
            rows: numbers.0,
            bytes: numbers.1,
            uid: numbers.2,
            status: Status::ALL[numbers.3],
        })
    }

    proptest! {
        #[test]
        fn what_went_in_comes_out(all in proptest::collection::vec(coverage(), 0..20)) {
            let mut answers = Answers::default();
            all.iter().cloned().for_each(|one| answers.push(one));
            prop_assert_eq!(answers.len(), all.len());
            for (end, one) in answers.iter().zip(&all) {
                prop_assert_eq!((end.host(), end.table(), end.ended()), (&*one.host, &*one.table, one.ended));
                prop_assert_eq!(&end.coverage(), one);
            }
        }
    }
}
