"""Kill `phard harden` at random moments, run it again, and tell what comes of it, for `tests.border.test_kills`.

    python -m tests.border.killed_job MODEL IMAGES PLACE TIMES

Everything is imported once, and each command is a fork of this process. So a job takes a second or two, and it is
the job that is killed, hardly ever its imports.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import transformers  # noqa: F401 - imported once
from transformers import ResNetForImageClassification  # noqa: F401 - likewise

from phard_hub.report.record import Report
from tests.jobs import cheap


def begin(arguments: list[object]) -> int:
    """The command in a process of its own."""
    child = os.fork()
    if child:
        return child
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    sys.argv = ["phard", *map(str, arguments)]
    from phard_hub.__main__ import main

    try:
        main()
    except SystemExit as stop:
        os._exit(int(stop.code or 0))
    os._exit(70)


def ending(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def result(place: Path) -> dict[str, Any]:
    """What has to be the same after every kill: all but times and memory."""
    out = place / "hardened"
    told = Report.read(out).model_dump(
        mode="json", exclude={"created": True, "hardening": {"phases": {"__all__": {"seconds"}}}}
    )
    return {
        "weights": hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest(),
        "report": hashlib.sha256(json.dumps(_timeless(told)).encode()).hexdigest(),
        "remains": sorted(path.name for path in place.iterdir()),
    }


def _timeless(told: Any) -> Any:
    if isinstance(told, dict):
        return {name: _timeless(value) for name, value in told.items() if name not in {"seconds", "peak_memory"}}
    return [_timeless(each) for each in told] if isinstance(told, list) else told


def main() -> None:
    model, images, place, times = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    place.mkdir()
    arguments = cheap(model, images, place / "hardened")
    started = time.monotonic()
    code, whole = ending(begin(arguments)), result(place)
    lasted, moments = time.monotonic() - started, random.Random(times)
    kills = []
    for number in range(times):
        shutil.rmtree(place)
        place.mkdir()
        child = begin(arguments)
        moment = 0.9 * lasted * (number + moments.random()) / times  # one of each part of the job
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
        killed = ending(child) == -signal.SIGKILL
        left = sorted(path.name for path in place.iterdir())
        again = ending(begin(arguments))
        kills.append({"moment": moment, "killed": killed, "left": left, "code": again, **result(place)})
    sys.stdout.write(json.dumps({"seconds": lasted, "code": code, "whole": whole, "kills": kills}))


if __name__ == "__main__":
    main()
