"""The README tells the truth: its help texts, its commands, its example and its list of files.

Run as a program (``python -m tests.test_readme``), this writes the help texts into the README anew.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
OUTPUT = re.compile(r"<!-- output: (phard[^>]*?) -->\n(?:\n```text\n(.*?)\n```\n)?", re.DOTALL)
PLAIN = {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb", "_TYPER_FORCE_DISABLE_TERMINAL": "1"}


def output_of(command: str) -> str:
    """What a command prints on a plain terminal of 80 columns."""
    kept = {
        key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS")
    }
    run = [sys.executable, "-m", "phard_hub", *command.split()[1:]]
    done = subprocess.run(run, env={**kept, **PLAIN}, cwd=ROOT, capture_output=True, text=True, check=True)
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines()).strip()


def renew() -> None:
    """Write the outputs that the README shows anew."""

    def block(match: re.Match[str]) -> str:
        return f"<!-- output: {match[1]} -->\n\n```text\n{output_of(match[1])}\n```\n"

    README.write_text(OUTPUT.sub(block, README.read_text("utf-8")), "utf-8")


SHOWN: dict[str, str] = dict(OUTPUT.findall(README.read_text("utf-8")))


@pytest.mark.parametrize("command", SHOWN)
def test_the_outputs_shown_are_the_real_ones(command: str) -> None:
    assert SHOWN[command] == output_of(command), "run `python -m tests.test_readme` to renew the README"


def test_each_verb_is_shown() -> None:
    verbs = re.findall(r"^│ (\w+) {2,}", SHOWN["phard --help"].split("Commands")[1], re.MULTILINE)
    expected = {"quickstart", "measure", "plant", "compare", "harden", "gate", "audit", "push", "card", "policy"}
    assert expected == set(verbs)
    assert all(any(command.split()[1] == verb for command in SHOWN) for verb in verbs)


def test_the_two_commands_are_there() -> None:
    shown = re.findall(r"```sh\n(.*?)\n```", README.read_text("utf-8"), re.DOTALL)
    assert "pip install -c constraints.txt . && phard quickstart" in shown
    assert 'pip install -c constraints.txt -e ".[dev]" && pytest' in shown


def test_the_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)\n```", README.read_text("utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert re.search(r"^accuracy (8|9)\d\.\d\d %", capsys.readouterr().out)


def listed_files() -> list[str]:
    """The paths in the README's tree; two spaces are one level."""
    block = README.read_text("utf-8").split("## Files")[1].split("```")[1].removeprefix("text\n")
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


def test_no_claim_that_nothing_can_back() -> None:
    text = README.read_text("utf-8").casefold()
    for word in ("backdoor-free", "is clean", "is safe", "guarantee", "certified safe"):
        assert word not in text


if __name__ == "__main__":
    renew()
