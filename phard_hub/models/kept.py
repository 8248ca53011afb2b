"""A record and its tensors that a run keeps for its next try: JSON and safetensors, in a folder for this user alone.

What lies there may come from anybody, such as with an archive of models. So it is read as strictly as a model is: it
fits what goes on with it, or it is refused as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

from torch import Tensor

from phard_hub.disk.atomic import check_private, new_folder, private_folder, write_text
from phard_hub.errors import first_line
from phard_hub.models.tensors import read_fitting, serialize
from phard_hub.report.base import Record

R = TypeVar("R", bound=Record)


class Names(NamedTuple):
    """The files of a folder, and how many bytes the record may have."""

    record: str
    tensors: str
    largest: int


def write_kept(path: Path, names: Names, record: Record, tensors: Mapping[str, Tensor]) -> None:
    """Write both in place of what was there, as a whole or not at all; the folder above is made for this user alone.

    Raises:
        OutputError: it cannot be written, or others can write to the folder above.
    """
    private_folder(path.parent)
    content = serialize(tensors)
    with new_folder(path, mode=0o700) as folder:
        (folder / names.tensors).write_bytes(content)
        write_text(folder / names.record, record.model_dump_json())


def read_kept(
    path: Path,
    names: Names,
    kind: type[R],
    expected: Callable[[R], Mapping[str, Tensor]],
    *,
    optional: Collection[str] = (),
) -> tuple[R, dict[str, Tensor]]:
    """Read both.

    Args:
        path: the folder.
        names: of its files.
        kind: of the record.
        expected: tensors like those that have to be there, by name; it may refuse the record by a ValueError.
        optional: names of these that may be missing.

    Raises:
        OutputError: others can write to the folder or to the one above.
        ValueError: something cannot be read, is broken, or does not fit; the message names the file.
    """
    check_private(path.parent)
    check_private(path)
    file = names.record
    try:
        record = kind.read_file(path / names.record, names.largest)
        wanted = expected(record)
        file = names.tensors
        return record, read_fitting(path, names.tensors, wanted, optional=optional)
    except OSError as error:
        raise ValueError(f"{error.filename}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{file}: {first_line(error)}") from error
