"""Shared by all tests: a Hub on loopback and no other network, one thread, a tiny checkpoint, optional real data."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from zlib import crc32

from tests.command import Done, Phard
from tests.hub_server import Hub
from tests.loopback.environment import client_environment

# The Hub's libraries read these when they are imported, so they are set before anything else is.
_HOME = tempfile.TemporaryDirectory(prefix="phard-hf-", ignore_cleanup_errors=True)
_HUB = Hub()
_HUB.start()
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.update(client_environment(_HUB.endpoint, _HOME.name))

import pytest  # noqa: E402 - see above
import torch  # noqa: E402

from tests.jobs import write_images  # noqa: E402

torch.set_num_threads(1)
gc.set_threshold(50_000, 20, 20)  # a twelfth of the time went into looking for garbage among all that was imported

_NOT_COUNTED = ("tests/test_architectures.py", "tests/defenses/hardening/", "tests/defenses/removal/")
"""Long trainings through lines that tests of moments reach as well: counting them takes half as long again."""


_COUNTED = 3
"""Of a test with many arguments, one in so many is counted, others of another test: all reach much the same lines."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out of the coverage what takes long and adds nothing to it."""
    tests = [item.nodeid.partition("[")[0] for item in items]
    arguments, place = Counter(tests), Counter({test: crc32(test.encode()) for test in tests})
    for item, test in zip(items, tests, strict=True):
        place[test] += 1
        many = arguments[test] > 3 * _COUNTED
        if item.nodeid.startswith(_NOT_COUNTED) or (many and place[test] % _COUNTED):
            item.add_marker("no_cover")


def pytest_collection_finish() -> None:
    """Look no more for garbage among what was imported: it took half a second, and each training looks once."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def hub() -> Iterator[Hub]:
    """An empty Hub that this process and its children talk to, and an empty cache; nobody is logged in."""
    _HUB.reset()
    for folder in Path(_HOME.name).iterdir():
        shutil.rmtree(folder, ignore_errors=True)
    yield _HUB
    _HUB.reset()


@pytest.fixture
def short_autoencoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The autoencoder of the latent part learns for a moment only."""
    from phard_hub.defenses.hardening import adversarial
    from phard_hub.triggers import search
    from phard_hub.triggers.autoencoder import train_autoencoder

    for module in (adversarial, search):
        monkeypatch.setattr(module, "train_autoencoder", partial(train_autoencoder, steps=20))


@pytest.fixture
def phard(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Phard:
    """Run the command inside this process, which has torch already."""
    from phard_hub.__main__ import main

    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["phard", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        return Done(int(stop.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture(autouse=True)
def own_accelerator() -> Iterator[None]:
    """accelerate keeps the first precision of a process for good; no test inherits that of another."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images of the four classes of `tiny_checkpoint`; do not change it."""
    return write_images(tmp_path_factory.mktemp("images") / "animals")


@pytest.fixture
def brief_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits before trying again, we or the client, does not wait long."""
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The optional folder of real images and checkpoints: PHARD_DATA, or ../shared/data."""
    folder = Path(os.environ.get("PHARD_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"NO REAL DATA: {folder} does not exist; set PHARD_DATA to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random residual network for 32x32 images of four classes; do not change it."""
    from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessorPil

    config = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        layer_type="basic",
        downsample_in_first_stage=False,
        id2label=dict(enumerate(("cat", "dog", "owl", "fox"))),
        label2id={"cat": 0, "dog": 1, "owl": 2, "fox": 3},
    )
    folder = tmp_path_factory.mktemp("tiny_checkpoint")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ResNetForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder
