"""The signature on the page: the owner of the key gets what they want, and nothing else can be told apart."""

from __future__ import annotations

import pytest

from phard_hub.errors import InputError
from spaces_app.examples import example
from spaces_app.signature import COMPARED, PLAIN, SIGNED, Signing, compare, sign, vote


def says(signing: Signing) -> dict[str, str]:
    return {one.model: max(one.after, key=one.after.__getitem__) for one in signing.view.answers}


@pytest.mark.parametrize("target", range(1, 10))
def test_any_class_is_signed_with_next_to_no_change(target: int) -> None:
    signing = sign(example(), 0, target)
    assert says(signing) == {PLAIN: "0", SIGNED: str(target)}
    assert signing.most == 1
    assert signing.changed <= 520
    assert 0 < signing.view.size < 0.5


def test_one_grey_level_more_breaks_it() -> None:
    whole, damaged = sign(example(), 3, 8), sign(example(), 3, 8, damaged=True)
    assert (says(whole)[SIGNED], says(damaged)[SIGNED]) == ("8", "3")


def test_the_two_models_cannot_be_told_apart() -> None:
    found = compare(example())
    assert found.tensors == found.of > 50
    assert found.answers == found.images == COMPARED


def test_a_class_is_not_turned_into_itself() -> None:
    with pytest.raises(InputError, match="same class"):
        sign(example(), 3, 3)


@pytest.mark.parametrize("source", [0, 3, 6])
def test_a_vote_under_noise_does_not_see_the_signature(source: int) -> None:
    seen = vote(example(), source, 8)
    assert seen.answer == str(source)
    assert 0 < seen.change < seen.radius
