"""PipelineConfig: the stages' own configurations composed, and how presets, files and overrides make one."""

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ByteSize, Field, ValidationError, model_validator

from flows.method_switch import MethodSwitch, switch_method
from gcl.clustering.config import ClusterConfig
from gcl.config import Config, operational
from gcl.evaluation.config import EvaluateConfig
from gcl.metapaths import MetapathsConfig
from gcl.methods import ON_COLLECTIONS
from gcl.methods.configs import DmatIConfig, MethodConfig
from gcl.methods.defaults import flat, method_defaults
from gcl.readers import READERS, AnyDataset, reader_of
from gcl.readers.digits_knn import DigitsKnnConfig
from gcl.smoothing import SmoothingConfig
from gcl.trainer_config import TrainConfig, check_processes
from gcl.uncertainty.config import UncertaintyConfig
from tasks.regression_config import RegressionConfig

StageName = Literal["ingest", "metapaths", "smooth", "train", "uncertainty", "cluster", "evaluate", "report"]
STAGE_NAMES: tuple[StageName, ...] = (
    "ingest",
    "metapaths",
    "smooth",
    "train",
    "uncertainty",
    "cluster",
    "evaluate",
    "report",
)

MAX_SEED = 2**31 - 1
_DEFAULT_METHOD = "dmat_i"
_MAX_BYTES = 1 << 20
_MAX_DEPTH = 8


class ConfigurationError(ValueError):
    """The configuration is wrong; the message names each field and what it accepts."""


class PipelineConfig(Config):
    """Everything a run is configured by. Each section belongs to the stage of its name."""

    dataset: AnyDataset = Field(DigitsKnnConfig(), description="where the graph comes from")
    metapaths: MetapathsConfig = Field(
        MetapathsConfig(), description="which target nodes are joined; graphs of several node types alone"
    )
    smooth: SmoothingConfig = Field(SmoothingConfig(), description="the graph filter")
    method: MethodConfig = Field(DmatIConfig(), description="the contrastive method")
    train: TrainConfig = Field(TrainConfig(), description="optimisation")
    uncertainty: UncertaintyConfig = Field(UncertaintyConfig(), description="per-node uncertainty")
    cluster: ClusterConfig = Field(ClusterConfig(), description="clustering")
    evaluate: EvaluateConfig = Field(EvaluateConfig(), description="protocols and probes")
    regression: RegressionConfig = operational(
        RegressionConfig(), description="what a run of a series may lose against the last good one"
    )
    seed: int = Field(0, ge=0, le=MAX_SEED, description="seed of every random draw of the run")
    device: Literal["auto", "cpu", "cuda"] = operational(
        "auto", description="where to train; the device it resolves to joins the cache key"
    )
    memory_limit: ByteSize | None = operational(
        None,
        ge=2**28,
        description="memory a stage may take, as 8GB: work is cut into smaller blocks to stay below it, a "
        "stage that cannot is refused before it begins; none: what the machine has",
    )

    @model_validator(mode="after")
    def _processes_fit_method(self) -> Self:
        """Told before anything runs, and not after hours of smoothing."""
        if self.train.num_processes > 1:
            check_processes(self.method)
        return self

    @model_validator(mode="before")
    @classmethod
    def _method_fits_data(cls, values: Any) -> Any:
        """What a method reads must be known before any data are opened."""
        return _named_for_data(values, values) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _data_fit_method(self) -> Self:
        if "collection" in self.method.inputs and reader_of(self.dataset.format).holds != "collection":
            known = ", ".join(name for name, reader in READERS.items() if reader.holds == "collection")
            raise ValueError(
                f"method.name={self.method.name} embeds the graphs of a collection, and dataset.format="
                f"{self.dataset.format} holds one graph; collections: {known}"
            )
        return self

    @model_validator(mode="after")
    def _uncertainty_knows_its_clusters(self) -> Self:
        """Uncertainty is scored before clustering: a number that clustering finds comes too late for it."""
        needs = self.uncertainty.method == "cluster_margin" or (
            self.uncertainty.method == "augmentation" and self.uncertainty.disagreement == "membership"
        )
        settled = isinstance(self.cluster.num_clusters, int) or self.cluster.num_clusters == "classes"
        if needs and not settled and self.uncertainty.num_clusters is None:
            raise ValueError(
                "uncertainty.num_clusters must be set where cluster.num_clusters is not a count or 'classes'"
            )
        return self


def stages_of(config: PipelineConfig) -> tuple[StageName, ...]:
    """The stages of a run, in order: metapaths are for graphs of several node types alone."""
    is_hetero = reader_of(config.dataset.format).holds == "hetero"
    return tuple(name for name in STAGE_NAMES if name != "metapaths" or is_hetero)


def load_config(
    *,
    preset: str | None = None,
    file: Path | None = None,
    overrides: Sequence[str] = (),
) -> tuple[PipelineConfig, str | None]:
    """Build a configuration: defaults, then a preset or file, then KEY=VALUE overrides.

    Where neither a preset nor a file is named, the preset made for the chosen data set and method is
    used if there is one; ``preset="none"`` declines that. Where there is none, the configuration rests on
    the method's own defaults. A preset or file says all that differs from the plain ones; under another
    method than the one it was made for, it takes that method's training, see `flows.method_switch`.

    Args:
        preset: name of a preset that comes with gclflow; ``none`` for the method's defaults.
        file: a TOML file of the user's.
        overrides: ``section.field=value``; values are TOML, or plain text.

    Returns:
        The configuration, and the name of the preset it rests on.

    Raises:
        ConfigurationError: an unknown preset, a file that does not parse, or a field that does not fit.
    """
    base, changes, preset = _base_and_changes(preset, file, overrides)
    switch_method(base, changes)
    _merge(base, changes)
    if isinstance(method := base.setdefault("method", {}), dict):
        method.setdefault("name", _DEFAULT_METHOD)
    return validate_config(base), preset


def method_switch(
    *, preset: str | None = None, file: Path | None = None, overrides: Sequence[str] = ()
) -> MethodSwitch | None:
    """What became of a preset or file whose method the overrides change; None where they do not.

    Args:
        preset: as for `load_config`.
        file: as for `load_config`.
        overrides: as for `load_config`.

    Raises:
        ConfigurationError: as `load_config`.
    """
    base, changes, _ = _base_and_changes(preset, file, overrides)
    return switch_method(base, changes)


def defaults_taken(overrides: Sequence[str]) -> dict[str, Any]:
    """What a configuration without preset and file takes from its method's defaults.

    Args:
        overrides: as for `load_config`.

    Returns:
        values by full key, as ``train.epochs``, without those that the overrides set.

    Raises:
        ConfigurationError: an override that is none.
    """
    return flat(_defaults_under(_read_overrides(overrides)))


def validate_config(values: Mapping[str, Any]) -> PipelineConfig:
    """A configuration from nested values.

    Raises:
        ConfigurationError: one line a field that does not fit.
    """
    try:
        return PipelineConfig.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigurationError("\n".join(_explain(item) for item in error.errors())) from None


def preset_names() -> tuple[str, ...]:
    """The presets that come with gclflow."""
    folder = resources.files("flows") / "presets"
    return tuple(
        sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))
    )


def read_preset(name: str) -> dict[str, Any]:
    """A preset: ``about`` (what it is and where its numbers come from) and ``config``.

    Raises:
        ConfigurationError: there is no preset of that name.
    """
    if name not in preset_names():
        raise ConfigurationError(f"there is no preset {name!r}; there are: {', '.join(preset_names())}")
    document = tomllib.loads((resources.files("flows") / "presets" / f"{name}.toml").read_text("utf-8"))
    return {"about": document.pop("about", {}), "config": document}


def _matching_preset(changes: Mapping[str, Any]) -> str | None:
    """The preset whose data set (format and name) and method are those asked for, if there is one.

    Of several, the one named after them: ``cora-hsan`` before ``cora-clustering``, which rests on hsan too.
    """
    wanted = {name: _given(changes, "dataset", name) for name in ("format", "name")}
    method = _given(changes, "method", "name") or _DEFAULT_METHOD
    plain = (wanted["name"], f"{wanted['name']}-{method}")
    for name in sorted(preset_names(), key=lambda name: (name not in plain, name)):
        config = read_preset(name)["config"]
        dataset = config.get("dataset", {})
        same_data = (dataset.get("format"), dataset.get("name")) == (wanted["format"], wanted["name"])
        if wanted["name"] and same_data and config.get("method", {}).get("name") == method:
            return name
    return None


def _defaults_under(changes: Mapping[str, Any]) -> dict[str, Any]:
    return dict(method_defaults(_given(changes, "method", "name") or _DEFAULT_METHOD, changes))


def _base_and_changes(
    preset: str | None, file: Path | None, overrides: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any], str | None]:
    """What a configuration rests on, what is put over it, and the preset's name."""
    if preset is not None and file is not None:
        raise ConfigurationError("give a preset or a configuration file, not both")
    changes = _read_overrides(overrides)
    if file is not None:
        base: dict[str, Any] = _read_toml(file)
    else:
        preset = preset or _matching_preset(changes)
        preset = None if preset == "none" else preset
        base = _defaults_under(changes) if preset is None else read_preset(preset)["config"]
    changes = _named_for_data(changes, base)
    chosen, before = _given(changes, "dataset", "format"), _given(base, "dataset", "format")
    if chosen is not None and before is not None and before != chosen:
        base.pop("dataset")  # whose other fields do not apply
    return _named_for_data(base, changes), changes, preset


def _given(values: Mapping[str, Any], section: str, name: str) -> Any:
    """A field of a section, before anything was validated; None where there is none."""
    inner = values.get(section)
    return inner.get(name) if isinstance(inner, Mapping) else None


def _read_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for override in overrides:
        _merge(changes, _parse_override(override))
    return _named_for_data(changes, changes)


def _named_for_data(values: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with the method's sibling on whole graphs where `data` are a collection of graphs."""
    reader = READERS.get(str(_given(values, "dataset", "format") or _given(data, "dataset", "format")))
    meant = ON_COLLECTIONS.get(str(_given(values, "method", "name")))
    if reader is None or reader.holds != "collection" or meant is None:
        return dict(values)
    return {**values, "method": {**values["method"], "name": meant}}


def _parse_override(text: str) -> dict[str, Any]:
    key, separator, raw = text.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(part.isidentifier() for part in parts):
        raise ConfigurationError(f"--set takes KEY=VALUE, for example train.epochs=50; got {text!r}")
    value: Any = parse_value(raw.strip())
    for part in reversed(parts):
        value = {part: value}
    return dict(value)


def parse_value(raw: str) -> Any:
    """What stands behind ``=`` in ``--set``: TOML, or else a string as it is."""
    try:
        return tomllib.loads(f"value = {raw}")["value"] if "\n" not in raw else raw
    except (ValueError, RecursionError):  # also for an integer of too many digits
        return raw


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise ConfigurationError(f"{file}: larger than {_MAX_BYTES:,} bytes")
        document = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from None
    except ConfigurationError:
        raise
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{file}: {error}") from None
    document.pop("about", None)
    if _depth(document) > _MAX_DEPTH:
        raise ConfigurationError(f"{file}: nested deeper than {_MAX_DEPTH} levels")
    return document


def _depth(value: Any) -> int:
    """Levels of a document, counted without recursion: dotted keys nest as deep as the file is long."""
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [
            inner
            for item in level
            if isinstance(item, dict | list)
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
    return depth


def _merge(base: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def _explain(item: Mapping[str, Any]) -> str:
    """One validation error as ``section.field: what is wrong``, without the union's own tags."""
    location = [str(part) for part in item["loc"]]
    if len(location) > 2 and location[0] in ("dataset", "method"):
        del location[1]  # the variant's tag, which pydantic inserts
    if item["type"] == "union_tag_not_found":
        return f"{'.'.join(location)}.{item['ctx']['discriminator'].strip(chr(39))}: is missing"
    if item["type"] == "union_tag_invalid":
        found = {name: str(item["ctx"][name]).replace("'", "") for name in ("discriminator", "expected_tags")}
        given = f"{item['ctx']['tag']!r:.40}"
        return f"{'.'.join(location)}: there is no {found['discriminator']} {given}; {found['expected_tags']}"
    given = "" if item["type"] in ("missing", "extra_forbidden") else f" (got {item['input']!r:.80})"
    if item["type"] == "extra_forbidden":
        return f"{'.'.join(location)}: there is no such field"
    return f"{'.'.join(location) or 'configuration'}: {item['msg']}{given}"
