//! Collections that die: whatever the moment, the store opens, earlier snapshots are as they were, and what had been
//! received becomes a snapshot.
//!
//! No test sleeps: a collection is killed when the files it writes have grown to a size chosen by a seeded generator,
//! so that moments fall into receiving as well as into writing the snapshot.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;

use diffy::ingest::Receiver;
use diffy::model::SnapshotId;
use diffy::store::{IMPORT, SpoolBegin, SpoolReader, SpoolWriter};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::env::{Output, TestEnv, interrupt, output, snapshot_id, write_fleet};

/// Rows by host and table.
type Counts = BTreeMap<(String, String), u64>;

#[test]
fn an_import_killed_at_any_moment_is_recovered() {
    let killed = Killed::new(|env| {
        write_fleet(&env.path("fleet"), 12, 7);
        vec!["import".to_owned(), "fleet".to_owned(), "--fleet".to_owned(), "web".to_owned()]
    });
    killed.at_moments(10, 1);
}

#[test]
fn a_collection_killed_at_any_moment_is_recovered() {
    let killed = Killed::new(|_| {
        let args = ["demo", "--bundled", "--hosts", "12", "--compromised", "1", "--seed", "3", "--store"];
        args.iter().map(ToString::to_string).chain(["diffy-store".to_owned()]).collect()
    });
    killed.at_moments(10, 2);
}

#[test]
fn an_interrupted_collection_says_how_to_go_on() {
    let env = TestEnv::new();
    let mut child = demo(&env, "60");
    while spool_bytes(&env) < 50_000 && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    recover_as_told(&env, interrupt(child));
}

#[test]
fn writing_the_snapshot_can_be_interrupted() {
    let env = TestEnv::new();
    let mut child = demo(&env, "60");
    while data_files(&env).next().is_none() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    recover_as_told(&env, interrupt(child));
}

fn demo(env: &TestEnv, hosts: &str) -> Child {
    let args = ["demo", "--bundled", "--hosts", hosts, "--store", "diffy-store"];
    env.diffy(&args).spawn().unwrap()
}

/// Runs the command that an interrupted collection names.
fn recover_as_told(env: &TestEnv, interrupted: Output) {
    assert_eq!(interrupted.status, 1, "{}", interrupted.stderr);
    let told = interrupted.stderr.split('`').find(|part| part.starts_with("diffy snapshot recover"));
    let told = told.unwrap_or_else(|| panic!("names no command: {}", interrupted.stderr));
    let [spool] = spools(env).try_into().unwrap();
    let (rows, _) = received(&spool);
    let recovered = env.sh(&told.replacen("diffy", "$DIFFY", 1));
    assert_eq!(recovered.status, 0, "{}", recovered.stderr);
    assert_eq!(counts(env, &snapshot_id(&recovered.stdout)), rows);
    env.ok(&["snapshot", "verify"]);
    assert!(spools(env).is_empty());
    assert!(env.ok(&["snapshot", "recover", "--list"]).is_empty());
}

/// Imports, and gives the store back as it is when the import is killed between the manifest and the end.
fn killed_after_the_manifest(env: &TestEnv) -> String {
    write_fleet(&env.path("fleet"), 12, 7);
    let mut child = spawn(env, &["import", "fleet", "--fleet", "web"].map(ToOwned::to_owned));
    let kept = env.path("kept");
    let mut spool = None;
    while child.try_wait().unwrap().is_none() {
        if let Some(found) =
            spools(env).pop().filter(|found| spool.is_none() && fs::hard_link(found, &kept).is_ok())
        {
            spool = Some(found);
        }
        std::thread::yield_now();
    }
    assert!(child.wait().unwrap().success());
    let spool = spool.expect("a spool");
    fs::rename(kept, &spool).unwrap();
    let id = spool.file_stem().unwrap().to_str().unwrap().to_owned();
    fs::create_dir(spool.with_extension("sort-x")).unwrap();
    fs::write(env.store().join(format!("snapshots/fleet=web/{id}.json#1")), "{").unwrap();
    id
}

#[test]
fn a_collection_that_died_after_its_manifest_is_complete() {
    for command in [["snapshot", "recover"].as_slice(), &["snapshot", "prune", "--orphans"]] {
        let env = TestEnv::new();
        let id = killed_after_the_manifest(&env);
        let before = env.query_one("SELECT count(*) AS n FROM processes");
        let ended = env.run(command);
        assert_eq!(ended.status, 0, "{}", ended.stderr);
        assert!(ended.stderr.contains(&id), "{}", ended.stderr);
        env.ok(&["snapshot", "verify", &id]);
        assert_eq!(env.query_one("SELECT count(*) AS n FROM processes"), before);
        let left: Vec<PathBuf> = files(&env.store().join("spool")).into_iter().chain(staged(&env)).collect();
        assert!(left.is_empty(), "{command:?}: {left:?}");
        assert!(!env.store().join(format!("spool/{id}.sort-x")).exists());
    }
}

fn staged(env: &TestEnv) -> impl Iterator<Item = PathBuf> {
    files(&env.store()).into_iter().filter(|path| path.to_str().unwrap().contains('#'))
}

#[test]
fn a_damaged_manifest_does_not_cost_the_spool() {
    let env = TestEnv::new();
    let id = killed_after_the_manifest(&env);
    let manifest = env.store().join(format!("snapshots/fleet=web/{id}.json"));
    fs::write(&manifest, "").unwrap();
    let told = env.fails(&["snapshot", "recover"], 1);
    assert!(told.contains(&format!("snapshots/fleet=web/{id}.json")), "{told}");
    env.fails(&["snapshot", "prune", "--orphans"], 1);
    assert_eq!(spools(&env).len(), 1);
    fs::remove_file(manifest).unwrap();
    env.ok(&["snapshot", "recover"]);
    env.ok(&["snapshot", "verify", &id]);
}

#[test]
fn two_collections_at_once_into_one_new_store() {
    let env = TestEnv::new();
    write_fleet(&env.path("fleet"), 4, 7);
    let both = ["a", "b"].map(|fleet| {
        let mut command = env.diffy(&["import", "fleet", "--fleet", "web", "--incident", fleet]);
        command.spawn().unwrap()
    });
    let [a, b] = both.map(|child| output(child.wait_with_output().unwrap()));
    assert_eq!((a.status, b.status), (0, 0), "{}\n{}", a.stderr, b.stderr);
    assert_eq!(env.ok(&["snapshot", "list"]).lines().count(), 2);
    env.ok(&["snapshot", "verify"]);
    let counted = env.query("SELECT snapshot, count(*) AS n FROM processes GROUP BY snapshot");
    assert_eq!(counted[0]["n"], counted[1]["n"]);
}

#[test]
fn a_running_collection_is_no_orphan() {
    let env = TestEnv::new();
    env.import_tables(&[("a", "etc_hosts", serde_json::json!([{"address": "::1"}]))]);
    let mut child = demo(&env, "24");
    let mut seen = false;
    while child.try_wait().unwrap().is_none() {
        let pruned = env.run(&["snapshot", "prune", "--orphans"]);
        assert_eq!(pruned.status, 0, "{}", pruned.stderr);
        assert!(!pruned.stderr.contains("deleted"), "{}", pruned.stderr);
        seen |= pruned.stderr.contains("still being collected");
        let recovered = env.run(&["snapshot", "recover"]);
        assert_eq!(recovered.status, 0, "{}", recovered.stderr);
    }
    assert!(seen, "no prune met the collection");
    let ended = output(child.wait_with_output().unwrap());
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    env.ok(&["snapshot", "verify"]);
    assert_eq!(env.ok(&["snapshot", "list"]).lines().count(), 2);
}

/// A store with one snapshot, and a command that makes further ones of the same hosts.
struct Killed {
    env: TestEnv,
    args: Vec<String>,
    /// What the command makes when it is left alone.
    whole: Counts,
    /// Bytes of the spool, and of the data, when it is left alone.
    bytes: (u64, u64),
    first: String,
}

impl Killed {
    fn new(prepare: impl Fn(&TestEnv) -> Vec<String>) -> Self {
        let env = TestEnv::new();
        let args = prepare(&env);
        let first = env.import_tables(&[("a", "etc_hosts", serde_json::json!([{"address": "::1"}]))]);
        let mut child = spawn(&env, &args);
        let mut spool = 0;
        while child.try_wait().unwrap().is_none() {
            spool = spool.max(spool_bytes(&env));
            std::thread::yield_now();
        }
        assert!(child.wait().unwrap().success());
        let second = newest(&env);
        let whole = counts(&env, &second);
        let data = data_bytes(&env, &second);
        env.ok(&["snapshot", "delete", &second]);
        assert!(spool > 0 && data > 0 && !whole.is_empty());
        Self { env, args, whole, bytes: (spool, data), first }
    }

    fn at_moments(&self, moments: usize, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut died = 0;
        for moment in 0..moments {
            // Half of them while receiving, half while writing.
            let size = if moment % 2 == 0 {
                random.random_range(0..self.bytes.0)
            } else {
                self.bytes.0 + random.random_range(0..self.bytes.1)
            };
            died += usize::from(self.kill_at(size));
        }
        assert!(died * 2 > moments, "only {died} of {moments} were killed before they were done");
    }

    /// Whether it was killed before its end.
    fn kill_at(&self, size: u64) -> bool {
        let mut child = spawn(&self.env, &self.args);
        let mut spool = 0;
        while child.try_wait().unwrap().is_none() {
            spool = spool.max(spool_bytes(&self.env));
            if spool + new_data_bytes(&self.env, &self.first) >= size {
                break;
            }
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        self.earlier_snapshots_are_untouched();
        let interrupted = spools(&self.env);
        match interrupted.as_slice() {
            [] => self.remove_all_but_the_first(),
            [spool] => self.recover(spool),
            more => panic!("{more:?}"),
        }
        self.nothing_is_left_over();
        !interrupted.is_empty()
    }

    /// Whether all files are right says the verification of all snapshots that follows.
    fn earlier_snapshots_are_untouched(&self) {
        let sql = format!("SELECT count(*) AS n FROM etc_hosts WHERE snapshot = '{}'", self.first);
        assert_eq!(self.env.query_one(&sql), 1);
    }

    fn recover(&self, spool: &Path) {
        let id = spool.file_stem().unwrap().to_str().unwrap();
        let (received, answers) = received(spool);
        let was_complete = self.env.ok(&["snapshot", "list"]).contains(id);
        let listed = self.env.ok(&["snapshot", "recover", "--list"]);
        if !was_complete {
            assert!(
                listed.contains(id) && listed.contains(&format!("{} answers", answers.len())),
                "{listed}"
            );
            let sql = format!("SELECT count(*) AS n FROM coverage WHERE snapshot = '{id}'");
            assert_eq!(self.env.query_one(&sql), 0, "unfinished snapshots are invisible");
        }
        self.env.ok(&["snapshot", "recover"]);
        let verified = self.env.ok(&["snapshot", "verify"]);
        assert!(verified.contains(&self.first) && verified.contains(id), "{verified}");
        let recovered = counts(&self.env, id);
        assert_eq!(recovered, received, "every row that was received, and no other");
        for (place, rows) in answers {
            assert_eq!(self.whole.get(&place).copied().unwrap_or_default(), rows, "{place:?} was complete");
        }
        self.env.ok(&["snapshot", "delete", id]);
    }

    fn remove_all_but_the_first(&self) {
        let verified = self.env.ok(&["snapshot", "verify"]);
        assert!(verified.contains(&self.first), "{verified}");
        let id = newest(&self.env);
        if id != self.first {
            assert_eq!(counts(&self.env, &id), self.whole);
            self.env.ok(&["snapshot", "delete", &id]);
        }
    }

    /// Only the files of the first snapshot, and nothing that was being written.
    fn nothing_is_left_over(&self) {
        let others: Vec<PathBuf> = files(&self.env.store())
            .into_iter()
            .filter(|path| {
                !path.to_str().unwrap().contains(&self.first) && !path.ends_with("diffy-store.json")
            })
            .collect();
        assert!(others.is_empty(), "{others:?}");
    }
}

fn spawn(env: &TestEnv, args: &[String]) -> Child {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut command = env.diffy(&args);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    command.spawn().unwrap()
}

fn newest(env: &TestEnv) -> String {
    let list = env.ok(&["snapshot", "list"]);
    list.lines().last().unwrap().split_whitespace().next().unwrap().to_owned()
}

/// Rows by host and table of a snapshot.
fn counts(env: &TestEnv, snapshot: &str) -> Counts {
    let sql = format!(
        "SELECT host, table_name, c.rows, s.rows AS of_all FROM coverage c JOIN snapshots s USING (snapshot) \
         WHERE c.snapshot = '{snapshot}' AND c.rows > 0"
    );
    let counted = env.query(&sql);
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let number = |value: &serde_json::Value| value.as_u64().unwrap();
    let counts: Counts = counted
        .iter()
        .map(|row| ((text(&row["host"]), text(&row["table_name"])), number(&row["rows"])))
        .collect();
    let of_all = counted.first().map_or(0, |row| number(&row["of_all"]));
    assert_eq!(of_all, counts.values().sum::<u64>(), "coverage counts what parts hold");
    counts
}

/// What a spool holds: rows by host and table, and the rows of those answers that are complete.
fn received(spool: &Path) -> (Counts, Counts) {
    let reader = SpoolReader::open(spool).unwrap().unwrap();
    let index = reader.index();
    let mut rows = Counts::new();
    for table in index.tables() {
        for number in 0..index.payloads(table) {
            let (header, _) = reader.rows(table, number).unwrap();
            *rows.entry((header.host, header.table)).or_default() += header.rows;
        }
    }
    let answers = index
        .answers
        .iter()
        .map(|answer| answer.coverage())
        .map(|answer| ((answer.host, answer.table), answer.rows));
    (rows, answers.collect())
}

/// All files below a directory, staged ones included; directories that hold nothing as well.
/// Every file below a folder that may not be there.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let below = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flatten().flat_map(|entry| below(entry.path())).collect()
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.len())
}

fn spools(env: &TestEnv) -> Vec<PathBuf> {
    let is_spool = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "spool");
    files(&env.store().join("spool")).into_iter().filter(is_spool).collect()
}

fn spool_bytes(env: &TestEnv) -> u64 {
    spools(env).iter().map(|path| size(path)).sum()
}

fn data_files(env: &TestEnv) -> impl Iterator<Item = PathBuf> {
    let store = env.store();
    ["rows", "prevalence", "coverage", "hosts"].into_iter().flat_map(move |folder| files(&store.join(folder)))
}

fn data_bytes(env: &TestEnv, snapshot: &str) -> u64 {
    data_files(env).filter(|path| path.to_str().unwrap().contains(snapshot)).map(|path| size(&path)).sum()
}

fn new_data_bytes(env: &TestEnv, first: &str) -> u64 {
    data_files(env).filter(|path| !path.to_str().unwrap().contains(first)).map(|path| size(&path)).sum()
}

/// What the files beyond had, nobody knows; the snapshot must not look as if it were all.
#[test]
fn an_import_that_broke_off_is_not_taken_for_a_whole_one() {
    let env = TestEnv::new();
    env.import_tables(&[("a", "users", json!([{"username": "root"}]))]);
    let snapshot = SnapshotId::new(diffy::model::now());
    let begin = SpoolBegin {
        snapshot,
        fleet: "web".parse().unwrap(),
        incident: None,
        started: diffy::model::now(),
        collected_by: "tests".to_owned(),
        collector: IMPORT.to_owned(),
        targets: Vec::new(),
        queries: BTreeMap::new(),
    };
    let path = env.store().join(format!("spool/{snapshot}.spool"));
    assert_eq!(spools(&env), Vec::<PathBuf>::new());
    let catalog = diffy::catalog::Catalog::builtin().unwrap();
    let mut receiver = Receiver::new(&catalog, SpoolWriter::create(path.clone(), &begin).unwrap());
    receiver.host("web-1").unwrap();
    drop(receiver);
    assert_eq!(spools(&env), [path]);
    env.ok(&["snapshot", "recover"]);
    let warnings = |id: &str| env.json(&["snapshot", "show", "--json", id])["warnings"].to_string();
    assert!(warnings(&snapshot.to_string()).contains("the import broke off"));
    env.import_tables(&[("a", "users", json!([{"username": "root"}]))]);
    assert!(!warnings("latest").contains("broke off"));
}
