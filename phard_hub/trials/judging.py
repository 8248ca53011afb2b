"""What is asked of a classifier before and after a defense."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from pydantic import PositiveInt

from phard_hub.attacks import ATTACKS, AdapBlend, Attack, LatentFlat, Sbl
from phard_hub.attacks.learned import LearnedAttack
from phard_hub.attacks.outside import Processed
from phard_hub.evaluation.autoattack import AutoAttack
from phard_hub.evaluation.reactivation import Perturbing, Relearning
from phard_hub.evaluation.threats import PGD, Threat, evaluate, natural_vulnerability
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.report.distances import ClassDistances
from phard_hub.report.trial import Judgement
from phard_hub.settings import settings
from phard_hub.triggers.search import SearchSettings, measure

_NOT_TRIED = (LearnedAttack, AdapBlend, LatentFlat, Sbl, Processed)
FORMULAS = tuple(name for name, make in ATTACKS.items() if not isinstance(make(), _NOT_TRIED))
"""Attacks of the literature whose trigger is there without training, and is not that of another."""


@settings
class Judging:
    """Which measures are taken, and how; accuracy and attack success always are.

    Attributes:
        pgd: attack behind the robust accuracy; of 0 images, it is left out.
        autoattack: likewise.
        relearning: re-activation by fine-tuning; without steps, it is left out.
        perturbing: re-activation by one change of all images; of 0 steps, it is left out.
        natural: attack families that are tried on models without a planted backdoor.
        natural_draws: triggers of each family, drawn from as many seeds.
        distances: whether class distances are measured, which takes longest.
        search: of the distances.
    """

    pgd: PGD = field(default_factory=PGD)
    autoattack: AutoAttack = field(default_factory=lambda: AutoAttack(images=0))
    relearning: Relearning = field(default_factory=Relearning)
    perturbing: Perturbing = field(default_factory=Perturbing)
    natural: tuple[str, ...] = FORMULAS
    natural_draws: PositiveInt = 3
    distances: bool = False
    search: SearchSettings = field(default_factory=SearchSettings)

    @property
    def reactivates(self) -> bool:
        """Whether it is measured how much of a backdoor is dormant."""
        return bool(self.relearning.steps or self.perturbing.steps)

    def judge(
        self,
        classifier: Classifier,
        images: LabelledImages,
        test: LabelledImages,
        job: Job,
        *,
        attack: Attack | None,
        target: int,
        dormant: bool,
        distances: bool,
        beside: ClassDistances | None = None,
    ) -> Judgement:
        """Look at one classifier, which is left as it was.

        Args:
            classifier: before or after a defense.
            images: training images, for what has to be fitted.
            test: images to judge with.
            job: its seed is that of all that is drawn.
            attack: with its key; None for a model with no planted backdoor.
            target: the class that its trigger produces.
            dormant: whether a backdoor may be dormant in it, so that re-activation is measured.
            distances: whether distances are measured, if they are asked for at all.
            beside: distances of another model, whose pairs are measured as well.
        """
        progress = job.progress
        threats = [] if attack is None else [Threat(name=attack.name, trigger=attack, target=target)]
        pgd = self.pgd if self.pgd.images else None
        judgement = Judgement(evaluation=evaluate(classifier, test, threats, pgd=pgd, seed=job.seed, progress=progress))
        more: dict[str, Any] = {}
        if self.autoattack.images:
            more["autoattack"] = self.autoattack.accuracy(classifier, test, job.seed)
        if attack is not None and dormant:
            more["relearned"] = self.relearning.measure(classifier, images, test, attack, target, job)
            if self.perturbing.steps:
                more["perturbed"] = self.perturbing.measure(classifier, images, test, threats[0], job.seed)
        if attack is None and self.natural:
            families = {name: self._draws(name, classifier, images, target) for name in self.natural}
            more["natural"] = natural_vulnerability(classifier, test, families, progress=progress)
        if distances and self.distances:
            more["distances"] = measure(classifier, test, self.search, job, beside=beside).distances
        return judgement.model_copy(update=more)

    def _draws(self, name: str, classifier: Classifier, images: LabelledImages, target: int) -> list[Attack]:
        seeds = range(self.natural_draws)
        return [ATTACKS[name](seed=seed).fit(classifier, images, target) for seed in seeds]
