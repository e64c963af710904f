//! The analysis: one snapshot in, every host ranked, every finding with its reason.
//!
//! Methods turn prevalence into candidates; `score` calibrates them by what other hosts do
//! in the same place; `explain` says why. Raw rows are read only for what is shown.

mod answers;
mod baseline;
mod campaigns;
mod candidate;
mod cause;
mod cells;
mod channels;
mod contexts;
mod explain;
mod explained;
mod fleet;
mod frequency;
mod history;
mod known;
mod lines;
mod members;
mod missing;
mod newcomers;
mod novelty;
mod of_rows;
mod past;
mod peers;
mod places;
mod priors;
mod rank;
mod raw;
mod score;
mod sets;
mod side_by_side;
mod span;
mod spot;
mod suppress;
mod table_history;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod views;

use std::collections::{BTreeSet, HashMap};

use futures::{StreamExt, TryStreamExt, stream};

pub use self::answers::{Answers, answers, answers_of_host};
pub use self::baseline::{BaselineRequest, create_baseline};
pub use self::candidate::Method;
use self::candidate::{Candidate, Subject};
use self::explain::{CommonLines, Explainer};
use self::explained::Explanations;
use self::fleet::FleetState;
use self::history::History;
pub use self::history::{Earlier, earlier};
use self::known::Known;
use self::lines::{Lines, Loaded};
use self::newcomers::Newcomers;
use self::peers::PeerGroups;
use self::priors::{LinePrior, Priors};
use self::raw::{RawRows, raw_rows};
use self::side_by_side::side_by_side;
pub use self::span::Span;
use self::spot::{Spot, Spots};
pub use self::suppress::{NewSuppression, Suppressions, identifying_columns, is_too_wide, parse_date};
use self::table_history::TableHistory;
use self::views::View;
use crate::catalog::Catalog;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::model::{Analysis, BaselineRef, Finding, SCHEMA_VERSION};
use crate::store::{Baseline, Manifest, RowsRead, Store, WantedRows};

/// What a request asks for when nothing else is said.
const MEMORY_LIMIT_BYTES: usize = 384 << 20;
/// Tables of which files are read at the same time.
const TABLES_AT_ONCE: usize = 2;
/// What is not seen where prevalence was made again of the rows.
const OF_ROWS: &str = "prevalence was made again of the rows: lines that differ only in a column that may hold a host's \
    own name, and that is no part of the identity, count as one, so findings in such a column can be missing";

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
    /// What judging several tables at the same time may hold together, in bytes; one table is always judged.
    pub memory_limit_bytes: usize,
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
            memory_limit_bytes: MEMORY_LIMIT_BYTES,
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
        Some(baseline) => Known::load(store, baseline).await?,
        None => Known::default(),
    };
    let tables = chosen_tables(&state, request)?;
    let loaded = load((engine, store, catalog), manifest, &state, (&tables, request.from_rows)).await?;
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
    loaded.iter().for_each(|table| common.count(&table.lines, table.answers));
    let bench = Bench {
        request,
        known: &known,
        groups: &groups,
        explanations: &explanations,
        newcomers: newcomers.as_ref(),
        campaigns: &campaigns,
    };
    let limit = request.memory_limit_bytes;
    let judged = side_by_side((&loaded, limit), |number, table| bench.judge(number, table))?;
    scored.extend(findings((store, manifest), &loaded, judged, &state).await?);
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
    warnings.extend(request.from_rows.then(|| OF_ROWS.to_owned()));
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
    (engine, store, catalog): (&Engine, &Store, &Catalog),
    manifest: &Manifest,
    state: &'a FleetState,
    (tables, from_rows): (&BTreeSet<String>, bool),
) -> Result<Vec<Loaded<'a>>> {
    let started = std::time::Instant::now();
    let reads = tables.iter().map(|table| {
        let spec = catalog.table_or_undeclared(table).into_owned();
        async move {
            let lines = match from_rows {
                true => Lines::load_of_rows(engine, manifest, spec).await?,
                false => Lines::load(store, manifest, spec).await?,
            };
            lines.of_hosts(state.hosts.len())
        }
    });
    let read: Vec<Lines> =
        stream::iter(reads.collect::<Vec<_>>()).buffered(TABLES_AT_ONCE).try_collect().await?;
    let lines: usize = read.iter().map(|table| table.lines.len()).sum();
    tracing::info!(lines, seconds = started.elapsed().as_secs_f64(), "read prevalence");
    let answers = tables.iter().map(|table| &state.tables[table]);
    Ok(read.into_iter().zip(answers).map(|(lines, answers)| Loaded { lines, answers }).collect())
}

/// What the tables of a snapshot are judged by.
struct Bench<'a> {
    request: &'a AnalyzeRequest,
    known: &'a Known,
    groups: &'a PeerGroups,
    explanations: &'a Explanations,
    newcomers: Option<&'a Newcomers<'a>>,
    campaigns: &'a campaigns::Campaigns,
}

/// What is worth showing of one table.
struct Judged<'a> {
    kept: Vec<(Candidate, Option<Spot>, f64)>,
    past: Option<TableHistory<'a>>,
}

impl<'a> Bench<'a> {
    /// Finds, scores and sifts the candidates of one table; `number` is its place among the loaded ones.
    fn judge(&self, number: usize, table: &'a Loaded<'a>) -> Result<Judged<'a>> {
        let started = std::time::Instant::now();
        let methods = &self.request.methods;
        let lines = &table.lines;
        // Only the method `frequency` looks at them, and they take most of the time.
        let views = if methods.contains(&Method::Frequency) { views::views(table) } else { Vec::new() };
        let priors = if self.request.priors { Priors::new(&lines.spec)? } else { Priors::none() };
        let priors = priors.of_table(table);
        let mut candidates = self.by_comparison((table, &views, &priors));
        let mut scores = score::scores(&candidates, lines.spec.weight)?;
        let mut add = |(candidate, score): (Candidate, f64)| {
            candidates.push(candidate);
            scores.push(score);
        };
        if methods.contains(&Method::Baseline) {
            let speaks = |line| priors.get(&line).is_some_and(|prior| prior.bits > 0.0);
            self.known.candidates(table, speaks)?.into_iter().for_each(&mut add);
        }
        let mut past = self.newcomers.and_then(|newcomers| newcomers.table(table));
        let arrived = past.as_mut().map(TableHistory::candidates).unwrap_or_default();
        arrived.into_iter().for_each(|candidate| add((candidate, 0.0)));
        self.campaigns.candidates(number, table).into_iter().for_each(&mut add);
        let count = candidates.len();
        if let Some(past) = &past {
            past.adjust(&candidates, &mut scores);
        }
        priors::weigh(&priors, &mut candidates, &mut scores);
        let mut spots = Spots::new(lines, &views);
        let kept = rank::worth_showing(candidates, scores).into_iter();
        let kept: Vec<_> = kept
            .map(|(candidate, score)| (spots.of(&candidate), candidate, score))
            .map(|(spot, candidate, score)| (candidate, spot, score))
            .collect();
        let (seconds, lines, shown) = (started.elapsed().as_secs_f64(), lines.lines.len(), kept.len());
        tracing::info!(table = table.name(), lines, candidates = count, shown, seconds, "analysed table");
        Ok(Judged { kept, past })
    }

    fn by_comparison(
        &self,
        (table, views, priors): (&Loaded<'_>, &[View], &HashMap<usize, LinePrior>),
    ) -> Vec<Candidate> {
        let mut found = Vec::new();
        if self.request.methods.contains(&Method::Frequency) {
            found.extend(frequency::candidates(table, views, (self.groups, self.explanations), priors));
        }
        if self.request.methods.contains(&Method::Missing) {
            found.extend(missing::candidates(table, self.groups));
        }
        found
    }
}

/// Reads the rows that are shown and explains them, a few tables at a time.
async fn findings(
    (store, manifest): (&Store, &Manifest),
    tables: &[Loaded<'_>],
    judged: Vec<Judged<'_>>,
    state: &FleetState,
) -> Result<Vec<Scored>> {
    let reads = tables.iter().zip(judged).map(|(table, judged)| async move {
        let wanted = wanted(table, &judged, state);
        let (raw, read) = raw_rows((store, manifest), &table.lines.spec, wanted).await?;
        Ok::<_, Error>((explained(table, (judged, raw), state), read))
    });
    let mut reads = stream::iter(reads.collect::<Vec<_>>()).buffered(TABLES_AT_ONCE);
    let (mut scored, mut all) = (Vec::new(), RowsRead::default());
    while let Some(read) = reads.next().await {
        let (found, read) = read?;
        all += read;
        scored.extend(found);
    }
    tracing::info!("rows shown: {all}");
    Ok(scored)
}

/// The rows that are shown of one table.
fn wanted(table: &Loaded<'_>, judged: &Judged<'_>, state: &FleetState) -> WantedRows {
    let mut wanted = WantedRows::default();
    for (candidate, ..) in &judged.kept {
        if let (Some(strict), Subject::Line(line)) = (candidate.strict, &candidate.subject) {
            let host = &state.hosts[candidate.host as usize];
            wanted.add(host, table.lines.lines[*line].loose, strict);
        }
    }
    wanted
}

/// Explains what is shown of one table.
fn explained(
    table: &Loaded<'_>,
    (judged, mut raw): (Judged<'_>, RawRows),
    state: &FleetState,
) -> Vec<Scored> {
    let common = CommonLines::new(table);
    let explainer = Explainer { lines: &table.lines, common: &common };
    let explained = |(candidate, spot, score): (Candidate, Option<Spot>, f64)| {
        let host = &state.hosts[candidate.host as usize];
        // Each row is shown once.
        let row = candidate.strict.and_then(|strict| raw.remove(&(host.clone(), strict)));
        let mut finding = explainer.finding((&candidate, spot.as_ref()), (host, row), score);
        if let Some(past) = &judged.past {
            past.tell(&candidate, &mut finding);
        }
        Scored { host: candidate.host, telling: cause::telling_values(&candidate, &finding), finding }
    };
    judged.kept.into_iter().map(explained).collect()
}
