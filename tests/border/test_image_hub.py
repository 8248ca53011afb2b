"""Data sets of strangers on a Hub: only their own files are read, and none is run."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from phard_hub.errors import HubUnavailableError, ImagesError
from phard_hub.images import sources
from tests.border.strangers import (
    NUMBERS,
    PNG,
    check_line,
    load,
    rows,
    table,
)
from tests.hub_server import Hub
from tests.jobs import LABELS


def in_bytes(made: pa.Table) -> bytes:
    data = io.BytesIO()
    pq.write_table(made, data)
    return data.getvalue()


def folder_on_hub(extra: dict[str, bytes]) -> dict[str, bytes]:
    return {**{f"train/{label}/{number}.png": PNG for label in LABELS for number in range(2)}, **extra}


def card(place: str) -> dict[str, bytes]:
    return {"README.md": f"---\nconfigs:\n- config_name: default\n  data_files: {place}\n---\n".encode()}


IMAGE_NOTE = b'{"info": {"features": {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": %s}}}}'
NAMED = b'["cat", "dog", "owl", "fox"]'
TRAITOR = table(rows(data=None, path="/etc/passwd"), NUMBERS).replace_schema_metadata(
    {b"huggingface": IMAGE_NOTE % NAMED}
)
BAD_HUB: dict[str, tuple[dict[str, bytes], str]] = {
    "a row names a file": ({"x.parquet": in_bytes(TRAITOR)}, "names /etc/passwd, which is no file of its own|no image"),
    "card names a file": (
        {**card("/etc/*.conf"), "x.csv": b"a\n1\n"},
        r"names /etc/\*\.conf, which is no file of its own",
    ),
    "card names an address": (folder_on_hub(card("http://127.0.0.1:9/x.zip")), "names http://127"),
    "card names a chain": (folder_on_hub(card('"zip://x::file:///etc/x.zip"')), "names zip://x::file"),
    "card leads up": (folder_on_hub(card("../other/*.png")), r"names \.\./other"),
    "other card": (
        folder_on_hub({".huggingface.yaml": b"configs:\n- config_name: default\n  data_files: /etc/*\n"}),
        "names /etc/",
    ),
    "table names a file": (
        folder_on_hub({"train/metadata.csv": b"file_name,label\n../../../../etc/passwd,cat\n"}),
        "cannot be read as images",
    ),
    "no images": ({"x.csv": b"image,label\n/etc/passwd,cat\n"}, "holds files for 'csv', not images"),
}


@pytest.mark.usefixtures("brief_waits")
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(("files", "words"), BAD_HUB.values(), ids=BAD_HUB)
def test_data_sets_on_a_hub(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes], words: str, large: bool
) -> None:
    monkeypatch.setattr(sources, "LARGE", 0 if large else 2**30)
    hub.create("org/data", files, kind="datasets")
    with pytest.raises((ImagesError, HubUnavailableError), match=words) as caught:
        load("org/data", max_images=4)
    assert caught.type is ImagesError
    check_line(str(caught.value))


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """A file that is there only if a script ran."""
    path = tmp_path / "ran"
    yield path
    assert not path.exists()


def test_a_script_in_a_data_set_is_not_run(hub: Hub, marker: Path) -> None:
    script = f"from pathlib import Path; Path({str(marker)!r}).touch()".encode()
    hub.create("org/data", folder_on_hub({"loader.py": script, "train/cat/setup.py": script}), kind="datasets")
    assert len(load("org/data")) == 8
    hub.create("org/scripted", folder_on_hub({"scripted.py": script}), kind="datasets")
    with pytest.raises(ImagesError, match="Dataset scripts are no longer supported"):
        load("org/scripted")
