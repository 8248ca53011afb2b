"""The whole way as a user goes it: one command, unmodified clients, from one repository on the Hub to another."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard, ModelCardData
from PIL import Image

from phard_hub.report.record import Report
from tests.command import Phard
from tests.hub_server import Hub
from tests.report_factory import RELEASE_FILES

ROOT = Path(__file__).parents[1]
LABELS = ("cat", "dog", "owl", "fox")
CARD = "---\nlicense: apache-2.0\ntags:\n- animals\n---\n\n# Animals\n\nTrained on noise.\n"
LENIENT = """
max_accuracy_loss = 100
max_robust_accuracy_loss = 100
min_mean_distance = "off"
min_smallest_distance = "off"
min_distance_increase = "off"
min_pairs_reached = "off"
max_outlier = "off"
"""
# Python imports this at its start. An audit hook sees what any library asks of the network, and changes nothing.
WATCH = """
import os, sys
def watch(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    with open(os.environ["WATCHED"], "a") as file:
        print(host.decode() if isinstance(host, bytes) else host, file=file)
sys.addaudithook(watch)
"""


@pytest.fixture
def origin(hub: Hub, tiny_checkpoint: Path) -> Hub:
    """A Hub with a model and a data set of org; this process is logged in as me, who is not of org."""
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageFeature

    hub.create("org/model", tiny_checkpoint)
    hub.commit("org/model", {"README.md": CARD})
    hub.login(user="owner", orgs=["org"])
    features = Features({"picture": ImageFeature(), "animal": ClassLabel(names=list(LABELS))})
    rows = {"picture": list(pictures()), "animal": [k for k in range(4) for _ in range(24)]}
    Dataset.from_dict(rows, features=features).push_to_hub("org/data", split="train")
    hub.login(user="me")
    hub.log.clear()
    return hub


def pictures() -> Iterator[dict[str, bytes]]:
    """Noise in the colour of each class."""
    random = np.random.default_rng(0)
    for k in range(4):
        for _ in range(24):
            pixels = random.integers(0, 100, (32, 32, 3)) + 150 * np.eye(4)[k][:3]
            buffer = io.BytesIO()
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
            yield {"bytes": buffer.getvalue()}


def test_from_the_hub_to_the_hub_in_one_command(origin: Hub, tmp_path: Path) -> None:
    before = origin.state()
    (tmp_path / "policy.toml").write_text(LENIENT)
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    command = (
        "harden org/model --images org/data --preset cheapest --even-at-chance --policy policy.toml --push-to me/model"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}",
        "OMP_NUM_THREADS": "1",
        "WATCHED": str(tmp_path / "watched"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "phard_hub", *command.split()],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"Pushed: {origin.endpoint}/me/model at {origin.head('me/model')[:12]}" in done.stdout

    # Whole, as it was released, and nothing else was touched.
    files, release = origin.files("me/model"), tmp_path / "model-hardened"
    assert files.keys() - {".gitattributes"} == RELEASE_FILES
    assert all(files[path] == (release / path).read_bytes() for path in RELEASE_FILES - {"README.md"})
    for path in ("config.json", "preprocessor_config.json"):
        assert files[path] == origin.files("org/model")[path]
    assert {repo: state for repo, state in origin.state().items() if repo != "models/me/model"} == before
    assert len(origin.asked("commit")) == 1

    # Nobody but the Hub and its file host was asked, and the file host was told no token.
    assert set((tmp_path / "watched").read_text().split()) <= {"127.0.0.1", "localhost", "::1"}
    assert {request.route for request in origin.log} >= {"info", "resolve", "download", "upload", "commit"}
    assert "unknown" not in {request.route for request in origin.log}
    assert origin.leaks() == []

    a_stranger_uses_it(origin)
    the_card_round_trips(Report.read(release))
    assert origin.leaks() == []


def a_stranger_uses_it(hub: Hub) -> None:
    """Somebody who is not logged in classifies with it; it is the hardened model, and passes the audit."""
    from transformers import pipeline

    from phard_hub import audit, load, pull

    hub.logout()
    classify = pipeline("image-classification", "me/model", device="cpu")
    pixels = (150 * np.eye(4)[0][:3] + np.full((32, 32, 3), 50)).astype(np.uint8)
    answers = {answer["label"]: answer["score"] for answer in classify(Image.fromarray(pixels), top_k=4)}
    assert answers.keys() == set(LABELS)
    classifier = load(audit(pull("me/model")))
    with torch.no_grad():
        shares = classifier(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255).softmax(dim=1)[0]
    assert [answers[label] for label in classifier.labels] == pytest.approx(shares.tolist(), abs=1e-4)


def the_card_round_trips(report: Report) -> None:
    """The Hub's validator takes the card, and the client reads the report's numbers from it."""
    assert report.after is not None
    card = ModelCard.load("me/model")
    card.validate()
    data = card.data
    assert isinstance(data, ModelCardData)
    assert (data.base_model, data["base_model_relation"], data.license) == ("org/model", "finetune", "apache-2.0")
    assert (data.library_name, data.pipeline_tag) == ("transformers", "image-classification")
    assert {"animals", "phard", "adversarial-robustness", "backdoor-hardened"} == set(data.tags or [])
    assert "Trained on noise." in card.text
    results = {result.metric_name: result for result in data.eval_results or []}
    evaluation = report.after.evaluation
    assert results["Accuracy"].metric_value == pytest.approx(evaluation.accuracy.value, abs=1e-6)
    assert evaluation.robust_accuracy is not None
    robust = results[f"Robust accuracy ({evaluation.robust_attack})"]
    assert robust.metric_value == pytest.approx(evaluation.robust_accuracy.value, abs=1e-6)
    assert (robust.metric_args or {})["n"] == evaluation.robust_accuracy.n
    assert {result.dataset_type for result in results.values()} == {"org/data"}
    if report.after.distances.mean_rms is not None:
        assert results["Mean class distance"].metric_value == pytest.approx(report.after.distances.mean_rms, abs=1e-6)


def test_a_push_that_cannot_be_done_is_refused_before_the_work(origin: Hub, tmp_path: Path, phard: Phard) -> None:
    origin.logout()
    harden = ["harden", "org/model", "--images", "org/data", "--out", tmp_path / "out", "--preset", "cheapest"]
    for repo, expected in (("me/model", "not logged in"), ("org/model", "not logged in"), ("model", "owner/name")):
        assert expected in phard(*harden, "--push-to", repo).complaint
    origin.login(user="me")
    assert "You may not write to org/model" in phard(*harden, "--push-to", "org/model").complaint
    assert not origin.asked("resolve")
    assert list(tmp_path.iterdir()) == []


def test_a_refused_model_is_released_and_not_pushed(origin: Hub, tmp_path: Path, phard: Phard) -> None:
    before = origin.state()
    (tmp_path / "policy.toml").write_text("min_accuracy = 1.0\nmin_mean_distance = 255\n")
    out = tmp_path / "out"
    done = phard(
        "harden", "org/model", "--images", "org/data", "--out", out, "--preset", "cheapest", "--even-at-chance",
        "--policy", tmp_path / "policy.toml", "--push-to", "me/model",
    )  # fmt: skip
    assert done.code == 1
    assert "Nothing was pushed to me/model. REJECT. The policy refuses" in done.complaint
    assert origin.state() == before
    assert json.loads((out / "phard_report.json").read_text())["source"]["repo"] == "org/model"
