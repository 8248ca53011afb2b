"""Each image is judged by a training that left it out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from phard_hub.errors import ImagesError, InputError
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.models.predictions import right_answers
from phard_hub.pipeline import Settings
from phard_hub.report.record import Report
from phard_hub.training.crossvalidation import cross_validate, divided
from tests.command import Phard
from tests.jobs import cheap, write_images
from tests.small import digit_images, job, small_net, trained_digits


def test_no_image_is_judged_by_a_training_that_saw_it() -> None:
    images, classifier, other = digit_images(3)[0], trained_digits(3), small_net(3, channels=1, size=8)
    seen: list[LabelledImages] = []

    def train(part: LabelledImages, _job: Job) -> Classifier:
        seen.append(part)
        return other if len(seen) == 1 else classifier

    place = divided(images, 4, 0)
    assert place is not None
    found = cross_validate(train, classifier, images, place, job())
    assert found is not None
    assert [len(part) for part in seen] == [int((place != part).sum()) for part in range(4)]
    for k in range(3):  # each class in equal parts
        assert torch.bincount(place[images.labels == k]).max() - torch.bincount(place[images.labels == k]).min() <= 1
    # The first training knew nothing, and only the part that it left out is judged by it.
    mine = images.take((place == 0).nonzero().flatten())
    lost = right_answers(classifier, mine).sum() - right_answers(other, mine).sum()
    assert found.points_lost == pytest.approx(100 * float(lost) / len(images))
    assert found.points_lost < found.points_at_most < found.points_lost + 10
    assert (found.parts, found.images) == (4, len(images))


def test_nothing_is_done_unasked_and_too_many_parts_are_refused() -> None:
    images = digit_images(3)[0].sample(5)
    assert divided(images, 0, 0) is None
    assert divided(images, 5, 0) is not None
    with pytest.raises(ImagesError, match="fewer than 6 images to train on"):
        divided(images, 6, 0)


def test_the_report_says_what_all_images_say(phard: Phard, tiny_checkpoint: Path, tmp_path: Path) -> None:
    images, out = write_images(tmp_path / "images", per_class=24), tmp_path / "out"
    done = phard(*cheap(tiny_checkpoint, images, out, "--cross-validate", 2))
    assert done.code == 3, done.err
    report = Report.read(out)
    assert report.hardening is not None
    found = report.hardening.cross_validated
    assert found is not None
    assert (found.parts, found.images) == (2, report.hardening.images)
    said = f"Cross-validated on {found.images} images in 2 parts, hardening costs"
    assert said in (out / "README.md").read_text("utf-8")
    assert any(limit.startswith(said) for limit in report.limits)
    refused = phard(*cheap(tiny_checkpoint, images, tmp_path / "other", "--cross-validate", 1))
    assert refused.code == 2
    assert "'--cross-validate': Input should be greater than or equal to 2" in refused.complaint
    with pytest.raises(InputError, match="one part leaves no images to train on"):
        Settings(cross_validate=1)
