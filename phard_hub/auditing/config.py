"""What the JSON files of a model say: code to run, kernels and weights to fetch, classes and their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from phard_hub.auditing.files import items, json_items, strings
from phard_hub.hub.names import is_network
from phard_hub.hub.snapshot import Snapshot
from phard_hub.models.timm_format import TAKEN_BY_TIMM
from phard_hub.report.findings import error, warning
from phard_hub.report.record import Finding

_REMOTE_CODE = ("auto_map", "custom_pipelines", "trust_remote_code")
# Keys by which a library is led to a file, a repository or weights that nobody hashed.
_ELSEWHERE = frozenset(
    """
    transformers_weights configuration_files gguf_file adapter_file base_model_name_or_path use_pretrained_backbone
    hf_hub_filename hf_hub_id custom_load checkpoint_path checkpoint_file cache_dir pretrained_cfg_overlay
    pretrained_model_name_or_path image_processor_filename backbone_checkpoint
    """.split()  # noqa: SIM905 - as a list it would be a page long
)
_TIMM_PLACES = ("url", "file", "state_dict")
MOST_CLASSES = 100_000
_REPLACED_PARTS = ("quantization_config", "compression_config", "fusion_config")
_OWN_IMPLEMENTATIONS = frozenset({"eager", "sdpa", "flex_attention", "grouped_mm", "batched_mm"})

# What timm 1.0 knows in pretrained_cfg, without what says where weights come from. It only prepares images
# and says where the first and the last layer are; anything else would reach a constructor or is a mistake.
_PRETRAINED_CFG = frozenset(
    """
    source architecture tag custom_load url file state_dict hf_hub_id hf_hub_filename
    input_size test_input_size min_input_size fixed_input_size interpolation crop_pct test_crop_pct crop_mode mean std
    num_classes label_offset label_names label_descriptions pool_size test_pool_size first_conv classifier
    license description origin_url paper_name paper_ids notes
    """.split()  # noqa: SIM905 - as a list it would be a page long
)


def config(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A08 and PH-A09: the config is missing, broken or has no class names."""
    if "config.json" not in snapshot.files:
        yield error("PH-A08", "config.json", "missing", "Give a model in the format of transformers or timm.")
        return
    content = snapshot.json("config.json")
    if not isinstance(content, dict):
        yield error("PH-A08", "config.json", "is no JSON object", "Download the model again.")
    elif not _names(content):
        yield warning(
            "PH-A09", "config.json", "no id2label", "Add the class names: images are matched to them by name."
        )


def _names(content: Mapping[str, Any]) -> object:
    """The class names, wherever transformers or timm may have put them."""
    inner = content.get("pretrained_cfg")
    places = (content, inner if isinstance(inner, dict) else {})
    return next(
        (place[key] for place in places for key in ("id2label", "label_names", "labels") if place.get(key)), None
    )


def broken_json(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A08: any other JSON file that is broken."""
    for name in snapshot.files:
        if name.endswith(".json") and name != "config.json" and snapshot.json(name) is None:
            yield error("PH-A08", name, "is no JSON", "Download the model again.")


def remote_code(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A04: a JSON file names code to run."""
    for file, key, value in json_items(snapshot):
        if key in _REMOTE_CODE and value:
            yield error("PH-A04", file, f"{key} = {value}", f"Remove {key}: only library classes are loaded.")


def kernels(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A05: a JSON file names compiled kernels on the Hub, which transformers would download and run.

    It would do so, too, for ``flash_attention_2`` where that is not installed.
    """
    for file, key, value in json_items(snapshot):
        named = list(strings(value))
        foreign = ("_implementation" in key or "kernel" in key) and any("/" in text for text in named)
        if "attn_implementation" in key or "experts_implementation" in key:
            foreign = foreign or not _OWN_IMPLEMENTATIONS.issuperset(named)
        if foreign:
            yield error(
                "PH-A05", file, f"{key} = {value}", f"Remove {key}: it would load code from another repository."
            )


def other_weights(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A11: something points the loader at other weights than the ones hashed."""
    if "adapter_config.json" in snapshot.listing:
        yield error(
            "PH-A11", "adapter_config.json", "loads another base model", "Merge the adapter into the weights first."
        )
    named = [(file, key, value) for file, key, value in json_items(snapshot) if key in _ELSEWHERE]
    named += [("config.json", key, value) for key, value in _pretrained_cfg(snapshot).items() if key in _TIMM_PLACES]
    for file, key, value in named:
        if value:
            yield error(
                "PH-A11", file, f"{key} = {value}", f"Remove {key}: it leads away from the files that were hashed."
            )


def timm_names(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A11: a name of timm's that is a place, or arguments that its builder would keep for itself."""
    content = snapshot.config
    for key in ("architecture", "model_name"):
        name = content.get(key)
        if name is not None and not is_network(name):
            advice = "Name an architecture of timm's, without a place such as hf-hub: or local-dir:."
            yield error("PH-A11", "config.json", f"{key} = {name!r}", advice)
    arguments = content.get("model_args")
    if arguments is not None and not isinstance(arguments, dict):
        yield error("PH-A08", "config.json", f"model_args = {arguments!r}", "Make it an object, or remove it.")
    for key, value in arguments.items() if isinstance(arguments, dict) else ():
        if key in TAKEN_BY_TIMM:
            evidence = f"model_args.{key} = {value!r}"
            yield error("PH-A11", "config.json", evidence, f"Remove {key}: it is for whoever builds the network.")


def sizes(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A33: more classes than any image classifier has."""
    inner = _pretrained_cfg(snapshot)
    for place in (snapshot.config, inner):
        for key in ("id2label", "label2id", "label_names", "label_descriptions", "labels", "num_classes", "num_labels"):
            value = place.get(key)
            count = len(value) if isinstance(value, dict | list) else value
            if isinstance(count, int | float) and count > MOST_CLASSES:
                yield error("PH-A33", "config.json", f"{key} is for {count:.0f} classes", "Use another model.")


def replaced_parts(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A17: the loader would swap modules of the library's class for others."""
    for key, value in items(snapshot.config):
        if key in _REPLACED_PARTS and value:
            yield error(
                "PH-A17", "config.json", f"{key} = {value}", "Give the model as it was before, in 16 or 32 bits."
            )


def labels(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A18: classes are not numbered from 0, or the two lists of their names contradict each other."""
    content = snapshot.config
    names, numbers = content.get("id2label"), content.get("label2id")
    if not isinstance(names, dict):
        return
    if set(names) != {str(number) for number in range(len(names))}:
        yield error("PH-A18", "config.json", f"id2label has the keys {sorted(names)[:5]}", "Number all classes from 0.")
    elif isinstance(numbers, dict):
        count = Counter(map(str, names.values()))  # ImageNet has two kinds of crane: only unique names say something
        once = {str(name): number for number, name in names.items() if count[str(name)] == 1}
        wrong = [(number, name) for name, number in once.items() if name in numbers and str(numbers[name]) != number]
        if wrong:
            number, name = wrong[0]
            evidence = f"id2label gives {name!r} the number {number}, label2id {numbers[name]}; {len(wrong)} such"
            yield warning("PH-A18", "config.json", evidence, "Find out which of the two the weights were trained with.")


def head(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A36: the config says that the model does not choose one class, which is all that is measured here."""
    kind = snapshot.config.get("problem_type")
    if kind not in (None, "", "single_label_classification"):
        advice = "Give a model that chooses one class: softmax, accuracy and distances mean nothing for this one."
        yield error("PH-A36", "config.json", f"problem_type = {kind}", advice)


def timm_settings(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A22: pretrained_cfg, which is about preparing images, holds something that changes the network."""
    inner = _pretrained_cfg(snapshot)
    for key in sorted(inner.keys() - _PRETRAINED_CFG):
        yield error("PH-A22", "config.json", f"pretrained_cfg.{key} = {inner[key]}", f"Remove {key}.")
    arguments, classes = snapshot.config.get("model_args"), snapshot.config.get("num_classes")
    if isinstance(arguments, dict) and classes and arguments.get("num_classes", classes) != classes:
        evidence = f"model_args.num_classes = {arguments['num_classes']}, but num_classes = {classes}"
        yield error("PH-A22", "config.json", evidence, "Make them equal: the classifier would be made anew.")
    if inner.get("label_offset"):
        evidence = f"pretrained_cfg.label_offset = {inner['label_offset']}"
        yield error("PH-A22", "config.json", evidence, "Remove it, and the extra rows of the classifier with it.")


def _pretrained_cfg(snapshot: Snapshot) -> dict[str, Any]:
    """What is recorded for timm about the weights, its pretrained_cfg; empty if there is none."""
    inner = snapshot.config.get("pretrained_cfg")
    return inner if isinstance(inner, dict) else {}


CHECKS = (
    config,
    broken_json,
    sizes,
    remote_code,
    kernels,
    other_weights,
    timm_names,
    replaced_parts,
    labels,
    head,
    timm_settings,
)
