"""The verb that shows the web page, or puts it on the Hub."""

from __future__ import annotations

from typing import Annotated

import typer

from phard_hub.cli.console import show_pushed
from phard_hub.errors import InputError


def demo(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine; 0 for any free one.")] = 7860,
    push: Annotated[
        str | None, typer.Option(metavar="space", help="Put the page on the Hub instead, as the Space org/name.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="If the Space is made, make it private.")] = False,
) -> None:
    """See a backdoor and what hardening does to it in a web page on this machine, and check a model there.

    The page shows the digits of the quickstart: an honest, a backdoored and a hardened model, their class distances
    and reports, and the gate with limits to move. Ctrl-C ends it.

    With --push, the page becomes a Space on the Hub, or a Space is updated, as one commit.
    """
    if push is not None:
        from phard_hub.release.space import push_space

        show_pushed(push_space(push, private=private))
        return
    try:
        from spaces_app.app import launch
    except ImportError as error:
        raise _not_installed() from error
    try:
        launch(server_name="127.0.0.1", server_port=port or None, inbrowser=False)
    except ImportError as error:
        raise _not_installed() from error
    except OSError as error:
        raise InputError(f"Port {port} is not free.", advice="Give another --port.") from error


def _not_installed() -> InputError:
    return InputError("The page needs gradio.", advice='Install it with pip install ".[space]".')
