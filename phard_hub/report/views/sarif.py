"""Views of a verdict and of an audit as SARIF 2.1.0, as code scanning services such as GitHub's take it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from phard_hub.report.findings import MEANINGS, AuditRecord
from phard_hub.report.gate import RuleResult, Verdict
from phard_hub.report.policy import Policy
from phard_hub.report.rules import rule_help
from phard_hub.report.wording import OUTCOMES, sentence

_HOMEPAGE = "https://pypi.org/project/phard-hub/"
# Without addresses: GitHub refuses a log whose addresses are of other kinds than that of its checkout.
_BASES = {"SRCROOT": "The root of the checkout.", "HUB": "The Hugging Face Hub, https://huggingface.co/."}


class Artifact(NamedTuple):
    """Where a file is: its URI, and what this is relative to (a name in `_BASES`, or None)."""

    uri: str
    base: str | None


def on_disk(path: Path, checkout: Path) -> Artifact:
    """A file below the root of a checkout, or elsewhere on this machine."""
    path = path.parent.resolve() / path.name
    if path.is_relative_to(checkout):
        return Artifact(quote(os.fsencode(path.relative_to(checkout))), "SRCROOT")
    return Artifact(path.as_uri(), None)


def on_hub(repo: str, commit: str, file: str) -> Artifact:
    """A file of a model on the Hub."""
    return Artifact(quote(f"{repo}/resolve/{commit}/{file}"), "HUB")


def as_sarif(verdict: Verdict, report: Artifact) -> str:
    """The verdict as SARIF: one result for each rule that refuses, which points to the report."""
    refusing = [rule for rule in verdict.rules if rule.outcome in ("fail", "not_evaluated")]
    return _log(
        "phard gate",
        rules=[_policy_rule(rule.name) for rule in verdict.rules],
        results=[_refusal(verdict, rule, report) for rule in refusing],
        notes=verdict.notes,
        properties={"verdict": verdict.word},
    )


def audit_as_sarif(record: AuditRecord, checkout: Path) -> str:
    """An audit as SARIF: one result a finding, which points to the file that it is about."""
    ids = list(MEANINGS)
    return _log(
        "phard audit",
        rules=[_finding_rule(id_) for id_ in ids],
        results=[
            {
                "ruleId": found.id,
                "ruleIndex": ids.index(found.id),
                "level": found.severity,
                "message": {"text": f"{sentence(found.evidence)} {sentence(found.advice)}"},
                "locations": [_location(_artifact(record, found.file, checkout))],
                "partialFingerprints": {"phardFinding/v1": f"{found.id}:{found.file}:{found.evidence}"},
            }
            for found in record.findings
        ],
    )


def _artifact(record: AuditRecord, file: str, checkout: Path) -> Artifact:
    """The file that a finding is about; the config where it is about the model as a whole, as folders are no files."""
    file = "config.json" if file == record.repo else file
    return on_hub(record.repo, record.commit, file) if record.commit else on_disk(Path(record.repo, file), checkout)


def _log(
    tool: str,
    *,
    rules: list[dict[str, Any]],
    results: list[dict[str, Any]],
    notes: Sequence[str] = (),
    properties: dict[str, str] | None = None,
) -> str:
    driver = {"name": tool, "version": version("phard-hub"), "informationUri": _HOMEPAGE, "rules": rules}
    run: dict[str, Any] = {"tool": {"driver": driver}, "results": results, "columnKind": "unicodeCodePoints"}
    places = [result["locations"][0]["physicalLocation"]["artifactLocation"] for result in results]
    if bases := {place["uriBaseId"] for place in places if "uriBaseId" in place}:
        run["originalUriBaseIds"] = {base: {"description": {"text": _BASES[base]}} for base in sorted(bases)}
    if notes:
        sentences = [{"level": "note", "message": {"text": note}} for note in notes]
        run["invocations"] = [{"executionSuccessful": True, "toolExecutionNotifications": sentences}]
    if properties:
        run["properties"] = properties
    log = {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=1, ensure_ascii=False) + "\n"


def _policy_rule(name: str) -> dict[str, Any]:
    advice = f"The limit is {name} in policy.toml." if name in Policy.model_fields else "No policy switches it off."
    title = "".join(part.capitalize() for part in name.split("_"))
    return {"name": title, **_rule(f"phard/{name}", rule_help(name), advice, level="error")}


def _finding_rule(id_: str) -> dict[str, Any]:
    return _rule(id_, MEANINGS[id_], "Each result says what was seen and what to do.", level="warning")


def _rule(id_: str, meaning: str, advice: str, *, level: str) -> dict[str, Any]:
    return {
        "id": id_,
        "shortDescription": {"text": sentence(meaning.split(". ")[0])},
        "fullDescription": {"text": meaning},
        "help": {"text": f"{meaning} {advice}"},
        "defaultConfiguration": {"level": level},
        "properties": {"tags": ["security"]},
    }


def _refusal(verdict: Verdict, rule: RuleResult, report: Artifact) -> dict[str, Any]:
    return {
        "ruleId": f"phard/{rule.name}",
        "ruleIndex": verdict.rules.index(rule),
        "level": "error",
        "message": {"text": f"{OUTCOMES[rule.outcome].capitalize()}: {sentence(rule.message)}"},
        "locations": [_location(report)],
        "partialFingerprints": {"phardRule/v1": f"{rule.name}:{verdict.stage}"},
    }


def _location(place: Artifact) -> dict[str, Any]:
    """The first line of a file, because code scanning asks for a line."""
    artifact = {"uri": place.uri} | ({"uriBaseId": place.base} if place.base else {})
    return {"physicalLocation": {"artifactLocation": artifact, "region": {"startLine": 1}}}
