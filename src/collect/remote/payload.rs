//! Takes a payload apart: the answers of one host, one frame each.

use std::io::{self, BufRead, BufReader, Read};

use flate2::read::MultiGzDecoder;

use crate::catalog::is_table_name;
use crate::error::{Error, Result};

/// Longest line between frames, in bytes.
const MAX_LINE: u64 = 256;

/// Most bytes of one answer's error output; the script keeps 4,096.
const MAX_STDERR: u64 = 64 << 10;

/// Most that unpacking may make of what a host sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnpackLimits {
    /// Bytes of one answer's rows.
    pub frame_bytes: u64,
    /// Bytes of all, unpacked.
    pub total_bytes: u64,
    /// Number of answers.
    pub frames: u64,
}

impl Default for UnpackLimits {
    fn default() -> Self {
        Self { frame_bytes: 256 << 20, total_bytes: 1 << 30, frames: 4096 }
    }
}

/// What one host said for one table: unparsed, untrusted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RemoteAnswer {
    /// The table; a name that can be a table, but perhaps not one that was asked for.
    pub table: String,
    /// Exit status of the agent: 128 and more for a signal.
    pub exit: i32,
    /// When the query started, by the host's clock, in seconds since 1970.
    pub started: i64,
    /// When the query ended, by the host's clock, in seconds since 1970.
    pub ended: i64,
    /// Whether `stdout` is only the beginning.
    pub cut: bool,
    /// Whether it was killed at its time limit.
    pub timeout: bool,
    /// Whether it was never asked, because the host's limits were used up; `stderr` says which.
    pub skipped: bool,
    /// Rows as `osqueryi --json` prints them.
    pub stdout: Vec<u8>,
    /// The end of the error output.
    pub stderr: Vec<u8>,
}

/// Unpacks a payload and hands over its answers one by one, until `each` says that it wants no more.
///
/// # Errors
/// The payload is no gzip, is cut or damaged, has a frame that cannot be, or is beyond a limit; all whole frames before
/// that were handed over.
pub fn unpack(gz: &[u8], limits: &UnpackLimits, each: &mut dyn FnMut(RemoteAnswer) -> bool) -> Result<()> {
    let bounded = MultiGzDecoder::new(gz).take(limits.total_bytes.saturating_add(1));
    let mut frames = Frames { from: BufReader::with_capacity(64 << 10, bounded), limits, read: 0 };
    let mut count = 0;
    loop {
        let line = frames.line()?;
        if let Some(promised) = line.strip_prefix("Z ") {
            return frames.end(promised, count);
        }
        if count == limits.frames {
            return Err(Error::data(format!("the payload has more than {count} answers")));
        }
        let answer = frames.answer(&line)?;
        count += 1;
        if !each(answer) {
            return Ok(());
        }
    }
}

struct Frames<'a, R> {
    from: R,
    limits: &'a UnpackLimits,
    /// Bytes so far.
    read: u64,
}

impl<R: BufRead> Frames<'_, R> {
    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        let read = self.from.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
        self.count(read.map_err(unreadable)? as u64)?;
        if line.pop() != Some(b'\n') {
            return Err(self.broken("it ends, or has something else, where an answer should begin"));
        }
        String::from_utf8(line).map_err(|_| self.broken("a frame begins with something that is no text"))
    }

    fn answer(&mut self, line: &str) -> Result<RemoteAnswer> {
        let wrong = || Error::data(format!("`{}` begins no answer", line.escape_debug()));
        let words: Vec<&str> = line.split(' ').collect();
        let ["A", table, exit, started, ended, flags, out, err] = words[..] else { return Err(wrong()) };
        let number = |text: &str| text.parse::<i64>().map_err(|_| wrong());
        let size = |text: &str| text.parse::<u64>().map_err(|_| wrong());
        let mut answer = RemoteAnswer {
            table: table.to_owned(),
            exit: exit.parse().map_err(|_| wrong())?,
            started: number(started)?,
            ended: number(ended)?,
            ..RemoteAnswer::default()
        };
        if !is_table_name(table) || !set_flags(&mut answer, flags) {
            return Err(wrong());
        }
        answer.stdout = self.bytes(size(out)?, self.limits.frame_bytes)?;
        answer.stderr = self.bytes(size(err)?, MAX_STDERR)?;
        if self.bytes(1, 1)? != b"\n" {
            return Err(self.broken("an answer is longer than it says"));
        }
        Ok(answer)
    }

    /// Exactly `size` bytes; room grows with what is there, not with what was promised.
    fn bytes(&mut self, size: u64, most: u64) -> Result<Vec<u8>> {
        if size > most {
            return Err(Error::data(format!("an answer of {size} bytes is longer than {most}")));
        }
        let mut bytes = Vec::new();
        let read = self.from.by_ref().take(size).read_to_end(&mut bytes);
        self.count(read.map_err(unreadable)? as u64)?;
        if bytes.len() as u64 != size {
            return Err(self.broken("it ends in the middle of an answer"));
        }
        Ok(bytes)
    }

    fn count(&mut self, bytes: u64) -> Result<()> {
        self.read += bytes;
        if self.read > self.limits.total_bytes {
            let most = self.limits.total_bytes;
            return Err(Error::data(format!("the payload unpacks to more than {most} bytes")));
        }
        Ok(())
    }

    fn end(&mut self, promised: &str, count: u64) -> Result<()> {
        if promised != count.to_string() {
            let promised = promised.escape_debug();
            return Err(Error::data(format!("the payload promised `{promised}` answers and has {count}")));
        }
        // Also checks the checksum of gzip.
        match self.from.fill_buf().map_err(unreadable)?.is_empty() {
            true => Ok(()),
            false => Err(self.broken("it goes on behind its end")),
        }
    }

    fn broken(&self, how: &str) -> Error {
        Error::data(format!("the payload is broken: {how}")).with("after bytes", self.read)
    }
}

fn unreadable(source: io::Error) -> Error {
    Error::data("cannot unpack the payload").source(source)
}

/// Whether all of them are known.
fn set_flags(answer: &mut RemoteAnswer, flags: &str) -> bool {
    flags == "-"
        || flags.split(',').all(|flag| {
            match flag {
                "cut" => answer.cut = true,
                "timeout" => answer.timeout = true,
                "skipped" => answer.skipped = true,
                _ => return false,
            }
            true
        })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn unpacked(gz: &[u8], limits: &UnpackLimits) -> (Vec<RemoteAnswer>, Option<String>) {
        let mut answers = Vec::new();
        let ended = unpack(gz, limits, &mut |answer| {
            answers.push(answer);
            true
        });
        (answers, ended.err().map(|error| error.to_string()))
    }

    const TWO: &[u8] = b"A users 0 10 12 - 4 0\n[\n]\n\nA crontab 137 12 20 cut,timeout 2 3\n[{oh\n\nZ 2\n";

    #[test]
    fn frames_come_out_as_they_went_in() {
        let (answers, error) = unpacked(&gzip(TWO), &UnpackLimits::default());
        assert_eq!(error, None);
        assert_eq!((answers[0].table.as_str(), &answers[0].stdout[..]), ("users", &b"[\n]\n"[..]));
        let second = &answers[1];
        assert_eq!((second.exit, second.started, second.ended), (137, 12, 20));
        assert!(second.cut && second.timeout && !second.skipped);
        assert_eq!((&second.stdout[..], &second.stderr[..]), (&b"[{"[..], &b"oh\n"[..]));
    }

    #[test]
    fn whoever_wants_no_more_gets_no_more() {
        let mut seen = 0;
        let mut first = |_| {
            seen += 1;
            false
        };
        unpack(&gzip(TWO), &UnpackLimits::default(), &mut first).unwrap();
        assert_eq!(seen, 1);
    }

    #[test]
    fn what_is_wrong_is_said_after_whole_frames() {
        let whole = gzip(TWO);
        let small = UnpackLimits { frame_bytes: 3, ..UnpackLimits::default() };
        let bomb = gzip(&[b"A users 0 1 2 - 100000000 0\n", &vec![b'x'; 20 << 20][..]].concat());
        let tight = UnpackLimits { total_bytes: 1 << 20, ..UnpackLimits::default() };
        for (gz, limits, frames, expected) in [
            (whole[..whole.len() - 12].to_vec(), UnpackLimits::default(), 1, ""),
            (gzip(&TWO[..TWO.len() - 4]), UnpackLimits::default(), 2, "where an answer should begin"),
            (gzip(&TWO[..TWO.len() - 7]), UnpackLimits::default(), 1, "in the middle of an answer"),
            (gzip(&[TWO, b"more"].concat()), UnpackLimits::default(), 2, "goes on behind its end"),
            (gzip(b"Z 1\n"), UnpackLimits::default(), 0, "promised `1` answers and has 0"),
            (gzip(b"A ../x 0 1 2 - 0 0\n\nZ 1\n"), UnpackLimits::default(), 0, "begins no answer"),
            (gzip(b"A users 0 1 2 ok 0 0\n\nZ 1\n"), UnpackLimits::default(), 0, "begins no answer"),
            (gzip(b"A users 0 1 2 - 99999999999999 0\n"), UnpackLimits::default(), 0, "is longer than"),
            (whole.clone(), small, 0, "an answer of 4 bytes is longer than 3"),
            (whole.clone(), UnpackLimits { frames: 1, ..UnpackLimits::default() }, 1, "more than 1 answers"),
            (bomb, tight, 0, "unpacks to more than 1048576 bytes"),
            (b"no gzip".to_vec(), UnpackLimits::default(), 0, "cannot unpack"),
            (Vec::new(), UnpackLimits::default(), 0, "payload"),
        ] {
            let (answers, error) = unpacked(&gz, &limits);
            let error = error.unwrap_or_else(|| panic!("no error, but not `{expected}`"));
            assert!(error.contains(expected), "{error} is not `{expected}`");
            assert!(answers.len() == frames || expected.is_empty(), "{} for {expected}", answers.len());
        }
    }

    proptest! {
        #[test]
        fn arbitrary_payloads_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), at in 0..200_usize) {
            let limits = UnpackLimits::default();
            unpacked(&bytes, &limits);
            unpacked(&gzip(&bytes), &limits);
            let mut frames = TWO.to_vec();
            frames.splice(at.min(TWO.len())..(at + 2).min(TWO.len()), bytes.iter().take(3).copied());
            unpacked(&gzip(&frames), &limits);
            let mut damaged = gzip(TWO);
            let place = at % damaged.len();
            damaged[place] ^= bytes.first().copied().unwrap_or(1);
            unpacked(&damaged, &limits);
        }
    }
}
