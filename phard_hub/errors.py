"""Everything that can go wrong, as one tree.

    PhardError                       exit code 2
      InputError                     2  broken input or wrong use
        RepoError                    2  no such repository, folder or revision
        AuditError                   2  the checkpoint may not be loaded
        CheckpointError              2  the weights do not fit the architecture
        ImagesError                  2  the data set cannot be used
        PolicyError                  2  the policy file is wrong
        ReportError                  2  the report is missing, broken or of another schema
        BackdoorError                2  a planted backdoor's record or key is missing or broken
        ExperimentError              2  the file that says what to compare is wrong
        StateError                   2  the state of a run that broke off is broken, or of another run
        OutputError                  2  the result cannot be written, to the disk or to the Hub
      RefusedError                   1  the policy refuses the model
      NotEvaluatedError              3  nothing is wrong with the input, yet there is no answer
        HubUnavailableError          3  the Hub did not answer
        ConflictError                3  somebody else changed the repository meanwhile
        InterruptedRunError          3  stopped by the user; the run can be resumed

An error says what was wrong, what was found, and what to do about it. The command line prints it as
one line and exits with ``exit_code``; it never shows a traceback for one of these.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar

LAUNCHED = "PHARD_LAUNCHED"
"""Set in the environment of a process that `phard launch` started."""
LOST = 75
"""Exit code of such a process when another one of the job is gone: the launcher knows better what to say of it."""


class PhardError(Exception):
    """Base of all errors of this package; never raised itself."""

    exit_code: ClassVar[int] = 2

    def __init__(self, problem: str, *, advice: str = "") -> None:
        """Keep ``problem`` (what was wrong and what was found) and ``advice`` (what to do)."""
        self.problem = problem
        self.advice = advice
        super().__init__(f"{problem} {advice}".strip())


class InputError(PhardError):
    """The input or the way it was used is wrong."""


class RepoError(InputError):
    """A repository, folder or revision does not exist or is not accessible."""


class AuditError(InputError):
    """The audit found a reason not to load a checkpoint."""


class CheckpointError(InputError):
    """Weights are corrupt or do not fit the architecture that the config names."""


class ImagesError(InputError):
    """A data set cannot be read, or does not fit the classifier."""


class PolicyError(InputError):
    """A policy file cannot be read, or names an unknown rule."""


class ReportError(InputError):
    """A report cannot be read, or was written by an incompatible version."""


class BackdoorError(InputError):
    """A planted backdoor cannot be read, or there is no attack of that name."""


class ExperimentError(InputError):
    """The file that says what to compare cannot be read, names something unknown, or was changed halfway."""


class StateError(InputError):
    """The state of a run that broke off is broken, or was not written by this run."""


class OutputError(InputError):
    """A result cannot be written: no permission, or no space; on the disk or on the Hub."""


class RefusedError(PhardError):
    """The policy refuses the model, so what was asked for is not done."""

    exit_code = 1


class NotEvaluatedError(PhardError):
    """There is no answer, though nothing is wrong with the input itself."""

    exit_code = 3


class HubUnavailableError(NotEvaluatedError):
    """The Hub did not answer and the cache does not hold what is needed."""


class ConflictError(NotEvaluatedError):
    """Somebody else changed the repository meanwhile; nothing was written over."""


class InterruptedRunError(NotEvaluatedError):
    """The user stopped the run; its last checkpoint is kept."""


def harmless(text: str) -> str:
    """Text without what speaks to a terminal: only what can be seen, line breaks and tabs are kept.

    Names come from files that strangers wrote, and an escape code can change a title, hide lines or type for the user.
    """
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "?" for sign in text)


def first_line(error: BaseException) -> str:
    """What another library's error says, in one line without its full stop; a heading takes the next line along."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    line = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return line.rstrip(".")


def did_you_mean(given: str, known: Iterable[str], otherwise: str) -> str:
    """The name that somebody may have meant, in either case of letters, as a question; without one, other advice."""
    names = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(given.casefold(), names, n=1)
    return f"Did you mean {names[near[0]]!r}?" if near else otherwise
