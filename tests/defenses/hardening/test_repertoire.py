"""Which triggers a hardening keeps, what they share, and which image gets which."""

from __future__ import annotations

import pytest
import torch

from phard_hub.defenses.hardening.repertoire import Repertoire
from phard_hub.draws import Draws
from phard_hub.triggers.bank import KIND_OF, Parts
from phard_hub.triggers.pool import UNIVERSAL

PARAMETERS = ["flow", "knots", "matrix", "values"]
SHARES = (0.3, 0.4, 0.3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def repertoire(classes: int, max_pairs: int = 1000) -> Repertoire:
    return Repertoire.of(tuple(range(classes)), PARAMETERS, max_pairs=max_pairs, seed=0)


def choose(
    made: Repertoire, labels: torch.Tensor, shares: tuple[float, float, float] = SHARES, seed: int = 0
) -> torch.Tensor:
    return made.choose(labels, shares, torch.ones(len(made)), Draws.seeded(seed, len(labels)))


def test_every_parameter_of_a_trigger_has_a_kind() -> None:
    assert set(Parts(latent=True).shapes(3, 32, 32)) == set(KIND_OF)


@pytest.mark.parametrize(("classes", "max_pairs", "pairs"), [(2, 1000, 2), (3, 1000, 6), (4, 1000, 12), (4, 5, 5)])
def test_what_there_is(classes: int, max_pairs: int, pairs: int) -> None:
    made = repertoire(classes, max_pairs)
    assert torch.bincount(made.group).tolist() == [pairs, classes if classes > 2 else 0, 3 * classes]
    assert bool((made.source != made.target).all())
    for row in range(len(made)):
        assert (made.source[row] == UNIVERSAL) == (made.group[row] > 0)
    # Each kind has a trigger to each class, and those of a single kind have no other.
    single = made.group == 2
    used = {(int(t), tuple(s.tolist())) for t, s in zip(made.target[single], made.strengths[single], strict=True)}
    assert used == {(k, s) for k in range(classes) for s in ((1, 0, 0, 0), (0, 1, 1, 0), (0, 0, 0, 1))}
    assert bool((made.strengths[~single] == 1).all())


@pytest.mark.parametrize("max_pairs", [1000, 5, 2])
@pytest.mark.parametrize("shares", [(1.0, 0.0, 0.0), SHARES, (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_a_trigger_fits_the_label_and_turns_it_to_another(
    classes: int, shares: tuple[float, float, float], max_pairs: int
) -> None:
    made = repertoire(classes, max_pairs)
    labels = torch.arange(classes).repeat(500)
    rows = choose(made, labels, shares)
    source, target = made.source[rows], made.target[rows]
    assert bool((target != labels).all())
    assert bool(((source == labels) | (source == UNIVERSAL)).all())


def test_the_shares_are_kept_where_all_triggers_are_worth_the_same() -> None:
    made = repertoire(4)
    labels = torch.arange(4).repeat(1500)
    groups = torch.bincount(made.group[choose(made, labels)], minlength=3) / len(labels)
    assert groups.tolist() == pytest.approx(SHARES, abs=0.03)
    targets = made.target[choose(made, torch.full((6000,), 2))]
    assert torch.bincount(targets, minlength=4).tolist() == pytest.approx([2000, 2000, 0, 2000], abs=150)


def test_a_trigger_is_chosen_as_often_as_it_is_worth() -> None:
    made = repertoire(3)
    worth = torch.ones(len(made))
    first, second = ((made.group == 1) & (made.target != 0)).nonzero().flatten().tolist()
    worth[first] = 3.0
    rows = made.choose(torch.zeros(8000, dtype=torch.long), SHARES, worth, Draws.seeded(0, 8000))
    counts = torch.bincount(rows, minlength=len(made))
    assert (counts[first] / counts[second]).item() == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize("max_pairs", [1000, 3])
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_triggers_share_what_their_classes_have_in_common(classes: int, max_pairs: int) -> None:
    made = repertoire(classes, max_pairs)
    shared: dict[int, set[tuple[str, int]]] = {}
    for row, components in enumerate(made.components().tolist()):
        source, target = int(made.source[row]), int(made.target[row])
        meanings = {
            0: [("target", target), ("source", source), ("own", row)],
            1: [("target", target)],
            2: [("own", row)],
        }[int(made.group[row])]
        used = [component for component in components if component >= 0]
        for component, meaning in zip(used, meanings, strict=True):
            shared.setdefault(component, set()).add(meaning)
    # Each component means one thing.
    assert all(len(meanings) == 1 for meanings in shared.values())
    assert len(shared) == len(set().union(*shared.values()))


def test_the_same_generator_chooses_the_same() -> None:
    made, labels = repertoire(3), torch.arange(3).repeat(20)
    assert torch.equal(choose(made, labels, seed=1), choose(made, labels, seed=1))
    assert not torch.equal(choose(made, labels, seed=1), choose(made, labels, seed=2))
