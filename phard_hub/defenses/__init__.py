"""Defenses: ours and those of the literature that it is compared with."""

from phard_hub.defenses.base import Defense, Hardened
from phard_hub.defenses.hardening.adversarial import AdversarialTraining
from phard_hub.defenses.pervasive import AtOnce, PervasiveHardening
from phard_hub.defenses.removal.featureshift import FeatureShift
from phard_hub.defenses.removal.finetuning import FineTuning
from phard_hub.defenses.removal.sharpnessaware import SharpnessAware

DEFENSES: dict[str, type[Defense]] = {
    defense.name: defense
    for defense in (FineTuning, FeatureShift, SharpnessAware, AdversarialTraining, AtOnce, PervasiveHardening)
}
"""All defenses by name."""

__all__ = [
    "DEFENSES",
    "AdversarialTraining",
    "AtOnce",
    "Defense",
    "FeatureShift",
    "FineTuning",
    "Hardened",
    "PervasiveHardening",
    "SharpnessAware",
]
