//! Coverage: one line per host and table, whatever came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema};

use super::batches::timestamp;
use super::hosts::Fleet;
use super::receive::{append, no_answer, shorten};
use super::table::{HostDecoded, TableDone};
use crate::error::{Error, Result};
use crate::model::{Coverage, Status};
use crate::store::{AnswerEnd, SpoolIndex};

/// The coverage of a snapshot, sorted by host and table, made while it is asked for.
pub(super) fn lines<'a>(
    index: &'a SpoolIndex,
    (fleet, tables, done): (&'a Fleet, &'a BTreeSet<String>, &'a BTreeMap<String, TableDone>),
) -> impl Iterator<Item = Coverage> + Send {
    let mut answers: Vec<AnswerEnd<'_>> = index.answers.iter().collect();
    // Stable: of two answers the first stays the first.
    answers.sort_by_key(|answer| (answer.host(), answer.table()));
    let places = (0_u32..).zip(fleet.names()).flat_map(move |(number, host)| {
        tables.iter().map(move |table| (number, host.as_str(), table.as_str()))
    });
    places.map(move |(number, host, table)| {
        let decoded = done.get(table).and_then(|table| table.hosts.get(&number));
        let key = |answer: &AnswerEnd<'_>| (answer.host(), answer.table()).cmp(&(host, table));
        let first = answers.partition_point(|answer| key(answer).is_lt());
        let same = answers[first..].iter().take_while(|answer| key(answer).is_eq()).map(AnswerEnd::coverage);
        settle(merged(same).unwrap_or_else(|| unanswered(index, host, table, decoded)), decoded)
    })
}

/// A host may answer twice for one table (two queries of a log that map to it).
fn merged(answers: impl Iterator<Item = Coverage>) -> Option<Coverage> {
    let mut merged: Option<Coverage> = None;
    for answer in answers {
        match &mut merged {
            Some(known) => merge(known, &answer),
            None => merged = Some(answer),
        }
    }
    merged
}

fn merge(known: &mut Coverage, answer: &Coverage) {
    known.rows += answer.rows;
    known.bytes += answer.bytes;
    known.status = worse(known.status, answer.status);
    if !answer.error.is_empty() {
        append(&mut known.error, &answer.error);
    }
    known.ended = known.ended.max(answer.ended);
}

fn worse(a: Status, b: Status) -> Status {
    match (a.answered(), b.answered()) {
        (true, true) => a.min(b),
        (false, _) => a,
        (true, false) => b,
    }
}

/// Nothing says how this host's answer for the table ended.
fn unanswered(index: &SpoolIndex, host: &str, table: &str, decoded: Option<&HostDecoded>) -> Coverage {
    let (status, error) = match decoded {
        Some(_) => (Status::Truncated, "the collection ended before this answer did"),
        None if index.begin.queries.contains_key(table) => {
            (Status::NotAsked, "the collection ended before this host was asked")
        }
        None => (Status::NotAsked, ""),
    };
    no_answer(host, table, status, error)
}

/// What decoding adds to what the collector saw.
fn settle(mut coverage: Coverage, decoded: Option<&HostDecoded>) -> Coverage {
    let Some(decoded) = decoded else { return coverage };
    coverage.rows = decoded.rows;
    coverage.columns_missing = decoded.missing.as_deref().unwrap_or_default().to_vec();
    if let Some(problem) = &decoded.first_problem {
        let more = decoded.problems.saturating_sub(1);
        let tail = if more > 0 { format!(" (and {more} more)") } else { String::new() };
        append(&mut coverage.error, &format!("{problem}{tail}"));
    }
    if decoded.oversized_cells > 0 {
        append(&mut coverage.error, &format!("{} cells were cut, see `extra`", decoded.oversized_cells));
        if coverage.status.answered() {
            coverage.status = Status::Truncated;
        }
    }
    if coverage.status == Status::Empty && decoded.rows > 0 {
        coverage.status = Status::Ok;
    }
    shorten(&mut coverage.error);
    coverage
}

/// The `coverage` table.
pub(super) fn table(all: &[Coverage]) -> Result<RecordBatch> {
    let text = |value: fn(&Coverage) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(all.iter().map(value)))
    };
    let time = |value: fn(&Coverage) -> Option<chrono::DateTime<chrono::Utc>>| -> ArrayRef {
        let millis = all.iter().map(|line| value(line).map(|time| time.timestamp_millis()));
        Arc::new(millis.collect::<TimestampMillisecondArray>().with_timezone("UTC"))
    };
    let missing = all.iter().map(|line| line.columns_missing.join(","));
    let uid = all.iter().map(|line| line.uid.map(i64::from));
    let columns: Vec<(Field, ArrayRef)> = vec![
        (Field::new("host", DataType::Utf8, false), text(|line| &line.host)),
        (Field::new("table_name", DataType::Utf8, false), text(|line| &line.table)),
        (Field::new("status", DataType::Utf8, false), text(|line| line.status.as_str())),
        (
            Field::new("rows", DataType::Int64, false),
            Arc::new(all.iter().map(|line| i64::try_from(line.rows).ok()).collect::<Int64Array>()),
        ),
        (
            Field::new("bytes", DataType::Int64, false),
            Arc::new(all.iter().map(|line| i64::try_from(line.bytes).ok()).collect::<Int64Array>()),
        ),
        (Field::new("error", DataType::Utf8, false), text(|line| &line.error)),
        (
            Field::new("columns_missing", DataType::Utf8, false),
            Arc::new(StringArray::from_iter_values(missing)),
        ),
        (Field::new("started", timestamp(), true), time(|line| line.started)),
        (Field::new("ended", timestamp(), true), time(|line| line.ended)),
        (
            Field::new("osquery_version", DataType::Utf8, true),
            Arc::new(all.iter().map(|line| line.osquery_version.as_deref()).collect::<StringArray>()),
        ),
        (Field::new("uid", DataType::Int64, true), Arc::new(uid.collect::<Int64Array>())),
    ];
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
        .map_err(|source| Error::internal("cannot build the coverage table").source(source))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Answered};
    use super::*;

    fn answer(status: Status) -> Coverage {
        no_answer("h", "t", status, "")
    }

    #[test]
    fn an_answer_of_two_queries_is_as_good_as_the_worse() {
        for (a, b, both) in [
            (Status::Ok, Status::Empty, Status::Ok),
            (Status::Empty, Status::Ok, Status::Ok),
            (Status::Empty, Status::Empty, Status::Empty),
            (Status::Ok, Status::Timeout, Status::Timeout),
            (Status::Denied, Status::Empty, Status::Denied),
        ] {
            assert_eq!(worse(a, b), both, "{a} and {b}");
        }
    }

    #[test]
    fn answers_for_one_table_are_added_up() {
        let mut first = answer(Status::Ok);
        (first.rows, first.bytes, first.error) = (2, 20, "one".to_owned());
        let mut second = answer(Status::Truncated);
        (second.rows, second.bytes, second.error) = (3, 30, "two".to_owned());
        let merged = merged([first, second].into_iter()).unwrap();
        assert_eq!((merged.rows, merged.bytes, merged.status), (5, 50, Status::Truncated));
        assert_eq!(merged.error, "one; two");
    }

    #[test]
    fn what_was_never_decoded_stays_as_the_collector_saw_it() {
        for status in Status::ALL {
            assert_eq!(settle(answer(status), None), answer(status));
        }
    }

    #[test]
    fn decoding_counts_the_rows_and_tells_the_first_problem() {
        let decoded = HostDecoded {
            rows: 7,
            missing: Some(["size".to_owned()].into()),
            problems: 3,
            first_problem: Some("line 1: no number".to_owned()),
            ..HostDecoded::default()
        };
        let settled = settle(answer(Status::Empty), Some(&decoded));
        assert_eq!((settled.rows, settled.status), (7, Status::Ok));
        assert_eq!(settled.columns_missing, ["size"]);
        assert_eq!(settled.error, "line 1: no number (and 2 more)");
    }

    #[test]
    fn cut_cells_make_an_answer_truncated_but_a_failure_no_better() {
        let decoded = HostDecoded { rows: 1, oversized_cells: 2, ..HostDecoded::default() };
        assert_eq!(settle(answer(Status::Ok), Some(&decoded)).status, Status::Truncated);
        assert_eq!(settle(answer(Status::Denied), Some(&decoded)).status, Status::Denied);
    }

    #[test]
    fn an_error_of_any_length_is_shortened() {
        let decoded =
            HostDecoded { first_problem: Some("ä".repeat(100_000)), problems: 1, ..HostDecoded::default() };
        assert!(settle(answer(Status::Ok), Some(&decoded)).error.len() < 3_000);
    }

    #[test]
    fn who_said_nothing_is_in_the_coverage_too() {
        let dir = tempfile::tempdir().unwrap();
        let spool = testing::spool(dir.path(), &[Answered::new("a", r#"[{"command":"x"}]"#)]);
        let index = spool.index();
        let rows = HostDecoded { rows: 1, ..HostDecoded::default() };
        let partly = unanswered(index, "b", "t", Some(&rows));
        assert_eq!(partly.status, Status::Truncated);
        let asked = unanswered(index, "b", "t", None);
        assert!(asked.status == Status::NotAsked && !asked.error.is_empty(), "{asked:?}");
        let not_asked = unanswered(index, "b", "other", None);
        assert!(not_asked.status == Status::NotAsked && not_asked.error.is_empty(), "{not_asked:?}");
    }
}
