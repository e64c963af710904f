//! Where chance comes from: one stream of random numbers for each purpose, all of them derived from the seed.
//!
//! A stream of its own for each host and table makes hosts independent: any of them can be made alone, in any order.

use std::fmt::Write as _;

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The stream for a purpose, named by its parts.
pub(super) fn stream(seed: u64, parts: &[&str]) -> ChaCha8Rng {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    for part in parts {
        hasher.update(part.as_bytes());
        hasher.update(&[0]);
    }
    ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
}

/// A number that belongs to a text, the same in every fleet: sizes and times of packaged files.
pub(super) fn number_of(text: &str, below: u64) -> u64 {
    let hash = blake3::hash(text.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(first) % below.max(1)
}

/// Hex digits that belong to a text, the same in every fleet: what stands in for the hash of a file.
pub(super) fn hex_of(text: &str, digits: usize) -> String {
    let mut bytes = vec![0; digits.div_ceil(2)];
    blake3::Hasher::new().update(text.as_bytes()).finalize_xof().fill(&mut bytes);
    let mut hex = String::with_capacity(digits + 1);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex.truncate(digits);
    hex
}

/// A public SSH key as `authorized_keys` spells it; nobody has its private half.
pub(super) fn ssh_key(rng: &mut ChaCha8Rng) -> String {
    format!("AAAAC3NzaC1lZDI1NTE5AAAAI{}", text(rng, BASE64, 43))
}

/// Random hex digits.
pub(super) fn hex(rng: &mut ChaCha8Rng, digits: usize) -> String {
    text(rng, b"0123456789abcdef", digits)
}

/// Random letters and digits.
pub(super) fn alnum(rng: &mut ChaCha8Rng, length: usize) -> String {
    text(rng, &BASE64[..62], length)
}

/// Random lowercase letters.
pub(super) fn letters(rng: &mut ChaCha8Rng, length: usize) -> String {
    text(rng, &BASE64[26..52], length)
}

/// One of a pool; the empty text of an empty pool.
pub(super) fn pick<'a>(rng: &mut ChaCha8Rng, pool: &[&'a str]) -> &'a str {
    pool.choose(rng).copied().unwrap_or_default()
}

/// An address on the internet, outside of the ranges that our own hosts and pools use.
pub(super) fn public_address(rng: &mut ChaCha8Rng) -> String {
    let first = [23, 31, 37, 45, 62, 77, 79, 81, 89, 91, 94, 103, 138, 146, 159, 176, 185, 193, 194, 212];
    let first = first[rng.random_range(0..first.len())];
    format!("{first}.{}.{}.{}", rng.random_range(1..255), rng.random_range(0..255), rng.random_range(1..255))
}

const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn text(rng: &mut ChaCha8Rng, alphabet: &[u8], length: usize) -> String {
    (0..length).map(|_| char::from(alphabet[rng.random_range(0..alphabet.len())])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_differ_by_every_part() {
        let first = |seed, parts: &[&str]| hex(&mut stream(seed, parts), 16);
        assert_eq!(first(1, &["a", "b"]), first(1, &["a", "b"]));
        assert_ne!(first(1, &["a", "b"]), first(2, &["a", "b"]));
        assert_ne!(first(1, &["a", "b"]), first(1, &["ab", ""]));
    }
}
