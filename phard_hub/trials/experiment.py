"""What is compared: the experiment file, and the plan of each of its cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from phard_hub.attacks import ATTACKS, Attack
from phard_hub.attacks.poisoning import Planting
from phard_hub.defenses import DEFENSES, Defense
from phard_hub.errors import ExperimentError
from phard_hub.images.data import DataOptions
from phard_hub.presets import PRESETS, Preset
from phard_hub.report.base import plain
from phard_hub.report.trial import NO_ATTACK, NO_DEFENSE, Cell, slug
from phard_hub.report.wording import public_name
from phard_hub.settings import LARGEST_SEED
from phard_hub.trials.judging import Judging
from phard_hub.trials.options import checked, configured, read_tables, refuse_unknown

_KEYS = (
    *("models", "seeds", "data_shares", "target", "preset"),
    *("images", "planting", "attacks", "defenses", "evaluation"),
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that is needed to run one cell.

    Attributes:
        cell: its place.
        repo: the model.
        data: its images.
        target: the class that triggers produce, by its name or number.
        attack: without its key; None plants nothing.
        defense: None defends nothing.
        judging: what is measured.
    """

    cell: Cell
    repo: str
    data: DataOptions
    target: str
    attack: Attack | None
    defense: Defense | None
    judging: Judging

    @property
    def base(self) -> dict[str, Any]:
        """What decides the numbers before any defense, as plain values without places on this disk."""
        data = {**asdict(self.data), "images": public_name(self.data.images)}
        if self.data.test_images is not None:
            data["test_images"] = public_name(self.data.test_images)
        attack = self.attack.parameters() if self.attack else {}
        return plain(
            {
                "model": public_name(self.repo),
                "images": data,
                "target": self.target,
                "attack": {"name": self.attack.name if self.attack else NO_ATTACK, **attack},
                "evaluation": asdict(self.judging),
                "seed": self.cell.seed,
            }
        )

    @property
    def config(self) -> dict[str, Any]:
        """All that decides the numbers, as plain values without places on this disk."""
        settings = asdict(self.defense) if self.defense else {}
        name = getattr(self.defense, "name", NO_DEFENSE)
        return self.base | plain({"defense": {"name": name, **settings}, "data_share": self.cell.data_share})

    @property
    def without_attack(self) -> dict[str, Any]:
        """What decides what the defense makes of the honest model, which is the same for all attacks."""
        return {name: value for name, value in self.config.items() if name not in ("attack", "target", "evaluation")}


def read_experiment(
    path: Path, *, models: Sequence[str] = (), images: str | None = None, test_images: str | None = None
) -> tuple[Plan, ...]:
    """The plans of all cells of an experiment file; see `plans_of`."""
    return plans_of(read_tables(path), path, models=models, images=images, test_images=test_images)


def plans_of(
    tables: dict[str, Any],
    path: Path,
    *,
    models: Sequence[str] = (),
    images: str | None = None,
    test_images: str | None = None,
) -> tuple[Plan, ...]:
    """The plans of all cells of an experiment, checked as far as that is possible without running them.

    Names of models and images that are paths are relative to the file.

    Args:
        tables: of the file.
        path: of the file; see `phard compare --help`.
        models: take these instead of the file's.
        images: likewise.
        test_images: likewise.

    Raises:
        ExperimentError: the file names something that there is not.
    """
    places = {"images": images, "test_images": test_images}
    return _Reader(tables, path, models, {name: place for name, place in places.items() if place}).plans()


class _Reader:
    """One experiment file, table by table."""

    def __init__(self, given: dict[str, Any], path: Path, models: Sequence[str], places: Mapping[str, str]) -> None:
        refuse_unknown(given, _KEYS, path.name)
        self.given, self.path = given, path
        self.preset = self._preset(given, path.name)
        self.models = self._models(models)
        self.seeds = self._axis("seeds", [0], tuple[int, ...], _is_seed, f"0 to {LARGEST_SEED}")
        self.shares = self._axis("data_shares", [1.0], tuple[float, ...], lambda share: 0 < share <= 1, "in (0, 1]")
        self.target = str(checked(given.get("target", 0), int | str, f"{path.name}: target"))
        self.data = self._data(places)
        self.judging = self._judging()

    def plans(self) -> tuple[Plan, ...]:
        """Every cell: neighbours share a model and a seed, but not a planted model, which is made only once."""
        attacks, defenses = self._attacks(), self._defenses()
        found = []
        for seed, (model, repo), share, defense in product(self.seeds, self.models.items(), self.shares, defenses):
            if defenses[defense] is None and share != max(self.shares):
                continue  # without a defense, its share of the images means nothing
            for attack, trigger in attacks.items():
                found.append(
                    Plan(
                        cell=Cell(model=model, attack=attack, defense=defense, data_share=share, seed=seed),
                        repo=repo,
                        data=self.data,
                        target=self.target,
                        attack=replace(trigger, seed=seed) if trigger else None,
                        defense=defenses[defense],
                        judging=self.judging,
                    )
                )
        return tuple(found)

    def _axis(
        self, name: str, default: list[float], kind: object, allowed: Callable[[float], bool], words: str
    ) -> tuple[Any, ...]:
        values: tuple[Any, ...] = checked(self.given.get(name, default), kind, f"{self.path.name}: {name}")
        wrong = [value for value in values if not allowed(value)]
        if wrong or not values or len(set(values)) < len(values):
            raise ExperimentError(
                f"{self.path.name}: {name} is {list(values)}.",
                advice=f"Give at least one number, each {words}, no two equal.",
            )
        return values

    def _models(self, instead: Sequence[str]) -> dict[str, str]:
        """Names of models, and where they are."""
        place = f"{self.path.name}: models"
        if instead:
            repos = list(instead)
        else:
            repos = [self._place(each) for each in checked(self.given.get("models", []), tuple[str, ...], place)]
        names = [slug(Path(repo).expanduser().name) for repo in repos]
        if not repos or len(set(names)) < len(names):
            advice = "Name at least one Hub id or folder, no two of the same last part; or give --model."
            raise ExperimentError(f"{place} is {repos}.", advice=advice)
        return dict(zip(names, repos, strict=True))

    def _place(self, name: str) -> str:
        """A path relative to the experiment file, if it is one; a Hub id otherwise."""
        path = self.path.parent / Path(name).expanduser()
        there = path.exists() or (any(sign in name for sign in "*?[") and any(path.parent.glob(path.name)))
        return str(path) if there or name.startswith((".", "~", "/")) else name

    def _data(self, places: Mapping[str, str]) -> DataOptions:
        given = self.given.get("images", {})
        options = {"images": given} if isinstance(given, str) else self._table("images")
        for name in ("images", "test_images"):
            if isinstance(options.get(name), str):
                options[name] = self._place(options[name])
        data = configured(DataOptions(images=""), {**options, **places}, "images")
        if not data.images:
            raise ExperimentError(
                f"{self.path.name} names no images.", advice='Write images = "...", or give --images.'
            )
        return data

    def _judging(self) -> Judging:
        default = Judging(pgd=self.preset.pgd, search=self.preset.search)
        judging = configured(default, self._table("evaluation"), "evaluation")
        refuse_unknown(judging.natural, ATTACKS, "evaluation.natural")
        return judging

    def _attacks(self) -> dict[str, Attack | None]:
        """Attacks by the names that they have here; how they are planted is theirs, or what all have in common."""
        planting = configured(Planting(), self._table("planting"), "planting")
        found: dict[str, Attack | None] = {}
        for name, options in self._named("attacks").items():
            where = f"attacks.{name}"
            kind = options.pop("attack", name)
            refuse_unknown([kind], [NO_ATTACK, *ATTACKS], where if kind == name else f"{where}.attack")
            if kind == NO_ATTACK:
                refuse_unknown(options, [], where)
            default = None if kind == NO_ATTACK else replace(ATTACKS[kind](), planting=planting)
            found[name] = default and configured(default, options, where)
        return found

    def _defenses(self) -> dict[str, Defense | None]:
        """Defenses by the names that they have here."""
        found: dict[str, Defense | None] = {}
        for name, options in self._named("defenses").items():
            where = f"defenses.{name}"
            kind = options.pop("defense", name)
            refuse_unknown([kind], [NO_DEFENSE, *DEFENSES], where if kind == name else f"{where}.defense")
            preset = self._preset(options, where) if "preset" in options else self.preset
            options.pop("preset", None)
            if kind == NO_DEFENSE:
                refuse_unknown(options, [], where)
            defense = None if kind == NO_DEFENSE else preset.defense_named(kind)
            found[name] = defense and configured(defense, options, where)
        return found

    def _preset(self, table: Mapping[str, Any], where: str) -> Preset:
        name = table.get("preset", "default")
        refuse_unknown([name], PRESETS, f"{where}: preset")
        return PRESETS[name]

    def _table(self, name: str) -> dict[str, Any]:
        table: dict[str, Any] = checked(self.given.get(name, {}), dict[str, Any], f"{self.path.name}: {name}")
        return table

    def _named(self, name: str) -> dict[str, dict[str, Any]]:
        """A table of tables by name; a list of names is one of empty tables."""
        given = self.given.get(name, [])
        place = f"{self.path.name}: {name}"
        names = checked(given, tuple[str, ...], place) if isinstance(given, list) else tuple(given)
        if not names:
            raise ExperimentError(
                f"{place} are missing.", advice=f'Write {name} = ["..."] or a table [{name}.NAME] each.'
            )
        odd = [each for each in names if slug(each) != each]
        if odd:
            raise ExperimentError(f"{place}: {odd[0]!r} is no name.", advice="Use letters, digits, '.', '_' and '-'.")
        tables = checked({} if isinstance(given, list) else given, dict[str, dict[str, Any]], place)
        return {each: dict(tables.get(each, {})) for each in names}


def _is_seed(seed: float) -> bool:
    return 0 <= seed <= LARGEST_SEED
