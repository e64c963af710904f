//! The methods of others, in Python, on the same stores: `peers.py` in an environment of its own.

use std::path::Path;

use diffy::error::{Error, Result};

use crate::Measured;

/// Runs all of them over the fleets below `dir`, as `fleets.json` lists them.
///
/// # Errors
/// The environment cannot be made, or the script fails; it says why on stderr.
#[expect(
    clippy::disallowed_methods,
    reason = "the script is ours, and no word of a host reaches its command line"
)]
pub(crate) fn run(dir: &Path) -> Result<Vec<Measured>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/detection");
    let cannot = |source| Error::internal("cannot run the methods of others").source(source);
    let output = std::process::Command::new("sh")
        .arg(here.join("peers"))
        .arg(dir)
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(cannot)?;
    if !output.status.success() {
        return Err(Error::internal(format!("benches/detection/peers ended with {}", output.status))
            .hint("`--no-peers` leaves them away"));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|source| Error::internal("cannot read what peers.py printed").source(source))
}
