//! The analysis: one snapshot in, every host ranked, every finding with its reason.
//!
//! Methods turn prevalence into candidates; `score` calibrates them by what other hosts do
//! in the same place; `explain` says why. Raw rows are read only for what is shown.

mod baseline;
mod candidate;
mod cause;
mod explain;
mod fleet;
mod frequency;
mod lines;
mod priors;
mod rank;
mod score;
mod suppress;

use std::collections::BTreeSet;

use self::baseline::Known;
pub use self::baseline::{BaselineRequest, create_baseline};
use self::candidate::Candidate;
pub use self::candidate::Method;
use self::explain::{Explainer, raw_rows};
use self::fleet::FleetState;
use self::lines::{Id, Lines, Loaded};
use self::priors::Priors;
pub use self::suppress::{NewSuppression, Suppressions, identifying_columns, is_too_wide, parse_date};
use crate::catalog::Catalog;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::model::{Analysis, BaselineRef, Finding, SCHEMA_VERSION};
use crate::store::{Baseline, Manifest, Store};

/// What to analyse, and how.
#[derive(Debug, Clone)]
pub struct AnalyzeRequest {
    /// The methods to run.
    pub methods: Vec<Method>,
    /// The baseline to compare with.
    pub baseline: Option<Baseline>,
    /// Tables to look at; all when empty.
    pub tables: Vec<String>,
    /// Whether the content of a row counts beside how rare it is.
    pub priors: bool,
    /// What people vouch for.
    pub suppress: Suppressions,
}

impl Default for AnalyzeRequest {
    /// Against the other hosts of the snapshot, in all tables, with nothing suppressed.
    fn default() -> Self {
        Self {
            methods: vec![Method::Frequency],
            baseline: None,
            tables: Vec::new(),
            priors: true,
            suppress: Suppressions::default(),
        }
    }
}

/// A candidate that became a finding of a host.
#[derive(Debug)]
struct Scored {
    host: u32,
    finding: Finding,
    /// Values that hardly any other host has; findings that share one have the same cause.
    telling: Vec<String>,
}

/// Analyses one snapshot.
///
/// # Errors
/// A table that was asked for is not in the snapshot, or the store cannot be read.
pub async fn analyze(
    (store, engine, catalog): (&Store, &Engine, &Catalog),
    manifest: &Manifest,
    request: &AnalyzeRequest,
) -> Result<Analysis> {
    let state = FleetState::load(engine, catalog, manifest.snapshot).await?;
    let known = match &request.baseline {
        Some(baseline) => baseline::load(store, baseline).await?,
        None => Known::new(),
    };
    let tables = chosen_tables(&state, request)?;
    let loaded = load((engine, catalog), manifest, &state, &tables).await?;
    let mut scored: Vec<Scored> = Vec::new();
    let mut common = rank::CommonRows::new(state.hosts.len());
    for table in &loaded {
        let started = std::time::Instant::now();
        common.count(&table.lines, table.answers);
        let candidates = candidates(table, request, &known);
        let count = candidates.len();
        let priors = if request.priors { Priors::new(&table.lines.spec)? } else { Priors::none() };
        scored.extend(findings(engine, manifest, (table, &state, &priors), candidates).await?);
        let (seconds, lines) = (started.elapsed().as_secs_f64(), table.lines.lines.len());
        tracing::info!(table = table.name(), lines, candidates = count, seconds, "analysed table");
    }
    let heard = state.heard().len();
    let compared = !known.is_empty() || (request.methods.contains(&Method::Frequency) && heard >= 3);
    scored.extend(rank::coverage_findings(&state));
    let today = crate::model::now().date_naive();
    let applied = request.suppress.apply(scored, |one| (one.host, &one.finding), (&state.hosts, today));
    let mut hosts = rank::rank(&state, applied.kept, &common, compared);
    suppress::count_on_hosts(&mut hosts, &applied.suppressed);
    let mut warnings = manifest.warnings.clone();
    warnings.extend(applied.warnings);
    warnings.extend(rank::warnings(&state, manifest, request, &hosts));
    Ok(Analysis {
        schema_version: SCHEMA_VERSION,
        diffy_version: env!("CARGO_PKG_VERSION").to_owned(),
        fleet: manifest.fleet.clone(),
        snapshot: manifest.snapshot,
        collected_at: manifest.started,
        methods: request.methods.iter().map(|method| method.as_str().to_owned()).collect(),
        baseline: request.baseline.as_ref().map(|baseline| BaselineRef {
            name: baseline.name.clone(),
            created_at: baseline.created,
            snapshots: vec![baseline.origin.snapshot],
        }),
        history: None,
        hosts_total: state.total(),
        hosts_answered: heard,
        tables_compared: if compared { compared_tables(&state, &tables) } else { 0 },
        warnings,
        hosts,
        peer_groups: Vec::new(),
        campaigns: Vec::new(),
        suppressed: applied.suppressed,
    })
}

/// Tables that hosts said something of.
fn compared_tables(state: &FleetState, tables: &BTreeSet<String>) -> u64 {
    tables.iter().filter(|table| !state.tables[*table].heard.is_empty()).count() as u64
}

fn chosen_tables(state: &FleetState, request: &AnalyzeRequest) -> Result<BTreeSet<String>> {
    for table in &request.tables {
        if !state.tables.contains_key(table) {
            let nearest = crate::catalog::nearest(table, state.tables.keys().map(String::as_str));
            let error = Error::usage(format!("this snapshot has no table `{}`", table.escape_debug()));
            return Err(match nearest {
                Some(nearest) => error.hint(format!("did you mean `{nearest}`?")),
                None => error.hint("`diffy snapshot show` lists its tables"),
            });
        }
    }
    let wanted = |table: &&String| request.tables.is_empty() || request.tables.contains(table);
    Ok(state.tables.keys().filter(wanted).cloned().collect())
}

/// Reads the prevalence of the chosen tables.
async fn load<'a>(
    (engine, catalog): (&Engine, &Catalog),
    manifest: &Manifest,
    state: &'a FleetState,
    tables: &BTreeSet<String>,
) -> Result<Vec<Loaded<'a>>> {
    let mut loaded = Vec::with_capacity(tables.len());
    for table in tables {
        let spec = catalog.table_or_undeclared(table).into_owned();
        let lines = Lines::load(engine, manifest, spec).await?;
        loaded.push(Loaded { lines, answers: &state.tables[table] });
    }
    Ok(loaded)
}

fn candidates(table: &Loaded<'_>, request: &AnalyzeRequest, known: &Known) -> Vec<Candidate> {
    let (lines, answers) = (&table.lines, table.answers);
    let mut found = Vec::new();
    if request.methods.contains(&Method::Frequency) {
        found.extend(frequency::candidates(lines, answers));
    }
    if request.methods.contains(&Method::Baseline)
        && let Some(known) = known.get(table.name())
    {
        found.extend(baseline::candidates(lines, answers, known));
    }
    found
}

/// Scores the candidates of one table and explains those that matter.
async fn findings(
    engine: &Engine,
    manifest: &Manifest,
    (table, state, priors): (&Loaded<'_>, &FleetState, &Priors),
    candidates: Vec<Candidate>,
) -> Result<Vec<Scored>> {
    let lines = &table.lines;
    let scores = score::scores(&candidates, lines.spec.weight)?;
    let kept = rank::worth_showing(candidates, scores);
    let mut ids: Vec<Id> = kept.iter().filter_map(|(candidate, _)| candidate.strict).collect();
    ids.sort_unstable();
    ids.dedup();
    let raw = raw_rows(engine, manifest.snapshot, &lines.spec, &ids).await?;
    let half = table.answers.heard.len() / 2;
    let common: Vec<usize> =
        (0..lines.lines.len()).filter(|line| lines.lines[*line].members.len() > half.max(1)).collect();
    let explainer = Explainer { lines, raw: &raw, common: &common };
    let explained = |(candidate, score): (Candidate, f64)| {
        let mut finding = explainer.finding(&candidate, &state.hosts[candidate.host as usize], score);
        priors.add_to(&mut finding, score::of_bits(lines.spec.weight, candidate.hosts_answered));
        Scored { host: candidate.host, telling: cause::telling_values(&candidate, &finding), finding }
    };
    Ok(kept.into_iter().map(explained).collect())
}
