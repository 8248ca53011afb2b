"""The metadata at the head of a card, which is YAML that a stranger wrote: read within limits, or not at all.

YAML can say in half a kilobyte what fills any memory. So nothing is read that needs more than plain scalars,
lists and mappings: no anchors, aliases, merges or tags, no dates and no numbers in base 60.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

LARGEST_CARD = 2**20
"""Bytes of a card that are read at most."""

LARGEST_BLOCK = 64 * 1024
"""Characters that the metadata may have."""

_DEEPEST = 20
_MOST_NODES = 10_000
_INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp")
_LINES = {"\n", "\t", "\r"}


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What a card says in its metadata, by key and in its order.

    Attributes:
        fields: empty if there are none, or if they cannot be understood.
        problem: why they cannot be understood; empty if they can.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


def read_metadata(card: str) -> Metadata:
    """The metadata at the head of a card; whatever the text is, this takes little time and raises nothing."""
    return split_card(card)[0]


def metadata_of(folder: Path, name: str = "README.md") -> Metadata:
    """The metadata of the card in a folder; of a card of any size only the head is read."""
    path = folder / name
    if not path.is_file():
        return Metadata()
    with path.open("rb") as file:
        return read_metadata(file.read(LARGEST_CARD).decode("utf-8", errors="replace"))


def split_card(card: str) -> tuple[Metadata, str]:
    """Metadata and text of a card, both without characters that nobody sees; the text is never dropped."""
    from huggingface_hub.repocard import REGEX_YAML_BLOCK  # the very one of the Hub

    card = visible(card)
    block = REGEX_YAML_BLOCK.match(card)
    return (_read(block[2]), card[block.end() :]) if block else (Metadata(), card)


def visible(text: str, instead: str = "") -> str:
    """Text without control characters, marks that turn the direction of writing, and other invisible ones.

    They can hide words, show them in another order, and speak to a terminal. Line ends stay what they are, but
    a carriage return alone, which writes over the line in a terminal, becomes a line end.

    Args:
        text: by anybody.
        instead: stands where an invisible character was.
    """
    gone = {char for char in set(text) - _LINES if unicodedata.category(char) in _INVISIBLE}
    kept = text.translate(dict.fromkeys(map(ord, gone), instead)) if gone else text
    return re.sub(r"\r(?!\n)", "\n", kept)


def _read(block: str) -> Metadata:
    """The fields of a block of YAML, or why it has none."""
    if len(block) > LARGEST_BLOCK:
        return Metadata(problem=f"it has more than {LARGEST_BLOCK // 1024} kB")
    try:
        found = yaml.load(block, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        return Metadata(problem=f"{error.problem or error.context or 'it is no YAML'}{line}")
    except (yaml.YAMLError, ValueError):
        return Metadata(problem="it is no YAML")
    if found is None:
        return Metadata()
    if not isinstance(found, dict):
        return Metadata(problem="it is no mapping")
    return Metadata(fields={key: value for key, value in found.items() if isinstance(key, str)})


class _Loader(yaml.SafeLoader):
    """A reader of plain YAML that stops at the first thing beyond the limits, before it is built."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._nodes = self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:  # noqa: ANN401 - as inherited
        """One node and what is in it, counted."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        self._nodes += 1
        self._depth += 1
        reason = _refusal(event)
        if self._nodes > _MOST_NODES:
            reason = f"there are more than {_MOST_NODES} values"
        elif self._depth > _DEEPEST:
            reason = f"it is nested more than {_DEEPEST} deep"
        if reason:
            raise yaml.composer.ComposerError(None, None, reason, event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:  # noqa: ANN401 - as inherited
        """A mapping in which no key comes twice: readers differ in which of the two counts."""
        node = super().compose_mapping_node(anchor)
        seen: set[Hashable] = set()
        for key, _ in node.value:
            if key.value == "<<":
                raise yaml.composer.ComposerError(None, None, "merges are not read", key.start_mark)
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.composer.ComposerError(None, None, "a key comes twice", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return node


def _refusal(event: yaml.Event) -> str:
    """Why this is not read; empty if it is."""
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
        return "anchors and aliases are not read"
    if getattr(event, "tag", None) not in (None, "!"):
        return "tags are not read"
    return ""


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    """Text without the invisible characters that escapes stand for."""
    return visible(str(loader.construct_scalar(node)))


def _float(loader: _Loader, node: yaml.ScalarNode) -> float | str:
    """A finite number; what is too large for one is text."""
    number = float(str(loader.construct_scalar(node)))
    return number if math.isfinite(number) else str(node.value)


# What a plain scalar means, as the Hub reads it: `language: no` is Norwegian, where YAML 1.1 says false, and
# 1:30 is text, where YAML 1.1 says 90.
_Loader.yaml_implicit_resolvers = {}
for _kind, _pattern, _first in (
    ("bool", r"(true|false)\Z", "tTfF"),
    ("null", r"(~|null|)\Z", ["~", "n", "N", ""]),
    ("int", r"[-+]?(0|[1-9][0-9]{0,17})\Z", "-+0123456789"),
    ("float", r"[-+]?([0-9]{1,40}\.[0-9]{0,40}|\.[0-9]{1,40}|[0-9]{1,40}(?=e))(e[-+]?[0-9]{1,3})?\Z", "-+0123456789."),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(_pattern, re.IGNORECASE), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:str", _text)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)
