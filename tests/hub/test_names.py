"""Names that users paste and strangers choose."""

from __future__ import annotations

import pytest

from phard_hub.hub.names import is_repo_id, pasted, split_dataset


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("https://huggingface.co/org/model", "org/model"),
        ("https://huggingface.co/org/model/", "org/model"),
        ("http://hf.co/org/model-1.5?library=timm", "org/model-1.5"),
        (" https://huggingface.co/org/model/tree/main ", "org/model@main"),
        ("https://huggingface.co/org/model/blob/0123abc/config.json", "org/model@0123abc"),
        ("https://huggingface.co/datasets/org/data", "org/data"),
        ("https://huggingface.co/datasets/org/data/viewer/default/train", "org/data"),
        ("org/model", "org/model"),
        ("./folder", "./folder"),
        ("https://example.org/org/model", "https://example.org/org/model"),
        ("https://huggingface.co.example.org/org/model", "https://huggingface.co.example.org/org/model"),
        ("https://huggingface.co/../etc/passwd", "https://huggingface.co/../etc/passwd"),
    ],
)
def test_an_address_of_the_hub_is_the_id_that_it_is_about(given: str, name: str) -> None:
    assert pasted(given) == name


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("org/data", ("org/data", None, None)),
        ("mnist", ("mnist", None, None)),
        ("org/data:plain", ("org/data", "plain", None)),
        ("org/data:plain@v1", ("org/data", "plain", "v1")),
        ("org/data@refs/pr/1", ("org/data", None, "refs/pr/1")),
        ("org/data/more", None),
        ("../data", None),
        ("a..b/data", None),
        ("x" * 301, None),
    ],
)
def test_the_parts_of_the_name_of_a_data_set(name: str, parts: tuple[str, str | None, str | None] | None) -> None:
    found = split_dataset(name)
    assert (None if found is None else tuple(found)) == parts
    assert found is None or is_repo_id(found.id)


@pytest.mark.parametrize(
    ("text", "is_id"),
    [
        ("org/model", True),
        ("gpt2", True),
        ("a/b_c-1.0", True),
        *((text, False) for text in ("~/x", "/etc", "../x", "a/../b", "./a", "a/b/c", "a b", "", "a/b\n", "ä/b")),
        *((text, False) for text in ("a--b", "a/b.git", "-a/b", "a/b-", ".a", "x" * 97, "org/model@main", "C:\\x")),
        (["org/model"], False),
        (None, False),
        (5, False),
    ],
)
def test_ids_of_repositories(text: object, is_id: bool) -> None:
    assert is_repo_id(text) is is_id
    assert is_repo_id(text, owner=True) is (is_id and isinstance(text, str) and "/" in text)
