//! Tables about what starts by itself: systemd units, init scripts and desktop autostart.
//!
//! osquery asks systemd over D-Bus; here the unit files are read, so that units which are not loaded are listed too and
//! what only the running systemd knows (`active_state` and its likes) stays unknown.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::accounts;
use super::context::{Context, Gathered, file_name, lines, split_once};

/// Directories of units, the first one that has a unit wins.
const UNITS: [&str; 13] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/etc/systemd/system.attached",
    "/run/systemd/system",
    "/run/systemd/system.attached",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.late",
];

/// Endings of unit names.
const KINDS: [&[u8]; 11] = [
    b".service",
    b".socket",
    b".device",
    b".mount",
    b".automount",
    b".swap",
    b".target",
    b".path",
    b".timer",
    b".slice",
    b".scope",
];

/// Endings of directories whose links enable units.
const WANTS: [&[u8]; 3] = [b".wants", b".requires", b".upholds"];

/// One unit, as far as files tell.
#[derive(Debug, Default)]
struct Unit {
    description: Vec<u8>,
    load_state: &'static str,
    unit_file_state: &'static str,
    fragment_path: Vec<u8>,
    source_path: Vec<u8>,
    user: Vec<u8>,
}

/// Table `systemd_units`.
pub(super) fn systemd_units(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("files");
    for (id, unit) in units(context, &mut gathered) {
        gathered.rows.push(|row| {
            row.text("id", id).text("description", unit.description).text("load_state", unit.load_state);
            row.text("unit_file_state", unit.unit_file_state).text("fragment_path", unit.fragment_path);
            row.text("user", unit.user).text("source_path", unit.source_path);
        });
    }
    gathered
}

/// Table `startup_items`.
pub(super) fn startup_items(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("files");
    let users = accounts::list(context, &mut gathered);
    for user in &users {
        let config = user.home(context).join(".config");
        autostart(context, &mut gathered, &config.join("autostart"), &user.name);
        scripts(context, &mut gathered, &config.join("autostart-scripts"), &user.name);
    }
    scripts(context, &mut gathered, &context.path("/etc/init.d"), b"");
    autostart(context, &mut gathered, &context.path("/etc/xdg/autostart"), b"");
    for (id, unit) in units(context, &mut gathered) {
        gathered.rows.push(|row| {
            row.text("name", id).text("path", unit.fragment_path).text("args", "");
            row.text("type", "systemd unit").text("source", unit.source_path).text("username", unit.user);
        });
    }
    gathered
}

/// Desktop files: what they run.
fn autostart(context: &Context, gathered: &mut Gathered, dir: &Path, user: &[u8]) {
    for (path, metadata) in gathered.list(context, dir) {
        if metadata.is_dir() {
            continue;
        }
        let text = gathered.read_own(context, &path).unwrap_or_default();
        let name = setting(&text, b"Desktop Entry", b"Name").unwrap_or_default();
        let command = setting(&text, b"Desktop Entry", b"Exec").unwrap_or_default();
        let source = context.shown(dir);
        startup_row(gathered, (name, command), &source, user);
    }
}

fn scripts(context: &Context, gathered: &mut Gathered, dir: &Path, user: &[u8]) {
    for (path, metadata) in gathered.list(context, dir) {
        if !metadata.is_dir() {
            let shown = context.shown(&path);
            startup_row(gathered, (file_name(&path), &shown), &context.shown(dir), user);
        }
    }
}

fn startup_row(gathered: &mut Gathered, item: (&[u8], &[u8]), dir: &[u8], user: &[u8]) {
    gathered.rows.push(|row| {
        row.text("name", item.0).text("path", item.1).text("args", "").text("type", "Startup Item");
        // osquery prints its own list of directories, which end with a slash.
        row.text("source", [dir, b"/"].concat());
        row.text("status", "enabled").text("username", user);
    });
}

/// All units by name.
fn units(context: &Context, gathered: &mut Gathered) -> BTreeMap<Vec<u8>, Unit> {
    let mut files: BTreeMap<Vec<u8>, (PathBuf, Metadata)> = BTreeMap::new();
    let mut enabled: BTreeMap<Vec<u8>, &'static str> = BTreeMap::new();
    for dir in context.real_dirs(&UNITS) {
        let by_whom = enabled_word(&context.shown(&dir));
        for (path, metadata) in gathered.list(context, &dir) {
            if metadata.is_dir() && WANTS.iter().any(|end| file_name(&path).ends_with(end)) {
                let wanted = gathered.list(context, &path).into_iter();
                let names = wanted.map(|(path, _)| file_name(&path).to_vec()).filter(|name| is_unit(name));
                names.for_each(|name| _ = enabled.entry(name).or_insert(by_whom));
            } else if is_unit(file_name(&path)) && !metadata.is_dir() {
                if let Some(real) = alias_of(&path, &metadata) {
                    enabled.entry(real).or_insert(by_whom);
                } else {
                    files.entry(file_name(&path).to_vec()).or_insert((path, metadata));
                }
            }
        }
    }
    let names: BTreeSet<Vec<u8>> = files.keys().chain(enabled.keys()).cloned().collect();
    let mut units = BTreeMap::new();
    for name in names {
        if !gathered.goes_on(context) {
            break;
        }
        let state = enabled.get(&name).copied().unwrap_or_default();
        let file = files.get(&name).or_else(|| files.get(&template_of(&name)?));
        units.insert(name, read_unit(context, gathered, file, state));
    }
    units
}

/// What a link in a directory of wanted units says of the unit; nothing where the distribution put it.
fn enabled_word(dir: &[u8]) -> &'static str {
    match dir {
        dir if dir.starts_with(b"/etc/") => "enabled",
        b"/run/systemd/system" | b"/run/systemd/system.control" => "enabled-runtime",
        _ => "",
    }
}

fn is_unit(name: &[u8]) -> bool {
    KINDS.iter().any(|kind| name.len() > kind.len() && name.ends_with(kind))
}

/// The unit that a link with another name leads to.
fn alias_of(path: &Path, metadata: &Metadata) -> Option<Vec<u8>> {
    let target = fs::read_link(path).ok().filter(|_| metadata.is_symlink())?;
    let name = file_name(&target);
    (is_unit(name) && name != file_name(path)).then(|| name.to_vec())
}

/// `getty@.service` of `getty@tty1.service`.
fn template_of(name: &[u8]) -> Option<Vec<u8>> {
    let (prefix, instance) = split_once(name, b'@')?;
    let dot = memchr::memrchr(b'.', instance)?;
    Some([prefix, b"@", &instance[dot..]].concat())
}

fn read_unit(
    context: &Context,
    gathered: &mut Gathered,
    file: Option<&(PathBuf, Metadata)>,
    enabled: &'static str,
) -> Unit {
    let Some((path, metadata)) = file else {
        return Unit { load_state: "not-found", ..Unit::default() };
    };
    let fragment_path = context.shown(path);
    if is_masked(context, path, metadata) {
        let state = if fragment_path.starts_with(b"/run/") { "masked-runtime" } else { "masked" };
        return Unit { load_state: "masked", unit_file_state: state, fragment_path, ..Unit::default() };
    }
    let text = gathered.read(context, path).unwrap_or_default();
    let value = |section: &[u8], key: &[u8]| setting(&text, section, key).unwrap_or_default().to_vec();
    Unit {
        description: value(b"Unit", b"Description"),
        load_state: "loaded",
        unit_file_state: file_state(&fragment_path, metadata, &text, enabled),
        source_path: value(b"Unit", b"SourcePath"),
        user: value(b"Service", b"User"),
        fragment_path,
    }
}

fn is_masked(context: &Context, path: &Path, metadata: &Metadata) -> bool {
    let null = || fs::read_link(path).is_ok_and(|target| target.as_os_str().as_bytes() == b"/dev/null");
    let shown = context.shown(path);
    let by_admin = shown.starts_with(b"/etc/") || shown.starts_with(b"/run/");
    if metadata.is_symlink() { null() } else { metadata.len() == 0 && by_admin }
}

fn file_state(path: &[u8], metadata: &Metadata, text: &[u8], enabled: &'static str) -> &'static str {
    if path.starts_with(b"/run/systemd/generator") {
        return "generated";
    }
    if path.starts_with(b"/run/systemd/transient") {
        return "transient";
    }
    if !enabled.is_empty() {
        return enabled;
    }
    let installs = |key: &[u8]| setting(text, b"Install", key).is_some();
    if installs(b"WantedBy") || installs(b"RequiredBy") || installs(b"UpheldBy") || installs(b"Alias") {
        // A unit file that lies elsewhere and was only linked in.
        return if metadata.is_symlink() { "linked" } else { "disabled" };
    }
    if installs(b"Also") { "indirect" } else { "static" }
}

/// The last value of a key in a section that is not empty.
fn setting<'a>(text: &'a [u8], section: &[u8], key: &[u8]) -> Option<&'a [u8]> {
    let (mut inside, mut found) = (false, None);
    for line in lines(text) {
        if let Some(name) = line.strip_prefix(b"[") {
            inside = name.strip_suffix(b"]") == Some(section);
        } else if let Some((name, value)) = split_once(line, b'=')
            && inside
            && name.trim_ascii() == key
        {
            found = Some(value.trim_ascii()).filter(|value| !value.is_empty());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::context::tests::{context, host, rows};
    use super::*;

    #[test]
    fn unit_files_tell_their_state() {
        let service = b"[Unit]\nDescription=A b\n[Service]\nUser=web\nExecStart=/x\n[Install]\nWantedBy=multi-user.target\n";
        let dir = host(&[
            ("usr/lib/systemd/system/on.service", service),
            ("usr/lib/systemd/system/off.service", service),
            ("usr/lib/systemd/system/plain.service", b"[Service]\nUser=a\nUser=\n"),
            ("usr/lib/systemd/system/masked.service", service),
            ("usr/lib/systemd/system/also.socket", b"[Install]\nAlso=x\n"),
            ("usr/lib/systemd/system/getty@.service", service),
            ("run/systemd/generator/data.mount", b"[Unit]\nSourcePath=/etc/fstab\n"),
            ("etc/systemd/system/multi-user.target.wants/lost.service", b""),
            ("etc/systemd/system/notes.txt", b""),
        ]);
        let etc = dir.path().join("etc/systemd/system");
        symlink("/usr/lib/systemd/system/on.service", etc.join("multi-user.target.wants/on.service"))
            .unwrap();
        symlink(
            "/usr/lib/systemd/system/getty@.service",
            etc.join("multi-user.target.wants/getty@tty1.service"),
        )
        .unwrap();
        symlink("/usr/lib/systemd/system/on.service", etc.join("other.service")).unwrap();
        symlink("/dev/null", etc.join("masked.service")).unwrap();
        let found = rows(systemd_units(&context(dir.path())));
        let states: Vec<String> = found
            .iter()
            .map(|row| format!("{} {} {}", row["id"], row["load_state"], row["unit_file_state"]))
            .collect();
        assert_eq!(
            states.join("|").replace('"', ""),
            "also.socket loaded indirect|data.mount loaded generated|getty@.service loaded disabled|\
             getty@tty1.service loaded enabled|lost.service not-found |masked.service masked masked|\
             off.service loaded disabled|on.service loaded enabled|plain.service loaded static"
        );
        assert_eq!(found[3]["fragment_path"], "/usr/lib/systemd/system/getty@.service");
        assert_eq!((&found[7]["user"], &found[7]["description"]), (&"web".into(), &"A b".into()));
        assert_eq!((&found[8]["user"], found[8].get("active_state")), (&"".into(), None));
        assert_eq!(found[1]["source_path"], "/etc/fstab");
    }

    #[test]
    fn desktop_files_and_init_scripts_are_startup_items() {
        let dir = host(&[
            ("etc/passwd", b"bob:x:1000:1000::/home/bob:/bin/sh\n"),
            ("home/bob/.config/autostart/a.desktop", b"[Desktop Entry]\nName=A\nExec=/x --y=1\n"),
            ("etc/init.d/cron", b"#!/bin/sh\n"),
        ]);
        let found = rows(startup_items(&context(dir.path())));
        assert_eq!((&found[0]["path"], &found[0]["username"]), (&"/x --y=1".into(), &"bob".into()));
        assert_eq!((&found[1]["name"], &found[1]["source"]), (&"cron".into(), &"/etc/init.d/".into()));
    }
}
