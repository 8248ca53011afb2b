"""What a Hub makes of the metadata at the top of a README.md: checked, and turned into tags."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError

_FRONT = re.compile(r"\A\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_LICENSES = re.compile(
    r"afl-3\.0|agpl-3\.0|apache-2\.0|apple-amlr|apple-ascl|artistic-2\.0|bigcode-openrail-m|"
    r"bigscience-bloom-rail-1\.0|bigscience-openrail-m|bsd|bsd-2-clause|bsd-3-clause|bsd-3-clause-clear|bsl-1\.0|"
    r"c-uda|cc|cc-by-2\.0|cc-by-2\.5|cc-by-3\.0|cc-by-4\.0|cc-by-nc-2\.0|cc-by-nc-3\.0|cc-by-nc-4\.0|"
    r"cc-by-nc-nd-3\.0|cc-by-nc-nd-4\.0|cc-by-nc-sa-2\.0|cc-by-nc-sa-3\.0|cc-by-nc-sa-4\.0|cc-by-nd-4\.0|"
    r"cc-by-sa-3\.0|cc-by-sa-4\.0|cc0-1\.0|cdla-permissive-1\.0|cdla-permissive-2\.0|cdla-sharing-1\.0|"
    r"creativeml-openrail-m|deepfloyd-if-license|ecl-2\.0|epl-1\.0|epl-2\.0|etalab-2\.0|eupl-1\.1|eupl-1\.2|gemma|"
    r"gfdl|gpl|gpl-2\.0|gpl-3\.0|h-research|intel-research|isc|lgpl|lgpl-2\.1|lgpl-3\.0|lgpl-lr|llama2|llama3|"
    r"llama3\.1|llama3\.2|llama3\.3|llama4|lppl-1\.3c|mit|mpl-2\.0|ms-pl|ncsa|odbl|odc-by|ofl-1\.1|openmdw-1\.0|"
    r"openrail|openrail\+\+|osl-3\.0|other|pddl|postgresql|unknown|unlicense|wtfpl|zlib"
)


def _license(value: str) -> str:
    if not _LICENSES.fullmatch(value):
        raise ValueError(f"must be one of the Hub's licences, not {value!r}")
    return value


def _repo_id(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", value, re.ASCII):
        raise ValueError(f"{value!r} is no repository id")
    return value


def _slug(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", value):
        raise ValueError(f"{value!r} is no task")
    return value


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Metric(_Part):
    type: str
    value: Any
    name: str | None = None


class _Task(_Part):
    type: str
    name: str | None = None


class _Dataset(_Part):
    type: str
    name: str
    config: str | None = None
    split: str | None = None
    revision: str | None = None


class _Source(_Part):
    url: str
    name: str | None = None


class _Result(_Part):
    task: _Task
    dataset: _Dataset
    metrics: list[_Metric]
    source: _Source | None = None


class _Index(_Part):
    name: str
    results: list[_Result]


RepoId = Annotated[str, AfterValidator(_repo_id)]
Words = Annotated[list[str], BeforeValidator(_as_list)]


class CardData(_Part):
    """The keys that the Hub gives a meaning to; others are free."""

    license: Annotated[list[Annotated[str, AfterValidator(_license)]], BeforeValidator(_as_list)] = []
    language: Words = []
    tags: list[str] = []
    datasets: Words = []
    metrics: Words = []
    base_model: Annotated[list[RepoId], BeforeValidator(_as_list)] = []
    base_model_relation: Literal["adapter", "merge", "quantized", "finetune"] | None = None
    new_version: RepoId | None = None
    library_name: str | None = None
    pipeline_tag: Annotated[str, AfterValidator(_slug)] | None = None
    thumbnail: str | None = None
    model_index: list[_Index] = []


def split_card(text: str) -> str | None:
    """The YAML at the top of a card; None if there is none."""
    found = _FRONT.match(text)
    return found[1] if found else None


def check_card(text: str) -> tuple[dict[str, Any], list[str], list[str]]:
    """(metadata, errors, warnings) of a README.md."""
    front = split_card(text)
    if not front or not front.strip():
        return {}, [], ["empty or missing yaml metadata in repo card"]
    try:
        metadata = yaml.safe_load(front)
    except yaml.YAMLError as error:
        return {}, [f"YAML metadata cannot be parsed: {error}"], []
    if not isinstance(metadata, dict) or not all(isinstance(key, str) for key in metadata):
        return {}, ["YAML metadata must be an object"], []
    renamed = {key.replace("model-index", "model_index"): value for key, value in metadata.items() if value is not None}
    try:
        CardData.model_validate(renamed)
    except ValidationError as error:
        return metadata, [_sentence(problem) for problem in error.errors()], []
    return metadata, [], []


def _sentence(problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"]).replace("model_index", "model-index")
    return f'"{place}" {problem["msg"]}'


def card_tags(metadata: dict[str, Any]) -> list[str]:
    """The tags that the Hub makes of a card."""
    base = _listed(metadata.get("base_model"))
    relation = metadata.get("base_model_relation") or "finetune"
    return [
        *_listed(metadata.get("library_name")),
        *_listed(metadata.get("pipeline_tag")),
        *_listed(metadata.get("tags")),
        *(f"dataset:{name}" for name in _listed(metadata.get("datasets"))),
        *(f"base_model:{name}" for name in base),
        *(f"base_model:{relation}:{name}" for name in base),
        *(f"license:{name}" for name in _listed(metadata.get("license"))),
        *(["model-index"] if metadata.get("model-index") else []),
    ]


def _listed(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)] if value else []
