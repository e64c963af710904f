//! Who hosts say they are, beside who was asked.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use crate::collect::remote::shown_name;
use crate::model::Destination;

/// Hosts with another name that are told one by one; more are counted.
const MOST_TOLD: usize = 10;
/// Sentences of hosts that answer under the name of another.
const MOST_ALARMING: usize = 50;
/// Hosts that are named where more are counted.
const NAMED: usize = 3;

/// The names of a collection's hosts, gathered while they answer. The name asked for stays the host's name whatever it
/// says.
#[derive(Debug)]
pub(super) struct Names {
    /// Lowercase names that hosts were asked under.
    asked: HashSet<String>,
    /// By the lowercase name that a host gives itself, who gave it first.
    given: HashMap<String, String>,
    other: Vec<(String, String)>,
    alarming: Vec<String>,
}

impl Names {
    pub(super) fn new<'a>(asked: impl Iterator<Item = &'a String>) -> Self {
        Self {
            asked: asked.map(|name| name.to_lowercase()).collect(),
            given: HashMap::new(),
            other: Vec::new(),
            alarming: Vec::new(),
        }
    }

    /// Notes the name that a host gives itself.
    pub(super) fn note(&mut self, host: &str, to: &Destination, said: &str) {
        let (lower, shown) = (said.to_lowercase(), shown_name(said));
        if lower.is_empty() || lower.split('.').next() == Some("localhost") {
            return;
        }
        let is_own = is_same(host, said) || is_same(&to.host, said);
        if self.asked.contains(&lower) && !is_own {
            self.alarming.push(format!(
                "host {host} answers under the name `{shown}`, which is another host of this collection"
            ));
        } else if !is_own && !is_address(host) {
            self.other.push((host.to_owned(), shown.clone()));
        }
        if let Some(first) = self.given.insert(lower, host.to_owned()) {
            self.alarming.push(format!(
                "hosts {first} and {host} both call themselves `{shown}`: one machine asked twice, or one of them lies"
            ));
        }
    }

    pub(super) fn into_sentences(self) -> Vec<String> {
        let beyond = self.alarming.len().saturating_sub(MOST_ALARMING);
        let mut sentences = self.alarming;
        sentences.truncate(MOST_ALARMING);
        if beyond > 0 {
            sentences.push(format!("{beyond} more hosts answer under names of others"));
        }
        let count = self.other.len();
        if count <= MOST_TOLD {
            let each = self.other.iter();
            sentences.extend(each.map(|(host, said)| format!("host {host} answers under the name `{said}`")));
        } else {
            let first: Vec<String> =
                self.other.iter().take(NAMED).map(|(host, said)| format!("{host} as `{said}`")).collect();
            sentences.push(format!("{count} hosts answer under other names: {}, …", first.join(", ")));
        }
        sentences
    }
}

/// Whether both are the same name, with or without a domain behind it.
fn is_same(asked: &str, said: &str) -> bool {
    let label = |name: &str| name.split('.').next().unwrap_or_default().to_lowercase();
    asked.eq_ignore_ascii_case(said) || (!is_address(asked) && label(asked) == label(said))
}

/// An address, with or without a port, is no name that a host could call itself.
fn is_address(name: &str) -> bool {
    let without_port = name.rsplit_once(':').map_or(name, |(host, _)| host).trim_matches(['[', ']']);
    name.parse::<IpAddr>().is_ok() || without_port.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentences(said: &[(&str, &str, &str)]) -> Vec<String> {
        let asked: Vec<String> = said.iter().map(|(host, ..)| (*host).to_owned()).collect();
        let mut names = Names::new(asked.iter());
        said.iter().for_each(|(host, to, said)| names.note(host, &to.parse().unwrap(), said));
        names.into_sentences()
    }

    #[test]
    fn names_that_fit_are_not_told() {
        let fine = [
            ("web-1", "web-1", "WEB-1.prod.example.com"),
            ("web-2.example.com", "web-2.example.com", "web-2"),
            ("db", "pg-7.internal", "pg-7"),
            ("10.0.0.4", "10.0.0.4", "ip-10-0-0-4"),
            ("[::1]:2022", "[::1]:2022", "here"),
            ("x", "x", "localhost"),
        ];
        assert!(sentences(&fine).is_empty(), "{:?}", sentences(&fine));
    }

    #[test]
    fn names_of_others_are() {
        let told =
            sentences(&[("web-1", "web-1", "web-2"), ("web-2", "web-2", "web-2"), ("web-3", "web-3", "odd")]);
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].contains("`web-2`, which is another host"), "{told:?}");
        assert!(told[1].contains("web-1 and web-2 both call themselves"), "{told:?}");
        assert_eq!(told[2], "host web-3 answers under the name `odd`");
        let many: Vec<(String, String)> = (0..20).map(|n| (format!("a{n}"), format!("b{n}"))).collect();
        let many: Vec<_> =
            many.iter().map(|(host, said)| (host.as_str(), host.as_str(), said.as_str())).collect();
        assert_eq!(
            sentences(&many),
            ["20 hosts answer under other names: a0 as `b0`, a1 as `b1`, a2 as `b2`, …"]
        );
    }
}
