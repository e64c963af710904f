//! What makes rows of two hosts the same thing: normalised identity columns, hashed into a loose and a strict id.
//!
//! Knows table schemas and Arrow; knows nothing about files, hosts' order or scores.

mod encode;
mod normalise;
mod own_names;

pub(crate) use self::encode::{Cells, without_own_names};
pub use self::encode::{ENCODING_VERSION, ID_BYTES, Id, Identifier, RowId, RowIds};
pub use self::normalise::{Text, evened_out};
pub use self::own_names::{OwnNames, OwnNamesSource, SELF_PLACEHOLDER};
