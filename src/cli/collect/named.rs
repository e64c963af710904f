//! What `--collector` says.

use std::ffi::OsStr;
use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;
use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};

use crate::error::{Error, Result};
use crate::target::{ExecCommand, is_plugin_name};

/// A collector that is built in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum CollectorName {
    /// osqueryi on this machine, one query at a time.
    Osquery,
    /// No osquery needed: /proc and files of this Linux machine.
    Native,
    /// Systems Manager Run Command: osquery on instances in AWS.
    Ssm,
    /// Your own OpenSSH client: osquery on hosts of a list, or this diffy where there is none.
    Ssh,
}

/// How to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CollectorSpec {
    /// As Diffy can by itself.
    BuiltIn(CollectorName),
    /// Through a command, started once for each host.
    Exec(ExecCommand),
    /// Through the program `diffy-collector-NAME`.
    Plugin(String),
}

impl FromStr for CollectorSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Ok(name) = CollectorName::from_str(text, false) {
            return Ok(Self::BuiltIn(name));
        }
        match text.strip_prefix("exec:") {
            Some(text) => text.parse().map(Self::Exec),
            None if is_plugin_name(text) => Ok(Self::Plugin(text.to_owned())),
            None => Err(Error::usage(format!("`{}` is no collector", text.escape_debug()))),
        }
    }
}

impl fmt::Display for CollectorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn(name) => {
                f.write_str(name.to_possible_value().as_ref().map_or("", PossibleValue::get_name))
            }
            Self::Exec(command) => command.fmt(f),
            Self::Plugin(name) => f.write_str(name),
        }
    }
}

/// Reads a collector, and lists those that there are for help and completions.
#[derive(Debug, Clone, Copy)]
pub(super) struct CollectorParser;

impl TypedValueParser for CollectorParser {
    type Value = CollectorSpec;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Self::Value, clap::Error> {
        StringValueParser::new()
            .try_map(|text| text.parse::<CollectorSpec>())
            .parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let built_in = CollectorName::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let others = [
            ("exec:COMMAND", "A command that is started for each host; docs/plugins.md says what it is told"),
            ("NAME", "The program diffy-collector-NAME on PATH, in the same way"),
        ];
        let others = others.map(|(name, help)| PossibleValue::new(name).help(help));
        Some(Box::new(built_in.chain(others)))
    }
}
