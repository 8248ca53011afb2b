"""Step three of three: audited files to a classifier.

The library's own class is built from the config, and the weights have to fit it exactly. What loads a model is
what it names: a type of transformers', or an architecture of timm's. There is no list of families here. The files are
the snapshot's private copies: nobody else can write them, and there is nothing beside them to be led to.
"""

from __future__ import annotations

import gc
import importlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from phard_hub.errors import CheckpointError, first_line
from phard_hub.hub.snapshot import Audit, Snapshot
from phard_hub.models.classifier import Classifier
from phard_hub.models.library_code import require_library_code
from phard_hub.models.processor import ImageProcessor, rebuild
from phard_hub.models.timm_format import TimmProcessor, build_timm, class_names, import_timm, is_timm, names_timm


def load(audit: Audit) -> Classifier:
    """Build a classifier from audited files, in evaluation mode and on the CPU.

    Raises:
        AuditError: the audit has errors.
        CheckpointError: the weights do not fit the library's class exactly, the image processor cannot be
            rebuilt, or timm is needed and not there.
    """
    audit.require()
    snapshot = audit.snapshot
    if names_timm(snapshot):
        import_timm()
    network = _load_timm(snapshot) if is_timm(snapshot) else _load_transformers(snapshot)
    classifier = assemble(snapshot, network)
    require_logits(snapshot, classifier)
    return classifier


def assemble(snapshot: Snapshot, network: nn.Module) -> Classifier:
    """Put the image processor of a model around its network, which may be one without memory for its weights.

    Raises:
        CheckpointError: the network holds foreign code, the classes have no names, or the image processor cannot be
            rebuilt.
    """
    require_library_code(network)
    processor: ImageProcessor
    if is_timm(snapshot):
        labels, processor = class_names(network), _timm_processor(snapshot, network)
    else:
        labels, processor = _labels(network), _load_processor(snapshot)
    return rebuild(network, processor, labels=labels, channels=_channels(network, processor)).eval()


def _load_timm(snapshot: Snapshot) -> nn.Module:
    try:
        return build_timm(snapshot)
    except CheckpointError:
        raise
    except Exception as error:  # timm raises all kinds of errors at hostile values
        raise _not_by_timm(snapshot, error) from error


def _timm_processor(snapshot: Snapshot, network: nn.Module) -> TimmProcessor:
    try:
        return TimmProcessor(network)
    except Exception as error:  # as above
        raise _not_by_timm(snapshot, error) from error


def _not_by_timm(snapshot: Snapshot, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{snapshot.repo} cannot be loaded as an image classifier: {first_line(error)}.",
        advice="Give a model that the installed timm loads, with its own config.json.",
    )


def _channels(network: nn.Module, processor: ImageProcessor) -> int:
    """How many channels an image has: timm says it beside the processor, transformers in the config."""
    if isinstance(data := getattr(processor, "data_config", None), dict):
        return int(data["input_size"][0])
    return int(getattr(network.config, "num_channels", 3))


def require_logits(snapshot: Snapshot, classifier: Classifier) -> None:
    """Refuse a network that does not take images of its own size, or does not give one number a class.

    Raises:
        CheckpointError: says what it gave, or why it gave nothing.
    """
    height, width = classifier.image_size
    problem = f"{snapshot.repo} cannot classify images of {height} x {width}"
    advice = "Compare its config.json and image processor with those of the model it was made from."
    try:
        with torch.no_grad():
            blank = torch.zeros(1, classifier.channels, height, width, device=classifier.device)
            logits = classifier(blank)
    except Exception as error:  # as above
        raise CheckpointError(f"{problem}: {first_line(error)}.", advice=advice) from error
    if logits.shape != (1, classifier.num_classes):
        raise CheckpointError(f"{problem}: {tuple(logits.shape)} is not one number for each class.", advice=advice)
    if logits.device.type != "meta" and not logits.isfinite().all():
        raise CheckpointError(f"{problem}: its logits are not finite.", advice="Its weights are far too large.")


def import_library() -> None:
    """Import what every model of transformers needs, without looking for garbage: its objects all stay."""
    collected = gc.isenabled()
    gc.disable()
    try:
        importlib.import_module("transformers.modeling_utils")
    finally:
        if collected:
            gc.enable()


def _load_transformers(snapshot: Snapshot) -> nn.Module:
    from transformers import AutoModelForImageClassification

    try:
        network, info = AutoModelForImageClassification.from_pretrained(
            snapshot.folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            dtype=torch.float32,
        )
    except Exception as error:  # the library's classes raise all kinds of errors at hostile values
        raise CheckpointError(
            f"{snapshot.repo} cannot be loaded as an image classifier: {first_line(error)}.",
            advice="Give a checkpoint that AutoModelForImageClassification loads, with matching config.json.",
        ) from error
    _require_exact(snapshot, info)
    return network  # type: ignore[no-any-return]


def _require_exact(snapshot: Snapshot, info: Mapping[str, Any]) -> None:
    """Refuse weights with names too many, names too few or other shapes than the class has."""
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        names = sorted(str(name) for name in info.get(kind) or ())
        if names:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            raise CheckpointError(
                f"The weights of {snapshot.repo} do not fit its config.json: {kind.replace('_', ' ')}: {shown}.",
                advice="Make config.json and the weights those of one model.",
            )


def _labels(network: nn.Module) -> tuple[str, ...]:
    """The class names by index; the audit saw to it that they are numbered from 0."""
    config: Any = network.config
    names: dict[int, str] = config.id2label or {}
    return tuple(str(names[index]) for index in range(len(names)))


def _load_processor(snapshot: Snapshot) -> ImageProcessor:
    from transformers import AutoImageProcessor

    from_pretrained: Any = AutoImageProcessor.from_pretrained
    try:
        processor = from_pretrained(snapshot.folder, backend="pil", local_files_only=True, trust_remote_code=False)
    except Exception as error:  # as above
        raise CheckpointError(
            f"{snapshot.repo} has no image processor that can be used: {first_line(error)}.",
            advice="Add the preprocessor_config.json of the model it was made from.",
        ) from error
    if not type(processor).__module__.startswith("transformers.models."):
        raise CheckpointError(
            f"{type(processor).__name__} is not a class of the library.", advice="Use one of the library."
        )
    return processor  # type: ignore[no-any-return]
