//! Tables about files: where programs, settings and start-up scripts are, and where intruders drop things.

use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, thread};

use md5::Digest;

use super::accounts;
use super::context::{Context, Gathered, file_name, is_gone, open_regular};
use super::rows::Row;
use crate::model::hex;

/// Where programs are.
pub(super) const BINARIES: [&str; 6] =
    ["/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];

/// Directories and how many levels of them are listed.
const TREES: [(&[&str], usize); 5] = [
    (&["/etc"], 16),
    (&BINARIES, 1),
    (&["/usr/lib/systemd/system", "/lib/systemd/system", "/usr/local/lib/systemd/system"], 2),
    (
        &[
            "/lib/security",
            "/lib64/security",
            "/lib/x86_64-linux-gnu/security",
            "/lib/aarch64-linux-gnu/security",
            "/usr/lib/security",
            "/usr/lib64/security",
            "/usr/lib/x86_64-linux-gnu/security",
            "/usr/lib/aarch64-linux-gnu/security",
        ],
        1,
    ),
    (&["/boot"], 4),
];

/// Directories that everybody may write to: one level is listed, and hidden directories in it.
const SCRATCH: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// Files in a home that run or decide something when the user logs in.
const DOTFILES: [&str; 22] = [
    ".bash_aliases",
    ".bash_login",
    ".bash_logout",
    ".bash_profile",
    ".bashrc",
    ".cshrc",
    ".forward",
    ".gitconfig",
    ".inputrc",
    ".kshrc",
    ".login",
    ".pam_environment",
    ".profile",
    ".rhosts",
    ".shosts",
    ".tcshrc",
    ".vimrc",
    ".xprofile",
    ".zlogin",
    ".zprofile",
    ".zshenv",
    ".zshrc",
];

/// Longest file that is hashed, in bytes, as osquery's `read_max`.
const MAX_HASHED: u64 = 50 << 20;

/// Threads that hash.
const HASHERS: usize = 4;

/// A file that was found.
#[derive(Debug)]
struct Found {
    path: PathBuf,
    link: Metadata,
    /// Whether a link may be followed: not where its owner is a stranger.
    trusted: bool,
}

/// Table `file`; as in osquery a link shows its target's owner, mode, size and times.
pub(super) fn file(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("files");
    for found in find(context, &mut gathered) {
        if !gathered.goes_on(context) {
            break;
        }
        let target =
            if found.link.is_symlink() && found.trusted { fs::metadata(&found.path).ok() } else { None };
        gathered.rows.push(|row| file_columns(row, context, &found, target.as_ref()));
    }
    gathered
}

fn file_columns(row: &mut Row<'_>, context: &Context, found: &Found, target: Option<&Metadata>) {
    let metadata = target.unwrap_or(&found.link);
    path_columns(row, context, &found.path);
    row.text("filename", file_name(&found.path));
    row.show("inode", metadata.ino()).show("uid", metadata.uid()).show("gid", metadata.gid());
    row.text("mode", mode(metadata)).show("device", metadata.rdev()).show("size", metadata.size());
    row.show("block_size", metadata.blksize()).show("hard_links", metadata.nlink());
    row.show("atime", metadata.atime()).show("mtime", metadata.mtime()).show("ctime", metadata.ctime());
    row.text("btime", "0").flag("symlink", found.link.is_symlink());
    row.text("type", type_word(metadata));
    let leads_to = if found.link.is_symlink() { fs::read_link(&found.path).ok() } else { None };
    row.text("symlink_target_path", leads_to.unwrap_or_default().into_os_string().into_vec());
}

fn path_columns(row: &mut Row<'_>, context: &Context, path: &Path) {
    let parent = path.parent().unwrap_or(path);
    row.text("path", context.shown(path)).text("directory", context.shown(parent));
}

/// The permission bits as osquery prints them: four octal digits.
pub(super) fn mode(metadata: &Metadata) -> String {
    format!("{:04o}", metadata.mode() & 0o7777)
}

fn type_word(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    match () {
        () if kind.is_file() => "regular",
        () if kind.is_dir() => "directory",
        () if kind.is_symlink() => "symlink",
        () if kind.is_socket() => "socket",
        () if kind.is_fifo() => "fifo",
        () if kind.is_block_device() => "block",
        () if kind.is_char_device() => "character",
        () => "unknown",
    }
}

/// Everything that the tables `file` and `hash` tell of, each path once.
fn find(context: &Context, gathered: &mut Gathered) -> Vec<Found> {
    let mut found = Vec::new();
    let mut add = |paths: Vec<(PathBuf, Metadata)>, trusted| {
        found.extend(paths.into_iter().map(|(path, link)| Found { path, link, trusted }));
    };
    for (dirs, depth) in TREES {
        for dir in context.real_dirs(dirs) {
            add(gathered.walk(context, &dir, depth), true);
        }
    }
    for dir in context.real_dirs(&SCRATCH) {
        let listed = gathered.list(context, &dir);
        let hidden =
            listed.iter().filter(|(path, metadata)| metadata.is_dir() && file_name(path).starts_with(b"."));
        let hidden: Vec<PathBuf> = hidden.map(|(path, _)| path.clone()).collect();
        add(listed, false);
        for dir in hidden {
            add(gathered.list(context, &dir), false);
        }
    }
    for home in homes(context, gathered) {
        add(gathered.list(context, &home.join(".ssh")), false);
        add(gathered.list(context, &home.join(".config/autostart")), false);
        let dotfiles = DOTFILES.iter().map(|name| home.join(name));
        add(
            dotfiles.filter_map(|path| Some((path.clone(), fs::symlink_metadata(&path).ok()?))).collect(),
            false,
        );
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found.dedup_by(|a, b| a.path == b.path);
    found
}

/// Homes below `/home` and of the local users, but not system directories that serve as one.
fn homes(context: &Context, gathered: &mut Gathered) -> Vec<PathBuf> {
    let mut homes: Vec<PathBuf> = Vec::new();
    homes.extend(gathered.list(context, &context.path("/home")).into_iter().map(|(path, _)| path));
    homes.extend(accounts::list(context, gathered).iter().map(|user| user.home(context)));
    homes.push(context.path("/root"));
    homes.retain(|home| home.is_dir() && *home != context.path("/"));
    homes.sort();
    homes.dedup();
    homes
}

/// Digests of one file in hex.
#[derive(Debug, Clone)]
pub(super) struct Digests {
    md5: String,
    sha1: String,
    /// SHA-256.
    pub(super) sha256: String,
}

/// Table `hash`: every regular file of the table `file`; the digests of a file over 50 MB are unknown.
pub(super) fn hash(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("files");
    let mut regular: Vec<(PathBuf, FileId)> = Vec::new();
    for found in find(context, &mut gathered) {
        let follow = found.link.is_symlink() && found.trusted;
        let metadata = if follow { fs::metadata(&found.path).ok() } else { Some(found.link) };
        if let Some(metadata) = metadata.filter(Metadata::is_file) {
            regular.push((found.path, (metadata.dev(), metadata.ino())));
        }
    }
    // One file has many names through links: it is read once.
    let mut seen = HashSet::new();
    let distinct: Vec<&(PathBuf, FileId)> = regular.iter().filter(|(_, id)| seen.insert(*id)).collect();
    let hashed = hash_all(context, &distinct);
    for (path, id) in &regular {
        let Some(result) = hashed.get(id) else {
            gathered.cut_off("stopped at the time limit");
            break;
        };
        if let Err(error) = result {
            if is_gone(error) {
                continue;
            }
            gathered.looked_at(&[&String::from_utf8_lossy(&context.shown(path))]);
        } else {
            gathered.looked_at(&[]);
        }
        let digests = result.as_ref().ok().and_then(Option::as_ref);
        gathered.rows.push(|row| {
            path_columns(row, context, path);
            row.known("md5", digests.map(|digests| &digests.md5));
            row.known("sha1", digests.map(|digests| &digests.sha1));
            row.known("sha256", digests.map(|digests| &digests.sha256));
        });
    }
    gathered
}

/// Device and inode of a file.
type FileId = (u64, u64);

/// Digests of a file, `None` when it is too long.
type Hashed = io::Result<Option<Digests>>;

/// Hashes on several threads until all is done or the time is over.
fn hash_all(context: &Context, files: &[&(PathBuf, FileId)]) -> HashMap<FileId, Hashed> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((path, id)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let digests = digests(context, path);
            if context.is_over() {
                break;
            }
            done.push((*id, digests));
        }
        done
    };
    let threads = thread::available_parallelism().map_or(2, usize::from).clamp(2, HASHERS);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        // A worker that panicked would be a defect of a digest library; the files it had count as not reached.
        workers.into_iter().filter_map(|worker| worker.join().ok()).flatten().collect()
    })
}

/// Digests of a regular file; `None` when it is too long or there is no time left.
pub(super) fn digests(context: &Context, path: &Path) -> Hashed {
    let mut file = open_regular(path)?;
    let (mut md5, mut sha1, mut sha256) = (md5::Md5::new(), sha1::Sha1::new(), sha2::Sha256::new());
    let mut buffer = vec![0; 128 << 10];
    let mut left = MAX_HASHED;
    if file.metadata()?.len() > left {
        return Ok(None);
    }
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        // It may grow while it is read.
        let Some(rest) = left.checked_sub(read as u64).filter(|_| !context.is_over()) else {
            return Ok(None);
        };
        left = rest;
        md5.update(&buffer[..read]);
        sha1.update(&buffer[..read]);
        sha256.update(&buffer[..read]);
    }
    Ok(Some(Digests {
        md5: hex(&md5.finalize()),
        sha1: hex(&sha1.finalize()),
        sha256: hex(&sha256.finalize()),
    }))
}

/// Table `suid_bin`: as osquery in seven directories and all below them, those that are the same directory once.
pub(super) fn suid_bin(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("files");
    let users = accounts::list(context, &mut gathered);
    let groups = accounts::list_groups(context, &mut gathered);
    let dirs: Vec<&str> = BINARIES.into_iter().chain(["/tmp"]).collect();
    for dir in context.real_dirs(&dirs) {
        for (path, link) in gathered.walk(context, &dir, 64) {
            let metadata = if link.is_symlink() { fs::metadata(&path).ok() } else { Some(link) };
            let special = |metadata: &Metadata| metadata.is_file() && metadata.mode() & 0o6000 != 0;
            let Some(metadata) = metadata.filter(special) else { continue };
            let user = users.iter().find(|user| user.uid == metadata.uid()).map(|user| user.name.clone());
            let group =
                groups.iter().find(|(gid, ..)| *gid == metadata.gid()).map(|(_, name, _)| name.clone());
            gathered.rows.push(|row| {
                row.text("path", context.shown(&path));
                row.text("username", user.unwrap_or_else(|| metadata.uid().to_string().into_bytes()));
                row.text("groupname", group.unwrap_or_else(|| metadata.gid().to_string().into_bytes()));
                row.text("permissions", permissions(metadata.mode()));
            });
        }
    }
    gathered
}

fn permissions(mode: u32) -> &'static str {
    match (mode & 0o4000 != 0, mode & 0o2000 != 0) {
        (true, true) => "SG",
        (true, false) => "S",
        (false, true) => "G",
        (false, false) => "",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::super::context::tests::{context, host, rows};
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn find_row<'a>(rows: &'a [serde_json::Value], path: &str) -> &'a serde_json::Value {
        rows.iter().find(|row| row["path"] == path).unwrap_or_else(|| panic!("no {path} in {rows:?}"))
    }

    #[test]
    fn files_have_osquerys_spellings_and_merged_directories_are_listed_once() {
        let dir = host(&[
            ("usr/bin/x", b"abc"),
            ("etc/deep/er/f", b""),
            ("tmp/.h/y", b""),
            ("tmp/seen/no", b""),
            ("home/bob/.bashrc", b""),
            ("home/bob/notes", b""),
        ]);
        let root = dir.path();
        symlink("usr/bin", root.join("bin")).unwrap();
        symlink("x", root.join("usr/bin/link")).unwrap();
        symlink("gone", root.join("usr/bin/broken")).unwrap();
        symlink("/etc/deep", root.join("tmp/trap")).unwrap();
        fs::set_permissions(root.join("usr/bin/x"), fs::Permissions::from_mode(0o4755)).unwrap();
        let context = context(root);
        let found = rows(file(&context));
        let paths: Vec<&str> = found.iter().map(|row| row["path"].as_str().unwrap()).collect();
        assert_eq!(
            paths,
            [
                "/etc/deep",
                "/etc/deep/er",
                "/etc/deep/er/f",
                "/home/bob/.bashrc",
                "/tmp/.h",
                "/tmp/.h/y",
                "/tmp/seen",
                "/tmp/trap",
                "/usr/bin/broken",
                "/usr/bin/link",
                "/usr/bin/x"
            ]
        );
        let link = find_row(&found, "/usr/bin/link");
        let (mode, kind) = (&link["mode"], &link["type"]);
        assert_eq!((mode, kind, &link["symlink"]), (&"4755".into(), &"regular".into(), &"1".into()));
        assert_eq!(link["symlink_target_path"], "x");
        assert_eq!(find_row(&found, "/usr/bin/broken")["type"], "symlink");
        assert_eq!(find_row(&found, "/tmp/trap")["type"], "symlink");
        let suid = rows(suid_bin(&context));
        assert_eq!(suid.len(), 2);
        assert_eq!(find_row(&suid, "/usr/bin/x")["permissions"], "S");
    }

    #[test]
    fn hashes_are_right_and_links_share_them() {
        let dir = host(&[("usr/bin/x", b"abc"), ("etc/empty", b"")]);
        symlink("x", dir.path().join("usr/bin/link")).unwrap();
        let found = rows(hash(&context(dir.path())));
        assert_eq!(found.len(), 3);
        for name in ["/usr/bin/x", "/usr/bin/link"] {
            let row = find_row(&found, name);
            assert_eq!((&row["sha256"], &row["directory"]), (&ABC.into(), &"/usr/bin".into()));
            assert_eq!(row["md5"], "900150983cd24fb0d6963f7d28e17f72");
            assert_eq!(row["sha1"], "a9993e364706816aba3e25717850c26c9cd0d89d");
        }
    }

    #[test]
    fn a_file_that_is_too_long_has_unknown_digests() {
        let dir = host(&[("boot/initrd", b"")]);
        fs::File::options()
            .write(true)
            .open(dir.path().join("boot/initrd"))
            .unwrap()
            .set_len(MAX_HASHED + 1)
            .unwrap();
        let found = rows(hash(&context(dir.path())));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].get("sha256"), None);
    }
}
