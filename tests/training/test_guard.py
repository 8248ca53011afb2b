"""The accuracy guard: when it goes back, when it asks less, and how far the result may go."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from phard_hub.images import LabelledImages
from phard_hub.models.classifier import Classifier
from phard_hub.training.batches import Batch
from phard_hub.training.guard import Guard, Loss
from phard_hub.training.interpolation import part_of_the_way
from phard_hub.training.loop import Course, _Run
from tests.plain import GUARDED, Plain, digits
from tests.small import PowerCutError, as_classifier, cut_at, job, same_weights, trained, trained_digits


def test_the_guard_goes_back_when_the_accuracy_collapses() -> None:
    train_images, test = digits()
    classifier = trained_digits()
    objective = Plain(wrong=True)
    course = trained(classifier, train_images, lambda *_: objective, GUARDED, validation=test)
    assert course.events
    assert objective.backed_off >= 1
    assert any("halved" in event for event in course.events)
    start, end = (accuracy(which, test) for which in (classifier, course.classifier))
    assert 100 * (start - end) <= GUARDED.max_accuracy_loss + 1e-6
    # Without the guard the same objective does its harm.
    unguarded = trained(classifier, train_images, lambda *_: Plain(wrong=True), GUARDED)
    assert unguarded.events == []
    assert accuracy(unguarded.classifier, test) < 0.5


def test_the_guard_halves_the_learning_rate() -> None:
    train_images, test = digits()
    course = trained(trained_digits(), train_images, lambda *_: Plain(wrong=True), GUARDED, validation=test)
    calm = trained(trained_digits(), train_images, lambda *_: Plain(), GUARDED, validation=test)
    halvings = sum("halved" in event for event in course.events)
    assert halvings >= 1
    assert course.curve[-1].learning_rate == pytest.approx(calm.curve[-1].learning_rate / 2**halvings, rel=1e-6)


def test_the_guard_asks_less_when_the_accuracy_falls_and_goes_on_from_there() -> None:
    train_images, test = digits()
    patient = replace(GUARDED, steps=30, collapse=100.0)
    objective = Plain(wrong=True)
    course = trained(trained_digits(), train_images, lambda *_: objective, patient, validation=test)
    calm = trained(trained_digits(), train_images, lambda *_: Plain(), patient, validation=test)
    *during, last = course.events
    assert during
    assert all(event.endswith("asked less") for event in during)
    assert len(during) == objective.backed_off
    assert "of the way" in last
    # The accuracy goes on falling, and the learning rate stays what it would have been.
    seen = [point.validation_accuracy or 0 for point in course.curve]
    assert seen == sorted(seen, reverse=True)
    assert [point.learning_rate for point in course.curve] == [point.learning_rate for point in calm.curve]


def test_the_result_goes_part_of_the_way(tmp_path: Path) -> None:
    """Also where the run is over and is asked for once more."""
    train_images, _ = digits()
    schedule = replace(GUARDED, steps=20)
    start = trained_digits()

    def gone(way: float, checkpoint: Path | None = None) -> Classifier:
        part = replace(schedule, interpolation=way)
        run = trained(start, train_images, lambda *_: Plain(wrong=True), part, folder=checkpoint)
        return run.classifier

    whole, part = gone(1.0), gone(0.75, tmp_path / "run")
    assert not same_weights(whole, part)
    assert same_weights(gone(0.75, tmp_path / "run"), part)
    for here, there, between in zip(*(each.parameters() for each in (start, whole, part)), strict=True):
        torch.testing.assert_close(between, torch.lerp(here, there, 0.75))


class Mirrored(Plain):
    """Before the first step, every weight gets the other sign: after two linear layers, that is the same model."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        if batch.step == 0:
            with torch.no_grad():
                for weight in model.parameters():
                    weight.neg_()
        return super().loss(model, batch)


def test_no_result_lies_in_a_barrier() -> None:
    train_images, _ = digits()
    untrained = nn.Sequential(nn.Flatten(), nn.Linear(64, 8, bias=False), nn.Linear(8, 3, bias=False))
    start = trained(as_classifier(untrained, 3, (1, 8, 8)), train_images, lambda *_: Plain(), GUARDED).classifier
    assert accuracy(start, train_images) > 0.9

    def moved(objective: Plain, way: float) -> Course:
        still = replace(GUARDED, steps=2, learning_rate=0.0, interpolation=way)
        return trained(start, train_images, lambda *_: objective, still)

    end = moved(Mirrored(), 1.0)
    assert accuracy(end.classifier, train_images) == accuracy(start, train_images)
    assert accuracy(part_of_the_way(start, end.classifier, 0.5), train_images) < 0.5  # all weights are zero there
    result = moved(Mirrored(), 0.5)
    assert accuracy(result.classifier, train_images) == accuracy(start, train_images)
    said = "step 2: at 50 % of the way the accuracy is lower than at both ends: the result is at its end"
    assert (end.events, result.events) == ([], [said])
    # Without a barrier the result is where it was asked for.
    assert moved(Plain(), 0.5).events == []


def test_the_guard_looks_at_what_the_result_would_be() -> None:
    """On the way, too: what the end of the way would lose is not held against a result that does not go there."""
    train_images, test = digits()
    objectives = []
    for way in (1.0, 0.1):
        objectives.append(objective := Plain(wrong=True))
        patient = replace(GUARDED, steps=30, collapse=100.0, interpolation=way)
        trained(trained_digits(), train_images, lambda *_: objective, patient, validation=test)
    assert objectives[0].backed_off > objectives[1].backed_off == 0


def test_the_guard_is_silent_where_nothing_can_be_asked_less() -> None:
    class Fixed(Plain):
        def back_off(self) -> str:
            return ""

    train_images, test = digits()
    for schedule, said in (
        (replace(GUARDED, collapse=100.0), "to the final ones"),
        (GUARDED, "halved the learning rate"),
    ):
        course = trained(trained_digits(), train_images, lambda *_: Fixed(wrong=True), schedule, validation=test)
        assert {event.endswith(said) for event in course.events} == {True}


def test_what_the_guard_did_survives_a_kill(tmp_path: Path) -> None:
    train_images, test = digits()
    schedule = replace(GUARDED, save_every=8)

    def run(checkpoint: Path | None, progress: Callable[[str, int, int], None] = lambda *_: None) -> Course:
        return trained(
            trained_digits(),
            train_images,
            lambda *_: Plain(wrong=True),
            schedule,
            validation=test,
            folder=checkpoint,
            progress=progress,
        )

    whole = run(None)
    assert any("halved" in event and int(event.split(":")[0].split()[1]) <= 16 for event in whole.events)
    with pytest.raises(PowerCutError):
        run(tmp_path / "run", cut_at(18))
    resumed = run(tmp_path / "run")
    assert same_weights(resumed.classifier, whole.classifier)
    assert resumed.events == whole.events
    assert resumed.curve == whole.curve


def test_at_the_last_step_the_guard_goes_part_of_the_way_back() -> None:
    train_images, test = digits()
    classifier, schedule = trained_digits(), replace(GUARDED, steps=8, guard_every=100)
    bad, final = (
        trained(classifier, train_images, lambda *_: Plain(wrong=True), schedule, validation=looked)
        for looked in (test, None)
    )
    assert accuracy(final.classifier, test) < 0.9
    (event,) = bad.events
    assert event.startswith("step 8:")
    assert 100 * (accuracy(classifier, test) - accuracy(bad.classifier, test)) <= schedule.max_accuracy_loss + 1e-6
    # The result lies on the line from the start to where the training ended, at one place for all weights.
    every = zip(classifier.parameters(), bad.classifier.parameters(), final.classifier.parameters(), strict=True)
    moved = [((result - start).norm() / (end - start).norm()).item() for start, result, end in every]
    assert moved == pytest.approx([moved[0]] * len(moved), abs=1e-3)
    assert 0 <= moved[0] < 1
    assert f"{100 * moved[0]:.0f} % of the way" in event


def test_the_guard_leaves_a_good_training_alone() -> None:
    train_images, test = digits()
    objective = Plain()
    course = trained(trained_digits(), train_images, lambda *_: objective, GUARDED, validation=test)
    assert course.events == []
    assert objective.backed_off == 0


def accuracy(classifier: Classifier, images: LabelledImages) -> float:
    pixels, labels = images.batch(range(len(images)))
    with torch.no_grad():
        return float((classifier.eval()(pixels).argmax(1) == labels).float().mean())


def test_on_the_way_a_loss_that_may_be_chance_is_let_pass() -> None:
    train_images, test = digits()
    few = test.take(torch.arange(20))
    objective = Plain()
    right = torch.ones(20)
    guard = Guard(few, right, torch.device("cpu"))
    run = _Run(trained_digits(), train_images, lambda *_: objective, GUARDED, job(), guard)

    def lost(wrong: int) -> Loss:
        return guard._loss((torch.arange(20) >= wrong).float())

    assert lost(0)[:2] == (0, 0)
    assert lost(1)[:2] == pytest.approx((5, 100 * (0.05 * 0.95 / 20) ** 0.5), abs=1e-4)
    run.step = GUARDED.steps - 2  # where next to nothing is allowed for the learning rate
    run._react(guard, run.averaged, lost(1))
    assert objective.backed_off == 0
    run._react(guard, run.averaged, lost(3))
    assert objective.backed_off == 1
    # And what the start had lost is not held against this run.
    run._react(replace(guard, lost_before=10.0), run.averaged, lost(3))
    assert objective.backed_off == 1


@pytest.mark.parametrize(("wrong", "n"), [(0, 250), (5, 250), (0, 5000), (40, 5000)])
def test_few_images_show_little(wrong: int, n: int) -> None:
    """What may have been lost is more than what was seen, and more so with few images."""
    _, test = digits()
    images = test.take(torch.arange(n) % len(test))
    right = torch.ones(n)
    guard = Guard(images, right, torch.device("cpu"))
    lost = guard._loss((torch.arange(n) >= wrong).float())
    assert lost.points == pytest.approx(100 * wrong / n)
    # Of n images with no difference at all, the upper end of Wilson's interval is z^2 / (n + z^2).
    assert lost.at_most >= max(lost.points, 100 * 3.84 / (n + 3.85))
    assert lost.at_most < lost.points + (2.7 if n == 250 else 0.4)
    strict = replace(guard, strict=True)._loss((torch.arange(n) >= wrong).float())
    assert (lost.is_within(1.0), strict.is_within(1.0)) == (lost.points <= 1, lost.at_most <= 1)
    assert strict.is_clear(1.0) == (not strict.is_within(1.0))
    assert not lost.is_clear(2.0)


def test_a_strict_guard_goes_only_as_far_as_its_images_show() -> None:
    train_images, test = digits()
    classifier = trained_digits()
    few = test.take(torch.arange(60))  # of which not even no difference shows that less than a point is lost
    guard = Guard.of(classifier, few, torch.device("cpu"), strict=True)
    course = _Run(classifier, train_images, lambda *_: Plain(), GUARDED, job(), guard).finish(threading.Event())
    assert "the result is 0 % of the way" in course.events[-1]
    assert same_weights(course.classifier, classifier)
    many = replace(guard, strict=False)
    course = _Run(classifier, train_images, lambda *_: Plain(), GUARDED, job(), many).finish(threading.Event())
    assert course.events == []
