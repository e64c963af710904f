//! What Systems Manager knows of its nodes: who has a tag, and whose agent lives.

use std::collections::HashMap;

use aws_sdk_ssm::Client;
use aws_sdk_ssm::types::{InstanceInformation, PingStatus, PlatformType};

use super::TargetHost;
use crate::aws::{Aws, NODES_PER_CALL, nodes};
use crate::error::{Error, Result};
use crate::model::Status;

/// The nodes with a tag.
pub(super) async fn tagged(aws: &Aws, (key, value): (&str, &str)) -> Result<Vec<TargetHost>> {
    aws.region()?;
    let found = nodes(&Client::new(aws.sdk()), &format!("tag:{key}"), vec![value.to_owned()]).await?;
    if found.is_empty() {
        let region = aws.region().unwrap_or_default();
        return Err(Error::usage(format!(
            "Systems Manager knows no node with the tag `{}={}` in {region}",
            key.escape_debug(),
            value.escape_debug()
        ))
        .hint("tags are case-sensitive; only running instances with an agent are known"));
    }
    Ok(found.iter().filter_map(|node| node.instance_id()).map(TargetHost::new).collect())
}

/// Asks for the agents of these hosts: adds what is known of each, and why it cannot be asked where that is so.
pub(super) async fn check(aws: &Aws, hosts: &mut [TargetHost]) -> Result<()> {
    let client = Client::new(aws.sdk());
    for hosts in hosts.chunks_mut(NODES_PER_CALL) {
        let ids = hosts.iter().map(|host| host.known.name.clone()).collect();
        let found = nodes(&client, "InstanceIds", ids).await?;
        let by_id: HashMap<&str, &InstanceInformation> =
            found.iter().filter_map(|node| Some((node.instance_id()?, node))).collect();
        for host in hosts {
            let node = by_id.get(host.known.name.as_str()).copied();
            host.unreachable = unreachable(node);
            if let Some(node) = node {
                note(host, node);
            }
        }
    }
    Ok(())
}

fn unreachable(node: Option<&InstanceInformation>) -> Option<(Status, String)> {
    let Some(node) = node else {
        return Some((
            Status::Undeliverable,
            "Systems Manager does not know this host: no agent runs, or its role does not allow it"
                .to_owned(),
        ));
    };
    if node.platform_type() == Some(&PlatformType::Windows) {
        return Some((Status::NotSupported, "this host runs Windows".to_owned()));
    }
    if node.ping_status() == Some(&PingStatus::Online) {
        return None;
    }
    let state = node.ping_status().map_or("unknown", PingStatus::as_str);
    let last =
        node.last_ping_date_time().map_or_else(String::new, |time| format!(", last heard of at {time}"));
    Some((Status::Undeliverable, format!("the agent is not connected ({state}{last})")))
}

/// The names that the inventory has for a host are as telling as those that it gives itself.
fn note(host: &mut TargetHost, node: &InstanceInformation) {
    let names = [node.computer_name(), node.ip_address()];
    host.known.names.extend(names.into_iter().flatten().map(ToOwned::to_owned));
    host.known.facts.entry("instance_id".to_owned()).or_insert_with(|| host.known.name.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_connected_linux_agent_can_be_asked() {
        let online = InstanceInformation::builder().ping_status(PingStatus::Online);
        assert_eq!(unreachable(Some(&online.clone().build())), None);
        let (status, why) = unreachable(Some(&online.platform_type(PlatformType::Windows).build())).unwrap();
        assert_eq!((status, why.contains("Windows")), (Status::NotSupported, true));
        let lost = InstanceInformation::builder().ping_status(PingStatus::ConnectionLost).build();
        let (status, why) = unreachable(Some(&lost)).unwrap();
        assert_eq!((status, why.contains("ConnectionLost")), (Status::Undeliverable, true));
        assert_eq!(unreachable(None).unwrap().0, Status::Undeliverable);
    }
}
