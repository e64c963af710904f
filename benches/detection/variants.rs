//! Diffy's own variants: which methods and switches a run of the analysis has.

use std::time::Instant;

use diffy::analyze::{AnalyzeRequest, BaselineRequest, Method, Span, analyze, create_baseline};
use diffy::catalog::Catalog;
use diffy::engine::{Engine, EngineConfig};
use diffy::error::Result;
use diffy::model::Analysis;
use diffy::store::Baseline;

use crate::fleets::{Fleet, Plant};

/// One way to run the analysis.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Variant {
    /// Its name in the table.
    pub(crate) name: &'static str,
    /// The methods.
    methods: &'static [Method],
    /// Whether the day before is known.
    pub(crate) knows_past: bool,
    /// What else of the request is not as usual.
    switch: fn(&mut AnalyzeRequest),
}

/// All variants; one more is one more line.
pub(crate) const ALL: &[Variant] = &[
    variant("all methods", &Method::ALL, false),
    Variant { switch: |request| request.priors = false, ..variant("without priors", &Method::ALL, false) },
    variant("without cluster", WITHOUT_CLUSTER, false),
    variant("frequency", &[Method::Frequency], false),
    variant("missing", &[Method::Missing], false),
    variant("campaigns", &[Method::Cluster, Method::Campaigns], false),
    Variant { switch: with_history, ..variant("all, with a day of history", &Method::ALL, true) },
    Variant { switch: with_bare_history, ..variant("the same without priors", &Method::ALL, true) },
    Variant { switch: with_history, ..variant("history", &[Method::History], true) },
    variant("baseline", &[Method::Baseline], true),
];

const WITHOUT_CLUSTER: &[Method] = &[Method::Frequency, Method::Missing, Method::Campaigns];

const fn variant(name: &'static str, methods: &'static [Method], knows_past: bool) -> Variant {
    Variant { name, methods, knows_past, switch: |_| {} }
}

/// The fleet's own past, and nothing that somebody declared normal.
fn with_history(request: &mut AnalyzeRequest) {
    request.baseline = None;
    request.history = Span::DEFAULT.parse().unwrap_or(Span::NONE);
}

fn with_bare_history(request: &mut AnalyzeRequest) {
    with_history(request);
    request.priors = false;
}

/// The variant of that name, or those whose name holds it; all when none is named.
pub(crate) fn named(text: Option<&str>) -> Vec<&'static Variant> {
    let text = text.unwrap_or_default();
    let exact = ALL.iter().find(|variant| variant.name == text);
    exact.map_or_else(|| ALL.iter().filter(|variant| variant.name.contains(text)).collect(), |one| vec![one])
}

/// An analysis and what it took.
#[derive(Debug)]
pub(crate) struct Run {
    /// The result.
    pub(crate) analysis: Analysis,
    /// Seconds of the analysis alone, on a store that was read before.
    pub(crate) seconds: f64,
}

impl Variant {
    /// Runs the analysis of a fleet; none when the fleet has not what the variant needs.
    ///
    /// # Errors
    /// The analysis fails.
    pub(crate) async fn run(&self, plant: &Plant, fleet: &Fleet) -> Result<Option<Run>> {
        if self.knows_past && fleet.before.is_none() {
            return Ok(None);
        }
        let engine = engine(plant, fleet)?;
        let baseline = if self.knows_past { baseline(plant, fleet, &engine).await? } else { None };
        let methods = self.methods.to_vec();
        let mut request = AnalyzeRequest { methods, baseline, ..AnalyzeRequest::default() };
        (self.switch)(&mut request);
        let catalog: &Catalog = &plant.catalog;
        let started = Instant::now();
        let analysis = analyze((&fleet.store, &engine, catalog), &fleet.today, &request).await?;
        Ok(Some(Run { analysis, seconds: started.elapsed().as_secs_f64() }))
    }
}

fn engine(plant: &Plant, fleet: &Fleet) -> Result<Engine> {
    let manifests = fleet.before.iter().chain([&fleet.today]).cloned().collect();
    let config = EngineConfig {
        memory_limit_bytes: plant.config.memory_limit_bytes,
        threads: plant.config.threads,
        spill_dir: None,
    };
    Engine::new(fleet.store.object_store(), std::sync::Arc::new(manifests), &plant.catalog, &config)
}

/// All that any host had the day before.
async fn baseline(plant: &Plant, fleet: &Fleet, engine: &Engine) -> Result<Option<Baseline>> {
    let Some(before) = &fleet.before else { return Ok(None) };
    if let Some(known) = fleet.store.baselines(Some(&before.fleet)).await?.pop() {
        return Ok(Some(known));
    }
    let request = BaselineRequest {
        name: "day-before".to_owned(),
        hosts: Vec::new(),
        quorum: 1,
        created_by: "bench".to_owned(),
    };
    create_baseline((&fleet.store, engine, &plant.catalog), std::slice::from_ref(before), request)
        .await
        .map(Some)
}
