//! The method `baseline`, and how baselines are made: a row is normal when the baseline has it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, AsArray, FixedSizeBinaryBuilder, Int64Array, RecordBatch, StringArray,
};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema};
use roaring::RoaringBitmap;
use serde_json::Value;

use super::candidate::{Candidate, Method, Subject};
use super::explain::line_row;
use super::fleet::{FleetState, TableAnswers, column};
use super::lines::{Group, Id, Lines};
use crate::catalog::Catalog;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::identity::{ENCODING_VERSION, ID_BYTES};
use crate::model::{FindingKind, Row, now};
use crate::store::{Baseline, BaselineOrigin, BaselineTable, FORMAT, Manifest, Store};

/// What a new baseline is made from.
#[derive(Debug, Clone)]
pub struct BaselineRequest {
    /// Its name.
    pub name: String,
    /// The hosts to take; all that answered when empty.
    pub hosts: Vec<String>,
    /// On how many of them a row must be; all rows of all of them when 1.
    pub quorum: u64,
    /// User and machine that make it.
    pub created_by: String,
}

/// Makes a baseline from a snapshot, or from several of a fleet, the oldest first; a host counts once, by its name.
///
/// # Errors
/// A host is in none of the snapshots, the quorum is larger than the number of hosts, the name is taken, a snapshot
/// cannot be read, or the store cannot be written.
pub async fn create_baseline(
    (store, engine, catalog): (&Store, &Engine, &Catalog),
    manifests: &[Manifest],
    request: BaselineRequest,
) -> Result<Baseline> {
    let Some((newest, earlier)) = manifests.split_last() else {
        return Err(Error::internal("a baseline of no snapshot"));
    };
    let mut sources = Vec::new();
    for manifest in manifests {
        sources.push(Source::new(manifest, FleetState::load(engine, catalog, manifest.snapshot).await?));
    }
    let names = chosen_hosts(&sources, &request)?;
    sources.iter_mut().for_each(|source| source.choose(&names));
    let tables: BTreeSet<&String> = sources.iter().flat_map(|source| source.state.tables.keys()).collect();
    let mut kept = BTreeMap::new();
    let mut part = store.baseline_part(&newest.fleet, &request.name, &schema()).await?;
    for table in tables {
        let normal = Normal::load((engine, catalog), table, &sources).await?;
        // A host that answered in part says what is normal too; what it could not say can only show up as new.
        if !normal.heard.is_empty() {
            let batch = normal.batch(table, request.quorum)?;
            let of = BaselineTable { hosts_answered: normal.heard.len(), rows: batch.num_rows() as u64 };
            kept.insert(table.clone(), of);
            part.write(&batch).await?;
        }
    }
    let baseline = Baseline {
        format: FORMAT,
        name: request.name,
        fleet: newest.fleet.clone(),
        created: now(),
        created_by: request.created_by,
        diffy_version: env!("CARGO_PKG_VERSION").to_owned(),
        identity_version: ENCODING_VERSION,
        origin: BaselineOrigin {
            snapshot: newest.snapshot,
            earlier: earlier.iter().map(|manifest| manifest.snapshot).collect(),
            hosts: names,
            quorum: request.quorum,
        },
        tables: kept,
        file: part.close().await?,
    };
    store.commit_baseline(&baseline).await?;
    Ok(baseline)
}

/// One snapshot that a baseline is made from.
struct Source<'a> {
    manifest: &'a Manifest,
    state: FleetState,
    /// By ordinal: the number of the host among those of the baseline, if it is one.
    numbers: Vec<Option<u32>>,
}

impl<'a> Source<'a> {
    fn new(manifest: &'a Manifest, state: FleetState) -> Self {
        Self { manifest, state, numbers: Vec::new() }
    }

    fn heard(&self) -> impl Iterator<Item = &String> {
        self.state.heard().into_iter().filter_map(|host| self.state.hosts.get(host as usize))
    }

    fn choose(&mut self, names: &[String]) {
        let number = |host: &String| names.binary_search(host).ok().map(|number| number as u32);
        self.numbers = self.state.hosts.iter().map(number).collect();
    }

    fn numbers(&self, ordinals: &RoaringBitmap) -> RoaringBitmap {
        ordinals.iter().filter_map(|ordinal| *self.numbers.get(ordinal as usize)?).collect()
    }
}

/// The names of the hosts of a baseline, sorted.
fn chosen_hosts(sources: &[Source<'_>], request: &BaselineRequest) -> Result<Vec<String>> {
    let heard: BTreeSet<&String> = sources.iter().flat_map(Source::heard).collect();
    if let Some(name) = request.hosts.iter().find(|name| !heard.contains(name)) {
        let all = sources.iter().flat_map(|source| source.state.hosts.iter().map(String::as_str));
        let hint = crate::catalog::nearest(name, all).map_or_else(
            || "`diffy query \"SELECT host FROM current.hosts\"` lists them".to_owned(),
            |nearest| format!("did you mean `{nearest}`?"),
        );
        let which = if sources.len() == 1 { "this snapshot" } else { "any of these snapshots" };
        return Err(
            Error::usage(format!("host `{}` did not answer in {which}", name.escape_debug())).hint(hint)
        );
    }
    let chosen: BTreeSet<&String> =
        if request.hosts.is_empty() { heard } else { request.hosts.iter().collect() };
    if request.quorum == 0 || request.quorum > chosen.len() as u64 {
        return Err(Error::usage(format!(
            "a quorum of {} of {} hosts cannot be",
            request.quorum,
            chosen.len()
        ))
        .hint("`--quorum` is a number of hosts, from 1 up to those taken"));
    }
    Ok(chosen.into_iter().cloned().collect())
}

fn schema() -> Arc<Schema> {
    let id = || DataType::FixedSizeBinary(ID_BYTES);
    Arc::new(Schema::new(vec![
        Field::new("table_name", DataType::Utf8, false),
        Field::new("loose_id", id(), false),
        Field::new("strict_id", id(), false),
        Field::new("hosts", DataType::Int64, false),
        Field::new("row", DataType::Utf8, false),
    ]))
}

/// What the hosts of a baseline have in one table.
#[derive(Default)]
struct Normal {
    /// By loose and strict id: the hosts, and a row of the newest snapshot that has one.
    rows: BTreeMap<(Id, Id), (RoaringBitmap, String)>,
    heard: RoaringBitmap,
}

impl Normal {
    async fn load(
        (engine, catalog): (&Engine, &Catalog),
        table: &str,
        sources: &[Source<'_>],
    ) -> Result<Self> {
        let mut normal = Self::default();
        for source in sources.iter().rev() {
            let Some(answers) = source.state.tables.get(table) else { continue };
            normal.heard |= source.numbers(&answers.heard);
            let spec = catalog.table_or_undeclared(table).into_owned();
            normal.add(source, &Lines::load(engine, source.manifest, spec).await?);
        }
        Ok(normal)
    }

    fn add(&mut self, source: &Source<'_>, lines: &Lines) {
        for loose in lines.loose() {
            for strict in lines.strict(&loose) {
                let hosts = source.numbers(&strict.members);
                if !hosts.is_empty() {
                    let text = || Value::Object(line_row(lines, lines.most_common(&strict))).to_string();
                    let row = self.rows.entry((loose.id, strict.id));
                    row.or_insert_with(|| (RoaringBitmap::new(), text())).0 |= hosts;
                }
            }
        }
    }

    /// One line per strict id that enough of the hosts have.
    fn batch(&self, table: &str, quorum: u64) -> Result<RecordBatch> {
        let kept: Vec<_> = self.rows.iter().filter(|(_, (hosts, _))| hosts.len() >= quorum).collect();
        let cannot = |source| Error::internal("cannot build a baseline").source(source);
        let ids = |of: fn(&(Id, Id)) -> &Id| -> Result<ArrayRef> {
            let mut builder = FixedSizeBinaryBuilder::with_capacity(kept.len(), ID_BYTES);
            for (ids, _) in &kept {
                builder.append_value(of(ids)).map_err(cannot)?;
            }
            Ok(Arc::new(builder.finish()))
        };
        let hosts = kept.iter().map(|(_, (hosts, _))| i64::try_from(hosts.len()).ok());
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(std::iter::repeat_n(table, kept.len()))),
            ids(|(loose, _)| loose)?,
            ids(|(_, strict)| strict)?,
            Arc::new(hosts.collect::<Int64Array>()),
            Arc::new(StringArray::from_iter_values(kept.iter().map(|(_, (_, text))| text))),
        ];
        RecordBatch::try_new(schema(), columns).map_err(cannot)
    }
}

/// What a baseline knows of one table.
#[derive(Debug, Default)]
pub(super) struct KnownTable {
    hosts_answered: u64,
    loose: HashMap<Id, KnownThing>,
    strict: HashSet<Id>,
}

/// What a baseline knows of one loose id.
#[derive(Debug)]
struct KnownThing {
    /// One of its rows.
    row: Arc<Row>,
    /// The most hosts that have one of its contents.
    hosts: u64,
    /// How many contents it has.
    contents: u64,
}

/// What a baseline knows, by table.
pub(super) type Known = BTreeMap<String, KnownTable>;

/// Reads a baseline.
pub(super) async fn load(store: &Store, baseline: &Baseline) -> Result<Known> {
    if baseline.identity_version != ENCODING_VERSION {
        return Err(Error::data(format!(
            "baseline `{}` has ids of version {}, this Diffy makes version {ENCODING_VERSION}",
            baseline.name, baseline.identity_version
        ))
        .hint("make the baseline anew from its snapshot"));
    }
    let mut known: Known = baseline
        .tables
        .iter()
        .map(|(table, file)| {
            (table.clone(), KnownTable { hosts_answered: file.hosts_answered, ..KnownTable::default() })
        })
        .collect();
    for batch in store.read_file(&baseline.file).await? {
        note(&mut known, &batch)?;
    }
    Ok(known)
}

fn note(known: &mut Known, batch: &RecordBatch) -> Result<()> {
    let tables = column(batch, "table_name")?.as_string::<i32>();
    let rows = column(batch, "row")?.as_string::<i32>();
    let loose = column(batch, "loose_id")?.as_fixed_size_binary();
    let strict = column(batch, "strict_id")?.as_fixed_size_binary();
    let hosts = column(batch, "hosts")?.as_primitive::<Int64Type>();
    let id = |bytes: &[u8]| {
        Id::try_from(bytes).map_err(|source| Error::data("broken id in a baseline").source(source))
    };
    for number in 0..batch.num_rows() {
        let table = known.entry(tables.value(number).to_owned()).or_default();
        let row: Row = serde_json::from_str(rows.value(number))
            .map_err(|source| Error::data("broken row in a baseline").source(source))?;
        let count = u64::try_from(hosts.value(number)).unwrap_or(0);
        table.strict.insert(id(strict.value(number))?);
        let thing = table.loose.entry(id(loose.value(number))?).or_insert_with(|| KnownThing {
            row: Arc::new(row),
            hosts: 0,
            contents: 0,
        });
        thing.hosts = thing.hosts.max(count);
        thing.contents += 1;
    }
    Ok(())
}

/// Rows that the baseline does not have, and rows that all of its hosts have and a host has not.
pub(super) fn candidates(lines: &Lines, answers: &TableAnswers, known: &KnownTable) -> Vec<Candidate> {
    let mut found = Vec::new();
    let groups = lines.loose();
    let of = Of { answers };
    for group in &groups {
        match known.loose.get(&group.id) {
            None => of.rows(lines, group, None, &mut found),
            Some(thing) => {
                for strict in lines.strict(group).iter().filter(|strict| !known.strict.contains(&strict.id)) {
                    of.rows(lines, strict, Some(thing), &mut found);
                }
            }
        }
    }
    let present: HashMap<Id, &RoaringBitmap> =
        groups.iter().map(|group| (group.id, &group.members)).collect();
    for (id, thing) in &known.loose {
        if thing.hosts >= known.hosts_answered {
            of.missing(*id, &thing.row, present.get(id).copied(), &mut found);
        }
    }
    found
}

/// Who answered for the table.
struct Of<'a> {
    answers: &'a TableAnswers,
}

impl Of<'_> {
    /// Rows that the baseline does not have; `known` is what it has instead.
    fn rows(&self, lines: &Lines, group: &Group, known: Option<&KnownThing>, found: &mut Vec<Candidate>) {
        let kind = if known.is_some() { FindingKind::Changed } else { FindingKind::New };
        let nearest = known.map(|thing| (Subject::Known(Arc::clone(&thing.row)), thing.hosts));
        let have = &group.members & &self.answers.heard;
        for host in &have {
            let Some(line) = lines.line_of(group, host) else { continue };
            found.push(Candidate {
                nearest: nearest.clone(),
                hosts_with_row: have.len(),
                hosts_answered: self.answers.heard.len(),
                hosts_with_thing: have.len(),
                known_contents: known.map_or(1, |thing| thing.contents),
                id: group.id,
                strict: Some(lines.lines[line].strict),
                ..Candidate::new(Method::Baseline, kind, host, Subject::Line(line))
            });
        }
    }

    fn missing(&self, id: Id, row: &Arc<Row>, present: Option<&RoaringBitmap>, found: &mut Vec<Candidate>) {
        let none = RoaringBitmap::new();
        let have = &self.answers.heard & present.unwrap_or(&none);
        for host in &(&self.answers.answered - &have) {
            found.push(Candidate {
                hosts_with_row: have.len(),
                hosts_answered: self.answers.heard.len(),
                hosts_with_thing: have.len(),
                id,
                ..Candidate::new(
                    Method::Baseline,
                    FindingKind::Missing,
                    host,
                    Subject::Known(Arc::clone(row)),
                )
            });
        }
    }
}
