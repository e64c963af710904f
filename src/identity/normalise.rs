//! Normalisers: even out, for the ids alone, what differs between hosts without being another thing.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::LazyLock;

use regex::Regex;

use super::own_names::{OwnNames, SELF_PLACEHOLDER};
use crate::catalog::{ColumnSpec, Normaliser, Strength};

/// First port that Linux hands out by itself.
const EPHEMERAL_PORTS_FROM: i64 = 32_768;

/// A value on its way into an id.
pub type Text<'a> = Cow<'a, str>;

/// `text` evened out for the id of that strength. The order of `normalisers` does not matter: they run in one fixed
/// order, so that a schema cannot get it wrong.
pub(super) fn normalise<'a>(
    text: &'a str,
    normalisers: &[Normaliser],
    strength: Strength,
    own: &OwnNames,
) -> Text<'a> {
    let mut result: Text<'a> = Cow::Borrowed(text);
    for normaliser in IN_ORDER {
        if normalisers.contains(&normaliser) && (strength == Strength::Loose || !is_loose_only(normaliser)) {
            result = apply(normaliser, result, strength, own);
        }
    }
    result
}

/// A value of a prevalence line, in which own names are placeholders already, as the id of that strength sees it.
pub fn evened_out<'a>(text: &'a str, column: &ColumnSpec, strength: Strength) -> Text<'a> {
    static NONE: LazyLock<OwnNames> = LazyLock::new(OwnNames::default);
    normalise(text, &column.normalise, strength, &NONE)
}

const IN_ORDER: [Normaliser; 10] = [
    Normaliser::SelfNames,
    Normaliser::Addr,
    Normaliser::Port,
    Normaliser::Deleted,
    Normaliser::Home,
    Normaliser::Disk,
    Normaliser::Hex,
    Normaliser::Ver,
    Normaliser::Num,
    Normaliser::Ws,
];

/// Every normaliser is a hiding place (`kworker/9:9`, `libx.so.7777`); the strict id goes without these.
fn is_loose_only(normaliser: Normaliser) -> bool {
    matches!(normaliser, Normaliser::Num | Normaliser::Ver | Normaliser::Hex)
}

fn apply<'a>(normaliser: Normaliser, text: Text<'a>, strength: Strength, own: &OwnNames) -> Text<'a> {
    match normaliser {
        Normaliser::SelfNames => map(text, |text| own.replace(text)),
        Normaliser::Addr => map(text, |text| address(text, strength, own)),
        Normaliser::Port => map(text, port),
        Normaliser::Deleted => map(text, deleted),
        Normaliser::Home => replace_all(text, &HOME, "${1}~"),
        Normaliser::Disk => replace_all(text, &DISK, "<disk>"),
        Normaliser::Hex => replace_all(text, &HEX, "<hex>"),
        Normaliser::Ver => replace_all(text, &VERSION, "#"),
        Normaliser::Num => map(text, digits),
        Normaliser::Ws => map(text, white_space),
    }
}

/// Applies a borrowing function without copying what it leaves alone.
fn map<'a>(text: Text<'a>, change: impl for<'b> Fn(&'b str) -> Cow<'b, str>) -> Text<'a> {
    match text {
        Cow::Borrowed(text) => change(text),
        Cow::Owned(text) => Cow::Owned(change(&text).into_owned()),
    }
}

fn replace_all<'a>(text: Text<'a>, pattern: &Regex, replacement: &str) -> Text<'a> {
    match text {
        Cow::Borrowed(text) => pattern.replace_all(text, replacement),
        Cow::Owned(text) => Cow::Owned(pattern.replace_all(&text, replacement).into_owned()),
    }
}

static HOME: LazyLock<Regex> = LazyLock::new(|| pattern(r#"(^|[\s=:'"])(?:/root|/home/[^/\s'":]+)\b"#));
static DISK: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?x) /dev/(?:nvme\d+n\d+(?:p\d+)?|(?:xv|s|v|h)d[a-z]+\d*|disk/by-\S+|mapper/\S+|root|md\d+)\b
        | \b(?:PART)?(?:UUID|LABEL)=[\w.-]+ | dev-disk-by\S+ ",
    )
});
/// A UUID, or at least eight hex digits in a row with a decimal digit among them somewhere near the start.
static HEX: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?x) \b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b
        | [a-fA-F]{0,7}[0-9][0-9a-fA-F]{7,} | [a-fA-F]{1,7}[0-9][0-9a-fA-F]{6} ",
    )
});
static VERSION: LazyLock<Regex> = LazyLock::new(|| pattern(r"[0-9]+(?:[._:+~-][0-9]+)*"));

fn pattern(text: &str) -> Regex {
    #[expect(clippy::expect_used, reason = "constant patterns, compiled by the tests")]
    Regex::new(text).expect("constant pattern")
}

fn digits(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| byte.is_ascii_digit()) {
        return Cow::Borrowed(text);
    }
    let mut result = String::with_capacity(text.len());
    let mut in_run = false;
    for character in text.chars() {
        let is_digit = character.is_ascii_digit();
        if !is_digit {
            result.push(character);
        } else if !in_run {
            result.push('#');
        }
        in_run = is_digit;
    }
    Cow::Owned(result)
}

fn deleted(text: &str) -> Cow<'_, str> {
    match text.strip_suffix(" (deleted)") {
        Some(path) => Cow::Owned(format!("{path}<deleted>")),
        None => Cow::Borrowed(text),
    }
}

fn port(text: &str) -> Cow<'_, str> {
    match text.parse::<i64>() {
        Ok(number) if number >= EPHEMERAL_PORTS_FROM => Cow::Borrowed("ephemeral"),
        _ => Cow::Borrowed(text),
    }
}

fn white_space(text: &str) -> Cow<'_, str> {
    let is_even = !text.starts_with(char::is_whitespace)
        && !text.ends_with(char::is_whitespace)
        && !text.contains("  ")
        && !text.chars().any(|character| character.is_whitespace() && character != ' ');
    if is_even {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The loose id knows only the class of a foreign address: peers and load balancers differ by host.
fn address<'a>(text: &'a str, strength: Strength, own: &OwnNames) -> Cow<'a, str> {
    if own.contains(text) {
        return Cow::Borrowed(SELF_PLACEHOLDER);
    }
    match (strength, text.parse::<IpAddr>()) {
        (Strength::Loose, Ok(address)) => Cow::Borrowed(address_class(address)),
        _ => own.replace(text),
    }
}

fn address_class(address: IpAddr) -> &'static str {
    let address = address.to_canonical();
    if address.is_unspecified() {
        return "any";
    }
    if address.is_loopback() {
        return "loopback";
    }
    if address.is_multicast() {
        return "multicast";
    }
    let (link_local, private) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.is_private()),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.is_unique_local()),
    };
    match (link_local, private) {
        (true, _) => "link-local",
        (_, true) => "private",
        _ => "public",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Normaliser::{Addr, Deleted, Disk, Hex, Home, Num, Port, SelfNames, Ver, Ws};

    fn check(normalisers: &[Normaliser], text: &str, loose: &str, strict: &str) {
        let own = OwnNames::new(["web-0042", "10.1.2.3"]);
        assert_eq!(normalise(text, normalisers, Strength::Loose, &own), loose, "loose of {text:?}");
        assert_eq!(normalise(text, normalisers, Strength::Strict, &own), strict, "strict of {text:?}");
    }

    #[test]
    fn loose_ids_even_out_more_than_strict_ids() {
        check(&[Num], "kworker/0:12", "kworker/#:#", "kworker/0:12");
        check(&[Ver], "/usr/lib/libssl.so.3.0.11", "/usr/lib/libssl.so.#", "/usr/lib/libssl.so.3.0.11");
        check(&[Hex], "docker-4f5e6d7c8b9a.scope", "docker-<hex>.scope", "docker-4f5e6d7c8b9a.scope");
        check(
            &[Hex],
            "x-3d813cbb-47fb-32ba-91df-831e1593ac29",
            "x-<hex>",
            "x-3d813cbb-47fb-32ba-91df-831e1593ac29",
        );
        check(&[Hex], "deadbeef-feedface", "deadbeef-feedface", "deadbeef-feedface");
        check(&[Addr], "52.1.2.3", "public", "52.1.2.3");
        check(&[Addr], "10.1.2.3", "<self>", "<self>");
        check(&[Addr], "::ffff:127.0.0.1", "loopback", "::ffff:127.0.0.1");
        check(&[Addr], "fe80::1", "link-local", "fe80::1");
    }

    #[test]
    fn both_ids_even_out_what_only_says_which_host_it_is() {
        let same =
            |normalisers: &[Normaliser], text: &str, expect: &str| check(normalisers, text, expect, expect);
        same(&[SelfNames], "--name web-0042 --bind 10.1.2.3:80", "--name <self> --bind <self>:80");
        same(&[Home], "/home/alice/.ssh/authorized_keys", "~/.ssh/authorized_keys");
        same(&[Home], "cat /root/.bashrc /roots", "cat ~/.bashrc /roots");
        same(&[Port], "41337", "ephemeral");
        same(&[Port], "22", "22");
        same(&[Disk], "/dev/nvme0n1p1", "<disk>");
        same(&[Disk], "root=PARTUUID=6bcc3254-ef3e ro", "root=<disk> ro");
        same(&[Ws], "  a \t b\n", "a b");
        same(&[Deleted], "/tmp/x (deleted)", "/tmp/x<deleted>");
    }

    #[test]
    fn the_order_in_a_schema_does_not_matter() {
        check(&[Num, Hex], "a-0123456789ab-7", "a-<hex>-#", "a-0123456789ab-7");
        check(&[Hex, Num], "a-0123456789ab-7", "a-<hex>-#", "a-0123456789ab-7");
    }
}
