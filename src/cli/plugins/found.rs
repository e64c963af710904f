//! Plugins on `PATH`: `diffy-target-NAME` and `diffy-collector-NAME`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::App;
use super::values;
use crate::collect::plugin::Plugin;
use crate::error::{Error, Result};
use crate::target::{ExecCommand, TargetSpec, is_plugin_name};

/// What a plugin does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Kind {
    /// Says whom to ask.
    Target,
    /// Asks.
    Collector,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Target, Self::Collector];

    pub(in super::super) fn as_str(self) -> &'static str {
        match self {
            Self::Target => "target",
            Self::Collector => "collector",
        }
    }

    /// Names that mean something else already.
    fn is_taken(self, name: &str) -> bool {
        let stands_for = |form: &str| form.split(':').next() == Some(name);
        match self {
            Self::Target => TargetSpec::FORMS.iter().any(|(form, _)| stands_for(form)),
            Self::Collector => values("collect", "collector").iter().any(|(form, _)| stands_for(form)),
        }
    }
}

/// A plugin on `PATH`.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// Who else could have put it there, or changed it.
    pub(super) warning: Option<String>,
    /// Why it is never used.
    pub(super) unused: Option<&'static str>,
}

/// The plugin of that name, to be run. A place where others can put programs is warned of.
pub(in super::super) fn plugin(app: &App, kind: Kind, name: &str) -> Result<Plugin> {
    let program = format!("diffy-{}-{name}", kind.as_str());
    let path = on_path(&app.settings.path, &program).ok_or_else(|| {
        let error = Error::usage(format!("there is no {} `{name}`", kind.as_str()));
        error.hint(format!("it would be `{program}` on PATH; `diffy plugins list` shows what there is"))
    })?;
    if let Some(warning) = open_to_others(&path) {
        app.output.warn(&warning);
    }
    Ok(Plugin { name: name.to_owned(), path, args: Vec::new(), is_on_path: true })
}

/// The command after `exec:`, to be run without a shell.
pub(in super::super) fn command(app: &App, command: &ExecCommand) -> Result<Plugin> {
    let (program, is_path) = (&command.program, command.program.contains('/'));
    let path = match is_path {
        true => Some(PathBuf::from(program)).filter(|path| is_program(path)),
        false => on_path(&app.settings.path, program),
    };
    let path = path.ok_or_else(|| {
        let place = if is_path { "is no program that can be run" } else { "is not on PATH" };
        Error::usage(format!("`{}` {place}", program.escape_debug()))
            .hint("a program beside you is `exec:./PROGRAM`")
    })?;
    Ok(Plugin { name: command.to_string(), path, args: command.args.clone(), is_on_path: false })
}

/// The first program of that name. A relative entry of `PATH` means another directory wherever one stands: it is
/// left out.
pub(in crate::cli) fn on_path(path: &[PathBuf], program: &str) -> Option<PathBuf> {
    let dirs = path.iter().filter(|dir| dir.is_absolute());
    dirs.map(|dir| dir.join(program)).find(|path| is_program(path))
}

/// All plugins on `PATH`, in the order of kinds and names; of several of a name the first is used.
pub(super) fn all(path: &[PathBuf]) -> Vec<Found> {
    let mut found: BTreeMap<(Kind, String), Vec<Found>> = BTreeMap::new();
    let mut seen: Vec<&PathBuf> = Vec::new();
    for dir in path.iter().filter(|dir| dir.is_absolute()) {
        if seen.contains(&dir) {
            continue;
        }
        seen.push(dir);
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()).filter(|path| is_program(path)) {
            let Some((kind, name)) = named(&path) else { continue };
            let those = found.entry((kind, name.clone())).or_default();
            let unused = match () {
                () if kind.is_taken(&name) => Some("not used: the name is built in"),
                () if !is_plugin_name(&name) => Some("not used: a name has a-z, 0-9 and - only"),
                () if !those.is_empty() => Some("not used: another stands before it on PATH"),
                () => None,
            };
            those.push(Found { kind, name, warning: open_to_others(&path), path, unused });
        }
    }
    found.into_values().flatten().collect()
}

/// Which plugin a file is by its name; names that are no UTF-8 are no names.
fn named(path: &Path) -> Option<(Kind, String)> {
    let file = path.file_name()?.to_str()?;
    let of_kind = |kind: Kind| {
        let name = file.strip_prefix("diffy-")?.strip_prefix(kind.as_str())?.strip_prefix('-')?;
        Some((kind, name.to_owned()))
    };
    Kind::ALL.into_iter().find_map(of_kind)
}

#[cfg(unix)]
fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(path: &Path) -> bool {
    path.is_file()
}

/// Whether everybody may write the program, or put another one in its place.
#[cfg(unix)]
fn open_to_others(path: &Path) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    let is_open = |path: &Path| path.metadata().is_ok_and(|entry| entry.permissions().mode() & 0o002 != 0);
    if is_open(path) {
        return Some(format!("everybody may change `{}`", path.display()));
    }
    // The directory on PATH, and the one that a link leads to.
    let real = path.canonicalize().ok();
    let dirs = [path.parent(), real.as_deref().and_then(Path::parent)];
    let dir = dirs.into_iter().flatten().find(|dir| is_open(dir))?;
    Some(format!("everybody may put programs into `{}`, where `{}` is", dir.display(), path.display()))
}

#[cfg(not(unix))]
fn open_to_others(_path: &Path) -> Option<String> {
    None
}
