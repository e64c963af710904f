//! What to collect: flags, environment and configuration made into one plan for each fleet.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::super::App;
use super::ssh::SshWay;
use super::{Args, CollectorName, CollectorSpec};
use crate::aws::{AssumeRole, AwsSettings, partition};
use crate::catalog::TableSpec;
use crate::config::{AssumeRoleFile, FleetFile};
use crate::error::{Error, Result};
use crate::model::Fleet;
use crate::target::{Lifecycles, TargetSpec};

/// Longest name of a session; more is cut.
const SESSION_NAME: usize = 64;

/// One fleet to be collected.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) fleet: Fleet,
    pub(super) targets: Vec<TargetSpec>,
    /// How to ask them, where somebody says.
    pub(super) collector: Option<CollectorSpec>,
    pub(super) states: Lifecycles,
    pub(super) tables: Vec<TableSpec>,
    /// Who to be where the targets are.
    pub(super) aws: AwsSettings,
    pub(super) min_success: f64,
    pub(super) ssh: SshWay,
}

impl Plan {
    pub(super) fn is_aws(&self) -> bool {
        self.targets.iter().any(TargetSpec::is_aws)
    }

    pub(super) fn is_listed(&self) -> bool {
        self.targets.iter().any(TargetSpec::is_listed)
    }

    fn is_ssh(&self) -> bool {
        let is_ssh = |spec: &CollectorSpec| *spec == CollectorSpec::BuiltIn(CollectorName::Ssh);
        self.is_listed() && self.collector.as_ref().is_none_or(is_ssh)
    }

    /// Nobody should believe that hosts were asked as root who were not.
    fn check(&self, way: &SshWay) -> Result<()> {
        match way.said() {
            Some(what) if !self.is_ssh() => {
                Err(Error::usage(format!("{what} is for hosts that are asked over SSH, and these are not"))
                    .hint("leave it out, or see `--collector ssh`"))
            }
            _ => Ok(()),
        }
    }
}

/// The plans of this run: one, or with `--all` one for each fleet of the configuration.
pub(super) fn plans(app: &App, args: &Args) -> Result<Vec<Result<Plan>>> {
    if !args.all {
        return Ok(vec![Ok(single(app, args)?)]);
    }
    let fleets = &app.settings.fleets;
    if fleets.is_empty() {
        return Err(Error::usage("`--all` collects the fleets of the configuration, and there are none")
            .hint("add `[[fleets]]` with `name` and `targets` to diffy.toml, or name one with `--config`"));
    }
    // A fleet that cannot be planned does not keep the others from being collected.
    Ok(fleets.iter().map(|fleet| of_file(app, args, fleet)).collect())
}

fn single(app: &App, args: &Args) -> Result<Plan> {
    let named = args.fleet.as_ref().map(Fleet::as_str).or(app.settings.fleet.as_deref());
    let in_file = app.settings.fleets.iter().find(|fleet| Some(fleet.name.as_str()) == named);
    if let Some(fleet) = in_file {
        return of_file(app, args, fleet);
    }
    let targets = if args.targets.is_empty() { vec![TargetSpec::Local] } else { args.targets.clone() };
    let fleet = match (named, targets.as_slice()) {
        (Some(name), _) => name.parse()?,
        (None, [TargetSpec::Asg(group)]) => group.parse()?,
        (None, _) => {
            return Err(Error::usage("which fleet?")
                .hint("`--fleet NAME` names the set of hosts that should be alike"));
        }
    };
    let account = args.account.clone().map(|account| (account, args.region.clone()));
    let role = role(app, (args.role_arn.clone(), account), args)?;
    let plan = Plan {
        fleet,
        targets: checked(targets)?,
        collector: args.collector.clone(),
        states: Lifecycles { standby: args.include_standby, terminating: args.include_terminating },
        tables: tables(app, &args.tables)?,
        aws: settings(app, (None, args.region.clone()), role),
        min_success: percentage(args.min_success)?,
        ssh: args.ssh.way(&FleetFile::default()),
    };
    plan.check(&plan.ssh)?;
    Ok(plan)
}

fn of_file(app: &App, args: &Args, file: &FleetFile) -> Result<Plan> {
    let of_fleet = |error: Error| error.with("fleet", &file.name);
    let targets: Result<Vec<TargetSpec>> = match args.targets.as_slice() {
        [] => file.targets.iter().map(|target| target.parse()).collect(),
        targets => Ok(targets.to_vec()),
    };
    let names = if args.tables.is_empty() { &file.tables } else { &args.tables };
    // A flag replaces both: they are two ways to say the same.
    let (arn, account) = match (&args.role_arn, &args.account) {
        (None, None) => (file.role_arn.clone(), file.account.clone()),
        (arn, account) => (arn.clone(), account.clone()),
    };
    let region = args.region.clone().or_else(|| file.region.clone());
    let account = account.map(|account| (account, region.clone()));
    let role = role(app, (arn, account), args).map_err(of_fleet)?;
    let plan = Plan {
        fleet: file.name.parse().map_err(of_fleet)?,
        targets: checked(targets.map_err(of_fleet)?).map_err(of_fleet)?,
        collector: collector(args, file).map_err(of_fleet)?,
        states: Lifecycles {
            standby: args.include_standby || file.include_standby,
            terminating: args.include_terminating || file.include_terminating,
        },
        tables: tables(app, names).map_err(of_fleet)?,
        aws: settings(app, (file.profile.clone(), region), role),
        min_success: percentage(args.min_success.or(file.min_success)).map_err(of_fleet)?,
        ssh: args.ssh.way(file),
    };
    // A flag of `--all` is for those fleets that it fits.
    let way = if args.all { &SshWay::of(file) } else { &plan.ssh };
    plan.check(way).map_err(of_fleet)?;
    Ok(plan)
}

fn collector(args: &Args, file: &FleetFile) -> Result<Option<CollectorSpec>> {
    match &args.collector {
        Some(collector) => Ok(Some(collector.clone())),
        None => file.collector.as_deref().map(str::parse).transpose(),
    }
}

fn percentage(min_success: Option<f64>) -> Result<f64> {
    match min_success {
        Some(percent) if !(0.0..=100.0).contains(&percent) => {
            Err(Error::usage(format!("`--min-success {percent}` is no percentage")))
        }
        given => Ok(given.unwrap_or(0.0)),
    }
}

fn checked(mut targets: Vec<TargetSpec>) -> Result<Vec<TargetSpec>> {
    targets.sort();
    targets.dedup();
    let kinds: BTreeSet<(bool, bool)> =
        targets.iter().map(|target| (target.is_aws(), target.is_listed())).collect();
    match kinds.len() {
        0 => Err(Error::usage("there are no targets").hint("`--targets asg:NAME` names some")),
        2.. => Err(Error::usage(
            "`local`, targets in AWS and hosts that a file or a program lists do not go into one collection",
        )
        .hint("collect them one after the other; all can be of the same fleet")),
        _ => Ok(targets),
    }
}

fn tables(app: &App, names: &[String]) -> Result<Vec<TableSpec>> {
    if names.is_empty() {
        return Ok(app.catalog.tables().filter(|table| table.default).cloned().collect());
    }
    names.iter().map(|name| super::super::tables::find(app, name).cloned()).collect()
}

fn settings(
    app: &App,
    (profile, region): (Option<String>, Option<String>),
    role: Option<AssumeRole>,
) -> AwsSettings {
    let base = &app.settings.aws;
    AwsSettings {
        profile: profile.or_else(|| base.profile.clone()),
        region: region.or_else(|| base.region.clone()),
        assume_role: role,
    }
}

/// The role of flags or fleet, completed by what `[aws.assume_role]` says of all roles.
fn role(
    app: &App,
    (arn, account): (Option<String>, Option<(String, Option<String>)>),
    args: &Args,
) -> Result<Option<AssumeRole>> {
    let default = AssumeRoleFile::default();
    let file = app.settings.aws.assume_role.as_ref().unwrap_or(&default);
    let arn = match (arn, account, &file.arn) {
        (Some(arn), _, _) => arn,
        (None, Some((account, region)), _) => {
            let region = region.or_else(|| app.settings.aws.region.clone()).unwrap_or_default();
            in_account(&account, file.name.as_deref(), &region)?
        }
        (None, None, Some(arn)) => arn.clone(),
        (None, None, None) => return Ok(None),
    };
    Ok(Some(AssumeRole {
        arn,
        session_name: file
            .session_name
            .clone()
            .unwrap_or_else(|| session_name(app, args.incident.as_deref())),
        external_id: file.external_id.clone(),
        policy: file.policy_file.as_ref().map(policy).transpose()?,
        session_length: file.session_seconds.map(std::time::Duration::from_secs),
    }))
}

fn in_account(account: &str, name: Option<&str>, region: &str) -> Result<String> {
    if account.len() != 12 || !account.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::usage(format!("`{}` is no AWS account", account.escape_debug()))
            .hint("an account id has 12 digits"));
    }
    let name = name.ok_or_else(|| {
        Error::config(format!("which role in account {account}?"))
            .hint("`name` below `[aws.assume_role]` in diffy.toml names it, or `--role-arn` says all")
    })?;
    Ok(format!("arn:{}:iam::{account}:role/{name}", partition(region)))
}

fn policy(path: &PathBuf) -> Result<String> {
    std::fs::read_to_string(path).map_err(|source| {
        Error::config(format!("cannot read session policy `{}`", path.display())).source(source)
    })
}

/// What CloudTrail of the target's account shows: who, and for which incident.
fn session_name(app: &App, incident: Option<&str>) -> String {
    let user = app.settings.who.split('@').next().unwrap_or_default();
    let name = match incident {
        Some(incident) => format!("diffy-{user}-{incident}"),
        None => format!("diffy-{user}"),
    };
    let plain = |c: char| if c.is_ascii_alphanumeric() || "_+=,.@-".contains(c) { c } else { '-' };
    name.chars().map(plain).take(SESSION_NAME).collect()
}
