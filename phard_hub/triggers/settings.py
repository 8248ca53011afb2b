"""How hard class distances are searched for."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from phard_hub.settings import BelowOne, Share, settings
from phard_hub.triggers.bank import Parts

Kind = Literal["warp", "colour", "latent", "field", "u-net"]


@settings
class SearchSettings:
    """How hard the search tries.

    Attributes:
        steps: optimisation steps of every trigger.
        batch: images a trigger sees in each step, drawn from its source class.
        fit_images: images of each class that the triggers are fitted on, at most.
        choosing_images: images of each class that choose among the triggers of a search, at most.
        judging_images: images of each class that the chosen ones are judged on, at most; they do nothing else.
        success: share of the judging images that a trigger must turn.
        learning_rate: of Adam, annealed along half a cosine.
        betas: of Adam.
        price: start of the weight of the size in the loss, for 3 x 32 x 32 images (larger images: less).
        price_factor: the price is multiplied by it while a trigger succeeds, divided while it does not.
        checks: times in the second half at which the strengths are bisected on the choosing images.
        bisections: evaluations of one bisection.
        max_pairs: with more ordered pairs than this, only the closest by mean logit margin are measured; 0 for none.
        max_universal: with more classes than this, universal triggers go only to those that are easiest to reach.
        kinds: universal triggers of a single kind are searched as well, for each of these kinds.
        max_single: with more classes than this, those of a single kind go only to those that are easiest to reach.
        parts: what a trigger is made of.
    """

    steps: PositiveInt = 240
    batch: PositiveInt = 10
    fit_images: PositiveInt = 100
    choosing_images: PositiveInt = 50
    judging_images: PositiveInt = 100
    success: Share = 0.9
    learning_rate: PositiveFloat = 0.03
    betas: tuple[BelowOne, BelowOne] = (0.5, 0.9)
    price: PositiveFloat = 1.0
    price_factor: PositiveFloat = 1.15
    checks: PositiveInt = 3
    bisections: NonNegativeInt = 5
    max_pairs: NonNegativeInt = 420
    max_universal: PositiveInt = 100
    max_single: PositiveInt = 20
    kinds: tuple[Kind, ...] = ("warp", "colour", "latent", "field", "u-net")
    parts: Parts = field(default_factory=Parts)

    @property
    def needs_autoencoder(self) -> bool:
        """Whether triggers edit the code of an autoencoder, which is trained first."""
        return "latent" in self.kinds or self.parts.latent


DEFAULT = SearchSettings()
CHEAPEST = SearchSettings(  # only for tests
    steps=8, batch=4, fit_images=20, choosing_images=8, judging_images=10, checks=1, bisections=3, kinds=()
)
