"""Pictures of the triggers that were found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phard_hub.images import LabelledImages
from phard_hub.triggers.search import Measurement

if TYPE_CHECKING:
    from phard_hub.report.views.plots import GalleryRow


def gallery(images: LabelledImages, before: Measurement, after: Measurement, rows: int = 4) -> list[GalleryRow]:
    """The triggers of the closest pairs before hardening, and those of the same pairs after it."""
    pairs = before.distances.pairs
    closest = sorted(range(len(pairs)), key=lambda row: pairs[row].distance or float("inf"))[:rows]
    return [
        _gallery_row(images, measurement, row, stage)
        for row in closest
        for stage, measurement in (("before", before), ("after", after))
    ]


def _gallery_row(images: LabelledImages, measurement: Measurement, row: int, stage: str) -> GalleryRow:
    from phard_hub.report.views.plots import GalleryRow

    pair = measurement.distances.pairs[row]
    first = 0 if pair.source is None else int((images.labels == pair.source).nonzero()[0])
    pixels, _ = images.batch([first])
    stamped = measurement.bank.cpu().trigger(row)(pixels)
    size = "not reached" if pair.rms is None else f"{pair.rms:.1f} grey levels"
    source = "all" if pair.source is None else images.names[pair.source]
    return GalleryRow(
        caption=f"{source} to {images.names[pair.target]}, {stage}: {size}",
        image=pixels[0].permute(1, 2, 0).numpy(),
        stamped=stamped[0].permute(1, 2, 0).numpy(),
    )
