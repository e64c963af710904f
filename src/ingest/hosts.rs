//! The hosts of a snapshot: their order, what they call themselves, and the facts that say what kind of host each is.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, StringArray, UInt32Array,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Schema};

use super::reading::{GROUP_BYTES, GROUP_ROWS};
use crate::catalog::{Catalog, TableSpec};
use crate::decode::{Limits, Origin, RowsBuilder, decode};
use crate::error::{Error, Result};
use crate::identity::OwnNames;
use crate::model::KnownHost;
use crate::store::SpoolReader;

/// Longest fact that is kept of a host, in bytes.
const LONGEST_FACT: usize = 512;
/// Most values of one column that a host's own names are taken from.
const MOST_CLAIMS: usize = 256;

/// A column of the `hosts` table and where its value comes from.
struct Fact {
    column: &'static str,
    sources: &'static [(&'static str, &'static str)],
}

const TEXT_FACTS: &[Fact] = &[
    Fact { column: "hostname", sources: &[("system_info", "hostname")] },
    Fact { column: "os_name", sources: &[("os_version", "name")] },
    Fact { column: "os_version", sources: &[("os_version", "version")] },
    Fact { column: "platform", sources: &[("os_version", "platform")] },
    Fact { column: "arch", sources: &[("os_version", "arch"), ("system_info", "cpu_type")] },
    Fact { column: "kernel", sources: &[("kernel_info", "version")] },
    Fact { column: "osquery_version", sources: &[("osquery_info", "version")] },
    Fact { column: "instance_id", sources: &[("ec2_instance_metadata", "instance_id")] },
    Fact { column: "instance_type", sources: &[("ec2_instance_metadata", "instance_type")] },
    Fact { column: "image", sources: &[("ec2_instance_metadata", "ami_id")] },
    Fact { column: "zone", sources: &[("ec2_instance_metadata", "availability_zone")] },
    // Known to inventories only.
    Fact { column: "lifecycle", sources: &[] },
    Fact { column: "autoscaling_group", sources: &[] },
    Fact { column: "cpu_brand", sources: &[("system_info", "cpu_brand")] },
    Fact { column: "hardware_model", sources: &[("system_info", "hardware_model")] },
];

const NUMBER_FACTS: &[Fact] = &[
    Fact { column: "logical_cores", sources: &[("system_info", "cpu_logical_cores")] },
    Fact { column: "physical_memory", sources: &[("system_info", "physical_memory")] },
    Fact { column: "uptime_seconds", sources: &[("uptime", "total_seconds")] },
];

/// What one host says of itself, by table and column.
type Claims = HashMap<(&'static str, &'static str), Vec<String>>;

/// The hosts of a snapshot, sorted by name; a host's place is its ordinal in the bitmaps of prevalence.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    names: Vec<String>,
    ordinals: HashMap<String, u32>,
    own_names: Vec<OwnNames>,
    claims: Vec<Claims>,
    /// What an inventory says of each; it goes before what the host says.
    known: Vec<KnownHost>,
}

impl Fleet {
    /// Reads from a spool what its hosts say of themselves.
    pub(super) fn read(spool: &SpoolReader, catalog: &Catalog, limits: &Limits) -> Result<Self> {
        let index = spool.index();
        let answering = index.answers.iter().map(|answer| answer.host().to_owned());
        let known: HashMap<&str, &KnownHost> =
            index.hosts.iter().map(|host| (host.name.as_str(), host)).collect();
        let asked = index.hosts.iter().map(|host| host.name.clone());
        let mut names: BTreeSet<String> = asked.chain(answering).collect();
        let mut claims: HashMap<String, Claims> = HashMap::new();
        for table in index.tables().map(ToOwned::to_owned).collect::<Vec<_>>() {
            let wanted = wanted_columns(&table);
            if wanted.is_empty() {
                continue;
            }
            let spec = catalog.table_or_undeclared(&table);
            Reading { spec: &spec, limits, wanted, claims: &mut claims }.read(spool, &mut names)?;
        }
        Ok(Self::new(names, claims, &known))
    }

    fn new(
        names: BTreeSet<String>,
        mut claims: HashMap<String, Claims>,
        known: &HashMap<&str, &KnownHost>,
    ) -> Self {
        let names: Vec<String> = names.into_iter().collect();
        let claims: Vec<Claims> = names.iter().map(|name| claims.remove(name).unwrap_or_default()).collect();
        let of_host = |name: &String| {
            known.get(name.as_str()).map_or_else(|| KnownHost::new(name), |host| (*host).clone())
        };
        let known: Vec<KnownHost> = names.iter().map(of_host).collect();
        let own = |(known, claims): (&KnownHost, &Claims)| {
            let inventory =
                std::iter::once(known.name.as_str()).chain(known.names.iter().map(String::as_str));
            OwnNames::new(inventory.chain(own_claims(claims)))
        };
        let own_names = known.iter().zip(&claims).map(own).collect();
        let ordinals = names.iter().zip(0..).map(|(name, ordinal)| (name.clone(), ordinal)).collect();
        Self { names, ordinals, own_names, claims, known }
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    pub(super) fn ordinal(&self, host: &str) -> Option<u32> {
        self.ordinals.get(host).copied()
    }

    /// The name of a host; empty for one that is not of this snapshot.
    pub(super) fn name(&self, ordinal: u32) -> &str {
        self.names.get(ordinal as usize).map_or("", String::as_str)
    }

    /// The own names of a host; none for a host that is not of this snapshot.
    pub(super) fn own_names(&self, host: &str) -> &OwnNames {
        self.own_names_of(self.ordinal(host).unwrap_or(u32::MAX))
    }

    /// The same by its place.
    pub(super) fn own_names_of(&self, ordinal: u32) -> &OwnNames {
        static NONE: std::sync::LazyLock<OwnNames> = std::sync::LazyLock::new(OwnNames::default);
        self.own_names.get(ordinal as usize).unwrap_or(&NONE)
    }

    /// The `hosts` table, one line per host in the order of the ordinals.
    pub(super) fn table(&self) -> Result<RecordBatch> {
        let count = u32::try_from(self.names.len())
            .map_err(|source| Error::data("a snapshot has at most 2^32 hosts").source(source))?;
        let mut fields =
            vec![Field::new("ordinal", DataType::UInt32, false), Field::new("host", DataType::Utf8, false)];
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(UInt32Array::from_iter_values(0..count)),
            Arc::new(StringArray::from_iter_values(&self.names)),
        ];
        for fact in TEXT_FACTS {
            fields.push(Field::new(fact.column, DataType::Utf8, true));
            let texts = self.known.iter().zip(&self.claims).map(|(known, claims)| fact.text(known, claims));
            arrays.push(Arc::new(texts.collect::<StringArray>()));
        }
        for fact in NUMBER_FACTS {
            fields.push(Field::new(fact.column, DataType::Int64, true));
            let number = |claims| fact.of(claims).and_then(|text| text.parse::<i64>().ok());
            arrays.push(Arc::new(self.claims.iter().map(number).collect::<Int64Array>()));
        }
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
            .map_err(|source| Error::internal("cannot build the hosts table").source(source))
    }
}

impl Fact {
    fn text<'a>(&self, known: &'a KnownHost, claims: &'a Claims) -> Option<&'a str> {
        known.facts.get(self.column).map(String::as_str).or_else(|| self.of(claims))
    }

    fn of<'a>(&self, claims: &'a Claims) -> Option<&'a str> {
        self.sources.iter().find_map(|source| claims.get(source)?.first().map(String::as_str))
    }
}

/// Reads claims out of one table.
struct Reading<'a> {
    spec: &'a TableSpec,
    limits: &'a Limits,
    wanted: Vec<(&'static str, &'static str)>,
    claims: &'a mut HashMap<String, Claims>,
}

/// Payloads of different hosts that are decoded together: most have a row or two.
const PAYLOADS_AT_ONCE: usize = 256;

/// Rows that wait to be noted, and whose they are.
struct Waiting {
    builder: RowsBuilder,
    hosts: Vec<(String, Range<usize>)>,
}

impl Waiting {
    fn is_full(&self) -> bool {
        self.hosts.len() >= PAYLOADS_AT_ONCE
            || self.builder.bytes() >= GROUP_BYTES
            || self.builder.rows() >= GROUP_ROWS
    }
}

impl Reading<'_> {
    fn read(&mut self, spool: &SpoolReader, names: &mut BTreeSet<String>) -> Result<()> {
        let mut waiting = self.waiting();
        for number in 0..spool.index().payloads(&self.spec.name) {
            let (header, json) = spool.rows(&self.spec.name, number)?;
            names.insert(header.host.clone());
            if let Some(taken) = waiting.builder.push(&json) {
                let end = waiting.builder.rows();
                waiting.hosts.push((header.host, end - taken.rows..end));
                if waiting.is_full() {
                    let full = std::mem::replace(&mut waiting, self.waiting());
                    self.note_all(full)?;
                }
                continue;
            }
            // What a host said first counts first. And what is decoded alone is not kept: a few bytes of JSON can be
            // a batch of hundreds of columns.
            if !waiting.hosts.is_empty() {
                let before = std::mem::replace(&mut waiting, self.waiting());
                self.note_all(before)?;
            }
            let origin = Origin { source: header.source, line: header.line, column: header.column };
            let alone = decode(&json, &origin, self.spec, self.limits).batch;
            self.note(header.host, &alone);
        }
        self.note_all(waiting)
    }

    fn waiting(&self) -> Waiting {
        let builder = RowsBuilder::new(self.spec, &[], self.limits, 2 * PAYLOADS_AT_ONCE);
        Waiting { builder, hosts: Vec::new() }
    }

    fn note_all(&mut self, waiting: Waiting) -> Result<()> {
        let Waiting { builder, hosts } = waiting;
        let all = RecordBatchOptions::new().with_row_count(Some(builder.rows()));
        let all = RecordBatch::try_new_with_options(self.spec.arrow_schema(), builder.finish(), &all)
            .map_err(|source| Error::internal("rows do not fit their table").source(source))?;
        for (host, rows) in hosts {
            self.note(host, &all.slice(rows.start, rows.len()));
        }
        Ok(())
    }

    fn note(&mut self, host: String, rows: &RecordBatch) {
        note(self.claims.entry(host).or_default(), rows, &self.wanted);
    }
}

/// The columns of a table that say who or what a host is.
fn wanted_columns(table: &str) -> Vec<(&'static str, &'static str)> {
    let own = OwnNames::SOURCES
        .iter()
        .flat_map(|source| source.columns.iter().map(|column| (source.table, *column)));
    let facts = TEXT_FACTS.iter().chain(NUMBER_FACTS).flat_map(|fact| fact.sources.iter().copied());
    let mut wanted: Vec<(&str, &str)> = own.chain(facts).filter(|(of, _)| *of == table).collect();
    wanted.sort_unstable();
    wanted.dedup();
    wanted
}

fn own_claims(claims: &Claims) -> impl Iterator<Item = &str> {
    OwnNames::SOURCES.iter().flat_map(move |source| {
        let of_column = move |column: &&'static str| claims.get(&(source.table, *column));
        source.columns.iter().filter_map(of_column).flatten().map(String::as_str)
    })
}

fn note(claims: &mut Claims, batch: &RecordBatch, wanted: &[(&'static str, &'static str)]) {
    for source in wanted {
        let Some(array) = batch.column_by_name(source.1) else { continue };
        let Ok(texts) = cast(array, &DataType::Utf8) else { continue };
        let Some(texts) = texts.as_string_opt::<i32>() else { continue };
        let known = claims.entry(*source).or_default();
        let usable = |text: &&str| !text.is_empty() && text.len() <= LONGEST_FACT;
        let room = MOST_CLAIMS.saturating_sub(known.len());
        known.extend(texts.iter().flatten().filter(usable).take(room).map(ToOwned::to_owned));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Answered};
    use super::*;

    /// The claims of hosts that answered for `system_info`, one payload after another.
    fn hostnames(answers: &[Answered]) -> HashMap<String, Claims> {
        let dir = tempfile::tempdir().unwrap();
        let spool = testing::spool_of("system_info", dir.path(), answers);
        let (mut claims, mut names) = (HashMap::new(), BTreeSet::new());
        let catalog = testing::catalog();
        let spec = catalog.table_or_undeclared("system_info");
        let wanted = vec![("system_info", "hostname")];
        let mut reading = Reading { spec: &spec, limits: &Limits::default(), wanted, claims: &mut claims };
        reading.read(&spool, &mut names).unwrap();
        assert!(answers.iter().all(|answer| names.contains(&answer.host)));
        claims
    }

    #[test]
    fn claims_stay_in_order_when_a_payload_is_odd() {
        let plain = |host: &str, name: &str| Answered::new(host, &format!(r#"[{{"hostname":"{name}"}}]"#));
        let odd = |host: &str, name: &str| {
            Answered::new(host, &format!(r#"[{{"hostname":"{name}","odd":{{"a":[1]}}}}]"#))
        };
        let mut answers =
            vec![plain("a", "1"), odd("a", "2"), plain("b", "1"), plain("a", "3"), odd("b", "2")];
        answers.extend((0..2 * PAYLOADS_AT_ONCE).map(|number| plain(&format!("h{number}"), "x")));
        let claims = hostnames(&answers);
        let of = |host: &str| claims[host][&("system_info", "hostname")].join(" ");
        assert_eq!((of("a").as_str(), of("b").as_str()), ("1 2 3", "1 2"));
        assert_eq!(claims.len(), 2 + 2 * PAYLOADS_AT_ONCE);
        assert!((0..2 * PAYLOADS_AT_ONCE).all(|number| of(&format!("h{number}")) == "x"));
    }

    #[test]
    fn many_rows_do_not_wait_together() {
        let mut waiting = Waiting {
            builder: RowsBuilder::new(&testing::spec(), &[], &Limits::default(), 1),
            hosts: Vec::new(),
        };
        let rows = format!("[{}]", vec!["{}"; 16_384].join(","));
        for _ in 0..3 {
            assert!(waiting.builder.push(&rows).is_some() && !waiting.is_full());
        }
        assert!(waiting.builder.push(&rows).is_some() && waiting.is_full());
    }
}
