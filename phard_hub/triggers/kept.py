"""A measurement that is kept on the disk, so that a run which goes on does not search again."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from phard_hub.errors import StateError
from phard_hub.models.kept import Names, read_kept, write_kept
from phard_hub.report.distances import ClassDistances
from phard_hub.triggers.bank import Bank, Parts
from phard_hub.triggers.search import Measurement

FILES = Names(record="distances.json", tensors="bank.safetensors", largest=64 * 2**20)


def keep(measurement: Measurement, path: Path) -> None:
    """Write a measurement as a whole or not at all; its folder is made for this user alone.

    Triggers with a latent part need the autoencoder of their search, and are not kept.

    Raises:
        OutputError: it cannot be written, or others can write to its folder.
    """
    if not measurement.bank.parts.latent:
        write_kept(path, FILES, measurement.distances, measurement.bank.state_dict())


def kept(path: Path, labels: tuple[str, ...], parts: Parts) -> Measurement:
    """Read a measurement of a classifier with these classes.

    Raises:
        OutputError: others can write to its folder.
        StateError: it is broken, or is about other classes or triggers.
    """

    def like(distances: ClassDistances) -> dict[str, Tensor]:
        if distances.labels != labels:
            raise ValueError("it is about other classes")
        return _bank(distances, parts).state_dict()

    try:
        distances, tensors = read_kept(path, FILES, ClassDistances, like)
    except ValueError as error:
        problem = f"The measurement in {path} cannot be used: {error}."
        raise StateError(problem, advice="Delete it to measure again.") from error
    bank = _bank(distances, parts)
    bank.load_state_dict(tensors)
    return Measurement(distances, bank)


def _bank(distances: ClassDistances, parts: Parts) -> Bank:
    return Bank(len(distances.pairs) + len(distances.universal), distances.image_shape, parts)
