//! The command line of the bench.

use std::path::PathBuf;

use clap::Parser;
use diffy::simulate::Noise;

use crate::cell::{Attacks, Cell, Profile, reporting_seeds};
use crate::fleets::Source;

/// From more hosts on a fleet is large.
const LARGE: usize = 1_000;

/// Measure how well compromised hosts are found, on fleets whose truth is known
///
/// Seeds below 1001 are for choosing parameters, those from 1001 on for reporting. Without --seeds the reporting seeds
/// are taken: 6 of fleets up to 100 hosts, 3 up to 1,000, 1 of larger ones.
#[derive(Debug, Parser)]
#[command(name = "detection")]
pub(crate) struct Args {
    /// Sizes of the fleets [default: 30,60,300,2000; fleets of more than 1,000 hosts only with attacks one]
    #[arg(long, value_delimiter = ',', value_name = "N,...")]
    pub(crate) hosts: Vec<usize>,
    /// What the hosts do
    #[arg(long, value_delimiter = ',', default_values = ["one-role", "nine-roles"])]
    pub(crate) profile: Vec<Profile>,
    /// What was done to the fleets [default: one,campaign,none]
    #[arg(long, value_delimiter = ',')]
    pub(crate) attacks: Vec<Attacks>,
    /// How honest hosts differ: all, none, settled, or kinds with commas between them; repeat it for several
    #[arg(long, default_value = "all", value_parser = noise)]
    pub(crate) noise: Vec<String>,
    /// Seeds, the last one included: `1..6`, or `7`
    #[arg(long, value_parser = seeds, value_name = "FIRST..LAST")]
    pub(crate) seeds: Option<Seeds>,
    /// 60 hosts, attacks one and none, seeds 1..3 unless other flags say so; no peers
    #[arg(long)]
    pub(crate) quick: bool,
    /// Fleets in files instead: HOST/TABLE.json and truth.json, perhaps _history/HOST/TABLE.json of a clean day before
    #[arg(long, value_name = "DIR")]
    pub(crate) fleet_dir: Vec<PathBuf>,
    /// Only the variant of Diffy of this name, or those whose name holds it
    #[arg(long, value_name = "TEXT")]
    pub(crate) variant: Option<String>,
    /// For each fleet: the victims, and the clean hosts above the last of them, with their first findings
    #[arg(long)]
    pub(crate) explain: bool,
    /// Keep stores and truths below this directory, and take from it what is there: the quick way to try another
    /// analysis, and wrong after a change of simulator, identity or ingest
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
    /// Write all measures to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Diffy alone, without the methods of others
    #[arg(long)]
    pub(crate) no_peers: bool,
    /// Fleets worked on at once; times are only right with 1
    #[arg(long, default_value_t = 2)]
    pub(crate) jobs: usize,
    /// What cargo says to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

fn noise(text: &str) -> Result<String, String> {
    text.parse::<Noise>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// Seeds from the first to the last.
#[derive(Debug, Clone)]
pub(crate) struct Seeds(Vec<u64>);

fn seeds(text: &str) -> Result<Seeds, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("`{text}`: {error}"));
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let seeds: Vec<u64> = (number(first)?..=number(last)?).collect();
    if seeds.is_empty() { Err(format!("`{text}` holds no seed")) } else { Ok(Seeds(seeds)) }
}

impl Args {
    /// The command line, with what `--quick` means.
    pub(crate) fn read() -> Self {
        let mut args = Self::parse();
        if args.quick {
            fill(&mut args.hosts, &[60]);
            fill(&mut args.attacks, &[Attacks::One, Attacks::None]);
            args.seeds.get_or_insert(Seeds(vec![1, 2, 3]));
            args.no_peers = true;
        }
        args
    }

    /// The fleets to measure.
    pub(crate) fn sources(&self) -> Vec<Source> {
        if !self.fleet_dir.is_empty() {
            return self.fleet_dir.iter().cloned().map(Source::Directory).collect();
        }
        let mut sources = Vec::new();
        for cell in self.cells() {
            let seeds: Vec<u64> = match &self.seeds {
                Some(Seeds(seeds)) => seeds.clone(),
                None => reporting_seeds(cell.hosts).collect(),
            };
            sources.extend(seeds.into_iter().map(|seed| Source::Simulated(cell.clone(), seed)));
        }
        sources
    }

    fn cells(&self) -> Vec<Cell> {
        let (mut hosts, mut attacks) = (self.hosts.clone(), self.attacks.clone());
        fill(&mut hosts, &[30, 60, 300, 2_000]);
        fill(&mut attacks, &[Attacks::One, Attacks::Campaign, Attacks::None]);
        let mut cells = Vec::new();
        for attacks in attacks {
            for noise in &self.noise {
                for &hosts in &hosts {
                    let cell = |&profile| Cell { profile, hosts, attacks, noise: noise.clone() };
                    cells.extend(self.profile.iter().map(cell));
                }
            }
        }
        // Large fleets are there to see what size does.
        let is_named = |cell: &Cell| self.attacks.contains(&cell.attacks);
        cells.retain(|cell| cell.hosts <= LARGE || cell.attacks == Attacks::One || is_named(cell));
        cells
    }
}

/// Takes the values that are meant where none was named.
fn fill<T: Copy>(values: &mut Vec<T>, meant: &[T]) {
    if values.is_empty() {
        values.extend(meant);
    }
}
