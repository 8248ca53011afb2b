"""Class names of a data set to the model's: equal names, equal numbers, or what the user said of them."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from phard_hub.disk.reading import read_regular, text_of
from phard_hub.errors import ImagesError, did_you_mean
from phard_hub.report.base import unambiguous
from phard_hub.report.wording import printable

Said = Mapping[str, str] | Sequence[str]
"""From the data set's names to the model's, or the data set's names in the order of the model's classes."""

_NUMBER = re.compile(r"(?:(?:label|class) ?)?([0-9]{1,9})")
_GAP = re.compile(r"[\s_-]+")
_LARGEST_FILE = 16 * 2**20
_HOW_TO_SAY = "say what means what with --labels FILE"


class Match(NamedTuple):
    """The model's index of each name, -1 for none, and how they were matched, if not as equal names."""

    indices: list[int]
    how: str = ""


def match(names: Sequence[str], labels: Sequence[str], said: Said | None = None, *, partly: bool = False) -> Match:
    """Find the model's class of each name that a data set uses.

    Args:
        names: of the data set, each once.
        labels: the model's class names.
        said: what the user says of them; names that it leaves out have to be the model's.
        partly: whether names may be left over that are none of the model's.

    Raises:
        ImagesError: says which names are not the model's.
    """
    own = keys(labels)
    number = {key: k for k, key in enumerate(own)}
    exact = {label: k for k, label in enumerate(labels)}
    if said is None and len(exact) == len(labels) and exact.keys() >= set(names):
        return Match([exact[name] for name in names])
    if said is None and keys(names) == own:  # which may hold a name twice
        return Match(list(range(len(labels))))
    number |= _as_said(said, labels) if said is not None else {}
    found = Match([number.get(key, -1) for key in keys(names)], "" if said is None else "as the user says")
    if said is None and -1 in found.indices and (as_numbers := _as_numbers(names, labels)):
        found = as_numbers
    elif said is None and len(number) < len(labels):
        raise _ambiguous(labels)
    unknown = [name for name, k in zip(names, found.indices, strict=True) if k < 0]
    if unknown and not partly:
        theirs = set(found.indices)
        missing = [label for k, label in enumerate(labels) if k not in theirs]
        raise _mismatch(unknown, missing, len(names))
    return Match(found.indices, found.how and _described(found.how, names, found.indices, labels))


def chosen_classes(given: str | Sequence[str], labels: Sequence[str]) -> tuple[int, ...]:
    """Numbers of the classes that a user chose, ascending.

    Args:
        given: names of the model's classes; in one text they are separated by commas, which names may hold themselves.
        labels: the model's class names.

    Raises:
        ImagesError: the model has no such class, or fewer than two are named.
    """
    number = {key: k for k, key in reversed(list(enumerate(keys(labels))))}
    parts, found = given.split(",") if isinstance(given, str) else list(given), set()
    while parts:
        lengths = range(len(parts), 0, -1) if isinstance(given, str) else (1,)
        end = next((end for end in lengths if keys([",".join(parts[:end])])[0] in number), None)
        if end is None:
            advice = did_you_mean(parts[0].strip(), labels, f"The model has {shown(labels)}.")
            raise ImagesError(f"The model has no class {printable(parts[0].strip())!r}.", advice=advice)
        found.add(number[keys([",".join(parts[:end])])[0]])
        parts = parts[end:]
    if len(found) < 2:
        raise ImagesError("Fewer than 2 classes were chosen.", advice="Distances are between classes: choose more.")
    return tuple(sorted(found))


def _ambiguous(labels: Sequence[str]) -> ImagesError:
    counts = Counter(keys(labels))
    twice = [label for label in labels if counts[keys([label])[0]] > 1]
    problem = f"Names that the model has twice ({shown(twice)}) do not say which class is meant."
    return ImagesError(problem, advice=f"Use the same list of classes in the same order, or {_HOW_TO_SAY}.")


def _as_numbers(names: Sequence[str], labels: Sequence[str]) -> Match | None:
    """Match names that are numbers to labels that are numbers too, or else to the places of labels that are not.

    If each side has the same numbers but for an offset, as 1 to 10 and 0 to 9 have, that is allowed for.
    """
    given, theirs = _numbers(names), _numbers(labels)
    by_place = all(k is None for k in theirs)
    place = {k: at for at, k in enumerate(range(len(theirs)) if by_place else theirs) if k is not None}
    numbers = {k for k in given if k is not None}
    clear = len(place) == len(labels) and len(numbers) + given.count(None) == len(names)
    if not (clear and numbers) or (by_place and None in given):
        return None
    offset = 0 if by_place or None in given else _offset(numbers, set(place))
    how = "by the numbers of the model's classes from 0" if by_place else "as numbers"
    how += f" {'plus' if offset > 0 else 'minus'} {abs(offset)}" if offset else ""
    return Match([-1 if k is None else place.get(k + offset, -1) for k in given], how)


def _offset(given: set[int], known: set[int]) -> int:
    """What turns all of these numbers into all that are known; 0 if nothing does, or if none is unknown."""
    offset = min(known) - min(given)
    return offset if not given <= known and {k + offset for k in given} == known else 0


def _numbers(names: Iterable[str]) -> list[int | None]:
    """The number of each name, such as 3 for ``3``, ``LABEL_3`` and ``class 3``; None for other names."""
    found = (_NUMBER.fullmatch(key) for key in keys(names))
    return [int(one[1]) if one else None for one in found]


def _described(how: str, names: Sequence[str], found: Sequence[int], labels: Sequence[str]) -> str:
    """How names were matched, and the first few that are not equal."""
    meant = [(name, labels[k]) for name, k in zip(names, found, strict=True) if k >= 0]
    differ = [(name, label) for name, label in meant if keys([name]) != keys([label])]
    pairs = [f"{printable(name)} is {printable(label)}" for name, label in differ]
    return f"{how}: {shown(pairs, 130)}" if pairs else ""


def _as_said(said: Said, labels: Sequence[str]) -> dict[str, int]:
    """What the user says, by the keys of the data set's names.

    Raises:
        ImagesError: it is not about these classes.
    """
    count = len(set(keys(said)))
    if count < len(said):
        problem = f"--labels has {len(said)} names, of which {count} are different."
        raise ImagesError(problem, advice="Name each class of the data set once, in whatever case.")
    if not isinstance(said, Mapping):
        if count != len(labels):
            problem = f"--labels names {count} classes, and the model has {len(labels)}."
            raise ImagesError(problem, advice="Write one name of the data set a line, in the order of the model's.")
        return {key: k for k, key in enumerate(keys(said))}
    own = keys(labels)
    counts = Counter(own)
    number = {key: k for k, key in enumerate(own) if counts[key] == 1}
    theirs = keys(said.values())
    wrong = [name for name, key in zip(said.values(), theirs, strict=True) if key not in number]
    if wrong:
        problem = f"--labels leads to {shown(wrong)}, which the model does not have, or has twice."
        raise ImagesError(problem, advice=f"The model has {shown(labels)}. A text file in their order is clear, too.")
    return {key: number[name] for key, name in zip(keys(said), theirs, strict=True)}


def _mismatch(unknown: list[str], missing: list[str], used: int) -> ImagesError:
    problem = f"{len(unknown)} of the data set's {used} classes are not the model's: {shown(unknown)}."
    if missing:
        problem += f" The model's that the data set does not have: {shown(missing)}."
    alike = difflib.get_close_matches(keys(unknown)[0], keys(missing), n=1)
    guess = f" (to {printable(missing[keys(missing).index(alike[0])])!r}?)" if alike else ""
    return ImagesError(
        problem,
        advice=f"Rename the classes to match, first {printable(unknown[0])!r}{guess}, {_HOW_TO_SAY}, or choose "
        "another data set.",
    )


def read_labels(path: Path) -> Said:
    """Read what the data set's class names mean: a JSON object, or one name a line in the order of the model's classes.

    Raises:
        ImagesError: it cannot be read, or holds something else.
    """
    try:
        content = read_regular(path.resolve().parent, path.resolve().name, _LARGEST_FILE)
        if path.suffix.lower() != ".json":
            return tuple(line.strip() for line in text_of(content).splitlines() if line.strip())
        said = unambiguous(content)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8" if _no_text(error) else str(error)
        raise ImagesError(f"Cannot read {printable(str(path), 200)}: {reason}.", advice=_FORM) from error
    if not isinstance(said, dict) or not all(isinstance(name, str) for name in said.values()):
        raise ImagesError(f"{printable(str(path), 200)} holds no object from names to names.", advice=_FORM)
    return said


_FORM = "Give a .json object from the data set's names to the model's, or a text file with one name a line."


def _no_text(error: Exception) -> bool:
    return isinstance(error, UnicodeDecodeError)


def keys(names: Iterable[str]) -> list[str]:
    """What two names have to share to be the same: signs that can be seen, whatever their case, form and gaps."""
    return [_key(name) for name in names]


def _key(name: str) -> str:
    seen = "".join(sign for sign in name if unicodedata.category(sign) != "Cf")
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", seen).casefold())
    return _GAP.sub(" ", folded.strip())


def shown(names: Sequence[str], width: int = 60) -> str:
    """The first few names, and how many there are more."""
    first = ", ".join(printable(name, width) for name in names[:6])
    return first + (f" and {len(names) - 6} more" if len(names) > 6 else "")
