//! Payloads of one table of a spool to batches of many hosts' rows, with their ids.

use std::ops::Range;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use datafusion::arrow::array::RecordBatch;

use super::batches::{Layout, Stamps};
use super::hosts::Fleet;
use super::prevalence::{Sampled, exploding_columns};
use super::table::{HostDecoded, Job};
use crate::catalog::{ColumnSpec, TableSpec};
use crate::decode::{Origin, Problem, RowsBuilder, decode};
use crate::error::Result;
use crate::identity::{Identifier, OwnNames, RowId, RowIds};
use crate::model::now;
use crate::store::RowsHeader;

/// Payloads of other hosts that are looked at before the grain of prevalence is settled.
const SAMPLED_PAYLOADS: usize = 64;
/// With fewer payloads nothing is left out of the grain.
const FEWEST_PAYLOADS: usize = 8;
/// A group takes no more payloads when it holds so many bytes of JSON …
pub(super) const GROUP_BYTES: usize = 8 << 20;
/// … or so many rows, for a column costs a null of each row at least.
pub(super) const GROUP_ROWS: usize = 65_536;
/// Bytes of JSON that a row has, to make room for rows at first.
const USUAL_ROW: u64 = 256;

/// What a distinct row of a group costs in [`super::sorted::Sorted`] beside its cells: its ids there, in a hash map
/// and in two lists, and places of its rows.
const DISTINCT_BYTES: usize = 250;
/// What any row costs there.
const PLACE_BYTES: usize = 12;

/// What a cell costs at least, a row beside its cells, and a payload that is decoded alone.
const CELL_BYTES: u64 = 5;
const ROW_BYTES: u64 = 64;
const PAYLOAD_BYTES: u64 = 4096;

/// Rows of one or many hosts that stand in one batch.
#[derive(Debug)]
pub(super) struct Group {
    /// The table's own columns and `extra`.
    pub(super) rows: RecordBatch,
    /// Whose rows they are, one payload after another.
    pub(super) payloads: Vec<Payload>,
    pub(super) ids: RowIds,
}

impl Group {
    /// Bytes that the group takes now and while the table is put in order.
    pub(super) fn held_bytes(&self) -> usize {
        let ids =
            self.ids.distinct.capacity() * size_of::<RowId>() + self.ids.of_row.capacity() * size_of::<u32>();
        let sorting = self.ids.distinct.len() * DISTINCT_BYTES + self.ids.of_row.len() * PLACE_BYTES;
        self.rows.get_array_memory_size() + self.payloads.capacity() * size_of::<Payload>() + ids + sorting
    }
}

/// Where the rows of a payload stand in their group.
#[derive(Debug, Clone)]
pub(super) struct Payload {
    /// The place of its host in the fleet.
    pub(super) host: u32,
    pub(super) rows: Range<usize>,
}

/// Payloads decoded together.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    pub(super) groups: Vec<Group>,
    pub(super) hosts: Vec<(u32, HostDecoded)>,
    pub(super) problems: Vec<Problem>,
}

/// How rows of one table are read.
#[derive(Debug)]
pub(super) struct TableReader {
    pub(super) job: Arc<Job>,
    pub(super) spec: TableSpec,
    pub(super) layout: Layout,
    pub(super) identifier: Identifier,
    /// When each host answered, in milliseconds since 1970, by its place in the fleet.
    answered_at: Vec<i64>,
}

impl TableReader {
    pub(super) fn new(job: Arc<Job>, spec: TableSpec) -> Self {
        let layout = Layout::new(&spec, job.spool.index());
        let identifier = Identifier::new(&spec, &layout.table_columns, &[]);
        let answered_at = answered_at(&job, &spec.name);
        Self { job, spec, layout, identifier, answered_at }
    }

    pub(super) fn payloads(&self) -> usize {
        self.job.spool.index().payloads(&self.spec.name)
    }

    /// Bytes of JSON of the whole table.
    fn bytes(&self) -> u64 {
        self.job.spool.index().bytes(&self.spec.name)
    }

    /// Whether the whole table can perhaps be held decoded. Its values take about half of the room of its JSON; but a
    /// host may say a million rows with nothing in them, and something odd in each payload. It is a guess that saves
    /// work: [`Group::held_bytes`] counts what is so.
    pub(super) fn fits(&self, memory: usize) -> bool {
        let rows = self.job.spool.index().row_count(&self.spec.name);
        let row = CELL_BYTES * self.layout.table_columns.len() as u64 + ROW_BYTES;
        let payloads = self.payloads() as u64 * PAYLOAD_BYTES;
        (self.bytes() / 2).saturating_add(rows.saturating_mul(row)).saturating_add(payloads) <= memory as u64
    }

    /// When a host answered, in milliseconds since 1970.
    pub(super) fn answered_at(&self, host: u32) -> i64 {
        self.answered_at.get(host as usize).copied().unwrap_or_default()
    }

    /// Leaves columns out of the grain from now on.
    pub(super) fn leave_out(&mut self, without: &[String]) {
        self.identifier = Identifier::new(&self.spec, &self.layout.table_columns, without);
    }

    /// The columns to leave out of the grain, found on payloads spread over the whole spool, which are read for it.
    pub(super) fn exploding(&self) -> Result<Vec<String>> {
        let decoded = self.decode((0..self.payloads()).step_by(self.sample_step()))?;
        Ok(self.exploding_of(&decoded.groups, 1))
    }

    /// The same of groups that hold the whole table in the order of the spool.
    pub(super) fn exploding_in(&self, groups: &[Group]) -> Vec<String> {
        self.exploding_of(groups, self.sample_step())
    }

    fn sample_step(&self) -> usize {
        self.payloads().div_ceil(SAMPLED_PAYLOADS).max(1)
    }

    fn exploding_of(&self, groups: &[Group], step: usize) -> Vec<String> {
        if self.payloads() < FEWEST_PAYLOADS {
            return Vec::new();
        }
        let payloads =
            groups.iter().flat_map(|group| group.payloads.iter().map(move |payload| (group, payload)));
        let sample: Vec<Sampled<'_>> = payloads
            .step_by(step)
            .map(|(group, payload)| Sampled {
                batch: &group.rows,
                ids: &group.ids,
                rows: payload.rows.clone(),
            })
            .collect();
        let columns: Vec<ColumnSpec> = self.identifier.grain_columns().cloned().collect();
        exploding_columns(&sample, &columns)
    }

    /// Decodes payloads, in their order.
    pub(super) fn decode(&self, numbers: impl Iterator<Item = usize>) -> Result<Decoded> {
        let mut done = Decoded::default();
        let mut payloads = 0;
        let mut open = self.open_group();
        for number in numbers {
            payloads += 1;
            let (header, json) = self.job.spool.rows(&self.spec.name, number)?;
            let host = self.job.fleet.ordinal(&header.host).unwrap_or(u32::MAX);
            match open.builder.push(&json) {
                Some(taken) => {
                    open.payloads
                        .push(Payload { host, rows: open.builder.rows() - taken.rows..open.builder.rows() });
                    let missing = Some(taken.missing.into());
                    let rows = taken.rows as u64;
                    done.hosts.push((host, HostDecoded { rows, missing, ..HostDecoded::default() }));
                }
                None => {
                    let full = std::mem::replace(&mut open, self.open_group());
                    self.close(full, &mut done)?;
                    self.decode_alone((host, header), &json, &mut done)?;
                }
            }
            if open.builder.bytes() >= GROUP_BYTES || open.builder.rows() >= GROUP_ROWS {
                let full = std::mem::replace(&mut open, self.open_group());
                self.close(full, &mut done)?;
            }
        }
        self.close(open, &mut done)?;
        let _ = self.job.progress.send(payloads);
        Ok(done)
    }

    fn open_group(&self) -> Open {
        let payloads = self.payloads().max(1) as u64;
        let rows = (self.bytes() / payloads * PAYLOADS_PER_TASK as u64 / USUAL_ROW).clamp(16, 4096);
        let beside = self.layout.table_columns.get(self.spec.columns.len()..).unwrap_or_default();
        let builder = RowsBuilder::new(&self.spec, beside, &self.job.limits, rows as usize);
        Open { builder, payloads: Vec::new() }
    }

    fn close(&self, open: Open, done: &mut Decoded) -> Result<()> {
        if open.payloads.is_empty() {
            return Ok(());
        }
        let rows = self.layout.bare(open.builder.finish())?;
        done.groups.push(self.group(rows, open.payloads));
        Ok(())
    }

    /// A payload with something odd in it.
    fn decode_alone(&self, of: (u32, RowsHeader), json: &str, done: &mut Decoded) -> Result<()> {
        let (host, header) = of;
        let origin = Origin { source: header.source, line: header.line, column: header.column };
        let decoded = decode(json, &origin, &self.spec, &self.job.limits);
        let rows = self.layout.fit(&decoded.batch).map_err(|error| error.with("host", &header.host))?;
        let note = HostDecoded {
            rows: rows.num_rows() as u64,
            missing: Some(decoded.missing.into()),
            problems: decoded.problems_total,
            first_problem: decoded.problems.first().map(ToString::to_string),
            oversized_cells: decoded.oversized_cells,
        };
        let payload = Payload { host, rows: 0..rows.num_rows() };
        done.groups.push(self.group(rows, vec![payload]));
        done.hosts.push((host, note));
        done.problems.extend(decoded.problems);
        Ok(())
    }

    fn group(&self, rows: RecordBatch, payloads: Vec<Payload>) -> Group {
        let ids = self.identify(&rows, &payloads);
        Group { rows, payloads, ids }
    }

    /// The ids of a group's rows.
    pub(super) fn identify(&self, rows: &RecordBatch, payloads: &[Payload]) -> RowIds {
        let hosts: Vec<(Range<usize>, &OwnNames)> = payloads
            .iter()
            .map(|payload| (payload.rows.clone(), self.job.fleet.own_names_of(payload.host)))
            .collect();
        self.identifier.identify(rows, &hosts)
    }

    /// The rows of a group with hosts, times and ids, for a sort.
    pub(super) fn stamped(&self, group: &Group) -> Result<RecordBatch> {
        let mut hosts = Vec::with_capacity(group.rows.num_rows());
        for payload in &group.payloads {
            hosts.extend(std::iter::repeat_n(payload.host, payload.rows.len()));
        }
        let stamp = |(row, host): (usize, &u32)| {
            (self.job.fleet.name(*host), self.answered_at(*host), group.ids.of(row))
        };
        self.layout.stamp(&group.rows, Stamps::of(hosts.iter().enumerate().map(stamp)))
    }
}

/// Payloads that one task decodes: most hold a few dozen rows.
pub(super) const PAYLOADS_PER_TASK: usize = 32;

/// A group that still takes payloads.
struct Open {
    builder: RowsBuilder,
    payloads: Vec<Payload>,
}

/// When the hosts answered for a table, as far as their answers say so and can be believed; else when the collection
/// started.
fn answered_at(job: &Job, table: &str) -> Vec<i64> {
    let latest: DateTime<Utc> = now();
    let fleet: &Fleet = &job.fleet;
    let mut millis = vec![job.started.timestamp_millis(); fleet.names().len()];
    for answer in job.spool.index().answers.iter().filter(|answer| answer.table() == table) {
        let (Some(ended), Some(host)) = (answer.ended(), fleet.ordinal(answer.host())) else { continue };
        if let Some(at) = millis.get_mut(host as usize).filter(|_| ended <= latest) {
            *at = ended.timestamp_millis();
        }
    }
    millis
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn what_a_group_holds_is_about_what_it_says() {
        let rows = testing::decoded(&testing::spec(), r#"[{"command":"a","odd":"b"}]"#);
        let ids = RowIds { distinct: Vec::new(), of_row: vec![0] };
        let group = Group { rows, payloads: vec![Payload { host: 0, rows: 0..1 }], ids };
        assert!(group.held_bytes() < 5 * 1024, "{} bytes of one row", group.held_bytes());
    }
}
