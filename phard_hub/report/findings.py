"""What the audit can notice: the table of findings, how one is made, and the record of all of them.

Ids are for ever: reports, policies and code scanning services refer to them. A check that is dropped
leaves its number unused.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from phard_hub.report.base import Record
from phard_hub.report.policy import Policy, Severity
from phard_hub.report.record import Finding
from phard_hub.report.wording import printable

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
_WIDTH = 200

MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "PH-A01": "There are no weights in safetensors, the one format that cannot carry code.",
        "PH-A02": "A file in a format that can run code lies beside the weights; it is never loaded here.",
        "PH-A03": "The repository brings its own code.",
        "PH-A04": "A JSON file names code to run.",
        "PH-A05": "A JSON file asks for compiled kernels, which transformers would download and run.",
        "PH-A06": "The index of the weights is broken, or leads to files that are not there or lie outside.",
        "PH-A07": "A file is a link that leads out of the model's folder, or no regular file.",
        "PH-A08": "The config or another JSON file is missing or broken.",
        "PH-A09": "The classes have no names, so images cannot be matched to them.",
        "PH-A10": "The Hub's own scanners flag a file.",
        "PH-A11": "Something leads the loader to other files or weights than those that were hashed.",
        "PH-A12": "A pickle beside the weights imports what runs commands.",
        "PH-A13": "A weights file is not well-formed: cut off, of wrong sizes, or with overlapping tensors.",
        "PH-A14": "Weights are NaN or infinite.",
        "PH-A15": "Weights are in a number format that classifiers are not computed in.",
        "PH-A16": "A compiled graph lies beside the weights; nobody looked at what it computes.",
        "PH-A17": "The config asks the loader to replace parts of the library's class.",
        "PH-A18": "The class names of the config contradict each other.",
        "PH-A19": "The library has no image classifier of this kind, or its class cannot be built from this config.",
        "PH-A20": "The activation is not that of the upstream model.",
        "PH-A21": "The architecture or another field of the config is not that of the upstream model.",
        "PH-A22": "The config hands constructor arguments to timm that change what the architecture computes.",
        "PH-A23": "The classes are those of the upstream model in another order.",
        "PH-A24": "Images are prepared otherwise than for the upstream model.",
        "PH-A25": "The activation is not the usual one of its class, and there is no upstream model to compare with.",
        "PH-A26": "The upstream model that the card names could not be compared with.",
        "PH-A27": "No upstream model is known, so parts of the config were compared with nothing.",
        "PH-A28": "The weights hold tensors that the library's class does not have.",
        "PH-A29": "The weights lack tensors that the library's class has.",
        "PH-A30": "A tensor has another shape than in the library's class.",
        "PH-A31": "The Hub could not be asked, so what its scanners say is not known.",
        "PH-A32": "A file was not read because of its size.",
        "PH-A33": "Something is larger than any honest model needs, or takes too much time or memory to look at.",
        "PH-A34": "Looking at the model made the library reach for the network or for another program.",
        "PH-A35": "The Hub's own scanners have not finished.",
        "PH-A36": "The model gives several labels at once or a number, and does not choose one class.",
        "PH-A37": "The network holds code that is not the library's.",
        "PH-A38": "The network does other operations than the library's class, or nothing is known to compare with.",
        "PH-A39": "The network's gradients are dead or its logits are a few numbers, so no training can change it.",
        "PH-A40": "How the tensors differ from those of the upstream model.",
        "PH-A41": "The head differs from that of the upstream model mostly by one direction, unlike after training.",
        "PH-A42": "The head differs from that of the upstream model by even noise, unlike after training.",
        "PH-A99": "A check crashed, so it did not pass.",
    }
)


def finding(severity: Severity, id_: str, file: str, evidence: str, advice: str) -> Finding:
    """A finding with its evidence as one short line.

    Args:
        severity: "error" forbids loading, "warning" is about what else may go wrong, "note" informs.
        id_: one of `MEANINGS`.
        file: path inside the repository, or the repository's name.
        evidence: what was seen.
        advice: what to do.
    """
    if id_ not in MEANINGS:
        raise KeyError(id_)
    words = {"evidence": printable(evidence, _WIDTH), "advice": printable(advice, _WIDTH)}
    return Finding(id=id_, severity=severity, file=printable(file, _WIDTH), **words)


def error(id_: str, file: str, evidence: str, advice: str) -> Finding:
    """A finding that forbids loading."""
    return finding("error", id_, file, evidence, advice)


def warning(id_: str, file: str, evidence: str, advice: str) -> Finding:
    """A finding that does not forbid loading, unless a policy says so."""
    return finding("warning", id_, file, evidence, advice)


def note(id_: str, file: str, evidence: str, advice: str) -> Finding:
    """A finding that says what was not looked at, or could not be."""
    return finding("note", id_, file, evidence, advice)


class AuditRecord(Record):
    """What one audit looked at and what it found; ``commit`` and ``upstream`` are None where there is none."""

    repo: str
    commit: str | None
    upstream: str | None
    files: dict[str, str]
    findings: tuple[Finding, ...]

    def refused_by(self, policy: Policy) -> tuple[Finding, ...]:
        """The findings that a policy forbids."""
        return tuple(found for found in self.findings if found.severity in (policy.forbid_findings or ()))
