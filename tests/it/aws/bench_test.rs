//! The test bench keeps its own promises: statuses, truncation, faults, lies.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::bench::{Bench, BenchConfig, REGION, SECRET_KEY, instance_ids};
use crate::env::{TestEnv, output, python};

/// Generous: other tests use the machine too.
const DEADLINE: Duration = Duration::from_secs(180);

/// A reply as the collector's script prints it, written by hand; `AAAA` is three zero bytes.
const REPLY: &str = r#"
printf 'DIFFY1 0123\nhost %s\nuid 0\nclock 1\nagent none\nanswers 0\nraw 3\ngz 3\n' "$AWS_SSM_INSTANCE_ID"
printf 'sha256 00\nvia inline\ndata\nAAAA\nDIFFY1-END 0123\n'
"#;

fn start(instances: &[String], behaviours: &[(usize, Value)]) -> Bench {
    let mut config = BenchConfig::new();
    config.group("web", instances);
    for (at, behaviour) in behaviours {
        config.behave(&instances[*at], behaviour.clone());
    }
    Bench::start(config)
}

fn send(bench: &Bench, instances: &[String], script: &str) -> Result<String, String> {
    let body = json!({
        "InstanceIds": instances,
        "DocumentName": "AWS-RunShellScript",
        "MaxErrors": "100%",
        "Parameters": {"commands": [script]},
        "OutputS3BucketName": bench.bucket(),
        "OutputS3KeyPrefix": "out",
    });
    let answer = bench.ssm("SendCommand", &body)?;
    Ok(answer["Command"]["CommandId"].as_str().unwrap().to_owned())
}

/// Status by instance.
fn statuses(bench: &Bench, command: &str) -> BTreeMap<String, String> {
    let answer = bench.ssm("ListCommandInvocations", &json!({"CommandId": command})).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let invocations = answer["CommandInvocations"].as_array().unwrap();
    invocations.iter().map(|one| (text(&one["InstanceId"]), text(&one["StatusDetails"]))).collect()
}

/// Statuses when they are as wanted.
#[track_caller]
fn wait(bench: &Bench, command: &str, wanted: &[&str]) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let found: Vec<String> = statuses(bench, command).into_values().collect();
        if found == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{found:?}, not {wanted:?}\n{}", bench.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn result(bench: &Bench, command: &str, instance: &str) -> Value {
    bench.ssm("GetCommandInvocation", &json!({"CommandId": command, "InstanceId": instance})).unwrap()
}

fn stdout(bench: &Bench, command: &str, instance: &str) -> String {
    result(bench, command, instance)["StandardOutputContent"].as_str().unwrap().to_owned()
}

#[test]
fn hosts_of_a_group_end_in_all_ways() {
    let hosts = instance_ids(10);
    let bench = start(
        &hosts,
        &[
            (1, json!({"kind": "delayed", "seconds": 0.2})),
            (2, json!("vanish")),
            (3, json!({"kind": "timed_out", "after": 0.1})),
            (4, json!("lost")),
            (5, json!({"kind": "status", "status": "Failed", "details": "AccessDenied"})),
            (6, json!({"kind": "exit", "code": 3})),
            (7, json!({"kind": "status", "status": "Success", "details": "Quarantined"})),
            (8, json!("scale_in")),
            (9, json!("undelivered")),
        ],
    );
    assert_eq!(bench.hosts("web"), hosts);
    let command = send(&bench, &hosts, "sleep 0.5; echo $AWS_SSM_INSTANCE_ID").unwrap();
    wait(
        &bench,
        &command,
        &[
            "Success",
            "Success",
            "InProgress",
            "ExecutionTimedOut",
            "Undeliverable",
            "AccessDenied",
            "Failed",
            "Quarantined",
            "Success",
            "Pending",
        ],
    );
    assert_eq!(stdout(&bench, &command, &hosts[1]), format!("{}\n", hosts[1]));
    assert_eq!(result(&bench, &command, &hosts[3])["ResponseCode"], 137);
    assert_eq!(result(&bench, &command, &hosts[6])["ResponseCode"], 3);
    let key = format!("out/{command}/{}/awsrunShellScript/0.awsrunShellScript/stdout", hosts[0]);
    assert_eq!(bench.object(bench.bucket(), &key).unwrap(), format!("{}\n", hosts[0]).as_bytes());
    assert_eq!(bench.object(bench.bucket(), &key.replace("stdout", "stderr")), None);
    the_vanished_host_is_gone(&bench, &hosts);
    bench.ssm("CancelCommand", &json!({"CommandId": command})).unwrap();
    let after = statuses(&bench, &command);
    // Nobody is left to say that the vanished one stopped.
    assert_eq!((&*after[&hosts[2]], &*after[&hosts[9]]), ("Cancelling", "Cancelled"));
}

fn the_vanished_host_is_gone(bench: &Bench, hosts: &[String]) {
    let list = || bench.ssm("DescribeInstanceInformation", &json!({"MaxResults": 50})).unwrap().to_string();
    let deadline = Instant::now() + DEADLINE;
    while list().contains(hosts[2].as_str()) {
        assert!(Instant::now() < deadline, "{}", bench.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let known = list();
    let (_, group) = bench.autoscaling("Action=DescribeAutoScalingGroups");
    for (at, host) in hosts.iter().enumerate() {
        assert_eq!(known.contains(host.as_str()), at != 2, "{known}");
        assert_eq!(group.contains(host.as_str()), at != 2 && at != 8, "{group}");
    }
    assert_eq!(send(bench, hosts, "true"), Err("InvalidInstanceId".to_owned()));
}

#[test]
fn limits_of_a_command_are_kept() {
    let hosts = instance_ids(6);
    let mut config = BenchConfig::new();
    let windows = json!({"id": hosts[5], "platform": "Windows"});
    let others = hosts[..5].iter().map(|id| json!({"id": id}));
    config.group_of(json!({"name": "web", "hosts": others.chain([windows]).collect::<Vec<_>>()}));
    config.set("time_scale", json!(0.005)).behave(&hosts[1], json!({"kind": "exit", "times": 1}));
    config.behave(&hosts[3], json!("undelivered")).behave(&hosts[4], json!("s3_silent"));
    let bench = Bench::start(config);
    let body = json!({
        "InstanceIds": hosts[..3],
        "DocumentName": "AWS-RunShellScript",
        "MaxErrors": "0",
        "MaxConcurrency": "1",
        "Parameters": {"commands": ["true"]},
    });
    let answer = bench.ssm("SendCommand", &body).unwrap();
    wait(&bench, answer["Command"]["CommandId"].as_str().unwrap(), &["Success", "Failed", "Terminated"]);

    let body = json!({
        "Targets": [{"Key": "tag:aws:autoscaling:groupName", "Values": ["web"]}],
        "DocumentName": "arn:aws:ssm:us-east-1::document/AWS-RunShellScript",
        "TimeoutSeconds": 30,
        "MaxErrors": "100%",
        "Parameters": {"commands": ["sleep 60"], "executionTimeout": ["5"]},
    });
    let answer = bench.ssm("SendCommand", &body).unwrap();
    let killed = "ExecutionTimedOut";
    let wanted = [killed, killed, killed, "DeliveryTimedOut", killed, "InvalidPlatform"];
    wait(&bench, answer["Command"]["CommandId"].as_str().unwrap(), &wanted);

    let command = send(&bench, &hosts[4..5], "echo not in S3").unwrap();
    wait(&bench, &command, &["Success"]);
    let key = format!("out/{command}/{}/awsrunShellScript/0.awsrunShellScript/stdout", hosts[4]);
    assert_eq!(bench.object(bench.bucket(), &key), None);
}

#[test]
fn a_cancelled_script_is_killed() {
    let env = TestEnv::new();
    let hosts = instance_ids(1);
    let bench = start(&hosts, &[]);
    let mark = env.path("mark");
    let command = send(&bench, &hosts, &format!("echo $$ >{}; sleep 100000", mark.display())).unwrap();
    let deadline = Instant::now() + DEADLINE;
    let process = loop {
        let text = std::fs::read_to_string(&mark).unwrap_or_default();
        if text.ends_with('\n') {
            break text.trim().to_owned();
        }
        assert!(Instant::now() < deadline, "{}", bench.log());
        std::thread::sleep(Duration::from_millis(10));
    };
    bench.ssm("CancelCommand", &json!({"CommandId": command})).unwrap();
    wait(&bench, &command, &["Cancelled"]);
    assert!(!std::path::Path::new("/proc").join(process).exists());
}

#[test]
fn output_is_cut_as_the_agent_does() {
    let hosts = instance_ids(2);
    let bench = start(&hosts, &[(1, json!("stderr_flood"))]);
    let script = "head -c 24000 /dev/zero | tr '\\0' x";
    let command = send(&bench, &hosts, script).unwrap();
    wait(&bench, &command, &["Success", "Success"]);
    let cut = stdout(&bench, &command, &hosts[0]);
    assert_eq!((cut.len(), cut.find("--output truncated--")), (24000, Some(23980)));
    let key = format!("out/{command}/{}/awsrunShellScript/0.awsrunShellScript/stdout", hosts[0]);
    assert_eq!(bench.object(bench.bucket(), &key).unwrap(), [b'x'; 24000]);
    let flood = result(&bench, &command, &hosts[1])["StandardErrorContent"].as_str().unwrap().to_owned();
    assert_eq!(flood.chars().count(), 8000);
}

#[test]
fn calls_are_refused_as_told_and_counted() {
    let hosts = instance_ids(1);
    let mut config = BenchConfig::new();
    config.group("web", &hosts).fault(json!({"action": "ssm:SendCommand", "kind": "throttle", "first": 2}));
    config.fault(json!({"action": "autoscaling:*", "kind": "throttle", "every": 2}));
    config.fault(json!({"action": "s3:GetObject", "path": "/diffy-bench/a", "kind": "throttle", "times": 1}));
    config.fault(json!({"action": "*", "account": "222222222222", "kind": "denied"}));
    let bench = Bench::start(config);
    assert_eq!(send(&bench, &hosts, "true"), Err("ThrottlingException".to_owned()));
    assert_eq!(send(&bench, &hosts, "true"), Err("ThrottlingException".to_owned()));
    assert!(send(&bench, &hosts, "true").is_ok());
    let list = "Action=DescribeAutoScalingGroups";
    assert_eq!(bench.autoscaling(list).0, 200);
    let (status, text) = bench.autoscaling(list);
    assert!(status == 400 && text.contains("<Code>Throttling</Code>"), "{status} {text}");
    let (status, text) = bench.http("GET", "/diffy-bench/a", &[], b"");
    assert!(status == 503 && String::from_utf8_lossy(&text).contains("SlowDown"));
    let sends = bench.calls_of("ssm:SendCommand");
    assert_eq!((sends.calls, sends.refused["ThrottlingException"]), (3, 2));

    bench.configure(&json!({"faults": [{"action": "ssm:*", "kind": "denied"}]}));
    assert_eq!(send(&bench, &hosts, "true"), Err("AccessDeniedException".to_owned()));
    bench.configure(&json!({"faults": [{"action": "*", "kind": "drop", "effect": true}]}));
    assert!(send(&bench, &hosts, "echo lost answer").is_err());
    assert!(bench.sent().to_string().contains("echo lost answer"));
}

#[test]
fn bad_requests_are_refused() {
    let mut hosts = instance_ids(51);
    let bench = start(&hosts, &[(50, json!("no_agent"))]);
    assert_eq!(send(&bench, &hosts, "true"), Err("ValidationException".to_owned()));
    let twice = [hosts[0].clone(), hosts[0].clone()];
    assert_eq!(send(&bench, &twice, "true"), Err("DuplicateInstanceId".to_owned()));
    assert_eq!(send(&bench, &hosts[50..], "true"), Err("InvalidInstanceId".to_owned()));
    let long = "#".repeat(65536);
    assert_eq!(send(&bench, &hosts[..1], &long), Err("MaxDocumentSizeExceeded".to_owned()));
    hosts[0] = "elsewhere".to_owned();
    assert_eq!(send(&bench, &hosts[..1], "true"), Err("ValidationException".to_owned()));
    let unknown = json!({"InstanceIds": [hosts[1]], "DocumentName": "Diffy-Collect"});
    assert_eq!(bench.ssm("SendCommand", &unknown), Err("InvalidDocument".to_owned()));
}

#[test]
fn documents_check_their_parameters() {
    let hosts = instance_ids(1);
    let bench = start(&hosts, &[]);
    let content = json!({
        "schemaVersion": "2.2",
        "parameters": {"Word": {"type": "String", "allowedPattern": "^[a-z]*$"}},
        "mainSteps": [{
            "action": "aws:runShellScript", "name": "collect",
            "inputs": {"timeoutSeconds": "60", "runCommand": ["WORD='{{ Word }}'", "echo \"<$WORD>\""]},
        }],
    });
    let document = json!({"Name": "Say", "Content": content.to_string(), "DocumentType": "Command"});
    bench.ssm("CreateDocument", &document).unwrap();
    let body =
        |word: &str| json!({"InstanceIds": hosts, "DocumentName": "Say", "Parameters": {"Word": [word]}});
    assert_eq!(bench.ssm("SendCommand", &body("'; id")), Err("InvalidParameters".to_owned()));
    let answer = bench.ssm("SendCommand", &body("hello")).unwrap();
    let command = answer["Command"]["CommandId"].as_str().unwrap();
    wait(&bench, command, &["Success"]);
    assert_eq!(stdout(&bench, command, &hosts[0]), "<hello>\n");
}

#[test]
fn commands_are_not_seen_at_once_and_come_in_pages() {
    let hosts = instance_ids(12);
    let mut config = BenchConfig::new();
    config.group("web", &hosts).set("visible_after_calls", json!(2));
    let bench = Bench::start(config);
    let command = send(&bench, &hosts, "true").unwrap();
    assert!(statuses(&bench, &command).is_empty());
    let get = json!({"CommandId": command, "InstanceId": hosts[0]});
    assert_eq!(bench.ssm("GetCommandInvocation", &get), Err("InvocationDoesNotExist".to_owned()));
    assert_eq!(statuses(&bench, &command).len(), 12);
    let first = bench.ssm("DescribeInstanceInformation", &json!({})).unwrap();
    assert_eq!(first["InstanceInformationList"].as_array().unwrap().len(), 10);
    let rest = bench.ssm("DescribeInstanceInformation", &json!({"NextToken": first["NextToken"]})).unwrap();
    assert_eq!(rest["InstanceInformationList"].as_array().unwrap().len(), 2);
    assert_eq!(rest.get("NextToken"), None);
}

#[test]
fn lies_replace_what_the_script_printed() {
    let hosts = instance_ids(10);
    let kinds = [
        "ok",
        "other_name",
        "bad_id",
        "bad_gzip",
        "zip_bomb",
        "wrong_digest",
        "no_end",
        "huge_claim",
        "echo_other",
        "bad_frames",
    ];
    let behaviours: Vec<_> = kinds.iter().enumerate().map(|(at, kind)| (at, json!(kind))).collect();
    let bench = start(&hosts, &behaviours);
    let command = send(&bench, &hosts, REPLY).unwrap();
    wait(&bench, &command, &["Success"; 10]);
    let said: Vec<String> = hosts.iter().map(|host| stdout(&bench, &command, host)).collect();
    let line = |at: usize, key: &str| {
        let found = said[at].lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
        found.unwrap_or_else(|| panic!("no {key} in {}", said[at]))
    };
    assert_eq!(line(0, "host "), hosts[0]);
    assert_eq!(line(1, "host "), "i-0ffffffffffffffff");
    assert!(line(2, "host ").len() > 10_000);
    assert!(said[3].contains("dGhpcyBpcyBubyBnemlw") && line(3, "gz ") == "640");
    assert!(said[4].len() < 24_000 && line(4, "raw ") == "4096");
    assert!(line(5, "sha256 ").len() == 64);
    assert!(!said[6].contains("DIFFY1-END") && said[0].contains("DIFFY1-END"));
    assert_eq!(line(7, "raw "), (8_u64 << 30).to_string());
    assert_eq!(said[8], said[0]);
    assert_eq!(line(9, "raw "), "4096");
}

/// Another SDK than ours, which checks what it is answered against AWS's models.
const BOTO: &str = r#"
import boto3, sys
from botocore.exceptions import ClientError

role = boto3.client("sts").assume_role(RoleArn="arn:aws:iam::222222222222:role/reader", RoleSessionName="diffy-test")
keys = role["Credentials"]
other = boto3.client(
    "ssm", aws_access_key_id=keys["AccessKeyId"], aws_secret_access_key=keys["SecretAccessKey"],
    aws_session_token=keys["SessionToken"],
)
print(sorted(one["InstanceId"] for one in other.describe_instance_information()["InstanceInformationList"]))

ssm = boto3.client("ssm")
hosts = [one["InstanceId"] for one in ssm.describe_instance_information()["InstanceInformationList"]]
command = ssm.send_command(
    InstanceIds=hosts, DocumentName="AWS-RunShellScript", Parameters={"commands": ["echo hello"]}
)["Command"]["CommandId"]
waiter = ssm.get_waiter("command_executed")
waiter.wait(CommandId=command, InstanceId=hosts[0], WaiterConfig={"Delay": 0.1, "MaxAttempts": 600})
print(ssm.get_command_invocation(CommandId=command, InstanceId=hosts[0])["StandardOutputContent"].strip())
print(ssm.list_command_invocations(CommandId=command, Details=True)["CommandInvocations"][0]["Status"])
print(ssm.list_commands(CommandId=command)["Commands"][0]["TargetCount"])
for call in (ssm.send_command, boto3.client("autoscaling").describe_auto_scaling_groups):
    try:
        call(**({"DocumentName": "None", "InstanceIds": hosts} if call == ssm.send_command else {}))
    except ClientError as error:
        print(error.response["Error"]["Code"])
s3 = boto3.client("s3")
for key in "ab":
    try:
        print(s3.put_object(Bucket=sys.argv[1], Key=key, Body=b"x", IfNoneMatch="*")["ResponseMetadata"]["HTTPStatusCode"])
    except ClientError as error:
        print(error.response["Error"]["Code"])
"#;

#[test]
fn boto_understands_every_answer() {
    let (web, far) = (instance_ids(2), "i-0f00000000000000f");
    let mut config = BenchConfig::new();
    config.group("web", &web[..1]);
    config.group_of(json!({"name": "far", "account": "222222222222", "hosts": [{"id": far}]}));
    config.group_of(json!({"name": null, "hosts": [{"id": web[1], "tags": {"Role": "db"}}]}));
    config.fault(json!({"action": "autoscaling:*", "kind": "expired"}));
    // Carried out, and then said to have failed: the second try of the SDK finds what the first one made.
    config.fault(json!({"action": "s3:PutObject", "kind": "error", "effect": true, "after": 1, "times": 1}));
    let bench = Bench::start(config);
    let env = TestEnv::new();
    let mut command = env.program(python());
    command.args(["-c", BOTO, bench.bucket()]).envs(bench.env()).env("AWS_DEFAULT_REGION", REGION);
    let said = output(command.output().unwrap());
    let wanted =
        format!("['{far}']\nhello\nSuccess\n2\nInvalidDocument\nExpiredToken\n200\nPreconditionFailed\n");
    assert_eq!(said.stdout, wanted, "{}", said.stderr);
    assert!(!bench.sent().to_string().contains(SECRET_KEY));
    let tagged = json!({"Filters": [{"Key": "tag:Role", "Values": ["db"]}]});
    let tagged = bench.ssm("DescribeInstanceInformation", &tagged).unwrap();
    assert_eq!(tagged["InstanceInformationList"][0]["InstanceId"], web[1]);
}

#[test]
fn the_pretended_osqueryi_answers_what_the_simulation_says() {
    let mut config = BenchConfig::new();
    config.simulate("web", diffy::simulate::SimulationConfig::new(3, 0, 5));
    let hosts = config.hosts("web");
    config.behave(&hosts[1], json!("no_osquery"));
    config.behave(&hosts[2], json!(["clock", {"kind": "old_osquery", "tables": ["users"]}]));
    let answers = config.answers();
    let bench = Bench::start(config);
    let catalog = diffy::catalog::Catalog::builtin().unwrap();
    let sql = catalog.tables().find(|table| table.name == "mounts").unwrap().query.replace('\'', "'\\''");
    let script = format!("osqueryi --json ' {sql}'; osqueryi --version; date +%s");
    let command = send(&bench, &hosts, &script).unwrap();
    wait(&bench, &command, &["Success"; 3]);
    let mounts = std::fs::read_to_string(answers.join(&hosts[0]).join("mounts.json")).unwrap();
    assert!(stdout(&bench, &command, &hosts[0]).starts_with(&mounts));
    let error = |host: &str| result(&bench, &command, host)["StandardErrorContent"].to_string();
    assert!(error(&hosts[1]).contains("not found"), "{}", error(&hosts[1]));
    assert!(error(&hosts[2]).contains("no such table: mounts"), "{}", error(&hosts[2]));
    let old = stdout(&bench, &command, &hosts[2]);
    assert!(old.starts_with("osqueryi version 4.0.2\n"), "{old}");
    let now = stdout(&bench, &command, &hosts[1]);
    let seconds = |text: &str| text.lines().last().unwrap().parse::<i64>().unwrap();
    assert!(seconds(&old) - seconds(&now) > 9 * 365 * 86400, "{old} {now}");
}
