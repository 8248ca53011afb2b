"""What is swapped while it is looked at."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from phard_hub.auditing import audit
from phard_hub.hub.pull import pull, sha256
from phard_hub.models.loading import load

WEIGHTS = "model.safetensors"


def test_a_race_between_audit_and_load(tmp_path: Path, originals: dict[str, Path]) -> None:
    """Whatever is swapped, and whenever: what is loaded is what was hashed and audited."""
    folder = shutil.copytree(originals["transformers"], tmp_path / "model")
    honest, evil = tmp_path / "honest", tmp_path / "evil"
    for place, sign in ((honest, 1), (evil, -1)):
        weights = {name: sign * value for name, value in load_file(folder / WEIGHTS).items()}
        save_file(weights, place, metadata={"format": "pt"})
    hashes = {sha256(honest): 1, sha256(evil): -1}
    original = {name: value.clone() for name, value in load_file(honest).items()}
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for place in (evil, honest):
                shutil.copy(place, tmp_path / "next")
                (tmp_path / "next").replace(folder / WEIGHTS)

    attacker = threading.Thread(target=swap)
    attacker.start()
    seen = []
    try:
        for _ in range(20):
            audited = audit(pull(str(folder)))
            sign = hashes[audited.snapshot.files[WEIGHTS]]
            loaded = load(audited).weights()
            assert all(torch.equal(loaded[name], sign * value) for name, value in original.items())
            seen.append(sign)
    finally:
        stop.set()
        attacker.join()
    assert len(seen) == 20
