"""Make the examples that the page ships: `python -m spaces_app.make_examples`, a quarter of an hour on one CPU.

They are what `phard quickstart` makes: a digit classifier, the same with a planted warp, and the hardened copy of that,
each as a model folder; their reports; and the triggers of both searches, which a report has only in numbers. A third
search has all parts of a trigger, the encoder and decoder too, with classes as targets: for pairs it costs too much.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from phard_hub import (
    PRESETS,
    DataOptions,
    Job,
    Measurement,
    Report,
    SearchSettings,
    Settings,
    load_data,
    measure,
    measure_only,
    open_model,
    quickstart,
)
from phard_hub.report import ClassDistances
from phard_hub.triggers import Parts
from spaces_app.examples import AUTOENCODER, FOLDER, MODEL_FILES, MODELS, REPORTS, STYLED_DISTANCES, triggers_of

STYLED = SearchSettings(
    steps=60,
    batch=6,
    fit_images=30,
    choosing_images=10,
    judging_images=20,
    max_pairs=0,
    kinds=(),
    parts=Parts(latent=True, latent_grid=4),
)

TOGETHER = ("warp", "colour", "field")
"""Kinds of triggers that are searched in one batch with those of all parts, and so are among its random numbers."""


def make(out: Path, work: Path) -> None:
    """Do the quickstart in ``work``, and put what the page needs of it into ``out``."""
    outcome = quickstart(work, kinds=SearchSettings().kinds, progress=_say)
    report, data = outcome.report, _data(work)
    assert report.after is not None
    honest = measure_only(str(work / "honest"), data, _settings(report), progress=_say)
    shutil.rmtree(out, ignore_errors=True)
    for name, made in zip(MODELS, ("honest", "model", "release"), strict=True):
        (out / name).mkdir(parents=True)
        for file in MODEL_FILES:
            shutil.copyfile(work / made / file, out / name / file)
    (out / REPORTS["backdoored"]).write_text(report.to_json())
    (out / REPORTS["honest"]).write_text(honest.to_json())
    before, after = report.before.distances, report.after.distances
    for name, made, reported, beside in (("backdoored", "model", before, None), ("hardened", "release", after, before)):
        found = _search_again(work / made, data, reported, beside)
        _save(found.bank.state_dict(), triggers_of(name, out))
    _make_styled(work / "model", data, out)


def _data(work: Path) -> DataOptions:
    digits = work / "digits"
    return DataOptions(images=str(digits / "train.parquet"), test_images=str(digits / "test.parquet"))


def _settings(report: Report) -> Settings:
    """What the same search and attack need on another model."""
    preset = PRESETS["fast"]
    return Settings(
        preset=replace(preset, search=_search(report.before.distances), pgd=replace(preset.pgd, images=300))
    )


def _search(distances: ClassDistances) -> SearchSettings:
    fields = {name: value for name, value in distances.settings.items() if name != "seed"}
    tuples = {name: tuple(fields[name]) for name in ("betas", "kinds")}
    return SearchSettings(**fields | tuples | {"parts": Parts(**fields["parts"])})


def _search_again(
    model: Path, data: DataOptions, reported: ClassDistances, beside: ClassDistances | None
) -> Measurement:
    """The search of the report once more, because a report has no triggers; it has to find the same.

    Kinds of triggers that are searched after these, with networks of their own, are left out.
    """
    classifier, search = open_model(str(model)), _search(reported)
    seed = reported.settings["seed"]
    images = load_data(classifier, data, seed).test
    search = replace(search, kinds=tuple(kind for kind in search.kinds if kind in TOGETHER))
    found = measure(classifier, images, search, Job(seed=seed, progress=_say), beside=beside)
    if found.distances.pairs != reported.pairs or found.distances.universal != reported.universal:
        raise SystemExit(f"{model}: the second search found other triggers than the report has.")
    return found


def _make_styled(model: Path, data: DataOptions, out: Path) -> None:
    """The search with all parts, and what its triggers need."""
    classifier = open_model(str(model))
    found = measure(classifier, load_data(classifier, data, 0).test, STYLED, Job(progress=_say))
    assert found.bank.autoencoder is not None
    (out / STYLED_DISTANCES).write_text(found.distances.model_dump_json(indent=1))
    _save(found.bank.state_dict(), triggers_of("styled", out))
    _save(found.bank.autoencoder.state_dict(), out / AUTOENCODER)


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    """In half precision, which changes no trigger by a hundredth of a grey level, for half of the size."""
    save_file({name: tensor.half().contiguous() for name, tensor in tensors.items()}, path)


def _say(what: str, done: int, total: int) -> None:
    if done in (1, total):
        sys.stderr.write(f"{what}: {done} of {total}\n")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write, in place of what is there")
    parser.add_argument("--work", type=Path, help="folder of a quickstart, which is not done again where it has ended")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        make(options.out, options.work or Path(work))


if __name__ == "__main__":
    main()
