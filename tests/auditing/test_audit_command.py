"""`phard audit` as a command: what it prints, its formats, and its exit codes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from phard_hub.auditing import audit
from phard_hub.hub.pull import pull
from tests.auditing.checkpoints import config, save_vit, tensors, write_card
from tests.command import Phard
from tests.hub_server import Hub
from tests.report.views.test_sarif import checked, place_of


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny vision transformer; do not change it."""
    return save_vit(tmp_path_factory.mktemp("vit"))


@pytest.fixture
def model(vit: Path, tmp_path: Path) -> Path:
    """A copy whose card names org/base."""
    folder = shutil.copytree(vit, tmp_path / "model")
    write_card(folder, "base_model: org/base")
    return folder


def flat(text: str) -> str:
    """A table's text without its lines and its line breaks."""
    return " ".join("".join(char if char.isprintable() and char not in "│┃" else " " for char in text).split())


def test_over_the_wire_in_a_process_of_its_own(hub: Hub, vit: Path, model: Path) -> None:
    hub.create("org/base", vit)
    first = hub.create("org/model", model)
    config(hidden_act="silu")(model)
    second = hub.commit("org/model", {"config.json": (model / "config.json").read_bytes()})
    environment = {**os.environ, "COLUMNS": "160"}
    command = [sys.executable, "-m", "phard_hub", "audit"]

    fine = subprocess.run([*command, f"org/model@{first}"], env=environment, capture_output=True, text=True)
    assert (fine.returncode, fine.stderr) == (0, "")
    assert f"org/model@{first[:12]}, compared with org/base@{hub.head('org/base')}" in fine.stdout
    assert "nothing found by these checks; not refused by the policy." in fine.stdout

    changed = subprocess.run([*command, "org/model@main"], env=environment, capture_output=True, text=True)
    assert (changed.returncode, changed.stderr) == (1, "")
    assert f"org/model@{second[:12]}" in changed.stdout
    assert "error PH-A20" in changed.stdout
    assert "hidden_act is 'silu'" in changed.stdout
    assert "1 error; refused by the policy." in changed.stdout
    assert not hub.leaks()


def test_a_folder_without_an_upstream(vit: Path, phard: Phard) -> None:
    done = phard("audit", vit)
    assert done.code == 0
    assert "note PH-A27" in done.out
    assert "nothing found by these checks, 1 note; not refused by the policy." in done.out
    assert done.err == ""


def test_upstream_and_what_is_allowed(vit: Path, model: Path, phard: Phard) -> None:
    config(hidden_act="silu", layer_norm_eps=0.5)(model)
    assert phard("audit", model, "--upstream", vit).code == 1
    assert phard("audit", model, "--upstream", vit, "--allow", "hidden_act").code == 1
    done = phard("audit", model, "--upstream", vit, "--allow", "hidden_act", "--allow", "layer_norm_eps")
    assert done.code == 0
    assert "3 notes" in done.out  # the third says that no tensor differs


@pytest.mark.parametrize(("forbidden", "code"), [('["error"]', 0), ('["error", "warning"]', 1), ('"off"', 0)])
def test_the_policy_decides(vit: Path, tmp_path: Path, phard: Phard, forbidden: str, code: int) -> None:
    model = shutil.copytree(vit, tmp_path / "warned")
    torch.save({}, model / "training_args.bin")
    policy = tmp_path / "policy.toml"
    policy.write_text(f"forbid_findings = {forbidden}\n")
    assert phard("audit", model, "--policy", policy).code == code


def test_an_error_that_no_policy_forbids_still_forbids_loading(model: Path, tmp_path: Path, phard: Phard) -> None:
    tensors(extra=torch.zeros(1))(model)
    policy = tmp_path / "policy.toml"
    policy.write_text('forbid_findings = "off"\n')
    done = phard("audit", model, "--policy", policy)
    assert done.code == 0
    assert "1 error, 1 warning, 1 note; not refused" in done.out
    images = tmp_path / "images"
    images.mkdir()
    assert "PH-A28" in phard("measure", model, "--images", images).complaint


def test_harden_and_measure_ask_for_the_same(vit: Path, model: Path, tmp_path: Path, phard: Phard) -> None:
    config(hidden_act="silu")(model)
    images = tmp_path / "images"
    images.mkdir()
    refused = phard("harden", model, "--images", images, "--out", tmp_path / "out", "--upstream", vit)
    assert refused.code == 2
    assert "PH-A20" in refused.complaint
    allowed = phard("measure", model, "--images", images, "--upstream", vit, "--allow", "hidden_act")
    assert "PH-A20" not in allowed.complaint
    assert str(images) in allowed.complaint  # it came as far as the images


# Formats


def test_json(hub: Hub, vit: Path, model: Path, phard: Phard) -> None:
    base = hub.create("org/base", vit)
    config(hidden_act="silu")(model)
    commit = hub.create("org/model", model)
    done = phard("audit", "org/model", "--format", "json")
    answer = json.loads(done.out)
    (finding,) = answer["findings"]
    assert done.code == 1
    assert answer["refused"] is True
    assert (answer["repo"], answer["commit"], answer["upstream"]) == ("org/model", commit, f"org/base@{base}")
    assert answer["files"] == pull("org/model").files
    assert (finding["id"], finding["severity"], finding["file"]) == ("PH-A20", "error", "config.json")
    assert finding["meaning"] == "The activation is not that of the upstream model."


def test_sarif_points_into_the_folder(vit: Path, tmp_path: Path, phard: Phard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(vit, tmp_path / "my model")
    (tmp_path / "my model" / "evil code.py").touch()
    (tmp_path / "my model" / "old.h5").touch()
    done = phard("audit", "my model", "--format", "sarif")
    assert done.code == 1
    results = checked(done.out)["results"]
    assert len({result["partialFingerprints"]["phardFinding/v1"] for result in results}) == len(results)
    seen = {(result["ruleId"], result["level"], place_of(result)["uri"]) for result in results}
    assert seen == {
        ("PH-A03", "error", "my%20model/evil%20code.py"),
        ("PH-A02", "warning", "my%20model/old.h5"),
        ("PH-A27", "note", "my%20model/config.json"),
    }


def test_sarif_points_to_the_hub(hub: Hub, vit: Path, phard: Phard) -> None:
    commit = hub.create("org/model", vit)
    (result,) = checked(phard("audit", "org/model", "--format", "sarif").out)["results"]
    assert place_of(result) == {"uri": f"org/model/resolve/{commit}/config.json", "uriBaseId": "HUB"}


# Names from strangers


def test_what_strangers_wrote_is_no_markup(vit: Path, tmp_path: Path, phard: Phard) -> None:
    model = shutil.copytree(vit, tmp_path / "model")
    (model / "[red]\x1b[2J\n.py").touch()
    config(auto_map={"[bold]": "[link=http://evil]x[/link]"})(model)
    done = phard("audit", model)
    assert done.code == 1
    assert "\x1b" not in done.out
    assert "[red]?[2J .py" in flat(done.out)
    assert "[link=http://evil]x[/link]" in flat(done.out).replace(" ", "").replace("auto_map=", "")


# Bad input


def test_no_such_model(hub: Hub, phard: Phard) -> None:
    done = phard("audit", "org/nowhere")
    assert done.code == 2
    assert "org/nowhere" in done.complaint


def test_no_such_revision(hub: Hub, vit: Path, phard: Phard) -> None:
    hub.create("org/model", vit)
    done = phard("audit", "org/model@v9")
    assert done.code == 2
    assert "no revision 'v9'" in done.complaint


def test_only_pickles(hub: Hub, vit: Path, tmp_path: Path, phard: Phard) -> None:
    hub.create("org/model", {"config.json": (vit / "config.json").read_bytes(), "pytorch_model.bin": b"pickle"})
    done = phard("audit", "org/model")
    assert done.code == 2
    assert "no *.safetensors file" in done.complaint
    folder = shutil.copytree(vit, tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    done = phard("audit", folder)
    assert done.code == 1
    assert "error PH-A01" in done.out


def test_the_hub_is_down(hub: Hub, phard: Phard) -> None:
    with hub.down():
        done = phard("audit", "org/model")
    assert done.code == 3
    assert "did not give org/model" in done.complaint


def test_a_given_upstream_that_is_not_there(hub: Hub, vit: Path, phard: Phard) -> None:
    done = phard("audit", vit, "--upstream", "org/nowhere")
    assert done.code == 2
    assert "org/nowhere" in done.complaint


def test_a_repository_that_changes_meanwhile(hub: Hub, vit: Path, model: Path) -> None:
    first = hub.create("org/model", model)
    snapshot = pull("org/model")
    config(hidden_act="silu")(model)
    hub.commit("org/model", {"config.json": (model / "config.json").read_bytes()})
    assert snapshot.commit == first
    assert '"gelu"' in (snapshot.folder / "config.json").read_text()
    assert {found.id for found in audit(snapshot).findings} == {"PH-A26", "PH-A27"}
