"""The README tells the truth: its commands and its example; and so do the help texts and the list of files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
VERBS = {
    "quickstart",
    "undetectable",
    "measure",
    "plant",
    "compare",
    "demo",
    "harden",
    "launch",
    "gate",
    "audit",
    "push",
    "card",
    "policy",
    "sign",
    "verify",
}
PLAIN = {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb", "_TYPER_FORCE_DISABLE_TERMINAL": "1"}


def help_of(*arguments: str) -> str:
    """What a command prints on a plain terminal of 80 columns."""
    kept = {
        key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS")
    }
    run = [sys.executable, "-m", "phard_hub", *arguments, "--help"]
    return subprocess.run(run, env={**kept, **PLAIN}, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_the_help_names_each_verb_and_the_exit_codes() -> None:
    shown = help_of()
    assert set(re.findall(r"^│ (\w+) {2,}\w", shown.split("Commands")[1], re.MULTILINE)) == VERBS
    assert "0 passed or done, 1 refused, 2 wrong use" in " ".join(shown.split())


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_each_verb_has_help(verb: str) -> None:
    assert f"Usage: phard {verb}" in help_of(verb)


def test_it_is_short() -> None:
    assert len(README.read_bytes()) <= 15_000


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/limits.md",
        "docs/many-machines.md",
        "CONTRIBUTING.md",
        "tests/benchmarks/RESULTS.md",
        "tests/benchmarks/MODELS.md",
    ],
)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", path.read_text("utf-8")):
        assert (path.parent / target).exists(), target


def test_the_two_commands_are_there() -> None:
    shown = re.findall(r"```sh\n(.*?)\n```", README.read_text("utf-8"), re.DOTALL)
    assert "pip install -c constraints.txt . && phard quickstart" in shown
    assert 'pip install -c constraints.txt -e ".[dev]" && pytest -n 2' in shown
    assert "pytest -n 2" in (ROOT / ".ci" / "run").read_text("utf-8")


def test_the_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)\n```", README.read_text("utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert re.search(r"^accuracy (8|9)\d\.\d\d %", capsys.readouterr().out)


def listed_files() -> list[str]:
    """The paths in the tree of CONTRIBUTING; two spaces are one level."""
    block = (ROOT / "CONTRIBUTING.md").read_text("utf-8").split("## Files")[1].split("```")[1].removeprefix("text\n")
    paths, folders = [], [""]
    for line in block.strip().splitlines():
        name, meaning = re.split(r"  +", line.strip(), maxsplit=1)
        assert meaning, line
        level = (len(line) - len(line.lstrip())) // 2
        folders[level + 1 :] = [folders[level] + name]
        paths.append(folders[level] + name)
    return paths


def test_the_tree_is_the_real_one() -> None:
    listed = listed_files()
    assert len(set(listed)) == len(listed)
    for path in listed:
        assert (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file(), path
    real = {path.relative_to(ROOT).as_posix() for path in (ROOT / "phard_hub").rglob("*") if path.is_file()}
    real = {path for path in real if "__pycache__" not in path}
    assert real == {path for path in listed if path.startswith("phard_hub/") and not path.endswith("/")}
