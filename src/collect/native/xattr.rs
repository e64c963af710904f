//! Table `extended_attributes`: file capabilities of the programs, which do what the setuid bit does and are seen less.

use std::path::Path;

use super::context::{Context, Gathered};
use super::files::BINARIES;

const KEY: &str = "security.capability";

/// Capabilities by number, as libcap names them.
const NAMES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// Table `extended_attributes`, only `security.capability` of the programs.
pub(super) fn extended_attributes(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("files");
    for dir in context.real_dirs(&BINARIES) {
        for (path, metadata) in gathered.walk(context, &dir, 3) {
            let Some(value) = capabilities(&path).filter(|_| metadata.is_file()) else { continue };
            let parent = path.parent().unwrap_or(&dir);
            gathered.rows.push(|row| {
                row.text("path", context.shown(&path)).text("directory", context.shown(parent));
                row.text("key", KEY).text("value", value).text("base64", "0");
            });
        }
    }
    gathered
}

fn capabilities(path: &Path) -> Option<String> {
    let mut value = [0u8; 64];
    let length = rustix::fs::lgetxattr(path, KEY, &mut value).ok()?;
    text(value.get(..length)?)
}

/// The kernel's `vfs_cap_data` as libcap prints it: `cap_net_raw=ep`.
fn text(value: &[u8]) -> Option<String> {
    let word = |at: usize| Some(u32::from_le_bytes(value.get(at * 4..at * 4 + 4)?.try_into().ok()?));
    let wide = |at: usize| Some(u64::from(word(at)?) | u64::from(word(at + 2).unwrap_or(0)) << 32);
    let (effective, permitted, inheritable) = (word(0)? & 1 == 1, wide(1)?, wide(2)?);
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for bit in 0..64 {
        let has = |set: u64| set >> bit & 1 == 1;
        if !has(permitted) && !has(inheritable) {
            continue;
        }
        let flags: String = [('e', effective), ('i', has(inheritable)), ('p', has(permitted))]
            .iter()
            .filter_map(|(letter, set)| set.then_some(*letter))
            .collect();
        let name = NAMES.get(bit).map_or_else(|| bit.to_string(), |name| format!("cap_{name}"));
        match groups.iter_mut().find(|(known, _)| *known == flags) {
            Some((_, names)) => names.push(name),
            None => groups.push((flags, vec![name])),
        }
    }
    let parts: Vec<String> =
        groups.into_iter().map(|(flags, names)| format!("{}={flags}", names.join(","))).collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(words: [u32; 5]) -> Vec<u8> {
        words.into_iter().flat_map(u32::to_le_bytes).collect()
    }

    #[test]
    fn capabilities_are_printed_as_libcap_does() {
        assert_eq!(text(&bytes([0x0200_0001, 1 << 13, 0, 0, 0])).unwrap(), "cap_net_raw=ep");
        let two = bytes([0x0200_0000, 1 << 7 | 1 << 6, 1 << 7, 1 << 7, 0]);
        assert_eq!(text(&two).unwrap(), "cap_setgid,cap_bpf=p cap_setuid=ip");
        assert_eq!(text(&bytes([0x0200_0000, 0, 0, 0, 0])), None);
        assert_eq!(text(b"short"), None);
    }
}
