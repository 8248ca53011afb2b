"""What a name of a data set means: a folder, parquet files, or an id on the Hub, and which way it is read."""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from glob import glob
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from phard_hub.errors import HubUnavailableError, ImagesError, OutputError, first_line
from phard_hub.hub.client import ready_client
from phard_hub.images.tables import ArrowTable, Opener, ParquetFiles, Stream, Table

LARGE = 2**30
"""Bytes from which on a data set is not copied when only some of its images are wanted."""

_log = logging.getLogger(__name__)
_ON_HUB = re.compile(r"(?P<id>\w[\w.-]*(/\w[\w.-]*)?)(:(?P<config>[\w.-]+))?(@(?P<revision>[\w./-]+))?", re.ASCII)


class HubName(NamedTuple):
    """``id:config@revision``, of which all but the id may be missing."""

    id: str
    config: str | None
    revision: str | None


class Wanted(NamedTuple):
    """How many images of how many classes are enough."""

    per_class: int
    classes: int


def open_table(dataset: str, split: str | None, wanted: Wanted | None) -> Table:
    """The data set as a table, with nothing decoded.

    Args:
        dataset: a folder with one sub-folder per class, a folder or pattern of parquet files, one parquet
            file, or the id of a data set on the Hub, as ``org/data``, ``org/data:config`` or with ``@revision``.
        split: "train" if it exists, else the only one.
        wanted: what is enough; None if all images are wanted.

    Raises:
        ImagesError: no such data set, configuration or split, or it holds no images.
        HubUnavailableError: the Hub did not answer.
        OutputError: the cache of `datasets` cannot be written.
    """
    path = Path(dataset).expanduser()
    files = path.rglob("*.parquet") if path.is_dir() else glob(str(path), recursive=True)  # noqa: PTH207 - may be absolute
    parquet = sorted(str(file) for file in files)
    if not path.is_dir() and any(not file.endswith(".parquet") for file in parquet):
        raise ImagesError(f"{dataset} is no parquet file.", advice="Give a folder, parquet files or a Hub id.")
    on_hub = _ON_HUB.fullmatch(dataset)
    if not parquet and not path.is_dir() and (path.suffix == ".parquet" or not on_hub):
        advice = "Give an existing folder, parquet files, or a Hub id such as ylecun/mnist."
        raise ImagesError(f"{dataset!r} is neither an existing file or folder nor a Hub id.", advice=advice)
    with dataset_errors(dataset):
        if parquet:
            return _open_parquet(dataset, parquet, split, wanted)
        if path.is_dir():
            return _open_folder(dataset, path, split)
        assert on_hub
        return _open_hub(HubName(on_hub["id"], on_hub["config"], on_hub["revision"]), split, wanted)


def _open_parquet(dataset: str, files: list[str], split: str | None, wanted: Wanted | None) -> Table:
    from datasets import load_dataset

    name = _split(["train"], split, dataset)
    if wanted and sum(Path(file).stat().st_size for file in files) > LARGE:
        return _parquet([partial(_open_file, file) for file in files], None, f"{dataset} ({name})")
    return ArrowTable(load_dataset("parquet", data_files=files, split=name), f"{dataset} ({name})")


def _open_file(path: str) -> AbstractContextManager[BinaryIO]:
    return Path(path).open("rb")


def _open_folder(dataset: str, path: Path, split: str | None) -> Table:
    from datasets import load_dataset

    found = load_dataset("imagefolder", data_dir=str(path))
    name = _split(list(found), split, dataset)
    return ArrowTable(found[name], f"{dataset} ({name})")


def _open_hub(name: HubName, split: str | None, wanted: Wanted | None) -> Table:
    """A data set at the commit that it has now; large ones stay where they are."""
    from datasets import load_dataset_builder

    ready_client()
    commit = _commit(name)
    builder = load_dataset_builder(name.id, name.config, revision=commit or name.revision)
    by_split = builder.config.data_files
    if not by_split:  # the Hub did not answer, and the cache has this configuration of some commit
        return _from_cache(name, builder, split)
    split = _split([str(one) for one in by_split], split, name.id)
    files = [str(file) for file in by_split[split]]
    told = f"{name.id}{f':{name.config}' if name.config else ''}{f'@{commit[:12]}' if commit else ''} ({split})"
    if wanted and (openers := _large_files(files)):
        if all(file.endswith(".parquet") for file in files):
            return _parquet(openers, builder.info.features, told)
        return Stream(builder.as_streaming_dataset(split=split), told, **wanted._asdict())
    builder.download_and_prepare()
    return ArrowTable(builder.as_dataset(split=split), told)


def _large_files(files: Sequence[str]) -> list[Opener]:
    """Openers of files on the Hub, if these are large."""
    from huggingface_hub import HfFileSystem

    hub = HfFileSystem()
    sizes = accumulate(hub.size(file) or 0 for file in files)
    if not any(size > LARGE for size in sizes):  # a million small files need not be asked for all
        return []
    # No cache: blocks of 5 MB around each label would be most of a file.
    return [partial(hub.open, file, "rb", cache_type="none") for file in files]


def _from_cache(name: HubName, builder: Any, split: str | None) -> Table:  # noqa: ANN401 - untyped
    if name.revision:
        problem = f"The Hub does not answer, and the cache does not tell {name.revision!r} of {name.id} from others."
        raise HubUnavailableError(problem, advice="Try again later, or leave the revision out.")
    split = _split([str(one) for one in builder.info.splits], split, name.id)
    _log.warning("The Hub does not answer: using %s from the cache.", name.id)
    return ArrowTable(builder.as_dataset(split=split), f"{name.id} ({split}, from the cache)")


def _commit(name: HubName) -> str | None:
    """The commit that the name means now; None if the Hub does not say, for reasons that `datasets` will tell."""
    from huggingface_hub import dataset_info
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    try:
        return dataset_info(name.id, revision=name.revision, timeout=30).sha
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx.TransportError):
        return None


def _parquet(files: Sequence[Opener], features: Any, name: str) -> ParquetFiles:  # noqa: ANN401
    """Parquet files with their features, which the first of them tells if nobody else does."""
    from datasets import Features
    from pyarrow.parquet import read_schema

    if features is None:
        with files[0]() as source:
            features = Features.from_arrow_schema(read_schema(source))
    return ParquetFiles(files, features, name)


def _split(names: list[str], wanted: str | None, dataset: str) -> str:
    name = wanted or ("train" if "train" in names else names[0] if len(names) == 1 else None)
    if name not in names:
        problem = f"has no split {wanted!r}" if wanted else "has several splits"
        raise ImagesError(f"{dataset} {problem}; it has {', '.join(names)}.", advice="Name one of them with --split.")
    return name


@contextmanager
def dataset_errors(dataset: str) -> Iterator[None]:
    """Say in one line why a data set cannot be opened or read."""
    from datasets.exceptions import DatasetNotFoundError, DatasetsError
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    try:
        yield
    except DatasetNotFoundError as error:
        advice = "Check the spelling; if it is gated or private, log in with `hf auth login`."
        raise ImagesError(f"There is no file, folder or Hub data set {dataset}.", advice=advice) from error
    except (ConnectionError, HfHubHTTPError, httpx.TransportError) as error:
        problem = f"The Hub did not give {dataset}: {first_line(error)}."
        raise HubUnavailableError(problem, advice="Try again later, or give a local folder.") from error
    except (DatasetsError, OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        raise _unreadable(dataset, error) from error


def _unreadable(dataset: str, error: Exception) -> ImagesError | OutputError:
    cause = error.__cause__ or error
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EFBIG, errno.EACCES, errno.EROFS):
        advice = "Make space or set HF_HOME to a folder that can be written."
        return OutputError(f"Cannot read {dataset} or cache it: {cause.strerror}.", advice=advice)
    if str(error).startswith("Config name is missing"):
        configs = ", ".join(re.findall(r"'([^']+)'", str(error).split("[", 1)[-1].split("]", 1)[0]))
        advice = f"Name one of them as {dataset}:NAME."
        return ImagesError(f"{dataset} has several configurations: {configs}.", advice=advice)
    advice = "Give images in one folder a class, parquet files, or a Hub data set."
    return ImagesError(f"{dataset} cannot be read as images: {first_line(error)}.", advice=advice)
