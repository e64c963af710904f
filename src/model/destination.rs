//! Where a host is reached over SSH: `user@host:port` in the spellings that people use.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use crate::error::{Error, Result};

/// Longest name of a host or a user.
const LONGEST: usize = 255;
/// The port of SSH.
const SSH_PORT: u16 = 22;

/// A host as `ssh` finds it: a name of DNS, an address, or a name of the user's own SSH configuration.
///
/// Parts have no characters that a shell, an option or a `ProxyCommand` of `ssh` would take for anything else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// The user to log in as, where it is said.
    pub user: Option<String>,
    /// The host, without the brackets of an IPv6 address.
    pub host: String,
    /// The port, where it is said.
    pub port: Option<u16>,
}

impl Destination {
    /// What to call the host when nobody gives it a name: the host, and the port where it is not the usual one.
    pub fn name(&self) -> String {
        match self.port {
            Some(port) if port != SSH_PORT && self.host.contains(':') => format!("[{}]:{port}", self.host),
            Some(port) if port != SSH_PORT => format!("{}:{port}", self.host),
            _ => self.host.clone(),
        }
    }
}

impl FromStr for Destination {
    type Err = Error;

    /// Reads `host`, `user@host`, `host:port`, `[v6]:port`, a bare IPv6 address, or `ssh://user@host:port`.
    fn from_str(text: &str) -> Result<Self> {
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("ssh") => {
                rest.strip_suffix('/').unwrap_or(rest)
            }
            Some(_) => return Err(wrong(text, "only ssh:// is understood")),
            None => text,
        };
        // A user of a directory may be called `anna@example.com`.
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, rest),
        };
        if let Some(user) = user {
            check_user(user).map_err(|why| wrong(text, why))?;
        }
        let (host, port) = split_port(place).map_err(|why| wrong(text, why))?;
        check_host(host).map_err(|why| wrong(text, why))?;
        Ok(Self { user: user.map(str::to_owned), host: host.to_owned(), port })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match self.port {
            Some(port) if self.host.contains(':') => write!(f, "[{}]:{port}", self.host),
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

fn wrong(text: &str, why: &str) -> Error {
    let shown: String = text.chars().take(80).collect();
    Error::usage(format!("`{}` is no host: {why}", shown.escape_debug()))
        .hint("use host, user@host, host:port, [IPv6]:port or ssh://user@host:port")
}

/// Host and port; colons of a bare IPv6 address separate none.
fn split_port(place: &str) -> Result<(&str, Option<u16>), &'static str> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or("the bracket is not closed")?;
            if !is_ipv6(host) {
                return Err("only IPv6 addresses stand in brackets");
            }
            match (rest, rest.strip_prefix(':')) {
                ("", _) => (host, None),
                (_, Some(port)) => (host, Some(port)),
                _ => return Err("something follows the bracket"),
            }
        }
        None if is_ipv6(place) => (place, None),
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let number = |text: &str| {
        text.parse().ok().filter(|port| *port > 0).ok_or("its port is no number from 1 to 65535")
    };
    Ok((host, port.map(number).transpose()?))
}

/// An IPv6 address, perhaps of one interface: `fe80::1%eth0`.
fn is_ipv6(text: &str) -> bool {
    let (address, zone) = text.split_once('%').unwrap_or((text, "x"));
    let is_zone = !zone.is_empty() && zone.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    is_zone && address.parse::<Ipv6Addr>().is_ok()
}

fn check_host(host: &str) -> Result<(), &'static str> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    match host {
        "" => Err("it has no name"),
        _ if host.len() > LONGEST => Err("it is longer than 255 characters"),
        // `ssh` would take it for an option.
        _ if host.starts_with('-') => Err("it begins with a dash"),
        _ if is_ipv6(host) || host.chars().all(is_fine) => Ok(()),
        _ => Err("a name has letters, digits, dots, dashes and underscores"),
    }
}

fn check_user(user: &str) -> Result<(), &'static str> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "._+@-".contains(c);
    match user {
        "" => Err("its user is empty"),
        _ if user.len() > LONGEST => Err("its user is longer than 255 characters"),
        _ if user.starts_with('-') => Err("its user begins with a dash"),
        // A password has no place here, and neither has anything that a shell reads.
        _ if user.chars().all(is_fine) => Ok(()),
        _ => Err("a user has letters, digits, dots, dashes, underscores, plus and at signs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_read() {
        for (text, user, host, port, name) in [
            ("web-1", None, "web-1", None, "web-1"),
            ("root@10.0.0.1", Some("root"), "10.0.0.1", None, "10.0.0.1"),
            ("web-1.example.com:2222", None, "web-1.example.com", Some(2222), "web-1.example.com:2222"),
            ("a@b.c@web:22", Some("a@b.c"), "web", Some(22), "web"),
            ("2001:db8::1", None, "2001:db8::1", None, "2001:db8::1"),
            ("fe80::1%eth0", None, "fe80::1%eth0", None, "fe80::1%eth0"),
            ("[::1]", None, "::1", None, "::1"),
            ("root@[::1]:2222", Some("root"), "::1", Some(2222), "[::1]:2222"),
            ("ssh://ec2-user@web_1:2022/", Some("ec2-user"), "web_1", Some(2022), "web_1:2022"),
            ("SSH://[::1]", None, "::1", None, "::1"),
        ] {
            let found: Destination = text.parse().unwrap();
            assert_eq!(
                (found.user.as_deref(), found.host.as_str(), found.port),
                (user, host, port),
                "{text}"
            );
            assert_eq!(found.name(), name);
            assert_eq!(found.to_string().parse::<Destination>().unwrap(), found);
        }
    }

    #[test]
    fn nothing_else_becomes_an_option_or_a_word_of_a_shell() {
        for text in [
            "",
            "-oProxyCommand=id",
            "-v@web",
            "root@-web",
            "@web",
            "web:",
            "web:0",
            "web:65536",
            "web:x",
            "web:22:23",
            "[::1",
            "[web]",
            "[::1]x",
            "http://web",
            "web/x",
            "we b",
            "web;id",
            "$(id)",
            "`id`",
            "a'b@web",
            "a:b@web",
            "web\n",
            "wéb",
            "fe80::1%;id",
            "%h",
            "ssh://",
            "ssh://web/path",
            "*",
            "!web",
        ] {
            assert!(text.parse::<Destination>().is_err(), "{text:?}");
        }
        assert!("x".repeat(256).parse::<Destination>().is_err());
    }
}
