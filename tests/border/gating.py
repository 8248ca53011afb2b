"""How `phard gate` ends on what anybody may have written, watched in this process.

PHARD_FUZZ=20000 asks for so many examples instead of the few of a suite.
"""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import HealthCheck, settings
from typer.testing import CliRunner

from phard_hub.cli.app import app
from phard_hub.errors import PhardError
from tests.border.watched import watching
from tests.report_factory import make_report

EXAMPLES = int(os.environ.get("PHARD_FUZZ", "0"))
GOOD = make_report().to_json()
PASSED, REFUSED, BROKEN, UNKNOWN = 0, 1, 2, 3


def ended(report: Path, policy: Path | None = None, named: tuple[str, ...] = ()) -> tuple[int, str]:
    """How ``phard gate`` ends, and what it says; in this process, watched but for what is ``named``."""
    notes = report.parent.with_name(f"{report.parent.name}-notes")
    arguments = ["gate", str(report), *(["--policy", str(policy)] if policy else [])]
    with watching(notes, [report.parent]):
        done = CliRunner().invoke(app, arguments)
    noted = [line for line in notes.read_text().splitlines() if line not in named]
    assert noted == []
    if isinstance(done.exception, PhardError):
        said = f"{done.exception} {done.exception.advice}"
        assert len(said) < 1000, said
        return done.exception.exit_code, said
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    return done.exit_code, done.output


def fuzz(examples: int) -> settings:
    return settings(
        max_examples=EXAMPLES or examples,
        deadline=None,
        derandomize=not EXAMPLES,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
