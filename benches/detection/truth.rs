//! What was planted in a fleet, and which findings show it.

use std::collections::BTreeMap;
use std::path::Path;

use diffy::catalog::{Catalog, Role, Strength, TableSpec};
use diffy::error::{Error, Result};
use diffy::model::{Finding, FindingKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Column to value, as text.
pub(crate) type Cells = BTreeMap<String, String>;

/// The truth about a fleet.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Truth {
    /// What was planted, by compromised host.
    pub(crate) compromised: BTreeMap<String, Vec<Planted>>,
    /// What is odd and honest, by host.
    pub(crate) oddities: BTreeMap<String, Vec<Oddity>>,
    /// What hosts are: role, kernel, canary.
    pub(crate) facts: BTreeMap<String, Cells>,
}

/// One scenario on one host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Planted {
    /// Its id.
    pub(crate) scenario: String,
    /// What was done.
    pub(crate) title: String,
    /// Whether it hides among what is usual.
    pub(crate) subtle: bool,
    /// Its rows.
    pub(crate) traces: Vec<Trace>,
}

/// A row that is there or missing because of a scenario.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Trace {
    /// The table.
    pub(crate) table: String,
    /// Whether it is the lack of the row that shows.
    pub(crate) missing: bool,
    /// Values that a row has to have.
    pub(crate) row: Cells,
}

/// Something odd that an honest host has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Oddity {
    /// What it is: `debug_package`.
    pub(crate) kind: String,
    /// The table; empty when it is not known.
    pub(crate) table: String,
    /// Its row; empty when it is not known.
    pub(crate) row: Cells,
}

impl Truth {
    /// Whether anything was planted on a host.
    pub(crate) fn is_victim(&self, host: &str) -> bool {
        self.compromised.contains_key(host)
    }

    /// Whether a host shows planted rows, not only the lack of some.
    pub(crate) fn shows_rows(&self, host: &str) -> bool {
        self.traces(host).any(|trace| !trace.missing)
    }

    /// Whether rows are missing on a host.
    pub(crate) fn lacks_rows(&self, host: &str) -> bool {
        self.traces(host).any(|trace| trace.missing)
    }

    /// Whether the same was done to all victims.
    pub(crate) fn is_campaign(&self) -> bool {
        let scenarios = |planted: &Vec<Planted>| -> Vec<String> {
            planted.iter().map(|planted| planted.scenario.clone()).collect()
        };
        let mut each = self.compromised.values().map(scenarios);
        let Some(first) = each.next() else { return false };
        self.compromised.len() > 2 && each.all(|other| other == first)
    }

    /// Whether a host gets new packages first.
    pub(crate) fn is_canary(&self, host: &str) -> bool {
        self.facts.get(host).and_then(|facts| facts.get("canary")).is_some_and(|value| value == "true")
    }

    fn traces(&self, host: &str) -> impl Iterator<Item = &Trace> {
        self.compromised.get(host).into_iter().flatten().flat_map(|planted| &planted.traces)
    }

    /// Whether a finding of a host shows something planted.
    pub(crate) fn is_planted(&self, host: &str, finding: &Finding, catalog: &Catalog) -> bool {
        self.traces(host).any(|trace| trace.shows_in(finding, catalog))
    }

    /// The honest oddity that a finding of a host shows.
    pub(crate) fn oddity(&self, host: &str, finding: &Finding, catalog: &Catalog) -> Option<&str> {
        let of_host = self.oddities.get(host)?;
        let shown = of_host.iter().find(|oddity| {
            let trace = Trace { table: oddity.table.clone(), missing: false, row: oddity.row.clone() };
            !oddity.row.is_empty() && trace.shows_in(finding, catalog)
        });
        shown.map(|oddity| oddity.kind.as_str())
    }

    /// Reads `truth.json` of a fleet that lies in files.
    ///
    /// # Errors
    /// The file cannot be read or is something else.
    pub(crate) fn read(path: &Path, catalog: &Catalog) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::usage(format!("cannot read `{}`", path.display())).source(source))?;
        let foreign: Foreign = serde_json::from_str(&text).map_err(|source| {
            Error::data(format!("`{}` is no truth about a fleet", path.display())).source(source)
        })?;
        Ok(foreign.truth(catalog))
    }
}

impl Trace {
    /// Whether a finding shows this; a value that is not there is an empty one.
    ///
    /// An absence is told by what the thing is, since the content of a row that is not there is nobody's.
    pub(crate) fn shows_in(&self, finding: &Finding, catalog: &Catalog) -> bool {
        if self.table != finding.table || self.missing != (finding.kind == FindingKind::Missing) {
            return false;
        }
        let spec = catalog.table_or_undeclared(&self.table);
        let is_loose = |column: &str| spec.identity(Strength::Loose).any(|loose| loose.name == column);
        let has_loose = self.row.keys().any(|column| is_loose(column));
        self.row
            .iter()
            .filter(|(column, _)| !self.missing || !has_loose || is_loose(column))
            .all(|(column, value)| cell(finding.row.get(column)) == *value)
    }
}

/// A cell as text; nothing is empty.
pub(crate) fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// `truth.json` as another generator writes it.
#[derive(Debug, Deserialize)]
struct Foreign {
    compromised: BTreeMap<String, ForeignScenario>,
    #[serde(default)]
    benign_rare: BTreeMap<String, Vec<ForeignOddity>>,
    #[serde(default)]
    host_facts: BTreeMap<String, BTreeMap<String, Value>>,
}

#[derive(Debug, Deserialize)]
struct ForeignScenario {
    scenario: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    subtle: bool,
    rows: Vec<ForeignRow>,
}

#[derive(Debug, Deserialize)]
struct ForeignRow {
    table: String,
    kind: String,
    row: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
struct ForeignOddity {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    table: String,
    #[serde(default)]
    row: BTreeMap<String, Value>,
}

impl Foreign {
    fn truth(self, catalog: &Catalog) -> Truth {
        let compromised = self.compromised.into_iter().map(|(host, scenario)| {
            let traces = scenario.rows.into_iter().map(|row| Trace {
                missing: row.kind == "missing",
                row: comparable(&row.row, &catalog.table_or_undeclared(&row.table)),
                table: row.table,
            });
            let planted = Planted {
                traces: traces.collect(),
                scenario: scenario.scenario,
                title: scenario.description,
                subtle: scenario.subtle,
            };
            (host, vec![planted])
        });
        let oddity = |odd: ForeignOddity| Oddity {
            row: comparable(&odd.row, &catalog.table_or_undeclared(&odd.table)),
            kind: odd.kind,
            table: odd.table,
        };
        let oddities = self.benign_rare.into_iter();
        let oddities = oddities.map(|(host, list)| (host, list.into_iter().map(oddity).collect())).collect();
        let texts = |facts: BTreeMap<String, Value>| {
            facts.into_iter().map(|(name, value)| (name, cell(Some(&value)))).collect()
        };
        let facts = self.host_facts.into_iter().map(|(host, facts)| (host, texts(facts))).collect();
        Truth { compromised: compromised.collect(), oddities, facts }
    }
}

/// The values by which a row can be told from others: without what moves, under the names of the store.
fn comparable(row: &BTreeMap<String, Value>, spec: &TableSpec) -> Cells {
    let is_named = |name: &str, value: &Value| {
        let columns = spec.columns.iter();
        let mut named =
            columns.filter(|column| column.name == name || column.osquery_name.as_deref() == Some(name));
        let column = named.next()?;
        let moves = matches!(column.role, Role::Volatile | Role::Measure);
        (!moves).then(|| (column.name.clone(), cell(Some(value))))
    };
    row.iter().filter_map(|(name, value)| is_named(name, value)).collect()
}
