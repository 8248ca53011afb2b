"""Kill `phard harden` at random moments, run it again, and tell what comes of it, for `tests.border.test_kills`.

    python -m tests.border.killed_job MODEL IMAGES PLACE TIMES [PROCESSES]

Of several processes, one is killed, and the others have to end by themselves. Everything is imported once, and each
process is a fork of this one. So a job takes a second or two, and the job is killed, hardly ever its imports.
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

from phard_hub.cli.launch import environment_of, free_port
from phard_hub.report.record import Report
from tests.jobs import cheap


def begin(arguments: list[object], processes: int) -> list[int]:
    """The command in processes of its own, as `phard launch` starts them."""
    port = str(free_port())
    return [_fork(arguments, environment_of(rank, processes, port)) for rank in range(processes)]


def _fork(arguments: list[object], environment: dict[str, str]) -> int:
    child = os.fork()
    if child:
        return child
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    if environment["WORLD_SIZE"] != "1":
        os.environ.update(environment)
    sys.argv = ["phard", *map(str, arguments)]
    from phard_hub.__main__ import main

    try:
        main()
    except SystemExit as stop:
        os._exit(int(stop.code or 0))
    os._exit(70)


def endings(children: list[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


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
    processes = int(sys.argv[5]) if len(sys.argv) > 5 else 1
    place.mkdir()
    arguments = cheap(model, images, place / "hardened")
    started = time.monotonic()
    codes, whole = endings(begin(arguments, processes)), result(place)
    lasted, moments = time.monotonic() - started, random.Random(times)
    kills = []
    for number in range(times):
        shutil.rmtree(place)
        place.mkdir()
        children = begin(arguments, processes)
        moment = 0.9 * lasted * (number + moments.random()) / times  # one of each part of the job
        victim = moments.randrange(processes)
        time.sleep(moment)
        os.kill(children[victim], signal.SIGKILL)
        dead = time.monotonic()
        ended = endings(children)
        waited = time.monotonic() - dead
        left = sorted(path.name for path in place.iterdir())
        again = endings(begin(arguments, processes))
        kills.append(
            {"moment": moment, "ended": ended, "waited": waited, "left": left, "codes": again, **result(place)}
        )
    sys.stdout.write(json.dumps({"seconds": lasted, "codes": codes, "whole": whole, "kills": kills}))


if __name__ == "__main__":
    main()
