"""What others wrote in a card, and how much of it may stand in ours: some metadata, and text below our part."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from phard_hub.hub.names import is_repo_id

START, END = "<!-- phard:start -->", "<!-- phard:end -->"
OUR_TAGS = ("phard", "adversarial-robustness", "backdoor-hardened")
LICENSE = ("license", "license_name", "license_link")
LONGEST_TEXT = 2**19
"""Bytes of a base model's card that are copied at most: the Hub's limit for a whole card is twice this."""

# The start of a mark in any spacing and case, so that readers and other programs take none of them for ours.
_MARK = re.compile(r"<(?=[!\s-]*phard\s*:)", re.IGNORECASE)
_OWN_KEYS = ("model-index", "model_index", "eval_results", "model_name", "tags")


def _word(pattern: str) -> Callable[[object], bool]:
    """Whether a value is text of this form; all these forms are short and on one line."""
    compiled = re.compile(pattern, re.ASCII)
    return lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None


_is_tag = _word(r"[\w][\w .+/-]{0,39}|arxiv:\d{4}\.\d{4,5}")
# What is taken over from the card of the model that ours was made from. The licence goes with the weights, and
# languages, training data and metrics stay true of the new weights. Everything else stays behind, because a
# stranger's words would become those of whoever publishes the hardened model: results (model-index) are of
# other weights, base_model and new_version say what derives from what, library_name and pipeline_tag decide how
# the model is run, extra_gated_* asks the visitors of the page for what they would tell a stranger, and widget,
# thumbnail and inference make the page load and run what a stranger names.
_TAKEN_OVER: Mapping[str, Callable[[object], bool]] = {
    "license": _word(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,49}"),
    "license_name": _word(r"[\w][\w .+-]{0,99}"),
    "license_link": _word(r"https://[\w./%#?=&~+-]{1,200}|[\w][\w.-]{0,99}"),
    "language": _word(r"[A-Za-z][A-Za-z-]{1,19}"),
    "datasets": is_repo_id,
    "metrics": _word(r"[\w][\w .-]{0,49}"),
    "tags": _is_tag,
}


def taken_over(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a base model's card that its hardened form may have, too.

    A value is kept if it is a word of the form that its key asks for, of a list the words that are.
    """
    kept: dict[str, Any] = {}
    for key, value in fields.items():
        fits = _TAKEN_OVER.get(key)
        if fits is None:
            continue
        if isinstance(value, list):
            value = [item for item in value if fits(item)]
        elif not fits(value):
            value = None
        if value:
            kept[key] = value
    return kept


def owners(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of the card that ours replaces, without what is ours to say.

    Also without keys that are names of the Hub client's own attributes, because that cannot read them back.
    """
    from huggingface_hub import ModelCardData

    closed = {*dir(ModelCardData), "self", "ignore_metadata_errors", *_OWN_KEYS}
    return {neutral(key): _neutral_in(value) for key, value in fields.items() if key not in closed}


def tags(fields: Mapping[str, Any]) -> list[str]:
    """Tags of another card, which may be a list, a single word or nothing; none of them is ours."""
    found = fields.get("tags")
    words = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    return [str(word) for word in words if word is not None and str(word) not in OUR_TAGS]


def foreign_text(text: str) -> str:
    """The text of a card without the part that a former push wrote, and with no mark that could be taken for ours."""
    begin = text.find(START)
    end = text.find(END, begin) if begin >= 0 else -1
    if end >= 0:
        before, after = text[:begin].rstrip("\r\n"), text[end + len(END) :].lstrip("\r\n")
        text = f"{before}\n\n{after}" if before.strip() and after.strip() else before if before.strip() else after
    text = neutral(text).lstrip("\r\n")
    return text if text.strip() else ""


def neutral(text: str) -> str:
    """Text in which our marks are words that everybody sees."""
    return _MARK.sub("&lt;", text)


def _neutral_in(value: Any) -> Any:  # noqa: ANN401 - any metadata
    """The same for all text within a value of metadata."""
    if isinstance(value, dict):
        return {_neutral_in(key): _neutral_in(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_neutral_in(inner) for inner in value]
    return neutral(value) if isinstance(value, str) else value
