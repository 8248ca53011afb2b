"""A checkpoint's image processor as differentiable tensor code.

What it does is worked out from its fields and its behaviour, rebuilt, and then compared with the real one on
two images: a processor that is not understood is refused, never approximated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from phard_hub.errors import CheckpointError, first_line
from phard_hub.models.classifier import Classifier, Resample, Resize

TOLERANCE = 1.5
"""How far, in grey levels of 255, the rebuilt processor may be from the real one at any pixel.

The real one rounds to whole grey levels after resizing rows and again after columns; ours, being
differentiable, does not round. Images that need no resizing agree to float precision.
"""

_LARGEST_EDGE = 2048
_RESAMPLES: dict[int, Resample] = {0: "nearest-exact", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_Size = tuple[int, int]


class ImageProcessor(Protocol):
    """What is used of an image processor of transformers: one image in, normalised pixels out."""

    def __call__(self, *, images: Image.Image, return_tensors: str) -> Mapping[str, Tensor]:
        """Resize, crop and normalise one image to ``(1, C, h, w)``."""
        ...


@dataclass(frozen=True)
class _Geometry:
    """One reading of a processor's size fields."""

    canvas: _Size
    resize: Resize | None
    crop: _Size | None
    round_margin: bool = False


def rebuild(network: nn.Module, processor: ImageProcessor, *, labels: tuple[str, ...], channels: int) -> Classifier:
    """Put an image processor of transformers, or timm's transform, inside a classifier, as differentiable code.

    Its fields leave a few readings of the geometry, for classes use the same field differently; the
    first that the real processor agrees with is taken.

    Raises:
        CheckpointError: no reading agrees within `TOLERANCE`.
    """
    name = type(processor).__name__
    worst = np.inf
    with _processor_errors(name):
        for geometry in _geometries(processor, network):
            _require_reasonable(name, geometry.canvas)
            color = _Color.measured(processor, geometry.canvas, channels)
            classifier = Classifier(
                network,
                labels=labels,
                image_size=geometry.canvas,
                mean=color.mean,
                std=color.std,
                resize=geometry.resize,
                crop=geometry.crop,
                round_margin=geometry.round_margin,
                reverse_channels=color.reverse_channels,
            )
            difference = processor_difference(classifier, processor)
            if difference <= TOLERANCE:
                return classifier
            worst = min(worst, difference)
    found = "gives other shapes" if worst == np.inf else f"differs by {worst:.3g} grey levels (limit {TOLERANCE:g})"
    raise CheckpointError(
        f"The image processor {name} cannot be rebuilt: it {found}.",
        advice="Wrap the network yourself: Classifier(network, labels=..., image_size=..., mean=..., std=...).",
    )


def _require_reasonable(name: str, canvas: _Size) -> None:
    """Refuse a size before an image of it is made: a processor may name any."""
    if max(canvas) > _LARGEST_EDGE:
        raise CheckpointError(
            f"The image processor {name} asks for images of {canvas[0]} x {canvas[1]}.",
            advice=f"Choose a model for images of at most {_LARGEST_EDGE} pixels a side.",
        )


def processor_difference(classifier: Classifier, processor: ImageProcessor) -> float:
    """The largest difference between a classifier's and a processor's pixels, in grey levels of 255.

    Two images are compared, a large wide one and a small tall one; infinity if the shapes differ.
    """
    height, width = classifier.image_size
    sizes = ((height + height // 3 + 1, 2 * width + 5), (height - height // 5, max(width // 2, 8) + 1))
    return max(_difference(classifier, processor, _probe(size, classifier.channels)) for size in sizes)


def _difference(classifier: Classifier, processor: ImageProcessor, image: Image.Image) -> float:
    real = processor(images=image, return_tensors="pt")["pixel_values"].float()
    pixels = torch.from_numpy(np.array(image).reshape(image.height, image.width, -1)).permute(2, 0, 1)
    with torch.no_grad():
        ours = classifier.preprocess(pixels[None].float() / 255)
    if ours.shape != real.shape:
        return float("inf")
    return float(((ours - real) * classifier.std).abs().max()) * 255


def _probe(size: _Size, channels: int) -> Image.Image:
    """A smooth colour gradient with noise on top: neither a shift nor a wrong filter goes unseen."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    smooth = np.stack([rows / size[0], columns / size[1], 1 - rows / size[0]], axis=-1)
    noise = np.random.default_rng(0).uniform(-0.15, 0.15, smooth.shape)
    array = np.rint(np.clip(smooth + noise, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(array if channels == 3 else array[..., 0])


@dataclass(frozen=True)
class _Color:
    """What a processor does to colours: ``(pixels - mean) / std``, perhaps blue first."""

    mean: list[float]
    std: list[float]
    reverse_channels: bool

    @classmethod
    def measured(cls, processor: ImageProcessor, canvas: _Size, channels: int) -> _Color:
        """Ask the processor itself: it is linear, so black, white and red say everything.

        Reading `rescale_factor`, `rescale_offset`, `image_mean`, `include_top` and so on would mean
        knowing in which order each class applies them.
        """
        mode, size = ("RGB" if channels == 3 else "L"), (canvas[1], canvas[0])
        black = _middle(processor, Image.new(mode, size, 0))
        white = _middle(processor, Image.new(mode, size, "white"))
        red = _middle(processor, Image.new(mode, size, "red"))
        std = 1 / (white - black)
        if not (std.isfinite() & (std != 0)).all():
            raise ValueError("it turns all colours into one")
        reverse = channels == 3 and abs(red[0] - black[0]) < abs(red[2] - black[2])
        return cls((0 - black * std).tolist(), std.tolist(), bool(reverse))


def _middle(processor: ImageProcessor, image: Image.Image) -> Tensor:
    """The value of each channel in the middle of a processed image, in double precision."""
    pixels = processor(images=image, return_tensors="pt")["pixel_values"]
    return pixels[0, :, pixels.shape[2] // 2, pixels.shape[3] // 2].double()


def _geometries(processor: ImageProcessor, network: nn.Module) -> Iterator[_Geometry]:
    """The readings of a processor's size fields, the plain one first."""
    if hasattr(processor, "data_config"):
        yield from _timm_geometries(processor.data_config)
        return
    crop = _pair(getattr(processor, "crop_size", None)) if getattr(processor, "do_center_crop", False) else None
    if not getattr(processor, "do_resize", True):
        canvas = crop or _pair(getattr(processor, "size", None)) or _config_size(network)
        yield _Geometry(canvas, None, crop)
        return
    resample = _resample(processor)
    size, edge = _pair(getattr(processor, "size", None)), _edge(getattr(processor, "size", None))
    share = getattr(processor, "crop_pct", None)
    if size:
        yield _Geometry(size, Resize(size=size, resample=resample), crop)
        edge = size[0]
    elif edge:
        yield _Geometry((edge, edge), Resize(size=edge, resample=resample), crop)
        yield _Geometry((edge, edge), Resize(size=(edge, edge), resample=resample), crop)
    if edge:
        for larger in dict.fromkeys((int(edge / share) if share else edge, int(256 / 224 * edge))):
            yield _Geometry((larger, larger), Resize(size=larger, resample=resample), crop or (edge, edge))


def _timm_geometries(config: Mapping[str, Any]) -> Iterator[_Geometry]:
    """The readings of the fields that timm uses: keep the aspect, or squash."""
    height, width = (int(edge) for edge in config["input_size"][1:])
    larger = int(height / config["crop_pct"]), int(width / config["crop_pct"])
    for canvas, size in ((larger, larger[0]), (larger, larger)):
        yield _Geometry(canvas, Resize(size=size, resample=config["interpolation"]), (height, width), round_margin=True)


def _resample(processor: ImageProcessor) -> Resample:
    number = getattr(processor, "resample", 2)
    try:
        return _RESAMPLES[int(2 if number is None else number)]
    except KeyError:
        raise CheckpointError(
            f"The image processor {type(processor).__name__} uses filter {number}, which has no differentiable twin.",
            advice="Set resample to 2 (bilinear) or 3 (bicubic) in preprocessor_config.json.",
        ) from None


def _pair(size: Any) -> _Size | None:  # noqa: ANN401 - a number, a dict or transformers' SizeDict
    """(height, width) of a size field; None if it says something else."""
    if isinstance(size, int):
        return size, size
    if size is None or not size.get("height") or not size.get("width"):
        return None
    return int(size["height"]), int(size["width"])


def _edge(size: Any) -> int | None:  # noqa: ANN401
    """The length of the shorter edge that a size field asks for; None if it says something else."""
    edge = None if size is None or isinstance(size, int) else size.get("shortest_edge")
    return int(edge) if edge else None


def _config_size(network: nn.Module) -> _Size:
    size = getattr(network.config, "image_size", None)
    if isinstance(size, int):
        return size, size
    if isinstance(size, list | tuple) and len(size) == 2:
        return int(size[0]), int(size[1])
    raise CheckpointError("Neither the image processor nor the config gives an image size.", advice="Add a size to it.")


@contextmanager
def _processor_errors(name: str) -> Iterator[None]:
    try:
        yield
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # it computes with fields of which anything may be wrong
        raise CheckpointError(
            f"The image processor {name} cannot be used: {first_line(error)}.",
            advice="Compare its settings with those of the model it was made from.",
        ) from error
