"""The verbs that decide about what is deployed, and sign it: `phard gate`, `phard sign`, `phard verify`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from phard_hub.cli.console import checkout
from phard_hub.cli.options import Format, PolicyFile
from phard_hub.disk.atomic import restore
from phard_hub.errors import ReportError
from phard_hub.report.deployed import Deployed
from phard_hub.report.gate import gate as judge
from phard_hub.report.policy import Policy
from phard_hub.report.record import REPORT_NAME, Report
from phard_hub.report.views.sarif import Artifact, as_sarif, on_disk, on_hub

_Folder = Annotated[Path, typer.Argument(help="The release folder that `phard harden` wrote.")]


def gate(
    target: Annotated[
        str,
        typer.Argument(help="A release folder, a release on the Hub as org/model@revision, or a report alone."),
    ],
    policy: PolicyFile = None,
    format: Annotated[Format, typer.Option(help="How to write the verdict.")] = Format.text,
) -> None:
    """Decide whether a model may be deployed: at once, and without torch.

    The files of a release are hashed, or asked of the Hub by their hashes: they must be those that the report is
    about, with nothing beside them that a library could load instead. Of a report alone, the verdict says that no
    weights were looked at.

    Exits with 0 passed, 1 refused, 2 broken report or policy, 3 a rule could not be evaluated.
    """
    from phard_hub.report.views import formats

    report, deployed, place = _read(target, policy or Policy())
    verdict = judge(report, policy, deployed=deployed)
    views: dict[Format, Callable[[], str]] = {
        Format.text: lambda: formats.as_text(verdict),
        Format.json: lambda: formats.as_json(verdict),
        Format.junit: lambda: formats.as_junit(verdict),
        Format.sarif: lambda: as_sarif(verdict, place),
    }
    typer.echo(views[format]())
    raise typer.Exit(verdict.exit_code)


def _read(target: str, policy: Policy) -> tuple[Report, Deployed | None, Artifact]:
    """The report, what lies beside it, and where the report is."""
    path = Path(target)
    restore(path)
    if path.is_dir():
        return *_read_folder(path, policy), on_disk(path / REPORT_NAME, checkout())
    if "@" in target and not path.exists():
        from phard_hub.release.published import published

        report, deployed = published(target, policy)
        repo, _, commit = deployed.place.rpartition("@")
        return report, deployed, on_hub(repo, commit, REPORT_NAME)
    if not path.exists():
        advice = "Give a release folder, a phard_report.json, or org/model@revision for a release on the Hub."
        raise ReportError(f"There is no file or folder {target}.", advice=advice)
    return Report.read(path), None, on_disk(path, checkout())


def _read_folder(folder: Path, policy: Policy) -> tuple[Report, Deployed]:
    from phard_hub.release.signing import inspect

    deployed = inspect(folder, policy)
    if why := deployed.unreadable.get(REPORT_NAME):
        advice = "Give a folder that `phard harden` wrote."
        raise ReportError(f"Cannot read the report {folder / REPORT_NAME}: {why}.", advice=advice)
    return Report.read(folder / REPORT_NAME, sha256=deployed.files.get(REPORT_NAME, "")), deployed


def sign(
    folder: _Folder,
    key: Annotated[Path, typer.Option(help="Your private key: elliptic curve (P-256, P-384, P-521), PEM.")],
) -> None:
    """Sign a release, so that a gate can tell whether it is yours (`require_signature` in its policy).

    The signature covers report, weights, config, image processor and licence, and lies in the folder as model.sig;
    `phard push` sends it along. It needs `pip install 'phard-hub[sign]'`.
    """
    from phard_hub.release.signing import sign as do

    typer.echo(f"Signed: {do(folder, key)}")


def verify(
    folder: _Folder,
    key: Annotated[Path, typer.Option(help="The public key of whoever is to have signed it, PEM.")],
) -> None:
    """Verify that a release is what was signed with a key. Other files beside it are for `phard gate` to refuse.

    Exits with 0 if it is, 1 if it is not or not signed, 2 if there is no such folder or the key is none, 3 if
    model-signing is not installed.
    """
    from phard_hub.release.signing import verify as do

    typer.echo(do(folder, key))
