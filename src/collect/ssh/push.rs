//! The program that is brought to hosts without osquery: a `diffy` for Linux, whose native collector answers.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use memchr::memmem;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::model::hex;

/// Most bytes of a program.
const LARGEST: u64 = 1 << 30;
/// What is read at once, and how far a version of glibc may reach from one piece into the next.
const PIECE: usize = 1 << 20;
const OVERLAP: usize = 32;
/// Longest program headers that are looked at.
const HEADERS: u64 = 1 << 16;

/// Processors by their number in ELF files, and what `uname -m` calls them.
const MACHINES: [(u16, &[&str]); 7] = [
    (62, &["x86_64", "amd64"]),
    (183, &["aarch64", "arm64"]),
    (3, &["i686", "i586", "i386"]),
    (40, &["armv7l", "armv8l", "armv6l"]),
    (21, &["ppc64le", "ppc64"]),
    (22, &["s390x"]),
    (243, &["riscv64"]),
];

/// A program that can be brought to hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Where it is here.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// SHA-256 of the file, as 64 lowercase hex digits.
    pub sha256: String,
    /// What `uname -m` may say on hosts that it runs on; empty when that is not known.
    machines: &'static [&'static str],
    /// Whether it needs the C library of the host.
    pub is_dynamic: bool,
    /// The newest glibc that it names, as `2.36`; only where it is dynamic.
    pub glibc: Option<String>,
}

impl Program {
    /// Reads a program once: its digest, and what it needs of a host. Blocks.
    ///
    /// # Errors
    /// `Usage`: it cannot be read, is no Linux program, or is too large.
    pub fn read(path: &Path) -> Result<Self> {
        let cannot = |source: io::Error| {
            Error::usage(format!("cannot read the program `{}`", path.display())).source(source)
        };
        let mut file = File::open(path).map_err(cannot)?;
        let elf = Elf::read(&mut file).map_err(cannot)?.ok_or_else(|| {
            Error::usage(format!("`{}` is no Linux program", path.display()))
                .hint("`--push-binary FILE` takes a `diffy` that was built for the hosts, best for musl: it runs on any Linux")
        })?;
        let scanned = scan(File::open(path).map_err(cannot)?).map_err(cannot)?;
        if scanned.bytes > LARGEST {
            return Err(Error::usage(format!(
                "`{}` has {} bytes, of {LARGEST} at most",
                path.display(),
                scanned.bytes
            )));
        }
        Ok(Self {
            path: path.to_owned(),
            bytes: scanned.bytes,
            sha256: scanned.sha256,
            machines: MACHINES
                .iter()
                .find(|(number, _)| *number == elf.machine)
                .map_or(&[], |(_, names)| names),
            is_dynamic: elf.is_dynamic,
            glibc: scanned.glibc.filter(|_| elf.is_dynamic).map(|(major, minor)| format!("{major}.{minor}")),
        })
    }

    /// Why it cannot run on a host whose `uname -s` and `uname -m` say this; none when it may.
    pub(super) fn misfit(&self, system: &str, machine: &str) -> Option<String> {
        let ours = self.machines.first().copied().unwrap_or("another machine");
        match self.machines.contains(&machine) {
            true if system == "Linux" => None,
            _ => Some(format!("the program is for Linux on {ours} and the host is {system} on {machine}")),
        }
    }
}

/// What the head of an ELF file says.
struct Elf {
    machine: u16,
    /// Whether another program loads it.
    is_dynamic: bool,
}

impl Elf {
    /// None when it is no ELF file of 64 or 32 bits.
    fn read(file: &mut File) -> io::Result<Option<Self>> {
        let mut head = Vec::new();
        file.take(HEADERS).read_to_end(&mut head)?;
        Ok(Self::parse(&head))
    }

    fn parse(head: &[u8]) -> Option<Self> {
        const LOADER: u64 = 3;
        if !head.starts_with(b"\x7fELF") {
            return None;
        }
        let is_64 = *head.get(4)? == 2;
        let is_big = *head.get(5)? == 2;
        let number = |at: usize, size: usize| -> Option<u64> {
            let bytes = head.get(at..at.checked_add(size)?)?;
            let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
            Some(if is_big { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) })
        };
        let (table, size, count) = match is_64 {
            true => (number(32, 8)?, number(54, 2)?, number(56, 2)?),
            false => (number(28, 4)?, number(42, 2)?, number(44, 2)?),
        };
        let is_loader = |index: u64| {
            let at = size.checked_mul(index)?.checked_add(table)?;
            number(usize::try_from(at).ok()?, 4)
        };
        let is_dynamic = (0..count).any(|index| is_loader(index) == Some(LOADER));
        Some(Self { machine: u16::try_from(number(18, 2)?).ok()?, is_dynamic })
    }
}

/// What reading all of a file says.
struct Scanned {
    bytes: u64,
    sha256: String,
    glibc: Option<(u32, u32)>,
}

fn scan(mut file: File) -> io::Result<Scanned> {
    let finder = memmem::Finder::new(b"GLIBC_");
    let (mut digest, mut bytes, mut glibc) = (Sha256::new(), 0, None);
    let mut piece = vec![0; OVERLAP + PIECE];
    // The end of the piece before stands at the beginning.
    let mut kept = 0;
    loop {
        let read = file.read(&mut piece[kept..kept + PIECE])?;
        if read == 0 {
            break;
        }
        digest.update(&piece[kept..kept + read]);
        bytes += read as u64;
        let end = kept + read;
        let versions = finder.find_iter(&piece[..end]).filter_map(|at| version(&piece[at + 6..end]));
        glibc = glibc.max(versions.max());
        kept = end.min(OVERLAP);
        piece.copy_within(end - kept..end, 0);
    }
    Ok(Scanned { bytes, sha256: hex(&digest.finalize()), glibc })
}

/// `2.36` at the beginning of these bytes.
fn version(bytes: &[u8]) -> Option<(u32, u32)> {
    let end = bytes.iter().position(|byte| !byte.is_ascii_digit() && *byte != b'.')?;
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    let (major, rest) = text.split_once('.')?;
    let minor = rest.split('.').next()?;
    Some((major.parse().ok().filter(|major| *major == 2)?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file with one program header of this kind.
    fn elf(machine: u16, header: u32) -> Vec<u8> {
        let mut bytes = vec![0_u8; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32] = 64;
        (bytes[54], bytes[56]) = (56, 1);
        bytes[64..68].copy_from_slice(&header.to_le_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Program> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        std::fs::write(&path, bytes).unwrap();
        Program::read(&path)
    }

    #[test]
    fn a_program_is_known_by_its_head_and_its_digest() {
        let mut bytes = elf(183, 3);
        bytes.extend(vec![b'x'; PIECE - 100]);
        // Lies across the end of a piece.
        bytes.extend_from_slice(b"\0GLIBC_2.9\0GLIBC_2.34\0GLIBC_2.17\0GLIBC_PRIVATE\0GLIBC_9");
        let program = read(&bytes).unwrap();
        assert_eq!((program.bytes, program.is_dynamic), (bytes.len() as u64, true));
        assert_eq!(program.sha256, hex(&Sha256::digest(&bytes)));
        assert_eq!(program.glibc.as_deref(), Some("2.34"));
        assert_eq!(program.misfit("Linux", "arm64"), None);
        assert_eq!(
            program.misfit("Darwin", "arm64").unwrap(),
            "the program is for Linux on aarch64 and the host is Darwin on arm64"
        );
        assert!(program.misfit("Linux", "x86_64").is_some());
        let fixed = read(&elf(62, 1)).unwrap();
        assert_eq!(
            (fixed.is_dynamic, fixed.glibc.as_deref(), fixed.misfit("Linux", "x86_64")),
            (false, None, None)
        );
    }

    #[test]
    fn what_is_no_program_is_refused() {
        for bytes in [&b""[..], b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF\x02\x01"] {
            assert!(read(bytes).unwrap_err().to_string().contains("no Linux program"), "{bytes:?}");
        }
        assert!(Program::read(Path::new("/nonexistent/diffy")).is_err());
        let mut odd = elf(62, 3);
        odd[32..40].fill(0xff);
        odd[56..58].fill(0xff);
        assert!(!read(&odd).unwrap().is_dynamic);
    }
}
