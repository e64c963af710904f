//! An analysis in each format.

use std::io::{BufWriter, Write};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use datafusion::arrow::array::{
    ArrayRef, Float64Array, StringArray, TimestampMillisecondArray, UInt32Array, UInt64Array,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::arrow::record_batch::RecordBatch;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::escape::JsonGuard;
use super::{Format, analysis_table, html, write_failed, writer};
use crate::error::{Error, Result};
use crate::model::{
    Analysis, Finding, FindingKind, Fleet, Given, HostResult, Nearest, Row, SnapshotId, Verdict,
    maybe_moment, rfc3339,
};

/// How to render an analysis; only [`Format::Table`] looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenderOptions {
    /// Width of the terminal, in columns.
    pub width: usize,
    /// Whether it shows colours.
    pub color: bool,
    /// How many hosts are shown with their findings, and how many findings of each. Hosts beyond that still get a
    /// line each, findings beyond that are counted.
    pub top: usize,
}

impl Default for RenderOptions {
    fn default() -> Self {
        Self { width: 80, color: false, top: 10 }
    }
}

/// Writes `analysis` to `out`.
///
/// JSON is the whole [`Analysis`], and so is SARIF. NDJSON, CSV and Parquet have a line for each [`flat finding`](Flat): each finding
/// with its host, and one line for each host without findings, so that every host of the snapshot is there. They have
/// no warnings, peer groups and campaigns. OCSF has an event for each finding. HTML is [`html::render`] with nothing
/// beside the analysis.
pub fn render(
    analysis: &Analysis,
    format: Format,
    options: &RenderOptions,
    out: &mut dyn Write,
) -> Result<()> {
    let mut out = BufWriter::new(out);
    match format {
        Format::Table => analysis_table::render(analysis, options, &mut out)?,
        Format::Json => {
            serde_json::to_writer_pretty(JsonGuard::new(&mut out), analysis).map_err(json_failed)?;
            out.write_all(b"\n").map_err(write_failed)?;
        }
        Format::Ndjson => lines(flatten(analysis), &mut out)?,
        Format::Sarif => {
            let log = super::sarif::log(analysis);
            serde_json::to_writer_pretty(JsonGuard::new(&mut out), &log).map_err(json_failed)?;
            out.write_all(b"\n").map_err(write_failed)?;
        }
        Format::Ocsf => lines(super::ocsf::events(analysis), &mut out)?,
        Format::Html => html::render(analysis, &html::Supplement::default(), &mut out)?,
        Format::Csv | Format::Parquet => {
            out.write_all(&columnar(analysis, format)?).map_err(write_failed)?;
        }
    }
    out.flush().map_err(write_failed)
}

/// One JSON object a line.
fn lines<T: Serialize>(lines: impl Iterator<Item = T>, out: &mut dyn Write) -> Result<()> {
    for line in lines {
        serde_json::to_writer(JsonGuard::new(&mut *out), &line).map_err(json_failed)?;
        out.write_all(b"\n").map_err(write_failed)?;
    }
    Ok(())
}

/// The bytes of a format that is made from a record batch.
fn columnar(analysis: &Analysis, format: Format) -> Result<Vec<u8>> {
    let batch = findings_batch(analysis)?;
    let mut bytes = Vec::new();
    let mut inner = writer(format, Box::new(&mut bytes), 0, false)?;
    inner.schema(&batch.schema())?;
    inner.write(&batch)?;
    inner.finish()?;
    Ok(bytes)
}

/// `serde_json` wraps the errors of the writer below; this brings them up.
fn json_failed(source: serde_json::Error) -> Error {
    write_failed(std::io::Error::from(source))
}

/// One finding with its host on one line; for a host without findings the columns from `id` to `priors` are null.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Flat<'a> {
    /// The fleet.
    pub fleet: &'a Fleet,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The host.
    pub host: &'a str,
    /// Its place in the order of suspicion, from 1.
    pub rank: u64,
    /// How suspicious it is, 0 to 100.
    pub host_score: f64,
    /// What to do about it.
    pub verdict: Verdict,
    /// The hosts it was compared with.
    pub peer_group: Option<u32>,
    /// Tables that it answered in full.
    pub tables_ok: u64,
    /// Tables that it did not.
    pub tables_failed: u64,
    /// Name of the finding.
    pub id: Option<&'a str>,
    /// Its table.
    pub table_name: Option<&'a str>,
    /// In which way it stands out.
    pub kind: Option<FindingKind>,
    /// What it adds to the suspicion of the host.
    pub score: Option<f64>,
    /// Hosts that have the row.
    pub hosts_with_row: Option<u64>,
    /// Hosts that answered for the table.
    pub hosts_answered: Option<u64>,
    /// When the row was first seen in the fleet.
    #[serde(serialize_with = "maybe_time")]
    #[schemars(schema_with = "maybe_moment")]
    pub first_seen: Option<DateTime<Utc>>,
    /// One sentence.
    pub reason: Option<&'a str>,
    /// The method that found it.
    pub method: Option<&'a str>,
    /// ATT&CK technique ids; in CSV and Parquet one text, separated by spaces.
    pub attack: Option<&'a [String]>,
    /// The row as collected; in CSV and Parquet JSON as text.
    pub row: Option<&'a Row>,
    /// The most alike common row; in CSV and Parquet JSON as text.
    pub nearest: Option<&'a Nearest>,
    /// The value that is unusual given others; in CSV and Parquet JSON as text.
    pub given: Option<&'a Given>,
    /// What the content says by itself; in CSV and Parquet one text, separated by semicolons.
    pub priors: Option<&'a [String]>,
    /// Findings of the host that are left out.
    pub host_suppressed: u64,
}

/// The lines of an analysis, hosts in order of suspicion.
pub fn flatten(analysis: &Analysis) -> impl Iterator<Item = Flat<'_>> {
    analysis.hosts.iter().flat_map(move |host| {
        let quiet = host.findings.is_empty().then(|| flat(analysis, host, None));
        quiet.into_iter().chain(host.findings.iter().map(move |finding| flat(analysis, host, Some(finding))))
    })
}

fn flat<'a>(analysis: &'a Analysis, host: &'a HostResult, finding: Option<&'a Finding>) -> Flat<'a> {
    Flat {
        fleet: &analysis.fleet,
        snapshot: analysis.snapshot,
        host: &host.host,
        rank: host.rank,
        host_score: host.score,
        verdict: host.verdict,
        peer_group: host.peer_group,
        tables_ok: host.coverage.ok,
        tables_failed: host.coverage.failed,
        id: finding.map(|finding| finding.id.as_str()),
        table_name: finding.map(|finding| finding.table.as_str()),
        kind: finding.map(|finding| finding.kind),
        score: finding.map(|finding| finding.score),
        hosts_with_row: finding.map(|finding| finding.hosts_with_row),
        hosts_answered: finding.map(|finding| finding.hosts_answered),
        first_seen: finding.and_then(|finding| finding.first_seen),
        reason: finding.map(|finding| finding.reason.as_str()),
        method: finding.map(|finding| finding.method.as_str()),
        attack: finding.map(|finding| finding.attack.as_slice()),
        row: finding.map(|finding| &finding.row),
        nearest: finding.and_then(|finding| finding.nearest.as_ref()),
        given: finding.and_then(|finding| finding.given.as_ref()),
        priors: finding.map(|finding| finding.priors.as_slice()),
        host_suppressed: host.suppressed,
    }
}

/// The schema of [`findings_batch`]: the columns of [`Flat`].
pub fn findings_schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    let text = |name| Field::new(name, DataType::Utf8, true);
    let count = |name| Field::new(name, DataType::UInt64, true);
    let number = |name| Field::new(name, DataType::Float64, true);
    Arc::new(Schema::new(vec![
        text("fleet"),
        text("snapshot"),
        text("host"),
        count("rank"),
        number("host_score"),
        text("verdict"),
        Field::new("peer_group", DataType::UInt32, true),
        count("tables_ok"),
        count("tables_failed"),
        text("id"),
        text("table_name"),
        text("kind"),
        number("score"),
        count("hosts_with_row"),
        count("hosts_answered"),
        Field::new("first_seen", time, true),
        text("reason"),
        text("method"),
        text("attack"),
        text("row"),
        text("nearest"),
        text("given"),
        text("priors"),
        count("host_suppressed"),
    ]))
}

/// The lines of an analysis as one record batch, with structures as JSON text.
pub fn findings_batch(analysis: &Analysis) -> Result<RecordBatch> {
    let lines: Vec<Flat<'_>> = flatten(analysis).collect();
    let first_seen = lines.iter().map(|line| line.first_seen.map(|time| time.timestamp_millis()));
    let columns: Vec<ArrayRef> = vec![
        texts(&lines, |line| Some(line.fleet.to_string())),
        texts(&lines, |line| Some(line.snapshot.to_string())),
        texts(&lines, |line| Some(line.host.to_owned())),
        counts(&lines, |line| Some(line.rank)),
        numbers(&lines, |line| Some(line.host_score)),
        texts(&lines, |line| Some(line.verdict.to_string())),
        Arc::new(lines.iter().map(|line| line.peer_group).collect::<UInt32Array>()),
        counts(&lines, |line| Some(line.tables_ok)),
        counts(&lines, |line| Some(line.tables_failed)),
        texts(&lines, |line| line.id.map(str::to_owned)),
        texts(&lines, |line| line.table_name.map(str::to_owned)),
        texts(&lines, |line| line.kind.map(|kind| kind.to_string())),
        numbers(&lines, |line| line.score),
        counts(&lines, |line| line.hosts_with_row),
        counts(&lines, |line| line.hosts_answered),
        Arc::new(first_seen.collect::<TimestampMillisecondArray>().with_timezone("UTC")),
        texts(&lines, |line| line.reason.map(str::to_owned)),
        texts(&lines, |line| line.method.map(str::to_owned)),
        texts(&lines, |line| line.attack.map(|ids| ids.join(" "))),
        texts(&lines, |line| json(line.row)),
        texts(&lines, |line| json(line.nearest)),
        texts(&lines, |line| json(line.given)),
        texts(&lines, |line| line.priors.map(|priors| priors.join("; "))),
        counts(&lines, |line| Some(line.host_suppressed)),
    ];
    RecordBatch::try_new(findings_schema(), columns)
        .map_err(|source| Error::internal("the columns of findings do not fit their schema").source(source))
}

fn texts<'a>(lines: &[Flat<'a>], value: impl Fn(&Flat<'a>) -> Option<String>) -> ArrayRef {
    Arc::new(lines.iter().map(value).collect::<StringArray>())
}

fn counts<'a>(lines: &[Flat<'a>], value: impl Fn(&Flat<'a>) -> Option<u64>) -> ArrayRef {
    Arc::new(lines.iter().map(value).collect::<UInt64Array>())
}

fn numbers<'a>(lines: &[Flat<'a>], value: impl Fn(&Flat<'a>) -> Option<f64>) -> ArrayRef {
    Arc::new(lines.iter().map(value).collect::<Float64Array>())
}

/// JSON as text; plain data with text keys always has one.
fn json(value: Option<&impl Serialize>) -> Option<String> {
    value.and_then(|value| serde_json::to_string(value).ok())
}

fn maybe_time<S: Serializer>(time: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(rfc3339).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use std::io;

    use serde_json::{Map, Value};

    use super::super::analysis_table::tests::sample;
    use super::super::escape::deceives;
    use super::super::is_broken_pipe;
    use super::*;

    fn bytes(format: Format) -> Vec<u8> {
        let mut bytes = Vec::new();
        render(&sample(), format, &RenderOptions::default(), &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn json_reads_back_and_deceives_nobody() {
        let text = String::from_utf8(bytes(Format::Json)).unwrap();
        assert!(!text.chars().any(|c| deceives(c) && c != '\n'));
        assert_eq!(serde_json::from_str::<Analysis>(&text).unwrap(), sample());
    }

    #[test]
    fn flat_formats_have_a_line_for_each_finding_and_each_quiet_host() {
        let text = String::from_utf8(bytes(Format::Ndjson)).unwrap();
        let lines: Vec<Map<String, Value>> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        // Five findings on three hosts, and 57 hosts without any.
        assert_eq!(lines.len(), 62);
        assert_eq!(lines[0]["row"]["minute"], "*/5");
        assert_eq!(lines[61]["host"], "i-silent");
        assert_eq!(lines[61]["id"], Value::Null);
        let names: Vec<String> =
            findings_schema().fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!(lines[61].keys().cloned().collect::<Vec<_>>(), names);
        let csv = String::from_utf8(bytes(Format::Csv)).unwrap();
        assert_eq!(csv.lines().next().unwrap(), names.join(","));
        assert_eq!(csv.lines().count(), 63);
        assert_eq!(findings_batch(&sample()).unwrap().num_rows(), 62);
        assert!(bytes(Format::Parquet).starts_with(b"PAR1"));
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_broken_pipe_can_be_told_in_every_format() {
        for format in Format::ALL {
            let error = render(&sample(), format, &RenderOptions::default(), &mut Closed).unwrap_err();
            assert!(is_broken_pipe(&error), "{format}");
        }
    }
}
