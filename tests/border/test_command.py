"""The command itself in places that a stranger prepared."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SHADOWS = ("typing", "traceback", "typer", "rich", "yaml", "pydantic", "torch", "tomllib", "importlib", "json")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder with modules that bear the names of those that the command needs."""
    for name in SHADOWS:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a stranger's module ran')")
    return tmp_path


@pytest.mark.parametrize("flags", [("-m",), ("-um",), ("-u", "-m"), ("-P", "-m")])
@pytest.mark.parametrize("arguments", [("policy",), ("gate", "no-such-report")])
def test_modules_of_the_working_directory_are_not_imported(
    hostile: Path, flags: tuple[str, ...], arguments: tuple[str, ...]
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, *flags, "phard_hub", *arguments]
    done = subprocess.run(command, cwd=hostile, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == (0 if arguments == ("policy",) else 2), done.stderr
    assert "stranger" not in done.stdout + done.stderr


def test_the_package_itself_is_found_beside_it(tmp_path: Path) -> None:
    """As in a checkout that is not installed."""
    (tmp_path / "phard_hub").symlink_to(Path(__file__).parents[2] / "phard_hub")
    command = [sys.executable, "-m", "phard_hub", "policy"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0


def test_importing_the_library_leaves_the_path_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import sys; before = list(sys.path); import phard_hub; assert sys.path == before"
    )
    assert subprocess.run([sys.executable, "-m", "mine"], cwd=tmp_path, check=False).returncode == 0
