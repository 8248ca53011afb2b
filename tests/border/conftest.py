"""Shared by the tests of the border: what the tests of the Hub have, and a model of each library."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

from tests.auditing.checkpoints import config, save_timm, save_vit
from tests.release.conftest import files, impatient, other_release, release

__all__ = ["files", "impatient", "other_release", "release"]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each library; do not change them."""
    folders = {"transformers": save_vit(tmp_path_factory.mktemp("vit"))}
    if importlib.util.find_spec("timm"):
        folders["timm"] = save_timm(tmp_path_factory.mktemp("timm"), "test_vit")
        folders["wrapper"] = shutil.copytree(folders["timm"], tmp_path_factory.mktemp("wrapper") / "model")
        config(model_type="timm_wrapper", model_args={})(folders["wrapper"])
    return folders
