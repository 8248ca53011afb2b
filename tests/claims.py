"""Sentences that assert of a model what no method can support."""

from __future__ import annotations

import re
from collections.abc import Iterator

_STATE = r"(?:clean|safe|secure|harmless|trustworthy|unbackdoored|untampered|backdoor-free|trojan-free)"
_SURELY = r"(?:now|again|still|completely|fully|entirely|truly|therefore|provably|certified|guaranteed|proven|to be)"
CLAIM = re.compile(
    rf"""
    \b(?:is|are|was|were|be|being|been|becomes?|remains?|stays?)\s(?:{_SURELY}\s)*{_STATE}\b(?!\s\w*(?:images?|copy|data)\b)
    | \b(?:certif(?:y|ies|ied)|guarantee[sd]?|prove[sdn]?)\s(?:(?:as|that\s\w+(?:\s\w+)?\sis|to\sbe)\s)?{_STATE}\b
    | \b(?:backdoor|trojan)-free\b
    | \bfree\s(?:of|from)\s(?:any\s)?(?:backdoors?|trojans?)\b
    | \b(?:has|have|contains?|holds?|is|are)\sno\s(?:hidden\s)?(?:backdoors?|trojans?)\b
    | \b(?:backdoors?|trojans?)\s(?:is|are|was|were)\s(?:gone|excluded|ruled\sout|impossible)\b
    | \bsafe\sto\s(?:deploy|use|load|run)\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
_DENIED = re.compile(r"\b(?:no|not|never|nothing|nobody|none|nor|neither|cannot|whether|instead|without)\b|n't\b", re.I)


def sentences(text: str) -> Iterator[str]:
    """A text sentence by sentence; lines of tables and lists are sentences of their own."""
    for block in re.split(r"\n\s*\n|\n\s*(?=[-*|#])|\|", text):
        yield from re.split(r"(?<=[.!?:;])\s+", " ".join(block.split()))


def claims(text: str) -> list[str]:
    """The sentences of a text that assert such a thing; one that denies it before says something else."""
    return [
        sentence
        for sentence in sentences(text)
        for found in CLAIM.finditer(sentence)
        if not _DENIED.search(sentence[: found.start()])
    ]
