"""Class names of a data set and those of a model: equal, equal as numbers, as the user says, or refused."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from phard_hub.errors import ImagesError
from phard_hub.images import LabelledImages, load_images
from phard_hub.images.matching import Said, match, read_labels
from phard_hub.report.record import Report
from tests.border.strangers import check_line
from tests.command import Phard
from tests.jobs import write_images

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGITS = tuple("0123456789")


def folders(top: Path, names: Sequence[str]) -> str:
    """A folder for each name with one image, whose grey level is the name's place."""
    for k, name in enumerate(names):
        (top / name).mkdir(parents=True)
        Image.fromarray(np.full((4, 4), k, dtype=np.uint8)).save(top / name / "x.png")
    return str(top)


def load(top: Path, names: Sequence[str], labels: Sequence[str], said: Said | None = None) -> LabelledImages:
    return load_images(folders(top, names), labels=labels, image_size=(4, 4), channels=1, said=said)


def numbered(word: str, count: int, start: int = 0) -> tuple[str, ...]:
    return tuple(f"{word}{k}" for k in range(start, start + count))


RIGHT: dict[str, tuple[Sequence[str], Sequence[str], str]] = {
    "equal": (("cat", "dog"), ("cat", "dog"), ""),
    "case and gaps": (("Snowy_Owl", "RED FOX"), ("snowy owl", "red-fox"), ""),
    "the same digits": (DIGITS, DIGITS, ""),
    "labels of numbers": (DIGITS, numbered("LABEL_", 10), "as numbers: 0 is LABEL_0, 1 is LABEL_1"),
    "classes of numbers": (numbered("class_", 12), numbered("", 12), "as numbers: class_0 is 0"),
    "classes of numbers, sorted as text": (numbered("class ", 12), numbered("LABEL_", 12), "as numbers: class 0 is"),
    "from 1": (numbered("", 10, 1), DIGITS, "as numbers minus 1: 1 is 0, 10 is 9, 2 is 1"),
    "to 1": (DIGITS, numbered("LABEL_", 10, 1), "as numbers plus 1: 0 is LABEL_1"),
    "with zeros": (tuple(f"{k:05}" for k in range(12)), numbered("", 12), "as numbers: 00000 is 0"),
    "numbers of named classes": (
        ("0", "1", "2"),
        ("cat", "dog", "owl"),
        "by the numbers of the model's classes from 0",
    ),
    "composed in another way": (("ka\u0308tzchen", "dog"), ("Kätzchen", "dog"), ""),
    "full width": (("ｃａｔ", "１"), ("cat", "1"), ""),
    "ligatures": (("ﬁsh", "dog"), ("fish", "dog"), ""),
    "invisible": (("c\u200bat\u2060", "\ufeffdog"), ("cat", "d\u00adog"), ""),
    "sharp s": (("straße", "dog"), ("STRASSE", "dog"), ""),
}


@pytest.mark.parametrize(("names", "labels", "how"), RIGHT.values(), ids=RIGHT)
def test_each_class_is_the_one_that_is_meant(
    tmp_path: Path, names: Sequence[str], labels: Sequence[str], how: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        images = load(tmp_path, names, labels)
    assert images.pixels[:, 0, 0, 0].tolist() == images.labels.tolist()
    assert images.matched.startswith(how)
    assert images.take([0]).matched == images.matched
    expected = [f"Classes of {tmp_path} are matched {images.matched}."] if how else []
    assert [record.getMessage() for record in caplog.records] == expected


REFUSED: dict[str, tuple[Sequence[str], Sequence[str], str]] = {
    "two words": (("zero", "one", *DIGITS[2:]), DIGITS, r"2 of the data set's 10 .* model's: one, zero\. .*: 0, 1\."),
    "words": (WORDS, DIGITS, "10 of the data set's 10 classes are not the model's"),
    "words and numbered labels": (WORDS, numbered("LABEL_", 10), "10 of the data set's 10"),
    "two words and numbered labels": (("zero", "1", "2"), numbered("LABEL_", 3), r"1 of .*: zero\. .*: LABEL_0\."),
    "a number beside words": (("cat", "dog", "2"), ("cat", "dog", "owl"), r"1 of .*: 2\. .*: owl\."),
    "a gap": (("1", "2", "4"), ("0", "1", "2"), "1 of the data set's 3 classes are not the model's: 4"),
    "one number twice": (("1", "01", "2"), ("LABEL_0", "LABEL_1", "LABEL_2"), "3 of the data set's 3"),
    "other names": (("cat", "cow"), ("cat", "dog"), r"1 of .*: cow\. The model's that .*: dog\."),
    "numbers beyond named classes": (("1", "2", "3"), ("cat", "dog", "owl"), r"1 of .*: 3\."),
    "numbers of some labels": (("0", "1", "2"), ("0", "one", "2"), r"1 of .*: 1\."),
}


@pytest.mark.parametrize(("names", "labels", "words"), REFUSED.values(), ids=REFUSED)
def test_nothing_is_guessed(tmp_path: Path, names: Sequence[str], labels: Sequence[str], words: str) -> None:
    with pytest.raises(ImagesError, match=words) as caught:
        load(tmp_path, names, labels)
    assert "say what means what with --labels FILE" in caught.value.advice
    check_line(str(caught.value))


def test_the_user_says_it_by_name(tmp_path: Path) -> None:
    said = dict(zip(WORDS[:2], DIGITS, strict=False))
    images = load(tmp_path, ("zero", "one", *DIGITS[2:]), DIGITS, said)
    assert images.pixels[:, 0, 0, 0].tolist() == images.labels.tolist()
    assert images.matched.startswith("as the user says: ")


def test_the_user_says_it_in_the_order_of_the_model(tmp_path: Path) -> None:
    images = load(tmp_path, WORDS, numbered("LABEL_", 10), WORDS)
    assert images.pixels[:, 0, 0, 0].tolist() == images.labels.tolist()


def test_a_list_tells_names_apart_that_the_model_has_twice() -> None:
    assert match(("bird", "machine"), ("crane", "crane"), ("machine", "bird")).indices == [1, 0]


WRONG: dict[str, tuple[Said, str]] = {
    "too few": (("zero", "one"), "names 2 classes, and the model has 3"),
    "one twice": (("zero", "Zero", "one"), "has 3 names, of which 2 are different"),
    "one twice, for two classes": ({"zero": "0", "ZERO": "1"}, "has 2 names, of which 1 are different"),
    "not the model's": ({"zero": "null"}, "leads to null, which the model does not have"),
    "not all": ({"zero": "0"}, r"2 of the data set's 3 classes are not the model's: one, two"),
}


@pytest.mark.parametrize(("said", "words"), WRONG.values(), ids=WRONG)
def test_what_the_user_says_has_to_fit(said: Said, words: str) -> None:
    with pytest.raises(ImagesError, match=words) as caught:
        match(("zero", "one", "two"), ("0", "1", "2"), said)
    assert caught.value.advice


FILES: dict[str, tuple[str, bytes, Said | None]] = {
    "JSON": ("x.json", b'{"null": "0", "eins": "1"}', {"null": "0", "eins": "1"}),
    "text": ("x.txt", "\ufeffnull\r\nköder\n\n".encode(), ("null", "köder")),
    "a list": ("x.json", b'["0"]', None),
    "numbers": ("x.json", b'{"null": 0}', None),
    "no JSON": ("x.json", b"{", None),
    "a name twice": ("x.json", b'{"null": "0", "null": "1"}', None),
    "very deep": ("x.json", b"[" * 100_000, None),
    "no UTF-8": ("x.txt", b"\xff\xfe\0", None),
}


@pytest.mark.parametrize(("name", "content", "said"), FILES.values(), ids=FILES)
def test_files_of_labels(tmp_path: Path, name: str, content: bytes, said: Said | None) -> None:
    (tmp_path / name).write_bytes(content)
    if said is not None:
        assert read_labels(tmp_path / name) == said
        return
    with pytest.raises(ImagesError) as caught:
        read_labels(tmp_path / name)
    assert "Give a .json object" in caught.value.advice
    check_line(caught.value.problem.replace(str(tmp_path), ""))


def test_no_file_of_labels(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none.txt"):
        with pytest.raises(ImagesError, match="Cannot read"):
            read_labels(place)


def test_the_command_says_what_it_matched(
    phard: Phard, tiny_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ("Katze", "Hund", "Eule", "Fuchs")
    images = write_images(tmp_path / "images", words, per_class=20)
    out = tmp_path / "report.json"
    measure = ("measure", tiny_checkpoint, "--images", images, "--preset", "cheapest", "--out", out)
    refused = phard(*measure)
    assert refused.code == 2
    assert "4 of the data set's 4 classes are not the model's: Eule, Fuchs, Hund, Katze." in refused.complaint
    said: dict[str, Mapping[str, str] | Sequence[str]] = {
        "x.json": {"Katze": "cat", "Hund": "dog", "Eule": "owl", "Fuchs": "fox"},
        "x.txt": words,
    }
    reports = []
    for name, names in said.items():
        text = json.dumps(names) if isinstance(names, Mapping) else "\n".join(names)
        (tmp_path / name).write_text(text)
        done = phard(*measure, "--labels", tmp_path / name)
        assert done.code == 0, done.err
        assert "are matched as the user says: Eule is owl" in caplog.text  # on stderr outside of tests
        reports.append(Report.read(out))
    assert [report.matched for report in reports] == [
        "as the user says: Eule is owl, Fuchs is fox, Hund is dog, Katze is cat"
    ] * 2
    assert reports[0].before.evaluation == reports[1].before.evaluation
    card = phard("card", out).out
    assert "Its classes were matched as the user says: Eule is owl, Fuchs is fox, Hund is dog, Katze is cat." in card
    assert "Its classes were matched" not in phard("card", written(tmp_path / "equal.json", reports[0])).out


def written(path: Path, report: Report) -> Path:
    path.write_text(report.model_copy(update={"matched": ""}).to_json())
    return path
