//! What the script of a report reads: an index of all hosts, and blocks with their findings that are parsed when one is
//! asked for. JSON whose texts are kept once each, spelled so that it cannot leave its `<script>`.

use std::collections::HashMap;
use std::io::Write;

use serde::Serialize;
use serde_json::{Value, json};

use super::super::escape::JsonGuard;
use super::heat::Heat;
use super::map::PeerMap;
use super::view::{CellView, FindingView, HostView, Mark};
use crate::error::{Error, Result};
use crate::model::{FindingKind, Verdict};

/// A block ends with the host that fills it with so many findings, or with so many hosts.
const BLOCK_FINDINGS: usize = 1_000;
const BLOCK_HOSTS: usize = 500;
/// Longest text in a report, in bytes, and in one of which the texts are long on the whole; SQL has the rest.
const LONGEST_TEXT: usize = 64 << 10;
const LONGEST_WHEN_FULL: usize = 400;
/// Bytes of long texts in a report.
const MOST_LONG_BYTES: usize = 24 << 20;
/// A text up to here counts as short.
const SHORT: usize = 400;

/// JSON that may stand in a `<script>` of any document: without `<`, `>` and `&`, and without characters that deceive.
///
/// # Errors
/// Plain data with text keys has none.
pub(super) fn embedded(value: &impl Serialize) -> Result<String> {
    let cannot = |source| Error::internal("cannot encode the data of the report").source(source);
    let mut bytes = Vec::new();
    let mut guard = JsonGuard::new(&mut bytes);
    serde_json::to_writer(&mut guard, value).map_err(cannot)?;
    guard.flush().map_err(|source| Error::internal("cannot encode the data of the report").source(source))?;
    // They stand in strings only, where this is the same character.
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"))
}

/// The longest texts a report still takes.
#[derive(Debug, Default)]
pub(super) struct Budget {
    long_bytes: usize,
}

impl Budget {
    /// A text that is too long has its middle taken out, and says so.
    pub(super) fn fit<'a>(&mut self, text: &'a str) -> std::borrow::Cow<'a, str> {
        if text.len() <= SHORT {
            return text.into();
        }
        let limit = if self.long_bytes > MOST_LONG_BYTES { LONGEST_WHEN_FULL } else { LONGEST_TEXT };
        self.long_bytes += text.len().min(limit);
        cut_bytes(text, limit)
    }
}

/// Both ends of a text of more than `limit` bytes, and between them how much is not there.
pub(super) fn cut_bytes(text: &str, limit: usize) -> std::borrow::Cow<'_, str> {
    if text.len() <= limit {
        return text.into();
    }
    let head = text.floor_char_boundary(limit * 2 / 3);
    let tail = text.ceil_char_boundary(text.len() - limit / 3);
    let left_out = tail - head;
    format!(
        "{} […{left_out} bytes are left out here; the query shows them…] {}",
        &text[..head],
        &text[tail..]
    )
    .into()
}

/// What is known of all hosts without their findings, column by column in the order of rank.
pub(super) fn index(hosts: &[HostView], heat: &Heat, map: &PeerMap, campaigns: &[Vec<u64>]) -> Value {
    let mut texts = Texts::default();
    let group = |host: &HostView, texts: &mut Texts| host.group.as_deref().map(|group| texts.add(group));
    let groups: Vec<Option<usize>> = hosts.iter().map(|host| group(host, &mut texts)).collect();
    let coverage: Vec<usize> = hosts.iter().map(|host| texts.add(&host.coverage)).collect();
    let number = |verdict: Verdict| Verdict::ALL.iter().position(|one| *one == verdict);
    json!({
        "names": hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>(),
        "scores": hosts.iter().map(|host| host.score).collect::<Vec<_>>(),
        "verdicts": hosts.iter().map(|host| number(host.verdict)).collect::<Vec<_>>(),
        "findings": hosts.iter().map(|host| host.findings.len()).collect::<Vec<_>>(),
        "suppressed": hosts.iter().map(|host| host.suppressed).collect::<Vec<_>>(),
        "groups": groups,
        "coverage": coverage,
        "tables": heat.tables.iter().map(|table| table.name.as_str()).collect::<Vec<_>>(),
        "rows": heat.rows,
        "cells": heat.cells.iter().map(|cells| cells.iter().flat_map(packed).collect()).collect::<Vec<Vec<f64>>>(),
        "places": map.places,
        "campaigns": campaigns,
        "texts": texts.all,
    })
}

/// Table, findings, the strongest score, whether it was not answered.
fn packed(cell: &super::heat::Cell) -> [f64; 4] {
    [cell.table as f64, cell.findings as f64, cell.score, f64::from(u8::from(cell.failed))]
}

/// Findings of hosts that stand one after the other.
#[derive(Debug, Serialize)]
pub(super) struct Block {
    /// The first of the hosts, from 0.
    pub(super) from: usize,
    /// Each host: its failures, then its findings.
    pub(super) hosts: Vec<(Vec<usize>, Vec<Value>)>,
    pub(super) texts: Vec<String>,
    pub(super) lists: Vec<Vec<usize>>,
}

/// Cuts the hosts into blocks.
pub(super) fn blocks(hosts: &[HostView], tables: &Heat, budget: &mut Budget) -> Vec<Block> {
    let places: HashMap<&str, usize> =
        tables.tables.iter().map(|table| table.name.as_str()).zip(0..).collect();
    let mut blocks = Vec::new();
    let mut from = 0;
    while from < hosts.len() {
        let mut findings = 0;
        let until = hosts[from..].iter().take(BLOCK_HOSTS).position(|host| {
            findings += host.findings.len();
            findings >= BLOCK_FINDINGS
        });
        let end = until.map_or((from + BLOCK_HOSTS).min(hosts.len()), |last| from + last + 1);
        blocks.push(block(from, &hosts[from..end], (&places, budget)));
        from = end;
    }
    blocks
}

fn block(from: usize, hosts: &[HostView], (tables, budget): (&HashMap<&str, usize>, &mut Budget)) -> Block {
    let mut pack = Pack { texts: Texts::default(), lists: Lists::default(), tables, budget };
    let hosts = hosts.iter().map(|host| (pack.failures(host), pack.findings(host))).collect();
    Block { from, hosts, texts: pack.texts.all, lists: pack.lists.all }
}

/// Texts, each once.
#[derive(Debug, Default)]
struct Texts {
    all: Vec<String>,
    places: HashMap<String, usize>,
}

impl Texts {
    fn add(&mut self, text: &str) -> usize {
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        self.all.push(text.to_owned());
        self.places.insert(text.to_owned(), self.all.len() - 1);
        self.all.len() - 1
    }
}

/// Lists of numbers, each once: rows that many findings stand beside are common.
#[derive(Debug, Default)]
struct Lists {
    all: Vec<Vec<usize>>,
    places: HashMap<Vec<usize>, usize>,
}

impl Lists {
    fn add(&mut self, list: Vec<usize>) -> usize {
        if let Some(place) = self.places.get(&list) {
            return *place;
        }
        self.all.push(list.clone());
        self.places.insert(list, self.all.len() - 1);
        self.all.len() - 1
    }
}

/// What a block is made with.
struct Pack<'a> {
    texts: Texts,
    lists: Lists,
    tables: &'a HashMap<&'a str, usize>,
    budget: &'a mut Budget,
}

impl Pack<'_> {
    fn text(&mut self, text: &str) -> usize {
        let text = self.budget.fit(text);
        self.texts.add(&text)
    }

    /// A text or nothing: 0, or the place of the text and 1.
    fn maybe(&mut self, text: Option<&str>) -> usize {
        text.map_or(0, |text| self.text(text) + 1)
    }

    fn list<'t>(&mut self, texts: impl Iterator<Item = &'t str>) -> usize {
        let list = texts.map(|text| self.text(text)).collect();
        self.lists.add(list)
    }

    /// Table, status and error of each.
    fn failures(&mut self, host: &HostView) -> Vec<usize> {
        let mut flat = Vec::new();
        for failure in &host.failures {
            flat.extend([self.text(&failure.table), self.text(failure.status), self.text(&failure.error)]);
        }
        flat
    }

    fn findings(&mut self, host: &HostView) -> Vec<Value> {
        host.findings.iter().map(|finding| self.finding(finding)).collect()
    }

    /// In the order in which the script takes them.
    fn finding(&mut self, finding: &FindingView) -> Value {
        let kind = FindingKind::ALL.iter().position(|kind| *kind == finding.kind).unwrap_or_default();
        let (with, of) = finding.prevalence.unwrap_or_default();
        let attack =
            finding.attack.iter().flat_map(|one| [one.id.as_str(), one.url.as_deref().unwrap_or_default()]);
        let attack = self.list(attack);
        let priors = self.list(finding.priors.iter().map(String::as_str));
        let (here, there) = (self.text(&finding.here), self.maybe(finding.there.as_deref()));
        let rows = [
            self.list(finding.cells.iter().map(|cell| cell.name.as_str())),
            self.cells(finding, |cell| cell.here.as_deref()),
            self.cells(finding, |cell| cell.there.as_deref()),
            self.lists.add(finding.cells.iter().map(marks).collect()),
        ];
        json!([
            self.text(&finding.id),
            self.tables.get(finding.table.as_str()),
            kind,
            finding.score,
            self.text(&finding.reason),
            [with, of],
            self.maybe(finding.first_seen.as_deref()),
            attack,
            priors,
            self.text(&finding.method),
            here,
            there,
            rows,
            self.maybe(finding.given.as_deref()),
            self.queries(finding),
            self.lines(&finding.help.suppression),
        ])
    }

    fn cells(&mut self, finding: &FindingView, of: fn(&CellView) -> Option<&str>) -> usize {
        let list = finding.cells.iter().map(|cell| self.maybe(of(cell))).collect();
        self.lists.add(list)
    }

    /// What each shows, and its parts: much of them is the same in all queries of a host or of a table.
    fn queries(&mut self, finding: &FindingView) -> Vec<usize> {
        let mut flat = Vec::new();
        for (label, query) in &finding.help.queries {
            let parts = query.split(" AND ").map(|part| self.texts.add(part)).collect();
            flat.extend([self.texts.add(label), self.lists.add(parts)]);
        }
        flat
    }

    fn lines(&mut self, text: &str) -> usize {
        let lines = text.lines().map(|line| self.texts.add(line)).collect();
        self.lists.add(lines)
    }
}

/// The mark of a cell, and 4 if it is shown at first.
fn marks(cell: &CellView) -> usize {
    let mark = match cell.mark {
        Mark::None => 0,
        Mark::Differs => 1,
        Mark::Unusual => 2,
    };
    mark + if cell.is_first { 4 } else { 0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::escape::deceives;
    use super::*;

    proptest! {
        #[test]
        fn embedded_text_cannot_leave_its_script(text in "(</script>|<!--|]]>|&lt;|\\PC|\u{2028}|\u{202e}|[\\x00-\\x20]){0,12}") {
            let json = embedded(&text).unwrap();
            prop_assert!(!json.contains(['<', '>', '&']));
            prop_assert!(!json.chars().any(deceives));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }

    #[test]
    fn long_texts_keep_both_ends_and_say_what_is_gone() {
        let text = format!("a{}z", "ü".repeat(100_000));
        let mut budget = Budget::default();
        let fitted = budget.fit(&text);
        assert!(fitted.len() < LONGEST_TEXT + 100 && fitted.starts_with("aü") && fitted.ends_with("üz"));
        assert!(fitted.contains("bytes are left out here"));
        budget.long_bytes = MOST_LONG_BYTES + 1;
        assert!(budget.fit(&text).len() < LONGEST_WHEN_FULL + 100);
        assert_eq!(budget.fit("short"), "short");
    }
}
