"""Class distance: the smallest pervasive change that turns one class into another, for all pairs at once."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

import torch
from accelerate.utils import gather_object
from torch import Tensor

from phard_hub.errors import InputError, NotEvaluatedError
from phard_hub.images import LabelledImages
from phard_hub.job import Job, shared
from phard_hub.models.classifier import Classifier, class_number, frozen
from phard_hub.models.folded import folded
from phard_hub.report.base import plain
from phard_hub.report.distances import ClassDistances
from phard_hub.triggers.autoencoder import train_autoencoder
from phard_hub.triggers.bank import Bank, Parts, Trigger, Triggers
from phard_hub.triggers.fitting import Cost, Fitting, Task
from phard_hub.triggers.intervals import distances_of, entries
from phard_hub.triggers.judging import Judged, judge
from phard_hub.triggers.pool import Directions, Pools, all_pairs, three_sets
from phard_hub.triggers.settings import CHEAPEST as CHEAPEST
from phard_hub.triggers.settings import DEFAULT as DEFAULT
from phard_hub.triggers.settings import SearchSettings as SearchSettings
from phard_hub.triggers.unets import UNets

_EASE_IMAGES, _EASE_IMAGES_IN_ALL = 20, 4000
_MAIN = "triggers"


@dataclass(frozen=True)
class Measurement:
    """Class distances, and the triggers that realise them.

    ``bank`` holds one trigger for each entry of ``distances.pairs`` followed by ``distances.universal``, at
    the strength that gave the distance; one that was never accepted is the closest that was seen.
    """

    distances: ClassDistances
    bank: Bank

    def trigger(self, source: str | int | None, target: str | int) -> Trigger:
        """The trigger that was found for a pair of classes, by their names or numbers.

        Args:
            source: the class whose images it turns; None for the universal trigger, which turns those of all others.
            target: the class that they are taken for.

        Raises:
            InputError: there is no such class, or the pair was not measured.
            NotEvaluatedError: the search found no trigger that works.
        """
        labels, found = self.distances.labels, (*self.distances.pairs, *self.distances.universal)
        numbers = None if source is None else class_number(source, labels), class_number(target, labels)
        rows = [row for row, pair in enumerate(found) if (pair.source, pair.target) == numbers]
        if not rows:
            raise InputError(f"{source} -> {target} was not measured.", advice="Look at distances.pairs for what was.")
        if not found[rows[0]].reached:
            advice = "Search for longer: SearchSettings(steps=...)."
            raise NotEvaluatedError(f"The search did not reach {source} -> {target}.", advice=advice)
        return self.bank.trigger(rows[0])


def measure(
    classifier: Classifier,
    images: LabelledImages,
    settings: SearchSettings = DEFAULT,
    job: Job | None = None,
    *,
    beside: ClassDistances | None = None,
) -> Measurement:
    """Find the class distances of a classifier, which is left exactly as it was.

    The distance of a pair is the smallest mean L2 norm (pixels in [0, 1]) of a trigger that sends at least
    ``settings.success`` of the images of the source class to the target class, on images that it was neither fitted
    nor chosen on. Universal triggers (all other classes to one target) are searched in the same batch, and others
    that may use a single kind of change. The processes of the job divide the triggers among themselves.

    Args:
        classifier: on the device of the job.
        images: at most `SearchSettings` says how many of each class are used, and for what.
        settings: how hard the search tries.
        job: processes, seed and progress.
        beside: another measurement, whose pairs are measured as well, so that the two can be compared.

    Raises:
        ImagesError: a class has fewer than four images.
    """
    with frozen(classifier):
        return _Search(classifier, images, settings, job or Job(), beside).run()


class _Search:
    """One search; its attributes are its state."""

    def __init__(
        self,
        classifier: Classifier,
        images: LabelledImages,
        settings: SearchSettings,
        job: Job,
        beside: ClassDistances | None,
    ) -> None:
        self.classifier, self.images, self.settings, self.job = classifier, images, settings, job
        self.device = job.accelerator.device
        wanted = settings.fit_images, settings.choosing_images, settings.judging_images
        self.pools: Pools = three_sets(images, *wanted, job.seed)
        self.shape = images.shape
        self.cost = Cost()
        self.quick = folded(classifier, self.pools.fit.read(torch.arange(2), self.device))
        self.pairs, self.targets, self.single = self._chosen(beside)

    def run(self) -> Measurement:
        started = time.perf_counter()
        tasks = self._tasks()
        judged = [self._do(task, what) for what, task in tasks.items()]
        main = tasks[_MAIN].best
        assert isinstance(main, Bank)
        record = distances_of(
            [entry for task, each in zip(tasks.values(), judged, strict=True) for entry in entries(task, each)],
            self.settings.success,
            self.shape,
            self.job.seed,
        )
        costs = gather_object([(self.cost.gradients, self.cost.forwards)])
        gradients, forwards = (sum(each) for each in zip(*costs, strict=True))
        distances = ClassDistances(
            labels=self.images.names,
            chosen=self.images.chosen,
            success_bound=self.settings.success,
            image_shape=self.shape,
            settings=plain({**asdict(self.settings), "seed": self.job.seed}),
            sample_gradients=gradients,
            sample_forwards=forwards,
            seconds=time.perf_counter() - started,
            **record,
        )
        return Measurement(distances, main.first(len(distances.pairs) + len(distances.universal)))

    def _do(self, task: Task, what: str) -> list[Judged]:
        """Fit and judge the triggers of one task, each process its own rows, and bring them together."""
        fitted = Fitting(self.quick, self.pools, task, self.settings, self.job).run(f"searching {what}")
        mine = []
        for one in judge(self.classifier, self.pools, fitted, self.settings):
            mine.append(one)
            self.job.progress(f"judging {what}", len(mine), len(fitted.rows))
        self.cost.gradients += fitted.cost.gradients
        self.cost.forwards += fitted.cost.forwards
        judged: list[Judged] = sorted(gather_object(mine), key=lambda one: one.row)
        with torch.no_grad():
            for name, parameter in task.best.named_parameters():
                parameter.copy_(torch.stack([one.trigger[name] for one in judged]))
        return judged

    def _tasks(self) -> dict[str, Task]:
        """Pairs, universal triggers and the kinds that the same bank can make; then the other kinds, one by one."""
        parts, universal = self.settings.parts, self._universal()
        together = [kind for kind in self.settings.kinds if kind != "u-net" and parts.can(kind)]
        rows = len(self.pairs) + len(universal)
        directions = Directions.of(self.pairs, [*universal, *self.single * len(together)])
        kinds = [""] * rows + [kind for kind in together for _ in self.single]
        tasks = {_MAIN: Task(directions, kinds, *self._banks(len(kinds), parts))}
        for kind in self.settings.kinds:
            if kind not in together:
                count = len(self.single)
                two = self._unets(count) if kind == "u-net" else self._banks(count, parts.only(kind))
                tasks[f"{kind} triggers"] = Task(Directions.of([], self.single), [kind] * count, *two)
        return tasks

    def _universal(self) -> list[int]:
        """Targets of universal triggers of all parts: none of two classes, about which pairs say it all."""
        return self.targets if len(self.images.classes) > 2 else []

    def _banks(self, count: int, parts: Parts) -> tuple[Triggers, Triggers]:
        autoencoder = None
        if parts.latent:
            images, seed = self.pools.fit.images, self.job.seed
            autoencoder = train_autoencoder(images, seed=seed, device=self.device, progress=self.job.progress)
        current, best = (Bank(count, self.shape, parts, autoencoder=autoencoder).to(self.device) for _ in range(2))
        return current.randomise(self.job.seed), best

    def _unets(self, count: int) -> tuple[Triggers, Triggers]:
        current, best = (UNets(count, self.shape).to(self.device) for _ in range(2))
        return current.randomise(self.job.seed), best

    def _chosen(self, beside: ClassDistances | None) -> tuple[list[tuple[int, int]], list[int], list[int]]:
        """Pairs, targets of universal triggers, and of those of a single kind.

        They are all or, where these are too many, the closest; and those of the other measurement.
        """
        settings, targets = self.settings, list(self.images.classes)
        pairs, nearest = all_pairs(targets), targets
        if len(pairs) > settings.max_pairs or len(targets) > min(settings.max_universal, settings.max_single):
            ease = self._ease()
            pairs = sorted(pairs, key=lambda pair: -float(ease[pair]))[: settings.max_pairs]
            reach = ease.nanmean(0)
            nearest = sorted(targets, key=lambda k: -float(reach[k]))
        targets, single = nearest[: settings.max_universal], nearest[: settings.max_single]
        if beside is not None:
            pairs += [(pair.source, pair.target) for pair in beside.pairs if pair.source is not None]
            targets = targets + [pair.target for pair in beside.universal]
            single = single + [pair.target for found in beside.kinds.values() for pair in found]
        return sorted(set(pairs)), sorted(set(targets)), sorted(set(single))

    @torch.no_grad()
    def _ease(self) -> Tensor:
        """Mean logit margin of each target over each source class ``(K, K)``; NaN where a class is not looked at."""
        ease = torch.full((self.images.num_classes, self.images.num_classes), torch.nan)
        chosen = torch.tensor(self.images.classes)
        images = max(1, min(_EASE_IMAGES, _EASE_IMAGES_IN_ALL // len(chosen)))

        def margins(classes: Tensor) -> list[Tensor]:
            k = int(classes)
            numbers = self.pools.fit.all_of(k, k, images)
            self.cost.forwards += len(numbers)
            logits = self.quick(self.pools.fit.read(numbers, self.device)).float().cpu().mean(0)
            return [(logits - logits[k])[None]]

        ease[chosen[:, None], chosen] = shared(margins, chosen, 1)[0][:, chosen]
        return ease.fill_diagonal_(torch.nan)
