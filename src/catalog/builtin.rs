//! The list of built-in schema files; a test compares it with the directory.

/// File name and text of each built-in schema.
pub(super) const SCHEMAS: &[(&str, &str)] = &[];
