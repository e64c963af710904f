"""Systems Manager's API for commands, in the place of moto's: SendCommand runs scripts, and everything can be read."""

import base64
import contextlib
import json
import re
import threading
import time
import uuid
from datetime import datetime, timezone

from documents import Refused, load, work
from hosts import kill

INSTANCE = re.compile(r"i-(\w{8}|\w{17})|mi-\w{17}")
OPEN = {"Pending", "InProgress", "Delayed", "Cancelling"}
# What counts towards MaxErrors.
ERRORS = {"Failed", "ExecutionTimedOut"}
BUCKET = re.compile(r"[A-Za-z0-9._-]{3,63}")


def _now():
    return time.time()


def _text_time(epoch):
    """As GetCommandInvocation writes times."""
    if epoch is None:
        return ""
    return datetime.fromtimestamp(epoch, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Invocation:
    """A command on one host."""

    def __init__(self, command, host):
        self.command, self.host = command, host
        self.behaviours = host.take()
        self.status = self.details = "Pending"
        self.code = -1
        self.stdout = self.stderr = b""
        self.started = self.ended = None
        self.process = None
        self.is_cancelled = False

    @property
    def is_over(self):
        return self.status not in OPEN

    def move(self, status):
        """Goes to another open status; False when it is over or cancelled."""
        with self.command.lock:
            if self.is_over or self.is_cancelled:
                return False
            self.status = self.details = status
            if status == "InProgress":
                self.started = _now()
            return True

    def end(self, status, details, code=-1):
        """It is over; a cancelled one ends as Cancelled whatever it says."""
        with self.command.lock:
            if self.is_over:
                return
            if self.is_cancelled:
                status = details = "Cancelled"
            self.status, self.details, self.code, self.ended = status, details, code, _now()
        self.command.advance()

    def cancel(self):
        """Stops it, if it is not over."""
        with self.command.lock:
            if self.is_over:
                return
            self.is_cancelled = True
            runs = self.status == "InProgress" and self.process is not None
            self.status = self.details = "Cancelling"
        if runs:
            # The thread that waits for the process says that it is over.
            kill(self)
        else:
            self.end("Cancelled", "Cancelled")


class Command:
    """One SendCommand."""

    def __init__(self, ssm, body, hosts, task, place):
        self.ssm, self.body, self.work = ssm, body, task
        self.account, self.region = place
        self.id = str(uuid.uuid4())
        self.lock = threading.RLock()
        self.requested = _now()
        self.reads = 0
        self.timeout = body.get("TimeoutSeconds", 3600)
        self.invocations = {host.id: Invocation(self, host) for host in hosts}
        self.waiting = list(self.invocations.values())
        self.limit = self._share("MaxConcurrency", "50")
        self.max_errors = self._share("MaxErrors", "0")

    def _share(self, name, default):
        text = self.body.get(name, default)
        if text.endswith("%"):
            return len(self.invocations) * int(text[:-1]) // 100
        return int(text)

    def advance(self):
        """Hands out what may be handed out; ends the rest when there were too many errors."""
        with self.lock:
            invocations = self.invocations.values()
            errors = sum(invocation.details in ERRORS for invocation in invocations)
            if errors > self.max_errors:
                stopped, self.waiting = self.waiting, []
                for invocation in stopped:
                    invocation.end("Cancelled", "Terminated")
            out = sum(not one.is_over for one in invocations) - len(self.waiting)
            free = max(max(self.limit, 1) - out, 0)
            now, self.waiting = self.waiting[:free], self.waiting[free:]
        for invocation in now:
            self.ssm.bench.hosts.deliver(invocation)

    def key(self, instance, name):
        """Where the agent writes its output."""
        prefix = self.body.get("OutputS3KeyPrefix", "").strip("/")
        parts = [prefix, self.id, instance, "awsrunShellScript", self.work.step, name]
        return "/".join(part for part in parts if part)

    def copy_to_s3(self, instance, stdout, stderr):
        """As the agent does: no empty files, and a failure is only logged on the host."""
        bucket = self.body.get("OutputS3BucketName")
        for name, output in (("stdout", stdout), ("stderr", stderr)):
            if bucket and output:
                # Whatever goes wrong: nobody hears of it.
                with contextlib.suppress(Exception):
                    self.ssm.bench.cloud.put_object(bucket, self.key(instance, name), output)

    @property
    def is_visible(self):
        """Whether reads see it by now."""
        config = self.ssm.bench.config
        return self.requested + config["visible_after"] <= _now() and self.reads >= config["visible_after_calls"]


class Ssm:
    """The API."""

    def __init__(self, bench):
        self.bench = bench
        self.lock = threading.Lock()
        self.commands = {}
        self.documents = []
        self.actions = {
            "SendCommand": self._send_command,
            "CancelCommand": self._cancel_command,
            "ListCommands": self._list_commands,
            "ListCommandInvocations": self._list_command_invocations,
            "GetCommandInvocation": self._get_command_invocation,
            "DescribeInstanceInformation": self._describe_instance_information,
        }

    def knows(self, action):
        """Whether it is answered here, not by moto."""
        return action in self.actions

    def answer(self, call, body):
        """(status, content type, body) of the answer."""
        place = (call.account, call.region)
        action = call.action.partition(":")[2]
        try:
            answer, status = self.actions[action](json.loads(body or b"{}"), place), 200
        except Refused as refused:
            answer, status = {"__type": refused.code, "message": refused.message}, 400
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            answer, status = {"__type": "ValidationException", "message": f"malformed request: {error!r}"}, 400
        return status, "application/x-amz-json-1.1", json.dumps(answer).encode()

    def note_document(self, body):
        """Remembers a document that was created: hosts may see it."""
        with self.lock:
            self.documents.append(body.decode("utf-8", "replace"))

    def sent(self):
        """All that hosts were ever sent."""
        with self.lock:
            commands = [
                {
                    "command_id": command.id, "instance_ids": list(command.invocations), "body": command.body,
                    "script": command.work.script,
                }
                for command in self.commands.values()
            ]
            return {"commands": commands, "documents": list(self.documents)}

    def _send_command(self, body, place):
        _validate(body)
        document = load(body["DocumentName"], body.get("DocumentVersion"), *place)
        task = work(document, body.get("Parameters", {}))
        hosts = self._targets(body, place)
        command = Command(self, body, hosts, task, place)
        with self.lock:
            self.commands[command.id] = command
        command.advance()
        return {"Command": _command_view(command)}

    def _targets(self, body, place):
        ids = body.get("InstanceIds", [])
        if ids:
            bad = [instance for instance in ids if not self._is_valid(instance, place)]
            if bad:
                named = self.bench.config["invalid_ids"] == "named"
                text = f"Instances [[{', '.join(bad)}]] not in a valid state for account {place[0]}"
                raise Refused("InvalidInstanceId", text if named else "")
            return [self.bench.hosts.by_id[instance] for instance in ids]
        found = self._managed(place)
        for target in body["Targets"]:
            found = [host for host in found if _matches(host, target["Key"], target["Values"])]
        return found

    def _is_valid(self, instance, place):
        host = self.bench.hosts.by_id.get(instance)
        return host is not None and host.is_managed and (host.account, host.region) == place

    def _managed(self, place):
        hosts = list(self.bench.hosts.by_id.values())
        return [host for host in hosts if host.is_managed and (host.account, host.region) == place]

    def _find(self, body, place):
        command = self.commands.get(body.get("CommandId"))
        if command is None or (command.account, command.region) != place:
            raise Refused("InvalidCommandId")
        return command

    def _cancel_command(self, body, place):
        command = self._find(body, place)
        ids = body.get("InstanceIds") or list(command.invocations)
        if not set(ids) <= set(command.invocations):
            raise Refused("InvalidInstanceId")
        with command.lock:
            chosen = [command.invocations[instance] for instance in ids]
            command.waiting = [invocation for invocation in command.waiting if invocation not in chosen]
        for invocation in chosen:
            invocation.cancel()
        return {}

    def _list_commands(self, body, place):
        with self.lock:
            commands = [command for command in reversed(self.commands.values()) if _is_in(command, place)]
        if "CommandId" in body:
            commands = [command for command in commands if command.id == body["CommandId"]]
        commands = [command for command in commands if command.is_visible]
        page, token = _page(commands, body, (1, 50, 50))
        return {"Commands": [_command_view(command) for command in page], **token}

    def _list_command_invocations(self, body, place):
        wanted = body.get("CommandId")
        if wanted is not None and not re.fullmatch(r"[A-Fa-f0-9-]{36}", wanted):
            raise Refused("InvalidCommandId")
        with self.lock:
            commands = [command for command in reversed(self.commands.values()) if _is_in(command, place)]
            commands = [command for command in commands if wanted in (None, command.id)]
            visible = [command for command in commands if command.is_visible]
            for command in commands:
                command.reads += 1
        found = [one for command in visible for one in command.invocations.values()]
        if "InstanceId" in body:
            found = [one for one in found if one.host.id == body["InstanceId"]]
        for rule in body.get("Filters", ()):
            found = [one for one in found if _passes(one, rule)]
        page, token = _page(found, body, (1, 50, 50))
        views = [_invocation_view(one, body.get("Details", False)) for one in page]
        return {"CommandInvocations": views, **token}

    def _get_command_invocation(self, body, place):
        command = self.commands.get(body.get("CommandId"))
        if command is None or not _is_in(command, place):
            raise Refused("InvocationDoesNotExist")
        visible = command.is_visible
        command.reads += 1
        one = command.invocations.get(body.get("InstanceId"))
        if one is None or not visible:
            raise Refused("InvocationDoesNotExist")
        plugin = body.get("PluginName")
        if plugin not in (None, command.work.plugin, command.work.step):
            raise Refused("InvalidPluginName")
        with command.lock:
            return _result(one)

    def _describe_instance_information(self, body, place):
        if body.get("Filters") and body.get("InstanceInformationFilterList"):
            raise Refused("ValidationException", "Specify one kind of filters.")
        found = self._managed(place)
        for rule in body.get("Filters", ()):
            found = [host for host in found if _matches(host, rule["Key"], rule["Values"])]
        for rule in body.get("InstanceInformationFilterList", ()):
            found = [host for host in found if _matches(host, rule["key"], rule["valueSet"])]
        page, token = _page(found, body, (5, 50, 10))
        return {"InstanceInformationList": [_host_view(host) for host in page], **token}


def _is_in(command, place):
    return (command.account, command.region) == place


def _page(items, body, limits):
    """A page and where the next one starts; `limits` are least, most and usual items of a page."""
    least, most, usual = limits
    size = body.get("MaxResults", usual)
    if not least <= size <= most:
        constraint = f"Member must have value between {least} and {most}"
        raise _invalid("maxResults", size, constraint)
    try:
        start = int(base64.b64decode(body["NextToken"], validate=True)) if body.get("NextToken") else 0
    except ValueError:
        raise Refused("InvalidNextToken", "The specified token is not valid.") from None
    page = items[start:start + size]
    more = start + size < len(items)
    return page, {"NextToken": base64.b64encode(b"%d" % (start + size)).decode()} if more else {}


def _invalid(name, value, constraint):
    text = f"1 validation error detected: Value '{value}' at '{name}' failed to satisfy constraint: {constraint}"
    return Refused("ValidationException", text)


def _validate(body):
    """What AWS's model and documents say of SendCommand."""
    ids, targets = body.get("InstanceIds", []), body.get("Targets", [])
    if len(ids) > 50:
        raise _invalid("instanceIds", ids, "Member must have length less than or equal to 50")
    if len(targets) > 5 or any(len(target.get("Values", [])) > 50 for target in targets):
        raise _invalid("targets", targets, "Member must have length less than or equal to 5, values 50")
    for instance in ids:
        if not INSTANCE.fullmatch(instance):
            raise _invalid("instanceIds", instance, "Member must satisfy regular expression pattern")
    if len(set(ids)) < len(ids):
        raise Refused("DuplicateInstanceId", "You cannot specify an instance ID in more than one association.")
    if bool(ids) == bool(targets):
        raise Refused("ValidationException", "Specify either instance ids or targets.")
    _validate_length(body, "Comment", (0, 100))
    _validate_length(body, "OutputS3KeyPrefix", (0, 500))
    _validate_length(body, "OutputS3BucketName", (3, 63))
    if not 30 <= body.get("TimeoutSeconds", 3600) <= 2592000:
        raise _invalid("timeoutSeconds", body["TimeoutSeconds"], "Member must have value between 30 and 2592000")
    if "OutputS3BucketName" in body and not BUCKET.fullmatch(body["OutputS3BucketName"]):
        raise Refused("InvalidOutputFolder", "The S3 bucket does not exist.")
    for name in ("MaxConcurrency", "MaxErrors"):
        if name in body and not re.fullmatch(r"[0-9]{1,7}|([1-9][0-9]?|100|0)%", body[name]):
            raise _invalid(name, body[name], "Member must satisfy regular expression pattern")


def _validate_length(body, name, limits):
    least, most = limits
    if name in body and not least <= len(body[name]) <= most:
        raise _invalid(name, body[name], f"Member must have length between {least} and {most}")


def _matches(host, key, values):
    """Whether a host is meant by a target or a filter."""
    if key.startswith("tag:"):
        return host.tags.get(key[4:]) in values
    if key == "tag-key":
        return any(value in host.tags for value in values)
    known = {
        "InstanceIds": host.id, "PingStatus": host.ping, "PlatformTypes": host.platform,
        "ResourceType": "EC2Instance", "AgentVersion": "3.3.987.0",
    }
    if key not in known:
        raise Refused("InvalidInstanceInformationFilterValue", f"The filter {key} is not valid.")
    return known[key] in values


def _passes(one, rule):
    key, value = rule.get("key"), rule.get("value")
    if key == "Status":
        return one.status == value
    if key == "DocumentName":
        return one.command.body["DocumentName"].rpartition("document/")[2] == value.rpartition("document/")[2]
    if key in ("InvokedAfter", "InvokedBefore"):
        when = datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp()
        return one.command.requested >= when if key == "InvokedAfter" else one.command.requested < when
    raise Refused("InvalidFilterKey", f"The filter {key} is not valid.")


def _command_view(command):
    with command.lock:
        invocations = list(command.invocations.values())
        over = [one for one in invocations if one.is_over]
        status = "Success" if len(over) == len(invocations) else "InProgress" if over else "Pending"
        if status == "Success" and any(one.status != "Success" for one in invocations):
            status = "Failed"
    body = command.body
    return {
        "CommandId": command.id,
        "DocumentName": body["DocumentName"],
        "DocumentVersion": body.get("DocumentVersion", "$DEFAULT"),
        "Comment": body.get("Comment", ""),
        "ExpiresAfter": command.requested + command.timeout + command.work.timeout,
        "Parameters": body.get("Parameters", {}),
        "InstanceIds": body.get("InstanceIds", []),
        "Targets": body.get("Targets", []),
        "RequestedDateTime": command.requested,
        "Status": status,
        "StatusDetails": status,
        "OutputS3BucketName": body.get("OutputS3BucketName", ""),
        "OutputS3KeyPrefix": body.get("OutputS3KeyPrefix", ""),
        "MaxConcurrency": body.get("MaxConcurrency", "50"),
        "MaxErrors": body.get("MaxErrors", "0"),
        "TargetCount": len(invocations),
        "CompletedCount": len(over),
        "ErrorCount": sum(one.details in ERRORS for one in over),
        "DeliveryTimedOutCount": sum(one.details == "DeliveryTimedOut" for one in over),
        "TimeoutSeconds": command.timeout,
    }


def _urls(one):
    bucket = one.command.body.get("OutputS3BucketName")
    if not bucket:
        return {"StandardOutputUrl": "", "StandardErrorUrl": ""}
    root = f"https://s3.{one.command.region}.amazonaws.com/{bucket}/"
    return {
        "StandardOutputUrl": root + one.command.key(one.host.id, "stdout"),
        "StandardErrorUrl": root + one.command.key(one.host.id, "stderr"),
    }


def _invocation_view(one, details):
    command = one.command
    with command.lock:
        view = {
            "CommandId": command.id,
            "InstanceId": one.host.id,
            "InstanceName": one.host.tags.get("Name", ""),
            "Comment": command.body.get("Comment", ""),
            "DocumentName": command.body["DocumentName"],
            "DocumentVersion": command.body.get("DocumentVersion", "$DEFAULT"),
            "RequestedDateTime": command.requested,
            "Status": one.status,
            "StatusDetails": one.details,
            "CommandPlugins": [],
            **_urls(one),
        }
        if details:
            view["CommandPlugins"] = [_plugin(one)]
    return view


def _plugin(one):
    times = {"ResponseStartDateTime": one.started, "ResponseFinishDateTime": one.ended}
    return {
        "Name": one.command.work.plugin,
        "Status": one.status,
        "StatusDetails": one.details,
        "ResponseCode": one.code,
        "Output": _mixed(one),
        **{name: when for name, when in times.items() if when is not None},
        **_urls(one),
    }


def _mixed(one):
    """Both outputs as the list of invocations has them: mixed, and short."""
    text = one.stdout.decode("utf-8", "replace")
    if one.stderr:
        text += "\n----------ERROR-------\n" + one.stderr.decode("utf-8", "replace")
    mark = "\n---Output truncated---"
    return text if len(text) <= 2500 else text[:2500 - len(mark)] + mark


def _result(one):
    command = one.command
    over = one.is_over
    elapsed = f"PT{one.ended - one.started:.3f}S" if over and one.started else ""
    return {
        "CommandId": command.id,
        "InstanceId": one.host.id,
        "Comment": command.body.get("Comment", ""),
        "DocumentName": command.body["DocumentName"],
        "DocumentVersion": command.body.get("DocumentVersion", "$DEFAULT"),
        "PluginName": command.work.plugin,
        "ResponseCode": one.code,
        "ExecutionStartDateTime": _text_time(one.started),
        "ExecutionElapsedTime": elapsed,
        "ExecutionEndDateTime": _text_time(one.ended),
        "Status": one.status,
        "StatusDetails": one.details,
        "StandardOutputContent": one.stdout.decode("utf-8", "replace") if over else "",
        "StandardErrorContent": one.stderr.decode("utf-8", "replace") if over else "",
        **_urls(one),
    }


def _host_view(host):
    return {
        "InstanceId": host.id,
        "PingStatus": host.ping,
        "LastPingDateTime": _now() - (3600 if host.ping != "Online" else 5),
        "AgentVersion": "3.3.987.0",
        "IsLatestVersion": True,
        "PlatformType": host.platform,
        "PlatformName": "Amazon Linux" if host.platform == "Linux" else "Microsoft Windows Server",
        "PlatformVersion": "2023",
        "ResourceType": "EC2Instance",
        "IPAddress": "10.0.0.1",
        "ComputerName": f"{host.id}.ec2.internal",
    }
