//! How `ssh` is called.

use std::path::PathBuf;
use std::time::Duration;

use crate::model::Destination;

/// Seconds between two signs of life that a host is asked for, and how many it may miss.
const ALIVE_INTERVAL: u64 = 15;
const ALIVE_MISSED: u64 = 3;

/// Runs the script that comes on stdin with whatever shell the user has, quoting nothing that differs between them.
const PLAIN: &str = "exec /bin/sh -s";
/// Root needs no sudo, and often has none.
const AS_ROOT: &str =
    "exec /bin/sh -c 'test \"$(id -u)\" = 0 && exec /bin/sh -s; exec sudo -n -- /bin/sh -s'";

/// Which host keys are believed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HostKeys {
    /// Those in the user's `known_hosts`, whatever the configuration allows beyond them.
    #[default]
    Known,
    /// Those that the user's OpenSSH configuration believes.
    AsConfigured,
}

/// The client, and how it is called for every host.
#[derive(Debug, Clone)]
pub struct Client {
    /// The `ssh` program.
    pub program: PathBuf,
    /// A configuration in place of the user's own (`ssh -F`).
    pub config: Option<PathBuf>,
    /// Which host keys are believed.
    pub host_keys: HostKeys,
    /// How long a connection may take until the login.
    pub connect: Duration,
    /// Whether the script runs as root.
    pub sudo: bool,
}

impl Client {
    /// The arguments for one host. What a user's configuration says of hosts, users, keys, agents and jump hosts holds;
    /// what would ask a person, leave something behind or open a way back does not.
    pub(super) fn arguments(&self, to: &Destination) -> Vec<String> {
        let mut arguments = Vec::new();
        if let Some(config) = &self.config {
            arguments.extend(["-F".to_owned(), config.display().to_string()]);
        }
        let mut set =
            |option: &str, value: &str| arguments.extend(["-o".to_owned(), format!("{option}={value}")]);
        set("BatchMode", "yes");
        if self.host_keys == HostKeys::Known {
            set("StrictHostKeyChecking", "yes");
        }
        // Hundreds at once would write there.
        set("UpdateHostKeys", "no");
        set("ConnectTimeout", &self.connect.as_secs().max(1).to_string());
        set("ConnectionAttempts", "1");
        set("ServerAliveInterval", &ALIVE_INTERVAL.to_string());
        set("ServerAliveCountMax", &ALIVE_MISSED.to_string());
        // The errors are read.
        set("LogLevel", "INFO");
        set("RequestTTY", "no");
        // A host that is triaged gets no way to the agent, the screen or the networks of whoever asks.
        for forward in ["ForwardAgent", "ForwardX11", "PermitLocalCommand", "Tunnel"] {
            set(forward, "no");
        }
        set("ClearAllForwardings", "yes");
        set("GSSAPIDelegateCredentials", "no");
        set("RemoteCommand", "none");
        // No connection stays, and none that is there is used: it may have been made without its key being checked,
        // and lead to another host than the name says now.
        set("ControlMaster", "no");
        if self.host_keys == HostKeys::Known {
            set("ControlPath", "none");
        }
        if let Some(port) = to.port {
            arguments.extend(["-p".to_owned(), port.to_string()]);
        }
        if let Some(user) = &to.user {
            arguments.extend(["-l".to_owned(), user.clone()]);
        }
        let command = if self.sudo { AS_ROOT } else { PLAIN };
        arguments.extend(["--".to_owned(), to.host.clone(), command.to_owned()]);
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> Client {
        Client {
            program: "ssh".into(),
            config: None,
            host_keys: HostKeys::Known,
            connect: Duration::from_secs(10),
            sudo: false,
        }
    }

    #[test]
    fn keys_are_checked_and_nobody_is_asked() {
        let arguments = client().arguments(&"root@[::1]:2022".parse().unwrap());
        for option in [
            "BatchMode=yes",
            "StrictHostKeyChecking=yes",
            "ForwardAgent=no",
            "GSSAPIDelegateCredentials=no",
            "ControlPath=none",
            "ConnectTimeout=10",
        ] {
            assert!(arguments.iter().any(|argument| argument == option), "{option}");
        }
        assert_eq!(arguments[arguments.len() - 7..], ["-p", "2022", "-l", "root", "--", "::1", PLAIN]);
        let configured = Client { host_keys: HostKeys::AsConfigured, ..client() };
        let arguments = configured.arguments(&"web".parse().unwrap());
        assert!(!arguments.iter().any(|argument| argument.contains("StrictHostKeyChecking")));
    }
}
