"""The public names are what they say, and cost nothing until they are used."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import phard_hub
from tests.report_factory import make_report

ROOT = Path(__file__).parents[1]
HEAVY = "torch", "transformers", "huggingface_hub", "datasets", "accelerate"


def heavy_after(code: str, heavy: tuple[str, ...] = HEAVY) -> str:
    """Which of the heavy packages a fresh interpreter has imported after running this."""
    report = f"import sys\n{code}\nprint([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", report], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


def test_the_names_are_complete_and_real() -> None:
    assert set(phard_hub.__all__) == phard_hub._HOMES.keys()
    assert set(phard_hub.__all__) <= set(dir(phard_hub))
    for name in phard_hub.__all__:
        value = getattr(phard_hub, name)
        if name.isupper():  # a table
            assert value
            continue
        assert value.__name__ == name
        # A package gives the names of its modules.
        assert f"{value.__module__}.".startswith(f"phard_hub.{phard_hub._HOMES[name]}.")
        assert value.__doc__


def test_the_pipeline_waits_for_what_builds_models_and_draws_plots() -> None:
    """They take four seconds of computing, and a wrong path or broken images should not."""
    heavy = ("transformers.modeling_utils", "torch._dynamo", "scipy", "sklearn", "matplotlib", "torchvision")
    assert heavy_after("import phard_hub.pipeline", heavy) == "[]"


@pytest.mark.parametrize("package", ["attacks", "attacks.undetectable", "defenses", "images", "report", "triggers"])
def test_the_names_of_a_package(package: str) -> None:
    """They are real; what a table holds can be imported beside it."""
    module = import_module(f"phard_hub.{package}")
    assert all(getattr(module, name) is not None for name in module.__all__)
    for table in {"ATTACKS", "DEFENSES"} & set(module.__all__):
        made = {type(make()).__name__ for make in getattr(module, table).values()}
        assert made <= set(module.__all__)


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'hadren'"):
        _ = phard_hub.hadren  # type: ignore[attr-defined]


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert heavy_after("import phard_hub; phard_hub.Policy, phard_hub.Report, phard_hub.gate") == "[]"


def test_the_gate_imports_nothing_heavy(tmp_path: Path) -> None:
    """Neither to read a report, nor to look at the files of a folder, which has no weights here."""
    report = tmp_path / "phard_report.json"
    report.write_text(make_report().to_json())
    code = "import sys\nfrom phard_hub.__main__ import main"
    for place, verdict in (report, 0), (tmp_path, 1):
        code += (
            f"\nsys.argv = ['phard', 'gate', {str(place)!r}]"
            f"\ntry:\n    main()\nexcept SystemExit as stop:\n    assert stop.code == {verdict}, stop.code"
        )
    assert heavy_after(code) == "[]"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["measure", "nowhere/at/all", "--images", "x"], "neither an existing folder nor a Hub id"),
        (["harden", ".", "--images", "nowhere/at/all"], "neither an existing file or folder nor a Hub id"),
        (["harden", ".", "--images", ".", "--test-images", "x.parquet"], "neither an existing file or folder"),
        (["harden", ".", "--images", ".", "--policy", "nowhere.toml"], "Cannot read nowhere.toml"),
        (["plant", "a b", "--images", ".", "--attack", "sig", "--out", "x"], "neither an existing folder nor a Hub id"),
        (["compare", "nowhere.toml", "--out", "x"], "Cannot read nowhere.toml"),
        (["audit", "nowhere/at/all"], "neither an existing folder nor a Hub id"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_not_there_is_refused_before_anything_heavy_is_imported(arguments: list[str], said: str) -> None:
    code = (
        f"import sys, io\nsys.argv, sys.stderr = ['phard', *{arguments!r}], io.StringIO()"
        "\nfrom phard_hub.__main__ import main\ntry:\n    main()\nexcept SystemExit as stop:\n    assert stop.code == 2"
        f"\nassert {said!r} in sys.stderr.getvalue(), sys.stderr.getvalue()"
    )
    assert heavy_after(code) == "[]"


def test_annotations_may_be_used() -> None:
    assert (ROOT / "phard_hub" / "py.typed").is_file()
