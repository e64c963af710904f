//! The method `baseline`, and how baselines are made: a row is normal when the baseline has it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, AsArray, FixedSizeBinaryBuilder, Int64Array, RecordBatch, StringArray,
};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema};
use roaring::RoaringBitmap;

use super::candidate::{Candidate, Method, Subject, place};
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

/// Makes a baseline from a snapshot.
///
/// # Errors
/// A host is not in the snapshot, the quorum is larger than the number of hosts, the name is taken, or the store
/// cannot be written.
pub async fn create_baseline(
    (store, engine, catalog): (&Store, &Engine, &Catalog),
    manifest: &Manifest,
    request: BaselineRequest,
) -> Result<Baseline> {
    let state = FleetState::load(engine, catalog, manifest.snapshot).await?;
    let hosts = chosen_hosts(&state, &request)?;
    let mut tables = BTreeMap::new();
    let mut part = store.baseline_part(&manifest.fleet, &request.name, &schema()).await?;
    for (table, answers) in &state.tables {
        let lines = Lines::load(engine, manifest, catalog.table_or_undeclared(table).into_owned()).await?;
        let batch = normal_rows(&lines, &hosts, request.quorum)?;
        // A host that answered in part says what is normal too; what it could not say can only show up as new.
        let hosts_answered = (&answers.heard & &hosts).len();
        if hosts_answered > 0 {
            tables.insert(table.clone(), BaselineTable { hosts_answered, rows: batch.num_rows() as u64 });
            part.write(&batch).await?;
        }
    }
    let names = hosts.iter().map(|host| state.hosts[host as usize].clone()).collect();
    let baseline = Baseline {
        format: FORMAT,
        name: request.name,
        fleet: manifest.fleet.clone(),
        created: now(),
        created_by: request.created_by,
        diffy_version: env!("CARGO_PKG_VERSION").to_owned(),
        identity_version: ENCODING_VERSION,
        origin: BaselineOrigin { snapshot: manifest.snapshot, earlier: Vec::new(), hosts: names, quorum: request.quorum },
        tables,
        file: part.close().await?,
    };
    store.commit_baseline(&baseline).await?;
    Ok(baseline)
}

fn chosen_hosts(state: &FleetState, request: &BaselineRequest) -> Result<RoaringBitmap> {
    let heard = state.heard();
    let mut chosen = RoaringBitmap::new();
    for name in &request.hosts {
        let ordinal = state.hosts.iter().position(|host| host == name).map(|ordinal| ordinal as u32);
        let ordinal = ordinal.filter(|ordinal| heard.contains(*ordinal)).ok_or_else(|| {
            let nearest = crate::catalog::nearest(name, state.hosts.iter().map(String::as_str));
            let hint = nearest.map_or_else(
                || "`diffy query \"SELECT host FROM current.hosts\"` lists them".to_owned(),
                |nearest| format!("did you mean `{nearest}`?"),
            );
            Error::usage(format!("host `{}` did not answer in this snapshot", name.escape_debug())).hint(hint)
        })?;
        chosen.insert(ordinal);
    }
    let chosen = if request.hosts.is_empty() { heard } else { chosen };
    if request.quorum == 0 || request.quorum > chosen.len() {
        return Err(Error::usage(format!(
            "a quorum of {} of {} hosts cannot be",
            request.quorum,
            chosen.len()
        ))
        .hint("`--quorum` is a number of hosts, from 1 up to those taken"));
    }
    Ok(chosen)
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

/// One line per strict id that enough of the hosts have.
fn normal_rows(lines: &Lines, hosts: &RoaringBitmap, quorum: u64) -> Result<RecordBatch> {
    let mut kept: Vec<(Group, Group, u64)> = Vec::new();
    for loose in lines.loose() {
        for strict in lines.strict(&loose) {
            let count = (&strict.members & hosts).len();
            if count >= quorum {
                kept.push((loose.clone(), strict, count));
            }
        }
    }
    let cannot = |source| Error::internal("cannot build a baseline").source(source);
    let ids = |of: fn(&(Group, Group, u64)) -> &Id| -> Result<ArrayRef> {
        let mut builder = FixedSizeBinaryBuilder::with_capacity(kept.len(), ID_BYTES);
        for line in &kept {
            builder.append_value(of(line)).map_err(cannot)?;
        }
        Ok(Arc::new(builder.finish()))
    };
    let text = |(_, strict, _): &(Group, Group, u64)| {
        serde_json::Value::Object(line_row(lines, lines.most_common(strict))).to_string()
    };
    let names = std::iter::repeat_n(lines.spec.name.as_str(), kept.len());
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(names)),
        ids(|(loose, _, _)| &loose.id)?,
        ids(|(_, strict, _)| &strict.id)?,
        Arc::new(kept.iter().map(|(_, _, count)| i64::try_from(*count).ok()).collect::<Int64Array>()),
        Arc::new(StringArray::from_iter_values(kept.iter().map(text))),
    ];
    RecordBatch::try_new(schema(), columns).map_err(cannot)
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
                host,
                kind,
                subject: Subject::Line(line),
                nearest: nearest.clone(),
                places: [place(&[b"baseline", kind.as_str().as_bytes()]); 2],
                hosts_with_row: have.len(),
                hosts_answered: self.answers.heard.len(),
                hosts_with_thing: have.len(),
                known_contents: known.map_or(1, |thing| thing.contents),
                rare_columns: Vec::new(),
                method: Method::Baseline,
                id: group.id,
                strict: Some(lines.lines[line].strict),
            });
        }
    }

    fn missing(&self, id: Id, row: &Arc<Row>, present: Option<&RoaringBitmap>, found: &mut Vec<Candidate>) {
        let none = RoaringBitmap::new();
        let have = &self.answers.heard & present.unwrap_or(&none);
        for host in &(&self.answers.answered - &have) {
            found.push(Candidate {
                host,
                kind: FindingKind::Missing,
                subject: Subject::Known(Arc::clone(row)),
                nearest: None,
                places: [place(&[b"baseline", b"missing"]); 2],
                hosts_with_row: have.len(),
                hosts_answered: self.answers.heard.len(),
                hosts_with_thing: have.len(),
                known_contents: 1,
                rare_columns: Vec::new(),
                method: Method::Baseline,
                id,
                strict: None,
            });
        }
    }
}
