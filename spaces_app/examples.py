"""What the page ships: three classifiers of digits, the triggers that were found, reports and images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from phard_hub import Classifier, LabelledImages, Measurement, Report, demo_images, open_model
from phard_hub.attacks import WaNet
from phard_hub.report import ClassDistances
from phard_hub.triggers import Autoencoder, Bank, Parts

FOLDER = Path(__file__).parent / "examples" / "digits"
MODELS = ("honest", "backdoored", "hardened")
MODEL_FILES = ("config.json", "preprocessor_config.json", "model.safetensors")
REPORTS = {"backdoored": "backdoored-and-hardened.json", "honest": "honest.json"}
AUTOENCODER = "autoencoder.safetensors"
STYLED_DISTANCES = "styled.json"
PLANTED = WaNet(grid=8, strength=1.0, noise_mode=False, seed=0)
"""The backdoor that the quickstart plants; it produces class `TARGET`."""
TARGET = 0
IMAGES_PER_CLASS = 5


@dataclass(frozen=True)
class Example:
    """Everything that the page shows without a visitor's help.

    Attributes:
        models: by the names of `MODELS`.
        found: the class distances and triggers of the backdoored and of the hardened model, and as ``styled`` those of
            the backdoored one with all parts of a trigger.
        reports: by the names of `REPORTS`.
        images: a few of each class that no model was trained on.
    """

    models: Mapping[str, Classifier]
    found: Mapping[str, Measurement]
    reports: Mapping[str, Report]
    images: LabelledImages

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names."""
        return self.images.names

    def image(self, source: int, number: int = 0) -> Tensor:
        """One image of a class as pixels ``(1, 3, H, W)`` in [0, 1]; the numbers go round."""
        of_class = self.images.of_class(source)
        pixels, _ = of_class.batch([number % len(of_class)])
        return pixels


@cache
def example() -> Example:
    """The shipped example; the models are audited and loaded like any other."""
    reports = {name: Report.read(FOLDER / file) for name, file in REPORTS.items()}
    report = reports["backdoored"]
    assert report.after is not None
    styled = ClassDistances.from_json((FOLDER / STYLED_DISTANCES).read_bytes())
    distances = {"backdoored": report.before.distances, "hardened": report.after.distances, "styled": styled}
    return Example(
        models={name: open_model(str(FOLDER / name)).eval().requires_grad_(False) for name in MODELS},
        found={name: Measurement(found, _bank(name, found)) for name, found in distances.items()},
        reports=reports,
        images=demo_images()[1].sample(IMAGES_PER_CLASS),
    )


def triggers_of(name: str, folder: Path = FOLDER) -> Path:
    """The file with the triggers that were found on a model."""
    return folder / f"triggers-{name}.safetensors"


def planted(strength: float) -> WaNet:
    """The planted backdoor, bent more or less than it was trained in."""
    return replace(PLANTED, strength=PLANTED.strength * strength)


def _bank(name: str, distances: ClassDistances) -> Bank:
    parts, autoencoder = Parts(**distances.settings["parts"]), None
    if parts.latent:
        autoencoder = Autoencoder(distances.image_shape[0])
        autoencoder.load_state_dict(load_file(FOLDER / AUTOENCODER))
        autoencoder.eval().requires_grad_(False)
    bank = Bank(len(distances.pairs) + len(distances.universal), distances.image_shape, parts, autoencoder=autoencoder)
    bank.load_state_dict(load_file(triggers_of(name)))
    return bank.requires_grad_(False)
