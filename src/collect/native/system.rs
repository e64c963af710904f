//! Tables that say what kind of host this is.

use std::path::Path;

use super::context::{Context, Gathered, lines, number, split_once};
use super::processes::field;

/// Table `os_version`: one row.
pub(super) fn os_version(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("files");
    let etc = gathered.read(context, &context.path("/etc/os-release"));
    let text =
        etc.or_else(|| gathered.read(context, &context.path("/usr/lib/os-release"))).unwrap_or_default();
    let value = |key: &[u8]| {
        let found = lines(&text).filter_map(|line| split_once(line, b'=')).find(|(name, _)| *name == key);
        found.map(|(_, value)| unquote(value)).unwrap_or_default()
    };
    let id = value(b"VERSION_ID");
    let mut parts = id.splitn(3, |byte| *byte == b'.').filter(|part| !part.is_empty());
    gathered.rows.push(|row| {
        let name = value(b"NAME");
        row.text("name", if name.is_empty() { b"Unknown" } else { &name[..] });
        row.text("version", value(b"VERSION"));
        for column in ["major", "minor", "patch"] {
            row.text(column, parts.next().unwrap_or(b"0"));
        }
        let platform = value(b"ID");
        row.text("build", value(b"BUILD_ID"));
        row.text("platform", if platform.is_empty() { b"posix" } else { &platform[..] });
        row.text("platform_like", value(b"ID_LIKE")).text("codename", value(b"VERSION_CODENAME"));
        row.text("arch", rustix::system::uname().machine().to_bytes());
    });
    gathered
}

/// A value of os-release without its quotes and backslashes.
fn unquote(value: &[u8]) -> Vec<u8> {
    let quote = value.first().copied().filter(|first| matches!(first, b'"' | b'\''));
    let inner = quote.and_then(|quote| value.get(1..)?.strip_suffix(&[quote]));
    let Some(inner) = inner else { return value.to_vec() };
    inner.iter().copied().filter(|byte| *byte != b'\\').collect()
}

/// Table `system_info`: one row.
pub(super) fn system_info(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("files");
    let mut part = |path: &str| {
        let text = gathered.read(context, &context.path(path));
        text.map(|text| text.trim_ascii().to_vec())
    };
    let dmi = DMI.map(|(column, file)| (column, part(&format!("/sys/class/dmi/id/{file}"))));
    let cpu = part("/proc/cpuinfo").unwrap_or_default();
    let memory = part("/proc/meminfo").unwrap_or_default();
    let hostname = part("/proc/sys/kernel/hostname").unwrap_or_default();
    let first = |key: &[u8]| field(&cpu, key).unwrap_or_default();
    let memory = field(&memory, b"MemTotal").and_then(|value| number::<i64>(value.strip_suffix(b"kB")?));
    let logical = lines(&cpu).filter(|line| line.starts_with(b"processor")).count();
    let (sockets, cores) = sockets_and_cores(&cpu);
    gathered.rows.push(|row| {
        row.text("hostname", &hostname).text("computer_name", &hostname).text("local_hostname", &hostname);
        row.text("cpu_type", rustix::system::uname().machine().to_bytes())
            .text("cpu_brand", first(b"model name"));
        let model = first(b"model");
        row.text("cpu_subtype", if model.is_empty() { b"0" } else { model });
        row.text("cpu_microcode", first(b"microcode")).show("cpu_logical_cores", logical);
        row.show("cpu_physical_cores", cores.unwrap_or(logical)).show("cpu_sockets", sockets);
        row.show("physical_memory", memory.map_or(-1, |kib| kib.saturating_mul(1024)));
        for (column, value) in dmi {
            row.known(column, value);
        }
    });
    gathered
}

/// Columns of `system_info` and their files below `/sys/class/dmi/id`; serial numbers and the UUID are for root only.
const DMI: [(&str, &str); 9] = [
    ("uuid", "product_uuid"),
    ("hardware_vendor", "sys_vendor"),
    ("hardware_model", "product_name"),
    ("hardware_version", "product_version"),
    ("hardware_serial", "product_serial"),
    ("board_vendor", "board_vendor"),
    ("board_model", "board_name"),
    ("board_version", "board_version"),
    ("board_serial", "board_serial"),
];

/// Number of sockets, and of physical cores where the kernel tells.
fn sockets_and_cores(cpu: &[u8]) -> (usize, Option<usize>) {
    let values = |key: &[u8]| -> Vec<&[u8]> {
        let found =
            lines(cpu).filter_map(|line| line.strip_prefix(key)?.trim_ascii_start().strip_prefix(b":"));
        found.map(<[u8]>::trim_ascii).collect()
    };
    let sockets = values(b"physical id");
    let mut cores: Vec<(&[u8], &[u8])> = sockets.iter().copied().zip(values(b"core id")).collect();
    cores.sort_unstable();
    cores.dedup();
    let mut distinct = sockets;
    distinct.sort_unstable();
    distinct.dedup();
    (distinct.len().max(1), (!cores.is_empty()).then_some(cores.len()))
}

/// Table `uptime`: one row.
pub(super) fn uptime(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("files");
    let path: &Path = &context.path("/proc/uptime");
    let text = gathered.read(context, path).unwrap_or_default();
    let seconds = text.split(|byte| *byte == b'.').next().and_then(number::<u64>);
    if let Some(seconds) = seconds {
        gathered.rows.push(|row| {
            row.show("days", seconds / 86400).show("hours", seconds / 3600 % 24);
            row.show("minutes", seconds / 60 % 60)
                .show("seconds", seconds % 60)
                .show("total_seconds", seconds);
        });
    }
    gathered
}

#[cfg(test)]
mod tests {
    use super::super::context::tests::{context, host, rows};
    use super::*;

    #[test]
    fn the_release_is_taken_apart() {
        let text = b"NAME=\"Ubuntu\"\nVERSION_ID=\"22.04\"\nVERSION='22.04 \"x\"'\nID=ubuntu\nVERSION_CODENAME=jammy\n";
        let found = rows(os_version(&context(host(&[("etc/os-release", text)]).path())));
        for (column, value) in [
            ("name", "Ubuntu"),
            ("major", "22"),
            ("minor", "04"),
            ("patch", "0"),
            ("version", "22.04 \"x\""),
            ("platform", "ubuntu"),
            ("codename", "jammy"),
        ] {
            assert_eq!(found[0][column], value, "{column}");
        }
    }

    #[test]
    fn the_machine_is_described_as_far_as_it_can_be_read() {
        let cpu = b"processor\t: 0\nmodel\t\t: 85\nmodel name\t: Xeon\nphysical id\t: 0\ncore id\t: 0\n\nprocessor\t: 1\nphysical id\t: 0\ncore id\t: 0\n";
        let dir = host(&[
            ("proc/cpuinfo", cpu),
            ("proc/meminfo", b"MemTotal:       1024 kB\n"),
            ("proc/sys/kernel/hostname", b"web-1\n"),
            ("sys/class/dmi/id/sys_vendor", b"Amazon EC2\n"),
        ]);
        let found = rows(system_info(&context(dir.path())));
        let row = &found[0];
        assert_eq!((&row["hostname"], &row["hardware_vendor"]), (&"web-1".into(), &"Amazon EC2".into()));
        assert_eq!((&row["cpu_logical_cores"], &row["cpu_physical_cores"]), (&"2".into(), &"1".into()));
        assert_eq!((&row["cpu_subtype"], &row["physical_memory"]), (&"85".into(), &"1048576".into()));
        assert_eq!(row.get("uuid"), None);
    }

    #[test]
    fn uptime_is_split() {
        let found = rows(uptime(&context(host(&[("proc/uptime", b"90061.55 1.0\n")]).path())));
        assert_eq!(
            (&found[0]["days"], &found[0]["hours"], &found[0]["seconds"]),
            (&"1".into(), &"1".into(), &"1".into())
        );
    }
}
