"""The options that verbs share, and what becomes of them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phard_hub.report.policy import Policy
from phard_hub.settings import LARGEST_SEED

if TYPE_CHECKING:
    from phard_hub.pipeline import DataOptions, Settings


class PresetName(StrEnum):
    """How hard to search and how long to harden."""

    fast = "fast"
    default = "default"
    thorough = "thorough"
    cheapest = "cheapest"


class Format(StrEnum):
    """How a verdict is written."""

    text = "text"
    json = "json"
    junit = "junit"
    sarif = "sarif"


class AuditFormat(StrEnum):
    """How the findings of an audit are written."""

    text = "text"
    json = "json"
    sarif = "sarif"


Repo = Annotated[str, typer.Argument(help="The model: Hub id such as `microsoft/resnet-50`, or a local folder.")]
Images = Annotated[
    str,
    typer.Option(
        "--images",
        help="Labelled images: Hub data set id (`org/data` or `org/data:config`), folder with one sub-folder a "
        "class, or parquet.",
    ),
]
TestImages = Annotated[
    str | None, typer.Option(help="Images never trained on, to measure with; without it, a fifth of --images.")
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of the Hub id.")]
Split = Annotated[str | None, typer.Option(help="Split of --images; `train` if there is one.")]
TestSplit = Annotated[str | None, typer.Option(help="Split of --test-images.")]
ImageColumn = Annotated[str | None, typer.Option(help="Column with the images, if it cannot be found by its type.")]
LabelColumn = Annotated[str | None, typer.Option(help="Column with the labels, if it cannot be found by its type.")]
MaxImages = Annotated[int, typer.Option(min=8, help="Use at most so many images of each data set, evenly by class.")]
PresetOption = Annotated[
    PresetName, typer.Option(help="How hard to search and how long to harden; `cheapest` only tries things out.")
]
Seed = Annotated[
    int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of all random choices; the same seed repeats a run.")
]
Backdoors = Annotated[
    list[Path],
    typer.Option(
        metavar="folder",
        help="Folder that `phard plant` wrote: judge the model with that trigger too. As often as you like.",
    ),
]
PolicyFile = Annotated[
    Path | None, typer.Option(help="The gate's limits, a policy.toml as `phard policy` prints; else the defaults.")
]
Upstream = Annotated[
    str | None,
    typer.Option(
        metavar="repo[@rev]",
        help="The model that this one was made from, to compare their configs; else the one that its card names.",
    ),
]
Allow = Annotated[
    list[str],
    typer.Option(metavar="field", help="Field of the config that may differ from the upstream's. Repeat for others."),
]


def data_options(given: dict[str, Any]) -> DataOptions:
    """The data options among the arguments of a verb."""
    from dataclasses import fields

    from phard_hub.pipeline import DataOptions

    return DataOptions(**{field.name: given[field.name] for field in fields(DataOptions)})


def make_settings(
    preset: PresetName,
    policy: Path | None,
    seed: int,
    backdoors: list[Path],
    *,
    upstream: str | None,
    allow: list[str],
) -> Settings:
    """Settings of a run from the options."""
    from phard_hub.backdoors import read_backdoor
    from phard_hub.pipeline import Settings
    from phard_hub.presets import PRESETS

    return Settings(
        preset=PRESETS[preset.value],
        policy=Policy.read(policy) if policy else Policy(),
        seed=seed,
        threats=[read_backdoor(folder) for folder in backdoors],
        upstream=upstream,
        allow=allow,
    )
