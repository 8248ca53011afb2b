"""AutoAttack: four attacks whose settings are fixed, so that robust accuracies can be compared.

It takes hours of a processor, so the processes of a job divide the images among themselves.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from phard_hub.draws import global_generators_kept
from phard_hub.errors import InputError
from phard_hub.images import LabelledImages
from phard_hub.job import seed_of_piece, shared
from phard_hub.models.classifier import Classifier, frozen
from phard_hub.models.predictions import predictions
from phard_hub.report.distances import Rate
from phard_hub.report.statistics import rate
from phard_hub.settings import Share, settings

_TARGETED_DLR_NEEDS = 4
"""Classes that the targeted loss of APGD is defined for."""


@settings
class AutoAttack:
    """The standard version of AutoAttack in the L-infinity ball, by the code of its authors (`pyautoattack`).

    Source: Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks", ICML 2020: APGD on the cross-entropy, targeted APGD on the DLR loss, targeted FAB,
    and Square. Deviation: with fewer than ten classes all other classes are targets, not nine, and with fewer
    than four the DLR loss is not defined and its attack is left out.

    Attributes:
        epsilon: radius, pixels in [0, 1].
        images: at most so many images are attacked; it takes some ten thousand passes for each.
        queries: of Square.
    """

    epsilon: Share = 8 / 255
    images: NonNegativeInt = 200
    queries: PositiveInt = 5000

    def __str__(self) -> str:
        """Name in tables."""
        return f"AutoAttack, Linf {255 * self.epsilon:g}/255"

    def accuracy(self, classifier: Classifier, images: LabelledImages, seed: int = 0) -> Rate:
        """The share of the images that none of the attacks turns; the classifier is left as it was.

        The seed is that of the choice of images and of all attacks.

        Raises:
            InputError: the package `pyautoattack` is not installed.
        """
        random = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(images), generator=random)[: self.images]

        def withstood(numbers: Tensor) -> list[Tensor]:
            pixels, labels = images.batch(numbers, classifier.device)
            attack = self._prepared(classifier, images.num_classes, seed_of_piece(seed, numbers) % 2**31)
            moved, _ = attack.run_standard_evaluation(pixels, labels, batch_size=len(pixels))
            return [predictions(classifier, [moved]) == labels.cpu()]

        with frozen(classifier), _no_trace_left():
            (right,) = shared(withstood, chosen, images.at_once)
        return rate(int(right.sum()), len(right))

    def _prepared(self, classifier: Classifier, classes: int, seed: int) -> Any:  # noqa: ANN401 - it has no annotations
        """The package's attack with these settings."""
        try:
            import pyautoattack
        except ImportError as error:
            advice = 'Install it: pip install "phard-hub[autoattack]".'
            raise InputError("AutoAttack needs the package pyautoattack.", advice=advice) from error
        few = classes < _TARGETED_DLR_NEEDS
        which = {"version": "custom", "attacks": ["apgd-ce", "fab-t", "square"]} if few else {}
        device = classifier.device
        attack = pyautoattack.AutoAttack(classifier, eps=self.epsilon, seed=seed, device=device, **which)
        if few:
            attack.apgd.n_restarts = attack.fab.n_restarts = 1
        attack.square.n_queries = self.queries
        attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = min(9, classes - 1)
        return attack


@contextmanager
def _no_trace_left() -> Iterator[None]:
    """The package seeds the global generators, ends whatever traces the process, and warns through logging."""
    tracer, logger = sys.gettrace(), logging.getLogger("auto-attack")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with global_generators_kept():
            yield
    finally:
        sys.settrace(tracer)
        logger.setLevel(level)
