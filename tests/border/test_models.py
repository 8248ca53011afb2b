"""What an attacker may put into a model's folder: each case is refused or told, and nothing of it runs.

All of them are audited under the watch of `watching`.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from phard_hub.auditing import audit
from phard_hub.hub.pull import pull
from phard_hub.models.loading import load
from tests.auditing.checkpoints import Tamper, config, model_args, set_json, write_card
from tests.border.run import watched
from tests.border.watched import watching
from tests.command import Phard
from tests.hub_server import Hub

WEIGHTS = "model.safetensors"


class Evil:
    """Leaves a file where whoever unpickles it is at work."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("unpickled",)


@pytest.fixture
def model(originals: dict[str, Path], library: str, tmp_path: Path) -> Path:
    if library not in originals:
        pytest.skip("NO TIMM: install phard-hub[timm]")
    return shutil.copytree(originals[library], tmp_path / "model")


def both(*tampers: Tamper) -> Tamper:
    return lambda folder: [tamper(folder) for tamper in tampers]


def write(name: str, content: bytes | str) -> Tamper:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def link(name: str, target: str) -> Tamper:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return change


def replace_by(name: str, make: Callable[[Path], None]) -> Tamper:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return change


def second_config(folder: Path) -> None:
    """What the library reads in place of config.json."""
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.4.0.0.json").write_text(json.dumps({**content, "hidden_act": "silu"}))


def other_weights(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    save_file({name: torch.zeros_like(value) for name, value in weights.items()}, folder / "other.safetensors")


def pickled_weights(name: str) -> Tamper:
    return lambda folder: (folder / name).write_bytes(pickle.dumps(Evil()))


def in_whole_numbers(dtype: torch.dtype) -> Tamper:
    def change(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        name = next(name for name in weights if name.endswith(("classifier.weight", "head.weight")))
        save_file({**weights, name: (weights[name] * 100).to(dtype)}, folder / WEIGHTS, metadata={"format": "pt"})

    return change


def many_pickles(folder: Path) -> None:
    (folder / "p").mkdir()
    for number in range(2_000):
        (folder / "p" / f"{number}.pkl").write_bytes(b"\x80\x04K\x01.")


def many_classes(folder: Path) -> None:
    config(id2label={str(number): f"class {number}" for number in range(150_000)}, label2id=None)(folder)


def twice(folder: Path) -> None:
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.rstrip().removesuffix("}") + ', "hidden_act": "silu"}')


def huge_header(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", 2**50) + b"{}")


CASES: list[tuple[str, str, str, Tamper]] = [
    # the library, a name, the finding, what is done
    (
        "transformers",
        "a second config",
        "PH-A11",
        both(second_config, config(configuration_files=["config.4.0.0.json"])),
    ),
    (
        "transformers",
        "weights by name",
        "PH-A11",
        both(other_weights, config(transformers_weights="other.safetensors")),
    ),
    ("transformers", "weights by a path", "PH-A11", config(transformers_weights="../other.safetensors")),
    ("transformers", "a GGUF file", "PH-A11", config(gguf_file="model.gguf")),
    ("transformers", "a backbone from elsewhere", "PH-A11", config(use_pretrained_backbone=True, backbone="org/x")),
    ("transformers", "an adapter", "PH-A11", write("adapter_config.json", '{"base_model_name_or_path": "org/x"}')),
    ("transformers", "code beside the config", "PH-A04", config(auto_map={"AutoConfig": "evil.Evil"})),
    ("transformers", "code of the processor", "PH-A04", set_json("preprocessor_config.json", auto_map={"x": "evil.E"})),
    ("transformers", "a module", "PH-A03", write("evil.py", "raise SystemExit('ran')")),
    ("transformers", "a module in a hidden folder", "PH-A03", write(".cache/evil.py", "raise SystemExit('ran')")),
    ("transformers", "a shared library", "PH-A03", write("libevil.so", b"\x7fELF")),
    ("transformers", "a kernel", "PH-A05", config(_attn_implementation="org/kernel")),
    (
        "transformers",
        "an index that leads out",
        "PH-A06",
        write("model.safetensors.index.json", '{"weight_map": {"a": "../x.safetensors"}}'),
    ),
    ("transformers", "a config that is a link", "PH-A07", link("config.json", "/etc/hostname")),
    ("transformers", "weights that are a link", "PH-A07", link(WEIGHTS, "/etc/hostname")),
    ("transformers", "a card that is a link", "PH-A07", link("README.md", "/proc/self/environ")),
    ("transformers", "a processor that is a FIFO", "PH-A07", replace_by("preprocessor_config.json", os.mkfifo)),
    ("transformers", "weights that are a FIFO", "PH-A07", replace_by(WEIGHTS, os.mkfifo)),
    ("transformers", "a config that is a folder", "PH-A08", replace_by("config.json", os.mkdir)),
    ("transformers", "two values for one key", "PH-A08", twice),
    (
        "transformers",
        "NaN in the config",
        "PH-A08",
        write("config.json", '{"model_type": "vit", "layer_norm_eps": NaN}'),
    ),
    (
        "transformers",
        "a number of a million digits",
        "PH-A08",
        write("config.json", '{"hidden_size": ' + "9" * 10**6 + "}"),
    ),
    ("transformers", "JSON a million deep", "PH-A08", write("config.json", "[" * 10**6)),
    ("transformers", "text in another encoding", "PH-A08", write("preprocessor_config.json", b"\xff\xfe\x00")),
    ("transformers", "a class name of half a character", "PH-A08", config(id2label={"0": "\ud800", "1": "b"})),
    ("transformers", "a config of 9 MB", "PH-A33", config(padding="x" * 9 * 2**20)),
    ("transformers", "150,000 classes", "PH-A33", many_classes),
    ("transformers", "2,000 pickles", "PH-A33", many_pickles),
    ("transformers", "a layer of a petabyte", "PH-A30", config(hidden_size=10**9, num_attention_heads=1)),
    (
        "transformers",
        "images of 20,000 pixels",
        "PH-A19",
        set_json("preprocessor_config.json", size={"height": 20_000, "width": 20_000}),
    ),
    ("transformers", "no processor", "PH-A19", lambda folder: (folder / "preprocessor_config.json").unlink()),
    (
        "transformers",
        "a processor of a file of its own",
        "PH-A19",
        set_json("preprocessor_config.json", image_processor_type="evil.Evil"),
    ),
    (
        "transformers",
        "a processor that divides by zero",
        "PH-A19",
        set_json("preprocessor_config.json", image_std=[0, 0, 0]),
    ),
    (
        "transformers",
        "another size of images",
        "PH-A19",
        set_json("preprocessor_config.json", size={"height": 8, "width": 8}),
    ),
    ("transformers", "weights in 8 bits", "PH-A15", in_whole_numbers(torch.int8)),
    ("transformers", "weights in 64 whole bits", "PH-A15", in_whole_numbers(torch.int64)),
    ("transformers", "a header of a petabyte", "PH-A13", huge_header),
    ("transformers", "weights that are a pickle", "PH-A13", pickled_weights(WEIGHTS)),
    ("transformers", "a pickle of PyTorch", "PH-A12", pickled_weights("pytorch_model.bin")),
    ("transformers", "a pickle called a picture", "PH-A12", pickled_weights("cat.png")),
    ("transformers", "a pickle without a suffix", "PH-A12", pickled_weights("LICENSE")),
    ("transformers", "a pickle in a hidden folder", "PH-A12", both(write(".x/y", ""), pickled_weights(".x/weights"))),
    ("transformers", "a pickle of text", "PH-A12", write("notes.txt", b"cposix\nsystem\n(S'true'\ntR.")),
    ("transformers", "a config that asks for a library's function", "PH-A19", config(hidden_act="os.system")),
    ("timm", "weights on the Hub", "PH-A11", config(architecture="hf-hub:org/evil")),
    ("timm", "weights in a folder", "PH-A11", config(architecture="local-dir:/tmp")),
    ("timm", "a checkpoint to unpickle", "PH-A11", both(pickled_weights("x.pth"), model_args(checkpoint_path="x.pth"))),
    ("timm", "pretrained weights", "PH-A11", model_args(pretrained=True)),
    ("timm", "an overlay of the config", "PH-A11", model_args(pretrained_cfg_overlay={"file": "x.pth"})),
    ("timm", "a file for the weights", "PH-A11", config(pretrained_cfg={"file": "x.pth"})),
    ("timm", "arguments that are no object", "PH-A08", config(model_args=["x"])),
    ("timm", "another activation", "PH-A22", model_args(act_layer="silu")),
    ("timm", "another pooling", "PH-A22", model_args(global_pool="avg", class_token=True)),
    ("timm", "another number of heads", "PH-A22", model_args(num_heads=4)),
    ("timm", "another scale of attention", "PH-A22", model_args(qk_norm=False, no_embed_class=True)),
    ("wrapper", "weights on the Hub", "PH-A11", config(architecture="hf-hub:org/evil")),
    ("wrapper", "weights in a folder", "PH-A11", config(architecture="local-dir:/tmp")),
    (
        "wrapper",
        "a checkpoint to unpickle",
        "PH-A11",
        both(pickled_weights("x.pth"), model_args(checkpoint_path="x.pth")),
    ),
    ("wrapper", "another activation", "PH-A22", model_args(act_layer="silu")),
]

cases = pytest.mark.parametrize(
    ("library", "expected", "tamper"),
    [(library, expected, tamper) for library, _, expected, tamper in CASES],
    ids=[f"{library}: {name}" for library, name, _, _ in CASES],
)


@cases
def test_is_refused(
    model: Path, expected: str, tamper: Tamper, phard: Phard, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By the finding that names it, with exit code 1, asking nobody, and without running what is in it."""
    monkeypatch.chdir(tmp_path)
    tamper(model)
    with watching(tmp_path / "notes", [model]):
        done = phard("audit", model)
    assert (done.code, done.err) == (1, ""), done.out
    assert expected in done.out
    assert hub.log == []
    assert (tmp_path / "notes").read_text() == ""


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 40


HONEST: list[tuple[str, str, Tamper]] = [
    ("transformers", "as it was", lambda folder: None),
    ("transformers", "in 16 bits", lambda folder: _as(folder, torch.float16)),
    ("transformers", "a licence and notes", both(write("LICENSE", "MIT"), write("notes.txt", "see (a) and (b)\n"))),
    (
        "transformers",
        "a picture and a table",
        both(write("cat.png", b"\x89PNG\r\n"), write("results.csv", "a,b\n1,2\n")),
    ),
    ("transformers", "an archive of pictures", lambda folder: _archive(folder / "pictures.zip")),
    ("transformers", "a link inside the folder", lambda folder: _link_inside(folder)),
    ("timm", "as it was", lambda folder: None),
    ("timm", "what the architecture has anyway", model_args(global_pool="token", class_token=True)),
    ("timm", "dropout", model_args(drop_rate=0.2, drop_path_rate=0.1)),
    ("wrapper", "as it was", lambda folder: None),
]


def _as(folder: Path, dtype: torch.dtype) -> None:
    weights = {name: value.to(dtype) for name, value in load_file(folder / WEIGHTS).items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def _archive(path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cat.png", b"\x89PNG\r\n")


def _link_inside(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "weights")
    (folder / WEIGHTS).symlink_to("weights")


@pytest.mark.parametrize(
    ("library", "tamper"),
    [(library, tamper) for library, _, tamper in HONEST],
    ids=[f"{library}: {name}" for library, name, _ in HONEST],
)
def test_honest_models_pass(model: Path, tamper: Tamper, phard: Phard) -> None:
    """And load: what the audit lets pass is not refused later."""
    tamper(model)
    done = phard("audit", model)
    assert done.code == 0, done.out
    load(audit(pull(str(model))))


@pytest.mark.parametrize("library", ["wrapper"])
def test_in_a_process_of_its_own(model: Path, images: Path) -> None:
    """The watch is there from the first import on, and the command would go on to load the model."""
    both(pickled_weights("x.pth"), model_args(checkpoint_path="x.pth"))(model)
    done, seen = watched("measure", model, "--images", images, folders=(model, images), from_the_start=True)
    assert (done.code, seen) == (2, [])
    assert "may not be loaded" in done.complaint


def test_the_watch_sees(tmp_path: Path) -> None:
    """Each of these would be noted above."""
    folder, notes = tmp_path / "model", tmp_path / "notes"
    folder.mkdir()
    (folder / "evil.py").write_text("ran = True")
    (tmp_path / "secret").write_text("secret")
    with watching(notes, [folder]):
        exec(compile("1", folder / "evil.py", "exec"))
        pickle.loads(pickle.dumps(os.getcwd))
        with socket.socket() as connection, contextlib.suppress(OSError):
            connection.connect(("127.0.0.1", 1))
        subprocess.run(["true"], check=True)
        Path("/etc/hostname").read_text()
        Path("/proc/self/environ").read_bytes()
    seen = notes.read_text().splitlines()
    assert [line.split()[0] for line in seen] == [
        "runs",
        "unpickles",
        "socket.connect",
        "subprocess.Popen",
        "opens",
        "opens",
    ]


def test_a_name_that_is_no_text(tmp_path: Path, originals: dict[str, Path], phard: Phard) -> None:
    folder = shutil.copytree(originals["transformers"], tmp_path / "model")
    (folder / os.fsdecode(b"\xff\xfe.py")).touch()
    (folder / os.fsdecode(b"\xff.safetensors")).touch()
    (folder / "\x1b]0;owned\x07[red].py").touch()
    for form in ("text", "json", "sarif"):
        done = phard("audit", folder, "--format", form)
        assert done.code == 1
        assert "PH-A03" in done.out
        assert "\x1b" not in done.out


def test_keys_with_escapes(tmp_path: Path, originals: dict[str, Path], phard: Phard) -> None:
    folder = shutil.copytree(originals["transformers"], tmp_path / "model")
    write("processor_config.json", json.dumps({"[/red]": {"\x1b]0;owned\x07_kernel": "a/b"}}))(folder)
    done = phard("audit", folder)
    assert (done.code, "PH-A05" in done.out, "\x1b" in done.out) == (1, True, False)


def test_a_card_does_not_lead_to_a_folder(tmp_path: Path, originals: dict[str, Path], phard: Phard, hub: Hub) -> None:
    for name in ("~/model", "../model", str(tmp_path / "model"), "file:///etc", "http://127.0.0.1/x", "org/a/b"):
        folder = shutil.copytree(originals["transformers"], tmp_path / "model", dirs_exist_ok=True)
        write_card(folder, f"base_model: {json.dumps(name)}")
        done = phard("audit", folder)
        assert (done.code, "PH-A26" in done.out) == (0, True)
    assert hub.log == []
