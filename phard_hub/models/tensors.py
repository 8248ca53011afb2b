"""Tensors as safetensors and back: bytes that depend on values alone, and a reader that trusts no file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from phard_hub.disk.reading import read_regular
from phard_hub.errors import first_line


def serialize(tensors: Mapping[str, Tensor]) -> bytes:
    """The bytes of a safetensors file of these tensors; the order of the names does not matter.

    Tensors that share memory (tied weights) are written once for each name.
    """
    seen: set[int] = set()
    own = {name: _own(tensor, seen) for name, tensor in sorted(tensors.items())}
    return safetensors.torch.save(own, metadata={"format": "pt"})


def _own(tensor: Tensor, seen: set[int]) -> Tensor:
    """The tensor on the CPU, contiguous, and in memory of its own (safetensors refuses shared memory)."""
    tensor = tensor.detach().cpu().contiguous()
    place = tensor.untyped_storage().data_ptr()
    if place in seen:
        return tensor.clone()
    seen.add(place)
    return tensor


def read_tensors(folder: Path, name: str, *, largest: int) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Args:
        folder: that holds the file.
        name: of the file.
        largest: bytes that it may have.

    Raises:
        OSError: it cannot be read, is no regular file, or is larger.
        ValueError: it is no safetensors file, or cut off, or of types that torch does not have.
    """
    content = read_regular(folder, name, largest)
    try:
        return safetensors.torch.load(content)
    except SafetensorError as error:
        raise ValueError(first_line(error)) from error
    except (KeyError, RuntimeError, AssertionError) as error:
        raise ValueError("it holds a type of number that torch does not have") from error


def read_fitting(
    folder: Path, name: str, expected: Mapping[str, Tensor], *, optional: Collection[str] = ()
) -> dict[str, Tensor]:
    """The tensors of a safetensors file that holds what is expected, all finite.

    Args:
        folder: that holds the file.
        name: of the file.
        expected: tensors whose names, shapes and types those of the file must have.
        optional: names of these that may be missing.

    Raises:
        OSError: it cannot be read, is no regular file, or is far larger than what is expected.
        ValueError: it is broken, or holds something else; the message names the first difference.
    """
    room = 2**20 + 1000 * len(expected)  # for the names
    largest = room + sum(tensor.nbytes for tensor in expected.values())
    found = read_tensors(folder, name, largest=largest)
    if why := difference(found, expected, optional):
        raise ValueError(why)
    return found


def difference(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], optional: Collection[str] = ()) -> str:
    """The first way in which tensors are not what is expected; empty if they are."""
    if unknown := sorted(found.keys() - expected.keys()):
        return f"it holds {unknown[0][:100]!r}, which does not belong there"
    if missing := sorted(expected.keys() - found.keys() - set(optional)):
        return f"{missing[0]!r} is missing"
    for name, tensor in found.items():
        wanted = expected[name]
        if (tensor.shape, tensor.dtype) != (wanted.shape, wanted.dtype):
            return f"{name!r} is {_kind(tensor)} and not {_kind(wanted)}"
        if not is_finite(tensor):
            return f"{name!r} holds numbers that are not finite"
    return ""


def is_finite(tensor: Tensor) -> bool:
    """Whether all its numbers are finite."""
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
