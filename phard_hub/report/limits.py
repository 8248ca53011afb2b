"""What the numbers of a report do not show: the part of every report and card that no result can change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from phard_hub.report.distances import ClassDistances
from phard_hub.report.record import Hardening

LIMITS = (
    "Distances are upper bounds found by a search: a stronger search can find smaller triggers.",
    "Pairs that the search did not reach have no distance and are in no mean.",
    (
        "No method can decide for an arbitrary model that it has no backdoor. For any way of training there is a "
        "backdoor that no efficient test by queries finds, if one-way functions exist; for random Fourier features and "
        "random ReLU networks there is one that full access to the weights does not show either, by assumptions about "
        "lattices and sparse PCA (Goldwasser, Kim, Vaikuntanathan and Zamir, 2022)."
    ),
    (
        "A corollary of theirs on robustness is the reason why no report certifies a model: one that looks robust "
        "under every attack may have, for each image, a change that turns it, known to whoever holds a key."
    ),
    (
        "Hardening changes weights only. It does not reach backdoors in code or in the image processor, nor those "
        "planted cryptographically, and a model can be built so that training by gradients changes nothing."
    ),
    ("Comparing with an upstream model shows what was changed since, and no backdoor that the upstream has itself."),
    "The numbers hold for the images, attacks and seeds named here; they do not certify the model.",
)
OF_VOTES = (
    "A certified accuracy is about changes within its radius, and only where votes under noise are what answers: it is "
    "no property of the weights. Whoever may change an image by far more passes through the noise."
)


def limits(
    distances: ClassDistances, hardening: Hardening | None, *, voted: bool, more: Sequence[str] = ()
) -> tuple[str, ...]:
    """What the numbers do not show, one sentence or two each.

    Args:
        distances: that were measured.
        hardening: what was done, if anything.
        voted: whether accuracy was certified by votes under noise.
        more: what else casts doubt on them; empty ones are left out.
    """

    def found() -> Iterator[str]:
        yield from LIMITS
        if voted:
            yield OF_VOTES
        yield from more
        if distances.chosen:
            yield (
                f"All this is about {len(distances.chosen)} of the model's {len(distances.labels)} classes; the other "
                "answers stayed possible."
            )
        yield hardening.doubt if hardening else ""

    return tuple(filter(None, found()))
