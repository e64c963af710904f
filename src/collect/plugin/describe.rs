//! What a plugin says of itself, when `diffy plugins list` asks.

use std::time::Duration;

use serde::Deserialize;

use super::super::program::{Bounds, Leash, Running};
use super::{PROTOCOL, Plugin, trouble};

/// Who does not know the question may do anything: not for long.
const BOUNDS: Bounds = Bounds { timeout: Duration::from_secs(5), bytes: 16 << 10, line_bytes: 16 << 10 };
/// Longest version and description, in characters.
const LONGEST: (usize, usize) = (40, 200);

/// What a plugin says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// Its version.
    pub version: String,
    /// What it does, in a sentence.
    pub description: String,
}

#[derive(Deserialize)]
struct Answer {
    diffy_plugin: u64,
    #[serde(default)]
    version: String,
    #[serde(default)]
    description: String,
}

/// Asks a plugin what it is: it is run with the one argument `describe`, and prints one line.
///
/// # Errors
/// What went wrong, in words that follow its name: it does not know the question, or it is broken.
pub async fn describe(plugin: &Plugin) -> Result<Description, String> {
    let leash = Leash::default();
    let mut running = Running::start(&plugin.program(&["describe"]), Vec::new(), BOUNDS, &leash)
        .map_err(|error| format!("cannot be started: {error}"))?;
    let said = running.rest().await;
    let (ended, stderr) = running.end().await;
    if let Some(trouble) = trouble(&ended, &stderr) {
        return Err(trouble);
    }
    read(&said)
}

fn read(line: &[u8]) -> Result<Description, String> {
    let answer: Answer = serde_json::from_slice(line).map_err(|_| {
        "does not say what it is: `describe` prints one JSON object with `diffy_plugin`".to_owned()
    })?;
    if answer.diffy_plugin != PROTOCOL {
        return Err(format!("speaks version {} of the protocol; this is {PROTOCOL}", answer.diffy_plugin));
    }
    let cut = |text: &str, most: usize| text.chars().take(most).collect();
    Ok(Description {
        version: cut(&answer.version, LONGEST.0),
        description: cut(&answer.description, LONGEST.1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_short_and_of_this_protocol() {
        let found = read(br#"{"diffy_plugin":1,"version":"2.0","description":"d","more":[1]}"#).unwrap();
        assert_eq!((found.version.as_str(), found.description.as_str()), ("2.0", "d"));
        assert_eq!(read(br#"{"diffy_plugin":1}"#).unwrap(), Description::default());
        assert!(read(br#"{"diffy_plugin":2}"#).unwrap_err().contains("version 2"));
        for line in [&b"usage: x"[..], b"{}", b"", b"\xff"] {
            assert!(read(line).unwrap_err().contains("does not say"), "{line:?}");
        }
        let long = format!(r#"{{"diffy_plugin":1,"description":"{}"}}"#, "é".repeat(5000));
        assert_eq!(read(long.as_bytes()).unwrap().description.chars().count(), 200);
    }
}
