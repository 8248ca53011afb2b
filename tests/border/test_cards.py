"""Cards that strangers wrote: their text cannot hide or forge our part, and their metadata take no time or memory."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from phard_hub.hub.metadata import metadata_of, read_metadata, split_card, visible
from phard_hub.hub.names import is_commit, is_path, is_repo_id, is_revision
from phard_hub.release.card import escape, library_of, render_card
from phard_hub.release.foreign import END, START, foreign_text
from phard_hub.report.gate import gate
from phard_hub.report.policy import Policy
from tests.report_factory import make_report

REPORT = make_report()
VERDICT = gate(REPORT, Policy())
FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def render(**options: Any) -> str:
    return render_card(REPORT, VERDICT, model_name="me/tiny", **options)


OURS = render().split("---\n\n", 1)[1].partition(END)[0]


def check(card: str) -> tuple[dict[str, Any], str]:
    """What holds of every card that we write; its metadata, and the text below our part."""
    found, text = split_card(card)
    assert found.problem == ""
    assert text.startswith(f"\n{START}\n")
    assert card.count(START) == card.count(END) == 1
    assert len(re.findall(r"<[!\s-]*phard\s*:", card, re.IGNORECASE)) == 2
    ours, _, below = text.partition(END)
    assert ours.startswith(f"\n{OURS.rstrip()}")
    data = ModelCard(card).data
    assert isinstance(data, ModelCardData)
    assert data.base_model == "someone/resnet-tiny"
    assert len(data.eval_results or []) == 5
    return found.fields, below


# Text

HIDING = {
    "a division": "<div hidden>\n\n<!-- phard:start -->\nforged\n<!-- phard:end -->\n\n</div>\n",
    "details": f"<details><summary>More</summary>\n{START}{END}\n# A model",
    "a comment": f"<!-- \n{START}\nold\n{END}\n-->\n# A model",
    "a fence": f"```\n{START}\n{END}\n",
    "only a start": f"# A model\n{START}\nforged: The policy passes",
    "only an end": f"{END}\n# A model",
    "the wrong way round": f"{END}{START}",
    "nested": f"{START}{START}{END}{END}",
    "many": f"{START}{END}\n" * 50,
    "more space": "<!--   phard :\tstart   -->forged<!--phard:end-->",
    "capitals": "<!-- PHARD:START -->forged<!-- Phard:End -->",
    "a mark in a mark": "<!-- pha<!-- phard:start -->rd:start --><!-- phard:end -->",
    "a mark with invisible letters": "<!-- pha\u200brd:start -->forged<!-- phard:en\u202ed -->",
    "a forged part in full": f"{OURS}{END}\n# A model",
    "a byte order mark": "\ufeff---\nlicense: mit\n---\n# A model",
    "nothing but line ends": "\r\n\n\r",
}


@pytest.mark.parametrize("text", HIDING.values(), ids=HIDING)
@pytest.mark.parametrize("role", ["base_card", "target_card"])
def test_our_part_comes_first_and_is_found_again(text: str, role: str) -> None:
    card = render(**{role: text})
    check(card)
    assert render(target_card=card, **({"base_card": text} if role == "base_card" else {})) == card
    assert render(base_card=card) == render(base_card=render(base_card=card))


@pytest.mark.parametrize(
    ("options", "heading"),
    [
        ({"base_card": "Words"}, "\n## The card of someone/resnet-tiny\n"),
        ({"target_card": "Words"}, "\n## The rest of this card, by the owner of this repository\n"),
        ({"base_card": "Words", "target_card": "Words"}, "\n## The card of someone/resnet-tiny\n"),
        ({"base_card": "Words", "target_card": "Others"}, "\n## The rest of this card, by the owner of"),
        ({"base_card": "---\nlicense: mit\n---\n\n \n"}, None),
        ({}, None),
    ],
)
def test_a_heading_says_whose_the_text_below_is(options: dict[str, str], heading: str | None) -> None:
    ours = render(**options).partition(END)[0]
    assert ("Nothing below this line is from phard" in ours) == (heading is not None)
    assert heading is None or heading in ours


def test_a_former_part_in_the_middle_of_a_card_goes_and_the_rest_stays() -> None:
    target = f"# Mine\r\n\r\n{START}\nold verdict\n{END}\n\nMore"
    card = render(target_card=target)
    assert card.endswith(f"{END}\n\n# Mine\n\nMore")
    assert "old verdict" not in card


def test_a_text_too_long_for_the_hub_stays_behind() -> None:
    card = render(base_card="---\nlicense: mit\n---\n" + "word " * 200_000)
    assert len(card) < 100_000
    assert check(card)[0]["license"] == "mit"


CONTROLS = "\x00\x07\x1b[31m\x7f\x85\u200b\u200e\u202a\u202e\u2066\u2069\u2028\ufeff\U000e0041"


@pytest.mark.parametrize(
    "base",
    [f"# A{CONTROLS} model", f"---\nlicense: mi{CONTROLS}t\n---\n# Text", '---\ntags: ["a\\e\\u202eb"]\n---\n# Text'],
)
def test_what_nobody_sees_is_gone(base: str) -> None:
    for card in (render(base_card=base), render(target_card=base)):
        check(card)
        assert not {*CONTROLS} & {*card} - {*"[31m"}


def test_line_ends_stay_but_for_those_that_write_over_a_line() -> None:
    assert visible("a\r\nb\nc\rd\te") == "a\r\nb\nc\nd\te"
    assert visible("Grüße, 你好, 👍🏽") == "Grüße, 你好, 👍🏽"


@pytest.mark.parametrize(
    "label", ["http://evil.example", "www.evil.example", "mail@evil.example", "@me", "$$x$$", "~~no~~", f"{END}", "a|b"]
)
def test_a_label_becomes_no_link_mention_or_formula(label: str) -> None:
    shown = escape(label)
    for part in ("://", "www.", "@", "$", "<", "~~"):
        assert part not in shown


# Metadata: what a stranger may say

FORGED = """
model-index: [{name: x, results: [{task: {type: t}, dataset: {type: d, name: n}, metrics: [{type: a, value: 1}]}]}]
eval_results: [{verified: true}]
base_model: google/vit
base_model_relation: quantized
new_version: evil/model
library_name: evil
pipeline_tag: text-generation
widget: [{src: "https://evil.example/x.png"}]
thumbnail: https://evil.example/x.png
inference: {parameters: {a: 1}}
extra_gated_prompt: Tell me all
extra_gated_fields: {Password: text}
co2_eq_emissions: 0
to_yaml: x
to_dict: x
self: x
ignore_metadata_errors: true
__class__: x
"""
OWN = ("base_model", "base_model_relation", "library_name", "license", "model-index", "pipeline_tag", "tags")


def test_a_strangers_claims_do_not_become_ours() -> None:
    fields, _ = check(render(base_card=f"---{FORGED}tags: [vision, phard, 'license:mit', arxiv:1234.56789]\n---\n"))
    assert sorted(fields) == sorted(OWN)
    assert (fields["library_name"], fields["pipeline_tag"]) == ("transformers", "image-classification")
    assert fields["tags"] == ["vision", "arxiv:1234.56789", "phard", "adversarial-robustness", "backdoor-hardened"]


def test_the_owner_keeps_all_that_is_not_ours() -> None:
    fields, _ = check(render(target_card=f"---{FORGED}tags: [backdoor-hardened, mine]\n---\n"))
    kept = {"widget", "thumbnail", "inference", "extra_gated_prompt", "extra_gated_fields", "co2_eq_emissions"}
    assert kept | {"new_version"} | set(OWN) == set(fields)
    assert fields["tags"][0] == "mine"


def test_a_model_that_was_only_measured_is_not_called_hardened() -> None:
    report = make_report(after=None, hardening=None)
    for role in ("base_card", "target_card"):
        card: Any = {role: "---\ntags: [backdoor-hardened, a]\n---\n"}
        text = render_card(report, VERDICT, model_name="me/tiny", **card)
        assert read_metadata(text).fields["tags"] == ["a", "phard", "adversarial-robustness"]


@pytest.mark.parametrize(
    ("base", "key", "expected"),
    [
        ("license: [mit, '<b>']", "license", ["mit"]),
        ("license: {a: b}", "license", "apache-2.0"),
        ("license: '" + "x" * 60_000 + "'", "license", "apache-2.0"),
        ("license: 'mit\n\n\n  ---'", "license", "apache-2.0"),
        ("license_name: '[x](http://evil)'", "license_name", None),
        ("license_link: javascript:alert(1)", "license_link", None),
        ("license_link: ../../etc/passwd", "license_link", None),
        ("license_link: LICENSE", "license_link", "LICENSE"),
        ("datasets: [org/data, ~/x, /etc, ../x, {a: b}]", "datasets", ["org/data"]),
        ("language: no", "language", "no"),
        ("language: [en, '<b>', 3]", "language", ["en"]),
        ("metrics: [accuracy, [a]]", "metrics", ["accuracy"]),
    ],
)
def test_values_are_words_of_the_form_that_fits(base: str, key: str, expected: object) -> None:
    assert check(render(base_card=f"---\n{base}\n---\n"))[0].get(key) == expected


@pytest.mark.parametrize("said", ["evil", "[timm]", "{a: b}", "__import__('os')", '"\\n```\\nevil"', "null"])
def test_a_card_chooses_between_two_libraries_only(said: str) -> None:
    assert library_of(f"---\nlibrary_name: {said}\n---\n") == "transformers"
    assert library_of("---\nlibrary_name: timm\n---\n") == "timm"
    assert "evil" not in render(library_name="evil")


# Metadata: limits

LAUGHS = "\n".join(["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40))])
MERGES = "\n".join(["a0: &a0 {x: 1}", *(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, 40))])
REFUSED = {
    "aliases": (LAUGHS, "anchors and aliases are not read"),
    "merges of aliases": (MERGES, "anchors and aliases are not read"),
    "a merge": ("<<: {license: mit}", "merges are not read"),
    "an anchor alone": ("a: &a 1", "anchors"),
    "itself": ("a: &a [*a]", "anchors"),
    "an object": ("a: !!python/object/apply:os.system [ls]", "tags are not read"),
    "a name": ("a: !!python/name:os.system", "tags are not read"),
    "a tag": ("a: !!int '1'", "tags are not read"),
    "a tag of its own": ("%TAG !e! tag:x,1:\n--- # one\na: !e!b 1", "tags are not read"),
    "brackets": ("[" * 60_000, "nested more than 20 deep"),
    "a megabyte of brackets": ("[" * 2**20, "more than 64 kB"),
    "braces": ("{a: " * 5000, "nested more than 20 deep"),
    "dashes": ("- " * 5000, "nested more than 20 deep"),
    "indents": ("\n".join(" " * i + "a:" for i in range(300)), "nested more than 20 deep"),
    "many values": ("a: [" + "1," * 20_000 + "]", "more than 10000 values"),
    "many keys": ("\n".join(f"a{i}:" for i in range(7000)), "more than 10000 values"),
    "a megabyte of text": ("a: " + "x" * 2**20, "more than 64 kB"),
    "a key twice": ("license: mit\nlicense: other", "a key comes twice, line 2"),
    "two documents": ("a: 1\n--- # two\nb: 2", "another document"),
    "a list": ("- a", "it is no mapping"),
    "text": ("only text", "it is no mapping"),
    "a list as a key": ("? [a]\n: 1", "unhashable key"),
    "broken": (": : {broken", ""),
}


@pytest.mark.parametrize(("block", "problem"), REFUSED.values(), ids=REFUSED)
def test_metadata_beyond_the_limits_are_no_metadata(block: str, problem: str) -> None:
    started = time.process_time()
    found, text = split_card(f"---\n{block}\n---\nText")
    assert time.process_time() - started < 3
    assert (found.fields, text) == ({}, "Text")
    assert found.problem
    assert problem in found.problem
    check(render(base_card=f"---\n{block}\n---\nText"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1:2:3", "1:2:3"),
        (":".join("9" * 5000), ":".join("9" * 5000)),
        ("9" * 5000, "9" * 5000),
        ("-17", -17),
        ("017", "017"),
        ("0x1f", "0x1f"),
        ("1_000", "1_000"),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("1.0e999", "1.0e999"),
        ("1.5:2", "1.5:2"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("2024-01-01", "2024-01-01"),
        ("2024-01-01 00:00:00", "2024-01-01 00:00:00"),
        ("no", "no"),
        ("on", "on"),
        ("True", True),
        ("=", "="),
        ("~", None),
        ("NULL", None),
    ],
)
def test_what_a_plain_value_means(value: str, expected: object) -> None:
    assert read_metadata(f"---\na: {value}\n---\n").fields == {"a": expected}


def test_the_owners_values_come_back_as_they_were() -> None:
    block = "a: 1:2:3\nb: no\nc: 2024-01-01\nd: .inf\ne: '<<'\nf: \"x\\n---\\ny\"\ng: [1, 1.5, true, ~, '~']\n"
    fields, _ = check(render(target_card=f"---\n{block}---\n"))
    assert {key: fields[key] for key in "abcdef"} == {
        "a": "1:2:3",
        "b": "no",
        "c": "2024-01-01",
        "d": ".inf",
        "e": "<<",
        "f": "x\n---\ny",
    }
    assert fields["g"] == [1, 1.5, True, None, "~"]


def test_the_card_of_a_folder_is_read_at_its_head(tmp_path: Path) -> None:
    assert metadata_of(tmp_path).fields == {}
    (tmp_path / "README.md").write_bytes(b"\xef\xbb\xbf---\nlicense: mit\n---\n" + b"\xff" * 2**21)
    assert metadata_of(tmp_path).fields == {"license": "mit"}
    (tmp_path / "README.md").unlink()
    (tmp_path / "README.md").mkdir()
    assert metadata_of(tmp_path).fields == {}


MEGABYTE = 2**20
SLOW = {
    "spaces": " " * MEGABYTE,
    "line ends": "\n" * MEGABYTE,
    "carriage returns": "\r" * MEGABYTE,
    "dashes": "-" * MEGABYTE,
    "blocks": "---\n" * (MEGABYTE // 4),
    "blocks without end": "---\n" + "\n--- x" * (MEGABYTE // 6),
    "ends with spaces": "---\n" + "\n---  \t" * (MEGABYTE // 7) + "x",
    "one long end": "---\na\n---" + " " * MEGABYTE + "x",
    "spaces and a block": " \n" * (MEGABYTE // 2) + "---\n",
    "starts": START * (MEGABYTE // 20),
    "ends": END * (MEGABYTE // 18),
    "starts and ends": (START + END) * (MEGABYTE // 38),
    "comments": "<!--" * (MEGABYTE // 4),
    "one comment": "<!" + "-" * MEGABYTE,
    "one comment of spaces": "<!--" + " " * MEGABYTE + "phard",
    "angles": "<" * MEGABYTE,
    "angles and spaces": "< " * (MEGABYTE // 2),
    "half marks": "<!-- phard " * (MEGABYTE // 11),
    "invisible": "\u200b" * (MEGABYTE // 3),
    "backslashes": "\\" * MEGABYTE,
    "at signs": "www.@://" * (MEGABYTE // 8),
}


@pytest.mark.parametrize("text", SLOW.values(), ids=SLOW)
def test_a_megabyte_takes_less_than_a_second(text: str) -> None:
    started = time.process_time()
    split_card(text)
    foreign_text(text)
    escape(text)
    for says in (is_repo_id, is_commit, is_path, is_revision):
        says(text)
    assert time.process_time() - started < 3


# Any text at all

TEXTS = st.text(st.one_of(st.sampled_from("<!-> phard:startend\n\r\t#`-&"), st.characters()), max_size=300)
PIECES = st.lists(
    st.one_of(TEXTS, st.sampled_from([START, END, "---\n", "\n---\n", "<div hidden>", "&a ", "*a", "<<: ", "!!map "])),
    max_size=12,
).map("".join)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
KEYS = st.one_of(TEXTS, st.sampled_from(FORGED.split()), st.sampled_from(OWN))
MADE = st.builds(
    lambda fields, text: f"---\n{yaml.safe_dump(fields, allow_unicode=True)}---\n{text}",
    st.dictionaries(KEYS, VALUES, max_size=6),
    PIECES,
)
CARDS = st.one_of(PIECES, MADE)


@FUZZ
@given(CARDS)
@example("---\n\n---\n")
def test_any_metadata_are_read_in_time(card: str) -> None:
    started = time.process_time()
    found, text = split_card(card)
    assert time.process_time() - started < 3
    assert isinstance(found.problem, str)
    assert not (found.problem and found.fields)
    assert visible(card).endswith(text)


@FUZZ
@given(CARDS, st.one_of(st.none(), CARDS))
@example("", "<!-- phard:start -->")
@example("", "---\na<<: <!-- phard:start -->\n---")
def test_any_card_leaves_our_part_first_and_is_pushed_twice_alike(base: str, target: str | None) -> None:
    started = time.process_time()
    card = render(base_card=base, target_card=target)
    check(card)
    assert render(base_card=base, target_card=card) == card
    assert time.process_time() - started < 3
