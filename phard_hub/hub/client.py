"""The Hub's client, before it is used: whether the user's token can be sent, and that answers choose no paths."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from phard_hub.errors import HubUnavailableError, InputError
from phard_hub.hub.names import is_commit
from phard_hub.report.wording import printable

if TYPE_CHECKING:
    from collections.abc import Callable

_ADDRESS = re.compile(r"https?://([\w.-]+|\[[0-9a-fA-F:.]+\])(:\d+)?(/[^\s]*)?")


def ready_client() -> None:
    """Look at what the environment says of the Hub, and let its client refuse answers that choose where it writes.

    Raises:
        InputError: HF_ENDPOINT is no address, or the token holds what no token holds, such as a space, a letter with
            an accent or a control character. HTTP libraries end badly on those.
    """
    endpoint = os.environ.get("HF_ENDPOINT", "")
    if endpoint and not _ADDRESS.fullmatch(endpoint):  # which the client's own import may end badly on
        raise InputError(
            f"HF_ENDPOINT is {printable(endpoint)!r}, which is no address.",
            advice="Unset it, or write it as https://huggingface.co.",
        )
    from huggingface_hub import get_token, set_client_factory
    from huggingface_hub.utils import _http

    try:
        token = get_token() or ""
    except ValueError:  # the file of `hf auth login` is not even text
        token = " "  # noqa: S105 - no password
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise InputError(
            "Your token for the Hub holds characters that no token has.",
            advice="Correct HF_TOKEN, or log in again with `hf auth login`.",
        )
    # There is no public way to ask for the factory that is set, and the user may have set one.
    make: Callable[[], Any] = _http._GLOBAL_CLIENT_FACTORY
    if not isinstance(make, _Guarded):
        set_client_factory(_Guarded(make))


class _Guarded:
    """Makes the clients that another factory makes, which then refuse the answers that `_refuse_paths` refuses."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def __call__(self) -> Any:  # noqa: ANN401 - the HTTP library is the Hub client's choice
        client = self._make()
        client.event_hooks = {**client.event_hooks, "response": [*client.event_hooks["response"], _refuse_paths]}
        return client


def _refuse_paths(response: Any) -> None:  # noqa: ANN401 - as above
    """The client makes paths within its cache of these headers, and does not look at them."""
    tags = [response.headers.get(name, "").lstrip("W/").strip('"') for name in ("ETag", "X-Linked-Etag")]
    commit = response.headers.get("X-Repo-Commit")
    # A file of a repository has a hash; what else is asked for may have a slash in its ETag, as base64 has.
    leaves = any(tag.startswith("/") or ".." in tag or "\\" in tag or ("/" in tag and commit) for tag in tags)
    if leaves or not (commit is None or is_commit(commit)):
        raise HubUnavailableError(
            "The Hub's answer names a file outside of the cache; it was not written.",
            advice="Check HF_ENDPOINT and your network.",
        )
