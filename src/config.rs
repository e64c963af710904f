//! Settings from file and environment. The only room that reads the environment.
//!
//! Precedence: flag, then environment variable, then file, then default.

mod sections;

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

pub use self::sections::{AssumeRoleFile, AwsFile, FleetFile, PushBinary, S3File};

use crate::error::{Error, Result};

/// The file that is read when it is there and no other is named.
pub const DEFAULT_FILE: &str = "diffy.toml";
/// The store when nobody names one.
pub const DEFAULT_STORE: &str = "./diffy-store";
/// Memory that sorts and queries may hold, in bytes, when nobody says.
pub const DEFAULT_MEMORY: u64 = 384 << 20;

/// `diffy.toml`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The store.
    pub store: Option<String>,
    /// The fleet.
    pub fleet: Option<String>,
    /// Directory of further table schemas.
    pub schemas: Option<PathBuf>,
    /// Directory of further saved queries.
    pub sql: Option<PathBuf>,
    /// Memory that sorts and queries may hold, in MiB.
    pub memory_limit_mib: Option<u64>,
    /// Files of suppressions.
    #[serde(default)]
    pub suppress: Vec<PathBuf>,
    /// Directory of spools and sort runs of stores that are not local.
    pub spool: Option<PathBuf>,
    /// How AWS is spoken to.
    #[serde(default)]
    pub aws: AwsFile,
    /// How S3 is spoken to.
    #[serde(default)]
    pub s3: S3File,
    /// Fleets that `diffy collect --all` collects.
    #[serde(default)]
    pub fleets: Vec<FleetFile>,
}

/// What flags say; `None` where they say nothing.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--store`.
    pub store: Option<String>,
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--schemas`.
    pub schemas: Option<PathBuf>,
    /// `--sql`.
    pub sql: Option<PathBuf>,
    /// `--memory-limit`, in MiB.
    pub memory_limit_mib: Option<u64>,
}

/// What holds, all sources together.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The store.
    pub store: String,
    /// Whether nobody named the store.
    pub store_is_default: bool,
    /// The fleet, where environment or file name one.
    pub fleet: Option<String>,
    /// Directory of further table schemas.
    pub schemas: Option<PathBuf>,
    /// Directory of further saved queries.
    pub sql: Option<PathBuf>,
    /// Files of suppressions, where environment or file name some.
    pub suppress: Vec<PathBuf>,
    /// Memory that sorts and queries may hold, in bytes.
    pub memory_limit_bytes: usize,
    /// Columns of the terminal, where the environment says so.
    pub columns: Option<usize>,
    /// Whether the environment forbids colour.
    pub no_color: bool,
    /// User and machine, for the manifest.
    pub who: String,
    /// Where the prompt keeps its history.
    pub history: Option<PathBuf>,
    /// Directory of spools and sort runs of stores that are not local; empty where nothing names one.
    pub spool: PathBuf,
    /// How AWS is spoken to; what is not said is found as the AWS CLI finds it.
    pub aws: AwsFile,
    /// How S3 is spoken to.
    pub s3: S3File,
    /// Directories that programs are looked for in.
    pub path: Vec<PathBuf>,
    /// Fleets of the configuration.
    pub fleets: Vec<FleetFile>,
}

/// The JSON schema of `diffy.toml`, for editors and other programs; what each key means is in it.
pub fn schema() -> String {
    let mut settings = schemars::generate::SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    let settings = settings.with_transform(schemars::transform::RecursiveTransform(without_null));
    let mut schema = settings.into_generator().into_root_schema_for::<File>();
    schema.insert("title".to_owned(), "diffy.toml".into());
    format!("{:#}\n", schema.to_value())
}

/// TOML has no null: a key is there or not.
fn without_null(schema: &mut schemars::Schema) {
    let Some(types) = schema.get("type").and_then(|types| types.as_array()) else { return };
    let types: Vec<_> = types.iter().filter(|kind| *kind != "null").cloned().collect();
    if let [kind] = types.as_slice() {
        schema.insert("type".to_owned(), kind.clone());
    }
}

/// A variable that is set and not empty.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether the environment forbids colour.
pub fn no_color() -> bool {
    variable("NO_COLOR").is_some()
}

impl Settings {
    /// Reads file and environment and puts the flags over them.
    ///
    /// # Errors
    /// The file is named and cannot be read, or says what cannot be; a variable has no usable value.
    pub fn load(flags: Flags) -> Result<Self> {
        let file =
            read_file(flags.config.or_else(|| variable("DIFFY_CONFIG").map(PathBuf::from)).as_deref())?;
        let memory_mib = match variable("DIFFY_MEMORY_LIMIT") {
            _ if flags.memory_limit_mib.is_some() => flags.memory_limit_mib,
            Some(text) => Some(text.parse().map_err(|source| {
                Error::config(format!("DIFFY_MEMORY_LIMIT `{text}` is no number of MiB")).source(source)
            })?),
            None => file.memory_limit_mib,
        };
        let store = flags.store.or_else(|| variable("DIFFY_STORE")).or(file.store);
        let memory = memory_mib.map_or(DEFAULT_MEMORY, |mib| mib.saturating_mul(1 << 20));
        Ok(Self {
            store_is_default: store.is_none(),
            store: store.unwrap_or_else(|| DEFAULT_STORE.to_owned()),
            fleet: variable("DIFFY_FLEET").or(file.fleet),
            schemas: flags.schemas.or_else(|| variable("DIFFY_SCHEMAS").map(PathBuf::from)).or(file.schemas),
            sql: flags.sql.or_else(|| variable("DIFFY_SQL").map(PathBuf::from)).or(file.sql),
            suppress: variable("DIFFY_SUPPRESS")
                .map_or(file.suppress, |paths| std::env::split_paths(&paths).collect()),
            memory_limit_bytes: usize::try_from(memory).unwrap_or(usize::MAX),
            columns: variable("COLUMNS").and_then(|columns| columns.parse().ok()),
            no_color: no_color(),
            who: who(),
            history: state("history"),
            spool: variable("DIFFY_SPOOL")
                .map(PathBuf::from)
                .or(file.spool)
                .or(state("spool"))
                .unwrap_or_default(),
            aws: file.aws.below_environment(),
            s3: S3File { endpoint: variable("AWS_ENDPOINT_URL_S3").or(file.s3.endpoint), ..file.s3 },
            fleets: file.fleets,
            path: variable("PATH").iter().flat_map(std::env::split_paths).collect(),
        })
    }
}

fn read_file(named: Option<&Path>) -> Result<File> {
    let path = named.unwrap_or(Path::new(DEFAULT_FILE));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(File::default());
        }
        Err(source) => {
            return Err(Error::config(format!("cannot read `{}`", path.display()))
                .source(source)
                .hint("`--config` names the configuration file"));
        }
    };
    toml::from_str(&text).map_err(|source| {
        Error::config(format!("`{}` is no configuration of Diffy", path.display())).source(source)
    })
}

fn who() -> String {
    let user = variable("SUDO_USER").or_else(|| variable("USER")).or_else(|| variable("LOGNAME"));
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{}@{host}", user.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw())))
}

/// A place of ours among what programs keep for a user.
fn state(name: &str) -> Option<PathBuf> {
    let state = variable("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".local/state")))?;
    Some(state.join("diffy").join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, "stroe = \"x\"\n").unwrap();
        let error = read_file(Some(&path)).unwrap_err().to_string();
        assert!(error.contains("stroe") && error.contains("c.toml"), "{error}");
    }

    #[test]
    fn a_named_file_must_be_there() {
        assert!(read_file(Some(Path::new("/nonexistent/diffy.toml"))).is_err());
    }

    #[test]
    fn flags_win() {
        let flags = Flags { store: Some("/x".to_owned()), memory_limit_mib: Some(64), ..Flags::default() };
        let settings = Settings::load(flags).unwrap();
        assert_eq!((settings.store.as_str(), settings.memory_limit_bytes), ("/x", 64 << 20));
        assert!(!settings.store_is_default);
    }
}
