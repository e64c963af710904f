"""An AWS account on loopback for Diffy's tests: moto, with Systems Manager really running scripts on pretended hosts.

    bench.py CONFIG.json

Prints one line of JSON when everything is there: {"endpoint": URL, "bucket": NAME, "asgs": {NAME: [INSTANCE, ...]}}.
Ends, with all that it started, when its stdin closes. Listens on 127.0.0.1 only, on a free port.

The config (all keys but `root` have defaults):

    root          a directory of its own: every host lives in ROOT/hosts/INSTANCE
    answers       a directory with INSTANCE/TABLE.json, which the pretended osqueryi prints, or INSTANCE/TABLE.error,
                  with which it fails; without either it does not know the table
    queries       {SQL: TABLE}, what the pretended osqueryi understands (SQL trimmed)
    bucket        name of a bucket to make ("diffy-bench"); null for none
    buckets       {NAME: REGION} of further buckets
    region, account   of everything that names none ("us-east-1", "123456789012")
    asgs          [{name, region, account, hosts: [HOST, ...]}]; a null name: instances of no group
    workers       how many scripts run at once (8)
    s3_output     {endpoint, access_key, secret_key, region}: another S3 for OutputS3BucketName than moto's

and what `PUT /_agent/config` may change while it runs:

    hosts         {INSTANCE: BEHAVIOUR}
    faults        see faults.py
    visible_after         seconds until reads see a command (0)
    visible_after_calls   reads of a command's invocations that do not see it (0)
    time_scale            factor of waits that AWS keeps long: delivery timeout, a hang until the execution timeout (1)
    invalid_ids           "named": InvalidInstanceId says which instances; "silent": it does not

HOST is {id, behaviour, lifecycle, health, platform, tags}. BEHAVIOUR is a kind, an object {kind, ...} or a list of
them; hosts.py has the list. A `times` in the object ends it after so many commands.

Not modelled: signatures, permissions and session policies (rules of faults.py stand for refusals), expiry of
credentials, KMS, the ramp-up of MaxConcurrency, the agent's limit of five commands at once, CloudWatch output,
hashes of documents, more than the first step of a document, targets by resource group, EventBridge. Hosts share this
machine: its files outside of their directory, its users, its network and its processors. Statuses and texts follow
AWS's documents and the agent's source; nothing here was compared with AWS itself.

Control: GET /_agent/calls (calls by action), GET /_agent/sent (all that was sent to hosts), PUT /_agent/config.
"""

import json
import logging
import os
import sys
import threading

# Before moto is imported: it reads these once.
os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"
os.environ["MOTO_S3_ALLOW_CROSSACCOUNT_ACCESS"] = "true"
for name in ("MOTO_ACCOUNT_ID", "AWS_PROFILE"):
    os.environ.pop(name, None)

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app  # noqa: E402
from werkzeug.serving import WSGIRequestHandler, make_server  # noqa: E402

from cloud import Cloud  # noqa: E402
from front import Front  # noqa: E402
from hosts import Hosts  # noqa: E402
from ssm import Ssm  # noqa: E402

DEFAULTS = {
    "answers": None,
    "queries": {},
    "bucket": "diffy-bench",
    "buckets": {},
    "region": "us-east-1",
    "account": "123456789012",
    "asgs": [],
    "workers": 8,
    "s3_output": None,
    "hosts": {},
    "faults": [],
    "visible_after": 0,
    "visible_after_calls": 0,
    "time_scale": 1,
    "invalid_ids": "named",
}
# What may change while the bench runs.
CHANGEABLE = {"hosts", "faults", "visible_after", "visible_after_calls", "time_scale", "invalid_ids"}


class Handler(WSGIRequestHandler):
    """A request without a log line, and without the 40 ms that Nagle and delayed ACKs make of two small writes."""

    disable_nagle_algorithm = True

    def log_request(self, *_):
        pass


class Bench:
    """Everything of one bench: the config, and the parts that read it."""

    def __init__(self, config):
        unknown = set(config) - set(DEFAULTS) - {"root"}
        if unknown:
            raise SystemExit(f"bench.py: unknown keys in the config: {sorted(unknown)}")
        self.config = {**DEFAULTS, **config}
        self.hosts = Hosts(self)
        self.ssm = Ssm(self)
        self.front = Front(self, DomainDispatcherApplication(create_backend_app))
        self.cloud = Cloud(self)

    def configure(self, changes):
        """Takes changes of the config; returns why not, or None."""
        unknown = set(changes) - CHANGEABLE
        if unknown:
            return f"these cannot change: {sorted(unknown)}"
        changes = dict(changes)
        # Behaviours are changed host by host, the rest as a whole.
        behaviours = changes.pop("hosts", {})
        missing = [instance for instance in behaviours if instance not in self.hosts.by_id]
        if missing:
            return f"no such hosts: {missing}"
        self.config.update(changes)
        for instance, behaviour in behaviours.items():
            self.hosts.by_id[instance].behave(behaviour)
        if "faults" in changes:
            self.front.faults.replace(changes["faults"])
        return None


def main():
    """Starts, says so, and waits for the end of stdin."""
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    logging.getLogger("botocore").setLevel(logging.ERROR)
    with open(sys.argv[1], encoding="utf-8") as file:
        bench = Bench(json.load(file))
    server = make_server("127.0.0.1", 0, bench.front, threaded=True, request_handler=Handler)
    groups = bench.cloud.build()
    bench.front.open()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    print(json.dumps({"endpoint": endpoint, "bucket": bench.config["bucket"], "asgs": groups}), flush=True)
    sys.stdin.buffer.read()
    bench.hosts.kill_all()
    # Threads that still wait for something have nothing left to do.
    os._exit(0)


if __name__ == "__main__":
    main()
