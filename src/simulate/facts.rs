//! What is one host's own: names, addresses, ids, age, and the process ids it happens to have handed out.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::seed;

/// Names of the facts that values may refer to as `{name}`; [`Facts::values`] has them in this order.
pub(super) const NAMES: [&str; 17] = [
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
];

/// The day on which every simulated fleet is looked at, in seconds since 1970; a constant keeps the bytes the same.
pub(super) const TODAY: i64 = 1_750_000_000;

/// Process ids from here on are those of processes that the base state does not have.
pub(super) const FIRST_EXTRA_PID: i64 = 1_000_000;

/// One host's own facts.
#[derive(Debug)]
pub(super) struct Facts {
    /// Values of [`NAMES`].
    values: Vec<String>,
    /// Base process id and the host's own for it, sorted by the former.
    pids: Vec<(i64, i64)>,
    /// When the host was booted, in seconds since 1970.
    pub(super) boot: i64,
    /// Whole days since then.
    pub(super) days: i64,
    /// Whether it runs the newer of the two kernel builds.
    pub(super) second_kernel: bool,
    /// Whether it is one of those that get new packages first.
    pub(super) canary: bool,
    /// Whether its agent lacks the columns that came late.
    pub(super) old_agent: bool,
}

/// What all hosts of a fleet share and facts are made from.
#[derive(Debug)]
pub(super) struct Common<'a> {
    /// The seed of the simulation.
    pub(super) seed: u64,
    /// The two kernel builds, the older first.
    pub(super) kernels: &'a [String; 2],
    /// Process ids of the base state, sorted.
    pub(super) pids: &'a [i64],
}

impl Facts {
    /// The facts of the host of that number and name.
    pub(super) fn new(common: &Common<'_>, index: usize, name: &str, old_agent: bool) -> Self {
        let mut rng = seed::stream(common.seed, &["facts", name]);
        let canary = rng.random_bool(0.1);
        let second_kernel = rng.random_bool(0.15);
        let days = if rng.random_bool(0.2) { rng.random_range(0..3) } else { rng.random_range(3..90) };
        let uptime = days * 86_400 + rng.random_range(600..86_000);
        let boot = TODAY - uptime;
        let [third, fourth] = address(common.seed, index);
        let kernel = &common.kernels[usize::from(second_kernel)];
        let hex = |rng: &mut ChaCha8Rng, digits| seed::hex(rng, digits);
        let uuid = uuid_of(&mut rng, "ec2");
        let partuuid = uuid_of(&mut rng, "");
        let mac: [String; 4] = std::array::from_fn(|_| hex(&mut rng, 2));
        let ours = |rng: &mut ChaCha8Rng| format!("10.20.250.{}", rng.random_range(10..13));
        let values = vec![
            format!("ip-10-20-{third}-{fourth}"),
            format!("10.20.{third}.{fourth}"),
            format!("06:{}:{}:{}:{}:{:02x}", mac[0], mac[1], mac[2], mac[3], fourth),
            format!("4{}:{}ff:fe{}:{}{:02x}", mac[0], mac[1], mac[2], mac[3], fourth),
            name.to_owned(),
            hex(&mut rng, 32),
            uuid,
            partuuid,
            ["eu-west-1a", "eu-west-1b", "eu-west-1c"][index % 3].to_owned(),
            format!("ami-0{}", seed::hex_of(&format!("image:{}:{second_kernel}", common.seed), 16)),
            kernel.clone(),
            if old_agent { "5.4.0" } else { "5.12.1" }.to_owned(),
            days.to_string(),
            uptime.to_string(),
            (boot + rng.random_range(20..40)).to_string(),
            ours(&mut rng),
            "10.20.249.17".to_owned(),
        ];
        let pids = host_pids(common.pids, &mut rng);
        Self { values, pids, boot, days, second_kernel, canary, old_agent }
    }

    /// The value of the fact of that position in [`NAMES`].
    pub(super) fn value(&self, position: usize) -> &str {
        self.values.get(position).map_or("", String::as_str)
    }

    /// The value of the fact of that name; empty when there is none.
    pub(super) fn named(&self, name: &str) -> &str {
        NAMES.iter().position(|known| *known == name).map_or("", |position| self.value(position))
    }

    /// This host's process id for one of the base state; ids that the base state does not have follow its last one.
    pub(super) fn pid(&self, base: i64) -> i64 {
        if base < 3 {
            return base;
        }
        if let Ok(position) = self.pids.binary_search_by_key(&base, |(known, _)| *known) {
            return self.pids[position].1;
        }
        let last = self.pids.last().map_or(1_000, |(_, own)| *own);
        let step = 7 + self.boot.rem_euclid(13);
        last + (self.days + 1) * 61 + (base - FIRST_EXTRA_PID).rem_euclid(1_000) * step
    }
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
