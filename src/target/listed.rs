//! Hosts that a program of the user lists, one JSON object a line.
//!
//! Pure: the program is run by `collect`, and `cli` hands its lines over. What cannot be a host is left out and named;
//! whether the program came to its end is for those who ran it to say.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use super::TargetHost;
use crate::model::{Destination, Status, cut};

/// Longest name, address and label, in bytes.
const LONGEST: usize = 255;
/// Most labels of a host.
const MOST_LABELS: usize = 64;
/// Most hosts of an inventory.
const MOST_HOSTS: usize = 1_000_000;
/// Problems that are told one by one.
const TOLD: usize = 10;

/// A line as it comes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    host: String,
    address: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, Option<String>>,
    unreachable: Option<String>,
}

/// The hosts of one or several programs.
#[derive(Debug, Default)]
pub struct Listing {
    /// In the order of the list, which is the order in which they are asked.
    hosts: Vec<TargetHost>,
    /// Places there by name.
    places: HashMap<String, usize>,
    problems: Vec<String>,
    problems_total: usize,
}

impl Listing {
    /// Takes line `number` (from 1) of what `from` printed. Empty lines mean nothing.
    pub fn line(&mut self, from: &str, number: usize, line: &[u8]) {
        if line.trim_ascii().is_empty() {
            return;
        }
        let taken = read(line).and_then(|host| self.take(host));
        if let Err(why) = taken {
            self.problems_total += 1;
            if self.problems.len() < TOLD {
                self.problems.push(format!("`{from}`, line {number}: {why}; this line names no host"));
            }
        }
    }

    /// Adds a host from elsewhere, unless one of that name is there.
    pub fn add(&mut self, host: TargetHost) {
        if !self.places.contains_key(&host.known.name) {
            self.push(host);
        }
    }

    fn push(&mut self, host: TargetHost) {
        self.places.insert(host.known.name.clone(), self.hosts.len());
        self.hosts.push(host);
    }

    /// Takes a host. One that is there already must be the same.
    fn take(&mut self, host: TargetHost) -> Result<(), String> {
        let name = host.known.name.clone();
        match self.places.get(&name).map(|place| &self.hosts[*place]) {
            Some(same) if *same == host => Err(format!("host `{name}` is listed twice")),
            Some(_) => Err(format!("host `{name}` is listed twice, and not alike; the first holds")),
            None if self.hosts.len() >= MOST_HOSTS => Err(format!("there are more than {MOST_HOSTS} hosts")),
            None => {
                self.push(host);
                Ok(())
            }
        }
    }

    /// The hosts in the order of the list, and what a reader of the snapshot should know.
    pub fn into_hosts(mut self) -> (Vec<TargetHost>, Vec<String>) {
        let more = self.problems_total - self.problems.len();
        if more > 0 {
            self.problems.push(format!("{more} more lines name no host"));
        }
        (self.hosts, self.problems)
    }
}

fn read(line: &[u8]) -> Result<TargetHost, String> {
    let text =
        std::str::from_utf8(line).map_err(|error| format!("no UTF-8 after byte {}", error.valid_up_to()))?;
    if !text.trim_start().starts_with('{') {
        return Err("it is no JSON object".to_owned());
    }
    let line: Line = serde_json::from_str(text).map_err(|error| cut(&error.to_string(), 2 * LONGEST))?;
    let is_name = |text: &str| text.chars().all(|c| !c.is_control() && !c.is_whitespace());
    let name = checked("host", line.host, is_name)?;
    let mut host = match line.address.map(|address| address.parse::<Destination>()) {
        Some(address) => TargetHost::at(&name, address.map_err(|error| error.to_string())?),
        None => TargetHost::new(&name),
    };
    host.known.facts = labels(line.labels)?;
    host.unreachable = line.unreachable.map(|why| (Status::Undeliverable, cut(&why, LONGEST)));
    Ok(host)
}

/// What could be taken for an option, or hides what it is, is no name.
fn checked(what: &str, text: String, is_allowed: impl Fn(&str) -> bool) -> Result<String, String> {
    let why = match text.as_str() {
        "" => "is empty",
        text if text.len() > LONGEST => "is too long",
        text if text.starts_with('-') => "begins with a dash",
        text if !is_allowed(text) => "has characters that it cannot have",
        _ => return Ok(text),
    };
    Err(format!("`{what}` {why}: `{}`", cut(&text, 60).escape_debug()))
}

fn labels(labels: BTreeMap<String, Option<String>>) -> Result<BTreeMap<String, String>, String> {
    let mut taken = BTreeMap::new();
    // `null` is what clouds print for what is not there.
    for (name, value) in labels.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        let is_name = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "_.:/-".contains(c));
        let name = checked("label", name, is_name)?;
        if value.len() > LONGEST {
            return Err(format!("label `{name}` is longer than {LONGEST} bytes"));
        }
        taken.insert(name, value);
    }
    if taken.len() > MOST_LABELS {
        return Err(format!("there are more than {MOST_LABELS} labels"));
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listed(lines: &[&[u8]]) -> (Vec<TargetHost>, Vec<String>) {
        let mut listing = Listing::default();
        lines.iter().enumerate().for_each(|(at, line)| listing.line("x", at + 1, line));
        listing.into_hosts()
    }

    #[test]
    fn a_line_is_a_host() {
        let line = br#"{"host":"vm-1","address":"10.0.0.4","labels":{"zone":"eu-1","team":"a","none":null}}"#;
        let (hosts, problems) = listed(&[line, b"", b"  "]);
        assert!(problems.is_empty(), "{problems:?}");
        let host = &hosts[0];
        assert_eq!(
            (host.known.name.as_str(), host.address.as_ref().unwrap().to_string()),
            ("vm-1", "10.0.0.4".to_owned())
        );
        assert_eq!(host.known.names, ["10.0.0.4"]);
        assert_eq!(
            host.known.facts,
            BTreeMap::from([("zone", "eu-1"), ("team", "a")].map(|(a, b)| (a.into(), b.into())))
        );
        let (hosts, _) = listed(&[br#"{"host":"b","unreachable":"deallocated"}"#, br#"{"host":"a"}"#]);
        // In the order of the list: the first are the most urgent.
        assert_eq!((hosts[1].known.name.as_str(), &hosts[1].address), ("a", &None));
        assert_eq!(hosts[0].unreachable, Some((Status::Undeliverable, "deallocated".to_owned())));
    }

    #[test]
    fn what_is_no_host_is_named_and_left_out() {
        for (line, why) in [
            (&b"web-1"[..], "no JSON object"),
            (br#"["a",null,{},null]"#, "no JSON object"),
            (br#"{"host":7}"#, "expected a string"),
            (br#"{"name":"a"}"#, "unknown field `name`"),
            (br#"{"address":"a"}"#, "missing field `host`"),
            (br#"{"host":""}"#, "`host` is empty"),
            (br#"{"host":"-oProxyCommand=x"}"#, "begins with a dash"),
            (br#"{"host":"a b"}"#, "characters that it cannot have"),
            (br#"{"host":"a\u001b[2J"}"#, r"`a\u{1b}[2J`"),
            (br#"{"host":"a","address":"x;y"}"#, "`x;y` is no host: a name has"),
            (br#"{"host":"a","address":"-x"}"#, "it begins with a dash"),
            (br#"{"host":"a","labels":{"n":1}}"#, "expected a string"),
            (br#"{"host":"a","labels":{"n m":"1"}}"#, "`label` has characters"),
            (b"{\"host\":\"\xff\"}", "no UTF-8 after byte 9"),
        ] {
            let (hosts, problems) = listed(&[line]);
            assert!(hosts.is_empty(), "{hosts:?}");
            assert!(problems[0].contains(why) && problems[0].starts_with("`x`, line 1: "), "{problems:?}");
        }
        let long = format!(r#"{{"host":"{}"}}"#, "é".repeat(200));
        assert!(listed(&[long.as_bytes()]).1[0].contains("is too long"));
    }

    #[test]
    fn a_host_is_listed_once() {
        let (hosts, problems) =
            listed(&[br#"{"host":"a"}"#, br#"{"host":"a"}"#, br#"{"host":"a","address":"b"}"#]);
        assert_eq!((hosts.len(), problems.len()), (1, 2));
        assert!(problems[1].contains("line 3") && problems[1].contains("not alike"), "{problems:?}");
        assert_eq!(hosts[0].address, None);
    }

    #[test]
    fn many_problems_are_counted() {
        let (_, problems) = listed(&[&b"x"[..]; 30]);
        assert_eq!((problems.len(), problems[10].as_str()), (11, "20 more lines name no host"));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_no_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            listed(&[&line]);
        }

        #[test]
        fn names_are_never_options_nor_odd(name in any::<String>()) {
            let line = serde_json::json!({"host": name, "address": name}).to_string();
            for host in listed(&[line.as_bytes()]).0 {
                let address = host.address.unwrap().host;
                prop_assert!(!address.starts_with('-') && address.is_ascii() && !address.is_empty());
                prop_assert_eq!(host.known.name, name.clone());
            }
        }
    }
}
