"""An immunizer as a model of transformers, so that it takes the place of the model in a pipeline.

immunized = Immunized(Immunizer(open_model("org/model")))
classify = pipeline("image-classification", model=immunized, image_processor=immunized.image_processor)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageClassification, BatchFeature, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

from phard_hub.defenses.immunizer import ABSTAINS, Immunizer
from phard_hub.errors import InputError
from phard_hub.images.decoding import FILTERS, MODES, place
from phard_hub.models.classifier import Classifier

ABSTAINING = "abstains"
"""The label of the answer where votes are not clear."""


class ImmunizedConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """The classes, and the answer that there is none."""

    model_type = "phard_immunized"


class Immunized(PreTrainedModel):  # type: ignore[no-untyped-call]
    """A model whose scores are shares of votes; it keeps its noise to itself, and cannot be saved.

    Where the votes are not clear, all of the score is that of one more label, `ABSTAINING`.

    Args:
        immunizer: what votes.
    """

    config_class = ImmunizedConfig
    main_input_name = "pixel_values"

    def __init__(self, immunizer: Immunizer) -> None:
        names = dict(enumerate([*immunizer.classifier.labels, ABSTAINING]))
        super().__init__(ImmunizedConfig(id2label=names, label2id={name: k for k, name in names.items()}))
        self.immunizer = immunizer
        self.classifier = immunizer.classifier
        self.image_processor: Any = Canvas(immunizer.classifier)

    def forward(self, pixel_values: Tensor) -> ImageClassifierOutput:
        """Logarithms of the scores ``(N, K + 1)`` of pixels ``(N, C, H, W)`` in [0, 1]."""
        counts = self.immunizer.votes(pixel_values, self.immunizer.settings.votes)
        unclear = self.immunizer.decided(counts) == ABSTAINS
        scores = torch.cat([counts / counts.sum(1, keepdim=True), torch.zeros(len(counts), 1)], 1)
        scores[unclear] = torch.eye(scores.shape[1])[-1]
        return ImageClassifierOutput(logits=scores.log().to(pixel_values.device))

    def save_pretrained(self, *_args: Any, **_kwargs: Any) -> None:  # noqa: ANN401 - whatever is given
        """Refuse, because votes are no weights.

        Raises:
            InputError: always.
        """
        raise InputError(
            "An immunizer has no weights of its own to save.", advice="Save the classifier, and immunize what you load."
        )


class Canvas:
    """Images of any size as pixels in [0, 1], of the size that a classifier works at; nothing is normalised here."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier

    def __call__(self, images: Image.Image | list[Image.Image], return_tensors: str = "pt") -> BatchFeature:
        """``pixel_values``, ``(N, C, H, W)``."""
        several = images if isinstance(images, list) else [images]
        return BatchFeature({"pixel_values": torch.stack([self._placed(image) for image in several])}, return_tensors)

    def _placed(self, image: Image.Image) -> Tensor:
        resize, channels = self.classifier.resize, self.classifier.channels
        filter_, stretch = (FILTERS[resize.resample], resize.stretches) if resize else (FILTERS["bilinear"], True)
        placed = place(image.convert(MODES[channels]), self.classifier.image_size, filter_, stretch=stretch)
        array = np.array(placed, dtype=np.float32).reshape(*self.classifier.image_size, channels)
        return torch.from_numpy(array).permute(2, 0, 1) / 255


AutoModelForImageClassification.register(ImmunizedConfig, Immunized)  # so that pipelines know it
