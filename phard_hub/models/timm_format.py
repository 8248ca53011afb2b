"""Models in timm's own format: a config that names an architecture, and tensors as timm's class has them.

Nothing of what timm knows of other places for weights is used: the network is made without any, and takes
those of the one file that was hashed.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import ModuleType
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from phard_hub.draws import global_generators_kept
from phard_hub.errors import CheckpointError, first_line
from phard_hub.hub.names import is_network
from phard_hub.hub.snapshot import Snapshot

WEIGHTS = "model.safetensors"
TAKEN_BY_TIMM = frozenset(
    """
    model_name model_cls variant pretrained pretrained_cfg pretrained_cfg_overlay pretrained_strict pretrained_filter_fn
    pretrained_model_args checkpoint_path cache_dir scriptable exportable no_jit features_only feature_cfg model_cfg
    kwargs_filter pruned
    """.split()  # noqa: SIM905 - as a list it would be a page long
)
"""Arguments that timm's `create_model` and its builder take for themselves; all others go to the class."""


def names_timm(snapshot: Snapshot) -> bool:
    """Whether timm is needed for a model, by itself or behind the wrapper of transformers."""
    return "architecture" in snapshot.config


def is_timm(snapshot: Snapshot) -> bool:
    """Whether a model is in timm's own format, which names an architecture and no type of transformers'."""
    return names_timm(snapshot) and "model_type" not in snapshot.config


def import_timm() -> ModuleType:
    """The library timm.

    Raises:
        CheckpointError: it is not installed, or not beside this torch.
    """
    try:
        import timm
    except Exception as error:  # a torchvision that does not fit to torch raises a RuntimeError
        raise CheckpointError(
            f"This model needs timm, which cannot be imported: {first_line(error)}.",
            advice='Install it: pip install "phard-hub[timm]", with the torchvision of your torch.',
        ) from error
    return timm


def build_timm(snapshot: Snapshot) -> nn.Module:
    """The network of a model in timm's format, with the weights of its file.

    Tensors that are those of the class go in as they are. What an older timm saved is converted by timm itself.

    Raises:
        CheckpointError: there is no such file, or timm cannot be imported.
        Exception: whatever timm raises at what it does not understand.
    """
    timm = import_timm()
    if WEIGHTS not in snapshot.files:  # timm would take any other file
        raise CheckpointError(f"{snapshot.repo} has no {WEIGHTS}.", advice="Save it with timm.models.save_for_hf.")
    with global_generators_kept():  # weights are drawn first
        network: nn.Module = timm.create_model(f"local-dir:{snapshot.folder}", pretrained=False)
        stored = load_file(snapshot.folder / WEIGHTS)
        if _shapes(stored) != _shapes(network.state_dict()):
            return converted_by_timm(snapshot, network)
        network.load_state_dict(stored)
    return network


def converted_by_timm(snapshot: Snapshot, network: nn.Module) -> nn.Module:
    """A network with the weights of a file that timm converts, all of which it has to find and to use.

    Raises:
        Exception: whatever timm raises if it does not.
    """
    if network.num_classes != _pretrained_cfg(network)["num_classes"]:  # it would leave the last layer as drawn
        raise ValueError(f"the weights are not for {network.num_classes} classes")
    make: Any = import_timm().create_model
    # families that ask for less themselves do not take this argument, and raise
    return make(f"local-dir:{snapshot.folder}", pretrained=True, pretrained_strict=True)  # type: ignore[no-any-return]


SHOWN_BY_TENSORS = frozenset({"num_classes", "in_chans", "img_size"})
"""Arguments that an honest copy changes, and that are seen in the shapes of some tensors."""
_HARMLESS = frozenset({"strict_img_size"})  # whether images of another size are refused
_INERT = frozenset(
    {"Identity", "Dropout", "Dropout2d", "DropPath", "DropBlock2d", "PatchDropout", "PatchDropoutWithIndices"}
)
_OWN = ("training", "pretrained_cfg", "default_cfg", "pretrained_model_args")


def unaccounted(architecture: object, arguments: Mapping[str, Any]) -> list[str]:
    """The arguments of which nobody sees in the tensors that they make another network of this architecture.

    For each argument the network is built without it. If that is the same network, the argument does nothing; if its
    tensors have other shapes and it is one that copies differ in, the weights themselves speak for it.

    Args:
        architecture: of timm.
        arguments: of its constructor, as JSON holds them.

    Raises:
        CheckpointError: timm is needed and not there.
        Exception: whatever timm raises at what it does not understand.
    """
    network = _bare(architecture, arguments)
    names = sorted(arguments.keys() - _HARMLESS)
    return [name for name in names if not _accounted(network, architecture, arguments, name)]


def _bare(architecture: object, arguments: Mapping[str, Any]) -> nn.Module:
    """A network without memory for its weights."""
    if not is_network(architecture):
        raise ValueError(f"{architecture!r} is no name of timm's")
    if taken := TAKEN_BY_TIMM & arguments.keys():
        raise ValueError(f"{', '.join(sorted(taken))}: not for the class")
    with torch.device("meta"):
        network: nn.Module = import_timm().create_model(architecture, pretrained=False, **arguments)
    return network


def _accounted(network: nn.Module, architecture: object, arguments: Mapping[str, Any], name: str) -> bool:
    try:
        without = _bare(architecture, {key: value for key, value in arguments.items() if key != name})
    except Exception:  # noqa: BLE001 - it may be needed for the others
        return False
    shown = _shapes(network.state_dict()) != _shapes(without.state_dict())
    return name in SHOWN_BY_TENSORS if shown else _described(network) == _described(without)


def _described(network: nn.Module) -> list[tuple[str, object]]:
    """All that the modules of a network hold but tensors, without what does nothing in evaluation."""
    return [
        (name, "inert" if type(part).__name__ in _INERT else (_known(type(part)), _plain(part)))
        for name, part in network.named_modules()
    ]


def _plain(part: nn.Module) -> dict[str, str]:
    kept = {key: value for key, value in vars(part).items() if not key.startswith("_") and key not in _OWN}
    return {key: _known(value) for key, value in kept.items() if "drop" not in key}


def _known(value: object) -> str:
    """What tells a value from others: classes and functions by their names, because addresses differ."""
    if isinstance(value, partial):
        return f"{_known(value.func)} {value.args} {sorted(value.keywords.items())}"
    if isinstance(value, type) or callable(value):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    return repr(value)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _pretrained_cfg(network: nn.Module) -> dict[str, Any]:
    """What the config says of images and classes, in the form that timm brings all its versions to."""
    found: Any = network.pretrained_cfg
    return dict(found)


def class_names(network: nn.Module) -> tuple[str, ...]:
    """The names of the classes; where the config has none, those of ImageNet if timm takes it for that.

    Raises:
        CheckpointError: there are more names or fewer than classes.
    """
    from transformers import TimmWrapperConfig

    names, count = _pretrained_cfg(network).get("label_names"), int(network.num_classes)  # type: ignore[arg-type]
    if isinstance(names, dict):
        names = [names[number] for number in sorted(names, key=int)]
    if names and len(names) != count:
        advice = "Give each class one name in config.json, as label_names."
        raise CheckpointError(f"There are {count} classes and {len(names)} label_names.", advice=advice)
    # transformers knows, too, what to do without names
    config = TimmWrapperConfig.from_dict({"num_classes": count, "label_names": names or None})
    return tuple(str(config.id2label[number]) for number in range(count))


class TimmProcessor:
    """The transform that timm evaluates a network with, called as an image processor of transformers is."""

    def __init__(self, network: nn.Module) -> None:
        """Take size, crop, filter, mean and std from the network's config alone."""
        data = import_timm().data
        self.data_config: dict[str, Any] = data.resolve_data_config(pretrained_cfg=_pretrained_cfg(network))
        self._transform = data.create_transform(**self.data_config)

    def __call__(self, *, images: Image.Image, return_tensors: str) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Resize, crop and normalise one image to ``(1, C, h, w)``, a torch tensor whatever is asked for."""
        pixels: Tensor = self._transform(images)
        return {"pixel_values": pixels[None]}
