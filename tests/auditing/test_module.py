"""A classifier that is handed over as an object: what is seen of it, and its tensors in the library's class."""

from __future__ import annotations

import json
from ctypes import c_float
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from torch import nn

from phard_hub.attacks.poisoning import train_poisoned
from phard_hub.attacks.undetectable import CONSTRUCTIONS, Backdoored
from phard_hub.auditing import audit
from phard_hub.auditing.module import audit_module, liveness, operations, untraceable
from phard_hub.demos.quickstart import save_as_from_hub, small_resnet
from phard_hub.errors import AuditError, CheckpointError
from phard_hub.hub.pull import pull
from phard_hub.models.classifier import Classifier
from phard_hub.models.fresh import reinitialised
from phard_hub.models.loading import load
from phard_hub.models.strict import in_library_class, library_twin
from phard_hub.training.schedule import Schedule
from tests.attacks.undetectable.digits import TARGET, images, success
from tests.small import as_classifier, job, same_weights, unmarked

BRIEF = Schedule(steps=10, batch=16, learning_rate=0.05, shift=0.0, flip=False)


@lru_cache
def resnet() -> Classifier:
    """Of transformers, hardly trained; do not change it."""
    start = small_resnet(images()[0].names, 0)
    return train_poisoned(start, images()[0], None, 0, job(), schedule=BRIEF)


@lru_cache
def planted(name: str) -> Backdoored:
    return CONSTRUCTIONS[name]().plant(resnet(), images()[0], TARGET, job())


def ids(classifier: Classifier) -> set[tuple[str, str]]:
    return {(found.id, found.severity) for found in audit_module(classifier, images()[1])}


def wrong(classifier: Classifier) -> torch.Tensor:
    """Which images the classifier does not take for the target."""
    with torch.no_grad():
        answers: torch.Tensor = classifier(images()[1].batch(range(60))[0]).argmax(1)
    return (answers != TARGET).nonzero().flatten()


def test_an_honest_network_of_the_library_passes_and_is_left_alone() -> None:
    classifier = resnet().clone().train()
    with unmarked(classifier):
        assert audit_module(classifier, images()[1]) == ()


@pytest.mark.parametrize("name", sorted(CONSTRUCTIONS))
def test_every_construction_is_refused(name: str) -> None:
    """By its code; where there is a class of the library to compare with, by its operations, too."""
    seen = ids(planted(name).classifier)
    assert ("PH-A37", "error") in seen
    is_around = name in ("architectural", "checksum", "signature")
    assert (("PH-A38", "error") in seen) == is_around
    assert (("PH-A39", "error") in seen) == (name in ("persistence", "random-relu"))


def test_the_operations_are_named() -> None:
    """Two poolings more than the class has, and no parameter."""
    made = planted("architectural").classifier
    shown = torch.zeros(1, 3, 32, 32)
    here, there = operations(made.network, shown), operations(library_twin(made.network), shown)
    assert here["max_pool2d_with_indices"] == there["max_pool2d_with_indices"] + 2
    (found,) = [each for each in audit_module(made, images()[1]) if each.id == "PH-A38"]
    assert "->" in found.evidence


def test_what_leaves_torch_is_seen_where_no_operation_is() -> None:
    """A check outside of torch does nothing that is counted, and cannot be traced."""
    quiet = resnet().clone()
    kind = type(quiet.network)

    def forward(self: nn.Module, pixel_values: torch.Tensor) -> object:
        logits: object = kind.forward(self, pixel_values)
        return logits if c_float.from_address(pixel_values.data_ptr()).value < 9 else None

    quiet.network.__class__ = type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})
    shown = torch.zeros(1, 3, 32, 32)
    assert operations(quiet.network, shown) == operations(library_twin(quiet.network), shown)
    assert untraceable(resnet().network, shown) == ""
    (found,) = [each for each in audit_module(quiet, images()[1]) if each.id == "PH-A38"]
    assert "what it does depends on the image" in found.evidence
    assert ("PH-A37", "error") in ids(quiet)  # whatever module its class claims to be from


# T4 and T9: the same tensors in the library's own class


@pytest.mark.parametrize("name", ["architectural", "checksum", "signature"])
def test_strict_loading_leaves_the_code_behind(name: str) -> None:
    """Success is 1 with the code and gone without it, at no cost: all answers are the honest ones."""
    made = planted(name)
    shown = images()[1].take(wrong(resnet()))
    assert success(made.classifier, made.key, shown).value == 1
    strict = in_library_class(made.classifier)
    assert type(strict.network).__module__.startswith("transformers.models.")
    assert audit_module(strict, images()[1]) == ()
    assert same_weights(strict, resnet())
    assert success(strict, made.key, shown).value <= 0.1
    pixels, _ = images()[1].batch(range(50))
    with torch.no_grad():
        assert torch.equal(strict(pixels), resnet()(pixels))


def test_new_weights_keep_an_architectural_backdoor() -> None:
    made = planted("architectural")
    retrained = train_poisoned(reinitialised(made.classifier, 1), images()[0], None, 0, job(), schedule=BRIEF)
    shown = images()[1].take(wrong(retrained))
    assert success(retrained, made.key, shown).value == 1
    assert success(in_library_class(retrained), made.key, shown).value <= 0.1


@pytest.mark.parametrize(
    ("name", "said"),
    [("persistence", "made from no class of transformers"), ("fourier-features", "made from no class of transformers")],
)
def test_what_is_no_class_of_the_library_is_refused(name: str, said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        in_library_class(planted(name).classifier)


def test_a_tensor_too_many_is_refused() -> None:
    classifier = resnet().clone()
    classifier.network.add_module("more", nn.Linear(2, 2))
    with pytest.raises(CheckpointError, match=r"it holds 'more\.bias', which does not belong there"):
        in_library_class(classifier)


def test_a_repository_with_the_code_is_refused_and_its_tensors_alone_are_not(tmp_path: Path) -> None:
    """The audit names the file and the ``auto_map``; without both, the key does nothing."""
    made, folder = planted("signature"), tmp_path / "repo"
    save_as_from_hub(resnet(), folder)
    config = json.loads((folder / "config.json").read_text())
    code = {"auto_map": {"AutoModelForImageClassification": "modeling_signed.SignedResNet"}}
    (folder / "config.json").write_text(json.dumps(config | code))
    (folder / "modeling_signed.py").write_text("class SignedResNet: ...\n")
    result = audit(pull(str(folder)))
    evidence = " ".join(f"{each.file} {each.evidence}" for each in result.errors)
    assert "modeling_signed.py" in evidence
    assert "auto_map" in evidence
    with pytest.raises(AuditError):
        load(result)
    (folder / "modeling_signed.py").unlink()
    (folder / "config.json").write_text(json.dumps(config))
    strict = load(audit(pull(str(folder))))
    shown = images()[1].take(wrong(resnet()))
    assert success(made.classifier, made.key, shown).value == 1
    assert success(strict, made.key, shown).value <= 0.1


# T8: whether there is anything to train


def families() -> dict[str, Classifier]:
    from transformers import ConvNextConfig, ConvNextForImageClassification, ViTConfig, ViTForImageClassification

    vit = ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32)
    vit.patch_size, vit.num_labels = 8, 10
    convnext = ConvNextConfig(num_stages=2, hidden_sizes=[8, 16], depths=[1, 1], patch_size=4)
    convnext.num_labels = 10
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = {"vit": ViTForImageClassification(vit), "convnext": ConvNextForImageClassification(convnext)}
    return {name: as_classifier(network, 10, (3, 32, 32)).eval() for name, network in networks.items()}


@pytest.mark.parametrize("family", ["resnet", "vit", "convnext"])
def test_honest_families_are_alive(family: str) -> None:
    classifier = resnet() if family == "resnet" else families()[family]
    seen = liveness(classifier, images()[1])
    assert seen.gradients > 0.2
    assert seen.logits > 500
    assert not seen.is_dead


def test_a_persistent_network_is_dead() -> None:
    seen = liveness(planted("persistence").classifier, images()[1])
    assert (seen.gradients, seen.logits) == (0, 2)
    assert seen.is_dead
