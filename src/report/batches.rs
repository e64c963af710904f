//! Streams of record batches in each format.
//!
//! Batches are written as they come; only tables hold some back, to find the widths of their columns, and Parquet
//! holds a row group. In text formats binary values are hexadecimal, times are RFC 3339 and timestamps without a
//! zone are taken for UTC.

use std::io::Write;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::json;
use datafusion::arrow::json::writer::{JsonFormat, LineDelimited};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::escape::{JsonGuard, neutralise};
use super::grid::Grid;
use super::{Format, write_failed};
use crate::error::{Error, Result};

/// Timestamps without a zone, which are UTC throughout.
const TIMESTAMP: &str = "%Y-%m-%dT%H:%M:%S%.fZ";

/// Rows of a Parquet row group: what is held in memory.
const ROW_GROUP_ROWS: usize = 100_000;

/// Where batches of one schema go.
pub trait BatchWriter: Send {
    /// Says what the columns are; called once, before all else, so that an empty result has its header too.
    fn schema(&mut self, schema: &SchemaRef) -> Result<()>;

    /// Writes the rows of one batch.
    fn write(&mut self, batch: &RecordBatch) -> Result<()>;

    /// Writes what is still held back and flushes.
    fn finish(self: Box<Self>) -> Result<Written>;
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Rows: all that came, in every format.
    pub rows: u64,
    /// Values that a table shows shortened (`abc…xyz`); zero in all other formats.
    pub cut_values: u64,
}

/// The writer of `format` onto `out`.
///
/// `width` is the terminal's, in columns, and `color` whether it shows colours; only tables look at them.
///
/// # Errors
/// It is none of [`Format::OF_ROWS`].
pub fn writer<'a>(
    format: Format,
    out: Box<dyn Write + Send + 'a>,
    width: usize,
    color: bool,
) -> Result<Box<dyn BatchWriter + 'a>> {
    Ok(match format {
        Format::Table => Box::new(Grid::new(out, width, color)),
        Format::Json => Box::new(Json::<_, JsonRows>::new(out)),
        Format::Ndjson => Box::new(Json::<_, LineDelimited>::new(out)),
        Format::Csv => Box::new(Csv { out: csv::Writer::from_writer(out), rows: 0 }),
        Format::Parquet => Box::new(Parquet { state: State::Waiting(out), rows: 0 }),
        _ => return Err(Error::internal(format!("`{format}` is no format of rows"))),
    })
}

/// Formatters for the columns of a batch, with `null` for nulls.
pub(super) fn formatters<'a>(columns: &'a [ArrayRef], null: &'a str) -> Result<Vec<ArrayFormatter<'a>>> {
    let options = FormatOptions::new()
        .with_null(null)
        .with_timestamp_format(Some(TIMESTAMP))
        .with_datetime_format(Some(TIMESTAMP));
    columns
        .iter()
        .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).map_err(not_printable))
        .collect()
}

/// The text of one value.
pub(super) fn value_text(formatter: &ArrayFormatter<'_>, row: usize) -> Result<String> {
    formatter.value(row).try_to_string().map_err(not_printable)
}

fn not_printable(source: ArrowError) -> Error {
    Error::data("a value of the result cannot be printed")
        .source(source)
        .hint("cast the column to text in the query, or write parquet")
}

/// Arrow's errors carry those of the writer below.
fn json_failed(source: ArrowError) -> Error {
    match source {
        ArrowError::IoError(..) | ArrowError::ExternalError(_) => write_failed(source),
        _ => not_printable(source),
    }
}

/// A JSON array with one object a line.
#[derive(Debug, Default)]
struct JsonRows;

impl JsonFormat for JsonRows {
    fn start_stream<W: Write>(&self, out: &mut W) -> Result<(), ArrowError> {
        Ok(out.write_all(b"[")?)
    }

    fn start_row<W: Write>(&self, out: &mut W, is_first: bool) -> Result<(), ArrowError> {
        Ok(out.write_all(if is_first { b"\n" } else { b",\n" })?)
    }

    fn end_stream<W: Write>(&self, out: &mut W) -> Result<(), ArrowError> {
        Ok(out.write_all(b"\n]\n")?)
    }
}

struct Json<W: Write, F: JsonFormat> {
    out: json::Writer<JsonGuard<W>, F>,
    rows: u64,
}

impl<W: Write, F: JsonFormat> Json<W, F> {
    fn new(out: W) -> Self {
        let out = json::WriterBuilder::new()
            .with_explicit_nulls(true)
            .with_timestamp_format(TIMESTAMP.to_owned())
            .with_datetime_format(TIMESTAMP.to_owned())
            .build(JsonGuard::new(out));
        Self { out, rows: 0 }
    }
}

impl<W: Write + Send, F: JsonFormat + Send> BatchWriter for Json<W, F> {
    fn schema(&mut self, _schema: &SchemaRef) -> Result<()> {
        Ok(())
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.out.write(batch).map_err(json_failed)?;
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Written> {
        self.out.finish().map_err(json_failed)?;
        self.out.get_mut().flush().map_err(write_failed)?;
        Ok(Written { rows: self.rows, cut_values: 0 })
    }
}

struct Csv<W: Write> {
    out: csv::Writer<W>,
    rows: u64,
}

impl<W: Write + Send> BatchWriter for Csv<W> {
    fn schema(&mut self, schema: &SchemaRef) -> Result<()> {
        let names = schema.fields().iter().map(|field| neutralise(field.name()).into_owned());
        self.out.write_record(names).map_err(csv_failed)
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let formatters = formatters(batch.columns(), "")?;
        let plain: Vec<bool> = batch.columns().iter().map(|column| is_number(column.data_type())).collect();
        for row in 0..batch.num_rows() {
            for (formatter, plain) in formatters.iter().zip(&plain) {
                let text = value_text(formatter, row)?;
                let cell = if *plain { text } else { neutralise(&text).into_owned() };
                self.out.write_field(cell).map_err(csv_failed)?;
            }
            self.out.write_record(None::<&[u8]>).map_err(csv_failed)?;
        }
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Written> {
        self.out.flush().map_err(write_failed)?;
        Ok(Written { rows: self.rows, cut_values: 0 })
    }
}

/// The `csv` crate's errors hide those of the writer below; this brings them up.
fn csv_failed(source: csv::Error) -> Error {
    match source.into_kind() {
        csv::ErrorKind::Io(source) => write_failed(source),
        other => write_failed(format!("{other:?}")),
    }
}

/// Whether a type's text is a number, which aligns right and is never a formula.
pub(super) fn is_number(kind: &DataType) -> bool {
    match kind {
        DataType::Dictionary(_, values) => values.is_numeric(),
        _ => kind.is_numeric(),
    }
}

/// Parquet needs the schema before its writer can be made.
enum State<W: Write + Send> {
    Waiting(W),
    Writing(Box<ArrowWriter<W>>),
    Failed,
}

struct Parquet<W: Write + Send> {
    state: State<W>,
    rows: u64,
}

impl<W: Write + Send> BatchWriter for Parquet<W> {
    fn schema(&mut self, schema: &SchemaRef) -> Result<()> {
        let State::Waiting(out) = std::mem::replace(&mut self.state, State::Failed) else {
            return Err(Error::internal("a parquet file has one schema"));
        };
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            // An answer is read as a whole, and comparing every value with the least so far is a tenth of writing it.
            .set_statistics_enabled(EnabledStatistics::None)
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS));
        let ids =
            schema.fields().iter().filter(|field| matches!(field.data_type(), DataType::FixedSizeBinary(_)));
        for field in ids {
            // Hardly an id is there twice.
            properties =
                properties.set_column_dictionary_enabled(ColumnPath::from(field.name().as_str()), false);
        }
        let inner = ArrowWriter::try_new(out, SchemaRef::clone(schema), Some(properties.build()))
            .map_err(write_failed)?;
        self.state = State::Writing(Box::new(inner));
        Ok(())
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let State::Writing(inner) = &mut self.state else {
            return Err(no_schema());
        };
        inner.write(batch).map_err(write_failed)?;
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Written> {
        let State::Writing(inner) = self.state else {
            return Err(no_schema());
        };
        // Flushes too; `into_inner` would, but turn the error of a closed pipe into mere text.
        inner.close().map_err(write_failed)?;
        Ok(Written { rows: self.rows, cut_values: 0 })
    }
}

fn no_schema() -> Error {
    Error::internal("a parquet file needs its schema before its rows")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use datafusion::arrow::array::{
        BinaryArray, Float64Array, Int64Array, StringArray, TimestampMillisecondArray,
    };
    use insta::assert_snapshot;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::super::is_broken_pipe;
    use super::*;

    fn batch() -> RecordBatch {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("host", Arc::new(StringArray::from(vec!["i-1", "i-2"]))),
            ("command", Arc::new(StringArray::from(vec![Some("=cmd|'/c calc'!A0"), None]))),
            ("uid", Arc::new(Int64Array::from(vec![Some(-2), None]))),
            ("ratio", Arc::new(Float64Array::from(vec![0.5, -1.25]))),
            ("id", Arc::new(BinaryArray::from(vec![&b"\x00\xff"[..], &b""[..]]))),
            ("at", Arc::new(TimestampMillisecondArray::from(vec![Some(1_500), None]))),
            ("seen", Arc::new(TimestampMillisecondArray::from(vec![1_500, 0]).with_timezone("UTC"))),
            ("name", Arc::new(StringArray::from(vec!["a\u{202e}b\n\u{9b}\"c\"", "ü"]))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn written(format: Format, batches: &[RecordBatch]) -> (Vec<u8>, Written) {
        let mut bytes = Vec::new();
        let mut out = writer(format, Box::new(&mut bytes), 80, false).unwrap();
        out.schema(&batch().schema()).unwrap();
        for batch in batches {
            out.write(batch).unwrap();
        }
        let summary = out.finish().unwrap();
        (bytes, summary)
    }

    fn text(format: Format) -> String {
        String::from_utf8(written(format, &[batch()]).0).unwrap()
    }

    #[test]
    fn json_is_one_array_that_a_terminal_may_show() {
        assert_snapshot!(text(Format::Json), @r#"
        [
        {"host":"i-1","command":"=cmd|'/c calc'!A0","uid":-2,"ratio":0.5,"id":"00ff","at":"1970-01-01T00:00:01.500Z","seen":"1970-01-01T00:00:01.500Z","name":"a\u202eb\n\u009b\"c\""},
        {"host":"i-2","command":null,"uid":null,"ratio":-1.25,"id":"","at":null,"seen":"1970-01-01T00:00:00Z","name":"ü"}
        ]
        "#);
        let (empty, _) = written(Format::Json, &[]);
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&empty).unwrap(), serde_json::json!([]));
    }

    #[test]
    fn ndjson_is_one_object_a_line() {
        let lines = text(Format::Ndjson);
        assert_eq!(lines.lines().count(), 2);
        for line in lines.lines() {
            assert_eq!(serde_json::from_str::<serde_json::Map<_, _>>(line).unwrap().len(), 8);
        }
        assert!(written(Format::Ndjson, &[]).0.is_empty());
    }

    #[test]
    fn csv_has_no_formulas() {
        assert_snapshot!(text(Format::Csv), @r#"
        host,command,uid,ratio,id,at,seen,name
        i-1,'=cmd|'/c calc'!A0,-2,0.5,00ff,1970-01-01T00:00:01.500Z,1970-01-01T00:00:01.500Z,"a\u{202e}b
        \u{9b}""c"""
        i-2,,,-1.25,,,1970-01-01T00:00:00Z,ü
        "#);
    }

    #[test]
    fn parquet_reads_back() {
        let (bytes, summary) = written(Format::Parquet, &[batch(), batch()]);
        assert_eq!(summary.rows, 4);
        let reader =
            ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap().build().unwrap();
        let back: Vec<RecordBatch> = reader.map(|batch| batch.unwrap()).collect();
        assert_eq!(back.iter().map(RecordBatch::num_rows).sum::<usize>(), 4);
        assert_eq!(back[0].slice(0, 2), batch());
    }

    #[test]
    fn every_format_takes_no_rows() {
        for format in Format::OF_ROWS {
            assert_eq!(written(format, &[]).1, Written::default(), "{format}");
        }
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    #[test]
    fn a_broken_pipe_can_be_told_in_every_format() {
        for format in Format::OF_ROWS {
            let mut out = writer(format, Box::new(Closed), 80, false).unwrap();
            let outcome = out
                .schema(&batch().schema())
                .and_then(|()| out.write(&batch()))
                .and_then(|()| out.finish().map(drop));
            assert!(is_broken_pipe(&outcome.unwrap_err()), "{format}");
        }
    }
}
