//! Collecting instances in AWS: the inventory, the place of large answers, the collector.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use futures::FutureExt;

use super::super::App;
use super::gather::{Epilogue, collect};
use super::interrupt::unless_interrupted;
use super::plan::Plan;
use super::{Collection, CollectorName, CollectorSpec, bounded, collection};
use crate::aws::{AssumeRole, Aws, AwsSettings, partition};
use crate::collect::remote::{Bootstrap, BootstrapKind};
use crate::collect::ssm::{Large, Place, RUN_SHELL_SCRIPT, SsmCollector, SsmConfig};
use crate::error::{Error, Result};
use crate::ingest::Finished;
use crate::model::{SnapshotId, count, digits, few, now, rfc3339};
use crate::store::{S3Place, Store};
use crate::target::{self, Inventory, TargetSpec};

/// Commands a second when nobody says: below the rate at which AWS was seen to throttle.
const COMMANDS_PER_SECOND: f64 = 4.5;
/// First pause between two looks when nobody says, and the longest that can be said, in milliseconds.
const POLL_MS: u64 = 2_000;
const LONGEST_POLL_MS: u64 = 60_000;
/// The longest that AWS tries to deliver a command, in seconds.
const LONGEST_DELIVERY: u64 = 2_592_000;
/// What a session policy is called that narrows the signer of addresses.
const SIGNER: &str = "diffy-upload";

/// Options of collections in AWS.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "AWS options")]
pub(super) struct AwsArgs {
    /// The Systems Manager document that runs on hosts: AWS-RunShellScript, or one made of docs/aws/diffy-collect.json [default: AWS-RunShellScript]
    #[arg(long, value_name = "NAME")]
    document: Option<String>,
    /// How hosts hand over answers that are too large for a command's output
    #[arg(long, value_enum, default_value_t = Output::Auto)]
    output: Output,
    /// Where they put them when the store is no bucket
    #[arg(long, value_name = "S3-URL")]
    upload: Option<String>,
    /// How long AWS tries to deliver a command to a host, in seconds; at least 30
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    delivery_timeout: u64,
    /// What hosts without osquery fetch (https, for instance presigned), run and remove
    #[arg(long, value_name = "URL", requires = "sha256")]
    bootstrap: Option<String>,
    /// The SHA-256 digest of what they fetch, in hex
    #[arg(long, value_name = "HEX", requires = "bootstrap")]
    sha256: Option<String>,
    /// What it is
    #[arg(long, value_enum, default_value_t = Kind::Osquery)]
    bootstrap_kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Into S3, by an address for each host, where there is a bucket; else only small answers.
    Auto,
    /// Not at all: small answers only, 50 hosts a command.
    Inline,
    /// Systems Manager writes them to S3 with the rights of the instance.
    SsmS3,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// The osqueryi program.
    Osquery,
    /// A diffy program; its native collector answers.
    Native,
}

/// Collects one fleet through Systems Manager.
pub(super) async fn collect_from_aws(app: &App, args: &super::Args, plan: Plan) -> Result<Finished> {
    if plan.collector.as_ref().is_some_and(|name| *name != CollectorSpec::BuiltIn(CollectorName::Ssm)) {
        return Err(Error::usage("instances in AWS are asked through `--collector ssm`")
            .hint("leave `--collector` out"));
    }
    let (aws, inventory) = Box::pin(unless_interrupted(taken(&plan))).await?;
    if inventory.hosts.is_empty() {
        return Err(nobody(&plan.targets, &inventory));
    }
    let snapshot = SnapshotId::new(now());
    let config = config(app, args, (aws.clone(), snapshot))?;
    config.check(&plan.tables)?;
    let store = Box::pin(unless_interrupted(app.open_or_create_store())).await?;
    let large = Box::pin(unless_interrupted(large(app, &args.remote, (&store, snapshot)))).await?;
    let config = SsmConfig { large, ..config };
    tell_inventory(app, &plan, &inventory, &config.large);
    tell_expiry(app, config.address_lives(), ("the hosts", &aws)).await;
    if let Some(place) = store.s3_place() {
        tell_expiry(app, config.address_lives(), ("the store", &place.aws)).await;
    }
    let epilogue = epilogue(aws, plan.targets.clone(), inventory.clone());
    let warnings = inventory.warnings.iter().cloned().chain(skipped(&inventory)).collect();
    let collector = Arc::new(SsmCollector::new(config));
    let collection = Collection {
        snapshot,
        warnings,
        epilogue: Some(epilogue),
        ..collection(app, args, plan, (collector, inventory.hosts))
    };
    collect(app, &store, collection).await
}

/// The way into the account, and the hosts there.
async fn taken(plan: &Plan) -> Result<(Aws, Inventory)> {
    let aws = Aws::load(&plan.aws).await?;
    // Before anything else: its errors are the ones that a person can act on.
    aws.credentials().await?;
    let inventory = target::inventory(&aws, &plan.targets, plan.states).await?;
    Ok((aws, inventory))
}

fn nobody(targets: &[TargetSpec], inventory: &Inventory) -> Error {
    let targets: Vec<String> =
        targets.iter().map(|target| target.to_string().escape_debug().to_string()).collect();
    let error = Error::usage(format!("{} has no host to ask", targets.join(", ")));
    match skipped(inventory) {
        Some(skipped) => {
            error.hint(format!("{skipped}; see `--include-standby` and `--include-terminating`"))
        }
        None => error.hint("the group is empty"),
    }
}

/// Who is left out because of its state.
fn skipped(inventory: &Inventory) -> Option<String> {
    let mut by_state: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (host, state) in &inventory.skipped {
        by_state.entry(state).or_default().push(host);
    }
    let of_state = |(state, hosts): (&&str, &Vec<&str>)| format!("{} {state} ({})", hosts.len(), few(hosts));
    let states: Vec<String> = by_state.iter().map(of_state).collect();
    (!states.is_empty()).then(|| {
        format!("members of the group that were not asked because of their state: {}", states.join("; "))
    })
}

fn tell_inventory(app: &App, plan: &Plan, inventory: &Inventory, large: &Large) {
    let unreachable = inventory.hosts.iter().filter(|host| host.unreachable.is_some()).count();
    app.output.say(&format!(
        "fleet {}: {}, {} of them cannot be asked, {} members left out because of their state",
        plan.fleet,
        count(inventory.hosts.len() as u64, "host"),
        digits(unreachable as u64),
        digits(inventory.skipped.len() as u64),
    ));
    if matches!(large, Large::Nowhere) {
        app.output.warn("answers that do not fit into 24,000 bytes will be missing: the store is no bucket; `--upload s3://BUCKET/PREFIX` names one");
    }
}

/// Static credentials of a session are not renewed, and an address that was signed with a session ends with it.
async fn tell_expiry(app: &App, longest: Duration, (whose, aws): (&str, &Aws)) {
    let Some(end) = aws.credentials().await.ok().and_then(|credentials| credentials.expiry()) else { return };
    let end: chrono::DateTime<chrono::Utc> = end.into();
    if (end - now()).to_std().is_ok_and(|left| left < longest) {
        app.output.warn(&format!(
            "the AWS credentials for {whose} end at {}, maybe before the last host has answered",
            rfc3339(end)
        ));
    }
}

fn epilogue(aws: Aws, targets: Vec<TargetSpec>, inventory: Inventory) -> Epilogue {
    async move {
        match target::changes(&aws, &targets, &inventory).await {
            Ok(changes) => changes,
            Err(error) => vec![format!("who came and went meanwhile is not known: {error}")],
        }
    }
    .boxed()
}

/// All but where large answers go.
fn config(app: &App, args: &super::Args, (aws, snapshot): (Aws, SnapshotId)) -> Result<SsmConfig> {
    let settings = &app.settings.aws;
    let remote = &args.remote;
    let document = remote.document.clone().or_else(|| settings.document.clone());
    let delivery = bounded("--delivery-timeout", remote.delivery_timeout, LONGEST_DELIVERY)?;
    let poll_ms = settings.poll_ms.map_or(Ok(POLL_MS), |poll| bounded("poll_ms", poll, LONGEST_POLL_MS))?;
    let rate = settings.commands_per_second.unwrap_or(COMMANDS_PER_SECOND);
    if !(0.01..=1_000.0).contains(&rate) {
        return Err(Error::config(format!("`commands_per_second` cannot be {rate}")).hint("use 0.01 to 1000"));
    }
    Ok(SsmConfig {
        aws,
        document: document.unwrap_or_else(|| RUN_SHELL_SCRIPT.to_owned()),
        large: Large::Nowhere,
        limits: args.host_limits()?,
        largest: args.largest_answer_bytes(),
        delivery: Duration::from_secs(delivery),
        commands_per_second: rate,
        poll: Duration::from_millis(poll_ms),
        bootstrap: bootstrap(remote),
        run: snapshot.to_string(),
    })
}

fn bootstrap(args: &AwsArgs) -> Option<Bootstrap> {
    let kind = match args.bootstrap_kind {
        Kind::Osquery => BootstrapKind::Osquery,
        Kind::Native => BootstrapKind::Native,
    };
    Some(Bootstrap { url: args.bootstrap.clone()?, sha256: args.sha256.as_ref()?.to_lowercase(), kind })
}

/// Where large answers go: the store's bucket, or one that is named.
async fn large(app: &App, args: &AwsArgs, (store, snapshot): (&Store, SnapshotId)) -> Result<Large> {
    if args.output == Output::Inline {
        return Ok(Large::Nowhere);
    }
    let named = args.upload.as_ref().or(app.settings.aws.upload.as_ref());
    let place = match (named, store.s3_place()) {
        (Some(url), _) => Some(S3Place::find(url, &app.store_config()).await?),
        (None, of_store) => of_store.cloned(),
    };
    match (place, args.output) {
        (Some(place), Output::SsmS3) => Ok(Large::SsmS3(self::place(app, &place, snapshot).await?)),
        (Some(place), _) => Ok(Large::Upload(self::place(app, &place, snapshot).await?)),
        (None, Output::SsmS3) => Err(Error::usage("`--output ssm-s3` needs a bucket")
            .hint("`--store s3://…` or `--upload s3://…` names one")),
        (None, _) => Ok(Large::Nowhere),
    }
}

async fn place(app: &App, place: &S3Place, snapshot: SnapshotId) -> Result<Place> {
    let reader = place.client();
    let signer = match &app.settings.aws.upload_role {
        None => reader.clone(),
        Some(arn) => {
            let policy = upload_policy(place, snapshot);
            let role = AssumeRole {
                arn: arn.clone(),
                session_name: SIGNER.to_owned(),
                external_id: None,
                policy: Some(policy),
                session_length: None,
            };
            let base = &app.settings.aws;
            let settings = AwsSettings {
                profile: base.profile.clone(),
                region: base.region.clone(),
                assume_role: Some(role),
            };
            let aws = Aws::load(&settings).await?;
            aws.credentials().await?;
            place.client_of(&aws)
        }
    };
    Ok(Place::new(reader, &signer, (&place.bucket, &place.prefix)))
}

/// The signed addresses carry a token of a session that may write this collection's answers, and nothing else.
fn upload_policy(place: &S3Place, snapshot: SnapshotId) -> String {
    let prefix = place.key(&format!("raw/{snapshot}/*"));
    let resource = format!("arn:{}:s3:::{}/{prefix}", partition(&place.region), place.bucket);
    // A bucket may encrypt; what the role itself may not do stays forbidden.
    let s3 = format!("s3.{}.amazonaws.com", place.region);
    serde_json::json!({
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": "s3:PutObject", "Resource": resource},
            {
                "Effect": "Allow",
                "Action": "kms:GenerateDataKey",
                "Resource": "*",
                "Condition": {"StringEquals": {"kms:ViaService": s3}},
            },
        ],
    })
    .to_string()
}
