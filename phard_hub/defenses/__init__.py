"""Defenses: ours and those of the literature that it is compared with."""

from phard_hub.defenses.base import Defense, Hardened
from phard_hub.defenses.hardening.adversarial import AdversarialTraining
from phard_hub.defenses.hardening.moth import Moth
from phard_hub.defenses.hardening.noise import NoiseTraining
from phard_hub.defenses.hardening.pairwise import Pairwise
from phard_hub.defenses.hardening.pgd import PgdTraining
from phard_hub.defenses.hardening.uat import UniversalAdversarialTraining
from phard_hub.defenses.hardening.universal import Universal
from phard_hub.defenses.immunizer import Immunizer, Smoothing
from phard_hub.defenses.pervasive import AtOnce, PervasiveHardening
from phard_hub.defenses.removal.anp import NeuronPruning
from phard_hub.defenses.removal.connectivity import ModeConnectivity
from phard_hub.defenses.removal.distillation import Distillation
from phard_hub.defenses.removal.featureshift import FeatureShift
from phard_hub.defenses.removal.finepruning import FinePruning
from phard_hub.defenses.removal.finetuning import FineTuning, PublishedFineTuning
from phard_hub.defenses.removal.fst import FeatureShiftTuning
from phard_hub.defenses.removal.ftsam import FtSam
from phard_hub.defenses.removal.headreset import HeadReset
from phard_hub.defenses.removal.ibau import ImplicitUnlearning
from phard_hub.defenses.removal.nad import AttentionDistillation
from phard_hub.defenses.removal.neuralcleanse import NeuralCleanse
from phard_hub.defenses.removal.sau import SharedUnlearning
from phard_hub.defenses.removal.sharpnessaware import SharpnessAware

OURS: tuple[type[Defense], ...] = (
    FineTuning,
    HeadReset,
    Distillation,
    FeatureShift,
    SharpnessAware,
    AdversarialTraining,
    NoiseTraining,
    AtOnce,
    PervasiveHardening,
)
RIVALS: tuple[type[Defense], ...] = (
    *(PgdTraining, UniversalAdversarialTraining, Moth, Universal, Pairwise),
    *(PublishedFineTuning, FinePruning, AttentionDistillation, NeuronPruning, ImplicitUnlearning),
    *(ModeConnectivity, NeuralCleanse, FtSam, FeatureShiftTuning, SharedUnlearning),
)
"""Those of others, at their published settings, and without a guard of the accuracy."""
DEFENSES: dict[str, type[Defense]] = {defense.name: defense for defense in (*OURS, *RIVALS)}
"""All defenses by name."""

__all__ = [
    "DEFENSES",
    "RIVALS",
    "AdversarialTraining",
    "AtOnce",
    "AttentionDistillation",
    "Defense",
    "Distillation",
    "FeatureShift",
    "FeatureShiftTuning",
    "FinePruning",
    "FineTuning",
    "FtSam",
    "Hardened",
    "HeadReset",
    "Immunizer",
    "ImplicitUnlearning",
    "ModeConnectivity",
    "Moth",
    "NeuralCleanse",
    "NeuronPruning",
    "NoiseTraining",
    "Pairwise",
    "PervasiveHardening",
    "PgdTraining",
    "PublishedFineTuning",
    "SharedUnlearning",
    "SharpnessAware",
    "Smoothing",
    "Universal",
    "UniversalAdversarialTraining",
]
