"""What the command line shows when its work is done: tables and verdicts on stdout, warnings on stderr."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from phard_hub.cli.progress import is_first_process
from phard_hub.errors import harmless
from phard_hub.report.findings import SEVERITIES, AuditRecord
from phard_hub.report.gate import Verdict
from phard_hub.report.policy import Policy
from phard_hub.report.record import Report
from phard_hub.report.wording import NOT_FORGOTTEN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from phard_hub.attacks.planted import Backdoor
    from phard_hub.demos.undetectable import Line
    from phard_hub.pipeline import Outcome
    from phard_hub.release.push import Plan, Pushed


def say(text: str, *, err: bool = False) -> None:
    """Print results; what strangers wrote in them cannot speak to the terminal."""
    typer.echo(harmless(text), err=err)


def checkout() -> Path:
    """The root of the git checkout that the command runs in; the folder that it runs in where there is none."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / ".git").exists()), here)


def show_outcome(outcome: Outcome) -> None:
    """Table, verdicts and the path of the release."""
    if not is_first_process():
        return
    show_table(outcome.report)
    if outcome.report.hardening and outcome.report.hardening.forgotten is False:
        say(f"\n{NOT_FORGOTTEN}")
    for title, verdict in (("before hardening", outcome.verdict_before), ("after hardening", outcome.verdict)):
        show_verdict(title, verdict)
    say(f"\nRelease: {outcome.release}{'' if outcome.is_new else ' (it was there: nothing was done again)'}")


def show_backdoor(backdoor: Backdoor, folder: Path, advice: str) -> None:
    """What a planted backdoor does, whether it counts, and else what to do."""
    original, planted = backdoor.original.evaluation, backdoor.planted.evaluation
    say(f"Planted {backdoor.attack}, target {backdoor.target_name}")
    say(f"  accuracy      {planted.accuracy}, was {original.accuracy}")
    say(f"  success       {planted.attacks[0].success}, on the original {original.attacks[0].success}")
    say(f"  trigger size  {backdoor.size}")
    if backdoor.failures:
        say(f"It does not count: {' and '.join(backdoor.failures)}. {advice}")
    say(f"\nFolder: {folder}")


def show_table(report: Report) -> None:
    """What was measured, before and after."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from phard_hub.report.views.formats import summary_rows

    table = Table(title=Text(harmless(f"{report.source.repo} on {report.dataset}")), title_justify="left")
    table.add_column("")
    table.add_column("before" if report.after else "measured")
    if report.after:
        table.add_column("after")
    for row in summary_rows(report):
        table.add_row(*(Text(harmless(cell)) for cell in (row if report.after else row[:2])))
    Console(width=None).print(table)
    show_warnings(report)


def show_lines(lines: Sequence[Line]) -> None:
    """What a demonstration found, part by part."""
    for number, line in enumerate(lines):
        if number == 0 or line.part != lines[number - 1].part:
            say(f"\n{line.part}")
        say(f"  {line.tried}: {line.found}")


def show_json(report: Report) -> None:
    """The report for programs; warnings go to stderr, where people see them."""
    if is_first_process():
        typer.echo(report.to_json())
        show_warnings(report)


def show_warnings(report: Report) -> None:
    """What casts doubt on all the numbers, in red and on stderr."""
    for warning in report.warnings:
        typer.secho(f"Warning: {harmless(warning)}", fg=typer.colors.RED, err=True)


def show_verdict(title: str, verdict: Verdict) -> None:
    """Passed or refused, with the rules that refused."""
    word = {0: "passed", 1: "refused"}.get(verdict.exit_code, "could not be evaluated")
    say(f"\nPolicy, {title}: {word}. {verdict.word}")
    for rule in (*verdict.having("fail"), *verdict.having("not_evaluated")):
        say(f"  {rule.name}: {rule.message}")


def show_plan(plan: Plan, *, diff: bool) -> None:
    """What a push does to each file, on demand with what it does to the card."""
    place = f"{plan.target.url} at {plan.target.commit[:12]}" if plan.target.commit else f"{plan.target.url} (new)"
    say(f"{'Pull request to' if plan.pull_request else 'Push to'} {place}")
    for change in plan.changes:
        say(f"  {change.kind:<9}  {change.size / 1e6:>9.3f} MB  {change.path}")
    for path in plan.other_weights:
        say(f"  stays, with weights that are not hardened: {path}")
    if diff:
        say(f"\n{plan.card_diff or 'The card stays as it is.'}")
    show_verdict(f"{plan.verdict.stage} hardening", plan.verdict)


def show_pushed(pushed: Pushed, *, err: bool = False) -> None:
    """Where the release is now; on stderr where stdout is for programs."""
    said = "Pushed" if pushed.sent else "Nothing to push: it is there already"
    say(f"\n{said}: {pushed.url} at {pushed.commit[:12]}", err=err)


def print_version(wanted: bool) -> None:
    """Print the version, and end; a callback of the command line."""
    if wanted:
        say(f"phard {version('phard-hub')}")
        raise typer.Exit


def list_findings(wanted: bool) -> None:
    """Print what each finding of an audit means, and end; a callback of the command line."""
    from phard_hub.report.findings import MEANINGS

    if wanted:
        say("\n".join(f"{id_}  {meaning}" for id_, meaning in MEANINGS.items()))
        raise typer.Exit


def show_audit(record: AuditRecord, policy: Policy) -> None:
    """The findings as a table, the worst first, and what they come to."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from phard_hub.report.views.formats import audit_headline
    from phard_hub.report.wording import printable

    table = Table(show_lines=True)
    for title in ("finding", "file", "what was seen", "what to do"):
        table.add_column(title, overflow="fold")
    for found in sorted(record.findings, key=lambda found: SEVERITIES.index(found.severity)):
        cells = (f"{found.severity} {found.id}", printable(found.file, 200), found.evidence, found.advice)
        table.add_row(*(Text(harmless(cell)) for cell in cells))  # what strangers wrote is no markup
    if record.findings:
        Console(width=None).print(table)
    say(audit_headline(record, policy))
