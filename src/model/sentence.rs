//! Parts of sentences: numbers of things, some of many, a part of what is long.

use std::fmt::Display;

/// How many are named.
const NAMED: usize = 5;

/// `1 host`, `2 hosts`; thousands apart.
pub fn count(number: u64, thing: &str) -> String {
    format!("{} {thing}{}", digits(number), if number == 1 { "" } else { "s" })
}

/// `1 of 2 hosts`; thousands apart.
pub fn part(number: u64, of: u64, thing: &str) -> String {
    format!("{} of {}", digits(number), count(of, thing))
}

/// Digits in groups of three.
pub fn digits(number: u64) -> String {
    let plain = number.to_string();
    let mut out = String::with_capacity(plain.len() + plain.len() / 3);
    for (at, digit) in plain.chars().enumerate() {
        if at > 0 && (plain.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The first five, and `…` where there are more.
pub fn few<T: Display>(all: impl IntoIterator<Item = T>) -> String {
    let mut all = all.into_iter();
    let mut named: Vec<String> = all.by_ref().take(NAMED).map(|one| one.to_string()).collect();
    named.extend(all.next().map(|_| "…".to_owned()));
    named.join(", ")
}

/// At most so many bytes of the beginning, and `…` where there is more.
pub fn cut(text: &str, most: usize) -> String {
    let end = text.floor_char_boundary(most);
    if end < text.len() { format!("{}…", &text[..end]) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_five_are_not_named() {
        assert_eq!(few(["a"; 0]), "");
        assert_eq!(few(1..=5), "1, 2, 3, 4, 5");
        assert_eq!(few(1..=6), "1, 2, 3, 4, 5, …");
    }

    #[test]
    fn numbers_have_thousands_apart() {
        for (number, expected) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(digits(number), expected);
        }
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("bärte", 6), "bärte");
        assert_eq!(cut("bärte", 2), "b…");
    }
}
