//! Hosts × tables: what each host shows in each table, as a drawing for the first hosts and as numbers for all.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::super::escape::escape;
use super::view::{Viewer, step};
use crate::model::{Analysis, HostResult, count};

/// Hosts that are drawn; a script draws all of them where there are more.
pub(super) const MOST_DRAWN: usize = 120;
/// Sides of a cell and of what is in it, in pixels.
const CELL: usize = 16;
const LARGEST: usize = 14;
const SMALLEST: usize = 5;

/// The tables and the cells of all hosts.
#[derive(Debug, Default)]
pub(super) struct Heat {
    /// All tables, those with the strongest findings first; cells refer to their places.
    pub(super) tables: Vec<TableView>,
    /// How many of them have a row in the drawing.
    pub(super) rows: usize,
    /// By host in the order of rank.
    pub(super) cells: Vec<Vec<Cell>>,
}

/// A table of the fleet.
#[derive(Debug, Clone)]
pub(super) struct TableView {
    pub(super) name: String,
    /// Hosts with a finding in it.
    pub(super) hosts: u64,
    /// Hosts that did not answer it in full.
    pub(super) failed: u64,
    /// The strongest score.
    pub(super) strongest: f64,
    /// Whether it says more than that hosts were silent.
    pub(super) has_row: bool,
}

/// What one host shows in one table.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Cell {
    /// Place of the table.
    pub(super) table: usize,
    pub(super) findings: usize,
    /// The strongest of them.
    pub(super) score: f64,
    /// Whether the host did not answer the table in full.
    pub(super) failed: bool,
}

impl Heat {
    pub(super) fn new(analysis: &Analysis, viewer: &Viewer<'_>, asked: &[String]) -> Self {
        let mut tables: BTreeMap<String, TableView> = BTreeMap::new();
        for name in asked {
            table(&mut tables, name);
        }
        let mut named: Vec<BTreeMap<String, Cell>> = Vec::with_capacity(analysis.hosts.len());
        for host in &analysis.hosts {
            let cells = cells_of(host, viewer);
            for (name, cell) in &cells {
                let table = table(&mut tables, name);
                table.hosts += u64::from(cell.findings > 0);
                table.failed += u64::from(cell.failed);
                table.strongest = table.strongest.max(cell.score);
                table.has_row |= cell.findings > 0 || !host.coverage.is_silent();
            }
            named.push(cells);
        }
        Self::ordered(tables, named)
    }

    fn ordered(tables: BTreeMap<String, TableView>, named: Vec<BTreeMap<String, Cell>>) -> Self {
        let mut sorted: Vec<(String, TableView)> = tables.into_iter().collect();
        sorted.sort_by(|(a, x), (b, y)| {
            let strength = y.strongest.total_cmp(&x.strongest).then(y.hosts.cmp(&x.hosts));
            y.has_row.cmp(&x.has_row).then(strength).then(a.cmp(b))
        });
        let places: HashMap<&str, usize> = sorted.iter().map(|(name, _)| name.as_str()).zip(0..).collect();
        let placed = |cells: &BTreeMap<String, Cell>| {
            let mut cells: Vec<Cell> = cells
                .iter()
                .map(|(name, cell)| Cell { table: places[name.as_str()], ..cell.clone() })
                .collect();
            cells.sort_by_key(|cell| cell.table);
            cells
        };
        let cells = named.iter().map(placed).collect();
        let tables: Vec<TableView> = sorted.into_iter().map(|(_, view)| view).collect();
        let rows = tables.iter().filter(|view| view.has_row).count();
        Self { tables, rows, cells }
    }

    /// The tables with a row in the drawing.
    pub(super) fn drawn_tables(&self) -> &[TableView] {
        &self.tables[..self.rows]
    }

    /// The tables in which no host shows anything.
    pub(super) fn quiet_tables(&self) -> Vec<&str> {
        self.tables[self.rows..].iter().map(|table| table.name.as_str()).collect()
    }

    pub(super) fn drawn_hosts(&self) -> usize {
        self.cells.len().min(MOST_DRAWN)
    }

    pub(super) fn has_more(&self) -> bool {
        self.cells.len() > MOST_DRAWN
    }

    pub(super) fn width(&self) -> usize {
        self.drawn_hosts() * CELL
    }

    pub(super) fn height(&self) -> usize {
        self.rows * CELL
    }

    /// What is drawn; `names` has the names of the hosts as shown.
    pub(super) fn squares(&self, names: &[String]) -> Vec<Square> {
        let drawn = self.cells.iter().zip(names).take(MOST_DRAWN).enumerate();
        drawn
            .flat_map(|(at, (cells, name))| self.in_rows(cells).map(move |cell| self.square(at, name, cell)))
            .collect()
    }

    /// The cells of a host that are in a row of the drawing.
    fn in_rows<'a>(&self, cells: &'a [Cell]) -> impl Iterator<Item = &'a Cell> {
        let rows = self.rows;
        cells.iter().filter(move |cell| cell.table < rows)
    }

    fn square(&self, at: usize, host: &str, cell: &Cell) -> Square {
        let side = if cell.findings == 0 { LARGEST - 4 } else { side(cell.score) };
        let inset = (CELL - side) / 2;
        let table = &self.tables[cell.table].name;
        let what = match cell.findings {
            0 => "not answered in full".to_owned(),
            findings => format!("{}, strongest {:.1}", count(findings as u64, "finding"), cell.score),
        };
        Square {
            x: at * CELL + inset,
            y: cell.table * CELL + inset,
            side,
            class: if cell.findings == 0 { "failed".to_owned() } else { format!("s{}", step(cell.score)) },
            rank: at + 1,
            table: cell.table,
            title: format!("{host}, {table}: {what}"),
        }
    }
}

/// A stronger finding is a larger square, too: colour is not the only sign.
fn side(score: f64) -> usize {
    SMALLEST + (LARGEST - SMALLEST) * step(score) / 9
}

fn table<'a>(tables: &'a mut BTreeMap<String, TableView>, name: &str) -> &'a mut TableView {
    tables.entry(name.to_owned()).or_insert_with(|| TableView {
        name: escape(name).into_owned(),
        hosts: 0,
        failed: 0,
        strongest: 0.0,
        has_row: false,
    })
}

fn cells_of(host: &HostResult, viewer: &Viewer<'_>) -> BTreeMap<String, Cell> {
    let mut cells: BTreeMap<String, Cell> = BTreeMap::new();
    for finding in &host.findings {
        let cell = cells.entry(finding.table.clone()).or_default();
        cell.findings += 1;
        cell.score = cell.score.max(finding.score);
    }
    let failed: BTreeSet<&str> =
        viewer.failures(&host.host).iter().map(|failure| failure.table.as_str()).collect();
    for name in failed {
        cells.entry(name.to_owned()).or_default().failed = true;
    }
    cells
}

/// A cell as it is drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Square {
    pub(super) x: usize,
    pub(super) y: usize,
    pub(super) side: usize,
    pub(super) class: String,
    pub(super) rank: usize,
    pub(super) table: usize,
    pub(super) title: String,
}
