//! A row, parsed once and written many times: runs of fixed JSON text with the places between them that differ by host.

use std::collections::BTreeMap;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::facts::{Facts, NAMES};
use super::seed;

/// One row: column to value; a value may hold `{name}` places.
pub(super) type Cells = BTreeMap<String, String>;

/// Rows by table.
pub(super) type Tables = BTreeMap<String, Vec<Cells>>;

/// Columns to values.
pub(super) fn cells<const N: usize>(pairs: [(&str, &str); N]) -> Cells {
    pairs.into_iter().map(|(column, value)| (column.to_owned(), value.to_owned())).collect()
}

/// A row ready to be written.
#[derive(Debug)]
pub(super) struct Row {
    /// The row as the base state has it.
    pub(super) cells: Cells,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone)]
enum Piece {
    /// JSON text as it is.
    Text(String),
    /// A number that differs by host or moment, made from the base value.
    Noise(Noise, i64),
    /// Position in [`NAMES`].
    Fact(usize),
    /// One of the pools of addresses and random texts.
    Pool(Pool),
    /// A text that is the host's own for as long as it lives: what it is, and how long.
    Own(String, usize),
}

#[derive(Debug, Clone, Copy)]
enum Noise {
    Pid,
    Start,
    Pages,
    Counter,
    Inode,
    Descriptor,
    KernelAddress,
    ModuleSize,
    Free,
    Recent,
}

#[derive(Debug, Clone, Copy)]
enum Pool {
    Number(i64, i64),
    Hex(usize),
    Alnum(usize),
    Key,
    EphemeralPort,
    Client,
    Database,
    Logs,
    FleetManager,
    Ssm,
    Bastion,
    Mirror,
    App,
}

impl Row {
    /// Parses a row of `table`.
    pub(super) fn new(table: &str, cells: Cells) -> Self {
        let pieces = compile(table, &cells, false);
        Self { cells, pieces }
    }

    /// Writes the row as a JSON object.
    pub(super) fn write(&self, pen: &mut Pen<'_>) {
        pen.object(&self.pieces);
    }
}

/// Writes the rows of one table on one host.
#[derive(Debug)]
pub(super) struct Pen<'a> {
    facts: &'a Facts,
    rng: ChaCha8Rng,
    out: Vec<u8>,
    rows: usize,
}

/// Tables of which the same host says something else every day; in all others chance is the host's, not the day's.
const DAILY: [&str; 6] =
    ["processes", "process_open_sockets", "mounts", "file", "shell_history", "listening_ports"];

impl<'a> Pen<'a> {
    /// An empty answer of a host to the question for a table, in a fleet of that seed so many days ago.
    pub(super) fn new(facts: &'a Facts, (seed, day): (u64, u32), table: &str) -> Self {
        let day = if DAILY.contains(&table) && day > 0 { day.to_string() } else { String::new() };
        let rng = seed::stream(seed, &["rows", &facts.name, table, &day]);
        Self { facts, rng, out: b"[\n".to_vec(), rows: 0 }
    }

    /// Rows written so far.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Writes a row that is not parsed yet.
    pub(super) fn cells(&mut self, table: &str, cells: &Cells) {
        let pieces = compile(table, cells, self.facts.old_agent);
        self.object(&pieces);
    }

    /// The answer, as `osqueryi --json` prints it.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.out.extend_from_slice(b"\n]\n");
        self.out
    }

    fn object(&mut self, pieces: &[Piece]) {
        if !self.facts.noise.volatile {
            // What is drawn for a row is then the same on every host.
            self.rng = still(pieces);
        }
        self.out.extend_from_slice(if self.rows == 0 { b"  {" } else { b",\n  {" });
        for piece in pieces {
            self.piece(piece);
        }
        self.out.push(b'}');
        self.rows += 1;
    }

    fn piece(&mut self, piece: &Piece) {
        match piece {
            Piece::Text(text) => self.out.extend_from_slice(text.as_bytes()),
            Piece::Fact(position) => self.out.extend_from_slice(self.facts.value(*position).as_bytes()),
            Piece::Own(what, length) => {
                let host = if self.facts.noise.unique { self.facts.name.as_str() } else { "" };
                let text = seed::hex_of(&format!("{what} of {host}"), *length);
                self.out.extend_from_slice(text.as_bytes());
            }
            Piece::Pool(Pool::Key) if !self.facts.noise.unique => {
                let key = seed::ssh_key(&mut seed::stream(0, &["key"]));
                self.out.extend_from_slice(key.as_bytes());
            }
            Piece::Noise(Noise::KernelAddress, _) => {
                let page = self.rng.random_range(0x1_0000_u32..0xf_ffff);
                self.say(format_args!("0xffffffffc{page:05x}00"));
            }
            Piece::Noise(noise, base) => {
                let number = self.number(*noise, *base);
                self.say(format_args!("{number}"));
            }
            Piece::Pool(pool) => {
                let text = pool.draw(&mut self.rng);
                self.out.extend_from_slice(text.as_bytes());
            }
        }
    }

    fn say(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a Vec cannot fail.
        let _ = std::io::Write::write_fmt(&mut self.out, text);
    }

    fn number(&mut self, noise: Noise, base: i64) -> i64 {
        let rng = &mut self.rng;
        match noise {
            Noise::Pid => self.facts.pid(base),
            Noise::ModuleSize => self.facts.module_size(base),
            _ if !self.facts.noise.volatile => base,
            // Daemons start with the host; what the base state does not have started later.
            Noise::Start if base < 100_000 => self.facts.boot + base / 50 + base % 3,
            Noise::Start | Noise::Recent => self.facts.today - rng.random_range(60..86_400),
            Noise::Pages => scaled(base, rng.random_range(850..1_200)) & !4_095,
            Noise::Counter => scaled(base, rng.random_range(500..1_500)) * (self.facts.days + 1),
            Noise::Inode => rng.random_range(10_500..65_000),
            Noise::Descriptor => base + rng.random_range(0..4),
            Noise::Free => scaled(base, rng.random_range(350..700)),
            Noise::KernelAddress => base,
        }
    }
}

/// Chance that depends on nothing but the row.
fn still(pieces: &[Piece]) -> ChaCha8Rng {
    let texts = pieces.iter().filter_map(|piece| match piece {
        Piece::Text(text) => Some(text.as_str()),
        _ => None,
    });
    seed::stream(0, &texts.collect::<Vec<_>>())
}

fn scaled(base: i64, permille: i64) -> i64 {
    base / 1_000 * permille + base % 1_000
}

impl Pool {
    fn parse(name: &str) -> Option<Self> {
        let (word, argument) = name.split_once(':').unwrap_or((name, ""));
        Some(match word {
            "n" => {
                let (low, high) = argument.split_once('-')?;
                let (low, high): (i64, i64) = (low.parse().ok()?, high.parse().ok()?);
                Self::Number(low, high.max(low))
            }
            "hex" => Self::Hex(argument.parse().ok().filter(|digits| *digits <= 64)?),
            "alnum" => Self::Alnum(argument.parse().ok().filter(|length| *length <= 64)?),
            "key" => Self::Key,
            "eport" => Self::EphemeralPort,
            "client" => Self::Client,
            "db" => Self::Database,
            "logs" => Self::Logs,
            "fleet" => Self::FleetManager,
            "ssm" => Self::Ssm,
            "bastion" => Self::Bastion,
            "mirror" => Self::Mirror,
            "app" => Self::App,
            _ => return None,
        })
    }

    fn draw(self, rng: &mut ChaCha8Rng) -> String {
        let mut of = |prefix: &str, low: u32, high: u32| format!("{prefix}{}", rng.random_range(low..=high));
        match self {
            Self::Number(low, high) => rng.random_range(low..=high).to_string(),
            Self::Hex(digits) => seed::hex(rng, digits),
            Self::Alnum(length) => seed::alnum(rng, length),
            Self::Key => seed::ssh_key(rng),
            Self::EphemeralPort => of("", 32_768, 60_999),
            Self::Client => seed::public_address(rng),
            Self::Database => of("10.20.248.", 20, 22),
            Self::Logs => of("10.20.249.", 40, 43),
            Self::FleetManager => of("10.20.249.", 50, 51),
            Self::Ssm => of("52.94.1.", 60, 75),
            Self::Bastion => of("10.20.249.", 5, 6),
            Self::Mirror => of("151.101.2.", 130, 133),
            Self::App => of("10.20.240.", 10, 90),
        }
    }
}

/// Which columns differ by host or by moment, whatever the row.
fn noise(table: &str, column: &str) -> Option<Noise> {
    Some(match (table, column) {
        ("processes", "pid" | "parent" | "pgroup") => Noise::Pid,
        ("listening_ports" | "process_open_sockets" | "process_envs" | "osquery_info", "pid") => Noise::Pid,
        ("osquery_info", "watcher") => Noise::Pid,
        ("processes", "start_time") => Noise::Start,
        ("processes", "resident_size" | "total_size") => Noise::Pages,
        ("processes", "user_time" | "system_time" | "disk_bytes_read" | "disk_bytes_written") => {
            Noise::Counter
        }
        ("listening_ports" | "process_open_sockets", "socket") | ("file", "inode") => Noise::Inode,
        ("listening_ports" | "process_open_sockets", "fd") => Noise::Descriptor,
        ("kernel_modules", "address") => Noise::KernelAddress,
        ("kernel_modules", "size") => Noise::ModuleSize,
        ("mounts", "blocks_free" | "blocks_available" | "inodes_free") => Noise::Free,
        ("file", "atime") | ("shell_history", "time") => Noise::Recent,
        _ => return None,
    })
}

/// Columns that came late: agents of the version before do not have them.
fn is_late(table: &str, column: &str) -> bool {
    matches!(
        (table, column),
        ("processes", "cgroup_path")
            | ("authorized_keys", "comment" | "options")
            | ("systemd_units", "unit_file_state")
    )
}

fn compile(table: &str, cells: &Cells, old_agent: bool) -> Vec<Piece> {
    let mut parts = Parts::default();
    let columns = cells.iter().filter(|(column, _)| !old_agent || !is_late(table, column));
    for (position, (column, value)) in columns.enumerate() {
        parts.raw(if position == 0 { "\"" } else { ",\"" });
        parts.escaped(column);
        parts.raw("\":\"");
        match (noise(table, column), value.parse()) {
            (Some(noise), Ok(base)) => parts.place(Piece::Noise(noise, base)),
            _ => template(value, &mut parts),
        }
        parts.raw("\"");
    }
    parts.finish()
}

/// Splits a value at its `{name}` places; braces that name nothing known stay as they are.
fn template(value: &str, parts: &mut Parts) {
    let mut rest = value;
    while let Some(open) = rest.find('{') {
        let place = rest[open..].find('}').and_then(|close| {
            let name = &rest[open + 1..open + close];
            let fact = NAMES.iter().position(|known| *known == name).map(Piece::Fact);
            fact.or_else(|| own(name))
                .or_else(|| Pool::parse(name).map(Piece::Pool))
                .map(|piece| (piece, open + close + 1))
        });
        let Some((piece, next)) = place else {
            parts.escaped(&rest[..=open]);
            rest = &rest[open + 1..];
            continue;
        };
        parts.escaped(&rest[..open]);
        parts.place(piece);
        rest = &rest[next..];
    }
    parts.escaped(rest);
}

/// `own:LENGTH:WHAT`, or `=TEXT` for a text that noise leaves alone.
fn own(name: &str) -> Option<Piece> {
    if let Some(literal) = name.strip_prefix('=') {
        return Some(Piece::Text(literal.to_owned()));
    }
    let (length, what) = name.strip_prefix("own:")?.split_once(':')?;
    Some(Piece::Own(what.to_owned(), length.parse().ok().filter(|length| *length <= 128)?))
}

/// A value that noise leaves alone.
pub(super) fn literal(value: i64) -> String {
    format!("{{={value}}}")
}

#[derive(Debug, Default)]
struct Parts {
    pieces: Vec<Piece>,
    text: String,
}

impl Parts {
    fn raw(&mut self, text: &str) {
        self.text.push_str(text);
    }

    fn escaped(&mut self, text: &str) {
        // A string always serialises; the quotes around it are ours already.
        let quoted = serde_json::to_string(text).unwrap_or_default();
        self.text.push_str(quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default());
    }

    fn place(&mut self, piece: Piece) {
        if !self.text.is_empty() {
            self.pieces.push(Piece::Text(std::mem::take(&mut self.text)));
        }
        self.pieces.push(piece);
    }

    fn finish(mut self) -> Vec<Piece> {
        if !self.text.is_empty() {
            self.pieces.push(Piece::Text(self.text));
        }
        self.pieces
    }
}
