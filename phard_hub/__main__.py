"""Run as a command: errors become one line and the documented exit code, never a traceback."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from typing import NoReturn

from phard_hub.errors import (
    LAUNCHED,
    LOST,
    InputError,
    InterruptedRunError,
    NotEvaluatedError,
    OutputError,
    PhardError,
    harmless,
)

_INTERRUPTED = 130  # what typer makes of Ctrl-C


def main() -> NoReturn:
    """Entry point of `phard`."""
    # Bars and warnings of other libraries would break ours; what the user set wins.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")  # torch, about itself
    from typer.exceptions import TyperException

    try:
        code = _run(sys.argv[1:])
    except TyperException as error:
        code = _wrong_use(error)
    except PhardError as error:
        code = _say(error)
    except OSError as error:
        place = f" {error.filename}" if error.filename else ""
        problem = f"Cannot read or write{place}: {error.strerror or error}."
        code = _say(OutputError(problem, advice="Check the path, permissions and free space."))
    except Exception as error:  # noqa: BLE001 - a bug must not end with Python's exit code 1, which says "refused"
        if _is_of_another_process(error):
            if LAUNCHED in os.environ:
                sys.exit(LOST)
            problem = f"Process {os.environ.get('RANK')} lost another process, which ended before it."
            sys.exit(_say(NotEvaluatedError(problem, advice="Give the same command again: it continues where it can.")))
        sys.stderr.write(harmless(traceback.format_exc()))
        code = _say(NotEvaluatedError("This is a bug in phard.", advice="Please report it with the lines above."))
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    """Do what the arguments say and return the exit code; without any, show the help as wrong use."""
    from phard_hub.cli.app import app

    code = app(args=arguments or ["--help"], prog_name="phard", standalone_mode=False)
    if code == _INTERRUPTED:
        advice = "Give the same command again: it continues from its last checkpoint, if there is one."
        raise InterruptedRunError("Interrupted; no result was written.", advice=advice)
    return int(code or 0) if arguments else 2


def _is_of_another_process(error: Exception) -> bool:
    """Whether the communication with another process broke off, which says why itself."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    words = ("gloo", "nccl", "distbackend", "diststore", "distnetwork")
    return several and any(word in f"{type(error).__name__} {error}".lower() for word in words)


def _wrong_use(error: Exception) -> int:
    """Say what is wrong with the command line, and where its help is."""
    context = getattr(error, "ctx", None)
    verb = context.command_path if context else "phard"
    problem = str(getattr(error, "format_message", error.__str__)()).replace("Value error, ", "").rstrip(".")
    return _say(InputError(f"{problem}.", advice=f"See `{verb} --help`."))


def _say(error: PhardError) -> int:
    print(f"phard: {harmless(' '.join(str(error).split()))}", file=sys.stderr)  # noqa: T201 - the command line prints
    return error.exit_code


if __name__ == "__main__":
    main()
