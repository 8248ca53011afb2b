"""Run code in a process of its own that need not import the libraries again: a fork of one that has them all.

    done = python("from phard_hub.__main__ import main; main()", "audit", "model")

is what ``python -c CODE audit model`` does, without the six seconds of computing that torch and transformers take.
Where the imports themselves are what is tested, or the environment that they read, start a real process instead.
"""

from __future__ import annotations

import atexit
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from tests.command import Done, hear_interrupts

ROOT = Path(__file__).parents[1]
COMMAND = "from phard_hub.__main__ import main; main()"


def python(
    code: str,
    *arguments: object,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 120,
) -> Done:
    """How code ended that found these arguments in ``sys.argv[1:]``.

    Args:
        code: to run, as ``python -c`` would.
        arguments: of it.
        env: what differs from the environment of this process.
        cwd: its working directory.
        timeout: seconds after which it is killed and the test fails.
    """
    with tempfile.TemporaryDirectory(prefix="phard-ready-") as place:
        streams = [Path(place) / name for name in ("out", "err")]
        request = {
            "code": code,
            "argv": ["phard", *map(str, arguments)],
            "env": {**os.environ, **(env or {})},
            "cwd": str(cwd or Path.cwd()),
            "streams": [str(stream) for stream in streams],
        }
        ended = _asked(request, timeout)
        return Done(ended, *(stream.read_text(errors="replace") for stream in streams))


def _asked(request: Mapping[str, Any], timeout: float) -> int:
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    child = int(server.stdout.readline())
    with selectors.DefaultSelector() as selector:
        selector.register(server.stdout, selectors.EVENT_READ)
        late = not selector.select(timeout)
    if late:
        os.kill(child, signal.SIGKILL)
    code = int(server.stdout.readline())
    assert not late, f"{request['argv']} came to no end"
    return code


@cache
def _server() -> subprocess.Popen[str]:
    """The process that has imported everything; it ends with this one."""
    server = subprocess.Popen(
        [sys.executable, "-P", "-m", "tests.ready"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))},
        preexec_fn=hear_interrupts,
    )

    def end() -> None:
        server.kill()
        server.wait()
        for pipe in (server.stdin, server.stdout):
            if pipe is not None:
                pipe.close()

    atexit.register(end)
    return server


def _be(request: Mapping[str, Any]) -> NoReturn:
    """What the fork does."""
    for stream, path in zip((1, 2), request["streams"], strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    tempfile.tempdir = None  # as the environment says
    sys.argv = request["argv"]
    code = 1
    try:
        exec(compile(request["code"], "<string>", "exec"), {"__name__": "__main__"})
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:  # noqa: BLE001 - it ends this process as it would end any
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Import everything, then fork for each line of standard input."""
    import torch
    import transformers.modeling_utils
    from transformers import ResNetForImageClassification, ViTImageProcessorPil

    import phard_hub.pipeline
    import phard_hub.release.push

    del transformers, phard_hub, ResNetForImageClassification, ViTImageProcessorPil
    torch.set_num_threads(1)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _be(json.loads(line))
        print(child, flush=True)  # noqa: T201 - the answer
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
