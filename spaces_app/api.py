"""Endpoints for programs: what the page shows, as plain values. `gradio_client` and MCP clients find them by name."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.events import api as endpoint

from phard_hub import Report
from phard_hub.errors import PhardError
from phard_hub.report import headline
from spaces_app.examples import Example
from spaces_app.look import KINDS, PARTS, Choice, caption, look, stamp
from spaces_app.reports import SHIPPED, judged, read_hub, shipped


def add(example: Example) -> None:
    """Add all endpoints to the page that is being built."""

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
        labels = example.labels
        if source not in labels or target not in labels or kind not in KINDS:
            raise gr.Error(f"Classes are {', '.join(labels)}; triggers are {', '.join(KINDS)}.", print_exception=False)
        choice = Choice(kind, labels.index(source), labels.index(target), strength, parts)
        pixels = example.image(labels.index(source))
        try:
            view = look(pixels, stamp(example, pixels, choice), example.models)
            said = caption(example, choice, view.size)
        except PhardError as error:
            raise gr.Error(str(error), print_exception=False) from error
        answers = {one.model: {"before": dict(one.before), "after": dict(one.after)} for one in view.answers}
        return {"grey_levels": view.size, "trigger": said, "answers": answers}

    def report(name: str = next(iter(SHIPPED))) -> dict[str, Any]:
        """Get a report: every number of a measurement, before and after hardening, class distances among them.

        Args:
            name: of a shipped report, or the id of a release on the Hub, as org/model@revision.

        Returns:
            The report, as `phard_report.json` has it.
        """
        return _asked(name).model_dump(mode="json")

    def gate(name: str = next(iter(SHIPPED)), limits: dict[str, float] = {}) -> dict[str, Any]:  # noqa: B006 - read only
        """Judge a report by a policy, as `phard gate` does.

        Args:
            name: of a shipped report, or the id of a release on the Hub, as org/model@revision.
            limits: of the policy by their names, such as {"min_mean_distance": 10}; the others keep their defaults.

        Returns:
            Whether it passed, the exit code, the headline, and what each rule says.
        """
        try:
            if name in SHIPPED:
                verdict = judged(shipped(example, name), limits)
            else:
                verdict = judged(*_with(read_hub(name), limits))
        except PhardError as error:
            raise gr.Error(str(error), print_exception=False) from error
        rules = verdict.model_dump(mode="json")
        return {"passed": verdict.passed, "exit_code": verdict.exit_code, "headline": headline(verdict), **rules}

    def _asked(name: str) -> Report:
        try:
            return shipped(example, name) if name in SHIPPED else read_hub(name)[0]
        except PhardError as error:
            raise gr.Error(str(error), print_exception=False) from error

    endpoint(look_at, api_name="look")
    endpoint(report, api_name="report")
    endpoint(gate, api_name="gate")


def _with(held: tuple[Report, Any], limits: dict[str, float]) -> tuple[Report, dict[str, float], Any]:
    return held[0], limits, held[1]
