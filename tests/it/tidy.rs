//! What holds for the source tree, as data: rooms and arrows, landlords, sizes, lists, links.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;

use crate::env::root;

/// The rooms from the ground up, each with those that it may use: only rooms above it in this list.
const ROOMS: [(&str, &[&str]); 16] = [
    ("error", &[]),
    ("model", &["error"]),
    ("catalog", &["error", "model"]),
    ("config", &["error"]),
    // Renders what it is given, and cannot query.
    ("report", &["error", "model"]),
    ("identity", &["error", "model", "catalog"]),
    ("decode", &["error", "model", "catalog"]),
    ("aws", &["error", "model"]),
    ("store", &["error", "model", "aws"]),
    ("target", &["error", "model", "aws"]),
    ("engine", &["error", "model", "catalog", "store"]),
    ("collect", &["error", "model", "catalog", "aws"]),
    ("ingest", &["error", "model", "catalog", "identity", "decode", "store", "engine", "collect"]),
    ("analyze", &["error", "model", "catalog", "identity", "store", "engine"]),
    // Knows nothing of how compromised hosts are found, and what finds them knows nothing of it.
    ("simulate", &["error", "model", "catalog", "collect"]),
    (
        "cli",
        &[
            "error", "model", "catalog", "config", "aws", "report", "decode", "store", "target", "engine",
            "collect", "ingest", "analyze", "simulate",
        ],
    ),
];

/// Who may use what: a path as it stands in `use`, and the files and folders of `src/` where it may. Tests at the
/// bottom of files are free.
const LANDLORDS: &[(&str, &[&str])] = &[
    // The command line and the terminal.
    ("clap", &["cli/"]),
    ("clap_complete", &["cli/mod.rs"]),
    ("clap_mangen", &["cli/man.rs"]),
    ("indicatif", &["cli/"]),
    ("rustyline", &["cli/prompt.rs"]),
    ("terminal_size", &["cli/output.rs"]),
    // Commands that the user names are taken apart; commands for the user are put together.
    ("shell_words", &["cli/collect/gather.rs", "report/in_store.rs", "target/command.rs"]),
    ("tracing_subscriber", &["cli/mod.rs"]),
    ("mimalloc", &["main.rs"]),
    ("comfy_table", &["report/grid.rs"]),
    ("unicode_width", &["report/escape.rs"]),
    // The environment, the file system, other programs. `main.rs` hands the arguments on.
    // An executor works in the temporary directory where none is named, and makes its folders itself.
    ("std::env", &["cli/cluster.rs", "config.rs", "main.rs"]),
    (
        "std::fs",
        &[
            "cli/",
            "collect/native/",
            "collect/ssh/push.rs",
            "config.rs",
            "catalog/",
            "decode/",
            "engine/cluster/nodes.rs",
            "store/",
            "target/hosts.rs",
        ],
    ),
    // The native collector leaves its own process out.
    (
        "std::process",
        &[
            "cli/mod.rs",
            "main.rs",
            "collect/program.rs",
            "collect/native/processes.rs",
            "collect/ssh/session.rs",
        ],
    ),
    ("tokio::process", &["collect/program.rs", "collect/ssh/session.rs"]),
    // `cli/collect/` asks for the name of this machine, `main.rs` sets the size of pages.
    (
        "rustix",
        &["collect/", "config.rs", "cli/collect/mod.rs", "decode/input.rs", "decode/prefetch.rs", "main.rs"],
    ),
    ("procfs", &["collect/native/"]),
    ("if_addrs", &["collect/native/network.rs"]),
    ("md5", &["collect/native/files.rs"]),
    ("sha1", &["collect/native/files.rs"]),
    (
        "sha2",
        &[
            "collect/native/files.rs",
            "collect/remote/manifest.rs",
            "collect/ssh/push.rs",
            "report/html/mod.rs",
        ],
    ),
    ("askama", &["report/html/"]),
    ("base64", &["collect/remote/", "report/html/mod.rs"]),
    // The store of the demo, a file to be renamed, the home of osqueryi, sort runs, what executors made.
    (
        "tempfile",
        &[
            "cli/demo.rs",
            "cli/import/inputs.rs",
            "cli/output.rs",
            "cli/suppress.rs",
            "collect/osquery.rs",
            "engine/cluster/nodes.rs",
            "engine/sort.rs",
            "store/imports.rs",
            "store/mod.rs",
        ],
    ),
    // Where bytes lie. The engine registers what the store opened.
    ("object_store", &["store/", "engine/", "aws/credentials.rs"]),
    ("parquet", &["store/", "report/batches.rs"]),
    ("percent_encoding", &["store/paths.rs", "report/sarif/results.rs"]),
    ("url", &["engine/cluster/sole.rs", "store/place.rs", "store/s3.rs"]),
    // Amazon's services. `store/place.rs` hands out a client for what the store does not do.
    ("aws_config", &["aws/"]),
    ("aws_credential_types", &["aws/"]),
    ("aws_smithy_runtime_api", &["aws/"]),
    ("aws_smithy_types", &["aws/"]),
    ("aws_types", &["aws/"]),
    ("aws_sdk_s3", &["aws/", "store/place.rs", "collect/ssm/place.rs"]),
    ("aws_sdk_ssm", &["aws/nodes.rs", "target/managed.rs", "collect/ssm/"]),
    ("aws_sdk_autoscaling", &["target/asg.rs"]),
    ("flate2", &["decode/input.rs", "collect/remote/payload.rs"]),
    ("zstd", &["decode/input.rs", "decode/import.rs", "store/spool.rs"]),
    ("bytes", &["store/", "engine/near.rs", "engine/cluster/sole.rs", "report/batches.rs"]),
    // Queries and frames. `ingest/table.rs` names the type of the stream that it hands to the engine's sort, and
    // `analyze/fleet.rs` the type of parameters.
    ("datafusion", &["engine/", "analyze/fleet.rs", "ingest/table.rs"]),
    ("polars", &["analyze/score.rs"]),
    ("roaring", &["analyze/", "engine/functions.rs", "engine/identities.rs", "ingest/prevalence.rs"]),
    // Batches: whoever makes, reads or shows rows. `cli/query.rs` makes the table of baselines,
    // `cli/plugins/` that of plugins.
    (
        "datafusion::arrow",
        &[
            "catalog/table.rs",
            "decode/build.rs",
            "decode/rows.rs",
            "identity/",
            "store/",
            "engine/",
            "ingest/",
            "analyze/",
            "report/",
            "cli/query.rs",
            "cli/plugins/mod.rs",
        ],
    ),
    // What hosts say is parsed in `decode/`, and nowhere else; the others read and write what is ours.
    // Lines of plugins are no rows: their rows go on to `decode/` unread.
    (
        "serde_json::from_",
        &[
            "decode/",
            "store/",
            "analyze/known.rs",
            "collect/plugin/",
            "engine/cluster/",
            "ingest/batches.rs",
            "target/listed.rs",
        ],
    ),
    // The keys of the first row of a chunk that `decode` has made valid.
    ("serde_json::Deserializer", &["decode/", "ingest/receive.rs"]),
    ("csv", &["report/batches.rs", "simulate/bundled.rs"]),
    // Schemas of what is written, beside the types that are.
    (
        "schemars",
        &["config.rs", "config/", "model/", "report/analysis.rs", "report/schemas.rs", "store/manifest.rs"],
    ),
    ("serde_sarif", &["report/sarif/"]),
    ("toml", &["catalog/", "config.rs", "analyze/suppress/file.rs"]),
    // Patterns over what hosts say: regex is linear in time, and each place bounds its input.
    (
        "regex",
        &[
            "catalog/priors.rs",
            "identity/normalise.rs",
            "collect/native/shell.rs",
            "collect/osquery.rs",
            "collect/remote/script.rs",
            "analyze/priors.rs",
            "analyze/suppress/pattern.rs",
            "analyze/views.rs",
        ],
    ),
    ("strsim", &["catalog/mod.rs", "analyze/explain.rs", "report/pick.rs", "target/asg.rs"]),
    ("memchr", &["decode/", "identity/own_names.rs", "collect/native/", "collect/ssh/push.rs"]),
    ("ulid", &["model/mod.rs"]),
    ("rand", &["simulate/", "collect/remote/answers.rs", "collect/ssh/mod.rs", "collect/ssm/"]),
    ("rand_chacha", &["simulate/"]),
    ("chrono::Utc::now", &[]),
    // Nothing reaches the network but through collectors, stores and nodes of a cluster.
    ("std::net::TcpStream", &[]),
    ("std::net::UdpSocket", &[]),
    ("tokio::net", &["engine/cluster/"]),
    // More than one machine.
    ("ballista_core", &["engine/cluster/"]),
    ("ballista_executor", &["engine/cluster/"]),
    ("ballista_scheduler", &["engine/cluster/"]),
    ("datafusion_proto", &["engine/cluster/"]),
];

/// Crates of the manifest that every room may use.
const COMMON: [&str; 7] = ["async_trait", "blake3", "chrono", "futures", "serde", "serde_json", "tracing"];

/// Rooms that may start tasks and wait; `aws` has credentials that many wait for, `collect` and `simulate` send answers, `store` writes while others wait.
const ASYNC: [&str; 8] =
    ["analyze/lines.rs", "aws/", "cli/", "collect/", "engine/", "ingest/", "simulate/", "store/"];

/// Lines of code of a file: the middle one, the ninth of ten, any. Without blank lines, comments and tests.
const FILE_LINES: (usize, usize, usize) = (150, 450, 700);
/// Lines of a function, braces included, that few are longer than, and how few.
const FUNCTION_LINES: (usize, f64) = (60, 0.05);
/// Parameters of a function beside `self`.
const PARAMETERS: usize = 4;

/// A Rust file.
struct Source {
    /// Below `src/`.
    name: String,
    /// All of it.
    text: String,
    /// Without the tests at its bottom and without comments; lines stay where they are.
    code: String,
}

impl Source {
    fn room(&self) -> &str {
        self.name.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }
}

static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
    let tests = Regex::new(r"(?m)^#\[cfg\(test\)\]\n(#\[.*\]\n)*(pub(\([^)]*\))? )?mod \w+").unwrap();
    let src = root().join("src");
    let mut sources = Vec::new();
    for path in files(&src).into_iter().filter(|path| has_extension(path, "rs")) {
        let text = fs::read_to_string(&path).unwrap();
        let end = tests.find(&text).map_or(text.len(), |found| found.start());
        let name = path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
        let is_test = name.ends_with("/tests.rs") || name.ends_with("/testing.rs");
        let code = if is_test { String::new() } else { without_comments(&text[..end]) };
        sources.push(Source { name, text, code });
    }
    sources
});

fn without_comments(text: &str) -> String {
    let line = |line: &str| match line.trim_start().starts_with("//") {
        true => String::new(),
        false => line.split(" // ").next().unwrap_or_default().to_owned(),
    };
    text.lines().map(|text| line(text) + "\n").collect()
}

/// Every file below a folder, sorted.
pub(super) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())).flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found.sort();
    found
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// Files that the project consists of, without what builds leave behind.
fn project_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root()).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if ["target", ".git", "diffy-store", ".venv"].contains(&name.as_str()) {
            continue;
        }
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(root().join(path.as_ref()))
        .unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// Fails with all of them, one a line.
#[track_caller]
fn nothing_in(problems: Vec<String>) {
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

fn lines_with<'a>(text: &'a str, pattern: &'a Regex) -> impl Iterator<Item = (usize, &'a str)> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| pattern.is_match(line))
        .map(|(at, line)| (at + 1, line.trim()))
}

#[test]
fn rooms_use_only_rooms_below_them() {
    let mut problems = Vec::new();
    for (at, (room, uses)) in ROOMS.iter().enumerate() {
        let below: Vec<&str> = ROOMS[..at].iter().map(|(name, _)| *name).collect();
        problems
            .extend(uses.iter().filter(|used| !below.contains(used)).map(|used| format!("{room} -> {used}")));
    }
    let arrow = Regex::new(r"\bcrate::(\w+)").unwrap();
    for source in SOURCES.iter().filter(|source| !["lib", "main"].contains(&source.room())) {
        let Some((room, uses)) = ROOMS.iter().find(|(room, _)| *room == source.room()) else {
            problems.push(format!("{} is in no room", source.name));
            continue;
        };
        let used = arrow.captures_iter(&source.code).map(|found| found.get(1).unwrap().as_str());
        let wrong = used.filter(|used| used != room && !uses.contains(used));
        problems.extend(wrong.map(|used| format!("{} uses {used}", source.name)));
    }
    nothing_in(problems);
}

#[test]
fn every_room_has_its_place_in_the_map() {
    let declared = Regex::new(r"(?m)^pub mod (\w+);").unwrap();
    let lib = read("src/lib.rs");
    let declared: BTreeSet<&str> =
        declared.captures_iter(&lib).map(|found| found.get(1).unwrap().as_str()).collect();
    assert_eq!(declared, ROOMS.iter().map(|(room, _)| *room).collect());
}

fn is_home(file: &str, homes: &[&str]) -> bool {
    homes.iter().any(|home| file == *home || (home.ends_with('/') && file.starts_with(home)))
}

#[test]
fn dependencies_are_used_where_they_live() {
    let mut problems = Vec::new();
    for (path, homes) in LANDLORDS.iter().chain(&[("tokio", &ASYNC[..])]) {
        let pattern = match *path {
            // Arrow is everyone's way to say rows, and has a line of its own.
            "datafusion" => r"(^|[^\w:])datafusion::(\{|[b-z]|a[a-qs-z])".to_owned(),
            path if path.ends_with('_') => format!(r"(^|[^\w:]){path}"),
            path if path.contains(':') => format!(r"(^|[^\w:]){path}\b"),
            path => format!(r"(^|[^\w:]){path}::|^use {path};"),
        };
        let pattern = Regex::new(&pattern).unwrap();
        for source in SOURCES.iter().filter(|source| !is_home(&source.name, homes)) {
            let found = lines_with(&source.code, &pattern);
            problems.extend(found.map(|(line, text)| format!("src/{}:{line}: {path}: {text}", source.name)));
        }
        let is_used = SOURCES.iter().any(|source| pattern.is_match(&source.code));
        if !is_used && !homes.is_empty() {
            problems.push(format!("{path} has a landlord and is used nowhere"));
        }
        for home in homes.iter().filter(|home| !SOURCES.iter().any(|source| is_home(&source.name, &[home]))) {
            problems.push(format!("{path} lives in {home}, which is not there"));
        }
    }
    nothing_in(problems);
}

#[test]
fn every_dependency_has_a_landlord_and_is_used() {
    let manifest: toml::Table = toml::from_str(&read("Cargo.toml")).unwrap();
    let linux = &manifest["target"]["cfg(target_os = \"linux\")"]["dependencies"];
    let tables = [&manifest["dependencies"], linux];
    let names = tables.iter().flat_map(|table| table.as_table().unwrap().keys());
    let mut problems = Vec::new();
    for name in names {
        let name = if name == "md-5" { "md5".to_owned() } else { name.replace('-', "_") };
        let has_landlord = LANDLORDS.iter().any(|(path, _)| path.split(':').next() == Some(name.as_str()));
        if !has_landlord && !COMMON.contains(&name.as_str()) && name != "tokio" {
            problems.push(format!("`{name}` of Cargo.toml has no landlord"));
        }
        let pattern = Regex::new(&format!(r"\b{name}(::|!|;)")).unwrap();
        if !SOURCES.iter().any(|source| pattern.is_match(&source.code)) {
            problems.push(format!("`{name}` of Cargo.toml is used nowhere"));
        }
    }
    nothing_in(problems);
}

#[test]
fn files_stay_short() {
    let code_lines = |source: &Source| source.code.lines().filter(|line| !line.trim().is_empty()).count();
    let mut sizes: Vec<(usize, &str)> = SOURCES
        .iter()
        .map(|source| (code_lines(source), source.name.as_str()))
        .filter(|(lines, _)| *lines > 0)
        .collect();
    sizes.sort_unstable();
    let (median, p90, most) = FILE_LINES;
    let at = |share: f64| sizes[(sizes.len() as f64 * share) as usize];
    assert!(at(0.5).0 <= median, "the middle file has {:?} lines of code", at(0.5));
    assert!(at(0.9).0 <= p90, "nine of ten files have up to {:?} lines of code", at(0.9));
    nothing_in(sizes.iter().filter(|(lines, _)| *lines > most).map(|size| format!("{size:?}")).collect());
}

/// A function, as rustfmt lays it out.
struct Function {
    place: String,
    lines: usize,
    parameters: usize,
}

fn functions() -> Vec<Function> {
    let head = Regex::new(r"^( *)(pub(\([^)]*\))? )?((const|async|default) )*fn \w+").unwrap();
    let mut found = Vec::new();
    for source in SOURCES.iter() {
        let lines: Vec<&str> = source.code.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let Some(captures) = head.captures(line) else { continue };
            let indent = &captures[1];
            let end = lines[at..].iter().position(|line| {
                (line.starts_with(indent) && line[indent.len()..].starts_with('}'))
                    || line.ends_with(';') && !line[indent.len()..].starts_with(' ')
            });
            // One line, or until the brace that stands below its beginning.
            let length = if line.ends_with('}') { 1 } else { end.map_or(1, |end| end + 1) };
            let text = lines[at..at + length].join("\n");
            found.push(Function {
                place: format!("src/{}:{} {}", source.name, at + 1, line.trim()),
                lines: length,
                parameters: parameters(&text[captures[0].len()..]),
            });
        }
    }
    found
}

/// Parameters but `self` of what follows a function's name.
fn parameters(text: &str) -> usize {
    let mut depth = 0_i32;
    let mut inside = String::new();
    let mut before = ' ';
    // Generic parameters come first: their brackets are skipped up to the first parenthesis at the top.
    let start = {
        let (mut angle, mut last) = (0_i32, ' ');
        let open = text.char_indices().find(|(_, character)| {
            angle += i32::from(*character == '<') - i32::from(*character == '>' && last != '-');
            last = *character;
            *character == '(' && angle == 0
        });
        open.map_or(0, |(at, _)| at)
    };
    for character in text[start..].chars() {
        match character {
            '(' | '[' | '{' | '<' => depth += 1,
            '>' if before == '-' => {}
            ')' | ']' | '}' | '>' => depth -= 1,
            _ => {}
        }
        before = character;
        match (depth, character) {
            (0, _) => break,
            (1, ',') => inside.push('\n'),
            (1, '(') => {}
            _ => inside.push(character),
        }
    }
    let is_self = Regex::new(r"^(&('\w+ )?)?(mut )?self\b").unwrap();
    inside.lines().map(str::trim).filter(|part| !part.is_empty() && !is_self.is_match(part)).count()
}

#[test]
fn parameters_are_counted() {
    for (text, expected) in [
        ("()", 0),
        ("(&self)", 0),
        ("(&mut self, a: u8)", 1),
        ("(a: (u8, u8), b: &[u8])", 2),
        ("<F: Fn(u8, u8) -> u8>(f: F, m: HashMap<u8, Vec<u8>>) -> Vec<u8> {", 2),
        ("(\n    &self,\n    a: &mut dyn FnMut(u8) -> u8,\n    b: u8,\n)", 2),
    ] {
        assert_eq!(parameters(text), expected, "{text}");
    }
}

#[test]
fn functions_stay_short_and_take_few_parameters() {
    let functions = functions();
    assert!(functions.len() > 900, "only {} functions found", functions.len());
    let (lines, share) = FUNCTION_LINES;
    let long: Vec<_> = functions.iter().filter(|function| function.lines > lines).collect();
    let found = long.len() as f64 / functions.len() as f64;
    let named: Vec<String> =
        long.iter().map(|function| format!("{} {}", function.lines, function.place)).collect();
    assert!(
        found <= share,
        "{:.1} % of the functions are longer than {lines} lines:\n{}",
        found * 100.0,
        named.join("\n")
    );
    let many = functions.iter().filter(|function| function.parameters > PARAMETERS);
    nothing_in(
        many.map(|function| format!("{} parameters: {}", function.parameters, function.place)).collect(),
    );
}

#[test]
fn schemas_and_queries_are_in_their_lists() {
    let all: String = SOURCES.iter().map(|source| source.code.as_str()).collect();
    let listed = Regex::new(r#"include_str!\("(?:\.\./)+((?:schemas|sql)/[^"]+)"\)"#).unwrap();
    let listed: BTreeSet<String> = listed.captures_iter(&all).map(|found| found[1].to_owned()).collect();
    let files = ["schemas", "sql"].iter().flat_map(|dir| files(&root().join(dir)));
    let files = files.filter(|path| has_extension(path, "toml") || has_extension(path, "sql"));
    let there: BTreeSet<String> =
        files.map(|path| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(listed, there);
}

#[test]
fn links_of_the_documents_lead_somewhere() {
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let mut problems = Vec::new();
    for path in project_files().into_iter().filter(|path| has_extension(path, "md")) {
        let text = fs::read_to_string(&path).unwrap();
        for target in link.captures_iter(&text).map(|found| found[1].to_owned()) {
            let file = target.split('#').next().unwrap_or_default();
            let is_elsewhere = target.contains("://") || target.starts_with("mailto:") || file.is_empty();
            if !is_elsewhere && !path.parent().unwrap().join(file).exists() {
                problems.push(format!("{}: {target}", path.display()));
            }
        }
    }
    nothing_in(problems);
}

#[test]
fn nothing_speaks_of_what_only_its_authors_have() {
    let words = [concat!("/work/", "shared"), concat!("../", "shared")];
    let mut problems = Vec::new();
    for path in project_files() {
        let text = fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&text);
        let found = words.iter().filter(|word| text.contains(**word));
        problems.extend(found.map(|word| format!("{}: {word}", path.display())));
    }
    nothing_in(problems);
}

#[test]
fn no_test_is_forgotten_or_ignored() {
    let dir = root().join("tests/it");
    let mut problems = Vec::new();
    for path in files(&dir).into_iter().filter(|path| has_extension(path, "rs")) {
        let text = fs::read_to_string(&path).unwrap();
        if text.contains(concat!("#[", "ignore")) {
            problems.push(format!("{} ignores a test", path.display()));
        }
        let (stem, parent) = (path.file_stem().unwrap().to_str().unwrap(), path.parent().unwrap());
        let (name, list) = match stem {
            "main" => continue,
            "mod" => {
                (parent.file_name().unwrap().to_str().unwrap(), parent.parent().unwrap().join("main.rs"))
            }
            stem if parent == dir => (stem, dir.join("main.rs")),
            stem => (stem, parent.join("mod.rs")),
        };
        if !fs::read_to_string(&list).unwrap().contains(&format!("mod {name};")) {
            problems.push(format!("{} is not in {}", path.display(), list.display()));
        }
    }
    let ignored = SOURCES.iter().filter(|source| source.text.contains(concat!("#[", "ignore")));
    problems.extend(ignored.map(|source| format!("{} ignores a test", source.name)));
    nothing_in(problems);
}

#[test]
fn lints_are_not_switched_off_in_silence() {
    let manifest: toml::Table = toml::from_str(&read("Cargo.toml")).unwrap();
    assert_eq!(manifest["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"));
    let bare = Regex::new(r"#!?\[allow\(|#!?\[expect\([^\]]*\)\]").unwrap();
    let mut problems = Vec::new();
    for source in SOURCES.iter() {
        let found = bare.find_iter(&source.code).map(|found| found.as_str());
        let silent = found.filter(|text| !text.contains("reason ="));
        problems.extend(silent.map(|text| format!("src/{}: {text}", source.name)));
    }
    nothing_in(problems);
}

#[test]
fn every_file_says_what_it_is() {
    let silent = SOURCES.iter().filter(|source| !source.text.starts_with("//!"));
    nothing_in(silent.map(|source| format!("src/{} has no header", source.name)).collect());
}
