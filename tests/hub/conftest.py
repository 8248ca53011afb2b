"""Shared by the tests of the border to the Hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from phard_hub.hub import refusals


@pytest.fixture
def files(tiny_checkpoint: Path) -> dict[str, str | bytes]:
    found: dict[str, str | bytes] = {path.name: path.read_bytes() for path in tiny_checkpoint.iterdir()}
    return found | {
        "README.md": "---\nlicense: mit\n---\n# Tiny\n",
        "pytorch_model.bin": b"\x80\x04pickle",
        "code.py": "raise SystemExit",
        "onnx/model.safetensors": b"another format",
    }


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Further tries come at once."""
    monkeypatch.setattr(refusals, "WAITS", (0.0, 0.01, 0.01))
