//! What one host has beside, instead of or less than the base state: a list of edits, honest and planted alike.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::base::Base;
use super::facts::{FIRST_EXTRA_PID, Facts};
use super::patches;
use super::row::{Cells, Pen, Row, cells};
use super::shape::{self, File, Process, Unit};
use super::truth::{Trace, TraceKind};

/// One difference to the base state.
#[derive(Debug, Clone)]
pub(super) enum Edit {
    /// A row more.
    Add { table: &'static str, row: Cells },
    /// Rows with these values are gone.
    Remove { table: &'static str, matching: Cells },
    /// Rows with these values have other values.
    Change { table: &'static str, matching: Cells, set: Cells },
}

impl Edit {
    fn table(&self) -> &'static str {
        match self {
            Self::Add { table, .. } | Self::Remove { table, .. } | Self::Change { table, .. } => table,
        }
    }
}

/// Whether the row has all of these values.
pub(super) fn has(row: &Cells, matching: &Cells) -> bool {
    matching.iter().all(|(column, value)| row.get(column) == Some(value))
}

/// Writes a base table with the edits that concern it.
pub(super) fn write((table, rows): (&str, &[Row]), edits: &[Edit], pen: &mut Pen<'_>, whole: bool) {
    let edits: Vec<&Edit> = edits.iter().filter(|edit| edit.table() == table).collect();
    for row in rows {
        if whole && !edits.iter().any(|edit| concerns(edit, &row.cells)) {
            row.write(pen);
        } else if let Some(cells) = edited(&row.cells, &edits) {
            pen.cells(table, &cells);
        }
    }
    for edit in edits {
        if let Edit::Add { row, .. } = edit {
            pen.cells(table, row);
        }
    }
}

fn concerns(edit: &Edit, row: &Cells) -> bool {
    match edit {
        Edit::Add { .. } => false,
        Edit::Remove { matching, .. } | Edit::Change { matching, .. } => has(row, matching),
    }
}

fn edited(row: &Cells, edits: &[&Edit]) -> Option<Cells> {
    let mut row = row.clone();
    for edit in edits.iter().filter(|edit| !matches!(edit, Edit::Add { .. })) {
        match edit {
            Edit::Remove { matching, .. } if has(&row, matching) => return None,
            Edit::Change { matching, set, .. } if has(&row, matching) => row.extend(set.clone()),
            _ => {}
        }
    }
    Some(row)
}

/// Column and value.
type Pair<'a> = (&'a str, &'a str);

/// Collects the edits of one host.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    /// The base state, to find parents and versions in.
    pub(super) base: &'a Base,
    /// The host's own facts.
    pub(super) facts: &'a Facts,
    /// Chance, for this purpose on this host.
    pub(super) rng: ChaCha8Rng,
    edits: Vec<Edit>,
    traces: Vec<Trace>,
    odd: Vec<(&'static str, Trace)>,
    next_pid: i64,
}

/// A process to be added: who and what; see [`Plan::process`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Program<'a> {
    pub(super) name: &'a str,
    pub(super) path: &'a str,
    pub(super) cmdline: &'a str,
    pub(super) uid: &'a str,
    /// Base process id of the parent.
    pub(super) parent: &'a str,
    /// See [`Process::unit`].
    pub(super) unit: &'a str,
    pub(super) on_disk: bool,
}

impl<'a> Program<'a> {
    /// A program of root that the init process started.
    pub(super) fn new(name: &'a str, path: &'a str, cmdline: &'a str) -> Self {
        Self { name, path, cmdline, uid: "0", parent: "1", unit: "", on_disk: true }
    }
}

impl<'a> Plan<'a> {
    /// An empty plan; plans of one host that start at different `lane`s hand out different process ids.
    pub(super) fn new(base: &'a Base, facts: &'a Facts, rng: ChaCha8Rng, lane: i64) -> Self {
        let next_pid = FIRST_EXTRA_PID + lane * 20;
        Self { base, facts, rng, edits: Vec::new(), traces: Vec::new(), odd: Vec::new(), next_pid }
    }

    /// The edits, what was planted, and what is honestly odd.
    pub(super) fn finish_odd(self) -> (Vec<Edit>, Vec<Trace>, Vec<(&'static str, Trace)>) {
        (self.edits, self.traces, self.odd)
    }

    /// The edits and the traces of what was planted.
    pub(super) fn finish(self) -> (Vec<Edit>, Vec<Trace>) {
        (self.edits, self.traces)
    }

    /// Adds a row.
    pub(super) fn add(&mut self, table: &'static str, row: Cells) {
        self.edits.push(Edit::Add { table, row });
    }

    /// Changes rows.
    pub(super) fn change<const N: usize, const M: usize>(
        &mut self,
        table: &'static str,
        matching: [(&str, &str); N],
        set: [(&str, &str); M],
    ) {
        self.edits.push(Edit::Change { table, matching: cells(matching), set: cells(set) });
    }

    /// Other content in a file of the base state, honestly.
    pub(super) fn content(&mut self, path: &str, content: &str) {
        self.edits.extend(patches::content(path, content));
    }

    /// Takes rows away, honestly.
    pub(super) fn remove<const N: usize>(&mut self, table: &'static str, matching: [(&str, &str); N]) {
        self.edits.push(Edit::Remove { table, matching: cells(matching) });
    }

    /// Adds a row that is a trace of a compromise, recognised by these columns.
    pub(super) fn plant(&mut self, table: &'static str, row: Cells, columns: &[&str]) {
        self.trace(TraceKind::Present, table, &row, columns);
        self.add(table, row);
    }

    /// Changes rows; what they are afterwards is a trace.
    pub(super) fn plant_change<const N: usize, const M: usize>(
        &mut self,
        table: &'static str,
        matching: [(&str, &str); N],
        set: [(&str, &str); M],
    ) {
        let row: Cells = cells(matching).into_iter().chain(cells(set)).collect();
        let columns: Vec<&str> = row.keys().map(String::as_str).collect();
        self.trace(TraceKind::Present, table, &row, &columns);
        self.change(table, matching, set);
    }

    /// Takes rows away; that they are missing is a trace.
    pub(super) fn plant_missing<const N: usize>(&mut self, table: &'static str, matching: [(&str, &str); N]) {
        let matching = cells(matching);
        let columns: Vec<&str> = matching.keys().map(String::as_str).collect();
        self.trace(TraceKind::Missing, table, &matching, &columns);
        self.edits.push(Edit::Remove { table, matching });
    }

    /// Changes rows with the values of `matching`; of these, `known` and what is set tell the trace.
    pub(super) fn plant_other(
        &mut self,
        table: &'static str,
        (matching, known): (&[Pair<'_>], &[Pair<'_>]),
        set: &[Pair<'_>],
    ) {
        let made = |pairs: &[Pair<'_>]| -> Cells {
            pairs.iter().map(|(column, value)| ((*column).to_owned(), (*value).to_owned())).collect()
        };
        let row: Cells = made(known).into_iter().chain(made(set)).collect();
        let columns: Vec<&str> = row.keys().map(String::as_str).collect();
        self.trace(TraceKind::Present, table, &row, &columns);
        self.edits.push(Edit::Change { table, matching: made(matching), set: made(set) });
    }

    /// Takes away all that a process that is gone had: its environment, its ports, its connections.
    pub(super) fn withdraw_all_of(&mut self, path: &str, name: &str) {
        self.withdraw_envs_of(name);
        for table in ["listening_ports", "process_open_sockets"] {
            self.edits.push(Edit::Remove { table, matching: cells([("process_path", path)]) });
        }
    }

    /// The processes of the role's services and of the system's: what runs from a unit on every host.
    pub(super) fn services(&self) -> Vec<Cells> {
        let rows = self.base.rows("processes").unwrap_or_default().iter().map(|row| &row.cells);
        let of_unit = |row: &&Cells| row["cgroup_path"].ends_with(".service") && !row["path"].is_empty();
        rows.filter(of_unit).cloned().collect()
    }

    /// Other content in a file of which hosts say the hash; its times are put back.
    pub(super) fn plant_hash(&mut self, path: &str, content: &str) {
        if self.base.find("hash", "path", path).is_none() {
            return;
        }
        let hash = shape::hash(&File::new(path, "", content));
        let set = [("md5", hash["md5"].as_str()), ("sha1", &hash["sha1"]), ("sha256", &hash["sha256"])];
        self.plant_change("hash", [("path", path)], set);
        if self.base.find("file", "path", path).is_some() {
            let ctime = (self.facts.today - self.rng.random_range(600..400_000)).to_string();
            self.plant_change("file", [("path", path)], [("ctime", &ctime)]);
        }
    }

    /// Takes away the environment of a process that is gone: it follows from the process, so it is no trace of its own.
    pub(super) fn withdraw_envs_of(&mut self, name: &str) {
        self.edits.push(Edit::Remove { table: "process_envs", matching: cells([("name", name)]) });
    }

    fn trace(&mut self, kind: TraceKind, table: &'static str, row: &Cells, columns: &[&str]) {
        let trace = self.traced(kind, table, row, columns);
        self.traces.push(trace);
    }

    fn traced(&self, kind: TraceKind, table: &'static str, row: &Cells, columns: &[&str]) -> Trace {
        let known = columns.iter().filter_map(|column| row.get_key_value(*column));
        let values = known.map(|(column, value)| (column.clone(), self.as_collected(value)));
        Trace { table, kind, values: values.collect() }
    }

    /// A value as the host will say it.
    fn as_collected(&self, value: &str) -> String {
        let literal = value.strip_prefix("{=").and_then(|rest| rest.strip_suffix('}'));
        literal.map_or_else(|| self.facts.resolve(value), ToOwned::to_owned)
    }

    /// Adds a row that is a host's own for an honest reason of that kind, recognised by these columns.
    pub(super) fn odd(&mut self, kind: &'static str, (table, row): (&'static str, Cells), columns: &[&str]) {
        let trace = self.traced(TraceKind::Present, table, &row, columns);
        self.odd.push((kind, trace));
        self.add(table, row);
    }

    /// Changes rows for an honest reason of that kind.
    pub(super) fn odd_change<const N: usize, const M: usize>(
        &mut self,
        (kind, table): (&'static str, &'static str),
        matching: [(&str, &str); N],
        set: [(&str, &str); M],
    ) {
        let matched = cells(matching);
        let mut rows = self.base.rows(table).unwrap_or_default().iter();
        if !rows.any(|row| has(&row.cells, &matched)) {
            return;
        }
        let row: Cells = matched.into_iter().chain(cells(set)).collect();
        let columns: Vec<&str> = row.keys().map(String::as_str).collect();
        let trace = self.traced(TraceKind::Present, table, &row, &columns);
        self.odd.push((kind, trace));
        self.change(table, matching, set);
    }

    /// The base process id of the first process of that name; that of init when there is none.
    pub(super) fn pid_of(&self, name: &str) -> String {
        let process = self.base.find("processes", "name", name);
        process.and_then(|row| row.get("pid")).cloned().unwrap_or_else(|| "1".to_owned())
    }

    /// A process with a process id of its own; not added yet, so that rows that it owns can be made from it.
    pub(super) fn process(&mut self, program: &Program<'_>) -> Cells {
        let pid = self.next_pid.to_string();
        self.next_pid += 1;
        let parent =
            self.base.find("processes", "pid", program.parent).or_else(|| self.added(program.parent));
        let parent = parent.cloned();
        let group = self.control_group(program, parent.as_ref());
        let row = shape::process(&Process {
            pid: &pid,
            parent: program.parent,
            uid: program.uid,
            gid: program.uid,
            name: program.name,
            path: program.path,
            cmdline: program.cmdline,
            unit: &group,
            on_disk: program.on_disk,
        });
        shape::with_parent(row, parent.as_ref())
    }

    /// Children are in their parent's group; what init adopted stays in the group that it was started from.
    fn control_group(&mut self, program: &Program<'_>, parent: Option<&Cells>) -> String {
        if !program.unit.is_empty() {
            return program.unit.to_owned();
        }
        if program.parent != "1" {
            return parent.and_then(|row| row.get("cgroup_path")).cloned().unwrap_or_default();
        }
        match self.rng.random_range(0..4) {
            0 => "cron.service".to_owned(),
            1 => "ssh.service".to_owned(),
            2 => {
                let services = self.services();
                let place = self.rng.random_range(0..services.len().max(1));
                services.get(place).and_then(|row| row.get("cgroup_path")).cloned().unwrap_or_default()
            }
            _ => format!("/user.slice/user-1000.slice/session-{}.scope", self.rng.random_range(3..4_000)),
        }
    }

    fn added(&self, pid: &str) -> Option<&Cells> {
        self.edits.iter().find_map(|edit| match edit {
            Edit::Add { table: "processes", row } if row["pid"] == pid => Some(row),
            _ => None,
        })
    }

    /// A file, as far as hosts are asked for it: its row, its hash, or only the directory that was made for it.
    pub(super) fn plant_file(&mut self, file: &File<'_>) {
        if shape::is_hashed(file.path) {
            self.plant("hash", shape::hash(file), &["path", "sha256"]);
        }
        let directory = shape::split(file.path).0;
        if shape::is_listed(file.path) {
            self.plant("file", shape::file(file), &["path", "mode"]);
        } else if shape::is_listed(directory) && self.base.find("file", "directory", directory).is_none() {
            let mut row = shape::file(&File { path: directory, mode: "0755", ..*file });
            row.insert("type".to_owned(), "directory".to_owned());
            row.insert("size".to_owned(), "4096".to_owned());
            self.plant("file", row, &["path", "type"]);
        }
    }

    /// Other content in a file of the base state.
    pub(super) fn plant_content(&mut self, path: &str, content: &str) {
        if self.base.find("hash", "path", path).is_none() || self.base.find("file", "path", path).is_none() {
            return;
        }
        let changed = File::new(path, "", content);
        let (file, hash) = (shape::file(&changed), shape::hash(&changed));
        let ctime = (self.facts.today - self.rng.random_range(600..400_000)).to_string();
        // Many intruders set the time of what they replace; the time of the change they cannot set.
        let mtime = if self.rng.random_bool(0.5) { &ctime } else { &file["mtime"] };
        let set = [("size", file["size"].as_str()), ("mtime", mtime), ("ctime", &ctime)];
        self.plant_change("file", [("path", path)], set);
        self.plant_change(
            "hash",
            [("path", path)],
            [("md5", &hash["md5"]), ("sha1", &hash["sha1"]), ("sha256", &hash["sha256"])],
        );
    }

    /// A systemd unit, in both tables that show it.
    pub(super) fn plant_unit(&mut self, unit: &Unit<'_>) {
        self.plant("systemd_units", shape::unit(unit), &["id", "fragment_path"]);
        self.plant("startup_items", shape::startup(unit), &["name", "path"]);
    }
}
