//! What detection must not lose: simulated fleets with all honest noise, judged as a user would have them judged.
//!
//! The same seed makes the same bytes, so that a number here changes only when the code does. The bounds are far below
//! what is found today; `cargo bench --bench detection` measures in earnest.

use diffy::simulate::{Attacks, Noise, Profile, SimulationConfig, Truth};
use serde_json::Value;

use crate::detection::metrics::{average_precision, ties};
use crate::env::{TestEnv, write_simulation};

/// A fleet of sixty with all honest noise, as `diffy analyze` sees it, and what was planted.
fn judged(profile: Profile, attacks: Attacks, (compromised, seed): (usize, u64)) -> (Value, Truth) {
    let env = TestEnv::new();
    let config = SimulationConfig {
        profile,
        attacks,
        noise: Noise::ALL,
        ..SimulationConfig::new(60, compromised, seed)
    };
    let truth = write_simulation(&env.path("fleet"), config);
    env.import(&env.path("fleet"), &["--fleet", "web"]);
    (env.json(&["analyze", "--format", "json"]), truth)
}

fn hosts(analysis: &Value) -> &Vec<Value> {
    analysis["hosts"].as_array().unwrap()
}

/// How well compromised hosts are ranked before the others: 0 to 1.
fn precision(analysis: &Value, truth: &Truth) -> f64 {
    let ranked: Vec<(f64, bool)> = hosts(analysis)
        .iter()
        .map(|host| (host["score"].as_f64().unwrap(), truth.is_compromised(host["host"].as_str().unwrap())))
        .collect();
    average_precision(&ties(&ranked)).unwrap()
}

/// One scenario on each compromised host, dealt in turn: among them the subtle ones.
#[test]
fn compromised_hosts_come_before_most_others() {
    for (profile, least) in [(Profile::OneRole, 0.3), (Profile::NineRoles, 0.25)] {
        let seeds = [1, 2];
        let found: Vec<f64> = seeds
            .iter()
            .map(|seed| {
                let (analysis, truth) = judged(profile, Attacks::One, (6, *seed));
                precision(&analysis, &truth)
            })
            .collect();
        let mean = found.iter().sum::<f64>() / found.len() as f64;
        assert!(mean >= least, "{profile:?}: average precision {found:?}");
    }
}

#[test]
fn a_worm_on_two_fifths_of_the_fleet_is_a_campaign_and_the_output_says_so() {
    let share_percent = 40;
    for (profile, first) in [(Profile::OneRole, 2), (Profile::NineRoles, 2)] {
        let (analysis, truth) = judged(profile, Attacks::Campaign { share_percent }, (0, 1));
        let is_worm = |campaign: &Value| {
            let hosts = campaign["hosts"].as_array().unwrap();
            let victims = hosts.iter().filter(|host| truth.is_compromised(host.as_str().unwrap())).count();
            let all =
                truth.planted.iter().map(|planted| &planted.host).collect::<std::collections::BTreeSet<_>>();
            victims * 10 >= hosts.len() * 9 && victims * 10 >= all.len() * 9
        };
        let campaigns = analysis["campaigns"].as_array().unwrap();
        let place = campaigns.iter().position(is_worm);
        assert!(place.is_some_and(|place| place < first), "{profile:?}: {place:?}");
        let warnings = analysis["warnings"].to_string();
        assert!(warnings.contains("frequency cannot see what so many share"), "{profile:?}: {warnings}");
        let victims =
            hosts(&analysis).iter().filter(|host| truth.is_compromised(host["host"].as_str().unwrap()));
        for victim in victims {
            assert_ne!(victim["verdict"], "normal", "{profile:?}: {} needs no look", victim["host"]);
        }
    }
}

/// Canaries have new packages, with their files.
#[test]
fn on_a_clean_fleet_no_canary_is_an_outlier() {
    for (profile, seed) in [(Profile::OneRole, 21), (Profile::OneRole, 22), (Profile::NineRoles, 21)] {
        let (analysis, truth) = judged(profile, Attacks::One, (0, seed));
        let canaries: Vec<&str> =
            truth.hosts.iter().filter(|facts| facts.canary).map(|facts| facts.host.as_str()).collect();
        assert!(!canaries.is_empty());
        let outliers: Vec<&Value> =
            hosts(&analysis).iter().filter(|host| host["verdict"] == "outlier").collect();
        for host in outliers {
            assert!(!canaries.contains(&host["host"].as_str().unwrap()), "seed {seed}: {host:#}");
        }
    }
}
