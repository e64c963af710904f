//! Tables about sockets, from `/proc/PID/net` of each network namespace and `/proc/PID/fd` of each process.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use procfs::FromBufReadSI;
use procfs::net::{TcpNetEntries, TcpNetEntry, TcpState};

use super::context::{Context, Gathered, MAX_FILE, lines, number, words};
use super::processes::{self, Process};
use super::rows::Row;

const AF_UNIX: u8 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const AF_PACKET: u8 = 17;
const TCP: u16 = 6;

/// File below `/proc/PID/net`, address family and protocol of what it lists; all have the format of `tcp`.
const INET_FILES: [(&str, u8, u16); 10] = [
    ("tcp", AF_INET, TCP),
    ("tcp6", AF_INET6, TCP),
    ("udp", AF_INET, 17),
    ("udp6", AF_INET6, 17),
    ("udplite", AF_INET, 136),
    ("udplite6", AF_INET6, 136),
    ("raw", AF_INET, 255),
    ("raw6", AF_INET6, 255),
    ("icmp", AF_INET, 1),
    ("icmp6", AF_INET6, 1),
];

/// One socket of one network namespace.
#[derive(Debug, Default, Clone, PartialEq)]
struct Socket {
    inode: u64,
    family: u8,
    protocol: u16,
    local: (String, u16),
    remote: (String, u16),
    path: Vec<u8>,
    state: &'static str,
    namespace: u64,
}

/// Table `process_open_sockets`: one row for each process that holds the socket, and one without a process when none
/// that may be looked into does.
pub(super) fn process_open_sockets(context: &Context) -> Gathered {
    gather(
        context,
        |_| true,
        |row, socket, _| {
            row.show("socket", socket.inode);
            row.text("local_address", &socket.local.0).show("local_port", socket.local.1);
            row.text("remote_address", &socket.remote.0).show("remote_port", socket.remote.1);
            row.text("path", &socket.path).text("state", socket.state);
        },
    )
}

/// Table `listening_ports`: as osquery every socket without a peer, also unconnected clients, named local sockets and
/// sniffers.
pub(super) fn listening_ports(context: &Context) -> Gathered {
    let listens = |socket: &Socket| match socket.family {
        AF_UNIX => !socket.path.is_empty(),
        AF_INET | AF_INET6 => socket.remote.1 == 0,
        _ => true,
    };
    gather(context, listens, |row, socket, _| {
        row.text("address", &socket.local.0).show("port", socket.local.1).text("path", &socket.path);
        row.show("socket", if socket.family == AF_UNIX { 0 } else { socket.inode });
    })
}

/// A process and the descriptor by which it holds a socket.
type Holder = (usize, i32);

fn gather(
    context: &Context,
    wanted: impl Fn(&Socket) -> bool,
    columns: impl Fn(&mut Row<'_>, &Socket, Option<&Process>),
) -> Gathered {
    let mut gathered = Gathered::of("processes");
    let all = processes::list(context, &mut gathered);
    let holders = holders(context, &mut gathered, &all);
    let none = [(usize::MAX, -1)];
    for socket in sockets(context, &all).iter().filter(|socket| wanted(socket)) {
        if !gathered.goes_on(context) {
            break;
        }
        for (at, fd) in holders.get(&socket.inode).map_or(&none[..], Vec::as_slice) {
            let process = all.get(*at);
            gathered.rows.push(|row| {
                row.show("pid", process.map_or(-1, |process| process.pid)).show("fd", fd);
                row.show("family", socket.family).show("protocol", socket.protocol);
                row.show("net_namespace", socket.namespace);
                columns(row, socket, process);
                process.inspect(|process| owner_columns(row, process));
            });
        }
    }
    gathered
}

fn owner_columns(row: &mut Row<'_>, process: &Process) {
    row.text("name", &process.name).known("process_path", process.path.as_ref());
    row.known("cmdline", process.cmdline.as_ref()).show("uid", process.uids[0]);
}

/// Who holds each socket, by its inode; the lowest descriptor of each process.
fn holders(context: &Context, gathered: &mut Gathered, all: &[Process]) -> HashMap<u64, Vec<Holder>> {
    let mut holders: HashMap<u64, Vec<Holder>> = HashMap::new();
    for (at, process) in all.iter().enumerate() {
        if !gathered.goes_on(context) {
            break;
        }
        for (fd, target) in processes::descriptors(gathered, process) {
            let Some(inode) = inode_of(&target, b"socket:[") else { continue };
            let known = holders.entry(inode).or_default();
            if known.last().is_none_or(|(last, _)| *last != at) {
                known.push((at, fd));
            }
        }
    }
    holders
}

/// The number in a link such as `socket:[123]`.
fn inode_of(target: &[u8], prefix: &[u8]) -> Option<u64> {
    number(target.strip_prefix(prefix)?.strip_suffix(b"]")?)
}

/// Sockets of every network namespace that a process lives in.
fn sockets(context: &Context, all: &[Process]) -> Vec<Socket> {
    let mut namespaces: BTreeMap<u64, &Process> = BTreeMap::new();
    for process in all {
        let link = std::fs::read_link(process.dir.join("ns/net")).unwrap_or_default();
        // Where the namespace may not be known, the process's own view still may.
        let namespace = inode_of(link.as_os_str().as_bytes(), b"net:[").unwrap_or(0);
        namespaces.entry(namespace).or_insert(process);
    }
    let mut found = Vec::new();
    for (namespace, process) in namespaces {
        if context.is_over() {
            break;
        }
        let first = found.len();
        list_namespace(&process.dir.join("net"), &mut found);
        found[first..].iter_mut().for_each(|socket| socket.namespace = namespace);
    }
    // Namespace 0 stands for processes that may not be looked into: their sockets are most likely known already.
    found.sort_by_key(|socket| (socket.inode, socket.namespace == 0));
    found.dedup_by(|later, earlier| later.inode != 0 && later.namespace == 0 && later.inode == earlier.inode);
    found
}

fn list_namespace(net: &Path, found: &mut Vec<Socket>) {
    for (file, family, protocol) in INET_FILES {
        let text = read(&net.join(file));
        found.extend(lines(&text).skip(1).filter_map(|line| inet(line, family, protocol)));
    }
    found.extend(lines(&read(&net.join("unix"))).skip(1).filter_map(unix));
    found.extend(lines(&read(&net.join("packet"))).skip(1).filter_map(packet));
}

fn read(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let file = File::open(path);
    // A protocol that the kernel does not have has no file; what is cut off or lost here is lost in osquery too.
    let _unreadable = file.and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes));
    bytes
}

/// One line of `/proc/net/tcp` and its likes, alone: a line that the parser does not know must not cost the others.
fn inet(line: &[u8], family: u8, protocol: u16) -> Option<Socket> {
    let alone = [b"\n", line].concat();
    let entry = TcpNetEntries::from_buf_read(&alone[..], procfs::current_system_info()).ok()?.0.pop()?;
    let TcpNetEntry { local_address, remote_address, inode, .. } = entry;
    Some(Socket {
        inode,
        family,
        protocol,
        local: (local_address.ip().to_string(), local_address.port()),
        remote: (remote_address.ip().to_string(), remote_address.port()),
        state: if protocol == TCP { state_word(&entry.state) } else { "" },
        ..Socket::default()
    })
}

fn state_word(state: &TcpState) -> &'static str {
    match state {
        TcpState::Established => "ESTABLISHED",
        TcpState::SynSent => "SYN_SENT",
        TcpState::SynRecv => "SYN_RECV",
        TcpState::FinWait1 => "FIN_WAIT1",
        TcpState::FinWait2 => "FIN_WAIT2",
        TcpState::TimeWait => "TIME_WAIT",
        TcpState::Close => "CLOSED",
        TcpState::CloseWait => "CLOSE_WAIT",
        TcpState::LastAck => "LAST_ACK",
        TcpState::Listen => "LISTEN",
        TcpState::Closing => "CLOSING",
        TcpState::NewSynRecv => "UNKNOWN",
    }
}

/// One line of `/proc/net/unix`; names need not be UTF-8 and may contain blanks.
fn unix(line: &[u8]) -> Option<Socket> {
    let inode = number(words(line).nth(6)?)?;
    let mut rest = line;
    for _ in 0..7 {
        let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
        rest = rest[end..].trim_ascii_start();
    }
    Some(Socket { inode, family: AF_UNIX, path: rest.to_vec(), ..Socket::default() })
}

/// One line of `/proc/net/packet`.
fn packet(line: &[u8]) -> Option<Socket> {
    let mut words = words(line).skip(3);
    let protocol = u16::from_str_radix(std::str::from_utf8(words.next()?).ok()?, 16).ok()?;
    Some(Socket { inode: number(words.nth(4)?)?, family: AF_PACKET, protocol, ..Socket::default() })
}

#[cfg(test)]
mod tests {
    use super::super::context::tests::{context, host, rows};
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn internet_sockets_are_spelled_as_osquery_does() {
        let line =
            b"0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 1000 0 4242 1 0";
        let socket = inet(line, AF_INET, TCP).unwrap();
        assert_eq!((socket.local, socket.state), (("127.0.0.1".to_owned(), 8080), "LISTEN"));
        assert_eq!((socket.remote, socket.inode), (("0.0.0.0".to_owned(), 0), 4242));
        let six = b"1: 0000000000000000FFFF00000100007F:0016 00000000000000000000000000000000:0000 01 0:0 00:0 0 0 0 7 1 0";
        let socket = inet(six, AF_INET6, 17).unwrap();
        assert_eq!((socket.local.0.as_str(), socket.state), ("::ffff:127.0.0.1", ""));
        assert_eq!(inet(b"0: zz:1F90 00", AF_INET, TCP), None);
    }

    #[test]
    fn local_sockets_keep_blanks_and_bytes_of_their_names() {
        let line = b"0000000000000000: 00000002 00000000 00010000 0001 01 555 @a b\xff";
        assert_eq!(unix(line).unwrap().path, b"@a b\xff");
        assert_eq!(unix(b"0: 2 0 10000 0001 01 555").unwrap().path, b"");
        let sniffer = packet(b"ffff9 3      3    0003   2     1 0      0      99").unwrap();
        assert_eq!((sniffer.protocol, sniffer.inode, sniffer.family), (3, 99, AF_PACKET));
    }

    #[test]
    fn sockets_are_joined_with_every_process_that_holds_them() {
        let stat = |pid: u32| {
            format!(
                "{pid} (nginx) S 1 1 1 0 -1 0 0 0 0 0 1 1 0 0 20 0 1 0 1 1 1 1 1 1 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0"
            )
        };
        let status = b"Name:\tnginx\nUid:\t33\t33\t33\t33\nGid:\t33\t33\t33\t33\n";
        let tcp = b"  sl\n 0: 00000000:0050 00000000:0000 0A 0:0 00:0 0 33 0 42 1 0\n 1: 0100007F:0050 0100007F:9999 06 0:0 00:0 0 0 0 0 1 0\n";
        let dir = host(&[
            ("proc/5/stat", stat(5).as_bytes()),
            ("proc/5/status", status),
            ("proc/5/net/tcp", tcp),
            ("proc/6/stat", stat(6).as_bytes()),
            ("proc/6/status", status),
            ("proc/6/fd/x", b""),
            ("proc/5/fd/x", b""),
        ]);
        for pid in ["5", "6"] {
            std::os::unix::fs::symlink("socket:[42]", dir.path().join("proc").join(pid).join("fd/9"))
                .unwrap();
        }
        let open = rows(process_open_sockets(&context(dir.path())));
        let pids: Vec<&str> = open.iter().map(|row| row["pid"].as_str().unwrap()).collect();
        assert_eq!(pids, ["-1", "5", "6"]);
        assert_eq!((&open[0]["state"], open[0].get("name")), (&"TIME_WAIT".into(), None));
        let ports = rows(listening_ports(&context(dir.path())));
        assert_eq!(ports.len(), 2);
        assert_eq!(
            (&ports[0]["port"], &ports[0]["name"], &ports[0]["uid"]),
            (&"80".into(), &"nginx".into(), &"33".into())
        );
    }
}
