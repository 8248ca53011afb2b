"""The process that looks at a stranger's model: `python -m spaces_app.worker`, started by `spaces_app.checking`.

It reads one request as JSON from stdin, and writes what it finds as lines of JSON: ``progress``, ``audit``, ``report``
and ``error``. It has an empty folder of its own, no token, and limits of time and memory; whatever a model does to it,
the page goes on. Nothing is loaded that its audit refuses.
"""

from __future__ import annotations

import json
import os
import resource
import select
import shutil
import sys
import time
from pathlib import Path
from typing import Any, NoReturn, TextIO

from phard_hub.errors import PhardError
from spaces_app.archive import unpack
from spaces_app.processes import FOLDER_PREFIX

MODEL = Path("model")  # in the folder of this process
_MEMORY = 2 * 2**30
_LARGEST_FILE = 2**30


def main() -> None:
    """Do what the request asks for."""
    out = _only_output()
    os.nice(10)
    if not select.select([sys.stdin], [], [], 0)[0]:
        _warm_up()  # nobody waits yet
    if not (asked := sys.stdin.read()):
        _leave()
    request: dict[str, Any] = json.loads(asked)
    _limit(int(request["seconds"] + time.process_time()))

    def tell(kind: str, content: object) -> None:
        out.write(json.dumps({kind: content}) + "\n")
        out.flush()

    try:
        _work(request, tell)
    except PhardError as error:
        tell("error", str(error))
    except MemoryError:
        tell("error", f"This takes more than {_MEMORY / 2**30:.0f} GiB of memory. Use phard on your own machine.")
    os._exit(0)  # nothing is left to tidy up, and libraries take seconds to end


def _work(request: dict[str, Any], tell: Any) -> None:  # noqa: ANN401 - a function
    started = time.monotonic()

    def progress(what: str, done: int, total: int) -> None:
        tell("progress", [what, done, total])

    progress("getting the model", 0, 1)
    if request["archive"]:
        unpack(Path(request["archive"]), MODEL)
    from phard_hub import audit, load, pull, pull_from_hub  # after the zip, because it takes seconds

    snapshot = pull(str(MODEL)) if request["archive"] else pull_from_hub(request["repo"], request["revision"])
    progress("looking at its files", 0, 1)
    audited = audit(snapshot)
    tell("audit", audited.record().model_dump(mode="json"))
    if request["images"] is None or audited.errors:
        return
    progress("loading it", 0, 1)
    from spaces_app.measuring import measured

    name = str(MODEL) if request["archive"] else f"{request['repo']}@{snapshot.commit}"
    left = float(request["budget"]) - (time.monotonic() - started)
    tell("report", measured(name, load(audited), request["images"], left, progress).model_dump(mode="json"))


def _leave() -> NoReturn:
    """End without having been asked, as the page has ended; its folder is removed, because nobody else does."""
    if Path.cwd().name.startswith(FOLDER_PREFIX):
        shutil.rmtree(Path.cwd(), ignore_errors=True)
    os._exit(0)


def _warm_up() -> None:
    """Import what an audit and loading need, by doing both with a model of ours."""
    from phard_hub import open_model
    from spaces_app.examples import FOLDER

    open_model(str(FOLDER / "honest"))


def _only_output() -> TextIO:
    """The stream for lines of JSON; whatever libraries print goes nowhere."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    return out


def _limit(seconds: int) -> None:
    """Soft limits only, because the audit sets its own, smaller or larger ones, in a process of its own."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    memory = pages * resource.getpagesize() + _MEMORY
    for what, soft in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, _LARGEST_FILE),
        (resource.RLIMIT_CORE, 0),
        *([(resource.RLIMIT_AS, memory)] if pages else []),
    ):
        _, hard = resource.getrlimit(what)
        resource.setrlimit(what, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


if __name__ == "__main__":
    main()
