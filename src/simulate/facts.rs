//! What is one host's own: names, addresses, ids, age, and the process ids it happens to have handed out.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::config::Noise;
use super::life::Life;
use super::seed;

/// Names of the facts that values may refer to as `{name}`; [`Facts::values`] has them in this order.
pub(super) const NAMES: [&str; 20] = [
    "host",
    "ip",
    "mac",
    "linklocal",
    "instance",
    "machine_id",
    "uuid",
    "partuuid",
    "zone",
    "ami",
    "kernel",
    "agent",
    "days",
    "uptime",
    "start",
    "lb",
    "prometheus",
    "colour",
    "release",
    "appport",
];

/// The day on which every simulated fleet is looked at, in seconds since 1970; a constant keeps the bytes the same.
pub(super) const TODAY: i64 = 1_750_000_000;

/// Process ids from here on are those of processes that the base state does not have.
pub(super) const FIRST_EXTRA_PID: i64 = 1_000_000;

/// The instance types of a fleet, the most common one first.
pub(super) const HARDWARE: [&str; 3] = ["m6i.large", "m6a.large", "t2.large"];

/// One host's own facts.
#[derive(Debug)]
pub(super) struct Facts {
    /// Values of [`NAMES`].
    values: Vec<String>,
    /// Base process id and the host's own for it, sorted by the former.
    pids: Vec<(i64, i64)>,
    /// The host's name in the simulation.
    pub(super) name: String,
    /// When the host was booted, in seconds since 1970.
    pub(super) boot: i64,
    /// Whole days since then.
    pub(super) days: i64,
    /// The moment of the answer, in seconds since 1970.
    pub(super) today: i64,
    /// Which kernel build it runs, from the oldest.
    pub(super) kernel: usize,
    /// Which of [`HARDWARE`] it is.
    pub(super) hardware: usize,
    /// Whether it is one of those that get new packages first.
    pub(super) canary: bool,
    /// Whether its release is that of the other half of the fleet.
    pub(super) green: bool,
    /// How many waves of updates have reached it, 0 to 2.
    pub(super) wave: usize,
    /// Whether it was started within the last hours.
    pub(super) fresh: bool,
    /// Whether its agent lacks the columns that came late.
    pub(super) old_agent: bool,
    /// The kinds of difference that the fleet has.
    pub(super) noise: Noise,
}

/// What all hosts of a fleet share and facts are made from.
#[derive(Debug)]
pub(super) struct Common<'a> {
    /// The seed of the simulation.
    pub(super) seed: u64,
    /// How many days ago the host is asked.
    pub(super) day: u32,
    /// The kernel builds, the oldest first.
    pub(super) kernels: &'a [String; 3],
    /// Process ids of the base state, sorted.
    pub(super) pids: &'a [i64],
    /// The kinds of difference that the fleet has.
    pub(super) noise: Noise,
    /// Releases of the application deployed in the days before; see [`super::patches::deploys`].
    pub(super) release: u64,
}

/// What chance decides for each host, whether it shows or not: switching off one kind of noise changes no other.
#[derive(Debug)]
struct Dice {
    canary: f64,
    green: f64,
    kernel: f64,
    hardware: f64,
    wave: f64,
}

impl Facts {
    /// The facts of an instance in a place of the fleet.
    pub(super) fn new(common: &Common<'_>, number: usize, life: &Life, old_agent: bool) -> Self {
        let noise = common.noise;
        let mut rng = seed::stream(common.seed, &["facts", &life.name]);
        let dice = Dice::throw(&mut rng);
        let today = TODAY - i64::from(common.day) * 86_400;
        let green = noise.blue_green && dice.green < 0.4;
        let hardware = cut(dice.hardware, noise.hardware_mix, [0.7, 0.85]);
        let kernel = cut(dice.kernel, noise.kernel_mix, [0.7, 0.93]);
        let own = if noise.unique { rng } else { seed::stream(common.seed, &["facts"]) };
        let mut facts = Self {
            values: Vec::new(),
            pids: Vec::new(),
            name: life.name.clone(),
            boot: life.boot,
            days: (today - life.boot) / 86_400,
            today,
            kernel,
            hardware,
            canary: noise.canary && dice.canary < 0.05,
            green,
            wave: cut(dice.wave, noise.patch_lag, [0.3, 0.7]),
            fresh: life.fresh,
            old_agent,
            noise,
        };
        let place = if noise.unique { number } else { 0 };
        facts.values = facts.values(common, (place, number), own);
        if noise.volatile {
            facts.pids = host_pids(common.pids, &mut seed::stream(common.seed, &["pids", &life.name]));
        }
        facts
    }

    fn values(
        &self,
        common: &Common<'_>,
        (place, number): (usize, usize),
        mut rng: ChaCha8Rng,
    ) -> Vec<String> {
        let [third, fourth] = address(common.seed, place);
        let hex = |rng: &mut ChaCha8Rng, digits| seed::hex(rng, digits);
        let uuid = uuid_of(&mut rng, "ec2");
        let partuuid = uuid_of(&mut rng, "");
        let mac: [String; 4] = std::array::from_fn(|_| hex(&mut rng, 2));
        let ours = |rng: &mut ChaCha8Rng| format!("10.20.250.{}", rng.random_range(10..13));
        let image = format!("image:{}:{}", common.seed, self.kernel);
        let boot = if self.noise.volatile { self.boot } else { TODAY - 40 * 86_400 };
        let instance = if self.noise.unique { self.name.as_str() } else { "i-00000000000000000" };
        vec![
            format!("ip-10-20-{third}-{fourth}"),
            format!("10.20.{third}.{fourth}"),
            format!("06:{}:{}:{}:{}:{:02x}", mac[0], mac[1], mac[2], mac[3], fourth),
            format!("4{}:{}ff:fe{}:{}{:02x}", mac[0], mac[1], mac[2], mac[3], fourth),
            instance.to_owned(),
            hex(&mut rng, 32),
            uuid,
            partuuid,
            ["eu-west-1a", "eu-west-1b", "eu-west-1c"][number % 3].to_owned(),
            format!("ami-0{}", seed::hex_of(&image, 16)),
            common.kernels[self.kernel].clone(),
            if self.old_agent { "5.4.0" } else { "5.12.1" }.to_owned(),
            ((self.today - boot) / 86_400).to_string(),
            (self.today - boot).to_string(),
            (boot + rng.random_range(20..40)).to_string(),
            ours(&mut rng),
            "10.20.249.17".to_owned(),
            self.colour().to_owned(),
            format!("{}.{}", 3 + common.seed % 4, 40 + common.release + u64::from(self.green)),
            (8_000 + u64::from(self.green) * 10).to_string(),
        ]
    }

    /// Which half of the fleet its release belongs to.
    pub(super) fn colour(&self) -> &'static str {
        if self.green { "green" } else { "blue" }
    }

    /// The value of the fact of that position in [`NAMES`].
    pub(super) fn value(&self, position: usize) -> &str {
        self.values.get(position).map_or("", String::as_str)
    }

    /// The value of the fact of that name; empty when there is none.
    pub(super) fn named(&self, name: &str) -> &str {
        NAMES.iter().position(|known| *known == name).map_or("", |position| self.value(position))
    }

    /// A text with the facts that it refers to in their places.
    pub(super) fn resolve(&self, text: &str) -> String {
        if !text.contains('{') {
            return text.to_owned();
        }
        let mut resolved = text.to_owned();
        for (name, value) in NAMES.iter().zip(&self.values) {
            resolved = resolved.replace(&format!("{{{name}}}"), value);
        }
        resolved
    }

    /// The size that a module of that size in the base state has in this host's kernel build.
    pub(super) fn module_size(&self, base: i64) -> i64 {
        let pages = base / 4_096;
        let build = i64::try_from(self.kernel).unwrap_or_default();
        base + (pages % 3 * build).min(3) * 4_096
    }

    /// This host's process id for one of the base state; ids that the base state does not have follow its last one.
    pub(super) fn pid(&self, base: i64) -> i64 {
        if base < 3 {
            return base;
        }
        if let Ok(position) = self.pids.binary_search_by_key(&base, |(known, _)| *known) {
            return self.pids[position].1;
        }
        if base < FIRST_EXTRA_PID {
            return base;
        }
        let last = self.pids.last().map_or(100_000, |(_, own)| *own);
        let step = 7 + self.boot.rem_euclid(13);
        last + (self.days + 1) * 61 + (base - FIRST_EXTRA_PID).rem_euclid(4_000) * step
    }
}

impl Dice {
    fn throw(rng: &mut ChaCha8Rng) -> Self {
        Self {
            canary: rng.random(),
            green: rng.random(),
            kernel: rng.random(),
            hardware: rng.random(),
            wave: rng.random(),
        }
    }
}

/// 0, 1 or 2: which of three shares a throw falls into; always the first when switched off.
fn cut(throw: f64, on: bool, ends: [f64; 2]) -> usize {
    if on { ends.iter().filter(|end| throw >= **end).count() } else { 0 }
}

fn uuid_of(rng: &mut ChaCha8Rng, prefix: &str) -> String {
    let mut hex = |digits| seed::hex(rng, digits);
    format!("{prefix}{}-{}-4{}-a{}-{}", hex(8 - prefix.len()), hex(4), hex(3), hex(3), hex(12))
}

/// The last two bytes of a private address, different for every host of a fleet.
fn address(seed: u64, index: usize) -> [usize; 2] {
    // An odd factor runs through all 62,000 addresses of 248 subnets before it repeats one.
    let place = (index * 40_503 + usize::try_from(seed % 9_973).unwrap_or_default()) % 62_000;
    [place / 250, place % 250 + 4]
}

fn host_pids(base: &[i64], rng: &mut ChaCha8Rng) -> Vec<(i64, i64)> {
    let mut offset = 0;
    base.iter()
        .map(|pid| {
            if *pid > 60 {
                offset += rng.random_range(0..7);
            }
            (*pid, pid + offset)
        })
        .collect()
}
