//! Whom to ask: from `asg:web` to the list of hosts, with what the inventory knows of each.
//!
//! An inventory is taken once, before the first question: it is the denominator of the snapshot. Hosts that cannot be
//! asked are in it too, with the reason.

mod asg;
mod command;
mod hosts;
mod listed;
mod managed;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

pub use self::asg::Lifecycles;
pub use self::command::ExecCommand;
pub use self::hosts::{HostList, ListedHost, hosts_of_files};
pub use self::listed::Listing;
use crate::aws::Aws;
use crate::error::{Error, Result};
use crate::model::{Destination, KnownHost, Status, few};

/// Longest name of a group, a tag or an instance.
const LONGEST_NAME: usize = 256;
/// Longest command.
const LONGEST_COMMAND: usize = 4096;

/// What `--targets` says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum TargetSpec {
    /// This machine.
    Local,
    /// The instances of an Auto Scaling Group.
    Asg(String),
    /// The instances that Systems Manager knows with this tag.
    Tag(String, String),
    /// One instance, for instance one that was taken out of its group.
    Instance(String),
    /// The hosts of a file; `-` is standard input.
    Hosts(String),
    /// The hosts that a command lists.
    Exec(ExecCommand),
    /// The hosts that the program `diffy-target-NAME` lists for an argument.
    Plugin(String, String),
}

impl TargetSpec {
    /// The forms, and whom each names.
    pub const FORMS: [(&str, &str); 7] = [
        ("local", "this machine"),
        ("asg:NAME", "the instances of an Auto Scaling Group"),
        ("tag:KEY=VALUE", "the instances that Systems Manager knows with this tag"),
        ("instance:ID", "one instance"),
        ("hosts:FILE", "the hosts of a file"),
        ("exec:COMMAND", "the hosts that a command lists"),
        ("NAME:ARGUMENT", "the hosts that the program diffy-target-NAME lists"),
    ];

    /// Whether AWS is asked who the hosts are.
    pub fn is_aws(&self) -> bool {
        matches!(self, Self::Asg(_) | Self::Tag(..) | Self::Instance(_))
    }

    /// Whether a file or a program of the user lists the hosts.
    pub fn is_listed(&self) -> bool {
        matches!(self, Self::Hosts(_) | Self::Exec(_) | Self::Plugin(..))
    }
}

impl FromStr for TargetSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // The command line shows the message of an error and no hint.
        let unknown = || {
            Error::usage(format!(
                "`{}` names no targets; use `local`, `asg:NAME`, `tag:KEY=VALUE`, `instance:ID`, `hosts:FILE`, \
                 `exec:COMMAND` or `PLUGIN:ARGUMENT`",
                text.escape_debug()
            ))
        };
        if text == "local" {
            return Ok(Self::Local);
        }
        let (kind, name) = text.split_once(':').ok_or_else(unknown)?;
        if kind == "hosts" && !name.is_empty() {
            return Ok(Self::Hosts(name.to_owned()));
        }
        let longest = if kind == "exec" { LONGEST_COMMAND } else { LONGEST_NAME };
        if name.is_empty() || name.len() > longest || name.chars().any(char::is_control) {
            return Err(unknown());
        }
        match kind {
            "asg" => Ok(Self::Asg(name.to_owned())),
            "instance" if is_instance_id(name) => Ok(Self::Instance(name.to_owned())),
            "instance" => Err(Error::usage(format!(
                "`{}` is no instance id; one looks like i-0123456789abcdef0, or mi-… outside of EC2",
                name.escape_debug()
            ))),
            "tag" => match name.split_once('=') {
                Some((key, value)) if !key.is_empty() && !value.is_empty() => {
                    Ok(Self::Tag(key.to_owned(), value.to_owned()))
                }
                _ => Err(unknown()),
            },
            "exec" => name.parse().map(Self::Exec),
            _ if is_plugin_name(kind) => Ok(Self::Plugin(kind.to_owned(), name.to_owned())),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for TargetSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Asg(name) => write!(f, "asg:{name}"),
            Self::Tag(key, value) => write!(f, "tag:{key}={value}"),
            Self::Instance(id) => write!(f, "instance:{id}"),
            Self::Exec(command) => command.fmt(f),
            Self::Plugin(name, argument) => write!(f, "{name}:{argument}"),
            Self::Hosts(file) => write!(f, "hosts:{file}"),
        }
    }
}

/// Whether a plugin may have this name: `a-z`, `0-9` and, not at the ends, `-`; at most 40.
pub fn is_plugin_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=40).contains(&name.len())
        && name.bytes().all(is_plain)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Whether a text has the form of the id of an EC2 instance (`i-` and 8 or 17 hex digits) or of a managed node outside
/// of EC2 (`mi-` and 17).
pub fn is_instance_id(text: &str) -> bool {
    let is_hex = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    match (text.strip_prefix("mi-"), text.strip_prefix("i-")) {
        (Some(digits), _) => digits.len() == 17 && is_hex(digits),
        (None, Some(digits)) => [8, 17].contains(&digits.len()) && is_hex(digits),
        (None, None) => false,
    }
}

/// One host of an inventory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetHost {
    /// Its name, and what the inventory knows of it.
    pub known: KnownHost,
    /// Where it is reached, where that is not its name.
    pub address: Option<Destination>,
    /// Why it cannot be asked, where that is known beforehand.
    pub unreachable: Option<(Status, String)>,
}

impl TargetHost {
    /// A host of which nothing but its name is known.
    pub fn new(name: &str) -> Self {
        Self { known: KnownHost::new(name), address: None, unreachable: None }
    }

    /// A host that is reached at an address, which is a name of its own. The end of a tunnel here is not the host's.
    pub fn at(name: &str, address: Destination) -> Self {
        let place = &address.host;
        let is_here = place == "localhost" || place.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let names = if is_here { Vec::new() } else { vec![place.clone()] };
        let known = KnownHost { names, ..KnownHost::new(name) };
        Self { known, address: Some(address), unreachable: None }
    }
}

/// The hosts that targets name.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// Hosts that belong to the collection, by name; each once, whatever named it.
    pub hosts: Vec<TargetHost>,
    /// Members of groups that are left out because of their state: name and state.
    pub skipped: BTreeMap<String, String>,
    /// All members of the groups, whatever their state.
    pub members: BTreeSet<String>,
    /// What a reader should know.
    pub warnings: Vec<String>,
}

/// Takes the inventory of targets in AWS, and marks those that no living agent can be asked on.
///
/// # Errors
/// A group is unknown (the message names those that look alike), or AWS does not answer.
pub async fn inventory(aws: &Aws, targets: &[TargetSpec], states: Lifecycles) -> Result<Inventory> {
    let mut inventory = Inventory::default();
    let groups: BTreeSet<&str> = targets.iter().filter_map(group).collect();
    let mut named = named(aws, targets).await?;
    for member in asg::members(aws, &groups).await? {
        inventory.members.insert(member.id.clone());
        match states.reason_to_skip(&member) {
            // Who is named beside its group is asked in whatever state.
            Some(state) if !named.contains_key(&member.id) => {
                inventory.skipped.insert(member.id, state);
            }
            _ => {
                named.insert(member.id.clone(), member.into_host());
            }
        }
    }
    inventory.hosts = named.into_values().collect();
    if let Err(error) = managed::check(aws, &mut inventory.hosts).await {
        inventory.warnings.push(format!("the agents could not be checked beforehand: {error}"));
    }
    Ok(inventory)
}

/// Hosts that are named by id or by tag.
async fn named(aws: &Aws, targets: &[TargetSpec]) -> Result<BTreeMap<String, TargetHost>> {
    let mut hosts = BTreeMap::new();
    for target in targets {
        match target {
            TargetSpec::Instance(id) => {
                hosts.insert(id.clone(), TargetHost::new(id));
            }
            TargetSpec::Tag(key, value) => {
                let tagged = managed::tagged(aws, (key, value)).await?;
                hosts.extend(tagged.into_iter().map(|host| (host.known.name.clone(), host)));
            }
            TargetSpec::Asg(_)
            | TargetSpec::Local
            | TargetSpec::Hosts(_)
            | TargetSpec::Exec(_)
            | TargetSpec::Plugin(..) => {}
        }
    }
    Ok(hosts)
}

fn group(target: &TargetSpec) -> Option<&str> {
    match target {
        TargetSpec::Asg(name) => Some(name),
        _ => None,
    }
}

/// What became of the groups since the inventory was taken: sentences, none when all is as it was.
///
/// # Errors
/// AWS does not answer.
pub async fn changes(aws: &Aws, targets: &[TargetSpec], inventory: &Inventory) -> Result<Vec<String>> {
    let groups: BTreeSet<&str> = targets.iter().filter_map(group).collect();
    if groups.is_empty() {
        return Ok(Vec::new());
    }
    let now: BTreeSet<String> =
        asg::members(aws, &groups).await?.into_iter().map(|member| member.id).collect();
    let then = &inventory.members;
    let gone = then.difference(&now).map(String::as_str);
    let came = now.difference(then).map(String::as_str);
    let mut sentences = Vec::new();
    sentences.extend(list("left their group during the collection", gone));
    sentences.extend(list("came to a group during the collection and were not asked", came));
    Ok(sentences)
}

fn list<'a>(what: &str, ids: impl Iterator<Item = &'a str>) -> Option<String> {
    let ids: Vec<&str> = ids.collect();
    (!ids.is_empty()).then(|| format!("{} hosts {what}: {}", ids.len(), few(&ids)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_spelled_as_they_are_read() {
        for text in [
            "local",
            "asg:web",
            "asg:a:b",
            "tag:Role=web",
            "instance:i-0123456789abcdef0",
            "exec:./list 'a b'",
            "gcp:p1",
            "hosts:a/b.txt",
            "hosts:-",
        ] {
            assert_eq!(text.parse::<TargetSpec>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_target_is_refused_with_the_forms() {
        for text in [
            "",
            "web",
            "asg:",
            "tag:Role",
            "tag:Role=",
            "tag:=x",
            "instance:web-1",
            "Host:a",
            "a-:b",
            "asg:a\u{7}",
        ] {
            let error = text.parse::<TargetSpec>().unwrap_err();
            assert!(error.to_string().contains(';'), "{text}: {error}");
        }
        for text in ["exec:'a", "exec: ", "exec:''"] {
            assert!(text.parse::<TargetSpec>().is_err(), "{text}");
        }
    }

    #[test]
    fn instance_ids_have_their_form() {
        for id in ["i-0123456789abcdef0", "i-12345678", "mi-0123456789abcdef0"] {
            assert!(is_instance_id(id), "{id}");
        }
        for id in [
            "i-",
            "i-1234567",
            "i-0123456789abcdef01",
            "i-123456789",
            "mi-12345678",
            "i-0123456g",
            "x-12345678",
            "i-12345678\n",
        ] {
            assert!(!is_instance_id(id), "{id}");
        }
    }
}
