"""Every field of every section: what affects results changes a stage's key, what is operational does not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import annotated_types
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from flows.config import STAGE_NAMES, PipelineConfig, validate_config
from flows.wiring import STAGES, PipelineState
from gcl.config import affects_results, result_fields
from gcl.readers import READERS
from gcl.readers.collection_base import CollectionConfig
from gcl.readers.hetero_base import OF_ONE_TYPE, HeteroDatasetConfig
from tasks.artifact import Artifact, hash_json
from tasks.store import Store

SECTION_STAGE = {
    "dataset": "ingest", "metapaths": "metapaths", "smooth": "smooth", "method": "train", "train": "train",
    "uncertainty": "uncertainty", "cluster": "cluster", "evaluate": "evaluate",
}  # fmt: skip
KINDS = (
    "graph",
    "hetero",
    "metapaths",
    "labels",
    "smoothed",
    "model",
    "embeddings",
    "controls",
    "uncertainty",
    "clusters",
    "metrics",
    "predictions",
)
# Fields that only make sense together with another one, and the other one.
TOGETHER = {("smooth", "weights"): {"filter": "weights"}, ("smooth", "filter"): {"weights": [0.5, 0.5]}}
DATASETS = [{"format": "digits_knn"}, {"format": "synthetic"}] + [
    {"format": name, "path": "here"} for name in READERS if name not in ("digits_knn", "synthetic")
]
METHODS = [{"name": "dmat_i"}, {"name": "dmt", "num_views": 2}]


DEFAULTS = {"dataset": DATASETS[0], "method": METHODS[0]}


def bases() -> Iterator[tuple[dict[str, Any], tuple[str, ...]]]:
    """A configuration of every data format and method, and the sections worth varying there."""
    yield DEFAULTS, tuple(SECTION_STAGE)
    for dataset in DATASETS[1:]:
        yield DEFAULTS | {"dataset": dataset}, ("dataset",)
    for method in METHODS[1:]:
        yield DEFAULTS | {"method": method}, ("method",)


def other_values(field: FieldInfo, value: Any) -> Iterator[Any]:
    """Values near the default that the field might accept too."""
    yield from (choice for choice in literals(field.annotation) if choice != value)
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        low, high = bounds(field)
        yield from (
            v for v in (value + 1, value - 1, value * 2, value / 2, (value + low) / 2, (value + high) / 2)
        )
    elif isinstance(value, tuple) and value:
        yield from ((choice,) for choice in literals(field.annotation) if (choice,) != value)
        yield from (value[:-1], (*value, value[-1] * 2), ("feature_mask", "entry_dropout"), ("kmeans-final",))
    yield from ("something", 7, 0.25, 2**29, True, ["public"], [0.5, 0.5], 3)


def literals(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [value for part in get_args(annotation) for value in literals(part)]


def bounds(field: FieldInfo) -> tuple[float, float]:
    low, high = 0.0, 100.0
    for bound in field.metadata:
        if isinstance(bound, annotated_types.Ge | annotated_types.Gt):
            low = getattr(bound, "ge", None) or getattr(bound, "gt", 0.0)
        if isinstance(bound, annotated_types.Le | annotated_types.Lt):
            high = getattr(bound, "le", None) or getattr(bound, "lt", 100.0)
    return low, high


def changed(base: dict[str, Any], section: str, name: str) -> PipelineConfig | None:
    """The configuration with this one field at another acceptable value."""
    config = validate_config(base)
    model: BaseModel = getattr(config, section)
    field, value = type(model).model_fields[name], getattr(model, name)
    for candidate in other_values(field, value):
        extra = TOGETHER.get((section, name), {})
        if name == "filter" and candidate != "weights":
            extra = {}
        values = base | {section: base.get(section, {}) | extra | {name: candidate}}
        try:
            found = validate_config(values)
        except (ValueError, ValidationError):
            continue
        if getattr(getattr(found, section), name) != value:
            return found
    return None


def fields() -> Iterator[Any]:
    for base, sections in bases():
        config = validate_config(base)
        for section in sections:
            model = type(getattr(config, section))
            tag = "-".join(map(str, base.get(section, {}).values())) or "default"
            for name, field in model.model_fields.items():
                if _applies(model, name) and len(literals(field.annotation)) != 1:  # a tag has one value
                    yield pytest.param(base, section, name, id=f"{section}-{tag}-{name}")


def _applies(model: type[BaseModel], name: str) -> bool:
    """Whether the field means anything for these data; where not, they refuse any other value."""
    if issubclass(model, HeteroDatasetConfig):
        return name not in OF_ONE_TYPE
    return not (issubclass(model, CollectionConfig) and name == "edge_holdout")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("keys") / "store")


@pytest.fixture(autouse=True)
def fixed_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Source digests are the closure's business, and slow to compute hundreds of times."""
    monkeypatch.setattr("tasks.identity.closure_digest", lambda modules: hash_json(sorted(set(modules))))
    monkeypatch.setattr("flows.wiring.source_digests", lambda config, store: {})
    monkeypatch.setattr("flows.wiring._num_classes", lambda state: 3)


def keys(config: PipelineConfig, store: Store) -> dict[str, str]:
    artifacts = {kind: Artifact(kind=kind, uri="-", digest=kind, num_bytes=0, num_rows={}) for kind in KINDS}
    state = PipelineState(config, store, artifacts=artifacts)
    return {name: STAGES[name][1](state).key for name in STAGE_NAMES}


@pytest.mark.parametrize(("base", "section", "name"), fields())
def test_a_field_changes_its_stages_key_iff_it_affects_results(
    base: dict[str, Any], section: str, name: str, store: Store
) -> None:
    other = changed(base, section, name)
    assert other is not None, "no other acceptable value found"
    config = validate_config(base)
    before, after = keys(config, store), keys(other, store)
    stage = SECTION_STAGE[section]
    assert (before[stage] != after[stage]) == affects_results(type(getattr(config, section)), name)
    unaffected = [n for n in STAGE_NAMES if n not in (stage, "report")]
    allowed = {"uncertainty"} if (section, name) == ("cluster", "num_clusters") else set()
    assert {n for n in unaffected if before[n] != after[n]} <= allowed


def test_every_operational_field_is_one_of_these(store: Store) -> None:
    """Growing this list is a decision: whatever is named here can never make a result stale."""
    named = {
        name
        for base, sections in bases()
        for section in sections
        for name in type(getattr(validate_config(base), section)).model_fields
        if not affects_results(type(getattr(validate_config(base), section)), name)
    }
    assert named <= {
        "path", "name", "splits", "backend", "dask_address", "num_workers",
        "threads_per_worker", "memory_limit", "block_columns", "checkpoint_every", "deadline_seconds",
        "max_entries",
    }  # fmt: skip


def test_the_seed_reaches_the_stages_that_draw_and_no_others(store: Store) -> None:
    before, after = keys(validate_config({}), store), keys(validate_config({"seed": 1}), store)
    assert {name for name in before if before[name] != after[name]} == {
        "train", "uncertainty", "cluster", "evaluate", "report"
    }  # fmt: skip


def test_device_joins_the_key_as_what_it_resolves_to(store: Store) -> None:
    by_device = {
        device: keys(validate_config({"device": device}), store)["train"] for device in ("cpu", "cuda")
    }
    assert by_device["cpu"] != by_device["cuda"]


def test_views_of_another_method_are_other_uncertainties(store: Store) -> None:
    """The method's code embeds the augmented views, so it belongs to the key there, and only there."""

    def uncertainty(method: str, name: str) -> str:
        return keys(validate_config({"method": {"name": name}, "uncertainty": {"method": method}}), store)[
            "uncertainty"
        ]

    assert uncertainty("augmentation", "dmat_i") != uncertainty("augmentation", "dmt")
    assert uncertainty("affinity", "dmat_i") == uncertainty("affinity", "dmt")


@given(st.permutations(sorted(SECTION_STAGE)), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_order_of_a_configuration_does_not_matter(order: list[str], draws: Any) -> None:
    plain = PipelineConfig().model_dump(mode="json")
    shuffled: dict[str, Any] = {}
    for section in order:
        items = list(plain[section].items())
        draws.shuffle(items)
        shuffled[section] = dict(items)
    assert result_fields(validate_config(shuffled)) == result_fields(PipelineConfig())


def test_where_a_source_lies_is_not_what_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.ingest import source_digests
    from tests.sources import planetoid

    monkeypatch.undo()
    found = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        config = validate_config({"dataset": planetoid(folder)}).dataset
        found.append((source_digests(config), result_fields(config)))
    assert found[0] == found[1]
    (tmp_path / "two" / "ind.tiny.test.index").write_bytes(b"7\n6\n")
    assert source_digests(config) != found[1][0]
