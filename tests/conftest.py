"""Shared by all tests: no network, one thread, a tiny checkpoint, and the optional folder of real data."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

# The Hub's libraries read these when they are imported, so they are set before anything else is.
# A test that needs a Hub starts one on loopback and sets HF_ENDPOINT itself.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_ENDPOINT", "http://127.0.0.1:9")
os.environ.setdefault("HF_HOME", tempfile.mkdtemp(prefix="phard-hf-"))
os.environ.update(
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_XET="1",
    HF_HUB_DISABLE_UPDATE_CHECK="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    HF_DATASETS_DISABLE_PROGRESS_BARS="1",
    HF_UPDATE_DOWNLOAD_COUNTS="0",
    DISABLE_SAFETENSORS_CONVERSION="1",
)

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The optional folder of real images and checkpoints: PHARD_DATA, or ../shared/data."""
    folder = Path(os.environ.get("PHARD_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"NO REAL DATA: {folder} does not exist; set PHARD_DATA to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random residual network for 32x32 images of four classes; do not change it."""
    from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessorPil

    config = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        layer_type="basic",
        downsample_in_first_stage=False,
        id2label=dict(enumerate(("cat", "dog", "owl", "fox"))),
        label2id={"cat": 0, "dog": 1, "owl": 2, "fox": 3},
    )
    folder = tmp_path_factory.mktemp("tiny_checkpoint")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ResNetForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder
