"""What a name of a data set means: a folder, parquet files, or an id on the Hub, and which way it is read."""

from __future__ import annotations

import errno
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from phard_hub.errors import HubUnavailableError, ImagesError, OutputError, PhardError, first_line
from phard_hub.hub.client import ready_client
from phard_hub.hub.names import DatasetName, no_dataset, split_dataset
from phard_hub.images.columns import of_features
from phard_hub.images.disk import is_file, matches, no_file, open_file, scan, shown_path
from phard_hub.images.folders import SPLITS, FolderTable, is_table, passed_over, warn
from phard_hub.images.lists import ListTable
from phard_hub.images.matching import shown
from phard_hub.images.parquet import Opener, ParquetFiles
from phard_hub.images.saved import SavedTable, saved_splits
from phard_hub.images.tables import ArrowTable, Stream, Table, foreign
from phard_hub.report.wording import printable

LARGE = 2**30
"""Bytes from which on a data set is not copied when only some of its images are wanted."""

_OF_THE_DISK = (errno.ENOSPC, errno.EFBIG, errno.EACCES, errno.EROFS)
_LONGEST_CAUSE = 300
"""Characters of what another library says."""
_BUILDERS = ("parquet", "imagefolder", "webdataset", "arrow")
"""Parts of `datasets` that read images. None runs code of the data set, as others of its fifty might."""
_ELSEWHERE = re.compile(r"://|::|^[/~]|^[A-Za-z]:|\\|(^|/)\.\.(/|$)")
"""What a name of a file has that does not lie below the folder that it is written for."""

_PACKED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
_MOST_WORDS = 100_000

_log = logging.getLogger(__name__)


class Wanted(NamedTuple):
    """How many images of how many classes are enough."""

    per_class: int
    classes: int


def open_table(dataset: str, split: str | None, wanted: Wanted | None) -> Table:
    """The data set as a table, with nothing decoded.

    Args:
        dataset: a folder with one sub-folder per class, a folder or pattern of parquet files, one parquet
            file, a CSV file of paths and labels, a folder that `save_to_disk` wrote, or the id of a data
            set on the Hub, as ``org/data``, ``org/data:config`` or with ``@revision``.
        split: "train" if it exists, else the only one.
        wanted: what is enough; None if all images are wanted.

    Raises:
        ImagesError: no such data set, configuration or split, or it holds no images.
        HubUnavailableError: the Hub did not answer.
        OutputError: the cache of `datasets` cannot be written.
    """
    title = shown_path(dataset)
    with dataset_errors(title):
        return _open(dataset, title, split, wanted)


def _open(dataset: str, title: str, split: str | None, wanted: Wanted | None) -> Table:
    # Those of `os.path` take every name, even one that is too long.
    path = Path(os.path.expanduser(dataset))  # noqa: PTH111
    if os.path.isdir(path):  # noqa: PTH112
        return _open_folder(path, title, split, wanted)
    files = matches(str(path))
    if files is None and os.path.lexists(path):
        files = [path]
    if files and path.suffix.lower() == ".csv" and len(files) == 1:
        return ListTable(files[0], f"{title} ({_split(['train'], split, title)})")
    if files:
        return _open_parquet(files, Counter(), title, split, wanted)
    on_hub = split_dataset(dataset)
    if files is not None or path.suffix == ".parquet" or on_hub is None:
        raise no_dataset(title)
    return _open_hub(on_hub, split, wanted)


def _open_folder(path: Path, title: str, split: str | None, wanted: Wanted | None) -> Table:
    found = scan(path)
    if saved := saved_splits(path, found.files):
        split = _split([*saved], split, title)
        return SavedTable(saved[split], f"{title} ({split})")
    parquet = [name for name in found.files if is_table(name)]
    if not parquet:
        return FolderTable(path, found, title, lambda names: _split(names, split, title))
    passed = found.passed + Counter({"other files": len(found.files) - len(parquet)})
    return _open_parquet([path / name for name in parquet], passed, title, split, wanted)


def _open_parquet(
    files: Sequence[Path], passed: Counter[str], title: str, split: str | None, wanted: Wanted | None
) -> Table:
    """Parquet files on the disk; of a pattern, those that fit it and are regular files."""
    if any(file.suffix != ".parquet" for file in files):
        packed = any(file.suffix.lower() in _PACKED for file in files)
        advice = (
            "Unpack it, and give the folder." if packed else "Give a folder, parquet files, a CSV list or a Hub id."
        )
        raise ImagesError(f"{title} is no parquet file.", advice=advice)
    regular = [file for file in files if is_file(file)]
    if not regular:
        raise no_file(files[0])
    passed = passed + Counter({"no regular files": len(files) - len(regular)})
    name = f"{title} ({_split(['train'], split, title)})"
    whole = not wanted or sum(file.stat().st_size for file in regular) <= LARGE
    openers = [partial(open_file, file) for file in regular]
    table = ParquetFiles(openers, name, whole=whole, passed=passed_over(passed))
    warn(title, passed)
    return table


def _open_hub(name: DatasetName, split: str | None, wanted: Wanted | None) -> Table:
    """A data set at the commit that it has now; large ones stay where they are."""
    from datasets import load_dataset_builder

    ready_client()
    commit, silent = _commit(name)
    if commit:
        _check_card(name.id, commit)
    with _only_the_cache(name.id, silent) if silent else nullcontext():
        builder = load_dataset_builder(name.id, name.config, revision=commit or name.revision)
    by_split = builder.config.data_files
    if not by_split:  # the Hub did not answer, and the cache has this configuration of some commit
        return _from_cache(name, builder, split)
    if not commit:
        raise HubUnavailableError(f"The Hub did not say which commit of {name.id} is meant.", advice="Try again.")
    split = _split([str(one) for one in by_split], split, name.id)
    home = f"hf://datasets/{name.id}@{commit}/"
    _check_files(builder, home)
    files = [str(file) for file in by_split[split]]
    title = f"{name.id}{f':{name.config}' if name.config else ''}@{commit[:12]} ({split})"
    if wanted and (openers := _large_files(files)):
        if all(file.endswith(".parquet") for file in files):
            features = builder.info.features
            return ParquetFiles(openers, title, columns=features and of_features(features), whole=False)
        return Stream(builder.as_streaming_dataset(split=split), title, home, **wanted._asdict())
    builder.download_and_prepare()
    return ArrowTable(builder.as_dataset(split=split), title, _home_in_cache(name.id))


def _check_card(repo: str, commit: str) -> None:
    """Refuse a data set whose card names files elsewhere, before `datasets` asks for them."""
    import yaml
    from huggingface_hub import DatasetCard, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

    for file in ("README.md", ".huggingface.yaml"):
        try:
            path = Path(hf_hub_download(repo, file, repo_type="dataset", revision=commit))
        except (EntryNotFoundError, RepositoryNotFoundError):  # gated ones too, which `datasets` will explain
            continue
        content = DatasetCard.load(path).data.to_dict() if file.endswith(".md") else yaml.safe_load(path.read_bytes())
        for name in _words(content.get("configs") if isinstance(content, dict) else None):
            if _ELSEWHERE.search(name):
                raise foreign(name)


def _words(value: Any) -> Iterator[str]:  # noqa: ANN401 - whatever a card says
    """All words in lists and mappings, which YAML can make very many of a few."""
    waiting = [value]
    for _ in range(_MOST_WORDS):
        if not waiting:
            return
        part = waiting.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict | list):
            waiting += part.values() if isinstance(part, dict) else part
    raise ImagesError("The card of the data set names too many files.", advice="Give a copy on the disk.")


def _check_files(builder: Any, home: str) -> None:  # noqa: ANN401 - untyped
    """Refuse files of another place, and kinds of files that hold no images."""
    for file in (str(file) for files in builder.config.data_files.values() for file in files):
        if not file.startswith(home) or _ELSEWHERE.search(file.removeprefix(home)):
            raise foreign(file)
    kind = builder.__module__.rsplit(".", 1)[-1]
    if kind not in _BUILDERS:
        problem = f"The data set holds files for {kind!r}, not images."
        raise ImagesError(problem, advice="Give one with a folder of images for each class, or with parquet files.")


def _home_in_cache(repo: str) -> Path:
    """The folder in which the Hub's library keeps the files of a data set."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    return Path(HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type="dataset"))


def _large_files(files: Sequence[str]) -> list[Opener]:
    """Openers of files on the Hub, if these are large."""
    from huggingface_hub import HfFileSystem

    hub = HfFileSystem()
    sizes = accumulate(hub.size(file) or 0 for file in files)
    if not any(size > LARGE for size in sizes):  # a million small files need not be asked for all
        return []
    # No cache: blocks of 5 MB around each label would be most of a file.
    return [partial(hub.open, file, "rb", cache_type="none") for file in files]


def _from_cache(name: DatasetName, builder: Any, split: str | None) -> Table:  # noqa: ANN401 - untyped
    if name.revision:
        problem = f"The Hub does not answer, and the cache does not tell {name.revision!r} of {name.id} from others."
        raise HubUnavailableError(problem, advice="Try again later, or leave the revision out.")
    split = _split([str(one) for one in builder.info.splits], split, name.id)
    _log.warning("The Hub does not answer: using %s from the cache.", name.id)
    title = f"{name.id} ({split}, from the cache)"
    return ArrowTable(builder.as_dataset(split=split), title, _home_in_cache(name.id))


def _commit(name: DatasetName) -> tuple[str | None, Exception | None]:
    """The commit that the name means now; None if the Hub does not say, with the error if it was not reached at all."""
    from huggingface_hub import dataset_info
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    try:
        return dataset_info(name.id, revision=name.revision, timeout=30).sha, None
    except HfHubHTTPError:  # which `datasets` will explain
        return None, None
    except (OfflineModeIsEnabled, httpx.TransportError) as error:
        return None, error


@contextmanager
def _only_the_cache(repo: str, silent: Exception) -> Iterator[None]:
    """Let `datasets` look into its cache at once, which else it does after half a minute of trying again.

    Raises:
        HubUnavailableError: the cache does not have it.
    """
    from datasets import config
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub import constants

    from phard_hub.hub.refusals import silence

    kept = config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    except (ConnectionError, DatasetNotFoundError) as error:
        why, advice = silence(silent)
        problem = f"The Hub did not give {repo}, and the cache does not hold it: {why}."
        raise HubUnavailableError(problem, advice=advice) from error
    finally:
        config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = kept


def _split(names: list[str], wanted: str | None, dataset: str) -> str:
    """The split that is meant, of which `val` and `validation` are names of one."""
    if wanted and wanted not in names:
        kind = SPLITS.get(wanted.lower(), wanted)
        wanted = next((name for name in names if SPLITS.get(name.lower(), name) == kind), wanted)
    name = wanted or ("train" if "train" in names else names[0] if len(names) == 1 else None)
    if name not in names:
        problem = f"has no split {wanted!r}" if wanted else "has several splits"
        raise ImagesError(f"{dataset} {problem}; it has {shown(names)}.", advice="Name one of them with --split.")
    return name


@contextmanager
def dataset_errors(dataset: str) -> Iterator[None]:
    """Say in one line why a data set cannot be opened or read, whatever the libraries raise over it."""
    try:
        yield
    except PhardError:
        raise
    except Exception as error:
        raise _explained(dataset, error) from error


def _explained(dataset: str, error: Exception) -> PhardError:
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    from phard_hub.hub.refusals import silence

    if isinstance(error, DatasetNotFoundError):
        advice = "Check the spelling; if it is gated or private, log in with `hf auth login`."
        return ImagesError(f"There is no file, folder or Hub data set {dataset}.", advice=advice)
    if isinstance(error, ConnectionError | HfHubHTTPError | httpx.TransportError):
        why, advice = silence(error)
        return HubUnavailableError(f"The Hub did not give {dataset}: {why}.", advice=advice)
    return _unreadable(dataset, error)


def _line(error: Exception) -> str:
    """What another library says, which may quote what a stranger wrote."""
    return printable(first_line(error), _LONGEST_CAUSE)


def _is_of_cache(file: object) -> bool:
    """Whether a path lies in a cache of the Hub's libraries, or on the way to it."""
    from datasets.config import HF_DATASETS_CACHE
    from huggingface_hub.constants import HF_HUB_CACHE

    if not isinstance(file, str):
        return False
    homes = [Path(home) for home in (HF_HUB_CACHE, HF_DATASETS_CACHE)]
    return any(home.is_relative_to(file) or Path(file).is_relative_to(home) for home in homes)


def _unreadable(dataset: str, error: Exception) -> ImagesError | OutputError:
    cause = error.__cause__ or error
    if isinstance(cause, OSError) and (cause.errno in _OF_THE_DISK or _is_of_cache(cause.filename)):
        advice = "Make space or set HF_HOME to a folder that can be written."
        place = f" in {shown_path(cause.filename)}" if _is_of_cache(cause.filename) else ""
        return OutputError(f"Cannot read {dataset} or cache it{place}: {cause.strerror}.", advice=advice)
    if str(error).startswith("Config name is missing"):
        configs = shown(re.findall(r"'([^']+)'", str(error).split("[", 1)[-1].split("]", 1)[0]))
        advice = f"Name one of them as {dataset}:NAME."
        return ImagesError(f"{dataset} has several configurations: {configs}.", advice=advice)
    advice = "Give images in one folder a class, parquet files, or a Hub data set."
    return ImagesError(f"{dataset} cannot be read as images: {_line(error)}.", advice=advice)
