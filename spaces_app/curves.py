"""Success against size as a drawing that takes the colours of the page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from statistics import median

from phard_hub.report import GREY_LEVELS, ClassDistances
from spaces_app.markup import label_text, notice

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 340, 200, 34, 36


def curves(distances: ClassDistances, title: str) -> str:
    """Success of the best universal trigger of each class against the size of its change, as a drawing.

    The library draws the same for cards; this one takes the colours of the page and names each line.
    """
    levels = range(len(GREY_LEVELS))
    rates = {k: [distances.best_at(level, k) for level in levels] for k in distances.classes}
    found = {k: [100 * rate.value for rate in each if rate] for k, each in rates.items() if None not in each}
    if not found:
        return notice(f"{title}: no universal triggers were searched.")
    worst = max(found, key=lambda k: sum(found[k]))
    lines = "".join(_curve(values, f"any class -> {label_text(distances.labels[k])}") for k, values in found.items())
    middle = [median(values) for values in zip(*found.values(), strict=True)]
    grid = "".join(
        f'<path class="grid" d="M{_LEFT} {_y(each)}H{_WIDTH - 8}"/><text x="{_LEFT - 6}" y="{_y(each) + 4}" '
        f'text-anchor="end">{each}</text>'
        for each in (0, 25, 50, 75, 100)
    )
    sizes = "".join(f'<text x="{_x(x)}" y="{_HEIGHT - 20}" text-anchor="middle">{x:g}</text>' for x in GREY_LEVELS)
    place = f'x="{_x(GREY_LEVELS[0]) + 6}" y="{_y(found[worst][0]) - 6}"'
    named = f'<text class="worst" {place}>{label_text(distances.labels[worst])}</text>'
    said = f"{title}: images turned (%) by changes of so many grey levels"
    return (
        f'<figure class="curves"><figcaption>{escape(title)} <small>images turned, %</small></figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(said)}">{grid}{sizes}{lines}'
        f"{_curve(middle, 'median', 'median')}{named}"
        f'<text x="{_WIDTH - 8}" y="{_HEIGHT - 4}" text-anchor="end">size of the change, grey levels</text>'
        "</svg></figure>"
    )


def _curve(values: Sequence[float], name: str, kind: str = "one") -> str:
    points = " ".join(f"{_x(size)},{_y(value)}" for size, value in zip(GREY_LEVELS, values, strict=True))
    said = ", ".join(f"{value:.0f} % at {size:g}" for size, value in zip(GREY_LEVELS, values, strict=True))
    return f'<polyline class="{kind}" points="{points}"><title>{name}: {said}</title></polyline>'


def _x(size: float) -> int:
    return round(_LEFT + 8 + (_WIDTH - _LEFT - 24) * size / GREY_LEVELS[-1])


def _y(percent: float) -> int:
    return round(8 + (_HEIGHT - _BOTTOM - 8) * (1 - percent / 100))
