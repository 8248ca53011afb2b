"""The verb `phard compare`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from phard_hub.cli.progress import show_progress
from phard_hub.errors import NotEvaluatedError
from phard_hub.trials.options import read_tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from phard_hub.report.trial import Trial


def compare(
    experiment: Annotated[Path, typer.Argument(help="TOML file that says what is compared; see above.")],
    out: Annotated[Path, typer.Option(help="Folder for the cells, the planted models, the table and the pictures.")],
    workers: Annotated[int, typer.Option(min=1, help="Cells at the same time, each in a process of one thread.")] = 1,
    model: Annotated[
        list[str], typer.Option(metavar="repo", help="Take this model instead of the file's. Repeat for others.")
    ] = [],  # noqa: B006 - read only
    images: Annotated[str | None, typer.Option(help="Take these images instead of the file's.")] = None,
    test_images: Annotated[str | None, typer.Option(help="Take these test images instead of the file's.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run cells that failed again.")] = False,
) -> None:
    """Compare defenses: plant backdoors, defend, and see what is left; attacks x defenses x seeds x models.

    The file names models, images, attacks and defenses:

        models = ["microsoft/resnet-50"]

        attacks = ["wanet", "sig", "none"]

        defenses = ["none", "fine-tuning", "pervasive"]

        data_shares = [1.0, 0.05]

        images = "my-images/"

    Every cell is one JSON file; cells that are there are not run again, so a comparison that was stopped continues,
    and more attacks, defenses or seeds can be added later. A table and pictures are made of all cells at the end.

    Exits with 0 if every cell has an answer, and with 3 if one failed or its backdoor did not work.
    """
    tables = read_tables(experiment)  # what is no experiment is refused before torch is imported
    from phard_hub.report.views.comparison import headlines
    from phard_hub.trials.compare import compare as run
    from phard_hub.trials.experiment import plans_of

    plans = plans_of(tables, experiment, models=model, images=images, test_images=test_images)
    with show_progress() as progress:
        trials = run(plans, out, workers=workers, retry_failed=retry_failed, progress=progress)
    typer.echo(f"{headlines(trials)}\n")
    for path in write_views(out, trials):
        typer.echo(path)
    raise typer.Exit(0 if all(trial.status == "done" for trial in trials) else NotEvaluatedError.exit_code)


def write_views(out: Path, trials: Sequence[Trial]) -> list[Path]:
    """The tables and the pictures beside the cells."""
    from phard_hub.disk.atomic import write_bytes, write_text
    from phard_hub.report.views.comparison import as_markdown, picture, reaches
    from phard_hub.report.views.plots import attack_reach

    written = [out / "comparison.md", out / "comparison.png"]
    write_text(written[0], as_markdown(trials))
    write_bytes(written[1], _png(picture(trials)))
    if found := reaches(trials):
        written.append(out / "reach.png")
        write_bytes(written[2], _png(attack_reach(found)))
    return written


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
