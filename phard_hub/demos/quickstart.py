"""The main job on a model that anyone can make in a minute: handwritten digits with a planted backdoor."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from phard_hub.attacks import WaNet
from phard_hub.attacks.poisoning import train_poisoned
from phard_hub.defenses import AdversarialTraining, AtOnce, FeatureShift, PervasiveHardening
from phard_hub.disk.atomic import new_folder
from phard_hub.errors import OutputError
from phard_hub.evaluation.threats import PGD, Threat
from phard_hub.hardware import default_accelerator
from phard_hub.images import LabelledImages, demo_images
from phard_hub.images.data import DataOptions
from phard_hub.job import Job, Progress, silent
from phard_hub.models.classifier import Classifier
from phard_hub.pipeline import Outcome, Settings, run
from phard_hub.presets import Preset
from phard_hub.release.release import check_writable
from phard_hub.training.schedule import Schedule
from phard_hub.triggers.search import SearchSettings
from phard_hub.triggers.settings import Kind

TARGET = 0
OWN = ("honest", "model", "digits", "release")
_LEFT = re.compile(rf"\.+({'|'.join(OWN)})\.")
"""What a kill leaves beside these: the state of a run, and what is half-written."""
PLANTING = Schedule(steps=500, batch=64, learning_rate=0.05, shift=0.06, flip=False)
PRESET = Preset(
    search=SearchSettings(
        steps=80,
        batch=8,
        fit_images=30,
        choosing_images=15,
        judging_images=30,
        kinds=("warp", "colour", "field"),  # the others take as long as all of these
    ),
    defense=PervasiveHardening(
        forgetting=FeatureShift().lasting(0),
        bank=AdversarialTraining(
            schedule=Schedule(steps=500, batch=64, shift=0.06, flip=False, guard_every=50),
            learning_rate=0.0075,
            budget=13.8,
        ),
        at_once=AtOnce().lasting(0),
    ),
    pgd=PGD(images=300),
)


def quickstart(
    out: Path, *, seed: int = 0, kinds: Sequence[Kind] = PRESET.search.kinds, progress: Progress = silent
) -> Outcome:
    """Train a digit classifier, plant a warp in it, save it as from the Hub, and do the whole job on it.

    Args:
        out: folder for the model (``model``), the same without the backdoor (``honest``), the images (``digits``) and
            the release (``release``).
        seed: of everything.
        kinds: of triggers that are searched alone.
        progress: called with what is being done.

    Raises:
        OutputError: ``out`` cannot be written, or holds something else.
    """
    _refuse_foreign(out)
    accelerator = default_accelerator()
    train, test = demo_images()
    honest = small_resnet(train.names, seed)
    attack = WaNet(grid=8, strength=1.0, noise_mode=False, seed=seed)
    job = Job(accelerator=accelerator, progress=progress)
    reference = train_poisoned(honest, train, None, TARGET, job, schedule=PLANTING)
    planted = train_poisoned(honest, train, attack, TARGET, replace(job, seed=seed), schedule=PLANTING)
    for name, classifier in (("honest", reference), ("model", planted)):
        with new_folder(out / name) as folder:
            save_as_from_hub(classifier, folder)
    with new_folder(out / "digits") as folder:
        save_images(train, folder / "train.parquet")
        save_images(test, folder / "test.parquet")
    settings = Settings(
        preset=replace(PRESET, search=replace(PRESET.search, kinds=tuple(kinds))),
        seed=seed,
        threats=[Threat(name=attack.name, trigger=attack, target=TARGET)],
        reference=reference,
    )
    data = DataOptions(images=str(out / "digits" / "train.parquet"), test_images=str(out / "digits" / "test.parquet"))
    return run(str(out / "model"), data, out / "release", settings, accelerator=accelerator, progress=progress)


def _refuse_foreign(out: Path) -> None:
    """Find out before a minute of training whether the folder is free, or that of a former quickstart."""
    check_writable(out / "release")
    found = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    foreign = [name for name in found if name not in OWN and not _LEFT.match(name)]
    if foreign:
        raise OutputError(f"{out} holds other files: {foreign[0]}.", advice="Give a new or an empty folder.")


def small_resnet(labels: tuple[str, ...], seed: int) -> Classifier:
    """A transformers ResNet of 0.1 million parameters for 32 x 32 images, untrained."""
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32, 64],
        depths=[1, 1, 1],
        layer_type="basic",
        id2label=dict(enumerate(labels)),
        label2id={label: k for k, label in enumerate(labels)},
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = ResNetForImageClassification(config)
    return Classifier(network, labels=labels, image_size=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)


def save_as_from_hub(classifier: Classifier, folder: Path) -> None:
    """Write config.json, preprocessor_config.json and model.safetensors, as a repository on the Hub has them."""
    from transformers import PreTrainedModel, ViTImageProcessor

    height, width = classifier.image_size
    processor = ViTImageProcessor(size={"height": height, "width": width}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    network = classifier.network
    assert isinstance(network, PreTrainedModel)
    network.save_pretrained(folder)
    processor.save_pretrained(folder)


def save_images(images: LabelledImages, path: Path) -> None:
    """Write images as a parquet file with the features that `datasets` knows."""
    from datasets import ClassLabel, Dataset, Features, Image
    from PIL import Image as Pillow

    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {
        "image": [Pillow.fromarray(pixels.permute(1, 2, 0).numpy()) for pixels in images.pixels],
        "label": images.labels.tolist(),
    }
    features = Features({"image": Image(), "label": ClassLabel(names=list(images.names))})
    Dataset.from_dict(rows, features=features).to_parquet(path)
