"""Reports that anybody may have written: each ends in one line and the documented code, and runs nothing."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from phard_hub.report.gate import gate
from phard_hub.report.policy import Policy
from phard_hub.report.record import Report
from tests.border.gating import BROKEN, GOOD, PASSED, ended, fuzz
from tests.report_factory import make_rate

Change = Callable[[dict[str, Any]], object]


def place(path: str) -> Callable[[dict[str, Any]], tuple[Any, Any]]:
    """Where a value is, by a path such as ``after.evaluation.accuracy.value``."""

    def find(report: dict[str, Any]) -> tuple[Any, Any]:
        *above, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        for part in above:
            report = report[part]  # type: ignore[index]
        return report, last

    return find


def given_as(path: str, value: object) -> Change:
    """Another value there."""

    def change(report: dict[str, Any]) -> None:
        inside, last = place(path)(report)
        inside[last] = value

    return change


def without(path: str) -> Change:
    def change(report: dict[str, Any]) -> None:
        inside, last = place(path)(report)
        del inside[last]

    return change


def no_attacks_after(report: dict[str, Any]) -> None:
    report["after"]["evaluation"]["attacks"] = []


def no_universal_triggers(report: dict[str, Any]) -> None:
    for stage in "before", "after":
        report[stage]["distances"]["universal"] = []


def robust_on_nothing(report: dict[str, Any]) -> None:
    for stage in "before", "after":
        report[stage]["evaluation"]["robust_accuracy"] = {"value": 0.0, "n": 0, "low": 0.0, "high": 1.0}


def next_to_nothing(report: dict[str, Any]) -> None:
    distances = report["before"]["distances"]
    for pair in (*distances["pairs"], *distances["universal"], distances):
        pair.update({name: 1e-310 for name in ("distance", "rms", "mean", "low", "high") if pair.get(name)})


def reached_on_nothing(report: dict[str, Any]) -> None:
    report["after"]["distances"]["pairs"][0]["success"] = {"value": 0.0, "n": 0, "low": 0.0, "high": 1.0}


def many_triggered(report: dict[str, Any]) -> None:
    for stage in "before", "after":
        for name in "success", "recovered":
            report[stage]["evaluation"]["attacks"][0][name] = make_rate(0.5, 10**6).model_dump()


def one_pair(report: dict[str, Any]) -> None:
    """A mean of the pair that is furthest, with all others left out."""
    distances = report["after"]["distances"]
    distances["pairs"] = [max(distances["pairs"], key=lambda pair: pair["distance"] or 0)]


def flattered(report: dict[str, Any]) -> None:
    """Distances ten times larger, and their mean forgotten."""
    for pair in report["after"]["distances"]["pairs"]:
        if pair["distance"]:
            pair["distance"], pair["rms"] = 10 * pair["distance"], 10 * pair["rms"]


def unreached_with_distance(report: dict[str, Any]) -> None:
    report["after"]["distances"]["pairs"][0]["reached"] = False


def twice(report: dict[str, Any]) -> None:
    pairs = report["after"]["distances"]["pairs"]
    pairs.append(pairs[0])


def success_of_a_pair(report: dict[str, Any]) -> None:
    distances = report["after"]["distances"]
    distances["pairs"][1]["at"] = distances["universal"][0]["at"]


def a_kind_of_its_own(report: dict[str, Any]) -> None:
    kinds = report["after"]["distances"]["kinds"]
    kinds["harmless"] = kinds["colour"]


FORGED: dict[str, Change] = {
    "accuracy of 500 %": given_as("after.evaluation.accuracy.value", 5.0),
    "accuracy below 0": given_as("after.evaluation.accuracy.value", -0.5),
    "a rate of no images": given_as("after.evaluation.accuracy.n", 0),
    "a negative number of images": given_as("after.evaluation.accuracy.n", -1000),
    "half an image": given_as("after.evaluation.accuracy.n", 1000.5),
    "a number as text": given_as("after.evaluation.accuracy.value", "0.99"),
    "a truth for a number": given_as("after.evaluation.accuracy.value", True),
    "a rate outside of its interval": given_as("after.evaluation.accuracy.value", 0.999),
    "other images after": given_as("after.evaluation.accuracy.n", 10),
    "a mean that is not that of the pairs": given_as("after.distances.mean", 1000.0),
    "no mean of pairs": given_as("after.distances.mean", None),
    "an interval upside down": given_as("after.distances.low", 10.0),
    "distances that the mean does not know": flattered,
    "one pair left": one_pair,
    "a pair twice": twice,
    "a pair not reached with a distance": unreached_with_distance,
    "a negative distance": given_as("after.distances.pairs.0.distance", -3.0),
    "grey levels of another distance": given_as("after.distances.pairs.0.rms", 200.0),
    "a pair of a class that is not there": given_as("after.distances.pairs.0.target", 99),
    "a negative class": given_as("after.distances.pairs.0.target", -1),
    "a pair to itself": given_as("after.distances.pairs.0.target", 0),
    "a pair reached by nobody": given_as("after.distances.pairs.0.success.value", 0.0),
    "an easier bound": given_as("after.distances.success_bound", 0.99),
    "an image without pixels": given_as("after.distances.image_shape", [3, 0, 0]),
    "other images": given_as("after.distances.image_shape", [3, 64, 64]),
    "other classes after": given_as("after.distances.labels", ["a", "b", "c", "d"]),
    "one class": given_as("after.distances.labels", ["a"]),
    "the attacks after left out": no_attacks_after,
    "another attack after": given_as("after.evaluation.attacks.0.name", "other"),
    "another target after": given_as("after.evaluation.attacks.0.target", 2),
    "a target that is not there": given_as("before.evaluation.attacks.0.target", 9),
    "hardened by nothing": given_as("hardening", None),
    "nothing after": given_as("after", None),
    "a schema of the past": given_as("schema_version", 1),
    "a schema as text": given_as("schema_version", "2"),
    "no schema": without("schema_version"),
    "no time zone": given_as("created", "2026-11-21T12:00:00"),
    "no date": given_as("created", "yesterday"),
    "an unknown field": given_as("safe", True),
    "an unknown field deep inside": given_as("after.evaluation.clean", True),
    "no weights": without("after.weights_sha256"),
    "weights of no hash": given_as("after.weights_sha256", "abc"),
    "weights of capital letters": given_as("after.weights_sha256", "B" * 64),
    "files of no hash": given_as("source.files", {"config.json": "../../etc/passwd"}),
    "a severity of its own": given_as("findings.0.severity", "harmless"),
    "findings that are none": given_as("findings", "none"),
    "a list for a report": lambda report: report,
    "a rate that no whole number of images gives": given_as("after.evaluation.accuracy.value", 0.9155),
    "an interval of a larger test": given_as("after.evaluation.accuracy.low", 0.914),
    "robust on no images": robust_on_nothing,
    "robust on other images": given_as("after.evaluation.robust_accuracy", make_rate(0.5, 10).model_dump()),
    "no findings": without("findings"),
    "no attacks": without("before.evaluation.attacks"),
    "the smallest distance left out": no_universal_triggers,
    "a universal trigger left out": lambda report: report["after"]["distances"]["universal"].pop(),
    "other pairs after": lambda report: report["after"]["distances"]["pairs"].pop(0),
    "a time without end": given_as("after.distances.seconds", 1e300),
    "a distance of next to nothing": next_to_nothing,
    "a pair reached on no images": reached_on_nothing,
    "a success bound of 0": given_as("after.distances.success_bound", 0.0),
    "an interval without its mean": given_as("after.distances.low", 6.0),
    "one weights, two accuracies": given_as("after.weights_sha256", "a" * 64),
    "a trigger of another size after": given_as("after.evaluation.attacks.0.size", 1e-9),
    "a trigger on more images than there are": many_triggered,
    "images turned and still right": given_as("before.evaluation.attacks.0.recovered", make_rate(0.5).model_dump()),
    "robust under nothing": given_as("after.evaluation.robust_attack", ""),
    "points beyond all": given_as("hardening.phases.0.points_lost", 1e9),
    "a cost below 0": given_as("hardening.phases.0.sample_gradients", -1),
    "a distance without interval": given_as("after.distances.pairs.1.low", None),
    "a distance beside its interval": given_as("after.distances.pairs.1.high", 0.5),
    "success at sizes of a pair": success_of_a_pair,
    "no success at sizes": given_as("after.distances.universal.0.at", []),
    "a kind of its own": a_kind_of_its_own,
    "a kind left out after": given_as("after.distances.kinds", {}),
    "a class left out of a kind": lambda report: report["after"]["distances"]["kinds"]["colour"].pop(),
    "no classes chosen": given_as("after.distances.chosen", [0]),
    "classes chosen twice": given_as("after.distances.chosen", [0, 0, 1, 2]),
    "other classes chosen": given_as("after.distances.chosen", [0, 1, 2]),
    "an endless number": given_as("hardening.seed", 10**30),
}
TEXTS: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"hello",
    "half of it": GOOD.encode()[: len(GOOD) // 2],
    "no UTF-8": b"\xff\xfe" + GOOD.encode("utf-16-le"),
    "a list": b"[" + GOOD.encode() + b"]",
    "pickles": pickle.dumps(os.system),
    "nested deeply": b"[" * 100_000 + b"]" * 100_000,
    "objects in objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "NaN": GOOD.replace('"seed": 0', '"seed": NaN').encode(),
    "infinite": GOOD.replace('"seconds": 12.5', '"seconds": 1e999').encode(),
    "a number of 10,000 digits": GOOD.replace('"seed": 0', f'"seed": {"9" * 10_000}').encode(),
    "an entry twice": GOOD.replace('"dataset":', '"dataset": "mine", "dataset":').encode(),
    "zeros": bytes(1000),
    "20 million values": b'{"a": [' + b"{}," * 20_000_000 + b"1]}",
    "escapes": b'{"\x1b]0;owned\x07": 1}',
}


def test_the_honest_one_passes(tmp_path: Path) -> None:
    (tmp_path / "phard_report.json").write_text(GOOD)
    assert ended(tmp_path / "phard_report.json")[0] == PASSED


@pytest.mark.parametrize("how", FORGED)
def test_a_report_that_contradicts_itself_is_broken(how: str, tmp_path: Path) -> None:
    fields = json.loads(GOOD)
    FORGED[how](fields)
    path = tmp_path / "phard_report.json"
    path.write_text(json.dumps([fields] if how == "a list for a report" else fields))
    code, said = ended(path)
    assert code == BROKEN
    older = "is a report of schema 1, which an older version of phard wrote; this one reads 3. "
    assert (older if how == "a schema of the past" else "is not a report of schema 3: ") in said


@pytest.mark.parametrize("what", TEXTS)
def test_what_is_no_report_is_broken(what: str, tmp_path: Path) -> None:
    path = tmp_path / "phard_report.json"
    path.write_bytes(TEXTS[what])
    assert ended(path)[0] == BROKEN


def fifo(path: Path) -> None:
    os.mkfifo(path)


def link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10 * 2**30)


PLACES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: None,
    "a FIFO": fifo,
    "a folder": Path.mkdir,
    "a link to another file": link,
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "10 GB": sparse,
}


@pytest.mark.parametrize("what", PLACES)
def test_what_is_no_file_is_not_read(what: str, tmp_path: Path) -> None:
    for name in ("phard_report.json", "policy.toml"):
        PLACES[what](tmp_path / name)
    assert ended(tmp_path)[0] == BROKEN  # in a folder
    link_of_the_user = ("opens /etc",)  # its folder
    assert ended(tmp_path / "phard_report.json", named=link_of_the_user)[0] == BROKEN  # and alone
    (tmp_path / "good.json").write_text(GOOD)
    assert ended(tmp_path / "good.json", tmp_path / "policy.toml", link_of_the_user)[0] == BROKEN


def test_who_names_a_file_may_name_a_link(tmp_path: Path) -> None:
    """As where a cluster mounts the policy and the report."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "r.json").write_text(GOOD)
    (tmp_path / "data" / "p.toml").write_text("\ufeff" + Policy().to_toml(), encoding="utf-8")
    for name in ("r.json", "p.toml"):
        (tmp_path / name).symlink_to(f"data/{name}")
    assert ended(tmp_path / "r.json", tmp_path / "p.toml")[0] == PASSED


JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=5),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def leaves(value: object, above: tuple[str, ...] = ()) -> list[str]:
    """The paths of all values in a report."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [leaf for name, each in inside for leaf in leaves(each, (*above, str(name)))]
    return [*found, ".".join(above)] if above else found


PATHS = [path for path in leaves(json.loads(GOOD)) if not path.startswith("environment.versions.")]


@given(changes=some.lists(some.tuples(some.sampled_from(PATHS), JSON), min_size=1, max_size=3))
@fuzz(200)
def test_any_values_are_judged_or_refused(changes: list[tuple[str, Any]]) -> None:
    fields = json.loads(GOOD)
    for path, value in changes:
        with suppress(KeyError, IndexError, TypeError):
            given_as(path, value)(fields)
    with suppress(ValueError):
        gate(Report.from_fields(fields), Policy())


@given(content=some.binary(max_size=200) | some.text(max_size=200).map(str.encode))
@fuzz(200)
def test_any_bytes_are_a_report_or_one_line(content: bytes) -> None:
    try:
        Report.from_json(content)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017 - the point is what is said
