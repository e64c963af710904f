//! What Systems Manager knows of its nodes.

use aws_sdk_ssm::Client;
use aws_sdk_ssm::types::{InstanceInformation, InstanceInformationStringFilter};

use super::explain;
use crate::error::{Error, Result};

/// Nodes in one request and in one answer; 50 is the most that AWS takes and gives.
pub const NODES_PER_CALL: usize = 50;
const DESCRIBE: &str = "ssm:DescribeInstanceInformation";

/// The nodes for which `key` (`InstanceIds`, `tag:KEY`) has one of these values: at most [`NODES_PER_CALL`] of them.
///
/// # Errors
/// AWS refuses.
pub async fn nodes(client: &Client, key: &str, values: Vec<String>) -> Result<Vec<InstanceInformation>> {
    let filter = InstanceInformationStringFilter::builder().key(key).set_values(Some(values)).build();
    let filter = filter.map_err(|source| Error::internal("cannot build a filter").source(source))?;
    let mut nodes = Vec::new();
    let mut token = None;
    loop {
        let request = client.describe_instance_information().filters(filter.clone());
        let request = request.max_results(NODES_PER_CALL as i32).set_next_token(token);
        let page = request.send().await.map_err(|error| explain(DESCRIBE, error))?;
        nodes.extend(page.instance_information_list.unwrap_or_default());
        // A page may be short, or empty, and not the last.
        token = page.next_token.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok(nodes);
        }
    }
}
