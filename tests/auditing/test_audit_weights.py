"""Weights files that are broken or hold what is no number; each is one finding in one line."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from phard_hub.auditing import audit
from phard_hub.auditing.tensors import weights
from phard_hub.errors import AuditError
from phard_hub.hub.pull import pull
from tests.auditing.checkpoints import noticed

NAME = "model.safetensors"


@pytest.fixture
def model(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_checkpoint, tmp_path / "model")


def tensor(start: int, end: int, shape: Any = (1,), dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def file(header: Any, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


BROKEN: list[tuple[str, bytes, str]] = [
    ("empty", b"", "header too small"),
    ("cut off in the length", b"\1\2\3", "header too small"),
    ("header of a terabyte", struct.pack("<Q", 2**40) + b"{}", "header too large"),
    ("header above the limit", struct.pack("<Q", 100_000_001) + b" " * 100, "header too large"),
    ("header longer than the file", struct.pack("<Q", 1000) + b"{}", "invalid header length"),
    ("header is no JSON", file(b"PK\3\4"), "invalid JSON"),
    ("header is no text", file(b"\xff\xfe{}"), "invalid UTF-8"),
    ("header is deep", file(b'{"a":' + b"[" * 100_000), "recursion limit"),
    ("header is a list", file([]), "invalid type"),
    ("no tensors", file({}), "holds no tensors"),
    ("overlapping", file({"a": tensor(0, 4), "b": tensor(2, 6)}, b"\0" * 6), "invalid offset for tensor"),
    ("twice the same place", file({"a": tensor(0, 4), "b": tensor(0, 4)}, b"\0" * 4), "invalid offset for tensor"),
    ("a gap", file({"a": tensor(0, 4), "b": tensor(8, 12)}, b"\0" * 12), "invalid offset for tensor"),
    ("backwards", file({"a": tensor(4, 0)}, b"\0" * 4), "invalid"),
    ("beyond the end", file({"a": tensor(0, 400, [100])}, b"\0" * 4), "not fully covered"),
    ("more bytes than tensors", file({"a": tensor(0, 4)}, b"\0" * 400), "not fully covered"),
    ("shape says more", file({"a": tensor(0, 4, [2])}, b"\0" * 4), "invalid shape"),
    ("dtype says more", file({"a": tensor(0, 4, [1], "F64")}, b"\0" * 4), "invalid shape"),
    ("negative shape", file({"a": tensor(0, 4, [-1])}, b"\0" * 4), "invalid value"),
    ("enormous shape", file({"a": tensor(0, 4, [2**62, 2**62])}, b"\0" * 4), "overflow"),
    ("unknown dtype", file({"a": tensor(0, 4, [1], "X9")}, b"\0" * 4), "unknown variant"),
    ("a pickle", b"\x80\x04\x95\0\0\0\0\0\0\0\0cos\nsystem\n.", "invalid header length"),
]


@pytest.mark.parametrize(("content", "expected"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_broken_files(model: Path, content: bytes, expected: str) -> None:
    (model / NAME).write_bytes(content)
    result = audit(pull(str(model)))
    finding, *_ = result.findings
    assert [error.id for error in result.errors] == ["PH-A13"]
    assert (finding.id, finding.severity, finding.file) == ("PH-A13", "error", NAME)
    assert expected in finding.evidence
    with pytest.raises(AuditError, match="PH-A13") as caught:
        result.require()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("size", [7, 100, 5000, -1])
def test_a_file_cut_off(model: Path, size: int) -> None:
    content = (model / NAME).read_bytes()
    (model / NAME).write_bytes(content[:size])
    assert [finding.id for finding in noticed(model)] == ["PH-A13"]


def change(model: Path, **tensors: torch.Tensor) -> None:
    save_file({**load_file(model / NAME), **tensors}, model / NAME, metadata={"format": "pt"})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_no_numbers(model: Path, dtype: torch.dtype, value: float) -> None:
    bias = torch.zeros(4, dtype=dtype)
    bias[2] = value
    change(model, **{"classifier.1.bias": bias})
    (finding,) = noticed(model)
    assert (finding.id, finding.severity) == ("PH-A14", "error")
    assert finding.evidence == "NaN or infinity in classifier.1.bias"


def test_numbers_too_large_for_the_32_bits_they_are_loaded_in(model: Path) -> None:
    change(model, **{"classifier.1.bias": torch.full((4,), 1e300, dtype=torch.float64)})
    assert [finding.id for finding in noticed(model)] == ["PH-A14"]


def test_many_broken_tensors_are_one_finding(model: Path) -> None:
    change(model, **{f"x{number}": torch.full((2,), float("nan")) for number in range(100)})
    (finding,) = noticed(model)
    assert finding.evidence == "NaN or infinity in x0 and 99 more"


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64, torch.uint16])
def test_formats_that_classifiers_are_not_computed_in(model: Path, dtype: torch.dtype) -> None:
    change(model, **{"classifier.1.bias": torch.zeros(4, dtype=torch.float32).to(dtype)})
    (finding,) = noticed(model)
    assert (finding.id, finding.severity) == ("PH-A15", "error")
    assert "classifier.1.bias" in finding.evidence


def test_half_a_byte_a_number(model: Path) -> None:
    (model / NAME).write_bytes(file({"a": tensor(0, 1, [2], "F4")}, b"\0"))
    (finding,) = noticed(model)
    assert (finding.id, finding.evidence) == ("PH-A15", "a (F4)")


def test_counters_and_flags_pass(model: Path) -> None:
    change(model, steps=torch.tensor(3), flags=torch.tensor([True, False]))
    assert list(weights(pull(str(model)))) == []


def test_each_shard_is_looked_at(model: Path) -> None:
    shard = "model-00002-of-00002.safetensors"
    save_file({"b": torch.tensor([float("nan")])}, model / shard)
    assert [(finding.id, finding.file) for finding in noticed(model)] == [("PH-A14", shard)]
