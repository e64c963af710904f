"""What stands in front of moto: names and counts every call, lets some fail, and answers for Systems Manager."""

import contextlib
import io
import json
import socket
import threading
from collections import Counter, defaultdict
from urllib.parse import parse_qs

from moto.iam.models import get_account_id_from

from faults import Faults, error_body, refusal

# Parameters of S3 requests that say which action it is, by method.
S3_ACTIONS = {
    ("PUT", "uploadId"): "UploadPart",
    ("POST", "uploads"): "CreateMultipartUpload",
    ("POST", "uploadId"): "CompleteMultipartUpload",
    ("DELETE", "uploadId"): "AbortMultipartUpload",
    ("POST", "delete"): "DeleteObjects",
    ("GET", "location"): "GetBucketLocation",
    ("GET", "versioning"): "GetBucketVersioning",
    ("GET", "encryption"): "GetBucketEncryption",
    ("GET", "versions"): "ListObjectVersions",
    ("GET", "uploads"): "ListMultipartUploads",
}
S3_OBJECT = {"GET": "GetObject", "HEAD": "HeadObject", "PUT": "PutObject", "DELETE": "DeleteObject"}
S3_BUCKET = {"GET": "ListObjectsV2", "HEAD": "HeadBucket", "PUT": "CreateBucket", "DELETE": "DeleteBucket"}


class Call:
    """One request: `action` as IAM spells it, `protocol` json, query or s3, and whose it is and where."""

    def __init__(self, environ):
        scope = _scope(environ)
        self.key, self.region = scope[0], scope[2] if len(scope) > 2 else "us-east-1"
        self.account = get_account_id_from(self.key)
        self.path = environ.get("PATH_INFO", "")
        service = scope[3] if len(scope) > 3 else "s3"
        self.parameters = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
        target = environ.get("HTTP_X_AMZ_TARGET")
        form = environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded")
        if target:
            self.protocol, self.action = "json", f"{service}:{target.rpartition('.')[2]}"
        elif form and service != "s3":
            form = parse_qs(read_body(environ).decode("utf-8", "replace"))
            self.protocol, self.action = "query", f"{service}:{form.get('Action', ['?'])[0]}"
        else:
            self.protocol, self.action = "s3", f"s3:{self._s3_action(environ)}"

    def _s3_action(self, environ):
        method = environ["REQUEST_METHOD"]
        signed = "Presigned" if "X-Amz-Signature" in self.parameters else ""
        for (with_method, parameter), action in S3_ACTIONS.items():
            if method == with_method and parameter in self.parameters:
                return signed + action
        if method == "PUT" and "HTTP_X_AMZ_COPY_SOURCE" in environ:
            return signed + "CopyObject"
        if environ["PATH_INFO"] == "/":
            return signed + "ListBuckets"
        has_key = bool(environ["PATH_INFO"].strip("/").partition("/")[2])
        return signed + (S3_OBJECT if has_key else S3_BUCKET).get(method, method)


def _scope(environ):
    """The parts of the credential scope: key, date, region, service, `aws4_request`."""
    header = environ.get("HTTP_AUTHORIZATION", "")
    if "Credential=" in header:
        return header.split("Credential=", 1)[1].split(",")[0].strip().split("/")
    query = parse_qs(environ.get("QUERY_STRING", ""))
    return query.get("X-Amz-Credential", [""])[0].split("/")


def read_body(environ):
    """The whole body, which others can read again."""
    if "bench.body" not in environ:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        stream = environ["wsgi.input"]
        environ["bench.body"] = stream.read(length) if length else b""
        if length:
            environ["wsgi.input"] = io.BytesIO(environ["bench.body"])
    return environ["bench.body"]


class Front:
    """The WSGI application."""

    def __init__(self, bench, moto):
        self.bench = bench
        self.moto = moto
        self.faults = Faults(bench.config["faults"])
        self.lock = threading.Lock()
        self.ready = threading.Event()
        self.calls = Counter()
        self.refused = defaultdict(Counter)

    def open(self):
        """From now on calls are answered; before, they wait."""
        self.ready.set()

    def __call__(self, environ, start_response):
        self.ready.wait()
        path = environ.get("PATH_INFO", "")
        if path.startswith("/_agent/"):
            return self._control(environ, start_response)
        if path.startswith("/moto-api"):
            return self.moto(environ, start_response)
        call = Call(environ)
        with self.lock:
            self.calls[call.action] += 1
        rule = self.faults.strike(call)
        if rule is None:
            return self._carry_out(call, environ, start_response)
        # A connection that is closed before all was read loses the answer.
        read_body(environ)
        if rule.get("effect"):
            b"".join(self._carry_out(call, environ, lambda *_: None))
        return self._fail(call, rule, environ, start_response)

    def _carry_out(self, call, environ, start_response):
        service, _, action = call.action.partition(":")
        if service == "ssm" and self.bench.ssm.knows(action):
            status, content_type, body = self.bench.ssm.answer(call, read_body(environ))
            if status != 200:
                self._count(call.action, json.loads(body)["__type"])
            return respond(start_response, status, content_type, body)
        if call.action == "ssm:CreateDocument":
            self.bench.ssm.note_document(read_body(environ))
        return self.moto(environ, start_response)

    def _fail(self, call, rule, environ, start_response):
        if rule.get("kind") == "drop":
            self._count(call.action, "drop")
            drop(environ)
            return respond(start_response, 500, "text/plain", b"")
        code, status, message = refusal(rule, call.protocol, call.action)
        self._count(call.action, code)
        return respond(start_response, status, *error_body(call.protocol, code, message))

    def _count(self, action, code):
        with self.lock:
            self.refused[action][code] += 1

    def _control(self, environ, start_response):
        name = environ["PATH_INFO"].rpartition("/")[2]
        if name == "calls":
            answer = self._counts()
        elif name == "sent":
            answer = self.bench.ssm.sent()
        elif name == "config" and environ["REQUEST_METHOD"] == "PUT":
            try:
                problem = self.bench.configure(json.loads(read_body(environ)))
            except (ValueError, KeyError, TypeError) as error:
                problem = repr(error)
            if problem:
                return respond(start_response, 400, "text/plain", problem.encode())
            answer = {}
        else:
            return respond(start_response, 404, "text/plain", b"calls, sent, config")
        return respond(start_response, 200, "application/json", json.dumps(answer).encode())

    def _counts(self):
        with self.lock:
            return {
                action: {"calls": count, "refused": dict(self.refused[action])}
                for action, count in sorted(self.calls.items())
            }


def respond(start_response, status, content_type, body):
    """A whole answer."""
    reason = {200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found"}.get(status, "Error")
    headers = [("Content-Type", content_type), ("Content-Length", str(len(body))), ("x-amzn-RequestId", "bench")]
    start_response(f"{status} {reason}", headers)
    return [body]


def drop(environ):
    """Closes the connection under the request."""
    with contextlib.suppress(OSError):
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
