"""AutoAttack: four attacks whose settings are fixed, so that robust accuracies can be compared."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from pydantic import NonNegativeInt, PositiveInt

from phard_hub.draws import global_generators_kept
from phard_hub.errors import InputError
from phard_hub.hardware import images_at_once
from phard_hub.images import LabelledImages
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
        try:
            import pyautoattack
        except ImportError as error:
            advice = 'Install it: pip install "phard-hub[autoattack]".'
            raise InputError("AutoAttack needs the package pyautoattack.", advice=advice) from error
        random = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(images), generator=random)[: self.images]
        pixels, labels = images.batch(chosen, classifier.device)
        classes = images.num_classes
        with frozen(classifier), _no_trace_left():
            if classes < _TARGETED_DLR_NEEDS:
                attacks = ["apgd-ce", "fab-t", "square"]
                attack = pyautoattack.AutoAttack(
                    classifier,
                    eps=self.epsilon,
                    seed=seed,
                    device=classifier.device,
                    version="custom",
                    attacks=attacks,
                )
                attack.apgd.n_restarts = attack.fab.n_restarts = 1
            else:
                attack = pyautoattack.AutoAttack(classifier, eps=self.epsilon, seed=seed, device=classifier.device)
            attack.square.n_queries = self.queries
            attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = min(9, classes - 1)
            at_once = images_at_once(images.pixels.shape[1:])
            moved, _ = attack.run_standard_evaluation(pixels, labels, batch_size=at_once)
            right = predictions(classifier, moved.split(at_once)) == labels.cpu()
        return rate(int(right.sum()), len(right))


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
