"""What the Hub's answers mean, in one line each, and how to ask again without doing anything twice."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar
from urllib.request import getproxies

from huggingface_hub import constants, errors
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

from phard_hub.errors import HubUnavailableError, OutputError, PhardError, RepoError, first_line
from phard_hub.report.wording import printable

WAITS = (1.0, 3.0, 9.0)
"""Seconds before each further try."""

LOG_IN = "Log in with `hf auth login`, or set HF_TOKEN to a token that may write."
# How the client begins when it says in a ValueError that the Hub found a card or a large file invalid.
_CLIENT_SAYS = ("Invalid metadata in README.md", "LFS batch API returned errors")
_NO_SPACE = (402, 413, 507)
_Result = TypeVar("_Result")
_NONSENSE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, RuntimeError)
_OFFLINE = (httpx.ConnectError, httpx.ProxyError)
_SILENT = (httpx.HTTPError, errors.OfflineModeIsEnabled)
_log = logging.getLogger(__name__)


@contextmanager
def one_line(repo: str) -> Iterator[None]:
    """Say in one line why a push to ``repo`` cannot be done, by the error that fits."""
    try:
        yield
    except PhardError:
        raise
    except (errors.HfHubHTTPError, httpx.HTTPError, OSError, RuntimeError, ValueError) as error:
        if (refused := _in_our_words(repo, error)) is None:
            raise
        raise refused from error


def _in_our_words(repo: str, error: BaseException) -> PhardError | None:
    """The same in our words; None for what the Hub and its client have nothing to do with."""
    if isinstance(error, RuntimeError):  # how the client wraps what stopped the upload of a file
        return _in_our_words(repo, error.__cause__) if error.__cause__ else None
    if isinstance(error, errors.LocalTokenNotFoundError):
        return OutputError("You are not logged in to the Hub.", advice=LOG_IN)
    if isinstance(error, errors.GatedRepoError):
        return RepoError(f"{repo} is gated.", advice="Accept its terms on the Hub first.")
    if isinstance(error, errors.RepositoryNotFoundError):
        return RepoError(f"There is no model {repo} on the Hub, or you may not see it.", advice="Check the spelling.")
    if is_transient(error) or isinstance(error, ConnectionError | errors.LocalEntryNotFoundError):
        said = words(first_line(error))
        return HubUnavailableError(f"The Hub did not take the push to {repo}: {said}.", advice="Try again later.")
    if isinstance(error, errors.HfHubHTTPError):
        return _refused(repo, error)
    if isinstance(error, errors.HFValidationError) or str(error).startswith(_CLIENT_SAYS):
        return OutputError(f"The Hub does not take {repo}: {words(str(error))}.", advice="Correct it and push again.")
    return None


def _refused(repo: str, error: errors.HfHubHTTPError) -> OutputError:
    """An answer of the Hub that trying again would not change."""
    status, said = status_of(error), words(error.server_message or str(error))
    if status == 401:
        return OutputError(f"The Hub does not know your token: {said}.", advice=LOG_IN)
    advice = "Free some space on the Hub." if status in _NO_SPACE else "Check what your token and account may do."
    return OutputError(f"The Hub refuses the push to {repo}: {said}.", advice=advice)


def words(text: str) -> str:
    """What the Hub or its client says, as one line that can be shown."""
    return printable(text, 300).rstrip(".")


def status_of(error: BaseException) -> int | None:
    """The status of the Hub's answer; None if there was none."""
    return error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed a moment later."""
    status = status_of(error)
    return isinstance(error, httpx.HTTPError) if status is None else status in (408, 429) or status >= 500


def may_pass(error: BaseException) -> bool:
    """Whether asking once more may help: no answer, a busy Hub, or a file that ended too early."""
    return is_transient(error) or (isinstance(error, OSError) and str(error).startswith("Consistency check failed"))


def silence(error: BaseException) -> tuple[str, str]:
    """Why the Hub did not answer, and what the user can do about it."""
    cause = error  # of which the client says last that its cache does not have the file either
    while cause.__cause__ is not None and not isinstance(cause, _SILENT):
        cause = cause.__cause__
    cause = cause if isinstance(cause, _SILENT) else error
    said = words(first_line(cause))
    if isinstance(cause, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set", "Unset it, or give a local folder."
    if isinstance(cause, _OFFLINE):
        if proxies := getproxies().keys() & {"https", "http", "all"}:
            names = " and ".join(sorted(f"{name.upper()}_PROXY" for name in proxies))
            return said, f"Check the proxy that {names} names, or give a local folder."
        return f"{said} ({words(constants.ENDPOINT)})", "Check your network, or give a local folder."
    return said, "Try again later, or give a local folder."


@contextmanager
def understood(what: str) -> Iterator[None]:
    """Say in one line that the Hub's answer makes no sense, wherever its client stumbles over that.

    Args:
        what: was asked for, such as "org/model".
    """
    try:
        yield
    except (OSError, errors.HFValidationError):  # about requests, not about what was answered
        raise
    except _NONSENSE as error:
        stopped = isinstance(error, RuntimeError) and error.__cause__ is not None  # see `_in_our_words`
        if stopped or str(error).startswith(_CLIENT_SAYS):
            raise
        raise nonsense(what, words(f"{type(error).__name__}: {first_line(error)}")) from error


def nonsense(what: str, found: str) -> HubUnavailableError:
    """The error for an answer that the Hub never gives, ``found`` being what is wrong with it."""
    problem = f"The Hub's answer about {what} cannot be understood ({found})."
    return HubUnavailableError(problem, advice="Check HF_ENDPOINT, your proxy and your network, or try again later.")


def ask(what: str, attempt: Callable[[], _Result]) -> _Result:
    """Read something from the Hub, a few times if need be.

    Whoever cannot connect at all is offline, and does not want to wait for it.

    Args:
        what: is asked for, such as "org/model".
        attempt: reads it, and changes nothing.

    Raises:
        HubUnavailableError: the answer makes no sense. Errors of the client and the Hub's refusals stay what they are.
    """
    with understood(what):
        for wait in WAITS:
            try:
                return attempt()
            except (httpx.HTTPError, OSError) as error:
                if not may_pass(error) or isinstance(error, _OFFLINE):
                    raise
                _log.warning("The Hub broke off (%s): trying again.", words(first_line(error)))
            time.sleep(wait)
        return attempt()


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
        except (errors.HfHubHTTPError, httpx.HTTPError, HubUnavailableError) as error:
            if not (is_transient(error) or isinstance(error, HubUnavailableError)):
                raise
            failure = error
    if (found := look()) is not None:
        return found
    assert failure is not None
    raise failure
