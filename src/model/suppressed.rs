//! What an analysis leaves out because a person vouches for it: counted, and never silently gone.

use chrono::NaiveDate;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::Finding;

/// What is left out of an analysis.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Suppressed {
    /// Findings that are left out.
    pub findings: u64,
    /// Hosts that they were on.
    pub hosts: u64,
    /// By whom and why, the one that takes most first.
    pub by: Vec<SuppressedBy>,
    /// The findings themselves, where somebody asked for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub list: Vec<SuppressedFinding>,
}

/// One suppression that took findings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SuppressedBy {
    /// Why.
    pub reason: String,
    /// Who vouches.
    pub who: String,
    /// The last day, in UTC, on which it holds.
    #[schemars(schema_with = "maybe_day")]
    pub until: Option<NaiveDate>,
    /// Findings that it took.
    pub count: u64,
}

/// A finding that is left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SuppressedFinding {
    /// The host it was on.
    pub host: String,
    /// Which of [`Suppressed::by`] took it, from 0.
    pub by: usize,
    /// The finding.
    pub finding: Finding,
}

fn maybe_day(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "null"], "format": "date" })
}
