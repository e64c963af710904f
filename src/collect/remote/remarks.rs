//! What is said of hosts beyond single answers: as much as a person reads, however many hosts have something to say.

use std::collections::BTreeMap;

use super::answers::said;

/// Sentences about single hosts; more are counted.
const MOST_ODD: usize = 200;
/// Different notes; more are counted.
const MOST_NOTES: usize = 50;

/// Sentences, gathered while hosts answer.
#[derive(Debug, Default)]
pub(in crate::collect) struct Remarks {
    odd: Vec<String>,
    odd_more: u64,
    /// By text: how many hosts, and the first of them.
    notes: BTreeMap<String, (u64, String)>,
    notes_more: u64,
}

impl Remarks {
    /// What is odd about a host, and what it notes itself.
    pub(in crate::collect) fn hear(
        &mut self,
        host: &str,
        odd: impl IntoIterator<Item = String>,
        notes: &[String],
    ) {
        odd.into_iter().for_each(|odd| self.odd(odd));
        notes.iter().for_each(|note| self.note(host, said(note)));
    }

    fn odd(&mut self, sentence: String) {
        if self.odd.len() < MOST_ODD { self.odd.push(sentence) } else { self.odd_more += 1 }
    }

    /// A host's own words about itself.
    fn note(&mut self, host: &str, text: String) {
        let is_full = self.notes.len() >= MOST_NOTES;
        match self.notes.get_mut(&text) {
            Some((hosts, _)) => *hosts += 1,
            None if is_full => self.notes_more += 1,
            None => {
                self.notes.insert(text, (1, host.to_owned()));
            }
        }
    }

    /// All of it.
    pub(in crate::collect) fn into_sentences(self) -> Vec<String> {
        let mut sentences = self.odd;
        let more = |count: u64, what: &str| (count > 0).then(|| format!("{count} more {what} are not told"));
        sentences.extend(more(self.odd_more, "oddities of hosts"));
        sentences.extend(self.notes.into_iter().map(|(text, (hosts, first))| match hosts {
            1 => format!("host {first} notes: {text}"),
            _ => format!("host {first} and {} more note: {text}", hosts - 1),
        }));
        sentences.extend(more(self.notes_more, "notes of hosts"));
        sentences
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_notes_are_one_sentence_and_a_flood_is_counted() {
        let mut remarks = Remarks::default();
        for host in 0..1_000 {
            remarks.note(&format!("h{host}"), "priority not lowered".to_owned());
            remarks.note(&format!("h{host}"), format!("noise {host}"));
            remarks.odd(format!("host h{host} is odd"));
        }
        let sentences = remarks.into_sentences();
        assert!(sentences.len() <= MOST_ODD + MOST_NOTES + 2, "{}", sentences.len());
        assert!(sentences.iter().any(|text| text == "host h0 and 999 more note: priority not lowered"));
        assert!(sentences.iter().any(|text| text == "800 more oddities of hosts are not told"));
    }
}
