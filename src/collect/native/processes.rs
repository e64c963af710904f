//! Tables about processes, from `/proc/PID`.
//!
//! The files are read as bytes: names, command lines, environments and paths need not be UTF-8, and a process that sets
//! itself such a name must not drop out of the table.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use procfs::FromRead;
use procfs::process::Stat;

use super::context::{Context, Gathered, lines, number, split_once, words};
use super::rows::Row;

/// Most that is read of one file below `/proc/PID`, in bytes: the limit of a command line or an environment.
const MAX_PROC: u64 = 2 << 20;

/// Most that is read of one memory map, in bytes.
const MAX_MAPS: u64 = 64 << 20;

/// What the kernel appends to the path of a file that is gone.
const DELETED: &[u8] = b" (deleted)";

/// One process, as far as it could be read.
#[derive(Debug)]
pub(super) struct Process {
    /// Process id.
    pub(super) pid: i32,
    /// Its directory below `/proc`.
    pub(super) dir: PathBuf,
    /// The kernel's short name, which the process may set.
    pub(super) name: Vec<u8>,
    /// The executable without the deleted mark; empty for kernel threads, `None` when refused.
    pub(super) path: Option<Vec<u8>>,
    /// Whether the executable is still there; unknown for kernel threads and when refused.
    on_disk: Option<bool>,
    /// Arguments joined by spaces.
    pub(super) cmdline: Option<Vec<u8>>,
    /// Real, effective and saved user id.
    pub(super) uids: [u32; 3],
    gids: [u32; 3],
    stat: Stat,
}

/// Table `processes`.
pub(super) fn processes(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("processes");
    let all = list(context, &mut gathered);
    let by_pid: HashMap<i32, usize> = all.iter().enumerate().map(|(at, process)| (process.pid, at)).collect();
    let boot = boot_time(context);
    for process in &all {
        if !gathered.goes_on(context) {
            break;
        }
        let mut refused = Vec::new();
        let parent = by_pid.get(&process.stat.ppid).map(|at| &all[*at]);
        gathered.rows.push(|row| {
            process_row(row, process, boot);
            link_columns(row, process, &mut refused);
            io_columns(row, process, &mut refused);
            row.text("parent_name", parent.map_or(&b""[..], |parent| &parent.name));
            let orphan = parent.is_none().then(Vec::new);
            row.known("parent_path", orphan.or_else(|| parent?.path.clone()));
        });
        gathered.looked_at(&refused);
    }
    gathered
}

/// Table `process_envs`.
pub(super) fn process_envs(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("processes");
    for process in list(context, &mut gathered) {
        if !gathered.goes_on(context) {
            break;
        }
        let Some(environ) = read_part(&mut gathered, &process, "environ", MAX_PROC) else { continue };
        for variable in environ.split(|byte| *byte == 0).filter(|variable| !variable.is_empty()) {
            let (key, value) = split_once(variable, b'=').unwrap_or((variable, b""));
            gathered.rows.push(|row| {
                owner_columns(row, &process);
                row.text("key", key).text("value", value);
            });
        }
    }
    gathered
}

/// Table `process_open_files`: descriptors of files, as osquery without sockets, pipes and anonymous inodes.
pub(super) fn process_open_files(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("processes");
    // What this program has open is the walk itself: it differs each time and says nothing of the host.
    let own = i32::try_from(std::process::id()).ok();
    for process in list(context, &mut gathered).into_iter().filter(|process| Some(process.pid) != own) {
        if !gathered.goes_on(context) {
            break;
        }
        for (fd, path) in descriptors(&mut gathered, &process) {
            if [&b"socket:"[..], b"pipe:", b"anon_inode:"].iter().any(|kind| path.starts_with(kind)) {
                continue;
            }
            gathered.rows.push(|row| {
                owner_columns(row, &process);
                row.show("fd", fd).text("path", &path);
            });
        }
    }
    gathered
}

/// Table `process_memory_map`, only the maps that injected code leaves: writable and executable, of files that are gone,
/// or of files where no library belongs.
pub(super) fn process_memory_map(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("processes");
    for process in list(context, &mut gathered) {
        if !gathered.goes_on(context) {
            break;
        }
        let Some(maps) = read_part(&mut gathered, &process, "maps", MAX_MAPS) else { continue };
        for map in lines(&maps).filter_map(Map::parse).filter(Map::is_odd) {
            gathered.rows.push(|row| {
                owner_columns(row, &process);
                map.columns(row);
            });
        }
    }
    gathered
}

/// Processes by id; those that end while we look are left out.
pub(super) fn list(context: &Context, gathered: &mut Gathered) -> Vec<Process> {
    let proc = context.path("/proc");
    let Ok(entries) = fs::read_dir(&proc) else {
        gathered.looked_at(&["all of them"]);
        return Vec::new();
    };
    let mut pids: Vec<i32> = entries
        .filter_map(io::Result::ok)
        .filter_map(|entry| number(&entry.file_name().into_vec()))
        .collect();
    pids.sort_unstable();
    let mut found = Vec::with_capacity(pids.len());
    for pid in pids {
        if !gathered.goes_on(context) {
            break;
        }
        found.extend(read_process(&proc, pid));
    }
    found
}

/// Descriptors of a process and what they lead to, by number.
pub(super) fn descriptors(gathered: &mut Gathered, process: &Process) -> Vec<(i32, Vec<u8>)> {
    let dir = process.dir.join("fd");
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) => {
            gathered.looked_at(if is_refusal(&error) { &["fd"] } else { &[] });
            return Vec::new();
        }
    };
    let (mut found, mut refused) = (Vec::new(), None);
    for entry in entries.filter_map(io::Result::ok) {
        let Some(fd) = number(entry.file_name().as_encoded_bytes()) else { continue };
        match link(&entry.path()) {
            Ok(target) => found.push((fd, target)),
            Err(error) if is_refusal(&error) => refused = Some("fd"),
            Err(_) => {}
        }
    }
    gathered.looked_at(refused.as_slice());
    found.sort_unstable();
    found
}

/// `pid`, and the columns that say whose process it is.
fn owner_columns(row: &mut Row<'_>, process: &Process) {
    row.show("pid", process.pid).text("name", &process.name);
    row.known("process_path", process.path.as_ref()).show("uid", process.uids[0]);
}

fn process_row(row: &mut Row<'_>, process: &Process, boot: Option<u64>) {
    let (stat, [uid, euid, suid], [gid, egid, sgid]) = (&process.stat, process.uids, process.gids);
    let ticks = procfs::ticks_per_second().max(1);
    let start = boot.map_or(-1, |boot| (boot + stat.starttime / ticks).cast_signed());
    row.show("pid", process.pid).text("name", &process.name);
    row.known("path", process.path.as_ref()).known("cmdline", process.cmdline.as_ref());
    row.show("state", stat.state).show("uid", uid).show("gid", gid);
    row.show("euid", euid).show("egid", egid).show("suid", suid).show("sgid", sgid);
    row.show("on_disk", process.on_disk.map_or(-1, i32::from)).text("wired_size", "0");
    row.show("resident_size", stat.rss.saturating_mul(procfs::page_size())).show("total_size", stat.vsize);
    row.show("user_time", stat.utime.saturating_mul(1000) / ticks);
    row.show("system_time", stat.stime.saturating_mul(1000) / ticks);
    row.show("start_time", start).show("parent", stat.ppid).show("pgroup", stat.pgrp);
    row.show("threads", stat.num_threads).show("nice", stat.nice);
}

/// Columns that only the owner and root may read.
fn link_columns(row: &mut Row<'_>, process: &Process, refused: &mut Vec<&str>) {
    if process.path.is_none() {
        refused.push("path");
    }
    if process.cmdline.is_none() {
        refused.push("cmdline");
    }
    for column in ["cwd", "root"] {
        match link(&process.dir.join(column)) {
            Ok(target) => {
                row.text(column, target);
            }
            Err(error) if is_refusal(&error) => refused.push(column),
            Err(_) => {
                row.text(column, "");
            }
        }
    }
    let cgroup = read(&process.dir.join("cgroup"), MAX_PROC).unwrap_or_default();
    let first = lines(&cgroup).next().unwrap_or_default();
    row.text("cgroup_path", first.splitn(3, |byte| *byte == b':').nth(2).unwrap_or_default());
}

fn io_columns(row: &mut Row<'_>, process: &Process, refused: &mut Vec<&str>) {
    match read(&process.dir.join("io"), MAX_PROC) {
        Ok(text) => {
            let count = |key: &[u8]| field(&text, key).and_then(number::<i64>).unwrap_or(0);
            row.show("disk_bytes_read", count(b"read_bytes"));
            let written = count(b"write_bytes").saturating_sub(count(b"cancelled_write_bytes"));
            row.show("disk_bytes_written", written);
        }
        Err(error) if is_refusal(&error) => refused.push("io"),
        Err(_) => {}
    }
}

/// One process; `None` when it has ended.
fn read_process(proc: &Path, pid: i32) -> Option<Process> {
    let dir = proc.join(pid.to_string());
    let stat = read(&dir.join("stat"), MAX_PROC).ok()?;
    let status = read(&dir.join("status"), MAX_PROC).ok()?;
    let (name, numbers) = split_stat(&stat)?;
    let (path, on_disk) = executable(&dir);
    Some(Process {
        pid,
        name: name.to_vec(),
        path,
        on_disk,
        cmdline: command_line(&dir),
        uids: ids(field(&status, b"Uid")?)?,
        gids: ids(field(&status, b"Gid")?)?,
        stat: Stat::from_read(&[format!("{pid} (x) ").as_bytes(), numbers].concat()[..]).ok()?,
        dir,
    })
}

/// The name between the first and the last parenthesis, which may contain parentheses itself, and what follows it.
///
/// The crate procfs only sees what follows: it would cut into a name that is no UTF-8.
fn split_stat(stat: &[u8]) -> Option<(&[u8], &[u8])> {
    let (open, close) = (memchr::memchr(b'(', stat)?, memchr::memrchr(b')', stat)?);
    let numbers = stat.get(close + 1..)?.trim_ascii();
    numbers.is_ascii().then_some((stat.get(open + 1..close)?, numbers))
}

/// The executable's path and whether it is still there.
fn executable(dir: &Path) -> (Option<Vec<u8>>, Option<bool>) {
    let exe = dir.join("exe");
    match link(&exe) {
        Ok(path) => match path.strip_suffix(DELETED) {
            // A file may really be named so: then the link leads to it.
            Some(_) if is_same_file(&exe, &path) => (Some(path), Some(true)),
            Some(gone) => (Some(gone.to_vec()), Some(false)),
            None => (Some(path), Some(true)),
        },
        Err(error) if is_refusal(&error) => (None, None),
        Err(_) => (Some(Vec::new()), None),
    }
}

fn is_same_file(exe: &Path, path: &[u8]) -> bool {
    let path = PathBuf::from(std::ffi::OsString::from_vec(path.to_vec()));
    let (Ok(a), Ok(b)) = (fs::metadata(exe), fs::metadata(path)) else { return false };
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

fn command_line(dir: &Path) -> Option<Vec<u8>> {
    let mut text = match read(&dir.join("cmdline"), MAX_PROC) {
        Ok(text) => text,
        Err(error) if is_refusal(&error) => return None,
        Err(_) => return Some(Vec::new()),
    };
    for byte in &mut text {
        if *byte == 0 {
            *byte = b' ';
        }
    }
    Some(text.trim_ascii().to_vec())
}

/// Real, effective and saved id of a line such as `0 0 0 0`.
fn ids(value: &[u8]) -> Option<[u32; 3]> {
    let mut ids = words(value).map(number);
    Some([ids.next()??, ids.next()??, ids.next()??])
}

/// The value of the first line `key: value`.
pub(super) fn field<'a>(text: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    lines(text)
        .find_map(|line| Some(line.strip_prefix(key)?.trim_ascii_start().strip_prefix(b":")?.trim_ascii()))
}

/// Seconds since 1970 at which the system started.
fn boot_time(context: &Context) -> Option<u64> {
    let stat = read(&context.path("/proc/stat"), MAX_MAPS).ok()?;
    lines(&stat).find_map(|line| number(line.strip_prefix(b"btime ")?))
}

/// One file of a process; a refusal is counted, a process that has ended is not.
fn read_part(gathered: &mut Gathered, process: &Process, part: &'static str, max: u64) -> Option<Vec<u8>> {
    match read(&process.dir.join(part), max) {
        Ok(bytes) => {
            gathered.looked_at(&[]);
            Some(bytes)
        }
        Err(error) => {
            let refused = is_refusal(&error).then_some(part);
            gathered.looked_at(refused.as_slice());
            None
        }
    }
}

fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn link(path: &Path) -> io::Result<Vec<u8>> {
    Ok(fs::read_link(path)?.into_os_string().into_vec())
}

fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// One line of `/proc/PID/maps`.
#[derive(Debug, PartialEq)]
struct Map<'a> {
    start: &'a [u8],
    end: &'a [u8],
    permissions: &'a [u8],
    offset: i64,
    device: &'a [u8],
    inode: &'a [u8],
    path: &'a [u8],
}

impl<'a> Map<'a> {
    /// The crate procfs would refuse the whole file for one path that is no UTF-8.
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(6, |byte| *byte == b' ');
        let (start, end) = split_once(parts.next()?, b'-')?;
        let (permissions, offset) = (parts.next()?, parts.next()?);
        let offset = i64::from_str_radix(std::str::from_utf8(offset).ok()?, 16).unwrap_or(-1);
        let (device, inode) = (parts.next()?, parts.next()?);
        let path = parts.next().unwrap_or_default().trim_ascii();
        Some(Self { start, end, permissions, offset, device, inode, path })
    }

    fn is_odd(&self) -> bool {
        const ODD: [&[u8]; 5] = [b"/tmp/", b"/var/tmp/", b"/dev/shm/", b"/home/", b"/memfd:"];
        let writable_code = self.permissions.contains(&b'w') && self.permissions.contains(&b'x');
        writable_code || self.path.ends_with(DELETED) || ODD.iter().any(|dir| self.path.starts_with(dir))
    }

    fn columns(&self, row: &mut Row<'_>) {
        row.text("start", [b"0x", self.start].concat()).text("end", [b"0x", self.end].concat());
        row.text("permissions", self.permissions).show("offset", self.offset);
        row.text("device", self.device).text("inode", self.inode).text("path", self.path);
        row.flag("pseudo", self.inode == b"0" && !self.path.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::super::context::tests::{context, host, rows};
    use super::*;

    const STAT: &[u8] = b"7 (a) \xff(b) S 1 7 7 0 -1 4194560 0 0 0 0 250 50 0 0 20 0 3 0 200 8192 2 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n";
    const STATUS: &[u8] = b"Name:\ta) \xff(b\nState:\tS (sleeping)\nUid:\t1000\t0\t0\t0\nGid:\t5\t6\t7\t8\n";

    #[test]
    fn a_process_with_a_hostile_name_is_still_read() {
        let dir =
            host(&[("proc/7/stat", STAT), ("proc/7/status", STATUS), ("proc/7/cmdline", b"/x\0-a\0\0")]);
        let context = context(dir.path());
        let all = list(&context, &mut Gathered::of("processes"));
        assert_eq!(all.len(), 1);
        assert_eq!(
            (all[0].name.as_slice(), all[0].uids, all[0].gids),
            (&b"a) \xff(b"[..], [1000, 0, 0], [5, 6, 7])
        );
        assert_eq!(all[0].cmdline.as_deref(), Some(&b"/x -a"[..]));
        assert_eq!((all[0].path.as_deref(), all[0].on_disk), (Some(&b""[..]), None));
    }

    #[test]
    fn processes_have_osquerys_spellings_and_their_parents() {
        let child = String::from_utf8_lossy(STAT).replace("7 (a) \u{fffd}(b) S 1", "8 (sh) R 7");
        let parent = String::from_utf8_lossy(STAT).replace("a) \u{fffd}(b", "init");
        let status = String::from_utf8_lossy(STATUS);
        let dir = host(&[
            ("proc/stat", b"cpu 1\nbtime 1000\n"),
            ("proc/7/stat", parent.as_bytes()),
            ("proc/7/status", status.as_bytes()),
            ("proc/8/stat", child.as_bytes()),
            ("proc/8/status", status.as_bytes()),
            ("proc/8/io", b"rchar: 1\nread_bytes: 4096\nwrite_bytes: 20\ncancelled_write_bytes: 5\n"),
            ("proc/8/cgroup", b"0::/user.slice:a\n"),
        ]);
        std::os::unix::fs::symlink("/tmp/x (deleted)", dir.path().join("proc/8/exe")).unwrap();
        let rows = rows(processes(&context(dir.path())));
        let row = &rows[1];
        for (column, value) in [
            ("path", "/tmp/x"),
            ("on_disk", "0"),
            ("state", "R"),
            ("parent", "7"),
            ("parent_name", "init"),
            ("parent_path", ""),
            ("uid", "1000"),
            ("euid", "0"),
            ("sgid", "7"),
            ("disk_bytes_read", "4096"),
            ("disk_bytes_written", "15"),
            ("cgroup_path", "/user.slice:a"),
            ("start_time", "1002"),
            ("user_time", "2500"),
            ("threads", "3"),
            ("nice", "0"),
        ] {
            assert_eq!(row[column], value, "{column} in {row}");
        }
        assert_eq!(rows[0]["on_disk"], "-1");
    }

    #[test]
    fn only_odd_maps_are_kept() {
        let odd = |line: &[u8]| Map::parse(line).unwrap().is_odd();
        assert!(odd(b"7f00-7f01 rwxp 00000000 00:00 0 "));
        assert!(odd(b"7f00-7f01 r-xp 00000000 00:01 5 /memfd:a b (deleted)"));
        assert!(odd(b"7f00-7f01 r-xp 00000000 00:01 5     /usr/lib/\xff.so (deleted)"));
        assert!(!odd(b"7f00-7f01 r-xp 0001f000 08:01 5       /usr/lib/libc.so.6"));
        let map = Map::parse(b"7f00-7f01 r-xp 0001f000 08:01 5       /tmp/a b").unwrap();
        assert_eq!((map.path, map.offset, map.start), (&b"/tmp/a b"[..], 0x1f000, &b"7f00"[..]));
        assert_eq!(Map::parse(b"nonsense"), None);
    }

    #[test]
    fn environments_keep_empty_values_and_odd_entries() {
        let dir = host(&[
            ("proc/7/stat", STAT),
            ("proc/7/status", STATUS),
            ("proc/7/environ", b"A=b=c\0B=\0odd\0"),
        ]);
        let (_, json, _) = process_envs(&context(dir.path())).finish();
        let text = String::from_utf8_lossy(&json);
        for part in [r#""key":"A","value":"b=c""#, r#""key":"B","value":"""#, r#""key":"odd","value":"""#] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
