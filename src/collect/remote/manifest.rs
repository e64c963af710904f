//! Reads what the script prints: the head, and the payload where it is inline.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Where the head may begin at the latest, and how long it may be, in bytes: hosts greet, and notes are short.
const MAX_BEFORE: usize = 64 << 10;
const MAX_HEAD: usize = 64 << 10;

/// Most that is kept of a note or a reason, in bytes, and of notes.
const MAX_TEXT: usize = 256;
const MAX_NOTES: usize = 32;

/// Most bytes that a payload may have, packed.
const MAX_GZ: u64 = 1 << 30;

/// Who answered on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Agent {
    /// osqueryi, with its version.
    Osquery(String),
    /// The native collector of a Diffy that was brought there, with its version.
    Native(String),
    /// Nobody.
    None,
}

/// How the payload comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// Behind the head, short.
    Inline,
    /// It was uploaded.
    Upload,
    /// Behind the head, however long.
    Stdout,
    /// Not at all: notes say why.
    None,
}

/// What a host says about its answers. All of it may be a lie but that the payload has this size and digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The instance id, or the host name.
    pub host: String,
    /// The user id that the script ran as.
    pub uid: Option<u32>,
    /// The host's clock at the end, in seconds since 1970.
    pub clock: Option<i64>,
    /// Who answered.
    pub agent: Agent,
    /// Number of answers in the payload.
    pub answers: u64,
    /// Bytes of the payload, unpacked.
    pub raw: u64,
    /// Bytes of the payload, packed.
    pub gz: u64,
    /// SHA-256 of the packed payload.
    pub sha256: [u8; 32],
    /// How the payload comes.
    pub via: Via,
    /// HTTP status of the upload, or why there was none; only when it was tried.
    pub upload: Option<String>,
    /// What the script noticed, in short lines.
    pub notes: Vec<String>,
}

/// All that one run of the script printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The head.
    pub manifest: Manifest,
    /// The packed payload where it was printed, of the right size and digest.
    pub data: Option<Vec<u8>>,
}

/// Reads the whole output of the script.
///
/// # Errors
/// Says what is wrong: no head, the head of another run, a line that is missing or wrong, cut before its end mark, no
/// base64, another size or digest than the head says.
pub fn parse_reply(stdout: &[u8], nonce: &str) -> Result<Reply> {
    let head = find_head(stdout, nonce)?;
    let (manifest, rest) = read_head(head, nonce)?;
    let Some(data) = rest else {
        return match manifest.via {
            Via::Inline | Via::Stdout => Err(Error::data("the output has no data")),
            Via::Upload | Via::None => Ok(Reply { manifest, data: None }),
        };
    };
    let end = find_end(data, nonce).ok_or_else(cut)?;
    let gz = decode(&data[..end], manifest.gz)?;
    check(&manifest, &gz)?;
    Ok(Reply { manifest, data: Some(gz) })
}

/// Reads the head of an output that may be cut behind it.
///
/// # Errors
/// As [`parse_reply`], for the head alone.
pub fn parse_head(stdout: &[u8], nonce: &str) -> Result<Manifest> {
    Ok(read_head(find_head(stdout, nonce)?, nonce)?.0)
}

/// Whether a packed payload that came another way is the one that the head speaks of.
///
/// # Errors
/// It has another size or another digest.
pub fn check(manifest: &Manifest, gz: &[u8]) -> Result<()> {
    if gz.len() as u64 != manifest.gz {
        return Err(Error::data(format!(
            "the payload has {} bytes, the host said {}",
            gz.len(),
            manifest.gz
        )));
    }
    if <[u8; 32]>::from(Sha256::digest(gz)) != manifest.sha256 {
        return Err(Error::data("the payload has another sha256 than the host said"));
    }
    Ok(())
}

fn cut() -> Error {
    Error::data("the output was cut before its end mark")
}

/// What follows the first line of the head.
fn find_head<'a>(stdout: &'a [u8], nonce: &str) -> Result<&'a [u8]> {
    let wanted = format!("DIFFY1 {nonce}");
    let mut has_other = false;
    let mut rest = stdout;
    while let Some((line, after)) = next_line(rest) {
        if line == wanted.as_bytes() {
            return Ok(after);
        }
        has_other |= line.starts_with(b"DIFFY1 ");
        rest = after;
        if stdout.len() - rest.len() > MAX_BEFORE {
            break;
        }
    }
    Err(match (has_other, stdout.is_empty()) {
        (true, _) => Error::data("the output is that of another run: its nonce is not ours"),
        (_, true) => Error::data("the script printed nothing"),
        _ => Error::data("the output has no head: the script did not run, or did not get far"),
    })
}

/// The next whole line, without its end, and what follows; none when no line ends.
fn next_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let line = &bytes[..end];
    Some((line.strip_suffix(b"\r").unwrap_or(line), &bytes[end + 1..]))
}

/// The head, and the data behind it where there is any.
fn read_head<'a>(head: &'a [u8], nonce: &str) -> Result<(Manifest, Option<&'a [u8]>)> {
    let end = format!("DIFFY1-END {nonce}");
    let mut lines = Lines::default();
    let mut rest = head;
    while head.len() - rest.len() <= MAX_HEAD {
        let (line, after) = next_line(rest).ok_or_else(cut)?;
        rest = after;
        if line == b"data" {
            return Ok((lines.manifest()?, Some(rest)));
        } else if line == end.as_bytes() {
            return Ok((lines.manifest()?, None));
        }
        lines.add(&String::from_utf8_lossy(line))?;
    }
    Err(Error::data(format!("the head is longer than {MAX_HEAD} bytes")))
}

/// Lines of the head, by name.
#[derive(Default)]
struct Lines {
    named: Vec<(String, String)>,
    notes: Vec<String>,
}

impl Lines {
    fn add(&mut self, line: &str) -> Result<()> {
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        let value: String = value.chars().take(MAX_TEXT).collect();
        if name == "note" {
            if self.notes.len() < MAX_NOTES {
                self.notes.push(value);
            }
            return Ok(());
        }
        if self.find(name).is_some() {
            return Err(Error::data(format!("the head says `{}` twice", name.escape_debug())));
        }
        // Later scripts may say more.
        if self.named.len() < 64 {
            self.named.push((name.to_owned(), value));
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Option<&str> {
        self.named.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn text(&self, name: &'static str) -> Result<&str> {
        self.find(name).ok_or_else(|| Error::data(format!("the head does not say `{name}`")))
    }

    fn number(&self, name: &'static str) -> Result<u64> {
        let text = self.text(name)?;
        text.parse().map_err(|_| wrong(name, text))
    }

    fn manifest(mut self) -> Result<Manifest> {
        let notes = std::mem::take(&mut self.notes);
        let manifest = Manifest {
            host: self.text("host")?.to_owned(),
            uid: self.text("uid")?.parse().ok(),
            clock: self.text("clock")?.parse().ok(),
            agent: agent(self.text("agent")?)?,
            answers: self.number("answers")?,
            raw: self.number("raw")?,
            gz: self.number("gz")?,
            sha256: digest(self.text("sha256")?)?,
            via: via(self.text("via")?)?,
            upload: self.find("upload").map(str::to_owned),
            notes,
        };
        match manifest.gz > MAX_GZ {
            true => Err(Error::data(format!("a payload of {} bytes is too large", manifest.gz))),
            false => Ok(manifest),
        }
    }
}

fn wrong(name: &str, text: &str) -> Error {
    Error::data(format!("the head says `{name} {}`, which cannot be", text.escape_debug()))
}

fn agent(text: &str) -> Result<Agent> {
    let (name, version) = text.split_once(' ').unwrap_or((text, ""));
    let version: String = version.chars().take(40).collect();
    let is_version = |c: char| c.is_ascii_alphanumeric() || ".+-".contains(c);
    match name {
        _ if !version.chars().all(is_version) => Err(wrong("agent", text)),
        "osquery" => Ok(Agent::Osquery(version)),
        "native" => Ok(Agent::Native(version)),
        "none" => Ok(Agent::None),
        _ => Err(wrong("agent", text)),
    }
}

fn via(text: &str) -> Result<Via> {
    match text {
        "inline" => Ok(Via::Inline),
        "upload" => Ok(Via::Upload),
        "stdout" => Ok(Via::Stdout),
        "none" => Ok(Via::None),
        _ => Err(wrong("via", text)),
    }
}

fn digest(text: &str) -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return Err(wrong("sha256", text));
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        let pair = &text[2 * index..2 * index + 2];
        let is_hex = pair.bytes().all(|byte| byte.is_ascii_hexdigit());
        *byte = u8::from_str_radix(pair, 16).ok().filter(|_| is_hex).ok_or_else(|| wrong("sha256", text))?;
    }
    Ok(bytes)
}

/// Where the line with the end mark begins; it must be a whole line.
fn find_end(data: &[u8], nonce: &str) -> Option<usize> {
    let end = format!("DIFFY1-END {nonce}");
    let mut rest = data;
    while let Some((line, after)) = next_line(rest) {
        if line == end.as_bytes() {
            return Some(data.len() - rest.len());
        }
        rest = after;
    }
    None
}

/// Decodes base64 in lines; refuses what is longer than `size` bytes can be before decoding it.
fn decode(text: &[u8], size: u64) -> Result<Vec<u8>> {
    let packed: Vec<u8> = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    if packed.len() as u64 != size.div_ceil(3) * 4 {
        return Err(Error::data(format!("the data is not the base64 of {size} bytes")));
    }
    STANDARD.decode(packed).map_err(|source| Error::data("the data is no base64").source(source))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONCE: &str = "0123456789abcdef0123456789abcdef";

    fn hex(bytes: &[u8]) -> String {
        Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn output(data: &[u8]) -> String {
        let (size, sha) = (data.len(), hex(data));
        format!(
            "Welcome!\nDIFFY1 {NONCE}\nhost i-0abc\nuid 0\nclock 1767607200\nagent osquery 5.10.2\nanswers 2\n\
             raw 99\ngz {size}\nsha256 {sha}\nvia inline\nnote not lowered\nnote a\nfuture x\ndata\n{}\nDIFFY1-END {NONCE}\n",
            STANDARD.encode(data)
        )
    }

    #[test]
    fn a_whole_output_is_read() {
        let reply = parse_reply(output(b"payload").as_bytes(), NONCE).unwrap();
        assert_eq!(reply.data.as_deref(), Some(&b"payload"[..]));
        let manifest = reply.manifest;
        assert_eq!((manifest.host.as_str(), manifest.uid), ("i-0abc", Some(0)));
        assert_eq!(manifest.clock, Some(1_767_607_200));
        assert_eq!(manifest.agent, Agent::Osquery("5.10.2".to_owned()));
        assert_eq!((manifest.answers, manifest.raw, manifest.gz), (2, 99, 7));
        assert_eq!(
            (manifest.via, manifest.notes),
            (Via::Inline, vec!["not lowered".to_owned(), "a".to_owned()])
        );
        let windows = output(b"payload").replace('\n', "\r\n");
        assert!(parse_reply(windows.as_bytes(), NONCE).is_ok());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let whole = output(b"payload");
        let other = NONCE.replace('0', "1");
        for (text, expected) in [
            (String::new(), "printed nothing"),
            ("sh: syntax error\n".to_owned(), "no head"),
            (whole.replace(NONCE, &other), "another run"),
            (whole.replace("\nDIFFY1-END", "\n--output truncated--"), "cut before its end mark"),
            (whole.trim_end().to_owned(), "cut before its end mark"),
            (whole.split("via").next().unwrap().to_owned(), "cut before its end mark"),
            (whole.replace("clock", "clack"), "does not say `clock`"),
            (whole.replace("uid 0", "host b"), "says `host` twice"),
            (whole.replace("raw 99", "raw -1"), "`raw -1`, which cannot be"),
            (whole.replace("gz 7", "gz 99999999999"), "too large"),
            (whole.replace("gz 7", "gz 8"), "has 7 bytes, the host said 8"),
            (whole.replace("gz 7", "gz 10"), "not the base64 of 10 bytes"),
            (whole.replace(&hex(b"payload"), &hex(b"another")), "another sha256"),
            (whole.replace(&hex(b"payload"), "zz"), "`sha256 zz`"),
            (whole.replace(&STANDARD.encode("payload"), "cGF5bG9h_A=="), "no base64"),
            (whole.replace("via inline", "via pigeon"), "`via pigeon`"),
            (whole.replace("osquery 5.10.2", "osquery 5;rm"), "`agent osquery 5;rm`"),
            (whole.replace("data\n", "").replace("cGF5bG9hZA==\n", ""), "no data"),
            (whole.replace("note a\n", &"note a\n".repeat(10_000)), "longer than"),
        ] {
            let error = parse_reply(text.as_bytes(), NONCE).unwrap_err().to_string();
            assert!(error.contains(expected), "{error} is not `{expected}`");
        }
    }

    #[test]
    fn a_cut_output_still_has_its_head() {
        let whole = output(&[7; 5000]);
        let manifest = parse_head(&whole.as_bytes()[..900], NONCE).unwrap();
        assert_eq!(manifest.gz, 5000);
        assert!(check(&manifest, &[7; 5000]).is_ok());
        assert!(check(&manifest, &[7; 4999]).is_err() && check(&manifest, &[8; 5000]).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_output_never_panics(
            bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0..600_usize, long in 0..20_usize,
        ) {
            let _ = parse_reply(&bytes, NONCE);
            let mut whole = output(b"payload").into_bytes();
            let at = at.min(whole.len());
            let end = (at + long).min(whole.len());
            whole.splice(at..end, bytes);
            let _ = parse_reply(&whole, NONCE);
            let _ = parse_head(&whole, NONCE);
        }
    }
}
