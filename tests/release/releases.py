"""Releases to push, and what to compare with what arrived."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi

from phard_hub.release.foreign import END, START
from phard_hub.release.release import weights_sha256, write_release
from phard_hub.report.gate import gate
from phard_hub.report.policy import Policy
from phard_hub.report.record import Source
from phard_hub.report.views.plots import GalleryRow
from tests.hub_server import Hub
from tests.report_factory import make_report

CONFIG, PROCESSOR = b'{"model_type":  "resnet"}\r\n', b'{"size": 32 }'
STRICT = Policy(min_accuracy=0.99)
BASE_CARD = """---
license: other
license_name: terms
license_link: LICENSE
language: no
---

# The base

Made of \\1 and $5.
"""
OWN_CARD = f"---\r\nwidget:\n- src: cat.png\ntags:\n- mine\n---\n\n# Mine \r\n\n{START}\nold\n{END}\nMore,\tno end"


def make_release(
    folder: Path, *, seed: int = 0, gallery: bool = True, base_card: str = BASE_CARD, **changes: Any
) -> Path:
    """A release of an invented model from org/base."""
    source = folder.with_name(f"{folder.name}-source")
    source.mkdir()
    for name, content in (("config.json", CONFIG), ("preprocessor_config.json", PROCESSOR)):
        (source / name).write_bytes(content)
    (source / "README.md").write_text(base_card)
    weights = {"a": torch.randn(40, 3, generator=torch.Generator().manual_seed(seed))}
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in source.iterdir()}
    origin = Source(repo="org/base", commit="0123456789abcdef" * 2 + "01234567", license="other", files=hashes)
    report = make_report(**{"source": origin, **changes})
    report = report.model_copy(update={"source": report.source.model_copy(update={"files": hashes})})
    assert report.after is not None
    after = report.after.model_copy(update={"weights_sha256": weights_sha256(weights)})
    image = torch.full((8, 8, 3), 0.5).numpy()
    report = report.model_copy(update={"after": after})
    return write_release(
        folder,
        report=report,
        verdict=gate(report, Policy()),
        weights=weights,
        source_folder=source,
        gallery=[GalleryRow("cat -> dog", image, image + 0.02)] if gallery else (),
    )


def commits(hub: Hub, repo: str = "me/model") -> int:
    return len(HfApi().list_repo_commits(repo))


def without_card(files: dict[str, bytes]) -> dict[str, bytes]:
    return {path: content for path, content in files.items() if path not in ("README.md", ".gitattributes")}


def on_disk(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
