"""Pieces of the page as HTML: bars, tables, heat maps. Whatever strangers named is escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape

from matplotlib import colormaps
from PIL import Image

from phard_hub.report import (
    MEANINGS,
    OUTCOMES,
    AuditRecord,
    ClassDistances,
    PairDistance,
    Policy,
    Report,
    Verdict,
    audit_headline,
    headline,
    outliers,
    pair_name,
    printable,
    summary_rows,
)
from spaces_app.look import Answer

_COLOURS = colormaps["viridis"]
_MOST_CLASSES = 40
_MOST_ROWS = 200
STANDS_OUT = Policy().max_outlier or 1.5
"""A class that the others need so many times more than is framed."""
_WORDS = {0: "passes", 1: "refused", 3: "no answer"}


def bars(answers: Sequence[Answer], source: str | None, target: str, *, what: str = "trigger", shown: int = 3) -> str:
    """The answers of several models: what each says of the image, and the largest shares once it is changed.

    Args:
        answers: one a model.
        source: name of the image's class, if it is known.
        target: name of the class that the change is for.
        what: it is changed by.
        shown: how many classes of each model.
    """
    cards = "".join(_answer(answer, source, target, what, shown) for answer in answers)
    return f'<div class="answers">{cards}</div>'


def _answer(answer: Answer, source: str | None, target: str, what: str, shown: int) -> str:
    before, after = (max(shares, key=shares.__getitem__) for shares in (answer.before, answer.after))
    turned = before != after
    word = "turned" if turned else "not turned"
    largest = sorted(answer.after, key=lambda label: -answer.after[label])[:shown]
    rows = "".join(_bar(label, answer.after[label], source, target) for label in largest)
    name = answer.model[:1].upper() + answer.model[1:]
    return (
        f'<section class="answer {"bad" if turned else "good"}"><h4>{escape(name)} <span>{word}</span></h4>'
        f"<p>without the {escape(what)} <b>{label_text(before)}</b>, with it <b>{label_text(after)}</b></p>"
        f"{rows}</section>"
    )


def _bar(label: str, share: float, source: str | None, target: str) -> str:
    kind = "target" if label == target else "source" if label == source else "other"
    percent = f"{100 * share:.1f} %"
    return (
        f'<div class="bar {kind}"><span class="name">{label_text(label)}</span>'
        f'<span class="track"><i style="width:{100 * share:.1f}%"></i></span><span class="share">{percent}</span></div>'
    )


def label_text(name: str) -> str:
    """A class name that strangers chose, on the page."""
    return escape(printable(name, 24))


def picture(image: Image.Image, title: str) -> str:
    """A picture as part of the page, so that no file of it is left anywhere."""
    file = io.BytesIO()
    image.save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    source = f"data:image/png;base64,{data}"
    shown = f'<img src="{source}" alt="{escape(title)}">'
    return f'<figure class="picture"><figcaption>{escape(title)}</figcaption>{shown}</figure>'


def notice(text: str, kind: str = "info") -> str:
    """A line that stands out: ``info``, ``good`` or ``bad``."""
    role = "alert" if kind == "bad" else "status"
    return f'<p class="notice {kind}" role="{role}">{escape(text)}</p>' if text else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str = "", kinds: Sequence[str] = ()) -> str:
    """Rows of text as a table that can be scrolled sideways; ``kinds`` are classes of the rows."""
    body = "".join(
        f'<tr class="{kinds[number] if number < len(kinds) else ""}">'
        + "".join(f'<td data-head="{escape(name)}">{escape(cell)}</td>' for name, cell in zip(head, row, strict=True))
        + "</tr>"
        for number, row in enumerate(rows)
    )
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    said = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll"><table class="plain">{said}<thead><tr>{columns}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def heat_map(distances: ClassDistances, title: str, top: float) -> str:
    """Class distances as a table of buttons, one a pair; rows are sources, columns targets.

    Args:
        distances: what is shown, in grey levels.
        title: above the table.
        top: the distance at the end of the scale.
    """
    labels = distances.labels
    if len(labels) > _MOST_CLASSES:
        return notice(f"{title}: {len(labels)} classes are too many for a table; see the closest pairs below.")
    found = {(pair.source, pair.target): pair for pair in distances.pairs + distances.universal}
    sources: list[int | None] = [*range(len(labels)), *([None] if distances.universal else [])]
    head = "".join(f'<th scope="col">{label_text(name)}</th>' for name in labels)
    rows = "".join(
        f'<tr class="{"any" if source is None else ""}"><th scope="row">'
        + ("any" if source is None else label_text(labels[source]))
        + "</th>"
        + "".join(_cell(distances, found.get((source, target)), top) for target in range(len(labels)))
        + "</tr>"
        for source in sources
    )
    mean = "no pair reached" if distances.mean_rms is None else f"mean {distances.mean_rms:.1f} grey levels"
    said = f"{escape(title)} <small>{mean}, {len(distances.reached)} of {len(distances.pairs)} pairs reached</small>"
    return (
        f'<div class="scroll"><table class="heat"><caption>{said}</caption>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _cell(distances: ClassDistances, pair: PairDistance | None, top: float) -> str:
    if pair is None:
        return '<td class="none"></td>'
    name = escape(pair_name(distances, pair))
    source = "" if pair.source is None else str(pair.source)
    data = f'type="button" data-source="{source}" data-target="{pair.target}"'
    if pair.rms is None:
        return f'<td><button {data} class="unreached" aria-label="{name}: not reached">–</button></td>'
    label = f"{name}: {pair.rms:.1f} grey levels"
    style = _colours(pair.rms, top)
    return f'<td><button {data} style="{style}" aria-label="{label}" title="{label}">{pair.rms:.1f}</button></td>'


def _colours(rms: float, top: float) -> str:
    """Background and ink of a distance, as CSS."""
    red, green, blue, _ = _COLOURS(min(rms / (top or 1.0), 1.0))
    ink = "#fff" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else "#000"
    return f"background:#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x};color:{ink}"


def kinds_map(distances: ClassDistances, title: str, top: float) -> str:
    """Universal triggers by kind as a table; rows are kinds, columns target classes.

    A class that the others clearly need `STANDS_OUT` times more than has a frame.
    """
    every = {"all": distances.universal, **distances.kinds}
    framed = {(one.kind or "all", one.target) for one in outliers(distances) if one.least > STANDS_OUT}
    columns = [trigger.target for trigger in distances.universal]
    head = "".join(f'<th scope="col">{label_text(distances.labels[k])}</th>' for k in columns)
    rows = "".join(
        f'<tr><th scope="row">{escape(kind)}</th>'
        + "".join(_kind_cell(trigger, (kind, trigger.target) in framed, top) for trigger in triggers)
        + "</tr>"
        for kind, triggers in every.items()
    )
    return (
        f'<div class="scroll"><table class="heat kinds"><caption>{escape(title)}</caption>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _kind_cell(trigger: PairDistance, framed: bool, top: float) -> str:
    if trigger.rms is None:
        return '<td><span class="unreached" title="not reached">–</span></td>'
    out = ' class="out" title="stands out"' if framed else ""
    digits = 0 if trigger.rms >= 100 else 1
    return f'<td><span{out} style="{_colours(trigger.rms, top)}">{trigger.rms:.{digits}f}</span></td>'


def largest(*distances: ClassDistances) -> float:
    """The end of the scale that shows all of these."""
    return max((pair.rms or 0.0 for found in distances for pair in found.pairs + found.universal), default=1.0)


def report_table(report: Report) -> str:
    """The numbers of a report, each with its doubt, and what casts doubt on all of them."""
    head = ["", "before", "after"] if report.after else ["", "measured"]
    rows = [row[: len(head)] for row in summary_rows(report)]
    where = f"{printable(report.source.repo, 100)}, measured on {printable(report.dataset, 100)}"
    warnings = "".join(notice(warning, "bad") for warning in report.warnings)
    return warnings + table(head, rows, caption=f"{where}, {report.created:%Y-%m-%d}")


def verdict_table(verdict: Verdict) -> str:
    """The verdict in the words of `phard gate`: the headline, the rules, and what it does not rest on."""
    kinds = [rule.outcome for rule in verdict.rules]
    rows = [(OUTCOMES[rule.outcome], rule.name, rule.message) for rule in verdict.rules]
    notes = "".join(f"<li>{escape(note)}</li>" for note in verdict.notes)
    kind = "good" if verdict.passed else "bad"
    code = f"{_WORDS[verdict.exit_code]}, exit code {verdict.exit_code}"
    return (
        f"{notice(f'{headline(verdict)} ({code})', kind)}"
        f"{table(['outcome', 'rule', 'what was found'], rows, kinds=kinds)}<ul class='notes'>{notes}</ul>"
    )


def audit_table(record: AuditRecord, policy: Policy) -> str:
    """What an audit noticed, in the words of `phard audit`."""
    kind = "bad" if record.refused_by(policy) else "info"
    found = record.findings[:_MOST_ROWS]
    rows = [(one.severity, one.id, one.file, one.evidence, MEANINGS.get(one.id, "")) for one in found]
    files = ", ".join(f"{printable(name)} {digest[:12]}" for name, digest in list(record.files.items())[:20])
    listed = table(["severity", "finding", "file", "evidence", "what it means"], rows, kinds=[row[0] for row in rows])
    looked = notice(f"Looked at (SHA-256): {files}") if files else ""
    return notice(audit_headline(record, policy), kind) + (listed if rows else "") + looked


def progress_bar(doing: str, done: int, total: int) -> str:
    """How far something is."""
    share = min(max(done / total, 0.0), 1.0) if total else 0.0
    said = f"{doing}: {done} of {total}" if total > 1 else doing
    return (
        f'<div class="progress" role="progressbar" aria-label="{escape(said)}" aria-valuenow="{100 * share:.0f}" '
        f'aria-valuemin="0" aria-valuemax="100"><p>{escape(said)}</p>'
        f'<i><b style="width:{100 * share:.0f}%"></b></i></div>'
    )
