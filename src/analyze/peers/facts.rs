//! What hosts say of themselves that may tell their kind: image, role, versions, the pattern of their names.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;

use super::super::fleet::FleetState;
use super::super::lines::Loaded;

/// Table, column, and the word for it.
const COLUMNS: [(&str, &str, &str); 7] = [
    ("ec2_instance_metadata", "ami_id", "image"),
    ("os_version", "name", "system"),
    ("os_version", "version", "version"),
    ("kernel_info", "version", "kernel"),
    ("osquery_info", "version", "osquery"),
    ("ec2_instance_metadata", "instance_type", "instance type"),
    ("ec2_instance_metadata", "availability_zone", "zone"),
];
/// Tags of an instance that say what it is for, and the table that has them.
const TAGS: &str = "ec2_instance_tags";
const ROLE_TAGS: [&str; 4] = ["aws:autoscaling:groupname", "role", "service", "app"];
/// Shortest start of a name that says something.
const SHORTEST_NAME: usize = 2;

/// One kind of fact: which hosts have which value.
#[derive(Debug)]
pub(super) struct Fact {
    /// What a sentence calls it.
    pub(super) word: String,
    pub(super) table: String,
    pub(super) column: String,
    /// Whether the value is meant to say what a host is for.
    pub(super) says_role: bool,
    pub(super) values: BTreeMap<String, RoaringBitmap>,
}

impl Fact {
    /// All facts of these hosts, those that say most of a role first.
    pub(super) fn all(tables: &[Loaded<'_>], state: &FleetState) -> Vec<Self> {
        let mut facts = vec![Self::names(state)];
        facts.extend(tables.iter().find(|table| table.name() == TAGS).into_iter().flat_map(tags));
        for (name, column, word) in COLUMNS {
            let Some(table) = tables.iter().find(|table| table.name() == name) else { continue };
            let mut fact = Self::empty(word, (name, column), column == "ami_id");
            for (number, line) in table.lines.lines.iter().enumerate() {
                if let Some(value) = table.lines.value(number, column).filter(|value| !value.is_empty()) {
                    *fact.values.entry(value).or_default() |= &line.members;
                }
            }
            facts.push(fact);
        }
        facts.retain(|fact| !fact.values.is_empty());
        facts
    }

    fn empty(word: &str, (table, column): (&str, &str), says_role: bool) -> Self {
        let (word, table, column) = (word.to_owned(), table.to_owned(), column.to_owned());
        Self { word, table, column, says_role, values: BTreeMap::new() }
    }

    fn names(state: &FleetState) -> Self {
        let mut fact = Self::empty("name", ("hosts", "host"), true);
        for (ordinal, name) in (0..).zip(&state.hosts) {
            if let Some(pattern) = name_pattern(name) {
                fact.values.entry(pattern).or_default().insert(ordinal);
            }
        }
        fact
    }
}

fn tags(table: &Loaded<'_>) -> Vec<Fact> {
    let mut facts: BTreeMap<String, Fact> = BTreeMap::new();
    for (number, line) in table.lines.lines.iter().enumerate() {
        let (key, value) = (table.lines.value(number, "key"), table.lines.value(number, "value"));
        let (Some(key), Some(value)) = (key, value) else { continue };
        if ROLE_TAGS.contains(&key.to_lowercase().as_str()) {
            let fact = facts
                .entry(key.clone())
                .or_insert_with(|| Fact::empty(&format!("tag {key}"), (TAGS, "value"), true));
            *fact.values.entry(value).or_default() |= &line.members;
        }
    }
    facts.into_values().collect()
}

/// `web-*` of `web-i-0123abcd` and of `web-17`: the words before the first part with a digit, without the `i` of an
/// instance id.
fn name_pattern(name: &str) -> Option<String> {
    let digit = name.find(|c: char| c.is_ascii_digit())?;
    let start = &name[..digit];
    let start = &start[..start.rfind(['-', '.', '_']).map_or(start.len(), |at| at + 1)];
    let start = start.strip_suffix("i-").unwrap_or(start);
    let word = start.trim_end_matches(['-', '.', '_']);
    (word.chars().count() >= SHORTEST_NAME && word != "ip").then(|| format!("{start}*"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_patterns() {
        let pattern = |name| name_pattern(name);
        assert_eq!(pattern("web-i-0123abcd").as_deref(), Some("web-*"));
        assert_eq!(pattern("prod-db-17.example.org").as_deref(), Some("prod-db-*"));
        assert_eq!(pattern("web17").as_deref(), Some("web*"));
        assert_eq!(pattern("i-0123abcd"), None);
        assert_eq!(pattern("ip-10-0-0-1"), None);
        assert_eq!(pattern("bastion"), None);
    }
}
