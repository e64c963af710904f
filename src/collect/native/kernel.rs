//! Tables about the kernel: modules, command line, settings, mounts, AppArmor.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::context::{Context, Gathered, file_name, lines, split_once, words};
use super::rows::Row;

/// Settings that say how the system is hardened or opened; the counters among the rest are noise.
const CONTROLS: [&str; 44] = [
    "fs.protected_fifos",
    "fs.protected_hardlinks",
    "fs.protected_regular",
    "fs.protected_symlinks",
    "fs.suid_dumpable",
    "kernel.core_pattern",
    "kernel.core_pipe_limit",
    "kernel.core_uses_pid",
    "kernel.ctrl-alt-del",
    "kernel.dmesg_restrict",
    "kernel.ftrace_enabled",
    "kernel.hotplug",
    "kernel.io_uring_disabled",
    "kernel.kexec_load_disabled",
    "kernel.kptr_restrict",
    "kernel.modprobe",
    "kernel.modules_disabled",
    "kernel.perf_event_paranoid",
    "kernel.poweroff_cmd",
    "kernel.printk",
    "kernel.randomize_va_space",
    "kernel.sysrq",
    "kernel.tainted",
    "kernel.unprivileged_bpf_disabled",
    "kernel.unprivileged_userns_clone",
    "kernel.yama.ptrace_scope",
    "net.core.bpf_jit_enable",
    "net.core.bpf_jit_harden",
    "net.ipv4.conf.all.accept_redirects",
    "net.ipv4.conf.all.accept_source_route",
    "net.ipv4.conf.all.forwarding",
    "net.ipv4.conf.all.log_martians",
    "net.ipv4.conf.all.route_localnet",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.conf.all.send_redirects",
    "net.ipv4.icmp_echo_ignore_all",
    "net.ipv4.icmp_echo_ignore_broadcasts",
    "net.ipv4.ip_forward",
    "net.ipv4.tcp_syncookies",
    "net.ipv6.conf.all.accept_redirects",
    "net.ipv6.conf.all.accept_source_route",
    "net.ipv6.conf.all.forwarding",
    "user.max_user_namespaces",
    "vm.mmap_min_addr",
];

/// File systems whose server may be gone, so that asking for their size could hang.
const REMOTE: [&[u8]; 9] = [b"nfs", b"nfs4", b"cifs", b"smb3", b"autofs", b"fuse", b"ceph", b"9p", b"afs"];

/// Table `kernel_modules`.
pub(super) fn kernel_modules(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("files");
    let path = context.path("/proc/modules");
    if fs::metadata(&path).is_err() {
        return Gathered::not_supported("this kernel has no loadable modules");
    }
    for line in lines(&gathered.read(context, &path).unwrap_or_default()) {
        let parts: Vec<&[u8]> = words(line).map(|part| part.strip_suffix(b",").unwrap_or(part)).collect();
        if let [name, size, _, used_by, status, address, ..] = parts[..] {
            gathered.rows.push(|row| {
                row.text("name", name).text("size", size).text("used_by", used_by);
                row.text("status", status).text("address", address);
            });
        }
    }
    gathered
}

/// Table `kernel_info`: one row.
pub(super) fn kernel_info(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("files");
    let version = gathered.read(context, &context.path("/proc/version")).unwrap_or_default();
    let Some(cmdline) = gathered.read(context, &context.path("/proc/cmdline")) else {
        return gathered;
    };
    let (mut path, mut device, mut arguments) = (&b""[..], &b""[..], Vec::new());
    for argument in words(&cmdline) {
        if let Some(image) = argument.strip_prefix(b"BOOT_IMAGE=") {
            path = image;
        } else if let Some(root) = argument.strip_prefix(b"root=") {
            device = root;
        } else {
            arguments.push(argument);
        }
    }
    gathered.rows.push(|row| {
        row.text("version", words(&version).nth(2).unwrap_or_default());
        row.text("arguments", arguments.join(&b' ')).text("path", path).text("device", device);
    });
    gathered
}

/// Table `system_controls`, only the settings that matter for security.
pub(super) fn system_controls(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("settings");
    let configured = configured_controls(context, &mut gathered);
    for name in CONTROLS {
        let path = context.path("/proc/sys").join(name.replace('.', "/"));
        let Some(value) = gathered.read(context, &path) else { continue };
        gathered.rows.push(|row| {
            row.text("name", name).text("oid", "");
            row.text("subsystem", name.split('.').next().unwrap_or_default());
            row.text("current_value", value.trim_ascii());
            row.text("config_value", configured.get(name.as_bytes()).map_or(&b""[..], Vec::as_slice));
            row.text("type", "string");
        });
    }
    gathered
}

/// `name = value` of all sysctl files, later files over earlier ones as osquery reads them.
fn configured_controls(context: &Context, gathered: &mut Gathered) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let dirs = ["/run/sysctl.d", "/etc/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d"];
    let mut files = vec![context.path("/etc/sysctl.conf")];
    for dir in context.real_dirs(&dirs) {
        let listed = gathered.list(context, &dir).into_iter().map(|(path, _)| path);
        files.extend(listed.filter(|path| path.extension() == Some(OsStr::new("conf"))));
    }
    let mut configured = BTreeMap::new();
    for file in files {
        let text = gathered.read(context, &file).unwrap_or_default();
        for line in lines(&text).filter(|line| !line.starts_with(b"#") && !line.starts_with(b";")) {
            if let Some((name, value)) = split_once(line, b'=') {
                configured.insert(name.trim_ascii().to_vec(), value.trim_ascii().to_vec());
            }
        }
    }
    configured
}

/// Table `mounts`.
pub(super) fn mounts(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("files");
    let path = context.path("/proc/self/mounts");
    for line in lines(&gathered.read(context, &path).unwrap_or_default()) {
        let parts: Vec<Vec<u8>> = words(line).map(unescape).collect();
        if let [device, path, kind, flags, ..] = &parts[..] {
            gathered.rows.push(|row| {
                row.text("device", device).text("device_alias", alias(context, device));
                row.text("path", path).text("type", kind).text("flags", flags);
                if context.is_live() && !is_remote(kind) {
                    size_columns(row, Path::new(OsStr::from_bytes(path)));
                }
            });
        }
    }
    gathered
}

fn is_remote(kind: &[u8]) -> bool {
    REMOTE.contains(&kind) || kind.starts_with(b"fuse.")
}

/// What the device is really called, as far as it is a path.
fn alias(context: &Context, device: &[u8]) -> Vec<u8> {
    let real = device.starts_with(b"/").then(|| fs::canonicalize(context.path_of(device)).ok());
    real.flatten().map(|path| context.shown(&path)).unwrap_or_default()
}

fn size_columns(row: &mut Row<'_>, path: &Path) {
    let Ok(size) = rustix::fs::statfs(path) else { return };
    row.show("blocks_size", size.f_bsize).show("blocks", size.f_blocks);
    row.show("blocks_free", size.f_bfree).show("blocks_available", size.f_bavail);
    row.show("inodes", size.f_files).show("inodes_free", size.f_ffree);
}

/// Undoes the octal escapes of blanks and backslashes in `/proc/mounts`.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(word.len());
    let mut rest = word;
    while let [first, tail @ ..] = rest {
        let code = tail.get(..3).filter(|_| *first == b'\\');
        let byte = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 8).ok());
        plain.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[3..] } else { tail };
    }
    plain
}

/// Table `apparmor_profiles`.
pub(super) fn apparmor_profiles(context: &Context) -> Gathered {
    let dir = context.path("/sys/kernel/security/apparmor/policy/profiles");
    if fs::metadata(&dir).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Gathered::not_supported("this kernel does not have AppArmor");
    }
    let mut gathered = Gathered::of("profiles");
    let mut open: Vec<(Vec<u8>, PathBuf)> = vec![(Vec::new(), dir)];
    while let Some((parent, dir)) = open.pop() {
        if !gathered.goes_on(context) {
            break;
        }
        for (profile, metadata) in gathered.list(context, &dir) {
            if metadata.is_dir() {
                let name = apparmor_row(context, &mut gathered, &parent, &profile);
                open.push((name, profile.join("profiles")));
            }
        }
    }
    gathered
}

/// Writes the row of one profile and returns its name.
fn apparmor_row(context: &Context, gathered: &mut Gathered, parent: &[u8], profile: &Path) -> Vec<u8> {
    let mut part = |name: &str| {
        let text = gathered.read(context, &profile.join(name));
        text.map(|text| text.trim_ascii().to_vec())
    };
    let (name, attach, mode) = (part("name"), part("attach"), part("mode"));
    let (sha256, sha1) = (part("sha256"), part("sha1"));
    let name = name.unwrap_or_else(|| file_name(profile).to_vec());
    let path = if parent.is_empty() { name.clone() } else { [parent, b"//", &name].concat() };
    gathered.rows.push(|row| {
        row.text("path", path).text("name", &name).known("attach", attach).known("mode", mode);
        row.text("sha1", sha1.unwrap_or_default()).text("sha256", sha256.unwrap_or_default());
    });
    name
}

#[cfg(test)]
mod tests {
    use super::super::context::tests::{context, host, rows};
    use super::*;

    #[test]
    fn modules_lose_the_comma_after_their_users() {
        let text = b"nf_nat 49152 2 xt_nat,nft_nat, Live 0x0000000000000000\nloop 1 0 - Live 0x0 (OE)\nodd\n";
        let rows = rows(kernel_modules(&context(host(&[("proc/modules", text)]).path())));
        assert_eq!(rows.len(), 2);
        assert_eq!((&rows[0]["used_by"], &rows[1]["used_by"]), (&"xt_nat,nft_nat".into(), &"-".into()));
    }

    #[test]
    fn the_kernels_command_line_is_taken_apart() {
        let dir = host(&[
            ("proc/version", b"Linux version 6.1.0 (gcc)"),
            ("proc/cmdline", b"BOOT_IMAGE=/vmlinuz root=/dev/sda1 ro quiet\n"),
        ]);
        let rows = rows(kernel_info(&context(dir.path())));
        let expected = serde_json::json!({"version": "6.1.0", "arguments": "ro quiet", "path": "/vmlinuz", "device": "/dev/sda1"});
        assert_eq!(rows, [expected]);
    }

    #[test]
    fn mount_points_with_blanks_are_unescaped() {
        let dir = host(&[("proc/self/mounts", b"tmpfs /mnt/a\\040b\\134 tmpfs rw,nosuid 0 0\n")]);
        let rows = rows(mounts(&context(dir.path())));
        assert_eq!((&rows[0]["path"], &rows[0]["flags"]), (&"/mnt/a b\\".into(), &"rw,nosuid".into()));
        assert_eq!(unescape(b"\\9x\\"), b"\\9x\\");
    }

    #[test]
    fn settings_come_with_what_is_configured() {
        let dir = host(&[
            ("proc/sys/kernel/core_pattern", b"|/x\n"),
            ("proc/sys/kernel/random/uuid", b"noise\n"),
            ("etc/sysctl.d/9.conf", b"# c\nkernel.core_pattern = core\n"),
        ]);
        let rows = rows(system_controls(&context(dir.path())));
        assert_eq!(rows.len(), 1);
        assert_eq!((&rows[0]["current_value"], &rows[0]["config_value"]), (&"|/x".into(), &"core".into()));
    }
}
