//! Hosts to be asked over SSH: real `sshd` processes on loopback, each with answers, a name and manners of its own.
//!
//! Every `sshd` has its own configuration, host key and port, and runs as whoever runs the tests. A shell that waits for
//! its stdin to close starts and kills them, so that none outlives the test however it ends. What hosts do wrong is a
//! `ForceCommand` around the script that Diffy sends.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use diffy::catalog::Catalog;
use serde_json::Value;

use crate::env::{Output, TestEnv, finish, root};

/// What a test waits for another process at most.
pub(super) const DEADLINE: Duration = Duration::from_secs(120);

/// Answers like osqueryi from files beside it, and notes the home that it is given.
const OSQUERYI: &str = r#"#!/bin/sh
host=${0%/*}/..
for sql; do :; done
sql=${sql#"${sql%%[![:space:]]*}"}
echo "$HOME" >>"$host/homes"
case $sql in *'version FROM osquery_info') printf '[\n  {"version":"5.10.2"}\n]\n'; exit ;; esac
. "${0%/*}/../../../queries"
[ ! -e "$host/hang.$table" ] || { : >"$host/asked"; exec sleep 1000; }
[ -e "$host/answers/$table.json" ] || { echo "Error: no such table: $table" >&2; exit 1; }
exec cat "$host/answers/$table.json"
"#;

/// What a host is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manners {
    /// It has osquery, and answers.
    Good,
    /// As a good one, but has no osquery.
    NoOsquery,
    /// Nobody listens on its port.
    Refused,
    /// Its key is another one than the one that is known.
    OtherKey,
    /// Its key is not known.
    UnknownKey,
    /// It lets nobody in.
    NoLogin,
    /// Something accepts the connection and never speaks.
    Silent,
    /// Something accepts the connection and ends it at once, so many times; then it is a good one.
    Busy(u32),
    /// This shell command stands in place of what it is to run, which is `$SSH_ORIGINAL_COMMAND`.
    Forced(&'static str),
}

/// One host.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) manners: Manners,
    pub(super) port: u16,
    dir: PathBuf,
    /// Keeps the port of a host that never speaks.
    _listener: Option<TcpListener>,
}

impl Host {
    /// A file of the host.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The homes that runs of the script gave to osqueryi.
    fn homes(&self) -> Vec<PathBuf> {
        let homes = fs::read_to_string(self.path("homes")).unwrap_or_default();
        homes.lines().map(PathBuf::from).collect()
    }
}

/// Hosts, and a client configuration that knows them.
#[derive(Debug)]
pub(super) struct Farm {
    pub(super) env: TestEnv,
    pub(super) hosts: Vec<Host>,
    /// In the environment of everything that runs on these hosts.
    mark: String,
    /// The shell that kills all `sshd` when its stdin closes.
    keeper: Child,
}

impl Farm {
    /// Hosts with these names and manners, which answer for `users` with a user of their name.
    pub(super) fn new(hosts: &[(&str, Manners)]) -> Self {
        let hosts: Vec<_> = hosts.iter().map(|(name, manners)| ((*name).to_owned(), *manners)).collect();
        let env = TestEnv::new();
        for (name, _) in &hosts {
            let user = format!(r#"[{{"uid":"1000","username":"{name}","shell":"/bin/sh"}}]"#);
            env.write(&format!("answers/{name}/users.json"), user);
        }
        Self::start(env, hosts)
    }

    /// Hosts whose answers are `answers/HOST/TABLE.json` in `env`.
    pub(super) fn start(env: TestEnv, hosts: Vec<(String, Manners)>) -> Self {
        LazyLock::force(&SSHD);
        // `sh -s` and `ForceCommand` are found by their paths.
        env.write("osqueryi", OSQUERYI);
        fs::set_permissions(env.path("osqueryi"), fs::Permissions::from_mode(0o755)).unwrap();
        env.write("queries", queries());
        keys(&env, hosts.iter().map(|(name, _)| name.as_str()));
        let keeper = keeper(&env);
        let mark = format!("DIFFY_TEST_FARM={}", env.path("").display());
        let mut farm = Self { env, hosts: Vec::new(), mark, keeper };
        for (name, manners) in hosts {
            let host = farm.host(name, manners);
            farm.hosts.push(host);
        }
        farm.configure();
        farm
    }

    pub(super) fn find(&self, name: &str) -> &Host {
        self.hosts.iter().find(|host| host.name == name).unwrap()
    }

    fn host(&mut self, name: String, manners: Manners) -> Host {
        let dir = self.env.path(format!("hosts/{name}"));
        fs::create_dir_all(dir.join("bin")).unwrap();
        symlink(self.env.path(format!("answers/{name}")), dir.join("answers")).unwrap();
        if manners != Manners::NoOsquery {
            symlink(self.env.path("osqueryi"), dir.join("bin/osqueryi")).unwrap();
        }
        let listener = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, kept) = match manners {
            // Nobody gets it while this test holds on to a connection from it.
            Manners::Refused => (refused_port(), None),
            Manners::Silent => {
                let listener = listener();
                (listener.local_addr().unwrap().port(), Some(listener))
            }
            Manners::Busy(times) => (turn_away(times, self.sshd(&name, &dir, manners)), None),
            _ => (self.sshd(&name, &dir, manners), None),
        };
        Host { name, manners, port, dir, _listener: kept }
    }

    /// Starts an `sshd`, and returns its port once it listens there.
    fn sshd(&mut self, name: &str, dir: &Path, manners: Manners) -> u16 {
        for _ in 0..20 {
            // Somebody else may be faster to take it.
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let config = self.sshd_config(name, dir, (port, manners));
            fs::write(dir.join("sshd_config"), config).unwrap();
            let log = dir.join("sshd.log");
            let _ = fs::remove_file(&log);
            let order = format!("{}\n", dir.display());
            self.keeper.stdin.as_mut().unwrap().write_all(order.as_bytes()).unwrap();
            let patience = Instant::now() + DEADLINE;
            loop {
                let said = fs::read_to_string(&log).unwrap_or_default();
                if said.contains("Server listening on") {
                    return port;
                }
                if said.contains("Cannot bind any address") {
                    break;
                }
                assert!(Instant::now() < patience, "sshd of {name} does not listen: {said}");
                std::thread::yield_now();
            }
        }
        panic!("no sshd for {name}: {}", fs::read_to_string(dir.join("sshd.log")).unwrap());
    }

    fn sshd_config(&self, name: &str, dir: &Path, (port, manners): (u16, Manners)) -> String {
        let (dir, farm) = (dir.display(), self.env.path(""));
        let farm = farm.display();
        let keys =
            if manners == Manners::NoLogin { "none".to_owned() } else { format!("{farm}/authorized_keys") };
        let forced = match manners {
            Manners::Forced(command) => format!("ForceCommand {command}\n"),
            _ => String::new(),
        };
        format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {farm}/keys/{name}\nPidFile none\nAuthorizedKeysFile {keys}\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin prohibit-password\nLogLevel INFO\nPrintMotd no\nMaxStartups 100\nUseDNS no\n\
             SetEnv AWS_SSM_INSTANCE_ID={name} HOST_DIR={dir} {} PATH={dir}/bin:/usr/bin:/bin\n{forced}",
            self.mark
        )
    }

    /// The client's configuration and what it knows.
    fn configure(&self) {
        let mut known = String::new();
        for host in &self.hosts {
            let key = match host.manners {
                Manners::UnknownKey => continue,
                Manners::OtherKey => "id.pub".to_owned(),
                _ => format!("keys/{}.pub", host.name),
            };
            let key = fs::read_to_string(self.env.path(key)).unwrap();
            let key = key.split(' ').take(2).collect::<Vec<_>>().join(" ");
            known.push_str(&format!("[127.0.0.1]:{} {}\n", host.port, key.trim()));
        }
        self.env.write("known_hosts", known);
        let at = |name: &str| self.env.path(name).display().to_string();
        let config = format!(
            "IdentityFile {}\nIdentitiesOnly yes\nIdentityAgent none\nUserKnownHostsFile {}\nGlobalKnownHostsFile none\n",
            at("id"),
            at("known_hosts")
        );
        self.env.write("ssh_config", config);
        let lines = self.hosts.iter().map(|host| format!("{}=127.0.0.1:{}\n", host.name, host.port));
        self.env.write("hosts.txt", lines.collect::<String>());
    }

    /// `diffy collect` of all hosts, about to run.
    pub(super) fn collect(&self, more: &[&str]) -> Command {
        let hosts = ["collect", "--targets", "hosts:hosts.txt", "--collector", "ssh", "--fleet", "web"];
        self.env.diffy(&[&hosts[..], &["--ssh-config", "ssh_config"], more].concat())
    }

    /// Collects, whatever comes of it.
    pub(super) fn run(&self, more: &[&str]) -> Output {
        let output = finish(self.collect(more));
        assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
        output
    }

    /// Status and error of a table by host, in the newest snapshot.
    pub(super) fn coverage(&self, host: &str, table: &str) -> (String, String) {
        let lines = self.env.query(&format!(
            "SELECT status, error FROM current.coverage WHERE host = '{host}' AND table_name = '{table}'"
        ));
        let [line] = &lines[..] else { panic!("{host}, {table}: {lines:?}") };
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        (text("status"), text("error"))
    }

    #[track_caller]
    pub(super) fn expect(&self, host: &str, status: &str, error: &str) {
        let (found, why) = self.coverage(host, "users");
        assert!(found == status && why.contains(error), "{host}: {found}: {why}\nnot {status}: {error}");
    }

    /// The users that hosts answered with.
    pub(super) fn users(&self) -> Vec<(String, String)> {
        let rows = self.env.query("SELECT host, username FROM current.users ORDER BY 1, 2");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        rows.iter().map(|row| (text(&row["host"]), text(&row["username"]))).collect()
    }

    /// Waits until no process and no directory of these hosts' scripts is left.
    #[track_caller]
    pub(super) fn wait_until_clean(&self) {
        let homes: Vec<PathBuf> = self.hosts.iter().flat_map(Host::homes).collect();
        wait_until("something is left behind", || {
            let is_there = |home: &PathBuf| home.parent().is_some_and(Path::exists);
            !homes.iter().any(is_there) && self.processes(&homes).is_empty()
        });
    }

    /// What runs on these hosts.
    fn processes(&self, homes: &[PathBuf]) -> Vec<String> {
        let homes = homes.iter().map(|home| format!("HOME={}", home.display()));
        let signs: BTreeSet<String> = homes.chain([self.mark.clone()]).collect();
        let mut found = Vec::new();
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let environ = fs::read(process.path().join("environ")).unwrap_or_default();
            let environ = String::from_utf8_lossy(&environ).into_owned();
            if environ.split('\0').any(|variable| signs.contains(variable)) {
                let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
                found.push(String::from_utf8_lossy(&command).replace('\0', " "));
            }
        }
        found
    }
}

/// Waits until it is so.
#[track_caller]
pub(super) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let patience = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < patience, "{what}");
        std::thread::yield_now();
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// Gets OpenSSH's programs; privilege separation wants an empty directory.
static SSHD: LazyLock<()> = LazyLock::new(|| {
    #[expect(clippy::disallowed_methods, reason = "tests start programs")]
    let setup =
        Command::new(root().join("tests/setup-debian")).args(["sshd", "ssh", "ssh-keygen"]).output().unwrap();
    assert!(setup.status.success(), "{}", String::from_utf8_lossy(&setup.stderr));
    if rustix::process::geteuid().is_root() {
        fs::create_dir_all("/run/sshd").unwrap();
    }
});

/// `table` of the query in `$sql`, as shell.
fn queries() -> String {
    let mut text = String::from("table=unknown\ncase $sql in\n");
    for table in Catalog::builtin().unwrap().tables() {
        text.push_str(&format!("{}) table={} ;;\n", shell_words::quote(table.query.trim()), table.name));
    }
    text + "esac\n"
}

/// A key for each host, and one for the client.
fn keys<'a>(env: &TestEnv, hosts: impl Iterator<Item = &'a str>) {
    fs::create_dir_all(env.path("keys")).unwrap();
    let script = r#"for file; do ssh-keygen -q -t ed25519 -N '' -C '' -f "$file" || exit 1; done"#;
    let mut command = env.program("sh");
    command.args(["-c", script, "sh", "id"]).args(hosts.map(|host| format!("keys/{host}")));
    let made = finish(command);
    assert_eq!(made.status, 0, "{}", made.stderr);
    fs::copy(env.path("id.pub"), env.path("authorized_keys")).unwrap();
}

/// Starts an `sshd` for every line of its stdin, which is the directory of a host; kills them all at its end.
fn keeper(env: &TestEnv) -> Child {
    // A session ends by itself, when its client does.
    let script = r#"
        trap '' PIPE
        pids=
        while read -r dir; do
            /usr/sbin/sshd -D -e -f "$dir/sshd_config" </dev/null >/dev/null 2>"$dir/sshd.log" &
            pids="$pids $!"
        done
        [ -z "$pids" ] || kill -KILL $pids 2>/dev/null
        wait
    "#;
    let mut command = env.program("sh");
    command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// A port that refuses: its last connection is not forgotten yet, so nobody else gets it.
fn refused_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (server, _) = listener.accept().unwrap();
    drop(server);
    drop(client);
    port
}

/// Ends so many connections at once, and passes the others on to `to`.
fn turn_away(times: u32, to: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for (turn, stream) in (0_u32..).zip(listener.incoming()) {
            let Ok(stream) = stream else { return };
            if turn >= times {
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { return };
                pass(stream.try_clone().unwrap(), server.try_clone().unwrap());
                pass(server, stream);
            }
        }
    });
    port
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
}
