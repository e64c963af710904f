"""What moto itself keeps: buckets, Auto Scaling groups and their instances, under the ids that the config says."""

from collections import deque
from urllib.parse import urlencode

from moto.autoscaling.models import autoscaling_backends
from moto.ec2.models import ec2_backends
from moto.ec2.models import instances as ec2_instances
from moto.s3.models import s3_backends
from werkzeug.test import Client

_make_id = ec2_instances.random_instance_id
_ids = deque()
# moto asks for the id of each instance that it makes; those of the config come first.
ec2_instances.random_instance_id = lambda: _ids.popleft() if _ids else _make_id()

KEY = "AKIABENCHSETUP000000"


class Cloud:
    """moto, spoken to from within the process."""

    def __init__(self, bench):
        self.bench = bench
        self.client = Client(bench.front.moto)

    def build(self):
        """Makes buckets, groups and instances; the ids of the groups' instances by the groups' names."""
        config = self.bench.config
        buckets = dict(config["buckets"])
        if config["bucket"]:
            buckets.setdefault(config["bucket"], config["region"])
        for name, region in buckets.items():
            s3_backends[config["account"]]["aws"].create_bucket(name, region)
        return {group["name"]: self._build_group(group) for group in config["asgs"] if self._is_named(group)}

    def _is_named(self, group):
        """Whether this is a group at all; instances of none are made here."""
        if group.get("name") is not None:
            return True
        self._run_instances(group)
        return False

    def _place(self, group):
        config = self.bench.config
        return group.get("account") or config["account"], group.get("region") or config["region"]

    def _build_group(self, group):
        account, region = self._place(group)
        self.bench.hosts.add(group, account, region)
        ids = [host["id"] for host in group["hosts"]]
        name = group["name"]
        self._call(group, "autoscaling", "CreateLaunchConfiguration", "2011-01-01", {
            "LaunchConfigurationName": f"lc-{name}", "ImageId": "ami-0bench00000000001", "InstanceType": "t3.micro",
        })
        _ids.extend(ids)
        self._call(group, "autoscaling", "CreateAutoScalingGroup", "2011-01-01", {
            "AutoScalingGroupName": name, "LaunchConfigurationName": f"lc-{name}", "MinSize": 0,
            "MaxSize": max(len(ids), 1), "DesiredCapacity": len(ids), "AvailabilityZones.member.1": f"{region}a",
        })
        states = {state.instance_id: state for state in self._group(account, region, name).instance_states}
        assert set(states) == set(ids), f"moto made other instances than {ids}"
        for host in group["hosts"]:
            states[host["id"]].lifecycle_state = host.get("lifecycle", "InService")
            states[host["id"]].health_status = host.get("health", "Healthy")
        return ids

    def _run_instances(self, group):
        account, region = self._place(group)
        self.bench.hosts.add(group, account, region)
        ids = [host["id"] for host in group["hosts"]]
        _ids.extend(ids)
        count = len(ids)
        self._call(group, "ec2", "RunInstances", "2016-11-15", {
            "ImageId": "ami-0bench00000000001", "InstanceType": "t3.micro", "MinCount": count, "MaxCount": count,
        })

    def _call(self, group, service, action, version, parameters):
        account, region = self._place(group)
        scope = f"{KEY}/20200101/{region}/{service}/aws4_request"
        answer = self.client.post(
            "/",
            data=urlencode({"Action": action, "Version": version, **parameters}),
            content_type="application/x-www-form-urlencoded",
            headers={
                "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0",
                "X-Moto-Account-Id": account,
                "Host": f"{service}.{region}.amazonaws.com",
            },
        )
        assert answer.status_code == 200, answer.get_data(as_text=True)

    @staticmethod
    def _group(account, region, name):
        return autoscaling_backends[account][region].autoscaling_groups[name]

    def leave_group(self, host):
        """The instance is no longer one of its group; it runs on."""
        if host.group is not None:
            group = self._group(host.account, host.region, host.group)
            group.instance_states = [state for state in group.instance_states if state.instance_id != host.id]
            group.desired_capacity = len(group.instance_states)

    def terminate(self, host):
        """The instance is gone from EC2 and from its group."""
        self.leave_group(host)
        ec2_backends[host.account][host.region].terminate_instances([host.id])

    def put_object(self, bucket, key, body):
        """Writes as Systems Manager's agent does: overwriting, without conditions."""
        other = self.bench.config["s3_output"]
        if other is None:
            s3_backends[self.bench.config["account"]]["aws"].put_object(bucket, key, body)
            return
        import boto3  # Only here: it takes a second to load.

        client = boto3.client(
            "s3", endpoint_url=other["endpoint"], aws_access_key_id=other["access_key"],
            aws_secret_access_key=other["secret_key"], region_name=other.get("region", "us-east-1"),
        )
        client.put_object(Bucket=bucket, Key=key, Body=body)
