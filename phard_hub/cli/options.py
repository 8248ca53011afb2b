"""The options that verbs share, and what becomes of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from phard_hub.budget import Budget
from phard_hub.hub.names import pasted, require_dataset, require_model
from phard_hub.report.policy import POLICIES, Policy
from phard_hub.settings import LARGEST_SEED

if TYPE_CHECKING:
    from phard_hub.defenses.immunizer import Smoothing
    from phard_hub.pipeline import Settings


class PresetName(StrEnum):
    """How hard to search and how long to harden."""

    gate = "gate"
    fast = "fast"
    default = "default"
    thorough = "thorough"
    cheapest = "cheapest"


class PolicyName(StrEnum):
    """The policies that need no file."""

    hardened = "hardened"
    deploy = "deploy"


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
        "class, parquet, or a CSV list of file names and labels.",
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
Labels = Annotated[
    Path | None,
    typer.Option(
        metavar="file",
        exists=True,
        help="What class names mean that are not the model's: a .json object from the data set's names to the "
        "model's, or a text file with one data set name a line in the order of the model's classes.",
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(
        metavar="a,b,c",
        help="Measure and harden between these classes of the model only; images of others are left out, and its other "
        "answers stay possible.",
    ),
]
OnlyPresent = Annotated[
    bool, typer.Option("--only-present-classes", help="The same with the classes that --images has images of.")
]
MaxImages = Annotated[int, typer.Option(min=8, help="Use at most so many images of each data set, evenly by class.")]
SkipBroken = Annotated[
    bool, typer.Option("--skip-broken", help="Leave out images that cannot be decoded; the report says how many.")
]
Device = Annotated[
    str | None, typer.Option(help="What to compute on, such as `cpu`, `cuda` or `cuda:1`; the best that there is.")
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Images in one pass: fewer need less memory. Training steps keep their images, which go through in parts; "
        "batch norm sees each part alone.",
    ),
]
PresetOption = Annotated[
    PresetName,
    typer.Option(
        help="How hard to search and how long to harden; `gate` searches universal triggers only, and `cheapest` only "
        "tries things out."
    ),
]
Seed = Annotated[
    int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of all random choices; the same seed repeats a run.")
]
Backdoors = Annotated[
    list[Path],
    typer.Option(
        metavar="folder",
        exists=True,
        help="Folder that `phard plant` wrote: judge the model with that trigger too. As often as you like.",
    ),
]

Certify = Annotated[
    int | None,
    typer.Option(
        min=10,
        metavar="votes",
        help="Also measure what so many noisy copies of each image vote for, such as 1000, and within which radius no "
        "change turns the vote.",
    ),
]
CrossValidate = Annotated[
    int | None,
    typer.Option(
        min=2,
        max=10,
        metavar="parts",
        help="See what hardening costs in accuracy on all images: harden so often more, each time without a part.",
    ),
]
Sigma = Annotated[
    float, typer.Option(min=0.001, max=10.0, help="Standard deviation of the noise of --certify, pixels in [0, 1].")
]


def _budget(text: str) -> Budget:
    """Read a budget when the command line is, as the policy below."""
    return Budget.parse(text)


BudgetOption = Annotated[
    Budget | None,
    typer.Option(
        "--budget",
        parser=_budget,
        metavar="20m|1e6",
        help="What the job may cost, as a time (`90s`, `20m`, `2h`) or as a number of sample-gradients: what does not "
        "fit is left out, and the report says what that was.",
    ),
]


def _policy(path: str) -> Policy:
    """Read a policy when the command line is, so that a broken one is refused before anything else is done."""
    return POLICIES.get(path) or Policy.read(Path(path))


PolicyFile = Annotated[
    Policy | None,
    typer.Option(
        parser=_policy,
        metavar="path",
        help="The gate's limits: a policy.toml as `phard policy` prints, or `hardened` or `deploy`; without it, "
        "`hardened` for a hardened model and `deploy` for any other.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON to stdout, and nothing else there.")]
Upstream = Annotated[
    str | None,
    typer.Option(
        metavar="repo[@rev]",
        help="The model that this one was made from, to compare config and tensors with; else the config of the "
        "one that its card names.",
    ),
]
Allow = Annotated[
    list[str],
    typer.Option(metavar="field", help="Field of the config that may differ from the upstream's. Repeat for others."),
]


_DATA = {
    "images": (Images, Parameter.empty),
    "test_images": (TestImages, None),
    "split": (Split, None),
    "test_split": (TestSplit, None),
    "image_column": (ImageColumn, None),
    "label_column": (LabelColumn, None),
    "labels": (Labels, None),
    "classes": (Classes, None),
    "only_present_classes": (OnlyPresent, False),
    "max_images": (MaxImages, 50_000),
    "skip_broken": (SkipBroken, False),
}
"""The options that become `DataOptions`, and their defaults."""
_HARDWARE = {"device": (Device, None), "batch_size": (BatchSize, None)}
"""The options that say what is computed on and how, and their defaults."""


def takes_data(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the options of the data in place of its parameter ``data``, and those of the hardware.

    A model or images that cannot be are refused at once, before torch is imported.
    """
    hints = get_type_hints(verb, localns={"DataOptions": object}, include_extras=True)

    @wraps(verb)
    def command(**given: Any) -> None:  # noqa: ANN401 - whatever the options hold
        for name in ("repo", "images", "test_images"):
            given[name] = given[name] and pasted(given[name])
        require_model(given["repo"])
        for data in filter(None, (given["images"], given["test_images"])):
            require_dataset(data)
        from phard_hub.hardware import computing
        from phard_hub.images.data import DataOptions, read_labels  # brings torch along

        options = {name: given.pop(name) for name in _DATA}
        if options["labels"] is not None:
            options["labels"] = read_labels(options["labels"])
        with computing(given.pop("device"), given.pop("batch_size")):
            verb(data=DataOptions(**options), **given)

    given = []
    for name, each in inspect.signature(verb).parameters.items():
        options = _DATA | _HARDWARE if name == "data" else {name: (hints[name], each.default)}
        given += [
            Parameter(option, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for option, (annotation, default) in options.items()
        ]
    command.__signature__ = inspect.Signature(given)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in given}
    return command


def make_settings(
    preset: PresetName,
    policy: Policy | None,
    seed: int,
    backdoors: list[Path],
    *,
    upstream: str | None,
    allow: list[str],
    budget: Budget | None,
) -> Settings:
    """Settings of a run from the options."""
    from phard_hub.evaluation.threats import Threat
    from phard_hub.pipeline import Settings
    from phard_hub.presets import PRESETS

    return Settings(
        preset=PRESETS[preset.value],
        policy=policy or Policy(),
        seed=seed,
        threats=[Threat.read(folder) for folder in backdoors],
        upstream=upstream,
        allow=allow,
        budget=budget or Budget(),
    )


def make_votes(certify: int | None, sigma: float) -> Smoothing | None:
    """How is voted, where it is asked for."""
    from phard_hub.defenses.immunizer import Smoothing

    return None if certify is None else Smoothing(sigma=sigma, votes=certify)
