"""Any bytes in place of a model's JSON or of its weights: the audit answers, within its limits, and crashes nowhere.

PHARD_FUZZ=20000 asks for so many examples instead of the few of a suite.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from phard_hub.auditing import CHECKS, audit
from phard_hub.auditing.tensors import weights
from phard_hub.hub.pull import pull
from phard_hub.models.loading import load
from tests.auditing.checkpoints import LABELS, save_vit

EXAMPLES = int(os.environ.get("PHARD_FUZZ", "0"))
NAME = "model.safetensors"


def fuzz(examples: int) -> settings:
    return settings(
        max_examples=EXAMPLES or examples,
        deadline=None,
        derandomize=not EXAMPLES,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


NUMBERS = some.one_of(some.integers(-3, 40), some.sampled_from([2**31, 2**63, 10**30, -1, 0.5, 1e300]))
TEXTS = some.one_of(
    some.text(max_size=8),
    some.sampled_from(
        ["../x", "/etc/passwd", "a/b", "hf-hub:a/b", "gelu", "silu", "vit", "bert", "\x1b[31m", "[/red]"]
    ),
)
PLAIN = some.one_of(some.none(), some.booleans(), NUMBERS, TEXTS)
JSON = some.recursive(
    PLAIN, lambda inner: some.lists(inner, max_size=4) | some.dictionaries(TEXTS, inner, max_size=4), max_leaves=8
)
KEYS = some.one_of(
    some.sampled_from(
        """
        model_type hidden_size num_hidden_layers num_attention_heads intermediate_size image_size patch_size
        num_channels
        hidden_act id2label label2id num_labels architectures qkv_bias layer_norm_eps attn_implementation auto_map dtype
        torch_dtype return_dict output_attentions output_hidden_states problem_type quantization_config
        configuration_files transformers_weights architecture model_args pretrained_cfg num_classes label_names
        pooler_act pooler_output_size encoder_stride hidden_dropout_prob initializer_range transformers_version
        """.split()  # noqa: SIM905 - as a list it would be a page long
    ),
    some.text(max_size=8),
)
PROCESSOR_KEYS = some.one_of(
    some.sampled_from(
        """
        do_resize do_rescale do_normalize do_center_crop size crop_size resample rescale_factor image_mean image_std
        image_processor_type feature_extractor_type processor_class auto_map crop_pct do_convert_rgb backend
        """.split()  # noqa: SIM905 - as a list it would be a page long
    ),
    some.text(max_size=8),
)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny vision transformer; do not change it."""
    return save_vit(tmp_path_factory.mktemp("vit"))


@pytest.fixture(scope="module")
def model(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, whose files each example writes anew."""
    return shutil.copytree(original, tmp_path_factory.mktemp("models") / "model")


def changed(original: Path, name: str, entries: dict[str, Any]) -> bytes:
    return json.dumps({**json.loads((original / name).read_text()), **entries}).encode()


def require_answer(model: Path) -> None:
    """The audit says what is wrong, or runs into a limit, and crashes nowhere; what it lets pass is loaded."""
    result = audit(pull(str(model)))
    assert not [found for found in result.findings if found.id in ("PH-A34", "PH-A99")], result.findings
    if not result.errors:
        load(result)


@fuzz(25)
@given(entries=some.dictionaries(KEYS, JSON, min_size=1, max_size=4))
def test_any_entries_of_the_config(original: Path, model: Path, entries: dict[str, Any]) -> None:
    shutil.copy(original / "preprocessor_config.json", model)
    (model / "config.json").write_bytes(changed(original, "config.json", entries))
    require_answer(model)


@fuzz(25)
@given(entries=some.dictionaries(PROCESSOR_KEYS, JSON, min_size=1, max_size=4))
def test_any_entries_of_the_image_processor(original: Path, model: Path, entries: dict[str, Any]) -> None:
    shutil.copy(original / "config.json", model)
    (model / "preprocessor_config.json").write_bytes(changed(original, "preprocessor_config.json", entries))
    require_answer(model)


@fuzz(100)
@given(content=some.one_of(some.binary(max_size=200), JSON.map(lambda value: json.dumps(value).encode())))
def test_any_json(original: Path, model: Path, content: bytes) -> None:
    """By the checks of files, which read it themselves."""
    for name in ("config.json", "preprocessor_config.json", "model.safetensors.index.json"):
        (model / name).write_bytes(content)
    try:
        snapshot = pull(str(model))
        assert [found for check in CHECKS for found in check(snapshot)]
    finally:
        (model / "model.safetensors.index.json").unlink()


TENSOR = some.fixed_dictionaries(
    {},
    optional={
        "dtype": some.one_of(some.sampled_from(["F32", "BF16", "I8", "F8_E4M3", "F4", "X"]), JSON),
        "shape": some.one_of(some.lists(some.integers(0, 8), max_size=3), JSON),
        "data_offsets": some.one_of(some.tuples(some.integers(0, 64), some.integers(0, 64)).map(list), JSON),
    },
)
HEADER = some.dictionaries(some.one_of(some.sampled_from([*LABELS, "__metadata__"]), TEXTS), TENSOR | JSON, max_size=4)


@fuzz(200)
@given(header=HEADER, length=some.none() | some.integers(0, 2**64 - 1), body=some.binary(max_size=64))
def test_any_header_of_the_weights(
    original: Path, model: Path, header: dict[str, Any], length: int | None, body: bytes
) -> None:
    text = json.dumps(header).encode()
    (model / NAME).write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + body)
    try:
        for found in weights(pull(str(model))):
            assert found.severity == "error"
    finally:
        shutil.copy(original / NAME, model)
