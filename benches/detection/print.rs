//! The measures as tables.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::cell::FIRST_REPORTING_SEED;
use crate::measure::{Measures, Reached, RowMeasures, ScenarioMeasure};
use crate::metrics::{mean, median};
use crate::{Measured, fleets::Source};

/// The columns, with their widths.
const COLUMNS: [(&str, usize); 18] = [
    ("method", 34),
    ("n", 3),
    ("AP", 6),
    ("rec@k", 6),
    ("prec", 6),
    ("first", 6),
    ("top10", 6),
    ("listed", 7),
    ("read50", 7),
    ("read90", 7),
    ("all", 7),
    ("host50", 7),
    ("host90", 7),
    ("false/100", 10),
    ("canary", 7),
    ("campaign", 9),
    ("stopped", 8),
    ("s", 7),
];

/// What stands above the tables.
const LEGEND: &str = "\
AP, rec@k: average precision and recall at k over hosts (mean). prec: victims among outliers. first, top10, listed: rank \
of the first planted row on its host (mean), share of victims with one among ten, with one at all.
read50, read90, all: distinct benign rows above the first planted row of 50 %, 90 %, all victims, all rows in one list; \
host50, host90: the same, reading host by host (median). false/100: outliers among 100 clean hosts.
canary: share called outlier. campaign: rank of the campaign that is the victims (median). stopped: rank of hosts that \
lack rows (median). never: not in what is listed. -: cannot be said.
";

/// Prints one table a cell.
///
/// # Errors
/// stdout is gone.
pub(crate) fn tables(measured: &[Measured], sources: &[Source]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}\n{LEGEND}", seeds_line(sources))?;
    for (cell, methods) in by_cell(measured) {
        let chance = methods[0].1.iter().filter_map(|measures| measures.chance).collect::<Vec<_>>();
        writeln!(out, "{cell}; chance AP {}", number(mean(&chance), 2))?;
        let heads = COLUMNS.iter().map(|(head, width)| padded(head, *width));
        writeln!(out, "{}", heads.collect::<String>())?;
        for (method, measures) in &methods {
            let cells = line(method, measures);
            let padded = cells.iter().zip(COLUMNS).map(|(cell, (_, width))| padded(cell, width));
            writeln!(out, "{}", padded.collect::<String>())?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn seeds_line(sources: &[Source]) -> String {
    let seeds: Vec<u64> = sources.iter().filter_map(Source::seed).collect();
    let (Some(first), Some(last)) = (seeds.iter().min(), seeds.iter().max()) else {
        return "Fleets from files.".to_owned();
    };
    let purpose = if *first >= FIRST_REPORTING_SEED {
        "seeds for reporting: no parameter was chosen with them"
    } else {
        "seeds for choosing parameters: NOT for reporting"
    };
    format!("Simulated fleets, seeds {first} to {last}: {purpose}.")
}

/// By cell and method, in the order of their first appearance.
type Cells<'a> = Vec<(&'a str, Vec<(&'a str, Vec<&'a Measures>)>)>;

fn by_cell(measured: &[Measured]) -> Cells<'_> {
    let mut cells: Cells<'_> = Vec::new();
    for one in measured {
        let methods = entry(&mut cells, &one.cell);
        entry(methods, &one.method).push(&one.measures);
    }
    cells
}

fn entry<'a, 'b, T: Default>(list: &'a mut Vec<(&'b str, T)>, key: &'b str) -> &'a mut T {
    let at = list.iter().position(|(other, _)| *other == key).unwrap_or(list.len());
    if at == list.len() {
        list.push((key, T::default()));
    }
    &mut list[at].1
}

fn line(method: &str, fleets: &[&Measures]) -> Vec<String> {
    let average = |of: fn(&Measures) -> Option<f64>, digits: usize| {
        number(mean(&fleets.iter().filter_map(|one| of(one)).collect::<Vec<_>>()), digits)
    };
    let rows: Vec<&RowMeasures> = fleets.iter().filter_map(|one| one.rows.as_ref()).collect();
    let row_mean = |of: fn(&RowMeasures) -> f64, digits: usize| {
        number(mean(&rows.iter().map(|one| of(one)).collect::<Vec<_>>()), digits)
    };
    let first: Vec<f64> = rows.iter().flat_map(|one| one.first.iter().copied()).collect();
    let by_host: Vec<[Reached; 3]> = rows.iter().filter_map(|one| one.by_host).collect();
    let read: Vec<[Reached; 3]> = rows.iter().map(|one| one.read).collect();
    let campaigns: Vec<Reached> = fleets.iter().filter_map(|one| one.campaign).collect();
    let stopped: Vec<Reached> = fleets.iter().flat_map(|one| &one.stopped).map(|rank| Some(*rank)).collect();
    vec![
        method.to_owned(),
        fleets.len().to_string(),
        average(|one| one.ap, 2),
        average(|one| one.recall, 2),
        average(|one| one.precision, 2),
        number(mean(&first), 1),
        row_mean(|one| one.top_ten, 2),
        row_mean(|one| one.listed, 2),
        reached(&read, 0),
        reached(&read, 1),
        reached(&read, 2),
        reached(&by_host, 0),
        reached(&by_host, 1),
        average(|one| one.false_outliers, 2),
        average(|one| one.canary, 2),
        never(&campaigns),
        never(&stopped),
        average(|one| Some(one.seconds), 2),
    ]
}

fn reached(fleets: &[[Reached; 3]], which: usize) -> String {
    never(&fleets.iter().map(|one| one[which]).collect::<Vec<_>>())
}

/// The median; nothing of nothing.
fn never(values: &[Reached]) -> String {
    match (values.is_empty(), median(values)) {
        (true, _) => "-".to_owned(),
        (false, None) => "never".to_owned(),
        (false, Some(value)) => format!("{value:.0}"),
    }
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

/// The first column reads from the left, numbers from the right.
fn padded(text: &str, width: usize) -> String {
    if width > 20 { format!("{text:<width$}") } else { format!("{text:>width$}") }
}

/// Prints, for one method, how each scenario fared, and what stood in the victims' places.
///
/// # Errors
/// stdout is gone.
pub(crate) fn scenarios(measured: &[Measured], method: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let own: Vec<&Measured> = measured.iter().filter(|one| one.method == method).collect();
    let mut cells: Vec<&str> = own.iter().map(|one| one.cell.as_str()).collect();
    cells.dedup();
    for cell in cells {
        let fleets: Vec<&Measures> =
            own.iter().filter(|one| one.cell == cell).map(|one| &one.measures).collect();
        of_cell(&mut out, (cell, method), &fleets)?;
    }
    Ok(())
}

fn of_cell(out: &mut impl Write, (cell, method): (&str, &str), fleets: &[&Measures]) -> io::Result<()> {
    let mut by_scenario: BTreeMap<&str, Vec<&ScenarioMeasure>> = BTreeMap::new();
    for one in fleets.iter().flat_map(|one| &one.scenarios) {
        by_scenario.entry(&one.scenario).or_default().push(one);
    }
    if by_scenario.is_empty() {
        return Ok(());
    }
    writeln!(out, "{cell}; {method}: scenarios, the hardest first")?;
    writeln!(
        out,
        "  {:<28}{:>4}{:>8}{:>10}{:>8}{:>10}",
        "scenario", "n", "subtle", "host rank", "in k", "row rank"
    )?;
    let mut lines: Vec<(&str, Vec<&ScenarioMeasure>)> = by_scenario.into_iter().collect();
    let mean_rank = |list: &[&ScenarioMeasure]| {
        mean(&list.iter().map(|one| one.rank).collect::<Vec<_>>()).unwrap_or_default()
    };
    lines.sort_by(|a, b| mean_rank(&b.1).total_cmp(&mean_rank(&a.1)));
    for (scenario, list) in lines {
        let in_top = list.iter().filter(|one| one.in_top).count() as f64 / list.len() as f64;
        let rows: Vec<Reached> = list.iter().map(|one| one.row).collect();
        let subtle = if list[0].subtle { "subtle" } else { "" };
        let (count, rank) = (list.len(), mean_rank(&list));
        writeln!(out, "  {scenario:<28}{count:>4}{subtle:>8}{rank:>10.1}{in_top:>8.2}{:>10}", never(&rows))?;
    }
    let mut intruders: BTreeMap<&str, usize> = BTreeMap::new();
    for cause in fleets.iter().flat_map(|one| &one.intruders) {
        *intruders.entry(cause).or_default() += 1;
    }
    let mut intruders: Vec<(&str, usize)> = intruders.into_iter().collect();
    intruders.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    writeln!(out, "  clean hosts among the first k, by their first finding:")?;
    for (cause, count) in intruders.iter().take(15) {
        writeln!(out, "    {count:>4}  {cause}")?;
    }
    writeln!(out)
}
