//! Members of Auto Scaling Groups.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_autoscaling::Client;
use aws_sdk_autoscaling::types::{AutoScalingGroup, Instance};

use super::TargetHost;
use crate::aws::{Aws, explain};
use crate::error::{Error, Result};

/// Names of groups in one request; 50 is the most that AWS takes.
const NAMES_PER_CALL: usize = 50;
/// Groups in one answer; 100 is the most that AWS gives.
const GROUPS_PER_PAGE: i32 = 100;
/// Pages of a listing of all groups that are looked through for similar names.
const MOST_PAGES: usize = 20;
/// Similar names in a message.
const MOST_SIMILAR: usize = 5;
/// Names are similar from here on; 1 is the same. A swapped pair of letters in a name of three makes 0.67.
const LEAST_ALIKE: f64 = 0.6;
const DESCRIBE: &str = "autoscaling:DescribeAutoScalingGroups";
/// The fact that names the group of a host.
const GROUP_FACT: &str = "autoscaling_group";

/// Which states of a member make it a target beside `InService`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lifecycles {
    /// Members that were put aside: `Standby`, `EnteringStandby`.
    pub standby: bool,
    /// Members on their way out that may be held by a hook: `Terminating`, `Terminating:Wait`, `Terminating:Retained`, …
    pub terminating: bool,
}

impl Lifecycles {
    /// The state of a member that is left out because of it.
    pub(super) fn reason_to_skip(self, member: &Member) -> Option<String> {
        let state = member.lifecycle.as_str();
        let is_wanted = match state {
            "InService" => true,
            "Standby" | "EnteringStandby" => self.standby,
            _ if state.starts_with("Terminating") => self.terminating,
            _ => false,
        };
        (!is_wanted).then(|| state.to_owned())
    }
}

/// One instance of a group, as the group sees it.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) lifecycle: String,
    facts: BTreeMap<String, String>,
}

impl Member {
    fn new(group: &str, instance: &Instance) -> Option<Self> {
        let id = instance.instance_id()?.to_owned();
        let lifecycle = instance.lifecycle_state().map_or("unknown", |state| state.as_str()).to_owned();
        let facts = [
            (GROUP_FACT, Some(group)),
            ("instance_id", Some(id.as_str())),
            ("lifecycle", Some(lifecycle.as_str())),
            ("instance_type", instance.instance_type()),
            ("zone", instance.availability_zone()),
            ("image", instance.image_id()),
        ];
        let known = facts.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
        let facts = known.collect();
        Some(Self { id, lifecycle, facts })
    }

    pub(super) fn into_host(self) -> TargetHost {
        let mut host = TargetHost::new(&self.id);
        host.known.facts = self.facts;
        host
    }
}

/// All members of these groups, whatever their state.
pub(super) async fn members(aws: &Aws, groups: &BTreeSet<&str>) -> Result<Vec<Member>> {
    if groups.is_empty() {
        return Ok(Vec::new());
    }
    aws.region()?;
    let client = Client::new(aws.sdk());
    let names: Vec<String> = groups.iter().map(|name| (*name).to_owned()).collect();
    let mut found = Vec::new();
    for names in names.chunks(NAMES_PER_CALL) {
        found.extend(describe(&client, names).await?);
    }
    let known: BTreeSet<&str> = found.iter().filter_map(AutoScalingGroup::auto_scaling_group_name).collect();
    if let Some(unknown) = groups.iter().find(|name| !known.contains(**name)) {
        return Err(unknown_group(aws, &client, unknown).await);
    }
    let of_group = |group: &AutoScalingGroup| {
        let name = group.auto_scaling_group_name().unwrap_or_default().to_owned();
        group.instances().iter().filter_map(move |instance| Member::new(&name, instance)).collect::<Vec<_>>()
    };
    Ok(found.iter().flat_map(of_group).collect())
}

async fn describe(client: &Client, names: &[String]) -> Result<Vec<AutoScalingGroup>> {
    let mut groups = Vec::new();
    let mut token = None;
    loop {
        let (page, next) = page(client, names, token).await?;
        groups.extend(page);
        if next.is_none() {
            return Ok(groups);
        }
        token = next;
    }
}

/// One page of the groups of these names, or of all groups, and where the next one begins.
async fn page(
    client: &Client,
    names: &[String],
    token: Option<String>,
) -> Result<(Vec<AutoScalingGroup>, Option<String>)> {
    let request = client.describe_auto_scaling_groups().max_records(GROUPS_PER_PAGE);
    let names = (!names.is_empty()).then(|| names.to_vec());
    let page = request.set_auto_scaling_group_names(names).set_next_token(token).send().await;
    let page = page.map_err(|error| explain(DESCRIBE, error))?;
    Ok((page.auto_scaling_groups.unwrap_or_default(), page.next_token.filter(|token| !token.is_empty())))
}

/// AWS answers with an empty list for a group that it does not know.
async fn unknown_group(aws: &Aws, client: &Client, name: &str) -> Error {
    let region = aws.region().unwrap_or("unknown").to_owned();
    let error = Error::usage(format!("there is no Auto Scaling Group `{}` in {region}", name.escape_debug()));
    let all = all_names(client).await;
    let similar = similar(name, &all);
    if similar.is_empty() {
        return error.hint("`--region` names another region, `--role-arn` or `--account` another account");
    }
    error.hint(format!("did you mean {}? `--region` names another region", similar.join(", ")))
}

async fn all_names(client: &Client) -> Vec<String> {
    let mut names = Vec::new();
    let mut token = None;
    for _ in 0..MOST_PAGES {
        // Only for the hint: without it the message is still right.
        let Ok((groups, next)) = page(client, &[], token).await else { return names };
        names.extend(groups.into_iter().filter_map(|group| group.auto_scaling_group_name));
        if next.is_none() {
            return names;
        }
        token = next;
    }
    names
}

/// Names that contain the wanted one, or the other way round, or are spelled nearly alike; the most alike first.
fn similar<'a>(wanted: &str, names: &'a [String]) -> Vec<&'a str> {
    let wanted = wanted.to_lowercase();
    let likeness = |name: &str| {
        let name = name.to_lowercase();
        let contains = name.contains(&wanted) || wanted.contains(&name);
        strsim::normalized_damerau_levenshtein(&wanted, &name) + if contains { 1.0 } else { 0.0 }
    };
    let mut alike: Vec<(f64, &str)> = names.iter().map(|name| (likeness(name), name.as_str())).collect();
    alike.retain(|(likeness, _)| *likeness >= LEAST_ALIKE);
    alike.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    alike.into_iter().take(MOST_SIMILAR).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(lifecycle: &str) -> Member {
        Member { id: "i-12345678".to_owned(), lifecycle: lifecycle.to_owned(), facts: BTreeMap::new() }
    }

    #[test]
    fn only_members_in_service_are_targets_unless_asked_for() {
        let none = Lifecycles::default();
        let all = Lifecycles { standby: true, terminating: true };
        assert_eq!(none.reason_to_skip(&member("InService")), None);
        for state in ["Standby", "EnteringStandby", "Terminating", "Terminating:Wait", "Terminating:Retained"]
        {
            assert_eq!(none.reason_to_skip(&member(state)).as_deref(), Some(state));
            assert_eq!(all.reason_to_skip(&member(state)), None, "{state}");
        }
        for state in ["Pending", "Pending:Wait", "Terminated", "Warmed:Stopped", "Quarantined", "unknown"] {
            assert_eq!(all.reason_to_skip(&member(state)).as_deref(), Some(state));
        }
    }

    #[test]
    fn similar_names_are_those_that_a_person_may_have_meant() {
        let names: Vec<String> = ["web-prod-2024", "wbe-prod", "db-main", "Web-Prod"]
            .iter()
            .map(|name| (*name).to_owned())
            .collect();
        let found = similar("web-prod", &names);
        assert_eq!(found[0], "Web-Prod");
        assert!(
            found.contains(&"web-prod-2024") && found.contains(&"wbe-prod") && !found.contains(&"db-main")
        );
    }
}
