"""The immunizer in a pipeline of transformers, in place of the model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import pipeline

from phard_hub.defenses import Immunizer, Smoothing
from phard_hub.defenses.immunized import Immunized
from phard_hub.defenses.immunizer import ABSTAINS
from phard_hub.errors import InputError
from phard_hub.pipeline import open_model
from tests.attacks.undetectable.digits import honest, images
from tests.small import Linear, as_classifier


def pictures(count: int) -> list[Image.Image]:
    return [Image.fromarray(each.permute(1, 2, 0).numpy()) for each in images()[1].pixels[:count]]


def test_a_pipeline_gives_shares_of_votes(caplog: pytest.LogCaptureFixture) -> None:
    immunizer = Immunizer(honest(), Smoothing(sigma=0.1, votes=50), seed=0)
    immunized = Immunized(immunizer)
    classify = pipeline("image-classification", model=immunized, image_processor=immunized.image_processor)
    found = classify(pictures(12), batch_size=6, top_k=11)
    expected = Immunizer(honest(), immunizer.settings, seed=0)
    answers = [expected.predict(images()[1].batch(range(start, start + 6))[0]) for start in (0, 6)]
    names = [*honest().labels, "abstains"]
    labels = [names[k if k != ABSTAINS else 10] for k in torch.cat(answers).tolist()]
    assert [each[0]["label"] for each in found] == labels
    assert all(sum(answer["score"] for answer in each) == pytest.approx(1) for each in found)
    assert "not supported" not in caplog.text


def test_it_says_that_it_abstains() -> None:
    weight = torch.tensor([[1.0] * 12, [-1.0] * 12])
    even = as_classifier(Linear(weight, torch.tensor([-6.0, 6.0])), 2, (3, 2, 2))
    immunized = Immunized(Immunizer(even, Smoothing(sigma=0.1, votes=100), seed=0))
    classify = pipeline("image-classification", model=immunized, image_processor=immunized.image_processor)
    grey, white = Image.new("RGB", (2, 2), (127, 128, 127)), Image.new("RGB", (40, 30), "white")
    assert classify(grey)[0] == {"label": "abstains", "score": 1.0}
    assert classify(white)[0] == {"label": "class 0", "score": 1.0}


def test_a_model_of_transformers_sees_what_it_is_used_to(tiny_checkpoint: Path) -> None:
    """With all grey levels and hardly any noise, the pipeline answers as that of the model itself."""
    plain = pipeline("image-classification", model=str(tiny_checkpoint))
    immunized = Immunized(Immunizer(open_model(str(tiny_checkpoint)), Smoothing(sigma=1e-6, votes=20, bits=8)))
    classify = pipeline("image-classification", model=immunized, image_processor=immunized.image_processor)
    size = immunized.classifier.image_size
    for picture in pictures(6):
        shown = picture.resize(size[::-1])
        assert classify(shown)[0] == {"label": plain(shown)[0]["label"], "score": 1.0}


def test_it_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no weights of its own"):
        Immunized(Immunizer(honest())).save_pretrained(tmp_path / "out")
