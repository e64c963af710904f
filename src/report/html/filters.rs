//! How the template spells numbers and names.
#![expect(unreachable_pub, reason = "what the macro of a filter makes is public")]

use std::borrow::Borrow;
use std::fmt::Display;

use super::super::escape;
use super::view;
use crate::model::digits;

/// A score, with one digit after the point.
#[askama::filter_fn]
pub(super) fn one(score: impl Display, _: &dyn askama::Values) -> askama::Result<String> {
    Ok(format!("{score:.1}"))
}

/// A score as one of ten steps.
#[askama::filter_fn]
pub(super) fn step(score: impl Borrow<f64>, _: &dyn askama::Values) -> askama::Result<usize> {
    Ok(view::step(*score.borrow()))
}

/// A number with its thousands apart.
#[askama::filter_fn]
pub(super) fn thousands(number: impl Display, _: &dyn askama::Values) -> askama::Result<String> {
    Ok(number.to_string().parse().map(digits).unwrap_or_default())
}

/// Text that is not ours, without what deceives.
#[askama::filter_fn]
pub(super) fn show(text: impl Display, _: &dyn askama::Values) -> askama::Result<String> {
    Ok(escape::escape(&text.to_string()).into_owned())
}
