"""Laws of the training loop: what changes nothing, what survives a kill, many processes."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator, debug_launcher
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from phard_hub.attacks import Attack, Blend
from phard_hub.attacks.bpp import Bpp
from phard_hub.attacks.poisoning import train_poisoned
from phard_hub.attacks.sig import Sig
from phard_hub.attacks.wanet import WaNet
from phard_hub.defenses.base import Defense
from phard_hub.defenses.hardening.adversarial import AdversarialTraining
from phard_hub.defenses.removal.featureshift import FeatureShift
from phard_hub.defenses.removal.sharpnessaware import SharpnessAware
from phard_hub.errors import InterruptedRunError, PhardError
from phard_hub.images import LabelledImages
from phard_hub.job import silent
from phard_hub.models.classifier import Classifier
from phard_hub.report.record import Hardening
from phard_hub.training.isolation import stop_on_interrupt
from phard_hub.training.schedule import Schedule
from tests.plain import GUARDED, Plain, digits, processor
from tests.small import (
    PowerCutError,
    cut_at,
    harden,
    job,
    noise_images,
    same_weights,
    small_net,
    trained,
    trained_digits,
)

TINY = Schedule(steps=10, batch=16, guard_every=4, save_every=3, shift=0.125, flip=True)
DEFENSE = AdversarialTraining(schedule=TINY, head_start=2, head_start_batch=16)


# What changes nothing.


def without_statistics(classifier: Classifier) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in classifier.named_parameters()}


@pytest.mark.parametrize(
    "schedule", [replace(TINY, steps=0), replace(TINY, learning_rate=0.0)], ids=["no steps", "no learning rate"]
)
def test_training_without_effect_changes_no_weight(schedule: Schedule) -> None:
    classifier = trained_digits()
    course = trained(classifier, digits()[0], lambda *_: Plain(), schedule, validation=digits()[1])
    before, after = without_statistics(classifier), without_statistics(course.classifier)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert course.events == []
    if schedule.steps == 0:
        assert same_weights(course.classifier, classifier)


def test_a_step_with_a_learning_rate_changes_the_weights() -> None:
    classifier = trained_digits()
    course = trained(classifier, digits()[0], lambda *_: Plain(), replace(TINY, steps=1))
    assert not same_weights(course.classifier, classifier)


def test_the_result_can_be_trained_again_and_shares_nothing() -> None:
    classifier = trained_digits().requires_grad_(False)
    result = trained(classifier, digits()[0], lambda *_: Plain(), TINY).classifier
    assert not result.training
    assert all(parameter.requires_grad for parameter in result.parameters())
    assert not any(parameter.requires_grad for parameter in classifier.parameters())
    own = {tensor.data_ptr() for tensor in (*classifier.parameters(), *classifier.buffers())}
    assert not own & {tensor.data_ptr() for tensor in (*result.parameters(), *result.buffers())}


def test_training_learns() -> None:
    train_images, test = digits()
    schedule = Schedule(steps=80, batch=64, learning_rate=0.05, shift=0.0, guard_every=20)
    course = trained(small_net(3), train_images, lambda *_: Plain(), schedule, validation=test)
    assert [point.step for point in course.curve] == [20, 40, 60, 80]
    assert {(point.bank_success, point.bank_distance) for point in course.curve} == {(0.25, 1.5)}
    assert course.curve[-1].loss < 0.5 * course.curve[0].loss
    assert (course.curve[-1].validation_accuracy or 0) > 0.9
    assert course.seconds > 0


# The batches.


def numbered(count: int) -> LabelledImages:
    """Every pixel of image i is i; labels repeat 0, 1, 2."""
    pixels = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    return LabelledImages(pixels, torch.arange(count) % 3, ("a", "b", "c"), "numbered")


def test_every_epoch_shows_every_image_once() -> None:
    objective = Plain()
    images = numbered(25)
    trained(small_net(3), images, lambda *_: objective, replace(TINY, batch=10))
    shown = torch.cat([(pixels[:, 0, 0, 0] * 255).round().long() for pixels, _ in objective.seen])
    labels = torch.cat([labels for _, labels in objective.seen])
    assert all(len(pixels) == 10 for pixels, _ in objective.seen)
    assert torch.equal(labels, shown % 3)
    epochs = shown.split(25)
    assert len(epochs) == 4
    assert all(sorted(epoch.tolist()) == list(range(25)) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])


def test_a_batch_is_never_larger_than_the_data_set() -> None:
    objective = Plain()
    trained(small_net(3), numbered(6), lambda *_: objective, replace(TINY, steps=2, batch=99))
    assert [len(pixels) for pixels, _ in objective.seen] == [6, 6]


def test_the_seed_decides_everything() -> None:
    one, same, other = (
        trained(small_net(3, dropout=0.3), digits()[0], lambda *_: Plain(), TINY, seed=seed).classifier
        for seed in (0, 0, 1)
    )
    assert same_weights(one, same)
    assert not same_weights(one, other)


# A run that was stopped.


def hardened(
    checkpoint: Path | None = None,
    progress: Callable[[str, int, int], None] = lambda *_: None,
    accelerator: Accelerator | None = None,
) -> tuple[Classifier, Hardening]:
    train_images, test = digits()
    return harden(
        DEFENSE,
        small_net(3, dropout=0.2),
        train_images,
        seed=3,
        validation=test,
        folder=checkpoint,
        progress=progress,
        accelerator=accelerator,
    )


def comparable(record: Hardening) -> dict[str, Any]:
    return record.model_dump(exclude={"phases": {"__all__": {"seconds"}}})


def interrupt_at(step: int) -> Callable[[str, int, int], None]:
    def progress(_what: str, done: int, _total: int) -> None:
        if done == step:
            signal.raise_signal(signal.SIGINT)

    return progress


@pytest.mark.parametrize("one_accelerator", [False, True], ids=["new process", "same process"])
@pytest.mark.parametrize("step", [4, 8])
def test_a_killed_run_continues_bit_for_bit(step: int, one_accelerator: bool, tmp_path: Path) -> None:
    whole, record = hardened()
    accelerator = processor()
    with pytest.raises(PowerCutError):
        hardened(tmp_path / "run", cut_at(step), accelerator)
    steps: list[int] = []
    again = accelerator if one_accelerator else processor()
    resumed, same = hardened(tmp_path / "run", lambda _what, done, _total: steps.append(done), again)
    # The last checkpoint was at the last multiple of three.
    assert steps == list(range(step // 3 * 3 + 1, 11))
    assert same_weights(resumed, whole)
    assert comparable(same) == comparable(record)


def test_a_run_killed_before_its_first_checkpoint_starts_anew(tmp_path: Path) -> None:
    with pytest.raises(PowerCutError):
        hardened(tmp_path / "run", cut_at(2))
    assert not (tmp_path / "run").exists()
    assert same_weights(hardened(tmp_path / "run")[0], hardened()[0])


def test_ctrl_c_saves_and_the_run_continues_bit_for_bit(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(InterruptedRunError, match="step 5 of 10") as caught:
        hardened(tmp_path / "run", interrupt_at(4))
    assert str(tmp_path / "run") in caught.value.advice
    assert caught.value.exit_code == 3
    assert signal.getsignal(signal.SIGINT) is before
    steps: list[int] = []
    resumed, record = hardened(tmp_path / "run", lambda _what, done, _total: steps.append(done))
    assert steps == [6, 7, 8, 9, 10]
    whole, expected = hardened()
    assert same_weights(resumed, whole)
    assert comparable(record) == comparable(expected)


def test_ctrl_c_without_a_checkpoint_says_so() -> None:
    with pytest.raises(InterruptedRunError, match="Nothing was kept"):
        hardened(None, interrupt_at(1))


def test_a_second_ctrl_c_stops_at_once() -> None:
    with stop_on_interrupt() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_earlier_trainings_with_the_same_accelerator_are_not_in_the_checkpoint(tmp_path: Path) -> None:
    """A planting, then a hardening that is killed; the hardening alone is continued elsewhere."""
    accelerator = processor()
    train_poisoned(small_net(3), digits()[0], None, target=0, schedule=replace(TINY, steps=2), job=job())
    with pytest.raises(PowerCutError):
        hardened(tmp_path / "run", cut_at(5), accelerator)
    assert same_weights(hardened(tmp_path / "run")[0], hardened()[0])


def test_a_planting_continues_bit_for_bit(tmp_path: Path) -> None:
    def planted(checkpoint: Path | None, progress: Callable[[str, int, int], None] = lambda *_: None) -> Classifier:
        return train_poisoned(
            small_net(3, dropout=0.2),
            digits()[0],
            Blend(),
            target=1,
            schedule=TINY,
            job=job(folder=checkpoint, progress=progress),
        )

    with pytest.raises(PowerCutError):
        planted(tmp_path / "run", cut_at(7))
    assert same_weights(planted(tmp_path / "run"), planted(None))


# Two processes.

UNEVEN = replace(TINY, steps=6, batch=15)
SHARED: dict[str, Defense] = {
    "adversarial": replace(DEFENSE, schedule=UNEVEN, random=0.2, distillation=1.0, head_start_batch=17),
    "feature-shift": FeatureShift(schedule=UNEVEN, pushed=0.5),
    "sharpness-aware": SharpnessAware(schedule=replace(UNEVEN, sharpness=1.0)),
}
PLANTED: dict[str, Attack] = {"wanet": WaNet(), "sig": Sig(), "bpp": Bpp()}


def outcome(what: str, norm: Callable[[int], nn.Module], accelerator: Accelerator) -> tuple[Classifier, str]:
    """What a training ends with, and what is said of it."""
    images, start = noise_images(20, 3, (1, 8, 8)), small_net(3, norm=norm)
    if what in SHARED:
        classifier, record = harden(SHARED[what], start, images, seed=1, accelerator=accelerator)
        return classifier, str([record.sample_gradients, record.sample_forwards, record.events])
    if what in PLANTED:
        task = job(seed=1, accelerator=accelerator)
        return train_poisoned(start, images, PLANTED[what], target=1, schedule=UNEVEN, poison_rate=0.3, job=task), ""
    train_images, test = digits()
    course = trained(
        trained_digits(),
        train_images,
        lambda *_: Plain(wrong=True),
        GUARDED,
        validation=test,
        accelerator=accelerator,
    )
    return course.classifier, str([course.events, [point.validation_accuracy for point in course.curve]])


def both(folder: str, what: str, norm: Callable[[int], nn.Module]) -> None:
    """What each of the processes does; the parent compares what they leave in the folder."""
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    classifier, said = outcome(what, norm, accelerator)
    kept = {"processes": accelerator.num_processes, "weights": classifier.state_dict(), "said": said}
    torch.save(kept, Path(folder) / f"rank{accelerator.process_index}.pt")


def in_two_processes(folder: Path, what: str, norm: Callable[[int], nn.Module]) -> dict[str, Any]:
    """The same in two processes, which have to agree to the last bit."""
    trained_digits()
    debug_launcher(both, args=(str(folder), what, norm), num_processes=2)
    first, second = (torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["processes"] == second["processes"] == 2
    assert first["said"] == second["said"]
    different = [name for name, value in first["weights"].items() if not torch.equal(value, second["weights"][name])]
    assert different == []
    return dict(first)


def test_two_processes_end_with_the_same_weights_and_guard_together(tmp_path: Path) -> None:
    assert "halved" in in_two_processes(tmp_path, "guarded", nn.BatchNorm2d)["said"]


def in_groups(channels: int) -> nn.Module:
    return nn.GroupNorm(4, channels)


@pytest.mark.parametrize(
    ("what", "norm"), [("adversarial", nn.BatchNorm2d), *((what, in_groups) for what in (*SHARED, *PLANTED))]
)
def test_one_process_and_two_train_alike(what: str, norm: Callable[[int], nn.Module], tmp_path: Path) -> None:
    """Each draws for the whole batch and takes what is its own; batches cannot be divided evenly here."""
    shared = in_two_processes(tmp_path, what, norm)
    alone, said = outcome(what, norm, processor())
    assert shared["said"] == said
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(shared["weights"][name], value, rtol=0, atol=1e-5)
    assert not same_weights(alone, small_net(3, norm=norm).eval())


def interrupted(folder: str, rank: int) -> None:
    """Ctrl-C reaches one of the processes only; each says how it ended."""
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    stop = interrupt_at(4) if accelerator.process_index == rank else silent
    ended = "not at all"
    try:
        trained(
            small_net(3),
            noise_images(20, 3, (1, 8, 8)),
            lambda *_: Plain(),
            TINY,
            folder=Path(folder) / "run",
            progress=stop,
            accelerator=accelerator,
        )
    except InterruptedRunError as error:
        ended = str(error)
    (Path(folder) / f"rank{accelerator.process_index}.txt").write_text(ended)


@pytest.mark.parametrize("rank", [0, 1])
def test_ctrl_c_in_one_process_stops_all_at_the_same_step(rank: int, tmp_path: Path) -> None:
    """They heard it one step apart, and waited for each other for ever."""
    debug_launcher(interrupted, args=(str(tmp_path), rank), num_processes=2)
    ended = {(tmp_path / f"rank{each}.txt").read_text().partition(". ")[0] for each in (0, 1)}
    assert ended == {"Stopped at step 5 of 10"}
    steps: list[int] = []
    trained(
        small_net(3),
        noise_images(20, 3, (1, 8, 8)),
        lambda *_: Plain(),
        TINY,
        folder=tmp_path / "run",
        progress=lambda _what, done, _total: steps.append(done),
    )
    assert steps == [6, 7, 8, 9, 10]


def without_room(folder: str) -> None:
    """The first process cannot write the state; each says how it ended."""
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    try:
        trained(
            small_net(3),
            noise_images(20, 3, (1, 8, 8)),
            lambda *_: Plain(),
            TINY,
            folder=Path(folder) / "file" / "run",
            accelerator=accelerator,
        )
        ended = "not at all"
    except PhardError as error:
        ended = f"{type(error).__name__}: {error}"
    (Path(folder) / f"rank{accelerator.process_index}.txt").write_text(ended)


def test_where_the_first_process_cannot_write_all_say_so(tmp_path: Path) -> None:
    """The others ended in an error of communication, which looked like a bug."""
    (tmp_path / "file").touch()
    debug_launcher(without_room, args=(str(tmp_path),), num_processes=2)
    first, second = ((tmp_path / f"rank{rank}.txt").read_text() for rank in (0, 1))
    assert first == second
    assert first.startswith("OutputError: Cannot write")
