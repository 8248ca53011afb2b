"""A measurement that is kept on the disk, so that a run which goes on does not search again.

Like every state of a run it may come from anybody: it fits the search that would be made, or it is refused as a whole.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from phard_hub.disk.atomic import check_private, new_folder, private_folder, write_text
from phard_hub.errors import StateError, first_line
from phard_hub.models.tensors import read_fitting, serialize
from phard_hub.report.distances import ClassDistances
from phard_hub.triggers.bank import Bank, Parts
from phard_hub.triggers.search import Measurement

RECORD, TENSORS = "distances.json", "bank.safetensors"
_LARGEST_RECORD = 64 * 2**20


def keep(measurement: Measurement, path: Path) -> None:
    """Write a measurement as a whole or not at all; its folder is made for this user alone.

    Triggers with a latent part need the autoencoder of their search, and are not kept.

    Raises:
        OutputError: it cannot be written, or others can write to its folder.
    """
    if measurement.bank.parts.latent:
        return
    private_folder(path.parent)
    with new_folder(path, mode=0o700) as folder:
        (folder / TENSORS).write_bytes(serialize(_tensors(measurement.bank)))
        write_text(folder / RECORD, measurement.distances.model_dump_json())


def kept(path: Path, labels: tuple[str, ...], parts: Parts) -> Measurement:
    """Read a measurement of a classifier with these classes.

    Raises:
        OutputError: others can write to its folder.
        StateError: it is broken, or is about other classes or triggers.
    """
    check_private(path.parent)
    check_private(path)
    try:
        distances = ClassDistances.read_file(path / RECORD, _LARGEST_RECORD)
        if distances.labels != labels:
            raise ValueError("it is about other classes")  # noqa: TRY301 - said like the other faults
        bank = Bank(len(distances.pairs) + len(distances.universal), distances.image_shape, parts)
        bank.load_state_dict(read_fitting(path, TENSORS, _tensors(bank)))
    except OSError as error:
        raise _broken(path, f"{error.filename}: {error.strerror}") from error
    except ValueError as error:
        raise _broken(path, first_line(error)) from error
    return Measurement(distances, bank)


def _tensors(bank: Bank) -> dict[str, Tensor]:
    return dict(bank.state_dict())


def _broken(path: Path, why: str) -> StateError:
    problem = f"The measurement in {path} cannot be used: {why}."
    return StateError(problem, advice="Delete it to measure again.")
