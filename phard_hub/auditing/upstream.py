"""A model's config against that of the model it was made from: what may not differ between the two.

Weights of the same names and shapes compute something else under another activation, pooling or norm, and
no retraining removes what was hidden there. So the config is compared field by field with that of the
upstream model, after the library's config class has filled in what either leaves out. Without an upstream
model, only what is unusual for the class can be seen, and the audit says that this was all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from phard_hub.errors import CheckpointError, PhardError, RepoError, first_line
from phard_hub.hub.metadata import metadata_of
from phard_hub.hub.names import is_repo_id
from phard_hub.hub.pull import pull, pull_from_hub
from phard_hub.hub.snapshot import Snapshot
from phard_hub.models.timm_format import WEIGHTS, unaccounted
from phard_hub.report.findings import error, note, warning
from phard_hub.report.record import Finding
from phard_hub.report.wording import flat

# Fields that an honest copy changes, or that the class reads only when it trains, is initialised or is a backbone.
_FREE = frozenset(
    """
    id2label label2id num_labels num_classes label_names image_size problem_type architectures dtype torch_dtype
    transformers_version _name_or_path is_encoder_decoder chunk_size_feed_forward
    return_dict output_attentions output_hidden_states use_cache
    initializer_range initializer_factor layer_norm_init batch_norm_momentum mask_ratio semantic_loss_ignore_index
    use_auxiliary_head auxiliary_loss_weight auxiliary_channels auxiliary_num_convs auxiliary_concat_input
    out_features out_indices stage_names bos_token_id eos_token_id pad_token_id
    """.split()  # noqa: SIM905 - as a list it would be a page long
)
_PREPARATION = (
    *("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "resample"),
    *("mean", "std", "interpolation"),  # timm
)
_TIMM_PARTS = ("model_args", "pretrained_cfg", "architecture")
_FILE = "config.json"


def find(snapshot: Snapshot, given: str | None) -> tuple[Snapshot | None, list[Finding]]:
    """The upstream model, the given one or else the configs of the one that the card names; and why there is none.

    Raises:
        RepoError: a given upstream model does not exist or is not accessible.
        HubUnavailableError: the Hub did not answer when asked for a given upstream model.
    """
    if given:
        return _given(given)
    card = metadata_of(snapshot.folder)
    if card.problem:
        return None, [_not_compared(f"the metadata of the card cannot be read: {card.problem}")]
    named = card.fields.get("base_model")
    names = [str(name) for name in (named if isinstance(named, list) else [named] if named else [])]
    if not names:
        return None, []
    problem = ""
    if len(names) > 1:
        problem = f"the card names several: {', '.join(names)}"
    elif not is_repo_id(names[0]):  # a stranger's card does not choose what is read here
        problem = f"{names[0]} is no id of a model on the Hub"
    elif names[0].casefold() == snapshot.repo.casefold():
        problem = "the card names this very repository"
    else:
        try:
            return pull_from_hub(names[0], weights=False), []
        except PhardError as missing:
            problem = missing.problem
    return None, [_not_compared(problem)]


def _given(name: str) -> tuple[Snapshot, list[Finding]]:
    """The model that the user named: with its weights, if they are there to be read."""
    try:
        return pull(name), []
    except RepoError as missing:
        theirs = pull(name, weights=False)  # raises the same where it is not only the weights that are missing
        advice = "Name an upstream model with safetensors, or compare the tensors by hand."
        return theirs, [note("PH-A40", WEIGHTS, f"the tensors were compared with nothing: {missing.problem}", advice)]


def _not_compared(problem: str) -> Finding:
    return warning("PH-A26", "README.md", problem, "Name the model that it was made from: --upstream.")


def compare(snapshot: Snapshot, theirs: Snapshot | None, *, given: bool, allow: Collection[str]) -> Iterator[Finding]:
    """PH-A19 to PH-A27: how the config differs from that of the upstream model, or from what is usual without one.

    Args:
        snapshot: the model.
        theirs: the upstream model.
        given: whether the user named it, so that nothing is done without it.
        allow: fields that the user knows to differ.
    """
    if not snapshot.config:
        return  # PH-A08
    try:
        ours = _design(snapshot)
    except CheckpointError as refusal:
        yield error("PH-A19", _FILE, refusal.problem, refusal.advice)
        return
    try:
        reference = _design(theirs) if theirs else None
    except CheckpointError as refusal:
        yield error("PH-A26", _FILE, refusal.problem, refusal.advice) if given else _not_compared(refusal.problem)
        reference = None
    if reference is None:
        yield from _without_upstream(ours, allow)
    else:
        yield from _with_upstream(ours, reference, allow)


@dataclass(frozen=True)
class _Design:
    """What a model computes, without its weights.

    Attributes:
        snapshot: where this was read.
        fields: all fields of the config that may not differ; nested ones as ``vision_config.hidden_act``.
        usual: their values where the config says nothing; empty for timm, where the architecture says it.
        classes: the names of the classes; empty if there are none or their numbers make no sense.
        preparation: how images are made ready, as far as fields say it; their size is free to change.
    """

    snapshot: Snapshot
    fields: dict[str, Any]
    usual: dict[str, Any]
    classes: tuple[str, ...]
    preparation: dict[str, Any]

    @property
    def name(self) -> str:
        """The repository and its commit; of a folder its name only, because findings are published in reports."""
        commit = self.snapshot.commit
        return f"{self.snapshot.repo}@{commit[:12]}" if commit else self.snapshot.folder.name


def _design(snapshot: Snapshot) -> _Design:
    """Read a model's config; the library's config class fills in what it leaves out.

    Raises:
        CheckpointError: it cannot be read, or is no config of the class that it names.
    """
    config = snapshot.config
    advice = "Compare its config.json with that of the model it was made from."
    if not config:
        raise CheckpointError(f"{snapshot.repo} has no config.json that can be read.", advice=advice)
    try:
        fields, usual = _fields(config)
    except (CheckpointError, MemoryError):
        raise
    except Exception as refusal:  # the library's classes raise all kinds of errors at hostile values
        problem = f"The config of {snapshot.repo} is none of its class: {first_line(refusal)}."
        raise CheckpointError(problem, advice=advice) from refusal
    return _Design(snapshot, fields, usual, _class_names(config), _preparation(snapshot, config))


def _fields(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields that may not differ, and their values where the config says nothing."""
    fields, usual = {}, {}
    if "model_type" in config or "architecture" not in config:
        usual = _flat(_library_config(config, defaults=True))
        fields = _flat(_library_config(config))
    if "architecture" in config:  # timm's own format, or transformers' wrapper around it
        fields = {name: value for name, value in fields.items() if name.partition(".")[0] not in _TIMM_PARTS}
        fields |= {"architecture": config["architecture"], **_timm_arguments(config)}
    return fields, usual


def _timm_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of timm's constructor, without those that are seen to change nothing, or seen in the tensors."""
    arguments = config.get("model_args") or {}
    return {f"model_args.{name}": arguments[name] for name in unaccounted(config["architecture"], arguments)}


def _library_config(config: Mapping[str, Any], *, defaults: bool = False) -> dict[str, Any]:
    """A config as the library's class completes it, or its defaults; only the type if that is unknown."""
    from transformers import CONFIG_MAPPING

    kind = str(config.get("model_type"))
    if kind not in CONFIG_MAPPING:
        return {"model_type": kind}
    cls: Any = CONFIG_MAPPING[kind]
    usual = cls().to_dict()
    # what the class does not know does nothing
    return (
        usual
        if defaults
        else {key: value for key, value in cls.from_dict(dict(config)).to_dict().items() if key in usual}
    )


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that may matter; JSON has no tuples."""
    kept = flat(fields, keep=lambda key: key not in _FREE and not _drops(key))
    return {name: list(value) if isinstance(value, tuple) else value for name, value in kept}


def _drops(key: str) -> bool:
    """Whether a field is a rate of dropout or stochastic depth, which do nothing in evaluation."""
    return any(word in key for word in ("dropout", "pdrop", "drop_rate", "drop_path", "drop_connect"))


def _is_activation(value: object) -> bool:
    from transformers.activations import ACT2FN

    return isinstance(value, str) and value in ACT2FN


def _with_upstream(ours: _Design, theirs: _Design, allow: Collection[str]) -> Iterator[Finding]:
    yield from _other_fields(ours, theirs, allow)
    yield from _other_classes(ours, theirs)
    yield from _other_preparation(ours, theirs)


def _other_fields(ours: _Design, theirs: _Design, allow: Collection[str]) -> Iterator[Finding]:
    """PH-A20 to PH-A22: what is computed is not what the upstream model computes."""
    keys = sorted(ours.fields.keys() | theirs.fields.keys())
    differing = [key for key in keys if ours.fields.get(key) != theirs.fields.get(key)]
    # two kinds of models have no fields to compare
    for key in [key for key in differing if key in ("model_type", "architecture")] or differing:
        here, there = ours.fields.get(key), theirs.fields.get(key)
        id_ = "PH-A22" if key.startswith("model_args.") else "PH-A20" if _is_activation(there) else "PH-A21"
        yield _differs(id_, key, f"{key} is {here!r}; {theirs.name} has {there!r}", allow)


def _differs(id_: str, key: str, evidence: str, allow: Collection[str]) -> Finding:
    if _is_allowed(key, allow):
        return note(id_, _FILE, f"{evidence}; allowed by the user", "Nothing, as long as this is meant.")
    advice = f"Ask its owner why, and do not use it if nobody knows; if it is meant: --allow {key}."
    return error(id_, _FILE, evidence, advice)


def _is_allowed(key: str, allow: Collection[str]) -> bool:
    """Whether the user allows a field, by its full name or by its last part."""
    return key in allow or key.rsplit(".", 1)[-1] in allow


def _class_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    names = config.get("id2label") or config.get("label_names") or []
    if isinstance(names, dict):
        try:
            names = [names[key] for key in sorted(names, key=int)]
        except ValueError:
            return ()
    return tuple(str(name) for name in names) if isinstance(names, list) else ()


def _other_classes(ours: _Design, theirs: _Design) -> Iterator[Finding]:
    """PH-A23: as many classes, but names of them in other places."""
    if len(ours.classes) != len(theirs.classes):
        return  # other classes
    count = Counter(theirs.classes)
    place = {label: index for index, label in enumerate(theirs.classes) if count[label] == 1}
    moved = [(label, index) for index, label in enumerate(ours.classes) if place.get(label, index) != index]
    if moved:
        label, index = moved[0]
        evidence = f"{label!r} is class {index}; {theirs.name} has it as {place[label]}; {len(moved)} such"
        yield warning("PH-A23", _FILE, evidence, "Try it on images of these classes before you rely on its names.")


def _preparation(snapshot: Snapshot, config: Mapping[str, Any]) -> dict[str, Any]:
    fields = config.get("pretrained_cfg")
    if not isinstance(fields, dict):
        name = "preprocessor_config.json"
        fields = snapshot.json(name)
    return {key: fields[key] for key in _PREPARATION if key in fields} if isinstance(fields, dict) else {}


def _other_preparation(ours: _Design, theirs: _Design) -> Iterator[Finding]:
    """PH-A24: other colours or another filter than the weights of the upstream model were trained with."""
    for key in sorted(ours.preparation.keys() & theirs.preparation.keys()):
        here, there = ours.preparation[key], theirs.preparation[key]
        if here != there:
            evidence = f"{key} is {here}; {theirs.name} has {there}"
            yield warning("PH-A24", "preprocessor_config.json", evidence, "Find out what it was trained with.")


def _without_upstream(ours: _Design, allow: Collection[str]) -> Iterator[Finding]:
    """PH-A22, PH-A25, PH-A27: what is unusual for the class or architecture, and that nothing else was seen."""
    for key, value in ours.fields.items():
        usual = ours.usual.get(key)
        if key.startswith("model_args."):
            yield _differs("PH-A22", key, f"{key} is {value!r}; the architecture is made without it", allow)
        elif _is_activation(usual) and value != usual:
            make = note if _is_allowed(key, allow) else warning
            advice = f"Name the model that it was made from: --upstream; if it is meant: --allow {key}."
            yield make("PH-A25", _FILE, f"{key} is {value!r}; usual for the class is {usual!r}", advice)
    others = [key for key in ours.fields if not _is_activation(ours.usual.get(key)) and key != "model_type"]
    rest = f"{', '.join(others[:3])} and {len(others) - 3} more fields" if len(others) > 3 else ", ".join(others)
    advice = "Name the model that it was made from, if there is one: --upstream."
    yield note("PH-A27", _FILE, f"compared with nothing: class names, image processor, {rest}", advice)
