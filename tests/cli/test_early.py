"""What is not there is refused when the command line is read, before torch is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)
MISSING: dict[str, tuple[list[str], str]] = {
    "model of an audit": (["audit", "no/such/folder"], "is neither an existing folder nor a Hub id"),
    "model": (["measure", "no/such/folder", "--images", HERE], "is neither an existing folder nor a Hub id"),
    "images": (["measure", HERE, "--images", "no/such/folder"], "is neither an existing file or folder nor a Hub id"),
    "labels": (["measure", HERE, "--images", HERE, "--labels", "none.txt"], "path 'none.txt' does not exist"),
    "backdoor": (["harden", HERE, "--images", HERE, "--backdoor", "none"], "path 'none' does not exist"),
    "policy": (["harden", HERE, "--images", HERE, "--policy", "none.toml"], "Cannot read none.toml"),
    "experiment": (["compare", "none.toml", "--out", "x"], "Cannot read none.toml"),
    "report": (["gate", "none"], "There is no file or folder none"),
}
CODE = """
import sys
from phard_hub.__main__ import main
sys.argv = ["phard", *sys.argv[1:]]
try:
    main()
finally:
    heavy = {"torch", "transformers", "datasets", "accelerate"} & sys.modules.keys()
    print("imported:", *sorted(heavy))
"""


@pytest.mark.parametrize(("arguments", "words"), MISSING.values(), ids=MISSING)
def test_nothing_heavy_is_imported_to_refuse(arguments: list[str], words: str, tmp_path: Path) -> None:
    refused_early(arguments, words, tmp_path)


@pytest.mark.usefixtures("hub")
def test_nor_to_refuse_the_audit_of_a_model_that_the_hub_does_not_have(tmp_path: Path) -> None:
    refused_early(["audit", "org/none"], "org/none", tmp_path)


def refused_early(arguments: list[str], words: str, folder: Path) -> None:
    command = [sys.executable, "-c", CODE, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == "imported:\n"
