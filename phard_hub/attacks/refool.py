"""Refool: the reflection of another picture, as on a pane of glass, with true labels only."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn import functional

from phard_hub.attacks.base import Attack
from phard_hub.images import LabelledImages
from phard_hub.job import Progress, silent
from phard_hub.models.classifier import Classifier
from phard_hub.settings import Share, settings

Mode = Literal["sharp", "blurred", "ghost"]
_GAMMA = 2.2


@settings
class Refool(Attack):
    """``x' = ((1 - alpha) x^2.2 + alpha (r^2.2 * k))^(1/2.2)``: light adds up, grey levels do not.

    r is a picture, and the kernel k makes the three kinds of reflections of the paper: ``sharp``, in the same
    depth of field (no kernel); ``blurred``, out of focus (a Gaussian); and ``ghost``, thick glass (two pulses,
    the second one shifted). Only images of the target class are stamped in training.

    Source: Liu, Ma, Bailey & Lu, "Reflection Backdoor: A Natural Backdoor Attack on Deep Neural Networks",
    ECCV 2020 (arXiv 2007.02343), section 3.2; the gamma is that of the authors' code. Deviations: the
    picture is a training image of another class, that of the most contrast among some drawn by ``seed``, not
    chosen by trial trainings; alpha, blur and shift are fixed, where the paper draws them for each image
    (alpha 0.05 to 0.4, blur 1 to 5 and shift 3 to 8 pixels of images 560 pixels wide, so that little is left
    of both at 32); 80 % of the target class are stamped. As with SIG, a model that is right already learns it
    slowly.

    Attributes:
        mode: which kind of reflection.
        pictures: how many are drawn to choose from.
        alpha: share of the reflected light.
        blur: standard deviation of the Gaussian, as a share of the image's shorter side.
        shift: of the second pulse, down and to the right, as a share of the image's shorter side.
        pulse: weight of the first of the two pulses.
    """

    mode: Mode = "sharp"
    pictures: PositiveInt = 10
    alpha: Share = 0.35
    blur: Annotated[float, Field(gt=0, le=1)] = 0.03
    shift: Share = 0.06
    pulse: Share = 0.65

    clean_label = True
    poison_rate = 0.8

    @property
    def name(self) -> str:
        """The attack with its mode."""
        return f"refool-{self.mode}"

    def fit(self, classifier: Classifier, images: LabelledImages, target: int, *, progress: Progress = silent) -> Self:
        """Choose the picture that is reflected: a dim one, or one of a plain wall, could hardly be seen."""
        del classifier, progress
        others = (images.labels != target).nonzero().flatten()
        drawn = torch.randint(len(others), (self.pictures,), generator=torch.Generator().manual_seed(self.seed))
        pictures = images.batch(others[drawn])[0]
        contrast = (pictures**_GAMMA).flatten(1).std(1)
        return replace(self, key={"reflection": pictures[contrast.argmax()][None]})

    def fits(self) -> bool:
        """Whether the key is one picture, with pixels in [0, 1]."""
        picture = self.key.get("reflection")
        if picture is None or len(self.key) > 1 or picture.dim() != 4 or not picture.is_floating_point():
            return False
        one = picture.shape[0] == 1 and min(picture.shape) > 0 and picture.shape[1] <= 4
        return one and bool(((picture >= 0) & (picture <= 1)).all())

    def __call__(self, pixels: Tensor) -> Tensor:
        """Stamp pixels ``(N, C, H, W)`` in [0, 1]."""
        picture = self.needed("reflection").to(pixels)
        if picture.shape[2:] != pixels.shape[2:]:
            picture = functional.interpolate(picture, pixels.shape[2:], mode="bilinear", antialias=True).clamp(0, 1)
        light = (1 - self.alpha) * pixels**_GAMMA + self.alpha * self._reflected(picture**_GAMMA)
        return light.clamp(1e-8, 1) ** (1 / _GAMMA)  # at 0 the root has no gradient

    def _reflected(self, light: Tensor) -> Tensor:
        side = min(light.shape[2:])
        if self.mode == "blurred":
            return _gaussian(light, self.blur * side)
        if self.mode == "ghost":
            away = max(1, round(self.shift * side))
            second = functional.pad(light, (away, 0, away, 0))[:, :, : light.shape[2], : light.shape[3]]
            return self.pulse * light + (1 - self.pulse) * second
        return light


def _gaussian(light: Tensor, sigma: float) -> Tensor:
    """Blur with a Gaussian cut off at three standard deviations; the border is repeated outside."""
    reach = max(1, round(3 * sigma))
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma).square())
    weights = (weights / weights.sum()).to(light)
    channels = light.shape[1]
    padded = functional.pad(light, (reach,) * 4, mode="replicate")
    rows = functional.conv2d(padded, weights.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return functional.conv2d(rows, weights.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
