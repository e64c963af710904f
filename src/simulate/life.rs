//! When instances were started, and which one stood in a place of the fleet on a given day.

use rand::Rng;

use super::config::Noise;
use super::facts::TODAY;
use super::seed;

/// One instance.
#[derive(Debug, Clone)]
pub(super) struct Life {
    /// Its instance id.
    pub(super) name: String,
    /// When it was started, in seconds since 1970.
    pub(super) boot: i64,
    /// Whether it was started within the last hours of the day that is looked at.
    pub(super) fresh: bool,
}

const DAY: i64 = 86_400;

/// The instance in a place of the fleet so many days ago; none when the fleet was smaller then.
pub(super) fn at(seed: u64, number: usize, day: u32, noise: Noise) -> Option<Life> {
    let (mut life, mut ended) = (newest(seed, number, noise), TODAY);
    let looked_at = TODAY - i64::from(day) * DAY;
    let mut generation = 0;
    while life.boot > looked_at {
        generation += 1;
        let mut rng = stream(seed, number, generation);
        // Half of the newest instances replaced another one, the others made the fleet larger.
        if ended == TODAY && life.fresh && rng.random_bool(0.5) {
            return None;
        }
        ended = life.boot;
        let boot = ended - rng.random_range(6..90) * DAY - rng.random_range(0..DAY);
        life = Life { name: name(seed, number, generation), boot, fresh: false };
    }
    life.fresh = looked_at - life.boot < DAY / 4;
    Some(life)
}

fn newest(seed: u64, number: usize, noise: Noise) -> Life {
    let mut rng = stream(seed, number, 0);
    let days = match rng.random_range(0..100) {
        0..7 if noise.fresh => 0,
        7..18 if noise.fresh => rng.random_range(1..4),
        _ => rng.random_range(7..90),
    };
    let within = if days == 0 { 400..14_000 } else { 600..86_000 };
    let boot = TODAY - days * DAY - rng.random_range(within);
    Life { name: name(seed, number, 0), boot, fresh: days == 0 }
}

fn stream(seed: u64, number: usize, generation: u32) -> rand_chacha::ChaCha8Rng {
    seed::stream(seed, &["life", &number.to_string(), &generation.to_string()])
}

/// An instance id.
fn name(seed: u64, number: usize, generation: u32) -> String {
    let place = if generation == 0 { number.to_string() } else { format!("{number}.{generation}") };
    format!("i-0{}", seed::hex(&mut seed::stream(seed, &["name", &place]), 16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_instances_were_there_yesterday_and_fresh_ones_were_not() {
        let places = 0..500;
        let lives: Vec<Life> = places.filter_map(|number| at(1, number, 0, Noise::ALL)).collect();
        assert_eq!(lives.len(), 500);
        let fresh = lives.iter().filter(|life| life.fresh).count();
        assert!((15..60).contains(&fresh), "{fresh}");
        for (number, today) in lives.iter().enumerate() {
            let yesterday = at(1, number, 1, Noise::ALL);
            let same = yesterday.as_ref().is_some_and(|life| life.name == today.name);
            assert_eq!(same, !today.fresh, "{number}");
        }
        let before = (0..500).filter_map(|number| at(1, number, 1, Noise::ALL)).count();
        assert!(before < 500 && before > 460, "{before}");
    }

    #[test]
    fn an_instance_keeps_its_start_over_days() {
        for number in 0..50 {
            let (today, before) = (at(3, number, 0, Noise::ALL), at(3, number, 5, Noise::ALL));
            if let (Some(today), Some(before)) = (today, before) {
                assert_eq!(today.name == before.name, today.boot == before.boot, "{number}");
            }
        }
    }
}
