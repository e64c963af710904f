"""Documents of Systems Manager: which there are, what their parameters may be, and the script that results."""

import json
import re

from moto.ssm.models import ssm_backends

MAX_BYTES = 64 << 10

RUN_SHELL_SCRIPT = {
    "schemaVersion": "1.2",
    "parameters": {
        "commands": {"type": "StringList", "minItems": 1},
        "workingDirectory": {"type": "String", "default": "", "maxChars": 4096},
        "executionTimeout": {
            "type": "String",
            "default": "3600",
            "allowedPattern": "([1-9][0-9]{0,4})|(1[0-6][0-9]{4})|(17[0-1][0-9]{3})|(172[0-7][0-9]{2})|(172800)",
        },
    },
    "runtimeConfig": {
        "aws:runShellScript": {
            "properties": [
                {
                    "id": "0.aws:runShellScript",
                    "runCommand": "{{ commands }}",
                    "workingDirectory": "{{ workingDirectory }}",
                    "timeoutSeconds": "{{ executionTimeout }}",
                }
            ]
        }
    },
}
PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")


class Refused(Exception):
    """An error of the API: its code and its message."""

    def __init__(self, code, message=""):
        super().__init__(code, message)
        self.code, self.message = code, message


class Work:
    """What an agent has to do: the script, its limit in seconds, and the step's name in S3 and in the API."""

    def __init__(self, script, timeout, plugin, step):
        self.script, self.timeout, self.plugin, self.step = script, timeout, plugin, step


def load(name, version, account, region):
    """The document, as a dictionary."""
    if name.startswith("arn:"):
        name = name.rpartition("document/")[2]
    if name == "AWS-RunShellScript":
        return RUN_SHELL_SCRIPT
    documents = ssm_backends[account][region]._documents.get(name)
    if documents is None:
        raise Refused("InvalidDocument", f"Document with name {name} does not exist.")
    if version in (None, "", "$DEFAULT"):
        document = documents.get_default_version()
    elif version == "$LATEST":
        document = documents.get_latest_version()
    else:
        document = documents.find_by_version(version)
    if document is None:
        raise Refused("InvalidDocumentVersion", "The document version is not valid or does not exist.")
    return document.content_json


def work(document, parameters):
    """What `parameters` make of the document."""
    values = _values(document.get("parameters") or {}, parameters)
    if str(document["schemaVersion"]).startswith("1."):
        step = document["runtimeConfig"]["aws:runShellScript"]["properties"][0]
        plugin, name = "aws:runShellScript", step.get("id", "0.aws:runShellScript").replace(":", "")
    else:
        step = next((step for step in document["mainSteps"] if step["action"] == "aws:runShellScript"), None)
        if step is None:
            raise Refused("UnsupportedPlatformType", "The document has no step for Linux.")
        plugin = name = step["name"]
        step = step["inputs"]
    filled = {key: _fill(value, values) for key, value in step.items()}
    if len(json.dumps(document)) + len(json.dumps(parameters)) > MAX_BYTES:
        raise Refused("MaxDocumentSizeExceeded", "The size limit of a document is 64 KB.")
    lines = filled["runCommand"]
    script = lines if isinstance(lines, str) else "\n".join(lines)
    return Work(script, _seconds(filled.get("timeoutSeconds")), plugin, name)


def _seconds(text):
    """The agent takes 5 to 172800; anything else silently becomes 3600."""
    try:
        seconds = int(text)
    except (TypeError, ValueError):
        return 3600
    return seconds if 5 <= seconds <= 172800 else 3600


def _values(declared, given):
    """What each parameter is; `given` has lists of strings."""
    for name, values in given.items():
        if name not in declared:
            raise Refused("InvalidParameters", f"Parameter {name} is not defined in the document.")
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise Refused("ValidationException", f"Parameter {name} must be a list of strings.")
    values = {}
    for name, spec in declared.items():
        if name in given:
            values[name] = given[name] if spec["type"] == "StringList" else _single(name, given[name])
        elif "default" in spec:
            values[name] = spec["default"]
        else:
            raise Refused("InvalidParameters", f"Parameter {name} is required.")
        _check(name, spec, values[name])
    return values


def _single(name, values):
    if len(values) != 1:
        raise Refused("InvalidParameters", f"Parameter {name} must have one value.")
    return values[0]


def _check(name, spec, value):
    values = value if isinstance(value, list) else [value]
    if len(values) < spec.get("minItems", 0) or len(values) > spec.get("maxItems", len(values)):
        raise Refused("InvalidParameters", f"Parameter {name} has a wrong number of items.")
    pattern = spec.get("allowedPattern")
    for text in map(str, values):
        if pattern and value != spec.get("default") and not re.fullmatch(pattern, text):
            raise Refused("InvalidParameters", f"Parameter {name} does not match its allowedPattern {pattern}.")
        if "allowedValues" in spec and text not in map(str, spec["allowedValues"]):
            raise Refused("InvalidParameters", f"Parameter {name} is none of its allowedValues.")
        if not spec.get("minChars", 0) <= len(text) <= spec.get("maxChars", len(text)):
            raise Refused("InvalidParameters", f"Parameter {name} has a wrong length.")


def _fill(value, values):
    """Puts parameters in their places; a place that is all of a list item takes a list as its lines."""
    if isinstance(value, list):
        filled = [_fill(item, values) for item in value]
        return [line for item in filled for line in (item if isinstance(item, list) else [item])]
    if not isinstance(value, str):
        return value
    whole = PLACEHOLDER.fullmatch(value.strip())
    if whole and isinstance(values.get(whole[1]), list):
        return values[whole[1]]

    def text(found):
        if found[1] not in values:
            return found[0]
        replacement = values[found[1]]
        return "\n".join(replacement) if isinstance(replacement, list) else str(replacement)

    return PLACEHOLDER.sub(text, value)
