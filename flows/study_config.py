"""A study as data: data sets x variants x axis values x seeds, each cell a run of the pipeline.

A study is a TOML file. Its settings are written as after ``--set``, and are applied in this order: the
preset of the data set (or variant), the study's, the data set's, the variant's, the axes'. So any cell can
be run by itself with ``gclflow run``.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from flows.config import ConfigurationError, PipelineConfig, StageName, load_config, parse_value
from flows.running import parse_seeds
from gcl.config import Config

AxisValue = int | float | bool | str
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$"
_MAX_BYTES = 1 << 20
_MAX_CELLS = 100_000


class StudyDataset(Config):
    """A data set of a study."""

    name: str = Field(pattern=_NAME, description="name in tables and for --only")
    preset: str = Field("none", description="preset its cells rest on; none: the method's defaults")
    paths: tuple[str, ...] = Field(
        (), description="places below --data, the first that exists is taken; none for generated graphs"
    )
    settings: tuple[str, ...] = Field((), description="KEY=VALUE settings of this data set")
    large: bool = Field(False, description="left out unless --large is given")


class StudyVariant(Config):
    """One of the things compared."""

    name: str = Field(pattern=_NAME, description="name in tables and for --only")
    about: str = Field("", description="what is different, in a line")
    preset: str | None = Field(
        None, description="preset instead of the data set's; {dataset} stands for the data set's name"
    )
    settings: tuple[str, ...] = Field((), description="KEY=VALUE settings of this variant")


class StudyAxis(Config):
    """A setting that is varied over a list of values."""

    field: str = Field(
        pattern=r"^[a-z_]+(\.[a-z_0-9]+)*$", description="the setting's key, as method.temperature"
    )
    values: tuple[AxisValue, ...] = Field(min_length=1, description="its values")
    large: tuple[AxisValue, ...] = Field((), description="values left out unless --large is given")


class Study(Config):
    """What is run, what is compared with what, and which figures are shown."""

    name: str = Field(pattern=_NAME, description="name of the file without its ending")
    title: str = Field(min_length=1, description="heading of tables and plots")
    question: str = Field(min_length=1, description="what the study answers")
    reference: str = Field("default", description="variant that the others are compared with, seed by seed")
    reference_point: dict[str, AxisValue] = Field(
        {}, description="axis values of the reference; empty: the same point as the compared cell's"
    )
    seeds: str = Field("0..4", description="seeds of the runs unless --seeds is given: 0..4 or 0,3,7")
    seeded: tuple[str, ...] = Field(
        (), description="further settings that take the seed's value, as dataset.seed of generated graphs"
    )
    until: StageName = Field("evaluate", description="last stage of a cell")
    figures: tuple[str, ...] = Field(
        min_length=1,
        description="figures of tables and plots, with wildcards: TASK/PROTOCOL/METRIC, seconds/STAGE, "
        "seconds/epoch, peak_rss_bytes/STAGE, history/TERM",
    )
    plot: Literal["variants", "curves", "loglog"] = Field(
        "variants", description="a row a variant, or lines over the first axis, also with both scales log"
    )
    settings: tuple[str, ...] = Field((), description="KEY=VALUE settings of every cell")
    datasets: tuple[StudyDataset, ...] = Field(min_length=1, description="the data sets")
    variants: tuple[StudyVariant, ...] = Field(
        (StudyVariant(name="default"),), min_length=1, description="the variants"
    )
    axes: tuple[StudyAxis, ...] = Field((), description="a grid over settings")

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        for kind, names in (
            ("dataset", [dataset.name for dataset in self.datasets]),
            ("variant", [variant.name for variant in self.variants]),
            ("axis", [axis.field for axis in self.axes]),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"a {kind} is named twice: {', '.join(names)}")
        if self.reference not in [variant.name for variant in self.variants]:
            raise ValueError(f"the reference {self.reference!r} is none of the variants")
        for field, value in self.reference_point.items():
            if not any(axis.field == field and value in axis.values for axis in self.axes):
                raise ValueError(f"the reference point {field} = {value} is on no axis")
        if self.plot != "variants" and not self.axes:
            raise ValueError(f"a plot of {self.plot} needs an axis")
        return self


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        point: axis values by field.
        preset: the preset the settings rest on; ``none`` for the method's defaults.
        overrides: the settings, as after ``--set``; without the path of the data.
        places: where the data may lie below the data folder.
    """

    dataset: str
    variant: str
    point: Mapping[str, AxisValue]
    seed: int
    preset: str
    overrides: tuple[str, ...]
    places: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The cell in a line, as messages name it."""
        point = "".join(f", {field}={value}" for field, value in self.point.items())
        return f"{self.dataset}, {self.variant}{point}, seed {self.seed}"

    def config(self, data: Path | None) -> PipelineConfig:
        """The configuration of the run.

        Args:
            data: folder below which the data sets lie.

        Raises:
            ConfigurationError: a setting does not fit; the message names the cell.
        """
        overrides = list(self.overrides)
        if self.places:
            folder = data or Path()
            known = [place for place in self.places if (folder / place).exists()]
            overrides.append(f"dataset.path={_toml(str(folder / (known or self.places)[0]))}")
        try:
            return load_config(preset=self.preset, overrides=overrides)[0]
        except ConfigurationError as error:
            raise ConfigurationError(f"cell {self.label}: {error}") from None


def study_names() -> tuple[str, ...]:
    """The studies that come with gclflow."""
    folder = resources.files("flows") / "studies"
    names = (item.name for item in folder.iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


def read_study(name: str) -> Study:
    """A study by name, or from a TOML file of the user's.

    Raises:
        ConfigurationError: there is none of that name, or it does not parse or fit.
    """
    if name in study_names():
        text = (resources.files("flows") / "studies" / f"{name}.toml").read_text("utf-8")
        return _parse(name, text)
    file = Path(name)
    if file.suffix != ".toml":
        raise ConfigurationError(
            f"there is no study {name!r}; there are: {', '.join(study_names())}, or name a .toml file"
        )
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise ConfigurationError(f"{file}: larger than {_MAX_BYTES:,} bytes")
        return _parse(file.stem, file.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file}: {error}") from None


def _parse(name: str, text: str) -> Study:
    try:
        return Study.model_validate({"name": name} | tomllib.loads(text))
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, e['loc'])) or 'study'}: {e['msg']}" for e in error.errors())
        raise ConfigurationError(f"study {name}: " + "\n".join(problems)) from None
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"study {name}: {error}") from None


def study_cells(
    study: Study,
    *,
    seeds: str | None = None,
    only: Sequence[str] = (),
    large: bool = False,
    settings: Sequence[str] = (),
) -> list[Cell]:
    """The cells in the order they run: by data set, point and variant, the seeds innermost.

    Args:
        study: the study.
        seeds: instead of the study's.
        only: patterns ``VARIANT`` or ``VARIANT/DATASET`` with wildcards; none takes all.
        large: with data sets and values marked large.
        settings: KEY=VALUE applied last, to every cell; of the field of an axis it chooses one of its values.

    Raises:
        ConfigurationError: bad seeds, a pattern or a value that no cell fits, a setting that is the
            seed's, or too many cells.
    """
    for setting in settings:
        if (field := setting.partition("=")[0].strip()) in (*study.seeded, "seed"):
            raise ConfigurationError(f"--set {field}: study {study.name} varies it itself")
    numbers = parse_seeds(seeds or study.seeds, default=0)
    patterns = [pattern if "/" in pattern else f"{pattern}/*" for pattern in only]
    pairs = [
        (dataset, variant)
        for dataset, variant in product(study.datasets, study.variants)
        if (large or not dataset.large) and _is_asked(f"{variant.name}/{dataset.name}", patterns)
    ]
    for pattern in patterns:
        if not any(fnmatchcase(f"{variant.name}/{dataset.name}", pattern) for dataset, variant in pairs):
            raise ConfigurationError(f"--only {pattern}: no cell of {study.name} fits; {_choices(study)}")
    points = list(_points(study, settings, large=large))
    if len(pairs) * len(points) * len(numbers) > _MAX_CELLS:
        raise ConfigurationError(f"study {study.name} has more than {_MAX_CELLS:,} cells")
    names = list(dict.fromkeys(dataset.name for dataset, _ in pairs))
    return [
        _cell(study, dataset, variant, point, seed, settings)
        for name in names
        for point in points
        for dataset, variant in pairs
        if dataset.name == name
        for seed in numbers
    ]


def cell_configs(cells: Sequence[Cell], data: Path | None) -> list[PipelineConfig]:
    """The configurations of all cells, before the first of them runs.

    Raises:
        ConfigurationError: one does not fit, or there is no data folder for a data set of files.
    """
    if data is None and (needy := next((cell for cell in cells if cell.places), None)):
        raise ConfigurationError(
            f"give --data, the folder of the public graphs: {needy.dataset} is looked for in "
            f"{' or '.join(needy.places)} below it"
        )
    return [cell.config(data) for cell in cells]


def _is_asked(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def _choices(study: Study) -> str:
    variants = ", ".join(variant.name for variant in study.variants)
    return f"variants: {variants}; data sets: {', '.join(dataset.name for dataset in study.datasets)}"


def _points(study: Study, settings: Sequence[str], *, large: bool) -> Iterator[dict[str, AxisValue]]:
    """The grid, in the order of the axes; of an axis that is set, that value alone."""
    given = {
        field.strip(): parse_value(raw.strip()) for field, _, raw in (s.partition("=") for s in settings)
    }
    chosen = []
    for axis in study.axes:
        values = (*axis.values, *(axis.large if large else ()))
        if axis.field in given and given[axis.field] not in values:
            told = ", ".join(map(str, values))
            raise ConfigurationError(f"--set {axis.field}: study {study.name} has it at {told}")
        chosen.append((given[axis.field],) if axis.field in given else values)
    for values in product(*chosen):
        yield {axis.field: value for axis, value in zip(study.axes, values, strict=True)}


def _cell(
    study: Study,
    dataset: StudyDataset,
    variant: StudyVariant,
    point: Mapping[str, AxisValue],
    seed: int,
    settings: Sequence[str],
) -> Cell:
    drawn = [f"{field}={seed}" for field in (*study.seeded, "seed")]
    swept = [f"{field}={_toml(value)}" for field, value in point.items()]
    layers = (study.settings, dataset.settings, variant.settings, swept, settings, drawn)
    return Cell(
        dataset=dataset.name,
        variant=variant.name,
        point=dict(point),
        seed=seed,
        preset=(variant.preset or dataset.preset).replace("{dataset}", dataset.name),
        overrides=tuple(override for layer in layers for override in layer),
        places=dataset.paths,
    )


def _toml(value: Any) -> str:
    """A scalar as TOML; JSON's strings, numbers and booleans are TOML too."""
    return json.dumps(value)
