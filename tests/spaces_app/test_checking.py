"""Models of strangers are looked at in a process of its own, which ends at its limits and leaves nothing behind."""

from __future__ import annotations

import io
import os
import tempfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from phard_hub import demo_images, measure
from phard_hub.errors import InputError, NotEvaluatedError
from spaces_app import checking, processes
from spaces_app.checking import Request, Step, check
from spaces_app.examples import FOLDER, example
from spaces_app.measuring import SEARCH, planned
from tests.hub_server import Hub


@pytest.fixture(autouse=True)
def own_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is left behind is looked for where no other test and no other page leaves anything."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))


def model_zip(folder: Path, place: Path, **more: bytes) -> Path:
    with zipfile.ZipFile(place, "w") as made:
        for path in folder.iterdir():
            made.write(path, path.name)
        for name, content in more.items():
            made.writestr(name.replace("_", "."), content)
    return place


def digits_zip(place: Path, classes: int) -> Path:
    """Test images of the first classes, as a zip with one folder a class."""
    _, test = demo_images()
    with zipfile.ZipFile(place, "w") as made:
        for number, (pixels, label) in enumerate(zip(test.pixels, test.labels.tolist(), strict=True)):
            if label < classes:
                file = io.BytesIO()
                Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file, "PNG")
                made.writestr(f"{test.names[label]}/{number}.png", file.getvalue())
    return place


def last(request: Request) -> Step:
    *_, step = check(request)
    return step


def left_behind() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("phard-check-*"))


def test_a_model_of_the_hub_is_audited_without_a_token(hub: Hub) -> None:
    hub.create("org/digits", FOLDER / "honest")
    hub.login()
    step = last(Request(repo="org/digits"))
    assert step.error is None, step.error
    assert step.audit is not None
    assert step.audit.commit == hub.head("org/digits")
    assert not any(request.authorized for request in hub.log)
    assert left_behind() == []


def test_a_zip_is_measured_and_code_in_it_forbids_loading(tmp_path: Path) -> None:
    """With images of three classes and a budget that is enough where the machine has much to do."""
    images = digits_zip(tmp_path / "images.zip", classes=3)
    step = last(Request(archive=model_zip(FOLDER / "honest", tmp_path / "a.zip"), images=images, budget=90))
    assert step.error is None, step.error
    assert step.report is not None
    assert step.report.before.evaluation.accuracy.value > 0.9
    assert len(step.report.before.distances.pairs) == 6
    assert step.report.before.distances.reached
    bad = model_zip(FOLDER / "honest", tmp_path / "b.zip", modeling_py=b"import os")
    step = last(Request(archive=bad, images="digits"))
    assert step.report is None
    assert step.audit is not None
    assert any(found.severity == "error" for found in step.audit.findings) or step.error


def test_a_search_fits_into_the_time_that_there_is() -> None:
    model, (_, images) = example().models["honest"], demo_images()
    tried = measure(model, images, SEARCH).distances
    assert planned(tried, 1e6) == replace(SEARCH, steps=240, checks=2, bisections=4)
    plans = [planned(tried, tried.seconds * 2**more) for more in range(1, 12)]
    found = [(plan.max_pairs, plan.steps) for plan in plans]
    assert found == sorted(found)  # with more time, more pairs and steps
    assert len(set(found)) > 3
    assert all(30 <= plan.steps <= 240 for plan in plans)
    with pytest.raises(NotEvaluatedError, match="over the budget"):
        planned(tried, 1e-3)


def test_whoever_stops_asking_ends_the_process(tmp_path: Path) -> None:
    steps = check(Request(archive=model_zip(FOLDER / "honest", tmp_path / "a.zip"), images="digits"))
    next(steps)
    folder = left_behind()
    assert len(folder) == 1
    steps.close()
    assert left_behind() == []
    wait_for_end(folder)


def test_a_process_that_is_ready_answers_and_another_takes_its_place(tmp_path: Path) -> None:
    spare = processes.Spare()
    try:
        spare.keep()
        first = spare.take()
        assert first.process.poll() is None
        first.ask(Request(archive=model_zip(FOLDER / "honest", tmp_path / "a.zip")).to_json())
        assert first.process.stdout is not None
        assert b'"audit"' in first.process.stdout.read()
        first.end()
        spare.prepare()
        assert left_behind() not in ([], [first.folder])
    finally:
        spare.end()
    assert left_behind() == []


def test_a_process_ends_with_its_page() -> None:
    worker = processes.Worker.started()
    worker.ask("")
    assert worker.process.wait(60) == 0
    assert left_behind() == []
    worker.end()


def wait_for_end(used: list[Path], seconds: float = 10) -> None:
    """Until nothing is left of a check: no folder, and no process in it; one that was killed takes a moment to go."""
    deadline = time.monotonic() + seconds
    while (left := [folder for folder in used if folder.exists() or processes_in(folder)]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.1)
    assert left == []


def processes_in(folder: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if os.readlink(entry / "cwd").startswith(str(folder)):  # noqa: PTH115
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@pytest.mark.parametrize(
    ("limit", "value", "said"), [("AUDIT_SECONDS", 0, "more than 0"), ("MOST_DISK", -1, "of disk")]
)
def test_limits_end_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str, value: int, said: str) -> None:
    monkeypatch.setattr(checking, limit, value)
    started = time.monotonic()
    step = last(Request(archive=model_zip(FOLDER / "honest", tmp_path / "a.zip")))
    assert said in (step.error or "")
    assert time.monotonic() - started < 5
    assert left_behind() == []


@pytest.mark.parametrize(
    "repo", ["/etc", "../..", "~", "~/x/y", "./a", "a/../b", "a b/c", "org/model@../x/..", "-x/y", "--help", "", None]
)
def test_no_other_names_are_taken_for_models(repo: str | None) -> None:
    with pytest.raises(InputError):
        next(check(Request(repo=repo)))


@pytest.mark.parametrize(
    "images", ["/etc", "../x", "/tmp/*.parquet", "a/b/c", "~/x", "/srv/x.zip", "org/x.zip", "org/x@.."]
)
def test_no_paths_are_taken_for_data_sets(images: str) -> None:
    with pytest.raises(InputError):
        Request(repo="org/model", images=images).to_json()


def test_what_is_no_zip_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"nothing")
    step = last(Request(archive=tmp_path / "a.zip"))
    assert "The zip cannot be read" in (step.error or "")
