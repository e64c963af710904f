//! A small table and spools of it, for the tests of this room.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use datafusion::arrow::array::RecordBatch;

use super::batches::{Layout, Stamps};
use super::receive::{Receiver, prepare};
use crate::catalog::{Catalog, TableSpec};
use crate::collect::Answer;
use crate::decode::{Limits, Origin, decode};
use crate::identity::{Identifier, OwnNames};
use crate::model::Status;
use crate::store::{SpoolBegin, SpoolReader, SpoolWriter};

/// What a host answers for the table `t`.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) host: String,
    pub(super) json: String,
}

impl Answered {
    pub(super) fn new(host: &str, json: &str) -> Self {
        Self { host: host.to_owned(), json: json.to_owned() }
    }

    fn answer(&self, table: &str) -> Answer {
        Answer {
            table: table.to_owned(),
            status: Status::Ok,
            json: self.json.clone().into_bytes(),
            error: String::new(),
            started: at(),
            ended: at(),
            osquery_version: None,
            uid: None,
        }
    }
}

/// A table `t` with a column of each role.
const T: &str = r#"
    name = "t"
    description = "T."
    platforms = ["linux"]
    weight = 1.0
    query = "SELECT * FROM t"
    column = [
        { name = "command", type = "text", role = "identity", normalise = ["self"], description = "C." },
        { name = "size", type = "integer", role = "context", description = "S." },
        { name = "pid", type = "integer", role = "volatile", description = "P." },
    ]
"#;

pub(super) fn spec() -> TableSpec {
    TableSpec::parse(T, "t.toml").unwrap()
}

/// The built-in tables and `t`.
pub(super) fn catalog() -> &'static Catalog {
    static CATALOG: LazyLock<Catalog> = LazyLock::new(|| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("t.toml"), T).unwrap();
        let mut catalog = Catalog::builtin().unwrap();
        catalog.add_dir(dir.path()).unwrap();
        catalog
    });
    &CATALOG
}

/// When all of it was collected.
pub(super) fn at() -> DateTime<Utc> {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

pub(super) fn begin() -> SpoolBegin {
    SpoolBegin {
        snapshot: "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap(),
        fleet: "web".parse().unwrap(),
        incident: None,
        started: at(),
        collected_by: "test".to_owned(),
        collector: "test".to_owned(),
        targets: Vec::new(),
        queries: BTreeMap::from([("t".to_owned(), "SELECT * FROM t".to_owned())]),
    }
}

pub(super) fn decoded(spec: &TableSpec, json: &str) -> RecordBatch {
    decode(json, &Origin::default(), spec, &Limits::default()).batch
}

/// A host's answer with host, time and ids.
pub(super) fn stamped(
    spec: &TableSpec,
    layout: &Layout,
    (identifier, own): (&Identifier, &OwnNames),
    answer: &Answered,
) -> RecordBatch {
    let rows = layout.fit(&decoded(spec, &answer.json)).unwrap();
    let ids = identifier.identify(&rows, &[(0..rows.num_rows(), own)]);
    let stamp = |row| (answer.host.as_str(), at().timestamp_millis(), ids.of(row));
    layout.stamp(&rows, Stamps::of((0..rows.num_rows()).map(stamp))).unwrap()
}

/// A spool with these answers, in `dir`.
pub(super) fn spool(dir: &Path, answers: &[Answered]) -> SpoolReader {
    spool_of("t", dir, answers)
}

/// The same with answers for another table.
pub(super) fn spool_of(table: &str, dir: &Path, answers: &[Answered]) -> SpoolReader {
    let begin = begin();
    let writer = SpoolWriter::create(dir.join(format!("{}.spool", begin.snapshot)), &begin).unwrap();
    let mut receiver = Receiver::new(catalog(), writer);
    for answered in answers {
        receiver.host(&answered.host).unwrap();
        let prepared =
            prepare(catalog(), &Limits::default(), &answered.host, answered.answer(table)).unwrap();
        receiver.answer(&prepared).unwrap();
    }
    receiver.into_reader().unwrap()
}
