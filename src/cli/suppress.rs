//! The flags of `diffy analyze` that are about suppressions, and the files behind them.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::App;
use crate::analyze::{NewSuppression, Suppressions, identifying_columns, is_too_wide, parse_date};
use crate::error::{Error, Result};
use crate::model::{Analysis, Finding, FindingKind, now};

/// Largest file of suppressions, in bytes.
const MOST_BYTES: u64 = 4 << 20;

/// What to leave out because somebody vouches for it.
#[derive(Debug, clap::Args)]
pub(super) struct SuppressArgs {
    /// Leave out the findings that a file of suppressions (TOML) vouches for; may be repeated [env: DIFFY_SUPPRESS]
    #[arg(long, value_name = "FILE", help_heading = "Suppressions")]
    suppress: Vec<PathBuf>,
    /// List what is left out, with the reasons
    #[arg(long, help_heading = "Suppressions")]
    show_suppressed: bool,
    /// Add the finding with this id to the file of suppressions instead of printing the result
    #[arg(long, value_name = "ID", requires = "reason", help_heading = "Suppressions")]
    suppress_add: Option<String>,
    /// Why the finding is harmless, with --suppress-add
    #[arg(long, value_name = "TEXT", requires = "suppress_add", help_heading = "Suppressions")]
    reason: Option<String>,
    /// The last day on which the new suppression holds, as 2026-12-31
    #[arg(long, value_name = "DATE", requires = "suppress_add", help_heading = "Suppressions")]
    until: Option<String>,
    /// The new suppression holds for the host of the finding only
    #[arg(long, requires = "suppress_add", help_heading = "Suppressions")]
    this_host: bool,
}

impl SuppressArgs {
    /// Reads the files; one that is about to be made may be absent.
    pub(super) fn load(&self, app: &App) -> Result<Suppressions> {
        self.check_reason()?;
        let mut all = Suppressions::default();
        for path in self.files(app) {
            let text = read(path, self.suppress_add.is_some())?;
            all.extend(Suppressions::parse(&text, &path.display().to_string())?);
        }
        Ok(all)
    }

    fn files<'a>(&'a self, app: &'a App) -> &'a [PathBuf] {
        if self.suppress.is_empty() { &app.settings.suppress } else { &self.suppress }
    }

    fn check_reason(&self) -> Result<()> {
        match &self.reason {
            Some(reason) if reason.trim().is_empty() => Err(Error::usage("a suppression needs a reason")
                .hint("`--reason` says why the finding is harmless; whoever reads it next year must be able to judge it")),
            _ => Ok(()),
        }
    }

    /// Without this flag the findings are counted only.
    pub(super) fn trim(&self, analysis: &mut Analysis) {
        if !self.show_suppressed {
            analysis.suppressed.list.clear();
        }
    }

    /// Writes the new suppression, if one was asked for; says whether.
    pub(super) fn add(&self, app: &App, analysis: &Analysis) -> Result<bool> {
        let Some(id) = &self.suppress_add else { return Ok(false) };
        let [path] = self.files(app) else {
            return Err(Error::usage("which file of suppressions?").hint(
                "`--suppress-add` takes exactly one `--suppress FILE`; it is made where it is not there yet",
            ));
        };
        let new = self.new_suppression(app, find(analysis, id)?)?;
        let name = path.display().to_string();
        let text = read(path, true)?;
        let appended = new.append_to(&text, &name)?;
        refuse_too_wide(&new, analysis)?;
        replace(path, &appended)?;
        app.output.say(&format!("added to {name}:\n{}", new.to_toml()));
        Ok(true)
    }

    fn new_suppression(&self, app: &App, (host, finding): (&str, &Finding)) -> Result<NewSuppression> {
        let host_only = self.this_host || finding.kind == FindingKind::Coverage;
        let until = self
            .until
            .as_deref()
            .map(parse_date)
            .transpose()
            .map_err(|error| error.with("flag", "--until"))?;
        let today = now().date_naive();
        if until.is_some_and(|until| until < today) {
            return Err(Error::usage("`--until` is in the past").hint("leave it away, or name a day to come"));
        }
        Ok(NewSuppression {
            table: finding.table.clone(),
            kind: finding.kind,
            columns: identifying_columns(app.catalog.table(&finding.table), finding),
            host: host_only.then(|| host.to_owned()),
            reason: self.reason.clone().unwrap_or_default(),
            who: app.settings.who.clone(),
            created: today,
            until,
        })
    }
}

fn find<'a>(analysis: &'a Analysis, id: &str) -> Result<(&'a str, &'a Finding)> {
    let shown =
        analysis.hosts.iter().flat_map(|host| host.findings.iter().map(|found| (host.host.as_str(), found)));
    shown.into_iter().find(|(_, finding)| finding.id == id).ok_or_else(|| {
        let error = Error::usage(format!("there is no finding `{}`", id.escape_debug()));
        match analysis.suppressed.list.iter().any(|gone| gone.finding.id == id) {
            true => error.hint("it is suppressed already; `--show-suppressed` says by what"),
            false => error.hint("`diffy analyze --format json` has the `id` of each finding"),
        }
    })
}

/// What would not be applied is not written.
fn refuse_too_wide(new: &NewSuppression, analysis: &Analysis) -> Result<()> {
    let alone = Suppressions::parse(&new.to_toml(), "new")?;
    let on = alone.hosts_taken(analysis);
    if is_too_wide(on, analysis.hosts.len()) {
        let hosts = analysis.hosts.len();
        return Err(Error::usage(format!("the suppression would take findings from {on} of {hosts} hosts"))
            .hint("`--this-host` takes it from this one; what more than half have is for a baseline"));
    }
    Ok(())
}

fn read(path: &Path, may_be_absent: bool) -> Result<String> {
    let cannot = |source| {
        Error::config(format!("cannot read `{}`", path.display()))
            .source(source)
            .hint("`--suppress` names a file of suppressions")
    };
    let length = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if may_be_absent && error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(source) => return Err(cannot(source)),
    };
    if length > MOST_BYTES {
        return Err(Error::config(format!("`{}` is too large for a file of suppressions", path.display()))
            .hint("it has at most 4 MiB"));
    }
    fs::read_to_string(path).map_err(cannot)
}

/// Puts `text` in the place of the file: whoever reads at the same time sees the old one or the new one.
fn replace(path: &Path, text: &str) -> Result<()> {
    let cannot = |source: io::Error| {
        Error::remote(format!("cannot write `{}`", path.display()))
            .source(source)
            .hint("`--suppress` names a file in a directory that can be written")
    };
    // A link stays one.
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let dir = real.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".diffy-suppress-").tempfile_in(dir).map_err(cannot)?;
    match fs::metadata(&real) {
        Ok(metadata) => file.as_file().set_permissions(metadata.permissions()).map_err(cannot)?,
        Err(_) => share(file.as_file()).map_err(cannot)?,
    }
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(cannot)?;
    file.persist(&real).map_err(|error| cannot(error.error))?;
    Ok(())
}

/// A new file may be read by everybody; temporary ones are private.
#[cfg(unix)]
fn share(file: &fs::File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn share(_: &fs::File) -> io::Result<()> {
    Ok(())
}
