//! How baselines are made: a row is normal when enough of their hosts have it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, FixedSizeBinaryBuilder, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use serde_json::Value;

use super::fleet::FleetState;
use super::lines::{Id, Lines};
use super::members::Members;
use crate::catalog::Catalog;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::identity::{ENCODING_VERSION, ID_BYTES};
use crate::model::now;
use crate::store::{Baseline, BaselineOrigin, BaselineTable, FORMAT, Manifest, Store};

/// Rows that are written at once: their texts are in memory.
const ROWS_PER_BATCH: usize = 16_384;

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
        let normal = Normal::load((store, catalog), table, (&sources, request.quorum)).await?;
        // A host that answered in part says what is normal too; what it could not say can only show up as new.
        if !normal.heard.is_empty() {
            let of = BaselineTable { hosts_answered: normal.heard.len(), rows: normal.rows.len() as u64 };
            kept.insert(table.clone(), of);
            for rows in normal.rows.chunks(ROWS_PER_BATCH) {
                part.write(&normal.batch(table, rows)?).await?;
            }
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

    fn numbers(&self, ordinals: impl Iterator<Item = u32>) -> Members {
        ordinals.filter_map(|ordinal| *self.numbers.get(ordinal as usize)?).collect()
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
    /// Of each source that has the table, the newest first.
    lines: Vec<Lines>,
    /// Sorted by their ids.
    rows: Vec<NormalRow>,
    heard: Members,
}

/// A row that enough of the hosts have.
struct NormalRow {
    /// Loose and strict.
    ids: (Id, Id),
    hosts: Members,
    /// A line that is like it, in the newest snapshot that has one: which of [`Normal::lines`], and which of its lines.
    like: (usize, usize),
}

impl Normal {
    async fn load(
        (store, catalog): (&Store, &Catalog),
        table: &str,
        (sources, quorum): (&[Source<'_>], u64),
    ) -> Result<Self> {
        let mut normal = Self::default();
        for source in sources.iter().rev() {
            let Some(answers) = source.state.tables.get(table) else { continue };
            normal.heard.add(&source.numbers(answers.heard.iter()));
            let spec = catalog.table_or_undeclared(table).into_owned();
            let lines = Lines::load(store, source.manifest, spec).await?.of_hosts(source.numbers.len())?;
            normal.add(source, lines);
        }
        // Of equal ones the newest stays first.
        normal.rows.sort_by_key(|row| row.ids);
        normal.rows.dedup_by(|row, before| {
            let is_same = row.ids == before.ids;
            if is_same {
                before.hosts.add(&row.hosts);
            }
            is_same
        });
        normal.rows.retain(|row| row.hosts.len() >= quorum);
        Ok(normal)
    }

    fn add(&mut self, source: &Source<'_>, lines: Lines) {
        for loose in lines.loose() {
            for strict in lines.strict(&loose) {
                let hosts = source.numbers(strict.members.iter());
                if !hosts.is_empty() {
                    let like = (self.lines.len(), lines.most_common(&strict));
                    self.rows.push(NormalRow { ids: (loose.id, strict.id), hosts, like });
                }
            }
        }
        self.lines.push(lines);
    }

    /// One line per strict id.
    fn batch(&self, table: &str, rows: &[NormalRow]) -> Result<RecordBatch> {
        let cannot = |source| Error::internal("cannot build a baseline").source(source);
        let ids = |of: fn(&NormalRow) -> &Id| -> Result<ArrayRef> {
            let mut builder = FixedSizeBinaryBuilder::with_capacity(rows.len(), ID_BYTES);
            for row in rows {
                builder.append_value(of(row)).map_err(cannot)?;
            }
            Ok(Arc::new(builder.finish()))
        };
        let hosts = rows.iter().map(|row| i64::try_from(row.hosts.len()).ok());
        let text = |row: &NormalRow| Value::Object(self.lines[row.like.0].row(row.like.1)).to_string();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(std::iter::repeat_n(table, rows.len()))),
            ids(|row| &row.ids.0)?,
            ids(|row| &row.ids.1)?,
            Arc::new(hosts.collect::<Int64Array>()),
            Arc::new(StringArray::from_iter_values(rows.iter().map(text))),
        ];
        RecordBatch::try_new(schema(), columns).map_err(cannot)
    }
}
