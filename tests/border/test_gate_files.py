"""A release changed in many ways, in its folder and on the Hub: `phard gate` refuses each."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from phard_hub.errors import ReportError
from phard_hub.hub.pull import sha256
from phard_hub.report.record import REPORT_NAME, Report
from tests.border.run import watched
from tests.command import Phard
from tests.hub_server import Hub
from tests.release.releases import make_release, on_disk
from tests.report.views.test_sarif import checked, place_of
from tests.report_factory import make_report

Change = Callable[[Path, Path], None]
"""Changes a release; the second folder is another release, of other weights."""
WEIGHTS = "model.safetensors"
WEIGHTS_LOST, FILES_LOST = "same_weights", "same_files"


def put(name: str, content: str | bytes) -> Change:
    def change(release: Path, _other: Path) -> None:
        (release / name).parent.mkdir(exist_ok=True)
        (release / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def drop(name: str) -> Change:
    return lambda release, _other: (release / name).unlink()


def swap(name: str) -> Change:
    def change(release: Path, other: Path) -> None:
        shutil.copyfile(other / name, release / name)

    return change


def add_as(name: str) -> Change:
    def change(release: Path, other: Path) -> None:
        shutil.copyfile(other / WEIGHTS, release / name)

    return change


def link(name: str) -> Change:
    def change(release: Path, other: Path) -> None:
        (release / name).rename(other / "elsewhere")
        (release / name).symlink_to(other / "elsewhere")

    return change


def link_to_other(release: Path, other: Path) -> None:
    (release / WEIGHTS).unlink()
    (release / WEIGHTS).symlink_to(other / WEIGHTS)


def linked_folder(release: Path, other: Path) -> None:
    (release / "onnx").symlink_to(other)


def fifo(name: str) -> Change:
    def change(release: Path, _other: Path) -> None:
        (release / name).unlink(missing_ok=True)
        os.mkfifo(release / name)

    return change


def flip(name: str, at: int) -> Change:
    def change(release: Path, _other: Path) -> None:
        content = bytearray((release / name).read_bytes())
        content[at] ^= 1
        (release / name).write_bytes(content)

    return change


def folder_as_weights(release: Path, _other: Path) -> None:
    (release / WEIGHTS).unlink()
    (release / WEIGHTS).mkdir()


def saved_anew(release: Path, _other: Path) -> None:
    """The same tensors, and other metadata beside them."""
    save_file(load_file(release / WEIGHTS), release / WEIGHTS, {"format": "np"})


def nothing_but_a_report(release: Path, _other: Path) -> None:
    for path in release.iterdir():
        if path.name != REPORT_NAME:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def report_without_hashes(release: Path, _other: Path) -> None:
    report = json.loads((release / REPORT_NAME).read_text())
    report["source"]["files"] = {}
    (release / REPORT_NAME).write_text(json.dumps(report))


def name_of_no_text(release: Path, _other: Path) -> None:
    Path(os.fsdecode(os.fsencode(release) + b"/\xff.bin")).write_bytes(b"")


CHANGES: dict[str, tuple[Change, int, str]] = {
    "swapped weights": (swap(WEIGHTS), 1, WEIGHTS_LOST),
    "the report of another model": (swap(REPORT_NAME), 1, WEIGHTS_LOST),
    "one bit of the last weight": (flip(WEIGHTS, -1), 1, WEIGHTS_LOST),
    "one bit of the header": (flip(WEIGHTS, 12), 1, WEIGHTS_LOST),
    "weights cut off": (put(WEIGHTS, b"\0" * 9), 1, WEIGHTS_LOST),
    "weights saved anew": (saved_anew, 1, WEIGHTS_LOST),
    "no weights": (drop(WEIGHTS), 1, WEIGHTS_LOST),
    "nothing but a report": (nothing_but_a_report, 1, WEIGHTS_LOST),
    "a link to the same weights": (link(WEIGHTS), 1, WEIGHTS_LOST),
    "a link to other weights": (link_to_other, 1, WEIGHTS_LOST),
    "a FIFO as weights": (fifo(WEIGHTS), 1, WEIGHTS_LOST),
    "a folder as weights": (folder_as_weights, 1, WEIGHTS_LOST),
    "another config": (put("config.json", '{"model_type": "resnet", "hidden_act": "tanh"}'), 1, FILES_LOST),
    "one space in the config": (put("config.json", b'{"model_type": "resnet"}\r\n'), 1, FILES_LOST),
    "no config": (drop("config.json"), 1, FILES_LOST),
    "a link as config": (link("config.json"), 1, FILES_LOST),
    "a FIFO as config": (fifo("config.json"), 1, FILES_LOST),
    "another image processor": (put("preprocessor_config.json", '{"size": 8}'), 1, FILES_LOST),
    "no image processor": (drop("preprocessor_config.json"), 1, FILES_LOST),
    "a second image processor": (put("processor_config.json", '{"size": 8}'), 1, FILES_LOST),
    "a second config": (put("config.4.0.0.json", '{"model_type": "resnet"}'), 1, FILES_LOST),
    "a config in capitals": (put("Config.json", "{}"), 1, FILES_LOST),
    "a report that knows no files": (report_without_hashes, 1, FILES_LOST),
    "an adapter's config": (put("adapter_config.json", '{"peft_type": "LORA"}'), 1, FILES_LOST),
    "an adapter": (add_as("adapter_model.safetensors"), 1, FILES_LOST),
    "a pickle": (put("pytorch_model.bin", b"\x80\x04."), 1, FILES_LOST),
    "a pickle of arguments": (put("training_args.bin", b"\x80\x04."), 1, FILES_LOST),
    "an index of shards": (put("model.safetensors.index.json", '{"weight_map": {}}'), 1, FILES_LOST),
    "a shard": (add_as("model-00001-of-00001.safetensors"), 1, FILES_LOST),
    "a variant": (add_as("model.fp16.safetensors"), 1, FILES_LOST),
    "weights of TensorFlow": (put("tf_model.h5", b"\x89HDF"), 1, FILES_LOST),
    "weights of Flax": (put("flax_model.msgpack", b"\x80"), 1, FILES_LOST),
    "a graph": (put("onnx/model.onnx", b"\x08"), 1, FILES_LOST),
    "code": (put("modeling_resnet.py", "raise SystemExit"), 1, FILES_LOST),
    "code as a licence": (put("LICENSE.py", "raise SystemExit"), 1, FILES_LOST),
    "weights as a licence": (add_as("LICENSE.safetensors"), 1, FILES_LOST),
    "code among the plots": (put("plots/draw.py", "raise SystemExit"), 1, FILES_LOST),
    "a processor for chats": (put("chat_template.jinja", "{{ x }}"), 1, FILES_LOST),
    "a file without a kind": (put("weights", b"\0"), 1, FILES_LOST),
    "a linked folder": (linked_folder, 1, FILES_LOST),
    "a FIFO beside it": (fifo("notes.txt"), 1, FILES_LOST),
    "a name that is no text": (name_of_no_text, 1, FILES_LOST),
    "no report": (drop(REPORT_NAME), 2, "Cannot read the report"),
    "a report that is none": (put(REPORT_NAME, "{}"), 2, "is not a report"),
    "a link as report": (link(REPORT_NAME), 2, "it is a link"),
    "a FIFO as report": (fifo(REPORT_NAME), 2, "it is no regular file"),
}
HARMLESS: dict[str, Change] = {
    "as it was written": lambda _release, _other: None,
    "another card": put("README.md", "# Mine"),
    "no plots": lambda release, _other: shutil.rmtree(release / "plots"),
    "a licence": put("LICENSE", "MIT"),
    "notes and pictures": put("notes.txt", "mine"),
    "hidden files": put(".gitattributes", "*.bin filter=lfs"),
    "hidden folders": put(".git/index.bin", b"\0"),
    "a policy and a key": put("policy.toml", ""),
}


@pytest.fixture
def copy(release: Path, tmp_path: Path) -> Path:
    """A release that may be changed."""
    return shutil.copytree(release, tmp_path / "release")


@pytest.fixture
def other(other_release: Path, tmp_path: Path) -> Path:
    return shutil.copytree(other_release, tmp_path / "other")


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_folder_is_refused(name: str, copy: Path, other: Path) -> None:
    change, code, expected = CHANGES[name]
    change(copy, other)
    done, notes = watched("gate", copy, folders=(copy,), seconds=30, from_the_start=True)
    assert (done.code, notes) == (code, [])
    if code == 2:
        assert expected in done.complaint
    else:
        assert f"FAIL            {expected}" in done.out


@pytest.mark.parametrize("name", HARMLESS)
def test_what_no_library_loads_may_lie_there(name: str, copy: Path, other: Path, phard: Phard) -> None:
    HARMLESS[name](copy, other)
    done = phard("gate", copy)
    assert (done.code, done.err) == (0, ""), done.out


def test_many_faults_are_counted(copy: Path, phard: Phard) -> None:
    for number in range(9):
        (copy / f"{number}.bin").write_bytes(b"")
    assert "; and 6 more" in phard("gate", copy).out


def test_a_folder_of_a_great_many_files(copy: Path, monkeypatch: pytest.MonkeyPatch, phard: Phard) -> None:
    monkeypatch.setattr("phard_hub.release.folder.MOST_FILES", 5)
    assert "holds more than 5 files" in phard("gate", copy).complaint


def test_weights_of_any_size_take_little_memory(copy: Path) -> None:
    """A gigabyte of them, in a process that may have half of that."""
    with (copy / WEIGHTS).open("wb") as file:
        file.truncate(2**30)
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29))\n"
        "from phard_hub.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code, "gate", copy], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert "FAIL            same_weights" in done.stdout


@pytest.mark.parametrize("format", ["text", "json", "junit", "sarif"])
def test_a_report_alone_says_that_no_weights_were_looked_at(format: str, release: Path, phard: Phard) -> None:
    done = phard("gate", release / REPORT_NAME, "--format", format)
    assert done.code == 0
    assert done.out.count("No weights were looked at") == 1
    assert "same_weights" not in done.out
    beside = phard("gate", release, "--format", format)
    assert "No weights were looked at" not in beside.out


@pytest.mark.parametrize("format", ["text", "json", "junit", "sarif"])
def test_each_format_says_who_controls_the_verdict(format: str, release: Path, phard: Phard) -> None:
    assert phard("gate", release, "--format", format).out.count("whoever controls the folder") == 1


@pytest.mark.parametrize(
    "target", ["nothing-here", "org/model", "a/b/c", "a/b/c@main", "@main", "org/model@", "x@../y"]
)
def test_a_target_that_is_none(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phard: Phard) -> None:
    monkeypatch.chdir(tmp_path)
    done = phard("gate", target)
    assert (done.code, done.out) == (2, "")
    assert done.complaint


def test_the_gate_of_a_folder_needs_neither_torch_nor_the_hub(release: Path) -> None:
    code = (
        "import sys\nfrom phard_hub.__main__ import main\n"
        "try: main()\nfinally: print(*{'torch', 'transformers', 'huggingface_hub', 'model_signing'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code, "gate", release], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""


def test_a_model_that_was_only_measured(copy: Path, phard: Phard) -> None:
    """Its weights may lie there as they were pulled; those of the hardened model are others."""
    report = json.loads((copy / REPORT_NAME).read_text())
    hardened = report["after"]["weights_sha256"]
    report["source"]["files"][WEIGHTS] = hardened
    report["hardening"] = report["after"] = None
    (copy / REPORT_NAME).write_text(json.dumps(report))
    assert phard("gate", copy).out.count("PASS            same_weights") == 1
    report["source"]["files"][WEIGHTS] = "0" * 64
    (copy / REPORT_NAME).write_text(json.dumps(report))
    assert phard("gate", copy).code == 1


def test_the_base_does_not_pass_for_the_hardened_model(copy: Path, other: Path, phard: Phard) -> None:
    """The report names the hash of the base's weights, too."""
    swap(WEIGHTS)(copy, other)
    report = json.loads((copy / REPORT_NAME).read_text())
    report["source"]["files"][WEIGHTS] = json.loads((other / REPORT_NAME).read_text())["after"]["weights_sha256"]
    (copy / REPORT_NAME).write_text(json.dumps(report))
    assert "FAIL            same_weights" in phard("gate", copy).out


# On the Hub

ON_THE_HUB: dict[str, tuple[dict[str, bytes | str | None], int, str]] = {
    "another config": ({"config.json": "{}"}, 1, FILES_LOST),
    "no config": ({"config.json": None}, 1, FILES_LOST),
    "another image processor": ({"preprocessor_config.json": "{}"}, 1, FILES_LOST),
    "no image processor": ({"preprocessor_config.json": None}, 1, FILES_LOST),
    "a second image processor": ({"processor_config.json": "{}"}, 1, FILES_LOST),
    "a pickle": ({"pytorch_model.bin": b"\x80\x04."}, 1, FILES_LOST),
    "an index of shards": ({"model.safetensors.index.json": "{}"}, 1, FILES_LOST),
    "an adapter": ({"adapter_config.json": "{}"}, 1, FILES_LOST),
    "code": ({"modeling.py": "raise SystemExit"}, 1, FILES_LOST),
    "a graph": ({"onnx/model.onnx": b"\x08"}, 1, FILES_LOST),
    "a config that is none": ({"config.json": b" " * (8 * 2**20 + 1)}, 1, FILES_LOST),
    "other weights": ({WEIGHTS: b"\x08" + b"\0" * 7 + b"{}      "}, 1, WEIGHTS_LOST),
    "no weights": ({WEIGHTS: None}, 1, WEIGHTS_LOST),
    "no report": ({REPORT_NAME: None}, 2, "has no phard_report.json"),
    "a report that is none": ({REPORT_NAME: "{}"}, 2, "is not a report"),
}


@pytest.mark.parametrize("name", ON_THE_HUB)
def test_a_changed_repository_is_refused(name: str, hub: Hub, release: Path, phard: Phard) -> None:
    changes, code, expected = ON_THE_HUB[name]
    hub.create("me/model", release)
    good = hub.head("me/model", "main")
    bad = hub.commit("me/model", changes)
    for revision in ("main", bad):
        done = phard("gate", f"me/model@{revision}")
        assert done.code == code
        assert expected in (done.out if code == 1 else done.complaint)
    assert phard("gate", f"me/model@{good}").code == 0


def test_weights_on_the_hub_are_not_downloaded(hub: Hub, release: Path, tmp_path: Path, phard: Phard) -> None:
    hub.create("me/model", release)
    done = phard("gate", "me/model@main", "--format", "json")
    verdict = json.loads(done.out)
    assert (done.code, verdict["passed"]) == (0, True)
    assert {rule["name"] for rule in verdict["rules"]} >= {WEIGHTS_LOST, FILES_LOST}
    cache = Path(os.environ["HF_HOME"])
    assert list(cache.rglob(REPORT_NAME))
    assert not list(cache.rglob(WEIGHTS))


def test_a_verdict_about_the_hub_names_the_commit(hub: Hub, release: Path, phard: Phard) -> None:
    hub.create("me/model", {**on_disk(release), "pytorch_model.bin": b""})
    commit = hub.head("me/model", "main")
    run = checked(phard("gate", "me/model@main", "--format", "sarif").out)
    assert place_of(run["results"][0]) == {"uri": f"me/model/resolve/{commit}/{REPORT_NAME}", "uriBaseId": "HUB"}


@pytest.mark.parametrize(
    ("target", "code", "expected"),
    [
        ("me/nothing@main", 2, "There is no folder and no model me/nothing"),
        ("me/model@v9", 2, "has no revision 'v9'"),
    ],
)
def test_what_is_not_on_the_hub(target: str, code: int, expected: str, hub: Hub, release: Path, phard: Phard) -> None:
    hub.create("me/model", release)
    done = phard("gate", target)
    assert (done.code, done.out) == (code, "")
    assert expected in done.complaint


def test_a_hub_that_is_down(hub: Hub, release: Path, monkeypatch: pytest.MonkeyPatch, phard: Phard) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.create("me/model", release)
    done = phard("gate", "me/model@main")
    assert (done.code, done.out) == (3, "")
    assert done.complaint


def test_another_release_in_one_place(tmp_path: Path, phard: Phard) -> None:
    """Each passes; the report of one with the weights of the other does not."""
    one, two = make_release(tmp_path / "one", seed=3), make_release(tmp_path / "two", seed=4)
    assert [phard("gate", folder).code for folder in (one, two)] == [0, 0]
    shutil.copy(one / WEIGHTS, two / WEIGHTS)
    assert phard("gate", two).code == 1


def test_a_report_that_is_exchanged_while_it_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / REPORT_NAME
    path.write_text(make_report().to_json())
    looked_at = sha256(path)
    path.write_text(make_report(dataset="another").to_json())
    with pytest.raises(ReportError, match="changed while it was looked at"):
        Report.read(tmp_path, sha256=looked_at)
