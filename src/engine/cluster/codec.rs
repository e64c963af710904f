//! How plans are spelled between nodes: Ballista's own way, and beside it the steps of ours, and the one function of
//! ours whose name does not say all, and that stands in no registry.

use std::any::Any;
use std::sync::Arc;

use ballista_core::serde::BallistaPhysicalExtensionCodec;
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::ScalarUDF;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use serde::{Deserialize, Serialize};

use super::super::functions;
use super::super::identities::IdentityExec;
use super::super::sightings::SightingExec;

/// What a step of ours begins with: no message of Ballista's does, for this is no field that it has.
const OURS: &[u8] = b"\xffdiffy ";

/// A step of ours, without what it reads.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Step {
    Identities { places: Vec<usize> },
    Sightings { named: Vec<(String, String)>, places: Vec<usize> },
}

impl Step {
    fn of(node: &dyn ExecutionPlan) -> Option<Self> {
        let node: &dyn Any = node;
        if let Some(identities) = node.downcast_ref::<IdentityExec>() {
            return Some(Self::Identities { places: identities.places().to_vec() });
        }
        let (named, places) = node.downcast_ref::<SightingExec>()?.parts();
        Some(Self::Sightings { named: named.to_vec(), places: places.to_vec() })
    }

    fn over(self, inputs: &[Arc<dyn ExecutionPlan>]) -> Result<Arc<dyn ExecutionPlan>> {
        let [lines] = inputs else { return exec_err!("a step has {} inputs and needs one", inputs.len()) };
        let lines = Arc::clone(lines);
        Ok(match self {
            Self::Identities { places } => Arc::new(IdentityExec::new(lines, places)?),
            Self::Sightings { named, places } => Arc::new(SightingExec::new(lines, named, places)?),
        })
    }
}

/// Spells plans.
#[derive(Debug, Default)]
pub(super) struct Codec(BallistaPhysicalExtensionCodec);

impl PhysicalExtensionCodec for Codec {
    fn try_decode(
        &self,
        bytes: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(step) = bytes.strip_prefix(OURS) else {
            return self.0.try_decode(bytes, inputs, context, converter);
        };
        match serde_json::from_slice::<Step>(step) {
            Ok(step) => step.over(inputs),
            Err(error) => exec_err!("this node of the cluster does not know a step of the plan: {error}"),
        }
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        bytes: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let Some(step) = Step::of(node.as_ref()) else {
            return self.0.try_encode(node, bytes, converter);
        };
        bytes.extend_from_slice(OURS);
        serde_json::to_writer(bytes, &step).or_else(|error| exec_err!("a step cannot be spelled: {error}"))
    }

    /// Those that say nothing here are found by their name.
    fn try_encode_udf(&self, function: &ScalarUDF, bytes: &mut Vec<u8>) -> Result<()> {
        if let Some(names) = functions::row_json_names(function) {
            write_names(names, bytes);
        }
        Ok(())
    }

    fn try_decode_udf(&self, name: &str, bytes: &[u8]) -> Result<Arc<ScalarUDF>> {
        if name != functions::ROW_JSON {
            return exec_err!("this node of the cluster has no function `{}`", name.escape_debug());
        }
        match read_names(bytes) {
            Some(names) => Ok(Arc::new(functions::row_json(names))),
            None => exec_err!("the names of `{name}` are cut off"),
        }
    }
}

/// Each with its length in front.
fn write_names(names: &[String], bytes: &mut Vec<u8>) {
    for name in names {
        bytes.extend((name.len() as u64).to_le_bytes());
        bytes.extend_from_slice(name.as_bytes());
    }
}

fn read_names(mut bytes: &[u8]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (name, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
        names.push(String::from_utf8(name.to_vec()).ok()?);
        bytes = rest;
    }
    bytes.is_empty().then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_went() {
        for names in [vec![], vec!["path"], vec!["a", "", "\u{1f},\"ü"]] {
            let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
            let mut bytes = Vec::new();
            Codec::default().try_encode_udf(&functions::row_json(names.clone()), &mut bytes).unwrap();
            let function = Codec::default().try_decode_udf(functions::ROW_JSON, &bytes).unwrap();
            assert_eq!(functions::row_json_names(&function), Some(names.as_slice()));
        }
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let mut bytes = Vec::new();
        write_names(&["path".to_owned()], &mut bytes);
        for length in 1..bytes.len() {
            assert_eq!(read_names(&bytes[..length]), None);
        }
        assert_eq!(read_names(&[0xff; 16]), None);
        assert!(Codec::default().try_decode_udf("other", &[]).is_err());
    }

    #[test]
    fn other_functions_are_found_by_name() {
        for function in functions::scalars() {
            let mut bytes = Vec::new();
            Codec::default().try_encode_udf(&function, &mut bytes).unwrap();
            assert!(bytes.is_empty(), "{}", function.name());
        }
    }
}
