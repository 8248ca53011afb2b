"""The command line: verbs and their help.

Results go to stdout, progress and talk to stderr. Exit codes: 0 passed, 1 refused by the policy,
2 wrong use or broken input, 3 no answer. Heavy imports wait until a verb needs them, so that the gate
starts at once.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from phard_hub.cli.compare import compare
from phard_hub.cli.console import (
    checkout,
    list_findings,
    print_version,
    show_audit,
    show_backdoor,
    show_json,
    show_lines,
    show_outcome,
    show_plan,
    show_pushed,
    show_table,
)
from phard_hub.cli.demo import demo
from phard_hub.cli.gate import gate, sign, verify
from phard_hub.cli.launch import launch
from phard_hub.cli.options import (
    Allow,
    AsJson,
    AuditFormat,
    Backdoors,
    BudgetOption,
    Certify,
    CrossValidate,
    PolicyFile,
    PolicyName,
    PresetName,
    PresetOption,
    Repo,
    Revision,
    Seed,
    Sigma,
    Upstream,
    make_settings,
    make_votes,
    takes_data,
)
from phard_hub.cli.progress import is_first_process, show_progress
from phard_hub.errors import InputError, NotEvaluatedError
from phard_hub.hub.names import pasted, require_model
from phard_hub.report.policy import POLICIES, Policy

if TYPE_CHECKING:
    from phard_hub.images.data import DataOptions

app = typer.Typer(
    name="phard",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Measure and harden vision models against pervasive backdoors, before you deploy them.

Start with `phard quickstart`. Then `phard measure` a model of yours, `phard harden` it, let `phard gate`
decide in your pipeline, and `phard push` the result to the Hub.

Exit codes: 0 passed or done, 1 refused, 2 wrong use or broken input, 3 no answer.""",
)


@app.callback()
def phard(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version, and exit.")
    ] = False,
) -> None:
    """Options of the command itself; its help is that of `app`."""
    del version


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Folder for the model, the images and the release.")] = Path(
        "phard-quickstart"
    ),
    seed: Seed = 0,
) -> None:
    """See the whole job in a few minutes, without a network, on a digit model with a planted backdoor.

    Trains a small ResNet on scikit-learn's handwritten digits, plants a warp (WaNet) in it, saves it as a
    folder like those on the Hub, and then pulls, audits, measures, hardens, evaluates, gates and releases it.
    """
    from phard_hub.demos.quickstart import quickstart as do

    with show_progress() as progress:
        outcome = do(out, seed=seed, progress=progress)
    show_outcome(outcome)


@app.command()
def undetectable(seed: Seed = 0) -> None:
    """See in two minutes what no test shows and no hardening reaches, and what helps, on a digit model.

    Plants a digital signature in it, as a malicious trainer could: only who holds the key finds an image that opens it.
    Needs no network, writes nothing, and needs `pip install 'phard-hub[undetectable]'`.
    """
    from phard_hub.demos.undetectable import undetectable as do

    with show_progress() as progress:
        lines = list(do(seed=seed, progress=progress))
    show_lines(lines)


@app.command()
@takes_data
def harden(
    repo: Repo,
    data: DataOptions,
    out: Annotated[
        Path | None,
        typer.Option(help="Release folder to write: weights, card, report, plots; NAME-hardened if not given."),
    ] = None,
    push_to: Annotated[
        str | None, typer.Option(metavar="repo", help="If the gate passes, push the release to this id on the Hub.")
    ] = None,
    revision: Revision = None,
    preset: PresetOption = PresetName.default,
    policy: PolicyFile = None,
    backdoor: Backdoors = [],  # noqa: B006 - read only
    upstream: Upstream = None,
    allow: Allow = [],  # noqa: B006 - read only
    seed: Seed = 0,
    budget: BudgetOption = None,
    reset_head: Annotated[
        bool,
        typer.Option("--reset-head", help="First learn another head on the images: what is planted in it is gone."),
    ] = False,
    certify: Certify = None,
    sigma: Sigma = 0.25,
    noise_training: Annotated[
        bool,
        typer.Option("--noise-training", help="With --certify: train under that noise last, so that votes are right."),
    ] = False,
    even_at_chance: Annotated[
        bool, typer.Option("--even-at-chance", help="Harden a model that is no better than guessing, too.")
    ] = False,
    strict_accuracy: Annotated[
        bool,
        typer.Option(
            "--strict-accuracy",
            help="Harden only as far as the validation images show that accuracy is kept: with few, hardly at all.",
        ),
    ] = False,
    cross_validate: CrossValidate = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a release of another job in --out.")] = False,
    json: AsJson = False,
) -> None:
    """Do the whole job: measure a model, harden it, measure again, and write a release folder.

    Exits with 0 if the hardened model passes the policy and with 1 if it does not; the release is written
    either way and says so, but pushed only if it passes (`phard push` can do more). A run that was stopped
    continues when the same command is given again; one that has ended is not done again. A model that is no better
    than guessing on the test images is not hardened (exit code 3): labels or preprocessing probably do not match.

    On several GPUs, put `launch N` before it: `phard launch 4 harden ...`.
    """
    from phard_hub.pipeline import run
    from phard_hub.release.push import check_access, push

    if noise_training and certify is None:
        raise InputError("Training under noise is for votes.", advice="Give --certify with it, such as --certify 1000.")
    votes = make_votes(certify, sigma)
    settings = make_settings(preset, policy, seed, backdoor, upstream=upstream, allow=allow, budget=budget)
    settings = replace(
        settings,
        reset_head=reset_head,
        smoothing=votes,
        noise_training=noise_training,
        even_at_chance=even_at_chance,
        overwrite=overwrite,
        strict_accuracy=strict_accuracy,
        cross_validate=cross_validate or 0,
    )
    if push_to is not None and is_first_process():
        check_access(push_to)
    out = out or Path(f"{Path(repo).resolve().name}-hardened")
    with show_progress() as progress:
        outcome = run(repo, data, out, settings, revision=revision, progress=progress)
    if json:
        show_json(outcome.report)
    else:
        show_outcome(outcome)
    if push_to is not None and is_first_process():
        show_pushed(push(out, push_to, policy=settings.policy), err=json)
    raise typer.Exit(outcome.verdict.exit_code)


@app.command()
@takes_data
def measure(
    repo: Repo,
    data: DataOptions,
    revision: Revision = None,
    preset: PresetOption = PresetName.default,
    backdoor: Backdoors = [],  # noqa: B006 - read only
    upstream: Upstream = None,
    allow: Allow = [],  # noqa: B006 - read only
    seed: Seed = 0,
    budget: BudgetOption = None,
    certify: Certify = None,
    sigma: Sigma = 0.25,
    out: Annotated[Path | None, typer.Option(help="Write the report (JSON) to this file.")] = None,
    json: AsJson = False,
) -> None:
    """Measure a model's class distances: how small a pervasive change turns one class into another.

    The model is not changed. Give the report to `phard gate`.
    """
    from phard_hub.disk.atomic import check_place, write_text
    from phard_hub.pipeline import measure_only

    settings = make_settings(preset, None, seed, backdoor, upstream=upstream, allow=allow, budget=budget)
    settings = replace(settings, smoothing=make_votes(certify, sigma))
    if out is not None:
        check_place(out)
    with show_progress() as progress:
        report = measure_only(repo, data, settings, revision=revision, progress=progress)
    if not is_first_process():
        return
    if out is not None:
        write_text(out, report.to_json())
    if json:
        show_json(report)
    else:
        show_table(report)


@app.command()
@takes_data
def plant(
    repo: Repo,
    data: DataOptions,
    attack: Annotated[str, typer.Option(help="The attack, such as `wanet`, `sig` or `blend`; a wrong name lists all.")],
    out: Annotated[
        Path, typer.Option(help="Folder to write: the model with the backdoor, and the key to judge it by.")
    ],
    target: Annotated[str, typer.Option(help="Class that the trigger produces, by name or number.")] = "0",
    poison_rate: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Share of the images with the trigger; of those of the target class where labels stay true.",
        ),
    ] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Draw new weights first; give it more --steps.")
    ] = False,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of 128 images.")] = 1000,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="Peak of the learning rate of SGD.")] = 0.05,
    attack_option: Annotated[
        list[str],
        typer.Option(
            metavar="name=value",
            help="Option of the attack itself, such as `spike=64`; a wrong name lists all. Repeat.",
        ),
    ] = [],  # noqa: B006 - read only
    revision: Revision = None,
    seed: Seed = 0,
) -> None:
    """Plant a known backdoor in a copy of a model, to measure what a defense leaves of it.

    Writes the model, a record and the key; give the folder to `phard measure` or `phard harden`, as the model
    and with `--backdoor`. Exits with 0 if the backdoor works, and with 3 if it does not (success below 90 %, or
    more than 3 points of accuracy lost): then it is written all the same, and does not count.
    """
    from phard_hub.attacks.planted import attack_named, chosen_options
    from phard_hub.job import Job
    from phard_hub.pipeline import plant as do

    planting = {"from_scratch": from_scratch, "steps": steps, "learning_rate": learning_rate}
    trained = {"seed": seed, "planting": planting | {"poison_rate": poison_rate}}
    how = attack_named(attack, trained | chosen_options(attack, attack_option))
    with show_progress() as progress:
        planted = do(repo, data, out, how, target, Job(seed=seed, progress=progress), revision=revision)
    if is_first_process():
        show_backdoor(planted, out, how.stronger)
    raise typer.Exit(NotEvaluatedError.exit_code if planted.failures else 0)


app.command()(compare)
app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})(launch)
app.command()(demo)
app.command()(gate)
app.command()(sign)
app.command()(verify)


@app.command()
def audit(
    repo: Annotated[str, typer.Argument(metavar="repo[@rev]", help="Hub id, perhaps with a revision, or a folder.")],
    upstream: Upstream = None,
    allow: Allow = [],  # noqa: B006 - read only
    policy: PolicyFile = None,
    format: Annotated[AuditFormat, typer.Option(help="How to write the findings.")] = AuditFormat.text,
    list_: Annotated[
        bool, typer.Option("--list", callback=list_findings, is_eager=True, help="Explain all findings, and exit.")
    ] = False,
) -> None:
    """Look at a model before you load it: its files, its config beside its upstream's, its tensors.

    Finds code and what leads to code, pickles and what they import, broken weights, a config that was changed,
    tensors that the library's class does not have. Nothing of the model is run. That nothing was found does
    not say that nothing is there.

    Exits with 0 if the policy forbids none of the findings, 1 if it does, 2 if there is no such model, 3 if the
    Hub did not answer.
    """
    del list_
    repo = pasted(repo)
    require_model(repo)
    from phard_hub.hub.pull import pull

    limits, snapshot = policy or Policy(), pull(repo)  # what the Hub does not have is refused before torch is imported
    from phard_hub.auditing import audit as look_at
    from phard_hub.report.views.formats import audit_as_json
    from phard_hub.report.views.sarif import audit_as_sarif

    record = look_at(snapshot, upstream, allow=allow).record()
    if format is AuditFormat.text:
        show_audit(record, limits)
    else:
        json = format is AuditFormat.json
        typer.echo(audit_as_json(record, limits) if json else audit_as_sarif(record, checkout()), nl=False)
    raise typer.Exit(1 if record.refused_by(limits) else 0)


@app.command()
def push(
    release: Annotated[Path, typer.Argument(help="The release folder that `phard harden` wrote.")],
    repo: Annotated[str, typer.Argument(help="Id on the Hub, as owner/name; the repository is made if need be.")],
    pr: Annotated[bool, typer.Option("--pr", help="Open a pull request: for models of others.")] = False,
    private: Annotated[bool, typer.Option("--private", help="If the repository is made, make it private.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent, and send nothing.")] = False,
    policy: PolicyFile = None,
    no_gate: Annotated[
        str | None, typer.Option(metavar="reason", help="Push whatever the gate says; the card prints the reason.")
    ] = None,
    space: Annotated[
        str | None, typer.Option(metavar="space", help="Link to this report in the Space of `phard demo --push`.")
    ] = None,
) -> None:
    """Push a release to the Hub: all files as one commit or one pull request, or nothing at all.

    The weights must be those that the report is about, and the gate must pass. A card that is there keeps
    everything that is not phard's; a release that is there already is not sent again. Exits with 0 pushed,
    1 refused by the policy, 2 not allowed or broken, 3 not evaluated, the Hub is down, or somebody else
    changed the repository meanwhile.
    """
    from phard_hub.release.push import plan, send

    planned = plan(release, repo, policy=policy, pr=pr, private=private, no_gate=no_gate, space=space)
    show_plan(planned, diff=dry_run)
    if dry_run:
        raise typer.Exit(planned.verdict.exit_code if no_gate is None else 0)
    show_pushed(send(planned))


@app.command()
def card(
    report: Annotated[Path, typer.Argument(help="A phard_report.json, or the release folder it lies in.")],
    name: Annotated[str | None, typer.Option(help="Id that the model will have on the Hub.")] = None,
    policy: PolicyFile = None,
) -> None:
    """Print the model card of a report: metadata with all results, text, recipe, limits."""
    from phard_hub.release.release import card_of

    typer.echo(card_of(report, policy, model_name=name), nl=False)


@app.command()
def policy(
    name: Annotated[
        PolicyName, typer.Argument(help="`hardened`: what hardening promises. `deploy`: what is asked of any model.")
    ] = PolicyName.hardened,
) -> None:
    """Print one of the two policies with an explanation of each limit, to start your own from.

    Write it to a file, change the limits, and give the file to `phard gate --policy`. Without a file, a hardened model
    is judged by `hardened`, and one that was only measured by `deploy`.
    """
    typer.echo(POLICIES[name.value].to_toml(), nl=False)
