"""The state of a training that was stopped may come from anybody: it fits, or it is refused in one line.

PHARD_FUZZ=20000 asks for so many examples instead of the few of a suite.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from phard_hub.defenses import AdversarialTraining
from phard_hub.errors import OutputError, PhardError, StateError
from phard_hub.report.record import Report
from phard_hub.training.checkpoint import read_state
from phard_hub.training.schedule import Schedule
from tests.border.run import watched
from tests.border.watched import watching
from tests.jobs import cheap, refusing, write_images
from tests.small import PowerCutError, cut_at, digit_images, harden, same_weights, small_net

SCHEDULE = Schedule(steps=10, batch=16, guard_every=4, save_every=3, shift=0.0, flip=False)
DEFENSE = AdversarialTraining(schedule=SCHEDULE, head_start=2, head_start_batch=16)
EXAMPLES = int(os.environ.get("PHARD_FUZZ", "0"))


def continued(folder: Path, defense: AdversarialTraining = DEFENSE) -> torch.nn.Module:
    return harden(defense, small_net(3), digit_images(3)[0], validation=digit_images(3)[1], folder=folder)[0]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was stopped after the sixth step; do not change it."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(PowerCutError):
        harden(
            DEFENSE,
            small_net(3),
            digit_images(3)[0],
            validation=digit_images(3)[1],
            folder=folder,
            progress=cut_at(7),
        )
    return folder


def record(**changes: object) -> Callable[[Path], None]:
    """Other fields in the record; ``...`` leaves one out."""

    def change(state: Path) -> None:
        path = state / "state.json"
        fields = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({name: value for name, value in fields.items() if value is not ...}))

    return change


def record_text(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def changed(state: Path) -> None:
        path = state / "state.json"
        path.write_bytes(change(path.read_bytes()))

    return changed


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    """Other tensors."""

    def changed(state: Path) -> None:
        path = state / "state.safetensors"
        found = safetensors.torch.load(path.read_bytes())
        change(found)
        path.write_bytes(safetensors.torch.save({name: tensor.contiguous() for name, tensor in found.items()}))

    return changed


def tensor_bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def changed(state: Path) -> None:
        path = state / "state.safetensors"
        path.write_bytes(change(path.read_bytes()))

    return changed


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/phard-state-ran",)


def exchanged(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Something else in the place of a file."""

    def changed(state: Path) -> None:
        (state / name).unlink()
        make(state / name)

    return changed


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10 * 2**30)


def linked(state: Path) -> None:
    moved = state.parent.parent / "elsewhere"
    state.rename(moved)
    state.symlink_to(moved)


def first(found: dict[str, torch.Tensor]) -> str:
    return next(name for name in found if name.startswith("model.") and found[name].is_floating_point())


DEEP = b"[" * 100_000 + b"]" * 100_000
BROKEN: dict[str, Callable[[Path], None]] = {
    "pickles in place of the record": record_text(lambda _: pickle.dumps(Runs())),
    "pickles in place of the tensors": tensor_bytes(lambda _: pickle.dumps(Runs())),
    "no record": lambda state: (state / "state.json").unlink(),
    "no tensors": lambda state: (state / "state.safetensors").unlink(),
    "an empty record": record_text(lambda _: b""),
    "half a record": record_text(lambda text: text[: len(text) // 2]),
    "no UTF-8": record_text(lambda _: b"\xff\xfe{}"),
    "a list": record_text(lambda _: b"[]"),
    "nested deeply": record_text(lambda _: DEEP),
    "nested in a field": record_text(lambda text: text.replace(b'"curve":[', b'"curve":[' + DEEP + b",", 1)),
    "a number of 100,000 digits": record_text(lambda text: text.replace(b'"step":6', b'"step":' + b"9" * 100_000)),
    "NaN": record_text(lambda text: text.replace(b'"seconds":', b'"seconds":NaN,"x":')),
    "a step as text": record(step="6"),
    "a step below 0": record(step=-1),
    "a step beyond the end": record(step=11),
    "an enormous step": record(step=10**30),
    "no step": record(step=...),
    "another schema": record(schema_version=2),
    "a field too many": record(surprise=1),
    "a negative learning rate": record(slow_down=-1.0),
    "a learning rate of 0": record(slow_down=0.0),
    "a share beyond the end": record(share=1.5),
    "an escape in an event": record(events=["\x1b]0;owned\x07"]),
    "an event of two lines": record(events=["one\ntwo"]),
    "an endless event": record(events=["x" * 2000]),
    "events that are no list": record(events={"a": 1}),
    "a curve of other steps": record(curve=[{"step": 9, "loss": 1.0, "learning_rate": 0.1}]),
    "a curve of text": record(curve=["steep"]),
    "no counters": record(objective={}),
    "a counter below 0": record(objective={"sample_gradients": -5, "sample_forwards": 0, "distillation": 0.0}),
    "counters of another kind": record(objective={"sample_gradients": 1.5, "sample_forwards": 0, "distillation": 0.0}),
    "a scaler that is not there": record(scaler={"scale": 1.0}),
    "no tensor": tensors(dict.clear),
    "a tensor missing": tensors(lambda found: found.pop(first(found))),
    "a tensor too many": tensors(lambda found: found.update(surprise=torch.zeros(1))),
    "a tensor of another shape": tensors(lambda found: found.update({first(found): torch.zeros(2, 2)})),
    "a tensor of another type": tensors(lambda found: found.update({first(found): found[first(found)].double()})),
    "not finite": tensors(lambda found: found[first(found)].fill_(float("inf"))),
    "a bank that is not finite": tensors(lambda found: found["objective.bank.values"].fill_(float("nan"))),
    "a header of 2^60 bytes": tensor_bytes(lambda data: struct.pack("<Q", 2**60) + data[8:]),
    "half of the tensors": tensor_bytes(lambda data: data[: len(data) // 2]),
    "a deep header": tensor_bytes(lambda _: struct.pack("<Q", len(DEEP)) + DEEP),
    "10 GB of nothing": exchanged("state.safetensors", sparse),
    "10 GB of record": exchanged("state.json", sparse),
    "a FIFO": exchanged("state.json", os.mkfifo),
    "a FIFO of tensors": exchanged("state.safetensors", os.mkfifo),
    "a folder": exchanged("state.json", Path.mkdir),
    "a link to a secret": exchanged("state.json", lambda path: path.symlink_to("/etc/passwd")),
    "a link to a device": exchanged("state.safetensors", lambda path: path.symlink_to("/dev/zero")),
}
OF_OTHERS: dict[str, Callable[[Path], None]] = {
    "a link in its place": linked,
    "a file in its place": lambda state: (shutil.rmtree(state), state.write_text(""))[0],  # type: ignore[func-returns-value]
    "all may write": lambda state: state.chmod(0o777),
    "all may write the job's": lambda state: state.parent.chmod(0o777),
    "the group may write": lambda state: state.chmod(0o770),
}
if os.geteuid() == 0:
    OF_OTHERS["of another user"] = lambda state: os.chown(state, 1234, 1234)
    OF_OTHERS["in a folder of another user"] = lambda state: os.chown(state.parent, 1234, 1234)


@pytest.mark.parametrize("how", [*BROKEN, *OF_OTHERS])
def test_a_broken_state_is_refused_in_one_line(how: str, stopped: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(stopped, tmp_path / "run")
    (BROKEN | OF_OTHERS)[how](folder / "hardening")
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    notes = tmp_path.with_name(f"{tmp_path.name}-notes")
    with pytest.raises(StateError if how in BROKEN else OutputError) as caught, watching(notes, [tmp_path]):
        continued(folder)
    assert notes.read_text() == ""
    said = f"{caught.value} {caught.value.advice}"
    assert said.isprintable()
    assert len(said) < 600
    assert str(folder / "hardening") in said or str(folder) in said
    assert caught.value.exit_code == 2
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before  # nothing is lost
    assert not Path("/tmp/phard-state-ran").exists()


def test_a_state_in_order_is_continued(stopped: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(stopped, tmp_path / "run")
    notes = tmp_path / "notes"
    with watching(notes, [folder]):
        made = continued(folder)
    assert notes.read_text() == ""
    assert same_weights(made, continued(tmp_path / "another"))


@pytest.mark.parametrize(
    "other",
    [
        replace(DEFENSE, parts=replace(DEFENSE.parts, knots=DEFENSE.parts.knots + 1)),
        replace(DEFENSE, schedule=replace(SCHEDULE, steps=5)),
    ],
    ids=["a bank of another shape", "fewer steps"],
)
def test_the_state_of_another_run_is_refused(other: AdversarialTraining, stopped: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(stopped, tmp_path / "run")
    with pytest.raises(StateError, match=r"cannot be continued.*Delete it to start again"):
        continued(folder, other)


def test_the_command_says_so_in_one_line(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A folder whose name anyone can compute, prepared beside the place of the release."""
    model = shutil.copytree(tiny_checkpoint, tmp_path / "model")
    images, out = write_images(tmp_path / "images"), tmp_path / "out"
    job = cheap(model, images, out, "--policy", refusing(tmp_path))
    done, _ = watched(*job, folders=(tmp_path,))
    assert done.code in (0, 1), done.err
    folder = out.with_name(f".{out.name}.{Report.read(out).job[:12]}.run")
    shutil.rmtree(out)
    state = folder / "hardening~forgetting"
    state.mkdir(parents=True)
    for each in (state, folder):
        each.chmod(0o700)
    (state / "state.json").write_bytes(pickle.dumps(Runs()))
    (state / "state.safetensors").write_bytes(pickle.dumps(Runs()))
    done, noted = watched(*job, folders=(tmp_path,))
    assert (done.code, noted) == (2, [])
    assert f"The state of the run in {state} cannot be continued: state.json: " in done.err
    assert "Traceback" not in done.err


@pytest.fixture(scope="module")
def texts(stopped: Path) -> bytes:
    return (stopped / "hardening" / "state.json").read_bytes()


JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=5),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(data=some.data())
@settings(
    max_examples=EXAMPLES or 60,
    deadline=None,
    derandomize=not EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_record_is_continued_or_refused(data: some.DataObject, stopped: Path, texts: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    if not folder.exists():
        shutil.copytree(stopped, folder)
    state = folder / "hardening"
    if data.draw(some.booleans()):
        fields = json.loads(texts)
        fields[data.draw(some.sampled_from(sorted(fields)) | some.text(max_size=5))] = data.draw(JSON)
        content = json.dumps(fields).encode()
    else:
        start = data.draw(some.integers(0, len(texts)))
        content = texts[:start] + data.draw(some.binary(max_size=8)) + texts[start + data.draw(some.integers(0, 20)) :]
    (state / "state.json").write_bytes(content)
    expected = safetensors.torch.load((state / "state.safetensors").read_bytes())
    with suppress(PhardError):
        read_state(state, expected)
