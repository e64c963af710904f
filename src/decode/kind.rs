//! What a file is, told from its first bytes and, where those leave it open, from its name.

use std::borrow::Cow;
use std::path::Path;

use super::split::Balance;
use super::utf8::json_text;

/// How much of a file is looked at.
pub(super) const HEAD: u64 = 64 << 10;
/// How much of it is looked at first: an array of rows shows by its first bytes.
pub(super) const GLANCE: usize = 64;
/// Keys of an object that are looked at.
const MOST_KEYS: usize = 256;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Entries of osqueryd.
    Log,
    /// One object of tables.
    Host,
    /// Rows of one table.
    Table,
    /// What Fleet says of many hosts.
    Fleet(Shape),
    /// Rows of an artifact of Velociraptor.
    Artifact,
    /// Nothing at all.
    Empty,
    /// Something else.
    Other,
}

/// In which form Fleet says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// An object for each host, on a line of its own.
    Lines,
    /// An object with `results`, as the REST API answers.
    Report,
    /// A table for spreadsheets, as the UI exports it.
    Csv,
}

/// What the start of a file says that it is.
pub(super) fn kind_of_text(head: &[u8]) -> Kind {
    let head = head.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(head).trim_ascii_start();
    if head.is_empty() {
        return Kind::Empty;
    }
    if is_fleet_csv(head) {
        return Kind::Fleet(Shape::Csv);
    }
    // Warnings may stand before what matters.
    head.split_inclusive(|byte| *byte == b'\n')
        .scan(0, |at, line| {
            let start = *at;
            *at += line.len();
            Some(kind_of_start(&head[start..]))
        })
        .find(|kind| *kind != Kind::Other)
        .unwrap_or(Kind::Other)
}

/// What a text is that starts here.
fn kind_of_start(text: &[u8]) -> Kind {
    match text {
        [b'[', rest @ ..] => match rest.trim_ascii_start() {
            [b'{', ..] => kind_of_element(rest.trim_ascii_start()),
            [] | [b']', ..] => Kind::Table,
            _ => Kind::Other,
        },
        [b'{', ..] => kind_of_object(text),
        _ => Kind::Other,
    }
}

/// The first object of an array: nearly always a row of osqueryi.
fn kind_of_element(text: &[u8]) -> Kind {
    match kind_of_object(text) {
        Kind::Fleet(Shape::Lines) => Kind::Fleet(Shape::Lines),
        Kind::Artifact => Kind::Artifact,
        _ => Kind::Table,
    }
}

fn kind_of_object(text: &[u8]) -> Kind {
    let keys = keys_of(text);
    let starts = |name: &str, with: &[u8]| {
        keys.iter().any(|key| key.name == name && (with.is_empty() || key.value.starts_with(with)))
    };
    let has = |name: &str| starts(name, b"");
    if has("diffResults") || has("snapshot") || has("severity") {
        return Kind::Log;
    }
    if has("name") && (has("hostIdentifier") || has("hostname")) {
        return Kind::Log;
    }
    if starts("host", b"\"") && (has("rows") || has("error")) {
        return Kind::Fleet(Shape::Lines);
    }
    let of_report =
        ["report_clipped", "query_id", "report_id", "host_id", "targeted_host_count", "live_query_results"];
    if (starts("results", b"[") || starts("live_query_results", b"[") || has("rows"))
        && of_report.iter().any(|name| has(name))
    {
        return Kind::Fleet(Shape::Report);
    }
    let beside_client = ["FlowId", "Fqdn", "HuntId", "_OrgId", "_Source", "Artifact"];
    if starts("ClientId", b"\"C.")
        || (has("ClientId") || has("Fqdn")) && beside_client.iter().filter(|name| has(name)).count() > 1
    {
        return Kind::Artifact;
    }
    if keys.iter().any(|key| key.value.starts_with(b"[")) { Kind::Host } else { Kind::Table }
}

/// Whether every value of the first object is an array: tables of a host, and no row.
pub(super) fn is_all_arrays(head: &[u8]) -> bool {
    let head = head.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(head).trim_ascii_start();
    let keys = keys_of(head);
    !keys.is_empty() && keys.iter().all(|key| key.value.starts_with(b"[") || key.value.starts_with(b"null"))
}

/// The text that a key of an object has, which need not be whole: `None` where it has none, or the text breaks off.
pub(super) fn text_of_key(text: &[u8], names: &[&str]) -> Option<String> {
    let keys = keys_of(text);
    let key = names.iter().find_map(|name| keys.iter().find(|key| key.name == *name))?;
    match Balance::default().scan(key.value) {
        (length, true) if key.value.starts_with(b"\"") => Some(name_of(&key.value[..length]).into_owned()),
        _ => None,
    }
}

/// Whether the first line names columns as Fleet's UI does.
fn is_fleet_csv(head: &[u8]) -> bool {
    let head = head.strip_prefix(b"\"").unwrap_or(head);
    ["host_display_name", "host_hostname"].iter().any(|name| {
        let rest = head.strip_prefix(name.as_bytes());
        rest.is_some_and(|rest| rest.is_empty() || matches!(rest[0], b'"' | b',' | b'\n' | b'\r'))
    })
}

/// A key of an object and how its value begins.
struct Key<'a> {
    name: Cow<'a, str>,
    value: &'a [u8],
}

/// The keys of the object that starts here, as far as the text goes.
fn keys_of(text: &[u8]) -> Vec<Key<'_>> {
    let mut keys = Vec::new();
    let Some(mut rest) = text.strip_prefix(b"{") else { return keys };
    while keys.len() < MOST_KEYS {
        rest = rest.trim_ascii_start();
        rest = rest.strip_prefix(b",").unwrap_or(rest).trim_ascii_start();
        if !rest.starts_with(b"\"") {
            break;
        }
        let (length, is_whole) = Balance::default().scan(rest);
        if !is_whole {
            break;
        }
        let name = name_of(&rest[..length]);
        let Some(value) = rest[length..].trim_ascii_start().strip_prefix(b":") else { break };
        let value = value.trim_ascii_start();
        keys.push(Key { name, value });
        rest = match value {
            [b'{' | b'[' | b'"', ..] => match Balance::default().scan(value) {
                (length, true) => &value[length..],
                _ => break,
            },
            _ => {
                let end = value.iter().position(|byte| matches!(byte, b',' | b'}' | b'\n'));
                &value[end.unwrap_or(value.len())..]
            }
        };
    }
    keys
}

fn name_of(quoted: &[u8]) -> Cow<'_, str> {
    let inside = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    if !inside.contains(&b'\\') {
        return String::from_utf8_lossy(inside);
    }
    let text = json_text(quoted).ok().and_then(|text| serde_json::from_str::<String>(&text).ok());
    text.map_or_else(|| String::from_utf8_lossy(inside), Cow::Owned)
}

/// Whether a file begins with a row in an array, so that more of it would say the same.
pub(super) fn is_table_at_a_glance(head: &[u8]) -> bool {
    let array = head.trim_ascii_start().strip_prefix(b"[").map(<[u8]>::trim_ascii_start);
    let row = array.and_then(|rows| rows.strip_prefix(b"{")).map(<[u8]>::trim_ascii_start);
    // Fleet's objects begin so; those of Velociraptor begin with any key, but their files have names of their own.
    row.is_some_and(|row| !row.starts_with(b"\"host\""))
}

/// The name without the endings of JSON, tables and packers.
pub(super) fn stem_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut stem = name.as_ref();
    for ending in [".gz", ".zst", ".json", ".jsonl", ".ndjson", ".csv"] {
        stem = stem.strip_suffix(ending).unwrap_or(stem);
    }
    stem.to_owned()
}

pub(super) fn is_json_name(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.len() > stem_of(path).len() && name.contains(".json") || name.contains(".ndjson")
}

/// The artifact that a file of Velociraptor is named after, with its source: `Linux.Sys.Crontab/CronTabs`.
pub(super) fn artifact_of(path: &Path) -> Option<String> {
    let stem = stem_of(path);
    let stem = stem.strip_prefix("All ").unwrap_or(&stem);
    let name = stem.replace("%2F", "/").replace("%2f", "/");
    let words: Vec<&str> = name.split('/').next().unwrap_or_default().split('.').collect();
    let is_word = |word: &&str| {
        word.starts_with(|first: char| first.is_ascii_uppercase() || first.is_ascii_digit())
            && word.chars().all(|character| character.is_ascii_alphanumeric() || character == '_')
    };
    (words.len() > 1 && words.iter().all(is_word) && words[0].len() > 1).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn content_tells_the_kind() {
        let check = |text: &str, expect: Kind| assert_eq!(kind_of_text(text.as_bytes()), expect, "{text}");
        check("", Kind::Empty);
        check(" \n", Kind::Empty);
        check("[\n  {", Kind::Table);
        check("[]", Kind::Table);
        check("[WARN] x\n[{}]", Kind::Table);
        check("W0105 hm\n[\n]", Kind::Table);
        check("{\"a\":1}\n{\"a\":2}", Kind::Table);
        check("{\"processes\": [", Kind::Host);
        check("{\n  \"processes\": [\n", Kind::Host);
        check("{\"os\":[],\"b\":null}", Kind::Host);
        check("{\"snapshot\":[{\"a\":", Kind::Log);
        check("{\"name\":\"q\",\"hostIdentifier\":\"h\",\"columns\":{", Kind::Log);
        check("{\"hostname\":\"h\",\"name\":\"q\",\"columns\":{}}", Kind::Log);
        check("Log file created at: x\n{\"snapshot\":[]}", Kind::Log);
        check("hello", Kind::Other);
    }

    #[test]
    fn what_fleet_and_velociraptor_say_is_known() {
        let check = |text: &str, expect: Kind| assert_eq!(kind_of_text(text.as_bytes()), expect, "{text}");
        let lines = Kind::Fleet(Shape::Lines);
        check(r#"{"host":"a","rows":[{"x":"#, lines);
        check("{\"host\":\"a\",\"rows\":null,\"error\":\"no\"}\n", lines);
        check(r#"[{"host":"a","rows":[]}]"#, lines);
        check(r#"[{"host":"a","port":"1"}]"#, Kind::Table);
        check(r#"{"host":[{"a":"1"}],"rows":[]}"#, Kind::Host);
        let report = Kind::Fleet(Shape::Report);
        check("{\n  \"query_id\": 31,\n  \"results\": [\n", report);
        check(r#"{"results":[],"report_clipped":true}"#, report);
        check(r#"{"report_id":1,"host_id":2,"results":[{"columns":{}}]}"#, report);
        check(r#"{"summary":{"a":1},"live_query_results":[{"#, report);
        check(r#"{"results":[]}"#, Kind::Host);
        let csv = Kind::Fleet(Shape::Csv);
        check("host_display_name,pid\r\n", csv);
        check("\u{FEFF}\"host_display_name\",\"last_fetched\"\n", csv);
        check("host_display_names,pid\n", Kind::Other);
        check(r#"{"Pid":1,"FlowId":"F.1","ClientId":"C.1","Fqdn":"a"}"#, Kind::Artifact);
        check(r#"[{"Pid":1,"ClientId":"C.1"}]"#, Kind::Artifact);
        check(r#"{"Pid":1,"Name":"x"}"#, Kind::Table);
    }

    #[test]
    fn a_broken_object_says_whose_it_is() {
        let check = |text: &str, expect: Option<&str>| {
            assert_eq!(text_of_key(text.as_bytes(), &["host", "host_name"]).as_deref(), expect, "{text}");
        };
        check(r#"{"host":"web-4","rows":[{"#, Some("web-4"));
        check(r#"{"host_id":1,"host_name":"a\"b","columns":{"x""#, Some("a\"b"));
        check(r#"{"rows":[{"host":"other"}],"host":"a"#, None);
        check(r#"{"host":5"#, None);
        check("Error", None);
    }

    #[test]
    fn names_lose_their_endings_and_tell_artifacts() {
        let check = |name: &str, stem: &str, json: bool| {
            assert_eq!((stem_of(Path::new(name)).as_str(), is_json_name(Path::new(name))), (stem, json));
        };
        check("a/processes.json.gz", "processes", true);
        check("a/processes.jsonl", "processes", true);
        check("web.prod.json", "web.prod", true);
        check("notes.txt", "notes.txt", false);
        let check = |name: &str, expect: Option<&str>| {
            assert_eq!(artifact_of(Path::new(name)).as_deref(), expect, "{name}");
        };
        check("x/Linux.Sys.Pslist.json", Some("Linux.Sys.Pslist"));
        check("All Linux.Sys.Crontab%2FCronTabs.json.gz", Some("Linux.Sys.Crontab/CronTabs"));
        check("Linux.Mounts.json", Some("Linux.Mounts"));
        check("web.prod.json", None);
        check("processes.json", None);
        check("Processes.json", None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_of_some_kind(bytes in prop::collection::vec(any::<u8>(), 0..100), text in r#"[\[{]?\{?("(a|host|ClientId|results)":("x"|\[|\{|1|null)[,}]?){0,5}"#) {
            let _ = kind_of_text(&bytes);
            let _ = kind_of_text(text.as_bytes());
        }
    }
}
