//! Record batches as tables for a terminal: one row a line, or one value a line where the columns would not fit.

use std::io::Write;

use comfy_table::{
    Attribute, Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets,
};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;

use super::batches::{BatchWriter, Written, formatters, is_number, value_text};
use super::escape::{cut, escape, shown, width};
use super::write_failed;
use crate::error::Result;

/// Rows held back to find the widths of the columns; further ones follow in tables of the same widths.
const BLOCK_ROWS: usize = 10_000;
/// A column that would have to be narrower than this tells nothing: the values go below each other instead.
const MIN_COLUMN: usize = 8;
/// Widths that can be laid out at all.
const WIDTHS: std::ops::RangeInclusive<usize> = 20..=10_000;
/// Of a border and the spaces around a value.
const COLUMN_EXTRA: usize = 3;
/// What stands for a value that is not known; an empty value is an empty cell.
const NULL: &str = "NULL";

/// Where the values stand.
enum Layout {
    /// One row a line, with these column widths.
    Columns(Vec<usize>),
    /// One value a line, after names of this width.
    Records(usize),
}

/// The table writer.
pub(super) struct Grid<W> {
    out: W,
    width: usize,
    color: bool,
    names: Vec<String>,
    is_number: Vec<bool>,
    layout: Option<Layout>,
    block: Vec<Vec<String>>,
    written: Written,
}

impl<W: Write> Grid<W> {
    pub(super) fn new(out: W, width: usize, color: bool) -> Self {
        let width = width.clamp(*WIDTHS.start(), *WIDTHS.end());
        Self {
            out,
            width,
            color,
            names: Vec::new(),
            is_number: Vec::new(),
            layout: None,
            block: Vec::new(),
            written: Written::default(),
        }
    }

    /// Prints the rows held back.
    fn print_block(&mut self) -> Result<()> {
        let layout = self.layout.take().unwrap_or_else(|| self.lay_out());
        let block = std::mem::take(&mut self.block);
        let printed = match &layout {
            Layout::Columns(widths) => self.print_columns(&block, widths),
            Layout::Records(names) => self.print_records(&block, *names),
        };
        self.layout = Some(layout);
        self.written.rows += block.len() as u64;
        printed
    }

    /// Gives every column what it needs, or else the widest of them the same share.
    fn lay_out(&self) -> Layout {
        let needs: Vec<usize> = self
            .names
            .iter()
            .enumerate()
            .map(|(at, name)| {
                let values = self
                    .block
                    .iter()
                    .filter_map(|row| row.get(at))
                    .map(|value| width(value))
                    .max()
                    .unwrap_or_default();
                values.max(width(name)).max(1)
            })
            .collect();
        let room = self.width.saturating_sub(needs.len() * COLUMN_EXTRA + 1);
        let share = fair_share(&needs, room);
        if share < MIN_COLUMN && needs.iter().any(|need| *need > share) {
            return Layout::Records(needs_of_names(&self.names, self.width));
        }
        Layout::Columns(needs.into_iter().map(|need| need.min(share)).collect())
    }

    fn print_columns(&mut self, block: &[Vec<String>], widths: &[usize]) -> Result<()> {
        let mut table = empty_table(self.color);
        let header = self.names.iter().zip(widths).map(|(name, limit)| {
            let cell = Cell::new(cut(name, *limit));
            if self.color { cell.add_attribute(Attribute::Bold) } else { cell }
        });
        table.set_header(header);
        for row in block {
            self.written.cut_values += count_cut(row, widths);
            table.add_row(row.iter().zip(widths).map(|(value, limit)| cut(value, *limit).into_owned()));
        }
        for (at, limit) in widths.iter().enumerate() {
            let Some(column) = table.column_mut(at) else { continue };
            let outer = u16::try_from(limit + COLUMN_EXTRA - 1).unwrap_or(u16::MAX);
            column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(outer)));
            if self.is_number[at] {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        writeln!(self.out, "{table}").map_err(write_failed)
    }

    fn print_records(&mut self, block: &[Vec<String>], names: usize) -> Result<()> {
        let room = self.width.saturating_sub(names + 2).max(1);
        let (bold, plain) = if self.color { ("\u{1b}[1m", "\u{1b}[0m") } else { ("", "") };
        for (at, row) in block.iter().enumerate() {
            let number = self.written.rows + at as u64 + 1;
            let head = format!("── row {number} ");
            let rule = "─".repeat(self.width.min(80).saturating_sub(width(&head)));
            writeln!(self.out, "{bold}{head}{rule}{plain}").map_err(write_failed)?;
            self.written.cut_values += count_cut(row, &vec![room; row.len()]);
            for (name, value) in self.names.iter().zip(row) {
                let name = cut(name, names);
                let pad = " ".repeat(names - width(&name));
                let line = format!("{name}{pad}  {}", cut(value, room));
                writeln!(self.out, "{}", line.trim_end()).map_err(write_failed)?;
            }
        }
        Ok(())
    }
}

impl<W: Write + Send> BatchWriter for Grid<W> {
    fn schema(&mut self, schema: &SchemaRef) -> Result<()> {
        self.names = schema.fields().iter().map(|field| escape(field.name()).into_owned()).collect();
        self.is_number = schema.fields().iter().map(|field| is_number(field.data_type())).collect();
        Ok(())
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let formatters = formatters(batch.columns(), NULL)?;
        for row in 0..batch.num_rows() {
            let mut values = Vec::with_capacity(formatters.len());
            for formatter in &formatters {
                // No layout shows more than one line of a value, so more need not be held; one column too many is
                // held to know that the value was cut.
                values.push(shown(&value_text(formatter, row)?, self.width + 1));
            }
            self.block.push(values);
            if self.block.len() == BLOCK_ROWS {
                self.print_block()?;
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Written> {
        if self.layout.is_none() || !self.block.is_empty() {
            self.print_block()?;
        }
        self.out.flush().map_err(write_failed)?;
        Ok(self.written)
    }
}

fn empty_table(color: bool) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
    table.force_no_tty();
    if color {
        table.enforce_styling();
    }
    table
}

fn needs_of_names(names: &[String], limit: usize) -> usize {
    names.iter().map(|name| width(name)).max().unwrap_or_default().min(limit / 2)
}

fn count_cut(row: &[String], limits: &[usize]) -> u64 {
    row.iter().zip(limits).filter(|(value, limit)| width(value) > **limit).count() as u64
}

/// The largest width to which columns have to be cut so that they take at most `room` together.
fn fair_share(needs: &[usize], room: usize) -> usize {
    let mut sorted = needs.to_vec();
    sorted.sort_unstable();
    let mut left = room;
    for (at, need) in sorted.iter().enumerate() {
        let share = left / (sorted.len() - at);
        if *need > share {
            return share;
        }
        left -= need;
    }
    usize::MAX
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, Int64Array, StringArray};
    use insta::assert_snapshot;
    use proptest::prelude::*;

    use super::*;

    fn texts(values: &[&str]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    fn print(batches: &[RecordBatch], limit: usize) -> (String, Written) {
        let mut bytes = Vec::new();
        let mut grid = Box::new(Grid::new(&mut bytes, limit, false));
        grid.schema(&batches[0].schema()).unwrap();
        for batch in batches {
            grid.write(batch).unwrap();
        }
        let written = grid.finish().unwrap();
        (String::from_utf8(bytes).unwrap(), written)
    }

    fn listeners() -> RecordBatch {
        RecordBatch::try_from_iter(vec![
            ("host", texts(&["i-0a1b2c3d4e5f60718", "i-1"])),
            ("port", Arc::new(Int64Array::from(vec![Some(22), None])) as ArrayRef),
            ("path", texts(&["/usr/sbin/sshd", "/var/tmp/.cache/\u{202e}systemd/private/very/long/kworker"])),
        ])
        .unwrap()
    }

    #[test]
    fn a_table_fits_the_terminal() {
        let (text, written) = print(&[listeners()], 60);
        assert_snapshot!(text, @r#"
        ┌─────────────────────┬──────┬─────────────────────────────┐
        │ host                ┆ port ┆ path                        │
        ╞═════════════════════╪══════╪═════════════════════════════╡
        │ i-0a1b2c3d4e5f60718 ┆   22 ┆ /usr/sbin/sshd              │
        │ i-1                 ┆ NULL ┆ /var/tmp/.cac…/long/kworker │
        └─────────────────────┴──────┴─────────────────────────────┘
        "#);
        assert_eq!(written, Written { rows: 2, cut_values: 1 });
    }

    #[test]
    fn columns_that_do_not_fit_go_below_each_other() {
        let wide = RecordBatch::try_from_iter(
            ["pid", "name", "path", "cmdline", "cwd", "root"]
                .map(|name| (name, texts(&["/some/long/value"]))),
        )
        .unwrap();
        let (text, written) = print(&[wide], 40);
        assert_snapshot!(text, @r#"
        ── row 1 ───────────────────────────────
        pid      /some/long/value
        name     /some/long/value
        path     /some/long/value
        cmdline  /some/long/value
        cwd      /some/long/value
        root     /some/long/value
        "#);
        assert_eq!(written.cut_values, 0);
    }

    #[test]
    fn no_rows_still_show_the_header() {
        assert_snapshot!(print(&[listeners().slice(0, 0)], 60).0, @r#"
        ┌──────┬──────┬──────┐
        │ host ┆ port ┆ path │
        ╞══════╪══════╪══════╡
        └──────┴──────┴──────┘
        "#);
    }

    #[test]
    fn rows_beyond_a_block_follow_in_tables_of_the_same_widths() {
        let many = BLOCK_ROWS as i64 + 5;
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..many));
        let (text, written) = print(&[RecordBatch::try_from_iter([("n", column)]).unwrap()], 80);
        assert_eq!(written.rows, many as u64);
        let body = text.lines().filter(|line| line.contains(|c: char| c.is_ascii_digit())).count();
        assert_eq!(body as i64, many);
        assert_eq!(text.lines().map(width).collect::<std::collections::BTreeSet<_>>().len(), 1);
    }

    #[test]
    fn the_widest_columns_share_what_is_left() {
        assert_eq!(fair_share(&[3, 50, 60], 43), 20);
        assert_eq!(fair_share(&[3, 5], 43), usize::MAX);
        assert_eq!(fair_share(&[], 43), usize::MAX);
        assert_eq!(fair_share(&[9, 9], 0), 0);
    }

    proptest! {
        #[test]
        fn no_line_passes_the_edge(
            cells in prop::collection::vec(any::<String>(), 1..12),
            limit in 20usize..100,
        ) {
            let columns = cells.iter().enumerate().map(|(at, cell)| (format!("{cell}{at}"), texts(&[cell])));
            let (text, _) = print(&[RecordBatch::try_from_iter(columns).unwrap()], limit);
            for line in text.lines() {
                prop_assert!(width(line) <= limit, "{line:?} takes {}", width(line));
                prop_assert!(!line.chars().any(super::super::escape::deceives));
            }
        }
    }
}
