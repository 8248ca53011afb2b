"""Endpoints for programs: what the page shows, as plain values. `gradio_client` and MCP clients find them by name."""

from __future__ import annotations

from typing import Any

from gradio.events import api as endpoint

from phard_hub.errors import InputError
from phard_hub.report import headline
from spaces_app.examples import Example
from spaces_app.look import KINDS, PARTS, Choice, View, caption, look, stamp
from spaces_app.reports import SHIPPED, judged, read_hub, shipped
from spaces_app.signature import sign, vote
from spaces_app.wiring import answered


def add(example: Example) -> None:
    """Add all endpoints to the page that is being built."""

    def number(label: str) -> int:
        if label not in example.labels:
            raise InputError(f"There is no class {label!r}.", advice=f"Classes are {', '.join(example.labels)}.")
        return example.labels.index(label)

    def look_at(
        source: str = "3",
        target: str = "0",
        kind: str = KINDS[0],
        strength: float = 1.0,
        parts: list[str] = list(PARTS),  # noqa: B006 - read only
    ) -> dict[str, Any]:
        """Put a trigger on a digit, and ask the honest, the backdoored and the hardened model what they see.

        Args:
            source: class of the image, "0" to "9".
            target: class that the trigger produces, "0" to "9"; the planted warp has its own, "0".
            kind: "planted warp", "found on the backdoored model", "found on the hardened model", or
                "found with all parts", which turns images of all classes.
            strength: 0 changes nothing, 1 is the trigger as planted or found, at most 2.
            parts: of a found trigger those that are on: "warp", "style", "tone curve", "colour mix", "added field".

        Returns:
            The size of the change in grey levels, what the trigger is, and the classes' shares before and after.
        """
        if kind not in KINDS:
            raise InputError(f"There is no trigger {kind!r}.", advice=f"There are: {', '.join(KINDS)}.")
        choice = Choice(kind, number(source), number(target), strength, parts)
        pixels = example.image(number(source))
        view = look(pixels, stamp(example, pixels, choice), example.models)
        said = caption(example, choice, view.size)
        return {"grey_levels": view.size, "trigger": said, "answers": _answers(view)}

    def sign_image(source: str = "3", target: str = "8", damaged: bool = False) -> dict[str, Any]:
        """Sign a digit for a class, and ask a model that checks signatures and the same weights without that check.

        Args:
            source: class of the image, "0" to "9".
            target: class that the owner of the key chose, "0" to "9".
            damaged: whether one more value is changed by one grey level afterwards.

        Returns:
            The size of the change in grey levels, how many values it changes, and the classes' shares.
        """
        signing = sign(example, number(source), number(target), damaged=damaged)
        view = signing.view
        return {"grey_levels": view.size, "changed_values": signing.changed, "answers": _answers(view)}

    def vote_on(source: str = "3", target: str = "8") -> dict[str, Any]:
        """Sign a digit for a class, and ask the model that checks signatures by votes over noisy copies of the image.

        Args:
            source: class of the image, "0" to "9".
            target: class that the owner of the key chose, "0" to "9".

        Returns:
            The answer (null where the votes are not clear), the L2 norm below which no change of the image turns it,
            and that of the signature, pixels in [0, 1].
        """
        return vote(example, number(source), number(target))._asdict()

    def report(name: str = next(iter(SHIPPED))) -> dict[str, Any]:
        """Get a report: every number of a measurement, before and after hardening, class distances among them.

        Args:
            name: of a shipped report, or the id of a release on the Hub, as org/model@revision.

        Returns:
            The report, as `phard_report.json` has it.
        """
        found = shipped(example, name) if name in SHIPPED else read_hub(name)[0]
        return found.model_dump(mode="json")

    def gate(
        name: str = next(iter(SHIPPED)),
        limits: dict[str, Any] = {},  # noqa: B006 - read only
        policy: str | None = None,
    ) -> dict[str, Any]:
        """Judge a report by a policy, as `phard gate` does.

        Args:
            name: of a shipped report, or the id of a release on the Hub, as org/model@revision.
            limits: of the policy by their names, such as {"min_mean_distance": 10} or
                {"max_universal_success_at": {"20": 0.5}}; the others are those of the policy.
            policy: "hardened" or "deploy"; without one, the one that fits the report.

        Returns:
            Whether it passed, the exit code, the headline, and what each rule says.
        """
        held = (shipped(example, name), None) if name in SHIPPED else read_hub(name)
        verdict = judged(held[0], limits, held[1], policy)
        rules = verdict.model_dump(mode="json")
        return {"passed": verdict.passed, "exit_code": verdict.exit_code, "headline": headline(verdict), **rules}

    for act, name in ((look_at, "look"), (sign_image, "sign"), (vote_on, "vote"), (report, "report"), (gate, "gate")):
        endpoint(answered(act), api_name=name)


def _answers(view: View) -> dict[str, Any]:
    return {one.model: {"before": dict(one.before), "after": dict(one.after)} for one in view.answers}
