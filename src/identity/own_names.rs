//! A host's own names, addresses and ids, so that rows that differ only by who says them become one identity.

use std::borrow::Cow;

use memchr::memmem::Finder;

/// What stands in place of a host's own name.
pub const SELF_PLACEHOLDER: &str = "<self>";

/// Shorter names are not used: they would match inside of unrelated text.
const SHORTEST: usize = 6;
/// Longest DNS name.
const LONGEST: usize = 253;
/// A host that claims more names than this is not describing itself.
const MOST: usize = 64;

/// A table and the columns in which a host says who it is.
#[derive(Debug, Clone, Copy)]
pub struct OwnNamesSource {
    /// The table.
    pub table: &'static str,
    /// Its columns.
    pub columns: &'static [&'static str],
}

/// The own names of one host.
#[derive(Debug, Clone, Default)]
pub struct OwnNames {
    /// Longest first, so that `web-1.example.org` goes before `web-1`.
    names: Vec<Finder<'static>>,
}

impl OwnNames {
    /// Where hosts say who they are.
    pub const SOURCES: &'static [OwnNamesSource] = &[
        OwnNamesSource {
            table: "system_info",
            columns: &[
                "hostname",
                "uuid",
                "hardware_serial",
                "board_serial",
                "computer_name",
                "local_hostname",
            ],
        },
        OwnNamesSource { table: "interface_addresses", columns: &["address"] },
        OwnNamesSource {
            table: "ec2_instance_metadata",
            columns: &["instance_id", "local_hostname", "local_ipv4", "mac"],
        },
        OwnNamesSource { table: "osquery_info", columns: &["uuid", "instance_id"] },
    ];

    /// The usable ones among what a host and the inventory call it. A name that is too short, too long, not made of
    /// name characters, or that many machines share is not used.
    pub fn new<'a>(claims: impl IntoIterator<Item = &'a str>) -> Self {
        let mut names: Vec<String> = Vec::new();
        for claim in claims {
            for name in spellings(claim) {
                if is_usable(&name) && !names.contains(&name) && names.len() < MOST {
                    names.push(name);
                }
            }
        }
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        Self { names: names.iter().map(|name| Finder::new(name.as_bytes()).into_owned()).collect() }
    }

    /// `text` with each whole occurrence of an own name replaced; borrowed when there is none.
    pub fn replace<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut result = Cow::Borrowed(text);
        for name in &self.names {
            if let Some(replaced) = replace_whole(&result, name) {
                result = Cow::Owned(replaced);
            }
        }
        result
    }

    /// Whether an own name stands anywhere in these bytes, as a whole or not.
    pub(super) fn stand_in(&self, bytes: &[u8]) -> bool {
        self.names.iter().any(|name| name.find(bytes).is_some())
    }

    /// Whether `text` is one of the own names.
    pub fn contains(&self, text: &str) -> bool {
        self.names.iter().any(|name| name.needle() == text.as_bytes())
    }
}

/// A name as it is claimed, without its domain, and an IPv4 address the way EC2 writes it into names.
fn spellings(claim: &str) -> Vec<String> {
    let claim = claim.trim();
    let mut all = vec![claim.to_owned()];
    if claim.parse::<std::net::Ipv4Addr>().is_ok() {
        all.push(format!("ip-{}", claim.replace('.', "-")));
    } else if let Some((short, _)) = claim.split_once('.') {
        all.push(short.to_owned());
    }
    all
}

fn is_usable(name: &str) -> bool {
    let shared = ["localhost", "localdomain", "127.0.0.1", "0.0.0.0", "unknown", "default", "not specified"];
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    (SHORTEST..=LONGEST).contains(&name.len())
        && name.bytes().all(is_name_byte)
        && name.bytes().any(|byte| byte.is_ascii_digit() || byte == b'-' || byte == b'.')
        && !name.bytes().all(|byte| b"0-:.".contains(&byte))
        && !name.starts_with("127.")
        && !name.starts_with("fe80:")
        && !shared.contains(&name.to_ascii_lowercase().as_str())
}

/// `None` when nothing was replaced. An occurrence counts only when no letter or digit touches it.
fn replace_whole(text: &str, name: &Finder<'_>) -> Option<String> {
    let bytes = text.as_bytes();
    let length = name.needle().len();
    let mut replaced = String::new();
    let mut copied = 0;
    for start in name.find_iter(bytes) {
        let end = start + length;
        let touches = |at: Option<&u8>| at.is_some_and(u8::is_ascii_alphanumeric);
        if touches(start.checked_sub(1).and_then(|before| bytes.get(before))) || touches(bytes.get(end)) {
            continue;
        }
        // The name is ASCII, so both ends are character boundaries.
        replaced.push_str(&text[copied..start]);
        replaced.push_str(SELF_PLACEHOLDER);
        copied = end;
    }
    if copied == 0 {
        return None;
    }
    replaced.push_str(&text[copied..]);
    Some(replaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_names_only() {
        let own = OwnNames::new(["web-01.example.org", "10.20.2.5", "i-0abc123def4567890"]);
        let check = |text: &str, expect: &str| assert_eq!(own.replace(text), expect);
        check("10.20.2.5 web-01.example.org web-01", "<self> <self> <self>");
        check("10.20.2.53 web-012", "10.20.2.53 web-012");
        check("ip-10-20-2-5.ec2.internal", "<self>.ec2.internal");
        check("/var/log/i-0abc123def4567890.log", "/var/log/<self>.log");
        check("nothing", "nothing");
    }

    #[test]
    fn a_host_cannot_claim_a_common_word_or_a_path() {
        let own =
            OwnNames::new(["sshd", "/usr/sbin/sshd", "localhost", "127.0.0.1", "0.0.0.0", "debian", "::"]);
        assert_eq!(
            own.replace("/usr/sbin/sshd localhost debian 127.0.0.1"),
            "/usr/sbin/sshd localhost debian 127.0.0.1"
        );
    }

    #[test]
    fn claims_are_bounded() {
        let many: Vec<String> = (0..10_000).map(|number| format!("name-{number:05}")).collect();
        assert_eq!(OwnNames::new(many.iter().map(String::as_str)).names.len(), MOST);
    }
}
