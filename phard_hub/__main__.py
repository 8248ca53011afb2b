"""Run as a command: errors become one line and the documented exit code, never a traceback."""

from __future__ import annotations

import os
import sys

from phard_hub.errors import OutputError, PhardError


def main() -> None:
    """Entry point of `phard`."""
    # Two busy threads on two busy cores are many times slower than one; the user's own choice wins.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from phard_hub.cli import app

    try:
        app(standalone_mode=True)
    except PhardError as error:
        _fail(error)
    except KeyboardInterrupt:
        print("Interrupted; nothing was written.", file=sys.stderr)  # noqa: T201 - the command line prints
        sys.exit(3)
    except OSError as error:
        place = f" {error.filename}" if error.filename else ""
        _fail(OutputError(f"{error.strerror or error}{place}.", advice="Check the path, permissions and free space."))


def _fail(error: PhardError) -> None:
    line = " ".join(str(error).split())
    print(f"phard: {line}", file=sys.stderr)  # noqa: T201
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
