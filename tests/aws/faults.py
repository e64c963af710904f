"""What goes wrong between a client and AWS, as rules.

A rule is {action, kind, ...}. `action` is a pattern such as "ssm:SendCommand", "s3:Put*" or "*"; `path`
("/bucket/key*"), `account` and `region`, where given, are patterns too. `kind` is one of

    throttle     ThrottlingException (Systems Manager), Throttling (query services), SlowDown (S3)
    error        HTTP 500
    drop         the connection is closed without an answer
    denied       AccessDenied, in the spelling of the service
    expired      ExpiredToken, in the spelling of the service
    CODE         that code, with `status` (400) and `message`

When it strikes, counting the calls that match the rule from 1: the `first` N calls; `every` Nth call; all `after` the
first N; what exceeds `rate` calls a second with bursts of `burst`; without any of these, all. At most `times` times.
With `effect` true the call is carried out, and only its answer is lost. `latency` seconds pass before any call that
matches, struck or not.
"""

import fnmatch
import json
import threading
import time
from xml.sax.saxutils import escape

# By protocol: code and HTTP status.
CODES = {
    "throttle": {
        "json": ("ThrottlingException", 400), "query": ("Throttling", 400), "s3": ("SlowDown", 503),
    },
    "error": {
        "json": ("InternalServerError", 500), "query": ("InternalFailure", 500), "s3": ("InternalError", 500),
    },
    "denied": {
        "json": ("AccessDeniedException", 400), "query": ("AccessDenied", 403), "s3": ("AccessDenied", 403),
    },
    "expired": {
        "json": ("ExpiredTokenException", 400), "query": ("ExpiredToken", 403), "s3": ("ExpiredToken", 400),
    },
}
MESSAGES = {
    "throttle": "Rate exceeded",
    "error": "An internal error occurred",
    "denied": "User: arn:aws:iam::123456789012:user/bench is not authorized to perform: {action}",
    "expired": "The security token included in the request is expired",
}


class Rule:
    """One rule, and how often it was asked."""

    def __init__(self, rule):
        self.rule = rule
        self.calls = 0
        self.strikes = 0
        self.tokens = float(rule.get("burst", rule.get("rate", 0)))
        self.refilled = time.monotonic()

    def matches(self, call):
        """Whether it is about such a call."""
        patterns = {name: self.rule.get(name, "*") for name in ("action", "path", "account", "region")}
        return all(fnmatch.fnmatchcase(getattr(call, name), pattern) for name, pattern in patterns.items())

    def strikes_now(self):
        """Counts a call, and says whether it is struck."""
        self.calls += 1
        if self.strikes >= self.rule.get("times", float("inf")) or not self._is_due():
            return False
        self.strikes += 1
        return True

    def _is_due(self):
        rule, conditions = self.rule, []
        if "first" in rule:
            conditions.append(self.calls <= rule["first"])
        if "every" in rule:
            conditions.append(self.calls % rule["every"] == 0)
        if "after" in rule:
            conditions.append(self.calls > rule["after"])
        if "rate" in rule:
            conditions.append(not self._take_token())
        return any(conditions) if conditions else "kind" in rule

    def _take_token(self):
        now = time.monotonic()
        burst = float(self.rule.get("burst", self.rule["rate"]))
        self.tokens = min(burst, self.tokens + (now - self.refilled) * self.rule["rate"])
        self.refilled = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class Faults:
    """All rules."""

    def __init__(self, rules):
        self.lock = threading.Lock()
        self.replace(rules)

    def replace(self, rules):
        """Forgets the rules and their counts, and takes these."""
        with self.lock:
            self.rules = [Rule(rule) for rule in rules]

    def strike(self, call):
        """The rule that strikes this call, or None; the first of several. Waits for the latency."""
        with self.lock:
            matching = [rule for rule in self.rules if rule.matches(call)]
            struck = [rule for rule in matching if rule.strikes_now()]
            latency = max((rule.rule.get("latency", 0) for rule in matching), default=0)
        if latency:
            time.sleep(latency)
        return struck[0].rule if struck else None


def refusal(rule, protocol, action):
    """(code, HTTP status, message) of a rule that has struck."""
    kind = rule.get("kind", "throttle")
    code, status = CODES.get(kind, {}).get(protocol, (kind, 400))
    message = rule.get("message", MESSAGES.get(kind, kind)).replace("{action}", action)
    return code, rule.get("status", status), message


def error_body(protocol, code, message):
    """(content type, body) of an error."""
    if protocol == "json":
        body = json.dumps({"__type": code, "message": message})
        return "application/x-amz-json-1.1", body.encode()
    inner = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
    if protocol == "s3":
        text = f"<Error>{inner}<RequestId>bench</RequestId></Error>"
    else:
        inner = f"<Error><Type>Sender</Type>{inner}</Error>"
        text = f"<ErrorResponse>{inner}<RequestId>bench</RequestId></ErrorResponse>"
    return "text/xml", f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()
