"""What the Hub's refusals mean, in one line each, and how to try again without doing anything twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from huggingface_hub import errors
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

from phard_hub.errors import HubUnavailableError, OutputError, PhardError, RepoError, first_line

WAITS = (1.0, 3.0, 9.0)
"""Seconds before each further try."""

LOG_IN = "Log in with `hf auth login`, or set HF_TOKEN to a token that may write."
# How the client begins when it says in a ValueError that the Hub found a card or a large file invalid.
_CLIENT_SAYS = ("Invalid metadata in README.md", "LFS batch API returned errors")
_NO_SPACE = (402, 413, 507)
_Result = TypeVar("_Result")


@contextmanager
def one_line(repo: str) -> Iterator[None]:
    """Say in one line why a push to ``repo`` cannot be done, by the error that fits."""
    try:
        yield
    except PhardError:
        raise
    except (errors.HfHubHTTPError, httpx.TransportError, OSError, RuntimeError, ValueError) as error:
        if (told := _told(repo, error)) is None:
            raise
        raise told from error


def _told(repo: str, error: BaseException) -> PhardError | None:
    """The same in our words; None for what the Hub and its client have nothing to do with."""
    if isinstance(error, RuntimeError):  # how the client wraps what stopped the upload of a file
        return _told(repo, error.__cause__) if error.__cause__ else None
    if isinstance(error, errors.LocalTokenNotFoundError):
        return OutputError("You are not logged in to the Hub.", advice=LOG_IN)
    if isinstance(error, errors.GatedRepoError):
        return RepoError(f"{repo} is gated.", advice="Accept its terms on the Hub first.")
    if isinstance(error, errors.RepositoryNotFoundError):
        return RepoError(f"There is no model {repo} on the Hub, or you may not see it.", advice="Check the spelling.")
    if is_transient(error) or isinstance(error, ConnectionError | errors.LocalEntryNotFoundError):
        said = first_line(error)
        return HubUnavailableError(f"The Hub did not take the push to {repo}: {said}.", advice="Try again later.")
    if isinstance(error, errors.HfHubHTTPError):
        return _refused(repo, error)
    if isinstance(error, errors.HFValidationError) or str(error).startswith(_CLIENT_SAYS):
        return OutputError(f"The Hub does not take {repo}: {_words(str(error))}.", advice="Correct it and push again.")
    return None


def _refused(repo: str, error: errors.HfHubHTTPError) -> OutputError:
    """An answer of the Hub that trying again would not change."""
    status, said = status_of(error), _words(error.server_message or str(error))
    if status == 401:
        return OutputError(f"The Hub does not know your token: {said}.", advice=LOG_IN)
    advice = "Free some space on the Hub." if status in _NO_SPACE else "Check what your token and account may do."
    return OutputError(f"The Hub refuses the push to {repo}: {said}.", advice=advice)


def _words(text: str) -> str:
    return " ".join(text.split()).rstrip(".")


def status_of(error: BaseException) -> int | None:
    """The status of the Hub's answer; None if there was none."""
    return error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed a moment later."""
    status = status_of(error)
    return isinstance(error, httpx.TransportError) if status is None else status in (408, 429) or status >= 500


def persist(attempt: Callable[[], _Result], look: Callable[[], _Result | None]) -> _Result:
    """Try a few times to change something on the Hub, and change it at most once.

    An answer that got lost does not say whether the change was made. So before each further try,
    ``look`` has to see that it was not; where the Hub does not let it look, nothing is tried.

    Args:
        attempt: makes the change.
        look: what ``attempt`` would have returned if the change is there, else None.
    """
    failure: Exception | None = None
    for wait in (0.0, *WAITS):
        time.sleep(wait)
        try:
            if failure is not None and (found := look()) is not None:
                return found
            return attempt()
        except (errors.HfHubHTTPError, httpx.TransportError) as error:
            if not is_transient(error):
                raise
            failure = error
    if (found := look()) is not None:
        return found
    assert failure is not None
    raise failure
