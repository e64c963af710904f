//! The analysis: one snapshot in, every host ranked, every finding with its reason.
//!
//! Methods turn prevalence into candidates; `score` calibrates them by what other hosts do
//! in the same place; `explain` says why. Raw rows are read only for what is shown.

mod baseline;
mod campaigns;
mod candidate;
mod cause;
mod channels;
mod contexts;
mod explain;
mod explained;
mod fleet;
mod frequency;
mod history;
mod lines;
mod missing;
mod newcomers;
mod novelty;
mod of_rows;
mod past;
mod peers;
mod places;
mod priors;
mod rank;
mod score;
mod sets;
mod span;
mod suppress;
mod table_history;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod views;

use std::collections::{BTreeSet, HashMap};
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};

use self::baseline::Known;
pub use self::baseline::{BaselineRequest, create_baseline};
use self::candidate::Candidate;
pub use self::candidate::Method;
use self::explain::{CommonLines, Explainer, raw_rows};
use self::explained::Explanations;
use self::fleet::FleetState;
use self::history::History;
pub use self::history::{Earlier, earlier};
use self::lines::{Id, Lines, Loaded};
use self::newcomers::Newcomers;
use self::peers::PeerGroups;
use self::priors::{LinePrior, Priors};
pub use self::span::Span;
pub use self::suppress::{NewSuppression, Suppressions, identifying_columns, is_too_wide, parse_date};
use self::table_history::TableHistory;
use self::views::View;
use crate::catalog::Catalog;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::model::{Analysis, BaselineRef, Finding, SCHEMA_VERSION};
use crate::store::{Baseline, FileEntry, FileKind, Manifest, Store};

/// What to analyse, and how.
#[derive(Debug, Clone)]
pub struct AnalyzeRequest {
    /// The methods to run.
    pub methods: Vec<Method>,
    /// The baseline to compare with.
    pub baseline: Option<Baseline>,
    /// How far back the fleet's own past goes; nothing without the method `history`.
    pub history: Span,
    /// Tables to look at; all when empty.
    pub tables: Vec<String>,
    /// Whether the content of a row counts beside how rare it is.
    pub priors: bool,
    /// What people vouch for.
    pub suppress: Suppressions,
    /// Make prevalence of the snapshot again from its rows, instead of reading it.
    pub from_rows: bool,
}

impl Default for AnalyzeRequest {
    /// All methods, in all tables, with nothing suppressed.
    fn default() -> Self {
        Self {
            methods: Method::ALL.to_vec(),
            baseline: None,
            history: Span::NONE,
            tables: Vec::new(),
            priors: true,
            suppress: Suppressions::default(),
            from_rows: false,
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
    let loaded = load((engine, catalog), manifest, &state, (&tables, request.from_rows)).await?;
    let (history, methods) = past(store, manifest, (&state, &loaded), request).await?;
    let mut scored: Vec<Scored> = Vec::new();
    let mut groups = PeerGroups::default();
    if request.methods.contains(&Method::Cluster) {
        groups = peers::peer_groups(&loaded, &state);
        scored.extend(peers::misplaced(&groups, &loaded, &state));
    }
    let newcomers = history.as_ref().map(|history| {
        Newcomers::new(history, &loaded)
            .with_peers(groups.groups.iter().map(|group| group.hosts.clone()).collect())
    });
    let mut campaigns = campaigns::Campaigns::default();
    if request.methods.contains(&Method::Campaigns) {
        campaigns = campaigns::campaigns(&loaded, &groups, &state);
    }
    let by_frequency = request.methods.contains(&Method::Frequency);
    let explanations = if by_frequency { Explanations::new(&loaded) } else { Explanations::default() };
    let mut common = rank::CommonRows::new(state.hosts.len());
    let against = (&known, &groups, &explanations);
    let found = side_by_side(&loaded, |table| {
        // Only the method `frequency` looks at them, and they take most of the time.
        let views = if by_frequency { views::views(table)? } else { Vec::new() };
        let priors = if request.priors { Priors::new(&table.lines.spec)? } else { Priors::none() };
        let priors = priors.of_table(table)?;
        let candidates = candidates((table, &views, &priors), request, against);
        Ok((views, priors, candidates))
    })?;
    let with_findings: BTreeSet<&str> = loaded
        .iter()
        .zip(&found)
        .filter(|(_, (.., candidates))| !candidates.is_empty())
        .map(|(table, _)| table.name())
        .collect();
    let is_wanted = |file: &&FileEntry| {
        file.kind == FileKind::Rows
            && file.table.as_deref().is_some_and(|table| with_findings.contains(table))
    };
    engine.fetch(manifest.files.iter().filter(is_wanted)).await;
    for (number, (table, (views, priors, mut candidates))) in loaded.iter().zip(found).enumerate() {
        let started = std::time::Instant::now();
        common.count(&table.lines, table.answers);
        let mut past = newcomers.as_ref().and_then(|newcomers| newcomers.table(table));
        candidates.extend(past.as_mut().map(TableHistory::candidates).unwrap_or_default());
        let count = candidates.len();
        let extra = campaigns.candidates(number, table);
        let judged = Judged { table, views: &views, state: &state, past: past.as_ref(), priors: &priors };
        scored.extend(findings(engine, manifest, &judged, (candidates, extra)).await?);
        let (seconds, lines) = (started.elapsed().as_secs_f64(), table.lines.lines.len());
        tracing::info!(table = table.name(), lines, candidates = count, seconds, "analysed table");
    }
    campaigns.tell(&mut scored, &loaded, &state);
    let heard = state.heard().len();
    let compared = !known.is_empty()
        || history.is_some()
        || (heard >= 3 && request.methods.iter().any(|method| method.compares_hosts()));
    scored.extend(rank::coverage_findings(&state));
    let today = crate::model::now().date_naive();
    let applied = request.suppress.apply(scored, |one| (one.host, &one.finding), (&state.hosts, today));
    let mut hosts = rank::rank(&state, applied.kept, (&common, &groups), compared);
    suppress::count_on_hosts(&mut hosts, &applied.suppressed);
    groups.note_in(&mut hosts, &state);
    campaigns.raise(&mut hosts, &state);
    let mut warnings = manifest.warnings.clone();
    warnings.extend(applied.warnings);
    warnings.extend(rank::warnings(&state, manifest, request, &hosts));
    warnings.extend(groups.warnings());
    warnings.extend(campaigns.warnings());
    if request.methods.contains(&Method::History) {
        warnings.extend(history::warnings(history.as_ref(), request.history, &state));
        warnings.extend(newcomers::warnings(hosts.iter().flat_map(|host| &host.findings)));
    }
    let deploys = newcomers.as_ref().map(|newcomers| newcomers.deploys(&state)).unwrap_or_default();
    Ok(Analysis {
        schema_version: SCHEMA_VERSION,
        diffy_version: env!("CARGO_PKG_VERSION").to_owned(),
        fleet: manifest.fleet.clone(),
        snapshot: manifest.snapshot,
        collected_at: manifest.started,
        methods: methods.iter().map(|method| method.as_str().to_owned()).collect(),
        baseline: request.baseline.as_ref().map(|baseline| BaselineRef {
            name: baseline.name.clone(),
            created_at: baseline.created,
            snapshots: baseline.origin.snapshots(),
        }),
        history: history.as_ref().map(History::reference),
        hosts_total: state.total(),
        hosts_answered: heard,
        tables_compared: if compared { compared_tables(&state, &tables) } else { 0 },
        warnings,
        hosts,
        peer_groups: groups.shown(),
        campaigns: campaigns.shown(&state).into_iter().chain(deploys).collect(),
        suppressed: applied.suppressed,
    })
}

/// The fleet's past, and the methods that have something to compare with.
async fn past(
    store: &Store,
    manifest: &Manifest,
    of: (&FleetState, &[Loaded<'_>]),
    request: &AnalyzeRequest,
) -> Result<(Option<History>, Vec<Method>)> {
    let mut methods = request.methods.clone();
    let history = match methods.contains(&Method::History) {
        true => History::load(store, manifest, of, request.history).await?,
        false => None,
    };
    if history.is_none() {
        methods.retain(|method| *method != Method::History);
    }
    if methods.is_empty() {
        return Err(Error::usage(format!("fleet `{}` has no past to compare with", manifest.fleet))
            .hint("`--history` says how far back it goes; it needs an earlier snapshot"));
    }
    Ok((history, methods))
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

/// Reads the prevalence of the chosen tables, or makes it again of their rows.
async fn load<'a>(
    (engine, catalog): (&Engine, &Catalog),
    manifest: &Manifest,
    state: &'a FleetState,
    (tables, from_rows): (&BTreeSet<String>, bool),
) -> Result<Vec<Loaded<'a>>> {
    let is_wanted = |file: &&FileEntry| {
        file.kind == FileKind::Prevalence && file.table.as_ref().is_some_and(|table| tables.contains(table))
    };
    if !from_rows {
        engine.fetch(manifest.files.iter().filter(is_wanted)).await;
    }
    let mut loaded = Vec::with_capacity(tables.len());
    for table in tables {
        let spec = catalog.table_or_undeclared(table).into_owned();
        let lines = match from_rows {
            true => Lines::load_of_rows(engine, manifest, spec).await?,
            false => Lines::load(engine, manifest, spec).await?,
        };
        loaded.push(Loaded { lines, answers: &state.tables[table] });
    }
    Ok(loaded)
}

/// What `judge` makes of each table, on all processors; the largest tables first.
fn side_by_side<'a, T: Send>(
    tables: &'a [Loaded<'a>],
    judge: impl Fn(&'a Loaded<'a>) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let mut order: Vec<usize> = (0..tables.len()).collect();
    order.sort_by_key(|number| std::cmp::Reverse(tables[*number].lines.lines.len()));
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some(number) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push((*number, judge(&tables[*number])));
        }
        done
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(tables.len());
    let mut done: Vec<(usize, Result<T>)> = std::thread::scope(|scope| {
        let started: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        started.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    done.sort_by_key(|(number, _)| *number);
    if done.len() != tables.len() {
        return Err(Error::internal("a table could not be judged"));
    }
    done.into_iter().map(|(_, result)| result).collect()
}

fn candidates(
    (table, views, priors): (&Loaded<'_>, &[View], &HashMap<usize, LinePrior>),
    request: &AnalyzeRequest,
    (known, groups, explanations): (&Known, &PeerGroups, &Explanations),
) -> Vec<Candidate> {
    let mut found = Vec::new();
    if request.methods.contains(&Method::Frequency) {
        found.extend(frequency::candidates(table, views, (groups, explanations), priors));
    }
    if request.methods.contains(&Method::Missing) {
        found.extend(missing::candidates(table, groups));
    }
    if request.methods.contains(&Method::Baseline)
        && let Some(known) = known.get(table.name())
    {
        found.extend(baseline::candidates(&table.lines, table.answers, known));
    }
    found
}

/// One table and what its candidates are told by.
struct Judged<'a> {
    table: &'a Loaded<'a>,
    views: &'a [View],
    state: &'a FleetState,
    past: Option<&'a TableHistory<'a>>,
    priors: &'a HashMap<usize, LinePrior>,
}

/// Scores the candidates of one table and explains those that matter; `scored` ones come with their score.
async fn findings(
    engine: &Engine,
    manifest: &Manifest,
    judged: &Judged<'_>,
    (mut candidates, scored): (Vec<Candidate>, Vec<(Candidate, f64)>),
) -> Result<Vec<Scored>> {
    let Judged { table, views, state, past, priors } = judged;
    let lines = &table.lines;
    let mut scores = score::scores(&candidates, lines.spec.weight)?;
    for (candidate, score) in scored {
        candidates.push(candidate);
        scores.push(score);
    }
    if let Some(past) = past {
        past.adjust(&candidates, &mut scores);
    }
    priors::weigh(priors, &mut candidates, &mut scores);
    let kept = rank::worth_showing(candidates, scores);
    let mut ids: Vec<Id> = kept.iter().filter_map(|(candidate, _)| candidate.strict).collect();
    ids.sort_unstable();
    ids.dedup();
    let raw = raw_rows(engine, manifest.snapshot, &lines.spec, &ids).await?;
    let common = CommonLines::new(table);
    let explainer = Explainer { lines, views, raw: &raw, common: &common };
    let explained = |(candidate, score): (Candidate, f64)| {
        let mut finding = explainer.finding(&candidate, &state.hosts[candidate.host as usize], score);
        if let Some(past) = past {
            past.tell(&candidate, &mut finding);
        }
        Scored { host: candidate.host, telling: cause::telling_values(&candidate, &finding), finding }
    };
    Ok(kept.into_iter().map(explained).collect())
}
