//! Programs from outside that say whom to ask (targets) or that ask (collectors), in JSON lines.
//!
//! `docs/plugins.md` is the protocol. A program gets one request as JSON on its stdin, and prints JSON lines. It is
//! bounded as `super::program` bounds it, and nothing that it says is believed before it is checked.

mod answer;
mod collector;
mod describe;
mod inventory;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

pub use self::collector::{HostFacts, PluginCollector, PluginConfig};
pub use self::describe::{Description, describe};
pub use self::inventory::{Lines, list};
use super::judge::last_line;
use super::program::{Directory, Ended, Environment, Program};

/// The version of the protocol, in requests and in `describe`.
pub const PROTOCOL: u64 = 1;

/// A program that speaks the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    /// How the user named it, for messages and manifests: `exec:…`, or the name of a plugin on `PATH`.
    pub name: String,
    /// The program.
    pub path: PathBuf,
    /// What follows its name.
    pub args: Vec<String>,
    /// Whether it is from `PATH`: then it is told in its arguments what it is run for.
    pub is_on_path: bool,
}

impl Plugin {
    /// As a program to be run. It gets the environment of the user, because it needs the user's way into a cloud.
    fn program(&self, purpose: &[&str]) -> Program {
        let purpose = if self.is_on_path { purpose } else { &[] };
        let args = self.args.iter().map(String::as_str).chain(purpose.iter().copied());
        Program {
            path: self.path.clone(),
            args: args.map(OsString::from).collect(),
            environment: Environment::Inherited(vec![(
                "DIFFY_PLUGIN".to_owned(),
                PROTOCOL.to_string().into(),
            )]),
            directory: Directory::Same,
        }
    }
}

impl fmt::Display for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// How a program ended, as a part of a sentence; `None` when all is well.
fn trouble(ended: &Ended, stderr: &[u8]) -> Option<String> {
    let how = match ended {
        Ended::Exit(status) if status.success() => return None,
        Ended::Exit(status) => format!("ended with {status}"),
        Ended::Timeout => "did not end in time and was killed".to_owned(),
        Ended::TooLong(bytes) => format!("printed more than {bytes} bytes and was killed"),
        Ended::Stopped => "was stopped".to_owned(),
        Ended::Failed(why) => format!("failed: {why}"),
    };
    let said = last_line(stderr);
    Some(if said.is_empty() { how } else { format!("{how}: {said}") })
}
